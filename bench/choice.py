"""The mode chosen by itself against every fixed mode: `python -m bench.choice [--smoke] [--world WORLD] [--md FILE]`.

Programs with few and many inputs and outputs, with and without a waist, by NumPy calls (the world "eager") and under
`jit` ("compiled"). Results are compared before anything is timed; all modes take turns in each round. The last lines
say for how many programs of each world the choice was within a tenth of the best.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import functrace
import functrace.numpy as fnp
from bench.harness import Progress, duration, machine
from functrace.demo.problems import network

MODES = {"forward": functrace.jacfwd, "reverse": functrace.jacrev, "auto": functrace.jacobian}
HESSIANS = ("fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev", "auto")
WORLDS = ("eager", "compiled")


class Program(NamedTuple):
    """A function, its argument, and whether its Jacobian or its Hessian is wanted."""

    name: str
    fun: Callable[[Any], Any]
    x: np.ndarray
    order: int = 1


class Row(NamedTuple):
    """Median seconds per mode, and the time of the choice in those of the best fixed mode."""

    world: str
    name: str
    seconds: dict[str, float]
    loss: float


def wine(hidden: int, parts: int) -> Program:
    W1, W2, X, y = network(hidden)

    def losses(W1: Any) -> Any:
        residuals = W2 @ np.tanh(W1 @ X) - y
        return np.sum(np.reshape(residuals**2, (parts, 178 // parts)), 1) / 178.0

    return Program(f"wine n={13 * hidden} m={parts}", losses, W1)


def waist(n: int, narrow: int, m: int, depth: int) -> Program:
    """A field relaxed, measured in a few places, and another field driven by them."""
    rng = np.random.default_rng(n + narrow + m)
    measure, drive = rng.normal(size=(narrow, n)) / np.sqrt(n), rng.normal(size=(m, narrow)) / np.sqrt(narrow)

    def f(x: Any) -> Any:
        for _ in range(depth):
            x = x + 0.1 * np.sin(x)
        y = drive @ np.tanh(measure @ x)
        for _ in range(depth):
            y = y + 0.1 * np.sin(y)
        return y

    return Program(f"waist {n} -> {narrow} -> {m}", f, rng.normal(size=n))


def layers(n: int, m: int, depth: int = 2) -> Program:
    rng = np.random.default_rng(n * m)
    widths = [n] * depth + [m]
    weights = [rng.normal(size=(b, a)) / np.sqrt(a) for a, b in itertools.pairwise(widths)]

    def f(x: Any) -> Any:
        for w in weights:
            x = np.tanh(w @ x)
        return x

    return Program(f"layers {n} -> {m}", f, rng.normal(size=n))


def recurrent(n: int, steps: int, all_outputs: bool) -> Program:
    rng = np.random.default_rng(n)
    w = rng.normal(size=(n, n)) / np.sqrt(n)

    def f(x: Any) -> Any:
        last, seen = functrace.lax.scan(lambda h, _: (np.tanh(w @ h), h[0]), x, None, length=steps)
        return seen if all_outputs else last[0]

    return Program(f"scan {n} -> {steps if all_outputs else 1}", f, rng.normal(size=n))


def programs() -> Iterator[Program]:
    rng = np.random.default_rng(1)
    for hidden in (1, 4, 16):
        for parts in (1, 2, 89, 178):
            yield wine(hidden, parts)
    for n, m in ((3, 200), (200, 3), (60, 60), (300, 100), (100, 300)):
        yield layers(n, m)
    for n, narrow, m in ((1000, 10, 1000), (300, 4, 300), (1000, 10, 200), (200, 100, 200), (40, 2, 40)):
        yield waist(n, narrow, m, 12)
    for n, steps, many in ((8, 50, True), (8, 50, False), (40, 10, True)):
        yield recurrent(n, steps, many)
    yield Program("elementwise 200", lambda x: np.sin(x) * np.exp(-x), rng.normal(size=200))
    yield Program("scalar", lambda x: np.sin(x) * np.exp(-x), np.array(0.3))
    yield Program("curve 1 -> 500", lambda t: np.sin(t * np.arange(500.0)) * np.exp(-t), np.array(0.3))
    yield Program("norm 500 -> 1", lambda x: np.sqrt(np.sum(x * x)), rng.normal(size=500))
    solved = rng.normal(size=(50, 50)) + 8 * np.eye(50)
    yield Program("solve 50", lambda b: np.linalg.solve(solved, np.sin(b)), rng.normal(size=50))
    yield Program("softmax 100", lambda x: fnp.exp(x) / fnp.sum(fnp.exp(x)), rng.normal(size=100))
    yield Program("cumulative 150", lambda x: np.cumsum(np.sin(x)), rng.normal(size=150))
    yield Program("rosenbrock 100", rosenbrock, rng.normal(size=100), 2)
    features = rng.normal(size=(8, 400)) / 20
    yield Program("few features 400", lambda x: np.sum(np.tanh(features @ x) ** 2), rng.normal(size=400), 2)
    few = layers(30, 1)
    yield Program("network 30", lambda x: np.sum(few.fun(x)), few.x, 2)


def rosenbrock(x: Any) -> Any:
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def derivatives(program: Program, world: str = "eager") -> dict[str, Callable[[Any], Any]]:
    if program.order == 2:
        calls = {mode: functrace.hessian(program.fun, mode=mode) for mode in HESSIANS}
    else:
        calls = {mode: jacobian(program.fun) for mode, jacobian in MODES.items()}
    return calls if world == "eager" else {mode: functrace.jit(call) for mode, call in calls.items()}


def measure(program: Program, world: str, rounds: int, turn: float) -> Row:
    """Medians over interleaved rounds; the loss is the choice's time in those of the best fixed mode."""
    calls = derivatives(program, world)
    results = {mode: call(program.x) for mode, call in calls.items()}
    for mode, result in results.items():
        scale = max(float(np.max(np.abs(results["auto"]))), 1e-300)
        name = f"{program.name} {mode} {world}"
        np.testing.assert_allclose(result, results["auto"], rtol=0, atol=1e-10 * scale, err_msg=name)
    start = time.perf_counter()
    calls["auto"](program.x)
    count = max(1, int(turn / (time.perf_counter() - start)))
    times = np.empty((rounds, len(calls)))
    for i in range(rounds):
        for k in np.roll(np.arange(len(calls)), i):
            call = list(calls.values())[k]
            start = time.perf_counter()
            for _ in range(count):
                call(program.x)
            times[i, k] = (time.perf_counter() - start) / count
    medians = np.median(times, axis=0)
    auto = list(calls).index("auto")
    fixed = [k for k in range(len(calls)) if k != auto]
    best = fixed[int(np.argmin(medians[fixed]))]
    loss = float(np.median(times[:, auto] / times[:, best]))  # of turns close in time: other work slows down both
    return Row(world, program.name, dict(zip(calls, map(float, medians), strict=True)), loss)


