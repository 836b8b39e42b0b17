"""Products of matrices and vectors in compiled programs, small ones by code of their own: equal to NumPy's."""

import numpy as np
import pytest

from functrace import explain, grad, jit

RNG = np.random.default_rng(11)
SIZES = [
    (2, 3),
    (7, 9),
    (8, 8),
    (9, 17),
    (16, 16),
    (17, 31),
    (30, 128),
    (31, 129),
    (64, 64),
    (65, 100),
    (300, 20),
    (520, 8),
]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products(size, dtype):
    rows, columns = size
    a, x, y = (RNG.normal(size=s).astype(dtype) for s in (size, columns, rows))
    rtol = 1e-12 if dtype == np.float64 else 3e-5
    cases = {
        "rows": (lambda a, x, y: a @ x, a @ x),
        "columns": (lambda a, x, y: a.T @ y, a.T @ y),
        "left": (lambda a, x, y: y @ a, y @ a),
        "strided matrix": (lambda a, x, y: a[:, ::-1] @ x, a[:, ::-1] @ x),
        "every other row": (lambda a, x, y: a[::2] @ x, a[::2] @ x),
        "reversed vector": (lambda a, x, y: a @ x[::-1], a @ x[::-1]),
        "stack": (lambda a, x, y: np.stack([a, 2 * a]) @ x, np.stack([a, 2 * a]) @ x),
    }
    for name, (function, expected) in cases.items():
        np.testing.assert_allclose(jit(function)(a, x, y), expected, rtol=rtol, atol=rtol * 10, err_msg=name)


def test_special_values_stay():
    a, x = RNG.normal(size=(20, 20)), RNG.normal(size=20)
    a[3, 4], a[5, 6], x[7] = np.nan, np.inf, -np.inf
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(jit(lambda a, x: a @ x)(a, x), a @ x, rtol=1e-12)
        np.testing.assert_allclose(jit(lambda a, x: a.T @ x)(a, x), a.T @ x, rtol=1e-12)


def test_gradient_of_a_layer():
    a, x = RNG.normal(size=(40, 50)), RNG.normal(size=50)
    slope = grad(lambda a: np.sum(np.tanh(a @ x) ** 2))
    np.testing.assert_allclose(jit(slope)(a), slope(a), rtol=1e-11, atol=1e-13)
    assert "library" in repr(explain(lambda a, x: a @ x)(a, x))
