"""What the functions that move elements share: when they trace, fresh objects, views, selection by index maps."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.core.trace import EVAL, Tracer, current_trace
from functrace.errors import ShapeError
from functrace.numpy._assignment import mark_view
from functrace.numpy._axes import normalize_axis
from functrace.numpy._dispatch import implements, traced_functions
from functrace.numpy._indexing import plan_index, read, write
from functrace.numpy._promotion import as_array, cast, from_nested, has_tracer
from functrace.primitives.families import broadcast, reshape
from functrace.primitives.shape import concatenate, reverse, slice_, transpose
from functrace.util import user_line

__all__ = [
    "as_arrays",
    "check_joinable",
    "cut",
    "flat",
    "fresh",
    "join",
    "move_axis",
    "part_of",
    "rearranged",
    "select_along",
    "single_axis",
    "structural",
    "view_of",
]

#: An index map with more runs of equal steps than this is a gather, else slices joined together.
_MOST_RUNS = 16


def structural(numpy_function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Like `implements`, but arguments without a tracer go to NumPy itself, inside a trace too.

    So a view of a plain array stays a view of it, and work on constants is not recorded.
    """

    def decorate(traced: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(traced)
        def form(*args: Any, **kwargs: Any) -> Any:
            if (
                (args and isinstance(args[0], Tracer))
                or has_tracer(args)
                or (kwargs and has_tracer(tuple(kwargs.values())))
            ):
                return traced(*args, **kwargs)
            return numpy_function(*args, **kwargs)

        return implements(numpy_function)(form)

    return decorate


def fresh(x: Any) -> Any:
    """Another object with the value of `x`: assignment to one does not reach the other.

    It belongs to the current trace, so that values of an inner function can be assigned to a copy of an outer array.
    """
    if not isinstance(x, Tracer):
        return x.copy()
    copy = x.snapshot()
    trace = current_trace()
    if trace is not x._trace and trace is not EVAL and x._trace.alive:
        copy = trace.pure(copy)
    copy.weak = False
    return copy


def view_of(
    base: Any,
    out: Any,
    forward: Callable[[Any], Any] | None = None,
    backward: Callable[[Any, Any], Any] | None = None,
) -> Any:
    """`out`, noted as a view of `base` where both are tracers; see `mark_view`.

    Args:
        base: the argument that NumPy would give a view of.
        out: the view's value, a new tracer or `base` itself.
        forward: the view of a base. Without it, assignment to the base is refused while the view is in use.
        backward: the base from (base, view). Without it, assignment to the view is refused.
    """
    if isinstance(base, Tracer) and isinstance(out, Tracer):
        mark_view(base, out, forward, backward)
    return out


def rearranged(base: Any, x: Any, forward: Callable[[Any], Any], inverse: Callable[[Any], Any]) -> Any:
    """The view `forward(x)` that has all elements of its base, which is `inverse(view)`."""
    return view_of(base, forward(x), forward, lambda _, view: inverse(view))


def part_of(base: Any, out: Any, axis: int, key: int | slice) -> Any:
    """The part of the argument `base` at a position or slice of an axis, as a view of it."""
    where = (slice(None),) * axis + (key,)

    def forward(x: Any) -> Any:
        return read(x, plan_index(x.shape, where))

    def backward(x: Any, view: Any) -> Any:
        return write(x, plan_index(x.shape, where), view)

    return view_of(base, out, forward, backward)


def as_arrays(function: str, values: Any) -> list[Any]:
    """The arrays of a sequence argument; an array stands for the sequence of its rows."""
    if isinstance(values, (Tracer, np.ndarray)):
        if not values.ndim:
            raise _empty(function, "a scalar")
        return traced_functions[np.unstack](values) if isinstance(values, Tracer) else list(values)
    if not isinstance(values, (list, tuple)):
        raise _empty(function, type(values).__name__)
    if not values:
        raise _empty(function, "an empty sequence")
    return [from_nested(v) if isinstance(v, (list, tuple)) else as_array(v) for v in values]


def _empty(function: str, got: str) -> ShapeError:
    return ShapeError(
        f"numpy.{function} takes a sequence of at least one array",
        where=user_line(),
        got=got,
        remedy="pass a list or tuple of arrays",
    )


def check_joinable(function: str, arrays: list[Any], axis: int) -> None:
    """Refuse arrays that differ elsewhere than on `axis`.

    Raises:
        ShapeError: they do.
    """
    first = arrays[0]
    rest = first.shape[:axis] + first.shape[axis + 1 :]
    if any(a.ndim != first.ndim or a.shape[:axis] + a.shape[axis + 1 :] != rest for a in arrays):
        raise ShapeError(
            f"numpy.{function} needs arrays that differ in length on the joined axis only",
            where=user_line(),
            got=f"shapes {', '.join(str(a.shape) for a in arrays)} for axis {axis}",
            remedy="broadcast or reshape the arrays first; numpy.stack joins equal shapes along a new axis",
        )


def join(arrays: list[Any], axis: int, dtype: np.dtype | None = None) -> Any:
    """The arrays, equal but on `axis`, one after the other in their common dtype; always a new object."""
    dtype = np.result_type(*{a.dtype for a in arrays}) if dtype is None else dtype
    arrays = [cast(a, dtype) for a in arrays]
    return fresh(arrays[0]) if len(arrays) == 1 else concatenate(*arrays, axis=axis)


def cut(x: Any, axis: int, start: int, stop: int, step: int = 1) -> Any:
    """A slice along one axis; bounds are within it."""
    ndim = len(x.shape)
    starts, stops, steps = [0] * ndim, list(x.shape), [1] * ndim
    starts[axis], stops[axis], steps[axis] = start, stop, step
    return slice_(x, starts=tuple(starts), stops=tuple(stops), steps=tuple(steps))


def move_axis(x: Any, source: int, destination: int) -> Any:
    """The array with one axis moved."""
    if source == destination:
        return x
    order = [a for a in range(len(x.shape)) if a != source]
    order.insert(destination, source)
    return transpose(x, permutation=tuple(order))


def select_along(x: Any, indices: np.ndarray, axis: int) -> Any:
    """The elements at fixed positions (from 0) along an axis.

    Positions in a few runs of constant step become slices and broadcasts, which are cheaper than a gather, and whose
    transposes are cheaper still.
    """
    runs = _runs(indices)
    if len(runs) > _MOST_RUNS:
        return traced_functions[np.take](x, indices, axis)
    pieces = [_run(x, axis, *run) for run in runs] or [cut(x, axis, 0, 0)]
    return join(pieces, axis)


def _runs(indices: np.ndarray) -> list[tuple[int, int, int]]:
    """A one-dimensional index map as (start, step, count), greedily; stops when there are too many."""
    runs: list[tuple[int, int, int]] = []
    steps = np.diff(indices)
    start, size = 0, len(indices)
    while start < size and len(runs) <= _MOST_RUNS:
        changes: Any = np.flatnonzero(steps[start:] != steps[start]) if start < size - 1 else []
        stop = size if not len(changes) else start + int(changes[0]) + 1
        runs.append((int(indices[start]), int(steps[start]) if stop - start > 1 else 1, stop - start))
        start = stop
    return runs


def _run(x: Any, axis: int, start: int, step: int, count: int) -> Any:
    if step == 0:
        piece = cut(x, axis, start, start + 1)
        shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
        return broadcast(piece, shape=shape, axes=tuple(range(len(shape))))
    last = start + (count - 1) * step
    low, high = min(start, last), max(start, last)
    piece = x if (low, high + 1, abs(step)) == (0, x.shape[axis], 1) else cut(x, axis, low, high + 1, abs(step))
    return reverse(piece, axes=(axis,)) if step < 0 else piece


def flat(x: Any) -> Any:
    """The array in one dimension."""
    return x if len(x.shape) == 1 else reshape(x, shape=(math.prod(x.shape),))


def single_axis(x: Any, axis: int | None) -> tuple[Any, int]:
    """The array and its one axis from 0; for None the array in one dimension."""
    return (flat(x), 0) if axis is None else (x, normalize_axis(axis, len(x.shape)))
