"""Elementwise primitives: arithmetic, exponentials, trigonometry, complex parts, selection, rounding.

Derivatives are written with operators and the primitives of this file; operands are named x, y and the output out.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.core.primitive import Masked, is_linear
from functrace.core.series import Series, coefficient_of, product_coefficient
from functrace.core.structure import Moves, Pointwise, Structure, known
from functrace.core.types import ShapedArray, is_inexact
from functrace.core.work import Layout, View, Work, kept_order
from functrace.errors import DTypeError
from functrace.primitives import _codes, _codes_complex, _codes_numbers, _codes_special, kinks
from functrace.primitives._ufuncs import by_ufunc
from functrace.primitives.families import (
    add,
    broadcast,
    elementwise,
    is_number,
    is_one,
    mul,
    neg,
    nonzero,
    same_dtype,
    unwrap,
)
from functrace.util import user_line

__all__ = [
    "FUNCTION",
    "abs_",
    "add",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "bitwise_and",
    "bitwise_count",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "cbrt",
    "ceil",
    "complex_",
    "conj",
    "convert",
    "copysign",
    "cos",
    "cosh",
    "div",
    "equal",
    "exp",
    "exp2",
    "expm1",
    "exponent",
    "floor",
    "floor_divide",
    "fmax",
    "fmin",
    "fmod",
    "gcd",
    "greater",
    "greater_equal",
    "hypot",
    "imag",
    "isfinite",
    "isinf",
    "isnan",
    "lcm",
    "ldexp",
    "left_shift",
    "less",
    "less_equal",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logaddexp2",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "mul",
    "neg",
    "nextafter",
    "not_equal",
    "positive",
    "power",
    "real",
    "reciprocal",
    "remainder",
    "right_shift",
    "rint",
    "select",
    "sign",
    "signbit",
    "sin",
    "sinc",
    "sinh",
    "spacing",
    "sqrt",
    "square",
    "stop_gradient",
    "sub",
    "tan",
    "tanh",
    "trunc",
    "zero_of",
]  # fmt: skip


#: Arithmetic operations that an elementary function counts for, about those of its kernel.
FUNCTION = 20


def zero_of(x: Any) -> Any:
    """The number 0 in the dtype of `x`."""
    return x.dtype.type(0)


def _cost_same(operands: Sequence[Layout], outs: Sequence[ShapedArray]) -> Work:
    """The operand itself."""
    return Work(read=0, written=0, results=[View(0, operands[0].strides)])


def _cost_part(operands: Sequence[Layout], outs: Sequence[ShapedArray]) -> Work:
    """A view of every other number, or of a real operand itself; of complex scalars and zeros no view."""
    (x,) = operands
    factor = x.dtype.itemsize // outs[0].dtype.itemsize
    return Work(read=0, written=0, results=[View(0, tuple(factor * s for s in x.strides))])


# selection and conversion


def _select_impl(mask: Any, x: Any, y: Any) -> Any:
    return unwrap(np.where(mask, x, y))


def _select_dtype(name: str, mask: np.dtype, *dtypes: np.dtype) -> np.dtype:
    if mask != np.bool_:
        raise DTypeError("select needs a boolean condition", where=user_line(), got=mask.name, remedy="compare first")
    return same_dtype(name, *dtypes)


def _select_jvp(primals: list[Any], tangents: list[Any]) -> tuple[list[Any], list[Any]]:
    mask, x, y = primals
    out = select(mask, x, y)
    _, x_dot, y_dot = tangents
    if x_dot is None and y_dot is None:
        return [out], [None]
    zero = zero_of(out)
    return [out], [select(mask, zero if x_dot is None else x_dot, zero if y_dot is None else y_dot)]


def _select_transpose(bars: list[Any], mask: Any, x: Any, y: Any) -> list[Any]:
    bar = bars[0]
    if is_linear(mask) and is_linear(x) != is_linear(y):
        # A program that was transposed before: the condition is that a cotangent is not 0, and the other choice 0.
        return [None, bar if is_linear(x) else None, bar if is_linear(y) else None]
    if mask.shape != bar.shape:  # one condition for a whole array: the dead elements are counted one by one
        mask = broadcast(mask, shape=bar.shape, axes=())
    x_bar = Masked(select(mask, bar, zero_of(bar)), mask) if is_linear(x) else None
    y_bar = Masked(select(mask, zero_of(bar), bar), logical_not(mask)) if is_linear(y) else None
    return [None, x_bar, y_bar]


def _select_taylor(order: int, operands: list[Any], out: list[Any]) -> Any:
    mask = coefficient_of(operands[0], 0)
    x, y = coefficient_of(operands[1], order), coefficient_of(operands[2], order)
    if x is None and y is None:
        return None
    zero = zero_of(out[0])
    return select(mask, zero if x is None else x, zero if y is None else y)


def _select_sparsity(operands: list[Any], outs: list[ShapedArray]) -> list[Structure]:
    mask = known(operands[0])
    if mask is None:
        return [Pointwise([False, True, True])]
    return [Moves(lambda _, x, y: np.where(mask, x, y))]


select = elementwise(
    "select",
    _select_impl,
    jvp=_select_jvp,
    transpose=_select_transpose,
    taylor=_select_taylor,
    result=_select_dtype,
    sparsity=_select_sparsity,
    flops=0,
    formula="where(x, y, z)",
    lower=_codes.select,
)


def _convert_jvp(primals: list[Any], tangents: list[Any], *, dtype: np.dtype) -> tuple[list[Any], list[Any]]:
    out = convert(primals[0], dtype=dtype)
    return [out], [convert(tangents[0], dtype=dtype) if is_inexact(dtype) else None]


def _convert_impl(x: Any, *, dtype: np.dtype) -> Any:
    if dtype.kind not in "cb" and x.dtype.kind == "c":
        x = x.real
    return x.astype(dtype)


convert = elementwise(
    "convert",
    _convert_impl,
    jvp=_convert_jvp,
    transpose=lambda bars, x, *, dtype: [convert(bars[0], dtype=x.aval.dtype)],
    result=lambda name, x, *, dtype: dtype,
    fold=lambda operands, *, dtype: operands[0],
    flops=0,
    curvature=(),
    kink=kinks.conversion(),
    formula=lambda x, *, dtype: "x" if dtype.kind in "fc" else f"{dtype.name}(x)",
    lower=_codes.convert,
)
stop_gradient = elementwise("stop_gradient", lambda x: x, cost=_cost_same, lower=_codes.same)

# arithmetic


def _div_taylor(order: int, operands: list[Any], out: list[Any]) -> Any:
    """out_k = (x_k - sum over j >= 1 of y_j out_(k-j)) / y_0"""
    x, y = operands
    numerator = coefficient_of(x, order)
    taken = product_coefficient(operator.mul, y, Series(out, _no_more), order, first=1)
    if taken is not None:
        numerator = -taken if numerator is None else numerator - taken
    return None if numerator is None else numerator / coefficient_of(y, 0)


def _no_more(order: int) -> Any:
    raise AssertionError("a recurrence reads only the coefficients before its own")


def _inverse(y: Any) -> Any:
    """1 / y; NumPy's infinity where Python's own division by zero raises."""
    return np.true_divide(1, y) if type(y) in (float, complex) and not y else 1 / y


def _transpose_div(bars: list[Any], x: Any, y: Any) -> list[Any]:
    return [div(bars[0], y), None]


sub = elementwise(
    "sub",
    operator.sub,
    (1, -1),
    transpose=lambda bars, x, y: [bars[0] if is_linear(x) else None, neg(bars[0]) if is_linear(y) else None],
    flops=(1, 2),
    formula="x - y",
    lower=(_codes.sub, by_ufunc("numpy.subtract")),
)


def _div_sparsity(operands: list[Any], outs: list[ShapedArray]) -> list[Structure]:
    numerator = nonzero(operands[0])
    return [Pointwise([True, numerator], [(0, 1, True), (1, 1, numerator)])]


div = elementwise(
    "div",
    np.true_divide,
    (lambda x, y, out: _inverse(y), lambda x, y, out: -out / y),
    transpose=_transpose_div,
    taylor=_div_taylor,
    fold=lambda operands: operands[0] if is_one(operands[1]) else None,
    sparsity=_div_sparsity,
    masks="scaling",
    flops=(1, 11),
    formula="x / y",
    lower=(_codes.div, _codes_complex.div),
)
floor_divide = elementwise(
    "floor_divide", np.floor_divide, flops=2, kink=kinks.quotient(np.floor, False), lower=_codes_numbers.floor_divide
)
remainder = elementwise(
    "remainder",
    np.remainder,
    (1, lambda x, y, out: -floor_divide(x, y)),
    curvature=(),
    flops=4,
    kink=kinks.quotient(np.floor, True),
    lower=_codes_numbers.remainder,
)
fmod = elementwise(
    "fmod",
    np.fmod,
    (1, lambda x, y, out: -trunc(div(x, y))),
    curvature=(),
    flops=4,
    kink=kinks.quotient(np.trunc, True),
    lower=_codes_numbers.fmod,
)
positive = elementwise("positive", np.positive, 1, transpose=lambda bars, x: [bars[0]], flops=0, lower=_codes.same)
square = elementwise("square", np.square, lambda x, out: 2 * x, flops=(1, 6), formula="x**2", lower=_codes.square)
reciprocal = elementwise(
    "reciprocal",
    np.reciprocal,
    lambda x, out: -out * out,
    flops=(1, 6),
    formula="1 / x",
    lower=(_codes.reciprocal, _codes_complex.reciprocal),
)
sqrt = elementwise(
    "sqrt", np.sqrt, lambda x, out: 0.5 / out, kink=kinks.undetermined("root of 0", np.abs), lower=_codes.sqrt
)
cbrt = elementwise(
    "cbrt",
    np.cbrt,
    lambda x, out: 1 / (3 * out * out),
    flops=FUNCTION,
    kink=kinks.undetermined("root of 0", np.abs),
    lower=_codes.cbrt,
)


def _power_by_base(x: Any, y: Any, out: Any) -> Any:
    """y x**(y-1), and 0 where y is 0, also at x = 0."""
    if is_number(y):
        if y == 0:
            return zero_of(out)
        return y * x if y == 2 else y * power(x, y - 1)
    nothing = equal(y, zero_of(y))
    return select(nothing, zero_of(out), y * power(x, select(nothing, zero_of(y) + 1, y - 1)))


def _power_by_exponent(x: Any, y: Any, out: Any) -> Any:
    """log(x) x**y, and 0 where x is 0."""
    empty = equal(x, zero_of(out))
    return select(empty, zero_of(out), log(select(empty, zero_of(out) + 1, x)) * out)


def _power_impl(x: Any, y: Any) -> Any:
    if is_number(y):
        return x**y
    return np.power(x, y)


def _power_sparsity(operands: list[Any], outs: list[ShapedArray]) -> list[Structure]:
    exponent = known(operands[1])
    if exponent is None:
        return [Pointwise([True, True], [(0, 0, True), (0, 1, True), (1, 1, True)])]
    varies = nonzero(exponent)
    return [Pointwise([varies, False], [(0, 0, nonzero(exponent * (exponent - 1)))])]


def _power_cost(operands: Sequence[Layout], outs: Sequence[ShapedArray]) -> Work:
    """A square, a root or a reciprocal is one operation, as NumPy does it."""
    simple = operands[1].value is not None and operands[1].value in (-1, 0, 0.5, 1, 2)
    real, complex_ = (1, 6) if simple else (2 * FUNCTION, 8 * FUNCTION)
    each = complex_ if outs[0].dtype.kind == "c" else real
    return Work(each * outs[0].size, results=[kept_order(outs[0].shape, operands)])


power = elementwise(
    "power",
    _power_impl,
    (_power_by_base, _power_by_exponent),
    sparsity=_power_sparsity,
    cost=_power_cost,
    kink=kinks.root_power(),
    formula="x**y",
    lower=(_codes.power, _codes_numbers.integer_power, by_ufunc("numpy.power")),
)

# exponentials and logarithms

exp = elementwise("exp", np.exp, lambda x, out: out, flops=FUNCTION, lower=(_codes.exp, _codes_complex.exp))
exp2 = elementwise("exp2", np.exp2, lambda x, out: math.log(2) * out, flops=FUNCTION, lower=_codes.exp2)
expm1 = elementwise("expm1", np.expm1, lambda x, out: out + 1, flops=FUNCTION, lower=_codes.expm1)
log = elementwise("log", np.log, lambda x, out: 1 / x, flops=FUNCTION, formula="ln(x)", lower=_codes.log)
log2 = elementwise("log2", np.log2, lambda x, out: 1 / (math.log(2) * x), flops=FUNCTION, lower=_codes.log2)
log10 = elementwise("log10", np.log10, lambda x, out: 1 / (math.log(10) * x), flops=FUNCTION, lower=_codes.log10)
log1p = elementwise("log1p", np.log1p, lambda x, out: 1 / (1 + x), flops=FUNCTION, lower=_codes.log1p)


def _share(exponential: Any, x: Any, y: Any, out: Any) -> Any:
    """The softmax weight of x beside y: infinite ones share equally, one of -inf weighs nothing."""
    zero = zero_of(out)
    finite = exponential(sub(x, select(isinf(out), zero, out)))
    infinite = select(equal(x, y), zero + 0.5, convert(greater(x, y), dtype=out.dtype))
    return select(equal(out, out.dtype.type(np.inf)), infinite, finite)


logaddexp = elementwise(
    "logaddexp",
    np.logaddexp,
    (lambda x, y, out: _share(exp, x, y, out), lambda x, y, out: _share(exp, y, x, out)),
    flops=43,
    lower=_codes.logaddexp,
)
logaddexp2 = elementwise(
    "logaddexp2",
    np.logaddexp2,
    (lambda x, y, out: _share(exp2, x, y, out), lambda x, y, out: _share(exp2, y, x, out)),
    flops=43,
    lower=_codes.logaddexp2,
)

# trigonometry and hyperbolics

sin = elementwise("sin", np.sin, lambda x, out: cos(x), flops=FUNCTION, lower=(_codes.sin, _codes_complex.sin))
cos = elementwise("cos", np.cos, lambda x, out: -sin(x), flops=FUNCTION, lower=(_codes.cos, _codes_complex.cos))
tan = elementwise("tan", np.tan, lambda x, out: 1 + out * out, flops=FUNCTION, lower=_codes.tan)
arcsin = elementwise(
    "arcsin",
    np.arcsin,
    lambda x, out: 1 / sqrt((1 - x) * (1 + x)),
    flops=FUNCTION,
    kink=kinks.unit_edge(),
    lower=_codes.arcsin,
)
arccos = elementwise(
    "arccos",
    np.arccos,
    lambda x, out: -1 / sqrt((1 - x) * (1 + x)),
    flops=FUNCTION,
    kink=kinks.unit_edge(),
    lower=_codes.arccos,
)
arctan = elementwise("arctan", np.arctan, lambda x, out: 1 / (1 + x * x), flops=FUNCTION, lower=_codes.arctan)
sinh = elementwise("sinh", np.sinh, lambda x, out: cosh(x), flops=FUNCTION, lower=(_codes.sinh, _codes_complex.sinh))
cosh = elementwise("cosh", np.cosh, lambda x, out: sinh(x), flops=FUNCTION, lower=(_codes.cosh, _codes_complex.cosh))
tanh = elementwise("tanh", np.tanh, lambda x, out: 1 - out * out, flops=FUNCTION, lower=_codes.tanh)
arcsinh = elementwise("arcsinh", np.arcsinh, lambda x, out: 1 / sqrt(x * x + 1), flops=FUNCTION, lower=_codes.arcsinh)
arccosh = elementwise(
    "arccosh",
    np.arccosh,
    lambda x, out: 1 / (sqrt(x - 1) * sqrt(x + 1)),
    flops=FUNCTION,
    kink=kinks.unit_edge(),
    lower=_codes.arccosh,
)
arctanh = elementwise(
    "arctanh", np.arctanh, lambda x, out: 1 / ((1 - x) * (1 + x)), flops=FUNCTION, lower=_codes.arctanh
)


def _over_square(x: Any, r: Any) -> Any:
    """x / r**2, without the square, which would overflow or vanish before the quotient does."""
    return x / r / r


arctan2 = elementwise(
    "arctan2",
    np.arctan2,
    (lambda x, y, out: _over_square(y, hypot(x, y)), lambda x, y, out: -_over_square(x, hypot(x, y))),
    flops=FUNCTION,
    kink=kinks.cut(),
    lower=_codes.arctan2,
)
hypot = elementwise(
    "hypot",
    np.hypot,
    (lambda x, y, out: x / out, lambda x, y, out: y / out),
    flops=4,
    kink=kinks.homogeneous("length 0", np.hypot, np.hypot),
    lower=_codes.hypot,
)


def _sinc_derivative(x: Any, out: Any) -> Any:
    """(cos(pi x) - sinc(x)) / x, by its Taylor series near 0 where that cancels."""
    small = less(abs_(x), x.dtype.type(0.1))
    safe = select(small, zero_of(x) + 1, x)
    z = x * x * math.pi**2
    terms = [2 * n * (-1) ** n / math.factorial(2 * n + 1) for n in range(1, 9)]
    series = zero_of(x) + terms[-1]
    for term in reversed(terms[:-1]):
        series = series * z + term
    return select(small, series * x * math.pi**2, (cos(math.pi * safe) - out) / safe)


sinc = elementwise("sinc", np.sinc, _sinc_derivative, flops=22, lower=_codes_special.sinc)

# complex parts; derivatives follow JAX's convention (the transpose is not conjugated)


def _real_dtype(name: str, x: np.dtype) -> np.dtype:
    return np.empty(0, x).real.dtype


def _complex_dtype(name: str, *dtypes: np.dtype) -> np.dtype:
    return np.result_type(same_dtype(name, *dtypes), np.complex64)


real = elementwise(
    "real",
    lambda x: x.real,
    jvp=lambda primals, tangents: ([real(primals[0])], [real(tangents[0])]),
    curvature=(),
    transpose=lambda bars, x: [complex_(bars[0], zero_of(bars[0])) if x.aval.dtype.kind == "c" else bars[0]],
    result=_real_dtype,
    cost=_cost_part,
    lower=_codes_complex.real,
)
imag = elementwise(
    "imag",
    lambda x: x.imag,
    jvp=lambda primals, tangents: ([imag(primals[0])], [imag(tangents[0])]),
    curvature=(),
    transpose=lambda bars, x: [complex_(zero_of(bars[0]), neg(bars[0])) if x.aval.dtype.kind == "c" else None],
    result=_real_dtype,
    cost=_cost_part,
    lower=_codes_complex.imag,
)
conj = elementwise(
    "conj",
    np.conjugate,
    jvp=lambda primals, tangents: ([conj(primals[0])], [conj(tangents[0])]),
    curvature=(),
    transpose=lambda bars, x: [conj(bars[0])],
    flops=(0, 1),
    lower=_codes_complex.conj,
)


def _complex_impl(x: Any, y: Any) -> Any:
    out = np.empty(np.broadcast_shapes(np.shape(x), np.shape(y)), np.result_type(x, y, np.complex64))
    out.real, out.imag = x, y
    return unwrap(out)


def _complex_jvp(primals: list[Any], tangents: list[Any]) -> tuple[list[Any], list[Any]]:
    x, y = primals
    x_dot, y_dot = tangents
    x_dot = zero_of(y_dot) if x_dot is None else x_dot
    y_dot = zero_of(x_dot) if y_dot is None else y_dot
    return [complex_(x, y)], [complex_(x_dot, y_dot)]


complex_ = elementwise(
    "complex",
    _complex_impl,
    jvp=_complex_jvp,
    curvature=(),
    transpose=lambda bars, x, y: [
        real(bars[0]) if is_linear(x) else None,
        neg(imag(bars[0])) if is_linear(y) else None,
    ],
    result=_complex_dtype,
    flops=0,
    lower=_codes_complex.complex_,
)


def _abs_jvp(primals: list[Any], tangents: list[Any]) -> tuple[list[Any], list[Any]]:
    """|x|' is sign(x), 0 at 0; for complex z the real part of conj(z)/|z| times the tangent."""
    x, x_dot = primals[0], tangents[0]
    out = abs_(x)
    if x.dtype.kind != "c":
        return [out], [mul(sign(x), x_dot)]
    origin = equal(out, zero_of(out))
    size = select(origin, zero_of(out) + 1, out)
    direction = complex_(div(real(x), size), neg(div(imag(x), size)))
    return [out], [real(mul(direction, x_dot))]


