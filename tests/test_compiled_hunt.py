"""Random programs against machine code: moves of elements under each other, mixed dtypes, sizes at the limits of
registers and vectors, loops and branches in each other; compiled they give what NumPy calls give.

A program is a list of integers, as in `tests.test_programs`, so that Hypothesis shrinks a failure to a short one.
"""

import threading
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import functrace.numpy as fnp
from functrace import grad, jit, jvp, lax, linearize, vjp, vmap
from functrace.errors import InputError
from functrace.tree import flatten

LIMIT = 400  # elements of a value


def real(x):
    """The value as a float of bounded size."""
    return np.tanh(x) if x.dtype.kind == "f" else x.astype(np.float64) / 4.0


def matched(x, y):
    """The second value in the shape of the first."""
    return fnp.resize(y, x.shape) if y.size else fnp.zeros(x.shape, y.dtype)


def alike(x, y):
    """The second value as a float like the first."""
    return real(matched(x, y)).astype(real(x).dtype)


def axis_of(x, k):
    return k % x.ndim


def indices(x, n, k):
    """Traced positions on an axis of length n, some from the end."""
    whole = np.floor(real(x).reshape(-1) * 1000.3).astype(np.int64)
    return whole % n if k % 2 else whole % n - n


def known(n, k):
    return np.array([0, n - 1, k % n, -1, -(k % n) - 1, 0])


def full(f):
    """An operation on values with at least one axis and one element; else the value as it is."""
    return lambda x, y, k: f(x, y, k) if x.ndim and x.size else x


def joined(f):
    return full(lambda x, y, k: f(x, matched(x, y).astype(x.dtype), k))


def axes_of(x, k):
    chosen = tuple(a for a in range(x.ndim) if (k + 1) >> a & 1)
    return chosen or None


def updated(x, at, value):
    x = fnp.array(x)
    x[at] = value
    return x


def added_at(x, at, value):
    x = fnp.array(x)
    np.add.at(x, at, value)
    return x


