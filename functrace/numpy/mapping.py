"""NumPy's functions that call a Python function along axes of an array."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.trace import EVAL, current_trace
from functrace.errors import ArgumentError, ShapeError, UnsupportedFunctionError
from functrace.numpy._axes import normalize_axis
from functrace.numpy._promotion import as_array, from_nested, has_tracer
from functrace.numpy._structural import move_axis, structural
from functrace.primitives.families import reshape as reshape_primitive
from functrace.primitives.shape import stack as stack_primitive
from functrace.primitives.shape import unstack as unstack_primitive
from functrace.util import user_line

__all__ = ["apply_along_axis", "apply_over_axes", "vectorize"]


@structural(np.apply_along_axis)
def apply_along_axis(func1d: Callable[..., Any], axis: int, arr: Any, *args: Any, **kwargs: Any) -> Any:
    """A function of vectors, called for each vector along an axis; `functrace.vmap` does so in one batched call."""
    x = as_array(arr)
    place = normalize_axis(axis, x.ndim)
    rest = x.shape[:place] + x.shape[place + 1 :]
    if 0 in rest:
        raise ArgumentError(
            "numpy.apply_along_axis cannot be applied when a remaining axis has length 0",
            where=user_line(),
            got=f"shape {x.shape}, axis {axis}",
            remedy="make the result directly: there is no vector to call the function with",
        )
    rows = reshape_primitive(move_axis(x, place, x.ndim - 1), shape=(math.prod(rest), x.shape[place]))
    results = [from_nested(func1d(row, *args, **kwargs)) for row in unstack_primitive(rows, axis=0)]
    first = results[0]
    if any(r.shape != first.shape for r in results):
        raise ShapeError(
            "the function of numpy.apply_along_axis gives results of different shapes",
            where=user_line(),
            got=", ".join(sorted({str(r.shape) for r in results})),
            remedy="return arrays of one shape for every vector",
        )
    results = [r.astype(first.dtype) for r in results]
    out = reshape_primitive(stack_primitive(*results, axis=0), shape=rest + first.shape)
    for i in range(len(first.shape)):
        out = move_axis(out, len(rest) + i, place + i)
    return out


@structural(np.apply_over_axes)
def apply_over_axes(func: Callable[[Any, int], Any], a: Any, axes: Any) -> Any:
    """A function of an array and an axis, called for several axes one after the other."""
    x = as_array(a)
    ndim = x.ndim
    for axis in axes if isinstance(axes, Sequence) or np.ndim(axes) else (axes,):
        place = normalize_axis(axis, ndim)
        result = func(x, place)
        if len(result.shape) != ndim:
            result = np.expand_dims(result, place)
        if len(result.shape) != ndim:
            raise ShapeError(
                "the function of numpy.apply_over_axes must keep the number of axes or drop one",
                where=user_line(),
                got=f"{len(result.shape)} axes from {ndim}",
                remedy="reduce over the given axis only",
            )
        x = result
    return x


class vectorize(np.vectorize):
    """`numpy.vectorize`, which calls a Python function element by element and so cannot take traced arrays."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if current_trace() is not EVAL and has_tracer((*args, *kwargs.values())):
            raise UnsupportedFunctionError(
                "numpy.vectorize does not take traced arrays",
                where=user_line(),
                got=f"a function of {len(args)} arguments",
                remedy="use functrace.vmap, once per axis to map over; ufuncs broadcast without it",
            )
        return super().__call__(*args, **kwargs)
