"""Products that sum: values, shapes and dtypes as NumPy's, derivatives against finite differences and closed forms."""

import numpy as np
import pytest

import functrace
import functrace.numpy as fnp
from functrace.errors import ArgumentError, ShapeError, UnsupportedFunctionError

DTYPES = [np.float64, np.float32, np.complex128, np.int64, np.int8, np.bool_]


def draw(shape, dtype=np.float64, seed=0):
    rng = np.random.default_rng([seed, *shape])
    if np.dtype(dtype).kind == "c":
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(dtype)
    if np.dtype(dtype).kind == "b":
        return rng.random(shape) < 0.5
    return (rng.normal(size=shape) if np.dtype(dtype).kind == "f" else rng.integers(-3, 4, shape)).astype(dtype)


def traced(function, *args):
    """Run under a staging trace and evaluate what it recorded."""
    closed = functrace.make_jaxpr(function)(*args)
    (out,) = functrace.eval_jaxpr(closed.jaxpr, closed.consts, *args)
    return out


def check_value(function, *args):
    """Traced by jvp, staged and batched, a function gives what NumPy gives."""
    expected = function(*args)
    rtol = 1e-4 if np.asarray(expected).dtype in (np.float32, np.complex64) else 1e-10
    batched = functrace.vmap(function)(*(np.stack([a, a]) for a in args))[1]
    for out in (traced(function, *args), batched):
        assert np.asarray(out).dtype == np.asarray(expected).dtype
        assert np.shape(out) == np.shape(expected)
        np.testing.assert_allclose(out, expected, rtol=rtol, atol=rtol)


def check_derivatives(function, *args):
    """Both modes against central differences along one direction, for real arguments; then the four Hessians."""
    argnums = tuple(range(len(args)))
    weights = draw(np.shape(function(*args)), seed=7)

    def scalar(*values):
        return np.tensordot(weights, function(*values), np.ndim(weights))

    gradient = functrace.grad(scalar, argnums)(*args)
    direction = [draw(a.shape, seed=3) for a in args]
    step = 1e-5
    ahead = scalar(*(a + step * d for a, d in zip(args, direction, strict=True)))
    behind = scalar(*(a - step * d for a, d in zip(args, direction, strict=True)))
    slope = sum(np.sum(g * d) for g, d in zip(gradient, direction, strict=True))
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-7)
    forward = functrace.jvp(scalar, args, tuple(direction))[1]
    np.testing.assert_allclose(forward, slope, rtol=1e-10, atol=1e-10)


