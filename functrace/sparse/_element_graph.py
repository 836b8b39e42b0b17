"""The graph of an element function: operations on single elements, equal ones once, and their partial derivatives.

A node stands for one number per element of a family. Nodes are created in order, operands first, and are equal when
their operation and operands are (hash-consing), so everything derived from a graph shares what it has in common with
it. The partial derivatives of an elementwise primitive come from its `jvp` rule, recorded once on scalars and kept as a
template; second ones by applying that to the first.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from functrace.core.evaluate import evaluate_plain
from functrace.core.ir import Jaxpr, Literal
from functrace.core.primitive import Primitive
from functrace.core.trace import EVAL, reset_trace, set_trace
from functrace.core.types import ShapedArray
from functrace.interpreters.staging import stage
from functrace.primitives.elementwise import not_equal, select, sub
from functrace.primitives.families import add, mul, neg

__all__ = ["FULL", "UNIFORM", "Graph", "NotSeparable", "Template", "instantiate", "template_of"]

_NOTHING: dict[str, Any] = {}

#: What a factor is taken out of.
_SCALING = (neg, mul)

UNIFORM, FULL = 0, 1


def _joined(x: int, y: int) -> int:
    """The domain of an operation on two."""
    return y if x in (UNIFORM, y) else x if y == UNIFORM else FULL


class NotSeparable(Exception):
    """The program is no sum of element functions of a few inputs each."""


class Graph:
    """Element operations in the order of their creation.

    Attributes:
        primitives: per node its operation; None for a leaf or a number.
        operands: per node the nodes it reads.
        params: per node the operation's parameters.
        values: per node its number, or for a leaf what the owner of the graph gave; None for an operation.
        dtypes: per node its dtype.
        active: per node, whether a derivative reaches it.
        domains: per node, what it varies with: `UNIFORM` (one number for all elements), `FULL` (one per element), or a
            coarse domain, numbered from 2: one number per class of elements.
    """

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype
        self.primitives: list[Primitive | None] = []
        self.operands: list[tuple[int, ...]] = []
        self.params: list[dict[str, Any]] = []
        self.values: list[Any] = []
        self.dtypes: list[np.dtype] = []
        self.active: list[bool] = []
        self.domains: list[int] = []
        #: Per node, whether its value is known. (Read in place where it is asked most often.)
        self.numbers: list[bool] = []
        self._known: dict[Any, int] = {}
        self.one = self.number(dtype.type(1))
        self.zero = self.number(dtype.type(0))

    def _append(
        self, primitive: Primitive | None, operands: tuple[int, ...], params: dict[str, Any], value: Any,
        dtype: np.dtype, active: bool, domain: int,
    ) -> int:  # fmt: skip
        self.primitives.append(primitive)
        self.operands.append(operands)
        self.params.append(params)
        self.values.append(value)
        self.dtypes.append(dtype)
        self.active.append(active)
        self.domains.append(domain)
        self.numbers.append(primitive is None and isinstance(value, np.generic))
        return len(self.primitives) - 1

    def number(self, value: Any) -> int:
        """The node of a known number."""
        if not isinstance(value, np.generic):
            value = np.asarray(value)[()]
        # The bits of a zero tell 0.0 from -0.0.
        key = (type(value), value) if value else (type(value), value.tobytes())
        node = self._known.get(key)
        if node is None:
            node = self._known[key] = self._append(None, (), _NOTHING, value, value.dtype, False, UNIFORM)
        return node

    def leaf(self, key: Any, value: Any, dtype: np.dtype, active: bool, domain: int) -> int:
        """The node of something read; the same one for the same key."""
        key = ("leaf", key)
        node = self._known.get(key)
        if node is None:
            node = self._known[key] = self._append(None, (), _NOTHING, value, dtype, active, domain)
        return node

    def is_number(self, node: int) -> bool:
        """Whether a node's value is known."""
        return self.numbers[node]

    def apply(self, primitive: Primitive, operands: Sequence[int], params: dict[str, Any], dtype: np.dtype) -> int:
        """The node of an operation on nodes."""
        if primitive is mul:
            return self.mul(*operands)
        if primitive is add:
            return self.add(*operands)
        if primitive is neg:
            return self.neg(*operands)
        if primitive is sub:
            return self.sub(*operands)
        return self._apply(primitive, tuple(operands), params, dtype)

    def _apply(self, primitive: Primitive, operands: tuple[int, ...], params: dict[str, Any], dtype: np.dtype) -> int:
        key: Any = (primitive, operands, tuple(params.items())) if params else (primitive, operands)
        try:
            node = self._known.get(key)
        except TypeError:  # parameters that cannot be compared
            key, node = (primitive, operands, id(params)), None
        if node is not None:
            return node
        known, domains, numbers, domain, active = self.numbers, self.domains, True, UNIFORM, False
        for o in operands:
            numbers = numbers and known[o]
            if domains[o] != domain:
                domain = _joined(domain, domains[o])
            active = active or self.active[o]
        if numbers and operands:
            value = np.asarray(evaluate_plain(primitive, [self.values[o] for o in operands], params))[()]
            node = self._known[key] = self.number(value.astype(dtype))
            return node
        active = active and not primitive.nondifferentiable
        node = self._known[key] = self._append(primitive, operands, params, None, dtype, active, domain)
        return node

    # Sums and products, in one form whatever order they come in. The coefficient of a product is the factor that varies
    # less than the rest (a number, or a node of a smaller domain); coefficients meet, where that is cheap.

    def coefficient(self, x: int) -> tuple[int | None, int]:
        """A node as coefficient and the rest."""
        if self.primitives[x] is mul:
            first, rest = self.operands[x]
            if self.numbers[first] or self.domains[first] != self.domains[x]:
                return first, rest
        return None, x

    def add(self, x: int, y: int) -> int:
        if x == self.zero:
            return y
        if y == self.zero:
            return x
        if x == y:
            return self.mul(self.number(self.dtypes[x].type(2)), x)
        if self.primitives[y] is neg:
            return self.sub(x, self.operands[y][0])
        if self.primitives[x] is neg:
            return self.sub(y, self.operands[x][0])
        merged = self._merged(x, y, self.add)
        if merged is not None:
            return merged
        return self._apply(add, (x, y) if x < y else (y, x), _NOTHING, self.dtypes[x])

    def sub(self, x: int, y: int) -> int:
        if y == self.zero:
            return x
        if x == self.zero:
            return self.neg(y)
        if self.primitives[y] is neg:
            return self.add(x, self.operands[y][0])
        merged = self._merged(x, y, self.sub)
        if merged is not None:
            return merged
        return self._apply(sub, (x, y), _NOTHING, self.dtypes[x])

    def _merged(self, x: int, y: int, combine: Any) -> int | None:
        """The sum or difference of two products with the same coefficient, or with coefficients of the same node."""
        if self.primitives[x] is not mul or self.primitives[y] is not mul:
            return None
        (a, p), (b, q) = self.coefficient(x), self.coefficient(y)
        if a is None or b is None:
            return None
        if a == b:
            return self.mul(a, combine(p, q))
        if p == q and _joined(self.domains[a], self.domains[b]) != FULL:
            return self.mul(combine(a, b), p)
        return None

    def neg(self, x: int) -> int:
        if self.primitives[x] is neg:
            return self.operands[x][0]
        if self.primitives[x] is sub:
            return self.sub(self.operands[x][1], self.operands[x][0])
        first, rest = self.coefficient(x)
        if first is not None:
            return self.mul(self.neg(first), rest)
        return self._apply(neg, (x,), _NOTHING, self.dtypes[x])

    def mul(self, x: int, y: int) -> int:
        if x == self.one or y == self.one:
            return y if x == self.one else x
        if self.numbers[y]:
            x, y = y, x
        if self.numbers[x]:
            return self._scaled(x, y)
        same = self.domains[x] == self.domains[y]
        if same and self.primitives[x] not in _SCALING and self.primitives[y] not in _SCALING:  # the most frequent case
            return self._apply(mul, (x, y) if x < y else (y, x), _NOTHING, self.dtypes[x])
        whole = _joined(self.domains[x], self.domains[y])
        if self.primitives[x] is neg and self.domains[x] == whole:
            return self.neg(self.mul(self.operands[x][0], y))
        if self.primitives[y] is neg and self.domains[y] == whole:
            return self.neg(self.mul(x, self.operands[y][0]))
        if self.domains[x] == self.domains[y]:
            if self.primitives[x] is not mul and self.primitives[y] is not mul:
                return self._apply(mul, (x, y) if x < y else (y, x), _NOTHING, self.dtypes[x])
            (a, p), (b, q) = self.coefficient(x), self.coefficient(y)
            if a is None and b is None:
                return self._apply(mul, (x, y) if x < y else (y, x), _NOTHING, self.dtypes[x])
            together = b if a is None else a if b is None else self.mul(a, b)
            return self.mul(together, self.mul(p, q))  # type: ignore[arg-type]
        if self.domains[x] == whole:
            x, y = y, x  # the factor that varies less stands first
        if self.domains[y] == whole:
            first, rest = self.coefficient(y)
            if first is not None and _joined(self.domains[first], self.domains[x]) != whole:
                return self.mul(self.mul(first, x), rest)
        return self._apply(mul, (x, y), _NOTHING, self.dtypes[x])

    def _scaled(self, x: int, y: int) -> int:
        """A number times a node."""
        value = self.values[x]
        if value == 1:
            return y
        if value == -1:
            return self.neg(y)
        if self.numbers[y]:
            return self.number(self.dtypes[y].type(float(value) * float(self.values[y])))
        if self.primitives[y] is neg:
            return self.mul(self.number(-value), self.operands[y][0])
        first, rest = self.coefficient(y)
        if first is not None:
            return self.mul(self.mul(x, first), rest)
        return self._apply(mul, (x, y), _NOTHING, self.dtypes[y])

    def total(self, terms: Iterable[int]) -> int | None:
        """The sum of some nodes; None for none."""
        total: int | None = None
        for term in self._grouped(terms):
            total = term if total is None else self.add(total, term)
        return total

    def _grouped(self, terms: Iterable[int]) -> list[int]:
        """The terms with the coefficients of each node, and the nodes of each coefficient, taken together."""
        terms = list(terms)
        if len(terms) < 3:
            return terms
        by_node: dict[Any, int] = {}
        for term in terms:
            sign, inner = (True, self.operands[term][0]) if self.primitives[term] is neg else (False, term)
            first, rest = self.coefficient(inner)
            first = self.one if first is None else first
            first = self.neg(first) if sign else first
            key = rest, self.domains[first]
            by_node[key] = self.add(by_node[key], first) if key in by_node else first
        by_coefficient: dict[int, list[int]] = {}
        for (rest, _), first in by_node.items():
            by_coefficient.setdefault(first, []).append(rest)
        grouped = []
        for first, rests in by_coefficient.items():
            total = rests[0]
            for rest in rests[1:]:
                total = self.add(total, rest)
            grouped.append(self.mul(first, total))
        return grouped

    def live(self, outputs: Iterable[int]) -> list[int]:
        """The nodes that some outputs need, operands first."""
        needed = set()
        pending = list(outputs)
        while pending:
            node = pending.pop()
            if node not in needed:
                needed.add(node)
                pending.extend(self.operands[node])
        return sorted(needed)


