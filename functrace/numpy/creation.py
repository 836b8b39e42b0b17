"""Arrays made from nothing, from numbers and from other arrays.

Inside a trace the functions that make buffers (`zeros`, `ones`, `full`, `empty`, `eye`, `tri`, `array`, `copy` and the
`_like` family) give traced arrays, so that traced values can be assigned to them. Sequences of plain numbers
(`arange`, `linspace`, `indices` ...) stay plain arrays, which also serve as indices.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.core.trace import EVAL, Tracer, current_trace
from functrace.core.types import canonicalize
from functrace.errors import ArgumentError, ShapeError
from functrace.numpy._axes import as_index, as_lengths, normalize_axis
from functrace.numpy._dispatch import implements, plain_buffer, traced_ufuncs, write_out
from functrace.numpy._promotion import (
    as_array,
    as_operand,
    broadcast_shape,
    cast,
    checked_dtype,
    from_nested,
    has_tracer,
    promote,
)
from functrace.numpy._promotion import broadcast_to as broadcast_value
from functrace.numpy._structural import cut, fresh, join, move_axis, structural, view_of
from functrace.numpy.shape import convert_to
from functrace.primitives import elementwise as p
from functrace.primitives.families import reshape as reshape_primitive
from functrace.primitives.shape import full as full_primitive
from functrace.util import user_line

__all__ = [
    "arange", "array", "asanyarray", "asarray", "ascontiguousarray", "asfortranarray", "copy", "copyto", "empty",
    "empty_like", "eye", "fromfunction", "full", "full_like", "geomspace", "identity", "indices", "linspace",
    "logspace", "mgrid", "ogrid", "ones", "ones_like", "tri", "zeros", "zeros_like",
]  # fmt: skip

mgrid, ogrid = np.mgrid, np.ogrid
fromfunction = np.fromfunction
indices = np.indices


# buffers


def _buffer(value: Any) -> Any:
    """A new plain array as a traced one, which traced values can be assigned to."""
    trace = current_trace()
    return value if trace is EVAL or value.dtype.kind not in "biufc" else trace.pure(canonicalize(value))


def _filled(shape: Any, value: Any, dtype: np.dtype) -> Any:
    """A traced array of one number."""
    trace = current_trace()
    params = {"shape": as_lengths(shape), "value": value, "dtype": dtype}
    return full_primitive.impl(**params) if trace is EVAL else trace.create(full_primitive, params)


@implements(np.zeros)
def zeros(shape: Any, dtype: Any = None, order: str = "C", *, device: Any = None, like: Any = None) -> Any:
    """An array of zeros; inside a trace one that traced values can be assigned to."""
    return _filled(shape, 0, checked_dtype(dtype))


@implements(np.ones)
def ones(shape: Any, dtype: Any = None, order: str = "C", *, device: Any = None, like: Any = None) -> Any:
    """An array of ones; inside a trace one that traced values can be assigned to."""
    return _filled(shape, 1, checked_dtype(dtype))


@implements(np.empty)
def empty(shape: Any, dtype: Any = None, order: str = "C", *, device: Any = None, like: Any = None) -> Any:
    """An array to be filled by assignment; inside a trace it holds zeros."""
    return _filled(shape, 0, checked_dtype(dtype))


@implements(np.full)
def full(
    shape: Any, fill_value: Any, dtype: Any = None, order: str = "C", *, device: Any = None, like: Any = None
) -> Any:
    """An array of one value (or of an array broadcast), which may be traced."""
    value = as_array(fill_value)
    return _full(as_lengths(shape), value, value.dtype if dtype is None else checked_dtype(dtype))


def _full(shape: tuple[int, ...], value: Any, dtype: np.dtype) -> Any:
    value = convert_to(value, dtype, copy=False)
    if broadcast_shape(value.shape, shape) != shape:
        raise ShapeError(
            "the fill value does not broadcast to the shape",
            where=user_line(),
            got=f"fill value of shape {value.shape} for {shape}",
            remedy="give a number, or an array whose lengths fit the last axes",
        )
    if isinstance(value, Tracer):
        out = broadcast_value(value, shape)
        return fresh(out) if out is value else out
    return _filled(shape, value.item(), dtype) if not value.shape else _buffer(np.full(shape, value))


def _like(a: Any, dtype: Any, shape: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an array made like another."""
    x = a if isinstance(a, Tracer) else as_array(a)
    return x.shape if shape is None else as_lengths(shape), x.dtype if dtype is None else checked_dtype(dtype)


@implements(np.zeros_like)
def zeros_like(
    a: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None, *, device: Any = None
) -> Any:
    """Zeros in the shape and dtype of another array; traced, so that they can be assigned to."""
    found, kind = _like(a, dtype, shape)
    return _filled(found, 0, kind)


