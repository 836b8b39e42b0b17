"""Linearization: run the primal program now, record its derivative as a linear program.

Each operation's `jvp` rule runs with known primals and placeholder tangents under partial evaluation: primal work is
done by the parent, tangent work is recorded. A primitive may have a `linearize` rule that does the same faster:

    linearize(record, primals, tangents, **params) -> outputs, output tangents

with tangents that are variables or None, and `record(primitive, atoms, aval, params)` appending an equation to the
linear program and giving its variable. Cf. A. Radul et al., You Only Linearize Once (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from functrace.core.ir import (
    Atom,
    ClosedJaxpr,
    Eqn,
    Jaxpr,
    Literal,
    Recorder,
    Var,
    eval_jaxpr,
    is_scalar,
    last_uses,
    live_eqns,
    run_eqns,
)
from functrace.core.primitive import Primitive
from functrace.core.trace import DualTracer, Trace, Tracer, current_trace, reset_trace, run_under, set_trace
from functrace.core.types import aval_of
from functrace.errors import MissingRuleError
from functrace.interpreters.staging import PartialEvalTrace, StagedTracer, StagingTrace, stage
from functrace.primitives.shape import full
from functrace.util import Source, user_source

__all__ = ["LinearProgram", "LinearizeTrace", "LinearizeTracer", "LinearizedJaxpr", "linearize", "linearize_jaxpr"]


_VISITS = 6  # of a line by one operation, from which it is probably in a loop
_UNKNOWN: Any = object()  # a tangent that is not known yet


class LinearizeTracer(DualTracer):
    """A primal and the variable of its tangent in the linear program; None is the zero tangent."""


class LinearizeTrace(Trace):
    """Primals under the parent, tangents into a recorder."""

    name = "linearize"
    captures = True

    def __init__(self, parent: Trace) -> None:
        super().__init__(parent)
        self.recorder = Recorder()
        self.append = self.recorder.eqns.append
        self.tangent_trace: PartialEvalTrace | None = None
        self.deferred: Deferred | None = None
        self.visits: dict[tuple[int, int, Primitive], int] = {}
        if is_staged(parent):  # somebody may read the program; evaluation need not know where its operations come from
            self.record = self.record_with_source  # type: ignore[method-assign]

    def pure(self, value: Any) -> LinearizeTracer:
        return LinearizeTracer(self, value, None)

    def create(self, primitive: Primitive, params: dict[str, Any]) -> Any:
        return LinearizeTracer(self, self.parent.create(primitive, params), None)

    def record(self, primitive: Primitive, atoms: list[Atom], aval: Any, params: dict[str, Any]) -> Any:
        """Append a linear equation; its variable, or their list for a primitive with several outputs."""
        if primitive.multiple:
            outvars = [Var(a) for a in aval]
            self.append(Eqn(primitive, atoms, outvars, params))
            return outvars
        var = Var(aval)
        self.append(Eqn(primitive, atoms, [var], params))
        return var

    def record_with_source(self, primitive: Primitive, atoms: list[Atom], aval: Any, params: dict[str, Any]) -> Any:
        """`record`, with the user's line that is being differentiated."""
        source = user_source(replayed=True, above=2)  # above this: a `linearize` rule, and `process`
        if self.shorten is not None and self.deferred is None and source is not None:
            visit = id(source.code), source.instruction, primitive
            count = self.visits[visit] = self.visits.get(visit, 0) + 1
            if count == _VISITS:
                self.deferred = Deferred(self)
                self.process = self.deferred.process  # type: ignore[method-assign]
        if primitive.multiple:
            outvars = [Var(a) for a in aval]
            self.append(Eqn(primitive, atoms, outvars, params, source))
            return outvars
        var = Var(aval)
        self.append(Eqn(primitive, atoms, [var], params, source))
        return var

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        primals, tangents = [], []
        constant, foreign = True, True
        for arg in args:
            if type(arg) is LinearizeTracer and arg._trace is self:
                foreign = False
                primals.append(arg.primal)
                tangent = arg.tangent
                if tangent is not None:
                    constant = False
                tangents.append(tangent)
            else:
                primals.append(arg.frozen() if isinstance(arg, Tracer) else arg)
                tangents.append(None)
        if foreign:
            return self.parent.process(primitive, args, params)
        if constant or primitive.nondifferentiable:
            out = self.parent.process(primitive, tuple(primals), params)
            return [self.pure(o) for o in out] if primitive.multiple else self.pure(out)
        if primitive.linearize is not None:
            token = set_trace(self.parent)
            try:
                outs, out_tangents = primitive.linearize(self.record, primals, tangents, **params)
            finally:
                reset_trace(token)
        else:
            outs, out_tangents = self.linearize_by_jvp(primitive, primals, tangents, params)
        if primitive.multiple:
            return [LinearizeTracer(self, o, t) for o, t in zip(outs, out_tangents, strict=True)]
        return LinearizeTracer(self, outs[0], out_tangents[0])

    def linearize_by_jvp(
        self, primitive: Primitive, primals: list[Any], tangents: list[Var | None], params: dict[str, Any]
    ) -> tuple[list[Any], list[Var | None]]:
        """What the `jvp` rule implies: run it with placeholder tangents under partial evaluation."""
        rule = primitive.rule("jvp", "linearize")
        partial = self.tangent_trace
        if partial is None:
            kind = TangentTrace if is_staged(self.parent) else PartialEvalTrace
            partial = self.tangent_trace = kind(self.parent, self.recorder)
        placeholders = [None if t is None else StagedTracer(partial, t) for t in tangents]
        token = set_trace(partial)
        try:
            outs, out_tangents = rule(primals, placeholders, **params)
        finally:
            reset_trace(token)
        for out in outs:
            if isinstance(out, StagedTracer) and out._trace is partial:
                raise MissingRuleError(
                    f"the jvp rule of {primitive.name!r} gives a primal output that depends on its tangents",
                    remedy="compute the primal outputs from the primals alone",
                )
        return outs, [self.tangent_var(primitive, t) for t in out_tangents]

    def tangent_var(self, primitive: Primitive, tangent: Any) -> Var | None:
        if tangent is None:
            return None
        if isinstance(tangent, StagedTracer) and tangent._trace is self.tangent_trace:
            return tangent.atom  # type: ignore[return-value]
        if not isinstance(tangent, Tracer) and not np.any(tangent):
            return None
        raise MissingRuleError(
            f"the jvp rule of {primitive.name!r} gives a nonzero tangent that does not depend on its input tangents",
            remedy="a jvp rule is linear in the tangents; return None for a zero tangent",
        )


