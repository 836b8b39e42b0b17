"""vmap: axes in, axes out, sizes, trees, nesting, and its composition with derivatives."""

from typing import NamedTuple

import numpy as np
import pytest

import functrace
from functrace import tree

RNG = np.random.default_rng(1)
X = RNG.standard_normal((4, 3))
Y = RNG.standard_normal((4, 3))
W = RNG.standard_normal((3, 2))


class Point(NamedTuple):
    x: object
    y: object


def close(got, expected, rtol=1e-12):
    assert tree.structure(got) == tree.structure(expected)
    for g, e in zip(tree.leaves(got), tree.leaves(expected), strict=True):
        assert isinstance(g, np.ndarray)
        assert g.dtype == e.dtype
        assert g.shape == e.shape
        np.testing.assert_allclose(g, e, rtol=rtol, atol=1e-14)


def test_arguments_mapped_over_axis_0():
    close(functrace.vmap(np.dot)(X, Y), (X * Y).sum(1))
    close(functrace.vmap(lambda x: x[0])(X), X[:, 0])
    close(functrace.vmap(lambda x, y: (x * 2, y.T @ W))(X, Y), (2 * X, Y @ W))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_in_axes(axis):
    cube = RNG.standard_normal((2, 3, 4))
    loop = np.stack([np.sin(part) @ np.ones(part.shape[1]) for part in np.moveaxis(cube, axis, 0)])
    close(functrace.vmap(lambda x: np.sin(x) @ np.ones(x.shape[1]), in_axes=axis)(cube), loop)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_out_axes(axis):
    cube = RNG.standard_normal((2, 3, 4))
    close(functrace.vmap(np.exp, out_axes=axis)(cube), np.moveaxis(np.exp(cube), 0, axis))


def test_in_axes_none_and_tuples():
    close(functrace.vmap(lambda x, w: x @ w, in_axes=(0, None))(X, W), X @ W)
    close(functrace.vmap(lambda w, x: x @ w, in_axes=(None, 1))(W, X.T.copy()), X @ W)
    close(functrace.vmap(lambda w, x: x @ w, in_axes=[None, 0])(W, X), X @ W)
    close(functrace.vmap(lambda x, k: x * k, in_axes=(0, None))(X, 2.0), 2 * X)


def test_in_axes_prefixes_of_trees():
    def f(p, extra):
        return p.x * p.y["k"] + extra[0]

    point = Point(X, {"k": Y})
    close(functrace.vmap(f)(point, [X]), X * Y + X)
    close(functrace.vmap(f, in_axes=(0, None))(point, [2.0]), X * Y + 2)
    close(functrace.vmap(f, in_axes=(Point(0, None), [0]))(Point(X, {"k": Y[0]}), [X]), X * Y[0] + X)
    close(functrace.vmap(f, in_axes=(Point(1, {"k": None}), None))(Point(X.T, {"k": Y[0]}), (1.0,)), X * Y[0] + 1)
    close(functrace.vmap(lambda d: d["a"] + d["b"], in_axes=({"a": 0, "b": None},))({"a": X, "b": Y[0]}), X + Y[0])


def test_none_in_trees_is_not_a_leaf():
    close(functrace.vmap(lambda t: (t[0], None))((X, None)), (X, None))


def test_kwargs_are_mapped_over_axis_0():
    close(functrace.vmap(lambda x, *, y: x * y)(X, y=Y), X * Y)
    close(functrace.vmap(lambda x, *, y: x * y, in_axes=None)(2.0, y=Y), 2 * Y)


def test_out_axes_trees():
    def f(x):
        return {"a": x, "b": (x * 2, x @ x)}

    out = functrace.vmap(f, out_axes={"a": 1, "b": 0})(X)
    close(out, {"a": X.T, "b": (2 * X, (X * X).sum(1))})
    out = functrace.vmap(f, out_axes={"a": -1, "b": (1, 0)})(X)
    close(out, {"a": X.T, "b": (2 * X.T, (X * X).sum(1))})


def test_unbatched_outputs():
    close(functrace.vmap(lambda x: (x, 3.0, W))(X), (X, np.full(4, 3.0), np.stack([W] * 4)))
    out = functrace.vmap(lambda x, w: (x, w), in_axes=(0, None), out_axes=(0, None))(X, W)
    close(out, (X, W))


def test_axis_size():
    close(functrace.vmap(lambda x: x + 1, in_axes=None, axis_size=3)(W), np.stack([W + 1] * 3))
    close(functrace.vmap(lambda x: x + 1, axis_size=4)(X), X + 1)
    close(functrace.vmap(lambda: 2.0, axis_size=2)(), np.full(2, 2.0))


