"""Runs scenarios: result checked first, then timed in interleaved rounds in one process, reported as JSON and Markdown.

The machine's mood changes from second to second, so peers take turns within each round and a ratio is the median over
rounds of the two times in the same round. A wrong result is never timed.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from bench.peers import Peer

BASELINE = "functrace"


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One thing to time, written once for every peer.

    Args:
        name: what is timed, with its size.
        setup: takes a peer, prepares its inputs and returns the call to time.
        expected: the right result in NumPy, from a closed form, the complex step or a count: never from a peer.
        peers: the names of the libraries that can do it.
        operations: how many operations one call does, to give a time per operation as well.
        rtol: how far a result may be off, relative to the largest entry expected.
        observe: what of a peer's result, in NumPy, is compared; given where the whole has no closed form.
    """

    name: str
    setup: Callable[[Peer], Callable[[], Any]]
    expected: Callable[[], Any]
    peers: Sequence[str] = ("functrace", "autograd", "jax", "torch")
    operations: int = 1
    rtol: float = 1e-9
    observe: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds, and the least time in seconds that one peer's turn in a round lasts."""

    rounds: int = 15
    turn: float = 0.02


SMOKE = Effort(rounds=2, turn=0.0)


@dataclass(frozen=True)
class Timing:
    """Seconds a call: median and quartiles over the rounds; `ratio` to the baseline's (above 1: slower than it).

    `first` is what the first call took, with all that prepared it: inputs, tracing, compilation.
    """

    scenario: str
    peer: str
    median: float
    low: float
    high: float
    rounds: int
    calls_per_round: int
    operations: int
    ratio: float | None
    beyond_numpy: float | None
    first: float = 0.0


class WrongResult(AssertionError):
    """A peer computes something else than the scenario expects, so its time means nothing."""


def complex_step(f: Callable[[Any], Any], x: Any) -> Any:
    """Gradient of an analytic scalar function written in NumPy, exact to rounding: Im f(x + i h e_k) / h.

    Squire and Trapp, Using complex variables to estimate derivatives of real functions, SIAM Review 40 (1998).
    """
    x = np.asarray(x, complex)
    h = 1e-200
    steps = 1j * h * np.eye(x.size).reshape(x.size, *x.shape)
    return np.array([f(x + step).imag for step in steps]).reshape(x.shape) / h


def check(scenario: Scenario, peer: Peer, result: Any, expected: Any) -> None:
    """Raises `WrongResult` unless `result` is what the scenario expects."""
    try:
        atol = scenario.rtol * float(np.max(np.abs(expected)))
        if scenario.observe is None:
            seen = peer.numpy(result)
        else:
            seen = scenario.observe(in_numpy(peer, result))
        np.testing.assert_allclose(seen, expected, rtol=0.0, atol=atol)
    except AssertionError as error:
        raise WrongResult(f"{scenario.name}: {peer.name} does not give the expected result{error}") from None


def in_numpy(peer: Peer, result: Any) -> Any:
    """A result with every array in it in NumPy."""
    if isinstance(result, (tuple, list)):
        return [in_numpy(peer, part) for part in result]
    if isinstance(result, dict):
        return {key: in_numpy(peer, part) for key, part in result.items()}
    return peer.numpy(result)


