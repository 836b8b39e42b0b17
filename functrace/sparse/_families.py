"""Element families: a scalar program as a sum of element functions over index maps.

L(x, ...) = sum over families k of sum over i of w_k[i] phi_k(x[I_k1[i]], ..., x[I_kw[i]]; p_k[i])

The program is walked twice. From the scalar backwards through what is linear (sums, products with multipliers,
concatenations, indexing, constant matrices), by the primitives' own `transpose` rules: that gives the nonlinear arrays
and their weights. From these further back, element by element: operations that move elements turn into index maps, short
sums into a few terms, until only elements of x and of parameters are left. A piecewise array (a concatenation, a
padding) splits a family. What fits neither way is not separable.

A. Griewank and Ph. L. Toint, On the unconstrained optimization of partially separable functions (1982).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from functrace.core.evaluate import evaluate_plain
from functrace.core.ir import Atom, ClosedJaxpr, Eqn, Literal, Var, is_scalar, live_eqns
from functrace.core.trace import EVAL, reset_trace, set_trace
from functrace.interpreters.staging import StagedTracer, StagingTrace
from functrace.interpreters.transpose import transpose
from functrace.primitives.contraction import dot_general, free_axes
from functrace.primitives.elementwise import select
from functrace.primitives.families import add, mul, reduce_sum, reshape
from functrace.primitives.indexing import gather
from functrace.primitives.shape import full
from functrace.sparse._element_graph import FULL, UNIFORM, Graph, NotSeparable, template_of
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
from functrace.util import Source

__all__ = ["Family", "NotSeparable", "Program", "element_families", "output_families"]

#: A sum of at most so many terms inside an element function is written out.
SHORT = 32

#: What at least so many elements share is computed once for them.
COARSE = 8

#: A family is split into at most so many pieces.
MOST_PIECES = 256


class _Split(Exception):
    """The elements of a family are not all computed alike; carries a label per element."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = labels


class Program:
    """A program with its constants in place, calls opened, and what depends on the inputs of interest marked.

    Attributes:
        invars, eqns, outvars: the program; array constants are literals.
        wrt: the inputs of interest.
        active: the variables that a derivative by these reaches.
        dtype: the one real dtype of the active variables.
    """

    def __init__(self, closed: ClosedJaxpr, wrt: Sequence[int]) -> None:
        self.invars = closed.jaxpr.invars
        self.wrt = [self.invars[i] for i in wrt]
        eqns, self.outvars = _opened(closed)
        self.eqns = live_eqns(eqns, self.outvars)
        self.dtype = self.wrt[0].aval.dtype
        if self.dtype.kind != "f":
            raise NotSeparable(f"derivatives by inputs of dtype {self.dtype}")
        self.active: set[Var] = set(self.wrt)
        for eqn in self.eqns:
            self.mark(eqn)
        self.trace = StagingTrace(EVAL)
        self.producer: dict[Var, tuple[Eqn, int]] = {}
        self.produced(self.eqns)

    def mark(self, eqn: Eqn) -> None:
        """Note which outputs of an equation are active."""
        if eqn.primitive.nondifferentiable or not any(type(a) is Var and a in self.active for a in eqn.invars):
            return
        for var in eqn.outvars:
            if var.aval.dtype.kind in "fc":
                if var.aval.dtype != self.dtype:
                    raise NotSeparable(f"intermediates of dtype {var.aval.dtype} in a program of {self.dtype}")
                self.active.add(var)

    def produced(self, eqns: Iterable[Eqn]) -> None:
        for eqn in eqns:
            for k, var in enumerate(eqn.outvars):
                self.producer[var] = (eqn, k)

    def is_active(self, atom: Atom) -> bool:
        return type(atom) is Var and atom in self.active

    def as_value(self, atom: Atom) -> Any:
        """An atom as a value under the program's trace."""
        return atom.val if isinstance(atom, Literal) else StagedTracer(self.trace, atom)


