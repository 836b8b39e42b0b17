"""functrace.scipy.special: SciPy's values and dtypes, derivatives against mpmath, and what is refused."""

import functools
import itertools
import warnings

import mpmath as mp
import numpy as np
import pytest
import scipy.special

import functrace
import functrace.numpy as fnp
import functrace.scipy.special as special
from functrace.errors import ArgumentError, ConversionError, DTypeError, MissingRuleError, UnsupportedFunctionError
from functrace.testing import check_grads

UNARY = [
    "erf", "erfc", "erfcx", "erfinv", "erfcinv", "ndtr", "ndtri", "log_ndtr", "expit", "log_expit", "logit", "gammaln",
    "loggamma", "gammasgn", "gamma", "digamma", "psi", "entr", "j0", "j1", "y0", "y1", "i0", "i1", "i0e", "i1e", "k0",
    "k1", "exp1", "expi", "spence",
]  # fmt: skip
BINARY = [
    "xlogy", "xlog1py", "rel_entr", "kl_div", "beta", "betaln", "binom", "poch", "zeta", "gammainc", "gammaincc", "jv",
    "yv", "iv", "kv", "expn",
]  # fmt: skip
#: Parameters without a derivative.
REFUSED = [
    ("gammainc", 0), ("gammaincc", 0), ("jv", 0), ("yv", 0), ("iv", 0), ("kv", 0), ("zeta", 0), ("polygamma", 0),
]  # fmt: skip


def value(f, *args):
    """The value of f at tracers."""
    return functrace.jvp(f, args, [None] * len(args))[0]


def assert_same(actual, expected, rtol=None):
    for a, e in zip(*(v if isinstance(v, tuple) else (v,) for v in (actual, expected)), strict=True):
        assert a.dtype == np.asarray(e).dtype
        assert a.shape == np.shape(e)
        np.testing.assert_allclose(a, e, rtol=rtol or (1e-6 if a.dtype == np.float32 else 1e-14))


@pytest.mark.parametrize("name", [*UNARY, "sici", "factorial", "riemann"])
@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i4", "i8", "?"])
def test_values_of_one_operand(name, dtype):
    f, reference = (
        (special.zeta, scipy.special.zeta)
        if name == "riemann"
        else (getattr(special, name), getattr(scipy.special, name))
    )
    x = np.array([0.25, 0.5, 0.75]) if dtype[0] == "f" and name != "riemann" else np.array([2, 1, 3])
    x = x.astype(dtype)
    if dtype == "?" and name in ("factorial", "riemann"):
        pytest.skip("SciPy itself differs between these and numbers")
    if dtype == "f2" and name == "riemann":
        pytest.skip("SciPy computes this one in float32")
    for arg in (x, x[0], x.reshape(1, 3)[:, :2]):
        if name == "factorial" and dtype[0] == "f" and np.ndim(arg) == 0:
            continue
        assert_same(value(f, arg), reference(arg), rtol=1e-6 if np.asarray(arg).dtype.itemsize < 8 else None)
        np.testing.assert_array_equal(f(arg), reference(arg))


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("dtypes", list(itertools.product(["f8", "f4", "i4"], repeat=2)))
def test_values_of_two_operands(name, dtypes):
    f, reference = getattr(special, name), getattr(scipy.special, name)
    left, right = np.array([1, 2, 3]).astype(dtypes[0]), np.array([1.5, 2, 4]).astype(dtypes[1])
    if name == "zeta":
        left = left + left.dtype.type(1)
    for a, b in [(left, right), (left[1], right), (left, right[1]), (left[:, None], right), (2, right), (left, 2)]:
        assert_same(value(f, a, b), reference(a, b))
        np.testing.assert_array_equal(f(a, b), reference(a, b))


def test_values_of_polygamma_betainc_and_multigammaln():
    n, x = np.arange(4), np.array([0.5, 1.5, 2.5, -0.5])
    assert_same(value(special.polygamma, n, x), scipy.special.polygamma(n, x))
    assert_same(value(lambda v: special.polygamma(1, v), x), scipy.special.polygamma(1, x))
    assert_same(value(special.polygamma, n, np.float32(2)), scipy.special.polygamma(n, np.float32(2)), rtol=1e-6)
    assert_same(value(special.betainc, 1.5, x[:3], np.array(0.3)), scipy.special.betainc(1.5, x[:3], 0.3))
    for d in (1, 3):
        assert_same(value(lambda a, d=d: special.multigammaln(a, d), x[1:3]), scipy.special.multigammaln(x[1:3], d))


# derivatives

