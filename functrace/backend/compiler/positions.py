"""Code that reads and writes arrays at positions known only when it runs; part of the compiler's context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from functrace.backend.compiler.emit import INDEX, Value
from functrace.backend.compiler.nest import emit_nest
from functrace.backend.compiler.nodes import Reader
from functrace.backend.compiler.places import Buffer, Place
from functrace.backend.compiler.sinks import StoreSink
from functrace.core.ir import Literal

__all__ = ["Positions"]

_TOGETHER = 8  # elements of a sequence that another is multiplied by at a time


class Positions:
    """What scatters are written in."""

    def assign(self: Any, source: Place | Literal, goal: Buffer) -> None:
        """Copies an array, or writes one number everywhere."""
        if isinstance(source, Literal):
            number = source.val
            self.map(goal, lambda reader, index: reader.constant(number, goal.dtype))
        else:
            self.copy(self.materialise(source), goal)

    def map(self: Any, goal: Buffer, element: Callable[[Reader, Any], Any]) -> None:
        """Writes every element; `element(reader, index)` gives its node."""
        if 0 in goal.shape:
            return
        reader = Reader(goal.shape, lambda var, index: None, lambda var, in_memory: goal)
        index = tuple(map(reader.variable, range(len(goal.shape))))
        address = reader.fixed(goal.offset)
        for i, stride in zip(index, goal.strides, strict=True):
            address = address + i * stride
        emit_nest(self.e, goal.shape, [StoreSink(element(reader, index), goal.pointer, address)])

    def position(self: Any, index: Buffer, positions: Sequence[str], length: int) -> tuple[str, str]:
        """An element of an array of positions on an axis, and whether it is in range."""
        e = self.e
        found = e.convert(e.load(self.part(index, positions), index.dtype), INDEX)
        return found.name, e.index(f"icmp ult i64 {found.name}, {length}")

    def behind(self: Any, buffer: Buffer, positions: Sequence[str]) -> Buffer:
        """The part of an array at positions on its first axes."""
        count = len(positions)
        return Buffer(self.part(buffer, positions), buffer.shape[count:], buffer.dtype, buffer.strides[count:])

    def view(self: Any, buffer: Buffer, axes: Sequence[int], steps: Sequence[tuple[str, int]]) -> Buffer:
        """Some axes of an array, at positions (registers) on axes of these strides."""
        e, pointer = self.e, buffer.start(self.e)
        for position, stride in steps:
            step = position if stride == 1 else e.index(f"mul nsw i64 {position}, {stride}")
            pointer = e.offset(pointer, step, buffer.dtype)
        shape, strides = tuple([buffer.shape[a] for a in axes]), tuple([buffer.strides[a] for a in axes])
        return Buffer(pointer, shape, buffer.dtype, strides)

    def where(self: Any, flags: Sequence[str], body: Callable[[], None]) -> None:
        """Code that runs if all flags hold; else the program is declared to have failed."""
        e = self.e
        e.guards = True
        holds = flags[0]
        for flag in flags[1:]:
            holds = e.index(f"and i1 {holds}, {flag}")
        good, bad, end = e.new_label("inside"), e.new_label("outside"), e.new_label("after")
        e.line(f"br i1 {holds}, label %{good}, label %{bad}")
        e.label(bad)
        e.line("store i8 1, ptr %guard")
        e.line(f"br label %{end}")
        e.label(good)
        body()
        e.line(f"br label %{end}")
        e.label(end)

    def update(self: Any, goal: Buffer, source: Buffer, combine: Callable[..., Value] | None) -> None:
        """Writes an array to another, or combines it with what is there."""

        def element(reader: Reader, index: Any) -> Any:
            new = reader.load_from(source, index)
            if combine is None:
                return new
            return reader.apply(combine, reader.load_from(goal, index), new, dtype=goal.dtype)

        if goal.size > 1:
            self.map(goal, element)
            return
        e = self.e
        new = e.load(source.start(e), source.dtype)
        at = goal.start(e)
        e.store(new if combine is None else combine(e, e.load(at, goal.dtype), new), at)

    def zero(self: Any, goal: Buffer) -> None:
        """Writes 0 everywhere."""
        self.map(goal, lambda reader, index: reader.constant(0, goal.dtype))

    def part_from(self: Any, buffer: Buffer, start: str, shape: tuple[int, ...]) -> Buffer:
        """So many elements of an array of one axis, from a position (register) on."""
        place = self.view(buffer, [], [(start, buffer.strides[0])])
        return Buffer(place.pointer, shape, buffer.dtype, buffer.strides)

    def add_product(self: Any, goal: Buffer, x: Buffer, number: Buffer) -> None:
        """goal += x times a number in memory."""

        def element(reader: Reader, index: Any) -> Any:
            factors = reader.load_from(goal, index), reader.load_from(x, index), reader.load_from(number, ())
            return reader.apply(lambda e, t, a, b: t + a * b, *factors, dtype=goal.dtype)

        self.map(goal, element)

    def add_convolution(self: Any, goal: Buffer, x: Buffer, y: Buffer) -> None:
        """goal += the convolution of two sequences, the second no longer than the first.

        Several elements of the second are taken at a time: an element of the goal that all of them have a part in is
        read and written once.
        """
        e, length, taps = self.e, x.shape[0], y.shape[0]

        def some(start: str, count: int) -> None:
            places = [start if t == 0 else e.index(f"add nsw i64 {start}, {t}") for t in range(count)]
            numbers = [self.view(y, [], [(place, y.strides[0])]) for place in places]
            for t, (place, number) in enumerate(zip(places, numbers, strict=True)):
                for first, size in ((0, count - 1 - t), (length - t, t)):  # where only some have a part
                    if size:
                        at = place if first == 0 else e.index(f"add nsw i64 {place}, {first}")
                        self.add_product(self.part_from(goal, at, (size,)), _from(x, first, size), number)
            inside = length - count + 1
            shifted = [_from(x, count - 1 - t, inside) for t in range(count)]
            goal_inside = self.part_from(goal, places[-1], (inside,))

            def element(reader: Reader, index: Any) -> Any:
                total = reader.load_from(goal_inside, index)
                for part, number in zip(shifted, numbers, strict=True):
                    factors = total, reader.load_from(part, index), reader.load_from(number, ())
                    total = reader.apply(lambda e, t, a, b: t + a * b, *factors, dtype=goal.dtype)
                return total

            self.map(goal_inside, element)

        together = min(_TOGETHER, taps)
        whole, rest = divmod(taps, together)
        self.over([whole], lambda at: some(e.index(f"mul nsw i64 {at[0]}, {together}"), together))
        if rest:
            some(str(whole * together), rest)


def _from(x: Buffer, start: int, size: int) -> Buffer:
    """So many elements of an array of one axis, from a position on."""
    return Buffer(x.pointer, (size,), x.dtype, x.strides, x.offset + start * x.strides[0])