class Template:
    """The partial derivatives of an elementwise operation as element operations on its operands.

    Attributes:
        first: per operand, the instructions of its partial derivative, or None where that is zero everywhere.
        chooses: per operand, whether the partial derivative is a choice, zero where the operand was not taken.
    """

    def __init__(self, primitive: Primitive, params: dict[str, Any], operands: Sequence[Any]) -> None:
        dtypes = [o.dtype if isinstance(o, ShapedArray) else o for o in operands]
        dtypes = [d if isinstance(d, np.dtype) else np.asarray(d).dtype for d in dtypes]
        inexact = next((d for d in dtypes if d.kind == "f"), np.dtype(float))
        graph = self.graph = Graph(inexact)
        self.inputs: list[int] = []
        for i, operand in enumerate(operands):
            if isinstance(operand, ShapedArray):
                self.inputs.append(graph.leaf(i, i, operand.dtype, operand.dtype.kind == "f", FULL))
            else:
                self.inputs.append(graph.number(operand))
        real = [isinstance(o, ShapedArray) and o.dtype.kind == "f" for o in operands]
        self.first_nodes = [
            self._partial(primitive, params, operands, i) if wanted else None for i, wanted in enumerate(real)
        ]
        self.first = [None if n is None else self._instructions(n) for n in self.first_nodes]
        self.chooses = [
            n is not None and any(graph.primitives[k] is select for k in graph.live([n])) for n in self.first_nodes
        ]
        self._second: dict[tuple[int, int], Any] = {}

    def _partial(
        self, primitive: Primitive, params: dict[str, Any], operands: Sequence[Any], position: int
    ) -> int | None:
        """The node of the partial derivative by one operand."""
        if primitive.nondifferentiable:
            return None
        rule = primitive.jvp
        if rule is None:
            raise NotSeparable(f"{primitive.name} has no jvp rule")
        avals = [o for o in operands if isinstance(o, ShapedArray)]
        zero: list[bool] = []

        def flat_fun(*values: Any) -> list[Any]:
            given = iter(values)
            primals = [next(given) if isinstance(o, ShapedArray) else o for o in operands]
            tangents: list[Any] = [None] * len(operands)
            tangents[position] = operands[position].dtype.type(1)
            dot = rule(primals, tangents, **params)[1][0]
            zero.append(dot is None)
            return [operands[position].dtype.type(0) if dot is None else dot]

        closed = stage(flat_fun, avals)
        if zero[0]:
            return None
        leaves = [n for n, o in zip(self.inputs, operands, strict=True) if isinstance(o, ShapedArray)]
        node = self._record(closed.jaxpr, leaves)
        return None if self.graph.is_number(node) and self.graph.values[node] == 0 else node

    def _record(self, jaxpr: Jaxpr, leaves: Sequence[int]) -> int:
        names = dict(zip(jaxpr.invars, leaves, strict=True))
        graph = self.graph
        for eqn in jaxpr.eqns:
            if eqn.primitive.family != "elementwise":
                raise NotSeparable(f"the derivative of an element operation holds {eqn.primitive.name}")
            nodes = [graph.number(a.val) if isinstance(a, Literal) else names[a] for a in eqn.invars]
            names[eqn.outvars[0]] = graph.apply(eqn.primitive, nodes, eqn.params, eqn.outvars[0].aval.dtype)
        out = jaxpr.outvars[0]
        return graph.number(out.val) if isinstance(out, Literal) else names[out]

    def _instructions(self, node: int) -> Any:
        """What to do to make a node in another graph: its number, or operations and where the result is."""
        graph = self.graph
        steps = []
        for n in graph.live([node]):
            primitive = graph.primitives[n]
            if primitive is not None:
                steps.append((n, primitive, graph.operands[n], graph.params[n], graph.dtypes[n]))
        numbers = [(n, graph.values[n]) for n in graph.live([node]) if graph.is_number(n)]
        return node, numbers, steps

    def second(self, j: int, k: int) -> Any:
        """The instructions of a second partial derivative, or None where that is zero everywhere."""
        key = (min(j, k), max(j, k))
        if key not in self._second:
            node = self._derivative(self.first_nodes[key[0]], self.inputs[key[1]])
            self._second[key] = None if node is None else self._instructions(node)
        return self._second[key]

    def _derivative(self, node: int | None, leaf: int) -> int | None:
        """The derivative of a node by a leaf, forwards through the graph."""
        if node is None:
            return None
        graph = self.graph
        dots: dict[int, int] = {leaf: graph.one}
        for n in graph.live([node]):
            primitive = graph.primitives[n]
            if primitive is None or not any(o in dots for o in graph.operands[n]):
                continue
            template = template_of(graph, n)
            terms = []
            for position, operand in enumerate(graph.operands[n]):
                if operand in dots and template.first[position] is not None:
                    partial = instantiate(graph, template, template.first[position], graph.operands[n])
                    terms.append(_guarded(graph, template.chooses[position], partial, dots[operand]))
            total = graph.total(terms)
            if total is not None:
                dots[n] = total
        dot = dots.get(node)
        return None if dot is None or dot == graph.zero else dot


