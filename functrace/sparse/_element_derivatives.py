"""First and second derivatives of an element function, as further nodes of its graph.

Nonlinear edges between intermediates are pushed back towards the leaves (edge pushing, R. M. Gower and M. P. Mello, A
new framework for the computation of Hessians, Optimization Methods and Software 27 (2012)), as far as that is cheaper
than standing between gradients: H = G' W G, where W holds the edges left and G the derivatives of their ends by the
leaves. Without any pushing that is the forward method, H = sum over operations of v_bar d2 (grad p)(grad q)'.

An element is dead for an operation where no path from there to the result counts: a branch of a choice that was not
taken, or a multiplier that is zero. A dead element contributes exactly zero, be its derivatives infinite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.primitives.elementwise import logical_and, logical_or, not_equal, select
from functrace.sparse._element_graph import FULL, Graph, NotSeparable, Template, instantiate, template_of

__all__ = ["Derivatives", "gradients", "second_derivatives"]

_NOTHING: dict[str, Any] = {}
_BOOL = np.dtype(np.bool_)

#: At most so many derivatives of intermediates by inputs are written down.
_MOST_SLOPES = 50_000

#: A pair of leaves, the earlier node first, and the second derivative by them.
Second = dict[tuple[int, int], int]


class Derivatives:
    """Adjoints of the nodes of a weighted sum of some of them.

    Args:
        graph: the element function.
        roots: pairs (node, weight).
        careful: whether an element whose weight is zero is dead.
    """

    def __init__(self, graph: Graph, roots: Sequence[tuple[int, int]], careful: bool = False) -> None:
        self.graph, self.roots, self.careful = graph, roots, careful
        self.order = [n for n in graph.live([r for r, _ in roots]) if graph.active[n]]
        #: Per node, where it is not dead: a node of booleans, or None for everywhere.
        self.alive: dict[int, int | None] = {}
        self.adjoints: dict[int, int] = {}
        self._partials: dict[int, list[tuple[int, int, int | None]]] = {}
        self._seconds: dict[int, dict[tuple[int, int], int]] = {}
        self._find_adjoints()

    # operations on nodes

    def _both(self, x: int | None, y: int | None) -> int | None:
        if x is None or y is None or x == y:
            return y if x is None else x
        return self.graph.apply(logical_and, sorted((x, y)), _NOTHING, _BOOL)

    def _either(self, x: int | None, y: int | None) -> int | None:
        if x is None or y is None or x == y:
            return None if x is None or y is None else x
        return self.graph.apply(logical_or, sorted((x, y)), _NOTHING, _BOOL)

    def _nonzero(self, x: int) -> int | None:
        graph = self.graph
        if graph.is_number(x):
            return None
        return graph.apply(not_equal, (x, graph.zero), _NOTHING, _BOOL)

    def guard(self, where: int | None, value: int) -> int:
        """The value where a condition holds, else 0."""
        graph = self.graph
        if where is None:
            return value
        return graph.apply(select, (where, value, graph.zero), _NOTHING, graph.dtypes[value])

    # first derivatives

    def partials(self, n: int) -> list[tuple[int, int, int | None]]:
        """Per active operand of a node: the operand, the partial derivative, and where it was chosen."""
        found = self._partials.get(n)
        if found is not None:
            return found
        graph = self.graph
        template = template_of(graph, n)
        found = self._partials[n] = []
        for position, operand in enumerate(graph.operands[n]):
            instructions = template.first[position]
            if instructions is not None and graph.active[operand]:
                partial = instantiate(graph, template, instructions, graph.operands[n])
                chosen = self._nonzero(partial) if template.chooses[position] else None
                found.append((operand, partial, chosen))
        return found

    def _find_adjoints(self) -> None:
        graph, alive, adjoints = self.graph, self.alive, self.adjoints
        terms: dict[int, list[int]] = {}
        for root, weight in self.roots:
            where = self._nonzero(weight) if self.careful else None
            alive[root] = self._either(alive[root], where) if root in alive else where
            terms.setdefault(root, []).append(weight)
        for n in reversed(self.order):
            if n not in terms:
                continue
            adjoints[n] = graph.total(terms[n])  # type: ignore[assignment]
            if graph.primitives[n] is None:
                continue
            bar, here = adjoints[n], alive[n]
            for operand, partial, chosen in self.partials(n):
                where = self._both(here, chosen)
                term = self.guard(where, graph.mul(bar, partial))
                alive[operand] = self._either(alive[operand], where) if operand in alive else where
                terms.setdefault(operand, []).append(term)

    def merged(self, n: int) -> dict[int, tuple[int, int | None]]:
        """Per distinct active operand: the partial derivative, and where the operand was chosen."""
        graph = self.graph
        found: dict[int, tuple[int, int | None]] = {}
        for operand, partial, chosen in self.partials(n):
            if operand in found:
                before, where = found[operand]
                found[operand] = graph.add(before, partial), self._either(where, chosen)
            else:
                found[operand] = partial, chosen
        return found

    def seconds(self, n: int) -> dict[tuple[int, int], int]:
        """Second partial derivatives of an operation by its distinct active operands, the earlier first."""
        if n in self._seconds:
            return self._seconds[n]
        graph = self.graph
        operands = graph.operands[n]
        template: Template = template_of(graph, n)
        found: dict[tuple[int, int], int] = {}
        self._seconds[n] = found
        for j, x in enumerate(operands):
            for k, y in enumerate(operands):
                if not (graph.active[x] and graph.active[y]) or x > y:
                    continue
                instructions = template.second(j, k)
                if instructions is not None:
                    value = instantiate(graph, template, instructions, operands)
                    found[x, y] = graph.add(found[x, y], value) if (x, y) in found else value
        return found


def gradients(derivatives: Derivatives) -> dict[int, dict[int, int]]:
    """Per node its derivatives by the leaves, those that are not zero everywhere.

    Raises:
        NotSeparable: they are too many; then the elements are not small.
    """
    graph = derivatives.graph
    found: dict[int, dict[int, int]] = {}
    entries = 0
    for n in derivatives.order:
        if entries > _MOST_SLOPES:
            raise NotSeparable("element functions of too many inputs")
        if graph.primitives[n] is None:
            found[n] = {n: graph.one}
            continue
        terms: dict[int, list[int]] = {}
        for operand, partial, chosen in derivatives.partials(n):
            for leaf, slope in found[operand].items():
                terms.setdefault(leaf, []).append(derivatives.guard(chosen, graph.mul(partial, slope)))
        found[n] = {leaf: total for leaf, parts in terms.items() if (total := graph.total(parts)) is not None}
        entries += len(found[n])
    return found


def _forwards(derivatives: Derivatives) -> Second:
    graph = derivatives.graph
    slopes = gradients(derivatives)
    two = graph.number(graph.dtype.type(2))
    terms: dict[tuple[int, int], list[int]] = {}

    def collect(a: int, b: int, term: int, where: int | None) -> None:
        terms.setdefault((a, b) if a <= b else (b, a), []).append(derivatives.guard(where, term))

    for n in derivatives.order:
        if graph.primitives[n] is None or n not in derivatives.adjoints:
            continue
        where = derivatives.alive[n]
        for (p, q), second in derivatives.seconds(n).items():
            weight = graph.mul(derivatives.adjoints[n], second)
            left, right = list(slopes[p].items()), list(slopes[q].items())
            for i, (a, slope) in enumerate(left):
                for b, other in left[i:] if p == q else right:
                    term = _product(graph, weight, slope, other)
                    collect(a, b, graph.mul(two, term) if p != q and a == b else term, where)
    return {pair: total for pair, parts in terms.items() if (total := graph.total(parts)) is not None}


def _product(graph: Graph, x: int, y: int, z: int) -> int:
    """The product of three nodes: first of the two that vary least together, else of the first two."""
    if graph.domains[y] != FULL and graph.domains[z] != FULL:
        return graph.mul(x, graph.mul(y, z))
    return graph.mul(graph.mul(x, y), z)


def _pushed(derivatives: Derivatives, slopes: dict[int, dict[int, int]], cut: int) -> Second:
    """Nonlinear edges of the nodes from `cut` on pushed back to those before it, between whose gradients they stand."""
    graph = derivatives.graph
    two = graph.number(graph.dtype.type(2))
    edges: dict[int, dict[int, list[int]]] = {}

    def connect(x: int, y: int, value: int) -> None:
        edges.setdefault(x, {}).setdefault(y, []).append(value)
        if x != y:
            edges.setdefault(y, {}).setdefault(x, []).append(value)

    for position in range(len(derivatives.order) - 1, -1, -1):
        n = derivatives.order[position]
        if graph.primitives[n] is None or n not in derivatives.adjoints:
            continue
        if position >= cut and n in edges:
            partials = [(p, d) for p, (d, _) in derivatives.merged(n).items()]
            near = {other: graph.total(values) for other, values in edges.pop(n).items()}
            own = near.pop(n, None)
            for other, value in near.items():
                del edges[other][n]
                for p, d in partials:
                    term = graph.mul(value, d)  # type: ignore[arg-type]
                    connect(p, other, graph.mul(two, term) if p == other else term)
            if own is not None:
                for i, (p, d) in enumerate(partials):
                    weighted = graph.mul(own, d)
                    for q, e in partials[i:]:
                        connect(p, q, graph.mul(weighted, e))
        for (p, q), second in derivatives.seconds(n).items():
            connect(p, q, graph.mul(derivatives.adjoints[n], second))
    return _between_gradients(graph, edges, slopes)


def _between_gradients(
    graph: Graph, edges: dict[int, dict[int, list[int]]], slopes: dict[int, dict[int, int]]
) -> Second:
    """H = G' W G, with the edges W between some nodes and the gradients G of these."""
    terms: dict[tuple[int, int], list[int]] = {}
    totals: dict[tuple[int, int], int | None] = {}
    for p in sorted(edges):
        row: dict[int, list[int]] = {}
        for q, values in edges[p].items():
            pair = (p, q) if p <= q else (q, p)
            if pair not in totals:
                totals[pair] = graph.total(values)
            for leaf, slope in slopes[q].items():
                row.setdefault(leaf, []).append(graph.mul(totals[pair], slope))  # type: ignore[arg-type]
        for b, parts in row.items():
            along = graph.total(parts)
            for a, slope in slopes[p].items():
                if a <= b:
                    terms.setdefault((a, b), []).append(graph.mul(slope, along))  # type: ignore[arg-type]
    return {pair: total for pair, parts in terms.items() if (total := graph.total(parts)) is not None}


