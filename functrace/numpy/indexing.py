"""Functions that read and write by index; `at` is the pure form of assignment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.core.trace import Tracer
from functrace.errors import AbstractValueError, ArgumentError, IndexingError, ShapeError
from functrace.numpy._assignment import fit
from functrace.numpy._at import at
from functrace.numpy._axes import as_index, normalize_axis
from functrace.numpy._dispatch import plain_buffer, reject
from functrace.numpy._indexing import plan_index, read, wrap_indices
from functrace.numpy._promotion import as_array, as_real_array, cast, promote
from functrace.numpy._structural import flat, move_axis, single_axis, structural
from functrace.numpy.shape import broadcast_arrays
from functrace.primitives import elementwise as p
from functrace.primitives import indexing as primitives
from functrace.primitives.families import reshape
from functrace.primitives.shape import stack
from functrace.util import user_line

__all__ = [
    "argwhere", "at", "choose", "compress", "digitize", "extract", "fill_diagonal", "flatnonzero", "index_exp", "ix_",
    "nonzero", "place", "put", "put_along_axis", "putmask", "ravel_multi_index", "s_", "searchsorted",
    "sliding_window_view", "take", "take_along_axis", "unravel_index",
]  # fmt: skip

index_exp = np.index_exp
s_ = np.s_
_FULL = slice(None)
_MODES = ("raise", "wrap", "clip")


# reading


def _mode(function: str, mode: str) -> None:
    if mode not in _MODES:
        raise ArgumentError(
            f"numpy.{function} knows no such mode", where=user_line(), got=repr(mode), remedy=f"choose among {_MODES}"
        )


def _in_range(indices: Any, length: int, axis: int, mode: str) -> Any:
    """Integer indices from 0 to length - 1, by NumPy's modes."""
    if mode == "raise":
        return wrap_indices(indices, length, axis)
    if not isinstance(indices, Tracer):
        return indices % max(length, 1) if mode == "wrap" else np.clip(indices, 0, max(length - 1, 0))
    indices, bound = promote(indices, length if mode == "wrap" else length - 1)
    if mode == "wrap":
        return p.remainder(indices, bound)
    return p.minimum(p.maximum(indices, p.zero_of(indices)), bound)


def _as_indices(indices: Any) -> Any:
    """Integer indices, as their value where they have one.

    Raises:
        IndexingError: they are not integers.
    """
    indices = as_array(indices)
    if indices.dtype.kind not in "iub":
        raise IndexingError(
            "indices must be integers",
            where=user_line(),
            got=f"dtype {indices.dtype}",
            remedy="convert them with .astype(int)",
        )
    return indices.astype(np.intp) if indices.dtype.kind == "b" else known_value(indices)


def _along(axis: int, key: Any) -> tuple[Any, ...]:
    return (*(_FULL,) * axis, key)


def _index(x: Any, key: Any) -> Any:
    return read(x, plan_index(x.shape, key))


@structural(np.take)
def take(a: Any, indices: Any, axis: Any = None, out: Any = None, mode: str = "raise") -> Any:
    """The elements, or slices along an axis, at integer indices. Traced indices out of range are clamped."""
    reject("take", out=out)
    _mode("take", mode)
    x = as_array(a)
    x, axis = single_axis(x, axis)
    if not x.shape:
        x = reshape(x, shape=(1,))
    return _index(x, _along(axis, _in_range(_as_indices(indices), x.shape[axis], axis, mode)))


def _grid_key(shape: tuple[int, ...], indices: Any, axis: int) -> tuple[Any, ...]:
    """The index that takes `indices` along an axis and each other axis in step.

    Raises:
        ShapeError: the numbers of axes differ.
    """
    if len(indices.shape) != len(shape):
        raise ShapeError(
            "indices along an axis need as many axes as the array",
            where=user_line(),
            got=f"indices of shape {indices.shape} for an array of shape {shape}",
            remedy="give them the array's axes, of length 1 where they repeat, for instance with keepdims=True",
        )
    rank = len(shape)
    return tuple(
        indices if a == axis else np.arange(n).reshape((1,) * a + (n,) + (1,) * (rank - a - 1))
        for a, n in enumerate(shape)
    )


