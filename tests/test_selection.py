"""Choices, rounding and questions: values against NumPy, and derivatives that never see a branch not taken."""

import numpy as np
import pytest

import functrace as ft
from functrace import grad, hessian, jacfwd, jacrev, jvp, vmap
from functrace.errors import ArgumentError, DTypeError, ShapeError, UnsupportedFunctionError
from functrace.numpy._dispatch import traced_ufuncs
from functrace.numpy._protocols import traced_form
from functrace.testing import check_grads
from tests.comparing import assert_like_numpy, forward

rng = np.random.default_rng(3)
X = rng.normal(size=(3, 4))
INTEGERS = rng.integers(-3, 4, (3, 4))
SPECIAL = np.array([np.nan, np.inf, -np.inf, 1.0, -0.0, 0.0])
SMALL = np.abs(INTEGERS).astype(np.uint8)
SINGLE = X.astype(np.float32)
COMPLEX = X + 1j * X[::-1]

# values


LIKE_NUMPY = {
    "where": (lambda a: np.where(a > 0, a, 0), X),
    "where of integers": (lambda a: np.where(a, a, 1.5), INTEGERS),
    "where of numbers": (lambda a: np.where(a > 0, 1, 2), X),
    "where promotes": (lambda a, b: np.where(a > 0, b, np.arange(4)), SINGLE, INTEGERS),
    "where of scalars": (lambda c, x: np.where(c, x, 2), np.True_, np.float32(3)),
    "where keeps float32": (lambda a: np.where(a > 0, a, 2.5), SINGLE),
    "where broadcasts": (lambda a, b: np.where(a > 0, b, 1), X, X[0]),
    "select": (lambda a: np.select([a < 0, a < 1], [a * 2, a**2], 7), X),
    "select of numbers": (lambda a: np.select([a < 0, a < 1], [1, 2]), X),
    "select broadcasts": (lambda a: np.select([a < 0, a[0] < 1], [a, np.arange(4)], -1), SINGLE),
    "clip": (lambda a: np.clip(a, -0.5, 0.5), X),
    "clip by keywords": (lambda a: np.clip(a, min=0.0, max=1), SINGLE),
    "clip from below": (lambda a: np.clip(a, -0.5, None), X),
    "clip from above": (lambda a: np.clip(a, None, 0.5), X),
    "clip by old names": (lambda a: np.clip(a, a_min=-0.5, a_max=0.5), X),
    "clip of integers": (lambda a: np.clip(a, -1, 1), INTEGERS),
    "clip promotes": (lambda a: np.clip(a, -1, 1.5), INTEGERS),
    "clip by arrays": (lambda a, b: np.clip(a, b, b + 1), X, X[0]),
    "clip beyond the dtype": (lambda a: np.clip(a, -1, 300), SMALL),
    "clip method": (lambda a: a.clip(0, 1), X),
    "clip of nan": (lambda a: np.clip(a, 0, 1), SPECIAL),
    "piecewise": (lambda a: np.piecewise(a, [a < 0, a >= 0.5], [lambda v: -v, lambda v: v**2, 7.0]), X),
    "piecewise without rest": (lambda a: np.piecewise(a, [a < 0, a >= 0.5], [lambda v: -v, 3]), X),
    "piecewise keeps integers": (lambda a: np.piecewise(a, [a < 0], [lambda v: -v, lambda v: v + 1.5]), INTEGERS),
    "piecewise, bare condition": (lambda a: np.piecewise(a, a < 0, [lambda v, k: -v * k, lambda v, k: v], 4), X[0]),
    "piecewise of a scalar": (lambda a: np.piecewise(a, [a < 0, a >= 0], [lambda v: -v, lambda v: v * 3]), X[0, 0]),
    "nan_to_num": (lambda a: np.nan_to_num(a), SPECIAL),
    "nan_to_num by": (lambda a: np.nan_to_num(a, nan=3.0, posinf=1, neginf=-4), SPECIAL),
    "nan_to_num of integers": (lambda a: np.nan_to_num(a), INTEGERS),
    "isclose": (lambda a, b: np.isclose(a, b), SPECIAL, SPECIAL),
    "isclose with nan": (lambda a, b: np.isclose(a, b, equal_nan=True), SPECIAL, SPECIAL),
    "isclose of integers": (lambda a: np.isclose(a, a + 1), INTEGERS),
    "allclose": (lambda a: np.allclose(a, a + 1e-9), X),
    "array_equal": (lambda a: np.array_equal(a, a), SPECIAL),
    "array_equal with nan": (lambda a: np.array_equal(a, a, equal_nan=True), SPECIAL),
    "array_equal of shapes": (lambda a: np.array_equal(a, a[:2]), X),
    "array_equiv": (lambda a: np.array_equiv(a, a[0]), X),
    "angle in degrees": (lambda a: np.angle(a, deg=True), COMPLEX),
    "round": (lambda a: np.round(a, 1), X * 100),
    "round to tens": (lambda a: np.round(a, -1), X * 100),
    "round integers to tens": (lambda a: np.round(a, -1), INTEGERS * 17),
    "round method": (lambda a: a.round(3), COMPLEX),
    "heaviside": (lambda a: np.heaviside(a, 0.5), SPECIAL),
    "heaviside keeps float32": (lambda a: np.heaviside(a, 0.5), SINGLE),
    "divmod": (lambda a, b: np.divmod(a, b), INTEGERS, X + 9),
    "divmod operator": (lambda a: divmod(a, 0.7), X),
}


