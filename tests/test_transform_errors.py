"""Every mistake a user can make with a transformation: its class, the user's line, and the remedy."""

from collections import namedtuple
from functools import partial

import numpy as np
import pytest

import functrace
from functrace import errors
from functrace.core import primitive as registry
from functrace.core.primitive import Primitive

X = np.array([0.3, -0.4, 0.7])


def raises(error, remedy, got=None):
    """The class, with the remedy's text and the user's line."""

    def check(excinfo):
        text = str(excinfo.value)
        assert got is None or got in text, text
        assert "where: " not in text or "test_transform_errors.py" in text, text

    return _Raises(error, remedy, check)


class _Raises:
    def __init__(self, error, remedy, check):
        self.context = pytest.raises(error, match=remedy)
        self.check = check

    def __enter__(self):
        self.excinfo = self.context.__enter__()
        return self.excinfo

    def __exit__(self, *details):
        done = self.context.__exit__(*details)
        if done:
            self.check(self.excinfo)
        return done


# grad


@pytest.mark.parametrize(
    ("f", "got"),
    [
        (lambda x: x, "float64[3]"),
        (lambda x: (x @ x, x @ x), "(*, *)"),
        (lambda x: [x @ x], "[*]"),
        (lambda x: None, "None"),
        (lambda x: x[:1], "float64[1]"),
        (lambda x: 3, "int64[]"),
        (lambda x: x @ x > 0, "bool[]"),
        (lambda x: (x @ x) * 1j, "complex128[]"),
    ],
)
def test_grad_needs_one_real_scalar_output(f, got):
    with raises(errors.NonScalarOutputError, r"\.sum\(\)|numpy\.real"):
        functrace.grad(f)(X)
    with raises(errors.NonScalarOutputError, r"\.sum\(\)|numpy\.real"):
        functrace.value_and_grad(f)(X)


def test_grad_holomorphic_needs_complex_output():
    with raises(errors.NonScalarOutputError, "holomorphic=True"):
        functrace.grad(np.abs, holomorphic=True)(1 + 1j)


@pytest.mark.parametrize("transform", [functrace.grad, functrace.jacfwd, functrace.jacrev, functrace.hessian])
@pytest.mark.parametrize(("value", "got"), [(3, "int64[]"), (np.arange(3), "int64[3]"), (True, "bool[]")])
def test_integers_have_no_derivative(transform, value, got):
    with raises(errors.NonDifferentiableInputError, r"numpy\.asarray\(x, float\)", got):
        transform(lambda x: x * 1.0)(value)


@pytest.mark.parametrize("transform", [functrace.grad, functrace.jacfwd, functrace.jacrev])
def test_complex_functions_need_holomorphic(transform):
    with raises(errors.FunctraceError, "holomorphic=True", "complex128[]"):
        transform(lambda z: z * z)(1 + 1j)
    with raises(errors.NonDifferentiableInputError, "complex"):
        transform(lambda z: z * z, holomorphic=True)(1.0)


@pytest.mark.parametrize("transform", [functrace.jacfwd, functrace.jacrev])
def test_jacobians_need_floating_point_outputs(transform):
    with raises(errors.NonDifferentiableInputError, "floating point outputs", "int64[]"):
        transform(lambda x: 3)(X)


TRANSFORMS = [functrace.grad, functrace.value_and_grad, functrace.jacfwd, functrace.jacrev, functrace.hessian]


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("argnums", [2, -3, (0, 2), 10])
def test_argnums_out_of_range(transform, argnums):
    with raises(errors.ArgumentError, "by position", f"argnums={argnums!r} for 2 positional arguments"):
        transform(lambda x, y: x * y, argnums)(1.0, 2.0)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("argnums", ["x", 1.0, (), None, (0, "y"), True])
def test_argnums_of_wrong_type(transform, argnums):
    with raises(errors.ArgumentError, r"argnums=\(0, 2\)"):
        transform(lambda x, y: x * y, argnums)(1.0, 2.0)


def test_argnums_twice():
    with raises(errors.ArgumentError, "each argument once"):
        functrace.grad(lambda x, y: x * y, (0, -2))(1.0, 2.0)


def test_differentiated_argument_passed_by_keyword():
    with raises(errors.ArgumentError, "by position"):
        functrace.grad(lambda x: x * x)(x=1.0)


ALL = [*TRANSFORMS, functrace.jvp, functrace.vjp, functrace.vmap, functrace.linearize, functrace.linear_transpose,
       functrace.make_jaxpr, functrace.eval_shape]  # fmt: skip


