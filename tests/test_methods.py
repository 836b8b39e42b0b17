"""The methods and attributes of NumPy arrays on traced ones."""

import copy
import math
import pickle

import numpy as np
import pytest

import functrace
import functrace.numpy as fnp
from functrace.errors import (
    AbstractValueError,
    ArgumentError,
    AssignmentError,
    ConversionError,
    LeakedTracerError,
    UnsupportedFunctionError,
)
from functrace.numpy._dispatch import traced_functions, traced_ufuncs
from functrace.numpy._methods import FUNCTION_METHODS
from tests.same_as_numpy import check_linear, check_values, sample

# what numpy.ndarray has and a traced array has not, on purpose
ABSENT = {
    "__array_interface__", "__array_struct__", "__array_finalize__", "__array_prepare__", "__array_wrap__",
    "__dlpack__", "__dlpack_device__", "__buffer__", "__release_buffer__", "__setstate__", "__class_getitem__",
    "__array_namespace__",  # NumPy's own functions dispatch
    "__delitem__",  # NumPy raises too
}  # fmt: skip

SMOOTH = {
    "T": lambda x: x.T,
    "mT": lambda x: x.mT,
    "real": lambda x: x.real,
    "imag": lambda x: x.imag,
    "reshape": lambda x: x.reshape(3, 2),
    "reshape-tuple": lambda x: x.reshape((-1,)),
    "reshape-order": lambda x: x.reshape(6, order="F"),
    "reshape-int": lambda x: x.reshape(-1),
    "ravel": lambda x: x.ravel(),
    "ravel-F": lambda x: x.ravel("F"),
    "flatten": lambda x: x.flatten(),
    "flatten-F": lambda x: x.flatten("F"),
    "transpose": lambda x: x.transpose(),
    "transpose-axes": lambda x: x.transpose(1, 0),
    "transpose-tuple": lambda x: x.transpose((1, 0)),
    "transpose-none": lambda x: x.transpose(None),
    "swapaxes": lambda x: x.swapaxes(0, 1),
    "squeeze": lambda x: x[:1].squeeze(),
    "squeeze-axis": lambda x: x[:1].squeeze(axis=0),
    "astype": lambda x: x.astype(np.float32),
    "copy": lambda x: x.copy(),
    "copy-order": lambda x: x.copy(order="C"),
    "sum": lambda x: x.sum(),
    "sum-axis": lambda x: x.sum(axis=1, keepdims=True),
    "sum-positional": lambda x: x.sum(0),
    "prod": lambda x: x.prod(axis=0),
    "max": lambda x: x.max(),
    "min": lambda x: x.min(axis=1),
    "mean": lambda x: x.mean(),
    "var": lambda x: x.var(axis=0),
    "std": lambda x: x.std(ddof=1),
    "cumsum": lambda x: x.cumsum(1),
    "cumprod": lambda x: x.cumprod(axis=0),
    "clip": lambda x: x.clip(1.5, 3.0),
    "clip-keywords": lambda x: x.clip(min=1.5),
    "clip-max": lambda x: x.clip(max=3.0),
    "clip-none": lambda x: x.clip(None, 3.0),
    "compress": lambda x: x.compress([True, False, True], axis=1),
    "compress-flat": lambda x: x.compress(np.array([0, 1, 1]) > 0),
    "conj": lambda x: x.conj(),
    "conjugate": lambda x: x.conjugate(),
    "dot": lambda x: x.dot(np.arange(3.0)),
    "diagonal": lambda x: x.diagonal(1),
    "trace": lambda x: x.trace(),
    "take": lambda x: x.take([0, 2], axis=1),
    "repeat": lambda x: x.repeat(2, axis=0),
    "ptp": lambda x: np.ptp(x, axis=1),
    "matmul": lambda x: x @ np.arange(3.0),
    "rmatmul": lambda x: np.ones((4, 2)) @ x,
    "rmatmul-list": lambda x: [1.0, 2.0] @ x,
    "abs": lambda x: abs(-x),
    "round": lambda x: x.round(1),
}
INTEGER = {
    "any": lambda x: (x > 2).any(axis=1),
    "all": lambda x: (x > 2).all(),
    "argmax": lambda x: x.argmax(axis=1),
    "argmin": lambda x: x.argmin(),
    "argsort": lambda x: x.argsort(axis=0),
    "argpartition": lambda x: x.argpartition(1, axis=1)[:, 1],
    "searchsorted": lambda x: x[0, :1].searchsorted(2.0),
    "choose": lambda x: x.argmax(axis=0).choose([[1, 2, 3], [4, 5, 6]]),
    "astype-bool": lambda x: (1j * x - 1j * x[0, 0]).astype(bool),
    "astype-int": lambda x: x.astype(int),
}


@pytest.mark.parametrize("fun", list({**SMOOTH, **INTEGER}.values()), ids=list({**SMOOTH, **INTEGER}))
def test_values(fun):
    check_values(fun, sample((2, 3)))


@pytest.mark.parametrize("fun", list(SMOOTH.values()), ids=list(SMOOTH))
def test_derivatives(fun):
    x = sample((2, 3))
    direction = sample((2, 3), seed=5)
    if "float32" in str(fun(x).dtype):
        check_linear(fun, x)
        return
    slope = (fun(x + 1e-6 * direction) - fun(x - 1e-6 * direction)) / 2e-6
    np.testing.assert_allclose(functrace.jvp(fun, (x,), (direction,))[1], slope, rtol=1e-6, atol=1e-8)
    bar = sample(np.shape(slope), seed=9)
    pulled = functrace.vjp(fun, x)[1](bar)[0]
    np.testing.assert_allclose(np.vdot(pulled, direction), np.vdot(bar, slope), rtol=1e-6, atol=1e-8)


