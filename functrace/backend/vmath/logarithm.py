"""log, log2, log10, log1p: x = 2**k m with m around 1; s = f / (2 + f) for m = 1 + f; a polynomial in s**2."""

from __future__ import annotations

import math
from typing import NamedTuple

from functrace.backend.vmath.coefficients import COEFFICIENTS
from functrace.backend.vmath.exponential import LN2
from functrace.backend.vmath.ir import Builder, Number, Value

__all__ = ["Normal", "log", "log1p", "log1p_sum", "log2", "log10", "normalize"]

HALF_ROOT_BITS = {64: 0x3FE6A09E667F3BCD, 32: 0x3F3504F3}  # sqrt(1/2): m lies between it and sqrt(2)
# 1 / ln 2, 1 / ln 10 and log10(2), each in two parts; that of log10(2) leaves room for exact multiples.
LOG2_E = {64: (1.4426950408889634, 2.0355273740931033e-17), 32: (1.4426950216293335, 1.9259629911266175e-08)}
LOG10_E = {64: (0.4342944819032518, 1.098319650216765e-17), 32: (0.4342944920063019, -1.0103050118726031e-08)}
LOG10_2 = {64: (0.30102999566406652, -8.5323443170571066e-14), 32: (0.30102920532226562, 7.9034151557301e-07)}


class Normal(NamedTuple):
    """A positive number 2**k m."""

    k: Value
    m: Value


def normalize(b: Builder, x: Value, *, subnormal: bool = True) -> Normal:
    """x = 2**k m with m between sqrt(1/2) and sqrt(2)"""
    extra: Number = 0.0
    if subnormal and not b.wide:
        small = x < b.tiny
        x = b.select(small, x * 2.0 ** (b.mantissa + 2), x)
        extra = b.select(small, b.mantissa + 2.0, 0.0)
    bits = b.bitcast(x)
    # The exponent relative to sqrt(1/2)'s, plus the bias so that it stays positive; it becomes a float by being put
    # into the low bits of 2**mantissa.
    offset = (b.bias << b.mantissa) - HALF_ROOT_BITS[b.bits]
    biased = (bits + offset) >> b.mantissa
    unit = 2.0**b.mantissa
    k = b.bitcast(biased | b.bitcast(b.constant(unit))) - (unit + b.bias)
    m = b.bitcast(bits - ((biased - b.bias) << b.mantissa))
    return Normal(k - extra if isinstance(extra, Value) else k, m)


def tail(b: Builder, f: Value) -> Value:
    """log(1 + f) - f."""
    s = f / (f + 2.0)
    z = s * s
    return -(s * (f - z * b.horner(z, COEFFICIENTS["LOG"][b.precision])))


def special(b: Builder, x: Value, result: Value) -> Value:
    """What every logarithm gives for 0, negative numbers, infinity and NaN."""
    result = b.select(x == math.inf, x, result)
    result = b.select(x == 0.0, -math.inf, result)
    return b.select(b.compare("ult", "slt", x, 0.0), math.nan, result)


def log(b: Builder, x: Value) -> Value:
    k, m = normalize(b, x)
    f = m - 1.0
    high, low = LN2[b.bits]
    return special(b, x, b.mad(k, high, f + b.mad(k, low, tail(b, f))))


def log_in_base(b: Builder, x: Value, scale: tuple[float, float], two: tuple[float, float]) -> Value:
    """log(x) times `scale`, where log(2) times `scale` is `two`."""
    k, m = normalize(b, x)
    f = m - 1.0
    whole, part = b.two_product(f, scale[0])
    part = part + b.mad(tail(b, f), scale[0], f * scale[1])
    if two[1]:
        part = b.mad(k, two[1], part)
    total, rest = b.two_sum(k * two[0], whole)
    return special(b, x, total + (rest + part))


def log2(b: Builder, x: Value) -> Value:
    return log_in_base(b, x, LOG2_E[b.bits], (1.0, 0.0))


def log10(b: Builder, x: Value) -> Value:
    return log_in_base(b, x, LOG10_E[b.bits], LOG10_2[b.bits])


def log1p_sum(b: Builder, u: Value, low: Value | None = None, doublings: Number = 0.0) -> Value:
    """log((1 + u + low) 2**doublings) for u > -1 finite, |low| at most an ulp of u."""
    v, rest = b.two_sum(1.0, u, always=True)
    if low is not None:
        rest = rest + low
    k, m = normalize(b, v, subnormal=False)
    # The rest is scaled like v. Where its exponent would underflow it no longer matters.
    exponent = b.maximum(-k, 2.0 - b.bias)
    rest = rest * b.power_of_two(b.round(exponent)[1])
    f, lost = b.two_sum(m - 1.0, rest)
    k = k + doublings
    ln2, ln2_low = LN2[b.bits]
    return b.mad(k, ln2, f + (b.mad(k, ln2_low, tail(b, f)) + lost))


def log1p(b: Builder, x: Value) -> Value:
    result = log1p_sum(b, x)
    result = b.select(x == math.inf, x, result)
    result = b.select(x == -1.0, -math.inf, result)
    result = b.select(x == 0.0, x, result)
    return b.select(b.compare("ult", "slt", x, -1.0), math.nan, result)
