"""What the compiler is built to achieve, as the shape of its programs: one loop where one will do, no temporaries."""

import numpy as np
import pytest

from functrace import explain, grad, hessian, jacrev, jit, jvp, lax, value_and_grad, vmap

X = np.linspace(-1.0, 1.0, 1000)


def compiled(function, *args):
    return jit(function).lower(*args)._program.executable()


def kinds(function, *args):
    return [group.kind for group in explain(function)(*args).groups]


def rosenbrock(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


ONE_LOOP = {
    "chain": (lambda x: np.tanh(np.sin(x) * 2.0 + np.exp(-x)) / (1.0 + x * x), X),
    "value and gradient": (value_and_grad(lambda x: np.sum(np.tanh(0.7 * x + 0.2) ** 2 * np.exp(-x))), X),
    "shifted reads": (lambda x: grad(rosenbrock)(x), X),
    "product with the Hessian": (lambda x: jvp(grad(rosenbrock), (x,), (x,))[1], X),
    "several reductions": (lambda x: (np.sum(x), np.sum(x * x), np.max(x)), X),
    "reverse and transpose": (lambda a: np.exp(a).T[::-1] * 3.0, X.reshape(40, 25)),
    "a stack of small Jacobians": (
        vmap(jacrev(lambda p: np.stack([p[0] * np.sin(p[1]), p[1] * p[2]]))), X[:999].reshape(333, 3)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_LOOP)
def test_one_loop_without_temporaries(name):
    function, x = ONE_LOOP[name]
    assert kinds(function, x) == ["fused"]
    assert compiled(function, x).module.workspace == 0


def test_a_layer_is_a_product_and_a_loop():
    weights, bias = np.ones((30, 20)), np.ones(30)
    assert kinds(lambda w, b, x: np.tanh(w @ x + b), weights, bias, np.ones((20, 25))[:, 0] * X[:20]) in (
        ["library", "fused"], ["fused", "library", "fused"],
    )  # fmt: skip


def test_transposes_are_flags_of_the_product():
    assert kinds(lambda a, b: a.T @ b.T, np.ones((40, 30)), np.ones((25, 40))) == ["library"]


def test_small_problems_need_no_loop():
    text = compiled(hessian(lambda x: x[0] * np.sin(x[1])), np.ones(2)).module.text
    assert " phi " not in text and " call " in text


def loop(length):
    def final(w, s):
        return np.sum(lax.scan(lambda s, _: (np.tanh(w @ s), None), s, None, length=length)[0])

    return grad(final)


def test_code_does_not_grow_with_the_number_of_steps():
    w, s = np.eye(20), np.ones(20)
    sizes = [len(compiled(loop(length), w, s).module.text) for length in (1_000, 100_000)]
    assert abs(sizes[0] - sizes[1]) < 200


def test_a_sum_of_outer_products_is_one_product_after_the_loop():
    groups = explain(loop(50))(np.eye(20), np.ones(20)).groups
    largest = [group for group in groups if group.text.startswith("dot_general") and "[20,20]" in group.text]
    assert len(largest) == 1 and largest[0].flops >= 2 * 20 * 20 * 49


def test_products_of_one_term_are_read_through():
    """A contraction over an axis of length one is no work for a library, and no array of its own."""
    function = lambda x, y: np.sum((x[:, None] @ y[None, :]) * 2.0, axis=0)  # noqa: E731
    program = compiled(function, X[:300], X[:200])
    assert set(kinds(function, X[:300], X[:200])) == {"fused"} and program.module.workspace < 300 * 200 * 8


def test_equal_work_is_done_once_in_forward_and_reverse():
    function = value_and_grad(lambda x: np.sum(np.exp(x) * np.sin(x)))
    text = compiled(function, X).module.text
    symbols = [line for line in text.splitlines() if "call <" in line and "%sym" in line]
    assert len(symbols) == 3  # exp, sin and cos, once each
