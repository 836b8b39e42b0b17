"""How functions of matrices are compiled as calls of LAPACK, with the routines that NumPy calls; see `core.lowering`.

`c` is the compiler's context. Arrays lie in rows, LAPACK's matrices in columns. So a matrix that a routine overwrites
is copied into columns, as NumPy does it, and pivots, signs and ranks come out as NumPy's; but right-hand sides stay in
rows: there they are their own transposes, for which triangular systems are solved from the right.

Where a routine fails (a singular matrix, no convergence) the code declines, and NumPy raises its error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.lowering import Call

__all__ = [
    "INDEX", "adjugate", "adjugate_derivative", "cholesky", "columns", "each", "element", "has_results", "inv",
    "is_complex", "real_dtype", "routine", "slogdet", "solve", "suits", "triangular_solve", "turned",
]  # fmt: skip

INDEX = np.dtype(np.int64)


def suits(*avals: Any, **params: Any) -> bool:
    return all(a.dtype.char in "fdFD" for a in avals)


def has_results(a: Any) -> bool:
    """Not a matrix without elements, which has a determinant."""
    return suits(a) and 0 not in a.shape[-2:]


def real_dtype(dtype: np.dtype) -> np.dtype:
    return np.empty(0, dtype).real.dtype


def is_complex(dtype: np.dtype) -> bool:
    return dtype.kind == "c"


def each(c: Any, operands: Sequence[Any], outs: Sequence[Any], body: Callable[..., None]) -> None:
    """`body(*operands, *outs)` for each matrix of the stacks."""
    arrays = [*operands, *outs]

    def one(positions: list[str]) -> None:
        body(*[c.behind(array, positions) for array in arrays])

    c.over(arrays[0].shape[:-2], one)


def turned(c: Any, matrix: Any) -> Any:
    return c.permuted(matrix, (1, 0))


def columns(c: Any, rows: int, columns: int, dtype: np.dtype) -> Any:
    """A new array for a matrix in columns, seen as its transpose in rows."""
    return c.array((columns, rows), dtype)


def element(c: Any, array: Any, *positions: str) -> str:
    """The address of an element."""
    return c.part(array, positions)


# factors with exchanged rows


def _exchange(c: Any, pivots: Any, x: Any) -> None:
    """Exchanges rows of a contiguous matrix as a factorization did."""
    e = c.e
    rows, width = x.shape

    def step(i: str) -> None:
        pivot = e.convert(e.load(element(c, pivots, i), pivots.dtype), INDEX) - 1
        c.blas("swap", x.dtype, width, element(c, x, i), 1, element(c, x, pivot.name), 1)

    e.counted(rows, step)


def _factored(c: Any, a: Any, factors: Any, pivots: Any, info: Any) -> None:
    """P L U = a."""
    n = a.shape[0]
    c.copy(turned(c, a), factors)
    c.blas("getrf", a.dtype, n, n, factors.pointer, n, pivots.pointer, info.pointer, flops=2 * n**3 / 3)


def _solved(c: Any, factors: Any, pivots: Any, info: Any, x: Any) -> None:
    """Solves for the right-hand sides that stand in the rows of x, which is contiguous."""
    n, k = x.shape
    pointer, dtype, work = x.start(c.e), x.dtype, float(n * n * k)
    if k == 1:
        c.blas("getrs", dtype, "N", n, 1, factors.pointer, n, pivots.pointer, pointer, n, info.pointer, flops=2 * work)
        return
    _exchange(c, pivots, x)
    for triangle, unit in (("L", "U"), ("U", "N")):
        c.blas("trsm", dtype, "R", triangle, "T", unit, k, n, 1.0, factors.pointer, n, pointer, k, flops=work)


def _emit_solve(c: Any, operands: list[Any], outs: list[Any]) -> None:
    (n, _), dtype = outs[0].shape[-2:], outs[0].dtype
    factors, pivots, info = columns(c, n, n, dtype), c.integers(n), c.integers(1)

    def one(a: Any, b: Any, x: Any) -> None:
        _factored(c, a, factors, pivots, info)
        c.expect_zero(info)
        c.copy(b, x)
        _solved(c, factors, pivots, info, x)

    each(c, [c.materialise(o) for o in operands], outs, one)


def _emit_inv(c: Any, operands: list[Any], outs: list[Any]) -> None:
    n, dtype = outs[0].shape[-1], outs[0].dtype
    factors, pivots, info = columns(c, n, n, dtype), c.integers(n), c.integers(1)
    eye = c.constant(np.eye(n, dtype=dtype))

    def one(a: Any, x: Any) -> None:
        _factored(c, a, factors, pivots, info)
        c.expect_zero(info)
        c.copy(eye, x)
        _solved(c, factors, pivots, info, x)

    each(c, [c.materialise(o) for o in operands], outs, one)


# determinants


def _determinant(c: Any, factors: Any, pivots: Any) -> tuple[Any, Any]:
    """The sign and the logarithm of the modulus of the product of the diagonal, with the exchanges."""
    e = c.e
    n, dtype = factors.shape[0], factors.dtype
    real = real_dtype(dtype)

    def step(state: list[Any]) -> tuple[list[Any], Any]:
        i, sign, total = state
        u = e.load(element(c, factors, i.name, i.name), dtype)
        exchanged = e.convert(e.load(element(c, pivots, i.name), pivots.dtype), INDEX) != i + 1
        sign = e.select(exchanged, -sign, sign)
        if is_complex(dtype):
            re, im = u.parts
            size = e.outside("c:hypot" if real.itemsize == 8 else "c:hypotf", re, im)
            sign = sign * e.pair(re / size, im / size)
        else:
            size = e.intrinsic("fabs", u)
            sign = e.select(u < 0.0, -sign, sign)
        return [i + 1, sign, total + e.math("log", size)], i + 1 < n

    start = [e.constant(0, INDEX), e.constant(1, dtype), e.constant(0, real)]
    return tuple(e.repeated(start, step)[1:])


def _emit_slogdet(c: Any, operands: list[Any], outs: list[Any]) -> None:
    e = c.e
    (a,) = operands
    n, dtype = a.shape[-1], a.dtype
    factors, pivots, info = columns(c, n, n, dtype), c.integers(n), c.integers(1)

    def one(a: Any, sign_out: Any, log_out: Any) -> None:
        _factored(c, a, factors, pivots, info)
        sign, total = _determinant(c, factors, pivots)
        singular = e.load(info.pointer, info.dtype) != 0
        e.store(e.select(singular, e.constant(0, dtype), sign), sign_out.start(e))
        e.store(e.select(singular, -np.inf, total), log_out.start(e))

    each(c, [c.materialise(a)], outs, one)


def _norm(c: Any, matrix: Any) -> Any:
    """Frobenius', of a contiguous matrix. (nrm2 gives it by value.)"""
    e = c.e
    real = real_dtype(matrix.dtype)
    pointer = matrix.start(e)

    def step(state: list[Any]) -> tuple[list[Any], Any]:
        i, total = state
        x = e.load(e.offset(pointer, i.name, real), real)
        return [i + 1, total + x * x], i + 1 < count

    count = matrix.size * (2 if is_complex(matrix.dtype) else 1)
    total = e.repeated([e.constant(0, INDEX), e.constant(0, real)], step)[1]
    return e.intrinsic("sqrt", total)


