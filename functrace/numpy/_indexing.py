"""NumPy's indexing expressions as static plans, and how a plan reads and writes an array.

A plan says: take a basic part (integers and slices), reverse some axes, gather with integer arrays, move the index
axes to NumPy's place, add the new axes. Integers that have a value are static; other traced integers are operands:
they count from the end if negative and then are clamped to the axis, since their range cannot be checked.
"""

from __future__ import annotations

import math
import operator
from typing import Any, NamedTuple

import numpy as np

from functrace.core.primitive import Primitive
from functrace.core.trace import Tracer
from functrace.errors import AbstractValueError, IndexingError, ShapeError
from functrace.numpy._promotion import broadcast_operands, from_nested
from functrace.primitives.elementwise import add, convert, less, maximum, minimum, select
from functrace.primitives.families import reshape
from functrace.primitives.indexing import gather, index, scatter_set, update
from functrace.primitives.shape import inverse_permutation, reverse, slice_, transpose
from functrace.util import user_line

__all__ = ["Plan", "as_mask", "plan_index", "read", "wrap_indices", "write"]

_INDEX = np.dtype(np.intp)
_FULL = slice(None)


class Plan(NamedTuple):
    """One indexing expression on arrays of one shape.

    Attributes:
        expanded: the array's shape with an axis of length 1 for each scalar mask, or None.
        at: per axis an integer or a (start, stop, step) triple; empty for the whole array.
        part: the shape of what `at` selects.
        backwards: axes of that part to reverse.
        indices, axes, unique: integer arrays and the axes they index, as the primitive `gather` takes them.
        order: the permutation that brings the index axes to their place, or None.
        shape: the shape of the result.
        view: whether NumPy's result shares memory with the array.
    """

    expanded: tuple[int, ...] | None
    at: tuple[Any, ...]
    part: tuple[int, ...]
    backwards: tuple[int, ...]
    indices: tuple[Any, ...]
    axes: tuple[int, ...]
    unique: bool
    order: tuple[int, ...] | None
    shape: tuple[int, ...]
    view: bool


class _Mask(NamedTuple):
    """The integer arrays that a boolean mask stands for."""

    arrays: tuple[np.ndarray, ...]
    shape: tuple[int, ...]


def _error(what: str, got: str, remedy: str) -> IndexingError:
    return IndexingError(what, where=user_line(), got=got, remedy=remedy)


# reading the expression


def as_mask(mask: Any) -> np.ndarray:
    """A boolean mask as a plain array.

    Raises:
        IndexingError: it has no value yet, so the number of selected elements is unknown.
    """
    if not isinstance(mask, Tracer):
        return mask
    try:
        return np.asarray(mask.concrete())
    except AbstractValueError:
        raise _error(
            "a boolean mask that is abstract while tracing cannot select elements: their number is unknown",
            mask.describe(),
            "use functrace.numpy.where(mask, x, 0) to keep the shape, and x = functrace.numpy.where(mask, value, x) "
            "for x[mask] = value",
        ) from None


def _classify(entry: Any) -> Any:
    """An entry of an index as int, slice, None, Ellipsis, `_Mask`, or an integer array (plain or traced)."""
    kind = type(entry)
    if kind is int or kind is slice or entry is None or entry is Ellipsis:
        return entry
    if kind is bool or kind is np.bool_:
        return _Mask((np.zeros(int(entry), _INDEX),), ())
    if isinstance(entry, (list, tuple)):
        entry = from_nested(entry) if len(entry) else np.zeros(0, _INDEX)
        if isinstance(entry, np.ndarray) and not entry.size and entry.dtype.kind == "f":
            entry = entry.astype(_INDEX)
    if isinstance(entry, (np.ndarray, np.generic, Tracer)):
        if entry.dtype.kind == "b":
            mask = np.asarray(as_mask(entry))
            return _classify(bool(mask)) if mask.ndim == 0 else _Mask(mask.nonzero(), mask.shape)
        if entry.dtype.kind not in "iu":
            raise _error(
                "an index array must hold integers or booleans",
                entry.describe() if isinstance(entry, Tracer) else f"dtype {entry.dtype}",
                "convert it with .astype(int)",
            )
        if isinstance(entry, Tracer):
            try:
                entry = entry.concrete()
            except AbstractValueError:
                return entry
        return int(entry) if entry.ndim == 0 else entry
    try:
        return operator.index(entry)
    except TypeError:
        raise _error(
            "an array is indexed by integers, slices, None, ... and arrays of integers or booleans",
            type(entry).__name__,
            "convert the index to one of these",
        ) from None


def _span(entry: Any) -> int:
    """How many axes an entry consumes."""
    if entry is None or entry is Ellipsis:
        return 0
    return len(entry.shape) if type(entry) is _Mask else 1


