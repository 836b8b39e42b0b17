"""Taylor mode against nested forward mode, for every primitive, and its composition with everything else."""

import math

import mpmath
import numpy as np
import pytest

import functrace as ft
import functrace.numpy as fnp
from bench.eager import twenty_operations
from functrace import grad, hessian, hvp, jacfwd, jacrev, jet, jvp, lax, make_jaxpr, nth_derivative, vhv, vmap
from functrace.core.types import is_inexact
from functrace.errors import ArgumentError, MissingRuleError, TangentError
from functrace.testing.numerical import random_like
from tests.cases import all_cases

ORDER = 4

#: Cases whose derivatives of order 4 do not exist in nested forward mode either.
SKIPPED = {
    "det": "rank-deficient matrices: the rule through the adjugate is exact to order 2",
    "adjugate": "rank-deficient matrices: the rule through the singular values is exact to order 1",
}


def deficient(case):
    return case.primitive.name in SKIPPED and "rank" in str(case)


def differentiable(case):
    return case.active() and any(is_inexact(o.dtype) for o in case.evaluate())


CASES = [case for case in all_cases() if differentiable(case) and not deficient(case)]


def nested(f, order, point, direction):
    """The derivatives of orders 1 to `order` along a direction by nested forward mode."""
    found = []
    for _ in range(order):
        f = along(f, direction)
        found.append(f(*point))
    return found


def along(f, direction):
    return lambda *xs: jvp(f, xs, tuple(direction))[1]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_primitive(case):
    rng = np.random.default_rng(20260701)
    positions = case.active()
    f = case.function(positions, floats_only=True)
    point = [case.operands[i] for i in positions]
    direction = [random_like(rng, x) * x.dtype.type(0.5) for x in point]
    zeros = [np.zeros_like(d)[()] for d in direction]
    with np.errstate(all="ignore"):
        outs, found = jet(f, tuple(point), [[d, *[z] * (ORDER - 1)] for d, z in zip(direction, zeros, strict=True)])
        expected = nested(f, ORDER, point, direction)
    for out, value in zip(outs, f(*point), strict=True):
        np.testing.assert_array_equal(out, value)
    for order, (terms, wanted) in enumerate(zip(found, expected, strict=True), 1):
        for got, want in zip(terms, wanted, strict=True):
            assert got.shape == want.shape and got.dtype == want.dtype
            scale = np.max(np.abs(want), initial=0, where=np.isfinite(want))
            fine = 1e-7 if want.dtype in (np.float64, np.complex128) else 1e-2
            np.testing.assert_allclose(got, want, fine, fine * (1 + scale), err_msg=f"order {order}")


def test_general_curves():
    """f(x(t)) for a curve with all its coefficients: derivatives of sin(t + t^2 + t^3) by hand."""
    _, derivatives = jet(np.sin, (0.0,), ([1.0, 2.0, 6.0],))
    np.testing.assert_allclose(derivatives, [1.0, 2.0, 5.0])
    curve = [np.polynomial.Polynomial([0.3, 0.5, -0.2, 0.7, 0.1]).deriv(k)(0.0) for k in range(5)]
    _, derivatives = jet(lambda x: np.exp(np.sin(x) * x), (curve[0],), (curve[1:],))
    t = ft.nth_derivative
    for k in range(1, 5):
        path = lambda s: 0.3 + 0.5 * s - 0.2 * s**2 + 0.7 * s**3 + 0.1 * s**4  # noqa: E731
        want = t(lambda s: np.exp(np.sin(path(s)) * path(s)), k)(0.0)  # noqa: B023
        np.testing.assert_allclose(derivatives[k - 1], want, rtol=1e-12)


def test_several_arguments_and_pytrees():
    def f(p, y):
        return {"a": p["x"] * np.exp(y), "b": [np.sum(p["x"])]}

    x, dx = np.array([1.0, 2.0]), np.array([0.5, -1.0])
    out, derivatives = jet(f, ({"x": x}, 0.3), ([{"x": dx}, {"x": 0 * dx}], [2.0, 0.0]))
    np.testing.assert_allclose(out["a"], x * np.exp(0.3))
    np.testing.assert_allclose(derivatives[0]["a"], (dx + 2 * x) * np.exp(0.3))
    np.testing.assert_allclose(derivatives[1]["a"], (4 * dx + 4 * x) * np.exp(0.3))
    np.testing.assert_allclose([d["b"][0] for d in derivatives], [dx.sum(), 0.0])


