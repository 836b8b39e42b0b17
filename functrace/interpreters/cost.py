"""Cost before running: flops, bytes moved, peak live memory and number of operations of a program.

A program is priced as NumPy evaluates it, one array per result: views take no memory, an array is freed after its last
use, and what a caller passes in is the caller's. Loops count their steps, a choice its most expensive branch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from functrace.core.ir import Eqn, Jaxpr, Literal, Var
from functrace.core.work import Layout, View, Work, default_work
from functrace.util import Source

__all__ = ["MACHINES", "Cost", "Machine", "cost_by_source", "equation_cost", "jaxpr_cost"]


@dataclass(frozen=True)
class Machine:
    """Rates that turn a cost into a time; their ratios matter, not their size.

    Attributes:
        operation: seconds that the call of one operation takes, however small.
        flop: seconds per arithmetic operation.
        dense_flop: the same in a BLAS or LAPACK routine.
        byte: seconds per byte read or written.
    """

    operation: float = 1.5e-6
    flop: float = 1.5e-10
    dense_flop: float = 2.5e-11
    byte: float = 1.2e-10


#: The rates of NumPy calls, and of machine code that fuses elementwise work; measured by `python -m bench rates`.
MACHINES = {
    "eager": Machine(),
    "compiled": Machine(operation=1.2e-7, flop=4.5e-11, dense_flop=1.9e-11, byte=4e-11),
}


@dataclass(frozen=True)
class Cost:
    """What running a program takes.

    Attributes:
        flops: arithmetic operations on real numbers; an elementary function counts about what its kernel takes (20).
        dense_flops: those of them that BLAS and LAPACK do.
        bytes: bytes read and written.
        peak: the most bytes held at once, results included, arguments and constants not.
        primitives: how many operations run.
        notes: what the numbers leave out.
    """

    flops: int = 0
    dense_flops: int = 0
    bytes: int = 0
    peak: int = 0
    primitives: int = 0
    notes: tuple[str, ...] = ()

    def seconds(self, machine: Machine | None = None) -> float:
        """The time this takes, roughly."""
        rates = machine or Machine()
        return (
            rates.operation * self.primitives
            + rates.flop * (self.flops - self.dense_flops)
            + rates.dense_flop * self.dense_flops
            + rates.byte * self.bytes
        )

    def times(self, count: int) -> Cost:
        """The cost of doing it `count` times in turn."""
        return replace(
            self,
            flops=count * self.flops,
            dense_flops=count * self.dense_flops,
            bytes=count * self.bytes,
            primitives=count * self.primitives,
        )

    def __add__(self, other: Cost) -> Cost:
        """One after the other, the first one's memory freed."""
        return Cost(
            self.flops + other.flops,
            self.dense_flops + other.dense_flops,
            self.bytes + other.bytes,
            max(self.peak, other.peak),
            self.primitives + other.primitives,
            tuple(dict.fromkeys([*self.notes, *other.notes])),
        )


def jaxpr_cost(jaxpr: Jaxpr, own_results: bool = True) -> Cost:
    """The cost of running a program once.

    Args:
        jaxpr: the program.
        own_results: whether results must be arrays of their own, so that views are copied at the end.
    """
    return _Walk().program(jaxpr, 1, own_results)


def cost_by_source(jaxpr: Jaxpr) -> dict[Source | None, Cost]:
    """The cost of each of the user's lines; a line's peak is the most that is held while one of its operations runs."""
    found: dict[Source | None, Cost] = {}

    def visit(source: Source | None, cost: Cost) -> None:
        found[source] = found.get(source, Cost()) + cost

    _Walk(visit).program(jaxpr, 1, True)
    return found


def equation_cost(eqn: Eqn) -> Cost:
    """The cost of one equation on C-ordered operands; its peak is the memory of its results and scratch."""
    operands = [_layout_alone(a) for a in eqn.invars]
    work = _work_of(eqn, operands)
    walk = _Walk()
    total, inner_peak = walk.inside(work, 1, 0)
    own = walk.own_cost(eqn, operands, work)
    new = sum(_bytes_of(v) for v in eqn.outvars)
    return replace(total + own, peak=max(inner_peak, new if not work.inner else 0) + work.scratch)


def _layout_alone(atom: Any) -> Layout:
    return Layout(atom.aval, value=atom.val if isinstance(atom, Literal) else None)


def _bytes_of(var: Var) -> int:
    return var.aval.size * var.aval.dtype.itemsize


def _work_of(eqn: Eqn, operands: Sequence[Layout]) -> Work:
    rule = eqn.primitive.cost
    outs = [v.aval for v in eqn.outvars]
    return default_work(operands, outs) if rule is None else rule(operands, outs, **eqn.params)


