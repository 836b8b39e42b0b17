"""Creation functions: traced buffers inside a trace, NumPy outside; nested sequences; sequences with traced ends."""

import copy
from functools import partial
from itertools import product

import numpy as np
import pytest

import functrace
import functrace.numpy as fnp
from functrace.core.trace import Tracer
from functrace.errors import ArgumentError, AssignmentError, DTypeError, InputError, ShapeError
from tests.same_as_numpy import assert_same, check_linear, check_values, sample

BUFFERS = {
    "zeros": lambda xp: xp.zeros((2, 3)),
    "zeros-int": lambda xp: xp.zeros(3, dtype=int),
    "zeros-scalar": lambda xp: xp.zeros(()),
    "ones": lambda xp: xp.ones([2, 0], np.float32),
    "full": lambda xp: xp.full((2, 2), 7),
    "full-nan": lambda xp: xp.full(2, np.nan),
    "full-array": lambda xp: xp.full((2, 3), [1, 2, 3]),
    "full-dtype": lambda xp: xp.full((2, 3), [1.5, 2, 3], dtype=np.complex64),
    "zeros_like": lambda xp: xp.zeros_like(np.ones((2, 3), np.float32)),
    "zeros_like-list": lambda xp: xp.zeros_like([1, 2]),
    "ones_like": lambda xp: xp.ones_like(np.ones((2, 3)), dtype=bool),
    "full_like": lambda xp: xp.full_like(np.ones((2, 3), int), 2.5),
    "full_like-shape": lambda xp: xp.full_like(np.ones((2, 3)), 2.5, shape=(4,)),
    "eye": lambda xp: xp.eye(3),
    "eye-shape": lambda xp: xp.eye(2, 3, 1, dtype=int),
    "eye-keyword": lambda xp: xp.eye(N=2, M=3, k=-1, dtype=np.float32),
    "identity": lambda xp: xp.identity(2),
    "tri": lambda xp: xp.tri(3, 4, -1),
    "array": lambda xp: xp.array([[1, 2.5], [3, 4]]),
    "array-dtype": lambda xp: xp.array([1, 2], dtype=np.float32, ndmin=3),
    "array-copy": lambda xp: xp.array(np.arange(3)),
    "copy": lambda xp: xp.copy(np.arange(3.0)),
}
PLAIN = {
    "arange": lambda xp: xp.arange(5),
    "arange-step": lambda xp: xp.arange(1, 8, 3),
    "arange-float": lambda xp: xp.arange(0.0, 1.0, 0.25),
    "arange-dtype": lambda xp: xp.arange(4, dtype=np.float32),
    "arange-backwards": lambda xp: xp.arange(5, 0, -2),
    "arange-keyword": lambda xp: xp.arange(2, stop=7, step=2),
    "linspace": lambda xp: xp.linspace(0, 1, 5),
    "logspace": lambda xp: xp.logspace(0, 2, 3),
    "geomspace": lambda xp: xp.geomspace(1, 8, 4),
    "indices": lambda xp: xp.indices((2, 3)),
    "mgrid": lambda xp: xp.mgrid[0:2, 0:3],
    "ogrid": lambda xp: xp.ogrid[0:2, 0:3],
    "fromfunction": lambda xp: xp.fromfunction(lambda i, j: i + j, (2, 3)),
    "asarray": lambda xp: xp.asarray([1, 2]),
    "ascontiguousarray": lambda xp: xp.ascontiguousarray(3.0),
}


def traced_by_grad(make):
    """What `make` gives inside grad, and its value."""
    seen = []

    def fun(x):
        seen.append(make(fnp))
        return x * 1.0

    functrace.grad(fun)(1.0)
    return seen[0]


@pytest.mark.parametrize("make", list(BUFFERS.values()), ids=list(BUFFERS))
def test_buffers_are_traced_inside_and_plain_outside(make):
    expected = make(np)
    assert_same(make(fnp), expected)
    assert not isinstance(make(fnp), Tracer)
    assert isinstance(traced_by_grad(make), Tracer)
    check_values(lambda x: (make(np) if not isinstance(x, Tracer) else make(fnp), x), np.array(1.5))


@pytest.mark.parametrize("make", list(PLAIN.values()), ids=list(PLAIN))
def test_sequences_stay_plain(make):
    expected = make(np)
    assert_same(make(fnp), expected)
    inside = traced_by_grad(make)
    assert not isinstance(inside, Tracer)
    assert_same(inside, expected)


def test_empty_holds_zeros_inside_a_trace():
    def fun(x):
        buffer, like = fnp.empty((2, 3), np.float32), np.empty_like(x)
        assert isinstance(buffer, Tracer)
        return buffer, like

    closed, _ = functrace.make_jaxpr(fun, return_shape=True)(np.ones(3))
    out = functrace.eval_jaxpr(closed.jaxpr, closed.consts, np.ones(3))
    assert_same(out, [np.zeros((2, 3), np.float32), np.zeros(3)])


