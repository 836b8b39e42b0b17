"""ravel_pytree: values, types, the way back, and both under transformations."""

import numpy as np
import pytest

import functrace as ft
from functrace.errors import ShapeError
from functrace.flatten_util import ravel_pytree


def parameters():
    return {"a": 2.0, "b": np.arange(3, dtype=np.float32), "c": (np.arange(4).reshape(2, 2), np.zeros((0, 2)))}


def test_there_and_back():
    vector, unravel = ravel_pytree(parameters())
    assert vector.dtype == np.float64
    np.testing.assert_array_equal(vector, [2.0, 0.0, 1.0, 2.0, 0.0, 1.0, 2.0, 3.0])
    back = unravel(vector)
    for leaf, expected in zip(ft.tree.leaves(back), ft.tree.leaves(parameters()), strict=True):
        expected = np.asarray(expected)
        np.testing.assert_array_equal(leaf, expected)
        assert (leaf.dtype, np.shape(leaf)) == (expected.dtype, expected.shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128, np.int64])
def test_one_dtype_is_kept(dtype):
    vector, unravel = ravel_pytree([np.ones(2, dtype), np.ones((), dtype)])
    assert vector.dtype == dtype
    assert [leaf.dtype for leaf in unravel(vector)] == [dtype, dtype]


def test_empty_tree():
    vector, unravel = ravel_pytree({})
    assert vector.shape == (0,)
    assert unravel(vector) == {}


def test_vector_does_not_share_memory():
    x = np.ones(3)
    ravel_pytree(x)[0][:] = 5.0
    np.testing.assert_array_equal(x, 1.0)


@pytest.mark.parametrize("shape", [(3,), (5,), (), (2, 2)])
def test_wrong_length(shape):
    _, unravel = ravel_pytree([np.ones(2), np.ones(2)])
    with pytest.raises(ShapeError, match=r"give shape \(4,\)"):
        unravel(np.ones(shape))


def test_derivatives_both_ways():
    tree = {"w": np.array([[1.0, 2.0], [3.0, 4.0]]), "b": 0.5}
    vector, unravel = ravel_pytree(tree)

    def of_tree(t):
        return np.sum(t["w"] ** 3) * t["b"]

    expected = ravel_pytree(ft.grad(of_tree)(tree))[0]
    np.testing.assert_allclose(ft.grad(lambda v: of_tree(unravel(v)))(vector), expected)
    np.testing.assert_allclose(ft.jacfwd(lambda v: of_tree(unravel(v)))(vector), expected)
    slopes = ft.grad(lambda t: np.sum(ravel_pytree(t)[0] ** 2))(tree)
    np.testing.assert_allclose(slopes["w"], 2.0 * tree["w"])
    assert slopes["b"] == 1.0


def test_batched():
    rows = ft.vmap(lambda b: ravel_pytree({"b": b, "c": 2.0 * b})[0])(np.ones((3, 2)))
    np.testing.assert_array_equal(rows, [[1.0, 1.0, 2.0, 2.0]] * 3)
    _, unravel = ravel_pytree({"b": np.zeros(2), "c": 0.0})
    trees = ft.vmap(unravel)(np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(trees["c"], [2.0, 5.0])
