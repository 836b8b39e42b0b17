"""Sparsity patterns: against dense derivatives for every primitive and for random programs, and in closed form."""

import functools
import pickle
from xml.etree import ElementTree

import matplotlib
import matplotlib.pyplot
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import functrace
import functrace.numpy as fnp
from functrace import lax
from functrace.core.primitive import primitives
from functrace.core.types import aval_of, is_inexact
from functrace.errors import IndexingError, NonDifferentiableInputError, NonScalarOutputError, ShapeError
from functrace.interpreters.sparsity import hessian_structure, jacobian_structure
from functrace.interpreters.staging import stage
from functrace.sparse import Pattern, hessian_pattern, jacobian_pattern
from functrace.transforms import jacfwd
from tests.cases import all_cases

CASES = [case for case in all_cases() if case.active() and any(is_inexact(o.dtype) for o in case.evaluate())]


def dense(tables, size):
    """The outputs' structures as one boolean matrix."""
    blocks = [np.zeros((0, size), bool)]
    for indptr, indices in tables:
        block = np.zeros((len(indptr) - 1, size), bool)
        block[np.repeat(np.arange(len(block)), np.diff(indptr)), indices] = True
        blocks.append(block)
    return np.concatenate(blocks)


def square(places, size):
    matrix = np.zeros((size, size), bool)
    matrix[places] = True
    return matrix


def flat_function(case):
    """The case as a function of one flat vector of its real active operands' elements, and that vector.

    Complex operands move along a real direction, complex outputs give real and imaginary parts.
    """
    positions = case.active()
    values = [np.asarray(case.operands[i]) for i in positions]
    sizes = np.cumsum([0, *(v.size for v in values)])
    function = case.function(positions, floats_only=True)

    def f(x):
        parts = [fnp.reshape(x[a:b], v.shape) for a, b, v in zip(sizes, sizes[1:], values, strict=False)]
        moved = [
            fnp.asarray(p * (1.0 + 0.7j) + 1j * v.imag - 0.7j * v.real).astype(v.dtype)
            if v.dtype.kind == "c"
            else p.astype(v.dtype)
            for p, v in zip(parts, values, strict=True)
        ]
        outs = [fnp.ravel(o) for o in function(*moved)]
        outs = [part for o in outs for part in ((o.real, o.imag) if o.dtype.kind == "c" else (o,))]
        return fnp.concatenate([o.astype(float) for o in outs]) if outs else fnp.zeros(0)

    return f, np.concatenate([v.real.reshape(-1) for v in values]).astype(float)


def structures(case):
    """Jacobian (outputs by elements of active operands) and Hessian structure, dense."""
    positions = case.active()
    function = case.function(positions, floats_only=True)
    closed = stage(lambda *xs: list(function(*xs)), [aval_of(case.operands[i]) for i in positions])
    wrt = [True] * len(positions)
    size = sum(np.size(case.operands[i]) for i in positions)
    jacobian = []
    for table, out in zip(jacobian_structure(closed, wrt), closed.out_avals, strict=True):
        jacobian += [table, table] if out.dtype.kind == "c" else [table]
    return dense(jacobian, size), square(hessian_structure(closed, wrt), size)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pattern_covers_the_derivatives(case):
    f, x = flat_function(case)
    jacobian, hessian = structures(case)
    with np.errstate(all="ignore"):
        found = jacfwd(f)(x)
    assert found.shape == jacobian.shape
    assert not (found != 0)[~jacobian].any()
    assert np.array_equal(hessian, hessian.T)
    if case.order < 2 or x.size > 40:
        return
    weights = np.random.default_rng(3).normal(size=found.shape[0])
    with np.errstate(all="ignore"):
        second = jacfwd(jacfwd(lambda x: fnp.sum(weights * f(x))))(x)
    assert not (second != 0)[~hessian].any()


@pytest.mark.parametrize("primitive", [p for p in primitives() if not p.nondifferentiable], ids=str)
def test_primitive_has_a_rule(primitive):
    assert primitive.sparsity is not None or primitive.name in ("pure_callback", "debug_callback")


# exactness

