"""Primitives that call Python: `pure_callback` for opaque functions, `debug_callback` for effects in order.

A callback gets plain NumPy arrays. It runs when the values are known: at once outside `jit`, whenever the program runs
when staged. `debug_callback` is effectful, so that no program loses it although nothing reads its results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.control._calls import over_batch
from functrace.control._functions import broadcast_batch
from functrace.core.lowering import Call
from functrace.core.primitive import Primitive
from functrace.core.trace import EVAL, reset_trace, set_trace
from functrace.core.types import ShapedArray, aval_of, canonicalize
from functrace.core.work import Work
from functrace.errors import CallbackError
from functrace.primitives.families import reshape
from functrace.primitives.shape import stack, unstack, zeros
from functrace.util import user_line

__all__ = ["VMAP_METHODS", "debug_callback", "pure_callback"]

#: How a callback meets a batch; see `functrace.pure_callback`.
VMAP_METHODS = ("sequential", "expand_dims", "broadcast_all")


def call(callback: Callable[..., Any], operands: Sequence[Any]) -> Any:
    """Call Python outside every trace."""
    token = set_trace(EVAL)
    try:
        return callback(*operands)
    finally:
        reset_trace(token)


def checked(outs: Sequence[Any], avals: Sequence[ShapedArray]) -> list[Any]:
    """The results of a callback, of the promised types.

    Raises:
        CallbackError: a result has another shape or dtype, or there are more or fewer; names both.
    """
    values = [canonicalize(np.asarray(out)) for out in outs]
    found = [aval_of(v) for v in values]
    if found != list(avals):
        raise CallbackError(
            "a callback returned something else than the types given for it",
            where=user_line(),
            got=f"{', '.join(map(str, found))} for {', '.join(map(str, avals))}",
            remedy="return arrays of the shapes and dtypes given as result types, or correct those",
        )
    return values


def _pure_impl(
    *operands: Any, callback: Callable[..., Any], avals: tuple[ShapedArray, ...], **params: Any
) -> list[Any]:
    return checked(call(callback, operands), avals)


def _pure_jvp(
    primals: list[Any], tangents: list[Any], *, name: str, rule: Callable[..., Any] | None, **params: Any
) -> tuple[list[Any], list[Any]]:
    if rule is None:
        raise CallbackError(
            f"{name} has no derivative: what happens inside is unknown",
            where=user_line(),
            got=", ".join(str(aval_of(p)) for p, t in zip(primals, tangents, strict=True) if t is not None),
            remedy=_NO_DERIVATIVE[name.startswith("numba_call")],
        )
    outs = pure_callback.bind(*primals, name=name, rule=rule, **params)
    return outs, rule(*primals, *tangents, *outs)


_NO_DERIVATIVE = (
    "call it inside a functrace.custom_jvp or custom_vjp function that has a rule, or on functrace.stop_gradient(x)",
    "give numba_call a rule with derivative=... or jvp=..., or call it on functrace.stop_gradient(x)",
)


def _pure_batch(
    size: int,
    values: list[Any],
    batched: list[bool],
    *,
    callback: Callable[..., Any],
    avals: tuple[ShapedArray, ...],
    name: str,
    vmap_method: str | None,
    rule: Callable[..., Any] | None,
) -> tuple[list[Any], list[bool]]:
    params = {"callback": callback, "name": name, "vmap_method": vmap_method}
    if vmap_method is None:
        raise CallbackError(
            f"{name} under vmap needs to know how the callback meets a batch",
            where=user_line(),
            remedy='give vmap_method="sequential" (one call per example), "expand_dims" or "broadcast_all" (one call)',
        )
    if vmap_method == "sequential":
        rows = [pure_callback.bind(*x, avals=avals, rule=rule, **params) for x in _examples(size, values, batched)]
        if not rows:
            return [zeros(ShapedArray((0, *a.shape), a.dtype)) for a in avals], [True] * len(avals)
        return [stack(*column, axis=0) for column in zip(*rows, strict=True)], [True] * len(avals)
    wide = [v if b else _with_batch_axis(v, size, vmap_method) for v, b in zip(values, batched, strict=True)]
    batch_avals = tuple(ShapedArray((size, *a.shape), a.dtype) for a in avals)
    batch_rule = None if rule is None else _over_examples(rule, size, len(values), vmap_method)
    return pure_callback.bind(*wide, avals=batch_avals, rule=batch_rule, **params), [True] * len(avals)


def _examples(size: int, values: Sequence[Any], batched: Sequence[bool]) -> list[list[Any]]:
    """The operands of each example."""
    columns = [unstack(v, axis=0) if b else [v] * size for v, b in zip(values, batched, strict=True)]
    return [[column[i] for column in columns] for i in range(size)]


def _over_examples(rule: Callable[..., Any], size: int, operands: int, vmap_method: str) -> Callable[..., Any]:
    """A rule over a batch of examples; operands that all examples share have an axis of length 1."""

    def batched(*values: Any) -> list[Any]:
        full = [v if v is None or v.shape[0] == size else _repeat(v, size) for v in values]
        return over_batch(rule, size)(*full)

    return batched


def _repeat(value: Any, size: int) -> Any:
    return broadcast_batch(reshape(value, shape=value.shape[1:]), size)


def _with_batch_axis(value: Any, size: int, vmap_method: str) -> Any:
    return broadcast_batch(value, size if vmap_method == "broadcast_all" else 1)


def _has_address(
    *operands: ShapedArray, callback: Callable[..., Any], avals: tuple[ShapedArray, ...], **params: Any
) -> bool:
    """Whether the callback is a compiled kernel that can be called by its address."""
    native = getattr(callback, "native", None)
    return native is not None and len(avals) == 1 and native(operands, avals[0]) is not None


def _emit_kernel(c: Any, operands: list[Any], outs: list[Any], *, callback: Any, avals: Any, **params: Any) -> None:
    buffers = [c.contiguous(c.materialise(o)) for o in operands]
    c.kernel(callback.native(tuple(map(c.aval, buffers)), avals[0]), [*buffers, *outs])


#: `callback(*operands)` gives a flat list of arrays of types `avals`. `rule(*operands, *tangents, *outputs)`, if any,
#: gives the output tangents; None stands for zero.
pure_callback = Primitive(
    "pure_callback",
    _pure_impl,
    lambda *operand_avals, avals, **params: list(avals),
    jvp=_pure_jvp,
    batch=_pure_batch,
    family="control",
    multiple=True,
    partial=True,
    cost=lambda operands, outs, **params: Work(note="callbacks count nothing"),
    lower=Call(_has_address, _emit_kernel),
)


def _debug_impl(*operands: Any, callback: Callable[..., Any]) -> list[Any]:
    call(callback, operands)
    return []


def _debug_batch(
    size: int, values: list[Any], batched: list[bool], *, callback: Callable[..., Any]
) -> tuple[list[Any], list[bool]]:
    for operands in _examples(size, values, batched):
        debug_callback.bind(*operands, callback=callback)
    return [], []


#: `callback(*operands)` runs for its effect, once per example under a batch.
debug_callback: Primitive = Primitive(
    "debug_callback",
    _debug_impl,
    lambda *avals, callback: [],
    jvp=lambda primals, tangents, *, callback: (debug_callback.bind(*primals, callback=callback), []),
    batch=_debug_batch,
    family="control",
    multiple=True,
    effectful=True,
    cost=lambda operands, outs, **params: Work(note="callbacks count nothing"),
)
