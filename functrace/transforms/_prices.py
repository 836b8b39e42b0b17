"""What a batched sweep through linear equations is predicted to take: by NumPy calls, and in compiled code.

By NumPy calls every equation costs a call, and every direction the reading and writing of its arrays. Compiled code
fuses elementwise work, so that calls cost next to nothing and arrays pass through memory only around library calls and
loops; what does not depend on traced values, such as a constant matrix times the unit vectors of a basis, is computed
once, unless it is large; and nothing is multiplied by the zeros of a basis as long as it is diagonal. The rates of both
worlds stand in `functrace.interpreters.cost.MACHINES`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from functrace.core.ir import Eqn, Literal, Var
from functrace.core.trace import Tracer
from functrace.interpreters.cost import MACHINES, Cost, equation_cost
from functrace.transforms._waist import between

__all__ = [
    "Price",
    "Seconds",
    "color_seconds",
    "compiled_prices",
    "eager_prices",
    "price",
    "product_seconds",
    "sweep_seconds",
]

#: Seconds of a sweep in a mode between two frontiers of a chain, given by their positions.
Seconds = Callable[[str, int, int], float]

_EAGER, _COMPILED = MACHINES["eager"], MACHINES["compiled"]
#: Seconds, measured: interpreting one equation of a sweep forward and in reverse, half of that for a single direction;
#: in addition one that holds a program, which is batched (and transposed) first; setting up a product of parts.
_STEP = (1.2e-5, 1.6e-5)
_PROGRAM = (3e-4, 9e-4)
_SPLIT = {"eager": 2e-4, "compiled": 1e-6}
#: A direction in reverse against one forward: cotangents are summed where tangents are repeated.
_REVERSE = 1.2
#: Seconds that a direction takes in compiled code, if it takes nothing else: of equals, the mode with fewer is chosen.
_DIRECTION = 2e-9
#: Elements of a constant that a compiled program computes once; see `functrace.interpreters.constants`.
_LARGEST_CONSTANT = 2**18


class Price(NamedTuple):
    """Seconds of a sweep: what it takes at all, forward and in reverse, and what each direction adds."""

    forward: float
    reverse: float
    each: float


def _nbytes(variables: Sequence[Var]) -> int:
    return sum(v.aval.size * v.aval.dtype.itemsize for v in variables)


def product_seconds(rows: int, inner: int, columns: int, world: str = "eager") -> float:
    """Multiplying the Jacobians of two parts, once both have been seen to be finite."""
    rates = MACHINES[world]
    moved = 3 * rows * columns + (2 * inner * (rows + columns) if world == "compiled" else 0)
    return _SPLIT[world] + 2 * rows * inner * columns * rates.dense_flop + 8 * rates.byte * moved


# by NumPy calls


def price(eqns: Sequence[Eqn]) -> Price:
    """The price of a batched sweep through linear equations: constants are read once, tangents once per direction."""
    fixed, each = [0.0, 0.0], 0.0
    for eqn in eqns:
        cost = equation_cost(eqn)
        shared = sum(a.aval.size * a.aval.dtype.itemsize for a in eqn.invars if isinstance(a, Literal))
        inner = _EAGER.operation * (cost.primitives - 1)
        once = inner + _EAGER.byte * min(shared, cost.bytes)
        each += max(cost.seconds(_EAGER) - _EAGER.operation - once, 0.0)
        for mode in (0, 1):
            fixed[mode] += once + _STEP[mode] + (_PROGRAM[mode] if inner else 0.0)
    return Price(fixed[0], fixed[1], each)


def sweep_seconds(mode: str, start: int, stop: int, widths: Sequence[int], prices: Sequence[Price]) -> float:
    """A sweep by NumPy calls through some sections of a chain, from the prices of the sections."""
    each = sum(p.each for p in prices[start:stop])
    moved = 2 * 8 * _EAGER.byte * widths[start] * widths[stop]
    if mode == "forward":
        fixed = sum(p.forward for p in prices[start:stop]) / (1 if widths[start] > 1 else 2)
        return fixed + widths[start] * each + (2 * moved if widths[start] > 1 else moved)
    fixed = sum(p.reverse for p in prices[start:stop]) / (1 if widths[stop] > 1 else 2)
    return fixed + _REVERSE * widths[stop] * each + moved


def eager_prices(eqns: Sequence[Eqn], chain: Sequence[Sequence[Var]], widths: Sequence[int]) -> Seconds:
    """The seconds of sweeps by NumPy calls between the frontiers of a chain."""
    prices = [price(between(eqns, a, b)) for a, b in itertools.pairwise(chain)]
    return lambda mode, start, stop: sweep_seconds(mode, start, stop, widths, prices)


def color_seconds(eqns: Sequence[Eqn], mode: str, colors: int, entries: int, nonzeros: int) -> float:
    """A sweep by NumPy calls over the colours of a pattern, and spreading its results over a matrix of zeros."""
    cost = price(eqns)
    fixed, each = (cost.forward, cost.each) if mode == "forward" else (cost.reverse, _REVERSE * cost.each)
    return _SPLIT["eager"] + fixed + colors * each + 8 * _EAGER.byte * (entries + 10 * nonzeros)


# in compiled code


def compiled_prices(eqns: Sequence[Eqn], chain: Sequence[Sequence[Var]], widths: Sequence[int]) -> Seconds:
    """The seconds of sweeps in compiled code between the frontiers of a chain."""
    costs: dict[int, Cost] = {}
    found: dict[tuple[str, int, int], float] = {}

    def cost_of(eqn: Eqn) -> Cost:
        if id(eqn) not in costs:
            costs[id(eqn)] = equation_cost(eqn)
        return costs[id(eqn)]

    def seconds(mode: str, start: int, stop: int) -> float:
        if (mode, start, stop) not in found:
            section = between(eqns, chain[start], chain[stop])
            sweep = _forward if mode == "forward" else _reverse
            directions = widths[start if mode == "forward" else stop]
            moved = 8 * _COMPILED.byte * widths[start] * widths[stop]
            whole = stop - start == len(widths) - 1
            passes = 2 if whole and mode == "forward" and directions > 1 else 1  # columns become rows in the end
            work = sweep(section, chain[start], chain[stop], directions, cost_of)
            found[mode, start, stop] = work + passes * moved + _DIRECTION * directions
        return found[mode, start, stop]

    return seconds


def _forward(
    eqns: Sequence[Eqn], start: Sequence[Var], stop: Sequence[Var], directions: int, cost_of: Callable[[Eqn], Cost]
) -> float:
    """What the tangents of a basis take."""
    known = _Known(set(start), set(start))
    total = 0.0
    for eqn in eqns:
        operands = [a for a in eqn.invars if isinstance(a, Var)]
        if _is_constant(eqn, eqn.outvars, directions) and known.folded.issuperset(operands):
            known.folded.update(eqn.outvars)
        else:
            total += _seconds(eqn, cost_of(eqn), operands, eqn.outvars, known, directions)
        if known.keeps_diagonal(eqn, operands):
            known.diagonal.update(eqn.outvars)
    return total


def _reverse(
    eqns: Sequence[Eqn], start: Sequence[Var], stop: Sequence[Var], directions: int, cost_of: Callable[[Eqn], Cost]
) -> float:
    """What the cotangents of a basis take; where several are summed, the sum is known to be what all of them are."""
    traced: set[Var] = set()
    mixed: set[Var] = set()
    total = 0.0
    for eqn in reversed(eqns):
        operands = [a for a in eqn.invars if isinstance(a, Var)]
        known = _Known(set(eqn.outvars) - traced, set(eqn.outvars) - mixed)
        if not known.keeps_diagonal(eqn, eqn.outvars):
            mixed.update(operands)
        if _is_constant(eqn, operands, directions) and known.folded.issuperset(eqn.outvars):
            continue
        traced.update(operands)
        total += _seconds(eqn, cost_of(eqn), eqn.outvars, operands, known, directions)
    return total


class _Known(NamedTuple):
    """What is known of (co)tangents in all directions: that they are constants, or a diagonal matrix."""

    folded: set[Var]
    diagonal: set[Var]

    def keeps_diagonal(self, eqn: Eqn, taken: Sequence[Var]) -> bool:
        shapes = {v.aval.shape for v in (*eqn.outvars, *taken)}
        return len(shapes) == 1 and eqn.primitive.family == "elementwise" and self.diagonal.issuperset(taken)


def _is_constant(eqn: Eqn, given: Sequence[Var], directions: int) -> bool:
    """Whether its coefficients are known when it is traced, and what it gives is not too large to be kept."""
    if any(isinstance(a, Literal) and isinstance(a.val, Tracer) for a in eqn.invars):
        return False
    return directions * max(v.aval.size for v in given) <= _LARGEST_CONSTANT


def _seconds(eqn: Eqn, cost: Cost, taken: Sequence[Var], given: Sequence[Var], known: _Known, directions: int) -> float:
    """One equation for all directions of a sweep, taking some (co)tangents and giving others."""
    rates = _COMPILED
    if cost.primitives == 1 and known.diagonal.issuperset(taken):  # nothing is multiplied by zeros
        if known.keeps_diagonal(eqn, taken):
            return rates.flop * cost.flops
        if all(v.aval.ndim == 1 for v in taken):  # rows or columns of the coefficients are scaled
            scaled = rates.flop * max(directions * sum(v.aval.size for v in given), cost.flops)
            return scaled + rates.byte * sum(a.aval.size * a.aval.dtype.itemsize for a in eqn.invars if a not in taken)
    read = _nbytes([v for v in taken if v in known.folded])  # lies in memory, for every direction
    plain = rates.flop * (cost.flops - cost.dense_flops)
    if cost.primitives == 1 and (not cost.dense_flops or _is_slim(eqn, taken, given)):
        return directions * (rates.flop * cost.flops + rates.byte * read)
    passed = 2 * _nbytes([v for v in taken if v not in known.folded]) + read + 2 * _nbytes(given)
    each = plain + rates.dense_flop * cost.dense_flops + rates.byte * passed
    return rates.operation * cost.primitives + directions * each


def _is_slim(eqn: Eqn, taken: Sequence[Var], given: Sequence[Var]) -> bool:
    """Whether a product with a constant is one with a vector: fused, not a call of BLAS.

    A constant of k x m numbers takes k to m numbers, where k / m is the ratio of the sizes of operand and result.
    """
    constant = max((a.aval.size for a in eqn.invars if isinstance(a, Literal)), default=0)
    before, after = sum(v.aval.size for v in taken), sum(v.aval.size for v in given)
    return constant * min(before, after) <= max(before, after)