#: Primitives whose derivatives have zeros that depend on values: extrema and branches taken, signs.
_BY_VALUE = {"select", "maximum", "minimum", "fmax", "fmin", "convert", "remainder", "fmod", "copysign"}


def has_exact_structure(case):
    real = all(np.asarray(x).dtype.kind != "c" for x in (*case.operands, *case.evaluate()))
    generic = not case.name and case.primitive.name not in _BY_VALUE and all(np.size(x) for x in case.evaluate())
    return case.primitive.family in ("elementwise", "linear", "bilinear") and real and generic


@pytest.mark.parametrize("case", [c for c in CASES if has_exact_structure(c)], ids=str)
def test_jacobian_pattern_is_exact(case):
    f, x = flat_function(case)
    with np.errstate(all="ignore"):
        assert np.array_equal(jacfwd(f)(x) != 0, structures(case)[0])


_I = np.array([0, 2, 2, 5])
_D = np.diff(np.eye(6), axis=0)
_MASK = np.array([1, 0, 1, 0, 1, 1], bool)


def _assigned(x):
    y = fnp.zeros(8)
    y[1:7] = x * x
    y[_I] += x[:4]
    return y


@functrace.custom_jvp
def straight_through(a, b):
    return fnp.round(a) * b


@straight_through.defjvp
def _(primals, tangents):
    (a, b), (a_dot, b_dot) = primals, tangents
    return straight_through(a, b), a_dot * b + b_dot * a