class Deferred:
    """The rest of a function that seems to hold a Python loop: recorded as it is, shortened, and only then linearized.

    Its values are tracers of the linearization as before, whose primals are variables of the record.
    """

    def __init__(self, trace: LinearizeTrace) -> None:
        self.trace = trace
        self.staging = StagingTrace(trace.parent)
        self.staging.name = trace.name
        #: Variables that stand for what was computed before, and that, by the identities of its two parts.
        self.entering: dict[tuple[int, int], tuple[Var, LinearizeTracer]] = {}

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        trace, staging = self.trace, self.staging
        foreign = not primitive.effectful
        operands = []
        for arg in args:
            if type(arg) is LinearizeTracer and arg._trace is trace:
                foreign = False
                operands.append(self.staged(arg))
            else:
                operands.append(arg)
        if foreign:
            return trace.parent.process(primitive, args, params)
        out = staging.record(primitive, operands, params)
        if primitive.multiple:
            return [LinearizeTracer(trace, o, _UNKNOWN) for o in out]
        return LinearizeTracer(trace, out, _UNKNOWN)

    def staged(self, tracer: LinearizeTracer) -> StagedTracer:
        """The tracer's value in the record."""
        primal, tangent = tracer.primal, tracer.tangent
        if tangent is _UNKNOWN:
            return primal
        found = self.entering.get((id(primal), id(tangent)))
        if found is None:
            found = Var(aval_of(primal)), LinearizeTracer(self.trace, primal, tangent)
            self.entering[id(primal), id(tangent)] = found
        return StagedTracer(self.staging, found[0])

    def linearized(self, outs: Sequence[Any]) -> list[Any]:
        """The function's outputs, by linearizing what was recorded."""
        trace = self.trace
        del trace.process  # back to that of the class
        own = [
            i for i, o in enumerate(outs) if type(o) is LinearizeTracer and o._trace is trace and o.tangent is _UNKNOWN
        ]
        entering = list(self.entering.values())
        closed = self.staging.recorder.close([v for v, _ in entering], [outs[i].primal.atom for i in own])
        self.staging.alive = False
        assert trace.shorten is not None
        closed = trace.shorten(closed)
        token = set_trace(trace)
        try:
            found = eval_jaxpr(closed.jaxpr, closed.consts, *(tracer for _, tracer in entering))
        finally:
            reset_trace(token)
        results = list(outs)
        for i, value in zip(own, found, strict=True):
            results[i] = value
        return results


class TangentTrace(PartialEvalTrace):
    """Partial evaluation that keeps the user's lines."""

    def eqn_source(self) -> Source | None:
        return user_source(replayed=True)


def is_staged(trace: Trace) -> bool:
    """Whether what runs under a trace is recorded in a program."""
    while trace.parent is not trace:
        if isinstance(trace, StagingTrace):
            return True
        trace = trace.parent
    return False


