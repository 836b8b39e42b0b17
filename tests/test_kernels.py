"""Compiled kernels give what NumPy gives, and nobody waits for them."""

import math
import os
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import functrace
import functrace.testing
from functrace.backend import kernels
from functrace.primitives import (
    _fast,
    _kernels,
    cumulative,
    decompositions,
    families,
    indexing,
    linalg,
    reduction,
    scatter,
)

SPECIAL = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 1.0, -1.0, 1e308, -1e308, 5e-324])


@pytest.fixture
def both(monkeypatch):
    """A function that gives a call's result with kernels of any size, compiled at once, and by NumPy alone."""
    used = set()

    def ready(self, kind, size):
        if _kernels.off or not size or kind not in kernels.KINDS[self.name] or not kernels.load(self.name, kind):
            return None
        used.add(self.name)
        return self.compiled[kind]

    monkeypatch.setattr(_kernels.Kernel, "ready", ready)
    for kernel in _kernels.KERNELS.values():
        monkeypatch.setattr(kernel, "least", 1)
    monkeypatch.setattr(_fast, "THIN", 1000)

    def run(call, *expected):
        used.clear()
        with np.errstate(all="ignore"):
            compiled = call()
            assert used >= set(expected), f"not used: {set(expected) - used}"
            monkeypatch.setattr(_kernels, "off", True)
            plain = call()
            monkeypatch.setattr(_kernels, "off", False)
        return compiled, plain

    return run


def assert_same_bits(pair):
    """Equal to the last bit: shapes, dtypes, signs of zeros; a NaN is a NaN."""
    got, expected = map(np.asarray, pair)
    assert got.shape == expected.shape and got.dtype == expected.dtype
    np.testing.assert_array_equal(got, expected)
    if got.dtype.kind in "fc":
        there = expected == expected
        for part in ("real", "imag"):
            np.testing.assert_array_equal(
                np.signbit(getattr(got, part)[there]), np.signbit(getattr(expected, part)[there])
            )


def draw(rng, shape, dtype):
    """Numbers with special values among them."""
    dtype = np.dtype(dtype)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    x = rng.normal(size=shape)
    with np.errstate(over="ignore"):
        x = np.where(rng.random(shape) < 0.15, rng.choice(SPECIAL, shape), x)
        if dtype.kind == "c":
            x = x + 1j * rng.normal(size=shape)
        return x.astype(dtype)


# index arrays

LAYOUTS = {  # shape of x, indexed axes
    "vector": ((7,), (0,)),
    "rows": ((7, 3), (0,)),
    "two axes": ((4, 5), (0, 1)),
    "three axes": ((3, 4, 2), (0, 1, 2)),
    "two of three": ((3, 4, 5), (0, 1)),
    "the last two": ((3, 4, 5), (1, 2)),
    "the middle one": ((3, 4, 5), (1,)),
    "no elements per row": ((3, 0), (0,)),
}
DTYPES = ("float64", "float32", "complex128", "complex64", "int64", "int32", "int8", "uint64", "bool", "float16")
SCATTERS = {
    "scatter_set": indexing.scatter_set,
    "scatter_add": indexing.scatter_add,
    "scatter_multiply": scatter.scatter_multiply,
    "scatter_max": scatter.scatter_max,
    "scatter_min": scatter.scatter_min,
}


def operands(rng, layout, dtype, index_shape=(5, 4)):
    shape, axes = LAYOUTS[layout]
    x = draw(rng, shape, dtype)
    indices = [rng.integers(0, shape[a], index_shape) for a in axes]
    rest = tuple(n for a, n in enumerate(shape) if a not in axes)
    return x, indices, draw(rng, (*index_shape, *rest), dtype), axes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gather(layout, dtype, both, rng):
    x, indices, _, axes = operands(rng, layout, dtype)
    used = ["gather"] if x.size and dtype not in ("float16",) and axes != (0,) else []
    assert_same_bits(both(lambda: indexing.gather.impl(x, *indices, axes=axes, unique=False), *used))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", SCATTERS)
