"""`where`: the branch not taken never contributes, not even NaN, in reverse mode as in forward mode."""

import numpy as np
import pytest

import functrace

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
