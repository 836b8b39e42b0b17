"""Threads at once, memory over many calls, and programs too long for Python's stack."""

import asyncio
import contextvars
import gc
import sys
import threading
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import functrace
from functrace.core.ir import check_jaxpr
from functrace.core.primitive import primitives
from functrace.core.trace import EVAL, current_trace

X = np.array([0.3, -0.4, 0.7])
DEPTH = 10_000


def loss(x, k):
    y = np.sin(x * k) @ np.exp(x)
    for _ in range(5):
        y = y * y / (1 + y * y) + k
    return y


# threads


@pytest.fixture
def switching():
    """Threads change places as often as the interpreter can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize(
    "derivative",
    [
        functrace.grad(loss),
        functrace.jacfwd(loss),
        functrace.hessian(loss),
        lambda x, k: functrace.vmap(functrace.grad(loss), in_axes=(None, 0))(x, k * X),
        lambda x, k: functrace.jvp(lambda x: loss(x, k), (x,), (x,))[1],
        lambda x, k: functrace.make_jaxpr(loss)(x, k).pretty(),
    ],
    ids=["grad", "jacfwd", "hessian", "vmap", "jvp", "make_jaxpr"],
)
def test_eight_threads_at_once(derivative, switching):
    scales = [0.1 * i for i in range(8)]
    expected = [derivative(X, k) for k in scales]
    barrier = threading.Barrier(8)

    def work(i):
        barrier.wait()
        return [derivative(X, scales[i]) for _ in range(20)]

    with ThreadPoolExecutor(8) as pool:
        for same, found in zip(expected, pool.map(work, range(8)), strict=True):
            for got in found:
                np.testing.assert_array_equal(got, same)
    assert current_trace() is EVAL


def test_one_pullback_in_many_threads(switching):
    _, pullback = functrace.vjp(lambda x: np.sin(x) * np.exp(x), X)
    expected = pullback(X)[0]
    with ThreadPoolExecutor(8) as pool:
        for (got,) in pool.map(lambda _: pullback(X), range(200)):
            np.testing.assert_array_equal(got, expected)


def test_a_thread_started_inside_a_transformation_begins_outside_it():
    seen = []

    def f(x):
        thread = threading.Thread(target=lambda: seen.append((current_trace() is EVAL, functrace.grad(np.sin)(0.0))))
        thread.start()
        thread.join()
        return x * x

    assert functrace.grad(f)(3.0) == 6.0
    assert seen == [(True, 1.0)]


def test_coroutines_keep_apart():
    async def differentiate(k):
        result = functrace.grad(loss)(X, k)
        await asyncio.sleep(0)
        return result

    async def main():
        return await asyncio.gather(*[differentiate(0.1 * i) for i in range(8)])

    for i, got in enumerate(asyncio.run(main())):
        np.testing.assert_array_equal(got, functrace.grad(loss)(X, 0.1 * i))


def test_contexts_are_restored_after_errors():
    def f(x):
        raise KeyError

    context = contextvars.copy_context()
    for transform in (functrace.grad, functrace.jacfwd, functrace.vmap, functrace.make_jaxpr):
        with pytest.raises(KeyError):
            context.run(transform(f), X)
    assert context.run(current_trace) is EVAL


# memory


def repeat(call, count):
    for _ in range(count):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: functrace.grad(loss)(X, 0.5),
        lambda: functrace.hessian(loss)(X, 0.5),
        lambda: functrace.vmap(functrace.grad(loss), in_axes=(None, 0))(X, X),
        lambda: functrace.make_jaxpr(functrace.grad(loss))(X, 0.5),
        lambda: functrace.jvp(lambda x: loss(x, 0.5), (X,), (X,)),
    ],
    ids=["grad", "hessian", "vmap", "make_jaxpr", "jvp"],
)
def test_calls_leave_no_memory(call):
    repeat(call, 20)
    gc.collect()
    objects = len(gc.get_objects())
    tracemalloc.start()
    repeat(call, 10)
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    repeat(call, 200)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 20_000  # a leak of one small object per call would be more
    assert len(gc.get_objects()) - objects < 100


def test_ten_thousand_gradients_leave_no_memory():
    gradient = functrace.grad(lambda x: x * np.sin(x) / (1.0 + x))
    repeat(lambda: gradient(0.5), 100)
    gc.collect()
    tracemalloc.start()
    before, objects = tracemalloc.get_traced_memory()[0], len(gc.get_objects())
    repeat(lambda: gradient(0.5), 10_000)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 50_000
    assert len(gc.get_objects()) - objects < 100


def test_a_call_leaves_no_reference_cycles_that_hold_arrays():
    """Memory comes back when the results go, without waiting for the cycle collector."""
    big = np.ones(300_000)
    gradient = functrace.grad(lambda x: np.sin(x) @ np.exp(x))
    gradient(big)
    gc.collect()
    gc.disable()
    try:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10):
            gradient(big)
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
    finally:
        gc.enable()
    assert grown < big.nbytes


def test_varying_shapes_and_constants_leave_no_memory():
    """Nothing is cached by value or by identity."""

    def call(n):
        functrace.grad(lambda x: (x * float(n)) @ x)(np.ones(n % 50 + 1))

    for n in range(100):
        call(n)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for n in range(500):
        call(n)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 50_000


# depth


def chain(x, depth=DEPTH):
    for _ in range(depth):
        x = np.sin(x)
    return x


def chain_derivative(x, depth):
    slope = 1.0
    for _ in range(depth):
        slope *= np.cos(x)
        x = np.sin(x)
    return slope


def test_deep_programs_are_differentiated_in_both_modes():
    expected = chain_derivative(0.5, DEPTH)
    np.testing.assert_allclose(functrace.grad(chain)(0.5), expected, rtol=1e-10)
    np.testing.assert_allclose(functrace.jvp(chain, (0.5,), (1.0,))[1], expected, rtol=1e-10)
    np.testing.assert_allclose(functrace.linearize(chain, 0.5)[1](1.0), expected, rtol=1e-10)
    np.testing.assert_allclose(functrace.jacrev(chain)(0.5), expected, rtol=1e-10)
    np.testing.assert_allclose(functrace.jacfwd(chain)(0.5), expected, rtol=1e-10)


def test_deep_programs_are_differentiated_twice_and_batched():
    second = [functrace.hessian(chain, mode=mode)(0.5) for mode in ("fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev")]
    np.testing.assert_allclose(second, second[0], rtol=1e-9)
    np.testing.assert_allclose(functrace.vmap(functrace.grad(chain))(X)[0], functrace.grad(chain)(X[0]), rtol=1e-10)


def test_deep_programs_are_staged_printed_checked_and_freed():
    closed = functrace.make_jaxpr(chain)(0.5)
    assert len(closed.eqns) == DEPTH
    check_jaxpr(closed.jaxpr)
    assert repr(closed).count("\n") == DEPTH + 1
    assert closed.pretty().count("test_threads_and_leaks.py") == DEPTH
    np.testing.assert_allclose(functrace.eval_jaxpr(closed.jaxpr, closed.consts, 0.5)[0], chain(0.5))
    staged_gradient = functrace.make_jaxpr(functrace.grad(chain))(0.5)
    assert len(staged_gradient.eqns) < 4 * DEPTH
    del closed, staged_gradient
    gc.collect()


def test_deep_reuse_of_one_value():
    """x + x + ... : a binary tree of paths, one walk."""

    def doubled(x):
        for _ in range(300):
            x = x + x
        return x * 2.0**-300

    assert functrace.grad(doubled)(1.0) == 1.0
    assert functrace.jvp(doubled, (1.0,), (1.0,))[1] == 1.0


def count_operations(call, monkeypatch):
    """How many times some primitive's `impl` runs."""
    counts = Counter()

    def counting(primitive, impl):
        def counted(*args, **params):
            counts[primitive.name] += 1
            return impl(*args, **params)

        return counted

    with monkeypatch.context() as patch:
        for primitive in primitives():
            patch.setattr(primitive, "impl", counting(primitive, primitive.impl))
        call()
    return sum(counts.values())


