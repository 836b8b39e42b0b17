"""Colourings: valid by a slow and honest checker, few by published counts and networkx, compiled or not."""

import itertools

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import coloring as bench
from functrace.errors import ArgumentError, InputError, ShapeError
from functrace.sparse import Structure, _greedy, coloring
from functrace.sparse._by_position import columns_by_position, is_star_coloring
from functrace.sparse.coloring import (
    ORDERS,
    acyclic_coloring,
    bicoloring,
    column_coloring,
    row_coloring,
    star_coloring,
)

# The slow, honest checkers: definitions, nothing else.


def columns_differ(matrix, colors):
    """No row holds two columns of one colour, and every column with a nonzero has a colour."""
    for row in np.asarray(matrix):
        found = [colors[j] for j in np.flatnonzero(row)]
        if min(found, default=0) < 0 or len(set(found)) < len(found):
            return False
    return True


def neighbors_differ(graph, colors):
    return all(colors[u] != colors[v] for u, v in graph.edges)


def is_star(graph, colors):
    """Neighbours differ, and every path of four vertices has three colours or more."""
    return neighbors_differ(graph, colors) and not any(
        colors[a] == colors[c] and colors[b] == colors[d]
        for b, c in itertools.chain(graph.edges, ((c, b) for b, c in graph.edges))
        for a in graph[b]
        if a != c
        for d in graph[c]
        if d not in (a, b)
    )


def is_acyclic(graph, colors):
    """Neighbours differ, and every two colours span a forest."""
    pairs = itertools.combinations(sorted(set(colors)), 2)
    spans = (graph.subgraph([v for v in graph if colors[v] in pair]) for pair in pairs)
    return neighbors_differ(graph, colors) and all(not span or nx.is_forest(span) for span in spans)


def graph_of(matrix):
    graph = nx.from_numpy_array(np.asarray(matrix) != 0)
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    return graph


# Patterns


def band(n, below, above=None):
    above = below if above is None else above
    i, j = np.indices((n, n))
    return ((i - j <= below) & (j - i <= above)).astype(int)


def arrow(n):
    matrix = np.eye(n, dtype=int)
    matrix[0] = matrix[:, 0] = 1
    return matrix


def bundle(points, cameras=4, parameters=7, coordinates=3):
    """Bundle adjustment, each point seen by two cameras next to each other in a ring: lower triangle."""
    n = cameras * parameters + points * coordinates
    point = cameras * parameters + np.arange(points * coordinates).reshape(points, coordinates)
    camera = np.arange(cameras * parameters).reshape(cameras, parameters)
    rows, cols = [], []
    for k in range(2):
        block = np.concatenate([point, camera[(np.arange(points) + k) % cameras]], axis=1)
        rows.append(np.repeat(block, block.shape[1], axis=1).ravel())
        cols.append(np.tile(block, (1, block.shape[1])).ravel())
    rows, cols = np.concatenate(rows), np.concatenate(cols)
    return rows[rows >= cols], cols[rows >= cols], (n, n)


def grid(width, height):
    """The five-point stencil."""
    graph = nx.grid_2d_graph(width, height)
    return nx.to_numpy_array(graph).astype(int) + np.eye(width * height, dtype=int)


def random_matrix(seed, m, n, density):
    return (np.random.default_rng(seed).random((m, n)) < density).astype(int)


def random_symmetric(seed, n, density):
    matrix = random_matrix(seed, n, n, density)
    return matrix | matrix.T


@pytest.fixture(params=["plain", "compiled"])
def tier(request, monkeypatch):
    """Both ways to run the greedy algorithms, whatever the size."""
    least = 0 if request.param == "compiled" else 10**18
    monkeypatch.setattr(_greedy, "_COMPILE_FROM", least)
    monkeypatch.setattr(_greedy, "_COMPILE_WHEN_LOADED", least)
    return request.param


# Validity


@pytest.mark.parametrize("order", [None, *ORDERS])
@pytest.mark.parametrize("seed", range(12))
def test_column_and_row_colourings_are_valid(seed, order, tier):
    rng = np.random.default_rng(seed)
    matrix = random_matrix(seed, *rng.integers(1, 25, 2), rng.uniform(0, 0.6))
    by_column, by_row = column_coloring(matrix, order), row_coloring(matrix, order)
    assert columns_differ(matrix, by_column.colors) and columns_differ(matrix.T, by_row.colors)
    for found in (by_column, by_row):
        assert found.number == found.colors.max() + 1 == len(set(found.colors[found.colors >= 0]))
    assert by_column.number >= matrix.sum(axis=1).max()


