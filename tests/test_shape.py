"""Shape manipulation: NumPy's values, shapes and dtypes under every transformation, derivatives, errors."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import functrace
import functrace.numpy as fnp
from functrace.errors import ArgumentError, DTypeError, ShapeError, UnsupportedFunctionError
from functrace.numpy._structural import select_along
from tests.same_as_numpy import DTYPES, check_linear, check_values, sample


def _cases():
    """(id, shapes, function) of every combination that is linear in its arrays."""

    def case(name, shapes, fun, label):
        shapes = [shapes] if not shapes or isinstance(shapes[0], int) else shapes
        return pytest.param(shapes, fun, id=f"{name}-{label}")

    def add(name, shapes, *options, **named):
        call = getattr(np, name)
        label = ",".join([*map(repr, options), *(f"{k}={v!r}" for k, v in named.items())]).replace(" ", "")
        found.append(case(name, shapes, lambda *xs: call(*xs, *options, **named), f"{shapes}-{label}"))

    def add_many(name, shapes, *options, **named):
        """For functions of one sequence of arrays."""
        call = getattr(np, name)
        label = ",".join([*map(repr, options), *(f"{k}={v!r}" for k, v in named.items())]).replace(" ", "")
        found.append(case(name, shapes, lambda *xs: call(list(xs), *options, **named), f"{shapes}-{label}"))

    found = []
    for shape in [6, (6,), (3, 2), (-1, 2), (1, -1, 3), (2, 3), (-1,)]:
        add("reshape", (2, 3), shape)
        add("reshape", (2, 3), shape, order="F")
    add("reshape", (0, 3), (3, 0))
    add("reshape", (0, 3), (2, 0))
    add("reshape", (), (1, 1))
    add("reshape", (2, 3), (3, 2), copy=True)
    add("reshape", (2, 2, 3), (4, 3), order="A")
    for shape in [(), (4,), (2, 3), (2, 0), (2, 1, 3)]:
        for name in ("ravel", "transpose", "permute_dims", "squeeze", "atleast_1d", "atleast_2d", "atleast_3d"):
            add(name, shape)
        add("ravel", shape, "F")
        add("ravel", shape, "K")
        add("flip", shape)
        add("copy", shape)
        add("real", shape)
        add("imag", shape)
        add("expand_dims", shape, 0)
        add("expand_dims", shape, (0, -1))
        add("broadcast_to", shape, (2, *shape))
        add("broadcast_to", shape, shape)
    for axes in [None, (2, 0, 1), [0, 2, 1], (-1, 0, -2), (0, 1, 2)]:
        add("transpose", (2, 3, 4), axes)
        add("permute_dims", (2, 3, 4), axes)
    add("matrix_transpose", (2, 3, 4))
    for first, second in [(0, 1), (-1, 0), (2, 2), (1, -1)]:
        add("swapaxes", (2, 3, 4), first, second)
        add("moveaxis", (2, 3, 4), first, second)
        add("rollaxis", (2, 3, 4), first, second)
    add("rollaxis", (2, 3, 4), 0, 3)
    add("rollaxis", (2, 3, 4), 2)
    add("moveaxis", (2, 3, 4, 5), (0, 1), (-1, 0))
    add("moveaxis", (2, 3, 4, 5), [3, 0, 2], [0, 2, 1])
    for axis in [0, -1, (0, 2), (0,), ()]:
        add("squeeze", (1, 3, 1), axis)
    for axis in [0, 1, -1, (0, 1), (1, -1), [0, 3]]:
        add("expand_dims", (2, 3), axis)
    add("broadcast_to", (3, 1), (2, 3, 4))
    add("broadcast_to", (1,), 4)
    add("broadcast_to", (0, 1), (0, 3))
    add("broadcast_arrays", [(3, 1), (4,), ()])
    add("broadcast_arrays", (2,))
    add("atleast_1d", [(), (2,)])
    add("atleast_3d", [(), (2,), (2, 3)])
    for axis in [None, 0, -1, (0, 1), (1, -1)]:
        add("flip", (2, 3, 2), axis)
    add("flip", (2, 3), ())
    for name in ("fliplr", "flipud"):
        add(name, (2, 3))
    add("flipud", (3,))
    for k in range(-1, 5):
        add("rot90", (2, 3), k)
        add("rot90", (2, 3, 4), k, (1, 2))
        add("rot90", (2, 3, 4), k, (-1, 0))
    for axis in [0, 1, -1]:
        add("unstack", (2, 3), axis=axis)
    add("unstack", (0, 3))
    add("unstack", (3, 0))
    # joining
    for axis in [0, 1, -1, None]:
        add_many("concatenate", [(2, 3), (2, 3)], axis)
    add_many("concatenate", [(2, 3), (0, 3), (1, 3)])
    add_many("concatenate", (2, 3))
    add_many("concatenate", [(2,), (3,)], dtype=np.float32)
    add_many("concatenate", [(), (3,)], axis=None)
    for axis in [0, 1, -1, 2]:
        add_many("stack", [(2, 3), (2, 3), (2, 3)], axis)
    for axis in [0, -1]:
        add_many("stack", [(), ()], axis)
    add_many("stack", (3,))
    add_many("stack", (2, 0))
    for name in ("vstack", "hstack", "dstack", "column_stack"):
        add_many(name, [(3,), (3,)])
        add_many(name, [(3, 2), (3, 2)])
        add_many(name, [(2, 2, 2), (2, 2, 2)])
        add_many(name, (3, 2))
        add_many(name, [(), ()])
    add_many("vstack", [(3,), (2, 3)])
    add_many("column_stack", [(3,), (3, 2)])
    add("append", [(2, 3), (4,)])
    add("append", [(2, 3), (1, 3)], axis=0)
    add("append", [(2, 3), (2, 1)], axis=-1)
    add_many("block", [(2, 2), (2, 3)])
    add_many("block", [(), (3,)])
    found.append(case("block", [(2, 2), (2, 1), (1, 2), (1, 1)], lambda a, b, c, d: np.block([[a, b], [c, d]]), "2x2"))
    found.append(case("block", [(2, 2), ()], lambda a, b: np.block([[a, np.ones((2, 1))], [1, 2, b]]), "mixed"))
    found.append(case("block", [(2,)], lambda a: np.block(a), "bare"))
    found.append(case("block", [(2,)], lambda a: np.block([[[a]], [[a]]]), "deep"))
    # cutting
    for name in ("split", "array_split"):
        for sections in (1, 3, [1, 4], [0, 2, 2, 6], [4, 9], [-2], np.array([2]), [], (3, 1)):
            add(name, (6,), sections)
            add(name, (2, 6), sections, axis=-1)
    add("array_split", (7,), 3)
    add("array_split", (2, 3), 4, axis=1)
    add("hsplit", (4,), 2)
    add("hsplit", (2, 4), 2)
    add("vsplit", (4, 2), [1])
    add("dsplit", (2, 2, 4), 2)
    # repeating and rearranging
    for reps in [2, 0, 1, (2,), (2, 3), (1, 1), (2, 1, 3), (), np.array([2, 2])]:
        for shape in [(), (3,), (2, 3), (2, 0)]:
            add("tile", shape, reps)
    for axis in [None, 0, 1, -1]:
        add("repeat", (2, 3), 2, axis)
        add("repeat", (2, 3), 0, axis)
    add("repeat", (2, 3), [2], 1)
    add("repeat", (3,), [2, 0, 1])
    add("repeat", (2, 3), [2, 0, 1], -1)
    add("repeat", (2, 3), np.arange(6))
    add("repeat", (), 3)
    add("repeat", (40,), np.arange(40) % 4)
    add("repeat", (2, 40), np.arange(40) % 3, 1)
    add("delete", (60,), (np.arange(30) ** 2 % 60))
    shifts = [(1, None), (-2, None), (7, 0), (0, 1), (1, (0, 1)), ((1, 2), (0, 1)), ((1, 1), (0, 0)), ((1, 2), 0)]
    for shift, axis in shifts:
        add("roll", (3, 4), shift, axis)
    add("roll", (0, 2), 1, 0)
    add("roll", (), 1)
    mask = [True, False, True, False, False]
    for obj in [0, 2, -1, [0, 2], [], slice(None, None, 2), slice(4, None, -2), np.array([1]), mask]:
        add("delete", (5,), obj)
        add("delete", (2, 5), obj, -1)
        add("delete", (5, 2), obj, 0)
    add("delete", (2, 3), [1, 4])
    for obj in [0, 3, -1, [0, 3], [1, 1], slice(1, 3), [2], np.array([2])]:
        found.append(case("insert", [(3,)], lambda x, obj=obj: np.insert(x, obj, 9.5), f"scalar-{obj}"))
        found.append(case("insert", [(2, 3), ()], lambda x, v, obj=obj: np.insert(x, obj, v, axis=1), f"axis1-{obj}"))
        found.append(case("insert", [(3, 2), (2,)], lambda x, v, obj=obj: np.insert(x, obj, v, axis=0), f"row-{obj}"))
    found.append(case("insert", [(3,), (2,)], lambda x, v: np.insert(x, 1, v), "several"))
    found.append(case("insert", [(3,), (2,)], lambda x, v: np.insert(x, [0, 3], v), "each"))
    found.append(case("insert", [(2, 3), (2, 2)], lambda x, v: np.insert(x, [1, 1], v, axis=1), "block"))
    found.append(case("insert", [(2, 3), (2,)], lambda x, v: np.insert(x, 1, v, axis=1), "column"))
    for shape in [(2, 2), 7, (2, 9), (0, 2), (), (3, 1)]:
        add("resize", (2, 3), shape)
    add("resize", (0,), (2,))
    for indexing in ("xy", "ij"):
        for sparse in (False, True):
            for shapes in ([(2,), (3,)], [(2,), (3,), (4,)], [(2,)], [(), (2,)]):
                add("meshgrid", shapes, indexing=indexing, sparse=sparse)
    add("meshgrid", [(2,), (3,)], copy=False)
    # diagonals
    for k in (-3, -1, 0, 1, 2, 4):
        for name in ("diag", "diagonal", "tril", "triu"):
            add(name, (3, 4), k)
            add(name, (3, 2), k)
        add("diag", (3,), k)
        add("diagflat", (2, 2), k)
        add("tril", (3,), k)
        add("triu", (2, 3, 3), k)
    add("diag", (0,))
    add("diagonal", (2, 3, 4), 1, 1, 2)
    add("diagonal", (2, 3, 4), -1, -1, 0)
    add("diagonal", (2, 3, 4), 0, 2, 1)
    add("diagonal", (2, 0))
    # padding
    for width in [1, (1, 2), ((1, 2), (0, 3)), ((2,), (1,)), 0, {1: 2}, {-1: (1, 2)}]:
        for mode in ("constant", "edge", "linear_ramp", "reflect", "symmetric", "wrap"):
            add("pad", (3, 4), width, mode)
    for mode in ("reflect", "symmetric"):
        for width in [(1, 1), (2, 3), (7, 4), (0, 9), (13, 0), (5, 11)]:
            add("pad", (3,), width, mode)
            add("pad", (3,), width, mode, reflect_type="odd")
            add("pad", (1, 2), (width, width), mode, reflect_type="odd")
    for width in [(7, 4), (0, 9), (13, 0)]:
        for mode in ("edge", "wrap", "linear_ramp"):
            add("pad", (3,), width, mode)
    for values in [2.5, (1, 2), ((1, 2), (3, 4)), ((1,), (2,))]:
        add("pad", (2, 3), 2, "constant", constant_values=values)
        add("pad", (2, 3), 2, "linear_ramp", end_values=values)
    for length in [None, 1, 2, (1, 5), ((1, 2), (2, 1))]:
        add("pad", (2, 3), 2, "mean", stat_length=length)
    add("pad", (0, 2), 1)
    add("pad", (0, 2), ((0, 0), (1, 1)), "edge")
    add("pad", (), 0)
    return found


CASES = _cases()


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("shapes, fun", CASES)
def test_values(shapes, fun, dtype):
    args = [sample(s, dtype, seed=i) for i, s in enumerate(shapes)]
    try:
        fun(*args)
    except TypeError:
        pytest.skip("NumPy does not take this dtype")
    check_values(fun, *args)


@pytest.mark.parametrize("shapes, fun", CASES)
def test_derivatives(shapes, fun):
    check_linear(fun, *[sample(s, seed=i) for i, s in enumerate(shapes)])


def test_lists_mix_traced_and_plain_arrays():
    x = np.array([1.5, 2.5])
    value, slope = functrace.value_and_grad(_mixture)(x)
    assert value == _mixture(x)
    np.testing.assert_array_equal(slope, [0 + 5 + 1, 1 + 1 + 1])


def _mixture(x):
    joined = np.concatenate([x, np.array([1, 2]), [3.0], (x[0],)])
    stacked = np.stack([x, np.arange(2, dtype=np.float32), [1, x[1]]])
    return joined @ np.arange(6.0) + (stacked @ np.ones(2)) @ np.ones(3)


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize(
    "dtypes", [(np.float32, np.float64), (np.float32, np.int32), (np.int8, bool), (np.complex64, float)]
)
def test_joining_promotes_as_numpy(dtypes):
    args = [sample((2, 3), dtype, seed=i) for i, dtype in enumerate(dtypes)]
    for fun in (
        lambda x, y: np.concatenate([x, y]),
        lambda x, y: np.stack([x, y], 1),
        lambda x, y: np.append(x, y),
        lambda x, y: np.block([[x, y]]),
        lambda x, y: np.hstack((x, y, [[1.0], [2.0]])),
        lambda x, y: np.concatenate([x, y], dtype=complex),
        lambda x, y: np.concatenate([x, y], dtype=np.float32, casting="unsafe"),
        lambda x, y: (np.result_type(x, y), x)[1],
    ):
        check_values(fun, *args)


def test_dtype_questions():
    def fun(x, y):
        assert np.result_type(x, y) == np.float64
        assert np.result_type(x, 1.0) == np.float32
        assert np.can_cast(x, np.float64) and not np.can_cast(y, np.float32)
        assert not np.iscomplexobj(x) and np.isrealobj(x)
        assert np.shape(x) == x.shape == (2, 3) and np.ndim(x) == 2 and np.size(x) == 6 and np.size(x, 1) == 3
        assert fnp.isscalar(x[0, 0]) and not fnp.isscalar(x) and fnp.isscalar(2)
        assert fnp.shape([1, 2]) == (2,)
        return x

    functrace.make_jaxpr(fun)(sample((2, 3), np.float32), sample((2, 3)))
    functrace.make_jaxpr(lambda w: [np.result_type(w, np.float32(1))] == [np.float32] or w.missing)(1.0)


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize("target", [np.float64, np.float32, complex, int, bool])
@pytest.mark.parametrize("dtype", DTYPES)
def test_astype(dtype, target):
    check_values(lambda x: x.astype(target), sample((2, 3), dtype))
    check_values(lambda x: np.astype(x, target), sample((2, 3), dtype))
    x = sample((3,))
    slope = functrace.jvp(lambda x: x.astype(target).astype(float), (x,), (np.ones(3),))[1]
    np.testing.assert_array_equal(slope, np.zeros(3) if np.dtype(target).kind in "ib" else np.ones(3))


def test_astype_warns_of_lost_imaginary_parts():
    with pytest.warns(np.exceptions.ComplexWarning):
        functrace.make_jaxpr(lambda z: z.astype(float))(1j)


def test_pad_with_traced_constants():
    def fun(c):
        return fnp.pad(x, 1, constant_values=[[0, c], [c, 1]])

    x, c = sample((2, 3)), np.array(2.5)
    value, slopes = functrace.jvp(fun, (c,), (np.array(1.0),))
    np.testing.assert_array_equal(value, np.pad(x, 1, constant_values=[[0, 2.5], [2.5, 1]]))
    np.testing.assert_array_equal(slopes, np.pad(np.zeros((2, 3)), 1, constant_values=[[0, 1], [1, 0]]))


@pytest.mark.parametrize("mode", ["maximum", "minimum", "median"])
@pytest.mark.parametrize("length", [None, 2])
def test_pad_by_statistics(mode, length):
    x = sample((3, 4))
    check_values(lambda x: np.pad(x, 2, mode, stat_length=length), x)
    h = 1e-6 * sample((3, 4), seed=5)
    slope = (np.pad(x + h, 2, mode, stat_length=length) - np.pad(x - h, 2, mode, stat_length=length)) / 2e-6
    got = functrace.jvp(lambda x: np.pad(x, 2, mode, stat_length=length), (x,), (h * 1e6,))[1]
    np.testing.assert_allclose(got, slope, rtol=1e-6)


def test_vander():
    for count in (None, 0, 1, 4):
        for increasing in (False, True):
            for dtype in DTYPES:
                check_values(partial(np.vander, N=count, increasing=increasing), sample((3,), dtype))
    np.testing.assert_array_equal(functrace.jacfwd(lambda x: np.vander(x, 3))(np.array([2.0]))[0, :, 0], [4, 1, 0])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_apply_along_axis(axis):
    x = sample((2, 3, 2))
    for func in (lambda v: v[::-1] * 2, lambda v: v[0] * v[1], lambda v: np.diag(v), lambda v: [v[0], v[-1]]):
        check_values(partial(np.apply_along_axis, func, axis), x)
    check_linear(lambda x: np.apply_along_axis(lambda v: v[::-1] * 2, axis, x), x)


def test_apply_over_axes():
    for axes in [0, (0, 2), [-1]]:
        check_linear(partial(np.apply_over_axes, np.sum, axes=axes), sample((2, 3, 2)))
        check_values(partial(np.apply_over_axes, np.sum, axes=axes), sample((2, 3, 2)))


def test_vectorize_names_vmap():
    double = fnp.vectorize(lambda v: 2 * v)
    np.testing.assert_array_equal(double(np.arange(3)), [0, 2, 4])
    with pytest.raises(UnsupportedFunctionError, match=r"functrace\.vmap"):
        functrace.grad(lambda x: double(x)[0])(np.ones(3))


# errors

ERRORS = {
    "reshape": (lambda x: np.reshape(x, (4, 2)), ShapeError, "product is the number of elements"),
    "reshape-twice": (lambda x: np.reshape(x, (-1, -1)), ShapeError, "at most one may be -1"),
    "reshape-float": (lambda x: np.reshape(x, 2.5), ArgumentError, "Python integer"),
    "reshape-traced": (lambda x: np.reshape(x, x[0]), ArgumentError, "cannot depend on traced"),
    "reshape-order": (lambda x: np.reshape(x, 6, order="K"), ArgumentError, "order='F'"),
    "transpose-repeat": (lambda x: np.transpose(x, (0, 0)), ShapeError, "at most once"),
    "transpose-count": (lambda x: np.transpose(x, (0,)), ShapeError, "moveaxis"),
    "axis": (lambda x: np.swapaxes(x, 0, 2), ShapeError, "axis2 from -2 to 1"),
    "scalar": (lambda x: np.flip(x[0, 0], 0), ShapeError, "scalar without axes"),
    "matrix_transpose": (lambda x: np.matrix_transpose(x[0]), ShapeError, "at least 2"),
    "moveaxis": (lambda x: np.moveaxis(x, (0, 1), 0), ShapeError, "one destination for each"),
    "squeeze": (lambda x: np.squeeze(x, 0), ShapeError, "length 1 only"),
    "broadcast_to": (lambda x: np.broadcast_to(x, (3,)), ShapeError, "shorter"),
    "broadcast_to-misfit": (lambda x: np.broadcast_to(x, (4, 4)), ShapeError, "equal or 1"),
    "rot90": (lambda x: np.rot90(x, 1, (0,)), ShapeError, "two different axes"),
    "fliplr": (lambda x: np.fliplr(x[0]), ShapeError, "atleast_2d"),
    "concatenate": (lambda x: np.concatenate([x, x[0]]), ShapeError, "numpy.stack"),
    "concatenate-scalars": (lambda x: np.concatenate([x[0, 0], x[0, 0]]), ShapeError, "functrace.numpy.array"),
    "concatenate-casting": (lambda x: np.concatenate([x, x], dtype=int), DTypeError, "unsafe"),
    "concatenate-scalar": (lambda x: fnp.concatenate(x[0, 0]), ShapeError, "list or tuple"),
    "stack": (lambda x: np.stack([x, x[0]]), ShapeError, "different lengths"),
    "block-depth": (lambda x: np.block([[x], x]), ArgumentError, "each row"),
    "block-tuple": (lambda x: np.block([(x, x), x]), ArgumentError, "use lists"),
    "split": (lambda x: np.split(x, 4), ShapeError, "array_split"),
    "array_split": (lambda x: np.array_split(x, 0), ShapeError, "documentation"),
    "split-float": (lambda x: np.split(x, 1.5), ArgumentError, "cannot depend on traced"),
    "vsplit": (lambda x: np.vsplit(x[0], 1), ShapeError, "numpy.split"),
    "tile": (lambda x: np.tile(x, -1), ArgumentError, "from 0"),
    "repeat": (lambda x: np.repeat(x, [1, 2, 3], 0), ShapeError, "documentation"),
    "repeat-traced": (lambda x: np.repeat(x, x[0]), ArgumentError, "cannot depend on traced"),
    "repeat-negative": (lambda x: np.repeat(x, -1), ShapeError, "documentation"),
    "roll": (lambda x: np.roll(x, (1, 2, 3), (0, 1)), ShapeError, "documentation"),
    "insert": (lambda x: np.insert(x, 9, 1.0), ShapeError, "documentation"),
    "insert-shape": (lambda x: np.insert(x, [0, 1], [1.0, 2, 3]), ShapeError, "equal or 1"),
    "delete": (lambda x: np.delete(x, 9), ShapeError, "documentation"),
    "resize": (lambda x: np.resize(x, (-1, 2)), ShapeError, "from 0"),
    "meshgrid": (lambda x: np.meshgrid(x, x, indexing="no"), ArgumentError, "'ij'"),
    "diag": (lambda x: np.diag(x[None]), ShapeError, "numpy.diagonal"),
    "diagonal": (lambda x: np.diagonal(x, 0, 1, 1), ShapeError, "two axes"),
    "vander": (lambda x: np.vander(x), ShapeError, "ravel"),
    "pad-mode": (lambda x: np.pad(x, 1, "nearest"), ArgumentError, "choose from constant"),
    "pad-function": (lambda x: np.pad(x, 1, lambda *a: None), UnsupportedFunctionError, "assign the borders"),
    "pad-option": (lambda x: np.pad(x, 1, "edge", end_values=1), ArgumentError, "no options"),
    "pad-negative": (lambda x: np.pad(x, -1), ArgumentError, "slices"),
    "pad-width": (lambda x: np.pad(x, [1, 2, 3]), ShapeError, "documentation"),
    "pad-empty": (lambda x: np.pad(x[:0], 1, "edge"), ShapeError, "mode='constant'"),
    "apply_along_axis": (lambda x: np.apply_along_axis(lambda v: v, 3, x), ShapeError, "axis from"),
}


@pytest.mark.parametrize("fun, error, match", list(ERRORS.values()), ids=list(ERRORS))
def test_errors_name_the_remedy(fun, error, match):
    with pytest.raises(error, match=match) as caught:
        functrace.jacrev(fun)(np.ones((2, 3)))
    assert "test_shape.py" in str(caught.value)


def test_concrete_integers_of_a_trace_steer_shapes():
    def fun(x, n):
        return np.repeat(x, n) @ np.ones(2 * int(n)) + np.tile(x, n).sum() + np.roll(x, n)[0]

    np.testing.assert_array_equal(functrace.grad(fun)(np.ones(2), 3), [6.0, 7.0])
    assert functrace.jvp(lambda n: np.zeros(4).reshape(2, 2), (np.int64(2),), (None,))[0].shape == (2, 2)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-2, 2), st.integers(1, 5)), max_size=24), st.booleans())
def test_any_index_map_selects_the_right_elements(runs, rows):
    indices = [min(max(start + step * i, 0), 9) for start, step, count in runs for i in range(count)]
    indices = np.array(indices, dtype=np.intp)
    x = sample((10, 2) if rows else (2, 10))
    axis = 0 if rows else 1
    value, slope = functrace.jvp(lambda x: select_along(x, indices, axis), (x,), (2 * x,))
    np.testing.assert_array_equal(value, np.take(x, indices, axis))
    np.testing.assert_array_equal(slope, 2 * value)
    counts = np.bincount(indices, minlength=10).astype(float)
    pulled = functrace.vjp(lambda x: select_along(x, indices, axis), x)[1](np.ones_like(value))[0]
    np.testing.assert_array_equal(pulled, np.broadcast_to(counts[:, None] if rows else counts, x.shape))


# compositions


def _program(x):
    """A nonlinear function made of rearrangements."""
    a = np.stack([x, x[::-1] ** 2, np.roll(x, 1)])
    b = np.pad(a, 1, "reflect") * np.repeat(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 5).reshape(5, 5)
    c = np.concatenate([np.tril(b[:, :5]), np.diag(x[0] * np.diag(b, 1))], axis=None)
    d = fnp.array([[c[3], x[2] ** 3], [c @ c, 1.0]])
    return np.split(np.tile(d, 2).ravel(), 2)[0] @ np.array([1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize("mode", ["fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev"])
def test_second_derivatives(mode):
    x, h = np.array([0.5, -1.5, 2.0]), 1e-5
    gradient = functrace.grad(_program)
    steps = [(_program(x + e) - _program(x - e)) / (2 * h) for e in h * np.eye(3)]
    np.testing.assert_allclose(gradient(x), steps, rtol=1e-7)
    curvature = [(gradient(x + e) - gradient(x - e)) / (2 * h) for e in h * np.eye(3)]
    np.testing.assert_allclose(functrace.hessian(_program, mode=mode)(x), curvature, rtol=1e-7)


def test_batched_derivatives_are_those_of_each_row():
    rows = np.random.default_rng(5).normal(size=(4, 3))
    for derivative in (functrace.grad(_program), functrace.jacfwd(_program), functrace.hessian(_program)):
        expected = np.stack([derivative(row) for row in rows])
        np.testing.assert_allclose(functrace.vmap(derivative)(rows), expected, rtol=1e-12)
    batch_outside = functrace.jacrev(functrace.vmap(_program))(rows)
    own = batch_outside[np.arange(4), np.arange(4)]
    np.testing.assert_allclose(own, functrace.vmap(functrace.grad(_program))(rows))


def test_inner_and_outer_traced_values_join():
    def outer(x):
        def inner(y):
            return fnp.array([x * y, y, 2.0]) @ np.concatenate([[x], np.stack([y, x])])

        return functrace.grad(inner)(x * x)

    # inner(y) = x**2 y + y**2 + 2 x, so its derivative at x**2 is 3 x**2, whose derivative is 6 x.
    assert outer(3.0) == 27.0
    assert functrace.grad(outer)(3.0) == 18.0
    assert functrace.grad(functrace.grad(outer))(3.0) == 6.0


def test_index_helpers_and_dtypes():
    for fun in (
        lambda x: x[np.tril_indices_from(x, -1)],
        lambda x: x[np.triu_indices_from(x)],
        lambda x: x[np.diag_indices_from(x)],
        lambda x: x[fnp.tril_indices(3)],
        lambda x: (fnp.common_type(x, x) is np.float64, x)[1],
        lambda x: x.astype(fnp.float32) * fnp.pi,
    ):
        check_values(fun, sample((3, 3)))
        check_linear(fun, sample((3, 3)))


def test_joining_by_indexing():
    for fun in (
        lambda x, y: fnp.r_[x, 1.0, y, 0:3],
        lambda x, y: fnp.c_[x, y],
        lambda x, y: fnp.c_[x, fnp.c_[y, y]],
        lambda x, y: fnp.r_[x],
    ):
        check_values(fun, sample((3,)), sample((3,), seed=1))
        check_linear(fun, sample((3,)), sample((3,), seed=1))
    with pytest.raises(ArgumentError, match="with an axis"):
        functrace.grad(lambda x: fnp.r_["0,2", x][0])(np.ones(3))
