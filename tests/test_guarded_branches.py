"""Batches of choices whose branches raise for some values: an example's branch runs at that example's values only.

A `cond` that guards a solve against singular matrices, a Newton iteration that stops before its slope vanishes: each
example of a batch must fare as it does alone, in every composition with derivatives.
"""

import numpy as np
import pytest

import functrace as ft
import functrace.numpy as fnp
from functrace import lax

RNG = np.random.default_rng(20261121)
VECTORS = np.array([[1.0, 2.0], [0.0, 0.0], [-1.0, 3.0], [0.5, 0.1]])


def guarded_solve(c):
    """Singular at the zero vector, where the other branch is taken."""
    return lax.cond(
        c[0] > 0,
        lambda c: fnp.sum(fnp.linalg.solve(fnp.outer(c, c) + c[0] * np.eye(2), c)),
        lambda c: fnp.sum(c * c) + c[1],
        c,
    )


def guarded_cholesky(c):
    return lax.switch(
        fnp.where(c[0] > 0, 2, fnp.where(c[0] < 0, 1, 0)),
        [
            lambda c: fnp.sum(c) ** 2,
            lambda c: fnp.linalg.inv(fnp.diag(c))[1, 1] * c[0],
            lambda c: fnp.sum(fnp.linalg.cholesky(c[0] * np.eye(2) + fnp.outer(c, c)) ** 3),
        ],
        c,
    )


def guarded_svd(c):
    return lax.cond(c[0] != 0, lambda c: fnp.linalg.svdvals(fnp.diag(1.0 / c)).sum(), lambda c: c[1] - c[0], c)


def newton(c):
    """Solves (x - a)^2 = 0 until it is close: the slope is zero at the solution itself, where it stops."""
    a = c[:1] * c[1]

    def step(state):
        x, k = state
        return x - fnp.linalg.solve(fnp.diag(2 * (x - a)), (x - a) ** 2), k + 1

    x, _ = lax.while_loop(lambda s: (fnp.abs(s[0] - a) > 1e-2)[0] & (s[1] < 30), step, (c[1:] + 0.0, 0))
    return fnp.sum(x)


FUNCTIONS = {f.__name__: f for f in (guarded_solve, guarded_cholesky, guarded_svd, newton)}
TRANSFORMS = {
    "value": lambda f: f,
    "grad": ft.grad,
    "jacfwd": ft.jacfwd,
    "fwd-rev": lambda f: ft.hessian(f, mode="fwd-rev"),
    "rev-fwd": lambda f: ft.hessian(f, mode="rev-fwd"),
    "fwd-fwd": lambda f: ft.hessian(f, mode="fwd-fwd"),
    "rev-rev": lambda f: ft.hessian(f, mode="rev-rev"),
}


@pytest.mark.parametrize("order", TRANSFORMS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_example_fares_as_it_does_alone(name, order):
    f, transform = FUNCTIONS[name], TRANSFORMS[order]
    with np.errstate(all="ignore"):
        alone = np.stack([transform(f)(c) for c in VECTORS])
        np.testing.assert_allclose(ft.vmap(transform(f))(VECTORS), alone, rtol=1e-9, atol=1e-9)
        if name != "newton" or order in ("value", "jacfwd", "fwd-fwd"):
            np.testing.assert_allclose(ft.jit(ft.vmap(transform(f)))(VECTORS), alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_of_batches(name):
    f = FUNCTIONS[name]

    def total(batch):
        return fnp.sum(ft.vmap(f)(batch) * np.arange(1.0, 5.0))

    with np.errstate(all="ignore"):
        alone = np.stack([ft.jacfwd(f)(c) * k for c, k in zip(VECTORS, range(1, 5), strict=True)])
        for way in (ft.grad, ft.jacfwd):
            np.testing.assert_allclose(way(total)(VECTORS), alone, rtol=1e-9, atol=1e-9)
        if name != "newton":
            np.testing.assert_allclose(ft.jit(ft.grad(total))(VECTORS), alone, rtol=1e-9, atol=1e-9)


def test_batches_of_batches_and_batches_where_no_example_takes_the_branch():
    grid = np.stack([VECTORS, VECTORS * [[0.0], [1.0], [0.0], [0.0]], VECTORS[::-1]])
    alone = np.stack([[ft.grad(guarded_solve)(c) for c in row] for row in grid])
    np.testing.assert_allclose(ft.vmap(ft.vmap(ft.grad(guarded_solve)))(grid), alone)
    np.testing.assert_allclose(ft.jit(ft.vmap(ft.vmap(ft.grad(guarded_solve))))(grid), alone)
    never = np.zeros((3, 2))
    np.testing.assert_array_equal(ft.vmap(guarded_solve)(never), 0.0)
    assert ft.vmap(guarded_solve)(never[:0]).shape == (0,)


def test_a_branch_that_is_taken_still_raises():
    singular = np.array([[1.0, 0.0], [0.0, 1.0]])

    def f(c):
        return lax.cond(c[0] > 0, lambda c: fnp.linalg.inv(fnp.diag(c)).sum(), lambda c: c.sum(), c)

    for way in (ft.vmap(f), ft.jit(ft.vmap(f))):
        with pytest.raises(np.linalg.LinAlgError):
            way(singular)


def test_residuals_of_other_branches_are_not_inverted():
    """All matrices are regular; only the padding of stored values of branches not taken would be singular."""
    matrices = RNG.normal(size=(4, 2, 2)) + 3.0 * np.eye(2)

    def f(a, k):
        return lax.switch(k, [lambda a: fnp.sum(fnp.linalg.solve(a, a[0]) ** 2), lambda a: fnp.trace(a @ a)], a)

    which = np.array([0, 1, 1, 0])
    alone = np.stack([ft.grad(f)(a, k) for a, k in zip(matrices, which, strict=True)])
    total = ft.grad(lambda m: fnp.sum(ft.vmap(f)(m, which)))
    for way in (ft.vmap(ft.grad(f)), ft.jit(ft.vmap(ft.grad(f)))):
        np.testing.assert_allclose(way(matrices, which), alone)
    for derivative in (total, ft.jit(total)):
        np.testing.assert_allclose(derivative(matrices), alone)


def test_callbacks_see_the_examples_that_take_their_branch():
    seen = []

    def host(x):
        seen.append(float(x))
        assert x > 0
        return np.sqrt(x)

    def f(x):
        root = ft.ShapeDtypeStruct((), np.dtype(np.float64))
        return lax.cond(
            x > 0, lambda x: ft.pure_callback(host, root, x, vmap_method="sequential"), lambda x: x * 1.0, x
        )

    np.testing.assert_allclose(ft.vmap(f)(np.array([-1.0, 4.0, 9.0])), [-1.0, 2.0, 3.0])
    assert seen and min(seen) > 0
