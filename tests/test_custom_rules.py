"""custom_jvp, custom_vjp and checkpoint: the rules are used, checked, and compose with every transformation."""

import functools

import numpy as np
import pytest

import functrace as ft
import functrace.numpy as fnp
from functrace import checkpoint, custom_jvp, custom_vjp, grad, hessian, jacfwd, jacrev, jvp, lax, vjp, vmap
from functrace.errors import ArgumentError, CustomRuleError, InputError
from functrace.transforms import CustomVJPPrimal, SymbolicZero

NESTINGS = [(outer, inner) for outer in (jacfwd, jacrev) for inner in (jacfwd, jacrev)]
X = np.array([0.3, -0.8, 1.2])


def energy(x):
    return np.sum(np.sin(x) * x[0]) + np.exp(x[1] * x[2])


def with_jvp():
    f = custom_jvp(energy)
    f.defjvp(lambda primals, tangents: (f(*primals), np.dot(grad(energy)(*primals), tangents[0])))
    return f


def with_vjp():
    f = custom_vjp(energy)
    f.defvjp(lambda x: (f(x), x), lambda x, bar: (bar * grad(energy)(x),))
    return f


def with_both():
    f = with_vjp()
    f.defjvp(lambda primals, tangents: (f(*primals), np.dot(grad(energy)(*primals), tangents[0])))
    return f


KINDS = [with_jvp, with_vjp, with_both]


# the rule is the derivative


def tagged(factor=7.0):
    """A function whose rules give a derivative that its body does not have, so that one sees which was used."""
    f = custom_jvp(lambda x: np.sin(x))
    f.defjvp(lambda primals, tangents: (f(*primals), factor * primals[0] * tangents[0]))
    g = custom_vjp(lambda x: np.sin(x))
    g.defvjp(lambda x: (g(x), x), lambda x, bar: (factor * x * bar,))
    return f, g


@pytest.mark.parametrize("which", [0, 1])
def test_rule_is_used_in_both_modes_and_orders(which):
    f = tagged()[which]
    assert grad(f)(2.0) == 14.0
    assert jvp(f, (2.0,), (3.0,)) == (np.sin(2.0), 42.0)
    assert grad(grad(f))(2.0) == 7.0
    assert jacfwd(jacfwd(f))(2.0) == jacfwd(jacrev(f))(2.0) == jacrev(jacfwd(f))(2.0) == 7.0
    assert ft.nth_derivative(f, 2)(2.0) == 7.0
    assert f(2.0) == np.sin(2.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("outer", "inner"), NESTINGS)
