"""How functions of matrices are compiled as calls of LAPACK, with the routines that NumPy calls; see `core.lowering`.

`c` is the compiler's context. Arrays lie in rows, LAPACK's matrices in columns. So a matrix that a routine overwrites is
copied into columns, as NumPy does it, and pivots, signs and ranks come out as NumPy's; but right-hand sides stay in
rows: there they are their own transposes, for which triangular systems are solved from the right.

Where a routine fails (a singular matrix, no convergence) the code declines, and NumPy raises its error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.lowering import Call

__all__ = [
    "adjugate",
    "adjugate_derivative",
    "cholesky",
    "eig",
    "eigh",
    "inv",
    "qr",
    "slogdet",
    "solve",
    "svd",
    "triangular_solve",
]

_INDEX = np.dtype(np.int64)


def _suits(*avals: Any, **params: Any) -> bool:
    return all(a.dtype.char in "fdFD" for a in avals)


def _has_results(a: Any) -> bool:
    """Not a matrix without elements, which has a determinant."""
    return _suits(a) and 0 not in a.shape[-2:]


def _real(dtype: np.dtype) -> np.dtype:
    return np.empty(0, dtype).real.dtype


def _is_complex(dtype: np.dtype) -> bool:
    return dtype.kind == "c"


def _each(
    c: Any, operands: Sequence[Any], outs: Sequence[Any], body: Callable[..., None], ranks: Sequence[int]
) -> None:
    """`body(*operands, *outs)` for each matrix of the stacks; `ranks` are the axes that each has of its own."""
    arrays = [*operands, *outs]
    stack = arrays[0].shape[: len(arrays[0].shape) - ranks[0]]

    def one(positions: list[str]) -> None:
        body(*[c.behind(array, positions) for array in arrays])

    c.over(stack, one)


def _turned(c: Any, matrix: Any) -> Any:
    return c.permuted(matrix, (1, 0))


def _columns(c: Any, rows: int, columns: int, dtype: np.dtype) -> Any:
    """A new array for a matrix in columns, seen as its transpose in rows."""
    return c.array((columns, rows), dtype)


def _element(c: Any, array: Any, *positions: str) -> str:
    """The address of an element."""
    return c.part(array, positions)


# factors with exchanged rows


def _exchange(c: Any, pivots: Any, x: Any) -> None:
    """Exchanges rows of a contiguous matrix as a factorization did."""
    e = c.e
    rows, width = x.shape

    def step(i: str) -> None:
        pivot = e.convert(e.load(_element(c, pivots, i), pivots.dtype), _INDEX) - 1
        c.blas("swap", x.dtype, width, _element(c, x, i), 1, _element(c, x, pivot.name), 1)

    e.counted(rows, step)


def _factored(c: Any, a: Any, factors: Any, pivots: Any, info: Any) -> None:
    """P L U = a."""
    n = a.shape[0]
    c.copy(_turned(c, a), factors)
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
    factors, pivots, info = _columns(c, n, n, dtype), c.integers(n), c.integers(1)

    def one(a: Any, b: Any, x: Any) -> None:
        _factored(c, a, factors, pivots, info)
        c.expect_zero(info)
        c.copy(b, x)
        _solved(c, factors, pivots, info, x)

    _each(c, [c.materialise(o) for o in operands], outs, one, (2,))


def _emit_inv(c: Any, operands: list[Any], outs: list[Any]) -> None:
    n, dtype = outs[0].shape[-1], outs[0].dtype
    factors, pivots, info = _columns(c, n, n, dtype), c.integers(n), c.integers(1)
    eye = c.constant(np.eye(n, dtype=dtype))

    def one(a: Any, x: Any) -> None:
        _factored(c, a, factors, pivots, info)
        c.expect_zero(info)
        c.copy(eye, x)
        _solved(c, factors, pivots, info, x)

    _each(c, [c.materialise(o) for o in operands], outs, one, (2,))


# determinants


def _determinant(c: Any, factors: Any, pivots: Any) -> tuple[Any, Any]:
    """The sign and the logarithm of the modulus of the product of the diagonal, with the exchanges."""
    e = c.e
    n, dtype = factors.shape[0], factors.dtype
    real = _real(dtype)

    def step(state: list[Any]) -> tuple[list[Any], Any]:
        i, sign, total = state
        u = e.load(_element(c, factors, i.name, i.name), dtype)
        exchanged = e.convert(e.load(_element(c, pivots, i.name), pivots.dtype), _INDEX) != i + 1
        sign = e.select(exchanged, -sign, sign)
        if _is_complex(dtype):
            re, im = u.parts
            size = e.outside("c:hypot" if real.itemsize == 8 else "c:hypotf", re, im)
            sign = sign * e.pair(re / size, im / size)
        else:
            size = e.intrinsic("fabs", u)
            sign = e.select(u < 0.0, -sign, sign)
        return [i + 1, sign, total + e.math("log", size)], i + 1 < n

    start = [e.constant(0, _INDEX), e.constant(1, dtype), e.constant(0, real)]
    return tuple(e.repeated(start, step)[1:])  # type: ignore[return-value]


def _emit_slogdet(c: Any, operands: list[Any], outs: list[Any]) -> None:
    e = c.e
    (a,) = operands
    n, dtype = a.shape[-1], a.dtype
    factors, pivots, info = _columns(c, n, n, dtype), c.integers(n), c.integers(1)

    def one(a: Any, sign_out: Any, log_out: Any) -> None:
        _factored(c, a, factors, pivots, info)
        sign, total = _determinant(c, factors, pivots)
        singular = e.load(info.pointer, info.dtype) != 0
        e.store(e.select(singular, e.constant(0, dtype), sign), sign_out.start(e))
        e.store(e.select(singular, -np.inf, total), log_out.start(e))

    _each(c, [c.materialise(a)], outs, one, (2,))


def _norm(c: Any, matrix: Any) -> Any:
    """Frobenius', of a contiguous matrix. (nrm2 gives it by value.)"""
    e = c.e
    real = _real(matrix.dtype)
    pointer = matrix.start(e)

    def step(state: list[Any]) -> tuple[list[Any], Any]:
        i, total = state
        x = e.load(e.offset(pointer, i.name, real), real)
        return [i + 1, total + x * x], i + 1 < count

    count = matrix.size * (2 if _is_complex(matrix.dtype) else 1)
    total = e.repeated([e.constant(0, _INDEX), e.constant(0, real)], step)[1]
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
        self.factors, self.pivots, self.info = _columns(c, n, n, dtype), c.integers(n), c.integers(1)
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

    _each(c, [c.materialise(a)], outs, one, (2,))


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
            return [i + 1, total + e.load(_element(c, change, i.name, i.name), dtype)], i + 1 < n

        trace = e.repeated([e.constant(0, _INDEX), e.constant(0, dtype)], step)[1]
        _scaled(c, det * trace, inverse, out)
        e.store(-det, cell)
        times(cell, change, inverse, 1.0, out)

    _each(c, [a, c.contiguous(t)], outs, one, (2,))


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

    _each(c, [c.materialise(o) for o in operands], outs, one, (2,))


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
            e.counted(n, lambda i: e.refuse(e.load(_element(c, a, i, i), dtype) == 0.0))
        c.copy(b, x)
        if k == 1:
            flag = "N" if in_columns else "T"
            c.blas("trsv", dtype, triangle, flag, kind, n, pointer, lead, goal, 1, flops=float(n * n))
        else:
            flag = "T" if in_columns else "N"
            c.blas("trsm", dtype, "R", triangle, flag, kind, k, n, 1.0, pointer, lead, goal, k, flops=float(n * n * k))

    _each(c, [a, b], outs, one, (2,))