@pytest.mark.parametrize("name", LIKE_NUMPY)
def test_like_numpy(name):
    f, *args = LIKE_NUMPY[name]
    assert_like_numpy(f, *args)


UNARY = [
    "isreal",
    "iscomplex",
    "angle",
    "sinc",
    "fix",
    "round",
    "around",
    "sign",
    "fabs",
    "modf",
    "frexp",
    "deg2rad",
    "rad2deg",
    "degrees",
    "radians",
    "logical_not",
    "isposinf",
    "isneginf",
    "nan_to_num",
]


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("x", [X, INTEGERS, COMPLEX, SPECIAL, SINGLE, X > 0], ids=lambda x: f"{x.dtype}{x.size}")
def test_unary_like_numpy(name, x):
    function = getattr(np, name)
    try:
        with np.errstate(all="ignore"):
            function(x)
    except TypeError:
        with pytest.raises(TypeError):
            forward(function, x)
        return
    assert_like_numpy(lambda a: function(a), x)


@pytest.mark.parametrize("name", ["logical_and", "logical_or", "logical_xor", "heaviside", "float_power"])
def test_binary_like_numpy(name):
    function = getattr(np, name)
    for x, y in ((X, X[::-1]), (INTEGERS, X), (INTEGERS, INTEGERS + 5), (SINGLE, SINGLE)):
        assert_like_numpy(lambda a, b: function(a, b), x, y)


def test_where_with_one_argument_gives_plain_positions():
    def f(x):
        rows, columns = np.where(x > 0)
        assert type(rows) is np.ndarray
        return x[rows, columns].sum()

    np.testing.assert_array_equal(grad(f)(X), X > 0)


def test_every_ufunc_of_numpy_is_traced_or_refused_by_name():
    ufuncs = {u for u in map(vars(np).get, dir(np)) if isinstance(u, np.ufunc)}
    untraced = {u.__name__ for u in ufuncs if traced_form(u) is None}
    assert untraced == {"isnat"}
    with pytest.raises(UnsupportedFunctionError, match="no dates"):
        grad(lambda x: np.isnat(x))(1.0)
    for ufunc in ufuncs - {np.isnat}:
        assert callable(traced_ufuncs[ufunc])
        assert callable(getattr(ft.numpy, ufunc.__name__))


# derivatives


