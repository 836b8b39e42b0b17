"""What became of a compiled program: loop nests with what they fuse, library calls, and what is left to NumPy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from functrace.backend.compiler.nodes import Node
from functrace.backend.compiler.sinks import needed_nodes
from functrace.backend.compiler.steps import CallStep, NestStep
from functrace.backend.executable import Executable
from functrace.core.ir import Eqn
from functrace.core.lowering import Control, Reduction
from functrace.interpreters.cost import equation_cost

__all__ = ["Group", "groups", "schedule_text"]


class Group(NamedTuple):
    """One step of a compiled program.

    Args:
        kind: "fused", a loop nest; "library", a call of BLAS, LAPACK and the like; "loop", a loop or branch with a
            program of its own; "NumPy", a call back into Python.
        text: what it computes.
        depth: how many loops with programs of their own it stands in.
        flops: an estimate of its arithmetic operations, each time it runs.
        bytes: an estimate of what it reads and writes, likewise.
    """

    kind: str
    text: str
    depth: int
    flops: int
    bytes: int


def groups(compiled: Executable) -> list[Group]:
    """The steps of a compiled program, in order."""
    return [] if compiled.module is None else list(_groups(compiled.module.report, 0))


def schedule_text(compiled: Executable) -> str:
    """The steps of a compiled program, one to a line."""
    if compiled.module is None:
        return f"no machine code ({compiled.refusal}): all operations run as NumPy calls"
    found = groups(compiled)
    fallen = sorted({g.text.split()[0] for g in found if g.kind == "NumPy"})
    lines = [f"{'kind':8} {'flops':>10} {'bytes':>10}  what"]
    lines += [f"{g.kind:8} {_short(g.flops):>10} {_short(g.bytes):>10}  {'  ' * g.depth}{g.text}" for g in found]
    counts = {kind: sum(g.kind == kind for g in found) for kind in ("fused", "library", "loop", "NumPy")}
    summary = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "registers only"
    lines.append(f"{summary}; workspace of {_short(compiled.module.workspace)} bytes")
    if fallen:
        lines.append(f"left to NumPy, without machine code of their own: {', '.join(fallen)}")
    return "\n".join(lines)


def _short(number: float) -> str:
    for unit in ("", "k", "M", "G"):
        if number < 10_000:
            return f"{number:.0f}{unit}"
        number /= 1000
    return f"{number:.0f}T"


def _groups(report: list[Any], depth: int) -> Iterator[Group]:
    for entry in report:
        step, inner = entry if isinstance(entry, tuple) else (entry, [])
        if isinstance(step, NestStep):
            yield _nest(step, depth)
            continue
        assert isinstance(step, CallStep)
        kind = "NumPy" if step.lowering is None else "loop" if isinstance(step.lowering, Control) else "library"
        yield _call(step.eqn, kind, depth)
        yield from _groups(inner, depth + 1)


def _call(eqn: Eqn, kind: str, depth: int) -> Group:
    cost = equation_cost(eqn)
    outs = ", ".join(str(v.aval) for v in eqn.outvars)
    moved = sum(a.aval.size * a.aval.dtype.itemsize for a in (*eqn.invars, *eqn.outvars))
    return Group(kind, f"{eqn.primitive.name} -> {outs}", depth, int(cost.flops), moved)


def _nest(step: NestStep, depth: int) -> Group:
    flops = size = 0
    fused = 0
    for box in step.boxes:
        volume = math.prod(box.extents)
        nodes = needed_nodes([node for parts in box.nodes.values() for node in parts.values()])
        operations = [n for n in nodes if n.kind == "apply"]
        fused = max(fused, len(operations))
        flops += sum(_volume(n, box.extents) for n in operations)
        flops += volume * sum(isinstance(low, Reduction) for _, low in step.roots.values())
        size += sum(_volume(n, box.extents) * n.dtype.itemsize for n in nodes if n.kind == "load")
        size += sum(
            volume * len(box.nodes[v]) * v.aval.dtype.itemsize
            for v, (_, low) in step.roots.items()
            if not isinstance(low, Reduction)
        )
    roots = ", ".join(f"{eqn.primitive.name} -> {var.aval}" for var, (eqn, _) in step.roots.items())
    shape = "x".join(map(str, step.space))
    boxes = f" in {len(step.boxes)} parts" if len(step.boxes) > 1 else ""
    return Group("fused", f"{fused} operations over {shape}{boxes}: {roots}", depth, flops, size)


def _volume(node: Node, extents: tuple[int, ...]) -> int:
    return math.prod(n for k, n in enumerate(extents) if node.axes >> k & 1)
