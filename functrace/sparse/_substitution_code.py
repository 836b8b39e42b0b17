"""Machine code for substitution: the steps one after the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from functrace.backend.compiler.context import Context, copy_array
from functrace.backend.compiler.emit import INDEX

if TYPE_CHECKING:
    from functrace.sparse.substitution import Forest

__all__ = ["emit_substitution"]


def emit_substitution(
    context: Context, operands: Sequence[Any], outputs: Sequence[Any], *, forest: Forest, outwards: bool
) -> None:
    """Code of the primitive `substitute`."""
    e, out = context.e, context.materialise(outputs[0])
    copy_array(e, context.materialise(operands[0]), out)
    steps, width = forest.children.size, math.prod(out.shape[1:])
    if not steps or not width:
        return
    children, parents = context.constant(forest.children), context.constant(forest.parents)
    sources, goals = (parents, children) if outwards else (children, parents)

    def row(table: Any, k: str) -> str:
        place = e.convert(e.load(e.offset(table.start(e), k, table.dtype), table.dtype), INDEX).name
        return place if width == 1 else e.index(f"mul i64 {place}, {width}")

    def step(number: str) -> None:
        k = e.index(f"sub i64 {steps - 1}, {number}") if outwards else number
        source = e.offset(out.start(e), row(sources, k), out.dtype)
        goal = e.offset(out.start(e), row(goals, k), out.dtype)

        def column(j: str) -> None:
            at = e.offset(goal, j, out.dtype)
            e.store(e.load(at, out.dtype) - e.load(e.offset(source, j, out.dtype), out.dtype), at)

        if width == 1:
            column("0")
        else:
            e.counted(width, column)

    e.counted(steps, step)
