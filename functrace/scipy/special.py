"""Special functions under the names and signatures of `scipy.special`.

Unchanged SciPy code traces too, where SciPy's function is a ufunc: `scipy.special.gammaln(x)`. Those that are Python
functions in SciPy (polygamma, factorial, multigammaln, logsumexp, softmax ...) are to be called from here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.core.primitive import Primitive
from functrace.core.trace import EVAL, current_trace
from functrace.errors import ArgumentError, DTypeError, UnsupportedFunctionError
from functrace.numpy._axes import as_index, reduction_axes
from functrace.numpy._dispatch import apply, reject, traced_named_ufuncs
from functrace.numpy._promotion import as_array, broadcast_operands, cast, dtype_of, promote, resolve
from functrace.numpy._refusals import UNCLEAR, explain_refusal
from functrace.primitives import elementwise, reduction
from functrace.primitives import special as p
from functrace.primitives.families import reshape
from functrace.primitives.reduction import spread
from functrace.primitives.special import scipy_special
from functrace.util import user_line

__all__ = [
    "beta", "betainc", "betaln", "binom", "digamma", "entr", "erf", "erfc", "erfcinv", "erfcx", "erfinv", "exp1",
    "expi", "expit", "expn", "factorial", "gamma", "gammainc", "gammaincc", "gammaln", "gammasgn", "i0", "i0e", "i1",
    "i1e", "iv", "j0", "j1", "jv", "k0", "k1", "kl_div", "kv", "log_expit", "log_ndtr", "log_softmax",
    "loggamma", "logit", "logsumexp", "multigammaln", "ndtr", "ndtri", "poch", "polygamma", "psi", "rel_entr", "sici",
    "softmax", "spence", "xlog1py", "xlogy", "y0", "y1", "yv", "zeta",
]  # fmt: skip


def _ufunc(name: str, primitive: Primitive, summary: str) -> Callable[..., Any]:
    """The public form of a SciPy ufunc, registered so that the ufunc itself traces too."""

    def traced(*operands: Any, **options: Any) -> Any:
        return apply(getattr(scipy_special(), name), primitive, operands, options)

    def public(*operands: Any, **options: Any) -> Any:
        if current_trace() is EVAL:
            return getattr(scipy_special(), name)(*operands, **options)
        return traced(*operands, **options)

    traced_named_ufuncs[name] = traced
    public.__name__ = public.__qualname__ = name
    public.__module__ = __name__
    public.__doc__ = f"{summary} SciPy's signature, broadcasting and dtypes."
    return public


def _function(traced: Callable[..., Any]) -> Callable[..., Any]:
    """The public form of a function that in SciPy is written in Python."""

    @functools.wraps(traced)
    def public(*args: Any, **kwargs: Any) -> Any:
        if current_trace() is EVAL:
            return getattr(scipy_special(), traced.__name__)(*args, **kwargs)
        try:
            return traced(*args, **kwargs)
        except UNCLEAR as error:
            explain_refusal(error, getattr(scipy_special(), traced.__name__), args, kwargs)
            raise

    return public


erf = _ufunc("erf", p.erf, "The error function.")
erfc = _ufunc("erfc", p.erfc, "The complementary error function, 1 - erf(x).")
erfcx = _ufunc("erfcx", p.erfcx, "The scaled complementary error function, exp(x**2) erfc(x).")
erfinv = _ufunc("erfinv", p.erfinv, "The inverse of the error function.")
erfcinv = _ufunc("erfcinv", p.erfcinv, "The inverse of the complementary error function.")
ndtr = _ufunc("ndtr", p.ndtr, "The normal distribution function.")
log_ndtr = _ufunc("log_ndtr", p.log_ndtr, "The logarithm of the normal distribution function, accurate in both tails.")
ndtri = _ufunc("ndtri", p.ndtri, "The quantile function of the normal distribution.")
expit = _ufunc("expit", p.expit, "The logistic function, 1 / (1 + exp(-x)).")
log_expit = _ufunc("log_expit", p.log_expit, "The logarithm of the logistic function.")
logit = _ufunc("logit", p.logit, "The inverse of the logistic function, log(x / (1 - x)).")
gammaln = _ufunc("gammaln", p.gammaln, "The logarithm of the absolute value of the gamma function.")
loggamma = _ufunc("loggamma", p.loggamma, "The principal branch of the logarithm of the gamma function.")
gammasgn = _ufunc("gammasgn", p.gammasgn, "The sign of the gamma function, without derivative.")
gamma = _ufunc("gamma", p.gamma, "The gamma function.")
digamma = psi = _ufunc("psi", p.digamma, "The derivative of the logarithm of the gamma function.")
beta = _ufunc("beta", p.beta, "The beta function.")
betaln = _ufunc("betaln", p.betaln, "The logarithm of the absolute value of the beta function.")
binom = _ufunc("binom", p.binom, "The binomial coefficient of real arguments.")
poch = _ufunc("poch", p.poch, "The rising factorial, gamma(x + n) / gamma(x).")
gammainc = _ufunc(
    "gammainc", p.gammainc, "The regularized lower incomplete gamma function; differentiable in x, not in a."
)
gammaincc = _ufunc(
    "gammaincc", p.gammaincc, "The regularized upper incomplete gamma function; differentiable in x, not in a."
)
betainc = _ufunc("betainc", p.betainc, "The regularized incomplete beta function; differentiable in x, not in a and b.")
xlogy = _ufunc("xlogy", p.xlogy, "x log(y), 0 where x is 0. Its derivative in y is x/y, 0 where both are 0.")
xlog1py = _ufunc("xlog1py", p.xlog1py, "x log(1 + y), 0 where x is 0. Its derivative in y is x/(1 + y), 0 for 0/0.")
entr = _ufunc("entr", p.entr, "Elementwise entropy, -x log(x).")
rel_entr = _ufunc("rel_entr", p.rel_entr, "Elementwise relative entropy, x log(x / y).")
kl_div = _ufunc("kl_div", p.kl_div, "Elementwise Kullback-Leibler divergence, x log(x / y) - x + y.")
j0 = _ufunc("j0", p.j0, "The Bessel function of the first kind, order 0.")
j1 = _ufunc("j1", p.j1, "The Bessel function of the first kind, order 1.")
jv = _ufunc("jv", p.jv, "The Bessel function of the first kind, real order v; differentiable in x, not in v.")
y0 = _ufunc("y0", p.y0, "The Bessel function of the second kind, order 0.")
y1 = _ufunc("y1", p.y1, "The Bessel function of the second kind, order 1.")
yv = _ufunc("yv", p.yv, "The Bessel function of the second kind, real order v; differentiable in x, not in v.")
i0 = _ufunc("i0", p.i0, "The modified Bessel function of the first kind, order 0.")
i1 = _ufunc("i1", p.i1, "The modified Bessel function of the first kind, order 1.")
iv = _ufunc("iv", p.iv, "The modified Bessel function of the first kind, real order v; differentiable in x, not in v.")
k0 = _ufunc("k0", p.k0, "The modified Bessel function of the second kind, order 0.")
k1 = _ufunc("k1", p.k1, "The modified Bessel function of the second kind, order 1.")
kv = _ufunc("kv", p.kv, "The modified Bessel function of the second kind, real order v; differentiable in x, not in v.")
i0e = _ufunc("i0e", p.i0e, "exp(-|x|) i0(x). Its derivative at 0 is 0, the mean of both sides.")
i1e = _ufunc("i1e", p.i1e, "exp(-|x|) i1(x).")
exp1 = _ufunc("exp1", p.exp1, "The exponential integral E1.")
expi = _ufunc("expi", p.expi, "The exponential integral Ei.")
spence = _ufunc("spence", p.spence, "Spence's function (the dilogarithm of 1 - x).")

# Ufuncs that SciPy has besides NumPy's of the same name.
for _name in ("exp2", "expm1", "log1p", "cbrt"):
    _ufunc(_name, getattr(elementwise, _name), "")


def _expn(n: Any, x: Any) -> Any:
    n, x = as_array(n), as_array(x)
    dtype = resolve(scipy_special().expn, (dtype_of(n), dtype_of(x)))[1]
    return p.expn(*broadcast_operands([cast(n, np.dtype(np.int64)), cast(x, dtype)]))


@_function
def expn(n: Any, x: Any) -> Any:
    """The exponential integral of integer order n; differentiable in x."""
    return _expn(n, x)


traced_named_ufuncs["expn"] = _expn


def _sici(x: Any) -> tuple[Any, Any]:
    (x,) = broadcast_operands([as_array(x)])
    x = cast(x, resolve(scipy_special().sici, (dtype_of(x),))[0])
    return p.si(x), p.ci(x)


@_function
def sici(x: Any) -> tuple[Any, Any]:
    """The sine and cosine integrals."""
    return _sici(x)


traced_named_ufuncs["sici"] = _sici


def _floats(function: str, *values: Any, allow_complex: bool = False) -> list[Any]:
    """Operands as arrays of their common floating point (or complex) dtype and shape.

    Raises:
        DTypeError: they are complex, and the function takes real numbers only.
    """
    arrays = promote(*(as_array(v) for v in values))
    if arrays[0].dtype.kind == "c" and not allow_complex:
        raise DTypeError(
            f"scipy.special.{function} of a traced value takes real numbers only",
            where=user_line(),
            got=arrays[0].dtype.name,
            remedy="apply it to the real or imaginary part",
        )
    if arrays[0].dtype.kind not in "fc":
        arrays = [cast(v, np.dtype(np.float64)) for v in arrays]
    return broadcast_operands(arrays)


@_function
def polygamma(n: Any, x: Any) -> Any:
    """The n-th derivative of digamma; differentiable in x, not in n."""
    n = as_array(n)
    if n.dtype.kind != "f":
        n = cast(n, np.dtype(np.float64))
    return p.polygamma(*_floats("polygamma", n, x))


def _zeta(x: Any, q: Any) -> Any:
    # The ufunc behind SciPy's zeta is private; rel_entr has its loops.
    return apply(scipy_special().rel_entr, p.zeta, (x, q), {})


@_function
def zeta(x: Any, q: Any = None, out: Any = None) -> Any:
    """The Riemann zeta function, or Hurwitz's if q is given; differentiable in q, not in x."""
    reject("zeta", out=out)
    return p.riemann_zeta(*_floats("zeta", x)) if q is None else _zeta(x, q)


