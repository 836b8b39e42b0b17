"""Sparsity: which inputs every element of a program depends on, and which pairs of inputs have second derivatives.

Structural, from each primitive's `sparsity` rule: the patterns hold for every value of the inputs. A program becomes a
list of nodes, one per array that some input reaches; what no input reaches is evaluated. Dependency sets go forward
through the nodes that need them. For second derivatives, liveness goes backward (which elements reach the outputs),
and each nonlinear operation pairs the sets of its live operands: A. Griewank and A. Walther, Evaluating Derivatives
(2008), sections 7.1 and 7.2, on sets of whole arrays instead of single elements.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from functrace.core.evaluate import evaluate_plain
from functrace.core.ir import Atom, ClosedJaxpr, Jaxpr, Literal, Var, has_effects
from functrace.core.primitive import Primitive
from functrace.core.structure import Linked, Moves, Pointwise, Structure, numbered, whole
from functrace.core.trace import EVAL, Trace, Tracer, current_trace, reset_trace, set_trace
from functrace.core.types import ShapedArray, aval_of, is_inexact
from functrace.interpreters._curvature import Keys, backward, curved_operands, multiply
from functrace.interpreters._dependence import Sets, Term, Terms
from functrace.util import Source

__all__ = [
    "DependenceTrace", "DependenceTracer", "Program", "Step", "derived", "hessian_structure", "inline",
    "jacobian_structure",
]  # fmt: skip


class DependenceTracer(Tracer):
    """An array whose value is not known; a node of the program if some input reaches it.

    Attributes:
        position: the node's position in its trace, or None.
        structure, operands: how it depends on which operands (None: no input reaches that one).
        operation: the name of the primitive.
        source: the user's line.
    """

    def __init__(
        self,
        trace: DependenceTrace,
        aval: ShapedArray,
        structure: Structure = None,
        operands: Sequence[Any] = (),
        operation: str = "",
    ) -> None:
        self._trace: DependenceTrace = trace
        self._aval = aval
        self.structure = structure
        self.operation = operation
        self.source = trace.line
        self.position: int | None = None
        self.shapes = [np.shape(o) if not isinstance(o, Tracer) else o.shape for o in operands]
        self.operands: list[DependenceTracer | None] = [
            o if type(o) is DependenceTracer and o._trace is trace and o.position is not None else None
            for o in operands
        ]

    @property
    def aval(self) -> ShapedArray:
        return self._aval

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self._aval.shape

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        return self._aval.dtype

    def become(self, other: DependenceTracer) -> None:  # type: ignore[override]
        self.__dict__.update(other.__dict__)


class DependenceTrace(Trace):
    """Records how every array depends on others; evaluates what is known."""

    name = "sparsity"

    def __init__(self) -> None:
        super().__init__(EVAL)
        self.nodes: list[DependenceTracer] = []
        self.line: Source | None = None

    def unknown(self, aval: ShapedArray) -> DependenceTracer:
        """A value that is not known and that no input reaches."""
        return DependenceTracer(self, aval)

    def node(
        self, aval: ShapedArray, structure: Structure, operands: Sequence[Any] = (), operation: str = ""
    ) -> DependenceTracer:
        """A value that depends on others; an input where the structure is None."""
        tracer = DependenceTracer(self, aval, structure, operands, operation)
        tracer.position = len(self.nodes)
        self.nodes.append(tracer)
        return tracer

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        if primitive.effectful or any(isinstance(a, Tracer) for a in args):
            found = primitive.abstract_eval(*map(aval_of, args), **params)
            return self._depend(primitive, args, params, list(found) if primitive.multiple else [found])
        try:
            return evaluate_plain(primitive, args, params)
        except Exception:  # in a branch not taken, for instance
            found = primitive.abstract_eval(*map(aval_of, args), **params)
            outs = [self.unknown(a) for a in (found if primitive.multiple else [found])]
            return outs if primitive.multiple else outs[0]

    def _depend(
        self, primitive: Primitive, args: Sequence[Any], params: dict[str, Any], avals: list[ShapedArray]
    ) -> Any:
        reached = any(type(a) is DependenceTracer and a.position is not None for a in args)
        if not reached or primitive.nondifferentiable or not any(is_inexact(a.dtype) for a in avals):
            outs: list[Any] = [self.unknown(a) for a in avals]
        else:
            rule = primitive.sparsity or _anything
            structures = rule(list(args), avals, **params)
            outs = [self._output(primitive, a, s, args) for a, s in zip(avals, structures, strict=True)]
        return outs if primitive.multiple else outs[0]

    def _output(self, primitive: Primitive, aval: ShapedArray, structure: Any, args: Sequence[Any]) -> Any:
        if not isinstance(structure, (Pointwise, Moves, Linked)) and structure is not None:
            return structure
        if structure is None or not is_inexact(aval.dtype):
            return self.unknown(aval)
        return self.node(aval, structure, args, primitive.name)

    def run(self, jaxpr: Jaxpr, consts: Sequence[Any], values: Sequence[Any]) -> list[Any]:
        """Run a program, each equation under its own source line."""
        env: dict[Var, Any] = {}
        env.update(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, values, strict=True))
        outside = self.line

        def read(atom: Atom) -> Any:
            return atom.val if isinstance(atom, Literal) else env[atom]

        for eqn, dying in zip(jaxpr.eqns, jaxpr.last_uses, strict=True):
            self.line = eqn.source or outside
            args = tuple([read(a) for a in eqn.invars])
            if any([type(a) is DependenceTracer for a in args]) or (eqn.primitive.multiple and has_effects(eqn)):
                outs = self._depend(eqn.primitive, args, eqn.params, [v.aval for v in eqn.outvars])
            else:
                outs = self.process(eqn.primitive, args, eqn.params)
            env.update(zip(eqn.outvars, outs if eqn.primitive.multiple else [outs], strict=True))
            for var in dying:
                env.pop(var, None)
        self.line = outside
        return [read(a) for a in jaxpr.outvars]


_anything = whole()


def _trace_of_rule() -> DependenceTrace:
    trace = current_trace()
    if not isinstance(trace, DependenceTrace):
        raise TypeError("sparsity rules run under a DependenceTrace")
    return trace


def inline(jaxpr: Jaxpr, *values: Any) -> list[Any]:
    """The outputs of a program, in a `sparsity` rule: the program takes the place of the operation."""
    return _trace_of_rule().run(jaxpr, (), values)


def derived(aval: ShapedArray, structure: Structure, operands: Sequence[Any], operation: str) -> Any:
    """An array that depends on others as a structure says, in a `sparsity` rule."""
    trace = _trace_of_rule()
    if not any(isinstance(o, DependenceTracer) and o.position is not None for o in operands):
        return trace.unknown(aval)
    return trace.node(aval, structure, operands, operation)


class Step(NamedTuple):
    """An operation that makes an entry nonzero: the user's line and the primitive's name."""

    source: Source | None
    operation: str


class Program:
    """A program analysed for its dependence on some of its inputs.

    Args:
        closed: the program.
        wrt: per input, whether its elements count. They are numbered in order, flattened, one input after another.
        values: per input, its value where that is fixed (nothing depends on the input then), or None.

    Attributes:
        size: how many elements count.
        outs: the outputs, tracers or known values.
    """

    def __init__(self, closed: ClosedJaxpr, wrt: Sequence[bool], values: Sequence[Any] | None = None) -> None:
        self.trace = DependenceTrace()
        self.leaves: dict[int, int] = {}
        self.size = 0
        args: list[Any] = []
        values = [None] * len(closed.in_avals) if values is None else values
        for aval, counts, value in zip(closed.in_avals, wrt, values, strict=True):
            if value is not None:
                args.append(value)
            elif counts and is_inexact(aval.dtype):
                leaf = self.trace.node(aval, None)
                self.leaves[len(self.trace.nodes) - 1] = self.size
                args.append(leaf)
            else:
                args.append(self.trace.unknown(aval))
            self.size += aval.size if counts else 0
        token = set_trace(self.trace)
        try:
            self.outs = self.trace.run(closed.jaxpr, closed.consts, args)
        finally:
            reset_trace(token)

    # forward

    def sets(self, wanted: Iterable[DependenceTracer], sets: Sets, leaf: Callable[[int, ShapedArray], Terms]) -> Any:
        """The dependency sets of the wanted nodes and of all that these depend on, by position."""
        nodes = self.trace.nodes
        needed = np.zeros(len(nodes), bool)
        for node in wanted:
            needed[node.position] = True
        for position in range(len(nodes) - 1, -1, -1):
            if needed[position]:
                for operand in nodes[position].operands:
                    if operand is not None:
                        needed[operand.position] = True
        found: dict[int, Terms] = {}
        for position in np.flatnonzero(needed).tolist():
            node = nodes[position]
            if node.structure is None:
                found[position] = leaf(self.leaves[position], node.aval)
                continue
            operands = [() if o is None else found[o.position] for o in node.operands]  # type: ignore[index]
            found[position] = sets.forward(node.structure, operands, node.shapes, node.shape)
        return found

    def jacobian(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per output, (indptr, indices) of its elements' input numbers, ascending."""
        sets = Sets(self.size)
        nodes = [o for o in self.outs if isinstance(o, DependenceTracer) and o.position is not None]
        found = self.sets(nodes, sets, _numbered)
        tables = []
        for out in self.outs:
            size = aval_of(out).size
            reached = isinstance(out, DependenceTracer) and out.position is not None
            terms = found[out.position] if reached else ()
            parts = [(np.arange(1, size + 1), t.numbers.reshape(-1), t.table) for t in terms]
            if len(parts) == 1 and parts[0][2] is None:
                rows = parts[0][1]
                indptr = np.zeros(size + 1, np.intp)
                np.cumsum(rows > 0, out=indptr[1:])
                tables.append((indptr, rows[rows > 0] - 1))
                continue
            table = sets.table(parts, size)
            tables.append((table.indptr, table.indices))
        return tables

    # backward

    def live(self, seeds: Sequence[np.ndarray | None] | None = None) -> dict[int, np.ndarray]:
        """Per node, which elements reach an output (of those in the seeds, by default all)."""
        nodes = self.trace.nodes
        live: dict[int, np.ndarray] = {}
        for i, out in enumerate(self.outs):
            if isinstance(out, DependenceTracer) and out.position is not None:
                seed = np.ones(out.shape, bool) if seeds is None else seeds[i]
                if seed is not None:
                    live[out.position] = live[out.position] | seed if out.position in live else seed
        for position in range(len(nodes) - 1, -1, -1):
            reached = live.get(position)
            if reached is None or nodes[position].structure is None:
                continue
            node = nodes[position]
            for operand, mask in zip(node.operands, backward(node, reached), strict=True):
                if operand is not None and mask is not None and operand.position is not None:
                    before = live.get(operand.position)
                    live[operand.position] = mask if before is None else before | mask
        return live

    def hessian(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, cols), row-major and symmetric: the pairs of inputs that have a second derivative in some output."""
        keys = Keys(self.size)
        for _ in self._products(self.live(), keys, _numbered):
            pass
        return keys.symmetric()

    def _products(
        self, live: dict[int, np.ndarray], keys: Keys, leaf: Callable[[int, ShapedArray], Terms]
    ) -> Iterator[DependenceTracer]:
        """Add the products of every live node to the keys, one node at a time."""
        curved = [n for p, n in enumerate(self.trace.nodes) if p in live and curved_operands(n) and live[p].any()]
        operands = [o for node in curved for i in curved_operands(node) if (o := node.operands[i]) is not None]
        sets = Sets(self.size)
        found = self.sets(operands, sets, leaf)
        tightened: dict[int, Terms] = {}

        def tight(position: int | None) -> Terms:
            if position is None:
                return ()
            if position not in tightened:
                tightened[position] = sets.tight(found.get(position, ()))
            return tightened[position]

        for node in reversed(curved):  # the last operations have the largest sets
            terms = [() if o is None else tight(o.position) for o in node.operands]
            multiply(node, live[node.position], terms, sets, keys)  # type: ignore[index]
            yield node

    # questions

    def why_jacobian(self, out: int, element: int, column: int) -> list[Step]:
        """The operations on the way from an input element to an output element, in order."""
        seeds: list[np.ndarray | None] = [None] * len(self.outs)
        seeds[out] = numbered(aval_of(self.outs[out]).shape) == element + 1
        live = self.live(seeds)
        nodes = [self.trace.nodes[p] for p in live]
        found = self.sets(nodes, Sets(self.size), _marking({column: 1}))
        return [
            Step(n.source, n.operation)
            for p, n in enumerate(self.trace.nodes)
            if p in live and n.structure is not None and any((t.numbers[live[p]] > 0).any() for t in found[p])
        ]

    def why_hessian(self, row: int, column: int) -> list[Step]:
        """The operations that multiply the two inputs, in order."""
        keys = Keys(self.size, listed=True)
        leaf = _marking({row: row + 1, column: column + 1})
        steps, wanted = [], max(row, column) * self.size + min(row, column)
        for node in self._products(self.live(), keys, leaf):
            if any((k == wanted).any() for k in keys.take()):
                steps.append(Step(node.source, node.operation))
        return steps[::-1]


def _numbered(start: int, aval: ShapedArray) -> Terms:
    """The sets of an input: each element itself."""
    return (Term(np.arange(start + 1, start + aval.size + 1).reshape(aval.shape)),)


def _marking(marks: dict[int, int]) -> Callable[[int, ShapedArray], Terms]:
    """The sets of an input where only some elements count."""

    def leaf(start: int, aval: ShapedArray) -> Terms:
        numbers = np.zeros(aval.size, np.intp)
        for column, number in marks.items():
            if start <= column < start + aval.size:
                numbers[column - start] = number
        return (Term(numbers.reshape(aval.shape)),)

    return leaf


# programs


def jacobian_structure(closed: ClosedJaxpr, wrt: Sequence[bool]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The structure of a program's Jacobian.

    Args:
        closed: the program.
        wrt: per input, whether its elements are columns (flattened, one input after another).

    Returns:
        Per output (indptr, indices): element e of the flattened output depends on the input elements
        `indices[indptr[e]:indptr[e + 1]]`, ascending.
    """
    return Program(closed, wrt).jacobian()


def hessian_structure(closed: ClosedJaxpr, wrt: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    """The structure of the Hessian of a program's output (of a weighted sum of its outputs, if there are more).

    Args:
        closed: the program.
        wrt: per input, whether its elements are rows and columns (flattened, one input after another).

    Returns:
        (rows, cols), both triangles, row-major.
    """
    return Program(closed, wrt).hessian()
