"""jit: the same values and derivatives as without it, one trace per type, and every composition."""

import functools
import itertools
import threading

import numpy as np
import pytest

import functrace as ft
from functrace import grad, hessian, jacfwd, jacrev, jit, jvp, lax, linearize, make_jaxpr, vjp, vmap
from functrace.backend import executable as executable_module
from functrace.core.ir import check_jaxpr
from functrace.errors import AbstractValueError, LeakedTracerError, NonHashableError
from functrace.interpreters.simplify import simplify

X = np.array([0.3, -0.7, 1.1])


def f(x):
    return np.sum(np.sin(x) * np.exp(-x * x)) * x[0]


def looped(x):
    return lax.scan(lambda c, v: (np.tanh(c * v + 1.0), c), x[0], x)[0]


WRAPPERS = {
    "jit": jit,
    "grad": lambda g: lambda x: grad(lambda y: np.sum(g(y)))(x),
    "vmap": lambda g: lambda x: vmap(g)(np.stack([x, 2 * x]))[1],
    "jvp": lambda g: lambda x: jvp(g, (x,), (np.ones_like(x),))[1],
    "linearize": lambda g: lambda x: linearize(g, x)[1](np.ones_like(x)),
}


@pytest.mark.parametrize("names", list(itertools.product(WRAPPERS, repeat=3)), ids="-".join)
@pytest.mark.parametrize("function", [f, looped])
def test_any_stack_of_transforms_is_the_same_with_and_without_jit(names, function):
    def build(wrappers):
        g = function
        for name in reversed(names):
            g = wrappers[name](g)
        return g

    plain = {**WRAPPERS, "jit": lambda g: g}
    np.testing.assert_allclose(build(WRAPPERS)(X), build(plain)(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", ["fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev"])
def test_hessians_in_and_around_jit(mode):
    expected = hessian(f, mode=mode)(X)
    np.testing.assert_allclose(hessian(jit(f), mode=mode)(X), expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(jit(hessian(f, mode=mode))(X), expected, rtol=1e-12, atol=1e-13)
    batch = jit(vmap(hessian(jit(f), mode=mode)))(np.stack([X, X]))
    np.testing.assert_allclose(batch[1], expected, rtol=1e-12, atol=1e-13)


def test_a_type_is_traced_once():
    traces = []

    @jit
    def g(x):
        traces.append(x.shape)
        return x * 2

    g(X), g(X + 1), g(np.float64(2.0)), g(X.astype(np.float32)), g(X)
    assert traces == [(3,), (), (3,)]
    assert g.cache_info() == (3, 3)
    assert g(X.astype(np.float32)).dtype == np.float32
    g.clear_cache()
    g(X)
    assert len(traces) == 4


def test_a_python_number_is_weak_and_another_type():
    g = jit(lambda x: x * np.float32(2))
    assert g(1.5).dtype == np.float32
    assert g(np.float64(1.5)).dtype == np.float64


def test_derivatives_of_a_jitted_function_are_derived_once():
    traces = []

    @jit
    def g(x):
        traces.append(1)
        return np.sum(np.sin(x))

    for _ in range(3):
        grad(g)(X), jvp(g, (X,), (X,)), vmap(g)(np.stack([X, X]))
    assert len(traces) == 1


def test_static_arguments_are_seen_by_python():
    @functools.partial(jit, static_argnums=(1,), static_argnames="scale")
    def g(x, n, *, scale="one"):
        for _ in range(n):
            x = x * x
        return x if scale == "one" else 10 * x

    assert g(3.0, 2) == 81.0 and g(3.0, 1) == 9.0 and g(2.0, 1, scale="ten") == 40.0
    assert g.cache_info().size == 3
    with pytest.raises(NonHashableError, match="pass a tuple"):
        g(3.0, [2])


def test_a_static_position_is_static_by_name_too():
    g = jit(lambda x, n: x * n if n > 1 else x, static_argnums=1)
    assert g(2.0, n=3) == 6.0


def test_trees_in_and_out():
    g = jit(lambda tree, *, shift: {"sum": tree["a"] + tree["b"][0], "none": None, "shift": (shift,)})
    out = g({"a": X, "b": (1.0, None)}, shift=2)
    np.testing.assert_array_equal(out["sum"], X + 1)
    assert out["none"] is None and out["shift"] == (2,)


def test_what_is_closed_over_is_fixed_when_traced():
    scale = np.array([1.0, 2.0, 3.0])
    g = jit(lambda x: x * scale)
    first = g(X)
    scale[:] = 0
    np.testing.assert_array_equal(g(X), first)


def test_closures_over_outer_tracers():
    def outer(a):
        inner = jit(lambda x: np.sin(a * x))
        return inner(a) + inner(2.0)

    def plain(a):
        return np.sin(a * a) + np.sin(2 * a)

    assert grad(outer)(0.7) == pytest.approx(grad(plain)(0.7), rel=1e-14)
    assert grad(grad(outer))(0.7) == pytest.approx(grad(grad(plain))(0.7), rel=1e-13)
    shared = jit(lambda a: jit(lambda x: x * a)(a))
    assert grad(shared)(3.0) == 6.0


def test_results_belong_to_the_caller():
    table = np.arange(3.0)
    g = jit(lambda x: (x, x, table, x.T))
    outs = g(X)
    for out in outs:
        out[:] = -1
    np.testing.assert_array_equal(X, [0.3, -0.7, 1.1])
    np.testing.assert_array_equal(g(X)[2], [0, 1, 2])
    assert len({id(out) for out in outs}) == 4


def test_control_flow_on_values_is_refused_with_the_remedy():
    with pytest.raises(AbstractValueError, match="static_argnums"):
        jit(lambda x: x if x > 0 else -x)(1.0)


def test_a_leak_is_named():
    kept = []
    jit(lambda x: kept.append(x) or x)(1.0)
    with pytest.raises(LeakedTracerError, match="return the value"):
        kept[0] + 1


def test_methods_and_decorators():
    class Model:
        def __init__(self, w):
            self.w = w

        @functools.partial(jit, static_argnums=0)
        def __call__(self, x):
            return self.w * x

    assert Model(3.0)(2.0) == 6.0


def test_disabled_by_the_environment(monkeypatch):
    monkeypatch.setenv("FUNCTRACE_DISABLE_JIT", "1")
    assert jit(lambda x: x if x > 0 else -x)(-2.0) == 2.0


def test_inline_leaves_no_call():
    for inline, count in ((False, 1), (True, 0)):
        g = jit(np.sin, inline=inline)
        names = [e.primitive.name for e in make_jaxpr(lambda x, g=g: g(x) * 2)(1.0).eqns]
        assert names.count("jit") == count


def test_programs_typecheck_and_print():
    closed = make_jaxpr(grad(jit(f)))(X)
    check_jaxpr(closed.jaxpr)
    assert "jit" in str(closed)
    traced = jit(f).trace(X)
    check_jaxpr(traced.jaxpr)
    lowered = jit(f).lower(X)
    assert "sin" in lowered.as_text("jaxpr") and "sin" in lowered.as_text()
    np.testing.assert_allclose(lowered.compile()(X), f(X), rtol=1e-14)


def test_simplification_shares_and_drops_and_keeps_values():
    def g(x):
        unused = np.exp(x)
        del unused
        return (np.sin(x) + np.sin(x)) * 1.0 + np.float64(2.0) * 3.0

    closed = make_jaxpr(g)(X)
    simple = simplify(closed.jaxpr)
    check_jaxpr(simple)
    assert [e.primitive.name for e in simple.eqns] == ["sin", "add", "add"]
    np.testing.assert_array_equal(jit(g)(X), g(X))


def test_simplification_tells_zeros_apart_and_keeps_complex_infinities():
    assert np.signbit(jit(lambda x: np.copysign(x, -0.0) + 0 * np.copysign(x, 0.0))(1.0))
    z = np.array([complex(np.inf, 0.0)])
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(jit(lambda z: z * (1 + 0j))(z), z * (1 + 0j))


def test_pullbacks_of_jitted_functions_in_jitted_functions():
    @jit
    def g(x, v):
        y, pullback = vjp(jit(np.sin), x)
        return y + pullback(v)[0]

    np.testing.assert_allclose(g(X, X), np.sin(X) + np.cos(X) * X)
    np.testing.assert_allclose(jacfwd(g)(X, X), jacrev(g)(X, X), rtol=1e-13, atol=1e-15)


def test_threads_share_a_jitted_function():
    g = jit(grad(f))
    expected, wrong = grad(f)(X), []

    def work():
        for _ in range(50):
            if not np.allclose(g(X), expected, rtol=1e-12):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert not wrong and g.cache_info().size == 1


def test_jit_needs_a_function():
    with pytest.raises(ft.errors.InputError, match=r"jit\(f\)\(x\)"):
        jit(3.0)


def test_reverse_mode_of_a_while_loop_in_a_jitted_function():
    def doubled(x):
        return lax.while_loop(lambda c: c[0] < 10.0, lambda c: (2.0 * c[0], np.sin(c[1] * c[0])), (x, x))[1]

    expected = grad(doubled)(0.7)
    assert grad(jit(doubled))(0.7) == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(vmap(grad(jit(doubled)))(np.array([0.7, 3.0]))[0], expected, rtol=1e-13)
    for mode in ("rev-rev", "fwd-rev", "rev-fwd"):
        assert hessian(jit(doubled), mode=mode)(0.7) == pytest.approx(hessian(doubled, mode=mode)(0.7), rel=1e-11)
    with pytest.raises(AbstractValueError, match="jit"):
        jit(grad(doubled))(0.7)


def test_a_jitted_branch_not_taken_contributes_nothing():
    def guarded(x):
        return np.where(x > 0.0, jit(lambda x: np.sqrt(x) * 3.0)(x), 2.0 * x)

    with np.errstate(divide="ignore", invalid="ignore"):
        for derivative in (grad(guarded), jacfwd(guarded), jit(grad(guarded))):
            assert derivative(0.0) == 2.0


@pytest.mark.parametrize("stage", ["prepare", "compile_module"])
def test_a_mistake_of_the_compiler_is_a_warning_and_an_eager_result(stage, monkeypatch):
    def broken(*args):
        raise KeyError("a mistake")

    monkeypatch.setattr(executable_module, stage, broken)
    f = ft.jit(lambda x: np.sin(x) * 2.5 - x)
    x = np.linspace(0.0, 1.0, 5)
    with pytest.warns(ft.errors.CompilationWarning, match="report this as a bug"):
        np.testing.assert_allclose(f(x), np.sin(x) * 2.5 - x)
    assert "a mistake" in f.lower(x).as_text("schedule")


@pytest.mark.parametrize("options", [{"static_argnums": 2}, {"static_argnums": (0, -4)}, {"static_argnames": "m"}])
def test_static_arguments_that_the_function_does_not_have(options):
    with pytest.raises(ft.errors.ArgumentError, match="does not have") as caught:
        jit(lambda x, n: x, **options)
    assert "where: tests/test_jit.py" in str(caught.value)
    assert jit(lambda *xs, **named: xs[0], **options)(1.0, 2.0, 3.0) == 1.0  # which may have them


def test_the_simplified_text_is_what_is_compiled():
    inner = jit(lambda x: np.sin(x) * 2.0)
    lowered = jit(lambda x: inner(inner(x))).lower(X)
    assert "jit[" in lowered.as_text("jaxpr") and "jit[" not in lowered.as_text("simplified")
    A = np.linspace(-1.0, 1.0, 1600).reshape(40, 40)
    text = jit(jacfwd(jacfwd(lambda x: np.sum(np.tanh(A @ x))))).lower(np.ones(40)).as_text("simplified")
    assert "dot_general" in text and "[40,40,40]" not in text
