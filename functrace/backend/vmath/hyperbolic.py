"""tanh, sinh and cosh, from the exponential's reduction, and their inverses, from log1p."""

from __future__ import annotations

import math

from functrace.backend.vmath.coefficients import COEFFICIENTS
from functrace.backend.vmath.exponential import LN2, LN2_WHOLE, LOG2_E
from functrace.backend.vmath.ir import Builder, Value
from functrace.backend.vmath.logarithm import log1p_sum

__all__ = ["arccosh", "arcsinh", "arctanh", "cosh", "sinh", "tanh"]


def tanh(b: Builder, x: Value) -> Value:
    """w / (w + 2**(1 - n)) with w = 1 - 2**-n + r + t for exp(2 |x|) = 2**n (1 + r + t): none waits for a scaling."""
    a, most = b.abs(x), 20.0 if b.precision == 53 else 10.0
    if b.lanes > 1:  # a number alone is not made to wait for this
        a = b.minimum(a, most)
    n, integer = b.round(a, 2.0 * LOG2_E)
    if b.target.fma:  # r is rounded once, by less than half an ulp
        high, low = LN2_WHOLE[b.bits]
        r, rest = b.mad(n, -high, a + a), n * -low
    else:
        high, low = LN2[b.bits]
        r, rest = b.fast_two_sum(b.mad(n, -high, a + a), n * -low)
        rest = b.mad(rest, r, rest)
    p = b.negative_power_of_two(integer)
    one, below = b.fast_two_sum(1.0 - p, r)
    t = b.mad(r * r, b.horner(r, COEFFICIENTS["EXP"][b.precision]), below + rest)
    w = one + t
    twice = p + p
    y = w + twice
    q = w / y
    lost = (one - w) + t
    if b.precision == 24:  # for 2 ulp, what the sum has lost is to count too; dq/dw = 2**n (1 - q)**2 / 2
        q = q + b.scale(lost, n) * ((1.0 - q) * (1.0 - q) * 0.5)
    else:  # likewise, and what the divisor has lost; it counts where n is 0 or 1, and 1 / y is known well enough there
        near = b.mad(w, -0.25, b.mad(p, -0.6, 1.1))
        q = b.mad(b.mad(-(w * near), ((twice - y) + w) + lost, lost), near, q)
    if b.lanes == 1:
        q = b.select(a > most, 1.0, q)
    return b.copysign(q, x)


def halves(b: Builder, x: Value) -> tuple[Value, Value, Value, Value, Value]:
    """For a = |x| = n ln 2 + r: n, 1 - 4**-n, 1 + 4**-n, cosh(r) - 1 and sinh(r) in two parts.

    2 sinh(a) = 2**n ((1 - 4**-n) cosh(r) + (1 + 4**-n) sinh(r)), and 2 cosh(a) with the factors exchanged.
    """
    a = b.minimum(b.abs(x), 711.0 if b.precision == 53 else 90.0)
    n, _ = b.round(a, LOG2_E)
    high, low = LN2[b.bits]
    r, lost = b.fast_two_sum(b.mad(n, -high, a), n * -low)
    z = r * r
    cosh_minus_1 = b.mad(z, b.horner(z, COEFFICIENTS["COSH"][b.precision]), r * lost)
    sinh_minus_r = b.mad(r * z, b.horner(z, COEFFICIENTS["SINH"][b.precision]), lost)
    fourth = b.power_of_two(b.round(b.minimum(n, b.mantissa + 8.0), -2.0)[1])
    return n, fourth, cosh_minus_1, r, sinh_minus_r


def combine(b: Builder, n: Value, c: Value, d: Value, even: Value, odd: tuple[Value, Value]) -> Value:
    """2**(n - 1) (c (1 + even) + d sum(odd))."""
    product, lost = b.two_product(d, odd[0])
    total, rest = b.two_sum(c, product)
    return b.scale(total + (rest + b.mad(c, even, b.mad(d, odd[1], lost))), n - 1.0)


def sinh(b: Builder, x: Value) -> Value:
    n, fourth, even, r, rest = halves(b, x)
    return b.copysign(combine(b, n, 1.0 - fourth, 1.0 + fourth, even, (r, rest)), x)


def cosh(b: Builder, x: Value) -> Value:
    n, fourth, even, r, rest = halves(b, x)
    return combine(b, n, 1.0 + fourth, 1.0 - fourth, even, (r, rest))


def arcsinh(b: Builder, x: Value) -> Value:
    """log(1 + a + a**2 / (1 + sqrt(1 + a**2))) for a = |x|, log(2 a) where the square says nothing any more."""
    a = b.abs(x)
    large = a > 2.0 ** (b.mantissa // 2 + 4)
    base = b.select(large, 0.0, a)
    square = base * base
    u, low = b.fast_two_sum(a, square / (b.sqrt(square + 1.0) + 1.0))
    u, low = b.select(large, a, u), b.select(large, -1.0, low)
    result = log1p_sum(b, u, low, b.select(large, 1.0, 0.0))
    result = b.select(a == math.inf, a, result)
    return b.copysign(b.select(a < b.tiny, a, result), x)


def arccosh(b: Builder, x: Value) -> Value:
    """log(1 + t + sqrt(t (2 + t))) for t = x - 1, log(2 x) where 1 says nothing any more."""
    large = x > 2.0 ** (b.mantissa + 4)
    t = b.select(large, 1.0, x) - 1.0
    u, low = b.two_sum(b.sqrt(b.mad(t, t, t + t)), t)
    u, low = b.select(large, x, u), b.select(large, -1.0, low)
    result = log1p_sum(b, u, low, b.select(large, 1.0, 0.0))
    result = b.select(x == math.inf, x, result)
    return b.select(b.compare("ult", "slt", x, 1.0), math.nan, result)


def arctanh(b: Builder, x: Value) -> Value:
    """log(1 + 2 a / (1 - a)) / 2 for a = |x|."""
    a = b.abs(x)
    below, rest = b.two_sum(1.0, -a)
    q, lost = b.divide(a + a, below, y_low=rest)
    result = 0.5 * log1p_sum(b, q, lost)
    result = b.select(a == 1.0, math.inf, result)
    result = b.select(a < 2.0 ** -(b.mantissa // 2 + 4), a, result)
    return b.copysign(b.select(a > 1.0, math.nan, result), x)
