"""Cases of the indexing primitives: static parts, gathers, and scatters with and without repeated indices."""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.primitives import indexing as p
from functrace.primitives import scatter
from functrace.testing import Case

rng = np.random.default_rng(20260704)


def normal(*shape: int) -> Any:
    return rng.normal(size=shape)[()] if not shape else rng.normal(size=shape)


def spread(*shape: int) -> np.ndarray:
    """Values far from each other, so that extrema are far from ties."""
    size = int(np.prod(shape))
    return rng.permutation(np.linspace(-2.0, 2.0, size)).reshape(shape) if size else np.zeros(shape)


_PARTS: list[tuple[tuple[int, ...], tuple[Any, ...]]] = [
    ((4,), (2,)),
    ((4,), ((1, 4, 2),)),
    ((4, 3), (3,)),
    ((4, 3), (3, 0)),
    ((4, 3), ((0, 4, 1), 1)),
    ((4, 3, 2), ((0, 3, 2), 1)),
    ((4, 3, 2), (2, (1, 3, 1), 1)),
    ((4, 3), ((0, 0, 1), 2)),
    ((2, 0), (1,)),
]


def _part_shape(shape: tuple[int, ...], at: tuple[Any, ...]) -> tuple[int, ...]:
    return np.zeros(shape)[tuple(e if isinstance(e, int) else slice(*e) for e in at)].shape


_BASIC = [
    case
    for shape, at in _PARTS
    for case in (
        Case(p.index, (normal(*shape),), {"at": at}, complex_step=True),
        Case(p.place, (normal(*_part_shape(shape, at)),), {"at": at, "shape": shape}, complex_step=True),
        Case(p.update, (normal(*shape), normal(*_part_shape(shape, at))), {"at": at}, complex_step=True),
    )
]

#: shape of x, index arrays, axes, whether no place repeats
_INDEXED: list[tuple[tuple[int, ...], tuple[Any, ...], tuple[int, ...], bool]] = [
    ((5,), (np.intp(3),), (0,), True),
    ((5,), (np.array([4, 0, 2]),), (0,), True),
    ((5,), (np.array([4, 0, 4, 4, 1]),), (0,), False),
    ((5,), (np.array([[1, 1], [3, 1]]),), (0,), False),
    ((3, 4), (np.array([2, 0, 2]),), (0,), False),
    ((3, 4), (np.array([3, 3]),), (1,), False),
    ((3, 4), (np.array([2, 0, 2]), np.array([1, 1, 1])), (0, 1), False),
    ((3, 2, 4), (np.array([2, 0]), np.array([1, 3])), (0, 2), True),
    ((3, 2, 4), (np.array([[1, 0, 1]]),), (1,), False),
    ((3, 2), (np.array([], int),), (1,), True),
    ((3, 0), (np.array([1, 1]),), (0,), False),
]


def _updates_shape(shape: tuple[int, ...], indices: tuple[Any, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return (*np.shape(indices[0]), *(n for a, n in enumerate(shape) if a not in axes))


_GATHER = [
    Case(p.gather, (normal(*shape), *indices), {"axes": axes, "unique": unique}, complex_step=True)
    for shape, indices, axes, unique in _INDEXED
]
_LINEAR_SCATTER = [
    Case(
        primitive,
        (normal(*shape), *indices, normal(*_updates_shape(shape, indices, axes))),
        {"axes": axes, "unique": unique},
        complex_step=True,
    )
    for primitive in (p.scatter_set, p.scatter_add, scatter.scatter_multiply)
    for shape, indices, axes, unique in _INDEXED
]


def _apart(shape: tuple[int, ...], updates: tuple[int, ...]) -> tuple[Any, Any]:
    size = int(np.prod(shape))
    values = spread(size + int(np.prod(updates)))
    return values[:size].reshape(shape), values[size:].reshape(updates)[()]


def _extremum_operands(shape: tuple[int, ...], indices: tuple[Any, ...], axes: tuple[int, ...]) -> tuple[Any, ...]:
    x, updates = _apart(shape, _updates_shape(shape, indices, axes))
    return (x, *indices, updates)


_EXTREMA = [
    Case(primitive, _extremum_operands(shape, indices, axes), {"axes": axes, "unique": unique})
    for primitive in (scatter.scatter_min, scatter.scatter_max)
    for shape, indices, axes, unique in _INDEXED
]

_WITH_ZEROS = [
    Case(
        scatter.scatter_multiply,
        (normal(3), np.array([0, 1, 1, 2, 2, 2, 1]), np.array([0.0, 0.0, 2.0, 0.0, 3.0, 0.0, -1.5])),
        {"axes": (0,), "unique": False},
        complex_step=True,
        name="scatter_multiply_zeros",
    ),
    Case(
        scatter.scatter_multiply,
        (np.array([1.5, 2.0]), np.array([0, 0, 1, 1]), np.array([0.0, 0.0, 1.5, 0.0])),
        {"axes": (0,), "unique": False},
        complex_step=True,
        name="scatter_multiply_all_zero",
    ),
]

_INTEGER = [
    Case(scatter.neighbours, (np.array([1, 0, 1, 1, 2, 0]),), {"sizes": (3,), "lead": 0, "following": following})
    for following in (False, True)
] + [
    Case(
        scatter.neighbours,
        (np.array([[1, 0, 1], [1, 2, 2]]), np.array([[1, 0, 1], [1, 1, 1]])),
        {"sizes": (3, 2), "lead": lead, "following": True},
    )
    for lead in (0, 1)
]
_SEARCH = [
    Case(p.searchsorted, (np.array([0.0, 1.0, 1.0, 3.0]), values), {"side": side})
    for side in ("left", "right")
    for values in (np.float64(1.0), np.array([[0.5, 1.0], [4.0, -1.0]]))
] + [
    Case(
        p.searchsorted,
        (np.array([[0.0, 1.0], [2.0, 3.0]]), np.array([[0.5, 2.5, 9.0], [0.5, 2.5, 9.0]])),
        {"side": "left"},
    )
]

CASES = [*_BASIC, *_GATHER, *_LINEAR_SCATTER, *_EXTREMA, *_WITH_ZEROS, *_INTEGER, *_SEARCH]
