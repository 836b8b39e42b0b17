"""Linear algebra in compiled programs: the same as eager, by LAPACK and without Python, and the same errors."""

from __future__ import annotations

import numpy as np
import pytest

import functrace as ft
from functrace import numpy as fnp
from functrace import tree
from functrace.errors import CompilationWarning
from functrace.scipy import linalg as sla

TOLERANCE = {"f": 3e-5, "F": 3e-5, "d": 1e-11, "D": 1e-11}
DTYPES = ["d", "f", "D", "F"]
STACKS = [(2, 3), (37,)]


def normal(seed, shape, dtype="d"):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape) + (1j * rng.normal(size=shape) if dtype in "FD" else 0)
    return x.astype(dtype)


def regular(n, stack=(), dtype="d", seed=0):
    """Well conditioned, with eigenvalues apart, most of them complex."""
    a = normal(seed, (*stack, n, n), dtype) / np.sqrt(n)
    return (a + np.diag(np.linspace(1.5, 3.0, n))).astype(dtype)


def definite(n, stack=(), dtype="d"):
    a = regular(n, stack, dtype)
    return (a @ np.conj(np.swapaxes(a, -1, -2)) + np.diag(np.arange(n))).astype(dtype)


def triangle(lower):
    return lambda n, *args: np.tril(regular(n, *args)) if lower else np.triu(regular(n, *args))


OF_ONE = {
    "inv": (fnp.linalg.inv, regular),
    "det": (fnp.linalg.det, regular),
    "slogdet": (fnp.linalg.slogdet, regular),
    "cholesky": (fnp.linalg.cholesky, definite),
    "qr": (fnp.linalg.qr, regular),
    "eigh": (fnp.linalg.eigh, definite),
    "eigh of the upper triangle": (lambda a: fnp.linalg.eigh(a, UPLO="U"), definite),
    "svd": (fnp.linalg.svd, regular),
    "singular values": (fnp.linalg.svdvals, regular),
    "eig": (lambda a: [x * (1 + 0j) for x in fnp.linalg.eig(a)], regular),  # eagerly real if all values are
    "pinv": (fnp.linalg.pinv, regular),
}


def agree(function, *args, rtol=None):
    """Compiled and eager results are equal."""
    compiled = ft.jit(function)
    want, got = function(*args), compiled(*args)
    again = compiled(*args)
    for x, y, z in zip(*(tree.flatten(r)[0] for r in (got, again, want)), strict=True):
        assert np.shape(x) == np.shape(z) and np.asarray(x).dtype == np.asarray(z).dtype
        limit = TOLERANCE[np.asarray(z).dtype.char] if rtol is None else rtol
        np.testing.assert_allclose(x, z, rtol=limit, atol=limit)
        np.testing.assert_array_equal(x, y)
    return compiled


def kinds(function, *args):
    """The kinds of steps, from the schedule."""
    text = ft.jit(function).lower(*args).as_text("schedule")
    return {line.split()[0] for line in text.splitlines()[1:-1]} | ({"NumPy"} if "left to NumPy" in text else set())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OF_ONE)
def test_functions_of_a_matrix(name, dtype):
    function, make = OF_ONE[name]
    agree(function, make(6, (), dtype))


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("name", OF_ONE)
def test_stacks(name, stack):
    function, make = OF_ONE[name]
    agree(function, make(3, stack))


@pytest.mark.parametrize("n", [1, 2, 4, 33])
@pytest.mark.parametrize("name", ["inv", "det", "slogdet", "cholesky"])
def test_sizes(name, n):
    function, make = OF_ONE[name]
    agree(function, make(n))
    agree(function, make(n, (19,)))


@pytest.mark.parametrize("name", OF_ONE)
def test_operands_that_are_views(name):
    function, make = OF_ONE[name]
    agree(lambda a: function(fnp.swapaxes(a, -1, -2)), make(5))
    agree(lambda a: function(fnp.swapaxes(a, -1, -2)), make(3, (4,)))
    agree(lambda a: function(a[1, 1:5, 1:5]), make(7, (2,)))


@pytest.mark.parametrize("name", OF_ONE)
def test_no_python(name):
    function, make = OF_ONE[name]
    for n, stack in ((6, ()), (3, (40,))):
        found = kinds(function, make(n, stack))
        assert "NumPy" not in found and (n < 5 or "library" in found)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (2, 5, 3), (1, 4), (4, 1)])
