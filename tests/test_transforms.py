"""The derivative transformations: signatures, trees, argnums, auxiliary outputs, dtypes, complex numbers."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest

import functrace
from functrace import tree
from functrace.core.types import float0
from functrace.testing import check_grads

NESTINGS = ["fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev"]

X = np.array([0.3, -0.4, 0.7])
V = np.array([1.0, 2.0, -1.0])
A = np.array([[1.0, 2.0, 0.5], [0.3, -1.0, 4.0]])


def close(got, expected, rtol=1e-12):
    """The same tree with the same dtypes and nearly the same values."""
    assert tree.structure(got) == tree.structure(expected)
    for g, e in zip(tree.leaves(got), tree.leaves(expected), strict=True):
        e = np.asarray(e)
        assert isinstance(g, np.ndarray if e.shape else np.generic)
        assert g.dtype == e.dtype
        assert g.shape == e.shape
        np.testing.assert_allclose(g, e, rtol=rtol, atol=1e-14)


class Point(NamedTuple):
    x: object
    y: object


@tree.register_dataclass
@dataclass
class Layer:
    weights: object
    bias: object


# jvp


def test_jvp_of_scalars_and_arrays():
    close(functrace.jvp(np.sin, (0.5,), (2.0,)), (np.sin(0.5), 2 * np.cos(0.5)))
    close(functrace.jvp(np.sin, (X,), (V,)), (np.sin(X), np.cos(X) * V))
    close(functrace.jvp(np.multiply, [X, V], [V, X]), (X * V, V * V + X * X))


def test_jvp_of_trees():
    def f(p, layer):
        return {"product": p.x * layer.weights, "none": None, "sum": [p.y + layer.bias, (p.x,)]}

    primals = (Point(X, 2.0), Layer(V, 1.0))
    tangents = (Point(V, 1.0), Layer(X, 3.0))
    expected = {"product": X * V, "none": None, "sum": [3.0, (X,)]}
    expected_dot = {"product": V * V + X * X, "none": None, "sum": [4.0, (V,)]}
    close(functrace.jvp(f, primals, tangents), (expected, expected_dot))


def test_jvp_of_constant_output_and_of_identity():
    close(functrace.jvp(lambda x: (1.0, x, 3), (X,), (V,))[1][:2], (0.0, V))
    assert functrace.jvp(lambda x: 3, (X,), (V,))[1].dtype == float0


def test_jvp_has_aux():
    def f(x):
        return x * x, {"name": "square", "twice": 2 * x, "list": [x]}

    out, out_dot, aux = functrace.jvp(f, (X,), (V,), has_aux=True)
    close((out, out_dot), (X * X, 2 * X * V))
    assert aux["name"] == "square"
    close([aux["twice"], *aux["list"]], [2 * X, X])


def test_jvp_zero_tangents_of_integers():
    def f(x, n, flag):
        return np.where(flag, x * n, x)

    tangents = (V, np.zeros((), float0), np.zeros((), float0))
    close(functrace.jvp(f, (X, 3, True), tangents), (3 * X, 3 * V))
    close(functrace.jvp(f, (X, 3, False), (V, None, None)), (X, V))
    close(functrace.jvp(f, (X, 3, False), (V, 0, False)), (X, V))


def test_jvp_none_is_a_zero_tangent():
    close(functrace.jvp(np.multiply, (X, V), (None, V)), (X * V, X * V))


def test_jvp_keeps_single_precision():
    x = X.astype(np.float32)
    close(functrace.jvp(lambda x: 2 * np.sin(x) / 3, (x,), (x,)), (2 * np.sin(x) / 3, 2 * np.cos(x) * x / 3), 1e-6)
    close(functrace.jvp(lambda x: 2.0 * x, (np.float32(3),), (np.float32(1),)), (np.float32(6), np.float32(2)))


# vjp


def test_vjp_of_scalars_and_arrays():
    out, pullback = functrace.vjp(np.sin, 0.5)
    close((out, *pullback(2.0)), (np.sin(0.5), 2 * np.cos(0.5)))
    out, pullback = functrace.vjp(np.multiply, X, V)
    close((out, *pullback(V)), (X * V, V * V, X * V))


def test_vjp_of_trees():
    def f(p, layer):
        return {"product": p.x * layer.weights, "none": None, "sum": [p.y + layer.bias, (p.x,)]}

    out, pullback = functrace.vjp(f, Point(X, 2.0), Layer(V, 1.0))
    bars = pullback({"product": V, "none": None, "sum": [2.0, (X,)]})
    close(bars, (Point(V * V + X, 2.0), Layer(X * V, 2.0)))
    close(out["sum"][0], 3.0)


def test_vjp_pullback_is_reusable_and_linear():
    _, pullback = functrace.vjp(lambda x: np.exp(x) * A, X)
    one, two = np.ones((2, 3)), A
    close(pullback(one + 2 * two)[0], pullback(one)[0] + 2 * pullback(two)[0])


def test_vjp_of_integers_and_unused_arguments():
    _, pullback = functrace.vjp(lambda x, n, unused: x * n, X, 3, V)
    x_bar, n_bar, unused_bar = pullback(V)
    close((x_bar, unused_bar), (3 * V, 0 * V))
    assert n_bar.dtype == float0
    assert n_bar.shape == ()


def test_vjp_none_cotangent_is_zero():
    _, pullback = functrace.vjp(lambda x: (x * x, 3 * x), X)
    close(pullback((None, V)), (3 * V,))


def test_vjp_has_aux():
    out, pullback, aux = functrace.vjp(lambda x: (x * x, ("text", x + 1)), X, has_aux=True)
    close((out, pullback(V)[0]), (X * X, 2 * X * V))
    assert aux[0] == "text"
    close(aux[1], X + 1)


def test_vjp_output_used_twice_and_inputs_returned():
    _, pullback = functrace.vjp(lambda x: (x, x, x * x), X)
    close(pullback((V, V, V)), (2 * V + 2 * X * V,))


# linearize and linear_transpose


def test_linearize_equals_jvp():
    def f(x, y):
        return np.sin(x) * y["a"], x

    args, dots = (X, {"a": V}), (V, {"a": X})
    out, f_jvp = functrace.linearize(f, *args)
    close((out, f_jvp(*dots)), functrace.jvp(f, args, dots))
    close(f_jvp(*dots), functrace.jvp(f, args, dots)[1])


def test_linearize_has_aux_and_integers():
    out, f_jvp, aux = functrace.linearize(lambda x, n: (x * n, "aux"), X, 2, has_aux=True)
    assert aux == "aux"
    close((out, f_jvp(V, np.zeros((), float0))), (2 * X, 2 * V))


def test_linearize_evaluates_once():
    calls = []

    def f(x):
        calls.append(1)
        return np.sin(x)

    _, f_jvp = functrace.linearize(f, X)
    f_jvp(V)
    f_jvp(X)
    assert len(calls) == 1


def test_linear_transpose():
    transpose = functrace.linear_transpose(lambda x: A @ x, X)
    close(transpose(np.array([1.0, 2.0])), (A.T @ np.array([1.0, 2.0]),))
    transpose = functrace.linear_transpose(lambda x, y: (2 * x - y, y / 4), 0.0, 0.0)
    close(transpose((1.0, 8.0)), (2.0, 1.0))


def test_linear_transpose_takes_types():
    transpose = functrace.linear_transpose(lambda x: A @ x, functrace.ShapeDtypeStruct((3,), float))
    close(transpose(np.array([1.0, 2.0])), (A.T @ np.array([1.0, 2.0]),))


@pytest.mark.parametrize(
    "f", [lambda x: x * x, lambda x: 1 / x, np.sin, np.abs, lambda x: np.where(x > 0, x, 0.0), lambda x: x**3]
)
def test_linear_transpose_refuses_nonlinear_functions(f):
    with pytest.raises(functrace.errors.MissingRuleError, match=r"linear part|stop_gradient|nonlinear operation"):
        functrace.linear_transpose(f, X)(X)


# grad and value_and_grad


def test_grad_of_trees():
    def loss(layer, p):
        return (layer.weights @ p.x + layer.bias).sum() * p.y

    layer = Layer(A, np.ones(2))
    close(functrace.grad(loss)(layer, Point(X, 2.0)), Layer(np.stack([2 * X, 2 * X]), np.full(2, 2.0)))
    gradient = functrace.grad(loss, argnums=1)(layer, Point(X, 2.0))
    close(gradient, Point(2 * A.sum(0), (A @ X + 1).sum()))


def test_grad_containers_stay():
    value = {"b": [1.0, (2.0, None)], "a": Point(3.0, 4.0)}
    gradient = functrace.grad(lambda v: v["a"].x * v["b"][0] + v["b"][1][0] ** 2)(value)
    close(gradient, {"b": [3.0, (4.0, None)], "a": Point(1.0, 0.0)})


@pytest.mark.parametrize(
    ("argnums", "expected"),
    [
        *[(0, 6.0), (1, 3.0), (2, 1.0), (-1, 1.0), (-3, 6.0)],
        *[((0,), (6.0,)), ((2, 0), (1.0, 6.0)), ([1], (3.0,)), ((-1, 1), (1.0, 3.0))],
    ],
)
def test_grad_argnums(argnums, expected):
    def f(x, y, z):
        return x * y + z

    close(functrace.grad(f, argnums)(3.0, 6.0, 1.0), expected)
    close(functrace.value_and_grad(f, argnums)(3.0, 6.0, 1.0), (19.0, expected))


def test_grad_numpy_integer_argnums():
    assert functrace.grad(lambda x, y: x * y, np.int64(1))(3.0, 4.0) == 3.0


def test_grad_has_aux():
    def f(x):
        y = (x**2).sum()
        return y, {"text": "abc", "value": y, "x": x, "none": None}

    gradient, aux = functrace.grad(f, has_aux=True)(X)
    close(gradient, 2 * X)
    assert aux["text"] == "abc"
    close((aux["value"], aux["x"]), ((X**2).sum(), X))
    (value, aux), gradient = functrace.value_and_grad(f, has_aux=True)(X)
    close((value, gradient), ((X**2).sum(), 2 * X))
    assert type(aux["value"]) is np.float64


def test_grad_kwargs_are_not_differentiated():
    def f(x, *, scale, offset=0.0):
        return (x * scale + offset).sum()

    close(functrace.grad(f)(X, scale=V), V)
    close(functrace.grad(f)(X, scale=2.0, offset=V), np.full(3, 2.0))


def test_grad_keeps_name_and_documentation():
    def textbook(x):
        """A function."""
        return x

    assert functrace.grad(textbook).__name__ == "textbook"
    assert functrace.grad(textbook).__doc__ == "A function."


def test_grad_other_arguments_of_any_type():
    def f(x, mode, config):
        return x**2 if mode == "square" else x * config["k"]

    assert functrace.grad(f)(3.0, "square", None) == 6.0
    assert functrace.grad(f)(3.0, "linear", {"k": 5, "name": object()}) == 5.0


def test_grad_allow_int():
    gradient = functrace.grad(lambda n, x: n * x, allow_int=True)(3, 2.0)
    assert gradient.dtype == float0
    gradient = functrace.grad(lambda n, x: (n * x).sum(), (0, 1), allow_int=True)(np.arange(3), X)
    assert gradient[0].dtype == float0
    assert gradient[0].shape == (3,)
    close(gradient[1], np.arange(3.0))


def test_grad_python_control_flow_on_values():
    def f(x):
        total = 0.0
        while x < 10:
            x = x * 2 if x > 1 else x + 1.5
            total = total + x
        return total if total > 0 else -total

    check_grads(f, (0.7,), order=2)
    assert functrace.grad(lambda x: x if x > 0 else -x)(-3.0) == -1.0
    assert functrace.grad(lambda x: x ** int(np.floor(3.5)))(2.0) == 12.0


def test_grad_of_constant_function_is_zero():
    close(functrace.grad(lambda x: 3.0)(X), np.zeros(3))
    close(functrace.grad(lambda x, y: y * y)(X, 2.0), np.zeros(3))
    close(functrace.grad(lambda x: functrace.stop_gradient(x).sum())(X), np.zeros(3))


def test_float0_tangents_are_results_like_others():
    def f(x):
        return functrace.jvp(lambda x: (x * x, 3, np.arange(2)), (x,), (1.0,))[1]

    (dot, scalar, vector), _ = functrace.vjp(f, 2.0)
    assert dot == 4.0
    assert scalar.dtype == vector.dtype == float0
    assert functrace.grad(lambda x: f(x)[0])(2.0) == 2.0
    _, out_dot = functrace.jvp(f, (2.0,), (1.0,))
    assert out_dot[0] == 2.0
    assert out_dot[2].shape == (2,)
    assert functrace.vmap(f)(X)[2].shape == (3, 2)


def test_grad_keeps_dtype():
    for dtype in (np.float32, np.float64, np.float16, np.longdouble):
        x = np.array([1, 2], dtype)
        gradient = functrace.grad(lambda x: (x * x * 3).sum())(x)
        assert gradient.dtype == dtype
        assert functrace.grad(lambda x: x * 3.0)(dtype(2)).dtype == dtype


def test_grad_through_conversion():
    x = X.astype(np.float32)
    gradient = functrace.grad(lambda x: (x.astype(np.float64) ** 2).sum())(x)
    close(gradient, 2 * x, 1e-6)


def test_stop_gradient():
    close(functrace.grad(lambda x: (x * functrace.stop_gradient(x)).sum())(X), X)
    out = functrace.stop_gradient({"a": X, "b": 2.0, "c": "text", "d": None})
    assert out["c"] == "text"
    close(out["a"], X)


# jacobians and hessians


def field(x):
    return A @ np.sin(x)


@pytest.mark.parametrize("jacobian", [functrace.jacfwd, functrace.jacrev, functrace.jacobian])
class TestJacobian:
    def test_of_arrays(self, jacobian):
        close(jacobian(field)(X), A * np.cos(X))
        close(jacobian(lambda x: x * 3.0)(2.0), 3.0)
        close(jacobian(lambda x: x * X)(2.0), X)
        close(jacobian(lambda x: (x * x).sum())(X), 2 * X)

    def test_shapes(self, jacobian):
        assert jacobian(lambda x: np.stack([x, x]))(A).shape == (2, 2, 3, 2, 3)
        assert jacobian(lambda x: x)(np.zeros((0, 2))).shape == (0, 2, 0, 2)
        assert jacobian(lambda x: x[:0])(X).shape == (0, 3)

    def test_of_trees(self, jacobian):
        jac = jacobian(lambda p: {"a": p.x * p.y, "b": [p.y]})(Point(X, 2.0))
        close(jac, {"a": Point(2 * np.eye(3), X), "b": [Point(np.zeros(3), 1.0)]})

    def test_argnums(self, jacobian):
        def f(x, y):
            return x * y

        close(jacobian(f, argnums=1)(X, V), np.diag(X))
        close(jacobian(f, argnums=(1, 0))(X, V), (np.diag(X), np.diag(V)))
        close(jacobian(f, argnums=-2)(X, V), np.diag(V))
        close(jacobian(f, argnums=[0])(X, V), (np.diag(V),))

    def test_has_aux_and_kwargs(self, jacobian):
        jac, aux = jacobian(lambda x, *, k: (k * x, ("text", x)), has_aux=True)(X, k=V)
        close(jac, np.diag(V))
        assert aux[0] == "text"
        close(aux[1], X)

    def test_constant_and_partly_constant_outputs(self, jacobian):
        close(jacobian(lambda x: (V, x))(X), (np.zeros((3, 3)), np.eye(3)))

    def test_single_precision(self, jacobian):
        close(jacobian(lambda x: x * x)(X.astype(np.float32)), np.diag(2 * X.astype(np.float32)), 1e-6)

    def test_mixed_precision(self, jacobian):
        x32 = X.astype(np.float32)
        jac = jacobian(lambda x, y: x * y, argnums=(0, 1))(x32, V)
        assert [j.dtype for j in jac] == [np.float64 if jacobian is functrace.jacfwd else np.float32, np.float64]

    def test_holomorphic(self, jacobian):
        z = X + 1j * V
        close(jacobian(lambda z: z * z, holomorphic=True)(z), np.diag(2 * z))


@pytest.mark.parametrize("mode", NESTINGS)
class TestHessian:
    def test_of_arrays(self, mode):
        def f(x):
            return (A @ x) @ (A @ x) + np.prod(np.sin(x))

        expected = functrace.jacfwd(functrace.grad(f))(X)
        close(functrace.hessian(f, mode=mode)(X), expected, 1e-11)

    def test_of_vector_functions(self, mode):
        assert functrace.hessian(field, mode=mode)(X).shape == (2, 3, 3)
        expected = np.stack([np.diag(row * -np.sin(X)) for row in A])
        close(functrace.hessian(field, mode=mode)(X), expected)

    def test_of_trees_and_argnums(self, mode):
        hess = functrace.hessian(lambda p, k: (p.x * p.x).sum() * p.y * k, mode=mode)(Point(X, 2.0), 3.0)
        close(hess, Point(Point(12 * np.eye(3), 6 * X), Point(6 * X, 0.0)))
        hess = functrace.hessian(lambda x, y: x * x * y, argnums=(0, 1), mode=mode)(3.0, 5.0)
        close(hess, ((10.0, 6.0), (6.0, 0.0)))

    def test_has_aux(self, mode):
        hess, aux = functrace.hessian(lambda x: (x**3, ("text", x)), has_aux=True, mode=mode)(2.0)
        close(hess, 12.0)
        assert aux[0] == "text"

    def test_holomorphic(self, mode):
        z = X + 1j * V
        close(functrace.hessian(lambda z: (z**3).sum(), holomorphic=True, mode=mode)(z), np.diag(6 * z))


def test_hvp():
    def f(p):
        return (p["x"] ** 3).sum() * p["y"]

    product = functrace.hvp(f, {"x": X, "y": 2.0}, {"x": V, "y": 1.0})
    close(product, {"x": 12 * X * V + 3 * X**2, "y": (3 * X**2 * V).sum()})


# complex numbers, JAX's convention


def test_grad_of_real_function_of_parts():
    def f(x, y):
        z = x + 1j * y
        return np.real(z * np.conj(z)).sum()

    close(functrace.grad(f, (0, 1))(X, V), (2 * X, 2 * V))
    check_grads(lambda x, y: np.abs(x + 1j * y), (X, V), order=2)


def test_real_functions_of_complex_inputs():
    z = X + 1j * V

    def f(z):
        return (np.abs(z) ** 2).sum()

    close(functrace.grad(f)(z), 2 * np.conj(z))
    close(functrace.jacrev(f)(z), 2 * np.conj(z))
    down = z - 1e-3 * np.conj(functrace.grad(f)(z))
    assert f(down) < f(z)
    close(functrace.jacfwd(lambda x: np.exp(1j * x))(X), np.diag(1j * np.exp(1j * X)))


def test_grad_holomorphic():
    z = 0.3 + 0.4j
    close(functrace.grad(lambda z: z**3, holomorphic=True)(z), 3 * z**2)
    close(functrace.grad(np.exp, holomorphic=True)(z), np.exp(z))


def test_vjp_of_complex_functions_is_not_conjugated():
    z, w = X + 1j * V, V - 2j * X
    _, pullback = functrace.vjp(lambda z: z * (2 + 1j), z)
    close(pullback(w), (w * (2 + 1j),))
    _, pullback = functrace.vjp(np.conj, z)
    close(pullback(w), (np.conj(w),))
    _, pullback = functrace.vjp(np.real, z)
    close(pullback(V), (V + 0j,))
    _, pullback = functrace.vjp(np.imag, z)
    close(pullback(V), (-1j * V,))
    _, pullback = functrace.vjp(np.abs, z)
    close(pullback(V), (V * np.conj(z) / np.abs(z),))


def test_jvp_of_complex_functions():
    z, w = X + 1j * V, V - 2j * X
    close(functrace.jvp(np.exp, (z,), (w,)), (np.exp(z), np.exp(z) * w))
    close(functrace.jvp(np.abs, (z,), (w,)), (np.abs(z), np.real(np.conj(z) * w) / np.abs(z)))


# broadcasting and weak types


@pytest.mark.parametrize(
    "shapes", [((3,), (2, 3)), ((2, 1), (3,)), ((), (2, 3)), ((1, 3), (2, 1)), ((0,), (2, 0)), ((1,), (0,))]
)
def test_broadcasting_is_differentiated(shapes, rng):
    x, y = rng.standard_normal(shapes[0]), rng.uniform(1, 2, shapes[1])
    for f in (np.add, np.multiply, np.divide, np.subtract, np.maximum, np.arctan2):
        check_grads(f, (x, y), order=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_, np.complex64])
@pytest.mark.parametrize("number", [2, 2.5, 1j, True])
def test_promotion_is_numpys(dtype, number):
    x = np.array([1, 0, 1], dtype)
    for f in (lambda a, b: a + b, lambda a, b: a * b, lambda a, b: b * a, lambda a, b: a / b, np.multiply, np.equal):
        expected = f(x, number)
        got, _ = functrace.vjp(lambda x: f(x, number), x)  # noqa: B023
        assert got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=1e-6)
        got, _ = functrace.vjp(f, x, number)
        assert got.dtype == expected.dtype


def test_python_scalar_arguments_are_weak():
    x = X.astype(np.float32)
    assert functrace.vjp(lambda x, k: x * k, x, 2.0)[0].dtype == np.float32
    assert functrace.vjp(lambda x, k: x * (k * 2.0 + 1) ** 2, x, 2.0)[0].dtype == np.float32
    assert functrace.vjp(lambda x, k: x * np.float64(1) * k, x, 2.0)[0].dtype == np.float64
    close(functrace.grad(lambda k: (x * k).sum())(2.0), np.float64(x.sum()), 1e-6)


def test_fwd_and_rev_is_jvp_and_vjp_of_one_evaluation():
    calls = []

    def f(x, p):
        calls.append(1)
        return {"y": np.sin(x) * p["a"], "s": x.sum()}

    x, p = np.array([0.3, 0.5]), {"a": 2.0}
    tangents, bar = (np.array([1.0, -1.0]), {"a": 0.5}), {"y": np.array([1.0, 2.0]), "s": 3.0}
    out, out_dot, bars = functrace.fwd_and_rev(f, (x, p), tangents, bar)
    assert len(calls) == 1
    expected, expected_dot = functrace.jvp(f, (x, p), tangents)
    expected_bars = functrace.vjp(f, x, p)[1](bar)
    for ours, theirs in ((out, expected), (out_dot, expected_dot), (bars, expected_bars)):
        for a, b in zip(functrace.tree.leaves(ours), functrace.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-14)
