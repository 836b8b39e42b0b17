"""Hock and Schittkowski's problem 71, solved with exact first and second derivatives by IPOPT and by SciPy.

    minimise    x1 x4 (x1 + x2 + x3) + x3
    subject to  x1 x2 x3 x4 >= 25,  |x|^2 = 40,  1 <= x <= 5

First by `optimize.Problem`, which gives every solver what it asks for; then SciPy is handed each derivative by hand, to
show that a problem is nothing but these. IPOPT comes with CasADi (`pip install casadi`); without it SciPy solves alone.

Run it with `python examples/hs71.py`.
"""

import importlib.util

import numpy as np
from scipy.optimize import Bounds, NonlinearConstraint, minimize

import functrace as ft
from functrace import optimize


def objective(x):
    return x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2]


def constraints(x):
    return np.stack([np.prod(x), np.sum(x**2)])


def compare_nestings(start):
    """Solvers want the Hessian of the Lagrangian. Any nesting of the two modes gives it."""
    multipliers = np.array([-0.7, 1.3])
    H = optimize.hessian_of_lagrangian(objective, constraints)(start, multipliers, 0.5)
    print(f"Hessian of the Lagrangian at the start:\n{H}")
    for mode in ("fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev"):
        other = optimize.hessian_of_lagrangian(objective, constraints, mode)(start, multipliers, 0.5)
        print(f"  {mode}: largest difference {np.max(np.abs(other - H)):.1e}")


def solve_by_hand(start):
    """trust-constr asks for the curvature of multipliers . constraints: the Lagrangian with sigma = 0."""
    curvature = ft.jit(optimize.hessian_of_lagrangian(objective, constraints))
    return minimize(
        objective,
        start,
        method="trust-constr",
        jac=ft.jit(ft.grad(objective)),
        hess=ft.jit(ft.hessian(objective)),
        bounds=Bounds(1.0, 5.0),
        constraints=NonlinearConstraint(
            constraints,
            [25.0, 40.0],
            [np.inf, 40.0],
            jac=ft.jit(ft.jacrev(constraints)),
            hess=lambda x, v: curvature(x, v, 0.0),
        ),
        options={"initial_barrier_parameter": 1e-6},
    )


def main():
    start = np.array([1.0, 5.0, 5.0, 1.0])
    compare_nestings(start)

    problem = optimize.Problem(
        objective,
        optimize.Constraint(constraints, [25.0, 40.0], [np.inf, 40.0]),
        bounds=(1.0, 5.0),
        x0=start,
    )
    print(f"\n{problem}")
    methods = ["trust-constr", "SLSQP"]
    if importlib.util.find_spec("casadi") or importlib.util.find_spec("cyipopt"):
        methods.insert(0, "ipopt")
    else:
        print("IPOPT is not installed")
    for method in methods:
        result = optimize.minimize(problem, method)
        print(f"{method:<13} {np.round(result.x, 4)}  objective {result.fun:.7f}  iterations {result.nit}")
        print(f"{'':13} multipliers {np.round(result.multipliers, 5)}, of the bounds {result.bound_multipliers[0]:.5f}")
        assert result.success and abs(result.fun - 17.0140173) < 1e-5

    result = solve_by_hand(start)
    print("\nby hand:")
    print(f"solution    {np.round(result.x, 3)}")
    print(f"objective   {result.fun:.4f}")
    print(f"product     {np.prod(result.x):.4f}  (at least 25)")
    print(f"|x|^2       {np.sum(result.x**2):.4f}  (40)")
    print(f"iterations  {result.nit}")


if __name__ == "__main__":
    main()
