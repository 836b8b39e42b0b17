"""Matrix decompositions: Cholesky, QR, eigenvalues, singular values and pseudo-inverses of stacked matrices.

A decomposition that reads one triangle of its operand depends on that triangle only, and so does its derivative.

Where eigenvalues or singular values coincide (to rounding), the vectors that belong to them have no derivative, and the
rules give NaN for it. The values themselves have a kink there: as at every tie in this library, their derivative is
shared evenly, so that sums over all of them keep the right gradient. A singular value 0 is the kink of |x|: 0.

Vectors of complex matrices are fixed up to a phase by the LAPACK routine, not by mathematics: derivatives are those of
functions that do not depend on it. (`eig` fixes the phase, and its derivative follows.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.core.types import ShapedArray
from functrace.core.work import counted, moving
from functrace.errors import UnsupportedFunctionError
from functrace.primitives import _fast, _lapack, _lapack_spectra, _matrix_rewrites, _small_matrices, kinks
from functrace.primitives._structures import matrices
from functrace.primitives.contraction import diagonal, dot_general, matmul
from functrace.primitives.elementwise import (
    complex_,
    convert,
    div,
    imag,
    mul,
    real,
    reciprocal,
    select,
    sub,
    zero_of,
)  # fmt: skip
from functrace.primitives.families import add, broadcast, neg, reduce_sum
from functrace.primitives.linalg import (
    adjoint,
    keep,
    matrix_function,
    per_matrix,
    real_dtype,
    solve,
    swap,
    triangular_solve,
)
from functrace.util import user_line

__all__ = ["cholesky", "eig", "eigh", "hermitian", "pinv", "qr", "svd"]


# masks and scalings


def _below(n: int) -> np.ndarray:
    return np.tri(n, k=-1, dtype=bool)


def _eye(n: int) -> np.ndarray:
    return np.eye(n, dtype=bool)


def hermitian(a: Any, lower: bool = True) -> Any:
    """The Hermitian matrix of which `a` holds one triangle; imaginary parts on the diagonal are not read."""
    n = a.shape[-1]
    strict = keep(a, _below(n) if lower else _below(n).T)
    middle = keep(a, _eye(n))
    if a.dtype.kind == "c":
        middle = convert(real(middle), dtype=a.dtype)
    return add(add(strict, adjoint(strict)), middle)


def _rows(d: Any, x: Any) -> Any:
    """A vector per matrix along the rows: element i of `d` stands in row i of the shape of `x`."""
    return broadcast(d, shape=x.shape, axes=tuple(range(len(x.shape) - 1)))


def _columns(d: Any, x: Any) -> Any:
    """Likewise along the columns."""
    ndim = len(x.shape)
    return broadcast(d, shape=x.shape, axes=(*range(ndim - 2), ndim - 1))


def _like(x: Any, dtype: np.dtype) -> Any:
    return x if x.dtype == dtype else convert(x, dtype=dtype)


def _main_diagonal(x: Any) -> Any:
    ndim = len(x.shape)
    return diagonal(x, 0, ndim - 2, ndim - 1)


def _resolution(w: Any) -> Any:
    """The distance below which values cannot be told apart, per vector."""
    largest = np.max(np.abs(w), axis=-1, initial=0)
    return w.shape[-1] * np.finfo(w.dtype).eps * largest


def _ties_impl(w: Any) -> Any:
    return np.abs(w[..., :, None] - w[..., None, :]) <= _resolution(w)[..., None, None]


#: Which pairs of values in a vector coincide to rounding (each with itself); and which values are zero to rounding.
ties = matrix_function(
    "ties",
    _ties_impl,
    lambda w: ShapedArray((*w.shape, w.shape[-1]), np.dtype(bool)),
    nondifferentiable=True,
    cost=counted(lambda operands, outs: 3 * outs[0].size),
    lower=_matrix_rewrites.ties,
)
negligible = matrix_function(
    "negligible",
    lambda w: np.abs(w) <= _resolution(w)[..., None],
    lambda w: ShapedArray(w.shape, np.dtype(bool)),
    nondifferentiable=True,
    cost=counted(lambda operands, outs: 2 * outs[0].size),
    lower=_matrix_rewrites.negligible,
)


def _inverse_or_nan(x: Any, missing: Any) -> Any:
    """1 / x, NaN where it is missing."""
    one = zero_of(x) + 1
    return select(missing, zero_of(x) + np.nan, reciprocal(select(missing, one, x)))


def _one_or_nan(x: Any) -> Any:
    """A factor that makes what depends on negligible values NaN, in reverse mode too."""
    return select(negligible(x), zero_of(x) + np.nan, zero_of(x) + 1)


def _inverse_gaps(gaps: Any, tied: Any) -> Any:
    """1 / gaps off the diagonal, NaN where tied; 0 on the diagonal."""
    return keep(_inverse_or_nan(gaps, tied), ~_eye(gaps.shape[-1]))


def _gaps(w: Any, like: Any) -> Any:
    """w_j - w_i."""
    return sub(_columns(w, like), _rows(w, like))


def _share(tied: Any, values: Any) -> Any:
    """Each value replaced by the mean of those tied with it."""
    weights = _like(tied, values.dtype)
    last = len(weights.shape) - 1
    stack = tuple(range(last - 1))
    total = dot_general(weights, values, contract=((last,), (last - 1,)), batch=(stack, stack))
    return div(total, reduce_sum(weights, axes=(last,)))


# triangular factors


def _cholesky_impl(a: Any) -> Any:
    out = _fast.cholesky(a)
    return np.linalg.cholesky(a) if out is None else out


def _cholesky_jvp(primals: list[Any], tangents: list[Any]) -> tuple[list[Any], list[Any]]:
    out = cholesky(primals[0])
    n = out.shape[-1]
    half = triangular_solve(out, hermitian(tangents[0]), lower=True, unit=False)
    core = triangular_solve(out, adjoint(half), lower=True, unit=False)
    return [out], [matmul(out, keep(core, _below(n)) + keep(core, _eye(n)) * 0.5)]


#: The lower factor; reads the lower triangle.
cholesky = matrix_function(
    "cholesky",
    _cholesky_impl,
    lambda a: a,
    jvp=_cholesky_jvp,
    sparsity=matrices(reads=lambda shape: _below(shape[0]) | _eye(shape[0])),
    cost=per_matrix(lambda n, _: n**3 / 3),
    lower=(_small_matrices.cholesky, _lapack.cholesky),
)


def _qr_jvp(primals: list[Any], tangents: list[Any]) -> tuple[list[Any], list[Any]]:
    """S. Walter, L. Lehmann and R. Lamour, On evaluating higher-order derivatives of the QR decomposition of tall
    matrices with full column rank in forward and reverse mode algorithmic differentiation (2012)."""
    q, r = qr(primals[0])
    x = swap(triangular_solve(swap(r), swap(tangents[0]), lower=True, unit=False))
    x = mul(x, _columns(_one_or_nan(_main_diagonal(r)), x))
    y = matmul(adjoint(q), x)
    lower = keep(y, _below(y.shape[-1]))
    turn = lower - adjoint(lower)
    if y.dtype.kind == "c":  # the diagonal of r is real
        spin = imag(keep(y, _eye(y.shape[-1])))
        turn = add(turn, complex_(zero_of(spin), spin))
    rest = y - turn
    return [q, r], [x - matmul(q, rest), matmul(rest, r)]


#: The reduced decomposition of square and tall matrices.
qr = matrix_function(
    "qr",
    lambda a: list(np.linalg.qr(a)),
    lambda a: [a, ShapedArray((*a.shape[:-2], a.shape[-1], a.shape[-1]), a.dtype)],
    multiple=True,
    jvp=_qr_jvp,
    cost=per_matrix(lambda m, n: 4 * m * n * n - 4 * n**3 / 3, stack_copies=1),
    lower=_lapack_spectra.qr,
)


# eigenvalues


def _real(x: Any) -> Any:
    return real(x) if x.dtype.kind == "c" else x


def _eigh_jvp(primals: list[Any], tangents: list[Any], *, lower: bool) -> tuple[list[Any], list[Any]]:
    w, v = eigh(primals[0], lower=lower)
    core = matmul(matmul(adjoint(v), hermitian(tangents[0], lower)), v)
    tied = ties(w)
    w_dot = _share(tied, _real(_main_diagonal(core)))
    mixing = mul(_like(_inverse_gaps(_gaps(w, tied), tied), v.dtype), core)
    return [w, v], [w_dot, matmul(v, mixing)]


def _triangle_read(shape: tuple[int, int], *, lower: bool) -> np.ndarray:
    below = _below(shape[0]) | _eye(shape[0])
    return below if lower else below.T


def _eigh_aval(a: ShapedArray, *, lower: bool) -> list[ShapedArray]:
    return [ShapedArray(a.shape[:-1], real_dtype(a.dtype)), a]


#: Eigenvalues and eigenvectors of Hermitian matrices, of which one triangle is read.
eigh = matrix_function(
    "eigh",
    lambda a, *, lower: list(np.linalg.eigh(a, "L" if lower else "U")),
    _eigh_aval,
    multiple=True,
    jvp=_eigh_jvp,
    kink=kinks.spectrum("equal eigenvalues", np.linalg.eigvalsh),
    sparsity=matrices(reads=_triangle_read),
    cost=per_matrix(lambda n, _: 9 * n**3),
    lower=_lapack_spectra.eigh,
)


def _eig_impl(a: Any) -> list[Any]:
    w, v = np.linalg.eig(a)
    dtype = np.result_type(a.dtype, np.complex64)
    return [w.astype(dtype), v.astype(dtype)]


def _eig_aval(a: ShapedArray) -> list[ShapedArray]:
    dtype = np.result_type(a.dtype, np.complex64)
    return [ShapedArray(a.shape[:-1], dtype), ShapedArray(a.shape, dtype)]


def _anchors_impl(v: Any) -> Any:
    size = np.where(v.imag == 0, np.abs(v), -1)
    rows = np.arange(v.shape[-2])[:, None]
    return rows == np.argmax(size, axis=-2)[..., None, :] if size.size else size.astype(bool)


#: Per eigenvector the component that LAPACK made real by turning the vector: the largest.
anchors = matrix_function(
    "anchors",
    _anchors_impl,
    lambda v: ShapedArray(v.shape, np.dtype(bool)),
    nondifferentiable=True,
    cost=moving,
    lower=_matrix_rewrites.anchors,
)


def _eig_jvp(primals: list[Any], tangents: list[Any]) -> tuple[list[Any], list[Any]]:
    """Eigenvectors keep unit length and one real component."""
    w, v = eig(primals[0])
    core = solve(v, matmul(_like(tangents[0], v.dtype), v))
    tied = ties(w)
    raw = matmul(v, mul(_inverse_gaps(_gaps(w, tied), tied), core))
    rows = (len(v.shape) - 2,)
    anchor = anchors(v)

    def at_anchor(x: Any) -> Any:
        return reduce_sum(select(anchor, x, zero_of(x)), axes=rows)

    stretch = reduce_sum(add(mul(real(v), real(raw)), mul(imag(v), imag(raw))), axes=rows)
    turn = div(at_anchor(imag(raw)), at_anchor(real(v)))
    return [w, v], [_share(tied, _main_diagonal(core)), sub(raw, mul(v, _columns(complex_(stretch, turn), v)))]


#: Eigenvalues and right eigenvectors of general matrices, always complex.
eig = matrix_function(
    "eig",
    _eig_impl,
    _eig_aval,
    multiple=True,
    jvp=_eig_jvp,
    cost=per_matrix(lambda n, _: 25 * n**3),
    lower=_lapack_spectra.eig,
)


# singular values


def _svd_jvp(primals: list[Any], tangents: list[Any], *, full: bool) -> tuple[list[Any], list[Any]]:
    """J. Townsend, Differentiating the singular value decomposition (2016)."""
    a, a_dot = primals[0], tangents[0]
    rows, columns = a.shape[-2:]
    if full and rows != columns:
        raise UnsupportedFunctionError(
            "the singular vectors of the null space, which full_matrices=True adds, have no derivative",
            where=user_line(),
            got=f"matrices of shape {(rows, columns)}",
            remedy="pass full_matrices=False, or use numpy.linalg.svdvals for the singular values alone",
        )
    u, s, vh = svd(a, full=full)
    v, uh = adjoint(vh), adjoint(u)
    image = matmul(a_dot, v)
    core = matmul(uh, image)
    tied, vanishing = ties(s), negligible(s)
    s_dot = select(vanishing, zero_of(s), _share(tied, _real(_main_diagonal(core))))
    squared_gaps = mul(_gaps(s, tied), add(_columns(s, tied), _rows(s, tied)))
    mixing = _like(_inverse_gaps(squared_gaps, tied), a.dtype)
    left, right = _like(_rows(s, tied), a.dtype), _like(_columns(s, tied), a.dtype)
    core_h = adjoint(core)
    u_dot = matmul(u, mul(mixing, add(mul(core, right), mul(left, core_h))))
    v_dot = matmul(v, mul(mixing, add(mul(left, core), mul(core_h, right))))
    inverse = _like(_inverse_or_nan(s, vanishing), a.dtype)
    if a.dtype.kind == "c":
        spin = mul(imag(_main_diagonal(core)), real(inverse))
        u_dot = add(u_dot, mul(u, _columns(complex_(zero_of(spin), spin), u)))
    if rows > columns:
        u_dot = add(u_dot, mul(sub(image, matmul(u, core)), _columns(inverse, u)))
    if columns > rows:
        outside = sub(matmul(adjoint(a_dot), u), matmul(v, core_h))
        v_dot = add(v_dot, mul(outside, _columns(inverse, v)))
    return [u, s, vh], [u_dot, s_dot, adjoint(v_dot)]


def _svd_aval(a: ShapedArray, *, full: bool) -> list[ShapedArray]:
    *stack, rows, columns = a.shape
    rank = min(rows, columns)
    return [
        ShapedArray((*stack, rows, rows if full else rank), a.dtype),
        ShapedArray((*stack, rank), real_dtype(a.dtype)),
        ShapedArray((*stack, columns if full else rank, columns), a.dtype),
    ]


svd = matrix_function(
    "svd",
    lambda a, *, full: list(np.linalg.svd(a, full_matrices=full)),
    _svd_aval,
    multiple=True,
    jvp=_svd_jvp,
    kink=kinks.spectrum("equal singular values", lambda a: np.linalg.svd(a, compute_uv=False)),
    cost=per_matrix(lambda m, n: 14 * max(m, n) * min(m, n) ** 2 + 8 * min(m, n) ** 3),
    lower=_lapack_spectra.svd,
)


def _pinv_jvp(primals: list[Any], tangents: list[Any], *, rtol: float | None) -> tuple[list[Any], list[Any]]:
    """At constant rank: G. Golub and V. Pereyra, The differentiation of pseudo-inverses and nonlinear least squares
    problems whose variables separate (1973)."""
    a, a_dot = primals[0], tangents[0]
    out = pinv(a, rtol=rtol)
    out_h, a_dot_h = adjoint(out), adjoint(a_dot)
    range_part = matmul(matmul(out, out_h), a_dot_h)
    null_part = matmul(a_dot_h, matmul(out_h, out))
    range_part = range_part - matmul(matmul(range_part, a), out)
    null_part = null_part - matmul(out, matmul(a, null_part))
    return [out], [add(add(neg(matmul(matmul(out, a_dot), out)), range_part), null_part)]


pinv = matrix_function(
    "pinv",
    lambda a, *, rtol: np.linalg.pinv(a, rtol=rtol),
    lambda a, *, rtol: ShapedArray((*a.shape[:-2], a.shape[-1], a.shape[-2]), a.dtype),
    jvp=_pinv_jvp,
    cost=per_matrix(lambda m, n: 4 * m * m * n + 8 * m * n * n + 9 * n**3),
    lower=_matrix_rewrites.pinv(svd),
)
