"""Constrained optimisation with exact sparse derivatives: problems, the Lagrangian, solvers and sensitivities."""

from functrace.optimize.constraints import Constraint
from functrace.optimize.lagrangian import hessian_of_lagrangian, lagrangian
from functrace.optimize.minimize import minimize
from functrace.optimize.problem import Problem
from functrace.optimize.sensitivity import Sensitivity, argmin, solution_sensitivity

__all__ = [
    "Constraint",
    "Problem",
    "Sensitivity",
    "argmin",
    "hessian_of_lagrangian",
    "lagrangian",
    "minimize",
    "solution_sensitivity",
]
