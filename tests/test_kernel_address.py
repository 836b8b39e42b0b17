"""A user's Numba kernel as a C function that compiled programs call by its address."""

import numba
import numpy as np
import pytest

import functrace


def aval(shape, dtype=float):
    return functrace.extend.ShapedArray(shape, np.dtype(dtype))


def test_kernel_by_address(rng):
    @numba.njit
    def kernel(x, a, n):
        out = np.empty((x.shape[1], x.shape[0]))
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                out[j, i] = a * x[i, j] ** n
        return out

    x = rng.normal(size=(3, 4))
    native = functrace.extend.kernel_address(kernel, [aval((3, 4)), aval(()), aval((), np.int64)], aval((4, 3)))
    np.testing.assert_array_equal(native(x, 2.0, 3), kernel(x, 2.0, 3))
    again = functrace.extend.kernel_address(kernel, (aval((3, 4)), aval(()), aval((), np.int64)), aval((4, 3)))
    assert again is native and native.address
    other = functrace.extend.kernel_address(kernel, [aval((1, 2)), aval(()), aval((), np.int64)], aval((2, 1)))
    assert other.address != native.address


@pytest.mark.parametrize("dtype", ["complex128", "bool"])
def test_kernel_by_address_of_any_type(dtype, rng):
    """A plain function, a number for a result, results of a strided view."""
    x = rng.normal(size=6).astype(dtype)
    number = functrace.extend.kernel_address(lambda x: x[2], [aval((6,), dtype)], aval((), dtype))
    assert number(x) == x[2]
    view = functrace.extend.kernel_address(lambda x: x[::-2], [aval((6,), dtype)], aval((3,), dtype))
    np.testing.assert_array_equal(view(x), x[::-2])


def test_kernel_by_address_reports_what_went_wrong():
    @numba.njit
    def picky(x):
        if x[0] < 0:
            raise ValueError("negative")
        return x[:1] if x[0] > 1 else x

    native = functrace.extend.kernel_address(picky, [aval((2,))], aval((2,)))
    np.testing.assert_array_equal(native(np.array([0.5, 1.0])), [0.5, 1.0])
    with pytest.raises(RuntimeError, match="the kernel raised"):
        native(np.array([-1.0, 1.0]))
    with pytest.raises(RuntimeError, match="another shape"):
        native(np.array([2.0, 1.0]))


def test_kernel_that_numba_cannot_compile_has_no_address():
    assert functrace.extend.kernel_address(lambda x: functrace.grad(np.sin)(x), [aval(())], aval(())) is None
    assert functrace.extend.kernel_address(lambda x: x + 1, [aval((2,))], aval((2,), np.float32)) is None
