"""Memory of reverse mode: Revolve's schedules, checkpointed loops, policies, gradients under a budget."""

import functools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import functrace as ft
import functrace.numpy as fnp
from functrace import lax
from functrace.control.checkpointed_scan import choose_checkpoints
from functrace.control.revolve import evaluations, reach, repetitions, schedule
from functrace.core.ir import subjaxprs
from functrace.errors import ArgumentError
from functrace.inspect import cost
from functrace.transforms import checkpoint_policies as policies
from functrace.transforms.memory import parse_bytes

RNG = np.random.default_rng(20261122)
W, H, XS = RNG.normal(size=(6, 6)) / 3, RNG.normal(size=6), RNG.normal(size=(23, 6))
CHECKPOINTS = (1, 2, 3, 5, 100, "binomial")


def close(got, expected, rtol=1e-12):
    for a, b in zip(ft.tree.leaves(got), ft.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.max(np.abs(b), initial=1e-300))


# Revolve


@functools.cache
def least(length, snapshots):
    """The fewest steps advanced over, by dynamic programming over the first snapshot's place."""
    if length == 1:
        return 0
    if snapshots == 1:
        return length * (length - 1) // 2
    return min(m + least(length - m, snapshots - 1) + least(m, snapshots) for m in range(1, length))


@pytest.mark.parametrize("snapshots", range(1, 8))
def test_evaluations_are_the_least_and_those_of_the_binomial_formula(snapshots):
    for length in range(1, 60):
        advanced = sum(a.stop - a.start for a in schedule(length, snapshots) if a.kind == "advance")
        assert advanced == evaluations(length, snapshots) == least(length, snapshots)


