"""Repetition in a straight program: where a stretch of equations is one group of them over and over.

A Python loop that tracing has unrolled is such a stretch. Each equation is compared with the one a period before it:
it must apply the same operation to operands of the same types, and each operand must be one of

- relative: made as far back as the other equation's operand, in the same repetition or in one before,
- the same: made before the stretch,
- outside: an input of the program, a literal, or a selection: what static parameters (an index, say) pick from values
  that were there before, like `u[k]` in step k. These may differ from repetition to repetition.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from functrace.core.ir import Atom, ClosedJaxpr, Eqn, Jaxpr, Literal, Var, has_effects, is_scalar

__all__ = ["Stretch", "Table", "find_stretch", "from_a_loop", "tabulate"]

_ARITY = 16  # equations of more operands repeat nothing
_PERIODS = 24  # candidates that are tried
_FEWEST = 8  # repetitions
#: Odd numbers that mix a kind and distances into one label.
_MIX = np.random.default_rng(1).integers(1, 2**62, _ARITY + 1) | 1
_READERS = 8  # equations that select from a value, for it to be a source of selections


class Table(NamedTuple):
    """The equations of a program, as numbers that can be compared.

    Attributes:
        eqns: those that are no selections, in order.
        selections: the others: each with the place in `eqns` that it must come after, or -1.
        kinds: per equation, a number for its operation and the types of its operands.
        links: per equation and operand, the place in `eqns` of what made it, or -1 - k for the k-th of `outside`.
        outside: operands from outside, each once.
    """

    eqns: list[Eqn]
    selections: list[tuple[Eqn, int]]
    kinds: np.ndarray
    links: np.ndarray
    outside: list[Atom]


class Stretch(NamedTuple):
    """`times` repetitions of `period` equations from place `start` on."""

    start: int
    period: int
    times: int


def from_a_loop(jaxpr: Jaxpr) -> bool:
    """Whether some line of the user's has left many equations; most programs without loops are told by this."""
    visits = Counter([(id(e.source.code), e.source.instruction) for e in jaxpr.eqns if e.source is not None])
    return not visits or max(visits.values()) >= _FEWEST


def tabulate(closed: ClosedJaxpr) -> Table:
    """The table of a program."""
    jaxpr = closed.jaxpr
    equal = _contents(closed)
    eqns, selections, anchors = _selections(jaxpr)
    made: dict[Var, tuple[int, int]] = {v: (i, k) for i, e in enumerate(eqns) for k, v in enumerate(e.outvars)}
    kinds: dict[Any, int] = {}
    outside: dict[Any, int] = {}
    atoms: list[Atom] = []
    found = np.empty(len(eqns), np.int64)
    links = np.zeros((len(eqns), _ARITY), np.int64)

    for i, eqn in enumerate(eqns):
        varying = eqn.primitive.family == "elementwise"
        key: list[Any] = [eqn.primitive, len(eqn.outvars), eqn.outvars[0].aval if eqn.outvars else None]
        row = []
        for atom in eqn.invars:
            place = made.get(atom) if type(atom) is Var else None
            if place is not None:
                row.append(place[0])
                key.append(place[1])
                continue
            if isinstance(atom, Var):
                name: Any = equal.get(atom, atom)
                key.append(atom.aval)
            else:
                name = _literal_identity(atom)
                key.append(type(atom.val) if varying and is_scalar(atom.val) else name)
            number = outside.setdefault(name, len(atoms))
            if number == len(atoms):
                atoms.append(atom)
            row.append(-1 - number)
        if eqn.params:
            key.append(_parameters(eqn))
        if len(row) > _ARITY or (eqn.params and has_effects(eqn)) or eqn.primitive.effectful:
            found[i] = -1 - i  # like nothing else
            continue
        links[i, : len(row)] = row
        found[i] = kinds.setdefault(tuple(key), len(kinds))
    return Table(eqns, [(e, anchors[id(e)]) for e in selections], found, links, atoms)


def _contents(closed: ClosedJaxpr) -> dict[Var, Any]:
    """What constants hold, where there are many of a type: each repetition meets a new copy of the same."""
    pairs = [p for p in zip(closed.jaxpr.constvars, closed.consts, strict=True) if isinstance(p[1], np.ndarray)]
    often = Counter([(value.shape, value.dtype) for _, value in pairs])
    return {
        var: (value.shape, value.dtype, hashlib.sha256(value.tobytes()).digest())
        for var, value in pairs
        if often[value.shape, value.dtype] >= _FEWEST
    }


def _literal_identity(atom: Literal) -> Any:
    """What tells a literal from others: for numbers their bits, for arrays which one it is."""
    value = atom.val
    if type(value) is float:
        return float, value.hex()
    return (type(value), np.asarray(value).tobytes()) if is_scalar(value) else id(value)


def _parameters(eqn: Eqn) -> Any:
    items = tuple(eqn.params.items())
    try:
        hash(items)
    except TypeError:
        return id(eqn)
    return items


def _selections(jaxpr: Jaxpr) -> tuple[list[Eqn], list[Eqn], dict[int, int]]:
    """Equations that are no selections; selections; what each of these must come after."""
    sources = _sources(jaxpr)
    eqns: list[Eqn] = []
    selections: list[Eqn] = []
    anchors: dict[int, int] = {}
    inner: dict[Var, int] = dict.fromkeys((*jaxpr.invars, *jaxpr.constvars), -1)
    for eqn in jaxpr.eqns:
        reads = [inner.get(a) for a in eqn.invars if type(a) is Var] if eqn.params else [None]
        if None in reads or len(eqn.outvars) != 1 or has_effects(eqn):
            for var in eqn.outvars:
                if var in sources:
                    inner[var] = len(eqns)
            eqns.append(eqn)
            continue
        anchor = max([r for r in reads if r is not None], default=-1)
        anchors[id(eqn)] = inner[eqn.outvars[0]] = anchor
        selections.append(eqn)
    return eqns, selections, anchors


