"""The checks find what is planted: every rule broken in turn, and wrong derivatives of users' functions."""

import functools

import numpy as np
import pytest

import functrace
from functrace.core import primitive as registry
from functrace.core.primitive import Primitive
from functrace.core.types import ShapedArray
from functrace.primitives.elementwise import cos, mul, sin, square
from functrace.primitives.families import add, broadcast, elementwise, reduce_sum
from functrace.primitives.linear import linear
from functrace.testing import (
    Case,
    RuleError,
    check_grads,
    check_jvp,
    check_primitive,
    check_vjp,
    complex_step,
    difference,
)


@pytest.fixture(autouse=True)
def forget_primitives(monkeypatch):
    """Primitives made by a test vanish with it."""
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))


X = np.array([0.3, -0.4, 0.7])
Y = np.array([1.3, 0.4, -0.7])


def wrong_sine(**rules):
    options = {"jvp": lambda ps, ts: ([sin(ps[0])], [mul(cos(ps[0]), ts[0])]), **rules}
    impl = options.pop("impl", np.sin)
    return elementwise("wrong_sine", impl, **options)


def test_right_sine_passes():
    check_primitive(Case(wrong_sine(), (X,), complex_step=True, order=3))


def fails(case, pattern):
    with pytest.raises(RuleError, match=pattern):
        check_primitive(case)


def test_impl_with_another_dtype():
    wrong = wrong_sine(impl=lambda x: np.sin(x).astype(np.float32))
    fails(Case(wrong, (X,)), r"abstract_eval: output 0 of impl.*float32")


def test_impl_with_another_shape():
    fails(Case(wrong_sine(impl=lambda x: np.sin(x)[:1]), (X,)), r"abstract_eval: output 0 of impl")


def test_impl_with_zero_dimensional_array():
    wrong = wrong_sine(impl=lambda x: np.asarray(np.sin(x)))
    fails(Case(wrong, (np.float64(0.3),)), "ndarray float64.*expected generic")


def test_impl_that_changes_its_operand():
    def impl(x):
        try:
            x[...] = np.sin(x)
        except ValueError:
            return np.sin(x)
        return x.copy()

    fails(Case(wrong_sine(impl=impl), (X.copy(),)), "abstract_eval: (impl changed operand 0|output 0 of impl)")


def test_impl_that_depends_on_memory_layout():
    matrix = np.arange(6.0).reshape(2, 3)
    wrong = wrong_sine(impl=lambda x: np.sin(x.ravel(order="K").reshape(x.shape)))
    fails(Case(wrong, (matrix,)), "asfortranarray operands")


def test_wrong_derivative():
    wrong = wrong_sine(jvp=lambda ps, ts: ([sin(ps[0])], [mul(sin(ps[0]), ts[0])]))
    fails(Case(wrong, (X,)), "jvp: jvp against differences")


def test_derivative_wrong_in_the_tenth_digit_needs_the_complex_step():
    def jvp(ps, ts):
        return [sin(ps[0])], [mul(cos(ps[0]) * (1 + 1e-9), ts[0])]

    fails(Case(wrong_sine(jvp=jvp), (X,), complex_step=True), "jvp against the complex step")


def test_wrong_second_derivative():
    half = wrong_sine()
    wrong = elementwise("wrong_first", np.sin, lambda x, out: functrace.stop_gradient(cos(x)))
    fails(Case(wrong, (X,)), "second order: fwd-fwd against differences")
    check_primitive(Case(half, (X,)))


def test_wrong_linearize():
    def linearize(record, primals, tangents):
        out = sin(primals[0])
        return [out], [record(add, [tangents[0], tangents[0]], ShapedArray(out.shape, out.dtype), {})]

    fails(Case(wrong_sine(linearize=linearize), (X,)), "linearize: linearize against jvp")


def test_wrong_batch():
    def batch(size, values, batched):
        return [broadcast(reduce_sum(sin(values[0]), axes=(0,)), shape=values[0].shape, axes=(1,))], [True]

    fails(Case(wrong_sine(batch=batch), (X,)), r"batch: vmap over operands \(0,\) against a loop")


def test_batch_that_works_only_eagerly():
    def batch(size, values, batched):
        return [np.stack([np.sin(v) for v in np.asarray(values[0])])], [True]

    fails(Case(wrong_sine(batch=batch), (X,)), "batch: ConversionError")


def doubled_sum(transpose, batch=None):
    return linear(
        "wrong_sum",
        lambda x: np.add.reduce(x),
        lambda aval: ShapedArray((), aval.dtype),
        transpose,
        batch or (lambda size, x: reduce_sum(x, axes=(1,))),
    )


def right_transpose(bar, aval):
    return broadcast(bar, shape=aval.shape, axes=())


def test_right_sum_passes():
    check_primitive(Case(doubled_sum(right_transpose), (X,)))


def test_wrong_transpose():
    wrong = doubled_sum(lambda bar, aval: 2.0 * right_transpose(bar, aval))
    fails(Case(wrong, (X,)), r"transpose: <v, J'w> against <Jv, w>")


def test_transpose_with_wrong_shape():
    fails(Case(doubled_sum(lambda bar, aval: bar), (X,)), r"transpose: cotangent .* expected ndarray float64\[3\]")


def test_transpose_of_a_nonlinear_operation():
    wrong = elementwise("wrong_square", np.square, lambda x, out: 2 * x, transpose=lambda bars, x: [bars[0]])
    check_primitive(Case(wrong, (X,)))  # linear_transpose refuses by itself: the derivative depends on the operand
    constant = elementwise("wrong_shift", lambda x: x * abs(x), 1, transpose=lambda bars, x: [bars[0]])
    fails(Case(constant, (X,), order=0), "transposed in operands .*not linear")