BESSEL = {"j": mp.besselj, "y": mp.bessely, "i": mp.besseli, "k": mp.besselk}
MPMATH = {
    "erf": mp.erf,
    "erfc": mp.erfc,
    "erfcx": lambda x: mp.exp(x * x) * mp.erfc(x),
    "erfinv": mp.erfinv,
    "ndtr": mp.ncdf,
    "log_ndtr": lambda x: mp.log1p(-mp.ncdf(-x)) if x > 0 else mp.log(mp.ncdf(x)),
    "expit": lambda x: 1 / (1 + mp.exp(-x)),
    "log_expit": lambda x: -mp.log1p(mp.exp(-x)),
    "logit": lambda x: mp.log(x / (1 - x)),
    "gammaln": lambda x: mp.log(abs(mp.gamma(x))),
    "gamma": mp.gamma,
    "digamma": mp.digamma,
    "entr": lambda x: -x * mp.log(x),
    **{f"{kind}{n}": functools.partial(f, n) for kind, f in BESSEL.items() for n in (0, 1)},
    "i0e": lambda x: mp.exp(-abs(x)) * mp.besseli(0, x),
    "i1e": lambda x: mp.exp(-abs(x)) * mp.besseli(1, x),
    "exp1": mp.e1,
    "expi": mp.ei,
    "spence": lambda x: mp.re(mp.polylog(2, 1 - x)),
}  # fmt: skip
POINTS = {
    "erf": [-5, 0.3, 5],
    "erfc": [-5, 0.3, 20],
    "erfcx": [-20, -1, 0.3, 5, 9.9, 10.1, 1e3, 1e6],
    "erfinv": [-0.99, 0.1, 0.999],
    "ndtr": [-30, 0.5, 10],
    "log_ndtr": [-300, -37, -5, -0.1, 0.1, 3, 20],
    "expit": [-700, -40, -1, 0.5, 30, 40, 700],
    "log_expit": [-800, -30, 0.2, 40, 300],
    "logit": [1e-10, 0.3, 0.9999999],
    "gammaln": [1e-10, 0.5, 3, 100, 1e10, -0.5, -3.7],
    "gamma": [1e-5, 0.5, 3, 100, -0.5, -3.7],
    "digamma": [1e-5, 0.5, 3, 1e6, -0.5, -3.7],
    "entr": [1e-10, 0.2, 3],
    **{name: [0.01, 1, 20] for name in ("j0", "j1", "y0", "i0", "i1")},
    **{name: [0.3, 2] for name in ("y1", "k0", "k1")},
    **{name: [-3, 0.01, 1, 49, 51, 1e4, 1e8] for name in ("i0e", "i1e")},
    "exp1": [1e-5, 1.5, 50],
    "expi": [1e-5, 1.5, 50, -2],
    "spence": [0.01, 0.5, 0.74, 0.76, 0.999, 1.0001, 1.3, 40],
}


def grads(f, order):
    for _ in range(order):
        f = functrace.grad(f)
    return f


@pytest.mark.parametrize("name", MPMATH)
def test_derivatives_to_third_order(name):
    with mp.workdps(40), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for x in POINTS[name]:
            step = mp.mpf(min(abs(x), abs(1 - x) or 1, abs(1 + x) or 1, 1)) * mp.mpf(10) ** -8
            for order, rtol in ((1, 2e-13), (2, 1e-11), (3, 1e-9)):
                expected = float(mp.diff(MPMATH[name], mp.mpf(x), order, h=step))
                actual = grads(getattr(special, name), order)(float(x))
                np.testing.assert_allclose(actual, expected, rtol, atol=1e-300, err_msg=f"order {order} at {x}")


