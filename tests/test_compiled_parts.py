"""Nests whose results a call takes in part by part, and what is computed once instead of in every row."""

import numpy as np
import pytest

import functrace as ft
from bench.lagrangian import PROBLEMS, Array
from functrace import lax
from functrace import numpy as fnp
from functrace.backend.compiler import in_parts
from functrace.sparse._element_assembly import Assembly, assemble
from functrace.sparse.elements import element_hessian

RNG = np.random.default_rng(20261121)


@pytest.fixture
def small_parts(monkeypatch):
    """Every nest that may is taken in by parts of 64 elements; gives the calls that were."""
    monkeypatch.setattr(in_parts, "_LARGE", 0)
    monkeypatch.setattr(in_parts, "_PART", 1)
    found = []
    emit = in_parts.CallInParts.emit

    def spy(self, *args):
        found.append(self)
        emit(self, *args)

    monkeypatch.setattr(in_parts.CallInParts, "emit", spy)
    return found


@pytest.mark.parametrize("points", [3, 22, 43, 64, 150])
def test_arrows_by_parts(small_parts, points):
    problem = PROBLEMS["arrow"](28 + 3 * points)
    hessian = element_hessian(
        ft.make_jaxpr(lambda *a: problem.lagrangian(Array(fnp), *a))(*problem.arguments)
    )  # fmt: skip
    expected = hessian.values(*problem.arguments)
    hessian.compile()
    found = hessian.values(*problem.arguments)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())
    assert len(small_parts) == (2 * points > 8)


def assembled(places, size, kinds):
    """A program that computes arrays and adds them to places; `kinds`: a number, an array, or an input as it is."""
    plan = Assembly(size, places)
    shapes = [() if kind == "number" else where.shape for kind, where in zip(kinds, places, strict=True)]
    inputs = [RNG.normal(size=shape)[()] for shape in shapes]

    def run(*inputs):
        arrays = [x if kind == "given" else np.sin(x) * 1.5 for kind, x in zip(kinds, inputs, strict=True)]
        return assemble(*arrays, *plan.tables(), plan=plan)

    return run, inputs


def places_of(seed, counts, size):
    rng = np.random.default_rng(seed)
    found = []
    for count in counts:
        kind = rng.integers(5)
        start = int(rng.integers(max(size - 2 * count, 1)))
        if kind == 0 and 2 * count <= size:
            found.append(start + 2 * np.arange(count))
        elif kind == 1:
            found.append(np.full(count, start))
        elif kind == 2 and count <= size:
            found.append(rng.permutation(size)[:count])
        elif kind == 3 and found and found[-1].size == count:
            found.append((found[-1] + 1) % size)
        else:
            found.append(rng.integers(size, size=count))
    return found


@pytest.mark.parametrize("seed", range(30))
def test_sums_by_parts_equal_sums(small_parts, seed):
    """Several nests, arrays that are inputs, numbers; runs, totals and tables, alone or on top of each other."""
    rng = np.random.default_rng(seed)
    counts = rng.choice([130, 200, 64], size=6)
    size = int(rng.integers(150, 700))
    places = places_of(seed, counts, size)
    kinds = rng.choice(["made", "made", "made", "given", "number"], size=6)
    run, inputs = assembled(places, size, kinds)
    expected = np.zeros(size)
    for where, x, kind in zip(places, inputs, kinds, strict=True):
        np.add.at(expected, where, x if kind == "given" else np.sin(x) * 1.5)
    np.testing.assert_allclose(run(*inputs), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ft.jit(run)(*inputs), expected, rtol=0, atol=1e-12)


def test_parts_are_used_and_leave_other_readers_alone(small_parts):
    where = np.concatenate([RNG.permutation(400)[:200], RNG.permutation(400)[:200]]).reshape(2, 200)
    plan = Assembly(400, list(where))
    x = RNG.normal(size=200)

    def together(x, also):
        a, b = np.sin(x), np.cos(x)
        total = assemble(a, b, *plan.tables(), plan=plan)
        return (total, np.cumsum(a)) if also else total

    for also, count in ((False, 1), (True, 1)):
        found = ft.jit(lambda x, also=also: together(x, also))(x)
        for one, other in zip(ft.tree.leaves(found), ft.tree.leaves(together(x, also)), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)
        assert len(small_parts) == count


