"""Norms and condition numbers: NumPy's values over all orders and axes, and the derivative at 0."""

import numpy as np
import pytest

import functrace
import functrace.numpy as fnp
from functrace.testing import check_grads
from tests.matrices import check_value, draw

DTYPES = [np.float64, np.float32, np.complex128]
VECTOR_ORDERS = [None, 2, 1, 0, np.inf, -np.inf, 3, 0.5, -1]
MATRIX_ORDERS = [None, "fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf]


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ord", VECTOR_ORDERS)
def test_vector_norms(ord, dtype, keepdims):
    x = draw(2, 3, 4, dtype=dtype)
    for axis in (0, -1, (1,)):
        check_value(lambda x, axis=axis: np.linalg.norm(x, ord, axis, keepdims), x)
    check_value(lambda x: np.linalg.norm(x, ord, keepdims=keepdims), x[0, 0])
    if ord is not None:
        for axis in (None, 1, (0, 2)):
            check_value(lambda x, axis=axis: np.linalg.vector_norm(x, axis=axis, keepdims=keepdims, ord=ord), x)
    if dtype != np.float32:
        check_grads(lambda x: np.linalg.norm(x, ord, -1), (x,), order=0 if ord == 0 else 2)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ord", MATRIX_ORDERS)
def test_matrix_norms(ord, dtype, keepdims):
    x = draw(2, 3, 4, dtype=dtype)
    for axis in ((0, 1), (-1, 0), (2, 1)):
        check_value(lambda x, axis=axis: np.linalg.norm(x, ord, axis, keepdims), x)
    check_value(lambda x: np.linalg.norm(x, ord, keepdims=keepdims), x[0])
    if ord is not None:
        check_value(lambda x: np.linalg.matrix_norm(x, keepdims=keepdims, ord=ord), x)
    if dtype != np.float32:
        check_grads(lambda x: np.linalg.norm(x, ord), (x[0],), order=2)


def test_norm_of_everything():
    check_value(lambda x: np.linalg.norm(x), draw(2, 3, 4))
    check_value(lambda x: np.linalg.norm(x, keepdims=True), draw(2, 3, 4))
    check_value(np.linalg.norm, np.arange(6).reshape(2, 3))


def test_norms_at_zero():
    with np.errstate(all="ignore"):
        assert np.isnan(functrace.grad(np.linalg.norm)(np.zeros(3))).all()
    np.testing.assert_array_equal(functrace.grad(fnp.linalg.safe_norm)(np.zeros(3)), np.zeros(3))
    np.testing.assert_array_equal(functrace.jacfwd(fnp.linalg.safe_norm)(np.zeros(3)), np.zeros(3))
    np.testing.assert_array_equal(functrace.hessian(fnp.linalg.safe_norm)(np.zeros(2)), np.zeros((2, 2)))
    x = np.array([[3.0, 4.0], [0.0, 0.0]])
    rows = functrace.jacrev(lambda x: fnp.linalg.safe_norm(x, axis=1))(x)
    np.testing.assert_allclose(rows[0], [[0.6, 0.8], [0, 0]])
    np.testing.assert_array_equal(rows[1], np.zeros((2, 2)))
    np.testing.assert_array_equal(fnp.linalg.safe_norm(x, 1, keepdims=True), np.linalg.norm(x, axis=1, keepdims=True))
    check_grads(fnp.linalg.safe_norm, (draw(2, 2, dtype=np.complex128),), order=2)


@pytest.mark.parametrize("p", [None, 2, -2, 1, -1, "fro", "nuc", np.inf, -np.inf])
def test_cond(p):
    check_value(lambda a: np.linalg.cond(a, p), draw(2, 3, 3))
    check_value(np.linalg.cond, draw(3, 2))
