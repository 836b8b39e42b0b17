"""How values, gradients, Jacobian and Hessian of one problem are computed: programs and plans, made when needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from functrace.core.types import ShapedArray
from functrace.optimize.iterate import Iterate
from functrace.optimize.programs import Both, FirstOrder, SecondOrder, lagrangian_of, weights
from functrace.optimize.sweeps import plan_of, swept
from functrace.sparse import Choice, Structure, hessian, jacobian

__all__ = ["Evaluation"]


class Plan(NamedTuple):
    """A sparse matrix of a problem.

    Attributes:
        structure: where its nonzeros stand, of a Hessian those of the lower triangle.
        choice: how the values are computed.
        values: (iterate), or (iterate, lam, sigma) -> the values in the order of the structure.
    """

    structure: Structure
    choice: Choice
    values: Callable[..., np.ndarray]


class Evaluation:
    """The programs of a problem.

    Args:
        both: function of (x, *parameters) that gives [objective, constraints].
        avals: the types of these arguments.
        count: number of constraints.
    """

    def __init__(self, both: Both, avals: Sequence[ShapedArray], count: int) -> None:
        self.both, self.avals, self.count = both, avals, count
        self.size = avals[0].size
        #: Of (x, lam, sigma, *parameters).
        self.types = [avals[0], *weights(count), *avals[1:]]
        self._guarded: Callable[..., np.ndarray] | None = None

    @cached_property
    def first(self) -> Any:
        return FirstOrder(self.both, self.avals)

    @cached_property
    def second(self) -> Any:
        return SecondOrder(self.both, self.avals, self.count)

    @cached_property
    def guarded(self) -> Any:
        """The second order with terms of weight zero taken out."""
        return SecondOrder(self.both, self.avals, self.count, guarded=True)

    @cached_property
    def jacobian_plan(self) -> Plan:
        prepared = jacobian(lambda *values: self.both(*values)[1]).prepare(*self.avals)
        structure, choice = prepared.structure, prepared.choice
        run = None
        if prepared.coloring is not None:
            run = swept(self.first.constraints, plan_of(structure, prepared.coloring))
        if run is not None:
            return Plan(structure, choice, lambda at: run(*at.first[2:]))
        return Plan(structure, choice, lambda at: prepared.values(at.x, *at.params))

    @cached_property
    def hessian_plan(self) -> Plan:
        prepared = hessian(lagrangian_of(self.both)).prepare(*self.types)
        structure, choice = prepared.structure, prepared.choice
        run = None
        if prepared.coloring is not None:
            run = swept(self.second.hessian, plan_of(structure, prepared.coloring))

        def values(at: Iterate, lam: np.ndarray, sigma: float) -> np.ndarray:
            if run is not None:
                found = run(*at.second(lam, sigma)[1:])
            else:
                found = prepared.values(at.x, lam, np.float64(sigma), *at.params)
            if needs_guard(found, lam, sigma):
                found = self._guarded_values(structure)(at.x, lam, np.float64(sigma), *at.params)
            return found

        return Plan(structure, choice, values)

    def _guarded_values(self, structure: Structure) -> Callable[..., np.ndarray]:
        """The values of the same structure with terms of weight zero taken out."""
        if self._guarded is None:
            function = lagrangian_of(self.both, guarded=True)
            self._guarded = hessian(function, method="coloring", pattern=structure).prepare(*self.types).values
        return self._guarded

    def jacobian(self, at: Iterate) -> np.ndarray:
        return self.jacobian_plan.values(at)

    def hessian(self, at: Iterate, lam: np.ndarray, sigma: float) -> np.ndarray:
        return self.hessian_plan.values(at, lam, sigma)

    def jacobian_product(self, at: Iterate, v: np.ndarray) -> np.ndarray:
        """The Jacobian times a vector, computed without the Jacobian."""
        return self.first.constraints.push(*at.first[2:], v)

    def gradient_of_lagrangian(self, at: Iterate, lam: np.ndarray, sigma: float) -> np.ndarray:
        values = at.second(lam, sigma)[0]
        if needs_guard(values, lam, sigma):
            values = self.guarded.values(at.x, lam, np.float64(sigma), *at.params)[0]
        return values

    def hvp(self, at: Iterate, lam: np.ndarray, sigma: float, v: np.ndarray) -> np.ndarray:
        values = self.second.hessian.push(*at.second(lam, sigma)[1:], v)
        if needs_guard(values, lam, sigma):
            residuals = self.guarded.values(at.x, lam, np.float64(sigma), *at.params)[1:]
            values = self.guarded.hessian.push(*residuals, v)
        return values


def needs_guard(values: np.ndarray, lam: np.ndarray, sigma: float) -> bool:
    """Whether an infinity times a weight of zero may have spoilt the values."""
    return not np.isfinite(values).all() and (sigma == 0 or bool((lam == 0).any()))
