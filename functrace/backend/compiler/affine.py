"""Integer expressions affine in loop variables, and boxes of their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["Affine", "NotAffineError", "divmod_affine"]


class NotAffineError(Exception):
    """An index is not affine in the loop's variables, so an operand of `eqn` has to be in memory."""

    eqn: Any = None


class Affine:
    """constant + sum of coefficients[k] * (variable of axis k)."""

    __slots__ = ("coefficients", "constant")

    def __init__(self, constant: int, coefficients: tuple[int, ...]) -> None:
        self.constant = constant
        self.coefficients = coefficients

    def __add__(self, other: Affine | int) -> Affine:
        if isinstance(other, Affine):
            pairs = zip(self.coefficients, other.coefficients, strict=True)
            return Affine(self.constant + other.constant, tuple([a + b for a, b in pairs]))
        return Affine(self.constant + other, self.coefficients) if other else self

    __radd__ = __add__

    def __sub__(self, other: Affine | int) -> Affine:
        return self + (other * -1)

    def __rsub__(self, other: int) -> Affine:
        return self * -1 + other

    def __mul__(self, factor: int) -> Affine:
        if factor == 1:
            return self
        return Affine(self.constant * factor, tuple([c * factor for c in self.coefficients]))

    __rmul__ = __mul__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Affine) and self.constant == other.constant and self.coefficients == other.coefficients

    def __hash__(self) -> int:
        return hash((self.constant, self.coefficients))

    def __repr__(self) -> str:
        terms = [f"{c}*i{k}" for k, c in enumerate(self.coefficients) if c]
        return " + ".join([str(self.constant), *terms])

    def bounds(self, extents: Sequence[int]) -> tuple[int, int]:
        """Its least and greatest value when variable k runs from 0 to extents[k] - 1."""
        low = high = self.constant
        for coefficient, extent in zip(self.coefficients, extents, strict=True):
            if coefficient > 0:
                high += coefficient * (extent - 1)
            elif coefficient:
                low += coefficient * (extent - 1)
        return low, high


def divmod_affine(value: Affine, divisor: int, extents: Sequence[int]) -> tuple[Affine, Affine]:
    """Quotient and remainder by a positive integer, where both are affine on the box of `extents`.

    Raises:
        NotAffineError: they are not.
    """
    if divisor == 1:
        return value, Affine(0, (0,) * len(value.coefficients))
    constant, rest_constant = divmod(value.constant, divisor)
    quotient, rest = [], []
    for c in value.coefficients:
        whole, left = divmod(c, divisor)
        quotient.append(whole)
        rest.append(left)
    remainder = Affine(rest_constant, tuple(rest))
    low, high = remainder.bounds(extents)
    if low < 0 or high >= divisor:
        raise NotAffineError
    return Affine(constant, tuple(quotient)), remainder
