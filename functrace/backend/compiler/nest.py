"""Code for one box of a loop nest: stores and reductions of nodes, the innermost axis in vectors.

Each node is computed in the outermost loop it depends on. The innermost loop takes several numbers at a time; its last
step, if there is a rest, is masked. A reduction runs in registers as long as all deeper axes are reduced, and else
through memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from functrace.backend.compiler.affine import Affine
from functrace.backend.compiler.emit import BOOL, INDEX, Emitter, Value, neutral
from functrace.backend.compiler.nodes import Node

__all__ = ["ReduceSink", "ScanSink", "StoreSink", "emit_nest"]

_FUNCTION = 20.0  # the weight from which on an operation is a call
_DEPENDENT = 3  # calls that wait for each other, from which on several vectors at a time pay
_GATHERED = 1.5  # what an element that is gathered costs, in vector operations
_LONG = 10  # operations in the loop, from which on several vectors at a time hide each other's latency
_MOST_LANES = 64


@dataclass
class StoreSink:
    """A node's value goes to memory at an address.

    Args:
        apart: axes (bits) that are not run through together with others.
    """

    node: Node
    pointer: str
    address: Affine
    apart: int = 0


@dataclass
class ReduceSink:
    """A node's values are combined over the axes not in `kept` (bits).

    Args:
        pointer: where to; None for a reduction over all axes, whose result stays in a register.
        combine_memory: whether there is something there to combine with.
    """

    node: Node
    combine: str
    kept: int
    pointer: str | None
    address: Affine | None
    combine_memory: bool = False
    result: Value | None = field(default=None)


@dataclass
class ScanSink:
    """A cumulative operation along the innermost axis, its last element in a register.

    Args:
        nodes: the values that a step takes.
        step: `step(e, before, *values)`.
        start: what has no effect as `before`, if the step is associative; else None, and one number follows another.
        before: the address of the element before the first step, if there is one.
        apart: the axis, as a bit.
    """

    nodes: list[Node]
    step: Callable[..., Value]
    start: Any
    pointer: str
    address: Affine
    before: Affine | None
    apart: int

    @property
    def node(self) -> Node:
        return self.nodes[-1]


Sink = StoreSink | ReduceSink | ScanSink


def emit_nest(e: Emitter, extents: tuple[int, ...], sinks: list[Sink], part: tuple[str, str] | None = None) -> None:
    """Emits the loops over a box; extents are positive.

    Args:
        part: the first step of the outermost loop and the one after its last, as registers; else all of it.
    """
    _Nest(e, extents, sinks, part).emit()


def outermost_loop(e: Emitter, extents: tuple[int, ...], sinks: list[Sink]) -> tuple[int, int] | None:
    """The steps of the outermost loop and how many it takes at a time, if parts of it can run in any order."""
    nest = _Nest(e, extents, sinks, None)
    if nest.depth == 0:
        return None
    for sink in sinks:
        if not isinstance(sink, ReduceSink):
            if sink.apart >> nest.places[0] & 1:  # a step of a cumulative operation follows another
                return None
        else:
            outermost_kept = sink.kept >> nest.places[0] & 1
            if not outermost_kept and (sink.pointer is not None or sink.kept):
                return None
    step = nest.lanes if nest.depth == 1 else 1
    return None if nest.extents[0] <= 2 * step else (nest.extents[0], step)


def needed_nodes(results: list[Node]) -> list[Node]:
    """The nodes that some depend on, operands first."""
    order: list[Node] = []
    state: dict[Node, bool] = {}
    stack = [(node, False) for node in reversed(results)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            order.append(node)
        elif node not in state:
            state[node] = True
            stack.append((node, True))
            stack.extend((arg, False) for arg in reversed(node.args) if arg not in state)
    return order


def _nodes_of(sink: Sink) -> list[Node]:
    return sink.nodes if isinstance(sink, ScanSink) else [sink.node]


class _Nest:
    def __init__(self, e: Emitter, extents: tuple[int, ...], sinks: list[Sink], part: tuple[str, str] | None) -> None:
        self.part = part
        self.e, self.sinks = e, sinks
        self.nodes = needed_nodes([node for sink in sinks for node in _nodes_of(sink)])
        groups = _best_innermost(e, extents, _merged_axes(extents, self.nodes, sinks), self.nodes, sinks)
        self.extents = [math.prod(extents[k] for k in group) for group in groups]
        self.places = [group[-1] for group in groups]  # the original axis whose coefficient the merged axis has
        self.depth = len(groups)
        self.inner = self.depth - 1
        self.level = {node: self._level(node.axes) for node in self.nodes}
        self.lanes = self._lanes()
        self.variables: list[str] = []
        self.pointers: dict[Any, str] = {}
        self.mask: str | None = None
        self.widened = self._values_to_widen()

    # what goes where

    def _level(self, axes: int) -> int:
        return max((k for k, axis in enumerate(self.places) if axes >> axis & 1), default=-1)

    def _coefficients(self, address: Affine) -> tuple[int, ...]:
        return tuple([address.coefficients[axis] for axis in self.places])

    def _lanes(self) -> int:
        if self.depth == 0:
            return 1
        vectors = [n for n in self.nodes if self.level[n] == self.inner]
        dtypes = [n.dtype for n in vectors if n.dtype.kind != "b"] + [s.node.dtype for s in self.sinks]
        widest = max(d.itemsize // (2 if d.kind == "c" else 1) for d in dtypes)
        lanes = self.e.target.lanes(8 * widest)
        extent = self.extents[-1]
        while lanes // 2 >= extent and lanes > 1:
            lanes //= 2
        operations = [n for n in vectors if n.kind == "apply"]
        calls = self._calls_in_a_row()
        # Around calls all registers are written to memory, so that one vector at a time is enough, unless the calls
        # wait for each other.
        if len(operations) >= _LONG and (calls == 0 or calls >= _DEPENDENT):
            for _ in range(2):
                if extent >= 4 * lanes and 2 * lanes <= _MOST_LANES:
                    lanes *= 2
        return lanes

    def _calls_in_a_row(self) -> int:
        """The most calls of functions of which each waits for the one before."""
        row: dict[Node, int] = {}
        for node in self.nodes:
            before = max((row[arg] for arg in node.args), default=0)
            row[node] = before + (node.kind == "apply" and node.weight >= _FUNCTION)
        return max(row.values(), default=0)

    def _values_to_widen(self) -> set[Node]:
        """Values of outer levels that the innermost loop wants in every lane."""
        if self.lanes == 1:
            return set()
        users = [arg for n in self.nodes if self.level[n] == self.inner and n.kind == "apply" for arg in n.args]
        users += [node for sink in self.sinks for node in _nodes_of(sink)]
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
        self._close(head, before, at, entering, leaving, 1, k)
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
        self, head: str, before: str, at: int, entering: dict[int, Value], leaving: dict[int, Value], step: int, k: int
    ) -> None:
        """The end of a loop, and its phis, which are only now known."""
        e = self.e
        first, last = self.part if self.part and k == 0 else ("0", str(self.extents[k]))
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
        e, extent, lanes = self.e, self.extents[-1], self.lanes
        entering = outer | self._started(self.inner)
        if extent <= lanes:
            self.variables.append("0")
            if extent < lanes:
                flags = ", ".join(f"i1 {'true' if k < extent else 'false'}" for k in range(lanes))
                self.mask = f"<{flags}>"
            leaving = self._body(entering)
            self.mask = None
            self.variables.pop()
            return leaving
        head, before = e.new_label("loop"), e.block
        e.line(f"br label %{head}")
        e.label(head)
        at = len(e.lines)
        phis = {i: e.blank(v.dtype, v.lanes, f"%{head}.a{i}") for i, v in entering.items()}
        self.variables.append(f"%{head}.i")
        if extent % lanes:
            self.mask = self._rest_mask(f"%{head}.i", extent)
        leaving = self._body(phis)
        self.mask = None
        self.variables.pop()
        self._close(head, before, at, entering, leaving, lanes, self.inner)
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
                    node.vectors[self.lanes, 0] = self.e.widened(node.made, self.lanes)

    def _vector(self, node: Node) -> Value:
        assert node.made is not None
        if node.made.lanes == self.lanes:
            return node.made
        return node.vectors.get((self.lanes, 0)) or self.e.widened(node.made, self.lanes)

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
        e, coefficients = self.e, self._coefficients(index)
        scalar = Value(e, self._linear(index, len(self.variables)), INDEX)
        if lanes == 1:
            return scalar
        return e.widened(scalar, lanes) + self._steps(lanes) * coefficients[-1]

    def _linear(self, address: Affine, count: int) -> str:
        """The address as an integer, from the first `count` loop variables."""
        e, total = self.e, str(address.constant)
        for c, variable in zip(self._coefficients(address)[:count], self.variables, strict=False):
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
        e, stride = self.e, self._coefficients(address)[-1]
        place = self._pointer(pointer, dtype, address)
        if stride == 1 or self.lanes == 1:
            return e.load(place, dtype, self.lanes, self.mask)
        if stride == 0:
            return e.widened(e.load(place, dtype), self.lanes)
        if stride == -1:
            return e.reversed(e.load(e.offset(place, 1 - self.lanes, dtype), dtype, self.lanes, self._mask_reversed()))
        return e.gather(self._strided(place, stride, dtype), dtype, self.lanes, self.mask)

    def _store(self, value: Value, pointer: str, address: Affine) -> None:
        e, stride = self.e, self._coefficients(address)[-1]
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
        stride = self._coefficients(address)[-1] if self.depth else 0
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


def _merged_axes(extents: tuple[int, ...], nodes: list[Node], sinks: list[Sink]) -> list[list[int]]:
    """Axes of more than one step, in groups that can be run through as one."""
    axes = [k for k, n in enumerate(extents) if n > 1]
    addresses = [n.data if n.kind == "index" else n.data[1] for n in nodes if n.kind in ("index", "load")]
    addresses += [s.address for s in sinks if s.address is not None]
    kept = [s.kept if isinstance(s, ReduceSink) else s.apart for s in sinks]
    groups: list[list[int]] = []
    for k in axes:
        if groups and _joins(groups[-1][-1], k, extents[k], addresses, kept):
            groups[-1].append(k)
        else:
            groups.append([k])
    return groups


def _best_innermost(
    e: Emitter, extents: tuple[int, ...], groups: list[list[int]], nodes: list[Node], sinks: list[Sink]
) -> list[list[int]]:
    """The loops with the axis innermost along which vectors are cheapest, where no order is given by reductions.

    A short innermost axis fills few lanes; along another, what is not contiguous is gathered one by one.
    """
    if len(groups) < 2 or not all(isinstance(sink, StoreSink) and not sink.apart for sink in sinks):
        return groups
    addresses = [n.data[1] for n in nodes if n.kind == "load"] + [s.address for s in sinks if s.address is not None]
    operations = sum(n.kind == "apply" for n in nodes)
    lanes = e.target.lanes(8 * max(s.node.dtype.itemsize for s in sinks))

    def price(group: list[int]) -> float:
        extent = math.prod(extents[k] for k in group)
        filled = extent / -(-extent // lanes)
        apart = sum(a.coefficients[group[-1]] not in (0, 1) for a in addresses)
        return (operations + len(addresses)) / filled + _GATHERED * apart

    best = min(reversed(groups), key=price)
    return [group for group in groups if group is not best] + [best]


def _joins(outer: int, inner: int, extent: int, addresses: list[Affine], kept: list[int]) -> bool:
    """Whether a step of the outer axis is `extent` steps of the inner one, for all that depend on them."""
    if any((bits >> outer & 1) != (bits >> inner & 1) for bits in kept):
        return False
    return all(a.coefficients[outer] == a.coefficients[inner] * extent for a in addresses)