def test_scatter(name, layout, dtype, both, rng):
    x, indices, updates, axes = operands(rng, layout, dtype)
    before = x.copy()
    served = dtype in ("float64", "float32", "int64", "int32") or (name == "scatter_add" and "complex" in dtype)
    if name == "scatter_set":
        served = dtype != "float16"
    call = lambda: SCATTERS[name].impl(x, *indices, updates, axes=axes, unique=False)  # noqa: E731
    assert_same_bits(both(call, *([name] if served and x.size else [])))
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("name", SCATTERS)
def test_scatter_of_special_values(name, both):
    old, new = (grid.ravel() for grid in np.meshgrid(SPECIAL, SPECIAL))
    index = np.arange(old.size)
    assert_same_bits(both(lambda: SCATTERS[name].impl(old, index, new, axes=(0,), unique=False), name))


def test_operands_as_they_come(both, rng):
    """Read-only, strided, transposed, byte-swapped and misaligned arrays."""
    index = rng.integers(0, 6, (2, 30))
    updates = rng.normal(size=30)
    raw = np.zeros(6 * 6 * 8 + 1, np.uint8)
    misaligned = raw[1:].view(np.float64).reshape(6, 6)
    misaligned[...] = rng.normal(size=(6, 6))
    frozen = rng.normal(size=(6, 6))
    frozen.flags.writeable = index.flags.writeable = updates.flags.writeable = False
    for x in (frozen, rng.normal(size=(6, 12))[:, ::2], frozen.T, frozen.astype(">f8"), misaligned):
        for rows in (index[0], index.T.copy().T[0], index[0].astype(np.int32)):
            kwargs = {"axes": (0, 1), "unique": False}
            for primitive, written in ((indexing.gather, ()), (indexing.scatter_add, (updates,))):
                values = x, rows, index[1], *written
                assert_same_bits(both(lambda p=primitive, v=values, k=kwargs: p.impl(*v, **k)))


@pytest.mark.parametrize("bad", [-1, 5, 10**6])
def test_positions_out_of_range_are_left_to_numpy(bad, both):
    x, other = np.arange(20.0).reshape(5, 4), np.zeros(3, np.intp)
    index = np.array([0, bad, 1])

    def outcome(primitive, *values):
        try:
            return primitive.impl(x, index, other, *values, axes=(0, 1), unique=False)
        except IndexError:
            return np.array("IndexError")

    assert_same_bits(both(lambda: outcome(indexing.gather), "ravel"))
    assert_same_bits(both(lambda: outcome(indexing.scatter_add, np.ones(3)), "ravel"))
    assert_same_bits(both(lambda: outcome(indexing.scatter_set, np.ones(3)), "ravel"))


@given(st.data())
def test_order_of_repeated_writes(data):
    """Sums add up in the order of the updates, and the last assignment stays."""
    count = data.draw(st.integers(1, 6))
    positions = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=12)), np.intp)
    values = np.array(data.draw(st.lists(st.floats(-1e3, 1e3), min_size=positions.size, max_size=positions.size)))
    assert kernels.load("scatter_add", np.dtype(float)) and kernels.load("scatter_set", np.dtype(np.uint64))
    added, last = np.full(count, 0.1), np.full(count, 0.1)
    by_hand, kept = added.copy(), last.copy()
    for position, value in zip(positions, values, strict=True):
        by_hand[position] += value
        kept[position] = value
    _kernels.KERNELS["scatter_add"].compiled[np.dtype(float)](added, positions, 1, count, 1, values)
    _kernels.KERNELS["scatter_set"].compiled[np.dtype(np.uint64)](
        last.view(np.uint64), positions, 1, count, 1, values.view(np.uint64)
    )
    assert added.tolist() == by_hand.tolist() and last.tolist() == kept.tolist()


# along an axis

