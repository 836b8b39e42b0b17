"""pure_callback, debug.callback, debug.print and numba_call under every transformation."""

import numpy as np
import pytest

import functrace as ft
from functrace import (
    ShapeDtypeStruct,
    custom_jvp,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    make_jaxpr,
    numba_call,
    pure_callback,
    vmap,
)
from functrace.errors import ArgumentError, CallbackError
from functrace.testing import check_rule

X = np.array([0.3, 0.8, 1.2])


def again(f, *args):
    """The function staged, and run from its jaxpr."""
    closed = make_jaxpr(f)(*args)
    return lambda *values: ft.eval_jaxpr(closed.jaxpr, closed.consts, *values)[0]


# pure_callback


def test_values_pytrees_and_keywords():
    def callback(pair, *, scale):
        assert type(pair["x"]) is np.ndarray and type(scale) is np.ndarray
        return {"sum": pair["x"].sum() * scale, "rows": [pair["x"] * pair["y"]]}

    types = {"sum": ShapeDtypeStruct((), float), "rows": [X]}

    def f(x, y):
        return pure_callback(callback, types, {"x": x, "y": y}, scale=2.0)

    out = f(X, 2 * X)
    np.testing.assert_allclose(out["sum"], 2 * X.sum())
    np.testing.assert_allclose(out["rows"][0], 2 * X * X)
    np.testing.assert_allclose(again(lambda x: f(x, x)["rows"][0], X)(X), X * X)


@pytest.mark.parametrize("method", ["sequential", "expand_dims", "broadcast_all"])
def test_batches(method):
    shapes = []

    def callback(x, y):
        shapes.append((x.shape, y.shape))
        return np.sin(x) * y

    def f(x, y):
        return pure_callback(callback, x, x, y, vmap_method=method)

    np.testing.assert_allclose(vmap(f)(X, X), np.sin(X) * X)
    np.testing.assert_allclose(vmap(f, in_axes=(0, None))(X, 2.0), np.sin(X) * 2.0)
    if method == "sequential":
        assert shapes == [((), ())] * 6
    else:
        assert shapes == [((3,), (3,)), ((3,), (1,) if method == "expand_dims" else (3,))]
    np.testing.assert_allclose(vmap(vmap(f))(np.stack([X, X]), np.stack([X, X])), np.stack([np.sin(X) * X] * 2))
    np.testing.assert_allclose(again(vmap(f), X, X)(X, X), np.sin(X) * X)


def test_batch_needs_a_method():
    with pytest.raises(CallbackError, match=r'vmap_method="sequential"'):
        vmap(lambda x: pure_callback(np.sin, x, x))(X)
    with pytest.raises(ArgumentError, match="'sequential', 'expand_dims', 'broadcast_all' or None"):
        pure_callback(np.sin, X, X, vmap_method="parallel")


def test_derivative_needs_a_rule():
    def f(x):
        return pure_callback(np.sin, x, x, vmap_method="broadcast_all")

    for transform in (grad, jacfwd, lambda g: ft.nth_derivative(g, 2)):
        with pytest.raises(CallbackError, match=r"float64\[\]\n.*custom_jvp"):
            transform(f)(1.0)
    g = custom_jvp(f)
    g.defjvp(lambda primals, tangents: (g(*primals), np.cos(primals[0]) * tangents[0]))
    assert grad(g)(1.0) == np.cos(1.0) and grad(grad(g))(1.0) == -np.sin(1.0)
    np.testing.assert_allclose(vmap(grad(g))(X), np.cos(X))
    np.testing.assert_allclose(again(grad(g), 1.0)(2.0), np.cos(2.0))
    assert grad(lambda x: x * f(ft.stop_gradient(x)))(1.0) == np.sin(1.0)


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (lambda x: x[:2], r"float64\[2\] for float64\[3\]"),
        (lambda x: x.astype(np.float32), r"float32\[3\] for float64\[3\]"),
        (lambda x: (x, x), "same containers"),
    ],
)
def test_wrong_results_are_refused(callback, message):
    with pytest.raises(CallbackError, match=message):
        pure_callback(callback, X, X)


