"""Where values are: in memory, in registers, or nowhere yet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.backend.compiler.emit import Emitter, Value

__all__ = ["SMALL", "Buffer", "Place", "Small", "contiguous_strides", "spill"]

SMALL = 8  # elements: arrays up to here live in registers


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides in elements of a C contiguous array."""
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))


class Buffer:
    """An array in memory: a base pointer, an offset and strides in elements."""

    __slots__ = ("dtype", "offset", "pointer", "shape", "strides")

    def __init__(
        self,
        pointer: str,
        shape: tuple[int, ...],
        dtype: np.dtype,
        strides: tuple[int, ...] | None = None,
        offset: int = 0,
    ) -> None:
        self.pointer, self.shape, self.dtype, self.offset = pointer, shape, dtype, offset
        self.strides = contiguous_strides(shape) if strides is None else strides

    @property
    def contiguous(self) -> bool:
        expected = contiguous_strides(self.shape)
        return all(n <= 1 or s == e for n, s, e in zip(self.shape, self.strides, expected, strict=True))

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def start(self, e: Emitter) -> str:
        """The address of its first element."""
        return e.offset(self.pointer, self.offset, self.dtype)


class Small:
    """A small array in registers.

    Args:
        nodes: the expressions of its elements, where the registers' reader made it.
    """

    __slots__ = ("dtype", "home", "nodes", "shape", "values")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, nodes: list[Any] | None = None) -> None:
        self.shape, self.dtype, self.nodes = shape, dtype, nodes
        #: The registers, in C order, once there are.
        self.values: list[Value] | None = None
        #: A copy in memory, if there is one.
        self.home: Buffer | None = None

    def position(self, index: Sequence[int]) -> int:
        if not index:
            return 0
        return sum(i * s for i, s in zip(index, contiguous_strides(self.shape), strict=True))


def spill(e: Emitter, small: Small, buffer: Buffer) -> None:
    """Writes a small array to memory, which is contiguous."""
    assert small.values is not None
    for k, value in enumerate(small.values):
        e.store(value, e.offset(buffer.pointer, buffer.offset + k, buffer.dtype))


Place = Buffer | Small
