"""Reductions, cumulative operations, statistics and calculus against NumPy, closed forms and differences."""

import itertools
import warnings

import numpy as np
import pytest

import functrace as ft
import functrace.numpy as fnp
from functrace import grad, hessian, jacfwd, jacrev, jvp, vmap
from functrace.errors import ArgumentError, DTypeError, ShapeError, UnsupportedFunctionError
from functrace.primitives import reduction as r
from functrace.testing import check_grads
from tests.comparing import assert_like_numpy, forward

rng = np.random.default_rng(0)
X = rng.normal(size=(3, 4))
HOLES = X.copy()
HOLES[0, 1] = HOLES[2, 0] = np.nan
EMPTY_ROW = HOLES.copy()
EMPTY_ROW[1] = np.nan
MASK = rng.random((3, 4)) < 0.6
INTEGERS = rng.integers(-3, 4, (3, 4))
SINGLE = X.astype(np.float32)
ARRAYS = {
    "float64": X,
    "float32": SINGLE,
    "float16": X.astype(np.float16),
    "complex": X + 1j * X[::-1],
    "int64": INTEGERS,
    "int8": INTEGERS.astype(np.int8),
    "uint8": np.abs(INTEGERS).astype(np.uint8),
    "bool": X > 0,
    "nan": EMPTY_ROW,
    "scalar": np.float64(2.0),
    "empty": np.zeros((2, 0, 3)),
}
AXES = (None, 0, -1, (0, 1), (1,), ())
REDUCTIONS = [
    "sum",
    "prod",
    "max",
    "min",
    "mean",
    "var",
    "std",
    "any",
    "all",
    "ptp",
    "count_nonzero",
    "nansum",
    "nanprod",
    "nanmax",
    "nanmin",
    "nanmean",
    "nanvar",
    "nanstd",
]


