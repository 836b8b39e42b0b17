"""Sums of exponentials over short rows, of flat arrays of shape (rows, width).

A row's largest element is subtracted first. The exponentials are those of the backend's vector math, a block of rows
at a time so that it stays in the cache. Maxima and sums run over four parts of a row at once, which hides the latency
of the additions. All return True. Plain Python functions, compiled by the package.
"""

from typing import Any

import numpy as np

#: Numbers in a block, 4 kB.
BLOCK = 512


def exponential(address: int, x: Any, start: int, count: int) -> None:
    """Replace elements by their exponentials, by the loop at an address; the package puts in the call."""
    raise NotImplementedError


def largest(x: Any, start: int, stop: int) -> Any:
    """The largest number, NaN if there is any, after NumPy."""
    a = b = c = d = x[start]
    probe = x[start] * 0
    k = start + 1
    while k + 3 < stop:
        a = x[k] if x[k] > a else a
        b = x[k + 1] if x[k + 1] > b else b
        c = x[k + 2] if x[k + 2] > c else c
        d = x[k + 3] if x[k + 3] > d else d
        k += 4
    while k < stop:
        a = x[k] if x[k] > a else a
        k += 1
    a, c = (b if b > a else a), (d if d > c else c)
    a = c if c > a else a
    if np.isinf(a) or np.isnan(probe):  # else a NaN shows in the sum
        for k in range(start, stop):
            if np.isnan(x[k]):
                return x[k]
    return a


def total(x: Any, start: int, stop: int) -> Any:
    a = b = c = d = x[start] * 0
    k = start
    while k + 3 < stop:
        a += x[k]
        b += x[k + 1]
        c += x[k + 2]
        d += x[k + 3]
        k += 4
    while k < stop:
        a += x[k]
        k += 1
    return (a + b) + (c + d)


def softmax(address: int, x: Any, rows: int, width: int, undefined: bool, out: Any) -> bool:
    block = max(1, BLOCK // width)
    for first in range(0, rows, block):
        last = min(first + block, rows)
        for i in range(first, last):
            start, stop = i * width, (i + 1) * width
            peak = largest(x, start, stop)
            if np.isinf(peak):  # infinite elements share equally
                for k in range(start, stop):
                    out[k] = 0 if x[k] == np.inf else -np.inf
            else:
                for k in range(start, stop):
                    out[k] = x[k] - peak
        exponential(address, out, first * width, (last - first) * width)
        for i in range(first, last):
            start, stop = i * width, (i + 1) * width
            whole = total(out, start, stop)
            if whole == 0 and not undefined:  # nothing but -inf
                whole = whole + 1
            for k in range(start, stop):
                out[k] = out[k] / whole
    return True


def logsumexp(address: int, x: Any, rows: int, width: int, out: Any) -> bool:
    block = max(1, BLOCK // width)
    shifted = np.empty(block * width, x.dtype)
    peaks = np.empty(block, x.dtype)
    for first in range(0, rows, block):
        last = min(first + block, rows)
        for i in range(first, last):
            start, there = i * width, (i - first) * width
            peak = peaks[i - first] = largest(x, start, start + width)
            for k in range(width):
                shifted[there + k] = x[start + k] - peak
        exponential(address, shifted, 0, (last - first) * width)
        for i in range(first, last):
            there, peak = (i - first) * width, peaks[i - first]
            if np.isinf(peak):  # nothing but -inf, or some inf
                out[i] = peak
            else:
                out[i] = np.log(total(shifted, there, there + width)) + peak
    return True
