"""Choosing among operands, by a condition or the larger or smaller one, and conversion between dtypes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.primitive import Masked, Primitive, is_linear
from functrace.core.series import coefficient_of
from functrace.core.structure import Moves, Pointwise, Structure, known
from functrace.core.types import ShapedArray, is_inexact
from functrace.core.work import Layout, View, Work
from functrace.errors import DTypeError
from functrace.primitives import _codes, kinks
from functrace.primitives.elementwise.comparison import equal, isnan, logical_and, logical_not, logical_or
from functrace.primitives.families import add, broadcast, elementwise, mul, same_dtype, unwrap
from functrace.util import user_line

__all__ = [
    "attains",
    "convert",
    "fmax",
    "fmin",
    "maximum",
    "minimum",
    "select",
    "stop_gradient",
    "zero_of",
]


def zero_of(x: Any) -> Any:
    """The number 0 in the dtype of `x`."""
    return x.dtype.type(0)


def _cost_same(operands: Sequence[Layout], outs: Sequence[ShapedArray]) -> Work:
    """The operand itself."""
    return Work(read=0, written=0, results=[View(0, operands[0].strides)])


def _select_impl(mask: Any, x: Any, y: Any) -> Any:
    return unwrap(np.where(mask, x, y))


def _select_dtype(name: str, mask: np.dtype, *dtypes: np.dtype) -> np.dtype:
    if mask != np.bool_:
        raise DTypeError("select needs a boolean condition", where=user_line(), got=mask.name, remedy="compare first")
    return same_dtype(name, *dtypes)


def _select_jvp(primals: list[Any], tangents: list[Any]) -> tuple[list[Any], list[Any]]:
    mask, x, y = primals
    out = select(mask, x, y)
    _, x_dot, y_dot = tangents
    if x_dot is None and y_dot is None:
        return [out], [None]
    zero = zero_of(out)
    return [out], [select(mask, zero if x_dot is None else x_dot, zero if y_dot is None else y_dot)]


def _select_transpose(bars: list[Any], mask: Any, x: Any, y: Any) -> list[Any]:
    bar = bars[0]
    if is_linear(mask) and is_linear(x) != is_linear(y):
        # A program that was transposed before: the condition is that a cotangent is not 0, and the other choice 0.
        return [None, bar if is_linear(x) else None, bar if is_linear(y) else None]
    if mask.shape != bar.shape:  # one condition for a whole array: the dead elements are counted one by one
        mask = broadcast(mask, shape=bar.shape, axes=())
    x_bar = Masked(select(mask, bar, zero_of(bar)), mask) if is_linear(x) else None
    y_bar = Masked(select(mask, zero_of(bar), bar), logical_not(mask)) if is_linear(y) else None
    return [None, x_bar, y_bar]


def _select_taylor(order: int, operands: list[Any], out: list[Any]) -> Any:
    mask = coefficient_of(operands[0], 0)
    x, y = coefficient_of(operands[1], order), coefficient_of(operands[2], order)
    if x is None and y is None:
        return None
    zero = zero_of(out[0])
    return select(mask, zero if x is None else x, zero if y is None else y)


def _select_sparsity(operands: list[Any], outs: list[ShapedArray]) -> list[Structure]:
    mask = known(operands[0])
    if mask is None:
        return [Pointwise([False, True, True])]
    return [Moves(lambda _, x, y: np.where(mask, x, y))]


select = elementwise(
    "select",
    _select_impl,
    jvp=_select_jvp,
    transpose=_select_transpose,
    taylor=_select_taylor,
    result=_select_dtype,
    sparsity=_select_sparsity,
    flops=0,
    formula="where(x, y, z)",
    lower=_codes.select,
)


def _convert_jvp(primals: list[Any], tangents: list[Any], *, dtype: np.dtype) -> tuple[list[Any], list[Any]]:
    out = convert(primals[0], dtype=dtype)
    return [out], [convert(tangents[0], dtype=dtype) if is_inexact(dtype) else None]


def _convert_impl(x: Any, *, dtype: np.dtype) -> Any:
    if dtype.kind not in "cb" and x.dtype.kind == "c":
        x = x.real
    return x.astype(dtype)


convert = elementwise(
    "convert",
    _convert_impl,
    jvp=_convert_jvp,
    transpose=lambda bars, x, *, dtype: [convert(bars[0], dtype=x.aval.dtype)],
    result=lambda name, x, *, dtype: dtype,
    fold=lambda operands, *, dtype: operands[0],
    flops=0,
    curvature=(),
    kink=kinks.conversion(),
    formula=lambda x, *, dtype: "x" if dtype.kind in "fc" else f"{dtype.name}(x)",
    lower=_codes.convert,
)
stop_gradient = elementwise("stop_gradient", lambda x: x, cost=_cost_same, lower=_codes.same)

# choosing between operands; ties split evenly


def attains(x: Any, extremum: Any) -> Any:
    """Where x is the extremum, or both are NaN."""
    return logical_or(equal(x, extremum), logical_and(isnan(x), isnan(extremum)))


def _choose_jvp(primitive: Callable[[], Primitive]) -> Any:
    """The jvp of a primitive that gives one of its operands: the tangent of the chosen, the mean at a tie."""

    def jvp(primals: list[Any], tangents: list[Any]) -> tuple[list[Any], list[Any]]:
        x, y = primals
        x_dot, y_dot = tangents
        out = primitive()(x, y)
        zero = zero_of(out)
        x_dot = zero if x_dot is None else x_dot
        y_dot = zero if y_dot is None else y_dot
        tie = equal(x, y)
        mean = mul(add(x_dot, y_dot), zero + 0.5)
        return [out], [select(tie, mean, select(attains(x, out), x_dot, y_dot))]

    return jvp


maximum = elementwise(
    "maximum",
    np.maximum,
    jvp=_choose_jvp(lambda: maximum),
    curvature=(),
    kink=kinks.choice(np.maximum),
    formula="max(x, y)",
    lower=_codes.maximum,
)
minimum = elementwise(
    "minimum",
    np.minimum,
    jvp=_choose_jvp(lambda: minimum),
    curvature=(),
    kink=kinks.choice(np.minimum),
    formula="min(x, y)",
    lower=_codes.minimum,
)
fmax = elementwise(
    "fmax",
    np.fmax,
    jvp=_choose_jvp(lambda: fmax),
    curvature=(),
    kink=kinks.choice(np.fmax),
    lower=_codes.fmax,
)
fmin = elementwise(
    "fmin",
    np.fmin,
    jvp=_choose_jvp(lambda: fmin),
    curvature=(),
    kink=kinks.choice(np.fmin),
    lower=_codes.fmin,
)
