"""`checkpointed_scan`: a scan whose reverse mode keeps a few carries and runs the steps between them again.

The steps are taken in blocks of `block`; Revolve's schedule says which of the carries between blocks are kept, at most
`snapshots` at a time. Where a block is reversed its residuals are stored, those of one block at a time. In every other
respect it is the scan, and its rules are those of the scan.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from functrace.control._functions import carry_fixpoint, split
from functrace.control._native import counted_loop
from functrace.control.call import derive, simplified
from functrace.control.calls import linear_call
from functrace.control.revolve import Action, repetitions, schedule
from functrace.control.scan import scan
from functrace.control.unrolled import needs_values
from functrace.core.evaluate import python_function
from functrace.core.ir import ClosedJaxpr, Jaxpr, Literal, Var, eval_jaxpr, live_eqns
from functrace.core.lowering import Control
from functrace.core.primitive import Primitive
from functrace.core.trace import EVAL, current_trace
from functrace.core.types import ShapedArray, aval_of, is_inexact
from functrace.interpreters.jvp import jvp
from functrace.interpreters.linearize import LinearizedJaxpr, linearize, linearize_jaxpr
from functrace.interpreters.staging import stage
from functrace.interpreters.transpose import backward_pass
from functrace.primitives.families import add
from functrace.primitives.shape import concatenate, slice_, zeros

__all__ = ["Checkpoints", "checkpointed_scan", "choose_checkpoints"]

#: The most blocks that a loop is cut into: each costs some calls.
_BLOCKS = 1024


class Checkpoints(NamedTuple):
    """How a loop is reversed: so many carries kept at a time, between blocks of so many steps."""

    snapshots: int
    block: int


def step_bytes(jaxpr: Jaxpr, consts: int, carry: int) -> tuple[int, int]:
    """The bytes of a carry, and those that reverse mode stores for one step."""
    avals = jaxpr.in_avals
    state = sum(a.size * a.dtype.itemsize for a in avals[consts : consts + carry])
    flags = [is_inexact(a.dtype) for a in avals]
    found = _linearized(jaxpr, flags, consts, carry)
    residuals = found.primal.out_avals[len(jaxpr.outvars) :]
    return max(state, 1), max(sum(a.size * a.dtype.itemsize for a in residuals), 1)


def choose_checkpoints(
    jaxpr: Jaxpr,
    length: int,
    consts: int,
    carry: int,
    wanted: int | str | None,
    memory: float | None = None,
    most: int = _BLOCKS,
) -> Checkpoints | None:
    """Snapshots and block length for a loop; None where storing everything is as good, or the least that there is.

    Args:
        wanted: "binomial", the number of snapshots, or None.
        memory: instead of `wanted`, the bytes that snapshots and residuals may take.
        most: the most blocks.
    """
    if length < 2 or needs_values(jaxpr):
        return None
    least = -(-length // most)
    if memory is None and isinstance(wanted, int):
        return Checkpoints(max(wanted, 1), least)
    state, step = step_bytes(jaxpr, consts, carry)
    if memory is not None and length * step <= memory:
        return None
    best: tuple[float, Checkpoints] | None = None
    for blocks in _spread(-(-length // least)):
        block = -(-length // blocks)
        blocks = -(-length // block)
        for snapshots in _spread(blocks):
            held = snapshots * state + block * step
            repeats = repetitions(blocks, snapshots)
            if memory is None:
                if repeats > 2:
                    continue
                price = held * (1 + 0.5 * repeats)
            else:
                price = (0.0 if held <= memory else held) + 1e-3 * repeats + 1e-9 * blocks
            if best is None or price < best[0]:
                best = price, Checkpoints(snapshots, block)
    return None if best is None else best[1]


def _spread(largest: int) -> list[int]:
    """Numbers from 1 to `largest`, about an eighth apart."""
    numbers, n = [], 1
    while n < largest:
        numbers.append(n)
        n = max(n + 1, n * 9 // 8)
    return [*numbers, largest]


def _linearized(jaxpr: Jaxpr, flags: list[bool], consts: int, carry: int) -> LinearizedJaxpr:
    """The body's linearization; raises the flags of carries that get a tangent."""
    outputs = len(jaxpr.outvars)

    def run(nonzeros: list[bool], carried: list[bool]) -> LinearizedJaxpr:
        return linearize_jaxpr(ClosedJaxpr(jaxpr), nonzeros, [*carried, *(False,) * (outputs - carry)])

    return carry_fixpoint(flags, consts, carry, run)