def test_rectangles(shape):
    a = normal(1, shape)
    agree(lambda a: fnp.linalg.svd(a, full_matrices=False), a)
    agree(fnp.linalg.svd, a)
    agree(fnp.linalg.pinv, a)
    if shape[-2] >= shape[-1]:
        agree(fnp.linalg.qr, a)
        agree(fnp.linalg.qr, normal(2, shape, "D"))
    agree(fnp.linalg.svd, normal(2, shape, "F"))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 9])
def test_solve(n, dtype):
    a = regular(n, (), dtype)
    for right in ((n,), (n, 1), (n, 3), (n, 12)):
        agree(fnp.linalg.solve, a, normal(3, right, dtype))
    stack = regular(n, (5,), dtype)
    agree(fnp.linalg.solve, stack, normal(3, (5, n, 2), dtype))
    agree(fnp.linalg.solve, stack, normal(3, (n, 2), dtype))
    agree(lambda a, b: fnp.linalg.solve(fnp.swapaxes(a, 1, 2), b[:, ::-1]), stack, normal(3, (5, n, 2), dtype))


@pytest.mark.parametrize("dtype", ["d", "F"])
@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("unit", [True, False])
def test_triangular_solve(lower, unit, dtype):
    for n in (1, 5):
        a = triangle(lower)(n, (), dtype)
        for trans in (0, 1):
            for right in ((n,), (n, 4)):
                agree(
                    lambda a, b, t=trans: sla.solve_triangular(a, b, lower=lower, unit_diagonal=unit, trans=t),
                    a, normal(3, right, dtype),
                )  # fmt: skip
        stack = triangle(lower)(n, (6,), dtype)
        agree(
            lambda a, b: sla.solve_triangular(a, b, lower=lower, unit_diagonal=unit), stack, normal(3, (6, n, 2), dtype)
        )


def test_rows_are_exchanged_as_the_pivots_say():
    rng = np.random.default_rng(4)
    for n in (2, 3, 4, 7):
        shuffled = np.stack([rng.permutation(np.diag(np.arange(1.0, n + 1))) for _ in range(40)])
        for function in (fnp.linalg.inv, fnp.linalg.det, fnp.linalg.slogdet):
            agree(function, shuffled)
        agree(fnp.linalg.solve, shuffled, normal(5, (40, n, 3)))


@pytest.mark.parametrize("n", [2, 3, 4, 6])
def test_singular_matrices_raise_as_eager(n):
    singular = np.ones((n, n))
    regulars = regular(n, (11,))
    stack = np.concatenate([regulars, singular[None], regulars])
    for function in (fnp.linalg.inv, lambda a: fnp.linalg.solve(a, a)):
        compiled = ft.jit(function)
        compiled(regulars[0])
        compiled(np.concatenate([regulars, regulars, regulars[:1]]))
        for a in (singular, stack, np.zeros((n, n))):
            with pytest.raises(np.linalg.LinAlgError, match="Singular"):
                compiled(a)
        np.testing.assert_allclose(compiled(regulars[0]), function(regulars[0]), rtol=1e-11, atol=1e-11)
    with pytest.raises(np.linalg.LinAlgError, match="positive definite"):
        ft.jit(fnp.linalg.cholesky)(-np.eye(n))
    with pytest.raises(np.linalg.LinAlgError, match="positive definite"):
        ft.jit(fnp.linalg.cholesky)(stack)
    with pytest.raises(np.linalg.LinAlgError):
        ft.jit(lambda a, b: sla.solve_triangular(a, b, lower=True))(np.zeros((n, n)), np.ones(n))


@pytest.mark.parametrize("name", ["inv", "det", "eig", "svd", "cholesky"])
def test_infinities_and_nan(name):
    function, make = OF_ONE[name]
    for n in (3, 5):
        for bad in (np.nan, np.inf):
            a = make(n)
            a[1, 1] = bad
            try:
                with np.errstate(all="ignore"):
                    want = function(a)
            except np.linalg.LinAlgError as error:
                with pytest.raises(np.linalg.LinAlgError, match=str(error)):
                    ft.jit(function)(a)
                continue
            with np.errstate(all="ignore"):
                got = ft.jit(function)(a)
            for x, y in zip(tree.flatten(got)[0], tree.flatten(want)[0], strict=True):
                np.testing.assert_array_equal(np.isnan(x), np.isnan(y))


