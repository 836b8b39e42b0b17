"""Assignment to traced arrays means what it means in NumPy, or raises; it never drops a derivative."""

import gc
import operator
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import functrace
import functrace.numpy as fnp
from functrace import errors, grad, jacfwd, jacrev, jvp, linearize, make_jaxpr, vjp, vmap
from functrace.core.ir import eval_jaxpr
from functrace.core.trace import Tracer
from functrace.numpy._assignment import mark_view
from functrace.testing import check_grads


def evaluate(fun: Any, *args: Any) -> Any:
    closed = make_jaxpr(fun)(*args)
    return eval_jaxpr(closed.jaxpr, closed.consts, *args)[0]


def everywhere(fun: Callable[..., Any], *args: Any) -> None:
    """`fun`, written with plain NumPy, gives the same value traced in each way, and its derivative is right."""
    plain = [np.array(a) if np.ndim(a) else a for a in args]
    expected = np.array(fun(*plain))
    args = tuple(np.asarray(a, float) for a in args)
    np.testing.assert_allclose(evaluate(fun, *args), expected, rtol=1e-12)
    np.testing.assert_allclose(jvp(fun, args, args)[0], expected, rtol=1e-12)
    np.testing.assert_allclose(linearize(fun, *args)[0], expected, rtol=1e-12)
    np.testing.assert_allclose(vmap(fun)(*[np.stack([a, a]) for a in args])[1], expected, rtol=1e-12)
    check_grads(fun, args, order=2)
    np.testing.assert_allclose(jacfwd(jacrev(fun))(*args), jacrev(jacfwd(fun))(*args), rtol=1e-8, atol=1e-10)


# programs that assign, in NumPy and traced


def fill_loop(x: Any) -> Any:
    out = fnp.zeros(5)
    for i in range(5):
        out[i] = x[i % 3] ** 2 + (out[i - 1] if i else 0.0)
    return out


def stencil(x: Any) -> Any:
    u = fnp.zeros((4, 3))
    u[0] = x
    for t in range(3):
        u[t + 1, 1:-1] = u[t, 1:-1] + 0.1 * (u[t, 2:] - 2 * u[t, 1:-1] + u[t, :-2]) * u[t, 1:-1]
        u[t + 1, 0] = u[t, 0]
        u[t + 1, -1] = x[2] * u[t, 2]
    return u[-1] * 1.0


def augmented(x: Any) -> Any:
    y = x * 1.0
    y += 2.0
    y -= x / 3
    y *= y
    y /= x + 4
    y **= 2
    y[1:] += y[:-1]
    y[::2] *= 3.0
    y[[0, 0]] += x[1]
    y[-1] -= 1.0
    return y


def rows(x: Any) -> Any:
    a = fnp.zeros((3, 3))
    for i, row in enumerate(a):
        row += x * i
        row[0] = x[i]
    first = a[:, 0]
    a[0, 0] = 7.0 * x[0]
    return first * a[1]


def views_of_views(x: Any) -> Any:
    a = fnp.zeros((4, 3)) + x
    b = a[1:]
    c = b[::2, 1:]
    c *= x[0]
    a[1, 2] = x[1] ** 2
    b[2] += c[0, 0]
    return (a * a[0])[1:] + c.shape[0] * b


def transposed_views(x: Any) -> Any:
    a = fnp.zeros((2, 3)) + x
    a.T[1] = x[2]
    split = a.reshape(2, 3, 1)
    split[1, :2] += x[0]
    row = np.squeeze(a[:1])
    row[::-1][1:] *= x[1]
    return a * split[..., 0] * np.moveaxis(a, 0, 1).T


def elimination(x: Any) -> Any:
    a = fnp.array([[4.0, 1.0, 0.5], [1.0, 3.0, 0.2], [0.5, 0.2, 2.0]])
    a[1, 1] += x[0]
    b = x * 1.0
    for k in range(3):
        for i in range(k + 1, 3):
            factor = a[i, k] / a[k, k]
            a[i, k:] -= factor * a[k, k:]
            b[i] -= factor * b[k]
    for k in range(2, -1, -1):
        for j in range(k + 1, 3):
            b[k] -= a[k, j] * b[j]
        b[k] /= a[k, k]
    return b


