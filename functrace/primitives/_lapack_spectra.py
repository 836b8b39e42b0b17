"""How factorizations into orthogonal matrices, and eigenvalues and singular values, are compiled; see `_lapack`.

Eigenvalues and singular values of single precision are computed in double precision, as NumPy does it: so their vectors
have NumPy's signs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.primitives._lapack import (
    INDEX,
    columns,
    each,
    element,
    has_results,
    is_complex,
    real_dtype,
    routine,
    suits,
    turned,
)

__all__ = ["eig", "eigh", "qr", "svd"]


def _panel(rows: int, columns: int) -> float:
    """The work of the largest product in a routine that transforms a matrix by some columns at a time."""
    return 64.0 * rows * columns


def _emit_qr(c: Any, operands: list[Any], outs: list[Any]) -> None:
    e = c.e
    (a,) = operands
    (m, n), dtype = a.shape[-2:], a.dtype
    generate = "ungqr" if is_complex(dtype) else "orgqr"
    f, scales, info = columns(c, m, n, dtype), c.array((n,), dtype), c.integers(1)
    (work,) = c.workspaces("geqrf", dtype, m, n, None, m, None, dtype, -1, None)
    (other,) = c.workspaces(generate, dtype, m, n, n, None, m, None, dtype, -1, None)
    price = {"flops": 2.0 * m * n * n - 2.0 * n**3 / 3, "part": _panel(m, n)}

    def one(a: Any, q: Any, r: Any) -> None:
        c.copy(turned(c, a), f)
        arrays = (f.pointer, m, scales.pointer)
        c.blas("geqrf", dtype, m, n, *arrays, work.pointer, work.size, info.pointer, **price)
        c.copy(turned(c, c.corner(f, n, n)), r)
        pointer = r.start(e)

        def clear(i: str) -> None:
            at = e.offset(pointer, e.index(f"mul i64 {i}, {n}"), dtype)
            c.fill_bytes(at, e.index(f"mul i64 {i}, {dtype.itemsize}"))

        e.counted(n, clear)
        c.blas(generate, dtype, m, n, n, *arrays, other.pointer, other.size, info.pointer, **price)
        c.copy(turned(c, f), q)

    each(c, [c.materialise(a)], outs, one)


# values and vectors


def _doubled(dtype: np.dtype) -> np.dtype:
    return np.result_type(dtype, np.float64)


def _moved(c: Any, source: Any, goal: Any) -> None:
    """Copies an array, to another precision if need be."""
    if source.dtype == goal.dtype:
        c.copy(source, goal)
        return

    def read(reader: Any, index: Any) -> Any:
        value = reader.load_from(source, index)
        return reader.apply(lambda e, x: e.convert(x, goal.dtype), value, dtype=goal.dtype)

    c.map(goal, read)


def _emit_eigh(c: Any, operands: list[Any], outs: list[Any], *, lower: bool) -> None:
    (a,) = operands
    n, dtype = a.shape[-1], _doubled(a.dtype)
    real = real_dtype(dtype)
    f, values, info = columns(c, n, n, dtype), c.array((n,), real), c.integers(1)
    kinds = (dtype, real, INDEX) if is_complex(dtype) else (dtype, INDEX)
    name = "heevd" if is_complex(dtype) else "syevd"
    head = ("V", "L" if lower else "U", n)
    asked = [part for kind in kinds for part in (kind, -1)]
    spaces = c.workspaces(name, dtype, *head, None, n, None, *asked, None)
    tail = [*(part for space in spaces for part in (space.pointer, space.size)), info.pointer]

    def one(a: Any, w: Any, v: Any) -> None:
        _moved(c, turned(c, a), f)
        c.blas(name, dtype, *head, f.pointer, n, values.pointer, *tail, flops=9.0 * n**3, part=_panel(n, n))
        c.expect_zero(info)
        _moved(c, values, w)
        _moved(c, turned(c, f), v)

    each(c, [c.materialise(a)], outs, one)


def _emit_svd(c: Any, operands: list[Any], outs: list[Any], *, full: bool) -> None:
    (a,) = operands
    (m, n), dtype = a.shape[-2:], _doubled(a.dtype)
    least, most = min(m, n), max(m, n)
    width, height = (m, n) if full else (least, least)  # of u, and of the other factor
    f, left, right = columns(c, m, n, dtype), columns(c, m, width, dtype), columns(c, height, n, dtype)
    values, info, integers = c.array((least,), real_dtype(dtype)), c.integers(1), c.integers(8 * least)
    head = ("A" if full else "S", m, n)
    reals = []
    if is_complex(dtype):
        reals = [c.array((least * max(5 * least + 7, 2 * most + 2 * least + 1),), real_dtype(dtype)).pointer]
    unknown = [None] * len(reals)
    (work,) = c.workspaces("gesdd", dtype, *head, None, m, None, None, m, None, height, dtype, -1, *unknown, None, None)
    arrays = (f.pointer, m, values.pointer, left.pointer, m, right.pointer, height)
    tail = (work.pointer, work.size, *reals, integers.pointer, info.pointer)
    price = {"flops": 14.0 * most * least**2 + 8.0 * least**3, "part": _panel(m, n)}

    def one(a: Any, u: Any, s: Any, vh: Any) -> None:
        _moved(c, turned(c, a), f)
        c.blas("gesdd", dtype, *head, *arrays, *tail, **price)
        c.expect_zero(info)
        _moved(c, turned(c, left), u)
        _moved(c, values, s)
        _moved(c, turned(c, right), vh)

    each(c, [c.materialise(a)], outs, one)


def _finite(c: Any, matrix: Any) -> None:
    """Declines infinities and NaN."""
    e = c.e
    real = real_dtype(matrix.dtype)
    pointer = matrix.start(e)

    def step(state: list[Any]) -> tuple[list[Any], Any]:
        i, total = state
        return [i + 1, total + 0.0 * e.load(e.offset(pointer, i.name, real), real)], i + 1 < count

    count = matrix.size * (2 if is_complex(matrix.dtype) else 1)
    total = e.repeated([e.constant(0, INDEX), e.constant(0, real)], step)[1]
    e.refuse(~(total == 0.0))


def _emit_eig(c: Any, operands: list[Any], outs: list[Any]) -> None:
    e = c.e
    (a,) = operands
    n, dtype = a.shape[-1], _doubled(a.dtype)
    f, vectors, info = columns(c, n, n, dtype), columns(c, n, n, dtype), c.integers(1)
    if is_complex(dtype):
        values, reals = [c.array((n,), dtype)], [c.array((2 * n,), real_dtype(dtype))]
    else:
        values, reals = [c.array((n,), dtype), c.array((n,), dtype)], []
    unknown = ([None] * len(values), [None] * len(reals))
    (work,) = c.workspaces(
        "geev", dtype, "N", "V", n, None, n, *unknown[0], None, n, None, n, dtype, -1, *unknown[1], None
    )
    arrays = (f.pointer, n, *(x.pointer for x in values), f.pointer, n, vectors.pointer, n)  # no left vectors
    tail = (work.pointer, work.size, *(x.pointer for x in reals), info.pointer)

    def one(a: Any, w: Any, v: Any) -> None:
        _moved(c, turned(c, a), f)
        _finite(c, f)
        c.blas("geev", dtype, "N", "V", n, *arrays, *tail, flops=25.0 * n**3, part=_panel(n, n))
        c.expect_zero(info)
        if is_complex(dtype):
            _moved(c, values[0], w)
            _moved(c, turned(c, vectors), v)
        else:
            e.counted(n, lambda j: _eigenvector(c, n, j, (*values, vectors), (w, v)))

    each(c, [c.materialise(a)], outs, one)


def _eigenvector(c: Any, n: int, j: str, found: Sequence[Any], goals: Sequence[Any]) -> None:
    """The j-th of a real matrix. Of a pair the first column holds the real parts, the second the imaginary ones."""
    e = c.e
    (res, ims, vectors), (w, v) = found, goals
    re, im = (e.load(element(c, x, j), x.dtype) for x in (res, ims))
    e.store(e.convert(e.pair(re, im), w.dtype), element(c, w, j))
    first, second = (e.convert(flag, INDEX) for flag in (im > 0.0, im < 0.0))
    at = e.blank(INDEX, 1, j)
    real_column, imaginary_column = at - second, at + first
    factor = e.convert(first - second, res.dtype)

    def step(i: str) -> None:
        x = e.load(element(c, vectors, real_column.name, i), vectors.dtype)
        y = e.load(element(c, vectors, imaginary_column.name, i), vectors.dtype)
        z = e.pair(x, e.select(im == 0.0, 0.0, factor * y))
        e.store(e.convert(z, v.dtype), element(c, v, i, j))

    e.counted(n, step)


qr = routine(_emit_qr)
eigh = routine(_emit_eigh)
svd = routine(_emit_svd, lambda a, *, full: has_results(a) if full else suits(a))
eig = routine(_emit_eig)
