"""Derivatives of optimisation problems: the Lagrangian's Hessian in every nesting, dense and sparse; iterates."""

import functools

import numpy as np
import pytest
from hock_schittkowski import EXAMPLES

import functrace as ft
from functrace import optimize
from functrace.errors import NonScalarOutputError, ShapeError, WrongStructureError
from functrace.flatten_util import ravel_pytree

NESTINGS = ("fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev")


def constraints_of(example):
    """Equations, then inequalities, as one vector; None where there are none."""
    parts = [part for part in (example.equations, example.inequalities) if part is not None]
    if not parts:
        return None
    return lambda x: np.concatenate([np.reshape(part(x), (-1,)) for part in parts])


def problem_of(example, **options):
    constraints = []
    if example.equations is not None:
        constraints.append(optimize.Constraint(example.equations, 0.0, 0.0))
    if example.inequalities is not None:
        constraints.append(optimize.Constraint(example.inequalities, 0.0))
    size = len(example.start)
    bounds = np.broadcast_to(example.lower, size), np.broadcast_to(example.upper, size)
    return optimize.Problem(example.objective, constraints, bounds=bounds, x0=example.start, **options)


def inside(example, rng):
    """A point near the start and inside the bounds, away from singularities."""
    start = np.array(example.start)
    lower = np.where(np.isfinite(example.lower), example.lower, start - 1.0)
    upper = np.where(np.isfinite(example.upper), example.upper, np.maximum(start, lower) + 1.0)
    upper = np.minimum(upper, lower + 4.0)
    return lower + (upper - lower) * rng.uniform(0.3, 0.7, start.size)


def complex_slopes(f, x):
    """The gradient, exact to rounding, of an analytic function: Squire and Trapp, SIAM Review 40 (1998)."""
    steps = 1e-30j * np.eye(x.size)
    return np.array([np.imag(f(x + step)) for step in steps]) / 1e-30


