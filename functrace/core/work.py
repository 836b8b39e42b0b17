"""What an operation costs: the record that `cost` rules give, and the memory layouts that they read.

    cost(operands, outs, **params) -> Work

`operands` are `Layout`s, `outs` the types of the results. A rule counts arithmetic exactly as its formula says; what
moves or selects elements counts nothing. `interpreters.cost` adds the work of a program up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from functrace.core.types import ShapedArray

if TYPE_CHECKING:
    from functrace.core.ir import Jaxpr

__all__ = ["Inner", "Layout", "View", "Work", "counted", "default_work", "kept_order", "moving", "row_major", "viewing"]


class Layout:
    """An array's type and where its elements lie: strides in elements, 0 along repeated axes.

    `value` is the number that the program itself gives as operand, None where it is not known.
    """

    __slots__ = ("dtype", "shape", "strides", "value")

    def __init__(self, aval: ShapedArray, strides: tuple[int, ...] | None = None, value: Any = None) -> None:
        self.value = value
        self.shape = aval.shape
        self.dtype = aval.dtype
        self.strides = row_major(aval.shape) if strides is None else strides

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """The size of an array of its own with these elements."""
        return self.size * self.dtype.itemsize

    @property
    def distinct(self) -> int:
        """The bytes that reading all elements touches: repeated ones once."""
        return math.prod(n for n, s in zip(self.shape, self.strides, strict=True) if s) * self.dtype.itemsize

    @property
    def contiguous(self) -> bool:
        return self.reshaped((self.size,)) is not None

    def transposed(self, permutation: Sequence[int]) -> Layout:
        """The layout with its axes in another order."""
        shape = tuple(self.shape[a] for a in permutation)
        return Layout(ShapedArray(shape, self.dtype), tuple(self.strides[a] for a in permutation))

    def reshaped(self, shape: Sequence[int]) -> tuple[int, ...] | None:
        """The strides of a view of another shape, None where a reshape has to copy."""
        if self.size == 0 or tuple(shape) == self.shape:
            return self.strides if tuple(shape) == self.shape else row_major(tuple(shape))
        old = [(n, s) for n, s in zip(self.shape, self.strides, strict=True) if n != 1]
        strides, i = [], 0
        new = list(shape)
        k = 0
        while k < len(new):
            if new[k] == 1:
                strides.append(0)
                k += 1
                continue
            first_old, first_new = i, k
            length_old, length_new = old[i][0], new[k]
            while length_old != length_new:
                if length_old < length_new:
                    i += 1
                    length_old *= old[i][0]
                else:
                    k += 1
                    length_new *= new[k]
            for (_, outer), (n, inner) in zip(old[first_old:i], old[first_old + 1 : i + 1], strict=True):
                if outer != n * inner:
                    return None
            step = old[i][1]
            block = []
            for n in reversed(new[first_new : k + 1]):
                block.append(step)
                step *= n
            strides.extend(reversed(block))
            i += 1
            k += 1
        return tuple(strides)


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a new C-ordered array, in elements."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def kept_order(shape: tuple[int, ...], operands: Sequence[Layout]) -> tuple[int, ...]:
    """The strides of a new array whose axes lie in the order of the operands' axes, as NumPy's ufuncs make them."""
    for operand in operands:
        if operand.shape == shape and all(s or n == 1 for n, s in zip(shape, operand.strides, strict=True)):
            break
    else:
        return row_major(shape)
    axes = sorted(range(len(shape)), key=lambda a: -abs(operand.strides[a]) if shape[a] != 1 else 0)
    if all(abs(a) >= abs(b) for a, b in zip(operand.strides, operand.strides[1:], strict=False)):
        return row_major(shape)
    strides, step = [0] * len(shape), 1
    for axis in reversed(axes):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)


class View(NamedTuple):
    """A result that shares the memory of an operand."""

    operand: int
    strides: tuple[int, ...]


class Inner(NamedTuple):
    """A program that an operation runs a number of times."""

    jaxpr: Jaxpr
    times: int


class Work(NamedTuple):
    """What one application of a primitive costs, beyond what the interpreter knows from the types.

    Attributes:
        flops: arithmetic operations on real numbers.
        dense: those of them that a BLAS or LAPACK routine does.
        read: bytes read; by default the operands, repeated elements once.
        written: bytes written; by default the results that are no views.
        scratch: bytes held while it runs, beyond operands and results.
        results: per result a `View`, the strides of its new array, or None for a C-ordered one.
        inner: programs that it runs. Their results are not counted as its own while it runs.
        one_of: whether only one of the programs runs.
        note: what the numbers leave out.
    """

    flops: int = 0
    dense: int = 0
    read: int | None = None
    written: int | None = None
    scratch: int = 0
    results: Sequence[View | tuple[int, ...] | None] | None = None
    inner: Sequence[Inner] = ()
    one_of: bool = False
    note: str = ""


Rule = Callable[..., Work]


def default_work(operands: Sequence[Layout], outs: Sequence[ShapedArray]) -> Work:
    """Of a primitive that says nothing: everything read and written, no arithmetic."""
    return Work(note="operations without a cost rule count no arithmetic")


def moving(operands: Sequence[Layout], outs: Sequence[ShapedArray], **params: Any) -> Work:
    """The rule of what copies elements to a new array."""
    return Work()


def counted(count: Callable[..., float], *, dense: bool = False, scratch: Callable[..., float] | None = None) -> Rule:
    """A rule from a formula.

    Args:
        count: `count(operands, outs, **params)`, arithmetic operations on real numbers for real operands. Complex ones
            count four times.
        dense: whether a BLAS or LAPACK routine does them.
        scratch: bytes held meanwhile, of the same arguments.
    """

    def rule(operands: Sequence[Layout], outs: Sequence[ShapedArray], **params: Any) -> Work:
        is_complex = any(o.dtype.kind == "c" for o in operands)
        flops = int(count(operands, outs, **params)) * (4 if is_complex else 1)
        held = 0 if scratch is None else int(scratch(operands, outs, **params))
        return Work(flops, flops if dense else 0, scratch=held)

    return rule


def viewing(strides: Callable[..., tuple[int, ...]]) -> Rule:
    """The rule of what gives a view of its one operand; `strides(operand, **params)`."""

    def rule(operands: Sequence[Layout], outs: Sequence[ShapedArray], **params: Any) -> Work:
        return Work(0, read=0, written=0, results=[View(0, strides(operands[0], **params))] * len(outs))

    return rule