def _best_cut(derivatives: Derivatives, slopes: dict[int, dict[int, int]]) -> int:
    """Where to stop pushing, by a count of the operations of every choice."""
    graph, order = derivatives.graph, derivatives.order
    created = {
        n: list(derivatives.seconds(n)) for n in order if graph.primitives[n] is not None and n in derivatives.adjoints
    }
    front = _Front(graph, order, slopes)
    for pairs in created.values():
        for pair in pairs:
            front.create(*pair)
    best, cut, spent = front.price(), len(order), 0
    for position in range(len(order) - 1, -1, -1):
        n = order[position]
        if n not in created:
            continue
        for pair in created[n]:
            front.uncreate(*pair)
        near = front.remove(n)
        partials = derivatives.merged(n)
        each = sum(1 + (not graph.is_number(d)) for d, _ in partials.values())
        own = n in near
        near.discard(n)
        for other in near:
            for p in partials:
                front.connect(p, other)
        spent += each * len(near) + own * each * (len(partials) + 1) // 2
        if own:
            for p in partials:
                for q in partials:
                    front.connect(p, q)
        for p, q in created[n]:
            front.connect(p, q)
            spent += 1
        if spent >= best:
            break
        if spent + front.price() < best:
            best, cut = spent + front.price(), position
    return cut