def test_constants_and_integers():
    out, derivatives = jet(lambda x: 3.0, (1.0,), ([1.0, 0.0],))
    assert out == 3.0 and derivatives == [0.0, 0.0]
    out, derivatives = jet(lambda x, n: x * n, (2.0, 3), ([1.0, 0.0], [None, None]))
    assert out == 6.0 and derivatives == [3.0, 0.0]
    out, derivatives = jet(lambda x: np.argmax(x), (np.arange(3.0),), ([np.ones(3)],))
    assert out == 2 and derivatives[0].dtype in (ft.float0, np.int64)
    assert nth_derivative(np.sin, 0)(1.0) == np.sin(1.0)
    assert nth_derivative(lambda x: x**3, 5)(2.0) == 0.0


@pytest.mark.parametrize("x", [0.0, 2.0, -1.5])
@pytest.mark.parametrize("p", [1, 2, 3, 5])
def test_powers(x, p):
    for n in range(1, 7):
        want = math.perm(p, n) * x ** (p - n) if n <= p else 0.0
        np.testing.assert_allclose(nth_derivative(lambda x: x**p, n)(x), want)
        np.testing.assert_allclose(nth_derivative(lambda x: np.power(x, float(p)), n)(x), want)


def test_single_precision_stays():
    out, derivatives = jet(np.tanh, (np.float32(0.5),), ([np.float32(1), np.float32(0)],))
    assert out.dtype == derivatives[0].dtype == derivatives[1].dtype == np.float32


def test_python_numbers_give_way_in_promotion():
    factor = np.full(2, 2.0, np.float32)
    out, derivatives = jet(lambda x: x * factor, (0.5,), ([1.0, 0.0],))
    assert out.dtype == derivatives[0].dtype == np.float32


def test_complex():
    z, dz = 0.3 + 0.4j, 1.0 - 0.5j
    _, derivatives = jet(lambda z: np.exp(z * z), (z,), ([dz, 0j, 0j],))
    np.testing.assert_allclose(derivatives, nested(lambda z: np.exp(z * z), 3, [z], [dz]))
    _, derivatives = jet(lambda z: np.abs(z) * np.real(z), (z,), ([dz, 0j, 0j],))
    np.testing.assert_allclose(derivatives, nested(lambda z: np.abs(z) * np.real(z), 3, [z], [dz]))


def test_mistakes():
    with pytest.raises(ArgumentError, match="pad the shorter series"):
        jet(lambda x, y: x * y, (1.0, 2.0), ([1.0], [1.0, 0.0]))
    with pytest.raises(TangentError, match="tangent"):
        jet(np.sin, (1.0,), ([np.ones(2)],))
    with pytest.raises(TangentError, match="use jet along a direction"):
        nth_derivative(np.sin, 2)(np.ones(2))
    for order in (-1, 1.0, True):
        with pytest.raises(ArgumentError, match="give n = 0"):
            nth_derivative(np.sin, order)
    broken = ft.Primitive("taylor_without_jvp", np.sin, lambda aval: aval)
    with pytest.raises(MissingRuleError, match=r"jet needs the jvp rule"):
        nth_derivative(broken, 2)(1.0)


# programs

PROGRAMS = {
    "scan": lambda x: lax.scan(lambda c, _: (np.sin(c) * x, None), x, None, length=3)[0],
    "scan, stacked": lambda x: np.sum(lax.scan(lambda c, a: (np.sin(c) * x + a, c * c), 0.5, np.arange(3.0))[1]),
    "scan, reverse": lambda x: lax.scan(lambda c, a: (c * a + a, c), x, x * np.arange(1.0, 4.0), reverse=True)[0],
    "scan, zero length": lambda x: lax.scan(lambda c, a: (c * a, c), x * x, np.zeros(0))[0],
    "scan, constant input": lambda x: lax.scan(lambda c, a: (c + a, a), 0.0, np.ones(3))[0] * x**5,
    "fori_loop": lambda x: lax.fori_loop(0, 3, lambda i, c: np.sin(c) * x + i, x),
    "while_loop": lambda x: lax.while_loop(lambda c: c[1] < 3, lambda c: (np.sin(c[0]) * x, c[1] + 1), (x, 0))[0],
    "while_loop on the value": lambda x: lax.while_loop(lambda c: c < 10.0, lambda c: c * (x + 1.5), x),
    "cond": lambda x: lax.cond(x > 0, lambda v: np.exp(v) * x, np.sin, x),
    "switch": lambda x: lax.switch(1, [np.sin, lambda v: v**3 * np.exp(v)], x),
    "cond in scan": lambda x: lax.scan(
        lambda c, i: (lax.cond(i > 1, lambda v: v * x, np.sin, c), None), x, np.arange(4)
    )[0],
    "checkpoint": lambda x: ft.checkpoint(lambda v: np.exp(np.sin(v)) * v)(x),
    "nested checkpoint": lambda x: ft.checkpoint(lambda v: ft.checkpoint(np.sin)(v) * x)(x * x),
    "Python control flow": lambda x: np.sin(x) * x if x > 0 else x,
    "assignment": lambda x: assigned(x),
}


