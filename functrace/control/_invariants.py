"""What a compiled loop computes once, before its first step: what depends on its constants alone, and matrices laid out
for the products that every step makes with them.
"""

from __future__ import annotations

from typing import Any

from functrace.core.ir import Eqn, Jaxpr, Literal, Var, has_effects
from functrace.primitives.contraction import dot_general

__all__ = ["with_columns", "without_invariants"]

_STEPS = 32  # from which on a matrix is worth copying


def without_invariants(c: Any, body: Jaxpr, constants: list[Any]) -> Jaxpr:
    """The body without what depends on constants alone, which is computed before the loop and appended to these."""
    consts = len(constants)
    known = set(body.invars[:consts])
    moved: list[Eqn] = []
    for eqn in body.eqns:
        free = all(isinstance(a, Literal) or a in known for a in eqn.invars)
        if free and not has_effects(eqn) and c.worth_hoisting(eqn):
            moved.append(eqn)
            known.update(eqn.outvars)
    if not moved:
        return body
    gone = {v for eqn in moved for v in eqn.outvars}
    rest = [eqn for eqn in body.eqns if not gone.issuperset(eqn.outvars)]
    used = {a for eqn in rest for a in eqn.invars if isinstance(a, Var)} | {
        a for a in body.outvars if isinstance(a, Var)
    }
    kept = [v for eqn in moved for v in eqn.outvars if v in used]
    before = Jaxpr([], body.invars[:consts], moved, kept)
    constants += c.program(before, constants, [None] * len(kept))
    return Jaxpr([], [*body.invars[:consts], *kept, *body.invars[consts:]], rest, body.outvars)


def with_columns(c: Any, body: Jaxpr, constants: list[Any], steps: int | None) -> Jaxpr:
    """The body with the constant matrices that it multiplies vectors by copied, once for each way of using them.

    In a copy the elements that belong to different elements of the result lie side by side, and start where vectors in
    memory do: then a step reads whole vectors, none of which crosses a line of the cache, and adds nothing up across
    the lanes of a vector.

    Args:
        constants: their places; those of the copies are appended.
        steps: of the loop, None if they are not known.
    """
    if steps is not None and steps < _STEPS:
        return body
    consts = len(constants)
    places = dict(zip(body.invars[:consts], constants, strict=True))
    copies: dict[tuple[Var, int], Var] = {}
    eqns = []
    for eqn in body.eqns:
        found = _matrix_times_vector(eqn, places)
        if found is not None:
            number, axis = found
            matrix = eqn.invars[number]
            assert isinstance(matrix, Var)
            copy = copies.get((matrix, axis))
            if copy is None:
                place = c.by_columns(c.materialise(places[matrix]), axis)
                if place is None:
                    eqns.append(eqn)
                    continue
                copy = copies[matrix, axis] = Var(matrix.aval)
                constants.append(place)
            operands = [copy if k == number else a for k, a in enumerate(eqn.invars)]
            eqn = Eqn(eqn.primitive, operands, eqn.outvars, eqn.params, eqn.source)
        eqns.append(eqn)
    if not copies:
        return body
    return Jaxpr([], [*body.invars[:consts], *copies.values(), *body.invars[consts:]], eqns, body.outvars)


def _matrix_times_vector(eqn: Eqn, places: dict[Var, Any]) -> tuple[int, int] | None:
    """Which operand is a constant matrix that a vector is multiplied by, and the axis that is left of it."""
    if eqn.primitive is not dot_general or eqn.params["batch"] != ((), ()):
        return None
    for number, (matrix, vector) in enumerate((eqn.invars, eqn.invars[::-1])):
        summed = eqn.params["contract"][number]
        if not isinstance(matrix, Var) or matrix not in places or matrix.aval.ndim != 2 or len(summed) != 1:
            continue
        if isinstance(vector, Var) and vector not in places and vector.aval.ndim == 1:
            return number, 1 - summed[0]
    return None
