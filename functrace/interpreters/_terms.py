"""Arrays as sums of products of smaller arrays; see `contractions`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from functrace.core.ir import Atom, Eqn, Literal, Var
from functrace.core.primitive import Primitive
from functrace.core.types import ShapedArray
from functrace.primitives.contraction import dot_general, free_axes
from functrace.primitives.elementwise import sub
from functrace.primitives.families import add, broadcast, mul, neg, reshape, weighted_sum
from functrace.primitives.shape import transpose

__all__ = ["Expansion", "Factor", "Term", "Writer", "axes_of", "negated", "spread", "times", "total"]

_TERMS, _FACTORS = 8, 8
_LOOKS = 64  # arrays that an operand is traced back through


class Factor(NamedTuple):
    """An array, and the axes of the space that its axes are.

    Attributes:
        parts: what it is the product of, if it was made for a contraction.
    """

    atom: Atom
    axes: tuple[int, ...]
    parts: tuple[Factor, ...] = ()


class Term(NamedTuple):
    """A product of arrays, each repeated along the axes it does not have; or that with the other sign."""

    negative: bool
    factors: tuple[Factor, ...]


Terms = list[Term] | None  # None: too many


class Writer(Protocol):
    """A program being written.

    Attributes:
        identities: its variables that are identity matrices.
        marked: its variables that are products with one.
        producers: where its variables come from.
    """

    identities: Any
    marked: set[Var]
    producers: dict[Var, Eqn]

    def emit(self, primitive: Primitive, *operands: Atom, **params: Any) -> Var:
        """Append an operation; its result."""


def axes_of(
    x: ShapedArray, y: ShapedArray, *, contract: Any, batch: Any
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The space of a contraction, its result's axes first, and the places of the operands' axes in it."""
    free_x, free_y = free_axes(x.ndim, contract[0], batch[0]), free_axes(y.ndim, contract[1], batch[1])
    order_x, order_y = (*batch[0], *free_x, *contract[0]), (*batch[1], *free_y, *contract[1])
    b, fx, fy = len(batch[0]), len(free_x), len(free_y)
    lengths = [x.shape[a] for a in (*batch[0], *free_x)] + [y.shape[a] for a in free_y]
    space = (*lengths, *(x.shape[a] for a in contract[0]))
    at_x = [*range(b + fx), *range(b + fx + fy, len(space))]
    at_y = [*range(b), *range(b + fx, len(space))]
    places_x, places_y = dict(zip(order_x, at_x, strict=True)), dict(zip(order_y, at_y, strict=True))
    return space, tuple(places_x[a] for a in range(x.ndim)), tuple(places_y[a] for a in range(y.ndim))


def spread(writer: Writer, factor: Factor, axes: Sequence[int], space: Sequence[int]) -> Atom:
    """The factor with these axes of the space, in this order, among which its own are."""
    atom = factor.atom
    if isinstance(atom, Literal):
        return atom
    order = sorted(range(len(factor.axes)), key=lambda k: axes.index(factor.axes[k]))
    if order != list(range(len(order))):
        atom = writer.emit(transpose, atom, permutation=tuple(order))
    if len(order) < len(axes):
        places = tuple([axes.index(factor.axes[k]) for k in order])
        atom = writer.emit(broadcast, atom, shape=tuple([space[a] for a in axes]), axes=places)
    return atom


def negated(terms: Terms) -> Terms:
    """The terms with the other signs."""
    return None if terms is None else [Term(not t.negative, t.factors) for t in terms]


def total(left: Terms, right: Terms) -> Terms:
    """The terms of a sum."""
    return None if left is None or right is None or len(left) + len(right) > _TERMS else [*left, *right]


