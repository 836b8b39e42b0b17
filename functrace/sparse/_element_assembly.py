"""Assembly: arrays of derivatives, one number per element of a family, summed into the values of a sparse structure.

Where each number goes is known when the structure is built. Most arrays go to evenly spaced places (a band, a block
per step), in a few runs; the others have a table of places. The sum is one primitive, `assemble`, linear in all arrays.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from functrace.core.lowering import Call
from functrace.core.primitive import Primitive, is_linear
from functrace.core.structure import Link, Linked, Pairs
from functrace.core.types import ShapedArray, aval_of
from functrace.core.work import counted
from functrace.primitives.families import broadcast, reduce_sum
from functrace.primitives.indexing import gather, scatter_add
from functrace.primitives.shape import concatenate, full, transpose
from functrace.sparse._element_code import AssemblyInParts, emit_assembly
from functrace.sparse._element_maps import IndexMap

__all__ = ["Assembly", "Contribution", "assemble", "plan_assembly"]

#: A run has at least so many elements, unless the array is shorter.
_SHORTEST = 8

#: An array is cut into at most so many runs, besides single elements.
_MOST_RUNS = 4

#: Runs may take every second, third ... element, up to this.
_LONGEST_PERIOD = 6

#: Values are cleared in at most so many ranges.
_MOST_RANGES = 100


class Contribution(NamedTuple):
    """The entry that each element of an array goes to."""

    rows: IndexMap
    columns: IndexMap


class Run(NamedTuple):
    """Elements of an array that go to evenly spaced places.

    Attributes:
        array: its position.
        elements, places: slices of the array and of the values, as many of each.
        assigns: whether nothing was there before.
    """

    array: int
    elements: slice
    places: slice
    assigns: bool


class Loose(NamedTuple):
    """An array whose elements go by a table: to `table[i] + offset`.

    Attributes:
        array: its position.
        table: that of its table; arrays whose places differ by one number share one.
        offset: what to add to the table.
    """

    array: int
    table: int
    offset: int


class Assembly:
    """Where the elements of some arrays go.

    Attributes:
        size: the number of values.
        counts: per array its number of elements; one that is a number stands for so many.
        places: per array the place of each element.
        runs: in the order in which they are to be done.
        totals: pairs (array, place) for arrays all of whose elements go to one place.
        loose: the arrays that go by table; the tables are the last operands of `assemble`.
        clears: whether the values start from zero.
    """

    def __init__(self, size: int, places: Sequence[np.ndarray]) -> None:
        self.size, self.places = size, list(places)
        self.counts = [p.size for p in places]
        runs: list[Run] = []
        self.totals: list[tuple[int, int]] = []
        self.loose: list[Loose] = []
        self._tables: list[np.ndarray] = []
        shapes: list[_Shape] = []
        for k, where in enumerate(self.places):
            shape, offset = _shape_of(where, shapes)
            found = shape.runs_from(offset)
            if found is None:
                if shape.table is None:
                    shape.table = len(self._tables)
                    self._tables.append(shape.where.astype(np.int32 if size < 2**31 else np.int64))
                self.loose.append(Loose(k, shape.table, offset))
            elif not found:
                self.totals.append((k, int(where[0])))
            else:
                runs += [Run(k, elements, to, False) for elements, to in found]
        self.runs, self.clears = _first_assigns(size, runs)

    def tables(self) -> list[np.ndarray]:
        """The places of the loose arrays, in as few bytes as they need; see `Loose`."""
        return list(self._tables)

    @functools.cached_property
    def alone(self) -> frozenset[int]:
        """The loose arrays to whose places nothing else goes: these may assign, in any order."""
        counts = np.zeros(self.size, np.int32)
        for where in self.places:
            counts += np.bincount(where, minlength=self.size).astype(np.int32)
        return frozenset(entry.array for entry in self.loose if (counts[self.places[entry.array]] == 1).all())

    @functools.cached_property
    def cleared(self) -> list[tuple[int, int]]:
        """The ranges of values that start from zero: all that no array assigns for which this does not take many."""
        if not self.clears:
            return []
        added = np.ones(self.size + 2, bool)
        added[[0, -1]] = False
        for k in self.alone:
            added[1 + self.places[k]] = False
        bounds = np.flatnonzero(added[1:] != added[:-1]).reshape(-1, 2).tolist()
        return [(start, stop) for start, stop in bounds] if len(bounds) <= _MOST_RANGES else [(0, self.size)]


class _Shape:
    """The places of an array less the first, which many arrays have in common.

    Attributes:
        table: the number of its table, once there is one.
    """

    def __init__(self, where: np.ndarray) -> None:
        self.where = where
        self.table: int | None = None
        self._runs = _runs(where)

    def runs_from(self, first: int) -> list[tuple[slice, slice]] | None:
        if self._runs is None:
            return None
        return [(elements, slice(to.start + first, to.stop + first, to.step)) for elements, to in self._runs]


def _shape_of(where: np.ndarray, known: list[_Shape]) -> tuple[_Shape, int]:
    """An array's shape, one of those that are known or a new one, and its first place."""
    first = int(where[0])
    relative = where - first
    for shape in known:
        if shape.where.size == where.size and shape.where[-1] == relative[-1] and (shape.where == relative).all():
            return shape, first
    known.append(_Shape(relative))
    return known[-1], first


