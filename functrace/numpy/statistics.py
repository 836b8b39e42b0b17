"""Means, variances, averages, covariances. The standard deviation of equal elements has NaN for a derivative."""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.core.trace import Tracer
from functrace.errors import ArgumentError, DTypeError, ShapeError
from functrace.numpy._axes import normalize_axes
from functrace.numpy._dispatch import no_mask, write_whole
from functrace.numpy._promotion import as_array, broadcast_shape, broadcast_to, cast, checked_dtype, require_real
from functrace.numpy._reducing import NO_VALUE, Reduction, known, start_reduction
from functrace.numpy._structural import structural
from functrace.primitives import elementwise as p
from functrace.primitives.families import broadcast, reduce_sum, reshape
from functrace.primitives.shape import transpose
from functrace.util import user_line

__all__ = [
    "average", "corrcoef", "cov", "mean", "nanmean", "nanstd", "nanvar", "std", "var",
]  # fmt: skip

_FLOAT64 = np.dtype(np.float64)
_INDEX = np.dtype(np.intp)


def _dtypes(x: Any, dtype: Any) -> tuple[np.dtype, np.dtype]:
    """The dtype that a mean is computed in, and the dtype of the result."""
    result = (_FLOAT64 if x.dtype.kind in "biu" else x.dtype) if dtype is None else checked_dtype(dtype)
    if dtype is None and result == np.float16:
        return np.dtype(np.float32), result
    return result, result


def _mean(x: Any, call: Reduction) -> Any:
    """The mean of the elements that count, as a reduced array."""
    total = reduce_sum(call.masked(x, 0), axes=call.axes)
    if total.dtype.kind not in "fc":
        return cast(p.div(cast(total, _FLOAT64), call.count(_FLOAT64)), total.dtype)
    return p.div(total, call.count(total.dtype))


@structural(np.mean)
def mean(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = NO_VALUE, *, where: Any = NO_VALUE
) -> Any:
    """The arithmetic mean over all elements or along axes."""
    x, call = start_reduction("mean", a, axis, keepdims, where, out)
    work, result = _dtypes(x, dtype)
    return call.finish(cast(_mean(cast(x, work), call), result))


def _variance(x: Any, call: Reduction, ddof: Any, center: Any, modulus: bool) -> Any:
    """The mean square distance (of complex numbers its square modulus) from the mean, as a reduced array."""
    center = call.kept(_mean(x, call)) if center is None else center
    distance = p.sub(x, broadcast_to(center, x.shape))
    if modulus:
        square = p.add(p.square(p.real(distance)), p.square(p.imag(distance)))
    else:
        square = p.square(distance)
    total = reduce_sum(call.masked(square, 0), axes=call.axes)
    count = call.count(total.dtype)
    freedom = np.maximum(count - total.dtype.type(ddof), p.zero_of(total))
    return p.div(total, freedom)


def _spread(
    function: str, a: Any, axis: Any, dtype: Any, out: Any, ddof: Any, keepdims: Any, where: Any, mean: Any,
    correction: Any, root: bool,
) -> Any:  # fmt: skip
    """Variance or standard deviation."""
    if correction is not NO_VALUE:
        if ddof != 0:
            raise ArgumentError(
                f"ddof and correction of numpy.{function} are the same option",
                where=user_line(),
                got=f"ddof={ddof}, correction={correction}",
                remedy="give one of them",
            )
        ddof = correction
    if not isinstance(ddof, (int, float, np.integer, np.floating, Tracer)):
        raise ArgumentError(
            f"ddof of numpy.{function} must be a number",
            where=user_line(),
            got=f"{ddof!r:.60}",
            remedy="pass the number of degrees of freedom that are lost, as in ddof=1",
        )
    x, call = start_reduction(function, a, axis, keepdims, where, out)
    work, result = _dtypes(x, dtype)
    center = None
    if mean is not NO_VALUE and mean is not None:
        center = cast(require_real(f"mean= of numpy.{function}", as_array(mean), work), work)
        if broadcast_shape(center.shape, x.shape) != x.shape:
            raise ShapeError(
                f"mean= of numpy.{function} does not broadcast to the array",
                where=user_line(),
                got=f"mean of shape {center.shape} for shape {x.shape}",
                remedy="take the mean with keepdims=True",
            )
    modulus = x.dtype.kind == "c"
    if work.kind in "biu":
        raise DTypeError(
            f"numpy.{function} is traced in floating point only",
            where=user_line(),
            got=f"dtype={work.name}",
            remedy="leave dtype= out, or convert the result with .astype",
        )
    value = _variance(cast(x, work), call, ddof, center, modulus)
    value = p.sqrt(value) if root else value
    return call.finish(cast(value, result.type(0).real.dtype if modulus else result))