def _scaled(c: Any, factor: Any, source: Any, goal: Any) -> None:
    """factor times a contiguous matrix."""
    e, dtype = c.e, source.dtype
    start, end = source.start(e), goal.start(e)
    e.counted(
        source.size, lambda i: e.store(factor * e.load(e.offset(start, i, dtype), dtype), e.offset(end, i, dtype))
    )


class _Accurate:
    """The determinant and the inverse of a matrix, where the inverse is accurate; elsewhere the code declines."""

    def __init__(self, c: Any, n: int, dtype: np.dtype) -> None:
        self.c, self.n, self.dtype = c, n, dtype
        self.factors, self.pivots, self.info = columns(c, n, n, dtype), c.integers(n), c.integers(1)
        self.eye = c.constant(np.eye(n, dtype=dtype))
        self.limit = float(np.finfo(dtype).eps ** -0.4)

    def emit(self, a: Any, inverse: Any) -> Any:
        """Writes the inverse; returns the determinant."""
        c, e = self.c, self.c.e
        _factored(c, a, self.factors, self.pivots, self.info)
        c.expect_zero(self.info)
        sign, total = _determinant(c, self.factors, self.pivots)
        c.copy(self.eye, inverse)
        _solved(c, self.factors, self.pivots, self.info, inverse)
        c.copy(a, self.factors)
        e.refuse(~(_norm(c, self.factors) * _norm(c, inverse) < self.limit))
        det = sign * e.convert(e.math("exp", total), self.dtype)
        e.refuse(det == 0.0)
        return det


def _emit_adjugate(c: Any, operands: list[Any], outs: list[Any]) -> None:
    """det(a) inv(a)."""
    (a,) = operands
    accurate = _Accurate(c, a.shape[-1], a.dtype)

    def one(a: Any, x: Any) -> None:
        _scaled(c, accurate.emit(a, x), x, x)

    each(c, [c.materialise(a)], outs, one)


