"""Sorting. The derivative of sorting moves tangents the way the elements moved.

Where elements are equal it follows the stable order: one of the derivatives that the neighbouring smooth pieces have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.core.primitive import Primitive
from functrace.core.types import ShapedArray
from functrace.core.work import Layout, counted
from functrace.primitives import kinks
from functrace.primitives._structures import axis_lines
from functrace.primitives.families import broadcast
from functrace.primitives.indexing import gather
from functrace.primitives.shape import iota

__all__ = ["argpartition", "argsort", "sort", "take_along"]

_INDEX = np.dtype(np.intp)


def take_along(x: Any, indices: Any, axis: int, unique: bool = False) -> Any:
    """The elements at positions along one axis (from 0), the other axes in step: `numpy.take_along_axis`.

    `unique` promises that no element is taken twice.
    """
    shape = indices.shape
    if len(shape) == 1:
        return gather(x, indices, axes=(0,), unique=unique)
    grid = [
        indices if a == axis else broadcast(iota(length=n, dtype=_INDEX), shape=shape, axes=(a,))
        for a, n in enumerate(shape)
    ]
    return gather(x, *grid, axes=tuple(range(len(shape))), unique=unique)


def _comparisons(operands: Sequence[Layout], outs: Sequence[ShapedArray], *, axis: int, **params: Any) -> int:
    """n log2 n, n elements to a line; to part them, n."""
    x = operands[0]
    return x.size * (1 if "kth" in params else x.shape[axis].bit_length())


def _sort_jvp(primals: list[Any], tangents: list[Any], *, axis: int) -> tuple[list[Any], list[Any]]:
    order = argsort(primals[0], axis=axis, kind="stable")
    return [take_along(primals[0], order, axis, True)], [take_along(tangents[0], order, axis, True)]


sort = Primitive(
    "sort",
    lambda x, *, axis: np.sort(x, axis),
    lambda aval, *, axis: aval,
    jvp=_sort_jvp,
    batch=lambda size, values, batched, *, axis: ([sort(values[0], axis=axis + 1)], [True]),
    family="sorting",
    sparsity=axis_lines,
    cost=counted(_comparisons),
    kink=kinks.sorted_ties(),
)
argsort = Primitive(
    "argsort",
    lambda x, *, axis, kind: x.argsort(axis, kind),
    lambda aval, *, axis, kind: ShapedArray(aval.shape, _INDEX),
    batch=lambda size, values, batched, *, axis, kind: ([argsort(values[0], axis=axis + 1, kind=kind)], [True]),
    family="sorting",
    nondifferentiable=True,
    cost=counted(_comparisons),
    kink=kinks.order(),
)
argpartition = Primitive(
    "argpartition",
    lambda x, *, kth, axis: x.argpartition(kth, axis),
    lambda aval, *, kth, axis: ShapedArray(aval.shape, _INDEX),
    batch=lambda size, values, batched, *, kth, axis: ([argpartition(values[0], kth=kth, axis=axis + 1)], [True]),
    family="sorting",
    nondifferentiable=True,
    cost=counted(_comparisons),
    kink=kinks.partial_order(),
)
