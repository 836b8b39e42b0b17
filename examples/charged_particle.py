"""A charged particle is steered to the origin by moving a charge; the optimiser differentiates its simulation.

The particle starts at (0, 8) and is pushed away by the charges at (10, 10 - w) and (10, 0). Euler's method follows it
until it crosses the horizontal axis, where the last step is shortened so that it lands on it. Wanted is the w for which
it lands at the origin. The force is a gradient, and the optimiser needs derivatives of the landing point in w, so
derivatives are nested; the number of steps depends on w. This is the second of the two programs by which
Siskind and Pearlmutter (2008) measure nested differentiation. Run it with `python examples/charged_particle.py`.
"""

import itertools
import time

import numpy as np

import functrace as ft
from functrace import lax

GRADIENT = {"forward": ft.jacfwd, "reverse": ft.grad}
STEP = 0.1


def make_force(w, gradient):
    charges = np.stack([np.stack([10.0, 10.0 - w]), np.array([10.0, 0.0])])

    def potential(x):
        return np.sum(1.0 / np.sqrt(np.sum((x - charges) ** 2, axis=1)))

    derivative = gradient(potential)
    return lambda x: -derivative(x)


def landing(x, velocity):
    """Where a particle moving on a straight line meets the axis."""
    return x[0] - x[1] / velocity[1] * velocity[0]


def fly(w, gradient):
    """The squared distance from the origin at which the particle lands, with Python's own loop."""
    force = make_force(w, gradient)
    x, velocity = np.array([0.0, 8.0]), np.array([0.75, 0.0])
    while x[1] + STEP * velocity[1] > 0.0:
        x, velocity = x + STEP * velocity, velocity + STEP * force(x)
    return landing(x, velocity) ** 2


def fly_staged(w, gradient):
    """The same with a loop that is traced once, whatever the number of steps."""
    force = make_force(w, gradient)

    def flying(state):
        x, velocity = state
        return x[1] + STEP * velocity[1] > 0.0

    def step(state):
        x, velocity = state
        return x + STEP * velocity, velocity + STEP * force(x)

    return landing(*lax.while_loop(flying, step, (np.array([0.0, 8.0]), np.array([0.75, 0.0])))) ** 2


def newton(f, w, gradient, steps=10):
    """Newton's method for a minimum of a function of one number, where gradient descent has come close."""
    slope = gradient(f)
    curvature = gradient(slope)
    for _ in range(steps):
        change = slope(w) / curvature(w)
        w = w - change
        if abs(change) < 1e-12:
            break
    return w


def descend(f, w, gradient, steps=8, rate=5e-3):
    value_of, slope = f, gradient(f)
    for _ in range(steps):
        following = w - rate * slope(w)
        if value_of(following) < value_of(w):
            w = following
        else:
            rate = rate / 2.0
    return w


def main():
    for flight in (fly, fly_staged):
        solutions = []
        for outer, inner in itertools.product(GRADIENT, repeat=2):
            start = time.perf_counter()

            def missed(w, flight=flight, force=GRADIENT[inner]):
                return flight(w, force)

            w = newton(missed, descend(missed, 0.0, GRADIENT[outer]), GRADIENT[outer])
            seconds = time.perf_counter() - start
            solutions.append(w)
            print(f"{flight.__name__:10}  {outer} over {inner}: w = {w:.12f}  misses by {missed(w)**0.5:.1e}  {seconds:.2f} s")
        assert np.ptp(solutions) < 1e-9


if __name__ == "__main__":
    main()