@structural(np.take_along_axis)
def take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Any:
    """Elements at one index per position along an axis, as `argsort` and `argmax(keepdims=True)` give them."""
    x, positions = as_array(arr), _as_indices(indices)
    if axis is None:
        return _index(flat(x), positions)
    axis = normalize_axis(axis, len(x.shape))
    return _index(x, _grid_key(x.shape, positions, axis))


@structural(np.choose)
def choose(a: Any, choices: Any, out: Any = None, mode: str = "raise") -> Any:
    """Per position, the element of the choice that the integer `a` names."""
    reject("choose", out=out)
    _mode("choose", mode)
    options = promote(*[as_array(c) for c in choices])
    picks, *options = broadcast_arrays(_as_indices(a), *options)
    if mode == "raise" and not isinstance(picks, Tracer) and picks.size and picks.min() < 0:
        wrap_indices(np.array([len(options)]), len(options), 0)  # raises: no counting from the end here
    picks = _in_range(picks, len(options), 0, mode)
    shape = picks.shape
    table = stack(*options, axis=0)
    return reshape(_index(table, _grid_key(table.shape, reshape(picks, shape=(1, *shape)), 0)), shape=shape)


@structural(np.compress)
def compress(condition: Any, a: Any, axis: Any = None, out: Any = None) -> Any:
    """The slices along an axis where a condition with a known value is true."""
    reject("compress", out=out)
    chosen = _known_condition("compress", condition)
    if chosen.ndim != 1:
        raise ShapeError(
            "numpy.compress takes a condition with one axis",
            where=user_line(),
            got=f"shape {chosen.shape}",
            remedy="index with it instead, x[condition], or use numpy.extract",
        )
    selected = np.flatnonzero(chosen)
    return take(a, selected, axis)


@structural(np.extract)
def extract(condition: Any, arr: Any) -> Any:
    """The elements where a condition with a known value is true, in one dimension."""
    return _index(flat(as_array(arr)), np.flatnonzero(_known_condition("extract", condition)))


def known_value(x: Any) -> Any:
    """The value of a tracer that has one, else the tracer."""
    if isinstance(x, Tracer):
        try:
            return x.concrete()
        except AbstractValueError:
            return x
    return x


def _known_condition(function: str, x: Any) -> np.ndarray:
    """A value that decides the shape of a result.

    Raises:
        IndexingError: it has none.
    """
    value = known_value(as_array(x))
    if isinstance(value, Tracer):
        raise IndexingError(
            f"numpy.{function} of an abstract array: the number of its results is unknown while tracing",
            where=user_line(),
            got=value.describe(),
            remedy="use functrace.numpy.where(condition, x, 0), which keeps the shape",
        )
    return np.asarray(value)


@structural(np.nonzero)
def nonzero(a: Any) -> tuple[np.ndarray, ...]:
    """Where the elements of an array with a known value are not zero, as plain integer arrays."""
    return np.nonzero(_known_condition("nonzero", a))


@structural(np.flatnonzero)
def flatnonzero(a: Any) -> np.ndarray:
    """Where the elements of an array with a known value are not zero, in the flattened array."""
    return np.flatnonzero(_known_condition("flatnonzero", a))


@structural(np.argwhere)
def argwhere(a: Any) -> np.ndarray:
    """Where the elements of an array with a known value are not zero, one row per element."""
    return np.argwhere(_known_condition("argwhere", a))


