"""Sums, products, extrema, truth, positions and cumulative operations, and those of them that ignore NaNs.

At kinks: extrema share the derivative equally among all elements that attain them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.core.primitive import Primitive
from functrace.core.trace import Tracer
from functrace.errors import ArgumentError, ShapeError
from functrace.numpy._axes import normalize_axis, reduction_axes
from functrace.numpy._dispatch import write_whole
from functrace.numpy._promotion import as_array, cast, checked_dtype
from functrace.numpy._reducing import NO_VALUE, accumulator, combine, is_true, known, start_reduction
from functrace.numpy._structural import flat, single_axis, structural
from functrace.primitives import cumulative
from functrace.primitives import reduction as r
from functrace.primitives.elementwise import fmax, fmin, isnan, maximum, minimum, mul, select
from functrace.primitives.families import add
from functrace.primitives.shape import concatenate, full
from functrace.util import user_line

__all__ = [
    "all", "amax", "amin", "any", "argmax", "argmin", "count_nonzero", "cummax", "cummin", "cumprod",
    "cumsum", "cumulative_prod", "cumulative_sum", "max", "min", "nanargmax", "nanargmin", "nancumprod", "nancumsum",
    "nanmax", "nanmin", "nanprod", "nansum", "prod", "ptp", "sum",
]  # fmt: skip

_COUNT = np.dtype(np.intp)


def without_nan(a: Any, fill: float) -> Any:
    """The array with a constant in the place of NaNs."""
    x = as_array(a)
    return select(isnan(x), x.dtype.type(fill), x) if x.dtype.kind in "fc" else x


# sums and products


def _total(
    function: str, primitive: Primitive, joined: Primitive, identity: int, a: Any, axis: Any, dtype: Any, out: Any,
    keepdims: Any, initial: Any, where: Any,
) -> Any:  # fmt: skip
    """A sum or a product, with an initial value and a mask."""
    plain = axis is dtype is out is None and keepdims is initial is where is NO_VALUE
    if plain and isinstance(a, Tracer) and a.dtype.kind in "fc" and a.shape:
        return primitive.bind(a, axes=tuple(range(len(a.shape))))
    x, call = start_reduction(function, a, axis, keepdims, where, out)
    operand = x
    x = cast(x, accumulator(x.dtype) if dtype is None else checked_dtype(dtype))
    result = primitive(call.masked(x, identity), axes=call.axes) if call.axes else call.masked(x, identity)
    if initial is not NO_VALUE and initial is not None:
        result = combine(function, joined, result, initial)
    return call.finish(result, operand)


@structural(np.sum)
def sum(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = NO_VALUE, initial: Any = NO_VALUE,
    where: Any = NO_VALUE,
) -> Any:  # fmt: skip
    """The sum over all elements or along axes."""
    return _total("sum", r.reduce_sum, add, 0, a, axis, dtype, out, keepdims, initial, where)


@structural(np.prod)
def prod(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = NO_VALUE, initial: Any = NO_VALUE,
    where: Any = NO_VALUE,
) -> Any:  # fmt: skip
    """The product over all elements or along axes; its derivative is exact where elements are zero."""
    return _total("prod", r.reduce_prod, mul, 1, a, axis, dtype, out, keepdims, initial, where)


@structural(np.nansum)
def nansum(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = NO_VALUE, initial: Any = NO_VALUE,
    where: Any = NO_VALUE,
) -> Any:  # fmt: skip
    """The sum of the elements that are not NaN."""
    return sum(without_nan(a, 0), axis, dtype, out, keepdims, initial, where)


@structural(np.nanprod)
def nanprod(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = NO_VALUE, initial: Any = NO_VALUE,
    where: Any = NO_VALUE,
) -> Any:  # fmt: skip
    """The product of the elements that are not NaN."""
    return prod(without_nan(a, 1), axis, dtype, out, keepdims, initial, where)


@structural(np.count_nonzero)
def count_nonzero(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    """The number of elements that are not zero."""
    x, call = start_reduction("count_nonzero", a, axis, keepdims)
    return call.finish(r.reduce_sum(cast(is_true(x), _COUNT), axes=call.axes))


# extrema


def _lowest(dtype: np.dtype) -> Any:
    if dtype.kind == "c":
        return complex(-np.inf, -np.inf)
    return -np.inf if dtype.kind == "f" else False if dtype.kind == "b" else np.iinfo(dtype).min


def _highest(dtype: np.dtype) -> Any:
    if dtype.kind == "c":
        return complex(np.inf, np.inf)
    return np.inf if dtype.kind == "f" else True if dtype.kind == "b" else np.iinfo(dtype).max


def _extremum(
    function: str, primitive: Primitive, joined: Primitive, neutral: Callable[[np.dtype], Any], a: Any, axis: Any,
    out: Any, keepdims: Any, initial: Any, where: Any,
) -> Any:  # fmt: skip
    """A maximum or minimum, with an initial value and a mask."""
    x, call = start_reduction(function, a, axis, keepdims, where, out)
    bounded = initial is not NO_VALUE and initial is not None
    if not bounded:
        call.refuse_empty()
        if call.mask is not None:
            raise ArgumentError(
                f"numpy.{function} with where= needs an initial value",
                where=user_line(),
                got="initial not given",
                remedy="give initial=, which stands where no element counts (-numpy.inf for a maximum)",
            )
    if not call.axes:
        result = x if call.mask is None else call.masked(x, neutral(x.dtype))
    elif call.length:
        result = primitive(call.masked(x, neutral(x.dtype)), axes=call.axes)
    else:
        kept = tuple([n for i, n in enumerate(x.shape) if i not in call.axes])
        result = full(shape=kept, value=neutral(x.dtype), dtype=x.dtype)
    if bounded:
        result = combine(function, joined, result, initial)
    return call.finish(result, x)


@structural(np.max)
def max(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = NO_VALUE, initial: Any = NO_VALUE, where: Any = NO_VALUE
) -> Any:
    """The maximum; elements that attain it share the derivative equally."""
    return _extremum("max", r.reduce_max, maximum, _lowest, a, axis, out, keepdims, initial, where)


@structural(np.min)
def min(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = NO_VALUE, initial: Any = NO_VALUE, where: Any = NO_VALUE
) -> Any:
    """The minimum; elements that attain it share the derivative equally."""
    return _extremum("min", r.reduce_min, minimum, _highest, a, axis, out, keepdims, initial, where)


@structural(np.nanmax)
def nanmax(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = NO_VALUE, initial: Any = NO_VALUE, where: Any = NO_VALUE
) -> Any:
    """The maximum of the elements that are not NaN; NaN where there are none."""
    return _extremum("nanmax", _ignoring_nan(a, r.reduce_fmax, r.reduce_max), fmax, _lowest, a, axis, out, keepdims,
                     initial, where)  # fmt: skip


@structural(np.nanmin)
def nanmin(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = NO_VALUE, initial: Any = NO_VALUE, where: Any = NO_VALUE
) -> Any:
    """The minimum of the elements that are not NaN; NaN where there are none."""
    return _extremum("nanmin", _ignoring_nan(a, r.reduce_fmin, r.reduce_min), fmin, _highest, a, axis, out, keepdims,
                     initial, where)  # fmt: skip


def _ignoring_nan(a: Any, for_floats: Primitive, for_others: Primitive) -> Primitive:
    return for_floats if as_array(a).dtype.kind in "fc" else for_others


amax, amin = structural(np.amax)(max), structural(np.amin)(min)


@structural(np.ptp)
def ptp(a: Any, axis: Any = None, out: Any = None, keepdims: Any = NO_VALUE) -> Any:
    """Maximum minus minimum."""
    x = as_array(a)
    return write_whole("ptp", np.subtract(max(x, axis, None, keepdims), min(x, axis, None, keepdims)), out)


# truth


@structural(np.any)
def any(a: Any, axis: Any = None, out: Any = None, keepdims: Any = NO_VALUE, *, where: Any = NO_VALUE) -> Any:
    """Whether some element is not zero."""
    x, call = start_reduction("any", a, axis, keepdims, where, out)
    return call.finish(r.reduce_or(call.masked(is_true(x), False), axes=call.axes))


@structural(np.all)
def all(a: Any, axis: Any = None, out: Any = None, keepdims: Any = NO_VALUE, *, where: Any = NO_VALUE) -> Any:
    """Whether no element is zero."""
    x, call = start_reduction("all", a, axis, keepdims, where, out)
    return call.finish(r.reduce_and(call.masked(is_true(x), True), axes=call.axes))


# positions


def _position(function: str, primitive: Primitive, a: Any, axis: Any, out: Any, keepdims: Any) -> Any:
    x = as_array(a)
    axes = reduction_axes(None, len(x.shape)) if axis is None else (normalize_axis(axis, len(x.shape)),)
    x, call = start_reduction(function, x, axes, keepdims, NO_VALUE, out)
    if not call.length:
        call.refuse_empty()
    place = 0 if axis is None else axes[0]
    return call.finish(primitive(flat(x) if axis is None else x, axis=place))


@structural(np.argmax)
def argmax(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = NO_VALUE) -> Any:
    """The position of the first maximum: an integer, without derivative."""
    return _position("argmax", r.argmax, a, axis, out, keepdims)


@structural(np.argmin)
def argmin(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = NO_VALUE) -> Any:
    """The position of the first minimum: an integer, without derivative."""
    return _position("argmin", r.argmin, a, axis, out, keepdims)


def _refuse_all_nan(a: Any, axis: Any) -> None:
    """Raise where a slice is known to hold nothing but NaNs, as NumPy does."""
    x = as_array(a)
    axis = None if axis is None else normalize_axis(axis, len(x.shape))
    value = known(isnan(x)) if x.dtype.kind in "fc" else None
    if value is not None and np.any(np.all(value, axis=axis)):
        raise ArgumentError(
            "All-NaN slice encountered: it has no extremum",
            where=user_line(),
            got=f"shape {x.shape}, axis={axis}",
            remedy="leave the slice out, or replace its NaNs with numpy.nan_to_num",
        )


@structural(np.nanargmax)
def nanargmax(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = NO_VALUE) -> Any:
    """The position of the first maximum among the elements that are not NaN."""
    _refuse_all_nan(a, axis)
    return argmax(without_nan(a, -np.inf), axis, out, keepdims=keepdims)


@structural(np.nanargmin)
def nanargmin(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = NO_VALUE) -> Any:
    """The position of the first minimum among the elements that are not NaN."""
    _refuse_all_nan(a, axis)
    return argmin(without_nan(a, np.inf), axis, out, keepdims=keepdims)


# cumulative operations


def _cumulate(function: str, primitive: Primitive, a: Any, axis: Any, dtype: Any, out: Any) -> Any:
    x = as_array(a)
    if axis is None or not x.shape:
        x = flat(x)
        axis = 0 if axis is None else normalize_axis(axis, 1)
    x = cast(x, accumulator(x.dtype) if dtype is None else checked_dtype(dtype))
    return write_whole(function, primitive(x, axis=normalize_axis(axis, len(x.shape)), reverse=False), out)


@structural(np.cumsum)
def cumsum(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    """The sums of all leading elements along an axis."""
    return _cumulate("cumsum", cumulative.cumsum, a, axis, dtype, out)


@structural(np.cumprod)
def cumprod(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    """The products of all leading elements along an axis; the derivative is exact where elements are zero."""
    return _cumulate("cumprod", cumulative.cumprod, a, axis, dtype, out)


def cummax(a: Any, axis: Any = None) -> Any:
    """The largest of all leading elements along an axis (NumPy's `maximum.accumulate`); ties split evenly.

    >>> cummax(np.array([1.0, 3.0, 2.0]))
    array([1., 3., 3.])
    """
    return _extremes(cumulative.cummax, a, axis)


def cummin(a: Any, axis: Any = None) -> Any:
    """The smallest of all leading elements along an axis (NumPy's `minimum.accumulate`); ties split evenly.

    >>> cummin(np.array([2.0, 3.0, 1.0]))
    array([2., 2., 1.])
    """
    return _extremes(cumulative.cummin, a, axis)


def _extremes(primitive: Primitive, a: Any, axis: Any) -> Any:
    x, place = single_axis(as_array(a), axis)
    return primitive(x, axis=place, reverse=False)


@structural(np.nancumsum)
def nancumsum(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    """`cumsum` with NaNs as zeros."""
    return cumsum(without_nan(a, 0), axis, dtype, out)


@structural(np.nancumprod)
def nancumprod(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    """`cumprod` with NaNs as ones."""
    return cumprod(without_nan(a, 1), axis, dtype, out)


def _cumulative(
    function: str, form: Callable[..., Any], identity: int, x: Any, axis: Any, dtype: Any, out: Any, include: bool
) -> Any:
    x = as_array(x)
    if len(x.shape) == 0 or (axis is None and len(x.shape) != 1):
        raise ShapeError(
            f"numpy.{function} needs an axis, unless the array has exactly one",
            where=user_line(),
            got=f"shape {x.shape}, axis={axis}",
            remedy="give axis=",
        )
    axis = 0 if axis is None else normalize_axis(axis, len(x.shape))
    result = form(x, axis, dtype)
    if include:
        edge = full(shape=(*x.shape[:axis], 1, *x.shape[axis + 1 :]), value=identity, dtype=result.dtype)
        result = concatenate(edge, result, axis=axis)
    return write_whole(function, result, out)


@structural(np.cumulative_sum)
def cumulative_sum(
    x: Any, /, *, axis: Any = None, dtype: Any = None, out: Any = None, include_initial: bool = False
) -> Any:
    """The sums of all leading elements, with the empty sum first if asked for."""
    return _cumulative("cumulative_sum", cumsum, 0, x, axis, dtype, out, include_initial)


@structural(np.cumulative_prod)
def cumulative_prod(
    x: Any, /, *, axis: Any = None, dtype: Any = None, out: Any = None, include_initial: bool = False
) -> Any:
    """The products of all leading elements, with the empty product first if asked for."""
    return _cumulative("cumulative_prod", cumprod, 1, x, axis, dtype, out, include_initial)
