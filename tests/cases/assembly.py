"""Cases of the sum of element arrays into the values of a sparse structure."""

import numpy as np

from functrace.sparse._element_assembly import Assembly, assemble
from functrace.testing import Case

_rng = np.random.default_rng(5)
_PLACES = [
    np.array([0, 2, 4, 6]),
    np.array([6, 6, 6]),
    np.array([5, 1, 1, 0, 5, 3, 0, 2, 6, 1, 4, 2, 0, 4, 4, 1]),
    np.array([1, 3, 5]),
]


def _case(plan: Assembly, numbers: tuple[int, ...] = ()) -> Case:
    """All arrays in full, but for those that are one number for all their elements."""
    arrays = [_rng.normal(size=() if k in numbers else count)[()] for k, count in enumerate(plan.counts)]
    return Case(assemble, (*arrays, *plan.tables()), {"plan": plan}, name=f"{len(plan.counts)}, {numbers}")


CASES = [
    _case(Assembly(7, _PLACES)),
    _case(Assembly(7, _PLACES), numbers=(1, 3)),
    _case(Assembly(7, [_PLACES[0], _PLACES[3], _PLACES[0]])),
]
