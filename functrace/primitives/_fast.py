"""The way from primitives to compiled kernels: operands brought into the form that a kernel takes.

Each function does the work and says so, or does nothing: then NumPy has to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.primitives._kernels import Kernel

__all__ = [
    "accumulate", "cholesky", "gather", "logsumexp", "recurrence", "reduce", "scatter", "softmax", "solve",
    "triangular",
]  # fmt: skip

_INDEX = np.dtype(np.intp)
_DOUBLE = np.dtype(np.float64)
_WORDS = {size: np.dtype(f"u{size}") for size in (1, 4, 8)}

_ravel = Kernel("ravel", least=100, gain=1.0)
_gather = Kernel("gather", least=3_000, gain=2.0)
_scatters: dict[np.ufunc | None, Kernel] = {
    None: Kernel("scatter_set", least=300, gain=0.5),
    np.add: Kernel("scatter_add", least=100, gain=1.5),
    np.multiply: Kernel("scatter_multiply", least=100, gain=1.5),
    np.maximum: Kernel("scatter_max", least=100, gain=1.5),
    np.minimum: Kernel("scatter_min", least=100, gain=1.5),
}
_recurrence = Kernel("linear_recurrence", least=30, gain=100.0)
_accumulations: dict[np.ufunc, Kernel] = {
    np.add: Kernel("cumsum", least=1_000, gain=1.5),
    np.multiply: Kernel("cumprod", least=1_000, gain=1.5),
    np.maximum: Kernel("cummax", least=1_000, gain=2.0),
    np.minimum: Kernel("cummin", least=1_000, gain=2.0),
}
_logsumexp = Kernel("logsumexp", least=30, gain=5.0)
_softmax = Kernel("softmax", least=30, gain=5.0)
_reductions: dict[np.ufunc, Kernel] = {
    np.add: Kernel("row_sum", least=1_000, gain=3.0),
    np.maximum: Kernel("row_max", least=1_000, gain=3.0),
    np.minimum: Kernel("row_min", least=1_000, gain=3.0),
}
_solve = Kernel("solve", least=16, gain=8.0)
_triangular = Kernel("triangular_solve", least=16, gain=12.0)
_cholesky = Kernel("cholesky", least=16, gain=5.0)

#: The longest rows whose exponentials, and whose elements, are summed up quicker than by NumPy; the largest matrices.
SHORT_ROW, VERY_SHORT_ROW, SMALL_MATRIX = 128, 32, 16


#: The most numbers at a position that are moved one by one quicker than by NumPy.
THIN = 4


def _plain(x: Any) -> bool:
    return x.flags.c_contiguous and x.flags.aligned


# index arrays


def _positions(indices: tuple[Any, ...], sizes: tuple[int, ...]) -> Any:
    """Positions along the indexed axes laid end to end, or None without the kernel or where one is out of range."""
    flat = [np.ascontiguousarray(index).reshape(-1) for index in indices]
    if len(flat) == 1:
        return flat[0]
    ravel = _ravel.ready(len(flat), flat[0].size)
    if ravel is None or any(index.dtype != _INDEX for index in flat):
        return None
    positions = np.empty(flat[0].size, _INDEX)
    return positions if ravel(tuple(flat), sizes, positions) else None


def _layout(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, int, int] | None:
    """(outer, count, width): the sizes before, of and behind the indexed axes, where these stand together in order."""
    first, last = axes[0], axes[-1] + 1
    if axes != tuple(range(first, last)):
        return None
    return math.prod(shape[:first]), math.prod(shape[first:last]), math.prod(shape[last:])


def _moves(kernel: Kernel, x: Any, size: int) -> Any:
    """For kernels that only move data: the function, the word that elements are made of, and how many each has."""
    words = 2 if x.itemsize == 16 else 1
    word = _WORDS.get(x.itemsize // words)
    if word is None or x.dtype.hasobject:
        return None
    function = kernel.ready(word, size * words)
    return None if function is None else (function, word, words)


def gather(x: Any, indices: tuple[Any, ...], axes: tuple[int, ...]) -> Any:
    """The elements of `x` at index arrays, or None."""
    first = indices[0]
    if type(first) is not np.ndarray or first.size * x.size < _gather.least or first.dtype != _INDEX:
        return None
    layout = _layout(x.shape, axes)
    if layout is None or not _plain(x):
        return None
    outer, count, width = layout
    if outer * width > THIN:
        return None
    found = _moves(_gather, x, first.size * outer * width)
    if found is None:
        return None
    function, word, words = found
    positions = _positions(indices, tuple([x.shape[a] for a in axes]))
    out = np.empty((*first.shape, *x.shape[: axes[0]], *x.shape[axes[-1] + 1 :]), x.dtype)
    if positions is None or not function(
        x.reshape(-1).view(word), positions, outer, count, width * words, out.reshape(-1).view(word)
    ):
        return None
    return out


def scatter(combine: np.ufunc | None, x: Any, indices: tuple[Any, ...], values: Any, axes: tuple[int, ...]) -> bool:
    """Combine `values` into the C-contiguous `x` at index arrays, in place, or replace (`combine` None)."""
    kernel, first, size = _scatters.get(combine), indices[0], np.size(values)
    if kernel is None or size < kernel.least or type(first) is not np.ndarray or first.dtype != _INDEX:
        return False
    layout = _layout(x.shape, axes)
    if layout is None or x.dtype != values.dtype or not _plain(x):
        return False
    outer, count, width = layout
    flat, terms = x.reshape(-1), np.ascontiguousarray(values).reshape(-1)
    function: Callable[..., bool] | None
    if combine is None:
        if outer * width > THIN:
            return False
        found = _moves(kernel, x, size)
        if found is None:
            return False
        function, word, words = found
        flat, terms, width = flat.view(word), terms.view(word), width * words
    elif combine is np.add and x.dtype.kind == "c":
        parts = x.real.dtype
        function = kernel.ready(parts, 2 * size)
        flat, terms, width = flat.view(parts), terms.view(parts), 2 * width
    else:
        function = kernel.ready(x.dtype, size)
    if function is None:
        return False
    positions = _positions(indices, tuple([x.shape[a] for a in axes]))
    return positions is not None and function(flat, positions, outer, count, width, terms)


# along an axis


def _three(shape: tuple[int, ...], axis: int) -> tuple[int, int, int]:
    return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])


def recurrence(a: Any, b: Any, axis: int, reverse: bool) -> Any:
    """t[k] = a[k] t[k-1] + b[k], or None. In double precision along the only axis, as without the kernel."""
    if b.size < _recurrence.least or a.dtype != b.dtype or a.shape != b.shape or b.dtype.kind != "f":
        return None
    wide = _DOUBLE if b.ndim == 1 else b.dtype
    function = _recurrence.ready(wide, b.size)
    if function is None:
        return None
    factors = np.ascontiguousarray(a, wide).reshape(-1)
    terms = np.ascontiguousarray(b, wide).reshape(-1)
    out = np.empty(b.shape, wide)
    function(factors, terms, *_three(b.shape, axis), reverse, out.reshape(-1))
    return out.astype(b.dtype, copy=False)


def accumulate(ufunc: np.ufunc, x: Any, axis: int, reverse: bool) -> Any:
    """`ufunc.accumulate` along an axis behind which there is none, or None."""
    kernel = _accumulations.get(ufunc)
    if kernel is None or x.size < kernel.least:
        return None
    outer, length, inner = _three(x.shape, axis)
    if inner != 1 or not _plain(x):
        return None
    function = kernel.ready(x.dtype, x.size)
    if function is None:
        return None
    out = np.empty(x.shape, x.dtype)
    function(x.reshape(-1), outer, length, reverse, out.reshape(-1))
    return out


# short rows


def _rows(x: Any, axes: tuple[int, ...]) -> tuple[int, int] | None:
    """Number and length of the rows when the reduced axes are the last ones and rows are short."""
    first = x.ndim - len(axes)
    if axes != tuple(range(first, x.ndim)) or not _plain(x):
        return None
    width = math.prod(x.shape[first:])
    return (math.prod(x.shape[:first]), width) if 0 < width <= SHORT_ROW else None


def reduce(ufunc: np.ufunc, x: Any, axes: tuple[int, ...]) -> Any:
    """`ufunc.reduce` over the last axes, or None."""
    kernel = _reductions[ufunc]
    if x.size < kernel.least or (rows := _rows(x, axes)) is None or not 1 < rows[1] <= VERY_SHORT_ROW:
        return None
    function = kernel.ready(x.dtype, x.size)
    if function is None:
        return None
    out = np.empty(x.shape[: x.ndim - len(axes)], x.dtype)
    function(x.reshape(-1), *rows, out.reshape(-1))
    return out


def logsumexp(x: Any, axes: tuple[int, ...]) -> Any:
    """log sum exp over the last axes, or None."""
    if x.size < _logsumexp.least or (rows := _rows(x, axes)) is None:
        return None
    function = _logsumexp.ready(x.dtype, x.size)
    if function is None:
        return None
    out = np.empty(rows[0], x.dtype)
    function(x.reshape(-1), *rows, out)
    return out.reshape(x.shape[: x.ndim - len(axes)])


def softmax(x: Any, axes: tuple[int, ...], undefined: bool) -> Any:
    """Shares in sums of exponentials over the last axes, or None."""
    if x.size < _softmax.least or (rows := _rows(x, axes)) is None:
        return None
    function = _softmax.ready(x.dtype, x.size)
    if function is None:
        return None
    out = np.empty(x.shape, x.dtype)
    function(x.reshape(-1), *rows, undefined, out.reshape(-1))
    return out


# small matrices


def _small(kernel: Kernel, a: Any) -> Callable[..., bool] | None:
    if a.ndim < 3 or not 0 < a.shape[-1] <= SMALL_MATRIX:
        return None
    return kernel.ready(a.dtype, a.size)


def _stack(x: Any) -> Any:
    return np.ascontiguousarray(x).reshape(-1, *x.shape[-2:])


def cholesky(a: Any) -> Any:
    """The lower factors of a stack of small matrices, or None."""
    function = _small(_cholesky, a)
    if function is None:
        return None
    out = np.empty(a.shape, a.dtype)
    return out if function(_stack(a), out.reshape(-1, *a.shape[-2:])) else None


def _solution(function: Callable[..., bool] | None, a: Any, b: Any, *flags: bool) -> Any:
    if function is None or a.dtype != b.dtype or a.shape[:-2] != b.shape[:-2] or not b.size:
        return None
    out = np.empty(b.shape, b.dtype)
    return out if function(_stack(a), _stack(b), *flags, out.reshape(-1, *b.shape[-2:])) else None


def solve(a: Any, b: Any) -> Any:
    """x with a x = b for stacks of small matrices, or None."""
    return _solution(_small(_solve, a), a, b)


def triangular(a: Any, b: Any, lower: bool, unit: bool) -> Any:
    """The same for one triangle of each matrix."""
    return _solution(_small(_triangular, a), a, b, lower, unit)
