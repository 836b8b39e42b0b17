"""Costs by line under transformations, comparisons of unusual functions, kinks that were missed, prices of memory."""

import json
import math
import tracemalloc

import numpy as np
import pytest

import functrace as ft
from bench.harness import Timing
from bench.plots import plot_modes
from functrace import lax
from functrace.cli import main
from functrace.core.evaluate import python_function
from functrace.errors import ArgumentError, NonDifferentiableInputError
from functrace.inspect import cost, kinks, modes
from functrace.inspect.modes import _difference
from functrace.transforms._flatten import export

# by line


def model(w, x):
    hidden = np.tanh(w @ x)
    return np.sum(hidden**2)


def trajectory(x):
    def step(c, _):
        c = np.sin(c)
        return c * 1.5, None

    return np.sum(lax.scan(step, x, None, length=20)[0])


def lines_of(function, *args):
    """Flops by line, counted from the first line of the function that is differentiated."""
    base = (model if len(args) == 2 else trajectory).__code__.co_firstlineno
    found = cost(function, by="line")(*args)
    assert sum(c.flops for c in found.values()) == found.total.flops
    return {int(name.rpartition(":")[2]) - base: c.flops for name, c in found.items() if c.flops}


W, X, H = np.ones((40, 50)), np.ones((50, 60)), np.ones(30)


@pytest.mark.parametrize(
    "derive",
    [
        ft.grad,
        lambda f: ft.jit(ft.grad(f)),
        lambda f: ft.grad(ft.jit(f)),
        lambda f: ft.vmap(ft.grad(f), in_axes=(0, None)),
        ft.jacfwd,
        lambda f: ft.grad(ft.checkpoint(f)),
        lambda f: lambda w, x: ft.linearize(lambda w: f(w, x), w)[1](w),
        lambda f: lambda w, x: ft.hvp(lambda w: f(w, x), w, w),
    ],
)
def test_what_a_derivative_does_belongs_to_the_line_it_differentiates(derive):
    w = np.ones((2, 40, 50)) if "vmap" in derive.__code__.co_names else W
    found = lines_of(derive(model), w, X)
    assert set(found) <= {1, 2}
    assert found[1] > found.get(2, 0)


def test_the_sweep_back_through_a_loop_belongs_to_its_lines():
    for function in (ft.grad(trajectory), ft.jit(ft.grad(trajectory)), ft.grad(trajectory, memory="5kB")):
        found = lines_of(function, H)
        assert set(found) <= {2, 3, 5} and found[2] > found[3] > 0


def test_programs_of_derivatives_name_the_lines():
    base = model.__code__.co_firstlineno
    for function in (ft.grad(model), ft.jacrev(model), ft.jacfwd(ft.grad(model))):
        found = {eqn.source.line - base for eqn in ft.make_jaxpr(function)(W[:2, :3], X[:3, :4]).eqns if eqn.source}
        assert {1, 2} <= found


def test_a_while_is_noted_in_the_table():
    def doubled(x):
        return lax.while_loop(lambda c: c < 100.0, lambda c: c * 2.0, x)

    assert "note: a while loop counts as one step" in repr(cost(doubled, by="line")(1.0))


# prices


@pytest.mark.parametrize(
    ("exponent", "flops"), [(2, 1), (2.0, 1), (0.5, 1), (-1.0, 1), (3.0, 40), (2.5, 40), (np.float64(2.0), 1)]
)
def test_powers_are_priced_as_numpy_takes_them(exponent, flops):
    assert cost(lambda x: x**exponent)(H).flops == flops * H.size


def measured_peak(function, *args):
    closed = ft.make_jaxpr(function)(*args)
    run, leaves = python_function(closed.jaxpr), ft.tree.leaves(args)
    export(run(*closed.consts, *leaves), leaves)
    tracemalloc.start()
    try:
        export(run(*closed.consts, *leaves), leaves)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


RNG = np.random.default_rng(6)
SQUARE, LONG = RNG.normal(size=(150, 150)), RNG.normal(size=40_000)
PEAKS = {
    "expm": (lambda a: ft.scipy.linalg.expm(a), SQUARE),
    "expm of a large matrix": (lambda a: ft.scipy.linalg.expm(a), SQUARE / 50.0),
    "qr": (lambda a: np.linalg.qr(a)[1], SQUARE),
    "stack of qr": (lambda a: np.linalg.qr(a)[1], RNG.normal(size=(5, 50, 50))),
    "while": (lambda x: lax.while_loop(lambda c: np.sum(c) > 1.0, lambda c: c * 0.5, np.abs(x)), LONG),
    "solve": (ft.grad(lambda a: np.sum(np.linalg.solve(a @ a.T + 10.0 * np.eye(150), a))), SQUARE),
    "loop": (ft.grad(lambda x: np.sum(lax.scan(lambda c, _: (np.sin(c), None), x, None, length=20)[0])), LONG),
    "einsum": (ft.grad(lambda a: np.sum(np.einsum("ij,jk,kl->il", a, a, a))), SQUARE),
}


@pytest.mark.parametrize("name", PEAKS)
def test_peak_memory_is_within_15_percent(name):
    function, *args = PEAKS[name]
    assert cost(function)(*args).peak == pytest.approx(measured_peak(function, *args), rel=0.15)


# comparisons


