"""Sums of products as contractions, products with identities as none, and what is made of constants when tracing."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import functrace as ft
from functrace.backend.compiler.inline import prepare
from functrace.core.evaluate import python_function
from functrace.core.ir import check_jaxpr, hoist_constants
from functrace.core.trace import EVAL, reset_trace, set_trace
from functrace.core.types import ShapedArray
from functrace.interpreters.constants import with_known_constants
from functrace.interpreters.contractions import Identity, identity
from functrace.interpreters.simplify import simplify
from functrace.interpreters.staging import stage
from functrace.primitives.families import broadcast, mul

NAN, INF = np.nan, np.inf
NESTINGS = {
    "forward over reverse": lambda f: ft.jacfwd(ft.jacrev(f)),
    "reverse over reverse": lambda f: ft.jacrev(ft.jacrev(f)),
    "reverse over forward": lambda f: ft.jacrev(ft.jacfwd(f)),
    "forward over forward": lambda f: ft.jacfwd(ft.jacfwd(f)),
}


def programs(function, *args):
    """The simplified program of a compiled function, and that with contractions; both with constants as inputs."""
    closed = ft.jit(function).trace(*args)
    jaxpr, constants = hoist_constants(closed)
    kinds = {v: identity(c) for v, c in zip(jaxpr.invars, constants, strict=False)}
    token = set_trace(EVAL)
    try:
        plain = simplify(jaxpr)
        contracted = prepare(jaxpr, {v: k for v, k in kinds.items() if k is not None})
    finally:
        reset_trace(token)
    check_jaxpr(contracted)
    return plain, contracted, [*constants, *args]


def both_values(function, *args):
    """What the two programs give, by NumPy."""
    plain, contracted, values = programs(function, *args)
    with np.errstate(all="ignore"):
        return python_function(plain)(*values), python_function(contracted)(*values)


def names(function, *args):
    return [e.primitive.name for e in programs(function, *args)[1].eqns]


def largest(function, *args):
    """Elements of the largest array that a program makes."""
    return max([v.aval.size for e in programs(function, *args)[1].eqns for v in e.outvars], default=0)


def matrix_products(function, *args):
    """The sizes of the spaces of contractions that are no products with vectors."""
    found = []
    for eqn in programs(function, *args)[1].eqns:
        if eqn.primitive.name == "dot_general" and eqn.params["contract"][0]:
            x, y = (a.aval for a in eqn.invars)
            length = math.prod(x.shape[i] for i in eqn.params["contract"][0])
            if length not in (x.size, y.size):
                found.append(length * eqn.outvars[0].aval.size)
    return found


def assert_same(got, expected, rtol=1e-12):
    """Equal to rounding, with NaNs and infinities at the same places."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape and got.dtype == expected.dtype
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol * scale)


# Times an identity


def block(rows, columns, start, dtype="f8", number=1.0):
    out = np.zeros((rows, columns), dtype)
    out[start + np.arange(columns), np.arange(columns)] = number
    return out


def runs(rows, columns, *places, dtype="f8"):
    out = np.zeros((rows, columns), dtype)
    for row, column, count in places:
        out[row + np.arange(count), column + np.arange(count)] = 1.0
    return out


@pytest.mark.parametrize("rows, columns, start", [(4, 4, 0), (9, 5, 0), (9, 5, 4), (9, 5, 2)])
@pytest.mark.parametrize("number", [1.0, -0.5, 3.0])
def test_identities_are_recognised(rows, columns, start, number):
    E = block(rows, columns, start, number=number)
    assert identity(E) == Identity(rows, columns, ((start, 0, columns),), number)
    assert identity(E.T) == Identity(columns, rows, ((0, start, columns),), number)
    for other in (E + 1e-300, -E + 1, E[:, :3], E.astype("c16"), E.astype("f2"), E[0], 0 * E, E + np.roll(E, 1, 0)):
        assert identity(other) is None
    F = E.copy()
    F[start, 0] = NAN
    assert identity(F) is None
    F[start, 0] = 2 * number
    assert identity(F) is None
    F = E.copy()
    F[:, 1] = F[:, 0]  # two ones in a row
    assert identity(F) is None
    assert identity(np.eye(9)[::-1]) is None  # it takes as many runs as rows


