"""vmap: a function of one example as a function of a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace import tree
from functrace.core.trace import current_trace
from functrace.core.types import aval_of, canonicalize
from functrace.errors import BatchAxisError, TreeError
from functrace.interpreters.batching import batch
from functrace.primitives.families import broadcast
from functrace.primitives.shape import transpose
from functrace.transforms._flatten import call, check_callable, export, owned, snapshot
from functrace.util import user_line

__all__ = ["moveaxis", "vmap"]


def vmap(
    fun: Callable[..., Any],
    in_axes: int | Sequence[Any] | dict[Any, Any] | None = 0,
    out_axes: Any = 0,
    axis_size: int | None = None,
) -> Callable[..., Any]:
    """A function that maps `fun` over an axis of its arguments, in one batched pass.

    Args:
        fun: function of arrays or pytrees of arrays.
        in_axes: the axis to map over: an integer, None (not mapped), or a tuple with one entry, or pytree prefix of
            entries, per positional argument. Keyword arguments are mapped over axis 0.
        out_axes: where the mapped axis goes in the outputs: an integer or a pytree prefix of integers; None for an
            output that does not depend on the mapped arguments.
        axis_size: the size of the mapped axis, needed only where no argument is mapped.

    Returns:
        The batched function.

    Raises:
        BatchAxisError: the axes do not fit the arguments, or the mapped sizes differ (when called).

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> functrace.vmap(np.dot, in_axes=(0, None))(np.eye(2), np.array([3.0, 4.0]))
        array([3., 4.])
    """
    check_callable(fun, "vmap")
    if isinstance(in_axes, list):
        in_axes = tuple(in_axes)

    @functools.wraps(fun)
    def batched_fun(*args: Any, **kwargs: Any) -> Any:
        leaves, in_tree = tree.flatten((args, kwargs))
        leaves = [snapshot(leaf) if current_trace().captures else canonicalize(owned(leaf, False)) for leaf in leaves]
        axes = _flat_axes((in_axes, 0), (args, kwargs), "in_axes")
        size = _batch_size(leaves, axes, axis_size)
        values = [leaf if axis is None else moveaxis(leaf, axis, 0) for leaf, axis in zip(leaves, axes, strict=True)]
        out_tree: list[tree.TreeDef] = []

        def flat_fun(*values: Any) -> list[Any]:
            call_args, call_kwargs = tree.unflatten(in_tree, values)
            out_leaves, structure = tree.flatten(call(fun, call_args, call_kwargs))
            out_tree.append(structure)
            return [canonicalize(owned(leaf)) for leaf in out_leaves]

        outs, batched = batch(flat_fun, size, values, [axis is not None for axis in axes])
        placed = _place_outputs(outs, batched, out_tree[0], out_axes, size)
        return tree.unflatten(out_tree[0], export(placed, leaves))

    return batched_fun


def _flat_axes(axes: Any, values: Any, name: str) -> list[int | None]:
    """One axis per leaf, from a pytree prefix."""
    try:
        flat = tree.broadcast_prefix(axes, values, is_leaf=lambda x: x is None)
    except TreeError as mismatch:
        raise BatchAxisError(
            f"{name} of vmap is not a prefix of the {'arguments' if name == 'in_axes' else 'outputs'}",
            where=user_line(),
            got=f"{axes[0] if name == 'in_axes' else axes!r}: {mismatch}",
            remedy=f"give {name} as one integer, or a tuple with an integer or None for each",
        ) from None
    for axis in flat:
        if axis is not None and (not isinstance(axis, (int, np.integer)) or isinstance(axis, bool)):
            raise BatchAxisError(
                f"{name} of vmap holds something else than integers and None",
                where=user_line(),
                got=repr(axis),
                remedy="use an integer for a mapped axis and None for an unmapped argument",
            )
    return flat


def _batch_size(leaves: list[Any], axes: list[int | None], axis_size: int | None) -> int:
    """The one size of all mapped axes."""
    sizes: dict[int, str] = {}
    for leaf, axis in zip(leaves, axes, strict=True):
        if axis is None:
            continue
        aval = aval_of(leaf)
        if not -aval.ndim <= axis < aval.ndim:
            raise BatchAxisError(
                "in_axes of vmap names an axis that the argument does not have",
                where=user_line(),
                got=f"axis {axis} for {aval}",
                remedy="use None for arguments that are not mapped",
            )
        sizes.setdefault(aval.shape[axis], str(aval))
    if axis_size is not None:
        if not isinstance(axis_size, (int, np.integer)) or axis_size < 0:
            raise BatchAxisError(
                "axis_size of vmap must be the length of an axis",
                where=user_line(),
                got=repr(axis_size),
                remedy="give a non-negative integer, or leave axis_size out where an argument is mapped",
            )
        sizes.setdefault(axis_size, f"axis_size={axis_size}")
    if len(sizes) > 1:
        raise BatchAxisError(
            "vmap needs one size for all mapped axes",
            where=user_line(),
            got=", ".join(f"{size} from {source}" for size, source in sizes.items()),
            remedy="map arguments of one length, and give None in in_axes for those that are shared",
        )
    if not sizes:
        raise BatchAxisError(
            "vmap maps no argument",
            where=user_line(),
            got="in_axes all None, or no arrays among the arguments",
            remedy="map at least one argument, or give axis_size",
        )
    return next(iter(sizes))


def _place_outputs(outs: list[Any], batched: list[bool], out_tree: Any, out_axes: Any, size: int) -> list[Any]:
    """Outputs with the batch axis where `out_axes` wants it."""
    axes = _flat_axes(out_axes, tree.unflatten(out_tree, outs), "out_axes")
    placed = []
    for out, is_batched, axis in zip(outs, batched, axes, strict=True):
        if axis is None:
            if is_batched:
                raise BatchAxisError(
                    "out_axes of vmap is None for an output that depends on a mapped argument",
                    where=user_line(),
                    got=str(aval_of(out)),
                    remedy="give the position of the mapped axis in that output",
                )
            placed.append(out)
            continue
        if not is_batched:
            out = broadcast(out, shape=(size, *out.shape), axes=tuple(range(1, 1 + len(out.shape))))
        ndim = len(out.shape)
        if not -ndim <= axis < ndim:
            raise BatchAxisError(
                "out_axes of vmap names an axis that the output does not have",
                where=user_line(),
                got=f"axis {axis} for {aval_of(out)}",
                remedy=f"use an axis from {-ndim} to {ndim - 1}",
            )
        placed.append(moveaxis(out, 0, axis))
    return placed


def moveaxis(x: Any, source: int, destination: int) -> Any:
    """The array with one axis moved."""
    ndim = len(x.shape)
    source, destination = source % ndim, destination % ndim
    if source == destination:
        return x
    order = [a for a in range(ndim) if a != source]
    order.insert(destination, source)
    return transpose(x, permutation=tuple(order))
