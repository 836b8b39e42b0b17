"""Values and arguments at the edge of what functions take: infinities with a direction, products that overflow in
another order, operands that NumPy refuses. Traced or compiled, the outcome is NumPy's, or an error that says why.
"""

import numpy as np
import pytest

import functrace as ft
import functrace.numpy as fnp
from functrace import errors, lax


def compiled(f):
    return ft.jit(f)


def mapped(f):
    return lambda *args: ft.vmap(f)(*[np.stack([a, a]) for a in args])[1]


def forward(f):
    def call(*args):
        inexact = [np.asarray(a).dtype.kind in "fc" for a in args]
        dots = [np.ones_like(a) if i else np.zeros(np.shape(a), ft.float0) for a, i in zip(args, inexact, strict=True)]
        return ft.jvp(f, args, tuple(dots))[0]

    return call


WAYS = pytest.mark.parametrize("way", [compiled, mapped, forward])
PARTS = [0.0, 1.0, -2.0, np.inf, -np.inf, np.nan]


@WAYS
@pytest.mark.parametrize("dtype", [np.complex128, np.complex64])
def test_sign_of_infinite_complex_numbers(way, dtype):
    z = np.array([complex(a, b) for a in PARTS for b in PARTS], dtype)
    with np.errstate(all="ignore"):
        expected, got = np.sign(z), way(fnp.sign)(z)
    for part in (np.real, np.imag):
        np.testing.assert_allclose(part(got), part(expected), rtol=1e-6)


def test_sign_of_finite_complex_numbers_keeps_its_derivative():
    def f(x, y):
        return np.real(fnp.sign(x + 1j * y))

    x, y = 0.6, -1.7
    np.testing.assert_allclose(ft.grad(f, argnums=(0, 1))(x, y), np.array([y * y, -x * y]) / np.hypot(x, y) ** 3)


@pytest.mark.parametrize("n", [4, 16, 17, 100])
def test_cumulative_products_are_taken_in_order(n):
    """[1e-200, 1e200, 1e200 ...]: any product of neighbours taken first would overflow."""
    x = np.r_[1e-200, 1e200, 1e200, 1e-200, np.full(n - 4, 1.1)]
    y = np.r_[0.5, 0.0, np.full(n - 3, 1e200), 3.0]  # zero from the second on, not nan
    for values in (x, y):
        np.testing.assert_array_equal(ft.jit(fnp.cumprod)(values), np.cumprod(values))
        backwards = ft.jit(lambda v: lax.cumprod(v, reverse=True))(values[::-1])
        np.testing.assert_array_equal(backwards[::-1], np.cumprod(values))
        rows = np.stack([values, values[::-1][::-1]])
        np.testing.assert_array_equal(ft.jit(lambda v: fnp.cumprod(v, axis=1))(rows), np.cumprod(rows, axis=1))
    whole = np.arange(1, n, dtype=np.int32)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(ft.jit(fnp.cumprod)(whole), np.cumprod(whole))


REFUSED = {
    "ends of another shape": (lambda x: fnp.diff(x, append=x[:, :1]), np.ones((2, 3, 4)), errors.ShapeError),
    "differences of truth values": (fnp.ediff1d, np.array([True, False]), errors.DTypeError),
    "spread of truth values": (fnp.ptp, np.array([True, False]), errors.DTypeError),
    "bins with two axes": (lambda x: fnp.digitize(x, np.ones((2, 2))), np.ones(3), errors.ShapeError),
    "bins without axes": (lambda x: fnp.digitize(x, 2.0), np.ones(3), errors.ShapeError),
    "axis out of bounds": (lambda x: fnp.nanargmax(x, axis=5), np.ones(3), errors.ShapeError),
    "axis of no integer": (lambda x: fnp.nanargmin(x, axis=1.5), np.ones(3), errors.ArgumentError),
    "axis twice": (lambda x: fnp.nanargmin(x, axis=(0, 0)), np.ones((3, 2)), errors.ArgumentError),
    "complex sigmoid": (ft.nn.sigmoid, np.ones(2, complex), errors.DTypeError),
    "complex softplus": (ft.nn.softplus, np.ones(2, complex), errors.DTypeError),
    "complex log_sigmoid": (ft.nn.log_sigmoid, np.ones(2, complex), errors.DTypeError),
    "complex silu": (ft.nn.silu, np.ones(2, complex), errors.DTypeError),
    "complex mish": (ft.nn.mish, np.ones(2, complex), errors.DTypeError),
    "complex glu": (ft.nn.glu, np.ones(2, complex), errors.DTypeError),
}


