"""Staging: run a Python function on typed placeholders and record what it does as a jaxpr.

`PartialEvalTrace` records the operations that touch its own tracers and leaves the rest to its parent.
`StagingTrace` also records those that make arrays from nothing, so that a program owns its buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.ir import Atom, ClosedJaxpr, Eqn, Literal, Recorder, Var
from functrace.core.primitive import Primitive
from functrace.core.trace import Trace, Tracer, current_trace, leaked, reset_trace, set_trace
from functrace.core.types import ShapedArray
from functrace.util import Source, user_source

__all__ = ["PartialEvalTrace", "StagedTracer", "StagingTrace", "stage"]


class StagedTracer(Tracer):
    """A variable (or constant buffer) of the program being recorded."""

    def __init__(self, trace: PartialEvalTrace, var: Atom) -> None:
        self._trace = trace
        self.atom = var

    @property
    def aval(self) -> ShapedArray:
        return self.atom.aval

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.atom.aval.shape

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        return self.atom.aval.dtype

    def concrete(self) -> Any:
        if type(self.atom) is Literal and not isinstance(self.atom.val, Tracer):
            return self.atom.val
        return super().concrete()

    def become(self, other: StagedTracer) -> None:  # type: ignore[override]
        self.atom = other.atom


class PartialEvalTrace(Trace):
    """Records what touches its tracers; the parent evaluates the rest."""

    name = "linearize"
    captures = True

    def __init__(self, parent: Trace, recorder: Recorder | None = None) -> None:
        super().__init__(parent)
        self.recorder = Recorder() if recorder is None else recorder

    def new_input(self, aval: ShapedArray) -> StagedTracer:
        return StagedTracer(self, Var(aval))

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        for arg in args:
            if isinstance(arg, StagedTracer) and arg._trace is self:
                return self.record(primitive, args, params)
        return self.parent.process(primitive, args, params)

    def record(self, primitive: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Any:
        """Append an equation; its outputs as tracers."""
        invars = [self.atom(arg) for arg in args]
        out = primitive.abstract_eval(*[a.aval for a in invars], **params)
        outvars = [Var(aval) for aval in out] if primitive.multiple else [Var(out)]
        self.recorder.eqns.append(Eqn(primitive, invars, outvars, params, self.eqn_source()))
        if primitive.multiple:
            return [StagedTracer(self, var) for var in outvars]
        return StagedTracer(self, outvars[0])

    def eqn_source(self) -> Source | None:
        """The user's line, for equations that a user will read."""
        return None

    def atom(self, value: Any) -> Atom:
        """The variable of an own tracer, or the constant that anything else is."""
        if isinstance(value, Tracer):
            if value._trace is self:
                return value.atom  # type: ignore[attr-defined]
            if not value._trace.alive or not self.within(value._trace):
                raise leaked(value)
            return Literal(value.frozen())
        return Literal(value)

    def within(self, trace: Trace) -> bool:
        """Whether a trace is above this one, so that its tracers are constants here. (Below, they would be lost.)"""
        above = self.parent
        while above is not trace and above.stands_for is not trace:
            if above is above.parent:
                return False
            above = above.parent
        return True


class StagingTrace(PartialEvalTrace):
    """Records a whole function."""

    name = "make_jaxpr"

    def eqn_source(self) -> Source | None:
        return user_source(replayed=True)

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        if primitive.effectful or not args:
            return self.record(primitive, args, params)
        return super().process(primitive, args, params)

    def record(self, primitive: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Any:
        if primitive.stage is not None:
            args, params = primitive.stage(args, params)
        return super().record(primitive, args, params)

    def create(self, primitive: Primitive, params: dict[str, Any]) -> Any:
        return self.record(primitive, (), params)

    def pure(self, value: Any) -> StagedTracer:
        return StagedTracer(self, self.atom(value))


def stage(
    flat_fun: Callable[..., Sequence[Any]],
    avals: Sequence[ShapedArray],
    weak: Sequence[bool] = (),
    name: str = StagingTrace.name,
) -> ClosedJaxpr:
    """Record `flat_fun`, which takes one value per aval and returns a list, under the current trace as parent.

    `name` is what messages call the tracing.
    """
    trace = StagingTrace(current_trace())
    trace.name = name
    inputs = [trace.new_input(aval) for aval in avals]
    for tracer, is_weak in zip(inputs, weak, strict=False):
        tracer.weak = is_weak
    invars: list[Any] = [tracer.atom for tracer in inputs]
    token = set_trace(trace)
    try:
        outs = flat_fun(*inputs)
        outvars = [trace.atom(out.copy() if isinstance(out, np.ndarray) else out) for out in outs]
    finally:
        reset_trace(token)
        trace.alive = False
    return trace.recorder.close(invars, outvars)
