"""The problems of the demonstration, in plain NumPy: none of them knows that it will be differentiated."""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.datasets import load_wine

__all__ = [
    "HS71_CONSTRAINT_BOUNDS",
    "HS71_SOLUTION",
    "HS71_START",
    "hs71_constraints",
    "hs71_lagrangian",
    "hs71_lagrangian_hessian",
    "hs71_objective",
    "network",
    "network_loss",
    "textbook",
]


def textbook(x1: Any, x2: Any) -> Any:
    """The function that textbooks trace by hand: ln x1 + x1 x2 - sin x2."""
    return np.log(x1) + x1 * x2 - np.sin(x2)


def network(hidden: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A two-layer network for the Wine data.

    Returns:
        `(W1, W2, X, y)`: seeded weights, the standardised measurements (13 by 178), and the cultivar as -1, 0 or 1.
    """
    rng = np.random.default_rng(13 * hidden)
    features, cultivar = load_wine()
    X = (features - features.mean(axis=1, keepdims=True)) / features.std(axis=1, keepdims=True)
    W1 = rng.normal(size=(hidden, 13)) / np.sqrt(13)
    W2 = rng.normal(size=(1, hidden)) / np.sqrt(hidden)
    return W1, W2, X, cultivar[None, :] - 2.0


def network_loss(W1: Any, W2: Any, X: Any, y: Any) -> Any:
    """The mean squared error of a two-layer network."""
    return np.sum((W2 @ np.tanh(W1 @ X) - y) ** 2) / X.shape[1]


# Problem 71 of W. Hock and K. Schittkowski, Test Examples for Nonlinear Programming Codes, Springer (1981):
# minimise x1 x4 (x1 + x2 + x3) + x3 subject to x1 x2 x3 x4 >= 25, |x|^2 = 40 and 1 <= x <= 5.

HS71_START = np.array([1.0, 5.0, 5.0, 1.0])
HS71_CONSTRAINT_BOUNDS = np.array([25.0, 40.0]), np.array([np.inf, 40.0])
HS71_SOLUTION = np.array([1.0, 4.74299963, 3.82114998, 1.37940829])


def hs71_objective(x: Any) -> Any:
    """Objective of problem 71."""
    return x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2]


def hs71_constraints(x: Any) -> Any:
    """Constraint functions of problem 71: the product and the sum of squares."""
    return np.stack([np.prod(x), np.sum(x**2)])


def hs71_lagrangian(x: Any, sigma: Any, multipliers: Any) -> Any:
    """sigma f + lambda . c, as interior-point solvers ask for it."""
    return sigma * hs71_objective(x) + multipliers @ hs71_constraints(x)


def hs71_lagrangian_hessian(x: np.ndarray, sigma: float, multipliers: np.ndarray) -> np.ndarray:
    """The Hessian of the Lagrangian in x, by hand."""
    x1, x2, x3, x4 = x
    objective = np.array(
        [
            [2 * x4, x4, x4, 2 * x1 + x2 + x3],
            [x4, 0, 0, x1],
            [x4, 0, 0, x1],
            [2 * x1 + x2 + x3, x1, x1, 0],
        ]
    )
    product = np.array(
        [
            [0, x3 * x4, x2 * x4, x2 * x3],
            [x3 * x4, 0, x1 * x4, x1 * x3],
            [x2 * x4, x1 * x4, 0, x1 * x2],
            [x2 * x3, x1 * x3, x1 * x2, 0],
        ]
    )
    return sigma * objective + multipliers[0] * product + multipliers[1] * 2 * np.eye(4)
