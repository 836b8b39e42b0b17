"""The rates of a predator-prey system from noisy counts: least squares through an ODE solver.

The populations follow Lotka and Volterra's equations. Their rates and starting values are fitted to measurements by
Gauss-Newton steps, for which forward mode gives the Jacobian of the whole solution in the parameters; then, as a
check, by L-BFGS on the sum of squares, for which reverse mode gives the gradient. The two solvers are those of
`odeint.py`. Run it with `python examples/ode_fit.py`.
"""

import numpy as np
from odeint import dopri5, rk4
from scipy.optimize import minimize

import functrace as ft
from functrace.flatten_util import ravel_pytree

TRUTH = {"birth": 0.55, "hunt": 0.028, "death": 0.84, "feed": 0.026, "start": np.array([30.0, 4.0])}
TIMES = np.linspace(0.0, 20.0, 201)
EVERY = 10
NOISE = 0.05


def lotka_volterra(populations, t, rates):
    prey, predators = populations
    return np.stack(
        [
            rates["birth"] * prey - rates["hunt"] * prey * predators,
            rates["feed"] * prey * predators - rates["death"] * predators,
        ]
    )


def simulate(parameters, solver=rk4):
    """The populations at the times of the measurements; all parameters are positive and given by logarithms."""
    rates = ft.tree.map(np.exp, parameters)
    if solver is rk4:
        return rk4(lotka_volterra, rates["start"], TIMES, rates)[::EVERY]
    return solver(lotka_volterra, rates["start"], TIMES[::EVERY], rates)


def measure():
    populations = simulate(ft.tree.map(np.log, TRUTH))
    return populations * np.exp(NOISE * ft.random.normal(ft.random.key(0), populations.shape))


def gauss_newton(residuals, x, steps=12):
    """Steps to the least squares of the linearised residuals, halved while they overshoot."""
    jacobian = ft.jit(ft.jacfwd(residuals))
    for step in range(steps):
        r, J = residuals(x), jacobian(x)
        direction = -np.linalg.lstsq(J, r, rcond=None)[0]
        length = 1.0
        while np.sum(residuals(x + length * direction) ** 2) > np.sum(r**2) and length > 1e-3:
            length /= 2.0
        x = x + length * direction
        print(f"  step {step + 1:2d}   sum of squares {np.sum(r**2):9.4f}   next step {length:.3f}")
        if np.max(np.abs(direction)) < 1e-9:
            break
    return x


def main():
    measured = measure()
    guess = {"birth": 0.4, "hunt": 0.02, "death": 0.7, "feed": 0.02, "start": measured[0]}
    x0, unravel = ravel_pytree(ft.tree.map(np.log, guess))

    def residuals(x):
        return np.ravel(np.log(simulate(unravel(x))) - np.log(measured)) / NOISE

    def cost(x):
        return np.sum(residuals(x) ** 2)

    print("Gauss-Newton:")
    fitted = gauss_newton(residuals, x0)

    value_and_gradient = ft.jit(ft.value_and_grad(cost))
    found = minimize(value_and_gradient, x0, jac=True, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-7})
    print(f"L-BFGS: {found.nfev} gradients, differs by {np.max(np.abs(found.x - fitted)):.1e}\n")
    np.testing.assert_allclose(found.x, fitted, atol=1e-4)

    # The inverse of J'J is the covariance of the estimates, for noise of the known size.
    J = ft.jacfwd(residuals)(fitted)
    deviations = unravel(np.sqrt(np.diag(np.linalg.inv(J.T @ J))))
    estimates = ft.tree.map(np.exp, unravel(fitted))
    for name, true in TRUTH.items():
        percent = np.round(100.0 * deviations[name], 1)
        print(f"{name:<6} {np.round(estimates[name], 4)}   true {true}   standard deviation {percent} %")
        assert np.all(np.abs(np.log(estimates[name] / true)) < 4.0 * deviations[name])

    # The adaptive solver agrees with the fixed steps, in its values and in its gradient.
    adaptive = simulate(unravel(fitted), dopri5)
    np.testing.assert_allclose(adaptive, simulate(unravel(fitted)), rtol=1e-4)


if __name__ == "__main__":
    main()