CUMULATIVE = ("cumsum", "cumprod", "cummax", "cummin")


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(9,), (4, 5), (1, 1), (3, 0)])
@pytest.mark.parametrize("name", CUMULATIVE)
def test_cumulative(name, shape, dtype, reverse, both, rng):
    x = draw(rng, shape, dtype)
    used = [name] if dtype in ("float64", "float32", "int64", "int32") and x.size else []
    primitive = getattr(cumulative, name)
    assert_same_bits(both(lambda: primitive.impl(x, axis=len(shape) - 1, reverse=reverse), *used))
    assert_same_bits(both(lambda: primitive.impl(x, axis=0, reverse=reverse)))


@pytest.mark.parametrize("name", CUMULATIVE)
def test_cumulative_of_special_values(name, both):
    x = np.array([[first, second, 1.0] for first in SPECIAL for second in SPECIAL])
    assert_same_bits(both(lambda: getattr(cumulative, name).impl(x, axis=1, reverse=False), name))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32", "complex128"])
@pytest.mark.parametrize(("shape", "axis"), [((9,), 0), ((4, 5), 0), ((4, 5), 1), ((3, 4, 2), 1), ((0, 3), 0)])
def test_linear_recurrence(shape, axis, dtype, reverse, both, rng):
    a, b = draw(rng, shape, dtype), draw(rng, shape, dtype)
    a = np.where(rng.random(shape) < 0.2, 0, a).astype(dtype)
    used = ["linear_recurrence"] if dtype != "complex128" and a.size else []
    call = lambda: cumulative.linear_recurrence.impl(a, b, axis=axis, reverse=reverse)  # noqa: E731
    assert_same_bits(both(call, *used))


# short rows


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("shape", "axes"), [((50, 3), (1,)), ((7, 16), (1,)), ((6, 2, 5), (1, 2)), ((4,), (0,))])
def test_sums_of_exponentials(shape, axes, dtype, both, rng):
    eps = np.finfo(dtype).eps
    infinite = np.where(rng.random(shape) < 0.5, -math.inf, 1)
    for x in (3 * rng.normal(size=shape), 700 * rng.normal(size=shape), infinite):
        x = x.astype(dtype)
        got, expected = both(lambda x=x: reduction.softmax.impl(x, axes=axes, undefined=True), "softmax")
        assert got.dtype == dtype
        np.testing.assert_allclose(got, expected, rtol=8 * eps, atol=np.finfo(dtype).tiny)
        got, expected = both(lambda x=x: reduction.logsumexp.impl(x, axes=axes), "logsumexp")
        assert got.dtype == dtype and type(got) is type(expected)
        np.testing.assert_allclose(got, expected, rtol=4 * eps, atol=4 * eps)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("width", [*range(2, 18), 24, 31, 32])
def test_sums_and_extrema(width, dtype, both, rng):
    """In NumPy's order: the same bits."""
    for x in (rng.normal(size=(50, width)) * 10.0 ** rng.integers(-6, 6, (50, width)), draw(rng, (300, width), float)):
        with np.errstate(over="ignore"):
            x = x.astype(dtype)
        for primitive in (families.reduce_sum, reduction.reduce_max, reduction.reduce_min):
            name = primitive.name.replace("reduce", "row")
            assert_same_bits(both(lambda x=x, p=primitive: p.impl(x, axes=(1,)), name))
            cube = x.reshape(-1, 2, width)
            assert_same_bits(both(lambda x=cube, p=primitive: p.impl(x, axes=(2,)), name))


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize(
    "row",
    [
        [-np.inf, -np.inf], [np.inf, 1.0], [np.inf, np.inf, 0.0], [np.nan, 1.0], [1.0, np.nan], [np.inf, np.nan],
        [-np.inf, np.nan], [-np.inf, 0.0], [np.inf, -np.inf], [-0.0, 0.0], [1e308, -1e308],
    ],
)  # fmt: skip
def test_sums_of_special_values(row, undefined, both):
    x = np.array([row, row[::-1]])
    got, expected = both(lambda: reduction.softmax.impl(x, axes=(1,), undefined=undefined), "softmax")
    np.testing.assert_allclose(got, expected, rtol=1e-15)
    got, expected = both(lambda: reduction.logsumexp.impl(x, axes=(1,)), "logsumexp")
    np.testing.assert_allclose(got, expected, rtol=1e-15)


