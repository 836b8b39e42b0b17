"""A run as a list of assignments, and the lists that forward and reverse mode make of it: what a textbook writes down.

An assignment is a name, the small program that computes it, and the names that program reads. Forward mode adds a
tangent after each assignment; reverse mode adds adjoints, last assignment first. Both give assignments again, so they
nest in any order; each program comes from the rules of the primitives in it. Cf. A. Griewank and A. Walther, Evaluating
Derivatives (2nd ed., 2008), chapters 2 and 3; A. G. Baydin et al., Automatic differentiation in machine learning: a
survey (2018), tables 2 and 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from functrace.core.ir import Atom, ClosedJaxpr, Eqn, Jaxpr, Var, eval_jaxpr, live_eqns
from functrace.core.trace import EVAL, reset_trace, set_trace
from functrace.core.types import ShapedArray, is_inexact
from functrace.inspect.formula import Constant, Expression, Symbol, expressions, written
from functrace.inspect.watch import Run
from functrace.interpreters.jvp import jvp_jaxpr
from functrace.interpreters.simplify import simplify
from functrace.interpreters.staging import stage
from functrace.interpreters.transpose import transpose_jaxpr
from functrace.primitives.families import add
from functrace.util import Source

__all__ = ["Assignment", "Traces", "direction", "linear_part", "trace_run"]


@dataclass(frozen=True)
class Assignment:
    """Names and the program of other names that gives them.

    Attributes:
        targets: what is assigned.
        operands: the names that the program reads, one per input.
        program: None for a given value (an input, a seed).
        source: the user's line.
    """

    targets: tuple[Symbol, ...]
    operands: tuple[Symbol, ...] = ()
    program: ClosedJaxpr | None = None
    source: Source | None = None

    def expressions(self) -> list[Expression]:
        """Per target, its formula."""
        if self.program is None:
            return []
        names: dict[Var, Expression] = dict(zip(self.program.jaxpr.invars, self.operands, strict=True))
        constants = zip(self.program.jaxpr.constvars, map(Constant, self.program.consts), strict=True)
        return expressions(self.program.jaxpr, {**names, **dict(constants)})


@dataclass
class Traces:
    """Assignments in the order of their evaluation, and the value of every name.

    Attributes:
        inputs, outputs: the names of the function's inputs and outputs.
    """

    inputs: list[Symbol]
    outputs: list[Symbol]
    assignments: list[Assignment] = field(default_factory=list)
    values: dict[Symbol, Any] = field(default_factory=dict)

    def give(self, symbol: Symbol, value: Any) -> Assignment:
        """A given value; not yet in the list."""
        self.values[symbol] = value
        return Assignment((symbol,))

    def compute(self, assignment: Assignment) -> Assignment:
        """Evaluate an assignment; not yet in the list."""
        program = assignment.program
        assert program is not None
        token = set_trace(EVAL)
        try:
            with np.errstate(all="ignore"):
                values = [self.values[o] for o in assignment.operands]
                outs = eval_jaxpr(program.jaxpr, program.consts, *values)
        finally:
            reset_trace(token)
        self.values.update(zip(assignment.targets, outs, strict=True))
        return assignment

    def forward(self, seeds: Mapping[Symbol, Any], mark: str) -> None:
        """Add the tangents of everything that depends on the seeded inputs."""
        added = []
        tangent: set[Symbol] = set()
        for assignment in self.assignments:
            if assignment.program is None:
                (symbol,) = assignment.targets
                if symbol in seeds:
                    tangent.add(symbol)
                    added.append(self.give(symbol.marked(mark), seeds[symbol]))
                continue
            linear = linear_part(assignment, tangent, mark)
            if linear is not None:
                targets, program, operands = linear
                tangent.update(targets)
                names = tuple(t.marked(mark) for t in targets)
                added.append(self.compute(Assignment(names, operands, program, assignment.source)))
        self.assignments += added

    def reverse(self, inputs: Iterable[Symbol], seeds: Mapping[Symbol, Any], mark: str) -> None:
        """Add the adjoints of everything between these inputs and the seeded outputs."""
        active = set(inputs)
        parts = []
        for assignment in self.assignments:
            part = None if assignment.program is None else linear_part(assignment, active, mark)
            if part is not None:
                active.update(part[0])
            parts.append(part)
        terms: dict[Symbol, list[tuple[ClosedJaxpr, tuple[Symbol, ...]]]] = {}
        added = []
        for assignment, part in zip(reversed(self.assignments), reversed(parts), strict=True):
            for symbol in assignment.targets:
                bar = symbol.marked(mark)
                if symbol in seeds and symbol in active and symbol not in terms:
                    added.append(self.give(bar, seeds[symbol]))
                elif symbol in terms:
                    assert symbol not in seeds, "an output is read by nothing"
                    program, operands = _total(terms[symbol][::-1])
                    added.append(self.compute(Assignment((bar,), operands, program, assignment.source)))
            if part is not None:
                for symbol, term in self._pull(part, mark):
                    terms.setdefault(symbol, []).append(term)
        self.assignments += added

    def _pull(
        self, part: tuple[tuple[Symbol, ...], ClosedJaxpr, tuple[Symbol, ...]], mark: str
    ) -> list[tuple[Symbol, tuple[ClosedJaxpr, tuple[Symbol, ...]]]]:
        """What an assignment adds to the adjoints of its operands."""
        targets, program, operands = part
        kept = [i for i, t in enumerate(targets) if t.marked(mark) in self.values]
        if not kept:
            return []
        jaxpr = program.jaxpr
        restricted = Jaxpr(jaxpr.constvars, jaxpr.invars, jaxpr.eqns, [jaxpr.outvars[i] for i in kept])
        restricted.eqns = live_eqns(jaxpr.eqns, restricted.outvars)
        linear = [o.marks[-1:] == (mark,) for o in operands]
        transposed = _at_bottom(lambda: transpose_jaxpr(ClosedJaxpr(restricted, program.consts), linear))
        known = [o for o, flag in zip(operands, linear, strict=True) if not flag]
        bars = [targets[i].marked(mark) for i in kept]
        moved = [o for o, flag in zip(operands, linear, strict=True) if flag]
        found = []
        for symbol, out in zip(moved, transposed.jaxpr.outvars, strict=True):
            contribution, names = _trimmed(transposed, [out], [*known, *bars])
            if any(bar in names for bar in bars):
                found.append((Symbol(symbol.label, symbol.marks[:-1]), (contribution, names)))
        return found


def _at_bottom(make: Callable[[], Any]) -> Any:
    token = set_trace(EVAL)
    try:
        return make()
    finally:
        reset_trace(token)


def linear_part(
    assignment: Assignment, active: set[Symbol], mark: str
) -> tuple[tuple[Symbol, ...], ClosedJaxpr, tuple[Symbol, ...]] | None:
    """An assignment's derivative: the targets that have one, and the program of (names, tangents) that gives it.

    Where the rule reads the assignment's own results, the program reads them by name.
    """
    program, operands = assignment.program, assignment.operands
    assert program is not None
    avals = program.in_avals
    flags = [o in active and is_inexact(a.dtype) for o, a in zip(operands, avals, strict=True)]
    if not any(flags):
        return None
    closed, nonzeros = _at_bottom(lambda: jvp_jaxpr(program, flags))
    if not any(nonzeros):
        return None
    jaxpr = closed.jaxpr
    count = len(assignment.targets)
    results: dict[Var, Var] = {}
    names: list[Symbol] = []
    for target, out in zip(assignment.targets, jaxpr.outvars[:count], strict=True):
        if isinstance(out, Var) and out not in jaxpr.invars and out not in results:
            results[out] = Var(out.aval)
            names.append(target)

    def renamed(atom: Atom) -> Atom:
        return results.get(atom, atom) if isinstance(atom, Var) else atom

    eqns = [Eqn(e.primitive, [renamed(a) for a in e.invars], e.outvars, e.params, e.source) for e in jaxpr.eqns]
    named = Jaxpr(jaxpr.constvars, [*jaxpr.invars, *results.values()], eqns, [])
    tangents = [o.marked(mark) for o, flag in zip(operands, flags, strict=True) if flag]
    targets = tuple(t for t, nonzero in zip(assignment.targets, nonzeros, strict=True) if nonzero)
    outvars = [renamed(o) for o in jaxpr.outvars[count:]]
    part, used = _trimmed(ClosedJaxpr(named, closed.consts), outvars, [*operands, *tangents, *names])
    return (targets, part, used) if any(t in used for t in tangents) else None


def _trimmed(
    closed: ClosedJaxpr, outvars: Sequence[Atom], names: Sequence[Symbol]
) -> tuple[ClosedJaxpr, tuple[Symbol, ...]]:
    """A program with fewer outputs, simplified, with the inputs and constants that it still reads."""
    jaxpr = closed.jaxpr
    small = simplify(Jaxpr(jaxpr.constvars, jaxpr.invars, jaxpr.eqns, outvars))
    read: set[Any] = {a for e in small.eqns for a in e.invars if isinstance(a, Var)}
    read.update(a for a in small.outvars if isinstance(a, Var))
    constants = [(v, c) for v, c in zip(jaxpr.constvars, closed.consts, strict=True) if v in read]
    inputs = [(v, n) for v, n in zip(jaxpr.invars, names, strict=True) if v in read]
    trimmed = Jaxpr([v for v, _ in constants], [v for v, _ in inputs], small.eqns, small.outvars)
    return ClosedJaxpr(trimmed, [c for _, c in constants]), tuple(n for _, n in inputs)


def _total(terms: Sequence[tuple[ClosedJaxpr, tuple[Symbol, ...]]]) -> tuple[ClosedJaxpr, tuple[Symbol, ...]]:
    """The sum of programs with one output each."""
    if len(terms) == 1:
        return terms[0]
    avals: dict[Symbol, ShapedArray] = {}
    for closed, operands in terms:
        avals.update(zip(operands, closed.in_avals, strict=True))
    names = list(avals)

    def total(*values: Any) -> list[Any]:
        given = dict(zip(names, values, strict=True))
        result = None
        for closed, operands in terms:
            term = eval_jaxpr(closed.jaxpr, closed.consts, *[given[o] for o in operands])[0]
            result = term if result is None else add(result, term)
        return [result]

    closed = _at_bottom(lambda: stage(total, list(avals.values())))
    return _trimmed(closed, closed.jaxpr.outvars, names)


# the assignments of a run


def _is_transparent(eqn: Eqn) -> bool:
    """Whether an operation is not written: a change of shape or precision."""
    return len(eqn.invars) == 1 and written(eqn.primitive, [eqn.invars[0].aval], eqn.params) == "x"


def trace_run(run: Run) -> Traces:
    """The primal trace: an assignment per operation, operations that are not written joined to those that read them."""
    traces = Traces([Symbol(label) for label in run.inputs], [Symbol(label) for label in run.outputs])
    names: dict[Var, Symbol] = {}
    for symbol, var in zip(traces.inputs, run.jaxpr.invars, strict=True):
        names[var] = symbol
        traces.assignments.append(traces.give(symbol, run.values[var]))
    taken = {*run.inputs, *run.outputs}
    letter = next(letter for letter in ("v", "w", "u", "_v") if not any(label.startswith(letter) for label in taken))
    joined: dict[Var, Eqn] = {}
    order = {eqn: i for i, eqn in enumerate(run.jaxpr.eqns)}
    count = 0

    def assign(targets: list[Symbol], eqns: list[Eqn], outs: list[Atom], source: Source | None) -> None:
        chain = list(eqns)
        for eqn in chain:  # grows while it is walked
            chain += [joined[a] for a in eqn.invars if isinstance(a, Var) and a in joined and joined[a] not in chain]
        chain += [e for a in outs if isinstance(a, Var) and a in joined for e in _chain(joined, a) if e not in chain]
        chain.sort(key=lambda e: order[e])
        made = {v for e in chain for v in e.outvars}
        read = dict.fromkeys(a for e in chain for a in e.invars if isinstance(a, Var) and a not in made)
        read.update(dict.fromkeys(a for a in outs if isinstance(a, Var) and a not in made))
        program = ClosedJaxpr(Jaxpr([], list(read), chain, outs))
        operands = tuple(names[v] for v in read)
        traces.assignments.append(traces.compute(Assignment(tuple(targets), operands, program, source)))

    for eqn in live_eqns(run.jaxpr.eqns, run.jaxpr.outvars):
        if _is_transparent(eqn) and isinstance(eqn.invars[0], Var):
            joined[eqn.outvars[0]] = eqn
            continue
        targets = []
        for var in eqn.outvars:
            count += 1
            names[var] = Symbol(f"{letter}{count}")
            targets.append(names[var])
        assign(targets, [eqn], list(eqn.outvars), eqn.source)
    for symbol, atom in zip(traces.outputs, run.jaxpr.outvars, strict=True):
        assign([symbol], [], [atom], None)
    return traces


def _chain(joined: Mapping[Var, Eqn], var: Atom) -> list[Eqn]:
    chain = []
    while isinstance(var, Var) and var in joined:
        chain.append(joined[var])
        var = joined[var].invars[0]
    return chain


def direction(avals: Sequence[ShapedArray]) -> list[Any]:
    """The first unit vector of the space of inexact values; None for others."""
    seeds: list[Any] = []
    first = True
    for aval in avals:
        if not is_inexact(aval.dtype):
            seeds.append(None)
            continue
        seed = np.zeros(aval.shape, aval.dtype)
        if first and seed.size:
            seed.flat[0], first = 1, False
        seeds.append(seed if aval.shape else seed[()])
    return seeds