traced_named_ufuncs["_zeta"] = _zeta
traced_named_ufuncs["_riemann_zeta"] = lambda x: p.riemann_zeta(*_floats("zeta", x))


@_function
def factorial(n: Any, exact: bool = False, extend: str = "zero") -> Any:
    """The factorial of real arguments, gamma(n + 1), and 0 for negative ones."""
    if exact or extend != "zero":
        raise UnsupportedFunctionError(
            "factorial of a traced value has neither exact= nor extend=",
            where=user_line(),
            got=f"exact={exact}, extend={extend!r}",
            remedy="leave them out, or use functrace.scipy.special.gamma(n + 1)",
        )
    (x,) = _floats("factorial", n)
    x = cast(x, np.dtype(np.float64))
    negative = elementwise.less(x, x.dtype.type(0))
    safe = elementwise.select(negative, x.dtype.type(0), x)
    return elementwise.select(negative, x.dtype.type(0), p.gamma(safe + 1))


@_function
def multigammaln(a: Any, d: Any) -> Any:
    """The logarithm of the multivariate gamma function of dimension d, a fixed integer."""
    dimension = as_index(d, "the dimension of multigammaln")
    if dimension < 1:
        raise ArgumentError(
            "multigammaln needs a positive dimension", where=user_line(), got=f"d={d}", remedy="pass d >= 1"
        )
    (a,) = _floats("multigammaln", a)
    a = cast(a, np.dtype(np.float64))
    total = p.gammaln(a)
    for j in range(1, dimension):
        total = total + p.gammaln(a - j / 2)
    return total + dimension * (dimension - 1) / 4 * math.log(math.pi)


