"""Random programs: compositions of NumPy functions, differentiated, batched and staged in every way, which must agree.

A program is a list of integers; each step picks an operation, its operands among the values so far, and a setting.
Every list is a valid program, so that Hypothesis shrinks a failure to a short one.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import functrace
from functrace import grad, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from functrace.core.ir import check_jaxpr
from functrace.testing import difference

NESTINGS = ("fwd-fwd", "fwd-rev", "rev-fwd", "rev-rev")


def axis_of(x, k):
    return k % x.ndim if x.ndim else None


def aligned(x, y):
    """Two values that broadcast: the second falls back to its sum."""
    try:
        np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        return x, np.sum(y)
    return x, y


def binary(f):
    def operation(x, y, k):
        return f(*aligned(x, y))

    return operation


def unary(f):
    return lambda x, y, k: f(x)


def along(f):
    """An operation along an axis; of a scalar, the sine."""
    return lambda x, y, k: f(x, axis_of(x, k)) if x.ndim and x.shape[axis_of(x, k)] else np.sin(x)


def matrices(f):
    """An operation on the value as a matrix."""

    def operation(x, y, k):
        if x.ndim == 0 or x.size == 0:
            return np.cos(x)
        return f(x.reshape(x.shape[0], -1), k)

    return operation


UNARY = [
    unary(np.sin), unary(np.cos), unary(np.tanh), unary(np.arctan), unary(np.negative),
    unary(lambda x: np.exp(np.sin(x))), unary(lambda x: np.log(1 + x * x)), unary(lambda x: np.sqrt(1 + x * x)),
    unary(lambda x: 1 / (2 + np.sin(x))), unary(lambda x: np.square(np.tanh(x))), unary(lambda x: np.expm1(np.tanh(x))),
    unary(lambda x: np.log1p(x * x)), unary(lambda x: np.tanh(x) ** 3), unary(lambda x: 2.5 ** np.tanh(x)),
    unary(lambda x: np.abs(np.sin(x))), unary(lambda x: np.arcsinh(x) - 0.5), unary(lambda x: np.sinc(np.tanh(x))),
    unary(lambda x: np.real(np.exp(1j * np.tanh(x)))), unary(lambda x: np.abs(np.tanh(x) + 2j)),
    unary(lambda x: np.clip(x, -0.6, 0.6)), unary(lambda x: np.cosh(np.sin(x)) * np.cbrt(2 + np.cos(x))),
]  # fmt: skip
BINARY = [
    binary(np.add), binary(np.subtract), binary(lambda x, y: np.tanh(x) * np.tanh(y)),
    binary(lambda x, y: x / (1.5 + y * y)), binary(np.maximum), binary(np.minimum),
    binary(lambda x, y: np.where(x > y, np.sin(x), y)), binary(lambda x, y: np.arctan2(x, 2 + y * y)),
    binary(np.logaddexp), binary(lambda x, y: (1 + np.tanh(x) ** 2) ** np.tanh(y)),
    binary(lambda x, y: np.hypot(x, 1 + y * y)),
    binary(lambda x, y: np.where(y > 0, np.sqrt(np.where(y > 0, y, 1)), np.cos(x))),
]  # fmt: skip
SHAPE = [
    lambda x, y, k: np.sum(x), lambda x, y, k: x.T, lambda x, y, k: x.reshape(-1),
    lambda x, y, k: np.expand_dims(x, k % (x.ndim + 1)), lambda x, y, k: np.squeeze(x),
    lambda x, y, k: np.broadcast_to(x, (2, *x.shape)) if x.ndim < 3 else x,
    lambda x, y, k: np.stack([x, np.sin(x)], axis=k % (x.ndim + 1)) if x.ndim < 3 else x,
    lambda x, y, k: np.concatenate([x.reshape(-1), y.reshape(-1)]),
    lambda x, y, k: x[..., None] * np.ones(2) if x.ndim < 3 else x,
    along(lambda x, a: np.sum(x, axis=a)), along(lambda x, a: np.mean(x, axis=a, keepdims=True)),
    along(lambda x, a: np.flip(x, a)), along(lambda x, a: np.roll(x, 1, a)), along(lambda x, a: np.max(x, axis=a)),
    along(lambda x, a: np.min(x, axis=a)), along(lambda x, a: np.cumsum(x, axis=a)),
    along(lambda x, a: np.prod(np.tanh(x), axis=a)), along(lambda x, a: np.take(x, [0, -1, 0], axis=a)),
    along(lambda x, a: np.moveaxis(x, a, 0)[0]), along(lambda x, a: np.moveaxis(x, a, -1)[..., ::-2]),
    along(lambda x, a: np.sort(x, axis=a)), along(lambda x, a: np.repeat(x, 2, axis=a) if x.size < 30 else x),
    along(lambda x, a: np.diff(x, axis=a)), along(lambda x, a: np.var(x, axis=a)),
    matrices(lambda m, k: np.tanh(m) @ np.tanh(m).T), matrices(lambda m, k: np.einsum("ij,kj->ik", m, np.sin(m))),
    matrices(lambda m, k: np.dot(m.T, np.cos(m[:, 0]))), matrices(lambda m, k: m[np.array([0, -1, 0])]),
    matrices(lambda m, k: np.pad(m, ((1, 0), (0, 1)))), matrices(lambda m, k: np.outer(m[0], np.sin(m[0]))),
    matrices(lambda m, k: np.linalg.solve(m @ m.T + 2 * np.eye(m.shape[0]), m)),
]  # fmt: skip
OPERATIONS = [*UNARY, *BINARY, *SHAPE]
LIMIT = 60


@dataclass(frozen=True)
class Program:
    shapes: tuple
    steps: tuple
    seed: int

    def __call__(self, *inputs):
        """A scalar."""
        values = list(inputs)
        for operation, i, j, k in self.steps:
            x, y = values[i % len(values)], values[j % len(values)]
            out = OPERATIONS[operation % len(OPERATIONS)](x, y, k)
            values.append(out if out.size <= LIMIT else np.sin(np.sum(out)))
        return sum(np.sum(np.sin(v)) for v in values[-3:])

    def inputs(self):
        rng = np.random.default_rng(self.seed)
        return [rng.uniform(-1.5, 1.5, shape)[()] for shape in self.shapes]

    def directions(self, offset=1):
        rng = np.random.default_rng(self.seed + offset)
        return [rng.uniform(-1, 1, shape)[()] for shape in self.shapes]


SHAPES = [(), (1,), (3,), (2,), (2, 3), (3, 1), (2, 2), (1, 3), (2, 1, 2), (0,), (0, 2)]


@st.composite
def programs(draw, max_steps=8, shapes=SHAPES):
    step = st.tuples(st.integers(0, len(OPERATIONS) - 1), st.integers(0, 9), st.integers(0, 9), st.integers(0, 5))
    return Program(
        tuple(draw(st.lists(st.sampled_from(shapes), min_size=1, max_size=3))),
        tuple(draw(st.lists(step, min_size=1, max_size=max_steps))),
        draw(st.integers(0, 10**6)),
    )


def dot(xs, ys):
    return sum(float(np.sum(x * y)) for x, y in zip(xs, ys, strict=True))


def close(got, expected, rtol=1e-9, atol=1e-9):
    scale = 1 + max((float(np.max(np.abs(e), initial=0)) for e in expected), default=0)
    for g, e in zip(got, expected, strict=True):
        assert np.shape(g) == np.shape(e)
        np.testing.assert_allclose(g, e, rtol=rtol, atol=atol * scale)


def smooth_difference(f, inputs, direction):
    """The derivative by differences, or None where two steps disagree: a kink is near."""
    coarse, fine = difference(f, inputs, direction, 2e-4), difference(f, inputs, direction, 5e-5)
    agree = all(np.allclose(c, d, rtol=1e-5, atol=1e-5) for c, d in zip(coarse, fine, strict=True))
    return coarse if agree else None


def gradient(program):
    return grad(program, argnums=tuple(range(len(program.shapes))))


def check_first_order(program):
    inputs, v = program.inputs(), program.directions()
    value, dot_value = jvp(program, tuple(inputs), tuple(v))
    assert np.isfinite(value)
    close([value], [program(*inputs)], 1e-12, 1e-12)
    bars = gradient(program)(*inputs)
    for x, bar in zip(inputs, bars, strict=True):
        assert bar.shape == x.shape
        assert bar.dtype == x.dtype
    close([dot(bars, v)], [dot_value])
    close([linearize(program, *inputs)[1](*v)], [dot_value])
    close(jacfwd(program, tuple(range(len(inputs))))(*inputs), bars)
    numeric = smooth_difference(lambda *xs: [program(*xs)], inputs, v)
    if numeric is not None:
        close([dot_value], numeric, 1e-5, 1e-6)


def check_second_order(program):
    inputs, u, v = program.inputs(), program.directions(1), program.directions(2)
    inputs, u, v = tuple(inputs), tuple(u), tuple(v)

    def forward(*xs):
        return jvp(program, xs, v)[1]

    reverse = gradient(program)
    along_u = {
        "fwd-fwd": jvp(forward, inputs, u)[1],
        "fwd-rev": dot(jvp(reverse, inputs, u)[1], v),
        "rev-fwd": dot(gradient_of(forward, inputs), u),
        "rev-rev": dot(vjp(reverse, *inputs)[1](v), u),
    }
    close(list(along_u.values()), [along_u["fwd-fwd"]] * 4, 1e-8, 1e-8)
    if sum(x.size for x in inputs) <= 6:
        argnums = tuple(range(len(inputs)))
        found = [hessian(program, argnums, mode=mode)(*inputs) for mode in NESTINGS]
        for other in found[1:]:
            for row, expected in zip(other, found[0], strict=True):
                close(row, expected, 1e-8, 1e-8)
    numeric = smooth_difference(lambda *xs: list(reverse(*xs)), inputs, u)
    if numeric is not None:
        close([along_u["fwd-fwd"]], [dot(numeric, v)], 1e-4, 1e-5)


def gradient_of(f, inputs):
    return grad(f, argnums=tuple(range(len(inputs))))(*inputs)


def check_batching(program):
    inputs = program.inputs()
    batch = [np.stack([x, 0.9 * x - 0.1, 0.5 * x + 0.3]) for x in inputs]
    rows = [[b[i] for b in batch] for i in range(3)]
    close([vmap(program)(*batch)], [np.stack([program(*row) for row in rows])])
    loop = [np.stack(parts) for parts in zip(*[gradient(program)(*row) for row in rows], strict=True)]
    close(vmap(gradient(program))(*batch), loop)
    in_axes = (0, *[None] * (len(inputs) - 1))
    got = vmap(program, in_axes)(batch[0], *inputs[1:])
    close([got], [np.stack([program(row[0], *inputs[1:]) for row in rows])])
    summed = grad(lambda *xs: np.sum(vmap(program, in_axes)(batch[0], *xs[1:])), tuple(range(len(inputs))))(*inputs)
    parts = [gradient(program)(row[0], *inputs[1:])[1:] for row in rows]
    close(summed[1:], [sum(column) for column in zip(*parts, strict=True)])
    first = jacrev(vmap(program, in_axes))(batch[0], *inputs[1:])[0][0]
    close([first], [gradient(program)(rows[0][0], *inputs[1:])[0]])


def check_staging(program):
    inputs = program.inputs()
    reverse = gradient(program)
    for f in (lambda *xs: [program(*xs)], reverse, lambda *xs: vmap(reverse, axis_size=2, in_axes=None)(*xs)):
        closed = functrace.make_jaxpr(f)(*inputs)
        check_jaxpr(closed.jaxpr)
        close(functrace.eval_jaxpr(closed.jaxpr, closed.consts, *inputs), f(*inputs))

    closed = functrace.make_jaxpr(program)(*inputs)

    def staged(*xs):
        return functrace.eval_jaxpr(closed.jaxpr, closed.consts, *xs)[0]

    close(gradient_of(staged, inputs), reverse(*inputs))
    v = tuple(program.directions())
    close([jvp(staged, tuple(inputs), v)[1]], [jvp(program, tuple(inputs), v)[1]])


def check_single_precision(program):
    inputs = program.inputs()
    narrow = [x.astype(np.float32) for x in inputs]
    bars = gradient(program)(*narrow)
    assert all(bar.dtype == np.float32 for bar in bars)
    exact, rounded = gradient(program)(*inputs), gradient(program)(*[x.astype(float)[()] for x in narrow])
    if all(np.allclose(a, b, rtol=1e-3, atol=1e-3) for a, b in zip(exact, rounded, strict=True)):  # no kink near
        close(bars, rounded, 2e-2, 2e-2)


CHECKS = [check_first_order, check_second_order, check_batching, check_staging, check_single_precision]


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__[6:])
@settings(max_examples=200)
@given(program=programs())
def test_random_programs(check, program):
    with np.errstate(all="ignore"):
        check(program)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__[6:])
@settings(max_examples=1000)
@given(program=programs(max_steps=30))
def test_long_random_programs(check, program):
    with np.errstate(all="ignore"):
        check(program)


@pytest.mark.parametrize("operation", range(len(OPERATIONS)))
def test_every_operation_by_itself(operation):
    """Each operation in each shape, so that nothing depends on what is drawn."""
    for seed, shape in enumerate(SHAPES):
        program = Program((shape, shape), ((operation, 0, 1, seed),), seed)
        with np.errstate(all="ignore"):
            check_second_order(program)
            check_batching(program)


@given(
    dtypes=st.lists(st.sampled_from(["f4", "f8", "i4", "i8", "u1", "?", "c8", "c16"]), min_size=2, max_size=2),
    operation=st.sampled_from([np.add, np.multiply, np.subtract, np.divide, np.maximum, np.power, np.equal, np.hypot]),
    shapes=st.lists(st.sampled_from(SHAPES[:8]), min_size=2, max_size=2),
    transform=st.sampled_from(["jvp", "vjp", "vmap", "make_jaxpr"]),
)
def test_values_and_dtypes_are_numpys(dtypes, operation, shapes, transform):
    x, y = (np.ones(shape, dtype)[()] for shape, dtype in zip(shapes, dtypes, strict=True))
    try:
        expected = operation(x, y)
    except (TypeError, ValueError):
        return
    if transform == "jvp":
        got = functrace.jvp(operation, (x, y), (None, None))[0]
    elif transform == "vjp":
        got = functrace.vjp(operation, x, y)[0]
    elif transform == "vmap":
        got = functrace.vmap(operation)(np.stack([x, x]), np.stack([y, y]))[1]
    else:
        closed = functrace.make_jaxpr(operation)(x, y)
        got = functrace.eval_jaxpr(closed.jaxpr, closed.consts, x, y)[0]
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    np.testing.assert_array_equal(got, expected)
