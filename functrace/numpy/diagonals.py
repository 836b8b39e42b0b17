"""Diagonals and triangles of matrices: slices of the flattened matrix, so that no gather is needed."""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.errors import ShapeError
from functrace.numpy._axes import as_index, normalize_axis
from functrace.numpy._promotion import as_array, broadcast_operands
from functrace.numpy._structural import cut, flat, move_axis, structural, view_of
from functrace.numpy.shape import convert_to
from functrace.primitives.elementwise import select
from functrace.primitives.families import reshape as reshape_primitive
from functrace.primitives.shape import full
from functrace.primitives.shape import pad as pad_primitive
from functrace.primitives.shape import stack as stack_primitive
from functrace.util import user_line

__all__ = ["diag", "diagflat", "diagonal", "tril", "triu", "vander"]


def last_diagonal(x: Any, offset: int) -> Any:
    """A diagonal of the matrices in the last two axes."""
    *batch, rows, columns = x.shape
    ndim = len(x.shape)
    if offset > 0:
        x, columns = cut(x, ndim - 1, min(offset, columns), columns), max(columns - offset, 0)
    elif offset < 0:
        x, rows = cut(x, ndim - 2, min(-offset, rows), rows), max(rows + offset, 0)
    length = min(rows, columns)
    x = x if rows == length else cut(x, ndim - 2, 0, length)
    line = reshape_primitive(x, shape=(*batch, length * columns))
    return cut(line, ndim - 2, 0, (length - 1) * (columns + 1) + 1 if length else 0, columns + 1)


@structural(np.diagonal)
def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """A diagonal of the matrices in two axes, as the last axis; read-only, as NumPy's."""
    x = as_array(a)
    first, second = normalize_axis(axis1, x.ndim, "axis1"), normalize_axis(axis2, x.ndim, "axis2")
    if first == second:
        raise ShapeError(
            "numpy.diagonal needs two different axes",
            where=user_line(),
            got=f"axis1={axis1}, axis2={axis2}",
            remedy="name the two axes of the matrix",
        )
    k = as_index(offset, "offset")

    def forward(x: Any) -> Any:
        return last_diagonal(move_axis(move_axis(x, first, x.ndim - 1), second - (second > first), x.ndim - 1), k)

    return view_of(a, forward(x), forward)


def _embed(v: Any, k: int) -> Any:
    """The matrix whose `k`-th diagonal is the vector."""
    length = v.shape[0]
    size = length + abs(k)
    if not length:
        return full(shape=(size, size), value=0, dtype=v.dtype)
    start = k if k >= 0 else -k * size
    line = (length - 1) * (size + 1) + 1
    spread = pad_primitive(v, low=(start,), high=(size * size - start - line,), interior=(size,))
    return reshape_primitive(spread, shape=(size, size))


@structural(np.diag)
def diag(v: Any, k: int = 0) -> Any:
    """A diagonal of a matrix, or the matrix with a diagonal."""
    x = as_array(v)
    offset = as_index(k, "k")
    if x.ndim == 1:
        return _embed(x, offset)
    if x.ndim != 2:
        raise ShapeError(
            "numpy.diag takes a vector or a matrix",
            where=user_line(),
            got=f"shape {x.shape}",
            remedy="use numpy.diagonal for the diagonals of a stack of matrices, numpy.diagflat to flatten first",
        )
    return diagonal(v, offset)


@structural(np.diagflat)
def diagflat(v: Any, k: int = 0) -> Any:
    """The matrix whose diagonal is the flattened array."""
    return _embed(flat(as_array(v)), as_index(k, "k"))


def _triangle(m: Any, k: Any, keep_lower: bool) -> Any:
    """Zeros above the `k`-th diagonal, or below it."""
    x = as_array(m)
    if not x.ndim:
        raise ShapeError(
            "numpy.tril and numpy.triu need a matrix", where=user_line(), got="a scalar", remedy="add two axes"
        )
    rows, columns = x.shape[-2:] if x.ndim > 1 else (x.shape[0], x.shape[0])
    offset = as_index(k, "k")
    mask = np.tri(rows, columns, offset, bool) if keep_lower else ~np.tri(rows, columns, offset - 1, bool)
    return select(*broadcast_operands([mask, x, x.dtype.type(0)]))


@structural(np.tril)
def tril(m: Any, k: int = 0) -> Any:
    """The lower triangle: zeros above the `k`-th diagonal."""
    return _triangle(m, k, True)


@structural(np.triu)
def triu(m: Any, k: int = 0) -> Any:
    """The upper triangle: zeros below the `k`-th diagonal."""
    return _triangle(m, k, False)


@structural(np.vander)
def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    """The matrix of powers of a vector, by repeated multiplication."""
    base = as_array(x)
    if base.ndim != 1:
        raise ShapeError(
            "numpy.vander takes a vector",
            where=user_line(),
            got=f"shape {base.shape}",
            remedy="flatten it with x.ravel()",
        )
    count = base.shape[0] if N is None else as_index(N, "N")
    base = convert_to(base, np.promote_types(base.dtype, int), copy=False)
    if count <= 0:
        return full(shape=(base.shape[0], 0), value=0, dtype=base.dtype)
    powers = [full(shape=base.shape, value=1, dtype=base.dtype)]
    for _ in range(count - 1):
        powers.append(base if len(powers) == 1 else powers[-1] * base)
    return stack_primitive(*(powers if increasing else powers[::-1]), axis=1)
