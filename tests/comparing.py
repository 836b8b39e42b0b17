"""Traced functions against NumPy: the same values, shapes and dtypes, whichever trace computes them."""

import warnings

import numpy as np

from functrace import eval_jaxpr, jvp, make_jaxpr, tree, vmap
from functrace.core.types import float0


def staged(f, *args):
    """The value of the recorded program."""
    structure = []

    def flat(*xs):
        out = f(*xs)
        structure.append(tree.structure(out))
        return tree.leaves(out)

    closed = make_jaxpr(flat)(*args)
    leaves = [np.asarray(a)[()] if not isinstance(a, np.ndarray) else a for a in args]
    return tree.unflatten(structure[0], eval_jaxpr(closed.jaxpr, closed.consts, *leaves))


def batched(f, *args):
    """One row of the function mapped over a batch of two equal rows."""
    outs = vmap(f)(*[np.stack([a, a]) for a in args])
    return tree.map(lambda x: x[1], outs)


def forward(f, *args):
    """The primal value under forward mode."""
    tangents = [np.ones(np.shape(a), a.dtype if a.dtype.kind in "fc" else float0) for a in map(np.asarray, args)]
    tangents = [t[()] if t.dtype != float0 else t for t in tangents]
    return jvp(f, tuple(args), tuple(tangents))[0]


SLACK = {np.dtype(np.float32): 1e6, np.dtype(np.complex64): 1e6, np.dtype(np.float16): 1e9}
WAYS = (forward, batched, staged)


def assert_like_numpy(f, *args, ways=WAYS, rtol=1e-12, atol=1e-12):
    """Each way of tracing gives what NumPy gives."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        expected = tree.leaves(f(*args))
        for way in ways:
            got = tree.leaves(way(f, *args))
            assert len(got) == len(expected), way.__name__
            for x, y in zip(got, expected, strict=True):
                y = np.asarray(y)
                x = np.asarray(x)
                assert x.dtype == y.dtype, (way.__name__, x.dtype, y.dtype)
                assert x.shape == y.shape, (way.__name__, x.shape, y.shape)
                scale = SLACK.get(y.dtype, 1)
                np.testing.assert_allclose(x, y, rtol * scale * 10, atol * scale, err_msg=way.__name__)
