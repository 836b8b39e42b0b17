"""Cases of the substitution along trees of nonzeros."""

import numpy as np

from functrace.sparse import substitution
from functrace.sparse.substitution import Forest
from functrace.testing import Case

_rng = np.random.default_rng(7)
_NONE = np.zeros(8, np.int64)
_CHAIN = Forest(_NONE, np.arange(7, dtype=np.int32), np.arange(1, 8, dtype=np.int32), np.arange(7))
_STARS = Forest(
    _NONE, np.array([0, 1, 2, 5, 3, 7], np.int32), np.array([3, 3, 4, 6, 4, 4], np.int32), np.array([0, 0, 0, 0, 1, 1])
)
_DEEP = Forest(np.zeros(301, np.int64), *(np.arange(k, 300 + k, dtype=np.int32) for k in (0, 1)), np.arange(300))


def _case(forest: Forest, shape: tuple[int, ...], outwards: bool) -> Case:
    params = {"forest": forest, "outwards": outwards}
    name = f"{forest.height} levels, {shape}, {outwards}"
    return Case(substitution._substitute, (_rng.normal(size=shape),), params, name=name)


CASES = [
    _case(forest, (*forest.tails.shape, *more), outwards)
    for forest, more in ((_CHAIN, ()), (_STARS, ()), (_STARS, (3,)), (_DEEP, ()))
    for outwards in (False, True)
]
