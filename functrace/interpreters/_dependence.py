"""Dependency sets of arrays: for every element the set of program inputs that it depends on, vectorised.

The sets of an array are a tuple of terms. A term gives each element a row number (0 for none) into a table of sets; the
element's set is the union over the terms. Without a table, row j is the set of input j alone: the term is an index
map, so that views of the inputs, and elementwise operations on them, cost almost nothing whatever their size. Rows of a
table are shared: a sum over all inputs, repeated to the length of the inputs, is one row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from functrace.core.structure import Along, Groups, Linked, Moves, Pairs, Pointwise, Structure, numbered

__all__ = ["Sets", "Table", "Term", "Terms", "repeated_rows", "sorted_unique"]

#: Widest sets that are made index maps: of merged terms, of groups of elements, and where they are about to be
#: multiplied; and how many terms an array may have before they are merged.
_WIDTH, _NARROW, _MULTIPLIED, _TERMS = 32, 8, 12, 32


class Table:
    """Sets of input numbers (from 0): row r, from 1, is `indices[indptr[r - 1] : indptr[r]]`, ascending."""

    __slots__ = ("indices", "indptr")

    def __init__(self, indptr: np.ndarray, indices: np.ndarray) -> None:
        self.indptr = indptr
        self.indices = indices

    @property
    def rows(self) -> int:
        return len(self.indptr) - 1


class Term(NamedTuple):
    """Row numbers, of the array's shape, into a table (None: row j is the set of input j - 1 alone)."""

    numbers: np.ndarray
    table: Table | None = None


Terms = tuple[Term, ...]


def sorted_unique(keys: np.ndarray, in_place: bool = False) -> np.ndarray:
    """The different keys, ascending; `in_place` spares a copy and leaves the given array in disorder."""
    if len(keys) < 2:
        return keys
    step = keys[1:] > keys[:-1]
    if step.all():
        return keys
    if in_place:
        keys.sort()
    else:
        keys = np.sort(keys)
    first = np.empty(len(keys), bool)
    first[0] = True
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    return keys[first]


