"""Machine code for assembly: strided additions for runs, sums for what goes to one place, a loop for tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from functrace.backend.compiler.emit import INDEX, Value
from functrace.backend.compiler.execute import Context, add_array, copy_array, fill_array
from functrace.backend.compiler.nest import ReduceSink, emit_nest
from functrace.backend.compiler.nodes import Reader
from functrace.backend.compiler.places import Buffer

if TYPE_CHECKING:
    from functrace.sparse._element_assembly import Assembly, Run

__all__ = ["emit_assembly"]


def emit_assembly(context: Context, operands: Sequence[Any], outputs: Sequence[Any], *, plan: Assembly) -> None:
    """Code of the primitive `assemble`."""
    out = context.materialise(outputs[0])
    arrays = [context.contiguous(context.materialise(o)) for o in operands[: len(plan.counts)]]
    tables = operands[len(plan.counts) :]
    if plan.clears:
        fill_array(context.e, out, 0)
    for run in plan.runs:
        _run(context, arrays[run.array], out, run)
    for k, place in plan.totals:
        _total(context, arrays[k], plan.counts[k], out, place)
    for k, table in zip(plan.loose, tables, strict=True):
        _scatter(context, arrays[k], context.materialise(table), plan.counts[k], out)


def _part(buffer: Buffer, part: slice) -> Buffer:
    """A slice of an array with one axis, as an array in the same memory."""
    step = part.step or 1
    count = len(range(part.start, part.stop, step))
    stride = buffer.strides[0]
    return Buffer(buffer.pointer, (count,), buffer.dtype, (step * stride,), buffer.offset + part.start * stride)


def _run(context: Context, array: Buffer, out: Buffer, run: Run) -> None:
    goal = _part(out, run.places)
    if array.shape:
        source = _part(array, run.elements)
    else:
        source = Buffer(array.pointer, goal.shape, array.dtype, (0,), array.offset)
    if run.assigns:
        copy_array(context.e, source, goal)
    else:
        add_array(context.e, goal, source)


def _add_to(context: Context, out: Buffer, place: int, value: Value) -> None:
    e = context.e
    pointer = e.offset(out.pointer, out.offset + place, out.dtype)
    e.store(e.load(pointer, out.dtype) + value, pointer)


def _total(context: Context, array: Buffer, count: int, out: Buffer, place: int) -> None:
    e = context.e
    if not array.shape:
        _add_to(context, out, place, e.load(array.start(e), array.dtype) * float(count))
        return
    reader = Reader((count,), lambda var, index: None, lambda var, in_memory: array)
    sink = ReduceSink(reader.load_from(array, (reader.variable(0),)), "add", 0, None, None)
    emit_nest(e, (count,), [sink])
    assert sink.result is not None
    _add_to(context, out, place, sink.result)


def _scatter(context: Context, array: Buffer, table: Buffer, count: int, out: Buffer) -> None:
    """out[table[i]] += array[i], one after the other."""
    e = context.e
    head, before = e.new_label("scatter"), e.block
    i = f"%{head}.i"
    fixed = None if array.shape else e.load(array.start(e), array.dtype)
    e.line(f"br label %{head}")
    e.label(head)
    e.line(f"{i} = phi i64 [0, %{before}], [{i}.next, %{head}]")
    place = e.load(e.offset(table.start(e), i, table.dtype), table.dtype)
    at = e.offset(out.start(e), e.convert(place, INDEX).name, out.dtype)
    value = e.load(e.offset(array.start(e), i, array.dtype), array.dtype) if fixed is None else fixed
    e.store(e.load(at, out.dtype) + value, at)
    e.line(f"{i}.next = add nuw nsw i64 {i}, 1")
    more = e.index(f"icmp slt i64 {i}.next, {count}")
    end = e.new_label("end")
    e.line(f"br i1 {more}, label %{head}, label %{end}")
    e.label(end)
