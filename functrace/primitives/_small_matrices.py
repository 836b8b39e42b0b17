"""How functions of stacks of small real matrices are compiled: without calls, in registers, several matrices at once.

The algorithms are LAPACK's: Gaussian elimination with partial pivoting, Cholesky's, substitution. What is singular to
rounding, and what has no factor, is left to NumPy, which says so or not: the code declines. See `core.lowering`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.lowering import Call

__all__ = ["adjugate", "adjugate_derivative", "cholesky", "inv", "slogdet", "solve", "triangular_solve"]

_LARGEST = 4

Rows = list[list[Any]]


def _suits(*avals: Any, **params: Any) -> bool:
    real = all(a.dtype.char in "fd" and a.size for a in avals)
    return real and avals[0].shape[-1] <= _LARGEST and avals[-1].shape[-1] <= _LARGEST


def _pointers(e: Any, base: str, position: int, size: int, lanes: int, dtype: np.dtype) -> str:
    """The addresses of an element in as many matrices of `size` elements each."""
    kind = e.blank(dtype).type
    steps = ", ".join(f"i64 {position + lane * size}" for lane in range(lanes))
    return e.pointer(f"getelementptr {kind}, ptr {base}, <{lanes} x i64> <{steps}>")


def _load(e: Any, base: str, shape: tuple[int, int], lanes: int, dtype: np.dtype) -> Rows:
    rows, columns = shape

    def one(k: int) -> Any:
        if lanes == 1:
            return e.load(e.offset(base, k, dtype), dtype)
        return e.gather(_pointers(e, base, k, rows * columns, lanes, dtype), dtype, lanes)

    return [[one(i * columns + j) for j in range(columns)] for i in range(rows)]


def _store(e: Any, base: str, values: Sequence[Any], lanes: int, dtype: np.dtype) -> None:
    for k, value in enumerate(values):
        if lanes == 1:
            e.store(value, e.offset(base, k, dtype))
        else:
            e.scatter(e.widened(value, lanes), _pointers(e, base, k, len(values), lanes, dtype))


def _stacks(formula: Callable[..., list[Any]]) -> Call:
    """`formula(e, *matrices, **params)`: the elements of each output from the rows of each operand."""

    def emit(c: Any, operands: list[Any], outs: list[Any], **params: Any) -> None:
        e = c.e
        arrays = [c.contiguous(c.materialise(o)) for o in operands]
        dtype = arrays[0].dtype
        count = math.prod(arrays[0].shape[:-2])
        sizes = [out.size // count for out in outs]

        def some(first: str, lanes: int) -> None:
            def base(array: Any, size: int) -> str:
                return e.offset(array.start(e), e.index(f"mul i64 {first}, {size}"), dtype)

            matrices = [_load(e, base(a, math.prod(a.shape[-2:])), a.shape[-2:], lanes, dtype) for a in arrays]
            for out, size, values in zip(outs, sizes, formula(e, *matrices, **params), strict=True):
                _store(e, base(out, size), values, lanes, dtype)

        lanes = e.target.lanes(8 * dtype.itemsize)
        full = count // lanes if lanes > 1 else 0
        if full:
            e.counted(full, lambda i: some(e.index(f"mul i64 {i}, {lanes}"), lanes))
        if count > full * lanes:
            e.counted(count - full * lanes, lambda i: some(e.index(f"add i64 {i}, {full * lanes}"), 1))
        c.work += float(count * sum(a.size // count for a in arrays) * arrays[0].shape[-1])

    return Call(_suits, emit, True)


# elimination


def _size(e: Any, x: Any) -> Any:
    return e.intrinsic("fabs", x)


def _eliminate(e: Any, rows: Rows, n: int) -> tuple[list[Any], Any]:
    """Makes the first n columns an upper triangle, in place; gives the inverse pivots (0 for 0) and the sign.

    The last element of a row is not eliminated, but goes where the row goes.
    """
    inverses = []
    sign = e.constant(1, rows[0][0].dtype)
    for j in range(n):
        for i in range(j + 1, n):
            larger = _size(e, rows[i][j]) > _size(e, rows[j][j])
            sign = e.select(larger, -sign, sign)
            pairs = list(zip(rows[j][j:], rows[i][j:], strict=True))
            rows[j][j:] = [e.select(larger, y, x) for x, y in pairs]
            rows[i][j:] = [e.select(larger, x, y) for x, y in pairs]
        pivot = rows[j][j]
        inverse = 1.0 / pivot
        inverses.append(inverse)
        safe = e.select(pivot == 0.0, 0.0, inverse)
        for i in range(j + 1, n):
            factor = rows[i][j] * safe
            rows[i][j + 1 : -1] = [
                x - factor * y for x, y in zip(rows[i][j + 1 : -1], rows[j][j + 1 : -1], strict=True)
            ]
    return inverses, sign


def _inverted(e: Any, rows: Rows, n: int) -> tuple[list[Any], Any]:
    """Solves systems given as the rows of the matrix followed by those of the right-hand sides.

    Returns:
        The elements of the solution, and the determinant.
    """
    noise = 16 * float(np.finfo(rows[0][0].dtype).eps)
    for row in rows:
        row.append(functools.reduce(lambda x, y: e.select(x > y, x, y), [_size(e, x) for x in row[:n]]))
    inverses, det = _eliminate(e, rows, n)
    for j in range(n):
        # What is left of the row after all that was subtracted; NaN compares false.
        e.refuse(~(_size(e, rows[j][j]) > noise * rows[j][-1]))
        det = det * rows[j][j]
    answers: Rows = []
    for i in reversed(range(n)):
        right = rows[i][n:-1]
        for j, known in enumerate(answers):
            factor = rows[i][n - 1 - j]
            right = [x - factor * y for x, y in zip(right, known, strict=True)]
        answers.append([x * inverses[i] for x in right])
    return [x for row in reversed(answers) for x in row], det


def _solve(e: Any, a: Rows, b: Rows) -> list[Any]:
    return [_inverted(e, [[*x, *y] for x, y in zip(a, b, strict=True)], len(a))[0]]


def _beside_eye(e: Any, a: Rows) -> Rows:
    n, dtype, lanes = len(a), a[0][0].dtype, a[0][0].lanes
    return [[*row, *(e.constant(float(i == j), dtype, lanes) for j in range(n))] for i, row in enumerate(a)]


def _inv(e: Any, a: Rows) -> list[Any]:
    return [_inverted(e, _beside_eye(e, a), len(a))[0]]


def _sum_of_products(x: Sequence[Any], y: Sequence[Any]) -> Any:
    first, *rest = zip(x, y, strict=True)
    return functools.reduce(lambda total, pair: total + pair[0] * pair[1], rest, first[0] * first[1])


def _accurate(e: Any, a: Rows) -> tuple[Rows, Any]:
    """The inverse and the determinant, where these are accurate; else the code declines."""
    n, flat = len(a), [x for row in a for x in row]
    inverse, det = _inverted(e, _beside_eye(e, a), n)
    limits = np.finfo(det.dtype)
    squares = _sum_of_products(flat, flat) * _sum_of_products(inverse, inverse)
    e.refuse(~(squares < float(limits.eps) ** -0.8))
    size = _size(e, det)
    e.refuse(~((size > float(limits.tiny)) & (size < float(limits.max))))
    return [inverse[n * i : n * i + n] for i in range(n)], det


def _adjugate(e: Any, a: Rows) -> list[Any]:
    inverse, det = _accurate(e, a)
    return [[det * x for row in inverse for x in row]]


def _times(x: Rows, y: Rows) -> Rows:
    columns = list(zip(*y, strict=True))
    return [[_sum_of_products(row, column) for column in columns] for row in x]


def _adjugate_derivative(e: Any, a: Rows, t: Rows) -> list[Any]:
    """det(a) (tr(k t) k - k t k) for the inverse k."""
    inverse, det = _accurate(e, a)
    change = _times(inverse, t)
    trace = functools.reduce(lambda x, y: x + y, [change[i][i] for i in range(len(a))])
    second = _times(change, inverse)
    rows = zip(inverse, second, strict=True)
    return [[det * (trace * x - y) for row, other in rows for x, y in zip(row, other, strict=True)]]


def _slogdet(e: Any, a: Rows) -> list[Any]:
    n = len(a)
    rows = [[*row, e.constant(0, row[0].dtype, row[0].lanes)] for row in a]
    _, sign = _eliminate(e, rows, n)
    pivots = [rows[j][j] for j in range(n)]
    for pivot in pivots:
        sign = e.select(pivot == 0.0, 0.0, e.select(pivot < 0.0, -sign, sign))
    return [[sign], [sum([e.math("log", _size(e, pivot)) for pivot in pivots[1:]], e.math("log", _size(e, pivots[0])))]]


# triangles


def _cholesky(e: Any, a: Rows) -> list[Any]:
    n, zero = len(a), e.constant(0, a[0][0].dtype, a[0][0].lanes)
    out = [[zero] * n for _ in range(n)]
    for j in range(n):
        rest = functools.reduce(lambda x, y: x - y * y, out[j][:j], a[j][j])
        e.refuse(~(rest > 0.0))
        out[j][j] = e.intrinsic("sqrt", rest)
        inverse = 1.0 / out[j][j]
        for i in range(j + 1, n):
            pairs = zip(out[i][:j], out[j][:j], strict=True)
            out[i][j] = functools.reduce(lambda x, pair: x - pair[0] * pair[1], pairs, a[i][j]) * inverse
    return [[x for row in out for x in row]]


def _triangular_solve(e: Any, a: Rows, b: Rows, *, lower: bool, unit: bool) -> list[Any]:
    n = len(a)
    found: dict[int, list[Any]] = {}
    for i in range(n) if lower else reversed(range(n)):
        right = b[i]
        for j, known in found.items():
            right = [x - a[i][j] * y for x, y in zip(right, known, strict=True)]
        if not unit:
            e.refuse(a[i][i] == 0.0)
            inverse = 1.0 / a[i][i]
            right = [x * inverse for x in right]
        found[i] = right
    return [[x for i in range(n) for x in found[i]]]


solve = _stacks(_solve)
inv = _stacks(_inv)
adjugate = _stacks(_adjugate)
adjugate_derivative = _stacks(_adjugate_derivative)
slogdet = _stacks(_slogdet)
cholesky = _stacks(_cholesky)
triangular_solve = _stacks(_triangular_solve)
