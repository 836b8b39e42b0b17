"""Operands as NumPy sees them: promotion (NEP 50), broadcasting, snapshots of users' arrays.

After this floor primitives see one shape and one dtype; a plain number stays in place and stands for its broadcast.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.core.primitive import Primitive
from functrace.core.trace import Tracer, current_trace
from functrace.core.types import canonicalize, is_changeable
from functrace.errors import AbstractValueError, ArgumentError, DTypeError, InputError, ShapeError
from functrace.primitives.elementwise import convert, less, select
from functrace.primitives.families import broadcast
from functrace.primitives.shape import full, stack
from functrace.util import user_line

__all__ = [
    "COMPARISONS",
    "as_array",
    "as_operand",
    "as_real_array",
    "broadcast_operands",
    "broadcast_to",
    "cast",
    "checked_dtype",
    "compare_integers",
    "dtype_of",
    "from_nested",
    "has_tracer",
    "promote",
    "reals",
    "resolve",
    "shape_of",
]

_NUMBERS = frozenset({bool, int, float, complex})
_WEAK_KINDS: dict[str, type] = {"f": float, "i": int, "c": complex}
_EXACT = {float: np.dtype(np.float64), int: np.dtype(np.int64), complex: np.dtype(np.complex128), bool: np.dtype(bool)}
#: The ufuncs that compare integers exactly whatever their dtypes.
COMPARISONS = frozenset({np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal})
_resolved: dict[Any, tuple[np.dtype, ...]] = {}


def as_operand(value: Any) -> Any:
    """A tracer, a plain number or a plain array that nobody else will change.

    An array met while some trace keeps values for later is copied, so that a later change of the user's array
    cannot reach a pullback or a recorded program.
    """
    if isinstance(value, Tracer) or type(value) in _NUMBERS:
        return value
    if type(value) is np.ndarray and value.ndim and value.dtype.isnative and value.dtype.kind in "biufc":
        return value.copy() if is_changeable(value) and current_trace().captures else value
    if isinstance(value, (list, tuple)):
        return from_nested(value)
    value = canonicalize(value)
    return value.copy() if isinstance(value, np.ndarray) and current_trace().captures else value


def as_array(value: Any) -> Any:
    """Like `as_operand`, but Python numbers become NumPy scalars, so that the result has a shape and a dtype."""
    value = as_operand(value)
    return canonicalize(value) if type(value) in _NUMBERS else value


def as_real_array(function: str, value: Any) -> Any:
    """Like `as_array`, for the operand of a NumPy function of real numbers.

    Raises:
        DTypeError: the operand is complex; its imaginary part would be lost.
    """
    return reals(f"numpy.{function}", as_array(value))


def reals(function: str, value: Any) -> Any:
    """The array itself if it is not complex.

    Raises:
        DTypeError: it is.
    """
    if value.dtype.kind == "c":
        raise DTypeError(
            f"{function} needs real numbers",
            where=user_line(),
            got=value.dtype.name,
            remedy="apply it to numpy.real(x), numpy.imag(x) or numpy.abs(x)",
        )
    return value


def has_tracer(value: Any) -> bool:
    """Whether a value is a tracer, or nested lists and tuples that hold one."""
    if isinstance(value, Tracer):
        return True
    return isinstance(value, (list, tuple)) and any(map(has_tracer, value))


def from_nested(value: Any) -> Any:
    """Nested sequences of numbers, arrays and tracers as one new array, as `numpy.array` nests and promotes them.

    Raises:
        InputError: the elements differ in shape or are not numeric.
    """
    if not isinstance(value, (list, tuple)):
        return as_array(value)
    if has_tracer(value):
        items = [from_nested(v) for v in value]
        if len({item.shape for item in items}) > 1:
            raise _not_an_array("elements of shapes " + ", ".join(str(item.shape) for item in items))
        dtype = np.result_type(*{item.dtype for item in items})
        return stack(*[cast(item, dtype) for item in items], axis=0)
    try:
        array = np.array(value)
    except ValueError as error:
        raise _not_an_array(str(error)) from None
    return canonicalize(array)


def _not_an_array(got: str) -> InputError:
    return InputError(
        "a nested sequence cannot become an array",
        where=user_line(),
        got=got,
        remedy="make all elements numbers or arrays of one shape; join arrays of different lengths with "
        "numpy.concatenate",
    )


def checked_dtype(dtype: Any) -> np.dtype:
    """A numeric dtype in the machine's byte order.

    Raises:
        DTypeError: it is not numeric, or no dtype at all.
    """
    try:
        found = np.dtype(dtype).newbyteorder("=")
    except TypeError:
        found = None
    if found is None or found.kind not in "biufc":
        raise DTypeError(
            "traced arrays hold numbers and booleans only",
            where=user_line(),
            got=f"dtype {dtype!r}" if found is None else f"dtype {found}",
            remedy="give a numeric dtype such as float or numpy.float32; convert to others outside the traced function",
        )
    return found


def require_real(what: str, value: Any, dtype: np.dtype) -> Any:
    """The array `value`, on its way into an array of a dtype.

    Raises:
        DTypeError: it is complex and the dtype is not, which would drop its imaginary part.
    """
    if value.dtype.kind == "c" and dtype.kind != "c":
        raise DTypeError(
            f"{what} would lose the imaginary part",
            where=user_line(),
            got=f"{value.dtype.name} into {dtype.name}",
            remedy="use numpy.real(...) of the value, or make the array complex first with .astype(complex)",
        )
    return value


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


def resolve(
    ufunc: np.ufunc, kinds: tuple[Any, ...], signature: tuple[Any, ...] | None = None, casting: str | None = None
) -> tuple[np.dtype, ...]:
    """The dtypes a ufunc computes in, outputs last, as NumPy decides them.

    Raises:
        DTypeError: NumPy has no loop for these dtypes.
    """
    key = (ufunc, *kinds) if signature is None and casting is None else (ufunc, signature, casting, *kinds)
    dtypes = _resolved.get(key)
    if dtypes is None:
        known = kinds
        if all(isinstance(k, type) for k in kinds):
            known = tuple(_EXACT[k] for k in kinds)
        try:
            options: dict[str, Any] = {"signature": signature, "casting": casting}
            options = {name: value for name, value in options.items() if value is not None}
            dtypes = ufunc.resolve_dtypes((*known, *(None,) * ufunc.nout), **options)
        except TypeError as error:
            names = ", ".join(getattr(k, "name", getattr(k, "__name__", str(k))) for k in kinds)
            raise DTypeError(
                f"numpy.{ufunc.__name__} is not defined for these dtypes",
                where=user_line(),
                got=names,
                remedy="convert the operands with .astype",
            ) from error
        except ValueError as error:
            raise ArgumentError(
                f"an option of numpy.{ufunc.__name__} is none that NumPy knows",
                where=user_line(),
                got=str(error),
                remedy="give a casting rule such as 'same_kind', and one dtype for each operand and result",
            ) from error
        _resolved[key] = dtypes
    return dtypes


def compare_integers(
    ufunc: np.ufunc, primitive: Primitive, values: list[Any], dtypes: tuple[np.dtype, ...]
) -> Any | None:
    """NumPy's exact comparisons of integers that share no dtype; None where a comparison is an ordinary one.

    These are int64 with uint64, and any integer array with a Python integer beyond its dtype.
    """
    if dtypes[0] != dtypes[1]:
        signed = 0 if dtypes[0].kind == "i" else 1
        below_zero = bool(ufunc(-1, 0) if signed == 0 else ufunc(0, -1))
        wrapped = primitive.bind(*broadcast_operands([cast(v, np.dtype(np.uint64)) for v in values]))
        number = as_array(cast(values[signed], dtypes[signed]))
        negative, wrapped = broadcast_operands([less(number, number.dtype.type(0)), wrapped])
        return select(negative, np.bool_(below_zero), wrapped)
    if dtypes[0].kind not in "iu":
        return None
    limits = np.iinfo(dtypes[0])
    for position, value in enumerate(values):
        if type(value) is int and not limits.min <= value <= limits.max:
            first_is_greater = (position == 0) == (value > 0)
            truth = bool(ufunc(1, 0) if first_is_greater else ufunc(0, 1))
            return full(shape=shape_of(values[1 - position]), value=truth, dtype=np.dtype(bool))
    return None


def cast(value: Any, dtype: np.dtype) -> Any:
    """The operand in the given dtype; Python numbers that have it already stay as they are."""
    kind = type(value)
    if kind in _NUMBERS:
        return value if _EXACT[kind] == dtype else dtype.type(value)
    if value.dtype == dtype:
        return value
    if not isinstance(value, Tracer):
        return value.astype(dtype)
    if value.weak and value.dtype.kind == "i" and dtype.kind in "iu":
        check_fits(value, dtype)
    return convert(value, dtype=dtype)


def check_fits(value: Tracer, dtype: np.dtype) -> None:
    """Refuse a Python integer beyond the dtype it gives way to, where its value is known, as NumPy does.

    Raises:
        OverflowError: NumPy's own.
    """
    try:
        number = int(value.concrete())
    except AbstractValueError:
        return
    dtype.type(number)


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