@WAYS
@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_is_refused_while_tracing(what, way):
    f, x, error = REFUSED[what]
    with pytest.raises(error) as caught:
        way(f)(x)
    assert "where: tests/test_hostile_values.py" in str(caught.value) and "remedy: " in str(caught.value)


POWERS = [lambda x, y: x**y, fnp.power, fnp.float_power, lax.pow, lambda x, y: np.real(fnp.power(x + 0j, y + 0j))]


@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize("x", [2.0, 0.5, 1.0])
def test_powers_with_exponents_0_and_1_have_all_their_derivatives(power, x):
    """d/dx x**y is zero at y = 0, but its derivative in y is 1/x; and so on from order to order."""
    log = np.log(x)
    for mode in ("fwd-rev", "rev-rev", "rev-fwd", "fwd-fwd"):
        second = ft.hessian(power, argnums=(0, 1), mode=mode)
        for way in (second, ft.jit(second)):
            np.testing.assert_allclose(np.array(way(x, 0.0)), [[0.0, 1 / x], [1 / x, log**2]], atol=1e-13)
            np.testing.assert_allclose(np.array(way(x, 1.0)), [[0.0, 1 + log], [1 + log, x * log**2]], atol=1e-13)
    third = ft.jacfwd(ft.grad(ft.grad(power)), argnums=1)  # d/dy of y (y - 1) x**(y - 2)
    np.testing.assert_allclose(third(x, 0.0), -1 / x**2)
    np.testing.assert_allclose(third(x, 1.0), 1 / x)
    last = ft.grad(ft.grad(ft.grad(lambda t: power(1.0 + t, 1.0 + t))))
    np.testing.assert_allclose(last(0.0), 3.0)


def test_powers_of_zero_keep_their_convention():
    for derivative in (ft.grad, ft.jacfwd):
        for x in (0.0, -0.0, np.nan, np.inf, 5e-324):
            assert derivative(lambda x: fnp.power(x, np.float64(0.0)))(x) == 0.0
            assert derivative(fnp.power, argnums=0)(x, 0.0) == 0.0
            arrays = derivative(lambda x: fnp.sum(fnp.power(x, np.array([0.0, 0.0]))))(np.array([x, x]))
            np.testing.assert_array_equal(arrays, 0.0)


@pytest.mark.parametrize("logsumexp", [ft.nn.logsumexp, ft.scipy.special.logsumexp])
def test_weights_of_zero_in_a_sum_of_exponentials_have_a_derivative(logsumexp):
    """d/db of log(sum(b exp(x))) is exp(x) over the sum, whatever b is."""
    x, b = np.array([0.5, -1.0, 2.0]), np.array([0.0, 1.5, 0.0])

    def f(x, b):
        return logsumexp(x, b=b)

    def plain(x, b):
        return np.log(np.sum(b * np.exp(x)))

    np.testing.assert_allclose(f(x, b), plain(x, b))
    for way in (lambda g: g, ft.jit):
        np.testing.assert_allclose(way(ft.grad(f, argnums=1))(x, b), np.exp(x) / np.sum(b * np.exp(x)))
        np.testing.assert_allclose(way(ft.jacfwd(f, argnums=1))(x, b), np.exp(x) / np.sum(b * np.exp(x)))
        for mode in ("fwd-rev", "rev-rev", "fwd-fwd"):
            second = way(ft.hessian(f, argnums=(0, 1), mode=mode))(x, b)
            expected = ft.hessian(plain, argnums=(0, 1), mode="fwd-fwd")(x, b)
            np.testing.assert_allclose(np.array(second), np.array(expected), atol=1e-12)


@pytest.mark.parametrize("logsumexp", [ft.nn.logsumexp, ft.scipy.special.logsumexp])
def test_infinite_elements_of_weight_zero_do_not_count(logsumexp):
    for far in (np.inf, np.nan, 1e300, 900.0, -np.inf):
        x, b = np.array([far, 1.0, 2.0]), np.array([0.0, 1.0, 1.0])
        for way in (lambda g: g, ft.jit):
            value, (x_bar, b_bar) = way(ft.value_and_grad(lambda x, b: logsumexp(x, b=b), argnums=(0, 1)))(x, b)
            share = np.exp(x[1:] - value)
            np.testing.assert_allclose(value, 2.0 + np.log1p(np.exp(-1.0)))
            np.testing.assert_allclose(x_bar, [0.0, *share])
            np.testing.assert_allclose(b_bar[1:], share)
