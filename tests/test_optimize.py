"""Solving problems by IPOPT and SciPy: published optima, multipliers, and messages for what cannot be solved."""

import importlib.util
import json
import sys
import types

import numpy as np
import pytest
from hock_schittkowski import EXAMPLES
from scipy.optimize import Bounds, LinearConstraint, NonlinearConstraint
from scipy.sparse import csr_array
from test_optimize_derivatives import banded, problem_of

from bench import ipopt as bench_ipopt
from functrace import optimize
from functrace.errors import (
    ArgumentError,
    InputError,
    MissingSolverError,
    NonScalarOutputError,
    ShapeError,
)
from functrace.optimize import ipopt

needs_casadi = pytest.mark.skipif(importlib.util.find_spec("casadi") is None, reason="casadi is not installed")

# Where a solver stops at another local solution, or does not get away from the start.
NOT_BY = {"trust-constr": {15, 112}, "SLSQP": {61, 73}}
METHODS = [pytest.param("ipopt", marks=needs_casadi), "trust-constr", "SLSQP"]


def check_optimality(problem, result, tolerance):
    """Stationarity, signs and complementarity of the multipliers, and feasibility, computed anew."""
    x = problem.variables.vector(result.x)
    slope = problem.gradient(x) + problem.jacobian(x).T @ result.lam + result.z
    scale = 1.0 + max(np.max(np.abs(problem.gradient(x))), np.max(np.abs(result.lam), initial=0.0))
    assert np.max(np.abs(slope)) <= tolerance * scale
    assert result.optimality <= tolerance * scale
    assert result.constr_violation <= 1e-6 * scale
    for multipliers, values, lower, upper in (
        (result.lam, problem.constraints(x), problem.constraint_lower, problem.constraint_upper),
        (result.z, x, problem.lower, problem.upper),
    ):
        bound = np.where(multipliers > 0.0, upper, lower)
        gap = np.where(np.isfinite(bound), np.abs(values - bound), 1.0)
        assert np.all(np.abs(multipliers) * gap <= tolerance * scale)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("example", EXAMPLES, ids=str)
@pytest.mark.filterwarnings("ignore::UserWarning")  # SciPy's, of dependent constraints
def test_published_optimum(example, method):
    if example.number in NOT_BY.get(method, ()):
        pytest.skip("this solver goes elsewhere from the published start")
    problem = problem_of(example)
    result = optimize.minimize(problem, method)
    assert result.success, result.message
    assert result.fun == pytest.approx(example.optimum, rel=1e-6, abs=1e-6)
    assert result.x.shape == (problem.size,) and result.method == method
    check_optimality(problem, result, 1e-3 if method == "SLSQP" else 1e-5)


def hs71(**options):
    return optimize.Problem(
        lambda x: x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2],
        {"product": optimize.Constraint(np.prod, 25.0), "sphere": optimize.Constraint(lambda x: x @ x, 40.0, 40.0)},
        bounds=(1.0, 5.0),
        x0=[1, 5, 5, 1],
        **options,
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("jit", [True, False])
def test_multipliers_of_hs71(method, jit):
    result = optimize.minimize(hs71(jit=jit), method)
    np.testing.assert_allclose(result.x, [1.0, 4.74299963, 3.82114998, 1.37940829], atol=1e-6)
    assert result.multipliers["product"] == pytest.approx(-0.55229366, abs=1e-5)
    assert result.multipliers["sphere"] == pytest.approx(0.16146857, abs=1e-5)
    np.testing.assert_allclose(result.bound_multipliers, [-1.08787121, 0.0, 0.0, 0.0], atol=1e-5)
    np.testing.assert_allclose(result.constr, [25.0, 40.0], atol=1e-6)


UNCONSTRAINED = [
    pytest.param("ipopt", marks=needs_casadi),
    *("trust-constr", "SLSQP", "L-BFGS-B", "TNC", "newton-cg", "trust-ncg", "trust-krylov"),
    *("trust-exact", "dogleg", "BFGS", "CG", None),
]


