"""What reductions share: NumPy's options `axis`, `keepdims`, `where`, `initial` and `out` in one place."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from functrace.core.primitive import Primitive
from functrace.core.trace import Tracer
from functrace.errors import AbstractValueError, ArgumentError, DTypeError, ShapeError
from functrace.numpy._axes import as_index, reduction_axes
from functrace.numpy._dispatch import no_mask, write_whole
from functrace.numpy._promotion import as_array, broadcast_operands, broadcast_to, cast
from functrace.numpy._structural import fresh
from functrace.primitives.elementwise import not_equal, select
from functrace.primitives.families import reduce_sum, reshape
from functrace.util import user_line

__all__ = [
    "NO_VALUE", "Reduction", "accumulator", "combine", "initial_value", "is_true", "known", "same_option",
    "start_reduction",
]  # fmt: skip

NO_VALUE: Any = np._NoValue
_INT64, _UINT64, _COUNT = np.dtype(np.int64), np.dtype(np.uint64), np.dtype(np.intp)


def accumulator(dtype: np.dtype) -> np.dtype:
    """The dtype in which NumPy sums and multiplies: small integers and booleans widen."""
    if dtype.kind in "bi":
        return _INT64 if dtype.itemsize < 8 else dtype
    return _UINT64 if dtype.kind == "u" else dtype


def is_true(x: Any) -> Any:
    """The truth value of each element: whether it is not zero."""
    return x if x.dtype.kind == "b" else not_equal(x, x.dtype.type(0))


def combine(function: str, primitive: Primitive, x: Any, initial: Any) -> Any:
    """A binary primitive on a reduced array and the value that the reduction starts from, in the array's dtype.

    Raises:
        ArgumentError: that is no number of the array's kind.
    """
    return primitive(*broadcast_operands([x, initial_value(function, initial, x.dtype)]))


def initial_value(function: str, initial: Any, dtype: np.dtype) -> Any:
    """The number that a reduction starts from.

    Raises:
        ArgumentError: it is an array, or complex for real numbers.
    """
    value = as_array(initial)
    if value.shape != () or (value.dtype.kind == "c") > (dtype.kind == "c"):
        raise ArgumentError(
            f"initial= of numpy.{function} is one number of the array's kind",
            where=user_line(),
            got=f"{value.dtype.name}[{','.join(map(str, value.shape))}] for {dtype.name}",
            remedy="combine other values with the result",
        )
    return cast(value, dtype)


def known(x: Any) -> Any | None:
    """The value of an array, None where it is abstract."""
    if not isinstance(x, Tracer):
        return x
    try:
        return x.concrete()
    except AbstractValueError:
        return None


class Reduction(NamedTuple):
    """One call of a reduction.

    Attributes:
        function: its name, for messages.
        shape: of the operand.
        axes: to reduce, ascending.
        keepdims: whether these stay, with length 1.
        mask: which elements count, in the operand's shape; None for all.
        out: a traced array to write to, or None.
    """

    function: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    keepdims: bool
    mask: Any
    out: Any

    @property
    def length(self) -> int:
        """The number of elements that make one element of the result."""
        return math.prod([self.shape[a] for a in self.axes])

    def masked(self, x: Any, fill: Any) -> Any:
        """The operand with a constant where elements do not count."""
        return x if self.mask is None else select(self.mask, x, x.dtype.type(fill))

    def count(self, dtype: np.dtype) -> Any:
        """The number of elements that count, for each element of the result or for all alike."""
        if self.mask is None:
            return dtype.type(self.length)
        return cast(reduce_sum(cast(self.mask, _COUNT), axes=self.axes), dtype)

    def kept(self, result: Any) -> Any:
        """A result with the reduced axes as axes of length 1."""
        return reshape(result, shape=tuple([1 if a in self.axes else n for a, n in enumerate(self.shape)]))

    def spread(self, result: Any) -> Any:
        """A result in the operand's shape."""
        return broadcast_to(self.kept(result), self.shape)

    def finish(self, result: Any, operand: Any = None) -> Any:
        """The result as the caller asked for it, never the operand itself."""
        if result is operand:
            result = fresh(result)
        if self.keepdims and self.axes:
            result = self.kept(result)
        return result if self.out is None else write_whole(self.function, result, self.out)

    def refuse_empty(self) -> None:
        """Raise where there is nothing to reduce.

        Raises:
            ShapeError: a reduced axis has length 0.
        """
        if self.length == 0 and self.axes:
            raise ShapeError(
                f"numpy.{self.function} of no elements has no value",
                where=user_line(),
                got=f"shape {self.shape} reduced over axes {self.axes}",
                remedy="reduce an axis with elements, or give initial= where the function takes it",
            )


def start_reduction(
    function: str, a: Any, axis: Any, keepdims: Any = NO_VALUE, where: Any = NO_VALUE, out: Any = None
) -> tuple[Any, Reduction]:
    """The operand as an array, and the options in normal form."""
    x = as_array(a)
    scalar_axis = not x.shape and type(axis) is int and axis in (0, -1)  # which NumPy lets pass
    axes = () if scalar_axis else reduction_axes(axis, len(x.shape))
    if where is None:
        raise no_mask(f"numpy.{function}")
    mask = None if where is NO_VALUE or where is True else _mask(function, where, x.shape)
    if keepdims is NO_VALUE:
        keepdims = False
    elif not isinstance(keepdims, (bool, np.bool_)):
        keepdims = as_index(keepdims, "keepdims") != 0
    return x, Reduction(function, x.shape, axes, bool(keepdims), mask, out)


def _mask(function: str, where: Any, shape: tuple[int, ...]) -> Any:
    mask = as_array(where)
    if mask.dtype.kind != "b":
        raise DTypeError(
            f"where= of numpy.{function} must be boolean",
            where=user_line(),
            got=f"dtype {mask.dtype}",
            remedy="compare first, as in where=(m != 0)",
        )
    lengths = shape[len(shape) - len(mask.shape) :] if len(mask.shape) <= len(shape) else None
    if lengths is None or any(m not in (1, n) for m, n in zip(mask.shape, lengths, strict=True)):
        raise ShapeError(
            f"where= of numpy.{function} does not broadcast to the array",
            where=user_line(),
            got=f"where of shape {mask.shape} for shape {shape}",
            remedy="give it the array's shape, or lengths 1 where it repeats",
        )
    return broadcast_to(mask, shape)


def same_option(function: str, name: str, value: Any, options: tuple[str, ...]) -> Any:
    """One of the allowed words.

    Raises:
        ArgumentError: it is another.
    """
    if value in options:
        return value
    raise ArgumentError(
        f"numpy.{function} does not know {name}={value!r}",
        where=user_line(),
        got=repr(value),
        remedy=f"use one of {', '.join(map(repr, options))}",
    )
