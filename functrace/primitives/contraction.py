"""Contraction: `dot_general`, the one primitive behind dot, matmul, einsum, tensordot and their derivatives.

`contract` and `batch` are pairs of axes: those of x and, in the same order, those of y. The result's axes are the batch
axes, then the free axes of x, then the free axes of y. No operand is conjugated.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.types import ShapedArray
from functrace.core.work import Layout, Work, row_major
from functrace.errors import ShapeError
from functrace.primitives import _library, _moves
from functrace.primitives._structures import contraction
from functrace.primitives.bilinear import bilinear
from functrace.primitives.families import reshape, same_dtype
from functrace.primitives.shape import inverse_permutation, slice_, transpose
from functrace.util import user_line

__all__ = ["Axes", "diagonal", "dot_general", "matmul", "permute"]

Axes = tuple[tuple[int, ...], tuple[int, ...]]

_IDENTITIES = [tuple(range(n)) for n in range(65)]


def free_axes(ndim: int, *used: tuple[int, ...]) -> tuple[int, ...]:
    """The axes in none of `used`, in order."""
    taken = {axis for axes in used for axis in axes}
    return tuple(axis for axis in range(ndim) if axis not in taken)


def permute(x: Any, permutation: tuple[int, ...]) -> Any:
    """`transpose`, left out when it changes nothing."""
    return x if permutation == _IDENTITIES[len(permutation)] else transpose(x, permutation=permutation)


# evaluation: the NumPy call that suits the axes is chosen once per arrangement of axes


def _outer_plan(ndims: tuple[int, int], batch: Axes) -> Callable[[Any, Any], Any]:
    """Nothing is summed: a broadcast product."""
    x_free, y_free = free_axes(ndims[0], batch[0]), free_axes(ndims[1], batch[1])
    x_order, y_order, batches = batch[0] + x_free, batch[1] + y_free, len(batch[0])
    x_ones, y_ones = (1,) * len(y_free), (1,) * len(x_free)
    if not batches:
        return lambda x, y: x.reshape(x.shape + x_ones) * y

    def evaluate(x: Any, y: Any) -> Any:
        x, y = x.transpose(x_order), y.transpose(y_order)
        return x.reshape(x.shape + x_ones) * y.reshape(y.shape[:batches] + y_ones + y.shape[batches:])

    return evaluate


def _flat_plan(ndims: tuple[int, int], contract: Axes) -> Callable[[Any, Any], Any]:
    """No batch axes: one matrix product of the operands seen as matrices."""
    x_free, y_free = free_axes(ndims[0], contract[0]), free_axes(ndims[1], contract[1])
    larger = int(ndims[1] > ndims[0])  # keeps the order of its axes, so that it need not be copied
    pairs = sorted(zip(*contract, strict=True), key=operator.itemgetter(larger))
    x_contract, y_contract = tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)

    def evaluate(x: Any, y: Any) -> Any:
        x, y = x.transpose(x_free + x_contract), y.transpose(y_contract + y_free)
        x_shape, y_shape = x.shape[: len(x_free)], y.shape[len(y_contract) :]
        length = math.prod(y.shape[: len(y_contract)])
        rows, columns = x.reshape(math.prod(x_shape), length), y.reshape(length, math.prod(y_shape))
        return rows.dot(columns).reshape(x_shape + y_shape)

    return evaluate


def _batched_plan(ndims: tuple[int, int], contract: Axes, batch: Axes) -> Callable[[Any, Any], Any]:
    """A stack of matrix products."""
    x_free, y_free = free_axes(ndims[0], contract[0], batch[0]), free_axes(ndims[1], contract[1], batch[1])
    x_order, y_order, batches = batch[0] + x_free + contract[0], batch[1] + contract[1] + y_free, len(batch[0])
    simple = len(x_free) == len(y_free) == len(contract[0]) == 1

    def evaluate(x: Any, y: Any) -> Any:
        x, y = x.transpose(x_order), y.transpose(y_order)
        if simple:
            return np.matmul(x, y)
        stack = x.shape[:batches]
        x_shape, y_shape = x.shape[batches : batches + len(x_free)], y.shape[batches + len(contract[0]) :]
        length = math.prod(x.shape[batches + len(x_free) :])
        rows = x.reshape(*stack, math.prod(x_shape), length)
        columns = y.reshape(*stack, length, math.prod(y_shape))
        return np.matmul(rows, columns).reshape(stack + x_shape + y_shape)

    return evaluate


def _stacked_left(x: Any, y: Any) -> Any:
    """x[..., k, i] y[k, j]: the strided product avoids a copy of x."""
    return np.matmul(x.swapaxes(-1, -2), y)


def _stacked_right(x: Any, y: Any) -> Any:
    """x[i, k] y[..., k, j], likewise."""
    return np.moveaxis(np.matmul(x, y), -2, 0)


_MATRIX_PRODUCTS: dict[Any, Callable[[Any, Any], Any]] = {
    (1, 1, 0, 0): lambda x, y: x.dot(y),
    (1, 2, 0, 0): lambda x, y: x.dot(y),
    (1, 2, 0, 1): lambda x, y: y.dot(x),
    (2, 1, 1, 0): lambda x, y: x.dot(y),
    (2, 1, 0, 0): lambda x, y: y.dot(x),
    (2, 2, 1, 0): lambda x, y: x.dot(y),
    (2, 2, 1, 1): lambda x, y: x.dot(y.T),
    (2, 2, 0, 0): lambda x, y: x.T.dot(y),
    (2, 2, 0, 1): lambda x, y: x.T.dot(y.T),
}


def _plan(ndims: tuple[int, int], contract: Axes, batch: Axes) -> Callable[[Any, Any], Any]:
    if not contract[0]:
        return _outer_plan(ndims, batch)
    if batch[0]:
        return _batched_plan(ndims, contract, batch)
    if len(contract[0]) == 1:
        (i,), (j,) = contract
        product = _MATRIX_PRODUCTS.get((*ndims, i, j))
        if product is not None:
            return product
        if ndims[0] > 2 and i == ndims[0] - 2 and ndims[1] == 2 and j == 0:
            return _stacked_left
        if ndims[1] > 2 and j == ndims[1] - 2 and ndims[0] == 2 and i == 1:
            return _stacked_right
    return _flat_plan(ndims, contract)


_plans: dict[Any, Callable[[Any, Any], Any]] = {}


def _impl(x: Any, y: Any, *, contract: Axes, batch: Axes) -> Any:
    key = (x.ndim, y.ndim, contract, batch)
    plan = _plans.get(key)
    if plan is None:
        plan = _plans[key] = _plan((x.ndim, y.ndim), contract, batch)
    out = plan(x, y)
    return out if out.ndim else out[()]


def _aval(x: ShapedArray, y: ShapedArray, *, contract: Axes, batch: Axes) -> ShapedArray:
    for axes in (contract, batch):
        if [x.shape[i] for i in axes[0]] != [y.shape[j] for j in axes[1]]:
            raise ShapeError(
                "contracted and batch axes need equal lengths in both operands",
                where=user_line(),
                got=f"{x} and {y} with contract={contract}, batch={batch}",
                remedy="transpose or reshape the operands so that the paired axes agree",
            )
    shape = [x.shape[i] for i in batch[0]]
    shape += [x.shape[i] for i in free_axes(x.ndim, contract[0], batch[0])]
    shape += [y.shape[j] for j in free_axes(y.ndim, contract[1], batch[1])]
    return ShapedArray(tuple(shape), same_dtype("dot_general", x.dtype, y.dtype))


# the cotangent contracts with the other operand over the free axes that came from it


@functools.lru_cache(maxsize=4096)
def _left_axes(ndims: tuple[int, int], contract: Axes, batch: Axes) -> tuple[Axes, Axes, tuple[int, ...]]:
    """How the cotangent and y give the cotangent of x: axes to contract, batch axes, and the final order of axes."""
    batches = tuple(range(len(batch[0])))
    x_free = free_axes(ndims[0], contract[0], batch[0])
    y_free = free_axes(ndims[1], contract[1], batch[1])
    first = len(batches) + len(x_free)
    by_y = dict(zip(contract[1], contract[0], strict=True))
    order = inverse_permutation(batch[0] + x_free + tuple(by_y[j] for j in sorted(by_y)))
    return (tuple(range(first, first + len(y_free))), y_free), (batches, batch[1]), order


@functools.lru_cache(maxsize=4096)
def _right_axes(ndims: tuple[int, int], contract: Axes, batch: Axes) -> tuple[Axes, Axes, tuple[int, ...]]:
    """Likewise for x and the cotangent."""
    batches = tuple(range(len(batch[0])))
    x_free = free_axes(ndims[0], contract[0], batch[0])
    y_free = free_axes(ndims[1], contract[1], batch[1])
    by_x = dict(zip(contract[0], contract[1], strict=True))
    order = inverse_permutation(batch[1] + tuple(by_x[i] for i in sorted(by_x)) + y_free)
    return (x_free, tuple(range(len(batches), len(batches) + len(x_free)))), (batch[0], batches), order


def _transpose_left(bar: Any, x: ShapedArray, y: Any, *, contract: Axes, batch: Axes) -> Any:
    axes, batches, order = _left_axes((x.ndim, len(y.shape)), contract, batch)
    return permute(dot_general(bar, y, contract=axes, batch=batches), order)


def _transpose_right(bar: Any, x: Any, y: ShapedArray, *, contract: Axes, batch: Axes) -> Any:
    axes, batches, order = _right_axes((len(x.shape), y.ndim), contract, batch)
    return permute(dot_general(x, bar, contract=axes, batch=batches), order)


def _shift(axes: tuple[int, ...], by: bool) -> tuple[int, ...]:
    return tuple(axis + by for axis in axes)


def _batch(
    size: int, values: list[Any], batched: list[bool], *, contract: Axes, batch: Axes
) -> tuple[list[Any], list[bool]]:
    """Both batched: one more batch axis. One batched: one more free axis, so that it stays one matrix product."""
    x, y = values
    contract = (_shift(contract[0], batched[0]), _shift(contract[1], batched[1]))
    moved = (_shift(batch[0], batched[0]), _shift(batch[1], batched[1]))
    if all(batched):
        return [dot_general(x, y, contract=contract, batch=((0, *moved[0]), (0, *moved[1])))], [True]
    out = dot_general(x, y, contract=contract, batch=moved)
    position = len(moved[0])
    if batched[1]:
        position += len(free_axes(len(x.shape), contract[0], moved[0]))
    rest = tuple(axis for axis in range(len(out.shape)) if axis != position)
    return [permute(out, (position, *rest))], [True]


def _is_matrix(x: Layout) -> bool:
    """Whether BLAS reads this stack of matrices, or its transpose, where it lies."""
    if x.ndim < 2 or 0 in x.shape:
        return True
    (rows, columns), (down, across) = x.shape[-2:], x.strides[-2:]
    return (across == 1 and down >= columns) or (down == 1 and across >= rows) or 1 in (rows, columns)


def _cost(operands: Sequence[Layout], outs: Sequence[ShapedArray], *, contract: Axes, batch: Axes) -> Work:
    """A product and a sum for each pair of elements that meet; operands that BLAS cannot read in place are copied."""
    x, y = operands
    out = outs[0]
    pairs = out.size * math.prod(x.shape[i] for i in contract[0])
    flops = (8 if out.dtype.kind == "c" else 2) * pairs
    if not contract[0]:
        return Work(flops // 2 if out.dtype.kind != "c" else 6 * pairs)
    free = free_axes(x.ndim, contract[0], batch[0]), free_axes(y.ndim, contract[1], batch[1])
    result = None
    if not batch[0] and len(contract[0]) == 1 and y.ndim > 2 == x.ndim and contract == ((1,), (y.ndim - 2,)):
        moved = row_major((*(y.shape[a] for a in free[1][:-1]), x.shape[0], y.shape[-1]))
        result = (moved[-2], *moved[:-2], moved[-1])
        scratch = 0
    elif not batch[0] and len(contract[0]) == 1 and x.ndim > 2 == y.ndim and contract == ((x.ndim - 2,), (0,)):
        scratch = 0
    else:
        scratch = sum(
            0 if _in_place(operand, order, len(batch[0]), sizes) else operand.bytes
            for operand, order, sizes in (
                (x, batch[0] + free[0] + contract[0], (len(free[0]), len(contract[0]))),
                (y, batch[1] + contract[1] + free[1], (len(contract[1]), len(free[1]))),
            )
        )
    dense = flops if out.dtype.kind in "fc" else 0
    return Work(flops, dense, scratch=scratch, results=[result])


def _in_place(x: Layout, order: tuple[int, ...], stack: int, sizes: tuple[int, int]) -> bool:
    """Whether an operand, its axes in order and grouped to rows and columns, is a matrix without being copied."""
    moved = x.transposed(order)
    shape = (
        *moved.shape[:stack],
        math.prod(moved.shape[stack : stack + sizes[0]]),
        math.prod(moved.shape[stack + sizes[0] :]),
    )
    strides = moved.reshaped(shape)
    return strides is not None and _is_matrix(Layout(ShapedArray(shape, x.dtype), strides))


def _formula(x: ShapedArray, y: ShapedArray, *, contract: Any, batch: Any) -> str:
    """A product of vectors and matrices as such, any other contraction with its axes."""
    if not contract[0] and not batch[0] and max(x.ndim, y.ndim) <= 1:
        return "outer(x, y)" if x.ndim and y.ndim else "x * y"
    if x.ndim > 2 or y.ndim > 2 or batch[0] or len(contract[0]) != 1:
        return f"dot(x, y, {tuple(contract[0])}, {tuple(contract[1])})"
    left = "x" if contract[0][0] == x.ndim - 1 else "transpose(x)"
    right = "y" if contract[1][0] == 0 else "transpose(y)"
    return f"{left} @ {right}"


dot_general = bilinear(
    "dot_general",
    _impl,
    _aval,
    _transpose_left,
    _transpose_right,
    _batch,
    formula=_formula,
    sparsity=contraction,
    cost=_cost,
    lower=(_moves.outer, _moves.contraction, _library.contraction),
)


# what the rules of other primitives are written in


def matmul(x: Any, y: Any) -> Any:
    """The product of two matrices, or of two equally shaped stacks of matrices."""
    stack = tuple(range(len(x.shape) - 2))
    return dot_general(x, y, contract=((len(stack) + 1,), (len(stack),)), batch=(stack, stack))


def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The diagonal of two axes as the last axis; axes are non-negative and different."""
    rest = free_axes(len(x.shape), (axis1, axis2))
    x = permute(x, (*rest, axis1, axis2))
    stack, (rows, columns) = x.shape[:-2], x.shape[-2:]
    length = max(min(rows + min(offset, 0), columns - max(offset, 0)), 0)
    flat = reshape(x, shape=(*stack, rows * columns))
    start = (offset if offset >= 0 else -offset * columns) if length else 0
    stop = start + (length - 1) * (columns + 1) + 1 if length else 0
    zeros, ones = (0,) * len(stack), (1,) * len(stack)
    return slice_(flat, starts=(*zeros, start), stops=(*stack, stop), steps=(*ones, columns + 1))
