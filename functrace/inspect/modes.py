"""`modes.compare`: every way to form a Jacobian or a Hessian of a function, predicted, measured and checked."""

from __future__ import annotations

import functools
import html
import json
import math
import numbers
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from functrace import lax, sparse, tree
from functrace.core.evaluate import python_function
from functrace.core.types import aval_of, canonicalize
from functrace.errors import AbstractValueError, ArgumentError, FunctraceError
from functrace.inspect.cost import quantity
from functrace.interpreters.cost import Cost, jaxpr_cost
from functrace.interpreters.linearize import linearize
from functrace.interpreters.simplify import simplify
from functrace.transforms import grad, hessian, hvp, jacfwd, jacobian, jacrev, make_jaxpr
from functrace.transforms._choice import Plan, choose, decide
from functrace.transforms._flatten import FlatFunction, argument_positions, check_callable, export
from functrace.transforms.memory import parse_bytes
from functrace.util import user_line

__all__ = ["Comparison", "Row", "compare"]

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Row:
    """One way to form the derivative.

    Attributes:
        mode: its name.
        sweeps: how many directions are swept through the program: `"10 + 10"` for parts that are multiplied.
        flops, memory: predicted arithmetic operations and peak bytes; None where the program cannot be recorded.
        seconds, measured: median time and peak bytes measured; None where it was not run.
        difference: the largest difference from the first mode's result, relative to the largest finite entry; equal
            infinities and NaNs in the same place agree, any other is infinitely far off.
        note: what else there is to say.
    """

    mode: str
    sweeps: str
    flops: int | None = None
    memory: int | None = None
    seconds: float | None = None
    measured: int | None = None
    difference: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """The modes of one derivative side by side; prints as a table.

    Attributes:
        derivative: "jacobian" or "hessian".
        inputs, outputs: how many numbers go in and come out.
        rows: one per mode.
        choice: the mode that `jacobian(f, mode="auto")` or `hessian(f, mode="auto")` takes.
        reason: why.
    """

    derivative: str
    inputs: int
    outputs: int
    rows: tuple[Row, ...]
    choice: str
    reason: str

    def __getitem__(self, mode: str) -> Row:
        """The row of a mode."""
        return {row.mode: row for row in self.rows}[mode]

    def _cells(self) -> list[list[str]]:
        return [
            [
                row.mode,
                row.sweeps,
                _shown(row.flops, quantity),
                _shown(row.memory, lambda v: quantity(v, "B")),
                _shown(row.seconds, _duration),
                _shown(row.measured, lambda v: quantity(v, "B")),
                _shown(row.difference, lambda v: f"{v:.1g}"),
                row.note,
            ]
            for row in self.rows
        ]

    def __repr__(self) -> str:
        table = [_HEADINGS, *self._cells()]
        widths = [max(len(line[k]) for line in table) for k in range(len(_HEADINGS))]
        lines = []
        for line in table:
            first, *rest, last = line
            middle = "  ".join(f"{cell:>{w}}" for cell, w in zip(rest, widths[1:-1], strict=True))
            lines.append(f"{first:<{widths[0]}}  {middle}  {last}".rstrip())
        head = f"{self.derivative} of R^{self.inputs} -> R^{self.outputs}"
        return "\n".join([head, *lines, f"choice: {self.choice}, {self.reason}"])

    def _repr_html_(self) -> str:
        def line(cells: Sequence[str], tag: str, chosen: bool = False) -> str:
            style = " style='font-weight:bold'" if chosen else ""
            return f"<tr{style}>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

        body = "".join(line(cells, "td", cells[0] == self.choice) for cells in self._cells())
        head = f"{self.derivative} of R<sup>{self.inputs}</sup> &rarr; R<sup>{self.outputs}</sup>"
        reason = html.escape(f"{self.choice}: {self.reason}")
        return f"<table><caption>{head}</caption>{line(_HEADINGS, 'th')}{body}</table><p>{reason}</p>"

    def to_json(self) -> str:
        """All of it as JSON, an infinite difference as null."""
        report = asdict(self)
        for row in report["rows"]:
            if row["difference"] is not None and not math.isfinite(row["difference"]):
                row["difference"] = None
        return json.dumps(report, indent=2, allow_nan=False)

    def plot(self, path: str | Path | None = None) -> Any:
        """Bars of time and memory per mode, measured beside predicted.

        Args:
            path: where to save the figure; its ending says in which format.

        Returns:
            The matplotlib figure.

        Raises:
            ModuleNotFoundError: matplotlib (the extra `plot`) is not installed.
        """
        from matplotlib.figure import Figure

        rows = [row for row in self.rows if row.seconds is not None]
        figure = Figure(figsize=(8, 0.9 + 0.45 * max(len(rows), 1)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        places = np.arange(len(rows))
        colors = ["tab:orange" if row.mode == self.choice else "tab:blue" for row in rows]
        left.barh(places, [row.seconds or 0.0 for row in rows], color=colors)
        left.set(yticks=places, yticklabels=[row.mode for row in rows], xlabel="seconds", xscale="log")
        right.barh(places - 0.2, [(row.measured or 0) / 1e6 for row in rows], 0.4, color=colors, label="measured")
        predicted = [(row.memory or 0) / 1e6 for row in rows]
        right.barh(places + 0.2, predicted, 0.4, color="lightgray", label="predicted")
        right.set(xlabel="peak memory, MB", xscale="log")
        right.legend(fontsize="small")
        left.invert_yaxis()
        figure.suptitle(f"{self.derivative}, {self.inputs} inputs, {self.outputs} outputs; chosen: {self.choice}")
        if path is not None:
            figure.savefig(path)
        return figure


#: The bytes of the largest result whose modes are recorded; a recording computes what does not depend on the inputs.
_RECORDED = 1e9

_HEADINGS = ["mode", "sweeps", "flops", "predicted", "time", "peak", "difference", ""]


def _shown(value: Any, form: Callable[[Any], str]) -> str:
    return "-" if value is None else form(value)


def _duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def compare(
    fun: Callable[..., Any],
    derivative: str = "jacobian",
    argnums: int = 0,
    *,
    rounds: int = 7,
    memory: float | str = 2e9,
    progress: Progress | None = None,
) -> Callable[..., Comparison]:
    """A function that forms a derivative in every mode: predicts, runs, measures and compares them.

    Each mode is recorded as a program, which is priced (see `cost`) and run by NumPy operation by operation; functions
    that cannot be recorded run as they are. The modes take turns in each round.

    Args:
        fun: function of arrays with real floating point outputs; a scalar output for a Hessian.
        derivative: "jacobian", or "hessian".
        argnums: which argument to differentiate.
        rounds: how many rounds to time; 0 for none.
        memory: modes predicted to need more bytes than this are not run; a number, or text such as "500MB".
        progress: called with (steps done, steps in all, what is next).

    Returns:
        A function of the same arguments that gives a `Comparison`.

    Raises:
        ArgumentError: no such derivative, a negative number of rounds, or no amount of memory.
        FunctraceError: the derivative can be formed in no mode at all; the error is that of forward mode (when called).

    Example:
        >>> import numpy as np
        >>> from functrace.inspect import modes
        >>> found = modes.compare(lambda x: np.sin(x) * x.sum(), rounds=1)(np.ones(3))
        >>> [(row.mode, row.sweeps) for row in found.rows if row.mode in ("forward", "reverse")]
        [('forward', '3'), ('reverse', '3')]
    """
    check_callable(fun, "modes.compare")
    budget = parse_bytes(memory)
    if not isinstance(rounds, numbers.Integral) or rounds < 0:
        raise ArgumentError(
            "modes.compare takes turns a whole number of times",
            where=user_line(),
            got=f"rounds={rounds!r}",
            remedy="give rounds=7, say; 0 predicts and checks without timing",
        )
    if derivative not in ("jacobian", "hessian"):
        raise ArgumentError(
            "modes.compare knows Jacobians and Hessians",
            where=user_line(),
            got=repr(derivative),
            remedy='give "jacobian" or "hessian"',
        )

    @functools.wraps(fun)
    def compared(*args: Any, **kwargs: Any) -> Comparison:
        position = argument_positions(argnums, len(args), "modes.compare")[0]
        others = list(args)

        def of_one(x: Any) -> Any:
            others[position] = x
            return fun(*others, **kwargs)

        x = tree.map(canonicalize, args[position])
        n, m, plan = _plan(of_one, x, derivative)
        ways = _jacobians(of_one, x, n, m) if derivative == "jacobian" else _hessians(of_one, x, n, m)
        size = (n if derivative == "jacobian" else n * n) * m
        largest = size * max((aval_of(leaf).dtype.itemsize for leaf in tree.leaves(x)), default=1)
        step = progress or (lambda done, total, label: None)
        total = 2 * len(ways) + rounds
        prepared = []
        for k, way in enumerate(ways):
            step(k, total, f"recording {way.mode}")
            if largest > max(budget, _RECORDED):
                way.note = f"not run: the result alone takes {quantity(largest, 'B')}"
                prepared.append(way)
            else:
                prepared.append(_prepare(way, x, budget))
        errors = [way.error for way in ways if way.error is not None]
        if len(errors) == len(ways):
            raise errors[0]
        rows = _measure(prepared, rounds, lambda done, label: step(len(ways) + done, total, label))
        choice, reason = _explain(plan, derivative)
        return Comparison(derivative, n, m, tuple(rows), choice, reason)

    return compared


@dataclass
class Way:
    """A mode: the function that forms the derivative densely (None: it cannot), and how many sweeps it takes."""

    mode: str
    sweeps: str
    form: Callable[[Any], Any] | None
    program: Callable[[Any], Any] | None = None  # what is priced instead
    note: str = ""
    cost: Cost | None = None
    run: Callable[[], Any] | None = None
    error: FunctraceError | None = None

    def failed(self, error: FunctraceError) -> None:
        """It cannot be formed in this mode."""
        self.run, self.error, self.note = None, error, str(error).splitlines()[0]


def _plan(fun: Callable[..., Any], x: Any, derivative: str) -> tuple[int, int, Plan]:
    """How many inputs and outputs there are, and the plan that "auto" makes."""
    outer = fun if derivative == "jacobian" else jacobian(fun)
    count_flat = FlatFunction(fun, (x,), {})
    outs = count_flat(*count_flat.leaves)
    flat = FlatFunction(outer, (x,), {})
    values, program = linearize(flat, flat.leaves, None, flat.weak)
    plan, _, _ = decide(program, flat.out_tree.num_leaves, [aval_of(v) for v in values])
    n = sum(aval_of(leaf).size for leaf in flat.leaves)
    return n, sum(aval_of(o).size for o in outs), plan


def _explain(plan: Plan, derivative: str) -> tuple[str, str]:
    forward, reverse = f"forward {_duration(plan.forward)}", f"reverse {_duration(plan.reverse)}"
    what = "" if derivative == "jacobian" else " over the gradient"
    if plan.mode == "sparse":
        colors = f"{plan.colors} colour{'s' * (plan.colors != 1)} of the pattern"
        return "sparse", f"{colors}; predicted {forward}, {reverse}{what}"
    if plan.mode == "split":
        waist = min(plan.widths)
        return "split", f"a waist of {waist}: predicted {_duration(plan.tree.seconds)}; {forward}, {reverse}{what}"
    if derivative == "hessian":
        return {"forward": "fwd-rev", "reverse": "rev-rev"}[plan.mode], f"predicted {forward}, {reverse}{what}"
    return plan.mode, f"predicted {forward}, {reverse}"


def _jacobians(fun: Callable[..., Any], x: Any, n: int, m: int) -> list[Way]:
    ways = [Way("forward", str(n), jacfwd(fun)), Way("reverse", str(m), jacrev(fun))]
    return [*ways, *_split(fun, x), *_sparse(fun, x, "jacobian")]


def _hessians(fun: Callable[..., Any], x: Any, n: int, m: int) -> list[Way]:
    sweeps = {"fwd-rev": n * m, "rev-rev": n * m * m, "fwd-fwd": n * n, "rev-fwd": n * n * m}
    ways = [Way(mode, str(count), hessian(fun, mode=mode)) for mode, count in sweeps.items()]
    if isinstance(x, (np.ndarray, np.generic)) and m == 1:
        shape = np.shape(x)

        def by_products(x: Any) -> Any:
            rows = lax.map(lambda e: hvp(fun, x, e), np.eye(n, dtype=x.dtype).reshape(n, *shape))
            return np.reshape(rows, (*shape, *shape))

        ways.append(Way("hvp", f"{n}, one by one", by_products))
    gradient = grad(fun) if m == 1 else jacrev(fun)
    return [*ways, *_split(gradient, x), *(_sparse(fun, x, "hessian") if m == 1 else [])]


def _split(fun: Callable[..., Any], x: Any) -> list[Way]:
    """The product at the waist, if there is one."""
    flat = FlatFunction(fun, (x,), {})
    try:
        _, program = linearize(flat, flat.leaves, None, flat.weak)
        plan, _ = choose(program, flat.out_tree.num_leaves, split=True)
    except FunctraceError:
        return []
    if plan.mode != "split":
        return []
    return [Way("split", " + ".join(map(str, plan.sweeps())), jacobian(fun, mode="split"))]


def _sparse(fun: Callable[..., Any], x: Any, derivative: str) -> list[Way]:
    """By a colouring of the pattern, or element by element; nothing where the pattern cannot be proved."""
    if not isinstance(x, np.ndarray):
        return []
    matrix = getattr(sparse, derivative)(fun)
    try:
        found = matrix.prepare(x)
    except FunctraceError as error:
        return [Way("sparse", "-", None, note=str(error).splitlines()[0], error=error)]
    shape = (*x.shape, *x.shape) if derivative == "hessian" else None

    def form(x: Any) -> Any:
        dense = matrix(x).toarray()
        return dense.reshape(shape) if shape else dense

    choice = found.choice
    note = f"{choice.method}, {len(found.rows)} entries"
    return [Way("sparse", str(choice.sweeps), form, lambda x: found.values(x), note)]


def _prepare(way: Way, x: Any, memory: float) -> Way:
    """The mode recorded and priced."""
    form = way.form
    if form is None:
        return way
    try:
        closed = make_jaxpr(way.program or form)(x)
    except AbstractValueError:
        way.run, way.note = (lambda: form(x)), "not recorded: Python branches on values, or a while counts its steps"
        return way
    except FunctraceError as error:
        way.failed(error)
        return way
    jaxpr = simplify(closed.jaxpr)
    way.cost = jaxpr_cost(jaxpr)
    if way.cost.peak > memory:
        way.note = "not run: predicted to need too much memory"
    elif way.program is not None:
        way.run = lambda: form(x)
    else:
        leaves = tree.leaves(x)
        run = python_function(jaxpr)
        consts = closed.consts

        def call() -> Any:
            with np.errstate(all="ignore"):
                return export(run(*consts, *leaves), [*consts, *leaves])

        way.run = call
    return way


def _measure(ways: list[Way], rounds: int, step: Callable[[int, str], None]) -> list[Row]:
    active = [way for way in ways if way.run is not None]
    differences: dict[str, float] = {}
    peaks: dict[str, int] = {}
    reference: np.ndarray | None = None
    for k, way in enumerate(list(active)):
        step(k, f"checking {way.mode}")
        assert way.run is not None
        try:
            result = _flat(way.run())
        except FunctraceError as error:
            way.failed(error)
            active.remove(way)
            continue
        if reference is None:
            reference = result
        differences[way.mode] = _difference(result, reference)
        peaks[way.mode] = _peak(way.run)
    times = np.full((rounds, len(active)), np.nan)
    for i in range(rounds):
        step(len(ways) + i, f"round {i + 1} of {rounds}")
        for turn in range(len(active)):
            k = (turn + i) % len(active)  # nobody is always the first
            run = active[k].run
            assert run is not None
            start = time.perf_counter()
            run()
            times[i, k] = time.perf_counter() - start
    medians = dict(zip((w.mode for w in active), np.median(times, axis=0), strict=True)) if rounds else {}
    return [
        Row(
            way.mode,
            way.sweeps,
            None if way.cost is None else way.cost.flops,
            None if way.cost is None else way.cost.peak,
            float(medians[way.mode]) if way.mode in medians else None,
            peaks.get(way.mode),
            differences.get(way.mode),
            way.note,
        )
        for way in ways
    ]


def _difference(result: np.ndarray, reference: np.ndarray) -> float:
    """See `Row.difference`."""
    same = (result == reference) | (np.isnan(result) & np.isnan(reference))
    if same.all():
        return 0.0
    if not (np.isfinite(result) & np.isfinite(reference))[~same].all():
        return math.inf
    scale = float(np.max(np.abs(reference), where=np.isfinite(reference), initial=0.0))
    return float(np.max(np.abs(result[~same] - reference[~same]))) / max(scale, np.finfo(float).tiny)


def _flat(result: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in tree.leaves(result)] or [np.zeros(0)])


def _peak(run: Callable[[], Any]) -> int:
    already = tracemalloc.is_tracing()
    if not already:
        tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if not already:
            tracemalloc.stop()
