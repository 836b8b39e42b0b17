"""Optimal control of the Van der Pol oscillator by multiple shooting: sparse at any number of intervals.

    minimise    integral over 10 time units of  p^2 + q^2 + u^2
    subject to  p' = (1 - q^2) p - q + u,  q' = p,  starting from p = 0, q = 1,  |u| <= 1,  p >= -0.25

The states at the ends of the intervals are variables, one Runge-Kutta step of fourth order leads from each to the next,
and all steps are one array expression. So the Jacobian and the Hessian of the Lagrangian are banded, which the trace
shows and the pictures draw; their values cost about the same per interval whether there are 30 of these or 30,000.

Run it with `python examples/optimal_control.py [intervals ...]`; `--plot FILE` draws the motion and the patterns.
"""

import argparse
import importlib.util
import time

import numpy as np

from functrace import optimize

DURATION = 10.0


def rates(p, q, u):
    """Of p, q and the cost."""
    return (1.0 - q**2) * p - q + u, p, p**2 + q**2 + u**2


def step(p, q, u, h):
    """Runge-Kutta over every interval at once: the new states, and the costs."""
    k1 = rates(p, q, u)
    k2 = rates(p + 0.5 * h * k1[0], q + 0.5 * h * k1[1], u)
    k3 = rates(p + 0.5 * h * k2[0], q + 0.5 * h * k2[1], u)
    k4 = rates(p + h * k3[0], q + h * k3[1], u)
    changes = [h / 6.0 * (a + 2.0 * b + 2.0 * c + d) for a, b, c, d in zip(k1, k2, k3, k4, strict=True)]
    return p + changes[0], q + changes[1], changes[2]


def make(intervals):
    h = DURATION / intervals

    def cost(v):
        return np.sum(step(v["p"][:-1], v["q"][:-1], v["u"], h)[2])

    def gaps(v):
        p, q, _ = step(v["p"][:-1], v["q"][:-1], v["u"], h)
        return {"p": p - v["p"][1:], "q": q - v["q"][1:]}

    lower = {"p": np.full(intervals + 1, -0.25), "q": np.full(intervals + 1, -np.inf), "u": -1.0}
    upper = {"p": np.full(intervals + 1, np.inf), "q": np.full(intervals + 1, np.inf), "u": 1.0}
    for bound in (lower, upper):
        bound["p"][0], bound["q"][0] = 0.0, 1.0
    return optimize.Problem(
        cost,
        {"gaps": optimize.Constraint(gaps, 0.0, 0.0)},
        bounds=(lower, upper),
        x0={"p": np.zeros(intervals + 1), "q": np.linspace(1.0, 0.0, intervals + 1), "u": np.zeros(intervals)},
    )


def plot(problem, result, file):
    import matplotlib.pyplot as plt  # noqa: PLC0415  (for the picture only)

    figure, (motion, jacobian, hessian) = plt.subplots(1, 3, figsize=(13, 4))
    for name, values in result.x.items():
        motion.plot(np.linspace(0.0, DURATION, len(values)), values, label=name)
    motion.legend()
    motion.set_xlabel("time")
    problem.jacobian_structure.pattern.spy(jacobian)
    problem.hessian_structure.pattern.spy(hessian)
    jacobian.set_title("Jacobian of the gaps")
    hessian.set_title("Hessian of the Lagrangian")
    figure.tight_layout()
    figure.savefig(file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("intervals", nargs="*", type=int, default=[30, 300])
    parser.add_argument("--plot", metavar="FILE")
    options = parser.parse_args()
    method = "ipopt" if importlib.util.find_spec("casadi") or importlib.util.find_spec("cyipopt") else "trust-constr"
    for intervals in options.intervals:
        begin = time.perf_counter()
        problem = make(intervals)
        structure = problem.hessian_structure
        structure.values(problem.x0, np.ones(problem.count))
        print(f"{problem}: first Hessian after {1e3 * (time.perf_counter() - begin):.1f} ms")
        if intervals <= 40:
            print("Jacobian of the gaps and Hessian of the Lagrangian:")
            print(problem.jacobian_structure.pattern)
            print(structure.pattern)
        else:
            print(f"  {structure}, {structure.choice}")
        if method != "ipopt" and intervals > 100:
            continue
        begin = time.perf_counter()
        result = optimize.minimize(problem, method)
        seconds = time.perf_counter() - begin
        print(f"  {method}: cost {result.fun:.5f} after {result.nit} iterations in {seconds:.2f} s")
        v = result.x
        print(f"  ends at p = {v['p'][-1]:.4f}, q = {v['q'][-1]:.4f}; p goes down to {v['p'].min():.4f}")
        assert result.success and result.constr_violation < 1e-6
        if options.plot:
            plot(problem, result, options.plot)


if __name__ == "__main__":
    main()
