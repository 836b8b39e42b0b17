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
from functrace.core.structure import (
    Along,
    ElementProduct,
    GroupProduct,
    Groups,
    Linked,
    Moves,
    Pairs,
    Pointwise,
    Structure,
    numbered,
    whole,
)
from functrace.core.trace import EVAL, Trace, Tracer, current_trace, reset_trace, set_trace
from functrace.core.types import ShapedArray, aval_of, is_inexact
from functrace.interpreters._dependence import Sets, Table, Term, Terms, along_groups, repeated_rows, sorted_unique
from functrace.util import Source

__all__ = [
    "DependenceTrace", "DependenceTracer", "Program", "Step", "hessian_structure", "inline", "jacobian_structure",
    "derived",
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
            terms = found[out.position] if any(out is node for node in nodes) else ()
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
            for operand, mask in zip(node.operands, _backward(node, reached), strict=True):
                if operand is not None and mask is not None and operand.position is not None:
                    before = live.get(operand.position)
                    live[operand.position] = mask if before is None else before | mask
        return live

    def hessian(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, cols), row-major and symmetric: the pairs of inputs that have a second derivative in some output."""
        keys = _Keys(self.size)
        for _ in self._products(self.live(), keys, _numbered):
            pass
        return keys.symmetric()

    def _products(
        self, live: dict[int, np.ndarray], keys: _Keys, leaf: Callable[[int, ShapedArray], Terms]
    ) -> Iterator[DependenceTracer]:
        """Add the products of every live node to the keys, one node at a time."""
        curved = [n for p, n in enumerate(self.trace.nodes) if p in live and _is_curved(n) and live[p].any()]
        operands = [o for node in curved for i in _curved_operands(node) if (o := node.operands[i]) is not None]
        sets = Sets(self.size)
        found = self.sets(operands, sets, leaf)
        tightened: dict[int, Terms] = {}

        def tight(position: int) -> Terms:
            if position not in tightened:
                tightened[position] = sets.tight(found.get(position, ()))
            return tightened[position]

        for node in curved:
            terms = [() if o is None else tight(o.position) for o in node.operands]
            _multiply(node, live[node.position], terms, sets, keys)  # type: ignore[index]
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
        keys = _Keys(self.size, listed=True)
        leaf = _marking({row: row + 1, column: column + 1})
        steps, wanted = [], max(row, column) * self.size + min(row, column)
        for node in self._products(self.live(), keys, leaf):
            if any((k == wanted).any() for k in keys.take()):
                steps.append(Step(node.source, node.operation))
        return steps


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


# liveness


def _backward(node: DependenceTracer, live: np.ndarray) -> list[np.ndarray | None]:
    """Per operand, which elements the live elements of the node depend on."""
    structure, wanted = node.structure, [o is not None for o in node.operands]
    match structure:
        case Pointwise():
            found = []
            for depends, shape, want in zip(structure.depends, node.shapes, wanted, strict=True):
                mask = None if depends is False or not want else live if depends is True else live & depends
                found.append(np.asarray(mask.any()) if mask is not None and mask.shape != shape else mask)
            return found
        case Moves():
            return _backward_moves(structure, live, node.shapes)
        case Linked():
            return [
                _backward_link(link, live, shape) if want else None
                for link, shape, want in zip(structure.links, node.shapes, wanted, strict=True)
            ]
    return [None] * len(wanted)


def _backward_moves(
    structure: Moves, live: np.ndarray, shapes: Sequence[tuple[int, ...]]
) -> list[np.ndarray | None]:
    sizes = [int(np.prod(shape, dtype=np.intp)) for shape in shapes]
    ends = np.cumsum([0, *sizes])
    arrays = [
        np.arange(start + 1, start + size + 1).reshape(shape)[()]
        for start, size, shape in zip(ends, sizes, shapes, strict=False)
    ]
    reached = np.zeros(ends[-1] + 1, bool)
    reached[np.asarray(structure.function(*arrays))[live]] = True
    return [reached[s + 1 : s + n + 1].reshape(shape) for s, n, shape in zip(ends, sizes, shapes, strict=False)]


def _backward_link(
    link: Groups | Along | Pairs | None, live: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray | None:
    if link is None:
        return None
    size = int(np.prod(shape, dtype=np.intp))
    if isinstance(link, Pairs):
        reached = np.zeros(size, bool)
        reached[link.operand[live.reshape(-1)[link.out]]] = True
        return reached.reshape(shape)
    if isinstance(link, Along):
        link = along_groups(link, shape, live.shape)
    reads = numbered(shape) if link.reads is None else link.reads
    gives = numbered(live.shape) if link.gives is None else link.gives
    groups = np.zeros(max(reads.max(initial=0), gives.max(initial=0)) + 1, bool)
    groups[gives[live]] = True
    groups[0] = False
    return groups[reads]


# second derivatives


def _is_curved(node: DependenceTracer) -> bool:
    return bool(_curved_operands(node))


def _curved_operands(node: DependenceTracer) -> set[int]:
    """The operands that some second derivative is taken by, both partners being reached by inputs."""
    structure = node.structure
    pairs: Iterable[tuple[int, int]] = ()
    if isinstance(structure, Pointwise):
        pairs = ((i, j) for i, j, where in structure.curved if where is not False)
    elif isinstance(structure, Linked):
        pairs = ((p.left, p.right) for p in structure.products)
    both = [(i, j) for i, j in pairs if node.operands[i] is not None and node.operands[j] is not None]
    return {i for pair in both for i in pair}


class _Keys:
    """A growing set of pairs of inputs, larger * size + smaller."""

    _LIMIT, _LARGEST = 1 << 25, 1 << 28

    def __init__(self, size: int, listed: bool = False) -> None:
        self.size, self.listed = size, listed
        self.keys: list[np.ndarray] = []
        self.count = 0
        #: All places as a matrix, once there are many.
        self.dense: np.ndarray | None = None
        #: Pairs of index maps that are in already, at all their elements; held, so that their ids stay theirs.
        self.done: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def add(self, left: np.ndarray, right: np.ndarray) -> None:
        """Add pairs of row numbers (from 1; 0 for none)."""
        both = (left > 0) & (right > 0)
        if not both.all():
            left, right = left[both], right[both]
        if left is right:
            keys = (left - 1) * (self.size + 1)
        else:
            keys = np.maximum(left, right)
            keys -= 1
            keys *= self.size
            keys += np.minimum(left, right)
            keys -= 1
        if self.dense is not None:
            self.dense[keys] = True
            return
        self.keys.append(keys)
        self.count += len(keys)
        if not self.listed and self.size**2 < min(8 * self.count, self._LARGEST):
            self.dense = np.zeros(self.size**2, bool)
            for keys in self.take():
                self.dense[keys] = True
        elif self.count > self._LIMIT and len(self.keys) > 1:
            self.keys = [sorted_unique(np.concatenate(self.keys))]
            self.count = len(self.keys[0]) // 2  # what is unique weighs less, so that this happens rarely

    def take(self) -> list[np.ndarray]:
        """What was added since the last call, the rest forgotten."""
        keys, self.keys = self.keys, []
        self.done.clear()
        return keys

    def symmetric(self) -> tuple[np.ndarray, np.ndarray]:
        """(rows, cols) of both triangles, row-major."""
        if self.dense is not None:
            matrix = self.dense.reshape(self.size, self.size)
            matrix |= matrix.T
            rows, cols = np.nonzero(matrix)
            return rows, cols
        keys = sorted_unique(np.concatenate([np.empty(0, np.intp), *self.keys]))
        rows, cols = np.divmod(keys, max(self.size, 1))
        below = rows != cols
        if not below.any():
            return rows, cols
        both = np.sort(np.concatenate([keys, cols[below] * self.size + rows[below]]))
        rows, cols = np.divmod(both, self.size)
        return rows, cols


def _multiply(
    node: DependenceTracer, live: np.ndarray, terms: Sequence[Terms], sets: Sets, keys: _Keys
) -> None:
    """Add the pairs of inputs that a node multiplies in its live elements."""
    structure = node.structure
    if isinstance(structure, Pointwise):
        for i, j, where in structure.curved:
            if where is not False and terms[i] and terms[j]:
                mask = live if where is True else live & where
                _pointwise_product(terms[i], terms[j], node.shape, None if mask.all() else mask, sets, keys)
    elif isinstance(structure, Linked):
        masks = _backward(node, live)
        for product in structure.products:
            if terms[product.left] and terms[product.right]:
                if isinstance(product, ElementProduct):
                    _element_product(product, live, terms, keys)
                else:
                    _group_product(product, masks, terms, sets, keys)


def _pointwise_product(
    left: Terms, right: Terms, shape: tuple[int, ...], mask: np.ndarray | None, sets: Sets, keys: _Keys
) -> None:
    for a in left:
        for b in right:
            mark = (id(a.numbers), id(b.numbers)) if id(a.numbers) <= id(b.numbers) else (id(b.numbers), id(a.numbers))
            plain = a.table is None and b.table is None
            if plain and mark in keys.done:
                continue
            if mask is None and plain and a.numbers.shape == b.numbers.shape:
                keys.done[mark] = (a.numbers, b.numbers)
            x, y = (np.broadcast_to(t.numbers, shape) for t in (a, b))
            x, y = (x.reshape(-1), y.reshape(-1)) if mask is None else (x[mask], y[mask])
            if a is b and a.table is None:
                y = x
            _outer(x, a.table, y, b.table, keys)


def _outer(x: np.ndarray, left: Table | None, y: np.ndarray, right: Table | None, keys: _Keys) -> None:
    """Add the products of row x[e] of one table and row y[e] of the other, for all e."""
    if left is None and right is None:
        keys.add(*_few(x, y))
        return
    both = (x > 0) & (y > 0)
    x, y = x[both], y[both]
    width = int(y.max(initial=0)) + 1
    combined = sorted_unique(x * width + y)
    x, y = combined // width, combined % width
    if left is right and left is not None and len(x) and (x == y).all():
        _add_squares(left, x, keys)
        return
    owners, members = repeated_rows(left, x)
    partners, others = repeated_rows(right, y[owners])
    keys.add(members[partners] + 1, others + 1)


def _few(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same pairs, each once where they are many pairs of a few low numbers (inputs that all elements share)."""
    if len(x) < 1000 or (height := int(x.max()) + 1) * (width := int(y.max()) + 1) > len(x):
        return x, y
    return np.divmod(np.flatnonzero(np.bincount(x * width + y, minlength=height)), width)


def _add_squares(table: Table, rows: np.ndarray, keys: _Keys) -> None:
    """Add all pairs within each row, each once: a member with those before it, and itself."""
    starts = table.indptr[rows - 1]
    counts = table.indptr[rows] - starts
    owners, members = repeated_rows(table, rows)
    partners = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts) + 1  # itself included
    offset = np.arange(partners.sum()) - np.repeat(np.cumsum(partners) - partners, partners)
    others = table.indices[np.repeat(starts[owners], partners) + offset]
    keys.add(np.repeat(members, partners) + 1, others + 1)


