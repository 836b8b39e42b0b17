"""Code of a planned program: its steps in order, its arrays in the workspace.

A program is one straight line of steps in the function it is emitted into; loops and branches emit the programs they
hold in the same way, in blocks of their own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.backend.compiler.affine import Affine
from functrace.backend.compiler.choice import choose, has_element_type
from functrace.backend.compiler.chunks import LONG, Chunk, Registers
from functrace.backend.compiler.emit import INDEX, Emitter, neutral
from functrace.backend.compiler.inline import prepare
from functrace.backend.compiler.library_calls import LibraryCalls
from functrace.backend.compiler.nest import ReduceSink, ScanSink, Sink, StoreSink, emit_nest
from functrace.backend.compiler.nodes import Node, Reader
from functrace.backend.compiler.parallel import Piece, emit_long_nest
from functrace.backend.compiler.places import SMALL, Buffer, Place, Small, spill
from functrace.backend.compiler.plan import Plan
from functrace.backend.compiler.positions import Positions
from functrace.backend.compiler.steps import Box, CallStep, NestStep, SmallStep, Step
from functrace.core.ir import Atom, Eqn, Jaxpr, Literal, Var
from functrace.core.lowering import Elementwise, Indexed, Reduction, Scan
from functrace.core.types import ShapedArray

__all__ = ["Context", "emit_program"]

_ALIGNMENT = 64
_HOISTED = 4.0  # additions an element, from which on an invariant is worth keeping


class Context(Positions, LibraryCalls):
    """What all programs of one compiled function share.

    Args:
        e: the emitter.
        python_call: `python_call(context, primitive, operands, outputs, params)`, emits a call of a primitive's
            evaluation.
        report: what was done, in order, for the user to read.
    """

    def __init__(self, e: Emitter, python_call: Callable[..., None]) -> None:
        self.e = e
        self.python_call = python_call
        self.report: list[Any] = []
        self.workspace = 0
        self.prologue: list[str] = []
        #: Parts of long loops, which are functions of their own.
        self.pieces: list[Piece] = []
        #: How many programs deep the code is that is being emitted.
        self.nesting = 0
        self.uses_python = False
        #: Functions that parts of it are in.
        self.chunks: list[Chunk] = []
        #: Whether it is worth it to give BLAS one thread only.
        self.single_threaded = False
        #: An estimate of the work, in operations on elements.
        self.work = 0.0
        #: How often the library call is made that is emitted now.
        self.repeats = 1

    def reserve(self, size: int) -> int:
        """So many bytes of the workspace."""
        start = self.workspace
        self.workspace += -(-size // _ALIGNMENT) * _ALIGNMENT
        return start

    def array(self, shape: tuple[int, ...], dtype: np.dtype) -> Buffer:
        """A new array in the workspace, for good."""
        buffer = Buffer(self.e.fresh("buf"), shape, dtype)
        self.bind(buffer.pointer, self.reserve(max(buffer.size, 1) * dtype.itemsize))
        return buffer

    def bind(self, pointer: str, offset: int) -> None:
        """Names a place in the workspace."""
        self.prologue.append(f"  {pointer} = getelementptr i8, ptr %arena, i64 {offset}")

    def contiguous(self, buffer: Buffer) -> Buffer:
        """The array in C order; copied if it is not."""
        if buffer.contiguous:
            return buffer
        copy = self.array(buffer.shape, buffer.dtype)
        copy_array(self.e, buffer, copy)
        return copy

    def materialise(self, place: Place | Literal) -> Buffer:
        """The value in memory."""
        if isinstance(place, Buffer):
            return place
        if isinstance(place, Literal):
            if place.aval.dtype.kind == "c":
                return self.constant(np.array(place.val))
            buffer = self.array((), place.aval.dtype)
            self.e.store(self.e.constant(place.val, place.aval.dtype), buffer.pointer)
            return buffer
        buffer = self.array(place.shape, place.dtype)
        spill(self.e, place, buffer)
        return buffer

    def constant(self, array: np.ndarray) -> Buffer:
        """An array that the code refers to where it lies."""
        position = len(self.e.objects)
        self.e.objects.append(array)
        return Buffer(self.e.symbol(f"data:{position}"), array.shape, array.dtype)

    # what loops and branches are written in

    def prepared(self, jaxpr: Jaxpr) -> Jaxpr:
        """A program inlined and simplified, made once."""
        found = jaxpr.derived.get(("prepared",))
        if found is None:
            found = jaxpr.derived.setdefault(("prepared",), prepare(jaxpr))
        return found

    def aval(self, place: Place | Literal) -> ShapedArray:
        return place.aval if isinstance(place, Literal) else ShapedArray(place.shape, place.dtype)

    def is_small(self, place: Place | Literal) -> bool:
        """Whether a value may live in registers."""
        aval = self.aval(place)
        return aval.size <= SMALL and has_element_type(aval.dtype)

    def registers(self, place: Place | Literal) -> Small:
        """The value in registers."""
        if isinstance(place, Small):
            return place
        aval = self.aval(place)
        small = Small(aval.shape, aval.dtype)
        if isinstance(place, Literal):
            small.values = [self.e.constant(place.val, aval.dtype)]
            return small
        offsets = [sum(i * s for i, s in zip(index, place.strides, strict=True)) for index in np.ndindex(*place.shape)]
        small.values = [
            self.e.load(self.e.offset(place.pointer, place.offset + offset, place.dtype), place.dtype)
            for offset in offsets
        ]
        return small

    def homed(self, place: Place | Literal) -> Place:
        """A value that a loop reads: if it is in registers, in memory too."""
        if isinstance(place, Small):
            if place.home is None:
                place.home = self.materialise(place)
            return place
        return self.materialise(place)

    def like(self, buffer: Buffer) -> Buffer:
        """A new array of the same type."""
        return self.array(buffer.shape, buffer.dtype)

    def rooted(self, buffer: Buffer) -> Buffer:
        """The array in C order, at its own address."""
        buffer = self.contiguous(buffer)
        return Buffer(buffer.start(self.e), buffer.shape, buffer.dtype)

    def buffer_like(self, buffer: Buffer, pointer: str) -> Buffer:
        """An array of the same type at an address; `buffer` is contiguous from its pointer on."""
        return Buffer(pointer, buffer.shape, buffer.dtype)

    def small_like(self, small: Small, stem: str) -> Small:
        """Registers of the same types, with these names."""
        found = Small(small.shape, small.dtype)
        assert small.values is not None
        found.values = [self.e.blank(small.dtype, 1, f"{stem}.{k}") for k in range(len(small.values))]
        return found

    def phi_lines(self, phi: Small, start: Small, before: str, after: Small, latch: str) -> list[str]:
        """Registers at the head of a loop, from those before it and those after a step."""
        assert phi.values is not None and start.values is not None and after.values is not None
        triples = zip(phi.values, start.values, after.values, strict=True)
        return [line for p, s, a in triples for line in self.e.phi(p, [(s, before), (a, latch)])]

    def slice(self, buffer: Buffer, position: str) -> Buffer:
        """Element `position`, a register, of an array's first axis."""
        e = self.e
        stride = buffer.strides[0]
        step = position if stride == 1 else e.index(f"mul nsw i64 {position}, {stride}")
        pointer = e.offset(buffer.start(e), step, buffer.dtype)
        return Buffer(pointer, buffer.shape[1:], buffer.dtype, buffer.strides[1:])

    def copy(self, source: Buffer, goal: Buffer) -> None:
        if source.pointer != goal.pointer:
            copy_array(self.e, source, goal)

    def integer(self, place: Place | Literal) -> str:
        """A number as a 64-bit integer."""
        values = self.registers(place).values
        assert values is not None
        return self.e.convert(values[0], INDEX).name

    def decline(self) -> None:
        """The code cannot do it: the program runs by NumPy calls, which say what is wrong."""
        self.e.guards = True
        self.e.line("store i8 1, ptr %guard")

    def worth_hoisting(self, eqn: Eqn) -> bool:
        """Whether computing an equation before a loop saves more than keeping its result costs."""
        lowering = choose(eqn)
        if isinstance(lowering, Indexed):
            return False
        small = all(v.aval.size <= SMALL for v in eqn.outvars)
        return small or not isinstance(lowering, Elementwise) or lowering.price(eqn.invars) >= _HOISTED

    def program(self, jaxpr: Jaxpr, inputs: Sequence[Place], outputs: Sequence[Buffer | None]) -> list[Place | Literal]:
        """Emits a program that another one holds."""
        return emit_program(self, jaxpr, inputs, outputs)


