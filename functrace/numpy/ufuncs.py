"""NumPy's ufuncs in traced form."""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.errors import DTypeError
from functrace.numpy._dispatch import implements, implements_ufunc
from functrace.numpy._promotion import as_array, cast
from functrace.primitives import elementwise as p
from functrace.primitives import special
from functrace.util import user_line

__all__ = [
    "abs", "absolute", "acos", "acosh", "add", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2",
    "arctanh", "asin", "asinh", "atan", "atan2", "atanh", "bitwise_and", "bitwise_count", "bitwise_invert",
    "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift", "bitwise_xor", "cbrt", "ceil", "conj",
    "conjugate", "copysign", "cos", "cosh", "divide", "equal", "exp", "exp2", "expm1", "floor", "floor_divide", "fmax",
    "fmin", "fmod", "gcd", "greater", "greater_equal", "hypot", "i0", "invert", "isfinite", "isinf", "isnan", "lcm",
    "ldexp", "left_shift", "less", "less_equal", "log", "log1p", "log2", "log10", "logaddexp", "logaddexp2", "maximum",
    "minimum", "mod", "multiply", "negative", "nextafter", "not_equal", "positive", "pow", "power", "reciprocal",
    "remainder", "right_shift", "rint", "signbit", "sin", "sinh", "spacing", "sqrt", "square", "subtract", "tan",
    "tanh", "true_divide", "trunc",
]  # fmt: skip

add = implements_ufunc(np.add, p.add)
subtract = implements_ufunc(np.subtract, p.sub)
multiply = implements_ufunc(np.multiply, p.mul)
divide = true_divide = implements_ufunc(np.true_divide, p.div)
floor_divide = implements_ufunc(np.floor_divide, p.floor_divide)
remainder = mod = implements_ufunc(np.remainder, p.remainder)
fmod = implements_ufunc(np.fmod, p.fmod)
negative = implements_ufunc(np.negative, p.neg)
positive = implements_ufunc(np.positive, p.positive)
power = pow = implements_ufunc(np.power, p.power)
square = implements_ufunc(np.square, p.square)
reciprocal = implements_ufunc(np.reciprocal, p.reciprocal)
sqrt = implements_ufunc(np.sqrt, p.sqrt)
cbrt = implements_ufunc(np.cbrt, p.cbrt)
absolute = abs = implements_ufunc(np.absolute, p.abs_)
exp = implements_ufunc(np.exp, p.exp)
exp2 = implements_ufunc(np.exp2, p.exp2)
expm1 = implements_ufunc(np.expm1, p.expm1)
log = implements_ufunc(np.log, p.log)
log2 = implements_ufunc(np.log2, p.log2)
log10 = implements_ufunc(np.log10, p.log10)
log1p = implements_ufunc(np.log1p, p.log1p)
logaddexp = implements_ufunc(np.logaddexp, p.logaddexp)
logaddexp2 = implements_ufunc(np.logaddexp2, p.logaddexp2)
sin = implements_ufunc(np.sin, p.sin)
cos = implements_ufunc(np.cos, p.cos)
tan = implements_ufunc(np.tan, p.tan)
arcsin = asin = implements_ufunc(np.arcsin, p.arcsin)
arccos = acos = implements_ufunc(np.arccos, p.arccos)
arctan = atan = implements_ufunc(np.arctan, p.arctan)
arctan2 = atan2 = implements_ufunc(np.arctan2, p.arctan2)
hypot = implements_ufunc(np.hypot, p.hypot)
sinh = implements_ufunc(np.sinh, p.sinh)
cosh = implements_ufunc(np.cosh, p.cosh)
tanh = implements_ufunc(np.tanh, p.tanh)
arcsinh = asinh = implements_ufunc(np.arcsinh, p.arcsinh)
arccosh = acosh = implements_ufunc(np.arccosh, p.arccosh)
arctanh = atanh = implements_ufunc(np.arctanh, p.arctanh)
maximum = implements_ufunc(np.maximum, p.maximum)
minimum = implements_ufunc(np.minimum, p.minimum)
fmax = implements_ufunc(np.fmax, p.fmax)
fmin = implements_ufunc(np.fmin, p.fmin)
floor = implements_ufunc(np.floor, p.floor)
ceil = implements_ufunc(np.ceil, p.ceil)
trunc = implements_ufunc(np.trunc, p.trunc)
rint = implements_ufunc(np.rint, p.rint)
spacing = implements_ufunc(np.spacing, p.spacing)
nextafter = implements_ufunc(np.nextafter, p.nextafter)
copysign = implements_ufunc(np.copysign, p.copysign)
ldexp = implements_ufunc(np.ldexp, p.ldexp)
conjugate = conj = implements_ufunc(np.conjugate, p.conj)
equal = implements_ufunc(np.equal, p.equal)
not_equal = implements_ufunc(np.not_equal, p.not_equal)
less = implements_ufunc(np.less, p.less)
less_equal = implements_ufunc(np.less_equal, p.less_equal)
greater = implements_ufunc(np.greater, p.greater)
greater_equal = implements_ufunc(np.greater_equal, p.greater_equal)
isfinite = implements_ufunc(np.isfinite, p.isfinite)
isinf = implements_ufunc(np.isinf, p.isinf)
isnan = implements_ufunc(np.isnan, p.isnan)
signbit = implements_ufunc(np.signbit, p.signbit)
bitwise_and = implements_ufunc(np.bitwise_and, p.bitwise_and)
bitwise_or = implements_ufunc(np.bitwise_or, p.bitwise_or)
bitwise_xor = implements_ufunc(np.bitwise_xor, p.bitwise_xor)
invert = bitwise_not = bitwise_invert = implements_ufunc(np.invert, p.bitwise_not)
bitwise_count = implements_ufunc(np.bitwise_count, p.bitwise_count)
left_shift = bitwise_left_shift = implements_ufunc(np.left_shift, p.left_shift)
right_shift = bitwise_right_shift = implements_ufunc(np.right_shift, p.right_shift)
gcd = implements_ufunc(np.gcd, p.gcd)
lcm = implements_ufunc(np.lcm, p.lcm)


@implements(np.i0)
def i0(x: Any) -> Any:
    """The modified Bessel function of the first kind, order 0."""
    x = as_array(x)
    if x.dtype.kind == "c":
        raise DTypeError("i0 takes real values", where=user_line(), got=x.dtype.name, remedy="pass the real part")
    dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.float64)
    wide = np.dtype(np.float32) if dtype.itemsize < 4 else dtype
    return cast(special.i0(cast(x, wide)), dtype)
