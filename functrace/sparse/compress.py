"""Compressed evaluation: all colours in one batched sweep, then each nonzero read from its place.

A plan says which directions to multiply by and where in the products each nonzero stands; both are found once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from functrace.lax import map as map_over
from functrace.numpy import concatenate
from functrace.primitives.families import reshape
from functrace.primitives.indexing import gather
from functrace.sparse._by_position import neighbor_counts
from functrace.sparse._programs import FlatProgram, joined
from functrace.sparse.coloring import Bicoloring, Coloring
from functrace.sparse.structure import Structure
from functrace.sparse.substitution import Forest, forest_of, substitute
from functrace.transforms import grad, linearize, vjp, vmap

__all__ = ["Plan", "Sweep", "acyclic_plan", "bicolored_plan", "column_plan", "evaluate_hessian", "evaluate_jacobian",
           "row_plan", "star_plan"]  # fmt: skip

#: Most numbers in the directions of one batch; 128 MiB of doubles. More colours than fit take turns.
SWEEP_SIZE = 2**24


class Sweep(NamedTuple):
    """Products of one kind: which columns (or rows) each direction adds up, and what is read from the products.

    Attributes:
        colors: int[n]: the direction that each column (or row) takes part in; -1 for none.
        number: how many directions.
        length: how long a product is.
        color, place: int[reads]: direction and position of each nonzero that is read.
    """

    colors: np.ndarray
    number: int
    length: int
    color: np.ndarray
    place: np.ndarray


class Plan(NamedTuple):
    """How the values of a structure come from products with the matrix and with its transpose.

    Attributes:
        forward, reverse: products with the matrix and with its transpose, or None.
        order: int[nnz]: for each value its position among what is read, forward first; None if it is the same.
        forest: for values by substitution, which of them are subtracted from which; None if all are read directly.
    """

    forward: Sweep | None
    reverse: Sweep | None
    order: np.ndarray | None
    forest: Forest | None = None

    @property
    def sweeps(self) -> int:
        return sum(sweep.number for sweep in (self.forward, self.reverse) if sweep is not None)


def column_plan(structure: Structure, coloring: Coloring) -> Plan:
    """Every nonzero from the product with its column's colour."""
    m, _ = structure.shape
    color = coloring.colors[structure.cols]
    return Plan(Sweep(coloring.colors, coloring.number, m, color, structure.rows), None, None)


def row_plan(structure: Structure, coloring: Coloring) -> Plan:
    """Every nonzero from the product of its row's colour with the matrix."""
    _, n = structure.shape
    color = coloring.colors[structure.rows]
    return Plan(None, Sweep(coloring.colors, coloring.number, n, color, structure.cols), None)


def bicolored_plan(structure: Structure, coloring: Bicoloring) -> Plan:
    """The rows set apart from products with the transpose, the rest from products with the matrix."""
    m, n = structure.shape
    by_row = coloring.rows[structure.rows] >= 0
    inside, outside = np.flatnonzero(by_row), np.flatnonzero(~by_row)
    order = np.empty(structure.nnz, np.int64)
    order[outside] = np.arange(outside.size)
    order[inside] = outside.size + np.arange(inside.size)
    rows, cols = structure.rows, structure.cols
    forward = Sweep(coloring.columns, coloring.column_number, m, coloring.columns[cols[outside]], rows[outside])
    reverse = Sweep(coloring.rows, coloring.row_number, n, coloring.rows[rows[inside]], cols[inside])
    return Plan(forward, reverse, order)


def star_plan(structure: Structure, coloring: Coloring) -> Plan:
    """Every nonzero of a lower triangle read directly, from the product with its column's colour or with its row's.

    Where both would do, colours are chosen that some nonzero needs anyway; colours that none needs are dropped.

    Raises:
        AssertionError: some nonzero cannot be read: the colours are no star colouring.
    """
    n = structure.shape[0]
    colors, number = coloring.colors, max(coloring.number, 1)
    rows, cols = structure.rows, structure.cols
    off = np.flatnonzero(rows != cols)
    i, j = rows[off], cols[off]
    counts = neighbor_counts(colors, number, np.concatenate([i, j]), np.concatenate([j, i]))
    by_column, by_row = counts[: off.size] == 1, counts[off.size :] == 1
    assert (by_column | by_row).all() and (colors[i] != colors[j]).all()
    needed = np.zeros(number, bool)
    needed[colors[rows[rows == cols]]] = True
    needed[colors[j[~by_row]]] = True
    needed[colors[i[~by_column]]] = True
    while True:
        read_by_column = by_column & needed[colors[j]]
        open_ = np.flatnonzero(~read_by_column & ~(by_row & needed[colors[i]]))
        if not open_.size:
            break
        demand = np.bincount(colors[i[open_]], minlength=number) + np.bincount(colors[j[open_]], minlength=number)
        needed[int(np.argmax(demand))] = True
    color, place = colors[cols], rows.copy()
    other = off[~read_by_column]
    color[other], place[other] = colors[rows[other]], cols[other]
    renumbered = np.where(needed, np.cumsum(needed) - 1, -1)
    return Plan(Sweep(renumbered[colors] if n else colors, int(needed.sum()), n, renumbered[color], place), None, None)