SPACED = rng.permutation(np.arange(12.0)).reshape(3, 4) / 4 - 1.3
POSITIVE = rng.uniform(0.5, 2, (3, 4))
DIFFERENTIABLE = {
    "clip": (lambda a: np.clip(a, -0.5, a[0] + 1) ** 2, SPACED),
    "where": (lambda a: np.where(a > 0, a**3, np.sin(a)), SPACED),
    "select": (lambda a: np.select([a < -0.5, a < 0.6], [a**2, a**3], np.exp(a)), SPACED),
    "piecewise": (lambda a: np.piecewise(a, [a < -0.5, a > 0.6], [lambda v: v**2, np.exp, np.sin]), SPACED),
    "nan_to_num": (lambda a: np.nan_to_num(a) ** 2, SPACED),
    "angle": (lambda a, b: np.angle(a + 1j * b), SPACED, POSITIVE),
    "sinc": (lambda a: np.sinc(a), SPACED),
    "sign": (lambda a, b: np.real(np.sign(a + 1j * b) * (1 + 2j)), SPACED, POSITIVE),
    "modf": (lambda a: np.modf(a)[0] ** 2, SPACED),
    "frexp": (lambda a: np.frexp(a)[0] ** 2, SPACED),
    "degrees": (lambda a: np.deg2rad(a) * np.rad2deg(a), SPACED),
    "float_power": (lambda a, b: np.float_power(a, b), POSITIVE, SPACED),
    "divmod": (lambda a, b: np.divmod(a, b)[1] ** 2, SPACED, POSITIVE + 0.013),
    "fabs": (lambda a: np.fabs(a) * a, SPACED),
    "heaviside": (lambda a, b: np.heaviside(a, b) * a, SPACED, POSITIVE),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_derivatives(name):
    f, *args = DIFFERENTIABLE[name]
    check_grads(f, args, order=2)


# the branch not taken


AT = np.array([-1.0, 0.0, 2.0])
MATRIX = np.array([[1.0, -2.0, 0.5], [0.0, 1.0, 3.0], [2.0, 2.0, -1.0]])
MODES = ("fwd-fwd", "fwd-rev", "rev-fwd", "rev-rev")


def positive(x, y):
    """y where x is positive, else 0."""
    return np.where(x > 0, y, 0)


def positive_rows(x, y):
    return np.where(x[:, None] > 0, y, 0)


BETWEEN = {
    "nothing": lambda x: np.sum(positive(x, np.log(x))),
    "a product": lambda x: np.sum(positive(x, np.sqrt(x) * np.log(x))),
    "a division": lambda x: np.sum(positive(x, np.sin(x) / x)),
    "a power": lambda x: np.sum(positive(x, x**0.5)),
    "a sum": lambda x: np.sum(positive(x, np.log(x) + np.sqrt(x))),
    "a reshape": lambda x: np.sum(positive(x, np.reshape(np.reshape(np.log(x), (3, 1)), 3))),
    "a transpose": lambda x: np.sum(positive_rows(x, np.transpose(np.broadcast_to(np.log(x), (2, 3))))),
    "a broadcast": lambda x: np.sum(positive_rows(x, np.log(x)[:, None] * np.ones((3, 2)))),
    "a reduction": lambda x: np.sum(positive(x, np.sum(np.log(x)[:, None] * np.ones((3, 2)), axis=1))),
    "indexing": lambda x: np.sum(positive(x, np.log(x)[[0, 1, 2]])),
    "a concatenation": lambda x: np.sum(positive(x, np.concatenate([np.log(x[:1]), np.log(x[1:])]))),
    "a sort": lambda x: np.sum(positive(np.sort(x), np.log(np.sort(x)))),
    "another where": lambda x: np.sum(positive(x, np.where(x < 1, 1.0, np.log(x)))),
    "a choice twice": lambda x: np.sum(positive(x, positive(x, np.log(x)) / x)),
    "select": lambda x: np.sum(np.select([x > 1, x > 0], [np.log(x), np.sqrt(x)], 0.0)),
    "a scalar": lambda x: np.where(x[0] > 0, np.log(x[0]), 0.0) + np.where(x[2] > 0, np.log(x[2]), 0.0),
    "a matrix product of the rest": lambda x: np.sum(MATRIX @ positive(x, np.log(x))),
}


@pytest.mark.parametrize("between", BETWEEN)
def test_the_branch_not_taken_never_contributes(between):
    f = BETWEEN[between]
    only = lambda t: f(np.array([-1.0, 0.0, 1.0]) * np.where(AT > 0, t, 1.0))  # noqa: E731
    h = 1e-4
    with np.errstate(all="ignore"):
        values = [only(2 + k * h) for k in (-2, -1, 0, 1, 2)]
        slope = (8 * (values[3] - values[1]) - (values[4] - values[0])) / (12 * h)
        curvature = (16 * (values[3] + values[1]) - (values[4] + values[0]) - 30 * values[2]) / (12 * h * h)
        first, second = [0, 0, slope], np.diag([0, 0, curvature])
        assert np.isfinite(f(AT))
        for derivative in (grad(f), jacfwd(f), jacrev(f), lambda x: vmap(grad(f))(np.stack([x, x]))[0]):
            np.testing.assert_allclose(derivative(AT), first, rtol=1e-8)
        assert jvp(f, (AT,), (np.ones(3),))[1] == pytest.approx(slope, rel=1e-8)
        for mode in MODES:
            np.testing.assert_allclose(hessian(f, mode=mode)(AT), second, rtol=1e-5, atol=1e-9)


def test_a_matrix_product_before_the_choice_may_mix_rows():
    """Rows of a product are dead or alive as wholes; exact zeros of the matrix keep dead columns out."""

    def f(x):
        return np.sum(positive(x, np.diag([1.0, 2.0, 3.0]) @ np.where(x > 0, np.log(x), 0)))

    with np.errstate(all="ignore"):
        np.testing.assert_allclose(grad(f)(AT), [0, 0, 1.5])
        for mode in MODES:
            np.testing.assert_allclose(hessian(f, mode=mode)(AT), np.diag([0, 0, -0.75]))


def test_piecewise_evaluates_each_function_where_it_is_for():
    f = lambda x: np.sum(np.piecewise(x, [x > 0], [np.log, 0.0]))  # noqa: E731
    np.testing.assert_array_equal(grad(f)(AT), [0, 0, 0.5])
    np.testing.assert_array_equal(jacfwd(grad(f))(AT), np.diag([0, 0, -0.25]))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(vmap(grad(f))(np.stack([AT, AT])), [[0, 0, 0.5]] * 2)


# kinks


def test_clip_shares_the_derivative_at_a_bound():
    f = lambda x, low, high: np.clip(x, low, high)  # noqa: E731
    for x, expected in (
        (-1.0, (0, 1, 0)),
        (0.0, (0.5, 0.5, 0)),
        (0.5, (1, 0, 0)),
        (1.0, (0.5, 0, 0.5)),
        (2.0, (0, 0, 1)),
    ):
        assert grad(f, argnums=(0, 1, 2))(x, 0.0, 1.0) == expected
        assert jacfwd(f, argnums=(0, 1, 2))(x, 0.0, 1.0) == expected


def test_steps_have_derivative_zero():
    for f in (
        np.round,
        np.fix,
        np.sign,
        lambda x: np.modf(x)[1],
        lambda x: np.heaviside(x, 0.5),
        lambda x: divmod(x, 2.0)[0],
    ):
        assert [grad(f)(x) for x in (-1.5, 0.0, 2.0)] == [0, 0, 0]


def test_nan_to_num_has_no_derivative_at_what_it_replaces():
    np.testing.assert_array_equal(jacrev(np.nan_to_num)(SPECIAL), np.diag([0.0, 0, 0, 1, 1, 1]))


def test_complex_sign_at_zero():
    value, tangent = jvp(np.sign, (0j,), (1 + 1j,))
    assert value == tangent == 0


def test_sinc_is_smooth_at_zero():
    assert grad(np.sinc)(0.0) == 0
    assert grad(grad(np.sinc))(0.0) == pytest.approx(-(np.pi**2) / 3)


ERRORS = [
    (lambda x: np.where(x > 0, x), ArgumentError, "give both"),
    (lambda x: np.where(x > 0, x, np.ones(5)), ShapeError, "lengths must be equal or 1"),
    (lambda x: np.select([x > 0], [x, x]), ArgumentError, "a value for each condition"),
    (lambda x: np.select([x], [x]), DTypeError, "compare first"),
    (lambda x: np.clip(x, 0, 1, min=0), ArgumentError, "min= is the new name"),
    (lambda x: np.piecewise(x, [x > 0], [1, 2, 3]), ArgumentError, "correct the lists"),
    (lambda x: np.piecewise(x, [x[0] > 0], [1, 2]), ShapeError, "broadcast them first"),
    (lambda x: np.isposinf(x * 1j), DTypeError, "real or imaginary part"),
]


@pytest.mark.parametrize(("f", "error", "remedy"), ERRORS)
def test_errors_say_what_to_do(f, error, remedy):
    with pytest.raises(error, match=remedy):
        forward(f, X)
