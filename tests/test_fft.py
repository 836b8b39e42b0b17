"""Fourier transforms: NumPy's values, shapes and dtypes; adjoints; closed forms; errors."""

import functools

import numpy as np
import pytest

import functrace
import functrace.numpy as fnp
from functrace.errors import ArgumentError, DTypeError, ShapeError, UnsupportedFunctionError
from functrace.testing import check_grads

ONE_AXIS = ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"]
SEVERAL = ["fftn", "ifftn", "rfftn", "irfftn", "fft2", "ifft2", "rfft2", "irfft2"]
REAL_INPUT = {"rfft", "ihfft", "rfftn", "rfft2"}


def draw(shape, dtype=np.float64):
    rng = np.random.default_rng([5, *shape])
    values = rng.normal(size=shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.normal(size=shape)
    if np.dtype(dtype).kind in "iu":
        values = np.round(3 * values)
    return values.astype(dtype)


def check_value(function, x):
    expected = function(x)
    closed = functrace.make_jaxpr(function)(x)
    (staged,) = functrace.eval_jaxpr(closed.jaxpr, closed.consts, x)
    batched = functrace.vmap(function)(np.stack([x, x]))[1]
    tolerance = 1e-5 if expected.dtype in (np.float32, np.complex64) else 1e-12
    for out in (staged, batched):
        assert (out.shape, out.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_allclose(out, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("norm", [None, "ortho", "forward"])
@pytest.mark.parametrize("n", [None, 1, 3, 4, 9])
@pytest.mark.parametrize(("shape", "axis"), [((4,), -1), ((5,), 0), ((3, 4), 0), ((2, 5, 3), 1)])
@pytest.mark.parametrize("name", ONE_AXIS)
def test_values_along_one_axis(name, shape, axis, n, norm):
    function = functools.partial(getattr(np.fft, name), n=n, axis=axis, norm=norm)
    for dtype in (np.float64, np.int64) if name in REAL_INPUT else (np.float64, np.complex128, np.int64):
        check_value(function, draw(shape, dtype))


@pytest.mark.parametrize(
    ("s", "axes"),
    [
        (None, None),
        (None, (0, 1)),
        (None, (1,)),
        ((4, 3), (0, 1)),
        ((2, 6), (-1, 0)),
        ((5, -1), (1, 2)),
        (None, (1, 1)),
    ],
)
@pytest.mark.parametrize("name", SEVERAL)
def test_values_along_several_axes(name, s, axes):
    if axes is None and name.endswith("2"):
        axes = (-2, -1)
    for dtype in (np.float64,) if name in REAL_INPUT else (np.float64, np.complex128):
        check_value(functools.partial(getattr(np.fft, name), s=s, axes=axes, norm="ortho"), draw((3, 4, 5), dtype))


@pytest.mark.parametrize("name", ONE_AXIS + SEVERAL)
def test_single_precision(name):
    check_value(getattr(np.fft, name), draw((4, 6), np.float32))
    if name not in REAL_INPUT:
        check_value(getattr(np.fft, name), draw((4, 6), np.complex64))


@pytest.mark.parametrize("name", ONE_AXIS + SEVERAL)
def test_derivatives(name):
    function = getattr(np.fft, name)
    check_grads(function, (draw((3, 4)),), order=2)
    if name not in REAL_INPUT:
        check_grads(function, (draw((3, 4), np.complex128),), order=2)


@pytest.mark.parametrize("axes", [None, 0, (1,), (0, 1), [-1]])
@pytest.mark.parametrize("name", ["fftshift", "ifftshift"])
def test_shifts(name, axes):
    function = functools.partial(getattr(np.fft, name), axes=axes)
    check_value(function, draw((3, 4)))
    check_grads(function, (draw((3, 4)),), order=1)


def test_parseval():
    """The gradient of the energy of the spectrum is 2 n x."""
    x = draw((7,))
    energy = functrace.grad(lambda x: np.sum(np.abs(np.fft.fft(x)) ** 2))(x)
    np.testing.assert_allclose(energy, 2 * 7 * x)
    spectrum = functrace.grad(
        lambda x: np.sum(np.real(np.fft.rfft(x, norm="ortho") * np.conj(np.fft.rfft(x, norm="ortho"))))
    )(x)
    expected = np.fft.irfft(np.fft.rfft(x) * np.r_[2.0, 1, 1, 1], 7)
    np.testing.assert_allclose(spectrum, expected)


@pytest.mark.parametrize("mode", ["fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev"])
def test_spectral_derivative_hessian(mode):
    """The Hessian of sum of the squared spectral derivative is the squared differentiation matrix."""
    frequencies = 1j * 2 * np.pi * fnp.fft.rfftfreq(5)

    def energy(x):
        return np.sum(np.fft.irfft(frequencies * np.fft.rfft(x), 5) ** 2) / 2

    matrix = np.fft.irfft(frequencies[:, None] * np.fft.rfft(np.eye(5), axis=0), 5, axis=0)
    np.testing.assert_allclose(functrace.hessian(energy, mode=mode)(draw((5,))), matrix.T @ matrix, atol=1e-12)


def test_convolution_theorem():
    x, y = draw((6,)), draw((6,))[::-1]

    def convolve(x, y):
        return np.fft.irfft(np.fft.rfft(x) * np.fft.rfft(y), 6)

    expected = np.array([[y[(i - j) % 6] for j in range(6)] for i in range(6)])
    np.testing.assert_allclose(functrace.jacfwd(convolve)(x, y), expected, atol=1e-12)
    np.testing.assert_allclose(functrace.jacrev(convolve)(x, y), expected, atol=1e-12)


def test_outside_a_trace_numpy_itself():
    x = draw((4, 6))
    for name in ONE_AXIS + SEVERAL:
        np.testing.assert_array_equal(getattr(fnp.fft, name)(x), getattr(np.fft, name)(x))


@pytest.mark.parametrize(
    ("function", "error", "remedy"),
    [
        (lambda x: np.fft.fft(x, norm="unitary"), ArgumentError, "choose 'backward'"),
        (lambda x: np.fft.fft(x, n=0), ArgumentError, "positive integer"),
        (lambda x: np.fft.irfft(x[:, :1]), ArgumentError, "positive integer"),
        (lambda x: np.fft.fft(x, axis=2), ShapeError, "use axis from -2 to 1"),
        (lambda x: np.fft.rfft(x + 0j), DTypeError, "use fft, or pass x.real"),
        (lambda x: np.fft.ihfft(x + 0j), DTypeError, "use ifft"),
        (lambda x: np.fft.rfftn(x + 0j), DTypeError, "use fftn"),
        (lambda x: np.fft.rfftn(x, axes=()), ShapeError, "name an axis"),
        (lambda x: np.fft.fftn(x, s=(2, 3), axes=(0,)), ShapeError, "s and axes of one length"),
        (lambda x: np.fft.fft(x, out=np.ones(4, complex)), UnsupportedFunctionError, "assign the result"),
    ],
)
def test_errors(function, error, remedy):
    with pytest.raises(error, match=remedy):
        functrace.eval_shape(function, draw((3, 4)))