def _abs_sparsity(operands: list[Any], outs: list[ShapedArray]) -> list[Structure]:
    return [Pointwise([True], [(0, 0, operands[0].dtype.kind == "c")])]


abs_ = elementwise(
    "abs",
    np.absolute,
    jvp=_abs_jvp,
    sparsity=_abs_sparsity,
    result=lambda name, x: _real_dtype(name, x) if x.kind == "c" else x,
    flops=(1, 4),
    kink=kinks.homogeneous("modulus of 0", np.abs, np.abs),
    formula="abs(x)",
    lower=(_codes.abs_, _codes_complex.abs_),
)

# choosing between operands; ties split evenly


def _choose_jvp(prefers_first: Any) -> Any:
    """The jvp of a primitive that gives one of its operands: the tangent of the chosen, the mean at a tie."""

    def jvp(primals: list[Any], tangents: list[Any]) -> tuple[list[Any], list[Any]]:
        x, y = primals
        x_dot, y_dot = tangents
        primitive, first = prefers_first()
        out = primitive(x, y)
        zero = zero_of(out)
        x_dot = zero if x_dot is None else x_dot
        y_dot = zero if y_dot is None else y_dot
        tie = equal(x, y)
        mean = mul(add(x_dot, y_dot), zero + 0.5)
        return [out], [select(tie, mean, select(first(x, y, out), x_dot, y_dot))]

    return jvp