# orthogonal factors


def _emit_qr(c: Any, operands: list[Any], outs: list[Any]) -> None:
    e = c.e
    (a,) = operands
    (m, n), dtype = a.shape[-2:], a.dtype
    generate = "ungqr" if _is_complex(dtype) else "orgqr"
    f, scales, info = _columns(c, m, n, dtype), c.array((n,), dtype), c.integers(1)
    (work,) = c.workspaces("geqrf", dtype, m, n, None, m, None, dtype, -1, None)
    (other,) = c.workspaces(generate, dtype, m, n, n, None, m, None, dtype, -1, None)
    flops = 2.0 * m * n * n - 2.0 * n**3 / 3

    def one(a: Any, q: Any, r: Any) -> None:
        c.copy(_turned(c, a), f)
        c.blas("geqrf", dtype, m, n, f.pointer, m, scales.pointer, work.pointer, work.size, info.pointer, flops=flops)
        c.copy(_turned(c, c.corner(f, n, n)), r)
        pointer = r.start(e)

        def clear(i: str) -> None:
            at = e.offset(pointer, e.index(f"mul i64 {i}, {n}"), dtype)
            c.fill_bytes(at, e.index(f"mul i64 {i}, {dtype.itemsize}"))

        e.counted(n, clear)
        c.blas(
            generate, dtype, m, n, n, f.pointer, m, scales.pointer, other.pointer, other.size, info.pointer, flops=flops
        )
        c.copy(_turned(c, f), q)

    _each(c, [c.materialise(a)], outs, one, (2,))


