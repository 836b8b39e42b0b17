"""Code for one box of a loop nest: stores and reductions of nodes, the innermost axis in vectors.

Each node is computed in the outermost loop it depends on. The innermost loop takes several numbers at a time; its last
step, if there is a rest, is masked. A reduction runs in registers as long as all deeper axes are reduced, and else
through memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.backend.compiler.affine import Affine
from functrace.backend.compiler.emit import BOOL, INDEX, Emitter, Value, neutral
from functrace.backend.compiler.loops import Loops
from functrace.backend.compiler.nodes import Node
from functrace.backend.compiler.sinks import ReduceSink, ScanSink, Sink, StoreSink, nodes_of

__all__ = ["emit_nest"]

_ONE_BY_ONE = 16  # numbers that lie apart, up to which they are loaded one by one: faster than by the one instruction


def emit_nest(e: Emitter, extents: tuple[int, ...], sinks: list[Sink], part: tuple[str, str] | None = None) -> None:
    """Emits the loops over a box; extents are positive.

    Args:
        part: the first step of the outermost loop and the one after its last, as registers; else all of it.
    """
    _Nest(e, extents, sinks, part).emit()


class _Nest:
    def __init__(self, e: Emitter, extents: tuple[int, ...], sinks: list[Sink], part: tuple[str, str] | None) -> None:
        self.part = part
        self.e, self.sinks = e, sinks
        self.loops = loops = Loops(e.target, extents, sinks)
        self.nodes, self.extents, self.level, self.lanes = loops.nodes, loops.extents, loops.level, loops.lanes
        self.places, self.depth, self.inner = loops.places, loops.depth, loops.inner
        self.variables: list[str] = []
        self.pointers: dict[Any, str] = {}
        self.mask: str | None = None
        self.inside: int | None = None
        self.widened = self._values_to_widen()

    def _values_to_widen(self) -> set[Node]:
        """Values of outer levels that the innermost loop wants in every lane."""
        if self.lanes == 1:
            return set()
        users = [arg for n in self.nodes if self.level[n] == self.inner and n.kind == "apply" for arg in n.args]
        users += [node for sink in self.sinks for node in nodes_of(sink)]
        return {n for n in users if self.level[n] < self.inner}

    # emission

    def emit(self) -> None:
        self._values(-1)
        finished = (
            self._loop(0, {})
            if self.depth
            else {i: sink.node.made for i, sink in enumerate(self.sinks) if isinstance(sink, ReduceSink)}
        )
        if self.depth == 0:
            self._sinks_of_point()
        for i, value in finished.items():
            self._finish(i, value)

    def _sinks_of_point(self) -> None:
        for sink in self.sinks:
            if isinstance(sink, StoreSink):
                assert sink.node.made is not None
                self.e.store(sink.node.made, self._pointer(sink.pointer, sink.node.dtype, sink.address))

    def _starts(self, sink: ReduceSink) -> int:
        """The level of the outermost loop that the accumulator runs through."""
        kept = [k for k, axis in enumerate(self.places) if sink.kept >> axis & 1]
        return max(kept, default=-1) + 1

    def _loop(self, k: int, outer: dict[int, Value]) -> dict[int, Value]:
        """Loop k and all in it. `outer`: the accumulators so far, by sink. Gives those after the loop."""
        if k == self.inner:
            return self._inner_loop(outer)
        e, head, before = self.e, self.e.new_label("loop"), self.e.block
        variable = f"%{head}.i"
        entering = outer | self._started(k)
        e.line(f"br label %{head}")
        e.label(head)
        at = len(e.lines)
        phis = {i: e.blank(v.dtype, v.lanes, f"%{head}.a{i}") for i, v in entering.items()}
        self.variables.append(variable)
        self._values(k)
        leaving = self._loop(k + 1, phis)
        for i in [i for i in leaving if i not in entering]:
            self._finish(i, leaving.pop(i))
        self.variables.pop()
        self._close(head, before, at, entering, leaving, 1, k, self.extents[k])
        return leaving

    def _started(self, k: int) -> dict[int, Value]:
        """Accumulators that start outside loop k."""
        started = {}
        for i, s in enumerate(self.sinks):
            if isinstance(s, ReduceSink) and self._starts(s) == k:
                started[i] = self.e.constant(neutral(s.combine, s.node.dtype), s.node.dtype, self.lanes)
            elif isinstance(s, ScanSink) and k == self.inner:
                started[i] = self._before(s)
        return started

    def _before(self, sink: ScanSink) -> Value:
        """What a cumulative operation goes on from."""
        dtype = sink.node.dtype
        if sink.before is None:
            return self.e.constant(sink.start, dtype)
        return self.e.load(self._pointer(sink.pointer, dtype, sink.before), dtype)

    def _run(self, sink: ScanSink, before: Value) -> tuple[Value, Value]:
        """A vector of steps of a cumulative operation, and the last of them."""
        e, lanes = self.e, self.lanes
        values = [self._vector(node) for node in sink.nodes]
        if lanes == 1:
            last = sink.step(e, before, *values)
            return last, last
        if sink.start is None:
            steps = []
            for k in range(lanes):
                before = sink.step(e, before, *[e.lane(v, k) for v in values])
                steps.append(before)
            return e.vector(steps), before
        (total,) = values
        neutral_value = e.constant(sink.start, total.dtype, lanes)
        reach = 1
        while reach < lanes:
            total = sink.step(e, e.shifted(neutral_value, total, reach), total)
            reach *= 2
        total = sink.step(e, e.widened(before, lanes), total)
        return total, e.lane(total, lanes - 1)

    def _close(
        self,
        head: str,
        before: str,
        at: int,
        entering: dict[int, Value],
        leaving: dict[int, Value],
        step: int,
        k: int,
        extent: int,
    ) -> None:
        """The end of loop k, and its phis, which are only now known."""
        e = self.e
        first, last = self.part if self.part and k == 0 else ("0", str(extent))
        phis = [f"  %{head}.i = phi i64 [{first}, %{before}], [%{head}.n, %{e.block}]"]
        for i, v in entering.items():
            goal = e.blank(v.dtype, v.lanes, f"%{head}.a{i}")
            phis += e.phi(goal, [(v, before), (leaving[i], e.block)])
        e.lines[at:at] = phis
        e.line(f"%{head}.n = add nuw nsw i64 %{head}.i, {step}")
        more = e.index(f"icmp slt i64 %{head}.n, {last}")
        end = e.new_label("end")
        e.line(f"br i1 {more}, label %{head}, label %{end}")
        e.label(end)

    def _inner_loop(self, outer: dict[int, Value]) -> dict[int, Value]:
        """The innermost loop: whole vectors, and a rest: in a body of its own where that is short, else by masks."""
        e, extent, lanes = self.e, self.extents[-1], self.lanes
        entering = outer | self._started(self.inner)
        rest = extent % lanes
        apart = rest > 0 and (extent < lanes or (self.loops.short and not (self.part and self.inner == 0)))
        whole = extent - rest if apart else extent
        leaving = entering
        if whole == lanes:
            leaving = self._step("0", leaving, lanes)
        elif whole:
            head, before = e.new_label("loop"), e.block
            e.line(f"br label %{head}")
            e.label(head)
            at = len(e.lines)
            phis = {i: e.blank(v.dtype, v.lanes, f"%{head}.a{i}") for i, v in entering.items()}
            masked = None if whole % lanes == 0 else self._rest_mask(f"%{head}.i", extent)
            leaving = self._step(f"%{head}.i", phis, None if masked else lanes, masked)
            self._close(head, before, at, entering, leaving, lanes, self.inner, whole)
        if apart:
            flags = ", ".join(f"i1 {'true' if k < rest else 'false'}" for k in range(lanes))
            leaving = self._step(str(whole), leaving, rest, f"<{flags}>")
        return leaving

    def _step(
        self, variable: str, accumulators: dict[int, Value], inside: int | None, mask: str | None = None
    ) -> dict[int, Value]:
        """A step of the innermost loop.

        Args:
            inside: how many lanes are inside; None if that is only known in each step.
            mask: which are, if not all.
        """
        self.variables.append(variable)
        self.mask, self.inside = mask, inside
        leaving = self._body(accumulators)
        self.mask = self.inside = None
        self.variables.pop()
        return leaving

    def _rest_mask(self, variable: str, extent: int) -> str:
        """Which lanes are inside the extent."""
        e, lanes = self.e, self.lanes
        left = Value(e, e.index(f"sub i64 {extent}, {variable}"), INDEX)
        return (e.widened(left, lanes) > self._steps(lanes)).name

    def _steps(self, lanes: int) -> Value:
        """0, 1, 2 ..."""
        return Value(self.e, f"<{', '.join(f'i64 {k}' for k in range(lanes))}>", INDEX, lanes)

    def _body(self, accumulators: dict[int, Value]) -> dict[int, Value]:
        """The innermost body: values, stores, and the accumulators after it."""
        e = self.e
        self._values(self.inner)
        leaving = dict(accumulators)
        for i, sink in enumerate(self.sinks):
            value = self._vector(sink.node)
            if isinstance(sink, StoreSink):
                self._store(value, sink.pointer, sink.address)
            elif isinstance(sink, ScanSink):
                value, leaving[i] = self._run(sink, accumulators[i])
                self._store(value, sink.pointer, sink.address)
            elif i in accumulators:
                if self.mask is not None:
                    rest = e.constant(neutral(sink.combine, value.dtype), value.dtype, value.lanes)
                    value = e.select(Value(e, self.mask, BOOL, value.lanes), value, rest)
                leaving[i] = e.combine(sink.combine, accumulators[i], value)
            else:
                assert sink.pointer is not None and sink.address is not None
                if sink.combine_memory:
                    before = self._load(sink.pointer, sink.address, value.dtype)
                    value = e.combine(sink.combine, before, value)
                self._store(value, sink.pointer, sink.address)
        return leaving

    def _finish(self, i: int, value: Value | None) -> None:
        """A reduction in registers is over: its result goes to memory, or to the sink."""
        sink = self.sinks[i]
        if isinstance(sink, ScanSink):
            return
        assert isinstance(sink, ReduceSink) and value is not None
        e = self.e
        value = e.horizontal(sink.combine, value)
        if sink.pointer is None:
            sink.result = value
            return
        assert sink.address is not None
        pointer = self._pointer(sink.pointer, value.dtype, sink.address)
        if sink.combine_memory:
            value = e.combine(sink.combine, e.load(pointer, value.dtype), value)
        e.store(value, pointer)

    # values

    def _values(self, level: int) -> None:
        """All nodes of one level."""
        lanes = self.lanes if level == self.inner and level >= 0 else 1
        for node in self.nodes:
            if self.level[node] == level:
                node.made = self._make(node, lanes)
                if node in self.widened:
                    node.vectors = {**(node.vectors or {}), self.lanes: self.e.widened(node.made, self.lanes)}

    def _vector(self, node: Node) -> Value:
        assert node.made is not None
        if node.made.lanes == self.lanes:
            return node.made
        found = None if node.vectors is None else node.vectors.get(self.lanes)
        return found or self.e.widened(node.made, self.lanes)

    def _make(self, node: Node, lanes: int) -> Value:
        e = self.e
        if node.kind == "constant":
            return e.constant(node.data, node.dtype)
        if node.kind == "scalar":
            small, position = node.data
            return small.values[position]
        if node.kind == "index":
            return self._index(node.data, lanes)
        if node.kind == "load":
            return self._load_node(node, lanes)
        code, params = node.data
        args = [self._vector(arg) if lanes > 1 else arg.made for arg in node.args]
        return code(e, *args, **params)

    def _index(self, index: Affine, lanes: int) -> Value:
        """An index as integers."""
        e, coefficients = self.e, self.loops.coefficients(index)
        scalar = Value(e, self._linear(index, len(self.variables)), INDEX)
        if lanes == 1:
            return scalar
        return e.widened(scalar, lanes) + self._steps(lanes) * coefficients[-1]

    def _linear(self, address: Affine, count: int) -> str:
        """The address as an integer, from the first `count` loop variables."""
        e, total = self.e, str(address.constant)
        for c, variable in zip(self.loops.coefficients(address)[:count], self.variables, strict=False):
            if c and variable != "0":
                term = variable if c == 1 else e.index(f"mul nsw i64 {variable}, {c}")
                total = term if total == "0" else e.index(f"add nsw i64 {total}, {term}")
        return total

    def _pointer(self, pointer: str, dtype: np.dtype, address: Affine) -> str:
        """The address of an element, from the current loop variables."""
        return self.e.offset(pointer, self._linear(address, len(self.variables)), dtype)

    def _load_node(self, node: Node, lanes: int) -> Value:
        pointer, address, strides = node.data
        if not node.args:
            if lanes == 1:
                return self.e.load(self._pointer(pointer, node.dtype, address), node.dtype)
            return self._load(pointer, address, node.dtype)
        return self._gathered(node, pointer, address, strides, lanes)

    def _load(self, pointer: str, address: Affine, dtype: np.dtype) -> Value:
        """A vector along the innermost axis."""
        e, stride = self.e, self.loops.coefficients(address)[-1]
        place = self._pointer(pointer, dtype, address)
        if stride == 1 or self.lanes == 1:
            return e.load(place, dtype, self.lanes, self.mask)
        if stride == 0:
            return e.widened(e.load(place, dtype), self.lanes)
        if stride == -1:
            return e.reversed(e.load(e.offset(place, 1 - self.lanes, dtype), dtype, self.lanes, self._mask_reversed()))
        if self.inside is not None and self.inside <= _ONE_BY_ONE and dtype.kind in "fiu":
            numbers = [e.load(e.offset(place, k * stride, dtype), dtype) for k in range(self.inside)]
            return e.vector(numbers + [e.constant(0, dtype)] * (self.lanes - self.inside))
        return e.gather(self._strided(place, stride, dtype), dtype, self.lanes, self.mask)

    def _store(self, value: Value, pointer: str, address: Affine) -> None:
        e, stride = self.e, self.loops.coefficients(address)[-1]
        place = self._pointer(pointer, value.dtype, address)
        if stride == 1 or value.lanes == 1:
            e.store(value, place, self.mask)
        elif stride == -1:
            e.store(e.reversed(value), e.offset(place, 1 - self.lanes, value.dtype), self._mask_reversed())
        else:
            e.scatter(value, self._strided(place, stride, value.dtype), self.mask)

    def _mask_reversed(self) -> str | None:
        return None if self.mask is None else self.e.reversed(Value(self.e, self.mask, BOOL, self.lanes)).name

    def _strided(self, place: str, stride: int, dtype: np.dtype) -> str:
        """The addresses of every stride-th element."""
        e = self.e
        kind = "i8" if dtype.kind == "b" else Value(e, "", dtype).type
        steps = f"<{', '.join(f'i64 {k * stride}' for k in range(self.lanes))}>"
        return e.pointer(f"getelementptr {kind}, ptr {place}, <{self.lanes} x i64> {steps}")

    def _gathered(self, node: Node, pointer: str, address: Affine, strides: tuple[int, ...], lanes: int) -> Value:
        """An element at indices that are values themselves."""
        e = self.e
        place = self._pointer(pointer, node.dtype, address)
        stride = self.loops.coefficients(address)[-1] if self.depth else 0
        if lanes == 1 or all(arg.made is not None and arg.made.lanes == 1 for arg in node.args):
            for arg, step in zip(node.args, strides, strict=True):
                assert arg.made is not None
                place = e.offset(place, (arg.made * step).name, node.dtype)
            if lanes == 1:
                return e.load(place, node.dtype)
            if stride == 1:
                return e.load(place, node.dtype, lanes, self.mask)
            return e.gather(self._strided(place, stride, node.dtype), node.dtype, lanes, self.mask)
        offsets = self._steps(lanes) * stride
        for arg, step in zip(node.args, strides, strict=True):
            offsets = offsets + self._vector(arg) * step
        kind = "i8" if node.dtype.kind == "b" else Value(e, "", node.dtype).type
        pointers = e.pointer(f"getelementptr {kind}, ptr {place}, <{lanes} x i64> {offsets.name}")
        return e.gather(pointers, node.dtype, lanes, self.mask)