def _is_chosen(x: Any, y: Any, out: Any) -> Any:
    """Whether x is the chosen operand; a NaN is chosen when the output is NaN."""
    return logical_or(equal(x, out), logical_and(isnan(x), isnan(out)))


maximum = elementwise(
    "maximum",
    np.maximum,
    jvp=_choose_jvp(lambda: (maximum, _is_chosen)),
    curvature=(),
    kink=kinks.choice(np.maximum),
    formula="max(x, y)",
    lower=_codes.maximum,
)
minimum = elementwise(
    "minimum",
    np.minimum,
    jvp=_choose_jvp(lambda: (minimum, _is_chosen)),
    curvature=(),
    kink=kinks.choice(np.minimum),
    formula="min(x, y)",
    lower=_codes.minimum,
)
fmax = elementwise(
    "fmax",
    np.fmax,
    jvp=_choose_jvp(lambda: (fmax, _is_chosen)),
    curvature=(),
    kink=kinks.choice(np.fmax),
    lower=_codes.fmax,
)
fmin = elementwise(
    "fmin",
    np.fmin,
    jvp=_choose_jvp(lambda: (fmin, _is_chosen)),
    curvature=(),
    kink=kinks.choice(np.fmin),
    lower=_codes.fmin,
)

# sign and rounding: piecewise constant

