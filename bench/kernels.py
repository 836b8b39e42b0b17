"""The eager tier's kernels against NumPy over sizes, on the primitives that use them: where each pays, and how much.

The columns: the primitive with its kernel, compiled before, and with NumPy alone. `functrace.primitives._fast` holds
the thresholds read from this table; below them the kernels are not used, but here they are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import functrace
from bench.harness import Scenario
from bench.peers import Peer
from functrace.backend import kernels
from functrace.primitives import (
    _fast,
    _kernels,
    contraction,
    decompositions,
    families,
    indexing,
    linalg,
    reduction,
    scatter,
)
from functrace.primitives import cumulative as runs

SIZES = (30, 100, 300, 1_000, 10_000, 100_000, 1_000_000)
ROW_LENGTHS = (3, 6, 10, 16, 30, 100, 300)
DIMENSIONS = (2, 3, 4, 6, 8, 12, 16)


def compiled(call: Callable[[], Any], use: bool) -> Callable[[], Any]:
    """The call with kernels, or without."""

    def run() -> Any:
        _kernels.off = not use
        try:
            return call()
        finally:
            _kernels.off = False

    return run


@functools.cache
def ready() -> None:
    """Kernels of double precision compiled, and used whatever the size."""
    _fast.SHORT_ROW, _fast.VERY_SHORT_ROW, _fast.SMALL_MATRIX, _fast.THIN = (1 << 60,) * 4
    for name, kinds in kernels.KINDS.items():
        _kernels.KERNELS[name].least = 1
        for kind in kinds:
            if isinstance(kind, int) or kind in (np.dtype(np.float64), np.dtype(np.uint64)):
                kernels.load(name, kind)


def compare(name: str, size: int, call: Callable[[], Any], rtol: float = 1e-12) -> Scenario:
    def setup(peer: Peer) -> Callable[[], Any]:
        ready()
        return compiled(call, peer.name == "functrace")

    return Scenario(
        name=f"{name}, {size:,}",
        setup=setup,
        expected=compiled(call, False),
        peers=("functrace", "numpy"),
        operations=size,
        rtol=rtol,
    )


def indexed(n: int, rng: np.random.Generator) -> Iterator[Scenario]:
    """Writing n numbers to random places of an array, one by one and as rows of 16; reading from three axes."""
    places = max(n // 4, 4)
    at, values, x = rng.integers(0, places, n), rng.normal(size=n), rng.normal(size=places)
    writes = (indexing.scatter_add, scatter.scatter_multiply, scatter.scatter_max, indexing.scatter_set)
    for primitive in writes:
        yield compare(primitive.name, n, lambda p=primitive: p.impl(x, at, values, axes=(0,), unique=False))
    rows = max(n // 16, 1)
    table, chosen = rng.normal(size=(max(rows // 4, 4), 16)), rng.integers(0, max(rows // 4, 4), rows)
    updates = rng.normal(size=(rows, 16))
    for primitive in (indexing.scatter_add, scatter.scatter_max):
        name = f"{primitive.name} of rows of 16 (segment sums, extrema)"
        yield compare(name, rows * 16, lambda p=primitive: p.impl(table, chosen, updates, axes=(0,), unique=False))
    cube = rng.normal(size=(20, 30, 40))
    three = [rng.integers(0, length, n) for length in cube.shape]
    params: dict[str, Any] = {"axes": (0, 1, 2), "unique": False}
    yield compare("gather, three axes", n, lambda: indexing.gather.impl(cube, *three, **params))
    yield compare("scatter_add, three axes", n, lambda: indexing.scatter_add.impl(cube, *three, values, **params))
    yield compare("scatter_set, three axes", n, lambda: indexing.scatter_set.impl(cube, *three, values, **params))
    pair = [i[: max(n // 10, 1)] for i in three[:2]]
    thick = rng.normal(size=(20, 30, 10))
    yield compare(
        "gather, two of three axes, rows of 10",
        pair[0].size * 10,
        lambda: indexing.gather.impl(thick, *pair, axes=(0, 1), unique=False),
    )


def cumulative(n: int, rng: np.random.Generator) -> Iterator[Scenario]:
    x, y = np.exp(rng.choice((-0.01, 0.01), n)), rng.normal(size=n)  # products of size one
    for primitive in (runs.cumsum, runs.cumprod, runs.cummax):
        yield compare(primitive.name, n, lambda p=primitive: p.impl(x, axis=0, reverse=False))
    yield compare("linear_recurrence", n, lambda: runs.linear_recurrence.impl(x, y, axis=0, reverse=False))
    steps = max(n // 16, 1)
    a, b = x[: steps * 16].reshape(-1, 16) if n >= 16 else x[:, None], y[: steps * 16]
    b = b.reshape(a.shape)
    yield compare(
        "linear_recurrence of rows of 16", a.size, lambda: runs.linear_recurrence.impl(a, b, axis=0, reverse=False)
    )
    pullback = functrace.vjp(lambda x: functrace.numpy.cumprod(x), x)[1]
    yield compare("pullback of cumprod", n, lambda: pullback(y)[0])
    logs = functrace.vjp(lambda x: runs.cumlogsumexp(x, axis=0, reverse=False), y)[1]
    yield compare("pullback of cumlogsumexp", n, lambda: logs(x)[0])


def exponentials(n: int, rng: np.random.Generator) -> Iterator[Scenario]:
    for width in ROW_LENGTHS:
        if n < width:
            continue
        x = rng.normal(size=(n // width, width))
        labels = rng.integers(0, width, len(x))
        shares: dict[str, Any] = {"axes": (1,), "undefined": True}
        yield compare(f"softmax of rows of {width}", x.size, lambda x=x, p=shares: reduction.softmax.impl(x, **p))
        for primitive in (reduction.logsumexp, families.reduce_sum, reduction.reduce_max):
            name = f"{primitive.name} of rows of {width}"
            yield compare(name, x.size, lambda x=x, p=primitive: p.impl(x, axes=(1,)))

        def loss(x: Any, labels: Any = labels) -> Any:
            """Softmax cross-entropy."""
            scores = functrace.nn.log_softmax(x)
            return -functrace.numpy.mean(functrace.numpy.take_along_axis(scores, labels[:, None], 1))

        yield compare(
            f"cross-entropy and gradient, rows of {width}", x.size, lambda x=x, f=loss: functrace.grad(f)(x), rtol=1e-10
        )


def small_matrices(n: int, rng: np.random.Generator) -> Iterator[Scenario]:
    for d in DIMENSIONS:
        stack = n // (d * d)
        if not stack:
            continue
        a, b = rng.normal(size=(stack, d, d)) + 3.0 * np.eye(d), rng.normal(size=(stack, d, 1))
        positive = contraction.matmul(a, np.ascontiguousarray(a.swapaxes(1, 2))) + np.eye(d)
        yield compare(f"solve, {d} by {d}", a.size, lambda a=a, b=b: linalg.solve.impl(a, b), rtol=1e-9)
        yield compare(
            f"triangular_solve, {d} by {d}",
            a.size,
            lambda a=a, b=b: linalg.triangular_solve.impl(a, b, lower=True, unit=False),
            rtol=1e-9,
        )
        yield compare(f"cholesky, {d} by {d}", a.size, lambda a=positive: decompositions.cholesky.impl(a))


def scenarios(smoke: bool) -> Iterator[Scenario]:
    rng = np.random.default_rng(20261121)
    groups = (indexed, cumulative, exponentials, small_matrices)
    for group in groups:
        by_size = [list(group(n, rng)) for n in ((100,) if smoke else SIZES)]
        names = dict.fromkeys(s.name.rpartition(", ")[0] for row in by_size for s in row)
        for name in names:  # all sizes of a kernel together
            yield from [s for row in by_size for s in row if s.name.rpartition(", ")[0] == name]