def _expand(key: Any, ndim: int) -> list[Any]:
    """The classified entries of a key, with full slices (after the Ellipsis) for axes not mentioned."""
    entries = [_classify(e) for e in key] if type(key) is tuple else [_classify(key)]
    ellipses = [i for i, e in enumerate(entries) if e is Ellipsis]
    if len(ellipses) > 1:
        raise _error("an index can have only one ellipsis ('...')", repr(key), "remove the others")
    missing = ndim - sum(map(_span, entries))
    if missing < 0:
        raise _error(
            f"too many indices: the array has {ndim} axes, but {ndim - missing} were indexed",
            f"{ndim - missing} indices",
            "remove indices, or add axes to the array with x[..., None]",
        )
    position = ellipses[0] + 1 if ellipses else len(entries)
    return [*entries[:position], *[_FULL] * missing, *entries[position:]]


def _static(i: int, length: int, axis: int) -> int:
    if -length <= i < length:
        return i + length if i < 0 else i
    raise _out_of_bounds(i, length, axis)


def _out_of_bounds(i: int, length: int, axis: int) -> IndexingError:
    remedy = f"use an index from {-length} to {length - 1}" if length else "the axis has no elements"
    return _error(f"index {i} is out of bounds for axis {axis} with size {length}", f"index {i}", remedy)


def wrap_indices(indices: Any, length: int, axis: int) -> Any:
    """Integer indices as non-negative ones in range.

    Plain ones out of range raise; traced ones are clamped to the axis.

    Raises:
        IndexingError: an index is out of range.
    """
    if not isinstance(indices, Tracer):
        indices = np.array(indices, _INDEX)
        wrong = (indices < -length) | (indices >= length)
        if wrong.any():
            raise _out_of_bounds(int(indices[wrong].flat[0]), length, axis)
        indices[indices < 0] += length
        return indices
    if not length and indices.size:
        raise _out_of_bounds(0, length, axis)
    indices = convert(indices, dtype=_INDEX) if indices.dtype != _INDEX else indices
    indices = select(less(indices, np.intp(0)), add(indices, np.intp(length)), indices)
    return minimum(maximum(indices, np.intp(0)), np.intp(max(length - 1, 0)))


def _triple(entry: slice, length: int) -> tuple[tuple[int, int, int], bool]:
    """A slice as an ascending (start, stop, step), and whether it runs backwards."""
    try:
        positions = range(*entry.indices(length))
    except ValueError:
        raise _error("the step of a slice cannot be zero", repr(entry), "use a step other than 0") from None
    except AbstractValueError as error:
        raise _error(
            "the bounds of a slice are abstract while tracing, so the shape of its result is unknown",
            repr(entry),
            "index with an array, as in x[i + numpy.arange(length)], or make the bounds static",
        ) from error
    except TypeError:
        raise _error("the bounds of a slice must be integers or None", repr(entry), "convert them with int()") from None
    if not positions:
        return (0, 0, 1), False
    backwards = positions.step < 0
    if backwards:
        positions = positions[::-1]
    return (positions.start, positions[-1] + 1, positions.step if len(positions) > 1 else 1), backwards


def plan_index(shape: tuple[int, ...], key: Any) -> Plan:
    """How NumPy reads `x[key]` from an array of this shape.

    Raises:
        IndexingError: the key does not fit the array, or its result has no static shape.
    """
    entries = _expand(key, len(shape))
    expanded = None
    if any(type(e) is _Mask and not e.shape for e in entries):
        entries, expanded = _scalar_masks(entries, shape)
        shape = expanded
    at: list[Any] = []
    part: list[int] = []
    backwards: list[int] = []
    arrays: list[Any] = []
    axes: list[int] = []
    tokens: list[int | None] = []
    masked: list[tuple[int, ...]] = []
    for entry in entries:
        axis = len(at)
        if entry is None:
            tokens.append(None)
        elif entry is Ellipsis:
            tokens.append(_ELLIPSIS)
        elif type(entry) is int:
            at.append(_static(entry, shape[axis], axis))
            tokens.append(_INTEGER)
        elif type(entry) is slice:
            triple, is_backwards = _triple(entry, shape[axis])
            if is_backwards:
                backwards.append(len(part))
            at.append(triple)
            part.append(len(range(*triple)))
            tokens.append(part[-1])
        else:
            found = _index_arrays(entry, shape, axis)
            if type(entry) is _Mask:
                masked.append(found[0].shape)
            for _ in found:
                axes.append(len(part))
                part.append(shape[len(at)])
                at.append((0, shape[len(at)], 1))
                tokens.append(_ARRAY)
            arrays.extend(found)
    whole = all(entry == (0, n, 1) for entry, n in zip(at, shape, strict=True))
    basic = (expanded, () if whole else tuple(at), tuple(part), tuple(backwards))
    if not arrays:
        result = _lengths(tokens)
        return Plan(*basic, (), (), True, None, result, bool(result) or _ELLIPSIS in tokens)
    arrays = _together(arrays)
    index_shape = arrays[0].shape
    order, result = _place(tokens, index_shape)
    unique = math.prod(index_shape) <= 1 or index_shape in masked
    return Plan(*basic, tuple(arrays), tuple(axes), unique, order, result, not index_shape and bool(result))


