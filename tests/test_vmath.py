"""Vector math: at most 2 ulp off, measured against mpmath over the whole range; special values, instruction sets."""

import ctypes
import functools
import itertools
import math
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import mpmath
import numpy as np
import pytest

from functrace.backend import disk_cache, llvm
from functrace.backend.vmath import trigonometric
from functrace.backend.vmath.ir import module_text
from functrace.backend.vmath.module import (
    ENTRIES,
    FUNCTIONS,
    address,
    apply,
    function_ir,
    library_ir,
    loaded,
    scalar_symbol,
    symbol,
)

ULPS = 2.0
DTYPES = {64: np.float64, 32: np.float32}
# Instruction sets that differ: the host's own is one of the others as a rule.
LEVELS = tuple({llvm.target(level).features: level for level in llvm.supported_levels()}.values())

mp = mpmath.mp.clone()
mp.prec = 160
mpf, inf = mp.mpf, mp.inf


# Exact results


def within(function, low, high, at_low=mp.nan, at_high=mp.nan):
    """The function inside an interval, the limits at its ends, NaN outside."""

    def exact(x):
        if low < x < high:
            return function(x)
        return at_low if x == low else at_high if x == high else mp.nan

    return exact


def until(function, beyond, low, high):
    """The function for |x| <= `beyond`, and its limits: spares mpmath numbers with giant exponents."""
    return lambda x: function(x) if abs(x) <= beyond else (high if x > 0 else low)


def power(x, y):
    """x**y; beyond the range of a double, a number that is beyond it as well."""
    if x and y and abs(y * mp.log(abs(x))) > 2000:
        y = mp.sign(y) * (2000 + int(y) % 2) if y == int(y) else mp.sign(y) * mpf(2000.5)
        x = mp.sign(x) * mpf(2) ** (8 * mp.sign(abs(x) - 1))
    value = mp.power(x, y)
    return mp.nan if isinstance(value, mp.mpc) else value


EXACT = {
    "exp": until(mp.exp, 1e4, mpf(0), inf),
    "exp2": until(lambda x: mpf(2) ** x, 1e4, mpf(0), inf),
    "expm1": until(lambda x: mp.expm1(x) if x else x, 1e4, mpf(-1), inf),
    "log": within(mp.log, 0, inf, -inf, inf),
    "log2": within(lambda x: mp.log(x, 2), 0, inf, -inf, inf),
    "log10": within(lambda x: mp.log(x, 10), 0, inf, -inf, inf),
    "log1p": within(mp.log1p, -1, inf, -inf, inf),
    "sin": within(mp.sin, -inf, inf),
    "cos": within(mp.cos, -inf, inf),
    "tan": within(mp.tan, -inf, inf),
    "tanh": until(mp.tanh, 1e4, mpf(-1), mpf(1)),
    "sinh": until(mp.sinh, 1e4, -inf, inf),
    "cosh": until(mp.cosh, 1e4, inf, inf),
    "sigmoid": until(lambda x: 1 / (1 + mp.exp(-x)), 1e4, mpf(0), mpf(1)),
    "arcsin": within(mp.asin, -1, 1, -mp.pi / 2, mp.pi / 2),
    "arccos": within(mp.acos, -1, 1, +mp.pi, mpf(0)),
    "arctan": mp.atan,
    "arctan2": mp.atan2,
    "arcsinh": within(mp.asinh, -inf, inf, -inf, inf),
    "arccosh": within(lambda x: mp.log1p(x - 1 + mp.sqrt((x - 1) * (x + 1))), 1, inf, mpf(0), inf),
    "arctanh": within(lambda x: (mp.log1p(x) - mp.log1p(-x)) / 2, -1, 1, -inf, inf),
    "erf": until(mp.erf, 1e3, mpf(-1), mpf(1)),
    "erfc": until(mp.erfc, 1e3, mpf(2), mpf(0)),
    "pow": power,
    "cbrt": lambda x: mp.sign(x) * mp.cbrt(abs(x)),
    "hypot": lambda x, y: mp.sqrt(x * x + y * y),
}