class LinearProgram:
    """The recorded derivative: tangent variables in, equations, and one variable (or None: zero) per output."""

    __slots__ = ("_schedule", "eqns", "invars", "outvars")

    def __init__(self, invars: list[Var], eqns: list[Eqn], outvars: list[Var | None]) -> None:
        self.invars = invars
        self.eqns = eqns
        self.outvars = outvars
        self._schedule: list[tuple[Eqn, list[Var]]] | None = None

    def __call__(self, *tangents: Any) -> list[Any]:
        """Output tangents of input tangents, under the current trace; None for zero."""
        if self._schedule is None:
            live = live_eqns(self.eqns, self.outvars)
            self._schedule = list(zip(live, last_uses(live, self.outvars), strict=True))
        env: dict[Var, Any] = dict(zip(self.invars, tangents, strict=True))
        run_eqns(self._schedule, env)
        return [None if v is None else env[v] for v in self.outvars]


def linearize(
    flat_fun: Callable[..., Sequence[Any]],
    primals: Sequence[Any],
    active: Sequence[bool] | None = None,
    weak: Sequence[bool] = (),
) -> tuple[list[Any], LinearProgram]:
    """Outputs of a function of flat values and its derivative there.

    Args:
        flat_fun: takes values, returns a list of values.
        primals: where to linearize.
        active: which inputs have tangents; the program takes one tangent for each of these.
        weak: which inputs are Python scalars, whose dtype gives way.
    """
    trace = LinearizeTrace(current_trace())
    invars: list[Var] = []
    inputs = []
    for i, primal in enumerate(primals):
        if active is None or active[i]:
            invars.append(Var(aval_of(primal)))
            inputs.append(LinearizeTracer(trace, primal, invars[-1]))
        else:
            inputs.append(LinearizeTracer(trace, primal, None))
        if weak and weak[i]:
            inputs[-1].weak = True

    def outputs(*values: Any) -> Sequence[Any]:
        found = flat_fun(*values)
        return found if trace.deferred is None else trace.deferred.linearized(found)

    try:
        outs = run_under(trace, outputs, inputs)
    finally:
        if trace.tangent_trace is not None:
            trace.tangent_trace.alive = False
    values, outvars = [], []
    for out in outs:
        own = isinstance(out, LinearizeTracer) and out._trace is trace
        values.append(out.primal if own else out)
        outvars.append(out.tangent if own else None)
    return values, LinearProgram(invars, trace.recorder.eqns, outvars)


class LinearizedJaxpr(NamedTuple):
    """A program split into its primal and its linear part.

    Attributes:
        primal: inputs -> (outputs, residuals).
        linear: (residuals, nonzero input tangents) -> nonzero output tangents.
        residuals: the number of residuals.
        out_nonzeros: per output, whether it has a tangent.
    """

    primal: ClosedJaxpr
    linear: ClosedJaxpr
    residuals: int
    out_nonzeros: list[bool]


def linearize_jaxpr(closed: ClosedJaxpr, nonzeros: Sequence[bool], instantiate: Sequence[bool] = ()) -> LinearizedJaxpr:
    """Split a program into the part that computes values and the part that is linear in the tangents.

    Args:
        closed: the program to linearize.
        nonzeros: per input, whether it has a tangent.
        instantiate: per output, whether its tangent is wanted even when it is zero.
    """
    found: list[tuple[LinearProgram, dict[int, tuple[Var, Any]]]] = []

    def flat_fun(*primals: Any) -> list[Any]:
        outs, program = linearize(lambda *xs: eval_jaxpr(closed.jaxpr, closed.consts, *xs), primals, nonzeros)
        residuals: dict[int, tuple[Var, Any]] = {}
        for eqn in live_eqns(program.eqns, program.outvars):
            for atom in eqn.invars:
                if isinstance(atom, Literal) and not is_scalar(atom.val):
                    residuals.setdefault(_residual_key(atom.val), (Var(atom.aval), atom.val))
        found.append((program, residuals))
        return [*outs, *(value for _, value in residuals.values())]

    primal = stage(flat_fun, closed.in_avals)
    program, residuals = found[0]
    eqns = []
    for eqn in live_eqns(program.eqns, program.outvars):
        invars = [
            residuals[_residual_key(a.val)][0] if isinstance(a, Literal) and not is_scalar(a.val) else a
            for a in eqn.invars
        ]
        eqns.append(Eqn(eqn.primitive, invars, eqn.outvars, eqn.params, eqn.source))
    outvars: list[Atom] = []
    for i, var in enumerate(program.outvars):
        if var is None and i < len(instantiate) and instantiate[i]:
            aval = closed.out_avals[i]
            var = Var(aval)
            eqns.append(Eqn(full, [], [var], {"shape": aval.shape, "value": 0, "dtype": aval.dtype}))
        if var is not None:
            outvars.append(var)
    out_nonzeros = [v is not None or (i < len(instantiate) and instantiate[i]) for i, v in enumerate(program.outvars)]
    inputs = [*(var for var, _ in residuals.values()), *program.invars]
    return LinearizedJaxpr(primal, ClosedJaxpr(Jaxpr([], inputs, eqns, outvars)), len(residuals), out_nonzeros)


def _residual_key(value: Any) -> int:
    """Identity of a residual: that of its variable while it is being staged."""
    return id(value.atom) if isinstance(value, StagedTracer) else id(value)
