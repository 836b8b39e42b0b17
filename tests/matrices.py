"""Matrices to test with, and the check that a traced function gives what NumPy gives."""

from collections.abc import Callable
from typing import Any

import numpy as np

import functrace
from functrace import tree


def draw(*shape: int, dtype: Any = np.float64, seed: int = 0) -> np.ndarray:
    """A random matrix with singular values 1, 2, 3 ..."""
    rng = np.random.default_rng([seed, *shape])
    a = rng.normal(size=shape)
    if np.dtype(dtype).kind == "c":
        a = a + 1j * rng.normal(size=shape)
    if len(shape) > 1 and a.size:
        u, s, vh = np.linalg.svd(a, full_matrices=False)
        a = (u * (1.0 + np.arange(s.shape[-1])[::-1])) @ vh
    return a.astype(dtype)


def definite(*shape: int, dtype: Any = np.float64) -> np.ndarray:
    """A Hermitian positive definite matrix."""
    a = draw(*shape, dtype=dtype)
    return a @ np.conj(np.swapaxes(a, -1, -2)) + np.eye(shape[-1], dtype=dtype)


def same(actual: Any, expected: Any) -> None:
    """Equal leaf by leaf: shapes, dtypes and, to rounding, values."""
    actual, expected = tree.leaves(actual), tree.leaves(expected)
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        a, e = np.asarray(a), np.asarray(e)
        assert (a.shape, a.dtype) == (e.shape, e.dtype)
        tolerance = 2e-4 if e.dtype in (np.float32, np.complex64) else 1e-10
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)


def check_value(function: Callable[..., Any], *args: Any, batched: bool = True) -> None:
    """Staged, linearized and batched, a function gives what NumPy gives, with NumPy's named results."""
    expected = function(*args)
    closed, out = functrace.make_jaxpr(function, return_shape=True)(*args)
    staged = functrace.eval_jaxpr(closed.jaxpr, closed.consts, *args)
    same(staged, expected)
    assert tree.structure(out) == tree.structure(expected)
    if all(np.asarray(a).dtype.kind in "fc" for a in args):
        value, _ = functrace.linearize(function, *args)
        same(value, expected)
        assert type(value) is type(expected) or not isinstance(expected, tuple)
    if batched:
        stacks = [np.stack([a, a]) for a in args]
        same(tree.map(lambda x: x[1], functrace.vmap(function)(*stacks)), expected)
