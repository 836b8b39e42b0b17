"""Powers, exponentials and logarithms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.core.structure import Pointwise, Structure, known
from functrace.core.types import ShapedArray
from functrace.core.work import Layout, Work, kept_order
from functrace.primitives import _codes, _codes_complex, _codes_numbers, kinks
from functrace.primitives._ufuncs import by_ufunc
from functrace.primitives.elementwise.arithmetic import FUNCTION, sub
from functrace.primitives.elementwise.comparison import equal, greater, isinf, logical_and, logical_not
from functrace.primitives.elementwise.complex_parts import abs_
from functrace.primitives.elementwise.selection import convert, select, zero_of
from functrace.primitives.families import elementwise, is_number, nonzero

__all__ = [
    "exp",
    "exp2",
    "expm1",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logaddexp2",
    "power",
]


def _power_by_base(x: Any, y: Any, out: Any) -> Any:
    """y x**(y-1), and 0 where y is 0, also at x = 0. Away from there 0 is the product's, with a derivative in y."""
    if is_number(y):
        if y == 0:
            return zero_of(out)
        return y * x if y == 2 else y * power(x, y - 1)
    if isinstance(y, np.ndarray) and y.all():
        return y * power(x, y - 1)
    tiny = np.finfo(x.dtype).tiny
    nothing = logical_and(equal(y, zero_of(y)), logical_not(greater(abs_(x), tiny)))
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
