"""Sums of products of arrays that repeat their elements, as products of matrices; those with identities as none at all.

Batched derivatives are full of both: a second directional derivative for every pair of directions is a sum over
products of two arrays, each repeated along the other's direction, and the directions are the rows of an identity.

An operand is expanded as a sum of terms, each a product of factors, and a factor is an array with its place among the
axes of the sum (its space). Factors whose axes lie among another's are multiplied into it; two that share a summed axis
are contracted, until one is left. What is kept: the value of each term but for the order of its factors and summands,
and every NaN. Times an identity, a row with infinities or NaNs is NaN but for a lone one's own place, because the zeros
of the identity meet them; so those are counted, which takes less than the product.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from functrace.core.ir import Atom, Eqn, Jaxpr, Literal, Var
from functrace.core.primitive import Primitive
from functrace.interpreters._identities import REAL, Identity, identity, joined, times_identity
from functrace.interpreters._terms import Expansion, Factor, Term, Terms, axes_of, spread, times
from functrace.primitives.contraction import dot_general
from functrace.primitives.elementwise import isfinite, select, sub
from functrace.primitives.families import add, broadcast, mul, neg, reduce_sum, reshape, weighted_sum
from functrace.primitives.shape import transpose

__all__ = ["Identity", "contract", "identity"]

_LEAST = 512  # products that a library call is worth
_THIN = 4  # an extent that is no matrix's
_GAIN = 4  # how many times fewer elements an array must have to be made in place of another
_DTYPES = ("float32", "float64", "complex64", "complex128")
_PRODUCTS = (broadcast, transpose, mul, neg)
_SUMS = (add, sub, weighted_sum, select)


def contract(jaxpr: Jaxpr, identities: Mapping[Var, Identity]) -> Jaxpr:
    """The program with sums of products as contractions, and without products with identities.

    Args:
        jaxpr: the program.
        identities: which of its variables are identity matrices.
    """
    if not identities and not any(map(_may_gain, jaxpr.eqns)):
        return jaxpr
    writer = _Writer(identities, _used_once(jaxpr))
    for eqn in jaxpr.eqns:
        writer.append(eqn)
    if not writer.replaced:
        return jaxpr
    return Jaxpr(jaxpr.constvars, jaxpr.invars, writer.eqns, [writer.current(a) for a in jaxpr.outvars])


def _may_gain(eqn: Eqn) -> bool:
    primitive = eqn.primitive
    return primitive is transpose or (primitive is reduce_sum and eqn.invars[0].aval.size >= _LEAST)


def _used_once(jaxpr: Jaxpr) -> set[Var]:
    """Variables that one equation reads, or the result is."""
    counts = Counter(itertools.chain(jaxpr.outvars, *[eqn.invars for eqn in jaxpr.eqns]))
    return {a for a, count in counts.items() if count == 1 and isinstance(a, Var)}


class _Writer:
    """Equations of the new program, as they come."""

    def __init__(self, identities: Mapping[Var, Identity], used_once: set[Var]) -> None:
        self.identities = identities
        self.used_once = used_once
        self.eqns: list[Eqn] = []
        first: dict[Any, Var] = {}
        for var, kind in identities.items():
            first.setdefault((kind, var.aval), var)
        same = {v: first[kind, v.aval] for v, kind in identities.items()}
        self.replaced: dict[Var, Atom] = {v: one for v, one in same.items() if v is not one}
        self.producers: dict[Var, Eqn] = {}
        self.marked: set[Var] = set(identities)  # products with an identity among their factors
        self.source: Any = None

    def current(self, atom: Atom) -> Atom:
        return self.replaced.get(atom, atom) if isinstance(atom, Var) else atom

    def append(self, eqn: Eqn) -> None:
        """The equation, or what takes its place."""
        if self.replaced:
            operands = [self.current(a) for a in eqn.invars]
            eqn = Eqn(eqn.primitive, operands, eqn.outvars, eqn.params, eqn.source)
        written, self.source = len(self.eqns), eqn.source
        found = self.rewritten(eqn)
        if found is not None:
            self.replaced[eqn.outvars[0]] = found
            if eqn.outvars[0] in self.used_once and any(found is e.outvars[0] for e in self.eqns[written:]):
                self.used_once.add(found)  # type: ignore[arg-type]
            return
        for dropped in self.eqns[written:]:
            del self.producers[dropped.outvars[0]]
        del self.eqns[written:]
        self.keep(eqn)

    def keep(self, eqn: Eqn) -> None:
        self.eqns.append(eqn)
        if eqn.primitive.multiple:
            return
        out = eqn.outvars[0]
        self.producers[out] = eqn
        if self.marked and eqn.primitive in _PRODUCTS and any(a in self.marked for a in eqn.invars):
            self.marked.add(out)

    def emit(self, primitive: Primitive, *operands: Atom, **params: Any) -> Var:
        out = Var(primitive.abstract_eval(*[a.aval for a in operands], **params))
        self.keep(Eqn(primitive, list(operands), [out], params, self.source))
        return out

    def rewritten(self, eqn: Eqn) -> Atom | None:
        """What an equation gives, by contractions, if it pays."""
        if eqn.primitive is reduce_sum:
            x = eqn.invars[0]
            if x.aval.size < _LEAST or x.aval.dtype.name not in _DTYPES or not isinstance(x, Var):
                return None
            space, axes = x.aval.shape, eqn.params["axes"]
            terms = Expansion(self, math.prod(space)).expand(x, tuple(range(len(space))))
            return self.total(terms, space, [a for a in range(len(space)) if a not in axes], False)
        if eqn.primitive is dot_general and any(a in self.marked for a in eqn.invars):
            return self.product(eqn)
        if eqn.primitive is transpose or eqn.primitive is reshape:
            return self.moved(eqn)
        if eqn.primitive in _SUMS and any(a in self.marked for a in eqn.invars):
            return joined(self, eqn)
        return None

    def moved(self, eqn: Eqn) -> Atom | None:
        """What moves elements that were moved before, or a product, at once."""
        x, out = eqn.invars[0], eqn.outvars[0]
        before = self.producers.get(x)  # type: ignore[arg-type]
        if before is None or not before.invars:
            return None
        source = before.invars[0]
        if eqn.primitive is reshape:
            if before.primitive is not reshape:
                return None
            return source if source.aval == out.aval else self.emit(reshape, source, **eqn.params)
        permutation = eqn.params["permutation"]
        if before.primitive is transpose:
            first = before.params["permutation"]
            composed = tuple([first[a] for a in permutation])
            unmoved = composed == tuple(range(len(composed)))
            return source if unmoved else self.emit(transpose, source, permutation=composed)
        if before.primitive is dot_general and x in self.used_once:
            (contract_x, contract_y), (batch_x, batch_y) = before.params["contract"], before.params["batch"]
            b, free = len(batch_x), source.aval.ndim - len(contract_x) - len(batch_x)
            if permutation == (*range(b), *range(b + free, len(permutation)), *range(b, b + free)):
                contract, batch = (contract_y, contract_x), (batch_y, batch_x)
                return self.emit(dot_general, before.invars[1], source, contract=contract, batch=batch)
        return None

    def product(self, eqn: Eqn) -> Atom | None:
        """A contraction with an identity."""
        (x, y), params = eqn.invars, eqn.params
        if not params["contract"][0] or x.aval.dtype.name not in REAL:
            return None
        space, of_x, of_y = axes_of(x.aval, y.aval, **params)
        expansion = Expansion(self, math.inf)
        terms = times(expansion.expand(x, of_x), expansion.expand(y, of_y))
        return self.total(terms, space, list(range(eqn.outvars[0].aval.ndim)), True)

    def total(self, terms: Terms, space: tuple[int, ...], kept: list[int], by_identity: bool) -> Atom | None:
        """The sum of the terms over the axes that are not kept."""
        found: list[tuple[bool, Atom]] = []
        for term in terms or ():
            atom = _Contraction(self, space, kept).run(term, by_identity)
            if atom is None:
                return None
            found.append((term.negative, atom))
        if not found:
            return None
        found.sort(key=lambda pair: pair[0])
        negative, out = found[0]
        if negative:
            out = self.emit(neg, out)
        for negative, atom in found[1:]:
            out = self.emit(sub if negative else add, out, atom)
        return out


class _Contraction:
    """One term summed over the axes that are not kept."""

    def __init__(self, writer: _Writer, space: tuple[int, ...], kept: Sequence[int]) -> None:
        self.writer = writer
        self.space = space
        self.kept = kept
        self.summed = {a for a in range(len(space)) if a not in kept}
        self.factors: list[Factor] = []

    def run(self, term: Term, by_identity: bool) -> Atom | None:
        """The sum, None if contractions do not make it cheaper; `by_identity`: it is one already, of two operands."""
        numbers = [f.atom for f in term.factors if isinstance(f.atom, Literal)]
        if not all(np.isfinite(n.val) for n in numbers):
            return None
        self.factors = [f for f in term.factors if not isinstance(f.atom, Literal)]
        gained = False
        while True:
            self.absorb()
            if not self.summed:
                break
            pair = self.cheapest()
            if pair is None:
                if self.reduce():
                    gained = True
                elif not self.absorb(identities=True) and not self.gather():
                    return None
                continue
            i, j, axes = pair
            rest = [f for k, f in enumerate(self.factors) if k not in (i, j)]
            x, y = self.factors[i], self.factors[j]
            found = self.without_identity(x, y, axes)
            if found is None:
                cheap = _GAIN * self.extent({*x.axes, *y.axes}) <= math.prod(self.space)
                gained = gained or cheap or not by_identity
                # To take a factor out of a sum is not right if it is infinite.
                found = self.matrix_product(x, y, axes, cheap) if all(map(self.is_identity, rest)) else None
            else:
                gained, rest = True, list(map(self.guarded, rest))
            if found is None:
                return None
            self.factors = [*rest, found]
            self.summed -= axes
        return self.outer(numbers) if gained else None

    def outer(self, numbers: list[Literal]) -> Atom | None:
        """The product of what is left: identities, numbers and one array more, of the axes that are kept."""
        self.factors.sort(key=self.is_identity)
        if len(self.factors) > 1 and not self.is_identity(self.factors[1]):
            return None
        out = self.spread(self.factors[0], self.kept)
        for factor in self.factors[1:]:
            out = self.writer.emit(mul, self.spread(factor, self.kept), out)
        for number in numbers:
            out = self.writer.emit(mul, number, out)
        return out

    def extent(self, axes: Iterable[int]) -> int:
        return math.prod([self.space[a] for a in axes])

    def is_identity(self, factor: Factor) -> bool:
        return factor.atom in self.writer.identities

    def spread(self, factor: Factor, axes: Sequence[int]) -> Atom:
        return spread(self.writer, factor, axes, self.space)

    def absorb(self, identities: bool = False) -> bool:
        """Multiplies factors into others, or one into an identity, that have all their axes; whether there were any."""
        absorbed = False
        while True:
            found = [
                (self.extent(host.axes), i, j)
                for (i, factor), (j, host) in itertools.permutations(enumerate(self.factors), 2)
                if set(factor.axes) <= set(host.axes)
                and self.is_identity(host) == identities
                and not self.is_identity(factor)
            ]
            if not found:
                return absorbed
            _, i, j = min(found)
            self.factors[j] = self.times([self.factors[j], self.factors[i]], self.factors[j].axes)
            del self.factors[i]
            absorbed = True

    def times(self, factors: Sequence[Factor], axes: Sequence[int]) -> Factor:
        """The product of factors as one with these axes, identities first."""
        parts = sorted([p for f in factors for p in (f.parts or (f,))], key=self.is_identity, reverse=True)
        out = self.spread(parts[0], axes)
        for part in parts[1:]:
            out = self.writer.emit(mul, out, self.spread(part, axes))
        return Factor(out, tuple(axes), tuple(parts))

    def cheapest(self) -> tuple[int, int, set[int]] | None:
        """Two factors to contract and the axes to sum over: all that no other has."""
        best = None
        for i, j in itertools.combinations(range(len(self.factors)), 2):
            one, other = self.factors[i], self.factors[j]
            elsewhere = {a for k, f in enumerate(self.factors) if k not in (i, j) for a in f.axes}
            axes = (set(one.axes) & set(other.axes) & self.summed) - elsewhere
            if not axes:
                continue
            plain = not (self.is_identity(one) or self.is_identity(other))
            price = (plain, self.extent({*one.axes, *other.axes}))
            if best is None or price < best[0]:
                best = price, i, j, axes
        return None if best is None else best[1:]

    def reduce(self) -> bool:
        """Sums the one factor that is no identity over axes of its own; if that pays."""
        plain = [f for f in self.factors if not self.is_identity(f)]
        if len(plain) != 1 or _GAIN * self.extent(plain[0].axes) > math.prod(self.space):
            return False
        elsewhere = {a for f in self.factors if f is not plain[0] for a in f.axes}
        own = [k for k, a in enumerate(plain[0].axes) if a in self.summed and a not in elsewhere]
        if not own:
            return False
        out = self.writer.emit(reduce_sum, plain[0].atom, axes=tuple(own))
        rest = tuple([a for k, a in enumerate(plain[0].axes) if k not in own])
        self.summed -= {plain[0].axes[k] for k in own}
        self.factors = [*[f for f in self.factors if f is not plain[0]], Factor(out, rest)]
        return True

    def gather(self) -> bool:
        """Multiplies all factors that share an axis with an identity, so that it can be left out; if that pays."""
        for one in filter(self.is_identity, self.factors):
            for summed in self.summed.intersection(one.axes):
                holders = [f for f in self.factors if f is not one and summed in f.axes]
                axes = sorted({a for f in holders for a in f.axes})
                if not holders or set(one.axes) <= set(axes) or _GAIN * self.extent(axes) > math.prod(self.space):
                    continue
                self.factors = [f for f in self.factors if f not in holders]
                self.factors.append(self.times(holders, axes))
                return True
        return False

    def guarded(self, factor: Factor) -> Factor:
        """A factor to be taken out of a sum with zeros, which infinities make NaN."""
        if self.is_identity(factor):
            return factor
        nan = Literal(factor.atom.aval.dtype.type(np.nan))
        finite = self.writer.emit(isfinite, factor.atom)
        return Factor(self.writer.emit(select, finite, factor.atom, nan), factor.axes)

    def matrix_product(self, x: Factor, y: Factor, axes: set[int], cheap: bool) -> Factor | None:
        """A contraction: a product of matrices that are large enough, or any that is cheap."""
        if min(set(x.axes) - set(y.axes), default=0) > min(set(y.axes) - set(x.axes), default=0):
            x, y = y, x
        shared = [a for a in x.axes if a in y.axes and a not in axes]
        free_x, free_y = ([a for a in f.axes if a not in axes and a not in shared] for f in (x, y))
        extents = [self.extent(a) for a in (free_x, free_y, axes)]
        if not cheap and (min(extents) < _THIN or math.prod(extents) < _LEAST):
            return None
        summed = sorted(axes)
        places = [{a: k for k, a in enumerate(f.axes)} for f in (x, y)]
        out = self.writer.emit(
            dot_general, x.atom, y.atom,
            contract=tuple([tuple([at[a] for a in summed]) for at in places]),
            batch=tuple([tuple([at[a] for a in shared]) for at in places]),
        )  # fmt: skip
        return Factor(out, (*shared, *free_x, *free_y))

    def without_identity(self, x: Factor, y: Factor, axes: set[int]) -> Factor | None:
        """The product with an identity, if one of the factors is."""
        if self.is_identity(x):
            x, y = y, x
        if not self.is_identity(y) or len(axes) != 1:
            return None
        (summed,) = axes
        return times_identity(self.writer, x, y, summed, self.space)