def test_complex_attributes():
    for fun in (lambda z: z.real, lambda z: z.imag, lambda z: z.conj(), lambda z: z.T.real):
        check_values(fun, sample((2, 3), complex))


def test_nonzero():
    def fun(x):
        rows, columns = (x > 2.0).nonzero()
        return x[rows, columns]

    x = sample((2, 3))
    np.testing.assert_array_equal(functrace.jvp(fun, (x,), (x,))[1], x[x > 2.0])


def test_every_method_has_its_function():
    for name, function in FUNCTION_METHODS.items():
        known = traced_functions.keys() | traced_ufuncs.keys()
        assert getattr(np, function) in known, f"x.{name} calls numpy.{function}, which has no traced form"
    for function in (np.sort, np.partition, np.real, np.imag, np.reshape, np.transpose, np.matrix_transpose):
        assert function in traced_functions
    assert np.matmul in traced_ufuncs or np.matmul in traced_functions


def test_every_attribute_of_numpy_arrays_is_there_or_refused():
    def fun(x):
        assert not [name for name in dir(np.ndarray) if name not in ABSENT and name not in dir(x)]

    inside(fun)


def inside(fun):
    """Run `fun` on a traced array of two rows and three columns."""
    functrace.jvp(lambda x: (fun(x), x)[1], (sample((2, 3)),), (np.ones((2, 3)),))


def test_attributes():
    def fun(x):
        assert x.shape == (2, 3) and x.ndim == 2 and x.size == 6 and x.dtype == np.float64
        assert x.nbytes == 48 and x.itemsize == 8 and len(x) == 2 and x.device == "cpu"
        assert not hasattr(x, "strides") and not hasattr(x, "flags") and not hasattr(x, "nonsense")

    inside(fun)


@pytest.mark.parametrize("name", ["flat", "strides", "flags", "data", "ctypes", "view", "tobytes", "tofile"])
def test_refused_attributes_name_the_remedy(name):
    with pytest.raises(UnsupportedFunctionError, match="remedy"):
        inside(lambda x: getattr(x, name))


def test_in_place_methods_assign():
    def fun(x):
        buffer = x.copy() if isinstance(x, np.ndarray) else fnp.array(x)
        buffer[0].sort()
        row = buffer[1]
        row.fill(x[0, 0])
        buffer.put([0], x[1, 2])
        return buffer

    check_values(fun, sample((2, 3)))
    check_linear(fun, np.array([[3.0, 1.0, 2.0], [4.0, 5.0, 6.0]]) * 100)
    with pytest.raises(AssignmentError, match=r"numpy\.resize"):
        inside(lambda x: x.resize(3, 2))


def test_item_and_tolist_give_integers_only():
    def fun(x):
        order = x.argsort(axis=1)
        assert order[0, 0].item() == int(order[0, 0]) and type(order[0, 0].item()) is int
        assert order.item(0) == order.item((0, 0)) == order.item(0, 0)
        assert order.tolist() == np.argsort(sample((2, 3)), axis=1).tolist()
        for attempt in (lambda: x.item(0), x.tolist, lambda: float(x[0, 0])):
            with pytest.raises(ConversionError, match=r"functrace\.stop_gradient"):
                attempt()
        with pytest.raises(ArgumentError, match="index of the element"):
            order.item()

    inside(fun)
    with pytest.raises(AbstractValueError, match="static"):
        functrace.make_jaxpr(lambda n: n.item())(3)


def test_rounding_protocols_trace():
    def fun(x):
        return [round(x[0, 0], 1), round(x[0, 0]), math.floor(x[0, 0]), math.ceil(x[0, 0]), math.trunc(-x[0, 0])]

    x = np.array([[2.34]])
    assert functrace.linearize(fun, x)[0] == [2.3, 2.0, 2.0, 3.0, -2.0]
    assert functrace.jvp(fun, (x,), (np.ones_like(x),))[1] == [0.0] * 5


def test_membership():
    def fun(x):
        assert 2.0 in fnp.array([x, 2.0])
        assert 3.0 not in fnp.array([x, 2.0])
        return x

    functrace.grad(fun)(1.0)


def test_copies_and_pickles():
    def fun(x):
        for twin in (copy.copy(x), copy.deepcopy(x), copy.deepcopy([x])[0]):
            assert twin is not x and twin.shape == x.shape
            twin[0, 0] = 9.0
        with pytest.raises(LeakedTracerError, match="pickle the result"):
            pickle.dumps(x)
        return x[0, 0]

    np.testing.assert_array_equal(functrace.grad(fun)(np.ones((1, 2))), [[1.0, 0.0]])


def test_formatting():
    def fun(x):
        assert f"{x}" == str(x) == "Traced<float64[] traced by linearize>"
        with pytest.raises(ConversionError, match="has_aux=True"):
            f"{x:.3f}"
        return x

    functrace.grad(fun)(1.0)


def test_methods_are_numpys_outside():
    assert fnp.reshape(np.arange(4), (2, 2)).__class__ is np.ndarray


def test_no_attribute_of_a_tracer_hides_a_method():
    def fun(x):
        own = set(vars(x))
        assert not [name for name in own if hasattr(np.ndarray, name)]
        return x

    functrace.grad(fun)(1.0)
    functrace.jvp(fun, (1.0,), (1.0,))
    functrace.make_jaxpr(fun)(1.0)
    functrace.vmap(fun)(np.ones(2))
