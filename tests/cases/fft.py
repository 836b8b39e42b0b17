"""Cases of the Fourier transforms: even and odd lengths, each axis, each norm."""

import numpy as np

from functrace.primitives import fft as p
from functrace.testing import Case

rng = np.random.default_rng(13)


def complex_array(*shape):
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


PLACES = [((1,), 0), ((4,), 0), ((5,), 0), ((3, 4), 0), ((3, 4), 1), ((2, 5, 3), 1), ((0, 4), 1)]
NORMS = ["backward", "ortho", "forward"]

CASES = [
    *(Case(f, (complex_array(*s),), {"axis": a, "norm": n}) for f in (p.fft, p.ifft) for s, a in PLACES for n in NORMS),
    *(Case(p.rfft, (rng.normal(size=s),), {"axis": a, "norm": n}) for s, a in PLACES for n in NORMS),
    *(
        Case(
            p.irfft,
            (complex_array(*s[:a], s[a] // 2 + 1, *s[a + 1 :]),),
            {"length": s[a], "axis": a, "norm": n},
        )
        for s, a in PLACES
        for n in NORMS
    ),
]