class _Loop:
    """A loop in blocks: running some of them, and reversing one.

    Args:
        params: those of the scan.
        active: per operand, whether it has a tangent.
    """

    def __init__(self, params: dict[str, Any], active: tuple[bool, ...], checkpoints: Checkpoints) -> None:
        self.params = params
        self.jaxpr: Jaxpr = params["jaxpr"]
        self.length, self.reverse = params["length"], params["reverse"]
        self.sizes = params["consts"], params["carry"]
        self.carry = params["carry"]
        self.block = checkpoints.block
        self.blocks = -(-self.length // self.block)
        self.snapshots = min(checkpoints.snapshots, self.blocks)

        def make() -> tuple[list[bool], list[bool]]:
            flags = list(active)
            return flags, _linearized(self.jaxpr, flags, *self.sizes).out_nonzeros

        self.flags, self.out_nonzeros = derive(self.jaxpr, ("checkpointed", active), make)

    def actions(self) -> list[Action]:
        return list(schedule(self.blocks, self.snapshots))

    def first_kept(self) -> list[int]:
        """The blocks before which a carry is kept on the way to the end, the first one not among them."""
        kept = []
        for action in schedule(self.blocks, self.snapshots):
            if action.kind == "reverse":
                break
            if action.keep:
                kept.append(action.stop)
        return kept

    def rows(self, start: int, stop: int) -> tuple[int, int]:
        """The rows of the stacked arrays that these blocks read and write."""
        first, last = start * self.block, min(stop * self.block, self.length)
        return (self.length - last, self.length - first) if self.reverse else (first, last)

    def cut(self, stacks: Sequence[Any], start: int, stop: int) -> list[Any]:
        low, high = self.rows(start, stop)
        return [_rows(x, low, high) for x in stacks]

    def join(self, pieces: Sequence[Any]) -> Any:
        """Pieces in the order of the blocks as one stack."""
        ordered = pieces[::-1] if self.reverse else pieces
        return ordered[0] if len(ordered) == 1 else concatenate(*ordered, axis=0)

    def run(self, constants: list[Any], state: list[Any], inputs: list[Any], start: int, stop: int) -> list[Any]:
        """Carry and outputs of some blocks."""
        low, high = self.rows(start, stop)
        pieces = [_rows(x, low, high) for x in inputs]
        return scan.bind(*constants, *state, *pieces, **{**self.params, "length": high - low})

    def advance(self, constants: list[Any], state: list[Any], inputs: list[Any], start: int, stop: int) -> list[Any]:
        """The carry after some blocks."""
        low, high = self.rows(start, stop)
        outs = self.jaxpr.outvars[: self.carry]

        def make() -> Jaxpr:
            return Jaxpr([], self.jaxpr.invars, live_eqns(self.jaxpr.eqns, outs), outs)

        body = derive(self.jaxpr, ("carry only",), make)
        pieces = [_rows(x, low, high) for x in inputs]
        return scan.bind(*constants, *state, *pieces, **{**self.params, "jaxpr": body, "length": high - low})

    def forward(self, operands: Sequence[Any]) -> tuple[list[Any], list[list[Any]]]:
        """The loop's results, and the carries kept on the way."""
        constants, state, inputs = split(operands, *self.sizes)
        kept, pieces = [], []
        places = [0, *self.first_kept(), self.blocks]
        for start, stop in itertools.pairwise(places):
            if start:
                kept.append(state)
            outs = self.run(constants, state, inputs, start, stop)
            state = outs[: self.carry]
            pieces.append(outs[self.carry :])
        return [*state, *(self.join(column) for column in zip(*pieces, strict=True))], kept

    def backward(self, operands: Sequence[Any], kept: list[list[Any]], bars: Sequence[Any]) -> list[Any]:
        """Cotangents of the active operands, by Revolve's schedule."""
        constants, state, inputs = split(operands, *self.sizes)
        store = dict(zip(self.first_kept(), kept, strict=True))
        store[0] = state
        reached: tuple[int, list[Any]] = (0, state)
        state_bars, out_bars = list(bars[: self.carry]), list(bars[self.carry :])
        flags = split(self.flags, *self.sizes)
        sums: list[Any] | None = None
        pieces: list[list[Any]] = []
        for action in self.actions():
            if action.kind == "advance":
                if action.keep and action.stop in store:
                    continue
                state = self.advance(constants, store[action.start], inputs, action.start, action.stop)
                reached = (action.stop, state)
                if action.keep:
                    store[action.stop] = state
                continue
            i = action.start
            state = store.pop(i) if i in store else reached[1]
            found = self.reverse_block(i, constants, state, inputs, state_bars, out_bars)
            const_bars, new_bars, in_bars = split(found, sum(flags[0]), sum(flags[1]))
            sums = const_bars if sums is None else [add(a, b) for a, b in zip(sums, const_bars, strict=True)]
            fresh = iter(new_bars)
            state_bars = [next(fresh) if flag else None for flag in flags[1]]
            pieces.append(in_bars)
        stacks = [self.join(column) for column in zip(*reversed(pieces), strict=True)]
        parts = iter([*(sums or []), *(b for b in state_bars if b is not None), *stacks])
        return [next(parts) if flag else None for flag in self.flags]

    def reverse_block(
        self,
        i: int,
        constants: list[Any],
        state: list[Any],
        inputs: list[Any],
        state_bars: list[Any],
        out_bars: list[Any],
    ) -> list[Any]:
        low, high = self.rows(i, i + 1)
        cut = [None if b is None else _rows(b, low, high) for b in out_bars]
        outs = self.jaxpr.out_avals
        avals = [*outs[: self.carry], *(ShapedArray((high - low, *a.shape), a.dtype) for a in outs[self.carry :])]
        given = [
            zeros(a) if b is None else b for a, b in zip(avals, [*state_bars, *cut], strict=True) if is_inexact(a.dtype)
        ]
        values = [*constants, *state, *self.cut(inputs, i, i + 1), *given]
        program = self.block_program(high - low, [aval_of(v) for v in values])
        if current_trace() is EVAL:
            return python_function(simplified(program))(*values)
        return eval_jaxpr(program, (), *values)

    def block_program(self, length: int, avals: list[ShapedArray]) -> Jaxpr:
        """The program (constants, carry, inputs, cotangents) -> cotangents of the active operands, of one block."""
        params = {**self.params, "length": length}
        count = len(self.flags)

        def flat_fun(*values: Any) -> list[Any]:
            outs, program = linearize(lambda *operands: scan.bind(*operands, **params), values[:count], self.flags)
            given = iter(values[count:])
            bars = [next(given) if is_inexact(aval_of(out).dtype) else None for out in outs]
            found = backward_pass(program.eqns, program.invars, program.outvars, bars)
            wanted = [aval_of(v) for v, flag in zip(values, self.flags, strict=False) if flag]
            return [zeros(a) if bar is None else bar for a, bar in zip(wanted, found, strict=True)]

        def make() -> Jaxpr:
            closed = stage(flat_fun, avals)
            if closed.consts:
                raise AssertionError("the body of a scan has constants of its own")
            return closed.jaxpr

        return derive(self.jaxpr, ("block", length, tuple(self.flags), self.reverse), make)


def _rows(x: Any, low: int, high: int) -> Any:
    shape = aval_of(x).shape
    if (low, high) == (0, shape[0]):
        return x
    rest = len(shape) - 1
    return slice_(x, starts=(low, *(0,) * rest), stops=(high, *shape[1:]), steps=(1,) * (rest + 1))


def _linearize(
    record: Callable[..., Any],
    primals: list[Any],
    tangents: list[Var | None],
    *,
    snapshots: int,
    block: int,
    **params: Any,
) -> tuple[list[Any], list[Var | None]]:
    if params["length"] <= block or needs_values(params["jaxpr"]):
        return scan.linearize(record, primals, tangents, **params)  # type: ignore[misc]
    active = tuple(t is not None for t in tangents)
    loop = _Loop(params, active, Checkpoints(snapshots, block))
    values, kept = loop.forward(primals)
    avals = [aval_of(v) for v in values]
    count, carry = len(primals), params["carry"]
    flat_kept = [x for state in kept for x in state]
    residuals = count + len(flat_kept)

    def apply(*operands: Any) -> list[Any]:
        known, given = list(operands[:count]), iter(operands[residuals:])
        dots = [next(given) if a else None for a in active]
        _, out_dots = jvp(lambda *xs: scan.bind(*xs, **params), known, dots)
        return [zeros(a) if dot is None else dot for a, dot in zip(avals, out_dots, strict=True)]

    def transposed(*operands: Any) -> list[Any]:
        known, stored, bars = split(operands, count, len(flat_kept))
        states = [stored[k : k + carry] for k in range(0, len(stored), carry)] if carry else [[] for _ in kept]
        found = loop.backward(known, states, bars)
        return [bar for bar, a in zip(found, active, strict=True) if a]

    atoms = [*map(Literal, [*primals, *flat_kept]), *(t for t in tangents if t is not None)]
    call = {
        "apply": apply,
        "transposed": transposed,
        "residuals": residuals,
        "outs": tuple(avals),
        "takes_masks": False,
    }
    found = record(linear_call, atoms, avals, call)
    return values, [v if nonzero else None for v, nonzero in zip(found, loop.out_nonzeros, strict=True)]


def _loop_of(snapshots: int, block: int) -> Callable[..., list[Any]]:
    return functools.partial(checkpointed_scan.bind, snapshots=snapshots, block=block)


def _as_scan(rule: Callable[..., Any]) -> Callable[..., Any]:
    """A rule of the scan that does not care how the loop is reversed."""

    @functools.wraps(rule)
    def same(*args: Any, snapshots: int, block: int, **params: Any) -> Any:
        return rule(*args, **params)

    return same


#: Operands and parameters of a scan, and: the number of carries kept at a time, and of the steps in a block.
checkpointed_scan = Primitive(
    "checkpointed_scan",
    _as_scan(scan.impl),
    _as_scan(scan.abstract_eval),
    jvp=lambda primals, tangents, *, snapshots, block, **params: scan.jvp(  # type: ignore[misc]
        primals, tangents, loop=_loop_of(snapshots, block), **params
    ),
    linearize=_linearize,
    transpose=_as_scan(scan.transpose),  # type: ignore[arg-type]
    batch=lambda size, values, batched, *, snapshots, block, **params: scan.batch(  # type: ignore[misc]
        size, values, batched, loop=_loop_of(snapshots, block), **params
    ),
    unfold=_as_scan(scan.unfold),  # type: ignore[arg-type]
    lower=Control(emit=_as_scan(counted_loop.emit)),
    sparsity=_as_scan(scan.sparsity),  # type: ignore[arg-type]
    cost=_as_scan(scan.cost),  # type: ignore[arg-type]
    family="control",
    multiple=True,
    masks="program",
)
