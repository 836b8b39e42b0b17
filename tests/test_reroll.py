"""Long repetitions in traced programs become loops, and nothing else changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import functrace as ft
from functrace import lax
from functrace.control import repetition, reroll
from functrace.core.ir import check_jaxpr, eval_jaxpr
from functrace.interpreters import linearize as linearization


@pytest.fixture
def eager_rerolling(monkeypatch):
    """Short repetitions count as long."""
    monkeypatch.setattr(reroll, "_WORTH", 24)
    monkeypatch.setattr(linearization, "_VISITS", 2)


def scans(jaxpr):
    return [e for e in jaxpr.eqns if e.primitive.name == "scan"]


def rolled(f, *args):
    """The program of f before and after."""
    before = ft.make_jaxpr(f)(*args)
    after = reroll.reroll(before)
    check_jaxpr(after.jaxpr)
    return before, after


def assert_same(before, after, *args):
    args = [np.asarray(x)[()] for x in args]
    for a, b in zip(
        eval_jaxpr(before.jaxpr, before.consts, *args), eval_jaxpr(after.jaxpr, after.consts, *args), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=4e-15)  # a sum may be added up in another order


def van_der_pol(steps):
    h = 5.0 / steps

    def final(p):
        mu = p[2]

        def slope(x, v):
            return v, mu * (1.0 - x * x) * v - x

        x, v = p[0], p[1]
        for _ in range(steps):
            a, b = slope(x, v)
            c, d = slope(x + 0.5 * h * a, v + 0.5 * h * b)
            e, f = slope(x + 0.5 * h * c, v + 0.5 * h * d)
            g, i = slope(x + h * e, v + h * f)
            x, v = x + h / 6 * (a + 2 * c + 2 * e + g), v + h / 6 * (b + 2 * d + 2 * f + i)
        return x * x + v

    return final


START = np.array([2.0, 0.0, 0.8])


def complex_step(f, x):
    steps = 1e-30j * np.eye(len(x))
    return np.array([f(x + s).imag / 1e-30 for s in steps])


def test_an_unrolled_integrator_is_a_loop():
    f = van_der_pol(100)
    jitted = ft.jit(f)
    program = jitted.trace(START)
    (loop,) = scans(program.jaxpr)
    assert loop.params["carry"] == 2 and loop.params["length"] >= 95
    assert len(program.jaxpr.eqns) < 150
    np.testing.assert_allclose(jitted(START), f(START), rtol=1e-13)


def test_the_gradient_of_an_unrolled_integrator_is_two_loops():
    f = van_der_pol(200)
    jitted = ft.jit(ft.grad(f))
    program = jitted.trace(START)
    assert len(scans(program.jaxpr)) == 2 and len(program.jaxpr.eqns) < 1_000
    np.testing.assert_allclose(jitted(START), complex_step(f, START), rtol=1e-9)


def test_equations_do_not_grow_with_the_steps():
    sizes = {len(ft.jit(ft.grad(van_der_pol(steps))).trace(START).jaxpr.eqns) for steps in (100, 300)}
    assert len(sizes) == 1


@pytest.mark.parametrize("outer", [ft.jacfwd, ft.jacrev])
@pytest.mark.parametrize("inner", [ft.jacfwd, ft.jacrev])
def test_hessians_in_four_nestings(outer, inner, eager_rerolling):
    f = van_der_pol(12)
    expected = ft.hessian(f)(START)
    np.testing.assert_allclose(ft.jit(outer(inner(f)))(START), expected, rtol=1e-9, atol=1e-9)


def test_batches_and_directions(eager_rerolling):
    f, points = van_der_pol(12), START + 0.02 * np.arange(15.0).reshape(5, 3)
    expected = np.array([complex_step(f, p) for p in points])
    np.testing.assert_allclose(ft.jit(ft.vmap(ft.grad(f)))(points), expected, rtol=1e-9)
    direction = np.array([1.0, -2.0, 0.5])
    value, slope = ft.jit(lambda p, t: ft.jvp(f, (p,), (t,)))(START, direction)
    np.testing.assert_allclose([value, slope], [f(START), complex_step(f, START) @ direction], rtol=1e-9)
    value, pull = ft.jit(lambda p: (ft.vjp(f, p)[0], ft.vjp(f, p)[1](2.0)))(START)
    np.testing.assert_allclose(pull[0], 2 * complex_step(f, START), rtol=1e-9)


def test_steps_are_told_from_what_repeats_within_them():
    """On a ring of numbers each step is the same points over, but for the ends; the steps are what is rolled up."""

    def f(u, points=20, steps=30):
        u = [u[i] for i in range(points)]
        for _ in range(steps):
            u = [u[i] + 0.1 * (u[i - 1] - 2 * u[i] + u[(i + 1) % points]) + 0.01 * np.sin(u[i]) for i in range(points)]
        return sum(x * x for x in u)

    u = np.linspace(0.0, 1.0, 20)
    (loop,) = scans(ft.jit(f).trace(u).jaxpr)
    assert loop.params["carry"] == 20 and loop.params["length"] >= 28
    np.testing.assert_allclose(ft.jit(ft.grad(f))(u), ft.grad(f)(u), rtol=1e-12)


def test_short_programs_stay_as_they_are():
    program = ft.jit(van_der_pol(5)).trace(START)
    assert not scans(program.jaxpr)


# what may differ from step to step


def numbers(x):
    """Literals that change: the time."""
    for k in range(20):
        x = x + 0.1 * np.sin(x * 0.05 * k) * (k + 1.5)
    return x


def controls(x, u):
    """Elements of an input, chosen by a Python number."""
    for k in range(20):
        x = x + 0.1 * np.sin(x * u[k]) - u[19 - k]
    return x


def shooting(z):
    """Independent intervals between parts of a computed array, all of them wanted."""
    states = np.reshape(np.tanh(z), (21, 2))
    gaps = []
    for k in range(20):
        x = states[k]
        for _ in range(3):
            x = x + 0.1 * np.stack([x[1], -np.sin(x[0])])
        gaps.append(states[k + 1] - x)
    return np.concatenate(gaps)


def history(x):
    """Two steps back."""
    before, now = x, x * 1.1
    for _ in range(30):
        before, now = now, now + 0.1 * (3 * np.cos(now) - np.cos(before)) / 2
    return now * before


def trajectory(x):
    """All states, and one of them again."""
    states = [x]
    for _ in range(20):
        states.append(states[-1] * 0.9 + np.sin(states[-1]))
    return np.stack(states), states[7] * states[3]


def invariants(x):
    """What is computed before the loop."""
    a, b = np.exp(x), np.outer(x, x)
    for _ in range(20):
        x = b @ x / (1.0 + a * x * x) + a
    return x.sum()


def nested(x):
    """Loops in the loop."""
    for k in range(12):
        for _ in range(4):
            x = x + 0.01 * np.cos(x)
        x = x * (1.0 + 0.01 * k)
    return x


def two_loops(x):
    for _ in range(20):
        x = x + 0.1 * np.sin(x)
    y = np.exp(-x)
    for _ in range(20):
        y = y * 0.9 + 0.1 * x * y
    return y


def choices(x):
    for _ in range(20):
        x = np.where(x > 1.0, x * 0.5, x + 0.3) + np.abs(x - 0.5)
    return x


def sharing(x):
    """A value of every step is read by each that follows."""
    total, first = 0.0, None
    for _ in range(20):
        x = np.sin(x) + 0.5
        first = x if first is None else first
        total = total + x * first
    return total


def waist(x):
    """The steps pass through one value that changes its meaning."""
    for k in range(24):
        x = np.sin(x) * 2.0 if k % 2 else np.sin(x) + 2.0
    return x


VECTOR = np.array([0.3, -0.7, 1.2])
PROGRAMS = [
    (numbers, (0.4,)),
    (numbers, (VECTOR,)),
    (numbers, (VECTOR.astype(np.float32),)),
    (controls, (0.4, np.linspace(-1, 1, 20))),
    (controls, (VECTOR, np.linspace(-1, 1, 20))),
    (shooting, (np.linspace(-1, 1, 42),)),
    (history, (0.4,)),
    (history, (VECTOR,)),
    (trajectory, (0.4,)),
    (trajectory, (VECTOR,)),
    (invariants, (VECTOR,)),
    (nested, (0.4,)),
    (two_loops, (VECTOR,)),
    (choices, (VECTOR,)),
    (sharing, (0.4,)),
    (waist, (VECTOR,)),
]
NAMES = [f"{f.__name__}-{np.shape(args[0])}-{np.asarray(args[0]).dtype}" for f, args in PROGRAMS]


@pytest.mark.parametrize(("f", "args"), PROGRAMS, ids=NAMES)
def test_values_are_the_same(f, args, eager_rerolling):
    before, after = rolled(f, *args)
    assert len(after.jaxpr.eqns) < 0.8 * len(before.jaxpr.eqns)
    assert_same(before, after, *args)


@pytest.mark.parametrize(("f", "args"), PROGRAMS, ids=NAMES)
def test_derivatives_are_those_of_the_unrolled_program(f, args, eager_rerolling):
    def flat(*values):
        return np.concatenate([np.ravel(leaf) for leaf in ft.tree.leaves(f(*values))])

    single = np.asarray(args[0]).dtype == np.float32
    tolerance = {"rtol": 2e-4, "atol": 1e-4} if single else {"rtol": 1e-10, "atol": 1e-12}
    for mode in (ft.jacfwd, ft.jacrev):
        np.testing.assert_allclose(ft.jit(mode(flat))(*args), ft.jacfwd(flat)(*args), **tolerance)


def test_the_last_results_come_from_the_carry(eager_rerolling):
    _, after = rolled(history, 0.4)
    (loop,) = scans(after.jaxpr)
    assert len(loop.outvars) == loop.params["carry"]


def test_a_selection_from_what_the_loop_makes_is_part_of_the_loop(eager_rerolling):
    def f(x):
        for _ in range(20):
            x = np.stack([x[1], x[2] * 0.5, x[0] + x[1]])
        return x

    before, after = rolled(f, VECTOR)
    assert scans(after.jaxpr)
    assert_same(before, after, VECTOR)


# repetitions that do not need each other


def shots(z, steps=20, inner=3):
    """Multiple shooting, as one writes it: parts of the variables, an objective that grows, defects in a list."""
    states, forces = np.reshape(z[: 2 * (steps + 1)], (steps + 1, 2)), z[2 * (steps + 1) :]
    cost, gaps = 0.0, []
    for k in range(steps):
        x, v = states[k]
        for _ in range(inner):
            x, v = x + 0.1 * v, v + 0.1 * (forces[k] - np.sin(x))
        gaps += [states[k + 1, 0] - x, states[k + 1, 1] - v]
        cost = cost + 0.5 * forces[k] ** 2 + np.dot(states[k], states[k])
    return cost, np.stack(gaps)


SHOTS = np.linspace(-1, 1, 2 * 21 + 20)


def test_independent_repetitions_become_operations_on_arrays(eager_rerolling):
    before, after = rolled(shots, SHOTS)
    assert not scans(after.jaxpr) and len(after.jaxpr.eqns) < len(before.jaxpr.eqns) / 4
    assert {e.primitive.name for e in after.jaxpr.eqns}.isdisjoint({"gather", "while"})
    for a, b in zip(eval_jaxpr(after.jaxpr, after.consts, SHOTS), shots(SHOTS), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


def test_what_the_repetition_before_has_made_is_a_shift(eager_rerolling):
    def f(x):
        before, total = x[0], []
        for k in range(20):
            now = np.sin(x[k])
            total.append(now * before)
            before = now
        return np.stack(total)

    x = np.linspace(0, 1, 20)
    before, after = rolled(f, x)
    assert not scans(after.jaxpr)
    assert_same(before, after, x)


def test_only_what_feeds_itself_is_a_loop(eager_rerolling):
    def f(x, u):
        out = []
        for k in range(20):
            weight = np.exp(u[k]) * np.cos(u[k])
            x = np.tanh(x * weight)
            out.append(np.arctan(x) + weight)
        return np.stack(out)

    u = np.linspace(0, 1, 20)
    before, after = rolled(f, 0.3, u)
    (loop,) = scans(after.jaxpr)
    assert [e.primitive.name for e in loop.params["jaxpr"].eqns] == ["mul", "tanh"]
    assert_same(before, after, 0.3, u)


def test_large_operations_stay_in_the_loop(eager_rerolling):
    def f(x):
        out = []
        for k in range(20):
            out.append(np.sum(np.sin(x * (k + 1.0))))
        return np.stack(out)

    for size, loops in ((100, 0), (10_000, 1)):
        x = np.linspace(0, 1, size)
        before, after = rolled(f, x)
        assert len(scans(after.jaxpr)) == loops
        assert_same(before, after, x)


@pytest.mark.parametrize(("width", "loops"), [(8, 1), (64, 0)])
def test_large_weights_of_layers_are_not_copied_into_a_stack(width, loops, eager_rerolling):
    def f(x, weights):
        for w in weights:
            x = np.tanh(w @ x)
        return x

    rng = np.random.default_rng(1)
    weights = [rng.normal(size=(width, width)) / width for _ in range(30)]
    program = ft.jit(f).trace(np.ones(width), weights)
    assert len(scans(program.jaxpr)) == loops
    np.testing.assert_allclose(ft.jit(f)(np.ones(width), weights), f(np.ones(width), weights), rtol=1e-10, atol=1e-15)


def test_a_sum_that_is_read_on_the_way_stays_a_loop(eager_rerolling):
    def f(x):
        total, seen = 0.0, []
        for k in range(20):
            total = total + np.sin(x[k])
            seen.append(total)
        return np.stack(seen)

    x = np.linspace(0, 1, 20)
    before, after = rolled(f, x)
    assert len(scans(after.jaxpr)) == 1
    assert_same(before, after, x)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("join", [np.stack, np.concatenate])
def test_results_are_joined_along_any_axis(join, axis, eager_rerolling):
    def f(x):
        rows = []
        for k in range(20):
            rows.append(np.sin(x[:, k : k + 3]))
            rows.append(np.cos(x[:, k : k + 3]))
        return join(rows[1:], axis=axis)

    x = np.linspace(0, 1, 46).reshape(2, 23)
    before, after = rolled(f, x)
    assert len(after.jaxpr.eqns) < 40
    assert_same(before, after, x)


def test_patterns_of_a_python_loop_are_exact_and_found_at_once(eager_rerolling):
    jacobian = ft.sparse.jacobian(lambda z: shots(z)[1])(SHOTS)
    expected = ft.jacfwd(lambda z: shots(z)[1])(SHOTS)
    np.testing.assert_allclose(jacobian.toarray(), expected, atol=1e-14)
    assert jacobian.nnz == 20 * (4 + 4)
    multipliers = np.linspace(1, 2, 40)

    def lagrangian(z):
        cost, gaps = shots(z)
        return cost + multipliers @ gaps

    hessian = ft.sparse.hessian(lagrangian)(SHOTS)
    np.testing.assert_allclose(hessian.toarray(), ft.hessian(lagrangian)(SHOTS), atol=1e-13)


# what is in the body


def test_calls_and_branches_in_the_body(eager_rerolling):
    inner = ft.jit(lambda x: np.sin(x) * x)

    @ft.custom_jvp
    def cube(x):
        return x**3

    cube.defjvp(lambda primals, tangents: (cube(primals[0]), 30.0 * primals[0] ** 2 * tangents[0]))

    def f(x):
        for _ in range(12):
            x = inner(x) + 0.01 * cube(x)
            x = ft.numpy.where(x > 0.5, x, 2.0 * x)
        return x

    for x in (0.3, 0.9):
        np.testing.assert_allclose(ft.jit(ft.grad(f))(x), ft.grad(f)(x), rtol=1e-12)


def test_callbacks_in_the_body(eager_rerolling):
    def f(x):
        out = []
        for k in range(12):
            out.append(ft.pure_callback(lambda v: np.sin(v), ft.ShapeDtypeStruct((), float), x[k]) * 2.0 + x[k])
        return np.stack(out)

    x = np.linspace(0, 1, 12)
    np.testing.assert_allclose(ft.jit(f)(x), 2 * np.sin(x) + x)


def test_branches_of_one_program_each_stay(eager_rerolling):
    def f(x):
        for _ in range(12):
            x = lax.cond(x > 0.5, lambda y: y * 0.5, lambda y: y + 0.3, x)
        return x

    np.testing.assert_allclose(ft.jit(ft.grad(f))(0.3), ft.grad(f)(0.3), rtol=1e-12)


def test_a_constant_array_is_one_constant(eager_rerolling):
    weights = np.linspace(0.5, 1.0, 3)

    def f(x):
        for _ in range(20):
            x = np.sin(x) * weights
        return x

    before, after = rolled(f, VECTOR)
    (loop,) = scans(after.jaxpr)
    assert loop.params["consts"] == 1 and len(loop.invars) == 2
    assert_same(before, after, VECTOR)


def test_effects_stay_in_order(eager_rerolling, capsys):
    def f(x):
        for k in range(12):
            x = np.sin(x) + 0.1 * x
            if k % 4 == 0:
                ft.debug.print("step {}", k)
            x = x * 1.5 - 0.2
        return x

    ft.jit(ft.grad(f))(0.3)
    assert capsys.readouterr().out.split() == ["step", "0", "step", "4", "step", "8"]


def test_assignment_aux_and_closures(eager_rerolling):
    weights = np.linspace(0.5, 1.0, 3)

    def outer(x, y):
        def f(x):
            kept = ft.numpy.zeros(3)
            for _ in range(12):
                x = np.sin(x) * weights + y
                kept[1] = x[2]
                x[0] = x[1] * 0.5
            return x.sum() + kept.sum(), {"kept": kept, "name": "aux", "constant": y * 2.0}

        (value, aux), slope = ft.value_and_grad(f, has_aux=True)(x)
        assert aux["name"] == "aux"
        return value, aux["kept"], aux["constant"], slope

    got, expected = ft.jit(outer)(VECTOR, 0.3), outer(VECTOR, 0.3)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    slope = ft.jit(ft.grad(lambda y: outer(VECTOR, y)[0]))(0.3)
    np.testing.assert_allclose(slope, ft.grad(lambda y: outer(VECTOR, y)[0])(0.3), rtol=1e-12)


def test_python_control_flow_is_refused_as_before(eager_rerolling):
    def f(x):
        for _ in range(12):
            x = np.sin(x) * x
        return x if x > 0 else -x

    with pytest.raises(ft.errors.AbstractValueError, match=r"test_reroll\.py"):
        ft.jit(ft.grad(f))(0.3)


def test_a_leaked_value_is_refused_as_before(eager_rerolling):
    kept = []

    def f(x):
        for _ in range(12):
            x = np.sin(x) * x
        kept.append(x)
        return x

    ft.jit(ft.grad(f))(0.3)
    with pytest.raises(ft.errors.LeakedTracerError):
        kept[0] + 1.0


def test_a_mistake_in_rolling_up_is_a_warning(eager_rerolling, monkeypatch):
    def broken(*args):
        raise KeyError("a mistake")

    monkeypatch.setattr(reroll, "distribute", broken)
    with pytest.warns(ft.errors.CompilationWarning, match="report this as a bug"):
        np.testing.assert_allclose(ft.jit(numbers)(0.4), numbers(0.4), rtol=1e-13)


def test_nothing_is_rolled_outside_jit(eager_rerolling):
    assert not scans(ft.make_jaxpr(ft.grad(numbers))(0.4).jaxpr)
    assert not scans(ft.make_jaxpr(numbers)(0.4).jaxpr)


# programs at random

OPERATIONS = [
    lambda a, b: a + b,
    lambda a, b: a * b,
    lambda a, b: np.sin(a) - b,
    lambda a, b: np.maximum(a, b) * 0.5,
    lambda a, b: a / (2.0 + b * b),
    lambda a, b: np.where(a > b, a, b * 0.7),
]


@st.composite
def bodies(draw):
    """A loop's body: operations, each with the places of its operands among the values that there are."""
    carried = draw(st.integers(1, 3))
    operations = [
        (draw(st.sampled_from(OPERATIONS)), draw(st.integers(0, 30)), draw(st.integers(0, 30)))
        for _ in range(draw(st.integers(2, 9)))
    ]
    leaving = [draw(st.integers(0, 30)) for _ in range(carried)]
    return operations, leaving