@implements(np.ones_like)
def ones_like(
    a: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None, *, device: Any = None
) -> Any:
    """Ones in the shape and dtype of another array; traced, so that they can be assigned to."""
    found, kind = _like(a, dtype, shape)
    return _filled(found, 1, kind)


@implements(np.empty_like)
def empty_like(
    prototype: Any, /, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None, *, device: Any = None
) -> Any:
    """An array like another, to be filled by assignment; inside a trace it holds zeros."""
    found, kind = _like(prototype, dtype, shape)
    return _filled(found, 0, kind)


@implements(np.full_like)
def full_like(
    a: Any,
    fill_value: Any,
    dtype: Any = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: Any = None,
) -> Any:
    """An array of one value, which may be traced, in the shape and dtype of another array."""
    found, kind = _like(a, dtype, shape)
    return _full(found, as_array(fill_value), kind)


@implements(np.eye)
def eye(
    N: int,
    M: int | None = None,
    k: int = 0,
    dtype: Any = float,
    order: str = "C",
    *,
    device: Any = None,
    like: Any = None,
) -> Any:
    """Ones on a diagonal, zeros elsewhere."""
    columns = None if M is None else as_index(M, "M")
    return _buffer(np.eye(as_index(N, "N"), columns, as_index(k, "k"), checked_dtype(dtype)))


@implements(np.identity)
def identity(n: int, dtype: Any = None, *, like: Any = None) -> Any:
    """The identity matrix."""
    return _buffer(np.identity(as_index(n, "n"), checked_dtype(dtype)))


@implements(np.tri)
def tri(N: int, M: int | None = None, k: int = 0, dtype: Any = float, *, like: Any = None) -> Any:
    """Ones at and below a diagonal, zeros elsewhere."""
    columns = None if M is None else as_index(M, "M")
    return _buffer(np.tri(as_index(N, "N"), columns, as_index(k, "k"), checked_dtype(dtype)))


# arrays from other arrays


def _widened(x: Any, ndmin: int) -> Any:
    """The array with leading axes of length 1 up to `ndmin` dimensions."""
    return x if len(x.shape) >= ndmin else reshape_primitive(x, shape=(1,) * (ndmin - len(x.shape)) + x.shape)


@implements(np.array)
def array(
    object: Any,
    dtype: Any = None,
    *,
    copy: bool | None = True,
    order: str = "K",
    subok: bool = False,
    ndmin: int = 0,
    ndmax: int = 0,
    like: Any = None,
) -> Any:
    """An array of nested sequences, whose elements may be traced, or a copy of an array."""
    if not has_tracer(object):
        options: dict[str, Any] = {"ndmax": ndmax} if ndmax else {}
        made = np.array(object, dtype, copy=copy, order=order, ndmin=ndmin, **options)  # type: ignore[call-overload]
        return _buffer(made) if copy else made
    x = from_nested(object)
    target = x.dtype if dtype is None else checked_dtype(dtype)
    out = _widened(convert_to(x, target, copy=bool(copy) and x is object), ndmin)
    return out if copy or out.dtype != x.dtype else view_of(object, out)


@implements(np.copy)
def copy(a: Any, order: str = "K", subok: bool = False) -> Any:
    """A copy: an object of its own, so that assignment to one does not reach the other."""
    return array(a)


def _as(numpy_function: Any, ndmin: int, layout: str = "K") -> Any:
    """The traced form of one of NumPy's `as...array` functions: no copy where none is needed."""
    name = numpy_function.__name__

    def traced(a: Any, dtype: Any = None, order: str | None = None, **kwargs: Any) -> Any:
        if not has_tracer(a):
            return numpy_function(a, dtype, **({} if order is None else {"order": order}), **kwargs)
        unknown = kwargs.keys() - {"copy", "device", "like"}
        if unknown:
            raise TypeError(f"{name}() got an unexpected keyword argument {min(unknown)!r}")
        out = array(a, dtype, copy=kwargs.get("copy"), ndmin=ndmin)
        if out is a and (order or layout) not in ("K", "A") and (a.ndim > 1 or a.views is not None):
            return view_of(a, fresh(a))  # a copy or not, as the array lies in NumPy's memory
        return out

    traced.__name__ = traced.__qualname__ = name
    traced.__doc__ = f"The argument as an array, as `numpy.{name}`: a traced array itself, nested sequences stacked."
    return implements(numpy_function)(traced)


asarray = _as(np.asarray, 0)
asanyarray = _as(np.asanyarray, 0)
ascontiguousarray = _as(np.ascontiguousarray, 1, "C")
asfortranarray = _as(np.asfortranarray, 0, "F")


