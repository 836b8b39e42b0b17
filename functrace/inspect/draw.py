"""Drawings of computations: a function's graph at a point, as SVG, in the DOT language, and for Mermaid."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from functrace.core.types import aval_of, is_inexact
from functrace.errors import ArgumentError
from functrace.inspect.formula import Part, Symbol, Text, array_text, escape
from functrace.inspect.layout import Box, Layout, Link, layered
from functrace.inspect.trace_table import make_traces, text_width
from functrace.inspect.traces import Assignment, Traces, linear_part
from functrace.inspect.watch import watch
from functrace.transforms._flatten import check_callable
from functrace.util import user_line

__all__ = ["Drawing", "Edge", "Node", "draw"]

DERIVATIVES = {None: "primal", "partial": "primal", "forward": "forward", "reverse": "reverse"}
_LINE, _CHARACTER, _SMALL = 18.0, 7.85, 6.65  # line height; widths of a monospaced character at 13 and 11 pixels
_FILL = {"input": "#dbe9f6", "operation": "#ffffff", "block": "#f3ead7", "output": "#dcefdc"}
_LONGEST = 44


@dataclass
class Node:
    """A box of the drawing.

    Attributes:
        kind: "input", "operation", "block" or "output".
        lines: its text.
        defines: the names it computes.
    """

    kind: str
    lines: list[str]
    defines: list[Symbol] = field(default_factory=list)


@dataclass
class Edge:
    """A value on its way from one box to another.

    Attributes:
        source, target: indices of nodes.
        symbols: what flows.
        lines: the label.
    """

    source: int
    target: int
    symbols: list[Symbol] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


class Drawing:
    """A computational graph; a notebook shows it. `svg()`, `dot()` and `mermaid()` give text to keep.

    Attributes:
        nodes: the boxes.
        edges: what connects them.
    """

    def __init__(self, nodes: list[Node], edges: list[Edge]) -> None:
        self.nodes, self.edges = nodes, edges

    def __repr__(self) -> str:
        return f"Drawing of {len(self.nodes)} nodes and {len(self.edges)} edges; svg(), dot() and mermaid() give text"

    def layout(self) -> Layout:
        """Where everything is, in pixels."""
        sizes = [(_text_width(n.lines, _CHARACTER) + 18.0, _LINE * len(n.lines) + 10.0) for n in self.nodes]
        links = [
            Link(e.source, e.target, _text_width(e.lines, _SMALL) + 8.0, 15.0 * len(e.lines) + 2.0)
            if e.lines
            else Link(e.source, e.target)
            for e in self.edges
        ]
        return layered(sizes, links)

    def svg(self) -> str:
        """The drawing as a self-contained SVG document."""
        layout = self.layout()
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{layout.width:.0f}" height="{layout.height:.0f}" '
            f'viewBox="0 0 {layout.width:.0f} {layout.height:.0f}" '
            'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="13">',
            f'<rect width="{layout.width:.0f}" height="{layout.height:.0f}" fill="#ffffff"/>',
            '<defs><marker id="functrace-arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#555555"/></marker></defs>',
        ]
        for path in layout.paths:
            parts.append(
                f'<path d="{_curve(path)}" fill="none" stroke="#555555" stroke-width="1.2" '
                'marker-end="url(#functrace-arrow)"/>'
            )
        for edge, label in zip(self.edges, layout.labels, strict=True):
            if label is not None:
                parts += _label(edge.lines, label)
        for node, box in zip(self.nodes, layout.boxes, strict=True):
            parts += _box(node, box)
        return "\n".join([*parts, "</svg>"])

    def _repr_svg_(self) -> str:
        return self.svg()

    def dot(self) -> str:
        """The graph in the DOT language of Graphviz."""
        lines = ["digraph functrace {", '  node [shape=box, style="rounded,filled", fontname="monospace"];']
        for i, node in enumerate(self.nodes):
            double = ", peripheries=2" if node.kind == "block" else ""
            lines.append(f'  n{i} [label="{_quoted(node.lines)}", fillcolor="{_FILL[node.kind]}"{double}];')
        for edge in self.edges:
            label = f' [label="{_quoted(edge.lines)}"]' if edge.lines else ""
            lines.append(f"  n{edge.source} -> n{edge.target}{label};")
        return "\n".join([*lines, "}"])

    def mermaid(self) -> str:
        """The graph for Mermaid, which many Markdown viewers draw."""
        lines = ["flowchart TD"]
        for i, node in enumerate(self.nodes):
            opening, closing = (
                ("[[", "]]") if node.kind == "block" else ("([", "])") if node.kind != "operation" else "[]"
            )
            lines.append(f'  n{i}{opening}"{_entities(node.lines)}"{closing}')
        for edge in self.edges:
            label = f'|"{_entities(edge.lines)}"|' if edge.lines else ""
            lines.append(f"  n{edge.source} -->{label} n{edge.target}")
        return "\n".join(lines)

    def save(self, path: str) -> None:
        """Write the drawing to a file: `.svg`, `.dot` (or `.gv`) or `.mmd`, by its ending.

        Raises:
            ArgumentError: it has another ending.
        """
        ending = str(path).rpartition(".")[2].lower()
        forms = {"svg": self.svg, "dot": self.dot, "gv": self.dot, "mmd": self.mermaid}
        if ending not in forms:
            raise ArgumentError(
                "a drawing is saved as .svg, .dot, .gv or .mmd",
                where=user_line(),
                got=str(path),
                remedy="give the file one of these endings; other programs turn an .svg into a bitmap or a PDF",
            )
        with open(path, "w", encoding="utf-8") as file:
            file.write(forms[ending]() + "\n")


def _text_width(lines: Sequence[str], character: float) -> float:
    return max((text_width(line) for line in lines), default=0) * character


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """Straight through the layers, smooth between them."""
    (x, y), *_ = points
    parts = [f"M{x:.1f},{y:.1f}"]
    for k, ((x0, y0), (x1, y1)) in enumerate(pairwise(points)):
        if k % 2 == 0:
            if y1 - y0 > 0.05:
                parts.append(f"L{x1:.1f},{y1:.1f}")
        else:
            middle = (y0 + y1) / 2
            parts.append(f"C{x0:.1f},{middle:.1f} {x1:.1f},{middle:.1f} {x1:.1f},{y1:.1f}")
    return " ".join(parts)


def _label(lines: Sequence[str], box: Box) -> list[str]:
    top = box.y - 15.0 * (len(lines) - 1) / 2 + 4.0
    return [
        f'<rect x="{box.x - box.width / 2:.1f}" y="{box.y - box.height / 2:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" fill="#ffffff"/>',
        *(
            f'<text x="{box.x:.1f}" y="{top + 15.0 * k:.1f}" text-anchor="middle" font-size="11" '
            f'fill="{"#9a3412" if k else "#1e40af"}">{escape(line)}</text>'
            for k, line in enumerate(lines)
        ),
    ]


def _box(node: Node, box: Box) -> list[str]:
    left, top = box.x - box.width / 2, box.y - box.height / 2
    radius = 12 if node.kind in ("input", "output") else 3
    frame = (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{box.width:.1f}" height="{box.height:.1f}" rx="{radius}" '
        f'fill="{_FILL[node.kind]}" stroke="#333333"/>'
    )
    parts = [frame]
    if node.kind == "block":
        parts.append(
            f'<rect x="{left + 2.5:.1f}" y="{top + 2.5:.1f}" width="{box.width - 5:.1f}" '
            f'height="{box.height - 5:.1f}" rx="2" fill="none" stroke="#333333" stroke-width="0.6"/>'
        )
    for k, line in enumerate(node.lines):
        y = top + 5.0 + _LINE * (k + 0.5) + 4.5
        parts.append(f'<text x="{box.x:.1f}" y="{y:.1f}" text-anchor="middle" fill="#111111">{escape(line)}</text>')
    return parts


def _quoted(lines: Sequence[str]) -> str:
    return "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)


def _entities(lines: Sequence[str]) -> str:
    return "<br/>".join(escape(line).replace("#", "#35;").replace("[", "#91;").replace("]", "#93;") for line in lines)


def draw(fun: Callable[..., Any]) -> Callable[..., Drawing]:
    """The computational graph of a function at a point: a box per operation, an edge per value.

    Args:
        fun: function of arrays or pytrees of them. The names are those of `trace_table`.

    Returns:
        A function of the same arguments, and of

        - `values`: whether to write each value on its edges;
        - `derivatives`: None; "partial" for the partial derivative of each scalar operation on its edges; "forward" for
          tangents (along the first unit vector, or `tangents`); "reverse" for adjoints (of the first output, or
          `cotangent`);
        - `expand`: whether to open loops, branches and jitted functions, which are a box each otherwise;
        - `largest`: from so many operations on, 60 by default, those of one user function, line or stretch of code are
          folded into one named box;
        - `digits`: decimal places of numbers.

        It gives a `Drawing`.

    Example:
        >>> import numpy as np
        >>> from functrace.inspect import draw
        >>> drawing = draw(lambda x1, x2: x1 * x2 + np.sin(x1))(2.0, 3.0, derivatives="reverse")
        >>> print(drawing.mermaid())
        flowchart TD
          n0(["x1"])
          n1(["x2"])
          n2["v1 = x1 · x2"]
          n3["v2 = sin(x1)"]
          n4["v3 = v1 + v2"]
          n5(["y = v3"])
          n0 -->|"x̄1 = 2.584"| n2
          n1 -->|"x̄2 = 2"| n2
          n0 -->|"x̄1 = 2.584"| n3
          n2 -->|"v̄1 = 1"| n4
          n3 -->|"v̄2 = 1"| n4
          n4 -->|"v̄3 = 1"| n5
    """
    check_callable(fun, "draw")

    @functools.wraps(fun)
    def drawing(
        *args: Any,
        values: bool = False,
        derivatives: str | None = None,
        expand: bool = False,
        largest: int = 60,
        digits: int = 3,
        tangents: Sequence[Any] | None = None,
        cotangent: Any = None,
    ) -> Drawing:
        if derivatives not in DERIVATIVES:
            raise ArgumentError(
                "draw knows no such derivatives",
                where=user_line(),
                got=repr(derivatives),
                remedy="choose None, 'partial', 'forward' or 'reverse'",
            )
        run = watch(fun, args, "draw", closed=not expand)
        traces = make_traces(run, DERIVATIVES[derivatives], tangents, None, cotangent)
        drawn = [a for a in traces.assignments if not a.targets[0].marks]
        nodes, edges = _graph(drawn, traces, fun, largest, values, digits)
        for edge in edges:
            edge.lines = _edge_lines(edge, drawn, nodes, traces, values, derivatives, digits)
        return Drawing(nodes, edges)

    return drawing


def _graph(
    drawn: list[Assignment], traces: Traces, fun: Callable[..., Any], largest: int, values: bool, digits: int
) -> tuple[list[Node], list[Edge]]:
    """The boxes and the edges between them, without labels."""
    text = Text(digits)
    outputs = set(traces.outputs)
    inner = [a for a in drawn if a.program is not None and a.targets[0] not in outputs]
    nodes: list[Node] = []
    members: list[list[Assignment]] = []
    given = [a for a in drawn if a.program is None]
    for group in _gathered(given, largest):
        symbols = [t for a in group for t in a.targets]
        if len(group) == 1:
            value = traces.values[symbols[0]]
            shown = f" = {array_text(value, digits)}" if values else f": {_type_text(value)}" if np.ndim(value) else ""
            nodes.append(Node("input", [text.symbol(symbols[0]) + shown], symbols))
        else:
            nodes.append(Node("input", [f"{_argument(group[0])}: {len(group)} arrays"], symbols))
        members.append(group)
    for group in _folded(inner, largest, getattr(fun, "__code__", None)):
        nodes.append(_operation(group[0], text) if len(group) == 1 else _block(group))
        nodes[-1].defines = [t for a in group for t in a.targets]
        members.append(group)
    for assignment in drawn:
        if assignment.targets[0] in outputs:
            shown = f" = {array_text(traces.values[assignment.targets[0]], digits)}" if values else ""
            formula = text(assignment.expressions()[0])
            nodes.append(Node("output", [f"{text.symbol(assignment.targets[0])} = {formula}{shown}"]))
            nodes[-1].defines = list(assignment.targets)
            members.append([assignment])
    home = {symbol: i for i, node in enumerate(nodes) for symbol in node.defines}
    edges: dict[tuple[int, int], Edge] = {}
    for i, group in enumerate(members):
        for symbol in dict.fromkeys(o for a in group for o in a.operands):
            j = home[symbol]
            if j != i:
                edges.setdefault((j, i), Edge(j, i)).symbols.append(symbol)
    return nodes, list(edges.values())


def _type_text(value: Any) -> str:
    return str(aval_of(value))


def _argument(assignment: Assignment) -> str:
    """The name of the argument that an input belongs to."""
    return re.split(r"[\[.]", assignment.targets[0].label)[0]


def _gathered(given: list[Assignment], largest: int) -> list[list[Assignment]]:
    """The inputs, a box each, or a box per argument if they are many."""
    if len(given) <= max(largest // 2, 1):
        return [[a] for a in given]
    return [list(group) for _, group in groupby(given, key=_argument)]


def _clipped(text: str) -> str:
    return text if text_width(text) <= _LONGEST else text[: _LONGEST - 1] + "\u2026"


def _operation(assignment: Assignment, text: Text) -> Node:
    targets = [text.symbol(t) for t in assignment.targets]
    left = ", ".join(targets) if len(targets) <= 3 else f"{targets[0]} \u2026 {targets[-1]}"
    expression = assignment.expressions()[0]
    if isinstance(expression, Part) and len(targets) > 1:
        expression = expression.whole
    assert assignment.program is not None
    block = any(e.primitive.unfold is not None for e in assignment.program.eqns)
    return Node("block" if block else "operation", [_clipped(f"{left} = {text(expression)}")])


def _block(group: Sequence[Assignment]) -> Node:
    """Several operations in one box, named by the function they stand in and their lines."""
    sources = [a.source for a in group if a.source is not None]
    name = sources[0].code.co_name if sources else "operations"
    lines = sorted({s.line for s in sources if s.code is sources[0].code}) if sources else []
    where = f"line {lines[0]}" if len(lines) == 1 else f"lines {lines[0]}-{lines[-1]}" if lines else ""
    return Node("block", [_clipped(f"{name}: {len(group)} operations"), *([where] if where else [])])


def _folded(inner: list[Assignment], largest: int, own: Any) -> list[list[Assignment]]:
    """Stretches of the program, a box each: of one operation each if these are few enough.

    Else what calls of other functions do is folded, or lines, or, where that gives too many boxes or next to none,
    stretches of equal length.
    """
    if len(inner) <= largest:
        return [[a] for a in inner]
    groups = []
    for code, stretch in groupby(inner, key=lambda a: a.source.code if a.source else None):
        together = list(stretch)
        groups += [[a] for a in together] if code is own or code is None else [together]
    by_line = [
        list(g) for _, g in groupby(inner, key=lambda a: (a.source.code, a.source.line) if a.source else (None, 0))
    ]
    for found in (groups, by_line):
        if largest // 8 <= len(found) <= largest:
            return found
    size = -(-len(inner) // max(largest // 3, 1))
    return [inner[k : k + size] for k in range(0, len(inner), size)]


def _edge_lines(
    edge: Edge,
    drawn: Sequence[Assignment],
    nodes: Sequence[Node],
    traces: Traces,
    values: bool,
    derivatives: str | None,
    digits: int,
) -> list[str]:
    """What stands on an edge; nothing where several values flow."""
    if len(edge.symbols) != 1:
        return []
    (symbol,) = edge.symbols
    text = Text(digits)
    lines = [_clipped(f"{text.symbol(symbol)} = {array_text(traces.values[symbol], digits, 6)}")] if values else []
    if derivatives == "partial":
        slope = _partial(edge, drawn, nodes, traces)
        if slope is not None:
            lines.append(f"\u2202 = {array_text(slope, digits)}")
    elif derivatives is not None:
        marked = symbol.marked("dot" if derivatives == "forward" else "bar")
        if marked in traces.values:
            lines.append(_clipped(f"{text.symbol(marked)} = {array_text(traces.values[marked], digits, 6)}"))
    return lines


def _partial(edge: Edge, drawn: Sequence[Assignment], nodes: Sequence[Node], traces: Traces) -> Any:
    """The partial derivative of a scalar operation in a scalar operand; None for others."""
    (symbol,) = edge.symbols
    targets = nodes[edge.target].defines
    if len(targets) != 1 or np.ndim(traces.values[symbol]) or np.ndim(traces.values[targets[0]]):
        return None
    if not is_inexact(aval_of(traces.values[symbol]).dtype):
        return None
    assignment = next(a for a in drawn if a.targets[0] == targets[0])
    linear = linear_part(assignment, {symbol}, "dot")
    if linear is None:
        return None
    unit = symbol.marked("dot")
    probe = Traces([], [], [], {**traces.values, unit: traces.values[symbol].dtype.type(1)})
    result = targets[0].marked("dot")
    probe.compute(Assignment((result,), linear[2], linear[1]))
    return probe.values[result]
