"""Truncated power series with lazy coefficients, and the recurrences of linear and bilinear operations on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Series", "coefficient_of", "product_coefficient"]


class Series:
    """Taylor coefficients of a value, computed in order and on demand; None is a zero coefficient.

    `compute` is None for a constant.
    """

    __slots__ = ("_derivative", "coefficients", "compute")

    def __init__(self, coefficients: list[Any], compute: Callable[[int], Any] | None) -> None:
        self.coefficients = coefficients
        self.compute = compute
        self._derivative: Series | None = None

    def coefficient(self, order: int) -> Any:
        if self.compute is None:
            return self.coefficients[0] if order == 0 else None
        while len(self.coefficients) <= order:
            self.coefficients.append(self.compute(len(self.coefficients)))
        return self.coefficients[order]

    def derivative(self, zero: Callable[[Any], Any]) -> Series:
        """The series of the derivative, always the same object; `zero` makes a zero like a value."""
        if self._derivative is None:

            def compute(order: int) -> Any:
                term = self.coefficient(order + 1)
                return None if term is None else (order + 1) * term

            first = self.coefficient(1)
            self._derivative = Series([zero(self.coefficients[0]) if first is None else first], compute)
        return self._derivative


def coefficient_of(operand: Any, order: int) -> Any:
    """A coefficient of an operand that may be a plain value."""
    if isinstance(operand, Series):
        return operand.coefficient(order)
    return operand if order == 0 else None


def product_coefficient(product: Callable[[Any, Any], Any], x: Any, y: Any, order: int, first: int = 0) -> Any:
    """The coefficient of a bilinear operation: the sum of `product(x_j, y_(order - j))` over j from `first` on."""
    total = None
    for j in range(first, order + 1):
        a, b = coefficient_of(x, j), coefficient_of(y, order - j)
        if a is not None and b is not None:
            term = product(a, b)
            total = term if total is None else total + term
    return total