def swap(x: Any) -> Any:
    y = x * x
    y[0], y[1] = y[1], y[0]
    y[[1, 2]] = y[[2, 1]]
    return y * x


def masks(x: Any) -> Any:
    y = x * 2.0
    y[y > 2.5] = 0.5
    y[fnp.array([True, False, True])] *= x[1]
    return y


def whole(x: Any) -> Any:
    y = x + 1.0
    z = y
    z[...] = x**2
    w = y.copy()
    w[:] = 3.0
    w[None, 1:] = x[0]
    return y + w * x


PROGRAMS = [fill_loop, stencil, augmented, rows, views_of_views, transposed_views, elimination, swap, masks, whole]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_programs(program):
    everywhere(program, np.array([1.2, 0.7, 1.9]))


def test_a_scalar_is_rebound_not_changed():
    def f(x: Any) -> Any:
        s = x[0]
        t = s
        s += x[1]
        s *= 2.0
        return s * t

    everywhere(f, np.array([2.0, 3.0]))
    assert grad(lambda s: sum_loop(s))(2.0) == 12.0


def sum_loop(s: Any) -> Any:
    total = 0.0
    for k in range(3):
        total += s * s * (k == 1) + s * k * 2 + s * s * (k == 0) * 0.5 if k else s * s * 0.5
    return total


def test_matrix_multiplication_in_place():
    def f(x: Any) -> Any:
        a = fnp.array([[1.0, 2.0], [3.0, 4.0]]) * x[0]
        a @= a
        return a

    everywhere(f, np.array([2.0]))


@pytest.mark.parametrize("name", ["floordiv", "mod", "and_", "or_", "xor", "lshift", "rshift", "add", "mul"])
def test_operators_on_integers(name):
    x, y = np.array([[5, 9], [2, 7]]), np.array([3, 1])
    in_place = getattr(operator, f"i{name.rstrip('_')}")

    def f(x: Any, y: Any) -> Any:
        same = x
        x = in_place(x, y)
        assert x is same
        return x

    np.testing.assert_array_equal(evaluate(f, x, y), in_place(x.copy(), y), strict=True)


# random programs of views and assignments against NumPy

_KEYS = [slice(None), slice(1, None), slice(None, None, -1), (slice(None), 0), 1, (0, 1), (Ellipsis, slice(0, 2)), None]


@st.composite
def steps(draw: Any) -> list[tuple[str, int, int, int]]:
    step = st.tuples(
        st.sampled_from(["view", "view", "copy", "gather", "transpose", "reshape", "set", "set", "add", "mul", "drop"]),
        st.integers(0, 7),
        st.integers(0, len(_KEYS) - 1),
        st.integers(0, 7),
    )
    return draw(st.lists(step, min_size=3, max_size=12))


def run(program: list[tuple[str, int, int, int]], x: Any) -> Any:
    """Interpret steps on a list of arrays that alias each other."""
    arrays = [x * 1.0]
    for name, which, key_number, other in program:
        a, key = arrays[which % len(arrays)], _KEYS[key_number]
        try:
            if name == "view":
                new = a[key]
            elif name == "copy":
                new = a.copy()
            elif name == "gather":
                new = a[[0, 0]]
            elif name == "transpose":
                new = a.T
            elif name == "reshape":
                new = a.reshape(-1)
            elif name == "drop" and len(arrays) > 1:
                del arrays[which % len(arrays)]
                continue
            else:
                new = None
                value = arrays[other % len(arrays)]
                value = value[(0,) * value.ndim] if value.size else 2.0
                part = a[key] if name != "set" else None
                if name == "set":
                    a[key] = value * 1.5
                elif name == "add":
                    a[key] += value
                elif part.ndim:
                    part *= 0.5
        except IndexError:
            continue
        if new is not None and new.ndim:
            arrays.append(new)
    out = arrays[0].reshape(-1) * 1.0
    total = out[0] * 0.0 if out.size else 0.0
    for k, a in enumerate(arrays):
        flat = a.reshape(-1)
        for i in range(flat.size):
            total = total + flat[i] * (k + 1) * (i + 0.5)
    return total


