"""Hessians by substitution: trees of acyclic colourings, dense Hessians, accuracy, and when it is chosen."""

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import functrace as ft
from bench.coloring import arrow, banded, grid, scattered
from functrace import sparse
from functrace.errors import ArgumentError
from functrace.optimize.sweeps import plan_of
from functrace.sparse import Structure
from functrace.sparse.coloring import acyclic_coloring, edges_of, star_coloring
from functrace.sparse.compress import acyclic_plan, star_plan
from functrace.sparse.substitution import forest_of, substitute

PATTERNS = {
    "banded": banded(200, 3),
    "wide band": banded(60, 8),
    "grid": grid(400),
    "arrow": arrow(200),
    "random": scattered(80),
    "diagonal": banded(5, 0),
}


def matrix_of(pattern, seed=0):
    """A symmetric matrix with this pattern."""
    low, high, n = edges_of(pattern)
    rng = np.random.default_rng(seed)
    dense = np.diag(rng.normal(size=n))
    dense[low, high] = dense[high, low] = rng.normal(size=low.size)
    return dense


def from_products(dense, structure, plan):
    """The values of a structure from the products of a matrix with a plan's directions."""
    sweep = plan.forward
    directions = (sweep.colors[:, None] == np.arange(sweep.number)).astype(float)
    read = (dense @ directions)[sweep.place, sweep.color]
    return substitute(read, plan.forest)


