"""The Lagrangian `sigma f(x) + lam . c(x)` and its Hessian as plain functions, to be transformed like any other."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from functrace import numpy as fnp
from functrace import tree
from functrace.core.types import aval_of, canonicalize
from functrace.errors import NonScalarOutputError, ShapeError
from functrace.transforms import hessian
from functrace.transforms._flatten import check_callable
from functrace.util import user_line

__all__ = ["hessian_of_lagrangian", "lagrangian", "weighted"]


def lagrangian(f: Callable[..., Any], c: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """The Lagrangian function of an objective and its constraints.

    A weight that is zero takes its function out altogether: infinite or undefined derivatives of `f` where sigma = 0,
    or of an element of `c` whose multiplier is 0, do not reach the result in any nesting of the modes.

    Args:
        f: scalar objective, `f(x, *args)`, of an array or pytree.
        c: constraints, `c(x, *args)`, an array or pytree of arrays; None for none.

    Returns:
        `L(x, lam, sigma=1.0, *args)`: sigma times the objective plus the sum of multipliers times constraints. `lam`
        has the structure and shapes of the constraints, or is one vector of them all; None or () without constraints.

    Raises:
        NonScalarOutputError: the objective is not a scalar (when called).
        ShapeError: the multipliers do not fit the constraints (when called).

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> from functrace import optimize
        >>> L = optimize.lagrangian(lambda x: x[0] * x[1], lambda x: np.sum(x**2, keepdims=True))
        >>> functrace.grad(L)(np.array([1.0, 2.0]), np.array([0.5]))
        array([3., 3.])
    """
    check_callable(f, "lagrangian")
    if c is not None:
        check_callable(c, "lagrangian")

    def lagrangian_function(x: Any, lam: Any = (), sigma: Any = 1.0, *args: Any) -> Any:
        values = () if c is None else c(x, *args)
        return weighted(f(x, *args), values, lam, sigma)

    return lagrangian_function


def weighted(value: Any, constraints: Any, lam: Any, sigma: Any) -> Any:
    """sigma value + lam . constraints, without the terms of weight zero."""
    value = canonicalize(value)
    if value.shape != ():
        raise NonScalarOutputError(
            "the objective of a Lagrangian must be a scalar",
            where=user_line(),
            got=str(aval_of(value)),
            remedy="reduce it, for instance with .sum(), or weigh several objectives",
        )
    sigma = canonicalize(sigma)
    total = sigma * fnp.where(sigma != 0, value, 0.0)
    leaves, structure = tree.flatten(constraints)
    for weight, leaf in zip(_multipliers(lam, leaves, structure), leaves, strict=True):
        total = total + fnp.sum(weight * fnp.where(weight != 0, leaf, 0.0))
    return total


def _multipliers(lam: Any, leaves: list[Any], structure: tree.TreeDef) -> list[Any]:
    """One array of multipliers per array of constraints, of its shape."""
    shapes = [np.shape(leaf) for leaf in leaves]
    found = [] if lam is None else tree.leaves(lam)
    if len(found) == 1 and np.shape(found[0]) == (total := sum(int(np.prod(s)) for s in shapes),):
        ends = np.cumsum([0, *(int(np.prod(s)) for s in shapes)]).tolist()
        vector = canonicalize(found[0])
        if len(shapes) == 1 and shapes[0] == (total,):
            return [vector]
        return [fnp.reshape(vector[a:b], s) for a, b, s in zip(ends, ends[1:], shapes, strict=False)]
    if not leaves and all(np.shape(leaf) == (0,) for leaf in found):
        return []
    if [np.shape(leaf) for leaf in found] != shapes or (found and tree.structure(lam) != structure):
        raise ShapeError(
            "the multipliers do not fit the constraints",
            where=user_line(),
            got=f"multipliers {tree.structure(lam)} of shapes {[np.shape(leaf) for leaf in found]}, "
            f"constraints {structure} of shapes {shapes}",
            remedy="give one multiplier per constraint: a tree of the same arrays, or one vector of all of them",
        )
    return [canonicalize(leaf) for leaf in found]


def hessian_of_lagrangian(
    f: Callable[..., Any], c: Callable[..., Any] | None = None, mode: str = "fwd-rev"
) -> Callable[..., Any]:
    """The Hessian in x of the Lagrangian, dense, by any of the four nestings.

    Args:
        f: scalar objective, `f(x, *args)`.
        c: constraints, `c(x, *args)`, an array or pytree of arrays; None for none.
        mode: "fwd-rev" (forward over reverse, the cheapest), "rev-fwd", "fwd-fwd" or "rev-rev", the outer mode first.

    Returns:
        `H(x, lam, sigma=1.0, *args)`, of the shape of x twice. For a sparse one see `Problem.lagrangian_hessian`.

    Raises:
        ArgumentError: `mode` is none of the four.

    Example:
        >>> import numpy as np
        >>> from functrace import optimize
        >>> H = optimize.hessian_of_lagrangian(lambda x: x[0] * x[1], lambda x: np.sum(x**2, keepdims=True))
        >>> H(np.array([1.0, 2.0]), np.array([0.5]))
        array([[1., 1.],
               [1., 1.]])
    """
    function = hessian(lagrangian(f, c), mode=mode)

    @functools.wraps(function)
    def hessian_function(x: Any, lam: Any = (), sigma: Any = 1.0, *args: Any) -> Any:
        return function(x, lam, sigma, *args)

    return hessian_function
