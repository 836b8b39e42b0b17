"""JAX's names for elementwise operations that NumPy has under the same or another one.

They broadcast and promote as NumPy does, where JAX's refuse. Left out is what means something else there (`lax.div`
of integers truncates).
"""

from __future__ import annotations

from typing import Any

import functrace.numpy as fnp
from functrace.scipy import special

abs = fnp.absolute
acos = fnp.arccos
acosh = fnp.arccosh
add = fnp.add
argmax = fnp.argmax
argmin = fnp.argmin
asin = fnp.arcsin
asinh = fnp.arcsinh
atan = fnp.arctan
atan2 = fnp.arctan2
atanh = fnp.arctanh
cbrt = fnp.cbrt
ceil = fnp.ceil
conj = fnp.conj
cos = fnp.cos
cosh = fnp.cosh
digamma = special.digamma
eq = fnp.equal
erf = special.erf
erfc = special.erfc
exp = fnp.exp
exp2 = fnp.exp2
expand_dims = fnp.expand_dims
expm1 = fnp.expm1
floor = fnp.floor
ge = fnp.greater_equal
gt = fnp.greater
imag = fnp.imag
is_finite = fnp.isfinite
le = fnp.less_equal
lgamma = special.gammaln
log = fnp.log
log1p = fnp.log1p
logistic = special.expit
lt = fnp.less
max = fnp.maximum
min = fnp.minimum
mul = fnp.multiply
ne = fnp.not_equal
neg = fnp.negative
pow = fnp.power
real = fnp.real
rem = fnp.fmod
rev = fnp.flip
sign = fnp.sign
sin = fnp.sin
sinh = fnp.sinh
sqrt = fnp.sqrt
square = fnp.square
squeeze = fnp.squeeze
sub = fnp.subtract
tan = fnp.tan
tanh = fnp.tanh
transpose = fnp.transpose


def clamp(min: Any, x: Any, max: Any) -> Any:
    """The elements of `x`, those outside the bounds replaced by the bound."""
    return fnp.clip(x, min, max)


def concatenate(operands: Any, dimension: int) -> Any:
    """The arrays joined along an axis."""
    return fnp.concatenate(operands, axis=dimension)


def integer_pow(x: Any, y: int) -> Any:
    """Elementwise power with a plain integer exponent."""
    return fnp.power(x, y)


def rsqrt(x: Any) -> Any:
    """One over the square root."""
    return 1.0 / fnp.sqrt(x)


__all__ = [name for name in dir() if not name.startswith("_") and name not in {"Any", "annotations", "fnp", "special"}]