@pytest.mark.parametrize("name", ["zeros_like", "ones_like"])
@pytest.mark.parametrize("options", [{}, {"dtype": int}, {"shape": (4,)}], ids=str)
def test_like_of_a_traced_array(name, options):
    check_values(lambda x: getattr(np, name)(x, **options), sample((2, 3), np.float32))
    check_values(lambda x: np.full_like(x, 3, **options), sample((2, 3), np.float32))


def test_full_of_a_traced_value():
    for shape, value_shape in [((2, 3), ()), ((2, 3), (3,)), ((2,), (2,))]:
        check_linear(lambda v, s=shape: fnp.full(s, v), sample(value_shape))
    check_values(lambda x, v: np.full_like(x, v), sample((2, 3)), sample((3,)))
    got = functrace.jvp(lambda v: fnp.full(2, v, dtype=np.float32), (np.array(3.0),), (np.array(1.0),))
    assert_same(got, (np.full(2, 3, np.float32), np.ones(2, np.float32)))


def test_assignment_to_buffers():
    def fun(x):
        out = fnp.zeros((2, 2))
        out[0] = x
        like = np.ones_like(x)
        like[1] = x[0] * x[1]
        eye = fnp.eye(2)
        eye[0, 0] = x[1]
        return (out @ eye @ like).sum()

    def reference(x):
        out, like, eye = np.zeros((2, 2)), np.ones_like(x), np.eye(2)
        out[0], like[1], eye[0, 0] = x, x[0] * x[1], x[1]
        return (out @ eye @ like).sum()

    x = np.array([2.0, 3.0])
    assert functrace.value_and_grad(fun)(x)[0] == reference(x)
    steps = [(reference(x + h) - reference(x - h)) / 2e-6 for h in 1e-6 * np.eye(2)]
    np.testing.assert_allclose(functrace.grad(fun)(x), steps, rtol=1e-8)


# nested sequences


def _nested(a, b):
    """Nested sequences of two numbers and their arrays, with a label."""
    v, w = a * np.array([1.0, 2.0]), b * np.array([3.0, 4.0])
    return {
        "list": [a, b],
        "tuple": (a, 2 * b, a * b),
        "numbers": [a, 1, 2.5, True],
        "matrix": [[a, 1], [b, a]],
        "rows": [v, w],
        "row-and-list": [v, [a, 1.0]],
        "deep": [[[a], [b]]],
        "plain": [v, np.array([5, 6])],
        "numpy-scalar": [a, np.float32(2)],
        "one": [a],
    }


@pytest.mark.parametrize("label", list(_nested(1.0, 2.0)))
@pytest.mark.parametrize("dtype", [None, np.float32, complex])
def test_array_of_nested_sequences(label, dtype):
    def fun(a, b):
        inside = isinstance(a, Tracer)
        return (fnp if inside else np).array(_nested(a, b)[label], dtype=dtype)

    args = (np.float64(1.5), np.float64(-0.5))
    assert_same(functrace.jvp(fun, args, args)[0], fun(*args))
    check_values(fun, *map(np.asarray, args))
    change = fun(2.5, -0.5) - fun(1.5, -0.5)  # every element is linear in the first number
    np.testing.assert_allclose(functrace.jvp(fun, args, (1.0, 0.0))[1], change, atol=1e-6)


def test_nested_sequences_in_functions():
    def fun(a):
        x = fnp.asarray([a, 2 * a])
        return np.concatenate([[a, 1.0], x, np.array([3.0])]).sum() + fnp.stack([[a, 2], x]).sum()

    assert functrace.grad(fun)(2.0) == 1 + 3 + 1 + 3


def test_nested_sequences_must_fit():
    with pytest.raises(InputError, match="one shape"):
        functrace.grad(lambda x: fnp.array([x, x[0]]).sum())(np.ones(2))
    with pytest.raises(InputError, match=r"numpy\.concatenate"):
        functrace.grad(lambda x: fnp.stack([x, [[1], [2, 3]]]).sum())(np.ones(2))
    with pytest.raises(DTypeError, match="outside the traced function"):
        functrace.grad(lambda x: fnp.array([x], dtype=object).sum())(1.0)


def test_copies_are_objects_of_their_own():
    def fun(x):
        copies = [fnp.array(x), np.copy(x), x.copy(), copy.copy(x), copy.deepcopy(x), x.astype(float), x.flatten()]
        for c in copies:
            assert c is not x
            c[0] = 0.0
        same = [fnp.asarray(x), fnp.asanyarray(x), fnp.ascontiguousarray(x), x.astype(float, copy=False)]
        assert all(s is x for s in same)
        return x.sum()

    np.testing.assert_array_equal(functrace.grad(fun)(np.ones(3)), np.ones(3))


def test_array_does_not_alias_plain_arrays():
    plain = np.ones(3)

    def fun(x):
        buffer = fnp.array(plain)
        buffer[0] = x
        assert fnp.asarray(plain) is plain
        return buffer.sum()

    assert functrace.grad(fun)(5.0) == 1.0
    np.testing.assert_array_equal(plain, np.ones(3))


