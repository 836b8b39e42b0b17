"""The benches run, on whatever peers are installed, and do not time a wrong result."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.harness import SMOKE, Scenario, WrongResult, complex_step, duration, measure
from bench.peers import load_numpy

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("suite", ["control", "eager", "higher", "modes"])
def test_suite_runs(suite, tmp_path):
    """In a process of its own: the peers configure and warn as they please."""
    files = [tmp_path / "out.json", tmp_path / "out.md"]
    command = [sys.executable, "-m", "bench", suite, "--smoke", "--json", files[0], "--md", files[1]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert files[1].read_text(encoding="utf-8") == done.stdout

    report = json.loads(files[0].read_text(encoding="utf-8"))
    timings = report["timings"]
    assert all(0.0 < t["low"] <= t["median"] <= t["high"] < math.inf for t in timings)
    assert {t["peer"] for t in timings} <= set(report["versions"])
    scenarios = {t["scenario"] for t in timings}
    assert {t["scenario"] for t in timings if t["peer"] == "functrace"} == scenarios
    assert all(scenario in done.stdout for scenario in scenarios)


def sine(expected: float) -> Scenario:
    return Scenario(
        name="sine", setup=lambda peer: lambda: peer.np.sin(0.5), expected=lambda: expected, peers=["numpy"]
    )


def test_measure_refuses_a_wrong_result():
    with pytest.raises(WrongResult, match="sine: numpy does not give the expected result"):
        measure(sine(0.5), [load_numpy()], SMOKE)


def test_measure_compares_in_turns():
    once = load_numpy()
    twice = dataclasses.replace(once, name="functrace")
    scenario = dataclasses.replace(sine(np.sin(0.5)), peers=["numpy", "functrace"])
    timings = measure(scenario, [once, twice], SMOKE)
    assert [(t.peer, t.rounds, t.beyond_numpy is None) for t in timings] == [
        ("numpy", 2, False),
        ("functrace", 2, False),
    ]
    assert timings[1].ratio == 1.0 and timings[0].beyond_numpy == 0.0


def test_complex_step_is_exact_to_rounding(rng):
    x = rng.normal(size=(2, 3))
    np.testing.assert_allclose(complex_step(lambda x: np.sum(np.sin(x) * x), x), np.cos(x) * x + np.sin(x), rtol=1e-15)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0 ns"), (4.56e-7, "456 ns"), (1.234e-5, "12.3 us"), (0.25, "250 ms"), (2.0, "2 s")]
)
def test_duration(value, text):
    assert duration(value) == text
