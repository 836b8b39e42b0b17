"""A program found on disk by its trace: never another one's code, and nothing is planned or emitted again."""

import numpy as np
import pytest

import functrace as ft
from functrace.backend import disk_cache, executable
from functrace.backend.compiler.emit import Unsupported
from functrace.backend.compiler.inline import prepare
from functrace.backend.compiler.program import compile_module
from functrace.backend.fingerprint import program_text
from functrace.core.ir import hoist_constants
from functrace.core.primitive import Primitive
from functrace.errors import DTypeError
from functrace.primitives import elementwise
from tests.test_compiled import CASES

X = np.array([0.5, 1.5, -2.0])


def text(function, *operands):
    return program_text(hoist_constants(ft.make_jaxpr(function)(*operands))[0])


def test_equal_programs_have_one_text():
    def make():
        return ft.grad(lambda x: np.sum(np.sin(x) * ft.jit(lambda y: y * 2.0)(x)))

    assert text(make(), X) is not None and text(make(), X) == text(make(), X + 1.0)


def scan_of(factor):
    return lambda x: ft.lax.scan(lambda c, t: (c * factor + t, c), x[0], x)


DIFFERENT = [
    lambda x: x * 2.0,
    lambda x: 2.0 * x,
    lambda x: x * 3.0,
    lambda x: x * np.float32(2.0),
    lambda x: x + 0.0,
    lambda x: x + -0.0,
    lambda x: x + np.nan,
    lambda x: x - x[0],
    lambda x: x[0] - x,
    lambda x: (x, x + 1.0),
    lambda x: (x + 1.0, x),
    lambda x: x + 1.0,
    lambda x: x[::-1],
    lambda x: x[1:],
    lambda x: x[:-1],
    lambda x: np.sum(x),
    lambda x: np.sum(x, keepdims=True),
    lambda x: np.max(x),
    lambda x: x.astype(np.float32),
    lambda x: x.astype(np.complex128),
    lambda x: np.concatenate([x, x]),
    lambda x: x + np.array([1.0, 2.0, 3.0]),
    scan_of(2.0),
    scan_of(3.0),
    lambda x: ft.lax.cond(x[0] > 0.0, np.sin, np.cos, x),
    lambda x: ft.lax.cond(x[0] > 0.0, np.cos, np.sin, x),
]


def test_different_programs_have_different_texts():
    texts = [text(f, X) for f in DIFFERENT] + [text(DIFFERENT[0], X[:2]), text(DIFFERENT[0], X.astype(np.float32))]
    assert None not in texts and len(set(texts)) == len(texts)


def test_the_text_determines_the_code():
    """Of all cases of all primitives, those with one text have one code."""
    codes = {}
    for case in CASES[::4]:
        closed = ft.make_jaxpr(lambda *values, case=case: case.primitive.bind(*values, **case.params))(*case.operands)
        jaxpr, constants = hoist_constants(closed)
        written = program_text(jaxpr)
        if written is None:
            continue
        try:
            module = compile_module(prepare(jaxpr), len(constants))
        except (Unsupported, DTypeError):
            continue
        key = written, len(constants)
        assert codes.setdefault(key, module.text) == module.text
    assert len(codes) > 100


def test_what_has_no_text():
    scale = ft.custom_jvp(lambda x: x * 2.0)
    scale.defjvp(lambda primals, tangents: (scale(*primals), tangents[0] * 2.0))
    assert text(lambda x: ft.pure_callback(lambda v: v * 2.0, ft.ShapeDtypeStruct((3,), float), x), X) is None
    assert text(scale, X) is None


def test_primitives_and_rules_from_elsewhere_have_no_text(monkeypatch):
    monkeypatch.setattr("functrace.core.primitive._registry", {})
    own = Primitive("sin", np.sin, lambda aval: aval, lower=elementwise.sin.lower)
    assert text(lambda x: own.bind(x), X) is None
    assert text(np.sin, X) is not None
    monkeypatch.setattr(elementwise.sin, "lower", type(elementwise.sin.lower[0])(code=lambda e, x: x))
    assert text(np.sin, X) is None


@pytest.fixture
def no_plan(monkeypatch):
    """From when it is called on, planning fails."""

    def forbid():
        def planned(*args):
            raise AssertionError("the program was planned again")

        monkeypatch.setattr(executable, "compile_module", planned)

    if not disk_cache.usable():
        pytest.skip("the disk cache is not in use here")
    return forbid


def test_code_from_disk(no_plan, monkeypatch):
    def make(weights):
        return ft.jit(ft.grad(lambda x: np.sum(np.tanh(weights @ x) * 1.0625)))

    W = np.arange(9.0).reshape(3, 3) / 7.0
    cold = make(W)(X)
    no_plan()
    warm = make(W)
    np.testing.assert_array_equal(warm(X), cold)
    # Another closed-over array of this type has the same code, bound to itself.
    wanted = ft.grad(lambda x: np.sum(np.tanh((W + 1.0) @ x) * 1.0625))(X)
    np.testing.assert_allclose(make(W + 1.0)(X), wanted, rtol=1e-13)
    monkeypatch.undo()
    assert "define i64 @kernel" in warm.lower(X).as_text("llvm") and "workspace" in warm.lower(X).as_text("schedule")
    assert "kernel" in warm.lower(X).as_text("assembly")


def test_an_entry_that_does_not_fit_is_made_anew(no_plan, monkeypatch):
    def make():
        return ft.jit(lambda x: np.sum(np.cos(x) * 0.84375))

    make()(X)
    load = disk_cache.load
    for wrong in ({}, {"symbols": ["vmath:no such function"], "suffix": "0", "workspace": 0, "long": False}):
        monkeypatch.setattr(disk_cache, "load", lambda key, meta=wrong: (e := load(key)) and e._replace(meta=meta))
        np.testing.assert_allclose(make()(X), np.sum(np.cos(X) * 0.84375), rtol=1e-15)
