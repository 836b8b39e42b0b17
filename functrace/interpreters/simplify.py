"""Simplification: the same program with less work, and the same values to the last bit.

One pass in order: operations on numbers alone are done now, operations that change nothing are left out (a primitive
says so by its `fold` rule: `fold(operands, **params)` gives the atom that its output equals, or None), equal operations
on equal operands are done once. Dead code goes last. Effects stay, in order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.core.evaluate import evaluate_plain
from functrace.core.ir import Atom, Eqn, Jaxpr, Literal, Var, has_effects, is_scalar, live_eqns

__all__ = ["simplify"]


def simplify(jaxpr: Jaxpr) -> Jaxpr:
    """A simpler program with the same inputs and outputs."""
    replaced: dict[Var, Atom] = {}
    seen: dict[Any, list[Var]] = {}
    kept: list[Eqn] = []

    def current(atom: Atom) -> Atom:
        return replaced.get(atom, atom) if isinstance(atom, Var) else atom

    for eqn in jaxpr.eqns:
        operands = [current(a) for a in eqn.invars]
        if has_effects(eqn):
            kept.append(Eqn(eqn.primitive, operands, eqn.outvars, eqn.params, eqn.source))
            continue
        same = _folded(eqn, operands)
        if same is not None:
            replaced[eqn.outvars[0]] = same
            continue
        key = _identity(eqn, operands)
        earlier = None if key is None else seen.get(key)
        if earlier is not None:
            replaced.update(zip(eqn.outvars, earlier, strict=True))
            continue
        if key is not None:
            seen[key] = eqn.outvars
        kept.append(Eqn(eqn.primitive, operands, eqn.outvars, eqn.params, eqn.source))
    outvars = [current(v) for v in jaxpr.outvars]
    return Jaxpr(jaxpr.constvars, jaxpr.invars, live_eqns(kept, outvars), outvars)


def _folded(eqn: Eqn, operands: list[Atom]) -> Atom | None:
    """The atom that the one output of an equation equals, if it is known."""
    primitive = eqn.primitive
    if primitive.multiple:
        return None
    if operands and all(isinstance(a, Literal) and is_scalar(a.val) for a in operands):
        value = evaluate_plain(primitive, [a.val for a in operands if isinstance(a, Literal)], eqn.params)
        aval = eqn.outvars[0].aval
        if is_scalar(value) and np.shape(value) == aval.shape == () and value.dtype == aval.dtype:
            return Literal(value)
        return None
    if primitive.fold is None:
        return None
    same = primitive.fold(operands, **eqn.params)
    return same if same is not None and same.aval == eqn.outvars[0].aval else None


def _identity(eqn: Eqn, operands: list[Atom]) -> Any:
    """What makes two equations the same, or None where that cannot be told."""
    key = (eqn.primitive, tuple(_operand_identity(a) for a in operands), tuple(eqn.params.items()))
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _operand_identity(atom: Atom) -> Any:
    if isinstance(atom, Var):
        return atom
    # The bits tell 0.0 from -0.0, and let a NaN equal itself.
    value = np.asarray(atom.val)
    return (type(atom.val), value.dtype.str, value.tobytes()) if is_scalar(atom.val) else id(atom.val)
