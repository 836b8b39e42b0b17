"""Small matrices by the thousand: LAPACK's call costs more than its work there.

Stacks have three axes. Every kernel returns False where a matrix is singular, not positive definite or not finite:
NumPy then takes over the whole stack, with its own result or error. Plain Python functions, compiled by the package.
"""

from typing import Any

import numpy as np


def solve(a: Any, b: Any, out: Any) -> bool:
    """Gaussian elimination with partial pivoting."""
    n, columns = b.shape[1], b.shape[2]
    lu = np.empty((n, n), a.dtype)
    for s in range(a.shape[0]):
        x = out[s]
        probe = a.dtype.type(0)
        for i in range(n):
            for j in range(n):
                lu[i, j] = a[s, i, j]
                probe += a[s, i, j] * 0
            for j in range(columns):
                x[i, j] = b[s, i, j]
                probe += b[s, i, j] * 0
        if probe != 0:
            return False
        for k in range(n):
            pivot = k
            for i in range(k + 1, n):
                if abs(lu[i, k]) > abs(lu[pivot, k]):
                    pivot = i
            if lu[pivot, k] == 0:
                return False
            if pivot != k:
                for j in range(n):
                    lu[k, j], lu[pivot, j] = lu[pivot, j], lu[k, j]
                for j in range(columns):
                    x[k, j], x[pivot, j] = x[pivot, j], x[k, j]
            for i in range(k + 1, n):
                factor = lu[i, k] / lu[k, k]
                for j in range(k + 1, n):
                    lu[i, j] -= factor * lu[k, j]
                for j in range(columns):
                    x[i, j] -= factor * x[k, j]
        for k in range(n - 1, -1, -1):
            for j in range(columns):
                x[k, j] /= lu[k, k]
            for i in range(k):
                for j in range(columns):
                    x[i, j] -= lu[i, k] * x[k, j]
    return True


def triangular_solve(a: Any, b: Any, lower: bool, unit: bool, out: Any) -> bool:
    n, columns = b.shape[1], b.shape[2]
    for s in range(a.shape[0]):
        x = out[s]
        probe = a.dtype.type(0)
        for i in range(n):
            for j in range(i + 1 if lower else n - i):
                probe += a[s, i, j if lower else n - 1 - j] * 0
            for j in range(columns):
                x[i, j] = b[s, i, j]
                probe += b[s, i, j] * 0
            if not unit and a[s, i, i] == 0:
                return False
        if probe != 0:
            return False
        for step in range(n):
            k = step if lower else n - 1 - step
            if not unit:
                for j in range(columns):
                    x[k, j] /= a[s, k, k]
            for i in range(k + 1 if lower else 0, n if lower else k):
                for j in range(columns):
                    x[i, j] -= a[s, i, k] * x[k, j]
    return True


def cholesky(a: Any, out: Any) -> bool:
    """The lower factor from the lower triangle."""
    n = a.shape[1]
    for s in range(a.shape[0]):
        for j in range(n):
            for i in range(j):
                out[s, i, j] = 0
            total = a[s, j, j]
            for k in range(j):
                total -= out[s, j, k] * out[s, j, k]
            if not (total > 0 and total < np.inf):
                return False
            root = np.sqrt(total)
            out[s, j, j] = root
            for i in range(j + 1, n):
                total = a[s, i, j]
                for k in range(j):
                    total -= out[s, i, k] * out[s, j, k]
                out[s, i, j] = total / root
    return True
