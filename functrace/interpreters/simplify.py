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
from functrace.core.ir import Atom, ClosedJaxpr, Eqn, Jaxpr, Literal, Var, has_effects, is_scalar, live_eqns
from functrace.primitives.shape import full

__all__ = ["simplify", "with_uniform_constants"]


def simplify(jaxpr: Jaxpr) -> Jaxpr:
    """A simpler program with the same inputs and outputs."""
    replaced: dict[Var, Atom] = {}
    seen: dict[Any, list[Var]] = {}
    kept: list[Eqn] = []
    uniform: dict[Var, Any] = {}

    def current(atom: Atom) -> Atom:
        return replaced.get(atom, atom) if isinstance(atom, Var) else atom

    for eqn in jaxpr.eqns:
        operands = _with_numbers(eqn, [current(a) for a in eqn.invars], uniform)
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
        if eqn.primitive.uniform is not None:
            number = eqn.primitive.uniform(operands, **eqn.params)
            if number is not None and eqn.outvars[0].aval.shape:
                uniform[eqn.outvars[0]] = eqn.outvars[0].aval.dtype.type(number)
        kept.append(Eqn(eqn.primitive, operands, eqn.outvars, eqn.params, eqn.source))
    outvars = [current(v) for v in jaxpr.outvars]
    return Jaxpr(jaxpr.constvars, jaxpr.invars, live_eqns(kept, outvars), outvars)


def with_uniform_constants(closed: ClosedJaxpr) -> ClosedJaxpr:
    """The program with constants that repeat one number made by it, so that simplification knows the number.

    Tracing leaves such constants where a derivative starts from ones, which are a view of a single one.
    """
    jaxpr = closed.jaxpr
    eqns: list[Eqn] = []
    kept: list[tuple[Var, Any]] = []
    for var, value in zip(jaxpr.constvars, closed.consts, strict=True):
        if isinstance(value, np.ndarray) and value.size > 1 and _is_uniform(value):
            params = {"shape": value.shape, "value": value.flat[0].item(), "dtype": value.dtype}
            eqns.append(Eqn(full, [], [var], params))
        else:
            kept.append((var, value))
    if not eqns:
        return closed
    program = Jaxpr([v for v, _ in kept], jaxpr.invars, [*eqns, *jaxpr.eqns], jaxpr.outvars)
    return ClosedJaxpr(program, [c for _, c in kept])


def _is_uniform(value: np.ndarray) -> bool:
    """Whether an array repeats one number, to the bit."""
    if not any(value.strides):
        return True
    first = value.flat[0]
    if first.dtype.kind == "c" or not (value == first).all():
        return False
    return bool(first) or first.dtype.kind != "f" or bool((np.signbit(value) == np.signbit(first)).all())


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