@pytest.mark.parametrize("order", [None, *ORDERS])
@pytest.mark.parametrize("seed", range(12))
def test_star_and_acyclic_colourings_are_valid(seed, order, tier):
    rng = np.random.default_rng(100 + seed)
    matrix = random_symmetric(seed, int(rng.integers(1, 16)), rng.uniform(0, 0.5))
    if seed % 3 == 0:
        matrix[0] = matrix[:, 0] = 1
    graph = graph_of(matrix)
    star, acyclic = star_coloring(matrix, order), acyclic_coloring(matrix, order)
    assert is_star(graph, star.colors) and is_acyclic(graph, acyclic.colors)
    assert star.number == star.colors.max() + 1 and acyclic.number == acyclic.colors.max() + 1


@st.composite
def hubs_on_a_band(draw):
    """Bands and blocks, renumbered or not, with a few rows that reach far: where colours by position are tried."""
    n, width = draw(st.integers(2, 24)), draw(st.integers(0, 2))
    matrix = band(n, width)
    if draw(st.booleans()):
        matrix *= np.arange(n)[:, None] // 3 == np.arange(n) // 3
    if draw(st.booleans()):
        order = np.argsort(np.arange(n) % 2, kind="stable")
        matrix = matrix[order][:, order]
    for _ in range(draw(st.integers(0, 3))):
        hub = draw(st.integers(0, n - 1))
        matrix[hub] |= random_matrix(draw(st.integers(0, 1000)), 1, n, draw(st.sampled_from([0.4, 0.8, 1.0])))[0]
        matrix[:, hub] |= matrix[hub]
    return matrix


@given(hubs_on_a_band())
@settings(max_examples=200)
def test_hubs_on_a_band_are_coloured_validly(matrix):
    graph = graph_of(matrix)
    assert is_star(graph, star_coloring(matrix).colors)
    assert is_acyclic(graph, acyclic_coloring(matrix).colors)
    assert columns_differ(matrix, column_coloring(matrix).colors)


@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(0.1, 0.7))
@settings(max_examples=200)
def test_the_quick_star_checker_agrees_with_the_definition(seed, n, density):
    matrix = random_symmetric(seed, n, density)
    colors = np.random.default_rng(seed).integers(0, 4, n)
    low, high, _ = coloring.edges_of(matrix)
    assert is_star_coloring(colors, 4, low, high) == is_star(graph_of(matrix), colors)


def test_plain_and_compiled_greedy_are_the_same(monkeypatch):
    results = []
    for least in (0, 10**18):
        monkeypatch.setattr(_greedy, "_COMPILE_FROM", least)
        monkeypatch.setattr(_greedy, "_COMPILE_WHEN_LOADED", least)
        matrix, graph = random_matrix(3, 300, 200, 0.03), random_symmetric(4, 200, 0.05)
        found = [column_coloring(matrix, order).colors for order in ORDERS]
        found += [star_coloring(graph, order).colors for order in ORDERS]
        found += [acyclic_coloring(graph, order).colors for order in ORDERS]
        dense = random_symmetric(5, 150, 0.4)  # more than 64 colours: several words to a set
        assert star_coloring(dense, "natural").number > 64
        results.append([*found, star_coloring(dense, "natural").colors])
    for plain, compiled in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, compiled)


def test_without_compilation_colours_are_the_same(monkeypatch):
    matrix = random_matrix(3, 300, 200, 0.03)
    monkeypatch.setattr(_greedy, "_COMPILE_WHEN_LOADED", 0)
    monkeypatch.setattr(_greedy, "_COMPILE_FROM", 0)
    compiled = column_coloring(matrix).colors
    monkeypatch.setenv("FUNCTRACE_DISABLE_JIT", "1")
    monkeypatch.setattr(_greedy, "_compile", None)  # would fail if it were called
    np.testing.assert_array_equal(column_coloring(matrix).colors, compiled)


# Counts


@pytest.mark.parametrize("n", [7, 40, 1000])
@pytest.mark.parametrize(("below", "above"), [(0, 0), (1, 1), (2, 0), (3, 2)])
def test_a_band_matrix_takes_its_width(n, below, above):
    """Curtis, Powell and Reid (1974): a band of w diagonals has w groups of columns."""
    i, offset = np.meshgrid(np.arange(n), np.arange(-below, above + 1), indexing="ij")
    j = i + offset
    inside = (j >= 0) & (j < n)
    assert column_coloring((i[inside], j[inside], (n, n))).number == min(n, below + above + 1)


@pytest.mark.parametrize("half", [1, 2, 4])
def test_a_symmetric_band_takes_two_half_widths_and_one(half):
    """Coleman and Moré (1984): directly as many groups as for any band; by substitution half as many."""
    assert star_coloring(band(60, half)).number == 2 * half + 1
    assert acyclic_coloring(band(60, half)).number == half + 1


