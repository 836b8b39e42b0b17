"""How quotients, remainders, powers of integers and the parts of floats are compiled; see `core.lowering`.

All as NumPy has them: an integer divided by 0 is 0, remainders have the sign of the divisor, the quotient of the least
integer by -1 is itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.core.lowering import Elementwise

__all__ = [
    "bitwise_count", "exponent", "floor_divide", "fmod", "gcd", "integer_power", "lcm", "ldexp", "nextafter",
    "remainder",
]  # fmt: skip

_QUOTIENT = 12.0  # the price of a quotient of integers, or of an exact remainder


def _integers(*avals: Any, **params: Any) -> bool:
    return all(a.dtype.kind in "iu" for a in avals)


def _floats(*avals: Any, **params: Any) -> bool:
    return all(a.dtype.name in ("float32", "float64") for a in avals)


def _real_numbers(*avals: Any, **params: Any) -> bool:
    return _integers(*avals) or _floats(*avals)


# quotients and remainders


def _fraction(e: Any, x: Any, y: Any) -> tuple[Any, Any, Any, Any]:
    """The quotient and remainder of C, without divisions that trap; where y is 0, and where it is -1."""
    x, y = e.matched(x, y)
    zero = y == 0
    minus = (y == -1) if x.dtype.kind == "i" else None
    unsafe = zero if minus is None else zero | minus
    safe = e.select(unsafe, 1, y)
    quotient = e.quotient(x, safe)
    rest = x - quotient * safe
    return quotient, rest, zero, minus


def _floor_divide(e: Any, x: Any, y: Any) -> Any:
    x, y = e.matched(x, y)
    if x.dtype.kind == "f":
        return _floor_quotient(e, x, y)
    quotient, rest, zero, minus = _fraction(e, x, y)
    if minus is not None:
        below = (rest != 0) & ((rest < 0) ^ (y < 0))
        quotient = e.select(minus, -x, e.select(below, quotient - 1, quotient))
    return e.select(zero, 0, quotient)


def _floor_quotient(e: Any, x: Any, y: Any) -> Any:
    """By the exact remainder, so that the quotient is not rounded up to the next integer."""
    direct = x / y
    rest = e.remainder(x, y)
    quotient = (x - rest) / y
    quotient = e.select((rest != 0.0) & ((rest < 0.0) ^ (y < 0.0)), quotient - 1.0, quotient)
    rounded = e.intrinsic("floor", quotient)
    rounded = e.select(quotient - rounded > 0.5, rounded + 1.0, rounded)
    zero = e.intrinsic("copysign", e.constant(0, x.dtype, x.lanes), direct)
    return e.select(y == 0.0, direct, e.select(quotient == 0.0, zero, rounded))


def _remainder(e: Any, x: Any, y: Any) -> Any:
    x, y = e.matched(x, y)
    if x.dtype.kind == "f":
        rest = e.remainder(x, y)
        moved = e.select((rest < 0.0) ^ (y < 0.0), rest + y, rest)
        return e.select(rest == 0.0, e.intrinsic("copysign", rest, y), e.select(y == 0.0, rest, moved))
    _, rest, zero, minus = _fraction(e, x, y)
    if minus is not None:
        rest = e.select((rest != 0) & ((rest < 0) ^ (y < 0)), rest + y, rest)
        zero = zero | minus
    return e.select(zero, 0, rest)


def _fmod(e: Any, x: Any, y: Any) -> Any:
    x, y = e.matched(x, y)
    if x.dtype.kind == "f":
        return e.remainder(x, y)
    _, rest, zero, minus = _fraction(e, x, y)
    return e.select(zero if minus is None else zero | minus, 0, rest)


floor_divide = Elementwise(_real_numbers, _floor_divide, _QUOTIENT)
remainder = Elementwise(_real_numbers, _remainder, _QUOTIENT)
fmod = Elementwise(_real_numbers, _fmod, _QUOTIENT)


# integers


def _integer_power(e: Any, x: Any, y: Any) -> Any:
    """By squaring. A negative exponent is refused, so that NumPy says so."""
    x, y = e.matched(x, y)
    n = y.constant
    if n is not None and 0 <= n <= 4:
        square = x * x
        return [lambda: e.constant(1, x.dtype, x.lanes), lambda: x, lambda: square, lambda: square * x,
                lambda: square * square][int(n)]()  # fmt: skip
    if y.dtype.kind == "i":
        e.refuse(y < 0)
        y = e.select(y < 0, 0, y)

    def step(state: list[Any]) -> tuple[list[Any], Any]:
        total, factor, left = state
        total = e.select((left & 1) != 0, total * factor, total)
        left = e.shift("lshr", left, 1)
        return [total, factor * factor, left], left != 0

    one = e.constant(1, x.dtype, x.lanes)
    return e.repeated([one, x, y], step)[0]


def _magnitude(e: Any, x: Any) -> Any:
    return e.select(x < 0, -x, x) if x.dtype.kind == "i" else x


def _euclid(e: Any, x: Any, y: Any) -> Any:
    """The greatest common divisor, of which the least integer has none but itself."""

    def step(state: list[Any]) -> tuple[list[Any], Any]:
        larger, smaller = state
        rest = e.remainder(larger, e.select(smaller == 0, 1, smaller))
        found = smaller == 0
        return [e.select(found, larger, smaller), e.select(found, 0, rest)], ~found & (rest != 0)

    unsigned = np.dtype(f"uint{8 * x.dtype.itemsize}")
    dtype = x.dtype
    x, y = (e.convert(_magnitude(e, v), unsigned) for v in (x, y))
    return e.convert(e.repeated([x, y], step)[0], dtype)


def _gcd(e: Any, x: Any, y: Any) -> Any:
    return _euclid(e, *e.matched(x, y))


def _lcm(e: Any, x: Any, y: Any) -> Any:
    x, y = e.matched(x, y)
    common = _euclid(e, x, y)
    x, y = _magnitude(e, x), _magnitude(e, y)
    nothing = common == 0
    unsigned = np.dtype(f"uint{8 * x.dtype.itemsize}")
    part = e.quotient(e.convert(x, unsigned), e.convert(e.select(nothing, 1, common), unsigned))
    return e.select(nothing, 0, e.convert(part, x.dtype) * y)


def _bitwise_count(e: Any, x: Any) -> Any:
    return e.convert(e.intrinsic("ctpop", _magnitude(e, x)), np.dtype(np.uint8))


integer_power = Elementwise(_integers, _integer_power, 40.0)
gcd = Elementwise(_integers, _gcd, 100.0)
lcm = Elementwise(_integers, _lcm, 100.0)
bitwise_count = Elementwise(_integers, _bitwise_count, 2.0)


# the parts of floats


def _by_size(name: str) -> Callable[..., str]:
    """The name of C's function for doubles or floats."""
    return lambda x: f"c:{name}" if x.dtype.itemsize == 8 else f"c:{name}f"


def _nextafter(e: Any, x: Any, y: Any) -> Any:
    x, y = e.matched(x, y)
    return e.outside(_by_size("nextafter")(x), x, y)


def _ldexp(e: Any, x: Any, n: Any) -> Any:
    bound = 5000
    n = e.convert(n, np.dtype(np.int64))
    n = e.select(n > bound, bound, e.select(n < -bound, -bound, n))
    return e.outside(_by_size("ldexp")(x), x, e.convert(n, np.dtype(np.int32)))


def _exponent(e: Any, x: Any) -> Any:
    """That of a fraction in [1/2, 1): one more than the logarithm rounded down; 0 for 0, infinities and NaN."""
    some = (x != 0.0) & (e.intrinsic("fabs", x) < np.inf)
    safe = e.select(some, x, 1.0)
    found = e.outside(_by_size("ilogb")(x), safe, result=np.dtype(np.int32))
    return e.select(some, found + 1, 0)


nextafter = Elementwise(_floats, _nextafter, 40.0)
ldexp = Elementwise(lambda x, n: x.dtype.name in ("float32", "float64") and n.dtype.kind in "iu", _ldexp, 40.0)
exponent = Elementwise(_floats, _exponent, 40.0)
