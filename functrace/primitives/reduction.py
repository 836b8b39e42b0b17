"""Reductions over axes (`axes`, ascending) and cumulative operations along one (`axis`, backwards when `reverse`).

The derivatives of all cumulative operations are one primitive, `linear_recurrence`: t[k] = a[k] t[k-1] + b[k]. It is
its own derivative and, backwards, its own transpose, divides by nothing, and so is exact at zeros to any order.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.primitive import Primitive, is_linear
from functrace.core.types import ShapedArray
from functrace.core.work import Layout, Rule, Work, counted
from functrace.errors import MissingRuleError
from functrace.primitives import _fast, _moves, _rewrites, _runs, kinks
from functrace.primitives._structures import cumulative, reduction
from functrace.primitives.elementwise import (
    FUNCTION,
    convert,
    div,
    equal,
    exp,
    isnan,
    logical_and,
    logical_or,
    select,
    sub,
    zero_of,
)
from functrace.primitives.families import (
    add,
    broadcast,
    linear,
    mul,
    over_axes,
    reduce_sum,
    reduced_aval,
    reduction_cost,
    reshape,
    unwrap,
)
from functrace.primitives.shape import concatenate, full, slice_, transpose

__all__ = [
    "argmax",
    "argmin",
    "cumlogsumexp",
    "cummax",
    "cummin",
    "cumprod",
    "cumsum",
    "linear_recurrence",
    "logsumexp",
    "reduce_and",
    "reduce_fmax",
    "reduce_fmin",
    "reduce_max",
    "reduce_min",
    "reduce_or",
    "reduce_prod",
    "reduce_sum",
    "softmax",
]

_INDEX = np.dtype(np.intp)


def _reduction(name: str, impl: Callable[..., Any], **rules: Any) -> Primitive:
    """A primitive that reduces one operand over `axes`, keeping its dtype."""

    def batch(size: int, values: list[Any], batched: list[bool], *, axes: tuple[int, ...], **params: Any) -> Any:
        return [primitive.bind(values[0], axes=tuple([a + 1 for a in axes]), **params)], [True]

    def abstract_eval(aval: ShapedArray, *, axes: tuple[int, ...], **params: Any) -> ShapedArray:
        return reduced_aval(aval, axes=axes)

    rules.setdefault("cost", reduction_cost)
    rules.setdefault("sparsity", reduction())
    primitive = Primitive(name, impl, abstract_eval, batch=batch, family="reduction", **rules)
    return primitive


def spread(reduced: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """The result of a reduction over `axes`, repeated to the shape before it."""
    return broadcast(reduced, shape=shape, axes=tuple([i for i in range(len(shape)) if i not in axes]))


# products


def _merged(x: Any, axes: tuple[int, ...]) -> tuple[Any, int]:
    """The array with the reduced axes made one, and which that is."""
    if len(axes) == 1:
        return x, axes[0]
    kept = tuple(i for i in range(len(x.shape)) if i not in axes)
    if kept:
        x = transpose(x, permutation=kept + axes)
    return reshape(x, shape=(*x.shape[: len(kept)], math.prod(x.shape[len(kept) :]))), len(kept)


def _cut(x: Any, axis: int, start: int, stop: int) -> Any:
    """A slice along one axis."""
    ndim = len(x.shape)
    starts, stops = [0] * ndim, list(x.shape)
    starts[axis], stops[axis] = start, stop
    return slice_(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * ndim)


def _previous(x: Any, axis: int, reverse: bool, first: Any = 0) -> Any:
    """Each element replaced by the one before it (after it when `reverse`), the first by a constant."""
    length = x.shape[axis]
    if length == 0:
        return x
    edge = full(shape=(*x.shape[:axis], 1, *x.shape[axis + 1 :]), value=first, dtype=x.dtype)
    rest = _cut(x, axis, 1, length) if reverse else _cut(x, axis, 0, length - 1)
    return concatenate(rest, edge, axis=axis) if reverse else concatenate(edge, rest, axis=axis)


def _prod_jvp(primals: list[Any], tangents: list[Any], *, axes: tuple[int, ...]) -> tuple[list[Any], list[Any]]:
    """The tangent is weighted by the product of the other elements: those before times those after."""
    x, x_dot = primals[0], tangents[0]
    out = reduce_prod(x, axes=axes)
    if not axes:
        return [out], [x_dot]
    x, axis = _merged(x, axes)
    before = _previous(cumprod(x, axis=axis, reverse=False), axis, False, 1)
    after = _previous(cumprod(x, axis=axis, reverse=True), axis, True, 1)
    return [out], [reduce_sum(mul(mul(before, after), _merged(x_dot, axes)[0]), axes=(axis,))]


reduce_prod = _reduction(
    "reduce_prod",
    lambda x, *, axes: np.multiply.reduce(x, axis=axes, dtype=x.dtype),
    jvp=_prod_jvp,
    formula=lambda x, *, axes: f"prod({over_axes(x, axes)})",
    sparsity=reduction(curved=True, distinct=True),
    lower=_moves.reduction("mul"),
)


# extrema: the derivative goes to all elements that attain the extremum, in equal parts


def _attains(x: Any, extremum: Any) -> Any:
    """Where x is the extremum, or both are NaN."""
    return logical_or(equal(x, extremum), logical_and(isnan(x), isnan(extremum)))


def _attains_or_nan(x: Any, extremum: Any) -> Any:
    """The same for an extremum that is NaN as soon as some x is."""
    return logical_or(equal(x, extremum), isnan(x))


def _extremum_jvp(primitive: Callable[[], Primitive], attains: Callable[..., Any]) -> Callable[..., Any]:
    def jvp(primals: list[Any], tangents: list[Any], *, axes: tuple[int, ...]) -> tuple[list[Any], list[Any]]:
        x, x_dot = primals[0], tangents[0]
        out = primitive()(x, axes=axes)
        chosen = attains(x, spread(out, x.shape, axes))
        ties = reduce_sum(convert(chosen, dtype=x.dtype), axes=axes)
        return [out], [div(reduce_sum(select(chosen, x_dot, zero_of(x)), axes=axes), ties)]

    return jvp


def _extremum_impl(ufunc: np.ufunc) -> Callable[..., Any]:
    def impl(x: Any, *, axes: tuple[int, ...]) -> Any:
        out = _fast.reduce(ufunc, x, axes)
        return ufunc.reduce(x, axis=axes) if out is None else out

    return impl


def _nan_aware(ufunc: np.ufunc) -> Callable[..., Any]:
    """Evaluation of an extremum that ignores NaNs, with NumPy's warning where there is nothing else."""

    def impl(x: Any, *, axes: tuple[int, ...]) -> Any:
        out = ufunc.reduce(x, axis=axes)
        if np.isnan(out).any():
            warnings.warn("All-NaN slice encountered", RuntimeWarning, stacklevel=2)
        return out

    return impl