class _Walk:
    """One pass over a program and those inside it.

    Args:
        visit: called with the source and the cost of each equation, once per equation and with all its repetitions.
    """

    def __init__(self, visit: Callable[[Source | None, Cost], None] | None = None) -> None:
        self.visit = visit

    def program(self, jaxpr: Jaxpr, times: int, own_results: bool = False, base: int = 0) -> Cost:
        """The cost of one run; for the visitor, `times` says how often it runs and `base` what is held around it."""
        memory = _Memory(jaxpr)
        total = Cost()
        for eqn, dying in zip(jaxpr.eqns, jaxpr.last_uses, strict=True):
            operands = [memory.layout(a) for a in eqn.invars]
            work = _work_of(eqn, operands)
            inside, inner_peak = self.inside(work, times, base + memory.live + work.scratch)
            own = self.own_cost(eqn, operands, work)
            before = memory.live
            memory.define(eqn, work)
            during = before + inner_peak + work.scratch if work.inner else memory.live + work.scratch
            memory.peak = max(memory.peak, during, memory.live)
            if self.visit is not None:
                self.visit(eqn.source, replace(own.times(times), peak=base + max(during, memory.live)))
            total = total + inside + own
            for var in dying:
                memory.release(var)
        if own_results:
            memory.copy_results(jaxpr)
        return replace(total, peak=memory.peak)

    def inside(self, work: Work, times: int, base: int) -> tuple[Cost, int]:
        """The cost of the programs that an operation runs, and the most that one of them holds."""
        costs = []
        visit = self.visit
        for inner in work.inner:
            if work.one_of:  # the visitor sees the branch that counts
                self.visit = None
            costs.append(self.program(inner.jaxpr, times * inner.times, base=base).times(inner.times))
            self.visit = visit
        if not costs:
            return Cost(), 0
        peak = max(c.peak for c in costs)
        if not work.one_of:
            return sum(costs, Cost()), peak
        most = max(range(len(costs)), key=lambda i: (costs[i].seconds(), costs[i].flops))
        if visit is not None:
            self.program(work.inner[most].jaxpr, times, base=base)
        return costs[most], peak

    def own_cost(self, eqn: Eqn, operands: Sequence[Layout], work: Work) -> Cost:
        """The cost of an equation without the programs in it."""
        if work.inner:
            moved = (work.read or 0) + (work.written or 0)
        else:
            results = work.results or [None] * len(eqn.outvars)
            new = sum(_bytes_of(v) for v, r in zip(eqn.outvars, results, strict=True) if not isinstance(r, View))
            moved = sum(o.distinct for o in operands) if work.read is None else work.read
            moved += new if work.written is None else work.written
        return Cost(work.flops, work.dense, moved, 0, 1, (work.note,) if work.note else ())


class _Memory:
    """The arrays alive while a program runs, with their layouts and who shares whose memory."""

    def __init__(self, jaxpr: Jaxpr) -> None:
        self.layouts: dict[Var, Layout] = {v: Layout(v.aval) for v in (*jaxpr.constvars, *jaxpr.invars)}
        self.owner: dict[Var, Var | None] = dict.fromkeys(self.layouts)  # None: the caller's
        self.users: dict[Var, int] = {}
        self.live = self.peak = 0

    def layout(self, atom: Any) -> Layout:
        return _layout_alone(atom) if isinstance(atom, Literal) else self.layouts[atom]

    def define(self, eqn: Eqn, work: Work) -> None:
        results = work.results or [None] * len(eqn.outvars)
        for var, result in zip(eqn.outvars, results, strict=True):
            if isinstance(result, View):
                operand = eqn.invars[result.operand]
                self.layouts[var] = Layout(var.aval, result.strides)
                owner = self.owner[operand] if isinstance(operand, Var) else None
                self.owner[var] = owner
                if owner is not None:
                    self.users[owner] += 1
            else:
                self.layouts[var] = Layout(var.aval, result)
                self.owner[var] = var
                self.users[var] = 1
                self.live += _bytes_of(var)

    def release(self, var: Var) -> None:
        owner = self.owner.get(var)
        if owner is None:
            return
        self.users[owner] -= 1
        if self.users[owner] == 0:
            self.live -= _bytes_of(owner)

    def copy_results(self, jaxpr: Jaxpr) -> None:
        """Results that are views, or somebody else's array, become arrays of their own, one after the other."""
        seen: set[Var] = set()
        for atom in jaxpr.outvars:
            if isinstance(atom, Literal) or atom.aval.ndim == 0:
                continue
            if self.owner[atom] is not atom or atom in seen:
                self.live += _bytes_of(atom)
                self.peak = max(self.peak, self.live)
            seen.add(atom)