# values and vectors


def _emit_eigh(c: Any, operands: list[Any], outs: list[Any], *, lower: bool) -> None:
    (a,) = operands
    n, dtype = a.shape[-1], a.dtype
    real = _real(dtype)
    f, info, triangle = _columns(c, n, n, dtype), c.integers(1), "L" if lower else "U"
    kinds = (dtype, real, _INDEX) if _is_complex(dtype) else (dtype, _INDEX)
    name = "heevd" if _is_complex(dtype) else "syevd"
    asked = [part for kind in kinds for part in (kind, -1)]
    spaces = c.workspaces(name, dtype, "V", triangle, n, None, n, None, *asked, None)
    given = [part for space in spaces for part in (space.pointer, space.size)]

    def one(a: Any, w: Any, v: Any) -> None:
        c.copy(_turned(c, a), f)
        c.blas(name, dtype, "V", triangle, n, f.pointer, n, w.start(c.e), *given, info.pointer, flops=9.0 * n**3)
        c.expect_zero(info)
        c.copy(_turned(c, f), v)

    _each(c, [c.materialise(a)], outs, one, (2,))


def _emit_svd(c: Any, operands: list[Any], outs: list[Any], *, full: bool) -> None:
    (a,) = operands
    (m, n), dtype = a.shape[-2:], a.dtype
    least, most = min(m, n), max(m, n)
    width, height = (m, n) if full else (least, least)  # of u, and of the other factor
    f, left, right = _columns(c, m, n, dtype), _columns(c, m, width, dtype), _columns(c, height, n, dtype)
    info, integers = c.integers(1), c.integers(8 * least)
    job = "A" if full else "S"
    extra = [None] if _is_complex(dtype) else []
    (work,) = c.workspaces(
        "gesdd", dtype, job, m, n, None, m, None, None, m, None, height, dtype, -1, *extra, None, None
    )
    reals = []
    if _is_complex(dtype):
        reals = [c.array((least * max(5 * least + 7, 2 * most + 2 * least + 1),), _real(dtype)).pointer]
    flops = 14.0 * most * least**2 + 8.0 * least**3

    def one(a: Any, u: Any, s: Any, vh: Any) -> None:
        c.copy(_turned(c, a), f)
        c.blas(
            "gesdd", dtype, job, m, n, f.pointer, m, s.start(c.e), left.pointer, m, right.pointer, height,
            work.pointer, work.size, *reals, integers.pointer, info.pointer, flops=flops,
        )  # fmt: skip
        c.expect_zero(info)
        c.copy(_turned(c, left), u)
        c.copy(_turned(c, right), vh)

    _each(c, [c.materialise(a)], outs, one, (2,))


