"""Which elements of its operands an operation depends on, and which pairs of them have a second derivative.

A primitive's rule `sparsity(operands, outs, **params)` gives a list with one of these per output:

- a structure of this module: `Pointwise`, `Moves` or `Linked`;
- None, where no derivative flows to the output;
- the output itself, where the rule carries the operation out as a program of others (control flow).

Operands are plain values where the program's inputs do not reach (`known` tells), so that known indices, masks and
coefficients make the structure exact; `outs` are the types of the outputs. A structure holds for every value of the
operands that are not known. Operands that no derivative flows through may be named in it without harm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from functrace.core.trace import Tracer
from functrace.core.types import ShapedArray, aval_of

__all__ = [
    "Along", "ElementProduct", "GroupProduct", "Groups", "Link", "Linked", "Mask", "Moves", "Pairs", "Pointwise",
    "Structure", "known", "labelled", "moves", "numbered", "whole", "within_groups",
]  # fmt: skip

Mask = bool | np.ndarray


class Pointwise:
    """Output element e depends on element e of the operands; a plain number stands for its broadcast.

    Args:
        depends: per operand, whether (or at which elements) the output depends on it.
        curved: triples (i, j, where): the operands i and j have a second derivative at those elements.
    """

    __slots__ = ("curved", "depends")

    def __init__(self, depends: Sequence[Mask], curved: Sequence[tuple[int, int, Mask]] = ()) -> None:
        self.depends = tuple(depends)
        self.curved = tuple(curved)


class Moves:
    """Every output element is one element of one operand, or a constant.

    Args:
        function: moves the elements of arrays of integers (of the operands' shapes), filling up with 0.
    """

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function


class Groups(NamedTuple):
    """An output element depends on all operand elements of its group.

    `reads` numbers the group that each operand element belongs to, `gives` that of each output element; from 1, with 0
    for none. None stands for the element's own number.
    """

    reads: np.ndarray | None
    gives: np.ndarray | None


class Along(NamedTuple):
    """An output element depends on the operand's elements along `axes` that agree with it in the other axes.

    `keeps` tells whether the output still has those axes (of any length).
    """

    axes: tuple[int, ...]
    keeps: bool = False


class Pairs(NamedTuple):
    """Element out[k] of the output depends on element operand[k], both as flat positions."""

    out: np.ndarray
    operand: np.ndarray


Link = Groups | Along | Pairs | None


class GroupProduct(NamedTuple):
    """Elements of two operands that belong to one group have a second derivative.

    Groups are numbered as in `Groups`. With `distinct`, an element has none with itself.
    """

    left: int
    right: int
    left_groups: np.ndarray | None
    right_groups: np.ndarray | None
    distinct: bool = False


class ElementProduct(NamedTuple):
    """Elements of two operands, as flat positions, that have a second derivative; `out`: of which output element."""

    left: int
    right: int
    left_elements: np.ndarray
    right_elements: np.ndarray
    out: np.ndarray | None = None


class Linked:
    """Any other dependence: a link per operand, and the products that make second derivatives."""

    __slots__ = ("links", "products")

    def __init__(self, links: Sequence[Link], products: Sequence[GroupProduct | ElementProduct] = ()) -> None:
        self.links = tuple(links)
        self.products = tuple(products)


Structure = Pointwise | Moves | Linked | None


def known(operand: Any) -> Any:
    """The operand's value where the program's inputs do not reach it, else None."""
    return None if isinstance(operand, Tracer) else operand


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    """The elements of an array numbered from 1."""
    return np.arange(1, int(np.prod(shape, dtype=np.intp)) + 1).reshape(shape)


def labelled(shape: tuple[int, ...], axes: Sequence[int]) -> np.ndarray:
    """The elements of an array numbered from 1 by their places along some axes, alike along the others."""
    label = np.ones((1,) * len(shape), np.intp)
    for axis in reversed(axes):
        along = np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))])
        label = label + along * int(np.prod([shape[a] for a in axes[axes.index(axis) + 1 :]], dtype=np.intp))
    return np.broadcast_to(label, shape)


def moves(impl: Callable[..., Any]) -> Callable[..., list[Structure]]:
    """The rule of a primitive that moves elements: its own evaluation, on element numbers."""

    def rule(operands: list[Any], outs: list[ShapedArray], **params: Any) -> list[Structure]:
        return [Moves(partial(impl, **params))]

    return rule


def whole(linear: Sequence[int] = (), none: Sequence[int] = ()) -> Callable[..., list[Structure]]:
    """The rule that holds for every primitive: each output element depends on every element.

    Args:
        linear: operands that have no second derivatives with one another.
        none: operands that no derivative flows through.
    """
    return within_groups(lambda aval: np.broadcast_to(np.intp(1), aval.shape), linear, none)


def within_groups(
    groups: Callable[[ShapedArray], np.ndarray], linear: Sequence[int] = (), none: Sequence[int] = ()
) -> Callable[..., list[Structure]]:
    """The rule where all elements of a group, numbered for each operand and output, depend on each other."""

    def rule(operands: list[Any], outs: list[ShapedArray], /, **params: Any) -> list[Structure]:
        reads = [groups(aval_of(operand)) for operand in operands]
        active = [i for i in range(len(operands)) if i not in none]
        products = [
            GroupProduct(i, j, reads[i], reads[j])
            for i in active
            for j in active
            if i <= j and not (i in linear and j in linear)
        ]
        found: list[Structure] = []
        for out in outs:
            gives = groups(out)
            links = [Groups(reads[i], gives) if i in active else None for i in range(len(operands))]
            found.append(Linked(links, products))
        return found

    return rule
