"""Index maps: which element of an array each element of a family reads.

A map takes element i of a family to a position in an array seen as flat (C order). Most are progressions,
`start + step i`, kept as three numbers; the others are index arrays. What an operation does to positions is not
described anywhere: its `impl` runs on an array that holds its own positions, and where the result is a view of that
array, the map is read off its address and strides without touching an element.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.core.ir import Eqn, Literal
from functrace.core.primitive import Primitive
from functrace.primitives.families import broadcast, reshape
from functrace.primitives.indexing import gather, index, place, scatter_set, update
from functrace.primitives.shape import concatenate, pad, reverse, slice_, stack, transpose, unstack

__all__ = [
    "IndexMap",
    "compose",
    "from_array",
    "identity",
    "is_selection",
    "moved_operands",
    "pieces",
    "positions_read",
    "restrict",
    "shift",
]

_INDEX = np.dtype(np.int64)

#: Operations each of whose output elements is an element of an operand, or a constant zero.
_SELECTIONS: frozenset[Primitive] = frozenset(
    (broadcast, reshape, gather, index, place, scatter_set, update, concatenate, pad, reverse, slice_, stack, transpose,
     unstack)
)  # fmt: skip

_counting = np.arange(1024)


def _count(size: int) -> np.ndarray:
    """The numbers from 0 to size - 1; a view of one buffer that only grows."""
    global _counting
    buffer = _counting
    if buffer.size < size:
        buffer = _counting = np.arange(max(size, 2 * buffer.size))
    return buffer[:size]


class IndexMap:
    """Positions read by the elements of a family: `start + step i` for i < count, or `array[i]`.

    Attributes:
        start, step, count: the progression; only `count` counts where `array` is given.
        array: the positions where they are no progression, else None.
        key: equal for equal maps, and hashable.
    """

    __slots__ = ("_key", "array", "count", "start", "step")

    def __init__(self, start: int, step: int, count: int, array: np.ndarray | None = None) -> None:
        self.start, self.step, self.count, self.array = start, step if count > 1 else 0, count, array
        self._key: Any = None

    @property
    def key(self) -> Any:
        if self._key is None:
            whole = self.array is None
            self._key = (self.start, self.step, self.count) if whole else self.array.tobytes()  # type: ignore[union-attr]
        return self._key

    @property
    def is_constant(self) -> bool:
        """Whether all elements read the same position."""
        return self.array is None and not self.step

    def positions(self) -> np.ndarray:
        """All positions as an array, not to be written to."""
        if self.array is not None:
            return self.array
        if self.step == 1:
            return _count(self.start + self.count)[self.start :]
        return self.start + self.step * _count(self.count)

    def __repr__(self) -> str:
        if self.array is not None:
            return f"IndexMap({self.array})"
        return f"IndexMap({self.start} + {self.step} i, i < {self.count})"


def identity(count: int) -> IndexMap:
    """The map of an array to itself."""
    return IndexMap(0, 1, count)


def from_array(positions: np.ndarray) -> IndexMap:
    """The map with these positions, as a progression if it is one."""
    flat = positions.reshape(-1)
    count = flat.size
    if count == 0:
        return IndexMap(0, 0, 0)
    start = int(flat[0])
    step = int(flat[1]) - start if count > 1 else 0
    regular = int(flat[-1]) == start + step * (count - 1)
    if regular and (count <= 2 or bool((flat == start + step * _count(count)).all())):
        return IndexMap(start, step, count)
    return IndexMap(0, 0, count, np.ascontiguousarray(flat))


def compose(inner: IndexMap, outer: IndexMap) -> IndexMap:
    """The positions that `inner` gives at the positions that `outer` gives."""
    if inner.array is None:
        if outer.array is None:
            return IndexMap(inner.start + inner.step * outer.start, inner.step * outer.step, outer.count)
        if inner.step == 1 and not inner.start:
            return outer
        return from_array(inner.start + inner.step * outer.array)
    if outer.array is None and outer.step > 0:
        stop = outer.start + outer.step * (outer.count - 1) + 1
        return from_array(inner.array[outer.start : stop : outer.step])
    return from_array(inner.array[outer.positions()])


def restrict(whole: IndexMap, elements: np.ndarray) -> IndexMap:
    """The map of some of a family's elements."""
    return compose(whole, from_array(elements))


