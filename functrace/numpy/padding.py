"""`numpy.pad`: every mode that is linear in the array, and those of its statistics.

Copies of elements (edge, reflect, symmetric, wrap) follow the index map that NumPy's own `pad` gives for the positions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.errors import ArgumentError, ShapeError, UnsupportedFunctionError
from functrace.numpy._axes import concrete_integers, normalize_axis, numpy_index_map
from functrace.numpy._dispatch import traced_functions
from functrace.numpy._promotion import as_array, broadcast_to, has_tracer
from functrace.numpy._structural import cut, fresh, join, select_along, structural
from functrace.numpy.creation import linspace
from functrace.numpy.shape import convert_to
from functrace.primitives.families import reshape as reshape_primitive
from functrace.primitives.shape import pad as pad_primitive
from functrace.util import user_line

__all__ = ["pad"]

_OPTIONS = {
    "constant": "constant_values", "linear_ramp": "end_values", "maximum": "stat_length", "mean": "stat_length",
    "median": "stat_length", "minimum": "stat_length", "reflect": "reflect_type", "symmetric": "reflect_type",
    "edge": None, "wrap": None, "empty": None,
}  # fmt: skip
_STATISTICS: dict[str, Any] = {"maximum": np.max, "minimum": np.min, "mean": np.mean, "median": np.median}


@structural(np.pad)
def pad(array: Any, pad_width: Any, mode: Any = "constant", **kwargs: Any) -> Any:
    """The array grown on all sides, by constants or from its own elements."""
    x = as_array(array)
    if callable(mode):
        raise UnsupportedFunctionError(
            "numpy.pad inside a traced function takes no function as mode",
            where=user_line(),
            remedy="pad with zeros and assign the borders, or use numpy.concatenate",
        )
    if mode not in _OPTIONS:
        raise ArgumentError(
            "numpy.pad knows no such mode",
            where=user_line(),
            got=repr(mode),
            remedy=f"choose from {', '.join(_OPTIONS)}",
        )
    for name in kwargs:
        if name != _OPTIONS[mode]:
            raise ArgumentError(
                f"mode {mode!r} of numpy.pad does not take {name}=",
                where=user_line(),
                got=name,
                remedy=f"its option is {_OPTIONS[mode]}" if _OPTIONS[mode] else "it takes no options",
            )
    widths = _widths(pad_width, x.ndim)
    for axis, (low, high) in enumerate(widths):
        if mode not in ("constant", "empty") and x.shape[axis] == 0 and (low or high):
            raise ShapeError(
                f"mode {mode!r} of numpy.pad cannot grow an empty axis",
                where=user_line(),
                got=f"axis {axis} of shape {x.shape}",
                remedy="use mode='constant'",
            )
    out = _grow(x, widths, mode, kwargs)
    return fresh(out) if out is array else out


def _widths(pad_width: Any, ndim: int) -> list[tuple[int, int]]:
    """One pair of widths per axis."""
    if isinstance(pad_width, dict):
        pairs = [(0, 0)] * ndim
        for axis, width in pad_width.items():
            low, high = width if isinstance(width, (tuple, list)) else (width, width)
            pairs[normalize_axis(axis, ndim)] = low, high
        pad_width = pairs
    widths = numpy_index_map(np.broadcast_to, concrete_integers(pad_width, "pad_width"), (ndim, 2))
    if widths.size and widths.min() < 0:
        raise ArgumentError(
            "pad_width must not be negative", where=user_line(), got=repr(pad_width), remedy="use slices to cut arrays"
        )
    return [(int(low), int(high)) for low, high in widths]


def _grow(x: Any, widths: list[tuple[int, int]], mode: str, options: dict[str, Any]) -> Any:
    option = next(iter(options.values()), None)
    if mode == "empty" or (mode == "constant" and (option is None or (not has_tracer(option) and not np.any(option)))):
        low, high = tuple(w[0] for w in widths), tuple(w[1] for w in widths)
        return pad_primitive(x, low=low, high=high, interior=(0,) * len(widths)) if any(low + high) else x
    pairs = [(None, None)] * len(widths) if option is None else _pairs(option, len(widths), mode)
    for axis, (width, pair) in enumerate(zip(widths, pairs, strict=True)):
        if not any(width):
            continue
        if mode in ("constant", "linear_ramp"):
            side = _constant if mode == "constant" else _ramp
            sides = [side(x, axis, i, width[i], 0 if pair[i] is None else pair[i]) for i in (0, 1)]
            x = _bordered(x, axis, *sides)
        elif mode in _STATISTICS:
            x = _bordered(x, axis, *[_statistic(x, axis, i, width[i], pair[i], mode) for i in (0, 1)])
        elif option == "odd":
            x = _odd(x, axis, width, mode)
        else:
            numbers = np.arange(x.shape[axis])
            x = select_along(x, numpy_index_map(np.pad, numbers, width, mode, **options), axis)
    return x


def _pairs(option: Any, ndim: int, mode: str) -> list[tuple[Any, Any]]:
    """An option's values for both sides of each axis."""
    if isinstance(option, str):
        return [(None, None)] * ndim
    if not has_tracer(option):
        values = numpy_index_map(np.broadcast_to, np.asarray(option), (ndim, 2))
        if mode in _STATISTICS and (values.dtype.kind not in "iu" or (values < 1).any()):
            raise ArgumentError(
                "stat_length of numpy.pad must be positive integers",
                where=user_line(),
                got=repr(option),
                remedy="leave stat_length out to use the whole axis",
            )
        return [tuple(row) for row in values]
    values = broadcast_to(as_array(option), (ndim, 2))
    return [(values[i, 0], values[i, 1]) for i in range(ndim)]


