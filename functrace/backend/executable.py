"""A jaxpr as something that runs: machine code where the compiler has some, NumPy calls where it refuses.

Compilation never changes what a program means: what cannot be compiled, and a call that the machine code declines (an
index out of range), runs as the flat Python function of the same program.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.backend import disk_cache, llvm, symbols
from functrace.backend.compiler.emit import Unsupported
from functrace.backend.compiler.program import (
    Kernel,
    Module,
    compile_module,
    description,
    load_described,
    load_module,
    prepare,
)
from functrace.backend.dispatcher import Dispatcher, make_dispatcher
from functrace.backend.fingerprint import program_text
from functrace.backend.signatures import Argument, Output, Signature
from functrace.core.evaluate import python_function
from functrace.core.ir import Jaxpr
from functrace.core.trace import EVAL, reset_trace, set_trace
from functrace.errors import CompilationWarning, DTypeError
from functrace.interpreters.contractions import identity
from functrace.util import switched_on, without_collection

__all__ = ["Executable", "compilation_disabled"]

_MISSED = object()
_compiling = threading.RLock()


def compilation_disabled() -> bool:
    """Whether the environment asks for no machine code."""
    return switched_on("FUNCTRACE_DISABLE_JIT", False)


class Executable:
    """A program that can be run.

    Args:
        jaxpr: without constvars.
        constants: values of its first inputs, which are bound.
    """

    def __init__(self, jaxpr: Jaxpr, constants: Sequence[Any] = ()) -> None:
        self._given = jaxpr
        self._jaxpr: Jaxpr | None = None
        self.constants = [_owned(c, v.aval.dtype) for c, v in zip(constants, jaxpr.invars, strict=False)]
        known = {v: identity(c) for v, c in zip(jaxpr.invars, self.constants, strict=False)}
        self._identities = {v: kind for v, kind in known.items() if kind is not None}
        self.avals = [v.aval for v in jaxpr.invars[len(self.constants) :]]
        self.outputs: list[Output] = []
        self._module: Module | None = None
        self.kernel: Kernel | None = None
        #: Why there is no machine code.
        self.refusal: str | None = None
        self._python: Callable[..., list[Any]] | None = None
        self._dispatcher: Dispatcher | None = None
        self._signatures: set[Signature] = set()
        with _compiling, without_collection():
            self._make()

    @property
    def jaxpr(self) -> Jaxpr:
        """The program that is compiled: inlined and simplified."""
        if self._jaxpr is None:
            token = set_trace(EVAL)
            try:
                self._jaxpr = prepare(self._given, self._identities)
            except Exception as error:
                self._jaxpr = self._given
                self._report(error)
            finally:
                reset_trace(token)
        return self._jaxpr

    @property
    def module(self) -> Module | None:
        """The plan and the code as text, if there is machine code; made when asked for where that came from disk."""
        if self._module is None and self.kernel is not None:
            with _compiling:
                self._module = compile_module(self.jaxpr, len(self.constants), llvm.target())
        return self._module

    def _make(self) -> None:
        """Machine code from the disk, where the traced program is its key; else a new plan and code."""
        text = program_text(self._given) if disk_cache.usable() else None
        if text is None:
            self._compile(None)
            return
        target = llvm.target()
        bound = [str(self._identities.get(v)) for v in self._given.invars[: len(self.constants)]]
        key = disk_cache.key("traced program", text, str(target), ";".join(bound), symbols.blas_convention())
        found = disk_cache.load(key)
        if found is not None:
            try:
                self.outputs = self._outputs()
                self.kernel = load_described(found.code, found.meta, self.constants, target)
            except Exception:  # what the code needs is not here any more
                self.kernel = None
        if self.kernel is None:
            self._compile(key)

    def _outputs(self) -> list[Output]:
        avals = self._given.out_avals
        return [Output.number(a.dtype) if a.shape == () else Output.array(a.dtype, a.shape) for a in avals]

    def _compile(self, key: str | None) -> None:
        """Plans and compiles; the code is kept on disk under `key`, if there is one, else under its own text."""
        jaxpr = self.jaxpr
        if self.refusal is not None:
            return
        try:
            self.outputs = self._outputs()
            target = llvm.target()
            module = self._module = compile_module(jaxpr, len(self.constants), target)
            described = None if key is None else description(module)
            if key is None or described is None:
                convention = symbols.blas_convention()
                code = disk_cache.object_code(
                    "program", target, lambda: module.text, module.text, convention, opt=module.opt
                )
            else:
                code = llvm.compile_ir(module.text, target, module.opt)
                disk_cache.store(key, code, {"name": "program", **described})
            self.kernel = load_module(module, code, self.constants, target)
        except (Unsupported, DTypeError) as refusal:
            self.refusal = str(refusal)
        except Exception as error:
            self._report(error)

    def _report(self, error: Exception) -> None:
        self.refusal = f"{type(error).__name__}: {error}"
        warnings.warn(
            "a program could not be compiled and runs by NumPy calls instead; please report this as a bug of "
            f"functrace, with the program and this line: {self.refusal.splitlines()[0][:300]}",
            CompilationWarning,
            stacklevel=3,
        )

    def evaluate(self, *values: Any) -> list[Any]:
        """Runs the program as NumPy calls."""
        if self._python is None:
            self._python = python_function(self.jaxpr)
        token = set_trace(EVAL)
        try:
            return self._python(*self.constants, *values)
        finally:
            reset_trace(token)

    def signature(self, arguments: Sequence[Argument], as_tuple: bool = True) -> Signature | None:
        """What the machine code takes and gives, for arguments of these kinds; None if they are not the program's."""
        if self.kernel is None or len(arguments) != len(self.avals):
            return None
        for argument, aval in zip(arguments, self.avals, strict=True):
            if argument.dtype != aval.dtype or argument.shape != aval.shape:
                return None
        return Signature(tuple(arguments), tuple(self.outputs), as_tuple, self.kernel.workspace, self.kernel.long)

    def run(self, *values: Any) -> Sequence[Any]:
        """Runs the program on plain values; results are new arrays and NumPy scalars."""
        if self.kernel is None:
            return self.evaluate(*values)
        if self._dispatcher is not None:
            found = self._dispatcher(*values)
            if found is not _MISSED:
                return found
        proper = [_proper(v, a.dtype) for v, a in zip(values, self.avals, strict=True)]
        arguments = [Argument.of(v) for v in proper]
        signature = None if None in arguments else self.signature([a for a in arguments if a is not None])
        if signature is None:
            return self.evaluate(*values)
        if self._dispatcher is None:
            self._dispatcher = make_dispatcher(signature, self.kernel.address, _missed, keep=self.kernel)
        found = self._dispatcher(*proper)
        if found is _MISSED and signature not in self._signatures:
            self._signatures.add(signature)
            self._dispatcher.add_signature(signature, self.kernel.address, self.kernel)
            found = self._dispatcher(*proper)
        # What the machine code declines though the types fit, NumPy says the right thing about.
        return self.evaluate(*values) if found is _MISSED else found


def _missed(*args: Any, **kwargs: Any) -> Any:
    return _MISSED


def _owned(value: Any, dtype: np.dtype) -> np.ndarray:
    """A constant as machine code reads it, out of reach of later changes."""
    return np.array(value, dtype, order="C", copy=True)


def _proper(value: Any, dtype: np.dtype) -> Any:
    """A value as machine code takes it: a contiguous array in the machine's byte order, or a NumPy scalar."""
    if isinstance(value, np.ndarray) and value.ndim:
        if value.dtype == dtype:
            value = value.view(dtype)  # of the integer types of one size, the one that machine code knows
        return np.require(value, dtype, ["C", "A"]) if type(value) is np.ndarray else np.array(value, dtype, order="C")
    return dtype.type(value)
