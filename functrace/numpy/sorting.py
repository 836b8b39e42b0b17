"""Sorting in traced form. Tangents move with the elements; among equal elements the stable order decides."""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.errors import ArgumentError, ShapeError
from functrace.numpy._axes import normalize_axes, normalize_axis
from functrace.numpy._dispatch import reject
from functrace.numpy._promotion import as_array, has_tracer
from functrace.numpy._reducing import same_option
from functrace.numpy._structural import as_arrays, fresh, single_axis, structural
from functrace.primitives import sorting as primitives
from functrace.primitives.sorting import take_along
from functrace.util import user_line

__all__ = ["argpartition", "argsort", "lexsort", "partition", "sort"]

_KINDS = (None, "quicksort", "heapsort", "mergesort", "stable")


def _operand(function: str, a: Any, axis: int | None, order: Any = None) -> tuple[Any, int]:
    """The array and the axis to sort, flattened for axis None."""
    reject(function, order=order)
    return single_axis(as_array(a), axis)


def _kind(function: str, kind: Any, stable: Any) -> str:
    """The algorithm, by NumPy's name."""
    same_option(function, "kind", kind, _KINDS)  # type: ignore[arg-type]
    if stable is not None and kind is not None:
        raise ArgumentError(
            f"kind and stable of numpy.{function} exclude each other",
            where=user_line(),
            got=f"kind={kind!r}, stable={stable}",
            remedy="give one of them",
        )
    return "stable" if stable else kind or "quicksort"


@structural(np.sort)
def sort(a: Any, axis: int | None = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
    """The elements in ascending order along an axis."""
    _kind("sort", kind, stable)
    x, place = _operand("sort", a, axis, order)
    return primitives.sort(x, axis=place)


@structural(np.argsort)
def argsort(a: Any, axis: int | None = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
    """The positions that would sort the array: integers, without derivative."""
    kind = _kind("argsort", kind, stable)
    x, place = _operand("argsort", a, axis, order)
    return primitives.argsort(x, axis=place, kind=kind)


@structural(np.lexsort)
def lexsort(keys: Any, axis: int = -1) -> Any:
    """The positions that sort by several keys, the last one first: integers, without derivative."""
    rows = as_arrays("lexsort", keys)
    shape = rows[0].shape
    if any(row.shape != shape for row in rows):
        raise ShapeError(
            "keys of numpy.lexsort must have one shape",
            where=user_line(),
            got=", ".join(str(row.shape) for row in rows),
            remedy="broadcast them first",
        )
    if not shape:
        return np.intp(0)
    place = normalize_axis(axis, len(shape))
    order = primitives.argsort(rows[0], axis=place, kind="stable")
    for row in rows[1:]:
        step = primitives.argsort(take_along(row, order, place, True), axis=place, kind="stable")
        order = take_along(order, step, place, True)
    return order


def _kth(kth: Any, length: int) -> tuple[int, ...]:
    """The positions that a partition puts in order."""
    if has_tracer(kth):
        raise ArgumentError(
            "kth of a partition must be known",
            where=user_line(),
            got="a traced value",
            remedy="pass Python integers, or use numpy.sort and index the result",
        )
    return normalize_axes(tuple(dict.fromkeys(np.ravel(kth).tolist())), length, "kth")


@structural(np.argpartition)
def argpartition(a: Any, kth: Any, axis: int | None = -1, kind: str = "introselect", order: Any = None) -> Any:
    """The positions that would partition the array: integers, without derivative."""
    x, place = _operand("argpartition", a, axis, order)
    return primitives.argpartition(x, kth=_kth(kth, x.shape[place]), axis=place)


@structural(np.partition)
def partition(a: Any, kth: Any, axis: int | None = -1, kind: str = "introselect", order: Any = None) -> Any:
    """The array with the elements at `kth` where sorting puts them, smaller ones before and larger ones behind."""
    x, place = _operand("partition", a, axis, order)
    positions = primitives.argpartition(x, kth=_kth(kth, x.shape[place]), axis=place)
    return take_along(x, positions, place, True) if positions.shape else fresh(x)
