"""Memory of reverse mode against time: the gradient through a loop, everything stored against Revolve's schedules.

`python -m bench.memory [--smoke] [--json FILE] [--md FILE]`. The loop relaxes a state of 64 numbers for 100,000 steps.
Results are compared first; peaks are those of tracemalloc, which sees NumPy's arrays; times are medians of turns.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import functrace
from bench.harness import Progress, duration, machine
from functrace import lax
from functrace.inspect.cost import quantity

CHECKPOINTS: tuple[Any, ...] = (None, "binomial", 1000, 100, 30, 10)


class Row(NamedTuple):
    """One way to reverse the loop: peak bytes and median seconds, and both against storing everything."""

    checkpoint: str
    peak: int
    seconds: float
    share: float
    slowdown: float
    error: float


def gradient(steps: int, checkpoint: Any) -> Callable[[np.ndarray], np.ndarray]:
    forcing = np.cos(np.arange(64.0))

    def loss(x: Any) -> Any:
        def step(h: Any, _: None) -> Any:
            return h + 0.01 * (forcing * np.sin(h) - h * h * h), None

        last, _ = lax.scan(step, x, None, length=steps, checkpoint=checkpoint)
        return np.sum(last * last)

    return functrace.grad(loss)


def peak(call: Callable[[], Any]) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def measure(steps: int, checkpoints: Sequence[Any], rounds: int, progress: Progress) -> list[Row]:
    x = np.linspace(-1.0, 1.0, 64)
    calls = [gradient(steps, c) for c in checkpoints]
    expected = calls[0](x)
    errors = [float(np.max(np.abs(call(x) - expected)) / np.max(np.abs(expected))) for call in calls]
    assert max(errors) < 1e-12, errors
    times = np.empty((rounds, len(calls)))
    for i in range(rounds):
        progress.step(f"round {i + 1}")
        for k in np.roll(np.arange(len(calls)), i):
            start = time.perf_counter()
            calls[k](x)
            times[i, k] = time.perf_counter() - start
    progress.step("memory")
    peaks = [peak(lambda call=call: call(x)) for call in calls]
    ratios = np.median(times / times[:, :1], axis=0)
    return [
        Row(str(c), p, float(t), p / peaks[0], float(r), e)
        for c, p, t, r, e in zip(checkpoints, peaks, np.median(times, axis=0), ratios, errors, strict=True)
    ]


def to_markdown(rows: Sequence[Row], steps: int) -> str:
    lines = [
        f"Gradient through {steps:,} steps of 64 numbers.",
        "",
        "| checkpoint | peak memory | of storing everything | time | of storing everything | largest difference |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row.checkpoint} | {quantity(row.peak, 'B')} | {100 * row.share:.2f} % | {duration(row.seconds)} | "
            f"{row.slowdown:.2f}x | {row.error:.1g} |"
        )
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description="Memory of reverse mode against time.")
    parser.add_argument("--smoke", action="store_true", help="a short loop, one round: only to see that it runs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--md", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    steps, rounds = (300, 1) if options.smoke else (100_000, options.rounds)
    progress = Progress(rounds + 1)
    rows = measure(steps, CHECKPOINTS, rounds, progress)
    progress.close()
    table = to_markdown(rows, steps)
    print(table, end="")
    if options.md:
        options.md.write_text(table, encoding="utf-8")
    if options.json:
        report = {"machine": machine(), "steps": steps, "rows": [row._asdict() for row in rows]}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
