"""What a program makes of its constants: done once, when it is traced, unless the result is larger than they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.core.evaluate import evaluate_plain
from functrace.core.ir import Atom, ClosedJaxpr, Eqn, Jaxpr, Literal, Var, has_effects, live_eqns
from functrace.core.trace import EVAL, reset_trace, set_trace
from functrace.core.types import ShapedArray
from functrace.primitives.families import broadcast
from functrace.primitives.shape import full

__all__ = ["with_known_constants"]

_SMALL = 256  # elements that are made a constant of their own whatever they come from
_GROWTH = 8  # how many times more elements than the largest constant it comes from a new one may have
_LARGE = 1 << 18  # elements that are not made on the way to a constant


def with_known_constants(closed: ClosedJaxpr) -> ClosedJaxpr:
    """The program with constants that repeat elements made by it, and with what it computes of constants as constants.

    Tracing leaves the former where a derivative starts from ones, which are a view of a single one, and where constants
    are repeated for each direction; the latter where the directions of a Jacobian go through a linear function.
    """
    return _folded(_unrepeated(closed))


def _unrepeated(closed: ClosedJaxpr) -> ClosedJaxpr:
    jaxpr = closed.jaxpr
    eqns: list[Eqn] = []
    kept: list[tuple[Var, Any]] = []
    for var, value in zip(jaxpr.constvars, closed.consts, strict=True):
        if not isinstance(value, np.ndarray) or value.size <= 1:
            kept.append((var, value))
            continue
        axes = tuple([a for a, (n, s) in enumerate(zip(value.shape, value.strides, strict=True)) if s and n > 1])
        if not axes or _is_uniform(value):
            params = {"shape": value.shape, "value": value.flat[0].item(), "dtype": value.dtype}
            eqns.append(Eqn(full, [], [var], params))
        elif len(axes) < value.ndim:
            part = value[tuple([slice(None) if a in axes else 0 for a in range(value.ndim)])]
            if part.size < value.size:
                source = Var(ShapedArray(part.shape, part.dtype))
                kept.append((source, part))
                eqns.append(Eqn(broadcast, [source], [var], {"shape": value.shape, "axes": axes}))
            else:
                kept.append((var, value))
        else:
            kept.append((var, value))
    if not eqns:
        return closed
    program = Jaxpr([v for v, _ in kept], jaxpr.invars, [*eqns, *jaxpr.eqns], jaxpr.outvars)
    return ClosedJaxpr(program, [c for _, c in kept])


def _is_uniform(value: np.ndarray) -> bool:
    """Whether an array repeats one number, to the bit."""
    first = value.flat[0]
    if first.dtype.kind == "c" or not (value == first).all():
        return False
    return bool(first) or first.dtype.kind != "f" or bool((np.signbit(value) == np.signbit(first)).all())


def _folded(closed: ClosedJaxpr) -> ClosedJaxpr:
    jaxpr = closed.jaxpr
    given = {v: c for v, c in zip(jaxpr.constvars, closed.consts, strict=True) if isinstance(c, np.ndarray)}
    if not given:
        return closed
    # Per variable that follows from constants: the size of the largest, and of the largest array on the way.
    sizes: dict[Var, tuple[int, int]] = {v: (v.aval.size, v.aval.size) for v in given}
    producers: dict[Var, Eqn] = {}
    wanted: set[Atom] = set(jaxpr.outvars)
    for eqn in jaxpr.eqns:
        if _follows(eqn, sizes):
            found = [sizes[a] for a in eqn.invars if isinstance(a, Var)]
            source = max([f[0] for f in found], default=0)
            largest = max([f[1] for f in found] + [v.aval.size for v in eqn.outvars])
            for var in eqn.outvars:
                sizes[var], producers[var] = (source, largest), eqn
        else:
            wanted.update(eqn.invars)
    folded: list[Var] = []
    for var, eqn in reversed(producers.items()):
        if var not in wanted:
            continue
        source, largest = sizes[var]
        bound = max(_GROWTH * source, _SMALL) if source and var.aval.shape else -1
        if var.aval.size <= bound and largest <= max(bound, _LARGE):
            folded.append(var)
        else:
            wanted.update(eqn.invars)
    if not folded:
        return closed
    consts = _values(folded, producers, given)
    now = set(folded)
    eqns = live_eqns([e for e in jaxpr.eqns if not now.issuperset(e.outvars)], jaxpr.outvars)
    eqns = [_without(e, now) for e in eqns]
    used = {a for e in eqns for a in e.invars} | set(jaxpr.outvars)
    pairs = [(v, c) for v, c in zip(jaxpr.constvars, closed.consts, strict=True) if v in used]
    pairs += zip(folded, consts, strict=True)
    return ClosedJaxpr(Jaxpr([v for v, _ in pairs], jaxpr.invars, eqns, jaxpr.outvars), [c for _, c in pairs])


def _follows(eqn: Eqn, sizes: dict[Var, tuple[int, int]]) -> bool:
    """Whether what an equation gives follows from constants."""
    for atom in eqn.invars:
        if isinstance(atom, Var) and atom not in sizes:
            return False
    return not has_effects(eqn)


def _without(eqn: Eqn, now: set[Var]) -> Eqn:
    """The equation with outputs nobody reads in place of those that are constants."""
    if now.isdisjoint(eqn.outvars):
        return eqn
    outvars = [Var(v.aval) if v in now else v for v in eqn.outvars]
    return Eqn(eqn.primitive, eqn.invars, outvars, eqn.params, eqn.source)


def _values(wanted: list[Var], producers: dict[Var, Eqn], given: dict[Var, np.ndarray]) -> list[np.ndarray]:
    """The values of variables that follow from constants."""
    values: dict[Var, Any] = dict(given)
    token = set_trace(EVAL)
    try:
        for var in wanted:
            pending = [var]
            while pending:
                eqn = producers.get(pending[-1])
                if eqn is None or pending[-1] in values:
                    pending.pop()
                    continue
                missing = [a for a in eqn.invars if isinstance(a, Var) and a not in values]
                if missing:
                    pending += missing
                    continue
                operands = [a.val if isinstance(a, Literal) else values[a] for a in eqn.invars]
                outs = evaluate_plain(eqn.primitive, operands, eqn.params)
                values.update(zip(eqn.outvars, outs if eqn.primitive.multiple else [outs], strict=True))
    finally:
        reset_trace(token)
    return [np.ascontiguousarray(values[var]) for var in wanted]