@pytest.mark.parametrize("method", UNCONSTRAINED)
def test_unconstrained(method):
    problem = optimize.Problem(
        lambda x: 0.5 * np.sum((x - 1.0) ** 2) + np.sum((x[1:] - x[:-1] ** 2) ** 2), x0=np.zeros(5)
    )
    result = optimize.minimize(problem, method)
    assert result.success, result.message
    np.testing.assert_allclose(result.x, np.ones(5), atol=1e-3)
    assert result.multipliers == () and result.lam.shape == (0,)


@pytest.mark.parametrize(
    "method", [pytest.param("ipopt", marks=needs_casadi), "trust-constr", "SLSQP", "L-BFGS-B", "TNC", None]
)
def test_bounds_only(method):
    """The nearest point of a box, with one variable fixed by equal bounds and one unbounded."""
    target = np.array([3.0, -3.0, 0.5, 7.0, 2.0])
    lower, upper = [-1.0, -1.0, -1.0, -np.inf, 1.0], [1.0, 1.0, 1.0, np.inf, 1.0]
    problem = optimize.Problem(lambda x: np.sum((x - target) ** 2), bounds=(lower, upper), x0=np.zeros(5))
    result = optimize.minimize(problem, method)
    np.testing.assert_allclose(result.x, np.clip(target, lower, upper), atol=1e-6)
    np.testing.assert_allclose(result.z, [4.0, -4.0, 0.0, 0.0, 2.0], atol=1e-5)


@needs_casadi
def test_ipopt_on_ten_thousand_variables():
    problem = banded(10_000)
    result = optimize.minimize(problem, "ipopt")
    assert result.success and result.nit < 20
    check_optimality(problem, result, 1e-7)


@needs_casadi
def test_ipopt_takes_its_options():
    assert optimize.minimize(hs71(), "ipopt", options={"max_iter": 2}).nit == 2
    assert not optimize.minimize(hs71(), "ipopt", options={"max_iter": 2}).success
    loose = optimize.minimize(hs71(), "ipopt", tol=1e-2)
    assert loose.success and loose.nit < optimize.minimize(hs71(), "IPOPT").nit
    with pytest.raises(ArgumentError, match="names and values of the options"):
        optimize.minimize(hs71(), "ipopt", options={"no_such_option": 1})
    with pytest.raises(ArgumentError, match="choose one of cyipopt, casadi"):
        optimize.minimize(hs71(), "ipopt", options={"interface": "telepathy"})


@needs_casadi
@pytest.mark.parametrize("error", [ZeroDivisionError("deep inside"), KeyboardInterrupt()])
def test_errors_in_functions_come_out_of_ipopt(error):
    visits = []

    def objective(x):
        visits.append(x)
        if len(visits) > 12:
            raise error
        return (x[0] - 3.0) ** 4

    with pytest.raises(type(error)):
        optimize.minimize(optimize.Problem(objective, x0=np.zeros(1), jit=False), "ipopt")


def test_python_control_flow_needs_no_jit():
    def objective(x):
        return (x[0] - 1.0) ** 2 if x[0] > 0.0 else 1.0 - 2.0 * x[0]

    result = optimize.minimize(optimize.Problem(objective, x0=[-2.0], jit=False), "BFGS")
    np.testing.assert_allclose(result.x, [1.0], atol=1e-5)


def test_other_start_parameters_and_callback():
    problem = optimize.Problem(lambda x, p: np.sum((x - p) ** 4), x0=np.zeros(2), params=np.ones(2))
    seen = []
    result = optimize.minimize(
        problem, "BFGS", x0=[4.0, 4.0], params=np.array([2.0, 3.0]), callback=lambda x: seen.append(x.copy()), tol=1e-9
    )
    np.testing.assert_allclose(result.x, [2.0, 3.0], atol=1e-2)
    assert len(seen) == result.nit


def test_feasible_point_without_objective():
    result = optimize.minimize(
        optimize.Problem(
            None,
            optimize.Constraint(lambda x: np.stack([x @ x, x[0] * x[1]]), [25.0, 12.0], [25.0, 12.0]),
            x0=[5.0, 1.0],
        ),
        "SLSQP",
    )
    np.testing.assert_allclose(np.sort(result.x), [3.0, 4.0], atol=1e-6)


