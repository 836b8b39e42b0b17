"""Sparse Jacobians and Hessians: the values of the dense ones, in a fixed order, under every transformation."""

import itertools
import threading

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

import functrace as ft
import functrace.numpy as fnp
from functrace import lax
from functrace.errors import (
    ArgumentError,
    InputError,
    NonDifferentiableInputError,
    NonScalarOutputError,
    ShapeError,
    WrongStructureError,
)
from functrace.sparse import Pattern, Structure, _tiers, compress, hessian, jacobian
from functrace.sparse.coloring import Coloring, column_coloring, star_coloring

X = np.array([0.3, -0.7, 1.1, 0.4, 2.0, -1.3])
MODES = ("auto", "fwd", "rev", "both")
METHODS = ("auto", "coloring")


def constraints(x):
    return np.sin(x[1:]) * x[:-1] ** 2 + np.sum(x[:2])


def chained(x):
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def coupled(x):
    """Not a sum of element functions of a few inputs: one norm of overlapping pieces."""
    return np.exp(-np.sqrt(1.0 + np.sum(np.sin(x[:3]) ** 2))) + np.sum(x[3:] ** 3 * x[2:-1])


def arrowhead(x):
    first = x[1] * x[0] + np.sum(x[1:] ** 2)
    return fnp.concatenate([fnp.reshape(first, (1,)), np.cos(x[0]) * x[1:] ** 2])


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-11)


# Values


@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "function", [constraints, arrowhead, lambda x: np.cumsum(x) * x, lambda x: x[::2] @ np.ones(3)]
)
def test_jacobian_is_the_dense_one(function, mode, format):
    found = jacobian(function, mode, format)(X)
    expected = np.atleast_2d(ft.jacfwd(function)(X))
    assert found.format == format and found.shape == expected.shape and found.has_canonical_format
    close(found.toarray(), expected)