def test_copyto():
    def fun(x):
        buffer = fnp.zeros(3)
        np.copyto(buffer, x)
        np.copyto(buffer, 7.0, where=np.array([True, False, False]))
        return buffer

    np.testing.assert_array_equal(functrace.jacrev(fun)(np.ones(3)), np.diag([0.0, 1.0, 1.0]))
    with pytest.raises(AssignmentError, match=r"functrace\.numpy\.zeros"):
        functrace.grad(lambda x: np.copyto(np.zeros(3), x))(np.ones(3))
    with pytest.raises(AssignmentError, match=r"functrace\.numpy\.zeros"):
        functrace.grad(lambda x: np.full_like(np.zeros(3), x).sum())(1.0)


# sequences with traced ends

ENDS = [((), ()), ((2,), ()), ((2,), (3, 1))]


@pytest.mark.parametrize("num, endpoint", list(product([0, 1, 2, 5], [True, False])))
@pytest.mark.parametrize("shapes", ENDS, ids=str)
def test_linspace(num, endpoint, shapes):
    args = [sample(s, seed=i) for i, s in enumerate(shapes)]
    for axis in (0, -1):
        check_values(partial(np.linspace, num=num, endpoint=endpoint, axis=axis), *args)
        check_linear(partial(np.linspace, num=num, endpoint=endpoint, axis=axis), *args)
    check_values(lambda a, b: np.linspace(a, b, num, endpoint, dtype=int), *args)
    check_values(lambda a: np.linspace(a, 2.5, num, endpoint), sample(shapes[0], np.float32))
    check_values(lambda a: np.linspace(1, a, num, endpoint), sample(shapes[0], np.int32))
    if num > 1:
        check_values(lambda a, b: np.linspace(a, b, num, endpoint, retstep=True), *args)


@pytest.mark.parametrize("num, endpoint", list(product([0, 1, 2, 5], [True, False])))
@pytest.mark.parametrize("shapes", ENDS, ids=str)
def test_logspace_and_geomspace(num, endpoint, shapes):
    args = [sample(s, seed=i) for i, s in enumerate(shapes)]
    for axis in (0, -1):
        check_values(partial(np.logspace, num=num, endpoint=endpoint, axis=axis), *args)
        check_values(partial(np.geomspace, num=num, endpoint=endpoint, axis=axis), *args)
    check_values(lambda a, b: np.logspace(a, b, num, endpoint, base=2.0, dtype=np.float32), *args)
    check_values(lambda a: np.logspace(1, 2, num, endpoint, base=a), args[0])
    check_values(lambda a: np.geomspace(-a, -2.0, num, endpoint), args[0])
    check_values(lambda a: np.geomspace(a, 1j, num, endpoint), args[0])


def test_derivatives_of_progressions():
    for fun in (
        lambda a, b: np.geomspace(a, b, 4),
        lambda a, b: np.geomspace(-a, -b, 4, endpoint=False),
        lambda a, b: np.logspace(a, b, 4, base=3.0),
        lambda a, b: np.logspace(0.5, b, 4, base=a),
    ):
        point = (np.array(1.5), np.array(2.5))
        for i in range(2):
            h = np.eye(2)[i] * 1e-6
            slope = (fun(*(np.array(point) + h)) - fun(*(np.array(point) - h))) / 2e-6
            np.testing.assert_allclose(functrace.jacfwd(fun, i)(*point), slope, rtol=1e-7, atol=1e-8)
            np.testing.assert_allclose(functrace.jacrev(fun, i)(*point), slope, rtol=1e-7, atol=1e-8)


def test_complex_geomspace_derivative():
    def fun(a):
        return np.geomspace(a + 1j, 3.0 - 2j, 4).imag

    slope = (fun(1.5 + 1e-6) - fun(1.5 - 1e-6)) / 2e-6
    np.testing.assert_allclose(functrace.jacfwd(fun)(1.5), slope, rtol=1e-7, atol=1e-8)


def test_arange_of_traced_numbers():
    assert functrace.grad(lambda x, n: x * fnp.arange(n).sum(), argnums=0)(2.0, 4) == 6.0
    assert functrace.jvp(lambda n: fnp.arange(n), (np.int64(3),), (None,))[0].shape == (3,)
    with pytest.raises(ArgumentError, match="linspace"):
        functrace.grad(lambda x: fnp.arange(x).sum())(3.0)


@pytest.mark.parametrize(
    "fun, error, match",
    [
        (lambda x: fnp.zeros((2, -1)), ShapeError, "lengths from 0"),
        (lambda x: fnp.zeros(2.5), ArgumentError, "Python integer"),
        (lambda x: fnp.zeros(2, dtype=object), DTypeError, "outside the traced function"),
        (lambda x: fnp.full((2, 3), fnp.array([x, x])), ShapeError, "counted from the last"),
        (lambda x: fnp.linspace(x, 1.0, -1), ArgumentError, "num from 0"),
        (lambda x: fnp.linspace(x, 1.0, 3, axis=2), ShapeError, "axis from"),
    ],
)
def test_errors(fun, error, match):
    with pytest.raises(error, match=match):
        functrace.grad(fun)(1.0)
