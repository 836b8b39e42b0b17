"""Functions of neural networks: values against definitions, tails, kinks, dtypes and derivatives."""

import mpmath
import numpy as np
import pytest
import scipy.special

from functrace import grad, hessian, jacfwd, jacrev, jvp, nn, vmap
from functrace.errors import ShapeError
from functrace.testing import check_grads
from tests.comparing import assert_like_numpy

rng = np.random.default_rng(4)
X = rng.normal(size=(3, 4)) * 2 + 0.01
MASK = np.array([[1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 1]], bool)
WEIGHTS = rng.normal(size=(3, 4))

ELEMENTWISE = {
    nn.relu: lambda x: np.maximum(x, 0),
    nn.relu6: lambda x: np.clip(x, 0, 6),
    nn.leaky_relu: lambda x: np.where(x < 0, 0.01 * x, x),
    nn.elu: lambda x: np.where(x > 0, x, np.expm1(x)),
    nn.selu: lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    nn.celu: lambda x: np.where(x > 0, x, np.expm1(x)),
    nn.sigmoid: scipy.special.expit,
    nn.log_sigmoid: lambda x: -np.log1p(np.exp(-x)),
    nn.softplus: lambda x: np.log1p(np.exp(x)),
    nn.silu: lambda x: x / (1 + np.exp(-x)),
    nn.mish: lambda x: x * np.tanh(np.log1p(np.exp(x))),
    nn.soft_sign: lambda x: x / (1 + np.abs(x)),
    nn.squareplus: lambda x: (x + np.sqrt(x * x + 4)) / 2,
    nn.hard_tanh: lambda x: np.clip(x, -1, 1),
    nn.hard_sigmoid: lambda x: np.clip((x + 3) / 6, 0, 1),
    nn.hard_silu: lambda x: x * np.clip((x + 3) / 6, 0, 1),
    nn.gelu: lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
}
OTHERS = {
    "exact gelu": (lambda x: nn.gelu(x, approximate=False), lambda x: x * scipy.special.ndtr(x)),
    "elu of alpha": (lambda x: nn.elu(x, 0.7), lambda x: np.where(x > 0, x, 0.7 * np.expm1(x))),
    "celu of alpha": (lambda x: nn.celu(x, 0.7), lambda x: np.where(x > 0, x, 0.7 * np.expm1(x / 0.7))),
    "glu": (nn.glu, lambda x: x[:, :2] * scipy.special.expit(x[:, 2:])),
    "softmax": (nn.softmax, lambda x: scipy.special.softmax(x, axis=-1)),
    "softmax of all": (lambda x: nn.softmax(x, axis=None), scipy.special.softmax),
    "log_softmax": (lambda x: nn.log_softmax(x, axis=0), lambda x: scipy.special.log_softmax(x, axis=0)),
    "logsumexp": (nn.logsumexp, scipy.special.logsumexp),
    "logsumexp along": (
        lambda x: nn.logsumexp(x, axis=1, keepdims=True),
        lambda x: scipy.special.logsumexp(x, axis=1, keepdims=True),
    ),
    "weighted logsumexp": (
        lambda x: nn.logsumexp(x, axis=0, b=WEIGHTS, return_sign=True),
        lambda x: scipy.special.logsumexp(x, axis=0, b=WEIGHTS, return_sign=True),
    ),
    "masked logsumexp": (
        lambda x: nn.logsumexp(x, axis=0, where=MASK),
        lambda x: np.log(np.sum(np.exp(x), axis=0, where=MASK)),
    ),
    "masked softmax": (
        lambda x: nn.softmax(x, where=MASK),
        lambda x: np.where(MASK, np.exp(x), 0) / np.sum(np.exp(x), axis=1, where=MASK, keepdims=True),
    ),
    "standardize": (
        lambda x: nn.standardize(x, axis=0),
        lambda x: (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5),
    ),
}
ALL = {**{f.__name__: (f, g) for f, g in ELEMENTWISE.items()}, **OTHERS}


