"""NumPy's own functions on traced arrays: ufuncs with their options and methods (NEP 13), functions (NEP 18)."""

import functools

import numpy as np
import pytest

import functrace
import functrace.numpy as fnp
from functrace.errors import (
    ArgumentError,
    AssignmentError,
    DTypeError,
    IndexingError,
    ShapeError,
    UnsupportedFunctionError,
)
from functrace.testing import check_grads

X = np.array([[0.5, 1.5, 2.5], [3.0, 0.25, 1.25]])


def value(f, *args):
    return functrace.jvp(f, args, [None] * len(args))[0]


def assert_as_numpy(f, *args, rtol=1e-14):
    actual, expected = value(f, *args), f(*args)
    assert actual.dtype == np.asarray(expected).dtype
    assert actual.shape == np.shape(expected)
    np.testing.assert_allclose(actual, expected, rtol=rtol)


# ufuncs with options


def test_defaults_of_options_change_nothing():
    expected = np.sin(X)
    for options in ({"where": True}, {"order": "K"}, {"subok": True}, {"casting": "same_kind"}, {"dtype": None}):
        np.testing.assert_array_equal(value(lambda x, o=options: np.sin(x, **o), X), expected)
        np.testing.assert_array_equal(value(lambda x, o=options: fnp.sin(x, **o), X), expected)


def test_dtype_of_the_loop():
    assert value(lambda x: np.add(x, 1, dtype=np.float32, casting="same_kind"), X).dtype == np.float32
    assert value(lambda x: np.sin(x, dtype=np.float64), np.float32([1.0])).dtype == np.float64
    with pytest.raises(DTypeError, match="astype"):
        value(lambda x: np.add(x, 1, dtype=np.int32), X)


def test_a_memory_order_is_refused():
    with pytest.raises(UnsupportedFunctionError, match="leave order= out"):
        value(lambda x: np.sin(x, order="F"), X)


def test_plain_operands_inside_a_trace_go_to_numpy():
    plain = np.arange(3.0)

    def f(x):
        buffer = np.empty(3)
        fnp.multiply(plain, 2, out=buffer)
        assert type(buffer) is np.ndarray
        return x * fnp.sum(buffer)

    assert functrace.grad(f)(1.0) == 6


@pytest.mark.parametrize("write", [
    lambda x, b: np.add(x, 1.0, out=b),
    lambda x, b: np.add(x, 1.0, b),
    lambda x, b: fnp.add(x, 1.0, out=b),
    lambda x, b: fnp.add(x, 1.0, b),
    lambda x, b: np.matmul(np.eye(3), x, out=b),
    lambda x, b: np.add.accumulate(x, out=b),
    lambda x, b: b.__iadd__(x),
    lambda x, b: b.__imul__(x),
    lambda x, b: b.__ipow__(x),
    lambda x, b: np.add.at(b, [0, 1, 2], x),
    lambda x, b: np.subtract.at(b, [0], x[0]),
])  # fmt: skip
def test_writing_into_a_plain_array_is_refused(write):
    """A caller's array is never changed silently."""
    buffer = np.arange(3.0)
    for transform in (functrace.grad, functrace.make_jaxpr, lambda f: lambda x: functrace.vmap(f)(x[None])):
        with pytest.raises(AssignmentError, match=r"(?s)functrace.numpy.zeros.*functrace.numpy.array\(B\)"):
            transform(lambda x: np.sum(write(x, buffer)))(np.ones(3))
    np.testing.assert_array_equal(buffer, [0, 1, 2])


def test_out_is_an_assignment_to_a_traced_array():
    def f(x):
        buffer = fnp.zeros(3)
        assert np.multiply(x, x, out=buffer) is buffer
        np.add(buffer, 1.0, out=(buffer,))
        np.exp(2.0, out=buffer[1:2])
        return buffer

    np.testing.assert_allclose(value(f, np.arange(3.0)), [1, np.exp(2), 5])
    np.testing.assert_allclose(functrace.jacrev(f)(np.arange(3.0)), np.diag([0.0, 0, 4]))


def test_out_of_the_wrong_kind():
    with pytest.raises(DTypeError, match="right dtype"):
        value(lambda x: np.multiply(x, x, out=fnp.zeros(3, dtype=int)), np.ones(3))


def test_where_needs_out():
    with pytest.raises(UnsupportedFunctionError, match=r"functrace\.numpy\.where"):
        value(lambda x: np.log(x, where=x > 0), np.ones(3))


def test_where_with_out_leaves_the_other_branch_alone():
    def f(x):
        return np.sum(np.divide(1.0, x, out=np.zeros_like(x), where=x > 0))

    x = np.array([0.0, 2.0, 4.0])
    with np.errstate(divide="ignore", invalid="ignore"):
        assert value(f, x) == 0.75
        for gradient in (functrace.grad(f)(x), functrace.jacfwd(f)(x)):
            np.testing.assert_allclose(gradient, [0, -0.25, -0.0625])


