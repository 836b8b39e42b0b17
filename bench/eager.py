"""Without compilation: gradients of small functions, depth of tracing, overhead of a call, cost of the import."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bench.harness import Scenario, complex_step
from bench.peers import Peer

Function = Callable[[Any], Any]


def twenty_operations(np: Any) -> Function:
    """A scalar function of twenty elementary operations."""

    def f(x: Any) -> Any:
        a = np.sin(x) * x + 1.5
        b = np.exp(a) + np.cos(x * 0.5)
        c = np.tanh(a * b) - x / (a + 2.0)
        d = np.log(c * c + 1.0) * b
        return np.sqrt(d * d + 1.0) + a

    return f


def loop(np: Any, iterations: int) -> Function:
    """A plain Python loop, two operations an iteration. Its derivative stays of size one."""

    def f(x: Any) -> Any:
        for _ in range(iterations):
            x = np.sin(x) * 1.001
        return x

    return f


def chain(np: Any, length: int) -> Function:
    """`length` operations, each on the result of the one before. Its derivative falls like length^(-3/2) only."""

    def f(x: Any) -> Any:
        for _ in range(length):
            x = np.sin(x)
        return x

    return f


def small_vector(np: Any) -> Function:
    """A scalar function of a vector: sum of tanh(x)^2 exp(-x), and a product of its halves."""

    def f(x: Any) -> Any:
        half = x.shape[0] // 2
        return np.sum(np.tanh(x) ** 2 * np.exp(-x)) + np.sum(x[:half] * np.sin(x[half:]))

    return f


def gradient(name: str, program: Callable[[Any], Function], x: Any, operations: int = 1, **fields: Any) -> Scenario:
    """Time of `grad(f)(x)`: tracing, the forward and the backward sweep."""

    def setup(peer: Peer) -> Callable[[], Any]:
        gradient, argument = peer.grad(program(peer.np)), peer.array(x)
        return lambda: gradient(argument)

    def expected() -> Any:
        return complex_step(program(np), x)

    return Scenario(name=name, setup=setup, expected=expected, operations=operations, **fields)


def tracing(length: int) -> Scenario:
    """Time to trace `length` operations into a jaxpr; the result checked is its number of equations."""

    def setup(peer: Peer) -> Callable[[], Any]:
        argument = peer.array(np.float64(0.5))
        # A new function each time: peers remember the jaxpr of one they have seen.
        return lambda: len(peer.make_jaxpr(chain(peer.np, length))(argument).eqns)

    # JAX takes seconds for the longest, so it is left out there.
    peers = ("functrace", "jax") if length <= 10_000 else ("functrace",)
    return Scenario(
        name=f"make_jaxpr, {length:,} operations",
        setup=setup,
        expected=lambda: length,
        peers=peers,
        operations=length,
    )


def overhead(name: str, call: Callable[[Any, Any], Any]) -> Scenario:
    """Time of one function outside any trace, on three numbers: what it costs beyond NumPy's own."""
    x = np.array([0.5, 1.0, 1.5])

    def setup(peer: Peer) -> Callable[[], Any]:
        namespace = peer.np
        return lambda: call(namespace, x)

    return Scenario(
        name=f"np.{name}, three numbers",
        setup=setup,
        expected=lambda: call(np, x),
        peers=("functrace", "numpy", "autograd"),
    )


OVERHEAD: dict[str, Callable[[Any, Any], Any]] = {
    "sin": lambda np, x: np.sin(x),
    "add": lambda np, x: np.add(x, x),
    "maximum": lambda np, x: np.maximum(x, 1.0),
    "where": lambda np, x: np.where(x > 1.0, x, 0.0),
    "sum": lambda np, x: np.sum(x),
    "dot": lambda np, x: np.dot(x, x),
    "reshape": lambda np, x: np.reshape(x, (3, 1)),
    "concatenate": lambda np, x: np.concatenate([x, x]),
    "linalg.norm": lambda np, x: np.linalg.norm(x),
}


def importing() -> Scenario:
    """Time of a new Python process that does nothing but import; beyond NumPy's is what the library adds."""

    def setup(peer: Peer) -> Callable[[], Any]:
        command = [sys.executable, "-c", f"import {peer.module}"]
        # As installed packages are: compiled to bytecode once.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return lambda: subprocess.run(command, check=True, env=environment).returncode

    return Scenario(
        name="import, in a new process",
        setup=setup,
        expected=lambda: 0,
        peers=("functrace", "numpy", "autograd", "jax", "torch"),
    )


def scenarios(smoke: bool) -> Iterator[Scenario]:
    iterations = 50 if smoke else 1_000
    yield gradient("grad, scalar function of 20 operations", twenty_operations, np.float64(0.7))
    yield gradient(
        f"grad, Python loop of {iterations:,} iterations",
        lambda np: loop(np, iterations),
        np.float64(0.5),
        operations=2 * iterations,
    )
    yield gradient("grad, vector of 10 to a scalar", small_vector, np.linspace(0.1, 1.0, 10))
    for length in (100,) if smoke else (1_000, 10_000, 100_000):
        yield tracing(length)
    for length in (100,) if smoke else (1_000, 10_000, 100_000):
        yield gradient(
            f"grad, {length:,} operations deep",
            lambda np, length=length: chain(np, length),
            np.float64(0.5),
            operations=length,
            peers=("functrace", "autograd", "torch"),
        )
    for name, call in OVERHEAD.items():
        yield overhead(name, call)
    yield importing()
