"""Linear algebra: NumPy's values, named results, shapes and dtypes; closed forms; degenerate input; errors."""

import numpy as np
import pytest

import functrace
import functrace.numpy as fnp
from functrace import tree
from functrace.errors import ArgumentError, DTypeError, ShapeError, UnsupportedFunctionError
from functrace.scipy import linalg as fsl
from functrace.testing import check_grads
from tests.matrices import check_value, definite, draw, same

MODES = ["fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev"]


SQUARE = [(1, 1), (3, 3), (2, 3, 3), (2, 1, 2, 2), (0, 0), (0, 2, 2)]
SHAPES = [*SQUARE, (4, 2), (2, 4), (2, 3, 2), (2, 2, 3), (3, 1), (1, 3)]
DTYPES = [np.float64, np.float32, np.complex128]
SQUARE_FUNCTIONS = {
    "inv": np.linalg.inv,
    "det": np.linalg.det,
    "slogdet": np.linalg.slogdet,
    "pinv": np.linalg.pinv,
    "power 0": lambda a: np.linalg.matrix_power(a, 0),
    "power 1": lambda a: np.linalg.matrix_power(a, 1),
    "power 5": lambda a: np.linalg.matrix_power(a, 5),
    "power -3": lambda a: np.linalg.matrix_power(a, -3),
}
DEFINITE_FUNCTIONS = {
    "cholesky": np.linalg.cholesky,
    "cholesky upper": lambda a: np.linalg.cholesky(a, upper=True),
    "eigh": np.linalg.eigh,
    "eigh U": lambda a: np.linalg.eigh(a, UPLO="U"),
    "eigvalsh": np.linalg.eigvalsh,
    "eigvalsh U": lambda a: np.linalg.eigvalsh(a, "U"),
    "svd hermitian": lambda a: np.linalg.svd(a, hermitian=True),
    "svd hermitian values": lambda a: np.linalg.svd(a, compute_uv=False, hermitian=True),
    "pinv hermitian": lambda a: np.linalg.pinv(a, hermitian=True),
}
RECTANGULAR_FUNCTIONS = {
    "qr": np.linalg.qr,
    "qr r": lambda a: np.linalg.qr(a, mode="r"),
    "svd": lambda a: np.linalg.svd(a, full_matrices=False),
    "svd values": lambda a: np.linalg.svd(a, compute_uv=False),
    "svdvals": np.linalg.svdvals,
    "pinv": np.linalg.pinv,
    "pinv rtol": lambda a: np.linalg.pinv(a, rtol=1e-3),
    "pinv rtol None": lambda a: np.linalg.pinv(a, rtol=None),
    "pinv rcond": lambda a: np.linalg.pinv(a, 1e-3),
    "matrix_rank": np.linalg.matrix_rank,
    "matrix_rank tol": lambda a: np.linalg.matrix_rank(a, 1.5),
    "matrix_rank rtol": lambda a: np.linalg.matrix_rank(a, rtol=0.4),
    "trace": np.linalg.trace,
    "trace offset": lambda a: np.linalg.trace(a, offset=1),
    "diagonal": np.linalg.diagonal,
    "diagonal offset": lambda a: np.linalg.diagonal(a, offset=-1),
    "transpose": np.linalg.matrix_transpose,
    "fro": np.linalg.matrix_norm,
    "nuc": lambda a: np.linalg.matrix_norm(a, ord="nuc", keepdims=True),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SQUARE)