def is_selection(eqn: Eqn) -> bool:
    """Whether an equation only moves elements, to places that are known."""
    if eqn.primitive not in _SELECTIONS:
        return False
    if eqn.primitive is gather:
        return all(isinstance(a, Literal) for a in eqn.invars[1:])
    if eqn.primitive is scatter_set:
        return all(isinstance(a, Literal) for a in eqn.invars[1:-1])
    return True


def positions_read(eqn: Eqn, output: int) -> tuple[IndexMap, list[int]]:
    """Which element each element of an output is, counting through all operands; 0 is the constant zero.

    Args:
        eqn: a selection whose known index operands are literals.
        output: which output.

    Returns:
        The map, and the number at which each operand's elements start (None's place for index operands).
    """
    operands: list[Any] = []
    starts: list[int] = []
    if eqn.primitive is slice_ and eqn.invars[0].aval.ndim == 1 and eqn.outvars[0].aval.size:
        (start,), (step,) = eqn.params["starts"], eqn.params["steps"]
        return IndexMap(start, step, eqn.outvars[0].aval.size), [0]
    if eqn.primitive is reshape:
        return identity(eqn.invars[0].aval.size), [0]
    moving = _moving(eqn)
    if len(moving) == 1 and eqn.primitive not in (pad, place):
        shape = eqn.invars[moving[0]].aval.shape
        probe = _count(math.prod(shape)).reshape(shape)
        operands = [probe if i in moving else a.val for i, a in enumerate(eqn.invars)]  # type: ignore[union-attr]
        out = _run(eqn, operands, output)
        return _as_map(out), [0]
    total = 1
    for i, atom in enumerate(eqn.invars):
        if i in moving:
            size = atom.aval.size
            starts.append(total)
            operands.append((_count(total + size)[total:]).reshape(atom.aval.shape))
            total += size
        else:
            operands.append(atom.val)  # type: ignore[union-attr]
    return _as_map(_run(eqn, operands, output)), starts


def moved_operands(eqn: Eqn) -> list[int]:
    """The operands whose elements a selection moves; the others are indices."""
    return _moving(eqn)


def _moving(eqn: Eqn) -> list[int]:
    if eqn.primitive is gather:
        return [0]
    if eqn.primitive is scatter_set:
        return [0, len(eqn.invars) - 1]
    return list(range(len(eqn.invars)))


def _run(eqn: Eqn, operands: Sequence[Any], output: int) -> Any:
    out = eqn.primitive.impl(*operands, **eqn.params)
    return out[output] if eqn.primitive.multiple else out


def _as_map(out: Any) -> IndexMap:
    """The map whose positions an array holds; of a view of the counting buffer without looking at its elements."""
    if not np.ndim(out):
        return IndexMap(int(out), 0, 1)
    interface = out.__array_interface__
    first, size = interface["data"][0], _counting.nbytes
    base = _counting.__array_interface__["data"][0]
    if out.size and base <= first < base + size:
        step = _flat_stride(out)
        if step is not None:
            return IndexMap((first - base) // _INDEX.itemsize, step // _INDEX.itemsize, out.size)
    return from_array(out)


def _flat_stride(view: np.ndarray) -> int | None:
    """The distance in bytes between neighbours of a view read in C order, if it is always the same."""
    step, expected = None, 0
    for length, stride in zip(reversed(view.shape), reversed(view.strides), strict=True):
        if length == 1:
            continue
        if step is None:
            step = stride
        elif stride != expected:
            return None
        expected = stride * length
    return 0 if step is None else step


def pieces(codes: IndexMap, starts: list[int]) -> np.ndarray | int:
    """Which operand each element of a selection comes from: its number, -1 for the constant zero; one for all if so."""
    low, high = _range(codes)
    bounds = np.asarray(starts)
    first, last = (int(np.searchsorted(bounds, p, side="right")) - 1 for p in (low, high))
    if first == last:
        return first
    return np.searchsorted(bounds, codes.positions(), side="right") - 1


def _range(positions: IndexMap) -> tuple[int, int]:
    if positions.array is not None:
        return int(positions.array.min()), int(positions.array.max())
    ends = positions.start, positions.start + positions.step * (positions.count - 1)
    return min(ends), max(ends)


def shift(positions: IndexMap, by: int) -> IndexMap:
    """The map with all positions moved."""
    if not by:
        return positions
    if positions.array is None:
        return IndexMap(positions.start + by, positions.step, positions.count)
    return IndexMap(0, 0, positions.count, positions.array + by)
