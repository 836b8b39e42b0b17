"""Prefix sums of any associative operation, in logarithmic depth: associative_scan, cumsum and its like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import functrace.numpy as fnp
from functrace import tree
from functrace.control._functions import flatten_values
from functrace.core.types import aval_of
from functrace.errors import ArgumentError, CarryError
from functrace.numpy._axes import as_index
from functrace.transforms._flatten import check_functions
from functrace.util import user_line

__all__ = ["associative_scan", "cummax", "cummin", "cumprod", "cumsum"]


def associative_scan(fn: Callable[[Any, Any], Any], elems: Any, reverse: bool = False, axis: int = 0) -> Any:
    """All prefixes combined by an associative operation: element i is `elems[0] * elems[1] * ... * elems[i]`.

    The operation is applied to many elements at once, 2 log2(n) times instead of n - 1.

    Args:
        fn: `fn(a, b)` combines, element by element along `axis`, two arrays (or pytrees) of the elements' type.
        elems: array or pytree of arrays of one length along `axis`.
        reverse: whether to start from the last element: element i is then `elems[-1] * elems[-2] * ... * elems[i]`.
        axis: the axis along which the elements stand.

    Returns:
        The combined elements, of the type of `elems`.

    Raises:
        ArgumentError: the lengths differ, or an array has no such axis.
        CarryError: `fn` changes the elements' type.

    Example:
        >>> import numpy as np
        >>> from functrace import lax
        >>> lax.associative_scan(np.maximum, np.array([1.0, 3.0, 2.0, 4.0]))
        array([1., 3., 3., 4.])
    """
    check_functions("associative_scan", fn=fn)
    axis = as_index(axis, "axis")
    leaves, structure, _ = flatten_values(elems)
    avals = [aval_of(leaf) for leaf in leaves]
    if not all(-a.ndim <= axis < a.ndim for a in avals) or len({a.shape[axis] for a in avals}) != 1:
        raise ArgumentError(
            "associative_scan needs arrays of one length along its axis",
            where=user_line(),
            got=f"axis={axis} of {', '.join(map(str, avals)) or 'no arrays'}",
            remedy="give arrays of one length, and an axis that all of them have",
        )
    axes = [axis % a.ndim for a in avals]

    def combine(first: list[Any], second: list[Any]) -> list[Any]:
        found, out_tree, _ = flatten_values(fn(tree.unflatten(structure, first), tree.unflatten(structure, second)))
        if out_tree != structure or [aval_of(x) for x in found] != [aval_of(x) for x in first]:
            raise CarryError(
                "the operation of associative_scan changes the type of the elements",
                where=user_line(),
                got=f"{', '.join(str(aval_of(x)) for x in first)} in, {', '.join(str(aval_of(x)) for x in found)} out",
                remedy="return arrays of the structure, shapes and dtypes of the operands",
            )
        return found

    def part(values: list[Any], *bounds: int | None) -> list[Any]:
        return [x[(slice(None),) * a + (slice(*bounds),)] for x, a in zip(values, axes, strict=True)]

    if reverse:
        leaves = part(leaves, None, None, -1)
    outs = _prefixes(combine, leaves, axes, part)
    return tree.unflatten(structure, part(outs, None, None, -1) if reverse else outs)


def _prefixes(combine: Any, values: list[Any], axes: list[int], part: Callable[..., list[Any]]) -> list[Any]:
    """Combine neighbours, find the prefixes of the pairs (those at odd places), and from them those at even places."""
    length = values[0].shape[axes[0]]
    if length < 2:
        return [fnp.array(x) for x in values]
    odd = _prefixes(combine, combine(part(values, 0, length - 1, 2), part(values, 1, None, 2)), axes, part)
    even = part(values, 0, 1)
    if length > 2:
        later = combine(part(odd, 0, (length - 1) // 2), part(values, 2, None, 2))
        even = [fnp.concatenate([x, y], axis=a) for x, y, a in zip(even, later, axes, strict=True)]
    pairs = [_interleave(x, y, a) for x, y, a in zip(part(even, 0, length // 2), odd, axes, strict=True)]
    if length % 2 == 0:
        return pairs
    return [fnp.concatenate([x, y], axis=a) for x, y, a in zip(pairs, part(even, length // 2, None), axes, strict=True)]


def _interleave(x: Any, y: Any, axis: int) -> Any:
    shape = (*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
    return fnp.reshape(fnp.stack([x, y], axis=axis + 1), shape)


def cumsum(operand: Any, axis: int = 0, reverse: bool = False) -> Any:
    """Cumulative sums along an axis, from its end if `reverse`."""
    return _directed(fnp.cumsum, operand, axis, reverse)


def cumprod(operand: Any, axis: int = 0, reverse: bool = False) -> Any:
    """Cumulative products along an axis, from its end if `reverse`."""
    return _directed(fnp.cumprod, operand, axis, reverse)


def cummax(operand: Any, axis: int = 0, reverse: bool = False) -> Any:
    """Largest elements so far along an axis, from its end if `reverse`; ties share the derivative."""
    return associative_scan(np.maximum, operand, reverse, axis)


def cummin(operand: Any, axis: int = 0, reverse: bool = False) -> Any:
    """Smallest elements so far along an axis, from its end if `reverse`; ties share the derivative."""
    return associative_scan(np.minimum, operand, reverse, axis)


def _directed(function: Any, operand: Any, axis: int, reverse: bool) -> Any:
    if not reverse:
        return function(operand, axis=axis)
    return fnp.flip(function(fnp.flip(operand, axis), axis=axis), axis)
