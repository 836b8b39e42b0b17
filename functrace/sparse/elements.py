"""Sparse second derivatives of separable programs, element by element: no colours, whatever the structure.

A scalar program made of elementwise operations, slices and gathers is a sum of element functions of a few inputs each.
Its Hessian is the sum of their small Hessians: one program of array operations computes them for all elements at once,
and a plan made beforehand adds them into the values of a fixed structure.
"""

from __future__ import annotations

import functools
import math
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from functrace.backend.executable import Executable, compilation_disabled
from functrace.core.ir import ClosedJaxpr, eval_jaxpr, hoist_constants
from functrace.core.trace import EVAL, Tracer, current_trace
from functrace.errors import CompilationWarning, MissingRuleError, ShapeError
from functrace.primitives.families import reshape
from functrace.primitives.shape import concatenate
from functrace.sparse._element_assembly import Assembly, Contribution, plan_assembly
from functrace.sparse._element_derivatives import Derivatives, gradients, operations, second_derivatives
from functrace.sparse._element_graph import NotSeparable
from functrace.sparse._element_maps import IndexMap, from_array, shift
from functrace.sparse._element_programs import Wanted, values_program
from functrace.sparse._element_steps import Steps
from functrace.sparse._element_weights import Program
from functrace.sparse._families import Family, element_families, output_families
from functrace.util import Source, user_line, without_collection

__all__ = ["ElementHessian", "ElementJacobian", "FamilyReport", "element_hessian", "element_jacobian"]


#: Machine code is made in the background once NumPy calls have taken a share of the time that making it takes: making
#: it slows down whatever else Python does meanwhile, and a short solve is over before it is ready.
_SECONDS_PER_EQUATION = 5e-4
_SHARE_BEFORE_CODE = 0.5


#: Of so many numbers a product of vectors is quicker than a look at each.
_FEW = 4096


