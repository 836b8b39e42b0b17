"""Axes and shape arguments in one normal form: tuples of non-negative Python integers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.trace import Tracer, abstract
from functrace.errors import ArgumentError, ShapeError
from functrace.util import user_line

__all__ = [
    "as_index",
    "as_lengths",
    "as_shape",
    "concrete_integers",
    "normalize_axes",
    "normalize_axis",
    "numpy_index_map",
    "reduction_axes",
]


def as_index(value: Any, what: str) -> int:
    """A Python integer, as NumPy takes one for a length, an axis or a count.

    Raises:
        ArgumentError: it is none.
    """
    try:
        return operator.index(value)
    except TypeError:
        if isinstance(value, Tracer) and value.dtype.kind in "iub":
            raise abstract(value, f"needs {what} as an integer") from None
        raise ArgumentError(
            f"{what} must be an integer",
            where=user_line(),
            got=repr(value),
            remedy="pass a Python integer; shapes, axes and counts cannot depend on traced numbers",
        ) from None


def normalize_axis(axis: Any, ndim: int, what: str = "axis") -> int:
    """A non-negative axis of an array of `ndim` axes.

    Raises:
        ShapeError: there is no such axis.
    """
    index = axis if type(axis) is int else as_index(axis, what)
    if not -ndim <= index < ndim:
        raise ShapeError(
            f"{what} {index} is out of bounds for an array of dimension {ndim}",
            where=user_line(),
            got=f"{what}={index}",
            remedy=f"use {what} from {-ndim} to {ndim - 1}"
            if ndim
            else "the array is a scalar without axes; add one with numpy.expand_dims or x[None]",
        )
    return index % ndim


def normalize_axes(axes: Any, ndim: int, what: str = "axis") -> tuple[int, ...]:
    """Distinct non-negative axes, in the order given, from an integer or a sequence of them.

    Raises:
        ShapeError: an axis does not exist or is repeated.
    """
    if isinstance(axes, Sequence) or (hasattr(axes, "__iter__") and np.ndim(axes)):
        found = tuple(normalize_axis(a, ndim, what) for a in axes)
    else:
        found = (normalize_axis(axes, ndim, what),)
    if len(set(found)) < len(found):
        raise ShapeError(
            f"{what} names an axis twice", where=user_line(), got=repr(axes), remedy="name each axis at most once"
        )
    return found


def reduction_axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """The axes a reduction works over, ascending: all of them for None."""
    return tuple(range(ndim)) if axis is None else tuple(sorted(normalize_axes(axis, ndim)))


def as_shape(shape: Any) -> tuple[int, ...]:
    """A shape from an integer or a sequence of integers; negative lengths stay for the caller."""
    if type(shape) is tuple and all([type(n) is int for n in shape]):
        return shape
    if isinstance(shape, Sequence) or (hasattr(shape, "__iter__") and np.ndim(shape)):
        return tuple(as_index(n, "a length in a shape") for n in shape)
    return (as_index(shape, "a length in a shape"),)


def as_lengths(shape: Any) -> tuple[int, ...]:
    """The shape of a new array, from an integer or a sequence of integers.

    Raises:
        ShapeError: a length is negative.
    """
    found = as_shape(shape)
    if any(n < 0 for n in found):
        raise ShapeError(
            "lengths in a shape must not be negative", where=user_line(), got=repr(shape), remedy="use lengths from 0"
        )
    return found


def concrete_integers(value: Any, what: str) -> np.ndarray:
    """An argument that steers shapes (counts, positions) as an integer or boolean array, traced integers included.

    Raises:
        ArgumentError: it holds something else.
    """
    try:
        array = np.asarray(value.concrete() if isinstance(value, Tracer) else value)
    except ValueError:  # a ragged nest of sequences
        array = np.asarray(None)
    if array.dtype.kind in "iub" or array.size == 0:
        return array if array.size else array.astype(np.intp)
    raise ArgumentError(
        f"{what} must be integers",
        where=user_line(),
        got=f"dtype {array.dtype}",
        remedy="pass Python integers or an integer array; shapes cannot depend on traced numbers",
    )


def numpy_index_map(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What NumPy makes of plain (index) arrays, its complaints about arguments as ours.

    Raises:
        ShapeError: NumPy refused the arguments.
    """
    try:
        return function(*args, **kwargs)
    except (ValueError, IndexError, TypeError) as error:
        raise ShapeError(
            f"numpy.{function.__name__}: {error}",
            where=user_line(),
            remedy="correct the argument; numpy's documentation of the function says what it takes",
        ) from None