ELEMENTS = [
    lambda x, y, k: np.sin(real(x)),
    lambda x, y, k: -real(x),
    lambda x, y, k: np.sqrt(1 + real(x) ** 2),
    lambda x, y, k: real(x).astype(np.float32),
    lambda x, y, k: np.floor(real(x) * 7.3).astype(np.int64),
    lambda x, y, k: np.floor(real(x) * 5.7).astype(np.int8),
    lambda x, y, k: real(x) > 0.2171,
    lambda x, y, k: x + matched(x, y),
    lambda x, y, k: x * matched(x, y),
    lambda x, y, k: real(x) - real(y).sum(),
    lambda x, y, k: np.maximum(x, matched(x, y)),
    lambda x, y, k: np.minimum(real(x), 0.1317),
    lambda x, y, k: np.where(real(x) > 0.0713, x, matched(x, y)),
    lambda x, y, k: np.exp(real(x)) / (1.5 + real(matched(x, y))),
    lambda x, y, k: np.arctan2(real(x), 2 + real(matched(x, y))),
    lambda x, y, k: x // 1 if x.dtype.kind == "i" else x * 2,
    lambda x, y, k: np.clip(real(x), -0.5, 0.3),
    lambda x, y, k: np.abs(real(x)) ** 1.5,
]
MOVES = [
    lambda x, y, k: x.T,
    lambda x, y, k: x.reshape(-1),
    lambda x, y, k: x[..., None],
    lambda x, y, k: np.squeeze(x),
    full(lambda x, y, k: x[::-1]),
    full(lambda x, y, k: x[..., ::-1]),
    full(lambda x, y, k: x[:: -2 - k % 2]),
    full(lambda x, y, k: x[..., k % 2 :: 3]),
    full(lambda x, y, k: x[1:]),
    full(lambda x, y, k: x[..., :-1]),
    full(lambda x, y, k: x[k % x.shape[0]]),
    full(lambda x, y, k: x[..., -1 - k % x.shape[-1]]),
    lambda x, y, k: x.reshape(2, -1) if x.size % 2 == 0 and x.size else x,
    lambda x, y, k: x.reshape(-1, 3) if x.size % 3 == 0 and x.size else x,
    lambda x, y, k: np.broadcast_to(x, (2 + k, *x.shape)) if x.ndim < 3 else x,
    full(lambda x, y, k: np.moveaxis(x, 0, -1)),
    full(lambda x, y, k: np.swapaxes(x, axis_of(x, k), 0)),
    full(lambda x, y, k: np.flip(x)),
    full(lambda x, y, k: np.roll(x, k - 2, axis_of(x, k))),
    full(lambda x, y, k: np.roll(x, 3)),
    full(lambda x, y, k: np.pad(x, [(k % 3, 1)] * x.ndim)),
    full(lambda x, y, k: np.pad(x, 1, "edge")),
    full(lambda x, y, k: np.repeat(x, 2 + k % 2, axis_of(x, k))),
    lambda x, y, k: np.tile(x, 2 + k % 2),
    joined(lambda x, y, k: np.concatenate([x, y, x[::-1]], 0)),
    joined(lambda x, y, k: np.concatenate([x, y], axis_of(x, k))),
    joined(lambda x, y, k: np.stack([x, y[::-1]], k % (x.ndim + 1)) if x.ndim < 4 else x),
    joined(lambda x, y, k: np.stack([x, y, x], -1).reshape(-1)[::-1]),
    joined(lambda x, y, k: np.concatenate([x[1:], y, x[:1]])[::-2]),
    full(lambda x, y, k: np.tril(np.atleast_2d(x), k - 2)),
    full(lambda x, y, k: np.diag(x) if x.ndim <= 2 else x),
    full(lambda x, y, k: np.array_split(x, 2)[k % 2]),
    lambda x, y, k: np.zeros_like(x),
    lambda x, y, k: x,
]
GATHERS = [
    full(lambda x, y, k: x[known(x.shape[0], k)]),
    full(lambda x, y, k: x[..., known(x.shape[-1], k)]),
    full(lambda x, y, k: fnp.array(x)[indices(y, x.shape[0], k)]),
    full(lambda x, y, k: fnp.array(x)[..., indices(y, x.shape[-1], k)]),
    full(lambda x, y, k: fnp.array(x)[indices(x, x.shape[0], k), ..., 0] if x.ndim > 1 else x),
    full(lambda x, y, k: fnp.array(x)[indices(x, x.shape[0], k).sum() % x.shape[0]]),
    full(
        lambda x, y, k: (
            fnp.array(x)[indices(x[:2], x.shape[0], k), ..., indices(x[:2], x.shape[-1], 1)] if x.ndim > 1 else x
        )
    ),
    full(lambda x, y, k: np.take_along_axis(x, indices(x, x.shape[0], 1).reshape(x.shape), 0)),
    joined(lambda x, y, k: updated(x, slice(None, None, 2), y[::2])),
    joined(lambda x, y, k: updated(x, slice(None, None, -3), y[::-3])),
    joined(lambda x, y, k: updated(x, (..., k % x.shape[-1]), y[..., 0])),
    joined(lambda x, y, k: updated(x, known(x.shape[0], k), x.dtype.type(1))),
    joined(lambda x, y, k: updated(x, indices(y.reshape(-1)[:1], x.shape[0], k), x.dtype.type(1))),
    joined(lambda x, y, k: added_at(real(x), indices(y, x.shape[0], k), 0.25)),
    joined(lambda x, y, k: added_at(real(x), known(x.shape[0], k), 0.5)),
    joined(lambda x, y, k: added_at(real(x), (..., indices(y, x.shape[-1], k)), 0.5)),
    full(lambda x, y, k: np.searchsorted(np.sort(real(x).reshape(-1)) + 0.0173, real(y))),
]
REDUCTIONS = [
    lambda x, y, k: np.sum(real(x), axes_of(x, k)),
    lambda x, y, k: np.sum(x, axes_of(x, k), keepdims=True),
    full(lambda x, y, k: np.max(x, axes_of(x, k))),
    full(lambda x, y, k: np.min(x, axes_of(x, k), keepdims=True)),
    full(lambda x, y, k: np.mean(real(x), axes_of(x, k))),
    lambda x, y, k: np.prod(real(x), axes_of(x, k)),
    lambda x, y, k: np.any(real(x) > 0.2719, axes_of(x, k)),
    lambda x, y, k: np.all(real(x) < 0.2719, axes_of(x, k)),
    full(lambda x, y, k: np.argmax(real(x) + 0.013 * np.arange(x.shape[-1]), axis_of(x, k))),
    full(lambda x, y, k: np.var(real(x), axis_of(x, k))),
    full(lambda x, y, k: np.cumsum(x, axis_of(x, k))),
    full(lambda x, y, k: np.cumprod(real(x)[::-1], axis_of(x, k))),
    full(lambda x, y, k: np.cumsum(real(x))[::-1]),
    full(lambda x, y, k: np.diff(real(x), axis=axis_of(x, k))),
    full(lambda x, y, k: np.maximum.accumulate(x, axis_of(x, k))),
    full(lambda x, y, k: np.sort(x, axis_of(x, k))),
    full(lambda x, y, k: np.exp(real(x)) / np.exp(real(x)).sum(axis_of(x, k), keepdims=True)),
    full(lambda x, y, k: np.sum(real(x).reshape(-1, 1) * real(y).reshape(1, -1), k % 2)),
    full(lambda x, y, k: np.outer(real(x)[..., 0], real(x)[..., -1])),
    full(lambda x, y, k: real(x).reshape(x.shape[0], -1) @ np.cos(real(x)).reshape(x.shape[0], -1).T),
    full(
        lambda x, y, k: np.einsum("ij,kj->ik", real(x).reshape(x.shape[0], -1), real(x).reshape(x.shape[0], -1)[::-1])
    ),
]


