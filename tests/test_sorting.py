"""Sorting, partitions, medians and quantiles against NumPy and differences."""

import itertools

import numpy as np
import pytest

from functrace import grad, jacfwd, jacrev, vmap
from functrace.errors import ArgumentError, DTypeError, ShapeError, UnsupportedFunctionError
from functrace.testing import check_grads
from tests.comparing import assert_like_numpy, forward

rng = np.random.default_rng(2)
X = rng.normal(size=(3, 4))
HOLES = X.copy()
HOLES[0, 1] = np.nan
HOLES[2] = np.nan
INTEGERS = rng.integers(-3, 4, (3, 4))
ARRAYS = [X, INTEGERS, X + 1j * X[::-1], HOLES, X.astype(np.float32), X > 0]
SPACED = rng.permutation(np.arange(12.0)).reshape(3, 4) / 4 - 1.3


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: a.dtype.name)
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_sorting_like_numpy(array, axis):
    assert_like_numpy(lambda a: np.sort(a, axis=axis), array)
    assert_like_numpy(lambda a: np.sort(a, axis=axis, kind="stable"), array)
    assert_like_numpy(lambda a: np.argsort(a, axis=axis), array)
    assert_like_numpy(lambda a: np.argsort(a, axis=axis, stable=True), array)
    assert_like_numpy(lambda a: np.argpartition(a, (0, 2), axis=axis), array)
    last = -1 if axis is None else axis
    assert_like_numpy(lambda a: np.take(np.partition(a, 1, axis=axis), 1, axis=last), array)


def test_lexsort_like_numpy():
    small = INTEGERS.astype(np.int8)
    assert_like_numpy(lambda a, b: np.lexsort((a, b)), small, INTEGERS % 2)
    assert_like_numpy(lambda a, b: np.lexsort((a, b), axis=0), small, INTEGERS % 2)
    assert_like_numpy(lambda a: np.lexsort(a), INTEGERS)


def test_sort_method_assigns():
    def f(x):
        y = x * 1.0
        y.sort(axis=0)
        return y

    assert_like_numpy(f, X)


@pytest.mark.parametrize(
    "array", [X, INTEGERS, X.astype(np.float32), rng.normal(size=(2, 3, 5))], ids=lambda a: f"{a.dtype}{a.ndim}"
)
@pytest.mark.parametrize("keepdims", [False, True])
def test_quantiles_like_numpy(array, keepdims):
    for axis in (None, 0, -1, (0, 1)):
        options = {"axis": axis, "keepdims": keepdims}
        assert_like_numpy(lambda a: np.median(a, **options), array)  # noqa: B023
        assert_like_numpy(lambda a: np.nanmedian(a, **options), array)  # noqa: B023
        for q in (0.3, 0.0, 1.0, [0.1, 0.5], np.array([[0.2, 0.9], [0.5, 1.0]])):
            slack = {"rtol": 1e-6, "atol": 1e-6} if array.dtype == np.float32 else {}
            assert_like_numpy(lambda a: np.quantile(a, q, **options), array, **slack)  # noqa: B023
            if np.ndim(q) < 2:  # NumPy misplaces the axes of nanquantile otherwise
                assert_like_numpy(lambda a: np.nanquantile(a, q, **options), array, **slack)  # noqa: B023


def test_quantiles_of_nans_like_numpy():
    for axis in (None, 0, 1):
        assert_like_numpy(lambda a: np.median(a, axis=axis), HOLES)  # noqa: B023
        assert_like_numpy(lambda a: np.nanmedian(a, axis=axis), HOLES)  # noqa: B023
        assert_like_numpy(lambda a: np.percentile(a, [10, 90], axis=axis), HOLES)  # noqa: B023
        assert_like_numpy(lambda a: np.nanpercentile(a, 35.0, axis=axis), HOLES)  # noqa: B023


METHODS = [
    "linear",
    "interpolated_inverted_cdf",
    "hazen",
    "weibull",
    "median_unbiased",
    "normal_unbiased",
    "lower",
    "higher",
    "nearest",
    "inverted_cdf",
    "closest_observation",
    "midpoint",
    "averaged_inverted_cdf",
]


