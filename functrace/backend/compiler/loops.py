"""Which loops run through a box: axes taken together, the innermost one, and how many numbers it takes at a time."""

from __future__ import annotations

import math

from functrace.backend.compiler.affine import Affine
from functrace.backend.compiler.nodes import Node
from functrace.backend.compiler.sinks import ReduceSink, Sink, StoreSink, needed_nodes, nodes_of
from functrace.backend.llvm import Target

__all__ = ["Loops", "outermost_loop"]

_FUNCTION = 20.0  # the weight from which on an operation is a call
_DEPENDENT = 2  # calls that wait for each other, from which on four vectors at a time pay
_SEVERAL = 2  # calls, from which on two vectors of doubles at a time pay
_GATHERED = 1.5  # what an element that is gathered costs, in vector operations
_SCATTERED = 3.0  # what one costs that is written apart from its neighbours
_LONG = 10  # operations in the loop, from which on several vectors at a time hide each other's latency
_MOST_LANES = 64
_SHORT = 16  # operations and results, up to which a loop's body is short
_FEW_SUMS = 3  # reductions in a loop, up to which there are registers for several vectors of each


class Loops:
    """The loops over a box.

    Attributes:
        nodes: all values, operands first.
        extents: of the loops, the outermost first.
        places: for each, the original axis whose coefficient it has: the last one of those that it runs through.
        inner: the number of the innermost loop; -1 if there is none.
        level: for each value the outermost loop that it can be computed in; -1 before all.
        lanes: numbers that a step of the innermost loop takes.
        short: whether what a step does is so little that a second copy of it, for the rest, is better than masks in
            every step.
    """

    def __init__(self, target: Target, extents: tuple[int, ...], sinks: list[Sink]) -> None:
        self.nodes = needed_nodes([node for sink in sinks for node in nodes_of(sink)])
        groups = _best_innermost(target, extents, _merged_axes(extents, self.nodes, sinks), self.nodes, sinks)
        self.extents = [math.prod(extents[k] for k in group) for group in groups]
        self.places = [group[-1] for group in groups]
        self.depth = len(groups)
        self.inner = self.depth - 1
        self.level = {node: self._level(node.axes) for node in self.nodes}
        inside = [n for n in self.nodes if self.level[n] == self.inner]
        work = [n for n in inside if n.kind == "apply"]
        self.calls = sum(n.weight >= _FUNCTION for n in work)
        self.short = self.calls == 0 and len(work) + len(sinks) <= _SHORT
        self.lanes = self._lanes(target, inside, sinks) if groups else 1

    def coefficients(self, address: Affine) -> tuple[int, ...]:
        """How far a step of each loop moves an address."""
        return tuple([address.coefficients[axis] for axis in self.places])

    def _level(self, axes: int) -> int:
        return max((k for k, axis in enumerate(self.places) if axes >> axis & 1), default=-1)

    def _lanes(self, target: Target, inside: list[Node], sinks: list[Sink]) -> int:
        dtypes = [n.dtype for n in inside if n.dtype.kind != "b"] + [s.node.dtype for s in sinks]
        widest = max(d.itemsize // (2 if d.kind == "c" else 1) for d in dtypes)
        lanes = target.lanes(8 * widest)
        extent = self.extents[-1]
        while lanes // 2 >= extent and lanes > 1:
            lanes //= 2
        operations = sum(n.kind == "apply" for n in inside)
        doublings, least = self._doublings(operations, widest), 4
        if not doublings and self._sums(sinks):
            doublings, least = 2, 8
        for _ in range(doublings):
            if extent >= least * lanes and 2 * lanes <= _MOST_LANES:
                lanes *= 2
        return lanes

    def _doublings(self, operations: int, widest: int) -> int:
        """How often to double the numbers of one vector, for many operations not to wait for each other.

        Around calls all registers are written to memory, so that one vector at a time is enough, unless there are
        several calls, or they wait for each other.
        """
        if operations < _LONG:
            return 0
        if self.calls == 0 or self._calls_in_a_row() >= _DEPENDENT:
            return 2
        return int(self.calls >= _SEVERAL and widest == 8)

    def _sums(self, sinks: list[Sink]) -> bool:
        """Whether a step does little but combine numbers with those of the step before, which it waits for."""
        sums = [s for s in sinks if isinstance(s, ReduceSink) and not s.kept >> self.places[-1] & 1]
        return self.calls == 0 and 0 < len(sums) <= _FEW_SUMS

    def _calls_in_a_row(self) -> int:
        """The most calls of functions of which each waits for the one before."""
        row: dict[Node, int] = {}
        for node in self.nodes:
            before = max((row[arg] for arg in node.args), default=0)
            row[node] = before + (node.kind == "apply" and node.weight >= _FUNCTION)
        return max(row.values(), default=0)


def outermost_loop(target: Target, extents: tuple[int, ...], sinks: list[Sink]) -> tuple[int, int] | None:
    """The steps of the outermost loop and how many it takes at a time, if parts of it can run in any order."""
    loops = Loops(target, extents, sinks)
    if loops.depth == 0:
        return None
    for sink in sinks:
        if not isinstance(sink, ReduceSink):
            if sink.apart >> loops.places[0] & 1:  # a step of a cumulative operation follows another
                return None
        else:
            outermost_kept = sink.kept >> loops.places[0] & 1
            if not outermost_kept and (sink.pointer is not None or sink.kept):
                return None
    step = loops.lanes if loops.depth == 1 else 1
    return None if loops.extents[0] <= 2 * step else (loops.extents[0], step)


def _merged_axes(extents: tuple[int, ...], nodes: list[Node], sinks: list[Sink]) -> list[list[int]]:
    """Axes of more than one step, in groups that can be run through as one."""
    axes = [k for k, n in enumerate(extents) if n > 1]
    addresses = [n.data if n.kind == "index" else n.data[1] for n in nodes if n.kind in ("index", "load")]
    addresses += [s.address for s in sinks if s.address is not None]
    kept = [s.kept if isinstance(s, ReduceSink) else s.apart for s in sinks]
    groups: list[list[int]] = []
    for k in axes:
        if groups and _joins(groups[-1][-1], k, extents[k], addresses, kept):
            groups[-1].append(k)
        else:
            groups.append([k])
    return groups


def _best_innermost(
    target: Target, extents: tuple[int, ...], groups: list[list[int]], nodes: list[Node], sinks: list[Sink]
) -> list[list[int]]:
    """The loops with the axis innermost along which vectors are cheapest, where no order is given by reductions.

    A short innermost axis fills few lanes; along another, what is not contiguous is gathered one by one.
    """
    if len(groups) < 2 or not all(isinstance(sink, StoreSink) and not sink.apart for sink in sinks):
        return groups
    reads = [n.data[1] for n in nodes if n.kind == "load"]
    writes = [s.address for s in sinks if s.address is not None]
    operations = sum(n.kind == "apply" for n in nodes)
    lanes = target.lanes(8 * max(s.node.dtype.itemsize for s in sinks))

    def price(group: list[int]) -> float:
        extent = math.prod(extents[k] for k in group)
        filled = extent / -(-extent // lanes)
        gathered, scattered = (
            sum(a.coefficients[group[-1]] not in (0, 1) for a in addresses) for addresses in (reads, writes)
        )
        return (operations + len(reads + writes)) / filled + _GATHERED * gathered + _SCATTERED * scattered

    best = min(reversed(groups), key=price)
    return [group for group in groups if group is not best] + [best]


def _joins(outer: int, inner: int, extent: int, addresses: list[Affine], kept: list[int]) -> bool:
    """Whether a step of the outer axis is `extent` steps of the inner one, for all that depend on them."""
    if any((bits >> outer & 1) != (bits >> inner & 1) for bits in kept):
        return False
    return all(a.coefficients[outer] == a.coefficients[inner] * extent for a in addresses)
