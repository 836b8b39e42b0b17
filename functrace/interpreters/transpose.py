"""Reverse mode's second half: walk a linear program backwards, applying `transpose` rules.

Cotangents accumulate per variable. A `Masked` cotangent (from a `select`) carries which of its elements are dead, so
that a branch not taken contributes nothing, not even NaN, just as in forward mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from functrace.core.ir import ClosedJaxpr, Eqn, Literal, Var
from functrace.core.primitive import Masked, Primitive, is_linear
from functrace.core.trace import EVAL, Tracer, current_trace
from functrace.errors import AbstractValueError
from functrace.interpreters.staging import stage
from functrace.primitives.elementwise import (
    convert,
    isfinite,
    logical_and,
    logical_not,
    logical_or,
    not_equal,
    select,
    zero_of,
)
from functrace.primitives.shape import zeros
from functrace.util import replays

__all__ = ["backward_pass", "transpose_jaxpr"]

_NOTHING: Mapping[Var, Any] = {}


@replays
def backward_pass(
    eqns: Sequence[Eqn],
    invars: Sequence[Var],
    outvars: Sequence[Var | None],
    cotangents: Sequence[Any],
    known: Mapping[Var, Any] = _NOTHING,
) -> list[Any]:
    """Cotangents of `invars` from cotangents of `outvars`, under the current trace; None stands for zero.

    Args:
        eqns: a linear program; every equation depends on some of `invars`.
        known: values of variables that are not linear (the constvars of a closed jaxpr).
    """
    bars: dict[Var, Any] = {}
    buffers: set[Var] = set()
    eager = current_trace() is EVAL
    for var, bar in zip(outvars, cotangents, strict=True):
        if var is not None and bar is not None:
            accumulate(bars, var, bar)
    for eqn in reversed(eqns):
        primitive = eqn.primitive
        if primitive.multiple:
            out_bars = [bars.pop(var, None) for var in eqn.outvars]
            if all(bar is None for bar in out_bars):
                continue
        else:
            bar = bars.pop(eqn.outvars[0], None)
            if bar is None:
                continue
            out_bars = [bar]
        if eager and primitive.accumulate is not None and type(out_bars[0]) is not Masked:
            accumulate_part(bars, buffers, eqn, out_bars[0])
            continue
        operand_atoms: list[Any] = eqn.invars
        operands = [a.val if type(a) is Literal else known.get(a, a) for a in operand_atoms]
        in_bars = transpose(eqn, out_bars, operands)
        for atom, bar in zip(operand_atoms, in_bars, strict=True):
            if bar is not None:
                if atom in bars:
                    accumulate(bars, atom, bar)
                else:
                    bars[atom] = bar
    return [unmask(bars.get(var)) for var in invars]


def accumulate(bars: dict[Var, Any], var: Var, bar: Any) -> None:
    """Add to a variable's cotangent; an element is dead only if all contributions to it are."""
    previous = bars.get(var)
    if previous is None:
        bars[var] = bar
    elif type(previous) is Masked and type(bar) is Masked:
        bars[var] = combined(previous.value + bar.value, logical_or, previous, bar)
    else:
        bars[var] = unmask(previous) + unmask(bar)


def accumulate_part(bars: dict[Var, Any], buffers: set[Var], eqn: Eqn, bar: Any) -> None:
    """Add the cotangent of a part to that of the whole, in place: a loop over the parts stays linear in their number.

    Args:
        buffers: the variables whose cotangent is an array that nothing else refers to.
    """
    whole: Any = eqn.invars[0]
    buffer = bars.get(whole)
    if whole not in buffers or type(buffer) is Masked:
        previous = unmask(buffer)
        buffer = np.zeros(whole.aval.shape, whole.aval.dtype)
        if previous is not None:
            buffer += previous
        bars[whole] = buffer
        buffers.add(whole)
    eqn.primitive.accumulate(buffer, bar, *[a.val if type(a) is Literal else a for a in eqn.invars], **eqn.params)  # type: ignore[misc]


def combined(value: Any, join: Any, x: Masked, y: Masked) -> Masked:
    """A cotangent whose masks are those of two others, joined by `logical_or` or `logical_and`."""
    mask = join(x.mask, y.mask)
    if x.certain is x.mask and y.certain is y.mask:
        return Masked(value, mask)
    if x.certain is None or y.certain is None:
        return Masked(value, mask, None if join is logical_or else y.certain if x.certain is None else x.certain)
    return Masked(value, mask, join(x.certain, y.certain))


def unmask(bar: Any) -> Any:
    return bar.value if type(bar) is Masked else bar


def masked_zeros(bar: Any) -> Masked:
    """A cotangent whose exact zeros may be dead."""
    return Masked(bar, not_equal(bar, zero_of(bar)), None)


@replays
def transpose(eqn: Eqn, bars: list[Any], operands: list[Any]) -> list[Any]:
    """Apply the transpose rule of an equation; of few local variables, because `user_source` looks at all of them."""
    for bar in bars:
        if type(bar) is Masked:
            return transpose_masked(eqn.primitive, bars, operands, eqn.params)
    rule = eqn.primitive.transpose or eqn.primitive.rule("transpose", "reverse mode")
    return rule(bars, *operands, **eqn.params)


