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
    #: Whether Python functions among the parameters are recorded too, by the primitives' `stage` rules.
    whole = False

    def __init__(self, parent: Trace, recorder: Recorder | None = None) -> None:
        super().__init__(parent)
        self.recorder = Recorder() if recorder is None else recorder
        self.append = self.recorder.eqns.append

    def new_input(self, aval: ShapedArray) -> StagedTracer:
        return StagedTracer(self, Var(aval))

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        for arg in args:
            if isinstance(arg, StagedTracer) and arg._trace is self:
                return self.record(primitive, args, params)
        return self.parent.process(primitive, args, params)

    def record(self, primitive: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Any:
        """Append an equation; its outputs as tracers."""
        if primitive.stage is not None and self.whole:
            args, params = primitive.stage(args, params)
        invars: list[Any] = []
        for arg in args:
            invars.append(arg.atom if type(arg) is StagedTracer and arg._trace is self else self.atom(arg))
        if primitive.multiple:
            outvars = [Var(aval) for aval in primitive.abstract_eval(*[a.aval for a in invars], **params)]
            self.append(Eqn(primitive, invars, outvars, params, self.eqn_source()))
            return [StagedTracer(self, var) for var in outvars]
        var = Var(_common_type(invars) if primitive.keeps_type else None)  # type: ignore[arg-type]
        if var.aval is None:
            var.aval = primitive.abstract_eval(*[a.aval for a in invars], **params)
        self.append(Eqn(primitive, invars, [var], params, self.eqn_source()))
        return StagedTracer(self, var)

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
    whole = True

    def eqn_source(self) -> Source | None:
        return user_source(replayed=True, above=4)  # above: `record`, `process` or `create`, and who called that

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        if primitive.effectful or not args:
            return self.record(primitive, args, params)
        for arg in args:
            if isinstance(arg, StagedTracer) and arg._trace is self:
                return self.record(primitive, args, params)
        return self.parent.process(primitive, args, params)

    def create(self, primitive: Primitive, params: dict[str, Any]) -> Any:
        return self.record(primitive, (), params)

    def pure(self, value: Any) -> StagedTracer:
        return StagedTracer(self, self.atom(value))

    def symbolic(self, value: Any) -> Any:
        return super().symbolic(value) if self.shorten is None else self.pure(value)


def _common_type(atoms: Sequence[Any]) -> ShapedArray | None:
    """The one type of all atoms but numbers, which stand for their broadcasts; None if they have more than one."""
    common: ShapedArray = atoms[0].aval
    for atom in atoms:
        aval = atom.aval
        if aval is common:
            continue
        if aval.dtype is not common.dtype:
            return None
        if aval.shape != common.shape and aval.shape:
            if common.shape:
                return None
            common = aval
    return common


def stage(
    flat_fun: Callable[..., Sequence[Any]],
    avals: Sequence[ShapedArray],
    weak: Sequence[bool] = (),
    name: str = StagingTrace.name,
    shorten: Callable[[ClosedJaxpr], ClosedJaxpr] | None = None,
) -> ClosedJaxpr:
    """Record `flat_fun`, which takes one value per aval and returns a list, under the current trace as parent.

    `name` is what messages call the tracing; `shorten` gives long programs a shorter form.
    """
    trace = StagingTrace(current_trace())
    trace.name = name
    if shorten is not None:
        trace.shorten = shorten
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
    closed = trace.recorder.close(invars, outvars)
    return closed if shorten is None else shorten(closed)