sign = elementwise("sign", np.sign, kink=kinks.step(np.sign, np.abs), lower=_codes.sign)
floor = elementwise("floor", np.floor, kink=kinks.step(np.floor, kinks.to_integer), lower=_codes.floor)
ceil = elementwise("ceil", np.ceil, kink=kinks.step(np.ceil, kinks.to_integer), lower=_codes.ceil)
trunc = elementwise("trunc", np.trunc, kink=kinks.step(np.trunc, kinks.truncation), lower=_codes.trunc)
rint = elementwise("rint", np.rint, kink=kinks.step(np.rint, kinks.to_half), lower=_codes.rint)
spacing = elementwise("spacing", np.spacing)
nextafter = elementwise("nextafter", np.nextafter, (1, None), lower=_codes_numbers.nextafter)
copysign = elementwise(
    "copysign",
    np.copysign,
    (lambda x, y, out: copysign(copysign(zero_of(out) + 1, x), mul(copysign(zero_of(out) + 1, x), y)), None),
    curvature=(),
    kink=kinks.undetermined("sign of 0", kinks.smaller),
    lower=_codes.copysign,
)
ldexp = elementwise(
    "ldexp",
    np.ldexp,
    (lambda x, n, out: ldexp(zero_of(out) + 1, n), None),
    result=lambda name, x, n: x,
    curvature=(),
    lower=_codes_numbers.ldexp,
)
exponent = elementwise(
    "exponent", lambda x: np.frexp(x)[1], result=lambda name, x: np.dtype(np.int32), lower=_codes_numbers.exponent
)