@structural(np.var)
def var(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: Any = NO_VALUE, *,
    where: Any = NO_VALUE, mean: Any = NO_VALUE, correction: Any = NO_VALUE,
) -> Any:  # fmt: skip
    """The variance over all elements or along axes."""
    return _spread("var", a, axis, dtype, out, ddof, keepdims, where, mean, correction, False)


@structural(np.std)
def std(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: Any = NO_VALUE, *,
    where: Any = NO_VALUE, mean: Any = NO_VALUE, correction: Any = NO_VALUE,
) -> Any:  # fmt: skip
    """The standard deviation; where all elements are equal its derivative is NaN."""
    return _spread("std", a, axis, dtype, out, ddof, keepdims, where, mean, correction, True)


def _counted(a: Any, where: Any) -> Any:
    """The mask of elements that are not NaN and count."""
    x = as_array(a)
    mask = p.logical_not(p.isnan(x)) if x.dtype.kind in "fc" else NO_VALUE
    if where is None:
        raise no_mask("a statistic without NaN")
    if where is NO_VALUE or where is True:
        return mask
    given = as_array(where)
    if given.dtype.kind != "b":
        return given  # which is refused
    return given if mask is NO_VALUE else np.logical_and(mask, given)


@structural(np.nanmean)
def nanmean(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = NO_VALUE, *, where: Any = NO_VALUE
) -> Any:
    """The mean of the elements that are not NaN."""
    return mean(a, axis, dtype, out, keepdims, where=_counted(a, where))


def _nan_spread(
    function: str, a: Any, axis: Any, dtype: Any, out: Any, ddof: Any, keepdims: Any, where: Any, mean: Any,
    correction: Any, root: bool,
) -> Any:  # fmt: skip
    """Variance or standard deviation of the elements that are not NaN; NaN where too few of these are left."""
    mask = _counted(a, where)
    result = _spread(function, a, axis, dtype, None, ddof, keepdims, mask, mean, correction, root)
    if mask is not NO_VALUE:
        _, call = start_reduction(function, a, axis, keepdims, mask)
        count = call.finish(call.count(_FLOAT64))
        result = np.where(count <= (ddof if correction is NO_VALUE else correction), result.dtype.type(np.nan), result)
    return write_whole(function, result, out)


@structural(np.nanvar)
def nanvar(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: Any = NO_VALUE, *,
    where: Any = NO_VALUE, mean: Any = NO_VALUE, correction: Any = NO_VALUE,
) -> Any:  # fmt: skip
    """The variance of the elements that are not NaN."""
    return _nan_spread("nanvar", a, axis, dtype, out, ddof, keepdims, where, mean, correction, False)


@structural(np.nanstd)
def nanstd(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: Any = NO_VALUE, *,
    where: Any = NO_VALUE, mean: Any = NO_VALUE, correction: Any = NO_VALUE,
) -> Any:  # fmt: skip
    """The standard deviation of the elements that are not NaN."""
    return _nan_spread("nanstd", a, axis, dtype, out, ddof, keepdims, where, mean, correction, True)


# weighted means and covariances


@structural(np.average)
def average(a: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: Any = NO_VALUE) -> Any:
    """The weighted mean; with `returned`, and the sum of the weights."""
    x, call = start_reduction("average", a, axis, keepdims)
    if weights is None:
        result = mean(x, axis, keepdims=keepdims)
        total = result.dtype.type(call.length)
    else:
        w = _weights(x, weights, axis)
        dtype = np.result_type(x.dtype, w.dtype, *([_FLOAT64] if x.dtype.kind in "biu" else []))
        total = np.sum(w, axis=call.axes, dtype=dtype, keepdims=call.keepdims)
        value = known(total)
        if value is not None and np.any(value == 0):
            raise ArgumentError(
                "the weights of numpy.average sum to zero",
                where=user_line(),
                got=f"weights of shape {w.shape}",
                remedy="give weights whose sum is not zero",
            )
        result = np.sum(cast(x * w, dtype), axis=call.axes, keepdims=call.keepdims) / total
    return (result, np.broadcast_to(total, result.shape)) if returned else result