class _Front:
    """The nonlinear edges at some stage of pushing, and what it takes to finish from there between gradients.

    An edge is there because it was pushed, or because a node that is not yet pushed creates it. The price is a sum
    over the nodes, of which those are added anew whose edges have changed.
    """

    def __init__(self, graph: Graph, order: Sequence[int], slopes: dict[int, dict[int, int]]) -> None:
        leaves = {n: i for i, n in enumerate(n for n in order if graph.primitives[n] is None)}
        self.support = {n: sum(1 << leaves[leaf] for leaf in slopes[n]) for n in order}
        self.work = {n: sum(1 + (not graph.is_number(s)) for s in slopes[n].values()) for n in order}
        self.pushed: dict[int, set[int]] = {}
        self.creations: dict[int, dict[int, int]] = {}
        self.prices: dict[int, int] = {}
        self.changed: set[int] = set()
        self.total = 0

    def create(self, p: int, q: int) -> None:
        """An edge that a node not yet pushed creates."""
        for a, b in {(p, q), (q, p)}:
            row = self.creations.setdefault(a, {})
            row[b] = row.get(b, 0) + 1
        self.changed.update((p, q))

    def uncreate(self, p: int, q: int) -> None:
        """The node that creates the edge is pushed now."""
        for a, b in {(p, q), (q, p)}:
            row = self.creations[a]
            row[b] -= 1
            if not row[b]:
                del row[b]
        self.changed.update((p, q))

    def connect(self, p: int, q: int) -> None:
        """A pushed edge."""
        self.pushed.setdefault(p, set()).add(q)
        self.pushed.setdefault(q, set()).add(p)
        self.changed.update((p, q))

    def remove(self, n: int) -> set[int]:
        """Takes the pushed edges of a node away; what they led to."""
        near = self.pushed.pop(n, set())
        for other in near - {n}:
            self.pushed[other].discard(n)
        self.changed.update(near, (n,))
        return near

    def price(self) -> int:
        """Operations of G' W G, with the edges W and the gradients G."""
        for n in self.changed:
            self.total -= self.prices.pop(n, 0)
            near = self.pushed.get(n, set()).union(self.creations.get(n, ()))
            if near:
                reached = 0
                for other in near:
                    reached |= self.support[other]
                price = sum([self.work[other] for other in near]) + self.work[n] * reached.bit_count() // 2
                self.prices[n] = price
                self.total += price
        self.changed.clear()
        return self.total


def operations(graph: Graph, outputs: Sequence[int]) -> float:
    """The price of some nodes in units of an addition."""
    live = graph.live(outputs)
    full = [n for n in live if graph.primitives[n] is not None and graph.domains[n] == FULL]
    lifted = {o for n in full for o in graph.operands[n] if graph.domains[o] > FULL}
    return sum(_price(graph, n) for n in full) + len(lifted)


def _price(graph: Graph, n: int) -> float:
    lower = graph.primitives[n].lower  # type: ignore[union-attr]
    return float(getattr(lower, "weight", 1.0))


def second_derivatives(derivatives: Derivatives) -> Second:
    """The second derivatives of the weighted sum by pairs of leaves, those that are not zero everywhere."""
    if any(where is not None for where in derivatives.alive.values()):
        return _forwards(derivatives)
    slopes = gradients(derivatives)
    return _pushed(derivatives, slopes, _best_cut(derivatives, slopes))