def test_a_result_too_large_is_not_recorded():
    found = modes.compare(lambda x: np.multiply.outer(x, np.ones(2000)), rounds=1)(np.ones(1000))
    assert found.choice == "sparse" and "1 colour of" in found.reason
    assert all("16 GB" in row.note and row.seconds is None for row in found.rows)


@pytest.mark.parametrize(
    ("function", "x"),
    [
        (np.argmax, np.ones(3)),
        (lambda x: x > 0.0, np.ones(3)),
        (lambda x: 2.0 * x, 3),
        (lambda z: z * z, np.array([1j])),
    ],
)
def test_what_no_mode_differentiates_is_refused(function, x):
    with pytest.raises(NonDifferentiableInputError, match="remedy"):
        modes.compare(function, rounds=1)(x)


def test_errors_of_the_function_pass():
    def broken(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        modes.compare(broken)(np.ones(3))


@pytest.mark.parametrize(
    "wrong", [{"rounds": -1}, {"rounds": "a"}, {"rounds": 1.5}, {"memory": -1}, {"memory": "much"}]
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ArgumentError, match="remedy"):
        modes.compare(np.sin, **wrong)


def test_a_loop_that_only_forward_mode_records():
    def until(x):
        return lax.while_loop(lambda c: np.sum(c) < 100.0, lambda c: c * 2.0, x)

    found = modes.compare(until, rounds=1)(np.ones(3))
    assert found["forward"].flops and found["reverse"].flops is None
    assert found["forward"].difference == found["reverse"].difference == 0.0  # both ran


def test_infinities_and_nans_in_the_same_places_agree():
    inf, nan = math.inf, math.nan
    assert _difference(np.array([inf, nan, 1.0]), np.array([inf, nan, 1.0])) == 0.0
    assert _difference(np.array([inf, nan, 1.5]), np.array([inf, nan, 1.0])) == 0.5
    assert _difference(np.array([1.0, nan]), np.array([1.0, 0.0])) == inf
    assert _difference(np.array([-inf]), np.array([inf])) == inf
    with np.errstate(all="ignore"):
        found = modes.compare(np.sqrt, rounds=1)(np.array([0.0, 1.0]))
    json.loads(found.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_budget_in_words():
    found = modes.compare(lambda x: np.sin(x) * x.sum(), rounds=0, memory="100 kB")(np.ones(300))
    assert all("not run" in row.note for row in found.rows)


# kinks


@pytest.mark.parametrize(
    ("function", "x", "what"),
    [
        (lambda x: np.arctan2(x, -1.0), 0.0, "jump of the angle"),
        (lambda x: np.arctan2(x[0], x[1]), np.zeros(2), "jump of the angle"),
        (lambda x: np.heaviside(x, 0.5), 0.0, "boundary"),
        (lambda x: np.partition(x, 1)[1], np.array([1.0, 1.0, 2.0]), "tie"),
    ],
)
def test_kinks_are_found(function, x, what):
    assert what in {kink.what for kink in kinks(function)(x).active}


@pytest.mark.parametrize(
    ("function", "x"),
    [
        (lambda x: np.arctan2(x, 1.0), 0.0),
        (lambda x: np.arctan2(1.0, x), 0.0),
        (lambda x: np.heaviside(x, 0.5), 0.1),
        (lambda x: np.partition(x, 2)[2], np.array([1.0, 1.0, 2.0])),
    ],
)
def test_smooth_points_beside_them(function, x):
    assert not kinks(function)(x)


def test_the_angle_jumps_by_a_turn():
    (side,) = kinks(lambda x: np.arctan2(x, -1.0))(0.0).one_sided
    assert side.left == np.inf and side.right == pytest.approx(-1.0, abs=1e-4)


@pytest.mark.parametrize("pole", [lambda x: 1.0 / x, np.log, lambda x: np.arctan(1.0 / x), ft.scipy.special.gammaln])
def test_a_pole_is_no_kink_and_not_called_smooth(pole):
    report = kinks(pole)(0.0)
    assert not report and not report.finite and "not finite" in repr(report)


def test_the_pattern_of_a_step_is_empty():
    assert ft.sparse.jacobian_pattern(lambda x: np.heaviside(x, 0.5))(np.ones(3)).nnz == 0
    assert ft.grad(lambda x: np.heaviside(x, 0.5) * x)(2.0) == 1.0


def test_the_modes_bench_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")

    def timing(name, seconds, peer="functrace"):
        return Timing(name, peer, seconds, seconds, seconds, 1, 1, 1, 1.0, None)

    names = [f"n={n}, m={m}, {mode}" for n in (2, 4) for m in (1, 2) for mode in ("forward", "reverse", "auto")]
    names += ["Hessian n=4, fwd-rev", "waist 60 -> 4 -> 60, forward", "band of 20, forward"]
    plot_modes([timing(name, 1e-3) for name in names], tmp_path / "modes.svg")
    text = (tmp_path / "modes.svg").read_text(encoding="utf-8")
    assert "Jacobian, 2 outputs" in text and "Hessian" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--at", "absent.npy"], "no array that can be read"),
        (["--at", "normal:3", "--plot", "absent/modes.svg"], "no directory"),
        (["--at", "normal:3", "--rounds", "-1"], "whole number of times"),
    ],
)
def test_mistakes_at_the_command_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text("import numpy as np\n\n\ndef f(x):\n    return np.sin(x)\n", encoding="utf-8")
    assert main(["modes", "own.py:f", *words]) == 1
    assert message in capsys.readouterr().err
