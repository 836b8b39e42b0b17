"""Forward against reverse mode over n inputs and m outputs, on the Wine network sum((W2 tanh(W1 X) - y)^2) / 178.

The inputs are the n = 13 h weights W1 of h hidden units. The outputs are the loss in m parts: the sums over m equal
groups of the 178 wines. The answer is a closed form. JAX and functrace run compiled, "eager" is
functrace without compilation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench.harness import Scenario
from bench.peers import Peer
from functrace.demo.problems import network

HIDDEN = (1, 4, 16, 64)
PARTS = (1, 2, 89, 178)  # the divisors of 178


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

        derivative = peer.jit({"forward": peer.jacfwd, "reverse": peer.jacrev}[mode](losses))
        return lambda: derivative(W1)

    return Scenario(
        name=f"n={13 * hidden}, m={parts}, {mode}",
        setup=setup,
        expected=lambda: jacobian(hidden, parts),
        peers=("functrace", "eager", "autograd", "jax", "torch"),
    )


def scenarios(smoke: bool) -> Iterator[Scenario]:
    for hidden in HIDDEN[:2] if smoke else HIDDEN:
        for parts in PARTS[:2] if smoke else PARTS:
            for mode in ("forward", "reverse"):
                yield sweep(mode, hidden, parts)
