"""A double pendulum by Taylor series: long steps of high order, from the derivatives of the solution.

Given the first derivatives of a solution of dy/dt = f(y), `jet` gives those of f along it, which are the solution's
next ones. Twenty of them allow steps so long that few reach full accuracy, with no table of coefficients: nothing but
f is needed. Run it with `python examples/taylor_ode.py`.
"""

import math

import numpy as np
from scipy.integrate import solve_ivp

import functrace as ft

GRAVITY = 9.81


def double_pendulum(y):
    """Two unit masses on unit rods: the two angles, and their velocities."""
    a, b, va, vb = y
    difference = a - b
    cosine, sine = np.cos(difference), np.sin(difference)
    pull_a = -2.0 * GRAVITY * np.sin(a) - vb**2 * sine
    pull_b = -GRAVITY * np.sin(b) + va**2 * sine
    scale = 1.0 / (2.0 - cosine**2)
    return np.stack([va, vb, scale * (pull_a - cosine * pull_b), scale * (2.0 * pull_b - cosine * pull_a)])


def energy(y):
    a, b, va, vb = y
    kinetic = va**2 + 0.5 * vb**2 + va * vb * np.cos(a - b)
    return kinetic - GRAVITY * (2.0 * np.cos(a) + np.cos(b))


def derivatives(f, y, order):
    """The derivatives of orders 1, 2, ... of the solution of dy/dt = f(y) that passes through y."""
    known = [f(y)]
    while len(known) < order:
        slope, more = ft.jet(f, (y,), (known,))
        known = [slope, *more]
    return known


def coefficients(f, y, order):
    return np.stack([y, *(d / math.factorial(k + 1) for k, d in enumerate(derivatives(f, y, order)))])


def solve(f, y, end, order, tolerance=1e-16):
    """Follow the solution up to time `end`, with steps as long as the series allows."""
    t, steps = 0.0, 0
    while t < end:
        series = coefficients(f, y, order)
        # The last two terms tell how fast the terms fall, hence how long a step leaves the rest out of sight.
        size = max(np.max(np.abs(series[k])) ** (1.0 / k) for k in (order - 1, order))
        h = min(end - t, tolerance ** (1.0 / order) / size)
        y = h ** np.arange(order + 1) @ series
        t, steps = t + h, steps + 1
    return y, steps


def main():
    start, end = np.array([2.0, 1.0, 0.0, 0.0]), 0.5

    # The derivatives agree with those by nested forward mode, whose cost doubles with every order.
    def along(g):
        return lambda y: ft.jvp(g, (y,), (double_pendulum(y),))[1]

    nested = [double_pendulum]
    while len(nested) < 5:
        nested.append(along(nested[-1]))
    np.testing.assert_allclose(
        derivatives(double_pendulum, start, 5), [g(start) for g in nested], rtol=1e-10, atol=1e-10
    )

    reference = solve_ivp(lambda t, y: double_pendulum(y), (0.0, end), start, "DOP853", rtol=1e-13, atol=1e-13)
    for order, tolerance in ((10, 1e-10), (20, 1e-16)):
        y, steps = solve(double_pendulum, start, end, order, tolerance)
        drift = abs(energy(y) - energy(start))
        print(f"order {order:2d}, {steps:4d} steps   energy drifts by {drift:.1e}")
    error = np.max(np.abs(y - reference.y[:, -1]))
    print(f"order 20 lands {error:.1e} from SciPy's DOP853, with {reference.nfev} evaluations of f")
    assert drift < 1e-11
    assert error < 1e-9


if __name__ == "__main__":
    main()