@pytest.mark.parametrize("transform", ALL)
def test_not_a_function(transform):
    with raises(errors.InputError, r"\(f\)\(x\), not \w+\(f\(x\)\)|takes a function", "float64"):
        transform(*[np.float64(1.0)] * (3 if transform is functrace.jvp else 1))


@pytest.mark.parametrize(
    "transform", [functrace.jvp, functrace.vjp, functrace.linearize, functrace.grad, functrace.jacfwd]
)
def test_has_aux_needs_a_pair(transform):
    with raises(errors.ArgumentError, "return output, aux"):
        if transform is functrace.jvp:
            transform(lambda x: x, (1.0,), (1.0,), has_aux=True)
        elif transform in (functrace.vjp, functrace.linearize):
            transform(lambda x: (x, x, x), 1.0, has_aux=True)
        else:
            transform(lambda x: x, has_aux=True)(1.0)


# inputs


@pytest.mark.parametrize(
    "value", ["text", object(), np.array(["a"]), np.array([None]), {1, 2}, np.array("2020", "datetime64")]
)
def test_inputs_that_are_not_numbers(value):
    for call in (
        lambda: functrace.grad(lambda x: 1.0)(value),
        lambda: functrace.vjp(lambda x: 1.0, value),
        lambda: functrace.make_jaxpr(lambda x: 1.0)(value),
        lambda: functrace.vmap(lambda x: 1.0)(value),
    ):
        with raises(errors.InputError, r"close over it|value\.astype\(float\)|divide times by a unit"):
            call()


def test_masked_arrays_and_matrices_are_refused():
    with raises(errors.InputError, r"value\.filled\(0\)", "MaskedArray"):
        functrace.grad(lambda x: 1.0)(np.ma.masked_array([1.0, 2.0], [True, False]))


def test_outputs_that_are_not_numbers():
    with raises(errors.InputError, r"numpy\.asarray"):
        functrace.vjp(lambda x: "text", X)


# tangents and cotangents


def test_jvp_needs_tuples():
    for primals, tangents in [(X, (X,)), ((X,), X), (1.0, 1.0)]:
        with raises(errors.InputError, r"jvp\(f, \(x,\), \(x_dot,\)\)"):
            functrace.jvp(np.sin, primals, tangents)


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("primal", "tangent"),
    [(X, (X,)), ((X, X), [X, X]), ({"a": X}, {"b": X}), (Pair(X, X), (X, X)), ([X, X], [X]), (None, X)],
)
def test_tangents_of_another_tree(primal, tangent):
    with raises(errors.TangentError, "same containers"):
        functrace.jvp(lambda p: 1.0, (primal,), (tangent,))
    with raises(errors.TangentError, "same containers"):
        functrace.jvp(lambda *p: 1.0, (X,), ())
    _, f_jvp = functrace.linearize(lambda p: 1.0, primal)
    with raises(errors.TangentError, "same containers"):
        f_jvp(tangent)


@pytest.mark.parametrize(
    ("primal", "tangent", "got"),
    [
        (X, X[:2], "float64[2] for primal float64[3]"),
        (X, X[:, None], "float64[3,1] for primal float64[3]"),
        (X, 1.0, "for primal float64[3]"),
        (1.0, X, "float64[3] for primal float64[]"),
        (X, X.astype(np.float32), "float32[3] for primal float64[3]"),
        (X.astype(np.float32), X, "float64[3] for primal float32[3]"),
        (X, X + 0j, "complex128[3] for primal float64[3]"),
        (X + 0j, X, "float64[3] for primal complex128[3]"),
        (X, np.arange(3), "int64[3] for primal float64[3]"),
    ],
)
def test_tangents_of_another_type(primal, tangent, got):
    with raises(errors.TangentError, r"make the tangent .*dtype=", got):
        functrace.jvp(lambda x: x, (primal,), (tangent,))
    with raises(errors.CotangentError, r"make the cotangent .*dtype=", got.replace("primal", "output")):
        functrace.vjp(lambda x: x, primal)[1](tangent)


def test_tangent_of_an_integer():
    with raises(errors.TangentError, r"functrace\.float0", "int64[]"):
        functrace.jvp(lambda n: n, (3,), (1,))
    with raises(errors.TangentError, r"functrace\.float0"):
        functrace.jvp(lambda n: n, (3,), (1.0,))


def test_cotangents_of_another_tree():
    _, pullback = functrace.vjp(lambda x: (x, {"a": x}), X)
    for bar in (X, (X,), (X, X), (X, {"b": X}), [X, {"a": X}]):
        with raises(errors.CotangentError, "same containers"):
            pullback(bar)


