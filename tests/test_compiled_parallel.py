"""Long loops run in several threads: the same numbers, whatever their number, and from several callers at once."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from functrace import explain, jit, value_and_grad

RNG = np.random.default_rng(5)
LONG = RNG.normal(size=300_001)
MATRIX = RNG.normal(size=(1000, 501))

PROGRAMS = {
    "elementwise": (lambda x: np.exp(x) * np.tanh(x), LONG),
    "total": (lambda x: np.sum(np.exp(x) * np.tanh(x)), LONG),
    "extremum": (lambda x: np.max(np.exp(x) * np.sin(x)), LONG),
    "two totals": (lambda x: (np.sum(np.sin(x) ** 3), np.sum(np.cos(x) ** 3)), LONG),
    "rows": (lambda a: np.sum(np.exp(a) * np.sin(a), axis=1), MATRIX),
    "columns": (lambda a: np.sum(np.exp(a) * np.sin(a), axis=0), MATRIX),
    "registers": (lambda a: np.exp(a + a[0, 0] * a[0, 1]) * np.tanh(a * np.sum(a[:, 3])), MATRIX),
    "pieces": (lambda x: np.concatenate([np.exp(x), np.tanh(x)]) * 2.0, LONG),
    "gather": (lambda x: np.exp(x)[np.arange(len(x))[::-1]] * np.sin(x), LONG),
    "gradient": (value_and_grad(lambda x: np.sum(np.tanh(0.7 * x + 0.2) ** 2 * np.exp(-x))), LONG),
    "float32": (lambda x: np.sum(np.exp(x) * np.tanh(x), axis=1), MATRIX.astype(np.float32)),
}


def pieces(function, x):
    """How many functions the compiled program has beside its own."""
    return jit(function).lower(x).as_text("llvm").count("define internal void @piece")


@pytest.mark.parametrize("name", PROGRAMS)
def test_same_as_eager(name):
    function, x = PROGRAMS[name]
    found, expected = jit(function)(x), function(x)
    pairs = zip(found, expected, strict=True) if isinstance(expected, tuple) else [(found, expected)]
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=2e-5 if x.dtype == np.float32 else 1e-11, atol=1e-12)


def test_long_loops_are_cut_and_short_ones_are_not():
    assert pieces(PROGRAMS["elementwise"][0], LONG) == 1
    assert pieces(PROGRAMS["elementwise"][0], LONG[:1000]) == 0
    assert "300001" in repr(explain(PROGRAMS["elementwise"][0])(LONG))


def test_callers_at_once():
    f = jit(PROGRAMS["gradient"][0])
    value, slope = f(LONG)
    wrong = []

    def work():
        for _ in range(5):
            v, s = f(LONG)
            if v != value or not np.array_equal(s, slope):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    [t.start() for t in threads], [t.join() for t in threads]
    assert not wrong


def test_the_number_of_threads_changes_no_bit():
    code = (
        "import numpy as np, functrace as ft\n"
        "x = np.linspace(-2, 2, 300_001)\n"
        "print(float(ft.jit(lambda x: np.sum(np.exp(x) * np.tanh(x)))(x)).hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "FUNCTRACE_THREADS": count},
            check=True,
            capture_output=True,
        ).stdout
        for count in ("1", "2", "4")
    }
    assert len(found) == 1
