"""The steps of a plan: what happens in registers, loop nests with their boxes, and calls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from functrace.backend.compiler.affine import Affine, NotAffineError
from functrace.backend.compiler.nodes import Index, Node, Reader, SplitBoxError
from functrace.backend.compiler.places import Place
from functrace.core.ir import Eqn, Var
from functrace.core.lowering import Call, Control, Lowering, Reduction, Scan

if TYPE_CHECKING:
    from functrace.backend.compiler.plan import Plan

__all__ = ["Box", "CallStep", "NestStep", "OtherIndexError", "SmallStep", "Step"]

_MOST_BOXES = 300


class Step:
    """One step of the program."""

    def __init__(self, time: int) -> None:
        self.time = time
        self.reads: set[Var] = set()
        self.writes: list[Var] = []


class SmallStep(Step):
    """All operations in registers at one time, in order."""

    def __init__(self, time: int) -> None:
        super().__init__(time)
        self.alone: frozenset[Step] = frozenset([self])
        #: The nodes of each array that it writes.
        self.nodes: list[Sequence[Node]] = []


class CallStep(Step):
    """A library call, loop or branch; without a lowering, a call of the primitive's evaluation in Python."""

    def __init__(self, time: int, eqn: Eqn, lowering: Call | Control | None) -> None:
        super().__init__(time)
        self.eqn, self.lowering = eqn, lowering


class OtherIndexError(Exception):
    """A root of the nest is read at another index than its own, or before it is complete."""


class Box:
    """A part of a nest's space, with the reader that stands for it and the nodes of the nest's roots.

    The nodes of a root are one for each of its parts: the positions on those of its axes that are no axes of the nest,
    but run through one by one in its body.
    """

    def __init__(self, nest: NestStep, starts: tuple[int, ...], extents: tuple[int, ...]) -> None:
        self.starts, self.extents = starts, extents
        self.reader = Reader(extents, self._producer, nest.place)
        self.index = tuple(self.reader.variable(k, start) for k, start in enumerate(starts))
        self.nodes: dict[Var, dict[tuple[int, ...], Node]] = {}
        #: All values that a step of a cumulative root takes; the last one stands in `nodes`.
        self.values: dict[Var, list[Node]] = {}
        self._nest = nest

    def _producer(self, var: Var, index: Index) -> tuple[Eqn, Lowering] | None:
        found = self._nest.roots.get(var)
        if found is None:
            return self._nest.plan.virtual.get(var)
        axes = len(self.index)
        fixed = all(isinstance(i, Affine) and not any(i.coefficients) for i in index[axes:])
        if tuple(index[:axes]) != self.index or not fixed or isinstance(found[1], (Reduction, Scan)):
            raise OtherIndexError
        return found

    def fill(self) -> SplitBoxError | None:
        """Makes the nodes of the roots that have none here; gives the cut that has to be made first, if one has."""
        for var, (eqn, lowering) in self._nest.roots.items():
            if var in self.nodes:
                continue
            try:
                if isinstance(lowering, Scan):
                    self._first_step_apart(lowering.axis(**eqn.params)[0], lowering.start is None)
                    self.values[var] = lowering.element(self.reader, self.index, *eqn.invars, **eqn.params)
                    self.nodes[var] = {(): self.values[var][-1]}
                elif isinstance(lowering, Reduction):
                    self.nodes[var] = self._terms(eqn, lowering)
                else:
                    rest = var.aval.shape[len(self.index) :]
                    self.nodes[var] = {part: self.reader.read(var, self._at(part)) for part in np.ndindex(*rest)}
            except SplitBoxError as cut:
                return cut
        return None

    def _at(self, part: tuple[int, ...]) -> tuple[Affine, ...]:
        return (*self.index, *map(self.reader.fixed, part))

    def _terms(self, eqn: Eqn, lowering: Reduction) -> dict[tuple[int, ...], Node]:
        """What a reduction combines, per part of its result; terms on axes that are not the nest's are combined."""
        avals, axes = [a.aval for a in eqn.invars], len(self.index)
        kept = lowering.kept(*avals, **eqn.params)
        rest = lowering.space(*avals, **eqn.params)[axes:]
        terms: dict[tuple[int, ...], list[Node]] = {}
        for point in np.ndindex(*rest):
            part = tuple([point[k - axes] for k in kept if k >= axes])
            node = lowering.element(self.reader, self._at(point), *eqn.invars, **eqn.params)
            terms.setdefault(part, []).append(node)
        dtype = eqn.outvars[0].aval.dtype
        return {part: self.reader.combined(lowering.combine, nodes, dtype) for part, nodes in terms.items()}

    def _first_step_apart(self, axis: int, special: bool) -> None:
        """Cuts off the first step of a run, which has none before it: if it has no neutral start, or runs in rows."""
        if self.starts[axis] == 0 and self.extents[axis] > 1 and (special or math.prod(self.extents[axis + 1 :]) > 1):
            raise SplitBoxError(axis, 1)

    def cut(self, cut: SplitBoxError) -> list[Box]:
        axis, at = cut.axis, cut.position
        first = tuple([at if k == axis else n for k, n in enumerate(self.extents)])
        second = tuple([n - at if k == axis else n for k, n in enumerate(self.extents)])
        start = tuple([s + at if k == axis else s for k, s in enumerate(self.starts)])
        return [Box(self._nest, self.starts, first), Box(self._nest, start, second)]


class NestStep(Step):
    """A loop nest over `space`, with one or several roots: stored arrays, and reductions."""

    def __init__(self, time: int, space: tuple[int, ...], plan: Plan) -> None:
        super().__init__(time)
        self.space, self.plan = space, plan
        self.roots: dict[Var, tuple[Eqn, Lowering]] = {}
        self.boxes = [] if 0 in space else [Box(self, (0,) * len(space), space)]

    def place(self, var: Var, in_memory: bool) -> Place:
        if self.plan.bases.get(var, var) in self.roots:
            raise OtherIndexError
        self.reads.add(var)
        return self.plan.place(var, in_memory)

    def add(self, var: Var, eqn: Eqn, lowering: Lowering) -> None:
        """Takes in a root; the boxes are cut where its operands are.

        Raises:
            NotAffineError, OtherIndexError: it cannot be computed in this nest, which is as before.
        """
        self.roots[var] = (eqn, lowering)
        before, pending, done = self.boxes, self.boxes[::-1], []
        try:
            while pending:
                box = pending.pop()
                cut = box.fill()
                if cut is None:
                    done.append(box)
                else:
                    pending += reversed(box.cut(cut))
                    if len(pending) + len(done) > _MOST_BOXES:
                        raise NotAffineError
        except (OtherIndexError, NotAffineError):
            del self.roots[var]
            for box in before:
                box.nodes.pop(var, None)
            raise
        self.boxes = done
