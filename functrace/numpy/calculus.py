"""Differences, integrals, interpolation and convolution of sampled functions."""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.errors import ArgumentError, DTypeError, ShapeError
from functrace.numpy._axes import as_index, normalize_axes, normalize_axis
from functrace.numpy._promotion import (
    as_array,
    as_operand,
    as_real_array,
    broadcast_to,
    cast,
    promote,
    require_real,
)
from functrace.numpy._reducing import NO_VALUE, same_option
from functrace.numpy._structural import check_joinable, cut, flat, join, structural
from functrace.primitives import elementwise as p
from functrace.primitives.convolution import convolve as convolve_primitive
from functrace.primitives.cumulative import cumsum
from functrace.primitives.families import reshape
from functrace.primitives.indexing import gather, searchsorted
from functrace.primitives.shape import reverse
from functrace.primitives.sorting import argsort
from functrace.util import user_line

__all__ = [
    "convolve", "correlate", "diff", "ediff1d", "gradient", "interp", "trapezoid", "unwrap",
]  # fmt: skip

_FLOAT64 = np.dtype(np.float64)


def _step(x: Any, axis: int) -> Any:
    """The differences of neighbours along an axis; of booleans, whether they differ."""
    later, earlier = cut(x, axis, 1, x.shape[axis]), cut(x, axis, 0, x.shape[axis] - 1)
    return p.not_equal(later, earlier) if x.dtype.kind == "b" else p.sub(later, earlier)


@structural(np.diff)
def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = NO_VALUE, append: Any = NO_VALUE) -> Any:
    """The n-th differences of neighbours along an axis."""
    x = as_array(a)
    count = as_index(n, "n")
    if count < 0:
        raise ArgumentError("numpy.diff takes n >= 0", where=user_line(), got=f"n={count}", remedy="use n >= 0")
    if count == 0:
        return a
    place = normalize_axis(axis, len(x.shape))
    edges = [None if e is NO_VALUE else _edge(e, x.shape, place) for e in (prepend, append)]
    parts = [part for part in (edges[0], x, edges[1]) if part is not None]
    if len(parts) > 1:
        check_joinable("diff", parts, place)
        x = join(parts, place)
    for _ in range(count):
        if x.shape[place] == 0:
            break
        x = _step(x, place)
    return x


def _edge(value: Any, shape: tuple[int, ...], axis: int) -> Any:
    """What `prepend` or `append` puts at the end of an axis; a scalar is repeated."""
    edge = as_array(value)
    return edge if edge.shape else broadcast_to(edge, tuple(1 if a == axis else n for a, n in enumerate(shape)))


@structural(np.ediff1d)
def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    """The differences of neighbours in the flattened array, between given ends."""
    x = flat(as_array(ary))
    steps = np.subtract(cut(x, 0, 1, x.shape[0]), cut(x, 0, 0, x.shape[0] - 1)) if x.shape[0] else x
    parts = []
    for end in (to_begin, to_end):
        end = None if end is None else flat(as_array(end))
        if end is not None and not np.can_cast(end.dtype, x.dtype, "same_kind"):
            raise DTypeError(
                "the ends of numpy.ediff1d must be compatible with the array",
                where=user_line(),
                got=f"{end.dtype.name} for {x.dtype.name}",
                remedy="convert the array with .astype",
            )
        parts.append(end)
    return join([part for part in (parts[0], steps, parts[1]) if part is not None], 0, x.dtype)


# numerical derivatives and integrals


@structural(np.gradient)
def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """Second-order differences of samples, one array per axis; differentiable in the positions too."""
    x = as_array(f)
    axes = tuple(range(len(x.shape))) if axis is None else normalize_axes(axis, len(x.shape))
    x = cast(x, _FLOAT64) if x.dtype.kind in "biu" else x
    same_option("gradient", "edge_order", edge_order, (1, 2))  # type: ignore[arg-type]
    if not varargs:
        spacings = [1.0] * len(axes)
    elif len(varargs) == 1 and not np.ndim(varargs[0]):
        spacings = [varargs[0]] * len(axes)
    elif len(varargs) == len(axes):
        spacings = list(varargs)
    else:
        raise ArgumentError(
            "numpy.gradient takes one spacing, or one for each axis",
            where=user_line(),
            got=f"{len(varargs)} spacings for {len(axes)} axes",
            remedy="give a number or an array of positions per axis",
        )
    if x.dtype.kind != "c":
        spacings = [as_real_array("gradient", s) if hasattr(s, "dtype") else s for s in spacings]
    results = [
        cast(_gradient_along(x, a, _spacing(s, x.shape[a]), edge_order), x.dtype)
        for a, s in zip(axes, spacings, strict=True)
    ]
    return results[0] if len(results) == 1 else tuple(results)