def _guarded(graph: Graph, chooses: bool, partial: int, dot: int) -> int:
    """The product; 0 where the partial derivative is a choice that fell on another operand, be the other infinite."""
    product = graph.mul(partial, dot)
    if not chooses or graph.is_number(dot):
        return product
    from_there = graph.apply(not_equal, (partial, graph.zero), _NOTHING, np.dtype(np.bool_))
    return graph.apply(select, (from_there, product, graph.zero), _NOTHING, graph.dtypes[product])


def instantiate(graph: Graph, template: Template, instructions: Any, operands: Sequence[int]) -> int:
    """The node in a graph that a template's instructions give for these operands."""
    target, numbers, steps = instructions
    if not steps:
        return graph.number(numbers[0][1]) if numbers else operands[template.inputs.index(target)]
    names = dict(zip(template.inputs, operands, strict=True))
    for n, value in numbers:
        names[n] = graph.number(value)
    for n, primitive, inputs, params, dtype in steps:
        names[n] = graph.apply(primitive, [names[i] for i in inputs], params, dtype)
    return names[target]


_templates: dict[Any, Template] = {}
_lock = threading.RLock()


def template_of(graph: Graph, node: int) -> Template:
    """The partial derivatives of the operation of a node."""
    primitive, params = graph.primitives[node], graph.params[node]
    assert primitive is not None
    key: list[Any] = [primitive]
    for o in graph.operands[node]:
        key.append(_bits(graph.values[o]) if graph.numbers[o] else graph.dtypes[o])
    key += params.items()
    found = _templates.get(tuple(key))
    if found is None:
        operands = graph.operands[node]
        kinds = [graph.values[o] if graph.numbers[o] else ShapedArray((), graph.dtypes[o]) for o in operands]
        with _lock:
            token = set_trace(EVAL)
            try:
                found = _templates[tuple(key)] = Template(primitive, params, kinds)
            finally:
                reset_trace(token)
    return found


def _bits(number: Any) -> Any:
    return number.dtype.str, number.tobytes()