# leaks


def test_leak_through_a_global():
    found = []

    def f(x):
        found.append(x)
        return x @ x

    for transform in (functrace.grad, functrace.jacfwd, functrace.make_jaxpr, lambda f: partial(functrace.jvp, f)):
        found.clear()
        if isinstance(transform(f), partial):
            transform(f)((X,), (X,))
        else:
            transform(f)(X)
        (leaked,) = found
        for use in (lambda x: x + 1, np.sin, lambda x: x @ X, lambda x: functrace.grad(lambda y: y * x[0])(1.0)):
            with raises(errors.LeakedTracerError, "has_aux=True"):
                use(leaked)


def test_leak_from_vmap():
    found = []
    functrace.vmap(lambda x: found.append(x) or x)(X)
    with raises(errors.LeakedTracerError, "return the value"):
        found[0] + 1


def test_leak_into_another_transformation():
    found = []

    def store(x):
        found.append(x)
        return x * 1.0

    functrace.grad(store)(2.0)
    for call in (
        lambda: functrace.grad(lambda x: x * found[0])(1.0),
        lambda: functrace.jvp(lambda x: found[0], (1.0,), (1.0,)),
        lambda: functrace.make_jaxpr(lambda x: x * found[0])(1.0),
        lambda: functrace.make_jaxpr(lambda x: found[0])(1.0),
        lambda: functrace.vmap(lambda x: x * found[0])(X),
        lambda: functrace.vmap(lambda x: found[0])(X),
        lambda: functrace.grad(lambda x: x)(found[0]),
        lambda: functrace.grad(lambda x: found[0])(1.0),
        lambda: functrace.jvp(lambda x: x, (found[0],), (1.0,)),
        lambda: functrace.jvp(lambda x: x, (1.0,), (found[0],)),
        lambda: functrace.vjp(lambda x: x, 1.0)[1](found[0]),
        lambda: functrace.vmap(lambda x, y: x, in_axes=(0, None))(X, found[0]),
        lambda: functrace.jacfwd(lambda x: (x, found[0]))(1.0),
        lambda: functrace.grad(lambda x: (x, found[0]), has_aux=True)(1.0),
    ):
        with raises(errors.LeakedTracerError, "has_aux=True"):
            call()


# abstract values


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x if x > 0 else -x,
        lambda x: x if x else 0.0,
        lambda x: 1.0 if not x > 2 else x,
        lambda x: max(x, 2.0),
        lambda x: x and x,
    ],
)
def test_control_flow_on_abstract_values(f):
    with raises(errors.AbstractValueError, r"numpy\.where.*static_argnums"):
        functrace.make_jaxpr(f)(1.0)
    with raises(errors.AbstractValueError, r"numpy\.where"):
        functrace.vmap(f)(X)
    with raises(errors.AbstractValueError, r"numpy\.where"):
        functrace.eval_shape(f, 1.0)
    functrace.grad(f)(1.0)
    with raises(errors.AbstractValueError, r"numpy\.where"):
        functrace.make_jaxpr(functrace.grad(f))(1.0)
    with raises(errors.AbstractValueError, r"numpy\.where"):
        functrace.vmap(functrace.grad(f))(X)
    with raises(errors.AbstractValueError, r"numpy\.where"):
        functrace.grad(lambda x: functrace.vmap(f)(x) @ x)(X)


def test_abstract_indices():
    with raises(errors.AbstractValueError, "static_argnums"):
        functrace.make_jaxpr(lambda n: list(range(n)))(3)
    with raises(errors.AbstractValueError, "static_argnums"):
        functrace.make_jaxpr(lambda n: [1, 2, 3][n])(1)
    with raises(errors.AbstractValueError, "static_argnums"):
        functrace.make_jaxpr(lambda n: int(n))(1)


def test_array_truth_is_numpys_error():
    with pytest.raises(ValueError, match="ambiguous"):
        functrace.grad(lambda x: x @ x if x > 0 else 0.0)(X)


@pytest.mark.parametrize(
    "convert", [float, complex, np.asarray, np.array, lambda x: np.array([x, x]), lambda x: x.item()]
)
def test_conversions_would_lose_the_derivative(convert):
    with raises(errors.FunctraceError, r"functrace\.numpy|stop_gradient"):
        functrace.grad(lambda x: convert(x) * 1.0)(2.0)


# static arguments


def test_unhashable_static_argument():
    with raises(errors.NonHashableError, "tuple instead of a list", "list"):
        functrace.make_jaxpr(lambda x, n: x, static_argnums=1)(1.0, [1, 2])