def _spacing(spacing: Any, length: int) -> Any:
    """A number, or the distances between neighbouring positions."""
    if not np.ndim(spacing):
        return as_operand(spacing)
    h = as_array(spacing)
    if h.shape != (length,):
        raise ShapeError(
            "positions of numpy.gradient must be one number per sample",
            where=user_line(),
            got=f"shape {h.shape} for {length} samples",
            remedy="give a one-dimensional array as long as the axis, or a number",
        )
    return _step(cast(h, _FLOAT64) if h.dtype.kind in "biu" else h, 0)


def _gradient_along(x: Any, axis: int, h: Any, edge_order: int) -> Any:
    length = x.shape[axis]
    if length < edge_order + 1:
        raise ShapeError(
            "numpy.gradient needs more samples",
            where=user_line(),
            got=f"{length} samples on axis {axis}",
            remedy=f"give at least {edge_order + 1} samples for edge_order={edge_order}",
        )

    def at(start: int, stop: int) -> Any:
        return cut(x, axis, start, stop)

    def along(d: Any) -> Any:
        return np.reshape(d, (-1,) + (1,) * (len(x.shape) - 1 - axis))

    if not np.ndim(h):
        inner = (at(2, length) - at(0, length - 2)) / (2 * h)
        if edge_order == 1:
            first, last = (at(1, 2) - at(0, 1)) / h, (at(length - 1, length) - at(length - 2, length - 1)) / h
        else:
            first = (-1.5 / h) * at(0, 1) + (2.0 / h) * at(1, 2) + (-0.5 / h) * at(2, 3)
            last = (0.5 / h) * at(length - 3, length - 2) + (-2.0 / h) * at(length - 2, length - 1)
            last = last + (1.5 / h) * at(length - 1, length)
        return np.concatenate([first, inner, last], axis=axis)
    d1, d2 = along(h[:-1]), along(h[1:])
    inner = (
        -d2 / (d1 * (d1 + d2)) * at(0, length - 2)
        + (d2 - d1) / (d1 * d2) * at(1, length - 1)
        + d1 / (d2 * (d1 + d2)) * at(2, length)
    )
    if edge_order == 1:
        first, last = (at(1, 2) - at(0, 1)) / h[0], (at(length - 1, length) - at(length - 2, length - 1)) / h[-1]
    else:
        first = _edge_slope(h[0], h[1], at(0, 1), at(1, 2), at(2, 3))
        last = _edge_slope(
            -h[-1], -h[-2], at(length - 1, length), at(length - 2, length - 1), at(length - 3, length - 2)
        )
    return np.concatenate([first, inner, last], axis=axis)


def _edge_slope(d1: Any, d2: Any, x0: Any, x1: Any, x2: Any) -> Any:
    """The slope at the first of three samples, of the parabola through them."""
    return -(2 * d1 + d2) / (d1 * (d1 + d2)) * x0 + (d1 + d2) / (d1 * d2) * x1 - d1 / (d2 * (d1 + d2)) * x2


@structural(np.trapezoid)
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    """The integral of samples by the trapezoidal rule; differentiable in the positions too."""
    samples = as_array(y)
    place = normalize_axis(axis, len(samples.shape))
    if x is None:
        width = as_operand(dx)
    else:
        positions = as_array(x)
        if len(positions.shape) == 1:
            width = np.reshape(_step(positions, 0), (-1,) + (1,) * (len(samples.shape) - 1 - place))
        else:
            width = _step(positions, normalize_axis(axis, len(positions.shape)))
    length = samples.shape[place]
    return np.sum(width * (cut(samples, place, 1, length) + cut(samples, place, 0, length - 1)) / 2.0, axis=place)


# interpolation


def _end(name: str, value: Any, dtype: np.dtype) -> Any:
    """The value of an interpolant beyond an end."""
    number = require_real(f"{name}= of numpy.interp", as_array(value), dtype)
    if number.shape != ():
        raise ShapeError(
            f"{name}= of numpy.interp is one number",
            where=user_line(),
            got=f"shape {number.shape}",
            remedy="choose between arrays with numpy.where",
        )
    return cast(number, dtype)


