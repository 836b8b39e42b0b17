"""Dtypes and values of traced arithmetic are NumPy's, over all pairs of dtypes and Python numbers (NEP 50)."""

import functools
import operator
import warnings

import numpy as np
import pytest

import functrace
import functrace.numpy as fnp
from functrace.errors import ArgumentError, DTypeError

DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]
NUMBERS = [True, 3, 2.5, 1.5 + 0.5j]
OPERATORS = [
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow),
    *(operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge),
    *(operator.and_, operator.or_, operator.xor, operator.lshift, operator.rshift),
]
BINARY = [
    *(np.maximum, np.minimum, np.fmax, np.arctan2, np.hypot, np.copysign, np.logaddexp, np.fmod, np.nextafter, np.gcd),
    *(np.ldexp, np.less, np.not_equal),
]
UNARY = [
    *(np.negative, np.positive, np.absolute, np.sqrt, np.exp, np.sin, np.floor, np.rint, np.square, np.reciprocal),
    *(np.invert, np.isnan, np.conjugate, np.log1p, np.cbrt, np.isfinite),
]

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def sample(dtype):
    """Two values of a dtype; the first of the second operand is no multiple and no larger than the first."""
    return np.array([5, 2]).astype(dtype) if np.dtype(dtype).kind != "c" else np.array([5 + 1j, 2 - 3j], dtype)


def outcome(f, *args):
    """A result as (dtype, values), or the kind of error."""
    try:
        out = f(*args)
    except (TypeError, ValueError, OverflowError) as error:
        return next(kind for kind in (OverflowError, TypeError, ValueError) if isinstance(error, kind))
    return np.asarray(out).dtype, np.asarray(out).tolist()


def traced(f, *args):
    """f at the arguments, all of which are tracers without derivative (`jvp` with zero tangents)."""
    tangents = [None for _ in args]
    return functrace.jvp(f, args, tangents)[0]


def assert_as_numpy(f, *args, close=True):
    expected = outcome(f, *args)
    for name, run in {
        "jvp": lambda: traced(f, *args),
        "left": lambda: traced(lambda x: f(x, *args[1:]), args[0]),
        "right": lambda: traced(lambda y: f(*args[:-1], y), args[-1]),
        "staged": lambda: evaluate(f, *args),
    }.items():
        actual = outcome(run)
        if isinstance(expected, type):
            assert actual is expected, name
        else:
            assert not isinstance(actual, type), (name, actual, expected)
            assert actual[0] == expected[0], name
            np.testing.assert_allclose(actual[1], expected[1], rtol=2e-3 if expected[0].itemsize < 4 else 1e-6)


def evaluate(f, *args):
    closed = functrace.make_jaxpr(f)(*args)
    (out,) = functrace.eval_jaxpr(closed.jaxpr, closed.consts, *(np.asarray(a)[()] for a in args))
    return out


@pytest.mark.parametrize("left", DTYPES)
@pytest.mark.parametrize("op", OPERATORS, ids=lambda f: f.__name__)
def test_arrays_with_arrays(op, left):
    for right in DTYPES:
        assert_as_numpy(op, sample(left), sample(right)[::-1].copy())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPERATORS, ids=lambda f: f.__name__)
def test_arrays_with_numbers(op, dtype):
    for number in NUMBERS:
        assert_as_numpy(op, sample(dtype), number)
        assert_as_numpy(op, number, sample(dtype))
        assert_as_numpy(op, sample(dtype)[0], number)
        assert_as_numpy(op, number, sample(dtype)[0])


@pytest.mark.parametrize("left", DTYPES)
@pytest.mark.parametrize("ufunc", BINARY, ids=lambda f: f.__name__)
def test_binary_ufuncs(ufunc, left):
    for right in DTYPES:
        assert_as_numpy(ufunc, sample(left), sample(right)[::-1].copy())
    for number in NUMBERS:
        assert_as_numpy(ufunc, sample(left), number)
        assert_as_numpy(ufunc, number, sample(left))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ufunc", UNARY, ids=lambda f: f.__name__)
