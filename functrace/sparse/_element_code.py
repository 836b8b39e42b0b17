"""Machine code for assembly: strided additions for runs, sums for what goes to one place, loops for tables.

Arrays that share a table go together: one element of each, then the next. Their additions do not wait for each other
as those of one array do whose elements go to a few places over and over.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from functrace.backend.compiler.context import Context, add_array, copy_array, fill_array
from functrace.backend.compiler.emit import INDEX, Value
from functrace.backend.compiler.nest import emit_nest
from functrace.backend.compiler.nodes import Reader
from functrace.backend.compiler.places import Buffer
from functrace.backend.compiler.sinks import ReduceSink

if TYPE_CHECKING:
    from functrace.sparse._element_assembly import Assembly, Loose, Run

__all__ = ["AssemblyInParts", "emit_assembly"]

_TOGETHER = 16  # arrays that share a loop


def emit_assembly(context: Context, operands: Sequence[Any], outputs: Sequence[Any], *, plan: Assembly) -> None:
    """Code of the primitive `assemble`."""
    out = context.materialise(outputs[0])
    arrays = [context.contiguous(context.materialise(o)) for o in operands[: len(plan.counts)]]
    tables = [context.materialise(table) for table in operands[len(plan.counts) :]]
    _clear(context, out, plan.cleared)
    for run in plan.runs:
        _run(context, arrays[run.array], out, run)
    for k, place in plan.totals:
        _total(context, arrays[k], plan.counts[k], out, place)
    for group in _groups(plan, range(len(plan.counts))):
        _scatter(context, arrays, tables[group[0].table], group, plan, out)


class AssemblyInParts:
    """The same with arrays that are computed part by part, between two of which their parts are taken in."""

    def __init__(self, *, plan: Assembly) -> None:
        self.plan = plan

    @property
    def pays(self) -> bool:
        """Whether most arrays go by table: runs are quicker in loops of their own."""
        return 2 * len(self.plan.loose) > len(self.plan.counts)

    def start(self, context: Context, operands: Sequence[Any], outputs: Sequence[Any], members: Sequence[int]) -> None:
        """Clears what is added to, and takes in the operands that are no members: in their order, so that runs add."""
        plan, out = self.plan, context.materialise(outputs[0])
        _clear(context, out, plan.cleared if plan.clears else [(0, plan.size)])
        others = set(range(len(plan.counts))).difference(members)
        arrays = {k: context.contiguous(context.materialise(operands[k])) for k in others}
        for run in plan.runs:
            if run.array in others:
                _run(context, arrays[run.array], out, run._replace(assigns=False))
        for k, place in plan.totals:
            if k in others:
                _total(context, arrays[k], plan.counts[k], out, place)
        for group in _groups(plan, others):
            _scatter(context, arrays, self._table(context, operands, group), group, plan, out)

    def part(
        self,
        context: Context,
        operands: Sequence[Any],
        outputs: Sequence[Any],
        members: Sequence[int],
        lower: str,
        upper: str,
    ) -> None:
        """Takes in the elements from `lower` to `upper`, registers, of some operands, arrays of equal length."""
        plan, out, among = self.plan, context.materialise(outputs[0]), set(members)
        for run in plan.runs:
            if run.array in among:
                _run_part(context, operands[run.array], out, run, lower, upper)
        for k, place in plan.totals:
            if k in among:
                _total(context, operands[k], plan.counts[k], out, place, (lower, upper))
        for group in _groups(plan, among):
            _scatter(context, operands, self._table(context, operands, group), group, plan, out, (lower, upper))

    def _table(self, context: Context, operands: Sequence[Any], group: Sequence[Loose]) -> Buffer:
        return context.materialise(operands[len(self.plan.counts) + group[0].table])


def _clear(context: Context, out: Buffer, ranges: Sequence[tuple[int, int]]) -> None:
    for start, stop in ranges:
        fill_array(context.e, _part(out, slice(start, stop)), 0)


def _groups(plan: Assembly, among: Container[int]) -> Iterator[list[Loose]]:
    """Those of some arrays that share a table, not too many at a time."""
    for number in range(len(plan.tables())):
        members = [entry for entry in plan.loose if entry.table == number and entry.array in among]
        for start in range(0, len(members), _TOGETHER):
            yield members[start : start + _TOGETHER]


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


def _run_part(context: Context, array: Buffer, out: Buffer, run: Run, lower: str, upper: str) -> None:
    """Adds those elements of a run that are in a part, one after the other."""
    e = context.e
    first, period, step = run.elements.start, run.elements.step or 1, run.places.step or 1
    count = len(range(first, run.elements.stop, period))

    def steps(bound: str) -> str:
        """The number of the run's elements before a bound."""
        above = e.index(f"add i64 {bound}, {period - 1 - first}")
        inside = e.index(f"call i64 @llvm.smax.i64(i64 {above}, i64 0)")
        return e.index(f"call i64 @llvm.smin.i64(i64 {e.index(f'udiv i64 {inside}, {period}')}, i64 {count})")

    for name in ("smax", "smin"):
        e.declare(f"i64 @llvm.{name}.i64(i64, i64)")

    def body(k: str) -> None:
        place = e.index(f"add i64 {e.index(f'mul i64 {k}, {step}')}, {run.places.start}")
        element = e.index(f"add i64 {e.index(f'mul i64 {k}, {period}')}, {first}")
        at = e.offset(out.start(e), place, out.dtype)
        value = e.load(e.offset(array.start(e), element, array.dtype) if array.shape else array.start(e), array.dtype)
        e.store(e.load(at, out.dtype) + value, at)

    _loop(context, steps(lower), steps(upper), body)