PROGRAMS = {
    "constant matrix": lambda x: _D @ x,
    "squares of differences": lambda x: (_D @ x) ** 2,
    "two constant matrices": lambda x: x @ _D.T @ np.diag([1.0, 0, 2, 0, 0]),
    "gather": lambda x: x[_I] * x[_I[::-1]],
    "concatenate": lambda x: fnp.concatenate([x[1:] * x[:-1], fnp.sin(x[:1])]),
    "pad and stack": lambda x: fnp.stack([fnp.pad(x[:2] ** 2, 1), x[2:]]).T,
    "outer": lambda x: fnp.outer(x[:2], x[2:4]),
    "matmul": lambda x: x.reshape(2, 3) @ x.reshape(3, 2),
    "trace": lambda x: fnp.trace(x[:4].reshape(2, 2) @ x[2:].reshape(2, 2)),
    "einsum": lambda x: fnp.einsum("ij,ji->i", x.reshape(2, 3), x.reshape(3, 2)),
    "where": lambda x: fnp.where(_MASK, x**2, x[::-1]),
    "cumsum": lambda x: fnp.cumsum(x[:3]) * x[3:],
    "prod": lambda x: fnp.prod(x[:4]),
    "cumprod": lambda x: fnp.cumprod(x[:4]),
    "scan": lambda x: lax.scan(lambda c, u: (fnp.sin(c) + u, c * u), x[0], x[1:])[1],
    "linear scan": lambda x: lax.scan(lambda c, u: (c + u, c * 2), x[0], x[1:])[1],
    "shift register": lambda x: lax.scan(lambda c, u: (u, c * u), x[0], x[1:])[1],
    "reverse scan": lambda x: lax.scan(lambda c, u: (c * 2 + u, c * u), x[0], x[1:], reverse=True)[1],
    "map": lambda x: lax.map(lambda u: fnp.sin(u) * u, x),
    "fori": lambda x: lax.fori_loop(0, 3, lambda i, c: c + fnp.take(x, i) * fnp.take(x, i + 1), 0.0),
    "sum": lambda x: fnp.sum(x) ** 2 + x,
    "powers": lambda x: x**1 + x**0 + x ** np.array([0.0, 1.0, 2.0, 3.0, 4.0, 1.0]),
    "division": lambda x: np.array([1.0, 0.0, 2.0]) / x[:3] + x[3:] / 2.0,
    "convolve": lambda x: fnp.convolve(x[:3], x[3:]),
    "convolve with zeros": lambda x: fnp.convolve(x**2, np.array([1.0, 0.0, 2.0])),
    "solve": lambda x: fnp.linalg.solve(np.eye(2) * 30 + x[:4].reshape(2, 2), x[4:]),
    "assignment": _assigned,
    "scatter": lambda x: fnp.at(fnp.zeros(4))[np.array([0, 1, 1, 3])].add(x[:4] ** 2),
    "custom rule": lambda x: straight_through(x[:3], x[3:]),
    "custom rule in vmap": lambda x: functrace.vmap(straight_through)(x[:3], x[3:]),
    "checkpoint": functrace.checkpoint(lambda x: x[1:] * x[:-1]),
    "jit": functrace.jit(lambda x: x[1:] * x[:-1]),
    "known branch": lambda x: lax.cond(np.bool_(True), lambda y: y[1:] ** 2, lambda y: y[:-1], x),
    "gradient": lambda x: functrace.grad(lambda x: fnp.sum(x[1:] ** 2 * x[:-1] ** 3))(x),
    "jvp": lambda x: functrace.jvp(lambda x: x**3, (x,), (x[::-1],))[1],
    "dead element": lambda x: (x * x)[1:3] + fnp.sin(x)[4:],
    "linear after nonlinear": lambda x: fnp.sum(fnp.sin(x[:3]).reshape(3, 1) * np.eye(3), axis=1),
    "stopped": lambda x: functrace.stop_gradient(x[:3]) * x[3:],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_patterns_are_exact(name):
    f = PROGRAMS[name]
    rng = np.random.default_rng(5)
    x = rng.normal(size=6)
    weights = rng.normal(size=np.shape(f(x)))

    def weighted(x):
        return fnp.sum(weights * f(x))

    jacobian = np.zeros((weights.size, 6), bool)
    hessian = np.zeros((6, 6), bool)
    for _ in range(3):
        jacobian |= np.reshape(jacfwd(f)(x) != 0, jacobian.shape)
        hessian |= jacfwd(functrace.grad(weighted))(x) != 0
        x = rng.normal(size=6)
    assert np.array_equal(jacobian_pattern(f)(x).toarray(), jacobian)
    assert np.array_equal(hessian_pattern(weighted)(x).toarray(), hessian)


def test_first_derivatives_of_values_not_known_are_covered():
    def f(x, index):
        branch = lax.cond(x[0] > 0, lambda y: y[1:] ** 2, lambda y: y[:-1], x)
        loop = lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * c[1][::-1]), (0, x))[1]
        return fnp.concatenate([branch, loop, fnp.sort(x[:3]), fnp.take(x, index)[None], fnp.max(x[2:])[None]])

    pattern = jacobian_pattern(f)(np.ones(6), 2).toarray()
    rng = np.random.default_rng(0)
    for index in range(6):
        x = rng.normal(size=6)
        assert not (jacfwd(f)(x, index) != 0)[~pattern].any()
    assert pattern[:5].sum() == 10 and pattern[-2].all() and pattern[11:14].sum() == 9 and pattern[-1].sum() == 4


# closed forms


def rosenbrock(x):
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


@pytest.mark.parametrize("n", [2, 3, 50, 20_000])
def test_chained_rosenbrock_is_tridiagonal(n):
    pattern = hessian_pattern(rosenbrock)(np.ones(n))
    assert pattern.nnz == 3 * n - 2
    assert np.abs(pattern.rows - pattern.cols).max() == 1
    assert pattern.lower().nnz == 2 * n - 1
    assert jacobian_pattern(lambda x: x[1:] - x[:-1] ** 2)(np.ones(n)).nnz == 2 * (n - 1)


def test_bundle_adjustment_is_an_arrow():
    points, cameras = 40, 3
    camera = np.arange(2 * points) % cameras
    point = np.repeat(np.arange(points), 2)

    def f(z):
        c, p = z[: 2 * cameras].reshape(cameras, 2)[camera], z[2 * cameras :].reshape(points, 2)[point]
        return np.sum(np.sin(c[:, 0] * p[:, 0]) * np.exp(c[:, 1] * p[:, 1]))

    n = 2 * (cameras + points)
    expected = np.zeros((n, n), bool)
    for c, p in zip(camera, point, strict=True):
        both = [2 * c, 2 * c + 1, 2 * (cameras + p), 2 * (cameras + p) + 1]
        expected[np.ix_(both, both)] = True
    assert np.array_equal(hessian_pattern(f)(np.ones(n)).toarray(), expected)