@given(steps())
def test_random_aliasing_is_numpys(program):
    x = np.arange(1.0, 7.0).reshape(2, 3)
    try:
        expected = run(program, x)
    except (ValueError, TypeError):
        return
    try:
        value = jvp(lambda x: run(program, x), (x,), (x,))[0]
    except errors.AssignmentError:
        return
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(evaluate(lambda x: run(program, x), x), expected, rtol=1e-12)
    slope = jvp(lambda x: run(program, x), (x,), (np.cos(x),))[1]
    gradient = grad(lambda x: run(program, x))(x)
    assert np.isclose(np.sum(gradient * np.cos(x)), slope, rtol=1e-10)
    step = 1e-4 * np.cos(x)
    assert np.isclose((run(program, x + step) - run(program, x - step)) / 2e-4, slope, rtol=1e-6, atol=1e-6)


# what numpy copies is not shared, what it shares is

_FRESH = {
    "copy": lambda x: x.copy(),
    "array": lambda x: fnp.array(x),
    "np.copy": np.copy,
    "astype": lambda x: x.astype(float),
    "positive": lambda x: +x,
    "gather": lambda x: x[[0, 1]],
    "mask": lambda x: x[np.array([True, True])],
    "concatenate": lambda x: np.concatenate([x]),
    "stack": lambda x: np.stack([x])[0].copy(),
    "where": lambda x: np.where(True, x, x),
    "take": lambda x: np.take(x, [0, 1], axis=0),
    "roll": lambda x: np.roll(x, 0),
    "tile": lambda x: np.tile(x, 1),
    "repeat": lambda x: np.repeat(x, 1, axis=0),
    "pad": lambda x: np.pad(x, 0),
    "hstack": lambda x: np.hstack([x]),
    "append": lambda x: np.append(x, np.zeros((0, 2)), axis=0),
    "flatten": lambda x: x.flatten(),
    "sum of nothing": lambda x: np.sum(x, axis=()),
    "cumsum": lambda x: np.cumsum(x[:1], axis=0),
    "triu": lambda x: np.triu(x, -5),
    "sort": lambda x: np.sort(x[:1], axis=0),
    "at.get": lambda x: x.at[:].get(),
    "at.set": lambda x: x.at[:].set(x),
    "at.set by itself": lambda x: x.at[()].set(x),
}
_SHARED = {
    "name": lambda x: x,
    "asarray": lambda x: fnp.asarray(x),
    "slice": lambda x: x[:],
    "ellipsis": lambda x: x[...],
    "row": lambda x: x[0],
    "new axis": lambda x: x[None],
    "reversed": lambda x: x[::-1],
    "T": lambda x: x.T,
    "reshape": lambda x: x.reshape(-1),
    "reshape same": lambda x: x.reshape(2, 2),
    "ravel": lambda x: x.ravel(),
    "squeeze": np.squeeze,
    "expand_dims": lambda x: np.expand_dims(x, 0),
    "moveaxis": lambda x: np.moveaxis(x, 0, 1),
    "swapaxes": lambda x: x.swapaxes(0, 1),
    "split": lambda x: np.split(x, 2)[1],
    "diagonal": lambda x: np.einsum("ii->i", x),
    "flip": np.flip,
    "atleast_3d": np.atleast_3d,
    "real": lambda x: x.real,
}


def written(function: Callable[[Any], Any], forward: bool) -> Callable[[Any], Any]:
    """Assign to the result of a function and look at its argument, or the other way round."""

    def f(x: Any) -> Any:
        x = x * 1.0
        y = function(x)
        if forward:
            y[...] = 7.0
            return x * 1.0
        x[...] = 7.0
        return y * 1.0

    return f


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("name", _FRESH)
def test_copies_are_not_shared(name, forward):
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    f = written(_FRESH[name], forward)
    expected = f(FakeAt(x)) if name.startswith("at.") else f(x)
    try:
        actual = jvp(f, (x,), (x,))[0]
    except errors.UnsupportedFunctionError:
        pytest.skip("not traced")
    np.testing.assert_array_equal(actual, expected)
    assert not np.array_equal(actual, np.full(actual.shape, 7.0))