def times(left: Terms, right: Terms) -> Terms:
    """The terms of a product, of which one factor may be a sum if the other is a number.

    What cancels in a sum must not be multiplied before by what may be infinite.
    """
    if left is None or right is None:
        return None
    if len(left) != 1:
        left, right = right, left
    if len(left) != 1 or (len(right) != 1 and not all(isinstance(f.atom, Literal) for f in left[0].factors)):
        return None
    (negative, factors) = left[0]
    if max(len(t.factors) for t in right) + len(factors) > _FACTORS:
        return None
    return [Term(t.negative != negative, (*factors, *t.factors)) for t in right]


class Expansion:
    """Sees arrays as sums of products.

    Looked through are what repeats elements, arrays of the whole space, which need not be made then, and products with
    identities.

    Args:
        writer: the program.
        size: the number of elements of the space.
    """

    def __init__(self, writer: Writer, size: float) -> None:
        self.writer = writer
        self.size = size
        self.found: dict[tuple[Atom, tuple[int, ...]], Terms] = {}

    def expand(self, atom: Atom, axes: tuple[int, ...]) -> Terms:
        """The terms of an array whose axes are these of the space."""
        if not isinstance(atom, Var) or atom in self.writer.identities or len(self.found) > _LOOKS:
            return [Term(False, (Factor(atom, axes),))]
        if (atom, axes) not in self.found:
            self.found[atom, axes] = None
            self.found[atom, axes] = self._seen_through(atom, axes)
        return self.found[atom, axes]

    def _seen_through(self, atom: Var, axes: tuple[int, ...]) -> Terms:
        writer = self.writer
        leaf = [Term(False, (Factor(atom, axes),))]
        eqn = writer.producers.get(atom)
        if eqn is None:
            return leaf
        primitive, operands = eqn.primitive, eqn.invars
        if primitive is broadcast:
            return self._repeated(eqn, axes)
        whole = atom.aval.size == self.size
        if not whole and atom not in writer.marked:
            return leaf
        if primitive is transpose:
            source = [0] * len(axes)
            for axis, k in zip(axes, eqn.params["permutation"], strict=True):
                source[k] = axis
            return self.expand(operands[0], tuple(source))
        if primitive is mul:
            return times(self.part(operands[0], axes), self.part(operands[1], axes)) or leaf
        if primitive is neg:
            return negated(self.part(operands[0], axes))
        if not whole:
            return leaf
        if primitive is dot_general and not eqn.params["contract"][0]:
            _, of_x, of_y = axes_of(*[a.aval for a in operands], **eqn.params)
            left = self.expand(operands[0], tuple([axes[a] for a in of_x]))
            return times(left, self.expand(operands[1], tuple([axes[a] for a in of_y]))) or leaf
        return self.of_sum(eqn, axes) or leaf

    def of_sum(self, eqn: Eqn, axes: tuple[int, ...]) -> Terms:
        """The terms of the result of a sum or difference; None of any other operation."""
        if eqn.primitive is add or eqn.primitive is sub:
            left, right = (self.part(a, axes) for a in eqn.invars)
            return total(left, negated(right) if eqn.primitive is sub else right)
        if eqn.primitive is weighted_sum:
            a, b, x, y = (self.part(operand, axes) for operand in eqn.invars)
            return total(times(a, x), times(b, y))
        return None

    def part(self, atom: Atom, axes: tuple[int, ...]) -> Terms:
        """The terms of an operand of an elementwise operation, a plain number among them."""
        return self.expand(atom, axes if atom.aval.shape or not axes else ())

    def _repeated(self, eqn: Eqn, axes: tuple[int, ...]) -> Terms:
        """The terms of what is repeated, without axes of one element that are stretched."""
        x, shape, places = eqn.invars[0], eqn.params["shape"], eqn.params["axes"]
        lengths = x.aval.shape
        kept = [k for k, (n, a) in enumerate(zip(lengths, places, strict=True)) if n == shape[a]]
        if len(kept) < len(lengths):
            x = self.writer.emit(reshape, x, shape=tuple([lengths[k] for k in kept]))
        return self.expand(x, tuple([axes[places[k]] for k in kept]))
