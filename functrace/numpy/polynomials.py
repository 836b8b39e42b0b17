"""Polynomials given by their coefficients, highest power first."""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.errors import ArgumentError, ShapeError
from functrace.numpy._axes import as_index
from functrace.numpy._promotion import as_array, promote
from functrace.numpy._structural import cut, join, structural
from functrace.primitives.families import add, reshape
from functrace.primitives.shape import full
from functrace.util import user_line

__all__ = ["polyadd", "polyder", "polyint", "polysub", "polyval"]


def _coefficients(function: str, p: Any) -> Any:
    """The coefficients as a one-dimensional array."""
    c = as_array(p)
    c = c if c.shape else reshape(c, shape=(1,))
    if len(c.shape) != 1:
        raise ShapeError(
            f"numpy.{function} takes one-dimensional coefficients",
            where=user_line(),
            got=f"shape {c.shape}",
            remedy="map over the other axes with functrace.vmap",
        )
    return c


def _order(m: Any) -> int:
    order = as_index(m, "m")
    if order < 0:
        raise ArgumentError("m must not be negative", where=user_line(), got=f"m={order}", remedy="use m >= 0")
    return order


@structural(np.polyval)
def polyval(p: Any, x: Any) -> Any:
    """The polynomial at x, by Horner's rule; differentiable in the coefficients and in x."""
    c, at = _coefficients("polyval", p), as_array(x)
    value = at * at.dtype.type(0)
    for coefficient in np.unstack(c):
        value = value * at + coefficient
    return value


@structural(np.polyder)
def polyder(p: Any, m: int = 1) -> Any:
    """The coefficients of the m-th derivative."""
    c = _coefficients("polyder", p)
    for _ in range(_order(m)):
        n = c.shape[0] - 1
        c = cut(c, 0, 0, max(n, 0)) * np.arange(n, 0, -1)
    return c


@structural(np.polyint)
def polyint(p: Any, m: int = 1, k: Any = None) -> Any:
    """The coefficients of the m-th antiderivative, with integration constants k."""
    c, order = _coefficients("polyint", p), _order(m)
    constants = as_array(np.zeros(order) if k is None else k)
    constants = np.broadcast_to(constants, (order,)) if constants.shape in ((), (1,)) else constants
    if constants.shape != (order,):
        raise ShapeError(
            "numpy.polyint takes one constant per integration",
            where=user_line(),
            got=f"{constants.shape} for m={order}",
            remedy="give a number, or as many as m",
        )
    for i in range(order):
        c = np.concatenate([c / np.arange(c.shape[0], 0, -1), constants[i : i + 1]])
    return c


def _sum(function: str, a1: Any, a2: Any, sign: int) -> Any:
    x, y = promote(_coefficients(function, a1), _coefficients(function, a2))
    length = max(x.shape[0], y.shape[0])
    x, y = (
        v if v.shape[0] == length else join([full(shape=(length - v.shape[0],), value=0, dtype=v.dtype), v], 0)
        for v in (x, y)
    )
    return add(x, y) if sign > 0 else np.subtract(x, y)


@structural(np.polyadd)
def polyadd(a1: Any, a2: Any) -> Any:
    """The coefficients of a sum."""
    return _sum("polyadd", a1, a2, 1)


@structural(np.polysub)
def polysub(a1: Any, a2: Any) -> Any:
    """The coefficients of a difference."""
    return _sum("polysub", a1, a2, -1)
