"""Abstract values: what a program knows about an array before it runs (shape and dtype)."""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.errors import InputError
from functrace.util import user_line

__all__ = ["ShapedArray", "aval_of", "canonicalize", "float0", "is_changeable", "is_inexact", "tangent_aval"]

#: The dtype of the only tangent an integer or boolean value has (JAX's name and definition).
float0 = np.dtype([("float0", np.void, 0)])

_NUMERIC_KINDS = "biufc"


class ShapedArray:
    """The type of an array: its shape and dtype.

    >>> ShapedArray((2, 3), np.dtype(float))
    float64[2,3]
    """

    __slots__ = ("dtype", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.shape = shape
        self.dtype = dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        size = 1
        for length in self.shape:
            size *= length
        return size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShapedArray) and self.shape == other.shape and self.dtype == other.dtype

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype))

    def __repr__(self) -> str:
        return f"{self.dtype.name}[{','.join(map(str, self.shape))}]"


SCALAR = ShapedArray((), np.dtype(np.float64))
_SCALAR_AVALS: dict[type, ShapedArray] = {
    kind: ShapedArray((), np.dtype(dtype))
    for kind, dtype in ((bool, np.bool_), (int, np.int64), (float, np.float64), (complex, np.complex128))
}
_SCALAR_AVALS[np.float64] = SCALAR


def aval_of(value: Any) -> ShapedArray:
    """The aval of an array, a number or a tracer."""
    aval = _SCALAR_AVALS.get(type(value))
    if aval is not None:
        return aval
    return ShapedArray(value.shape, value.dtype)


def canonicalize(value: Any) -> Any:
    """A number or array-like leaf as a plain `numpy.ndarray` or NumPy scalar; tracers pass unchanged.

    A tangent of type float0 passes too, so that a function may return the derivative of one with integer results.

    Raises:
        InputError: the value is not numeric.
    """
    kind = type(value)
    if kind is np.ndarray:
        if value.dtype.kind not in _NUMERIC_KINDS and value.dtype != float0:
            raise _not_numeric(value)
        if not value.dtype.isnative:
            return value.astype(value.dtype.newbyteorder("="))
        return value if value.ndim else value[()]
    if kind is float:
        return np.float64(value)
    if hasattr(value, "_trace"):
        return value
    if kind in (bool, int, complex) or isinstance(value, np.generic) or _is_plain_subclass(value):
        array = np.asarray(value)
    else:
        raise _not_numeric(value)
    if array.dtype.kind not in _NUMERIC_KINDS and array.dtype != float0:
        raise _not_numeric(value)
    return canonicalize(array)


def _is_plain_subclass(value: Any) -> bool:
    """Whether an array subclass (a memory map, say) means what a plain array means."""
    return isinstance(value, np.ndarray) and not isinstance(value, (np.matrix, np.ma.MaskedArray))


def _not_numeric(value: Any) -> InputError:
    got = type(value).__name__
    if isinstance(value, np.ndarray):
        got = f"{got} of dtype {value.dtype}, shape {value.shape}"
    return InputError(
        "a traced function takes and returns numbers and numeric NumPy arrays, "
        "in any nesting of tuples, lists and dicts",
        where=user_line(),
        got=got,
        remedy=_conversion_of(value),
    )


def _conversion_of(value: Any) -> str:
    """How to make a numeric array of a value that is none."""
    if isinstance(value, np.ma.MaskedArray):
        return "pass value.filled(0) and its mask as two arrays, and choose with numpy.where"
    if isinstance(value, np.matrix):
        return "use numpy.asarray(value): a matrix multiplies with * and keeps two axes, a traced array does not"
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind == "O":
        return "make a numeric array, value.astype(float); for one with traced elements use functrace.numpy.array(list)"
    if not isinstance(kind, str):
        kind = ""
    if kind and kind in "mM":
        return "divide times by a unit first, as in value / numpy.timedelta64(1, 's')"
    if kind == "V":
        return "pass the fields as separate arrays, value['name']"
    if hasattr(value, "toarray"):
        return "use the dense matrix, value.toarray(); sparse matrices do not trace"
    return (
        "convert the value with numpy.asarray(value, dtype=float), close over it instead of passing it, or "
        "register its class as a container with functrace.tree.register_dataclass or register_pytree_node"
    )


def is_changeable(array: np.ndarray) -> bool:
    """Whether somebody can change the array's elements: itself, or the array that it is a read-only view of."""
    return array.flags.writeable or array.base is not None


def is_inexact(dtype: np.dtype) -> bool:
    """Whether values of this dtype (float or complex) have tangents."""
    return dtype.kind in "fc"


def tangent_aval(aval: ShapedArray) -> ShapedArray:
    """The type of a tangent: the value's own, or float0 where it has none."""
    return aval if aval.dtype.kind in "fc" else ShapedArray(aval.shape, float0)