@pytest.mark.parametrize("name", ALL)
def test_values(name):
    f, definition = ALL[name]
    for got, expected in zip(np.atleast_1d(f(X)), np.atleast_1d(definition(X)), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert_like_numpy(f, X)
    assert_like_numpy(f, X.astype(np.float32))


@pytest.mark.parametrize("name", ALL)
def test_derivatives(name):
    f, _ = ALL[name]
    check_grads((lambda x: f(x)[0]) if isinstance(f(X), tuple) else f, (X,), order=2)


@pytest.mark.parametrize("f", ELEMENTWISE, ids=lambda f: f.__name__)
def test_numbers_and_single_precision(f):
    assert type(f(0.5)) is np.float64
    assert f(np.float32(0.5)).dtype == np.float32
    assert f(np.ones(2, np.float32)).dtype == np.float32
    assert grad(f)(np.float32(0.5)).dtype == np.float32
    assert f(np.arange(3)).dtype == (np.int64 if f in (nn.relu, nn.relu6, nn.hard_tanh) else np.float64)
    assert np.isnan(f(np.nan))


def test_slopes_at_kinks():
    slopes = {nn.relu: 0, nn.leaky_relu: 1, nn.elu: 1, nn.relu6: 0, nn.soft_sign: 1}
    for f, slope in slopes.items():
        assert grad(f)(0.0) == slope
        assert jvp(f, (0.0,), (1.0,))[1] == slope
    assert grad(nn.relu6)(6.0) == grad(nn.hard_tanh)(1.0) == grad(nn.hard_tanh)(-1.0) == 0


TAILS = [-800.0, -40.0, -1e-9, 0.0, 1e-9, 40.0, 800.0]


@pytest.mark.parametrize("x", TAILS)
def test_tails(x):
    with mpmath.workdps(800):
        e = mpmath.exp(-mpmath.mpf(x))
        sigmoid = 1 / (1 + e)
        exact = {
            nn.sigmoid: (sigmoid, sigmoid * (1 - sigmoid)),
            nn.log_sigmoid: (mpmath.log(sigmoid), 1 - sigmoid),
            nn.softplus: (-mpmath.log(1 - sigmoid), sigmoid),
            nn.silu: (x * sigmoid, sigmoid + x * sigmoid * (1 - sigmoid)),
        }
        expected = {f: tuple(map(float, pair)) for f, pair in exact.items()}
    for f, (value, slope) in expected.items():
        np.testing.assert_allclose(f(x), value, rtol=1e-14)
        np.testing.assert_allclose(grad(f)(x), slope, rtol=1e-12)


def test_softmax_of_large_and_infinite_values():
    np.testing.assert_allclose(
        nn.log_softmax(np.array([1e4, 1e4 + 1])), [-np.log1p(np.e), 1 - np.log1p(np.e)], rtol=1e-14
    )
    np.testing.assert_array_equal(nn.softmax(np.array([np.inf, 0.0, np.inf])), [0.5, 0, 0.5])
    np.testing.assert_array_equal(nn.softmax(np.array([-np.inf, 1000.0])), [0, 1])
    with np.errstate(invalid="ignore"):
        assert np.isnan(nn.softmax(np.full(2, -np.inf))).all()
    np.testing.assert_array_equal(nn.softmax(np.ones(2), where=np.zeros(2, bool)), [0, 0])
    masked = grad(lambda x: nn.softmax(x, where=np.array([True, False, True]))[0])(np.array([1.0, np.inf, 1.0]))
    np.testing.assert_array_equal(masked, [0.25, 0, -0.25])


def test_logsumexp_derivatives_are_softmax():
    x = X[0]
    shares = scipy.special.softmax(x)
    np.testing.assert_allclose(grad(nn.logsumexp)(x), shares)
    for mode in ("fwd-fwd", "fwd-rev", "rev-fwd", "rev-rev"):
        np.testing.assert_allclose(
            hessian(nn.logsumexp, mode=mode)(x), np.diag(shares) - np.outer(shares, shares), atol=1e-15
        )
    np.testing.assert_allclose(vmap(grad(nn.logsumexp))(X), scipy.special.softmax(X, axis=1))
    for jacobian in (jacfwd, jacrev):
        np.testing.assert_allclose(jacobian(nn.softmax)(x), np.diag(shares) - np.outer(shares, shares), atol=1e-15)


def test_weights_of_logsumexp():
    x, b = np.array([1.0, np.inf, 2.0]), np.array([2.0, 0.0, -1.0])
    value, sign = nn.logsumexp(x, b=b, return_sign=True)
    assert (value, sign) == (pytest.approx(np.log(np.e**2 - 2 * np.e)), -1)
    with np.errstate(invalid="ignore"):
        assert np.isnan(nn.logsumexp(x, b=b))
    derivative = grad(lambda x, b: nn.logsumexp(x, b=b, return_sign=True)[0], argnums=(0, 1))(
        np.array([1.0, 3.0]), b[:2] + 1
    )
    np.testing.assert_allclose(derivative[0], np.array([3 * np.e, np.e**3]) / (3 * np.e + np.e**3))
    np.testing.assert_allclose(derivative[1], np.array([np.e, np.e**3]) / (3 * np.e + np.e**3))


def test_one_hot():
    np.testing.assert_array_equal(
        nn.one_hot(np.array([0, 2, 5, -1]), 3), np.vstack([np.eye(3)[[0, 2]], np.zeros((2, 3))])
    )
    assert nn.one_hot(1, 2, dtype=np.float32).dtype == np.float32
    assert nn.one_hot(np.zeros((4, 5), int), 3, axis=0).shape == (3, 4, 5)
    np.testing.assert_array_equal(vmap(lambda i: nn.one_hot(i, 3))(np.arange(3)), np.eye(3))


def test_glu_needs_an_even_axis():
    with pytest.raises(ShapeError, match="even length"):
        nn.glu(np.ones(3))


def test_elements_that_do_not_count_have_no_derivative():
    where = np.array([True, False, True])
    f = lambda x: nn.log_softmax(x, where=where)  # noqa: E731
    share = np.exp(0.3) / (np.exp(0.3) + np.exp(0.1))
    expected = [[1 - share, 0, share - 1], [0, 0, 0], [-share, 0, share]]
    for jacobian in (jacfwd, jacrev):
        np.testing.assert_allclose(jacobian(f)(np.array([0.3, 0.7, 0.1])), expected)
