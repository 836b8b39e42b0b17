"""Derivatives of solutions by parameters: closed forms, finite differences of new solutions, and every nesting."""

import numpy as np
import pytest

import functrace as ft
from functrace import optimize
from functrace.errors import (
    ArgumentError,
    DegenerateSolutionError,
    NonDifferentiableInputError,
    ShapeError,
    SolverFailureError,
)
from functrace.optimize.kkt import KKT, active_set


def portfolio(**options):
    """Markowitz's: least variance for a wanted return, weights that sum to one and are not negative."""
    returns = np.array([0.05, 0.08, 0.12, 0.18])
    factor = np.array([[1.0, 0.0, 0.0, 0.0], [0.3, 1.2, 0.0, 0.0], [0.2, -0.4, 1.5, 0.0], [0.1, 0.3, 0.2, 2.0]])

    def variance(v, p):
        return 0.5 * np.sum((factor.T @ v["weights"]) ** 2) * p["risk"] + 0.01 * np.sum(v["weights"] ** 4)

    def constraints(v, p):
        return {"return": (returns * p["scale"]) @ v["weights"], "budget": np.sum(v["weights"])}

    wanted = {"return": 0.10, "budget": 1.0}
    return optimize.Problem(
        variance,
        {"c": optimize.Constraint(constraints, wanted, {"return": None, "budget": 1.0})},
        bounds=({"weights": 0.0}, {"weights": 0.3}),
        x0={"weights": np.full(4, 0.25)},
        params={"risk": 2.0, "scale": np.array([1.0, 0.9, 1.1, 1.0])},
        **options,
    )


def flat(*trees):
    return np.concatenate([np.ravel(leaf) for leaf in ft.tree.leaves(trees)])


@pytest.mark.parametrize("method", ["SLSQP", "trust-constr"])
def test_sensitivities_are_differences_of_solutions(method):
    problem = portfolio()
    solve = optimize.solution_sensitivity(problem, method)
    params = {"risk": 2.0, "scale": np.array([1.0, 0.9, 1.1, 1.0])}
    found = solve(params)
    at_bound = (found.x["weights"] == 0.3) | (found.x["weights"] == 0.0)
    assert np.sum(at_bound) == 1, "one bound is active, so that its treatment is tested"
    assert abs(found.bound_multipliers["weights"][at_bound][0]) > 1e-3
    assert found.multipliers["c"]["return"] < -1e-3
    h = 1e-5
    for path, shift in [("risk", None)] + [("scale", i) for i in range(4)]:

        def at(step, path=path, shift=shift):
            moved = {"risk": 2.0, "scale": np.array([1.0, 0.9, 1.1, 1.0])}
            if shift is None:
                moved[path] += step
            else:
                moved[path][shift] += step
            return solve(moved)

        up, down = at(h), at(-h)

        def slope_of(tree, path=path, shift=shift):
            blocks = [
                b[path] for b in ft.tree.leaves(tree, is_leaf=lambda node: isinstance(node, dict) and "risk" in node)
            ]
            return np.concatenate([np.ravel(b if shift is None else np.asarray(b)[..., shift]) for b in blocks])

        for name in ("x", "multipliers", "bound_multipliers"):
            quotient = (flat(getattr(up, name)) - flat(getattr(down, name))) / (2.0 * h)
            np.testing.assert_allclose(slope_of(getattr(found, "d" + name)), quotient, rtol=1e-5, atol=1e-6)
        quotient = (up.value - down.value) / (2.0 * h)
        np.testing.assert_allclose(slope_of(found.dvalue), quotient, rtol=1e-6, atol=1e-8)


def test_quadratic_program_in_closed_form(rng):
    """min x'Qx/2 - p'x with Ax = b: dx/dp is the projected inverse, and the value's slope is -x."""
    Q = rng.normal(size=(5, 5))
    Q, A = Q @ Q.T + np.eye(5), rng.normal(size=(2, 5))
    problem = optimize.Problem(
        lambda x, p: 0.5 * x @ Q @ x - p @ x,
        optimize.Constraint(lambda x, p: A @ x, [1.0, 2.0], [1.0, 2.0]),
        x0=np.zeros(5),
        params=rng.normal(size=5),
    )
    found = optimize.solution_sensitivity(problem, "SLSQP")()
    matrix = np.linalg.inv(np.block([[Q, A.T], [A, np.zeros((2, 2))]]))
    np.testing.assert_allclose(found.dx, matrix[:5, :5], atol=1e-10)
    np.testing.assert_allclose(found.dmultipliers, matrix[5:, :5], atol=1e-10)
    np.testing.assert_allclose(found.dvalue, -found.x, atol=1e-10)
    np.testing.assert_allclose(found.dbound_multipliers, 0.0, atol=1e-12)


def test_argmin_in_all_nestings_is_the_closed_form():
    """x minimises x^2/2 - p x + x^4/4: x + x^3 = p, so x' = 1/(1 + 3x^2) and x'' = -6x x'^3."""
    problem = optimize.Problem(lambda x, p: 0.5 * x**2 - p * x + 0.25 * x**4, x0=0.5, params=1.0)
    best = optimize.argmin(problem)

    def f(p):
        return best(p)[0]

    p = 10.0
    x = f(p)
    assert x + x**3 == pytest.approx(p, rel=1e-12)
    slope = 1.0 / (1.0 + 3.0 * x**2)
    for transform in (ft.grad, ft.jacfwd):
        assert transform(f)(p) == pytest.approx(slope, rel=1e-12)
        assert ft.jit(transform(f))(p) == pytest.approx(slope, rel=1e-12)
        for outer in (ft.grad, ft.jacfwd):
            assert outer(transform(f))(p) == pytest.approx(-6.0 * x * slope**3, rel=1e-10)
    third = 6.0 * slope**4 * (-1.0 + 18.0 * x**2 * slope)
    assert ft.grad(ft.jacfwd(ft.grad(f)))(p) == pytest.approx(third, rel=1e-8)
    points = np.array([1.0, 2.0, 10.0])
    np.testing.assert_allclose(ft.vmap(f)(points), [f(q) for q in points], rtol=1e-12)
    np.testing.assert_allclose(ft.vmap(ft.grad(f))(points), [ft.grad(f)(q) for q in points], rtol=1e-12)