@pytest.mark.parametrize("format", ["csr", "csc", "coo"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("function", [chained, coupled, lambda x: np.prod(x), lambda x: np.sum(x) ** 3])
def test_hessian_is_the_dense_one(function, method, format):
    found = hessian(function, method, format)(X)
    assert found.format == format and found.has_canonical_format
    close(found.toarray(), ft.hessian(function)(X))
    close(found.toarray(), found.toarray().T)


def test_hessian_of_a_closed_form():
    """Of chained Rosenbrock: derived by hand."""
    n = X.size
    expected = np.zeros((n, n))
    for i in range(n - 1):
        expected[i, i] += 1200.0 * X[i] ** 2 - 400.0 * X[i + 1] + 2.0
        expected[i + 1, i + 1] += 200.0
        expected[i, i + 1] = expected[i + 1, i] = -400.0 * X[i]
    for method in (*METHODS, "elements"):
        close(hessian(chained, method)(X).toarray(), expected)


def test_the_structure_is_fixed_and_holds_zeros():
    J = jacobian(lambda x: x[1:] * x[:-1])
    at_zero, elsewhere = J(np.zeros(6)), J(X)
    np.testing.assert_array_equal(at_zero.indices, elsewhere.indices)
    assert at_zero.nnz == elsewhere.nnz == 10
    at_zero.eliminate_zeros()  # what the user does to a result is the user's own affair
    close(J(X).toarray(), elsewhere.toarray())


@pytest.mark.parametrize("make", [lambda f: hessian(f, "coloring"), hessian], ids=["coloring", "auto"])
def test_hessian_order_is_the_lower_triangle_by_columns(make):
    prepared = make(chained).prepare(X)
    np.testing.assert_array_equal(prepared.rows, [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
    np.testing.assert_array_equal(prepared.cols, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5])
    dense = ft.hessian(chained)(X)
    close(prepared.values(X), dense[prepared.rows, prepared.cols])
    close(prepared.to_csc(X).toarray(), dense)
    close(prepared.matvec(np.arange(6.0), X), dense @ np.arange(6.0))
    close(prepared.structure.matvec(prepared.values(X), np.arange(6.0)), dense @ np.arange(6.0))
    assert isinstance(prepared.pattern, Pattern) and prepared.pattern.nnz == 16
    out = np.zeros(prepared.nnz)
    assert prepared.values(X, out=out) is out
    close(out, prepared.values(X))


def test_jacobian_order_is_by_columns():
    for mode in MODES:
        prepared = jacobian(arrowhead, mode).prepare(X)
        order = np.lexsort((prepared.rows, prepared.cols))
        np.testing.assert_array_equal(order, np.arange(prepared.nnz))
        close(prepared.values(X), ft.jacfwd(arrowhead)(X)[prepared.rows, prepared.cols])
        close(prepared.matvec(X, X), ft.jacfwd(arrowhead)(X) @ X)


# Compositions


WRAPPERS = {
    "jit": lambda g: ft.jit(g),
    "vmap": lambda g: lambda x: ft.vmap(g)(np.stack([2.0 * x, x]))[1],
    "jacfwd": lambda g: lambda x: ft.jacfwd(g)(x).sum(axis=0),
    "jacrev": lambda g: lambda x: ft.jacrev(g)(x).sum(axis=0),
    "grad": lambda g: lambda x: ft.grad(lambda y: np.sum(np.sin(g(y))))(x),
}


@pytest.mark.parametrize(
    "names", [*((n,) for n in WRAPPERS), *itertools.product(("vmap", "jacfwd", "jacrev"), repeat=2)]
)
def test_values_compose(names):
    def wrapped(g):
        for name in reversed(names):
            g = WRAPPERS[name](g)
        return g

    found = jacobian(constraints, "fwd").prepare(X)
    other = jacobian(constraints, "rev").prepare(X)
    dense = ft.jacfwd(constraints)
    expected = wrapped(lambda x: dense(x)[found.rows, found.cols])(X)
    close(wrapped(found.values)(X), expected)
    close(wrapped(other.values)(X), expected)
    curved = hessian(coupled, "coloring").prepare(X)
    close(wrapped(curved.values)(X), wrapped(lambda x: ft.hessian(coupled)(x)[curved.rows, curved.cols])(X))


def test_preparation_inside_transformations():
    """Structure is found from types alone, so that a traced argument will do."""

    def through(x):
        prepared = hessian(lambda y: np.sum(y[1:] * y[:-1] ** 2), "coloring").prepare(x)
        return np.sum(prepared.values(x) ** 2)

    expected = ft.grad(lambda x: np.sum(np.tril(ft.hessian(lambda y: np.sum(y[1:] * y[:-1] ** 2))(x)) ** 2))(X)
    close(ft.grad(through)(X), expected)
    close(ft.jit(ft.grad(through))(X), expected)


@pytest.mark.parametrize("method", METHODS)
def test_what_another_transformation_traces_is_an_unknown_constant(method):
    def energy(scale):
        prepared = hessian(lambda x: np.sum(scale * x[1:] ** 3 * x[:-1]), method)
        return np.sum(prepared.prepare(X).values(X))

    slope = energy(1.0)  # linear in the scale
    close(ft.grad(energy)(2.0), slope)
    close(ft.vmap(energy)(np.array([1.0, 3.0])), [slope, 3 * slope])
    close(ft.jit(energy)(2.0), 2 * slope)


def test_further_arguments_are_parameters():
    def f(x, p):
        return p["a"] * np.sin(x["u"]) * x["v"][0] + p["b"][: x["u"].size]

    x = {"u": X[:3], "v": X[3:5]}
    for mode in MODES:
        J = jacobian(f, mode)
        for a in (1.0, 2.0):
            p = {"a": a, "b": np.arange(5.0)}
            dense = ft.jacfwd(f)(x, p)
            close(J(x, p).toarray(), np.concatenate([dense["u"], dense["v"]], axis=1))
        assert len(J._prepared) == 1


def test_integer_parameters_are_no_constants():
    """An index that is an argument may change from call to call: the structure must hold for all."""

    def f(x, i):
        return fnp.take(fnp.array(x), i) * x[:2]

    for mode in MODES:
        J = jacobian(f, mode)
        for i in ([0, 1], [5, 2], [3, 3]):
            close(J(X, np.array(i)).toarray(), ft.jacfwd(f)(X, np.array(i)))


def test_trees_in_and_out():
    def f(x):
        return {"p": x[0] * x[1][0], "q": (np.outer(x[1], x[1]), x[0])}

    x = (np.float64(2.0), np.array([3.0, 4.0]))
    for mode in MODES:
        found = jacobian(f, mode)(x).toarray()
        assert found.shape == (6, 3)
        expected = [[3, 2, 0], [0, 6, 0], [0, 4, 3], [0, 4, 3], [0, 0, 8], [1, 0, 0]]
        close(found, expected)


def test_single_precision_stays_single():
    x = X.astype(np.float32)
    for mode in MODES:
        assert jacobian(constraints, mode)(x).dtype == np.float32
    for method in METHODS:
        assert hessian(chained, method)(x).dtype == np.float32
    np.testing.assert_allclose(hessian(chained, "coloring")(x).toarray(), ft.hessian(chained)(X), rtol=2e-5, atol=1e-2)


# Size and memory


@pytest.mark.parametrize("mode", ["fwd", "rev", "both"])
def test_colours_take_turns_when_memory_is_short(mode, monkeypatch):
    plain = jacobian(arrowhead, mode).prepare(X)
    curved = hessian(coupled, "coloring").prepare(X)
    expected, bent = plain.values(X), curved.values(X)
    for size in (1, 20, 60):
        monkeypatch.setattr(compress, "SWEEP_SIZE", size)
        again = jacobian(arrowhead, mode).prepare(X)
        close(again.values(X), expected)
        close(ft.vmap(again.values)(np.stack([X, X]))[1], expected)
        close(hessian(coupled, "coloring").prepare(X).values(X), bent)
        close(ft.jacfwd(again.values)(X), ft.jacrev(plain.values)(X))


def test_many_colours_in_turns(monkeypatch):
    def pairwise(x):
        return np.sin(x[:, None] * x[None, :]).sum(axis=1)[:7]

    monkeypatch.setattr(compress, "SWEEP_SIZE", 1000)
    x = np.linspace(0.0, 1.0, 30)
    for mode in ("fwd", "rev"):
        prepared = jacobian(pairwise, mode).prepare(x)
        assert prepared.choice.sweeps == (30 if mode == "fwd" else 7)
        close(prepared(x).toarray(), ft.jacfwd(pairwise)(x))


def test_large_banded_problem_takes_few_sweeps():
    n = 20_000
    x = np.linspace(-1.0, 1.0, n)
    prepared = hessian(chained, "coloring").prepare(x)
    assert prepared.choice.sweeps == 3 and prepared.nnz == 2 * n - 1
    main, side = 1200.0 * x**2 + 2.0, -400.0 * x[:-1]
    main[:-1] -= 400.0 * x[1:]
    main[1:] += 200.0
    main[0], main[-1] = 1200.0 * x[0] ** 2 - 400.0 * x[1] + 2.0, 200.0
    values = prepared.values(x)
    np.testing.assert_allclose(values[prepared.rows == prepared.cols], main, rtol=1e-12)
    np.testing.assert_allclose(values[prepared.rows != prepared.cols], side, rtol=1e-12)


def test_bundle_adjustment_by_colours_and_by_elements():
    """Points seen by two of four cameras: hubs, which share colours where cameras share no point."""
    points = 12
    seen = [(np.arange(points) + k) % 4 for k in range(2)]

    def residuals(x):
        cameras, at = fnp.reshape(x[:28], (4, 7)), fnp.reshape(x[28:], (points, 3))
        total = 0.0
        for camera in (cameras[s] for s in seen):
            side = at[:, 0] + camera[:, 1] * at[:, 2] - camera[:, 2] * at[:, 1] + camera[:, 3]
            depth = at[:, 2] + camera[:, 0] * at[:, 1] - camera[:, 1] * at[:, 0] + camera[:, 4] + 5.0
            total = total + np.sum((camera[:, 6] * side / depth - camera[:, 5]) ** 2)
        return total

    x = np.random.default_rng(0).normal(size=28 + 3 * points) * 0.3
    expected = ft.hessian(residuals)(x)
    for method in ("coloring", "elements", "auto"):
        prepared = hessian(residuals, method).prepare(x, check=True)
        np.testing.assert_allclose(prepared(x).toarray(), expected, rtol=1e-10, atol=1e-11)
        assert prepared.choice.sweeps <= 17


@pytest.mark.parametrize("function", [constraints, arrowhead])
@pytest.mark.parametrize("mode", ["fwd", "rev", "both"])
def test_machine_code_takes_over(function, mode, monkeypatch):
    prepared = jacobian(function, mode).prepare(X)
    curved = hessian(lambda x: np.sum(function(x)), "coloring").prepare(X)
    first, bent = prepared.values(X), curved.values(X)
    monkeypatch.setattr(_tiers, "PATIENCE", -1.0)
    close(prepared.values(X), first)
    close(curved.values(X), bent)
    close(prepared.values(2 * X), ft.jacfwd(function)(2 * X)[prepared.rows, prepared.cols])


# Choice


def test_the_choice_is_reported():
    dense_row = jacobian(arrowhead).prepare(X)
    assert dense_row.choice.method and dense_row.choice.reason and dense_row.choice.cost > 0
    assert "sweep" in str(jacobian(constraints, "fwd").prepare(X).choice)
    assert jacobian(constraints, "rev").prepare(X).choice.method == "row colouring"
    assert hessian(coupled, "coloring").prepare(X).choice.method == "star colouring"
    assert "nonzeros" in repr(dense_row)


def test_auto_picks_the_side_with_fewer_colours():
    def wide(x):
        return lax.scan(lambda c, v: (np.tanh(c + v), c), 0.0, x)[0]

    def tall(t):
        return lax.scan(lambda c, v: (np.tanh(c + v), c), t, np.arange(9.0))[1]

    assert jacobian(wide, pattern=np.ones((1, 6))).prepare(X).choice.method == "row colouring"
    assert jacobian(tall, pattern=np.ones((9, 1))).prepare(0.5).choice.method == "column colouring"


def test_dense_rows_are_set_apart():
    n = 60

    def arrow(x):
        first = np.linalg.norm(x) * np.exp(-np.linalg.norm(x - 1.0))
        return fnp.concatenate([fnp.reshape(first, (1,)), np.sort(np.abs(x[1:2])) * x[0] + x[1:] ** 2])

    x = np.linspace(0.1, 1.0, n)
    prepared = jacobian(arrow, "both").prepare(x)
    assert prepared.choice.sweeps <= 4
    close(prepared(x).toarray(), ft.jacfwd(arrow)(x))
    auto = jacobian(arrow).prepare(x)
    assert auto.choice.sweeps <= 4
    close(auto(x).toarray(), ft.jacfwd(arrow)(x))


def test_unneeded_colours_are_dropped():
    """Of a matrix without diagonal x'Ay only one side's columns are multiplied."""
    rows, cols = np.arange(5, 10), np.arange(5)
    structure = Structure((rows, cols, (10, 10)), symmetric=True)
    assert compress.star_plan(structure, star_coloring(structure)).sweeps == 1
    A = np.random.default_rng(0).normal(size=(5, 4))
    prepared = hessian(lambda x: x[:5] @ A @ x[5:], "coloring").prepare(np.ones(9))
    assert prepared.choice.sweeps == 4
    close(prepared(np.ones(9)).toarray()[:5, 5:], A)


# Known patterns and the check


def test_a_given_pattern_is_used():
    dense = ft.jacfwd(constraints)(X) != 0
    for pattern in (dense, scipy.sparse.csr_array(dense), Pattern(dense.shape, *np.nonzero(dense)), np.ones((5, 6))):
        for mode in ("fwd", "rev", "both"):
            prepared = jacobian(constraints, mode, pattern=pattern).prepare(X, check=True)
            close(prepared(X).toarray(), ft.jacfwd(constraints)(X))
    for pattern in (np.tril(np.ones((6, 6))), np.ones((6, 6))):
        close(hessian(coupled, pattern=pattern).prepare(X, check=True)(X).toarray(), ft.hessian(coupled)(X))


@pytest.mark.parametrize("missing", [(0, 1), (3, 4), (2, 0)])
def test_the_check_finds_a_missing_nonzero(missing):
    dense = ft.jacfwd(constraints)(X) != 0
    assert dense[missing]
    dense[missing] = False
    for mode in ("fwd", "rev", "both"):
        with pytest.raises(WrongStructureError, match="every nonzero"):
            jacobian(constraints, mode, pattern=dense).prepare(X, check=True)
    bent = ft.hessian(coupled)(X) != 0
    bent[4, 3] = bent[3, 4] = False
    with pytest.raises(WrongStructureError):
        hessian(coupled, pattern=bent).prepare(X, check=True)


def test_the_check_passes_what_is_right_and_infinite():
    prepared = jacobian(lambda x: np.sqrt(x) * 2.0).prepare(np.zeros(3))
    with np.errstate(all="ignore"):
        prepared.check(np.ones(3))
    for mode in MODES:
        jacobian(constraints, mode).prepare(X, check=True)
    for method in METHODS:
        hessian(chained, method).prepare(X, check=True)


# Structure


def test_structures_compare_by_content():
    first = Structure(([0, 1, 1], [0, 0, 1], (2, 2)), symmetric=True)
    second = Structure(([1, 0, 1, 0], [1, 0, 0, 1], (2, 2)), symmetric=True)
    assert first == second and hash(first) == hash(second) and first.digest == second.digest
    assert first != Structure(([0, 1, 1], [0, 0, 1], (2, 2))) and first != "structure"
    with pytest.raises(ValueError, match="read-only"):
        first.rows[0] = 1
    assert "lower triangle" in repr(first)


def test_a_structure_owns_its_indices():
    rows, cols = np.array([0, 1]), np.array([0, 1])
    structure = Structure((rows, cols, (2, 2)))
    rows[0] = 1
    assert structure.rows.tolist() == [0, 1]
    rows.flags.writeable = True


@given(st.integers(0, 10**6), st.integers(0, 9), st.integers(0, 9), st.booleans())
def test_structures_give_the_matrix(seed, m, n, symmetric):
    rng = np.random.default_rng(seed)
    n = m if symmetric else n
    matrix = rng.normal(size=(m, n)) * (rng.random((m, n)) < 0.4)
    if symmetric:
        matrix = matrix + matrix.T
    structure = Structure(matrix, symmetric)
    values = matrix[structure.rows, structure.cols]
    for form in (structure.to_csc, structure.to_csr, structure.to_coo):
        found = form(values)
        np.testing.assert_array_equal(found.toarray(), matrix)
        assert found.nnz == np.count_nonzero(matrix) and found.has_canonical_format
    np.testing.assert_array_equal(structure.to_dense(values), matrix)
    vector = rng.normal(size=n)
    np.testing.assert_allclose(structure.matvec(values, vector), matrix @ vector, atol=1e-12)


def test_structure_errors():
    structure = Structure(np.eye(2))
    with pytest.raises(ShapeError, match="order of rows and cols"):
        structure.to_csr(np.ones(3))
    with pytest.raises(ShapeError, match="one number per column"):
        structure.matvec(np.ones(2), np.ones(3))
    with pytest.raises(ShapeError, match="square"):
        Structure(np.ones((2, 3)), symmetric=True)
    with pytest.raises(ArgumentError, match="csr"):
        structure.to_array(np.ones(2), "dense")


# Edges and errors


@pytest.mark.parametrize("mode", MODES)
def test_empty_derivatives(mode):
    constant = jacobian(lambda x: np.ones(3), mode)(X)
    assert constant.shape == (3, 6) and constant.nnz == 0
    nothing_out = jacobian(lambda x: x[:0], mode)(X)
    assert nothing_out.shape == (0, 6)
    nothing_in = jacobian(lambda x: np.sin(x), mode)(np.zeros(0))
    assert nothing_in.shape == (0, 0)
    assert jacobian(lambda x: np.sum(x) + np.ones(2), mode)(np.zeros(0)).shape == (2, 0)
    prepared = jacobian(lambda x: np.ones(3), mode).prepare(X, check=True)
    assert prepared.values(X).shape == (0,)
    close(prepared.matvec(np.ones(6), X), np.zeros(3))


@pytest.mark.parametrize("method", METHODS)
def test_empty_hessians(method):
    for function in (lambda x: np.sum(x) * 3.0, lambda x: np.float64(2.0)):
        prepared = hessian(function, method).prepare(X, check=True)
        assert prepared.nnz == 0 and prepared.values(X).shape == (0,) and prepared(X).shape == (6, 6)
        close(prepared.matvec(np.ones(6), X), np.zeros(6))
    assert hessian(lambda x: np.sum(x**2), method)(np.zeros(0)).shape == (0, 0)


def test_scalar_argument():
    close(jacobian(np.sin, "fwd")(0.5).toarray(), [[np.cos(0.5)]])
    close(hessian(np.sin, "coloring")(0.5).toarray(), [[-np.sin(0.5)]])
    close(hessian(np.sin)(0.5).toarray(), [[-np.sin(0.5)]])


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="'fwd'"):
        jacobian(constraints, mode="forward")
    with pytest.raises(ArgumentError, match="'csr'"):
        hessian(chained, format="dense")
    with pytest.raises(ArgumentError, match="'coloring'"):
        hessian(chained, method="star")
    with pytest.raises(ArgumentError, match="leave out the pattern"):
        hessian(chained, method="elements", pattern=np.ones((6, 6)))
    with pytest.raises(InputError, match="jacobian"):
        jacobian(np.ones(3))
    with pytest.raises(ArgumentError, match="without arguments"):
        jacobian(constraints)()
    with pytest.raises(ShapeError, match="row per number of the output"):
        jacobian(constraints, pattern=np.ones((6, 6)))(X)


def test_bad_types():
    with pytest.raises(NonDifferentiableInputError, match="real and imaginary"):
        jacobian(constraints)(X.astype(complex))
    with pytest.raises(NonDifferentiableInputError, match="real and imaginary"):
        jacobian(lambda x: x * 1j)(X)
    with pytest.raises(NonDifferentiableInputError, match="further argument"):
        hessian(chained)(np.arange(6))
    with pytest.raises(NonDifferentiableInputError, match="output"):
        jacobian(lambda x: x > 0)(X)
    with pytest.raises(NonScalarOutputError, match="multipliers"):
        hessian(constraints)(X)


def test_prepared_for_other_types():
    prepared = jacobian(constraints, "fwd").prepare(X)
    with pytest.raises(ShapeError, match="prepare it again"):
        prepared.values(X[:-1])
    with pytest.raises(ShapeError, match="prepare it again"):
        prepared.values(X, X)
    with pytest.raises(InputError, match="complex128 for float64"):
        prepared.values(X.astype(complex))
    close(prepared.values(np.arange(6)), prepared.values(np.arange(6.0)))
    with pytest.raises(ShapeError, match="one number per column"):
        prepared.matvec(np.ones(5), X)
    types = jacobian(constraints, "fwd").prepare(ft.ShapeDtypeStruct((6,), float))
    close(types.values(X), prepared.values(X))


def test_sparse_arrays_cannot_be_traced():
    for transformed in (ft.jit(jacobian(constraints)), ft.grad(lambda x: jacobian(constraints)(x).sum())):
        with pytest.raises(InputError, match=r"prepare\(x\)\.values\(x\)"):
            transformed(X)


def test_inputs_are_left_alone_and_results_are_owned():
    prepared = jacobian(constraints, "fwd").prepare(X)
    x = X.copy()
    first = prepared.values(x)
    keep = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(prepared.values(x), keep)


def test_threads_share_a_derivative():
    H = hessian(coupled, "coloring")
    expected = ft.hessian(coupled)(X)
    failures = []

    def work():
        try:
            for _ in range(5):
                close(H(X).toarray(), expected)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_wrong_colouring_is_refused():
    structure = Structure(np.ones((3, 3)), symmetric=True)
    with pytest.raises(AssertionError):
        compress.star_plan(structure, Coloring(np.zeros(3, int), 1, "star", "wrong"))
    assert column_coloring(structure.full[0]).number == 3


# Random sparse programs


UNARY = (
    np.sin,
    lambda v: np.exp(-v * v),
    lambda v: v * v,
    lambda v: 2.0 * v + 1.0,
    np.tanh,
    lambda v: np.where(v > 0, v * v, np.sin(v)),
)
BINARY = (np.multiply, np.add, lambda a, b: a * np.cos(b), np.subtract)


@st.composite
def programs(draw):
    """A function of a vector: elementwise operations, shifts, gathers, sums, scatters, matrices and loops."""
    n = draw(st.integers(2, 9))
    seed = draw(st.integers(0, 10**6))
    steps = draw(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 50)), min_size=1, max_size=5))
    fixed = np.random.default_rng(seed)
    constant = fixed.normal(size=(n, n)) * (fixed.random((n, n)) < 0.3)
    places = fixed.integers(0, n, n)

    def function(x):
        y = x
        for kind, detail in steps:
            if kind == 0:
                y = UNARY[detail % len(UNARY)](y)
            elif kind == 1:
                y = BINARY[detail % len(BINARY)](y, x)
            elif kind == 2:
                shift = 1 + detail % (n - 1)
                y = y * fnp.concatenate([y[shift:], x[:shift]])
            elif kind == 3:
                y = y + np.sin(y[places])
            elif kind == 4:
                y = constant @ y + x * 0.5
            elif kind == 5:
                y = fnp.at(fnp.zeros(n))[places].add(y * y) + y
            elif kind == 6:
                y = y * np.sum(x[: 1 + detail % n])
            elif kind == 7:
                y = lax.scan(lambda c, v: (0.5 * c + v, c * v), y[0], y)[1]
            else:
                y = np.cumsum(y)[::-1] * 0.3
        return y

    return function, n, seed


