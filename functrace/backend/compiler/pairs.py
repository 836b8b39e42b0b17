"""Complex numbers in registers: pairs of a real and an imaginary part, each a value of its own.

In memory they alternate. Products and quotients round as NumPy's do: nothing is fused, so that z times its conjugate is
real; quotients are scaled by the larger part of the divisor (R. L. Smith, Algorithm 116, CACM 1962).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from functrace.backend.compiler.emit import Value

__all__ = ["Pairs", "real_type"]


def real_type(dtype: np.dtype) -> np.dtype:
    """The dtype of the parts."""
    return np.dtype(np.float64 if dtype.itemsize == 16 else np.float32)


class Pairs:
    """What the emitter does to complex numbers."""

    def plain(self: Any, name: str, x: Value, y: Value) -> Value:
        """An operation on floats that is not fused with others."""
        return self.op(f"f{name} {x.type} {x.name}, {y.name}", x.dtype, x.lanes)

    def pair(self: Any, re: Any, im: Any) -> Value:
        """A complex number of its parts."""
        from_values = self.matched(re, im)
        re, im = from_values
        dtype = np.dtype(np.complex128 if re.dtype.itemsize == 8 else np.complex64)
        found = self.blank(dtype, re.lanes)
        found.parts = (re, im)
        if re.constant is not None and im.constant is not None:
            found.constant = dtype.type(complex(re.constant, im.constant))
        return found

    def part_by_part(self: Any, x: Value, function: Callable[[Value], Value]) -> Value:
        """The same done to both parts."""
        re, im = x.parts
        return self.pair(function(re), function(im))

    def complex_arithmetic(self: Any, name: str, x: Value, y: Value) -> Value:
        (a, b), (c, d) = x.parts, y.parts
        if name in ("add", "sub"):
            return self.pair(self.arithmetic(name, a, c), self.arithmetic(name, b, d))
        if name == "mul":
            re = self.plain("sub", self.plain("mul", a, c), self.plain("mul", b, d))
            return self.pair(re, self.plain("add", self.plain("mul", a, d), self.plain("mul", b, c)))
        return self._quotient_of_pairs(a, b, c, d)

    def _quotient_of_pairs(self: Any, a: Value, b: Value, c: Value, d: Value) -> Value:
        size_c, size_d = self.intrinsic("fabs", c), self.intrinsic("fabs", d)
        wide = size_c >= size_d
        large, small = self.select(wide, c, d), self.select(wide, d, c)
        ratio = self.plain("div", small, large)
        scale = 1.0 / self.plain("add", large, self.plain("mul", small, ratio))
        # The parts of the numerator that are multiplied by the ratio, and those that are not.
        p, q = self.select(wide, a, b), self.select(wide, b, a)
        re = self.plain("mul", self.plain("add", p, self.plain("mul", q, ratio)), scale)
        scaled = self.plain("mul", p, ratio)
        difference = self.plain("sub", q, scaled)
        # (b - a ratio) where c is larger, (b ratio - a) where d is: there p is b, and the sign the other.
        im = self.plain("mul", self.select(wide, difference, self.plain("sub", scaled, q)), scale)
        nothing = (size_c == 0.0) & (size_d == 0.0)
        return self.pair(
            self.select(nothing, self.plain("div", a, size_c), re),
            self.select(nothing, self.plain("div", b, size_c), im),
        )

    def complex_outside(self: Any, name: str, x: Value) -> Value:
        """A function of C's of a complex double, called for every lane."""
        double = np.dtype(np.float64)
        pointer = self.symbol(name)
        re, im = (self.convert(part, double) for part in x.parts)
        found = []
        for k in range(x.lanes):
            a, b = (re, im) if x.lanes == 1 else (self.lane(re, k), self.lane(im, k))
            both = self.index(f"call {{ double, double }} {pointer}(double {a.name}, double {b.name})")
            found.append(
                self.pair(*[self.op(f"extractvalue {{ double, double }} {both}, {k}", double) for k in (0, 1)])
            )
        return self.convert(found[0] if x.lanes == 1 else self.vector(found), x.dtype)

    # memory

    def _interleaved(self: Any, mask: str | None, lanes: int) -> str | None:
        """A mask for both parts of each number."""
        if mask is None:
            return None
        order = ", ".join(f"i32 {k // 2}" for k in range(2 * lanes))
        return self.index(f"shufflevector <{lanes} x i1> {mask}, <{lanes} x i1> poison, <{2 * lanes} x i32> <{order}>")

    def load_pairs(self: Any, pointer: str, dtype: np.dtype, lanes: int, mask: str | None) -> Value:
        real = real_type(dtype)
        if lanes == 1:
            return self.pair(self.load(pointer, real), self.load(self.offset(pointer, 1, real), real))
        both = self.load(pointer, real, 2 * lanes, self._interleaved(mask, lanes))

        def every_other(first: int) -> Value:
            order = ", ".join(f"i32 {2 * k + first}" for k in range(lanes))
            return self.op(
                f"shufflevector {both.type} {both.name}, {both.type} poison, <{lanes} x i32> <{order}>", real, lanes
            )

        return self.pair(every_other(0), every_other(1))

    def store_pairs(self: Any, x: Value, pointer: str, mask: str | None) -> None:
        re, im = x.parts
        lanes = x.lanes
        if lanes == 1:
            self.store(re, pointer)
            self.store(im, self.offset(pointer, 1, re.dtype))
            return
        order = ", ".join(f"i32 {k // 2 + k % 2 * lanes}" for k in range(2 * lanes))
        text = f"shufflevector {re.type} {re.name}, {im.type} {im.name}, <{2 * lanes} x i32> <{order}>"
        self.store(self.op(text, re.dtype, 2 * lanes), pointer, self._interleaved(mask, lanes))

    def behind_pointers(self: Any, pointers: str, real: np.dtype, lanes: int) -> str:
        """The addresses of the imaginary parts."""
        return self.pointer(f"getelementptr {self.blank(real).type}, <{lanes} x ptr> {pointers}, i64 1")
