"""Indexing reads, writes and differentiates as NumPy indexes, under every transformation."""

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import functrace
import functrace.numpy as fnp
from functrace import errors, grad, jacfwd, jacrev, jvp, make_jaxpr, vjp, vmap
from functrace.core.ir import Var, eval_jaxpr
from functrace.core.types import aval_of
from functrace.testing import check_grads
from tests.cases import all_cases

AT_UFUNCS = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.true_divide,
    "min": np.minimum,
    "max": np.maximum,
}


def numbers(*shape: int) -> Any:
    """Values far from each other and from zero."""
    size = int(np.prod(shape))
    values = np.random.default_rng(size).permutation(size) * 0.25 + 1.0
    return values.reshape(shape)[()]


def evaluate(fun: Any, *args: Any) -> Any:
    closed = make_jaxpr(fun)(*args)
    return eval_jaxpr(closed.jaxpr, closed.consts, *args)[0]


# drawing index expressions


@st.composite
def slices(draw: Any) -> slice:
    bound = st.none() | st.integers(-6, 6)
    return slice(draw(bound), draw(bound), draw(st.none() | st.sampled_from([-3, -2, -1, 1, 2, 3])))


@st.composite
def indexed(draw: Any, advanced: bool = True) -> tuple[tuple[int, ...], Any]:
    """A shape and an index expression, mostly one that fits."""
    shape = draw(st.lists(st.integers(0, 4) | st.integers(2, 4), max_size=4).map(tuple))
    index_shape = draw(st.sampled_from([(2,), (3,), (2, 1), (1, 3), (0,)]))
    key: list[Any] = []
    axis = 0
    kinds = ["int", "slice", "slice", "none"] + (["array", "array", "mask", "list", "scalar mask"] if advanced else [])
    while axis < len(shape) and len(key) < 6:
        kind = draw(st.sampled_from(kinds))
        length = shape[axis]
        if kind == "none":
            key.append(None)
        elif kind == "scalar mask":
            key.append(draw(st.booleans()))
        elif kind == "slice":
            key.append(draw(slices()))
            axis += 1
        elif kind == "mask":
            count = draw(st.integers(1, min(2, len(shape) - axis)))
            bits = draw(st.lists(st.booleans(), min_size=16, max_size=16))
            key.append(np.resize(bits, shape[axis : axis + count]))
            axis += count
        elif not length:
            key.append(slice(None))
            axis += 1
        elif kind == "int":
            key.append(draw(st.integers(-length, length - 1).map(draw(st.sampled_from([int, np.int64, np.array])))))
            axis += 1
        else:
            size = int(np.prod(index_shape))
            positions = draw(st.lists(st.integers(-length, length - 1), min_size=size, max_size=size))
            array = np.array(positions, int).reshape(index_shape)
            key.append(array.tolist() if kind == "list" else array)
            axis += 1
    for _ in range(draw(st.integers(0, max(len(shape) - 1, 0)))):
        if key and type(key[-1]) is slice:
            key.pop()
    if draw(st.booleans()) and not any(isinstance(k, np.ndarray) and k.dtype == bool for k in key):
        key.insert(draw(st.integers(0, len(key))), Ellipsis)  # it would move a mask to axes that it does not fit
    if len(key) == 1 and draw(st.booleans()):
        return shape, key[0]
    return shape, tuple(key)


def numpy_result(x: np.ndarray, key: Any) -> Any:
    """What NumPy gives, None for an IndexError."""
    try:
        return x[key]
    except IndexError:
        return None


def refused_although_empty(part: Any, run: Any) -> bool:
    """Whether an index out of range is refused that NumPy lets pass because nothing is selected."""
    if np.size(part):
        return False
    try:
        run()
    except errors.IndexingError:
        return True
    return False


