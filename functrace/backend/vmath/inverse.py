"""arcsin, arccos, arctan and arctan2. Results near pi and its fractions are summed in two parts."""

from __future__ import annotations

import math

from functrace.backend.vmath.coefficients import COEFFICIENTS
from functrace.backend.vmath.ir import Builder, Value

__all__ = ["arccos", "arcsin", "arctan", "arctan2", "common_scale"]

HALF_PI = (1.5707963267948966, 6.123233995736766e-17)
# pi/4 in two parts, the first with three bits to spare so that its small multiples are exact.
QUARTER_PI = (0.7853981633974483, 3.061616997868383e-17)


def parts(b: Builder, x: Value) -> tuple[Value, Value, Value]:
    """For a = |x|: whether a < 1/2; s = a or else sqrt((1 - a) / 2); p with arcsin(s) = s + s p."""
    a = b.abs(x)
    small = a < 0.5
    z = b.select(small, a * a, 0.5 - 0.5 * a)
    return small, b.select(small, a, b.sqrt(z)), z * b.horner(z, COEFFICIENTS["ARCSIN"][b.precision])


def arcsin(b: Builder, x: Value) -> Value:
    """pi/2 - 2 arcsin(sqrt((1 - |x|) / 2)) from 1/2 on."""
    small, s, p = parts(b, x)
    main = b.select(small, s, -2.0 * s)
    high, rest = b.fast_two_sum(b.select(small, 0.0, HALF_PI[0]), main)
    return b.copysign(high + (rest + b.mad(main, p, b.select(small, 0.0, HALF_PI[1]))), x)


def arccos(b: Builder, x: Value) -> Value:
    """pi/2 - arcsin(x), or 2 arcsin(sqrt((1 - |x|) / 2)) and what it leaves to pi."""
    small, s, p = parts(b, x)
    negative = x < 0.0
    main = b.select(small, -x, b.select(negative, -2.0 * s, 2.0 * s))
    base, low = (b.select(small, half, b.select(negative, 2.0 * half, 0.0)) for half in HALF_PI)
    high, rest = b.fast_two_sum(base, main)
    return high + (rest + b.mad(main, p, low))


def angle(b: Builder, low: Value, high: Value, swapped: Value, negative: Value | None = None) -> Value:
    """The arctangent of low / high, 0 <= low <= high; what it leaves to pi/2 if swapped; of that to pi if negative.

    Above tan(pi/8) that of (low - high) / (low + high) is added to pi/4, so that the quotient stays below tan(pi/8).
    """
    far = low > 0.41421356237309503 * high
    above, above_low = b.two_sum(low, -high)
    below, below_low = b.fast_two_sum(high, low)
    q, rest = b.divide(
        b.select(far, above, low),
        b.select(far, below, high),
        b.select(far, above_low, 0.0),
        b.select(far, below_low, 0.0),
    )
    z = q * q
    rest = b.mad(q * z, b.horner(z, COEFFICIENTS["ARCTAN"][b.precision]), rest)
    quarters = b.select(far, b.constant(1.0), 0.0)
    quarters = b.select(swapped, 2.0 - quarters, quarters)
    flip = swapped
    if negative is not None:
        quarters = b.select(negative, 4.0 - quarters, quarters)
        flip = swapped ^ negative
    total, lost = b.fast_two_sum(quarters * QUARTER_PI[0], b.select(flip, -q, q))
    return total + (lost + b.mad(quarters, QUARTER_PI[1], b.select(flip, -rest, rest)))


def arctan(b: Builder, x: Value) -> Value:
    a = b.minimum(b.abs(x), 1e18)  # from there on it is pi/2
    swapped = a > 1.0
    return b.copysign(angle(b, b.select(swapped, 1.0, a), b.select(swapped, a, 1.0), swapped), x)


def common_scale(b: Builder, high: Value, limit: int, up: int, down: int) -> Value:
    """A power of two to multiply by: 2**-down above 2**limit, 2**up below 2**-limit, 1 between."""
    one = b.select(high > 2.0**limit, 2.0**-down, b.constant(1.0))
    return b.select(high < 2.0**-limit, 2.0**up, one)


def arctan2(b: Builder, y: Value, x: Value) -> Value:
    ay, ax = b.abs(y), b.abs(x)
    swapped = ay > ax
    high, low = b.select(swapped, ay, ax), b.select(swapped, ax, ay)
    # Infinities: pi/4 where both are, else 0 against 1. Zeros: 0 against 1.
    infinite = high == math.inf
    low = b.select(infinite, b.select(low == math.inf, b.constant(1.0), 0.0), low)
    high = b.select(infinite, 1.0, high)
    high = b.select(high == 0.0, 1.0, high)
    if b.precision == 53:
        factor = common_scale(b, high, 900, 200, 100)
        high, low = high * factor, low * factor
    result = angle(b, low, high, swapped, b.signbit(x))
    result = b.copysign(result, y)
    return b.select(b.compare("uno", "", x, y), x + y, result)
