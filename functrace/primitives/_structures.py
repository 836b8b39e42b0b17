"""Makers of `sparsity` rules for the families whose structure needs arithmetic on indices; see `core.structure`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.structure import (
    Along,
    ElementProduct,
    GroupProduct,
    Groups,
    Link,
    Linked,
    Moves,
    Pairs,
    Structure,
    known,
    labelled,
)
from functrace.core.types import ShapedArray, aval_of

__all__ = [
    "axis_lines", "contraction", "convolution", "cumulative", "gathered", "matrices", "reduction", "scattered",
]  # fmt: skip

Rule = Callable[..., list[Structure]]
Axes = tuple[tuple[int, ...], tuple[int, ...]]

#: How many pairs of elements are listed one by one; beyond, coarser groups cover them.
_LISTED = 20_000_000


def _shape(operand: Any) -> tuple[int, ...]:
    return aval_of(operand).shape


# reductions


def reduction(curved: bool = False, distinct: bool = False, keeps: bool = False) -> Rule:
    """Over `axes`, or `axis`: results depend on all elements reduced to them.

    Args:
        curved: whether these have second derivatives with one another.
        distinct: whether none has one with itself.
        keeps: whether the result still has the axes.
    """

    def rule(operands: list[Any], outs: list[ShapedArray], **params: Any) -> list[Structure]:
        axes = params["axes"] if "axes" in params else (params["axis"],)
        shape = _shape(operands[0])
        if not curved:
            return [Linked([Along(axes, keeps)])]
        groups = labelled(shape, tuple(a for a in range(len(shape)) if a not in axes))
        return [Linked([Along(axes, keeps)], [GroupProduct(0, 0, groups, groups, distinct)])]

    return rule


#: Results along `axis` depend on all elements of their line.
axis_lines = reduction(keeps=True)


def cumulative(curved: bool = False, distinct: bool = False, recurrence: bool = False) -> Rule:
    """Along `axis`: results depend on the elements up to their place (from it, when `reverse`).

    Args:
        curved, distinct: as for `reduction`.
        recurrence: whether the operands are factors, of which the first has no effect, and terms.
    """

    def rule(operands: list[Any], outs: list[ShapedArray], *, axis: int, reverse: bool) -> list[Structure]:
        shape = outs[0].shape
        link = _triangle(shape, axis, reverse)
        groups = labelled(shape, tuple(a for a in range(len(shape)) if a != axis))
        if not recurrence:
            return [Linked([link], [GroupProduct(0, 0, groups, groups, distinct)] if curved else [])]
        effect = np.arange(shape[axis]) != (shape[axis] - 1 if reverse else 0)
        factors = np.where(effect.reshape([-1 if a == axis else 1 for a in range(len(shape))]), groups, 0)
        products = [GroupProduct(0, 0, factors, factors, True), GroupProduct(0, 1, factors, groups)]
        if isinstance(link, Pairs):
            reads = (factors > 0).reshape(-1)[link.operand]
            return [Linked([Pairs(link.out[reads], link.operand[reads]), link], products)]
        return [Linked([link, link], products)]

    return rule


def _triangle(shape: tuple[int, ...], axis: int, reverse: bool) -> Link:
    """Each element of a line with those up to it."""
    length, size = shape[axis], math.prod(shape)
    if size * (length + 1) // 2 > _LISTED:
        return Along((axis,), keeps=True)
    later, earlier = np.tril_indices(length)
    if reverse:
        later, earlier = earlier, later
    places = np.moveaxis(np.arange(size).reshape(shape), axis, 0).reshape(length, size // max(length, 1))
    return Pairs(places[later].reshape(-1), places[earlier].reshape(-1))


# index arrays


def _places(
    shape: tuple[int, ...], indices: Sequence[Any], axes: tuple[int, ...], out: tuple[int, ...]
) -> tuple[tuple[int, ...], np.ndarray]:
    """The axes of x along which each place read or written is known, and the labels of the places by these."""
    values = dict(zip(axes, map(known, indices), strict=True))
    rank = len(_shape(indices[0]))
    rest = [a for a in range(len(shape)) if a not in axes]
    kept = tuple(a for a in range(len(shape)) if a in rest or values[a] is not None)
    label = np.zeros((1,) * len(out), np.intp)
    for axis in kept:
        if axis in values:
            along = np.reshape(values[axis], (*np.shape(values[axis]), *(1,) * len(rest)))
        else:
            along = np.arange(shape[axis]).reshape([-1 if a == rank + rest.index(axis) else 1 for a in range(len(out))])
        label = label * shape[axis] + along
    return kept, np.broadcast_to(label + 1, out)


def gathered(operands: list[Any], outs: list[ShapedArray], *, axes: tuple[int, ...], **params: Any) -> list[Structure]:
    """Reading at index arrays: one element where these are known, any along the axes where they are not."""
    x, *indices = operands
    shape, nothing = _shape(x), [None] * len(indices)
    if all(known(i) is not None for i in indices):
        key = tuple(indices)
        order = (*axes, *(a for a in range(len(shape)) if a not in axes))
        return [Moves(lambda x, *_: x.transpose(order)[key])]
    kept, gives = _places(shape, indices, axes, outs[0].shape)
    return [Linked([Groups(labelled(shape, kept), gives), *nothing])]


def scattered(products: bool = False, replaces: Callable[..., Any] | None = None) -> Rule:
    """Writing at index arrays.

    Args:
        products: whether updates multiply each other and what is there.
        replaces: evaluation, if updates replace what is there.
    """

    def rule(operands: list[Any], outs: list[ShapedArray], *, axes: tuple[int, ...], **params: Any) -> list[Structure]:
        x, *indices, updates = operands
        if replaces is not None and all(known(i) is not None for i in indices):
            return [Moves(lambda x, *others: replaces(x, *indices, others[-1], axes=axes, **params))]
        shape = _shape(x)
        kept, reads = _places(shape, indices, axes, _shape(updates))
        gives = labelled(shape, kept)
        links: list[Link] = [Groups(None, None), *(None for _ in indices), Groups(reads, gives)]
        last = len(operands) - 1
        curved = [GroupProduct(0, last, gives, reads), GroupProduct(last, last, reads, reads, True)]
        return [Linked(links, curved if products else [])]

    return rule


# products


def _free(ndim: int, *used: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a for a in range(ndim) if all(a not in axes for axes in used))


def contraction(operands: list[Any], outs: list[ShapedArray], *, contract: Axes, batch: Axes) -> list[Structure]:
    """Sums of products: of a known operand only what is not 0 counts."""
    shapes = [_shape(operand) for operand in operands]
    free = [_free(len(shapes[i]), contract[i], batch[i]) for i in (0, 1)]
    if known(operands[0]) is not None or known(operands[1]) is not None:
        side = 0 if known(operands[1]) is not None else 1
        return [_scaled(np.asarray(operands[1 - side]), side, shapes, free, outs[0], contract, batch)]
    links = [_free_link(side, shapes, free, outs[0], batch) for side in (0, 1)]
    left, right = (labelled(shapes[i], (*batch[i], *contract[i])) for i in (0, 1))
    listed = outs[0].size * math.prod(shapes[0][a] for a in contract[0])
    if listed <= 4 * (left.size + right.size) + 100_000:
        return [Linked(links, [_terms(shapes, free, outs[0], contract, batch)])]
    return [Linked(links, [GroupProduct(0, 1, left, right)])]


def _free_link(
    side: int, shapes: list[tuple[int, ...]], free: list[tuple[int, ...]], out: ShapedArray, batch: Axes
) -> Groups:
    """Results depend on the elements that agree with them in the batch axes and the operand's own free axes."""
    count = len(batch[0])
    first = count if side == 0 else count + len(free[0])
    own = tuple(range(first, first + len(free[side])))
    return Groups(labelled(shapes[side], (*batch[side], *free[side])), labelled(out.shape, (*range(count), *own)))


