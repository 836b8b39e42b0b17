"""How functions of matrices that are made of others are compiled: in terms of these; see `core.lowering`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.core.lowering import Rewrite
from functrace.primitives.contraction import matmul, permute
from functrace.primitives.elementwise import (
    abs_,
    conj,
    convert,
    equal,
    exp,
    greater,
    imag,
    less_equal,
    mul,
    real,
    reciprocal,
    select,
    sub,
    zero_of,
)
from functrace.primitives.families import broadcast
from functrace.primitives.reduction import argmax, reduce_max
from functrace.primitives.shape import iota

__all__ = ["anchors", "det", "negligible", "pinv", "ties"]

_INDEX = np.dtype(np.intp)


def _suits(*avals: Any, **params: Any) -> bool:
    return all(a.dtype.char in "fdFD" and a.size for a in avals)


def _rows(d: Any, shape: tuple[int, ...]) -> Any:
    return broadcast(d, shape=shape, axes=tuple(range(len(shape) - 1)))


def _columns(d: Any, shape: tuple[int, ...]) -> Any:
    return broadcast(d, shape=shape, axes=(*range(len(shape) - 2), len(shape) - 1))


def _scalars(d: Any, shape: tuple[int, ...]) -> Any:
    return broadcast(d, shape=shape, axes=tuple(range(len(shape) - 2)))


def _adjoint(x: Any) -> Any:
    last = len(x.shape) - 1
    x = conj(x) if x.dtype.kind == "c" else x
    return permute(x, (*range(last - 1), last, last - 1))


def det(slogdet: Callable[[], Any]) -> Rewrite:
    """`slogdet`: gives the primitive."""

    def function(a: Any) -> Any:
        sign, logabs = slogdet()(a)
        size = exp(logabs)
        return mul(sign, size if size.dtype == sign.dtype else convert(size, dtype=sign.dtype))

    return Rewrite(_suits, function)


def pinv(svd: Callable[..., Any]) -> Rewrite:
    def function(a: Any, *, rtol: float | None) -> Any:
        u, s, vh = svd(a, full=False)
        if rtol is None:
            rtol = max(a.shape[-2:]) * float(np.finfo(a.dtype).eps)
        largest = reduce_max(s, axes=(len(s.shape) - 1,))
        limit = _rows(mul(largest, s.dtype.type(rtol)), s.shape)
        kept = greater(s, limit)
        one = s.dtype.type(1)
        inverse = select(kept, reciprocal(select(kept, s, one)), zero_of(s))
        uh = _adjoint(u)
        factor = inverse if s.dtype == u.dtype else convert(inverse, dtype=u.dtype)
        return matmul(_adjoint(vh), mul(_rows(factor, uh.shape), uh))

    return Rewrite(_suits, function)


# which values coincide, vanish or were made real


def _resolution(w: Any) -> Any:
    size = abs_(w)
    largest = reduce_max(size, axes=(len(w.shape) - 1,))
    return mul(largest, size.dtype.type(w.shape[-1] * np.finfo(w.dtype).eps))


def _ties(w: Any) -> Any:
    shape = (*w.shape, w.shape[-1])
    return less_equal(abs_(sub(_rows(w, shape), _columns(w, shape))), _scalars(_resolution(w), shape))


def _negligible(w: Any) -> Any:
    return less_equal(abs_(w), _rows(_resolution(w), w.shape))


def _anchors(v: Any) -> Any:
    # The modulus of a real number; the others are out of the question.
    size = select(equal(imag(v), zero_of(imag(v))), abs_(real(v)), zero_of(real(v)) - 1)
    place = argmax(size, axis=len(v.shape) - 2)
    rows = broadcast(iota(length=v.shape[-2], dtype=_INDEX), shape=v.shape, axes=(len(v.shape) - 2,))
    return equal(rows, _columns(place, v.shape))


ties = Rewrite(_suits, _ties)
negligible = Rewrite(_suits, _negligible)
anchors = Rewrite(_suits, _anchors)