def _emit_adjugate_derivative(c: Any, operands: list[Any], outs: list[Any]) -> None:
    """det(a) (tr(k t) k - k t k) for the inverse k."""
    e = c.e
    a, t = (c.materialise(o) for o in operands)
    n, dtype = a.shape[-1], a.dtype
    accurate = _Accurate(c, n, dtype)
    inverse, change = c.array((n, n), dtype), c.array((n, n), dtype)
    cell = c.array((), dtype).pointer

    def times(factor: Any, x: Any, y: Any, start: float, goal: Any) -> None:
        """goal = start goal + factor x y."""
        pointers = [m.start(e) for m in (x, y, goal)]
        c.blas("gemm", dtype, "N", "N", n, n, n, factor, pointers[1], n, pointers[0], n, start, pointers[2], n,
               flops=2.0 * n**3)  # fmt: skip

    def one(a: Any, t: Any, out: Any) -> None:
        det = accurate.emit(a, inverse)
        times(1.0, inverse, t, 0.0, change)

        def step(state: list[Any]) -> tuple[list[Any], Any]:
            i, total = state
            return [i + 1, total + e.load(element(c, change, i.name, i.name), dtype)], i + 1 < n

        trace = e.repeated([e.constant(0, INDEX), e.constant(0, dtype)], step)[1]
        _scaled(c, det * trace, inverse, out)
        e.store(-det, cell)
        times(cell, change, inverse, 1.0, out)

    each(c, [a, c.contiguous(t)], outs, one)


# triangles


def _emit_cholesky(c: Any, operands: list[Any], outs: list[Any]) -> None:
    """The lower triangle in rows is the upper one in columns."""
    e = c.e
    n, dtype = outs[0].shape[-1], outs[0].dtype
    size = dtype.itemsize
    info = c.integers(1)

    def one(a: Any, x: Any) -> None:
        c.copy(a, x)
        pointer = x.start(e)
        c.blas("potrf", dtype, "U", n, pointer, n, info.pointer, flops=n**3 / 3)
        c.expect_zero(info)

        def clear(i: str) -> None:
            at = e.offset(pointer, e.index(f"mul i64 {i}, {n + 1}"), dtype)
            c.fill_bytes(e.offset(at, 1, dtype), e.index(f"mul i64 {e.index(f'sub i64 {n - 1}, {i}')}, {size}"))

        if n > 1:
            e.counted(n - 1, clear)

    each(c, [c.materialise(o) for o in operands], outs, one)


def _emit_triangular_solve(c: Any, operands: list[Any], outs: list[Any], *, lower: bool, unit: bool) -> None:
    e = c.e
    a, b = (c.materialise(o) for o in operands)
    (n, k), dtype = outs[0].shape[-2:], outs[0].dtype
    down, across = a.strides[-2:]
    in_columns = down == 1 and across >= n and n > 1
    if not in_columns and not (across == 1 and down >= n):
        a, down = c.contiguous(a), n
    lead = across if in_columns else down
    # In rows a lower triangle is the upper one of the transpose.
    triangle = "L" if lower == in_columns else "U"
    kind = "U" if unit else "N"

    def one(a: Any, b: Any, x: Any) -> None:
        pointer, goal = a.start(e), x.start(e)
        if not unit:
            e.counted(n, lambda i: e.refuse(e.load(element(c, a, i, i), dtype) == 0.0))
        c.copy(b, x)
        if k == 1:
            flag = "N" if in_columns else "T"
            c.blas("trsv", dtype, triangle, flag, kind, n, pointer, lead, goal, 1, flops=float(n * n))
        else:
            flag = "T" if in_columns else "N"
            c.blas("trsm", dtype, "R", triangle, flag, kind, k, n, 1.0, pointer, lead, goal, k, flops=float(n * n * k))

    each(c, [a, b], outs, one)


def routine(emit: Callable[..., None], suits: Callable[..., bool] = suits) -> Call:
    def code(c: Any, operands: list[Any], outs: list[Any], **params: Any) -> None:
        if any(out.size for out in outs):
            emit(c, operands, outs, **params)

    return Call(suits, code, True)


solve = routine(_emit_solve)
inv = routine(_emit_inv)
slogdet = routine(_emit_slogdet, has_results)
adjugate = routine(_emit_adjugate)
adjugate_derivative = routine(_emit_adjugate_derivative)
cholesky = routine(_emit_cholesky)
triangular_solve = routine(_emit_triangular_solve)