def test_argmin_stands_inside_a_larger_function():
    """Constrained, with active bounds and trees: the same derivatives as those of `solution_sensitivity`."""
    problem = portfolio()
    best = optimize.argmin(problem, "SLSQP")
    params = {"risk": 2.0, "scale": np.array([1.0, 0.9, 1.1, 1.0])}
    found = optimize.solution_sensitivity(problem, "SLSQP")(params)
    for jacobian in (ft.jacrev, ft.jacfwd):
        dx, dlam = jacobian(best)(params)
        for name in ("risk", "scale"):
            np.testing.assert_allclose(dx["weights"][name], found.dx["weights"][name], atol=1e-9)
            for part in ("return", "budget"):
                np.testing.assert_allclose(dlam["c"][part][name], found.dmultipliers["c"][part][name], atol=1e-8)

    def larger(t):
        x, lam = best({"risk": 1.0 + t**2, "scale": params["scale"] * np.cos(0.1 * t)})
        return np.sum(np.sin(x["weights"]) ** 2) + lam["c"]["return"] ** 2

    h = 1e-4
    t = 0.7
    assert ft.grad(larger)(t) == pytest.approx((larger(t + h) - larger(t - h)) / (2.0 * h), rel=1e-5)
    second = (ft.grad(larger)(t + h) - ft.grad(larger)(t - h)) / (2.0 * h)
    for nesting in (
        lambda f: ft.grad(ft.grad(f)),
        lambda f: ft.jacfwd(ft.grad(f)),
        lambda f: ft.grad(ft.jacfwd(f)),
        lambda f: ft.jacfwd(ft.jacfwd(f)),
    ):
        assert nesting(larger)(t) == pytest.approx(second, rel=1e-5)


def test_sensitivity_of_a_large_sparse_problem(rng):
    """A discretised obstacle problem: sparse factors, and the contact set stays."""
    n = 2000
    force = -(1.0 + 0.5 * np.sin(np.linspace(0.0, 6.0, n)))
    h = 1.0 / (n + 1)

    def energy(u, p):
        full = np.concatenate([np.zeros(1), u, np.zeros(1)])
        return 0.5 * np.sum((full[1:] - full[:-1]) ** 2) / h - h * p * np.sum(force * u)

    problem = optimize.Problem(energy, bounds=(-0.05, None), x0=np.zeros(n), params=1.0)
    pytest.importorskip("casadi")
    solve = optimize.solution_sensitivity(problem, "ipopt", options={"tol": 1e-11})
    found = solve(1.0)
    assert 100 < np.sum(found.x == -0.05) < n - 100
    step = 1e-7  # so small that no node joins or leaves the contact
    np.testing.assert_allclose(
        found.dx, (solve(1.0 + step).x - solve(1.0 - step).x) / (2.0 * step), rtol=1e-4, atol=1e-6
    )


def test_solutions_without_derivative_say_so():
    solve = optimize.solution_sensitivity
    kink = optimize.Problem(lambda x, p: np.sum((x - p) ** 2), bounds=(0.0, 1.0), x0=np.full(1, 0.5), params=np.ones(1))
    with pytest.raises(DegenerateSolutionError, match="kink"):
        solve(kink, "L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-12})(np.zeros(1))
    flat_valley = optimize.Problem(lambda x, p: (x[0] + x[1] - p) ** 2, x0=np.zeros(2), params=1.0)
    with pytest.raises(DegenerateSolutionError, match="singular"):
        solve(flat_valley, "BFGS")()
    twice = optimize.Problem(
        lambda x, p: np.sum((x - p) ** 2),
        optimize.Constraint(lambda x, p: np.stack([x[0] - 1.0, x[0] ** 2 - x[0]]), 0.0, 0.0),
        x0=np.array([1.0, 0.0]),
        params=2.0,
    )
    kkt = KKT(twice, np.array([1.0, 2.0]), np.array([2.0, 0.0]), active_set(twice, np.array([1.0, 2.0]), np.ones(2)))
    with pytest.raises(DegenerateSolutionError, match="must be independent"):
        kkt.solve(np.ones(4))
    unbounded = optimize.Problem(lambda x, p: p * np.sum(x**3), x0=-np.ones(1), params=1.0)
    with pytest.raises(SolverFailureError, match="did not succeed"):
        solve(unbounded, "BFGS")()


def test_bad_parameters_have_messages():
    without = optimize.Problem(lambda x: np.sum(x**2), x0=np.ones(2))
    for entry in (optimize.solution_sensitivity, optimize.argmin):
        with pytest.raises(ArgumentError, match="needs a problem with parameters"):
            entry(without)
        integers = optimize.Problem(lambda x, p: np.sum(x**2) * p, x0=np.ones(2), params=2)
        with pytest.raises(NonDifferentiableInputError, match="close over those"):
            entry(integers)
    problem = optimize.Problem(lambda x, p: np.sum((x - p) ** 2), x0=np.ones(2), params=np.ones(2))
    for call in (optimize.solution_sensitivity(problem), optimize.argmin(problem)):
        for wrong in (np.ones(3), {"p": np.ones(2)}):
            with pytest.raises(ShapeError, match="keep their structure"):
                call(wrong)