class FakeAt(np.ndarray):
    """An array with `at`."""

    def __new__(cls, x: np.ndarray) -> "FakeAt":
        return x.view(cls)

    at = property(lambda self: fnp.at(np.asarray(self)))


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("name", _SHARED)
def test_views_are_shared_or_refused(name, forward):
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    f = written(_SHARED[name], forward)
    try:
        actual = jvp(f, (x,), (x,))[0]
    except (errors.AssignmentError, errors.UnsupportedFunctionError) as refusal:
        assert "remedy" in str(refusal)
        return
    np.testing.assert_array_equal(actual, f(x))


def test_a_view_that_cannot_be_written_through_is_refused():
    base: list[Any] = []

    def opaque(x: Any) -> Any:
        view = x * 1.0
        mark_view(x, view)
        base.append(view)
        return view

    def write_view(x: Any) -> Any:
        opaque(x)[0] = 1.0

    def write_base(x: Any) -> Any:
        view = opaque(x)
        x[0] = 1.0
        return view

    with pytest.raises(errors.AssignmentError, match="assign to a copy"):
        jvp(write_view, (np.ones(2),), (np.ones(2),))
    with pytest.raises(errors.AssignmentError, match="take a copy instead of the view"):
        jvp(write_base, (np.ones(2),), (np.ones(2),))
    base.clear()

    def write_after(x: Any) -> Any:
        view = opaque(x)
        base.clear()
        total = view[0] * 1.0
        del view
        x[0] = 5.0
        return x * total

    np.testing.assert_array_equal(jvp(write_after, (np.ones(2),), (np.ones(2),))[0], [5.0, 1.0])


def test_links_do_not_pile_up():
    def f(x: Any) -> Any:
        for _ in range(200):
            x[0]
        assert len(x.views.views) < 20
        return x

    jvp(f, (np.ones((2, 2)),), (np.ones((2, 2)),))
    alive: list[weakref.ref[Tracer]] = []

    def g(x: Any) -> Any:
        alive.extend([weakref.ref(x), weakref.ref(x[0]), weakref.ref(x[1:][0])])
        return x * 1.0

    jvp(g, (np.ones((2, 2)),), (np.ones((2, 2)),))
    gc.collect()
    assert all(ref() is None for ref in alive)


# traces inside traces


def test_outer_values_go_into_inner_arrays():
    def outer(x: Any) -> Any:
        def inner(y: Any) -> Any:
            b = fnp.zeros(2)
            b[0] = x * y
            b[1] = x
            b += y
            return b[0] * b[1]

        return grad(inner)(x * 2.0) * x

    # inner'(y) = (x y + y)'(x + y) + (x y + y) = (x + 1)(x + 2 y), y = 2 x
    assert np.isclose(outer(3.0), 4.0 * 15.0 * 3.0)
    check_grads(outer, (3.0,), order=2)
    np.testing.assert_allclose(vmap(outer)(np.array([1.0, 3.0]))[1], 180.0)


@pytest.mark.parametrize("transform", ["grad", "jvp", "vmap", "make_jaxpr"])
def test_an_inner_value_cannot_leave_by_assignment(transform):
    def outer(x: Any) -> Any:
        buffer = x * 1.0

        def inner(y: Any) -> Any:
            buffer[0] = y
            return y * 2.0

        transforms = {
            "grad": lambda: grad(inner)(1.0),
            "jvp": lambda: jvp(inner, (1.0,), (1.0,)),
            "vmap": lambda: vmap(inner)(np.ones(2)),
            "make_jaxpr": lambda: make_jaxpr(inner)(1.0),
        }
        transforms[transform]()
        return buffer

    with pytest.raises(errors.AssignmentError, match="return the value"):
        jvp(outer, (np.ones(2),), (np.ones(2),))
    with pytest.raises(errors.AssignmentError, match="return the value"):
        make_jaxpr(outer)(np.ones(2))


def test_constants_go_out_only_where_the_function_runs_once():
    def outer(x: Any) -> Any:
        buffer = x * 1.0

        def inner(y: Any) -> Any:
            buffer[0] = 5.0
            return y * buffer[0]

        return buffer * grad(inner)(2.0)

    np.testing.assert_array_equal(jvp(outer, (np.ones(2),), (np.ones(2),)), [[25.0, 5.0], [0.0, 5.0]])

    def wrong(x: Any) -> Any:
        buffer = x * 1.0

        def inner(y: Any) -> Any:
            nonlocal buffer
            buffer += 1.0
            return y

        vmap(inner)(np.ones(3))
        return buffer

    with pytest.raises(errors.AssignmentError, match="assign it outside"):
        jvp(wrong, (np.ones(2),), (np.ones(2),))