def test_identities_in_runs_are_recognised():
    assert identity(np.roll(np.eye(6), 1, 0)) == Identity(6, 6, ((0, 5, 1), (1, 0, 5)), 1.0)
    E = runs(7, 9, (1, 5, 3), (4, 0, 2))
    assert identity(E) == Identity(7, 9, ((1, 5, 3), (4, 0, 2)), 1.0)


PRODUCTS = {
    "x @ E.T": lambda x, E: x @ E.T,
    "E @ x.T": lambda x, E: E @ x.T,
    "x[:, :n] @ E": lambda x, E: np.concatenate([x, x, x], 1)[:, : E.shape[0]] @ E,
    "stack": lambda x, E: np.stack([x, 2.0 * x]) @ E.T,
    "vector": lambda x, E: x[0] @ E.T,
    "middle axis": lambda x, E: np.einsum("ijk,tj->itk", np.stack([x, x], 2), E),
    "(g x) @ E": lambda x, E: (x * np.sin(x)) @ E.T,
    "x @ (g E)": lambda x, E: x @ (E * np.cos(x[0])).T,
    "x @ (g E + h E)": lambda x, E: x @ (E * np.cos(x[0]) - E * x[1]).T,
    "x @ where(c, g E, 0)": lambda x, E: x @ np.where(x[0] > 0.0, E * x[1], 0.0).T,
    "x @ where(c, g E, h E)": lambda x, E: x @ np.where(x[0] > 0.0, E * x[1], E * x[2]).T,
    "sum": lambda x, E: np.sum(x[:, None, :] * E, 2),
    "sum of a product with two": lambda x, E: np.sum((E * x[1])[:, None, :] * E, 2),
    "sum of three": lambda x, E: np.sum(x[:, None, None, :] * E[:, None, :] * E, 3),
}
IDENTITIES = {
    "whole": np.eye(5),
    "rows after it": block(8, 5, 0),
    "rows before it": block(8, 5, 3),
    "twice": block(9, 5, 2, number=2.0),
    "columns before it": block(9, 5, 2, number=-1.0).T.copy(),
    "rolled": np.roll(np.eye(6), 2, 0),
    "in runs": runs(7, 9, (1, 5, 3), (4, 0, 2)),
}


