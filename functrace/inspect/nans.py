"""NaNs and infinities: the operation where one first arose, in the evaluation or in a sweep of a derivative.

The function runs once, linearized, with the user's line kept for each operation of the linear program; that program is
then run forwards (the tangent sweep) and backwards (the adjoint sweep). A value arises where an operation that was
given none gives one. What reaches the sweep from a branch not taken is no cotangent, as in reverse mode itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from functrace.core.ir import Eqn, Literal, Var
from functrace.core.primitive import Primitive
from functrace.core.trace import EVAL, Trace, reset_trace, set_trace
from functrace.core.types import aval_of, is_inexact
from functrace.inspect.formula import Symbol, Text, array_text, escape, formula_of
from functrace.inspect.watch import Watching, flatten_call
from functrace.interpreters.linearize import LinearizeTrace, LinearizeTracer
from functrace.interpreters.transpose import accumulate, transpose, unmask
from functrace.transforms._flatten import check_callable
from functrace.util import Source

__all__ = ["NanReport", "NonFinite", "check_nans"]


class NonFinite(NamedTuple):
    """An operation that made a NaN or an infinity of values that had none.

    Attributes:
        sweep: "primal", "tangent" or "adjoint".
        kind: "nan" or "inf".
        operation: how the operation is written, with operands x, y ...
        source: the user's line.
        place: the loops and calls it is in; empty at the top.
        operands: the values of its operands (those of the evaluation, in all sweeps).
        incoming: what the sweep brought: tangents of the operands or cotangents of the results; empty in the primal
        one.
        result: what it made of them.
    """

    sweep: str
    kind: str
    operation: str
    source: Source | None
    place: str
    operands: list[Any]
    incoming: list[Any]
    result: list[Any]

    def __str__(self) -> str:
        what = self.operation if self.sweep == "primal" else f"the {self.sweep} of {self.operation}"
        values = ", ".join(f"{n} = {array_text(v, 6)}" for n, v in zip("xyzw", self.operands, strict=False))
        lines = [f"{self.kind} arose in {what}", f"  where: {self.source}"]
        if self.place:
            lines.append(f"  inside: {self.place}")
        lines.append(f"  operands: {values}")
        if self.incoming:
            lines.append(f"  incoming: {', '.join(array_text(v, 6) for v in self.incoming)}")
        return "\n".join([*lines, f"  result: {', '.join(array_text(v, 6) for v in self.result)}"])


class NanReport:
    """Where NaNs and infinities arose; prints as a report, and is false if there are none.

    Attributes:
        events: the first NaN and the first infinity of each sweep, in the order they arose.
    """

    def __init__(self, events: list[NonFinite]) -> None:
        self.events = events

    def first(self, sweep: str = "primal") -> NonFinite | None:
        """What arose first in a sweep; None if nothing did."""
        return next((e for e in self.events if e.sweep == sweep), None)

    def __bool__(self) -> bool:
        return bool(self.events)

    def __repr__(self) -> str:
        return "\n".join(map(str, self.events)) or "no NaN or infinity in the primal, tangent or adjoint sweep"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


class _Origin(NamedTuple):
    """The operation that a linear equation is the derivative of."""

    operation: str
    source: Source | None
    place: str
    operands: list[Any]


class _Log:
    """The first events of each kind and sweep."""

    def __init__(self) -> None:
        self.events: list[NonFinite] = []

    def see(self, sweep: str, origin: _Origin, given: Sequence[Any], incoming: Sequence[Any], outs: list[Any]) -> None:
        for kind, has in (("inf", _has_inf), ("nan", _has_nan)):
            if any(e.sweep == sweep and e.kind == kind for e in self.events):
                continue
            if any(map(has, outs)) and not any(map(has, given)):
                self.events.append(
                    NonFinite(
                        sweep,
                        kind,
                        origin.operation,
                        origin.source,
                        origin.place,
                        origin.operands,
                        list(incoming),
                        outs,
                    )
                )


def _is_float(value: Any) -> bool:
    return is_inexact(np.asarray(value).dtype)


def _has_nan(value: Any) -> bool:
    return _is_float(value) and bool(np.isnan(value).any())


def _has_inf(value: Any) -> bool:
    return _is_float(value) and bool(np.isinf(value).any())


class _NanTrace(Watching, LinearizeTrace):
    """Linearization that looks at every value, and remembers which operation each linear equation comes from."""

    name = "check_nans"

    def __init__(self, parent: Trace, log: _Log) -> None:
        super().__init__(parent)
        self.log = log
        self.origins: dict[Eqn, _Origin] = {}

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        own = [type(a) is LinearizeTracer and a._trace is self for a in args]
        if any(own) and self.opens(primitive):
            return self.open(primitive, args, params)
        start = len(self.recorder.eqns)
        out = super().process(primitive, args, params)
        primals = [a.primal if mine else a for a, mine in zip(args, own, strict=True)]
        names = [Symbol(n) for n in _names(len(primals))]
        operation = Text()(formula_of(primitive, names, [aval_of(p) for p in primals], params))
        origin = _Origin(operation, self.line(), self.place(), primals)
        for eqn in self.recorder.eqns[start:]:
            self.origins[eqn] = origin
        outs = out if primitive.multiple else [out]
        values = [o.primal if isinstance(o, LinearizeTracer) else o for o in outs]
        self.log.see("primal", origin, primals, [], values)
        return out


def _names(count: int) -> list[str]:
    return list("xyzw"[:count]) if count <= 4 else [f"x{i}" for i in range(count)]


def _tangent_sweep(eqns: Sequence[Eqn], env: dict[Var, Any], origins: dict[Eqn, _Origin], log: _Log) -> None:
    for eqn in eqns:
        values = [a.val if isinstance(a, Literal) else env[a] for a in eqn.invars]
        out = eqn.primitive.bind(*values, **eqn.params)
        outs = list(out) if eqn.primitive.multiple else [out]
        incoming = [v for v, a in zip(values, eqn.invars, strict=True) if isinstance(a, Var)]
        log.see("tangent", origins[eqn], incoming, incoming, outs)
        env.update(zip(eqn.outvars, outs, strict=True))


def _adjoint_sweep(eqns: Sequence[Eqn], bars: dict[Var, Any], origins: dict[Eqn, _Origin], log: _Log) -> None:
    """As `interpreters.transpose.backward_pass`, looking at each step."""
    for eqn in reversed(eqns):
        out_bars = [bars.pop(var, None) for var in eqn.outvars]
        if all(bar is None for bar in out_bars):
            continue
        operands = [a.val if isinstance(a, Literal) else a for a in eqn.invars]
        in_bars = transpose(eqn, out_bars, operands)
        incoming = [unmask(bar) for bar in out_bars if bar is not None]
        results = [unmask(bar) for bar in in_bars if bar is not None]
        log.see("adjoint", origins[eqn], incoming, incoming, results)
        for atom, bar in zip(eqn.invars, in_bars, strict=True):
            if bar is not None and isinstance(atom, Var):
                accumulate(bars, atom, bar)


def check_nans(fun: Callable[..., Any]) -> Callable[..., NanReport]:
    """Where a NaN or an infinity first arises when a function is evaluated or differentiated at a point.

    Args:
        fun: function of arrays or pytrees of arrays.

    Returns:
        A function of the same arguments that gives a `NanReport`. The tangent sweep starts from ones for all inputs,
        the adjoint sweep from ones for all outputs.

    Example:
        >>> import numpy as np
        >>> from functrace.inspect import check_nans
        >>> report = check_nans(lambda x: np.sqrt(x) * x)(0.0)
        >>> report.first("primal") is None
        True
        >>> event = report.first("adjoint")
        >>> event.kind, event.operation, event.operands
        ('nan', 'sqrt(x)', [np.float64(0.0)])
    """
    check_callable(fun, "check_nans")

    @functools.wraps(fun)
    def check(*args: Any) -> NanReport:
        flat = flatten_call(fun, args, "check_nans")
        log = _Log()
        trace = _NanTrace(EVAL, log)
        inputs, tangents = [], {}
        for leaf, is_weak in zip(flat.leaves, flat.weak, strict=True):
            aval = aval_of(leaf)
            var = Var(aval) if is_inexact(aval.dtype) else None
            if var is not None:
                tangents[var] = np.ones(aval.shape, aval.dtype)[()]
            inputs.append(LinearizeTracer(trace, leaf, var))
            inputs[-1].weak = is_weak
        token = set_trace(trace)
        try:
            with np.errstate(all="ignore"):
                outs = flat(*inputs)
        finally:
            reset_trace(token)
            trace.alive = False
            if trace.tangent_trace is not None:
                trace.tangent_trace.alive = False
        with np.errstate(all="ignore"):
            eqns = trace.recorder.eqns
            _tangent_sweep(eqns, tangents, trace.origins, log)
            bars: dict[Var, Any] = {}
            for out in outs:
                if isinstance(out, LinearizeTracer) and out._trace is trace and out.tangent is not None:
                    aval = aval_of(out.primal)
                    accumulate(bars, out.tangent, np.ones(aval.shape, aval.dtype)[()])
            _adjoint_sweep(eqns, bars, trace.origins, log)
        return NanReport(log.events)

    return check
