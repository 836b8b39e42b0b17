"""Cases of the elementwise primitives: one operand, two, plain numbers as operands, integers, complex numbers."""

import numpy as np

from functrace.core.primitive import Primitive
from functrace.primitives import elementwise as p
from functrace.primitives.families import weighted_sum
from functrace.testing import Case

rng = np.random.default_rng(20260702)

CASES: list[Case] = []


def add(primitive: Primitive, *operands, name: str = "", **options) -> None:
    CASES.append(Case(primitive, operands, options.pop("params", {}), name=name, **options))


def between(low: float, high: float, *shape: int) -> np.ndarray:
    return rng.uniform(low, high, shape)


def signed(low: float, high: float, *shape: int) -> np.ndarray:
    """Both signs, with sizes between low and high."""
    return between(low, high, *shape) * rng.choice([-1.0, 1.0], shape)


def complex_values(*shape: int) -> np.ndarray:
    return between(0.3, 0.9, *shape) + 1j * signed(0.2, 0.8, *shape)


# One real operand: primitive, domain, whether NumPy's function takes complex numbers and is analytic there.
UNARY = [
    (p.neg, -2, 2, True), (p.positive, -2, 2, True), (p.square, -2, 2, True), (p.reciprocal, 0.5, 2, True),
    (p.sqrt, 0.3, 4, True), (p.cbrt, -4, -0.3, False), (p.exp, -2, 2, True), (p.exp2, -2, 2, True),
    (p.expm1, -2, 2, True), (p.log, 0.3, 4, True), (p.log2, 0.3, 4, True), (p.log10, 0.3, 4, True),
    (p.log1p, -0.7, 3, True), (p.sin, -3, 3, True), (p.cos, -3, 3, True), (p.tan, -1.2, 1.2, True),
    (p.arcsin, -0.8, 0.8, True), (p.arccos, -0.8, 0.8, True), (p.arctan, -2, 2, True), (p.sinh, -2, 2, True),
    (p.cosh, -2, 2, True), (p.tanh, -2, 2, True), (p.arcsinh, -2, 2, True), (p.arccosh, 1.3, 4, True),
    (p.arctanh, -0.8, 0.8, True), (p.sinc, 0.15, 2.4, True), (p.abs_, 0.3, 2, False), (p.abs_, -2, -0.3, False),
    (p.cbrt, 0.3, 4, False), (p.sinc, -0.08, 0.08, False),
]  # fmt: skip
COMPLEX_TOO = {"cbrt", "sinc"}
for primitive, low, high, analytic in UNARY:
    for shape in [(4,), (), (2, 1, 3), (0, 2)]:
        add(primitive, between(low, high, *shape), complex_step=analytic, order=3 if shape == (4,) else 2)
    if analytic and primitive.name not in COMPLEX_TOO:
        add(primitive, complex_values(3))
        add(primitive, complex_values())
add(p.abs_, complex_values(2, 2))
add(p.sinc, np.zeros(2), name="at-zero")
add(p.reciprocal, between(-2, -0.5, 3), complex_step=True)

# Two real operands.
BINARY = [
    (p.add, (-2, 2), (-2, 2), True), (p.sub, (-2, 2), (-2, 2), True), (p.mul, (-2, 2), (-2, 2), True),
    (p.div, (-2, 2), (0.5, 2), True), (p.power, (0.3, 2), (-2, 3), True), (p.arctan2, (-2, 2), (0.5, 2), False),
    (p.arctan2, (0.5, 2), (-2, -0.5), False), (p.hypot, (0.5, 2), (-2, -0.5), False),
    (p.logaddexp, (-2, 2), (-2, 2), False), (p.logaddexp2, (-2, 2), (-2, 2), False),
    (p.maximum, (-2, 0), (0.1, 2), False), (p.minimum, (-2, 0), (0.1, 2), False),
    (p.fmax, (0.1, 2), (-2, 0), False), (p.fmin, (0.1, 2), (-2, 0), False),
    (p.remainder, (3.2, 3.8), (0.9, 1.0), False), (p.fmod, (-3.8, -3.2), (0.9, 1.0), False),
    (p.remainder, (-3.8, -3.2), (0.9, 1.0), False), (p.floor_divide, (3.2, 3.8), (0.9, 1.0), False),
]  # fmt: skip
for primitive, left, right, analytic in BINARY:
    for shape in [(4,), (), (2, 0), (2, 3)]:
        add(primitive, between(*left, *shape), between(*right, *shape), complex_step=analytic)
    # A plain number stands for its broadcast, on either side.
    add(primitive, between(*left, 3), float(between(*right)), name="number-right", complex_step=analytic)
    add(primitive, float(between(*left)), between(*right, 3), name="number-left", complex_step=analytic)
    add(primitive, between(*left, 2), np.float64(between(*right)), name="scalar-right", complex_step=analytic)
