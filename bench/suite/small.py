"""Calls of next to no work: what a call, a small gradient and a small Hessian cost with NumPy arrays in and out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench import eager
from bench.harness import Scenario
from bench.peers import Peer, python_scan
from bench.suite.bars import Row
from functrace.demo.problems import HS71_START, hs71_lagrangian_hessian

Function = Callable[..., Any]


def in_and_out(peer: Peer, function: Function, *args: Any) -> Callable[[], Any]:
    """A call that takes NumPy arrays and gives NumPy arrays, whatever the peer's own are."""
    if peer.name in ("functrace", "eager", "autograd", "casadi"):
        return lambda: function(*args)
    if peer.name == "jax":
        return lambda: np.asarray(function(*args))
    return lambda: peer.numpy(function(*map(peer.array, args)))


def call(count: int) -> Scenario:
    vectors = [np.arange(4.0) + k for k in range(count)]

    def setup(peer: Peer) -> Callable[[], Any]:
        def total(*xs: Any) -> Any:
            result = xs[0]
            for x in xs[1:]:
                result = result + x
            return result

        return in_and_out(peer, peer.jit(total if count > 1 else lambda x: x + x), *vectors)

    return Scenario(
        name=f"{count} array{'s' * (count > 1)} in, one out",
        setup=setup,
        expected=lambda: sum(vectors) if count > 1 else 2 * vectors[0],
        peers=("functrace", "jax", "casadi"),
    )


def pytree_call() -> Scenario:
    params = {name: np.arange(4.0) + k for k, name in enumerate(("W1", "b1", "W2", "b2", "W3", "b3"))}

    def setup(peer: Peer) -> Callable[[], Any]:
        doubled = peer.jit(lambda params: {name: x + x for name, x in params.items()})
        if peer.name == "jax":
            return lambda: {name: np.asarray(x) for name, x in doubled(params).items()}
        return lambda: doubled(params)

    return Scenario(
        name="dict of 6 arrays in and out",
        setup=setup,
        expected=lambda: np.array([2 * x for x in params.values()]),
        peers=("functrace", "jax"),
        observe=lambda result: np.array([result[name] for name in params]),
    )


def textbook_gradient() -> Scenario:
    x = np.array([2.0, 5.0])

    def setup(peer: Peer) -> Callable[[], Any]:
        xp = peer.np
        gradient = peer.jit(peer.grad(lambda x: xp.log(x[0]) + x[0] * x[1] - xp.sin(x[1])))
        return in_and_out(peer, gradient, x)

    return Scenario(
        name="grad of ln x1 + x1 x2 - sin x2",
        setup=setup,
        expected=lambda: np.array([1 / x[0] + x[1], x[0] - np.cos(x[1])]),
        peers=("functrace", "eager", "autograd", "jax", "torch", "casadi"),
    )


def hs71_hessian() -> Scenario:
    sigma, multipliers = 0.5, np.array([0.3, -0.7])

    def lagrangian(x: Any, m: Any) -> Any:
        objective = x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2]
        squares = x[0] * x[0] + x[1] * x[1] + x[2] * x[2] + x[3] * x[3]
        return sigma * objective + m[0] * (x[0] * x[1] * x[2] * x[3]) + m[1] * squares

    def setup(peer: Peer) -> Callable[[], Any]:
        hessian = peer.jit((peer.jacrev if peer.name == "autograd" else peer.jacfwd)(peer.grad(lagrangian)))
        if peer.name == "torch":
            import torch

            hessian = torch.func.hessian(lagrangian)
        return in_and_out(peer, hessian, HS71_START, multipliers)

    return Scenario(
        name="HS71, Hessian of the Lagrangian",
        setup=setup,
        expected=lambda: hs71_lagrangian_hessian(HS71_START, sigma, multipliers),
        peers=("functrace", "eager", "autograd", "jax", "torch", "casadi"),
    )


def rk4_gradient(steps: int) -> Scenario:
    """The final state of a Van der Pol oscillator, by its start and its parameter, as a Python loop of scalars."""
    start = np.array([2.0, 0.0, 0.8])
    h = 5.0 / steps

    def final(p: Any) -> Any:
        mu = p[2]

        def slope(state: Any, _: Any = None) -> Any:
            x, v = state
            return v, mu * (1.0 - x * x) * v - x

        def step(state: Any, _: Any) -> Any:
            (x, v), (a, b) = state, slope(state)
            c, d = slope((x + 0.5 * h * a, v + 0.5 * h * b))
            e, f = slope((x + 0.5 * h * c, v + 0.5 * h * d))
            g, i = slope((x + h * e, v + h * f))
            return (x + h / 6 * (a + 2 * c + 2 * e + g), v + h / 6 * (b + 2 * d + 2 * f + i)), None

        (x, v), _ = python_scan(step, (p[0], p[1]), range(steps))
        return x * x + v

    return Scenario(
        name=f"RK4, {steps:,} steps unrolled",
        setup=lambda peer: in_and_out(peer, peer.jit(peer.grad(final)), start),
        expected=lambda: eager.complex_step(final, start),
        # JAX takes a time that grows exponentially with the steps.
        peers=("functrace", "casadi") if steps > 20 else ("functrace", "eager", "autograd", "casadi"),
        rtol=1e-8,
    )


def rows(smoke: bool) -> Iterator[Row]:
    yield Row(
        name="jitted call",
        bar="at most 0.3 / 0.4 / 0.8 us; 10 times below JAX",
        scenarios=[call(count) for count in (1, 5, 20)],
        faster={"jax": 10.0},
        at_most={"1 array ": 0.3e-6, "5 arrays": 0.4e-6, "20 arrays": 0.8e-6},
    )
    yield Row(name="pytree call", bar="at most 2 us", scenarios=[pytree_call()], at_most={"dict": 2e-6})
    yield Row(
        name="scalar gradient, NumPy in and out",
        bar="20 times faster than JAX, CasADi",
        scenarios=[textbook_gradient()],
        faster={"jax": 20.0, "casadi": 20.0},
    )
    yield Row(
        name="HS71 Lagrangian Hessian, NumPy in and out",
        bar="5 times faster than JAX, CasADi",
        scenarios=[hs71_hessian()],
        faster={"jax": 5.0, "casadi": 5.0},
    )
    yield Row(
        name="eager grad, 20 operations",
        bar="no slower than autograd; then torch",
        scenarios=[eager.gradient("eager grad, 20 operations", eager.twenty_operations, np.float64(0.7))],
        faster={"autograd": 1.0, "torch": 1.0},
    )
    iterations = 50 if smoke else 1_000
    name = f"eager grad, {iterations:,} iterations"
    yield Row(
        name="eager grad, loop",
        bar="no slower than autograd; then torch",
        scenarios=[eager.gradient(name, lambda np: eager.loop(np, iterations), np.float64(0.5))],
        faster={"autograd": 1.0, "torch": 1.0},
    )
    unrolled = rk4_gradient(10 if smoke else 1_000)
    yield Row(name="RK4 unrolled", bar="no slower than CasADi", scenarios=[unrolled], faster={"casadi": 1.0})
    yield Row(
        name="RK4 unrolled, first call",
        bar="no later than CasADi",
        scenarios=[unrolled],
        faster={"casadi": 1.0},
        first=True,
    )
