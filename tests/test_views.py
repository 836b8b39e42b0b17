"""Views of traced arrays: what NumPy writes through is written through, or refused; what it copies is independent."""

import numpy as np
import pytest

import functrace
import functrace.numpy as fnp
from functrace.errors import AssignmentError
from tests.same_as_numpy import check_linear, check_values, sample

WRITABLE = {
    "transpose": lambda b: b.T,
    "reshape-split": lambda b: b.reshape(2, 2, 3),
    "reshape-ones": lambda b: b.reshape(4, 1, 3),
    "swapaxes": lambda b: b.swapaxes(0, 1),
    "moveaxis": lambda b: np.moveaxis(b, 0, 1),
    "rollaxis": lambda b: np.rollaxis(b, 1),
    "expand_dims": lambda b: np.expand_dims(b, 1),
    "squeeze": lambda b: np.squeeze(b[:1]),
    "split": lambda b: np.split(b, 2)[1],
    "hsplit": lambda b: np.hsplit(b, [1])[1],
    "flip": lambda b: np.flip(b),
    "flip-axis": lambda b: np.flip(b, 1),
    "rot90": lambda b: np.rot90(b),
    "rot270": lambda b: np.rot90(b, 3),
    "atleast_3d": lambda b: np.atleast_3d(b),
    "unstack": lambda b: np.unstack(b, axis=1)[2],
    "chain": lambda b: np.flip(b.T, 0).reshape(1, 3, 4)[0],
}


def _buffer(x, shape=(4, 3)):
    """A buffer to write to: a traced one inside a trace, a plain one outside."""
    buffer = (np.empty if isinstance(x, np.ndarray) else fnp.empty)(shape)
    buffer[...] = 2 * x
    return buffer


@pytest.mark.parametrize("view", list(WRITABLE.values()), ids=list(WRITABLE))
def test_writes_go_through_views(view):
    def to_view(x):
        buffer = _buffer(x)
        piece = view(buffer)
        piece[0] = x[0, 0]
        piece *= 3.0
        return buffer, piece

    def to_base(x):
        buffer = _buffer(x)
        piece = view(buffer)
        buffer[1] = 7.0 * x[0]
        buffer[:, 0] += 1.0
        return buffer, piece

    for fun in (to_view, to_base):
        check_values(fun, sample((4, 3)))
        check_linear(fun, sample((4, 3)))


READ_ONLY = {
    "broadcast_to": lambda b: np.broadcast_to(b, (2, 4, 3)),
    "broadcast_to-same": lambda b: np.broadcast_to(b, (4, 3)),
    "diagonal": lambda b: np.diagonal(b),
}


@pytest.mark.parametrize("view", list(READ_ONLY.values()), ids=list(READ_ONLY))
def test_read_only_views(view):
    def to_base(x):
        buffer = _buffer(x)
        piece = view(buffer)
        buffer[0] = x[1]
        return piece

    def to_view(x):
        view(_buffer(x))[0] = 1.0

    check_values(to_base, sample((4, 3)))
    with pytest.raises(AssignmentError, match="copy"):
        functrace.make_jaxpr(to_view)(sample((4, 3)))


def test_complex_parts_are_views():
    def fun(z):
        buffer = (np.zeros if isinstance(z, np.ndarray) else fnp.zeros)(3, complex)
        buffer[...] = z
        buffer.real[0] = 5.0
        imaginary = np.imag(buffer)
        imaginary *= 2.0
        return buffer, imaginary

    check_values(fun, sample((3,), complex))


@pytest.mark.parametrize("join_axes", [lambda b: b.ravel(), lambda b: b.reshape(-1), lambda b: b.T.reshape(6, 2)])
def test_views_that_depend_on_memory_layout_are_refused(join_axes):
    def to_base(x):
        buffer = _buffer(x)
        piece = join_axes(buffer)
        buffer[0] = 1.0
        return piece

    with pytest.raises(AssignmentError, match="copy"):
        functrace.make_jaxpr(to_base)(sample((4, 3)))


