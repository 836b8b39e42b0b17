"""The steps of reductions, and what they start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.backend.compiler.dtypes import BOOL

__all__ = ["COMBINATIONS", "neutral"]


def _nan_first(relation: str) -> Callable[[Any, Any, Any], Any]:
    """NumPy's maximum and minimum: the first operand when it is NaN, the second when that is."""

    def choose(e: Any, x: Any, y: Any) -> Any:
        if x.dtype.kind != "f":
            return e.select(e.compare(relation, x, y), x, y)
        better = e.compare(relation, x, y) | e.op(f"fcmp uno {x.type} {x.name}, {x.name}", BOOL, x.lanes)
        return e.select(better, x, y)

    return choose


def _nan_last(relation: str) -> Callable[[Any, Any, Any], Any]:
    """NumPy's fmax and fmin: the operand that is not NaN."""

    def choose(e: Any, x: Any, y: Any) -> Any:
        if x.dtype.kind != "f":
            return e.select(e.compare(relation, x, y), x, y)
        better = e.compare(relation, x, y) | e.op(f"fcmp uno {y.type} {y.name}, {y.name}", BOOL, x.lanes)
        return e.select(better, x, y)

    return choose


COMBINATIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "add": lambda e, x, y: e.arithmetic("add", x, y),
    "mul": lambda e, x, y: e.arithmetic("mul", x, y),
    "max": _nan_first(">="),
    "min": _nan_first("<="),
    "fmax": _nan_last(">"),
    "fmin": _nan_last("<"),
    "and": lambda e, x, y: e.bitwise("and", x, y),
    "or": lambda e, x, y: e.bitwise("or", x, y),
}


def neutral(name: str, dtype: np.dtype) -> Any:
    """What a combination starts from; -0.0 for sums, which alone leaves -0.0 as it is."""
    if name == "add":
        return -0.0 if dtype.kind == "f" else complex(-0.0, -0.0) if dtype.kind == "c" else 0
    if name == "mul":
        return 1
    if name in ("and", "or"):
        return name == "and"
    if dtype.kind == "f":
        return {"max": -np.inf, "min": np.inf}.get(name, np.nan)
    low = name in ("max", "fmax")
    if dtype.kind == "b":
        return not low
    limits = np.iinfo(dtype)
    return limits.min if low else limits.max
