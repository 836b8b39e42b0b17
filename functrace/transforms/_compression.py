"""Sparse Jacobians in few sweeps: columns (or rows) that share no row (or column) are swept together.

A. Curtis, M. Powell and J. Reid, On the estimation of sparse Jacobian matrices (1974). The pattern is proved from the
linear program, whatever the numbers in it are, and holds as long as its wiring, parameters and indices stay the same.
The colouring comes from `functrace.sparse`, which stands on a floor below and registers it here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from functrace.core.ir import Atom, ClosedJaxpr, Eqn, Jaxpr, Literal, Var, is_scalar
from functrace.core.trace import Tracer
from functrace.core.types import ShapedArray
from functrace.errors import FunctraceError
from functrace.interpreters.linearize import LinearProgram
from functrace.interpreters.sparsity import jacobian_structure
from functrace.interpreters.transpose import backward_pass
from functrace.transforms._sweeps import sweep

__all__ = ["Compression", "compression_of", "form_compressed", "use_coloring"]

#: `color(rows, cols, shape)` gives a colour per column such that columns of one colour share no row; -1 if empty.
Color = Callable[[np.ndarray, np.ndarray, tuple[int, int]], tuple[np.ndarray, int]]
_colorings: list[Color] = []
_REMEMBERED = 128
_compressions: dict[Any, Compression | None] = {}


class Compression(NamedTuple):
    """How to form a sparse Jacobian.

    Attributes:
        mode: "forward" when columns are coloured, "reverse" when rows are.
        colors: the colour of each column (or row).
        number: how many colours there are.
        rows, cols: where the nonzeros are.
    """

    mode: str
    colors: np.ndarray
    number: int
    rows: np.ndarray
    cols: np.ndarray


def use_coloring(color: Color) -> None:
    """Give the function that colours columns."""
    _colorings[:] = [color]


def compression_of(
    signature: Any,
    eqns: Sequence[Eqn],
    invars: Sequence[Var],
    outvars: Sequence[Var | None],
    avals: Sequence[ShapedArray],
) -> Compression | None:
    """The compression of a linear program's Jacobian; None where the pattern is not known or as good as full.

    Args:
        signature: the program's types and wiring.
        avals: the types of the outputs.
    """
    if not _colorings:
        return None
    key = _key(signature, eqns)
    if key is None:
        return None
    if key not in _compressions:
        if len(_compressions) >= _REMEMBERED:
            _compressions.clear()
        try:
            _compressions[key] = _compress(eqns, invars, outvars, avals)
        except FunctraceError:
            _compressions[key] = None
    return _compressions[key]


def _key(signature: Any, eqns: Sequence[Eqn]) -> Any:
    """What a pattern depends on: wiring, parameters, and constants that are no floating point numbers."""
    parts = [signature]
    for eqn in eqns:
        for name, value in eqn.params.items():
            if callable(value) or isinstance(value, (Jaxpr, ClosedJaxpr)):
                return None
            parts.append((name, value))
        for atom in eqn.invars:
            if isinstance(atom, Literal) and not _is_weight(atom):
                value = np.asarray(atom.val) if not isinstance(atom.val, Tracer) else None
                if value is None:
                    return None
                parts.append((value.dtype.str, value.shape, value.tobytes()))
    key = tuple(parts)
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _is_weight(atom: Literal) -> bool:
    """Whether a constant is an array of floating point numbers, any of which the pattern allows for."""
    return atom.aval.dtype.kind == "f" and not is_scalar(atom.val)


def _compress(
    eqns: Sequence[Eqn], invars: Sequence[Var], outvars: Sequence[Var | None], avals: Sequence[ShapedArray]
) -> Compression | None:
    weights: list[Var] = []
    constants: list[Var] = []
    values: list[Any] = []

    def variable(atom: Atom) -> Atom:
        if isinstance(atom, Var) or is_scalar(atom.val):
            return atom
        var = Var(atom.aval)
        if _is_weight(atom):
            weights.append(var)
        else:
            constants.append(var)
            values.append(atom.val)
        return var

    body = [Eqn(e.primitive, [variable(a) for a in e.invars], e.outvars, e.params, e.source) for e in eqns]
    live: list[Atom] = [v for v in outvars if v is not None]
    closed = ClosedJaxpr(Jaxpr(constants, [*weights, *invars], body, live), values)
    found = iter(jacobian_structure(closed, [*(False for _ in weights), *(True for _ in invars)]))
    rows, cols, start = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for var, aval in zip(outvars, avals, strict=True):
        if var is not None:
            starts, indices = next(found)
            rows.append(np.repeat(np.arange(start, start + aval.size), np.diff(starts)))
            cols.append(np.asarray(indices, np.int64))
        start += aval.size
    row, col = np.concatenate(rows), np.concatenate(cols)
    n = sum(v.aval.size for v in invars)
    if 4 * row.size > start * n:
        return None
    color = _colorings[0]
    by_columns, columns = color(row, col, (start, n))
    by_rows, lines = color(col, row, (n, start))
    if columns <= 1.5 * lines:
        return Compression("forward", by_columns, columns, row, col)
    return Compression("reverse", by_rows, lines, row, col)


def form_compressed(
    found: Compression,
    eqns: list[Eqn],
    invars: Sequence[Var],
    outvars: Sequence[Var | None],
    in_avals: Sequence[ShapedArray],
    out_avals: Sequence[ShapedArray],
) -> np.ndarray | None:
    """The Jacobian as a dense matrix; None if a number in it is not finite, which may have spread."""
    forward = found.mode == "forward"
    given, got = (in_avals, out_avals) if forward else (out_avals, in_avals)
    seeds = np.zeros((found.number, sum(a.size for a in given)), given[0].dtype)
    used = np.flatnonzero(found.colors >= 0)
    seeds[found.colors[used], used] = 1
    directions, start = [], 0
    for aval in given:
        directions.append(seeds[:, start : start + aval.size].reshape(-1, *aval.shape))
        start += aval.size
    if forward:
        swept = sweep(LinearProgram(list(invars), eqns, list(outvars)), directions)
    else:
        swept = sweep(lambda *bars: backward_pass(eqns, invars, outvars, bars), directions)
    blocks = [
        np.zeros((found.number, a.size), a.dtype) if s is None else np.reshape(s, (found.number, a.size))
        for s, a in zip(swept, got, strict=True)
    ]
    compressed = blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)
    if not np.isfinite(compressed).all():
        return None
    whole = np.zeros((sum(a.size for a in out_avals), sum(a.size for a in in_avals)), out_avals[0].dtype)
    if forward:
        whole[found.rows, found.cols] = compressed[found.colors[found.cols], found.rows]
    else:
        whole[found.rows, found.cols] = compressed[found.colors[found.rows], found.cols]
    return whole
