"""Which lowering compiles an equation, and which types of numbers have one at all."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from functrace.backend.compiler.emit import Unsupported, element_type
from functrace.backend.compiler.templates import Form
from functrace.core.ir import Eqn, Var, is_scalar
from functrace.core.lowering import Call, Control, Elementwise, Lowering

__all__ = ["choose", "chosen", "has_element_type"]


def choose(eqn: Eqn) -> Lowering | None:
    """The first lowering of an equation's primitive that suits its operands."""
    rule: Any = eqn.primitive.lower
    if rule is None:
        return None
    avals = [a.aval for a in eqn.invars]
    for lowering in rule if isinstance(rule, tuple) else (rule,):
        if not lowering.suits(*avals, **eqn.params):
            continue
        if not isinstance(lowering, (Call, Control)) and not _has_element_types(eqn):
            continue
        return lowering
    return None


def chosen(eqns: list[Eqn]) -> tuple[list[Lowering | None], list[Form | None]]:
    """The lowerings of equations, and of elementwise operations on numbers their forms.

    Of operations on numbers without parameters each kind is chosen once, and has one form.
    """
    known: dict[Any, tuple[Lowering | None, Form | None]] = {}
    lowerings, forms = [], []
    for eqn in eqns:
        kinds = None if eqn.params else _kinds(eqn)
        found = None if kinds is None else known.get(kinds)
        if found is None:
            lowering = choose(eqn)
            form = None
            if isinstance(lowering, Elementwise) and not eqn.outvars[0].aval.shape:
                form = Form(None if kinds is None else lowering.code)
            found = lowering, form
            if kinds is not None:
                known[kinds] = found
        lowerings.append(found[0])
        forms.append(found[1])
    return lowerings, forms


def _kinds(eqn: Eqn) -> tuple[Any, ...] | None:
    """The primitive and the types of its operands, if these are numbers."""
    kinds: list[Any] = [eqn.primitive]
    for atom in eqn.invars:
        if type(atom) is Var:
            aval = atom.aval
            if aval.shape:
                return None
            kinds.append(aval.dtype)
        elif is_scalar(atom.val):  # type: ignore[union-attr]
            kinds.append(type(atom.val))  # type: ignore[union-attr]
        else:
            return None
    return tuple(kinds)


@functools.cache
def has_element_type(dtype: np.dtype) -> bool:
    """Whether numbers of this type have a type in registers."""
    try:
        element_type(dtype)
    except Unsupported:
        return False
    return True


def _has_element_types(eqn: Eqn) -> bool:
    return all(has_element_type(atom.aval.dtype) for atom in (*eqn.invars, *eqn.outvars))
