"""The saddle point of a function, by gradient descent in which every step contains another gradient descent.

    min over x  max over y  of  |x|^2 - |y|^2,  x and y in the plane

The gradient in x goes through the whole search for the best y: its loop, its branches and its own gradients. This is
one of the two programs by which Siskind and Pearlmutter (2008, "Using programming language theory to make automatic
differentiation sound and efficient") measure nested differentiation; either gradient may be taken in either mode.
A second function, in which the best y depends on x, has its saddle point elsewhere.

Run it with `python examples/saddle_point.py`.
"""

import itertools
import time

import numpy as np

import functrace as ft

GRADIENT = {"forward": ft.jacfwd, "reverse": ft.grad}
START = np.array([1.0, 1.0])
COUPLING = np.array([[0.5, -0.3], [0.2, 0.4]])
SLOPE = np.array([0.3, -0.2])


def separable(x, y):
    return np.sum(x**2) - np.sum(y**2)


def coupled(x, y):
    return separable(x, y) + x @ COUPLING @ y + SLOPE @ x


def coupled_saddle():
    """Where both gradients of `coupled` vanish: the solution of a linear system."""
    matrix = np.block([[2.0 * np.eye(2), COUPLING], [COUPLING.T, -2.0 * np.eye(2)]])
    return -np.linalg.solve(matrix, np.concatenate([SLOPE, np.zeros(2)]))


def argmin(f, x, gradient, rate, tolerance=1e-5):
    """Gradient descent with a rate that doubles after ten good steps and halves after a bad one."""
    slope_at = gradient(f)
    value, slope, good = f(x), slope_at(x), 0
    while np.linalg.norm(slope) > tolerance:
        if good == 10:
            rate, good = 2.0 * rate, 0
        new_x = x - rate * slope
        if np.linalg.norm(new_x - x) <= tolerance:
            break
        new_value = f(new_x)
        if new_value < value:
            x, value, slope, good = new_x, new_value, slope_at(new_x), good + 1
        else:
            rate, good = rate / 2.0, 0
    return x


def argmax(f, x, gradient, rate):
    return argmin(lambda x: -f(x), x, gradient, rate)


def saddle_point(f, outer, inner, rate=0.1):
    """The saddle point of f, with one kind of gradient around the other."""

    def best_reply(x):
        return argmax(lambda y: f(x, y), START, inner, rate)

    x = argmin(lambda x: f(x, best_reply(x)), START, outer, rate)
    return np.concatenate([x, best_reply(x)])


def main():
    for f, solution in ((separable, np.zeros(4)), (coupled, coupled_saddle())):
        print(f"{f.__name__}: the saddle point is {np.round(solution, 6)}")
        points = []
        for outer, inner in itertools.product(GRADIENT, repeat=2):
            start = time.perf_counter()
            points.append(saddle_point(f, GRADIENT[outer], GRADIENT[inner]))
            seconds = time.perf_counter() - start
            error = np.max(np.abs(points[-1] - solution))
            print(f"  {outer} over {inner}: error {error:.1e}   {seconds:.2f} s")
            assert error < 1e-4
        difference = np.max(np.ptp(points, axis=0))
        print(f"  largest difference between the nestings: {difference:.1e}")
        assert difference < 1e-9


if __name__ == "__main__":
    main()
