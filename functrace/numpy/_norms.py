"""Norms of vectors and matrices. The Euclidean norm has derivative NaN at 0; `safe_norm` has 0 there."""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.errors import ArgumentError, ShapeError
from functrace.numpy._axes import normalize_axes
from functrace.numpy._dispatch import implements
from functrace.numpy._promotion import as_array, cast
from functrace.primitives.contraction import free_axes, permute
from functrace.primitives.decompositions import svd
from functrace.primitives.elementwise import (
    abs_,
    convert,
    greater,
    imag,
    not_equal,
    real,
    select,
    sqrt,
    square,
    zero_of,
)
from functrace.primitives.families import reduce_sum, reshape
from functrace.util import user_line

__all__ = ["matrix_norm", "norm", "safe_norm", "vector_norm"]


def _floating(x: Any) -> Any:
    x = as_array(x)
    return x if x.dtype.kind in "fc" else cast(x, np.dtype(np.float64))


def _sum_of_squares(x: Any, axes: tuple[int, ...]) -> Any:
    squares = square(real(x)) + square(imag(x)) if x.dtype.kind == "c" else square(x)
    return reduce_sum(squares, axes=axes)


def _no_order(ord: Any, kind: str, choices: str) -> ArgumentError:
    return ArgumentError(
        f"there is no such {kind} norm", where=user_line(), got=f"ord={ord!r}", remedy=f"choose {choices}"
    )


def _vector(x: Any, ord: Any, axes: tuple[int, ...]) -> Any:
    if ord is None or ord == 2:
        return sqrt(_sum_of_squares(x, axes))
    if isinstance(ord, str):
        raise _no_order(ord, "vector", "a number, numpy.inf or -numpy.inf; names are for matrices")
    if ord == 0:
        nonzero = convert(not_equal(x, zero_of(x)), dtype=np.empty(0, x.dtype).real.dtype)
        return reduce_sum(nonzero, axes=axes)
    size = abs_(x)
    if ord == np.inf:
        return np.max(size, axes)
    if ord == -np.inf:
        return np.min(size, axes)
    if ord == 1:
        return reduce_sum(size, axes=axes)
    exponent = size.dtype.type(ord)
    return np.power(reduce_sum(np.power(size, exponent), axes=axes), 1 / exponent)


def _matrix(x: Any, ord: Any) -> Any:
    """The norm of the matrices in the last two axes."""
    rows, columns = len(x.shape) - 2, len(x.shape) - 1
    if ord in (None, "fro", "f"):
        return sqrt(_sum_of_squares(x, (rows, columns)))
    if ord in ("nuc", 2, -2):
        values = svd(x if x.dtype.char in "fdFD" else cast(x, np.dtype(np.float64)), full=False)[1]
        if ord == "nuc":
            return reduce_sum(values, axes=(rows,))
        return np.max(values, -1) if ord == 2 else np.min(values, -1)
    if ord in (1, -1):
        sums = reduce_sum(abs_(x), axes=(rows,))
    elif ord in (np.inf, -np.inf):
        sums = reduce_sum(abs_(x), axes=(columns,))
    else:
        raise _no_order(ord, "matrix", "'fro', 'nuc', 1, -1, 2, -2, numpy.inf or -numpy.inf")
    return np.max(sums, -1) if ord > 0 else np.min(sums, -1)


def _restore(out: Any, shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> Any:
    return reshape(out, shape=tuple(1 if i in axes else n for i, n in enumerate(shape))) if keepdims else out


@implements(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """A vector or matrix norm; the derivative of the Euclidean norm at 0 is NaN (see `safe_norm`)."""
    x = _floating(x)
    ndim = len(x.shape)
    axes = tuple(range(ndim)) if axis is None else normalize_axes(axis, ndim)
    if axis is None and ord is None:
        return _restore(_vector(x, None, axes), x.shape, axes, keepdims)
    if len(axes) == 1:
        return _restore(_vector(x, ord, axes), x.shape, axes, keepdims)
    if len(axes) != 2:
        raise ShapeError(
            "a norm is taken over one axis (vectors) or two (matrices)",
            where=user_line(),
            got=f"shape {x.shape}, axis={axis!r}",
            remedy="name the axes in axis=, or use numpy.linalg.vector_norm, which flattens",
        )
    moved = permute(x, (*free_axes(ndim, axes), *axes))
    return _restore(_matrix(moved, ord), x.shape, axes, keepdims)


@implements(np.linalg.matrix_norm)
def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    """The norm of each matrix; see `norm`."""
    return norm(x, ord, (-2, -1), keepdims)


@implements(np.linalg.vector_norm)
def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    """The norm of the elements along any number of axes, by default all; see `norm`."""
    x = _floating(x)
    axes = tuple(range(len(x.shape))) if axis is None else normalize_axes(axis, len(x.shape))
    return _restore(_vector(x, ord, axes), x.shape, axes, keepdims)


def safe_norm(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """The Euclidean norm, with derivative 0 at 0.

    Args:
        x: array, real or complex.
        axis: the axes to take the norm over; all by default.
        keepdims: whether these axes stay, with length 1.

    Returns:
        The norm, of real dtype.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> import functrace.numpy as fnp
        >>> functrace.grad(fnp.linalg.safe_norm)(np.zeros(2))
        array([0., 0.])
    """
    x = _floating(x)
    axes = tuple(range(len(x.shape))) if axis is None else normalize_axes(axis, len(x.shape))
    squares = _sum_of_squares(x, axes)
    zero = zero_of(squares)
    positive = greater(squares, zero)
    out = select(positive, sqrt(select(positive, squares, zero + 1)), zero)
    return _restore(out, x.shape, axes, keepdims)
