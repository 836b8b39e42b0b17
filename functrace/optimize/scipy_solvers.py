"""Problems in the shapes that SciPy's solvers want, and what those return in ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.optimize.iterate import Iterate
from functrace.optimize.problem import Problem
from functrace.optimize.solved import Solved

__all__ = ["DENSE_SIZE", "METHODS", "solve_by_scipy"]

#: SciPy's methods that use derivatives, and the most that each can treat.
METHODS = {
    "trust-constr": "constraints",
    "SLSQP": "constraints",
    "L-BFGS-B": "bounds",
    "TNC": "bounds",
    "Newton-CG": "nothing",
    "trust-ncg": "nothing",
    "trust-krylov": "nothing",
    "trust-exact": "nothing",
    "dogleg": "nothing",
    "BFGS": "nothing",
    "CG": "nothing",
}
WITH_PRODUCTS = ("Newton-CG", "trust-ncg", "trust-krylov")
WITH_HESSIAN = ("trust-exact", "dogleg")

#: Up to this many variables, matrices go to SciPy as arrays, whose factorisations are the sturdier ones.
DENSE_SIZE = 200


def solve_by_scipy(
    problem: Problem,
    method: str,
    start: np.ndarray,
    params: Any,
    tol: float | None,
    options: dict[str, Any],
    callback: Callable[..., Any] | None,
) -> Solved:
    """Run one of METHODS from a start inside the bounds."""
    from scipy.optimize import Bounds, minimize

    arguments: dict[str, Any] = {"jac": lambda x: problem.gradient(x, params)}
    bounded = bool(np.isfinite(problem.lower).any() or np.isfinite(problem.upper).any())
    if bounded and METHODS[method] != "nothing":
        arguments["bounds"] = Bounds(problem.lower, problem.upper)
    zero = np.zeros(problem.count)
    if method in WITH_PRODUCTS:
        arguments["hessp"] = lambda x, v: problem.lagrangian_hvp(x, zero, v, params=params)
    elif method in WITH_HESSIAN:
        arguments["hess"] = lambda x: problem.lagrangian_hessian(x, zero, params=params, dense=True)
    elif method == "trust-constr":
        arguments |= _trust_constr(problem, params, options)
        callback = _UntilOptimal(problem, options.get("gtol", tol or 1e-8), bounded, callback)
        options["gtol"], tol = 0.0, None
        start = _inside(start, problem.lower, problem.upper)
    elif method == "SLSQP":
        if problem.count:
            arguments["constraints"] = _slsqp_constraints(problem, params)
        options.setdefault("maxiter", 1000)
        tol = 1e-8 if tol is None and "ftol" not in options else tol

    def run() -> Any:
        return minimize(
            lambda x: problem.objective(x, params),
            start,
            method=method,
            tol=tol,
            options=options,
            callback=callback,
            **arguments,
        )

    found = run()
    if isinstance(callback, _UntilOptimal):
        callback.judge(found)
        if not found.success and bounded:  # a step out of the bounds may have left the domain of the functions
            arguments["bounds"] = Bounds(problem.lower, problem.upper, keep_feasible=True)
            again = run()
            callback.judge(again)
            again.nit += found.nit
            found = again if again.success else found
    lam, z = _multipliers(problem, method, bounded, found)
    x = np.asarray(found.x, float)
    if bounded:
        x = np.clip(x, problem.lower, problem.upper)
    success, message = bool(found.success), str(found.message)
    if method == "SLSQP" and found.status == 8 and lam is not None:
        error = _relative_error(problem, problem.at(x, params), lam)
        success = error <= 1e3 * (tol or options["ftol"])
        message = f"no step improves the objective any more; the conditions of optimality are off by {error:.1e} of it"
    return Solved(x, lam, z, success, int(found.status), message, int(found.nit), found)


def _relative_error(problem: Problem, at: Iterate, lam: np.ndarray) -> float:
    """By how much the conditions of optimality are violated, relative to the sizes of what has to cancel.

    SLSQP's line search gives up where rounding hides the last improvements, be the point optimal or not.
    """
    jacobian, structure, c = at.jacobian_values, problem.jacobian_structure, at.constraints
    pull = np.bincount(structure.cols, jacobian * lam[structure.rows], minlength=problem.size)
    slope = at.gradient + pull
    slope = np.where((slope > 0.0) & (at.x <= problem.lower) | (slope < 0.0) & (at.x >= problem.upper), 0.0, slope)
    scale = max(1.0, float(np.abs(at.gradient).max()))
    beyond = np.maximum(problem.constraint_lower - c, c - problem.constraint_upper) / (1.0 + np.abs(c))
    gap = _complementarity(lam, c, problem.constraint_lower, problem.constraint_upper)
    errors = [np.abs(slope).max() / scale, np.max(beyond, initial=0.0), gap / max(1.0, abs(at.objective))]
    return float(np.max(errors)) if np.isfinite(errors).all() else np.inf


def _trust_constr(problem: Problem, params: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Constraints with the Hessian of the whole Lagrangian, and none for the objective: one evaluation per iterate."""
    from scipy.optimize import NonlinearConstraint
    from scipy.sparse import csc_array

    dense = problem.size <= 20  # sparse factors are the quicker ones soon
    options.setdefault("xtol", 1e-10)
    options.setdefault("barrier_tol", 1e-9)
    options.setdefault("sparse_jacobian", not dense)
    if not problem.count:
        return {"hess": lambda x: problem.lagrangian_hessian(x, params=params, dense=dense)}
    shape = (problem.size, problem.size)
    nothing = np.zeros(shape) if dense else csc_array(shape)
    constraint = NonlinearConstraint(
        lambda x: problem.constraints(x, params),
        problem.constraint_lower,
        problem.constraint_upper,
        jac=lambda x: problem.jacobian(x, params, dense=dense),
        hess=lambda x, v: problem.lagrangian_hessian(x, np.array(v, float), params=params, dense=dense),
    )
    return {"hess": lambda x: nothing, "constraints": constraint}