# small matrices


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("stack", [(20,), (2, 5)])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_small_matrices(n, stack, dtype, both, rng):
    eps = np.finfo(dtype).eps
    a = rng.normal(size=(*stack, n, n)).astype(dtype)
    b = rng.normal(size=(*stack, n, 3)).astype(dtype)
    positive = (a @ np.swapaxes(a, -1, -2) + np.eye(n)).astype(dtype)
    lower = np.tril(a, -1) / 4 + 2 * np.eye(n, dtype=dtype)

    def close(pair, condition):
        got, expected = pair
        assert got.dtype == expected.dtype == dtype and got.shape == expected.shape
        size = np.linalg.norm(expected, axis=(-2, -1), keepdims=True)
        assert (abs(got - expected) <= 8 * n * eps * condition * size).all()

    condition = np.linalg.cond(a.astype(float))[..., None, None]
    close(both(lambda: linalg.solve.impl(a, b), "solve"), condition)
    close(both(lambda: decompositions.cholesky.impl(positive), "cholesky"), np.linalg.cond(positive)[..., None, None])
    for is_lower in (True, False):
        for unit in (True, False):
            matrix = lower if is_lower else np.swapaxes(lower, -1, -2)
            # What is not in the triangle must not be read.
            seen = matrix + (np.triu if is_lower else np.tril)(np.full_like(a, np.nan), 1 if is_lower else -1)
            call = lambda m, low=is_lower, u=unit: linalg.triangular_solve.impl(m, b, lower=low, unit=u)  # noqa: E731
            got, _ = both(lambda m=seen, c=call: c(m), "triangular_solve")
            _, expected = both(lambda m=matrix, c=call: c(m), "triangular_solve")
            close((got, expected), 16.0)


def outcome(call):
    try:
        return call()
    except np.linalg.LinAlgError as error:
        return np.array(str(error))


@pytest.mark.parametrize(
    "matrix",
    [[[1.0, 2.0], [2.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]], [[np.nan, 1.0], [1.0, 2.0]], [[np.inf, 0.0], [0.0, 1.0]]],
)
def test_matrices_that_numpy_refuses_or_spreads(matrix, both):
    """Singular, indefinite and not finite ones: NumPy's error or NumPy's NaNs."""
    a = np.array([np.eye(2), matrix, np.eye(2)])
    b = np.ones((3, 2, 1))
    assert_same_bits(both(lambda: outcome(lambda: linalg.solve.impl(a, b)), "solve"))
    assert_same_bits(both(lambda: outcome(lambda: decompositions.cholesky.impl(a)), "cholesky"))
    call = lambda: outcome(lambda: linalg.triangular_solve.impl(a, b, lower=True, unit=False))  # noqa: E731
    assert_same_bits(both(call, "triangular_solve"))


def test_derivatives_through_kernels(both, rng):
    x = rng.normal(size=(6, 3))
    labels = rng.integers(0, 3, (6, 1))

    def loss(x):
        scores = functrace.nn.log_softmax(x)
        products = functrace.numpy.cumprod(x.ravel())
        return -np.sum(np.take_along_axis(scores, labels, 1)) + np.sum(products * products)

    got, expected = both(lambda: functrace.grad(loss)(x), "softmax", "logsumexp", "cumprod", "linear_recurrence")
    np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-15)
    functrace.testing.check_grads(loss, (x,), order=2)


# when kernels are loaded


@pytest.fixture
def kernel(monkeypatch):
    """A kernel nobody uses, and what is ordered of it."""
    ordered = []
    monkeypatch.setattr(_kernels, "_order", lambda name, kind: ordered.append((name, kind)))
    monkeypatch.setattr(_kernels, "KERNELS", {})
    kernel = _kernels.Kernel("of_the_test", least=100, gain=1e6)  # a millisecond an element
    kernel.ordered = ordered
    return kernel


