"""Kinks are found where they are, and one-sided derivatives are the limits of difference quotients."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import functrace as ft
import functrace.numpy as fnp
from functrace import lax
from functrace.errors import InputError, TangentError
from functrace.inspect import kinks
from tests.cases import all_cases, own_primitives


def sides(f, *args, **options):
    """Per direction the derivatives from the left and from the right."""
    return [(s.left, s.right) for s in kinks(f)(*args, **options).one_sided]


# function, point, left and right derivative, what the kink is
SCALAR = [
    (np.abs, 0.0, -1.0, 1.0, "modulus of 0"),
    (lambda x: np.maximum(x, 2.0 * x), 0.0, 1.0, 2.0, "tie"),
    (lambda x: np.minimum(x, 2.0 * x), 0.0, 2.0, 1.0, "tie"),
    (lambda x: np.fmax(x, 1.0), 1.0, 0.0, 1.0, "tie"),
    (lambda x: np.clip(x, 0.0, 1.0), 1.0, 1.0, 0.0, "tie"),
    (lambda x: np.where(x > 0.0, x**2, -x), 0.0, -1.0, 0.0, "boundary"),
    (lambda x: np.where(x >= 0.0, x**2, -x), 0.0, -1.0, 0.0, "boundary"),
    (lambda x: np.where(x > 0.0, 3.0 * x, 5.0 * x), 0.0, 5.0, 3.0, "boundary"),
    (ft.nn.relu, 0.0, 0.0, 1.0, "boundary"),
    (np.floor, 2.0, np.inf, 0.0, "jump"),
    (np.ceil, 2.0, 0.0, np.inf, "jump"),
    (np.trunc, -2.0, 0.0, np.inf, "jump"),
    (np.sign, 0.0, np.inf, np.inf, "jump"),
    (lambda x: x * np.rint(x), 2.5, 2.0, np.inf, "jump"),
    (lambda x: np.remainder(x, 3.0), 6.0, -np.inf, 1.0, "jump"),
    (lambda x: x * np.floor_divide(x, 2.0), 4.0, np.inf, 2.0, "jump"),
    (lambda x: np.fmod(x, 3.0), -3.0, 1.0, -np.inf, "jump"),
    (lambda x: np.hypot(x, 0.0 * x), 0.0, -1.0, 1.0, "length 0"),
    (np.sqrt, 0.0, np.nan, np.inf, "root of 0"),
    (np.cbrt, 0.0, np.inf, np.inf, "root of 0"),
    (np.linalg.norm, 0.0, -1.0, 1.0, None),
    (fnp.linalg.safe_norm, 0.0, -1.0, 1.0, "boundary"),
    (lambda x: x**0.5, 0.0, np.nan, np.inf, "root of 0"),
    (np.arcsin, 1.0, np.inf, np.nan, "edge of the domain"),
    (lambda x: np.abs(np.abs(x) - 1.0), 1.0, -1.0, 1.0, "modulus of 0"),
    (lambda x: np.sort(fnp.array([x, 2.0 - x]))[0], 1.0, 1.0, -1.0, "tie"),
    (lambda x: np.max(fnp.array([x, 3.0 * x, -x])), 0.0, -1.0, 3.0, "tie"),
    (lambda x: np.min(fnp.array([x, 3.0 * x, -x])), 0.0, 3.0, -1.0, "tie"),
    (lambda x: np.maximum.accumulate(fnp.array([0.0 * x, x, -x]))[2], 0.0, -1.0, 1.0, "tie"),
    (lambda x: np.abs(x) * x, 0.0, 0.0, 0.0, "modulus of 0"),
    (lambda x: np.interp(x, [0.0, 1.0, 2.0], [0.0, 1.0, 5.0]), 1.0, 1.0, 4.0, "knot"),
    (
        lambda x: fnp.at(fnp.array([x, 1.0]))[np.array([1, 1])].max(fnp.array([2.0 * x - 1.0, 0.5 + 0.5 * x]))[1],
        1.0,
        0.0,
        2.0,
        "tie",
    ),
    (
        lambda x: fnp.at(fnp.array([1.0, x]))[np.array([0, 0])].min(fnp.array([3.0 * x - 2.0, x]))[0],
        1.0,
        3.0,
        0.0,
        "tie",
    ),
]


@pytest.mark.parametrize("number", range(len(SCALAR)))
def test_one_sided_derivatives(number):
    f, point, left, right, what = SCALAR[number]
    report = kinks(f)(point)
    assert report
    if what is not None:
        assert what in [kink.what for kink in report.active]
    (side,) = report.one_sided
    np.testing.assert_allclose((side.left, side.right), (left, right), rtol=1e-4 if side.estimated else 1e-13)


@pytest.mark.parametrize("f", [np.sin, np.tanh, lambda x: np.abs(x) + np.floor(x) + np.maximum(x, 0.0), np.sqrt])
def test_smooth_points_have_none(f):
    report = kinks(f)(0.7)
    assert not report and len(report) == 0 and report.one_sided == []
    assert "no kinks" in repr(report)


def test_constants_do_not_count():
    """A tie between values that no input reaches is no kink."""
    assert not kinks(lambda x: x + np.abs(fnp.zeros(3)).sum() + np.floor(ft.stop_gradient(x)))(1.0)


def test_which_elements():
    x = np.array([[1.0, -2.0], [0.0, 3.0]])
    (kink,) = kinks(lambda x: np.abs(x).sum())(x).active
    assert kink.positions == [(1, 0)] and kink.distance == 0.0
    np.testing.assert_array_equal(kink.operands[0], x)
    assert kink.operation == "abs(x)" and "test_kinks.py" in str(kink.source)


def test_nearly():
    x = np.array([1e-9, 1.0])
    assert not kinks(lambda x: np.abs(x).sum())(x)
    (kink,) = kinks(lambda x: np.abs(x).sum())(x, within=1e-6).active
    assert kink.positions == [(0,)] and kink.distance == 1e-9


def test_per_input_and_along_a_direction():
    def f(x, y):
        return np.maximum(x, 2.0 * y) * 3.0

    assert sides(f, 2.0, 1.0) == [(0.0, 3.0), (0.0, 6.0)]
    assert sides(f, 2.0, 1.0, direction=(2.0, 1.0)) == [(6.0, 6.0)]
    (side,) = kinks(f)(2.0, 1.0, direction=(2.0, 1.0)).one_sided
    assert side.smooth and side.label == "along the direction"


def test_labels_and_how_many():
    report = kinks(lambda p: np.abs(p["a"]).sum())({"a": np.zeros(20)}, largest=3)
    assert [s.label for s in report.one_sided] == ["p['a'][0]", "p['a'][1]", "p['a'][2]"]
    assert "17 inputs are not listed" in repr(report)


def test_python_branches():
    def f(x):
        if x > 1.0:
            return x * x
        return 3.0 * x - 2.0

    assert sides(f, 1.0) == [(3.0, 2.0)]


@pytest.mark.parametrize("wrap", [lambda f: f, ft.jit, ft.checkpoint], ids=["plain", "jit", "checkpoint"])
def test_inside_loops(wrap):
    @wrap
    def f(x):
        return lax.scan(lambda c, t: (np.abs(c - t), c), x, np.array([1.0, 2.0, 0.5]))[0]

    report = kinks(f)(3.0)
    assert "run 2 of scan" in report.active[0].place
    assert [(s.left, s.right) for s in report.one_sided] == [(1.0, -1.0)]


def test_while_and_cond():
    def f(x):
        y = lax.while_loop(lambda c: c < 10.0, lambda c: 2.0 * c, x)
        return lax.cond(y > 16.0, lambda y: 5.0 * y, lambda y: y - 1.0, y)

    report = kinks(f)(1.0)  # 16 is the boundary of the branch
    assert report.active[-1].operation == "x > y"
    assert sides(f, 1.0) == [(16.0, np.inf)]


def test_crossing_eigenvalues():
    """The larger eigenvalue of ((1 + x, 0), (0, 1 - x)) is 1 + |x|."""

    def largest(x):
        return np.linalg.eigvalsh(np.diag(fnp.array([1.0 + x, 1.0 - x])))[1]

    report = kinks(largest)(0.0)
    assert report.active[0].what == "equal eigenvalues" and report.active[0].positions == [(0,), (1,)]
    np.testing.assert_allclose(sides(largest, 0.0), [(-1.0, 1.0)], rtol=1e-6)
    assert not kinks(largest)(0.5)
    assert (
        kinks(lambda x: np.linalg.norm(np.diag(fnp.array([x, 1.0])), 2))(1.0).active[0].what == "equal singular values"
    )


def test_several_outputs():
    (side,) = kinks(lambda x: {"a": np.abs(x), "b": x})(0.0).one_sided
    assert side.left == {"a": -1.0, "b": 1.0} and side.right == {"a": 1.0, "b": 1.0}
    assert not side.smooth


def piecewise(coefficients):
    """A continuous piecewise linear function of two numbers, with kinks along lines through integers."""

    def f(x):
        a, b = x[0], x[1]
        for p, q, r in coefficients:
            a, b = np.maximum(p * a - b, q * b), np.abs(a - r) - np.minimum(b, a)
        return a + np.abs(b)

    return f


@given(
    st.lists(st.tuples(*[st.integers(-2, 2)] * 3), min_size=1, max_size=3),
    st.tuples(st.integers(-2, 2), st.integers(-2, 2)),
    st.tuples(st.integers(-2, 2), st.integers(-2, 2)),
)
def test_random_piecewise_linear_functions(coefficients, point, direction):
    """Their one-sided derivatives are difference quotients of short steps, exactly."""
    f, x, d = piecewise(coefficients), np.array(point, float), np.array(direction, float)
    report = kinks(f)(x, direction=(d,))
    if not report:
        return
    h = 2.0**-20
    expected = ((f(x) - f(x - h * d)) / h, (f(x + h * d) - f(x)) / h)
    (side,) = report.one_sided
    assert (side.left, side.right) == expected


def test_report():
    text = repr(kinks(lambda x: np.abs(x) + np.sqrt(x))(0.0))
    assert "abs(x): modulus of 0" in text and "sqrt(x): root of 0" in text
    assert "where: " in text and "test_kinks.py" in text and "one-sided derivatives" in text
    assert kinks(np.abs)(0.0)._repr_html_().startswith("<pre>")


def test_errors():
    with pytest.raises(TangentError):
        kinks(np.abs)(0.0, direction=(np.zeros(2),))
    with pytest.raises(InputError, match="takes a function"):
        kinks(3.0)


# the declarations

SMOOTH_OR_INTEGER = {
    # piecewise constant only in their integer or boolean sense, or without a value in between
    "spacing", "exponent", "isfinite", "isinf", "isnan", "stop_gradient", "gammasgn", "argpartition",
    "negligible", "ties", "anchors", "neighbours", "random_bits", "full", "iota", "logical_and", "logical_or",
    "logical_not", "logical_xor", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "bitwise_count",
    "left_shift", "right_shift", "gcd", "lcm", "reduce_and", "reduce_or",
}  # fmt: skip


def test_piecewise_constant_primitives_have_a_kink():
    constant = {p.name for p in own_primitives() if p.nondifferentiable and p.family != "control"}
    assert {p.name for p in own_primitives() if p.kink is not None} >= constant - SMOOTH_OR_INTEGER


KINKED = [c for c in all_cases() if c.primitive.kink is not None]


@pytest.mark.parametrize("case", KINKED, ids=str)
def test_distances_fit_the_output(case):
    """The distance is a number per element of the output, positive at the cases, which stand away from kinks."""
    operands = [np.asarray(o) for o in case.operands]
    if any(o.dtype.kind not in "f" for o in operands):
        return
    with np.errstate(all="ignore"):
        distance = np.asarray(case.primitive.kink.distance(*operands, **case.params))
    if not case.primitive.multiple:  # a decomposition is measured at its values
        np.broadcast_to(distance, np.shape(case.evaluate()[0]))
    if case.active():
        assert not (distance == 0.0).any()
