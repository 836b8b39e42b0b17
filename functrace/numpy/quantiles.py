"""Medians and quantiles.

Their derivatives are those of the elements they are made of; among equal elements the stable order decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.errors import ArgumentError, DTypeError
from functrace.numpy._dispatch import reject, write_whole
from functrace.numpy._promotion import as_array, as_operand, as_real_array, broadcast_operands, cast, dtype_of
from functrace.numpy._reducing import NO_VALUE, Reduction, known, same_option, start_reduction
from functrace.numpy._structural import cut, structural
from functrace.primitives import elementwise as p
from functrace.primitives.families import broadcast, reduce_sum, reshape
from functrace.primitives.indexing import gather
from functrace.primitives.shape import iota, transpose
from functrace.primitives.sorting import sort
from functrace.util import user_line

__all__ = ["median", "nanmedian", "nanpercentile", "nanquantile", "percentile", "quantile"]

_FLOAT64 = np.dtype(np.float64)
_INDEX = np.dtype(np.intp)


def _sorted_last(x: Any, call: Reduction) -> Any:
    """The elements to reduce, sorted along one last axis."""
    kept = tuple(a for a in range(len(x.shape)) if a not in call.axes)
    if kept + call.axes != tuple(range(len(x.shape))):
        x = transpose(x, permutation=kept + call.axes)
    if len(call.axes) != 1:
        x = reshape(x, shape=(*x.shape[: len(kept)], call.length))
    return sort(x, axis=len(kept))


#: The position in the sorted elements that a method gives to a quantile q of n elements, counted from 0.
_PLOTTING = {
    "linear": (1.0, 1.0),
    "interpolated_inverted_cdf": (0.0, 1.0),
    "hazen": (0.5, 0.5),
    "weibull": (0.0, 0.0),
    "median_unbiased": (1 / 3, 1 / 3),
    "normal_unbiased": (3 / 8, 3 / 8),
}
_DISCRETE: dict[str, Callable[[Any, Any], Any]] = {
    "lower": lambda q, n: np.floor((n - 1) * q),
    "higher": lambda q, n: np.ceil((n - 1) * q),
    "nearest": lambda q, n: np.rint((n - 1) * q),
    "inverted_cdf": lambda q, n: np.ceil(n * q) - 1,
    "closest_observation": lambda q, n: np.rint(n * q) - 1,
}
_MIDDLE: dict[str, Callable[[Any, Any], Any]] = {
    "midpoint": lambda q, n: (n - 1) * q,
    "averaged_inverted_cdf": lambda q, n: n * q - 1,
}
_METHODS = (*_PLOTTING, *_DISCRETE, *_MIDDLE)


def _places(q: Any, n: Any, method: str) -> tuple[Any, Any, Any]:
    """The positions of the two elements that make a quantile, and the weight of the second (None: the first is it)."""
    last = n - 1
    if method in _DISCRETE:
        place = np.minimum(np.maximum(_DISCRETE[method](q, n), 0), last)
        return place, place, None
    if method == "midpoint":
        place = _MIDDLE[method](q, n)
        low, high = np.floor(place), np.ceil(place)
        return low, high, 0.5
    if method == "averaged_inverted_cdf":
        place = _MIDDLE[method](q, n)
        low = np.floor(place)
        weight = np.where(place == low, 0.5, 1.0)
        return np.maximum(low, 0), np.minimum(np.maximum(low + 1, 0), last), weight
    alpha, beta = _PLOTTING[method]
    place = (n - 1) * q if method == "linear" else n * q + (alpha + q * (1 - alpha - beta)) - 1
    low = np.minimum(np.maximum(np.floor(place), 0), last)
    return low, np.minimum(np.maximum(np.floor(place) + 1, 0), last), place - low


def _quantile(
    function: str, a: Any, q: Any, axis: Any, out: Any, method: str, keepdims: Any, weights: Any, ignore_nan: bool,
    scale: float,
) -> Any:  # fmt: skip
    """Quantiles of real arrays; `q` may be traced."""
    reject(function, weights=weights)
    same_option(function, "method", method, _METHODS)
    x, call = start_reduction(function, a, axis, keepdims)
    if x.dtype.kind in "cb":
        raise DTypeError(
            f"numpy.{function} needs real numbers", where=user_line(), got=x.dtype.name, remedy="convert with .astype"
        )
    call.refuse_empty()
    ignore_nan = ignore_nan and x.dtype.kind == "f"
    q = _fractions(function, q, x.dtype, scale)
    discrete = method in _DISCRETE
    work = x.dtype if discrete else np.result_type(x.dtype, q.dtype)
    elements = _sorted_last(x, call)
    if ignore_nan:
        result = _nan_quantile(elements, q, method, work)
    else:
        low, high, weight = _places(q, float(elements.shape[-1]), method)
        result = _between(elements, low, high, weight, work)
        result = _or_nan(result, elements)
    if call.keepdims:
        result = np.reshape(result, (*q.shape, *(1 if i in call.axes else n for i, n in enumerate(call.shape))))
    return write_whole(function, result, out)


def _fractions(function: str, q: Any, dtype: np.dtype, scale: float) -> Any:
    """The fractions from 0 to 1."""
    operand = as_operand(q)
    weak, q = isinstance(dtype_of(operand), type), as_real_array(function, operand)
    q = cast(q, dtype if weak and dtype.kind == "f" else q.dtype if q.dtype.kind == "f" else _FLOAT64)
    q = q / scale if scale != 1 else q
    value = known(q)
    if value is not None and not (np.all(value >= 0) and np.all(value <= 1)):
        raise ArgumentError(
            f"numpy.{function} takes fractions of a whole",
            where=user_line(),
            got="values outside the range",
            remedy=f"give numbers from 0 to {scale:g}",
        )
    return q


def _between(elements: Any, low: Any, high: Any, weight: Any, work: np.dtype) -> Any:
    """The elements at two positions of the last axis, interpolated; in the shape of the positions, then the others."""
    axes = (len(elements.shape) - 1,)
    first = gather(elements, _as_index(low), axes=axes, unique=False)
    if weight is None:
        return cast(first, work)
    second = gather(elements, _as_index(high), axes=axes, unique=False)
    weight = np.reshape(weight, np.shape(weight) + (1,) * (len(elements.shape) - 1)) if np.ndim(weight) else weight
    return _interpolate(cast(first, work), cast(second, work), weight)


def _interpolate(first: Any, second: Any, weight: Any) -> Any:
    """Between two elements, from the nearer one, so that only an infinite nearer one makes the result infinite."""
    if type(weight) is float:  # the mean of two
        return (first + second) * weight
    with np.errstate(invalid="ignore"):
        distance = second - first
        near_first, near_second = first + distance * weight, second - distance * (1 - weight)
    return np.where(weight < 0.5, near_first, near_second)


def _as_index(place: Any) -> Any:
    return cast(as_array(place), _INDEX)


def _nan_quantile(elements: Any, q: Any, method: str, work: np.dtype) -> Any:
    """Quantiles of the elements that are not NaN, which are sorted to the end; NaN where there are no others."""
    kept, axis = elements.shape[:-1], len(elements.shape) - 1
    count = np.sum(p.logical_not(p.isnan(elements)), axis=axis)
    n = cast(np.maximum(count, 1), work)
    q = np.reshape(q, (*q.shape, *(1,) * len(kept)))
    low, high, weight = _places(q, n, method)
    shape = np.shape(low)
    grid = [
        broadcast(iota(length=length, dtype=_INDEX), shape=shape, axes=(len(shape) - len(kept) + a,))
        for a, length in enumerate(kept)
    ]
    axes = tuple(range(axis + 1))
    first = cast(gather(elements, *grid, _as_index(low), axes=axes, unique=False), work)
    if weight is not None:
        second = cast(gather(elements, *grid, _as_index(high), axes=axes, unique=False), work)
        first = _interpolate(first, second, weight)
    return np.where(count == 0, work.type(np.nan), first)


@structural(np.quantile)
def quantile(
    a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, method: str = "linear",
    keepdims: bool = False, *, weights: Any = None,
) -> Any:  # fmt: skip
    """Quantiles at fractions q from 0 to 1; differentiable in q too, where the method interpolates."""
    return _quantile("quantile", a, q, axis, out, method, keepdims, weights, False, 1)


@structural(np.percentile)
def percentile(
    a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, method: str = "linear",
    keepdims: bool = False, *, weights: Any = None,
) -> Any:  # fmt: skip
    """Quantiles at percentages q from 0 to 100; differentiable in q too, where the method interpolates."""
    return _quantile("percentile", a, q, axis, out, method, keepdims, weights, False, 100)


@structural(np.nanquantile)
def nanquantile(
    a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, method: str = "linear",
    keepdims: Any = NO_VALUE, *, weights: Any = None,
) -> Any:  # fmt: skip
    """`quantile` of the elements that are not NaN."""
    return _quantile("nanquantile", a, q, axis, out, method, keepdims, weights, True, 1)


@structural(np.nanpercentile)
def nanpercentile(
    a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, method: str = "linear",
    keepdims: Any = NO_VALUE, *, weights: Any = None,
) -> Any:  # fmt: skip
    """`percentile` of the elements that are not NaN."""
    return _quantile("nanpercentile", a, q, axis, out, method, keepdims, weights, True, 100)


@structural(np.median)
def median(a: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: bool = False) -> Any:
    """The median: the middle element, or the mean of the two in the middle."""
    x, call = start_reduction("median", a, axis, keepdims, NO_VALUE, out)
    call.refuse_empty()
    elements = _sorted_last(cast(x, _FLOAT64) if x.dtype.kind in "biu" else x, call)
    last, length = len(elements.shape) - 1, call.length
    middle = cut(elements, last, (length - 1) // 2, length // 2 + 1)
    result = p.div(reduce_sum(middle, axes=(last,)), elements.dtype.type(2 - length % 2))
    return call.finish(_or_nan(result, elements))


def _or_nan(result: Any, elements: Any) -> Any:
    """The result, NaN where a NaN is among the sorted elements: then it is the last."""
    if elements.dtype.kind not in "fc":
        return result
    last = len(elements.shape) - 1
    end = reshape(cut(elements, last, elements.shape[last] - 1, elements.shape[last]), shape=elements.shape[:-1])
    missing = p.isnan(end)
    missing, result = broadcast_operands([missing, result])
    return p.select(missing, result.dtype.type(np.nan), result)


@structural(np.nanmedian)
def nanmedian(
    a: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: Any = NO_VALUE
) -> Any:
    """The median of the elements that are not NaN."""
    x = as_array(a)
    x = cast(x, _FLOAT64) if x.dtype.kind in "biu" else x
    return _quantile("nanmedian", x, 0.5, axis, out, "midpoint", keepdims, None, True, 1)
