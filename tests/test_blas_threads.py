"""BLAS in one thread while small products run: always given back, whatever happens."""

from __future__ import annotations

import ctypes
import os
import threading

import numpy as np
import pytest

import functrace as ft
from functrace import numpy as fnp
from functrace.backend import symbols
from functrace.backend.compiler import library_calls

if not symbols.available("blasthreads:enter"):
    pytest.skip("this BLAS has no number of threads to set", allow_module_level=True)

A = np.random.default_rng(0).normal(size=(60, 60))
BIG = np.random.default_rng(1).normal(size=(240, 240))
# Products of A with its transpose are BLAS's; those of two matrices in rows of that size are code of our own.


def _function(name, result, *types):
    library = symbols._numpy_linear()
    return ctypes.CFUNCTYPE(result, *types)(library.find_c(name))


threads = _function("openblas_get_num_threads", ctypes.c_int)
set_threads = _function("openblas_set_num_threads", None, ctypes.c_int)


def routine(kind):
    return ctypes.CFUNCTYPE(None)(symbols.resolve([f"blasthreads:{kind}"])[0])


enter, leave = routine("enter"), routine("leave")


@pytest.fixture(autouse=True)
def two_threads():
    before = threads()
    set_threads(2)
    yield
    assert threads() == 2
    set_threads(before)


def outline(function, *args):
    """The calls without arguments, or of BLAS, in order: "enter", "leave", "blas"."""
    text = ft.jit(function).lower(*args).as_text("llvm")
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("call void %sym")]
    found = ["blas" if "ptr" in line else line for line in lines]
    bare = sorted({line for line in found if line != "blas"})
    assert len(bare) in (0, 2)
    kinds = dict(zip(list(dict.fromkeys(line for line in found if line != "blas")), ("enter", "leave"), strict=False))
    return [kinds.get(line, line) for line in found]


def test_one_thread_inside():
    enter()
    assert threads() == 1
    enter()
    leave()
    assert threads() == 1
    leave()
    assert threads() == 2
    leave()  # one too many, as after a fork, changes nothing
    enter()
    assert threads() == 1
    leave()


def test_a_number_set_meanwhile_stays():
    set_threads(4)
    enter()
    set_threads(2)
    leave()
    assert threads() == 2


def test_small_calls_have_one_thread_large_ones_all():
    assert outline(lambda a: a @ a.T, A) == ["enter", "blas", "leave"]
    assert outline(lambda a, b: (a @ a.T, b @ b), A, BIG) == ["enter", "blas", "leave", "blas", "enter", "leave"]
    assert outline(lambda b: b @ b, BIG) == ["blas"]
    assert "enter" not in outline(lambda a: a @ a.T, A[:16, :16])  # so small that BLAS does not share it out anyway


def test_without_the_functions_nothing_is_done(monkeypatch):
    real = symbols.available
    monkeypatch.setattr(library_calls.symbols, "available", lambda n: not n.startswith("blasthreads") and real(n))
    assert outline(lambda a: a @ a.T - 1.0, A) == ["blas"]
    with pytest.raises(KeyError):
        symbols.resolve(["blasthreads:other"])


def test_given_back_after_every_exit():
    seen = []

    def look(x):
        seen.append(threads())
        if x[0, 0] > 1e3:
            raise ValueError("stop")
        return x

    @ft.jit
    def program(a, k):
        b = ft.pure_callback(look, ft.ShapeDtypeStruct(a.shape, a.dtype), a @ a.T)
        return b @ b, fnp.power(2, k)

    for _ in range(3):
        program(A, 3)
        assert threads() == 2
        with pytest.raises(ValueError, match="stop"):
            program(A + 100.0, 3)
        assert threads() == 2
        with pytest.raises(ValueError, match="negative"):
            program(A, -1)
        assert threads() == 2
    assert set(seen) == {2}


def test_threads_of_python_at_the_same_time():
    small, mixed = ft.jit(lambda a: a @ a.T), ft.jit(lambda a, b: (a @ a.T, b @ b))
    want_small, want_big = A @ A.T, BIG @ BIG
    wrong = []

    def work():
        for _ in range(10):
            got, (first, second) = small(A), mixed(A, BIG)
            if not (np.allclose(got, want_small) and np.allclose(first, want_small) and np.allclose(second, want_big)):
                wrong.append(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert threads() == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_gets_the_number_back():
    enter()
    child = os.fork()
    if child == 0:
        os._exit(threads())
    leave()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