def _runs(where: np.ndarray) -> list[tuple[slice, slice]] | None:
    """An array's elements in runs; none if all go to one place, None if it takes too many."""
    if where.size == 1 or (where[0] == where[-1] and (where == where[0]).all()):
        return []
    for period in range(1, min(_LONGEST_PERIOD, where.size - 1) + 1):
        found = []
        for residue in range(period):
            part = _progressions(where[residue::period])
            if part is None:
                break
            for start, stop in part:
                first, last = int(where[residue + start * period]), int(where[residue + (stop - 1) * period])
                step = (last - first) // (stop - start - 1) if stop - start > 1 else 1
                elements = slice(residue + start * period, residue + (stop - 1) * period + 1, period)
                found.append((elements, slice(first, last + 1, step)))
            if len(found) > _MOST_RUNS * (1 + period):
                break
        else:
            return found
    return None


def _progressions(where: np.ndarray) -> list[tuple[int, int]] | None:
    """An array cut into rising progressions, as bounds; None if there are too many."""
    if where.size == 1:
        return [(0, 1)]
    steps = np.diff(where)
    breaks = np.flatnonzero(steps[1:] != steps[:-1])
    if breaks.size > 2 * _MOST_RUNS:
        return None
    cuts: list[tuple[int, int]] = []
    start = 0
    for end in [*(breaks + 2).tolist(), where.size]:  # elements start .. end - 1 are one progression
        if end - start >= min(_SHORTEST, where.size):
            if steps[start] <= 0:
                return None
            cuts.append((start, end))
            start = end
        elif end == where.size:
            cuts += [(i, i + 1) for i in range(start, end)]
        else:
            cuts += [(i, i + 1) for i in range(start, end - 1)]
            start = end - 1
    return cuts


def _first_assigns(size: int, runs: Sequence[Run]) -> tuple[list[Run], bool]:
    """Let the first to go to a place assign, the others add, if together they reach all places; else clear first."""
    written = np.zeros(size, bool)
    ordered = []
    for run in sorted(runs, key=lambda r: r.places.start - r.places.stop):
        touched = written[run.places]
        if touched.any():
            if not touched.all():
                return list(runs), True
            ordered.append(run)
        else:
            written[run.places] = True
            ordered.append(run._replace(assigns=True))
    return (ordered, False) if written.all() else (list(runs), True)


def plan_assembly(contributions: Sequence[Contribution], height: int) -> tuple[np.ndarray, np.ndarray, Assembly]:
    """The structure that some contributions need, and where they go in it.

    Args:
        contributions: entries, one list per array.
        height: the number of rows.

    Returns:
        Rows and columns, sorted by columns and in them by rows, each entry once; and the plan.
    """
    nothing = np.zeros(0, np.int64)
    if not contributions:
        return nothing, nothing, Assembly(0, [])
    keys = [c.columns.positions() * height + c.rows.positions() for c in contributions]
    unique, inverse = _distinct(np.concatenate(keys))
    columns, rows = np.divmod(unique, max(height, 1))
    bounds = np.cumsum([k.size for k in keys])[:-1]
    return rows, columns, Assembly(unique.size, np.split(inverse, bounds))


