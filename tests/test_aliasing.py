"""Results are the caller's own: changing any result or argument changes nothing else, now or later."""

import itertools

import numpy as np
import pytest

import functrace


def fresh():
    return np.array([0.3, -0.4, 0.7])


# Each gives its inputs, views of them, or what other outputs share.
FUNCTIONS = {
    "identity": lambda x: x,
    "twice": lambda x: (x, x),
    "view": lambda x: (x[1:], x[:2], x),
    "reshape": lambda x: (x.reshape(3, 1), x.T, x),
    "broadcast": lambda x: np.broadcast_to(x, (2, 3)),
    "product": lambda x: (x * x, x),
    "exp": lambda x: (np.exp(x), np.exp(x)),
    "shared": lambda x: (lambda y: (y, y, y * 2))(np.exp(x)),
    "constant": lambda x: (x * CONSTANT, CONSTANT),
    "zero": lambda x: (x, np.zeros(3)),
    "scaled": lambda x: np.sin(x) * CONSTANT,
}
CONSTANT = np.array([2.0, 3.0, 4.0])


def arrays(tree):
    return [leaf for leaf in functrace.tree.leaves(tree) if isinstance(leaf, np.ndarray)]


def assert_independent(results, *owned):
    """No result shares memory with another or with what somebody else owns, and all can be written to."""
    found = arrays(results)
    for a in found:
        assert a.flags.writeable
        assert not any(np.shares_memory(a, other) for other in owned)
    for a, b in itertools.combinations(found, 2):
        assert not np.shares_memory(a, b)


def ones_like(out):
    return functrace.tree.map(lambda x: np.ones(np.shape(x)), out)


functions = pytest.mark.parametrize("name", FUNCTIONS)


@functions
def test_jvp(name):
    x, v = fresh(), np.ones(3)
    assert_independent(functrace.jvp(FUNCTIONS[name], (x,), (v,)), x, v, CONSTANT)


@functions
def test_vjp(name):
    x = fresh()
    out, pullback = functrace.vjp(FUNCTIONS[name], x)
    bar = ones_like(out)
    bars = pullback(bar)
    assert_independent((out, bars), x, CONSTANT, *arrays(bar))


@functions
def test_pullback_after_everything_was_overwritten(name):
    x = fresh()
    out, pullback = functrace.vjp(FUNCTIONS[name], x)
    bar = ones_like(out)
    expected = pullback(bar)[0].copy()
    for array in [x, *arrays(out), *arrays(pullback(bar))]:
        array[...] = np.nan
    np.testing.assert_array_equal(pullback(ones_like(out))[0], expected)


@functions
def test_linear_map_after_everything_was_overwritten(name):
    x, v = fresh(), np.ones(3)
    out, f_jvp = functrace.linearize(FUNCTIONS[name], x)
    expected = [a.copy() for a in arrays(f_jvp(v))]
    assert_independent((out, f_jvp(v), f_jvp(v)), x, v, CONSTANT)
    for array in [x, *arrays(out), *arrays(f_jvp(v))]:
        array[...] = np.nan
    for got, same in zip(arrays(f_jvp(np.ones(3))), expected, strict=True):
        np.testing.assert_array_equal(got, same)


@functions
def test_jacobians(name):
    x = fresh()
    for jacobian in (functrace.jacfwd, functrace.jacrev):
        assert_independent(jacobian(FUNCTIONS[name])(x), x, CONSTANT)


@functions
def test_vmap(name):
    if name == "view":
        pytest.skip("slices the mapped axis")
    x = np.stack([fresh(), fresh()])
    assert_independent(functrace.vmap(FUNCTIONS[name])(x), x, CONSTANT)


def test_grad_with_aux():
    x = fresh()
    (value, aux), gradient = functrace.value_and_grad(lambda x: (x @ x, (x, x[1:], CONSTANT)), has_aux=True)(x)
    assert_independent((gradient, aux), x, CONSTANT)
    assert type(value) is np.float64


@pytest.mark.parametrize("argnums", [0, (0, 1)])
def test_gradients_that_are_arguments(argnums):
    """The gradient of a product is the other factor, which belongs to the caller."""
    x, y = fresh(), fresh() + 1
    gradient = functrace.grad(lambda x, y: x @ y, argnums)(x, y)
    assert_independent(gradient, x, y)
    gradient = functrace.grad(lambda x, y: (x * y) @ np.ones(3), argnums)(x, y)
    assert_independent(gradient, x, y)


