"""Loop nests whose results a call takes in part by part, while they are in the cache, instead of through memory.

A call whose lowering says so (`Call.in_parts`) is emitted together with the nests that compute nothing but its
operands: a loop over parts of some hundred elements, in which the nest writes a part of each array and the call takes
the parts in. The arrays then need the memory of a part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from functrace.backend.compiler.nest import emit_nest
from functrace.backend.compiler.places import Buffer
from functrace.backend.compiler.plan import Plan
from functrace.backend.compiler.steps import CallStep, NestStep
from functrace.core.ir import Jaxpr, Var
from functrace.core.lowering import Call, Reduction, Scan

__all__ = ["CallInParts", "calls_in_parts"]

_LARGE = 2**20  # bytes of the arrays of a nest, from which on they are taken in part by part
_PART = 2**18  # bytes of their parts: they stay in the second-level cache
_GRAIN = 64  # elements; a multiple of the lanes of any vector


class CallInParts:
    """A call with the nests that compute its operands.

    Args:
        call: the step.
        absorbs: what its lowering offers.
        nests: each of one axis, and its results operands of the call and nothing else.
    """

    def __init__(self, call: CallStep, absorbs: Any, nests: Sequence[NestStep]) -> None:
        self.call, self.absorbs, self.nests = call, absorbs, nests

    def length(self, nest: NestStep) -> int:
        """The elements of a part."""
        width = sum(var.aval.dtype.itemsize for var in nest.roots)
        return max(_PART // width // _GRAIN, 1) * _GRAIN

    def emit(self, context: Any, plan: Plan, operands: Callable[[], list[Any]], outputs: list[Any], sinks: Any) -> None:
        """Emits all of it.

        Args:
            operands: where the call's operands are, by `plan.places`.
            sinks: `sinks(nest)`, what a nest writes, likewise.
        """
        eqn = self.call.eqn
        inside = [[k for k, a in enumerate(eqn.invars) if a in nest.roots] for nest in self.nests]
        self.absorbs.start(context, operands(), outputs, [k for members in inside for k in members])
        for nest, members in zip(self.nests, inside, strict=True):

            def body(lower: str, upper: str, nest: NestStep = nest, members: list[int] = members) -> None:
                _point_into_part(context, plan, nest, lower)
                emit_nest(context.e, nest.space, sinks(nest), (lower, upper))
                self.absorbs.part(context, operands(), outputs, members, lower, upper)

            wholes = {var: plan.places[var] for var in nest.roots}
            _loop(context.e, nest.space[0], self.length(nest), body)
            plan.places.update(wholes)


def _point_into_part(context: Any, plan: Plan, nest: NestStep, lower: str) -> None:
    """Lets a nest's arrays be where their elements from `lower` on lie in the memory of a part."""
    e = context.e
    back = e.index(f"sub i64 0, {lower}")
    for var in nest.roots:
        place = plan.places[var]
        assert isinstance(place, Buffer)
        plan.places[var] = Buffer(e.offset(place.start(e), back, place.dtype), place.shape, place.dtype)


def _loop(e: Any, extent: int, length: int, body: Callable[[str, str], None]) -> None:
    """body(lower, upper) for one part after the other."""
    e.declare("i64 @llvm.smin.i64(i64, i64)")
    parts = -(-extent // length)

    def one(number: str) -> None:
        lower = e.index(f"mul i64 {number}, {length}")
        after = e.index(f"add i64 {lower}, {length}")
        body(lower, e.index(f"call i64 @llvm.smin.i64(i64 {after}, i64 {extent})"))

    e.counted(parts, one, "part")


def calls_in_parts(plan: Plan, jaxpr: Jaxpr, given: set[str]) -> list[CallInParts]:
    """The calls that take in the results of some nests part by part.

    Args:
        given: pointers of memory that is not the workspace's.
    """
    found = []
    for step in plan.steps:
        if not isinstance(step, CallStep) or not isinstance(step.lowering, Call) or step.lowering.in_parts is None:
            continue
        absorbs = step.lowering.in_parts(**step.eqn.params)
        nests = [n for n in plan.steps if isinstance(n, NestStep) and _serves(plan, jaxpr, n, step, given)]
        if nests and absorbs.pays:
            found.append(CallInParts(step, absorbs, nests))
    return found


def _serves(plan: Plan, jaxpr: Jaxpr, nest: NestStep, call: CallStep, given: set[str]) -> bool:
    """Whether a nest computes large operands of a call and nothing else, in one loop."""
    if len(nest.space) != 1 or len(nest.boxes) != 1:
        return False
    elsewhere = {a for a in jaxpr.outvars if isinstance(a, Var)}.union(plan.spilled)
    for step in plan.steps:
        if step is not nest and step is not call:
            elsewhere.update(plan.bases.get(v, v) for v in step.reads)
    for var, (_, lowering) in nest.roots.items():
        place = plan.places[var]
        if isinstance(lowering, (Reduction, Scan)) or not isinstance(place, Buffer) or place.pointer in given:
            return False
        if var.aval.shape != nest.space or var in elsewhere or var not in call.eqn.invars:
            return False
    return nest.space[0] * sum(v.aval.dtype.itemsize for v in nest.roots) >= _LARGE