for primitive in (p.add, p.sub, p.mul, p.div, p.power):
    add(primitive, complex_values(3), complex_values(3))
    add(primitive, complex_values(), complex_values())

for shape in [(3,), (), (2, 0)]:
    add(weighted_sum, *[between(-2, 2, *shape) for _ in range(4)], complex_step=True)
add(weighted_sum, 0.5, between(-2, 2, 3), between(-2, 2, 3), between(-2, 2, 3), name="number", complex_step=True)
add(weighted_sum, *[complex_values(2) for _ in range(4)])

for exponent in (0.0, 1.0, 2.0, 3.0, -1.0, -2.0, 0.5, -0.5, 2.5):
    add(p.power, between(0.5, 2, 3), exponent, name=f"exponent{exponent}", complex_step=True)
for exponent in (0.0, 1.0, 2.0, 3.0, -2.0):
    add(p.power, between(-2, -0.5, 3), exponent, name=f"negative-base{exponent}")
    add(p.power, between(-2, -0.5, 3), np.full(3, exponent), name=f"negative-base-array{exponent}", wrt=(0,))
    add(p.power, complex_values(2), complex(exponent), name=f"complex-exponent{exponent}")
for exponent in (1.0, 2.0, 3.0, 4.0):
    add(p.power, np.zeros(2), exponent, name=f"zero-base{exponent}")
    add(p.power, np.zeros(2), np.full(2, exponent), name=f"zero-base-array{exponent}", wrt=(0,))
add(p.power, np.zeros(2), np.array([2.0, 3.5]), name="zero-base-by-exponent", wrt=(1,))

add(p.copysign, signed(0.3, 2, 4), signed(0.3, 2, 4))
add(p.copysign, signed(0.3, 2), signed(0.3, 2))
add(p.copysign, signed(0.3, 2, 3), -1.0, name="number-right")
add(p.nextafter, between(-2, 2, 3), between(-2, 2, 3), order=1)
add(p.ldexp, between(-2, 2, 4), rng.integers(-3, 4, 4).astype(np.int32))
add(p.ldexp, between(-2, 2), np.int32(3))

# Far from the origin, where a careless formula overflows.
add(p.logaddexp, np.array([800.0, -800.0, 3.0]), np.array([799.0, 0.5, 900.0]), name="far", order=1, atol=1e-6)
add(p.tanh, np.array([-30.0, 25.0]), name="far", complex_step=False)
add(p.expm1, np.array([1e-9, -1e-8]), name="near-zero", complex_step=True)
add(p.log1p, np.array([1e-9, -1e-8]), name="near-zero", complex_step=True)
add(p.hypot, np.array([3e150, 3.0]), np.array([4e150, 4.0]), name="far", order=0)

