"""Conversions between dtypes, as NumPy has them; part of the emitter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from functrace.backend.compiler.dtypes import Unsupported
from functrace.backend.compiler.pairs import real_type

if TYPE_CHECKING:
    from functrace.backend.compiler.emit import Value

__all__ = ["Conversions"]


class Conversions:
    """How the emitter changes types."""

    def convert(self: Any, x: Value, dtype: np.dtype) -> Value:
        """The value as another dtype, as NumPy's astype does it."""
        if x.dtype == dtype:
            return x
        if x.constant is not None:
            with np.errstate(all="ignore"):
                return self.constant(np.asarray(x.constant).astype(dtype), dtype, x.lanes)
        source, kind = x.dtype.kind, dtype.kind
        if kind == "b":
            return x != 0
        if source == "c":
            real = real_type(dtype) if kind == "c" else dtype
            re, im = x.parts
            return self.pair(self.convert(re, real), self.convert(im, real)) if kind == "c" else self.convert(re, real)
        if kind == "c":
            return self.pair(self.convert(x, real_type(dtype)), 0.0)
        single = np.dtype(np.float32)
        if "float16" in (x.dtype.name, dtype.name):
            if not self.target.halves:
                raise Unsupported("conversion of halves")
            if single not in (x.dtype, dtype):
                return self.convert(self.convert(x, single), dtype)
        if source == "f" and kind == "f":
            action = "fpext" if dtype.itemsize > x.dtype.itemsize else "fptrunc"
        elif source == "f":
            return self._truncated(x, dtype)
        elif kind == "f":
            action = "sitofp" if source == "i" else "uitofp"
        elif dtype.itemsize < x.dtype.itemsize:
            action = "trunc"
        elif dtype.itemsize == x.dtype.itemsize and source != "b":
            return self.blank(dtype, x.lanes, x.name)
        else:
            action = "sext" if source == "i" else "zext"
        goal = self.blank(dtype, x.lanes)
        return self.op(f"{action} {x.type} {x.name} to {goal.type}", dtype, x.lanes)

    def _truncated(self: Any, x: Value, dtype: np.dtype) -> Value:
        """Float to integer; out of range as the instructions of x86 have it."""
        narrow = dtype.itemsize < 4 or (dtype.kind == "u" and dtype.itemsize == 4)
        if narrow:  # the lower bits of a wider integer
            wide = np.dtype(np.int32 if dtype.itemsize < 4 else np.int64)
            return self.convert(self._truncated(x, wide), dtype)
        signed = np.dtype(f"int{8 * dtype.itemsize}")
        limit = 2.0 ** (8 * dtype.itemsize - 1)
        if dtype.kind == "u":
            upper = x >= limit
            low = self._truncated(self.select(upper, x - limit, x), signed)
            found = self.select(upper, low ^ -(2 ** (8 * dtype.itemsize - 1)), low)
            return self.convert(found, dtype)
        goal = self.blank(dtype, x.lanes)
        inside = (x >= -limit) & (x < limit)
        safe = self.select(inside, x, 0.0)
        number = self.op(f"fptosi {safe.type} {safe.name} to {goal.type}", dtype, x.lanes)
        return self.select(inside, number, -(2 ** (8 * dtype.itemsize - 1)))

    def bits(self: Any, x: Value, dtype: np.dtype) -> Value:
        """The same bits as another type of the same width."""
        goal = self.blank(dtype, x.lanes)
        return self.op(f"bitcast {x.type} {x.name} to {goal.type}", dtype, x.lanes)
