"""Coloured products with a linearisation that an iterate keeps: all colours in one batch, each value read off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from functrace import numpy as fnp
from functrace.core.ir import ClosedJaxpr, eval_jaxpr
from functrace.interpreters.batching import batch_jaxpr
from functrace.interpreters.staging import stage
from functrace.optimize.programs import Compiled, Linear
from functrace.sparse import Structure
from functrace.sparse.coloring import Bicoloring, Coloring
from functrace.sparse.compress import (
    SWEEP_SIZE,
    Plan,
    Sweep,
    acyclic_plan,
    bicolored_plan,
    column_plan,
    row_plan,
    star_plan,
)
from functrace.sparse.substitution import substitute

__all__ = ["plan_of", "swept"]

_PLANS: dict[str, Callable[..., Plan]] = {
    "column": column_plan,
    "row": row_plan,
    "star": star_plan,
    "acyclic": acyclic_plan,
}


def plan_of(structure: Structure, coloring: Coloring | Bicoloring) -> Plan:
    """Which products give the values of a structure."""
    if isinstance(coloring, Bicoloring):
        return bicolored_plan(structure, coloring)
    return _PLANS[coloring.kind](structure, coloring)


def swept(linear: Linear, plan: Plan) -> Callable[..., np.ndarray] | None:
    """Residuals of a linearisation -> the values of a structure.

    Args:
        linear: the linearised function.
        plan: products with it and with its transpose.

    Returns:
        The function; None where the products would fill too much memory at once.
    """
    parts = [
        (program, sweep)
        for program, sweep in ((linear.closed, plan.forward), (linear.transposed, plan.reverse))
        if sweep is not None and sweep.number and program is not None
    ]
    if any(sweep.number * max(sweep.length, sweep.colors.size) > SWEEP_SIZE for _, sweep in parts):
        return None
    if not parts:
        return lambda *residuals: np.zeros(0)

    def values(*residuals: Any) -> list[Any]:
        reads = [_reads(program, sweep, residuals) for program, sweep in parts]
        found = reads[0] if len(reads) == 1 else fnp.concatenate(reads)
        found = found if plan.order is None else found[plan.order]
        return [found if plan.forest is None else substitute(found, plan.forest)]

    run = Compiled(stage(values, parts[0][0].in_avals[: linear.residuals]))
    return lambda *residuals: run(*residuals)[0]


def _reads(program: ClosedJaxpr, sweep: Sweep, residuals: tuple[Any, ...]) -> Any:
    """What is read from the products of one sweep."""
    aval = program.in_avals[-1]
    directions = (sweep.colors == np.arange(sweep.number)[:, None]).astype(aval.dtype)
    if sweep.number == 1:
        products = eval_jaxpr(program.jaxpr, program.consts, *residuals, directions[0])[0]
    else:
        flags = [*(False for _ in residuals), True]
        batched, _ = batch_jaxpr(program, sweep.number, flags, [True])
        products = eval_jaxpr(batched.jaxpr, batched.consts, *residuals, directions)[0]
    return fnp.ravel(products)[sweep.color * sweep.length + sweep.place]
