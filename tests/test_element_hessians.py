"""Element Hessians and Jacobians against dense derivatives and closed forms."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import functrace
import functrace.numpy as fnp
from functrace.core.ir import check_jaxpr
from functrace.interpreters.sparsity import hessian_structure
from functrace.sparse.elements import element_hessian, element_jacobian


def program(f, *args):
    return functrace.make_jaxpr(f)(*args)


def dense(hessian, values):
    """A full symmetric matrix from the lower triangle."""
    full = np.zeros(hessian.shape)
    full[hessian.rows, hessian.cols] = values
    return full + np.tril(full, -1).T


def check_hessian(f, x, *rest, exact_pattern=True, rtol=1e-9, compiled=False, traced=True):
    """Compare with the dense Hessian; the structure is sorted, lower, and (if wanted) free of zeros at this point."""
    hessian = element_hessian(program(f, x, *rest))
    assert hessian is not None
    order = hessian.cols * x.size + hessian.rows
    assert (np.diff(order) > 0).all()
    assert (hessian.rows >= hessian.cols).all()
    expected = np.asarray(functrace.hessian(f)(x, *rest)).reshape(x.size, x.size)
    scale = max(np.abs(expected).max(initial=0), 1.0)
    plain = hessian.values(x, *rest)
    np.testing.assert_allclose(dense(hessian, plain), expected, rtol=0, atol=rtol * scale)
    if traced:
        under_jit = functrace.jit(lambda *args: hessian.values(*args))(x, *rest)
        np.testing.assert_allclose(under_jit, plain, rtol=0, atol=rtol * scale)
    if exact_pattern:
        assert hessian.nnz == np.count_nonzero(np.tril(expected))
    for evaluation in (hessian._evaluation, hessian.careful()):
        check_jaxpr(evaluation.closed.jaxpr)
        np.testing.assert_allclose(evaluation((x, *rest))[0], plain, rtol=0, atol=rtol * scale)
        if compiled and evaluation is hessian._evaluation:
            evaluation.compile()
            np.testing.assert_allclose(evaluation((x, *rest))[0], plain, rtol=0, atol=rtol * scale)
    return hessian


def rosenbrock(x):
    return np.sum(100 * (x[:-1] ** 2 - x[1:]) ** 2 + (x[:-1] - 1) ** 2)


def trigonometric_exponential(x):
    a, b, c = x[:-2], x[1:-1], x[2:]
    return 3 * b**3 + 2 * c - 5 + np.sin(b - c) * np.sin(b + c) + 4 * b - a * np.exp(a - b) - 3


def van_der_pol(z, steps, h=0.05):
    """Defects of Runge-Kutta steps between states (steps + 1, 2) with controls (steps)."""
    states, u = z[: 2 * (steps + 1)].reshape(steps + 1, 2), z[2 * (steps + 1) :]

    def slope(a, b):
        return (1 - b * b) * a - b + u, a

    a, b = states[:-1, 0], states[:-1, 1]
    k1 = slope(a, b)
    k2 = slope(a + h / 2 * k1[0], b + h / 2 * k1[1])
    k3 = slope(a + h / 2 * k2[0], b + h / 2 * k2[1])
    k4 = slope(a + h * k3[0], b + h * k3[1])
    after = [s + h / 6 * (p + 2 * q + 2 * r + w) for s, p, q, r, w in zip((a, b), k1, k2, k3, k4, strict=True)]
    return np.concatenate([states[1:, 0] - after[0], states[1:, 1] - after[1]])


def bundle(x, cameras, camera, point, seen):
    """Squared reprojection errors; a camera is a rotation vector, a translation and a focal length."""
    views, points = x[: 7 * cameras].reshape(cameras, 7)[camera], x[7 * cameras :].reshape(-1, 3)[point]
    w, t, focus = views[:, :3], views[:, 3:6], views[:, 6]
    angle = np.sqrt(np.sum(w * w, axis=1))
    turned = np.cross(w, points)
    twice = np.cross(w, turned)
    s, c = np.sin(angle) / angle, (1 - np.cos(angle)) / angle**2
    q = points + s[:, None] * turned + c[:, None] * twice + t
    projected = focus[:, None] * q[:, :2] / q[:, 2:]
    return 0.5 * np.sum((projected - seen) ** 2)


def bundle_problem(points, seed=0):
    rng = np.random.default_rng(seed)
    camera = np.stack([np.arange(points) % 4, (np.arange(points) + 1) % 4], 1).ravel()
    point = np.repeat(np.arange(points), 2)
    cameras = np.hstack([rng.normal(size=(4, 5)) * 0.3, 5 + rng.random((4, 2))])
    x = np.concatenate([cameras.ravel(), rng.normal(size=3 * points)])
    seen = rng.normal(size=(2 * points, 2))
    return (lambda x, sigma: sigma * bundle(x, 4, camera, point, seen)), x


# problems of the literature


def test_chained_rosenbrock_in_closed_form():
    x = np.random.default_rng(1).normal(size=12)
    hessian = check_hessian(rosenbrock, x)
    matrix = dense(hessian, hessian.values(x))
    np.testing.assert_allclose(np.diag(matrix, -1), -400 * x[:-1])
    diagonal = np.zeros(12)
    diagonal[:-1] += 1200 * x[:-1] ** 2 - 400 * x[1:] + 2
    diagonal[1:] += 200
    np.testing.assert_allclose(np.diag(matrix), diagonal)
    assert hessian.nnz == 23


@pytest.mark.parametrize("n", [3, 4, 10, 41])
def test_banded_lagrangian(n):
    rng = np.random.default_rng(n)

    def lagrangian(x, lam, sigma):
        return sigma * rosenbrock(x) + lam @ trigonometric_exponential(x)

    check_hessian(lagrangian, rng.normal(size=n), rng.normal(size=n - 2), 0.7, exact_pattern=False, compiled=n == 41)


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
def test_van_der_pol_multiple_shooting(steps):
    rng = np.random.default_rng(steps)

    def lagrangian(z, lam, sigma):
        return sigma * np.sum(z**2) + lam @ van_der_pol(z, steps)

    z = rng.normal(size=2 * (steps + 1) + steps)
    hessian = check_hessian(lagrangian, z, rng.normal(size=2 * steps), 1.3, compiled=steps == 7)
    assert {f.elements for f in hessian.families} >= {steps}


def test_bundle_adjustment():
    f, x = bundle_problem(10)
    hessian = check_hessian(f, x, 1.0, exact_pattern=False, compiled=True, traced=False)
    expected = np.asarray(functrace.hessian(f)(x, 1.0))
    assert hessian.nnz == np.count_nonzero(np.tril(expected))


def test_what_elements_share_is_computed_once():
    f, x = bundle_problem(40)
    hessian = check_hessian(f, x, 1.0, exact_pattern=False, traced=False)
    (family,) = hessian._families
    assert [c.count for c in family.classes.values()] == [4]


def test_structure_grows_linearly_on_arrows():
    f, x = bundle_problem(500)
    hessian = element_hessian(program(f, x, 1.0))
    assert hessian.nnz == 4 * 27 + 500 * (6 + 2 * 21)  # two translations never meet


# forms of programs


def _forms():
    def stacked(x):
        return np.sum(np.stack([x[1:] * x[:-1], np.sin(x[1:])], axis=1).reshape(-1) ** 2)

    def padded(x):
        y = np.concatenate([np.zeros(1), x**2, np.ones(1)])
        return np.sum((y[1:] - y[:-1]) ** 2 * y[1:])

    def assigned(x):
        y = fnp.zeros(8)
        y[1:7] = np.exp(0.3 * x)
        y[::3] = x[:3] * x[3:]
        return np.sum(y[1:] * y[:-1])

    def scalars(x):
        return np.sin(x[0]) * x[1] + x[2] ** 3 * x[0] + np.exp(x[3] * x[4]) * x[5]

    def matrix(x):
        m = x.reshape(2, 3)
        return np.sum((m @ m.T) ** 2) + np.sum(np.einsum("ij,kj->ik", m, m))

    def constant_matrix(x):
        a = np.arange(18.0).reshape(3, 6) / 10
        return np.sum(np.tanh(a @ x))

    def weighted(x):
        a = np.arange(24.0).reshape(4, 6) / 10
        return np.sum(a @ np.sin(x) * np.arange(4.0)) + np.cumsum(x**3)[3]

    return {
        "reversed": lambda x: np.sum(x * x[::-1]),
        "quadratic": lambda x: x @ x + x[1:] @ x[:-1],
        "broadcast scalar": lambda x: np.sum(np.sin(x[0] * x[1:]) * x[1]),
        "outer": lambda x: np.sum(np.exp(x[:3, None] * x[None, 3:])),
        "transposed": lambda x: np.sum(x.reshape(2, 3).T.reshape(-1) ** 2 * x),
        "gathered": lambda x: np.sum(x[np.array([0, 0, 2, 5, 5])] ** 2 * x[np.array([1, 0, 2, 4, 3])]),
        "repeated": lambda x: np.sum(np.repeat(x, 2) ** 3 * np.tile(x, 2)),
        "strided": lambda x: np.sum(x[::2] * x[1::2] ** 2) + np.sum(x[4::-2]),
        "stacked": stacked,
        "padded": padded,
        "assigned": assigned,
        "scalars": scalars,
        "matrix": matrix,
        "constant matrix": constant_matrix,
        "weighted": weighted,
        "mean of squares": lambda x: np.mean((x - 1.0) ** 2),
        "linear": lambda x: np.sum(3 * x) + x[2],
        "where": lambda x: np.sum(np.where(x > 0, x**2, np.exp(x)) * x[::-1]),
        "extrema": lambda x: np.sum(np.maximum(x[1:] ** 2, x[:-1]) + np.minimum(x[1:], 0.1) ** 3 + abs(x[1:]) ** 3),
        "differences": lambda x: np.sum(np.diff(x) ** 4),
        "shared": lambda x: np.sum((y := np.exp(x[1:] * x[:-1])) * y + np.log(1 + y)),
        "rolled": lambda x: np.sum(np.roll(x, 1) ** 2 * x),
        "jit": functrace.jit(lambda x: np.sum(np.sin(x[1:]) * x[:-1])),
        "checkpoint": functrace.checkpoint(lambda x: np.sum(np.sin(x[1:]) * x[:-1])),
        "powers": lambda x: np.sum(np.abs(x) ** 2.5 + (x**2 + 1.0) ** x),
        "arctan2": lambda x: np.sum(np.arctan2(x[1:], x[:-1]) * np.hypot(x[1:], x[:-1])),
        "norms": lambda x: np.sum(np.sqrt(np.sum(x.reshape(2, 3) ** 2, axis=1))),
        "one number often": lambda x: np.sum(x[2] ** 3 * np.ones(40)) + np.sum(np.sin(x[:1] * np.linspace(0, 1, 30))),
        "added in place": lambda x: np.sum(fnp.at(x**2)[np.array([1, 1, 3])].add(x[:3] ** 3) * np.arange(6.0)),
        "empty": lambda x: np.sum(x[:0] ** 2) + x[0] ** 2,
    }


@pytest.mark.parametrize("name", _forms())
def test_forms(name):
    x = np.array([0.3, -0.7, 1.1, 0.9, -0.2, 0.6])
    exact_pattern = name not in ("where", "extrema", "assigned")
    compiled = name in ("stacked", "broadcast scalar", "gathered", "matrix", "padded")
    check_hessian(_forms()[name], x, exact_pattern=exact_pattern, compiled=compiled)


def test_scan_of_fixed_length():
    def step(carry, _):
        return np.sin(carry) * carry, None

    def f(x):
        return np.sum(functrace.lax.scan(step, x, None, length=3)[0] * x[::-1])

    check_hessian(f, np.linspace(0.1, 0.9, 5))


def test_rules_of_the_user_are_not_opened():
    @functrace.custom_jvp
    def f(x):
        return np.sum(x**2)

    f.defjvp(lambda primals, tangents: (f(*primals), 3 * np.sum(primals[0] * tangents[0])))
    assert element_hessian(program(f, np.ones(3))) is None


def test_without_machine_code(monkeypatch):
    monkeypatch.setenv("FUNCTRACE_DISABLE_JIT", "1")
    x = np.linspace(0, 1, 200)
    hessian = element_hessian(program(rosenbrock, x))
    for _ in range(50):
        values = hessian.values(x)
    assert hessian._evaluation._executable is None
    np.testing.assert_allclose(values[::2], [*(1200 * x[:-1] ** 2 - 400 * x[1:] + 2 + 200 * (x[:-1] > 0)), 200])


def test_machine_code_comes_by_itself():
    x = np.linspace(0, 1, 200)
    hessian = element_hessian(program(rosenbrock, x))
    first = hessian.values(x)
    deadline = time.monotonic() + 60
    while hessian._evaluation._executable is None and time.monotonic() < deadline:
        np.testing.assert_array_equal(hessian.values(x), first)
    np.testing.assert_allclose(hessian.values(x), first, rtol=1e-14)
    assert hessian._evaluation._executable is not None


@pytest.mark.filterwarnings("ignore::functrace.errors.CompilationWarning")
def test_machine_code_that_differs_is_not_used():
    x = np.linspace(0, 1, 200)
    hessian = element_hessian(program(rosenbrock, x))
    values = hessian.values(x)
    evaluation = hessian._evaluation
    evaluation.compile([x], [values + 1])
    assert evaluation._executable is None
    evaluation.compile([x], [values])
    assert evaluation._executable is not None


def test_several_inputs():
    def f(x, y):
        return np.sum(x[1:] ** 2 * y) + x[0] * y[1]

    x, y = np.array([0.3, 0.5, 0.7]), np.array([1.5, 2.5])
    hessian = element_hessian(program(f, x, y), (0, 1))
    blocks = functrace.hessian(f, argnums=(0, 1))(x, y)
    np.testing.assert_allclose(dense(hessian, hessian.values(x, y)), np.block([list(row) for row in blocks]))


def test_inputs_of_any_shape():
    def f(m, s, sigma):
        return sigma * np.sum(np.sin(m[:, 1:]) * m[:, :-1] * s) + np.exp(s)

    m, s = np.linspace(-1, 1, 6).reshape(2, 3), 0.5
    closed = program(f, m, s, 2.0)
    hessian = element_hessian(closed, (0, 1))
    blocks = functrace.hessian(f, argnums=(0, 1))(m, s, 2.0)
    shapes = [[(6, 6), (6, 1)], [(1, 6), (1, 1)]]
    rows = zip(blocks, shapes, strict=True)
    expected = np.block([[np.reshape(b, shape) for b, shape in zip(*row, strict=True)] for row in rows])
    np.testing.assert_allclose(dense(hessian, hessian.values(m, s, 2.0)), expected, atol=1e-15)
    hessian.compile()
    np.testing.assert_allclose(dense(hessian, hessian.values(m, s, 2.0)), expected, atol=1e-15)
    (entry,) = element_hessian(program(lambda s: np.sin(s) * s, 0.5)).values(0.5)
    np.testing.assert_allclose(entry, 2 * np.cos(0.5) - 0.5 * np.sin(0.5))


def test_single_precision():
    x = np.linspace(0.1, 1, 6, dtype=np.float32)
    hessian = element_hessian(program(rosenbrock, x))
    values = hessian.values(x)
    assert values.dtype == np.float32
    np.testing.assert_allclose(dense(hessian, values), functrace.hessian(rosenbrock)(x), rtol=2e-5)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.log(np.sum(np.exp(x))),
        lambda x: np.sum(np.linalg.solve(np.eye(40) + np.outer(x, x), x)),
        lambda x: np.sum(np.cumsum(x) ** 2),
        lambda x: np.sum(x**2) ** 2,
        lambda x: np.sort(x) @ x,
        lambda x: recurrence(x, 2000),
    ],
    ids=["logsumexp", "solve", "cumsum", "square of sum", "sort", "recurrence"],
)
def test_what_does_not_separate_gives_none(f):
    assert element_hessian(program(f, np.linspace(0.5, 1, 40))) is None


def recurrence(x, steps):
    y = x[0]
    for k in range(steps):
        y = np.sin(y * x[k % 40])
    return y


def test_python_loop_over_elements():
    def f(x):
        return sum(100 * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2 for i in range(x.size - 1))

    x = np.linspace(-1, 1, 20)
    hessian = check_hessian(f, x, traced=False)
    assert hessian.nnz == 39


@pytest.mark.parametrize("name", _forms())
def test_structure_is_that_of_the_dependence_interpreter(name):
    x = np.array([0.3, -0.7, 1.1, 0.9, -0.2, 0.6])
    closed = program(_forms()[name], x)
    rows, cols = hessian_structure(closed, [True])
    hessian = element_hessian(closed)
    lower = {(int(i), int(j)) for i, j in zip(rows, cols, strict=True) if i >= j}
    assert lower == set(zip(hessian.rows.tolist(), hessian.cols.tolist(), strict=True))


# dead elements


def test_zero_multiplier_silences_infinities():
    def lagrangian(x, lam, sigma):
        return sigma * np.sum(np.sqrt(x) * x[::-1] ** 2) + lam @ np.log(x) + lam @ (x * np.sqrt(x))

    x = np.array([0.0, 1.0, 2.0])
    hessian = element_hessian(program(lagrangian, x, np.ones(3), 1.0))
    lam = np.array([0.0, 0.5, 0.25])
    values = dense(hessian, hessian.values(x, lam, 0.0))
    expected = np.diag([0.0, *(lam[1:] * (-1 / x[1:] ** 2 + 0.75 / np.sqrt(x[1:])))])
    np.testing.assert_allclose(values, expected)
    alive = dense(hessian, hessian.values(x, np.array([0.5, 0.5, 0.25]), 0.0))
    assert np.isneginf(alive[0, 0]) or np.isnan(alive[0, 0])
    np.testing.assert_allclose(alive[1:, 1:], expected[1:, 1:])


def test_one_zero_multiplier_beside_another_that_counts():
    def lagrangian(x, lam):
        y = np.sqrt(x)
        return lam[0] * np.sum(y * x) + lam[1] * np.sum(1 / y) + lam[2] * np.sum(x**3)

    x = np.array([0.0, 4.0])
    hessian = element_hessian(program(lagrangian, x, np.ones(3)))
    np.testing.assert_allclose(hessian.values(x, np.array([0.0, 0.0, 1.0])), [0.0, 24.0])


def test_branch_not_taken_contributes_nothing():
    def f(x):
        return np.sum(np.where(x > 0, np.log(x) ** 2, x**2)) + np.sum(np.maximum(np.sqrt(x[1:]), 1.0 + x[:-1] ** 2))

    x = np.array([-1.0, 0.0, 0.5, 0.0])
    with np.errstate(all="ignore"):
        hessian = element_hessian(program(f, x))
        expected = functrace.hessian(f)(x)
        np.testing.assert_allclose(dense(hessian, hessian.values(x)), expected)


def test_true_infinity_stays():
    hessian = element_hessian(program(lambda x: np.sum(x**1.5), np.ones(2)))
    with np.errstate(all="ignore"):
        assert np.isinf(hessian.values(np.array([0.0, 1.0]))[0])


# the values are a function


def test_values_are_differentiable_and_batch():
    x = np.array([0.3, 0.8, -0.4, 0.5])
    hessian = element_hessian(program(rosenbrock, x))
    third = functrace.jacobian(hessian.values)(x)
    expected = functrace.jacobian(functrace.hessian(rosenbrock))(x)
    np.testing.assert_allclose(third, expected[hessian.rows, hessian.cols])
    back = functrace.grad(lambda x: np.sum(hessian.values(x) ** 2))(x)
    np.testing.assert_allclose(back, 2 * hessian.values(x) @ third)
    many = np.stack([x, 2 * x])
    np.testing.assert_allclose(functrace.vmap(hessian.values)(many), [hessian.values(x), hessian.values(2 * x)])


def test_arguments_of_other_types():
    x = np.array([1.0, 2.0, 3.0])
    hessian = element_hessian(program(rosenbrock, x))
    for compiled in (False, True):
        if compiled:
            hessian.compile()
        np.testing.assert_allclose(hessian.values(np.array([1, 2, 3])), hessian.values(x))
        for wrong in (np.ones(4), np.ones(2), np.ones((1, 3)), 1.0):
            with pytest.raises(functrace.errors.ShapeError, match="prepare"):
                hessian.values(wrong)
        with pytest.raises(functrace.errors.ShapeError, match="prepare"):
            hessian.values(x, x)


def test_out_receives_the_values():
    x = np.linspace(0, 1, 9)
    hessian = element_hessian(program(rosenbrock, x))
    out = np.full(hessian.nnz, np.nan)
    assert hessian.values(x, out=out) is out
    np.testing.assert_array_equal(out, hessian.values(x))


def test_report_and_cost():
    hessian = element_hessian(program(rosenbrock, np.ones(100)))
    (family,) = hessian.families
    assert (family.elements, family.width, family.entries) == (99, 2, 3)
    assert any("rosenbrock" in source for source in family.sources)
    assert hessian.cost.flops > 99
    assert hessian.cost.bytes > 99 * 8


def test_an_entry_is_explained_by_its_lines():
    def f(x):
        squares = np.sum(x**2)
        products = np.sum(np.sin(x[1:]) * x[:-1])
        return squares + products

    hessian = element_hessian(program(f, np.ones(5)))
    line = f.__code__.co_firstlineno
    assert [text.split(":")[1].split()[0] for text in hessian.why(2, 3)] == [str(line + 2)]
    assert hessian.why(2, 3) == hessian.why(3, 2)
    assert len(hessian.why(2, 2)) == 2
    assert hessian.why(0, 3) == ()


# Jacobians


def check_jacobian(c, x, *rest):
    jacobian = element_jacobian(program(c, x, *rest))
    assert jacobian is not None
    assert (np.diff(jacobian.cols * jacobian.shape[0] + jacobian.rows) > 0).all()
    matrix = np.zeros(jacobian.shape)
    matrix[jacobian.rows, jacobian.cols] = jacobian.values(x, *rest)
    np.testing.assert_allclose(matrix, functrace.jacobian(c)(x, *rest).reshape(matrix.shape), rtol=1e-10, atol=1e-12)
    traced = functrace.jit(lambda *args: jacobian.values(*args))(x, *rest)
    np.testing.assert_allclose(traced, jacobian.values(x, *rest), rtol=1e-12)
    value, entries = jacobian.evaluate(x, *rest)
    np.testing.assert_allclose(value, np.ravel(c(x, *rest)), rtol=1e-13)
    np.testing.assert_array_equal(entries, jacobian.values(x, *rest))
    return jacobian


@pytest.mark.parametrize(
    "c",
    [
        trigonometric_exponential,
        lambda x: van_der_pol(x, 2),
        lambda x: np.concatenate([x[:3] * x[3:6], np.ones(2), x[:1] ** 2]),
        lambda x: np.stack([x[0] * x[1], np.sin(x[2]), 2.0 * x[3]]),
        lambda x: x[::-1] * x[0],
        lambda x: np.repeat(x, 2) + np.tile(x, 2),
        lambda x: np.sum(x.reshape(2, 4) ** 2, axis=0),
        lambda x: np.where(x > 0, x, x * x[::-1]),
        lambda x: x,
        lambda x: x[2] * x[3],
    ],
)
def test_jacobians(c):
    check_jacobian(c, np.array([0.3, -0.7, 1.1, 0.9, -0.2, 0.6, 0.25, -1.2]))


def test_jacobian_of_several_outputs():
    def c(x):
        y = x[1:] * x[:-1]
        return y, np.sin(x[0]), y, np.ones(2)

    x = np.array([0.3, 0.5, 0.7])
    jacobian = element_jacobian(program(c, x))
    matrix = np.zeros(jacobian.shape)
    matrix[jacobian.rows, jacobian.cols] = jacobian.values(x)
    y = [[0.5, 0.3, 0], [0, 0.7, 0.5]]
    np.testing.assert_allclose(matrix, [*y, [np.cos(0.3), 0, 0], *y, [0, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(jacobian.evaluate(x)[0], [0.15, 0.35, np.sin(0.3), 0.15, 0.35, 1, 1])


@pytest.mark.parametrize("c", [lambda x: np.cumsum(x) ** 2, lambda x: x / np.linalg.norm(x)])
def test_jacobian_of_what_does_not_separate_is_none(c):
    assert element_jacobian(program(c, np.ones(40))) is None


# programs drawn at random


@st.composite
def separable(draw):
    """A scalar function of a vector of length 8, as a list of instructions."""
    steps = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=8))
    outputs = draw(st.lists(st.integers(0, 30), min_size=1, max_size=3))
    return steps, outputs


def run(instructions, x):
    steps, outputs = instructions
    values = [x, x[1:], x[:-1]]
    for kind, i, j in steps:
        a, b = values[i % len(values)], values[j % len(values)]
        n = min(a.shape[0], b.shape[0])
        made = [
            lambda a, b, n: a[:n] * b[:n],
            lambda a, b, n: a[:n] - 0.5 * b[a.shape[0] - n :][:n] if a.shape[0] == b.shape[0] else a[:n] + b[:n],
            lambda a, b, n: np.sin(a),
            lambda a, b, n: a[::-1] * 0.7,
            lambda a, b, n: np.concatenate([a[:2], b[-2:], 0.5 * a[:1] ** 2]),
            lambda a, b, n: np.tanh(a)[np.arange(a.shape[0]) // 2],
            lambda a, b, n: np.where(a[:n] > b[:n], a[:n] * b[:n], b[:n] ** 2),
            lambda a, b, n: 1.0 / (2.0 + a**2),
            lambda a, b, n: np.stack([a[:n], b[:n]], axis=1).reshape(-1)[:8],
            lambda a, b, n: np.sum(np.stack([a[:n], b[:n], a[:n] * b[:n]]), axis=0),
        ][kind]
        values.append(made(a, b, n))
    return sum(np.sum(values[-1 - o % len(values)] ** 2) for o in outputs)


@settings(max_examples=25, deadline=None)
@given(separable())
def test_random_separable_programs(instructions):
    x = np.array([0.31, -0.72, 1.13, 0.94, -0.25, 0.66, 0.47, -0.18])
    check_hessian(lambda x: run(instructions, x), x, exact_pattern=False, rtol=1e-8)