@pytest.mark.parametrize("name", SQUARE_FUNCTIONS)
def test_square(name, shape, dtype):
    if name == "pinv" and 0 in shape[-2:]:
        pytest.skip("NumPy gives an empty result without looking")
    check_value(SQUARE_FUNCTIONS[name], draw(*shape, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [s for s in SQUARE if 0 not in s])
@pytest.mark.parametrize("name", DEFINITE_FUNCTIONS)
def test_definite(name, shape, dtype):
    if dtype is np.float32 and "svd" in name and "values" not in name:
        pytest.skip("the order of equal signs is not stable in single precision")
    check_value(DEFINITE_FUNCTIONS[name], definite(*shape, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [s for s in SHAPES if 0 not in s])
@pytest.mark.parametrize("name", RECTANGULAR_FUNCTIONS)
def test_rectangular(name, shape, dtype):
    check_value(RECTANGULAR_FUNCTIONS[name], draw(*shape, dtype=dtype))


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (4, 2)])
@pytest.mark.parametrize("full", [True, False])
def test_svd_forms(rows, columns, full):
    check_value(lambda a: np.linalg.svd(a, full_matrices=False), draw(rows, columns))
    closed = functrace.make_jaxpr(lambda a: np.linalg.svd(a, full))(draw(rows, columns))
    same(
        functrace.eval_jaxpr(closed.jaxpr, closed.consts, draw(rows, columns)), np.linalg.svd(draw(rows, columns), full)
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128, np.int64])
@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3, 3), (3,)),
        ((3, 3), (3, 2)),
        ((2, 3, 3), (2, 3, 4)),
        ((2, 3, 3), (3, 4)),
        ((3, 3), (2, 3, 4)),
        ((3, 3), (2, 5, 3, 1)),
        ((2, 1, 3, 3), (5, 3, 4)),
        ((2, 3, 3), (3,)),
        ((0, 0), (0,)),
        ((0, 0), (0, 2)),
        ((2, 2), (2, 0)),
        ((0, 2, 2), (0, 2, 1)),
        ((3, 3), (0, 3, 2)),
    ],
)
def test_solve(left, right, dtype):
    a = (draw(*left) * 4 + 10 * np.eye(left[-1])).astype(dtype)
    b = (draw(*right, seed=1) * 4).astype(dtype)
    check_value(np.linalg.solve, a, b, batched=dtype != np.int64)
    if dtype is np.float64:
        check_grads(np.linalg.solve, (a, b), order=1)


def test_empty_matrices_have_derivatives():
    empty = np.zeros((0, 0))
    for function in (np.linalg.inv, np.linalg.det, np.linalg.cholesky, np.linalg.svdvals, np.linalg.eigvalsh):
        value, pull = functrace.vjp(function, empty)
        assert pull(np.ones_like(value))[0].shape == (0, 0)
    for columns in (0, 2):
        value, pull = functrace.vjp(np.linalg.solve, empty, np.zeros((0, columns)))
        assert [bar.shape for bar in pull(value)] == [(0, 0), (0, columns)]


# closed forms


def gradient_of(function, a, mode):
    return {"fwd": functrace.jacfwd, "rev": functrace.jacrev}[mode](function)(a)


@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_first_derivatives_in_closed_form(mode):
    a, s = draw(4, 4), definite(4, 4)
    inverse = np.linalg.inv(a)
    np.testing.assert_allclose(gradient_of(np.linalg.det, a, mode), np.linalg.det(a) * inverse.T)
    np.testing.assert_allclose(gradient_of(lambda a: np.linalg.slogdet(a)[1], a, mode), inverse.T)
    np.testing.assert_allclose(gradient_of(np.linalg.inv, a, mode), -np.einsum("ik,lj->ijkl", inverse, inverse))
    np.testing.assert_allclose(
        gradient_of(lambda a: np.linalg.trace(np.linalg.matrix_power(a, 3)), a, mode), 3 * (a @ a).T
    )
    through_factor = gradient_of(lambda s: 2 * np.sum(np.log(np.linalg.diagonal(np.linalg.cholesky(s)))), s, mode)
    through_values = gradient_of(lambda s: np.sum(np.log(np.linalg.eigvalsh(s))), s, mode)
    expected = 2 * np.tril(np.linalg.inv(s)) - np.diag(np.diag(np.linalg.inv(s)))  # both read the lower triangle
    np.testing.assert_allclose(through_factor, expected, atol=1e-12)
    np.testing.assert_allclose(through_values, expected, atol=1e-12)
    u, _, vh = np.linalg.svd(a)
    np.testing.assert_allclose(gradient_of(lambda a: np.linalg.norm(a, "nuc"), a, mode), u @ vh, atol=1e-12)
    np.testing.assert_allclose(gradient_of(np.linalg.norm, a, mode), a / np.linalg.norm(a))
    np.testing.assert_allclose(
        gradient_of(lambda a: np.linalg.norm(a, 2), a, mode), np.outer(u[:, 0], vh[0]), atol=1e-12
    )


