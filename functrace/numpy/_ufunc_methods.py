"""The methods of ufuncs on tracers: reduce, accumulate, reduceat, outer and at.

Those that NumPy also has as functions (`numpy.add.reduce` is `numpy.sum`) go there; the others are folds of the ufunc.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.core.trace import Tracer
from functrace.errors import ArgumentError, DTypeError, IndexingError, ShapeError, UnsupportedFunctionError
from functrace.numpy._axes import normalize_axes, normalize_axis
from functrace.numpy._dispatch import (
    describe,
    plain_buffer,
    reject,
    traced_functions,
    traced_ufuncs,
    write_out,
    write_whole,
)
from functrace.numpy._promotion import as_array, cast, checked_dtype, dtype_of, resolve
from functrace.numpy._reducing import initial_value
from functrace.primitives.cumulative import cumlogsumexp, cummax, cummin
from functrace.primitives.families import reshape
from functrace.primitives.shape import concatenate, full, slice_
from functrace.util import user_line

__all__ = ["ufunc_methods"]

_REDUCTIONS: dict[np.ufunc, Callable[..., Any]] = {
    np.add: np.sum,
    np.multiply: np.prod,
    np.maximum: np.max,
    np.minimum: np.min,
    np.logical_and: np.all,
    np.logical_or: np.any,
}
_SCANS: dict[np.ufunc, Callable[..., Any]] = {np.add: np.cumsum, np.multiply: np.cumprod}
_SCAN_PRIMITIVES = {np.maximum: cummax, np.minimum: cummin, np.logaddexp: cumlogsumexp}

#: Ufuncs that may be folded in any order, hence by halves, in a logarithmic number of operations.
_ASSOCIATIVE = frozenset(
    {
        *(np.add, np.multiply, np.maximum, np.minimum, np.fmax, np.fmin, np.logaddexp, np.logaddexp2, np.hypot),
        *(np.logical_and, np.logical_or, np.logical_xor, np.bitwise_and, np.bitwise_or, np.bitwise_xor),
        *(np.gcd, np.lcm),
    }
)


def reduce(ufunc: np.ufunc, x: Any, **options: Any) -> Any:
    """`ufunc.reduce(x, axis=0, dtype, out, keepdims, initial, where)`."""
    _check_binary(ufunc, "reduce")
    out, options = _pop_out(options)
    axis = options.pop("axis", 0)
    function = traced_functions.get(_REDUCTIONS.get(ufunc))  # type: ignore[arg-type]
    if function is not None:
        if ufunc in (np.maximum, np.minimum, np.logical_and, np.logical_or):
            reject(f"{ufunc.__name__}.reduce", dtype=options.pop("dtype", None))
        result = function(x, axis=axis, **options)
    else:
        result = _fold(ufunc, as_array(x), axis, **options)
    return write_whole(f"{describe(ufunc)}.reduce", result, out)


def accumulate(ufunc: np.ufunc, x: Any, **options: Any) -> Any:
    """`ufunc.accumulate(x, axis=0, dtype, out)`."""
    _check_binary(ufunc, "accumulate")
    out, options = _pop_out(options)
    axis, dtype = options.pop("axis", 0), options.pop("dtype", None)
    x = as_array(x)
    function = traced_functions.get(_SCANS.get(ufunc))  # type: ignore[arg-type]
    if function is not None:
        result = function(x, axis=normalize_axis(axis, len(x.shape)), dtype=dtype)
    elif ufunc in _SCAN_PRIMITIVES:
        place = normalize_axis(axis, len(x.shape))
        result = _SCAN_PRIMITIVES[ufunc](_loop_operand(ufunc, x, dtype), axis=place, reverse=False)
    else:
        result = _accumulate(ufunc, x, normalize_axis(axis, len(x.shape)), dtype)
    return write_whole(f"{describe(ufunc)}.accumulate", result, out)


def reduceat(ufunc: np.ufunc, x: Any, indices: Any, **options: Any) -> Any:
    """`ufunc.reduceat(x, indices, axis=0, dtype, out)`: one reduction per index, up to the next index."""
    _check_binary(ufunc, "reduceat")
    out, options = _pop_out(options)
    x = as_array(x)
    axis = normalize_axis(options.pop("axis", 0), len(x.shape))
    starts = _static_indices(indices, x.shape[axis])
    pieces = []
    for start, stop in zip(starts, [*starts[1:], x.shape[axis]], strict=False):
        piece = _slice(x, axis, start, max(stop, start + 1))
        pieces.append(reduce(ufunc, piece, axis=axis, keepdims=True, **options))
    result = concatenate(*pieces, axis=axis) if pieces else _slice(x, axis, 0, 0)
    return write_whole(f"{describe(ufunc)}.reduceat", result, out)


def outer(ufunc: np.ufunc, x: Any, y: Any, **options: Any) -> Any:
    """`ufunc.outer(x, y)`: every element of x with every element of y."""
    _check_binary(ufunc, "outer")
    out, options = _pop_out(options)
    x, y = as_array(x), as_array(y)
    x = reshape(x, shape=(*x.shape, *(1,) * len(y.shape))) if y.shape else x
    return write_out(f"{describe(ufunc)}.outer", traced_ufuncs[ufunc](x, y, **options), out)


def at(ufunc: np.ufunc, buffer: Any, indices: Any, values: Any = None) -> None:
    """`ufunc.at(buffer, indices, values)`: update a traced array in place, repeated indices one after another."""
    if not isinstance(buffer, Tracer):
        raise plain_buffer(f"{describe(ufunc)}.at would write", buffer)
    update = _UPDATES.get(ufunc)
    if update is None:
        raise UnsupportedFunctionError(
            f"numpy.{ufunc.__name__}.at has no traced form",
            where=user_line(),
            got=f"numpy.{ufunc.__name__}",
            remedy=f"numpy.{', numpy.'.join(u.__name__ for u in _UPDATES)} have one; otherwise assign "
            "x[i] = f(x[i], v) where no index repeats",
        )
    buffer[...] = update(buffer.at[indices], values)  # type: ignore[attr-defined, index]


#: How `ufunc.at` updates, in terms of `x.at[i]`.
_UPDATES: dict[np.ufunc, Callable[[Any, Any], Any]] = {
    np.add: lambda ref, v: ref.add(v),
    np.subtract: lambda ref, v: ref.add(-v),
    np.multiply: lambda ref, v: ref.multiply(v),
    np.true_divide: lambda ref, v: ref.multiply(1 / v),
    np.maximum: lambda ref, v: ref.max(v),
    np.minimum: lambda ref, v: ref.min(v),
}

ufunc_methods: dict[str, Callable[..., Any]] = {
    "reduce": reduce,
    "accumulate": accumulate,
    "reduceat": reduceat,
    "outer": outer,
    "at": at,
}


# folds


def _check_binary(ufunc: np.ufunc, method: str) -> None:
    if ufunc.nin == 2 and ufunc.nout == 1 and ufunc.signature is None:
        return
    raise ArgumentError(
        f"numpy.{ufunc.__name__}.{method} does not exist: only ufuncs of two operands and one result have it",
        where=user_line(),
        got=f"{ufunc.nin} operands, {ufunc.nout} results",
        remedy="call the ufunc itself",
    )


def _pop_out(options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    options = dict(options)
    out = options.pop("out", None)
    return (out[0] if isinstance(out, tuple) else out), options


def _slice(x: Any, axis: int, start: int, stop: int, step: int = 1) -> Any:
    starts, stops, steps = [0] * len(x.shape), list(x.shape), [1] * len(x.shape)
    starts[axis], stops[axis], steps[axis] = start, stop, step
    return slice_(x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


def _loop_operand(ufunc: np.ufunc, x: Any, dtype: Any) -> Any:
    """The operand in the dtype in which folding goes on.

    Raises:
        DTypeError: the ufunc's result cannot be its next operand.
    """
    signature = None if dtype is None else (None, None, checked_dtype(dtype))
    loop = resolve(ufunc, (dtype_of(x), dtype_of(x)), signature)
    if loop[2] != loop[0] and resolve(ufunc, (loop[2], loop[2]))[2] != loop[2]:
        raise DTypeError(
            f"numpy.{ufunc.__name__} cannot be folded over {x.dtype.name}",
            where=user_line(),
            got=f"result {loop[2].name}",
            remedy="convert the operand with .astype",
        )
    return cast(x, loop[2])


def _fold(
    ufunc: np.ufunc,
    x: Any,
    axis: Any,
    dtype: Any = None,
    keepdims: bool = False,
    initial: Any = np._NoValue,
    where: Any = True,
) -> Any:
    """Reduce by applying the ufunc to slices."""
    reject(f"{ufunc.__name__}.reduce", where=where)
    x = _loop_operand(ufunc, x, dtype)
    apply = traced_ufuncs[ufunc]
    axes = tuple(range(len(x.shape))) if axis is None else normalize_axes(axis, len(x.shape))
    if len(axes) > 1 and ufunc not in _ASSOCIATIVE:
        raise ArgumentError(
            f"numpy.{ufunc.__name__}.reduce goes over one axis at a time: its order matters",
            where=user_line(),
            got=f"axis={axis}",
            remedy="reduce one axis after another",
        )
    for a in axes:
        x = _fold_axis(ufunc, apply, x, a)
    if initial is not np._NoValue and initial is not None:
        x = apply(initial_value(f"{ufunc.__name__}.reduce", initial, x.dtype), x)
    kept = tuple(n for i, n in enumerate(x.shape) if i not in axes)
    return x if keepdims else reshape(x, shape=kept)


def _fold_axis(ufunc: np.ufunc, apply: Callable[..., Any], x: Any, axis: int) -> Any:
    """Fold one axis down to length 1."""
    length = x.shape[axis]
    if length == 0:
        if ufunc.identity is None:
            raise ShapeError(
                f"numpy.{ufunc.__name__}.reduce of nothing has no value",
                where=user_line(),
                got=f"axis {axis} of length 0",
                remedy="reduce an axis with elements",
            )
        shape = tuple(1 if i == axis else n for i, n in enumerate(x.shape))
        return full(shape=shape, value=ufunc.identity, dtype=x.dtype)
    if ufunc not in _ASSOCIATIVE:
        total = _slice(x, axis, 0, 1)
        for i in range(1, length):
            total = apply(total, _slice(x, axis, i, i + 1))
        return total
    while length > 1:
        half = length // 2
        folded = apply(_slice(x, axis, 0, half), _slice(x, axis, half, 2 * half))
        x = concatenate(folded, _slice(x, axis, 2 * half, length), axis=axis) if length % 2 else folded
        length = x.shape[axis]
    return x


def _accumulate(ufunc: np.ufunc, x: Any, axis: int, dtype: Any) -> Any:
    x = _loop_operand(ufunc, x, dtype)
    if x.shape[axis] < 2:
        return x
    apply = traced_ufuncs[ufunc]
    steps = [_slice(x, axis, 0, 1)]
    for i in range(1, x.shape[axis]):
        steps.append(apply(steps[-1], _slice(x, axis, i, i + 1)))
    return concatenate(*steps, axis=axis)


def _static_indices(indices: Any, length: int) -> list[int]:
    """Indices as Python integers in range."""
    if isinstance(indices, Tracer):
        raise IndexingError(
            "reduceat needs indices that are known while tracing",
            where=user_line(),
            got=indices.describe(),
            remedy="pass a plain array or list of integers, or mark the argument static",
        )
    found = [operator.index(i) for i in np.asarray(indices).ravel()]
    for i in found:
        if not 0 <= i < length:
            raise IndexingError(
                f"reduceat: index {i} is out of bounds for an axis of length {length}",
                where=user_line(),
                got=f"index {i}",
                remedy=f"use indices from 0 to {length - 1}",
            )
    return found