@given(indexed())
def test_reading_is_numpys(drawn):
    shape, key = drawn
    x = numbers(*shape) if shape else np.array(1.5)
    expected = numpy_result(x, key)
    if expected is None:
        with pytest.raises(errors.IndexingError):
            jvp(lambda x: x[key], (x,), (x,))
        return
    if refused_although_empty(expected, lambda: jvp(lambda x: x[key], (x,), (x,))):
        return
    y, y_dot = jvp(lambda x: x[key], (x,), (3 * x,))
    np.testing.assert_array_equal(y, expected, strict=np.ndim(y) > 0)
    np.testing.assert_array_equal(y_dot, 3 * expected)
    np.testing.assert_array_equal(evaluate(lambda x: x[key], x), expected)
    np.testing.assert_array_equal(vmap(lambda x: x[key])(np.stack([x, -x])), np.stack([expected, -expected]))
    weights = numbers(*np.shape(expected))
    x_bar = vjp(lambda x: x[key], x)[1](weights)[0]
    total = np.zeros(shape)
    np.add.at(total, key, weights)
    np.testing.assert_allclose(x_bar, total[()], rtol=1e-14)
    batched = vmap(lambda w: vjp(lambda x: x[key], x)[1](w)[0])(np.stack([weights, 2 * weights]))
    np.testing.assert_allclose(batched, np.stack([total, 2 * total]), rtol=1e-14)


def assigned(x: np.ndarray, key: Any, v: Any) -> np.ndarray:
    out = np.array(x)
    out[key] = v
    return out


@given(indexed(), st.booleans())
def test_writing_is_numpys(drawn, scalar):
    shape, key = drawn
    x = numbers(*shape) if shape else np.array(1.5)
    part = numpy_result(x, key)
    if part is None:
        return
    v = np.float64(-2.5) if scalar else -numbers(*np.shape(part))

    def write(x: Any, v: Any) -> Any:
        x[key] = v
        return x

    if refused_although_empty(part, lambda: jvp(write, (x, v), (x, v))):
        return
    expected = assigned(x, key, v)
    y, y_dot = jvp(write, (x, v), (2 * x, 3 * v))
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(y_dot, assigned(2 * x, key, 3 * v))
    np.testing.assert_array_equal(evaluate(write, x, v), expected)
    rows = np.stack([expected, assigned(-x, key, 2 * v)])
    np.testing.assert_array_equal(vmap(write)(np.stack([x, -x]), np.stack([v, 2 * v])), rows)
    np.testing.assert_array_equal(fnp.at(x)[key].set(v), expected)
    weights = numbers(*shape)
    x_bar, v_bar = vjp(write, x, v)[1](weights)
    assert np.isclose(np.sum(x_bar * 2 * x) + np.sum(v_bar * 3 * v), np.sum(weights * y_dot), rtol=1e-12)


@given(indexed(), st.sampled_from(sorted(AT_UFUNCS)))
def test_at_is_the_ufuncs_at(drawn, name):
    shape, key = drawn
    x = numbers(*shape) if shape else np.array(1.5)
    part = numpy_result(x, key)
    if part is None:
        return
    v = numbers(*np.shape(part)) * 0.7 + 0.3

    def update(x: Any, v: Any) -> Any:
        return getattr(fnp.at(x)[key], name)(v)

    if refused_although_empty(part, lambda: jvp(update, (x, v), (x, v))):
        return
    expected = np.array(x)
    AT_UFUNCS[name].at(expected, key, v)
    for actual in (
        update(x, v),
        evaluate(update, x, v),
        jvp(update, (x, v), (x, v))[0],
        jvp(lambda v: update(x, v), (v,), (v,))[0],
        vmap(update)(np.stack([x, x]), np.stack([v, v]))[1],
        vmap(update, (0, None))(np.stack([x, x]), v)[1],
        vmap(update, (None, 0))(x, np.stack([v, v]))[1],
    ):
        np.testing.assert_allclose(actual, expected, rtol=1e-13)
    y_dot = jvp(update, (x, v), (2 * x, 3 * v))[1]
    x_bar, v_bar = vjp(update, x, v)[1](np.ones(shape)[()])
    assert np.isclose(np.sum(x_bar * 2 * x) + np.sum(v_bar * 3 * v), np.sum(y_dot), rtol=1e-10)