@pytest.mark.parametrize("mode", MODES)
def test_hessian_of_log_determinant(mode):
    a = draw(3, 3)
    inverse = np.linalg.inv(a)
    hessian = functrace.hessian(lambda a: np.linalg.slogdet(a)[1], mode=mode)(a)
    np.testing.assert_allclose(hessian, -np.einsum("jk,li->ijkl", inverse, inverse), atol=1e-12)


def minor(a, rows, columns):
    return np.linalg.det(np.delete(np.delete(a, rows, 0), columns, 1))


@pytest.mark.parametrize("rank", [3, 2, 1, 0])
def test_determinant_of_singular_matrices(rank):
    """Gradient and Hessian are the signed minors."""
    u, s, vh = np.linalg.svd(draw(4, 4))
    a = (u * (s * (np.arange(4) < rank))) @ vh
    cofactors = np.array([[(-1) ** (i + j) * minor(a, i, j) for j in range(4)] for i in range(4)])
    for derivative in (functrace.jacfwd, functrace.jacrev):
        np.testing.assert_allclose(derivative(np.linalg.det)(a), cofactors, atol=1e-12)

    def second(i, j, k, m):
        if i == k or j == m:
            return 0
        return (-1) ** (i + j + k + m + (k < i) + (m < j)) * minor(a, [i, k], [j, m])

    expected = np.array(
        [[[[second(i, j, k, m) for m in range(4)] for k in range(4)] for j in range(4)] for i in range(4)]
    )
    for mode in MODES:
        np.testing.assert_allclose(functrace.hessian(np.linalg.det, mode=mode)(a), expected, atol=1e-12)


def test_third_derivative_of_the_determinant():
    a = draw(3, 3)
    third = functrace.jacfwd(functrace.hessian(np.linalg.det))(a)
    signs = np.zeros((3, 3, 3))
    for i in range(3):
        signs[i, (i + 1) % 3, (i + 2) % 3], signs[i, (i + 2) % 3, (i + 1) % 3] = 1, -1
    np.testing.assert_allclose(third, np.einsum("ikm,jln->ijklmn", signs, signs), atol=1e-11)


