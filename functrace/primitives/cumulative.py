"""Cumulative operations along one axis (`axis`), backwards when `reverse`.

The derivatives of all of them are one primitive, `linear_recurrence`: t[k] = a[k] t[k-1] + b[k]. It is its own
derivative and, backwards, its own transpose, divides by nothing, and so is exact at zeros to any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.primitive import Primitive, is_linear
from functrace.core.types import ShapedArray
from functrace.core.work import Layout, Rule, counted
from functrace.errors import MissingRuleError
from functrace.primitives import _fast, _runs, kinks
from functrace.primitives._structures import cumulative
from functrace.primitives.elementwise import (
    FUNCTION,
    attains,
    convert,
    div,
    equal,
    exp,
    log,
    logical_or,
    select,
    sub,
    zero_of,
)
from functrace.primitives.families import add, broadcast, mul
from functrace.primitives.linear import linear
from functrace.primitives.shape import concatenate, full, slice_

__all__ = [
    "along_axis",
    "cumlogsumexp",
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "linear_recurrence",
    "previous",
]


def _cut(x: Any, axis: int, start: int, stop: int) -> Any:
    """A slice along one axis."""
    ndim = len(x.shape)
    starts, stops = [0] * ndim, list(x.shape)
    starts[axis], stops[axis] = start, stop
    return slice_(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * ndim)


def previous(x: Any, axis: int, reverse: bool, first: Any = 0) -> Any:
    """Each element replaced by the one before it (after it when `reverse`), the first by a constant."""
    length = x.shape[axis]
    if length == 0:
        return x
    edge = full(shape=(*x.shape[:axis], 1, *x.shape[axis + 1 :]), value=first, dtype=x.dtype)
    rest = _cut(x, axis, 1, length) if reverse else _cut(x, axis, 0, length - 1)
    return concatenate(rest, edge, axis=axis) if reverse else concatenate(edge, rest, axis=axis)


# truth values and positions


def along_axis(name: str, impl: Callable[..., Any], abstract_eval: Callable[..., Any], **rules: Any) -> Primitive:
    """A primitive that works on one operand along `axis`."""

    def batch(size: int, values: list[Any], batched: list[bool], *, axis: int, **params: Any) -> Any:
        return [primitive.bind(values[0], axis=axis + 1, **params)], [True]

    primitive = Primitive(name, impl, abstract_eval, batch=batch, **rules)
    return primitive


def _cumulative_cost(flops: int) -> Rule:
    """So many operations for every element after the first along the axis."""

    def count(operands: Sequence[Layout], outs: Sequence[ShapedArray], *, axis: int, reverse: bool) -> int:
        x = operands[-1]
        return flops * (x.size - x.size // x.shape[axis]) if x.size else 0

    return counted(count)


def _accumulation(ufunc: np.ufunc) -> Callable[..., Any]:
    """Evaluation of a cumulative operation by `ufunc.accumulate`."""

    def impl(x: Any, *, axis: int, reverse: bool) -> Any:
        out = _fast.accumulate(ufunc, x, axis, reverse)
        if out is not None:
            return out
        if not reverse:
            return ufunc.accumulate(x, axis=axis, dtype=x.dtype)
        backwards = (slice(None),) * axis + (slice(None, None, -1),)
        return ufunc.accumulate(x[backwards], axis=axis, dtype=x.dtype)[backwards]

    return impl


def _recurrence_impl(a: Any, b: Any, *, axis: int, reverse: bool) -> Any:
    """An exact zero in `a` cuts: what is before it does not count, be it infinite."""
    out = _fast.recurrence(a, b, axis, reverse)
    if out is not None:
        return out
    out = b.copy()
    if not out.size:
        return out
    factors, totals = np.moveaxis(a, axis, 0), np.moveaxis(out, axis, 0)
    if reverse:
        factors, totals = factors[::-1], totals[::-1]
    if totals.ndim == 1:
        first, *terms = totals.tolist()
        total, row = first, [first]
        for factor, term in zip(factors[1:].tolist(), terms, strict=True):
            total = factor * total + term if factor else term
            row.append(total)
        totals[:] = row
        return out
    carries = factors != 0
    carried = np.empty_like(totals[0])
    for k in range(1, len(totals)):
        np.multiply(factors[k], totals[k - 1], out=carried, where=carries[k])
        np.add(totals[k], carried, out=totals[k], where=carries[k])
    return out


def _recurrence_jvp(
    primals: list[Any], tangents: list[Any], *, axis: int, reverse: bool
) -> tuple[list[Any], list[Any]]:
    (a, b), (a_dot, term) = primals, tangents
    out = linear_recurrence(a, b, axis=axis, reverse=reverse)
    if a_dot is not None:
        from_a = mul(a_dot, previous(out, axis, reverse))
        term = from_a if term is None else add(term, from_a)
    return [out], [linear_recurrence(a, term, axis=axis, reverse=reverse)]


def _recurrence_transpose(bars: list[Any], a: Any, b: Any, *, axis: int, reverse: bool) -> list[Any]:
    if is_linear(a):
        raise MissingRuleError("linear_recurrence is linear in its second operand only", got="the first one linear")
    return [None, linear_recurrence(previous(a, axis, not reverse), bars[0], axis=axis, reverse=not reverse)]


def _recurrence_batch(
    size: int, values: list[Any], batched: list[bool], *, axis: int, reverse: bool
) -> tuple[list[Any], list[bool]]:
    a, b = [
        v if done else broadcast(v, shape=(size, *v.shape), axes=tuple(range(1, 1 + len(v.shape))))
        for v, done in zip(values, batched, strict=True)
    ]
    return [linear_recurrence(a, b, axis=axis + 1, reverse=reverse)], [True]


#: t[k] = a[k] t[k-1] + b[k] along `axis`, from t = 0; the first element of `a` has no effect.
linear_recurrence = Primitive(
    "linear_recurrence",
    _recurrence_impl,
    lambda a, b, *, axis, reverse: b,
    jvp=_recurrence_jvp,
    transpose=_recurrence_transpose,
    batch=_recurrence_batch,
    family="cumulative",
    sparsity=cumulative(recurrence=True),
    cost=_cumulative_cost(2),
    lower=_runs.linear_recurrence,
)
cumsum = linear(
    "cumsum",
    _accumulation(np.add),
    lambda aval, *, axis, reverse: aval,
    lambda bar, aval, *, axis, reverse: cumsum(bar, axis=axis, reverse=not reverse),
    lambda size, x, *, axis, reverse: cumsum(x, axis=axis + 1, reverse=reverse),
    sparsity=cumulative(),
    cost=_cumulative_cost(1),
    lower=_runs.cumsum,
)


def _cumulative(name: str, ufunc: np.ufunc, jvp: Callable[..., Any], **rules: Any) -> Primitive:
    return along_axis(
        name,
        _accumulation(ufunc),
        lambda aval, *, axis, reverse: aval,
        jvp=jvp,
        family="cumulative",
        cost=_cumulative_cost(FUNCTION if ufunc is np.logaddexp else 1),
        **{"sparsity": cumulative(), **rules},
    )


def _cumprod_jvp(primals: list[Any], tangents: list[Any], *, axis: int, reverse: bool) -> tuple[list[Any], list[Any]]:
    x = primals[0]
    out = cumprod(x, axis=axis, reverse=reverse)
    term = mul(previous(out, axis, reverse, 1), tangents[0])
    return [out], [linear_recurrence(x, term, axis=axis, reverse=reverse)]


def _cumulative_extremum_jvp(primitive: Callable[[], Primitive]) -> Callable[..., Any]:
    """The mean tangent of the elements so far that attain the extremum, all of which lie in its current run."""

    def jvp(primals: list[Any], tangents: list[Any], *, axis: int, reverse: bool) -> tuple[list[Any], list[Any]]:
        x = primals[0]
        out = primitive()(x, axis=axis, reverse=reverse)
        goes_on = convert(attains(out, previous(out, axis, reverse)), dtype=x.dtype)
        chosen = attains(x, out)
        ties = linear_recurrence(goes_on, convert(chosen, dtype=x.dtype), axis=axis, reverse=reverse)
        total = linear_recurrence(goes_on, select(chosen, tangents[0], zero_of(x)), axis=axis, reverse=reverse)
        return [out], [div(total, ties)]

    return jvp


def _share(part: Any, total: Any) -> Any:
    """exp(part - total): 0 for a part of -inf, 1 for a part equal to the total."""
    nothing, all_of_it = equal(part, part.dtype.type(-np.inf)), equal(part, total)
    zero = zero_of(part)
    settled = logical_or(nothing, all_of_it)
    share = exp(sub(select(settled, zero, part), select(settled, zero, total)))
    return select(nothing, zero, share)


def _cumlogsumexp_jvp(
    primals: list[Any], tangents: list[Any], *, axis: int, reverse: bool
) -> tuple[list[Any], list[Any]]:
    x = primals[0]
    out = cumlogsumexp(x, axis=axis, reverse=reverse)
    before = _share(previous(out, axis, reverse, -math.inf), out)
    return [out], [linear_recurrence(before, mul(_share(x, out), tangents[0]), axis=axis, reverse=reverse)]


cumprod = _cumulative(
    "cumprod", np.multiply, _cumprod_jvp, sparsity=cumulative(curved=True, distinct=True), lower=_runs.cumprod
)
cummax = _cumulative("cummax", np.maximum, _cumulative_extremum_jvp(lambda: cummax))
cummin = _cumulative("cummin", np.minimum, _cumulative_extremum_jvp(lambda: cummin))
cummax.define(kink=kinks.cumulative_extremum(1), lower=_runs.cummax)
cummin.define(kink=kinks.cumulative_extremum(-1), lower=_runs.cummin)


def _of_shares(x: Any, *, axis: int, reverse: bool) -> Any:
    """The logarithms of the sums of all shares in the largest element so far: only sums wait for each other."""
    peak = cummax(x, axis=axis, reverse=reverse)
    kept = _share(previous(peak, axis, reverse, -math.inf), peak)
    return add(peak, log(linear_recurrence(kept, _share(x, peak), axis=axis, reverse=reverse)))


cumlogsumexp = _cumulative(
    "cumlogsumexp",
    np.logaddexp,
    _cumlogsumexp_jvp,
    sparsity=cumulative(curved=True),
    lower=(_runs.along_the_last_axis(_of_shares), _runs.cumlogsumexp),
)