def test_a_block_diagonal_matrix_takes_a_block():
    blocks = np.kron(np.eye(30, dtype=int), np.ones((4, 4), int))
    assert column_coloring(blocks).number == star_coloring(blocks).number == acyclic_coloring(blocks).number == 4


def test_interleaved_unknowns_are_found():
    """All x, then all u, of a discretised problem: banded after a change of order."""
    steps = 200
    rows = np.arange(steps - 1)
    triples = np.stack([rows, rows + 1, steps + rows], axis=1)
    rows, cols, shape = np.repeat(rows, 3), triples.ravel(), (steps - 1, 2 * steps - 1)
    assert column_coloring((rows, cols, shape)).number == 3
    colors, number = columns_by_position(rows, cols, *shape, 3)
    matrix = scipy.sparse.coo_array((np.ones(rows.size), (rows, cols)), shape).toarray()
    assert number <= 4 and columns_differ(matrix, colors)


def test_known_small_graphs():
    """Chromatic facts: paths and stars, cycles of length other than five, complete and complete bipartite graphs.

    The star chromatic number of a cycle is 3, but 4 for length 5; K(a, b) takes min(a, b) + 1 for either kind.
    Fertin, Raspaud and Reed, Star coloring of graphs, J. Graph Theory 47 (2004); Grünbaum (1973).
    """
    adjacent = {
        "path": (nx.path_graph(10), 3, 2),
        "star": (nx.star_graph(9), 2, 2),
        "complete": (nx.complete_graph(6), 6, 6),
        "bipartite": (nx.complete_bipartite_graph(3, 5), 4, 4),
    }
    for name, (graph, star, acyclic) in adjacent.items():
        matrix = nx.to_numpy_array(graph) + np.eye(len(graph))
        assert star_coloring(matrix).number == star, name
        assert acyclic_coloring(matrix).number == acyclic, name
    for length in (4, 5, 6, 7, 8, 9):
        cycle = nx.to_numpy_array(nx.cycle_graph(length))
        fewest = 4 if length == 5 else 3
        assert fewest <= min(star_coloring(cycle, order).number for order in (None, *ORDERS)) <= 4
        assert acyclic_coloring(cycle).number == 3


def test_an_arrow_takes_two_colours_symmetrically_and_all_by_columns():
    """The example of Gebremedhin, Manne and Pothen (2005) for the gain of symmetry and of using rows and columns."""
    matrix = arrow(50)
    assert column_coloring(matrix).number == row_coloring(matrix).number == 50
    assert star_coloring(matrix).number == acyclic_coloring(matrix).number == 2
    both = bicoloring(matrix)
    assert (both.row_number, both.column_number) == (1, 2)


@pytest.mark.parametrize("points", [324, 3324])
def test_bundle_adjustment_takes_seventeen_colours(points):
    pattern = bundle(points)
    found = star_coloring(pattern)
    assert found.number <= 17
    low, high, _ = coloring.edges_of(pattern)
    assert is_star_coloring(found.colors, found.number, low, high)


def test_many_stars_do_not_cost_a_colour_each():
    stars = scipy.sparse.block_diag([scipy.sparse.csr_array(arrow(40))] * 30).tocoo()
    assert star_coloring(stars).number <= 3


def test_five_point_stencil():
    """Five columns meet in a row of the grid's matrix, and five colours suffice for any size."""
    found = column_coloring(grid(12, 9), "natural")
    assert 5 <= found.number <= 8
    assert star_coloring(grid(12, 9)).number <= 6


@pytest.mark.parametrize("seed", range(4))
def test_columns_compare_with_networkx_greedy(seed):
    """networkx colours the column intersection graph; in the same order the greedy colours are the very same."""
    matrix = random_matrix(seed, 60, 50, 0.06)
    overlap = matrix.T @ matrix
    graph = graph_of(overlap)
    used = np.flatnonzero(matrix.any(axis=0))
    expected = nx.greedy_color(graph.subgraph(used), strategy=lambda g, colors: [v for v in range(50) if v in g])
    found = column_coloring(matrix, "natural")
    assert [found.colors[v] for v in used] == [expected[v] for v in used]
    fewest = min(column_coloring(matrix, order).number for order in ORDERS)
    others = ("largest_first", "smallest_last", "saturation_largest_first")
    assert fewest <= min(max(nx.greedy_color(graph, name).values()) for name in others) + 2