BINARY_POINTS = {
    "xlogy": (lambda x, y: x * mp.log(y), [(0.5, 2.0), (1e-200, 1e-200)], (0, 1)),
    "xlog1py": (lambda x, y: x * mp.log1p(y), [(0.5, 2.0), (3.0, -0.9)], (0, 1)),
    "rel_entr": (lambda x, y: x * mp.log(x / y), [(0.5, 2.0), (1e-10, 3.0)], (0, 1)),
    "kl_div": (lambda x, y: x * mp.log(x / y) - x + y, [(0.5, 2.0), (1.0, 1.01)], (0, 1)),
    "beta": (mp.beta, [(0.5, 2.0), (30.0, 40.0)], (0, 1)),
    "betaln": (lambda a, b: mp.log(mp.beta(a, b)), [(0.5, 2.0), (300.0, 4.0)], (0, 1)),
    "binom": (mp.binomial, [(5.5, 2.5), (40.0, 3.0)], (0, 1)),
    "poch": (mp.rf, [(1.5, 2.5), (10.0, 3.0)], (0, 1)),
    "zeta": (lambda x, q: mp.zeta(x, q), [(2.5, 1.5), (4.0, 20.0)], (1,)),
    "gammainc": (lambda a, x: mp.gammainc(a, 0, x, regularized=True), [(1.5, 0.5), (20.0, 30.0)], (1,)),
    "gammaincc": (lambda a, x: mp.gammainc(a, x, mp.inf, regularized=True), [(1.5, 0.5), (20.0, 30.0)], (1,)),
    "polygamma": (lambda n, x: mp.psi(int(n), x), [(1.0, 0.5), (4.0, 3.0)], (1,)),
    "jv": (mp.besselj, [(0.5, 2.0), (3.0, 10.0)], (1,)),
    "yv": (mp.bessely, [(0.5, 2.0), (3.0, 10.0)], (1,)),
    "iv": (mp.besseli, [(0.5, 2.0), (3.0, 10.0)], (1,)),
    "kv": (mp.besselk, [(0.5, 2.0), (3.0, 10.0)], (1,)),
    "expn": (lambda n, x: mp.expint(int(n), x), [(1, 2.0), (3, 0.5), (0, 1.5)], (1,)),
}


@pytest.mark.parametrize("name", BINARY_POINTS)
def test_partial_derivatives_to_second_order(name):
    reference, points, positions = BINARY_POINTS[name]
    f = getattr(special, name)
    with mp.workdps(50):
        for point in points:
            exact = [mp.mpf(v) for v in point]
            for i in positions:
                expected = _along(reference, exact, i, 1)
                actual = functrace.grad(f, i)(*point)
                np.testing.assert_allclose(actual, float(expected), rtol=1e-11, err_msg=f"{i} at {point}")
                second = _along(reference, exact, i, 2)
                actual = functrace.grad(functrace.grad(f, i), i)(*point)
                np.testing.assert_allclose(actual, float(second), rtol=1e-9, atol=1e-14, err_msg=f"{i}{i} at {point}")
            if len(positions) == 2:
                expected = float(mp.diff(reference, exact, (1, 1), h=min(exact) * mp.mpf(10) ** -12))
                mixed = functrace.grad(functrace.grad(f, 0), 1)(*point), functrace.grad(functrace.grad(f, 1), 0)(*point)
                np.testing.assert_allclose(mixed, expected, rtol=1e-9, atol=1e-14)


def _along(f, point, i, order):
    """A derivative in one argument; the others keep their exact values."""
    return mp.diff(lambda t: f(*point[:i], t, *point[i + 1 :]), point[i], order, h=point[i] * mp.mpf(10) ** -15)


def test_betainc_in_x():
    with mp.workdps(40):
        expected = mp.diff(lambda x: mp.betainc(1.5, 2.5, 0, x, regularized=True), 0.3)
    np.testing.assert_allclose(functrace.grad(special.betainc, 2)(1.5, 2.5, 0.3), float(expected), rtol=1e-12)


BESSEL_AT_0 = {"i0": [0, 0.5, 0, 0.375], "i1": [0.5, 0, 0.375, 0], "j0": [0, -0.5, 0, 0.375], "j1": [0.5, 0, -0.375, 0]}


@pytest.mark.parametrize("name, at_zero", BESSEL_AT_0.items())
def test_bessel_functions_at_0_to_fourth_order(name, at_zero):
    actual = [grads(getattr(special, name), order)(0.0) for order in (1, 2, 3, 4)]
    np.testing.assert_allclose(actual, at_zero, atol=1e-15)


def test_spence_at_1():
    np.testing.assert_allclose([grads(special.spence, k)(1.0) for k in (1, 2, 3)], [-1, 1 / 2, -2 / 3], rtol=1e-13)


def test_tails_do_not_overflow():
    assert functrace.grad(special.log_ndtr)(-1e10) == pytest.approx(1e10)
    assert functrace.grad(functrace.grad(special.log_ndtr))(-1e10) == pytest.approx(-1)
    assert functrace.grad(special.expit)(-745.0) == pytest.approx(5e-324)
    assert functrace.grad(special.log_expit)(-1e300) == 1
    assert functrace.grad(special.logit)(1e-300) == pytest.approx(1e300)
    assert functrace.grad(special.i0e)(0.0) == 0


