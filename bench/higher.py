"""The k-th derivative of a scalar function of twenty operations: Taylor mode beside nested forward mode.

Nested forward mode doubles the work with each order; Taylor mode is quadratic in it. JAX's Taylor mode
(`jax.experimental.jet`) takes part where JAX is installed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench.eager import twenty_operations
from bench.harness import Scenario
from bench.peers import Peer

POINT = 4.0  # where tanh is far from 1: near it, 1 - tanh^2 cancels, and the error grows tenfold with each order
ORDERS = tuple(range(1, 13))
NESTED = 8  # the highest order by nested forward mode: it takes about three times longer with each


def exact(order: int) -> float:
    """The derivative by mpmath's differences, with eighty digits."""
    import mpmath  # noqa: PLC0415  (for the check only)

    with mpmath.workdps(80):
        coefficients = mpmath.taylor(twenty_operations(mpmath), mpmath.mpf(POINT), order)
        return float(coefficients[order] * math.factorial(order))


def taylor_mode(order: int) -> Scenario:
    def setup(peer: Peer) -> Callable[[], Any]:
        derivative = peer.jit(peer.nth_derivative(twenty_operations(peer.np), order))
        x = peer.array(np.float64(POINT))
        return lambda: derivative(x)

    return Scenario(
        name=f"order {order}, Taylor mode",
        setup=setup,
        expected=lambda: exact(order),
        peers=("functrace", "eager", "jax"),
        rtol=1e-7,
    )


def nested_mode(order: int) -> Scenario:
    def setup(peer: Peer) -> Callable[[], Any]:
        derivative = twenty_operations(peer.np)
        for _ in range(order):
            derivative = peer.jacfwd(derivative)
        x = peer.array(np.float64(POINT))
        derivative = peer.jit(derivative)
        return lambda: derivative(x)

    return Scenario(
        name=f"order {order}, nested forward mode",
        setup=setup,
        expected=lambda: exact(order),
        peers=("functrace", "eager", "jax"),
        rtol=1e-7,
    )


def scenarios(smoke: bool) -> Iterator[Scenario]:
    for order in ORDERS[:2] if smoke else ORDERS:
        yield taylor_mode(order)
        if order <= (2 if smoke else NESTED):
            yield nested_mode(order)