@given(indexed(advanced=False))
def test_basic_indices_need_no_gather(drawn):
    shape, key = drawn
    x = numbers(*shape) if shape else np.array(1.5)
    if numpy_result(x, key) is not None:
        names = {e.primitive.name for e in make_jaxpr(lambda x: x[key])(x).eqns}
        assert names <= {"index", "slice", "reverse", "reshape"}


# derivatives


@pytest.mark.parametrize("name", [*AT_UFUNCS, "set", "power", "apply"])
@pytest.mark.parametrize(
    "key", [np.array([2, 0, 2, 2]), (slice(None, None, 2), [1, 1]), 1, np.array([True, False, True])]
)
def test_at_derivatives(name, key):
    x = numbers(3, 3)
    v = numbers(*x[key].shape) * 0.41 + 0.2
    if name == "apply":
        check_grads(lambda x: fnp.at(x)[key].apply(np.sin), (x,), order=2)
    else:
        check_grads(lambda x, v: getattr(fnp.at(x)[key], name)(v), (x, v), order=2)


def test_reading_to_second_order():
    x = numbers(4, 3)
    i, j = np.array([[0, 3], [3, 1]]), np.array([2, 0])
    check_grads(lambda x: (x[i, j] * x[1, ::-2, None] ** 2 + x[x > 2.1].sum()).sum(), (x,), order=2)


def test_multiply_with_zeros_is_exact_in_both_modes():
    index = np.array([0, 0, 1, 1, 1])
    x, v = np.array([2.0, 3.0, 4.0]), np.array([0.0, 5.0, 0.0, 0.0, 7.0])
    update = lambda v: fnp.at(x)[index].multiply(v)  # noqa: E731
    expected = np.zeros((3, 5))
    expected[0, 0] = 10.0
    for jacobian in (jacfwd, jacrev):
        np.testing.assert_allclose(jacobian(update)(v), expected)
    for mode in ("fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev"):
        second = functrace.hessian(update, mode=mode)(v)
        assert second[1, 2, 3] == second[1, 3, 2] == 21.0
        assert second[0, 0, 1] == second[0, 1, 0] == 2.0
        assert np.count_nonzero(second) == 4


def test_ties_of_min_and_max_split_evenly():
    index = np.array([0, 0, 1, 2])
    x, v = np.array([1.0, 1.0, 5.0]), np.array([1.0, 1.0, 1.0, 3.0])
    for name, sign in (("max", -1), ("min", 1)):
        update = lambda x, v, name=name: getattr(fnp.at(x)[index], name)(v)  # noqa: E731
        for jacobian in (jacfwd, jacrev):
            by_x, by_v = jacobian(update, argnums=(0, 1))(sign * x, sign * v)
            np.testing.assert_allclose(by_x, np.diag([1 / 3, 1 / 2, 0.0]))
            np.testing.assert_allclose(by_v[0, :2], 1 / 3)
            assert by_v[1, 2] == 0.5 and by_v[2, 3] == 1.0


def test_a_nan_is_the_extremum():
    assert np.isnan(fnp.at(np.ones(2))[0].max(np.nan)[0])
    by_x, by_v = jacrev(lambda x, v: fnp.at(x)[np.array([0, 0])].max(v), (0, 1))(np.ones(2), np.array([np.nan, 2.0]))
    np.testing.assert_array_equal(by_v[0], [1.0, 0.0])
    np.testing.assert_array_equal(by_x, np.diag([0.0, 1.0]))


def test_the_last_of_repeated_assignments_wins():
    index = np.array([[1, 1], [0, 1]])
    v = np.array([[1.0, 2.0], [3.0, 4.0]])
    for values, positions in ((v, index), (np.asfortranarray(v), np.asfortranarray(index))):
        write = lambda v, positions=positions: fnp.at(np.zeros(2) * v[0, 0])[positions].set(v)  # noqa: E731
        for jacobian in (jacfwd, jacrev):
            expected = np.zeros((2, 2, 2))
            expected[0, 1, 0] = expected[1, 1, 1] = 1
            np.testing.assert_array_equal(jacobian(write)(values), expected)


