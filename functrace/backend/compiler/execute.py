"""Code of a planned program: its steps in order, its arrays in the workspace.

A program is one straight line of steps in the function it is emitted into; loops and branches emit the programs they
hold in the same way, in blocks of their own.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.backend.compiler.chunks import LONG, Registers
from functrace.backend.compiler.context import ALIGNMENT, Context, address_in, copy_array, fill_array
from functrace.backend.compiler.emit import neutral
from functrace.backend.compiler.in_parts import CallInParts, calls_in_parts
from functrace.backend.compiler.nest import emit_nest
from functrace.backend.compiler.nodes import Node
from functrace.backend.compiler.parallel import emit_long_nest
from functrace.backend.compiler.places import Buffer, Place, Small, spill
from functrace.backend.compiler.plan import Plan
from functrace.backend.compiler.sinks import ReduceSink, ScanSink, Sink, StoreSink
from functrace.backend.compiler.steps import Box, CallStep, NestStep, SmallStep, Step
from functrace.core.ir import Atom, Eqn, Jaxpr, Literal, Var
from functrace.core.lowering import Reduction, Scan

__all__ = ["emit_program"]


def emit_program(
    context: Context, jaxpr: Jaxpr, inputs: Sequence[Place], outputs: Sequence[Buffer | None]
) -> list[Place | Literal]:
    """Emits the code of a program.

    Args:
        context: the function it goes into.
        jaxpr: inlined and simplified, without constvars.
        inputs: where the inputs are.
        outputs: where each result goes; None if that is left open.

    Returns:
        Where the results are.
    """
    context.nesting += 1
    try:
        return _Execution(context, jaxpr, inputs, outputs).run()
    finally:
        context.nesting -= 1


class _Execution:
    def __init__(
        self, context: Context, jaxpr: Jaxpr, inputs: Sequence[Place], outputs: Sequence[Buffer | None]
    ) -> None:
        self.context, self.e, self.jaxpr, self.outputs = context, context.e, jaxpr, outputs
        wanted = self._wanted()
        self.plan = Plan(self.e, jaxpr, dict(zip(jaxpr.invars, inputs, strict=True)), wanted)
        given = {b.pointer for b in wanted.values()}
        self.in_parts = {found.call: found for found in calls_in_parts(self.plan, jaxpr, given)}
        #: The nests that are emitted with the call that takes in their results.
        self.put_off = {nest: found for found in self.in_parts.values() for nest in found.nests}
        self._allocate(given)
        self.registers = Registers(context)

    def _wanted(self) -> dict[Var, Buffer]:
        """The results that are computed where they are wanted; others are copied there in the end."""
        inputs = set(self.jaxpr.invars)
        wanted: dict[Var, Buffer] = {}
        for atom, buffer in zip(self.jaxpr.outvars, self.outputs, strict=True):
            if isinstance(atom, Var) and buffer is not None and atom not in inputs:
                wanted.setdefault(atom, buffer)
        return wanted

    # memory

    def _allocate(self, given: set[str]) -> None:
        """Gives each array in the workspace its place; those that do not live at the same time may share it."""
        plan, lives = self.plan, dict[str, list[int]]()
        sizes: dict[str, int] = {}

        def use(var: Var, time: int) -> None:
            if var not in plan.spilled and (var in plan.numbers or isinstance(plan.places[var], Small)):
                return
            var = plan.bases.get(var, var)
            for place in (plan.places.get(var), plan.spilled.get(var)):
                if not isinstance(place, Buffer):
                    continue
                if place.pointer not in given and var not in plan.inputs:
                    live = lives.setdefault(place.pointer, [time, time])
                elif var in plan.spilled and place is plan.spilled[var]:
                    live = lives.setdefault(place.pointer, [-1 if var in plan.inputs else time, time])
                else:
                    continue
                live[1] = max(live[1], time)
                sizes[place.pointer] = place.size * place.dtype.itemsize

        times = {step: time for time, step in enumerate(plan.steps)}
        for step, time in times.items():
            for var in itertools.chain(step.writes, step.reads):
                use(var, time)
                if step in self.put_off:
                    use(var, times[self.put_off[step].call])
        for nest, found in self.put_off.items():
            for var in nest.roots:
                whole = plan.places[var]
                assert isinstance(whole, Buffer)
                sizes[whole.pointer] = found.length(nest) * var.aval.dtype.itemsize
        for atom in self.jaxpr.outvars:
            if isinstance(atom, Var):
                use(atom, len(plan.steps))
        offsets, total = _pack(lives, sizes)
        start = self.context.reserve(total)
        for pointer, offset in offsets.items():
            self.context.bind(pointer, start + offset)

    # steps

    def run(self) -> list[Place | Literal]:
        plan = self.plan
        for var, buffer in plan.spilled.items():
            if var in plan.inputs:
                place = plan.inputs[var]
                assert isinstance(place, Small)
                spill(self.e, place, buffer)
        for step in plan.steps:
            if isinstance(step, SmallStep):
                self._small(step)
            elif isinstance(step, NestStep):
                if step not in self.put_off:
                    self._nest(step)
            else:
                assert isinstance(step, CallStep)
                self._call(step)
            self._spill(step)
        return [self._result(atom, buffer) for atom, buffer in zip(self.jaxpr.outvars, self.outputs, strict=True)]

    def _spill(self, step: Step) -> None:
        spilled = self.plan.spilled
        for var in step.writes if spilled else ():
            if var in spilled:
                place = self.plan.places[var]
                if isinstance(place, Small) and place.nodes is None:
                    spill(self.e, place, spilled[var])

    def _small(self, step: SmallStep) -> None:
        plan, registers = self.plan, self.registers
        long = len(step.nodes) >= LONG or sum([len(nodes) for nodes in step.nodes]) >= LONG
        if long:
            registers.in_chunks(list(zip(step.nodes, map(plan.spilled.get, step.writes), strict=True)))
        for var, nodes in zip(step.writes, step.nodes, strict=True):
            if var in self._read_elsewhere:
                place = plan.places[var]
                assert isinstance(place, Small)
                place.values = [registers.value(node) for node in nodes]
                if var in plan.spilled and not long:
                    spill(self.e, place, plan.spilled[var])
            elif not long:
                for node in nodes:
                    registers.value(node)

    @functools.cached_property
    def _read_elsewhere(self) -> set[Var]:
        """What more than other operations in registers need."""
        found = {v for v in self.jaxpr.outvars if isinstance(v, Var)}.union(self.plan.spilled)
        return found.union(*[step.reads for step in self.plan.steps if not isinstance(step, SmallStep)])

    def _nest(self, step: NestStep) -> None:
        results: dict[Var, list[ReduceSink]] = {}
        for var, (eqn, lowering) in step.roots.items():
            place = self.plan.places[var]
            if isinstance(lowering, Reduction) and isinstance(place, Buffer) and _filled_first(step, eqn, lowering):
                empty = 0 in step.space
                value = {"add": 0, "mul": 1}.get(lowering.combine) if empty else None
                fill_array(self.e, place, neutral(lowering.combine, place.dtype) if value is None else value)
        for box in step.boxes:
            sinks: list[Sink] = []
            for var, (eqn, lowering) in step.roots.items():
                for part, node in box.nodes[var].items():
                    sink = self._sink(step, box, var, eqn, lowering, part, node)
                    sinks.append(sink)
                    if isinstance(sink, ReduceSink) and sink.pointer is None:
                        results.setdefault(var, []).append(sink)
            if not emit_long_nest(self.context, box.extents, sinks):
                emit_nest(self.e, box.extents, sinks)
            self.context.work += float(np.prod(box.extents)) * max(len(box.reader.nodes), 1)
        for var, totals in results.items():
            place = self.plan.places[var]
            assert isinstance(place, Small)
            combined = totals[0].result
            for total in totals[1:]:
                assert combined is not None and total.result is not None
                combined = self.e.combine(total.combine, combined, total.result)
            assert combined is not None
            place.values = [combined]
        self.context.report.append(step)

    def _sink(
        self, step: NestStep, box: Box, var: Var, eqn: Eqn, lowering: Any, part: tuple[int, ...], node: Node
    ) -> Sink:
        place, inner = self.plan.places[var], [box.reader.fixed(i) for i in part]
        if isinstance(lowering, Scan):
            assert isinstance(place, Buffer)
            return _running(place, box, box.values[var], eqn, lowering)
        if not isinstance(lowering, Reduction):
            assert isinstance(place, Buffer)
            return StoreSink(node, place.pointer, address_in(place, [*box.index, *inner], box.reader))
        kept = _kept_axes(step, eqn, lowering)
        bits = sum(1 << k for k in kept)
        if isinstance(place, Small):
            return ReduceSink(node, lowering.combine, 0, None, None)
        address = address_in(place, [*(box.index[k] for k in kept), *inner], box.reader)
        if len(kept) == len(step.space):
            return StoreSink(node, place.pointer, address)
        return ReduceSink(node, lowering.combine, bits, place.pointer, address, _filled_first(step, eqn, lowering))

    def _call(self, step: CallStep) -> None:
        eqn, plan = step.eqn, self.plan
        outs = [plan.places[v] for v in eqn.outvars]
        if step in self.in_parts:
            self._call_in_parts(self.in_parts[step], outs)
            return
        report: list[Any] = self.context.report
        inner: list[Any] = []
        self.context.report = inner
        if step.lowering is None:
            operands = [self.context.materialise(self._operand(a)) for a in eqn.invars]
            self.context.python_call(self.context, eqn, operands, outs)
        else:
            step.lowering.emit(self.context, [self._operand(a) for a in eqn.invars], outs, **eqn.params)
        self.context.report = report
        report.append((step, inner))

    def _call_in_parts(self, found: CallInParts, outs: list[Any]) -> None:
        def operands() -> list[Any]:
            return [self._operand(a) for a in found.call.eqn.invars]

        def sinks(nest: NestStep) -> list[Sink]:
            (box,) = nest.boxes
            self.context.work += float(np.prod(box.extents)) * max(len(box.reader.nodes), 1)
            return [
                self._sink(nest, box, var, eqn, lowering, part, node)
                for var, (eqn, lowering) in nest.roots.items()
                for part, node in box.nodes[var].items()
            ]

        found.emit(self.context, self.plan, operands, outs, sinks)
        self.context.report += [*found.nests, (found.call, [])]

    def _operand(self, atom: Atom) -> Place | Literal:
        if isinstance(atom, Literal):
            return atom
        return self.plan.spilled.get(atom) or self.plan.places[atom]

    def _result(self, atom: Atom, wanted: Buffer | None) -> Place | Literal:
        if isinstance(atom, Literal):
            if wanted is None:
                return atom
            fill_array(self.e, wanted, atom.val)
            return wanted
        place = self.plan.places[atom]
        if wanted is None:
            return place
        if isinstance(place, Small):
            spill(self.e, place, wanted)
        elif place.pointer != wanted.pointer:
            copy_array(self.e, place, wanted)
        return wanted


def _running(place: Buffer, box: Box, values: list[Node], eqn: Eqn, lowering: Scan) -> Sink:
    """A cumulative operation in a box: in registers along the innermost axis, else from row to row in memory."""
    axis, reverse = lowering.axis(**eqn.params)
    length, reader = place.shape[axis], box.reader
    index = list(box.index)
    if reverse:
        index[axis] = length - 1 - index[axis]
    address = address_in(place, index, reader)
    step = place.strides[axis] * (-1 if reverse else 1)
    before = address + -step if box.starts[axis] else None
    apart = 1 << axis
    if box.extents[axis] > 1 and math.prod(box.extents[axis + 1 :]) == 1:
        start = None if lowering.start is None else lowering.start(place.dtype)
        return ScanSink(values, lowering.step, start, place.pointer, address, before, apart)
    if before is None:
        return StoreSink(values[-1], place.pointer, address, apart)
    index[axis] = index[axis] + (1 if reverse else -1)
    last = reader.load_from(place, index)
    node = reader.apply(lowering.step, last, *values, dtype=place.dtype)
    return StoreSink(node, place.pointer, address, apart)


def _kept_axes(step: NestStep, eqn: Eqn, lowering: Reduction) -> list[int]:
    """The axes of the nest that a reduction keeps."""
    kept = lowering.kept(*[a.aval for a in eqn.invars], **eqn.params)
    return [k for k in kept if k < len(step.space)]


def _filled_first(step: NestStep, eqn: Eqn, lowering: Reduction) -> bool:
    """Whether a reduction's result in memory starts from the neutral element and is combined with what is there."""
    kept = _kept_axes(step, eqn, lowering)
    if len(kept) == len(step.space):
        return 0 in step.space
    reduced = [k for k in range(len(step.space)) if k not in kept and step.space[k] > 1]
    return len(step.boxes) != 1 or any(k < max(kept, default=-1) for k in reduced)


def _pack(lives: dict[str, list[int]], sizes: dict[str, int]) -> tuple[dict[str, int], int]:
    """Offsets such that arrays that live at the same time do not overlap; the largest first."""
    offsets: dict[str, int] = {}
    placed: list[tuple[int, int, int, int]] = []  # offset, end, first and last step
    for pointer in sorted(lives, key=lambda p: -sizes[p]):
        first, last = lives[pointer]
        size = max(-(-sizes[pointer] // ALIGNMENT), 1) * ALIGNMENT
        offset = 0
        for start, end, other_first, other_last in placed:
            if last < other_first or other_last < first:
                continue
            if offset + size <= start:
                break
            offset = max(offset, end)
        offsets[pointer] = offset
        placed.append((offset, offset + size, first, last))
        placed.sort()
    return offsets, max((end for _, end, _, _ in placed), default=0)
