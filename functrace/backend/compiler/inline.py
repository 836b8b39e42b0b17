"""Calls of programs replaced by the programs, so that the passes that follow see through them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from functrace.core.ir import Atom, ClosedJaxpr, Eqn, Jaxpr, Literal, Var
from functrace.core.lowering import Inline, Rewrite
from functrace.core.primitive import Primitive
from functrace.interpreters.contractions import Identity, contract
from functrace.interpreters.simplify import simplify
from functrace.interpreters.staging import stage

__all__ = ["inline", "prepare"]


_NONE: Mapping[Var, Identity] = {}


def prepare(jaxpr: Jaxpr, identities: Mapping[Var, Identity] = _NONE) -> Jaxpr:
    """The program that is compiled: inlined and simplified, sums of products as contractions.

    Args:
        jaxpr: the program.
        identities: which of its inputs are identity matrices.
    """
    simple = simplify(inline(jaxpr))
    contracted = contract(simple, identities)
    return simple if contracted is simple else simplify(contracted)


def inline(jaxpr: Jaxpr) -> Jaxpr:
    """The program without calls whose primitive has an `Inline` or `Rewrite` lowering."""
    candidates = {primitive for primitive in {eqn.primitive for eqn in jaxpr.eqns} if _may_be_opened(primitive)}
    if not any(isinstance(_lowering(eqn), (Inline, Rewrite)) for eqn in jaxpr.eqns if eqn.primitive in candidates):
        return jaxpr
    eqns: list[Eqn] = []
    env: dict[Var, Atom] = {}
    _inline_into(eqns, jaxpr.eqns, env, False)
    return Jaxpr(jaxpr.constvars, jaxpr.invars, eqns, [_current(env, a) for a in jaxpr.outvars])


def _rules(primitive: Primitive) -> tuple[Any, ...]:
    rule = primitive.lower
    return rule if isinstance(rule, tuple) else (rule,)


def _may_be_opened(primitive: Primitive) -> bool:
    """Whether a primitive has a lowering that says what else it consists of."""
    return any(isinstance(rule, (Inline, Rewrite)) for rule in _rules(primitive))


def _lowering(eqn: Eqn) -> Any:
    """The first lowering that suits, if the equation may be opened."""
    if not _may_be_opened(eqn.primitive):
        return None
    avals = [a.aval for a in eqn.invars]
    return next((rule for rule in _rules(eqn.primitive) if rule.suits(*avals, **eqn.params)), None)


def _current(env: dict[Var, Atom], atom: Atom) -> Atom:
    return env.get(atom, atom) if isinstance(atom, Var) else atom


def _program(eqn: Eqn, lowering: Inline | Rewrite) -> ClosedJaxpr:
    if isinstance(lowering, Inline):
        program = lowering.program(**eqn.params)
        return program if isinstance(program, ClosedJaxpr) else ClosedJaxpr(program)

    def function(*values: Any) -> list[Any]:
        found = lowering.function(*values, **eqn.params)
        return list(found) if eqn.primitive.multiple else [found]

    return stage(function, [a.aval for a in eqn.invars])


def _inline_into(eqns: list[Eqn], body: list[Eqn], env: dict[Var, Atom], fresh: bool) -> None:
    """Appends the equations of a body; `fresh` if its variables need new names, because it may be inlined again."""
    for eqn in body:
        operands = [_current(env, a) for a in eqn.invars]
        lowering = _lowering(eqn)
        if isinstance(lowering, (Inline, Rewrite)):
            program = _program(eqn, lowering)
            jaxpr = program.jaxpr
            inner: dict[Var, Atom] = dict(zip(jaxpr.constvars, map(Literal, program.consts), strict=True))
            inner.update(zip(jaxpr.invars, operands, strict=True))
            _inline_into(eqns, jaxpr.eqns, inner, True)
            env.update(zip(eqn.outvars, [_current(inner, a) for a in jaxpr.outvars], strict=True))
            continue
        outs = eqn.outvars
        if fresh:
            outs = [Var(v.aval) for v in eqn.outvars]
            env.update(zip(eqn.outvars, outs, strict=True))
        eqns.append(Eqn(eqn.primitive, operands, outs, eqn.params, eqn.source))
