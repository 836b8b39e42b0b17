"""The sparse Hessian of a Lagrangian: one evaluation, and the time to the first, on three structures,
one of them written in two ways.

- control: Van der Pol's oscillator, Runge-Kutta steps by multiple shooting (blocks along the diagonal);
- shooting: the same with a Python loop over the intervals;
- banded: the chained Rosenbrock function with trigonometric-exponential constraints (L. Lukšan and J. Vlček, 1999);
- arrow: bundle adjustment, four cameras, each point seen by two (every point borders on cameras).

CasADi builds its graph from MX or SX symbols and evaluates through bound buffers; JAX computes the dense Hessian; for
the banded problem there is a loop written by hand for Numba. All give the entries of the lower triangle, by columns.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import functrace
import functrace.numpy as fnp
from bench.harness import Scenario
from bench.peers import Peer
from functrace.sparse._programs import flat_program
from functrace.sparse.elements import element_hessian

SIZES = (100, 1_000, 10_000, 100_000)
#: Dense matrices, and graphs of single numbers, up to here.
DENSE = 1_000
SCALAR = 10_000
#: CasADi needs minutes for larger arrows.
ARROW_MX, ARROW_SX = 10_000, 1_000
#: Loops over the intervals are unrolled by all, up to here.
UNROLLED = 10_000
#: Building again and again is timed up to here only.
BUILDS = 1_000


class Array:
    """How array code is written for NumPy-like namespaces."""

    def __init__(self, np: Any) -> None:
        self.np = np

    def join(self, *parts: Any) -> Any:
        return self.np.concatenate(parts)

    def stack(self, numbers: list[Any]) -> Any:
        return self.np.stack(numbers)

    def dot(self, x: Any, y: Any) -> Any:
        return x @ y

    def __getattr__(self, name: str) -> Any:
        return getattr(self.np, name)


class Symbols(Array):
    """The same for CasADi's column vectors."""

    def join(self, *parts: Any) -> Any:
        return self.np.vertcat(*parts)

    def stack(self, numbers: list[Any]) -> Any:
        return self.np.vertcat(*numbers)

    def dot(self, x: Any, y: Any) -> Any:
        return self.np.dot(x, y)

    def sum(self, x: Any) -> Any:
        return self.np.sum1(x)


Lagrangian = Callable[[Array, Any, Any, Any], Any]


@dataclass(frozen=True)
class Problem:
    """A Lagrangian and a point.

    Args:
        lagrangian: of (language, x, multipliers, weight of the objective).
        x, lam: the point.
        sigma: the weight of the objective.
    """

    lagrangian: Lagrangian
    x: np.ndarray
    lam: np.ndarray
    sigma: float = 0.7

    @property
    def arguments(self) -> tuple[Any, ...]:
        return self.x, self.lam, np.float64(self.sigma)


def control(n: int) -> Problem:
    """States a (steps + 1) and b (steps + 1), then controls u (steps)."""
    steps = (n - 2) // 3
    h = 5.0 / steps

    def lagrangian(xp: Array, z: Any, lam: Any, sigma: Any) -> Any:
        a, b, u = z[: steps + 1], z[steps + 1 : 2 * steps + 2], z[2 * steps + 2 : 3 * steps + 2]

        def slope(a: Any, b: Any) -> tuple[Any, Any]:
            return (1 - b * b) * a - b + u, a

        x, y = a[:steps], b[:steps]
        k1 = slope(x, y)
        k2 = slope(x + h / 2 * k1[0], y + h / 2 * k1[1])
        k3 = slope(x + h / 2 * k2[0], y + h / 2 * k2[1])
        k4 = slope(x + h * k3[0], y + h * k3[1])
        to_x = x + h / 6 * (k1[0] + 2 * k2[0] + 2 * k3[0] + k4[0])
        to_y = y + h / 6 * (k1[1] + 2 * k2[1] + 2 * k3[1] + k4[1])
        defects = xp.join(a[1:] - to_x, b[1:] - to_y)
        return sigma * (xp.dot(x, x) + xp.dot(y, y) + xp.dot(u, u)) + xp.dot(lam, defects)

    rng = np.random.default_rng(n)
    return Problem(lagrangian, rng.normal(size=3 * steps + 2), rng.normal(size=2 * steps))