def _bordered(x: Any, axis: int, low: Any, high: Any) -> Any:
    return join([part for part in (low, x, high) if part is not None], axis, x.dtype)


def _side_shape(x: Any, axis: int, width: int) -> tuple[int, ...]:
    return (*x.shape[:axis], width, *x.shape[axis + 1 :])


def _constant(x: Any, axis: int, side: int, width: int, value: Any) -> Any:
    if not width:
        return None
    return broadcast_to(convert_to(as_array(value), x.dtype, copy=False), _side_shape(x, axis, width))


def _ramp(x: Any, axis: int, side: int, width: int, end: Any) -> Any:
    """Evenly spaced values from the end value, at the border, towards the edge of the array."""
    if not width:
        return None
    start = 0 if side == 0 else x.shape[axis] - 1
    edge = reshape_primitive(cut(x, axis, start, start + 1), shape=_side_shape(x, axis, 1)[:axis] + x.shape[axis + 1 :])
    ramp = linspace(end, edge, width, endpoint=False, dtype=x.dtype, axis=axis)
    return traced_functions[np.flip](ramp, axis) if side else ramp


def _statistic(x: Any, axis: int, side: int, width: int, length: Any, mode: str) -> Any:
    if not width:
        return None
    extent = x.shape[axis]
    length = extent if length is None else min(int(length), extent)
    part = cut(x, axis, 0, length) if side == 0 else cut(x, axis, extent - length, extent)
    value = traced_functions[_STATISTICS[mode]](part, axis=axis, keepdims=True)
    if x.dtype.kind in "iu" and value.dtype.kind == "f":
        value = np.rint(value)
    return broadcast_to(convert_to(value, x.dtype, copy=False), _side_shape(x, axis, width))


def _odd(x: Any, axis: int, width: tuple[int, int], mode: str) -> Any:
    """Reflection through the edge element: twice the edge minus the mirrored elements, whole periods at a time."""
    low, high = width
    period = x.shape[axis]
    if period == 1:
        return select_along(x, np.zeros(low + 1 + high, int), axis)
    skip = 0 if mode == "symmetric" else 1
    while low or high:
        have = x.shape[axis]
        reach = (have - skip) // (period - skip) * (period - skip)
        parts = [x]
        take_low, take_high = min(low, reach), min(high, reach)
        if take_low:
            mirrored = traced_functions[np.flip](cut(x, axis, skip, skip + take_low), axis)
            parts.insert(0, 2 * cut(x, axis, 0, 1) - mirrored)
        if take_high:
            mirrored = traced_functions[np.flip](cut(x, axis, have - skip - take_high, have - skip), axis)
            parts.append(2 * cut(x, axis, have - 1, have) - mirrored)
        x = join([convert_to(part, x.dtype, copy=False) for part in parts], axis)
        low, high = low - take_low, high - take_high
    return x