def test_products_with_logarithms_at_0():
    """0 log(0) is 0: in the factor the slope is log(0), in the argument of the logarithm 0/0 counts as 0."""
    with np.errstate(divide="ignore"):
        for f in (special.xlogy, special.rel_entr):
            assert f(0.0, 0.0) == 0
            assert functrace.grad(f, 1)(0.0, 0.0) == 0
            assert functrace.grad(f, 1)(0.0, 2.0) == 0
            assert functrace.grad(f, 0)(0.0, 2.0) == (np.log(2) if f is special.xlogy else -np.inf)
        assert functrace.grad(special.xlogy, 0)(0.0, 0.0) == -np.inf
        assert functrace.grad(special.xlog1py, 1)(0.0, -1.0) == 0
        assert functrace.grad(special.kl_div, 1)(0.0, 0.0) == 1
        assert functrace.grad(special.entr)(0.0) == np.inf
    # the mixed derivative at 0 is that of x / y
    assert functrace.grad(functrace.grad(special.xlogy, 1), 0)(0.0, 2.0) == 0.5


# the other doors


@pytest.mark.parametrize("name", [*UNARY, "expm1", "log1p", "exp2", "cbrt"])
def test_scipys_own_ufuncs_trace(name):
    x = np.array([0.25, 0.5, 0.75])
    actual = functrace.jvp(getattr(scipy.special, name), (x,), (np.ones(3),))
    expected = functrace.jvp(getattr(special, name, None) or getattr(np, name), (x,), (np.ones(3),))
    np.testing.assert_allclose(actual, expected, rtol=1e-15)


def test_scipys_own_ufuncs_of_several_operands_trace():
    assert functrace.grad(scipy.special.xlogy, 1)(2.0, 4.0) == 0.5
    assert functrace.grad(scipy.special.zeta, 1)(3.0, 2.0) == functrace.grad(special.zeta, 1)(3.0, 2.0)
    assert functrace.grad(lambda x: scipy.special.expn(2, x))(1.5) == functrace.grad(lambda x: special.expn(2, x))(1.5)
    values = functrace.vmap(scipy.special.sici)(np.array([1.0, 2.0]))
    np.testing.assert_allclose(values, scipy.special.sici([1.0, 2.0]))


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "polygamma", "factorial", "multigammaln"])
def test_scipys_python_functions_name_ours(name):
    args = {"polygamma": (1,)}.get(name, ())
    more = {"multigammaln": (2,)}.get(name, ())
    with pytest.raises(ConversionError, match=f"use functrace.scipy.special.{name}"):
        functrace.jvp(lambda x: getattr(scipy.special, name)(*args, x, *more), (np.ones(2) * 3,), (np.ones(2),))


def test_other_scipy_ufuncs_are_refused():
    with pytest.raises(UnsupportedFunctionError, match=r"(?s)scipy.special.hyp2f1 .*functrace.scipy.special lists"):
        functrace.grad(lambda x: scipy.special.hyp2f1(1, 2, 3, x))(0.5)


@pytest.mark.parametrize("name, position", REFUSED)
def test_parameters_without_derivative(name, position):
    f = getattr(special, name)
    with pytest.raises(MissingRuleError, match=r"(?s)no derivative rule with respect.*functrace.stop_gradient"):
        functrace.grad(f, position)(2.0, 0.5)
    stopped = functrace.grad(lambda t: f(functrace.stop_gradient(t), 0.5) * t)(2.0)
    np.testing.assert_allclose(stopped, f(2.0, 0.5))


def test_riemann_zeta_has_no_derivative():
    with pytest.raises(MissingRuleError, match="zeta has no derivative rule"):
        functrace.grad(special.zeta)(2.0)


def test_bad_options():
    with pytest.raises(UnsupportedFunctionError, match="gamma"):
        functrace.grad(lambda x: special.factorial(x, exact=True))(2.0)
    with pytest.raises(ArgumentError, match="pass d >= 1"):
        functrace.grad(lambda x: special.multigammaln(x, 0))(2.0)
    with pytest.raises(ArgumentError, match="pass the operands by position"):
        functrace.grad(lambda x: special.xlogy(x))(2.0)


def test_numpy_i0():
    x = np.array([-9.0, 0.0, 0.5, 9.0])
    for f in (np.i0, fnp.i0):
        np.testing.assert_allclose(value(f, x), np.i0(x), rtol=1e-14)
        np.testing.assert_allclose(functrace.jvp(f, (x,), (np.ones(4),))[1], scipy.special.i1(x))
    assert value(np.i0, np.float32([1.0])).dtype == np.float32
    assert value(np.i0, np.array([1, 2])).dtype == np.float64


# sums of exponentials

SHAPES = [((4,), None), ((2, 3), None), ((2, 3), 0), ((2, 3), -1), ((2, 3, 2), (0, 2)), ((), None)]