# Selection and conversion.
mask = np.array([True, False, True, True])
add(p.select, mask, between(-2, 2, 4), between(-2, 2, 4), complex_step=True)
add(p.select, mask, complex_values(4), complex_values(4))
add(p.select, np.bool_(True), between(-2, 2), between(-2, 2), complex_step=True)
add(p.select, mask, 0.0, between(-2, 2, 4), name="number-first", complex_step=True)
add(p.select, mask, between(-2, 2, 4), 0.5, name="number-second", complex_step=True)
add(p.select, np.zeros((0, 3), bool), between(0, 1, 0, 3), between(0, 1, 0, 3))
add(p.select, mask, np.arange(4), np.arange(4) * 2, name="integers")
FLOAT, COMPLEX = np.dtype(np.float64), np.dtype(np.complex128)
add(p.convert, between(-2, 2, 3), params={"dtype": FLOAT}, name="same")
narrower = {"dtype": np.dtype(np.float32)}
add(p.convert, between(-2, 2, 3), params=narrower, name="narrower", rtol=1e-2, atol=1e-2)
single = between(-2, 2, 3).astype(np.float32)
add(p.convert, single, params={"dtype": FLOAT}, name="wider", rtol=1e-4, atol=1e-4)
add(p.convert, between(-2, 2, 2, 2), params={"dtype": COMPLEX}, name="to-complex")
add(p.convert, complex_values(3), params={"dtype": FLOAT}, name="from-complex")
add(p.convert, between(-2, 2, 3), params={"dtype": np.dtype(int)}, name="to-integer")
add(p.convert, np.arange(3), params={"dtype": FLOAT}, name="from-integer")
add(p.convert, np.array([True, False]), params={"dtype": FLOAT}, name="from-bool")
add(p.convert, between(-2, 2), params={"dtype": COMPLEX}, name="scalar")
for shape in [(3,), (), (0,)]:
    add(p.stop_gradient, between(-2, 2, *shape))

# Complex parts.
for shape in [(3,), (), (2, 0)]:
    for primitive in (p.real, p.imag, p.conj):
        add(primitive, complex_values(*shape))
    add(p.complex_, between(-2, 2, *shape), between(-2, 2, *shape))
add(p.complex_, between(-2, 2, 3), 0.5, name="number-right")
add(p.complex_, 0.5, between(-2, 2, 3), name="number-left")
add(p.conj, between(-2, 2, 3), name="of-reals")
add(p.real, between(-2, 2, 3), name="of-reals")

# Piecewise constant, comparisons, logic, bits: values, types and batches; no derivative.
for primitive in (p.sign, p.floor, p.ceil, p.trunc, p.rint, p.spacing, p.isfinite, p.isinf, p.isnan, p.signbit,
                  p.exponent):  # fmt: skip
    for shape in [(4,), (), (0, 2)]:
        add(primitive, signed(0.2, 3, *shape))
for primitive in (p.isfinite, p.isinf, p.isnan):
    add(primitive, np.array([1.0, np.inf, -np.inf, np.nan]), name="special")
add(p.sign, np.arange(-2, 3), name="integers")
add(p.sign, complex_values(2), name="complex")
for primitive in (p.equal, p.not_equal, p.less, p.less_equal, p.greater, p.greater_equal):
    ties = np.array([0.0, 1.0, 2.0, 3.0])
    add(primitive, ties, np.array([0.0, 2.0, 1.0, 3.0]))
    add(primitive, np.float64(1), np.float64(1))
    add(primitive, np.arange(4).reshape(2, 2), np.arange(4)[::-1].reshape(2, 2).copy(), name="integers")
    add(primitive, ties, 1.0, name="number-right")
for primitive in (p.logical_and, p.logical_or, p.logical_xor, p.bitwise_and, p.bitwise_or, p.bitwise_xor):
    add(primitive, np.array([True, True, False, False]), np.array([True, False, True, False]))
    add(primitive, np.bool_(True), np.bool_(False))
for primitive in (p.bitwise_and, p.bitwise_or, p.bitwise_xor, p.left_shift, p.right_shift, p.gcd, p.lcm, p.floor_divide,
                  p.remainder, p.fmod, p.maximum, p.minimum, p.add, p.sub, p.mul, p.power):  # fmt: skip
    add(primitive, rng.integers(1, 9, (2, 3)), rng.integers(1, 5, (2, 3)), name="integers")
    add(primitive, np.int64(12), np.int64(2), name="integer-scalars")
add(p.logical_not, np.array([True, False]))
add(p.logical_not, np.bool_(True))
add(p.logical_and, np.array([1.0, 0.0]), np.array([2.0, 3.0]), name="numbers")
for primitive in (p.bitwise_not, p.bitwise_count):
    add(primitive, rng.integers(0, 99, 5))
    add(primitive, np.int64(12))
add(p.bitwise_not, np.array([True, False]), name="booleans")