def test_results_that_numpy_copies_are_independent():
    def fun(x):
        buffer = _buffer(x)
        copies = [
            buffer.flatten(), buffer.copy(), np.concatenate([buffer]), np.tile(buffer, 1), np.roll(buffer, 0, 0),
            np.pad(buffer, 0), np.delete(buffer, [], 0), np.repeat(buffer, 1, 0), np.tril(buffer, 9),
            np.block(buffer), np.reshape(buffer, (4, 3), copy=True), np.array(buffer) if isinstance(x, np.ndarray) else
            fnp.array(buffer), np.vstack([buffer]), np.insert(buffer, [], 1.0, 0), np.resize(buffer, (4, 3)),
        ]  # fmt: skip
        for c in copies:
            c[0] = -1.0
        buffer[1] = x[2]
        return buffer, copies

    check_values(fun, sample((4, 3)))


def test_results_that_may_be_views_can_be_assigned_to_when_their_array_is_gone():
    def fun(x):
        flat = (2 * x).ravel()
        flat[0] = x[1, 1]
        rows = (x + 1).reshape(-1)
        rows *= 3.0
        return flat, rows

    check_values(fun, sample((4, 3)))

    def siblings(x):
        buffer = 2 * x
        first, second = buffer.ravel(), buffer.reshape(-1)
        del buffer
        first[0] = 1.0
        return second

    def alive(x):
        flat = x.ravel()
        flat[0] = 1.0

    for refused in (siblings, alive):
        with pytest.raises(AssignmentError, match="copy"):
            functrace.make_jaxpr(refused)(sample((4, 3)))


@pytest.mark.parametrize("copied", [lambda x: x.copy(), np.copy, fnp.array, lambda x: x.astype(float)])
def test_a_copy_of_an_outer_array_takes_inner_values(copied):
    def outer(x):
        def inner(y):
            buffer = copied(x)
            buffer[0] = y * x[1]
            return buffer @ buffer

        return functrace.grad(inner)(x[1]) + functrace.vmap(inner)(np.ones(2))[1]

    # grad gives 2 x1**3; each row of vmap gives 2 x1**2
    x = np.array([5.0, 3.0])
    value, slope = functrace.value_and_grad(outer)(x)
    assert value == 2 * 27.0 + 2 * 9.0
    np.testing.assert_array_equal(slope, [0.0, 6 * 9.0 + 4 * 3.0])


@pytest.mark.parametrize("to_layout", [fnp.ascontiguousarray, fnp.asfortranarray, lambda x: fnp.asarray(x, order="F")])
@pytest.mark.parametrize("view", [lambda x: x[::-1], lambda x: x.T])
def test_an_array_that_may_be_a_copy_is_not_written_through(to_layout, view):
    def f(x):
        x = x * 1.0
        y = to_layout(view(x))
        y[0] = 5.0
        return x.sum()

    with pytest.raises(AssignmentError, match="assign to a copy"):
        functrace.grad(f)(np.ones((2, 2)))


@pytest.mark.parametrize("to_layout", [fnp.ascontiguousarray, fnp.asfortranarray])
def test_layouts_keep_values_and_vectors_keep_their_memory(to_layout):
    def f(x):
        x = x * 1.0
        y = to_layout(x)
        y[0] = 5.0
        return x @ x

    np.testing.assert_array_equal(functrace.grad(f)(np.array([1.0, 2.0])), [0.0, 4.0])
    np.testing.assert_array_equal(functrace.grad(lambda x: to_layout(x.T)[0] @ x[0])(np.eye(2)), [[2.0, 0.0], [0, 0]])


def test_the_pieces_of_an_unstacked_vector_are_scalars():
    def f(x):
        x = x * 1.0
        first = np.unstack(x)[0]
        x += 1.0
        return first * x[1]

    value, slope = functrace.value_and_grad(f)(np.array([0.5, 2.0]))
    assert value == 1.5
    np.testing.assert_array_equal(slope, [3.0, 0.5])


def test_a_converted_array_is_a_copy():
    def f(x):
        y = fnp.asarray(x, dtype=np.float32)
        y[0] = 0.0
        return x.sum() + y.sum().astype(float)

    np.testing.assert_array_equal(functrace.grad(f)(np.ones(2)), [1.0, 2.0])


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("real", "assign to all of it"), ("imag", "assign to all"), ("shape", "x.reshape"), ("dtype", "x.astype")],
)
@pytest.mark.parametrize("transform", [functrace.vjp, functrace.make_jaxpr, functrace.vmap])
def test_attributes_are_not_assigned_to(name, remedy, transform):
    def f(x):
        setattr(x, name, 0.0)

    with pytest.raises(AssignmentError, match=remedy):
        functrace.vjp(f, np.ones(2) + 0j) if transform is functrace.vjp else transform(f)(np.ones((2, 2)) + 0j)
