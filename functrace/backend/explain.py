"""What became of a compiled program: its steps, for people to read."""

from __future__ import annotations

from typing import Any

from functrace.backend.compiler.plan import CallStep, NestStep
from functrace.backend.executable import Executable
from functrace.core.lowering import Reduction

__all__ = ["schedule_text"]


def schedule_text(compiled: Executable) -> str:
    """The steps of a compiled program, one to a line: loop nests, library calls, calls of NumPy."""
    if compiled.module is None:
        return f"no machine code ({compiled.refusal}): all operations run as NumPy calls"
    lines = [_line(step) for step in compiled.module.report]
    return "\n".join([f"workspace: {compiled.module.workspace} bytes", *lines])


def _line(step: Any) -> str:
    if isinstance(step, NestStep):
        roots = ", ".join(
            f"{eqn.primitive.name}{' (reduction)' if isinstance(lowering, Reduction) else ''} -> {var.aval}"
            for var, (eqn, lowering) in step.roots.items()
        )
        boxes = f" in {len(step.boxes)} boxes" if len(step.boxes) > 1 else ""
        return f"loop over {step.space}{boxes}: {roots}"
    assert isinstance(step, CallStep)
    kind = "NumPy" if step.lowering is None else "call"
    return f"{kind}: {step.eqn.primitive.name} -> {', '.join(str(v.aval) for v in step.eqn.outvars)}"