@pytest.mark.parametrize("method", METHODS)
def test_quantile_methods_like_numpy(method):
    for n, q in itertools.product((1, 2, 5, 8), np.linspace(0, 1, 13)):
        assert_like_numpy(lambda a: np.quantile(a, q, method=method), rng.normal(size=n), ways=(forward,))  # noqa: B023
    assert_like_numpy(lambda a: np.quantile(a, [0.2, 0.7], method=method, axis=0), INTEGERS)
    assert_like_numpy(lambda a: np.nanquantile(a, [0.2, 0.7], method=method, axis=1), HOLES)


def test_quantile_at_traced_fractions_like_numpy():
    assert_like_numpy(lambda a, q: np.quantile(a, q, axis=1), X, np.array([0.1, 0.4]))
    assert_like_numpy(lambda a, q: np.percentile(a, q), X, np.float64(31.0))


FRACTIONS = np.array([0.2, 0.77])
DIFFERENTIABLE = {
    "sort": (lambda a: np.sort(a**2, axis=0) * np.arange(3.0)[:, None], SPACED),
    "flat sort": (lambda a: np.sort(a, axis=None) ** 2, SPACED),
    "partition": (lambda a: np.partition(a**2, 2, axis=1)[:, 2], SPACED),
    "argsort": (lambda a: np.take_along_axis(a**2, np.argsort(-a, axis=1), axis=1), SPACED),
    "median": (lambda a: np.median(a**2, axis=1), SPACED),
    "odd median": (lambda a: np.median(a**2, axis=0), SPACED),
    "quantile": (lambda a: np.quantile(a**2, FRACTIONS, axis=0), SPACED),
    "quantile by fraction": (lambda a, q: np.quantile(a**2, q, axis=0), SPACED, FRACTIONS),
    "nanquantile": (lambda a, q: np.nanquantile(a**2, q, axis=1), SPACED, FRACTIONS),
    "percentile, hazen": (lambda a: np.percentile(a**2, 33.0, method="hazen"), SPACED),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_derivatives(name):
    f, *args = DIFFERENTIABLE[name]
    check_grads(f, args, order=2)


def test_sorting_moves_tangents_in_stable_order():
    x = np.array([2.0, 1.0, 2.0, 1.0])
    expected = np.eye(4)[[1, 3, 0, 2]]
    for jacobian in (jacfwd, jacrev):
        np.testing.assert_array_equal(jacobian(np.sort)(x), expected)
    rows = rng.normal(size=(3, 4))
    np.testing.assert_array_equal(vmap(jacrev(np.sort))(rows), np.stack([np.eye(4)[np.argsort(row)] for row in rows]))


def test_median_takes_the_elements_in_the_middle():
    np.testing.assert_array_equal(grad(np.median)(np.array([5.0, 1.0, 3.0])), [0, 0, 1])
    np.testing.assert_array_equal(grad(np.median)(np.array([5.0, 1.0, 3.0, 2.0])), [0, 0, 0.5, 0.5])
    np.testing.assert_array_equal(grad(np.nanmedian)(np.array([5.0, np.nan, 3.0])), [0.5, 0, 0.5])


ERRORS = [
    (lambda x: np.sort(x, axis=5), ShapeError, "use axis from -2 to 1"),
    (lambda x: np.sort(x, kind="fast"), ArgumentError, "use one of"),
    (lambda x: np.sort(x, kind="stable", stable=True), ArgumentError, "give one of them"),
    (lambda x: np.sort(x, order="name"), UnsupportedFunctionError, "leave order= out"),
    (lambda x: np.partition(x, 9), ShapeError, "use kth from -4 to 3"),
    (lambda x: np.partition(x, np.argmax(x)), ArgumentError, "use numpy.sort"),
    (lambda x: np.quantile(x, 2.0), ArgumentError, "from 0 to 1"),
    (lambda x: np.percentile(x, -1), ArgumentError, "from 0 to 100"),
    (lambda x: np.quantile(x, 0.5, method="best"), ArgumentError, "use one of 'linear'"),
    (lambda x: np.quantile(x * 1j, 0.5), DTypeError, "astype"),
    (lambda x: np.quantile(x[:0], 0.5), ShapeError, "reduce an axis with elements"),
    (lambda x: np.lexsort((x, x[0])), ShapeError, "broadcast them first"),
]


@pytest.mark.parametrize(("f", "error", "remedy"), ERRORS)
def test_errors_say_what_to_do(f, error, remedy):
    with pytest.raises(error, match=remedy):
        forward(f, X)
