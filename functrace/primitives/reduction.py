"""Reductions over axes (`axes`, ascending), and the positions of extrema along one (`axis`)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.primitive import Primitive
from functrace.core.types import ShapedArray
from functrace.core.work import Layout, Work
from functrace.primitives import _fast, _moves, _rewrites, kinks
from functrace.primitives._structures import reduction
from functrace.primitives.cumulative import along_axis, cumprod, previous
from functrace.primitives.elementwise import (
    FUNCTION,
    attains,
    convert,
    div,
    equal,
    isnan,
    logical_or,
    select,
    sub,
    zero_of,
)
from functrace.primitives.families import (
    broadcast,
    mul,
    over_axes,
    reduce_sum,
    reduced_aval,
    reduction_cost,
    reshape,
    unwrap,
)
from functrace.primitives.shape import transpose

__all__ = [
    "argmax",
    "argmin",
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
    "spread",
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


def _prod_jvp(primals: list[Any], tangents: list[Any], *, axes: tuple[int, ...]) -> tuple[list[Any], list[Any]]:
    """The tangent is weighted by the product of the other elements: those before times those after."""
    x, x_dot = primals[0], tangents[0]
    out = reduce_prod(x, axes=axes)
    if not axes:
        return [out], [x_dot]
    x, axis = _merged(x, axes)
    before = previous(cumprod(x, axis=axis, reverse=False), axis, False, 1)
    after = previous(cumprod(x, axis=axis, reverse=True), axis, True, 1)
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


def _attains_or_nan(x: Any, extremum: Any) -> Any:
    """Where x is an extremum that is NaN as soon as some x is."""
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
    jvp=_extremum_jvp(lambda: reduce_fmax, attains),
    kink=kinks.extremum(1),
    lower=_moves.reduction("fmax"),
)
reduce_fmin = _reduction(
    "reduce_fmin",
    _nan_aware(np.fmin),
    jvp=_extremum_jvp(lambda: reduce_fmin, attains),
    kink=kinks.extremum(-1),
    lower=_moves.reduction("fmin"),
)


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
argmax = along_axis(
    "argmax",
    lambda x, *, axis: x.argmax(axis),
    _position_aval,
    family="reduction",
    nondifferentiable=True,
    cost=reduction_cost,
    kink=kinks.position(1),
    lower=_rewrites.position(lambda: reduce_max, lambda: reduce_min),
)
argmin = along_axis(
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
