"""`numpy.linalg` in traced form, with NumPy's names, signatures, stacks of matrices and named results.

Derivatives follow the values: a function that reads one triangle of its operand (cholesky, eigh) has its gradient in
that triangle. Where eigenvalues or singular values coincide, the vectors' derivative is NaN and the values share theirs
evenly; see `functrace.primitives.decompositions`. Singular input raises `numpy.linalg.LinAlgError`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.errors import ArgumentError, DTypeError, ShapeError, UnsupportedFunctionError
from functrace.numpy import contraction
from functrace.numpy._axes import as_index, normalize_axes
from functrace.numpy._dispatch import implements, reject
from functrace.numpy._labels import mismatch, operands
from functrace.numpy._norms import matrix_norm, norm, safe_norm, vector_norm
from functrace.numpy._promotion import as_array, broadcast_shape, broadcast_to, cast, promote
from functrace.primitives import decompositions as d
from functrace.primitives import linalg as p
from functrace.primitives.contraction import free_axes, permute
from functrace.primitives.contraction import matmul as matrix_product
from functrace.primitives.elementwise import abs_, convert, greater
from functrace.primitives.families import reduce_sum, reshape
from functrace.primitives.shape import full, inverse_permutation, slice_
from functrace.util import user_line

__all__ = [
    "LinAlgError", "cholesky", "cond", "cross", "det", "diagonal", "eig", "eigh", "eigvals", "eigvalsh", "inv", "lstsq",
    "matmul", "matrix_norm", "matrix_power", "matrix_rank", "matrix_transpose", "multi_dot", "norm", "outer", "pinv",
    "qr", "safe_norm", "slogdet", "solve", "svd", "svdvals", "tensordot", "tensorinv", "tensorsolve", "trace", "vecdot",
    "vector_norm",
]  # fmt: skip

LinAlgError = np.linalg.LinAlgError

_ONE = np.eye(1)
EigResult, EighResult = type(np.linalg.eig(_ONE)), type(np.linalg.eigh(_ONE))
QRResult, SVDResult = type(np.linalg.qr(_ONE)), type(np.linalg.svd(_ONE))
SlogdetResult = type(np.linalg.slogdet(_ONE))


# operands


def inexact(x: Any, function: str) -> Any:
    """The operand in a dtype that LAPACK computes in: integers become float64."""
    if x.dtype.kind in "biu":
        return cast(x, np.dtype(np.float64))
    if x.dtype.char not in "fdFD":
        raise DTypeError(
            f"linalg.{function} computes in single or double precision",
            where=user_line(),
            got=x.dtype.name,
            remedy="convert the operand with .astype(float)",
        )
    return x


def matrices(a: Any, function: str, square: bool = False) -> Any:
    """A stack of matrices."""
    x = inexact(as_array(a), function)
    if len(x.shape) < 2 or (square and x.shape[-1] != x.shape[-2]):
        raise ShapeError(
            f"linalg.{function} takes a {'square ' if square else ''}matrix or a stack of them",
            where=user_line(),
            got=f"shape {x.shape}",
            remedy=f"the last two axes are the matrix{', of one length' if square else ''}",
        )
    return x


def identity(like: Any) -> Any:
    """A stack of identity matrices."""
    return broadcast_to(np.eye(like.shape[-1], dtype=like.dtype), like.shape)


def number(value: Any, what: str) -> float:
    """A tolerance, which cannot depend on traced numbers."""
    if np.ndim(value):
        raise ArgumentError(
            f"{what} must be one number inside a traced function",
            where=user_line(),
            got=f"shape {np.shape(value)}",
            remedy="pass a plain number; map over different ones with functrace.vmap or a loop",
        )
    return float(value)


# systems and inverses


def system(function: str, a: Any, b: Any) -> tuple[Any, Any, bool]:
    """A matrix and right-hand sides in columns, of one dtype, and whether these were a single vector."""
    x, y = promote(matrices(a, function, square=True), inexact(as_array(b), function))
    vector = len(y.shape) == 1
    if vector:
        y = reshape(y, shape=(*y.shape, 1))
    if len(y.shape) < 2 or y.shape[-2] != x.shape[-1]:
        remedy = "the right-hand side needs one row for each row of the matrix"
        raise mismatch(f"linalg.{function}", x, y, remedy)
    return x, y, vector


def solve_system(primitive: Any, x: Any, y: Any, vector: bool, **params: Any) -> Any:
    """Solve over broadcasting stacks; one matrix is factorized once for all of them."""
    stack = broadcast_shape(x.shape[:-2], y.shape[:-2])
    if len(x.shape) == 2 and len(y.shape) > 2:
        order = (len(stack), *range(len(stack)), len(stack) + 1)
        columns = permute(y, order)
        out = primitive(x, reshape(columns, shape=(y.shape[-2], math.prod(stack) * y.shape[-1])), **params)
        return permute(reshape(out, shape=columns.shape), inverse_permutation(order))
    y = broadcast_to(y, (*stack, *y.shape[-2:]))
    out = primitive(broadcast_to(x, (*stack, *x.shape[-2:])), y, **params)
    return reshape(out, shape=out.shape[:-1]) if vector else out


@implements(np.linalg.solve)
def solve(a: Any, b: Any) -> Any:
    """x with a @ x = b; b is a vector or holds vectors in its columns."""
    return solve_system(p.solve, *system("solve", a, b))


@implements(np.linalg.inv)
def inv(a: Any) -> Any:
    """The inverse."""
    return p.inv(matrices(a, "inv", square=True))


@implements(np.linalg.pinv)
def pinv(a: Any, rcond: Any = None, hermitian: bool = False, *, rtol: Any = np._NoValue) -> Any:
    """The Moore-Penrose inverse; differentiated at constant rank."""
    x = matrices(a, "pinv", square=hermitian)
    if rcond is not None and rtol is not np._NoValue:
        raise ArgumentError("rcond and rtol are one option", where=user_line(), remedy="give rtol alone")
    if rcond is None:
        rcond = 1e-15 if rtol is np._NoValue else rtol
    if hermitian:
        x = d.hermitian(x)
    return d.pinv(x, rtol=None if rcond is None else number(rcond, "rtol"))


@implements(np.linalg.tensorsolve)
def tensorsolve(a: Any, b: Any, axes: Any = None) -> Any:
    """x with tensordot(a, x, x.ndim) = b."""
    x, y = promote(inexact(as_array(a), "tensorsolve"), inexact(as_array(b), "tensorsolve"))
    if axes is not None:
        moved = normalize_axes(axes, len(x.shape))
        x = permute(x, (*free_axes(len(x.shape), moved), *moved))
    shape, size = x.shape[len(y.shape) :], math.prod(x.shape[len(y.shape) :])
    if math.prod(x.shape) != size * size:
        raise ShapeError(
            "linalg.tensorsolve needs as many unknowns as equations",
            where=user_line(),
            got=f"{x.shape} and {y.shape}",
            remedy="the axes of the operand after those of the right-hand side must have its number of elements",
        )
    out = p.solve(reshape(x, shape=(size, size)), reshape(y, shape=(size, 1)))
    return reshape(out, shape=shape)


@implements(np.linalg.tensorinv)
def tensorinv(a: Any, ind: int = 2) -> Any:
    """The inverse of tensordot with `a` over its last axes; `ind` axes come first in `a`."""
    x = inexact(as_array(a), "tensorinv")
    first = as_index(ind, "ind")
    rows, columns = x.shape[: max(first, 0)], x.shape[max(first, 0) :]
    if first <= 0 or math.prod(rows) != math.prod(columns):
        raise ShapeError(
            "linalg.tensorinv needs as many elements in the first ind axes as in the others",
            where=user_line(),
            got=f"shape {x.shape}, ind={first}",
            remedy="choose ind so that the products of the lengths agree",
        )
    return reshape(p.inv(reshape(x, shape=(math.prod(rows), math.prod(columns)))), shape=(*columns, *rows))


@implements(np.linalg.lstsq)
def lstsq(a: Any, b: Any, rcond: Any = None) -> Any:
    """Least squares solution of least norm, squared residuals, rank and singular values.

    The solution is differentiated at constant rank. The residuals are given whenever the matrix has more rows than
    columns (NumPy gives none when it lacks full rank, which a traced shape cannot depend on).
    """
    x, y = promote(matrices(a, "lstsq"), inexact(as_array(b), "lstsq"))
    if len(x.shape) != 2 or len(y.shape) not in (1, 2) or x.shape[0] != y.shape[0]:
        raise mismatch("linalg.lstsq", x, y, "pass a matrix and a right-hand side of as many rows")
    rows, columns = x.shape
    machine = float(np.finfo(x.dtype).eps)
    rtol = machine * max(rows, columns) if rcond is None else number(rcond, "rcond")
    rtol = machine if rtol < 0 else rtol
    vector = len(y.shape) == 1
    y = reshape(y, shape=(rows, 1)) if vector else y
    out = matrix_product(d.pinv(x, rtol=rtol), y)
    s = svdvals(x)
    count = rank_of(s, None, rtol)
    if rows > columns:
        rest = abs_(y - matrix_product(x, out))
        residuals = reduce_sum(rest * rest, axes=(0,))
    else:
        residuals = full(shape=(0,), value=0, dtype=s.dtype)
    return reshape(out, shape=(columns,)) if vector else out, residuals, convert(count, dtype=np.dtype(np.int32)), s


@implements(np.linalg.matrix_power)
def matrix_power(a: Any, n: int) -> Any:
    """The n-th power; of the inverse when n is negative."""
    x = as_array(a)
    exponent = as_index(n, "the exponent of matrix_power")
    if len(x.shape) < 2 or x.shape[-1] != x.shape[-2] or exponent < 0:
        x = matrices(x, "matrix_power", square=True)
    if exponent < 0:
        x, exponent = p.inv(x), -exponent
    result = None
    while exponent:
        if exponent & 1:
            result = x if result is None else matrix_product(result, x)
        exponent >>= 1
        if exponent:
            x = matrix_product(x, x)
    return identity(x) if result is None else result


# determinants


@implements(np.linalg.det)
def det(a: Any) -> Any:
    """The determinant; differentiated through the adjugate, at singular matrices too."""
    return p.det(matrices(a, "det", square=True))


@implements(np.linalg.slogdet)
def slogdet(a: Any) -> Any:
    """The sign and the logarithm of the absolute value of the determinant."""
    return SlogdetResult(*p.slogdet(matrices(a, "slogdet", square=True)))


# decompositions


@implements(np.linalg.cholesky)
def cholesky(a: Any, /, *, upper: bool = False) -> Any:
    """The triangular factor l with l @ l^H = a, or its adjoint when `upper`; reads one triangle."""
    x = matrices(a, "cholesky", square=True)
    return p.adjoint(d.cholesky(p.adjoint(x))) if upper else d.cholesky(x)


def head(x: Any, columns: int) -> Any:
    """The first columns of each matrix."""
    return slice_(x, starts=(0,) * len(x.shape), stops=(*x.shape[:-1], columns), steps=(1,) * len(x.shape))


@implements(np.linalg.qr)
def qr(a: Any, mode: str = "reduced") -> Any:
    """The orthogonal and the upper triangular factor, or the latter alone (mode "r")."""
    x = matrices(a, "qr")
    rows, columns = x.shape[-2:]
    if mode not in ("reduced", "complete", "r") or (mode == "complete" and rows > columns):
        raise UnsupportedFunctionError(
            "linalg.qr inside a traced function has the modes 'reduced' and 'r', and 'complete' where it is the same: "
            "further columns of q have no derivative",
            where=user_line(),
            got=f"mode={mode!r} for shape {x.shape}",
            remedy="use mode='reduced'",
        )
    if rows >= columns:
        q, r = d.qr(x)
    else:
        q, _ = d.qr(head(x, rows))
        r = matrix_product(p.adjoint(q), x)
        r = p.keep(r, np.tri(columns, rows, dtype=bool).T)
    return r if mode == "r" else QRResult(q, r)


def _eigh(a: Any, UPLO: str, function: str) -> Any:
    side = UPLO.upper() if isinstance(UPLO, str) else UPLO
    if side not in ("L", "U"):
        raise ArgumentError(
            f"linalg.{function} reads one triangle", where=user_line(), got=f"UPLO={UPLO!r}", remedy="choose 'L' or 'U'"
        )
    return d.eigh(matrices(a, function, square=True), lower=side == "L")


@implements(np.linalg.eigh)
def eigh(a: Any, UPLO: str = "L") -> Any:
    """Eigenvalues, ascending, and eigenvectors of a Hermitian matrix; reads one triangle. NaN for tied eigenvectors."""
    return EighResult(*_eigh(a, UPLO, "eigh"))


@implements(np.linalg.eigvalsh)
def eigvalsh(a: Any, UPLO: str = "L") -> Any:
    """Eigenvalues of a Hermitian matrix, ascending; tied ones share their derivative evenly."""
    return _eigh(a, UPLO, "eigvalsh")[0]


@implements(np.linalg.eig)
def eig(a: Any) -> Any:
    """Eigenvalues and right eigenvectors of a general matrix; inside a traced function always complex."""
    return EigResult(*d.eig(matrices(a, "eig", square=True)))


@implements(np.linalg.eigvals)
def eigvals(a: Any) -> Any:
    """Eigenvalues of a general matrix; inside a traced function always complex."""
    return d.eig(matrices(a, "eigvals", square=True))[0]


@implements(np.linalg.svd)
def svd(a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    """Singular vectors and values; `full_matrices=True` has a derivative for square matrices only."""
    x = matrices(a, "svd", square=hermitian)
    if hermitian:
        return _svd_hermitian(x, compute_uv)
    if not compute_uv:
        return d.svd(x, full=False)[1]
    return SVDResult(*d.svd(x, full=bool(full_matrices)))


def _svd_hermitian(x: Any, compute_uv: bool) -> Any:
    """Singular values are the eigenvalues' absolute values, in descending order."""
    w, v = d.eigh(x, lower=True)
    order = np.flip(np.argsort(np.abs(w), axis=-1), -1)
    w = np.take_along_axis(w, order, -1)
    if not compute_uv:
        return np.abs(w)
    u = np.take_along_axis(v, order[..., None, :], -1)
    return SVDResult(u, np.abs(w), p.adjoint(u * np.sign(w)[..., None, :]))


