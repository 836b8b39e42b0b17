"""Backwards through what is linear: a scalar program as a weighted sum of nonlinear arrays.

L(x, ...) = sum over arrays y of <w, y> + what is linear in x, where no weight w depends on x. The weights are found as
reverse mode finds adjoints, by the primitives' own `transpose` rules, and are equations of the same program.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from functrace.core.evaluate import evaluate_plain
from functrace.core.ir import Atom, ClosedJaxpr, Eqn, Literal, Var, live_eqns
from functrace.core.primitive import Primitive
from functrace.core.trace import EVAL, reset_trace, set_trace
from functrace.interpreters.staging import StagedTracer, StagingTrace
from functrace.interpreters.transpose import transpose
from functrace.primitives.contraction import dot_general, free_axes
from functrace.primitives.elementwise import select
from functrace.primitives.families import add, mul, reshape
from functrace.primitives.indexing import gather, scatter_add, scatter_set, update
from functrace.primitives.shape import concatenate, full, stack
from functrace.sparse._element_graph import FULL, Graph, NotSeparable, template_of
from functrace.util import Source

__all__ = ["SHORT", "Program", "is_short", "named", "product_positions", "weighted_arrays"]

#: A sum of at most so many terms inside an element function is written out.
SHORT = 32

#: The same where every term can be an element of a family of its own.
SHORT_AT_ROOT = 4

#: Linear in all their operands of numbers together.
_JOINTLY_LINEAR: frozenset[Primitive] = frozenset((concatenate, stack, update, scatter_set, scatter_add))


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
        self.trace = _Opening(EVAL)
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
        if eqn.primitive is dot_general and not is_short(eqn, SHORT_AT_ROOT) and (_spreads(eqn) or not is_short(eqn)):
            roots.append(_spread_product(program, eqn, found[0]))
            return
        if eqn.primitive.multiple:
            raise NotSeparable(named(eqn))
        roots.append((eqn.outvars[0], program.trace.atom(found[0])))
        return
    operands = [a if program.is_active(a) else program.as_value(a) for a in eqn.invars]
    for atom, bar in zip(eqn.invars, transpose(eqn, found, operands), strict=True):
        if bar is not None and program.is_active(atom):
            bars[atom] = add(bars[atom], bar) if atom in bars else bar  # type: ignore[index]


def _is_linear(program: Program, eqn: Eqn) -> bool:
    """Whether an equation is linear in all its active operands together, with coefficients that are known."""
    primitive = eqn.primitive
    flags = tuple([program.is_active(a) for a in eqn.invars])
    if primitive.transpose is None or primitive is select or primitive.family == "control":
        return False
    if primitive.family != "elementwise":
        return primitive.family in ("linear", "indexing", "bilinear") and (
            primitive in _JOINTLY_LINEAR or sum(flags) == 1
        )
    if (primitive, flags) not in _linear:
        _linear[primitive, flags] = _is_linear_element(program, eqn, flags)
    return _linear[primitive, flags]


#: What is known of elementwise operations, by which of their operands are active.
_linear: dict[tuple[Primitive, tuple[bool, ...]], bool] = {}


def _is_linear_element(program: Program, eqn: Eqn, flags: Sequence[bool]) -> bool:
    graph = Graph(program.dtype)
    dtypes = [a.aval.dtype for a in eqn.invars]
    leaves = [graph.leaf(i, None, dtype, flag, FULL) for i, (dtype, flag) in enumerate(zip(dtypes, flags, strict=True))]
    node = graph.apply(eqn.primitive, leaves, eqn.params, eqn.outvars[0].aval.dtype)
    template = template_of(graph, node)
    active = [k for k, flag in enumerate(flags) if flag]
    return not any(template.second(j, k) is not None for j in active for k in active)


def is_short(eqn: Eqn, most: int = SHORT) -> bool:
    """Whether a contraction has so few terms that they are written out."""
    (x_axes, _), shape = eqn.params["contract"], eqn.invars[0].aval.shape
    return math.prod(shape[a] for a in x_axes) <= most


def _spreads(eqn: Eqn) -> bool:
    """Whether the products in a contraction are not too many to have each for itself."""
    (x_axes, _), shape = eqn.params["contract"], eqn.invars[0].aval.shape
    products = eqn.outvars[0].aval.size * math.prod(shape[a] for a in x_axes)
    return products <= 64 * sum(a.aval.size for a in eqn.invars)


def product_positions(eqn: Eqn) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
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
    if not _spreads(eqn):
        raise NotSeparable(named(eqn))
    x_at, y_at, shape = product_positions(eqn)

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


def named(eqn: Eqn) -> str:
    return f"{eqn.primitive.name} at {eqn.source}"
