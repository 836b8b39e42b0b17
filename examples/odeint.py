"""Ordinary differential equations, solved in a dozen lines each and differentiated as they stand.

`rk4` takes fixed steps by the classical Runge-Kutta method: a `scan`. `dopri5` chooses its steps by the error estimate
of Dormand and Prince's pair of orders 5 and 4: a `while_loop`, which reverse mode differentiates too. What comes out
is the discrete adjoint: the exact derivative of the computed solution (with the steps held as they were chosen), not
the numerical solution of another differential equation. Both are checked here against SciPy and finite differences.

Run it with `python examples/odeint.py`.
"""

import numpy as np
from scipy.integrate import solve_ivp

import functrace as ft
from functrace import lax

# Dormand and Prince (1980): nodes and stages, of which the last is the next step's first, and the weights of the
# error. They are Python floats, so that a float32 state stays float32.
NODES = [1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0]
STAGES = [
    [1 / 5],
    [3 / 40, 9 / 40],
    [44 / 45, -56 / 15, 32 / 9],
    [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729],
    [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656],
    [35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84],
]
ERROR = [71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40]


def rk4(f, y0, times, *args):
    """The solution of dy/dt = f(y, t, *args) at the given times, one classical step from each to the next."""

    def step(y, interval):
        t, h = interval
        k1 = f(y, t, *args)
        k2 = f(y + 0.5 * h * k1, t + 0.5 * h, *args)
        k3 = f(y + 0.5 * h * k2, t + 0.5 * h, *args)
        k4 = f(y + h * k3, t + h, *args)
        y = y + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        return y, y

    _, ys = lax.scan(step, y0, (times[:-1], np.diff(times)))
    return np.concatenate([y0[None], ys])


def dopri5_step(f, y, slope, t, h, args):
    """One step of order 5: the new value, the slope there, and an estimate of the error."""
    slopes = [slope]
    for node, weights in zip(NODES, STAGES, strict=True):
        new_y = y + h * sum(w * k for w, k in zip(weights, slopes, strict=True))
        slopes.append(f(new_y, t + node * h, *args))
    return new_y, slopes[-1], h * sum(w * k for w, k in zip(ERROR, slopes, strict=True))


def dopri5(f, y0, times, *args, rtol=1e-8, atol=1e-8, first_step=0.01):
    """The solution of dy/dt = f(y, t, *args) at the given times, with steps chosen to meet the tolerances."""

    def advance(state, target):
        """Integrate up to one of the times."""

        def unfinished(state):
            return state[2] < target

        def attempt(state):
            y, slope, t, h = state
            remaining = target - t
            last = h >= remaining
            used = np.where(last, remaining, h)
            new_y, new_slope, error = dopri5_step(f, y, slope, t, used, args)
            scale = atol + rtol * np.maximum(abs(y), abs(new_y))
            # How steps are chosen is a matter of the solver, not of the solution: no derivative goes through it.
            ratio = ft.stop_gradient(np.sqrt(np.mean((error / scale) ** 2)))
            factor = np.clip(0.9 * np.maximum(ratio, 1e-10) ** -0.2, 0.2, 5.0)
            accepted = ratio <= 1.0
            # A step cut short by the end of the interval says little about the length of the next one.
            new_h = np.where(accepted & last, np.maximum(h, used * factor), used * factor)
            new_t = np.where(last, target, t + used)
            return (
                np.where(accepted, new_y, y),
                np.where(accepted, new_slope, slope),
                np.where(accepted, new_t, t),
                new_h,
            )

        state = lax.while_loop(unfinished, attempt, state)
        return state, state[0]

    _, ys = lax.scan(advance, (y0, f(y0, times[0], *args), times[0], first_step), times[1:])
    return np.concatenate([y0[None], ys])


def pendulum(y, t, damping, force):
    """A driven, damped pendulum: angle and angular velocity."""
    angle, velocity = y
    return np.stack([velocity, -np.sin(angle) - damping * velocity + force * np.cos(1.5 * t)])


def central_difference(f, x, h=1e-5):
    steps = h * np.eye(len(x))
    return np.array([(f(x + s) - f(x - s)) / (2.0 * h) for s in steps])


def check(name, found, expected, tolerance):
    error = np.max(np.abs(found - expected))
    print(f"  {name:<50} {error:.1e}")
    assert error < tolerance


def main():
    y0, parameters = np.array([1.0, 0.0]), np.array([0.1, 0.5])
    times = np.linspace(0.0, 10.0, 6)
    fine = np.linspace(0.0, 10.0, 401)
    reference = solve_ivp(
        lambda t, y: pendulum(y, t, *parameters), (0.0, 10.0), y0, "DOP853", times, rtol=1e-12, atol=1e-12
    )

    print("largest errors of the solution:")
    check("rk4, 400 steps, to SciPy's", rk4(pendulum, y0, fine, *parameters)[::80], reference.y.T, 1e-6)
    for tolerance in (1e-4, 1e-6, 1e-8):
        solution = dopri5(pendulum, y0, times, *parameters, rtol=tolerance, atol=tolerance)
        check(f"dopri5 at tolerance {tolerance:.0e}, to SciPy's", solution, reference.y.T, 1e2 * tolerance)

    solvers = {
        "rk4": lambda p: rk4(pendulum, p[:2], fine, p[2], p[3])[-1, 0],
        "dopri5": lambda p: dopri5(pendulum, p[:2], times, p[2], p[3], rtol=1e-10, atol=1e-10)[-1, 0],
    }
    p = np.concatenate([y0, parameters])
    gradients = {}
    print("largest errors of the gradient of the last angle in start and parameters:")
    for name, last_angle in solvers.items():
        gradients[name] = ft.grad(last_angle)(p)
        check(f"{name}, reverse mode to forward mode", gradients[name], ft.jacfwd(last_angle)(p), 1e-10)
        check(f"{name}, reverse mode to finite differences", gradients[name], central_difference(last_angle, p), 1e-6)
    check("rk4 to dopri5", gradients["rk4"], gradients["dopri5"], 1e-6)

    print("largest errors of its Hessian:")
    hessian = ft.hessian(solvers["rk4"])(p)
    check("rk4, to finite differences of the gradient", hessian, central_difference(ft.grad(solvers["rk4"]), p), 1e-5)
    check("rk4 to dopri5", hessian, ft.hessian(solvers["dopri5"])(p), 1e-4)


if __name__ == "__main__":
    main()
