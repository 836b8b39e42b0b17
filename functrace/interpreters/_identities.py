"""Products with identity matrices, and sums of these; see `contractions`."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from functrace.core.ir import Atom, Eqn, Literal
from functrace.interpreters._terms import Expansion, Factor, Term, Writer, spread
from functrace.primitives.elementwise import convert, greater, isfinite, logical_and, logical_not, select, sub
from functrace.primitives.families import add, broadcast, mul, reduce_sum
from functrace.primitives.shape import concatenate, full, slice_

__all__ = ["Identity", "identity", "joined", "times_identity"]

_LEAST = 4  # rows and columns
_RUNS = 4
REAL = ("float32", "float64")


class Identity(NamedTuple):
    """A matrix of zeros with some rows of a multiple of an identity matrix among its rows and columns.

    Attributes:
        runs: where there are ones, along a diagonal: row, column and how many.
    """

    rows: int
    columns: int
    runs: tuple[tuple[int, int, int], ...]
    number: float


def identity(value: Any) -> Identity | None:
    """What kind of identity an array is, None if it is none."""
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.name not in REAL:
        return None
    rows, columns = value.shape
    count = int(np.count_nonzero(value))
    if min(rows, columns) < _LEAST or not 0 < count <= min(rows, columns):
        return None
    at, across = np.nonzero(value)
    number = float(value[at[0], across[0]])
    if not np.isfinite(number) or not (value[at, across] == number).all():
        return None
    if len(set(at.tolist())) < count or len(set(across.tolist())) < count:
        return None
    ends = [*(np.nonzero((np.diff(at) != 1) | (np.diff(across) != 1))[0] + 1).tolist(), count]
    if len(ends) > _RUNS:
        return None
    starts = [0, *ends[:-1]]
    runs = [(int(at[i]), int(across[i]), end - i) for i, end in zip(starts, ends, strict=True)]
    return Identity(rows, columns, tuple(runs), number)


def times_identity(writer: Writer, x: Factor, y: Factor, summed: int, space: tuple[int, ...]) -> Factor | None:
    """The product of an array and an identity over one axis, which moves the array's elements.

    None if the identity's other axis is the array's too.
    """
    matrix, emit = writer.identities[y.atom], writer.emit
    (other,) = (a for a in y.axes if a != summed)
    if other in x.axes:
        return None
    place, dtype, by_column = x.axes.index(summed), x.atom.aval.dtype, y.axes[1] == summed
    axes = (*x.axes[:place], other, *x.axes[place + 1 :])
    own = _moved(writer, x.atom, matrix, place, by_column)
    if matrix.number != 1:
        own = emit(mul, own, Literal(dtype.type(matrix.number)))
    own = emit(add, own, Literal(dtype.type(0)))  # -0 plus the zeros is 0
    # A factor that is not finite is NaN times the zeros, a product that overflows is only where the ones are.
    parts = [p for p in x.parts or (x,) if p.atom not in writer.identities]
    if not parts:
        return Factor(own, axes)
    reach = [a for a in x.axes if a == summed or any(a in f.axes for f in parts)]
    known = [spread(writer, Factor(emit(isfinite, p.atom), p.axes), reach, space) for p in parts]
    finite = functools.reduce(lambda one, other: emit(logical_and, one, other), known)
    bad, k = emit(convert, emit(logical_not, finite), dtype=dtype), reach.index(summed)
    moved = [other if a == summed else a for a in reach]
    count = Factor(emit(reduce_sum, bad, axes=(k,)), (*reach[:k], *reach[k + 1 :]))
    others = emit(sub, spread(writer, count, moved, space), _moved(writer, bad, matrix, k, by_column))
    meets_zero = Factor(emit(greater, others, Literal(dtype.type(0))), tuple(moved))
    nan = Literal(dtype.type(np.nan))
    return Factor(emit(select, spread(writer, meets_zero, axes, space), nan, own), axes)


def _moved(writer: Writer, x: Atom, matrix: Identity, place: int, by_column: bool) -> Atom:
    """The elements of x that meet the ones of an identity, along one axis; 0 where there are only zeros."""
    shape = x.aval.shape

    def lengthened(n: int) -> tuple[int, ...]:
        return (*shape[:place], n, *shape[place + 1 :])

    length = matrix.rows if by_column else matrix.columns
    pieces: list[Atom] = []
    done = 0
    for row, column, count in sorted(matrix.runs, key=lambda run: run[0 if by_column else 1]):
        goal, source = (row, column) if by_column else (column, row)
        if goal > done:
            pieces.append(writer.emit(full, shape=lengthened(goal - done), value=0, dtype=x.aval.dtype))
        piece = x
        if count < shape[place]:
            starts = tuple([source if a == place else 0 for a in range(len(shape))])
            stops = lengthened(source + count)
            piece = writer.emit(slice_, x, starts=starts, stops=stops, steps=(1,) * len(shape))
        pieces.append(piece)
        done = goal + count
    if done < length:
        pieces.append(writer.emit(full, shape=lengthened(length - done), value=0, dtype=x.aval.dtype))
    return pieces[0] if len(pieces) == 1 else writer.emit(concatenate, *pieces, axis=place)


# sums: of products with one identity, the sum of the other factors with it


class _Diagonal(NamedTuple):
    """A product with identities."""

    identities: list[Factor]
    rest: Term


def joined(writer: Writer, eqn: Eqn) -> Atom | None:
    """What a sum of products with one identity, or a choice between them, gives: a single such product."""
    out = eqn.outvars[0].aval
    axes = tuple(range(out.ndim))
    expansion = Expansion(writer, np.inf)
    mask = None
    if eqn.primitive is select:
        mask = _small(writer, eqn.invars[0], axes)
        sides = [expansion.part(a, axes) for a in eqn.invars[1:]]
        terms = None if None in sides else [t for side in sides for t in side or ()]
    else:
        terms = expansion.of_sum(eqn, axes)
    if terms is None or len(terms) != 2:
        return None
    diagonals = [_diagonal(writer, t) for t in terms]
    found = [d.identities for d in diagonals if d is not None]
    if not found or any(f != found[0] for f in found):
        return None
    rests = [t if d is None else d.rest for t, d in zip(terms, diagonals, strict=True)]
    for term, diagonal in zip(terms, diagonals, strict=True):
        if diagonal is None and (mask is None or not _is_zero(term)):
            return None
    factors = [f for r in rests for f in r.factors] + ([mask] if mask is not None else [])
    used = sorted({a for f in factors for a in f.axes})
    space = out.shape
    if 2 * int(np.prod([space[a] for a in used])) > out.size:
        return None
    first, second = (_multiplied(writer, r, used, space, out.dtype) for r in rests)
    if mask is not None:
        both = writer.emit(select, spread(writer, mask, used, space), first, second)
    elif isinstance(first, Literal) and isinstance(second, Literal):
        return None
    else:
        both = writer.emit(add, first, second)
    product = spread(writer, found[0][0], axes, space)
    for factor in (*found[0][1:], Factor(both, tuple(used))):
        product = writer.emit(mul, product, spread(writer, factor, axes, space))
    return product


def _small(writer: Writer, atom: Atom, axes: tuple[int, ...]) -> Factor:
    """What an array repeats, if it does."""
    eqn = writer.producers.get(atom)  # type: ignore[arg-type]
    if eqn is None or eqn.primitive is not broadcast:
        return Factor(atom, axes if atom.aval.shape else ())
    x, places = eqn.invars[0], eqn.params["axes"]
    stretched = any(n != atom.aval.shape[a] for n, a in zip(x.aval.shape, places, strict=True))
    return Factor(atom, axes) if stretched else Factor(x, tuple([axes[a] for a in places]))


def _is_zero(term: Term) -> bool:
    return any(isinstance(f.atom, Literal) and not f.atom.val for f in term.factors)


def _diagonal(writer: Writer, term: Term) -> _Diagonal | None:
    """A term with identities, as multiples of those of ones if there are such."""
    found, rest = [], []
    for factor in term.factors:
        kind = writer.identities.get(factor.atom)
        if kind is None:
            rest.append(factor)
            continue
        dtype, alike = factor.atom.aval.dtype, kind._replace(number=1)
        one = next((v for v, k in writer.identities.items() if k == alike and v.aval.dtype == dtype), None)
        if one is not None and kind.number != 1:
            rest.append(Factor(Literal(dtype.type(kind.number)), ()))
        found.append(factor if one is None else Factor(one, factor.axes))
    found.sort(key=lambda factor: factor.axes)
    return _Diagonal(found, Term(term.negative, tuple(rest))) if found else None


def _multiplied(writer: Writer, term: Term, axes: list[int], space: tuple[int, ...], dtype: Any) -> Atom:
    """The product of a term's factors, over some axes of the space; a number if it has no others."""
    number = dtype.type(-1 if term.negative else 1)
    arrays = []
    for factor in term.factors:
        if isinstance(factor.atom, Literal):
            number = number * factor.atom.val
        else:
            arrays.append(spread(writer, factor, axes, space))
    if not arrays:
        return Literal(dtype.type(number))
    out = arrays[0]
    for array in arrays[1:]:
        out = writer.emit(mul, out, array)
    return out if number == 1 else writer.emit(mul, out, Literal(dtype.type(number)))