DERIVATIVES = {
    "value": (lambda f: f, 1),
    "jvp": (lambda f: lambda x: functrace.jvp(f, (x,), (x,)), 4),
    "grad": (functrace.grad, 4),
    "fwd-rev": (lambda f: lambda x: functrace.jvp(functrace.grad(f), (x,), (x,)), 16),
    "rev-rev": (lambda f: functrace.grad(functrace.grad(f)), 16),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_work_is_linear_in_the_length(name, monkeypatch):
    """Twice the program is twice the operations, and a derivative costs a small multiple of its function."""
    transform, bound = DERIVATIVES[name]

    def work(depth):
        f = transform(lambda x: chain(x, depth))
        return count_operations(lambda: f(0.5), monkeypatch)

    short, long = work(500), work(1000)
    assert long - short == work(1500) - long
    assert long <= bound * 1000 + 20


def test_jacobian_of_many_inputs_is_one_batched_sweep(monkeypatch):
    def f(x):
        return np.sin(x) @ np.exp(x)

    few = count_operations(lambda: functrace.jacfwd(f)(np.ones(3)), monkeypatch)
    many = count_operations(lambda: functrace.jacfwd(f)(np.ones(300)), monkeypatch)
    assert few == many


def test_long_equations_do_not_slow_each_other(monkeypatch):
    """A value used by many equations is not looked at once more for each."""

    def fan(x, n):
        total = x
        for _ in range(n):
            total = total + x * x
        return total

    works = [
        count_operations(lambda n=n: functrace.grad(lambda x: fan(x, n))(0.5), monkeypatch) for n in (200, 400, 600)
    ]
    assert works[2] - works[1] == works[1] - works[0]


@pytest.mark.parametrize("convert", [np.asarray, lambda t: float(t[0]), lambda t: np.ones(3).dot(t)])
def test_converting_a_leaked_tracer_names_the_leak(convert):
    leaked = []

    def f(x):
        leaked.append(x * 2)
        return x.sum()

    functrace.grad(f)(X)
    with pytest.raises(functrace.errors.LeakedTracerError, match="has_aux=True"):
        convert(leaked[0])