class _Opening(StagingTrace):
    """Records the equations of a program again, with their own source lines, those of the programs it calls too."""

    source_of_eqn: Source | None = None

    def eqn_source(self) -> Source | None:
        return self.source_of_eqn


def _opened(closed: ClosedJaxpr) -> tuple[list[Eqn], list[Atom]]:
    """The equations of a program with its constants as literals, and with the programs it calls in place."""
    jaxpr = closed.jaxpr
    constants: dict[Any, Atom] = {v: Literal(c) for v, c in zip(jaxpr.constvars, closed.consts, strict=True)}
    if any(e.primitive.unfold is not None for e in jaxpr.eqns):
        return _unfolded(closed)
    eqns = []
    for eqn in jaxpr.eqns:
        invars = [constants.get(a, a) for a in eqn.invars] if constants else eqn.invars
        known = _known(eqn, invars)
        if known is None:
            eqns.append(Eqn(eqn.primitive, invars, eqn.outvars, eqn.params, eqn.source))
        else:
            constants.update(zip(eqn.outvars, map(Literal, known), strict=True))
    return eqns, [constants.get(a, a) for a in jaxpr.outvars]


def _known(eqn: Eqn, invars: Sequence[Atom]) -> list[Any] | None:
    """The outputs of an equation that reads only constants; a constant array stays the operation that makes it."""
    if eqn.primitive is full or eqn.primitive.effectful or not all(type(a) is Literal for a in invars):
        return None
    if eqn.primitive.family == "control":
        return None
    out = evaluate_plain(eqn.primitive, [a.val for a in invars], eqn.params)  # type: ignore[union-attr]
    return list(out) if eqn.primitive.multiple else [out]


def _unfolded(closed: ClosedJaxpr) -> tuple[list[Eqn], list[Atom]]:
    trace = _Opening(EVAL)
    trace.name = "the element Hessian"
    budget = 4096

    def run(program: Any, *values: Any) -> list[Any]:
        if callable(program) and not hasattr(program, "eqns"):
            program = getattr(program, "jaxpr", program)
        if not hasattr(program, "eqns"):
            raise NotSeparable("a call of a function that is not recorded")
        return evaluate(program, (), values)

    def evaluate(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
        nonlocal budget
        env: dict[Any, Any] = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *args), strict=True))
        for eqn in jaxpr.eqns:
            values = [a.val if isinstance(a, Literal) else env[a] for a in eqn.invars]
            budget -= 1
            if budget < 0:
                raise NotSeparable("a loop too long to be written out")
            trace.source_of_eqn = eqn.source or trace.source_of_eqn
            if eqn.primitive.unfold is not None and _unfolds(eqn, values):
                outs = eqn.primitive.unfold(run, *values, **eqn.params)
            else:
                outs = eqn.primitive.bind(*values, **eqn.params)
                outs = outs if eqn.primitive.multiple else [outs]
            env.update(zip(eqn.outvars, outs, strict=True))
        return [a.val if isinstance(a, Literal) else env[a] for a in jaxpr.outvars]

    inputs = [StagedTracer(trace, v) for v in closed.jaxpr.invars]
    token = set_trace(trace)
    try:
        outs = evaluate(closed.jaxpr, closed.consts, inputs)
        return trace.recorder.eqns, [trace.atom(o) for o in outs]
    finally:
        reset_trace(token)


def _unfolds(eqn: Eqn, values: Sequence[Any]) -> bool:
    """Whether the programs in an equation can be run without values: calls, and loops of fixed length."""
    params = eqn.params
    if "branches" in params:
        return not isinstance(values[0], StagedTracer)
    return "cond" not in params


# backwards through what is linear