@dataclass(frozen=True)
class FamilyReport:
    """One family of element functions, for a report.

    Attributes:
        elements: how many elements.
        width: how many inputs each reads.
        entries: how many second (or first) derivatives each has.
        operations: additions, or what costs as much, per element.
        places: the user's lines of its arrays.
    """

    elements: int
    width: int
    entries: int
    operations: float
    places: tuple[Source, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """The user's lines of its arrays, as text."""
        return tuple(dict.fromkeys(map(str, self.places)))


@dataclass(frozen=True)
class ElementCost:
    """Predicted work of one evaluation: arithmetic operations, and bytes read and written between programs."""

    flops: float
    bytes: float


class _Evaluation:
    """A program on plain values, by NumPy calls at once and as machine code as soon as there is some."""

    def __init__(self, closed: ClosedJaxpr, plan: Assembly) -> None:
        self.closed, self.plan = closed, plan
        self._steps = Steps(closed)
        self._shapes = [v.aval.shape for v in closed.jaxpr.invars]
        self._executable: Executable | None = None
        self._spent = 0.0
        self._worth = _SECONDS_PER_EQUATION * len(closed.eqns) * _SHARE_BEFORE_CODE
        self._lock = threading.Lock()
        self._ordered = compilation_disabled()

    def __call__(self, args: Sequence[Any]) -> Sequence[Any]:
        if len(args) != len(self._shapes) or any(
            getattr(arg, "shape", ()) != shape for arg, shape in zip(args, self._shapes, strict=True)
        ):
            raise ShapeError(
                "the derivatives were prepared for arguments of other shapes",
                where=user_line(),
                got=", ".join(str(np.shape(arg)) for arg in args) + f" for {', '.join(map(str, self._shapes))}",
                remedy="pass arguments like those that the program was recorded for, or prepare it for these",
            )
        if self._executable is not None:
            return self._executable.run(*args)
        start = time.thread_time()  # of this thread: what others do must not decide
        found = self._steps(args)
        self._spent += time.thread_time() - start
        if not self._ordered and self._spent > self._worth:
            self._ordered = True
            sample = [np.array(a) for a in args], [np.array(f) for f in found]
            threading.Thread(target=self.compile, args=sample, name="functrace-elements").start()
        return found

    def compile(self, args: Sequence[Any] | None = None, expected: Sequence[Any] = ()) -> None:
        """Make the machine code now.

        Args:
            args, expected: arguments and what they gave, which the code has to give too before it is used.
        """
        with self._lock:
            if self._executable is None:
                self._ordered = True
                executable = Executable(*hoist_constants(self.closed))
                if args is None or _agree(executable.run(*[a[()] for a in args]), expected):
                    self._executable = executable
                else:
                    warnings.warn(
                        "machine code of sparse derivatives gives other values than NumPy does and is not used; please "
                        "report this as a bug of functrace, with the function",
                        CompilationWarning,
                        stacklevel=2,
                    )

    def traced(self, args: Sequence[Any]) -> list[Any]:
        return eval_jaxpr(self.closed.jaxpr, self.closed.consts, *args)


def _agree(found: Sequence[Any], expected: Sequence[Any]) -> bool:
    """Whether two evaluations are the same but for rounding."""
    for value, wanted in zip(found, expected, strict=True):
        finite = np.isfinite(wanted)
        scale = np.abs(wanted, where=finite, out=np.zeros_like(wanted)).max(initial=0)
        if not np.allclose(value, wanted, rtol=1e-4, atol=1e-6 * scale, equal_nan=True):
            return False
    return True


class _Elements:
    """What Hessians and Jacobians have in common."""

    symmetric = False

    def __init__(self, program: Program, families: Sequence[Family]) -> None:
        self._program, self._families = program, families
        self.dtype = program.dtype
        self.rows: np.ndarray
        self.cols: np.ndarray
        self._wanted: Sequence[Wanted]

    def why(self, row: int, col: int) -> tuple[str, ...]:
        """The user's lines that make an entry nonzero; none if it is not in the structure.

        Args:
            row, col: the entry; of a Hessian in either triangle.
        """
        found: dict[str, None] = {}
        for wanted in self._wanted:
            rows, columns = wanted.entry.rows.positions(), wanted.entry.columns.positions()
            here = (rows == row) & (columns == col)
            if self.symmetric:
                here |= (rows == col) & (columns == row)
            if here.any():
                found.update(dict.fromkeys(map(str, self._places(wanted.family))))
        return tuple(found)

    def _places(self, family: Family) -> tuple[Source, ...]:
        """The user's lines of a family's arrays."""
        eqns = [self._program.producer[v][0] for v in family.arrays if v in self._program.producer]
        return tuple(dict.fromkeys(e.source for e in eqns if e.source is not None))

    @functools.cached_property
    def families(self) -> tuple[FamilyReport, ...]:
        """A report on each family of element functions."""
        reports = []
        for family in self._families:
            wanted = [w.node for w in self._wanted if w.family is family]
            live = family.graph.live([node for node, _ in family.roots])
            width = sum(family.graph.active[n] and family.graph.primitives[n] is None for n in live)
            price = operations(family.graph, wanted)
            reports.append(FamilyReport(family.count, width, len(wanted), price, self._places(family)))
        return tuple(reports)

    @functools.cached_property
    def cost(self) -> ElementCost:
        """The predicted cost of one evaluation."""
        size = self.dtype.itemsize
        return ElementCost(
            sum(r.elements * (r.operations + r.entries) for r in self.families),
            sum(size * r.elements * (r.width + 2 * r.entries) for r in self.families),
        )


def _offsets(program: Program) -> dict[Any, int]:
    """Where each input of interest starts in all of them, flat and one after the other."""
    offsets, total = {}, 0
    for var in program.wrt:
        offsets[var] = total
        total += var.aval.size
    return offsets


class ElementHessian(_Elements):
    """The Hessian of a separable scalar program by some of its inputs; see `element_hessian`.

    Attributes:
        rows, cols: the structure: lower triangle, sorted by columns and in them by rows, each entry once.
    """

    symmetric = True

    def __init__(self, program: Program, families: Sequence[Family]) -> None:
        super().__init__(program, families)
        offsets = _offsets(program)
        size = sum(v.aval.size for v in program.wrt)
        self.rows, self.cols, self._evaluation, self._wanted = self._make(offsets, size, careful=False)
        self._offsets, self._size = offsets, size
        self._careful: _Evaluation | None = None

    def _make(self, offsets: dict[Any, int], size: int, careful: bool) -> tuple[Any, Any, _Evaluation, Any]:
        wanted: list[Wanted] = []
        for family in self._families:
            found = second_derivatives(Derivatives(family.graph, family.roots, careful))
            for (a, b), node in sorted(found.items()):
                at, by = (shift(where, offsets[var]) for var, where in map(family.read, (a, b)))
                entry, factor = _entry(at, by, a == b)
                if isinstance(factor, int):
                    node, factor = family.graph.mul(family.graph.number(self.dtype.type(factor)), node), None
                wanted.append(Wanted(family, node, entry, factor))
        rows, cols, plan = plan_assembly([w.entry for w in wanted], size)
        return rows, cols, _Evaluation(values_program(self._program, wanted, plan), plan), wanted

    @property
    def shape(self) -> tuple[int, int]:
        return (self._size, self._size)

    @property
    def nnz(self) -> int:
        """The number of entries of the structure."""
        return self.rows.size

    def compile(self) -> None:
        """Make the machine code now instead of in the background."""
        self._evaluation.compile()

    def careful(self) -> _Evaluation:
        """The evaluation in which an element with multiplier zero contributes zero, be its derivatives infinite."""
        if self._careful is None:
            rows, cols, self._careful, _ = self._make(self._offsets, self._size, careful=True)
            assert np.array_equal(rows, self.rows) and np.array_equal(cols, self.cols)
        return self._careful

    def values(self, *args: Any, out: np.ndarray | None = None) -> Any:
        """The entries at some inputs of the program.

        Args:
            args: one value per input of the program.
            out: array for the result, of plain values.

        Returns:
            One number per entry of the structure.

        Raises:
            ShapeError: an argument has another shape than the program's input.
        """
        if _is_traced(args):
            return self.careful().traced(args)[0]
        found = self._evaluation(args)[0]
        if not _all_finite(found):
            found = self.careful()(args)[0]
        return _put(found, out)


def _all_finite(values: np.ndarray) -> bool:
    """Whether no number is infinite or NaN; of few by their sum of squares, which is finite then but for overflow."""
    if values.size <= _FEW and math.isfinite(values.dot(values)):
        return True
    return bool(np.isfinite(values).all())


def _is_traced(args: Sequence[Any]) -> bool:
    return current_trace() is not EVAL or any(isinstance(a, Tracer) for a in args)


def _put(values: Any, out: np.ndarray | None) -> Any:
    if out is None:
        return values
    out[...] = values
    return out


def _entry(at: IndexMap, by: IndexMap, same: bool) -> tuple[Contribution, Any]:
    """The entries, in the lower triangle, of the second derivatives by two leaves, and what these count for there."""
    if same:
        return Contribution(at, at), None
    if at.array is None and by.array is None and at.step == by.step:
        apart = at.start - by.start
        return Contribution(at, by) if apart >= 0 else Contribution(by, at), None if apart else 2
    first, second = at.positions(), by.positions()
    equal = first == second
    factor = np.where(equal, 2.0, 1.0) if equal.any() else None
    return Contribution(from_array(np.maximum(first, second)), from_array(np.minimum(first, second))), factor


class ElementJacobian(_Elements):
    """Values and Jacobian of a program whose outputs are element functions; see `element_jacobian`.

    Attributes:
        rows, cols: the structure, sorted by columns and in them by rows, each entry once.
    """

    def __init__(self, program: Program, families: Sequence[Family]) -> None:
        super().__init__(program, families)
        offsets, total = _offsets(program), 0
        starts: list[int] = []
        for out in program.outvars:
            starts.append(total)
            total += out.aval.size
        self.shape = (total, sum(v.aval.size for v in program.wrt))
        wanted: list[Wanted] = []
        for family in families:
            graph = family.graph
            for (root, _), places, number in zip(family.roots, family.places, family.numbers, strict=True):
                derivatives = Derivatives(graph, [(root, graph.one)])
                for leaf, node in _leaf_slopes(derivatives, root).items():
                    source, where = family.read(leaf)
                    entry = Contribution(shift(places, starts[number]), shift(where, offsets[source]))
                    wanted.append(Wanted(family, node, entry, None))
        self.rows, self.cols, plan = plan_assembly([w.entry for w in wanted], total)
        self._evaluation = _Evaluation(values_program(program, wanted, plan), plan)
        self._plan, self._wanted = plan, wanted

    @functools.cached_property
    def _with_outputs(self) -> _Evaluation:
        return _Evaluation(values_program(self._program, self._wanted, self._plan, outputs=True), self._plan)

    @property
    def nnz(self) -> int:
        """The number of entries of the structure."""
        return self.rows.size

    def values(self, *args: Any, out: np.ndarray | None = None) -> Any:
        """The entries at some inputs of the program; see `ElementHessian.values`."""
        if _is_traced(args):
            return self._evaluation.traced(args)[0]
        return _put(self._evaluation(args)[0], out)

    def evaluate(self, *args: Any) -> tuple[Any, Any]:
        """The outputs, flat and one after the other, and the entries, in one program that shares their work."""
        if _is_traced(args):
            *outputs, entries = self._with_outputs.traced(args)
            return concatenate(*[reshape(o, shape=(np.size(o),)) for o in outputs], axis=0), entries
        *outputs, entries = self._with_outputs(args)
        return np.concatenate([np.ravel(o) for o in outputs]), entries


def _leaf_slopes(derivatives: Derivatives, root: int) -> dict[int, int]:
    """The derivatives of a root by the leaves: forwards or by adjoints, whichever needs fewer operations."""
    graph = derivatives.graph
    forwards = gradients(derivatives).get(root, {})
    backwards = {n: bar for n, bar in derivatives.adjoints.items() if graph.primitives[n] is None}
    cheaper = operations(graph, list(backwards.values())) < operations(graph, list(forwards.values()))
    return dict(sorted((backwards if cheaper else forwards).items()))


def element_hessian(closed: ClosedJaxpr, wrt: Sequence[int] = (0,)) -> ElementHessian | None:
    """The Hessian of a scalar program as the sum of its element Hessians.

    The program must be a sum of element functions (partial separability: A. Griewank and Ph. L. Toint, On the
    unconstrained optimization of partially separable functions, 1982). Everything but the numbers is worked out here:
    the families, the derivatives of their element functions as programs, the structure, and the places of the numbers
    in it; in time linear in the number of elements.

    Args:
        closed: a program with one scalar output.
        wrt: the positions of the inputs to differentiate by, real and of one dtype.

    Returns:
        The Hessian, or None where the program does not separate.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> from functrace.sparse.elements import element_hessian
        >>> x = np.array([1.0, 2.0, 3.0])
        >>> H = element_hessian(functrace.make_jaxpr(lambda x: np.sum(x[1:] * x[:-1] ** 2))(x))
        >>> H.rows, H.cols, H.values(x)
        (array([0, 1, 1, 2]), array([0, 0, 1, 1]), array([4., 2., 6., 4.]))
    """
    try:
        with without_collection():
            program = Program(closed, wrt)
            return ElementHessian(program, element_families(program))
    except (NotSeparable, MissingRuleError):
        return None


def element_jacobian(closed: ClosedJaxpr, wrt: Sequence[int] = (0,)) -> ElementJacobian | None:
    """The Jacobian of a program whose output elements are functions of a few input elements each.

    Args:
        closed: a program.
        wrt: the positions of the inputs to differentiate by, real and of one dtype.

    Returns:
        The Jacobian, its rows the outputs one after the other and its columns the inputs likewise; None where the
        program does not separate.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> from functrace.sparse.elements import element_jacobian
        >>> x = np.array([1.0, 2.0, 3.0])
        >>> J = element_jacobian(functrace.make_jaxpr(lambda x: x[1:] * x[:-1] ** 2)(x))
        >>> J.rows, J.cols, J.values(x)
        (array([0, 0, 1, 1]), array([0, 1, 1, 2]), array([ 4.,  1., 12.,  4.]))
    """
    try:
        with without_collection():
            program = Program(closed, wrt)
            return ElementJacobian(program, output_families(program))
    except (NotSeparable, MissingRuleError):
        return None
