"""`Problem`: an objective, constraints and bounds, with all the derivatives that solvers ask for."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from functrace import numpy as fnp
from functrace import tree
from functrace.core.ir import ClosedJaxpr, eval_jaxpr
from functrace.core.trace import Tracer
from functrace.core.types import ShapedArray, aval_of, canonicalize
from functrace.errors import ArgumentError, InputError, NonScalarOutputError, ShapeError, WrongStructureError
from functrace.interpreters.staging import stage
from functrace.optimize.constraints import as_constraints, bounds_of_variables, spread_bounds
from functrace.optimize.eager import EagerEvaluation
from functrace.optimize.evaluation import Evaluation
from functrace.optimize.iterate import Iterate
from functrace.optimize.programs import suggesting_eager
from functrace.optimize.structure import DerivativeStructure
from functrace.optimize.variables import Parameters, Variables, real_vector
from functrace.transforms._flatten import call, owned, snapshot
from functrace.util import user_line

__all__ = ["Problem"]


class Problem:
    """minimise f(x) subject to lower <= c(x) <= upper and bounds on x, with exact first and second derivatives.

    The functions are ordinary NumPy code. They are traced once; then values, gradient, sparse Jacobian and the sparse
    Hessian of the Lagrangian come from compiled programs that share one linearisation per iterate.

    Args:
        objective: `objective(x)`, or `objective(x, params)` with `params`: a scalar. None for a constant.
        constraints: `Constraint(c, lower, upper)`, a tuple (c, lower, upper), SciPy's dicts and constraint objects
            (whose own derivatives are not used), or any list or dict of these.
        bounds: on the variables: a tuple (lower, upper) of numbers or trees like x0, `scipy.optimize.Bounds`, or a list
            of one pair per variable; None for no bound.
        x0: where solvers start, array or pytree of arrays; a list of numbers is an array.
        params: pytree of parameters of the functions, which can be changed in every call.
        jit: whether the functions may be traced once for all. Python control flow on values of x needs False, and then
            derivatives are dense.

    Attributes:
        size, count: numbers of variables and of constraints.
        x0, lower, upper: start and bounds, arrays of `size`.
        constraint_lower, constraint_upper: arrays of `count`.

    Raises:
        NonScalarOutputError: the objective is not a scalar.
        ArgumentError, ShapeError: bounds are inconsistent, or nothing of the shape of what they bound; x0 is missing
            or not finite.

    Example:
        >>> import numpy as np
        >>> from functrace import optimize
        >>> problem = optimize.Problem(
        ...     lambda x: x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2],
        ...     [optimize.Constraint(np.prod, 25.0), optimize.Constraint(lambda x: np.sum(x**2), 40.0, 40.0)],
        ...     bounds=(1.0, 5.0),
        ...     x0=[1.0, 5.0, 5.0, 1.0],
        ... )
        >>> problem.gradient(problem.x0)
        array([12.,  1.,  2., 11.])
        >>> problem.jacobian(problem.x0).toarray()
        array([[25.,  5.,  5., 25.],
               [ 2., 10., 10.,  2.]])
        >>> problem.lagrangian_hessian(problem.x0, lam=[0.0, 1.0], sigma=0.0).toarray().diagonal()
        array([2., 2., 2., 2.])
    """

    def __init__(
        self,
        objective: Any,
        constraints: Any = None,
        *,
        bounds: Any = None,
        x0: Any = None,
        params: Any = None,
        jit: bool = True,
    ) -> None:
        if objective is not None and not callable(objective):
            raise InputError(
                "the objective of a problem must be a function",
                where=user_line(),
                got=type(objective).__name__,
                remedy="pass the function itself, or None to look for a feasible point only",
            )
        self.objective_function = objective
        self.variables, self.parameters = Variables(x0), Parameters(params)
        self.x0, self.size = self.variables.start, self.variables.size
        self.lower, self.upper = bounds_of_variables(bounds, self.variables.structure, self.variables.shapes)
        self.constraint_list, self.container = as_constraints(constraints, self.parameters.given)
        self.jit = jit
        self._types = [ShapedArray((self.size,), np.dtype(float)), *self.parameters.avals]
        #: (x, *parameters) -> objective, constraints; recorded once, and all that is derived comes from it.
        self.program: ClosedJaxpr | None = None
        if jit:
            with suggesting_eager():
                self.program = stage(
                    lambda *values: self._run(*values, read=True), self._types, name="optimize.Problem"
                )
            if any(isinstance(c, Tracer) for c in self.program.consts):
                raise ArgumentError(
                    "the functions of a problem close over a value that another transformation is tracing",
                    where=user_line(),
                    got=", ".join(c.describe() for c in self.program.consts if isinstance(c, Tracer)),
                    remedy="make the problem outside, with this value among its params, and differentiate "
                    "optimize.argmin(problem) by them",
                )
        else:
            with np.errstate(all="ignore"):
                self._run(self.x0, *self.parameters.leaves, read=True)
        self._last: Iterate | None = None

    def _check_objective(self, value: Any) -> None:
        types = tree.map(lambda leaf: aval_of(canonicalize(leaf)), value)
        if not isinstance(types, ShapedArray) or types.shape != () or types.dtype.kind not in "fiub":
            raise NonScalarOutputError(
                "the objective of a problem must give one real number",
                where=user_line(),
                got=str(types),
                remedy="reduce it, for instance with .sum(); bound what is a vector as a constraint",
            )

    def _read_constraints(self, values: list[Any]) -> None:
        """Sizes, structures and bounds of the constraints.

        Args:
            values: what the functions gave, one tree each.
        """
        self.constraint_shapes: list[list[tuple[int, ...]]] = []
        self.constraint_trees: list[tree.TreeDef] = []
        lows, highs = [np.zeros(0)], [np.zeros(0)]
        for index, (constraint, value) in enumerate(zip(self.constraint_list, values, strict=True)):
            leaves, structure = tree.flatten(value)
            avals = [aval_of(canonicalize(owned(leaf))) for leaf in leaves]
            if value is None:
                raise InputError(
                    f"constraint {index} gives nothing",
                    where=user_line(),
                    got="None",
                    remedy="return the array that is to lie between the bounds",
                )
            for aval in avals:
                if aval.dtype.kind not in "fiub":
                    raise InputError(
                        f"constraint {index} must give real numbers",
                        where=user_line(),
                        got=str(aval),
                        remedy="bound real and imaginary parts, or the modulus",
                    )
            shapes = [a.shape for a in avals]
            what = "the constraints" if len(self.constraint_list) == 1 else f"constraint {index}"
            low, high = spread_bounds(constraint.lower, constraint.upper, structure, shapes, what)
            lows.append(low)
            highs.append(high)
            self.constraint_trees.append(structure)
            self.constraint_shapes.append(shapes)
        self.constraint_lower, self.constraint_upper = np.concatenate(lows), np.concatenate(highs)
        self.count = len(self.constraint_lower)

    # Functions of flat vectors.

    def both(self, x: Any, *params: Any) -> list[Any]:
        """Objective and constraints of a vector and of the parameters' leaves; traceable."""
        if self.program is None:
            return self._run(x, *params)
        return eval_jaxpr(self.program.jaxpr, self.program.consts, x, *params)

    def _run(self, x: Any, *params: Any, read: bool = False) -> list[Any]:
        """Objective and constraints by the user's functions; with `read`, what these are is checked and noted."""

        def arguments() -> tuple[Any, ...]:  # of its own for each function, which may write to it
            leaves = [snapshot(leaf) for leaf in params]
            return self.variables.unravel(snapshot(x)), *self.parameters.arguments(leaves)

        value = 0.0 if self.objective_function is None else call(self.objective_function, arguments(), {})
        if read:
            self._check_objective(value)
        trees = [call(c.fun, arguments(), {}) for c in self.constraint_list]
        if read:
            self._read_constraints(trees)
        parts = [_as_float(fnp.ravel(canonicalize(owned(leaf)))) for found in trees for leaf in tree.leaves(found)]
        if len(parts) == 1:
            return [_as_float(owned(value)), parts[0]]
        return [_as_float(owned(value)), fnp.concatenate(parts) if parts else np.zeros(0)]

    @cached_property
    def evaluation(self) -> Any:
        if self.program is None:
            return EagerEvaluation(self.both, self.size, self.count)
        return Evaluation(self.program, self.count)

    def at(self, x: Any, params: Any = None) -> Iterate:
        """The iterate at x, the last one if it is at the same point."""
        leaves = self.parameters.flat(params)
        last = self._last
        if last is not None and type(x) is np.ndarray and last.is_at(x, leaves):
            return last
        vector = self.variables.vector(x)
        if last is None or not last.is_at(vector, leaves):
            last = self._last = Iterate(self.evaluation, vector, leaves)
        return last

    # What solvers ask for.

    def objective(self, x: Any, params: Any = None) -> float:
        """The objective at x, a pytree like x0 or a vector of all variables."""
        return self.at(x, params).objective

    def gradient(self, x: Any, params: Any = None) -> np.ndarray:
        """The gradient of the objective, a vector of `size`."""
        return self.at(x, params).gradient.copy()

    def constraints(self, x: Any, params: Any = None) -> np.ndarray:
        """The values of all constraints, a vector of `count`."""
        return self.at(x, params).constraints.copy()

    def jacobian(self, x: Any, params: Any = None, *, dense: bool = False) -> Any:
        """The Jacobian of all constraints, (count, size).

        Args:
            x: pytree like x0, or vector of all variables.
            params: other parameters than the problem's.
            dense: whether to give an array instead of a `scipy.sparse.csc_array` of fixed structure.
        """
        values = self.at(x, params).jacobian_values
        structure = self.jacobian_structure
        return structure.to_dense(values) if dense else structure.to_csc(values)

    def lagrangian_gradient(self, x: Any, lam: Any = None, sigma: float = 1.0, params: Any = None) -> np.ndarray:
        """The gradient in x of sigma f(x) + lam . c(x), a vector of `size`."""
        at = self.at(x, params)
        with np.errstate(all="ignore"):
            return self.evaluation.gradient_of_lagrangian(at, self.multipliers(lam), _weight(sigma)).copy()

    def lagrangian_hessian(
        self, x: Any, lam: Any = None, sigma: float = 1.0, params: Any = None, *, dense: bool = False
    ) -> Any:
        """The Hessian in x of sigma f(x) + lam . c(x), (size, size).

        Terms of weight zero do not take part, even where their derivatives are infinite.

        Args:
            x: pytree like x0, or vector of all variables.
            lam: multipliers, a vector of `count` or a tree like the constraints; None without constraints.
            sigma: weight of the objective.
            params: other parameters than the problem's.
            dense: whether to give an array instead of a `scipy.sparse.csc_array` of fixed structure.

        Raises:
            ShapeError: not one multiplier per constraint.
        """
        values = self.at(x, params).hessian_values(self.multipliers(lam), _weight(sigma))
        structure = self.hessian_structure
        return structure.to_dense(values) if dense else structure.to_csc(values)

    def lagrangian_hvp(
        self, x: Any, lam: Any = None, v: Any = None, sigma: float = 1.0, params: Any = None
    ) -> np.ndarray:
        """The Hessian of `lagrangian_hessian` times v, without the Hessian; several v at one point share their work."""
        direction = self.variables.vector(v, "v")
        at = self.at(x, params)
        with np.errstate(all="ignore"):
            return self.evaluation.hvp(at, self.multipliers(lam), _weight(sigma), direction)

    def check(self, x: Any = None, params: Any = None, *, seed: int = 0, rtol: float = 1e-8) -> None:
        """Compare the sparse matrices along a random direction with products that are computed without them.

        A nonzero that a structure misses, or a value in the wrong place, changes a random product almost surely.

        Args:
            x: the point; a random one beside x0 by default.
            params: other parameters than the problem's.
            seed: of the random direction and multipliers.
            rtol: how far apart the products may be, relative to their largest element.

        Raises:
            WrongStructureError: they differ.
        """
        generator = np.random.default_rng(seed)
        point = self.x0 + 1e-3 * generator.normal(size=self.size) if x is None else self.variables.vector(x)
        v, lam = generator.normal(size=self.size), generator.normal(size=self.count)
        at = self.at(point, params)
        values = at.hessian_values(lam, 0.5)
        product = self.hessian_structure.matvec(values, v)
        _require_same("Hessian", product, self.lagrangian_hvp(point, lam, v, 0.5, params), rtol)
        if self.count:
            product = self.jacobian_structure.matvec(at.jacobian_values, v)
            _require_same("Jacobian", product, self.evaluation.jacobian_product(at, v), rtol)

    @cached_property
    def jacobian_structure(self) -> DerivativeStructure:
        """Places of the Jacobian's nonzeros; `values(x, params=None, out=None)`."""
        plan = self.evaluation.jacobian_plan
        return DerivativeStructure(plan.structure, plan.choice, self._jacobian_values, plan.explained)

    @cached_property
    def hessian_structure(self) -> DerivativeStructure:
        """Places in the Hessian's lower triangle; `values(x, lam, sigma=1.0, params=None, out=None)`."""
        plan = self.evaluation.hessian_plan
        return DerivativeStructure(plan.structure, plan.choice, self._hessian_values, plan.explained)

    def _jacobian_values(self, x: Any, params: Any = None) -> np.ndarray:
        return self.at(x, params).jacobian_values

    def _hessian_values(self, x: Any, lam: Any = None, sigma: float = 1.0, params: Any = None) -> np.ndarray:
        return self.at(x, params).hessian_values(self.multipliers(lam), _weight(sigma))

    # Between trees and vectors.

    def multipliers(self, lam: Any) -> np.ndarray:
        """Multipliers as a vector of `count`.

        Raises:
            ShapeError: not one multiplier per constraint.
        """
        if type(lam) is np.ndarray and lam.shape == (self.count,) and lam.dtype == np.float64:
            return lam
        if lam is None and not self.count:
            return np.zeros(0)
        leaves = [] if lam is None else [lam]
        if lam is not None and not _is_vector(lam, self.count):
            leaves = tree.leaves(lam)
            shapes = [s for group in self.constraint_shapes for s in group]
            if [np.shape(leaf) for leaf in leaves] != shapes:
                leaves = []
        if not leaves:
            raise ShapeError(
                "the multipliers do not fit the constraints: one for each is needed",
                where=user_line(),
                got=f"{sum(int(np.size(v)) for v in tree.leaves(lam))} multipliers for {self.count} constraints",
                remedy="give a vector with one multiplier per constraint, or a tree like the constraints' outputs",
            )
        return np.concatenate([np.ravel(real_vector(leaf, "the multipliers")) for leaf in leaves])

    def multiplier_tree(self, lam: np.ndarray) -> Any:
        """A vector of `count` as a tree: the container of the constraints, in it trees like their outputs."""
        found, start = [], 0
        for structure, shapes in zip(self.constraint_trees, self.constraint_shapes, strict=True):
            parts = []
            for shape in shapes:
                stop = start + int(np.prod(shape))
                parts.append(lam[start:stop].reshape(shape).copy() if shape else lam[start])
                start = stop
            found.append(tree.unflatten(structure, parts))
        return tree.unflatten(self.container, found)

    def ipopt_callbacks(self) -> Any:
        """The problem's functions in the shape that cyipopt wants, for users who drive the solver themselves.

        Returns:
            An object with `objective(x)`, `gradient(x)`, `constraints(x)`, `jacobian(x)`, `jacobianstructure()`,
            `hessian(x, lagrange, obj_factor)` and `hessianstructure()`; the values in the order of the structures,
            the Hessian's lower triangle.

        Example:
            >>> import numpy as np
            >>> from functrace import optimize
            >>> calls = optimize.Problem(lambda x: np.sum(x**3), x0=[1.0, 2.0]).ipopt_callbacks()
            >>> calls.gradient(np.array([1.0, 2.0]))
            array([ 3., 12.])
        """
        return Callbacks(self)

    def __repr__(self) -> str:
        return f"Problem({self.size} variables, {self.count} constraints)"


