"""Hessians by substitution: the nonzeros of each two-coloured tree solved for from the leaves inwards.

Under an acyclic colouring the vertices of any two colours span a forest. The product with one of them adds up, at a
vertex of the other, the nonzeros of all its edges in its tree: at a leaf that is the nonzero of its only edge, at any
other vertex that of the edge towards the root once those of the edges from its children are subtracted. Coleman and
Cai, "The cyclic coloring problem and estimation of sparse Hessian matrices" (1986); Gebremedhin, Pothen, Tarafdar and
Walther, "Efficient computation of sparse Hessians using coloring and automatic differentiation" (2009).

Only additions and subtractions occur, so that an error is carried inwards but never grows; trees have their roots in
the middle, so that it is carried as short a way as possible.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from functrace.core.lowering import Call
from functrace.core.primitive import Primitive
from functrace.core.structure import Groups, Linked, Structure
from functrace.core.types import ShapedArray, aval_of
from functrace.core.work import counted
from functrace.primitives.shape import transpose as permute
from functrace.sparse import _coloring_kernels as kernels
from functrace.sparse._greedy import run_kernel
from functrace.sparse._substitution_code import emit_substitution

__all__ = ["Forest", "forest_of", "substitute"]

#: Up to so many levels are done one after the other by NumPy calls; more, edge by edge.
_MOST_LEVELS = 100


class Forest:
    """The trees of all pairs of colours of a symmetric matrix's graph.

    Attributes:
        tails: int64[edges]: the end of each edge at which its nonzero is read or solved for.
        children, parents: int32[steps]: edges whose nonzero is subtracted from that of the next towards the root, in
            an order in which the former is known by then.
        bounds: the steps of each level, as bounds.
    """

    def __init__(self, tails: np.ndarray, children: np.ndarray, parents: np.ndarray, levels: np.ndarray) -> None:
        self.tails, self.children, self.parents = tails, children, parents
        cuts = np.flatnonzero(np.diff(levels)) + 1
        self.bounds = [0, *cuts.tolist(), levels.size] if levels.size else [0]

    @property
    def height(self) -> int:
        """The most nonzeros that one is computed from, one after the other."""
        return len(self.bounds) - 1

    def at(self, positions: np.ndarray) -> Forest:
        """The same trees with other numbers of the edges, as among all nonzeros; `tails` stay as they are."""
        placed = object.__new__(Forest)
        placed.tails, placed.bounds = self.tails, self.bounds
        placed.children, placed.parents = (positions[k].astype(np.int32) for k in (self.children, self.parents))
        return placed

    def __repr__(self) -> str:
        return f"forest of {self.tails.size} edges, {self.children.size} to be substituted in {self.height} levels"


def forest_of(low: np.ndarray, high: np.ndarray, colors: np.ndarray, number: int) -> Forest | None:
    """The trees of an acyclic colouring; None if the colouring is none.

    Args:
        low, high: both ends of every edge of the graph, once.
        colors: of the vertices, from 0 to `number` - 1.
    """
    count = low.size
    if not count:
        nothing = np.zeros(0, np.int64)
        return Forest(nothing, nothing.astype(np.int32), nothing.astype(np.int32), nothing)
    if (colors[low] == colors[high]).any():
        return None
    # A vertex is a node once in the trees of each pair of colours.
    keys = np.concatenate([low * number + colors[high], high * number + colors[low]])
    nodes, ends = np.unique(keys, return_inverse=True)
    degrees = np.bincount(ends, minlength=nodes.size)
    ids = np.concatenate([np.arange(count)] * 2)
    links = np.zeros(nodes.size, np.int64)
    np.bitwise_xor.at(links, ends, ids)
    leaves = np.flatnonzero(degrees == 1)
    queue = np.full(nodes.size, -1)
    queue[: leaves.size] = leaves
    across = ends[:count] ^ ends[count:]
    arrays = [degrees, links, across, queue, np.array([leaves.size]), np.zeros(nodes.size, np.int64),
              np.full(2 * count, -1)]  # fmt: skip
    taken, found = run_kernel(kernels.peel, 8 * count, arrays)
    if taken < count:
        return None
    tails, levels = np.array(found, np.int64).reshape(2, count)
    towards_root = np.full(nodes.size, -1)
    towards_root[tails] = np.arange(count)
    parents = towards_root[across ^ tails]
    children = np.flatnonzero(parents >= 0)
    children = children[np.argsort(levels[children], kind="stable")]
    steps = children.astype(np.int32), parents[children].astype(np.int32)
    return Forest(nodes[tails] // number, *steps, levels[children])


# the primitive


def substitute(x: Any, forest: Forest) -> Any:
    """The nonzeros of each tree from what is read at its edges: that of the next edge towards the root is less it.

    Args:
        x: per edge what is read, [edges, ...].
        forest: the trees.
    """
    return _substitute(x, forest=forest, outwards=False)


def _impl(x: Any, *, forest: Forest, outwards: bool) -> np.ndarray:
    children, parents = forest.children, forest.parents
    levels = [slice(a, b) for a, b in itertools.pairwise(forest.bounds)]
    if len(levels) > _MOST_LEVELS and x.ndim == 1:
        return _by_steps(x, children, parents, outwards)
    out = np.array(x)
    for level in reversed(levels) if outwards else levels:
        if outwards:
            out[children[level]] -= out[parents[level]]
        else:
            np.subtract.at(out, parents[level], out[children[level]])
    return out


def _by_steps(x: np.ndarray, children: np.ndarray, parents: np.ndarray, outwards: bool) -> np.ndarray:
    values = x.tolist()
    steps = zip(children.tolist(), parents.tolist(), strict=True)
    if outwards:
        for child, parent in reversed(list(steps)):
            values[child] -= values[parent]
    else:
        for child, parent in steps:
            values[parent] -= values[child]
    return np.array(values, x.dtype)


def _abstract_eval(x: ShapedArray, **params: Any) -> ShapedArray:
    return ShapedArray(x.shape, x.dtype)


def _jvp(primals: list[Any], tangents: list[Any], **params: Any) -> tuple[list[Any], list[Any]]:
    return [_substitute(primals[0], **params)], [_substitute(tangents[0], **params)]


def _transpose(bars: list[Any], x: Any, *, forest: Forest, outwards: bool) -> list[Any]:
    return [_substitute(bars[0], forest=forest, outwards=not outwards)]


def _batch(size: int, values: list[Any], batched: list[bool], **params: Any) -> tuple[list[Any], list[bool]]:
    (x,) = values
    last = len(aval_of(x).shape) - 1
    solved = _substitute(permute(x, permutation=(*range(1, last + 1), 0)), **params)
    return [permute(solved, permutation=(last, *range(last)))], [True]


def _trees(operands: Any, outs: Any, *, forest: Forest, outwards: bool) -> list[Structure]:
    """What is solved for depends on what is read in its tree."""
    shape = outs[0].shape
    labels = np.arange(shape[0])
    for first, last in reversed(list(itertools.pairwise(forest.bounds))):
        labels[forest.children[first:last]] = labels[forest.parents[first:last]]
    width = math.prod(shape[1:])
    groups = (labels[:, None] * width + np.arange(width) + 1).reshape(shape)
    return [Linked([Groups(groups, groups)])]


def _flops(operands: Any, outs: Any, *, forest: Forest, outwards: bool) -> int:
    return forest.children.size * (outs[0].size // max(outs[0].shape[0], 1))


#: Along the trees of `forest`: each step's child is subtracted from its parent, leaves first; `outwards`, which is the
#: transpose, the parent from the child, roots first.
_substitute = Primitive(
    "substitute",
    _impl,
    _abstract_eval,
    jvp=_jvp,
    transpose=_transpose,
    batch=_batch,
    lower=Call(emit=emit_substitution),
    cost=counted(_flops),
    sparsity=_trees,
    family="indexing",
)