def test_what_a_put_off_nest_reads_stays_where_it_is(small_parts):
    """The call waits for other work, whose arrays may not take the place of what the nest still reads."""
    where = RNG.permutation(600)[:300]
    plan = Assembly(600, [where, where[::-1].copy(), RNG.permutation(600)[:300]])

    def run(x, y, m):
        early = np.sort(x)
        late = np.sort(m @ np.sort(m @ np.sort(m @ y)))
        return assemble(np.sin(early), np.cos(early), late, *plan.tables(), plan=plan)

    x, y, m = RNG.normal(size=300), RNG.normal(size=300), RNG.normal(size=(300, 300))
    np.testing.assert_allclose(ft.jit(run)(x, y, m), run(x, y, m), rtol=1e-10)
    assert len(small_parts) == 1


def test_arrays_of_one_shape_share_a_table():
    where = RNG.permutation(50)
    plan = Assembly(60, [where, where + 7, where + 10, where[::-1].copy()])
    assert len(plan.tables()) == 2
    assert [entry.offset - where[0] for entry in plan.loose[:3]] == [0, 7, 10]
    assert plan.alone == frozenset() and plan.cleared == [(0, 60)]
    separate = Assembly(120, [where, where + 60, np.full(3, 55)])
    assert separate.alone == {0, 1} and separate.cleared == [(50, 60), (110, 120)]


# what is computed once


def relaxed(x):
    for _ in range(4):
        x = x + 0.1 * np.sin(x)
    return x


def test_functions_of_the_inner_axis_are_computed_once():
    """In the loop they would be computed in every row; those of the outer axis are computed once there anyway."""
    row, rows = RNG.normal(size=200), RNG.normal(size=(100, 200))
    inner = ft.explain(lambda x, c: c * np.exp(0.1 + np.sin(x)))(row, rows).groups
    assert len(inner) == 2 and "exp -> float64[200]" in inner[0].text and "sin" not in inner[1].text
    outer = ft.explain(lambda x, c: c * np.exp(0.1 + np.sin(x))[:, None])(row[:100], rows).groups
    assert len(outer) == 1


@pytest.mark.parametrize("jacobian", [ft.jacfwd, ft.jacrev])
def test_jacobians_of_chains_are_right(jacobian):
    w = RNG.normal(size=(50, 60))
    mixed = jacobian(lambda x: relaxed(w @ relaxed(x)))
    x = np.linspace(0.0, 1.0, 60)
    np.testing.assert_allclose(ft.jit(mixed)(x), mixed(x), rtol=1e-12, atol=1e-14)


def test_cheap_functions_of_a_row_stay_in_the_loop():
    row, column = RNG.normal(size=200), RNG.normal(size=(200, 1))
    groups = ft.explain(lambda r, c: (r * 2.0) + c)(row, column).groups
    assert len(groups) == 1


def test_columns_and_rows_in_one_expression():
    x, y = RNG.normal(size=70), RNG.normal(size=50)

    def f(x, y):
        a, b = np.exp(np.sin(x)), np.tanh(np.cos(y))
        return np.sum(a[:, None] * b + np.sqrt(a[:, None] ** 2 + 1.0) / (2.0 + b), axis=1) @ a

    np.testing.assert_allclose(ft.jit(f)(x, y), f(x, y), rtol=1e-12)
    np.testing.assert_allclose(ft.jit(ft.grad(f))(x, y), ft.grad(f)(x, y), rtol=1e-11)
    scanned = ft.jit(lambda x: lax.scan(lambda c, _: (f(c, y) * 1e-4 + c, None), x, None, length=3)[0])
    expected = x
    for _ in range(3):
        expected = f(expected, y) * 1e-4 + expected
    np.testing.assert_allclose(scanned(x), expected, rtol=1e-12)