class Callbacks:
    """See `Problem.ipopt_callbacks`."""

    def __init__(self, problem: Problem, params: Any = None) -> None:
        self._problem, self._params = problem, params

    def objective(self, x: np.ndarray) -> float:
        return self._problem.objective(x, self._params)

    def gradient(self, x: np.ndarray) -> np.ndarray:
        return self._problem.gradient(x, self._params)

    def constraints(self, x: np.ndarray) -> np.ndarray:
        return self._problem.constraints(x, self._params)

    def jacobian(self, x: np.ndarray) -> np.ndarray:
        return self._problem.jacobian_structure.values(x, params=self._params)

    def jacobianstructure(self) -> tuple[np.ndarray, np.ndarray]:
        structure = self._problem.jacobian_structure
        return structure.rows.copy(), structure.cols.copy()

    def hessian(self, x: np.ndarray, lagrange: np.ndarray, obj_factor: float) -> np.ndarray:
        return self._problem.hessian_structure.values(x, np.array(lagrange, float), obj_factor, params=self._params)

    def hessianstructure(self) -> tuple[np.ndarray, np.ndarray]:
        structure = self._problem.hessian_structure
        return structure.rows.copy(), structure.cols.copy()


def _require_same(what: str, sparse: np.ndarray, direct: np.ndarray, rtol: float) -> None:
    off = np.abs(sparse - direct)
    if np.isfinite(direct).all() and not np.max(off, initial=0.0) <= rtol * np.max(np.abs(direct), initial=1.0):
        raise WrongStructureError(
            f"the sparse {what} times a vector differs from the product computed without it",
            where=user_line(),
            got=f"{sparse[np.argmax(off)]} for {direct[np.argmax(off)]} in row {int(np.argmax(off))}",
            remedy="if a derivative is discontinuous here, check at another x; else please report this",
        )


def _as_float(value: Any) -> Any:
    value = canonicalize(value)
    return value if value.dtype == np.float64 else fnp.asarray(value, dtype=float)


def _weight(sigma: Any) -> float:
    """The weight of the objective.

    Raises:
        ShapeError: it is more than one number.
        InputError: it is no real number.
    """
    if type(sigma) is float:
        return sigma
    value = real_vector(sigma, "sigma")
    if value.size != 1:
        raise ShapeError(
            "sigma, the weight of the objective, is one number",
            where=user_line(),
            got=f"shape {value.shape}",
            remedy="give one number; multipliers of the constraints are lam",
        )
    return float(value.reshape(()))


def _is_vector(value: Any, length: int) -> bool:
    try:
        return np.shape(value) == (length,) and all(np.shape(v) == () for v in value)
    except ValueError:
        return False
