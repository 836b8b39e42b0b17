"""Signs, rounding, and the parts of floating-point numbers."""

from __future__ import annotations

import numpy as np

from functrace.primitives import _codes, _codes_numbers, kinks
from functrace.primitives.elementwise.selection import zero_of
from functrace.primitives.families import elementwise, mul

__all__ = [
    "ceil",
    "copysign",
    "exponent",
    "floor",
    "ldexp",
    "nextafter",
    "rint",
    "sign",
    "spacing",
    "trunc",
]

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
