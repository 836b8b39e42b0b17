"""exp, exp2, expm1 and sigmoid: x = n ln 2 + r with |r| <= ln(2) / 2, then a polynomial for exp(r) - 1 - r."""

from __future__ import annotations

from typing import NamedTuple

from functrace.backend.vmath.coefficients import COEFFICIENTS
from functrace.backend.vmath.ir import Builder, Value

__all__ = ["LN2", "LOG2_E", "RANGE", "clamp", "exp", "exp2", "exp_sum", "expm1", "reduce", "sigmoid"]

LOG2_E = 1.4426950408889634
# ln 2 in two parts, the first with so few bits that its product with any exponent is exact.
LN2 = {64: (0.6931471803691238, 1.9082149292705877e-10), 32: (0.693145751953125, 1.4286068203094173e-06)}
# The same with all bits in the first part.
LN2_WHOLE = {64: (0.6931471805599453, 2.3190468138462996e-17), 32: (0.6931471824645996, -1.904654323148236e-09)}
# Above the first exp overflows, below the second it is 0.
RANGE = {53: (710.0, -746.0), 24: (89.0, -104.0)}


class Reduced(NamedTuple):
    """exp(x) = 2**n (1 + r + t): n as a float, |t| much less than |r| but near 0."""

    n: Value
    r: Value
    t: Value


def reduce(b: Builder, x: Value, low: Value | None = None, *, exact: bool = False) -> Reduced:
    """Reduction of x + low; `exact` keeps what rounding r loses."""
    n, _ = b.round(x, LOG2_E)
    high, rest = LN2[b.bits]
    r = b.mad(n, -high, x)
    if low is None and not exact:
        r = b.mad(n, -rest, r)
        return Reduced(n, r, r * r * b.horner(r, COEFFICIENTS["EXP"][b.precision]))
    lost = n * -rest if low is None else b.mad(n, -rest, low)
    r, lost = b.fast_two_sum(r, lost)  # r is 0 or at least as large: it is a multiple of x's last bit
    t = b.mad(r * r, b.horner(r, COEFFICIENTS["EXP"][b.precision]), b.mad(lost, r, lost))
    return Reduced(n, r, t)


def clamp(b: Builder, x: Value, high: float, low: float) -> Value:
    return b.maximum(b.minimum(x, high), low)


def exp(b: Builder, x: Value) -> Value:
    n, r, t = reduce(b, clamp(b, x, *RANGE[b.precision]))
    return b.scale(r + t + 1.0, n)


def exp_sum(b: Builder, high: Value, low: Value) -> Value:
    """exp(high + low), |low| at most an ulp of high, which is clamped by the caller."""
    n, r, t = reduce(b, high, low)
    one, rest = b.fast_two_sum(1.0, r)
    return b.scale(one + (rest + t), n)


def exp2(b: Builder, x: Value) -> Value:
    x = clamp(b, x, *((1025.0, -1080.0) if b.precision == 53 else (129.0, -152.0)))
    n, _ = b.round(x)
    f = x - n
    high, low = LN2_WHOLE[b.bits]
    r, lost = b.two_product(f, high)
    t = b.mad(r * r, b.horner(r, COEFFICIENTS["EXP"][b.precision]), b.mad(f, low, lost))
    one, rest = b.fast_two_sum(1.0, r)
    return b.scale(one + (rest + t), n)


def expm1(b: Builder, x: Value) -> Value:
    """2**n (1 - 2**-n + r + t)."""
    x_clamped = clamp(b, x, RANGE[b.precision][0], -40.0 if b.precision == 53 else -20.0)
    n, r, t = reduce(b, x_clamped, exact=True)
    # 2**-n no longer matters where it is below the precision of 1.
    one = 1.0 - b.power_of_two(b.round(-b.minimum(n, b.mantissa + 8.0))[1])
    high, rest = b.fast_two_sum(one, r)  # one is 0 or at least 1/2
    return b.copysign(b.scale(high + (rest + t), n), x)


def sigmoid(b: Builder, x: Value) -> Value:
    """1 / (1 + exp(-x)), from exp(-|x|), which cannot overflow."""
    n, r, t = reduce(b, b.maximum(-b.abs(x), RANGE[b.precision][1]))
    e = b.scale(r + t + 1.0, n)
    below, rest = b.fast_two_sum(1.0, e)
    q, lost = b.divide(b.select(x < 0.0, e, 1.0), below, y_low=rest)
    return q + lost
