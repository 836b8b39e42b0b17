"""Simplification: the same program with less work, and the same values to the last bit.

One pass in order: operations on numbers alone are done now, operations that change nothing are left out (a primitive
says so by its `fold` rule: `fold(operands, **params)` gives the atom that its output equals, or None), arrays of one
number (`uniform` rules) become that number where they meet another array element by element, equal operations on equal
operands are done once. Dead code goes last. Effects stay, in order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.core.evaluate import evaluate_plain
from functrace.core.ir import Atom, Eqn, Jaxpr, Literal, Var, has_effects, is_scalar, live_eqns

__all__ = ["simplify"]


def simplify(jaxpr: Jaxpr) -> Jaxpr:
    """A simpler program with the same inputs and outputs."""
    replaced: dict[Any, Atom] = {}
    seen: dict[Any, list[Var]] = {}
    kept: list[Eqn] = []
    uniform: dict[Var, Any] = {}
    for eqn in jaxpr.eqns:
        primitive, operands = eqn.primitive, eqn.invars
        for atom in operands if replaced else ():
            if atom in replaced:
                operands = [replaced.get(a, a) for a in operands]
                break
        if uniform:
            operands = _with_numbers(eqn, operands, uniform)
        if operands is not eqn.invars:
            eqn = Eqn(primitive, operands, eqn.outvars, eqn.params, eqn.source)
        if primitive.effectful or (eqn.params and has_effects(eqn)):
            kept.append(eqn)
            continue
        same = _folded(eqn, operands)
        if same is not None:
            replaced[eqn.outvars[0]] = same
            continue
        key = _identity(eqn, operands)
        if key is not None:
            earlier = seen.setdefault(key, eqn.outvars)
            if earlier is not eqn.outvars:
                replaced.update(zip(eqn.outvars, earlier, strict=True))
                continue
        if primitive.uniform is not None:
            number = primitive.uniform(operands, **eqn.params)
            if number is not None and eqn.outvars[0].aval.shape:
                uniform[eqn.outvars[0]] = eqn.outvars[0].aval.dtype.type(number)
        kept.append(eqn)
    outvars = [replaced.get(v, v) for v in jaxpr.outvars]
    return Jaxpr(jaxpr.constvars, jaxpr.invars, live_eqns(kept, outvars), outvars)


def _with_numbers(eqn: Eqn, operands: list[Atom], uniform: dict[Var, Any]) -> list[Atom]:
    """The operands of an elementwise operation, arrays of one number replaced by it, as long as an array is left."""
    if eqn.primitive.family != "elementwise" or not uniform:
        return operands
    shape = eqn.outvars[0].aval.shape
    found = [Literal(uniform[a]) if isinstance(a, Var) and a in uniform else a for a in operands]
    return found if any(isinstance(a, Var) and a.aval.shape == shape for a in found) else operands


def _folded(eqn: Eqn, operands: list[Atom]) -> Atom | None:
    """The atom that the one output of an equation equals, if it is known."""
    primitive = eqn.primitive
    if primitive.multiple:
        return None
    for atom in operands:
        if type(atom) is Var or not is_scalar(atom.val):  # type: ignore[union-attr]
            break
    else:
        return _of_numbers(eqn, operands) if operands else None
    if primitive.fold is None:
        return None
    same = primitive.fold(operands, **eqn.params)
    return same if same is not None and same.aval == eqn.outvars[0].aval else None


def _of_numbers(eqn: Eqn, operands: list[Any]) -> Atom | None:
    """The value of an operation on numbers, if it is a number."""
    value = evaluate_plain(eqn.primitive, [a.val for a in operands], eqn.params)
    aval = eqn.outvars[0].aval
    if is_scalar(value) and np.shape(value) == aval.shape == () and value.dtype == aval.dtype:
        return Literal(value)
    return None


def _identity(eqn: Eqn, operands: list[Atom]) -> Any:
    """What makes two equations the same, or None where that cannot be told."""
    key: list[Any] = [eqn.primitive]
    for atom in operands:
        key.append(atom if type(atom) is Var else _literal_identity(atom.val))  # type: ignore[union-attr]
    if not eqn.params:
        return tuple(key)
    key += eqn.params.items()
    try:
        hash(found := tuple(key))
    except TypeError:
        return None
    return found


def _literal_identity(value: Any) -> Any:
    if not is_scalar(value):
        return id(value)
    if type(value) is float and value and value == value:
        return float, value
    # The bits tell 0.0 from -0.0, and let a NaN equal itself.
    array = np.asarray(value)
    return type(value), array.dtype.str, array.tobytes()
