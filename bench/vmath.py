"""The vector math against NumPy's ufuncs, results into an array that is there: time per element."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import special  # noqa: TID253

from bench.harness import Scenario
from bench.peers import Peer
from functrace.backend.vmath.module import BITS, FUNCTIONS, loop

SIZES = (1_000, 100_000)
# Where the operands lie, if not normally distributed with deviation 3.
RANGES = {
    **dict.fromkeys(("log", "log2", "log10", "log1p", "pow"), (1e-3, 10.0)),
    **dict.fromkeys(("arcsin", "arccos", "arctanh"), (-0.99, 0.99)),
    "arccosh": (1.0, 10.0),
}


def sigmoid(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    return np.divide(1.0, 1.0 + np.exp(-x), out=out)


def in_numpy(name: str) -> Callable[..., Any]:
    """What a NumPy user calls: SciPy's for the error functions."""
    if name == "sigmoid":
        return sigmoid
    return getattr(special, name) if name in ("erf", "erfc") else getattr(np, name)


def elementwise(name: str, dtype: str, n: int) -> Scenario:
    rng = np.random.default_rng(0)
    arity = FUNCTIONS[name].arity
    low_high = RANGES.get(name)
    draw = (lambda: rng.uniform(*low_high, n)) if low_high else (lambda: 3.0 * rng.normal(size=n))
    operands = [draw().astype(dtype) for _ in range(arity)]

    def setup(peer: Peer) -> Callable[[], Any]:
        out = np.empty(n, dtype)
        if peer.name == "functrace":
            kernel = loop(name, BITS[out.dtype])
            addresses = [x.ctypes.data for x in (*operands, out)]

            def call() -> np.ndarray:
                kernel(*addresses, n)
                return out

            return call
        function = in_numpy(name)
        return lambda: function(*operands, out=out)

    def expected() -> Any:
        return in_numpy(name)(*(x.astype(np.longdouble if name not in ("erf", "erfc") else float) for x in operands))

    return Scenario(
        name=f"{name} {dtype} n={n}",
        setup=setup,
        expected=expected,
        peers=("functrace", "numpy"),
        operations=n,
        rtol=1e-13 if dtype == "float64" else 1e-5,
    )


def scenarios(smoke: bool) -> Iterator[Scenario]:
    for name in ("exp", "arctan2") if smoke else FUNCTIONS:
        for dtype in ("float64", "float32"):
            for n in SIZES[:1] if smoke else SIZES:
                yield elementwise(name, dtype, n)
