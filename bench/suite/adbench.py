"""The programs of ADBench on synthetic data: mixture of Gaussians, bundle adjustment, LSTM, hand tracking.

F. Srajer, Z. Kukelova, A. Fitzgibbon: A benchmark of selected algorithmic differentiation tools on some problems in
computer vision and machine learning, Optimization Methods and Software 33 (2018). Derivatives too large for a closed
form are checked along random directions by the complex step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from bench.harness import Scenario
from bench.peers import Peer
from bench.suite.bars import Row
from bench.suite.hand import hand_tracking

Function = Callable[..., Any]
DIRECTIONS = 3


def directions(shapes: Sequence[tuple[int, ...]]) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(7)
    return [[rng.normal(size=shape) for shape in shapes] for _ in range(DIRECTIONS)]


def along(f: Function, xs: Sequence[np.ndarray]) -> np.ndarray:
    """Derivatives of an analytic function of several arrays along the directions, by the complex step."""
    h = 1e-150
    found = []
    for vs in directions([x.shape for x in xs]):
        found.append(f(*(x + 1j * h * v for x, v in zip(xs, vs, strict=True))).imag / h)
    return np.array(found)


def projected(gradients: Sequence[Any]) -> np.ndarray:
    """The same of a gradient."""
    arrays = [np.asarray(g) for g in gradients]
    chosen = directions([g.shape for g in arrays])
    return np.array([sum(np.vdot(v, g) for v, g in zip(vs, arrays, strict=True)) for vs in chosen])


def gradient_of(
    name: str,
    program: Callable[[Peer], Function],
    plain: Function,
    parameters: Sequence[np.ndarray],
    rest: Sequence[Any],
    peers: Sequence[str],
) -> Scenario:
    """The compiled gradient by a tuple of parameters."""

    def setup(peer: Peer) -> Callable[[], Any]:
        both = peer.value_and_grad(program(peer))
        count = len(parameters)
        compiled = peer.jit(lambda *args: both(args[:count], *args[count:])[1])
        values = [peer.array(a) for a in (*parameters, *rest)]
        return lambda: compiled(*values)

    return Scenario(
        name=name,
        setup=setup,
        expected=lambda: along(lambda *p: plain(p, *rest), parameters),
        observe=projected,
        peers=peers,
        rtol=1e-8,
    )


# mixture of Gaussians


def mixture(xp: Any, d: int) -> Function:
    """Negative log-likelihood with a Wishart prior, constants left out."""
    places = np.full((d, d), d * (d - 1) // 2)
    places[np.tril_indices(d, -1)] = np.arange(d * (d - 1) // 2)

    def loss(p: Any, x: Any, zero: Any) -> Any:
        alphas, means, factors = p
        logs = factors[:, :d]
        scales = xp.exp(logs)
        lower = xp.concatenate([factors[:, d:], zero], 1)[:, places]
        apart = x[:, None, :] - means[None, :, :]
        whitened = scales * apart + xp.einsum("kij,nkj->nki", lower, apart)
        terms = alphas + xp.sum(logs, 1) - 0.5 * xp.sum(whitened**2, 2)
        peak = xp.amax(terms, 1)
        likelihood = xp.sum(xp.log(xp.sum(xp.exp(terms - peak[:, None]), 1)) + peak)
        prior = 0.5 * (xp.sum(scales**2) + xp.sum(lower**2))
        return prior + x.shape[0] * xp.log(xp.sum(xp.exp(alphas))) - likelihood

    return loss


def gmm(d: int, k: int, points: int) -> Scenario:
    rng = np.random.default_rng(d * k)
    parameters = rng.normal(size=k), rng.random((k, d)), rng.normal(size=(k, d * (d + 1) // 2)) / d
    x = rng.normal(size=(points, d))
    return gradient_of(
        f"GMM, d={d}, K={k}, {points:,} points",
        lambda peer: mixture(peer.np, d),
        mixture(np, d),
        parameters,
        (x, np.zeros((k, 1))),
        ("functrace", "eager", "autograd", "jax", "torch") if d * k <= 100 else ("functrace", "jax"),
    )


# bundle adjustment


def reprojection(xp: Any) -> Function:
    """The weighted error of an observation by (camera 11, point 3, weight 1), and the place where it was seen."""

    def residual(p: Any, seen: Any) -> Any:
        rotation, point = [p[0], p[1], p[2]], [p[11] - p[3], p[12] - p[4], p[13] - p[5]]
        angle2 = rotation[0] ** 2 + rotation[1] ** 2 + rotation[2] ** 2
        angle = xp.sqrt(angle2)
        cosine, sine = xp.cos(angle), xp.sin(angle)
        u = [r / angle for r in rotation]
        crossed = [
            u[1] * point[2] - u[2] * point[1],
            u[2] * point[0] - u[0] * point[2],
            u[0] * point[1] - u[1] * point[0],
        ]
        share = (u[0] * point[0] + u[1] * point[1] + u[2] * point[2]) * (1.0 - cosine)
        x, y, z = (q * cosine + c * sine + share * a for q, c, a in zip(point, crossed, u, strict=True))
        x, y = x / z, y / z
        radius = x * x + y * y
        distortion = 1.0 + p[9] * radius + p[10] * radius * radius
        return xp.stack(
            [p[14] * (p[6] * distortion * x + p[7] - seen[0]), p[14] * (p[6] * distortion * y + p[8] - seen[1])]
        )

    return residual


def bundle(observations: int) -> Scenario:
    """All blocks, 2 by 15 each, as one batch of small Jacobians."""
    rng = np.random.default_rng(1)
    p, seen = rng.normal(size=(observations, 15)), rng.normal(size=(observations, 2))
    p[:, 13] += 10.0 * np.sign(p[:, 13])

    def setup(peer: Peer) -> Callable[[], Any]:
        blocks = peer.jit(peer.vmap(peer.jacrev(reprojection(peer.np))))
        values = peer.array(p), peer.array(seen)
        return lambda: blocks(*values)

    def expected() -> Any:
        h, columns = 1e-150, []
        for k in range(15):
            moved = p.astype(complex)
            moved[:, k] += 1j * h
            columns.append(reprojection(np)(moved.T, seen.T).imag / h)
        return np.moveaxis(np.array(columns), (0, 1, 2), (2, 1, 0))

    return Scenario(
        name=f"BA, Jacobian blocks of {observations:,} observations",
        setup=setup,
        expected=expected,
        peers=("functrace", "eager", "jax", "torch"),
    )


# LSTM


def lstm_loss(peer: Peer) -> Function:
    """Cross-entropy of the next character; gates are elementwise, as in ADBench."""
    xp = peer.np

    def sigmoid(x: Any) -> Any:
        return 0.5 * xp.tanh(0.5 * x) + 0.5

    def loss(p: Any, rows: Any, zeros: Any, nothing: Any) -> Any:
        weights, extra = p
        layers, d = weights.shape[0] // 2, extra.shape[1]

        def step(carry: Any, row: Any) -> Any:
            state, total = carry
            x, target, new = row[:d] * extra[0], row[d:], []
            for k in range(layers):
                hidden, cell, w, b = state[2 * k], state[2 * k + 1], weights[2 * k], weights[2 * k + 1]
                forget = sigmoid(x * w[:d] + b[:d])
                enter = sigmoid(hidden * w[d : 2 * d] + b[d : 2 * d])
                leave = sigmoid(x * w[2 * d : 3 * d] + b[2 * d : 3 * d])
                change = xp.tanh(hidden * w[3 * d :] + b[3 * d :])
                cell = cell * forget + enter * change
                x = leave * xp.tanh(cell)
                new += [x, cell]
            scores = x * extra[1] + extra[2]
            total = total + xp.log(xp.sum(xp.exp(scores))) - xp.sum(scores * target)
            return (xp.stack(new), total), None

        (_, total), _ = peer.scan(step, (zeros, nothing), rows)
        return total / rows.shape[0]

    return loss


def lstm(layers: int, length: int) -> Scenario:
    rng, d = np.random.default_rng(layers), 14
    text = np.eye(d)[rng.integers(0, d, length + 1)]
    parameters = rng.normal(size=(2 * layers, 4 * d)), rng.normal(size=(3, d))
    rest = np.hstack([text[:-1], text[1:]]), np.zeros((2 * layers, d)), np.float64(0.0)
    plain = lstm_loss(Peer(name="numpy", module="numpy", np=np))
    return gradient_of(
        f"LSTM, {layers} layers, {length:,} characters", lstm_loss, plain, parameters, rest, ("functrace", "jax")
    )


def rows(smoke: bool) -> Iterator[Row]:
    sizes = ((2, 5),) if smoke else ((2, 5), (10, 5), (10, 25), (20, 25), (64, 25))
    yield Row(
        name="ADBench GMM",
        bar="no slower than JAX",
        scenarios=[gmm(d, k, 50 if smoke else 1_000) for d, k in sizes],
        faster={"jax": 1.0},
    )
    texts = ((2, 30),) if smoke else ((2, 1024), (4, 1024))
    yield Row(
        name="ADBench BA, LSTM",
        bar="2 times faster than JAX",
        scenarios=[bundle(100 if smoke else 31_843), *(lstm(*text) for text in texts)],
        faster={"jax": 2.0},
    )
    vertices = ((40, 10),) if smoke else ((544, 100), (10_000, 1_000))
    yield Row(
        name="ADBench hand tracking",
        bar="no slower than CasADi",
        scenarios=[hand_tracking(*size) for size in vertices],
        faster={"casadi": 1.0},
    )