@pytest.mark.parametrize("call", [lambda x: fnp.add(x), lambda x: fnp.sin(x, x, x), lambda x: fnp.add(x, x, x, x)])
def test_wrong_number_of_operands(call):
    with pytest.raises(ArgumentError, match="operands by position"):
        value(call, np.ones(3))


# methods of ufuncs

BINARY = [
    *(np.add, np.multiply, np.maximum, np.minimum, np.fmax, np.fmin, np.logaddexp, np.logaddexp2, np.hypot),
    *(np.subtract, np.true_divide, np.power, np.arctan2),
]
AXES = [{}, {"axis": 1}, {"axis": -1, "keepdims": True}]


@pytest.mark.parametrize("options", AXES, ids=str)
@pytest.mark.parametrize("ufunc", BINARY, ids=lambda f: f.__name__)
def test_reduce(ufunc, options):
    def f(x):
        return ufunc.reduce(x, **options)

    for x in (X, X[:, :1], X.astype(np.float32)):
        if ufunc in (np.power, np.arctan2) and "axis" in options and x.shape[1] > 1:
            expected = functools.reduce(ufunc, x.T)  # NumPy's own vectorized loops skip elements here
            np.testing.assert_allclose(value(f, x).ravel(), expected, rtol=1e-6)
        else:
            assert_as_numpy(f, x, rtol=1e-6)
            check_grads(f, (x.astype(float),), order=2)


@pytest.mark.parametrize("ufunc", [np.add, np.multiply, np.maximum, np.logaddexp, np.hypot, np.fmin])
@pytest.mark.parametrize("axis", [None, (0, 1), ()])
def test_reduce_over_several_axes(ufunc, axis):
    assert_as_numpy(lambda x: ufunc.reduce(x, axis=axis), X, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, bool, np.uint8])
@pytest.mark.parametrize(
    "ufunc",
    [np.add, np.multiply, np.maximum, np.bitwise_or, np.bitwise_xor, np.logical_and, np.logical_or, np.logical_xor],
)
def test_reduce_of_integers(ufunc, dtype):
    x = np.array([[1, 0, 3], [2, 2, 1]]).astype(dtype)
    assert_as_numpy(lambda v: ufunc.reduce(v, axis=1), x)
    assert_as_numpy(lambda v: ufunc.reduce(v), x)
    if ufunc is not np.maximum or dtype is not bool:
        assert_as_numpy(lambda v: ufunc.accumulate(v, axis=1), x)


def test_reduce_options():
    assert_as_numpy(lambda x: np.add.reduce(x, dtype=np.float32), X, rtol=1e-6)
    assert_as_numpy(lambda x: np.add.reduce(x, initial=2.0), X)
    assert_as_numpy(lambda x: np.logaddexp.reduce(x, initial=2.0), X, rtol=1e-12)
    assert_as_numpy(lambda x: np.add.reduce(x[:0]), X)
    assert_as_numpy(lambda x: np.logaddexp.reduce(x[:0]), X)
    with pytest.raises(ShapeError, match="an axis with elements"):
        value(lambda x: np.fmod.reduce(x[:0]), X)
    with pytest.raises(ArgumentError, match="one axis after another"):
        value(lambda x: np.subtract.reduce(x, axis=None), X)
    with pytest.raises(DTypeError, match="astype"):
        value(lambda x: np.gcd.reduce(x), X)


@pytest.mark.parametrize("options", [{}, {"axis": 1}], ids=str)
@pytest.mark.parametrize("ufunc", BINARY, ids=lambda f: f.__name__)
def test_accumulate(ufunc, options):
    def f(x):
        return ufunc.accumulate(x, **options)

    for x in (X, X[:, :1]):
        assert_as_numpy(f, x, rtol=1e-12)
    check_grads(f, (X,), order=1)


@pytest.mark.parametrize("indices", [[0, 2], [0], [1, 0, 2], [0, 0, 1], []])
@pytest.mark.parametrize("ufunc", [np.add, np.multiply, np.maximum, np.logaddexp, np.subtract])
def test_reduceat(ufunc, indices):
    indices = np.array(indices, int)
    assert_as_numpy(lambda x: ufunc.reduceat(x, indices, axis=1), X, rtol=1e-12)
    if len(indices):
        check_grads(lambda x: ufunc.reduceat(x, indices, axis=1), (X,), order=1)


def test_reduceat_of_bad_indices():
    with pytest.raises(IndexingError, match="indices from 0 to 1"):
        value(lambda x: np.add.reduceat(x, [0, 2]), X)
    with pytest.raises(IndexingError, match="mark the argument static"):
        value(lambda x, i: np.add.reduceat(x, i), X, np.array([0, 1]))


