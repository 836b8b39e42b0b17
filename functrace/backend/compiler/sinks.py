"""What a loop nest is for: values that go to memory, reductions, and cumulative operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from functrace.backend.compiler.affine import Affine
from functrace.backend.compiler.emit import Value
from functrace.backend.compiler.nodes import Node

__all__ = ["ReduceSink", "ScanSink", "Sink", "StoreSink", "needed_nodes", "nodes_of"]


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


def nodes_of(sink: Sink) -> list[Node]:
    """The values that a sink takes."""
    return sink.nodes if isinstance(sink, ScanSink) else [sink.node]


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