def seconds(call: Callable[[], Any], ready: Callable[[Any], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls - 1):
        call()
    ready(call())
    return (time.perf_counter() - start) / calls


def measure(scenario: Scenario, peers: Sequence[Peer], effort: Effort) -> list[Timing]:
    """Checks the scenario's peers, then times them in turns."""
    peers = [peer for peer in peers if peer.name in scenario.peers]
    expected = scenario.expected()
    calls, firsts = [], []
    for peer in peers:
        start = time.perf_counter()
        call = scenario.setup(peer)
        result = peer.ready(call())
        firsts.append(time.perf_counter() - start)
        check(scenario, peer, result, expected)
        calls.append(call)

    once = [seconds(call, peer.ready, 1) for peer, call in zip(peers, calls, strict=True)]
    counts = [max(1, int(effort.turn / max(estimate, 1e-9))) for estimate in once]
    times = np.empty((effort.rounds, len(peers)))
    gc.collect()
    gc.freeze()  # what the peers' imports left behind is not to be searched during the turns
    try:
        for turn in range(effort.rounds):
            for shift in range(len(peers)):
                k = (turn + shift) % len(peers)  # nobody is always the first
                times[turn, k] = seconds(calls[k], peers[k].ready, counts[k])
    finally:
        gc.unfreeze()

    names = [peer.name for peer in peers]
    base = times[:, [names.index(BASELINE)]] if BASELINE in names else None
    plain = times[:, [names.index("numpy")]] if "numpy" in names else None
    ratios = None if base is None else np.median(times / base, axis=0)
    beyond = None if plain is None else np.median(times - plain, axis=0)
    low, median, high = np.quantile(times, [0.25, 0.5, 0.75], axis=0)
    return [
        Timing(
            scenario=scenario.name,
            peer=name,
            median=float(median[k]),
            low=float(low[k]),
            high=float(high[k]),
            rounds=effort.rounds,
            calls_per_round=counts[k],
            operations=scenario.operations,
            ratio=None if ratios is None else float(ratios[k]),
            beyond_numpy=None if beyond is None else float(beyond[k]),
            first=firsts[k],
        )
        for k, name in enumerate(names)
    ]


class Progress:
    """A bar on a terminal, a line per step elsewhere."""

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self.total, self.done = total, 0
        self.stream = stream or sys.stderr

    def step(self, label: str) -> None:
        if self.stream.isatty():
            filled = 30 * self.done // max(self.total, 1)
            bar = "#" * filled + "." * (30 - filled)
            self.stream.write(f"\r\x1b[K[{bar}] {self.done}/{self.total} {label}")
        else:
            self.stream.write(f"[{self.done + 1}/{self.total}] {label}\n")
        self.stream.flush()
        self.done += 1

    def close(self) -> None:
        if self.stream.isatty():
            self.stream.write("\r\x1b[K")
            self.stream.flush()


def run(scenarios: Iterable[Scenario], peers: Sequence[Peer], effort: Effort) -> list[Timing]:
    scenarios = list(scenarios)
    progress = Progress(len(scenarios))
    timings: list[Timing] = []
    try:
        for scenario in scenarios:
            progress.step(scenario.name)
            timings += measure(scenario, peers, effort)
    finally:
        progress.close()
    return timings


def machine() -> dict[str, Any]:
    """What a reader needs to know to compare two reports."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()}


def to_json(suite: str, timings: Sequence[Timing], peers: Sequence[Peer], absent: Sequence[str]) -> str:
    return json.dumps(
        {
            "suite": suite,
            "machine": machine(),
            "versions": {peer.name: peer.version for peer in peers},
            "absent": list(absent),
            "timings": [asdict(timing) for timing in timings],
        },
        indent=2,
    )


def duration(value: float) -> str:
    """Three figures and a unit: `12.3 us`."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def to_markdown(suite: str, timings: Sequence[Timing], peers: Sequence[Peer], absent: Sequence[str]) -> str:
    """A table, a row per scenario and a column per peer: median time, ratio to the baseline, time per operation."""
    by_cell = {(timing.scenario, timing.peer): timing for timing in timings}
    columns = [peer for peer in peers if any(timing.peer == peer.name for timing in timings)]

    def cell(timing: Timing | None) -> str:
        if timing is None:
            return "-"
        text = duration(timing.median)
        if timing.operations > 1:
            text += f", {duration(timing.median / timing.operations)} each"
        if timing.peer != "numpy" and timing.beyond_numpy is not None:
            text += f", numpy {'+' if timing.beyond_numpy >= 0 else '-'} {duration(abs(timing.beyond_numpy))}"
        if timing.peer != BASELINE and timing.ratio is not None:
            text += f" ({timing.ratio:.2g}x)"
        return text

    host = machine()
    lines = [
        f"## bench: {suite}",
        "",
        f"{host['cpu']}, {host['cores']} cores, Python {host['python']}. Median of interleaved rounds; in brackets the "
        f"ratio to {BASELINE} (above 1: slower than it)." + (f" Not installed: {', '.join(absent)}." if absent else ""),
        "",
        "| scenario | " + " | ".join(f"{peer.name} {peer.version}" for peer in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for scenario in dict.fromkeys(timing.scenario for timing in timings):
        cells = [cell(by_cell.get((scenario, peer.name))) for peer in columns]
        lines.append("| " + " | ".join([scenario, *cells]) + " |")
    return "\n".join(lines) + "\n"
