"""What the choice of modes counts with: seconds per call, operation and byte: `python -m bench rates [--smoke]`.

The numbers of `functrace.interpreters.cost.MACHINES`, measured by NumPy calls and in compiled code beside the values
that stand there. Each is the slope between a small and a large program, so that what is common to both falls out.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import functrace
import functrace.numpy as fnp
from functrace.interpreters.cost import MACHINES

SIZE = 128  # of a side: an array lies in the second-level cache
FLOPS = 22  # of a link of the chain, a sine counts 20


def chain(length: int) -> Callable[[Any], Any]:
    """Multiplications, additions and sines one after the other."""

    def run(x: Any) -> Any:
        weights = np.random.default_rng(0).normal(size=(length, x.shape[-1])) / 10
        for w in weights:
            x = fnp.add(x, fnp.multiply(w, fnp.sin(x)))
        return x

    return run


def products(length: int) -> Callable[[Any], Any]:
    """Matrix products one after the other."""

    def run(x: Any) -> Any:
        y = x
        for _ in range(length):
            y = fnp.matmul(y, x)
        return y

    return run


def scale(x: Any) -> Any:
    return fnp.multiply(x, 1.5)


def median_seconds(call: Callable[[Any], Any], x: np.ndarray, rounds: int) -> float:
    call(x)
    start = time.perf_counter()
    call(x)
    count = max(1, int(2e-3 / (time.perf_counter() - start)))
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(count):
            call(x)
        times.append((time.perf_counter() - start) / count)
    return float(np.median(times))


def slope(make: Callable[[int], Callable[[Any], Any]], x: np.ndarray, world: str, rounds: int) -> float:
    """Seconds for one link more."""
    short, long = 2, 12
    calls = [functrace.jit(make(k)) if world == "compiled" else make(k) for k in (short, long)]
    first, second = (median_seconds(call, x, rounds) for call in calls)
    return max(second - first, 0.0) / (long - short)


def measure(world: str, rounds: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    square, large = rng.normal(size=(SIZE, SIZE)) / SIZE, rng.normal(size=(2000, 500))
    parts = [large[:1000].copy(), large]
    scaled = functrace.jit(scale) if world == "compiled" else scale
    first, second = (median_seconds(scaled, part, rounds) for part in parts)
    byte = max(second - first, 0.0) / (2 * 8 * 500 * 1000)
    # Elementwise calls are fused in compiled code, so that only library calls cost there.
    calls, size = (products, 8) if world == "compiled" else (chain, 2)
    operation = slope(calls, np.eye(size), world, rounds) / (1 if world == "compiled" else 3)
    elementwise = slope(chain, square, world, rounds)
    if world == "eager":
        elementwise -= 3 * (operation + 16 * byte * SIZE**2)  # every operation reads and writes its array
    flop = max(elementwise, 0.0) / (FLOPS * SIZE**2)
    dense = slope(products, square, world, rounds) / (2 * SIZE**3)
    return {"operation": operation, "flop": flop, "dense_flop": dense, "byte": byte}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench rates", description=__doc__.partition(":")[0])
    parser.add_argument("--smoke", action="store_true", help="one round: only to see that it runs")
    options = parser.parse_args(argv)
    print("| world | rate | measured | in use |\n|---|---|---|---|")
    for world in MACHINES:
        for name, value in measure(world, 1 if options.smoke else 15).items():
            print(f"| {world} | {name} | {value:.2g} s | {getattr(MACHINES[world], name):.2g} s |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
