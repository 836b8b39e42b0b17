"""The saddle point of a function, by gradient descent in which every step contains another gradient descent.

    min over x  max over y  of  |x|^2 - |y|^2,  x and y in the plane

The gradient in x goes through the whole search for the best y: its loop, its branches and its own gradients. This is
the first of the two programs by which Siskind and Pearlmutter (2008) measure nested differentiation. Each of the two
gradients may be taken in either mode. Run it with `python examples/saddle_point.py`.
"""

import itertools
import time

import numpy as np

import functrace as ft

GRADIENT = {"forward": ft.jacfwd, "reverse": ft.grad}


def argmin(f, x, gradient, rate=1e-2, tolerance=1e-8):
    """Gradient descent that doubles its rate after ten good steps and halves it after a bad one."""
    derivative = gradient(f)
    value, slope = f(x), derivative(x)
    good = 0
    while np.linalg.norm(slope) > tolerance:
        if good == 10:
            rate, good = 2.0 * rate, 0
        following = x - rate * slope
        if np.linalg.norm(following - x) <= tolerance:
            return following
        next_value = f(following)
        if next_value < value:
            x, value, slope, good = following, next_value, derivative(following), good + 1
        else:
            rate, good = rate / 2.0, 0
    return x


def argmax(f, x, gradient):
    return argmin(lambda x: -f(x), x, gradient)


def payoff(x, y):
    return np.sum(x**2) - np.sum(y**2)


def coupled(x, y):
    """A game in which the best y depends on x; its saddle point solves a linear system."""
    return payoff(x, y) + x @ np.array([[0.5, -0.3], [0.2, 0.4]]) @ y + np.array([0.3, -0.2]) @ x


def saddle(f, outer, inner):
    start = np.array([1.0, 1.0])

    def worst(x):
        return f(x, argmax(lambda y: f(x, y), start, inner))

    x = argmin(worst, start, outer)
    return np.concatenate([x, argmax(lambda y: f(x, y), start, outer)])


def main():
    M, b = np.array([[0.5, -0.3], [0.2, 0.4]]), np.array([0.3, -0.2])
    stationary = np.block([[2.0 * np.eye(2), M], [M.T, -2.0 * np.eye(2)]])
    exact = {payoff: np.zeros(4), coupled: -np.linalg.solve(stationary, np.concatenate([b, np.zeros(2)]))}
    for f, solution in exact.items():
        print(f"{f.__name__}: the saddle point is {np.round(solution, 9) + 0.0}")
        points = []
        for outer, inner in itertools.product(GRADIENT, repeat=2):
            start = time.perf_counter()
            points.append(saddle(f, GRADIENT[outer], GRADIENT[inner]))
            seconds = time.perf_counter() - start
            error = np.max(np.abs(points[-1] - solution))
            print(f"  {outer} over {inner}: error {error:.1e}   {seconds:5.2f} s")
            assert error < 1e-7
        spread = np.max(np.ptp(points, axis=0))
        print(f"  largest difference between the four nestings: {spread:.1e}")
        assert spread < 1e-9


if __name__ == "__main__":
    main()
