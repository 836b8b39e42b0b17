"""Kinks: where primitives are not differentiable, and what they are on either side; see `core.primitive.Kink`.

Where a function is positively homogeneous about its kink (|x| at 0, the larger of two equal numbers), its one-sided
derivative is the function itself, applied to the tangents. A piecewise constant one is looked at a little to the side.
NaN says that first derivatives do not tell. All of this works on plain NumPy values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.core.primitive import Kink

__all__ = [
    "choice", "comparison", "conversion", "cumulative_extremum", "cut", "extremum", "homogeneous", "insertion",
    "order", "partial_order", "position", "quotient", "root_power", "smaller", "sorted_ties", "spectrum",
    "step", "to_half", "to_integer", "truncation", "undetermined", "unit_edge",
]  # fmt: skip


def homogeneous(what: str, function: Callable[..., Any], distance: Callable[..., Any]) -> Kink:
    """Of a function f with f(x + t v) = f(x) + t f(v) for small t > 0 at the kink."""
    return Kink(what, distance, lambda operands, dots: (function(*operands), function(*dots)))


def choice(function: Callable[..., Any]) -> Kink:
    """Of the larger or smaller of two."""
    return homogeneous("tie", function, lambda x, y: np.abs(x - y))


def comparison(function: Callable[..., Any]) -> Kink:
    """Of a truth value of two numbers: which of them is the larger a step further on."""

    def limit(operands: Any, dots: Any) -> tuple[Any, Any]:
        return function(*dots), np.where(dots[0] == dots[1], np.nan, 0.0)

    return Kink("boundary", lambda x, y: np.abs(x - y), limit)


def step(function: Callable[..., Any], distance: Callable[..., Any]) -> Kink:
    """Of a piecewise constant function of one number."""

    def limit(operands: Any, dots: Any, **params: Any) -> tuple[Any, Any]:
        (x,), (x_dot,) = operands, dots
        moved = np.nextafter(x, np.where(x_dot > 0, np.inf, -np.inf).astype(x.dtype))
        return function(np.where(x_dot == 0, x, moved), **params), np.where(x_dot == 0, np.nan, 0.0)

    return Kink("jump", distance, limit)


def truncation(x: Any) -> Any:
    """How far a number is from where `trunc` jumps: the integers but 0."""
    return np.where(np.abs(x) < 0.5, 1.0 - np.abs(x), np.abs(x - np.rint(x)))


def quotient(rounding: Callable[..., Any], remainder: bool) -> Kink:
    """Of x // y, or of the remainder that it leaves: where x / y is an integer."""

    def distance(x: Any, y: Any) -> Any:
        whole = x / y
        gap = np.abs(whole - np.rint(whole))
        return np.where(np.abs(whole) < 0.5, 1.0 - np.abs(whole), gap) if rounding is np.trunc else gap

    def limit(operands: Any, dots: Any) -> tuple[Any, Any]:
        (x, y), (x_dot, y_dot) = operands, dots
        drift = (x_dot * y - x * y_dot) / (y * y)
        whole = np.rint(x / y)
        moved = rounding(np.nextafter(whole, np.where(drift > 0, np.inf, -np.inf)))
        unknown = np.where(drift == 0, np.nan, 0.0)
        return (x - moved * y, x_dot - moved * y_dot + unknown) if remainder else (moved, unknown)

    return Kink("jump", distance, limit)


def to_integer(x: Any) -> Any:
    """How far a number is from an integer."""
    return np.abs(x - np.rint(x))


def to_half(x: Any) -> Any:
    """How far a number is from half way between two integers."""
    return np.abs(x - np.floor(x) - 0.5)


def smaller(x: Any, y: Any) -> Any:
    """How far the nearer of two numbers is from 0."""
    return np.minimum(np.abs(x), np.abs(y))


def conversion() -> Kink:
    """Of the conversion to another dtype: integers cut the fraction off, truth values ask for 0."""

    def distance(x: Any, *, dtype: np.dtype) -> Any:
        return np.full(x.shape, np.inf) if dtype.kind in "fc" else np.abs(x) if dtype.kind == "b" else truncation(x)

    return step(lambda x, *, dtype: x.astype(dtype), distance)


def unit_edge() -> Kink:
    """Of an inverse function with infinite slope where |x| is 1, the edge of its domain."""
    return Kink("edge of the domain", lambda x: np.abs(np.abs(x) - 1))


def cut() -> Kink:
    """Of the angle of the point (y, x): it jumps by a turn at the negative x axis, and has no derivative at 0."""
    return Kink("jump of the angle", lambda x, y: np.where(y > 0, np.hypot(x, y), np.abs(x)))


def root_power() -> Kink:
    """Of x**y: a root of 0 (0 < y < 1). Higher powers have a derivative there."""
    return Kink("root of 0", lambda x, y: np.where((y > 0) & (y < 1), np.abs(x), np.inf))


def undetermined(what: str, distance: Callable[..., Any]) -> Kink:
    """Of a function whose behaviour there the first derivatives of its operands do not tell."""
    return Kink(what, distance)


def extremum(sign: int) -> Kink:
    """Of the maximum (`sign` 1) or minimum (-1) over axes: all that attain it compete."""

    def distance(x: Any, *, axes: tuple[int, ...]) -> Any:
        flat = _merged(x, axes)
        if flat.shape[-1] < 2:
            return np.full(flat.shape[:-1], np.inf)
        top = np.partition(sign * flat, -2, axis=-1)
        return top[..., -1] - top[..., -2]

    def limit(operands: Any, dots: Any, *, axes: tuple[int, ...]) -> tuple[Any, Any]:
        flat, moves = _merged(operands[0], axes), _merged(dots[0], axes)
        best = np.max(sign * flat, axis=-1, keepdims=True)
        fastest = np.max(np.where(sign * flat == best, sign * moves, -np.inf), axis=-1)
        return sign * best[..., 0], sign * fastest

    return Kink("tie", distance, limit)