@structural(np.interp)
def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None) -> Any:
    """Piecewise linear interpolation, differentiable in x, xp and fp; at a knot the slope is that on its right.

    Outside the knots the value is constant, and so is its derivative in x zero.
    """
    at, knots = (cast(as_real_array("interp", v), _FLOAT64) for v in (x, xp))
    values = as_array(fp)
    values = cast(values, np.result_type(values.dtype, _FLOAT64))
    if len(knots.shape) != 1 or knots.shape != values.shape or not knots.shape[0]:
        raise ShapeError(
            "numpy.interp takes one-dimensional xp and fp of one length, not empty",
            where=user_line(),
            got=f"xp of shape {knots.shape}, fp of shape {values.shape}",
            remedy="map over leading axes with functrace.vmap",
        )
    if period is not None:
        left = right = None
        at, knots, values = _periodic(at, knots, values, abs(as_array(period)))
    count = knots.shape[0]
    left = values[0] if left is None else _end("left", left, values.dtype)
    right = values[count - 1] if right is None else _end("right", right, values.dtype)
    below, above = np.less(at, knots[0]), np.greater(at, knots[count - 1])
    if count == 1:
        inside = broadcast_to(values[0], at.shape)
    else:
        start = np.minimum(np.maximum(searchsorted(knots, at, side="right") - 1, 0), count - 2)
        x0, x1, f0, f1 = (gather(v, start + i, axes=(0,), unique=False) for v in (knots, values) for i in (0, 1))
        width = x1 - x0
        width = np.where(width == 0, 1.0, width)
        inside = (f1 - f0) / width * (at - x0) + f0
    return np.where(below, left, np.where(above, right, inside))


def _periodic(x: Any, knots: Any, values: Any, period: Any) -> tuple[Any, Any, Any]:
    """Positions and knots within one period, the knots continued by one on each side."""
    x, knots = x % period, knots % period
    order = argsort(knots, axis=0, kind="quicksort")
    knots, values = (gather(v, order, axes=(0,), unique=True) for v in (knots, values))
    knots = np.concatenate([knots[-1:] - period, knots, knots[:1] + period])
    return x, knots, np.concatenate([values[-1:], values, values[:1]])


# convolution


def _sequences(function: str, a: Any, v: Any) -> list[Any]:
    """Two sequences of one dtype."""
    x, y = promote(as_array(a), as_array(v))
    x, y = (reshape(s, shape=(1,)) if not s.shape else s for s in (x, y))
    if len(x.shape) != 1 or len(y.shape) != 1 or not x.shape[0] or not y.shape[0]:
        raise ShapeError(
            f"numpy.{function} takes one-dimensional arrays that are not empty",
            where=user_line(),
            got=f"shapes {x.shape} and {y.shape}",
            remedy="map over other axes with functrace.vmap",
        )
    return [x, y]


@structural(np.convolve)
def convolve(a: Any, v: Any, mode: str = "full") -> Any:
    """The convolution of two sequences."""
    same_option("convolve", "mode", mode, ("full", "same", "valid"))
    x, y = _sequences("convolve", a, v)
    full = convolve_primitive(x, y)
    long, short = max(x.shape[0], y.shape[0]), min(x.shape[0], y.shape[0])
    if mode == "full":
        return full
    start, length = ((short - 1) // 2, long) if mode == "same" else (short - 1, long - short + 1)
    return cut(full, 0, start, start + length)


@structural(np.correlate)
def correlate(a: Any, v: Any, mode: str = "valid") -> Any:
    """The correlation of two sequences, the second conjugated."""
    same_option("correlate", "mode", mode, ("full", "same", "valid"))
    x, y = _sequences("correlate", a, v)
    y = p.conj(y) if y.dtype.kind == "c" else y
    if mode == "same" and x.shape[0] < y.shape[0]:  # NumPy centres on the longer sequence, then turns around
        return reverse(convolve(y, reverse(x, axes=(0,)), "same"), axes=(0,))
    return convolve(x, reverse(y, axes=(0,)), mode)


# phases


@structural(np.unwrap)
def unwrap(p: Any, discont: Any = None, axis: int = -1, *, period: Any = 2 * np.pi) -> Any:
    """The phases with jumps of more than half a period turned into their complements; the derivative is 1."""
    x = as_array(p)
    place = normalize_axis(axis, len(x.shape))
    steps = _step(x, place)
    discont = period / 2 if discont is None else discont
    dtype = np.result_type(x.dtype, period)
    whole = dtype.kind in "iu"
    high, remainder = divmod(period, 2) if whole else (period / 2, 0)
    ambiguous = remainder == 0 if whole else True
    low = -high
    turned = np.mod(steps - low, period) + low
    if ambiguous:
        turned = np.where(np.logical_and(turned == low, steps > 0), high, turned)
    correction = np.where(np.abs(steps) < discont, 0, turned - steps)
    head, tail = cut(x, place, 0, 1), cut(x, place, 1, x.shape[place])
    total = cumsum(cast(as_array(correction), dtype), axis=place, reverse=False)
    return np.concatenate([cast(head, dtype), tail + total], axis=place)
