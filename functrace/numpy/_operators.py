"""Python's arithmetic and comparison operators on tracers, with short ways for the common cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.core.primitive import Primitive
from functrace.core.trace import Tracer
from functrace.numpy._dispatch import traced_ufuncs
from functrace.primitives import elementwise as p

__all__ = ["install_operators"]

_FLOAT64 = np.dtype(np.float64)
_LARGEST_EXACT = 2**53
_WEAK_NUMBERS = frozenset({int, float, complex})
#: What Python shall try the other operand's method for, or say itself that it cannot.
_NOT_OPERANDS = frozenset({type(None), str, bytes, dict, set, frozenset})
#: The primitives of ufuncs that take float64 operands of one shape as they are.
_DIRECT: dict[np.ufunc, Primitive] = {
    np.add: p.add,
    np.subtract: p.sub,
    np.multiply: p.mul,
    np.true_divide: p.div,
    np.power: p.power,
}


def _binary(ufunc: np.ufunc, primitive: Primitive | None, reflected: bool) -> Callable[[Any, Any], Any]:
    """The operator method of a ufunc; `primitive` serves float64 operands of one shape directly."""
    general = traced_ufuncs[ufunc]

    def operator(self: Tracer, other: Any) -> Any:
        kind = type(other)
        if primitive is not None and self.dtype is _FLOAT64:
            if kind is int and -_LARGEST_EXACT < other < _LARGEST_EXACT:
                other, kind = float(other), float
            if kind is float or (isinstance(other, Tracer) and other.dtype is _FLOAT64 and other.shape == self.shape):
                out = primitive.bind(other, self) if reflected else primitive.bind(self, other)
                if self.weak and (kind is float or other.weak):
                    out.weak = True
                return out
        if kind in _NOT_OPERANDS or getattr(kind, "__array_ufunc__", True) is None:
            return NotImplemented
        out = general(other, self) if reflected else general(self, other)
        if self.weak and (kind in _WEAK_NUMBERS or (isinstance(other, Tracer) and other.weak)):
            out.weak = True
        return out

    return operator


def _comparison(ufunc: np.ufunc) -> Callable[[Any, Any], Any]:
    general = traced_ufuncs[ufunc]

    def operator(self: Tracer, other: Any) -> Any:
        if type(other) in _NOT_OPERANDS or getattr(type(other), "__array_ufunc__", True) is None:
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


def install_operators() -> None:
    """Give `Tracer` its operators."""
    binary: dict[str, np.ufunc] = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide,
        "floordiv": np.floor_divide, "mod": np.remainder, "pow": np.power, "and": np.bitwise_and,
        "or": np.bitwise_or, "xor": np.bitwise_xor, "lshift": np.left_shift, "rshift": np.right_shift,
    }  # fmt: skip
    for name, ufunc in binary.items():
        setattr(Tracer, f"__{name}__", _binary(ufunc, _DIRECT.get(ufunc), False))
        setattr(Tracer, f"__r{name}__", _binary(ufunc, _DIRECT.get(ufunc), True))
    comparisons: dict[str, np.ufunc] = {
        "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
        "ge": np.greater_equal,
    }  # fmt: skip
    for name, ufunc in comparisons.items():
        setattr(Tracer, f"__{name}__", _comparison(ufunc))
    unary: dict[str, np.ufunc] = {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}
    for name, ufunc in unary.items():
        setattr(Tracer, f"__{name}__", _unary(ufunc))
    methods: dict[str, Callable[[Any, Any], Any]] = {
        "__divmod__": lambda self, other: (self // other, self % other),
        "__rdivmod__": lambda self, other: (other // self, other % self),
    }
    for name, method in methods.items():
        setattr(Tracer, name, method)