# Where most of a function happens: uniform numbers from here, beside random bit patterns.
CORE = {
    "exp": (-745.2, 709.9), "exp2": (-1075, 1024), "expm1": (-40, 710), "log": (0, 3), "log2": (0, 3), "log10": (0, 3),
    "log1p": (-1, 3), "sin": (-20, 20), "cos": (-20, 20), "tan": (-20, 20), "tanh": (-20, 20), "sinh": (-711, 711),
    "cosh": (-711, 711), "sigmoid": (-746, 40), "arcsin": (-1, 1), "arccos": (-1, 1), "arctan": (-4, 4),
    "arcsinh": (-4, 4), "arccosh": (1, 4), "arctanh": (-1, 1), "erf": (-6, 6), "erfc": (-6, 27.3), "cbrt": (-9, 9),
}  # fmt: skip
CORE_SINGLE = {
    "exp": (-104, 89), "exp2": (-150, 128), "expm1": (-18, 89), "sinh": (-90, 90), "cosh": (-90, 90),
    "sigmoid": (-104, 20), "erfc": (-4, 10.1),
}  # fmt: skip


def points(name, bits, count, seed):
    """Uniform numbers, random bit patterns, numbers near 0 and 1, near multiples of pi/2, special numbers."""
    rng = np.random.default_rng(seed)
    dtype = DTYPES[bits]
    info = np.finfo(dtype)
    low, high = (CORE_SINGLE.get(name) if bits == 32 else None) or CORE[name]
    powers = 2.0 ** rng.uniform(-30, 2, count) * rng.choice([-1.0, 1.0], count)
    multiples = np.concatenate([np.arange(1, 60), 2.0 ** rng.uniform(5, 1000 if bits == 64 else 120, count // 2)])
    exact = [0.0, 1.0, 2.0, 3.0, 0.5, 0.25, 10.0, 100.0, 1000.0, info.max, info.tiny, info.smallest_subnormal, np.inf]
    special = np.array([*exact, np.nan])
    numbers = [
        rng.uniform(low, high, 2 * count),
        rng.uniform(-1.2, 1.2, count),
        powers,
        1 + powers / 8,
        np.round(multiples) * (np.pi / 2),
        special,
        -special,
    ]
    patterns = rng.integers(0, 2**bits, count, dtype=f"uint{bits}").view(dtype)
    return [np.concatenate([patterns, np.concatenate(numbers).astype(dtype)])]


def pairs(name, bits, count, seed):
    """Operands of a function of two: random bit patterns, uniform ones, alike ones, and for powers in-range results."""
    rng = np.random.default_rng(seed)
    dtype = DTYPES[bits]
    patterns = rng.integers(0, 2**bits, (2, 2 * count), dtype=f"uint{bits}").view(dtype)
    patterns[~np.isfinite(patterns)] = 1.0
    uniform = rng.uniform(-4, 4, (2, 2 * count)).astype(dtype)
    with np.errstate(over="ignore"):
        near = np.stack([patterns[0], patterns[0] * rng.uniform(0.2, 5, 2 * count).astype(dtype)])
    mixed = np.stack([patterns[0], uniform[0]])
    drawn = [patterns, uniform, near, mixed, mixed[::-1]]
    if name == "pow":
        limit = 745.2 if bits == 64 else 104.0
        base = np.abs(np.concatenate([patterns[0], uniform[0], 1 + uniform[1] / 1000]))
        base = base[(base > 0) & (base != 1)]
        exponent = (rng.uniform(-limit, limit, base.size) / np.log(base.astype(float))).astype(dtype)
        integers = np.round(rng.uniform(-30, 30, base.size)).astype(dtype)
        drawn += [np.stack([base, exponent]), np.stack([-base, integers])]
    operands = np.concatenate(drawn, axis=1)
    finite = np.isfinite(operands).all(axis=0) & (operands != 0).all(axis=0)
    return [np.ascontiguousarray(x) for x in operands[:, finite]]


def in_two(value):
    """A number of many digits as the sum of two doubles."""
    high = float(value)
    return high, float(value - high) if math.isfinite(high) else 0.0


def reference(name, operands):
    """The exact results as the sum of two doubles."""
    rows = zip(*(x.tolist() for x in operands), strict=True)
    return np.array([in_two(mp.nan if any(map(math.isnan, row)) else EXACT[name](*map(mpf, row))) for row in rows]).T


def ulps(result, high, low):
    """How far a result is off, in ulps of the exact value; infinite where only one is NaN or infinite."""
    info = np.finfo(result.dtype)
    with np.errstate(all="ignore"):
        nearest = high.astype(result.dtype)
        spacing = np.spacing(np.minimum(np.abs(nearest), info.max)).astype(float)
        off = np.abs((result.astype(float) - high) - low) / spacing
        neighbours = (np.maximum(np.abs(result), np.abs(nearest)) == np.inf) & (
            np.minimum(np.abs(result), np.abs(nearest)) == info.max
        )
    off[neighbours & (np.sign(result) == np.sign(nearest))] = 1.0  # the largest number and infinity
    same = (np.isinf(nearest) & (result == nearest)) | (np.isnan(result) & np.isnan(nearest))
    return np.where(same, 0.0, np.where(np.isnan(off), np.inf, off))


@functools.cache
def case(name, bits, count=150, seed=1):
    """Operands and exact results."""
    draw = points if FUNCTIONS[name].arity == 1 else pairs
    operands = draw(name, bits, count, seed)
    return operands, reference(name, operands)


def apply_alone(name, *operands, target):
    """`apply` by the function of one number."""
    bits = 8 * operands[0].itemsize
    kind = {64: ctypes.c_double, 32: ctypes.c_float}[bits]
    call = ctypes.CFUNCTYPE(kind, *[kind] * len(operands))(address(scalar_symbol(name, bits), target))
    rows = zip(*(x.tolist() for x in operands), strict=True)
    return np.array([call(*row) for row in rows], operands[0].dtype)


FORMS = {"vector": apply, "number": apply_alone}


def assert_within_two_ulps(name, level, operands, exact, form="vector"):
    off = ulps(FORMS[form](name, *operands, target=llvm.target(level)), *exact)
    worst = int(np.argmax(off))
    assert off[worst] <= ULPS, f"{off[worst]} ulp at {[float(x[worst]).hex() for x in operands]}"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bits", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_is_at_most_two_ulps(name, bits, form, level):
    assert_within_two_ulps(name, level, *case(name, bits), form)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
@pytest.mark.parametrize("bits", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_is_at_most_two_ulps_on_many_numbers(name, bits, seed):
    operands, exact = case.__wrapped__(name, bits, 5000, seed)
    for level, form in itertools.product(LEVELS, FORMS):
        assert_within_two_ulps(name, level, operands, exact, form)


def worst_of_many(name, bits, level, count, seed):
    """Of many numbers of every size, those whose results are farthest off by extended precision."""
    rng = np.random.default_rng(seed)
    scales = 2.0 ** np.arange(-14, 11)
    x = np.concatenate([scales[:, None] * rng.uniform(1, 2, (scales.size, count)), rng.uniform(0.7, 1.5, (9, count))])
    x = np.concatenate([x.ravel(), -x.ravel()]).astype(DTYPES[bits])
    with np.errstate(all="ignore"):
        exact = getattr(np, name)(x.astype(np.longdouble))
        off = np.abs(apply(name, x, target=llvm.target(level)) - exact) / np.spacing(np.abs(exact.astype(x.dtype)))
    off[~np.isfinite(off)] = 0.0
    return x[np.argsort(off)[-10:]]


SAMPLED = [n for n, f in FUNCTIONS.items() if f.arity == 1 and isinstance(getattr(np, n, None), np.ufunc)]


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="no extended precision here")
@pytest.mark.parametrize("bits", DTYPES)
@pytest.mark.parametrize("name", SAMPLED)
def test_error_is_at_most_two_ulps_where_it_is_largest(name, bits):
    for level in LEVELS:
        x = [worst_of_many(name, bits, level, 2_000, 1)]
        assert_within_two_ulps(name, level, x, reference(name, x))


@pytest.mark.slow
@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 60, reason="no extended precision here")
@pytest.mark.parametrize("bits", DTYPES)
@pytest.mark.parametrize("name", SAMPLED)
def test_error_is_at_most_two_ulps_where_it_is_largest_of_millions(name, bits):
    for level, seed in itertools.product(LEVELS, (2, 3)):
        x = [worst_of_many(name, bits, level, 30_000, seed)]
        assert_within_two_ulps(name, level, x, reference(name, x))


def test_ulps_finds_what_is_planted():
    high, low = np.array([1.0, 1.0, np.inf, np.nan, 0.0, 1.0, np.inf]), np.array([0.0, 2.0**-54, 0, 0, 0, 0, 0])
    result = np.array([1.0 + 2.0**-52, 1.0, -np.inf, 0.0, 5e-324, np.nan, np.finfo(float).max])
    np.testing.assert_array_equal(ulps(result, high, low), [1.0, 0.25, np.inf, np.inf, 1.0, np.inf, 1.0])


# Special values

SPECIAL = [0.0, 0.5, 1.0, 2.0, 3.0, 2.5, 1e-310, 1e-30, 1e30, 1e18, 2.0**53 - 1, np.inf, np.nan]


def standard(name, *x):
    """What C and NumPy give."""
    with np.errstate(all="ignore"):
        if name in ("erf", "erfc"):
            return np.array([getattr(math, name)(v) for v in x[0].tolist()]).astype(x[0].dtype)
        return 1 / (1 + np.exp(-x[0])) if name == "sigmoid" else getattr(np, name)(*x)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bits", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_zeros_infinities_and_nan_are_exact(name, bits, form, level):
    values = [sign * value for value in SPECIAL for sign in (1.0, -1.0)]
    with np.errstate(all="ignore"):
        rows = np.array(list(itertools.product(values, repeat=FUNCTIONS[name].arity))).astype(DTYPES[bits]).T
    operands = [np.ascontiguousarray(x) for x in rows]
    expected = standard(name, *operands)
    result = FORMS[form](name, *operands, target=llvm.target(level))
    exact = ~np.isfinite(expected) | (expected == 0.0) | (np.abs(expected) == 1.0)
    np.testing.assert_array_equal(result[exact], expected[exact])
    signed = exact & ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(result[signed]), np.signbit(expected[signed]))
    rtol, atol = (1e-14, 1e-320) if bits == 64 else (1e-6, 1e-44)
    np.testing.assert_allclose(result, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bits", DTYPES)
@pytest.mark.parametrize(
    ("name", "inverse"),
    [("exp", mp.log), ("expm1", mp.log), ("sinh", mp.asinh), ("cosh", mp.acosh)],
)
def test_overflow_is_where_it_belongs(name, inverse, bits, level):
    """Between the two numbers around the argument that gives the largest number."""
    dtype = DTYPES[bits]
    info = np.finfo(dtype)
    threshold = inverse(mpf(float(info.max)) * (1 + mpf(2) ** -(info.nmant + 2)))
    last = dtype(float(threshold))
    if mpf(float(last)) > threshold:
        last = np.nextafter(last, dtype(0))
    for form in FORMS.values():
        result = form(name, np.array([last, np.nextafter(last, dtype(np.inf))]), target=llvm.target(level))
        assert np.isfinite(result[0]) and result[1] == np.inf


@pytest.mark.parametrize("level", LEVELS)
def test_underflow_is_where_it_belongs(level):
    for form in FORMS.values():
        compute = functools.partial(form, target=llvm.target(level))
        x = np.array([-745.1332191019411, -745.1332191019412, -708.3964185322641])
        np.testing.assert_array_equal(compute("exp", x), [5e-324, 0.0, 2.2250738585072626e-308])
        x = np.array([-1074.0, -1074.9, -1075.1, -1022.0])
        np.testing.assert_array_equal(compute("exp2", x), [5e-324, 5e-324, 0.0, 2.0**-1022])


@pytest.mark.parametrize("form", FORMS)
def test_exact_powers_are_exact(form):
    apply = functools.partial(FORMS[form], target=llvm.target())
    k = np.arange(-1022.0, 1024.0)
    np.testing.assert_array_equal(apply("exp2", k), 2.0**k)
    np.testing.assert_array_equal(apply("log2", 2.0**k), k)
    ten = 10.0 ** np.arange(23.0)
    np.testing.assert_array_equal(apply("log10", ten), np.arange(23.0))
    n = np.arange(-2000.0, 2000.0)
    np.testing.assert_array_equal(apply("cbrt", n**3), n)
    np.testing.assert_array_equal(apply("pow", n, np.full_like(n, 3.0)), n**3)
    np.testing.assert_array_equal(apply("hypot", 3.0 * n, 4.0 * n), 5.0 * np.abs(n))


# Lanes


def assert_same_bits(result, expected):
    """Equal, zeros with the same sign; one NaN is as good as another."""
    np.testing.assert_array_equal(result, expected)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(result[number]), np.signbit(expected[number]))


@functools.cache
def mixture(name, bits):
    """Ordinary numbers, huge ones, subnormals, zeros, infinities and NaN in random order."""
    rng = np.random.default_rng(7)
    operands, _ = case(name, bits)
    special = np.array([v for x in SPECIAL for v in (x, -x)])
    mixed = []
    with np.errstate(over="ignore"):
        for x in operands:
            values = np.where(rng.random(900) < 0.3, rng.choice(special, 900), rng.choice(x, 900))
            mixed.append(values.astype(DTYPES[bits]))
    return mixed


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("bits", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_lane_does_not_depend_on_its_neighbours(name, bits, level):
    """Mixed with NaN, infinities and slow cases each lane gives what a vector of its number alone gives."""
    target = llvm.target(level)
    operands, lanes = mixture(name, bits), target.lanes(bits)
    alone = apply(name, *(np.repeat(x, lanes) for x in operands), target=target)
    assert_same_bits(alone, np.repeat(alone[::lanes], lanes))
    assert_same_bits(apply(name, *operands, target=target), alone[::lanes])


# Large arguments of the circular functions

# The doubles nearest to multiples of pi/2 (Muller, Elementary Functions, chapter 11), and others.
HARD = [6381956970095103.0 * 2.0**797, 5319372648326541.0 * 2.0**-22, 1e22, 1e300, 2.0**1023, 1e6, 1.0000001e6, 8192.5]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_large_arguments_are_reduced_exactly(name, form, level):
    x = np.array([sign * value for value in HARD for sign in (1.0, -1.0)])
    assert_within_two_ulps(name, level, [x], reference(name, [x]), form)


def test_large_and_small_arguments_share_a_vector():
    x = np.array([1e-8, 1e300, 0.5, np.inf, -1e22, np.nan, -0.0, 3.0])
    alone = np.array([apply("sin", x[k : k + 1])[0] for k in range(len(x))])
    np.testing.assert_array_equal(apply("sin", x), alone)


def test_parts_of_pi_are_right():
    with mp.workprec(1400):
        bits = int(mp.floor(2 / mp.pi * mpf(2) ** 1216))
        words = [bits >> 64 * k & 2**64 - 1 for k in reversed(range(19))]
        assert list(trigonometric.TWO_OVER_PI) == [0, *words]
        for (width, fused), parts in trigonometric.PARTS.items():
            used = sum(map(mpf, parts))
            assert abs(mp.pi / 2 - used) < 2.0 ** (-140 if width == 64 else -70)
            if not fused:  # products with integers up to 2**20 are exact
                assert all(mpf(part) * 2**33 % mpf(2) ** math.frexp(part)[1] == 0 for part in parts[:-1])
            if width == 32:
                assert all(np.float32(part) == part for part in parts[:-1])


# Machine code


@pytest.mark.parametrize("level", LEVELS)
def test_no_library_is_called(level):
    """Every call goes to a function of the module: the slow path of the circular functions."""
    target = llvm.target(level)
    text = llvm.assembly(library_ir(target, loops=False), target)
    mentioned = set(re.findall(r"(?:\bcall[ql]?|\bjmp|\bbl?|\bmovabsq)[ \t]+\$?([A-Za-z_]\w*)", text))
    assert mentioned <= {trigonometric.REDUCE_LARGE, "ft_two_over_pi"}


@pytest.mark.skipif(not llvm.is_x86(), reason="looks for x86 instructions")
@pytest.mark.parametrize("level", LEVELS)
def test_code_keeps_to_its_instruction_set(level):
    target = llvm.target(level)
    text = llvm.assembly(library_ir(target), target)
    registers = {name for name, width in (("zmm", 512), ("ymm", 256)) if width <= target.vector_bits}
    assert {name for name in ("zmm", "ymm") if f"%{name}" in text} - {"ymm"} <= registers
    assert bool(re.search(r"\bvfn?m(add|sub)", text)) == target.fma
    assert ("vscalef" in text) == target.scalef


def test_generated_code_can_call_the_functions():
    target = llvm.target()
    function, declared = function_ir(FUNCTIONS["tanh"], 64, target)
    lanes = target.lanes(64)
    caller = f"""
define void @twice(ptr %p) #0 {{
  %x = load <{lanes} x double>, ptr %p, align 8
  %y = call <{lanes} x double> @ft_tanh_f64(<{lanes} x double> %x)
  %z = call <{lanes} x double> @ft_tanh_f64(<{lanes} x double> %y)
  store <{lanes} x double> %z, ptr %p, align 8
  ret void
}}"""
    code = llvm.compile_ir(module_text(target, declared, [function, caller]), target)
    compiled = llvm.load(code, target)
    x = np.linspace(-2.0, 2.0, lanes)
    expected = np.tanh(np.tanh(x))
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(compiled.address("twice"))(x.ctypes.data)
    np.testing.assert_allclose(x, expected, rtol=1e-15)
    with pytest.raises(KeyError):
        compiled.address("thrice")


def test_compiled_code_can_call_the_functions_by_address():
    """Through a pointer, as emitted programs do, with vectors and with numbers."""
    target = llvm.target()
    lanes = target.lanes(64)
    text = f"""
define void @both(ptr %vectors, ptr %numbers, ptr %p) #0 {{
  %x = load <{lanes} x double>, ptr %p, align 8
  %y = call <{lanes} x double> %vectors(<{lanes} x double> %x)
  store <{lanes} x double> %y, ptr %p, align 8
  %q = getelementptr double, ptr %p, i64 {lanes}
  %a = load double, ptr %q
  %b = call double %numbers(double %a)
  store double %b, ptr %q
  ret void
}}"""
    compiled = llvm.load(llvm.compile_ir(module_text(target, set(), [text]), target), target)
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(compiled.address("both"))
    x = np.linspace(-2.0, 2.0, lanes + 1)
    expected = np.append(np.tanh(x[:-1]), np.exp(x[-1]))
    call(address(symbol("tanh", 64)), address(scalar_symbol("exp", 64)), x.ctypes.data)
    np.testing.assert_allclose(x, expected, rtol=1e-15)


def test_entries_have_addresses_that_stay():
    assert len(ENTRIES) == 6 * len(FUNCTIONS)
    found = address("ft_exp_f64")
    assert found == address("ft_exp_f64") == address("ft_exp_f64", llvm.target())
    loaded.cache_clear()  # as where two threads asked at once
    assert address("ft_exp_f64") == found
    with pytest.raises(KeyError):
        address("ft_exp_f16")


def test_threads_may_ask_at_once():
    target = llvm.target(LEVELS[-1])
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda k: address(scalar_symbol("cbrt", 64 - 32 * (k % 2)), target), range(64)))
    assert len(set(found)) == 2


