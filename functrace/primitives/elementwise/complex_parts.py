"""The parts of complex numbers and their modulus, which is the absolute value of real ones.

Derivatives follow JAX's convention: the transpose is not conjugated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.core.primitive import is_linear
from functrace.core.structure import Pointwise, Structure
from functrace.core.types import ShapedArray
from functrace.core.work import Layout, View, Work
from functrace.primitives import _codes, _codes_complex, kinks
from functrace.primitives.elementwise.arithmetic import div
from functrace.primitives.elementwise.comparison import equal
from functrace.primitives.elementwise.rounding import sign
from functrace.primitives.elementwise.selection import select, zero_of
from functrace.primitives.families import elementwise, mul, neg, same_dtype, unwrap

__all__ = [
    "abs_",
    "complex_",
    "conj",
    "imag",
    "real",
]


def _cost_part(operands: Sequence[Layout], outs: Sequence[ShapedArray]) -> Work:
    """A view of every other number, or of a real operand itself; of complex scalars and zeros no view."""
    (x,) = operands
    factor = x.dtype.itemsize // outs[0].dtype.itemsize
    return Work(read=0, written=0, results=[View(0, tuple(factor * s for s in x.strides))])


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