@st.composite
def loops(draw):
    shape = draw(st.sampled_from([(), (3,), (2, 2)]))
    return shape, [(draw(bodies()), draw(st.integers(1, 24))) for _ in range(draw(st.integers(1, 3)))]


def run_loops(stretches):
    def f(x, u):
        state, kept = [x, x * 0.5, x - 1.0], []
        for (operations, leaving), steps in stretches:
            for k in range(steps):
                values = [*state, u[k % 8], 0.1 * k, x]
                for operation, a, b in operations:
                    values.append(np.tanh(operation(values[a % len(values)], values[b % len(values)])))
                fresh = values[6:]
                for place, leaves in enumerate(leaving):
                    state[place] = fresh[leaves % len(fresh)]
                if k % 5 == 2:
                    kept.append(values[-1])
        return state, kept

    return f


@given(loops())
def test_programs_at_random(drawn):
    shape, stretches = drawn
    f = run_loops(stretches)
    x, u = np.linspace(-1.0, 1.5, int(np.prod(shape))).reshape(shape)[()], np.linspace(0.2, 1.0, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reroll, "_WORTH", 16)
        patch.setattr(repetition, "_FEWEST", 3)
        before, after = rolled(f, x, u)
    assert_same(before, after, x, u)


SELECTIONS = [
    lambda data, k: data[k],
    lambda data, k: data[k + 2],
    lambda data, k: data[11 - k],
    lambda data, k: data[k, 1],
    lambda data, k: data[k : k + 2, 0],
    lambda data, k: data[2 * (k // 2)],
    lambda data, k: np.transpose(data)[:, k],
    lambda data, k: np.ravel(data)[3 * k : 3 * k + 2],
]
JOINS = [
    lambda parts: np.concatenate([np.ravel(p) for p in parts]),
    lambda parts: np.stack([np.sum(p) for p in parts]),
    lambda parts: np.concatenate([np.atleast_1d(p) for p in parts[::-1]]),
    lambda parts: sum(np.sum(p) for p in parts),
    lambda parts: np.stack([np.sum(p) for p in parts[::2]]) * 2.0,
]


@st.composite
def data_loops(draw):
    """A loop over parts of an array, with sums and lists of results."""
    terms = draw(
        st.lists(
            st.tuples(st.sampled_from(SELECTIONS), st.sampled_from(OPERATIONS), st.integers(0, 3)),
            min_size=1,
            max_size=4,
        )
    )
    carries = draw(st.booleans())
    computed = draw(st.booleans())
    return terms, carries, computed, draw(st.sampled_from(JOINS)), draw(st.integers(3, 10))


def run_data_loop(terms, carries, computed, join, steps):
    def f(data, x):
        table = np.tanh(data) if computed else data
        total, before, parts = 0.0, x, []
        for k in range(steps):
            for select, operation, how in terms:
                part = select(table, k)
                value = operation(part, before if how == 1 else x)
                if how == 2:
                    total = total + np.sum(value)
                elif how == 3:
                    total = np.sum(value) * 0.5 + total + 0.1 * k
                else:
                    parts.append(value * (k + 1.0))
                if carries:
                    x = x * 0.9 + 0.1 * np.mean(value)
            before = np.sin(x + np.sum(select(table, k)))
        return total, join([*parts, x])

    return f


@given(data_loops())
def test_loops_over_data_at_random(drawn):
    f = run_data_loop(*drawn)
    data, x = np.linspace(-1.0, 1.5, 36).reshape(12, 3), np.float64(0.4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reroll, "_WORTH", 16)
        patch.setattr(repetition, "_FEWEST", 3)
        patch.setattr(reroll, "_JOINED", 2)
        before, after = rolled(f, data, x)
    expected = eval_jaxpr(before.jaxpr, before.consts, data, x)
    for a, b in zip(eval_jaxpr(after.jaxpr, after.consts, data, x), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.slow
@given(loops())
def test_gradients_of_programs_at_random(drawn):
    shape, stretches = drawn
    f = run_loops(stretches)
    x, u = np.linspace(-1.0, 1.5, int(np.prod(shape))).reshape(shape)[()], np.linspace(0.2, 1.0, 8)

    def total(x, u):
        return sum(np.sum(leaf) for leaf in ft.tree.leaves(f(x, u)))

    expected = ft.grad(total, (0, 1))(x, u)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reroll, "_WORTH", 16)
        patch.setattr(repetition, "_FEWEST", 3)
        patch.setattr(linearization, "_VISITS", 2)
        got = ft.jit(ft.grad(total, (0, 1)))(x, u)
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