def accepts(f, *args):
    """Whether NumPy itself takes these arguments."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            f(*args)
    except Exception:
        return False
    return True


def check(f, *args, **options):
    if accepts(f, *args):
        assert_like_numpy(f, *args, **options)


# values, shapes and dtypes


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("kind", ARRAYS)
def test_reduction_like_numpy(name, kind):
    function = getattr(np, name)
    for axis, keepdims in itertools.product(AXES, (False, True)):
        check(lambda a: function(a, axis=axis, keepdims=keepdims), ARRAYS[kind])  # noqa: B023


@pytest.mark.parametrize(
    "name", ["sum", "prod", "mean", "var", "std", "any", "all", "nansum", "nanprod", "nanmean", "nanvar", "nanstd"]
)
@pytest.mark.parametrize("kind", ["float64", "float32", "int64", "complex", "nan"])
def test_where_like_numpy(name, kind):
    function = getattr(np, name)
    for axis in (None, 0, (0, 1)):
        check(lambda a: function(a, axis=axis, where=MASK), ARRAYS[kind])  # noqa: B023
        check(lambda a: function(a, axis=axis, where=MASK[0]), ARRAYS[kind])  # noqa: B023
        check(lambda a, m: function(a, axis=axis, where=m, keepdims=True), ARRAYS[kind], MASK)  # noqa: B023


@pytest.mark.parametrize("name", ["max", "min", "nanmax", "nanmin", "sum", "prod", "nansum", "nanprod"])
@pytest.mark.parametrize("kind", ["float64", "float32", "int64", "int8", "nan", "empty"])
def test_initial_like_numpy(name, kind):
    function = getattr(np, name)
    for axis in (None, 0, 1):
        check(lambda a: function(a, axis=axis, initial=1), ARRAYS[kind])  # noqa: B023
        check(lambda a: function(a, axis=axis, where=MASK, initial=0), ARRAYS[kind])  # noqa: B023


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "var", "std", "cumsum", "cumprod", "nansum"])
def test_dtype_like_numpy(name):
    function = getattr(np, name)
    for kind, dtype in itertools.product(("float64", "float32", "int8"), (np.float32, np.float64, np.complex128)):
        check(lambda a: function(a, axis=0, dtype=dtype), ARRAYS[kind])  # noqa: B023
    if name not in ("var", "std"):
        check(lambda a: function(a, axis=0, dtype=np.int32), ARRAYS["int8"])


@pytest.mark.parametrize("name", ["var", "std", "nanvar", "nanstd"])
def test_degrees_of_freedom_like_numpy(name):
    function = getattr(np, name)
    for kind, axis in itertools.product(("float64", "int64", "complex", "nan"), (None, 0, 1)):
        check(lambda a: function(a, axis=axis, ddof=1), ARRAYS[kind])  # noqa: B023
        check(lambda a: function(a, axis=axis, correction=1.5), ARRAYS[kind])  # noqa: B023
    check(lambda a: function(a, axis=1, mean=np.mean(a, axis=1, keepdims=True)), X)


@pytest.mark.parametrize("name", ["argmax", "argmin", "nanargmax", "nanargmin"])
def test_positions_like_numpy(name):
    function = getattr(np, name)
    for array in (X, INTEGERS, X > 0, HOLES, ARRAYS["float32"]):
        for axis, keepdims in itertools.product((None, 0, -1), (False, True)):
            check(lambda a: function(a, axis=axis, keepdims=keepdims), array)  # noqa: B023


@pytest.mark.parametrize("name", ["cumsum", "cumprod", "nancumsum", "nancumprod"])
@pytest.mark.parametrize("kind", ARRAYS)
def test_cumulative_like_numpy(name, kind):
    function = getattr(np, name)
    for axis in (None, 0, -1):
        check(lambda a: function(a, axis=axis), ARRAYS[kind])  # noqa: B023


@pytest.mark.parametrize("name", ["cumulative_sum", "cumulative_prod"])
def test_array_api_cumulative_like_numpy(name):
    function = getattr(np, name)
    for array, initial in itertools.product((X, ARRAYS["int8"]), (False, True)):
        check(lambda a: function(a, axis=1, include_initial=initial), array)  # noqa: B023
    check(lambda a: function(a), X[0])


@pytest.mark.parametrize("ufunc", [np.maximum, np.minimum, np.logaddexp, np.add, np.multiply])
def test_accumulate_like_numpy(ufunc):
    for array, axis in itertools.product((X, ARRAYS["float32"], HOLES), (0, 1)):
        check(lambda a: ufunc.accumulate(a, axis=axis), array)  # noqa: B023


WEIGHTS = rng.uniform(0.2, 1, 4)


@pytest.mark.parametrize("kind", ["float64", "float32", "int64", "complex"])
def test_average_like_numpy(kind):
    a = ARRAYS[kind]
    full = rng.uniform(0.2, 1, (3, 4))
    check(lambda x: np.average(x), a)
    check(lambda x: np.average(x, axis=1, returned=True), a)
    check(lambda x, w: np.average(x, axis=1, weights=w), a, WEIGHTS)
    check(lambda x, w: np.average(x, weights=w, returned=True), a, full)
    check(lambda x, w: np.average(x, axis=0, weights=w, returned=True, keepdims=True), a, full)
    check(lambda x, w: np.average(x, axis=(1, 0), weights=w), a, full.T)


@pytest.mark.parametrize("rowvar", [True, False])
def test_covariance_like_numpy(rowvar):
    for kind in ("float64", "float32", "int64", "complex"):
        for options in ({}, {"bias": True}, {"ddof": 0}, {"ddof": 2}):
            check(lambda a: np.cov(a, rowvar=rowvar, **options), ARRAYS[kind])  # noqa: B023
        check(lambda a: np.corrcoef(a, rowvar=rowvar), ARRAYS[kind])
    check(lambda a, b: np.cov(a, b, rowvar=rowvar), X, X**2)
    check(lambda a, b: np.corrcoef(a, b), X[0], X[1])
    check(lambda a: np.cov(a), X[0])
    for options in ({"fweights": [1, 2, 3, 1]}, {"aweights": WEIGHTS}, {"fweights": [1, 2, 3, 1], "aweights": WEIGHTS}):
        check(lambda a: np.cov(a, **options), X)  # noqa: B023
        check(lambda a: np.cov(a, ddof=0, **options), X)  # noqa: B023


@pytest.mark.parametrize("kind", ["float64", "int64", "bool", "complex", "uint8"])
def test_diff_like_numpy(kind):
    for n, axis in itertools.product((0, 1, 2, 5), (0, -1)):
        check(lambda a: np.diff(a, n, axis), ARRAYS[kind])  # noqa: B023
    check(lambda a: np.diff(a, prepend=0, append=a[:, :2]), ARRAYS[kind])
    check(lambda a: np.ediff1d(a), ARRAYS[kind])


def test_ediff1d_like_numpy():
    check(lambda a: np.ediff1d(a, to_begin=[1.0, 2.0], to_end=3.0), X)
    check(lambda a: np.ediff1d(a), np.zeros(0))
    check(lambda a: np.ediff1d(a, -1, 5), INTEGERS)


@pytest.mark.parametrize("edge_order", [1, 2])
def test_gradient_like_numpy(edge_order):
    x = np.sort(rng.normal(size=4))
    options = {"edge_order": edge_order}
    for array in (X, INTEGERS, ARRAYS["float32"]):
        check(lambda a: np.gradient(a, **options), array)
        check(lambda a: np.gradient(a, 2.0, axis=0, **options), array)
    check(lambda a, x: np.gradient(a, x, axis=1, **options), X, x)
    check(lambda a, x: np.gradient(a, 0.5, x, **options), X, x)


def test_trapezoid_like_numpy():
    x = np.sort(rng.normal(size=4))
    check(lambda a: np.trapezoid(a), X)
    check(lambda a: np.trapezoid(a, dx=0.1, axis=0), ARRAYS["float32"])
    check(lambda a, x: np.trapezoid(a, x), X, x)
    check(lambda a, x: np.trapezoid(a, x, axis=0), X, X**2)
    check(lambda a: np.trapezoid(a), INTEGERS)


KNOTS, HEIGHTS = np.array([0.0, 1.0, 2.5, 4.0]), np.array([1.0, -1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    "x", [np.array([-1.0, 0, 0.5, 1, 2, 4, 5]), np.float64(1.2), np.array([[0.1, 3.9]]), np.array([1, 2])]
)
def test_interp_like_numpy(x):
    check(lambda x, xp, fp: np.interp(x, xp, fp), x, KNOTS, HEIGHTS)
    check(lambda x, xp, fp: np.interp(x, xp, fp, left=-7, right=8.0), x, KNOTS, HEIGHTS)
    check(lambda x, xp, fp: np.interp(x, xp, fp, period=3.0), x, KNOTS, HEIGHTS)
    check(lambda x, xp, fp: np.interp(x, xp, fp), x, KNOTS, HEIGHTS * 1j)
    check(lambda x, xp, fp: np.interp(x, xp, fp, left=2.0), x, KNOTS[1:2], HEIGHTS[:1])
    check(lambda x: np.interp(x, KNOTS, HEIGHTS), np.array([np.nan, np.inf, -np.inf]))


@pytest.mark.parametrize("function", [np.convolve, np.correlate])
@pytest.mark.parametrize("mode", ["full", "same", "valid"])
def test_convolution_like_numpy(function, mode):
    for n, m in ((3, 2), (2, 4), (4, 4), (1, 3), (5, 2), (3, 6)):
        a, v = rng.normal(size=n), rng.normal(size=m)
        check(lambda a, v: function(a, v, mode), a, v)
        check(lambda a, v: function(a, v, mode), a * 1j, v + 1j)
        check(lambda a, v: function(a, v, mode), np.arange(n), np.arange(m))


def test_unwrap_like_numpy():
    arrays = [
        np.array([0, 3.0, 6.5, 9.0, 12.1, -5]),
        np.array([0.0, np.pi, 2 * np.pi, 3 * np.pi]),
        np.array([1, 4, 8, 2, 9]),
        np.cumsum(rng.normal(size=(3, 7)) * 4, axis=1),
    ]
    for array in arrays:
        check(lambda a: np.unwrap(a), array)
        check(lambda a: np.unwrap(a, period=4), array)
        check(lambda a: np.unwrap(a, discont=4.0, axis=0), array)


POLYNOMIAL = np.array([2.0, -1.0, 0.5, 3.0])


def test_polynomials_like_numpy():
    for x in (X, SINGLE, INTEGERS, np.float64(2.0)):
        check(lambda p, x: np.polyval(p, x), POLYNOMIAL, x)
        check(lambda x: np.polyval([1, 2, 3], x), x)
    for m in (0, 1, 2, 5):
        check(lambda p: np.polyder(p, m), POLYNOMIAL)  # noqa: B023
        check(lambda p: np.polyint(p, m), POLYNOMIAL)  # noqa: B023
        check(lambda p: np.polyint(p, m, 7.0), POLYNOMIAL)  # noqa: B023
    check(lambda p, q: np.polyadd(p, q), POLYNOMIAL, POLYNOMIAL[:2])
    check(lambda p, q: np.polysub(p, q), POLYNOMIAL[1:], POLYNOMIAL)


# derivatives against differences, in both modes and all nestings


POSITIVE = rng.uniform(0.5, 2, (3, 4))
ZEROS = POSITIVE.copy()
ZEROS[0, 1] = ZEROS[2, 0] = ZEROS[2, 3] = 0
SPACED = rng.permutation(np.arange(12.0)).reshape(3, 4) / 4 - 1.3
ASCENDING = np.sort(rng.normal(size=4))
PHASES = np.array([0, 3.0, 6.5, 9.0, 12.1, -5])

DIFFERENTIABLE = {
    "sum": (lambda a: np.sum(a * a, axis=0, where=MASK, initial=2.0), SPACED),
    "prod": (lambda a: np.prod(a, axis=1), ZEROS),
    "prod of all": (lambda a: np.prod(a), ZEROS),
    "prod over axes": (lambda a: np.prod(a, axis=(0, 1), keepdims=True), POSITIVE),
    "max": (lambda a: np.max(a, axis=0), SPACED),
    "max where": (lambda a: np.max(a**2, axis=0, where=MASK, initial=-np.inf), SPACED),
    "min": (lambda a: np.min(a**2), SPACED),
    "mean": (lambda a: np.mean(a**2, axis=1, where=MASK), SPACED),
    "var": (lambda a: np.var(a, axis=0, ddof=1), SPACED),
    "var where": (lambda a: np.var(a, axis=1, where=MASK), SPACED),
    "std": (lambda a: np.std(a, axis=(0, 1)), SPACED),
    "ptp": (lambda a: np.ptp(a**2, axis=0), SPACED),
    "nansum": (lambda a: np.nansum(a**2, axis=0), SPACED),
    "nanprod": (lambda a: np.nanprod(a, axis=0), SPACED),
    "nanmax": (lambda a: np.nanmax(a**2, axis=1), SPACED),
    "nanmean": (lambda a: np.nanmean(np.exp(a)), SPACED),
    "nanvar": (lambda a: np.nanvar(a, axis=1), SPACED),
    "nanstd": (lambda a: np.nanstd(a), SPACED),
    "average": (lambda a, w: np.average(a, axis=1, weights=w), SPACED, WEIGHTS),
    "cumsum": (lambda a: np.cumsum(a**2, axis=0), SPACED),
    "cumprod": (lambda a: np.cumprod(a, axis=1), ZEROS),
    "flat cumprod": (lambda a: np.cumprod(a), ZEROS),
    "cumulative_prod": (lambda a: np.cumulative_prod(a, axis=0, include_initial=True), ZEROS),
    "maximum.accumulate": (lambda a: np.maximum.accumulate(a**2, axis=1), SPACED),
    "logaddexp.accumulate": (lambda a: np.logaddexp.accumulate(a), SPACED[0]),
    "cov": (lambda a: np.cov(a), SPACED[:2]),
    "weighted cov": (lambda a, w: np.cov(a, aweights=w), SPACED[:2], WEIGHTS),
    "corrcoef": (lambda a: np.corrcoef(a), SPACED[:2] ** 2),
    "diff": (lambda a: np.diff(a**2, 2, axis=1, prepend=1.0), SPACED),
    "gradient": (lambda a, x: np.gradient(a**2, x, axis=1, edge_order=2), SPACED, ASCENDING),
    "gradient by step": (lambda a, h: np.gradient(a**2, h, axis=0), SPACED, 0.3),
    "trapezoid": (lambda a, x: np.trapezoid(a**2, x), SPACED, ASCENDING),
    "interp": (lambda x, xp, fp: np.interp(x, xp, fp), np.array([0.3, 1.7, 3.9, -1.0, 7.0]), KNOTS, HEIGHTS),
    "periodic interp": (lambda x, xp, fp: np.interp(x, xp, fp, period=5.0), np.array([0.3, 3.9, -1.3]), KNOTS, HEIGHTS),
    "convolve": (lambda a, v: np.convolve(a**2, v, "same"), WEIGHTS, ASCENDING[:3]),
    "correlate": (lambda a, v: np.correlate(a**2, v), WEIGHTS, ASCENDING[:3]),
    "polyval": (lambda p, x: np.polyval(p, x), POLYNOMIAL, SPACED),
    "polyint": (lambda p: np.polyint(p, 2) ** 2, POLYNOMIAL),
    "unwrap": (lambda a: np.unwrap(a) ** 2, PHASES),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_derivatives(name):
    f, *args = DIFFERENTIABLE[name]
    check_grads(f, args, order=2)


@pytest.mark.parametrize("zeros", range(5))
def test_product_to_third_order_with_any_number_of_zeros(zeros):
    x = np.array([2.0, -3.0, 0.5, 1.5])
    x[:zeros] = 0

    def entry(*indices):
        return float(np.prod(np.delete(x, indices))) if len(set(indices)) == len(indices) else 0.0

    first = [entry(i) for i in range(4)]
    second = [[entry(i, j) for j in range(4)] for i in range(4)]
    third = [[[entry(i, j, k) for k in range(4)] for j in range(4)] for i in range(4)]
    for f in (np.prod, lambda a: np.cumprod(a)[-1], lambda a: np.cumprod(a[::-1])[-1]):
        np.testing.assert_allclose(grad(f)(x), first, atol=1e-15)
        for mode in ("fwd-fwd", "fwd-rev", "rev-fwd", "rev-rev"):
            np.testing.assert_allclose(hessian(f, mode=mode)(x), second, atol=1e-15)
        np.testing.assert_allclose(jacfwd(jacrev(jacfwd(f)))(x), third, atol=1e-15)


# kinks


def test_extrema_share_the_derivative_among_ties():
    x = np.array([1.0, 3.0, 3.0, 0.0])
    for derivative in (grad(np.max), jacfwd(np.max), lambda a: vmap(grad(np.max))(np.stack([a, a]))[1]):
        np.testing.assert_array_equal(derivative(x), [0, 0.5, 0.5, 0])
    np.testing.assert_array_equal(grad(np.min)(-x), [0, 0.5, 0.5, 0])
    np.testing.assert_array_equal(grad(lambda a: np.nanmax(a))(np.array([2.0, np.nan, 2.0])), [0.5, 0, 0.5])
    np.testing.assert_array_equal(grad(np.ptp)(np.zeros(4)), np.zeros(4))


def test_cumulative_extrema_share_the_derivative_among_ties_so_far():
    x = np.array([1.0, 3.0, 2.0, 3.0, 5.0, 5.0])
    expected = np.zeros((6, 6))
    for k in range(6):
        ties = x[: k + 1] == x[: k + 1].max()
        expected[k, : k + 1] = ties / ties.sum()
    for jacobian in (jacfwd, jacrev):
        np.testing.assert_array_equal(jacobian(np.maximum.accumulate)(x), expected)
        np.testing.assert_array_equal(jacobian(np.minimum.accumulate)(-x), expected)


def test_old_names_of_the_extrema():
    assert_like_numpy(lambda a: np.amax(a, axis=0) - np.amin(a, axis=1, keepdims=True), X)


def test_extremum_of_nan_is_nan():
    x = np.array([1.0, np.nan, 2.0])
    value, tangent = jvp(np.max, (x,), (np.array([1.0, 2.0, 3.0]),))
    assert np.isnan(value)
    assert tangent == 2.0
    np.testing.assert_array_equal(grad(np.max)(x), [0, 1, 0])


def test_an_infinite_derivative_elsewhere_does_not_reach_the_extremum():
    for f in (lambda a: np.max(np.sqrt(a)), lambda a: np.sum(np.sqrt(a), where=a > 0)):
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(grad(f)(np.array([0.0, 4.0])), [0, 0.25])
            np.testing.assert_array_equal(jacfwd(f)(np.array([0.0, 4.0])), [0, 0.25])


def test_standard_deviation_of_equal_elements_has_no_derivative():
    with np.errstate(all="ignore"):
        assert np.isnan(grad(np.std)(np.ones(3))).all()
    np.testing.assert_array_equal(grad(np.var)(np.ones(3)), np.zeros(3))


def test_nans_get_no_derivative_from_nan_functions():
    x = np.array([1.0, np.nan, 3.0])
    np.testing.assert_array_equal(grad(np.nansum)(x), [1, 0, 1])
    np.testing.assert_array_equal(grad(np.nanmean)(x), [0.5, 0, 0.5])
    np.testing.assert_array_equal(grad(np.nanprod)(x), [3, 0, 1])
    np.testing.assert_allclose(grad(np.nanvar)(x), [-1, 0, 1])
    np.testing.assert_array_equal(jacrev(np.nancumsum)(x), [[1, 0, 0], [1, 0, 0], [1, 0, 1]])


def test_interpolation_has_the_slope_on_the_right_at_knots():
    slope = grad(lambda x: np.interp(x, KNOTS, HEIGHTS))
    assert [slope(x) for x in (-1.0, 0.0, 1.0, 4.0, 5.0)] == pytest.approx([0, -2, 2, 2 / 3, 0])


def test_all_nan_slices_warn_as_in_numpy():
    with pytest.warns(RuntimeWarning, match="All-NaN slice"):
        grad(lambda a: np.nanmax(a, axis=1).sum())(EMPTY_ROW)


# logarithm of sums of exponentials


@pytest.mark.parametrize(
    ("x", "shares"),
    [
        ([-np.inf, 0.0, 0.0], [0, 0.5, 0.5]),
        ([np.inf, 0.0, np.inf], [0.5, 0, 0.5]),
        ([np.inf, -np.inf], [1, 0]),
        ([-np.inf, -np.inf], [0, 0]),
        ([1000.0, 1000.0], [0.5, 0.5]),
        ([np.nan, 0.0], [np.nan, np.nan]),
    ],
)
def test_logsumexp_at_infinity(x, shares):
    x = np.array(x)
    f = lambda a: r.logsumexp(a, axes=(0,))  # noqa: E731
    with np.errstate(all="ignore"):
        expected = np.logaddexp.reduce(x)
    np.testing.assert_allclose(f(x), expected)
    np.testing.assert_array_equal(grad(f)(x), shares)
    np.testing.assert_array_equal(jacfwd(f)(x), shares)
    curvature = np.diag(shares) - np.outer(shares, shares)
    for mode in ("fwd-fwd", "fwd-rev", "rev-fwd", "rev-rev"):
        np.testing.assert_allclose(hessian(f, mode=mode)(x), curvature)


def test_cumulative_logsumexp_at_infinity():
    x = np.array([-np.inf, -np.inf, 0.0, 0.0])
    expected = [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0.5, 0.5]]
    for jacobian in (jacfwd, jacrev):
        np.testing.assert_array_equal(jacobian(np.logaddexp.accumulate)(x), expected)


@pytest.mark.parametrize("ufunc", [np.logaddexp, np.logaddexp2])
@pytest.mark.parametrize(
    ("x", "shares"),
    [
        ([np.inf, 1.0], [1, 0]),
        ([np.inf, np.inf], [0.5, 0.5]),
        ([-np.inf, 1.0], [0, 1]),
        ([-np.inf, np.inf], [0, 1]),
        ([-np.inf, -np.inf], [0, 0]),
    ],
)
def test_logaddexp_at_infinity(ufunc, x, shares):
    for derivative in (grad, jacfwd):
        np.testing.assert_array_equal(derivative(ufunc, argnums=(0, 1))(*x), shares)


@pytest.mark.parametrize("function", [np.median, np.nanmedian, lambda x, axis: np.quantile(x, 0.4, axis=axis)])
def test_quantiles_of_infinities(function):
    x = np.array([[np.inf, 1.0, 2.0], [-np.inf, 1.0, 2.0], [np.inf, -np.inf, 1.0], [3.0, 1.0, np.inf]])
    with np.errstate(invalid="ignore"):
        expected = function(x, axis=1)
    np.testing.assert_array_equal(ft.vjp(lambda x: function(x, axis=1), x)[0], expected)


# results and options


def test_results_are_new_objects():
    def f(x):
        y = np.sum(x, axis=())
        y[0] = 7.0
        return x * 1.0

    np.testing.assert_array_equal(forward(f, np.array([1.0, 2.0])), [1, 2])


def test_out_takes_a_traced_buffer():
    def f(x):
        out = ft.numpy.zeros(3)
        np.sum(x * x, axis=1, out=out)
        return out.sum()

    np.testing.assert_allclose(grad(f)(X), 2 * X)


def test_out_refuses_a_plain_buffer():
    with pytest.raises(ft.errors.AssignmentError, match="make the buffer a traced array"):
        grad(lambda x: np.sum(x, axis=1, out=np.zeros(3)).sum())(X)


def test_constants_inside_a_trace_are_numpys():
    def f(x):
        total = ft.numpy.sum(np.arange(3))
        assert type(total) is np.int64
        return x * total

    assert grad(f)(2.0) == 3


ERRORS = [
    (lambda x: np.sum(x, axis=2), ShapeError, "use axis from -2 to 1"),
    (lambda x: np.max(x, axis=(0, 0)), ShapeError, "name each axis at most once"),
    (lambda x: np.max(x[:0]), ShapeError, "reduce an axis with elements"),
    (lambda x: np.argmax(x[:0], axis=0), ShapeError, "reduce an axis with elements"),
    (lambda x: np.max(x, where=MASK), ArgumentError, "give initial="),
    (lambda x: np.sum(x, where=MASK * 1.0), DTypeError, "compare first"),
    (lambda x: np.sum(x, where=np.ones(5, bool)), ShapeError, "give it the array's shape"),
    (lambda x: np.var(x, dtype=int), DTypeError, "leave dtype= out"),
    (lambda x: np.var(x, ddof=1, correction=1), ArgumentError, "give one of them"),
    (lambda x: np.nanargmax(x * np.nan), ArgumentError, "nan_to_num"),
    (lambda x: np.cumulative_sum(x), ShapeError, "give axis="),
    (lambda x: np.average(x, weights=np.zeros((3, 4))), ArgumentError, "sum is not zero"),
    (lambda x: np.average(x, axis=0, weights=np.ones(4)), ShapeError, "of the array's shape"),
    (lambda x: np.cov(x[None]), ShapeError, "functrace.vmap"),
    (lambda x: np.diff(x, -1), ArgumentError, "use n >= 0"),
    (lambda x: np.gradient(x, 1.0, 2.0, 3.0), ArgumentError, "a number or an array of positions per axis"),
    (lambda x: np.gradient(x, np.ones(7), axis=0), ShapeError, "as long as the axis"),
    (lambda x: np.interp(x, [0.0, 1.0], [1.0]), ShapeError, "functrace.vmap"),
    (lambda x: np.convolve(x, x), ShapeError, "functrace.vmap"),
    (lambda x: np.convolve(x[0], x[0], "whole"), ArgumentError, "use one of 'full'"),
    (lambda x: np.sum(x, dtype=object), DTypeError, "outside the traced function"),
    (lambda x: np.maximum.reduce(x, dtype=np.float32), UnsupportedFunctionError, "astype"),
]


@pytest.mark.parametrize(("f", "error", "remedy"), ERRORS)
def test_errors_say_what_to_do(f, error, remedy):
    with pytest.raises(error, match=remedy):
        forward(f, X)


@pytest.mark.parametrize("axis", [None, 0, -1])
def test_cummax_and_cummin_are_numpys_accumulations(axis):
    x = np.array([[1.0, 3.0, 2.0], [4.0, 0.0, 5.0]])
    for ours, ufunc in ((fnp.cummax, np.maximum), (fnp.cummin, np.minimum)):
        expected = ufunc.accumulate(x.ravel() if axis is None else x, 0 if axis is None else axis)
        np.testing.assert_array_equal(ours(x, axis), expected)
        value, tangent = jvp(lambda x, ours=ours: ours(x, axis), (x,), (np.ones_like(x),))
        np.testing.assert_array_equal(value, expected)
        np.testing.assert_array_equal(tangent, np.ones_like(expected))
