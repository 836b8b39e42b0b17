"""Products of matrices in compiled programs, middle-sized ones by code of their own: equal to NumPy's."""

import numpy as np
import pytest

from functrace import jit, make_jaxpr, vmap
from functrace.backend import llvm
from functrace.backend.compiler.program import compile_module, load_module, prepare
from functrace.backend.dispatcher import make_dispatcher
from functrace.backend.signatures import Argument, Output, Signature

RNG = np.random.default_rng(12)
LEVELS = tuple({llvm.target(level).features: level for level in llvm.supported_levels()}.values())
# Rows, columns and summed axis: rests of tiles and vectors, one step, several pieces with and without a rest.
SIZES = [
    (2, 2, 1),
    (2, 3, 5),
    (8, 24, 16),
    (9, 25, 17),
    (13, 16, 7),
    (17, 31, 40),
    (16, 178, 13),
    (3, 8, 600),
    (30, 48, 257),
    (64, 64, 200),
    (100, 33, 64),
]
TOLERANCE = {np.float64: 1e-12, np.float32: 1e-5}


def on(level, function, *args):
    """A function compiled for an instruction set."""
    target = llvm.target(level)
    closed = make_jaxpr(function)(*args)
    module = compile_module(prepare(closed.jaxpr), 0, target)
    kernel = load_module(module, llvm.compile_ir(module.text, target, module.opt), [], target)
    outputs = tuple([Output.array(a.dtype, a.shape) for a in closed.jaxpr.out_avals])
    signature = Signature(tuple(map(Argument.of, args)), outputs, True, module.workspace)
    results = make_dispatcher(signature, kernel.address, None, keep=kernel)(*args)
    return results[0], module


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_products(size, dtype, level):
    m, n, k = size
    for turned in (False, True):
        a = RNG.normal(size=(k, m) if turned else (m, k)).astype(dtype)
        b = RNG.normal(size=(k, n)).astype(dtype)
        left = a.T if turned else a
        result, _ = on(level, (lambda a, b: a.T @ b) if turned else (lambda a, b: a @ b), a, b)
        np.testing.assert_allclose(result, left @ b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * k)


@pytest.mark.parametrize(("size", "own"), [((64, 64, 64), True), ((64, 64, 1000), True), ((400, 400, 400), False)])
def test_they_are_code_of_their_own_where_that_is_faster(size, own):
    m, n, k = size
    _, module = on("native", lambda a, b: a @ b, np.ones((m, k)), np.ones((k, n)))
    assert own == (not any(name.startswith("blas:") for name in module.symbols))


def test_nothing_but_the_result_is_written():
    """The last vectors and rows of a tile end where the result does, in the midst of a larger array."""
    a, b = RNG.normal(size=(5, 9, 40)), RNG.normal(size=(5, 40, 11))
    result = jit(lambda a, b: np.concatenate([np.zeros((5, 9, 11)), a @ b], axis=1))(a, b)
    np.testing.assert_array_equal(result[:, :9], 0.0)
    np.testing.assert_allclose(result[:, 9:], a @ b, rtol=1e-12, atol=1e-12)


def test_parts_and_views():
    a, b = RNG.normal(size=(40, 90)), RNG.normal(size=(60, 70))
    cases = [
        lambda a, b: a[:, 5:65] @ b[:, 3:40],
        lambda a, b: a[::2, :60] @ b,
        lambda a, b: a[:, :60:2] @ b[::2],
        lambda a, b: (b.T @ a.T[5:65]).T,
        lambda a, b: a[::-1, 30:] @ b[:, ::-1],
    ]
    for case in cases:
        np.testing.assert_allclose(jit(case)(a, b), case(a, b), rtol=1e-12, atol=1e-12)


def test_stacks():
    a, b = RNG.normal(size=(7, 12, 20)), RNG.normal(size=(7, 20, 33))
    np.testing.assert_allclose(jit(lambda a, b: a @ b)(a, b), a @ b, rtol=1e-12, atol=1e-12)
    mapped = vmap(lambda a, b: a @ b)
    np.testing.assert_allclose(jit(mapped)(a, b), a @ b, rtol=1e-12, atol=1e-12)


def test_special_values_stay():
    a, b = RNG.normal(size=(20, 30)), RNG.normal(size=(30, 40))
    a[3, 4], a[5, 6], b[7, 8] = np.nan, np.inf, -np.inf
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(jit(lambda a, b: a @ b)(a, b), a @ b, rtol=1e-12)


def test_rounding_errors_of_long_sums_stay_small():
    """Sums are cut into pieces as those of BLAS are: errors are not those of one long sum."""
    a, b = RNG.uniform(size=(200_000, 3)).astype(np.float32), RNG.uniform(size=(200_000, 4)).astype(np.float32)
    exact = a.astype(float).T @ b
    np.testing.assert_allclose(jit(lambda a, b: a.T @ b)(a, b), exact, rtol=3e-5)
