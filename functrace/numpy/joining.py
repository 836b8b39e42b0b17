"""Arrays joined, cut, repeated and rearranged: results that NumPy makes new arrays, and the pieces of `split`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from functrace.errors import ArgumentError, ShapeError
from functrace.numpy._axes import as_shape, concrete_integers, normalize_axis, numpy_index_map
from functrace.numpy._dispatch import write_whole
from functrace.numpy._promotion import as_array, broadcast_shape, cast, checked_dtype, has_tracer, require_real
from functrace.numpy._promotion import broadcast_to as broadcast_value
from functrace.numpy._structural import (
    as_arrays,
    check_joinable,
    cut,
    flat,
    fresh,
    join,
    move_axis,
    part_of,
    select_along,
    single_axis,
    structural,
    view_of,
)
from functrace.numpy.shape import atleast_1d, atleast_2d, atleast_3d, convert_to
from functrace.primitives.families import broadcast
from functrace.primitives.families import reshape as reshape_primitive
from functrace.primitives.shape import full
from functrace.primitives.shape import stack as stack_primitive
from functrace.util import user_line

__all__ = [
    "append", "array_split", "block", "c_", "column_stack", "concat", "concatenate", "delete", "dsplit", "dstack",
    "hsplit", "hstack", "insert", "meshgrid", "r_", "repeat", "resize", "roll", "row_stack", "split", "stack", "tile",
    "vsplit", "vstack",
]  # fmt: skip


def _common(arrays: list[Any], dtype: Any, casting: str) -> list[Any]:
    """The arrays in their common dtype, or in the one asked for."""
    if dtype is None:
        target = np.result_type(*{a.dtype for a in arrays})
        return [cast(a, target) for a in arrays]
    target = checked_dtype(dtype)
    return [convert_to(a, target, casting, copy=False) for a in arrays]


def _concatenate(arrays: list[Any], axis: Any, function: str, dtype: Any = None, casting: str = "same_kind") -> Any:
    if axis is None:
        arrays, axis = [flat(a) for a in arrays], 0
    first = arrays[0]
    if not first.ndim:
        raise ShapeError(
            f"numpy.{function} cannot join scalars",
            where=user_line(),
            got=", ".join(str(a.shape) for a in arrays),
            remedy="use numpy.stack, or functrace.numpy.array, to make an array of scalars",
        )
    place = normalize_axis(axis, first.ndim)
    check_joinable(function, arrays, place)
    return join(_common(arrays, dtype, casting), place)


@structural(np.concatenate)
def concatenate(
    arrays: Any, /, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: str = "same_kind"
) -> Any:
    """The arrays one after the other along an existing axis."""
    joined = _concatenate(as_arrays("concatenate", arrays), axis, "concatenate", dtype, casting)
    return write_whole("concatenate", joined, out, casting)


concat = concatenate


@structural(np.stack)
def stack(arrays: Any, axis: int = 0, out: Any = None, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    """Arrays of one shape along a new axis."""
    values = as_arrays("stack", arrays)
    first = values[0]
    if any(v.shape != first.shape for v in values):
        raise ShapeError(
            "numpy.stack needs arrays of one shape",
            where=user_line(),
            got=", ".join(str(v.shape) for v in values),
            remedy="broadcast them first, or use numpy.concatenate for arrays of different lengths",
        )
    place = normalize_axis(axis, first.ndim + 1)
    return write_whole("stack", stack_primitive(*_common(values, dtype, casting), axis=place), out, casting)


def _stacked(function: Any, widen: Any, axis: int) -> Any:
    """The traced form of one of NumPy's stack functions: give each array more axes, then concatenate."""
    name = function.__name__

    def traced(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Any:
        arrays = [widen(a) for a in as_arrays(name, tup)]
        return _concatenate(arrays, axis, name, dtype, casting)

    traced.__name__ = traced.__qualname__ = name
    traced.__doc__ = f"The arrays joined along axis {axis}, as `numpy.{name}` shapes them."
    return structural(function)(traced)


vstack = _stacked(np.vstack, atleast_2d, 0)
row_stack = vstack
dstack = _stacked(np.dstack, atleast_3d, 2)
column_stack = _stacked(
    np.column_stack, lambda x: x if x.ndim > 1 else reshape_primitive(x, shape=(math.prod(x.shape), 1)), 1
)


@structural(np.hstack)
def hstack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Any:
    """The arrays joined along the second axis; vectors and scalars along the first."""
    arrays = [atleast_1d(a) for a in as_arrays("hstack", tup)]
    return _concatenate(arrays, 0 if arrays[0].ndim == 1 else 1, "hstack", dtype, casting)


@structural(np.block)
def block(arrays: Any) -> Any:
    """An array put together from nested lists of blocks, innermost lists along the last axis."""
    depth = _block_depth(arrays)
    widest = max(depth, *_block_ndims(arrays)) if depth or isinstance(arrays, (list, tuple)) else depth
    dtype = np.result_type(*_block_dtypes(arrays))

    def assemble(item: Any, level: int) -> Any:
        if level == depth:
            x = cast(as_array(item), dtype)
            return x if x.ndim >= widest else reshape_primitive(x, shape=(1,) * (widest - x.ndim) + x.shape)
        pieces = [assemble(inner, level + 1) for inner in item]
        return _concatenate(pieces, widest - depth + level, "block")

    out = assemble(arrays, 0)
    return fresh(out) if out is arrays else out


def _block_depth(item: Any) -> int:
    """The nesting depth, the same everywhere."""
    if isinstance(item, tuple) or (isinstance(item, list) and not item):
        raise ArgumentError(
            "numpy.block takes lists that are not empty",
            where=user_line(),
            got="a tuple" if isinstance(item, tuple) else "an empty list",
            remedy="use lists for the nesting and arrays for the blocks",
        )
    if not isinstance(item, list):
        return 0
    depths = {_block_depth(inner) for inner in item}
    if len(depths) > 1:
        raise ArgumentError(
            "the lists of numpy.block must be nested to one depth",
            where=user_line(),
            got=f"depths {sorted(depths)}",
            remedy="write each row of blocks as a list, also those of one block",
        )
    return 1 + depths.pop()


def _block_ndims(item: Any) -> list[int]:
    return [n for inner in item for n in _block_ndims(inner)] if isinstance(item, list) else [len(as_array(item).shape)]


def _block_dtypes(item: Any) -> set[np.dtype]:
    return set().union(*map(_block_dtypes, item)) if isinstance(item, list) else {as_array(item).dtype}


@structural(np.append)
def append(arr: Any, values: Any, axis: Any = None) -> Any:
    """Values joined to the end of an array; both flattened without an axis."""
    first, second = as_array(arr), as_array(values)
    if axis is None:
        return _concatenate([flat(first), flat(second)], 0, "append")
    return _concatenate([first, second], axis, "append")


# pieces


@structural(np.array_split)
def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """Pieces along an axis: at the given positions, or as many as asked, the first ones longer by one."""
    x = as_array(ary)
    place = normalize_axis(axis, x.ndim)
    marks = numpy_index_map(np.array_split, np.arange(x.shape[place]), _sections(indices_or_sections))
    pieces = []
    for mark in marks:
        start = int(mark[0]) if mark.size else 0
        stop = start + mark.size
        pieces.append(part_of(ary, cut(x, place, start, stop), place, slice(start, stop)))
    return pieces


def _sections(indices_or_sections: Any) -> Any:
    """Where to cut, as plain integers."""
    array = concrete_integers(indices_or_sections, "the sections of numpy.split")
    return array.item() if array.ndim == 0 else array.tolist()


@structural(np.split)
def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """Pieces along an axis: at the given positions, or equal ones."""
    x = as_array(ary)
    length = x.shape[normalize_axis(axis, x.ndim)]
    sections = _sections(indices_or_sections)
    if isinstance(sections, int) and (sections < 1 or length % sections):
        raise ShapeError(
            "numpy.split cannot make equal pieces",
            where=user_line(),
            got=f"an axis of {length} in {sections} pieces",
            remedy="use numpy.array_split for pieces that differ in length by one",
        )
    return array_split(ary, sections, axis)


def _split_axis(function: Any, least: int, axis: int) -> Any:
    name = function.__name__

    def traced(ary: Any, indices_or_sections: Any) -> list[Any]:
        ndim = as_array(ary).ndim
        if ndim < least:
            raise ShapeError(
                f"numpy.{name} needs an array of at least {least} dimension{'s' * (least > 1)}",
                where=user_line(),
                got=f"{ndim} dimensions",
                remedy="use numpy.split with an axis that the array has",
            )
        return split(ary, indices_or_sections, min(axis, ndim - 1))

    traced.__name__ = traced.__qualname__ = name
    traced.__doc__ = f"Pieces along axis {axis}, as `numpy.{name}`."
    return structural(function)(traced)


hsplit = _split_axis(np.hsplit, 1, 1)
vsplit = _split_axis(np.vsplit, 2, 0)
dsplit = _split_axis(np.dsplit, 3, 2)


# repetition and rearrangement


@structural(np.tile)
def tile(A: Any, reps: Any) -> Any:
    """The array laid side by side `reps` times along each axis."""
    x = as_array(A)
    counts = [int(n) for n in concrete_integers(reps, "reps").ravel()]
    if any(n < 0 for n in counts):
        raise ArgumentError(
            "reps of numpy.tile must not be negative", where=user_line(), got=repr(reps), remedy="use counts from 0"
        )
    ndim = max(len(counts), x.ndim)
    counts = [1] * (ndim - len(counts)) + counts
    lengths = (1,) * (ndim - x.ndim) + x.shape
    if all(n == 1 for n in counts):
        return reshape_primitive(x, shape=lengths) if lengths != x.shape else fresh(x)
    spread = tuple(n for pair in zip(counts, lengths, strict=True) for n in pair)
    axes = tuple(2 * i + 1 for i in range(ndim - x.ndim, ndim))
    target = tuple(c * n for c, n in zip(counts, lengths, strict=True))
    return reshape_primitive(broadcast(x, shape=spread, axes=axes), shape=target)


@structural(np.repeat)
def repeat(a: Any, repeats: Any, axis: Any = None) -> Any:
    """Each element repeated; counts are concrete, one for all or one for each."""
    x, place = single_axis(as_array(a), axis)
    counts = concrete_integers(repeats, "repeats of numpy.repeat")
    length = x.shape[place]
    if counts.size == 1 and counts.item() >= 0:
        count = int(counts.item())
        spread = (*x.shape[: place + 1], count, *x.shape[place + 1 :])
        axes = tuple(i for i in range(len(spread)) if i != place + 1)
        target = (*x.shape[:place], length * count, *x.shape[place + 1 :])
        return reshape_primitive(broadcast(x, shape=spread, axes=axes), shape=target)
    return select_along(x, numpy_index_map(np.repeat, np.arange(length), counts), place)


@structural(np.roll)
def roll(a: Any, shift: Any, axis: Any = None) -> Any:
    """The elements shifted along axes, those that leave at the end coming back at the start."""
    x = as_array(a)
    if axis is None:
        return reshape_primitive(_roll(flat(x), int(concrete_integers(shift, "shift").sum()), 0), shape=x.shape)
    axes = [normalize_axis(i, x.ndim) for i in (axis if isinstance(axis, (tuple, list)) else (axis,))]
    shifts = concrete_integers(shift, "shift")
    for step, place in zip(*numpy_index_map(np.broadcast_arrays, shifts, np.array(axes)), strict=True):
        x = _roll(x, int(step), int(place))
    return fresh(x) if x is a else x


def _roll(x: Any, shift: int, axis: int) -> Any:
    length = x.shape[axis]
    point = -shift % length if length else 0
    return join([cut(x, axis, point, length), cut(x, axis, 0, point)], axis) if point else x


@structural(np.insert)
def insert(arr: Any, obj: Any, values: Any, axis: Any = None) -> Any:
    """Values put in before concrete positions along an axis."""
    x, place = single_axis(as_array(arr), axis)
    length = x.shape[place]
    positions: Any = obj if isinstance(obj, slice) else concrete_integers(obj, "positions of numpy.insert")
    new = require_real("numpy.insert", as_array(values), x.dtype)
    new = convert_to(new, x.dtype, copy=False)
    if new.ndim < x.ndim:
        new = reshape_primitive(new, shape=(1,) * (x.ndim - new.ndim) + new.shape)
    scalar = not isinstance(obj, slice) and positions.ndim == 0
    if scalar:
        new = move_axis(new, 0, place)
    # NumPy on positions: old elements are numbered from 1, new ones are 0.
    count = new.shape[place]
    single = scalar or np.size(np.arange(length)[obj] if isinstance(obj, slice) else positions) == 1
    marks = numpy_index_map(
        np.insert, np.arange(1, length + 1), positions, np.zeros(count, int) if single else 0, axis=0
    )
    added = len(marks) - length
    shape = (*x.shape[:place], added, *x.shape[place + 1 :])
    if broadcast_shape(new.shape, shape) != shape:
        raise ShapeError(
            "the values of numpy.insert do not fit the positions",
            where=user_line(),
            got=f"values of shape {new.shape} for {shape}",
            remedy="give one value for each position along the axis, in the shape of the rest of the array",
        )
    order = marks - 1
    order[marks == 0] = length + np.arange(added)
    return select_along(join([x, broadcast_value(new, shape)], place), order, place)


@structural(np.delete)
def delete(arr: Any, obj: Any, axis: Any = None) -> Any:
    """The array without the elements at concrete positions along an axis."""
    x, place = single_axis(as_array(arr), axis)
    positions = obj if isinstance(obj, slice) else concrete_integers(obj, "positions of numpy.delete")
    kept = numpy_index_map(np.delete, np.arange(x.shape[place]), positions)
    return select_along(x, kept, place)


@structural(np.resize)
def resize(a: Any, new_shape: Any) -> Any:
    """The elements in a new shape, repeated from the start as often as needed."""
    x = flat(as_array(a))
    target = as_shape(new_shape)
    if any(n < 0 for n in target):
        raise ShapeError(
            "lengths in a shape must not be negative",
            where=user_line(),
            got=repr(new_shape),
            remedy="use lengths from 0",
        )
    size, have = math.prod(target), x.shape[0]
    if size == 0 or have == 0:
        return full(shape=target, value=0, dtype=x.dtype)
    whole = join([x] * -(-size // have), 0)
    return reshape_primitive(cut(whole, 0, 0, size), shape=target)


@structural(np.meshgrid)
def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> tuple[Any, ...]:
    """Coordinate arrays of the grid that coordinate vectors span."""
    if indexing not in ("xy", "ij"):
        raise ArgumentError(
            "indexing of numpy.meshgrid must be 'xy' or 'ij'",
            where=user_line(),
            got=repr(indexing),
            remedy="use 'xy' (first vector along columns) or 'ij' (along rows)",
        )
    vectors = [flat(as_array(x)) for x in xi]
    places = list(range(len(vectors)))
    if indexing == "xy" and len(vectors) > 1:
        places[:2] = 1, 0
    lengths = [0] * len(vectors)
    for vector, place in zip(vectors, places, strict=True):
        lengths[place] = vector.shape[0]
    outs = []
    for x, vector, place in zip(xi, vectors, places, strict=True):
        shape = tuple(n if i == place or not sparse else 1 for i, n in enumerate(lengths))
        out = broadcast(vector, shape=shape, axes=(place,))
        outs.append(out if copy else view_of(x, out))
    return tuple(outs)


class _Joined:
    """`numpy.r_` and `numpy.c_`: arrays, numbers and ranges joined by indexing."""

    def __init__(self, plain: Any, columns: bool) -> None:
        self._plain, self._columns = plain, columns

    def __getitem__(self, key: Any) -> Any:
        items = key if isinstance(key, tuple) else (key,)
        if not has_tracer(items):
            return self._plain[key]
        if any(isinstance(item, str) for item in items):
            raise ArgumentError(
                "numpy.r_ and numpy.c_ take no directives with traced arrays",
                where=user_line(),
                got=repr(items[0]),
                remedy="use numpy.concatenate or numpy.stack with an axis",
            )
        arrays = [as_array(np.r_[item] if isinstance(item, slice) else item) for item in items]
        if not self._columns:
            return _concatenate([atleast_1d(a) for a in arrays], 0, "r_")
        columns = [a if a.ndim > 1 else reshape_primitive(a, shape=(math.prod(a.shape), 1)) for a in arrays]
        return _concatenate(columns, -1, "c_")


r_, c_ = _Joined(np.r_, False), _Joined(np.c_, True)
