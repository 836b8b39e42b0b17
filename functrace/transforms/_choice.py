"""The mode of a Jacobian chosen by price: forward, reverse, coloured, or a product split at the program's waist.

The linear program of one linearization is priced, equation by equation (`_prices`). Between the cuts of a chain every
bracketing is tried, as in the matrix-chain problem: an interval is swept forward from its start, in reverse from its
stop, or is the product of two intervals. (U. Naumann, Optimal Jacobian accumulation is NP-complete, 2008, says why only
bracketings.)
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from functrace.control.cond import cond, merge_constants
from functrace.core.ir import Eqn, Literal, Var, live_eqns
from functrace.core.trace import EVAL, Tracer, current_trace
from functrace.core.types import ShapedArray, aval_of
from functrace.interpreters.linearize import LinearProgram, is_staged
from functrace.interpreters.staging import stage
from functrace.interpreters.transpose import backward_pass
from functrace.primitives.contraction import dot_general, permute
from functrace.primitives.elementwise import convert, isfinite, logical_and
from functrace.primitives.families import reshape
from functrace.primitives.reduction import reduce_and
from functrace.primitives.shape import concatenate, slice_, zeros
from functrace.transforms._compression import Compression, compression_of, form_compressed
from functrace.transforms._prices import Seconds, color_seconds, compiled_prices, eager_prices, product_seconds
from functrace.transforms._sweeps import basis, sweep
from functrace.transforms._waist import between, narrowest_cuts, width

__all__ = ["Plan", "Product", "Sweep", "choose", "decide", "form"]


class Sweep(NamedTuple):
    """The Jacobian from frontier `start` to frontier `stop` by one batched sweep."""

    mode: str
    start: int
    stop: int
    seconds: float


class Product(NamedTuple):
    """The Jacobian from frontier `start` to frontier `stop` as the product of two, the later one on the left."""

    early: Sweep | Product
    late: Sweep | Product
    start: int
    stop: int
    seconds: float


class Plan(NamedTuple):
    """How to form a Jacobian.

    Attributes:
        tree: the sweeps and products.
        cuts: the frontiers between input and output, as numbers of variables in order of appearance.
        widths: how many numbers pass through each frontier, input and output included.
        forward, reverse: the predicted seconds of the pure modes.
        colors: into how many colours the directions were compressed, 0 for none.
    """

    tree: Sweep | Product
    cuts: tuple[tuple[int, ...], ...]
    widths: tuple[int, ...]
    forward: float
    reverse: float
    colors: int = 0

    @property
    def mode(self) -> str:
        if self.colors:
            return "sparse"
        return self.tree.mode if isinstance(self.tree, Sweep) else "split"

    def sweeps(self) -> list[int]:
        """How many directions each sweep takes, in the order of the program."""

        def found(tree: Sweep | Product) -> list[int]:
            if isinstance(tree, Product):
                return [*found(tree.early), *found(tree.late)]
            return [self.widths[tree.start if tree.mode == "forward" else tree.stop]]

        return found(self.tree)


#: The least width of inputs and outputs at which a waist is looked for, and the most equations.
_WIDE, _LONG = 16, 4000
#: Seconds from which on the pattern is asked for, and what part of the time the colours must leave to be taken.
_WORTH_COLORING, _PAYS = 1e-3, 0.7
_REMEMBERED = 512
_KNOWN = -4  # a constant in a signature; one less, a traced value
_plans: dict[Any, Plan] = {}


def choose(program: LinearProgram, count: int, split: bool = False) -> tuple[Plan, list[Eqn]]:
    """The cheapest plan for the Jacobian of the first `count` outputs, and the equations that it needs.

    While a program is traced, the prices are those of compiled code, else those of NumPy calls. With `split`, the
    cheapest of those that multiply Jacobians of parts, if there is a waist at all.
    """
    outvars = program.outvars[:count]
    eqns = live_eqns(program.eqns, outvars)
    world = "compiled" if is_staged(current_trace()) else "eager"
    if split:
        return _make_plan(eqns, program.invars, outvars, world, True), eqns
    key = world, _signature(eqns, program.invars, outvars)
    plan = _plans.get(key)
    if plan is None:
        if len(_plans) >= _REMEMBERED:
            _plans.clear()
        plan = _plans[key] = _make_plan(eqns, program.invars, outvars, world)
    return plan, eqns


def _signature(eqns: list[Eqn], invars: Sequence[Var], outvars: Sequence[Var | None]) -> Any:
    """What a plan depends on: types and wiring."""
    number: dict[Any, int] = {None: -2}
    parts: list[Any] = []
    for var in invars:
        number[var] = len(number)
        parts.append(var.aval)
    for eqn in eqns:
        wiring = tuple(
            [_KNOWN - isinstance(a.val, Tracer) if isinstance(a, Literal) else number.get(a, -3) for a in eqn.invars]
        )
        for var in eqn.outvars:
            number[var] = len(number)
        parts.append((eqn.primitive.name, wiring, *[v.aval for v in eqn.outvars]))
    parts.append(tuple([number.get(v, -3) for v in outvars]))
    return tuple(parts)


def _variables(eqns: Sequence[Eqn], invars: Sequence[Var]) -> list[Var]:
    return [*invars, *(v for e in eqns for v in e.outvars)]


def _make_plan(
    eqns: list[Eqn], invars: Sequence[Var], outvars: Sequence[Var | None], world: str, split: bool = False
) -> Plan:
    outs = list(dict.fromkeys(v for v in outvars if v is not None))
    ends = [list(invars), outs]
    n, m = width(ends[0]), sum(v.aval.size for v in outvars if v is not None)
    chain = ends
    if min(n, m) >= (2 if split else _WIDE) and len(eqns) <= _LONG and _same_dtype([*invars, *outs]):
        cuts = [cut for cut in narrowest_cuts(eqns, invars, outs) if _same_dtype([*cut, *invars])]
        if cuts and width(cuts[0]) < min(n, m):
            chain = [ends[0], *cuts, ends[1]]
    widths = [width(frontier) for frontier in chain]
    widths[-1] = m
    seconds = (compiled_prices if world == "compiled" else eager_prices)(eqns, chain, widths)
    tree = _bracket(widths, seconds, split, world)
    number = {v: i for i, v in enumerate(_variables(eqns, invars))}
    cuts_by_number = tuple(tuple(number[v] for v in cut) for cut in chain[1:-1])
    last = len(widths) - 1
    forward, reverse = seconds("forward", 0, last), seconds("reverse", 0, last)
    return Plan(tree, cuts_by_number, tuple(widths), forward, reverse)


def _same_dtype(variables: Sequence[Var]) -> bool:
    dtypes = {v.aval.dtype for v in variables}
    return len(dtypes) == 1 and dtypes.pop().kind == "f"


def _bracket(widths: Sequence[int], seconds: Seconds, split: bool = False, world: str = "eager") -> Sweep | Product:
    """The cheapest bracketing of the chain, by dynamic programming over its intervals; with `split`, a product."""
    count = len(widths) - 1
    best: dict[tuple[int, int], Sweep | Product] = {}
    for length in range(1, count + 1):
        for start in range(count - length + 1):
            stop = start + length
            ways: list[Sweep | Product] = [
                Sweep(mode, start, stop, seconds(mode, start, stop)) for mode in ("reverse", "forward")
            ]
            if split and length == count > 1:
                ways = []
            for middle in range(start + 1, stop):
                early, late = best[start, middle], best[middle, stop]
                product = product_seconds(widths[stop], widths[middle], widths[start], world)
                ways.append(Product(early, late, start, stop, early.seconds + late.seconds + product))
            best[start, stop] = min(ways, key=lambda way: way.seconds)
    return best[0, count]


# forming


def decide(
    program: LinearProgram, count: int, out_avals: Sequence[ShapedArray], split: bool = False, color: bool = True
) -> tuple[Plan, list[Eqn], Compression | None]:
    """The plan for a Jacobian, the equations that it needs, and the compression if its pattern pays.

    With `split` a product wherever there is a waist; without `color` the pattern is not asked for.
    """
    plan, eqns = choose(program, count, split)
    if split or not color or plan.tree.seconds <= _WORTH_COLORING:
        return plan, eqns, None
    outvars = program.outvars[:count]
    found = compression_of(_signature(eqns, program.invars, outvars), eqns, program.invars, outvars, out_avals)
    if found is None or _compressed_seconds(found, plan, eqns) > _PAYS * plan.tree.seconds:
        return plan, eqns, None
    return plan._replace(colors=found.number), eqns, found


def form(
    program: LinearProgram,
    count: int,
    in_avals: Sequence[ShapedArray],
    out_avals: Sequence[ShapedArray],
    split: bool = False,
) -> tuple[Plan, bool, list[Any]]:
    """The Jacobian of the first `count` outputs of a linear program.

    With `split` it is a product wherever there is a waist, also where an infinite factor would spread to zeros.

    Returns:
        The plan, whether the directions are the columns, and per output (for columns) or per input (for rows) an array
        of (directions, *shape), or None where it is zero.
    """
    eager = current_trace() is EVAL
    plan, eqns, found = decide(program, count, out_avals, split, eager)
    outvars = program.outvars[:count]
    if found is not None:
        whole = form_compressed(found, eqns, program.invars, outvars, in_avals, out_avals)
        if whole is not None:
            return plan, False, _rows_by_input(whole, in_avals)
        plan = plan._replace(colors=0)
    by_columns = plan.mode == "forward" or (plan.mode == "split" and plan.forward < plan.reverse)
    one = _push if by_columns else _pull
    if not isinstance(plan.tree, Product):
        return plan, by_columns, one(eqns, program.invars, outvars, basis(in_avals if by_columns else out_avals))
    whole, finite = _form_product(plan, eqns, program.invars, outvars, in_avals, out_avals)
    if split or (eager and bool(finite)):
        return plan, False, _rows_by_input(whole, in_avals)
    directions = basis(in_avals if by_columns else out_avals)
    if eager:  # an infinite factor met a zero
        return plan, by_columns, one(eqns, program.invars, outvars, directions)

    def one_sweep(whole: Any, *directions: Any) -> list[Any]:
        stacked = one(eqns, program.invars, outvars, list(directions))
        size = directions[0].shape[0]
        return [permute(_join(stacked, out_avals, size), (1, 0)) if by_columns else _join(stacked, in_avals, size)]

    # The directions are operands, so that the sweep is a part of its branch and runs only there.
    avals = [aval_of(whole), *map(aval_of, directions)]
    branches, constants = merge_constants([stage(one_sweep, avals), stage(lambda whole, *_: [whole], avals)])
    index = convert(finite, dtype=np.dtype(np.int64))
    (chosen,) = cond.bind(index, *constants, whole, *directions, branches=branches)
    return plan, False, _rows_by_input(chosen, in_avals)


def _push(eqns: list[Eqn], invars: Sequence[Var], outvars: Sequence[Var | None], directions: list[Any]) -> list[Any]:
    return sweep(LinearProgram(list(invars), eqns, list(outvars)), directions)


def _pull(eqns: list[Eqn], invars: Sequence[Var], outvars: Sequence[Var | None], directions: list[Any]) -> list[Any]:
    return sweep(lambda *bars: backward_pass(eqns, invars, outvars, bars), directions)


def _form_product(
    plan: Plan,
    eqns: list[Eqn],
    invars: list[Var],
    outvars: Sequence[Var | None],
    in_avals: Sequence[ShapedArray],
    out_avals: Sequence[ShapedArray],
) -> tuple[Any, Any]:
    """The Jacobian as a matrix, and whether all factors are finite: a product would spread infinities to zeros."""
    finite: list[Any] = []
    variables = _variables(eqns, invars)
    inner: list[list[Var | None]] = [[variables[i] for i in cut] for cut in plan.cuts]
    frontiers: list[list[Var | None]] = [list(invars), *inner, list(outvars)]
    avals = [[variables[i].aval for i in cut] for cut in plan.cuts]
    types = [list(in_avals), *avals, list(out_avals)]

    def matrix(tree: Sweep | Product) -> Any:
        if isinstance(tree, Product):
            early, late = matrix(tree.early), matrix(tree.late)
            return dot_general(late, early, contract=((1,), (0,)), batch=((), ()))
        start: Any = frontiers[tree.start]
        stop = frontiers[tree.stop]
        section = between(eqns, start, [v for v in stop if v is not None])
        if tree.mode == "forward":
            found = _push(section, start, stop, basis(types[tree.start]))
            joined = permute(_join(found, types[tree.stop], sum(a.size for a in types[tree.start])), (1, 0))
        else:
            found = _pull(section, start, stop, basis(types[tree.stop]))
            joined = _join(found, types[tree.start], sum(a.size for a in types[tree.stop]))
        finite.append(reduce_and(isfinite(joined), axes=(0, 1)))
        return joined

    return matrix(plan.tree), functools.reduce(logical_and, finite)


def _compressed_seconds(found: Compression, plan: Plan, eqns: Sequence[Eqn]) -> float:
    """Of a sweep over the colours and of spreading its results over a matrix of zeros."""
    return color_seconds(eqns, found.mode, found.number, plan.widths[0] * plan.widths[-1], found.rows.size)


def _rows_by_input(whole: Any, in_avals: Sequence[ShapedArray]) -> list[Any]:
    """A matrix with a row per output as an array of (rows, *shape) per input."""
    if len(in_avals) == 1:
        return [whole if in_avals[0].ndim == 1 else reshape(whole, shape=(whole.shape[0], *in_avals[0].shape))]
    rows, start = [], 0
    for aval in in_avals:
        piece = slice_(whole, starts=(0, start), stops=(whole.shape[0], start + aval.size), steps=(1, 1))
        rows.append(reshape(piece, shape=(whole.shape[0], *aval.shape)))
        start += aval.size
    return rows


def _join(stacked: Sequence[Any], avals: Sequence[ShapedArray], directions: int) -> Any:
    """Arrays of (directions, *shape) as one matrix, a row per direction."""
    blocks = [
        zeros(ShapedArray((directions, a.size), a.dtype)) if s is None else reshape(s, shape=(directions, a.size))
        for s, a in zip(stacked, avals, strict=True)
    ]
    return blocks[0] if len(blocks) == 1 else concatenate(*blocks, axis=1)
