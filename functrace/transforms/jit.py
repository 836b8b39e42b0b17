"""jit: a function traced once per type of its arguments, then run as machine code without tracing.

The program is simplified (equal operations once, dead code gone, constants folded), compiled as one, and called through
a native dispatcher. Transformations of a jitted function are programs too, derived and compiled once per type.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from functrace import tree
from functrace.backend import llvm
from functrace.backend.dispatcher import Dispatcher, make_dispatcher
from functrace.backend.executable import Executable, compilation_disabled
from functrace.backend.explain import schedule_text
from functrace.backend.flattener import flattening, missed
from functrace.backend.signatures import Argument, Signature
from functrace.control.call import executable, jit_call, run_jaxpr
from functrace.control.reroll import reroll
from functrace.core.ir import ClosedJaxpr, Jaxpr, eval_jaxpr, has_effects, hoist_constants
from functrace.core.trace import EVAL, Tracer, current_trace
from functrace.core.types import ShapedArray, aval_of, canonicalize
from functrace.errors import ArgumentError, InputError, RecompilationWarning
from functrace.interpreters.constants import with_known_constants
from functrace.interpreters.staging import stage
from functrace.transforms._flatten import argument_positions, check_callable, check_hashable, export
from functrace.transforms._flatten import call as call_user
from functrace.util import user_line, without_collection

__all__ = ["CacheInfo", "Jitted", "Lowered", "jit"]

_WEAK = (float, int, complex)
_STORM = 50  # programs of one function, from which on something is probably wrong
DIALECTS = ("jaxpr", "simplified", "schedule", "llvm", "assembly")


class CacheInfo(NamedTuple):
    """What a jitted function has traced so far.

    Args:
        misses: calls that traced.
        size: programs that are kept.
    """

    misses: int
    size: int


class _Program:
    """One traced specialization."""

    __slots__ = ("_executable", "constants", "in_tree", "jaxpr", "out_tree")

    def __init__(self, jaxpr: Jaxpr, constants: list[Any], in_tree: tree.TreeDef, out_tree: tree.TreeDef) -> None:
        self.jaxpr, self.constants, self.in_tree, self.out_tree = jaxpr, constants, in_tree, out_tree
        self._executable: Executable | None = None

    def executable(self) -> Executable:
        """The machine code, its constants bound; made once."""
        if self._executable is None:
            bound = Executable(self.jaxpr, self.constants) if self.constants else executable(self.jaxpr)
            self._executable = bound
        return self._executable

    def run(self, leaves: Sequence[Any]) -> list[Any]:
        if compilation_disabled():
            return run_jaxpr(self.jaxpr, *self.constants, *leaves)
        return list(self.executable().run(*leaves))


class Lowered:
    """A function lowered for one type of arguments."""

    def __init__(self, program: _Program, name: str) -> None:
        self._program = program
        self._name = name

    def as_text(self, dialect: str = "simplified") -> str:
        """The program as text.

        Args:
            dialect: "jaxpr", as it was traced; "simplified", as it is compiled; "schedule", what is fused, called and
                left to NumPy; "llvm" or "assembly", the code.

        Raises:
            ArgumentError: there is no such dialect, or no machine code.
        """
        if dialect == "jaxpr":
            return self._program.jaxpr.pretty()
        if dialect == "simplified":
            return self._program.executable().jaxpr.pretty()
        if dialect not in DIALECTS:
            raise ArgumentError(
                "a lowered function has no text in this dialect", where=user_line(), got=repr(dialect),
                remedy=f"use one of {', '.join(DIALECTS)}",
            )  # fmt: skip
        compiled = self._program.executable()
        if dialect == "schedule":
            return schedule_text(compiled)
        if compiled.module is None:
            raise ArgumentError(
                f"there is no machine code: {compiled.refusal}", where=user_line(), remedy="look at the schedule"
            )
        text = compiled.module.text
        return text if dialect == "llvm" else llvm.assembly(text, llvm.target(), compiled.module.opt)

    def compile(self) -> Callable[..., Any]:
        """A function of arguments of exactly these types, without the static ones.

        Raises:
            InputError: its arguments are of other types (when called).
        """
        program = self._program
        program.executable()
        avals = program.jaxpr.in_avals[len(program.constants) :]

        def compiled(*args: Any, **kwargs: Any) -> Any:
            leaves, in_tree = tree.flatten((args, kwargs))
            values = [canonicalize(leaf) for leaf in leaves]
            if in_tree != program.in_tree or [aval_of(v) for v in values] != avals:
                raise InputError(
                    f"{self._name} was compiled for arguments of other types",
                    where=user_line(), got=", ".join(str(aval_of(v)) for v in values),
                    remedy=f"pass {', '.join(map(str, avals))}, or call the jitted function itself",
                )  # fmt: skip
            return _run(program, values)

        return compiled


def _run(program: _Program, leaves: list[Any]) -> Any:
    return tree.unflatten(program.out_tree, export(program.run(leaves), [*program.constants, *leaves]))


class Jitted:
    """A jitted function; see `jit`.

    Each has a class of its own, whose `__call__` becomes the native dispatcher when the first program is compiled.
    Calls that no compiled program fits come to `_call`.
    """

    def __init__(
        self, fun: Callable[..., Any], static_argnums: tuple[int, ...], static_argnames: frozenset[str], inline: bool
    ) -> None:
        functools.update_wrapper(self, fun, updated=())  # attributes of a callable object are not ours
        self.__name__ = getattr(fun, "__name__", type(fun).__name__)
        self.fun = fun
        self.static_argnums, self.static_argnames, self.inline = static_argnums, static_argnames, inline
        self._lock = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        self._programs: dict[Any, _Program] = {}
        self._misses = 0
        #: Calls compiled programs of flat arguments.
        self._flat: Dispatcher | None = None
        #: Likewise for arguments of a structure, by structures of arguments and results.
        self._structured: dict[Any, Dispatcher] = {}
        self._known: set[Any] = set()
        type(self).__call__ = Jitted.__call__  # type: ignore[method-assign]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        """Calls that the native dispatcher does not serve."""
        if compilation_disabled():
            return self.fun(*args, **kwargs)
        program, leaves, raw = self._specialize(args, kwargs)
        if current_trace() is EVAL:
            if any(isinstance(leaf, Tracer) for leaf in leaves):
                return tree.unflatten(program.out_tree, jit_call.bind(*leaves, jaxpr=program.jaxpr, name="jit"))
            result = _run(program, leaves)
            if not kwargs and not self.static_argnums:
                self._serve(program, args, raw)
            return result
        operands = [*program.constants, *(_kept(leaf) for leaf in leaves)]
        if self.inline:
            outs = eval_jaxpr(program.jaxpr, (), *operands)
        else:
            outs = jit_call.bind(*operands, jaxpr=program.jaxpr, name=self.__name__)
        return tree.unflatten(program.out_tree, outs)

    def _serve(self, program: _Program, args: tuple[Any, ...], raw: list[Any]) -> None:
        """Lets the native dispatcher take calls like this one from now on."""
        arguments = [Argument.of(leaf) for leaf in raw]
        if None in arguments or any(map(has_effects, program.jaxpr.eqns)):
            return
        kinds = [a for a in arguments if a is not None]
        compiled, out_tree = program.executable(), program.out_tree
        single = out_tree == tree.structure(0)
        row = out_tree == tree.structure((0,) * out_tree.num_leaves)
        flat = len(raw) == len(args) and all(a is b for a, b in zip(args, raw, strict=True)) and (single or row)
        signature = compiled.signature(kinds, as_tuple=not single)
        structure = None if flat else (tree.structure(args), out_tree)
        if signature is None or (signature, structure) in self._known:
            return
        assert compiled.kernel is not None
        with self._lock:
            self._known.add((signature, structure))
            if structure is None:
                self._serve_flat(signature, compiled)
            else:
                self._serve_structure(structure, signature, compiled)

    def _serve_flat(self, signature: Signature, compiled: Executable) -> None:
        assert compiled.kernel is not None
        if self._flat is None:
            self._flat = make_dispatcher(signature, compiled.kernel.address, self._call, keep=compiled)
            self._entry(self._flat.__call__)
        else:
            self._flat.add_signature(signature, compiled.kernel.address, compiled)

    def _serve_structure(self, structure: Any, signature: Signature, compiled: Executable) -> None:
        assert compiled.kernel is not None
        found = self._structured.get(structure)
        signature = Signature(signature.arguments, signature.outputs, True, signature.workspace, signature.release_gil)
        if found is not None:
            found.add_signature(signature, compiled.kernel.address, compiled)
            return
        dispatcher = make_dispatcher(signature, compiled.kernel.address, missed, keep=compiled)
        self._structured[structure] = dispatcher
        # Structures are asked for in turn, the newest first.
        current = self.__dict__.get("_outermost", self._call)
        self._outermost = flattening(structure[0], structure[1], dispatcher.__call__, current)
        if self._flat is None:
            self._entry(staticmethod(self._outermost))

    def _entry(self, call: Any) -> None:
        type(self).__call__ = call  # type: ignore[method-assign]

    def _specialize(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[_Program, list[Any], list[Any]]:
        """The program for these arguments, their dynamic leaves, and these as they came."""
        # A static parameter given by name is in static_argnames.
        given = [n for n in self.static_argnums if -len(args) <= n < len(args)]
        positions = argument_positions(given, len(args), "jit") if given else ()
        static = tuple((i, args[i]) for i in positions)
        named = tuple((k, kwargs[k]) for k in sorted(kwargs) if k in self.static_argnames)
        for place, value in (*static, *named):
            check_hashable(value, f"static argument {place!r}")
        dynamic_args = tuple(a for i, a in enumerate(args) if i not in positions)
        dynamic_kwargs = {k: v for k, v in kwargs.items() if k not in self.static_argnames}
        raw, in_tree = tree.flatten((dynamic_args, dynamic_kwargs))
        leaves = [canonicalize(leaf) for leaf in raw]
        weak = tuple(type(leaf) in _WEAK or getattr(leaf, "weak", False) for leaf in raw)
        avals = tuple(aval_of(leaf) for leaf in leaves)
        kinds = tuple(_kind(value) for _, value in (*static, *named))
        key = (in_tree, avals, weak, static, named, kinds)
        program = self._programs.get(key)
        if program is not None:
            return program, leaves, raw
        with self._lock:
            self._misses += 1
            if self._misses == _STORM:
                self._warn(avals, static, named)
            program = self._trace(static, dict(named), in_tree, avals, weak, len(args))
            if not any(isinstance(c, Tracer) for c in program.constants):
                program = self._programs.setdefault(key, program)
        return program, leaves, raw

    def _warn(self, avals: Sequence[ShapedArray], static: Any, named: Any) -> None:
        """Reports a storm of compilations, once."""
        varying = "a static argument" if static or named else "the shape or dtype of an argument"
        warnings.warn(
            f"{self.__name__} has been traced and compiled {_STORM} times, because {varying} changes from call to "
            f"call; the last types are {', '.join(map(str, avals))}. Pass what changes as a traced argument, or pad "
            "arrays to a few shapes",
            RecompilationWarning,
            stacklevel=4,
        )

    def _trace(
        self,
        static: tuple[tuple[int, Any], ...],
        named: dict[str, Any],
        in_tree: tree.TreeDef,
        avals: Sequence[ShapedArray],
        weak: Sequence[bool],
        count: int,
    ) -> _Program:
        out_tree: list[tree.TreeDef] = []
        fixed = dict(static)

        def flat_fun(*values: Any) -> list[Any]:
            dynamic, kwargs = tree.unflatten(in_tree, values)
            rest = iter(dynamic)
            args = [fixed[i] if i in fixed else next(rest) for i in range(count)]
            leaves, structure = tree.flatten(call_user(self.fun, args, {**kwargs, **named}))
            out_tree.append(structure)
            return [canonicalize(leaf) for leaf in leaves]

        with without_collection():
            jaxpr, constants = hoist_constants(with_known_constants(stage(flat_fun, avals, weak, "jit", reroll)))
        return _Program(jaxpr, constants, in_tree, out_tree[0])

    def trace(self, *args: Any, **kwargs: Any) -> ClosedJaxpr:
        """The traced program for these arguments; its first inputs are what the function closes over."""
        program, _, _ = self._specialize(args, kwargs)
        count = len(program.constants)
        jaxpr = program.jaxpr
        closed = Jaxpr(jaxpr.invars[:count], jaxpr.invars[count:], jaxpr.eqns, jaxpr.outvars)
        return ClosedJaxpr(closed, program.constants)

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """The function lowered for these arguments, to be looked at or compiled."""
        return Lowered(self._specialize(args, kwargs)[0], self.__name__)

    def clear_cache(self) -> None:
        """Forget all programs."""
        with self._lock:
            self._forget()

    def cache_info(self) -> CacheInfo:
        """How many calls were traced, and how many programs are kept."""
        return CacheInfo(self._misses, len(self._programs))

    def __copy__(self) -> Jitted:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Jitted:
        return self  # as of functions

    def __reduce__(self) -> str | tuple[Any, ...]:
        """By its name where that means it (a decorated function), else from the function; programs stay behind."""
        name = getattr(self, "__qualname__", "")
        found: Any = sys.modules.get(self.__module__)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is self:
            return name
        numbers, names = self.static_argnums, tuple(self.static_argnames)
        return functools.partial(jit, static_argnums=numbers, static_argnames=names, inline=self.inline), (self.fun,)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)


def _kind(value: Any) -> Any:
    """What tells apart static values that are equal: their types, the signs of zeros."""
    if isinstance(value, tuple):
        return type(value), tuple(map(_kind, value))
    if isinstance(value, (float, complex)):
        return type(value), str(value)
    return type(value)


def _kept(leaf: Any) -> Any:
    """A leaf out of reach of later changes, where a trace keeps it."""
    owned = type(leaf) is np.ndarray and leaf.flags.writeable and current_trace().captures
    return leaf.copy() if owned else leaf


def jit(
    fun: Callable[..., Any] | None = None,
    *,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
    inline: bool = False,
) -> Any:
    """A function that is traced once per type of its arguments and then runs without tracing.

    Python code in the function runs at tracing time only, so control flow on traced values needs `functrace.lax` or
    static arguments. What the function closes over is fixed when it is traced.

    Args:
        fun: function of arrays or pytrees of arrays. Without it, a decorator is returned.
        static_argnums: positional arguments that Python sees as they are; each value is traced anew.
        static_argnames: keyword arguments likewise.
        inline: whether a call inside another traced function leaves no call behind.

    Returns:
        The jitted function, with `lower`, `trace`, `clear_cache` and `cache_info`. `FUNCTRACE_DISABLE_JIT=1` in the
        environment, set before the first call, makes it call `fun` itself.

    Raises:
        ArgumentError: a static argument is none of the function's.
        AbstractValueError: Python needs the value of a traced argument (when called).
        NonHashableError: a static argument cannot be hashed (when called).

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> f = functrace.jit(functrace.grad(lambda x: np.sin(x) ** 2))
        >>> f(0.0), f(0.0), f.cache_info().size
        (np.float64(0.0), np.float64(0.0), 1)
    """
    if fun is None:
        return functools.partial(jit, static_argnums=static_argnums, static_argnames=static_argnames, inline=inline)
    check_callable(fun, "jit")
    numbers = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums or ())
    names = {static_argnames} if isinstance(static_argnames, str) else set(static_argnames or ())
    own = type("Jitted", (Jitted,), {"__module__": __name__, "__doc__": Jitted.__doc__})
    return own(fun, *_static(fun, numbers, names), inline)


def _static(
    fun: Callable[..., Any], numbers: tuple[int, ...], names: set[str]
) -> tuple[tuple[int, ...], frozenset[str]]:
    """Static positions and names, each of a static parameter, however it is given.

    Raises:
        ArgumentError: the function has no such parameter.
    """
    if not numbers and not names:
        return (), frozenset()
    try:
        parameters = inspect.signature(fun).parameters.values()
    except (TypeError, ValueError):
        return numbers, frozenset(names)
    places = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    count, kinds = len(places), {p.kind for p in parameters}
    known = {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        beyond = [i for i in numbers if not -count <= i < count]
        _check_static("static_argnums", beyond, f"{count} positional arguments")
        numbers = tuple([i + count if i < 0 else i for i in numbers])
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        _check_static("static_argnames", sorted(names - known), f"the arguments {', '.join(sorted(known)) or 'none'}")
    found = dict.fromkeys((*numbers, *(i for i, name in enumerate(places) if name in names)))
    return tuple(found), frozenset(names).union(places[i] for i in numbers if 0 <= i < count)


def _check_static(option: str, unknown: list[Any], has: str) -> None:
    if unknown:
        raise ArgumentError(
            f"{option} of jit names an argument that the function does not have",
            where=user_line(),
            got=f"{', '.join(map(repr, unknown))} for a function with {has}",
            remedy="number the positional arguments from 0, or give the names of its parameters",
        )