@structural(np.ix_)
def ix_(*args: Any) -> tuple[Any, ...]:
    """Index arrays opened to all their combinations."""
    found = []
    for position, arg in enumerate(args):
        value = known_value(as_array(arg))
        value = np.flatnonzero(value) if isinstance(value, np.ndarray) and value.dtype.kind == "b" else value
        if len(value.shape) != 1:
            raise ShapeError(
                "numpy.ix_ takes one-dimensional index arrays",
                where=user_line(),
                got=f"shape {value.shape}",
                remedy="flatten the array with .ravel()",
            )
        shape = tuple(value.shape[0] if a == position else 1 for a in range(len(args)))
        found.append(reshape(value, shape=shape))
    return tuple(found)


@structural(np.searchsorted)
def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> Any:
    """Where to insert values in a sorted array: integers, without derivative."""
    if side not in ("left", "right"):
        raise ArgumentError(
            "numpy.searchsorted knows no such side", where=user_line(), got=repr(side), remedy="use 'left' or 'right'"
        )
    sequence, values = promote(as_array(a), as_array(v))
    if len(sequence.shape) != 1:
        raise ShapeError(
            "numpy.searchsorted takes a one-dimensional sorted array",
            where=user_line(),
            got=f"shape {sequence.shape}",
            remedy="map over the rows with functrace.vmap",
        )
    if sorter is not None:
        order = _as_indices(sorter)
        _require_size("searchsorted", "sorter", order.size, sequence.size)
        sequence = _index(sequence, order)
    return primitives.searchsorted(sequence, values, side=side)


@structural(np.digitize)
def digitize(x: Any, bins: Any, right: bool = False) -> Any:
    """The bin that each value falls into: integers, without derivative. The bins' values must be known."""
    x, edges = as_real_array("digitize", x), _known_condition("digitize", as_real_array("digitize", bins))
    if edges.ndim != 1:
        raise ShapeError(
            "bins of numpy.digitize must be one-dimensional",
            where=user_line(),
            got=f"shape {edges.shape}",
            remedy="give the edges of the bins in one array, as in [0.0, 1.0, 2.5]",
        )
    steps = np.diff(edges)
    side = "left" if right else "right"
    if (steps >= 0).all():
        return searchsorted(edges, x, side)
    if (steps <= 0).all():
        return len(edges) - searchsorted(edges[::-1], x, side)
    raise ArgumentError(
        "bins of numpy.digitize must increase or decrease", where=user_line(), got="neither", remedy="sort the bins"
    )


@structural(np.lib.stride_tricks.sliding_window_view)
def sliding_window_view(
    x: Any, window_shape: Any, axis: Any = None, *, subok: bool = False, writeable: bool = False
) -> Any:
    """All windows of a shape; a copy where NumPy gives a view."""
    x = as_array(x)
    lengths = tuple(window_shape) if isinstance(window_shape, Sequence) else (as_index(window_shape, "window_shape"),)
    if axis is None:
        axes = tuple(range(len(x.shape)))
    else:
        axes = tuple(normalize_axis(a, len(x.shape)) for a in (axis if isinstance(axis, Sequence) else (axis,)))
    if len(lengths) != len(axes) or any(not 0 <= w <= x.shape[a] for w, a in zip(lengths, axes, strict=False)):
        raise ShapeError(
            "sliding_window_view needs one window length per axis, none longer than the axis",
            where=user_line(),
            got=f"window_shape={window_shape}, axis={axis} for shape {x.shape}",
            remedy="give window_shape and axis tuples of the same length",
        )
    for length, along in zip(lengths, axes, strict=True):
        windows = np.arange(x.shape[along] - length + 1)[:, None] + np.arange(length)
        x = _index(x, _along(along, windows))
        x = move_axis(x, along + 1, len(x.shape) - 1)
    return x


# index arithmetic


@structural(np.unravel_index)
def unravel_index(indices: Any, shape: Any, order: str = "C") -> tuple[Any, ...]:
    """Flat indices as one index per axis."""
    reject("unravel_index", order=order)
    rest = _as_indices(indices)
    found = []
    for length in reversed(shape if isinstance(shape, (tuple, list)) else (shape,)):
        found.append(rest % length)
        rest = rest // length
    return tuple(reversed(found))


