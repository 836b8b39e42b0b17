"""Cumulative operations along the middle one of three axes, (outer, length, inner), of flat arrays.

All return True. Plain Python functions, compiled by the package.
"""

from typing import Any

import numpy as np


def linear_recurrence(a: Any, b: Any, outer: int, length: int, inner: int, reverse: bool, out: Any) -> bool:
    """out[k] = a[k] out[k-1] + b[k]; a factor of exactly zero cuts, be what is before it infinite."""
    step = -inner if reverse else inner
    for o in range(outer):
        start = (o * length + (length - 1 if reverse else 0)) * inner
        if inner == 1:
            at = start
            total = b[at]
            out[at] = total
            for _ in range(1, length):
                at += step
                total = a[at] * total + b[at] if a[at] != 0 else b[at]
                out[at] = total
            continue
        for r in range(inner):
            out[start + r] = b[start + r]
        for _ in range(1, length):
            before, start = start, start + step
            for r in range(inner):
                carried = a[start + r] * out[before + r] + b[start + r]
                out[start + r] = carried if a[start + r] != 0 else b[start + r]
    return True


def cumsum(x: Any, outer: int, length: int, reverse: bool, out: Any) -> bool:
    step = -1 if reverse else 1
    for o in range(outer):
        at = o * length + (length - 1 if reverse else 0)
        total = x[at]
        out[at] = total
        for _ in range(1, length):
            at += step
            total = total + x[at]
            out[at] = total
    return True


def cumprod(x: Any, outer: int, length: int, reverse: bool, out: Any) -> bool:
    step = -1 if reverse else 1
    for o in range(outer):
        at = o * length + (length - 1 if reverse else 0)
        total = x[at]
        out[at] = total
        for _ in range(1, length):
            at += step
            total = total * x[at]
            out[at] = total
    return True


def cummax(x: Any, outer: int, length: int, reverse: bool, out: Any) -> bool:
    step = -1 if reverse else 1
    for o in range(outer):
        at = o * length + (length - 1 if reverse else 0)
        best = x[at]
        out[at] = best
        for _ in range(1, length):
            at += step
            if x[at] >= best or np.isnan(x[at]):
                best = x[at]
            out[at] = best
    return True


def cummin(x: Any, outer: int, length: int, reverse: bool, out: Any) -> bool:
    step = -1 if reverse else 1
    for o in range(outer):
        at = o * length + (length - 1 if reverse else 0)
        best = x[at]
        out[at] = best
        for _ in range(1, length):
            at += step
            if x[at] <= best or np.isnan(x[at]):
                best = x[at]
            out[at] = best
    return True