#: Tokens for entries of an index, besides the length of a slice and None for a new axis.
_INTEGER, _ARRAY, _ELLIPSIS = -1, -2, -3


def _lengths(tokens: list[int | None]) -> tuple[int, ...]:
    """The lengths of the axes that slices and new axes give."""
    return tuple([1 if t is None else t for t in tokens if t is None or t >= 0])


def _scalar_masks(entries: list[Any], shape: tuple[int, ...]) -> tuple[list[Any], tuple[int, ...]]:
    """Each scalar mask as an array of zero or one index into a new axis of length 1."""
    expanded, changed, axis = list(shape), [], 0
    for entry in entries:
        if type(entry) is _Mask and not entry.shape:
            expanded.insert(axis, 1)
            entry = entry.arrays[0]
        changed.append(entry)
        axis += _span(entry)
    return changed, tuple(expanded)


def _index_arrays(entry: Any, shape: tuple[int, ...], axis: int) -> list[Any]:
    """The index arrays of a mask or an integer array, in range."""
    if type(entry) is not _Mask:
        return [wrap_indices(entry, shape[axis], axis)]
    for offset, length in enumerate(entry.shape):
        if length != shape[axis + offset]:
            raise _error(
                f"a boolean mask does not match axis {axis + offset} of the array it selects from",
                f"mask of shape {entry.shape} for axes of lengths {shape[axis : axis + len(entry.shape)]}",
                "make the mask from the array itself, as in x[x > 0]",
            )
    return list(entry.arrays)


def _together(arrays: list[Any]) -> list[Any]:
    try:
        return broadcast_operands(arrays)
    except ShapeError:
        raise _error(
            "shape mismatch: index arrays could not be broadcast together",
            ", ".join(str(a.shape) for a in arrays),
            "give index arrays of one shape, or open them with numpy.ix_ for all combinations",
        ) from None


def _place(tokens: list[int | None], index_shape: tuple[int, ...]) -> tuple[tuple[int, ...] | None, tuple[int, ...]]:
    """Where NumPy puts the index axes: the permutation of (index axes, others), and the result's shape.

    In place of the indices if these stand together, else in front.
    """
    positions = [i for i, t in enumerate(tokens) if t in (_INTEGER, _ARRAY)]
    together = positions[-1] - positions[0] == len(positions) - 1
    first = positions[0] if together else 0
    before, after = tokens[:first], tokens[first:]
    shape = _lengths(before) + index_shape + _lengths(after)
    rank = len(index_shape)
    ahead, behind = (sum(t is not None and t >= 0 for t in side) for side in (before, after))
    if not rank or not ahead:
        return None, shape
    total = rank + ahead + behind
    return (*range(rank, rank + ahead), *range(rank), *range(rank + ahead, total)), shape


# applying it


def _trim(at: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Without the trailing entries that take the whole axis."""
    count = len(at)
    while count and at[count - 1] == (0, shape[count - 1], 1):
        count -= 1
    return at[:count]


def _basic(x: Any, plan: Plan) -> Any:
    """The part of the (expanded) array that integers and slices select."""
    if plan.at:
        if len(plan.part) < len(plan.at):
            x = index(x, at=_trim(plan.at, x.shape))
        else:
            starts, stops, steps = zip(*plan.at, strict=True)
            x = slice_(x, starts=starts, stops=stops, steps=steps)
    return reverse(x, axes=plan.backwards) if plan.backwards else x


def read(x: Any, plan: Plan) -> Any:
    """`x[key]` for the key of the plan."""
    x = _basic(_shaped(x, plan.expanded), plan)
    if plan.indices:
        x = gather(x, *plan.indices, axes=plan.axes, unique=plan.unique)
    if plan.order:
        x = transpose(x, permutation=plan.order)
    return _shaped(x, plan.shape)


def _shaped(x: Any, shape: tuple[int, ...] | None) -> Any:
    return x if shape is None or x.shape == shape else reshape(x, shape=shape)


def write(x: Any, plan: Plan, v: Any, scatter: Primitive = scatter_set) -> Any:
    """The array with the part that the plan reads replaced by (or, by `scatter`, combined with) `v` of its shape."""
    shape = x.shape
    x = _shaped(x, plan.expanded)
    others = tuple([n for a, n in enumerate(plan.part) if a not in plan.axes])
    gathered = (*(plan.indices[0].shape if plan.indices else ()), *others)
    if plan.order:
        v = _shaped(v, tuple([gathered[a] for a in plan.order]))
        v = transpose(v, permutation=inverse_permutation(plan.order))
    v = _shaped(v, gathered)
    if plan.indices:
        v = scatter(_basic(x, plan), *plan.indices, v, axes=plan.axes, unique=plan.unique)
    if plan.backwards:
        v = reverse(v, axes=plan.backwards)
    if plan.at:
        v = update(x, v, at=_trim(plan.at, x.shape))
    return _shaped(v, shape)