def _loop(context: Context, lower: str, upper: str, body: Any) -> None:
    """body(i) for lower <= i < upper; for no i at all if there is none."""
    e = context.e
    head, end, before = e.new_label("each"), e.new_label("end"), e.block
    enters = e.index(f"icmp slt i64 {lower}, {upper}")
    e.line(f"br i1 {enters}, label %{head}, label %{end}")
    e.label(head)
    at = len(e.lines)
    i = f"%{head}.i"
    body(i)
    e.lines.insert(at, f"  {i} = phi i64 [{lower}, %{before}], [{i}.next, %{e.block}]")
    e.line(f"{i}.next = add nuw nsw i64 {i}, 1")
    more = e.index(f"icmp slt i64 {i}.next, {upper}")
    e.line(f"br i1 {more}, label %{head}, label %{end}")
    e.label(end)


def _add_to(context: Context, out: Buffer, place: int, value: Value) -> None:
    e = context.e
    pointer = e.offset(out.pointer, out.offset + place, out.dtype)
    e.store(e.load(pointer, out.dtype) + value, pointer)


def _total(
    context: Context, array: Buffer, count: int, out: Buffer, place: int, part: tuple[str, str] | None = None
) -> None:
    """Adds the sum of an array, or of a part of it."""
    e = context.e
    if not array.shape:
        number: Any = float(count)
        if part is not None:
            number = e.convert(Value(e, e.index(f"sub i64 {part[1]}, {part[0]}"), INDEX), array.dtype)
        _add_to(context, out, place, e.load(array.start(e), array.dtype) * number)
        return
    reader = Reader((count,), lambda var, index: None, lambda var, in_memory: array)
    sink = ReduceSink(reader.load_from(array, (reader.variable(0),)), "add", 0, None, None)
    emit_nest(e, (count,), [sink], part)
    assert sink.result is not None
    _add_to(context, out, place, sink.result)


def _scatter(
    context: Context,
    arrays: Any,
    table: Buffer,
    group: Sequence[Loose],
    plan: Assembly,
    out: Buffer,
    part: tuple[str, str] | None = None,
) -> None:
    """out[table[i] + offset] += array[i] for the arrays of a group, one i after the other."""
    e = context.e
    numbers = {k: e.load(arrays[k].start(e), arrays[k].dtype) for k, _, _ in group if not arrays[k].shape}

    def body(i: str) -> None:
        place = e.convert(e.load(e.offset(table.start(e), i, table.dtype), table.dtype), INDEX).name
        base = e.offset(out.start(e), place, out.dtype)
        for k, _, offset in group:
            at = e.offset(base, offset, out.dtype)
            value = numbers.get(k)
            if value is None:
                value = e.load(e.offset(arrays[k].start(e), i, arrays[k].dtype), arrays[k].dtype)
            e.store(value if k in plan.alone else e.load(at, out.dtype) + value, at)

    lower, upper = part or ("0", str(plan.counts[group[0].array]))
    _loop(context, lower, upper, body)
