"""Derivatives of derivatives: perturbation confusion, closures, orders to five, every composition to depth three."""

import itertools
import math

import numpy as np
import pytest

import functrace
from functrace import grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from functrace.testing import difference

NESTINGS = ["fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev"]


def forward(f):
    """The derivative of a scalar function of a scalar by forward mode."""
    return lambda x: jvp(f, (x,), (1.0,))[1]


def linearized(f):
    return lambda x: linearize(f, x)[1](1.0)


def staged(f):
    """The derivative of the recorded program."""

    def derivative(x):
        closed = functrace.make_jaxpr(f)(x)
        return jvp(lambda x: functrace.eval_jaxpr(closed.jaxpr, closed.consts, x)[0], (x,), (1.0,))[1]

    return derivative


def batched(f):
    """The derivative in a batch of one."""
    return lambda x: vmap(grad(f), axis_size=1, in_axes=None)(x)[0]


DERIVATIVES = [forward, grad, linearized, jacfwd, jacrev, batched]
pairs = pytest.mark.parametrize(("outer", "inner"), list(itertools.product(DERIVATIVES, repeat=2)))


# J. M. Siskind and B. A. Pearlmutter, Perturbation confusion and referential transparency (2005).


@pairs
def test_perturbation_confusion(outer, inner):
    assert outer(lambda x: x * inner(lambda y: x + y)(1.0))(1.0) == 1.0
    assert outer(lambda x: x * inner(lambda y: x * y)(1.0))(3.0) == 6.0
    assert outer(lambda x: inner(lambda y: x)(2.0) + x)(3.0) == 1.0
    assert outer(lambda x: inner(lambda y: y * y)(x))(5.0) == 2.0


@pairs
def test_inner_derivative_at_an_outer_value(outer, inner):
    def f(x):
        return inner(lambda y: np.sin(x * y) * y)(x)

    # d/dy (sin(xy) y) at y = x is x^2 cos(x^2) + sin(x^2)
    expected = 4 * 0.7 * math.cos(0.49) - 2 * 0.7**3 * math.sin(0.49)
    np.testing.assert_allclose(outer(f)(0.7), expected, rtol=1e-13)


@pairs
def test_amazing_bug(outer, inner):
    """O. Manzyuk and others, Perturbation confusion in forward automatic differentiation of higher-order functions."""

    def shift(offset):
        return lambda f: lambda x: f(x + offset)

    d_shift = outer(lambda offset: inner(shift(offset)(np.exp))(0.4))
    np.testing.assert_allclose(d_shift(0.0), math.exp(0.4), rtol=1e-14)
    # Applied twice, the two derivatives must not meet.
    twice = outer(lambda a: inner(lambda x: shift(a)(shift(a)(np.exp))(x))(0.4))
    np.testing.assert_allclose(twice(0.0), 2 * math.exp(0.4), rtol=1e-14)


def test_confusion_through_vmap():
    xs = np.array([1.0, 2.0, 3.0])

    def f(x):
        return vmap(lambda k: x * grad(lambda y: x * y * k)(1.0))(xs) @ np.ones(3)

    # sum_k x * (x k) = 6 x^2
    for derivative in DERIVATIVES:
        np.testing.assert_allclose(derivative(f)(3.0), 36.0)
    np.testing.assert_allclose(grad(grad(f))(3.0), 12.0)


def test_vmap_of_derivative_closed_over_the_batch():
    xs = np.array([1.0, 2.0, 3.0])
    got = vmap(lambda x: x * grad(lambda y: (x + y) ** 2)(x))(xs)
    np.testing.assert_allclose(got, 4 * xs * xs)
    got = vmap(lambda x: grad(lambda y: vmap(lambda z: x * y * z)(xs) @ np.ones(3))(1.0))(xs)
    np.testing.assert_allclose(got, 6 * xs)


def test_mutual_closures():
    def f(x):
        return grad(lambda y: grad(lambda z: x * y * z * z)(y) * y)(x)

    # d/dz: 2xyz at z=y: 2xy^2, times y: 2xy^3, d/dy: 6xy^2 at y=x: 6x^3, derivative 18 x^2
    for derivative in DERIVATIVES:
        np.testing.assert_allclose(derivative(f)(2.0), 72.0)