def _sources(jaxpr: Jaxpr) -> set[Var]:
    """Computed values that much of the program selects from."""
    readers: Counter[Var] = Counter()
    first: dict[Var, int] = {}
    last: dict[Var, int] = {}
    for i, eqn in enumerate(jaxpr.eqns):
        if eqn.params and len(eqn.invars) == 1 and type(eqn.invars[0]) is Var:
            var = eqn.invars[0]
            readers[var] += 1
            first.setdefault(var, i)
            last[var] = i
    long = len(jaxpr.eqns) // 4
    return {v for v, count in readers.items() if count >= _READERS and last[v] - first[v] >= long}


def find_stretch(table: Table, worth: int) -> Stretch | None:
    """The longest repetition of at least `worth` equations, with the shortest period that has it; else None."""
    best: tuple[int, int, int] | None = None
    for period in _candidates(table, worth):
        least = max(worth, (_FEWEST + 2) * period)
        begin, end = _longest_run(table.kinds[period:] == table.kinds[:-period])
        if end - begin + period < least:  # so much for the operations alone; most programs repeat nothing
            continue
        begin, end = _longest_run(_repeats(table, period))
        covered = end - begin + period
        if end > begin and covered >= least and (best is None or covered > 1.02 * best[0]):
            best = covered, begin, period
    if best is None:
        return None
    covered, begin, period = best
    return _placed(table.links, begin, begin + covered - period, period)


def _candidates(table: Table, worth: int) -> list[int]:
    """Periods to try, the shortest first: frequent distances between equations that are alike.

    Alike are equations of one kind, and those whose operands are as far back too. Of the latter some are rare in a
    repetition (at the edge of a grid, say) and tell its length where most repeat within it.
    """
    kinds, links = table.kinds, table.links
    longest = len(kinds) // _FEWEST
    far = np.arange(len(kinds))[:, None] - links
    far[links < 0] = 0
    far[far > longest] = -1
    with np.errstate(over="ignore"):
        alike = kinds * _MIX[0] + (far * _MIX[1:]).sum(axis=1)
    counts: Counter[int] = Counter()
    rare: Counter[int] = Counter()
    for step in (1, 2, 3, 4, 6, 8):
        _, gaps = _gaps(kinds, step, longest)
        counts.update(dict(zip(*_counted(gaps), strict=True)))
        groups, gaps = _gaps(alike, step, longest)
        found, often = _counted(groups * (longest + 1) + gaps)
        rare.update([pair % (longest + 1) for pair, times in zip(found, often, strict=True) if times >= _FEWEST // 2])
    tried: set[int] = set()
    for scores in (counts, rare):
        tried.update(sorted(scores, key=lambda gap: (-scores[gap] * min(gap, 64), gap))[: _PERIODS // 2])
    return sorted(p for p in tried if np.count_nonzero(kinds[p:] == kinds[:-p]) >= worth // 2)


def _gaps(labels: np.ndarray, step: int, longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances from each equation to the `step`-th before it of the same label, and numbers of these labels."""
    _, groups = np.unique(labels, return_inverse=True)
    order = np.argsort(groups, kind="stable")
    groups = groups[order]
    gaps = order[step:] - order[:-step]
    kept = (groups[step:] == groups[:-step]) & (gaps <= longest)
    return groups[step:][kept], gaps[kept]


def _counted(values: np.ndarray) -> tuple[list[int], list[int]]:
    found, often = np.unique(values, return_counts=True)
    return found.tolist(), often.tolist()


def _repeats(table: Table, period: int) -> np.ndarray:
    """Per equation, whether it repeats the one a period before; the first period repeats nothing."""
    kinds, links = table.kinds, table.links
    later, earlier = links[period:], links[:-period]
    inside, before = later >= 0, earlier >= 0
    same = later == earlier
    relative = inside & before & (later - earlier == period)
    fits = ((relative | same) & (inside == before)) | (~inside & ~before)
    repeats = np.zeros(len(kinds), bool)
    repeats[period:] = fits.all(axis=1) & (kinds[period:] == kinds[:-period])
    # An operand is relative in all repetitions or in none.
    steady = (relative[period:] == relative[:-period]).all(axis=1)
    repeats[2 * period :] &= steady | ~repeats[period:-period]
    return repeats


def _longest_run(flags: np.ndarray) -> tuple[int, int]:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    longest = int(np.argmax(ends - starts))
    return int(starts[longest]), int(ends[longest])


def _placed(links: np.ndarray, begin: int, end: int, period: int) -> Stretch | None:
    """The repetitions cut where the fewest values pass from one to the next.

    The equations from `begin` to `end` repeat the period before them; `begin - period` is where repetition starts.
    """
    origin = begin - period
    second = np.arange(begin, begin + period)
    inside = (links[second] >= 0) & (links[second] - links[second - period] == period)
    uses, makers = np.broadcast_to(second[:, None], inside.shape)[inside], links[second][inside]
    span: dict[int, int] = {}
    for use, maker in zip(uses.tolist(), makers.tolist(), strict=True):
        place = (maker - origin) % period
        span[place] = max(span.get(place, 0), use - maker)
    crossing = np.zeros(period, np.int64)
    for place, length in span.items():
        crossing += length // period
        for cut in range(place + 1, place + 1 + length % period):
            crossing[cut % period] += 1
    cut = int(np.argmin(crossing))
    start = origin + cut
    times = (end - start) // period
    return Stretch(start, period, times) if times >= _FEWEST else None
