"""Reverse mode's second half: walk a linear program backwards, applying `transpose` rules.

Cotangents accumulate per variable. A `Masked` cotangent (from a `select`) carries which of its elements are dead, so
that a branch not taken contributes nothing, not even NaN, just as in forward mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from functrace.core.ir import Eqn, Literal, Var
from functrace.core.primitive import Masked, Primitive
from functrace.primitives.elementwise import convert, logical_or, not_equal, select, zero_of

__all__ = ["backward_pass"]

_NOTHING: Mapping[Var, Any] = {}


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
        operand_atoms: list[Any] = eqn.invars
        operands = [a.val if type(a) is Literal else known.get(a, a) for a in operand_atoms]
        in_bars = transpose(primitive, out_bars, operands, eqn.params)
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
        bars[var] = Masked(previous.value + bar.value, logical_or(previous.mask, bar.mask))
    else:
        bars[var] = unmask(previous) + unmask(bar)


def unmask(bar: Any) -> Any:
    return bar.value if type(bar) is Masked else bar


def transpose(primitive: Primitive, bars: list[Any], operands: list[Any], params: dict[str, Any]) -> list[Any]:
    """Apply the transpose rule, carrying the mask of dead elements along."""
    rule = primitive.transpose or primitive.rule("transpose", "reverse mode")
    for bar in bars:
        if type(bar) is Masked:
            break
    else:
        return rule(bars, *operands, **params)
    in_bars = rule([unmask(bar) for bar in bars], *operands, **params)
    if len(bars) == 1 and primitive.masks is not None:
        mask = bars[0].mask
        if primitive.masks == "structural":
            in_masks = transpose_mask(rule, mask, bars[0].value, operands, params)
        else:
            in_masks = [mask] * len(in_bars)
        if primitive.masks == "scaling":
            in_bars = [None if b is None else select(mask, unmask(b), zero_of(unmask(b))) for b in in_bars]
    else:
        in_masks = [None if b is None else not_equal(unmask(b), zero_of(unmask(b))) for b in in_bars]
    return [
        bar if bar is None or type(bar) is Masked else Masked(bar, mask)
        for bar, mask in zip(in_bars, in_masks, strict=True)
    ]


def transpose_mask(rule: Any, mask: Any, bar: Any, operands: list[Any], params: dict[str, Any]) -> list[Any]:
    """Where some live element flows to: the rule applied to the mask as numbers."""
    flows = rule([convert(mask, dtype=bar.dtype)], *operands, **params)
    return [None if f is None else not_equal(unmask(f), zero_of(unmask(f))) for f in flows]
