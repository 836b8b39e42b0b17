"""Cases of the random primitive."""

import numpy as np

from functrace.primitives.random import random_bits
from functrace.testing import Case

RNG = np.random.default_rng(20260701)


def keys(*shape):
    return RNG.integers(0, 2**32, (*shape, 2), dtype=np.uint32)


def case(key, start, shape, dtype="uint64"):
    return Case(
        random_bits,
        (key, np.uint64(start) if np.ndim(start) == 0 else np.asarray(start, np.uint64)),
        {"shape": shape, "dtype": np.dtype(dtype)},
    )


CASES = [
    case(keys(), 0, ()),
    case(keys(), 0, (3,)),
    case(keys(), 5, (0, 2)),
    case(keys(), 2**64 - 1, (2, 2)),
    case(keys(), 2**40, (1, 2, 3), "uint32"),
    case(keys(), 0, (), "uint16"),
    case(keys(), 0, (5,), "uint8"),
    case(keys(), 0, (20, 10)),
    case(keys(3), 0, (2,)),
    case(keys(2, 3), 7, ()),
    case(keys(3), [0, 1, 2**50], (4,), "uint32"),
    case(keys(2, 1), [[3], [4]], ()),
]
