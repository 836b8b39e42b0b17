"""Loops: the gradient of a recurrent network over many steps as a `scan` and as a Python loop, and tracing it.

The state h of n numbers goes h <- tanh(W h + x) over the rows x of an array; the gradient is that of its final sum
with respect to W. The answer is the adjoint recursion written by hand. JAX and functrace run their scans compiled,
"eager" is functrace without compilation; who has no scan runs a Python loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench.harness import Scenario
from bench.peers import Peer, python_scan

Loop = Callable[..., Any]


def problem(state: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights that keep the state neither dying nor saturated, and inputs."""
    rng = np.random.default_rng(20260713)
    weights = np.linalg.qr(rng.normal(size=(state, state)))[0]
    return 0.98 * weights, 0.1 * rng.normal(size=(steps, state))


def adjoint(weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """The gradient by hand."""
    states = [np.zeros(len(weights))]
    for x in inputs:
        states.append(np.tanh(weights @ states[-1] + x))
    bar, gradient = np.ones(len(weights)), np.zeros_like(weights)
    for before, after in zip(states[-2::-1], states[:0:-1], strict=True):
        inner = bar * (1.0 - after**2)
        gradient += np.outer(inner, before)
        bar = weights.T @ inner
    return gradient


def network(peer: Peer, loop: Loop) -> Callable[[Any, Any], Any]:
    """The final state's sum, from weights and inputs."""
    namespace = peer.np

    def f(weights: Any, inputs: Any) -> Any:
        start = peer.array(np.zeros(inputs.shape[1]))

        def step(h: Any, x: Any) -> tuple[Any, None]:
            return namespace.tanh(namespace.matmul(weights, h) + x), None

        return namespace.sum(loop(step, start, inputs)[0])

    return f


def gradient(state: int, steps: int, unrolled: bool) -> Scenario:
    weights, inputs = problem(state, steps)

    def setup(peer: Peer) -> Callable[[], Any]:
        derivative = peer.grad(network(peer, python_scan if unrolled else peer.scan))
        compiled = derivative if unrolled else peer.jit(derivative)
        arguments = peer.array(weights), peer.array(inputs)
        return lambda: compiled(*arguments)

    return Scenario(
        name=f"grad, {'Python loop' if unrolled else 'scan'} of {steps:,} steps, state of {state}",
        setup=setup,
        expected=lambda: adjoint(weights, inputs),
        peers=("functrace", "autograd") if unrolled else ("functrace", "eager", "autograd", "jax"),
        operations=steps,
    )


def tracing(steps: int) -> Scenario:
    """Time to record the gradient; the result checked is how many equations it has more than one of ten steps."""

    def setup(peer: Peer) -> Callable[[], Any]:
        weights, inputs = map(peer.array, problem(4, steps))

        def count(inputs: Any) -> int:
            # A new function each time: peers remember the jaxpr of one they have seen.
            return len(peer.make_jaxpr(peer.grad(network(peer, peer.scan)))(weights, inputs).eqns)

        few = count(inputs[:10])
        return lambda: count(inputs) - few

    return Scenario(
        name=f"make_jaxpr of grad, scan of {steps:,} steps",
        setup=setup,
        expected=lambda: 0,
        peers=("functrace", "jax"),
    )


def scenarios(smoke: bool) -> Iterator[Scenario]:
    steps = 20 if smoke else 1_000
    for state in (4, 64):
        for unrolled in (False, True):
            yield gradient(state, steps, unrolled)
    for length in (10, 100) if smoke else (10, 1_000, 100_000):
        yield tracing(length)
