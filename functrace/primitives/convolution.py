"""Convolution of sequences along the last axis; leading axes are a batch that both operands have."""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.core.types import ShapedArray
from functrace.core.work import counted
from functrace.primitives import _scatters
from functrace.primitives._structures import convolution
from functrace.primitives.bilinear import bilinear
from functrace.primitives.families import broadcast
from functrace.primitives.shape import reverse, slice_

__all__ = ["convolve"]


def _convolve_impl(x: Any, y: Any) -> Any:
    if x.ndim == 1:
        return np.convolve(x, y).astype(x.dtype, copy=False)
    out = np.empty((*x.shape[:-1], x.shape[-1] + y.shape[-1] - 1), x.dtype)
    for row in np.ndindex(x.shape[:-1]):
        out[row] = np.convolve(x[row], y[row])
    return out


def _adjoint(bar: Any, aval: ShapedArray, other: Any) -> Any:
    """The correlation of the cotangent with the other operand, where they overlap wholly."""
    last = len(bar.shape) - 1
    start = other.shape[-1] - 1
    full = convolve(bar, reverse(other, axes=(last,)))
    starts, stops = (0,) * last + (start,), (*bar.shape[:-1], start + aval.shape[-1])
    return slice_(full, starts=starts, stops=stops, steps=(1,) * (last + 1))


def _batch(size: int, values: list[Any], batched: list[bool]) -> tuple[list[Any], list[bool]]:
    x, y = [
        v if done else broadcast(v, shape=(size, *v.shape), axes=tuple(range(1, 1 + len(v.shape))))
        for v, done in zip(values, batched, strict=True)
    ]
    return [convolve(x, y)], [True]


#: out[..., k] = sum over j of x[..., j] y[..., k - j]; neither sequence is empty.
convolve = bilinear(
    "convolve",
    _convolve_impl,
    lambda x, y: ShapedArray((*x.shape[:-1], x.shape[-1] + y.shape[-1] - 1), x.dtype),
    lambda bar, x, y: _adjoint(bar, x, y),
    lambda bar, x, y: _adjoint(bar, y, x),
    _batch,
    sparsity=convolution,
    cost=counted(lambda operands, outs: 2 * operands[0].size * operands[1].shape[-1]),
    lower=_scatters.convolution,
)
