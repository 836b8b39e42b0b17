"""Solving and inverting: functions of matrices, stacked along any leading axes.

Derivatives after M. Giles, An extended collection of matrix derivative results for forward and reverse mode algorithmic
differentiation (2008). A singular matrix raises the `LinAlgError` of NumPy, also where only the derivative inverts it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.primitive import Primitive
from functrace.core.types import ShapedArray
from functrace.core.work import Layout, Rule, Work, counted
from functrace.primitives import _fast, _lapack, _matrix_rewrites, _small_matrices
from functrace.primitives._structures import matrices
from functrace.primitives.contraction import dot_general, matmul, permute
from functrace.primitives.elementwise import complex_, conj, imag, mul, real, select, zero_of
from functrace.primitives.families import add, broadcast, neg, reshape, same_dtype
from functrace.primitives.shape import pad, slice_

__all__ = [
    "adjoint", "adjugate", "adjugate_derivative", "det", "expm", "expm_derivative", "inv", "keep", "matrix_function",
    "per_matrix", "scipy_linalg", "slogdet", "solve", "swap", "trace_product", "triangular_solve",
]  # fmt: skip


# matrices in stacks


def swap(x: Any) -> Any:
    """The transpose of each matrix."""
    last = len(x.shape) - 1
    return permute(x, (*range(last - 1), last, last - 1))


def adjoint(x: Any) -> Any:
    """The conjugate transpose of each matrix."""
    return swap(conj(x) if x.dtype.kind == "c" else x)


def keep(x: Any, mask: np.ndarray) -> Any:
    """The elements of each matrix where a constant mask is True, 0 elsewhere."""
    ndim = len(x.shape)
    return select(broadcast(mask, shape=x.shape, axes=(ndim - 2, ndim - 1)), x, zero_of(x))


def trace_product(x: Any, y: Any) -> Any:
    """The trace of x @ y for each pair of matrices."""
    rows, columns = len(x.shape) - 2, len(x.shape) - 1
    stack = tuple(range(rows))
    return dot_general(x, y, contract=((rows, columns), (columns, rows)), batch=(stack, stack))


def times(x: Any, scalars: Any) -> Any:
    """Each matrix times its scalar."""
    return mul(x, broadcast(scalars, shape=x.shape, axes=tuple(range(len(x.shape) - 2))))


def matrix_function(
    name: str,
    impl: Callable[..., Any],
    abstract_eval: Callable[..., Any],
    *,
    multiple: bool = False,
    partial: bool = True,
    **rules: Any,
) -> Primitive:
    """A primitive that works matrix by matrix, so that a batch is one more leading axis of the stack."""

    def batch(size: int, values: list[Any], batched: list[bool], **params: Any) -> tuple[list[Any], list[bool]]:
        values = [v if b else stacked(v, size) for v, b in zip(values, batched, strict=True)]
        out = primitive.bind(*values, **params)
        outs = list(out) if multiple else [out]
        return outs, [True] * len(outs)

    rules.setdefault("batch", batch)
    rules.setdefault("sparsity", None if rules.get("nondifferentiable") else matrices())
    primitive = Primitive(name, impl, abstract_eval, multiple=multiple, family="linalg", partial=partial, **rules)
    return primitive


def per_matrix(formula: Callable[..., float], copies: int = 0, stack_copies: int = 0) -> Rule:
    """The cost of a LAPACK routine by `formula(rows, columns)`, or `formula(rows, columns, right-hand sides)`, flops.

    The leading terms of G. Golub and C. Van Loan, Matrix Computations (4th edition, 2013). It holds `copies`
    matrices of the operand's size beside its results, and `stack_copies` of the whole operand.
    """

    def count(operands: Sequence[Layout], outs: Sequence[ShapedArray], **params: Any) -> float:
        a, sides = operands[0], [b.shape[-1] for b in operands[1:2]]
        return math.prod(a.shape[:-2]) * formula(*a.shape[-2:], *sides)

    work = counted(count, dense=True)
    if not copies and not stack_copies:
        return work

    def with_copies(operands: Sequence[Layout], outs: Sequence[ShapedArray], **params: Any) -> Work:
        a = operands[0]
        held = copies * math.prod(a.shape[-2:]) * a.dtype.itemsize + stack_copies * a.bytes
        return work(operands, outs, **params)._replace(scratch=held)

    return with_copies


def stacked(x: Any, size: int) -> Any:
    """The same value along a new leading axis."""
    return broadcast(x, shape=(size, *x.shape), axes=tuple(range(1, 1 + len(x.shape))))


def _same(a: ShapedArray, **params: Any) -> ShapedArray:
    return a


def _scalar_per_matrix(a: ShapedArray) -> ShapedArray:
    return ShapedArray(a.shape[:-2], a.dtype)


def real_dtype(dtype: np.dtype) -> np.dtype:
    return np.empty(0, dtype).real.dtype


# linear systems


def _fold(b: Any) -> Any:
    """(batch, ..., n, k) as (..., n, batch k): a batch of right-hand sides as columns of one."""
    size, *stack, rows, columns = b.shape
    last = len(b.shape) - 1
    return reshape(permute(b, (*range(1, last), 0, last)), shape=(*stack, rows, size * columns))


def _unfold(x: Any, size: int) -> Any:
    *stack, rows, columns = x.shape
    x = reshape(x, shape=(*stack, rows, size, columns // size if size else 0))
    last = len(x.shape) - 1
    return permute(x, (last - 1, *range(last - 1), last))


def _solver(
    name: str,
    impl: Callable[..., Any],
    part: Callable[..., Any],
    flip: Callable[[dict[str, Any]], dict[str, Any]],
    **rules: Any,
) -> Primitive:
    """x with a x = b: linear in b, differentiated in a implicitly.

    Args:
        part: the part of (the tangent of) a that the system sees.
        flip: the parameters of the transposed system.
        rules: further rules of the record.
    """

    def abstract_eval(a: ShapedArray, b: ShapedArray, **params: Any) -> ShapedArray:
        return ShapedArray(b.shape, same_dtype(name, a.dtype, b.dtype))

    def jvp(primals: list[Any], tangents: list[Any], **params: Any) -> tuple[list[Any], list[Any]]:
        (a, b), (a_dot, b_dot) = primals, tangents
        x = primitive.bind(a, b, **params)
        if a_dot is not None:
            change = neg(matmul(part(a_dot, **params), x))
            b_dot = change if b_dot is None else add(b_dot, change)
        return [x], [primitive.bind(a, b_dot, **params)]

    def transpose(bars: list[Any], a: Any, b: Any, **params: Any) -> list[Any]:
        return [None, primitive.bind(swap(a), bars[0], **flip(params))]

    def batch(size: int, values: list[Any], batched: list[bool], **params: Any) -> tuple[list[Any], list[bool]]:
        a, b = values
        if not batched[0] and size and b.shape[-1]:
            return [_unfold(primitive.bind(a, _fold(b), **params), size)], [True]
        a, b = a if batched[0] else stacked(a, size), b if batched[1] else stacked(b, size)
        return [primitive.bind(a, b, **params)], [True]

    primitive = Primitive(
        name, impl, abstract_eval, jvp=jvp, transpose=transpose, batch=batch, family="linalg", partial=True, **rules
    )
    return primitive


def _solve_impl(a: Any, b: Any) -> Any:
    out = _fast.solve(a, b)
    return np.linalg.solve(a, b) if out is None else out


solve = _solver(
    "solve",
    _solve_impl,
    lambda a: a,
    lambda params: params,
    sparsity=matrices(linear=(1,), columns=(1,)),
    cost=per_matrix(lambda n, _, k: 2 * n**3 / 3 + 2 * n * n * k),
    lower=(_small_matrices.solve, _lapack.solve),
)


@functools.cache
def scipy_linalg() -> Any:
    """`scipy.linalg`, loaded on first use."""
    import scipy.linalg

    return scipy.linalg


@functools.cache
def _trtrs(dtype: np.dtype) -> Callable[..., Any]:
    return scipy_linalg().get_lapack_funcs(("trtrs",), dtype=dtype)[0]


def _triangle(n: int, lower: bool, unit: bool) -> np.ndarray:
    mask = np.tri(n, k=-1 if unit else 0, dtype=bool)
    return mask if lower else mask.T


def _triangular_impl(a: Any, b: Any, *, lower: bool, unit: bool) -> Any:
    if a.ndim > 2:
        out = _fast.triangular(a, b, lower, unit)
        if out is not None:
            return out
        seen = np.where(_triangle(a.shape[-1], lower, unit), a, zero_of(a))
        return np.linalg.solve(seen + np.eye(a.shape[-1], dtype=a.dtype) if unit else seen, b)
    if not b.size:
        return np.zeros(b.shape, b.dtype)
    if a.flags.f_contiguous:
        x, info = _trtrs(a.dtype)(a, b, lower=lower, unitdiag=unit)
    else:  # Fortran reads the rows of a as columns
        x, info = _trtrs(a.dtype)(a.T, b, lower=not lower, unitdiag=unit, trans=1)
    if info:
        raise np.linalg.LinAlgError("Singular matrix")
    return x


triangular_solve = _solver(
    "triangular_solve",
    _triangular_impl,
    lambda a, *, lower, unit: keep(a, _triangle(a.shape[-1], lower, unit)),
    lambda params: {"lower": not params["lower"], "unit": params["unit"]},
    sparsity=matrices(linear=(1,), columns=(1,), reads=lambda shape, *, lower, unit: _triangle(shape[0], lower, unit)),
    cost=per_matrix(lambda n, _, k: n * n * k),
    lower=(_small_matrices.triangular_solve, _lapack.triangular_solve),
)


# inverses


def _inv_jvp(primals: list[Any], tangents: list[Any]) -> tuple[list[Any], list[Any]]:
    out = inv(primals[0])
    return [out], [neg(matmul(matmul(out, tangents[0]), out))]


inv = matrix_function(
    "inv",
    np.linalg.inv,
    _same,
    jvp=_inv_jvp,
    cost=per_matrix(lambda n, _: 2 * n**3),
    lower=(_small_matrices.inv, _lapack.inv),
)


# determinants; through the adjugate, which singular matrices have too


def _det_jvp(primals: list[Any], tangents: list[Any]) -> tuple[list[Any], list[Any]]:
    """Jacobi's formula."""
    return [det(primals[0])], [trace_product(adjugate(primals[0]), tangents[0])]