def copy_array(e: Emitter, source: Buffer, goal: Buffer) -> None:
    """Code that copies an array."""
    _emit_map(e, goal, lambda reader, index: reader.load_from(source, index))


def fill_array(e: Emitter, goal: Buffer, value: Any) -> None:
    """Code that writes one number everywhere."""
    _emit_map(e, goal, lambda reader, index: reader.constant(value, goal.dtype))


def add_array(e: Emitter, goal: Buffer, source: Buffer) -> None:
    """Code for goal += source."""

    def element(reader: Reader, index: Any) -> Node:
        x, y = reader.load_from(goal, index), reader.load_from(source, index)
        return reader.apply(lambda e, x, y: x + y, x, y, dtype=goal.dtype)

    _emit_map(e, goal, element)


def _emit_map(e: Emitter, goal: Buffer, element: Callable[[Reader, Any], Node]) -> None:
    if 0 in goal.shape:
        return
    reader = Reader(goal.shape, lambda var, index: None, lambda var, in_memory: goal)
    index = tuple(map(reader.variable, range(len(goal.shape))))
    node = element(reader, index)
    emit_nest(e, goal.shape, [StoreSink(node, goal.pointer, _address(goal, index, reader))])


def _address(buffer: Buffer, index: Sequence[Affine], reader: Reader) -> Affine:
    address = reader.fixed(buffer.offset)
    for i, stride in zip(index, buffer.strides, strict=True):
        address = address + i * stride
    return address


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
        self._allocate({b.pointer for b in wanted.values()})
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
            if isinstance(plan.places[var], Small) and var not in plan.spilled:
                return
            var = plan.bases.get(var, var)
            for place in (plan.places.get(var), plan.spilled.get(var)):
                if isinstance(place, Buffer) and place.pointer not in given and var not in plan.inputs:
                    lives.setdefault(place.pointer, [time, time])[1] = time
                    sizes[place.pointer] = place.size * place.dtype.itemsize
                elif isinstance(place, Buffer) and var in plan.spilled and place is plan.spilled[var]:
                    lives.setdefault(place.pointer, [-1 if var in plan.inputs else time, time])[1] = time
                    sizes[place.pointer] = place.size * place.dtype.itemsize

        for time, step in enumerate(plan.steps):
            for var in itertools.chain(step.writes, step.reads):
                use(var, time)
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
                self._nest(step)
            else:
                assert isinstance(step, CallStep)
                self._call(step)
            self._spill(step)
        return [self._result(atom, buffer) for atom, buffer in zip(self.jaxpr.outvars, self.outputs, strict=True)]

    def _spill(self, step: Step) -> None:
        for var in step.writes:
            place = self.plan.places[var]
            if var in self.plan.spilled and isinstance(place, Small) and place.nodes is None:
                spill(self.e, place, self.plan.spilled[var])

    def _small(self, step: SmallStep) -> None:
        plan = self.plan
        arrays: list[tuple[Var, Small, list[Node]]] = []
        for var in step.writes:
            place = plan.places[var]
            assert isinstance(place, Small) and place.nodes is not None
            arrays.append((var, place, place.nodes))
        if sum(len(nodes) for _, _, nodes in arrays) >= LONG:
            self.registers.in_chunks([(nodes, plan.spilled.get(var)) for var, _, nodes in arrays])
            needed = self._read_outside_registers()
            for var, place, nodes in arrays:
                if var in needed:
                    place.values = [self.registers.value(node) for node in nodes]
            return
        for var, place, nodes in arrays:
            place.values = [self.registers.value(node) for node in nodes]
            if var in plan.spilled:
                spill(self.e, place, plan.spilled[var])

    def _read_outside_registers(self) -> set[Var]:
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
            return StoreSink(node, place.pointer, _address(place, [*box.index, *inner], box.reader))
        kept = _kept_axes(step, eqn, lowering)
        bits = sum(1 << k for k in kept)
        if isinstance(place, Small):
            return ReduceSink(node, lowering.combine, 0, None, None)
        address = _address(place, [*(box.index[k] for k in kept), *inner], box.reader)
        if len(kept) == len(step.space):
            return StoreSink(node, place.pointer, address)
        return ReduceSink(node, lowering.combine, bits, place.pointer, address, _filled_first(step, eqn, lowering))

    def _call(self, step: CallStep) -> None:
        eqn, plan = step.eqn, self.plan
        outs = [plan.places[v] for v in eqn.outvars]
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
    address = _address(place, index, reader)
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
        size = max(-(-sizes[pointer] // _ALIGNMENT), 1) * _ALIGNMENT
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
