"""A double pendulum from its Lagrangian alone: no equation of motion is derived by hand.

The mechanical Lagrangian is L(q, v) = kinetic - potential energy. Lagrange's equation d/dt dL/dv = dL/dq says

    H a = dL/dq - C v,   H = d2L/dv2 (the mass matrix),  C = d2L/dv dq,

so the accelerations a need the Hessian of L in the velocities and a mixed second derivative: one `hessian` and one
`jvp` of a gradient. The accelerations are compared with the formulas of the textbooks, the motion by its energy, and a
jitted step runs the whole flight; the sensitive dependence on the start is a derivative through all of it.

Run it with `python examples/double_pendulum.py`.
"""

import numpy as np

import functrace as ft
from functrace import lax

MASSES, LENGTHS, GRAVITY = (1.0, 0.7), (1.0, 1.3), 9.81


def positions(q):
    """Of both bobs, for the angles q from the vertical."""
    x1, y1 = LENGTHS[0] * np.sin(q[0]), -LENGTHS[0] * np.cos(q[0])
    return np.stack([x1, y1]), np.stack([x1 + LENGTHS[1] * np.sin(q[1]), y1 - LENGTHS[1] * np.cos(q[1])])


def energies(q, v):
    """Kinetic and potential energy."""
    places, speeds = ft.jvp(positions, (q,), (v,))
    kinetic = sum(0.5 * m * np.sum(s**2) for m, s in zip(MASSES, speeds, strict=True))
    potential = sum(m * GRAVITY * p[1] for m, p in zip(MASSES, places, strict=True))
    return kinetic, potential


def lagrangian(q, v):
    kinetic, potential = energies(q, v)
    return kinetic - potential


def accelerations(q, v):
    mass = ft.hessian(lagrangian, argnums=1)(q, v)
    force = ft.grad(lagrangian)(q, v)
    _, coriolis = ft.jvp(lambda q: ft.grad(lagrangian, argnums=1)(q, v), (q,), (v,))
    return np.linalg.solve(mass, force - coriolis)


def textbook(q, v):
    """The same by the formulas that one finds derived at length."""
    (m1, m2), (l1, l2), g = MASSES, LENGTHS, GRAVITY
    d = q[0] - q[1]
    below = 2 * m1 + m2 - m2 * np.cos(2 * d)
    first = (
        -g * (2 * m1 + m2) * np.sin(q[0])
        - m2 * g * np.sin(q[0] - 2 * q[1])
        - 2 * np.sin(d) * m2 * (v[1] ** 2 * l2 + v[0] ** 2 * l1 * np.cos(d))
    ) / (l1 * below)
    second = (
        2
        * np.sin(d)
        * (v[0] ** 2 * l1 * (m1 + m2) + g * (m1 + m2) * np.cos(q[0]) + v[1] ** 2 * l2 * m2 * np.cos(d))
        / (l2 * below)
    )
    return np.array([first, second])


def runge_kutta(state, h):
    def rate(state):
        return np.concatenate([state[2:], accelerations(state[:2], state[2:])])

    k1 = rate(state)
    k2 = rate(state + 0.5 * h * k1)
    k3 = rate(state + 0.5 * h * k2)
    k4 = rate(state + h * k3)
    return state + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)


def flight(state, steps, h=0.002):
    return lax.scan(lambda s, _: (runge_kutta(s, h),) * 2, state, None, length=steps)[1]


def main():
    rng = np.random.default_rng(0)
    worst = 0.0
    for _ in range(20):
        q, v = rng.uniform(-3.0, 3.0, 2), rng.uniform(-3.0, 3.0, 2)
        worst = max(worst, np.max(np.abs(accelerations(q, v) - textbook(q, v))))
    print(f"accelerations differ from the textbook's by at most {worst:.1e}")
    assert worst < 1e-11

    start = np.array([2.0, 1.5, 0.0, 0.0])
    path = ft.jit(flight, static_argnums=1)(start, 1000)
    energy = np.array([sum(energies(s[:2], s[2:])) for s in (start, *path[99::100])])
    drift = np.max(np.abs(energy - energy[0]))
    print(f"two seconds of flight end at angles {np.round(path[-1, :2], 4)}; energy drifts by {drift:.1e}")
    assert drift < 1e-7

    steps = 300
    J = ft.jacfwd(lambda s: flight(s, steps)[-1])(start)
    h = 1e-6
    quotient = np.stack(
        [(flight(start + d, steps)[-1] - flight(start - d, steps)[-1]) / (2 * h) for d in h * np.eye(4)], 1
    )
    print(f"the end by the start: off finite differences {np.max(np.abs(J - quotient)):.1e}")
    assert np.max(np.abs(J - quotient)) < 1e-6


if __name__ == "__main__":
    main()