@pytest.fixture(scope="module")
def uncompiled():
    """Machine code for each of many small programs would take minutes, and has tests of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FUNCTRACE_DISABLE_JIT", "1")
        yield


def point_of(n, seed):
    return np.random.default_rng(seed).uniform(0.2, 0.9, n)


def same(actual, expected, rtol=1e-9):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * max(1.0, np.abs(expected).max(initial=0.0)))


@given(programs())
@settings(max_examples=40)
def test_random_programs_have_the_dense_jacobian(uncompiled, program):
    function, n, seed = program
    x = point_of(n, seed)
    expected = ft.jacfwd(function)(x)
    for mode in MODES:
        same(jacobian(function, mode).prepare(x, check=True)(x).toarray(), expected)


@given(programs())
@settings(max_examples=40)
def test_random_programs_have_the_dense_hessian(uncompiled, program):
    function, n, seed = program
    x, weights = point_of(n, seed), point_of(n, seed + 1)

    def scalar(x):
        return np.sum(weights * function(x))

    expected = ft.hessian(scalar)(x)
    for method in METHODS:
        same(hessian(scalar, method).prepare(x, check=True)(x).toarray(), expected)


@pytest.mark.slow
@given(programs())
@settings(max_examples=1000)
def test_random_programs_further(uncompiled, program):
    function, n, seed = program
    x = point_of(n, seed)
    dense = ft.jacfwd(function)
    for mode in MODES:
        prepared = jacobian(function, mode).prepare(x)
        same(prepared(x).toarray(), dense(x))
        same(ft.jacfwd(prepared.values)(x), ft.jacfwd(dense)(x)[prepared.rows, prepared.cols], 1e-8)


@pytest.mark.slow
@given(programs())
@settings(max_examples=1000)
def test_random_programs_further_hessians(uncompiled, program):
    function, n, seed = program
    x, weights = point_of(n, seed), point_of(n, seed + 1)

    def scalar(x):
        return np.sum(weights * function(x))

    for method in METHODS:
        prepared = hessian(scalar, method).prepare(x, check=True)
        same(prepared(x).toarray(), ft.hessian(scalar)(x))