# sums of exponentials


def _is_complex(x: Any) -> bool:
    return as_array(x).dtype.kind == "c"


def _finite_peak(x: Any, axes: tuple[int, ...]) -> Any:
    """The maximum along the axes, without derivative; 0 where it is infinite. Of complex numbers, of the real parts."""
    x = elementwise.stop_gradient(x)
    size = elementwise.real(x) if x.dtype.kind == "c" else x
    reduce = reduction.reduce_sum if 0 in x.shape else reduction.reduce_max
    peak = reduce(size, axes=axes)
    return cast(elementwise.select(elementwise.isfinite(peak), peak, size.dtype.type(0)), x.dtype)


def _weighted_logsumexp(x: Any, b: Any, axes: tuple[int, ...], signed: bool) -> tuple[Any, Any]:
    """log(|sum(b exp(x))|) and the sum's sign; unless `signed` the real logarithm of the sum, or the complex one.

    An element of weight 0 does not count, be it infinite; where its exponential is finite, the weight has a derivative.
    """
    nothing = x.dtype.type(-np.inf)
    weightless = elementwise.equal(b, x.dtype.type(0))
    peak = _finite_peak(elementwise.select(weightless, nothing, x), axes)
    shifted = elementwise.sub(x, spread(peak, x.shape, axes))
    size = elementwise.real(shifted) if x.dtype.kind == "c" else shifted
    finite = elementwise.less(size, size.dtype.type(np.log(np.finfo(x.dtype).max)))
    dead = elementwise.logical_and(weightless, elementwise.logical_not(finite))
    terms = elementwise.mul(b, elementwise.exp(elementwise.select(dead, nothing, shifted)))
    total = reduction.reduce_sum(terms, axes=axes)
    size = elementwise.abs_(total) if signed else total
    return elementwise.log(size) + (elementwise.real(peak) if size.dtype != peak.dtype else peak), np.sign(total)