PRODUCTS = [
    (np.dot, (), ()), (np.dot, (3,), ()), (np.dot, (), (2, 3)), (np.dot, (3,), (3,)), (np.dot, (2, 3), (3,)),
    (np.dot, (3,), (3, 2)), (np.dot, (2, 3), (3, 4)), (np.dot, (2, 3, 4), (5, 4, 2)), (np.dot, (2, 3, 4), (4,)),
    (np.dot, (0, 3), (3, 2)), (np.dot, (2, 0), (0, 3)), (np.dot, (0,), (0,)), (np.matmul, (3,), (3,)),
    (np.matmul, (2, 3), (3,)), (np.matmul, (3,), (3, 2)), (np.matmul, (2, 3), (3, 4)), (np.matmul, (5, 2, 3), (3, 4)),
    (np.matmul, (2, 3), (5, 3, 4)), (np.matmul, (5, 2, 3), (5, 3, 4)), (np.matmul, (5, 1, 2, 3), (6, 3, 4)),
    (np.matmul, (1, 2, 3), (5, 3, 4)), (np.matmul, (5, 2, 3), (1, 3, 4)), (np.matmul, (5, 2, 3), (3,)),
    (np.matmul, (3,), (5, 3, 2)), (np.matmul, (0, 2, 3), (0, 3, 4)), (np.matmul, (6, 1, 2, 3), (6, 5, 3, 4)),
    (np.matmul, (2, 0), (0, 3)), (np.vecdot, (3,), (3,)), (np.vecdot, (2, 3), (3,)), (np.vecdot, (2, 1, 3), (4, 3)),
    (np.vecdot, (0,), (0,)), (np.matvec, (2, 3), (3,)), (np.matvec, (5, 2, 3), (3,)), (np.matvec, (2, 3), (5, 3)),
    (np.matvec, (4, 1, 2, 3), (5, 3)), (np.vecmat, (3,), (3, 2)), (np.vecmat, (5, 3), (3, 2)),
    (np.vecmat, (3,), (5, 3, 2)), (np.vecmat, (4, 1, 3), (5, 3, 2)), (np.inner, (), (3,)), (np.inner, (3,), (3,)),
    (np.inner, (2, 3), (3,)), (np.inner, (2, 3), (4, 5, 3)), (np.outer, (3,), (4,)), (np.outer, (2, 3), ()),
    (np.outer, (2, 0), (3,)), (np.vdot, (3,), (3,)), (np.vdot, (2, 3), (3, 2)), (np.vdot, (), ()),
    (np.vdot, (0,), (0,)), (np.kron, (2,), (3,)), (np.kron, (2, 3), (4, 5)), (np.kron, (2,), (3, 4)),
    (np.kron, (2, 1, 3), (2, 2)), (np.kron, (), (3,)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("function", "left", "right"), PRODUCTS)
def test_product_values(function, left, right, dtype):
    check_value(function, draw(left, dtype), draw(right, dtype, 1))


@pytest.mark.parametrize(("function", "left", "right"), PRODUCTS)
def test_product_derivatives(function, left, right):
    check_derivatives(function, draw(left), draw(right, seed=1))


@pytest.mark.parametrize(("function", "left", "right"), [p for p in PRODUCTS if p[0] in (np.dot, np.matmul, np.vdot)])
def test_mixed_dtypes_promote(function, left, right):
    for first, second in [
        (np.float32, np.float64),
        (np.int64, np.float32),
        (np.bool_, np.int8),
        (np.float32, np.complex64),
    ]:
        check_value(function, draw(left, first), draw(right, second, 1))


SUBSCRIPTS = [
    ("i->", (3,)), ("i->i", (3,)), ("ij->ji", (2, 3)), ("ij->", (2, 3)), ("ij->j", (2, 3)), ("ii", (3, 3)),
    ("ii->i", (3, 3)), ("iij->j", (3, 3, 2)), ("iji->ij", (3, 2, 3)), ("iii->i", (3, 3, 3)),
    ("iijj->ij", (2, 2, 3, 3)), ("...ii->...i", (2, 3, 3)), ("...->...", (2, 3)), ("i...->...", (2, 3, 4)),
    ("i...j", (2, 3, 4)), ("", ()), ("->", ()), (" i j -> j i", (2, 3)), ("ij,jk", (2, 3), (3, 4)),
    ("ij,jk->ki", (2, 3), (3, 4)), ("ij,kj->ik", (2, 3), (4, 3)), ("ji,jk->ik", (3, 2), (3, 4)),
    ("ji,kj->ik", (3, 2), (4, 3)), ("i,j", (2,), (3,)), ("i,j->ji", (2,), (3,)), ("i,i", (3,), (3,)),
    ("i,i->i", (3,), (3,)), ("ij,ij", (2, 3), (2, 3)), ("ij,ji->", (2, 3), (3, 2)), ("ij,ij->ij", (2, 3), (2, 3)),
    ("bij,bjk->bik", (5, 2, 3), (5, 3, 4)), ("bij,jk->bik", (5, 2, 3), (3, 4)), ("ij,bjk->bik", (2, 3), (5, 3, 4)),
    ("bij,bjk->ikb", (5, 2, 3), (5, 3, 4)), ("bijk,bkl->bijl", (5, 2, 3, 4), (5, 4, 2)),
    ("bkij,bkl->blij", (2, 4, 2, 3), (2, 4, 2)), ("ijk,kjl->il", (2, 3, 4), (4, 3, 5)),
    ("...ij,...jk->...ik", (6, 1, 2, 3), (5, 3, 4)), ("...i,...i", (2, 3), (3,)), ("ij,kl->", (2, 3), (4, 5)),
    ("ij,k->i", (2, 3), (4,)), ("ii,ij->j", (3, 3), (3, 2)), ("ij,jk->ik", (2, 1), (3, 4)),
    ("ij,j->ij", (2, 3), (1,)), ("...,...", (2, 3), (3,)), (",", (), ()), (",i->i", (), (3,)),
    ("ij,jk,kl", (2, 3), (3, 4), (4, 5)), ("i,ij,j", (2,), (2, 3), (3,)),
    ("ij,jk,kl,lm->im", (2, 3), (3, 4), (4, 5), (5, 2)), ("i,i,i->i", (3,), (3,), (3,)),
    ("ij,ik,il->jkl", (2, 3), (2, 4), (2, 5)), ("...i,...j,k->...k", (2, 3), (2, 4), (5,)),
    ("i,j,k->kji", (2,), (3,), (4,)), ("ij,jk->ik", (0, 3), (3, 2)), ("ij,jk->ik", (2, 0), (0, 3)),
    ("aB,Bc", (2, 3), (3, 4)), ("Ba,ac", (2, 3), (3, 4)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", SUBSCRIPTS)
def test_einsum_values(case, dtype):
    subscripts, *shapes = case
    if len(shapes) > 2 and np.dtype(dtype).kind in "ib" and dtype != np.int64:
        pytest.skip("overflow depends on the order of contraction")
    check_value(lambda *ops: np.einsum(subscripts, *ops), *(draw(s, dtype, i) for i, s in enumerate(shapes)))


@pytest.mark.parametrize("case", SUBSCRIPTS)
def test_einsum_derivatives(case):
    subscripts, *shapes = case
    check_derivatives(lambda *ops: np.einsum(subscripts, *ops), *(draw(s, seed=i) for i, s in enumerate(shapes)))


@pytest.mark.parametrize(
    "optimize", [False, True, "greedy", "optimal", ["einsum_path", (0, 1), (0, 1)], ["einsum_path", (0, 1, 2)]]
)
def test_einsum_optimize(optimize):
    check_value(
        lambda x, y, z: np.einsum("ij,jk,kl->il", x, y, z, optimize=optimize), draw((2, 3)), draw((3, 4)), draw((4, 5))
    )


def test_einsum_sublists_and_options():
    x, y = draw((2, 3)), draw((4, 3))
    check_value(lambda x, y: np.einsum(x, [0, 1], y, [2, 1]), x, y)
    check_value(lambda x, y: np.einsum(x, [5, 1], y, [2, 1], [2, 5]), x, y)
    check_value(lambda x, y: np.einsum(x, [..., 1], y, [2, 1], [..., 2]), x, y)
    check_value(lambda x: np.einsum("ij->j", x, dtype=np.float64, order="K", casting="safe"), x.astype(np.float32))
    path = functrace.eval_shape(lambda x: x * len(np.einsum_path("ij,kj", x, y)[0]), x)
    assert path.shape == (2, 3)


@pytest.mark.parametrize("axes", [0, 1, 2, ((1, 2), (0, 1)), ((2, 1), (1, 0)), ([-1], [1]), (2, 1), ((0, 2), (2, 1))])
@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_tensordot(axes, dtype):
    x, y = draw((2, 3, 3), dtype), draw((3, 3, 2), dtype, 1)
    check_value(lambda x, y: np.tensordot(x, y, axes), x, y)
    if dtype is np.float64:
        check_derivatives(lambda x, y: np.tensordot(x, y, axes), x, y)


@pytest.mark.parametrize(
    ("left", "right", "options"),
    [
        ((3,), (3,), {}),
        ((4, 3), (3,), {}),
        ((4, 3), (4, 3), {}),
        ((4, 1, 3), (5, 3), {}),
        ((3, 4), (3, 4), {"axis": 0}),
        ((3, 4), (4, 3), {"axisa": 0, "axisb": 1, "axisc": 0}),
    ],
)
def test_cross(left, right, options):
    x, y = draw(left), draw(right, seed=1)
    check_value(lambda x, y: np.cross(x, y, **options), x, y)
    check_derivatives(lambda x, y: np.cross(x, y, **options), x, y)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(("left", "right"), [((2,), (2,)), ((4, 2), (2,)), ((2,), (3,)), ((4, 3), (2,))])
def test_cross_of_short_vectors(left, right):
    check_value(np.cross, draw(left), draw(right, seed=1))
    check_derivatives(np.cross, draw(left), draw(right, seed=1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 3), (2, 4), (4, 2), (1, 1), (0, 3)])
@pytest.mark.parametrize("offset", [0, 1, -1, 3, -7])
def test_trace(shape, offset, dtype):
    check_value(lambda x: np.trace(x, offset), draw(shape, dtype))


def test_trace_axes():
    check_value(lambda x: np.trace(x, 1, 2, 0), draw((3, 2, 4)))
    check_value(lambda x: np.trace(x, axis1=-1, axis2=1), draw((3, 2, 4)))
    check_value(lambda x: np.trace(x, dtype=np.float64), draw((3, 3), np.int8))
    check_derivatives(lambda x: np.trace(x, -1, 1, 2), draw((3, 2, 4)))


def test_matmul_operator():
    x, y = draw((2, 3)), draw((3, 4))
    check_value(lambda a: a @ y, x)
    check_value(lambda b: x @ b, y)
    with pytest.raises(ShapeError, match=r"multiply by a number with \*"):
        functrace.grad(lambda x: np.sum(x @ 2.0))(x)


@pytest.mark.parametrize("mode", ["fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev"])
def test_quadratic_form(mode):
    a, x = draw((4, 4)), draw((4,))
    np.testing.assert_allclose(functrace.hessian(lambda x: x @ a @ x, mode=mode)(x), a + a.T)
    np.testing.assert_allclose(functrace.hessian(lambda x: np.einsum("i,ij,j", x, a, x), mode=mode)(x), a + a.T)


def test_complex_products_are_not_conjugated():
    x, y = draw((3,), np.complex128), draw((3,), np.complex128, 1)
    jac = functrace.jacfwd(np.dot, holomorphic=True)(x, y)
    np.testing.assert_allclose(jac, y)
    np.testing.assert_allclose(functrace.jacrev(np.dot, holomorphic=True)(x, y), y)
    np.testing.assert_allclose(functrace.jvp(np.vdot, (x, y), (y, y))[1], np.vdot(y, y) + np.vdot(x, y))


def test_one_batched_operand_stays_one_product():
    """The batch axis folds into a free axis: no batch axes of dot_general, no copies of the other operand."""
    program = functrace.make_jaxpr(functrace.vmap(np.matmul, in_axes=(0, None)))(draw((5, 2, 3)), draw((3, 4)))
    assert [e.params["batch"] for e in program.eqns] == [((), ())]
    program = functrace.make_jaxpr(functrace.vmap(np.matmul, in_axes=(None, 0)))(draw((2, 3)), draw((5, 3, 4)))
    assert [e.primitive.name for e in program.eqns] == ["dot_general", "transpose"]


def test_float32_gradients_stay_float32():
    x, y = draw((2, 3), np.float32), draw((3, 4), np.float32)
    assert functrace.grad(lambda x: np.tensordot(x @ y, x @ y, 2))(x).dtype == np.float32


@pytest.mark.parametrize("function", [np.dot, np.inner, np.outer, np.kron, lambda x, y: np.einsum(",i", x, y)])
def test_python_numbers_count_as_arrays(function):
    y = draw((3,), np.float32)
    assert functrace.jvp(lambda x: function(x, y), (2.0,), (1.0,))[0].dtype == function(2.0, y).dtype


def test_outside_a_trace_numpy_itself():
    x, y = draw((2, 3)), draw((3, 4))
    for name in ("dot", "matmul", "inner", "einsum"):
        args = ("ij,jk", x, y) if name == "einsum" else (x, y) if name != "inner" else (x, x)
        np.testing.assert_array_equal(getattr(fnp, name)(*args), getattr(np, name)(*args))


@pytest.mark.parametrize(
    ("function", "error", "remedy"),
    [
        (lambda x: np.dot(x, x), ShapeError, "last axis of the first operand"),
        (lambda x: np.matmul(x, x), ShapeError, "last axis of the first operand"),
        (lambda x: np.matmul(np.ones((5, 2, 2)), x * np.ones((4, 1, 1))), ShapeError, "one length"),
        (lambda x: np.inner(x, np.ones(2)), ShapeError, "last axes must have one length"),
        (lambda x: np.vdot(x, np.ones(2)), ShapeError, "same number of elements"),
        (lambda x: np.vecdot(x, np.ones(2)), ShapeError, "one length"),
        (lambda x: np.matvec(x, np.ones(2)), ShapeError, "see numpy.matvec"),
        (lambda x: np.tensordot(x, np.ones(5), 1), ShapeError, "paired axes must have equal lengths"),
        (lambda x: np.tensordot(x, np.ones(5), 3), ShapeError, "paired axes must have equal lengths"),
        (lambda x: np.trace(x @ np.ones(3)), ShapeError, "pass a matrix"),
        (lambda x: np.trace(x, 0, 0, 2), ShapeError, "use axis from"),
        (lambda x: np.einsum("ii", x), ShapeError, "need one length"),
        (lambda x: np.einsum("ii", x[:1]), ShapeError, "two different subscripts"),
        (lambda x: np.einsum("ij,jk", x, x), ShapeError, "need one length"),
        (lambda x: np.einsum("ij,jk", x), ArgumentError, "operands separated by commas"),
        (lambda x: np.einsum("i", x), ArgumentError, "one letter per axis"),
        (lambda x: np.einsum("ij->ii", x), ArgumentError, "one letter per axis"),
        (lambda x: np.einsum("ij->k", x), ArgumentError, "one letter per axis"),
        (lambda x: np.einsum("i...->i", x), ArgumentError, "one letter per axis"),
        (lambda x: np.einsum("i.j", x), ArgumentError, "one letter per axis"),
        (lambda x: np.cross(x, np.ones(4)), ShapeError, "2 or 3 components"),
        (lambda x: np.dot(x, np.ones(3), out=np.ones(2)), UnsupportedFunctionError, "assign the result"),
        (lambda x: np.matmul(x, np.ones(3), dtype=np.float32), UnsupportedFunctionError, "astype"),
    ],
)
def test_errors(function, error, remedy):
    with pytest.raises(error, match=remedy):
        functrace.eval_shape(function, draw((2, 3)))