def _by_condition(a: Any, t: Any, regular: Callable[..., Any], singular: Callable[..., Any]) -> Any:
    """`regular(det, inverse, t)` of the matrices whose inverse is accurate, `singular(u, s, vh, t)` of the others."""
    if not a.size:
        return np.zeros_like(t)
    flat, t_flat = a.reshape(-1, *a.shape[-2:]), t.reshape(-1, *a.shape[-2:])
    determinants = np.linalg.det(flat)
    good = determinants != 0
    inverse = np.linalg.inv(flat[good])
    with np.errstate(all="ignore"):
        condition = np.linalg.norm(flat[good], axis=(-2, -1)) * np.linalg.norm(inverse, axis=(-2, -1))
        accurate = condition < np.finfo(a.dtype).eps ** -0.4
    good[good], inverse = accurate, inverse[accurate]
    out = np.empty_like(flat)
    out[good] = regular(determinants[good, None, None], inverse, t_flat[good])
    out[~good] = singular(*np.linalg.svd(flat[~good]), t_flat[~good])
    return out.reshape(a.shape)


def _products_without(s: Any, count: int) -> Any:
    """The products of all singular values but one (count 1) or two (count 2; 0 on the diagonal)."""
    eye = np.eye(s.shape[-1], dtype=bool)
    if count == 1:
        return np.prod(np.where(eye, 1, s[..., None, :]), -1, dtype=s.dtype)
    left_out = eye[:, None, :] | eye[None, :, :]
    return np.where(eye, 0, np.prod(np.where(left_out, 1, s[..., None, None, :]), -1, dtype=s.dtype))