@_function
def logsumexp(a: Any, axis: Any = None, b: Any = None, keepdims: bool = False, return_sign: bool = False) -> Any:
    """log(sum(b exp(a))), without overflow; with the sum's sign apart when asked for."""
    weights = () if b is None and not (return_sign and _is_complex(a)) else (1.0 if b is None else b,)
    x, *factors = _floats("logsumexp", a, *weights, allow_complex=True)
    axes = reduction_axes(axis, len(x.shape))
    if factors:
        out, sign = _weighted_logsumexp(x, as_array(factors[0]), axes, return_sign)
    else:
        out = reduction.logsumexp(x, axes=axes)
        one = x.dtype.type(1)
        sign = elementwise.select(elementwise.equal(out, x.dtype.type(-np.inf)), x.dtype.type(0), one)
        sign = elementwise.select(elementwise.isnan(out), out, sign)
    if keepdims:
        kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
        out, sign = reshape(out, shape=kept), reshape(sign, shape=kept)
    return (out, sign) if return_sign else out


@_function
def softmax(x: Any, axis: Any = None) -> Any:
    """exp(x) / sum(exp(x)), without overflow."""
    (x,) = _floats("softmax", x)
    return reduction.softmax(x, axes=reduction_axes(axis, len(x.shape)), undefined=True)


@_function
def log_softmax(x: Any, axis: Any = None) -> Any:
    """log(softmax(x)), without overflow or underflow."""
    (x,) = _floats("log_softmax", x)
    axes = reduction_axes(axis, len(x.shape))
    shifted = elementwise.sub(x, spread(_finite_peak(x, axes), x.shape, axes))
    return elementwise.sub(shifted, spread(reduction.logsumexp(shifted, axes=axes), x.shape, axes))
