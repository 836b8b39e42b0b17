"""`cost`: what a call will take, in arithmetic, memory traffic and memory, found from its program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from functrace.errors import ArgumentError
from functrace.interpreters.cost import Cost, cost_by_source, jaxpr_cost
from functrace.transforms import make_jaxpr
from functrace.transforms._flatten import check_callable
from functrace.util import Source, user_line

__all__ = ["Cost", "LineCosts", "cost", "quantity"]


def cost(fun: Callable[..., Any], by: str | None = None) -> Callable[..., Any]:
    """A function that says what a call of `fun` takes, without running it.

    Flops are those of the formulas: one for each sum, product, quotient and comparison, 2mnk for a matrix product, the
    leading terms for LAPACK's routines, 20 for an elementary function. Peak memory is that of NumPy evaluating one
    operation after the other, results included and arguments not. A `while` counts as one step, since nothing says
    how many it will take; the result's `notes` say so.

    By line, what a derivative does belongs to the line that it differentiates: a sweep back along `y = w @ x` counts
    for that line, not for the call of `grad`.

    Args:
        fun: function of arrays or pytrees of arrays, a transformed one too (`cost(grad(f))`).
        by: "line" for the cost of each of the user's source lines.

    Returns:
        A function of the same arguments (values or `ShapeDtypeStruct`s) that gives a `Cost`, or `LineCosts`.

    Raises:
        ArgumentError: `by` is neither None nor "line".
        AbstractValueError: `fun` branches in Python on a traced value (when called).

    Example:
        >>> import numpy as np
        >>> from functrace.inspect import cost
        >>> price = cost(lambda a, x: a @ x)(np.ones((30, 20)), np.ones(20))
        >>> price.flops, price.bytes, price.peak, price.primitives
        (1200, 5200, 240, 1)
        >>> def f(w):
        ...     y = np.tanh(w)
        ...     return y @ y
        >>> {line.rpartition(":")[2]: found.flops for line, found in cost(f, by="line")(np.ones(50)).items()}
        {'2': 1000, '3': 100}
    """
    check_callable(fun, "cost")
    if by not in (None, "line"):
        raise ArgumentError(
            "cost is given as a whole or by line",
            where=user_line(),
            got=f"by={by!r}",
            remedy='leave it out, or give by="line"',
        )

    @functools.wraps(fun)
    def cost_fun(*args: Any, **kwargs: Any) -> Any:
        jaxpr = make_jaxpr(fun)(*args, **kwargs).jaxpr
        return jaxpr_cost(jaxpr) if by is None else LineCosts(cost_by_source(jaxpr), jaxpr_cost(jaxpr))

    return cost_fun


class LineCosts(Mapping[str, Cost]):
    """The cost of each source line, `"file.py:12"` to `Cost`, the most expensive first; prints as a table."""

    def __init__(self, by_source: Mapping[Source | None, Cost], total: Cost) -> None:
        lines: dict[str, Cost] = {}
        for source, found in by_source.items():
            name = "elsewhere" if source is None else f"{source.file}:{source.line}"
            lines[name] = lines.get(name, Cost()) + found
        self.total = total
        self._lines = dict(sorted(lines.items(), key=lambda item: -item[1].seconds()))

    def __getitem__(self, line: str) -> Cost:
        return self._lines[line]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def __repr__(self) -> str:
        width = max([len("line"), *map(len, self._lines)])
        head = f"{'line':<{width}}  {'flops':>9} {'moved':>9} {'peak':>9} {'calls':>7}"
        rows = [*self._lines.items(), ("total", self.total)]
        notes = (f"note: {note}" for note in self.total.notes)
        return "\n".join([head, *(f"{name:<{width}}  {_columns(found)}" for name, found in rows), *notes])


def _columns(found: Cost) -> str:
    moved, peak = quantity(found.bytes, "B"), quantity(found.peak, "B")
    return f"{quantity(found.flops):>9} {moved:>9} {peak:>9} {found.primitives:>7}"


def quantity(value: float, unit: str = "") -> str:
    """Three figures with a decimal prefix: `12.3 MB`."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()