def test_a_pullback_does_not_see_later_assignments():
    def outer(x: Any) -> Any:
        y = x * 2.0
        closed = x * 3.0
        _, pull = vjp(lambda y: (y * y * closed)[0], y)
        _, push = linearize(lambda y: y * y * closed, y)
        y[0] = 100.0
        closed[0] = 100.0
        return pull(1.0)[0] + push(fnp.array([1.0, 0.0]))

    # d/dy y^2 c = 2 y c = 12 x^2, twice
    x = np.array([1.0, 2.0])
    np.testing.assert_allclose(jvp(outer, (x,), (np.ones(2),))[1], [48.0, 0.0])
    np.testing.assert_allclose(evaluate(outer, x), [24.0, 0.0])


def test_results_of_inner_transformations_are_not_shared():
    def outer(x: Any) -> Any:
        t = x * 1.0
        _, t_dot = jvp(lambda y: y * 1.0, (x,), (t,))
        same = vmap(lambda y: y)(t)
        t_dot[0] = 9.0
        same[1] = 9.0
        return t * 1.0

    x = np.array([1.0, 2.0])
    np.testing.assert_array_equal(jvp(outer, (x,), (x,))[0], x)


def test_arguments_outside_stay_as_they_are():
    x = np.ones(3)

    def f(x: Any) -> Any:
        x[0] = 5.0
        x *= 2.0
        return (x * x)[0] + x[1]

    assert grad(f)(x).tolist() == [0.0, 2.0, 0.0]
    assert vmap(f)(np.stack([x, x])).tolist() == [102.0, 102.0]
    assert x.tolist() == [1.0, 1.0, 1.0]


def test_a_leaked_array_cannot_be_assigned_to():
    kept: list[Any] = []
    jvp(lambda x: kept.append(x) or x * 1.0, (np.ones(2),), (np.ones(2),))
    with pytest.raises(errors.LeakedTracerError, match="return the value"):
        kept[0][0] = 1.0


# plain arrays are never changed silently


@pytest.mark.parametrize("write", ["item", "slice", "iadd", "multiply", "put_along_axis", "fill_diagonal", "at"])
def test_plain_buffers_refuse_traced_values(write):
    buffer = np.zeros((2, 2))

    def f(x: Any) -> Any:
        nonlocal buffer
        if write == "item":
            buffer[0, 0] = x[0]
        elif write == "slice":
            buffer[0] = x
        elif write == "iadd":
            buffer += x
        elif write == "multiply":
            np.multiply(buffer, x, out=buffer)
        elif write == "put_along_axis":
            np.put_along_axis(buffer, np.array([[0], [1]]), x[0], 1)
        elif write == "fill_diagonal":
            np.fill_diagonal(buffer, x)
        else:
            np.add.at(buffer, 0, x)
        return x

    x = np.ones(2)
    for run_traced in (lambda: grad(f)(x), lambda: vmap(f)(np.stack([x, x])), lambda: make_jaxpr(f)(x)):
        with pytest.raises((errors.ConversionError, errors.AssignmentError), match=r"functrace\.numpy\.zeros"):
            run_traced()
    assert not buffer.any()


def test_out_of_a_ufunc_is_an_assignment():
    def f(x: Any) -> Any:
        y = fnp.zeros(3)
        np.multiply(x, x, out=y)
        np.add(y, 1.0, out=y, where=np.array([True, False, True]))
        np.add.at(y, [0, 0], x[1])
        return y

    x = np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(jvp(f, (x,), (np.ones(3),)), [[6.0, 4.0, 10.0], [4.0, 4.0, 6.0]])


# numpy's functions that write