def weighted_arrays(program: Program) -> list[tuple[Var, Atom]]:
    """The nonlinear arrays of a scalar program and their weights: L = sum of <weight, array> + what is linear in x.

    Weights are computed by equations added to the program.
    """
    trace = program.trace
    bars: dict[Var, Any] = {}
    roots: list[tuple[Var, Atom]] = []
    out = program.outvars[0]
    if not program.is_active(out):
        return roots
    bars[out] = trace.pure(program.dtype.type(1))  # type: ignore[index]
    token = set_trace(trace)
    try:
        for eqn in reversed(program.eqns):
            if any(v in bars for v in eqn.outvars):
                _walk(program, eqn, bars, roots)
    finally:
        reset_trace(token)
    recorded = trace.recorder.eqns
    for eqn in recorded:
        program.mark(eqn)
    program.produced(recorded)
    program.eqns = [*program.eqns, *recorded]
    return roots


def _walk(program: Program, eqn: Eqn, bars: dict[Var, Any], roots: list[tuple[Var, Atom]]) -> None:
    """Pass an equation's cotangents on to its operands, or note it as nonlinear."""
    found = [bars.pop(v, None) for v in eqn.outvars]
    if not _is_linear(program, eqn):
        if eqn.primitive is dot_general and not _is_short(eqn):
            roots.append(_spread_product(program, eqn, found[0]))
            return
        if eqn.primitive.multiple:
            raise NotSeparable(_named(eqn))
        roots.append((eqn.outvars[0], program.trace.atom(found[0])))
        return
    operands = [a if program.is_active(a) else program.as_value(a) for a in eqn.invars]
    for atom, bar in zip(eqn.invars, transpose(eqn.primitive, found, operands, eqn.params), strict=True):
        if bar is not None and program.is_active(atom):
            bars[atom] = add(bars[atom], bar) if atom in bars else bar  # type: ignore[index]


def _is_linear(program: Program, eqn: Eqn) -> bool:
    """Whether an equation is linear in all its active operands together, with coefficients that are known."""
    primitive = eqn.primitive
    flags = [program.is_active(a) for a in eqn.invars]
    if primitive.transpose is None or primitive is select or primitive.family == "control":
        return False
    if primitive.family == "bilinear":
        return sum(flags) == 1
    if primitive.family in ("linear", "indexing"):
        return flags[0] or flags[-1] if is_selection(eqn) else sum(flags) == 1
    if primitive.family != "elementwise":
        return False
    graph = Graph(program.dtype)
    nodes = [
        graph.number(a.val) if isinstance(a, Literal) and is_scalar(a.val)
        else graph.leaf(i, None, a.aval.dtype, flag, FULL)
        for i, (a, flag) in enumerate(zip(eqn.invars, flags, strict=True))
    ]  # fmt: skip
    node = graph.apply(primitive, nodes, eqn.params, eqn.outvars[0].aval.dtype)
    if graph.primitives[node] is None:
        return len(set(eqn.invars)) == len(eqn.invars)
    template = template_of(graph, node)
    return not any(
        template.second(j, k) is not None
        for j, x in enumerate(graph.operands[node])
        for k, y in enumerate(graph.operands[node])
        if graph.active[x] and graph.active[y]
    )


def _is_short(eqn: Eqn) -> bool:
    (x_axes, _), shape = eqn.params["contract"], eqn.invars[0].aval.shape
    return math.prod(shape[a] for a in x_axes) <= SHORT