def assigned(x):
    buffer = fnp.zeros(3)
    for i in range(3):
        buffer[i] = np.exp(x * i)
    return np.sum(buffer**2)


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_programs(program):
    for transform in (lambda f: f, staged):
        if transform is staged and program is PROGRAMS["Python control flow"]:
            continue
        f = transform(program)
        _, found = jet(f, (0.7,), ([1.0, 0.0, 0.0, 0.0],))
        np.testing.assert_allclose(found, nested(program, 4, [0.7], [1.0]), rtol=1e-9, atol=1e-12)


def staged(f):
    closed = make_jaxpr(f)(0.7)
    return lambda x: ft.eval_jaxpr(closed.jaxpr, closed.consts, x)[0]


@pytest.mark.parametrize("program", [p for n, p in PROGRAMS.items() if "Python" not in n])
def test_programs_batched_staged_and_differentiated(program):
    points = np.array([0.7, 0.3, -0.4]) if program is not PROGRAMS["while_loop on the value"] else np.array([0.7, 0.3])
    third = nth_derivative(program, 3)
    np.testing.assert_allclose(vmap(third)(points), [third(x) for x in points], rtol=1e-9, atol=1e-12)
    closed = make_jaxpr(third)(0.7)
    np.testing.assert_allclose(ft.eval_jaxpr(closed.jaxpr, closed.consts, 0.3)[0], third(0.3), rtol=1e-9)
    np.testing.assert_allclose(grad(nth_derivative(program, 2))(0.7), third(0.7), rtol=1e-9)
    np.testing.assert_allclose(jacfwd(nth_derivative(program, 2))(0.7), third(0.7), rtol=1e-9)
    np.testing.assert_allclose(nth_derivative(grad(program), 2)(0.7), third(0.7), rtol=1e-9)


@pytest.mark.parametrize("name", ["scan", "while_loop", "cond in scan", "nested checkpoint"])
def test_cost_of_programs_is_polynomial(name):
    def size(order):
        return count(make_jaxpr(nth_derivative(PROGRAMS[name], order))(0.7).jaxpr)

    assert size(8) < 16 * size(4)


def count(jaxpr):
    from_params = [inner for eqn in jaxpr.eqns for inner in ft.core.ir.subjaxprs(eqn)]
    return len(jaxpr.eqns) + sum(count(getattr(inner, "jaxpr", inner)) for inner in from_params)


def test_custom_rules():
    f = ft.custom_jvp(lambda x: np.sin(x))
    f.defjvp(lambda primals, tangents: (f(*primals), 7.0 * primals[0] ** 3 * tangents[0]))
    g = ft.custom_vjp(lambda x: np.sin(x))
    g.defvjp(lambda x: (g(x), x), lambda x, bar: (7.0 * x**3 * bar,))
    for call in (f, g):
        _, found = jet(call, (2.0,), ([1.0, 0.0, 0.0, 0.0],))
        np.testing.assert_allclose(found, [56.0, 84.0, 84.0, 42.0])


# mixed with other transformations


def program(x):
    return np.sum(np.exp(np.sin(x) * x[0]) * np.cos(x[::-1]))


X, V = np.array([0.3, -0.8, 1.2]), np.array([0.5, 1.0, -0.25])