def _finite(c: Any, matrix: Any) -> None:
    """Declines infinities and NaN."""
    e = c.e
    real = _real(matrix.dtype)
    pointer = matrix.start(e)

    def step(state: list[Any]) -> tuple[list[Any], Any]:
        i, total = state
        return [i + 1, total + 0.0 * e.load(e.offset(pointer, i.name, real), real)], i + 1 < count

    count = matrix.size * (2 if _is_complex(matrix.dtype) else 1)
    total = e.repeated([e.constant(0, _INDEX), e.constant(0, real)], step)[1]
    e.refuse(~(total == 0.0))


def _emit_eig(c: Any, operands: list[Any], outs: list[Any]) -> None:
    e = c.e
    (a,) = operands
    n, dtype = a.shape[-1], a.dtype
    real = _real(dtype)
    f, vectors, info = _columns(c, n, n, dtype), _columns(c, n, n, dtype), c.integers(1)
    flops = 25.0 * n**3
    if _is_complex(dtype):
        (work,) = c.workspaces("geev", dtype, "N", "V", n, None, n, None, None, n, None, n, dtype, -1, None, None)
        reals = c.array((2 * n,), real)
    else:
        (work,) = c.workspaces("geev", dtype, "N", "V", n, None, n, None, None, None, n, None, n, dtype, -1, None)
        res, ims = c.array((n,), dtype), c.array((n,), dtype)

    def one(a: Any, w: Any, v: Any) -> None:
        c.copy(_turned(c, a), f)
        _finite(c, f)
        tail = (f.pointer, n, vectors.pointer, n, work.pointer, work.size)  # no left vectors: any address
        if _is_complex(dtype):
            c.blas(
                "geev", dtype, "N", "V", n, f.pointer, n, w.start(e), *tail, reals.pointer, info.pointer, flops=flops
            )
            c.expect_zero(info)
            c.copy(_turned(c, vectors), v)
            return
        c.blas("geev", dtype, "N", "V", n, f.pointer, n, res.pointer, ims.pointer, *tail, info.pointer, flops=flops)
        c.expect_zero(info)
        e.counted(n, lambda j: _eigenvector(c, n, j, (res, ims, vectors), (w, v)))

    _each(c, [c.materialise(a)], outs, one, (2,))


def _eigenvector(c: Any, n: int, j: str, found: Sequence[Any], goals: Sequence[Any]) -> None:
    """The j-th of a real matrix. Of a pair the first column holds the real parts, the second the imaginary ones."""
    e = c.e
    (res, ims, vectors), (w, v) = found, goals
    re, im = (e.load(_element(c, x, j), x.dtype) for x in (res, ims))
    e.store(e.pair(re, im), _element(c, w, j))
    first, second = (e.convert(flag, _INDEX) for flag in (im > 0.0, im < 0.0))
    at = e.blank(_INDEX, 1, j)
    real_column, imaginary_column = at - second, at + first
    factor = e.convert(first - second, res.dtype)

    def step(i: str) -> None:
        x = e.load(_element(c, vectors, real_column.name, i), vectors.dtype)
        y = e.load(_element(c, vectors, imaginary_column.name, i), vectors.dtype)
        e.store(e.pair(x, e.select(im == 0.0, 0.0, factor * y)), _element(c, v, i, j))

    e.counted(n, step)


def _routine(emit: Callable[..., None], suits: Callable[..., bool] = _suits) -> Call:
    def code(c: Any, operands: list[Any], outs: list[Any], **params: Any) -> None:
        if any(out.size for out in outs):
            emit(c, operands, outs, **params)

    return Call(suits, code, True)


solve = _routine(_emit_solve)
inv = _routine(_emit_inv)
slogdet = _routine(_emit_slogdet, _has_results)
adjugate = _routine(_emit_adjugate)
adjugate_derivative = _routine(_emit_adjugate_derivative)
cholesky = _routine(_emit_cholesky)
triangular_solve = _routine(_emit_triangular_solve)
qr = _routine(_emit_qr)
eigh = _routine(_emit_eigh)
svd = _routine(_emit_svd, lambda a, *, full: _has_results(a) if full else _suits(a))
eig = _routine(_emit_eig)