def to_markdown(rows: Sequence[Row]) -> str:
    lines = ["| world | program | modes | auto | auto / best fixed |", "|---|---|---|---|---|"]
    for row in rows:
        fixed = ", ".join(f"{mode} {duration(s)}" for mode, s in row.seconds.items() if mode != "auto")
        lines.append(f"| {row.world} | {row.name} | {fixed} | {duration(row.seconds['auto'])} | {row.loss:.2f} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.choice", description=__doc__.partition(":")[0])
    parser.add_argument("--smoke", action="store_true", help="few programs, two rounds: only to see that it runs")
    parser.add_argument("--only", default="", metavar="TEXT", help="only programs whose name contains this")
    parser.add_argument("--world", choices=WORLDS, help="only by NumPy calls, or only under jit")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--md", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    selected = [p for p in programs() if options.only in p.name]
    selected = selected[::7] if options.smoke else selected
    worlds = [options.world] if options.world else WORLDS
    progress, rows = Progress(len(selected) * len(worlds)), []
    for world, program in itertools.product(worlds, selected):
        progress.step(f"{program.name}, {world}")
        rows.append(measure(program, world, 2 if options.smoke else options.rounds, 0.0 if options.smoke else 0.02))
    progress.close()
    close = {w: sum(row.loss <= 1.1 for row in rows if row.world == w) for w in worlds}
    said = [f"Within a tenth of the best fixed mode, {w}: {n} of {len(selected)} programs." for w, n in close.items()]
    table = to_markdown(rows) + "\n" + "\n".join(said) + "\n"
    print(table, end="")
    if options.md:
        options.md.write_text(table, encoding="utf-8")
    if options.json:
        report = {"machine": machine(), "rows": [row._asdict() for row in rows], "close": close}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