@structural(np.ravel_multi_index)
def ravel_multi_index(multi_index: Any, dims: Any, mode: Any = "raise", order: str = "C") -> Any:
    """One index per axis as flat indices. Traced indices out of range are clamped."""
    reject("ravel_multi_index", order=order)
    modes = mode if isinstance(mode, tuple) else (mode,) * len(dims)
    total: Any = 0
    for axis, (index, length) in enumerate(zip(multi_index, dims, strict=True)):
        _mode("ravel_multi_index", modes[axis])
        total = total * length + _in_range(_as_indices(index), length, axis, modes[axis])
    return total


# writing: NumPy's functions that change an array in place


def _target(function: str, a: Any) -> Tracer:
    if not isinstance(a, Tracer):
        raise plain_buffer(f"numpy.{function} would write", a)
    return a


@structural(np.put_along_axis)
def put_along_axis(arr: Any, indices: Any, values: Any, axis: int | None) -> None:
    """Assign at one index per position along an axis of a traced array."""
    x, positions = _target("put_along_axis", arr), _as_indices(indices)
    if axis is None:
        x[...] = reshape(at(flat(x))[positions].set(values), shape=x.shape)  # type: ignore[index]
    else:
        x[_grid_key(x.shape, positions, normalize_axis(axis, len(x.shape)))] = values  # type: ignore[index]


def _cycled(values: Any, count: int) -> Any:
    """The flattened values, repeated to a count."""
    values = flat(as_array(values))
    return _index(values, np.arange(count) % max(values.shape[0], 1))


@structural(np.put)
def put(a: Any, ind: Any, v: Any, mode: str = "raise") -> None:
    """Assign at flat indices of a traced array; values repeat as needed."""
    _mode("put", mode)
    x = _target("put", a)
    positions = flat(_in_range(_as_indices(ind), x.size, 0, mode))
    x[...] = reshape(at(flat(x))[positions].set(_cycled(v, positions.size)), shape=x.shape)  # type: ignore[index]


@structural(np.place)
def place(arr: Any, mask: Any, vals: Any) -> None:
    """Assign, one after the other, to the elements of a traced array where a known mask is true."""
    x, chosen = _target("place", arr), _known_condition("place", mask)
    _require_size("place", "mask", chosen.size, x.size)
    put(x, np.flatnonzero(chosen), vals)


def _require_size(function: str, name: str, size: int, wanted: int) -> None:
    if size != wanted:
        raise ShapeError(
            f"the {name} of numpy.{function} has one element for each of the array",
            where=user_line(),
            got=f"{size} for {wanted}",
            remedy=f"give a {name} of the array's shape",
        )


@structural(np.putmask)
def putmask(a: Any, mask: Any, values: Any) -> None:
    """Assign where a mask is true: values of the array's shape, or repeated over its flattened elements."""
    x = _target("putmask", a)
    values, chosen = as_array(values), as_array(mask)
    if chosen.shape != x.shape:
        _require_size("putmask", "mask", chosen.size, x.size)
        chosen = reshape(chosen, shape=x.shape)
    if values.shape != x.shape:
        values = reshape(_cycled(values, x.size), shape=x.shape)
    x[...] = p.select(cast(chosen, np.dtype(bool)), fit(values, x.shape, x.dtype), x)  # type: ignore[index]


@structural(np.fill_diagonal)
def fill_diagonal(a: Any, val: Any, wrap: bool = False) -> None:
    """Assign to the main diagonal of a traced array."""
    x = _target("fill_diagonal", a)
    if len(x.shape) < 2 or (len(x.shape) > 2 and len(set(x.shape)) > 1):
        raise ShapeError(
            "fill_diagonal needs an array of at least two axes, of equal lengths if more",
            where=user_line(),
            got=f"shape {x.shape}",
            remedy="assign with x[i, i] = value",
        )
    template = np.zeros(x.shape, bool)
    np.fill_diagonal(template, True, wrap)
    put(x, np.flatnonzero(template), val)
