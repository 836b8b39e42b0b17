"""Code of what is computed in registers: in place if it is short, else in functions of a few hundred operations each.

The time that machine code takes to make grows faster than the function it is made for, so a long straight line is cut.
If it is very long, its code is made the quick way, which is a tenth of the work and costs a third of the speed. A value
that is made in one function and used in another goes through a slot of the workspace: it is written where the first
ends and read where the other needs it first. The function that the others are called from is called the main one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from functrace.backend.compiler.emit import Value
from functrace.backend.compiler.nodes import Node
from functrace.backend.compiler.places import Buffer

if TYPE_CHECKING:
    from functrace.backend.compiler.context import Context

__all__ = ["CHUNK", "LONG", "VERY_LONG", "Chunk", "Registers"]

CHUNK = 250  # operations of one function
LONG = 2000  # operations, from which on a straight line is cut
VERY_LONG = 2000  # operations, from which on its code is made the quick way
_PAGE = 512  # slots that are reserved together
_SYMBOL = re.compile(r"%sym(\d+)\b")
_POINTER = 8  # bytes of an address


class Chunk:
    """A function that computes a part of a straight line."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: list[str] = []
        #: The operations that are made here.
        self.count = 0
        #: Values of the main function that are read here from their slots.
        self.borrowed: dict[Node, Value] = {}
        #: Its own copies of the main function's pointers.
        self.pointers: dict[str, str] = {}

    def text(self, symbols: int, attributes: str) -> list[str]:
        """The function, which finds `symbols` pointers in the module's table."""
        head = [f"define internal void @{self.name}(ptr %arena, ptr %guard) {attributes} {{", "entry:"]
        places = sorted({int(k) for k in _SYMBOL.findall("\n".join(self.lines))})
        for place in places:
            at = f"getelementptr ([{symbols} x ptr], ptr @table, i64 0, i64 {place})"
            head.append(f"  %sym{place} = load ptr, ptr {at}")
        return [*head, *self.lines, "  ret void", "}"]


