"""What a problem is made of: constraint functions, and bounds brought to the shape of what they bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from functrace import numpy as fnp
from functrace import tree
from functrace.errors import ArgumentError, InputError, ShapeError
from functrace.util import user_line

__all__ = ["Constraint", "as_constraints", "bounds_of_variables", "spread_bounds"]


@dataclass(frozen=True)
class Constraint:
    """lower <= fun(x) <= upper, element by element; equal bounds make an equation.

    Args:
        fun: `fun(x)`, or `fun(x, params)` in a problem with parameters, giving an array or a pytree of arrays.
        lower: numbers, or arrays that broadcast to the output; a pytree of them for a pytree output. None: no bound.
        upper: likewise.

    Example:
        >>> import numpy as np
        >>> from functrace import optimize
        >>> sphere = optimize.Constraint(lambda x: np.sum(x**2), 40.0, 40.0)
        >>> product = optimize.Constraint(np.prod, lower=25.0)
        >>> product.upper
        inf
    """

    fun: Callable[..., Any]
    lower: Any = -np.inf
    upper: Any = np.inf

    def __post_init__(self) -> None:
        if not callable(self.fun):
            raise InputError(
                "a constraint needs a function",
                where=user_line(),
                got=type(self.fun).__name__,
                remedy="write Constraint(c, lower, upper) with the function c itself, not its value",
            )


def _is_constraint(node: Any) -> bool:
    if isinstance(node, Mapping):
        return "fun" in node and "type" in node
    if isinstance(node, tuple) and len(node) == 3:
        return callable(node[0])
    return not isinstance(node, (list, tuple)) and node is not None


def as_constraints(constraints: Any, with_params: bool) -> tuple[list[Constraint], tree.TreeDef]:
    """The constraints in order, and the container that the user gave them in.

    Raises:
        ArgumentError: something in it is no constraint.
    """
    leaves, structure = tree.flatten(() if constraints is None else constraints, is_leaf=_is_constraint)
    return [_as_constraint(leaf, with_params) for leaf in leaves], structure


def _as_constraint(value: Any, with_params: bool) -> Constraint:
    if isinstance(value, Constraint):
        return value
    if isinstance(value, tuple):
        return Constraint(*value)
    if isinstance(value, Mapping):
        return _from_dict(value)
    if hasattr(value, "lb") and hasattr(value, "ub"):
        if hasattr(value, "A"):
            return Constraint(_linear(value.A, with_params), value.lb, value.ub)
        if callable(getattr(value, "fun", None)):
            return Constraint(value.fun, value.lb, value.ub)
    raise ArgumentError(
        "constraints must say between which bounds their function lies",
        where=user_line(),
        got=type(value).__name__,
        remedy="give Constraint(c, lower, upper), a tuple (c, lower, upper), or a list or dict of these",
    )


def _from_dict(value: Mapping[str, Any]) -> Constraint:
    """SciPy's {"type": "eq" or "ineq", "fun": c, "args": (...)}."""
    fun, args = value["fun"], tuple(value.get("args", ()))
    if value["type"] not in ("eq", "ineq"):
        raise ArgumentError(
            "the type of a constraint is unknown",
            where=user_line(),
            got=repr(value["type"]),
            remedy="use 'eq' or 'ineq'",
        )
    function = (lambda x, *rest: fun(x, *rest, *args)) if args else fun
    return Constraint(function, 0.0, 0.0 if value["type"] == "eq" else np.inf)


def _linear(matrix: Any, with_params: bool) -> Callable[..., Any]:
    """x -> matrix x, for a dense matrix or a SciPy sparse one."""
    if hasattr(matrix, "tocoo"):
        coo = matrix.tocoo()
        rows, cols, data, count = coo.row, coo.col, np.asarray(coo.data, float), coo.shape[0]

        def product(x: Any) -> Any:
            return fnp.zeros(count).at[rows].add(data * x[cols])
    else:
        dense = np.atleast_2d(np.asarray(matrix, float))

        def product(x: Any) -> Any:
            return dense @ x

    return (lambda x, params: product(x)) if with_params else product


