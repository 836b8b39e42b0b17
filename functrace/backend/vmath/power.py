"""pow, cbrt and hypot."""

from __future__ import annotations

import math

from functrace.backend.vmath.coefficients import COEFFICIENTS
from functrace.backend.vmath.exponential import LN2, RANGE, clamp, exp_sum
from functrace.backend.vmath.inverse import common_scale
from functrace.backend.vmath.ir import Builder, Value
from functrace.backend.vmath.logarithm import normalize

__all__ = ["cbrt", "hypot", "power"]

TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)


def log_precise(b: Builder, a: Value) -> tuple[Value, Value]:
    """log(a) in two parts, to about 12 bits more than a float has, for a > 0."""
    k, m = normalize(b, a)
    f = m - 1.0
    below, lost = b.two_sum(2.0, f)
    s, low = b.fast_two_sum(*b.divide(f, below, y_low=lost))
    z, z_low = b.two_product(s, s)
    z_low = b.mad(s + s, low, z_low)
    p, p_low = b.fast_two_sum(TWO_THIRDS[0], z * b.horner(z, COEFFICIENTS["LOG_PRECISE"][b.precision]))
    p_low = p_low + TWO_THIRDS[1]
    w, w_low = b.two_product(z, p)
    w_low = w_low + b.mad(z, p_low, z_low * p)
    v, v_low = b.two_product(s, w)
    v_low = v_low + b.mad(s, w_low, low * w)
    total, rest = b.fast_two_sum(s + s, v)
    rest = rest + (low + low + v_low)
    high, lost = b.fast_two_sum(k * LN2[64][0], total)
    return b.fast_two_sum(high, lost + b.mad(k, LN2[64][1], rest))


def is_integer(b: Builder, h: Value) -> Value:
    """Where h >= 0 has no fraction: from 2**52 on no number has."""
    unit = 2.0**b.mantissa
    return b.select(h < unit, (h + unit) - unit, h) == h


def power(b: Builder, x: Value, y: Value) -> Value:
    """exp(y log|x|) with the logarithm in two parts, then the cases of IEEE 754."""
    a, h = b.abs(x), b.abs(y)
    high, low = log_precise(b, a)
    exponent = clamp(b, y, 2.0**80, -(2.0**80))  # there every base but 1 overflows or gives 0
    e, e_low = b.two_product(exponent, high)
    e_low = b.mad(exponent, low, e_low)
    e_low = b.select(b.abs(e) > 1000.0, 0.0, e_low)
    result = exp_sum(b, clamp(b, e, *RANGE[b.precision]), e_low)

    zero, infinite = a == 0.0, a == math.inf
    extreme = b.select(zero ^ (y > 0.0), b.constant(math.inf), 0.0)
    result = b.select(zero | infinite, extreme, result)
    whole = is_integer(b, h)
    odd = whole & ~is_integer(b, 0.5 * h)
    result = b.select(b.signbit(x) & odd, -result, result)
    result = b.select((x < 0.0) & ~(whole | infinite), math.nan, result)
    result = b.select(b.compare("uno", "", x, y), math.nan, result)
    return b.select((x == 1.0) | (y == 0.0), 1.0, result)


def cbrt(b: Builder, x: Value) -> Value:
    """Of 2**(3 k) m: two steps of a third-order iteration for m**(-1/3), without divisions, then one of Newton's."""
    a = b.abs(x)
    k, m = normalize(b, a)
    third, bits = b.round(k, 1.0 / 3.0)
    m = m * b.power_of_two(b.round(b.mad(third, -3.0, k))[1])
    r = b.horner(m, COEFFICIENTS["CBRT"][b.precision])
    for _ in range(2 if b.precision == 53 else 1):
        h = b.mad(-(m * r), r * r, 1.0)
        r = b.mad(r * h, b.mad(h, 2.0 / 9.0, 1.0 / 3.0), r)
    square = r * r
    root = m * square
    high, low = b.two_product(root, root)
    cube, cube_low = b.two_product(high, root)
    rest = (m - cube) - b.mad(low, root, cube_low)
    root = b.mad(rest * square, 1.0 / 3.0, root) * b.power_of_two(bits)
    return b.select((a > 0.0) & (a < math.inf), b.copysign(root, x), x)


def hypot(b: Builder, x: Value, y: Value) -> Value:
    ax, ay = b.abs(x), b.abs(y)
    swapped = ay > ax
    high, low = b.select(swapped, ay, ax), b.select(swapped, ax, ay)
    if b.precision == 53:
        factor = common_scale(b, high, 500, 600, 600)
        back = common_scale(b, high, 500, -600, -600)
        high, low = high * factor, low * factor
    result = b.sqrt(b.mad(high, high, low * low))
    if b.precision == 53:
        result = result * back
    result = b.select(b.compare("uno", "", x, y), x + y, result)
    return b.select((ax == math.inf) | (ay == math.inf), math.inf, result)