def test_constants_captured_while_tracing_are_snapshots():
    scale = np.array([1.0, 2.0, 3.0])
    _, pullback = functrace.vjp(lambda x: x * scale, fresh())
    _, f_jvp = functrace.linearize(lambda x: x * scale, fresh())
    closed = functrace.make_jaxpr(lambda x: x * scale)(fresh())
    scale[:] = 100.0
    np.testing.assert_array_equal(pullback(np.ones(3))[0], [1, 2, 3])
    np.testing.assert_array_equal(f_jvp(np.ones(3)), [1, 2, 3])
    np.testing.assert_array_equal(functrace.eval_jaxpr(closed.jaxpr, closed.consts, np.ones(3))[0], [1, 2, 3])


def test_a_buffer_reused_in_a_loop_is_captured_each_time():
    def f(x):
        buffer = np.zeros(3)
        total = 0.0
        for k in range(3):
            buffer[:] = k + 1
            total = total + (x * buffer) @ np.ones(3)
        return total

    np.testing.assert_array_equal(functrace.grad(f)(fresh()), np.full(3, 6.0))
    np.testing.assert_array_equal(functrace.jacfwd(f)(fresh()), np.full(3, 6.0))
    closed = functrace.make_jaxpr(functrace.grad(f))(fresh())
    np.testing.assert_array_equal(functrace.eval_jaxpr(closed.jaxpr, closed.consts, fresh())[0], np.full(3, 6.0))


def test_arguments_are_never_changed():
    x = fresh()
    before = x.copy()
    for transform in (functrace.grad, functrace.jacfwd, functrace.hessian):
        transform(lambda x: np.exp(x) @ x)(x)
    functrace.vmap(np.exp)(x)
    np.testing.assert_array_equal(x, before)
    assert x.flags.writeable


def test_read_only_arguments():
    x = fresh()
    x.flags.writeable = False
    out, pullback = functrace.vjp(lambda x: (x, x * x), x)
    assert_independent((out, pullback((x, x))), x)


def test_transposed_and_strided_arguments():
    x = np.arange(12.0).reshape(3, 4)
    for view in (x.T, x[::2, 1::2], x[::-1], np.broadcast_to(x[0], (3, 4))):
        gradient = functrace.grad(lambda v: np.sum(v * v * v))(view)
        np.testing.assert_allclose(gradient, 3 * view**2)
        assert_independent(gradient, x)


def test_evaluated_jaxpr_does_not_give_its_constants_away():
    closed = functrace.make_jaxpr(lambda x: (x, CONSTANT * 1.0))(fresh())
    first = functrace.eval_jaxpr(closed.jaxpr, closed.consts, fresh())
    expected = first[1].copy()
    first[1][...] = np.nan
    np.testing.assert_array_equal(functrace.eval_jaxpr(closed.jaxpr, closed.consts, fresh())[1], expected)


def test_mutating_a_jaxprs_argument_array_later():
    """An argument that flows into an aux output is a copy too."""
    x = fresh()
    _, aux = functrace.grad(lambda x: (x @ x, {"seen": x}), has_aux=True)(x)
    x[:] = 0
    np.testing.assert_array_equal(aux["seen"], fresh())


def test_read_only_views_of_a_buffer_that_changes():
    def f(x):
        buffer = np.zeros(1)
        wide = np.broadcast_to(buffer, (3,))
        total = 0.0
        for k in range(3):
            buffer[:] = k + 1
            total = total + (x * wide) @ np.ones(3)
        return total

    np.testing.assert_array_equal(functrace.grad(f)(fresh()), np.full(3, 6.0))
    base = fresh()
    _, pullback = functrace.vjp(lambda x: x * x, np.broadcast_to(base, (2, 3)))
    base[:] = np.nan
    np.testing.assert_array_equal(pullback(np.ones((2, 3)))[0], np.stack([2 * fresh()] * 2))


def test_constant_outputs_are_copies():
    out, unbatched = functrace.vmap(lambda x: (x, CONSTANT), out_axes=(0, None))(fresh())
    assert_independent((out, unbatched), CONSTANT)
    closed = functrace.make_jaxpr(lambda x: (x, CONSTANT))(fresh())
    assert not any(np.shares_memory(c, CONSTANT) for c in closed.consts)