def transpose_masked(primitive: Primitive, bars: list[Any], operands: list[Any], params: dict[str, Any]) -> list[Any]:
    """Apply the transpose rule, carrying the mask of dead elements along."""
    rule = primitive.transpose or primitive.rule("transpose", "reverse mode")
    inward = primitive.masks == "program"
    in_bars = rule(bars if inward else [unmask(bar) for bar in bars], *operands, **params)
    if len(bars) > 1 or primitive.masks is None or inward:
        if primitive.family == "bilinear":
            in_bars = skip_dead_products(rule, bars[0], in_bars, operands, params)
        return [None if b is None else masked(b, masked_zeros(unmask(b))) for b in in_bars]
    outer = bars[0]
    if primitive.masks == "structural":
        return [
            None if b is None else masked(b, flow)
            for b, flow in zip(in_bars, transpose_masks(rule, outer, operands, params), strict=True)
        ]
    if primitive.masks == "scaling":
        in_bars = [None if b is None else without_dead(unmask(b), outer) for b in in_bars]
    return [None if b is None else masked(b, outer) for b in in_bars]


def masked(bar: Any, outer: Masked) -> Masked:
    """A cotangent that is dead where another is (of which only the masks count), and where it was dead before."""
    if type(bar) is Masked:
        return combined(bar.value, logical_and, bar, outer)
    return Masked(bar, outer.mask, outer.certain)


def without_dead(products: Any, bar: Masked) -> Any:
    """Products of a cotangent's elements, without those that are NaN only because dead elements met infinity."""
    keep = bar.mask
    if bar.certain is None:
        keep = logical_or(keep, isfinite(products))
    elif bar.certain is not bar.mask:
        keep = logical_or(keep, logical_and(bar.certain, isfinite(products)))
    return select(keep, products, zero_of(products))


def skip_dead_products(
    rule: Any, bar: Masked, in_bars: list[Any], operands: list[Any], params: dict[str, Any]
) -> list[Any]:
    """A sum of products without those of dead elements and infinite coefficients, which are NaN.

    Known coefficients only: a staged program keeps them, since it would pay for the two further sums every time.
    """
    index = next(i for i, operand in enumerate(operands) if not is_linear(operand))
    coefficients = operands[index]
    try:
        known = coefficients.peek() if isinstance(coefficients, Tracer) else coefficients
    except AbstractValueError:
        return in_bars
    if np.isfinite(known).all():
        return in_bars
    finite = isfinite(coefficients)

    def with_coefficients(bar: Any, values: Any) -> list[Any]:
        return rule([bar], *operands[:index], values, *operands[index + 1 :], **params)

    sums = with_coefficients(bar.value, select(finite, coefficients, zero_of(coefficients)))
    indicator = convert(logical_not(finite), dtype=coefficients.dtype)
    alive = with_coefficients(convert(bar.mask, dtype=bar.value.dtype), indicator)
    return [
        None if b is None else select(not_equal(a, zero_of(a)), b, s)
        for b, a, s in zip(in_bars, alive, sums, strict=True)
    ]


def transpose_masks(rule: Any, bar: Masked, operands: list[Any], params: dict[str, Any]) -> list[Any]:
    """Where some live element flows to: the rule applied to the masks as numbers. Only the results' masks count."""

    def flow(mask: Any) -> list[Any]:
        flows = rule([convert(mask, dtype=bar.value.dtype)], *operands, **params)
        return [None if f is None else not_equal(unmask(f), zero_of(unmask(f))) for f in flows]

    masks = flow(bar.mask)
    if bar.certain is bar.mask:
        return [None if m is None else Masked(m, m) for m in masks]
    certain = [None] * len(masks) if bar.certain is None else flow(bar.certain)
    return [None if m is None else Masked(m, m, c) for m, c in zip(masks, certain, strict=True)]


def transpose_jaxpr(closed: ClosedJaxpr, linear: Sequence[bool], masked: bool = False) -> ClosedJaxpr:
    """The program of (known inputs, output cotangents) -> cotangents of the linear inputs.

    Args:
        closed: a program that is linear in some of its inputs.
        linear: per input, whether it is one of these.
        masked: whether elements of the cotangents that are zero may be dead: their products with infinity are left out.
    """
    jaxpr = closed.jaxpr
    known_vars = [v for v, flag in zip(jaxpr.invars, linear, strict=True) if not flag]
    linear_vars = [v for v, flag in zip(jaxpr.invars, linear, strict=True) if flag]

    def flat_fun(*values: Any) -> list[Any]:
        known = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        known.update(zip(known_vars, values, strict=False))
        bars: Sequence[Any] = values[len(known_vars) :]
        if masked:
            bars = [masked_zeros(bar) for bar in bars]
        eqns = evaluate_known(jaxpr.eqns, set(linear_vars), known)
        outvars = [v if isinstance(v, Var) and v not in known else None for v in jaxpr.outvars]
        in_bars = backward_pass(eqns, linear_vars, outvars, bars, known)
        return [zeros(v.aval) if bar is None else bar for v, bar in zip(linear_vars, in_bars, strict=True)]

    return stage(flat_fun, [*(v.aval for v in known_vars), *closed.out_avals])


@replays
def evaluate_known(eqns: Sequence[Eqn], linear: set[Var], known: dict[Var, Any]) -> list[Eqn]:
    """Evaluate the equations that depend on no linear variable into `known`; the rest, in order."""
    rest = []
    for eqn in eqns:
        if any(isinstance(a, Var) and a in linear for a in eqn.invars):
            linear.update(eqn.outvars)
            rest.append(eqn)
            continue
        outs = eqn.primitive.bind(*[a.val if isinstance(a, Literal) else known[a] for a in eqn.invars], **eqn.params)
        known.update(zip(eqn.outvars, outs if eqn.primitive.multiple else [outs], strict=True))
    return rest
