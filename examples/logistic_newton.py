"""Logistic regression by Newton's method: with the exact Hessian six steps do what takes gradient descent thousands.

The loss is written once. `optimize.Problem` traces it and gives value, gradient, Hessian and Hessian-vector products
from shared compiled programs; a Newton iteration of ten lines uses the Hessian, SciPy's Newton-CG the products. Both
are held against the classical formula (iteratively reweighted least squares), and the covariance of the weights, which
statistics reads off the inverse Hessian, comes for free.

Run it with `python examples/logistic_newton.py`.
"""

import numpy as np

from functrace import optimize, random


def make_data(count=400, features=5):
    keys = random.split(random.key(3), 3)
    X = np.concatenate([random.normal(keys[0], (count, features)), np.ones((count, 1))], axis=1)
    truth = random.normal(keys[1], (features + 1,))
    y = (random.uniform(keys[2], (count,)) < 1.0 / (1.0 + np.exp(-X @ truth))).astype(float)
    return X, y, truth


def negative_log_likelihood(w, data):
    """With a small ridge, and labels 0 and 1."""
    margins = data["X"] @ w
    return np.sum(np.logaddexp(0.0, margins) - data["y"] * margins) + 0.5 * data["ridge"] * np.sum(w**2)


def newton(problem, steps=12, tolerance=1e-10):
    w = problem.x0
    for step in range(steps):
        gradient = problem.gradient(w)
        print(f"  step {step}: loss {problem.objective(w):.10f}, gradient {np.max(np.abs(gradient)):.1e}")
        if np.max(np.abs(gradient)) < tolerance:
            break
        w = w - np.linalg.solve(problem.lagrangian_hessian(w, dense=True), gradient)
    return w


def reweighted_least_squares(X, y, ridge, steps=25):
    """The textbook's iteration, with the derivatives worked out by hand."""
    w = np.zeros(X.shape[1])
    for _ in range(steps):
        p = 1.0 / (1.0 + np.exp(-X @ w))
        hessian = X.T @ (X * (p * (1.0 - p))[:, None]) + ridge * np.eye(w.size)
        w = w - np.linalg.solve(hessian, X.T @ (p - y) + ridge * w)
    return w, hessian


def main():
    X, y, truth = make_data()
    data = {"X": X, "y": y, "ridge": 0.1}
    problem = optimize.Problem(negative_log_likelihood, x0=np.zeros(X.shape[1]), params=data)
    print("Newton's method:")
    w = newton(problem)
    expected, hessian = reweighted_least_squares(X, y, 0.1)
    print(f"off the reweighted least squares by {np.max(np.abs(w - expected)):.1e}")
    assert np.max(np.abs(w - expected)) < 1e-10

    own = problem.lagrangian_hessian(w, dense=True)
    print(f"Hessians differ by {np.max(np.abs(own - hessian)):.1e}")
    errors = np.sqrt(np.diag(np.linalg.inv(own)))
    for name, value, error, true in zip("abcde1", w, errors, truth, strict=True):
        print(f"  weight {name}: {value:7.4f} +- {error:.4f}   (truth {true:7.4f})")
    assert np.max(np.abs(w - truth) / errors) < 4.0

    result = optimize.minimize(problem, "newton-cg", options={"xtol": 1e-10})
    print(f"Newton-CG by Hessian-vector products: off by {np.max(np.abs(result.x - w)):.1e} in {result.nit} iterations")
    assert np.max(np.abs(result.x - w)) < 1e-7

    # The same program serves other data of the same shapes without being traced again.
    result = optimize.minimize(problem, "trust-exact", params={**data, "ridge": 100.0})
    shorter = np.linalg.norm(result.x) / np.linalg.norm(w)
    print(f"a thousand times the ridge shortens the weights to {shorter:.2f}")
    assert shorter < 0.7


if __name__ == "__main__":
    main()
