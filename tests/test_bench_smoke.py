"""The benches run, on whatever peers are installed, and do not time a wrong result."""

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.harness import SMOKE, Scenario, Timing, WrongResult, complex_step, duration, measure
from bench.peers import load_numpy
from bench.suite.bars import Row, judge, summary

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("suite", ["control", "eager", "higher", "lagrangian", "modes"])
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


@pytest.mark.parametrize("suite", ["choice", "coloring", "ipopt", "memory", "rates", "suite"])
def test_suites_with_options_of_their_own_are_reached(suite):
    done = subprocess.run([sys.executable, "-m", "bench", suite, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "--smoke" in done.stdout, done.stderr


@pytest.mark.parametrize("only", ["scalar gradient", "GMM"])
def test_the_table_of_bars_runs(only, tmp_path):
    files = [tmp_path / "out.json", tmp_path / "out.md"]
    command = [sys.executable, "-m", "bench", "suite", "--smoke", "--only", only, "--json", files[0], "--md", files[1]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    assert files[1].read_text(encoding="utf-8") == done.stdout
    report = json.loads(files[0].read_text(encoding="utf-8"))
    assert not report["wrong"] and report["verdicts"]
    assert all(0.0 < v["ours"] < math.inf and v["scenario"] in done.stdout for v in report["verdicts"])
    assert all(0.0 < t["median"] < math.inf and 0.0 < t["first"] < math.inf for t in report["timings"]["async"])


def timed(peer: str, median: float, ratio: float, first: float = 1.0, scenario: str = "sine") -> Timing:
    return Timing(scenario, peer, median, median, median, 3, 1, 1, ratio, None, first)


def test_a_bar_is_against_the_better_dispatch_setting():
    row = Row(name="r", bar="b", scenarios=[sine(0.0)], faster={"jax": 2.0, "casadi": 1.0})
    runs = {
        "async": [timed("functrace", 1.0, 1.0), timed("jax", 6.0, 6.0), timed("casadi", 5.0, 5.0)],
        "sync": [timed("functrace", 2.0, 1.0), timed("jax", 6.0, 3.0)],
    }
    (verdict,) = judge(row, runs)
    assert verdict.ratio == 1.5 and verdict.met == "met" and verdict.ours == 2.0  # of the process that decides
    assert verdict.peers == {"jax": 6.0, "casadi": 5.0}


def test_a_limit_in_seconds_and_one_on_the_first_call():
    runs = {"async": [timed("functrace", 1.0, 1.0, first=3.0), timed("jax", 9.0, 9.0, first=2.5)]}
    row = Row(name="r", bar="b", scenarios=[sine(0.0)], at_most={"sin": 0.5, "cos": 1e-9})
    (limit,) = judge(row, runs)
    assert limit.ratio == 0.5 and limit.met == "not met"
    (first,) = judge(dataclasses.replace(row, at_most={}, faster={"jax": 1.0}, first=True), runs)
    assert first.ratio == 2.5 / 3.0 and first.met == "within 1.5"
    assert judge(dataclasses.replace(row, scenarios=[dataclasses.replace(sine(0.0), name="absent")]), runs) == []


def test_the_spread_of_ways_to_do_the_same():
    ways = [dataclasses.replace(sine(0.0), name=f"n=3, {way}") for way in "ab"]
    row = Row(name="r", bar="b", scenarios=ways, spread=5.0)
    runs = {"async": [timed("functrace", t, 1.0, scenario=s.name) for t, s in zip((1.0, 10.0), ways, strict=True)]}
    *_, spread = judge(row, runs)
    assert spread.ratio == 0.5 and "10" in spread.scenario
    assert summary([spread]).startswith("0 of 1 cases meet their bar")


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