def test_pullbacks_escape_and_return():
    def f(x):
        y, pullback = vjp(lambda z: z * x, x * x)
        (bar,) = pullback(y)
        return bar

    # y = x^3, bar = x * y = x^4
    np.testing.assert_allclose(forward(f)(2.0), 32.0)
    np.testing.assert_allclose(grad(grad(f))(2.0), 48.0)


def test_closure_captured_by_pullback_is_differentiated():
    def f(x):
        _, pullback = vjp(lambda y: np.sin(y) * x, 0.3)
        _, f_jvp = linearize(lambda y: y * y * x, 2.0)
        return pullback(x)[0] + f_jvp(x)

    # x^2 cos 0.3 + 4 x^2
    for derivative in DERIVATIVES:
        np.testing.assert_allclose(derivative(f)(1.5), 2 * 1.5 * (math.cos(0.3) + 4), rtol=1e-14)


# orders


FIVE = list(itertools.product([forward, grad, staged], repeat=5))[::9]


@pytest.mark.parametrize("path", FIVE, ids=lambda p: "-".join(d.__name__ for d in p))
def test_fifth_derivative(path):
    def f(x):
        return np.exp(2 * x) * x

    derivative = f
    for transform in path:
        derivative = transform(derivative)
    # (x e^{2x})^(5) = 32 x e^{2x} + 80 e^{2x}
    expected = (32 * 0.3 + 80) * math.exp(0.6)
    np.testing.assert_allclose(derivative(0.3), expected, rtol=1e-12)


@pytest.mark.parametrize("transform", DERIVATIVES)
def test_derivatives_of_powers_end_in_zero(transform):
    derivative = lambda x: x**3  # noqa: E731
    for expected in (12.0, 12.0, 6.0, 0.0, 0.0):
        derivative = transform(derivative)
        np.testing.assert_allclose(derivative(2.0), expected)


def test_jacobians_of_third_order():
    def f(x):
        return np.sin(x[0]) * x[1] ** 2 + np.exp(x[0] * x[1])

    x = np.array([0.3, -0.4])
    third = [a(b(c(f)))(x) for a, b, c in itertools.product([jacfwd, jacrev], repeat=3)]
    for other in third[1:]:
        np.testing.assert_allclose(other, third[0], rtol=1e-12)
    second = hessian(f)
    numeric = np.stack([difference(lambda x: [second(x)], [x], [e])[0] for e in np.eye(2)], axis=-1)
    np.testing.assert_allclose(third[0], numeric, rtol=1e-8)


# every composition to depth three


def vector_function(x):
    return np.sin(x) * x[::-1] + np.where(x > 0, x * x, np.exp(x))


def t_jvp(f):
    return lambda x: jvp(f, (x,), (np.cos(x),))[1]


def t_vjp(f):
    return lambda x: vjp(f, x)[1](np.exp(-x))[0]


def t_linearize(f):
    return lambda x: linearize(f, x)[1](x)


def t_jacfwd(f):
    return lambda x: jacfwd(f)(x) @ x


def t_jacrev(f):
    return lambda x: x @ jacrev(f)(x)


def t_hessian(f):
    return lambda x: hessian(f)(x) @ x @ x


def t_vmap(f):
    def mapped(x):
        return vmap(f)(np.stack([x, 2 * x])).T @ np.array([1.0, 0.5])

    return mapped


def t_vmap_closure(f):
    return lambda x: vmap(lambda k: f(k * x))(np.array([1.0, 0.5])).T @ np.array([1.0, 0.5])


def t_stage(f):
    def evaluated(x):
        closed = functrace.make_jaxpr(f)(x)
        functrace.core.ir.check_jaxpr(closed.jaxpr)
        return functrace.eval_jaxpr(closed.jaxpr, closed.consts, x)[0]

    return evaluated