def test_static_argnums_out_of_range():
    with raises(errors.ArgumentError, "counts them from 0"):
        functrace.make_jaxpr(lambda x: x, static_argnums=3)(1.0)


# vmap


def test_sizes_differ():
    with raises(errors.BatchAxisError, "None in in_axes", "3 from float64[3], 2 from float64[2]"):
        functrace.vmap(lambda x, y: x)(X, X[:2])
    with raises(errors.BatchAxisError, "None in in_axes", "axis_size=5"):
        functrace.vmap(lambda x: x, axis_size=5)(X)


def test_axis_that_is_not_there():
    with raises(errors.BatchAxisError, "use None", "axis 1 for float64[3]"):
        functrace.vmap(lambda x: x, in_axes=1)(X)
    with raises(errors.BatchAxisError, "use None", "axis 0 for float64[]"):
        functrace.vmap(lambda x, y: x)(X, 2.0)
    with raises(errors.BatchAxisError, "use None"):
        functrace.vmap(lambda x: x, in_axes=-2)(X)


def test_nothing_is_mapped():
    with raises(errors.BatchAxisError, "axis_size"):
        functrace.vmap(lambda x: x, in_axes=None)(X)
    with raises(errors.BatchAxisError, "axis_size"):
        functrace.vmap(lambda: 1.0)()


@pytest.mark.parametrize("in_axes", [(0,), (0, 0, 0), ((0, 0), 0), ({"a": 0}, 0)])
def test_in_axes_of_another_tree(in_axes):
    with raises(errors.BatchAxisError, "give in_axes as one integer"):
        functrace.vmap(lambda x, y: x, in_axes=in_axes)(X, X)


@pytest.mark.parametrize("axis", ["0", 0.0, True, object()])
def test_axes_that_are_not_integers(axis):
    with raises(errors.BatchAxisError, "an integer for a mapped axis"):
        functrace.vmap(lambda x: x, in_axes=axis)(X)
    with raises(errors.BatchAxisError, "an integer for a mapped axis"):
        functrace.vmap(lambda x: x, out_axes=axis)(X)


def test_out_axes():
    with raises(errors.BatchAxisError, "position of the mapped axis", "float64[3]"):
        functrace.vmap(lambda x: x, out_axes=None)(X)
    with raises(errors.BatchAxisError, "axis from -1 to 0", "axis 1"):
        functrace.vmap(lambda x: x, out_axes=1)(X)
    with raises(errors.BatchAxisError, "give out_axes as"):
        functrace.vmap(lambda x: (x, x), out_axes=(0, 0, 0))(X)


# missing rules


@pytest.fixture
def bare(monkeypatch):
    """A primitive without rules."""
    monkeypatch.setattr(registry, "_registry", dict(registry._registry))
    return Primitive("bare", lambda x: x * 2, lambda aval: aval)


def test_missing_rules(bare):
    assert bare(2.0) == 4.0
    for transform in (functrace.grad, functrace.jacfwd, functrace.jacrev):
        with raises(errors.MissingRuleError, r"Primitive\.define\(jvp=", "'bare'"):
            transform(lambda x: bare(x))(2.0)
    with raises(errors.MissingRuleError, r"Primitive\.define\(batch=.*Python loop", "'bare'"):
        functrace.vmap(lambda x: bare(x))(X)
    bare.define(jvp=lambda ps, ts: ([bare(ps[0])], [bare(ts[0])]))
    assert functrace.jvp(lambda x: bare(x), (2.0,), (1.0,)) == (4.0, 2.0)
    with raises(errors.MissingRuleError, "nonlinear operation", "transpose rule of primitive 'bare'"):
        functrace.grad(lambda x: bare(x))(2.0)
    bare.define(transpose=lambda bars, x: [bare(bars[0])])
    assert functrace.grad(lambda x: bare(x))(2.0) == 2.0


def test_rules_that_break_their_contract(bare):
    bare.define(jvp=lambda ps, ts: ([ts[0]], [ts[0]]))
    with raises(errors.MissingRuleError, "primal outputs from the primals alone", "'bare'"):
        functrace.grad(lambda x: bare(x))(2.0)
    bare.jvp = lambda ps, ts: ([ps[0]], [ps[0]])
    with raises(errors.MissingRuleError, "linear in the tangents", "'bare'"):
        functrace.grad(lambda x: bare(x))(2.0)


