"""Forward or reverse? Modes compared before and after they run. A notebook as a script.

Run it with `python examples/notebook_modes.py`.
"""

# %% Four functions: few inputs, few outputs, a narrow waist, and a sparse Jacobian

import numpy as np

import functrace as ft
from functrace.inspect import cost, modes

rng = np.random.default_rng(0)
WIDE, TALL = rng.normal(size=(3, 200)) / 20.0, rng.normal(size=(200, 3)) / 2.0


def curve(t):
    """R^3 -> R^200."""
    return np.sin(TALL @ t)


def score(x):
    """R^200 -> R^3."""
    return np.tanh(WIDE @ np.sin(x))


def waist(x):
    """R^200 -> R^3 -> R^200."""
    return curve(score(x))


def neighbours(x):
    """R^200 -> R^199, each output of two inputs."""
    return x[1:] * np.exp(-x[:-1])


CASES = {curve: np.ones(3), score: np.linspace(0.0, 1.0, 200), waist: np.ones(200), neighbours: np.ones(200)}

# %% What it will cost, before it runs: arithmetic operations and memory, from the program alone

for f, x in CASES.items():
    value, gradient = cost(f)(x), cost(ft.jacrev(f))(x)
    print(f"{f.__name__:10}  value {value.flops:>9} flops   Jacobian by reverse mode {gradient.flops:>9} flops")
    assert gradient.flops > value.flops

# %% Every mode, predicted, measured, and checked against the others

for f, x in CASES.items():
    comparison = modes.compare(f, rounds=3)(x)
    print(f"\n{f.__name__}: {f.__doc__}")
    print(comparison)
    differences = [row.difference for row in comparison.rows if row.difference is not None]
    assert max(differences) < 1e-9

# %% The choice by itself

for f, x in CASES.items():
    np.testing.assert_allclose(ft.jacobian(f, mode="auto")(x), ft.jacfwd(f)(x), rtol=1e-10, atol=1e-13)
print("\nmode='auto' gives the same Jacobians")

# %% Second derivatives: the four nestings


def energy(x):
    return np.sum(neighbours(x) ** 2) + np.sum(x) ** 2


comparison = modes.compare(energy, derivative="hessian", rounds=3)(np.linspace(0.0, 1.0, 40))
print()
print(comparison)
assert {row.mode for row in comparison.rows} >= {"fwd-rev", "rev-rev", "fwd-fwd", "rev-fwd"}
