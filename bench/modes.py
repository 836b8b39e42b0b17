"""Forward against reverse mode, and the mode that functrace chooses by itself.

Over n inputs and m outputs on the Wine network sum((W2 tanh(W1 X) - y)^2) / 178; on a program with a waist; on one with
a sparse Jacobian; and the four nestings of the Hessian over n on Rosenbrock's function.

The inputs are the n = 13 h weights W1 of h hidden units. The outputs are the loss in m parts: the sums over m equal
groups of the 178 wines. The answer is a closed form. JAX and functrace run compiled, "eager" is
functrace without compilation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import functrace
import functrace.sparse  # (gives the colouring)
from bench.harness import Scenario
from bench.peers import Peer
from functrace.demo.problems import network

HIDDEN = (1, 4, 16, 64)
PARTS = (1, 2, 89, 178)  # the divisors of 178
MODES = ("forward", "reverse", "auto")


def jacobian(hidden: int, parts: int) -> np.ndarray:
    """The closed form, of shape (parts, hidden, 13)."""
    W1, W2, X, y = network(hidden)
    T = np.tanh(W1 @ X)
    per_wine = np.einsum("hs,fs->shf", 2.0 * (W2 @ T - y) * W2.T * (1.0 - T**2), X) / X.shape[1]
    return per_wine.reshape(parts, -1, hidden, 13).sum(axis=1)


def sweep(mode: str, hidden: int, parts: int) -> Scenario:
    def setup(peer: Peer) -> Callable[[], Any]:
        namespace = peer.np
        W1, W2, X, y = map(peer.array, network(hidden))

        def losses(W1: Any) -> Any:
            residuals = namespace.matmul(W2, namespace.tanh(namespace.matmul(W1, X))) - y
            return namespace.sum(namespace.reshape(residuals**2, (parts, 178 // parts)), 1) / 178.0

        derivative = peer.jit(_in_mode(peer, mode)(losses))
        return lambda: derivative(W1)

    return Scenario(
        name=f"n={13 * hidden}, m={parts}, {mode}",
        setup=setup,
        expected=lambda: jacobian(hidden, parts),
        peers=_peers(mode),
    )


def _in_mode(peer: Peer, mode: str) -> Callable[[Any], Any]:
    """A Jacobian in a mode; the chosen one is functrace's alone."""
    return functrace.jacobian if mode == "auto" else {"forward": peer.jacfwd, "reverse": peer.jacrev}[mode]


def _peers(mode: str) -> tuple[str, ...]:
    return ("functrace", "eager") if mode == "auto" else ("functrace", "eager", "autograd", "jax", "torch")


def waist(n: int, narrow: int, depth: int, mode: str) -> Scenario:
    """x relaxed in `depth` steps, measured in a few places, which drive another field: R^n -> R^narrow -> R^n."""
    rng = np.random.default_rng(n)
    measure, drive = rng.normal(size=(narrow, n)) / np.sqrt(n), rng.normal(size=(n, narrow)) / np.sqrt(narrow)
    start = rng.normal(size=n)

    def expected() -> np.ndarray:
        x, slope = start, np.ones(n)
        for _ in range(depth):
            slope, x = slope * (1.0 + 0.1 * np.cos(x)), x + 0.1 * np.sin(x)
        h = np.tanh(measure @ x)
        y, rise = drive @ h, np.ones(n)
        for _ in range(depth):
            rise, y = rise * (1.0 + 0.1 * np.cos(y)), y + 0.1 * np.sin(y)
        return (rise[:, None] * drive) @ ((1.0 - h**2)[:, None] * measure * slope)

    def setup(peer: Peer) -> Callable[[], Any]:
        namespace = peer.np
        a, b, x = map(peer.array, (measure, drive, start))

        def f(x: Any) -> Any:
            for _ in range(depth):
                x = x + 0.1 * namespace.sin(x)
            y = namespace.matmul(b, namespace.tanh(namespace.matmul(a, x)))
            for _ in range(depth):
                y = y + 0.1 * namespace.sin(y)
            return y

        derivative = peer.jit(_in_mode(peer, mode)(f))
        return lambda: derivative(x)

    return Scenario(name=f"waist {n} -> {narrow} -> {n}, {mode}", setup=setup, expected=expected, peers=_peers(mode))


def sparse(n: int, mode: str) -> Scenario:
    """y_i = x_{i+1} sin(x_i): two nonzeros in a row."""
    start = np.random.default_rng(n).normal(size=n)

    def expected() -> np.ndarray:
        whole = np.zeros((n - 1, n))
        rows = np.arange(n - 1)
        whole[rows, rows], whole[rows, rows + 1] = start[1:] * np.cos(start[:-1]), np.sin(start[:-1])
        return whole

    def setup(peer: Peer) -> Callable[[], Any]:
        x = peer.array(start)
        derivative = peer.jit(_in_mode(peer, mode)(lambda x: x[1:] * peer.np.sin(x[:-1])))
        return lambda: derivative(x)

    return Scenario(name=f"band of {n}, {mode}", setup=setup, expected=expected, peers=_peers(mode))


def nesting(n: int, mode: str) -> Scenario:
    """The Hessian of Rosenbrock's function."""
    start = np.random.default_rng(n).normal(size=n)

    def expected() -> np.ndarray:
        whole = np.zeros((n, n))
        i = np.arange(n - 1)
        whole[i, i] += 1200.0 * start[:-1] ** 2 - 400.0 * start[1:] + 2.0
        whole[i + 1, i + 1] += 200.0
        whole[i, i + 1] = whole[i + 1, i] = -400.0 * start[:-1]
        return whole

    def setup(peer: Peer) -> Callable[[], Any]:
        x = peer.array(start)

        def f(x: Any) -> Any:
            return peer.np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)

        if mode == "auto":
            derivative = peer.jit(functrace.hessian(f, mode="auto"))
        else:
            outer, inner = ({"fwd": peer.jacfwd, "rev": peer.jacrev}[m] for m in mode.split("-"))
            derivative = peer.jit(outer(inner(f)))
        return lambda: derivative(x)

    peers = ("functrace", "eager") if mode == "auto" else ("functrace", "eager", "jax", "torch")
    return Scenario(name=f"Hessian n={n}, {mode}", setup=setup, expected=expected, peers=peers)


def scenarios(smoke: bool) -> Iterator[Scenario]:
    for hidden in HIDDEN[:2] if smoke else HIDDEN:
        for parts in PARTS[:2] if smoke else PARTS:
            for mode in MODES:
                yield sweep(mode, hidden, parts)
    for mode in MODES:
        yield waist(60 if smoke else 1000, 4 if smoke else 10, 3 if smoke else 12, mode)
    for mode in MODES:
        yield sparse(20 if smoke else 400, mode)
    for n in (4,) if smoke else (4, 16, 64, 256):
        for mode in ("fwd-rev", "rev-rev", "fwd-fwd", "rev-fwd", "auto"):
            if n <= 64 or mode in ("fwd-rev", "rev-rev", "auto"):
                yield nesting(n, mode)