def scanned(x, y, k):
    """A loop over the first axis whose carries are passed on, swapped or computed."""

    def step(carry, row):
        a, b, s = carry
        a, b = ((a, b), (b, a), (b, a + real(row).sum()), (OPERATIONS[k % len(ELEMENTS)](a, b, k).astype(a.dtype), b))[
            k % 4
        ]
        if a.shape != b.shape:
            a = b
        return (a, b, s * 0.5 + real(row).sum()), ((row, a, s), (s, b[::-1]), (row[..., ::-1] if row.ndim else row,))[
            k % 3
        ]

    first = real(matched(x, y)).reshape(-1)
    carry, rows = lax.scan(step, (first, np.sin(first), 0.5), x, reverse=bool(k % 2))
    return [*carry, *rows]


def repeated(x, y, k):
    start = (0, real(x), alike(x, y))
    found = lax.fori_loop(0, k, lambda i, c: (c[0] + i, c[2], np.sin(c[1])[..., ::-1] if x.ndim else c[1] * 0.5), start)
    return list(found)


def chosen(x, y, k):
    x, y = real(x), alike(x, y)
    forms = [
        lambda x, y: (x, y, x.sum()),
        lambda x, y: (y, np.cos(x), x.dtype.type(1)),
        lambda x, y: (x.T.reshape(x.shape) * 2, y + x, y.sum()),
    ]
    return list(lax.switch(np.floor(np.abs(y.sum() * 10.37)).astype(np.int64) % 3, forms, x, y))


def until(x, y, k):
    def body(state):
        i, a, b = state
        return (
            i + 1,
            lax.cond(np.sum(a) > 0.0171, lambda a, b: (b, np.cos(a)), lambda a, b: (a + 0.1, b), a, b)[k % 2],
            a,
        )

    i, a, b = lax.scan(lambda s, _: (body(s), None), (0, real(x), alike(x, y)), None, length=k % 4)[0]
    return [i, a, b]


def mapped(x, y, k):
    return vmap(lambda row: OPERATIONS[(5 * k) % len(OPERATIONS)](row, row, k))(x)


def inner(x, y, k):
    return list(jit(lambda x, y: (real(x) * 2, real(y).sum(), x))(x, y))


BATCHED = full(mapped)
CONTROL = [full(scanned), full(scanned), repeated, chosen, until, BATCHED, inner]
OPERATIONS = [*ELEMENTS, *MOVES, *GATHERS, *REDUCTIONS, *CONTROL]
SINGLE = (3,)  # gives single precision
CALLING = tuple(k for k, f in enumerate(OPERATIONS) if f is BATCHED)  # may call one that does
SHAPES = [
    (),
    (1,),
    (3,),
    (8,),
    (9,),
    (16,),
    (17,),
    (2, 3),
    (3, 1),
    (1, 17),
    (4, 4),
    (5, 9),
    (2, 1, 2),
    (3, 2, 4),
    (0,),
    (0, 2),
    (2, 0),
    (33,),
]
DTYPES = [np.float64, np.float64, np.float64, np.float32, np.int64, np.int32, np.bool_]