@pytest.mark.parametrize("seed", range(4))
def test_orders_are_what_they_say(seed, tier):
    matrix = random_symmetric(seed, 60, 0.08)
    graph = graph_of(matrix)
    low, high, n = coloring.edges_of(matrix)
    starts, heads = _greedy.adjacency(low, high, n)
    largest = _greedy.vertex_order(starts, heads, "largest-first")
    degrees = np.diff(starts)[largest]
    assert (degrees[1:] <= degrees[:-1]).all()
    smallest = _greedy.vertex_order(starts, heads, "smallest-last").tolist()
    incidence = _greedy.vertex_order(starts, heads, "incidence-degree").tolist()
    assert sorted(smallest) == sorted(incidence) == list(range(n))
    for k in range(1, n + 1):
        back = dict(graph.subgraph(smallest[:k]).degree)
        assert back[smallest[k - 1]] == min(back.values())
    for k in range(n):
        placed = set(incidence[:k])
        towards = [len(placed & set(graph[v])) for v in incidence[k:]]
        assert towards[0] == max(towards)
    cores = max(nx.core_number(graph).values())
    proper = max(len(set(graph[v]) & set(smallest[: smallest.index(v)])) for v in graph)
    assert proper == cores  # Matula and Beck: smallest-last order attains the degeneracy


# Bicolouring


@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 20), st.floats(0, 0.5), st.integers(0, 3))
def test_a_bicolouring_reads_every_nonzero(seed, m, n, density, dense):
    matrix = random_matrix(seed, m, n, density)
    matrix[np.random.default_rng(seed).integers(0, m, dense)] = 1
    both = bicoloring(matrix)
    apart = both.rows >= 0
    assert columns_differ(matrix[apart].T, both.rows[apart]) or not apart.any()
    assert columns_differ(matrix[~apart], both.columns)
    assert both.row_number + both.column_number <= column_coloring(matrix).number + dense


# Forms of input, edges and errors


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0), (3, 3)])
def test_empty_patterns_need_no_colour(shape):
    nothing = (np.zeros(0, int), np.zeros(0, int), shape)
    assert column_coloring(nothing).number == row_coloring(nothing).number == 0
    assert bicoloring(nothing)[2:] == (0, 0)
    for order in ORDERS:
        assert column_coloring(nothing, order).number == 0
    if shape[0] == shape[1]:
        for found in (star_coloring, acyclic_coloring):
            assert found(nothing).colors.shape == (shape[0],)
            for order in ORDERS:
                assert found(nothing, order).colors.shape == (shape[0],)


def test_all_forms_of_a_pattern_are_coloured_alike():
    matrix = random_symmetric(1, 20, 0.2)
    rows, cols = np.nonzero(matrix)
    forms = [matrix, matrix.tolist(), scipy.sparse.csc_array(matrix), (rows, cols, (20, 20)), Structure(matrix)]
    shuffled = np.random.default_rng(0).permutation(rows.size)
    forms.append((rows[shuffled], cols[shuffled], (20, 20)))
    forms.append((np.append(rows, rows[:5]), np.append(cols, cols[:5]), (20, 20)))
    for form in forms:
        np.testing.assert_array_equal(column_coloring(form).colors, column_coloring(matrix).colors)
        np.testing.assert_array_equal(star_coloring(form).colors, star_coloring(matrix).colors)
    for form in (np.tril(matrix), np.triu(matrix), Structure(matrix, symmetric=True)):
        np.testing.assert_array_equal(star_coloring(form).colors, star_coloring(matrix).colors)


def test_one_sided_pieces_of_a_symmetric_pattern_are_joined():
    matrix = band(6, 1)
    matrix[0, 1] = matrix[3, 2] = 0
    assert is_star(graph_of(band(6, 1)), star_coloring(matrix).colors)


def test_nearly_dense_matrices_take_a_colour_per_column():
    matrix = np.ones((70, 70), int)
    assert column_coloring(matrix).number == star_coloring(matrix).number == acyclic_coloring(matrix).number == 70


def test_errors_say_what_to_do():
    with pytest.raises(ArgumentError, match="largest-first"):
        column_coloring(band(3, 1), "largest first")
    with pytest.raises(ShapeError, match="bicoloring"):
        star_coloring(np.ones((2, 3)))
    with pytest.raises(ShapeError, match="two axes"):
        column_coloring(np.ones(3))
    with pytest.raises(ShapeError, match="number rows and columns from 0"):
        column_coloring(([0, 3], [0, 0], (3, 3)))
    with pytest.raises(ShapeError, match="one column index per nonzero"):
        column_coloring(([0, 1], [0], (3, 3)))
    with pytest.raises(InputError, match="SciPy sparse array"):
        column_coloring("dense")
    for found in (column_coloring(band(3, 1)), bicoloring(arrow(9))):
        assert "colour" in repr(found)


def test_the_bench_runs(capsys, tmp_path):
    assert bench.main(["--smoke", "--json", str(tmp_path / "out.json"), "--md", str(tmp_path / "out.md")]) == 0
    assert capsys.readouterr().out == (tmp_path / "out.md").read_text(encoding="utf-8")
