"""Luksan and Vlcek's chained Rosenbrock function with trigonometric-exponential constraints: sparse at any size.

    minimise    sum of 100 (x_k^2 - x_k+1)^2 + (x_k - 1)^2
    subject to  3 b^3 + 2 c - 5 + sin(b - c) sin(b + c) + 4 b - a exp(a - b) - 3 = 0  for any three neighbours a, b, c

L. Luksan and J. Vlcek, Sparse and partially separable test problems for unconstrained and equality constrained
optimization, report 767, Academy of Sciences of the Czech Republic (1999), problem 5.1. The functions are array code;
the structure of the Jacobian and of the Hessian of the Lagrangian is read off their trace, and their values come
element by element. Nothing is ever of size n x n.

Run it with `python examples/chained_rosenbrock.py [n ...]`.
"""

import importlib.util
import sys
import time

import numpy as np

from functrace import optimize


def objective(x):
    return np.sum(100.0 * (x[:-1] ** 2 - x[1:]) ** 2 + (x[:-1] - 1.0) ** 2)


def constraints(x):
    a, b, c = x[:-2], x[1:-1], x[2:]
    return 3.0 * b**3 + 2.0 * c - 5.0 + np.sin(b - c) * np.sin(b + c) + 4.0 * b - a * np.exp(a - b) - 3.0


def make(n):
    start = np.where(np.arange(n) % 2 == 0, -1.2, 1.0)
    return optimize.Problem(objective, optimize.Constraint(constraints, 0.0, 0.0), x0=start)


def set_up(n):
    """The problem with its first derivatives, the seconds that took, and the seconds of a further Hessian."""
    begin = time.perf_counter()
    problem = make(n)
    lam = np.ones(problem.count)
    structure = problem.hessian_structure
    structure.values(problem.x0, lam)
    problem.jacobian_structure.values(problem.x0)
    first = time.perf_counter() - begin
    times = []
    for shift in range(5):
        x = problem.x0 + 1e-3 * (shift + 1)
        begin = time.perf_counter()
        structure.values(x, lam)
        times.append(time.perf_counter() - begin)
    return problem, first, float(np.median(times))


def main(sizes):
    has_ipopt = importlib.util.find_spec("casadi") or importlib.util.find_spec("cyipopt")
    for n in sizes:
        problem, first, again = set_up(n)
        print(f"n = {n}: Jacobian {problem.jacobian_structure.nnz} nonzeros, Hessian {problem.hessian_structure}")
        print(f"  first derivatives after {1e3 * first:.1f} ms, a further Hessian takes {1e3 * again:.3f} ms")
        if n <= 500 or has_ipopt:
            begin = time.perf_counter()
            result = optimize.minimize(problem, "ipopt" if has_ipopt else "trust-constr")
            took = time.perf_counter() - begin
            print(f"  {result.method}: objective {result.fun:.6f} after {result.nit} iterations in {took:.2f} s")
            print(f"  optimality {result.optimality:.1e}, violation of constraints {result.constr_violation:.1e}")
            assert result.success and result.constr_violation < 1e-7


if __name__ == "__main__":
    main([int(arg) for arg in sys.argv[1:]] or [100, 10_000])
