"""Times and memory of a few calls that do the same thing."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

__all__ = ["Measurement", "measure"]


class Measurement(NamedTuple):
    """What one call gave and took: its result, the median of its times, and the most memory it held at once."""

    result: Any
    seconds: float
    peak_bytes: int


def measure(calls: Sequence[Callable[[], Any]], rounds: int = 7) -> list[Measurement]:
    """Time the calls in turns, so that a busy machine slows all of them alike; then watch each one's memory.

    Args:
        calls: functions of no arguments.
        rounds: how often each is timed, after one run that is not.

    Returns:
        One measurement per call.
    """
    results = [call() for call in calls]
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    peaks = [_peak_bytes(call) for call in calls]
    return [Measurement(*m) for m in zip(results, map(median, times), peaks, strict=True)]


def _peak_bytes(call: Callable[[], Any]) -> int:
    """The most memory allocated at once during a call, NumPy's arrays included, beyond what was there before."""
    was_tracing = tracemalloc.is_tracing()
    gc.collect()
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if not was_tracing:
            tracemalloc.stop()