def second_differences(f, x):
    """Central differences of complex-step gradients, extrapolated (Richardson)."""

    def central(h):
        steps = h * np.eye(x.size)
        return np.array([complex_slopes(f, x + s) - complex_slopes(f, x - s) for s in steps]) / (2.0 * h)

    h = 1e-3
    return (64.0 * central(h / 4) - 20.0 * central(h / 2) + central(h)) / 45.0


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_lagrangian_hessian_in_all_nestings_dense_and_sparse(example, rng):
    x, sigma = inside(example, rng), 0.7
    c = constraints_of(example)
    lam = rng.normal(size=0 if c is None else np.size(c(x)))

    def plain(x):
        return sigma * example.objective(x) + (0.0 if c is None else np.dot(lam, c(x)))

    expected = second_differences(plain, x)
    scale = 1.0 + np.max(np.abs(expected))
    for mode in NESTINGS:
        found = optimize.hessian_of_lagrangian(example.objective, c, mode)(x, lam, sigma)
        np.testing.assert_allclose(found, expected, rtol=0.0, atol=2e-7 * scale, err_msg=mode)
        np.testing.assert_allclose(found, found.T, rtol=0.0, atol=1e-13 * scale)
    problem = problem_of(example)
    dense = optimize.hessian_of_lagrangian(example.objective, c)(x, lam, sigma)
    for sparse in (
        problem.lagrangian_hessian(x, lam, sigma).toarray(),
        problem.lagrangian_hessian(x, lam, sigma, dense=True),
        problem.hessian_structure.to_dense(problem.hessian_structure.values(x, lam, sigma)),
        np.stack([problem.lagrangian_hvp(x, lam, v, sigma) for v in np.eye(x.size)]),
    ):
        np.testing.assert_allclose(sparse, dense, rtol=0.0, atol=1e-12 * scale)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_first_derivatives_are_those_by_complex_step(example, rng):
    x = inside(example, rng)
    problem, c = problem_of(example), constraints_of(example)
    assert problem.objective(x) == pytest.approx(float(example.objective(x)), rel=1e-13)
    np.testing.assert_allclose(problem.gradient(x), complex_slopes(example.objective, x), rtol=1e-11, atol=1e-11)
    if c is not None:
        np.testing.assert_allclose(problem.constraints(x), c(x), rtol=1e-13, atol=1e-13)
        expected = complex_slopes(c, x).T
        np.testing.assert_allclose(problem.jacobian(x).toarray(), expected, rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(problem.jacobian(x, dense=True), expected, rtol=1e-11, atol=1e-11)
        lam = rng.normal(size=problem.count)
        np.testing.assert_allclose(
            problem.lagrangian_gradient(x, lam, 0.3),
            0.3 * problem.gradient(x) + expected.T @ lam,
            rtol=1e-10,
            atol=1e-10,
        )


def hs71_hessian(x, lam, sigma):
    a, b, c, d = x
    objective = [[2 * d, d, d, 2 * a + b + c], [d, 0, 0, a], [d, 0, 0, a], [2 * a + b + c, a, a, 0]]
    product = [[0, c * d, b * d, b * c], [c * d, 0, a * d, a * c], [b * d, a * d, 0, a * b], [b * c, a * c, a * b, 0]]
    return sigma * np.array(objective) + lam[0] * 2 * np.eye(4) + lam[1] * np.array(product)


def rosenbrock_hessian(x):
    return np.array([[1200.0 * x[0] ** 2 - 400.0 * x[1] + 2.0, -400.0 * x[0]], [-400.0 * x[0], 200.0]])


def hs7_hessian(x, lam, sigma):
    square = x[0] ** 2
    objective = 2.0 * (1.0 - square) / (1.0 + square) ** 2
    return np.diag([sigma * objective + lam[0] * (4.0 + 12.0 * square), 2.0 * lam[0]])


CLOSED_FORMS = {
    1: lambda x, lam, sigma: sigma * rosenbrock_hessian(x),
    6: lambda x, lam, sigma: np.diag([2.0 * sigma - 20.0 * lam[0], 0.0]),
    7: hs7_hessian,
    10: lambda x, lam, sigma: lam[0] * np.array([[-6.0, 2.0], [2.0, -2.0]]),
    11: lambda x, lam, sigma: np.diag([2.0 * sigma - 2.0 * lam[0], 2.0 * sigma]),
    12: lambda x, lam, sigma: sigma * np.array([[1.0, -1.0], [-1.0, 2.0]]) - lam[0] * np.diag([8.0, 2.0]),
    15: lambda x, lam, sigma: sigma * rosenbrock_hessian(x) + np.array([[0.0, lam[0]], [lam[0], 2.0 * lam[1]]]),
    28: lambda x, lam, sigma: sigma * np.array([[2.0, 2.0, 0.0], [2.0, 4.0, 2.0], [0.0, 2.0, 2.0]]),
    34: lambda x, lam, sigma: -np.diag([lam[0] * np.exp(x[0]), lam[1] * np.exp(x[1]), 0.0]),
    64: lambda x, lam, sigma: np.diag(
        2.0 * (sigma * np.array([5e4, 7.2e4, 1.44e5]) - lam[0] * np.array([4.0, 32.0, 120.0])) / x**3
    ),
    71: hs71_hessian,
}


@pytest.mark.parametrize("number", CLOSED_FORMS)
def test_lagrangian_hessian_is_the_closed_form(number, rng):
    example = next(e for e in EXAMPLES if e.number == number)
    x, c, problem = inside(example, rng), constraints_of(example), problem_of(example)
    for sigma, lam in ((0.4, rng.normal(size=problem.count)), (0.0, rng.normal(size=problem.count))):
        expected = CLOSED_FORMS[number](x, lam, sigma)
        scale = np.max(np.abs(expected), initial=1.0)
        for mode in NESTINGS:
            found = optimize.hessian_of_lagrangian(example.objective, c, mode)(x, lam, sigma)
            np.testing.assert_allclose(found, expected, rtol=0.0, atol=1e-13 * scale)
        np.testing.assert_allclose(
            problem.lagrangian_hessian(x, lam, sigma).toarray(), expected, rtol=0.0, atol=1e-13 * scale
        )
        structure = problem.hessian_structure
        below = np.tril(expected != 0.0)
        assert np.all(structure.to_dense(np.ones(structure.nnz))[below] == 1.0), "a nonzero that the structure misses"


def singular_objective(x):
    return np.sqrt(x[0]) + x[1] ** 2 + np.exp(x[2])


def singular_constraints(x):
    return np.stack([np.sqrt(x[1]), np.prod(x), np.log(x[2])])


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize(
    ("x", "lam", "sigma", "expected"),
    [
        # sqrt(x0) and its derivatives are infinite at 0, but weigh nothing.
        ([0.0, 4.0, 2.0], [8.0, 1.0, 4.0], 0.0, [[0, 2, 4], [2, -0.25, 0], [4, 0, -1]]),
        ([4.0, 0.0, 0.0], [0.0, 1.0, 0.0], 1.0, [[-0.03125, 0, 0], [0, 2, 4], [0, 4, 1]]),
        ([0.0, 0.0, 0.0], [0.0, 1.0, 0.0], 0.0, np.zeros((3, 3))),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 0.0, np.zeros((3, 3))),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_weights_of_zero_take_infinities_out(x, lam, sigma, expected, jit):
    for mode in NESTINGS:
        plain = optimize.hessian_of_lagrangian(singular_objective, singular_constraints, mode)
        np.testing.assert_allclose(plain(np.array(x), np.array(lam), sigma), expected, atol=1e-14, err_msg=mode)
        np.testing.assert_allclose(ft.jit(plain)(np.array(x), np.array(lam), sigma), expected, atol=1e-14)
    problem = optimize.Problem(singular_objective, optimize.Constraint(singular_constraints), x0=np.ones(3), jit=jit)
    np.testing.assert_allclose(problem.lagrangian_hessian(x, lam, sigma).toarray(), expected, atol=1e-14)
    products = [problem.lagrangian_hvp(x, lam, v, sigma) for v in np.eye(3)]
    np.testing.assert_allclose(products, expected, atol=1e-14)
    slopes = problem.lagrangian_gradient(x, lam, sigma)
    assert np.isfinite(slopes).all()


def test_infinities_that_weigh_something_stay():
    problem = optimize.Problem(singular_objective, optimize.Constraint(singular_constraints), x0=np.ones(3))
    hessian = problem.lagrangian_hessian([0.0, 1.0, 1.0], np.zeros(3), 1.0).toarray()
    assert hessian[0, 0] == -np.inf


def test_structured_weights_in_a_vector_of_constraints():
    """One element of an array operation is singular, and its multiplier alone is zero."""
    problem = optimize.Problem(lambda x: np.sum(x), optimize.Constraint(np.sqrt), x0=np.ones(4))
    x, lam = np.array([1.0, 0.0, 4.0, 0.0]), np.array([4.0, 0.0, 32.0, 0.0])
    np.testing.assert_allclose(problem.lagrangian_hessian(x, lam).toarray(), np.diag([-1.0, 0.0, -1.0, 0.0]))
    assert problem.hessian_structure.nnz == 4


# The structure.


def banded(n):
    def objective(x):
        return np.sum(100.0 * (x[:-1] ** 2 - x[1:]) ** 2 + (x[:-1] - 1.0) ** 2)

    def constraints(x):
        a, b, c = x[:-2], x[1:-1], x[2:]
        return 3.0 * b**3 + 2.0 * c - 5.0 + np.sin(b - c) * np.sin(b + c) + 4.0 * b - a * np.exp(a - b) - 3.0

    start = np.where(np.arange(n) % 2 == 0, -1.2, 1.0)
    return optimize.Problem(objective, optimize.Constraint(constraints, 0.0, 0.0), x0=start)


def test_structure_is_frozen_ordered_and_serves_every_form(rng):
    problem = banded(30)
    x, lam = rng.normal(size=30), rng.normal(size=28)
    structure = problem.hessian_structure
    rows, cols = structure.rows, structure.cols
    assert (rows >= cols).all() and len(rows) == structure.nnz
    assert (np.lexsort((rows, cols)) == np.arange(len(rows))).all()
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 1
    values = structure.values(x, lam, 0.5)
    out = np.empty(structure.nnz)
    assert structure.values(x, lam, 0.5, out=out) is out
    np.testing.assert_array_equal(out, values)
    whole = problem.lagrangian_hessian(x, lam, 0.5, dense=True)
    np.testing.assert_array_equal(structure.to_csc(values).toarray(), whole)
    np.testing.assert_array_equal(np.tril(whole)[rows, cols], values)
    v = rng.normal(size=30)
    np.testing.assert_allclose(structure.matvec(values, v), whole @ v, rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(problem.lagrangian_hvp(x, lam, v, 0.5), whole @ v, rtol=1e-12, atol=1e-10)
    with pytest.raises(ShapeError, match="one number per nonzero"):
        structure.values(x, lam, 0.5, out=np.empty(3))
    expected = optimize.hessian_of_lagrangian(problem.objective_function, problem.constraint_list[0].fun)(x, lam, 0.5)
    np.testing.assert_allclose(whole, expected, rtol=1e-12, atol=1e-10)


def test_sparse_derivatives_of_a_hundred_thousand_variables(rng):
    n = 100_000
    problem = banded(n)
    assert problem.jacobian_structure.nnz == 3 * (n - 2)
    assert problem.hessian_structure.nnz == 2 * n - 1
    x, lam, v = rng.normal(size=n), rng.normal(size=n - 2), rng.normal(size=n)
    hessian, jacobian = problem.lagrangian_hessian(x, lam, 0.5), problem.jacobian(x)
    product = problem.lagrangian_hvp(x, lam, v, 0.5)
    np.testing.assert_allclose(hessian @ v, product, rtol=0.0, atol=1e-10 * np.max(np.abs(product)))
    h = 1e-6
    slope = (problem.constraints(x + h * v) - problem.constraints(x - h * v)) / (2.0 * h)
    np.testing.assert_allclose(jacobian @ v, slope, rtol=0.0, atol=1e-7 * np.max(np.abs(slope)))


def test_a_dense_hessian_beside_sparse_constraints(rng):
    """A norm couples all variables; the structure says so, and products agree."""
    problem = optimize.Problem(
        lambda x: np.sqrt(np.sum(x**2)), optimize.Constraint(lambda x: x[1:] * x[:-1]), x0=np.ones(6)
    )
    x, lam = rng.normal(size=6), rng.normal(size=5)
    expected = optimize.hessian_of_lagrangian(problem.objective_function, lambda x: x[1:] * x[:-1])(x, lam, 2.0)
    np.testing.assert_allclose(problem.lagrangian_hessian(x, lam, 2.0).toarray(), expected, rtol=1e-12, atol=1e-12)
    assert problem.hessian_structure.nnz == 21
    assert problem.jacobian_structure.nnz == 10


@pytest.mark.parametrize("jit", [True, False])
def test_check_finds_what_is_wrong(rng, jit, monkeypatch):
    """A value in the wrong place, and a nonzero left out."""
    problem = optimize.Problem(
        lambda x: np.sum(x**4) + x[0] * x[3], optimize.Constraint(lambda x: x[1:] * x[:-1]), x0=np.ones(5), jit=jit
    )
    problem.check()
    problem.check(rng.normal(size=5))
    for which, values in (("hessian", problem.evaluation.hessian), ("jacobian", problem.evaluation.jacobian)):
        for break_it in (lambda v: v[::-1], lambda v: np.where(np.arange(len(v)) == 0, 0.0, v)):
            monkeypatch.setattr(problem.evaluation, which, lambda *args, v=values, b=break_it: b(v(*args)))
            with pytest.raises(WrongStructureError, match=which.capitalize()):
                problem.check(rng.normal(size=5))
        monkeypatch.setattr(problem.evaluation, which, values)
    problem.check(rng.normal(size=5))


# Iterates.


def test_solvers_may_overwrite_their_arrays(rng):
    problem = banded(8)
    x, lam = rng.normal(size=8), rng.normal(size=6)
    before = problem.gradient(x), problem.constraints(x), problem.lagrangian_hessian(x, lam, dense=True)
    for result in (problem.gradient(x), problem.constraints(x), problem.hessian_structure.values(x, lam)):
        result[:] = np.nan
    other = x.copy()
    x[0] += 1.0
    assert abs(problem.gradient(x)[0] - before[0][0]) > 1.0
    # A program's first and later runs may differ by a rounding.
    same = functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11)
    same(problem.gradient(other), before[0])
    same(problem.constraints(other), before[1])
    weights = lam.copy()
    same(problem.lagrangian_hessian(other, weights, dense=True), before[2])
    weights *= 2.0
    assert np.max(np.abs(problem.lagrangian_hessian(other, weights, dense=True) - before[2])) > 0.1
    matrix = problem.lagrangian_hessian(other, lam)
    matrix.data[:] = 0.0
    matrix.eliminate_zeros()
    same(problem.lagrangian_hessian(other, lam, dense=True), before[2])


def test_values_are_computed_once_per_iterate():
    """Values, gradient and all first-order products read one run of one program."""
    runs = []

    def probe(x):
        runs.append("run")
        return x

    def objective(x):
        seen = ft.pure_callback(probe, x, ft.stop_gradient(x))
        return np.sum(x**3) + 0.0 * np.sum(ft.stop_gradient(seen))

    problem = optimize.Problem(objective, x0=np.ones(3))
    x = np.array([1.0, 2.0, 3.0])
    problem.objective(x)
    before = len(runs)
    problem.objective(x.copy())
    problem.constraints(x)
    problem.gradient(x)
    assert len(runs) == before > 0
    problem.objective(x + 1.0)
    assert len(runs) == before + 1


# Trees and parameters.


def test_variables_constraints_and_parameters_are_trees(rng):
    def objective(v, p):
        return p["scale"] * np.sum(v["w"] ** 2) * v["b"] + v["b"] ** 3

    def constraint(v, p):
        return {"rows": v["w"] @ p["x"], "total": np.sum(v["w"]) + v["b"]}

    start = {"w": rng.normal(size=(2, 3)), "b": 0.5}
    params = {"scale": 2.0, "x": rng.normal(size=3)}
    problem = optimize.Problem(
        objective,
        {"c": optimize.Constraint(constraint, {"rows": -1.0, "total": 0.0}, {"rows": None, "total": 0.0})},
        bounds=({"w": -5.0, "b": None}, {"w": np.full((2, 3), 5.0), "b": 9.0}),
        x0=start,
        params=params,
    )
    assert (problem.size, problem.count) == (7, 3)
    np.testing.assert_array_equal(problem.lower, [-np.inf] + [-5.0] * 6)  # dictionaries go by their sorted keys
    np.testing.assert_array_equal(problem.upper, [9.0] + [5.0] * 6)
    np.testing.assert_array_equal(problem.constraint_lower, [-1.0, -1.0, 0.0])
    np.testing.assert_array_equal(problem.constraint_upper, [np.inf, np.inf, 0.0])
    lam = {"c": {"rows": np.array([1.0, 2.0]), "total": 3.0}}
    vector = problem.multipliers(lam)
    np.testing.assert_array_equal(vector, [1.0, 2.0, 3.0])
    back = problem.multiplier_tree(vector)
    assert ft.tree.structure(back) == ft.tree.structure(lam)
    L = optimize.lagrangian(objective, constraint)
    flat, unravel = ravel_pytree(start)
    expected = ft.hessian(lambda v: L(unravel(v), lam["c"], 0.5, params))(flat)
    np.testing.assert_allclose(problem.lagrangian_hessian(start, lam, 0.5, dense=True), expected, atol=1e-12)
    np.testing.assert_allclose(problem.lagrangian_hessian(flat, vector, 0.5, dense=True), expected, atol=1e-12)
    other = {"scale": 3.0, "x": params["x"]}
    assert problem.objective(start, other) - problem.objective(start) == pytest.approx(
        np.sum(start["w"] ** 2) * start["b"]
    )


def test_blocks_of_the_plain_hessian_of_trees():
    H = optimize.hessian_of_lagrangian(lambda v: v["a"] ** 2 * v["b"], lambda v: {"c": v["a"] * v["b"]})
    found = H({"a": 2.0, "b": 3.0}, {"c": 5.0}, 1.0)
    assert found == {"a": {"a": 6.0, "b": 9.0}, "b": {"a": 9.0, "b": 0.0}}


def test_plain_lagrangian_checks_its_arguments():
    L = optimize.lagrangian(lambda x: np.sum(x**2), lambda x: x[:2])
    x = np.ones(3)
    assert L(x, np.array([1.0, 2.0])) == 6.0
    assert optimize.lagrangian(np.sum)(x) == 3.0
    with pytest.raises(ShapeError, match="one multiplier per constraint"):
        L(x, np.ones(3))
    with pytest.raises(ShapeError, match="one multiplier per constraint"):
        L(x)
    with pytest.raises(NonScalarOutputError, match="reduce it"):
        optimize.lagrangian(lambda x: x, lambda x: x)(x, x)