def _adjoints(u: Any, vh: Any) -> tuple[Any, Any, Any]:
    """v, u^H and the determinant of u vh."""
    v, uh = np.conj(np.swapaxes(vh, -1, -2)), np.conj(np.swapaxes(u, -1, -2))
    return v, uh, (np.linalg.det(u) * np.linalg.det(vh))[..., None, None]


def _adjugate_by_svd(u: Any, s: Any, vh: Any, t: Any) -> Any:
    v, uh, orientation = _adjoints(u, vh)
    return orientation * (v @ (_products_without(s, 1)[..., None] * uh))


def _adjugate_derivative_by_svd(u: Any, s: Any, vh: Any, t: Any) -> Any:
    """In the basis of singular vectors only products that leave out two singular values remain."""
    v, uh, orientation = _adjoints(u, vh)
    products = _products_without(s, 2)
    e = uh @ t @ v
    diagonal = products @ np.diagonal(e, axis1=-2, axis2=-1)[..., None]
    return orientation * (v @ (np.eye(s.shape[-1]) * diagonal - products * e) @ uh)


def _adjugate_derivative_by_inverse(determinant: Any, inverse: Any, t: Any) -> Any:
    change = inverse @ t
    trace = np.trace(change, axis1=-2, axis2=-1)[..., None, None]
    return determinant * (trace * inverse - change @ inverse)


