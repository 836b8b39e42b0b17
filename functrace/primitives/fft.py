"""Discrete Fourier transforms along one axis: complex to complex, real to half-complex, and back.

All are linear; the matrix of the complex transforms is symmetric, so that they are their own transposes. `norm` is
that of NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.core.structure import Along, Linked, Structure
from functrace.core.types import ShapedArray
from functrace.core.work import Layout, Work
from functrace.primitives.elementwise import conj, mul, real
from functrace.primitives.families import broadcast
from functrace.primitives.linear import linear
from functrace.primitives.shape import pad, slice_

__all__ = ["REVERSED_NORM", "fft", "ifft", "irfft", "resize", "rfft"]

#: The norm that scales the inverse transform as the given one scales the forward transform.
REVERSED_NORM = {"backward": "forward", "ortho": "ortho", "forward": "backward"}


def _with_length(aval: ShapedArray, axis: int, length: int, dtype: np.dtype) -> ShapedArray:
    return ShapedArray((*aval.shape[:axis], length, *aval.shape[axis + 1 :]), dtype)


def _cost(operands: Sequence[Layout], outs: Sequence[ShapedArray], *, axis: int, **params: Any) -> Work:
    """5 n log2 n for a line of n complex numbers, half of that where one side is real."""
    x, out = operands[0], outs[0]
    n = max(x.shape[axis], out.shape[axis])
    lines = x.size // max(x.shape[axis], 1)
    half = 1 if x.dtype.kind == out.dtype.kind else 2
    return Work(int(5 * n * math.log2(max(n, 2)) * lines) // half)


def _sparsity(operands: list[Any], outs: list[ShapedArray], *, axis: int, **params: Any) -> list[Structure]:
    return [Linked([Along((axis,), keeps=True)])]


def _complex_transform(name: str, numpy_transform: Any) -> Any:
    primitive = linear(
        name,
        lambda x, *, axis, norm: numpy_transform(x, axis=axis, norm=norm),
        lambda aval, *, axis, norm: aval,
        lambda bar, aval, *, axis, norm: primitive(bar, axis=axis, norm=norm),
        lambda size, x, *, axis, norm: primitive(x, axis=axis + 1, norm=norm),
        sparsity=_sparsity,
        masks=None,
        cost=_cost,
    )
    return primitive


fft = _complex_transform("fft", np.fft.fft)
ifft = _complex_transform("ifft", np.fft.ifft)


def _rfft_transpose(bar: Any, aval: ShapedArray, *, axis: int, norm: str) -> Any:
    """The real part of the transform of the half spectrum, zeros after it."""
    zeros = (0,) * aval.ndim
    high = tuple(n - m for n, m in zip(aval.shape, bar.shape, strict=True))
    return real(fft(pad(bar, low=zeros, high=high, interior=zeros), axis=axis, norm=norm))


rfft = linear(
    "rfft",
    lambda x, *, axis, norm: np.fft.rfft(x, axis=axis, norm=norm),
    lambda aval, *, axis, norm: _with_length(
        aval, axis, aval.shape[axis] // 2 + 1, np.result_type(aval.dtype, np.complex64)
    ),
    _rfft_transpose,
    lambda size, x, *, axis, norm: rfft(x, axis=axis + 1, norm=norm),
    sparsity=_sparsity,
    masks=None,
    cost=_cost,
)


def _irfft_transpose(bar: Any, aval: ShapedArray, *, length: int, axis: int, norm: str) -> Any:
    """Inner frequencies stand for two, their own and its mirror image."""
    spectrum = conj(rfft(bar, axis=axis, norm=REVERSED_NORM[norm]))
    weights = np.full(length // 2 + 1, 2, aval.dtype)
    weights[0] = 1
    if length % 2 == 0:
        weights[-1] = 1
    return mul(spectrum, broadcast(weights, shape=aval.shape, axes=(axis,)))


#: `length` is that of the real result; the operand has length // 2 + 1 frequencies.
irfft = linear(
    "irfft",
    lambda x, *, length, axis, norm: np.fft.irfft(x, length, axis, norm),
    lambda aval, *, length, axis, norm: _with_length(aval, axis, length, np.empty(0, aval.dtype).real.dtype),
    _irfft_transpose,
    lambda size, x, *, length, axis, norm: irfft(x, length=length, axis=axis + 1, norm=norm),
    sparsity=_sparsity,
    masks=None,
    cost=_cost,
)


def resize(x: Any, axis: int, length: int) -> Any:
    """The value cut or filled up with zeros to a length along an axis."""
    change = length - x.shape[axis]
    if not change:
        return x
    zeros = (0,) * len(x.shape)
    if change > 0:
        return pad(x, low=zeros, high=(*zeros[:axis], change, *zeros[axis + 1 :]), interior=zeros)
    stops = (*x.shape[:axis], length, *x.shape[axis + 1 :])
    return slice_(x, starts=zeros, stops=stops, steps=(1,) * len(zeros))
