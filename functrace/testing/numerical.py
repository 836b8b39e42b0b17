"""Numerical derivatives, random directions and comparisons, the ground that the checks stand on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from functrace.core.types import ShapedArray, aval_of, float0, is_inexact

__all__ = [
    "SEED",
    "RuleError",
    "complex_step",
    "difference",
    "fine",
    "inner",
    "noise",
    "random_like",
    "require_close",
    "require_equal",
    "require_type",
    "scale",
]

SEED = 20260701


class RuleError(AssertionError):
    """A derivative, or a rule of a primitive, that disagrees with another one or with numbers."""


def step(values: Iterable[Any]) -> float:
    """The step for which the five-point difference has about as much rounding as truncation error."""
    narrow = any(v.dtype in (np.float32, np.complex64, np.float16) for v in values)
    return 2e-2 if narrow else 2e-4


def moved(values: Sequence[Any], direction: Sequence[Any], step: float) -> list[Any]:
    return [(x + x.dtype.type(step) * v) if is_inexact(x.dtype) else x for x, v in zip(values, direction, strict=True)]


def difference(
    f: Callable[..., Sequence[Any]], values: Sequence[Any], direction: Sequence[Any], eps: float | None = None
) -> list[Any]:
    """The derivative of `f` along a direction by central differences, extrapolated once.

    Args:
        f: function of flat values that gives a list of values.
        values: where; integers and booleans stay as they are.
        direction: one array per value.
        eps: the step; by default one that suits the precision.

    Returns:
        One array per output.

    Example:
        >>> import numpy as np
        >>> from functrace.testing import difference
        >>> round(float(difference(lambda x: [np.sin(x)], [np.float64(0.0)], [np.float64(1.0)])[0]), 8)
        1.0
    """
    h = step(values) if eps is None else eps
    plus, minus = f(*moved(values, direction, h)), f(*moved(values, direction, -h))
    plus2, minus2 = f(*moved(values, direction, 2 * h)), f(*moved(values, direction, -2 * h))
    pairs = zip(plus, minus, plus2, minus2, strict=True)
    return [(8 * (a - b) - (c - d)) / a.dtype.type(12 * h) for a, b, c, d in pairs]


def complex_step(f: Callable[..., Sequence[Any]], values: Sequence[Any], direction: Sequence[Any]) -> list[Any]:
    """The derivative of an analytic `f` of real values along a direction, exact to rounding: Im f(x + ihv) / h.

    J. N. Lyness and C. B. Moler, Numerical differentiation of analytic functions (1967).

    Args:
        f: function of flat values that gives a list of values, able to take complex ones.
        values: where; integers and booleans stay as they are.
        direction: one array per value.

    Returns:
        One array per output.
    """
    h = 1e-30
    outs = f(*[x + 1j * h * v if is_inexact(x.dtype) else x for x, v in zip(values, direction, strict=True)])
    return [np.imag(out) / h for out in outs]


def random_like(rng: np.random.Generator, value: Any) -> Any:
    """A random tangent of a value: real and imaginary parts between 1/4 and 1 in size."""

    def part() -> Any:
        return rng.uniform(0.25, 1, value.shape) * rng.choice([-1.0, 1.0], value.shape)

    if not is_inexact(value.dtype):
        return np.zeros(value.shape, float0)
    random = part() + 1j * part() if value.dtype.kind == "c" else part()
    return np.asarray(random, value.dtype)[()]


def inner(left: Iterable[Any], right: Iterable[Any]) -> float:
    """Real part of the sum of products, in float64."""
    total = 0.0
    for a, b in zip(left, right, strict=True):
        if a.dtype != float0 and a.size:
            total += float(np.sum(np.asarray(a, complex) * np.asarray(b, complex)).real)
    return total


def noise(outs: Iterable[Any], eps: float | None = None) -> float:
    """The rounding error to expect in a difference of these outputs."""
    outs = [o for o in outs if is_inexact(o.dtype) and o.size]
    if not outs:
        return 0.0
    size = max(float(np.max(np.abs(o), where=np.isfinite(o), initial=0)) for o in outs)
    return 8 * max(float(np.finfo(o.dtype).eps) for o in outs) * size / (step(outs) if eps is None else eps)


def require_close(what: str, got: Any, expected: Any, rtol: float, atol: float) -> None:
    """Raise unless two results have the same shape and nearly the same values."""
    if np.shape(got) != np.shape(expected):
        raise RuleError(f"{what}: shape {np.shape(got)}, expected {np.shape(expected)}")
    if getattr(expected, "dtype", None) == float0 and got.dtype == float0:
        return
    if np.allclose(got, expected, rtol=rtol, atol=atol, equal_nan=True):
        return
    with np.errstate(all="ignore"):
        error = float(np.max(np.abs(np.asarray(got) - np.asarray(expected)), initial=0))
    raise RuleError(
        f"{what}: largest difference {error:.3g} (rtol {rtol:.1g}, atol {atol:.1g})\n"
        f"  got: {got!r}\n  expected: {expected!r}"
    )


def require_type(what: str, value: Any, aval: ShapedArray) -> None:
    """Raise unless a result has the given type, as an array or, for shape (), as a NumPy scalar."""
    kind = np.ndarray if aval.shape else np.generic
    if not isinstance(value, kind) or aval_of(value) != aval:
        got = aval_of(value) if hasattr(value, "dtype") else ""
        raise RuleError(f"{what}: {type(value).__name__} {got}, expected {kind.__name__} {aval}")


def fine(values: Sequence[Any]) -> float:
    """The tolerance between two ways of computing the same, in the precision of these values."""
    return max((1e4 * float(np.finfo(v.dtype).eps) for v in values if is_inexact(v.dtype)), default=1e-12)


def scale(value: Any) -> float:
    value = np.asarray(value)
    return float(np.max(np.abs(value), where=np.isfinite(value), initial=0)) if value.dtype.kind in "fc" else 0.0


def require_equal(what: str, got: Any, expected: Any, slack: float = 1.0) -> None:
    """Raise unless two results are the same to rounding, relative to the largest element."""
    tolerance = fine([expected]) * slack
    require_close(what, got, expected, tolerance, tolerance * (1 + scale(expected)))
