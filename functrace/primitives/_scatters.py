"""How scatters and convolutions are compiled: one update of an array after the other; see `core.lowering`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from functrace.core.lowering import Call

__all__ = ["convolution", "scatter"]


def scatter(combine: Callable[..., Any] | None, kinds: str) -> Call:
    """The lowering of a scatter.

    Args:
        combine: `combine(e, old, new)`; None to replace.
        kinds: of dtypes.
    """

    def emit(c: Any, operands: list[Any], outs: list[Any], *, axes: tuple[int, ...], unique: bool) -> None:
        x, *rest = operands
        *indices, updates = [c.materialise(o) for o in rest]
        (out,) = outs
        c.assign(x, out)
        lead = indices[0].shape
        others = [a for a in range(len(out.shape)) if a not in axes]

        def one(positions: list[str]) -> None:
            offsets = [c.position(index, positions, out.shape[axis]) for axis, index in zip(axes, indices, strict=True)]
            steps = [(step, out.strides[axis]) for axis, (step, _) in zip(axes, offsets, strict=True)]
            goal = c.view(out, others, steps)
            c.where([inside for _, inside in offsets], lambda: c.update(goal, c.behind(updates, positions), combine))

        c.over(lead, one)

    def suits(x: Any, *operands: Any, axes: Any, unique: bool) -> bool:
        return x.dtype.kind in kinds and x.dtype.name != "float16" and all(i.dtype.kind in "iu" for i in operands[:-1])

    return Call(suits, emit, True)


def _convolve(c: Any, operands: list[Any], outs: list[Any]) -> None:
    """For each element of the shorter sequence, the longer one times that is added to a part of the result."""
    x, y = (c.materialise(o) for o in operands)
    (out,) = outs
    if x.shape[-1] < y.shape[-1]:
        x, y = y, x
    c.zero(out)
    c.over(x.shape[:-1], lambda row: c.add_convolution(c.behind(out, row), c.behind(x, row), c.behind(y, row)))


def _sequences(x: Any, y: Any) -> bool:
    return x.dtype.kind in "fiubc" and x.dtype.name != "float16" and bool(x.size) and bool(y.size)


convolution = Call(_sequences, _convolve, True)
