"""`where`: the branch not taken never contributes, not even NaN, in reverse mode as in forward mode."""

import numpy as np
import pytest

import functrace
import functrace.numpy as fnp
from functrace import lax

X = np.array([0.0, -1.0, 2.0])
A = np.array([[1.0, 2.0, 0.5], [0.3, -1.0, 4.0], [1.0, 1.0, 1.0]])
NO = np.zeros(3, bool)

# Each is finite at X, and so is its derivative by hand; a branch not taken holds 1/0, log(0), log(-1) or sqrt(-1).
FUNCTIONS = {
    "log": lambda x: np.where(x > 0, np.log(x), 0.0).sum(),
    "sqrt": lambda x: np.where(x > 0, np.sqrt(x), x).sum(),
    "quotient": lambda x: np.where(x != 0, 1 / x, 0.0).sum(),
    "quotient of product": lambda x: np.where(x != 0, (A @ x) / x, 0.0).sum(),
    "power": lambda x: np.where(x > 0, x**0.5, 0.0).sum(),
    "cumsum": lambda x: np.where(NO, np.cumsum(np.log(x)), x).sum(),
    "matrix product": lambda x: np.where(NO, A @ np.sqrt(x), x).sum(),
    "gather": lambda x: np.where(np.array([True, False, False]), np.log(x)[[2, 1, 0]], x).sum(),
    "stack": lambda x: np.where(np.array([[True], [False]]), np.stack([x, np.log(x)]), 1.0).sum(),
    "concatenate": lambda x: np.where(np.arange(6) < 3, np.concatenate([x, 1 / x]), 1.0).sum(),
    "maximum": lambda x: np.where(x > 0, np.maximum(np.log(x), 1.0), x).sum(),
    "nested": lambda x: np.where(x > 0, np.where(x > 1, np.log(x), 1 / x), x).sum(),
    "nested, other order": lambda x: np.where(x > 1, x, np.where(x < 5, x * x, np.log(x))).sum(),
    "overflow": lambda x: np.where(x > 1, 0.0, np.exp(x)).sum() + np.where(x < 1, np.exp(1e3 * x), 0.0).sum(),
    "arcsin": lambda x: np.where(np.abs(x) < 1, np.arcsin(x), 0.0).sum(),
    "scalar": lambda x: np.where(x[0] > 0, np.log(x[0]), x[1]),
    "mean": lambda x: np.where(NO, x * np.mean(1 / x), x).sum(),
    "sort": lambda x: np.where(x > 1, x, np.sort(x)).sum() + np.where(NO, np.sort(1 / x), x).sum(),
    "outer product": lambda x: np.where(NO, np.einsum("i,j->ij", 1 / x, np.log(x)), x).sum(),
    "solve": lambda x: np.where(NO, np.linalg.solve(np.diag(x) + 2 * np.eye(3), np.log(x)), x).sum(),
    "select": lambda x: np.select([x > 1, x < -0.5], [np.log(x), x * x], 0.0).sum(),
    "broadcast and reshape": lambda x: np.where(X[:, None] > 1, np.log(x).reshape(3, 1) * np.ones((3, 2)), 2.0).sum(),
    "used twice": lambda x: (lambda y: np.where(x > 0, y, 0.0).sum() + np.where(x > 1, y * y, x).sum())(np.log(x)),
    "of a taken infinity": lambda x: np.where(x < 1, 0.0, 1 / (x - 2 + 1e-3)).sum(),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_branches_not_taken_do_not_contribute(name):
    f = FUNCTIONS[name]
    with np.errstate(all="ignore"):
        forward = np.array([functrace.jvp(f, (X,), (e,))[1] for e in np.eye(3)])
        assert np.all(np.isfinite(forward))
        np.testing.assert_allclose(functrace.grad(f)(X), forward, rtol=1e-12)
        np.testing.assert_allclose(functrace.vmap(functrace.grad(f))(np.stack([X, X]))[1], forward, rtol=1e-12)
        closed = functrace.make_jaxpr(f)(X)
        again = functrace.grad(lambda x: functrace.eval_jaxpr(closed.jaxpr, closed.consts, x)[0])(X)
        np.testing.assert_allclose(again, forward, rtol=1e-12)
        second = [functrace.hessian(f, mode=m)(X) for m in ("fwd-fwd", "fwd-rev", "rev-fwd", "rev-rev")]
        for other in second:
            assert np.all(np.isfinite(other))
            np.testing.assert_allclose(other, second[0], rtol=1e-11, atol=1e-11)


def test_a_taken_infinity_is_not_hidden():
    with np.errstate(all="ignore"):
        x = np.array([0.0, 4.0, 9.0])
        assert np.isinf(functrace.grad(lambda x: np.where(x >= 0, np.sqrt(x), 0.0).sum())(x)[0])
        assert not np.isfinite(functrace.grad(lambda x: np.where(x < 1, A @ np.sqrt(x), 0.0).sum())(x)[0])


@functrace.custom_vjp
def _doubled(x):
    return 2.0 * x


_doubled.defvjp(lambda x: (2.0 * x, None), lambda _, bar: (2.0 * bar,))

B = np.array([[2.0, 0.5, -1.0], [0.3, 3.0, 0.2], [1.0, -1.0, 4.0]])
SCALE = np.array([2.0, 3.0, -1.5])
# Linear operations; behind each of them reverse mode knows dead elements by their value at most.
LINEAR = {
    "matrix product": lambda x: A @ x,
    "contraction": lambda x: np.einsum("ij,kj->ik", A, x[None] * np.ones((2, 1))).sum(1),
    "solve": lambda x: np.linalg.solve(B, x),
    "triangular solve": lambda x: functrace.scipy.linalg.solve_triangular(B, x, lower=True),
    "fft": lambda x: np.real(np.fft.fft(x)),
    "convolution": lambda x: np.convolve(x, np.array([1.0, 0.5]), "same"),
    "recurrence": lambda x: lax.scan(lambda c, y: (0.5 * c + y, 0.5 * c + y), 0.0, x)[1],
    "scan": lambda x: lax.scan(lambda c, row: (c, row @ c), x, A)[1],
    "cond": lambda x: lax.cond(x[0] < 5.0, lambda x: A @ x, lambda x: x, x),
    "jit": functrace.jit(lambda x: A @ x),
    "checkpoint": functrace.checkpoint(lambda x: A @ x),
    "custom_vjp": _doubled,
    "rows": lambda x: fnp.stack(list(fnp.unstack(x))[::-1]) if hasattr(fnp, "unstack") else x[::-1],
    "cumsum": np.cumsum,
    "mean": lambda x: x - np.mean(x),
    "gather": lambda x: fnp.array(x)[np.array([2, 2, 0])],
}


def huber(r):
    """The cotangent of r is zero at r = 0, its derivative is not."""
    return np.where(np.abs(r) < 1.0, 0.5 * r * r, np.abs(r) - 0.5).sum()


@pytest.mark.parametrize("name", LINEAR)
def test_a_cotangent_that_is_zero_here_has_a_derivative(name):
    """Losses at an exact fit: J'J is the Hessian, whichever way it is computed."""
    op = LINEAR[name]

    def f(x):
        return huber(op(x * SCALE))

    x = np.zeros(3)
    jacobian = np.stack([op(e * s) for e, s in zip(np.eye(3), SCALE, strict=True)], axis=1)
    modes = ("fwd-rev", "rev-rev") if name == "custom_vjp" else ("fwd-rev", "rev-rev", "rev-fwd", "fwd-fwd")
    for mode in modes:
        second = functrace.hessian(f, mode=mode)
        np.testing.assert_allclose(second(x), jacobian.T @ jacobian, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(functrace.jit(second)(x), jacobian.T @ jacobian, rtol=1e-12, atol=1e-12)
        batch = functrace.vmap(second)(np.stack([x, x + 0.01]))
        np.testing.assert_allclose(batch[0], jacobian.T @ jacobian, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(functrace.hvp(f, x, X), jacobian.T @ (jacobian @ X), rtol=1e-12, atol=1e-12)


def test_derivatives_of_third_order_where_those_of_second_order_vanish():
    def f(x):
        r = A @ (x * SCALE)
        return np.where(r < 1.0, r**3, r).sum()

    x = np.zeros(3)
    jacobian = A * SCALE
    expected = 6.0 * np.einsum("ri,rj,rk->ijk", jacobian, jacobian, jacobian)
    for first in (functrace.jacfwd, functrace.jacrev):
        for second in (functrace.jacfwd, functrace.jacrev):
            for third in (functrace.jacfwd, functrace.jacrev):
                np.testing.assert_allclose(third(second(first(f)))(x), expected, atol=1e-12)
