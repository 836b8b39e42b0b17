"""How values, gradients, Jacobian and Hessian of one problem are computed: programs and plans, made when needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from functrace import tree
from functrace.core.ir import ClosedJaxpr
from functrace.optimize.iterate import Iterate
from functrace.optimize.programs import FirstOrder, SecondOrder, constraints_of, lagrangian_of
from functrace.optimize.sweeps import plan_of, swept
from functrace.sparse import Choice, Pattern, Structure
from functrace.sparse._programs import FlatProgram, evaluating
from functrace.sparse.hessian import prepare_hessian
from functrace.sparse.jacobian import prepare_jacobian

__all__ = ["Evaluation"]


class Plan(NamedTuple):
    """A sparse matrix of a problem.

    Attributes:
        structure: where its nonzeros stand, of a Hessian those of the lower triangle.
        choice: how the values are computed, or what tells.
        values: (iterate), or (iterate, lam, sigma) -> the values in the order of the structure.
        explained: gives the pattern, which can tell why an entry is nonzero.
    """

    structure: Structure
    choice: Choice | Callable[[], Choice]
    values: Callable[..., np.ndarray]
    explained: Callable[[], Pattern] | None = None


class Evaluation:
    """The programs of a problem.

    Args:
        program: (x, *parameters) -> objective, constraints.
        count: number of constraints.
    """

    def __init__(self, program: ClosedJaxpr, count: int) -> None:
        self.program, self.count = program, count
        self._guarded: Callable[..., np.ndarray] | None = None

    @cached_property
    def first(self) -> Any:
        return FirstOrder(self.program)

    @cached_property
    def lagrangian(self) -> ClosedJaxpr:
        return lagrangian_of(self.program)

    @cached_property
    def guarded_lagrangian(self) -> ClosedJaxpr:
        return lagrangian_of(self.program, guarded=True)

    @cached_property
    def second(self) -> Any:
        return SecondOrder(self.lagrangian)

    @cached_property
    def guarded(self) -> Any:
        """The second order with terms of weight zero taken out."""
        return SecondOrder(self.guarded_lagrangian)

    @cached_property
    def jacobian_plan(self) -> Plan:
        with evaluating():
            prepared = prepare_jacobian(_flat(constraints_of(self.program)))
        structure = prepared.structure
        run = None
        if prepared.coloring is not None:
            run = swept(self.first.constraints, plan_of(structure, prepared.coloring))
        if run is not None:
            return Plan(structure, lambda: prepared.choice, lambda at: run(*at.first[2:]), lambda: prepared.pattern)
        values = prepared.values
        return Plan(structure, lambda: prepared.choice, lambda at: values(at.x, *at.params), lambda: prepared.pattern)

    @cached_property
    def hessian_plan(self) -> Plan:
        with evaluating():
            prepared = prepare_hessian(_flat(self.lagrangian))
        structure = prepared.structure
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

        return Plan(structure, lambda: prepared.choice, values, lambda: prepared.pattern)

    def _guarded_values(self, structure: Structure) -> Callable[..., np.ndarray]:
        """The values of the same structure with terms of weight zero taken out."""
        if self._guarded is None:
            with evaluating():
                found = prepare_hessian(_flat(self.guarded_lagrangian), "coloring", pattern=structure)
            self._guarded = found.values
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


def _flat(program: ClosedJaxpr) -> FlatProgram:
    """A program of vectors and parameters, to be differentiated by the first of them."""
    return FlatProgram(program, tree.structure(tuple(program.in_avals)), 1)


def needs_guard(values: np.ndarray, lam: np.ndarray, sigma: float) -> bool:
    """Whether an infinity times a weight of zero may have spoilt the values."""
    return not np.isfinite(values).all() and (sigma == 0 or bool((lam == 0).any()))