def shooting(n: int) -> Problem:
    """Likewise, interval by interval: (a, b, u) of each, then the last state."""
    steps = (n - 2) // 3
    h = 5.0 / steps

    def lagrangian(xp: Array, z: Any, lam: Any, sigma: Any) -> Any:
        cost, defects = 0.0, []
        for k in range(steps):
            x, y, u = z[3 * k], z[3 * k + 1], z[3 * k + 2]

            def slope(a: Any, b: Any, u: Any = u) -> tuple[Any, Any]:
                return (1 - b * b) * a - b + u, a

            k1 = slope(x, y)
            k2 = slope(x + h / 2 * k1[0], y + h / 2 * k1[1])
            k3 = slope(x + h / 2 * k2[0], y + h / 2 * k2[1])
            k4 = slope(x + h * k3[0], y + h * k3[1])
            defects += [
                z[3 * k + 3] - (x + h / 6 * (k1[0] + 2 * k2[0] + 2 * k3[0] + k4[0])),
                z[3 * k + 4] - (y + h / 6 * (k1[1] + 2 * k2[1] + 2 * k3[1] + k4[1])),
            ]
            cost = cost + x * x + y * y + u * u
        return sigma * cost + xp.dot(lam, xp.stack(defects))

    rng = np.random.default_rng(n)
    return Problem(lagrangian, rng.normal(size=3 * steps + 2), rng.normal(size=2 * steps))


def banded(n: int) -> Problem:
    def lagrangian(xp: Array, x: Any, lam: Any, sigma: Any) -> Any:
        a, b, c = x[: n - 2], x[1 : n - 1], x[2:]
        left, right = x[: n - 1], x[1:]
        objective = xp.sum(100 * (left * left - right) ** 2 + (left - 1) ** 2)
        constraints = 3 * b**3 + 2 * c - 5 + xp.sin(b - c) * xp.sin(b + c) + 4 * b - a * xp.exp(a - b) - 3
        return sigma * objective + xp.dot(lam, constraints)

    rng = np.random.default_rng(n)
    return Problem(lagrangian, rng.normal(size=n), rng.normal(size=n - 2))


def arrow(n: int) -> Problem:
    """Four cameras of seven numbers (rotation vector, translation, focal length), then the points."""
    points = (n - 28) // 3
    rng = np.random.default_rng(n)
    camera = np.stack([np.arange(points) % 4, (np.arange(points) + 1) % 4], 1).reshape(-1)
    point = np.repeat(np.arange(points), 2)
    views = [[int(k) for k in 7 * camera + j] for j in range(7)]
    places = [[int(k) for k in 28 + 3 * point + j] for j in range(3)]
    seen = rng.normal(size=(2, 2 * points))

    def lagrangian(xp: Array, x: Any, lam: Any, sigma: Any) -> Any:
        if isinstance(xp, Symbols):
            w, p = [x[k] for k in views], [x[k] for k in places]
            targets = [xp.np.DM(s) for s in seen]
        else:
            cameras, coordinates = x[:28].reshape(4, 7)[camera], x[28 : 28 + 3 * points].reshape(points, 3)[point]
            w, p = [cameras[:, j] for j in range(7)], [coordinates[:, j] for j in range(3)]
            targets = list(seen)
        angle2 = w[0] * w[0] + w[1] * w[1] + w[2] * w[2]
        angle = xp.sqrt(angle2)
        s, c = xp.sin(angle) / angle, (1 - xp.cos(angle)) / angle2
        turned = [w[(j + 1) % 3] * p[(j + 2) % 3] - w[(j + 2) % 3] * p[(j + 1) % 3] for j in range(3)]
        twice = [w[(j + 1) % 3] * turned[(j + 2) % 3] - w[(j + 2) % 3] * turned[(j + 1) % 3] for j in range(3)]
        q = [p[j] + s * turned[j] + c * twice[j] + w[3 + j] for j in range(3)]
        off = [w[6] * q[j] / q[2] - targets[j] for j in range(2)]
        return sigma * 0.5 * (xp.dot(off[0], off[0]) + xp.dot(off[1], off[1]))

    cameras = np.hstack([rng.normal(size=(4, 5)) * 0.3, 5 + rng.random((4, 1)), 1 + rng.random((4, 1))])
    return Problem(lagrangian, np.concatenate([cameras.reshape(-1), rng.normal(size=3 * points)]), np.zeros(1))


PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "control": control, "shooting": shooting, "banded": banded, "arrow": arrow,
}  # fmt: skip


class Expected:
    """The Hessian times a few vectors, by central differences of the gradient: it holds for any structure."""

    def __init__(self, problem: Problem) -> None:
        language = Array(fnp)
        gradient = functrace.grad(lambda x: problem.lagrangian(language, x, problem.lam, problem.sigma))
        rng = np.random.default_rng(1)
        self.directions = rng.normal(size=(2, problem.x.size))
        h = 1e-5
        self.products = np.array(
            [
                (8 * (gradient(problem.x + h * v) - gradient(problem.x - h * v))
                 - (gradient(problem.x + 2 * h * v) - gradient(problem.x - 2 * h * v))) / (12 * h)
                for v in self.directions
            ]
        )  # fmt: skip


class Entries:
    """Entries of a lower triangle, as a peer gives them."""

    def __init__(self, rows: np.ndarray, cols: np.ndarray, values: Any, directions: np.ndarray) -> None:
        self.rows, self.cols, self.values, self.directions = rows, cols, values, directions

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        values = np.asarray(self.values)
        apart = self.rows != self.cols
        found = []
        for v in self.directions:
            product = np.bincount(self.rows, values * v[self.cols], v.size)
            product += np.bincount(self.cols[apart], (values * v[self.rows])[apart], v.size)
            found.append(product)
        return np.array(found)


def build(peer: Peer, problem: Problem) -> tuple[Callable[[], Any], Any, Any]:
    """A call that evaluates the Hessian, and the rows and columns of what it gives."""
    if peer.name.startswith("casadi"):
        return build_casadi(peer, problem)
    if peer.name == "numba":
        return build_loops(problem)
    language = Array(peer.np)

    def lagrangian(x: Any, lam: Any, sigma: Any) -> Any:
        return problem.lagrangian(language, x, lam, sigma)

    if peer.name == "functrace":
        hessian = element_hessian(flat_program(lagrangian, problem.arguments, "hessian").closed)
        arguments = problem.arguments

        def values() -> Any:
            return hessian.values(*arguments)

        values.compile = hessian.compile  # type: ignore[attr-defined]
        return values, hessian.rows, hessian.cols
    rows, cols = np.tril_indices(problem.x.size)
    dense = peer.jit(peer.jacfwd(peer.grad(lagrangian)))
    arguments = tuple(map(peer.array, problem.arguments))
    return lambda: peer.ready(dense(*arguments)), rows, cols


def build_casadi(peer: Peer, problem: Problem) -> tuple[Callable[[], Any], Any, Any]:
    casadi = peer.np
    kind = getattr(casadi, peer.name.partition("-")[2].upper())
    x, lam, sigma = kind.sym("x", problem.x.size), kind.sym("lam", problem.lam.size), kind.sym("sigma")
    value = problem.lagrangian(Symbols(casadi), x, lam, sigma)
    lower = casadi.tril(casadi.hessian(value, x)[0])
    function = casadi.Function("hessian", [x, lam, sigma], [lower])
    sparsity = function.sparsity_out(0)
    out = np.zeros(sparsity.nnz())
    arguments = [np.ascontiguousarray(a, float).reshape(-1) for a in problem.arguments]
    buffer, evaluate = function.buffer()
    for k, argument in enumerate(arguments):
        buffer.set_arg(k, memoryview(argument))
    buffer.set_res(0, memoryview(out))

    def call() -> np.ndarray:
        evaluate()
        return out

    call.keep = buffer, arguments  # type: ignore[attr-defined]
    return call, np.array(sparsity.row()), np.array(sparsity.get_col())