TRANSFORMS = [t_jvp, t_vjp, t_linearize, t_jacfwd, t_jacrev, t_hessian, t_vmap, t_vmap_closure, t_stage]
# What each computes, by differences of the function under it: plain NumPy, no transformation.
STEP = 1e-3


def derivative_along(f, x, v):
    h = STEP
    return (8 * (f(x + h * v) - f(x - h * v)) - (f(x + 2 * h * v) - f(x - 2 * h * v))) / (12 * h)


def jacobian_of(f, x):
    return np.stack([derivative_along(f, x, e) for e in np.eye(len(x))], axis=-1)


NUMERIC = {
    t_jvp: lambda f: lambda x: derivative_along(f, x, np.cos(x)),
    t_vjp: lambda f: lambda x: jacobian_of(f, x).T @ np.exp(-x),
    t_linearize: lambda f: lambda x: derivative_along(f, x, x),
    t_jacfwd: lambda f: lambda x: jacobian_of(f, x) @ x,
    t_jacrev: lambda f: lambda x: jacobian_of(f, x).T @ x,
    t_hessian: lambda f: lambda x: derivative_along(lambda y: derivative_along(f, y, x), x, x),
    t_vmap: lambda f: lambda x: f(x) + 0.5 * f(2 * x),
    t_vmap_closure: lambda f: lambda x: f(x) + 0.5 * f(0.5 * x),
    t_stage: lambda f: f,
}
POINT = np.array([0.3, -0.4, 0.7])


def smooth(x):
    return np.sin(x) * x[::-1] + x * np.exp(x)


@pytest.mark.parametrize(
    "path", list(itertools.product(TRANSFORMS, repeat=2)), ids=lambda p: "-".join(t.__name__[2:] for t in p)
)
def test_two_transformations_against_differences(path):
    got, numeric = smooth, smooth
    for transform in path:
        got, numeric = transform(got), NUMERIC[transform](numeric)
    tolerance = 1e-3 if path == (t_hessian, t_hessian) else 1e-5
    np.testing.assert_allclose(got(POINT), numeric(POINT), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "path", list(itertools.product(TRANSFORMS, repeat=2)), ids=lambda p: "-".join(t.__name__[2:] for t in p)
)
def test_three_transformations_agree_eagerly_staged_and_batched(path):
    for outer in TRANSFORMS:
        f = outer(path[1](path[0](vector_function)))
        eager = f(POINT)
        assert eager.shape == (3,)
        assert np.all(np.isfinite(eager))
        np.testing.assert_allclose(t_stage(f)(POINT), eager, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(vmap(f)(np.stack([POINT, POINT]))[1], eager, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("inner", TRANSFORMS, ids=lambda t: t.__name__[2:])
@pytest.mark.parametrize("outer", TRANSFORMS, ids=lambda t: t.__name__[2:])
def test_forward_and_reverse_agree_in_the_middle(outer, inner):
    """J x by columns and by rows of the same Jacobian, whatever is inside and outside."""
    by_columns = outer(lambda x: jacfwd(inner(smooth))(x) @ x)(POINT)
    by_rows = outer(lambda x: jacrev(inner(smooth))(x) @ x)(POINT)
    by_jvp = outer(lambda x: jvp(inner(smooth), (x,), (x,))[1])(POINT)
    np.testing.assert_allclose(by_rows, by_columns, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(by_jvp, by_columns, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("mode", NESTINGS)
def test_hessian_of_a_program_with_everything(mode):
    def f(x):
        slope = grad(lambda y: y**3 * x[0])(x[1])
        _, dot = jvp(lambda y: y * x[2], (x[0],), (slope,))
        each = vmap(lambda e: e * dot)(x)
        return each @ each

    np.testing.assert_allclose(hessian(f, mode=mode)(POINT), hessian(f)(POINT), rtol=1e-11)
    gradient = grad(f)
    numeric = np.stack([difference(lambda x: [gradient(x)], [POINT], [e])[0] for e in np.eye(3)])
    np.testing.assert_allclose(hessian(f, mode=mode)(POINT), numeric, rtol=1e-7, atol=1e-9)