def test_unary_ufuncs(ufunc, dtype):
    x = sample(dtype)
    assert_as_numpy(ufunc, x)
    assert_as_numpy(ufunc, x[0])


@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow])
@pytest.mark.parametrize("left", [3, 2.5])
@pytest.mark.parametrize("right", [2, 1.5])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8"])
def test_python_numbers_stay_weak_through_python_arithmetic(op, left, right, dtype):
    """What Python would compute with its own numbers gives way to an array's dtype afterwards."""
    assert_as_numpy(lambda a, x: op(a, right) * x, left, sample(dtype))
    assert_as_numpy(lambda a, b, x: -op(a, b) * x, left, right, sample(dtype))


def test_what_numpy_computes_is_not_weak():
    single = np.float32([1.0])
    assert traced(lambda a: np.sin(a) * single, 2.5).dtype == np.float64
    assert traced(lambda a: np.negative(a + np.zeros(2)) * single, 2.5).dtype == np.float64
    assert traced(lambda a: (a * np.float64(2)) * single, 2.5).dtype == np.float64
    assert traced(lambda a: a * single, 2.5).dtype == np.float32
    assert traced(lambda a: a * single, np.float64(2.5)).dtype == np.float64


@pytest.mark.parametrize("op", OPERATORS[7:13], ids=lambda f: f.__name__)
def test_comparisons_of_signed_and_unsigned_are_exact(op):
    signed = np.array([-1, 0, 5, 2**63 - 1, -(2**63), 7])
    unsigned = np.array([2**64 - 1, 0, 5, 2**63 - 1, 2**63, 3], np.uint64)
    for left in (signed, signed[0], signed[2]):
        for right in (unsigned, unsigned[0], unsigned[2]):
            assert_as_numpy(op, left, right)
            assert_as_numpy(op, right, left)
    assert_as_numpy(op, signed.astype(np.int8), unsigned)


@pytest.mark.parametrize("op", OPERATORS[7:13], ids=lambda f: f.__name__)
@pytest.mark.parametrize("number", [300, -1, 2**70, -(2**70)])
def test_comparisons_with_integers_beyond_the_dtype(op, number):
    for x in (np.uint8([0, 255]), np.int8([3, 4])):
        expected = op(x, number)
        np.testing.assert_array_equal(traced(lambda v: op(v, number), x), expected)
        np.testing.assert_array_equal(traced(lambda v: op(number, v), x), op(number, x))


@pytest.mark.parametrize("op", [operator.add, operator.mul, operator.floordiv, operator.and_])
def test_integers_beyond_the_dtype_overflow(op):
    x = np.uint8([1, 2])
    with pytest.raises(OverflowError, match="300 out of bounds for uint8"):
        traced(lambda v: op(v, 300), x)
    with pytest.raises(OverflowError, match="300 out of bounds for uint8"):
        traced(lambda a: op(a, x), 300)


@pytest.mark.parametrize("dtypes", [("f4", "f8"), ("i8", "f4"), ("?", "i1"), ("c8", "f8"), ("u8", "i8")])
def test_functions_of_several_arrays(dtypes):
    x, y = map(sample, dtypes)
    mask = np.array([True, False])
    for f in (lambda a, b: np.where(mask, a, b), lambda a, b: np.stack([a, b]), lambda a, b: np.concatenate([a, b])):
        assert_as_numpy(f, x, y)
    for number in (2, 2.5):
        assert_as_numpy(lambda a, b: np.where(mask, a, b), x, number)


def test_mixed_gradients_have_the_dtype_of_their_input():
    single, double = np.float32([1.0, 2.0]), np.float64([3.0, 4.0])
    gradients = functrace.grad(lambda a, b: np.sum(a * b + np.sin(a) * b), argnums=(0, 1))(single, double)
    assert [g.dtype for g in gradients] == [np.float32, np.float64]


@pytest.mark.parametrize("option", [{"dtype": "f4"}, {"dtype": "c16"}, {"signature": "dd->d"}, {"casting": "safe"}])
@pytest.mark.parametrize("ufunc", [np.add, np.multiply, np.true_divide])
def test_dtype_signature_and_casting(ufunc, option):
    for left, right in [("f4", "f8"), ("f4", "f4"), ("i4", "f8")]:
        f = functools.partial(ufunc, **option)
        assert_as_numpy(f, sample(left), sample(right)[::-1].copy())


