"""How reductions that are made of others are compiled: in terms of these; see `core.lowering`."""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.core.lowering import Rewrite
from functrace.primitives.elementwise import convert, div, equal, exp, isinf, isnan, log, logical_or, select, sub
from functrace.primitives.families import add, broadcast, reduce_sum
from functrace.primitives.shape import full, iota

__all__ = ["logsumexp", "position", "softmax"]

_INDEX = np.dtype(np.intp)


def _spread(reduced: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    return broadcast(reduced, shape=shape, axes=tuple([i for i in range(len(shape)) if i not in axes]))


def _floats(x: Any, **params: Any) -> bool:
    return x.dtype.kind == "f"


def _peak(maximum: Any, x: Any, axes: tuple[int, ...]) -> tuple[Any, Any]:
    """The maximum, and the same with 0 where it is infinite."""
    peak = maximum(x, axes=axes)
    return peak, select(isinf(peak), x.dtype.type(0), peak)


def logsumexp(maximum: Any) -> Rewrite:
    """`maximum`: the primitive that reduces to it, as a function without arguments."""

    def function(x: Any, *, axes: tuple[int, ...]) -> Any:
        if 0 in x.shape:
            shape = tuple([n for a, n in enumerate(x.shape) if a not in axes])
            return full(shape=shape, value=-np.inf, dtype=x.dtype)
        peak, shift = _peak(maximum(), x, axes)
        total = reduce_sum(exp(sub(x, _spread(shift, x.shape, axes))), axes=axes)
        empty = equal(peak, x.dtype.type(-np.inf))
        return add(log(select(empty, x.dtype.type(1), total)), peak)

    return Rewrite(_floats, function)


def softmax(maximum: Any) -> Rewrite:
    """See `logsumexp`."""

    def function(x: Any, *, axes: tuple[int, ...], undefined: bool) -> Any:
        if 0 in x.shape:
            return x
        infinity = x.dtype.type(np.inf)
        peak, shift = _peak(maximum(), x, axes)
        weights = exp(sub(x, _spread(shift, x.shape, axes)))
        shared = convert(equal(x, infinity), dtype=x.dtype)
        weights = select(_spread(equal(peak, infinity), x.shape, axes), shared, weights)
        total = reduce_sum(weights, axes=axes)
        if not undefined:
            total = select(equal(peak, -infinity), x.dtype.type(1), total)
        return div(weights, _spread(total, x.shape, axes))

    return Rewrite(_floats, function)


def position(extremum: Any, least: Any) -> Rewrite:
    """Of the first element that is the extremum, or NaN: the least of all such positions."""

    def function(x: Any, *, axis: int) -> Any:
        found = _spread(extremum()(x, axes=(axis,)), x.shape, (axis,))
        attains = equal(x, found)
        if x.dtype.kind == "f":
            attains = logical_or(attains, isnan(x))
        # Short integers: as many in a vector as there are numbers.
        kind = np.dtype(np.int32) if x.shape[axis] < 2**31 else _INDEX
        places = broadcast(iota(length=x.shape[axis], dtype=kind), shape=x.shape, axes=(axis,))
        return convert(least()(select(attains, places, kind.type(x.shape[axis])), axes=(axis,)), dtype=_INDEX)

    return Rewrite(lambda x, *, axis: x.dtype.kind in "fiub" and bool(x.size), function)