def repeated_rows(table: Table | None, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The members of the sets with these row numbers (from 1), and per member the position of its row in `rows`."""
    if table is None:
        return np.arange(len(rows)), rows - 1
    starts = table.indptr[rows - 1]
    counts = table.indptr[rows] - starts
    owners = np.repeat(np.arange(len(rows)), counts)
    places = np.arange(len(owners)) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
    return owners, table.indices[places]


class Sets:
    """The algebra of dependency sets over `inputs` program inputs."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self._seen: dict[Any, list[Term]] = {}
        self._kept: dict[tuple[int, int], Term] = {}

    # terms

    def same(self, term: Term) -> Term:
        """The first term met that equals this one, so that equal index maps are one object."""
        numbers = term.numbers
        if not numbers.size:
            return term
        mark = (numbers.shape, id(term.table), int(numbers.sum()), numbers.item(0), numbers.item(-1))
        candidates = self._seen.setdefault(mark, [])
        for other in candidates:
            if other.numbers is numbers or np.array_equal(other.numbers, numbers):
                return other
        candidates.append(term)
        return term

    def union(self, terms: Iterable[Term]) -> Terms:
        """The terms without repetitions and empty ones, merged where there are too many."""
        kept: dict[tuple[int, int], Term] = {}
        for term in terms:
            key = (id(term.numbers), id(term.table))
            if key in self._kept:
                kept[key] = term
            elif term.numbers.size and term.numbers.any():
                term = self.same(term)
                key = (id(term.numbers), id(term.table))
                kept[key] = self._kept[key] = term
        if len(kept) <= _TERMS:
            return tuple(kept.values())
        maps = [t for t in kept.values() if t.table is None]
        wide = [t for t in kept.values() if t.table is not None]
        if len(maps) > _TERMS:
            maps, merged = self._merge_maps(maps)
            wide += merged
        if len(wide) > _TERMS:
            wide = [self._merge_tables(wide)]
        return (*maps, *wide)

    def tight(self, terms: Terms) -> Terms:
        """The same sets in the form that is quickest to multiply: a few index maps, or a table."""
        maps, wide = [t for t in terms if t.table is None], [t for t in terms if t.table is not None]
        if len(maps) > _MULTIPLIED:
            maps, merged = self._merge_maps(maps, _MULTIPLIED)
            wide = merged + wide
        if len(wide) > 2 or (wide and wide[0].numbers.size == 1):
            wide, maps = [self._merge_tables([*wide, *maps])], []
        return (*maps, *wide)

    def _merge_maps(self, maps: list[Term], widest: int = _WIDTH) -> tuple[list[Term], list[Term]]:
        """As few index maps as there are different inputs per element, or else a table; constants apart."""
        fixed = [t for t in maps if not any(t.numbers.strides) or t.numbers.min() == t.numbers.max()]
        moving = [t for t in maps if not any(t is f for f in fixed)]
        shape = maps[0].numbers.shape
        wide = []
        if len(fixed) > 2:
            indices = sorted_unique(np.sort(np.array([t.numbers.item(0) for t in fixed], np.intp))) - 1
            ones = np.broadcast_to(np.intp(1), shape)
            wide.append(Term(ones, Table(np.array([0, len(indices)]), indices)))
        else:
            moving += fixed
        if not moving:
            return [], wide
        columns = _columns([t.numbers for t in moving])
        if len(columns) <= _NARROW or (
            len(columns) <= widest and len(columns) * columns[0].size <= 2 * np.count_nonzero(columns)
        ):
            return [self.same(Term(c.reshape(shape))) for c in columns], wide
        return [], [*wide, self.same(Term(numbered(shape), _table_of_columns(columns)))]

    def _merge_tables(self, terms: list[Term]) -> Term:
        """One table with a row for every combination of rows that occurs."""
        shape = terms[0].numbers.shape
        flat = np.stack([t.numbers.reshape(-1) for t in terms])
        order = np.lexsort(flat) if flat.shape[1] > 1 else np.zeros(1, np.intp)
        ordered = flat[:, order]
        new = np.ones(len(order), bool)
        new[1:] = (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)
        numbers = np.empty(len(order), np.intp)
        numbers[order] = np.cumsum(new)
        combinations = ordered[:, new]
        groups = np.arange(1, combinations.shape[1] + 1)
        parts = [(groups, row, t.table) for row, t in zip(combinations, terms, strict=True)]
        return Term(numbers.reshape(shape), self.table(parts, combinations.shape[1]))

    # tables

    def table(self, parts: Sequence[tuple[np.ndarray, np.ndarray, Table | None]], groups: int) -> Table:
        """Per group the union of sets: parts of (group numbers, row numbers into a table), flat, from 1, 0 for none."""
        n = self.inputs
        if groups == 1:
            mark = np.zeros(n + 1, bool)
            for members, rows, table in parts:
                rows = rows[members > 0]
                if table is not None:
                    rows = np.flatnonzero(np.bincount(rows, minlength=1)[1:]) + 1
                    rows = repeated_rows(table, rows)[1] + 1
                mark[rows] = True
            indices = np.flatnonzero(mark[1:])
            return Table(np.array([0, len(indices)]), indices)
        keys = [np.empty(0, np.intp)]
        for members, rows, table in parts:
            present = (members > 0) & (rows > 0)
            members, rows = members[present] - 1, rows[present]
            if table is None:
                keys.append(members * n + (rows - 1))
                continue
            width = table.rows + 1
            both = sorted_unique(members * width + rows)
            owners, indices = repeated_rows(table, both % width)
            keys.append((both // width)[owners] * n + indices)
        found = sorted_unique(np.concatenate(keys))
        owners = found // max(n, 1)
        return Table(_starts(owners, groups), found - owners * n)

    def shared(
        self, parts: Sequence[tuple[np.ndarray, np.ndarray, Table | None]], groups: int
    ) -> tuple[np.ndarray, Table]:
        """The same, groups with one union sharing its row: row numbers per group, 0 first, and the table."""
        size = sum(len(rows) for _, rows, _ in parts)
        if groups > 1 and size > 4 * groups:
            kept, numbers = _alike(parts, groups)
            if len(kept) < groups:
                place = np.zeros(groups + 1, np.intp)
                place[kept] = np.arange(1, len(kept) + 1)
                return numbers, self.table([(place[g], rows, table) for g, rows, table in parts], len(kept))
        return np.arange(groups + 1), self.table(parts, groups)

    def grouped(self, groups: np.ndarray, terms: Terms, count: int) -> list[tuple[np.ndarray, Table | None]]:
        """Per group (from 1) the union of the sets of its elements: row numbers per group, 0 first, and tables."""
        flat = np.asarray(groups).reshape(-1)
        sizes = np.bincount(flat, minlength=count + 1)[1:] if flat.size else np.zeros(count, np.intp)
        if not sizes.size or sizes.max() <= 1:  # a group has one element at most: its set
            place = np.zeros(count + 1, np.intp)
            place[flat] = np.arange(1, flat.size + 1)
            place[0] = 0
            return [(np.append(0, t.numbers.reshape(-1))[place], t.table) for t in terms]
        found: list[tuple[np.ndarray, Table | None]] = []
        rest = []
        for term in terms:
            single = None if term.table is None else _single_rows(flat, term.numbers.reshape(-1), count)
            if single is None:
                rest.append((flat, term.numbers.reshape(-1), term.table))
            else:
                found.append((single, term.table))
        if rest:
            numbers, table = self.shared(rest, count)
            found += [(rows[numbers], t) for rows, t in _narrowed(table)]
        return found

    # what operations do

    def forward(self, structure: Structure, operands: Sequence[Terms], shapes: Sequence[tuple[int, ...]],
                shape: tuple[int, ...]) -> Terms:  # fmt: skip
        """The sets of an output from those of the operands."""
        match structure:
            case Pointwise():
                return self.union(self._pointwise(structure, operands, shape))
            case Moves():
                return self.union(self._moved(structure.function, operands, shapes))
            case Linked():
                found: list[Term] = []
                for link, terms in zip(structure.links, operands, strict=True):
                    if link is not None and terms:
                        found += self._linked(link, terms, shape)
                return self.union(found)
        return ()

    def _pointwise(self, structure: Pointwise, operands: Sequence[Terms], shape: tuple[int, ...]) -> Iterable[Term]:
        for depends, terms in zip(structure.depends, operands, strict=True):
            if depends is False:
                continue
            for term in terms:
                numbers = term.numbers if term.numbers.shape == shape else np.broadcast_to(term.numbers, shape)
                if depends is not True:
                    numbers = np.where(depends, numbers, 0)
                yield Term(numbers, term.table)

    def _moved(
        self, function: Callable[..., Any], operands: Sequence[Terms], shapes: Sequence[tuple[int, ...]]
    ) -> Iterable[Term]:
        """Terms move together, position by position: an output element has the terms of one operand."""
        for narrow in (True, False):
            groups = [[t for t in terms if (t.table is None) == narrow] for terms in operands]
            for k in range(max(map(len, groups), default=0)):
                row = [g[k] if k < len(g) else None for g in groups]
                table, offsets = _joined([t.table for t in row if t is not None])
                arrays, at = [], iter(offsets)
                for term, shape in zip(row, shapes, strict=True):
                    if term is None:
                        arrays.append(np.zeros(shape, np.intp)[()])
                        continue
                    offset = next(at)
                    numbers = np.where(term.numbers > 0, term.numbers + offset, 0) if offset else term.numbers
                    arrays.append(numbers[()])
                yield Term(np.asarray(function(*arrays)), table)

    def _linked(self, link: Groups | Along | Pairs, terms: Terms, shape: tuple[int, ...]) -> list[Term]:
        inner = terms[0].numbers.shape
        if isinstance(link, Pairs):
            size = int(np.prod(shape, dtype=np.intp))
            taken = tuple(Term(t.numbers.reshape(-1)[link.operand], t.table) for t in terms)
            rows = self.grouped(link.out + 1, taken, size)
            return [Term(numbers[1:].reshape(shape), table) for numbers, table in rows]
        if isinstance(link, Along):
            short = _short_axes(link, terms, shape)
            if short is not None:
                return short
            link = along_groups(link, inner, shape)
        if link.reads is None:
            gives = numbered(shape) if link.gives is None else link.gives
            return [Term(np.append(0, t.numbers.reshape(-1))[gives], t.table) for t in terms]
        count = int(max(link.reads.max(initial=0), 0 if link.gives is None else link.gives.max(initial=0)))
        if link.gives is None:
            count = int(np.prod(shape, dtype=np.intp))
        rows = self.grouped(link.reads, terms, count)
        gives = numbered(shape) if link.gives is None else link.gives
        return [Term(numbers[gives], table) for numbers, table in rows]


def _starts(owners: np.ndarray, groups: int) -> np.ndarray:
    """Where the entries of each group start, and the end, for ascending owners."""
    indptr = np.zeros(groups + 1, np.intp)
    np.cumsum(np.bincount(owners, minlength=groups), out=indptr[1:])
    return indptr


def _alike(parts: Sequence[tuple[np.ndarray, np.ndarray, Table | None]], groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups whose members have the same row numbers: one of each kind, ascending; and per group the kind, 0 first.

    Found by a hash of the row numbers, and then compared.
    """
    mark = np.zeros(groups, np.uint64)
    members = []
    for k, (owners, rows, _) in enumerate(parts):
        present = (owners > 0) & (rows > 0)
        width = int(rows.max(initial=0)) + 1
        keys = sorted_unique((owners[present] - 1) * width + rows[present])
        owners, rows = np.divmod(keys, width)
        indptr = _starts(owners, groups)
        total = np.append(np.uint64(0), np.cumsum(_mixed(rows, k)))
        mark = mark * np.uint64(0x9E3779B97F4A7C15) + (total[indptr[1:]] - total[indptr[:-1]])
        members.append(Table(indptr, rows))
    _, first, kind = np.unique(mark, return_index=True, return_inverse=True)
    model = first[kind]
    for table in members:
        counts = np.diff(table.indptr)
        if not np.array_equal(counts, counts[model]):
            return np.arange(1, groups + 1), np.arange(groups + 1)
        if not np.array_equal(table.indices, repeated_rows(table, model + 1)[1]):
            return np.arange(1, groups + 1), np.arange(groups + 1)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(first), np.intp)
    rank[order] = np.arange(1, len(first) + 1)
    return first[order] + 1, np.append(0, rank[kind])


def _mixed(numbers: np.ndarray, salt: int) -> np.ndarray:
    """Numbers scattered over all 64 bits: G. Steele, D. Lea and C. Flood, Fast splittable pseudorandom number
    generators (2014)."""
    z = numbers.astype(np.uint64) + np.uint64((salt + 1) * 0x9E3779B97F4A7C15 % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def along_groups(link: Along, inner: tuple[int, ...], shape: tuple[int, ...]) -> Groups:
    """A dependence along axes as one by groups."""
    kept = tuple(1 if a in link.axes else n for a, n in enumerate(inner))
    numbers = numbered(kept)
    if link.keeps:
        return Groups(np.broadcast_to(numbers, inner), np.broadcast_to(numbers, shape))
    return Groups(np.broadcast_to(numbers, inner), numbers.reshape(shape))


def _short_axes(link: Along, terms: Terms, shape: tuple[int, ...]) -> list[Term] | None:
    """A few elements along the axes: their index maps side by side."""
    inner = terms[0].numbers.shape
    length = int(np.prod([inner[a] for a in link.axes], dtype=np.intp))
    if length * len(terms) > _NARROW or not length:
        return None
    found = []
    for term in terms:
        last = np.moveaxis(term.numbers, link.axes, range(-len(link.axes), 0)) if link.axes else term.numbers[..., None]
        flat = last.reshape(*last.shape[: len(inner) - len(link.axes)], length)
        for k in range(length):
            numbers = flat[..., k]
            if link.keeps:
                kept = tuple(1 if a in link.axes else n for a, n in enumerate(inner))
                numbers = np.broadcast_to(numbers.reshape(kept), shape)
            found.append(Term(np.asarray(numbers), term.table))
    return found


def _columns(numbers: Sequence[np.ndarray]) -> np.ndarray:
    """Per element the different row numbers in ascending order behind zeros, as few rows as the longest needs."""
    stacked = np.empty((len(numbers), numbers[0].size), np.intp)
    for row, array in zip(stacked, numbers, strict=True):
        row[:] = array.reshape(-1)
    stacked.sort(axis=0)
    stacked[1:][stacked[1:] == stacked[:-1]] = 0
    longest = int((stacked > 0).sum(axis=0).max(initial=0))
    if longest < len(stacked):
        stacked.sort(axis=0)
    return stacked[len(stacked) - longest :]


def _table_of_columns(columns: np.ndarray) -> Table:
    rows = columns.T
    present = rows > 0
    indptr = np.zeros(len(rows) + 1, np.intp)
    np.cumsum(present.sum(axis=1), out=indptr[1:])
    return Table(indptr, rows[present] - 1)


def _narrowed(table: Table) -> list[tuple[np.ndarray, Table | None]]:
    """A table of short rows as index maps over its row numbers."""
    counts = np.diff(table.indptr)
    width = int(counts.max(initial=0))
    if width > _NARROW or width * len(counts) > 2 * len(table.indices) + 64:
        return [(np.arange(table.rows + 1), table)]
    found: list[tuple[np.ndarray, Table | None]] = []
    for k in range(width):
        numbers = np.zeros(table.rows + 1, np.intp)
        has = counts > k
        numbers[1:][has] = table.indices[table.indptr[:-1][has] + k] + 1
        found.append((numbers, None))
    return found


def _single_rows(groups: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray | None:
    """The one row number that all elements of each group share, or None if some do not."""
    single = np.zeros(count + 1, np.intp)
    present = (groups > 0) & (rows > 0)
    groups, rows = groups[present], rows[present]
    single[groups] = rows
    return single if (single[groups] == rows).all() else None


def _joined(tables: Sequence[Table | None]) -> tuple[Table | None, list[int]]:
    """One table with the rows of several, and what to add to the row numbers of each."""
    first = tables[0]
    if first is None or all(t is first for t in tables):
        return first, [0] * len(tables)
    offsets: dict[int, int] = {}
    distinct: list[Table] = []
    for table in tables:
        if table is not None and id(table) not in offsets:
            offsets[id(table)] = sum(t.rows for t in distinct)
            distinct.append(table)
    starts = np.cumsum([0, *(len(t.indices) for t in distinct)])
    pointers = [t.indptr[1:] + start for t, start in zip(distinct, starts, strict=False)]
    joined = Table(np.concatenate([[0], *pointers]), np.concatenate([t.indices for t in distinct]))
    return joined, [offsets[id(t)] for t in tables]
