"""Element families: a scalar program as a sum of element functions over index maps.

L(x, ...) = sum over families k of sum over i of w_k[i] phi_k(x[I_k1[i]], ..., x[I_kw[i]]; p_k[i])

From the nonlinear arrays of the program (see `_element_weights`) back, element by element: operations that move
elements turn into index maps, short sums into a few terms, until only elements of x and of parameters are left. A
piecewise array (a concatenation, a padding) splits a family. What does not fit is not separable.

A. Griewank and Ph. L. Toint, On the unconstrained optimization of partially separable functions (1982).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from functrace.core.ir import Atom, Eqn, Literal, Var, is_scalar
from functrace.primitives.contraction import dot_general
from functrace.primitives.families import reduce_sum
from functrace.primitives.shape import full
from functrace.sparse._element_graph import FULL, UNIFORM, Graph, NotSeparable
from functrace.sparse._element_maps import (
    IndexMap,
    compose,
    from_array,
    identity,
    is_selection,
    moved_operands,
    pieces,
    positions_read,
    restrict,
    shift,
)
from functrace.sparse._element_weights import SHORT, Program, is_short, named, product_positions, weighted_arrays

__all__ = ["Classes", "Family", "element_families", "output_families"]

#: What at least so many elements share is computed once for them.
COARSE = 8

#: A family is split into at most so many pieces.
MOST_PIECES = 256


class _Split(Exception):
    """The elements of a family are not all computed alike; carries a label per element."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = labels


class Classes:
    """A coarse domain: the elements of a family in classes that read the same of an array.

    Attributes:
        of: per element, its class.
        count: how many classes.
        key: equal for equal domains; hashable.
    """

    def __init__(self, of: np.ndarray, count: int, key: Any) -> None:
        self.of, self.count, self.key = of, count, key


class Family:
    """Element functions of one program over one number of elements.

    Attributes:
        graph: the element operations; the value of a leaf is the pair (atom, index map) that it reads: per element, or
            per class of a coarse domain.
        count: how many elements.
        classes: the coarse domains, by their numbers.
        roots: pairs (node, weight node).
        places: per root, which elements of its array these are.
        arrays: per root, its variable.
        numbers: per root, the number of that array.
    """

    def __init__(self, graph: Graph, count: int, classes: dict[int, Classes]) -> None:
        self.graph, self.count, self.classes = graph, count, classes
        self.roots: list[tuple[int, int]] = []
        self.places: list[IndexMap] = []
        self.arrays: list[Var] = []
        self.numbers: list[int] = []

    def read(self, leaf: int) -> tuple[Var, IndexMap]:
        """The input that a leaf reads, and where each element does."""
        atom, where = self.graph.values[leaf]
        domain = self.graph.domains[leaf]
        return atom, compose(where, from_array(self.classes[domain].of)) if domain > FULL else where


#: An array of the program, its weight (None for 1), which of its elements, and its number among the arrays.
_Root = tuple[Var, Atom | None, IndexMap, int]


def _collect(program: Program, roots: Iterable[_Root]) -> list[Family]:
    """The families of some arrays: one per number of elements."""
    pending: dict[int, list[_Root]] = {}
    for root in roots:
        if root[2].count:
            pending.setdefault(root[2].count, []).append(root)
    families: list[Family] = []
    while pending:
        count = max(pending)
        group = pending.pop(count)
        try:
            families.append(_expand(program, group, count))
        except _Split as split:
            for label in np.unique(split.labels):
                elements = np.flatnonzero(split.labels == label)
                parts = [(var, weight, restrict(places, elements), number) for var, weight, places, number in group]
                pending.setdefault(elements.size, []).extend(parts)
        if len(families) + len(pending) > MOST_PIECES:
            raise NotSeparable("an array of too many pieces")
    return families


def element_families(program: Program) -> list[Family]:
    """The families of a scalar program.

    Raises:
        NotSeparable: it is no sum of element functions.
    """
    arrays = weighted_arrays(program)
    return _collect(program, [(v, w, identity(v.aval.size), k) for k, (v, w) in enumerate(arrays)])