def spread_bounds(
    lower: Any, upper: Any, structure: tree.TreeDef, shapes: list[tuple[int, ...]], what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds as vectors, one entry per element of the arrays they bound.

    Args:
        structure, shapes: the pytree of what is bounded.
        what: what that is, for the messages.

    Raises:
        ShapeError: a bound has another structure or shape.
        ArgumentError: a bound is NaN, a lower one is above its upper one, or infinite on the wrong side.
    """
    low = _spread(lower, -np.inf, structure, shapes, f"lower bounds of {what}")
    high = _spread(upper, np.inf, structure, shapes, f"upper bounds of {what}")
    for problem, bad in (
        ("must not be NaN", np.isnan(low) | np.isnan(high)),
        ("are inconsistent: a lower one is above its upper one", low > high),
        ("are inconsistent: nothing lies above infinity or below minus infinity", (low == np.inf) | (high == -np.inf)),
    ):
        if bad.any():
            first = int(np.argmax(bad))
            raise ArgumentError(
                f"bounds of {what} {problem}",
                where=user_line(),
                got=f"{low[first]} and {high[first]} for element {first}"
                + (f", and {int(bad.sum()) - 1} more" if bad.sum() > 1 else ""),
                remedy="give lower <= upper; -inf or inf, or None, where there is no bound",
            )
    return low, high


def _spread(
    bound: Any, missing: float, structure: tree.TreeDef, shapes: list[tuple[int, ...]], what: str
) -> np.ndarray:
    if not shapes:
        return np.zeros(0)
    # A list of numbers is an array, as it is to NumPy.
    values = [bound] * len(shapes) if np.isscalar(bound) or bound is None else _matched(bound, structure, what)
    parts = []
    for value, shape in zip(values, shapes, strict=True):
        array = np.asarray(missing if value is None else value)
        if array.dtype == object:  # numbers, with None for no bound
            array = np.array([missing if v is None else v for v in array.ravel()]).reshape(array.shape)
        if array.dtype.kind not in "fiub":
            raise ArgumentError(
                f"{what} must be real numbers",
                where=user_line(),
                got=repr(value),
                remedy="give floats; None or inf where there is no bound",
            )
        try:
            parts.append(np.broadcast_to(array.astype(float), shape).ravel())
        except ValueError:
            raise ShapeError(
                f"{what} do not have their shape",
                where=user_line(),
                got=f"shape {array.shape} for {shape}",
                remedy="give numbers, or arrays that broadcast to it",
            ) from None
    return np.concatenate(parts)


def _matched(bound: Any, structure: tree.TreeDef, what: str) -> list[Any]:
    try:
        return structure.flatten_up_to(bound)
    except ValueError as mismatch:
        raise ShapeError(
            f"{what} have another structure than these",
            where=user_line(),
            got=str(mismatch).splitlines()[0],
            remedy="give a number, or a tree with one array or number for each of theirs",
        ) from None


def bounds_of_variables(
    bounds: Any, structure: tree.TreeDef, shapes: list[tuple[int, ...]]
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the variables as vectors, from any of the forms that `Problem` takes.

    Raises:
        ArgumentError, ShapeError: as `spread_bounds`, or none of the forms.
    """
    what = "the variables"
    if bounds is None:
        return spread_bounds(None, None, structure, shapes, what)
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        return spread_bounds(bounds.lb, bounds.ub, structure, shapes, what)
    if isinstance(bounds, tuple) and len(bounds) == 2:
        return spread_bounds(bounds[0], bounds[1], structure, shapes, what)
    size = sum(int(np.prod(s)) for s in shapes)
    if (
        isinstance(bounds, (list, tuple, np.ndarray))
        and np.ndim(bounds)
        and all(np.shape(pair) == (2,) for pair in bounds)
    ):
        if len(bounds) != size:
            raise ShapeError(
                "a list of bounds needs one pair per variable",
                where=user_line(),
                got=f"{len(bounds)} pairs for {size} variables",
                remedy="give (lower, upper) as a tuple to bound them all alike",
            )
        vector = tree.structure(0)
        return spread_bounds([p[0] for p in bounds], [p[1] for p in bounds], vector, [(size,)], what)
    raise ArgumentError(
        "bounds are none of the forms that a problem takes",
        where=user_line(),
        got=type(bounds).__name__,
        remedy="give a tuple (lower, upper), scipy.optimize.Bounds, or a list with one pair per variable",
    )
