"""Code that is made once for a kind of operation and filled in gives what code made for each operation gives."""

import numpy as np
import pytest

import functrace as ft
from functrace.backend import llvm
from functrace.backend.compiler.emit import Emitter
from functrace.backend.compiler.templates import Form
from functrace.backend.executable import Executable
from functrace.core.ir import hoist_constants
from functrace.core.types import aval_of
from functrace.interpreters.staging import stage
from tests.test_compiled import ELEMENTWISE, SPECIAL, check

DOUBLE = np.dtype(np.float64)
TIMES = 5


def compiled(function, operands):
    return Executable(*hoist_constants(stage(function, [aval_of(o) for o in operands])))


def points_of(case):
    """Operands of several operations of one kind: the case's elements and, in place of floats, special values."""
    arrays = [np.resize(o, TIMES) for o in case.operands]
    points = [[a[k] for a in arrays] for k in range(TIMES)]
    for k in range(TIMES):
        values = [SPECIAL[(3 * k + 5 * i) % SPECIAL.size] for i in range(len(arrays))]
        points.append([a.dtype.type(v) if a.dtype.kind == "f" else a[0] for a, v in zip(arrays, values, strict=True)])
    return points


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_operation_several_times(name):
    case = ELEMENTWISE[name]
    points = points_of(case)
    width = len(points[0])

    def repeated(*numbers):
        return [case.primitive.bind(*numbers[k : k + width], **case.params) for k in range(0, len(numbers), width)]

    with np.errstate(all="ignore"):
        expected = [case.primitive.impl(*point, **case.params) for point in points]
    operands = [number for point in points for number in point]
    check(compiled(repeated, operands), operands, expected)


@pytest.mark.parametrize("name", [n for n, case in ELEMENTWISE.items() if len(case.operands) == 2])
@pytest.mark.parametrize("position", [0, 1])
def test_an_operation_with_constants(name, position):
    case = ELEMENTWISE[name]
    points = points_of(case)[:TIMES]

    def repeated(*numbers):
        pairs = [
            (point[0], number) if position == 0 else (number, point[1])
            for point, number in zip(points, numbers, strict=True)
        ]
        return [case.primitive.bind(*pair, **case.params) for pair in pairs]

    operands = [point[1 - position] for point in points]
    with np.errstate(all="ignore"):
        expected = [case.primitive.impl(*point, **case.params) for point in points]
    check(compiled(repeated, operands), operands, expected)


def form_of(code, count):
    """The form of an operation on doubles, after it was met twice, and the emitter."""
    e = Emitter(llvm.target())
    form = Form(code)
    operands = [e.blank(DOUBLE, 1, f"%in{k}") for k in range(count)]
    form.learn(e, code, operands)
    assert form.text is None
    lines, names = list(e.lines), e.count
    form.learn(e, code, operands)
    assert e.lines == lines and e.count >= names
    return form


def test_the_text_has_names_of_its_own():
    form = form_of(lambda e, x, y: x * y + x, 2)
    assert form.text is not None and form.dtype == DOUBLE
    text = form.text(7, "%a", "%b")
    assert text.splitlines() == ["  %v7.0 = fmul contract double %a, %b", "  %v7 = fadd contract double %v7.0, %a"]


def test_a_comparison_is_a_boolean():
    form = form_of(lambda e, x, y: x < y, 2)
    assert form.text is not None and form.dtype == np.dtype(bool)


@pytest.mark.parametrize(
    "code",
    [
        lambda e, x, y: x if y.constant is None else y,  # another for constants
        lambda e, x, y: e.settled(x < y, x, lambda: y),  # with a branch
        lambda e, x, y: x,  # no operation at all
        lambda e, x, y: e.constant(1.0, DOUBLE),
    ],
)
def test_code_that_is_made_for_each(code):
    assert form_of(code, 2).text is None


def test_operations_without_anything_in_common():
    e, form = Emitter(llvm.target()), Form()
    for _ in range(3):
        form.learn(e, lambda e, x: -x, [e.blank(DOUBLE, 1, "%in")])
    assert form.text is None and form.data is None


def test_kinds_are_told_apart():
    """The same primitive on numbers of different types, on constants, and with parameters."""

    def f(x, y, n):
        z = x.astype(np.float32)
        results = []
        for k in range(1, 4):
            x, y, n, z = np.sin(x * y) + k, np.cos(y) * 0.5 + k, n * 3 + k, z * z - np.float32(k)
            results += [x, y, n, z, x < y, n < k, x**2, x**0.5, x.astype(np.int32), n.astype(np.float64) * x]
        return results

    operands = [np.float64(1.7), np.float64(0.3), np.int64(2)]
    for found, wanted in zip(ft.jit(f)(*operands), f(*operands), strict=True):
        assert found.dtype == wanted.dtype
        np.testing.assert_allclose(found, wanted, rtol=1e-6 if found.dtype == np.float32 else 1e-13)