def output_families(program: Program) -> list[Family]:
    """The families of a program's outputs, element by element, with weight 1."""
    outputs = [(k, v) for k, v in enumerate(program.outvars) if type(v) is Var and program.is_active(v)]
    return _collect(program, [(v, None, identity(v.aval.size), k) for k, v in outputs])


class _Demands:
    """Which elements of which variables a family needs, and the nodes they become."""

    def __init__(self, program: Program, count: int) -> None:
        self.program, self.count = program, count
        self.graph = Graph(program.dtype)
        self.maps: dict[Var, dict[Any, IndexMap]] = {}
        self.nodes: dict[tuple[Var, Any], int] = {}
        self.domains: dict[bytes, int] = {}
        self.classes: dict[int, Classes] = {}
        #: Per demanded array and map: how its node is made of others.
        self.recipes: dict[tuple[Var, Any], Any] = {}

    def need(self, atom: Atom, where: IndexMap) -> Any:
        """Ask for elements of an atom; gives what `node` takes."""
        if isinstance(atom, Literal):
            if is_scalar(atom.val) or atom.val.ndim == 0:
                return atom, None
            return atom, where
        self.maps.setdefault(atom, {}).setdefault(where.key, where)
        return atom, where

    def node(self, need: Any) -> int:
        """The node of what was asked for."""
        atom, where = need
        if atom is None:
            return self.graph.zero
        if isinstance(atom, Literal):
            if where is None:
                return self.graph.number(atom.val)
            return self.read(atom, where)
        return self.nodes[atom, where.key]

    def read(self, atom: Atom, where: IndexMap) -> int:
        """The leaf that reads these elements."""
        identity_of = atom if type(atom) is Var else id(atom.val)  # type: ignore[union-attr]
        active = self.program.is_active(atom)
        domain, positions = (UNIFORM, where) if where.is_constant else self.domain(where)
        return self.graph.leaf((identity_of, where.key), (atom, positions), atom.aval.dtype, active, domain)

    def domain(self, where: IndexMap) -> tuple[int, IndexMap]:
        """The domain that a map varies over, and the map from there."""
        if where.array is None or where.count < 4 * COARSE:
            return FULL, where
        low, high = int(where.array.min()), int(where.array.max())
        if high - low >= where.count:
            return FULL, where
        seen = np.zeros(high - low + 1, bool)
        seen[where.array - low] = True
        distinct = np.flatnonzero(seen)
        if distinct.size * COARSE > where.count:
            return FULL, where
        of = (np.cumsum(seen) - 1)[where.array - low]
        key = of.tobytes()
        number = self.domains.setdefault(key, 2 + len(self.domains))
        self.classes.setdefault(number, Classes(of, distinct.size, (number, id(self))))
        return number, from_array(distinct + low)


def _expand(program: Program, group: Sequence[_Root], count: int) -> Family:
    demands = _Demands(program, count)
    wanted = []
    for var, weight, places, _ in group:
        wanted.append((demands.need(var, places), None if weight is None else _weight_need(demands, weight, places)))
    for eqn in reversed(program.eqns):
        for k, var in enumerate(eqn.outvars):
            if var in demands.maps:
                for key, where in demands.maps[var].items():
                    demands.recipes[var, key] = _recipe(demands, eqn, k, where)
    for var in program.invars:
        for key, where in demands.maps.get(var, {}).items():
            demands.nodes[var, key] = demands.read(var, where)
    for eqn in program.eqns:
        for var in eqn.outvars:
            for key, where in demands.maps.get(var, {}).items():
                demands.nodes[var, key] = _build(demands, var, where, demands.recipes[var, key])
    family = Family(demands.graph, count, demands.classes)
    for (need, weight_need), (var, _, places, number) in zip(wanted, group, strict=True):
        node = demands.node(need)
        weight_node = demands.graph.one if weight_need is None else demands.node(weight_need)
        family.roots.append((node, weight_node))
        family.numbers.append(number)
        family.places.append(places)
        family.arrays.append(var)
    return family


