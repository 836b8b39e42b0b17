"""Matrices that a compiled loop multiplies vectors by: copied once, in columns, before the first step."""

import numpy as np
import pytest

from functrace import grad, jit, lax, value_and_grad, vmap

RNG = np.random.default_rng(13)
STEPS = 40


def close(function, *args, rtol=1e-11):
    np.testing.assert_allclose(jit(function)(*args), function(*args), rtol=rtol, atol=rtol)


def recurrent(step):
    def final(w, s, xs):
        return lax.scan(lambda s, x: (step(w, s, x), None), s, xs)[0]

    return final


WAYS = {
    "rows": lambda w, s, x: np.tanh(w @ s + x),
    "columns": lambda w, s, x: np.tanh(w.T @ s + x),
    "from the left": lambda w, s, x: np.tanh(s @ w + x),
    "both ways": lambda w, s, x: np.tanh(w @ (w.T @ s) + x),
    "and otherwise": lambda w, s, x: np.tanh(w @ s + x) + w[0] * np.sum(w),
    "part of it": lambda w, s, x: np.tanh(w[::-1, ::-1] @ s + x),
    "twice": lambda w, s, x: np.tanh(w @ s + w @ x),
}


@pytest.mark.parametrize("n", [2, 7, 8, 13, 20, 64, 65, 130])
@pytest.mark.parametrize("way", WAYS)
def test_ways_of_using_a_matrix(way, n):
    w, s, xs = RNG.normal(size=(n, n)) / n, RNG.normal(size=n), RNG.normal(size=(STEPS, n))
    close(recurrent(WAYS[way]), w, s, xs)
    if n in (13, 64):
        close(lambda w: value_and_grad(lambda w: np.sum(recurrent(WAYS[way])(w, s, xs)))(w)[1], w)


@pytest.mark.parametrize("shape", [(9, 30), (30, 9), (300, 20), (20, 300), (8, 5000)])
def test_matrices_of_any_form(shape):
    w, s, xs = RNG.normal(size=shape) / 50, RNG.normal(size=shape[1]), RNG.normal(size=(STEPS, shape[1]))
    close(recurrent(lambda w, s, x: np.tanh(w.T @ (w @ s) + x)), w, s, xs)


@pytest.mark.parametrize("dtype", [np.float32, np.complex128, np.int64])
def test_other_numbers(dtype):
    w, s, xs = (RNG.integers(-2, 3, size=size).astype(dtype) for size in ((20, 20), 20, (STEPS, 20)))
    rtol = 1e-4 if dtype == np.float32 else 1e-10
    close(recurrent(lambda w, s, x: (w @ s + x) / 8 if dtype != np.int64 else w @ s % 5 + x), w, s, xs, rtol=rtol)


def test_matrices_that_are_no_constants():
    ws, s = RNG.normal(size=(STEPS, 20, 20)) / 20, RNG.normal(size=20)
    close(lambda ws, s: lax.scan(lambda s, w: (np.tanh(w @ s), None), s, ws)[0], ws, s)
    close(lambda w, s: lax.fori_loop(0, 5, lambda i, c: (c[0] + 0.1, np.tanh(c[0] @ c[1])), (w, s))[1], ws[0], s)


def test_while_loops():
    def decay(w, s):
        return lax.while_loop(lambda s: np.sum(s * s) > 1e-3, lambda s: w @ s, s)

    close(decay, RNG.normal(size=(20, 20)) / 20, RNG.normal(size=20))
    close(decay, RNG.normal(size=(20, 20)) / 20, np.zeros(20))  # no step at all


def test_loops_in_loops():
    def final(w, s):
        inner = lambda s: lax.scan(lambda s, _: (np.tanh(w @ s), None), s, None, length=STEPS)[0]  # noqa: E731
        return np.sum(lax.scan(lambda s, _: (inner(s) + w @ s, None), s, None, length=STEPS)[0])

    w, s = RNG.normal(size=(24, 24)) / 5, RNG.normal(size=24)
    close(final, w, s)
    close(lambda w, s: grad(final)(w, s), w, s)


def test_batches():
    w, s, xs = RNG.normal(size=(16, 16)) / 4, RNG.normal(size=(5, 16)), RNG.normal(size=(STEPS, 16))
    close(vmap(recurrent(WAYS["rows"]), in_axes=(None, 0, None)), w, s, xs)
    close(vmap(recurrent(WAYS["rows"]), in_axes=(0, None, None)), RNG.normal(size=(3, 16, 16)) / 4, s[0], xs)


def test_steps_read_whole_vectors_and_add_up_nothing_across_them():
    """The design: no sums across lanes in the loop, and no second stack of what a step is given."""
    w, s, xs = RNG.normal(size=(64, 64)) / 64, RNG.normal(size=64), RNG.normal(size=(1000, 64))
    loss = grad(lambda w, xs: np.sum(recurrent(WAYS["rows"])(w, s, xs)))
    module = jit(loss).lower(w, xs)._program.executable().module
    assert "extractelement" not in module.text
    # All states, all slopes and the other factors of the sum of outer products; the rest is small.
    assert 3 * xs.nbytes <= module.workspace < 3.5 * xs.nbytes