CONSTRAINTS = {
    "ours": lambda: optimize.Constraint(lambda x: np.stack([x[0] + x[1], x[0] - x[1]]), [1.0, -2.0], [1.0, 2.0]),
    "tuple": lambda: (lambda x: np.stack([x[0] + x[1], x[0] - x[1]]), [1.0, -2.0], [1.0, 2.0]),
    "list": lambda: [(lambda x: x[0] + x[1], 1.0, 1.0), (lambda x: x[0] - x[1], -2.0, 2.0)],
    "SciPy's object": lambda: NonlinearConstraint(lambda x: np.stack([x[0] + x[1], x[0] - x[1]]), [1, -2], [1, 2]),
    "linear": lambda: LinearConstraint([[1.0, 1.0], [1.0, -1.0]], [1.0, -2.0], [1.0, 2.0]),
    "sparse linear": lambda: LinearConstraint(csr_array([[1.0, 1.0], [1.0, -1.0]]), [1.0, -2.0], [1.0, 2.0]),
    "SciPy's dicts": lambda: [
        {"type": "eq", "fun": lambda x: x[0] + x[1] - 1.0},
        {"type": "ineq", "fun": lambda x, a: a - x[0] + x[1], "args": (2.0,)},
    ],
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", CONSTRAINTS)
def test_forms_of_constraints_and_bounds(form, method):
    for bounds in ((None, 9.0), Bounds(-9.0, 9.0), [(None, 9.0), (-9.0, None)]):
        problem = optimize.Problem(
            lambda x: (x[0] - 4.0) ** 2 + x[1] ** 2, CONSTRAINTS[form](), bounds=bounds, x0=np.array([0.0, 1.0])
        )
        result = optimize.minimize(problem, method)
        np.testing.assert_allclose(result.x, [1.5, -0.5], atol=1e-6)
        np.testing.assert_allclose(result.lam[0], 3.0, atol=1e-5)
        np.testing.assert_allclose(np.abs(result.lam[1]), 2.0, atol=1e-5)


# The bare callbacks, and cyipopt by a stand-in with its interface.


def test_bare_callbacks_agree_with_the_problem(rng):
    problem = banded(12)
    calls = problem.ipopt_callbacks()
    x, lam = rng.normal(size=12), rng.normal(size=10)
    jacobian, hessian = np.zeros((10, 12)), np.zeros((12, 12))
    jacobian[calls.jacobianstructure()] = calls.jacobian(x)
    rows, cols = calls.hessianstructure()
    assert (rows >= cols).all()
    hessian[rows, cols] = calls.hessian(x, lam, 0.5)
    np.testing.assert_array_equal(jacobian, problem.jacobian(x, dense=True))
    np.testing.assert_array_equal(hessian, np.tril(problem.lagrangian_hessian(x, lam, 0.5, dense=True)))
    assert calls.objective(x) == problem.objective(x)
    np.testing.assert_array_equal(calls.gradient(x), problem.gradient(x))
    np.testing.assert_array_equal(calls.constraints(x), problem.constraints(x))


class StandIn(types.ModuleType):
    """A module like cyipopt: Newton's method on the equations x = bound for what it is told to hold."""

    class Problem:
        def __init__(self, n, m, problem_obj, lb, ub, cl, cu):
            assert n == len(lb) == len(ub) == 4 and m == len(cl) == len(cu) == 2
            self.obj, self.lb, self.ub, self.cl, self.cu, self.options = problem_obj, lb, ub, cl, cu, {}

        def add_option(self, name, value):
            self.options[name] = value

        def solve(self, x):
            """From near the solution, with the first bound active."""
            assert self.cu[0] == 2e19 and self.cl[0] == 25.0 and self.options == {"print_level": 0, "sb": "yes"}
            obj, lam, z = self.obj, np.zeros(2), np.zeros(4)
            x = np.array([1.0, 4.7, 3.8, 1.4])
            for _ in range(30):
                J, H = np.zeros((2, 4)), np.zeros((4, 4))
                J[obj.jacobianstructure()] = obj.jacobian(x)
                H[obj.hessianstructure()] = obj.hessian(x, lam, 1.0)
                H = H + np.tril(H, -1).T
                held = np.array([[1.0, 0.0, 0.0, 0.0]])
                matrix = np.block([[H, J.T, held.T], [np.concatenate([J, held]), np.zeros((3, 3))]])
                right = np.concatenate(
                    [obj.gradient(x) + J.T @ lam + z, obj.constraints(x) - [25.0, 40.0], x[:1] - self.lb[:1]]
                )
                step = np.linalg.solve(matrix, -right)
                x, lam, z[0] = x + step[:4], lam + step[4:6], z[0] + step[6]
            info = {"status": 0, "status_msg": b"optimal", "mult_g": lam, "mult_x_L": -z, "mult_x_U": 0.0 * z}
            return x, info


def test_cyipopt_is_driven_by_its_interface(monkeypatch):
    monkeypatch.setitem(sys.modules, "cyipopt", StandIn("cyipopt"))
    monkeypatch.setattr(ipopt, "available_interfaces", lambda: ["cyipopt"])
    problem = hs71()
    result = optimize.minimize(problem, "ipopt")
    assert result.success and result.message == "optimal"
    assert result.fun == pytest.approx(17.0140173, rel=1e-8)
    check_optimality(problem, result, 1e-9)


def test_ipopt_that_is_not_installed_says_what_to_install(monkeypatch):
    monkeypatch.setattr(ipopt, "available_interfaces", list)
    with pytest.raises(MissingSolverError, match=r"pip install casadi(.|\n)*trust-constr"):
        optimize.minimize(hs71(), "ipopt")
    with pytest.raises(ImportError, match="cyipopt is not installed"):
        optimize.minimize(hs71(), "ipopt", options={"interface": "cyipopt"})
    assert optimize.minimize(hs71()).success  # SciPy is always there


# What cannot be solved says so.


def square(x):
    return np.sum(x**2)


BAD = {
    "objective is an array": (lambda: optimize.Problem(lambda x: x, x0=np.ones(3)), NonScalarOutputError, "reduce it"),
    "objective is complex": (
        lambda: optimize.Problem(lambda x: np.sum(x) * 1j, x0=np.ones(3)), NonScalarOutputError, "one real number",
    ),
    "objective is a value": (lambda: optimize.Problem(3.0, x0=np.ones(3)), InputError, "pass the function itself"),
    "no start": (lambda: optimize.Problem(square), ArgumentError, "needs x0"),
    "start of nothing": (lambda: optimize.Problem(square, x0=np.zeros(0)), ArgumentError, "at least one variable"),
    "start not finite": (lambda: optimize.Problem(square, x0=[1.0, np.nan]), ArgumentError, "nan at element 1"),
    "start complex": (lambda: optimize.Problem(square, x0=np.ones(2) * 1j), ArgumentError, "real and imaginary"),
    "bounds crossed": (
        lambda: optimize.Problem(square, bounds=([0.0, 2.0], [1.0, 1.0]), x0=np.ones(2)), ArgumentError, "2.0 and 1.0",
    ),
    "bound is NaN": (lambda: optimize.Problem(square, bounds=(np.nan, 1.0), x0=np.ones(2)), ArgumentError, "NaN"),
    "nothing above infinity": (
        lambda: optimize.Problem(square, bounds=(np.inf, np.inf), x0=np.ones(2)), ArgumentError, "inconsistent",
    ),
    "bounds of another shape": (
        lambda: optimize.Problem(square, bounds=(np.zeros(3), 1.0), x0=np.ones(2)), ShapeError, "lower bounds of the",
    ),
    "too few pairs": (
        lambda: optimize.Problem(square, bounds=[(0.0, 1.0)], x0=np.ones(2)), ShapeError, "1 pairs for 2 variables",
    ),
    "bounds of no form": (lambda: optimize.Problem(square, bounds=7, x0=[1.0]), ArgumentError, r"\(lower, upper\)"),
    "constraint bounds crossed": (
        lambda: optimize.Problem(square, (square, 2.0, 1.0), x0=np.ones(2)), ArgumentError, "bounds of the constraints",
    ),
    "constraint bounds of another shape": (
        lambda: optimize.Problem(square, [(square, 0, 1), (lambda x: x, np.zeros(3), 1.0)], x0=np.ones(2)),
        ShapeError, "lower bounds of constraint 1",
    ),
    "constraint bounds of another tree": (
        lambda: optimize.Problem(square, (lambda x: {"a": x}, {"b": 0.0}, 1.0), x0=np.ones(2)), ShapeError, "structure",
    ),
    "constraint without bounds": (
        lambda: optimize.Problem(square, square, x0=np.ones(2)), ArgumentError, "between which bounds",
    ),
    "constraint is a value": (lambda: optimize.Constraint(1.0), InputError, "its value"),
    "constraint of unknown type": (
        lambda: optimize.Problem(square, {"type": "le", "fun": square}, x0=np.ones(2)), ArgumentError, "'eq' or 'ineq'",
    ),
    "constraint is complex": (
        lambda: optimize.Problem(square, (lambda x: x * 1j, 0, 1), x0=np.ones(2)), InputError, "must give real numbers",
    ),
    "x of another shape": (lambda: hs71().objective(np.ones(3)), ShapeError, "vector of all 4 variables"),
    "x of another tree": (lambda: hs71().gradient({"a": np.ones(4)}), ShapeError, "pytree like x0"),
    "multipliers too few": (
        lambda: hs71().lagrangian_hessian(np.ones(4), np.ones(1)), ShapeError, "1 multipliers for 2 constraints",
    ),
    "multipliers missing": (lambda: hs71().lagrangian_hessian(np.ones(4)), ShapeError, "0 multipliers for 2"),
    "multipliers of another tree": (
        lambda: hs71().lagrangian_hvp(np.ones(4), {"product": 1.0}, np.ones(4)), ShapeError, "1 multipliers for 2",
    ),
    "direction of another shape": (
        lambda: hs71().lagrangian_hvp(np.ones(4), np.ones(2), np.ones(5)), ShapeError, "v does not have the shape",
    ),
    "parameters nowhere": (lambda: hs71().objective(np.ones(4), params=1.0), ArgumentError, "has no parameters"),
    "parameters of another shape": (
        lambda: optimize.Problem(lambda x, p: p @ x, x0=np.ones(2), params=np.ones(2)).objective([1, 1], np.ones(3)),
        ShapeError, "keep their structure",
    ),
    "not a problem": (lambda: optimize.minimize(square, "ipopt"), InputError, "takes a Problem"),
    "unknown method": (lambda: optimize.minimize(hs71(), "simplex"), ArgumentError, "choose one of BFGS"),
    "method without constraints": (
        lambda: optimize.minimize(hs71(), "newton-cg"), ArgumentError, "'Newton-CG' cannot treat constraints",
    ),
    "method without bounds": (
        lambda: optimize.minimize(optimize.Problem(square, bounds=(0, 1), x0=[1.0]), "BFGS"), ArgumentError, "bounds",
    ),
    "callback for IPOPT": (
        lambda: optimize.minimize(hs71(), "ipopt", callback=print), ArgumentError, "takes no callback",
    ),
    "NaN at the start": (
        lambda: optimize.minimize(optimize.Problem(lambda x: np.log(x[0]), x0=[-1.0]), "SLSQP"),
        ArgumentError, r"the objective is not finite at the start(.|\n)*nan at x0 = \[-1.\]",
    ),
    "NaN in a constraint": (
        lambda: optimize.minimize(optimize.Problem(square, (lambda x: np.sqrt(x), 0, 1), x0=[1.0, -1.0])),
        ArgumentError, "constraint 1 is not finite at the start",
    ),
    "infinite slope": (
        lambda: optimize.minimize(optimize.Problem(lambda x: np.sqrt(x[0]) + x[1], x0=[0.0, 1.0]), "BFGS"),
        ArgumentError, "the gradient, element 0 is not finite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_mistakes_have_messages(case):
    mistake, error, message = BAD[case]
    with pytest.raises(error, match=message):
        mistake()


def test_infeasible_constraints_are_no_success():
    problem = optimize.Problem(square, (lambda x: np.sum(x**2), -2.0, -1.0), x0=np.ones(2))
    result = optimize.minimize(problem, "SLSQP", options={"maxiter": 30})
    assert not result.success and result.constr_violation > 0.5


@needs_casadi
def test_bench_of_whole_solves_runs(capsys, tmp_path):
    assert bench_ipopt.main(["--smoke", "--json", str(tmp_path / "out.json"), "--md", str(tmp_path / "out.md")]) == 0
    assert "| 50 | functrace | " in capsys.readouterr().out
    assert {row["peer"] for row in json.loads((tmp_path / "out.json").read_text())["rows"]} >= {
        "functrace",
        "CasADi MX",
    }
