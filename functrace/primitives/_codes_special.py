"""How special functions are compiled: those made of elementary ones in vectors, the others by SciPy's code, number by
number; see `core.lowering`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from functrace.core.lowering import Elementwise

__all__ = [
    "by_scipy", "entr", "expn", "inverse_mills", "log_expit", "logit", "ndtr", "sinc", "xlog1py", "xlogy",
]  # fmt: skip

_FUNCTION = 20.0
_SLOW = 80.0


def _floats(*avals: Any, **params: Any) -> bool:
    return all(a.dtype.name in ("float32", "float64") for a in avals)


def _code(text: Callable[..., Any], weight: float = _FUNCTION) -> Elementwise:
    return Elementwise(_floats, text, weight)


def by_scipy(name: str) -> Elementwise:
    """SciPy's function of doubles of that name."""
    return _code(lambda e, *values: e.special(name, *values), _SLOW)


def _sinc(e: Any, x: Any) -> Any:
    angle = e.select(x == 0.0, 1e-20, x) * math.pi
    return e.math("sin", angle) / angle


def _log_expit(e: Any, x: Any) -> Any:
    """x below 0 and 0 above, less log(1 + exp(-|x|))."""
    rest = e.math("log1p", e.math("exp", -e.intrinsic("fabs", x)))
    return e.select(x < 0.0, x, -0.0) - rest


def _logit(e: Any, x: Any) -> Any:
    s = (x - 0.5) * 2.0
    middle = (x >= 0.3) & (x <= 0.65)
    near = e.math("log1p", s) - e.math("log1p", -s)
    return e.select(middle, near, e.math("log", x / (1.0 - x)))


def _times_logarithm(name: str) -> Callable[..., Any]:
    def product(e: Any, x: Any, y: Any) -> Any:
        x, y = e.matched(x, y)
        return e.select((x == 0.0) & (y == y), 0.0, x * e.math(name, y))

    return product


def _entr(e: Any, x: Any) -> Any:
    inside = e.select(x == 0.0, 0.0, -x * e.math("log", x))
    return e.select(x < 0.0, -math.inf, inside)


def _ndtr(e: Any, x: Any) -> Any:
    """By erf in the middle, by erfc in the tails."""
    t = x * math.sqrt(0.5)
    size = e.intrinsic("fabs", t)
    tail = e.math("erfc", size) * 0.5
    tail = e.select(t > 0.0, 1.0 - tail, tail)
    return e.select(size < 1.0, e.math("erf", t) * 0.5 + 0.5, tail)


def _inverse_mills(e: Any, x: Any) -> Any:
    return math.sqrt(2 / math.pi) / e.special("erfcx", x * -math.sqrt(0.5))


sinc = _code(_sinc)
log_expit = _code(_log_expit, 2 * _FUNCTION)
logit = _code(_logit, 3 * _FUNCTION)
xlogy = _code(_times_logarithm("log"))
xlog1py = _code(_times_logarithm("log1p"))
entr = _code(_entr)
ndtr = _code(_ndtr, 2 * _FUNCTION)
expn = Elementwise(
    lambda n, x: n.dtype.kind in "iuf" and _floats(x),
    lambda e, n, x: e.special("expn", e.convert(n, x.dtype), x),
    _SLOW,
)
inverse_mills = _code(_inverse_mills, _SLOW)
