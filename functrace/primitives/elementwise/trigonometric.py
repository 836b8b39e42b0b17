"""Trigonometric and hyperbolic functions, their inverses, and what is written with them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from functrace.primitives import _codes, _codes_complex, _codes_special, kinks
from functrace.primitives.elementwise.arithmetic import FUNCTION, sqrt
from functrace.primitives.elementwise.comparison import less
from functrace.primitives.elementwise.complex_parts import abs_
from functrace.primitives.elementwise.selection import select, zero_of
from functrace.primitives.families import elementwise

__all__ = [
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "cos",
    "cosh",
    "hypot",
    "sin",
    "sinc",
    "sinh",
    "tan",
    "tanh",
]

sin = elementwise("sin", np.sin, lambda x, out: cos(x), flops=FUNCTION, lower=(_codes.sin, _codes_complex.sin))
cos = elementwise("cos", np.cos, lambda x, out: -sin(x), flops=FUNCTION, lower=(_codes.cos, _codes_complex.cos))
tan = elementwise("tan", np.tan, lambda x, out: 1 + out * out, flops=FUNCTION, lower=_codes.tan)
arcsin = elementwise(
    "arcsin",
    np.arcsin,
    lambda x, out: 1 / sqrt((1 - x) * (1 + x)),
    flops=FUNCTION,
    kink=kinks.unit_edge(),
    lower=_codes.arcsin,
)
arccos = elementwise(
    "arccos",
    np.arccos,
    lambda x, out: -1 / sqrt((1 - x) * (1 + x)),
    flops=FUNCTION,
    kink=kinks.unit_edge(),
    lower=_codes.arccos,
)
arctan = elementwise("arctan", np.arctan, lambda x, out: 1 / (1 + x * x), flops=FUNCTION, lower=_codes.arctan)
sinh = elementwise("sinh", np.sinh, lambda x, out: cosh(x), flops=FUNCTION, lower=(_codes.sinh, _codes_complex.sinh))
cosh = elementwise("cosh", np.cosh, lambda x, out: sinh(x), flops=FUNCTION, lower=(_codes.cosh, _codes_complex.cosh))
tanh = elementwise("tanh", np.tanh, lambda x, out: 1 - out * out, flops=FUNCTION, lower=_codes.tanh)
arcsinh = elementwise("arcsinh", np.arcsinh, lambda x, out: 1 / sqrt(x * x + 1), flops=FUNCTION, lower=_codes.arcsinh)
arccosh = elementwise(
    "arccosh",
    np.arccosh,
    lambda x, out: 1 / (sqrt(x - 1) * sqrt(x + 1)),
    flops=FUNCTION,
    kink=kinks.unit_edge(),
    lower=_codes.arccosh,
)
arctanh = elementwise(
    "arctanh", np.arctanh, lambda x, out: 1 / ((1 - x) * (1 + x)), flops=FUNCTION, lower=_codes.arctanh
)


def _over_square(x: Any, r: Any) -> Any:
    """x / r**2, without the square, which would overflow or vanish before the quotient does."""
    return x / r / r


arctan2 = elementwise(
    "arctan2",
    np.arctan2,
    (lambda x, y, out: _over_square(y, hypot(x, y)), lambda x, y, out: -_over_square(x, hypot(x, y))),
    flops=FUNCTION,
    kink=kinks.cut(),
    lower=_codes.arctan2,
)
hypot = elementwise(
    "hypot",
    np.hypot,
    (lambda x, y, out: x / out, lambda x, y, out: y / out),
    flops=4,
    kink=kinks.homogeneous("length 0", np.hypot, np.hypot),
    lower=_codes.hypot,
)


def _sinc_derivative(x: Any, out: Any) -> Any:
    """(cos(pi x) - sinc(x)) / x, by its Taylor series near 0 where that cancels."""
    small = less(abs_(x), x.dtype.type(0.1))
    safe = select(small, zero_of(x) + 1, x)
    z = x * x * math.pi**2
    terms = [2 * n * (-1) ** n / math.factorial(2 * n + 1) for n in range(1, 9)]
    series = zero_of(x) + terms[-1]
    for term in reversed(terms[:-1]):
        series = series * z + term
    return select(small, series * x * math.pi**2, (cos(math.pi * safe) - out) / safe)


sinc = elementwise("sinc", np.sinc, _sinc_derivative, flops=22, lower=_codes_special.sinc)
