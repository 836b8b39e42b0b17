"""Elements picked one by one in a program and put together again, read in one piece instead.

A program that a Python loop leaves picks `u[0]`, `u[1]` ... from an array, and joins what the steps give. Where each
element comes from is asked of the primitives that move elements (`core.structure.Moves`), on arrays of their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.core.ir import Atom, ClosedJaxpr, Eqn, Literal, Var, run_eqns
from functrace.core.structure import Moves, numbered
from functrace.core.trace import EVAL
from functrace.core.types import aval_of
from functrace.interpreters.staging import StagingTrace, stage
from functrace.primitives.families import reshape
from functrace.primitives.indexing import gather
from functrace.primitives.shape import concatenate, reverse, slice_, transpose
from functrace.util import replays

__all__ = ["flat", "join", "moved", "read", "sources", "value_of"]

_PIECES = 8  # boxes that are read and joined; more are gathered element by element
_WIDE = 8  # operands, from which an operation that joins them is looked at


def moved(eqn: Eqn, elements: Sequence[np.ndarray]) -> np.ndarray | None:
    """Which elements the output of an equation has, given the positive numbers of the operands' elements; else None.

    None also where an output element is a constant that the operation fills in.
    """
    if eqn.primitive.sparsity is None or len(eqn.outvars) != 1:
        return None
    trace = StagingTrace(EVAL)
    unknown: list[Any] = [trace.new_input(a.aval) for a in eqn.invars]
    structure = eqn.primitive.sparsity(unknown, [v.aval for v in eqn.outvars], **eqn.params)[0]
    if not isinstance(structure, Moves):
        return None
    found = np.asarray(structure.function(*elements))
    return found if found.size and found.min() > 0 else None


def flat(x: Any) -> Any:
    """The array with one axis."""
    return x if aval_of(x).ndim == 1 else reshape(x, shape=(aval_of(x).size,))


def read(line: Any, positions: np.ndarray) -> Any:
    """The elements of a one-dimensional array at known positions, as an array of the positions' shape."""
    order = positions.ravel()
    pieces: list[Any] = []
    at = 0
    while at < order.size:
        found, count = _box(line, order[at:])
        if found is None or len(pieces) == _PIECES:
            pieces = [gather(line, order, axes=(0,), unique=np.unique(order).size == order.size)]
            break
        pieces.append(found)
        at += count
    joined = pieces[0] if len(pieces) == 1 else concatenate(*pieces, axis=0)
    return joined if positions.ndim == 1 else reshape(joined, shape=positions.shape)