def _weight_need(demands: _Demands, weight: Atom, places: IndexMap) -> Any:
    scalar = isinstance(weight, Literal) and not np.ndim(weight.val)
    if scalar or not weight.aval.shape:
        return demands.need(weight, IndexMap(0, 0, places.count))
    return demands.need(weight, places)


def _recipe(demands: _Demands, eqn: Eqn, output: int, where: IndexMap) -> Any:
    """How elements of an equation's output are made: ("op", needs), ("same", need), ("sum", pairs) or ("read",)."""
    program, primitive = demands.program, eqn.primitive
    if primitive is full:
        return "same", (Literal(eqn.outvars[0].aval.dtype.type(eqn.params["value"])), None)
    if primitive.family == "elementwise":
        scalar = IndexMap(0, 0, where.count)
        shape = eqn.outvars[0].aval.shape
        return "op", eqn, [demands.need(a, where if a.aval.shape == shape else scalar) for a in eqn.invars]
    if is_selection(eqn):
        return "same", _select(demands, eqn, output, where)
    if primitive is reduce_sum and program.is_active(eqn.outvars[0]):
        terms = _summed_positions(eqn)
        return "sum", [(demands.need(eqn.invars[0], compose(at, where)), None) for at in terms]
    if primitive is dot_general and (program.is_active(eqn.outvars[0]) or not eqn.params["contract"][0]):
        if not is_short(eqn):
            raise NotSeparable(named(eqn))
        x_at, y_at, shape = product_positions(eqn)
        size = eqn.outvars[0].aval.size
        x_at, y_at = x_at.reshape(size, -1), y_at.reshape(size, -1)
        return "sum", [
            (
                demands.need(eqn.invars[0], compose(from_array(x_at[:, k]), where)),
                demands.need(eqn.invars[1], compose(from_array(y_at[:, k]), where)),
            )
            for k in range(x_at.shape[1])
        ]
    if program.is_active(eqn.outvars[output]):
        raise NotSeparable(named(eqn))
    return ("read",)


def _select(demands: _Demands, eqn: Eqn, output: int, where: IndexMap) -> Any:
    """The operand's elements that a selection gives.

    Raises:
        _Split: they come from several operands.
    """
    codes, starts = positions_read(eqn, output)
    codes = compose(codes, where)
    moving = moved_operands(eqn)
    if starts == [0]:
        return demands.need(eqn.invars[moving[0]], codes)
    piece = pieces(codes, starts)
    if isinstance(piece, np.ndarray):
        raise _Split(piece)
    if piece < 0:
        return None, None
    return demands.need(eqn.invars[moving[piece]], shift(codes, -starts[piece]))


def _summed_positions(eqn: Eqn) -> list[IndexMap]:
    """Per term of a short sum over axes, the position in the operand of each element of the output."""
    aval, axes = eqn.invars[0].aval, eqn.params["axes"]
    kept = tuple(i for i in range(aval.ndim) if i not in axes)
    count = math.prod(aval.shape[a] for a in axes)
    if count > SHORT:
        raise NotSeparable(named(eqn))
    positions = np.arange(aval.size).reshape(aval.shape).transpose(kept + tuple(axes))
    positions = positions.reshape(math.prod(aval.shape[a] for a in kept), count)  # -1 means nothing where count is 0
    return [from_array(positions[:, k]) for k in range(count)]


def _build(demands: _Demands, var: Var, where: IndexMap, recipe: Any) -> int:
    graph = demands.graph
    kind = recipe[0]
    if kind == "op":
        eqn: Eqn = recipe[1]
        return graph.apply(eqn.primitive, [demands.node(n) for n in recipe[2]], eqn.params, var.aval.dtype)
    if kind == "same":
        return demands.node(recipe[1])
    if kind == "sum":
        terms = [demands.node(x) if y is None else graph.mul(demands.node(x), demands.node(y)) for x, y in recipe[1]]
        total = graph.total(terms)
        return graph.zero if total is None else total
    return demands.read(var, where)
