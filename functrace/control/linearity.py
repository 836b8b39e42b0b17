"""Whether a program is linear in some of its inputs: what `linear_transpose` asks before it transposes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from functrace.core.ir import Eqn, Jaxpr, Literal, Var, subjaxprs
from functrace.core.trace import Tracer
from functrace.core.types import ShapedArray, is_inexact
from functrace.errors import MissingRuleError
from functrace.interpreters.staging import stage

__all__ = ["carried_flags", "require_linear"]

_SCANS = ("scan", "checkpointed_scan")


def depends(jaxpr: Jaxpr, flags: Sequence[bool]) -> list[bool]:
    """Per output, whether it depends on some flagged input."""
    reached = {v for v, flag in zip(jaxpr.invars, flags, strict=True) if flag}
    for eqn in jaxpr.eqns:
        if any(isinstance(a, Var) and a in reached for a in eqn.invars):
            out_flags = _out_flags(eqn, [isinstance(a, Var) and a in reached for a in eqn.invars])
            reached.update(v for v, flag in zip(eqn.outvars, out_flags, strict=True) if flag)
    return [isinstance(a, Var) and a in reached for a in jaxpr.outvars]


def carried_flags(jaxpr: Jaxpr, flags: Sequence[bool], consts: int, carry: int) -> list[bool]:
    """The input flags of a scan's body with those of the carry raised until they stay."""
    flags = list(flags)
    while True:
        leaving = depends(jaxpr, flags)[:carry]
        raised = [a or b for a, b in zip(flags[consts : consts + carry], leaving, strict=True)]
        if raised == flags[consts : consts + carry]:
            return flags
        flags[consts : consts + carry] = raised


def _out_flags(eqn: Eqn, flags: list[bool]) -> list[bool]:
    params = eqn.params
    if eqn.primitive.name in _SCANS:
        return depends(params["jaxpr"], carried_flags(params["jaxpr"], flags, params["consts"], params["carry"]))
    if eqn.primitive.name == "cond" and not flags[0]:
        branches = [depends(branch, flags[1:]) for branch in _taken(eqn)]
        return [any(column) for column in zip(*branches, strict=True)]
    return [True] * len(eqn.outvars)


def _taken(eqn: Eqn) -> Sequence[Jaxpr]:
    """The branches of a cond that may run."""
    index, branches = eqn.invars[0], eqn.params["branches"]
    if isinstance(index, Literal) and not isinstance(index.val, Tracer):
        return [branches[int(index.val)]]
    return branches


def require_linear(eqns: Sequence[Eqn], linear: Sequence[Var]) -> None:
    """Raise unless every equation is linear in the variables that come from `linear`.

    Raises:
        MissingRuleError: one is not; names the operation.
    """
    reached = set(linear)
    for eqn in eqns:
        flags = [isinstance(a, Var) and a in reached for a in eqn.invars]
        if any(flags):
            _require(eqn, flags)
            reached.update(v for v, flag in zip(eqn.outvars, _out_flags(eqn, flags), strict=True) if flag)


def _require(eqn: Eqn, flags: list[bool]) -> None:
    params, name = eqn.params, eqn.primitive.name
    if name in _SCANS:
        if params["length"] == 0:
            return
        jaxpr = params["jaxpr"]
        inner = carried_flags(jaxpr, flags, params["consts"], params["carry"])
        require_linear(jaxpr.eqns, [v for v, flag in zip(jaxpr.invars, inner, strict=True) if flag])
        return
    if name == "cond" and not flags[0]:
        for branch in _taken(eqn):
            require_linear(branch.eqns, [v for v, flag in zip(branch.invars, flags[1:], strict=True) if flag])
        return
    programs = any(True for _ in subjaxprs(eqn)) and name != "cond"
    known = eqn.primitive.jvp is not None and not programs
    if eqn.primitive.nondifferentiable or name == "cond" or (known and _derivative_varies(eqn, flags)):
        raise MissingRuleError(
            f"linear_transpose: {name!r} is not linear in the arguments here",
            where=str(eqn.source),
            remedy="transpose only the linear part of the function; for the derivative's transpose use vjp",
        )


def _derivative_varies(eqn: Eqn, flags: list[bool]) -> bool:
    """Whether the tangent of an operation depends on its linear variables, and not only on their tangents."""
    variables: list[ShapedArray] = [a.aval for a in eqn.invars if isinstance(a, Var)]
    linear = [flag for a, flag in zip(eqn.invars, flags, strict=True) if isinstance(a, Var)]
    tangent_avals = [a for a, flag in zip(variables, linear, strict=True) if flag]

    def tangents(*values: Any) -> list[Any]:
        primal, tangent = iter(values[: len(variables)]), iter(values[len(variables) :])
        primals = [a.val if isinstance(a, Literal) else next(primal) for a in eqn.invars]
        dots = [next(tangent) if flag else None for flag in flags]
        dots = [t if t is not None and is_inexact(t.dtype) else None for t in dots]
        rule = eqn.primitive.rule("jvp", "linear_transpose")
        return [t for t in rule(primals, dots, **eqn.params)[1] if t is not None]

    jaxpr = stage(tangents, [*variables, *tangent_avals]).jaxpr
    used = {a for e in jaxpr.eqns for a in e.invars if type(a) is Var} | {a for a in jaxpr.outvars if type(a) is Var}
    placed = [v for v, flag in zip(jaxpr.invars, linear, strict=False) if flag]
    return not used.isdisjoint(placed)
