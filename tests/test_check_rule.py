"""check_rule passes right rules and names what a wrong one gets wrong."""

import re

import numpy as np
import pytest

import functrace as ft
from functrace import custom_jvp, custom_vjp
from functrace.errors import ArgumentError
from functrace.extend import Primitive, ShapedArray, elementwise
from functrace.testing import RuleError, check_rule

X = np.array([0.3, 0.8, 1.2])


def failing(f, args=(X,), **options):
    with pytest.raises(RuleError) as caught:
        check_rule(f, args, **options)
    text = str(caught.value)
    passed = text.rpartition("passed: ")[2].split(", ")
    return text, {m for m in re.findall(r"^  (\w[\w ]*): ", text, re.M) if m != "passed"}, set(passed)


def jvp_of(rule, function=np.sin):
    f = custom_jvp(function)
    f.defjvp(rule)
    return f


def vjp_of(fwd, bwd, function=np.sin):
    f = custom_vjp(function)
    f.defvjp(fwd, bwd)
    return f


def test_right_rules_pass():
    f = jvp_of(lambda p, t: (f(p[0]), np.cos(p[0]) * t[0]))
    check_rule(f, (X,))
    check_rule(f, (0.5 + 0.25j,))
    g = vjp_of(lambda x: (np.sin(x), x), lambda x, bar: (np.cos(x) * bar,))
    check_rule(g, (X,))
    g.defjvp(lambda p, t: (g(p[0]), np.cos(p[0]) * t[0]))
    check_rule(g, (X,))


def test_pytrees_integers_and_nondiff_arguments():
    f = custom_jvp(lambda g, p, n: {"out": g(p["x"]) * p["y"] * n, "n": n}, nondiff_argnums=(0,))

    @f.defjvp
    def rule(g, primals, tangents):
        (p, n), (dot, _) = primals, tangents
        out_dot = (np.cos(p["x"]) * dot["x"] * p["y"] + g(p["x"]) * dot["y"]) * n
        return f(g, p, n), {"out": out_dot, "n": np.zeros((), ft.float0)}

    check_rule(f, (np.sin, {"x": X, "y": 2.0}, 3))


def test_wrong_derivative():
    text, failed, passed = failing(jvp_of(lambda p, t: (np.sin(p[0]), -np.cos(p[0]) * t[0])))
    assert failed == {"jvp", "vjp"}
    assert passed == {"value", "linearity", "transpose", "second order", "batching", "staging"}
    assert "2 of 8 checks" in text and "against differences" in text


def test_wrong_cotangent():
    _, failed, _ = failing(vjp_of(lambda x: (np.sin(x), x), lambda x, bar: (np.cos(x) * bar + bar,)))
    assert {"jvp", "vjp"} <= failed


def test_wrong_value():
    text, failed, _ = failing(jvp_of(lambda p, t: (2 * np.sin(p[0]), np.cos(p[0]) * t[0])))
    assert "value" in failed and "output 0 in forward mode" in text
    assert "float32" in failing(vjp_of(lambda x: (np.sin(x).astype("f4"), x), lambda x, b: (np.cos(x) * b,)))[0]


def test_rules_that_disagree():
    f = vjp_of(lambda x: (np.sin(x), x), lambda x, bar: (np.cos(x) * bar,))
    f.defjvp(lambda p, t: (np.sin(p[0]), 1.5 * np.cos(p[0]) * t[0]))
    _, failed, passed = failing(f)
    assert {"jvp", "transpose"} <= failed and {"value", "vjp", "linearity"} <= passed


def test_rule_that_is_not_linear():
    _, failed, _ = failing(jvp_of(lambda p, t: (np.sin(p[0]), np.cos(p[0]) * np.abs(t[0]))))
    assert {"jvp", "linearity"} <= failed
    text, failed, passed = failing(vjp_of(lambda x: (np.sin(x), x), lambda x, b: (np.clip(np.cos(x) * b, -9, 9),)))
    assert {"jvp", "linearity", "transpose"} <= failed and "vjp" in passed
    assert "f.defjvp" in text


def test_second_derivative_that_a_rule_hides():
    """A rule right in value but constant to the next derivative."""
    f = jvp_of(lambda p, t: (f(p[0]), ft.stop_gradient(np.cos(p[0])) * t[0]))
    _, failed, passed = failing(f)
    assert failed == {"second order"}
    check_rule(f, (X,), order=1)
    assert "jvp" in passed


def test_wrong_shape():
    text, failed, _ = failing(jvp_of(lambda p, t: (np.sin(p[0]), np.sum(np.cos(p[0]) * t[0]))))
    assert "tangent float64[] for output float64[3]" in text and "jvp" in failed


def test_python_control_flow_has_neither_batch_nor_jaxpr():
    f = custom_jvp(lambda x: x**2 if x > 0 else x)
    f.defjvp(lambda p, t: (f(p[0]), (2 * p[0] if p[0] > 0 else 1.0) * t[0]))
    assert failing(f, (1.5,))[1] == {"batching", "staging"}
    check_rule(f, (1.5,), batch=False, stage=False)


def test_primitives():
    good = elementwise("check_rule_good", lambda x: x * x, lambda x, out: 2.0 * x)
    check_rule(good, (X,))
    bad = elementwise("check_rule_bad", lambda x: x * x, lambda x, out: 3.0 * x)
    assert {"jvp", "vjp"} <= failing(bad)[1]

    def transpose(bars, x):
        return [bars[0] * 3.0]

    scaled = Primitive(
        "check_rule_scaled",
        lambda x: 2.0 * x,
        lambda aval: aval,
        jvp=lambda primals, tangents: ([scaled(primals[0])], [scaled(tangents[0])]),
        transpose=transpose,
        batch=lambda size, values, batched: ([scaled(values[0])], [True]),
    )
    _, failed, passed = failing(scaled)
    assert {"vjp", "transpose"} <= failed and {"jvp", "linearity"} <= passed

    reversed_batch = Primitive(
        "check_rule_reversed",
        np.sort,
        lambda aval: ShapedArray(aval.shape, aval.dtype),
        jvp=lambda primals, tangents: ([np.sort(primals[0])], [tangents[0]]),
        batch=lambda size, values, batched: ([np.sort(values[0])[::-1]], [True]),
    )
    text, failed, _ = failing(reversed_batch)
    assert failed == {"batching"} and "vmap of the value" in text
    unbatched = Primitive("check_rule_unbatched", np.sort, lambda aval: aval, jvp=reversed_batch.jvp)
    text, failed, _ = failing(unbatched)
    assert failed == {"batching"} and "Primitive.define(batch=...)" in text


def test_needs_something_to_differentiate():
    with pytest.raises(ArgumentError, match="pass floats"):
        check_rule(lambda n: n, (3,))