@dataclass(frozen=True)
class Program:
    shapes: tuple
    dtypes: tuple
    steps: tuple
    seed: int
    results: int

    def __call__(self, *inputs):
        values = list(inputs)
        for operation, i, j, k in self.steps:
            x, y = values[-1 - i % len(values)], values[-1 - j % len(values)]
            out = OPERATIONS[operation % len(OPERATIONS)](x, y, k)
            for value in out if type(out) is list else [out]:
                value = fnp.asarray(value)
                values.append(value if value.size <= LIMIT else real(value).reshape(-1)[: LIMIT // 2])
        return values[-self.results :]

    def inputs(self):
        rng = np.random.default_rng(self.seed)
        found = [rng.uniform(-1.5, 1.5, shape) for shape in self.shapes]
        return [
            (x > 0 if dtype is np.bool_ else (x * 4).astype(dtype) if dtype is not np.float64 else x)[()]
            for x, dtype in zip(found, self.dtypes, strict=True)
        ]

    def scalar(self, *inputs):
        return sum(np.sum(np.sin(v)).astype(np.float64) for v in map(fnp.asarray, self(*inputs)) if v.dtype.kind == "f")


@st.composite
def programs(draw, max_steps=8):
    step = st.tuples(st.integers(0, len(OPERATIONS) - 1), st.integers(0, 4), st.integers(0, 4), st.integers(0, 5))
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
    return Program(
        tuple(shapes),
        tuple(draw(st.sampled_from(DTYPES)) for _ in shapes),
        tuple(draw(st.lists(step, min_size=1, max_size=max_steps))),
        draw(st.integers(0, 10**6)),
        draw(st.integers(1, 6)),
    )


def same(found, expected, rtol=1e-9):
    """Equal structures, shapes and dtypes; floats up to rounding."""
    found, expected = flatten(found)[0], flatten(expected)[0]
    assert len(found) == len(expected)
    for x, y in zip(map(np.asarray, found), map(np.asarray, expected), strict=True):
        assert x.shape == y.shape
        assert x.dtype == y.dtype
        if x.dtype.kind in "fc":
            tolerance = rtol if y.dtype.itemsize > 4 else 2e-3 if y.dtype.itemsize == 4 else 5e-2
            scale = 1 + np.max(np.abs(y), initial=0, where=np.isfinite(y))
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * scale)
        else:
            np.testing.assert_array_equal(x, y)


def rounding(program, inputs, double):
    """The tolerance: `double`, unless something is in single precision somewhere."""
    operations = {step[0] for step in program.steps}
    single = any(x.dtype == np.float32 for x in inputs) or operations.intersection(SINGLE + CALLING)
    return 2e-3 if single else double


def outcome(f, *args):
    """What a function gives, or the type of what it raises."""
    try:
        return f(*args)
    except (TypeError, ValueError, IndexError, NotImplementedError) as error:
        return type(error)


def check_values(program):
    inputs = program.inputs()
    expected = outcome(program, *inputs)
    compiled = jit(program)
    if isinstance(expected, type):
        return
    rtol = rounding(program, inputs, 1e-9)
    same(compiled(*inputs), expected, rtol)
    same(compiled(*inputs), expected, rtol)
    batch = [np.stack([v, v]) for v in map(np.asarray, expected)]
    same(jit(vmap(program, axis_size=2, in_axes=None))(*inputs), batch, rtol)


def floats(program, inputs):
    return tuple(i for i, x in enumerate(inputs) if x.dtype.kind == "f")


def check_derivatives(program):
    inputs = program.inputs()
    argnums = floats(program, inputs)
    if not argnums or isinstance(outcome(program, *inputs), type):
        return
    value, bars = program.scalar(*inputs), outcome(grad(program.scalar, argnums), *inputs)
    if isinstance(bars, type):
        return
    rtol = rounding(program, inputs, 1e-7)
    same(jit(grad(program.scalar, argnums))(*inputs), bars, rtol)
    same(grad(jit(program.scalar), argnums)(*inputs), bars, rtol)
    directions = [0.3 * np.cos(x) if i in argnums else None for i, x in enumerate(inputs)]
    tangent = jvp(program.scalar, tuple(inputs), tuple(directions))[1]
    same(jit(lambda *xs: jvp(program.scalar, xs, tuple(directions))[1])(*inputs), tangent, rtol)
    same(jvp(jit(program.scalar), tuple(inputs), tuple(directions)), (value, tangent), rtol)
    given = [inputs[i] for i in argnums]

    def of_floats(*xs):
        rest = iter(xs)
        return program.scalar(*[next(rest) if i in argnums else x for i, x in enumerate(inputs)])

    same(linearize(jit(of_floats), *given)[1](*[directions[i] for i in argnums]), tangent, rtol)
    same(vjp(jit(of_floats), *given)[1](np.float64(1)), bars, rtol)


CHECKS = [check_values, check_derivatives]


def quietly(check, program):
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        check(program)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__[6:])
@settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
@given(program=programs())
def test_programs(check, program):
    quietly(check, program)


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__[6:])
@settings(max_examples=1500, suppress_health_check=list(HealthCheck), deadline=None)
@given(program=programs(max_steps=14))
def test_long_programs(check, program):
    quietly(check, program)