DERIVATIVES = {
    "inv": (np.linalg.inv, definite(3, 3)),
    "cholesky": (np.linalg.cholesky, definite(3, 3)),
    "cholesky upper": (lambda a: np.linalg.cholesky(a, upper=True), definite(3, 3)),
    "eigh": (np.linalg.eigh, definite(3, 3)),
    "eigh U": (lambda a: np.linalg.eigh(a, "U"), definite(3, 3)),
    "svd": (lambda a: np.linalg.svd(a, full_matrices=False), draw(3, 2)),
    "svd wide": (lambda a: np.linalg.svd(a, full_matrices=False), draw(2, 4)),
    "svd square": (np.linalg.svd, draw(3, 3)),
    "svd hermitian": (lambda a: np.linalg.svd(a, hermitian=True), definite(3, 3)),
    "qr": (np.linalg.qr, draw(4, 2)),
    "qr wide": (np.linalg.qr, draw(2, 4)),
    "qr complete": (lambda a: np.linalg.qr(a, "complete"), draw(2, 3)),
    "pinv": (np.linalg.pinv, draw(3, 2)),
    "pinv hermitian": (lambda a: np.linalg.pinv(a, hermitian=True), definite(3, 3)),
    "power": (lambda a: np.linalg.matrix_power(a, -2), draw(3, 3)),
    "cond": (np.linalg.cond, draw(3, 3)),
    "cond 1": (lambda a: np.linalg.cond(a, 1), draw(3, 3)),
    "tensorinv": (np.linalg.tensorinv, draw(6, 6).reshape(2, 3, 3, 2)),
    "eigvals": (lambda a: np.abs(np.linalg.eigvals(a)), draw(3, 3)),
    "expm": (fsl.expm, draw(3, 3)),
    "complex inv": (np.linalg.inv, draw(3, 3, dtype=np.complex128)),
    "complex qr": (np.linalg.qr, draw(3, 2, dtype=np.complex128)),
    "complex slogdet": (np.linalg.slogdet, draw(3, 3, dtype=np.complex128)),
    "complex cholesky": (np.linalg.cholesky, definite(3, 3, dtype=np.complex128)),
    "complex projector": (
        lambda a: np.linalg.eigh(a)[1][:, :1] @ np.conj(np.linalg.eigh(a)[1][:, :1]).T,
        definite(3, 3, dtype=np.complex128),
    ),
    "complex polar factor": (
        lambda a: np.linalg.svd(a, full_matrices=False)[0] @ np.linalg.svd(a, full_matrices=False)[2],
        draw(3, 2, dtype=np.complex128),
    ),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives_against_differences(name):
    function, a = DERIVATIVES[name]
    check_grads(function, (a,), order=2)


@pytest.mark.parametrize("name", ["inv", "cholesky", "eigh", "svd", "qr", "pinv"])
def test_derivatives_of_stacks(name):
    function, a = DERIVATIVES[name]
    check_grads(function, (np.stack([a, a + 0.1 * np.eye(*a.shape)]),), order=1)
    rows = functrace.vmap(functrace.jacrev(function))(np.stack([a, 2 * a]))
    same(tree.map(lambda x: x[0], rows), functrace.jacfwd(function)(a))


def test_eig_normalisation():
    """Eigenvectors have unit length and one real component, and their derivative respects both."""
    a, t = draw(3, 3) + np.triu(np.ones((3, 3))), draw(3, 3, seed=5)
    (w, v), (w_dot, v_dot) = functrace.jvp(np.linalg.eig, (a,), (t,))
    np.testing.assert_allclose(t @ v + a @ v_dot, v_dot * w + v * w_dot, atol=1e-12)
    np.testing.assert_allclose(np.real(np.sum(np.conj(v) * v_dot, 0)), 0, atol=1e-12)
    assert type(functrace.jvp(np.linalg.eig, (a,), (t,))[0]) is type(np.linalg.eig(a))
    trace = functrace.grad(lambda a: np.sum(np.linalg.eigvals(a) ** 2).real)(a)
    np.testing.assert_allclose(trace, 2 * a.T, atol=1e-10)


# degenerate input


def test_tied_eigenvalues():
    """Vectors of tied eigenvalues have no derivative; the values share theirs, so that sums keep the right one."""
    a = np.diag([1.0, 1.0, 3.0])
    t = np.array([[1.0, 2.0, 0.5], [2.0, 5.0, 0.0], [0.5, 0.0, 7.0]])
    _, (w_dot, v_dot) = functrace.jvp(np.linalg.eigh, (a,), (t,))
    np.testing.assert_allclose(w_dot, [3.0, 3.0, 7.0])
    assert np.isnan(v_dot[:, :2]).all()
    assert np.isfinite(v_dot[2, 2])
    np.testing.assert_allclose(functrace.grad(lambda a: np.sum(np.linalg.eigvalsh(a) ** 3))(a), 3 * a @ a, atol=1e-14)
    rounded = a + 1e-17
    assert np.isnan(functrace.grad(lambda a: np.linalg.eigh(a)[1][0, 0])(rounded)).any()
    assert np.isnan(functrace.hessian(lambda a: np.sum(np.linalg.eigvalsh(a) ** 3))(a)).any()


def test_tied_and_vanishing_singular_values():
    a = np.diag([2.0, 2.0, 0.0])
    u_dot, s_dot, vh_dot = functrace.jvp(np.linalg.svd, (a,), (np.diag([1.0, 3.0, 5.0]),))[1]
    np.testing.assert_allclose(s_dot, [2.0, 2.0, 0.0])
    assert np.isnan(u_dot[:, :2]).all()
    assert np.isnan(vh_dot[:2]).all()
    np.testing.assert_allclose(functrace.grad(lambda a: np.linalg.norm(a, "nuc"))(a), np.diag([1.0, 1.0, 0.0]))
    tall = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert np.isnan(functrace.grad(lambda a: np.linalg.svd(a, full_matrices=False)[0][0, 1])(tall)).any()


def test_rank_deficient_qr_is_not_finite():
    a = np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    assert not np.isfinite(functrace.grad(lambda a: np.linalg.qr(a)[0][2, 1])(a)).all()
    assert not np.isfinite(functrace.jvp(lambda a: np.linalg.qr(a)[1], (a,), (a,))[1]).all()


@pytest.mark.parametrize("function", [np.linalg.inv, lambda a: np.linalg.solve(a, np.ones(2)), np.linalg.cholesky])
def test_singular_input_raises_as_numpy_does(function):
    with pytest.raises(np.linalg.LinAlgError):
        functrace.grad(lambda a: np.sum(function(a)))(np.zeros((2, 2)))


# other functions


@pytest.mark.parametrize("rcond", [None, 1e-3, -1])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("right", [(), (2,)])
@pytest.mark.parametrize("shape", [(4, 2), (3, 3), (2, 4)])
def test_lstsq(shape, right, dtype, rcond):
    a, b = draw(*shape, dtype=dtype), draw(shape[0], *right, dtype=dtype, seed=1)

    def comparable(a, b):
        x, residuals, rank, s = np.linalg.lstsq(a, b, rcond)
        return x, residuals, rank * np.int32(1), s

    check_value(comparable, a, b)
    if dtype is np.float64:
        check_grads(lambda a, b: np.linalg.lstsq(a, b, rcond)[0], (a, b), order=2)
        if shape == (4, 2):
            check_grads(lambda a, b: np.linalg.lstsq(a, b, rcond)[1], (a, b), order=1)


def test_tensor_equations():
    a, b = draw(6, 6).reshape(2, 3, 6), draw(2, 3)
    check_value(np.linalg.tensorsolve, a, b)
    check_value(lambda a, b: np.linalg.tensorsolve(a, b, axes=(0,)), np.moveaxis(a, 2, 0).copy(), draw(2, 3))
    check_grads(np.linalg.tensorsolve, (a, b), order=1)
    check_value(lambda a: np.linalg.tensorinv(a, ind=2), a)
    check_value(lambda a: np.linalg.tensorinv(a, ind=1), draw(6, 6).reshape(6, 3, 2))


@pytest.mark.parametrize(
    "shapes",
    [[(2, 3), (3, 4)], [(2, 3), (3, 4), (4, 5)], [(3,), (3, 4), (4,)], [(2, 3), (3, 9), (9, 1), (1, 4)], [(3,), (3,)]],
)
def test_multi_dot(shapes):
    arrays = [draw(*s, seed=i) for i, s in enumerate(shapes)]
    check_value(lambda *xs: np.linalg.multi_dot(xs), *arrays)
    check_grads(lambda *xs: np.linalg.multi_dot(xs), arrays, order=1)


def test_multi_dot_multiplies_in_the_cheapest_order():
    shapes = [(10, 100), (100, 5), (5, 50)]
    program = functrace.make_jaxpr(lambda *xs: np.linalg.multi_dot(xs))(*(np.ones(s) for s in shapes))
    assert program.eqns[0].outvars[0].aval.shape == (10, 5)


def test_products():
    x, y = draw(2, 3), draw(2, 3, seed=1)
    check_value(np.linalg.matmul, x, y.T.copy())
    check_value(np.linalg.outer, x[0], y[1])
    check_value(np.linalg.cross, x, y)
    check_value(lambda x, y: np.linalg.cross(x, y, axis=0), x.T.copy(), y.T.copy())
    check_value(np.linalg.vecdot, x, y)
    check_value(lambda x, y: np.linalg.vecdot(x, y, axis=0), x, y)
    check_value(lambda x, y: np.linalg.tensordot(x, y, axes=((0, 1), (0, 1))), x, y)
    check_value(lambda x: np.linalg.trace(x, dtype=np.float64), x.astype(np.float32))


def test_outside_a_trace_numpy_itself():
    a = definite(3, 3)
    for name in ("inv", "det", "cholesky", "eigh", "eigvals", "svd", "qr", "slogdet", "norm", "matrix_rank"):
        same(getattr(fnp.linalg, name)(a), getattr(np.linalg, name)(a))
    assert set(fnp.linalg.__all__) >= {n for n in dir(np.linalg) if not n.startswith("_")} - {"linalg", "test"}


def test_one_factorization_for_a_batch_of_right_hand_sides():
    program = functrace.make_jaxpr(functrace.vmap(np.linalg.solve, in_axes=(None, 0)))(definite(3, 3), draw(5, 3))
    shapes = [[v.aval.shape for v in e.invars] for e in program.eqns if e.primitive.name == "solve"]
    assert shapes == [[(3, 3), (3, 5)]]


@pytest.mark.parametrize(
    ("function", "error", "remedy"),
    [
        (lambda a: np.linalg.inv(a[:2]), ShapeError, "the last two axes are the matrix, of one length"),
        (lambda a: np.linalg.det(a[0]), ShapeError, "the last two axes"),
        (lambda a: np.linalg.svd(a[0]), ShapeError, "the last two axes are the matrix"),
        (lambda a: np.linalg.inv(a.astype(np.float16)), DTypeError, r"\.astype\(float\)"),
        (lambda a: np.linalg.solve(a, a[:2]), ShapeError, "one row for each row"),
        (lambda a: np.linalg.qr(a[:, :2], "complete"), UnsupportedFunctionError, "use mode='reduced'"),
        (lambda a: np.linalg.qr(a, "raw"), UnsupportedFunctionError, "use mode='reduced'"),
        (lambda a: np.linalg.eigh(a, "X"), ArgumentError, "choose 'L' or 'U'"),
        (lambda a: np.linalg.norm(a, 3), ArgumentError, "choose 'fro'"),
        (lambda a: np.linalg.norm(a[0], "fro"), ArgumentError, "names are for matrices"),
        (lambda a: np.linalg.norm(a[None], 2), ShapeError, "vector_norm, which flattens"),
        (lambda a: np.linalg.norm(a, axis=2), ShapeError, "use axis from -2 to 1"),
        (lambda a: np.linalg.matrix_power(a, 0.5), ArgumentError, "pass a Python integer"),
        (lambda a: np.linalg.matrix_power(a[0], 2), ShapeError, "of one length"),
        (lambda a: np.linalg.matrix_rank(a, 1.0, rtol=1.0), ArgumentError, "give one of them"),
        (lambda a: np.linalg.matrix_rank(a, np.ones(2)), ArgumentError, "plain number"),
        (lambda a: np.linalg.pinv(a, 1e-3, rtol=1e-3), ArgumentError, "give rtol alone"),
        (lambda a: np.linalg.tensorinv(a, ind=0), ShapeError, "choose ind"),
        (lambda a: np.linalg.tensorsolve(a[:2], a[0]), ShapeError, "number of elements"),
        (lambda a: np.linalg.lstsq(a, np.ones(2)), ShapeError, "as many rows"),
        (lambda a: np.linalg.multi_dot([a]), ArgumentError, "longer list"),
        (lambda a: np.linalg.multi_dot([a, a[:2]]), ShapeError, "only the first and the last"),
        (lambda a: np.linalg.outer(a, a), ShapeError, "numpy.outer flattens"),
        (lambda a: np.linalg.cross(a[:, :2], a[:, :2]), ShapeError, "3 components"),
        (lambda a: np.linalg.matrix_transpose(a[0]), ShapeError, "pass a matrix"),
        (lambda a: fsl.solve(a, a, assume_a="banded"), UnsupportedFunctionError, "'gen', 'her' or 'pos'"),
        (lambda a: fsl.solve_triangular(a, a, trans=3), ArgumentError, "choose 0"),
    ],
)
def test_errors(function, error, remedy):
    with pytest.raises(error, match=remedy):
        functrace.eval_shape(function, draw(3, 3))


def test_full_singular_vectors_refuse_to_differentiate():
    with pytest.raises(UnsupportedFunctionError, match="full_matrices=False"):
        functrace.grad(lambda a: np.linalg.svd(a)[1][0])(draw(3, 2))
