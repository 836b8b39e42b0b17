"""Reading and writing at index arrays.

Arrays are flat. `x` stands for shape (outer, count, width), `positions` index its middle axis, and the values read or
written stand for shape (positions, outer, width). Every kernel returns False, having written nothing, where a position
is out of range. Plain Python functions, compiled by the package.
"""

from typing import Any

import numpy as np


def ravel(indices: tuple[Any, ...], sizes: tuple[int, ...], positions: Any) -> bool:
    """Positions in axes of these sizes laid end to end, from one index array per axis."""
    good = True
    for i in range(positions.size):
        position = 0
        for axis in range(len(indices)):
            index = indices[axis][i]
            good &= (index >= 0) & (index < sizes[axis])
            position = position * sizes[axis] + index
        positions[i] = position
    return good


def gather(x: Any, positions: Any, outer: int, count: int, width: int, out: Any) -> bool:
    good = True
    for i in range(positions.size):
        good &= (positions[i] >= 0) & (positions[i] < count)
    if not good:
        return False
    if outer == 1 and width == 1:
        for i in range(positions.size):
            out[i] = x[positions[i]]
        return True
    at = 0
    for i in range(positions.size):
        for o in range(outer):
            start = (o * count + positions[i]) * width
            for r in range(width):
                out[at + r] = x[start + r]
            at += width
    return True


def scatter_set(x: Any, positions: Any, outer: int, count: int, width: int, values: Any) -> bool:
    good = True
    for i in range(positions.size):
        good &= (positions[i] >= 0) & (positions[i] < count)
    if not good:
        return False
    if outer == 1 and width == 1:
        for i in range(positions.size):
            x[positions[i]] = values[i]
        return True
    at = 0
    for i in range(positions.size):
        for o in range(outer):
            start = (o * count + positions[i]) * width
            for r in range(width):
                x[start + r] = values[at + r]
            at += width
    return True


def scatter_add(x: Any, positions: Any, outer: int, count: int, width: int, values: Any) -> bool:
    good = True
    for i in range(positions.size):
        good &= (positions[i] >= 0) & (positions[i] < count)
    if not good:
        return False
    if outer == 1 and width == 1:
        for i in range(positions.size):
            x[positions[i]] += values[i]
        return True
    at = 0
    for i in range(positions.size):
        for o in range(outer):
            start = (o * count + positions[i]) * width
            for r in range(width):
                x[start + r] += values[at + r]
            at += width
    return True


def scatter_multiply(x: Any, positions: Any, outer: int, count: int, width: int, values: Any) -> bool:
    good = True
    for i in range(positions.size):
        good &= (positions[i] >= 0) & (positions[i] < count)
    if not good:
        return False
    if outer == 1 and width == 1:
        for i in range(positions.size):
            x[positions[i]] *= values[i]
        return True
    at = 0
    for i in range(positions.size):
        for o in range(outer):
            start = (o * count + positions[i]) * width
            for r in range(width):
                x[start + r] *= values[at + r]
            at += width
    return True


def scatter_max(x: Any, positions: Any, outer: int, count: int, width: int, values: Any) -> bool:
    """A NaN stays, and wins; of two zeros the new one does."""
    good = True
    for i in range(positions.size):
        good &= (positions[i] >= 0) & (positions[i] < count)
    if not good:
        return False
    if outer == 1 and width == 1:
        for i in range(positions.size):
            old, new = x[positions[i]], values[i]
            x[positions[i]] = new if (new >= old or np.isnan(new)) else old
        return True
    at = 0
    for i in range(positions.size):
        for o in range(outer):
            start = (o * count + positions[i]) * width
            for r in range(width):
                old, new = x[start + r], values[at + r]
                x[start + r] = new if (new >= old or np.isnan(new)) else old
            at += width
    return True


def scatter_min(x: Any, positions: Any, outer: int, count: int, width: int, values: Any) -> bool:
    """A NaN stays, and wins; of two zeros the new one does."""
    good = True
    for i in range(positions.size):
        good &= (positions[i] >= 0) & (positions[i] < count)
    if not good:
        return False
    if outer == 1 and width == 1:
        for i in range(positions.size):
            old, new = x[positions[i]], values[i]
            x[positions[i]] = new if (new <= old or np.isnan(new)) else old
        return True
    at = 0
    for i in range(positions.size):
        for o in range(outer):
            start = (o * count + positions[i]) * width
            for r in range(width):
                old, new = x[start + r], values[at + r]
                x[start + r] = new if (new <= old or np.isnan(new)) else old
            at += width
    return True
