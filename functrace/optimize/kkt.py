"""The Karush-Kuhn-Tucker system at a solution: which bounds and constraints hold there, and its linearisation.

With the active ones as equations, the conditions of optimality are a square system in the variables and multipliers,

    grad f + J' lam = 0 in the free variables,  x = bound in the others,  c = bound if active, else lam = 0,

which Newton's method polishes to machine precision and the implicit function theorem differentiates. See A. V. Fiacco,
Introduction to Sensitivity and Stability Analysis in Nonlinear Programming (1983).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from functrace.errors import DegenerateSolutionError
from functrace.optimize.problem import Problem
from functrace.optimize.scipy_solvers import DENSE_SIZE
from functrace.util import user_line

__all__ = ["KKT", "Active", "active_set", "polished"]


class Active:
    """The active set.

    Attributes:
        free: per variable, whether it is at none of its bounds.
        held: per constraint, whether it is at a bound.
        x_bound, c_bound: where those at a bound are.
    """

    def __init__(self, free: np.ndarray, held: np.ndarray, x_bound: np.ndarray, c_bound: np.ndarray) -> None:
        self.free, self.held, self.x_bound, self.c_bound = free, held, x_bound, c_bound


def active_set(problem: Problem, x: np.ndarray, lam: np.ndarray, params: Any = None) -> Active:
    """Which bounds and constraints are active: those whose multiplier exceeds the distance to the bound it names."""
    at = problem.at(x, params)
    slope = problem.lagrangian_gradient(x, lam, 1.0, params)
    free, x_bound = _split(x, -slope, problem.lower, problem.upper)
    loose, c_bound = _split(at.constraints, lam, problem.constraint_lower, problem.constraint_upper)
    return Active(free, ~loose, x_bound, c_bound)


def _split(
    values: np.ndarray, multipliers: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each value is away from its bounds, and the bound that its multiplier names (0 where there is none)."""
    bound = np.where(multipliers > 0.0, upper, lower)
    distance = np.where(np.isfinite(bound), np.abs(bound - values), np.inf)
    loose = (np.abs(multipliers) <= distance) & (lower != upper)
    bound = np.where(lower == upper, lower, bound)
    return loose, np.where(np.isfinite(bound), bound, 0.0)


class KKT:
    """The linearised conditions of optimality at a point.

    Args:
        problem, params: the problem.
        x, lam: the point, vectors.
        active: the active set there.
    """

    def __init__(self, problem: Problem, x: np.ndarray, lam: np.ndarray, active: Active, params: Any = None) -> None:
        self.problem, self.x, self.lam, self.active, self.params = problem, x, lam, active, params

    def residual(self) -> np.ndarray:
        """The conditions of optimality, zero at a solution: one per variable, then one per constraint."""
        active, at = self.active, self.problem.at(self.x, self.params)
        slope = self.problem.lagrangian_gradient(self.x, self.lam, 1.0, self.params)
        stationary = np.where(active.free, slope, self.x - active.x_bound)
        return np.concatenate([stationary, np.where(active.held, at.constraints - active.c_bound, self.lam)])

    @cached_property
    def matrix(self) -> Any:
        """The derivative of the residual, a `scipy.sparse.csc_array`."""
        from scipy.sparse import block_array, diags_array

        free, held = (diags_array(flags.astype(float)) for flags in (self.active.free, self.active.held))
        fixed, loose = (diags_array((~flags).astype(float)) for flags in (self.active.free, self.active.held))
        hessian = self.problem.lagrangian_hessian(self.x, self.lam, 1.0, self.params)
        if not self.problem.count:
            return (free @ hessian + fixed).tocsc()
        jacobian = self.problem.jacobian(self.x, self.params)
        return block_array([[free @ hessian + fixed, free @ jacobian.T], [held @ jacobian, loose]], format="csc")

    def solve(self, right: np.ndarray, transposed: bool = False) -> np.ndarray:
        """The solution of the linearised conditions, for one right-hand side or one per column.

        Raises:
            DegenerateSolutionError: the system is singular.
        """
        return self._factors(right, transposed)

    @cached_property
    def _factors(self) -> Any:
        import scipy.linalg
        from scipy.sparse.linalg import splu

        matrix = self.matrix
        if matrix.shape[0] <= DENSE_SIZE:
            dense = matrix.toarray()
            if not np.isfinite(dense).all() or np.linalg.cond(dense) > 1e14:
                raise _degenerate("the conditions of optimality are singular at the solution")
            factors = scipy.linalg.lu_factor(dense)
            return lambda right, transposed: scipy.linalg.lu_solve(factors, right, trans=int(transposed))
        try:
            sparse = splu(matrix)
        except RuntimeError as error:
            raise _degenerate("the conditions of optimality are singular at the solution") from error

        def solve(right: np.ndarray, transposed: bool) -> np.ndarray:
            found = sparse.solve(np.asarray(right, float), "T" if transposed else "N")
            if not np.isfinite(found).all():
                raise _degenerate("the conditions of optimality are singular at the solution")
            return found

        return solve


def polished(problem: Problem, x: np.ndarray, lam: np.ndarray, params: Any = None, steps: int = 5) -> KKT:
    """The solution to machine precision by Newton's method on the active set.

    Args:
        x, lam: what a solver found.

    Raises:
        DegenerateSolutionError: no solution of this active set is near, or it is degenerate.
    """
    active = active_set(problem, x, lam, params)
    kkt = KKT(problem, np.where(active.free, x, active.x_bound), np.where(active.held, lam, 0.0), active, params)
    error = start = float(np.linalg.norm(kkt.residual()))
    for _ in range(steps):
        step = kkt.solve(-kkt.residual())
        new = KKT(problem, kkt.x + step[: problem.size], kkt.lam + step[problem.size :], active, params)
        new_error = float(np.linalg.norm(new.residual()))
        if not new_error < 0.5 * error:
            break
        kkt, error = new, new_error
    scale = 1.0 + float(np.max(np.abs(problem.at(kkt.x, params).gradient)))
    if error > 1e-6 * scale and error > 0.1 * start:
        raise _degenerate(f"no solution is near: the conditions of optimality are off by {error:.1e}")
    _require_strict(kkt, scale)
    return kkt


def _require_strict(kkt: KKT, scale: float) -> None:
    """Raise where a bound is active with a multiplier of zero: the solution has a kink there."""
    problem, active = kkt.problem, kkt.active
    slope = problem.lagrangian_gradient(kkt.x, kkt.lam, 1.0, kkt.params)
    values = problem.at(kkt.x, kkt.params).constraints
    checks = (
        ("variable", kkt.x, slope, ~active.free, problem.lower, problem.upper),
        ("constraint", values, kkt.lam, active.held, problem.constraint_lower, problem.constraint_upper),
    )
    for what, points, multipliers, at_bound, lower, upper in checks:
        inequality = lower != upper
        distance = np.minimum(points - lower, upper - points)
        kink = inequality & np.where(at_bound, np.abs(multipliers) <= 1e-7 * scale, distance <= 1e-7)
        if kink.any():
            raise _degenerate(
                f"{what} {int(np.argmax(kink))} is at a bound with multiplier zero, where the solution has a kink"
            )


def _degenerate(what: str) -> DegenerateSolutionError:
    return DegenerateSolutionError(
        f"the solution has no derivative: {what}",
        where=user_line(),
        remedy="the gradients of the active constraints must be independent, their multipliers not zero, and the "
        "Hessian of the Lagrangian positive along them; tighten the solver's tolerance, or move the parameters away",
    )
