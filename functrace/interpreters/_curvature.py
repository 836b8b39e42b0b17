"""Which elements of a program are live, and which pairs of its inputs its nonlinear operations multiply.

Both read the structure of one node at a time; `sparsity` walks over the nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from functrace.core.structure import (
    Along,
    ElementProduct,
    GroupProduct,
    Groups,
    Linked,
    Moves,
    Pairs,
    Pointwise,
    numbered,
)
from functrace.interpreters._dependence import Sets, Table, Terms, along_groups, repeated_rows, sorted_unique

if TYPE_CHECKING:
    from functrace.interpreters.sparsity import DependenceTracer

__all__ = ["Keys", "backward", "curved_operands", "multiply"]


# liveness


def backward(node: DependenceTracer, live: np.ndarray) -> list[np.ndarray | None]:
    """Per operand, which elements the live elements of the node depend on."""
    structure, wanted = node.structure, [o is not None for o in node.operands]
    match structure:
        case Pointwise():
            found = []
            for depends, shape, want in zip(structure.depends, node.shapes, wanted, strict=True):
                mask = None if depends is False or not want else live if depends is True else live & depends
                found.append(np.asarray(mask.any()) if mask is not None and mask.shape != shape else mask)
            return found
        case Moves():
            return _backward_moves(structure, live, node.shapes)
        case Linked():
            return [
                _backward_link(link, live, shape) if want else None
                for link, shape, want in zip(structure.links, node.shapes, wanted, strict=True)
            ]
    return [None] * len(wanted)


def _backward_moves(structure: Moves, live: np.ndarray, shapes: Sequence[tuple[int, ...]]) -> list[np.ndarray | None]:
    sizes = [int(np.prod(shape, dtype=np.intp)) for shape in shapes]
    ends = np.cumsum([0, *sizes])
    arrays = [
        np.arange(start + 1, start + size + 1).reshape(shape)[()]
        for start, size, shape in zip(ends, sizes, shapes, strict=False)
    ]
    reached = np.zeros(ends[-1] + 1, bool)
    reached[np.asarray(structure.function(*arrays))[live]] = True
    return [reached[s + 1 : s + n + 1].reshape(shape) for s, n, shape in zip(ends, sizes, shapes, strict=False)]


def _backward_link(link: Groups | Along | Pairs | None, live: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    if link is None:
        return None
    size = int(np.prod(shape, dtype=np.intp))
    if isinstance(link, Pairs):
        reached = np.zeros(size, bool)
        reached[link.operand[live.reshape(-1)[link.out]]] = True
        return reached.reshape(shape)
    if isinstance(link, Along):
        link = along_groups(link, shape, live.shape)
    reads = numbered(shape) if link.reads is None else link.reads
    gives = numbered(live.shape) if link.gives is None else link.gives
    groups = np.zeros(max(reads.max(initial=0), gives.max(initial=0)) + 1, bool)
    groups[gives[live]] = True
    groups[0] = False
    return groups[reads]


# second derivatives


def curved_operands(node: DependenceTracer) -> set[int]:
    """The operands that some second derivative is taken by, both partners being reached by inputs."""
    structure = node.structure
    pairs: Iterable[tuple[int, int]] = ()
    if isinstance(structure, Pointwise):
        pairs = ((i, j) for i, j, where in structure.curved if where is not False)
    elif isinstance(structure, Linked):
        pairs = ((p.left, p.right) for p in structure.products)
    both = [(i, j) for i, j in pairs if node.operands[i] is not None and node.operands[j] is not None]
    return {i for pair in both for i in pair}


class Keys:
    """A growing set of pairs of inputs, larger * size + smaller."""

    _LIMIT, _LARGEST = 1 << 25, 1 << 28
    SQUARES = 8

    def __init__(self, size: int, listed: bool = False) -> None:
        self.size, self.listed = size, listed
        self.keys: list[np.ndarray] = []
        self.count = 0
        #: Sets all of whose pairs are in, as masks.
        self.squares: list[np.ndarray] = []
        #: All places as a matrix, once there are many.
        self.dense: np.ndarray | None = None
        #: Pairs of index maps that are in already, at all their elements; held, so that their ids stay theirs.
        self.done: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def is_new(self, members: np.ndarray) -> bool:
        """Whether the square of a set is not within one added before; it is then taken as added."""
        if len(members) < 64:
            return True
        if any(mask[members].all() for mask in self.squares):
            return False
        mask = np.zeros(self.size, bool)
        mask[members] = True
        self.squares = [mask, *self.squares][: self.SQUARES]
        return True

    def add(self, left: np.ndarray, right: np.ndarray) -> None:
        """Add pairs of row numbers (from 1; 0 for none)."""
        both = (left > 0) & (right > 0)
        if not both.all():
            left, right = left[both], right[both]
        if left is right:
            keys = (left - 1) * (self.size + 1)
        else:
            keys = np.maximum(left, right)
            keys -= 1
            keys *= self.size
            keys += np.minimum(left, right)
            keys -= 1
        if self.dense is not None:
            self.dense[keys] = True
            return
        self.keys.append(keys)
        self.count += len(keys)
        if not self.listed and self.size**2 < min(8 * self.count, self._LARGEST):
            self.dense = np.zeros(self.size**2, bool)
            for keys in self.take():
                self.dense[keys] = True
        elif self.count > self._LIMIT and len(self.keys) > 1:
            self.keys = [sorted_unique(np.concatenate(self.keys))]
            self.count = len(self.keys[0]) // 2  # what is unique weighs less, so that this happens rarely

    def take(self) -> list[np.ndarray]:
        """What was added since the last call, the rest forgotten."""
        keys, self.keys = self.keys, []
        self.done.clear()
        self.squares.clear()
        return keys

    def symmetric(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, cols) of both triangles, row-major."""
        if self.dense is not None:
            matrix = self.dense.reshape(self.size, self.size)
            matrix |= matrix.T
            rows, cols = np.nonzero(matrix)
            return rows, cols
        keys = sorted_unique(np.concatenate([np.empty(0, np.intp), *self.take()]), in_place=True)
        rows, cols = np.divmod(keys, max(self.size, 1))
        above = (cols * self.size + rows)[rows != cols]
        if not above.size:
            return rows, cols
        del rows, cols  # there may be many
        both = np.concatenate([keys, above])
        both.sort()
        rows = both // self.size
        both -= rows * self.size
        return rows, both


