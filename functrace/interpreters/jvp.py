"""Forward mode: each operation carries its tangent along with its value.

J. M. Siskind and B. A. Pearlmutter, Nesting forward-mode AD in a functional framework (2008): a tracer belongs to
one trace, which is what keeps nested derivatives apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from functrace.core.ir import ClosedJaxpr, eval_jaxpr
from functrace.core.primitive import Primitive
from functrace.core.trace import DualTracer, Trace, current_trace, reset_trace, run_under, set_trace
from functrace.interpreters.staging import stage
from functrace.primitives.shape import zeros

__all__ = ["JVPTrace", "JVPTracer", "jvp", "jvp_jaxpr"]


class JVPTracer(DualTracer):
    """A primal and its tangent; None is the zero tangent."""


class JVPTrace(Trace):
    """Applies each primitive's `jvp` rule under the parent."""

    name = "jvp"

    def __init__(self, parent: Trace) -> None:
        super().__init__(parent)
        self.captures = parent.captures

    def pure(self, value: Any) -> JVPTracer:
        return JVPTracer(self, value, None)

    def create(self, primitive: Primitive, params: dict[str, Any]) -> Any:
        return JVPTracer(self, self.parent.create(primitive, params), None)

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        primals, tangents = [], []
        constant, foreign = True, True
        for arg in args:
            if isinstance(arg, JVPTracer) and arg._trace is self:
                foreign = False
                primals.append(arg.primal)
                tangents.append(arg.tangent)
                constant = constant and arg.tangent is None
            else:
                primals.append(arg)
                tangents.append(None)
        if foreign:
            return self.parent.process(primitive, args, params)
        if constant or primitive.nondifferentiable:
            out = self.parent.process(primitive, tuple(primals), params)
            return [self.pure(o) for o in out] if primitive.multiple else self.pure(out)
        rule = primitive.rule("jvp", "jvp")
        token = set_trace(self.parent)
        try:
            outs, out_tangents = rule(primals, tangents, **params)
        finally:
            reset_trace(token)
        if primitive.multiple:
            return [JVPTracer(self, o, t) for o, t in zip(outs, out_tangents, strict=True)]
        return JVPTracer(self, outs[0], out_tangents[0])


def jvp(
    flat_fun: Callable[..., Sequence[Any]], primals: Sequence[Any], tangents: Sequence[Any], weak: Sequence[bool] = ()
) -> tuple[list[Any], list[Any]]:
    """Outputs and output tangents of a function of flat values; None tangents are zero, in and out."""
    trace = JVPTrace(current_trace())
    inputs = [JVPTracer(trace, p, t) for p, t in zip(primals, tangents, strict=True)]
    for tracer, is_weak in zip(inputs, weak, strict=False):
        tracer.weak = is_weak
    outs = run_under(trace, flat_fun, inputs)
    pairs = [(o.primal, o.tangent) if isinstance(o, JVPTracer) and o._trace is trace else (o, None) for o in outs]
    return [p for p, _ in pairs], [t for _, t in pairs]


def jvp_jaxpr(
    closed: ClosedJaxpr, nonzeros: Sequence[bool], instantiate: Sequence[bool] = ()
) -> tuple[ClosedJaxpr, list[bool]]:
    """The program of (primals, nonzero tangents) -> (outputs, nonzero output tangents).

    Args:
        closed: the program to differentiate.
        nonzeros: per input, whether it has a tangent.
        instantiate: per output, whether its tangent is wanted even when it is zero.

    Returns:
        The program, and per output whether it has a tangent.
    """
    avals = closed.in_avals
    out_nonzeros: list[bool] = []

    def flat_fun(*values: Any) -> list[Any]:
        primals, rest = values[: len(avals)], iter(values[len(avals) :])
        tangents = [next(rest) if nonzero else None for nonzero in nonzeros]
        outs, out_tangents = jvp(lambda *xs: eval_jaxpr(closed.jaxpr, closed.consts, *xs), primals, tangents)
        for i, wanted in enumerate(instantiate):
            if wanted and out_tangents[i] is None:
                out_tangents[i] = zeros(closed.out_avals[i])
        out_nonzeros[:] = [t is not None for t in out_tangents]
        return [*outs, *(t for t in out_tangents if t is not None)]

    tangent_avals = [a for a, nonzero in zip(avals, nonzeros, strict=True) if nonzero]
    return stage(flat_fun, [*avals, *tangent_avals]), out_nonzeros
