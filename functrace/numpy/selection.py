"""Choices between values. What is not chosen does not count: its derivative is zero, even where it would be NaN."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.errors import ArgumentError, DTypeError, ShapeError
from functrace.numpy._dispatch import reject, traced_ufuncs, write_out
from functrace.numpy._promotion import as_array, as_operand, broadcast_operands, cast, promote
from functrace.numpy._reducing import NO_VALUE, is_true, known
from functrace.numpy._structural import fresh, structural
from functrace.primitives import elementwise as p
from functrace.primitives.shape import full
from functrace.util import user_line

__all__ = ["clip", "piecewise", "select", "where"]


def choose(mask: Any, x: Any, y: Any) -> Any:
    """x where the mask is true, else y, with NumPy's promotion and broadcasting."""
    return p.select(*broadcast_operands([mask, *promote(x, y)]))


@structural(np.where)
def where(condition: Any, x: Any = None, y: Any = None, /) -> Any:
    """x where the condition holds, else y: the other one never contributes, neither to values nor to derivatives.

    With one argument, the positions where it is not zero, as plain arrays; its value must be known.
    """
    if (x is None) != (y is None):
        raise ArgumentError(
            "numpy.where takes a condition, or a condition and two values",
            where=user_line(),
            got="one value",
            remedy="give both x and y",
        )
    if x is None:
        return np.nonzero(condition)
    mask = is_true(as_array(condition))
    return choose(mask, as_operand(x), as_operand(y))


@structural(np.select)
def select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    """Per position, the value of the first condition that holds; the others never contribute."""
    if len(condlist) != len(choicelist) or not len(condlist):
        raise ArgumentError(
            "numpy.select takes as many values as conditions, at least one",
            where=user_line(),
            got=f"{len(condlist)} conditions, {len(choicelist)} values",
            remedy="give a value for each condition, and default= for the rest",
        )
    masks = [as_array(c) for c in condlist]
    for mask in masks:
        if mask.dtype.kind != "b":
            raise DTypeError(
                "conditions of numpy.select must be boolean",
                where=user_line(),
                got=mask.dtype.name,
                remedy="compare first, as in condition != 0",
            )
    result, *choices = broadcast_operands(promote(as_operand(default), *map(as_operand, choicelist)))
    for mask, choice in zip(reversed(masks), reversed(choices), strict=True):
        result = p.select(*broadcast_operands([mask, choice, result]))
    return result


@structural(np.clip)
def clip(
    a: Any, a_min: Any = NO_VALUE, a_max: Any = NO_VALUE, out: Any = None, *, min: Any = NO_VALUE, max: Any = NO_VALUE,
    **options: Any,
) -> Any:  # fmt: skip
    """The values limited to an interval; at a bound the derivative is shared equally with it."""
    reject("clip", **options)
    low = _bound("min", a_min, min)
    high = _bound("max", a_max, max)
    x = as_operand(a)
    if as_array(x).dtype.kind in "iu":  # Python integers beyond the dtype bound nothing
        limits = np.iinfo(as_array(x).dtype)
        low = None if type(low) is int and low <= limits.min else low
        high = None if type(high) is int and high >= limits.max else high
    result = x
    if low is not None and high is not None:
        x, low, high = promote(x, low, high)
    if low is not None:
        result = traced_ufuncs[np.maximum](result, low)
    if high is not None:
        result = traced_ufuncs[np.minimum](result, high)
    return write_out("clip", fresh(as_array(result)) if result is a else result, out)


def _bound(name: str, positional: Any, keyword: Any) -> Any:
    """One bound, however it was named; None for no bound."""
    if positional is not NO_VALUE and keyword is not NO_VALUE:
        raise ArgumentError(
            f"numpy.clip got a_{name} and {name}",
            where=user_line(),
            got="both",
            remedy=f"give one of them: {name}= is the new name",
        )
    bound = keyword if positional is NO_VALUE else positional
    return None if bound is NO_VALUE or bound is None else as_operand(bound)


@structural(np.piecewise)
def piecewise(x: Any, condlist: Any, funclist: Sequence[Any], *args: Any, **kw: Any) -> Any:
    """Per position, the function (or number) of the last condition that holds.

    Each function gets the elements it is for; where these are unknown while tracing (under vmap, in a jaxpr), all
    elements, of which the others never contribute.
    """
    value = as_array(x)
    masks = _conditions(condlist, value.shape)
    if len(funclist) not in (len(masks), len(masks) + 1):
        raise ArgumentError(
            "numpy.piecewise takes one function per condition, and one more for the rest",
            where=user_line(),
            got=f"{len(masks)} conditions, {len(funclist)} functions",
            remedy="correct the lists",
        )
    if len(funclist) == len(masks) + 1:
        masks.append(p.logical_not(functools.reduce(p.logical_or, masks)))
    result = full(shape=value.shape, value=0, dtype=value.dtype)
    for mask, function in zip(masks, funclist, strict=True):
        if not callable(function):
            piece = as_operand(function)
            result = p.select(*broadcast_operands([mask, cast(piece, value.dtype), result]))
            continue
        result = _apply_piece(result, value, mask, lambda part, f=function: f(part, *args, **kw))
    return result


def _apply_piece(result: Any, x: Any, mask: Any, function: Any) -> Any:
    """The result with the function's values where the mask holds."""
    chosen = known(mask)
    if chosen is None:
        piece = as_operand(function(x))
    elif not x.shape:
        if not chosen:
            return result
        piece = as_operand(function(x))
    elif not chosen.any():
        return result
    else:
        places = np.flatnonzero(chosen)
        part = as_operand(function(np.take(x, places)))
        if np.shape(part) == ():
            piece = part
        else:
            inverse = np.zeros(chosen.size, np.intp)
            inverse[places] = np.arange(places.size)
            piece = np.reshape(np.take(part, inverse), x.shape)
    return p.select(*broadcast_operands([mask, cast(piece, x.dtype), result]))


def _conditions(condlist: Any, shape: tuple[int, ...]) -> list[Any]:
    """The conditions as boolean arrays of one shape; a single one may stand for the list, as in NumPy."""
    several = isinstance(condlist, (list, tuple)) or np.ndim(condlist) > 0
    if several and shape:
        several = isinstance(condlist[0], (list, tuple)) or np.ndim(condlist[0]) > 0
    arrays = [is_true(as_array(mask)) for mask in (condlist if several else [condlist])]
    for mask in arrays:
        if mask.shape != shape:
            raise ShapeError(
                "conditions of numpy.piecewise must have the shape of x",
                where=user_line(),
                got=f"a condition of shape {mask.shape} for x of shape {shape}",
                remedy="broadcast them first",
            )
    return arrays
