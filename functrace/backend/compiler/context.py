"""What all programs of one compiled function share: the workspace, memory for values, what was done; copies and fills.

Loops and branches are written in terms of it; see `functrace.control`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.backend.compiler.affine import Affine
from functrace.backend.compiler.choice import choose, has_element_type
from functrace.backend.compiler.chunks import Chunk
from functrace.backend.compiler.emit import INDEX, Emitter
from functrace.backend.compiler.inline import prepare
from functrace.backend.compiler.library_calls import LibraryCalls
from functrace.backend.compiler.nest import emit_nest
from functrace.backend.compiler.nodes import Node, Reader
from functrace.backend.compiler.parallel import Piece
from functrace.backend.compiler.places import SMALL, Buffer, Place, Small, spill
from functrace.backend.compiler.positions import Positions
from functrace.backend.compiler.sinks import StoreSink
from functrace.core.ir import Eqn, Jaxpr, Literal
from functrace.core.lowering import Elementwise, Indexed
from functrace.core.types import ShapedArray

__all__ = ["ALIGNMENT", "Context", "add_array", "address_in", "copy_array", "fill_array"]

ALIGNMENT = 64  # bytes, of arrays in the workspace
_HOISTED = 4.0  # additions an element, from which on an invariant is worth keeping


class Context(Positions, LibraryCalls):
    """What all programs of one compiled function share.

    Args:
        e: the emitter.
        python_call: `python_call(context, eqn, operands, outputs)`, emits a call of a primitive's evaluation.
        program: `program(context, jaxpr, inputs, outputs)`, emits a program; gives the places of its results.
        report: what was done, in order, for the user to read.
    """

    def __init__(
        self, e: Emitter, python_call: Callable[..., None], program: Callable[..., list[Place | Literal]]
    ) -> None:
        self.e = e
        self.python_call = python_call
        self._program = program
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
        self.workspace += -(-size // ALIGNMENT) * ALIGNMENT
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
        return self._program(self, jaxpr, inputs, outputs)


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
    emit_nest(e, goal.shape, [StoreSink(node, goal.pointer, address_in(goal, index, reader))])


def address_in(buffer: Buffer, index: Sequence[Affine], reader: Reader) -> Affine:
    """Where an element lies behind the buffer's pointer, in elements."""
    address = reader.fixed(buffer.offset)
    for i, stride in zip(index, buffer.strides, strict=True):
        address = address + i * stride
    return address
