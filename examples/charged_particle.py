"""A charged particle is steered to the origin by moving a charge: an optimiser differentiates a simulation.

The particle starts at (0, 8) with velocity (3/4, 0) and is pushed about by charges at (10, 10 - w) and (10, 0). Euler's
method follows it until it would cross the horizontal axis; the last step is shortened to land on it. Wanted is the w
for which it lands at the origin. The force is the gradient of a potential and the optimiser wants derivatives of the
landing point in w, so derivatives nest; the number of steps depends on w. This is one of the two programs by which
Siskind and Pearlmutter (2008, "Using programming language theory to make automatic differentiation sound and
efficient") measure nested differentiation; each derivative may be taken in either mode.

Run it with `python examples/charged_particle.py`.
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

    slope = gradient(potential)
    return lambda x: -slope(x)


def start():
    return np.array([0.0, 8.0]), np.array([0.75, 0.0])


def squared_miss(x, velocity):
    """The squared distance from the origin at which a straight flight meets the axis."""
    return (x[0] - x[1] / velocity[1] * velocity[0]) ** 2


def miss_unrolled(w, gradient):
    """The flight with Python's own loop."""
    force = make_force(w, gradient)
    x, velocity = start()
    while x[1] + STEP * velocity[1] > 0.0:
        x, velocity = x + STEP * velocity, velocity + STEP * force(x)
    return squared_miss(x, velocity)


def miss(w, gradient):
    """The same flight with a loop whose step is traced once, force and all."""
    force = make_force(w, gradient)

    def still_flying(state):
        x, velocity = state
        return x[1] + STEP * velocity[1] > 0.0

    def step(state):
        x, velocity = state
        return x + STEP * velocity, velocity + STEP * force(x)

    return squared_miss(*lax.while_loop(still_flying, step, start()))


def argmin(f, w, gradient, rate=1e-5, tolerance=1e-5):
    """Gradient descent with a rate that doubles after ten good steps and halves after a bad one."""
    slope_at = gradient(f)
    value, slope, good = f(w), slope_at(w), 0
    while abs(slope) > tolerance:
        if good == 10:
            rate, good = 2.0 * rate, 0
        new_w = w - rate * slope
        if abs(new_w - w) <= tolerance:
            break
        new_value = f(new_w)
        if new_value < value:
            w, value, slope, good = new_w, new_value, slope_at(new_w), good + 1
        else:
            rate, good = rate / 2.0, 0
    return w


def newton(f, w, gradient, steps=3):
    """Newton's method for a minimum near w, with derivatives nested once more."""
    slope = gradient(f)
    curvature = gradient(slope)
    for _ in range(steps):
        w = w - slope(w) / curvature(w)
    return w


def compare_loops():
    """Value, slope and curvature at w = 0 of both flights, in every nesting."""
    found = []
    for flight in (miss, miss_unrolled):
        for outer, inner in itertools.product(GRADIENT.values(), repeat=2):
            slope = outer(lambda w, flight=flight, inner=inner: flight(w, inner))
            found.append([flight(0.0, inner), slope(0.0), outer(slope)(0.0)])
    value, slope, curvature = found[0]
    difference = np.max(np.ptp(found, axis=0))
    print(f"at w = 0: value {value:.9f}, slope {slope:.9f}, curvature {curvature:.9f}")
    print(f"largest difference between loops and nestings: {difference:.1e}\n")
    assert difference < 1e-9


def main():
    compare_loops()
    solutions = []
    for outer, inner in itertools.product(GRADIENT, repeat=2):
        began = time.perf_counter()

        def f(w, inner=GRADIENT[inner]):
            return miss(w, inner)

        near = argmin(f, 0.0, GRADIENT[outer], rate=5e-3, tolerance=1e-2)
        w = newton(f, near, GRADIENT[outer])
        seconds = time.perf_counter() - began
        print(f"{outer} over {inner}: w = {w:.12f}, lands {f(w) ** 0.5:.1e} from the origin   {seconds:.2f} s")
        solutions.append(w)
        assert f(w) < 1e-24
    print(f"largest difference between the nestings: {np.ptp(solutions):.1e}")
    assert np.ptp(solutions) < 1e-9


if __name__ == "__main__":
    main()
