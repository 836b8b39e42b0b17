"""Compiled loops along one axis: rests of vectors, numbers that lie apart, extrema and positions, convolutions."""

import numpy as np
import pytest

import functrace.numpy as fnp
from functrace import grad, jit

RNG = np.random.default_rng(14)
LENGTHS = [1, 2, 7, 8, 9, 17, 33, 65, 129, 257]
DTYPES = [np.float64, np.float32, np.int64, np.int8, np.bool_, np.complex128]


def numbers(shape, dtype):
    values = RNG.integers(0, 2, size=shape) if dtype == np.bool_ else 7 * RNG.normal(size=shape)
    if np.dtype(dtype).kind == "u":
        values = np.abs(values)
    return values.astype(dtype)


def close(function, *args):
    expected = function(*args)
    rtol = {"float32": 2e-5, "complex64": 2e-5}.get(np.asarray(expected).dtype.name, 1e-12)
    np.testing.assert_allclose(jit(function)(*args), expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", LENGTHS)
def test_rests_of_vectors(n, dtype):
    x, rows = numbers(n, dtype), numbers((5, n), dtype)
    close(lambda x: x[::-1] * x + x, x)
    close(lambda a: np.sum(a, axis=1), rows)
    close(lambda a: (np.cumsum(a, axis=1), np.sum(a * a, axis=1))[0], rows)
    if np.dtype(dtype).kind != "c":
        close(lambda a: np.stack([np.max(a, axis=1), np.min(a, axis=1)]), rows)
        close(lambda x: np.max(x) - np.min(x) if x.dtype != bool else np.max(x), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5), (16, 100), (100, 16), (64, 33)])
def test_numbers_that_lie_apart(shape, dtype):
    a = numbers(shape, dtype)
    close(lambda a: np.transpose(a) + np.transpose(a)[:, ::-1], a)
    close(lambda a: a[:, ::2] + a[:, ::2], a)
    close(lambda a: a[1::2, ::-3] * a[1::2, ::-3], a)
    close(lambda a: np.sum(np.transpose(a) * np.transpose(a), axis=1), a)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint16])
@pytest.mark.parametrize("n", LENGTHS)
def test_positions_of_extrema(n, dtype):
    a = RNG.integers(0, 5, size=(6, n)).astype(dtype)  # with ties
    for axis in (0, 1):
        for function in (np.argmax, np.argmin):
            result = jit(lambda a, f=function, axis=axis: f(a, axis=axis))(a)
            np.testing.assert_array_equal(result, function(a, axis=axis))
            assert result.dtype == np.intp


@pytest.mark.parametrize("where", [0, 5, 40])
def test_the_first_nan_is_the_extremum(where):
    x = RNG.normal(size=70)
    x[3], x[where], x[60] = np.inf, np.nan, np.nan
    for function in (np.argmax, np.argmin):
        assert jit(lambda x, f=function: f(x))(x) == function(x)
    assert np.isnan(jit(lambda x: np.max(x))(x)) and np.isnan(jit(lambda x: np.min(x))(x))


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.complex128])
@pytest.mark.parametrize("taps", [1, 3, 8, 9, 21])
def test_convolutions(taps, dtype):
    y = numbers(taps, dtype)
    for n in (1, 9, 40):
        x = numbers(n, dtype)
        close(lambda x, y: fnp.convolve(x, y), x, y)
        close(lambda x, y: fnp.convolve(x[::-1], y[::-1]), x, y)
    close(lambda x, y: fnp.convolve(x, y, "same"), numbers(50, dtype), y)
    close(lambda x, y: fnp.convolve(x, y, "valid"), numbers(50, dtype), y)


@pytest.mark.parametrize("n", [15, 16, 17, 200])
@pytest.mark.parametrize("reverse", [False, True])
def test_running_logarithms_of_sums(n, reverse):
    """Also of numbers of which the exponentials overflow or vanish, of infinities and of NaN."""
    a = RNG.normal(size=(6, n)) * np.array([1.0, 300.0, 1.0, 1.0, 1.0, 1e4])[:, None]
    a[2, :5], a[2, 9], a[3], a[4, 6], a[5, 3] = -np.inf, -np.inf, -np.inf, np.inf, np.nan

    def function(a):
        return np.logaddexp.accumulate(a[:, ::-1], 1)[:, ::-1] if reverse else np.logaddexp.accumulate(a, 1)

    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(jit(function)(a), function(a), rtol=1e-12, atol=1e-12)
    slope = grad(lambda x: np.sum(np.sin(function(x[None]))))
    np.testing.assert_allclose(jit(slope)(a[0]), slope(a[0]), rtol=1e-9, atol=1e-12)
