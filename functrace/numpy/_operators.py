"""Python's arithmetic and comparison operators on tracers, with short ways for the common cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.core.primitive import Primitive
from functrace.core.trace import Tracer
from functrace.numpy._dispatch import traced_ufuncs
from functrace.numpy._promotion import dtype_of

__all__ = ["install_operators"]

_FLOAT64 = np.dtype(np.float64)
_LARGEST_EXACT = 2**53


def _binary(ufunc: np.ufunc, primitive: Primitive | None, reflected: bool) -> Callable[[Any, Any], Any]:
    """The operator method of a ufunc; `primitive` serves float64 operands of one shape directly."""
    general = traced_ufuncs[ufunc]

    def operator(self: Tracer, other: Any) -> Any:
        kind = type(other)
        if primitive is not None and self.dtype is _FLOAT64:
            if kind is int and -_LARGEST_EXACT < other < _LARGEST_EXACT:
                other, kind = float(other), float
            if kind is float or (
                isinstance(other, Tracer) and other.dtype is _FLOAT64 and other.shape == self.shape
            ):
                out = primitive.bind(other, self) if reflected else primitive.bind(self, other)
                if self.weak and (kind is float or other.weak):
                    out.weak = True
                return out
        if other is None or kind is str:
            return NotImplemented
        out = general(other, self) if reflected else general(self, other)
        if self.weak and isinstance(dtype_of(other) if hasattr(other, "dtype") else kind, type) and kind is not bool:
            out.weak = True
        return out

    return operator


def _comparison(ufunc: np.ufunc) -> Callable[[Any, Any], Any]:
    general = traced_ufuncs[ufunc]

    def operator(self: Tracer, other: Any) -> Any:
        if other is None or type(other) is str:
            return NotImplemented
        return general(self, other)

    return operator


def _unary(ufunc: np.ufunc) -> Callable[[Any], Any]:
    general = traced_ufuncs[ufunc]

    def operator(self: Tracer) -> Any:
        out = general(self)
        if self.weak:
            out.weak = True
        return out

    return operator


def install_operators(direct: dict[np.ufunc, Primitive]) -> None:
    """Give `Tracer` its operators. `direct` names the primitive of ufuncs that keep float64."""
    binary = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide,
        "floordiv": np.floor_divide, "mod": np.remainder, "pow": np.power, "and": np.bitwise_and,
        "or": np.bitwise_or, "xor": np.bitwise_xor, "lshift": np.left_shift, "rshift": np.right_shift,
    }  # fmt: skip
    for name, ufunc in binary.items():
        setattr(Tracer, f"__{name}__", _binary(ufunc, direct.get(ufunc), False))
        setattr(Tracer, f"__r{name}__", _binary(ufunc, direct.get(ufunc), True))
    comparisons = {
        "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
        "ge": np.greater_equal,
    }  # fmt: skip
    for name, ufunc in comparisons.items():
        setattr(Tracer, f"__{name}__", _comparison(ufunc))
    for name, ufunc in {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}.items():
        setattr(Tracer, f"__{name}__", _unary(ufunc))
    Tracer.__divmod__ = lambda self, other: (self // other, self % other)  # type: ignore[attr-defined]
    Tracer.__rdivmod__ = lambda self, other: (other // self, other % self)  # type: ignore[attr-defined]