def _weights(x: Any, weights: Any, axis: Any) -> Any:
    """The weights in the array's shape."""
    w = as_array(weights)
    if w.shape == x.shape:
        return w
    axes = None if axis is None else normalize_axes(axis, len(x.shape))
    if axes is None or w.shape != tuple(x.shape[a] for a in axes):
        raise ShapeError(
            "weights of numpy.average do not fit the array",
            where=user_line(),
            got=f"weights of shape {w.shape} for shape {x.shape}, axis={axis}",
            remedy="give weights of the array's shape, or of the lengths of the averaged axes, naming these with axis=",
        )
    order = tuple(int(i) for i in np.argsort(axes))
    w = transpose(w, permutation=order) if len(order) > 1 else w
    return broadcast(w, shape=x.shape, axes=tuple(sorted(axes)))


@structural(np.cov)
def cov(
    m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: int | None = None, fweights: Any = None,
    aweights: Any = None, *, dtype: Any = None,
) -> Any:  # fmt: skip
    """The covariance matrix of variables in rows (columns if not `rowvar`) and observations in the other axis."""
    x = as_array(m)
    others = [] if y is None else [as_array(y)]
    if any(len(v.shape) > 2 for v in (x, *others)):
        raise ShapeError(
            "numpy.cov takes arrays of at most two dimensions",
            where=user_line(),
            got=", ".join(str(v.shape) for v in (x, *others)),
            remedy="map over the leading axes with functrace.vmap",
        )
    dtype = np.result_type(x.dtype, *(v.dtype for v in others), _FLOAT64) if dtype is None else checked_dtype(dtype)
    rows = [_observations(v, rowvar, dtype, i == 0) for i, v in enumerate((x, *others))]
    data = np.concatenate(rows, axis=0) if len(rows) > 1 else rows[0]
    if data.shape[0] == 0:
        return np.zeros((0, 0), dtype)
    w = _observation_weights(fweights, aweights, data.shape[1])
    ddof = (0 if bias else 1) if ddof is None else ddof
    average_, total = average(data, 1, w, True) if w is not None else (np.mean(data, axis=1), data.shape[1])
    total = total[0] if w is not None else total
    if w is None:
        freedom = total - ddof
    elif ddof == 0:
        freedom = total
    elif aweights is None:
        freedom = total - ddof
    else:
        freedom = total - ddof * np.sum(w * as_array(aweights)) / total
    freedom = np.maximum(freedom, 0)
    data = data - average_[:, None]
    weighted = data if w is None else data * w
    product = np.matmul(data, np.conjugate(weighted.T))
    return np.squeeze(np.true_divide(product, freedom))


def _observations(x: Any, rowvar: bool, dtype: np.dtype, first: bool) -> Any:
    """A variable per row."""
    x = cast(x, dtype)
    if len(x.shape) < 2:
        return reshape(x, shape=(1, x.shape[0] if x.shape else 1))
    return x if rowvar or (not first and x.shape[0] == 1) else transpose(x, permutation=(1, 0))


def _observation_weights(fweights: Any, aweights: Any, count: int) -> Any:
    """The product of the frequency weights and the importance weights; None for neither."""
    found = [as_array(w) for w in (fweights, aweights) if w is not None]
    for w in found:
        if w.shape != (count,):
            raise ShapeError(
                "weights of numpy.cov must be one number per observation",
                where=user_line(),
                got=f"shape {w.shape} for {count} observations",
                remedy="give one-dimensional weights",
            )
    if not found:
        return None
    return found[0] if len(found) == 1 else found[0] * found[1]


@structural(np.corrcoef)
def corrcoef(x: Any, y: Any = None, rowvar: bool = True, *, dtype: Any = None) -> Any:
    """The matrix of correlation coefficients."""
    c = cov(x, y, rowvar, dtype=dtype)
    if not c.shape:
        return c / c
    deviation = np.sqrt(np.real(np.diagonal(c)))
    c = c / deviation[:, None] / deviation[None, :]
    if c.dtype.kind == "c":
        return p.complex_(np.clip(np.real(c), -1, 1), np.clip(np.imag(c), -1, 1))
    return np.clip(c, -1, 1)
