"""Cases of convolution: equal and unequal lengths, a batch, other dtypes."""

import numpy as np

from functrace.primitives.convolution import convolve
from functrace.testing import Case

rng = np.random.default_rng(8)

CASES = [
    *(
        Case(convolve, (rng.normal(size=x), rng.normal(size=y)), complex_step=True)
        for x, y in [((3,), (2,)), ((2,), (4,)), ((1,), (1,)), ((2, 3), (2, 2))]
    ),
    Case(convolve, tuple(rng.normal(size=n) + 1j * rng.normal(size=n) for n in (3, 2)), name="complex"),
    Case(convolve, (rng.integers(-3, 4, 3), rng.integers(-3, 4, 2)), name="integers"),
]
