"""The command line, and the numbers that `functrace demo` prints."""

import io
import os
import re
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import functrace
from functrace import cli, demo
from functrace.demo import problems
from functrace.demo.measure import measure
from functrace.demo.report import Report, wants_colour


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def demonstration() -> subprocess.CompletedProcess[str]:
    """One run of the real command, piped."""
    command = [sys.executable, "-m", "functrace", "demo"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_demo_succeeds_and_writes_no_errors(demonstration):
    assert demonstration.returncode == 0
    assert demonstration.stderr == ""
    assert "WRONG" not in demonstration.stdout


def test_demo_has_no_colour_when_piped(demonstration):
    assert "\x1b" not in demonstration.stdout
    assert demonstration.stdout.isascii()


def test_demo_fits_a_terminal(demonstration):
    assert max(map(len, demonstration.stdout.splitlines())) <= 100


def test_demo_of_the_textbook_function(demonstration):
    text = demonstration.stdout
    for operation in ("log a", "mul a b", "add c d", "sin b", "sub e f"):
        assert f"float64[] = {operation}" in text
    assert re.search(r"value +11\.652\n", text)
    assert re.search(r"forward mode, along x1 +5\.500\n", text)
    assert re.search(r"reverse mode, gradient +\(5\.500, 1\.716\)\n", text)


def test_demo_of_the_network(demonstration):
    rows = re.findall(
        r"(forward|reverse) mode \(\w+\) +(208 in one batch|1) +(\d+\.\d\d) ms +(\d+\.\d\d) MB\n", demonstration.stdout
    )
    assert [(mode, sweeps) for mode, sweeps, _, _ in rows] == [("forward", "208 in one batch"), ("reverse", "1")]
    (forward_time, forward_memory), (reverse_time, reverse_memory) = [map(float, row[2:]) for row in rows]
    assert forward_time > reverse_time and forward_memory > reverse_memory > 0.0
    assert_checked(demonstration.stdout, "forward mode equals reverse mode", 1e-10)


def test_demo_of_problem_71(demonstration):
    text = demonstration.stdout
    for nesting in ("forward over reverse", "reverse over forward", "forward over forward", "reverse over reverse"):
        assert_checked(text, f"{nesting} equals the closed form", 1e-12)
    assert "sigma = 0.5, lambda = (-0.7, 1.3)" in text
    assert re.search(r"solution +\(1\.000, 4\.743, 3\.821, 1\.379\)\n", text)
    assert re.search(r"objective +17\.0140\n", text)
    assert re.search(r"iterations +\d+\n", text)
    assert float(re.search(r"KKT residual +(\S+)\n", text)[1]) < 1e-6


def test_demo_says_how_to_go_on(demonstration):
    last = demonstration.stdout.splitlines()[-1]
    assert "README.md" in last and "examples/" in last


def assert_checked(text: str, claim: str, tolerance: float) -> None:
    found = re.search(rf"ok +{re.escape(claim)} \(difference (\S+)\)", text)
    assert found, f"nothing checks that {claim}"
    assert float(found[1]) <= tolerance


def test_demo_fails_when_a_number_is_wrong(monkeypatch, capsys):
    monkeypatch.setattr(problems, "HS71_SOLUTION", problems.HS71_SOLUTION + 1e-3)
    assert cli.main(["demo"]) == 1
    assert "WRONG   the solution is the published one" in capsys.readouterr().out


def test_lagrangian_hessian_by_hand_agrees_with_differences(rng):
    x, multipliers = rng.uniform(1.0, 5.0, 4), rng.normal(size=2)
    h = 1e-4

    def second_difference(u, v):
        f = lambda a, b: problems.hs71_lagrangian(x + a * h * u + b * h * v, 0.7, multipliers)  # noqa: E731
        return (f(1, 1) - f(1, -1) - f(-1, 1) + f(-1, -1)) / (4 * h * h)

    expected = [[second_difference(u, v) for u in np.eye(4)] for v in np.eye(4)]
    by_hand = problems.hs71_lagrangian_hessian(x, 0.7, multipliers)
    np.testing.assert_allclose(by_hand, expected, rtol=1e-5, atol=1e-5)


# the report


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": ""}, True),  # present but empty: not declined, says no-color.org
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_wants_colour(stream, environment, expected):
    assert wants_colour(stream, environment) is expected


def test_report_colours_a_terminal():
    stream = Terminal()
    report = Report(stream, colour=True)
    report.check("one is one", 1.0, 1.0, 0.0)
    assert "\x1b[32mok\x1b[0m" in stream.getvalue()


@pytest.mark.parametrize("got", [1.5, np.nan, [1.0, np.inf]])
def test_report_remembers_what_was_wrong(got):
    report = Report(io.StringIO())
    report.check("all are one", got, 1.0, 1e-3)
    assert report.failures == ["all are one"]
    assert "WRONG   all are one" in report.stream.getvalue()


def test_report_aligns_tables():
    stream = io.StringIO()
    Report(stream).table([("name", "time"), ("a longer name", "5 ms")])
    assert stream.getvalue() == "   name            time\n   a longer name   5 ms\n\n"


def test_measure_counts_what_is_held_at_once():
    def hold(count):
        return lambda: len([np.ones(10_000) for _ in range(count)])

    one, three = measure([hold(1), hold(3)], rounds=1)
    assert (one.result, three.result) == (1, 3)
    assert 80_000 <= one.peak_bytes < 90_000 and 240_000 <= three.peak_bytes < 250_000
    assert one.seconds > 0.0 and not tracemalloc.is_tracing()


# the command line


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--help"])
    assert exit_.value.code == 0
    assert "demo" in capsys.readouterr().out


def test_version_is_the_package_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"functrace {functrace.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "invalid choice: 'fly' (choose from"),
        ([], "the following arguments are required: COMMAND"),
        (["demo", "--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_wrong_command_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_the_installed_command_is_this_one():
    (entry,) = [e for e in cli.metadata.entry_points(group="console_scripts") if e.name == "functrace"]
    assert entry.load() is cli.main


@pytest.mark.skipif(os.name != "posix", reason="pipes of another kind")
def test_a_closed_pipe_is_no_crash():
    process = subprocess.Popen(
        [sys.executable, "-m", "functrace", "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == b""
    assert process.wait(timeout=120) == 1


def test_an_interrupt_is_no_crash(monkeypatch):
    def interrupted(report):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "run", interrupted)
    assert cli.main(["demo"]) == 130