@pytest.mark.parametrize(
    "write",
    [
        lambda a, v: np.put(a, [0, 5, -1], v[:2]),
        lambda a, v: np.put(a, [0, 9], v, mode="clip"),
        lambda a, v: np.place(a, np.array([[True, False, True], [False, True, False]]), v[:2]),
        lambda a, v: np.putmask(a, np.array([[True, False, True], [False, True, True]]), v[:2]),
        lambda a, v: np.putmask(a, np.array([[True, False, True], [False, True, True]]), 0.5),
        lambda a, v: np.put_along_axis(a, np.array([[1], [2]]), v[0], 1),
        lambda a, v: np.put_along_axis(a, np.array([[1, 0, 1]]), v[None], 0),
        lambda a, v: np.put_along_axis(a, np.array([5, 1]), v[:2], None),
        lambda a, v: np.fill_diagonal(a, v[:2]),
        lambda a, v: np.fill_diagonal(a.T, v[0], wrap=True),
        lambda a, v: np.copyto(a, v),
        lambda a, v: np.copyto(a, v, where=np.array([True, False, True])),
        lambda a, v: a.fill(2.0),
    ],
)
def test_functions_that_write(write):
    v = np.array([1.5, 2.5, 3.5])
    buffer = np.arange(6.0).reshape(2, 3)

    def f(v: Any) -> Any:
        a = fnp.array(buffer) + 0.0 * v
        write(a, v)
        return a * a

    everywhere(f, v)


# errors


def test_values_that_do_not_fit():
    x = np.ones(3)
    for wrong in (lambda x: operator.setitem(x, 0, x), lambda x: operator.setitem(x, slice(2), x)):
        with pytest.raises(errors.ShapeError, match="shape of the part"):
            jvp(wrong, (x,), (x,))
    with pytest.raises(errors.ShapeError, match=r"x = x \+ v"):
        jvp(lambda x: operator.iadd(x, np.ones((2, 3))), (x,), (x,))
    with pytest.raises(errors.DTypeError, match="to begin with"):
        jvp(lambda x: operator.iadd(x, 1j), (x,), (x,))
    with pytest.raises(errors.DTypeError, match="to begin with"):
        jvp(lambda x: operator.setitem(fnp.zeros(3, int), 0, x[0]), (x,), (x,))
    with pytest.raises(errors.IndexingError, match="from -3 to 2"):
        jvp(lambda x: operator.setitem(x, 3, 0.0), (x,), (x,))


def test_extra_leading_axes_of_length_one_are_dropped():
    def f(x: Any) -> Any:
        y = fnp.zeros(3)
        y[:] = x[None, None]
        return y

    x = np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(evaluate(f, x), x)


def test_values_are_cast_to_the_array():
    def f(x: Any) -> Any:
        y = fnp.zeros(3, np.float32)
        y[0] = x[0]
        y[1] = 2
        y += x
        z = fnp.zeros(2, complex)
        z[0] = x[1]
        return y, z

    out, (y_dot, z_dot) = jvp(f, (np.ones(3),), (np.ones(3),))
    assert [a.dtype for a in out] == [a.dtype for a in (y_dot, z_dot)] == [np.float32, np.complex128]
    assert y_dot.tolist() == [2.0, 1.0, 1.0] and z_dot.tolist() == [1.0, 0.0]


def test_threads_assign_independently():
    results: dict[int, Any] = {}

    def work(k: int) -> None:
        def f(x: Any) -> Any:
            y = fnp.zeros(50)
            for i in range(50):
                y[i] = x * i
                y[: i + 1] += k
            return y[-1] + y[0] * x

        results[k] = grad(f)(2.0)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {k: 49.0 + 50 * k for k in range(4)}


def test_jacobians_through_assignment():
    def f(x: Any) -> Any:
        y = fnp.zeros((2, 2))
        y[0] = x
        y[:, 1] *= x[0]
        y[1] = y[0] ** 2
        return y

    x = np.array([3.0, 2.0])
    expected = np.zeros((2, 2, 2))
    expected[0, 0] = [1, 0]
    expected[0, 1] = [2, 3]
    expected[1, 0] = [6, 0]
    expected[1, 1] = [24, 36]
    for jacobian in (jacfwd, jacrev):
        np.testing.assert_allclose(jacobian(f)(x), expected)
    assert functrace.hessian(lambda x: f(x)[1, 1])(x).tolist() == [[8.0, 24.0], [24.0, 18.0]]