def _box(line: Any, order: np.ndarray) -> tuple[Any, int]:
    """The longest start of `order` that runs through rows of equal steps, read from an array; and its length.

    None if the array cannot be cut so.
    """
    inner = int(order[1] - order[0]) if order.size > 1 else 1
    steps = np.flatnonzero(np.diff(order) != inner)
    columns = int(steps[0]) + 1 if steps.size else order.size
    first, size = int(order[0]), aval_of(line).size
    if columns == order.size:
        return (_strided(line, first, inner, columns), columns) if inner > 0 else (None, 0)
    outer = int(order[columns] - first)
    whole = order[: order.size // columns * columns].reshape(-1, columns)
    if inner < 0:
        box, count = _box(line, whole[:, ::-1].ravel())
        if box is None or count % columns:
            return None, 0
        return reshape(reverse(reshape(box, shape=(count // columns, columns)), axes=(1,)), shape=(count,)), count
    expected = first + outer * np.arange(len(whole))[:, None] + inner * np.arange(columns)
    wrong = np.flatnonzero((whole != expected).any(axis=1))
    rows = int(wrong[0]) if wrong.size else len(whole)
    if rows == 1:
        # What ends one run may begin the rows that follow.
        count = columns - 1 if columns > 2 else columns
        return (_strided(line, first, inner, count), count) if inner > 0 else (None, 0)
    if inner > 0 and outer >= inner * columns and first + rows * outer <= size:
        box = reshape(_strided(line, first, 1, rows * outer), shape=(rows, outer))
        box = slice_(box, starts=(0, 0), stops=(rows, inner * (columns - 1) + 1), steps=(1, inner))
    elif outer > 0 and inner >= outer * rows and first + columns * inner <= size:
        box = reshape(_strided(line, first, 1, columns * inner), shape=(columns, inner))
        box = slice_(box, starts=(0, 0), stops=(columns, outer * (rows - 1) + 1), steps=(1, outer))
        box = transpose(box, permutation=(1, 0))
    else:
        return None, 0
    return reshape(box, shape=(rows * columns,)), rows * columns


def _strided(line: Any, first: int, step: int, count: int) -> Any:
    stop = first + step * (count - 1) + 1
    if (first, step, stop) == (0, 1, aval_of(line).size):
        return line
    return slice_(line, starts=(first,), stops=(stop,), steps=(step,))


def sources(selections: Sequence[Eqn]) -> dict[Var, tuple[Var, np.ndarray]]:
    """For each value that selections pick, the value that it comes from and its elements there, numbered from 0."""
    found: dict[Var, tuple[Var, np.ndarray]] = {}
    numbers: dict[Var, np.ndarray] = {}
    for eqn in selections:
        if len(eqn.invars) != 1 or not isinstance(eqn.invars[0], Var):
            continue
        var = eqn.invars[0]
        source, elements = found.get(var, (var, None))
        if elements is None:
            if source not in numbers:
                numbers[source] = numbered(source.aval.shape) - 1
            elements = numbers[source]
        picked = moved(eqn, [elements + 1])
        if picked is not None and eqn.outvars[0].aval.dtype == source.aval.dtype:
            found[eqn.outvars[0]] = source, picked - 1
    return found


def join(closed: ClosedJaxpr) -> ClosedJaxpr:
    """The program with what is picked from one array in many pieces and put together read in one piece."""
    jaxpr = closed.jaxpr
    wide = [e for e in jaxpr.eqns if len(e.invars) >= _WIDE and all(isinstance(a, Var) for a in e.invars)]
    if not wide:
        return closed
    makers = {e.outvars[0]: e for e in jaxpr.eqns if e.params and len(e.invars) == 1}
    needed: set[int] = set()
    for eqn in wide:
        for atom in eqn.invars:
            while isinstance(atom, Var) and atom in makers and id(makers[atom]) not in needed:
                needed.add(id(makers[atom]))
                atom = makers[atom].invars[0]
    found = sources([e for e in jaxpr.eqns if id(e) in needed])
    readings: dict[int, tuple[Var, np.ndarray]] = {}
    for eqn in wide:
        parts = [found.get(a) for a in eqn.invars]  # type: ignore[arg-type]
        known = [p for p in parts if p is not None]
        if len(known) == len(parts) and len({source for source, _ in known}) == 1:
            positions = moved(eqn, [elements + 1 for _, elements in known])
            if positions is not None and eqn.outvars[0].aval.dtype == known[0][0].aval.dtype:
                readings[id(eqn)] = known[0][0], positions - 1
    if not readings:
        return closed

    @replays
    def run(*inputs: Any) -> list[Any]:
        values: dict[Var, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*closed.consts, *inputs), strict=True))
        for eqn in jaxpr.eqns:
            if id(eqn) in readings:
                source, positions = readings[id(eqn)]
                values[eqn.outvars[0]] = read(flat(values[source]), positions)
            else:
                run_eqns([(eqn, [])], values)
        return [value_of(a, values) for a in jaxpr.outvars]

    return stage(run, closed.in_avals)


def value_of(atom: Atom, values: dict[Var, Any]) -> Any:
    """The value of an atom."""
    return atom.val if isinstance(atom, Literal) else values[atom]
