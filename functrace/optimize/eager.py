"""The programs of a problem whose functions cannot be traced once for all: linearised anew at every iterate.

For functions with Python control flow on values. Their patterns can change with the values, so derivatives are dense.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from functrace import numpy as fnp
from functrace.optimize.evaluation import Evaluation, Plan
from functrace.optimize.iterate import Iterate
from functrace.optimize.lagrangian import weighted
from functrace.sparse import Choice, Structure
from functrace.transforms import grad, jvp, linearize, vjp, vmap

__all__ = ["EagerEvaluation"]


class _Objective:
    @staticmethod
    def pull(pullback: Callable[..., Any], bar: Any) -> Any:
        return pullback([bar, None])[0]


class _Constraints:
    @staticmethod
    def sweep(seeds: np.ndarray, places: np.ndarray) -> Callable[..., Any]:
        def products(pullback: Callable[..., Any]) -> Any:
            if not len(places):
                return np.zeros(0)
            return fnp.ravel(vmap(lambda bar: pullback([None, bar])[0])(seeds))[places]

        return products


class _Hessian:
    @staticmethod
    def push(pushforward: Callable[..., Any], v: Any) -> Any:
        return pushforward(v)

    @staticmethod
    def sweep(seeds: np.ndarray, places: np.ndarray) -> Callable[..., Any]:
        return lambda pushforward: fnp.ravel(vmap(pushforward)(seeds))[places]


class _First:
    """As `programs.FirstOrder`, its one residual the pullback."""

    objective, constraints = _Objective, _Constraints

    def __init__(self, both: Callable[..., Any]) -> None:
        self.both = both

    def values(self, x: Any, *params: Any) -> list[Any]:
        (value, constraints), pullback = vjp(lambda x: self.both(x, *params), x)
        return [value, constraints, pullback]


class _Second:
    """As `programs.SecondOrder`, its one residual the pushforward."""

    hessian = _Hessian

    def __init__(self, both: Callable[..., Any]) -> None:
        self.both = both

    def values(self, x: Any, lam: Any, sigma: Any, *params: Any) -> list[Any]:
        def lagrangian(x: Any) -> Any:
            value, constraints = self.both(x, *params)
            return weighted(value, constraints, lam, sigma)

        return [*linearize(grad(lagrangian), x)]


class EagerEvaluation(Evaluation):
    """The programs of a problem, run by tracing each time.

    Args:
        both: function of (x, *parameters) that gives [objective, constraints].
        size, count: numbers of variables and of constraints.
    """

    def __init__(self, both: Callable[..., Any], size: int, count: int) -> None:
        self.both, self.size, self.count = both, size, count

    def jacobian_product(self, at: Iterate, v: np.ndarray) -> np.ndarray:
        return jvp(lambda x: self.both(x, *at.params)[1], (at.x,), (v,))[1]

    @cached_property
    def first(self) -> Any:
        return _First(self.both)

    @cached_property
    def second(self) -> Any:
        return _Second(self.both)

    @cached_property
    def guarded(self) -> Any:
        return self.second

    @cached_property
    def jacobian_plan(self) -> Plan:
        structure = Structure(np.ones((self.count, self.size)))
        places = structure.rows * self.size + structure.cols
        products = self.first.constraints.sweep(np.eye(self.count), places)
        choice = Choice("rows", self.count, float(self.count), "the function is traced at every point")
        return Plan(structure, choice, lambda at: products(*at.first[2:]))

    @cached_property
    def hessian_plan(self) -> Plan:
        structure = Structure(np.ones((self.size, self.size)), symmetric=True)
        places = structure.cols * self.size + structure.rows
        products = self.second.hessian.sweep(np.eye(self.size), places)
        choice = Choice("columns", self.size, 3.0 * self.size, "the function is traced at every point")
        return Plan(structure, choice, lambda at, lam, sigma: products(*at.second(lam, sigma)[1:]))