def multiply(node: DependenceTracer, live: np.ndarray, terms: Sequence[Terms], sets: Sets, keys: Keys) -> None:
    """Add the pairs of inputs that a node multiplies in its live elements."""
    structure = node.structure
    if isinstance(structure, Pointwise):
        for i, j, where in structure.curved:
            if where is not False and terms[i] and terms[j]:
                mask = live if where is True else live & where
                _pointwise_product(terms[i], terms[j], node.shape, None if mask.all() else mask, keys)
    elif isinstance(structure, Linked):
        masks = backward(node, live)
        for product in structure.products:
            if terms[product.left] and terms[product.right]:
                if isinstance(product, ElementProduct):
                    _element_product(product, live, terms, keys)
                else:
                    _group_product(product, masks, terms, sets, keys)


def _pointwise_product(left: Terms, right: Terms, shape: tuple[int, ...], mask: np.ndarray | None, keys: Keys) -> None:
    for a in left:
        for b in right:
            mark = (id(a.numbers), id(b.numbers)) if id(a.numbers) <= id(b.numbers) else (id(b.numbers), id(a.numbers))
            plain = a.table is None and b.table is None
            if plain and mark in keys.done:
                continue
            if mask is None and plain and a.numbers.shape == b.numbers.shape:
                keys.done[mark] = (a.numbers, b.numbers)
            x, y = (np.broadcast_to(t.numbers, shape) for t in (a, b))
            x, y = (x.reshape(-1), y.reshape(-1)) if mask is None else (x[mask], y[mask])
            if a is b and a.table is None:
                y = x
            _outer(x, a.table, y, b.table, keys)


