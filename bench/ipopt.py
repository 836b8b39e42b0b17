"""A whole solve by IPOPT, derivatives by functrace and by CasADi: `python -m bench.ipopt [--smoke] [--json F] [--md
F]`.

The problem is Luksan and Vlcek's chained Rosenbrock function with trigonometric-exponential constraints (report 767 of
the Academy of Sciences of the Czech Republic, 1999, problem 5.1). The solver is the same copy of IPOPT, that of
CasADi's wheel, with the same options; both start from nothing but the two functions in every round, and take turns.
What is compared is the time spent on derivatives: the set-up (from the functions to the solver being ready) and the
callbacks; the rest is IPOPT's own. Results are compared before anything is reported.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.harness import Progress, duration, machine
from functrace import optimize

CALLBACKS = ("nlp_f", "nlp_g", "nlp_grad_f", "nlp_jac_g", "nlp_hess_l")
OPTIONS: dict[str, Any] = {"print_level": 0, "sb": "yes"}


class Solve(NamedTuple):
    """One solve: the objective it ends at, and seconds."""

    objective: float
    iterations: int
    set_up: float
    callbacks: float
    whole: float


def start_of(n: int) -> np.ndarray:
    return np.where(np.arange(n) % 2 == 0, -1.2, 1.0)


def objective(x: Any) -> Any:
    return np.sum(100.0 * (x[:-1] ** 2 - x[1:]) ** 2 + (x[:-1] - 1.0) ** 2)


def constraints(x: Any) -> Any:
    a, b, c = x[:-2], x[1:-1], x[2:]
    return 3.0 * b**3 + 2.0 * c - 5.0 + np.sin(b - c) * np.sin(b + c) + 4.0 * b - a * np.exp(a - b) - 3.0


def by_functrace(n: int) -> Solve:
    begin = time.perf_counter()
    problem = optimize.Problem(objective, optimize.Constraint(constraints, 0.0, 0.0), x0=start_of(n))
    result = optimize.minimize(problem, "ipopt", options={**OPTIONS, "interface": "casadi"})
    whole = time.perf_counter() - begin
    set_up = whole - result.solver["t_wall_solve"]  # with the checks of the start and the making of the result
    return Solve(result.fun, result.nit, set_up, seconds_in_callbacks(result.solver), whole)


def by_casadi(n: int, kind: str) -> Solve:
    """With CasADi's own expressions: matrices ("MX") or scalars ("SX")."""
    import casadi

    begin = time.perf_counter()
    x = getattr(casadi, kind).sym("x", n)
    a, b, c = x[:-2], x[1:-1], x[2:]
    value = casadi.sum1(100 * (x[:-1] ** 2 - x[1:]) ** 2 + (x[:-1] - 1) ** 2)
    bound = 3 * b**3 + 2 * c - 5 + casadi.sin(b - c) * casadi.sin(b + c) + 4 * b - a * casadi.exp(a - b) - 3
    settings = {**{f"ipopt.{name}": value for name, value in OPTIONS.items()}, "print_time": False}
    solver = casadi.nlpsol("solver", "ipopt", {"x": x, "f": value, "g": bound}, settings)
    ready = time.perf_counter()
    found = solver(x0=start_of(n), lbg=0.0, ubg=0.0)
    whole = time.perf_counter() - begin
    stats = solver.stats()
    return Solve(float(found["f"]), stats["iter_count"], ready - begin, seconds_in_callbacks(stats), whole)


def seconds_in_callbacks(stats: dict[str, Any]) -> float:
    return sum(stats[f"t_wall_{name}"] for name in CALLBACKS)


PEERS: dict[str, Callable[[int], Solve]] = {
    "functrace": by_functrace,
    "CasADi MX": lambda n: by_casadi(n, "MX"),
    "CasADi SX": lambda n: by_casadi(n, "SX"),
}


#: Scalar expressions take seconds to set up beyond this.
LARGEST = {"CasADi SX": 1_000}


def measure(n: int, rounds: int, progress: Progress) -> dict[str, list[Solve]]:
    """Every peer's solves, one per round.

    Raises:
        AssertionError: two peers end at different objectives, or after different numbers of iterations.
    """
    names = [name for name in PEERS if n <= LARGEST.get(name, n)]
    solves: dict[str, list[Solve]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        progress.step(f"n = {n}, round {turn}")
        for shift in range(len(names)):  # nobody is always the first
            name = names[(turn + shift) % len(names)]
            gc.collect()
            solve = PEERS[name](n)
            if turn:  # the first round loads libraries
                solves[name].append(solve)
    ends = [solve for found in solves.values() for solve in found]
    assert np.ptp([solve.objective for solve in ends]) < 1e-6 * (1.0 + abs(ends[0].objective)), ends
    assert len({solve.iterations for solve in ends}) == 1, ends
    return solves


def rows_of(n: int, solves: dict[str, list[Solve]]) -> list[dict[str, Any]]:
    """Medians, and the median ratio of the time on derivatives to that of functrace in the same round."""
    own = np.array([s.set_up + s.callbacks for s in solves["functrace"]])
    rows = []
    for name, found in solves.items():
        spent = np.array([s.set_up + s.callbacks for s in found])
        rows.append(
            {
                "n": n,
                "peer": name,
                "iterations": found[0].iterations,
                "set_up": float(np.median([s.set_up for s in found])),
                "callbacks": float(np.median([s.callbacks for s in found])),
                "derivatives": float(np.median(spent)),
                "whole": float(np.median([s.whole for s in found])),
                "ratio": float(np.median(spent / own)),
            }
        )
    return rows


def to_markdown(rows: list[dict[str, Any]]) -> str:
    host = machine()
    lines = [
        "## bench: IPOPT",
        "",
        f"{host['cpu']}, {host['cores']} cores, Python {host['python']}. Medians of interleaved rounds; the ratio is "
        "that of the time on derivatives (set-up and callbacks) to functrace's.",
        "",
        "| n | derivatives by | iterations | set-up | callbacks | both | whole solve | ratio |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        times = [duration(row[key]) for key in ("set_up", "callbacks", "derivatives", "whole")]
        cells = [str(row["n"]), row["peer"], str(row["iterations"]), *times, f"{row['ratio']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.ipopt", description="Whole solves by IPOPT.")
    parser.add_argument("--smoke", action="store_true", help="small sizes, one round: only to see that it runs")
    parser.add_argument("--sizes", type=int, nargs="*", default=[100, 1_000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--md", type=Path, metavar="FILE", help="write the table that goes to stdout")
    options = parser.parse_args(argv)
    sizes, rounds = ([50], 1) if options.smoke else (options.sizes, options.rounds)
    progress = Progress(len(sizes) * (rounds + 1))
    rows: list[dict[str, Any]] = []
    try:
        for n in sizes:
            rows += rows_of(n, measure(n, rounds, progress))
    finally:
        progress.close()
    table = to_markdown(rows)
    print(table, end="")
    if options.md:
        options.md.write_text(table, encoding="utf-8")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