@implements(np.linalg.svdvals)
def svdvals(x: Any, /) -> Any:
    """Singular values, descending; tied ones share their derivative evenly, that of 0 is 0."""
    return d.svd(matrices(x, "svdvals"), full=False)[1]


def rank_of(s: Any, tol: Any, rtol: float) -> Any:
    """How many singular values are above a tolerance, or a fraction of the largest."""
    if tol is None:
        largest = head(s, 1) if s.shape[-1] else s
        limit = broadcast_to(largest * s.dtype.type(rtol), s.shape)
    else:
        limit = broadcast_to(np.asarray(number(tol, "tol"), s.dtype), s.shape)
    return reduce_sum(convert(greater(s, limit), dtype=np.dtype(np.int64)), axes=(len(s.shape) - 1,))


@implements(np.linalg.matrix_rank)
def matrix_rank(A: Any, tol: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Any:
    """The number of singular values above a tolerance, an integer without derivative."""
    if tol is not None and rtol is not None:
        raise ArgumentError("tol and rtol exclude each other", where=user_line(), remedy="give one of them")
    x = as_array(A)
    if len(x.shape) < 2:
        return np.any(x != 0).astype(np.int64)
    x = matrices(x, "matrix_rank", square=hermitian)
    s = svdvals(d.hermitian(x) if hermitian else x)
    relative = max(x.shape[-2:]) * float(np.finfo(s.dtype).eps) if rtol is None else number(rtol, "rtol")
    return rank_of(s, tol, relative)


@implements(np.linalg.cond)
def cond(x: Any, p: Any = None) -> Any:
    """The condition number in a norm, by default the ratio of extreme singular values."""
    x = matrices(x, "cond", square=p not in (None, 2, -2))
    if p in (None, 2, -2):
        s = svdvals(x)
        found = s[..., -1] / s[..., 0] if p == -2 else s[..., 0] / s[..., -1]
    else:
        found = norm(x, p, axis=(-2, -1)) * norm(inv(x), p, axis=(-2, -1))
    # As NumPy has it, 0/0 is infinite: the matrix is singular, unless it has no numbers.
    undefined = np.isnan(found) & ~np.any(np.isnan(x), axis=(-2, -1))
    return np.where(undefined, np.inf, found)


# products; as in numpy.linalg, of matrices in the last two axes


@implements(np.linalg.matmul)
def matmul(x1: Any, x2: Any, /) -> Any:
    """See `numpy.matmul`."""
    return contraction.matmul(x1, x2)


@implements(np.linalg.tensordot)
def tensordot(x1: Any, x2: Any, /, *, axes: Any = 2) -> Any:
    """See `numpy.tensordot`."""
    return contraction.tensordot(x1, x2, axes)


@implements(np.linalg.vecdot)
def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """See `numpy.vecdot`."""
    return contraction.vecdot(x1, x2, axis=axis)


@implements(np.linalg.outer)
def outer(x1: Any, x2: Any, /) -> Any:
    """All products of the elements of two vectors."""
    x, y = as_array(x1), as_array(x2)
    if len(x.shape) != 1 or len(y.shape) != 1:
        raise mismatch("linalg.outer", x, y, "pass vectors; numpy.outer flattens its operands")
    return contraction.outer(x, y)


@implements(np.linalg.cross)
def cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """The cross product of vectors of length 3."""
    x, y = as_array(x1), as_array(x2)
    if x.shape[axis] != 3 or y.shape[axis] != 3:
        raise mismatch("linalg.cross", x, y, "vectors must have 3 components")
    return contraction.cross(x, y, axis=axis)


@implements(np.linalg.trace)
def trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Any:
    """The sum along a diagonal of each matrix."""
    return contraction.trace(x, offset, -2, -1, dtype)


@implements(np.linalg.diagonal)
def diagonal(x: Any, /, *, offset: int = 0) -> Any:
    """A diagonal of each matrix."""
    return np.diagonal(x, offset, -2, -1)


@implements(np.linalg.matrix_transpose)
def matrix_transpose(x: Any, /) -> Any:
    """Each matrix transposed."""
    x = as_array(x)
    if len(x.shape) < 2:
        raise ShapeError(
            "matrix_transpose needs at least two axes",
            where=user_line(),
            got=f"shape {x.shape}",
            remedy="pass a matrix",
        )
    return np.swapaxes(x, -1, -2)


def _best_order(lengths: Sequence[int]) -> list[list[int]]:
    """Where to split each chain of matrices i..j, of shapes (lengths[i], lengths[i+1]), to multiply least."""
    n = len(lengths) - 1
    cost, split = [[0] * n for _ in range(n)], [[0] * n for _ in range(n)]
    for width in range(1, n):
        for i in range(n - width):
            j = i + width
            cost[i][j], split[i][j] = min(
                (cost[i][k] + cost[k + 1][j] + lengths[i] * lengths[k + 1] * lengths[j + 1], k) for k in range(i, j)
            )
    return split


@implements(np.linalg.multi_dot)
def multi_dot(arrays: Sequence[Any], *, out: Any = None) -> Any:
    """The product of a chain of matrices (the first and last may be vectors), in the cheapest order."""
    reject("linalg.multi_dot", out=out)
    values = operands(*arrays)
    if len(values) < 2:
        raise ArgumentError(
            "multi_dot multiplies two or more arrays",
            where=user_line(),
            got=str(len(values)),
            remedy="pass a longer list",
        )
    row, column = len(values[0].shape) == 1, len(values[-1].shape) == 1
    if row:
        values[0] = reshape(values[0], shape=(1, *values[0].shape))
    if column:
        values[-1] = reshape(values[-1], shape=(*values[-1].shape, 1))
    fits = all(x.shape[-1:] == y.shape[:1] for x, y in itertools.pairwise(values))
    if not fits or any(len(v.shape) != 2 for v in values):
        raise ShapeError(
            "multi_dot needs matrices whose neighbouring lengths agree",
            where=user_line(),
            got=", ".join(str(np.shape(v)) for v in values),
            remedy="only the first and the last array may be vectors",
        )
    split = _best_order([values[0].shape[0], *(v.shape[1] for v in values)])

    def chain(i: int, j: int) -> Any:
        if i == j:
            return values[i]
        return matrix_product(chain(i, split[i][j]), chain(split[i][j] + 1, j))

    result = chain(0, len(values) - 1)
    kept = ([] if row else [result.shape[0]]) + ([] if column else [result.shape[1]])
    return reshape(result, shape=tuple(kept)) if row or column else result
