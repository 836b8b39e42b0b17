"""Revolve: the order in which a chain of steps is run, stored and reversed when only so many states can be kept.

A. Griewank and A. Walther, Algorithm 799: Revolve, an implementation of checkpointing for the reverse or adjoint mode
of computational differentiation (2000). With s snapshots, the initial state among them, and every step run at most r
times before it is reversed, a chain of binomial(s + r, s) steps can be reversed, and no schedule does better.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Action", "evaluations", "reach", "repetitions", "schedule"]


class Action(NamedTuple):
    """What to do next.

    Attributes:
        kind: "advance" from the state kept at `start` to `stop`, or "reverse" the step from `start`, whose state is
            kept or was advanced to last. What is kept there is no longer needed then.
        start, stop: numbers of steps.
        keep: whether the state advanced to is to be kept.
    """

    kind: str
    start: int
    stop: int
    keep: bool = False


def reach(snapshots: int, repeats: int) -> int:
    """The longest chain that can be reversed with so many snapshots, no step being advanced over more often."""
    return math.comb(snapshots + repeats, snapshots) if repeats >= 0 else 0


def repetitions(length: int, snapshots: int) -> int:
    """How often the busiest step is advanced over."""
    repeats = 0
    while reach(snapshots, repeats) < length:
        repeats += 1
    return repeats


def evaluations(length: int, snapshots: int) -> int:
    """The least number of steps advanced over, those that are reversed not counted."""
    repeats = repetitions(length, snapshots)
    return repeats * length - reach(snapshots + 1, repeats - 1)


def schedule(length: int, snapshots: int) -> Iterator[Action]:
    """The actions that reverse `length` steps with at most `snapshots` states kept, that before step 0 among them."""
    waiting = [(0, length, snapshots - 1)] if length else []
    while waiting:
        start, stop, free = waiting.pop()
        if stop - start == 1:
            yield Action("reverse", start, stop)
        elif not free:
            yield Action("advance", start, stop - 1)
            yield Action("reverse", stop - 1, stop)
            waiting.append((start, stop - 1, 0))
        else:
            middle = start + _first_part(stop - start, free + 1)
            yield Action("advance", start, middle, True)
            waiting += [(start, middle, free), (middle, stop, free - 1)]


def _first_part(length: int, snapshots: int) -> int:
    """How far to advance before the next snapshot: as far as keeps both parts within their reach."""
    repeats = repetitions(length, snapshots)
    return max(min(reach(snapshots, repeats - 1), length - reach(snapshots - 1, repeats - 1)), 1)