def _adjugate_derivative_jvp(primals: list[Any], tangents: list[Any]) -> tuple[list[Any], list[Any]]:
    """From adj(a) = det(a) inv(a): a third derivative of det, at invertible matrices only."""
    (a, t), (a_dot, t_dot) = primals, tangents
    out = adjugate_derivative(a, t)
    total = None if t_dot is None else adjugate_derivative(a, t_dot)
    if a_dot is not None:
        k = inv(a)
        ks, kt = matmul(k, a_dot), matmul(k, t)
        k_s, k_t = matmul(ks, k), matmul(kt, k)
        trace_t = trace_product(k, t)
        inner = times(times(k, trace_t) - k_t, trace_product(k, a_dot))
        inner = inner - times(k, trace_product(ks, kt)) - times(k_s, trace_t)
        inner = times(inner + matmul(ks, k_t) + matmul(kt, k_s), det(a))
        total = inner if total is None else add(total, inner)
    return [out], [total]


det = matrix_function(
    "det",
    np.linalg.det,
    _scalar_per_matrix,
    partial=False,
    jvp=_det_jvp,
    cost=per_matrix(lambda n, _: 2 * n**3 / 3),
    lower=_matrix_rewrites.det(lambda: slogdet),
)
adjugate = matrix_function(
    "adjugate",
    lambda a: _by_condition(a, a, lambda determinant, inverse, _: determinant * inverse, _adjugate_by_svd),
    _same,
    jvp=lambda primals, tangents: ([adjugate(primals[0])], [adjugate_derivative(primals[0], tangents[0])]),
    cost=per_matrix(lambda n, _: 8 * n**3 / 3),
    lower=(_small_matrices.adjugate, _lapack.adjugate),
)
#: The derivative of the adjugate of its first operand along the second; the transpose is by symmetry of det''.
adjugate_derivative = matrix_function(
    "adjugate_derivative",
    lambda a, t: _by_condition(a, t, _adjugate_derivative_by_inverse, _adjugate_derivative_by_svd),
    lambda a, t: t,
    jvp=_adjugate_derivative_jvp,
    transpose=lambda bars, a, t: [None, swap(adjugate_derivative(a, swap(bars[0])))],
    sparsity=matrices(linear=(1,)),
    cost=per_matrix(lambda n, *_: 20 * n**3 / 3),
    lower=(_small_matrices.adjugate_derivative, _lapack.adjugate_derivative),
)


