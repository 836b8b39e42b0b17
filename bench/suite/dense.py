"""Dense arrays: fused elementwise chains, the Wine network, Hessians in every nesting, Jacobians, a large network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from bench import control
from bench.harness import Scenario
from bench.peers import Peer
from bench.suite.bars import Row
from functrace.demo.problems import network

Function = Callable[..., Any]
ALL = ("functrace", "eager", "autograd", "jax", "torch")


def closed(peer: Peer, function: Function, *args: Any) -> Callable[[], Any]:
    """A compiled call on the peer's own arrays."""
    compiled, values = peer.jit(function), [peer.array(a) for a in args]
    return lambda: compiled(*values)


# fused loops


def chain(length: int, n: int) -> Scenario:
    """An elementwise expression of so many operations."""
    x = np.linspace(-1.0, 1.0, n)

    def program(xp: Any) -> Function:
        def f(x: Any) -> Any:
            y = x
            for k in range(length // 5):
                y = xp.tanh(y * (1.0 + 0.01 * k) + x) + xp.sin(y)
            return y

        return f

    return Scenario(
        name=f"chain of {length} operations, n={n:,}",
        setup=lambda peer: closed(peer, program(peer.np), x),
        expected=lambda: program(np)(x),
        peers=ALL if length < 100 else ("functrace", "jax"),
    )


def fused_gradient(n: int) -> Scenario:
    """Value and gradient of sum(tanh(a x + b)^2 exp(-x)) by x, a and b."""
    x, a, b = np.linspace(-1.0, 2.0, n), np.float64(0.7), np.float64(0.1)

    def setup(peer: Peer) -> Callable[[], Any]:
        xp = peer.np
        both = peer.value_and_grad(lambda p: xp.sum(xp.tanh(p[1] * p[0] + p[2]) ** 2 * xp.exp(-p[0])))
        return closed(peer, lambda x, a, b: both((x, a, b)), x, a, b)

    def expected() -> Any:
        t, e = np.tanh(a * x + b), np.exp(-x)
        inner = 2 * t * (1 - t * t) * e
        return np.array([np.sum(t * t * e), np.sum((inner * a - t * t * e) ** 2), np.sum(inner * x), np.sum(inner)])

    return Scenario(
        name=f"value and gradient, n={n:,}",
        setup=setup,
        expected=expected,
        peers=ALL if n <= 10**6 else ("functrace", "jax"),
        observe=lambda result: np.array([result[0], np.sum(np.asarray(result[1][0]) ** 2), *map(float, result[1][1:])]),
    )


# the Wine network


def wine(dtype: str, forward: bool) -> Scenario:
    W1, W2, X, y = (np.asarray(a, dtype) for a in network(16))

    def setup(peer: Peer) -> Callable[[], Any]:
        xp = peer.np

        def loss(p: Any, W2: Any, X: Any, y: Any) -> Any:
            return xp.sum((xp.matmul(W2, xp.tanh(xp.matmul(p[0], X))) - y) ** 2) / 178.0

        if forward:
            return closed(peer, peer.jacfwd(lambda W1, *rest: loss((W1,), *rest)), W1, W2, X, y)
        both = peer.value_and_grad(loss)
        return closed(peer, lambda W1, *rest: both((W1,), *rest), W1, W2, X, y)

    def expected() -> Any:
        T = np.tanh(W1.astype(float) @ X)
        error = W2.astype(float) @ T - y
        gradient = (2 / 178 * error * W2.T * (1 - T * T)) @ X.T
        return gradient if forward else np.concatenate([[np.sum(error**2) / 178], gradient.ravel()])

    return Scenario(
        name=f"Wine, {'forward, 208 tangents' if forward else 'value and gradient'}, {dtype}",
        setup=setup,
        expected=expected,
        peers=("functrace", "jax", "torch") if forward else ALL,
        rtol=1e-9 if dtype == "float64" else 1e-4,
        observe=None if forward else lambda r: np.concatenate([[r[0]], np.ravel(r[1][0])]),
    )


# Hessians and Jacobians

NESTINGS = {
    "forward over reverse": lambda peer, f: peer.jacfwd(peer.jacrev(f)),
    "reverse over reverse": lambda peer, f: peer.jacrev(peer.jacrev(f)),
    "reverse over forward": lambda peer, f: peer.jacrev(peer.jacfwd(f)),
    "forward over forward": lambda peer, f: peer.jacfwd(peer.jacfwd(f)),
}


def hessian(n: int, nesting: str) -> Scenario:
    """Of sum tanh(A x)^2."""
    rng = np.random.default_rng(n)
    A, x = rng.normal(size=(n, n)) / np.sqrt(n), rng.normal(size=n)

    def setup(peer: Peer) -> Callable[[], Any]:
        xp = peer.np

        def f(x: Any, A: Any) -> Any:
            return xp.sum(xp.tanh(xp.matmul(A, x)) ** 2)

        return closed(peer, NESTINGS[nesting](peer, f), x, A)

    def expected() -> Any:
        t = np.tanh(A @ x)
        return A.T @ ((2 * (1 - t * t) * (1 - 3 * t * t))[:, None] * A)

    return Scenario(name=f"Hessian n={n}, {nesting}", setup=setup, expected=expected, peers=("functrace", "jax"))


def jacobian(n: int, m: int) -> Scenario:
    """Of W2 tanh(W1 x), 64 hidden units, in the better mode."""
    rng = np.random.default_rng(n * m)
    W1, W2, x = rng.normal(size=(64, n)) / np.sqrt(n), rng.normal(size=(m, 64)) / 8, rng.normal(size=n)

    def setup(peer: Peer) -> Callable[[], Any]:
        xp = peer.np

        def f(x: Any, W1: Any, W2: Any) -> Any:
            return xp.matmul(W2, xp.tanh(xp.matmul(W1, x)))

        return closed(peer, (peer.jacfwd if n <= m else peer.jacrev)(f), x, W1, W2)

    def expected() -> Any:
        t = np.tanh(W1 @ x)
        return W2 @ ((1 - t * t)[:, None] * W1)

    return Scenario(name=f"Jacobian, {n} to {m}", setup=setup, expected=expected, peers=("functrace", "jax", "torch"))


# a large network


def large_network(smoke: bool) -> Scenario:
    """Value and gradient of a softmax classifier 784-512-512-10, batch 128, in single precision."""
    widths, batch = ((20, 16, 16, 10), 8) if smoke else ((784, 512, 512, 10), 128)
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(a, b)) / np.sqrt(a) for a, b in pairwise(widths)]
    weights = [w.astype(np.float32) for w in weights]
    x = rng.normal(size=(batch, widths[0])).astype(np.float32)
    target = np.eye(10, dtype=np.float32)[rng.integers(0, 10, batch)]

    def setup(peer: Peer) -> Callable[[], Any]:
        xp = peer.np

        def loss(weights: Any, x: Any, target: Any) -> Any:
            for w in weights[:-1]:
                x = xp.tanh(xp.matmul(x, w))
            scores = xp.matmul(x, weights[-1])
            scores = scores - xp.amax(scores, 1)[:, None]
            return xp.sum(xp.log(xp.sum(xp.exp(scores), 1))) / batch - xp.sum(scores * target) / batch

        both = peer.value_and_grad(loss)
        compiled = peer.jit(lambda *args: both(args[:3], *args[3:]))
        values = [peer.array(a) for a in (*weights, x, target)]
        return lambda: compiled(*values)

    def expected() -> Any:
        layers = [x.astype(float)]
        for w in weights[:-1]:
            layers.append(np.tanh(layers[-1] @ w))
        scores = layers[-1] @ weights[-1]
        scores -= scores.max(1, keepdims=True)
        share = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        value = np.mean(np.log(np.exp(scores).sum(1))) - np.sum(scores * target) / batch
        bar, gradients = (share - target) / batch, []
        for w, layer in zip(weights[::-1], layers[::-1], strict=True):
            gradients.append(np.sum((layer.T @ bar) ** 2))
            bar = (bar @ w.T.astype(float)) * (1 - layer**2)
        return np.array([value, *gradients[::-1]])

    return Scenario(
        name=f"network {'-'.join(map(str, widths))}, batch {batch}, float32",
        setup=setup,
        expected=expected,
        peers=ALL,
        rtol=1e-4,
        observe=lambda r: np.array([float(r[0]), *(np.sum(np.asarray(g, float) ** 2) for g in r[1])]),
    )


