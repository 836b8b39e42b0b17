"""Taylor rules of the primitives that hold programs: each becomes the same loop or choice over all coefficients.

What their `jvp` rules imply would be right too, but doubles the program with each order. Here a program of values
becomes one of values and their coefficients up to an order, so that the cost stays polynomial in the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from functrace.control._functions import carry_fixpoint, split
from functrace.control.call import jit_call
from functrace.control.checkpointed_scan import checkpointed_scan
from functrace.control.cond import cond, merge_constants
from functrace.control.scan import scan
from functrace.control.while_loop import while_loop
from functrace.core.ir import ClosedJaxpr, Jaxpr, Var, eval_jaxpr, hoist_constants
from functrace.core.trace import Tracer
from functrace.core.types import aval_of
from functrace.interpreters.taylor import taylor, taylor_jaxpr
from functrace.primitives.shape import zeros

__all__: list[str] = []

#: Per value, its coefficients from order 1 on (None for a zero one), or None for a constant.
Coefficients = Sequence[Sequence[Any] | None]


def _filled(value: Any, terms: Sequence[Any] | None, order: int) -> list[Any]:
    terms = [None] * order if terms is None else terms
    return [zeros(aval_of(value)) if term is None else term for term in terms]


def _places(flags: Sequence[bool], order: int, groups: Sequence[Sequence[int]]) -> list[int]:
    """How the inputs (or outputs) of a Taylor program are taken so that each group is followed by its coefficients."""
    rank: dict[int, int] = {}
    places: list[int] = []
    for i, flag in enumerate(flags):
        if flag:
            rank[i] = len(rank)
    for group in groups:
        places += group
        places += [len(flags) + order * rank[i] + k for i in group if flags[i] for k in range(order)]
    return places


def _reordered(closed: ClosedJaxpr, inputs: Sequence[int], outputs: Sequence[int]) -> tuple[Jaxpr, list[Any]]:
    jaxpr = closed.jaxpr
    invars, outvars = [jaxpr.invars[i] for i in inputs], [jaxpr.outvars[i] for i in outputs]
    return hoist_constants(ClosedJaxpr(Jaxpr(jaxpr.constvars, invars, jaxpr.eqns, outvars), closed.consts))


def _collect(outs: Sequence[Any], flags: Sequence[bool], order: int, places: Sequence[int]) -> list[Any]:
    """The coefficients of each output among reordered ones; None for a constant."""
    found = dict(zip(places, outs, strict=True))
    starts = iter(range(len(flags), len(flags) + order * sum(flags), order))
    return [[found[s + k] for k in range(order)] if (s := next(starts) if flag else None) is not None else None
            for flag in flags]  # fmt: skip


def _scan(
    order: int,
    values: list[Any],
    series: Coefficients,
    *,
    jaxpr: Jaxpr,
    length: int,
    reverse: bool,
    consts: int,
    carry: int,
    **params: Any,
) -> list[Any]:
    flags = [s is not None for s in series]
    outputs = len(jaxpr.outvars)

    def run(flags: list[bool], carried: list[bool]) -> Any:
        return taylor_jaxpr(ClosedJaxpr(jaxpr), flags, order, [*carried, *(False,) * (outputs - carry)])

    closed, out_flags = carry_fixpoint(flags, consts, carry, run)
    groups = split(range(len(values)), consts, carry)
    out_places = _places(out_flags, order, split(range(outputs), carry))
    body, own = _reordered(closed, _places(flags, order, groups), out_places)
    operands, counts = [], []
    for group in groups:
        part = [values[i] for i in group]
        part += [term for i in group if flags[i] for term in _filled(values[i], series[i], order)]
        operands += part
        counts.append(len(part))
    outs = scan.bind(
        *own, *operands, jaxpr=body, length=length, reverse=reverse, consts=len(own) + counts[0], carry=counts[1],
        **params,
    )  # fmt: skip
    return _collect(outs, out_flags, order, out_places)


def _while(
    order: int,
    values: list[Any],
    series: Coefficients,
    *,
    cond: Jaxpr,
    body: Jaxpr,
    cond_consts: int,
    body_consts: int,
    **params: Any,
) -> list[Any]:
    cond_constants, rest = values[:cond_consts], values[cond_consts:]
    flags = [s is not None for s in series[cond_consts:]]
    closed, out_flags = carry_fixpoint(
        flags,
        body_consts,
        len(rest) - body_consts,
        lambda flags, carried: taylor_jaxpr(ClosedJaxpr(body), flags, order, carried),
    )
    groups = split(range(len(rest)), body_consts)
    out_places = _places(out_flags, order, [range(len(out_flags))])
    program, own = _reordered(closed, _places(flags, order, groups), out_places)
    parts = []
    for group in groups:
        parts.append([rest[i] for i in group])
        parts[-1] += [t for i in group if flags[i] for t in _filled(rest[i], series[cond_consts + i], order)]
    extra = [Var(aval_of(x)) for x in parts[1][len(groups[1]) :]]
    test = Jaxpr([], [*cond.invars, *extra], cond.eqns, cond.outvars)
    outs = while_loop.bind(
        *cond_constants, *own, *parts[0], *parts[1], cond=test, body=program, cond_consts=cond_consts,
        body_consts=len(own) + len(parts[0]), **params,
    )  # fmt: skip
    return _collect(outs, out_flags, order, out_places)


def _cond(
    order: int, values: list[Any], series: Coefficients, *, branches: tuple[Jaxpr, ...], **params: Any
) -> list[Any]:
    (index, *operands), terms = values, series[1:]
    known = index.constant() if isinstance(index, Tracer) else index
    if known is not None:
        return _inline(branches[int(known)], order, operands, terms)
    flags = [s is not None for s in terms]
    out_flags = [False] * len(branches[0].outvars)
    for branch in branches:
        out_flags = [a or b for a, b in zip(out_flags, _run(branch, flags, order, out_flags)[1], strict=True)]
    programs, constants = merge_constants([_run(branch, flags, order, out_flags)[0] for branch in branches])
    given = [t for x, s, flag in zip(operands, terms, flags, strict=True) if flag for t in _filled(x, s, order)]
    outs = cond.bind(index, *constants, *operands, *given, branches=programs, **params)
    return _collect(outs, out_flags, order, range(len(outs)))


def _run(branch: Jaxpr, flags: Sequence[bool], order: int, wanted: Sequence[bool]) -> tuple[ClosedJaxpr, list[bool]]:
    return taylor_jaxpr(ClosedJaxpr(branch), flags, order, wanted)


def _inline(jaxpr: Jaxpr, order: int, values: Sequence[Any], series: Coefficients) -> list[Any]:
    terms = [[None] * order if s is None else s for s in series]
    _, found = taylor(lambda *xs: eval_jaxpr(jaxpr, (), *xs), values, terms, order)
    return [None if all(t is None for t in f) else f for f in found]


def _call(order: int, values: list[Any], series: Coefficients, *, jaxpr: Jaxpr, **params: Any) -> list[Any]:
    return _inline(jaxpr, order, values, series)


scan.define(taylor=_scan)
checkpointed_scan.define(taylor=lambda *args, snapshots, block, **params: _scan(*args, **params))
while_loop.define(taylor=_while)
cond.define(taylor=_cond)
jit_call.define(taylor=_call)
