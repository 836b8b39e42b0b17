"""Greedy colouring and the orders it takes vertices in: plain Python on bit sets for small graphs, Numba for large."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.sparse import _coloring_kernels as kernels
from functrace.sparse.structure import compressed
from functrace.util import switched_on

__all__ = ["adjacency", "greedy_acyclic", "greedy_columns", "greedy_star", "group_order", "run_kernel", "vertex_order"]

#: Vertices plus nonzeros from which loading and running Numba's code beats plain Python; measured by bench/coloring.py.
_COMPILE_FROM = 2_000_000
_COMPILE_WHEN_LOADED = 50_000


def adjacency(low: np.ndarray, high: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The neighbours of every vertex: those of `v` are `heads[starts[v] : starts[v + 1]]`."""
    starts, _, heads = compressed(np.concatenate([low, high]), np.concatenate([high, low]), n, n)
    return starts, heads


def greedy_columns(starts: np.ndarray, rows: np.ndarray, order: np.ndarray, m: int) -> tuple[np.ndarray, int]:
    compiled = _compiled(kernels.greedy_columns, rows.size + order.size)
    if compiled is not None:
        return _with_enough_words(
            lambda words, colors: compiled(starts, rows, order, np.zeros((m, words), np.uint64), colors),
            starts.size - 1,
        )
    used = [0] * m
    colors = [-1] * (starts.size - 1)
    number = 0
    bounds, flat = starts.tolist(), rows.tolist()
    for v in order.tolist():
        mine = flat[bounds[v] : bounds[v + 1]]
        if not mine:
            continue
        taken = 0
        for row in mine:
            taken |= used[row]
        bit = ~taken & (taken + 1)  # the lowest that is not taken
        for row in mine:
            used[row] |= bit
        colors[v] = bit.bit_length() - 1
        if colors[v] >= number:
            number = colors[v] + 1
    return np.array(colors, np.int64), number


def _with_enough_words(run: Callable[[int, np.ndarray], int], n: int) -> tuple[np.ndarray, int]:
    """Run a kernel with more and more words per set of colours until they suffice."""
    words = 1
    while True:
        colors = np.full(n, -1, np.int64)
        number = run(words, colors)
        if number >= 0:
            return colors, int(number)
        words *= 4


def greedy_star(starts: np.ndarray, heads: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, int]:
    n = starts.size - 1
    compiled = _compiled(kernels.greedy_star, 3 * heads.size + n)
    if compiled is not None:
        return _with_enough_words(
            lambda words, colors: compiled(starts, heads, order, *np.zeros((3, n, words), np.uint64), colors), n
        )
    seen, twice, barred, colors = [0] * n, [0] * n, [0] * n, [-1] * n
    number = 0
    bounds, flat = starts.tolist(), heads.tolist()
    for v in order.tolist():
        mine = flat[bounds[v] : bounds[v + 1]]
        forbidden, double = seen[v], twice[v]
        for w in mine:
            color = colors[w]
            if color >= 0:
                forbidden |= barred[w]
                if double >> color & 1:
                    forbidden |= seen[w]
        bit = ~forbidden & (forbidden + 1)  # the lowest that is not forbidden
        found = bit.bit_length() - 1
        colors[v] = found
        if found >= number:
            number = found + 1
        for w in mine:
            color = colors[w]
            if seen[w] & bit:
                again = twice[w] & bit
                twice[w] |= bit
                if color >= 0:
                    if again:
                        barred[v] |= 1 << color
                    else:  # the second neighbour of this colour makes w the centre of a star
                        for x in flat[bounds[w] : bounds[w + 1]]:
                            if colors[x] == found:
                                barred[x] |= 1 << color
            else:
                seen[w] |= bit
            if color >= 0 and double >> color & 1:
                barred[w] |= bit
    return np.array(colors, np.int64), number


def greedy_acyclic(starts: np.ndarray, heads: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, int]:
    n = starts.size - 1
    tails = np.repeat(np.arange(n), np.diff(starts))
    shift = max(n, 1).bit_length()
    _, edges = np.unique(np.minimum(tails, heads) << shift | np.maximum(tails, heads), return_inverse=True)
    count = int(edges.max(initial=-1)) + 1
    degrees = np.diff(starts)
    arrays = [
        starts, heads, edges, order, np.arange(count), np.full(count, -1), np.full(count, -1), np.full(n + 1, -1),
        np.full(n + 1, -1), np.full(n, -1),
    ]  # fmt: skip
    number, colors = run_kernel(kernels.greedy_acyclic, 4 * int((degrees * degrees).sum()), arrays)
    return np.array(colors, np.int64), int(number)


def vertex_order(starts: np.ndarray, heads: np.ndarray, order: str) -> np.ndarray:
    """The vertices of a graph in the order in which a greedy colouring is to take them."""
    n = starts.size - 1
    tails = np.repeat(np.arange(n), np.diff(starts))
    shift = max(n, 1).bit_length()
    # An edge is a group of two: smallest-last and incidence-degree then count neighbours.
    pairs, edges = np.unique(np.minimum(tails, heads) << shift | np.maximum(tails, heads), return_inverse=True)
    members = np.stack([pairs >> shift, pairs & ((1 << shift) - 1)], axis=1).reshape(-1)
    return group_order(order, starts, edges, 2 * np.arange(pairs.size + 1), members)


def group_order(
    order: str, starts: np.ndarray, indices: np.ndarray, group_starts: np.ndarray, members: np.ndarray
) -> np.ndarray:
    n = starts.size - 1
    if order == "natural" or n == 0:
        return np.arange(n)
    sizes = np.diff(group_starts)
    owner = np.repeat(np.arange(n), np.diff(starts))
    degrees = np.bincount(owner, sizes[indices] - 1, minlength=n).astype(np.int64)
    if order == "largest-first":
        return np.argsort(-degrees, kind="stable")
    ascending = order == "smallest-last"
    count = degrees if ascending else np.zeros(n, np.int64)
    vertices = np.argsort(count, kind="stable") if ascending else np.arange(n)[::-1].copy()
    at = np.empty(n, np.int64)
    at[vertices] = np.arange(n)
    bins = np.zeros(int(degrees.max()) + 2, np.int64)
    np.cumsum(np.bincount(count, minlength=bins.size - 1), out=bins[1:])
    kernel = kernels.smallest_last if ascending else kernels.incidence_degree
    arrays = [starts, indices, group_starts, members, count, bins, vertices, at, np.zeros(n, np.int64)]
    _, places = run_kernel(kernel, 4 * int((sizes * sizes).sum()) + n, arrays)
    return np.array(places, np.int64)


def run_kernel(kernel: Callable[..., Any], work: int, arrays: list[Any]) -> tuple[Any, Any]:
    """Run a kernel, compiled or on lists; its result and its last array."""
    compiled = _compiled(kernel, work)
    if compiled is not None:
        return compiled(*arrays), arrays[-1]
    lists = [a.tolist() for a in arrays]
    return kernel(*lists), lists[-1]


def _compiled(kernel: Callable[..., Any], work: int) -> Callable[..., Any] | None:
    """The kernel in machine code, where the work is worth loading it; else None."""
    least = _COMPILE_WHEN_LOADED if "numba" in sys.modules else _COMPILE_FROM
    if work < least or switched_on("FUNCTRACE_DISABLE_JIT", False):
        return None
    return _compile(kernel)


@functools.cache
def _compile(kernel: Callable[..., Any]) -> Callable[..., Any]:
    import numba

    return numba.njit(cache=switched_on("FUNCTRACE_CACHE", True), nogil=True)(kernel)
