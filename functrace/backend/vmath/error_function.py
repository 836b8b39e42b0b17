"""erf and erfc: a polynomial in x**2 for small |x|, exp(-x**2) times a function near constant for the others."""

from __future__ import annotations

from functrace.backend.vmath.coefficients import COEFFICIENTS
from functrace.backend.vmath.exponential import reduce
from functrace.backend.vmath.ir import Builder, Value

__all__ = ["erf", "erfc"]


def excess(b: Builder, a: Value) -> Value:
    """p with erf(a) = a + a p, for |a| < 1."""
    return b.estrin(a * a, COEFFICIENTS["ERF"][b.precision])


def complement(b: Builder, a: Value) -> Value:
    """erfc(a) for a >= 1/2, as exp(-a**2) times a polynomial in (a - 4) / (a + 4), over 1 + 2 a."""
    a = b.maximum(b.minimum(a, 28.0 if b.precision == 53 else 12.0), 0.5)
    q = (a - 4.0) / (a + 4.0)
    p, p_low = b.fast_two_sum(1.25, b.estrin(q, COEFFICIENTS["ERFC"][b.precision]))
    square, low = b.two_product(a, a)
    n, r, t = reduce(b, -square, -low)
    e, e_low = b.fast_two_sum(1.0, r)
    e_low = e_low + t
    product, low = b.two_product(e, p)
    low = b.mad(e, p_low, b.mad(e_low, p, low))
    below, below_low = b.two_sum(1.0, a + a)
    v, rest = b.divide(product, below, low, below_low)
    return b.scale(v + rest, n)


def erf(b: Builder, x: Value) -> Value:
    a = b.abs(x)
    small = b.minimum(a, 1.0)
    result = b.select(a < 1.0, b.mad(small, excess(b, small), small), 1.0 - complement(b, a))
    return b.copysign(b.select(a < b.tiny, b.mad(a, 0.1283791670955126, a), result), x)


def erfc(b: Builder, x: Value) -> Value:
    a = b.abs(x)
    high, rest = b.fast_two_sum(1.0, -x)
    near = high + b.mad(-x, excess(b, x), rest)
    far = complement(b, a)
    return b.select(a < 0.5, near, b.select(x < 0.0, 2.0 - far, far))