def test_callback_may_use_functrace_itself():
    def f(x):
        return pure_callback(lambda v: grad(np.sin)(v), x, x, vmap_method="sequential") * x

    assert f(1.0) == np.cos(1.0)
    np.testing.assert_allclose(vmap(f)(X), np.cos(X) * X)


def test_callback_cannot_change_the_operands():
    def callback(x):
        x[:] = 0.0
        return x

    x = X.copy()
    pure_callback(callback, x, x)
    np.testing.assert_array_equal(x, X)


def test_inside_loops():
    def step(c, x):
        return c + pure_callback(np.sin, c, x), None

    np.testing.assert_allclose(ft.lax.scan(step, 0.0, X)[0], np.sin(X).sum())
    np.testing.assert_allclose(again(lambda xs: ft.lax.scan(step, 0.0, xs)[0], X)(X), np.sin(X).sum())


# debug


def test_debug_callback_sees_values_once_and_in_order():
    seen = []

    def f(x):
        ft.debug.callback(lambda v, *, tag: seen.append((str(tag.dtype), v.tolist())), x, tag=1)
        ft.debug.callback(seen.append, "end" and 2.0)
        return np.sin(x)

    want = [("int64", 0.5), 2.0]
    for run in (f, grad(f), jacfwd(f), grad(grad(f)), lambda x: ft.nth_derivative(f, 3)(x), again(f, 0.5)):
        seen.clear()
        run(0.5)
        assert seen == want, run
    seen.clear()
    make_jaxpr(f)(0.5)
    assert seen == []
    again(grad(f), 0.5)(0.7)
    assert seen[0] == ("int64", 0.7)
    seen.clear()
    vmap(f)(X)
    assert seen[:3] == [("int64", v) for v in X]


def test_debug_callback_survives_dead_code_removal():
    closed = make_jaxpr(lambda x: (ft.debug.callback(print, x), 2.0)[1])(1.0)
    assert [e.primitive.name for e in closed.eqns] == ["debug_callback"]


def test_debug_print(capsys):
    def f(x):
        ft.debug.print("x = {}, twice {y}", x, y=2 * x, ordered=True)
        ft.debug.print("done")
        return x * x

    assert grad(f)(3.0) == 6.0
    assert capsys.readouterr().out == "x = 3.0, twice 6.0\ndone\n"
    ft.lax.fori_loop(0, 2, lambda i, c: (ft.debug.print("i = {}", i), c)[1], 0.0)
    assert capsys.readouterr().out == "i = 0\ni = 1\n"


# numba_call

numba = pytest.importorskip("numba")


@pytest.fixture(scope="module")
def softplus():
    @numba.njit
    def soft(x):
        return np.log1p(np.exp(x))

    return numba_call(soft, lambda x: x, derivative=lambda x, out: 1 - np.exp(-out), vectorized=True)


@pytest.fixture(scope="module")
def weighted_norm():
    @numba.njit
    def norm(x, w):
        total = 0.0
        for i in range(x.shape[0]):
            total += w[i] * x[i] * x[i]
        return np.sqrt(total)

    def rule(primals, tangents, out):
        (x, w), (x_dot, w_dot) = primals, tangents
        total = 0.0
        if x_dot is not None:
            total = total + np.sum(w * x * x_dot)
        if w_dot is not None:
            total = total + 0.5 * np.sum(x * x * w_dot)
        return total / out

    return numba_call(norm, ShapeDtypeStruct((), float), jvp=rule)


