"""A layer defined by an equation: its output is the fixed point z = tanh(W z + U x + b).

The fixed point is found by a `while_loop`, and its derivative by the implicit function theorem: one linear equation at
the solution, whatever the steps that led there, so memory does not grow with their number. This is stated twice: by
rules of one's own (`custom_vjp`), and by `lax.custom_root`, which needs only the equation and a way to solve its
linearisation. Both are compared with the derivatives through the steps themselves, which reverse mode takes too, to
second order in all four nestings. Then a network with such a layer learns to tell two interleaved spirals apart.

Run it with `python examples/fixed_point_layer.py`.
"""

import functools

import numpy as np

import functrace as ft
from functrace import lax, random

HIDDEN = 20


def iterate(f, z, tolerance=1e-12):
    """Repeat z = f(z) until it changes no more."""

    def moving(state):
        before, z = state
        return np.max(np.abs(z - before)) > tolerance

    return lax.while_loop(moving, lambda state: (state[1], f(state[1])), (z, f(z)))[1]


@functools.partial(ft.custom_vjp, nondiff_argnums=(0,))
def fixed_point(f, parameters, z):
    """The z with z = f(parameters, z), from a first guess."""
    return iterate(lambda z: f(parameters, z), z)


def fixed_point_forward(f, parameters, z):
    z = fixed_point(f, parameters, z)
    return z, (parameters, z)


def fixed_point_backward(f, residuals, bar):
    parameters, z = residuals
    # dz = A dz + B dp, so the cotangent u of f's value solves u = bar + A' u, and p's is B' u.
    _, pull_z = ft.vjp(lambda z: f(parameters, z), z)
    u = iterate(lambda u: bar + pull_z(u)[0], bar)
    _, pull_parameters = ft.vjp(lambda parameters: f(parameters, z), parameters)
    return pull_parameters(u)[0], np.zeros_like(z)


def fixed_point_tangent(f, primals, tangents):
    z = fixed_point(f, *primals)
    parameters, dot = primals[0], tangents[0]
    # dz = A dz + B dp, solved for dz.
    _, push = ft.jvp(lambda parameters: f(parameters, z), (parameters,), (dot,))
    return z, iterate(lambda u: push + ft.jvp(lambda z: f(parameters, z), (z,), (u,))[1], push)


fixed_point.defvjp(fixed_point_forward, fixed_point_backward)
fixed_point.defjvp(fixed_point_tangent)


def fixed_point_as_root(f, parameters, z):
    """The same as the root of f(z) - z; its derivatives solve the linearised equation."""
    return lax.custom_root(
        lambda z: f(parameters, z) - z,
        z,
        solve=lambda g, z: iterate(lambda z: g(z) + z, z),
        tangent_solve=lambda linear, b: np.linalg.solve(ft.jacfwd(linear)(b), b),
    )


def layer(parameters, z):
    weights, x = parameters
    # Scaled to a contraction: the rows' absolute sums stay below 0.9.
    sums = np.sum(np.abs(weights["recurrent"]), axis=1, keepdims=True)
    return np.tanh(0.9 * weights["recurrent"] / np.maximum(1.0, sums) @ z + weights["in"] @ x + weights["bias"])


def implicit(weights, x):
    return weights["out"] @ fixed_point(layer, (weights, x), np.zeros(HIDDEN))


def by_root(weights, x):
    return weights["out"] @ fixed_point_as_root(layer, (weights, x), np.zeros(HIDDEN))


def through_the_steps(weights, x):
    return weights["out"] @ iterate(lambda z: layer((weights, x), z), np.zeros(HIDDEN))


def init(key):
    keys = random.split(key, 3)
    return {
        "recurrent": random.normal(keys[0], (HIDDEN, HIDDEN)) / HIDDEN,
        "in": 2.0 * random.normal(keys[1], (HIDDEN, 2)),
        "bias": np.zeros(HIDDEN),
        "out": random.normal(keys[2], (HIDDEN,)) / np.sqrt(HIDDEN),
    }


def spirals(key, count=60):
    angles = np.sqrt(random.uniform(key, (count,), minval=0.05)) * 3.0 * np.pi
    one = np.stack([np.cos(angles), np.sin(angles)], axis=1) * angles[:, None] / np.pi
    return np.concatenate([one, -one]), np.concatenate([np.ones(count), -np.ones(count)])


def loss(weights, xs, labels, network=implicit):
    scores = ft.vmap(network, in_axes=(None, 0))(weights, xs)
    return np.mean(np.log1p(np.exp(-labels * scores)))


def compare(weights, xs, labels):
    """The derivatives of the loss along one direction: all networks, all nestings, and finite differences."""
    direction = ft.tree.map(lambda w: random.normal(random.key(7), w.shape), weights)
    h = 1e-5
    expected = None
    for network in (implicit, by_root, through_the_steps):

        def along(t, network=network):
            return loss(ft.tree.map(lambda w, d: w + t * d, weights, direction), xs, labels, network)

        slope = ft.grad(along)(0.0)
        curvatures = [outer(inner(along))(0.0) for outer in (ft.grad, ft.jacfwd) for inner in (ft.grad, ft.jacfwd)]
        quotient = (along(h) - along(-h)) / (2.0 * h)
        second = (ft.grad(along)(h) - ft.grad(along)(-h)) / (2.0 * h)
        errors = abs(slope - quotient), np.max(np.abs(curvatures - second))
        print(f"{network.__name__:<18} off finite differences: first order {errors[0]:.0e}, second {errors[1]:.0e}")
        expected = expected or (slope, curvatures[0])
        np.testing.assert_allclose(slope, expected[0], rtol=1e-9)
        np.testing.assert_allclose(curvatures, expected[1], rtol=1e-8)
        assert max(errors) < 1e-6


def train(weights, xs, labels, steps=150, rate=0.3, momentum=0.9):
    value_and_gradient = ft.jit(ft.value_and_grad(loss))
    velocity = ft.tree.map(np.zeros_like, weights)
    for step in range(steps + 1):
        value, gradient = value_and_gradient(weights, xs, labels)
        if step % 50 == 0:
            print(f"step {step:3d}   loss {value:.4f}")
        velocity = ft.tree.map(lambda v, g: momentum * v - rate * g, velocity, gradient)
        weights = ft.tree.map(np.add, weights, velocity)
    return weights


def main():
    weights_key, data_key = random.split(random.key(0))
    weights, (xs, labels) = init(weights_key), spirals(data_key)
    compare(weights, xs[::10], labels[::10])
    before = loss(weights, xs, labels)
    weights = train(weights, xs, labels)
    right = np.mean(np.sign(ft.vmap(implicit, in_axes=(None, 0))(weights, xs)) == labels)
    print(f"right: {right:.1%}")
    assert loss(weights, xs, labels) < 0.7 * before


if __name__ == "__main__":
    main()