def test_a_loop_over_elements_costs_linear_time():
    def f(x: Any) -> Any:
        total = 0.0
        for i in range(len(x)):
            total = total + x[i] * x[-1 - i]
        return total

    x = numbers(300)
    np.testing.assert_allclose(grad(f)(x), 2 * x[::-1])
    np.testing.assert_allclose(vmap(grad(f))(np.stack([x, 2 * x]))[1], 4 * x[::-1])
    np.testing.assert_allclose(jvp(grad(f), (x,), (x,))[1], 2 * x[::-1])


@pytest.mark.parametrize("case", [c for c in all_cases() if c.primitive.accumulate], ids=str)
def test_accumulating_is_adding_the_transpose(case):
    x, *rest = case.operands
    if x.dtype.kind not in "fc":
        return
    out = case.primitive.impl(x, *rest, **case.params)
    bar = np.asarray(numbers(*np.shape(out)), x.dtype)[()]
    expected = case.primitive.transpose([bar], Var(aval_of(x)), *rest, **case.params)[0]
    buffer = np.ones(np.shape(x), x.dtype)
    case.primitive.accumulate(buffer, bar, Var(aval_of(x)), *rest, **case.params)
    np.testing.assert_allclose(buffer, expected + 1, rtol=1e-14)


def test_cotangents_of_parts_and_wholes_add_up():
    def f(x: Any) -> Any:
        y = np.sin(x)
        z = y * 2 + y[::-1]
        return (z[0] * y[1] + np.where(y[2] > 0, y[2] ** 2, 5 * y[3])) * z[3] + y[1:3][0]

    check_grads(f, (numbers(4) * 0.2,), order=2)


# indices that are traced


def test_indices_with_a_value_are_static():
    x = np.array([3.0, 1.0, 2.0])

    def f(x: Any) -> Any:
        return x[np.argmax(x)] * 2 + x[np.argmax(x) + 1 :].sum()

    np.testing.assert_array_equal(grad(f)(x), [2.0, 1.0, 1.0])


def test_abstract_indices_count_from_the_end_and_are_clamped():
    x = np.array([10.0, 20.0, 30.0])
    indices = np.array([0, 2, -1, -3, 5, -7])
    expected = np.array([10.0, 30.0, 30.0, 10.0, 30.0, 10.0])
    read = lambda i: fnp.take(x, i)  # noqa: E731
    np.testing.assert_array_equal(vmap(read)(indices), expected)
    np.testing.assert_array_equal(vmap(read)(indices.astype(np.int8)), expected)
    np.testing.assert_array_equal(evaluate(read, indices), expected)
    np.testing.assert_array_equal(vmap(lambda i: fnp.array(x)[i])(np.uint8([0, 2, 9])), [10.0, 30.0, 30.0])


def test_abstract_indices_read_and_write_rows():
    x = numbers(3, 4)
    rows, columns = np.array([0, -1]), np.array([3, 1])
    batch = np.stack([x, 2 * x])
    got = vmap(lambda x, i, j: (x[i], x[:, j], x[i, j], x[i, None, 1:], x[[0, 2], j]))(batch, rows, columns)
    for k, (x_k, i, j) in enumerate(zip(batch, rows, columns, strict=True)):
        for actual, expected in zip(got, (x_k[i], x_k[:, j], x_k[i, j], x_k[i, None, 1:], x_k[[0, 2], j]), strict=True):
            np.testing.assert_array_equal(actual[k], expected)

    def write(x: Any, i: Any, j: Any) -> Any:
        x[i] = 0.0
        x[1, j] += 5.0
        return x

    got = vmap(write)(batch, rows, columns)
    for k in range(2):
        expected = batch[k].copy()
        expected[rows[k]] = 0.0
        expected[1, columns[k]] += 5.0
        np.testing.assert_array_equal(got[k], expected)