reduce_max = _reduction(
    "reduce_max",
    _extremum_impl(np.maximum),
    jvp=_extremum_jvp(lambda: reduce_max, _attains_or_nan),
    kink=kinks.extremum(1),
    formula=lambda x, *, axes: f"max({over_axes(x, axes)})",
    lower=_moves.reduction("max"),
)
reduce_min = _reduction(
    "reduce_min",
    _extremum_impl(np.minimum),
    jvp=_extremum_jvp(lambda: reduce_min, _attains_or_nan),
    kink=kinks.extremum(-1),
    formula=lambda x, *, axes: f"min({over_axes(x, axes)})",
    lower=_moves.reduction("min"),
)
reduce_fmax = _reduction(
    "reduce_fmax",
    _nan_aware(np.fmax),
    jvp=_extremum_jvp(lambda: reduce_fmax, _attains),
    kink=kinks.extremum(1),
    lower=_moves.reduction("fmax"),
)
reduce_fmin = _reduction(
    "reduce_fmin",
    _nan_aware(np.fmin),
    jvp=_extremum_jvp(lambda: reduce_fmin, _attains),
    kink=kinks.extremum(-1),
    lower=_moves.reduction("fmin"),
)


# truth values and positions


def _along_axis(name: str, impl: Callable[..., Any], abstract_eval: Callable[..., Any], **rules: Any) -> Primitive:
    """A primitive that works on one operand along `axis`."""

    def batch(size: int, values: list[Any], batched: list[bool], *, axis: int, **params: Any) -> Any:
        return [primitive.bind(values[0], axis=axis + 1, **params)], [True]

    primitive = Primitive(name, impl, abstract_eval, batch=batch, **rules)
    return primitive


