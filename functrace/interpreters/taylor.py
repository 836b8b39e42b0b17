"""Taylor mode: each value carries its truncated power series in one variable t.

The one idea: if y = f(x), the jvp rule of f gives y'(t) from x(t) and x'(t), and y's coefficients are those of y'
divided by 1, 2, 3 ... So every primitive with a jvp rule has a Taylor rule: run its jvp rule on series, lazily, order
by order. The coefficient of order k needs y' to order k-1 only, so y may well appear in its own derivative (exp,
tanh). Equal operations on equal series are shared, so sin and cos may appear in each other's. Linear and bilinear
primitives, and those that say so with a `taylor` rule of their own, are exact recurrences:

    taylor(order, operands, out, **params) -> coefficient

where operands are `Series` or plain values and `out` is the list of coefficients so far. Primitives with several
outputs that hold programs have a rule over whole series instead:

    taylor(order, values, coefficients, **params) -> coefficients of the outputs

in which each value has the list of its coefficients from order 1 on (None for zero), or None if it is constant. The
cost is quadratic in the order, in loops cubic. Cf. Griewank and Walther (2008), ch. 13; M. D. McIlroy, Power series,
power serious (1999).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.ir import ClosedJaxpr, eval_jaxpr
from functrace.core.primitive import Primitive
from functrace.core.series import Series
from functrace.core.trace import Trace, Tracer, current_trace, reset_trace, set_trace
from functrace.core.types import is_inexact
from functrace.interpreters.staging import stage
from functrace.primitives.elementwise import zero_of
from functrace.primitives.families import broadcast, is_number
from functrace.primitives.shape import zeros

__all__ = ["TaylorTrace", "TaylorTracer", "taylor", "taylor_jaxpr"]


class TaylorTracer(Tracer):
    """A value with its power series."""

    def __init__(self, trace: Trace, series: Series) -> None:
        self._trace = trace
        self.series = series

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.series.coefficients[0].shape

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        return self.series.coefficients[0].dtype

    def concrete(self) -> Any:
        primal = self.series.coefficients[0]
        return primal.concrete() if isinstance(primal, Tracer) else primal

    def constant(self) -> Any:
        if self.series.compute is not None:
            return None
        primal = self.series.coefficients[0]
        return primal.constant() if isinstance(primal, Tracer) else primal

    def peek(self) -> Any:
        primal = self.series.coefficients[0]
        return primal.peek() if isinstance(primal, Tracer) else primal

    def become(self, other: TaylorTracer) -> None:  # type: ignore[override]
        self.series = other.series


class TaylorTrace(Trace):
    """Applies each primitive to power series, computing coefficients under the parent."""

    name = "jet"

    def __init__(self, parent: Trace) -> None:
        super().__init__(parent)
        self.captures = parent.captures
        self.shared: dict[Any, tuple[Any, tuple[Any, ...]]] = {}

    def pure(self, value: Any) -> TaylorTracer:
        return TaylorTracer(self, Series([value], None))

    def create(self, primitive: Primitive, params: dict[str, Any]) -> Any:
        return self.pure(self.parent.create(primitive, params))

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        operands = [a.series if isinstance(a, TaylorTracer) and a._trace is self else a for a in args]
        if not any(isinstance(o, Series) for o in operands):
            return self.parent.process(primitive, args, params)
        key: Any = (primitive, tuple(map(_identity, operands)), tuple(params.items()))
        try:
            known = None if primitive.effectful else self.shared.get(key)
        except TypeError:
            key, known = None, None
        if known is None:
            out = self.apply(primitive, operands, params)
            if key is not None:
                self.shared[key] = (out, tuple(operands))
        else:
            out = known[0]
        return [TaylorTracer(self, o) for o in out] if primitive.multiple else TaylorTracer(self, out)

    def apply(self, primitive: Primitive, operands: list[Any], params: dict[str, Any]) -> Any:
        """The series of the outputs; coefficients beyond the first are computed on demand."""
        firsts = tuple(o.coefficients[0] if isinstance(o, Series) else o for o in operands)
        value = self.parent.process(primitive, firsts, params)
        values = list(value) if primitive.multiple else [value]
        constant = all(o.compute is None for o in operands if isinstance(o, Series))
        if constant or primitive.nondifferentiable:
            outs = [Series([v], None) for v in values]
        elif primitive.taylor is not None and primitive.multiple:
            outs = self.by_program(primitive, operands, params, values)
        elif primitive.taylor is not None:
            outs = [self.by_recurrence(primitive, operands, params, values[0])]
        else:
            outs = self.by_integration(primitive, operands, params, values)
        return outs if primitive.multiple else outs[0]

    def by_recurrence(self, primitive: Primitive, operands: list[Any], params: dict[str, Any], value: Any) -> Series:
        coefficients = [value]

        def compute(order: int) -> Any:
            return primitive.taylor(order, operands, coefficients, **params)  # type: ignore[misc]

        return Series(coefficients, self.under_parent(compute))

    def by_program(
        self, primitive: Primitive, operands: list[Any], params: dict[str, Any], values: list[Any]
    ) -> list[Series]:
        """Series from a rule over whole series, run for each order that is asked for."""
        found: dict[int, list[Any]] = {}
        firsts = [o.coefficients[0] if isinstance(o, Series) else o for o in operands]
        varying = [isinstance(o, Series) and o.compute is not None and is_inexact(f.dtype)
                   for o, f in zip(operands, firsts, strict=True)]  # fmt: skip

        def compute(index: int, order: int) -> Any:
            if order not in found:
                terms = [
                    [o.coefficient(k) for k in range(1, order + 1)] if flag else None
                    for o, flag in zip(operands, varying, strict=True)
                ]
                found.clear()
                found[order] = primitive.taylor(order, firsts, terms, **params)  # type: ignore[misc]
            series = found[order][index]
            return None if series is None else series[-1]

        return [
            Series([v], self.under_parent(functools.partial(compute, i)) if is_inexact(v.dtype) else None)
            for i, v in enumerate(values)
        ]

    def by_integration(
        self, primitive: Primitive, operands: list[Any], params: dict[str, Any], values: list[Any]
    ) -> list[Series]:
        """Series whose derivatives are what the jvp rule gives; the rule runs when the first of them is asked for."""
        rule = primitive.rule("jvp", "jet")
        slopes: list[Any] = []

        def slope(index: int) -> Any:
            if not slopes:
                primals = [TaylorTracer(self, o) if isinstance(o, Series) else o for o in operands]
                tangents = [
                    TaylorTracer(self, o.derivative(_zero_like)) if isinstance(o, Series) and o.compute else None
                    for o in operands
                ]
                token = set_trace(self)
                try:
                    slopes.extend(rule(primals, tangents, **params)[1])
                finally:
                    reset_trace(token)
            return slopes[index]

        def integral(index: int, value: Any) -> Series:
            if not is_inexact(value.dtype):
                return Series([value], None)

            def compute(order: int) -> Any:
                rate = slope(index)
                if not (isinstance(rate, TaylorTracer) and rate._trace is self):
                    return None if rate is None or order > 1 else rate
                term = rate.series.coefficient(order - 1)
                return None if term is None else term / order

            return Series([value], self.under_parent(compute))

        return [integral(i, v) for i, v in enumerate(values)]

    def under_parent(self, compute: Callable[[int], Any]) -> Callable[[int], Any]:
        def run(order: int) -> Any:
            token = set_trace(self.parent)
            try:
                return compute(order)
            finally:
                reset_trace(token)

        return run


def _identity(operand: Any) -> Any:
    """What makes two operands the same: the object, or the number."""
    return (type(operand), operand) if is_number(operand) else id(operand)


def _zero_like(value: Any) -> Any:
    return broadcast(zero_of(value), shape=value.shape, axes=()) if value.shape else zero_of(value)


def _nothing(order: int) -> None:
    """The coefficients of an input beyond the given ones."""


def taylor(
    flat_fun: Callable[..., Sequence[Any]],
    primals: Sequence[Any],
    series: Sequence[Sequence[Any]],
    order: int,
    weak: Sequence[bool] = (),
) -> tuple[list[Any], list[list[Any]]]:
    """Outputs of a function of flat values, and their Taylor coefficients of orders 1 to `order`; None for zero.

    Args:
        series: per input, its Taylor coefficients from order 1 on; None for zero.
        weak: which inputs are Python scalars, whose dtype gives way.
    """
    trace = TaylorTrace(current_trace())
    inputs = []
    for primal, terms in zip(primals, series, strict=True):
        constant = all(term is None for term in terms)
        inputs.append(TaylorTracer(trace, Series([primal, *terms], None if constant else _nothing)))
    for tracer, is_weak in zip(inputs, weak, strict=False):
        tracer.weak = is_weak
    token = set_trace(trace)
    try:
        outs = flat_fun(*inputs)
    finally:
        reset_trace(token)
        trace.alive = False
    values, coefficients = [], []
    for out in outs:
        own = isinstance(out, TaylorTracer) and out._trace is trace
        values.append(out.series.coefficients[0] if own else out)
        coefficients.append([out.series.coefficient(k) if own else None for k in range(1, order + 1)])
    return values, coefficients


def taylor_jaxpr(
    closed: ClosedJaxpr, flags: Sequence[bool], order: int, instantiate: Sequence[bool] = ()
) -> tuple[ClosedJaxpr, list[bool]]:
    """The program of (values, coefficients of orders 1 to `order` of some) -> (outputs, coefficients of some).

    Args:
        closed: the program.
        flags: per input, whether it varies; else it has no coefficients.
        order: how many coefficients.
        instantiate: per output, whether its coefficients are wanted even when they are zero.

    Returns:
        The program, and per output whether it has coefficients.
    """
    avals, out_flags = closed.in_avals, [False]

    def flat_fun(*values: Any) -> list[Any]:
        rest = iter(values[len(avals) :])
        series = [[next(rest) if flag else None for _ in range(order)] for flag in flags]
        outs, found = taylor(
            lambda *xs: eval_jaxpr(closed.jaxpr, closed.consts, *xs), values[: len(avals)], series, order
        )
        wanted = [*instantiate, *(False,) * (len(outs) - len(instantiate))]
        out_flags[:] = [want or any(t is not None for t in terms) for want, terms in zip(wanted, found, strict=True)]
        terms = [
            zeros(a) if t is None else t
            for a, terms, flag in zip(closed.out_avals, found, out_flags, strict=True)
            if flag
            for t in terms
        ]
        return [*outs, *terms]

    given = [a for a, flag in zip(avals, flags, strict=True) if flag for _ in range(order)]
    return stage(flat_fun, [*avals, *given]), out_flags
