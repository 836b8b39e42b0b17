"""Operands as NumPy sees them: promotion (NEP 50), broadcasting, snapshots of users' arrays.

After this floor primitives see one shape and one dtype; a plain number stays in place and stands for its broadcast.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.core.trace import Tracer, current_trace
from functrace.core.types import canonicalize
from functrace.errors import DTypeError, ShapeError
from functrace.primitives.elementwise import convert
from functrace.primitives.families import broadcast
from functrace.util import user_line

__all__ = ["as_array", "as_operand", "broadcast_to", "cast", "dtype_of", "promote", "resolve", "shape_of"]

_NUMBERS = frozenset({bool, int, float, complex})
_WEAK_KINDS: dict[str, type] = {"f": float, "i": int, "c": complex}
_EXACT = {float: np.dtype(np.float64), int: np.dtype(np.int64), complex: np.dtype(np.complex128), bool: np.dtype(bool)}
_resolved: dict[Any, tuple[np.dtype, ...]] = {}


def as_operand(value: Any) -> Any:
    """A tracer, a plain number or a plain array that nobody else will change.

    An array met while some trace keeps values for later is copied, so that a later change of the user's array
    cannot reach a pullback or a recorded program.
    """
    if isinstance(value, Tracer) or type(value) in _NUMBERS:
        return value
    if type(value) is np.ndarray and value.ndim and value.dtype.isnative and value.dtype.kind in "biufc":
        return value.copy() if value.flags.writeable and current_trace().captures else value
    if isinstance(value, (list, tuple)):
        return as_operand(from_nested(value))
    value = canonicalize(value)
    return value.copy() if isinstance(value, np.ndarray) and current_trace().captures else value


def as_array(value: Any) -> Any:
    """Like `as_operand`, but Python numbers become NumPy scalars, so that the result has a shape and a dtype."""
    value = as_operand(value)
    return canonicalize(value) if type(value) in _NUMBERS else value


def from_nested(value: Any) -> Any:
    """A nested list of plain numbers and arrays as an array; `functrace.numpy.array` replaces this for tracers."""
    return np.asarray(value)


def dtype_of(value: Any) -> Any:
    """What decides promotion: a dtype, or the Python type of a weak number."""
    kind = type(value)
    if kind in _NUMBERS:
        return kind if kind is not bool else _EXACT[bool]
    if isinstance(value, Tracer) and value.weak:
        return _WEAK_KINDS.get(value.dtype.kind, value.dtype)
    return value.dtype


def shape_of(value: Any) -> tuple[int, ...]:
    return () if type(value) in _NUMBERS else value.shape


def is_plain_number(value: Any) -> bool:
    return type(value) in _NUMBERS or isinstance(value, np.generic)


def resolve(ufunc: np.ufunc, kinds: tuple[Any, ...]) -> tuple[np.dtype, ...]:
    """The dtypes a ufunc computes in, outputs last, as NumPy decides them."""
    key = (ufunc, *kinds)
    dtypes = _resolved.get(key)
    if dtypes is None:
        known = kinds
        if all(isinstance(k, type) for k in kinds):
            known = tuple(_EXACT[k] for k in kinds)
        try:
            dtypes = ufunc.resolve_dtypes((*known, *(None,) * ufunc.nout))
        except TypeError as error:
            names = ", ".join(getattr(k, "name", getattr(k, "__name__", str(k))) for k in kinds)
            raise DTypeError(
                f"numpy.{ufunc.__name__} is not defined for these dtypes",
                where=user_line(),
                got=names,
                remedy="convert the operands with .astype",
            ) from error
        _resolved[key] = dtypes
    return dtypes


def cast(value: Any, dtype: np.dtype) -> Any:
    """The operand in the given dtype; Python numbers that have it already stay as they are."""
    kind = type(value)
    if kind in _NUMBERS:
        return value if _EXACT[kind] == dtype else dtype.type(value)
    if value.dtype == dtype:
        return value
    return convert(value, dtype=dtype) if isinstance(value, Tracer) else value.astype(dtype)


def promote(*values: Any) -> list[Any]:
    """The operands in their common dtype, as `numpy.result_type` decides it."""
    kinds = tuple(dtype_of(v) for v in values)
    key = (None, *kinds)
    found = _resolved.get(key)
    if found is None:
        if all(isinstance(k, type) for k in kinds):
            found = (np.result_type(*(_EXACT[k] for k in kinds)),)
        else:
            found = (np.result_type(*(k(0) if isinstance(k, type) else k for k in kinds)),)
        _resolved[key] = found
    return [cast(v, found[0]) for v in values]


def broadcast_shape(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """NumPy's broadcast shape.

    Raises:
        ShapeError: the shapes do not broadcast.
    """
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ShapeError(
            "operands could not be broadcast together",
            where=user_line(),
            got=", ".join(map(str, shapes)),
            remedy="lengths must be equal or 1 on every axis, counted from the last; insert axes with x[:, None]",
        ) from None


def broadcast_to(value: Any, shape: tuple[int, ...]) -> Any:
    """The value (an array or tracer) in a shape it broadcasts to."""
    if value.shape == shape:
        return value
    ndim = len(shape)
    return broadcast(value, shape=shape, axes=tuple(range(ndim - len(value.shape), ndim)))


def broadcast_operands(values: list[Any]) -> list[Any]:
    """All operands in their broadcast shape; plain numbers stay."""
    shapes = {shape_of(v) for v in values}
    if len(shapes) == 1:
        return values
    shape = broadcast_shape(*shapes)
    return [v if is_plain_number(v) else broadcast_to(v, shape) for v in values]