def test_a_shared_row_is_not_repeated():
    n = 200_000
    pattern = hessian_pattern(lambda x: np.sum(np.sin(x) - np.mean(x)))(np.ones(n))
    assert np.array_equal(pattern.rows, np.arange(n)) and np.array_equal(pattern.cols, np.arange(n))
    total = jacobian_pattern(lambda x: np.sum(x) + np.sum(x[: n // 2] * np.max(x)))(np.ones(n))
    assert total.nnz == n


def test_long_loops_are_covered_without_following_their_steps():
    def f(x):
        return lax.scan(lambda c, u: (0.5 * c + u, c * u), x[:2], x[2:].reshape(-1, 2))[1][-1]

    n = 6002
    pattern = jacobian_pattern(f)(np.ones(n))
    assert pattern.shape == (2, n)
    assert pattern.nnz >= n
    followed = jacobian_pattern(lambda x: lax.scan(lambda c, u: (0.5 * c + u, c * u), x[:2], x[2:].reshape(-1, 2))[1])
    small = followed(np.ones(8)).toarray()
    assert small.sum() == 2 * (2 + 3 + 4)


SCANS = [case for case in CASES if case.primitive.name == "scan"]


@pytest.mark.parametrize("case", SCANS, ids=str)
def test_the_cover_of_a_loop_covers_its_steps(case, monkeypatch):
    followed = structures(case)
    monkeypatch.setattr(functrace.control._sparsity, "_FOLLOWED", -1)
    for exact, cover in zip(followed, structures(case), strict=True):
        assert not exact[~cover].any()


def test_the_cover_of_a_loop_knows_how_far_its_steps_reach(monkeypatch):
    def smooth(u):
        return lax.fori_loop(0, 4, lambda i, u: fnp.concatenate([u[:1], u[1:-1] + u[2:] * u[:-2], u[-1:]]), u)

    exact = jacobian_pattern(smooth)(np.ones(30)), hessian_pattern(lambda u: fnp.sum(smooth(u)))(np.ones(30))
    monkeypatch.setattr(functrace.control._sparsity, "_FOLLOWED", -1)
    cover = jacobian_pattern(smooth)(np.ones(30)), hessian_pattern(lambda u: fnp.sum(smooth(u)))(np.ones(30))
    assert cover[0].covers(exact[0]) and cover[1].covers(exact[1])
    assert exact[0].nnz < cover[0].nnz < 0.7 * 30 * 30


# random programs


VECTOR = 5


@st.composite
def programs_of_vectors(draw):
    """A function of 5 numbers made of slices, gathers, sums, products, matrices, loops; and its text."""
    steps = []
    lengths = [VECTOR]
    integers = st.integers(0, 2**31 - 1)
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(sorted(_STEPS)))
        a, b = (draw(st.integers(0, len(lengths) - 1)) for _ in range(2))
        steps.append((kind, a, b, draw(integers)))
        lengths.append(VECTOR)
    return steps


def _recurrence(x, y, rng):
    carry, out = lax.scan(lambda c, u: (c * u[0] + u[1], fnp.sin(c)), x[0], (x, y))
    return out + carry * (rng.random(VECTOR) > 0.5)


def _looped(x, y, rng):
    return lax.fori_loop(0, 3, lambda i, c: fnp.at(c)[i].set(fnp.take(c, i + 1) * fnp.take(y, i)), x)


_STEPS = {
    "add": lambda x, y, rng: x + y,
    "mul": lambda x, y, rng: x * y,
    "div": lambda x, y, rng: x / (2.0 + y * y),
    "sin": lambda x, y, rng: fnp.sin(x),
    "scale": lambda x, y, rng: x * rng.integers(0, 2, VECTOR),
    "reverse": lambda x, y, rng: x[::-1],
    "shift": lambda x, y, rng: fnp.concatenate([y[:2], x[:-2]]),
    "gather": lambda x, y, rng: x[rng.integers(0, VECTOR, VECTOR)],
    "scatter": lambda x, y, rng: fnp.at(x)[rng.integers(0, VECTOR, 3)].add(y[:3]),
    "set": lambda x, y, rng: fnp.at(x)[rng.integers(0, VECTOR, 3)].set(y[:3] ** 2),
    "multiply": lambda x, y, rng: fnp.at(x)[rng.integers(0, VECTOR, 3)].multiply(y[:3]),
    "where": lambda x, y, rng: fnp.where(rng.random(VECTOR) > 0.5, x, y),
    "choose": lambda x, y, rng: fnp.where(x > y, x * y, y),
    "matrix": lambda x, y, rng: (rng.integers(0, 2, (VECTOR, VECTOR)) * 1.5) @ x,
    "product": lambda x, y, rng: fnp.outer(x, y) @ (rng.integers(0, 2, VECTOR) * 1.0),
    "sum": lambda x, y, rng: fnp.sum(x[rng.integers(0, VECTOR, 2)]) * y,
    "cumsum": lambda x, y, rng: fnp.cumsum(x),
    "prod": lambda x, y, rng: fnp.prod(x[:2]) + y,
    "scan": _recurrence,
    "loop": _looped,
    "map": lambda x, y, rng: lax.map(lambda u: u[0] * fnp.exp(0.1 * u[1]), (x, y)),
    "jit": lambda x, y, rng: functrace.jit(lambda x, y: x[::-1] * y)(x, y),
}


def run_steps(steps, x):
    values = [x]
    for kind, a, b, seed in steps:
        values.append(_STEPS[kind](values[a], values[b], np.random.default_rng(seed)))
    return values[-1]


@given(programs_of_vectors())
@settings(max_examples=60, deadline=None)
def test_random_programs_are_covered(steps):
    x = np.random.default_rng(1).normal(size=VECTOR)
    weights = np.array([1.0, -0.7, 0.0, 0.4, 2.0])
    jacobian = jacobian_pattern(functools.partial(run_steps, steps))(x).toarray()
    hessian = hessian_pattern(lambda x: fnp.sum(weights * run_steps(steps, x)))(x).toarray()
    with np.errstate(all="ignore"):
        first = jacfwd(lambda x: run_steps(steps, x))(x)
        second = jacfwd(jacfwd(lambda x: fnp.sum(weights * run_steps(steps, x))))(x)
    assert not (first != 0)[~jacobian].any()
    assert not (second != 0)[~hessian].any()


# the questions a pattern answers


def test_why_names_the_line():
    def f(x):
        a = x[0] * x[1]
        b = fnp.sin(x[2])
        return a + b

    pattern = hessian_pattern(f)(np.ones(3))
    (line,) = pattern.why(0, 1)
    assert "a = x[0] * x[1]" in line and line.endswith("[mul]") and "test_sparsity_patterns.py" in line
    assert "b = fnp.sin(x[2])" in pattern.why(2, 2)[0]
    assert pattern.why(0, 2) == ()
    lines = jacobian_pattern(f)(np.ones(3)).why(0, 2)
    assert any("b = fnp.sin(x[2])" in line for line in lines) and not any("x[0]" in line for line in lines)
    with pytest.raises(IndexingError, match="outside"):
        pattern.why(3, 0)


def test_trees_and_several_arguments():
    def f(p, y, flag):
        return {"a": p["u"] * y, "b": fnp.sum(p["v"]) if flag else 0.0}

    args = ({"u": np.ones(2), "v": np.ones((1, 2))}, np.ones(2), True)
    assert jacobian_pattern(f, static_argnums=2)(*args) == Pattern((3, 4), [0, 1, 2, 2], [0, 1, 2, 3])
    both = jacobian_pattern(f, argnums=(0, 1), static_argnums=2)(*args)
    assert both == Pattern((3, 6), [0, 0, 1, 1, 2, 2], [0, 4, 1, 5, 2, 3])
    assert hessian_pattern(lambda x, y: fnp.sum(x * y), argnums=1)(np.ones(2), np.ones(2)).nnz == 0


def test_errors_say_what_is_wrong():
    with pytest.raises(NonDifferentiableInputError, match="floating point"):
        jacobian_pattern(lambda x: x * 2)(np.arange(3))
    with pytest.raises(NonScalarOutputError, match="scalar"):
        hessian_pattern(lambda x: x)(np.ones(3))
    with pytest.raises(ShapeError, match="outside"):
        Pattern((2, 2), [2], [0])
    with pytest.raises(ShapeError, match="row and a column"):
        Pattern((2, 2), [1, 0], [0])
    with pytest.raises(ShapeError, match="one value"):
        Pattern((2, 2), [1], [0]).to_scipy([1.0, 2.0])
    with pytest.raises(AttributeError, match="immutable"):
        Pattern((2, 2), [1], [0]).shape = (3, 3)


# the class


@given(st.integers(0, 2**31 - 1), st.integers(0, 7), st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_pattern_is_a_set_of_places(seed, height, width):
    rng = np.random.default_rng(seed)
    dense, other = (rng.random((height, width)) < 0.4 for _ in range(2))
    rows, cols = np.nonzero(dense)
    order = rng.permutation(len(rows))
    twice = np.concatenate([order, order[:2]])
    pattern = Pattern((height, width), rows[twice], cols[twice])
    assert np.array_equal(pattern.toarray(), dense) and pattern.nnz == dense.sum() == len(pattern)
    assert np.array_equal(pattern.T.toarray(), dense.T) and pattern == pattern.T.T
    second = Pattern(dense.shape, *np.nonzero(other))
    assert np.array_equal((pattern | second).toarray(), dense | other)
    assert (pattern | second).covers(pattern)
    assert (hash(pattern) == hash(second)) >= (pattern == second)
    assert np.array_equal(pattern.lower().toarray(), np.tril(dense))
    values = rng.normal(size=pattern.nnz)
    for format in ("csr", "csc", "coo"):
        array = pattern.to_scipy(values, format)
        assert array.format == format and array.nnz == pattern.nnz
        assert np.array_equal(array.toarray()[rows, cols], values)
    assert all((place in pattern) == dense[place] for place in np.ndindex(dense.shape))
    assert pickle.loads(pickle.dumps(pattern)) == pattern


def test_pictures():
    pattern = jacobian_pattern(lambda x: x[1:] - x[:-1])(np.ones(50))
    text = str(pattern)
    assert text.startswith("49x50, 98 nonzeros\n")
    assert all(0x2800 <= ord(c) < 0x2900 for c in text.partition("\n")[2].replace("\n", ""))
    dots = str(Pattern((4, 2), [0, 1, 2, 3, 0], [0, 0, 0, 0, 1])).splitlines()[1]
    assert dots == chr(0x2800 + 0x01 + 0x02 + 0x04 + 0x40 + 0x08)
    image = ElementTree.fromstring(pattern.svg())
    assert image.tag.endswith("svg") and len(image.findall(".//{*}g/{*}rect")) == 98
    matplotlib.use("Agg")
    axes = pattern.spy()
    assert len(axes.lines[0].get_xdata()) == 98
    matplotlib.pyplot.close(axes.figure)
    assert str(Pattern((0, 3), [], [])) == "0x3, 0 nonzeros"


def test_a_primitive_without_rule_is_dense(monkeypatch):
    monkeypatch.setattr(functrace.primitives.elementwise.sin, "sparsity", None)
    assert jacobian_pattern(np.sin)(np.ones(4)).nnz == 16
    pattern = hessian_pattern(lambda x: fnp.sum(fnp.sin(x[:3])) + x[3] * x[4])(np.ones(5))
    assert pattern.nnz == 9 + 2


def test_effects_do_not_happen_while_patterns_are_found():
    seen = []

    def f(x):
        functrace.debug.callback(seen.append, 1.0)
        functrace.jit(lambda: functrace.debug.callback(seen.append, 2.0))()
        return x * 2.0

    assert jacobian_pattern(f)(np.ones(2)).nnz == 2 and not seen


def test_patterns_inside_of_transformations():
    def f(x):
        scale = x * 2.0
        pattern = jacobian_pattern(lambda y: y[1:] * scale[1:])(np.ones(3))
        assert pattern.nnz == 2
        return fnp.sum(scale)

    assert np.array_equal(functrace.grad(f)(np.ones(3)), [2.0, 2.0, 2.0])
