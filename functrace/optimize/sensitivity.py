"""How solutions depend on parameters: the implicit function theorem on the conditions of optimality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from functrace import numpy as fnp
from functrace import tree
from functrace.callbacks import pure_callback
from functrace.core.types import ShapedArray
from functrace.errors import ArgumentError, InputError, NonDifferentiableInputError, SolverFailureError
from functrace.lax import custom_linear_solve
from functrace.optimize.kkt import KKT, Active, active_set, polished
from functrace.optimize.minimize import minimize
from functrace.optimize.problem import Problem
from functrace.transforms import custom_jvp, grad, jacfwd, jit, jvp, stop_gradient
from functrace.util import user_line

__all__ = ["Sensitivity", "argmin", "solution_sensitivity"]


@dataclass
class Sensitivity:
    """A solution and its derivatives by the parameters.

    Attributes:
        x: the solution, a pytree like x0, polished to machine precision.
        multipliers, bound_multipliers: as in `minimize`'s result.
        value: the objective there.
        dx: like x, in each place a tree like the parameters; arrays of the shape of x's leaf followed by the
        parameter's. dmultipliers, dbound_multipliers: likewise. dvalue: derivative of the optimal value, a tree like
        the parameters.
    """

    x: Any
    multipliers: Any
    bound_multipliers: Any
    value: float
    dx: Any
    dmultipliers: Any
    dbound_multipliers: Any
    dvalue: Any


def solution_sensitivity(
    problem: Problem, method: str | None = None, *, x0: Any = None, options: dict[str, Any] | None = None
) -> Callable[..., Sensitivity]:
    """A function that solves a problem and differentiates the solution by the parameters.

    Bounds and constraints that are active stay active; one linear system with the KKT matrix gives all derivatives.

    Args:
        problem: a `Problem` with `params`.
        method, options: of `minimize`.
        x0: another start than the problem's.

    Returns:
        A function of the parameters (without argument, the problem's own) that gives a `Sensitivity`.

    Raises:
        ArgumentError: the problem has no parameters.
        SolverFailureError: there is no solution to differentiate (when called).
        DegenerateSolutionError: the solution has no derivative (when called).

    Example:
        >>> import numpy as np
        >>> from functrace import optimize
        >>> problem = optimize.Problem(
        ...     lambda x, p: np.sum((x - p) ** 2), bounds=(0.0, 1.0), x0=[0.5, 0.5], params=np.array([0.25, 3.0])
        ... )
        >>> found = optimize.solution_sensitivity(problem)()
        >>> found.x
        array([0.25, 1.  ])
        >>> found.dx
        array([[1., 0.],
               [0., 0.]])
        >>> found.dvalue
        array([0., 4.])
    """
    _require_parameters(problem, "solution_sensitivity")
    slopes = _parametric_slopes(problem)
    n = problem.size

    def sensitivity(params: Any = None) -> Sensitivity:
        kkt = _solve(problem, problem.parameters.flat(params), method, x0, options)
        given = problem.parameters.flat(params)
        blocks = [np.asarray(block) for block in slopes(given, kkt.x, kkt.lam)]
        # Rows: the gradient of the Lagrangian, the constraints, the Lagrangian itself.
        by_params = np.concatenate([block.reshape(n + problem.count + 1, -1) for block in blocks], axis=1)
        mixed, values, envelope = by_params[:n], by_params[n:-1], by_params[-1]
        free, held = kkt.active.free[:, None], kkt.active.held[:, None]
        right = np.concatenate([np.where(free, -mixed, 0.0), np.where(held, -values, 0.0)])
        step = kkt.solve(right)
        dx, dlam = step[:n], step[n:]
        slope_change = mixed + problem.lagrangian_hessian(kkt.x, kkt.lam, 1.0, params) @ dx
        if problem.count:
            slope_change = slope_change + problem.jacobian(kkt.x, params).T @ dlam
        z = np.where(kkt.active.free, 0.0, -problem.lagrangian_gradient(kkt.x, kkt.lam, 1.0, params))
        variables = problem.variables
        return Sensitivity(
            x=variables.tree_of(kkt.x),
            multipliers=problem.multiplier_tree(kkt.lam),
            bound_multipliers=variables.tree_of(z),
            value=problem.objective(kkt.x, params),
            dx=_tree_of_trees(problem, variables.tree_of, dx),
            dmultipliers=_tree_of_trees(problem, problem.multiplier_tree, dlam),
            dbound_multipliers=_tree_of_trees(problem, variables.tree_of, np.where(free, 0.0, -slope_change)),
            dvalue=_parameter_tree(problem, envelope),
        )

    return sensitivity


def _require_parameters(problem: Problem, what: str) -> None:
    if not isinstance(problem, Problem):
        raise InputError(
            f"{what} takes a Problem",
            where=user_line(),
            got=type(problem).__name__,
            remedy="write Problem(f, params=..., x0=...), with f(x, params)",
        )
    if not problem.parameters.given:
        raise ArgumentError(
            f"{what} needs a problem with parameters",
            where=user_line(),
            got=repr(problem),
            remedy="write the functions as f(x, params) and give Problem(..., params=...)",
        )
    for aval in problem.parameters.avals:
        if aval.dtype.kind != "f":
            raise NonDifferentiableInputError(
                f"{what} differentiates by real floating point parameters",
                where=user_line(),
                got=str(aval),
                remedy="convert them with numpy.asarray(p, float), or close over those that do not change",
            )


def _gradient_and_constraints(problem: Problem) -> Callable[..., Any]:
    """(x, lam, parameter leaves) -> gradient of the Lagrangian, constraints, Lagrangian; traceable."""

    def function(x: Any, lam: Any, *leaves: Any) -> Any:
        def lagrangian(x: Any) -> Any:
            value, constraints = problem.both(x, *leaves)
            return value + fnp.sum(lam * constraints), constraints

        (value, constraints), gradient = _value_and_grad(lagrangian, x)
        return gradient, constraints, value

    return function


def _value_and_grad(function: Callable[[Any], Any], x: Any) -> Any:
    gradient, constraints = grad(function, has_aux=True)(x)
    return (function(x)[0], constraints), gradient


def _parametric_slopes(problem: Problem) -> Callable[..., Any]:
    """Derivatives of these by each parameter: per leaf an array of (size + count + 1, *shape)."""
    function = _gradient_and_constraints(problem)

    def stacked(leaves: Any, x: Any, lam: Any) -> Any:
        gradient, constraints, value = function(x, lam, *leaves)
        return fnp.concatenate([gradient, constraints, fnp.reshape(value, (1,))])

    slopes = jacfwd(stacked)
    return jit(slopes) if problem.jit else slopes


def _solve(problem: Problem, leaves: list[Any], method: str | None, x0: Any, options: dict[str, Any] | None) -> KKT:
    """The solution for some parameters.

    Raises:
        SolverFailureError: the solver found none.
    """
    params = tree.unflatten(problem.parameters.structure, leaves)
    result = minimize(problem, method, x0=x0, params=params, options=dict(options or {}))
    if not result.success:
        raise SolverFailureError(
            "there is no solution to differentiate: the solver did not succeed",
            where=user_line(),
            got=f"{result.method}: {result.message} (optimality {result.optimality:.1e}, "
            f"violation of constraints {result.constr_violation:.1e})",
            remedy="try another method, start or scaling with minimize first",
        )
    return polished(problem, problem.variables.vector(result.x), result.lam, params)


def _parameter_tree(problem: Problem, row: np.ndarray) -> Any:
    """A vector of derivatives by all parameters as a tree like them."""
    avals = problem.parameters.avals
    ends = np.cumsum([0, *(a.size for a in avals)]).tolist()
    parts = [row[a:b].reshape(aval.shape)[()] for a, b, aval in zip(ends, ends[1:], avals, strict=False)]
    return tree.unflatten(problem.parameters.structure, [np.array(p) if np.ndim(p) else p for p in parts])


def _tree_of_trees(problem: Problem, as_tree: Callable[[np.ndarray], Any], matrix: np.ndarray) -> Any:
    """(vector, parameters) -> a tree like the vector's, in each place a tree like the parameters."""
    positions = as_tree(np.arange(len(matrix), dtype=float))

    def block(places: Any) -> Any:
        rows = np.asarray(places, int)
        avals = problem.parameters.avals
        ends = np.cumsum([0, *(a.size for a in avals)]).tolist()
        parts = [
            matrix[rows, a:b].reshape(rows.shape + aval.shape)[()]
            for a, b, aval in zip(ends, ends[1:], avals, strict=False)
        ]
        return tree.unflatten(problem.parameters.structure, parts)

    return tree.map(block, positions)


def argmin(
    problem: Problem, method: str | None = None, *, x0: Any = None, options: dict[str, Any] | None = None
) -> Callable[[Any], Any]:
    """The solution as a differentiable function of the parameters, to stand inside a larger function.

    It may be transformed like any other: both modes, any nesting and order, `jit`, `vmap`. Derivatives come from the
    conditions of optimality by the implicit function theorem, whatever the solver's steps were.

    Args:
        problem: a `Problem` with `params`.
        method, options: of `minimize`.
        x0: another start than the problem's.

    Returns:
        A function of the parameters that gives the pair (x, multipliers), trees as in `minimize`'s result.

    Raises:
        ArgumentError: the problem has no parameters.
        SolverFailureError, DegenerateSolutionError: no solution, or none with a derivative (when called).

    Example:
        >>> import functrace
        >>> from functrace import optimize
        >>> problem = optimize.Problem(lambda x, p: (x - p) ** 2 + x**4, x0=1.0, params=1.0)
        >>> best = optimize.argmin(problem)
        >>> best(3.0)[0], round(functrace.grad(lambda p: best(p)[0])(3.0), 12)
        (np.float64(1.0), np.float64(0.142857142857))
    """
    _require_parameters(problem, "argmin")
    n, m = problem.size, problem.count
    types = [ShapedArray((n,), np.dtype(float)), ShapedArray((m,), np.dtype(float))]
    both = _gradient_and_constraints(problem)
    structure = problem.parameters.structure

    def leaves_of(values: Any) -> list[np.ndarray]:
        return [np.asarray(v)[()] for v in values]

    def solve(*leaves: Any) -> list[np.ndarray]:
        kkt = _solve(problem, leaves_of(leaves), method, x0, options)
        return [kkt.x, kkt.lam]

    def active(x: np.ndarray, lam: np.ndarray, *leaves: Any) -> list[np.ndarray]:
        found = active_set(problem, x, lam, tree.unflatten(structure, leaves_of(leaves)))
        return [found.free.astype(float), found.held.astype(float)]

    def linear_solver(transposed: bool) -> Callable[..., list[np.ndarray]]:
        def run(x: Any, lam: Any, free: Any, held: Any, right: Any, below: Any, *leaves: Any) -> list[np.ndarray]:
            flags = Active(free != 0.0, held != 0.0, x, below)
            kkt = KKT(problem, x, lam, flags, tree.unflatten(structure, leaves_of(leaves)))
            found = kkt.solve(np.concatenate([right, below]), transposed)
            return [found[:n], found[n:]]

        return run

    @custom_jvp
    def solution(*leaves: Any) -> list[Any]:
        return pure_callback(solve, types, *leaves, vmap_method="sequential")

    @solution.defjvp
    def solution_jvp(primals: Any, tangents: Any) -> tuple[Any, Any]:
        x, lam = solution(*primals)
        known = [stop_gradient(v) for v in (x, lam, *primals)]
        free, held = pure_callback(active, types, *known, vmap_method="sequential")

        def conditions(x: Any, lam: Any, *leaves: Any) -> Any:
            return both(x, lam, *leaves)[:2]

        _, (mixed, values) = jvp(lambda *leaves: conditions(x, lam, *leaves), primals, tangents)

        def matvec(step: Any) -> Any:
            _, (above, below) = jvp(lambda x, lam: conditions(x, lam, *primals), (x, lam), tuple(step))
            return [fnp.where(free != 0.0, above, step[0]), fnp.where(held != 0.0, below, step[1])]

        def by_factors(transposed: bool) -> Callable[..., Any]:
            run = linear_solver(transposed)
            return lambda _, b: pure_callback(
                run, types, *known[:2], free, held, *b, *known[2:], vmap_method="sequential"
            )

        right = [fnp.where(free != 0.0, -mixed, 0.0), fnp.where(held != 0.0, -values, 0.0)]
        step = custom_linear_solve(matvec, right, by_factors(False), by_factors(True))
        return [x, lam], step

    def argmin_function(params: Any) -> Any:
        leaves, found = tree.flatten(params)
        if found != structure:
            problem.parameters.flat(params)  # raises
        x, lam = solution(*[fnp.asarray(leaf, dtype=float) for leaf in leaves])
        return problem.variables.unravel(x), problem.multiplier_tree(lam)

    return argmin_function