def _position_aval(aval: ShapedArray, *, axis: int) -> ShapedArray:
    return ShapedArray(aval.shape[:axis] + aval.shape[axis + 1 :], _INDEX)


reduce_and = _reduction(
    "reduce_and",
    lambda x, *, axes: np.logical_and.reduce(x, axis=axes),
    nondifferentiable=True,
    lower=_moves.reduction("and"),
)
reduce_or = _reduction(
    "reduce_or",
    lambda x, *, axes: np.logical_or.reduce(x, axis=axes),
    nondifferentiable=True,
    lower=_moves.reduction("or"),
)
argmax = _along_axis(
    "argmax",
    lambda x, *, axis: x.argmax(axis),
    _position_aval,
    family="reduction",
    nondifferentiable=True,
    cost=reduction_cost,
    kink=kinks.position(1),
    lower=_rewrites.position(lambda: reduce_max, lambda: reduce_min),
)
argmin = _along_axis(
    "argmin",
    lambda x, *, axis: x.argmin(axis),
    _position_aval,
    family="reduction",
    nondifferentiable=True,
    cost=reduction_cost,
    kink=kinks.position(-1),
    lower=_rewrites.position(lambda: reduce_min, lambda: reduce_min),
)


# logarithm of a sum of exponentials, and the shares in that sum


