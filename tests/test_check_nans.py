"""check_nans names the operation that made a NaN or an infinity, in each sweep, with the user's line."""

import inspect

import numpy as np
import pytest

import functrace as ft
from functrace import lax
from functrace.inspect import check_nans


def events(f, *args):
    return [(e.sweep, e.kind, e.operation) for e in check_nans(f)(*args).events]


def test_clean():
    report = check_nans(lambda x: np.sin(x) @ x)(np.ones(3))
    assert not report and report.first("adjoint") is None
    assert repr(report) == "no NaN or infinity in the primal, tangent or adjoint sweep"


def test_primal():
    def f(x):
        y = x - 2.0
        z = np.log(y)  # the line
        return np.sum(z * z)

    report = check_nans(f)(np.array([3.0, 1.0]))
    event = report.first()
    assert (event.sweep, event.kind, event.operation) == ("primal", "nan", "ln(x)")
    np.testing.assert_array_equal(event.operands[0], [1.0, -1.0])
    np.testing.assert_array_equal(event.result[0], [0.0, np.nan])
    assert event.source.line == inspect.getsourcelines(f)[1] + 2
    assert "ln(x)" in repr(report) and f"{event.source.line} in" in repr(report)


def test_only_the_first_of_each_kind():
    found = events(lambda x: np.log(x) - np.log(x) + np.exp(1000.0 + x), 0.0)
    assert found[:2] == [("primal", "inf", "ln(x)"), ("primal", "nan", "x - y")]
    assert len([e for e in found if e[0] == "primal"]) == 2


def test_adjoint_alone():
    """sqrt has a value at 0; its derivative is infinite, and 0 * inf is NaN."""
    report = check_nans(lambda x: np.sqrt(x) * x)(0.0)
    assert report.first("primal") is None
    event = report.first("adjoint")
    assert (event.kind, event.operation, event.operands, event.incoming) == ("nan", "sqrt(x)", [0.0], [0.0])
    assert np.isnan(event.result[0])


def test_norm_at_0():
    assert ("adjoint", "inf", "sqrt(x)") in events(np.linalg.norm, np.zeros(3))
    assert ("tangent", "nan", "sqrt(x)") in events(np.linalg.norm, np.zeros(3))


def test_branch_not_taken_is_clean_in_reverse_as_in_the_gradient():
    def f(x):
        return np.sum(np.where(x > 0.0, np.log(x), 2.0 * x))

    report = check_nans(f)(np.array([0.0, 1.0]))
    assert report.first("adjoint") is None
    with np.errstate(divide="ignore", invalid="ignore"):
        np.testing.assert_array_equal(ft.grad(f)(np.array([0.0, 1.0])), [2.0, 1.0])


@pytest.mark.parametrize("wrap", [lambda f: f, ft.jit, ft.checkpoint], ids=["plain", "jit", "checkpoint"])
def test_inside_loops(wrap):
    def step(c, t):
        return np.exp(c * t), None  # the line

    @wrap
    def f(x):
        return lax.scan(step, x, np.array([1.0, 20.0, 30.0, 50.0]))[0]

    event = check_nans(f)(3.0).first()
    assert (event.kind, event.operation) == ("inf", "exp(x)")
    assert "run 3 of scan" in event.place
    assert event.source.line == inspect.getsourcelines(step)[1] + 1


def test_inside_branches_and_while():
    def f(x):
        y = lax.while_loop(lambda c: c < 1e300, lambda c: c * c, x)
        return lax.cond(x > 1.0, lambda y: y * 1e200, lambda y: y, y)

    event = check_nans(f)(2.0).first()
    assert event.kind == "inf" and "while" in event.place


def test_given_nans_are_nobodys_fault():
    assert events(lambda x: x * 2.0, np.array([np.nan, np.inf])) == []


def test_custom_rules_are_named():
    @ft.custom_vjp
    def f(x):
        return x * 2.0

    f.defvjp(lambda x: (f(x), None), lambda _, bar: (bar * np.inf,))
    event = check_nans(lambda x: np.sin(f(x)))(1.0).first("adjoint")
    assert event.kind == "inf" and "custom_vjp_call" in event.operation


def test_integer_arguments_pass():
    assert not check_nans(lambda x, n: x**2 * n)(2.0, 3)