def test_warnings_are_numpys():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="divide by zero"):
            functrace.jvp(np.log, (0.0,), (1.0,))


def test_promotion_helpers_are_numpys_outside():
    assert fnp.add(np.float32(1), 1.0).dtype == np.float32
    assert fnp.add(1, 2) == 3


@pytest.mark.parametrize("zero", [0, 0.0, -0.0, np.float64(0)])
@pytest.mark.parametrize("transform", [functrace.grad, functrace.jacfwd])
def test_division_by_a_plain_zero_is_infinite_as_in_numpy(zero, transform):
    with np.errstate(all="ignore"):
        sign = np.copysign(1.0, zero)
        assert transform(lambda x: x / zero)(2.0) == sign * np.inf
        assert transform(lambda x: np.sum(x / zero))(np.ones(1)) == sign * np.inf


@pytest.mark.parametrize("dtype", [object, "U5", "M8[s]", "V8", "no dtype"])
@pytest.mark.parametrize(
    "function",
    [
        lambda x, dtype: np.add(x, x, dtype=dtype),
        lambda x, dtype: np.greater(x, x, dtype=dtype),
        lambda x, dtype: np.add.reduce(x, dtype=dtype),
        lambda x, dtype: np.multiply.outer(x, x, dtype=dtype),
        lambda x, dtype: np.einsum("i->i", x, dtype=dtype),
        lambda x, dtype: np.trace(np.outer(x, x), dtype=dtype),
        lambda x, dtype: x.astype(dtype),
    ],
)
def test_dtypes_that_lose_the_derivative_are_refused(function, dtype):
    with pytest.raises(DTypeError, match="give a numeric dtype"):
        functrace.vjp(lambda x: function(x, dtype), np.ones(2))


@pytest.mark.parametrize("options", [{"casting": "no rule"}, {"signature": "dd"}])
def test_options_that_numpy_does_not_know(options):
    with pytest.raises(ArgumentError, match="give a casting rule"):
        functrace.vjp(lambda x: np.add(x, x, **options), np.ones(2))


def test_the_angle_keeps_its_derivative_where_squares_vanish_or_overflow():
    angle = functrace.grad(lambda x: np.arctan2(x[0], x[1]))
    np.testing.assert_allclose(angle(np.array([1e-200, 1e-200])), [5e199, -5e199])
    np.testing.assert_allclose(angle(np.array([1e200, 1e200])), [5e-201, -5e-201])


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_of_angles(dtype):
    x = np.ones(2, dtype)
    assert functrace.eval_shape(np.angle, x).dtype == np.angle(x).dtype


@pytest.mark.parametrize(
    "f",
    [
        lambda z: np.interp(z, np.arange(3.0), np.arange(3.0)), lambda z: np.interp(1.0, z, np.arange(3.0)),
        lambda z: np.quantile(np.arange(3.0), z), lambda z: np.digitize(z, np.arange(3.0)),
        lambda z: fnp.nan_to_num(np.arange(3.0), nan=z[0]), lambda z: np.gradient(np.arange(3.0), z),
    ],
)  # fmt: skip
def test_imaginary_parts_are_not_dropped(f):
    with pytest.raises(DTypeError, match=r"numpy\.real"):
        functrace.jvp(f, (np.array([0.1j, 0.2, 0.3]),), (np.ones(3, complex),))


@pytest.mark.parametrize("dtype", ["i1", "i8", "f2", "f4", "f8"])
@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.gradient(x, np.array([1.0, 2.0, 4.0])), lambda x: np.gradient(x, np.float64(0.5)),
        lambda x: np.geomspace(x[0], x[1], 3), lambda x: np.quantile(x, np.float16(0.3)),
    ],
)  # fmt: skip
def test_dtypes_beside_another_one(f, dtype):
    x = np.array([3, 1, 2], dtype)
    assert functrace.eval_shape(f, x).dtype == f(x).dtype
