"""How cumulative operations are compiled; see `core.lowering`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.lowering import Rewrite, Scan
from functrace.primitives import _codes

__all__ = ["along_the_last_axis", "cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum", "linear_recurrence"]

_LONG = 16  # steps


def _axis(*, axis: int, reverse: bool) -> tuple[int, bool]:
    return axis, reverse


def _at(r: Any, index: Sequence[Any], x: Any, axis: int, reverse: bool) -> Any:
    """An element, by an index that counts in the direction of the run."""
    if not reverse:
        return r.read(x, index)
    return r.read(x, [x.aval.shape[axis] - 1 - i if k == axis else i for k, i in enumerate(index)])


def _cumulative(
    step: Callable[..., Any], start: Callable[[np.dtype], Any] | None, kinds: str, weight: float = 1.0
) -> Scan:
    return Scan(
        lambda x, **params: x.dtype.kind in kinds and x.dtype.name != "float16",
        step,
        lambda r, i, x, *, axis, reverse: [_at(r, i, x, axis, reverse)],
        _axis,
        start,
        weight,
    )


def _nothing(dtype: np.dtype) -> Any:
    return -0.0 if dtype.kind == "f" else complex(-0.0, -0.0) if dtype.kind == "c" else 0


def _least(dtype: np.dtype) -> Any:
    return -np.inf if dtype.kind == "f" else dtype.kind != "b" and np.iinfo(dtype).min


def _greatest(dtype: np.dtype) -> Any:
    return np.inf if dtype.kind == "f" else dtype.kind == "b" or np.iinfo(dtype).max


cumsum = _cumulative(lambda e, p, x: p + x, _nothing, "fiubc")
# Products of floats are taken in NumPy's order: in another one they overflow where NumPy's do not.
cumprod = (
    _cumulative(lambda e, p, x: p * x, None, "fc"),
    _cumulative(lambda e, p, x: p * x, lambda dtype: 1, "iub"),
)
cummax = _cumulative(lambda e, p, x: e.combine("max", p, x), _least, "fiub")
cummin = _cumulative(lambda e, p, x: e.combine("min", p, x), _greatest, "fiub")
cumlogsumexp = _cumulative(_codes.logaddexp.code, lambda dtype: -np.inf, "f", _codes.logaddexp.weight)


def along_the_last_axis(function: Callable[..., Any]) -> Rewrite:
    """The lowering of a long run along the last axis, where each step would wait for the one before, as other runs."""

    def suits(x: Any, *, axis: int, reverse: bool) -> bool:
        return axis == x.ndim - 1 and x.shape[axis] >= _LONG and x.dtype.kind == "f" and x.dtype.name != "float16"

    return Rewrite(suits, function)


def _recurrence_step(e: Any, before: Any, a: Any, b: Any) -> Any:
    """A factor of exactly 0 cuts off what was before, be it infinite."""
    return e.select(a == 0, b, a * before + b)


linear_recurrence = Scan(
    lambda a, b, **params: a.dtype.kind in "fiuc" and a.dtype.name != "float16",
    _recurrence_step,
    lambda r, i, a, b, *, axis, reverse: [_at(r, i, a, axis, reverse), _at(r, i, b, axis, reverse)],
    _axis,
    None,
    3.0,
)
