"""How elementwise primitives are compiled: code for one element, in terms of the emitter; see `core.lowering`.

`e` is the emitter, x, y ... are values. Where integers and floats differ, the code asks for the dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.ir import Literal
from functrace.core.lowering import Elementwise, function

__all__ = ["code", "function"]

_FUNCTION = 20.0  # the price of a function of the vector library
_DIVISION = 4.0


def _floats(*avals: Any, **params: Any) -> bool:
    return all(a.dtype.kind == "f" for a in avals)


def _not_booleans(*avals: Any, **params: Any) -> bool:
    return all(a.dtype.kind != "b" for a in avals)


def _real(*avals: Any, **params: Any) -> bool:
    return all(a.dtype.kind in "fiub" for a in avals)


def _signed_or_not(*avals: Any, **params: Any) -> bool:
    return all(a.dtype.kind in "fiu" for a in avals)


def _inexact(*avals: Any, **params: Any) -> bool:
    return all(a.dtype.kind in "fc" for a in avals)


def _integers(*avals: Any, **params: Any) -> bool:
    return all(a.dtype.kind in "iub" for a in avals)


def code(text: Callable[..., Any], weight: float = 1.0, suits: Callable[..., bool] | None = None) -> Elementwise:
    """An elementwise lowering."""
    return Elementwise(code=text, weight=weight) if suits is None else Elementwise(suits, text, weight)


# arithmetic

add = code(lambda e, x, y: x + y)
sub = code(lambda e, x, y: x - y, suits=_not_booleans)
mul = code(lambda e, x, y: x * y)
neg = code(lambda e, x: -x, suits=_not_booleans)
div = code(lambda e, x, y: x / y, _DIVISION, _floats)
weighted_sum = code(lambda e, a, b, x, y: a * x + b * y, 3.0, _inexact)
same = code(lambda e, x: x, 0.0)
square = code(lambda e, x: x * x, suits=_not_booleans)
reciprocal = code(lambda e, x: 1.0 / x, _DIVISION, _floats)
sqrt = code(lambda e, x: e.intrinsic("sqrt", x), _DIVISION, _floats)
select = code(lambda e, mask, x, y: e.select(mask, x, y))


def _convertible(x: Any, *, dtype: np.dtype) -> bool:
    exact = dtype.name != "float16" or x.dtype.name not in ("float64", "complex128", "complex64")
    return all(d.kind in "fiubc" and d.itemsize <= 16 for d in (dtype, x.dtype)) and exact


convert = code(lambda e, x, *, dtype: e.convert(x, dtype), suits=_convertible)


def _power(e: Any, x: Any, y: Any) -> Any:
    n = y.constant
    if n is not None and float(n).is_integer() and 0 <= n <= 4:
        if n == 0:
            return e.constant(1, x.dtype, x.lanes)
        square = x * x if n > 1 else x
        return {1: lambda: x, 2: lambda: square, 3: lambda: square * x, 4: lambda: square * square}[int(n)]()
    if n is not None and n == 0.5:
        # sqrt, but for the zeros and infinities with a sign that powers do not have
        root = e.intrinsic("sqrt", x)
        return e.select(x == -math.inf, math.inf, root + 0.0)
    if n is not None and n == -1:
        return 1.0 / x
    return e.math("pow", x, y)


def _is_product(operands: Sequence[Any]) -> bool:
    """Whether an exponent is a number for which a power is a product or a root."""
    exponent = operands[1]
    return isinstance(exponent, Literal) and exponent.val in (-1, 0, 0.5, 1, 2, 3, 4)


power = Elementwise(_floats, _power, 2 * _FUNCTION, _is_product)


# extrema, signs, rounding

maximum = code(lambda e, x, y: e.combine("max", x, y), 2.0, _real)
minimum = code(lambda e, x, y: e.combine("min", x, y), 2.0, _real)
fmax = code(lambda e, x, y: e.combine("fmax", x, y), 2.0, _real)
fmin = code(lambda e, x, y: e.combine("fmin", x, y), 2.0, _real)


def _abs(e: Any, x: Any) -> Any:
    if x.dtype.kind == "f":
        return e.intrinsic("fabs", x)
    return e.select(x < 0, -x, x) if x.dtype.kind == "i" else x


def _sign(e: Any, x: Any) -> Any:
    one = e.constant(1, x.dtype, x.lanes)
    below = e.select(x < 0, -1, e.constant(0, x.dtype, x.lanes)) if x.dtype.kind != "u" else one * 0
    found = e.select(x > 0, one, below)
    return e.select(x != x, x, found) if x.dtype.kind == "f" else found


abs_ = code(_abs, suits=_real)
sign = code(_sign, 2.0, _signed_or_not)
floor = code(lambda e, x: e.intrinsic("floor", x), suits=_floats)
ceil = code(lambda e, x: e.intrinsic("ceil", x), suits=_floats)
trunc = code(lambda e, x: e.intrinsic("trunc", x), suits=_floats)
rint = code(lambda e, x: e.intrinsic("rint", x), suits=_floats)
copysign = code(lambda e, x, y: e.intrinsic("copysign", x, y), suits=_floats)

# comparisons, logic, bits

equal = code(lambda e, x, y: x == y)
not_equal = code(lambda e, x, y: x != y)
less = code(lambda e, x, y: x < y, suits=_real)
less_equal = code(lambda e, x, y: x <= y, suits=_real)
greater = code(lambda e, x, y: x > y, suits=_real)
greater_equal = code(lambda e, x, y: x >= y, suits=_real)


def _truth(e: Any, x: Any) -> Any:
    return x if x.dtype.kind == "b" else x != 0


logical_and = code(lambda e, x, y: _truth(e, x) & _truth(e, y), suits=_real)
logical_or = code(lambda e, x, y: _truth(e, x) | _truth(e, y), suits=_real)
logical_xor = code(lambda e, x, y: _truth(e, x) ^ _truth(e, y), suits=_real)
logical_not = code(lambda e, x: ~_truth(e, x), suits=_real)
isnan = code(lambda e, x: x != x)
isfinite = code(lambda e, x: abs_.code(e, x) < math.inf if x.dtype.kind == "f" else x == x, suits=_real)
isinf = code(lambda e, x: abs_.code(e, x) == math.inf if x.dtype.kind == "f" else x != x, suits=_real)


def _signbit(e: Any, x: Any) -> Any:
    return e.bits(x, np.dtype(f"int{8 * x.dtype.itemsize}")) < 0


signbit = code(_signbit, suits=_floats)
bitwise_and = code(lambda e, x, y: x & y, suits=_integers)
bitwise_or = code(lambda e, x, y: x | y, suits=_integers)
bitwise_xor = code(lambda e, x, y: x ^ y, suits=_integers)
bitwise_not = code(lambda e, x: ~x, suits=_integers)


def _shifted(direction: str) -> Callable[..., Any]:
    """A shift as NumPy has it: by too much it gives 0, or the sign."""

    def shift(e: Any, x: Any, y: Any) -> Any:
        bits = 8 * x.dtype.itemsize
        inside = (y >= 0) & (y < bits) if y.dtype.kind == "i" else y < bits
        amount = e.select(inside, y, 0)
        if direction == "left":
            return e.select(inside, e.shift("shl", x, amount), 0)
        signed = x.dtype.kind == "i"
        sign = e.shift("ashr", x, e.constant(bits - 1, x.dtype, x.lanes)) if signed else e.constant(0, x.dtype, x.lanes)
        return e.select(inside, e.shift("ashr" if signed else "lshr", x, amount), sign)

    return shift


def _integers_only(*avals: Any) -> bool:
    return all(a.dtype.kind in "iu" for a in avals)


left_shift = code(_shifted("left"), 3.0, _integers_only)
right_shift = code(_shifted("right"), 3.0, _integers_only)

# functions of the vector library

(
    exp, exp2, expm1, log, log2, log10, log1p, sin, cos, tan, tanh, sinh, cosh, arcsin, arccos, arctan, arcsinh,
    arccosh, arctanh, erf, erfc, cbrt,
) = (
    code(lambda e, x, name=name: e.math(name, x), _FUNCTION, _floats)
    for name in (
        "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "tanh", "sinh", "cosh", "arcsin",
        "arccos", "arctan", "arcsinh", "arccosh", "arctanh", "erf", "erfc", "cbrt",
    )
)  # fmt: skip
arctan2 = code(lambda e, x, y: e.math("arctan2", x, y), _FUNCTION, _floats)
hypot = code(lambda e, x, y: e.math("hypot", x, y), _FUNCTION, _floats)
expit = code(lambda e, x: e.math("sigmoid", x), _FUNCTION, _floats)


def _times(e: Any, x: Any, number: float) -> Any:
    """A product that is rounded before it is added to."""
    return e.plain("mul", x, e.constant(number, x.dtype, x.lanes))


def _logaddexp(exponential: str, logarithm: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def combined(e: Any, x: Any, y: Any) -> Any:
        larger = e.combine("max", x, y)
        difference = abs_.code(e, x - y)
        found = larger + logarithm(e, e.math(exponential, -difference))
        # Two equal infinities differ by nothing that could be subtracted.
        return e.select(x == y, x + logarithm(e, e.constant(1, x.dtype, x.lanes)), found)

    return combined


logaddexp = code(_logaddexp("exp", lambda e, x: e.math("log1p", x)), 2 * _FUNCTION, _floats)
logaddexp2 = code(
    _logaddexp("exp2", lambda e, x: _times(e, e.math("log1p", x), 1 / math.log(2))), 2 * _FUNCTION, _floats
)
