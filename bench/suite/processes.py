"""What only a fresh process shows: the first result with the program on disk, and peak memory.

`python -m bench.suite.processes PROGRAM PEER` prints, as JSON, the seconds from the end of imports to the first result
and the peak resident memory in bytes. The caches of functrace and JAX are in the directory that the environment names.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.peers import LOADERS, Peer
from bench.suite.bars import Verdict

ROOT = Path(__file__).parents[2]
LIMIT = 0.05


class Fresh(NamedTuple):
    """One process: seconds to the first result, peak bytes above those after imports."""

    seconds: float
    memory: int


def textbook(peer: Peer) -> Callable[[], Any]:
    xp, x = peer.np, peer.array(np.array([2.0, 5.0]))
    gradient = peer.jit(peer.grad(lambda x: xp.log(x[0]) + x[0] * x[1] - xp.sin(x[1])))
    return lambda: gradient(x)


def wine(peer: Peer) -> Callable[[], Any]:
    xp, rng = peer.np, np.random.default_rng(0)
    W1, W2, X, y = (peer.array(rng.normal(size=shape)) for shape in ((16, 13), (1, 16), (13, 178), (1, 178)))
    gradient = peer.jit(peer.grad(lambda W1: xp.sum((xp.matmul(W2, xp.tanh(xp.matmul(W1, X))) - y) ** 2) / 178.0))
    return lambda: gradient(W1)


def long_chain(peer: Peer) -> Callable[[], Any]:
    """64 steps on a million numbers."""
    xp, x = peer.np, peer.array(np.linspace(-1.0, 1.0, 1_000_000))

    def f(x: Any) -> Any:
        for _ in range(64):
            x = xp.sin(x) * 1.01
        return xp.sum(x)

    gradient = peer.jit(peer.grad(f))
    return lambda: gradient(x)


PROGRAMS = {"textbook": textbook, "Wine": wine, "chain": long_chain}


def resident() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def child(program: str, name: str) -> None:
    peer = LOADERS[name]()
    if name == "jax":
        import jax

        jax.config.update("jax_compilation_cache_dir", os.environ["FUNCTRACE_CACHE_DIR"] + "/jax")
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        jax.devices()
    before = resident()
    start = time.perf_counter()
    peer.ready(PROGRAMS[program](peer)())
    print(json.dumps({"seconds": time.perf_counter() - start, "memory": resident() - before}))


def fresh(program: str, peer: str, cache: Path, times: int) -> list[Fresh]:
    """So many processes, the first of which fills the cache."""
    cache.mkdir(mode=0o700, exist_ok=True)
    environment = {**os.environ, "FUNCTRACE_CACHE_DIR": str(cache), "FUNCTRACE_CACHE": "1"}
    found = []
    for _ in range(times):
        command = [sys.executable, "-m", "bench.suite.processes", program, peer]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        found.append(Fresh(**json.loads(done.stdout.splitlines()[-1])))
    return found


def verdicts(smoke: bool, peers: list[str], step: Callable[[str], None]) -> list[Verdict]:
    """Warm starts against the bar, and peak memory of a long gradient beside the peers."""
    found = []
    names = [name for name in ("functrace", "jax") if name in peers]
    with tempfile.TemporaryDirectory() as directory:
        for program in ("textbook",) if smoke else ("textbook", "Wine"):
            step(f"fresh processes, {program}")
            warm: dict[str, float] = {}
            for name in names:
                runs = fresh(program, name, Path(directory) / name, 2 if smoke else 6)
                warm[name] = statistics.median(run.seconds for run in runs[1:])
            ours = warm.pop("functrace")
            found.append(
                Verdict("fresh process, program in the disk cache", "first result within 50 ms of imports",
                        f"{program}, gradient", ours, warm, LIMIT / ours)
            )  # fmt: skip
        if not smoke:
            memory: dict[str, int] = {}
            for name in [n for n in ("functrace", "eager", "autograd", "jax", "torch") if n in peers]:
                step(f"memory, {name}")
                memory[name] = fresh("chain", name, Path(directory) / name, 1)[0].memory
            text = ", ".join(f"{name} {size / 2**20:.0f}" for name, size in memory.items())
            found.append(
                Verdict("memory", "(for the record)", f"64 steps on 1e6 numbers, peak MiB: {text}", 0.0, {}, None)
            )
    return found


if __name__ == "__main__":
    child(*sys.argv[1:3])
