"""NumPy's remaining elementwise functions, as compositions of primitives or under another one's rules."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.core.trace import EVAL, current_trace
from functrace.errors import DTypeError
from functrace.numpy._axes import as_index
from functrace.numpy._dispatch import implements_ufunc, reject, split_out, traced_ufuncs, write_out
from functrace.numpy._promotion import (
    as_array,
    as_operand,
    as_real_array,
    broadcast_operands,
    cast,
    dtype_of,
    promote,
    resolve,
)
from functrace.numpy._structural import fresh, structural
from functrace.primitives import elementwise as p
from functrace.primitives.reduction import reduce_and
from functrace.primitives.shape import full
from functrace.util import user_line

__all__ = [
    "allclose", "angle", "around", "array_equal", "array_equiv", "deg2rad", "degrees", "divmod", "fabs", "fix",
    "float_power", "frexp", "heaviside", "isclose", "iscomplex", "isneginf", "isposinf", "isreal", "logical_and",
    "logical_not", "logical_or", "logical_xor", "modf", "nan_to_num", "rad2deg", "radians", "round", "sign", "sinc",
]  # fmt: skip

logical_and = implements_ufunc(np.logical_and, p.logical_and)
logical_or = implements_ufunc(np.logical_or, p.logical_or)
logical_xor = implements_ufunc(np.logical_xor, p.logical_xor)
logical_not = implements_ufunc(np.logical_not, p.logical_not)
fabs = implements_ufunc(np.fabs, p.abs_)
float_power = implements_ufunc(np.float_power, p.power)


def composed_ufunc(ufunc: np.ufunc) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function of operands that are promoted as the ufunc promotes them and have one shape."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def traced(*operands: Any, **options: Any) -> Any:
            inputs, out, options = split_out(ufunc, operands, options)
            where = options.pop("where", True)
            reject(ufunc.__name__, **options)
            values = [as_operand(v) for v in inputs]
            dtypes = resolve(ufunc, tuple([dtype_of(v) for v in values]))
            values = broadcast_operands([as_array(cast(v, d)) for v, d in zip(values, dtypes, strict=False)])
            result = function(*values)
            if out is None and where is True:
                return result
            return write_out(ufunc.__name__, result, out, where)

        traced_ufuncs[ufunc] = traced

        @functools.wraps(function)
        def public(*operands: Any, **options: Any) -> Any:
            if current_trace() is EVAL:
                return ufunc(*operands, **options)
            return traced(*operands, **options)

        return public

    return decorate


@composed_ufunc(np.sign)
def sign(x: Any) -> Any:
    """The sign, with derivative 0; of a complex number z, z/|z|, with derivative 0 at 0."""
    if x.dtype.kind != "c":
        return p.sign(x)
    size = p.abs_(x)
    zero = p.zero_of(size)
    origin, far = p.equal(size, zero), p.isinf(size)
    one = p.zero_of(x) + 1
    apart = p.logical_or(origin, far)
    size = p.complex_(p.select(apart, zero + 1, size), zero)
    finite = p.select(origin, p.zero_of(x), p.div(p.select(apart, one, x), size))
    return p.select(far, p.stop_gradient(_direction_of_infinity(p.real(x), p.imag(x))), finite)


def _direction_of_infinity(x: Any, y: Any) -> Any:
    """1, -1, i or -i for the numbers x + iy of which one part is infinite, NaN for both."""
    along, across = p.isinf(x), p.isinf(y)
    nowhere = p.zero_of(x) + x.dtype.type(np.nan)
    undefined = p.logical_and(along, across)

    def part(value: Any, infinite: Any) -> Any:
        return p.select(undefined, nowhere, p.select(infinite, p.sign(value), p.zero_of(value)))

    return p.complex_(part(x, along), part(y, across))


@composed_ufunc(np.heaviside)
def heaviside(x1: Any, x2: Any) -> Any:
    """0, x2 or 1 where x1 is negative, zero or positive; the derivative in x1 is 0."""
    step = cast(p.greater(x1, p.zero_of(x1)), x1.dtype)
    return p.select(p.equal(x1, p.zero_of(x1)), x2, p.select(p.isnan(x1), p.stop_gradient(x1), step))


@composed_ufunc(np.deg2rad)
def deg2rad(x: Any) -> Any:
    """Degrees in radians."""
    return p.mul(x, x.dtype.type(math.pi / 180))


@composed_ufunc(np.radians)
def radians(x: Any) -> Any:
    """Degrees in radians."""
    return p.mul(x, x.dtype.type(math.pi / 180))


@composed_ufunc(np.rad2deg)
def rad2deg(x: Any) -> Any:
    """Radians in degrees."""
    return p.mul(x, x.dtype.type(180 / math.pi))


@composed_ufunc(np.degrees)
def degrees(x: Any) -> Any:
    """Radians in degrees."""
    return p.mul(x, x.dtype.type(180 / math.pi))


@composed_ufunc(np.divmod)
def divmod(x1: Any, x2: Any) -> tuple[Any, Any]:
    """Floor division and remainder, the derivative of the former being 0."""
    return p.floor_divide(x1, x2), p.remainder(x1, x2)


@composed_ufunc(np.modf)
def modf(x: Any) -> tuple[Any, Any]:
    """Fractional part, with derivative 1, and integral part, with derivative 0."""
    finite = p.select(p.isinf(x), p.zero_of(x), x)
    return p.fmod(finite, x.dtype.type(1)), p.trunc(x)


@composed_ufunc(np.frexp)
def frexp(x: Any) -> tuple[Any, Any]:
    """Mantissa and exponent of 2; between powers of 2 the exponent is constant."""
    exponent = p.exponent(x)
    return p.ldexp(x, p.neg(exponent)), exponent


# functions that are no ufuncs


@structural(np.fix)
def fix(x: Any, out: Any = None) -> Any:
    """Rounded towards zero, with derivative 0."""
    value = as_array(x)
    return write_out("fix", fresh(value) if value.dtype.kind in "biu" else p.trunc(value), out)


def _round(function: str, a: Any, decimals: Any, out: Any) -> Any:
    x, decimals = as_array(a), as_index(decimals, "decimals")
    if x.dtype.kind == "b":
        result = cast(x, np.dtype(np.float16))
    elif x.dtype.kind in "iu" and decimals >= 0:
        result = fresh(x)
    elif x.dtype.kind in "iu":
        tens = 10**-decimals
        result = cast(p.mul(p.rint(cast(x, np.dtype(float)) / tens), float(tens)), x.dtype)
    else:
        scale = x.dtype.type(10.0 ** abs(decimals))
        if decimals == 0:
            result = p.rint(x)
        elif decimals > 0:
            result = p.div(p.rint(p.mul(x, scale)), scale)
        else:
            result = p.mul(p.rint(p.div(x, scale)), scale)
    return write_out(function, result, out)


@structural(np.round)
def round(a: Any, decimals: int = 0, out: Any = None) -> Any:
    """Rounded to a number of decimals, with derivative 0."""
    return _round("round", a, decimals, out)


@structural(np.around)
def around(a: Any, decimals: int = 0, out: Any = None) -> Any:
    """Rounded to a number of decimals, with derivative 0."""
    return _round("around", a, decimals, out)


@structural(np.sinc)
def sinc(x: Any) -> Any:
    """sin(pi x) / (pi x), smooth at 0."""
    value = as_array(x)
    return p.sinc(cast(value, np.dtype(float)) if value.dtype.kind in "biu" else value)


@structural(np.angle)
def angle(z: Any, deg: bool = False) -> Any:
    """The argument of a complex number; of a real one 0 or pi, with derivative 0."""
    x = as_array(z)
    if x.dtype.kind == "c":
        result = p.arctan2(p.imag(x), p.real(x))
    else:
        x = cast(x, resolve(np.arctan2, (int, x.dtype))[0])
        result = p.arctan2(p.zero_of(x), p.stop_gradient(x))
    return p.mul(result, result.dtype.type(180 / math.pi)) if deg else result


@structural(np.nan_to_num)
def nan_to_num(x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    """NaNs and infinities replaced by numbers; the derivative is 0 there and 1 elsewhere."""
    value = as_array(x)
    if value.dtype.kind == "c":
        parts = [_replace_part(part, nan, posinf, neginf) for part in (p.real(value), p.imag(value))]
        result = p.complex_(*parts)
    elif value.dtype.kind == "f":
        result = _replace_part(value, nan, posinf, neginf)
    else:
        result = fresh(value)
    if copy:
        return result
    return write_out("nan_to_num", result, x)


def _replace_part(x: Any, nan: Any, posinf: Any, neginf: Any) -> Any:
    limits = np.finfo(x.dtype)
    inf = x.dtype.type(np.inf)
    replacements = [
        (p.isnan(x), nan),
        (p.equal(x, inf), limits.max if posinf is None else posinf),
        (p.equal(x, -inf), limits.min if neginf is None else neginf),
    ]
    for mask, number in replacements:
        x = p.select(*broadcast_operands([mask, cast(as_real_array("nan_to_num", number), x.dtype), x]))
    return x


# questions


@structural(np.isreal)
def isreal(x: Any) -> Any:
    """Where the imaginary part is zero."""
    value = as_array(x)
    if value.dtype.kind != "c":
        return full(shape=value.shape, value=True, dtype=np.dtype(bool))
    part = p.imag(value)
    return p.equal(part, p.zero_of(part))


@structural(np.iscomplex)
def iscomplex(x: Any) -> Any:
    """Where the imaginary part is not zero."""
    return p.logical_not(isreal(x))


def _is_infinite(function: str, x: Any, out: Any, sign_: int) -> Any:
    value = as_array(x)
    if value.dtype.kind == "c":
        raise DTypeError(
            f"numpy.{function} is not defined for complex values",
            where=user_line(),
            got=value.dtype.name,
            remedy="apply it to the real or imaginary part",
        )
    value = cast(value, np.dtype(float)) if value.dtype.kind in "biu" else value
    return write_out(function, p.equal(value, value.dtype.type(sign_ * np.inf)), out)


@structural(np.isposinf)
def isposinf(x: Any, out: Any = None) -> Any:
    """Where the value is positive infinity."""
    return _is_infinite("isposinf", x, out, 1)


@structural(np.isneginf)
def isneginf(x: Any, out: Any = None) -> Any:
    """Where the value is negative infinity."""
    return _is_infinite("isneginf", x, out, -1)


@structural(np.isclose)
def isclose(a: Any, b: Any, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: bool = False) -> Any:
    """Where |a - b| <= atol + rtol |b|, or both are the same infinity."""
    x, y = promote(as_array(a), as_array(b), *([] if _has_float(a, b) else [1.0]))[:2]
    x, y = broadcast_operands([p.stop_gradient(x), p.stop_gradient(y)])
    finite = p.isfinite(y)
    with np.errstate(invalid="ignore"):
        near = p.less_equal(*broadcast_operands([abs(x - y), atol + rtol * abs(y)]))
    result = p.logical_or(p.logical_and(near, finite), p.equal(x, y))
    return p.logical_or(result, p.logical_and(p.isnan(x), p.isnan(y))) if equal_nan else result


def _has_float(*values: Any) -> bool:
    return any(as_array(v).dtype.kind in "fc" for v in values)


def _all(x: Any) -> Any:
    return reduce_and(x, axes=tuple(range(len(x.shape))))


@structural(np.allclose)
def allclose(a: Any, b: Any, rtol: Any = 1e-05, atol: Any = 1e-08, equal_nan: bool = False) -> Any:
    """Whether `isclose` holds everywhere."""
    return _all(isclose(a, b, rtol, atol, equal_nan))


@structural(np.array_equal)
def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> Any:
    """Whether two arrays have the same shape and elements."""
    x, y = as_array(a1), as_array(a2)
    if x.shape != y.shape:
        return False
    same = np.equal(x, y)
    if equal_nan and x.dtype.kind in "fc" and y.dtype.kind in "fc":
        same = p.logical_or(same, p.logical_and(p.isnan(x), p.isnan(y)))
    return _all(same)


@structural(np.array_equiv)
def array_equiv(a1: Any, a2: Any) -> Any:
    """Whether two arrays are equal after broadcasting."""
    x, y = as_array(a1), as_array(a2)
    try:
        np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        return False
    return _all(np.equal(x, y))