def _distinct(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct keys in order, and the position of each key among them."""
    order = np.argsort(keys)
    ordered = keys[order]
    new = np.empty(keys.size, bool)
    new[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    inverse = np.empty(keys.size, np.int64)
    inverse[order] = np.cumsum(new) - 1
    return ordered[new], inverse


# the primitive: operands are the arrays and then the tables of the loose ones


def _impl(*operands: Any, plan: Assembly) -> np.ndarray:
    arrays = operands[: len(plan.counts)]
    dtype = arrays[0].dtype
    out = np.zeros(plan.size, dtype) if plan.clears else np.empty(plan.size, dtype)
    for k, elements, places, assigns in plan.runs:
        part = arrays[k][elements] if arrays[k].ndim else arrays[k]
        if assigns:
            out[places] = part
        else:
            out[places] += part
    for k, place in plan.totals:
        out[place] += np.add.reduce(arrays[k]) if arrays[k].ndim else arrays[k] * plan.counts[k]
    if plan.loose:
        tables = operands[len(plan.counts) :]
        parts = [arrays[k] if arrays[k].ndim else np.full(plan.counts[k], arrays[k]) for k, _, _ in plan.loose]
        where = [tables[table] + offset for _, table, offset in plan.loose]
        out += np.bincount(np.concatenate(where), np.concatenate(parts), plan.size)
    return out


def _abstract_eval(*operands: ShapedArray, plan: Assembly) -> ShapedArray:
    return ShapedArray((plan.size,), operands[0].dtype)


def _jvp(primals: list[Any], tangents: list[Any], *, plan: Assembly) -> tuple[list[Any], list[Any]]:
    count = len(plan.counts)
    dots = [
        full(shape=(), value=0, dtype=aval_of(p).dtype) if t is None else t
        for p, t in zip(primals[:count], tangents[:count], strict=True)
    ]
    return [assemble(*primals, plan=plan)], [assemble(*dots, *primals[count:], plan=plan)]


def _transpose(bars: list[Any], *operands: Any, plan: Assembly) -> list[Any]:
    found: list[Any] = [None] * len(operands)
    for k, operand in enumerate(operands[: len(plan.counts)]):
        if is_linear(operand):
            bar = gather(bars[0], plan.places[k], axes=(0,), unique=False)
            found[k] = bar if operand.aval.shape else reduce_sum(bar, axes=(0,))
    return found


def _batch(size: int, values: list[Any], batched: list[bool], *, plan: Assembly) -> tuple[list[Any], list[bool]]:
    parts = []
    for k, count in enumerate(plan.counts):
        shape = aval_of(values[k]).shape
        axes = tuple(range(len(shape))) if batched[k] else (1,) * len(shape)
        parts.append(broadcast(values[k], shape=(size, count), axes=axes) if shape != (size, count) else values[k])
    updates = transpose(concatenate(*parts, axis=1), permutation=(1, 0))
    out = full(shape=(size, plan.size), value=0, dtype=aval_of(values[0]).dtype)
    return [scatter_add(out, np.concatenate(plan.places), updates, axes=(1,), unique=False)], [True]


def _sparsity(operands: list[Any], outs: list[ShapedArray], *, plan: Assembly) -> list[Linked]:
    links: list[Link] = [None] * len(operands)
    for k, where in enumerate(plan.places):
        own = np.arange(where.size) if aval_of(operands[k]).shape else np.zeros(where.size, np.intp)
        links[k] = Pairs(where, own)
    return [Linked(links)]


_LOWERING: Any = Call(emit=emit_assembly, in_parts=AssemblyInParts)

#: The values of a structure from arrays of contributions; `plan` is an `Assembly`.
assemble = Primitive(
    "assemble",
    _impl,
    _abstract_eval,
    jvp=_jvp,
    transpose=_transpose,
    batch=_batch,
    lower=_LOWERING,
    sparsity=_sparsity,
    cost=counted(lambda operands, outs, **params: sum(o.size for o in operands)),
    family="indexing",
)