@pytest.mark.parametrize("shape, axis", SHAPES)
@pytest.mark.parametrize("dtype", ["f8", "f4", "i8"])
@pytest.mark.parametrize("name", ["logsumexp", "softmax", "log_softmax"])
def test_sums_of_exponentials(name, shape, axis, dtype, rng):
    x = (rng.normal(size=shape) * 3)[()].astype(dtype)
    f, reference = getattr(special, name), getattr(scipy.special, name)
    assert_same(value(lambda v: f(v, axis=axis), x), reference(x, axis=axis), rtol=2e-6 if dtype == "f4" else 1e-12)
    if dtype == "f8":
        check_grads(lambda v: f(v, axis=axis), (x,), order=2)


@pytest.mark.filterwarnings("ignore:divide by zero")
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, (0, 1)])
def test_logsumexp_options(axis, keepdims, rng):
    x, b = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
    options = {"axis": axis, "keepdims": keepdims}
    for weights in (None, np.abs(b), np.array([0.0, 1.0, 2.0]), 2.0):
        assert_same(
            value(lambda v, w=weights: special.logsumexp(v, b=w, **options), x),
            scipy.special.logsumexp(x, b=weights, **options),
        )
    assert_same(
        value(lambda v: special.logsumexp(v, b=b, return_sign=True, **options), x),
        scipy.special.logsumexp(x, b=b, return_sign=True, **options),
    )
    check_grads(lambda v, w: special.logsumexp(v, b=w * w, **options), (x, b), order=2)
    assert_same(
        value(lambda v: special.logsumexp(v, return_sign=True, **options), x),
        scipy.special.logsumexp(x, return_sign=True, **options),
    )


def test_sums_of_exponentials_at_extremes():
    x = np.array([1e4, 1e4 - 1, -1e4, -np.inf])
    assert_same(value(special.logsumexp, x), scipy.special.logsumexp(x))
    np.testing.assert_allclose(functrace.grad(special.logsumexp)(x), scipy.special.softmax(x), rtol=1e-12)
    tie = np.array([1.0, 1.0])
    np.testing.assert_allclose(functrace.grad(special.logsumexp)(tie), [0.5, 0.5])
    np.testing.assert_allclose(functrace.jacrev(special.softmax)(tie), [[0.25, -0.25], [-0.25, 0.25]])
    row = functrace.jacfwd(special.log_softmax)(x[:3])[0]
    np.testing.assert_allclose(row, [1, 0, 0] - scipy.special.softmax(x[:3]))


def test_vmap_and_compositions(rng):
    x = rng.uniform(0.5, 3, (3, 2))

    def loss(v):
        return np.add.reduce(special.gammaln(v) + special.xlogy(v, v))

    batched = functrace.vmap(functrace.grad(loss))(x)
    np.testing.assert_allclose(batched, scipy.special.digamma(x) + np.log(x) + 1)
    hessians = [functrace.hessian(loss, mode=m)(x[0]) for m in ("fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev")]
    for found in hessians:
        np.testing.assert_allclose(found, np.diag(scipy.special.polygamma(1, x[0]) + 1 / x[0]))


@pytest.mark.parametrize("options", [{}, {"b": np.array([1.0, -2.0, 0.4])}, {"return_sign": True}, {"axis": 0}])
@pytest.mark.parametrize("logsumexp", [special.logsumexp, functrace.nn.logsumexp])
def test_logsumexp_of_complex_numbers(logsumexp, options):
    z = np.array([1 + 2j, 0.3 - 1j, 2 + 14j])
    traced = value(lambda z: logsumexp(z, **options), z)
    expected = scipy.special.logsumexp(z, **options)
    for got, wanted in zip(*(v if isinstance(v, tuple) else (v,) for v in (traced, expected)), strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got, wanted, rtol=1e-12)
    if "return_sign" not in options:
        weights = options.get("b", 1.0) * np.exp(z)
        gradient = functrace.grad(lambda z: logsumexp(z, **options), holomorphic=True)(z)
        np.testing.assert_allclose(gradient, weights / weights.sum(), rtol=1e-12)


@pytest.mark.parametrize(
    "f",
    [
        special.softmax, special.log_softmax, special.factorial, special.zeta,
        lambda z: special.multigammaln(z, 2), lambda z: special.polygamma(1, z),
    ],
)  # fmt: skip
def test_real_functions_refuse_complex_numbers(f):
    with pytest.raises(DTypeError, match="real or imaginary part"):
        functrace.jvp(f, (np.array([2.5 + 1j]),), (np.array([1j]),))


def test_digamma_of_complex_numbers_has_no_derivative():
    with pytest.raises(MissingRuleError, match="custom_jvp"):
        functrace.grad(special.digamma, holomorphic=True)(1.0 + 1j)
