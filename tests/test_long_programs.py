"""Long straight lines are cut into functions: the same values, whatever passes from one to another."""

import gc

import numpy as np
import pytest

import functrace as ft
from functrace.backend.compiler import chunks, execute, program
from functrace.backend.executable import Executable
from functrace.core.ir import hoist_constants
from functrace.primitives.indexing import gather
from functrace.util import without_collection
from tests.test_compiled import CASES, check, executable


@pytest.fixture(params=["full effort", "quick"])
def cut_everywhere(request, monkeypatch):
    """Functions of four operations."""
    monkeypatch.setenv("FUNCTRACE_CACHE", "0")
    monkeypatch.setattr(chunks, "CHUNK", 4)
    monkeypatch.setattr(execute, "LONG", 1)
    monkeypatch.setattr(program, "VERY_LONG", 10**9 if request.param == "full effort" else 1)


@pytest.mark.parametrize("case", CASES[::9], ids=str)
def test_cases_cut_everywhere(cut_everywhere, case):
    operands = [o if isinstance(o, (np.ndarray, np.generic)) else np.asarray(o)[()] for o in case.operands]
    expected = case.primitive.bind(*operands, **case.params)
    check(executable(case, operands), operands, expected if case.primitive.multiple else [expected])


def numbers(x, y):
    a, b = x[0], y
    for k in range(6):
        a, b = np.fmod(a * b, 3.0) + np.log1p(np.abs(b)), np.where(a > b, a - b, np.sin(b) * k)
    return a, a > b, np.stack([a, b, x[1]])


def kinds(x, n):
    z = x[0] + 1j * x[1]
    for _ in range(3):
        n = n * 3 % 7 + 1
        z = z * z / (1.0 + n) + np.conj(z)
    return z, n, np.float32(1.5) * n.astype(np.float32), (n > 3) & (x[0] > 0)


def between_loops(x, m):
    """Registers, a loop nest, registers that read from before it and from it, a loop again."""
    a = np.sin(x[0]) * x[1]
    s = np.sum(np.exp(m * a))
    b = a * s + x[1]
    return np.sum(m * b) + a, m + b


def scanned(x, ts):
    def step(carry, t):
        p, q = carry
        for _ in range(4):
            p, q = p + 0.01 * q * x[0], q - 0.01 * np.sin(p) + t
        return (p, q), p * q

    return ft.lax.scan(step, (x[0], x[1]), ts)


def read_at(x, i):
    return x[i] * np.sin(x[0]) + x[(i + 1) % 3]


X = np.array([0.7, -0.3, 1.9])
PROGRAMS = [
    (numbers, (X, np.float64(1.3))),
    (kinds, (X, np.int64(5))),
    (between_loops, (X, np.linspace(-1.0, 1.0, 60).reshape(20, 3))),
    (scanned, (X, np.linspace(0.0, 1.0, 9))),
    (read_at, (X, np.int64(1))),
]


@pytest.mark.parametrize(("function", "operands"), PROGRAMS, ids=lambda p: getattr(p, "__name__", ""))
def test_programs_cut_everywhere(cut_everywhere, function, operands):
    jitted = ft.jit(function)
    assert "@chunk" in jitted.lower(*operands).as_text("llvm")
    for found, wanted in zip(ft.tree.leaves(jitted(*operands)), ft.tree.leaves(function(*operands)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("function", "operands"), [PROGRAMS[0], *PROGRAMS[2:]], ids=lambda p: getattr(p, "__name__", "")
)
def test_gradients_cut_everywhere(cut_everywhere, function, operands):
    def total(x):
        return sum(np.sum(leaf) for leaf in ft.tree.leaves(function(x, *operands[1:])) if leaf.dtype.kind == "f")

    gradient = ft.grad(total)
    np.testing.assert_allclose(ft.jit(gradient)(X), gradient(X), rtol=1e-10, atol=1e-11)


def test_an_index_out_of_range_is_noticed_in_a_part(cut_everywhere):
    def f(x, i):
        return gather.bind(np.sin(x[0]) * x, i, axes=(0,), unique=True) + x[1]

    jitted = ft.jit(f)
    np.testing.assert_allclose(jitted(X, np.int64(2)), f(X, np.int64(2)), rtol=1e-14)
    assert "@chunk" in jitted.lower(X, np.int64(0)).as_text("llvm")
    with pytest.raises(IndexError):
        jitted(X, np.int64(5))


def test_a_long_program_in_full_size():
    def f(p):
        x, v = p[0], p[1]
        for _ in range(900):
            x, v = x + 0.001 * v, v - 0.001 * x * x
        return x

    start = np.array([1.0, 0.2])
    made = Executable(*hoist_constants(ft.make_jaxpr(ft.grad(f))(start)))
    assert made.refusal is None and made.module is not None and made.module.opt == 0
    assert made.module.text.count("define internal void @chunk") > 10
    np.testing.assert_allclose(made.run(start)[0], ft.grad(f)(start), rtol=1e-11)


def test_collection_is_as_it_was():
    assert gc.isenabled()
    with without_collection():
        assert not gc.isenabled()
        with without_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