@implements(np.copyto)
def copyto(dst: Any, src: Any, casting: Any = "same_kind", where: Any = True) -> None:
    """Assignment of values to a traced array, where a mask says."""
    if not has_tracer((dst, src, where)):
        np.copyto(dst, src, casting, where)
        return
    if not isinstance(dst, Tracer):
        raise plain_buffer("numpy.copyto would write", dst)
    write_out("copyto", _full(dst.shape, as_array(src), as_array(src).dtype), dst, where, casting)


# sequences


def _plain_end(value: Any, name: str) -> Any:
    """An end or step of a sequence whose length depends on it, concrete."""
    if not isinstance(value, Tracer):
        return value
    if value.dtype.kind not in "iub":
        raise ArgumentError(
            f"numpy.arange cannot take a traced floating point {name}: the number of elements would depend on it",
            where=user_line(),
            got=value.describe(),
            remedy="use start + step * numpy.arange(n), or functrace.numpy.linspace(start, stop, n), with a fixed n",
        )
    return as_index(value, name)


@implements(np.arange)
def arange(
    start_or_stop: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: Any = None, like: Any = None
) -> np.ndarray:
    """Evenly spaced plain numbers."""
    start, step = _plain_end(start_or_stop, "start"), _plain_end(step, "step")
    if stop is None:
        return np.arange(0, start, step, dtype=dtype) if step != 1 or dtype else np.arange(start)
    return np.arange(start, _plain_end(stop, "stop"), step, dtype=dtype)


def _count(num: Any) -> int:
    count = as_index(num, "num")
    if count < 0:
        raise ArgumentError(
            "the number of samples must not be negative", where=user_line(), got=str(count), remedy="use num from 0"
        )
    return count


@structural(np.linspace)
def linspace(
    start: Any,
    stop: Any,
    num: int = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: int = 0,
    *,
    device: Any = None,
) -> Any:
    """Evenly spaced numbers between ends that may be traced."""
    count = _count(num)
    start, stop = map(as_array, promote(as_operand(start), as_operand(stop), 0.0)[:2])
    intervals = count - 1 if endpoint else count
    delta = stop - start
    step = delta / intervals if intervals > 0 else np.nan
    tail = (1,) * len(delta.shape)
    ramp = np.arange(count, dtype=delta.dtype).reshape(count, *tail)
    out = ramp * (step if intervals > 0 else delta) + start
    if endpoint and count > 1:
        last = broadcast_value(_widened(stop, len(tail)), delta.shape)
        out = join([cut(out, 0, 0, count - 1), reshape_primitive(last, shape=(1, *delta.shape))], 0)
    target = delta.dtype if dtype is None else checked_dtype(dtype)
    if target.kind in "iu":
        out = np.floor(out)
    out = move_axis(convert_to(out, target, copy=False), 0, normalize_axis(axis, out.ndim))
    return (out, step) if retstep else out


@structural(np.logspace)
def logspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: Any = 10.0, dtype: Any = None, axis: int = 0
) -> Any:
    """Powers of a base with evenly spaced exponents between ends that may be traced."""
    if np.ndim(base):
        base = as_array(base)
        start, stop = as_array(start), as_array(stop)
        widest = max(start.ndim, stop.ndim, base.ndim)
        start, stop, base = (_widened(x, widest) for x in (start, stop, base))
        place = normalize_axis(axis, widest + 1)
        base = reshape_primitive(base, shape=(*base.shape[:place], 1, *base.shape[place:]))
    exponents = linspace(start, stop, num, endpoint, axis=axis)
    out = traced_ufuncs[np.power](base, exponents)
    return out if dtype is None else convert_to(out, dtype, copy=False)


@structural(np.geomspace)
def geomspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None, axis: int = 0) -> Any:
    """Numbers in geometric progression between ends that may be traced."""
    count = _count(num)
    start, stop = as_array(start), as_array(stop)
    working = np.result_type(start.dtype, stop.dtype, 0.0, float if dtype is None else checked_dtype(dtype))
    start, stop = cast(start, working), cast(stop, working)
    direction = start / np.abs(start) if working.kind == "c" else p.sign(start)
    first, last = start / direction, stop / direction
    out = logspace(np.log10(first), np.log10(last), count, endpoint)
    if count > 0:
        shape = out.shape[1:]
        ends = [reshape_primitive(broadcast_value(e, shape), shape=(1, *shape)) for e in (first, last)]
        inner = cut(out, 0, 1, max(count - 1, 1) if endpoint else count)
        out = join([ends[0], inner, *ends[1 : 1 + (endpoint and count > 1)]], 0)
    out = out * direction
    out = move_axis(out, 0, normalize_axis(axis, len(out.shape)))
    return convert_to(out, working if dtype is None else dtype, copy=False)
