"""How the parts of complex numbers, and what is made of them, are compiled; see `core.lowering`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from functrace.core.lowering import Elementwise

__all__ = ["abs_", "complex_", "conj", "cos", "cosh", "div", "exp", "imag", "real", "reciprocal", "sin", "sinh"]


def _complex(*avals: Any, **params: Any) -> bool:
    return all(a.dtype.kind == "c" for a in avals)


def _numbers(*avals: Any, **params: Any) -> bool:
    return all(a.dtype.kind in "fiub" for a in avals)


def _imag(e: Any, x: Any) -> Any:
    return x.parts[1] if x.parts is not None else e.constant(0, x.dtype, x.lanes)


def _conj(e: Any, x: Any) -> Any:
    return x if x.parts is None else e.pair(x.parts[0], -x.parts[1])


def _reciprocal(e: Any, x: Any) -> Any:
    """As NumPy has it, with its signs of zeros."""
    re, im = x.parts
    wide = e.intrinsic("fabs", im) <= e.intrinsic("fabs", re)
    large, small = e.select(wide, re, im), e.select(wide, im, re)
    ratio = small / large
    size = e.plain("add", e.plain("mul", small, ratio), large)
    one = e.constant(1, re.dtype, re.lanes)
    upper, lower = e.select(wide, one, ratio), e.select(wide, ratio, one)
    return e.pair(upper / size, -lower / size)


_LARGEST = {8: 700.0, 4: 85.0}  # by the bytes of a part: exponentials of these do not overflow
_FAR = 1e5  # angles up to here


def _usual(e: Any, exponent: Any, angle: Any) -> Any:
    """Where no part overflows or is at a special value."""
    return (e.intrinsic("fabs", exponent) < _LARGEST[exponent.dtype.itemsize]) & (e.intrinsic("fabs", angle) < _FAR)


def _circular(name: str, exponent: int, parts: Callable[..., tuple[Any, Any]]) -> Elementwise:
    """A function made of circular functions of one part and exponentials of the other, by C's function elsewhere."""

    def function(e: Any, x: Any) -> Any:
        grown, angle = x.parts[exponent], x.parts[1 - exponent]
        usual = _usual(e, grown, angle)
        safe, turned = e.select(usual, grown, 0.0), e.select(usual, angle, 0.0)
        return e.settled(usual, e.pair(*parts(e, safe, turned)), lambda: e.complex_outside(f"c:{name}", x))

    return Elementwise(_complex, function, 60.0)


def _exp(e: Any, x: Any, y: Any) -> tuple[Any, Any]:
    size = e.math("exp", x)
    return size * e.math("cos", y), size * e.math("sin", y)


def _sinh(e: Any, x: Any, y: Any) -> tuple[Any, Any]:
    return e.math("sinh", x) * e.math("cos", y), e.math("cosh", x) * e.math("sin", y)


def _cosh(e: Any, x: Any, y: Any) -> tuple[Any, Any]:
    return e.math("cosh", x) * e.math("cos", y), e.math("sinh", x) * e.math("sin", y)


def _sin(e: Any, y: Any, x: Any) -> tuple[Any, Any]:
    return e.math("cosh", y) * e.math("sin", x), e.math("sinh", y) * e.math("cos", x)


def _cos(e: Any, y: Any, x: Any) -> tuple[Any, Any]:
    return e.math("cosh", y) * e.math("cos", x), -(e.math("sinh", y) * e.math("sin", x))


exp, sinh, cosh = _circular("cexp", 0, _exp), _circular("csinh", 0, _sinh), _circular("ccosh", 0, _cosh)
sin, cos = _circular("csin", 1, _sin), _circular("ccos", 1, _cos)
real = Elementwise(code=lambda e, x: x if x.parts is None else x.parts[0], weight=0.0)
imag = Elementwise(code=_imag, weight=0.0)
conj = Elementwise(lambda x: x.dtype.kind in "fiuc", _conj, 1.0)
complex_ = Elementwise(
    lambda x, y: x.dtype.name in ("float32", "float64") and x.dtype == y.dtype, lambda e, x, y: e.pair(x, y), 0.0
)
abs_ = Elementwise(_complex, lambda e, x: e.math("hypot", *x.parts), 20.0)
div = Elementwise(_complex, lambda e, x, y: x / y, 12.0)
reciprocal = Elementwise(_complex, _reciprocal, 12.0)