def test_jet_of_jet():
    def inner(x):
        return jet(lambda y: np.sin(y) * x, (x,), ([1.0, 0.0],))[1][1]

    for k in range(1, 4):
        got = jet(inner, (0.7,), ([1.0] + [0.0] * (k - 1),))[1][-1]
        want = nested(lambda x: -np.sin(x) * x, k, [0.7], [1.0])[-1]
        np.testing.assert_allclose(got, want)


def test_jet_under_grad_and_vmap():
    def second(x):
        return jet(program, (x,), ([V, 0 * V],))[1][1]

    want = jacfwd(lambda x: V @ hessian(program)(x) @ V)(X)
    np.testing.assert_allclose(grad(second)(X), want, rtol=1e-10)
    np.testing.assert_allclose(jacfwd(second)(X), want, rtol=1e-10)
    np.testing.assert_allclose(jacrev(grad(second))(X), jacfwd(jacfwd(second))(X), rtol=1e-9, atol=1e-12)
    stack = np.stack([X, V, X + V])
    np.testing.assert_allclose(vmap(second)(stack), [second(x) for x in stack], rtol=1e-10)
    np.testing.assert_allclose(vmap(grad(second))(stack), [grad(second)(x) for x in stack], rtol=1e-9, atol=1e-12)
    _, directional = jet(grad(program), (X,), ([V, 0 * V],))
    np.testing.assert_allclose(directional[0], hvp(program, X, V), rtol=1e-10)


def test_vmap_over_directions_gives_the_hessian():
    diagonal = vmap(lambda e: vhv(program, X, e))(np.eye(3))
    np.testing.assert_allclose(diagonal, np.diag(hessian(program)(X)), rtol=1e-10, atol=1e-12)


def test_vhv_and_hvp():
    H = hessian(program)(X)
    np.testing.assert_allclose(vhv(program, X, V), V @ H @ V, rtol=1e-10)
    np.testing.assert_allclose(hvp(program, X, V), H @ V, rtol=1e-10)
    np.testing.assert_allclose(vhv(lambda p: p["x"] ** 2 * p["y"], {"x": 2.0, "y": 3.0}, {"x": 1.0, "y": 1.0}), 14.0)
    np.testing.assert_allclose(grad(lambda x: vhv(program, x, V))(X), jacfwd(lambda x: V @ hessian(program)(x) @ V)(X))


def test_results_are_the_users_own():
    x = X.copy()
    out, derivatives = jet(lambda x: x, (x,), ([V, 0 * V],))
    out[:] = 0.0
    derivatives[0][:] = 0.0
    np.testing.assert_array_equal(x, X)
    assert V[0] == 0.5


# orders up to 12

FUNCTION, POINT = twenty_operations(np), 4.0  # at 0.7, 1 - tanh^2 cancels and the error grows tenfold an order


def exact(order):
    with mpmath.workdps(80):
        functions = ("sin", "exp", "cos", "tanh", "log", "sqrt")
        namespace = type("Mp", (), {name: staticmethod(getattr(mpmath, name)) for name in functions})
        terms = mpmath.taylor(twenty_operations(namespace), mpmath.mpf(POINT), order)
        return [float(c * mpmath.factorial(k)) for k, c in enumerate(terms)]


def test_orders_to_twelve_against_mpmath():
    want = exact(12)
    for n in range(13):
        np.testing.assert_allclose(nth_derivative(FUNCTION, n)(POINT), want[n], rtol=1e-9)


def test_small_orders_against_nested_forward_mode():
    np.testing.assert_allclose(
        [nth_derivative(FUNCTION, n)(0.7) for n in range(1, 6)], nested(FUNCTION, 5, [0.7], [1.0]), rtol=1e-11
    )


def operations(order):
    return len(make_jaxpr(nth_derivative(FUNCTION, order))(0.7).eqns)


def test_cost_is_quadratic_in_the_order():
    counts = {n: operations(n) for n in (3, 6, 12)}
    assert counts[6] < 4.2 * counts[3] and counts[12] < 4.2 * counts[6]
    second_difference = {operations(n + 2) - 2 * operations(n + 1) + operations(n) for n in range(4, 10)}
    assert len(second_difference) == 1


def test_nested_forward_mode_is_exponential():
    def eqns(order):
        f = FUNCTION
        for _ in range(order):
            f = along(f, [1.0])
        return len(make_jaxpr(f)(0.7).eqns)

    assert eqns(5) > 2 * eqns(4) > 4 * eqns(3)
    assert operations(5) < eqns(5)