def _merged(x: Any, axes: tuple[int, ...]) -> Any:
    """With the reduced axes as the last one."""
    kept = tuple(i for i in range(x.ndim) if i not in axes)
    return x.transpose(kept + tuple(axes)).reshape(*(x.shape[i] for i in kept), -1)


def position(sign: int) -> Kink:
    """Of where the maximum (`sign` 1) or minimum (-1) along an axis is."""
    by_value = extremum(sign)
    return Kink("tie", lambda x, *, axis: by_value.distance(x, axes=(axis,)))


def order() -> Kink:
    """Of the order of elements along an axis."""
    by_value = sorted_ties()
    return Kink("tie", lambda x, *, axis, kind: by_value.distance(x, axis=axis))


def partial_order() -> Kink:
    """Of which elements belong below and above given places along an axis: ties at these places."""

    def distance(x: Any, *, kth: Any, axis: int) -> Any:
        gaps = sorted_ties().distance(x, axis=axis)
        found = np.full(gaps.shape, np.inf)
        places = [slice(None)] * x.ndim
        for k in np.ravel(kth):
            places[axis] = k
            found[tuple(places)] = gaps[tuple(places)]
        return found

    return Kink("tie", distance)


def spectrum(what: str, values: Callable[..., Any]) -> Kink:
    """Of a decomposition: where two of its values (which come sorted) are equal, these cross."""

    def distance(a: Any, **params: Any) -> Any:
        found = values(a)
        gaps = np.abs(np.diff(found, axis=-1))
        edge = np.full((*found.shape[:-1], 1), np.inf)
        return np.minimum(np.concatenate([edge, gaps], -1), np.concatenate([gaps, edge], -1))

    return Kink(what, distance)


def insertion() -> Kink:
    """Of the place of values among sorted ones: where they are equal."""

    def distance(a: Any, v: Any, *, side: str) -> Any:
        a, v = _paired(a, v)
        return np.min(np.abs(a - v), axis=-1, initial=np.inf)

    def limit(operands: Any, dots: Any, *, side: str) -> tuple[Any, Any]:
        (a, v), (a_dot, v_dot) = _paired(*operands), _paired(*dots)
        below = (a < v) | ((a == v) & (a_dot < v_dot))
        unknown = ((a == v) & (a_dot == v_dot)).any(axis=-1)
        return below.sum(axis=-1), np.where(unknown, np.nan, 0.0)

    return Kink("knot", distance, limit)


def _paired(a: Any, v: Any) -> tuple[Any, Any]:
    """Sorted values along a last axis, to be compared with the values beside them; see `searchsorted`."""
    return a.reshape(*a.shape[:-1], *(1,) * (v.ndim - a.ndim + 1), a.shape[-1]), v[..., None]


def sorted_ties() -> Kink:
    """Of sorting: equal elements are sorted by how fast they grow."""

    def distance(x: Any, *, axis: int) -> Any:
        gaps = np.abs(np.diff(np.sort(x, axis), axis=axis))
        edge = np.full((*x.shape[:axis], 1, *x.shape[axis + 1 :]), np.inf)
        return np.minimum(np.concatenate([edge, gaps], axis), np.concatenate([gaps, edge], axis))

    def limit(operands: Any, dots: Any, *, axis: int) -> tuple[Any, Any]:
        order = np.lexsort((dots[0], operands[0]), axis=axis)
        return np.take_along_axis(operands[0], order, axis), np.take_along_axis(dots[0], order, axis)

    return Kink("tie", distance, limit)


def cumulative_extremum(sign: int) -> Kink:
    """Of the running maximum (`sign` 1) or minimum (-1) along an axis."""

    def ordered(x: Any, axis: int, reverse: bool) -> Any:
        rows = np.moveaxis(sign * x, axis, 0)
        return rows[::-1] if reverse else rows

    def restored(rows: Any, axis: int, reverse: bool) -> Any:
        return np.moveaxis(rows[::-1] if reverse else rows, 0, axis)

    def distance(x: Any, *, axis: int, reverse: bool) -> Any:
        rows = ordered(x, axis, reverse)
        gaps = np.full(rows.shape, np.inf)
        gaps[1:] = np.abs(rows[1:] - np.maximum.accumulate(rows, axis=0)[:-1])
        tied = np.zeros(rows.shape, bool)  # a tie lasts as long as the value that was tied
        for k in range(1, len(rows)):
            tied[k] = (gaps[k] == 0) | (tied[k - 1] & (rows[k] < rows[:k].max(axis=0)))
        return restored(np.where(tied, 0.0, gaps), axis, reverse)

    def limit(operands: Any, dots: Any, *, axis: int, reverse: bool) -> tuple[Any, Any]:
        rows, moves = ordered(operands[0], axis, reverse).copy(), ordered(dots[0], axis, reverse).copy()
        for k in range(1, len(rows)):
            behind = (rows[k] < rows[k - 1]) | ((rows[k] == rows[k - 1]) & (moves[k] < moves[k - 1]))
            rows[k], moves[k] = np.where(behind, rows[k - 1], rows[k]), np.where(behind, moves[k - 1], moves[k])
        return sign * restored(rows, axis, reverse), sign * restored(moves, axis, reverse)

    return Kink("tie", distance, limit)
