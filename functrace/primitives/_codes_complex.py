"""How the parts of complex numbers, and what is made of them, are compiled; see `core.lowering`."""

from __future__ import annotations

from typing import Any

from functrace.core.lowering import Elementwise

__all__ = ["abs_", "complex_", "conj", "div", "imag", "real", "reciprocal"]


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


real = Elementwise(code=lambda e, x: x if x.parts is None else x.parts[0], weight=0.0)
imag = Elementwise(code=_imag, weight=0.0)
conj = Elementwise(lambda x: x.dtype.kind in "fiuc", _conj, 1.0)
complex_ = Elementwise(
    lambda x, y: x.dtype.name in ("float32", "float64") and x.dtype == y.dtype, lambda e, x, y: e.pair(x, y), 0.0
)
abs_ = Elementwise(_complex, lambda e, x: e.math("hypot", *x.parts), 20.0)
div = Elementwise(_complex, lambda e, x, y: x / y, 12.0)
reciprocal = Elementwise(_complex, _reciprocal, 12.0)