def test_all_nestings_of_second_derivatives(kind, outer, inner):
    np.testing.assert_allclose(outer(inner(kind()))(X), hessian(energy)(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("outer", "inner"), NESTINGS)
def test_vmap_of_hessians(kind, outer, inner):
    points = np.stack([X, 2 * X, X[::-1]])
    expected = np.stack([hessian(energy)(p) for p in points])
    np.testing.assert_allclose(vmap(outer(inner(kind())))(points), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_third_derivatives(kind):
    expected = jacfwd(hessian(energy))(X)
    np.testing.assert_allclose(jacrev(hessian(kind()))(X), expected, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(jacfwd(jacrev(jacrev(kind())))(X), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_hessian_of_vmap(kind):
    points = np.stack([X, 2 * X])
    got = hessian(lambda p: np.sum(vmap(kind())(p) ** 2))(points)
    expected = hessian(lambda p: energy(p[0]) ** 2 + energy(p[1]) ** 2)(points)
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", [*KINDS, lambda: checkpoint(energy)])
def test_staged_program_has_values_derivatives_and_batches(kind):
    closed = ft.make_jaxpr(kind())(X)

    def run(x):
        return ft.eval_jaxpr(closed.jaxpr, closed.consts, x)[0]

    assert len(closed.eqns) == 1
    assert run(X) == energy(X)
    np.testing.assert_allclose(grad(run)(X), grad(energy)(X), rtol=1e-12)
    np.testing.assert_allclose(jacfwd(run)(X), grad(energy)(X), rtol=1e-12)
    np.testing.assert_allclose(hessian(run)(X), hessian(energy)(X), rtol=1e-11, atol=1e-12)
    points = np.stack([X, 2 * X])
    np.testing.assert_allclose(vmap(grad(run))(points), [grad(energy)(p) for p in points], rtol=1e-12)
    again = ft.make_jaxpr(grad(run))(X)
    np.testing.assert_allclose(ft.eval_jaxpr(again.jaxpr, again.consts, X)[0], grad(energy)(X), rtol=1e-12)


def test_staged_rule_is_used():
    for f in tagged():
        closed = ft.make_jaxpr(f)(2.0)
        assert grad(lambda x: ft.eval_jaxpr(closed.jaxpr, closed.consts, x)[0])(2.0) == 14.0  # noqa: B023


@pytest.mark.parametrize("which", [0, 1])
def test_inside_loops(which):
    f = tagged()[which]
    assert grad(lambda x: ft.lax.scan(lambda c, _: (c + f(x), None), 0.0, None, length=3)[0])(2.0) == 42.0
    assert grad(lambda x: ft.lax.cond(x > 0, f, lambda x: x, x))(2.0) == 14.0
    assert jvp(lambda x: ft.lax.fori_loop(0, 3, lambda i, c: c + f(x), 0.0), (2.0,), (1.0,))[1] == 42.0


# arguments


@pytest.mark.parametrize("argnums", [(0, 2), [0, 2], (-3, -1)])
def test_nondiff_argnums_come_first(argnums):
    f = custom_jvp(lambda g, x, n: g(x) * n, nondiff_argnums=argnums)

    @f.defjvp
    def rule(g, n, primals, tangents):
        assert callable(g) and n == 3
        return g(primals[0]) * n, n * np.cos(primals[0]) * tangents[0]

    np.testing.assert_allclose(grad(lambda x: f(np.sin, x, 3))(0.5), 3 * np.cos(0.5))
    np.testing.assert_allclose(vmap(grad(lambda x: f(np.sin, x, 3)))(X), 3 * np.cos(X))

    h = custom_vjp(lambda g, x, n: g(x) * n, nondiff_argnums=argnums)
    h.defvjp(lambda g, x, n: (g(x) * n, x), lambda g, n, x, bar: (n * np.cos(x) * bar,))
    np.testing.assert_allclose(grad(lambda x: h(np.sin, x, 3))(0.5), 3 * np.cos(0.5))
    np.testing.assert_allclose(jacfwd(lambda x: h(np.sin, x, 3))(0.5), 3 * np.cos(0.5))


def test_one_nondiff_argnum_may_be_an_integer():
    f = custom_jvp(lambda x, mode: x, nondiff_argnums=1)
    f.defjvp(lambda mode, primals, tangents: (primals[0], len(mode) * tangents[0]))
    assert grad(f)(1.0, "four") == 4.0


def test_keywords_and_defaults_have_positions():
    f = custom_jvp(lambda x, y=2.0, n=1: x * y, nondiff_argnums=(2,))

    @f.defjvp
    def rule(n, primals, tangents):
        (x, y), (x_dot, y_dot) = primals, tangents
        return f(x, y), 10 * n * (x_dot * y + x * y_dot)

    assert grad(lambda x: f(x))(3.0) == 20.0
    assert grad(lambda x: f(y=x, x=3.0))(5.0) == 30.0
    assert grad(lambda x: f(x, n=2))(3.0) == 40.0


def test_keyword_only_arguments_are_refused():
    def f(x, *, n=1):
        return x

    g = custom_jvp(f)
    g.defjvp(lambda primals, tangents: (primals[0], tangents[0]))
    with pytest.raises(ArgumentError, match="make them positional"):
        g(1.0, n=2)


def test_function_without_a_name_or_signature():
    f = custom_jvp(functools.partial(np.multiply, 2.0))
    with pytest.raises(CustomRuleError, match="define one with the decorator"):
        f(1.0)
    f.defjvp(lambda primals, tangents: (2.0 * primals[0], 2.0 * tangents[0]))
    assert grad(f)(1.0) == 2.0


def test_pytrees_in_and_out():
    def f(point, scale):
        return {"sum": point["x"] + point["y"][0], "scaled": (point["x"] * scale,)}

    g = custom_jvp(f)

    @g.defjvp
    def rule(primals, tangents):
        (p, s), (p_dot, s_dot) = primals, tangents
        return f(p, s), {"sum": p_dot["x"] + p_dot["y"][0], "scaled": (p_dot["x"] * s + p["x"] * s_dot,)}

    h = custom_vjp(f)
    h.defvjp(
        lambda p, s: (f(p, s), (p["x"], s)),
        lambda res, bar: (
            {"x": bar["sum"] + bar["scaled"][0] * res[1], "y": [bar["sum"]]},
            np.sum(bar["scaled"][0] * res[0]),
        ),
    )

    point = {"x": X, "y": [X**2]}

    def loss(call, p, s):
        out = call(p, s)
        return np.sum(out["sum"] ** 2) + np.sum(np.sin(out["scaled"][0]))

    for call in (g, h):
        value = grad(functools.partial(loss, call), argnums=(0, 1))(point, 2.0)
        expected = grad(functools.partial(loss, f), argnums=(0, 1))(point, 2.0)
        for got, want in zip(ft.tree.leaves(value), ft.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-12)
        dot = jvp(functools.partial(loss, call), (point, 2.0), (point, 1.0))[1]
        np.testing.assert_allclose(dot, jvp(functools.partial(loss, f), (point, 2.0), (point, 1.0))[1], rtol=1e-12)


def test_defjvps():
    f = custom_jvp(lambda x, y, z: x * y + z)
    f.defjvps(lambda dot, out, x, y, z: dot * y, lambda dot, out, x, y, z: dot * x, None)
    assert grad(f, argnums=(0, 1, 2))(2.0, 3.0, 4.0) == (3.0, 2.0, 0.0)
    assert jvp(f, (2.0, 3.0, 4.0), (1.0, 1.0, 1.0))[1] == 5.0
    np.testing.assert_allclose(hessian(lambda v: f(v[0], v[1], v[2]))(X), [[0, 1, 0], [1, 0, 0], [0, 0, 0]])


def test_defjvps_with_pytrees():
    f = custom_jvp(lambda pair, z: {"out": pair[0] * pair[1] * z})
    f.defjvps(lambda dot, out, p, z: {"out": (dot[0] * p[1] + p[0] * dot[1]) * z}, None)
    assert grad(lambda a: f((a, 3.0), 2.0)["out"])(5.0) == 6.0
    assert grad(lambda z: f((1.0, 3.0), z)["out"])(5.0) == 0.0


def test_defjvps_needs_a_rule_per_argument():
    f = custom_jvp(lambda x, y: x * y)
    f.defjvps(lambda dot, out, x, y: dot * y)
    with pytest.raises(CustomRuleError, match=r"1 rules for 2 arguments\n.*give None"):
        grad(f)(1.0, 2.0)
    with pytest.raises(CustomRuleError, match="one rule with defjvp"):
        custom_jvp(lambda n, x: x, nondiff_argnums=(0,)).defjvps(None)


def test_symbolic_zeros_of_custom_jvp():
    seen = []
    f = custom_jvp(lambda x, y: x * y)

    def rule(primals, tangents):
        seen.append([isinstance(t, SymbolicZero) for t in tangents])
        terms = [t * o for t, o in zip(tangents, primals[::-1], strict=True) if not isinstance(t, SymbolicZero)]
        return primals[0] * primals[1], sum(terms)

    f.defjvp(rule, symbolic_zeros=True)
    assert grad(f)(2.0, 3.0) == 3.0 and grad(f, argnums=1)(2.0, 3.0) == 2.0
    assert grad(f, argnums=(0, 1))(2.0, 3.0) == (3.0, 2.0)
    np.testing.assert_allclose(vmap(grad(f))(X, X), X)
    assert seen == [[False, True], [True, False], [False, False], [False, True]]


def test_symbolic_zeros_of_custom_vjp():
    seen = []
    f = custom_vjp(lambda x, y: (x * y, x + y))

    def fwd(x, y):
        assert isinstance(x, CustomVJPPrimal)
        seen.append((x.perturbed, y.perturbed))
        return (x.value * y.value, x.value + y.value), (x.value, y.value)

    def bwd(res, bars):
        seen.append(tuple(isinstance(b, SymbolicZero) for b in bars))
        x, y = res
        first, second = (0.0 if isinstance(b, SymbolicZero) else b for b in bars)
        return first * y + second, first * x + second

    f.defvjp(fwd, bwd, symbolic_zeros=True)
    assert grad(lambda x: f(x, 3.0)[0])(2.0) == 3.0
    assert seen == [(True, False), (False, True)]


def test_none_is_a_zero_cotangent():
    f = custom_vjp(lambda pair, y: pair[0] * y)
    f.defvjp(lambda p, y: (p[0] * y, (p[0], y)), lambda res, bar: (None, bar * res[0]))
    assert grad(f, argnums=(0, 1))((2.0, 5.0), 3.0) == ((0.0, 0.0), 2.0)


def test_integer_arguments_have_float0_tangents():
    seen = []
    f = custom_jvp(lambda x, n: x * n)

    @f.defjvp
    def rule(primals, tangents):
        seen.append(tangents[1].dtype)
        return f(*primals), tangents[0] * primals[1]

    g = custom_vjp(lambda x, n: x * n)
    g.defvjp(lambda x, n: (x * n, n), lambda n, bar: (bar * n, None))
    h = custom_vjp(lambda x, n: x * n)
    h.defvjp(lambda x, n: (x * n, n), lambda n, bar: (bar * n, np.zeros((), ft.float0)))
    for call in (f, g, h):
        assert grad(call)(2.0, 3) == 3.0
        assert jvp(lambda x: call(x, np.int64(3)), (2.0,), (1.0,))[1] == 3.0  # noqa: B023
        np.testing.assert_allclose(vmap(grad(call))(X, np.arange(3)), np.arange(3.0))
    assert set(seen) == {ft.float0}


def test_integer_outputs():
    f = custom_vjp(lambda x: (x * 2.0, 5))
    f.defvjp(lambda x: ((x * 2.0, 5), None), lambda res, bars: (2.0 * bars[0],))
    assert grad(lambda x: f(x)[0] * f(x)[1])(1.0) == 10.0
    assert jvp(lambda x: f(x)[0], (1.0,), (1.0,))[1] == 2.0
    assert jvp(f, (1.0,), (1.0,))[1][1].dtype == ft.float0


def test_single_precision_and_complex():
    f = with_vjp()
    assert grad(f)(X.astype(np.float32)).dtype == np.float32
    g = custom_jvp(lambda z: z * z)
    g.defjvp(lambda primals, tangents: (g(*primals), 2 * primals[0] * tangents[0]))
    assert grad(g, holomorphic=True)(1.0 + 2.0j) == 2.0 + 4.0j


# Python control flow and closures


@pytest.mark.parametrize("transform", [grad, jacfwd, lambda f: jacrev(jacfwd(f)), lambda f: grad(grad(f))])
def test_python_control_flow_sees_values(transform):
    def body(x):
        return x**3 if x > 0 else -x

    f = custom_jvp(body)
    f.defjvp(lambda primals, tangents: (f(*primals), (3 * primals[0] ** 2 if primals[0] > 0 else -1.0) * tangents[0]))
    g = custom_vjp(body)
    g.defvjp(lambda x: (g(x), x), lambda x, bar: ((3 * x**2 if x > 0 else -1.0) * bar,))
    for x in (2.0, -2.0):
        np.testing.assert_allclose(transform(f)(x), transform(body)(x))
        np.testing.assert_allclose(transform(g)(x), transform(body)(x))


def closing_over(y):
    f = custom_jvp(lambda x: x * y)
    f.defjvp(lambda primals, tangents: (primals[0] * y, y * tangents[0]))
    g = custom_vjp(lambda x: x * y)
    g.defvjp(lambda x: (x * y, None), lambda _, bar: (y * bar,))
    return f, g


@pytest.mark.parametrize("which", [0, 1])
def test_closures_over_values_of_outer_transformations(which):
    def f(y):
        return closing_over(y)[which]

    ys = np.arange(3.0)
    assert grad(lambda y: grad(f(y))(2.0))(3.0) == 1.0
    assert jacfwd(lambda y: grad(f(y))(2.0))(3.0) == 1.0
    np.testing.assert_allclose(vmap(lambda y: f(y)(2.0))(ys), 2 * ys)
    np.testing.assert_allclose(vmap(lambda y: grad(f(y))(2.0))(ys), ys)
    if which == 0:  # a backward rule in forward mode has no way to the batch of a value it closes over
        np.testing.assert_allclose(vmap(lambda y: jacfwd(f(y))(y))(ys), ys)
    np.testing.assert_allclose(vmap(lambda y: vmap(lambda x: f(y * x)(x))(ys))(ys), ys[:, None] * ys**2)
    closed = ft.make_jaxpr(lambda y: f(y)(2.0))(3.0)
    assert ft.eval_jaxpr(closed.jaxpr, closed.consts, 5.0) == [10.0]


@pytest.mark.parametrize("which", [0, 1])
def test_closures_over_batched_values_inside_a_gradient(which):
    ys = np.arange(3.0)
    assert grad(lambda x: np.sum(vmap(lambda y: closing_over(y)[which](x))(ys)))(2.0) == 3.0
    assert grad(lambda x: np.sum(vmap(lambda y: closing_over(y)[which](x * y))(ys)))(2.0) == 5.0
    nested = vmap(lambda z: grad(lambda x: np.sum(vmap(lambda y: closing_over(y * z)[which](x))(ys)))(2.0))
    np.testing.assert_allclose(nested(ys), 3 * ys)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("use", [lambda f, y: f(2.0), lambda f, y: f(y)])
@pytest.mark.parametrize(
    ("transform", "point"),
    [(grad, 3.0), (jacfwd, 3.0), (lambda f: vmap(grad(f)), X), (lambda f: ft.nth_derivative(f, 2), 3.0)],
)
def test_closure_over_a_differentiated_value_is_refused(which, use, transform, point):
    with pytest.raises(CustomRuleError, match="pass the value as an argument"):
        transform(lambda y: use(closing_over(y)[which], y))(point)


def test_differentiated_nondiff_argument_is_refused():
    f = custom_jvp(lambda n, x: n * x, nondiff_argnums=(0,))
    f.defjvp(lambda n, primals, tangents: (n * primals[0], n * tangents[0]))
    with pytest.raises(CustomRuleError, match="pass the value as an argument"):
        grad(lambda y: f(y, 2.0))(3.0)
    assert grad(lambda x: f(3.0, x))(2.0) == 3.0


def test_custom_functions_in_rules_of_others():
    inner, _ = tagged(7.0)
    outer = custom_jvp(lambda x: inner(x) * 2.0)
    outer.defjvp(lambda primals, tangents: (outer(*primals), inner(primals[0]) * tangents[0]))
    assert grad(outer)(2.0) == np.sin(2.0)
    assert grad(grad(outer))(2.0) == 14.0
    wrapped = custom_vjp(lambda x: outer(x))
    wrapped.defvjp(lambda x: (wrapped(x), x), lambda x, bar: (bar * outer(x),))
    assert grad(wrapped)(2.0) == 2 * np.sin(2.0)
    assert grad(grad(wrapped))(2.0) == np.sin(2.0)
    assert jacfwd(jacfwd(wrapped))(2.0) == np.sin(2.0)


def test_linear_custom_functions_applied_to_tangents():
    for wrap in (custom_jvp, custom_vjp, checkpoint):
        double = wrap(lambda t: 2.0 * t)
        if wrap is custom_jvp:
            double.defjvp(lambda primals, tangents: (2.0 * primals[0], 2.0 * tangents[0]))
        if wrap is custom_vjp:
            double.defvjp(lambda t: (2.0 * t, None), lambda _, bar: (2.0 * bar,))
        f = custom_jvp(lambda x: x)
        f.defjvp(lambda primals, tangents: (primals[0], double(tangents[0])))  # noqa: B023
        assert grad(f)(1.0) == 2.0
        assert jacfwd(f)(1.0) == 2.0


def test_results_do_not_change_with_the_users_arrays():
    f = with_vjp()
    x = X.copy()
    _, pullback = vjp(f, x)
    x[:] = 0.0
    np.testing.assert_allclose(pullback(1.0)[0], grad(energy)(X))
    g = custom_vjp(np.exp)
    g.defvjp(lambda x: (lambda out: (out, out))(np.exp(x)), lambda out, bar: (out * bar,))
    out, pullback = vjp(g, X)
    out[:] = 0.0
    np.testing.assert_allclose(pullback(np.ones(3))[0], np.exp(X))


# forward mode of custom_vjp


@pytest.mark.parametrize(
    "bwd",
    [
        lambda x, bar: (np.clip(bar, -1.0, 1.0),),
        lambda x, bar: (bar * bar,),
        lambda x, bar: (np.where(bar > 0, bar, 0.0),),
        lambda x, bar: (bar + 1.0,),
        lambda x, bar: (1.0,),
        lambda x, bar: (1.0 / bar,),
        lambda x, bar: (np.sin(bar),),
        lambda x, bar: (lax.scan(lambda c, _: (c * c, None), bar, None, length=2)[0],),
    ],
    ids=["clip", "square", "where", "affine", "constant", "divide", "sin", "scan"],
)
def test_forward_mode_of_a_nonlinear_backward_rule_is_refused(bwd):
    f = custom_vjp(lambda x: x)
    f.defvjp(lambda x: (x, x), bwd)
    grad(f)(2.0)
    with pytest.raises(CustomRuleError, match=r"give the function a forward rule too, with f.defjvp"):
        jacfwd(f)(2.0)
    f.defjvp(lambda primals, tangents: (primals[0], 5.0 * tangents[0]))
    assert jacfwd(f)(2.0) == 5.0


def test_forward_mode_of_a_backward_rule_with_a_loop():
    f = custom_vjp(lambda x: 4.0 * x)

    def bwd(_, bar):
        return (lax.scan(lambda c, _: (2.0 * c, None), bar, None, length=2)[0],)

    f.defvjp(lambda x: (4.0 * x, None), bwd)
    assert grad(f)(3.0) == jacfwd(f)(3.0) == 4.0


# faulty rules


def jvp_rule(rule, function=lambda x: 2.0 * x):
    f = custom_jvp(function)
    f.defjvp(rule)
    return f


def vjp_rule(fwd, bwd, function=lambda x: 2.0 * x):
    f = custom_vjp(function)
    f.defvjp(fwd, bwd)
    return f


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda p, t: (2 * p[0], t[0][:2]), r"tangent float64\[2\] for output float64\[3\]"),
        (lambda p, t: (2 * p[0], np.sum(t[0])), r"tangent float64\[\] for output float64\[3\]"),
        (lambda p, t: (2 * p[0], t[0].astype(np.float32)), r"tangent float32\[3\] for output float64\[3\]"),
        (lambda p, t: (2 * p[0], 1j * t[0]), r"tangent complex128\[3\] for output float64\[3\]"),
        (lambda p, t: (2 * p[0], 0.0), r"tangent float64\[\] for output float64\[3\]"),
        (lambda p, t: (2 * p[0], (t[0],)), "another structure"),
        (lambda p, t: ((2 * p[0],), t[0]), "another structure"),
        (lambda p, t: 2 * p[0], "return out, out_dot"),
    ],
)
@pytest.mark.parametrize("transform", [jacfwd, jacrev, lambda f: vmap(jacfwd(f))])
def test_wrong_results_of_jvp_rules(rule, message, transform):
    points = X if transform in (jacfwd, jacrev) else np.stack([X, X])
    with pytest.raises(CustomRuleError, match=message):
        transform(jvp_rule(rule))(points)


@pytest.mark.parametrize(
    ("bwd", "message"),
    [
        (lambda res, bar: (bar[:2],), r"cotangent float64\[2\] for argument float64\[3\]"),
        (lambda res, bar: (bar.astype(np.float32),), r"cotangent float32\[3\] for argument float64\[3\]"),
        (lambda res, bar: bar, r"1 arguments|one cotangent per"),
        (lambda res, bar: (bar, bar), "return a tuple"),
        (lambda res, bar: ({"x": bar},), "another structure"),
        (lambda res, bar: None, "return a tuple"),
    ],
)
@pytest.mark.parametrize("transform", [jacrev, jacfwd, lambda f: vmap(jacrev(f))])
def test_wrong_results_of_vjp_rules(bwd, message, transform):
    points = X if transform in (jacfwd, jacrev) else np.stack([X, X])
    with pytest.raises(CustomRuleError, match=message):
        transform(vjp_rule(lambda x: (2 * x, None), bwd))(points)


def test_forward_rule_must_give_a_pair():
    with pytest.raises(CustomRuleError, match="return out, residuals"):
        jacrev(vjp_rule(lambda x: 2 * x, lambda res, bar: (bar,)))(X)


def test_rule_with_another_output_than_the_staged_function():
    for f in (
        jvp_rule(lambda p, t: (p[0][:2], t[0][:2])),
        vjp_rule(lambda x: (x[:2], None), lambda res, bar: (np.concatenate([bar, bar[:1]]),)),
    ):
        closed = ft.make_jaxpr(f)(X)
        with pytest.raises(CustomRuleError, match=r"float64\[2\] for float64\[3\]"):
            jvp(lambda x: ft.eval_jaxpr(closed.jaxpr, closed.consts, x), (X,), (X,))  # noqa: B023


def test_missing_rules():
    with pytest.raises(CustomRuleError, match=r"f\.defvjp"):
        custom_vjp(np.sin)(1.0)
    with pytest.raises(CustomRuleError, match=r"@f\.defjvp"):
        custom_jvp(np.sin)(1.0)
    with pytest.raises(InputError, match="takes a function"):
        custom_jvp(3.0)


# checkpoint


def deep(x):
    for _ in range(6):
        x = np.sin(x) * np.exp(-x * x)
    return x


def residuals(f, x):
    """The numbers that the linear program keeps."""
    program = ft.interpreters.linearize.linearize(lambda v: [f(v)], [x])[1]
    return sum(np.size(a.val) for e in program.eqns for a in e.invars if hasattr(a, "val"))


@pytest.mark.parametrize("x", [0.4, X])
def test_checkpoint_gives_the_same_numbers(x):
    def f(wrap, v):
        return np.sum(wrap(deep)(v) ** 2)

    plain, saved = functools.partial(f, lambda g: g), functools.partial(f, checkpoint)
    nested = functools.partial(f, lambda g: checkpoint(lambda v: checkpoint(g)(checkpoint(g)(v)) + g(v)))
    spread = functools.partial(f, lambda g: lambda v: g(g(v)) + g(v))
    for got, want in ((saved, plain), (nested, spread)):
        np.testing.assert_allclose(grad(got)(x), grad(want)(x), rtol=1e-12)
        np.testing.assert_allclose(jacfwd(got)(x), jacfwd(want)(x), rtol=1e-12)
        for outer, inner in NESTINGS:
            np.testing.assert_allclose(outer(inner(got))(x), hessian(want)(x), rtol=1e-9, atol=1e-12)
        stack = np.stack([np.asarray(x), 2 * np.asarray(x)])
        np.testing.assert_allclose(vmap(grad(got))(stack), vmap(grad(want))(stack), rtol=1e-12)
        np.testing.assert_allclose(vmap(hessian(got))(stack), vmap(hessian(want))(stack), rtol=1e-9, atol=1e-12)


def test_checkpoint_keeps_its_arguments_only():
    x = np.linspace(0.0, 1.0, 100)
    assert residuals(checkpoint(deep), x) == 100
    assert residuals(deep, x) > 1000


def test_checkpoint_evaluates_again_and_only_then():
    calls = []

    def f(x):
        calls.append(1)
        return np.sin(x)

    _, pullback = vjp(checkpoint(f), 1.0)
    assert len(calls) == 1
    assert pullback(1.0)[0] == np.cos(1.0)
    assert len(calls) == 2


def test_checkpoint_over_closures_pytrees_and_integers():
    assert grad(lambda y: checkpoint(lambda x: x * y)(2.0))(3.0) == 2.0
    assert grad(lambda y: checkpoint(lambda x: x * y)(y))(3.0) == 6.0
    np.testing.assert_allclose(vmap(grad(lambda y: checkpoint(lambda x: x * y)(y)))(X), 2 * X)
    f = checkpoint(lambda p, n, scale=1.0: {"a": p["x"] ** n * scale})
    assert grad(lambda p: f(p, 3, scale=2.0)["a"])({"x": 2.0}) == {"x": 24.0}
    np.testing.assert_allclose(
        grad(lambda x: ft.lax.scan(lambda c, _: (checkpoint(deep)(c) + x, None), x, None, length=3)[0])(0.4),
        grad(lambda x: functools.reduce(lambda c, _: deep(c) + x, range(3), x))(0.4),
    )


def test_checkpoint_under_python_control_flow():
    f = checkpoint(lambda x: x**2 if x > 0 else x)
    assert grad(f)(3.0) == 6.0 and grad(f)(-3.0) == 1.0


def test_rule_over_arrays_made_inside_the_trace_is_refused():
    def f(x):
        ones = fnp.ones(3)
        g = custom_jvp(lambda v: v * ones)
        g.defjvp(lambda primals, tangents: (g(*primals), tangents[0] * 2.0))
        return np.sum(g(x))

    with pytest.raises(CustomRuleError, match="pass the value as an argument"):
        grad(f)(X)


@pytest.mark.parametrize(
    ("transform", "points"),
    [(grad, 0.3), (jacfwd, 0.3), (lambda f: ft.nth_derivative(f, 1), 0.3), (lambda f: vmap(grad(f)), X)],
)
def test_closures_inside_a_staged_derivative_are_not_constants(transform, points):
    want = transform(lambda x: np.sin(x * x) * x)(points)
    closed = ft.make_jaxpr(transform(lambda x: checkpoint(lambda v: np.sin(v) * x)(x * x)))(points + 0.5)
    np.testing.assert_allclose(ft.eval_jaxpr(closed.jaxpr, closed.consts, points)[0], want)
    for use in (lambda f, y: f(2.0), lambda f, y: f(y)):
        for which in (0, 1):
            with pytest.raises(CustomRuleError, match="pass the value as an argument"):
                ft.make_jaxpr(transform(lambda y: use(closing_over(y)[which], y)))(points)  # noqa: B023


def test_python_numbers_give_way_in_promotion():
    x = np.float32(1.5)
    f = custom_jvp(lambda x, y: x * y)
    f.defjvp(lambda primals, tangents: (f(*primals), tangents[0] * primals[1]))
    g = custom_vjp(lambda x, y: x * y)
    g.defvjp(lambda x, y: (x * y, y), lambda y, bar: (bar * y, None))
    for call in (f, g, checkpoint(lambda x, y: x * y)):
        for run in (lambda x: call(x, 2.0), lambda x: ft.make_jaxpr(call)(x, 2.0).out_avals[0]):  # noqa: B023
            assert run(x).dtype == np.float32
        value, dot = jvp(lambda x: call(x, 2.0), (x,), (x,))  # noqa: B023
        assert value.dtype == dot.dtype == np.float32
        assert grad(lambda x: call(x, 2.0))(x).dtype == np.float32  # noqa: B023
        assert vmap(grad(lambda x: call(x, 2.0)))(np.full(2, x)).dtype == np.float32  # noqa: B023
        assert grad(lambda y: call(x, y))(2.0) == (0.0 if call is not checkpoint and hasattr(call, "fun") else 1.5)  # noqa: B023


def test_a_checkpointed_branch_not_taken_contributes_nothing():
    def guarded(x):
        return np.where(x > 0.0, ft.checkpoint(np.sqrt)(x), 2.0 * x)

    with np.errstate(divide="ignore", invalid="ignore"):
        assert ft.grad(guarded)(0.0) == ft.jacfwd(guarded)(0.0) == 2.0
        np.testing.assert_array_equal(ft.vmap(ft.grad(guarded))(np.array([0.0, 4.0])), [2.0, 0.25])


def test_a_checkpoint_over_an_array_that_changes_is_refused():
    scale = np.array([1.0, 2.0])
    _, pullback = vjp(checkpoint(lambda x: (scale * np.sin(x)).sum()), np.ones(2))
    scale[:] = 5.0
    with pytest.raises(CustomRuleError, match="pass what changes"):
        pullback(1.0)


def test_residuals_are_out_of_reach():
    table = np.array([1.0, 2.0])

    @custom_vjp
    def f(x):
        return x * table

    f.defvjp(lambda x: (x * table, table), lambda table, bar: (bar * table,))
    _, pullback = vjp(f, np.ones(2))
    table[:] = 7.0
    np.testing.assert_array_equal(pullback(np.ones(2))[0], [1.0, 2.0])

    def spoil(residual, bar):
        residual *= 0
        return (bar,)

    f.defvjp(lambda x: (x * table, table), spoil)
    with pytest.raises(ValueError, match="read-only"):
        vjp(f, np.ones(2))[1](np.ones(2))