def scan_gradient(state: int, steps: int) -> Scenario:
    """As in the `control` suite, which times the eager way too."""
    return control.gradient(state, steps, unrolled=False)


def rows(smoke: bool) -> Iterator[Row]:
    yield Row(
        name="Wine network",
        bar="2 times faster than JAX",
        scenarios=[wine(dtype, forward) for forward in (False, True) for dtype in ("float64", "float32")],
        faster={"jax": 2.0},
    )
    sizes = (100, 1_000) if smoke else (100, 1_000, 10_000, 100_000, 1_000_000)
    fused = [chain(length, n) for length in (5, 50, 500) for n in sizes[:2]]
    fused += [] if smoke else [chain(50, 100_000), chain(50, 1_000_000)]
    yield Row(
        name="fused loops",
        bar="3 times faster than JAX to n=1e6",
        scenarios=[*fused, *map(fused_gradient, sizes)],
        faster={"jax": 3.0},
    )
    if not smoke:
        big = [fused_gradient(10_000_000)]
        yield Row(name="fused loops, 1e7", bar="2 times faster than JAX", scenarios=big, faster={"jax": 2.0})
    dimensions = (10,) if smoke else (10, 50, 200)
    yield Row(
        name="dense Hessian, forward over reverse",
        bar="no slower than JAX",
        scenarios=[hessian(n, "forward over reverse") for n in dimensions],
        faster={"jax": 1.0},
    )
    yield Row(
        name="dense Hessian, all nestings",
        bar="slowest within 5 times of the fastest",
        scenarios=[hessian(n, nesting) for n in dimensions for nesting in NESTINGS],
        spread=5.0,
    )
    points = ((1, 100), (100, 1)) if smoke else ((1, 1000), (10, 100), (32, 32), (100, 100), (100, 10), (1000, 1))
    yield Row(
        name="Jacobians, better mode",
        bar="no slower than JAX",
        scenarios=[jacobian(n, m) for n, m in points],
        faster={"jax": 1.0},
    )
    yield Row(name="large network", bar="no slower than JAX", scenarios=[large_network(smoke)], faster={"jax": 1.0})
    steps = 20 if smoke else 1_000
    for state, factor in ((4, 1.5), (64, 3.0)):
        yield Row(
            name=f"scan gradient, state {state}",
            bar=f"{factor:g} times faster than JAX",
            scenarios=[scan_gradient(state, steps)],
            faster={"jax": factor},
        )