def test_elementwise_kernel(softplus):
    def plain(x):
        return np.log1p(np.exp(x))

    np.testing.assert_allclose(softplus(X), plain(X))
    assert isinstance(softplus(0.3), np.float64)
    np.testing.assert_allclose(vmap(grad(softplus))(X), vmap(grad(plain))(X))
    np.testing.assert_allclose(vmap(softplus)(np.stack([X, X])), np.stack([plain(X)] * 2))
    for outer, inner in [(a, b) for a in (jacfwd, jacrev) for b in (jacfwd, jacrev)]:
        np.testing.assert_allclose(outer(inner(softplus))(X), outer(inner(plain))(X), atol=1e-12)
    np.testing.assert_allclose(again(grad(lambda x: np.sum(softplus(x))), X)(X), vmap(grad(plain))(X))
    np.testing.assert_allclose(ft.nth_derivative(softplus, 5)(0.3), ft.nth_derivative(plain, 5)(0.3))
    assert softplus(X.astype(np.float32)).dtype == np.float32
    check_rule(softplus, (X,))


def test_kernel_with_a_jvp_rule(weighted_norm):
    def plain(x, w):
        return np.sqrt(np.sum(w * x * x))

    w = np.array([1.0, 2.0, 0.5])
    for argnums in (0, 1, (0, 1)):
        got, want = grad(weighted_norm, argnums)(X, w), grad(plain, argnums)(X, w)
        np.testing.assert_allclose(got, want)
    np.testing.assert_allclose(hessian(weighted_norm)(X, w), hessian(plain)(X, w), atol=1e-12)
    stack = np.stack([X, 2 * X])
    np.testing.assert_allclose(vmap(grad(weighted_norm), (0, None))(stack, w), vmap(grad(plain), (0, None))(stack, w))
    np.testing.assert_allclose(
        vmap(hessian(weighted_norm), (0, None))(stack, w), vmap(hessian(plain), (0, None))(stack, w), atol=1e-12
    )
    check_rule(weighted_norm, (X, w))


def test_plain_function_is_compiled_on_first_use():
    def cube(x):
        return x * x * x

    f = numba_call(cube, lambda x: x, derivative=[lambda x, out: 3 * x * x])
    assert f(2.0) == 8.0 and grad(f)(2.0) == 12.0 and f.__name__ == "cube"


def test_rules_that_do_not_fit():
    f = numba_call(numba.njit(lambda x: x), lambda x: x)
    with pytest.raises(CallbackError, match=r"derivative=\.\.\. or jvp=\.\.\."):
        grad(f)(1.0)
    with pytest.raises(ArgumentError, match="partial derivatives for elementwise kernels"):
        numba_call(np.sin, lambda x: x, derivative=np.cos, jvp=np.cos)
    two = numba_call(numba.njit(lambda x, y: x * y), lambda x, y: x, derivative=lambda x, y, out: y)
    with pytest.raises(CallbackError, match="1 for 2 arguments"):
        grad(two)(1.0, 2.0)
    wrong = numba_call(numba.njit(lambda x: x), lambda x: x, jvp=lambda p, t, out: t[0][:2])
    with pytest.raises(CallbackError, match=r"float64\[2\] for result float64\[3\]"):
        jvp(wrong, (X,), (X,))
    summed = numba_call(numba.njit(lambda x: x.sum()), ShapeDtypeStruct((), float), derivative=lambda x, out: x)
    with pytest.raises(CallbackError, match=r"give the rule as jvp"):
        summed(X)
    short = numba_call(numba.njit(lambda x: x[:2]), lambda x: x)
    with pytest.raises(CallbackError, match=r"float64\[2\] for float64\[3\]"):
        short(X)


def test_compiled_programs_call_a_kernel_by_its_address():
    numba = pytest.importorskip("numba")

    @numba.njit
    def halves(x):
        if x[0] < 0:
            raise ValueError("negative")
        return np.sqrt(x) / 2

    f = ft.numba_call(halves, lambda x: x, derivative=lambda x, out: 1 / (8 * out))
    x = np.linspace(1.0, 4.0, 40)
    slope = ft.grad(lambda x: np.sum(f(2 * x) ** 2))
    np.testing.assert_allclose(ft.jit(slope)(x), slope(x), rtol=1e-14)
    assert "NumPy" not in repr(ft.explain(slope)(x))
    with pytest.raises(ValueError, match="negative"):
        ft.jit(f)(-x)
