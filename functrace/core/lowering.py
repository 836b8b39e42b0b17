"""How a primitive is compiled, said without knowing the compiler: the vocabulary of the `lower` rules.

A `lower` rule is one of the classes below, or a tuple of them, of which the first that `suits` is taken:

- `Elementwise(code)`: `code(e, *values, **params)`, one element of the output from those of the operands. `e` is the
  emitter; values have Python's operators.
- `Indexed(read)`: `read(r, index, *operands, **params)`, the element of the output at `index`. `r.read(operand, index)`
  reads one of an operand; indices are affine in the loop's variables: they can be added, and multiplied by integers.
- `Reduction(combine, space, element, kept)`: combines `element(r, index, *operands, **params)` over the axes of `space`
  that are not `kept`.
- `Scan(step, element, axis)`: runs along an axis; `step(e, before, *values)` gives an element of the output from the
  one before it and from `element(r, index, *operands, **params)`.
- `Call(emit)`: `emit(e, operands, outputs, **params)`, code that works on whole arrays in memory: a library function.
- `Inline(program)`: `program(**params)`, the jaxpr that takes the equation's place.
- `Rewrite(function)`: `function(*operands, **params)`, the same in other primitives.
- `Control(emit)`: `emit(e, operands, outputs, **params)`: code that holds programs of its own: loops and branches.

A primitive without one is called as it is, by way of Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Call", "Control", "Elementwise", "Indexed", "Inline", "Lowering", "Reduction", "Rewrite", "Scan", "function",
]  # fmt: skip


def _always(*avals: Any, **params: Any) -> bool:
    return True


@dataclass(frozen=True)
class Lowering:
    """What all have in common.

    Args:
        suits: `suits(*avals, **params)`, whether it compiles operands of these types.
    """

    suits: Callable[..., bool] = _always


@dataclass(frozen=True)
class Elementwise(Lowering):
    """Code for one element.

    Args:
        weight: its price in additions.
        cheap: `cheap(operands)`, whether the operands, atoms, make it cheap as an addition: a power of 2 is a product.
    """

    code: Callable[..., Any] = None  # type: ignore[assignment]
    weight: float = 1.0
    cheap: Callable[[Sequence[Any]], bool] | None = None

    def price(self, operands: Sequence[Any]) -> float:
        """The weight with these operands, atoms."""
        return 1.0 if self.cheap is not None and self.cheap(operands) else self.weight


@dataclass(frozen=True)
class Indexed(Lowering):
    """The element at an index. `weight` is the price of finding it, 0 if elements are only moved."""

    read: Callable[..., Any] = None  # type: ignore[assignment]
    weight: float = 0.0

    def price(self, operands: Sequence[Any]) -> float:
        """See `Elementwise.price`."""
        return self.weight


@dataclass(frozen=True)
class Reduction(Lowering):
    """A sum, product or extremum over some axes of an iteration space.

    Args:
        combine: "add", "mul", "max", "min", "fmax", "fmin", "and" or "or".
        space: `space(*avals, **params)`, the extents of the iteration space.
        element: see the module's text.
        kept: `kept(*avals, **params)`, the axes of the space that the output's axes are, in order.
    """

    combine: str = "add"
    space: Callable[..., tuple[int, ...]] = None  # type: ignore[assignment]
    element: Callable[..., Any] = None  # type: ignore[assignment]
    kept: Callable[..., tuple[int, ...]] = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Scan(Lowering):
    """A cumulative operation: along one axis each element follows from the one before.

    Args:
        step: `step(e, before, *values)`.
        element: gives the list of values of an index; `index` counts in the direction of the run.
        axis: `axis(**params)`, and whether it runs backwards.
        start: what has no effect as `before`, for a step with one value that is associative; else None.
        weight: the price of a step.
    """

    step: Callable[..., Any] = None  # type: ignore[assignment]
    element: Callable[..., list[Any]] = None  # type: ignore[assignment]
    axis: Callable[..., tuple[int, bool]] = None  # type: ignore[assignment]
    start: Callable[..., Any] | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Call(Lowering):
    """A library function on arrays in memory.

    Args:
        views: whether operands may be strided views (else they are C contiguous).
        any_order: whether the output's axes may lie in memory in another order.
        fused: lowerings to prefer, if one suits, when the largest operand is computed element by element for it alone.
        in_parts: `in_parts(**params)`, an object that takes in operands with one axis part by part, so that they
            need not be in memory as a whole. Its `pays` says whether that is worth it, `start(context, operands, outs,
            members)` emits what comes before, with all operands that are no members, and `part(context, operands, outs,
            members, lower, upper)` takes in the elements from `lower` to `upper` of some members.
    """

    emit: Callable[..., Any] = None  # type: ignore[assignment]
    views: bool = False
    any_order: bool = False
    fused: tuple[Lowering, ...] = ()
    in_parts: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Inline(Lowering):
    """A call of a program that is compiled in place."""

    program: Callable[..., Any] = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Rewrite(Lowering):
    """An operation that is compiled as others; gives one value, or a list when the primitive is `multiple`."""

    function: Callable[..., Any] = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Control(Lowering):
    """Loops and branches."""

    emit: Callable[..., Any] = None  # type: ignore[assignment]


def function(name: str, weight: float = 20.0) -> Elementwise:
    """The elementary function of that name in the vector library."""
    return Elementwise(code=lambda e, *values: e.math(name, *values), weight=weight)