@pytest.mark.parametrize("name", [*AT_UFUNCS, "set"])
@pytest.mark.parametrize(
    "in_axes", [(0, 0, 0), (0, None, None), (None, 0, None), (None, None, 0), (0, 0, None), (None, 0, 0)]
)
def test_batched_indices_in_scatters(name, in_axes):
    x = numbers(2, 3, 4)
    i = np.array([[0, 2, 0], [1, 1, 1]])
    v = numbers(2, 3, 4) * 0.6 + 0.5
    args = [a if axis == 0 else a[0] for a, axis in zip((x, i, v), in_axes, strict=True)]
    update = lambda x, i, v: getattr(fnp.at(x)[i], name)(v)  # noqa: E731
    loop = [update(*(a[k] if axis == 0 else a for a, axis in zip(args, in_axes, strict=True))) for k in range(2)]
    np.testing.assert_allclose(vmap(update, in_axes)(*args), np.stack(loop), rtol=1e-13)
    total = lambda *args: (vmap(update, in_axes)(*args) ** 2).sum()  # noqa: E731
    one = lambda x, i, v: (update(x, i, v) ** 2).sum()  # noqa: E731
    for argnum in (0, 2):
        if in_axes[argnum] == 0:
            got = grad(total, argnum)(*args)
            expected = [
                grad(one, argnum)(*(a[k] if axis == 0 else a for a, axis in zip(args, in_axes, strict=True)))
                for k in range(2)
            ]
            np.testing.assert_allclose(got, np.stack(expected), rtol=1e-12)


def test_masks():
    x = np.array([[1.0, -2.0], [-3.0, 4.0]])
    np.testing.assert_array_equal(grad(lambda x: (x[x > 0] ** 2).sum())(x), [[2.0, 0.0], [0.0, 8.0]])

    def relu(x: Any) -> Any:
        x = x * 1.0
        x[x < 0] = 0.0
        return x

    for values in (grad(lambda x: relu(x).sum())(x), vmap(grad(lambda x: relu(x).sum()))(x)):
        np.testing.assert_array_equal(values, x > 0)
    np.testing.assert_array_equal(vmap(relu)(x), np.maximum(x, 0))
    np.testing.assert_array_equal(vmap(lambda x: x.at[x < 0].apply(np.abs))(x), np.abs(x))
    np.testing.assert_array_equal(vmap(lambda x: x.at[x < 0].multiply(3.0))(x), np.where(x < 0, 3 * x, x))
    rows = lambda x: fnp.at(x)[x[:, 0] > 0].set(np.array([7.0, 8.0]))  # noqa: E731
    np.testing.assert_array_equal(evaluate(rows, x), [[7.0, 8.0], [-3.0, 4.0]])


# errors


@pytest.mark.parametrize(
    ("key", "remedy"),
    [
        (3, r"from -3 to 2"),
        ([0, -4], r"from -3 to 2"),
        ((0, 0, 0), "remove indices"),
        ((..., ...), "remove the others"),
        (np.array([0.5]), r"astype\(int\)"),
        (1.0, "convert the index"),
        ("a", "convert the index"),
        (slice(None, None, 0), "other than 0"),
        (slice(0.5), r"int\(\)"),
        (np.ones(2, bool), "mask from the array itself"),
        (([0, 1], [0, 1, 0]), r"numpy\.ix_"),
    ],
    ids=str,
)
def test_indices_that_do_not_fit(key, remedy):
    x = np.ones((3, 2))
    for wrong in (lambda x: x[key], lambda x: x.at[key].set(0.0), lambda x: x.at[key].get()):
        with pytest.raises(errors.IndexingError, match=remedy) as caught:
            jvp(wrong, (x,), (x,))
        assert isinstance(caught.value, IndexError)
        assert "test_indexing.py" in str(caught.value)