def _outer(x: np.ndarray, left: Table | None, y: np.ndarray, right: Table | None, keys: Keys) -> None:
    """Add the products of row x[e] of one table and row y[e] of the other, for all e."""
    if left is None and right is None:
        keys.add(*_few(x, y))
        return
    both = (x > 0) & (y > 0)
    x, y = x[both], y[both]
    width = int(y.max(initial=0)) + 1
    combined = sorted_unique(x * width + y)
    x, y = combined // width, combined % width
    if left is right and left is not None and len(x) and (x == y).all():
        if len(x) <= keys.SQUARES:
            x = np.array([r for r in x if keys.is_new(left.indices[left.indptr[r - 1] : left.indptr[r]])], np.intp)
        _add_squares(left, x, keys)
        return
    owners, members = repeated_rows(left, x)
    partners, others = repeated_rows(right, y[owners])
    keys.add(members[partners] + 1, others + 1)


def _few(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same pairs, each once where they are many pairs of a few low numbers (inputs that all elements share)."""
    if len(x) < 1000 or (height := int(x.max()) + 1) * (width := int(y.max()) + 1) > len(x):
        return x, y
    return np.divmod(np.flatnonzero(np.bincount(x * width + y, minlength=height)), width)


def _add_squares(table: Table, rows: np.ndarray, keys: Keys) -> None:
    """Add all pairs within each row, each once: a member with those before it, and itself."""
    starts = table.indptr[rows - 1]
    counts = table.indptr[rows] - starts
    owners, members = repeated_rows(table, rows)
    partners = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts) + 1  # itself included
    offset = np.arange(partners.sum()) - np.repeat(np.cumsum(partners) - partners, partners)
    others = table.indices[np.repeat(starts[owners], partners) + offset]
    keys.add(np.repeat(members, partners) + 1, others + 1)


def _element_product(product: ElementProduct, live: np.ndarray, terms: Sequence[Terms], keys: Keys) -> None:
    left, right = product.left_elements, product.right_elements
    if product.out is not None:
        kept = live.reshape(-1)[product.out]
        left, right = left[kept], right[kept]
    for a in terms[product.left]:
        for b in terms[product.right]:
            _outer(a.numbers.reshape(-1)[left], a.table, b.numbers.reshape(-1)[right], b.table, keys)


def _group_product(
    product: GroupProduct, masks: Sequence[np.ndarray | None], terms: Sequence[Terms], sets: Sets, keys: Keys
) -> None:
    """All pairs within a group, of elements that are live."""
    sides = []
    for operand, groups in ((product.left, product.left_groups), (product.right, product.right_groups)):
        shape = terms[operand][0].numbers.shape
        groups = numbered(shape) if groups is None else groups
        mask = masks[operand]
        sides.append(groups if mask is None else np.where(mask, groups, 0))
    if product.distinct and product.left == product.right and _add_distinct(sides[0], terms[product.left], keys):
        return
    count = max(int(side.max(initial=0)) for side in sides)
    same = product.left == product.right and product.left_groups is product.right_groups
    left = sets.grouped(sides[0], terms[product.left], count)
    right = left if same else sets.grouped(sides[1], terms[product.right], count)
    for x, table in left:
        for y, other in right:
            _outer(x[1:], table, y[1:], other, keys)


#: How many pairs of different elements are listed; beyond, an element also counts as its own partner.
_LISTED = 4_000_000


def _add_distinct(groups: np.ndarray, terms: Terms, keys: Keys) -> bool:
    """All pairs of different elements of each group; False if there are too many."""
    flat = groups.reshape(-1)
    sizes = np.bincount(flat)[1:]
    if int((sizes * (sizes - 1)).sum()) > 2 * _LISTED:
        return False
    order = np.argsort(flat, kind="stable")[len(flat) - int(sizes.sum()) :]
    members = Table(np.append(0, np.cumsum(sizes)), order)
    owners = np.repeat(np.arange(len(sizes)), sizes)
    element, partner = repeated_rows(members, owners + 1)
    first, second = order[element], partner
    different = first < second
    product = ElementProduct(0, 0, first[different], second[different])
    for a in terms:
        for b in terms:
            x, y = a.numbers.reshape(-1), b.numbers.reshape(-1)
            _outer(x[product.left_elements], a.table, y[product.right_elements], b.table, keys)
    return True