# what was found


def agree(f, *args):
    """Compiled as called, and no refusal of the compiler."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same(jit(f)(*args), f(*args))


ROW = np.random.default_rng(3).normal(size=33)


def test_an_index_that_is_computed_is_moved_further():
    """Slices and reversals of what is read at positions that are divided in every lane."""
    agree(lambda x: updated(x, slice(None, None, -2), 3 * x[::-2]), ROW)
    agree(grad(lambda x: np.sum(np.sin(np.stack([x, x[::-1], np.sin(x)], 1).T.reshape(-1)[::2]))), ROW)
    agree(grad(lambda x: np.sum(np.sin(np.concatenate([x[::-3], x[::2], x[1:]])))), ROW)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8"])
@pytest.mark.parametrize("size", [3, 21])
def test_bits_of_unsigned_integers_are_inverted(dtype, size):
    agree(np.invert, np.arange(size).astype(dtype))


@pytest.mark.parametrize("dtype", list("qQlLpP"))
def test_every_name_of_an_integer_type(dtype):
    agree(lambda x: (x * 2 + 1, x.sum(), x[3]), np.arange(20).astype(dtype))


def test_a_large_integer_and_an_extended_float():
    assert jit(lambda x: x + 1)(2**63) == 2**63 + 1
    agree(lambda x: (x * 2, x.sum()), np.arange(20, dtype=np.longdouble))


def test_an_empty_carry_in_a_program_without_other_memory():
    branches = [lambda x: (x, 1.0), lambda x: (x * 2, 2.0)]
    agree(lambda x: lax.switch(np.sum(x).astype(np.int64), branches, x), np.zeros(0))
    agree(lambda x: lax.fori_loop(0, 3, lambda i, c: (c[1], c[0]), (x, np.sin(x))), np.zeros((0, 2)))


def test_static_arguments_by_name_and_from_the_end():
    f = jit(lambda x, n: x[:n], static_argnums=-1)
    assert f(ROW, 3).shape == f(ROW, n=3).shape == (3,)
    g = jit(lambda x, n: x[:n], static_argnames="n")
    assert g(ROW, 4).shape == g(ROW, n=4).shape == (4,)


def test_equal_static_arguments_are_told_apart():
    f = jit(lambda x, n: x * n, static_argnums=1)
    assert not np.signbit(f(2.0, 0.0))
    assert np.signbit(f(2.0, -0.0))
    g = jit(lambda x, n: x * n[0], static_argnums=1)
    assert g(2, (1,)).dtype == np.int64
    assert g(2, (1.0,)).dtype == np.float64


def test_a_compiled_function_takes_the_types_it_was_compiled_for():
    compiled = jit(lambda x: np.mean(x)).lower(ROW).compile()
    same(compiled(ROW), np.mean(ROW))
    for wrong in ((ROW[:3],), (ROW.astype(np.float32),), (ROW, ROW), ([ROW],)):
        with pytest.raises(InputError, match="other types"):
            compiled(*wrong)


def test_numbers_at_places_are_one_loop():
    """The gradient of an unrolled sum over neighbours, whose parts lie at fixed places."""
    f = grad(lambda x: sum(np.sin(x[k]) * x[k + 1] for k in range(32)))
    agree(f, ROW)
    assert " parts" not in jit(f).lower(ROW).as_text("schedule")
    agree(lambda x: updated(updated(x, (1, 2), 5.0), (0, -1), x[1, 1]), ROW.reshape(3, 11))


def test_condition_number_of_a_singular_matrix():
    for matrix in (np.zeros((3, 3)), np.zeros((2, 2), np.float32)):
        agree(np.linalg.cond, matrix)


def test_threads_call_one_function_with_several_shapes():
    f = jit(lambda x: np.sort(x * 2)[::-1] @ x + np.cumsum(x))
    inputs = [ROW[:n] for n in (1, 5, 16, 17, 33)]
    expected = [f.fun(x) for x in inputs]
    failures = []

    def work(start):
        for k in range(100):
            n = (start + k) % len(inputs)
            if not np.allclose(f(inputs[n]), expected[n]):
                failures.append(n)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