def test_an_abstract_mask_cannot_select():
    x = np.ones((2, 3))
    with pytest.raises(errors.IndexingError, match=r"functrace\.numpy\.where\(mask, x, 0\)"):
        vmap(lambda x: x[x > 0])(x)
    with pytest.raises(errors.IndexingError, match=r"functrace\.numpy\.where"):
        make_jaxpr(lambda x: fnp.at(x)[x > 0].set(np.ones((4, 3))))(x)
    with pytest.raises(errors.IndexingError, match=r"functrace\.numpy\.where"):
        vmap(lambda x: np.nonzero(x))(x)
    with pytest.raises(errors.IndexingError, match="make the bounds static"):
        make_jaxpr(lambda x, i: x[:i])(np.ones(3), 2)


def test_a_plain_array_indexed_by_an_abstract_integer():
    table = np.arange(3.0)
    with pytest.raises(errors.ConversionError, match=r"functrace\.numpy\.take\(x, i\)"):
        vmap(lambda i: table[i])(np.arange(3))


def test_scalars_have_no_length():
    for wrong in (len, list):
        with pytest.raises(TypeError, match="atleast_1d"):
            jvp(wrong, (1.0,), (1.0,))


@pytest.mark.parametrize("values", [np.array([1.5, 2.5]), 1.5, 1j])
def test_a_fraction_cannot_go_into_integers(values):
    for x in (np.arange(2), fnp.at(np.arange(2))):
        with pytest.raises(errors.DTypeError, match="to begin with"):
            make_jaxpr(lambda v, x=x: fnp.at(np.arange(2))[:].set(v))(values)
    with pytest.raises(errors.DTypeError, match="to begin with"):
        fnp.at(np.arange(2))[:].set(values)
    with pytest.raises(errors.DTypeError, match=r"astype\(float\)"):
        make_jaxpr(lambda v: fnp.at(np.arange(2))[0].divide(v))(2)


def test_updates_keep_the_dtype():
    x = np.ones(3, np.float32)
    for name in (*AT_UFUNCS, "set", "power"):
        for key in (0, np.array([0, 0])):
            out = jvp(lambda x, name=name, key=key: getattr(x.at[key], name)(2.0), (x,), (x,))
            assert out[0].dtype == out[1].dtype == np.float32


# functions


A = numbers(3, 4)
CALLS: list[tuple[Any, tuple[Any, ...]]] = [
    (np.take, (A, [1, 0, -1])),
    (np.take, (A, 5)),
    (np.take, (A, [[1, 2], [0, 0]], 1)),
    (np.take, (A, [2, 1], -2)),
    (functools.partial(np.take, mode="wrap"), (A, [7, -9], 1)),
    (functools.partial(np.take, mode="clip"), (A, [7, -9], 0)),
    (np.take_along_axis, (A, np.argsort(A, axis=1), 1)),
    (np.take_along_axis, (A, np.argmax(A, axis=0, keepdims=True), 0)),
    (np.take_along_axis, (A, np.array([3, 3, 0]), None)),
    (np.compress, ([True, False, True], A, 0)),
    (np.compress, ([False, True], A)),
    (np.extract, (A > 2, A)),
    (np.choose, (np.array([0, 2, 1, 0]), [A[0], A[1], A[2]])),
    (np.choose, (np.array([[0], [1]]), [A[0], 2.0])),
    (functools.partial(np.choose, mode="wrap"), (np.array([5, -1, 1, 0]), [A[0], A[1], A[2]])),
    (np.lib.stride_tricks.sliding_window_view, (A, (2, 3))),
    (np.lib.stride_tricks.sliding_window_view, (A[0], 2)),
    (functools.partial(np.lib.stride_tricks.sliding_window_view, axis=1), (A, 2)),
    (functools.partial(np.lib.stride_tricks.sliding_window_view, axis=(0, 0)), (A, (2, 2))),
]


def differentiable_positions(args: tuple[Any, ...]) -> list[int]:
    return [i for i, a in enumerate(args) if isinstance(a, np.ndarray) and a.dtype.kind == "f"]