class _UntilOptimal:
    """A callback that ends trust-constr at a KKT point.

    Its own test leaves complementarity out, and so may end it with a high barrier, far inside.
    """

    def __init__(self, problem: Problem, gtol: float, bounded: bool, callback: Callable[..., Any] | None) -> None:
        self.problem, self.gtol, self.bounded, self.callback = problem, gtol, bounded, callback

    def __call__(self, x: np.ndarray, state: Any) -> bool:
        if self.callback is not None and self.callback(x, state):
            return True
        return self.error(state) <= self.gtol

    def error(self, state: Any) -> float:
        """By how much the conditions of optimality are violated."""
        problem = self.problem
        limits = [(problem.constraint_lower, problem.constraint_upper)] if problem.count else []
        limits += [(problem.lower, problem.upper)] if self.bounded else []
        gaps = [
            _complementarity(np.asarray(v), np.asarray(c), *sides)
            for v, c, sides in zip(state.v, state.constr, limits, strict=True)
        ]
        errors = np.array([state.optimality, state.constr_violation, *gaps])
        return float(np.max(errors)) if np.isfinite(errors).all() else np.inf

    def judge(self, found: Any) -> None:
        """Let the conditions of optimality say whether the solver has succeeded."""
        if (error := self.error(found)) <= self.gtol:
            found.success, found.status, found.message = True, 1, "the conditions of optimality are satisfied"
        elif found.status in (1, 2, 4):  # the last for any violation at all, since SciPy's own gtol is 0
            found.success, found.status = error <= 1e3 * self.gtol, 2
            found.message = f"steps became too small; the conditions of optimality are off by {error:.1e}"


def _complementarity(v: np.ndarray, values: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """The largest product of a multiplier and the distance to the bound that its sign names."""
    side = np.where(v > 0.0, upper, lower)
    distance = np.where(np.isfinite(side), np.abs(values - side), 1.0)
    return float(np.max(np.abs(v) * distance, initial=0.0))


def _sides(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions of the equations, and of the others with a lower, and with an upper bound."""
    low, high = problem.constraint_lower, problem.constraint_upper
    equations = low == high
    return (
        np.flatnonzero(equations),
        np.flatnonzero(~equations & np.isfinite(low)),
        np.flatnonzero(~equations & np.isfinite(high)),
    )


def _inside(x: np.ndarray, lower: np.ndarray, upper: np.ndarray, margin: float = 1e-2) -> np.ndarray:
    """The point moved inside its bounds, as a barrier needs it, by a hundredth as IPOPT does."""
    low, high = np.where(np.isfinite(lower), lower, -1e300), np.where(np.isfinite(upper), upper, 1e300)
    width = margin * (high - low)
    low = low + np.minimum(margin * np.maximum(1.0, np.abs(low)), width)
    high = high - np.minimum(margin * np.maximum(1.0, np.abs(high)), width)
    return np.clip(x, low, high)


def _slsqp_constraints(problem: Problem, params: Any) -> list[dict[str, Any]]:
    """Equations c - b = 0, then inequalities c - lower >= 0 and upper - c >= 0."""
    equations, below, above = _sides(problem)
    low, high = problem.constraint_lower, problem.constraint_upper

    def inequalities(x: np.ndarray) -> np.ndarray:
        c = problem.constraints(x, params)
        return np.concatenate([c[below] - low[below], high[above] - c[above]])

    def slopes(x: np.ndarray) -> np.ndarray:
        jacobian = problem.jacobian(x, params, dense=True)
        return np.concatenate([jacobian[below], -jacobian[above]])

    found = []
    if len(equations):
        found.append(
            {
                "type": "eq",
                "fun": lambda x: problem.constraints(x, params)[equations] - low[equations],
                "jac": lambda x: problem.jacobian(x, params, dense=True)[equations],
            }
        )
    if len(below) or len(above):
        found.append({"type": "ineq", "fun": inequalities, "jac": slopes})
    return found


def _multipliers(
    problem: Problem, method: str, bounded: bool, found: Any
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Multipliers as the solver gives them, with our sign; None where it gives none."""
    if method == "trust-constr":
        groups = [np.asarray(v, float).ravel() for v in found.v]
        lam = groups.pop(0) if problem.count else np.zeros(0)
        return lam, groups.pop(0) if bounded else np.zeros(problem.size)
    if not problem.count:
        return np.zeros(0), None
    if "multipliers" not in found:  # SciPy before 1.16
        return None, None
    equations, below, above = _sides(problem)
    lam = np.zeros(problem.count)
    first, second, third = np.split(found.multipliers, [len(equations), len(equations) + len(below)])
    lam[equations] -= first
    lam[below] -= second
    lam[above] += third
    return lam, None
