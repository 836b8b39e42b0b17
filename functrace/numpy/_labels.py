"""Operands whose axes carry labels, as in Einstein's notation: the bookkeeping of products that sum.

Labels are integers. Those that both operands have and the result lacks are summed over.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from functrace.errors import ShapeError
from functrace.numpy._promotion import as_array, cast
from functrace.primitives.contraction import Axes, dot_general, permute
from functrace.primitives.families import reduce_sum, reshape
from functrace.primitives.shape import full
from functrace.util import user_line

__all__ = [
    "Labels",
    "contract",
    "label_sizes",
    "mismatch",
    "operands",
    "product",
    "stack_labels",
    "sum_axes",
    "without_stretched",
]

Labels = tuple[int, ...]


def mismatch(function: str, x: Any, y: Any, remedy: str) -> ShapeError:
    """The error for operands whose summed axes differ."""
    return ShapeError(
        f"{function} cannot multiply operands of these shapes",
        where=user_line(),
        got=f"{x.shape} and {y.shape}",
        remedy=remedy,
    )


def operands(*arrays: Any) -> list[Any]:
    """Operands as arrays of one dtype; these functions take a Python number as an array of its own dtype."""
    values = [as_array(a) for a in arrays]
    dtype = values[0].dtype
    for value in values:
        if value.dtype is not dtype:
            dtype = np.result_type(*(v.dtype for v in values))
            return [cast(v, dtype) for v in values]
    return values


def label_sizes(function: str, values: Sequence[Any], labels: Sequence[Labels]) -> dict[int, int]:
    """The length of each label; a length 1 gives way to another, as in broadcasting."""
    sizes: dict[int, int] = {}
    for value, names in zip(values, labels, strict=True):
        for name, length in zip(names, value.shape, strict=True):
            known = sizes.get(name, 1)
            if known != length and known != 1 and length != 1:
                raise ShapeError(
                    f"{function} pairs axes of different lengths",
                    where=user_line(),
                    got=" and ".join(str(v.shape) for v in values),
                    remedy="axes that are multiplied or summed together need one length (or length 1)",
                )
            sizes[name] = length if known == 1 else known
    return sizes


def without_stretched(value: Any, labels: Labels, sizes: dict[int, int]) -> tuple[Any, Labels]:
    """Drop the axes of length 1 that broadcast; what lacks an axis broadcasts by itself."""
    kept = [i for i, name in enumerate(labels) if value.shape[i] == sizes[name]]
    if len(kept) == len(labels):
        return value, labels
    return reshape(value, shape=tuple(value.shape[i] for i in kept)), tuple(labels[i] for i in kept)


def sum_axes(value: Any, axes: tuple[int, ...]) -> Any:
    """The sum over axes; integers and booleans keep their dtype, as in einsum."""
    if not axes or value.dtype.kind in "fc":
        return reduce_sum(value, axes=axes) if axes else value
    ones = full(shape=tuple(value.shape[i] for i in axes), value=1, dtype=value.dtype)
    return dot_general(value, ones, contract=(axes, tuple(range(len(axes)))), batch=((), ()))


class Contraction(NamedTuple):
    """How to multiply two operands: axes to sum out of each alone, then those of `dot_general`."""

    left_sums: tuple[int, ...]
    right_sums: tuple[int, ...]
    swapped: bool
    contract: Axes
    batch: Axes
    labels: Labels


@functools.lru_cache(maxsize=4096)
def _contraction(x: Labels, y: Labels, kept: Labels) -> Contraction:
    """From the labels of two operands and of the result."""
    wanted = set(kept)
    sums = [tuple(i for i, n in enumerate(a) if n not in wanted and n not in b) for a, b in ((x, y), (y, x))]
    x, y = (tuple(n for n in a if n in wanted or n in b) for a, b in ((x, y), (y, x)))
    common = set(x) & set(y)
    stack = tuple(n for n in kept if n in common)
    free = [tuple(n for n in a if n not in common) for a in (x, y)]
    swapped = (*stack, *free[1], *free[0]) == kept
    if swapped:
        x, y, free = y, x, free[::-1]
    summed = tuple(n for n in x if n in common and n not in wanted)
    pairs = [(tuple(map(x.index, names)), tuple(map(y.index, names))) for names in (summed, stack)]
    return Contraction(sums[0], sums[1], swapped, pairs[0], pairs[1], (*stack, *free[0], *free[1]))


def contract(x: Any, x_labels: Labels, y: Any, y_labels: Labels, kept: Labels) -> tuple[Any, Labels]:
    """The product of two operands, summed over the labels not in `kept`, in the order of `kept` where that is free."""
    how = _contraction(x_labels, y_labels, kept)
    x, y = sum_axes(x, how.left_sums), sum_axes(y, how.right_sums)
    if how.swapped:
        x, y = y, x
    return dot_general(x, y, contract=how.contract, batch=how.batch), how.labels


def product(function: str, x: Any, x_labels: Labels, y: Any, y_labels: Labels, out: Labels) -> Any:
    """The product of two operands of one dtype with the labels `out`, broadcasting."""
    sizes = label_sizes(function, (x, y), (x_labels, y_labels))
    value, labels = contract(*without_stretched(x, x_labels, sizes), *without_stretched(y, y_labels, sizes), out)
    return permute(value, tuple(map(labels.index, out)))


def stack_labels(ndim: int) -> Labels:
    """Labels of leading axes, which broadcast from the last."""
    return tuple(range(-ndim, 0))
