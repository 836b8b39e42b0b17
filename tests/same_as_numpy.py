"""Checks that a function gives what NumPy gives under every transformation, and its derivatives where it is linear."""

from collections.abc import Callable
from typing import Any

import numpy as np

import functrace
from functrace import tree

DTYPES = [np.float64, np.float32, np.complex64, np.int32, np.bool_]


def sample(shape: tuple[int, ...], dtype: Any = np.float64, seed: int = 0) -> np.ndarray:
    """Distinct values of a dtype."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    values = rng.permutation(size) * 0.5 + rng.uniform(0.1, 0.4, size) + 1.0
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.permutation(values)
    if np.dtype(dtype).kind == "b":
        values = rng.uniform(size=size) < 0.5
    return values.reshape(shape).astype(dtype)


def assert_same(actual: Any, expected: Any) -> None:
    """Equal in structure, shape, dtype and, to rounding, values."""
    if isinstance(expected, (tuple, list)):
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected, strict=True):
            assert_same(a, e)
        return
    assert np.shape(actual) == np.shape(expected)
    assert np.asarray(actual).dtype == np.asarray(expected).dtype
    actual, expected = np.asarray(actual), np.asarray(expected)
    rtol = 8 * np.finfo(expected.dtype).eps if expected.dtype.kind in "fc" else 0
    np.testing.assert_allclose(actual, expected, rtol=rtol)


def leaves(out: Any) -> list[Any]:
    return [np.asarray(leaf) for leaf in tree.leaves(out)]


def check_values(fun: Callable[..., Any], *args: Any) -> None:
    """`fun` gives NumPy's result when traced by jvp and linearize, staged, and batched."""
    expected = fun(*args)
    inexact = [np.asarray(a).dtype.kind in "fc" for a in args]
    tangents = [np.ones_like(a) if i else None for a, i in zip(args, inexact, strict=True)]
    if any(inexact):
        assert_same(functrace.jvp(fun, args, tuple(tangents))[0], expected)
        assert_same(functrace.linearize(fun, *args)[0], expected)
    closed, out = functrace.make_jaxpr(fun, return_shape=True)(*args)
    flat = functrace.eval_jaxpr(closed.jaxpr, closed.consts, *args)
    assert_same(tree.unflatten(tree.structure(out), flat), expected)
    if args:
        batches = [np.stack([a, sample(a.shape, a.dtype, 7)]) for a in args]
        got = functrace.vmap(fun)(*batches)
        rows = [leaves(fun(*(b[i] for b in batches))) for i in range(2)]
        for actual, first, second in zip(leaves(got), *rows, strict=True):
            assert_same(actual, np.stack([first, second]))


def check_linear(fun: Callable[..., Any], *args: Any) -> None:
    """Both modes give the derivative of a function that is linear (or affine) in its real arrays, exactly."""
    tangents = tuple(sample(a.shape, a.dtype, 11) for a in args)
    base, moved = leaves(fun(*args)), leaves(fun(*(a + t for a, t in zip(args, tangents, strict=True))))
    expected = [m - b for m, b in zip(moved, base, strict=True)]
    actual = leaves(functrace.jvp(fun, args, tangents)[1])
    tolerance = 1e-9
    for a, e in zip(actual, expected, strict=True):
        tolerance = 1e-9 if a.dtype == np.float64 else 1e-5
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance)
    out, pull = functrace.vjp(fun, *args)
    bars = tree.map(lambda leaf: sample(np.shape(leaf), leaf.dtype, 13), out)
    inner = sum(np.vdot(b, e) for b, e in zip(leaves(bars), expected, strict=True))
    np.testing.assert_allclose(
        sum(np.vdot(g, t) for g, t in zip(pull(bars), tangents, strict=True)), inner, rtol=tolerance, atol=tolerance
    )
