"""Hock and Schittkowski's problem 71, solved by SciPy with exact first and second derivatives.

    minimise    x1 x4 (x1 + x2 + x3) + x3
    subject to  x1 x2 x3 x4 >= 25,  |x|^2 = 40,  1 <= x <= 5

Run it with `python examples/hs71.py`.
"""

import numpy as np
from scipy.optimize import Bounds, NonlinearConstraint, minimize

import functrace as ft


def objective(x):
    return x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2]


def constraints(x):
    return np.stack([np.prod(x), np.sum(x**2)])


def lagrangian(x, sigma, multipliers):
    return sigma * objective(x) + multipliers @ constraints(x)


def main():
    start = np.array([1.0, 5.0, 5.0, 1.0])

    # Solvers want the Hessian of the Lagrangian. Any nesting of the two modes gives it.
    multipliers = np.array([-0.7, 1.3])
    H = ft.hessian(lagrangian)(start, 0.5, multipliers)
    print(f"Hessian of the Lagrangian at the start:\n{H}")
    for mode in ("fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev"):
        other = ft.hessian(lagrangian, mode=mode)(start, 0.5, multipliers)
        print(f"  {mode}: largest difference {np.max(np.abs(other - H)):.1e}")

    # trust-constr asks for the curvature of multipliers . constraints: the Lagrangian with sigma = 0.
    result = minimize(
        objective,
        start,
        method="trust-constr",
        jac=ft.grad(objective),
        hess=ft.hessian(objective),
        bounds=Bounds(1.0, 5.0),
        constraints=NonlinearConstraint(
            constraints,
            [25.0, 40.0],
            [np.inf, 40.0],
            jac=ft.jacrev(constraints),
            hess=lambda x, v: ft.hessian(lagrangian)(x, 0.0, v),
        ),
        options={"initial_barrier_parameter": 1e-6},
    )
    print(f"\nsolution    {np.round(result.x, 3)}")
    print(f"objective   {result.fun:.4f}")
    print(f"product     {np.prod(result.x):.4f}  (at least 25)")
    print(f"|x|^2       {np.sum(result.x**2):.4f}  (40)")
    print(f"iterations  {result.nit}")


if __name__ == "__main__":
    main()