def acyclic_plan(structure: Structure, coloring: Coloring) -> Plan:
    """Every nonzero of a lower triangle read in the product with a colour of either end, or solved for from there.

    Raises:
        AssertionError: the colours are no acyclic colouring.
    """
    colors, number = coloring.colors, max(coloring.number, 1)
    rows, cols = structure.rows, structure.cols
    off = np.flatnonzero(rows != cols)
    forest = forest_of(cols[off], rows[off], colors, number)
    assert forest is not None
    color, place = colors[cols], rows.copy()
    place[off], color[off] = forest.tails, colors[rows[off] + cols[off] - forest.tails]
    needed = np.zeros(number, bool)
    needed[color] = True
    renumbered = np.append(np.where(needed, np.cumsum(needed) - 1, -1), -1)
    n = structure.shape[0]
    sweep = Sweep(renumbered[colors], int(needed.sum()), n, renumbered[color], place)
    return Plan(sweep, None, None, forest.at(off))


# Evaluation


def _directions(sweep: Sweep, numbers: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Zeros and ones: the directions of some colours, [len(numbers), columns]."""
    rank = np.full(sweep.number + 1, -1)
    rank[numbers] = np.arange(numbers.size)
    row = rank[sweep.colors]  # colour -1 reads the last, which is -1
    taking_part = np.flatnonzero(row >= 0)
    directions = np.zeros((numbers.size, sweep.colors.size), dtype)
    directions[row[taking_part], taking_part] = 1
    return directions


def _fixed(array: np.ndarray) -> np.ndarray:
    """An array that no trace needs to copy."""
    array = np.ascontiguousarray(array)
    array = array.copy() if array.base is not None else array
    array.flags.writeable = False
    return array


def _products(product: Callable[..., list[Any]], directions: list[Any], count: int) -> Any:
    """The products of a linear function with a batch of directions, [count, length].

    One direction is not batched, which keeps products of matrices and vectors what they are.
    """
    if count == 1:
        out = joined(product(*[d[0] if d.shape[1:] else d[0][()] for d in directions]))
        return reshape(out, shape=(1, *out.shape))
    outs = vmap(product)(*directions)
    flat = [out if len(out.shape) == 2 else reshape(out, shape=(count, int(np.prod(out.shape[1:])))) for out in outs]
    return flat[0] if len(flat) == 1 else concatenate(flat, axis=1)


def _read(
    sweep: Sweep, product: Callable[..., list[Any]], split: Callable[[Any], list[Any]], dtype: np.dtype, width: int
) -> Any:
    """What one sweep reads, [reads]; its colours take turns if their directions would fill too much memory."""
    chunk = max(1, SWEEP_SIZE // max(width, 1))
    if sweep.number <= chunk:
        directions = _directions(sweep, np.arange(sweep.number), dtype)
        products = _products(product, [_fixed(d) for d in split(directions)], sweep.number)
        places = _fixed(sweep.color * sweep.length + sweep.place)
        return gather(reshape(products, shape=(sweep.number * sweep.length,)), places, axes=(0,), unique=True)
    return _read_in_turns(sweep, product, split, dtype, chunk)


def _read_in_turns(
    sweep: Sweep, product: Callable[..., list[Any]], split: Callable[[Any], list[Any]], dtype: np.dtype, chunk: int
) -> Any:
    """The same in a loop over groups of colours that read about equally many nonzeros each."""
    turns = -(-sweep.number // chunk)
    size = -(-sweep.number // turns)
    by_reads = np.argsort(-np.bincount(sweep.color, minlength=sweep.number), kind="stable")
    turn, rank = np.empty(sweep.number, np.int64), np.empty(sweep.number, np.int64)
    turn[by_reads], rank[by_reads] = np.arange(sweep.number) % turns, np.arange(sweep.number) // turns
    group = turn[sweep.color]
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(turns + 1))
    longest = int(np.diff(starts).max())
    within = np.arange(order.size) - starts[group[order]]
    places = np.zeros((turns, longest), np.int64)
    places[group[order], within] = (rank[sweep.color] * sweep.length + sweep.place)[order]
    source = np.empty(order.size, np.int64)
    source[order] = group[order] * longest + within
    member = np.append(turn, -1)[sweep.colors], np.append(rank, -1)[sweep.colors]
    # A direction is made where it is used, from the group and rank of each column: [size, columns] at a time.
    ranks = _fixed(np.where(member[0] >= 0, member[1], -1))
    turns_of = _fixed(member[0])
    lines = _fixed(np.arange(size)[:, None])

    def step(state: Any) -> Any:
        number, where = state
        directions = ((lines == ranks) & (turns_of == number)).astype(dtype)
        products = _products(product, split(directions), size)
        return gather(reshape(products, shape=(size * sweep.length,)), where, axes=(0,), unique=False)

    parts = map_over(step, (_fixed(np.arange(turns)), _fixed(places)))
    return gather(reshape(parts, shape=(turns * longest,)), _fixed(source), axes=(0,), unique=True)


def _width(program: FlatProgram) -> int:
    """How many numbers one direction holds at once, at most."""
    return max(program.n, program.m, program.cost.peak // 8)


def evaluate_jacobian(program: FlatProgram, plan: Plan, leaves: list[Any]) -> Any:
    """The values of the Jacobian's structure, under the current trace.

    Args:
        leaves: the program's inputs.
    """
    x, rest = leaves[: program.count], leaves[program.count :]
    dtype = np.result_type(*[a.dtype for a in program.in_avals[: program.count]])
    parts = []
    width = _width(program)

    def function(*values: Any) -> list[Any]:
        return program(*values, *rest)

    if plan.forward is not None and plan.forward.number:
        _, push = linearize(function, *x)
        typed = _typed(program.split, [a.dtype for a in program.in_avals[: program.count]])
        parts.append(_read(plan.forward, push, typed, dtype, width))
    if plan.reverse is not None and plan.reverse.number:
        _, pull = vjp(function, *x)
        parts.append(_read(plan.reverse, lambda *bars: list(pull(list(bars))), _split_outputs(program), dtype, width))
    return _ordered(parts, plan, dtype)


def evaluate_hessian(program: FlatProgram, plan: Plan, leaves: list[Any]) -> Any:
    """The values of the lower triangle of a scalar program's Hessian, forward over reverse, under the current trace.

    Args:
        leaves: the program's inputs.
    """
    x, rest = leaves[: program.count], leaves[program.count :]
    dtypes = [a.dtype for a in program.in_avals[: program.count]]
    dtype = np.result_type(*dtypes)
    if plan.forward is None or not plan.forward.number:
        return np.zeros(0, dtype)
    gradient = grad(lambda *values: program(*values, *rest)[0], argnums=tuple(range(program.count)))
    _, push = linearize(lambda *values: list(gradient(*values)), *x)
    # The gradient's sweep and its derivative hold at least twice what the function does.
    parts = [_read(plan.forward, push, _typed(program.split, dtypes), dtype, 2 * _width(program))]
    return _ordered(parts, plan, dtype)


def _typed(split: Callable[[Any], list[Any]], dtypes: list[np.dtype]) -> Callable[[Any], list[Any]]:
    """A split whose parts have dtypes of their own."""

    def split_typed(vectors: Any) -> list[Any]:
        return [p if p.dtype == d else p.astype(d) for p, d in zip(split(vectors), dtypes, strict=True)]

    return split_typed


def _split_outputs(program: FlatProgram) -> Callable[[Any], list[Any]]:
    """Vectors of m numbers as arrays like the outputs."""

    def split(vectors: Any) -> list[Any]:
        parts, start = [], 0
        for aval in program.out_avals:
            part = vectors[:, start : start + aval.size].astype(aval.dtype)
            parts.append(reshape(part, shape=(part.shape[0], *aval.shape)))
            start += aval.size
        return parts

    return split


def _ordered(parts: list[Any], plan: Plan, dtype: np.dtype) -> Any:
    if not parts:
        return np.zeros(0, dtype)
    values = parts[0] if len(parts) == 1 else concatenate(parts)
    if plan.order is not None:
        values = gather(values, _fixed(plan.order), axes=(0,), unique=True)
    return values if plan.forest is None else substitute(values, plan.forest)
