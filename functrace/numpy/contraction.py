"""Products that sum: dot, matmul, einsum and their relatives, all through one primitive."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.core.trace import EVAL, current_trace
from functrace.errors import ArgumentError, ShapeError
from functrace.numpy._axes import as_index, normalize_axes, normalize_axis
from functrace.numpy._dispatch import implements, reject, traced_ufuncs
from functrace.numpy._einsum import einsum, einsum_path
from functrace.numpy._labels import mismatch, operands, product, stack_labels
from functrace.numpy._promotion import as_array, cast, checked_dtype
from functrace.primitives.contraction import diagonal, dot_general, free_axes, permute
from functrace.primitives.elementwise import conj
from functrace.primitives.families import reduce_sum, reshape
from functrace.primitives.shape import concatenate, inverse_permutation, pad, slice_
from functrace.util import user_line

__all__ = [
    "cross", "dot", "einsum", "einsum_path", "inner", "kron", "matmul", "matvec", "outer", "tensordot", "trace", "vdot",
    "vecdot", "vecmat",
]  # fmt: skip

_MATCHING = "the last axis of the first operand must be as long as the last but one of the second"


def implements_product(ufunc: np.ufunc) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`implements` for NumPy's generalized ufuncs, whose traced form gets operands as arrays of one dtype."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def traced(x1: Any, x2: Any, /, **options: Any) -> Any:
            return function(*operands(x1, x2), **options)

        traced_ufuncs[ufunc] = traced

        @functools.wraps(function)
        def public(x1: Any, x2: Any, /, **options: Any) -> Any:
            if current_trace() is EVAL:
                return ufunc(x1, x2, **options)
            return traced(x1, x2, **options)

        return public

    return decorate


def conjugate(x: Any) -> Any:
    return conj(x) if x.dtype.kind == "c" else x


def flatten(x: Any) -> Any:
    return x if x.ndim == 1 else reshape(x, shape=(math.prod(x.shape),))


# products


@implements_product(np.matmul)
def matmul(x: Any, y: Any, **options: Any) -> Any:
    """Matrix product of the last two axes; leading axes broadcast."""
    if options:
        reject("matmul", **options)
    rows, columns = len(x.shape), len(y.shape)
    if not rows or not columns:
        raise mismatch("matmul", x, y, "multiply by a number with *")
    j = max(columns - 2, 0)
    if x.shape[-1] != y.shape[j]:
        raise mismatch("matmul", x, y, _MATCHING)
    if columns <= 2 or rows == 1:
        return dot_general(x, y, contract=((rows - 1,), (j,)), batch=((), ()))
    left, right = stack_labels(rows - 2), stack_labels(columns - 2)
    longer = max(left, right, key=len)
    return product("matmul", x, (*left, 0, 1), y, (*right, 1, 2), (*longer, 0, 2))


def _at_axis(x: Any, y: Any, axis: Any) -> tuple[Any, Any]:
    """Both operands with the given axis as their last."""

    def last(value: Any) -> Any:
        position = normalize_axis(axis, len(value.shape))
        return permute(value, (*free_axes(len(value.shape), (position,)), position))

    return last(x), last(y)


@implements_product(np.vecdot)
def vecdot(x: Any, y: Any, axis: int = -1, **options: Any) -> Any:
    """Dot product along an axis, the first operand conjugated; other axes broadcast."""
    if options:
        reject("vecdot", **options)
    x, y = _at_axis(x, y, axis)
    if x.shape[-1] != y.shape[-1]:
        raise mismatch("vecdot", x, y, "the summed axes must have one length")
    left, right = stack_labels(len(x.shape) - 1), stack_labels(len(y.shape) - 1)
    return product("vecdot", conjugate(x), (*left, 0), y, (*right, 0), max(left, right, key=len))


def _vector_product(function: str, x: Any, y: Any, x_axes: int, y_axes: int, options: dict[str, Any]) -> Any:
    """Matrix times vector (x_axes 2, y_axes 1) or vector times matrix, over broadcasting stacks."""
    if options:
        reject(function, **options)
    if len(x.shape) < x_axes or len(y.shape) < y_axes or x.shape[-1] != y.shape[-y_axes]:
        raise mismatch(function, x, y, "the axes summed over must have one length; see numpy." + function)
    left, right = stack_labels(len(x.shape) - x_axes), stack_labels(len(y.shape) - y_axes)
    longer = max(left, right, key=len)
    if x_axes == 2:
        return product(function, x, (*left, 0, 1), y, (*right, 1), (*longer, 0))
    return product(function, conjugate(x), (*left, 0), y, (*right, 0, 1), (*longer, 1))


@implements_product(np.matvec)
def matvec(x: Any, y: Any, **options: Any) -> Any:
    """Matrix times vector; leading axes broadcast."""
    return _vector_product("matvec", x, y, 2, 1, options)


@implements_product(np.vecmat)
def vecmat(x: Any, y: Any, **options: Any) -> Any:
    """Conjugated vector times matrix; leading axes broadcast."""
    return _vector_product("vecmat", x, y, 1, 2, options)


def _multiply(x: Any, y: Any) -> Any:
    return traced_ufuncs[np.multiply](x, y)


@implements(np.dot)
def dot(a: Any, b: Any, out: Any = None) -> Any:
    """Sum over the last axis of `a` and the last but one of `b`; a product if one is a number."""
    reject("dot", out=out)
    x, y = operands(a, b)
    rows, columns = len(x.shape), len(y.shape)
    if not rows or not columns:
        return _multiply(x, y)
    j = max(columns - 2, 0)
    if x.shape[-1] != y.shape[j]:
        raise mismatch("dot", x, y, _MATCHING)
    return dot_general(x, y, contract=((rows - 1,), (j,)), batch=((), ()))


@implements(np.inner)
def inner(a: Any, b: Any, /) -> Any:
    """Sum over the last axes of both, without conjugation; a product if one is a number."""
    x, y = operands(a, b)
    if not x.shape or not y.shape:
        return _multiply(x, y)
    if x.shape[-1] != y.shape[-1]:
        raise mismatch("inner", x, y, "the last axes must have one length")
    return dot_general(x, y, contract=((len(x.shape) - 1,), (len(y.shape) - 1,)), batch=((), ()))


@implements(np.outer)
def outer(a: Any, b: Any, out: Any = None) -> Any:
    """All products of an element of `a` and one of `b`, both flattened."""
    reject("outer", out=out)
    x, y = map(flatten, operands(a, b))
    return dot_general(x, y, contract=((), ()), batch=((), ()))


@implements(np.vdot)
def vdot(a: Any, b: Any, /) -> Any:
    """Dot product of the flattened operands, the first conjugated."""
    x, y = operands(a, b)
    if math.prod(x.shape) != math.prod(y.shape):
        raise mismatch("vdot", x, y, "both operands need the same number of elements")
    return dot_general(flatten(conjugate(x)), flatten(y), contract=((0,), (0,)), batch=((), ()))


@implements(np.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """Sum over paired axes: the last `axes` of `a` with the first of `b`, or the two given lists of axes."""
    x, y = operands(a, b)
    if isinstance(axes, (list, tuple)) or np.ndim(axes):
        if len(axes) != 2:
            raise ArgumentError(
                "axes of tensordot is a number of axes, or a pair of lists of axes",
                where=user_line(),
                got=repr(axes),
                remedy="write axes=([axes of a], [axes of b])",
            )
        x_axes, y_axes = axes
        x_axes, y_axes = normalize_axes(x_axes, len(x.shape)), normalize_axes(y_axes, len(y.shape))
    else:
        axes = as_index(axes, "axes")
        x_axes, y_axes = tuple(range(len(x.shape) - axes, len(x.shape))), tuple(range(axes))
    lengths = [x.shape[i] for i in x_axes if i >= 0], [y.shape[j] for j in y_axes if j < len(y.shape)]
    if lengths[0] != lengths[1] or len(x_axes) != len(lengths[0]):
        raise mismatch("tensordot", x, y, "the paired axes must have equal lengths; give them as axes=([...], [...])")
    return dot_general(x, y, contract=(x_axes, y_axes), batch=((), ()))


@implements(np.kron)
def kron(a: Any, b: Any) -> Any:
    """Kronecker product: blocks of `b` scaled by the elements of `a`."""
    x, y = operands(a, b)
    ndim = max(len(x.shape), len(y.shape))
    x = reshape(x, shape=(1,) * (ndim - len(x.shape)) + x.shape)
    y = reshape(y, shape=(1,) * (ndim - len(y.shape)) + y.shape)
    blocks = dot_general(x, y, contract=((), ()), batch=((), ()))
    blocks = permute(blocks, tuple(axis for i in range(ndim) for axis in (i, ndim + i)))
    return reshape(blocks, shape=tuple(m * n for m, n in zip(x.shape, y.shape, strict=True)))


def _component(x: Any, start: int, stop: int) -> Any:
    stack = x.shape[:-1]
    return slice_(x, starts=(0,) * len(stack) + (start,), stops=(*stack, stop), steps=(1,) * len(x.shape))


def _with_zero(x: Any) -> Any:
    zeros = (0,) * len(x.shape)
    return pad(x, low=zeros, high=(*zeros[:-1], 1), interior=zeros)


def _roll(x: Any, by: int) -> Any:
    return concatenate(_component(x, by, 3), _component(x, 0, by), axis=len(x.shape) - 1)


@implements(np.cross)
def cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Any:
    """Cross product of vectors of length 3 (or 2, whose third component is 0)."""
    if axis is not None:
        axisa = axisb = axisc = axis
    x, y = operands(a, b)
    x, y = _at_axis(x, x, axisa)[0], _at_axis(y, y, axisb)[0]
    lengths = x.shape[-1], y.shape[-1]
    if not {*lengths} <= {2, 3}:
        raise mismatch("cross", x, y, "vectors must have 2 or 3 components")
    multiply, subtract = _multiply, traced_ufuncs[np.subtract]
    if lengths == (2, 2):
        parts = [_component(v, i, i + 1) for v in (x, y) for i in (0, 1)]
        out = subtract(multiply(parts[0], parts[3]), multiply(parts[1], parts[2]))
        return reshape(out, shape=out.shape[:-1])
    x, y = (v if v.shape[-1] == 3 else _with_zero(v) for v in (x, y))
    out = subtract(multiply(_roll(x, 1), _roll(y, 2)), multiply(_roll(x, 2), _roll(y, 1)))
    position, last = normalize_axis(axisc, len(out.shape)), len(out.shape) - 1
    return permute(out, inverse_permutation((*free_axes(last + 1, (position,)), position)))


@implements(np.trace)
def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: Any = None) -> Any:
    """Sum along a diagonal."""
    reject("trace", out=out)
    x = as_array(a)
    if len(x.shape) < 2:
        raise ShapeError(
            "trace needs at least two axes",
            where=user_line(),
            got=str(x.shape),
            remedy="pass a matrix or a stack of them",
        )
    first, second = normalize_axes((axis1, axis2), len(x.shape))
    wanted = checked_dtype(dtype) if dtype is not None else np.add.reduce(np.zeros(1, x.dtype)).dtype
    entries = cast(diagonal(x, as_index(offset, "offset"), first, second), wanted)
    return reduce_sum(entries, axes=(len(entries.shape) - 1,))