@given(st.integers(1, 400), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_schedules_reverse_every_step_once_from_states_they_have(length, snapshots):
    kept, state, reversed_steps = {0}, 0, []
    counts = np.zeros(length, int)
    for action in schedule(length, snapshots):
        if action.kind == "advance":
            assert action.start in kept
            counts[action.start : action.stop] += 1
            state = action.stop
            if action.keep:
                kept.add(state)
                assert len(kept) <= snapshots
        else:
            assert action.start in kept or state == action.start
            kept.discard(action.start)
            reversed_steps.append(action.start)
    assert reversed_steps == list(range(length))[::-1]
    assert counts.max() <= repetitions(length, snapshots)
    assert reach(snapshots, repetitions(length, snapshots)) >= length


def test_reach_is_binomial():
    assert reach(3, 2) == math.comb(5, 3) == 10
    assert repetitions(10, 3) == 2
    assert repetitions(11, 3) == 3
    assert evaluations(10, 3) == 2 * 10 - math.comb(5, 4)  # r l - C(s + r, r - 1)


def test_no_steps_no_actions():
    assert list(schedule(0, 3)) == []


# loops


def loss(w, h, xs, checkpoint=None, reverse=False):
    def body(state, x):
        h, count = state
        h = np.tanh(w @ h + x)
        return (h, count + 1), (h[0] * x[1], count)

    (h, _), (ys, _) = lax.scan(body, (h, 0), xs, reverse=reverse, checkpoint=checkpoint)
    return (h**2).sum() + (ys * np.arange(len(xs))).sum()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
@pytest.mark.parametrize("length", [0, 2, 23])
def test_gradients_are_those_of_the_plain_loop(checkpoint, reverse, length):
    xs = XS[:length]
    expected = ft.value_and_grad(loss, (0, 1, 2))(W, H, xs, None, reverse)
    close(ft.value_and_grad(loss, (0, 1, 2))(W, H, xs, checkpoint, reverse), expected)


@pytest.mark.parametrize("mode", ["fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev"])
def test_all_nestings(mode):
    def f(h, checkpoint):
        return loss(W, h, XS[:9], checkpoint)

    close(ft.hessian(f, mode=mode)(H, 3), ft.hessian(f)(H, None), 1e-11)


def test_under_vmap_jit_and_forward_mode():
    batch = RNG.normal(size=(3, 6))
    f = functools.partial(loss, W)
    expected = np.stack([ft.grad(f)(h, XS) for h in batch])
    close(ft.vmap(lambda h: ft.grad(f)(h, XS, 3))(batch), expected)
    close(ft.grad(lambda b: ft.vmap(lambda h: f(h, XS, 3))(b).sum())(batch), expected)
    few = XS[:5]
    close(ft.jit(ft.grad(lambda h: f(h, few, 2)))(H), ft.grad(f)(H, few))
    close(ft.grad(ft.jit(lambda h: f(h, few, "binomial")))(H), ft.grad(f)(H, few))
    close(ft.jvp(lambda h: f(h, XS, 2), (H,), (H,)), ft.jvp(lambda h: f(h, XS), (H,), (H,)))
    close(ft.jet(lambda h: f(h, XS, 2), (H,), ((H, 0 * H),)), ft.jet(lambda h: f(h, XS), (H,), ((H, 0 * H),)))


def test_a_branch_not_taken_does_not_count():
    def f(x, checkpoint):
        def body(h, _):
            return fnp.where(h > 0.0, fnp.sqrt(h), 0.0) + 0.0 * h, None

        return lax.scan(body, x, None, length=5, checkpoint=checkpoint)[0].sum()

    x = np.array([0.0, 2.0])
    with np.errstate(divide="ignore", invalid="ignore"):
        found, expected = ft.grad(f)(x, 2), ft.grad(f)(x, None)
    close(found, expected)
    assert np.isfinite(found).all()


def test_a_while_inside_stores_its_trajectory():
    def f(x, checkpoint):
        def body(h, _):
            return lax.while_loop(lambda h: h > 1.0, lambda h: 0.5 * h, 3.0 * h), None

        return lax.scan(body, x, None, length=6, checkpoint=checkpoint)[0]

    assert ft.grad(f)(0.8, 2) == ft.grad(f)(0.8, None)


def test_without_carry_or_without_inputs():
    squares = lambda x, c: lax.scan(lambda _, x: (None, x * x), None, x, checkpoint=c)[1].sum()  # noqa: E731
    close(ft.grad(squares)(H, 2), 2 * H)
    powers = lambda x, c: lax.scan(lambda h, _: (h * x, None), x, None, length=9, checkpoint=c)[0]  # noqa: E731
    assert ft.grad(powers)(1.1, 3) == pytest.approx(10 * 1.1**9)


@pytest.mark.parametrize("snapshots", [1, 2, 3, 6])
def test_steps_run_as_often_as_revolve_says(snapshots):
    runs = []

    def note(x):
        runs.append(1)
        return x

    @ft.custom_jvp
    def noted(x):
        return ft.pure_callback(note, ft.ShapeDtypeStruct((), float), x)

    noted.defjvp(lambda primals, tangents: (noted(*primals), tangents[0]))

    def f(x):
        return lax.scan(lambda h, _: (np.sin(noted(h)), None), x, None, length=20, checkpoint=snapshots)[0]

    ft.grad(f)(0.3)
    # the first way to the end shares its advances with the schedule, and runs the last step too; then each is reversed
    first = schedule(20, snapshots)
    shared = 0
    for action in first:
        if action.kind == "reverse" or not action.keep:
            break
        shared += action.stop - action.start
    assert len(runs) == 20 + (evaluations(20, snapshots) - shared) + 20


def peak(call):
    call()
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_of_a_long_loop():
    def gradient(checkpoint):
        def f(h):
            body = lambda h, _: (h + 0.01 * np.sin(h), None)  # noqa: E731
            return (lax.scan(body, h, None, length=600, checkpoint=checkpoint)[0] ** 2).sum()

        return ft.grad(f)

    x = np.linspace(-1.0, 1.0, 4000)
    stored, revolved = gradient(None), gradient("binomial")
    close(revolved(x), stored(x))
    assert peak(lambda: revolved(x)) < 0.08 * peak(lambda: stored(x))


def test_binomial_repeats_a_step_at_most_twice_before_it_is_reversed():
    jaxpr = (
        ft.make_jaxpr(lambda h: lax.scan(lambda h, _: (np.sin(h), None), h, None, length=9)[0])(H)
        .eqns[0]
        .params["jaxpr"]
    )
    for length in (2, 10, 1000, 100_000):
        snapshots, block = choose_checkpoints(jaxpr, length, 0, 1, "binomial")
        assert repetitions(-(-length // block), snapshots) <= 2
        assert length < 1000 or snapshots + block < length**0.5


@pytest.mark.parametrize("wrong", [0, -1, True, 2.5, "revolve"])
def test_wrong_checkpoints_are_refused(wrong):
    with pytest.raises(ArgumentError, match="positive number of carries"):
        lax.scan(lambda h, _: (h, None), 1.0, None, length=3, checkpoint=wrong)


# policies


def deep(x):
    for _ in range(3):
        x = np.sin(np.tanh(W @ x))
    return (x**2).sum()


POLICIES = [policies.everything_saveable, policies.nothing_saveable, policies.dots_saveable, None]


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_change_no_derivative(policy):
    f = ft.checkpoint(deep, policy=policy)
    x = RNG.normal(size=(6, 4))
    close(f(x), deep(x))
    close(ft.grad(f)(x), ft.grad(deep)(x))
    close(ft.jit(ft.grad(f))(x), ft.grad(deep)(x), 1e-11)
    close(ft.vmap(ft.grad(f))(np.stack([x, 2 * x]))[1], ft.grad(deep)(2 * x))
    line = lambda g: lambda t: g(t[0] * x + t[1])  # noqa: E731
    for mode in ("fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev"):
        close(ft.hessian(line(f), mode=mode)(np.array([0.5, 0.1])), ft.hessian(line(deep))(np.array([0.5, 0.1])), 1e-10)


def residual_sizes(f, x):
    """The bytes that the pullback of a function keeps."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        pullback = ft.vjp(f, x)[1]
        return tracemalloc.get_traced_memory()[0] - before, pullback
    finally:
        tracemalloc.stop()


def test_policies_store_what_they_say():
    x = RNG.normal(size=(6, 20_000))
    size = x.nbytes
    for f in (deep, ft.checkpoint(deep, policies.dots_saveable)):
        residual_sizes(f, x)
    plain = residual_sizes(deep, x)[0]
    nothing = residual_sizes(ft.checkpoint(deep, policies.nothing_saveable), x)[0]
    dots = residual_sizes(ft.checkpoint(deep, policies.dots_saveable), x)[0]
    assert plain > 5.5 * size
    assert nothing < 2.3 * size  # the argument and its copy
    assert 3 * size < dots < 5.4 * size


def test_recomputation_shows_in_the_cost():
    x = RNG.normal(size=(6, 50))
    flops = {p: cost(ft.value_and_grad(ft.checkpoint(deep, p)))(x).flops for p in POLICIES}
    assert flops[policies.everything_saveable] < flops[policies.dots_saveable] < flops[policies.nothing_saveable]


def test_closures_of_a_checkpointed_function_are_differentiated():
    def f(y, policy):
        return ft.checkpoint(lambda x: np.sin(x * y), policy)(2.0)

    for policy in POLICIES:
        assert ft.grad(f)(0.3, policy) == pytest.approx(2 * np.cos(0.6))


# budgets


def chain(x):
    for _ in range(16):
        x = np.sin(x) * x + 0.1
    return x.sum()


def looped(h):
    return (lax.scan(lambda h, _: (np.sin(h) * 1.01, None), h, None, length=400)[0] ** 2).sum()


def mixed(x):
    for _ in range(5):
        x = np.tanh(x) * 1.5
    return looped(x) + x.sum()


BUDGETS = [(chain, 40_000, "12MB"), (chain, 40_000, "7MB"), (looped, 2000, "3MB"), (looped, 2000, "800kB"),
           (mixed, 2000, "1.5MB")]  # fmt: skip


@pytest.mark.parametrize(("function", "size", "memory"), BUDGETS)
def test_gradients_within_a_budget(function, size, memory):
    x = RNG.normal(size=size)
    limit = parse_bytes(memory)
    assert peak(lambda: ft.grad(function)(x)) > 1.2 * limit
    frugal = ft.grad(function, memory=memory)
    close(frugal(x), ft.grad(function)(x), 1e-9)
    assert peak(lambda: frugal(x)) < 1.15 * limit + 600_000  # the recorded program itself


def test_a_budget_that_suffices_changes_nothing():
    x = RNG.normal(size=50)
    close(ft.value_and_grad(chain, memory="1GB")(x), ft.value_and_grad(chain)(x))
    found, aux = ft.grad(lambda x: (chain(x), 2.0), has_aux=True, memory=10**9)(x)
    close(found, ft.grad(chain)(x))
    assert aux == 2.0
    both = lambda a, b: chain(a * b)  # noqa: E731
    close(ft.grad(both, (0, 1), memory="1GB")(x, x), ft.grad(both, (0, 1))(x, x))


def test_budgets_inside_other_transformations():
    f = ft.grad(looped, memory="100kB")
    x = RNG.normal(size=5)
    close(ft.jacfwd(f)(x), ft.hessian(looped)(x), 1e-10)
    close(ft.jit(f)(x), ft.grad(looped)(x), 1e-10)


def test_a_budget_that_nothing_fits_is_refused():
    with pytest.raises(ArgumentError, match="the least is about"):
        ft.grad(chain, memory="1kB")(np.ones(1000))


@pytest.mark.parametrize(
    ("text", "number"), [("200MB", 2e8), ("1 GiB", 2**30), ("1.5kB", 1500), (12, 12), ("7", 7), (2.5e6, 2.5e6)]
)
def test_bytes_are_parsed(text, number):
    assert parse_bytes(text) == number


@pytest.mark.parametrize("wrong", ["lots", "12 parsecs", -3, True, "1.2.3MB", "", None])
def test_wrong_budgets_are_refused(wrong):
    with pytest.raises(ArgumentError, match="bytes"):
        parse_bytes(wrong)


def test_jitted_programs_keep_the_second_run_apart():
    program = ft.make_jaxpr(ft.value_and_grad(ft.checkpoint(deep, policies.nothing_saveable)))(RNG.normal(size=(6, 4)))
    assert sum(eqn.primitive.name == "saved_call" for eqn in program.eqns) == 2
    assert all(list(subjaxprs(e)) for e in program.eqns if e.primitive.name == "saved_call")
