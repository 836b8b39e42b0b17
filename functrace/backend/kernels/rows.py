"""Sums and extrema of short rows, of flat arrays of shape (rows, width), where NumPy's loop per row costs more.

All return True. Plain Python functions, compiled by the package.
"""

from typing import Any

import numpy as np


def row_sum(x: Any, rows: int, width: int, out: Any) -> bool:
    """Rows of up to 128, added in the order of NumPy's pairwise summation."""
    for i in range(rows):
        start, stop = i * width, (i + 1) * width
        if width < 8:
            total = x[start]
            k = start + 1
        else:
            a, b, c, d = x[start], x[start + 1], x[start + 2], x[start + 3]
            e, f, g, h = x[start + 4], x[start + 5], x[start + 6], x[start + 7]
            k = start + 8
            while k + 7 < stop:
                a += x[k]
                b += x[k + 1]
                c += x[k + 2]
                d += x[k + 3]
                e += x[k + 4]
                f += x[k + 5]
                g += x[k + 6]
                h += x[k + 7]
                k += 8
            total = ((a + b) + (c + d)) + ((e + f) + (g + h))
        while k < stop:
            total += x[k]
            k += 1
        out[i] = total
    return True


def row_max(x: Any, rows: int, width: int, out: Any) -> bool:
    for i in range(rows):
        best = x[i * width]
        for k in range(i * width + 1, (i + 1) * width):
            best = x[k] if (x[k] >= best or np.isnan(x[k])) else best
        out[i] = best
    return True


def row_min(x: Any, rows: int, width: int, out: Any) -> bool:
    for i in range(rows):
        best = x[i * width]
        for k in range(i * width + 1, (i + 1) * width):
            best = x[k] if (x[k] <= best or np.isnan(x[k])) else best
        out[i] = best
    return True