@pytest.mark.parametrize("name", PATTERNS)
def test_every_nonzero_is_found(name):
    structure = Structure(PATTERNS[name], symmetric=True)
    dense = matrix_of(PATTERNS[name])
    plan = acyclic_plan(structure, acyclic_coloring(structure))
    np.testing.assert_allclose(
        from_products(dense, structure, plan), dense[structure.rows, structure.cols], rtol=0, atol=1e-13
    )
    assert plan.sweeps <= star_plan(structure, star_coloring(structure)).sweeps


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.floats(0.02, 0.6))
def test_random_symmetric_patterns(seed, n, density):
    rng = np.random.default_rng(seed)
    mask = np.triu(rng.random((n, n)) < density)
    structure = Structure((*np.nonzero(mask.T), (n, n)), symmetric=True)
    dense = np.where(mask | mask.T, 1.0, 0.0) * rng.normal(size=(n, n))
    dense = dense + dense.T
    found = acyclic_coloring(structure)
    assert found.number <= star_coloring(structure).number
    plan = acyclic_plan(structure, found)
    np.testing.assert_allclose(
        from_products(dense, structure, plan), dense[structure.rows, structure.cols], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("name", PATTERNS)
def test_the_trees_are_those_of_pairs_of_colours(name):
    low, high, _ = edges_of(PATTERNS[name])
    found = acyclic_coloring(PATTERNS[name])
    colors, number = found.colors, found.number
    forest = forest_of(low, high, colors, number)
    edges = longest = 0
    for a in range(number):
        for b in range(a):
            pair = ((colors[low] == a) & (colors[high] == b)) | ((colors[low] == b) & (colors[high] == a))
            graph = nx.Graph(zip(low[pair].tolist(), high[pair].tolist(), strict=True))
            assert graph.number_of_nodes() == 0 or nx.is_forest(graph)
            parts = [graph.subgraph(c) for c in nx.connected_components(graph)]
            longest = max([longest, *(nx.diameter(p) for p in parts)])
            edges += graph.number_of_edges()
    assert forest.tails.size == edges == low.size
    assert forest.height <= (longest + 1) // 2  # the root is in the middle
    assert np.unique(forest.children).size == forest.children.size


def test_a_cycle_of_two_colours_is_no_forest():
    low, high = np.array([0, 1, 2, 0]), np.array([1, 2, 3, 3])
    assert forest_of(low, high, np.array([0, 1, 0, 1]), 2) is None
    assert forest_of(low, high, np.array([0, 1, 0, 2]), 3) is not None
    assert forest_of(low[:1], high[:1], np.array([0, 0]), 1) is None


def coupled(x):
    """A function that is no sum of element functions, with a Hessian of a band and a few far entries."""
    y = x[1:] * np.sin(x[:-1]) + x[:-1] ** 2
    return np.sum(np.exp(-(y[2:] * y[:-2]))) + np.sum(x[: x.size // 3] ** 2 * np.cos(x[-(x.size // 3) :]))


@pytest.mark.parametrize("kind", ["star", "acyclic", "auto"])
@pytest.mark.parametrize("n", [7, 40])
def test_hessians_equal_dense_ones(kind, n):
    x = np.random.default_rng(n).normal(size=n)
    expected = ft.hessian(coupled)(x)
    prepared = sparse.hessian(coupled, method="coloring", coloring=kind).prepare(x)
    dense = np.zeros((n, n))
    dense[prepared.rows, prepared.cols] = dense[prepared.cols, prepared.rows] = prepared.values(x)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(dense, expected, rtol=0, atol=1e-12 * scale)
    for transformed in (ft.jit(prepared.values), lambda x: ft.vmap(prepared.values)(x[None])[0]):
        np.testing.assert_allclose(transformed(x), prepared.values(x), rtol=0, atol=1e-12 * scale)


def test_values_by_substitution_are_differentiated_again():
    x = np.random.default_rng(1).normal(size=12)
    kinds = ("star", "acyclic")
    star, acyclic = (sparse.hessian(coupled, method="coloring", coloring=kind).prepare(x) for kind in kinds)
    for derivative in (ft.jacfwd, ft.jacrev):
        expected, found = derivative(star.values)(x), derivative(acyclic.values)(x)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


def test_errors_are_carried_along_a_path_but_do_not_grow():
    n = 3000
    low, high = np.arange(n - 1), np.arange(1, n)
    colors = np.arange(n) % 2
    forest = forest_of(low, high, colors, 2)
    assert forest.height == n // 2 - 1
    truth = np.random.default_rng(0).normal(size=n - 1)
    sums = np.zeros(n)
    np.add.at(sums, low, truth)
    np.add.at(sums, high, truth)
    noise = 1e-3 * np.random.default_rng(1).choice([-1.0, 1.0], size=n)
    found = substitute((sums + noise)[forest.tails], forest)
    assert np.abs(found - truth).max() <= 1e-3 * (forest.height + 1) + 1e-12
    exact = substitute(sums[forest.tails], forest)
    np.testing.assert_allclose(exact, truth, rtol=0, atol=forest.height * 4 * np.finfo(float).eps)


def network(n):
    """A sum over the edges of a random graph."""
    low, high, _ = edges_of(scattered(n, 2))
    return lambda x: np.sum(np.sin(x[low] * x[high]))


def test_the_choice_saves_products_in_low_trees_only():
    x = np.random.default_rng(2).normal(size=80)
    chosen = sparse.hessian(network(80), method="coloring").prepare(x)
    direct = sparse.hessian(network(80), method="coloring", coloring="star").prepare(x)
    assert chosen.coloring.kind == "acyclic" and chosen.choice.sweeps <= 0.75 * direct.choice.sweeps
    assert "a star colouring takes" in str(chosen.choice)
    np.testing.assert_allclose(chosen.values(x), direct.values(x), rtol=0, atol=1e-13)
    # Along a band trees are paths as long as the matrix: many roundings for few products.
    long = np.linspace(0.1, 0.9, 400)
    band = sparse.hessian(lambda x: np.sum(np.sin(x[3:] * x[:-3] + x[1:-2])), method="coloring").prepare(long)
    assert band.coloring.kind == "star"


def test_what_is_not_finite_stays_where_it_is():
    fun = network(80)
    low, high, _ = edges_of(scattered(80, 2))

    def infinite(x):
        return fun(x) + np.sum(np.sqrt(x[low[:1]] * x[high[:1]]))

    x = np.random.default_rng(3).uniform(0.5, 1.0, size=80)
    x[low[0]] = 0.0
    with np.errstate(all="ignore"):
        chosen = sparse.hessian(infinite, method="coloring").prepare(x)
        direct = sparse.hessian(infinite, method="coloring", coloring="star").prepare(x)
        assert chosen.coloring.kind == "acyclic"
        expected = direct.values(x)
        assert 0 < np.count_nonzero(~np.isfinite(expected)) < 10
        for values in (chosen.values, ft.jit(chosen.values)):
            found = values(x)
            same = np.isfinite(expected)
            np.testing.assert_array_equal(np.isfinite(found), same)
            np.testing.assert_allclose(found[same], expected[same], rtol=0, atol=1e-12)


def test_a_problem_takes_either_colouring():
    structure = Structure(PATTERNS["random"], symmetric=True)
    assert plan_of(structure, acyclic_coloring(structure)).forest is not None
    assert plan_of(structure, star_coloring(structure)).forest is None


def test_an_unknown_colouring_is_refused():
    with pytest.raises(ArgumentError, match="no such colouring"):
        sparse.hessian(coupled, coloring="planar")