def _finite_peak(x: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """The maximum along `axes`, which stay; and the same with 0 where it is infinite, itself if it never is.

    Of complex numbers that of the real parts, which decide the size of the exponentials.
    """
    peak = np.maximum.reduce(x.real, axis=axes, keepdims=True, initial=-np.inf)
    infinite = np.isinf(peak)
    return peak, np.where(infinite, peak.dtype.type(0), peak) if infinite.any() else peak


def _logsumexp_impl(x: Any, *, axes: tuple[int, ...]) -> Any:
    out = _fast.logsumexp(x, axes)
    if out is not None:
        return unwrap(out)
    peak, shift = _finite_peak(x, axes)
    total = np.add.reduce(np.exp(x - shift), axis=axes)
    if peak is not shift:
        total = np.where(np.isneginf(peak).reshape(np.shape(total)), total.dtype.type(1), total)
    return unwrap(np.log(total) + peak.reshape(total.shape))


def _softmax_impl(x: Any, *, axes: tuple[int, ...], undefined: bool) -> Any:
    out = _fast.softmax(x, axes, undefined)
    if out is not None:
        return out
    peak, shift = _finite_peak(x, axes)
    weights = np.exp(x - shift)
    if peak is not shift:
        weights = np.where(np.isposinf(peak), np.isposinf(x.real).astype(x.dtype), weights)
    total = np.add.reduce(weights, axis=axes, keepdims=True)
    if peak is not shift and not undefined:
        total = np.where(np.isneginf(peak), total.dtype.type(1), total)
    return unwrap(weights / total)


def _logsumexp_jvp(primals: list[Any], tangents: list[Any], *, axes: tuple[int, ...]) -> tuple[list[Any], list[Any]]:
    x = primals[0]
    weights = softmax(x, axes=axes, undefined=False)
    return [logsumexp(x, axes=axes)], [reduce_sum(mul(weights, tangents[0]), axes=axes)]


def _softmax_jvp(
    primals: list[Any], tangents: list[Any], *, axes: tuple[int, ...], undefined: bool
) -> tuple[list[Any], list[Any]]:
    out = softmax(primals[0], axes=axes, undefined=undefined)
    weighted = mul(out, tangents[0])
    mean = spread(reduce_sum(weighted, axes=axes), out.shape, axes)
    return [out], [sub(weighted, mul(out, mean))]


def _cost_logsumexp(operands: Sequence[Layout], outs: Sequence[ShapedArray], **params: Any) -> Work:
    """Maximum, difference, exponential and sum of the elements; logarithm and sum of each result."""
    x, sums = operands[0], outs[0].size
    return Work((3 + FUNCTION) * x.size + (FUNCTION - 1) * sums, scratch=2 * x.bytes)


def _cost_softmax(operands: Sequence[Layout], outs: Sequence[ShapedArray], *, axes: Any, undefined: bool) -> Work:
    """As logsumexp, with a quotient for each element."""
    x = operands[0]
    sums = math.prod(n for i, n in enumerate(x.shape) if i not in axes)
    return Work((4 + FUNCTION) * x.size - 2 * min(sums, x.size), scratch=x.bytes)


logsumexp = _reduction(
    "logsumexp",
    _logsumexp_impl,
    jvp=_logsumexp_jvp,
    sparsity=reduction(curved=True),
    cost=_cost_logsumexp,
    lower=_rewrites.logsumexp(lambda: reduce_max),
)

#: The share of each element in the sum of exponentials. Where there are infinite elements these share equally, an
#: element -inf has share 0. A sum without elements but -inf has shares 0, or NaN when `undefined`.
softmax = Primitive(
    "softmax",
    _softmax_impl,
    lambda aval, *, axes, undefined: aval,
    jvp=_softmax_jvp,
    batch=lambda size, values, batched, *, axes, undefined: (
        [softmax(values[0], axes=tuple([a + 1 for a in axes]), undefined=undefined)],
        [True],
    ),
    family="reduction",
    sparsity=reduction(curved=True, keeps=True),
    cost=_cost_softmax,
    lower=_rewrites.softmax(lambda: reduce_max),
)


# cumulative operations


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
        from_a = mul(a_dot, _previous(out, axis, reverse))
        term = from_a if term is None else add(term, from_a)
    return [out], [linear_recurrence(a, term, axis=axis, reverse=reverse)]


def _recurrence_transpose(bars: list[Any], a: Any, b: Any, *, axis: int, reverse: bool) -> list[Any]:
    if is_linear(a):
        raise MissingRuleError("linear_recurrence is linear in its second operand only", got="the first one linear")
    return [None, linear_recurrence(_previous(a, axis, not reverse), bars[0], axis=axis, reverse=not reverse)]


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
    return _along_axis(
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
    term = mul(_previous(out, axis, reverse, 1), tangents[0])
    return [out], [linear_recurrence(x, term, axis=axis, reverse=reverse)]


def _cumulative_extremum_jvp(primitive: Callable[[], Primitive]) -> Callable[..., Any]:
    """The mean tangent of the elements so far that attain the extremum, all of which lie in its current run."""

    def jvp(primals: list[Any], tangents: list[Any], *, axis: int, reverse: bool) -> tuple[list[Any], list[Any]]:
        x = primals[0]
        out = primitive()(x, axis=axis, reverse=reverse)
        goes_on = convert(_attains(out, _previous(out, axis, reverse)), dtype=x.dtype)
        chosen = _attains(x, out)
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
    before = _share(_previous(out, axis, reverse, -math.inf), out)
    return [out], [linear_recurrence(before, mul(_share(x, out), tangents[0]), axis=axis, reverse=reverse)]


cumprod = _cumulative(
    "cumprod", np.multiply, _cumprod_jvp, sparsity=cumulative(curved=True, distinct=True), lower=_runs.cumprod
)
cummax = _cumulative("cummax", np.maximum, _cumulative_extremum_jvp(lambda: cummax))
cummin = _cumulative("cummin", np.minimum, _cumulative_extremum_jvp(lambda: cummin))
cummax.define(kink=kinks.cumulative_extremum(1), lower=_runs.cummax)
cummin.define(kink=kinks.cumulative_extremum(-1), lower=_runs.cummin)
cumlogsumexp = _cumulative(
    "cumlogsumexp", np.logaddexp, _cumlogsumexp_jvp, sparsity=cumulative(curved=True), lower=_runs.cumlogsumexp
)
