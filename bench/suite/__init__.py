"""The whole table of bars in one command: `python -m bench suite [--smoke] [--only TEXT] [--json FILE] [--md FILE]`.

Each case is written once over a NumPy-like namespace. Results are checked, then calls are timed in interleaved rounds;
first calls, fresh processes and peak memory come with them. JAX dispatches asynchronously or not for a whole process,
so the cases run in two; a bar against JAX is against the better one. By default all libraries have one core, the same
one: with more, their thread pools get in each other's way.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bench import eager
from bench.harness import SMOKE, Effort, Progress, Scenario, Timing, WrongResult, machine, measure
from bench.peers import LOADERS, Peer, _missing, load_peers
from bench.suite import adbench, dense, processes, small
from bench.suite.bars import DISPATCH, Row, as_json, judge, summary, table

ROOT = Path(__file__).parents[2]


def rows(smoke: bool) -> Iterator[Row]:
    """Every row of the table."""
    regular = [*small.rows(smoke), *dense.rows(smoke), *adbench.rows(smoke)]
    yield from regular
    yield Row(
        name="first call",
        bar="at most JAX's",
        scenarios=[s for s in unique(regular) if "jax" in s.peers and "eager grad" not in s.name],
        faster={"jax": 1.0},
        first=True,
    )
    lengths = (100,) if smoke else (1_000, 10_000, 100_000)
    yield Row(
        name="tracing",
        bar="at most 10 us an equation, linear",
        scenarios=[eager.tracing(length) for length in lengths],
        at_most={"make_jaxpr": 1e-5},
    )


def unique(selected: Sequence[Row]) -> list[Scenario]:
    return list({s.name: s for row in selected for s in row.scenarios}.values())


def warm_up(peers: Sequence[Peer]) -> None:
    """What a library does at its very first call belongs to no scenario."""
    for peer in peers:
        if peer.grad is not _missing and peer.name != "casadi":
            x = peer.array(np.array([1.0, 2.0]))
            xp = peer.np
            peer.ready(peer.jit(peer.grad(lambda x, xp=xp: xp.sum(xp.sin(x))))(x))


def run_here(selected: Sequence[Row], dispatch: str, names: Sequence[str], effort: Effort) -> dict[str, object]:
    """All scenarios in this process."""
    if dispatch == "sync":
        names = [name for name in names if name in ("functrace", "jax")]
    if "jax" in names:
        try:
            import jax

            jax.config.update("jax_cpu_enable_async_dispatch", dispatch == "async")
        except ModuleNotFoundError:
            pass
    peers, absent = load_peers(names)
    warm_up(peers)
    scenarios = unique(selected)
    if dispatch == "sync":
        scenarios = [s for s in scenarios if "jax" in s.peers] if any(p.name == "jax" for p in peers) else []
    progress, timings, wrong = Progress(len(scenarios)), [], []
    for scenario in scenarios:
        progress.step(f"{dispatch}: {scenario.name}")
        try:
            timings += measure(scenario, peers, effort)
        except WrongResult as error:
            wrong.append(str(error))
        except Exception as error:  # one case that fails is reported, and the others run
            wrong.append(f"{scenario.name}: {type(error).__name__}: {error}")
    progress.close()
    return {
        "timings": [asdict(t) for t in timings],
        "versions": {p.name: p.version for p in peers},
        "absent": absent,
        "wrong": wrong,
    }


def run_child(arguments: Sequence[str], dispatch: str, file: Path) -> dict[str, object]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "bench", "suite", *arguments, "--dispatch", dispatch, "--json", str(file)]
    # What is compiled is compiled here: the disk cache has rows of its own.
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "FUNCTRACE_CACHE": "0"}, stdout=subprocess.PIPE)
    if done.returncode:
        raise SystemExit(done.returncode)
    return json.loads(file.read_text(encoding="utf-8"))


@contextlib.contextmanager
def on_cores(count: int) -> Iterator[None]:
    """This process and those it starts on so many cores; 0 for all."""
    pools = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    environment, able = dict(os.environ), hasattr(os, "sched_setaffinity")
    cores = os.sched_getaffinity(0) if able else set()
    if count:
        os.environ.update(dict.fromkeys(pools, str(count)))
        if able:
            os.sched_setaffinity(0, sorted(cores)[-count:])
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        if able:
            os.sched_setaffinity(0, cores)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench suite", description="The table of performance bars.")
    parser.add_argument("--smoke", action="store_true", help="small sizes, two rounds: only to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every timing and verdict")
    parser.add_argument("--md", type=Path, metavar="FILE", help="write the table that goes to stdout")
    parser.add_argument("--peers", default=",".join(n for n in LOADERS if n != "numpy"), help="of %(default)s")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name contains this")
    parser.add_argument("--rounds", type=int, default=7, help="rounds in which peers take turns (%(default)s)")
    parser.add_argument("--cores", type=int, default=1, help="how many cores for all; 0: every one (%(default)s)")
    parser.add_argument("--dispatch", choices=DISPATCH, help="measure in this process, JAX dispatching so")
    options = parser.parse_args(argv)
    selected = [row for row in rows(options.smoke) if options.only in row.name]
    names = options.peers.split(",")
    if options.dispatch:
        effort = SMOKE if options.smoke else Effort(rounds=options.rounds)
        report = run_here(selected, options.dispatch, names, effort)
        options.json.write_text(json.dumps(report), encoding="utf-8")
        return 0

    arguments = ["--only", options.only, "--peers", options.peers, "--rounds", str(options.rounds)]
    arguments += ["--smoke"] if options.smoke else []
    with on_cores(options.cores):
        return whole(options, selected, names, arguments)


def whole(options: argparse.Namespace, selected: Sequence[Row], names: Sequence[str], arguments: Sequence[str]) -> int:
    """Both processes, the fresh ones, and the table of them all."""
    with tempfile.TemporaryDirectory() as directory:
        reports = {d: run_child(arguments, d, Path(directory) / f"{d}.json") for d in DISPATCH}
    runs = {d: [Timing(**t) for t in report["timings"]] for d, report in reports.items()}  # type: ignore[attr-defined]
    verdicts = [verdict for row in selected for verdict in judge(row, runs)]
    installed = [name for name in names if name not in reports["async"]["absent"]]  # type: ignore[operator]
    if options.only in "fresh process memory":
        progress = Progress(2 if options.smoke else 7)
        verdicts += processes.verdicts(options.smoke, installed, progress.step)
        progress.close()
    wrong = list(dict.fromkeys(w for report in reports.values() for w in report["wrong"]))  # type: ignore[attr-defined]
    versions = reports["async"]["versions"]
    host = machine()
    text = "\n".join(
        [
            "## bench: suite",
            "",
            f"{host['cpu']}, {options.cores or 'all'} of {host['cores']} cores, Python {host['python']}; "
            + ", ".join(f"{n} {v}" for n, v in versions.items())  # type: ignore[attr-defined]
            + ". Medians of interleaved rounds; JAX at its better dispatch setting; 'times the bar' above 1 meets it.",
            "",
            *table(verdicts),
            "",
            summary(verdicts),
            *(f"\nWRONG OR FAILED, not timed: {w}" for w in wrong),
            "",
        ]
    )
    print(text, end="")
    if options.md:
        options.md.write_text(text, encoding="utf-8")
    if options.json:
        report = {
            "suite": "suite",
            "machine": host,
            "versions": versions,
            "verdicts": as_json(verdicts),
            "timings": {d: [asdict(t) for t in timings] for d, timings in runs.items()},
            "wrong": wrong,
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if wrong else 0
