"""Differences, quotients, remainders, squares and roots.

Sums, products and changes of sign stand in `families`, because derived rules are written in them.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from functrace.core.primitive import is_linear
from functrace.core.series import Series, coefficient_of, product_coefficient
from functrace.core.structure import Pointwise, Structure
from functrace.core.types import ShapedArray
from functrace.primitives import _codes, _codes_complex, _codes_numbers, kinks
from functrace.primitives._ufuncs import by_ufunc
from functrace.primitives.elementwise.rounding import trunc
from functrace.primitives.families import elementwise, is_one, neg, nonzero

__all__ = [
    "FUNCTION",
    "cbrt",
    "div",
    "floor_divide",
    "fmod",
    "gcd",
    "lcm",
    "positive",
    "reciprocal",
    "remainder",
    "sqrt",
    "square",
    "sub",
]


#: Arithmetic operations that an elementary function counts for, about those of its kernel.
FUNCTION = 20


def _div_taylor(order: int, operands: list[Any], out: list[Any]) -> Any:
    """out_k = (x_k - sum over j >= 1 of y_j out_(k-j)) / y_0"""
    x, y = operands
    numerator = coefficient_of(x, order)
    taken = product_coefficient(operator.mul, y, Series(out, _no_more), order, first=1)
    if taken is not None:
        numerator = -taken if numerator is None else numerator - taken
    return None if numerator is None else numerator / coefficient_of(y, 0)


def _no_more(order: int) -> Any:
    raise AssertionError("a recurrence reads only the coefficients before its own")


def _inverse(y: Any) -> Any:
    """1 / y; NumPy's infinity where Python's own division by zero raises."""
    return np.true_divide(1, y) if type(y) in (float, complex) and not y else 1 / y


def _transpose_div(bars: list[Any], x: Any, y: Any) -> list[Any]:
    return [div(bars[0], y), None]


sub = elementwise(
    "sub",
    operator.sub,
    (1, -1),
    transpose=lambda bars, x, y: [bars[0] if is_linear(x) else None, neg(bars[0]) if is_linear(y) else None],
    flops=(1, 2),
    formula="x - y",
    lower=(_codes.sub, by_ufunc("numpy.subtract")),
)


def _div_sparsity(operands: list[Any], outs: list[ShapedArray]) -> list[Structure]:
    numerator = nonzero(operands[0])
    return [Pointwise([True, numerator], [(0, 1, True), (1, 1, numerator)])]


div = elementwise(
    "div",
    np.true_divide,
    (lambda x, y, out: _inverse(y), lambda x, y, out: -out / y),
    transpose=_transpose_div,
    taylor=_div_taylor,
    fold=lambda operands: operands[0] if is_one(operands[1]) else None,
    sparsity=_div_sparsity,
    masks="scaling",
    flops=(1, 11),
    formula="x / y",
    lower=(_codes.div, _codes_complex.div),
)
floor_divide = elementwise(
    "floor_divide", np.floor_divide, flops=2, kink=kinks.quotient(np.floor, False), lower=_codes_numbers.floor_divide
)
remainder = elementwise(
    "remainder",
    np.remainder,
    (1, lambda x, y, out: -floor_divide(x, y)),
    curvature=(),
    flops=4,
    kink=kinks.quotient(np.floor, True),
    lower=_codes_numbers.remainder,
)
fmod = elementwise(
    "fmod",
    np.fmod,
    (1, lambda x, y, out: -trunc(div(x, y))),
    curvature=(),
    flops=4,
    kink=kinks.quotient(np.trunc, True),
    lower=_codes_numbers.fmod,
)
positive = elementwise("positive", np.positive, 1, transpose=lambda bars, x: [bars[0]], flops=0, lower=_codes.same)
square = elementwise("square", np.square, lambda x, out: 2 * x, flops=(1, 6), formula="x**2", lower=_codes.square)
reciprocal = elementwise(
    "reciprocal",
    np.reciprocal,
    lambda x, out: -out * out,
    flops=(1, 6),
    formula="1 / x",
    lower=(_codes.reciprocal, _codes_complex.reciprocal),
)
sqrt = elementwise(
    "sqrt", np.sqrt, lambda x, out: 0.5 / out, kink=kinks.undetermined("root of 0", np.abs), lower=_codes.sqrt
)
cbrt = elementwise(
    "cbrt",
    np.cbrt,
    lambda x, out: 1 / (3 * out * out),
    flops=FUNCTION,
    kink=kinks.undetermined("root of 0", np.abs),
    lower=_codes.cbrt,
)
gcd = elementwise("gcd", np.gcd, lower=_codes_numbers.gcd)
lcm = elementwise("lcm", np.lcm, lower=_codes_numbers.lcm)