def test_registration(bare):
    with raises(errors.RegistrationError, "another name"):
        Primitive("bare", None, None)
    with raises(errors.RegistrationError, "not a rule"):
        bare.define(jpv=None)
    bare.define(jvp=lambda ps, ts: None)
    with raises(errors.RegistrationError, "already"):
        bare.define(jvp=lambda ps, ts: None)
    with raises(errors.RegistrationError, "nondifferentiable"):
        Primitive("other", None, None, jvp=lambda: None, nondifferentiable=True)


# linear_transpose, hessian


def test_linear_transpose_of_something_else():
    with raises(errors.MissingRuleError, "only the linear part", "'mul'"):
        functrace.linear_transpose(lambda x: x * x, 1.0)
    with raises(errors.MissingRuleError, "linear part", "'floor'"):
        functrace.linear_transpose(np.floor, 1.0)(1.0)
    with raises(errors.ArgumentError, "linear part"):
        functrace.linear_transpose(lambda x: 3.0, 1.0)
    with raises(errors.NonDifferentiableInputError, "close over integer"):
        functrace.linear_transpose(lambda n: n, 1)


def test_hessian_mode():
    with raises(errors.ArgumentError, "'fwd-rev'.*'rev-rev'", "'forward'"):
        functrace.hessian(lambda x: x, mode="forward")


# errors of the user's own function pass unchanged, and the library works afterwards


@pytest.mark.parametrize("transform", [functrace.grad, functrace.jacfwd, functrace.vmap, functrace.make_jaxpr])
def test_errors_of_the_function_pass_and_leave_nothing_behind(transform):
    def f(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        transform(f)(X)
    assert np.sin(0.0) == 0.0
    assert functrace.grad(np.sin)(0.0) == 1.0
    assert functrace.core.trace.current_trace() is functrace.core.trace.EVAL


def test_every_error_is_also_a_builtin_one():
    for name in errors.__all__:
        cls = getattr(errors, name)
        if issubclass(cls, Warning):
            continue
        assert issubclass(cls, errors.FunctraceError)
        if cls is not errors.FunctraceError:
            assert issubclass(cls, (TypeError, ValueError, IndexError, ArithmeticError, ImportError))


@pytest.mark.parametrize("size", ["3", [3], np.ones(2), 2.0, -1, {3}])
def test_axis_size_is_a_length(size):
    with pytest.raises(errors.BatchAxisError, match="give a non-negative integer"):
        functrace.vmap(lambda x: x, in_axes=None, axis_size=size)(X)


@pytest.mark.parametrize("n", ["3", None, 2.0, -1, [1]])
def test_the_order_of_a_derivative_is_an_integer(n):
    with pytest.raises(errors.ArgumentError, match="give n = 0"):
        functrace.nth_derivative(np.sin, n)


@pytest.mark.parametrize("value", ["a", {1.0}, range(3), np, np.ones(2, "M8[s]"), len])
def test_what_is_no_number_is_refused_wherever_it_comes_in(value):
    for run in (
        lambda: functrace.grad(np.sum)(value),
        lambda: functrace.vhv(np.sum, X, value),
        lambda: functrace.jvp(np.sum, (X,), (value,)),
        lambda: functrace.vjp(lambda x: value, X),
    ):
        with pytest.raises(errors.FunctraceError, match="remedy"):
            run()


@pytest.mark.parametrize(
    ("function", "remedy"),
    [
        (lambda x: np.round(x, "1"), "pass a Python integer"),
        (lambda x: np.trace(np.outer(x, x), 0.5), "pass a Python integer"),
        (lambda x: np.tensordot(x, x, "1"), "pass a Python integer"),
        (lambda x: np.tensordot(x, x, [0]), r"write axes=\(\["),
        (lambda x: np.var(x, ddof="1"), "degrees of freedom"),
        (lambda x: np.std(x, ddof=[1]), "degrees of freedom"),
        (lambda x: np.quantile(x, range(3)), "convert the value"),
        (lambda x: np.roll(x, [[1], [1, 2]]), "pass Python integers"),
    ],
)
def test_arguments_of_numpy_functions_that_are_no_numbers(function, remedy):
    with pytest.raises(errors.FunctraceError, match=remedy):
        functrace.vjp(function, X)


def test_our_error_comes_out_of_compiled_code():
    optimize = pytest.importorskip("scipy.optimize")
    with pytest.raises(errors.ConversionError, match="derivative would be lost"):
        functrace.grad(lambda x: optimize.brentq(lambda t: t - x, -5, 5))(0.5)


def test_keys_that_cannot_be_sorted_name_the_line():
    with pytest.raises(errors.TreeError, match=r"where: .*test_transform_errors"):
        functrace.grad(np.sum)({1: 1.0, "a": 2.0})