class Registers:
    """Makes the values of nodes outside loops, of one program."""

    def __init__(self, context: Context) -> None:
        self.context, self.e = context, context.e
        self._chunk: Chunk | None = None
        self._main_lines: list[str] = []
        self._slots: dict[Node | str, int] = {}
        self._free = range(0)

    def value(self, node: Node) -> Value:
        """The value of a node, with all it depends on, where the code is now."""
        if node.made is None:
            for arg in node.args:
                if arg.made is None:
                    if arg.args or arg.kind == "apply":
                        break
                    self._make(arg)
                elif arg.home is not self._chunk:
                    self._ready(arg)
            else:
                return self._make(node)
        stack = [] if self._ready(node) else [node]
        while stack:
            top = stack[-1]
            if self._ready(top):
                stack.pop()
                continue
            missing = [arg for arg in top.args if not self._ready(arg)]
            if missing:
                stack += reversed(missing)
                continue
            self._make(top)
            stack.pop()
        assert node.made is not None
        return node.made

    def in_chunks(self, arrays: Sequence[tuple[Sequence[Node], Buffer | None]]) -> None:
        """Makes the elements of many arrays in functions of their own, and calls these.

        Args:
            arrays: the nodes of each array's elements, and where it is written to besides.
        """
        chunk = None
        for nodes, buffer in arrays:
            if chunk is None:
                chunk = self._open()
            for node in nodes:
                self.value(node)
            if buffer is not None:
                pointer = self._pointer(buffer.pointer)
                for k, node in enumerate(nodes):
                    self.e.store(self.value(node), self.e.offset(pointer, buffer.offset + k, buffer.dtype))
            if chunk.count >= CHUNK:
                self._close(chunk)
                chunk = None
        if chunk is not None:
            self._close(chunk)

    def _open(self) -> Chunk:
        if not self.context.workspace:  # so that there is an arena to pass on
            self.context.reserve(8)
        chunk = Chunk(self.e.new_label("chunk"))
        self._main_lines, self.e.lines = self.e.lines, chunk.lines
        self._main_block, self.e.block = self.e.block, "entry"
        self._chunk = chunk
        return chunk

    def _close(self, chunk: Chunk) -> None:
        self.e.lines, self.e.block, self._chunk = self._main_lines, self._main_block, None
        self.e.line(f"call void @{chunk.name}(ptr %arena, ptr %guard)")
        self.context.chunks.append(chunk)
        for node, value in chunk.borrowed.items():
            node.made, node.home = value, None

    def _ready(self, node: Node) -> bool:
        """Whether a node's value can be used where the code is now; one made elsewhere is read from its slot."""
        value, home, chunk = node.made, node.home, self._chunk
        if value is None:
            return False
        if home is chunk or value.constant is not None:
            return True
        offset = self._slot_of(node, value, self._main_lines if home is None else home.lines)
        if home is None:
            assert chunk is not None
            chunk.borrowed[node] = value
        node.made, node.home = self._read(offset, node.dtype), chunk
        return True

    # slots

    def _slot(self, size: int) -> int:
        if len(self._free) < size:
            start = self.context.reserve(8 * _PAGE)
            self._free = range(start, start + 8 * _PAGE, 8)
        offset, self._free = self._free[0], self._free[size:]
        return offset

    def _slot_of(self, node: Node, value: Value, lines: list[str]) -> int:
        """Where a value lies in the workspace; the function that made it, whose lines these are, writes it there."""
        offset = self._slots.get(node)
        if offset is None:
            offset = self._slots[node] = self._slot(-(-node.dtype.itemsize // 8))
            current, self.e.lines = self.e.lines, lines
            self.e.store(value, self._at(offset))
            self.e.lines = current
        return offset

    def _at(self, offset: int) -> str:
        return self.e.pointer(f"getelementptr i8, ptr %arena, i64 {offset}")

    def _read(self, offset: int, dtype: np.dtype) -> Value:
        return self.e.load(self._at(offset), dtype)

    def _pointer(self, name: str) -> str:
        """A pointer of the main function, where the code is now."""
        chunk = self._chunk
        if chunk is None or not name.startswith("%") or _SYMBOL.fullmatch(name):
            return name
        found = chunk.pointers.get(name)
        if found is None:
            offset = self._slots.get(name)
            if offset is None:
                offset = self._slots[name] = self._slot(1)
                current, self.e.lines = self.e.lines, self._main_lines
                self.e.line(f"store ptr {name}, ptr {self._at(offset)}, align {_POINTER}")
                self.e.lines = current
            found = self.e.pointer(f"load ptr, ptr {self._at(offset)}, align {_POINTER}")
            chunk.pointers[name] = found
        return found

    # values

    def _make(self, node: Node) -> Value:
        """Makes the value of a node whose arguments can be used where the code is now."""
        chunk, form = self._chunk, node.form
        if chunk is not None:
            chunk.count += 1
        if form is not None and form.text is not None:
            e, args = self.e, node.args
            e.count = number = e.count + 1
            if len(args) == 2:
                e.lines.append(form.text(number, args[0].made.name, args[1].made.name))  # type: ignore[union-attr]
            else:
                e.lines.append(form.text(number, *[arg.made.name for arg in args]))  # type: ignore[union-attr]
            value = Value(e, f"%v{number}", form.dtype)  # type: ignore[arg-type]
        else:
            value = self._computed(node)
        node.made, node.home = value, chunk
        return value

    def _computed(self, node: Node) -> Value:
        e = self.e
        if node.kind == "apply":
            code, params = node.data
            args: list[Any] = [arg.made for arg in node.args]
            if node.form is not None:
                node.form.learn(e, code, args)
            return code(e, *args, **params)
        if node.kind == "constant":
            return e.constant(node.data, node.dtype)
        if node.kind == "scalar":
            return self._scalar(node)
        assert node.kind == "load", node.kind
        pointer, address, strides = node.data
        at = e.offset(self._pointer(pointer), address.constant, node.dtype)
        for arg, stride in zip(node.args, strides, strict=True):
            assert arg.made is not None
            at = e.offset(at, (arg.made * stride).name, node.dtype)
        return e.load(at, node.dtype)

    def _scalar(self, node: Node) -> Value:
        """A register of the main function."""
        place, position = node.data
        value: Value = place.values[position]
        if self._chunk is None or value.constant is not None:
            return value
        return self._read(self._slot_of(node, value, self._main_lines), node.dtype)