@pytest.mark.parametrize("size", [0, 1])
def test_empty_and_single_batches(size):
    out = functrace.vmap(lambda x: np.sin(x) * (x @ x))(X[:size])
    assert out.shape == (size, 3)
    close(out, np.sin(X[:size]) * (X[:size] ** 2).sum(1, keepdims=True))


def test_dtypes_stay():
    assert functrace.vmap(lambda x: x * 2)(X.astype(np.float32)).dtype == np.float32
    assert functrace.vmap(lambda n: n * 2)(np.arange(3)).dtype == np.int64
    assert functrace.vmap(lambda b: ~b)(np.array([True, False])).tolist() == [False, True]


def test_nested():
    outer = functrace.vmap(lambda x: functrace.vmap(lambda y: x @ y)(Y))(X)
    close(outer, X @ Y.T)
    outer = functrace.vmap(functrace.vmap(np.multiply, in_axes=(None, 0)), in_axes=(0, None))(X[:, 0], Y[:, 1])
    close(outer, np.outer(X[:, 0], Y[:, 1]))
    triple = functrace.vmap(functrace.vmap(functrace.vmap(lambda x: x * x)))
    cube = RNG.standard_normal((2, 3, 4))
    close(triple(cube), cube * cube)


def test_closure_over_an_outer_batch():
    def outer(x):
        def inner(y):
            return x * y[0] + x @ W @ W.T

        return functrace.vmap(inner)(Y)

    expected = np.stack([[x * y[0] + x @ W @ W.T for y in Y] for x in X])
    close(functrace.vmap(outer)(X), expected)


def loss(w, x):
    return np.sin(x @ w) @ np.ones(2)


def test_per_example_gradients():
    got = functrace.vmap(functrace.grad(loss), in_axes=(None, 0))(W, X)
    close(got, np.stack([functrace.grad(loss)(W, x) for x in X]))


def test_gradient_of_a_batched_loss():
    got = functrace.grad(lambda w: functrace.vmap(loss, in_axes=(None, 0))(w, X) @ np.ones(4))(W)
    close(got, sum(functrace.grad(loss)(W, x) for x in X))


@pytest.mark.parametrize("mode", ["fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev"])
def test_per_example_hessians(mode):
    hess = functrace.hessian(loss, argnums=1, mode=mode)
    got = functrace.vmap(hess, in_axes=(None, 0))(W, X)
    close(got, np.stack([hess(W, x) for x in X]))


def test_batched_jvp_and_vjp():
    def f(x):
        return np.exp(x) * (x @ x)

    got = functrace.vmap(lambda x, v: functrace.jvp(f, (x,), (v,))[1])(X, Y)
    close(got, np.stack([functrace.jvp(f, (x,), (v,))[1] for x, v in zip(X, Y, strict=True)]))
    got = functrace.vmap(lambda x, v: functrace.vjp(f, x)[1](v)[0])(X, Y)
    close(got, np.stack([functrace.vjp(f, x)[1](v)[0] for x, v in zip(X, Y, strict=True)]))
    _, pullback = functrace.vjp(f, X[0])
    close(functrace.vmap(lambda bar: pullback(bar)[0])(Y), np.stack([pullback(y)[0] for y in Y]))
    _, f_jvp = functrace.linearize(f, X[0])
    close(functrace.vmap(f_jvp)(Y), np.stack([f_jvp(y) for y in Y]))


def test_derivative_with_respect_to_a_closed_over_batch():
    def f(w):
        return functrace.vmap(lambda x: (x @ w) * w[0, 0])(X) @ np.ones(2) @ np.ones(4)

    expected = functrace.grad(lambda w: ((X @ w) * w[0, 0]) @ np.ones(2) @ np.ones(4))(W)
    close(functrace.grad(f)(W), expected)
    close(functrace.jvp(f, (W,), (W,))[1][None], np.array([2 * f(W)]))


def test_staged():
    closed = functrace.make_jaxpr(functrace.vmap(loss, in_axes=(None, 0)))(W, X)
    got = functrace.eval_jaxpr(closed.jaxpr, closed.consts, W, X)
    close(got[0], np.stack([loss(W, x) for x in X]))


def test_decorator_keeps_name():
    assert functrace.vmap(loss).__name__ == "loss"


def test_buffers_and_python_numbers():
    def f(x):
        total = 0
        for k in range(3):
            total = total + k * x[k]
        return total

    close(functrace.vmap(f)(X), X @ np.arange(3.0))