@pytest.mark.parametrize("ufunc", [*BINARY, np.less, np.copysign], ids=lambda f: f.__name__)
def test_outer(ufunc):
    for y in (np.array([0.75, 2.0]), 1.75, X):
        assert_as_numpy(lambda x, y=y: ufunc.outer(x, y), X)
        assert_as_numpy(lambda x, y=y: ufunc.outer(y, x), X[0])
    if ufunc is not np.less:
        check_grads(lambda x, y: ufunc.outer(x, y), (X[0], X[1] + 0.1), order=1)


UPDATES = [np.add, np.subtract, np.multiply, np.divide, np.maximum, np.minimum]


@pytest.mark.parametrize("ufunc", UPDATES, ids=lambda f: f.__name__)
def test_at_updates_a_traced_array(ufunc):
    indices = np.array([0, 2, 0])

    def f(x, v):
        buffer = fnp.array(x)
        assert ufunc.at(buffer, indices, v) is None
        return buffer

    def reference(x, v):
        buffer = x.copy()
        ufunc.at(buffer, indices, v)
        return buffer

    x, v = np.array([1.5, 2.0, 3.0]), np.array([0.5, 4.0, 1.25])
    np.testing.assert_allclose(value(f, x, v), reference(x, v))
    np.testing.assert_allclose(value(lambda t: f(t, 2.0), x), reference(x, 2.0))
    check_grads(f, (x, v), order=2)


def test_at_of_other_ufuncs():
    with pytest.raises(UnsupportedFunctionError, match="where no index repeats"):
        value(lambda x: np.hypot.at(fnp.array(x), [0], 1.0), np.ones(3))


# functions


def test_an_unsupported_function_names_its_line_and_an_alternative():
    with pytest.raises(UnsupportedFunctionError, match=r"(?s)numpy.unique has no.*test_protocols.py:\d+.*numpy.where"):
        functrace.grad(lambda x: np.unique(x))(np.ones(3))


ALTERNATIVES = {
    np.histogram: ("piecewise constant", ()),
    np.unpackbits: ("piecewise constant", ()),
    np.array2string: ("return the value", ()),
    np.union1d: ("shape of its result", (np.ones(2),)),
    np.may_share_memory: ("never share memory", (np.ones(2),)),
    np.polyfit: ("numpy.linalg.lstsq", (np.ones(3), 1)),
}


@pytest.mark.parametrize("function", ALTERNATIVES, ids=lambda f: f.__name__)
def test_unsupported_functions(function):
    remedy, more = ALTERNATIVES[function]
    for transform in (functrace.grad, functrace.vmap, functrace.make_jaxpr):
        with pytest.raises(UnsupportedFunctionError, match=rf"(?s)numpy.{function.__name__}.*{remedy}"):
            transform(lambda x: function(x, *more))(np.ones((2, 3)))


def test_what_has_no_entry_gets_the_general_remedy():
    with pytest.raises(UnsupportedFunctionError, match=r"functrace\.numpy has them all"):
        functrace.grad(lambda x: np.busday_count(x, x))(np.ones(3))


def test_ufuncs_of_others():
    half = np.frompyfunc(lambda v: v / 2, 1, 1)
    with pytest.raises(UnsupportedFunctionError, match=r"functrace\.vmap"):
        functrace.grad(lambda x: half(x))(1.0)
    with pytest.raises(UnsupportedFunctionError, match="hold no dates"):
        functrace.grad(lambda x: np.isnat(x))(1.0)


def test_every_numpy_function_traces_or_refuses():
    """No dispatched function falls through to NumPy's own code or to an internal error of ours."""
    missing = []
    for name in dir(np):
        function = getattr(np, name)
        if not hasattr(function, "__wrapped__") and type(function).__name__ != "_ArrayFunctionDispatcher":
            continue
        if function in functrace.numpy._dispatch.traced_functions:
            continue
        tracer_error = None
        try:
            functrace.jvp(lambda x, f=function: f(x), (X,), (X,))
        except UnsupportedFunctionError as error:
            tracer_error = str(error)
        except TypeError as error:  # wrong number of arguments
            tracer_error = str(error) + "remedy"
        except Exception as error:
            tracer_error = f"{type(error).__name__}: {error}"
        if tracer_error is None or "remedy" not in tracer_error:
            missing.append((name, tracer_error))
    assert not missing


# other array types


class Deferring:
    """Something with operators of its own that asks NumPy to stand back."""

    __array_ufunc__ = None

    def __radd__(self, other):
        return "mine"

    def __rmatmul__(self, other):
        return "mine"

    def __gt__(self, other):
        return "mine"


def test_types_that_ask_numpy_to_stand_back():
    results = []

    def f(x):
        results.extend([x + Deferring(), x[0] + Deferring(), x < Deferring()])
        return x

    value(f, np.ones(3))
    assert results == ["mine"] * 3


@pytest.mark.parametrize("other", [None, "a", {}, {1}])
def test_comparison_with_what_is_no_operand(other):
    assert value(lambda x: x * (1.0 if x == other else 2.0), np.float64(3.0)) == 6.0
    with pytest.raises(TypeError, match="unsupported operand"):
        value(lambda x: x + other, 3.0)