def build_loops(problem: Problem) -> tuple[Callable[[], Any], Any, Any]:
    """The banded problem by hand: derivatives on paper, one loop over each family, compiled by Numba."""
    import numba

    n = problem.x.size

    @numba.njit
    def loops(x: Any, lam: Any, sigma: Any, out: Any) -> None:  # diagonal at even places, the one below at odd ones
        out[:] = 0.0
        for i in range(n - 1):
            out[2 * i] += sigma * (1200.0 * x[i] * x[i] - 400.0 * x[i + 1] + 2.0)
            out[2 * i + 1] += -400.0 * sigma * x[i]
            out[2 * i + 2] += 200.0 * sigma
        for i in range(n - 2):
            a, b, c, w = x[i], x[i + 1], x[i + 2], lam[i]
            e = math.exp(a - b)
            out[2 * i] -= w * (2.0 + a) * e
            out[2 * i + 1] += w * (1.0 + a) * e
            out[2 * i + 2] += w * (18.0 * b + 2.0 * math.cos(2.0 * b) - a * e)
            out[2 * i + 4] -= w * 2.0 * math.cos(2.0 * c)

    out = np.zeros(2 * n - 1)

    def call() -> np.ndarray:
        loops(*problem.arguments, out)
        return out

    places = np.arange(2 * n - 1)
    return call, (places + 1) // 2, places // 2


def entries(peer: Peer, problem: Problem, reference: Expected, call: Callable[[], Any], rows: Any, cols: Any) -> Any:
    """The call, giving something that can be compared whatever the structure."""

    def evaluate() -> Any:
        values = call()
        if np.ndim(values) == 2:
            values = np.asarray(values)[rows, cols]
        return Entries(rows, cols, values, reference.directions)

    return evaluate


def evaluation(name: str, n: int, peers: tuple[str, ...]) -> Scenario:
    problem = PROBLEMS[name](n)
    reference = functools.cache(lambda: Expected(problem))

    def setup(peer: Peer) -> Callable[[], Any]:
        reference()  # apart from what is timed
        call, rows, cols = build(peer, problem)
        settle(call)
        checked = entries(peer, problem, reference(), call, rows, cols)
        first = True

        def run() -> Any:  # the first call is the one that is checked
            nonlocal first
            if first:
                first = False
                return checked()
            return call()

        return run

    return Scenario(
        name=f"{name}, n = {n:,}: evaluation",
        setup=setup,
        expected=lambda: reference().products,
        peers=peers,
        rtol=1e-6,
    )


def settle(call: Callable[[], Any]) -> None:
    """Let code that is made in the background be finished."""
    call()
    compile_now = getattr(call, "compile", None)
    if compile_now is not None:
        compile_now()


def first_hessian(name: str, n: int, peers: tuple[str, ...]) -> Scenario:
    problem = PROBLEMS[name](n)
    reference = functools.cache(lambda: Expected(problem))

    def setup(peer: Peer) -> Callable[[], Any]:
        reference()  # apart from what is timed

        def run() -> Any:
            call, rows, cols = build(peer, problem)
            return entries(peer, problem, reference(), call, rows, cols)()

        return run

    return Scenario(
        name=f"{name}, n = {n:,}: to the first Hessian",
        setup=setup,
        expected=lambda: reference().products,
        peers=peers,
        rtol=1e-6,
    )


def who(name: str, n: int) -> tuple[str, ...]:
    """The peers that can do it in reasonable time."""
    peers = ["functrace"]
    if name != "arrow" or n <= ARROW_MX:
        peers.append("casadi-mx")
    if n <= (ARROW_SX if name == "arrow" else SCALAR):
        peers.append("casadi-sx")
    if n <= (0 if name == "shooting" else DENSE):  # JAX needs minutes for loops in Python
        peers.append("jax")
    return tuple(peers)


def scenarios(smoke: bool) -> Iterator[Scenario]:
    for name in ("control", "shooting", "banded") if smoke else PROBLEMS:
        for n in (100,) if smoke else [n for n in SIZES if name != "shooting" or n <= UNROLLED]:
            peers = who(name, n)
            yield evaluation(name, n, (*peers, "numba") if name == "banded" else peers)
            yield first_hessian(name, n, tuple(p for p in peers if p != "jax" and (p != "casadi-sx" or n <= BUILDS)))