# comparisons, logic, bits


def _boolean(name: str, *dtypes: np.dtype) -> np.dtype:
    same_dtype(name, *dtypes)
    return np.dtype(np.bool_)


equal = elementwise(
    "equal", np.equal, result=_boolean, kink=kinks.comparison(np.equal), formula="x == y", lower=_codes.equal
)
not_equal = elementwise(
    "not_equal",
    np.not_equal,
    result=_boolean,
    kink=kinks.comparison(np.not_equal),
    formula="x != y",
    lower=_codes.not_equal,
)
less = elementwise("less", np.less, result=_boolean, kink=kinks.comparison(np.less), formula="x < y", lower=_codes.less)
less_equal = elementwise(
    "less_equal",
    np.less_equal,
    result=_boolean,
    kink=kinks.comparison(np.less_equal),
    formula="x <= y",
    lower=_codes.less_equal,
)
greater = elementwise(
    "greater", np.greater, result=_boolean, kink=kinks.comparison(np.greater), formula="x > y", lower=_codes.greater
)
greater_equal = elementwise(
    "greater_equal",
    np.greater_equal,
    result=_boolean,
    kink=kinks.comparison(np.greater_equal),
    formula="x >= y",
    lower=_codes.greater_equal,
)
logical_and = elementwise("logical_and", np.logical_and, result=_boolean, lower=_codes.logical_and)
logical_or = elementwise("logical_or", np.logical_or, result=_boolean, lower=_codes.logical_or)
logical_xor = elementwise("logical_xor", np.logical_xor, result=_boolean, lower=_codes.logical_xor)
logical_not = elementwise("logical_not", np.logical_not, result=_boolean, lower=_codes.logical_not)
isfinite = elementwise("isfinite", np.isfinite, result=_boolean, lower=_codes.isfinite)
isinf = elementwise("isinf", np.isinf, result=_boolean, lower=_codes.isinf)
isnan = elementwise("isnan", np.isnan, result=_boolean, lower=_codes.isnan)
signbit = elementwise("signbit", np.signbit, result=_boolean, kink=kinks.step(np.signbit, np.abs), lower=_codes.signbit)
bitwise_and = elementwise("bitwise_and", np.bitwise_and, lower=_codes.bitwise_and)
bitwise_or = elementwise("bitwise_or", np.bitwise_or, lower=_codes.bitwise_or)
bitwise_xor = elementwise("bitwise_xor", np.bitwise_xor, lower=_codes.bitwise_xor)
bitwise_not = elementwise("bitwise_not", np.invert, lower=_codes.bitwise_not)
bitwise_count = elementwise(
    "bitwise_count", np.bitwise_count, result=lambda name, x: np.dtype(np.uint8), lower=_codes_numbers.bitwise_count
)
left_shift = elementwise("left_shift", np.left_shift, lower=_codes.left_shift)
right_shift = elementwise("right_shift", np.right_shift, lower=_codes.right_shift)
gcd = elementwise("gcd", np.gcd, lower=_codes_numbers.gcd)
lcm = elementwise("lcm", np.lcm, lower=_codes_numbers.lcm)