def _slogdet_jvp(primals: list[Any], tangents: list[Any]) -> tuple[list[Any], list[Any]]:
    sign, logabs = slogdet(primals[0])
    change = trace_product(inv(primals[0]), tangents[0])
    if sign.dtype.kind != "c":
        return [sign, logabs], [None, change]
    turn = imag(change)
    return [sign, logabs], [mul(sign, complex_(zero_of(turn), turn)), real(change)]


def _slogdet_aval(a: ShapedArray) -> list[ShapedArray]:
    return [ShapedArray(a.shape[:-2], a.dtype), ShapedArray(a.shape[:-2], real_dtype(a.dtype))]


slogdet = matrix_function(
    "slogdet",
    lambda a: list(np.linalg.slogdet(a)),
    _slogdet_aval,
    multiple=True,
    partial=False,
    jvp=_slogdet_jvp,
    sparsity=matrices(none=lambda outs: () if outs[0].dtype.kind == "c" else (0,)),
    cost=per_matrix(lambda n, _: 2 * n**3 / 3),
    lower=(_small_matrices.slogdet, _lapack.slogdet),
)


# the exponential


def _expm_impl(a: Any) -> Any:
    return scipy_linalg().expm(a) if a.size else a.copy()


def _blocks(diagonal: Any, corner: Any) -> Any:
    """[[diagonal, corner], [0, diagonal]], of primitives."""
    n, stack = diagonal.shape[-1], (0,) * (len(diagonal.shape) - 2)
    none = (*stack, 0, 0)

    def place(x: Any, row: int, column: int) -> Any:
        low, high = (*stack, row * n, column * n), (*stack, (1 - row) * n, (1 - column) * n)
        return pad(x, low=low, high=high, interior=none)

    corners = add(place(diagonal, 0, 0), place(diagonal, 1, 1))
    return corners if corner is None else add(corners, place(corner, 0, 1))


def _corner(x: Any, n: int) -> Any:
    """The upper right n by n block."""
    stack = x.shape[:-2]
    starts, ones = (0,) * len(stack), (1,) * len(x.shape)
    return slice_(x, starts=(*starts, 0, n), stops=(*stack, n, 2 * n), steps=ones)


def _expm_derivative_impl(a: Any, t: Any) -> Any:
    n = a.shape[-1]
    return _expm_impl(np.block([[a, t], [np.zeros_like(a), a]]))[..., :n, n:]


def _expm_derivative_jvp(primals: list[Any], tangents: list[Any]) -> tuple[list[Any], list[Any]]:
    (a, t), (a_dot, t_dot) = primals, tangents
    out = expm_derivative(a, t)
    total = None if t_dot is None else expm_derivative(a, t_dot)
    if a_dot is not None:
        change = _corner(expm_derivative(_blocks(a, t), _blocks(a_dot, None)), a.shape[-1])
        total = change if total is None else add(total, change)
    return [out], [total]


expm = matrix_function(
    "expm",
    _expm_impl,
    _same,
    jvp=lambda primals, tangents: ([expm(primals[0])], [expm_derivative(primals[0], tangents[0])]),
    cost=per_matrix(lambda n, _: 30 * n**3, copies=7),
)
#: The derivative of expm at its first operand along the second, a corner of the exponential of a block matrix:
#: N. Higham, Functions of Matrices (2008), section 10.6.
expm_derivative = matrix_function(
    "expm_derivative",
    _expm_derivative_impl,
    lambda a, t: t,
    jvp=_expm_derivative_jvp,
    transpose=lambda bars, a, t: [None, expm_derivative(swap(a), bars[0])],
    sparsity=matrices(linear=(1,)),
    cost=per_matrix(lambda n, *_: 240 * n**3),
)