def test_a_kernel_is_ordered_when_it_pays(kernel):
    kind = np.dtype(float)
    for _ in range(10_000):
        assert kernel.ready(kind, 99) is None
    assert not kernel.ordered and not kernel.lost
    calls = 0
    while not kernel.ordered:
        assert kernel.ready(kind, 100) is None
        calls += 1
    paid = _kernels.COMPILING if "numba" in sys.modules else _kernels.LOADING
    assert kernel.ordered == [("of_the_test", kind)] and calls == math.ceil(paid / 0.1)
    assert kernel.ready(np.dtype(np.float32), 100) is None and len(kernel.ordered) == 1


def test_a_failed_kernel_is_not_ordered_again(kernel):
    kernel.compiled[np.dtype(float)] = None
    for _ in range(100):
        assert kernel.ready(np.dtype(float), 10_000) is None
    assert not kernel.ordered


def test_disabled(kernel, monkeypatch):
    monkeypatch.setenv("FUNCTRACE_DISABLE_JIT", "1")
    for _ in range(100):
        assert kernel.ready(np.dtype(float), 10_000) is None
    assert not kernel.ordered


def run_program(program, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


ONCE = """
import sys, numpy as np, functrace
x, index = np.ones(1000), np.arange(100000) % 1000
functrace.grad(lambda x: np.sum(x[index] ** 2))(x)
assert "numba" not in sys.modules
"""

MANY = """
import sys, time, numpy as np, functrace
from functrace.backend import kernels
from functrace.primitives import _kernels, cumulative
a, b = np.linspace(0.5, 1.0, 100000), np.ones(100000)
run = lambda: cumulative.linear_recurrence.impl(a, b, axis=0, reverse=False)
expected = run()
for _ in range(200):
    assert (run() == expected).all()
    if kernels._worker or _kernels.KERNELS["linear_recurrence"].compiled:
        break
kernels.wait(60)
compiled = _kernels.KERNELS["linear_recurrence"].compiled
assert (run() == expected).all()
print(len(compiled), *[f is not None for f in compiled.values()])
"""


def test_one_call_loads_nothing():
    run_program(ONCE)


def test_many_calls_get_the_kernel_in_the_background():
    assert run_program(MANY) == "1 True\n"


def test_without_numba_numpy_serves():
    assert run_program("import sys; sys.modules['numba'] = None" + MANY) == "1 False\n"


def test_without_a_writable_cache(tmp_path):
    """A kernel compiles without a cache where none can be kept, and keeps none where none is wanted."""
    assert run_program(MANY, NUMBA_CACHE_DIR="/proc/nowhere") == "1 True\n"
    assert run_program(MANY, NUMBA_CACHE_DIR=str(tmp_path), FUNCTRACE_CACHE="0") == "1 True\n"
    assert not list(tmp_path.rglob("*.nbi"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_the_compiler_works():
    kernels.load("cumsum", np.dtype(float))
    started, release = threading.Event(), threading.Event()

    def compiler_at_work():
        with kernels._compiling:
            started.set()
            release.wait(5)

    thread = threading.Thread(target=compiler_at_work)
    thread.start()
    started.wait(5)
    threading.Timer(0.2, release.set).start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about forking with threads, which is the point
        child = os.fork()
    if child == 0:
        os._exit(0 if kernels.load("cumsum", np.dtype(float)) and kernels._compiling.acquire(timeout=5) else 1)
    deadline = time.monotonic() + 30
    done = (0, 0)
    while done[0] == 0 and time.monotonic() < deadline:
        done = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    thread.join()
    assert done == (child, 0)


def test_concurrent_loads_agree():
    name, kind = "cummax", np.dtype(np.float32)
    _kernels.KERNELS[name].compiled.pop(kind, None)
    threads = [threading.Thread(target=kernels.load, args=(name, kind)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _kernels.KERNELS[name].compiled[kind] is not None
