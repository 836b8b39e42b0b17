"""A sparse Lagrangian: from the structure of a constrained problem to its solution. A notebook as a script.

    minimise    the energy of n masses on springs, a rope that hangs between two points
    subject to  no mass is below the ground

Every mass meets only its two neighbours, so all derivatives are sparse, and the trace knows where.

Run it with `python examples/notebook_sparse_lagrangian.py`.
"""

# %% The problem, as array code

import importlib.util

import numpy as np

import functrace as ft
from functrace import optimize, sparse

N = 30
STIFFNESS, GRAVITY, REST = 40.0 * N, 9.81, 1.15 / N
LEFT, RIGHT = np.array([0.0, 1.0]), np.array([1.0, 1.3])


def energy(position):
    """Position is an array of (N, 2)."""
    x, y = position[:, 0], position[:, 1]
    dx = np.diff(np.concatenate([LEFT[:1], x, RIGHT[:1]]))
    dy = np.diff(np.concatenate([LEFT[1:], y, RIGHT[1:]]))
    stretch = np.sqrt(dx**2 + dy**2) - REST
    return 0.5 * STIFFNESS * np.sum(stretch**2) + GRAVITY * np.sum(y) / N


def height(position):
    """Above the ground."""
    return position[:, 1] - (0.9 + 0.3 * position[:, 0] ** 2)


start = np.linspace(LEFT, RIGHT, N + 2)[1:-1]

# %% Which entries of the derivatives can be different from zero? The trace proves it, for every point at once

hessian_pattern = sparse.hessian_pattern(energy)(start)
jacobian_pattern = sparse.jacobian_pattern(height)(start)
print(f"Hessian of the energy: {hessian_pattern.nnz} of {(2 * N) ** 2} entries")
print(f"Jacobian of the heights: {jacobian_pattern.nnz} of {2 * N * N} entries")
assert hessian_pattern.nnz < 12 * 2 * N and jacobian_pattern.nnz == 2 * N

# %% The Hessian, sparse, against the dense one in all nestings

shaken = start + 0.01 * np.random.default_rng(0).normal(size=start.shape)
H = sparse.hessian(energy)(shaken).toarray()
for mode in ("fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev"):
    dense = ft.hessian(energy, mode=mode)(shaken).reshape(2 * N, 2 * N)
    np.testing.assert_allclose(H, dense, rtol=1e-9, atol=1e-7)
    print(f"sparse Hessian against {mode}: largest difference {np.abs(H - dense).max() / np.abs(dense).max():.1e}")

# %% Objective and constraints together: what a solver asks for, sigma f'' + sum of lambda_k c_k''

problem = optimize.Problem(energy, optimize.Constraint(height, 0.0), x0=start)
rng = np.random.default_rng(1)
multipliers = rng.uniform(0.0, 5.0, N)
L = problem.lagrangian_hessian(shaken, multipliers, 0.5).toarray()
expected = ft.hessian(lambda p: 0.5 * energy(p) + multipliers @ height(p))(shaken).reshape(2 * N, 2 * N)
np.testing.assert_allclose(L, expected, rtol=1e-9, atol=1e-7)
print(f"Hessian of the Lagrangian: {problem.hessian_structure}")

# %% The solution, by IPOPT where it is installed, which uses these second derivatives; else by SLSQP, which does not

has_ipopt = importlib.util.find_spec("casadi") or importlib.util.find_spec("cyipopt")
method, options = ("ipopt", {}) if has_ipopt else ("SLSQP", {"maxiter": 500, "ftol": 1e-13})
solution = optimize.minimize(problem, method, options=options)
hanging = solution.x
assert solution.success, solution.message
print(f"{solution.nit} iterations: energy {energy(start):.3f} -> {solution.fun:.4f}")
lying = height(hanging) < 1e-6
print(f"{lying.sum()} of {N} masses lie on the ground")
assert height(hanging).min() > -1e-7 and 0 < lying.sum() < N

# %% How good is it? Forces balance, and only the ground that is touched pushes (Karush, Kuhn and Tucker)

push = np.asarray(solution.multipliers)
balance = ft.grad(energy)(hanging) + ft.vjp(height, hanging)[1](push)[0]
print(f"largest force left over {np.abs(balance).max():.1e}, largest push of the ground {np.abs(push).max():.2f}")
assert np.abs(balance).max() < 1e-3 and np.abs(push[~lying]).max() < 1e-3
