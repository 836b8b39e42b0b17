"""Cases of sorting: every axis of one to three, empty ones, and other dtypes."""

import numpy as np

from functrace.primitives import sorting as p
from functrace.testing import Case

rng = np.random.default_rng(6)


def distinct(*shape):
    """Values far from each other, in random order."""
    return rng.permutation(np.arange(float(np.prod(shape, dtype=int)))).reshape(shape) / 3


SHAPES = [((4,), 0), ((1,), 0), ((0,), 0), ((2, 3), 0), ((2, 3), 1), ((2, 3, 2), 1), ((0, 3), 1)]

CASES = [
    *(Case(p.sort, (distinct(*shape),), {"axis": axis}, name=f"{shape}-{axis}") for shape, axis in SHAPES),
    Case(p.sort, (distinct(4) + 1j * distinct(4),), {"axis": 0}, name="complex"),
    Case(p.sort, (rng.integers(0, 9, (2, 3)),), {"axis": 0}, name="integers"),
    *(
        Case(p.argsort, (distinct(*shape),), {"axis": axis, "kind": "stable"}, name=f"{shape}-{axis}")
        for shape, axis in SHAPES
    ),
    *(
        Case(p.argpartition, (distinct(*shape),), {"kth": (shape[axis] // 2,), "axis": axis}, name=f"{shape}-{axis}")
        for shape, axis in SHAPES
        if shape[axis]
    ),
]
