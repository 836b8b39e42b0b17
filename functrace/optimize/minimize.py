"""`minimize`: one call for every solver, and one form of the result whichever solved it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from functrace.errors import ArgumentError, InputError
from functrace.optimize.ipopt import solve_by_ipopt
from functrace.optimize.problem import Problem
from functrace.optimize.scipy_solvers import DENSE_SIZE, METHODS, solve_by_scipy
from functrace.optimize.solved import Solved
from functrace.util import user_line

__all__ = ["minimize"]


def minimize(
    problem: Problem,
    method: str | None = None,
    *,
    x0: Any = None,
    params: Any = None,
    tol: float | None = None,
    options: dict[str, Any] | None = None,
    callback: Callable[..., Any] | None = None,
) -> Any:
    """Solve a problem, with exact derivatives of whatever order the solver can use.

    Args:
        problem: the `Problem`.
        method: "ipopt" (which needs CasADi or cyipopt); SciPy's "trust-constr" or "SLSQP" for any problem, "L-BFGS-B"
        or
            "TNC" with bounds only, "newton-cg", "trust-ncg", "trust-krylov", "trust-exact", "dogleg", "BFGS" or "CG"
            without constraints and bounds. None chooses one of SciPy's that uses second derivatives.
        x0: another start than the problem's.
        params: other parameters than the problem's.
        tol: the solver's tolerance.
        options: the solver's options, by its own names; for IPOPT also "interface": "casadi" or "cyipopt".
        callback: called after each iteration, as SciPy's solvers do; IPOPT takes none.

    Returns:
        A `scipy.optimize.OptimizeResult` with x (a pytree like x0), fun, success, status, message, nit, jac (the
        gradient, a vector), and

        - multipliers: tree like the constraints; bound_multipliers: tree like x0. At the solution
          gradient f + lam . gradient c + z = 0: positive at an active upper bound, negative at a lower one.
        - lam, z: the same as vectors; constr: values of the constraints.
        - optimality, constr_violation: largest element of that sum, and largest distance to the bounds.
        - solver: what the solver itself returned.

    Raises:
        ArgumentError: the method is unknown, cannot treat constraints or bounds that the problem has, or the start is
            outside the functions' domain (a NaN or infinity).
        MissingSolverError: IPOPT is asked for and not installed.

    Example:
        >>> import numpy as np
        >>> from functrace import optimize
        >>> on_the_line = optimize.Constraint(lambda x: x[0] + 2.0 * x[1], 5.0, 5.0)
        >>> problem = optimize.Problem(lambda x: np.sum(x**2), on_the_line, x0=[0.0, 0.0])
        >>> result = optimize.minimize(problem, "SLSQP")
        >>> result.x.round(6), round(float(result.multipliers), 6)
        (array([1., 2.]), -2.0)
    """
    if not isinstance(problem, Problem):
        raise InputError(
            "minimize takes a Problem",
            where=user_line(),
            got=type(problem).__name__,
            remedy="write minimize(Problem(f, constraints, bounds=..., x0=...))",
        )
    method = _choose(problem, method)
    _check_settings(tol, options, callback)
    if method == "ipopt" and callback is not None:
        raise ArgumentError(
            "IPOPT takes no callback here",
            where=user_line(),
            remedy="drive it yourself through problem.ipopt_callbacks(), or choose one of SciPy's methods",
        )
    start = problem.x0 if x0 is None else problem.variables.vector(x0, "x0")
    start = np.clip(start, problem.lower, problem.upper)
    check_start(problem, start, params, derivatives=method != "ipopt")
    if method == "ipopt":
        solved = solve_by_ipopt(problem, start, params, tol, dict(options or {}))
    else:
        solved = solve_by_scipy(problem, method, start, params, tol, dict(options or {}), callback)
    return as_result(problem, params, method, solved)


def _check_settings(tol: Any, options: Any, callback: Any) -> None:
    """Raise unless these are what solvers take.

    Raises:
        ArgumentError: they are not.
    """
    number = isinstance(tol, (int, float, np.number)) and not isinstance(tol, bool)
    if tol is not None and not (number and tol > 0):
        raise ArgumentError("a tolerance is a positive number", where=user_line(), got=f"tol={tol!r}", remedy="1e-8")
    if options is not None and not isinstance(options, Mapping):
        raise ArgumentError(
            "options of a solver are a dict of its own names",
            where=user_line(),
            got=f"options={options!r}",
            remedy="for instance options={'maxiter': 100}",
        )
    if callback is not None and not callable(callback):
        raise ArgumentError("a callback is a function", where=user_line(), got=type(callback).__name__)


def _choose(problem: Problem, method: str | None) -> str:
    """The method's name as it is written in METHODS.

    Raises:
        ArgumentError: there is none of this name, or it cannot treat the problem.
    """
    bounded = bool(np.isfinite(problem.lower).any() or np.isfinite(problem.upper).any())
    if method is None:
        if problem.count or bounded:
            return "trust-constr"
        return "trust-exact" if problem.size <= DENSE_SIZE else "trust-krylov"
    treats = {**METHODS, "ipopt": "constraints"}
    names = {name.lower(): name for name in treats}
    if not isinstance(method, str) or method.lower() not in names:
        raise ArgumentError(
            "minimize knows no such method",
            where=user_line(),
            got=repr(method),
            remedy=f"choose one of {', '.join(sorted(treats))}",
        )
    name = names[method.lower()]
    kind = "constraints" if problem.count else "bounds" if bounded else "nothing"
    order = ["nothing", "bounds", "constraints"]
    if order.index(treats[name]) < order.index(kind):
        able = [n for n, what in treats.items() if order.index(what) >= order.index(kind)]
        raise ArgumentError(
            f"method {name!r} cannot treat {kind}",
            where=user_line(),
            got=repr(problem),
            remedy=f"choose one of {', '.join(sorted(able))}",
        )
    return name


def check_start(problem: Problem, start: np.ndarray, params: Any, derivatives: bool) -> None:
    """Raise unless the functions, and derivatives if asked for, are finite where the solver starts.

    Raises:
        ArgumentError: they are not.
    """
    at = problem.at(start, params)
    parts: list[tuple[str, Any]] = [("the objective", at.objective), ("constraint", at.constraints)]
    if derivatives:
        parts += [("the gradient", at.gradient), ("the Jacobian", at.jacobian_values)]
    for name, values in parts:
        bad = ~np.isfinite(np.atleast_1d(values))
        if bad.any():
            first = int(np.argmax(bad))
            place = f" {first}" if name == "constraint" else f", element {first}" if np.ndim(values) else ""
            raise ArgumentError(
                f"{name}{place} is not finite at the start",
                where=user_line(),
                got=f"{np.atleast_1d(values)[first]} at x0 = {np.array2string(start, threshold=8)}",
                remedy="start inside the domain of the functions: give another x0, or bounds that keep x there",
            )


def as_result(problem: Problem, params: Any, method: str, solved: Solved) -> Any:
    """A `scipy.optimize.OptimizeResult` with all that `minimize` promises."""
    from scipy.optimize import OptimizeResult

    at = problem.at(solved.x, params)
    gradient, constraints = at.gradient.copy(), at.constraints.copy()
    lam = estimate_multipliers(problem, at) if solved.lam is None else np.asarray(solved.lam, float)
    structure = problem.jacobian_structure
    slope = gradient + (_transposed_product(structure, at.jacobian_values, lam) if problem.count else 0.0)
    at_low, at_high = active_bounds(problem, solved.x)
    z = np.where(at_low | at_high, -slope, 0.0) if solved.z is None else np.asarray(solved.z, float)
    violation = _violation(constraints, problem.constraint_lower, problem.constraint_upper)
    beyond = _violation(solved.x, problem.lower, problem.upper)
    counts = {name: int(solved.raw[name]) for name in ("nfev", "njev", "nhev") if name in solved.raw}
    return OptimizeResult(
        x=problem.variables.tree_of(solved.x),
        fun=at.objective,
        jac=gradient,
        success=solved.success,
        status=solved.status,
        message=solved.message,
        nit=solved.nit,
        **counts,
        method=method,
        multipliers=problem.multiplier_tree(lam),
        bound_multipliers=problem.variables.tree_of(z),
        lam=lam,
        z=z,
        constr=constraints,
        optimality=float(np.max(np.abs(slope + z))),
        constr_violation=float(max(violation, beyond)),
        solver=solved.raw,
    )


def _transposed_product(structure: Any, values: np.ndarray, lam: np.ndarray) -> np.ndarray:
    return np.bincount(structure.cols, values * lam[structure.rows], minlength=structure.shape[1])


def _violation(values: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    return float(max(np.max(lower - values, initial=0.0), np.max(values - upper, initial=0.0)))


def active_bounds(problem: Problem, x: np.ndarray, slack: float = 1e-6) -> tuple[np.ndarray, np.ndarray]:
    """Which variables are at their lower, and which at their upper bounds."""
    return (
        x - problem.lower <= slack * (1.0 + np.abs(np.where(np.isfinite(problem.lower), problem.lower, 0.0))),
        problem.upper - x <= slack * (1.0 + np.abs(np.where(np.isfinite(problem.upper), problem.upper, 0.0))),
    )


def estimate_multipliers(problem: Problem, at: Any, slack: float = 1e-6) -> np.ndarray:
    """Multipliers that best satisfy stationarity in the free variables, least squares over the active constraints."""
    low, high = problem.constraint_lower, problem.constraint_upper
    scale = slack * (1.0 + np.abs(at.constraints))
    active = np.flatnonzero((at.constraints - low <= scale) | (high - at.constraints <= scale))
    lam = np.zeros(problem.count)
    if not len(active):
        return lam
    at_low, at_high = active_bounds(problem, at.x)
    free = np.flatnonzero(~(at_low | at_high))
    jacobian = problem.jacobian_structure.to_csc(at.jacobian_values)[active][:, free]
    if jacobian.shape[0] * jacobian.shape[1] <= DENSE_SIZE**2:
        lam[active] = np.linalg.lstsq(jacobian.toarray().T, -at.gradient[free], rcond=None)[0]
    else:
        from scipy.sparse.linalg import lsqr

        lam[active] = lsqr(jacobian.T, -at.gradient[free], atol=1e-14, btol=1e-14)[0]
    return lam