def test_code_is_kept_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("FUNCTRACE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(disk_cache, "_generator", lambda: "these sources")
    disk_cache._environment.cache_clear()
    asked = []

    def make():
        asked.append(0)
        return library_ir(llvm.target(), ["exp"], loops=False)

    codes = [disk_cache.object_code("exp", llvm.target(), make, part) for part in "aab"]
    assert len(asked) == 2 and codes[0] == codes[1] == codes[2]
    assert llvm.load(codes[1], llvm.target()).address("ft_exp_f32_scalar")
    monkeypatch.setenv("FUNCTRACE_CACHE", "0")
    assert disk_cache.object_code("exp", llvm.target(), make, "a") == codes[0] and len(asked) == 3
    disk_cache._environment.cache_clear()


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES.values())
def test_every_length_is_served_and_nothing_beyond(dtype, level):
    target = llvm.target(level)
    for n in range(2 * target.lanes(32) + 2):
        x, out = np.linspace(0.0, 1.0, n, dtype=dtype), np.full(n + 1, 7.0, dtype)
        result = apply("exp", x, out=out[:n], target=target)
        np.testing.assert_allclose(result, np.exp(x), rtol=1e-6)
        assert out[n] == 7.0
    square = np.ones((3, 5), dtype)
    assert apply("hypot", square, square, target=target).shape == (3, 5)


def test_apply_refuses_what_it_cannot_read():
    x = np.ones(8)
    with pytest.raises(ValueError, match="contiguous and of one shape"):
        apply("exp", x[::2])
    with pytest.raises(ValueError, match="contiguous and of one shape"):
        apply("hypot", x, x[:4])
    with pytest.raises(ValueError, match="float64 or float32"):
        apply("exp", np.ones(8, int))
    with pytest.raises(ValueError, match="this CPU cannot run 'avx1024' code"):
        llvm.target("avx1024")


def test_llvmlite_loads_on_first_use():
    code = "import sys, functrace.backend.vmath.module; print('llvmlite' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
