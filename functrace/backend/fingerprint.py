"""All that a program's machine code depends on, as text: the key under which another process finds the code.

Two programs with the same text have the same code. So a text has every operation with its parameters, in the order of
the program, variables by number, types, and the bits of numbers; constants that are bound later count by their type. A
program has no text if its code may depend on what text cannot tell: functions given by the user, Python objects, and
primitives other than functrace's own with functrace's own rules.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.core.ir import Atom, ClosedJaxpr, Jaxpr, Var
from functrace.core.lowering import Lowering
from functrace.core.primitive import Primitive
from functrace.core.types import ShapedArray

__all__ = ["program_text"]

_PLAIN = (int, str, bool, type(None))
_MOST_BYTES = 2**20  # of arrays in a program, from which on it is not worth it


class _Untellable(Exception):
    """The code may depend on what text cannot tell."""


def program_text(jaxpr: Jaxpr) -> str | None:
    """The text of a program before it is inlined and simplified, or None if it has none."""
    try:
        return _Writer().program(jaxpr)
    except _Untellable:
        return None


class _Writer:
    def __init__(self) -> None:
        #: Variables by number, as text.
        self._names: dict[Var, str] = {}
        self._avals: dict[ShapedArray, str] = {}
        self._programs: dict[int, int] = {}
        self._primitives: set[Primitive] = set()
        self._bytes = 0

    def program(self, jaxpr: Jaxpr) -> str:
        parts: list[str] = []
        self._program(jaxpr, parts)
        return "".join(parts)

    def _program(self, jaxpr: Jaxpr, parts: list[str]) -> None:
        known = self._programs.get(id(jaxpr))
        if known is not None:
            parts.append(f"program {known}\n")
            return
        self._programs[id(jaxpr)] = len(self._programs)
        parts.append("{" + self._defined(jaxpr.constvars) + ";" + self._defined(jaxpr.invars) + "\n")
        names, primitives = self._names, self._primitives
        aval, aval_text = None, ""  # of most outputs it is that of the one before
        for eqn in jaxpr.eqns:
            primitive = eqn.primitive
            if primitive not in primitives:
                primitives.add(primitive)
                parts.append(f"{primitive.name}: {_rules(primitive)}\n")
            params = self._value(eqn.params, parts) if eqn.params else ""
            parts.append(primitive.name)
            for atom in eqn.invars:
                parts.append(" ")
                parts.append(names[atom] if type(atom) is Var else self._constant(atom.val))  # type: ignore[union-attr]
            outs = eqn.outvars
            if len(outs) != 1:
                parts.append(f"{params}->{self._defined(outs)}\n")
                continue
            if outs[0].aval is not aval:
                aval = outs[0].aval
                aval_text = f"->{self._type(aval)}\n"
            names[outs[0]] = str(len(names))
            if params:
                parts.append(params)
            parts.append(aval_text)
        parts.append("}" + ",".join(map(self._atom, jaxpr.outvars)) + "\n")

    def _defined(self, variables: Sequence[Var]) -> str:
        for var in variables:
            self._names[var] = str(len(self._names))
        return ",".join([self._type(var.aval) for var in variables])

    def _type(self, aval: ShapedArray) -> str:
        text = self._avals.get(aval)
        if text is None:
            text = self._avals[aval] = self._dtype(aval.dtype) + repr(aval.shape)
        return text

    def _atom(self, atom: Atom) -> str:
        if type(atom) is Var:
            return self._names[atom]
        return self._constant(atom.val)  # type: ignore[union-attr]

    def _constant(self, value: Any) -> str:
        """A number or array: its class, type and bits."""
        if type(value) is float:
            return value.hex() if value == value else f"nan:{np.float64(value).tobytes().hex()}"
        if not isinstance(value, (np.generic, np.ndarray, float, complex, *_PLAIN)):
            raise _Untellable
        array = np.asarray(value)
        self._bytes += array.nbytes
        if self._bytes > _MOST_BYTES:
            raise _Untellable
        return f"{type(value).__name__}:{self._dtype(array.dtype)}{array.shape}:{array.tobytes().hex()}"

    def _dtype(self, dtype: np.dtype) -> str:
        if dtype.kind not in "biufc":
            raise _Untellable
        return dtype.str

    def _value(self, value: Any, parts: list[str]) -> str:
        """A parameter; a program that it holds is written before it."""
        kind = type(value)
        if kind in _PLAIN:
            return f"{kind.__name__}:{value!r}"
        if kind is dict:
            items = [f"{self._value(k, parts)}={self._value(v, parts)}" for k, v in value.items()]
            return "{" + ",".join(items) + "}"
        if kind in (tuple, list):
            return f"{kind.__name__}[{','.join([self._value(v, parts) for v in value])}]"
        if isinstance(value, np.dtype):
            return f"dtype:{self._dtype(value)}"
        if kind is ShapedArray:
            return f"aval:{self._dtype(value.dtype)}{value.shape}"
        if kind is slice:
            return f"slice[{self._value((value.start, value.stop, value.step), parts)}]"
        if kind is Jaxpr:
            self._program(value, parts)
            return f"program:{self._programs[id(value)]}"
        if kind is ClosedJaxpr:
            self._program(value.jaxpr, parts)
            return f"closed:{self._programs[id(value.jaxpr)]}[{','.join(map(self._constant, value.consts))}]"
        return self._constant(value)


# Rules

_known: dict[Primitive, tuple[tuple[Any, ...], str | None]] = {}
_own: set[Primitive] = set()


def _rules(primitive: Primitive) -> str:
    """What tells the rules of one of functrace's primitives from others that it might have.

    Raises:
        _Untellable: the primitive, or a rule of its, comes from elsewhere.
    """
    rules = (primitive.lower, primitive.fold, primitive.uniform)
    found = _known.get(primitive)
    if found is None or any(a is not b for a, b in zip(found[0], rules, strict=True)):
        try:
            text = ",".join(map(_rule, rules)) if _is_own(primitive) else None
        except (_Untellable, RecursionError, ValueError):  # the last one for variables not yet set
            text = None
        found = _known[primitive] = (rules, text)
    if found[1] is None:
        raise _Untellable
    return found[1]


def _is_own(primitive: Primitive) -> bool:
    """Whether a module of functrace defines it."""
    if primitive not in _own:
        modules = [module for name, module in list(sys.modules.items()) if name.startswith("functrace.")]
        _own.update(v for module in modules for v in list(vars(module).values()) if type(v) is Primitive)
    return primitive in _own


def _rule(rule: Any) -> str:
    """A function of functrace's, by its name and what it closes over."""
    if rule is None or isinstance(rule, (int, float, str, bool)):
        return repr(rule)
    if isinstance(rule, (tuple, list)):
        return f"[{','.join(map(_rule, rule))}]"
    if isinstance(rule, Lowering):
        return f"{type(rule).__name__}[{','.join(map(_rule, vars(rule).values()))}]"
    if isinstance(rule, np.ufunc):
        return rule.__name__
    if isinstance(rule, np.dtype):
        return rule.str
    if isinstance(rule, Primitive) and _is_own(rule):
        return f"primitive {rule.name}"
    if isinstance(rule, types.FunctionType) and rule.__module__.startswith("functrace."):
        cells = [cell.cell_contents for cell in rule.__closure__ or ()]
        held = [*cells, *(rule.__defaults__ or ()), *(rule.__kwdefaults__ or {}).values()]
        return f"{rule.__module__}.{rule.__qualname__}:{rule.__code__.co_firstlineno}({','.join(map(_rule, held))})"
    raise _Untellable
