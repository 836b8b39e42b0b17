"""Long loop nests in several threads: the outermost loop in pieces, each a call of a function of its own.

The function gets a context: the kernel's pointers, where partial results go, and the registers that it reads. Partial
results are combined in order when all pieces are done, so they do not depend on the number of threads.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NamedTuple

from functrace.backend import symbols
from functrace.backend.compiler.emit import Value
from functrace.backend.compiler.loops import outermost_loop
from functrace.backend.compiler.nest import emit_nest
from functrace.backend.compiler.sinks import ReduceSink, ScanSink, Sink, needed_nodes

if TYPE_CHECKING:
    from functrace.backend.compiler.context import Context

__all__ = ["Piece", "emit_long_nest"]

_LONG = 3e5  # nanoseconds of estimated work, from which on waking a thread pays
_OPERATION, _ACCESS = 0.03, 0.25  # nanoseconds an element
_PIECES = 8
_NAME = re.compile(r"%[\w.]+")
_GIVEN = ("%arg", "%sym", "%buf", "%arena")


class Piece(NamedTuple):
    """A function `void name(ptr context, i64 lower, i64 upper)`.

    Args:
        name: without the sign.
        registers: values of the kernel that it reads, in the order of the context.
        lines: its body.
    """

    name: str
    registers: list[Value]
    lines: list[str]

    def text(self, pointers: list[str]) -> list[str]:
        """The function. `pointers`: the lines that load the kernel's pointers from %pointers."""
        head = [f"define internal void @{self.name}(ptr %context, i64 %lower, i64 %upper) #0 {{", "entry:"]
        head.append("  %pointers = load ptr, ptr %context")
        head += ["  %partial.at = getelementptr i64, ptr %context, i64 1", "  %partial = load ptr, ptr %partial.at"]
        for k, value in enumerate(self.registers):
            head.append(f"  {value.name}.at = getelementptr i64, ptr %context, i64 {2 + k}")
            head.append(f"  {value.name} = load {value.type}, ptr {value.name}.at")
        return [*head, *pointers, *self.lines, "  ret void", "}"]


def emit_long_nest(context: Context, extents: tuple[int, ...], sinks: list[Sink]) -> bool:
    """Emits a nest in pieces if it is long enough and can be cut; whether it has."""
    if context.nesting > 1 or not _is_long(extents, sinks) or not symbols.available("pool:run"):
        return False
    e = context.e
    loop = outermost_loop(e.target, extents, sinks)
    if loop is None:
        return False
    extent, step = loop
    grain = -(-extent // (_PIECES * step)) * step
    count = -(-extent // grain)
    lines, block, guards = e.lines, e.block, e.guards
    e.lines, e.block = [], "entry"
    try:
        emit_nest(e, extents, sinks, ("%lower", "%upper"))
        totals = [s for s in sinks if isinstance(s, ReduceSink) and s.pointer is None]
        _store_partials(context, totals, grain)
        body, guarded = e.lines, e.guards and not guards
    finally:
        e.lines, e.block = lines, block
    registers = _registers(sinks, body)
    if count < 2 or guarded or registers is None or any("%guard" in line for line in body):
        e.guards = guards
        return False
    piece = Piece(f"piece{len(context.pieces)}", registers, body)
    context.pieces.append(piece)
    _call(context, piece, totals, extent, grain, count)
    return True


def _is_long(extents: tuple[int, ...], sinks: list[Sink]) -> bool:
    if any(isinstance(sink, ScanSink) or sink.node.dtype.kind == "c" for sink in sinks):
        return False
    nodes = needed_nodes([sink.node for sink in sinks])
    operations = sum(n.weight for n in nodes if n.kind == "apply")
    accesses = sum(n.kind == "load" for n in nodes) + len(sinks)
    return math.prod(extents) * (_OPERATION * operations + _ACCESS * accesses) > _LONG


def _store_partials(context: Context, totals: list[ReduceSink], grain: int) -> None:
    e = context.e
    for k, sink in enumerate(totals):
        assert sink.result is not None
        number = e.index(f"udiv i64 %lower, {grain}")
        place = e.index(f"add i64 {number}, {k * _PIECES}")
        e.store(sink.result, e.pointer(f"getelementptr i64, ptr %partial, i64 {place}"))


def _registers(sinks: list[Sink], body: list[str]) -> list[Value] | None:
    """The kernel's registers that a body reads; None if it reads something that cannot be handed over."""
    known: dict[str, Value] = {}
    for node in needed_nodes([sink.node for sink in sinks]):
        if node.kind == "scalar":
            small, position = node.data
            known[small.values[position].name] = small.values[position]
    defined = {"%lower", "%upper", "%partial", "%context", "%entry"}
    used: dict[str, None] = {}
    for line in body:
        if line.endswith(":"):
            defined.add(f"%{line[:-1]}")
            continue
        target, equals, rest = line.partition(" = ")
        if equals:
            defined.add(target.strip())
        used.update(dict.fromkeys(_NAME.findall(rest if equals else line)))
    free = [name for name in used if name not in defined and not name.startswith(_GIVEN)]
    return [known[name] for name in free] if all(name in known for name in free) else None


def _call(context: Context, piece: Piece, totals: list[ReduceSink], extent: int, grain: int, count: int) -> None:
    e = context.e
    handed, partial = e.fresh("context"), e.fresh("partial")
    context.prologue.append(f"  {handed} = alloca [{2 + len(piece.registers)} x i64]")
    context.prologue.append(f"  {partial} = alloca [{max(len(totals), 1) * _PIECES} x i64]")
    e.line(f"store ptr %pointers, ptr {handed}")
    e.line(f"store ptr {partial}, ptr {e.pointer(f'getelementptr i64, ptr {handed}, i64 1')}")
    for k, value in enumerate(piece.registers):
        e.line(f"store {value.type} {value.name}, ptr {e.pointer(f'getelementptr i64, ptr {handed}, i64 {2 + k}')}")
    e.line(f"call void {e.symbol('pool:run')}(ptr @{piece.name}, ptr {handed}, i64 {extent}, i64 {grain})")
    for k, sink in enumerate(totals):
        parts = [
            e.load(e.pointer(f"getelementptr i64, ptr {partial}, i64 {k * _PIECES + p}"), sink.node.dtype)
            for p in range(count)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = e.combine(sink.combine, total, part)
        sink.result = total
