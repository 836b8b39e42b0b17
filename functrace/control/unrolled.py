"""Loops and branches in reverse mode whose bodies must run at values: those that hold a loop that counts its steps.

A `while` in a body cannot be linearized as a program, because nothing bounds its trajectory; step by step, with values
at hand, it can.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from functrace.core.ir import Atom, Jaxpr, Literal, Var, eval_jaxpr, live_eqns, subjaxprs
from functrace.core.types import ShapedArray
from functrace.interpreters.linearize import linearize
from functrace.primitives.shape import stack, unstack, zeros

__all__ = ["linearize_now", "needs_values", "unfolded_scan", "unrolled_scan"]


def needs_values(program: Any) -> bool:
    """Whether a jaxpr holds a `while` that is differentiated, however deep; a solver's own loops are not."""
    jaxpr = getattr(program, "jaxpr", program)
    return any(
        eqn.primitive.name == "while"
        or (eqn.primitive.name != "linear_solve" and any(map(needs_values, subjaxprs(eqn))))
        for eqn in jaxpr.eqns
    )


def linearize_now(
    record: Callable[..., Any],
    function: Callable[..., Sequence[Any]],
    primals: Sequence[Any],
    tangents: Sequence[Var | None],
) -> tuple[list[Any], list[Var | None]]:
    """What a `linearize` rule gives, by running a function and recording what it records."""
    outs, program = linearize(function, primals, [t is not None for t in tangents])
    names: dict[Var, Var] = dict(zip(program.invars, [t for t in tangents if t is not None], strict=True))
    for eqn in live_eqns(program.eqns, program.outvars):
        atoms: list[Atom] = [a if isinstance(a, Literal) else names[a] for a in eqn.invars]
        avals = [v.aval for v in eqn.outvars]
        found = record(eqn.primitive, atoms, avals if eqn.primitive.multiple else avals[0], eqn.params)
        names.update(zip(eqn.outvars, found if eqn.primitive.multiple else [found], strict=True))
    return outs, [None if v is None else names[v] for v in program.outvars]


def unrolled_scan(*operands: Any, jaxpr: Jaxpr, **params: Any) -> list[Any]:
    """A scan as a Python loop, under the current trace."""
    return unfolded_scan(lambda program, *values: eval_jaxpr(program, (), *values), *operands, jaxpr=jaxpr, **params)


def unfolded_scan(
    run: Callable[..., Sequence[Any]],
    *operands: Any,
    jaxpr: Jaxpr,
    length: int,
    reverse: bool,
    consts: int,
    carry: int,
) -> list[Any]:
    """The `unfold` rule of a scan."""
    constants, state, inputs = operands[:consts], operands[consts : consts + carry], operands[consts + carry :]
    slices = [unstack(x, axis=0) if length else [] for x in inputs]
    rows: list[Any] = [None] * length
    for i in range(length - 1, -1, -1) if reverse else range(length):
        outs = run(jaxpr, *constants, *state, *[s[i] for s in slices])
        state, rows[i] = tuple(outs[:carry]), outs[carry:]
    stacks = [
        stack(*[row[k] for row in rows], axis=0) if length else zeros(ShapedArray((0, *aval.shape), aval.dtype))
        for k, aval in enumerate(jaxpr.out_avals[carry:])
    ]
    return [*state, *stacks]