@pytest.mark.parametrize("name", PRODUCTS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("kind", IDENTITIES)
def test_products_with_identities(name, dtype, kind, rng):
    product, E = PRODUCTS[name], IDENTITIES[kind].astype(dtype)
    columns = E.shape[1]
    compiled = ft.jit(lambda x: product(x, E))
    plain_program, contracted_program, values = programs(lambda x: product(x, E), np.ones((11, columns), dtype))
    specials = np.array([0.0, -0.0, INF, -INF, NAN, np.finfo(dtype).max / 100, -2.0])
    for trial in range(12):
        x = rng.normal(size=(11, columns)).astype(dtype)
        places = rng.integers(0, x.size, trial)
        x.ravel()[places] = rng.choice(specials, trial).astype(dtype)
        with np.errstate(all="ignore"):
            plain = python_function(plain_program)(*values[:-1], x)[0]
            contracted = python_function(contracted_program)(*values[:-1], x)[0]
        assert_same(contracted, plain, 1e-6 if dtype == "f4" else 1e-13)
        zero = (plain == 0) & (contracted == 0)
        if "g" not in name:
            np.testing.assert_array_equal(np.signbit(plain)[zero], np.signbit(contracted)[zero])
        assert_same(compiled(x), contracted, 1e-6 if dtype == "f4" else 1e-13)


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_with_identities_are_none(name):
    x = np.ones((11, 40))
    if name in ("sum of three", "vector"):
        assert "dot_general" not in names(lambda x: PRODUCTS[name](x, np.eye(40)), x)
    else:
        assert "dot_general" in [e.primitive.name for e in ft.jit(lambda x: x @ np.cos(np.eye(40))).trace(x).eqns]
        assert "dot_general" not in names(lambda x: PRODUCTS[name](x, np.eye(40)), x)
        assert largest(lambda x: PRODUCTS[name](x, np.eye(40)), x) <= 40 * 40 * 2


@settings(max_examples=60)
@given(st.data())
def test_one_infinity_stays_alone(data):
    n = data.draw(st.integers(4, 7))
    rows = n + data.draw(st.integers(0, 3))
    E = block(rows, n, data.draw(st.integers(0, rows - n)), number=data.draw(st.sampled_from([1.0, -2.0])))
    numbers = st.sampled_from([0.0, -0.0, 1.0, -3.5, INF, -INF, NAN])
    x = np.array(data.draw(st.lists(numbers, min_size=n, max_size=n)))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.array([math.fsum(row * x) if np.isfinite(row * x).all() else np.sum(row * x) for row in E])
    plain, contracted = both_values(lambda x: E @ x, x)
    np.testing.assert_array_equal(plain[0], expected)
    np.testing.assert_array_equal(contracted[0], expected)


def test_integers_halves_and_complex_numbers_are_left_alone(rng):
    for dtype in ("i8", "f2", "c16"):
        E = np.eye(6).astype(dtype)
        x = np.arange(36).reshape(6, 6).astype(dtype)
        np.testing.assert_array_equal(ft.jit(lambda x, E=E: x @ E)(x), x)
        assert "dot_general" in names(lambda x, E=E: x @ E, x)


def test_code_on_disk_knows_which_constants_are_identities(monkeypatch, tmp_path):
    """Two programs of one text, of which one has an identity for a constant."""
    monkeypatch.setenv("FUNCTRACE_CACHE_DIR", str(tmp_path / "cache"))
    x = np.arange(25.0).reshape(5, 5)
    for E in (np.eye(5), np.eye(5)[::-1].copy(), 2 * np.eye(5), np.eye(5)):
        np.testing.assert_array_equal(ft.jit(lambda x, E=E: x @ E)(x), x @ E)


# Sums of products


SUMS = {
    "matrices": (lambda a, b, c: np.sum(a[:, None, :] * b[None, :, :], 2), 1),
    "summed first": (lambda a, b, c: np.sum(a.T[:, :, None] * b.T[:, None, :], 0), 1),
    "turned": (lambda a, b, c: np.sum(b[None, :, :] * a[:, None, :], 2).T, 1),
    "stack": (lambda a, b, c: np.sum(a[:, None, :, None] * (b[:, :, None] * c[0][:3])[None], 2), 1),
    "two terms": (lambda a, b, c: np.sum(a[:, None] * b - np.sin(a)[:, None] * np.cos(b), 2), 2),
    "numbers": (lambda a, b, c: np.sum(3.0 * (a[:, None] * b + 2.0 * (a[:, None] * c)), 2), 2),
    "a scalar": (lambda a, b, c: np.sum(a[0, 0] * (a[:, None] * b), 2), 1),
    "three factors": (lambda a, b, c: np.sum(a[:, None] * (c[0] * b), 2), 1),
    "negative": (lambda a, b, c: np.sum(-(a[:, None] * b), 2), 1),
    "a matrix of matrices": (lambda a, b, c: np.sum(a[:, None, None, :] * (b[:, None, :] * c)[None], 3), 1),
    "an axis of one": (lambda a, b, c: np.sum(a[:, None, :] * b[None, :, :] * c[:1, :1], 2), 1),
    "many numbers": (lambda a, b, c: np.sum(a[:, None, :] * 2.0 * 3.0 * b * 0.5 * -1.0, 2), 1),
}


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("dtype", ["f4", "f8", "c16"])
def test_sums_of_products_are_contractions(name, dtype, rng):
    function, count = SUMS[name]
    a, b, c = (rng.normal(size=(12, 14)).astype(dtype) for _ in range(3))
    assert len(matrix_products(function, a, b, c)) == count
    assert largest(function, a, b, c) <= 12 * 12 * 14 - (name != "a matrix of matrices")
    plain, contracted = both_values(function, a, b, c)
    tight = 1e-5 if dtype == "f4" else 1e-13
    assert_same(contracted[0], plain[0], tight)
    assert_same(ft.jit(function)(a, b, c), function(a, b, c), tight)
    if dtype == "c16":
        return
    for special in (INF, -INF, NAN, 0.0):
        for x in (a, b, c):
            y = x.copy()
            y[rng.integers(0, 12), rng.integers(0, 3)] = special
            y[rng.integers(0, 12), rng.integers(0, 14)] = special
            values = [y if v is x else v for v in (a, b, c)]
            plain, contracted = both_values(function, *values)
            assert_same(contracted[0], plain[0], tight)


LEFT_ALONE = {
    "one of the operands has all axes": lambda a, b: np.sum(np.exp(a[:, None] * b) * b, 2),
    "a product of a sum": lambda a, b: np.sum((a[:, None] - b) * b, 2),
    "a square of a difference": lambda a, b: np.sum((a[:, None] - b) * (a[:, None] - b), 2),
    "a matrix and a vector": lambda a, b: np.sum(a * b[0], 1),
    "no sum": lambda a, b: a[:, None] * b,
    "a factor of the kept axes": lambda a, b: np.sum(a[:, None] * b[:, :1] * np.ones((12, 12, 14)), 2),
    "small": lambda a, b: np.sum(a[:4, None, :5] * b[:4, :5], 2),
    "thin": lambda a, b: np.sum(a[:, None, :2] * b[:, :2], 2),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_is_no_contraction_is_left_alone(name, rng):
    a, b = rng.normal(size=(12, 14)), rng.normal(size=(12, 14))
    assert "dot_general" not in names(LEFT_ALONE[name], a, b)
    assert_same(ft.jit(LEFT_ALONE[name])(a, b), LEFT_ALONE[name](a, b))


def test_nothing_cancels_that_did_not(rng):
    """Differences are not multiplied out: (a - b) w is exact where a w - b w has no digit left."""
    a = 1e8 + rng.integers(0, 9, (20, 30)).astype(float)
    b = 1e8 + rng.integers(0, 9, (20, 30)).astype(float)

    def function(a, b, w):
        return np.sum((a[:, None] - b) * w, 2)

    np.testing.assert_array_equal(ft.jit(function)(a, b, np.full(30, 3.0)), function(a, b, np.full(30, 3.0)))


def test_an_infinite_factor_is_not_taken_out_of_a_sum():
    """inf 1 - inf 0.5 is NaN, inf 0.5 is not."""
    a = np.tile([1.0, -0.5], (20, 10))
    s = np.array(INF)
    with np.errstate(all="ignore"):
        for function in (
            lambda s, a: np.sum(s * (a[:, None] * a * a), 2),
            lambda s, a: np.sum((s * np.ones((20, 20)))[:, :, None] * (a[:, None] * np.ones((20, 20))), 2),
            lambda s, a: np.sum((s * np.ones(20))[:, None, None] * (a[:, None] * np.eye(20)), 2),
            lambda s, a: np.sum((s * np.ones((20, 20)))[:, :, None] * (a[:, None] * np.eye(20)), 2),
        ):
            expected = function(s, a)
            assert np.isnan(expected).all()
            assert np.isnan(ft.jit(function)(s, a)).all()


@st.composite
def sums_of_products(draw):
    """A sum over some axes of a space, of terms that are products of arrays that have some of its axes."""
    ndim = draw(st.integers(2, 4))
    space = tuple(draw(st.lists(st.sampled_from([1, 2, 5, 9, 11]), min_size=ndim, max_size=ndim)))
    summed = tuple(sorted(draw(st.sets(st.integers(0, ndim - 1), min_size=1, max_size=ndim))))
    axes = st.sets(st.integers(0, ndim - 1)).map(lambda s: tuple(sorted(s)))
    terms = draw(st.lists(st.lists(axes, min_size=1, max_size=4), min_size=1, max_size=3))
    return space, summed, terms, draw(st.integers(0, 2**32 - 1)), draw(st.floats(0.0, 0.2))


@settings(max_examples=150)
@given(sums_of_products())
def test_sums_of_products_in_general(problem):
    space, summed, terms, seed, share = problem
    rng = np.random.default_rng(seed)
    eye = np.eye(9)
    arrays, kinds = [], []
    for term in terms:
        for axes in term:
            shape = tuple(space[a] for a in axes)
            kinds.append(rng.integers(0, 4))
            x = rng.integers(-3, 4, shape).astype(float)
            x[rng.random(shape) < share * rng.integers(0, 2)] = rng.choice([INF, NAN, -INF])
            arrays.append(x)

    def function(*arrays):
        values, total = iter(zip(arrays, kinds, strict=True)), None
        for k, term in enumerate(terms):
            product = None
            for axes in term:
                x, kind = next(values)
                if kind == 0 and x.shape == (9, 9):
                    x = eye
                x = x.reshape([n if a in axes else 1 for a, n in enumerate(space)])
                product = x if product is None else product * x
            product = -2.0 * product if k == 1 else product
            total = product if total is None else total + product
        return np.sum(np.broadcast_to(total, space), summed)

    plain, contracted = both_values(function, *arrays)
    np.testing.assert_array_equal(contracted[0], plain[0])


class Expressions:
    """Random expressions of a space with axes (a, b, k): products, sums, choices of repeated arrays, identities."""

    leaves = ("a", "b", "k", "ak", "bk", "ab", "I ak", "I bk", "2 I ak", "S bk", "")

    def __init__(self, draw, arrays):
        self.draw, self.arrays = draw, arrays

    def leaf(self):
        name = self.draw(st.sampled_from(self.leaves))
        axes = name.split()[-1] if name else ""
        x = self.arrays[name]
        return x.reshape([N if a in axes else 1 for a in "abk"]) * np.ones((1, 1, 1))

    def grow(self, depth):
        kind = self.draw(st.sampled_from(["leaf", "mul", "mul", "add", "sub", "neg", "where"])) if depth else "leaf"
        if kind == "leaf":
            return self.leaf()
        first = self.grow(depth - 1)
        if kind == "neg":
            return -first
        if kind == "where" and self.draw(st.booleans()):
            return np.where(self.mask(), first, 0.0)
        second = self.grow(depth - 1)
        if kind == "where":
            return np.where(self.mask(), first, second)
        return {"mul": np.multiply, "add": np.add, "sub": np.subtract}[kind](first, second)

    def mask(self):
        return self.arrays["k"].reshape(1, 1, N) > 0.0


N = 9


@settings(max_examples=150)
@given(st.data(), st.integers(0, 2**32 - 1), st.sampled_from([0, 0, 0.1]))
def test_expressions_with_identities_in_general(data, seed, share):
    rng = np.random.default_rng(seed)
    choices = []

    class Replay:
        """Draws once, and gives the same when the function runs again."""

        def __init__(self):
            self.place = 0

        def __call__(self, strategy):
            if self.place == len(choices):
                choices.append(data.draw(strategy))
            self.place += 1
            return choices[self.place - 1]

    names = [n for n in Expressions.leaves if " " not in n]
    values = {}
    for name in names:
        x = rng.integers(-3, 4, (N,) * len(name)).astype(float)
        x[rng.random(x.shape) < share] = rng.choice([INF, NAN, -INF])
        values[name] = x
    A = rng.integers(-3, 4, (N, N)).astype(float)
    ending = data.draw(st.sampled_from(["sum", "product", "both"]))

    def function(A, *arrays):
        known = dict(zip(names, arrays, strict=True))
        known |= {"I ak": np.eye(N), "I bk": np.eye(N), "2 I ak": 2 * np.eye(N), "S bk": np.roll(np.eye(N), 2, 1)}
        x = Expressions(Replay(), known).grow(3) * np.ones((N, N, N))
        if ending == "sum":
            return np.sum(x, 2)
        x = x @ A
        return x if ending == "product" else np.sum(x * A[:, None, :], 2)

    plain, contracted = both_values(function, A, *values.values())
    np.testing.assert_array_equal(contracted[0], plain[0])


# Derivatives in every nesting


A = np.random.default_rng(1).normal(size=(30, 30)) / 5
FUNCTIONS = {
    "tanh layer": (lambda x: np.sum(np.tanh(A @ x) ** 2), 2),
    "elementwise first": (lambda x: np.sum((A @ np.tanh(x)) ** 2), 1),
    "two elementwise": (lambda x: np.sum((A @ (np.tanh(x) * np.sin(x))) ** 2), 1),
    "where": (lambda x: np.sum((A @ np.where(x > 0, np.sin(x), x**2)) ** 2), 1),
    "relu": (lambda x: np.sum((A @ np.maximum(x, 0.0)) ** 2), 1),
    "log of a sum": (lambda x: np.log(np.sum(np.exp(A @ x))), 1),
    "elementwise": (lambda x: np.sum(np.exp(x) * x), 0),
    "neighbours": (lambda x: np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2), 0),
    "quadratic": (lambda x: x @ A @ x, 0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("nesting", NESTINGS)
def test_hessians_take_few_matrix_products(name, nesting, rng):
    function, count = FUNCTIONS[name]
    hessian, x = NESTINGS[nesting](function), rng.normal(size=30)
    expected = ft.jacfwd(ft.jacrev(function))(x)
    np.testing.assert_allclose(ft.jit(hessian)(x), expected, rtol=1e-10, atol=1e-12)
    sizes = matrix_products(hessian, x)
    if nesting == "forward over forward":
        count += 1
    assert len(sizes) <= count and max(sizes, default=0) <= 30**3
    if nesting != "forward over forward":
        assert largest(hessian, x) <= 30 * 30


@pytest.mark.parametrize("nesting", NESTINGS)
def test_hessians_of_several_arguments(nesting, rng):
    def function(p):
        x, y = p
        return np.sum(np.tanh(A @ x) * y) + np.sum(np.sin(x[:7]) * y[3:10])

    p = (rng.normal(size=30), rng.normal(size=30))
    got, expected = ft.jit(NESTINGS[nesting](function))(p), NESTINGS[nesting](function)(p)
    for row, wanted in zip(got, expected, strict=True):
        for g, w in zip(row, wanted, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-12)


def test_jacobians_take_no_product_with_the_basis(rng):
    B, x = rng.normal(size=(20, 30)) / 8, rng.normal(size=30)

    def layer(x, B):
        return np.tanh(B @ x)

    for derivative in (ft.jacfwd, ft.jacrev):
        assert not matrix_products(derivative(layer), x, B)
        np.testing.assert_allclose(ft.jit(derivative(layer))(x, B), derivative(layer)(x, B), rtol=1e-12)


def test_infinite_coefficients_spoil_the_same_elements(rng):
    """Compiled and not, a Jacobian has its NaNs where 0 of the basis met an infinity."""
    B, x = rng.normal(size=(6, 6)), rng.normal(size=6)
    for places in ([(1, 2)], [(1, 2), (1, 4)], [(0, 0), (3, 1)]):
        C = B.copy()
        for place in places:
            C[place] = INF
        for derivative in (ft.jacfwd, ft.jacrev):
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                jacobian = derivative(lambda x, C: C @ x)
                np.testing.assert_array_equal(ft.jit(jacobian)(x, C), jacobian(x, C))
                assert np.isnan(jacobian(x, C)).any()


# Constants


def test_what_follows_from_constants_is_a_constant(rng):
    B, C = rng.normal(size=(20, 30)), rng.normal(size=(15, 20))
    for derivative in (ft.jacfwd, ft.jacrev):
        jacobian = ft.jit(derivative(lambda x: C @ (B @ x)))
        assert not jacobian.trace(np.ones(30)).eqns
        np.testing.assert_allclose(jacobian(np.ones(30)), C @ B, rtol=1e-13)
    stacked = ft.jit(ft.jacfwd(lambda x: np.concatenate([B @ x, np.cumsum(x), x[::-1]])))
    assert not stacked.trace(np.ones(30)).eqns
    expected = np.concatenate([B, np.tri(30), np.eye(30)[::-1]])
    np.testing.assert_array_equal(stacked(np.ones(30)), expected)


def test_large_products_of_constants_are_not_made():
    """Of the directions of two derivatives there are n n n products."""
    closed = ft.jit(ft.jacfwd(ft.jacfwd(lambda x: np.sum(np.exp(x) * x)))).trace(np.ones(70))
    assert max(c.size for c in closed.consts) <= 70 * 70
    closed = ft.jit(ft.jacrev(ft.jacfwd(lambda x: np.sum(np.tanh(x) ** 2)))).trace(np.ones(70))
    assert max(c.size for c in closed.consts) <= 70 * 70


def test_repeated_constants_are_kept_once(rng):
    row, x = rng.normal(size=50), ShapedArray((40, 50), np.dtype(float))

    def function(x):
        return [mul(mul(x, broadcast(row, shape=x.shape, axes=(1,))), broadcast(row[:40], shape=x.shape, axes=(0,)))]

    closed = with_known_constants(stage(function, [x]))
    assert {c.size for c in closed.consts} == {50, 40}
    (got,) = python_function(closed.jaxpr)(*closed.consts, np.full((40, 50), 2.0))
    np.testing.assert_array_equal(got, 2 * row * row[:40, None])


def test_constants_of_outer_derivatives_are_variables(rng):
    """What an enclosing transformation differentiates is no constant, though the function closes over it."""
    B = rng.normal(size=(5, 5))

    def outer(s):
        return np.sum(ft.jit(ft.jacfwd(lambda x: np.tanh(s * (B @ x))))(np.ones(5)))

    def plain(s):
        return np.sum(ft.jacfwd(lambda x: np.tanh(s * (B @ x)))(np.ones(5)))

    np.testing.assert_allclose(ft.grad(outer)(0.3), ft.grad(plain)(0.3), rtol=1e-12)
    np.testing.assert_allclose(ft.vmap(outer)(np.array([0.3, 0.4])), [plain(0.3), plain(0.4)], rtol=1e-12)
    np.testing.assert_allclose(ft.jit(ft.grad(outer))(0.3), ft.grad(plain)(0.3), rtol=1e-12)


def test_empty_operands():
    for shape in ((0, 6), (0, 3, 6), (2, 0, 6)):
        x = np.ones(shape)
        for E in (np.eye(6), np.roll(np.eye(6), 1, 0)):
            assert ft.jit(lambda x, E=E: x @ E)(x).shape == shape
    assert ft.jit(lambda a, b: np.sum(a[:, None] * b, 2))(np.ones((0, 30)), np.ones((40, 30))).shape == (0, 40)
    np.testing.assert_array_equal(ft.jit(lambda a, b: np.sum(a[:, None] * b, 2))(np.ones((30, 0)), np.ones((40, 0))), 0)


def test_a_multiple_of_the_identity_on_a_matrix_is_left_alone(rng):
    """What Gaussian processes add to a kernel's matrix."""
    K, y = rng.normal(size=(30, 30)), rng.normal(size=30)

    def function(K, y, s):
        return np.sum((K + s * np.eye(30)) @ y)

    assert "select" not in names(function, K, y, np.array(0.1))
    np.testing.assert_allclose(ft.jit(function)(K, y, 0.1), function(K, y, 0.1), rtol=1e-12)