@pytest.mark.parametrize(("function", "args"), CALLS, ids=lambda x: "" if isinstance(x, tuple) else str(x)[:60])
def test_functions_are_numpys(function, args):
    expected = function(*args)
    positions = differentiable_positions(args)

    def f(*values: Any) -> Any:
        full = list(args)
        for position, value in zip(positions, values, strict=True):
            full[position] = value
        return function(*full)

    values = [args[i] for i in positions]
    if not values:  # choose: differentiate its first choice
        choices = args[1]
        values = [choices[0]]
        f = lambda x: function(args[0], [x, *choices[1:]])  # noqa: E731
    np.testing.assert_array_equal(evaluate(f, *values), expected, strict=True)
    np.testing.assert_array_equal(jvp(f, values, values)[0], expected, strict=np.ndim(expected) > 0)
    batched = vmap(f)(*[np.stack([v, v]) for v in values]) if function is not np.extract else np.stack([expected] * 2)
    np.testing.assert_array_equal(batched, np.stack([expected, expected]))
    check_grads(f, tuple(values), order=2)


def test_integer_functions():
    x = np.array([0.5, 2.5, 1.0, 9.0])
    edges = np.array([0.0, 1.0, 2.0])
    cases = [
        lambda x: np.searchsorted(edges, x),
        lambda x: np.searchsorted(edges, x, "right"),
        lambda x: np.searchsorted(edges[::-1], x, sorter=[2, 1, 0]),
        lambda x: np.digitize(x, edges),
        lambda x: np.digitize(x, edges, right=True),
        lambda x: np.digitize(x, edges[::-1]),
    ]
    for f in cases:
        for run in (lambda x, f=f: jvp(f, (x,), (x,))[0], lambda x, f=f: evaluate(f, x)):
            np.testing.assert_array_equal(run(x), f(x), strict=True)
        batch = np.stack([x, x[::-1]])
        np.testing.assert_array_equal(vmap(f)(batch), np.stack([f(b) for b in batch]))
    both = vmap(np.searchsorted)(np.stack([edges, edges + 1]), np.stack([x, x]))
    np.testing.assert_array_equal(both, [np.searchsorted(edges, x), np.searchsorted(edges + 1, x)])
    nested = vmap(vmap(np.searchsorted, (0, None)), (None, 0))(np.stack([edges, edges + 1]), np.stack([x, 2 * x]))
    np.testing.assert_array_equal(nested[1, 1], np.searchsorted(edges + 1, 2 * x))
    assert np.array_equal(grad(lambda x: (x[np.nonzero(x > 1)] ** 2).sum())(x), np.where(x > 1, 2 * x, 0))
    assert np.array_equal(grad(lambda x: x[np.ix_([0, 2])].sum() + x[np.flatnonzero(x > 5)].sum())(x), [1, 0, 1, 1])
    assert jvp(lambda x: np.argwhere(x > 1), (x,), (x,))[0].tolist() == [[1], [3]]


def test_index_arithmetic():
    flat = np.array([[5, 0], [11, 7]])
    got_all = evaluate_all(lambda i: np.unravel_index(i, (3, 4)), flat)
    for got, expected in zip(got_all, np.unravel_index(flat, (3, 4)), strict=True):
        np.testing.assert_array_equal(got, expected)
    indices = (np.array([0, 2]), np.array([3, 1]))
    np.testing.assert_array_equal(
        evaluate(lambda i, j: np.ravel_multi_index((i, j), (3, 4)), *indices), np.ravel_multi_index(indices, (3, 4))
    )


def evaluate_all(fun: Any, *args: Any) -> list[Any]:
    closed = make_jaxpr(fun)(*args)
    return eval_jaxpr(closed.jaxpr, closed.consts, *args)


def test_outside_a_trace_at_is_numpy():
    x = np.arange(4.0)
    assert fnp.at(x)[1].set(9.0).tolist() == [0.0, 9.0, 2.0, 3.0]
    assert fnp.at(x)[[1, 1]].power(2).tolist() == [0.0, 1.0, 2.0, 3.0]
    assert fnp.at(x)[1:].get().tolist() == [1.0, 2.0, 3.0]
    assert fnp.at(x)[0].apply(np.cos)[0] == 1.0
    assert x.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert type(fnp.at(2.0)[()].add(1.0)) is np.float64
    assert "at(" in repr(fnp.at(x)[0])
