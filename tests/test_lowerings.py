"""Compiled code against NumPy's own evaluation where they could differ: special values, every dtype, odd shapes.

Many operations stand in one program each time, which compiles faster and tests that they do not disturb one another.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from functrace import jit
from functrace.backend.executable import Executable
from functrace.core.primitive import Primitive
from functrace.core.types import ShapedArray, aval_of
from functrace.interpreters.staging import stage
from functrace.primitives import (
    convolution,
    cumulative,
    elementwise,
    indexing,
    random,
    reduction,
    scatter,
    shape,
    special,
)
from tests.cases import own_primitives

NUMBERS = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    "complex64", "complex128",
)  # fmt: skip
TOLERANCE = {"float64": 4e-15, "float32": 2e-6, "float16": 2e-3, "complex128": 2e-14, "complex64": 4e-6}
SPECIAL = [
    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.0, 3.0, -3.0, 1e-310, -5e-324, 1e300, -1e300, np.inf, -np.inf, np.nan, 1e-3,
    7.5, -7.5, 100.0, 0.9999999, 709.9, -745.2, 2.0**53, 1e17, -1e17, 88.8, -103.5, 65504.0, 1e-8,
]  # fmt: skip


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.simplefilter("ignore", np.exceptions.ComplexWarning)
        yield


def values(name: str, rng: np.random.Generator, count: int = 30) -> np.ndarray:
    """Special values and random ones."""
    dtype = np.dtype(name)
    if dtype.kind == "b":
        return np.arange(count) % 3 == 0
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        small = [0, 1, 2, 3, 5, 7, limits.max, limits.min, limits.max - 1, limits.min + 1]
        below = [-1, -2, -3] if limits.min else []
        drawn = rng.integers(limits.min, limits.max, count, dtype=dtype)
        return np.concatenate([np.array(small + below, dtype), drawn, rng.integers(0, 10, count, dtype=dtype)])
    real = np.concatenate([SPECIAL, 3 * rng.normal(size=count), rng.random(count), np.exp(20 * rng.normal(size=count))])
    if dtype.kind == "f":
        return real.astype(dtype)
    found = np.empty(len(real), dtype)
    found.real, found.imag = real, rng.permutation(real)
    return found


def agree(got: Any, want: Any, factor: float = 1.0) -> np.ndarray:
    """Where two results are the same: to rounding, with NaNs, infinities and the signs of zeros."""
    want = np.asarray(want)
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    if want.dtype.kind not in "fc":
        return got == want
    wide = np.complex128 if want.dtype.kind == "c" else np.float64
    tolerance = factor * TOLERANCE[want.dtype.name] * (np.abs(want.astype(wide)) + 1e-300)
    if want.dtype.kind == "f":
        tolerance = tolerance + float(np.finfo(want.dtype).smallest_subnormal)
    same = np.ones(want.shape, bool)
    for g, w in ((got.real, want.real), (got.imag, want.imag)) if want.dtype.kind == "c" else ((got, want),):
        g, w = g.astype(float), w.astype(float)
        equal = (g == w) | (np.isnan(g) & np.isnan(w)) | (np.abs(g - w) <= tolerance)
        same &= equal & ~((g == 0) & (w == 0) & (np.signbit(g) != np.signbit(w)))
    return same


def compare(
    function: Callable[..., list[Any]], *operands: Any, names: list[str] | None = None, factor: float = 1.0
) -> None:
    """A compiled function of a list of results against the same function evaluated."""
    got, want = jit(function)(*operands), function(*operands)
    for k, (g, w) in enumerate(zip(got, want, strict=True)):
        same = agree(np.asarray(g), np.asarray(w), factor)
        if not np.all(same):
            place = np.argwhere(~np.atleast_1d(same))[:3]
            label = names[k] if names else k
            shown = [(np.atleast_1d(g)[tuple(p)], np.atleast_1d(w)[tuple(p)]) for p in place]
            raise AssertionError(f"result {label}: compiled and evaluated differ at {place.tolist()}: {shown}")


# elementwise, all dtypes

#: Compiled in double precision where SciPy computes in single: more accurate than what they are compared with.
BETTER = {"betainc", "gammainc", "gammaincc", "zeta", "polygamma", "jv", "yv", "iv", "ive", "kv", "poch", "binom"}
APART = {"convert", "stop_gradient", "ties", "negligible", "anchors"}


def arity(primitive: Primitive, x: np.ndarray) -> int | None:
    """How many operands of this dtype it takes; None if it takes none."""
    for count in (1, 2, 3, 4):
        if isinstance(primitive.impl, np.ufunc) and primitive.impl.nin != count:
            continue
        try:
            found = np.asarray(primitive.impl(*[x] * count))
            aval: ShapedArray = primitive.abstract_eval(*[aval_of(x)] * count)
        except (TypeError, ValueError, KeyError):
            continue
        return count if found.dtype == aval.dtype else None
    return None


@pytest.mark.parametrize("name", NUMBERS)
def test_elementwise(name: str) -> None:
    rng = np.random.default_rng(3)
    x = values(name, rng)
    operands = [x, *(rng.permutation(x) for _ in range(3))]
    if name[0] == "i":  # negative powers of integers are refused, and tested below
        operands[1] &= np.iinfo(name).max
    table = {}
    for primitive in own_primitives():
        if primitive.family != "elementwise" or primitive.name in APART:
            continue
        if primitive.name in BETTER and name != "float64":
            continue
        if primitive.name in ("fmax", "fmin") and name == "float16":  # NumPy's choice of two zeros depends on the dtype
            continue
        count = arity(primitive, x[:2])
        if count is not None:
            table[primitive.name] = (primitive, count)

    def all_of(*operands: Any) -> list[Any]:
        return [primitive(*operands[:count]) for primitive, count in table.values()]

    assert len(table) > 25
    compare(all_of, *operands, names=list(table), factor=5.0 if name == "float64" else 1.0)


@pytest.mark.parametrize("name", NUMBERS)
def test_conversions(name: str) -> None:
    plain = [0.0, 1.0, 2.7, 100.0, 120.0, -0.0]
    wild = [-1.0, -2.7, -128.0, np.nan, np.inf, -np.inf, 65519.0, 65520.0, 1e-8, 6e-8, 3e-5]
    inexact = np.dtype(name).kind in "fc"
    x = np.array(plain + (wild if inexact else [])).astype(name)
    y = np.array(plain * 3).astype(name)
    if x.dtype.kind == "c":
        x = x + x.dtype.type(1j) * x[::-1]

    def all_of(x: Any, y: Any) -> list[Any]:
        goals = map(np.dtype, NUMBERS)
        return [elementwise.convert(x if goal.kind in "fcb" else y, dtype=goal) for goal in goals]

    compare(all_of, x, y, names=list(NUMBERS))


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_remainders_of_floats_are_exact(name: str) -> None:
    rng = np.random.default_rng(0)
    size = 2000
    x = (rng.normal(size=size) * np.exp(rng.normal(size=size) * 15)).astype(name)
    y = (rng.normal(size=size) * np.exp(rng.normal(size=size) * 10)).astype(name)
    x[:200] = y[:200] * rng.integers(-1000, 1000, 200).astype(name)  # multiples, or next to them
    x[:100] = np.nextafter(x[:100], np.inf).astype(name)
    three = (elementwise.fmod, elementwise.remainder, elementwise.floor_divide)
    for got, want in zip(jit(lambda x, y: [p(x, y) for p in three])(x, y), [p(x, y) for p in three], strict=True):
        np.testing.assert_array_equal(got, want)


def test_powers_of_integers() -> None:
    x, n = np.arange(-9, 31), np.tile(np.arange(10), 4)
    compiled = jit(elementwise.power)
    np.testing.assert_array_equal(compiled(x, n), x**n)
    with pytest.raises(ValueError, match="negative"):
        compiled(x, n - 1)


def test_ldexp_goes_down_to_subnormal_numbers() -> None:
    x, n = np.linspace(-2, 2, 41), np.arange(-1080, 1060, 53)[:41]
    np.testing.assert_array_equal(jit(elementwise.ldexp)(x, n), np.ldexp(x, n))


# cumulative operations

SHAPES = [(5,), (17,), (100,), (3, 70), (70, 3), (4, 33, 5), (1, 50), (50, 1), (0, 5), (5, 0), (2, 3, 40)]


@pytest.mark.parametrize("name", ["float64", "float32", "int8", "bool", "uint64", "complex128"])
@pytest.mark.parametrize("where", SHAPES, ids=str)
def test_cumulative(name: str, where: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    x = (2 * rng.normal(size=where)).astype(name)
    if x.dtype.kind in "f" and x.size:
        x.flat[rng.integers(0, x.size, 3)] = [np.inf, np.nan, -0.0]
    kinds = [cumulative.cumsum, cumulative.cumprod]
    if x.dtype.kind != "c":
        kinds += [cumulative.cummax, cumulative.cummin]
    if x.dtype.kind == "f":
        kinds += [cumulative.cumlogsumexp]

    def all_of(x: Any) -> list[Any]:
        ways = [(axis, reverse) for axis in range(len(where)) for reverse in (False, True)]
        return [kind(x, axis=axis, reverse=reverse) for kind in kinds for axis, reverse in ways]

    got, want = jit(all_of)(x), all_of(x)
    exact = x.dtype.kind in "iub"
    for g, w in zip(got, want, strict=True):
        assert g.dtype == w.dtype
        scale = 0 if exact else 1e-4 if name == "float32" else 1e-11
        np.testing.assert_allclose(g, w, rtol=scale, atol=scale)


@pytest.mark.parametrize("where", [(17,), (100,), (3, 70), (70, 3), (4, 33, 5)], ids=str)
def test_recurrences_with_what_is_around_them(where: tuple[int, ...]) -> None:
    rng = np.random.default_rng(2)
    a, b = 0.5 * rng.normal(size=where), rng.normal(size=where)
    a[rng.random(where) < 0.1] = 0
    a.flat[0], b.flat[3] = np.inf, np.inf  # the first factor has no effect; a factor 0 cuts off what is infinite

    def all_of(a: Any, b: Any) -> list[Any]:
        found = []
        for axis in range(len(where)):
            for reverse in (False, True):
                joined = shape.concatenate(a, b, axis=axis)
                found.append(cumulative.linear_recurrence(a, b, axis=axis, reverse=reverse))
                found.append(2 * cumulative.cumsum(elementwise.sin(joined), axis=axis, reverse=reverse) + 1)
                inner = cumulative.cumsum(b, axis=axis, reverse=False)
                found.append(cumulative.linear_recurrence(elementwise.tanh(a), inner, axis=axis, reverse=reverse))
                found.append(reduction.reduce_sum(a * b, axes=(axis,)))
        return found

    for g, w in zip(jit(all_of)(a, b), all_of(a, b), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-10)


# scatters and parts


@pytest.mark.parametrize("name", ["float64", "float32", "int16", "complex128"])
def test_scatters(name: str) -> None:
    rng = np.random.default_rng(4)

    def draw(*sizes: int) -> np.ndarray:
        return (3 * rng.normal(size=sizes)).astype(name)

    rows, columns = rng.integers(0, 6, (4, 9)), rng.integers(0, 5, (4, 9)).astype(np.uint8)
    x, flat, block, across = draw(6, 5, 20), draw(4, 9, 20), draw(4, 9, 5, 20), draw(4, 9, 6, 5)
    deep = rng.integers(0, 20, (4, 9)).astype(np.int32)
    if name.startswith("float"):
        flat[0, 0, 0] = np.nan
    kinds = [indexing.scatter_set, indexing.scatter_add, scatter.scatter_multiply]
    if name != "complex128":
        kinds += [scatter.scatter_max, scatter.scatter_min]

    def all_of(x: Any, rows: Any, columns: Any, deep: Any, flat: Any, block: Any, across: Any) -> list[Any]:
        found = []
        for kind in kinds:
            found.append(kind(x, rows, columns, flat, axes=(0, 1), unique=False))
            found.append(kind(x, rows, block, axes=(0,), unique=False))
            found.append(kind(x, deep, across, axes=(2,), unique=False))
        zeros = shape.full(shape=(6,), value=0, dtype=x.dtype)
        found.append(indexing.scatter_add(zeros, rows[0], flat[0, :, 0], axes=(0,), unique=False))
        return found

    operands = (x, rows, columns, deep, flat, block, across)
    for g, w in zip(jit(all_of)(*operands), all_of(*operands), strict=True):
        assert g.dtype == w.dtype
        np.testing.assert_allclose(g, w, rtol=1e-4 if name == "float32" else 1e-12)


def test_a_scatter_out_of_range_is_refused_as_without_compilation() -> None:
    add = jit(lambda x, i, u: indexing.scatter_add(x, i, u, axes=(0,), unique=False))
    x, u = np.zeros(30), np.ones(40)
    np.testing.assert_array_equal(add(x, np.zeros(40, int), u)[:2], [40, 0])
    with pytest.raises(IndexError):
        add(x, np.full(40, 30), u)


@pytest.mark.parametrize("name", ["float64", "float16", "complex64", "int8", "bool"])
def test_parts_with_steps(name: str) -> None:
    rng = np.random.default_rng(5)
    x = (3 * rng.normal(size=(11, 20))).astype(name)
    at = ((1, 11, 3), (0, 20, 7))
    part = (3 * rng.normal(size=(4, 3))).astype(name)

    def all_of(x: Any, part: Any) -> list[Any]:
        widened = shape.pad(x, low=(1, 0), high=(0, 2), interior=(2, 1))
        return [
            indexing.update(x, part, at=at),
            indexing.place(part, at=at, shape=(11, 20)),
            indexing.index(x, at=at),
            indexing.place(x, at=((0, 11, 1), (3, 43, 2)), shape=(11, 50)),
            widened,
            shape.reverse(widened, axes=(0, 1)),
            shape.transpose(shape.reverse(x, axes=(1,)), permutation=(1, 0)),
            *shape.unstack(x, axis=1),
        ]

    compare(all_of, x, part)


# searching, positions, sums of exponentials


def test_searches() -> None:
    rng = np.random.default_rng(6)
    a = np.sort(np.concatenate([rng.integers(0, 9, 37).astype(float), [-np.inf, np.inf, np.nan, np.nan]]))
    v = np.concatenate([np.arange(-1, 10) * 1.0, [np.nan, np.inf, -np.inf, 2.5]])
    counts = np.sort(rng.integers(0, 100, (3, 20)), axis=1)
    wanted = rng.integers(-5, 105, (3, 30))

    def all_of(a: Any, v: Any, counts: Any, wanted: Any) -> list[Any]:
        found = []
        for side in ("left", "right"):
            found.append(indexing.searchsorted(a, v, side=side))
            found.append(indexing.searchsorted(counts, wanted, side=side))
            found.append(indexing.searchsorted(v[:0], a, side=side))
        return found

    compare(all_of, a, v, counts, wanted)


@pytest.mark.parametrize("name", ["float64", "float32", "int8", "bool", "uint64"])
def test_positions_of_extrema(name: str) -> None:
    rng = np.random.default_rng(7)
    x = rng.integers(0, 4, (7, 40)).astype(name)
    if x.dtype.kind == "f":
        x[1, 5], x[2, 3], x[2, 30] = np.nan, np.inf, np.inf
        x[3] = -np.inf

    def all_of(x: Any) -> list[Any]:
        return [kind(x, axis=axis) for kind in (reduction.argmax, reduction.argmin) for axis in (0, 1)]

    compare(all_of, x)


@pytest.mark.parametrize("name", ["float64", "float32"])
def test_sums_of_exponentials(name: str) -> None:
    rng = np.random.default_rng(8)
    x = (30 * rng.normal(size=(6, 25))).astype(name)
    x[0], x[1, 3], x[2, 4:6], x[3, 1] = -np.inf, -np.inf, np.inf, np.nan
    x[4] *= 1000

    def all_of(x: Any) -> list[Any]:
        found = [reduction.logsumexp(x, axes=axes) for axes in ((0,), (1,), (0, 1))]
        ways = [(axes, undefined) for axes in ((0,), (1,), (0, 1)) for undefined in (False, True)]
        return found + [reduction.softmax(x, axes=axes, undefined=undefined) for axes, undefined in ways]

    for g, w in zip(jit(all_of)(x), all_of(x), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-5 if name == "float32" else 1e-13)
    nothing = np.zeros((3, 0), name)
    np.testing.assert_array_equal(jit(lambda x: reduction.logsumexp(x, axes=(1,)))(nothing), [-np.inf] * 3)


@pytest.mark.parametrize("name", ["uint64", "uint32", "uint16", "uint8", "int64", "int32"])
def test_random_bits_are_those_of_the_cipher(name: str) -> None:
    keys = np.random.default_rng(9).integers(0, 2**32, (3, 2), dtype=np.uint32)
    starts = np.array([0, 2**64 - 5, 2**32 - 3], np.uint64)
    dtype = np.dtype(name)

    def all_of(keys: Any, starts: Any) -> list[Any]:
        return [
            random.random_bits(keys, starts, shape=(4, 10), dtype=dtype),
            random.random_bits(keys[0], starts[1], shape=(), dtype=dtype),
            random.random_bits(keys, starts[2], shape=(7,), dtype=dtype),
        ]

    compare(all_of, keys, starts)


def test_convolutions() -> None:
    rng = np.random.default_rng(10)
    x, y, z = rng.normal(size=(3, 50)), rng.normal(size=(3, 7)), rng.normal(size=61) * (1 + 2j)
    both = convolution.convolve
    compare(lambda x, y, z: [both(x, y), both(y, x), both(z, z[:9])], x, y, z, factor=1e4)


# zero-size results, and what has no business in Python


def test_reductions_of_nothing() -> None:
    x = np.zeros((3, 0, 40))

    def all_of(x: Any) -> list[Any]:
        truth = elementwise.less(x, 1.0)
        return [
            reduction.reduce_sum(x, axes=(1,)),
            reduction.reduce_prod(x, axes=(1,)),
            reduction.reduce_and(truth, axes=(1,)),
            reduction.reduce_or(truth, axes=(1,)),
        ]

    compare(all_of, x)


@pytest.mark.parametrize("name", ["complex128", "complex64"])
def test_complex_programs_are_fused(name: str) -> None:
    rng = np.random.default_rng(11)
    z, w = (rng.normal(size=(40, 30)) + 1j * rng.normal(size=(40, 30)) for _ in range(2))
    z, w = z.astype(name), w.astype(name)

    def all_of(z: Any, w: Any) -> list[Any]:
        product, turned = z * w + elementwise.conj(z) / w, shape.reshape(w, shape=(30, 40))
        return [
            reduction.reduce_sum(product, axes=(1,)),
            reduction.reduce_prod(elementwise.div(z, w), axes=(0,)),
            elementwise.real(product) - elementwise.imag(shape.transpose(turned, permutation=(1, 0))),
            elementwise.select(elementwise.equal(z, w), z, -w),
            shape.concatenate(z, elementwise.square(w), axis=1),
        ]

    steps = report(all_of, z, w)
    assert all(getattr(step, "lowering", True) is not None for step in steps)
    for g, v in zip(jit(all_of)(z, w), all_of(z, w), strict=True):
        assert g.dtype == v.dtype
        np.testing.assert_allclose(g, v, rtol=1e-4 if name == "complex64" else 1e-11, atol=1e-30)


def test_the_square_of_a_modulus_is_real() -> None:
    z = np.exp(1j * np.linspace(0.1, 6, 57)) * 0.1
    assert not jit(lambda z: z * elementwise.conj(z))(z).imag.any()


def report(function: Callable[..., list[Any]], *operands: Any) -> list[Any]:
    """The steps of the compiled program."""
    closed = stage(function, [aval_of(o) for o in operands])
    program = Executable(closed.jaxpr, closed.consts)
    assert program.module is not None, program.refusal
    return program.module.report


def test_what_is_compiled_does_not_go_through_python() -> None:
    x = np.linspace(0.1, 0.9, 100)
    rows = np.arange(100) % 7

    def all_of(x: Any, rows: Any) -> list[Any]:
        shares = reduction.softmax(x, axes=(0,), undefined=False)
        grown = cumulative.cumsum(special.gammaln(x) + special.zeta(2 + x, x), axis=0, reverse=True)
        return [
            indexing.scatter_add(grown, rows, shares, axes=(0,), unique=False),
            elementwise.convert(reduction.argmax(operator.mul(grown, x), axis=0), dtype=np.dtype(np.int8)),
            elementwise.exp(elementwise.complex_(x, grown)),
        ]

    assert all(getattr(step, "lowering", True) is not None for step in report(all_of, x, rows))
    compare(all_of, x, rows, factor=1e3)
