"""Special functions: SciPy's ufuncs as primitives, with their derivatives.

SciPy loads when the first of them is evaluated. Derivatives are written for accuracy in the tails too: where the
textbook formula cancels there is another one. A parameter in which no derivative is known is refused by name.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.lowering import Rewrite
from functrace.core.primitive import Primitive
from functrace.errors import MissingRuleError
from functrace.primitives import _codes, _codes_special
from functrace.primitives._ufuncs import by_ufunc
from functrace.primitives.elementwise import (
    FUNCTION,
    abs_,
    cos,
    equal,
    exp,
    greater,
    less,
    log,
    log1p,
    logical_and,
    power,
    select,
    sign,
    sinc,
    sqrt,
    zero_of,
)
from functrace.primitives.families import Partial, broadcast, elementwise, is_number, unwrap
from functrace.util import user_line

__all__ = [
    "beta", "betainc", "betaln", "binom", "ci", "digamma", "entr", "erf", "erfc", "erfcinv", "erfcx", "erfinv",
    "exp1", "expi", "expit", "expn", "gamma", "gammainc", "gammaincc", "gammaln", "gammasgn", "i0", "i0e", "i1",
    "i1e", "inverse_mills", "iv", "ive", "j0", "j1", "jv", "k0", "k1", "kl_div", "kv", "log_expit", "log_ndtr",
    "loggamma", "logit", "ndtr", "ndtri", "poch", "polygamma", "rel_entr", "riemann_zeta", "scipy_special", "si",
    "special", "spence", "xlog1py", "xlogy", "y0", "y1", "yv", "zeta",
]  # fmt: skip

_TWO_OVER_SQRT_PI = 2 / math.sqrt(math.pi)
_SQRT_2_PI = math.sqrt(2 * math.pi)


@functools.cache
def scipy_special() -> Any:
    """The module scipy.special, loaded on first use."""
    import scipy.special

    return scipy.special


#: Those of which SciPy has no function of plain doubles, or that of another name.
_NO_CODE = frozenset({"riemann_zeta", "zeta"})
_UFUNCS = {"riemann_zeta": "_riemann_zeta", "zeta": "_zeta", "digamma": "psi"}


def special(
    name: str, derivative: Partial | tuple[Partial, ...] = None, *, scipy_name: str | None = None, **rules: Any
) -> Primitive:
    """An elementwise primitive evaluated by the ufunc of `scipy.special` of the same name."""

    def impl(*values: Any) -> Any:
        primitive.impl = getattr(scipy_special(), scipy_name or name)
        return primitive.impl(*values)

    rules.setdefault("flops", 3 * FUNCTION)
    own = rules.pop("lower", None)
    own = _codes_special.by_scipy(name) if own is None and name not in _NO_CODE else own
    rules["lower"] = (*([] if own is None else [own]), by_ufunc(f"scipy.special.{_UFUNCS.get(name, name)}"))
    primitive = elementwise(name, impl, derivative, **rules)
    return primitive


def refused(name: str, operand: str) -> Callable[..., Any]:
    """The partial derivative that is not known: asking for it raises.

    Raises:
        MissingRuleError: always, naming the function and its parameter.
    """

    def partial(*values: Any) -> Any:
        raise MissingRuleError(
            f"{name} has no derivative rule with respect to its parameter {operand!r}",
            where=user_line(),
            remedy=f"differentiate with respect to the other arguments, and pass functrace.stop_gradient({operand})",
        )

    return partial


def horner(x: Any, coefficients: Sequence[float]) -> Any:
    """The polynomial with these coefficients, the constant one first."""
    total = zero_of(x) + coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        total = total * x + coefficient
    return total


# the error function and the normal distribution

#: In powers of 1/(2x^2), 1 - sqrt(pi) x erfcx(x) for large x.
_ERFCX_TAIL = [0.0, *((-1.0) ** (k + 1) * math.prod(range(1, 2 * k, 2)) for k in range(1, 13))]


def _erfcx_derivative(x: Any, out: Any) -> Any:
    """2x erfcx(x) - 2/sqrt(pi), by its asymptotic series beyond 10 where that cancels."""
    direct = 2 * x * out - _TWO_OVER_SQRT_PI
    if x.dtype.kind == "c":
        return direct
    large = greater(x, zero_of(x) + 10)
    safe = select(large, x, zero_of(x) + 10)
    return select(large, -_TWO_OVER_SQRT_PI * horner(0.5 / safe / safe, _ERFCX_TAIL), direct)


erf = special("erf", lambda x, out: _TWO_OVER_SQRT_PI * exp(-x * x), lower=_codes.erf)
erfc = special("erfc", lambda x, out: -_TWO_OVER_SQRT_PI * exp(-x * x), lower=_codes.erfc)
erfcx = special("erfcx", _erfcx_derivative)
erfinv = special("erfinv", lambda x, out: exp(out * out) / _TWO_OVER_SQRT_PI)
erfcinv = special("erfcinv", lambda x, out: -exp(out * out) / _TWO_OVER_SQRT_PI)
ndtr = special("ndtr", lambda x, out: exp(-0.5 * x * x) / _SQRT_2_PI, lower=_codes_special.ndtr)
ndtri = special("ndtri", lambda x, out: _SQRT_2_PI * exp(0.5 * out * out))
log_ndtr = special("log_ndtr", lambda x, out: inverse_mills(x))


def _inverse_mills_impl(x: Any) -> Any:
    return math.sqrt(2 / math.pi) / scipy_special().erfcx(x * -math.sqrt(0.5))


def _inverse_mills_derivative(x: Any, out: Any) -> Any:
    """-h (x + h); on the left, where x and h cancel, by the derivative of erfcx."""
    left = less(x, zero_of(x))
    u = select(left, x, zero_of(x)) * -math.sqrt(0.5)
    scaled = erfcx(u)
    return out * select(left, math.sqrt(0.5) * _erfcx_derivative(u, scaled) / scaled, -(x + out))


#: The derivative of log_ndtr, density over distribution function.
inverse_mills = elementwise(
    "inverse_mills",
    _inverse_mills_impl,
    _inverse_mills_derivative,
    flops=3 * FUNCTION,
    lower=_codes_special.inverse_mills,
)

# the logistic function

expit = special("expit", lambda x, out: out * expit(-x), lower=_codes.expit)
log_expit = special("log_expit", lambda x, out: expit(-x), lower=_codes_special.log_expit)
logit = special("logit", lambda x, out: 1 / (x * (1 - x)), lower=_codes_special.logit)

# gamma and beta


def _trigamma(x: Any) -> Any:
    """The derivative of digamma, of real numbers.

    Raises:
        MissingRuleError: the numbers are complex; SciPy has no polygamma function of these.
    """
    if x.dtype.kind == "c":
        raise MissingRuleError(
            "digamma has no derivative rule for complex numbers",
            where=user_line(),
            got=f"{x.dtype.name}, as an argument or in the second derivative of gamma or loggamma",
            remedy="write your own rule with functrace.custom_jvp, for instance by mpmath's polygamma",
        )
    return polygamma(zero_of(x) + 1, x)


def _polygamma_impl(n: Any, x: Any) -> Any:
    """(-1)^(n+1) n! zeta(n+1, x), and digamma for n = 0; in double precision until the end."""
    special = scipy_special()
    if is_number(n) and 0 < n < 100:
        scale = math.factorial(int(n)) * (1.0 if n % 2 else -1.0)
        return scale * special.zeta(float(n + 1), x)
    return unwrap(np.asarray(special.polygamma(n, x), x.dtype))


def _polygamma_by_zeta(n: Any, x: Any) -> Any:
    """As SciPy has it; the sign is NaN where n is not an integer."""
    scale = power(zero_of(n) - 1, n + 1) * gamma(n + 1)
    lowest = equal(n, zero_of(n))
    if n.shape != x.shape and n.shape == ():
        scale, n, lowest = (broadcast(v, shape=x.shape, axes=()) for v in (scale, n, lowest))
    return select(lowest, digamma(x), scale * zeta(n + 1, x))


gammaln = special("gammaln", lambda x, out: digamma(x))
loggamma = special("loggamma", lambda x, out: digamma(x))
gammasgn = special("gammasgn")
gamma = special("gamma", lambda x, out: out * digamma(x))
digamma = special("digamma", lambda x, out: _trigamma(x))
polygamma = elementwise(
    "polygamma",
    _polygamma_impl,
    (refused("polygamma", "n"), lambda n, x, out: polygamma(n + 1, x)),
    flops=3 * FUNCTION,
    lower=Rewrite(lambda n, x: x.dtype.name in ("float32", "float64"), _polygamma_by_zeta),
)
riemann_zeta = special("riemann_zeta", refused("zeta", "x"), scipy_name="zeta")
zeta = special("zeta", (refused("zeta", "x"), lambda x, q, out: -x * zeta(x + 1, q)))
betaln = special(
    "betaln", (lambda a, b, out: digamma(a) - digamma(a + b), lambda a, b, out: digamma(b) - digamma(a + b))
)
beta = special(
    "beta",
    (
        lambda a, b, out: out * (digamma(a) - digamma(a + b)),
        lambda a, b, out: out * (digamma(b) - digamma(a + b)),
    ),
)
binom = special(
    "binom",
    (
        lambda n, k, out: out * (digamma(n + 1) - digamma(n - k + 1)),
        lambda n, k, out: out * (digamma(n - k + 1) - digamma(k + 1)),
    ),
)
poch = special("poch", (lambda x, n, out: out * (digamma(x + n) - digamma(x)), lambda x, n, out: out * digamma(x + n)))


def _gamma_density(a: Any, x: Any) -> Any:
    return exp(xlogy(a - 1, x) - x - gammaln(a))


gammainc = special("gammainc", (refused("gammainc", "a"), lambda a, x, out: _gamma_density(a, x)))
gammaincc = special("gammaincc", (refused("gammaincc", "a"), lambda a, x, out: -_gamma_density(a, x)))
betainc = special(
    "betainc",
    (
        refused("betainc", "a"),
        refused("betainc", "b"),
        lambda a, b, x, out: exp(xlogy(a - 1, x) + xlog1py(b - 1, -x) - betaln(a, b)),
    ),
)

# products with logarithms; where the factor is 0 the product is 0 and stays so whatever the logarithm does


def _ratio(x: Any, y: Any, zero: Any) -> Any:
    """x / y, and 0 where both are 0."""
    empty = logical_and(equal(x, zero), equal(y, zero))
    return x / select(empty, zero + 1, y)


xlogy = special(
    "xlogy",
    (lambda x, y, out: log(y), lambda x, y, out: _ratio(x, y, zero_of(out))),
    curvature=((0, 1), (1, 1)),
    lower=_codes_special.xlogy,
)
xlog1py = special(
    "xlog1py",
    (lambda x, y, out: log1p(y), lambda x, y, out: _ratio(x, 1 + y, zero_of(out))),
    curvature=((0, 1), (1, 1)),
    lower=_codes_special.xlog1py,
)
entr = special("entr", lambda x, out: -log(x) - 1, lower=_codes_special.entr)
rel_entr = special(
    "rel_entr",
    (lambda x, y, out: log(_ratio(x, y, zero_of(out))) + 1, lambda x, y, out: -_ratio(x, y, zero_of(out))),
)
kl_div = special(
    "kl_div", (lambda x, y, out: log(_ratio(x, y, zero_of(out))), lambda x, y, out: 1 - _ratio(x, y, zero_of(out)))
)

# Bessel functions. Each order's derivative is a combination of its neighbours, without quotients, so that
# derivatives of any order are right at 0 too.

jv = special("jv", (refused("jv", "v"), lambda v, x, out: (jv(v - 1, x) - jv(v + 1, x)) / 2))
yv = special("yv", (refused("yv", "v"), lambda v, x, out: (yv(v - 1, x) - yv(v + 1, x)) / 2))
iv = special("iv", (refused("iv", "v"), lambda v, x, out: (iv(v - 1, x) + iv(v + 1, x)) / 2))
kv = special("kv", (refused("kv", "v"), lambda v, x, out: -(kv(v - 1, x) + kv(v + 1, x)) / 2))
ive = special("ive", (refused("ive", "v"), lambda v, x, out: (ive(v - 1, x) + ive(v + 1, x)) / 2 - sign(x) * out))
j0 = special("j0", lambda x, out: -j1(x))
j1 = special("j1", lambda x, out: (j0(x) - jv(zero_of(x) + 2, x)) / 2)
y0 = special("y0", lambda x, out: -y1(x))
y1 = special("y1", lambda x, out: (y0(x) - yv(zero_of(x) + 2, x)) / 2)
k0 = special("k0", lambda x, out: -k1(x))
k1 = special("k1", lambda x, out: -(k0(x) + kv(zero_of(x) + 2, x)) / 2)
i0 = special("i0", lambda x, out: i1(x))
i1 = special("i1", lambda x, out: (i0(x) + iv(zero_of(x) + 2, x)) / 2)


def _tail_derivative(order: int) -> list[float]:
    """Of the derivative of exp(-x) I_order(x) by its asymptotic series, -(2 pi x**3)**(-1/2) times a series in 1/x."""
    terms = [1.0]
    for k in range(1, 17):
        terms.append(terms[-1] * ((2 * k - 1) ** 2 - 4 * order * order) / (8 * k))
    return [(k + 0.5) * term for k, term in enumerate(terms)]


_TAILS = {order: _tail_derivative(order) for order in (0, 1)}


def _scaled_derivative(order: int, x: Any, direct: Any) -> Any:
    """The derivative of exp(-|x|) I_order(x); beyond 50 by the series, since `direct` is a difference of neighbours."""
    size = abs_(x)
    large = greater(size, zero_of(x) + 50)
    safe = select(large, size, zero_of(x) + 50)
    tail = -horner(1 / safe, _TAILS[order]) / (safe * sqrt(safe)) / _SQRT_2_PI
    return select(large, tail if order % 2 else sign(x) * tail, direct)


i0e = special("i0e", lambda x, out: _scaled_derivative(0, x, i1e(x) - sign(x) * out))
i1e = special("i1e", lambda x, out: _scaled_derivative(1, x, (i0e(x) + ive(zero_of(x) + 2, x)) / 2 - sign(x) * out))

# exponential, sine and cosine integrals, dilogarithm


def _expn_by_x(n: Any, x: Any, out: Any) -> Any:
    """-E_{n-1}(x), in elementary functions for n = 0; n is an integer."""
    lowest = n <= 0
    safe = select(lowest, x, zero_of(x) + 1)
    return -select(lowest, exp(-safe) * (1 + 1 / safe) / safe, expn(n - 1 + lowest, x))


exp1 = special("exp1", lambda x, out: -exp(-x) / x)
expi = special("expi", lambda x, out: exp(x) / x)
expn = elementwise(
    "expn",
    lambda n, x: unwrap(np.asarray(scipy_special().expn(n, x), x.dtype)),
    (None, _expn_by_x),
    result=lambda name, n, x: x,
    flops=3 * FUNCTION,
    lower=_codes_special.expn,
)


def _sici(part: int) -> Callable[[Any], Any]:
    return lambda x: scipy_special().sici(x)[part]


si = elementwise(
    "si", _sici(0), lambda x, out: sinc(x / math.pi), flops=3 * FUNCTION, lower=by_ufunc("scipy.special.sici")
)
ci = elementwise("ci", _sici(1), lambda x, out: cos(x) / x, flops=3 * FUNCTION, lower=by_ufunc("scipy.special.sici", 1))


def _spence_derivative(x: Any, out: Any) -> Any:
    """log(x) / (1 - x), by its series near 1 where higher derivatives of that cancel."""
    w = x - 1
    near = less(abs_(w), zero_of(x) + 0.25)
    series = horner(select(near, w, zero_of(w)), [-((-1.0) ** k) / (k + 1) for k in range(26)])
    safe = select(near, zero_of(x) + 2, x)
    return select(near, series, log(safe) / (1 - safe))


spence = special("spence", _spence_derivative)
