"""Slices at places that a program computes: their sizes are fixed, their starts are values, clamped to fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import functrace.numpy as fnp
from functrace.errors import ArgumentError
from functrace.numpy._axes import as_index
from functrace.util import user_line

__all__ = [
    "dynamic_index_in_dim",
    "dynamic_slice",
    "dynamic_slice_in_dim",
    "dynamic_update_index_in_dim",
    "dynamic_update_slice",
    "dynamic_update_slice_in_dim",
]


def _require_fit(what: str, shape: Sequence[int], starts: Sequence[Any], sizes: Sequence[int]) -> None:
    if not all(isinstance(v, (tuple, list)) or np.shape(v) for v in (starts, sizes)):
        raise ArgumentError(
            f"{what} needs sequences of starts and sizes, one of each per axis",
            where=user_line(),
            got=f"{type(starts).__name__} and {type(sizes).__name__}",
            remedy="write (start,) for an array with one axis",
        )
    plain = all(isinstance(size, (int, np.integer)) and type(size) is not bool for size in sizes)
    if not plain or any(np.shape(start) != () for start in starts):
        raise ArgumentError(
            f"{what} takes integers as starts and as sizes",
            where=user_line(),
            got=f"starts {starts!r} and sizes {sizes!r}",
            remedy="give one integer per axis; only starts can be traced",
        )
    lengths = {len(shape), len(starts), len(sizes)}
    if len(lengths) > 1 or not all(0 <= size <= length for size, length in zip(sizes, shape, strict=True)):
        raise ArgumentError(
            f"{what} needs one start and one size per axis, and a slice no larger than the array",
            where=user_line(),
            got=f"{len(starts)} starts and sizes {tuple(sizes)} for shape {tuple(shape)}",
            remedy="give an index for every axis, and the slice's whole shape",
        )


def _clamped(start: Any, length: int, size: int) -> Any:
    start = fnp.where(fnp.less(start, 0), start + length, start)
    return fnp.clip(start, 0, length - size)


def dynamic_slice(operand: Any, start_indices: Sequence[Any], slice_sizes: Sequence[int]) -> Any:
    """The part of an array of the given shape that starts at the given indices, which may be traced.

    Args:
        operand: the array.
        start_indices: one integer per axis; negative ones count from the end, and a slice that would reach over the
            end is moved back.
        slice_sizes: the part's shape.

    Returns:
        The part.

    Raises:
        ArgumentError: starts and sizes do not fit the array.

    Example:
        >>> import numpy as np
        >>> from functrace import lax
        >>> lax.dynamic_slice(np.arange(5.0), (3,), (3,))
        array([2., 3., 4.])
    """
    shape = np.shape(operand)
    _require_fit("dynamic_slice", shape, start_indices, slice_sizes)
    for axis, (start, size) in enumerate(zip(start_indices, slice_sizes, strict=True)):
        if size < shape[axis]:
            operand = fnp.take(operand, _clamped(start, shape[axis], size) + np.arange(size), axis=axis)
    return operand


def dynamic_update_slice(operand: Any, update: Any, start_indices: Sequence[Any]) -> Any:
    """The array with the part that starts at the given indices replaced by `update`.

    Args:
        operand: the array; it is not changed.
        update: the new part, no larger than the array.
        start_indices: as for `dynamic_slice`.

    Returns:
        The new array.

    Raises:
        ArgumentError: the update does not fit the array.

    Example:
        >>> import numpy as np
        >>> from functrace import lax
        >>> lax.dynamic_update_slice(np.arange(5.0), np.array([7.0, 8.0]), (1,))
        array([0., 7., 8., 3., 4.])
    """
    shape, sizes = np.shape(operand), np.shape(update)
    _require_fit("dynamic_update_slice", shape, start_indices, sizes)
    if 0 in sizes:
        return fnp.array(operand)
    inside: Any = True
    for axis, (start, size) in enumerate(zip(start_indices, sizes, strict=True)):
        place = np.arange(shape[axis]) - _clamped(start, shape[axis], size)
        update = fnp.take(update, fnp.clip(place, 0, size - 1), axis=axis)
        row = fnp.logical_and(fnp.greater_equal(place, 0), fnp.less(place, size))
        inside = fnp.logical_and(inside, fnp.reshape(row, (-1, *(1,) * (len(shape) - axis - 1))))
    return fnp.where(inside, update, operand)


def _in_dim(operand: Any, start: Any, size: int, axis: int) -> tuple[list[Any], list[int]]:
    shape, axis = list(np.shape(operand)), as_index(axis, "axis")
    if not -len(shape) <= axis < len(shape):
        raise ArgumentError(
            "the array has no such axis", where=user_line(), got=f"axis={axis} of shape {tuple(shape)}",
            remedy=f"use an axis from {-len(shape)} to {len(shape) - 1}",
        )  # fmt: skip
    starts: list[Any] = [0] * len(shape)
    starts[axis], shape[axis] = start, size
    return starts, shape


def dynamic_slice_in_dim(operand: Any, start_index: Any, slice_size: int, axis: int = 0) -> Any:
    """`dynamic_slice` along one axis, whole along the others."""
    return dynamic_slice(operand, *_in_dim(operand, start_index, slice_size, axis))


def dynamic_index_in_dim(operand: Any, index: Any, axis: int = 0, keepdims: bool = True) -> Any:
    """One element along an axis, the axis kept with length 1 unless `keepdims` is false."""
    out = dynamic_slice_in_dim(operand, index, 1, axis)
    return out if keepdims else fnp.squeeze(out, axis)


def dynamic_update_slice_in_dim(operand: Any, update: Any, start_index: Any, axis: int) -> Any:
    """`dynamic_update_slice` along one axis."""
    return dynamic_update_slice(operand, update, _in_dim(operand, start_index, 0, axis)[0])


def dynamic_update_index_in_dim(operand: Any, update: Any, index: Any, axis: int) -> Any:
    """`dynamic_update_slice` of one element along an axis, which `update` may lack."""
    if np.ndim(update) != np.ndim(operand):
        update = fnp.expand_dims(update, axis)
    return dynamic_update_slice_in_dim(operand, update, index, axis)