def test_wrong_zero_tangent():
    def jvp(ps, ts):
        x_dot = ps[0] if ts[0] is None else ts[0]
        y_dot = square(ps[1]) * 0.0 if ts[1] is None else ts[1]
        return [add(*ps)], [add(x_dot, y_dot)]

    wrong = elementwise("wrong_add", np.add, jvp=jvp)
    fails(Case(wrong, (X, Y)), r"with respect to operands \(1,\)|linearize")


def test_single_precision_lost_in_the_derivative():
    constant = np.array([2.0, 2.0, 2.0])
    wrong = elementwise("wrong_double", lambda x: x + x, lambda x, out: constant)
    fails(Case(wrong, (X,)), "single precision")


def test_declared_nondifferentiable_is_not_differentiated():
    check_primitive(Case(elementwise("piecewise", np.floor), (X,)))


def test_several_outputs():
    both = Primitive(
        "sine_and_cosine",
        lambda x: [np.sin(x), np.cos(x)],
        lambda aval: [aval, aval],
        multiple=True,
        jvp=lambda ps, ts: ([sin(ps[0]), cos(ps[0])], [mul(cos(ps[0]), ts[0]), mul(-sin(ps[0]), ts[0])]),
        batch=lambda size, vs, bs: ([sin(vs[0]), cos(vs[0])], [True, True]),
    )
    check_primitive(Case(both, (X,), complex_step=True))


def test_case_names_and_positions():
    case = Case(add, (X, 2.0))
    assert str(case) == "add-float64[3],float64[]"
    assert case.active() == (0,)
    assert Case(add, (np.float64(1), np.float64(2))).active() == (0, 1)
    assert Case(add, (np.asarray(1.0), np.asarray(2.0))).operands[0].__class__ is np.float64
    assert str(Case(add, (X, Y), name="some")) == "add-some"


# users' functions


def softplus_sum(x, y):
    return {"out": np.log(1 + np.exp(x * y["w"])).sum(), "count": 3}


ARGS = (X, {"w": Y})


@pytest.mark.parametrize("modes", [("fwd",), ("rev",), ("fwd", "rev"), "fwd"])
@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_check_grads_accepts(order, modes):
    check_grads(lambda x, y: softplus_sum(x, y)["out"], ARGS, order=order, modes=modes)


def test_check_grads_takes_trees_integers_complex_and_single_precision():
    check_grads(softplus_sum, ARGS, order=2)
    check_grads(lambda x, n: x**n, (X, 3), order=2)
    check_grads(lambda z: np.exp(z) * z, (X + 1j * Y,), order=2)
    check_grads(lambda x: np.sin(x), (X.astype(np.float32),), order=2)
    check_grads(np.sin, (0.3,), order=2)


def test_check_grads_finds_a_wrong_first_derivative():
    def f(x):
        return (x * functrace.stop_gradient(x)).sum()

    with pytest.raises(RuleError, match=r"^fwd: jvp of output 0 against differences"):
        check_grads(f, (X,))
    with pytest.raises(RuleError, match=r"^rev: vjp against differences"):
        check_grads(f, (X,), modes=("rev",))


def test_check_grads_names_the_nesting_of_a_wrong_second_derivative():
    wrong = elementwise("wrong_first", np.sin, lambda x, out: functrace.stop_gradient(cos(x)))
    check_grads(wrong, (X,), order=1)
    with pytest.raises(RuleError, match=r"^rev-rev: "):
        check_grads(wrong, (X,), order=2, modes=("rev", "fwd"))


def test_check_grads_rejects_unknown_modes():
    with pytest.raises(functrace.errors.ArgumentError, match="'fwd' and 'rev'"):
        check_grads(np.sin, (X,), modes=("forward",))


def test_tolerances_and_step():
    check_grads(lambda x: x * functrace.stop_gradient(x), (X,), atol=10.0)
    with pytest.raises(RuleError):
        check_grads(np.sin, (X,), eps=0.5, atol=1e-12, rtol=1e-12)


def test_check_jvp_and_vjp_take_custom_derivatives():
    check_jvp(np.sin, functools.partial(functrace.jvp, np.sin), (X,))
    check_vjp(np.sin, functools.partial(functrace.vjp, np.sin), (X,))
    with pytest.raises(RuleError, match="jvp of output 0"):
        check_jvp(np.sin, lambda xs, ts: (np.sin(xs[0]), ts[0]), (X,))
    with pytest.raises(RuleError, match="value given by the jvp"):
        check_jvp(np.sin, lambda xs, ts: (np.cos(xs[0]), np.cos(xs[0]) * ts[0]), (X,))
    with pytest.raises(RuleError, match="vjp against differences"):
        check_vjp(np.sin, lambda x: (np.sin(x), lambda bar: (bar,)), (X,))
    with pytest.raises(RuleError, match="cotangent of float64"):
        check_vjp(np.sin, lambda x: (np.sin(x), lambda bar: ((np.cos(x) * bar).sum(),)), (X,))


def test_numerical_derivatives():
    got = difference(lambda x, n: [np.sin(x) * n], [X, np.int64(2)], [Y, None])
    np.testing.assert_allclose(got[0], 2 * np.cos(X) * Y, rtol=1e-10)
    got = complex_step(lambda x: [np.sin(x)], [X], [Y])
    np.testing.assert_allclose(got[0], np.cos(X) * Y, rtol=1e-15)
