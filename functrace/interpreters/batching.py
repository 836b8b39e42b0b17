"""Batching: one program over a whole batch of values. The batch axis is always axis 0 of a batched value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.ir import ClosedJaxpr, eval_jaxpr
from functrace.core.primitive import Primitive
from functrace.core.trace import Trace, Tracer, current_trace, reset_trace, run_under, set_trace
from functrace.core.types import ShapedArray, aval_of
from functrace.interpreters.staging import stage
from functrace.primitives.families import broadcast

__all__ = ["BatchTrace", "BatchTracer", "batch", "batch_jaxpr"]


class BatchTracer(Tracer):
    """A value with a hidden leading batch axis, or a buffer that has none yet."""

    def __init__(self, trace: BatchTrace, value: Any, batched: bool) -> None:
        self._trace = trace
        self.value = value
        self.batched = batched

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.value.shape[1:] if self.batched else self.value.shape

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        return self.value.dtype

    def concrete(self) -> Any:
        if self.batched:
            return super().concrete()
        return self.value.concrete() if isinstance(self.value, Tracer) else self.value

    def constant(self) -> Any:
        if self.batched:
            return None
        return self.value.constant() if isinstance(self.value, Tracer) else self.value

    def peek(self) -> Any:
        return self.value.peek() if isinstance(self.value, Tracer) else self.value

    def become(self, other: BatchTracer) -> None:  # type: ignore[override]
        self.value, self.batched = other.value, other.batched


class BatchTrace(Trace):
    """Applies each primitive's `batch` rule under the parent."""

    name = "vmap"

    def __init__(self, parent: Trace, size: int) -> None:
        super().__init__(parent)
        self.size = size
        self.captures = parent.captures

    def pure(self, value: Any) -> BatchTracer:
        return BatchTracer(self, value, False)

    def create(self, primitive: Primitive, params: dict[str, Any]) -> Any:
        return BatchTracer(self, self.parent.create(primitive, params), False)

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        values, batched = [], []
        foreign = True
        for arg in args:
            if isinstance(arg, BatchTracer) and arg._trace is self:
                foreign = False
                values.append(arg.value)
                batched.append(arg.batched)
            else:
                values.append(arg)
                batched.append(False)
        if foreign:
            return self.parent.process(primitive, args, params)
        if not any(batched):
            out = self.parent.process(primitive, tuple(values), params)
            return [self.pure(o) for o in out] if primitive.multiple else self.pure(out)
        rule = primitive.rule("batch", "vmap")
        token = set_trace(self.parent)
        try:
            outs, out_batched = rule(self.size, values, batched, **params)
        finally:
            reset_trace(token)
        if primitive.multiple:
            return [BatchTracer(self, o, b) for o, b in zip(outs, out_batched, strict=True)]
        return BatchTracer(self, outs[0], out_batched[0])


def batch(
    flat_fun: Callable[..., Sequence[Any]], size: int, values: Sequence[Any], batched: Sequence[bool]
) -> tuple[list[Any], list[bool]]:
    """Outputs of a function of flat values over a batch, and which of them are batched."""
    trace = BatchTrace(current_trace(), size)
    inputs = [BatchTracer(trace, v, True) if b else v for v, b in zip(values, batched, strict=True)]
    outs = run_under(trace, flat_fun, inputs)
    pairs = [(o.value, o.batched) if isinstance(o, BatchTracer) and o._trace is trace else (o, False) for o in outs]
    return [v for v, _ in pairs], [b for _, b in pairs]


def batch_jaxpr(
    closed: ClosedJaxpr, size: int, batched: Sequence[bool], instantiate: Sequence[bool] = ()
) -> tuple[ClosedJaxpr, list[bool]]:
    """The program over a batch.

    Args:
        closed: the program of one example.
        size: the length of the batch axis.
        batched: per input, whether it has the batch axis.
        instantiate: per output, whether it is wanted batched even when all examples agree.

    Returns:
        The program, and per output whether it is batched.
    """
    out_batched: list[bool] = []

    def flat_fun(*values: Any) -> list[Any]:
        outs, flags = batch(lambda *xs: eval_jaxpr(closed.jaxpr, closed.consts, *xs), size, values, batched)
        for i, wanted in enumerate(instantiate):
            if wanted and not flags[i]:
                shape = aval_of(outs[i]).shape
                outs[i] = broadcast(outs[i], shape=(size, *shape), axes=tuple(range(1, 1 + len(shape))))
                flags[i] = True
        out_batched[:] = flags
        return outs

    avals = [ShapedArray((size, *a.shape), a.dtype) if b else a for a, b in zip(closed.in_avals, batched, strict=True)]
    return stage(flat_fun, avals), out_batched