def _element_product(product: ElementProduct, live: np.ndarray, terms: Sequence[Terms], keys: _Keys) -> None:
    left, right = product.left_elements, product.right_elements
    if product.out is not None:
        kept = live.reshape(-1)[product.out]
        left, right = left[kept], right[kept]
    for a in terms[product.left]:
        for b in terms[product.right]:
            _outer(a.numbers.reshape(-1)[left], a.table, b.numbers.reshape(-1)[right], b.table, keys)


def _group_product(
    product: GroupProduct, masks: Sequence[np.ndarray | None], terms: Sequence[Terms], sets: Sets, keys: _Keys
) -> None:
    """All pairs within a group, of elements that are live."""
    sides = []
    for operand, groups in ((product.left, product.left_groups), (product.right, product.right_groups)):
        shape = terms[operand][0].numbers.shape
        groups = numbered(shape) if groups is None else groups
        mask = masks[operand]
        sides.append(groups if mask is None else np.where(mask, groups, 0))
    if product.distinct and product.left == product.right and _add_distinct(sides[0], terms[product.left], keys):
        return
    count = max(int(side.max(initial=0)) for side in sides)
    same = product.left == product.right and product.left_groups is product.right_groups
    left = sets.grouped(sides[0], terms[product.left], count)
    right = left if same else sets.grouped(sides[1], terms[product.right], count)
    for x, table in left:
        for y, other in right:
            _outer(x[1:], table, y[1:], other, keys)


#: How many pairs of different elements are listed; beyond, an element also counts as its own partner.
_LISTED = 4_000_000


def _add_distinct(groups: np.ndarray, terms: Terms, keys: _Keys) -> bool:
    """All pairs of different elements of each group; False if there are too many."""
    flat = groups.reshape(-1)
    sizes = np.bincount(flat)[1:]
    if int((sizes * (sizes - 1)).sum()) > 2 * _LISTED:
        return False
    order = np.argsort(flat, kind="stable")[len(flat) - int(sizes.sum()) :]
    members = Table(np.append(0, np.cumsum(sizes)), order)
    owners = np.repeat(np.arange(len(sizes)), sizes)
    element, partner = repeated_rows(members, owners + 1)
    first, second = order[element], partner
    different = first < second
    product = ElementProduct(0, 0, first[different], second[different])
    for a in terms:
        for b in terms:
            x, y = a.numbers.reshape(-1), b.numbers.reshape(-1)
            _outer(x[product.left_elements], a.table, y[product.right_elements], b.table, keys)
    return True


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
