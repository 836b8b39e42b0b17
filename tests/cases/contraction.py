"""Cases of `dot_general`: every arrangement that its evaluation tells apart, empty axes, and other dtypes."""

import numpy as np

from functrace.primitives.contraction import dot_general
from functrace.testing import Case

rng = np.random.default_rng(11)

# operand shapes, contracted axes, batch axes
ARRANGEMENTS = [
    ((), (), ((), ()), ((), ())),
    ((2,), (3,), ((), ()), ((), ())),
    ((2, 3), (4,), ((), ()), ((), ())),
    ((3, 2), (3, 4), ((), ()), ((0,), (0,))),
    ((3,), (3,), ((), ()), ((0,), (0,))),
    ((3,), (3,), ((0,), (0,)), ((), ())),
    ((3,), (3, 2), ((0,), (0,)), ((), ())),
    ((3,), (2, 3), ((0,), (1,)), ((), ())),
    ((2, 3), (3,), ((1,), (0,)), ((), ())),
    ((3, 2), (3,), ((0,), (0,)), ((), ())),
    ((2, 3), (3, 4), ((1,), (0,)), ((), ())),
    ((2, 3), (4, 3), ((1,), (1,)), ((), ())),
    ((3, 2), (3, 4), ((0,), (0,)), ((), ())),
    ((3, 2), (4, 3), ((0,), (1,)), ((), ())),
    ((2, 3), (3, 2), ((0, 1), (1, 0)), ((), ())),
    ((2, 3, 4), (4, 2), ((2,), (0,)), ((), ())),
    ((2, 3, 4), (3, 2), ((1,), (0,)), ((), ())),
    ((2, 3), (4, 3, 2), ((1,), (1,)), ((), ())),
    ((2, 3, 4), (4, 3, 2), ((2, 1), (0, 1)), ((), ())),
    ((2, 3), (3, 2, 4), ((1, 0), (0, 1)), ((), ())),
    ((2, 3, 4), (2, 4, 2), ((2,), (1,)), ((0,), (0,))),
    ((2, 3, 4), (4, 2), ((2,), (0,)), ((0,), (1,))),
    ((3, 2, 4), (2, 4, 3), ((2, 0), (1, 2)), ((1,), (0,))),
    ((2, 3, 2, 4), (3, 2, 4, 2), ((3,), (2,)), ((0, 1), (1, 0))),
    ((2, 0), (0, 3), ((1,), (0,)), ((), ())),
    ((0, 3), (3, 2), ((1,), (0,)), ((), ())),
    ((0, 2, 3), (0, 3, 2), ((2,), (1,)), ((0,), (0,))),
]


def case(left, right, contract, batch, **options):
    operands = rng.normal(size=left) + 0.0, rng.normal(size=right) + 0.0
    return Case(
        dot_general,
        tuple(map(np.float64, operands)),
        {"contract": contract, "batch": batch},
        complex_step=True,
        **options,
    )


def complex_pair(*shapes):
    return tuple(rng.normal(size=s) + 1j * rng.normal(size=s) for s in shapes)


MATRIX = {"contract": ((1,), (0,)), "batch": ((), ())}

CASES = [
    *(case(*arrangement) for arrangement in ARRANGEMENTS),
    Case(dot_general, complex_pair((2, 3), (3, 2)), MATRIX, name="complex"),
    Case(dot_general, (rng.integers(-3, 4, (2, 3)), rng.integers(-3, 4, (3, 2))), MATRIX, name="integers"),
    Case(dot_general, (rng.random((2, 3)) < 0.5, rng.random((3, 2)) < 0.5), MATRIX, name="booleans"),
]
