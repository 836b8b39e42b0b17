"""Comparisons, logic and bits: elementwise primitives with a truth value or an integer for a result.

They are piecewise constant, so none of them has a derivative.
"""

from __future__ import annotations

import numpy as np

from functrace.primitives import _codes, _codes_numbers, kinks
from functrace.primitives.families import elementwise, same_dtype

__all__ = [
    "bitwise_and",
    "bitwise_count",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "equal",
    "greater",
    "greater_equal",
    "isfinite",
    "isinf",
    "isnan",
    "left_shift",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "not_equal",
    "right_shift",
    "signbit",
]


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