def _strides(shape: tuple[int, ...]) -> list[int]:
    return [math.prod(shape[a + 1 :]) for a in range(len(shape))]


def _offsets(lengths: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """The flat positions that run through some axes."""
    total = np.zeros(1, np.intp)
    for length, stride in zip(lengths, strides, strict=True):
        total = (total[:, None] + np.arange(length) * stride).reshape(-1)
    return total


def _terms(
    shapes: list[tuple[int, ...]], free: list[tuple[int, ...]], out: ShapedArray, contract: Axes, batch: Axes
) -> ElementProduct:
    """Every product that is summed."""
    lengths = [
        *(shapes[0][a] for a in (*batch[0], *free[0])),
        *(shapes[1][a] for a in free[1]),
        *(shapes[0][a] for a in contract[0]),
    ]
    left, right, result = _strides(shapes[0]), _strides(shapes[1]), _strides(out.shape)
    gap_x, gap_y = [0] * len(free[0]), [0] * len(free[1])
    x = [*(left[a] for a in (*batch[0], *free[0])), *gap_y, *(left[a] for a in contract[0])]
    y = [*(right[a] for a in batch[1]), *gap_x, *(right[a] for a in (*free[1], *contract[1]))]
    z = [*result, *(0 for _ in contract[0])]
    return ElementProduct(0, 1, *(_offsets(lengths, s) for s in (x, y, z)))


def _scaled(
    constant: np.ndarray,
    side: int,
    shapes: list[tuple[int, ...]],
    free: list[tuple[int, ...]],
    out: ShapedArray,
    contract: Axes,
    batch: Axes,
) -> Linked:
    """The product with a known operand; `side` is that of the other."""
    other, count = 1 - side, len(batch[0])
    links: list[Link] = [None, None]
    count_nonzero = int(np.count_nonzero(constant))
    own = math.prod(shapes[side][a] for a in free[side])
    if count_nonzero in (0, constant.size) or count_nonzero * own > _LISTED:
        links[side] = _free_link(side, shapes, free, out, batch) if count_nonzero else None
        return Linked(links)
    places = np.nonzero(constant)
    strides, result = _strides(shapes[side]), _strides(out.shape)
    first = count if side == 1 else count + len(free[0])
    start, target = (np.zeros(len(places[0]), np.intp) for _ in range(2))
    for pair in (contract, batch):
        for a, b in zip(pair[other], pair[side], strict=True):
            start += places[a] * strides[b]
    for k, a in enumerate(batch[other]):
        target += places[a] * result[k]
    for k, a in enumerate(free[other]):
        target += places[a] * result[first + k]
    mine = count if side == 0 else count + len(free[0])
    lengths = [shapes[side][a] for a in free[side]]
    inside = _offsets(lengths, [strides[a] for a in free[side]])
    outside = _offsets(lengths, [result[mine + k] for k in range(len(lengths))])
    operand = np.add.outer(start, inside).reshape(-1)
    links[side] = Pairs(np.add.outer(target, outside).reshape(-1), operand)
    return Linked(links)


def convolution(operands: list[Any], outs: list[ShapedArray]) -> list[Structure]:
    """out[..., k] sums x[..., j] y[..., k - j]."""
    shapes = [_shape(operand) for operand in operands]
    lines = math.prod(outs[0].shape[:-1])
    lengths = (shapes[0][-1], shapes[1][-1], outs[0].shape[-1])
    line, j, i = (a.reshape(-1) for a in np.indices((lines, *lengths[:2])))
    x, y, out = line * lengths[0] + j, line * lengths[1] + i, line * lengths[2] + j + i
    links: list[Link] = []
    for own, other, partner in ((x, y, operands[1]), (y, x, operands[0])):
        value = known(partner)
        counts = slice(None) if value is None else np.reshape(value, -1)[other] != 0
        links.append(Pairs(out[counts], own[counts]))
    return [Linked(links, [ElementProduct(0, 1, x, y, out)])]


# stacks of matrices


def matrices(
    linear: Sequence[int] = (),
    reads: Callable[..., np.ndarray | None] | None = None,
    columns: Sequence[int] = (),
    none: Callable[[list[ShapedArray]], Sequence[int]] = lambda outs: (),
) -> Rule:
    """Results depend on the whole matrices at their place in the stack.

    Args:
        linear: operands that have no second derivatives among themselves.
        reads: `reads(matrix shape, **params)`: the part of the first operand that is read, or None for all.
        columns: operands whose columns go to the same columns of the output.
        none: the outputs without derivative.
    """

    def rule(operands: list[Any], outs: list[ShapedArray], **params: Any) -> list[Structure]:
        stack = tuple(range(len(_shape(operands[0])) - 2))
        groups = [labelled(_shape(operand), stack) for operand in operands]
        part = None if reads is None else reads(_shape(operands[0])[-2:], **params)
        if part is not None:
            groups[0] = np.where(part, groups[0], 0)
        count = range(len(operands))
        products = [
            GroupProduct(i, j, groups[i], groups[j])
            for i in count
            for j in count
            if i <= j and not (i in linear and j in linear)
        ]
        found: list[Structure] = []
        for k, out in enumerate(outs):
            if k in none(outs):
                found.append(None)
                continue
            links = [
                Groups(
                    labelled(_shape(operands[i]), (*stack, len(stack) + 1)),
                    labelled(out.shape, (*stack, len(stack) + 1)),
                )
                if i in columns
                else Groups(groups[i], labelled(out.shape, stack))
                for i in count
            ]
            found.append(Linked(links, products))
        return found

    return rule
