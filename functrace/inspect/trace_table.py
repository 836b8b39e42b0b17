"""Trace tables: what happens in one run of forward or reverse mode, or one inside the other, as a textbook prints
it."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from functrace import tree
from functrace.core.types import ShapedArray, aval_of
from functrace.errors import ArgumentError
from functrace.inspect.formula import Apply, Dialect, Expression, Latex, Markup, Symbol, Text
from functrace.inspect.traces import Traces, direction, trace_run
from functrace.inspect.watch import Run, watch
from functrace.transforms._flatten import check_callable, check_like
from functrace.util import user_line

__all__ = ["MODES", "Cell", "Column", "TraceTable", "make_traces", "text_width", "trace_table"]

MODES = ("primal", "forward", "reverse", "fwd-fwd", "fwd-rev", "rev-fwd", "rev-rev")

_MARK_NAMES = {"dot": "tangent", "bar": "adjoint", "prime": "second tangent", "hat": "second adjoint"}
_WIDTH = 118


class Cell(NamedTuple):
    """One entry of a table.

    Attributes:
        symbol: the name, as in v1 or its tangent.
        expression: what it is computed by; None for a given value.
        value: the number or array.
    """

    symbol: Symbol
    expression: Expression | None
    value: Any

    @property
    def formula(self) -> str:
        """The expression as plain text; empty for a given value."""
        return "" if self.expression is None else Text()(self.expression)


class Column(NamedTuple):
    """One trace.

    Attributes:
        title: as in "tangent trace".
        marks: which derivative it holds; see `Symbol`.
        upwards: whether it is computed from the last row to the first.
    """

    title: str
    marks: tuple[str, ...]
    upwards: bool


class TraceTable:
    """The traces of one run side by side: a row per variable, a column per trace.

    Prints as text; a notebook shows HTML. `markdown()` and `latex()` give those.

    Attributes:
        mode: the mode, as given.
        rows: the names of inputs, intermediate variables and outputs, in the order of the program.
        columns: the traces.
        values: every value by its `Symbol`.
    """

    def __init__(self, traces: Traces, mode: str, digits: int) -> None:
        self.mode = mode
        self.digits = digits
        self.values = traces.values
        self._cells: dict[Symbol, Cell] = {}
        rows: dict[str, None] = {}
        marks: dict[tuple[str, ...], None] = {}
        for assignment in traces.assignments:
            formulas: Sequence[Expression | None] = [None] if assignment.program is None else assignment.expressions()
            for symbol, formula in zip(assignment.targets, formulas, strict=True):
                self._cells[symbol] = Cell(symbol, formula, traces.values[symbol])
                rows[symbol.label] = None
                marks[symbol.marks] = None
        self.rows = list(rows)
        self.columns = [Column(_title(m), m, sum(k in ("bar", "hat") for k in m) % 2 == 1) for m in marks]

    def cell(self, row: str, *marks: str) -> Cell | None:
        """The entry of a variable in the trace with these marks ("dot", "bar", ...); None where there is none."""
        return self._cells.get(Symbol(row, marks))

    def value(self, row: str, *marks: str) -> Any:
        """The value of an entry.

        Raises:
            ArgumentError: there is no such entry.
        """
        cell = self.cell(row, *marks)
        if cell is None:
            raise ArgumentError(
                "the table has no such entry",
                where=user_line(),
                got=f"row {row!r}, marks {marks}",
                remedy=f"rows are {', '.join(self.rows)}; marks are {', '.join(str(c.marks) for c in self.columns)}",
            )
        return cell.value

    def _entries(self, column: Column, dialect: Dialect) -> list[tuple[str, str, str]]:
        """Symbol, formula and number of every row of a column; empty strings where there is no entry."""
        entries = []
        for row in self.rows:
            cell = self._cells.get(Symbol(row, column.marks))
            if cell is None:
                entries.append(("", "", ""))
                continue
            formula = "" if cell.expression is None else dialect(_shortened(cell.expression))
            entries.append((dialect.symbol(cell.symbol), formula, dialect.value(cell.value)))
        return entries

    def text(self, largest: int = 60) -> str:
        """The table in plain text, wide traces below each other.

        Args:
            largest: rows to show; of a longer table the first and last ones.
        """
        blocks = []
        for column in self.columns:
            entries = self._entries(column, Text(self.digits))
            widths = [max(map(text_width, part), default=0) for part in zip(*entries, strict=True)]
            lines = []
            for symbol, formula, value in entries:
                left = f"{_pad(symbol, widths[0])} {'=' if formula else ' '} {_pad(formula, widths[1])}"
                line = f"{left} {'=' if symbol else ' '} {_pad(value, widths[2])}"
                lines.append(line if symbol else "")
            arrow = "\u2191" if column.upwards else "\u2193"
            blocks.append([f"{column.title} {arrow}", *_elided(lines, largest)])
        return "\n\n".join(_side_by_side(group) for group in _groups(blocks))

    def __repr__(self) -> str:
        return self.text()

    def markdown(self) -> str:
        """The table in Markdown: for each trace a column of equations and one of numbers."""
        head = [h for c in self.columns for h in (f"{c.title} {'&uarr;' if c.upwards else '&darr;'}", "value")]
        lines = [_markdown_row(head), _markdown_row(["---", "---:"] * len(self.columns))]
        columns = [self._entries(c, Text(self.digits)) for c in self.columns]
        for entries in zip(*columns, strict=True):
            cells = []
            for symbol, formula, value in entries:
                cells += [f"`{symbol} = {formula}`" if formula else f"`{symbol}`" if symbol else "", value]
            lines.append(_markdown_row(cells))
        return "\n".join(lines)

    def latex(self) -> str:
        """The table as a LaTeX `tabular`, which needs no package but amsmath."""
        lines = [rf"\begin{{tabular}}{{{'|'.join(['llr'] * len(self.columns))}}}", r"\hline"]
        titles = [
            rf"\multicolumn{{3}}{{{'c|' if i < len(self.columns) - 1 else 'c'}}}{{{c.title} "
            rf"$\{'uparrow' if c.upwards else 'downarrow'}$}}"
            for i, c in enumerate(self.columns)
        ]
        lines += [" & ".join(titles) + r" \\ \hline"]
        columns = [self._entries(c, Latex(self.digits)) for c in self.columns]
        for entries in zip(*columns, strict=True):
            cells = []
            for symbol, formula, value in entries:
                equation = f"$= {formula}$" if formula else ""
                cells += [f"${symbol}$", equation, f"$= {value}$"] if symbol else ["", "", ""]
            lines.append(" & ".join(cells) + r" \\")
        return "\n".join([*lines, r"\hline", r"\end{tabular}"])

    def html(self) -> str:
        """The table as HTML, self-contained."""
        border = "border-left:1px solid #999;"
        head, columns = [], []
        for column in self.columns:
            arrow = "&uarr;" if column.upwards else "&darr;"
            head.append(f'<th colspan="3" style="text-align:left;{border}">{column.title} {arrow}</th>')
            columns.append(self._entries(column, Markup(self.digits)))
        lines = ['<table class="functrace-trace" style="font-family:serif;border-collapse:collapse;">']
        lines.append(f"<thead><tr>{''.join(head)}</tr></thead>")
        lines.append("<tbody>")
        for entries in zip(*columns, strict=True):
            cells = []
            for symbol, formula, value in entries:
                cells.append(f'<td style="text-align:left;{border}">{symbol}</td>')
                cells.append(f'<td style="text-align:left;">{"= " + formula if formula else ""}</td>')
                cells.append(f'<td style="text-align:right;">{"= " + value if symbol else ""}</td>')
            lines.append(f"<tr>{''.join(cells)}</tr>")
        return "\n".join([*lines, "</tbody></table>"])

    def _repr_html_(self) -> str:
        return self.html()

    def _repr_markdown_(self) -> str:
        return self.markdown()


def _title(marks: tuple[str, ...]) -> str:
    if not marks:
        return "primal trace"
    return " of the ".join(_MARK_NAMES[m] for m in reversed(marks)) + ("" if len(marks) > 1 else " trace")


def _shortened(expression: Expression, depth: int = 8) -> Expression:
    """The expression with what is nested too deep to read left out."""
    if depth == 0 and isinstance(expression, Apply):
        return Symbol("\u2026")
    if isinstance(expression, Apply):
        if len(expression.operands) > 12:
            kept = (*expression.operands[:3], Symbol("\u2026"), expression.operands[-1])
            return Apply(expression.function, tuple(_shortened(o, depth - 1) for o in kept))
        return Apply(expression.function, tuple(_shortened(o, depth - 1) for o in expression.operands))
    return expression


def text_width(text: str) -> int:
    """How many places a text takes; accents take none."""
    return sum(not unicodedata.combining(c) for c in text)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - text_width(text))


def _elided(lines: list[str], largest: int) -> list[str]:
    if len(lines) <= largest:
        return lines
    half = largest // 2
    return [*lines[:half], f"... {len(lines) - 2 * half} more", *lines[-half:]]


def _groups(blocks: list[list[str]]) -> list[list[list[str]]]:
    """Blocks that stand side by side: all if they fit, else two and two, else one by one."""
    widths = [max(map(text_width, block)) + 5 for block in blocks]
    for size in (len(blocks), 2):
        groups = [blocks[k : k + size] for k in range(0, len(blocks), size)]
        if all(sum(widths[k : k + size]) <= _WIDTH for k in range(0, len(blocks), size)):
            return groups
    return [[block] for block in blocks]


def _side_by_side(blocks: list[list[str]]) -> str:
    widths = [max(map(text_width, block)) for block in blocks]
    if len(blocks) == 1:
        blocks = [[line for line in blocks[0] if line]]
    lines = []
    for i in range(max(map(len, blocks))):
        parts = [_pad(b[i] if i < len(b) else "", w) for b, w in zip(blocks, widths, strict=True)]
        lines.append("  |  ".join(parts).rstrip())
        if i == 0:
            lines.append("--+--".join("-" * w for w in widths))
    return "\n".join(lines)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def trace_table(fun: Callable[..., Any]) -> Callable[..., TraceTable]:
    """The textbook table of one run: every variable with symbol, formula and number, and its derivatives beside it.

    Args:
        fun: function of scalars, small arrays or pytrees of them. Python's branches and loops are followed, loops of
            `functrace.lax` are unrolled and jitted functions opened.

    Returns:
        A function of the same arguments, and of

        - `mode`: "primal", "forward" (the default), "reverse", or a nesting, outer mode first: "fwd-fwd", "fwd-rev",
          "rev-fwd", "rev-rev";
        - `tangents`: the direction of forward mode, a tuple like the arguments, by default the first unit vector. In
          "rev-rev" it is the direction that the gradients are multiplied by;
        - `second_tangents`: the direction of the outer mode in "fwd-fwd", by default the same;
        - `cotangent`: what reverse mode starts from, like the output; by default the first unit vector, which is 1 for
          a scalar;
        - `digits`: decimal places to show.

        It gives a `TraceTable`.

    Raises:
        ArgumentError: `mode` is none of these (when called).

    Example:
        >>> import numpy as np
        >>> from functrace.inspect import trace_table
        >>> def f(x1, x2):
        ...     return np.log(x1) + x1 * x2 - np.sin(x2)
        >>> print(trace_table(f)(2.0, 5.0, mode="primal"))
        primal trace ↓
        ---------------------
        x1           = 2
        x2           = 5
        v1 = ln(x1)  = 0.693
        v2 = x1 · x2 = 10
        v3 = v1 + v2 = 10.693
        v4 = sin(x2) = -0.959
        v5 = v3 - v4 = 11.652
        y  = v5      = 11.652
    """
    check_callable(fun, "trace_table")

    @functools.wraps(fun)
    def table(
        *args: Any,
        mode: str = "forward",
        tangents: Sequence[Any] | None = None,
        second_tangents: Sequence[Any] | None = None,
        cotangent: Any = None,
        digits: int = 3,
    ) -> TraceTable:
        if isinstance(digits, bool) or not isinstance(digits, (int, np.integer)) or digits < 0:
            raise ArgumentError(
                "the number of decimal places is a non-negative integer",
                where=user_line(),
                got=f"digits={digits!r}",
                remedy="leave it out for three",
            )
        run = watch(fun, args, "trace_table")
        return TraceTable(make_traces(run, mode, tangents, second_tangents, cotangent), mode, digits)

    return table


def make_traces(
    run: Run, mode: str, tangents: Any = None, second_tangents: Any = None, cotangent: Any = None
) -> Traces:
    """The traces of a run in some mode; see `trace_table`."""
    if mode not in MODES:
        raise ArgumentError(
            "there is no such mode of a trace table",
            where=user_line(),
            got=repr(mode),
            remedy=f"choose one of {', '.join(map(repr, MODES))}: of a nesting the outer mode first",
        )
    traces = trace_run(run)
    inputs, outputs = traces.inputs, traces.outputs
    along = _seeds(inputs, run.jaxpr.in_avals, tangents, run.in_tree, "tangent")
    weights = _seeds(outputs, [aval_of(traces.values[o]) for o in outputs], cotangent, run.out_tree, "cotangent")
    outer, _, inner = (
        mode.partition("-") if "-" in mode else ("", "", {"forward": "fwd", "reverse": "rev"}.get(mode, ""))
    )
    if inner == "fwd":
        traces.forward(along, "dot")
    elif inner == "rev":
        traces.reverse(along, weights, "bar")
    if outer == "fwd":
        second = (
            along
            if second_tangents is None
            else _seeds(inputs, run.jaxpr.in_avals, second_tangents, run.in_tree, "tangent")
        )
        traces.forward(second if inner == "fwd" else along, "prime" if inner == "fwd" else "dot")
    elif outer == "rev":
        start, base = ("dot", weights) if inner == "fwd" else ("bar", along)
        seeds = {s.marked(start): v for s, v in base.items() if s.marked(start) in traces.values}
        traces.reverse(along, seeds, "bar" if inner == "fwd" else "hat")
    return traces


def _seeds(
    symbols: Sequence[Symbol], avals: Sequence[ShapedArray], given: Any, structure: tree.TreeDef, what: str
) -> dict[Symbol, Any]:
    """Per differentiable input or output, the derivative to start from."""
    if given is None:
        values = direction(avals)
    else:
        values = check_like(tuple(given) if what == "tangent" else given, structure, avals, what)
        values = [
            np.zeros(a.shape, a.dtype)[()] if v is None and d is not None else v
            for v, a, d in zip(values, avals, direction(avals), strict=True)
        ]
    return {s: v for s, v in zip(symbols, values, strict=True) if v is not None}
