"""The sections of the demonstration: each states a problem, differentiates it and checks every number it prints."""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.demo import problems
from functrace.demo.measure import measure
from functrace.demo.report import Report
from functrace.transforms import grad, hessian, jacfwd, jacrev, jvp, make_jaxpr, vjp

__all__ = ["hock_schittkowski", "next_steps", "textbook_function", "wine_network"]

_NESTINGS = {
    "fwd-rev": "forward over reverse",
    "rev-fwd": "reverse over forward",
    "fwd-fwd": "forward over forward",
    "rev-rev": "reverse over reverse",
}


def textbook_function(report: Report) -> None:
    """Program, value, forward derivative and reverse gradient of the textbook function."""
    report.heading("1. A textbook function", "f(x1, x2) = ln x1 + x1 x2 - sin x2  at (2, 5)")
    report.paragraph(f"As a program (its jaxpr):\n{make_jaxpr(problems.textbook)(2.0, 5.0)}")

    value, derivative = jvp(problems.textbook, (2.0, 5.0), (1.0, 0.0))
    same_value, pullback = vjp(problems.textbook, 2.0, 5.0)
    gradient = pullback(1.0)
    report.table(
        [
            ("value", f"{value:.3f}"),
            ("forward mode, along x1", f"{derivative:.3f}"),
            ("reverse mode, gradient", f"({gradient[0]:.3f}, {gradient[1]:.3f})"),
        ]
    )
    expected = np.log(2.0) + 10.0 - np.sin(5.0)
    report.check("both modes give the value ln 2 + 10 - sin 5", (value, same_value), expected, 1e-14)
    report.check("the gradient is (1/x1 + x2, x1 - cos x2)", gradient, (5.5, 2.0 - np.cos(5.0)), 1e-14)
    report.check("the forward derivative is its first component", derivative, gradient[0], 1e-14)


def wine_network(report: Report, hidden: int = 16) -> None:
    """The gradient of a two-layer network by both modes: result, time and memory."""
    W1, W2, X, y = problems.network(hidden)
    report.heading(
        "2. A two-layer network on real data",
        f"loss(W1) = sum((W2 tanh(W1 X) - y)^2) / {X.shape[1]}\n"
        f"X: {X.shape[0]} standardised measurements of {X.shape[1]} wines, y: their cultivar,\n"
        f"W1: {hidden} by {X.shape[0]}, W2: 1 by {hidden}",
    )

    def loss(W1: Any) -> Any:
        return problems.network_loss(W1, W2, X, y)

    by_forward, by_reverse = jacfwd(loss), grad(loss)
    forward, reverse = measure([lambda: by_forward(W1), lambda: by_reverse(W1)])
    rows = [("gradient in W1", "sweeps", "time", "peak memory")]
    for name, sweeps, taken in (
        ("forward mode (jacfwd)", f"{W1.size} in one batch", forward),
        ("reverse mode (grad)", "1", reverse),
    ):
        rows.append((name, sweeps, f"{taken.seconds * 1e3:.2f} ms", f"{taken.peak_bytes / 1e6:.2f} MB"))
    report.table(rows, head=True)

    hidden_values = np.tanh(W1 @ X)
    residual = W2 @ hidden_values - y
    closed_form = (2.0 / X.shape[1]) * (W2.T * residual * (1.0 - hidden_values**2)) @ X.T
    report.check("forward mode equals reverse mode", forward.result, reverse.result, 1e-10)
    report.check("both equal the gradient by hand", (forward.result, reverse.result), closed_form, 1e-10)


def hock_schittkowski(report: Report) -> None:
    """The Hessian of a Lagrangian in all four nestings, and the problem solved with it."""
    report.heading(
        "3. Constrained optimisation: Hock and Schittkowski's problem 71",
        "minimise    f(x) = x1 x4 (x1 + x2 + x3) + x3\nsubject to  x1 x2 x3 x4 >= 25,  |x|^2 = 40,  1 <= x <= 5",
    )
    _lagrangian_hessians(report)
    _solve(report)


def _lagrangian_hessians(report: Report) -> None:
    x, sigma, multipliers = problems.HS71_START, 0.5, np.array([-0.7, 1.3])
    expected = problems.hs71_lagrangian_hessian(x, sigma, multipliers)
    found = {mode: hessian(problems.hs71_lagrangian, mode=mode)(x, sigma, multipliers) for mode in _NESTINGS}
    report.paragraph(
        "Hessian of the Lagrangian  sigma f + lambda . c  at x = (1, 5, 5, 1),\n"
        f"sigma = {sigma}, lambda = ({multipliers[0]}, {multipliers[1]}):\n"
        + np.array2string(found["fwd-rev"], precision=3, suppress_small=True)
    )
    for mode, name in _NESTINGS.items():
        report.check(f"{name} equals the closed form", found[mode], expected, 1e-12)
    report.line()


def _solve(report: Report) -> None:
    from scipy import optimize

    def curvature(x: np.ndarray, multipliers: np.ndarray) -> np.ndarray:
        return hessian(problems.hs71_lagrangian)(x, 0.0, multipliers)

    found = optimize.minimize(
        problems.hs71_objective,
        problems.HS71_START,
        method="trust-constr",
        jac=grad(problems.hs71_objective),
        hess=hessian(problems.hs71_objective),
        bounds=optimize.Bounds(1.0, 5.0),
        constraints=optimize.NonlinearConstraint(
            problems.hs71_constraints,
            *problems.HS71_CONSTRAINT_BOUNDS,
            jac=jacrev(problems.hs71_constraints),
            hess=curvature,
        ),
        # The solver may stop as soon as stationarity holds, with the barrier where it is then: begin with a low one.
        options={"initial_barrier_parameter": 1e-6},
    )
    report.paragraph("Solved by SciPy's trust-constr with these gradients, Jacobians and Hessians:")
    kkt_residual = _kkt_residual(found)
    report.table(
        [
            ("solution", "(" + ", ".join(f"{v:.3f}" for v in found.x) + ")"),
            ("objective", f"{found.fun:.4f}"),
            ("iterations", str(found.nit)),
            ("KKT residual", f"{kkt_residual:.1e}"),
        ]
    )
    report.check("the solution is the published one", found.x, problems.HS71_SOLUTION, 1e-5)
    report.check("the Karush-Kuhn-Tucker conditions hold", kkt_residual, 0.0, 1e-6)


def _kkt_residual(found: Any) -> float:
    """The largest violation of stationarity, of a constraint, or of complementarity, with the solver's multipliers."""
    x = found.x
    multipliers, bound_multipliers = found.v
    lower, upper = problems.HS71_CONSTRAINT_BOUNDS
    values = problems.hs71_constraints(x)
    stationarity = grad(problems.hs71_lagrangian)(x, 1.0, multipliers) + bound_multipliers
    violation = np.maximum(np.maximum(lower - values, values - upper), 0.0)
    outside = np.maximum(np.maximum(1.0 - x, x - 5.0), 0.0)
    # A multiplier may differ from zero only where its constraint or bound is active.
    slack = np.minimum(values - lower, upper - values)
    complementarity = multipliers * np.where(lower == upper, 0.0, slack)
    bound_complementarity = bound_multipliers * np.minimum(x - 1.0, 5.0 - x)
    parts = [stationarity, violation, outside, complementarity, bound_complementarity]
    return float(max(np.max(np.abs(part)) for part in parts))


def next_steps(report: Report) -> None:
    """Where to go from here."""
    report.line()
    report.line("Next: the tour in README.md, and examples/ (textbook.py, wine_network.py, hs71.py ...).")