@pytest.mark.parametrize("n", [2, 3, 5])
def test_determinants_of_singular_and_extreme_matrices(n):
    for function in (fnp.linalg.det, fnp.linalg.slogdet):
        for a in (np.ones((n, n)), np.zeros((n, n)), np.diag([1e200, *[1e-150] * (n - 1)]), np.diag([1e200] * n)):
            with np.errstate(over="ignore"):
                compiled, eager = ft.jit(function)(a), function(a)
            np.testing.assert_allclose(compiled, eager, rtol=1e-11, atol=0)
    gradient = ft.grad(fnp.linalg.det)
    almost = np.diag([*np.arange(1.0, n), 0.0])
    np.testing.assert_allclose(ft.jit(gradient)(almost), gradient(almost), rtol=1e-11, atol=1e-11)


DERIVED = {
    "inv": (lambda a: fnp.sum(fnp.sin(fnp.linalg.inv(a))), regular),
    "det": (lambda a: fnp.sum(fnp.linalg.det(a)), regular),
    "slogdet": (lambda a: fnp.sum(fnp.linalg.slogdet(a)[1]), regular),
    "solve": (lambda a: fnp.sum(fnp.linalg.solve(a, fnp.cos(a)) ** 2), regular),
    "cholesky": (lambda a: fnp.sum(fnp.sin(fnp.linalg.cholesky(a))), definite),
    "qr": (lambda a: fnp.sum(fnp.sin(fnp.linalg.qr(a)[0])), regular),
    "eigh": (lambda a: fnp.sum(fnp.linalg.eigh(a)[0] ** 3) + fnp.sum(fnp.linalg.eigh(a)[1] ** 4), definite),
    "svd": (lambda a: fnp.sum(fnp.linalg.svd(a)[1] ** 3) + fnp.sum(fnp.linalg.svd(a)[0] ** 4), regular),
    "eig": (lambda a: fnp.sum(fnp.abs(fnp.linalg.eig(a)[0]) ** 3), regular),
    "pinv": (lambda a: fnp.sum(fnp.sin(fnp.linalg.pinv(a))), regular),
}


@pytest.mark.parametrize("name", DERIVED)
def test_gradients(name):
    function, make = DERIVED[name]
    for a in (make(4), make(3, (5,)), make(6)):
        gradient = ft.grad(function)
        agree(gradient, a, rtol=1e-8)
        assert "NumPy" not in kinds(gradient, a)
        direction = normal(7, a.shape)
        _, along = ft.jit(lambda a, d: ft.jvp(function, (a,), (d,)))(a, direction)
        np.testing.assert_allclose(along, np.sum(gradient(a) * direction), rtol=1e-7)


@pytest.mark.parametrize("name", ["det", "inv", "solve", "cholesky"])
def test_second_derivatives(name):
    function, make = DERIVED[name]
    agree(ft.hessian(function), make(3), rtol=1e-8)


def test_zero_sizes():
    for name, (function, _) in OF_ONE.items():
        for shape in ((0, 3, 3), (2, 0, 3, 3)):
            agree(function, np.zeros(shape))
        if name not in ("pinv",):
            agree(function, np.zeros((0, 0)))
    agree(fnp.linalg.solve, np.zeros((0, 2, 2)), np.zeros((0, 2, 1)))
    agree(fnp.linalg.solve, regular(3), np.zeros((3, 0)))


def test_inside_loops_and_branches():
    def newton(x):
        def step(x, _):
            jacobian = fnp.diag(2.0 * x) + 0.1
            return x - fnp.linalg.solve(jacobian, x * x + 0.1 * fnp.sum(x) - 2.0), fnp.linalg.det(jacobian)

        return ft.lax.scan(step, x, None, length=6)

    agree(newton, np.array([1.0, 2.0, 1.5]))
    agree(ft.grad(lambda x: fnp.sum(newton(x)[0])), np.array([1.0, 2.0, 1.5, 1.2, 1.1]), rtol=1e-9)
    singular = ft.jit(newton)
    with pytest.raises(np.linalg.LinAlgError, match="Singular"):
        singular(np.array([0.0, 0.0, 1.0]))


@pytest.mark.filterwarnings(f"error::{CompilationWarning.__module__}.{CompilationWarning.__name__}")
def test_maps_over_axes():
    a, b = regular(4, (6,)), normal(8, (4, 6))
    agree(ft.vmap(fnp.linalg.solve, in_axes=(0, 1)), a, b)
    agree(ft.vmap(fnp.linalg.solve, in_axes=(None, 1)), a[0], b)
    agree(ft.vmap(ft.grad(lambda a: fnp.linalg.slogdet(a)[1])), a)