def _product_positions(eqn: Eqn) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Positions in both operands of a contraction over the space (output axes, contracted axes), and its shape."""
    x, y = (a.aval for a in eqn.invars)
    contract, batch = eqn.params["contract"], eqn.params["batch"]
    x_free, y_free = free_axes(x.ndim, contract[0], batch[0]), free_axes(y.ndim, contract[1], batch[1])
    x_axes = (*batch[0], *x_free, *contract[0])
    y_axes = (*batch[1], *y_free, *contract[1])
    batches, rest = len(batch[0]), len(contract[0])
    x_at = np.arange(x.size).reshape(x.shape).transpose(x_axes)
    y_at = np.arange(y.size).reshape(y.shape).transpose(y_axes)
    x_at = x_at.reshape(*x_at.shape[: batches + len(x_free)], *(1,) * len(y_free), *x_at.shape[x.ndim - rest :])
    y_at = y_at.reshape(*y_at.shape[:batches], *(1,) * len(x_free), *y_at.shape[batches:])
    x_at, y_at = np.broadcast_arrays(x_at, y_at)
    return x_at, y_at, x_at.shape


def _spread_product(program: Program, eqn: Eqn, bar: Any) -> tuple[Var, Atom]:
    """A long contraction of two arrays of x as a family of its products."""
    x_at, y_at, shape = _product_positions(eqn)
    size = math.prod(shape)
    if size > 64 * sum(a.aval.size for a in eqn.invars):
        raise NotSeparable(_named(eqn))

    def read(value: Any, positions: np.ndarray) -> Any:
        flat = reshape(value, shape=(math.prod(value.shape),))
        return gather(flat, np.ascontiguousarray(positions).reshape(-1), axes=(0,), unique=False)

    x, y = (program.as_value(a) for a in eqn.invars)
    product = mul(read(x, x_at), read(y, y_at))
    outer = shape[: len(eqn.outvars[0].aval.shape)]
    places = np.arange(math.prod(outer)).reshape(outer + (1,) * (len(shape) - len(outer)))
    if outer:
        bar = read(bar, np.broadcast_to(places, shape))
    return product.atom, program.trace.atom(bar)


def _named(eqn: Eqn) -> str:
    return f"{eqn.primitive.name} at {eqn.source}"


# further back, element by element


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
    """

    def __init__(self, graph: Graph, count: int, classes: dict[int, Classes]) -> None:
        self.graph, self.count, self.classes = graph, count, classes
        self.roots: list[tuple[int, int]] = []
        self.places: list[IndexMap] = []
        self.arrays: list[Var] = []

    def read(self, leaf: int) -> tuple[Var, IndexMap]:
        """The input that a leaf reads, and where each element does."""
        atom, where = self.graph.values[leaf]
        domain = self.graph.domains[leaf]
        return atom, compose(where, from_array(self.classes[domain].of)) if domain > FULL else where


#: An array of the program, its weight (None for 1), and which of its elements.
_Root = tuple[Var, Atom | None, IndexMap]


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
                parts = [(var, weight, restrict(places, elements)) for var, weight, places in group]
                pending.setdefault(elements.size, []).extend(parts)
        if len(families) + len(pending) > MOST_PIECES:
            raise NotSeparable("an array of too many pieces")
    return families


def element_families(program: Program) -> list[Family]:
    """The families of a scalar program.

    Raises:
        NotSeparable: it is no sum of element functions.
    """
    return _collect(program, [(v, w, identity(v.aval.size)) for v, w in weighted_arrays(program)])


def output_families(program: Program) -> list[Family]:
    """The families of a program's outputs, element by element, with weight 1."""
    roots: list[_Root] = [(v, None, identity(v.aval.size)) for v in program.outvars if program.is_active(v)]  # type: ignore[misc,arg-type]
    return _collect(program, roots)


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
        if where.array is None or where.count < COARSE:
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
    for var, weight, places in group:
        wanted.append((demands.need(var, places), None if weight is None else _weight_need(demands, weight, var, places)))
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
    for (need, weight_need), (var, _, places) in zip(wanted, group, strict=True):
        node = demands.node(need)
        weight = demands.graph.one if weight_need is None else demands.node(weight_need)
        family.roots.append((node, weight))
        family.places.append(places)
        family.arrays.append(var)
    return family


def _weight_need(demands: _Demands, weight: Atom, var: Var, places: IndexMap) -> Any:
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
        if not _is_short(eqn):
            raise NotSeparable(_named(eqn))
        x_at, y_at, shape = _product_positions(eqn)
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
        raise NotSeparable(_named(eqn))
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
        raise NotSeparable(_named(eqn))
    positions = np.arange(aval.size).reshape(aval.shape).transpose(kept + tuple(axes)).reshape(-1, count)
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
