"""The waist of a linear program: the smallest set of variables that everything passes through.

A minimal vertex cut, each variable weighted by its size, found as a maximal flow (Ford and Fulkerson 1956) by shortest
augmenting paths in phases (Dinic 1970). The Jacobian is the product of those before and after a cut, which take as
many sweeps as the cut is wide: A. Griewank and A. Walther, Evaluating Derivatives (2nd edition, 2008), chapter 10.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from functrace.core.ir import Eqn, Literal, Var

__all__ = ["between", "narrowest_cuts", "width"]


def width(variables: Sequence[Var]) -> int:
    """How many numbers these variables hold."""
    return sum(v.aval.size for v in variables)


def between(eqns: Sequence[Eqn], start: Sequence[Var], stop: Sequence[Var]) -> list[Eqn]:
    """The equations that compute `stop` from `start`, in order."""
    known, wanted = set(start), set(stop) - set(start)
    kept = []
    for eqn in reversed(eqns):
        if any(v in wanted for v in eqn.outvars):
            kept.append(eqn)
            wanted.update(a for a in eqn.invars if isinstance(a, Var) and a not in known)
    kept.reverse()
    return kept


def narrowest_cuts(eqns: Sequence[Eqn], invars: Sequence[Var], outvars: Sequence[Var]) -> list[list[Var]]:
    """The minimal cuts nearest to the inputs and nearest to the outputs, one list if they are the same.

    Only variables of real floating point type are cut.

    Args:
        eqns: a linear program in the tangents `invars`; constants are literals.
        invars: its inputs.
        outvars: its outputs, in any order and number.
    """
    network = _Network(eqns, invars, outvars)
    if network.limit == 0:
        return []
    network.saturate()
    first, last = network.cut_after_source(), network.cut_before_sink()
    return [first] if set(first) == set(last) else [first, last]


class _Network:
    """Two nodes per variable, joined by an edge as wide as the variable; all other edges are unbounded."""

    def __init__(self, eqns: Sequence[Eqn], invars: Sequence[Var], outvars: Sequence[Var]) -> None:
        self.to: list[int] = []
        self.room: list[float] = []
        self.edges: list[list[int]] = [[], []]  # of the source and of the sink
        self.node: dict[Var, int] = {}
        self.limit = min(width(invars), width(list(dict.fromkeys(outvars))))
        for var in dict.fromkeys(invars):
            self.connect(0, self.add(var), math.inf)
        for eqn in eqns:
            operands = [self.node[a] + 1 for a in eqn.invars if not isinstance(a, Literal) and a in self.node]
            if not operands:
                continue
            middle = self.new_node()
            for operand in dict.fromkeys(operands):
                self.connect(operand, middle, math.inf)
            for var in eqn.outvars:
                self.connect(middle, self.add(var), math.inf)
        for var in dict.fromkeys(outvars):
            if var in self.node:
                self.connect(self.node[var] + 1, 1, math.inf)

    def new_node(self) -> int:
        self.edges.append([])
        return len(self.edges) - 1

    def add(self, var: Var) -> int:
        entry = self.node[var] = self.new_node()
        self.connect(entry, self.new_node(), var.aval.size if var.aval.dtype.kind == "f" else math.inf)
        return entry

    def connect(self, start: int, stop: int, room: float) -> None:
        """An edge, and at the next number its reverse."""
        for origin, target, capacity in ((start, stop, room), (stop, start, 0)):
            self.edges[origin].append(len(self.to))
            self.to.append(target)
            self.room.append(capacity)

    def saturate(self) -> None:
        """Send as much as possible from the source to the sink."""
        while (levels := self.levels())[1] >= 0:
            position = [0] * len(self.edges)
            while self.augment(levels, position):
                pass

    def levels(self) -> list[int]:
        """The distance of every node from the source along edges with room; -1 where there is none."""
        found = [-1] * len(self.edges)
        found[0] = 0
        queue = deque([0])
        while queue:
            node = queue.popleft()
            for edge in self.edges[node]:
                if self.room[edge] > 0 and found[self.to[edge]] < 0:
                    found[self.to[edge]] = found[node] + 1
                    queue.append(self.to[edge])
        return found

    def augment(self, levels: list[int], position: list[int]) -> bool:
        """Fill one shortest path; False when there is no other. `position` is where each node's search stands."""
        path: list[int] = []
        node = 0
        while node != 1:
            edges = self.edges[node]
            while position[node] < len(edges):
                edge = edges[position[node]]
                if self.room[edge] > 0 and levels[self.to[edge]] == levels[node] + 1:
                    break
                position[node] += 1
            else:
                if not path:
                    return False
                node = self.to[path.pop() ^ 1]
                position[node] += 1
                continue
            path.append(edge)
            node = self.to[edge]
        flow = min(self.room[edge] for edge in path)
        for edge in path:
            self.room[edge] -= flow
            self.room[edge ^ 1] += flow
        return True

    def cut_after_source(self) -> list[Var]:
        levels = self.levels()
        return [var for var, entry in self.node.items() if levels[entry] >= 0 > levels[entry + 1]]

    def cut_before_sink(self) -> list[Var]:
        reaches = {1}
        queue = deque([1])
        while queue:
            node = queue.popleft()
            for edge in self.edges[node]:
                origin = self.to[edge]
                if self.room[edge ^ 1] > 0 and origin not in reaches:
                    reaches.add(origin)
                    queue.append(origin)
        return [var for var, entry in self.node.items() if entry + 1 in reaches and entry not in reaches]
