"""The right mode by itself: waists, bracketings, agreement of all modes on random programs; modes compared."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import functrace as ft
import functrace.numpy as fnp
import functrace.sparse
from bench import choice, memory
from functrace import cli, lax
from functrace.core.ir import Var, live_eqns
from functrace.errors import ArgumentError
from functrace.inspect import modes
from functrace.interpreters.cost import jaxpr_cost
from functrace.interpreters.linearize import linearize
from functrace.transforms import _choice, jacobians
from functrace.transforms._choice import Product, Sweep, _bracket, choose
from functrace.transforms._flatten import FlatFunction
from functrace.transforms._prices import Price, product_seconds, sweep_seconds
from functrace.transforms._waist import between, narrowest_cuts, width

RNG = np.random.default_rng(20261123)


def close(got, expected, rtol=1e-11):
    for a, b in zip(ft.tree.leaves(got), ft.tree.leaves(expected), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(np.max(np.abs(b), initial=0), 1e-300))


def linear_program(f, *args):
    flat = FlatFunction(f, args, {})
    _, program = linearize(flat, flat.leaves)
    outs = [v for v in program.outvars if v is not None]
    return live_eqns(program.eqns, outs), program.invars, outs, program


def waisted(n, narrow, m, depth=1):
    a, b = RNG.normal(size=(narrow, n)) / np.sqrt(n), RNG.normal(size=(m, narrow))

    def f(x):
        for _ in range(depth):
            x = x + 0.1 * np.sin(x)
        y = b @ np.tanh(a @ x)
        for _ in range(depth):
            y = y + 0.1 * np.sin(y)
        return y

    return f


# waists


def brute_force_width(eqns, invars, outvars):
    """The width of the narrowest cut, by trying all sets of variables."""
    variables = [*invars, *(v for e in eqns for v in e.outvars)]

    def separates(cut):
        reached = {v for v in invars if v not in cut}
        for eqn in eqns:
            if any(isinstance(a, Var) and a in reached for a in eqn.invars):
                reached.update(v for v in eqn.outvars if v not in cut)
        return not any(v in reached for v in outvars)

    cuts = (cut for r in range(len(variables) + 1) for cut in itertools.combinations(variables, r))
    return min(width(cut) for cut in cuts if separates(set(cut)))


def small_program(seed):
    """A random program of vectors of different lengths: elementwise operations, sums, slices and concatenations."""
    rng = np.random.default_rng(seed)
    choices = rng.integers(0, 6, 7)
    picks = rng.random((7, 2))

    def f(*xs):
        values = list(xs)
        for kind, (p, q) in zip(choices, picks, strict=True):
            x, y = values[int(p * len(values))], values[int(q * len(values))]
            n = min(len(x), len(y))
            values.append(
                [
                    lambda: np.sin(x),  # noqa: B023
                    lambda: x[:n] * y[:n],  # noqa: B023
                    lambda: np.concatenate([x, y])[:6],  # noqa: B023
                    lambda: fnp.reshape(fnp.sum(x * x), (1,)),  # noqa: B023
                    lambda: x[: max(n - 1, 1)] + 0.5,  # noqa: B023
                    lambda: np.exp(-x[::-1]),  # noqa: B023
                ][kind]()
            )
        return values[-1], values[-2]

    return f, [rng.normal(size=n) for n in rng.integers(1, 6, 2)]


@pytest.mark.parametrize("seed", range(12))
def test_cuts_are_the_narrowest(seed):
    f, xs = small_program(seed)
    eqns, invars, outvars, _ = linear_program(f, *xs)
    if not outvars or len(eqns) > 11:
        pytest.skip("nothing to cut, or too much to try")
    for cut in narrowest_cuts(eqns, invars, outvars):
        assert width(cut) == brute_force_width(eqns, invars, outvars)


def test_the_waist_is_found_and_its_parts_compose():
    eqns, invars, outvars, _ = linear_program(waisted(50, 3, 40), np.ones(50))
    first, last = narrowest_cuts(eqns, invars, outvars)
    assert width(first) == width(last) == 3
    before, middle, after = between(eqns, invars, first), between(eqns, first, last), between(eqns, last, outvars)
    assert len(before) + len(middle) + len(after) == len(eqns)
    assert [e.primitive.name for e in middle] == ["mul"]  # tanh' between both


def test_a_bypass_widens_the_waist():
    f = waisted(50, 3, 50)
    eqns, invars, outvars, _ = linear_program(lambda x: f(x) + x, np.ones(50))
    assert {width(cut) for cut in narrowest_cuts(eqns, invars, outvars)} == {50}


def test_two_waists_are_seen_by_their_widths():
    a = waisted(60, 5, 60)
    b = waisted(60, 2, 60)
    eqns, invars, outvars, _ = linear_program(lambda x: a(b(a(x))), np.ones(60))
    assert {width(cut) for cut in narrowest_cuts(eqns, invars, outvars)} == {2}


# bracketing


def price_of_tree(tree, widths, prices):
    if isinstance(tree, Sweep):
        return sweep_seconds(tree.mode, tree.start, tree.stop, widths, prices)
    product = product_seconds(widths[tree.stop], widths[tree.early.stop], widths[tree.start])
    return price_of_tree(tree.early, widths, prices) + price_of_tree(tree.late, widths, prices) + product


def all_trees(start, stop):
    yield from (Sweep(mode, start, stop, 0.0) for mode in ("forward", "reverse"))
    for middle in range(start + 1, stop):
        for early in all_trees(start, middle):
            for late in all_trees(middle, stop):
                yield Product(early, late, start, stop, 0.0)


@pytest.mark.parametrize("seed", range(8))
def test_the_bracketing_is_the_cheapest_of_all(seed):
    rng = np.random.default_rng(seed)
    widths = [int(n) for n in rng.integers(1, 2000, 5)]
    prices = [Price(1e-4, 1e-4, float(p)) for p in rng.uniform(1e-7, 1e-4, 4)]
    best = min(price_of_tree(tree, widths, prices) for tree in all_trees(0, 4))
    seconds = lambda mode, start, stop: sweep_seconds(mode, start, stop, widths, prices)  # noqa: E731
    assert _bracket(widths, seconds).seconds == pytest.approx(best)


def plan_of(f, x):
    *_, program = linear_program(f, x)
    return choose(program, len(program.outvars))[0]


def test_choices_follow_the_shape():
    w = RNG.normal(size=(400, 400)) / 20
    net = lambda x: np.tanh(w @ np.tanh(w @ x))  # noqa: E731
    assert plan_of(lambda t: net(t * np.ones(400)), np.array(0.3)).mode == "forward"
    assert plan_of(lambda x: net(x).sum(), np.ones(400)).mode == "reverse"
    assert plan_of(lambda x: net(np.concatenate([x, np.zeros(380)])), np.ones(20)).mode == "forward"
    assert plan_of(lambda x: net(x)[:5], np.ones(400)).mode == "reverse"
    plan = plan_of(waisted(1000, 10, 1000, 6), np.ones(1000))
    assert plan.mode == "split" and plan.sweeps() == [10, 10]
    assert min(plan.forward, plan.reverse) > 10 * plan.tree.seconds


def test_the_hessian_of_a_function_of_few_features_is_split():
    a = RNG.normal(size=(6, 500)) / 20
    f = lambda x: np.sum(np.tanh(a @ np.tanh(x)) ** 2)  # noqa: E731
    x = RNG.normal(size=500)
    close(ft.hessian(f, mode="auto")(x), ft.hessian(f)(x))


# all modes agree


def check_modes(f, *args, **options):
    expected = ft.jacrev(f, **options)(*args)
    for mode in ("auto", "forward", "reverse", "split"):
        derivative = ft.jacobian(f, mode=mode, **options)
        close(derivative(*args), expected)
        close(derivative(*args), expected)  # again, when the choice is remembered


SHAPED = {
    "wide to narrow": (lambda x: np.stack([x.sum(), (x * x).sum()]), np.ones((7, 5))),
    "narrow to wide": (lambda x: np.sin(np.outer(x, np.arange(30.0))), np.ones(2)),
    "scalar": (lambda x: np.sin(x) * x, np.array(0.7)),
    "constant": (lambda x: np.ones(3), np.ones(2)),
    "partly constant": (lambda x: (x * x, np.ones(3)), np.ones(2)),
    "identity": (lambda x: x, np.ones((2, 3))),
    "repeated": (lambda x: (x, x, 2.0 * x), np.ones(3)),
    "waist": (waisted(40, 2, 30), RNG.normal(size=40)),
    "matrix waist": (lambda x: np.outer(np.tanh(x.sum(axis=0)), np.arange(30.0)), RNG.normal(size=(20, 2))),
    "single precision": (waisted(40, 2, 30), RNG.normal(size=40)),
    "empty": (lambda x: x * 2.0, np.ones(0)),
    "loop": (lambda x: lax.scan(lambda h, _: (np.sin(h), h.sum()), x, None, length=20)[1], np.ones(5)),
    "solve": (lambda x: np.linalg.solve(np.eye(20) * 3 + np.outer(x, x), x), RNG.normal(size=20)),
}


@pytest.mark.parametrize("name", SHAPED)
def test_modes_agree(name):
    check_modes(*SHAPED[name])


def test_several_arguments_trees_and_aux():
    def f(p, x, scale):
        return {"a": np.tanh(p["w"] @ x) * scale, "b": (p["w"].sum(),)}, "aux"

    p, x = {"w": RNG.normal(size=(4, 3))}, RNG.normal(size=3)
    got, aux = ft.jacobian(f, argnums=(0, 1), has_aux=True)(p, x, 2.0)
    expected, _ = ft.jacrev(f, argnums=(0, 1), has_aux=True)(p, x, 2.0)
    assert aux == "aux"
    close(got, expected)
    g = waisted(40, 2, 30)
    both = lambda u, v: (g(np.concatenate([u, v])), g(np.concatenate([v, u])))  # noqa: E731
    check_modes(both, RNG.normal(size=15), RNG.normal(size=25), argnums=(0, 1))


def test_complex_and_mixed_types():
    z = RNG.normal(size=3) + 1j * RNG.normal(size=3)
    cubic = lambda z: z * z * z[0]  # noqa: E731
    close(ft.jacobian(cubic, holomorphic=True)(z), ft.jacrev(cubic, holomorphic=True)(z))
    close(ft.jacobian(lambda x: x * 1j)(np.ones(3)), ft.jacfwd(lambda x: x * 1j)(np.ones(3)))
    close(ft.jacobian(lambda z: np.abs(z))(z), ft.jacrev(lambda z: np.abs(z))(z))
    through = lambda x: np.abs(np.fft.fft(x))[:9]  # noqa: E731
    close(ft.jacobian(through)(np.arange(20.0) ** 1.5), ft.jacrev(through)(np.arange(20.0) ** 1.5))
    mixed = lambda x: x.astype(np.float32)  # noqa: E731
    assert ft.jacobian(mixed)(np.ones(2)).dtype == ft.jacrev(mixed)(np.ones(2)).dtype


@pytest.mark.parametrize("seed", range(25))
def test_random_programs(seed):
    f, xs = small_program(1000 + seed)
    check_modes(f, *xs, argnums=(0, 1))


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 6), st.integers(1, 40), st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_random_waists(seed, n, narrow, m, depth):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(narrow, n)), rng.normal(size=(m, narrow))

    def f(x):
        for _ in range(depth):
            x = x * np.cos(x)
        h = a @ x
        return np.exp(-((b @ (h * h)) ** 2)) + (b @ h)

    check_modes(f, rng.normal(size=n))


@given(st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_hessians_of_random_programs(seed):
    f, xs = small_program(seed)
    scalar = lambda x: np.sum(f(x, xs[1])[0] ** 2)  # noqa: E731
    close(ft.hessian(scalar, mode="auto")(xs[0]), ft.hessian(scalar)(xs[0]), 1e-9)


def test_infinite_factors_do_not_spread_over_a_waist():
    """Where a branch is not taken its factor may be infinite, and a product of matrices would make that NaN."""
    a, b = RNG.normal(size=(20, 3)), RNG.normal(size=(3, 20))

    def f(x):
        h = np.sqrt(np.abs(b @ x))
        y = fnp.where(h > 0.0, h, 0.0)
        return a @ y

    x = np.zeros(20)
    x[:] = np.linalg.svd(b)[2][-1]  # b x = 0 to rounding
    x -= np.linalg.pinv(b) @ (b @ x)
    g = lambda x: f(x * 0.0)  # noqa: E731
    with np.errstate(all="ignore"):
        for point, function in ((np.zeros(20), f), (x, g)):
            expected = ft.jacrev(function)(point)
            np.testing.assert_array_equal(np.isnan(ft.jacobian(function)(point)), np.isnan(expected))
            np.testing.assert_allclose(ft.jacobian(function)(point), expected)


def test_dead_branches_stay_dead():
    a, b = RNG.normal(size=(30, 2)), RNG.normal(size=(2, 30))

    def f(x):
        h = b @ x
        return a @ fnp.where(h > 0.0, np.log(h), 0.0)

    x = np.linalg.pinv(b) @ np.array([0.0, 1.0])
    x = x - np.linalg.pinv(b) @ (b @ x - np.array([-1e-30, 1.0]))
    with np.errstate(all="ignore"):
        expected = ft.jacrev(f)(x)
        assert np.isfinite(expected).all()
        close(ft.jacobian(f)(x), expected)


def test_custom_rules_for_one_mode_only():
    @ft.custom_vjp
    def clipped(x):
        return x * 1.0

    clipped.defvjp(lambda x: (clipped(x), None), lambda _, bar: (np.clip(bar, -1.0, 1.0),))
    f = lambda x: clipped(np.concatenate([x, x, x])) * 3.0  # noqa: E731
    np.testing.assert_array_equal(ft.jacobian(f)(np.ones(2)), ft.jacrev(f)(np.ones(2)))
    np.testing.assert_array_equal(ft.jacobian(f)(np.ones(2)), ft.jacrev(f)(np.ones(2)))


def test_under_other_transformations():
    f = waisted(30, 2, 20)
    x = RNG.normal(size=30)
    expected = ft.jacrev(f)(x)
    close(ft.jit(ft.jacobian(f))(x), expected)
    close(ft.vmap(ft.jacobian(f))(np.stack([x, 2 * x]))[0], expected)
    directional = lambda j: ft.jvp(j, (x,), (x,))[1]  # noqa: E731
    close(directional(ft.jacobian(f)), directional(ft.jacfwd(f)))
    close(ft.grad(lambda x: (ft.jacobian(f)(x) ** 2).sum())(x), ft.grad(lambda x: (ft.jacrev(f)(x) ** 2).sum())(x))


def test_compiled_waists_run_one_branch():
    """Compiled programs multiply the parts too, and sweep as a whole only if a factor is infinite."""
    f = waisted(200, 3, 150, 4)
    x = RNG.normal(size=200)
    close(ft.jit(ft.jacobian(f))(x), ft.jacrev(f)(x))
    jaxpr = ft.make_jaxpr(ft.jacobian(f))(x).jaxpr
    (choice,) = [e for e in jaxpr.eqns if e.primitive.name == "cond"]
    whole, product = (jaxpr_cost(b).flops for b in choice.params["branches"])
    outside = jaxpr_cost(jaxpr).flops - max(whole, product)
    assert product == 0 and whole > 4 * (outside - 2 * 200 * 3 * 150)
    a, b = RNG.normal(size=(30, 2)), np.eye(2, 30)
    g = lambda x: a @ fnp.where(b @ x > 0.0, np.log(b @ x), 0.0)  # noqa: E731
    for first in (-1e-30, 0.0):
        x = np.array([first, 1.0, *RNG.normal(size=28)])
        with np.errstate(all="ignore"):
            close(ft.jit(ft.jacobian(g))(x), ft.jacrev(g)(x))


def test_python_branches_and_changed_closures():
    w = np.ones(20)
    f = lambda x: w * x if x[0] > 0 else np.outer(w, x).sum(0) * x  # noqa: E731
    jacobian = ft.jacobian(f)
    for sign in (1.0, -1.0, 1.0):
        close(jacobian(sign * np.arange(1.0, 21.0)), ft.jacrev(f)(sign * np.arange(1.0, 21.0)))
        w[:] = w + 1.0
        close(jacobian(sign * np.arange(1.0, 21.0)), ft.jacrev(f)(sign * np.arange(1.0, 21.0)))


def test_unknown_modes_are_refused():
    with pytest.raises(ArgumentError, match="no such mode"):
        ft.jacobian(np.sin, mode="sideways")
    with pytest.raises(ArgumentError, match="no such mode"):
        ft.hessian(np.sin, mode="sideways")


def test_equal_programs_with_other_wiring_have_other_plans():
    """A remembered plan is that of the same wiring: otherwise its cut would not be one."""
    a = RNG.normal(size=(2, 40)) / 6
    out = RNG.normal(size=(40, 2))
    through = lambda x: np.sin(np.sin(out @ (a @ x)))  # noqa: E731
    around = lambda x: np.sin(np.sin(x)) + 0.0 * (out @ (a @ x))  # noqa: E731
    x = RNG.normal(size=40)
    for f in (through, around, through, around):
        close(ft.jacobian(lambda x, f=f: f(x))(x), ft.jacrev(f)(x))


# sparse patterns


def banded(x):
    for _ in range(3):
        x = np.concatenate([x[:1], x[1:] * np.sin(x[:-1]) * 2.0])
    return x


def modes_taken(f):
    return set(jacobians._choices_of(f).values())


def test_sparse_jacobians_are_coloured():
    x = RNG.normal(size=400)
    close(ft.jacobian(banded)(x), ft.jacrev(banded)(x))
    assert modes_taken(banded) == {"sparse"}
    f = lambda x: np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)  # noqa: E731
    close(ft.hessian(f, mode="auto")(x), ft.hessian(f)(x))


EVERYTHING_COLOURED = {
    "banded": (banded, RNG.normal(size=9)),
    "rows": (lambda x: x[::2] * x[0], RNG.normal(size=12)),
    "sums": (lambda x: np.sum(np.reshape(x, (6, 3)) ** 2, axis=1), RNG.normal(size=18)),
    "gather": (lambda x: x[np.array([3, 0, 3, 7])] ** 2, RNG.normal(size=16)),
    "scatter": (lambda x: fnp.at(fnp.zeros(20))[np.array([3, 0, 3])].add(x[:3] ** 2), RNG.normal(size=9)),
    "where": (lambda x: fnp.where(np.arange(12) > 5, x, np.sin(x[::-1])), RNG.normal(size=12)),
    "where by value": (lambda x: fnp.where(x > 0, x**2, np.sin(x[::-1])), RNG.normal(size=12)),
    "cumulative": (lambda x: np.cumsum(np.reshape(x, (6, 2)), axis=1), RNG.normal(size=12)),
    "stencil": (lambda u: u[2:, 1:-1] + u[:-2, 1:-1] - 4 * u[1:-1, 1:-1] ** 2, RNG.normal(size=(6, 6))),
    "block": (lambda x: np.einsum("bij,bj->bi", np.arange(36.0).reshape(4, 3, 3), x**2), RNG.normal(size=(4, 3))),
    "sort": (lambda x: np.sort(x), RNG.normal(size=10)),
    "pair": (lambda x: (x[:5] ** 2, np.ones(3), x[5:] ** 3), RNG.normal(size=10)),
}


@pytest.mark.parametrize("name", EVERYTHING_COLOURED)
def test_colouring_whenever_there_is_a_pattern(name, monkeypatch):
    monkeypatch.setattr(_choice, "_WORTH_COLORING", -1.0)
    monkeypatch.setattr(_choice, "_PAYS", 1e9)
    f, x = EVERYTHING_COLOURED[name]
    jacobian = ft.jacobian(f)
    for point in (x, -x, x[::-1].copy(), 0.5 * x):
        close(jacobian(point), ft.jacrev(f)(point))
    assert "sparse" in modes_taken(f) or name in ("sort", "block")


def test_patterns_are_those_of_the_constants_at_hand(monkeypatch):
    """Indices and masks that a program closes over may change between calls."""
    monkeypatch.setattr(_choice, "_WORTH_COLORING", -1.0)
    monkeypatch.setattr(_choice, "_PAYS", 1e9)
    state = {"i": np.arange(10), "mask": np.arange(10) > 4, "w": np.ones(10)}
    f = lambda x: fnp.where(state["mask"], x[state["i"]] * state["w"], x[::-1] ** 2)  # noqa: E731
    jacobian, x = ft.jacobian(f), RNG.normal(size=10)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        weights = rng.normal(size=10) * (rng.random(10) > 0.5)
        state.update(i=rng.integers(0, 10, 10), mask=rng.random(10) > 0.5, w=weights)
        close(jacobian(x), ft.jacrev(f)(x))


@pytest.mark.parametrize("seed", range(15))
def test_random_programs_coloured(seed, monkeypatch):
    monkeypatch.setattr(_choice, "_WORTH_COLORING", -1.0)
    monkeypatch.setattr(_choice, "_PAYS", 1e9)
    f, xs = small_program(2000 + seed)
    wide = lambda *xs: f(*[np.concatenate([x, np.ones(9)]) for x in xs])  # noqa: E731
    check_modes(wide, *xs, argnums=(0, 1))


# comparisons


def test_a_comparison_of_jacobians():
    seen = []
    found = modes.compare(
        waisted(60, 4, 50), rounds=2, progress=lambda done, total, label: seen.append((done, total, label))
    )(RNG.normal(size=60))
    assert [row.mode for row in found.rows] == ["forward", "reverse", "split", "sparse"]
    assert [row.sweeps for row in found.rows[:3]] == ["60", "50", "4 + 4"]
    assert (found.inputs, found.outputs) == (60, 50)
    assert all(row.difference < 1e-12 for row in found.rows)
    assert all(row.seconds > 0 and row.measured > 0 for row in found.rows)
    assert found["split"].flops < found["forward"].flops / 2
    assert found.choice in ("forward", "reverse", "split")
    assert all(done <= total for done, total, _ in seen) and len(seen) > 8
    text = repr(found)
    assert "R^60 -> R^50" in text and "choice:" in text and "4 + 4" in text
    assert "<table>" in found._repr_html_()
    assert json.loads(found.to_json())["rows"][2]["mode"] == "split"


def test_a_comparison_of_hessians():
    found = modes.compare(lambda x: np.sum(np.sin(x[1:] * x[:-1])), "hessian", rounds=1)(np.linspace(0.1, 1.0, 12))
    names = [row.mode for row in found.rows]
    assert names[:5] == ["fwd-rev", "rev-rev", "fwd-fwd", "rev-fwd", "hvp"]
    assert "sparse" in names
    assert all(row.difference < 1e-12 for row in found.rows if row.difference is not None)
    assert found["fwd-rev"].sweeps == "12" and found["fwd-fwd"].sweeps == "144"
    assert found["hvp"].memory < found["fwd-fwd"].memory


def test_predicted_memory_is_what_is_measured():
    w = RNG.normal(size=(300, 400))  # NumPy's own buffers of 64 kB do not count
    found = modes.compare(lambda x: np.tanh(w @ np.sin(x)), rounds=1)(RNG.normal(size=400))
    for mode in ("forward", "reverse"):
        assert found[mode].memory == pytest.approx(found[mode].measured, rel=0.15)


def test_what_cannot_be_recorded_runs_as_it_is():
    found = modes.compare(lambda x: x * x if x[0] > 0 else np.sin(x), rounds=1)(np.ones(3))
    assert found["forward"].flops is None and found["forward"].difference == 0.0
    assert "Python branches" in found["forward"].note
    assert found["sparse"].seconds is None


def test_what_needs_too_much_memory_is_not_run():
    found = modes.compare(lambda x: np.sin(x), rounds=1, memory=1e4)(np.ones(100))
    assert found["forward"].seconds is None and "too much memory" in found["forward"].note
    assert "-" in repr(found)


def test_a_plot(tmp_path):
    pytest.importorskip("matplotlib")
    found = modes.compare(waisted(30, 2, 20), rounds=1)(np.ones(30))
    found.plot(tmp_path / "modes.png")
    assert (tmp_path / "modes.png").stat().st_size > 5000


def test_an_unknown_derivative_is_refused():
    with pytest.raises(ArgumentError, match="Jacobians and Hessians"):
        modes.compare(np.sin, "laplacian")


def test_the_command(tmp_path, capsys):
    target, page = tmp_path / "modes.json", tmp_path / "modes.html"
    words = ["modes", "numpy:sin", "--at", "normal:4x5", "--rounds", "1", "--json", str(target), "--html", str(page)]
    assert cli.main(words) == 0
    assert "jacobian of R^20 -> R^20" in capsys.readouterr().out
    assert json.loads(target.read_text())["inputs"] == 20
    assert "<table>" in page.read_text()
    np.save(tmp_path / "x.npy", np.array([0.1, 0.2]))
    assert cli.main(["modes", "numpy:prod", "--hessian", "--at", str(tmp_path / "x.npy"), "--rounds", "1"]) == 0
    assert "hessian of R^2 -> R^1" in capsys.readouterr().out
    assert cli.main(["modes", "numpy:nothing", "--at", "1.0"]) == 1


@pytest.mark.parametrize("bench", [choice, memory], ids=["choice", "memory"])
def test_the_benches_run(bench, tmp_path, capsys):
    target = tmp_path / "report.json"
    assert bench.main(["--smoke", "--json", str(target)]) == 0
    assert "|" in capsys.readouterr().out
    assert json.loads(target.read_text())["rows"]


# choices in programs being compiled


def modes_chosen(monkeypatch, function, x):
    """The modes chosen by NumPy calls and in a program that is compiled, in this order."""
    found = []
    form = _choice.form

    def spy(*args):
        made = form(*args)
        found.append(made[0].mode)
        return made

    monkeypatch.setattr(jacobians, "form", spy)
    eager = ft.jacobian(function)(x)
    close(ft.jit(ft.jacobian(function))(x), eager)
    return tuple(found)


def test_a_program_being_compiled_is_priced_as_machine_code(monkeypatch):
    w = RNG.normal(size=(40, 40)) / 6
    # A loop under NumPy costs by its steps, whatever the directions; in machine code by the directions.
    steps = lambda x: lax.scan(lambda h, _: (np.tanh(w @ h), h[0]), x, None, length=10)[1]  # noqa: E731
    assert modes_chosen(monkeypatch, steps, np.ones(40)) == ("forward", "reverse")
    # What reverse mode solves for is constant, so that tracing does.
    solved = w + 8 * np.eye(40)
    assert modes_chosen(monkeypatch, lambda b: np.linalg.solve(solved, np.sin(b)), np.ones(40))[1] == "reverse"
    # Calls cost nothing there, so that a product pays at small waists too.
    assert modes_chosen(monkeypatch, waisted(40, 2, 40, 12), np.ones(40))[1] == "split"
