"""Colourings: how many colours, and how long: `python -m bench.coloring [--smoke] [--json FILE] [--md FILE]`.

Every colouring is checked before it is timed. networkx colours the square of the graph (or the columns' intersection
graph) greedily where that is small enough to be built; its time does not include building it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.harness import Progress, duration, machine
from functrace.sparse import _greedy
from functrace.sparse._by_position import is_star_coloring
from functrace.sparse.coloring import ORDERS, acyclic_coloring, column_coloring, edges_of, star_coloring
from functrace.sparse.substitution import forest_of

Pattern = tuple[np.ndarray, np.ndarray, tuple[int, int]]
NETWORKX_UP_TO = 1_000_000  # pairs of columns or vertices that meet in a row


class Row(NamedTuple):
    """One colouring of one pattern: number of colours and median seconds, by default and in each order."""

    pattern: str
    kind: str
    nonzeros: int
    colors: dict[str, int]
    seconds: dict[str, float]


def banded(n: int, half: int = 2) -> Pattern:
    offsets = np.arange(-half, half + 1)
    rows = np.repeat(np.arange(n), offsets.size)
    cols = rows + np.tile(offsets, n)
    inside = (cols >= 0) & (cols < n)
    return rows[inside], cols[inside], (n, n)


def arrow(n: int, cameras: int = 4, parameters: int = 7) -> Pattern:
    """Bundle adjustment: points of three coordinates, each seen by two cameras next to each other; lower triangle."""
    points = (n - cameras * parameters) // 3
    point = cameras * parameters + np.arange(3 * points).reshape(points, 3)
    camera = np.arange(cameras * parameters).reshape(cameras, parameters)
    blocks = [np.concatenate([point, camera[(np.arange(points) + k) % cameras]], axis=1) for k in range(2)]
    rows = np.concatenate([np.repeat(b, b.shape[1], axis=1).ravel() for b in blocks])
    cols = np.concatenate([np.tile(b, (1, b.shape[1])).ravel() for b in blocks])
    size = cameras * parameters + 3 * points
    keys = np.unique((cols * size + rows)[rows >= cols])
    return keys % size, keys // size, (size, size)


def grid(n: int) -> Pattern:
    """The five-point stencil on a square."""
    side = int(np.sqrt(n))
    at = np.arange(side * side).reshape(side, side)
    pairs = [(at, at), (at[1:], at[:-1]), (at[:-1], at[1:]), (at[:, 1:], at[:, :-1]), (at[:, :-1], at[:, 1:])]
    rows, cols = (np.concatenate([pair[k].ravel() for pair in pairs]) for k in range(2))
    order = np.lexsort((cols, rows))
    return rows[order], cols[order], (side * side, side * side)


def scattered(n: int, per_row: int = 4) -> Pattern:
    rng = np.random.default_rng(n)
    rows, cols = np.repeat(np.arange(n), per_row), rng.integers(0, n, n * per_row)
    keys = np.unique(rows * n + cols)
    return keys // n, keys % n, (n, n)


def median_seconds(call: Callable[[], Any], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def check(kind: str, pattern: Pattern, found: Any) -> None:
    """Raises ArithmeticError unless the colouring is one of its kind."""
    rows, cols, _ = pattern
    if kind == "columns":
        keys = rows * found.number + found.colors[cols]
        valid = np.unique(keys).size == np.unique(rows * pattern[2][1] + cols).size and (found.colors[cols] >= 0).all()
    else:
        low, high, _ = edges_of(pattern)
        checker = is_star_coloring if kind == "star" else is_acyclic_coloring
        valid = checker(found.colors, found.number, low, high)
    if not valid:
        raise ArithmeticError(f"{found!r} is no colouring of this kind")


def is_acyclic_coloring(colors: np.ndarray, number: int, low: np.ndarray, high: np.ndarray) -> bool:
    return forest_of(low, high, colors, number) is not None


def peer(kind: str, pattern: Pattern) -> tuple[int, Callable[[], Any]] | None:
    """networkx on the graph in which all that must differ is joined: colours, and the call."""
    try:
        import networkx  # noqa: PLC0415  (a peer)
        import scipy.sparse
    except ModuleNotFoundError:
        return None
    rows, cols, shape = pattern
    matrix = scipy.sparse.coo_array((np.ones(rows.size), (rows, cols)), shape=shape).tocsr()
    if kind != "columns":
        matrix = (matrix + matrix.T + scipy.sparse.eye_array(shape[0])).tocsr()
    pairs = int((np.diff(matrix.indptr).astype(float) ** 2).sum())
    if kind == "acyclic" or pairs > NETWORKX_UP_TO:
        return None
    joined = (matrix.T @ matrix).tocoo()
    graph = networkx.Graph(zip(joined.row.tolist(), joined.col.tolist(), strict=True))
    graph.remove_edges_from(list(networkx.selfloop_edges(graph)))

    def call() -> Any:
        return networkx.greedy_color(graph, "largest_first")

    return max(call().values()) + 1, call


def measure(name: str, kind: str, pattern: Pattern, rounds: int) -> Row:
    color = {"columns": column_coloring, "star": star_coloring, "acyclic": acyclic_coloring}[kind]
    row = Row(name, kind, pattern[0].size, {}, {})
    hub = name.startswith("arrow")  # in other orders than its own each neighbour of a hub takes a colour
    for order in (None, *(() if hub else ORDERS)):
        found = color(pattern, order)
        check(kind, pattern, found)
        label = order or "default"
        row.colors[label] = found.number
        row.seconds[label] = median_seconds(lambda order=order: color(pattern, order), rounds)
    if pattern[0].size <= 100_000:
        least = _greedy._COMPILE_FROM, _greedy._COMPILE_WHEN_LOADED
        _greedy._COMPILE_FROM = _greedy._COMPILE_WHEN_LOADED = 10**18
        try:
            row.seconds["default, plain Python"] = median_seconds(lambda: color(pattern), rounds)
        finally:
            _greedy._COMPILE_FROM, _greedy._COMPILE_WHEN_LOADED = least
    other = peer(kind, pattern)
    if other is not None:
        row.colors["networkx"] = other[0]
        row.seconds["networkx"] = median_seconds(other[1], 1)
    return row


def cases(smoke: bool) -> Iterator[tuple[str, str, Pattern]]:
    for n in (1000,) if smoke else (1000, 10_000, 100_000, 1_000_000):
        yield f"banded, n = {n}", "columns", banded(n)
        yield f"banded, n = {n}", "star", banded(n)
        if n < 1_000_000:
            yield f"banded, n = {n}", "acyclic", banded(n)
            yield f"arrow, n = {n}", "star", arrow(n)
            yield f"arrow, n = {n}", "acyclic", arrow(n)
            yield f"grid, n = {n}", "columns", grid(n)
            yield f"grid, n = {n}", "star", grid(n)
            yield f"grid, n = {n}", "acyclic", grid(n)
            yield f"scattered, n = {n}", "columns", scattered(n)
            yield f"scattered, n = {n}", "star", scattered(n)
            yield f"scattered, n = {n}", "acyclic", scattered(n)


def to_markdown(rows: Sequence[Row]) -> str:
    labels = list(dict.fromkeys(label for row in rows for label in row.seconds))
    lines = ["| pattern | kind | nonzeros | " + " | ".join(labels) + " |", "|---" * (len(labels) + 3) + "|"]
    for row in rows:
        cells = []
        for label in labels:
            if label not in row.seconds:
                cells.append("-")
            else:
                count = f"{row.colors[label]}, " if label in row.colors else ""
                cells.append(count + duration(row.seconds[label]))
        lines.append("| " + " | ".join([row.pattern, row.kind, str(row.nonzeros), *cells]) + " |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.coloring", description="Number of colours, and time.")
    parser.add_argument("--smoke", action="store_true", help="small sizes, one round: only to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every row and the machine")
    parser.add_argument("--md", type=Path, metavar="FILE", help="write the table that goes to stdout")
    options = parser.parse_args(argv)
    listed = list(cases(options.smoke))
    progress = Progress(len(listed))
    rows = []
    for name, kind, pattern in listed:
        progress.step(f"{name}, {kind}")
        rows.append(measure(name, kind, pattern, 1 if options.smoke or pattern[0].size > 100_000 else 3))
    progress.close()
    table = to_markdown(rows)
    print(table, end="")
    if options.md:
        options.md.write_text(table, encoding="utf-8")
    if options.json:
        report = {"machine": machine(), "rows": [row._asdict() for row in rows]}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
