"""Hand tracking after ADBench: 26 pose parameters move 22 bones, these the vertices; some vertices are compared.

Few of the vertices are used, so most of a large input has nothing to do with the result. The mesh is random: as in the
original a vertex hangs on a few bones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.harness import Scenario
from bench.peers import Peer

POSE = 26  # rotation 3, translation 3, and 4 angles for each of 5 fingers
FINGERS, JOINTS = 5, 4
BONES = 1 + FINGERS * JOINTS


def mesh(vertices: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets of the bones (5, 4, 3), vertices in homogeneous coordinates (4, v), weights (bones, v)."""
    rng = np.random.default_rng(vertices)
    offsets = rng.normal(size=(FINGERS, JOINTS, 3)) * 0.3 + [0.0, 1.0, 0.0]
    points = np.vstack([rng.normal(size=(3, vertices)), np.ones(vertices)])
    weights = np.zeros((BONES, vertices))
    for k in range(4):
        weights[rng.integers(0, BONES, vertices), np.arange(vertices)] += 0.1 + 0.2 * k
    return offsets, points, weights / weights.sum(0)


def turn(c: Any, s: Any, axis: int) -> list[list[Any]]:
    """A rotation about an axis as rows of numbers or expressions."""
    rows: list[list[Any]] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    i, j = ((1, 2), (0, 2), (0, 1))[axis]
    rows[i][i], rows[i][j], rows[j][i], rows[j][j] = c, -s, s, c
    return rows


def product(a: Any, b: Any) -> list[list[Any]]:
    """Of 3 by 3 or 3 by 4 matrices in rows; exact zeros and ones cost nothing."""

    def dot(row: Any, column: Any) -> Any:
        total: Any = 0.0
        for x, y in zip(row, column, strict=True):
            if (type(x) is float and x == 0.0) or (type(y) is float and y == 0.0):
                continue
            term = y if type(x) is float and x == 1.0 else x if type(y) is float and y == 1.0 else x * y
            total = term if type(total) is float and total == 0.0 else total + term
        return total

    return [[dot(row, column) for column in zip(*b, strict=True)] for row in a]


def placed(a: Any, rotation: Any, shift: Any) -> list[list[Any]]:
    """The placement (3 by 4) of a bone that is turned and shifted against its parent's placement `a`."""
    turned = product([row[:3] for row in a], rotation)
    moved = product([row[:3] for row in a], [[s] for s in shift])
    return [[*turned[i], moved[i][0] + a[i][3]] for i in range(3)]


def placements(xp: Any, pose: Any, offsets: np.ndarray) -> list[list[list[Any]]]:
    """The placements of all bones, of numbers."""
    c, s = xp.cos(pose), xp.sin(pose)
    root = product(product(turn(c[0], s[0], 0), turn(c[1], s[1], 1)), turn(c[2], s[2], 2))
    bones = [[[*root[i], pose[3 + i]] for i in range(3)]]
    for finger in range(FINGERS):
        parent = bones[0]
        for joint in range(JOINTS):
            angle = 6 + JOINTS * finger + joint
            rotation = turn(c[angle], s[angle], 2 if joint == 1 else 0)
            parent = placed(parent, rotation, [float(v) for v in offsets[finger, joint]])
            bones.append(parent)
    return bones


def residuals(peer: Peer, offsets: np.ndarray, used: np.ndarray) -> Callable[[Any, Any, Any, Any], Any]:
    """Where the compared vertices are, less where they were seen."""
    xp = peer.np

    def f(pose: Any, points: Any, weights: Any, seen: Any) -> Any:
        bones = placements(xp, pose, offsets)
        stacked = xp.stack([xp.stack([entry for row in bone for entry in row]) for bone in bones])  # (bones, 12)
        chosen, share = points[:, used], weights[:, used]
        blended = xp.matmul(stacked.T, share)  # (12, c)
        moved = [
            blended[4 * i] * chosen[0]
            + blended[4 * i + 1] * chosen[1]
            + blended[4 * i + 2] * chosen[2]
            + blended[4 * i + 3] * chosen[3]
            for i in range(3)
        ]
        return xp.stack(moved) - seen

    return f


def casadi_residuals(offsets: np.ndarray, used: np.ndarray, mesh: tuple[np.ndarray, ...], seen: np.ndarray) -> Any:
    """The same as one column of numbers; what is constant is put in as numbers, as CasADi's users do."""
    import casadi

    points, weights = mesh[1][:, used], mesh[2][:, used]

    def f(pose: Any) -> Any:
        bones = placements(casadi, pose, offsets)
        entries = casadi.horzcat(*(casadi.vertcat(*(entry for row in bone for entry in row)) for bone in bones))
        blended = casadi.mtimes(entries, casadi.sparsify(casadi.DM(weights)))
        rows = [
            sum(blended[4 * i + k, :] * casadi.DM(points[k : k + 1]) for k in range(4)) - casadi.DM(seen[i : i + 1])
            for i in range(3)
        ]
        return casadi.vec(casadi.vertcat(*rows).T)

    return f


def hand_tracking(vertices: int, compared: int) -> Scenario:
    """The Jacobian by the pose, 3 c by 26, forward mode."""
    offsets, points, weights = mesh(vertices)
    rng = np.random.default_rng(compared)
    used = rng.permutation(vertices)[:compared]
    pose, seen = 0.3 * rng.normal(size=POSE), rng.normal(size=(3, compared))

    def setup(peer: Peer) -> Callable[[], Any]:
        if peer.name == "casadi":
            jacobian = peer.jit(peer.jacfwd(casadi_residuals(offsets, used, (offsets, points, weights), seen)))
            return lambda: jacobian(pose)
        jacobian = peer.jit(peer.jacfwd(residuals(peer, offsets, used)))
        values = [peer.array(a) for a in (pose, points, weights, seen)]
        return lambda: jacobian(*values)

    def expected() -> Any:
        f = residuals(Peer(name="numpy", module="numpy", np=np), offsets, used)
        steps = 1e-150j * np.eye(POSE)
        return np.stack([f(pose + step, points, weights, seen).imag / 1e-150 for step in steps], -1).reshape(-1, POSE)

    return Scenario(
        name=f"hand, {compared:,} of {vertices:,} vertices",
        setup=setup,
        expected=expected,
        # JAX takes half a minute to compile it.
        peers=("functrace", "eager", "jax", "casadi") if vertices == 544 else ("functrace", "casadi"),
        observe=lambda result: np.reshape(result, (-1, POSE)),
    )
