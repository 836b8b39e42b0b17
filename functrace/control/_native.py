"""How loops, branches and nested programs are compiled: native loops around the code of their bodies.

`c` is the compiler's context: `c.e` emits, `c.program(jaxpr, inputs, outputs)` emits a program's code in place. A carry
of a few numbers lives in registers from step to step; a larger one alternates between two arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from functrace.control._functions import split
from functrace.control._invariants import with_columns, without_invariants
from functrace.core.ir import ClosedJaxpr, Eqn, Jaxpr, Var
from functrace.core.lowering import Control
from functrace.core.types import ShapedArray
from functrace.interpreters.staging import stage
from functrace.primitives.contraction import dot_general
from functrace.primitives.families import add

__all__ = ["branches", "counted_loop", "nested", "while_loop"]

_DEFERRED = 9  # elements of a sum of outer products, from which on it becomes one matrix product after the loop


class _Carry(NamedTuple):
    """A carry inside a loop: its place at the step's start, and where the next one goes (None: registers)."""

    place: Any
    following: Any


class _Loop:
    """A loop's carry across its blocks: registers by phis, arrays by phis of their addresses."""

    def __init__(self, c: Any, start: Sequence[Any]) -> None:
        self.c, self.e = c, c.e
        self.start = [c.registers(s) if c.is_small(s) else c.rooted(c.materialise(s)) for s in start]
        self.pairs = [None if c.is_small(s) else (c.like(s), c.like(s)) for s in self.start]
        self.phis: list[tuple[int, str]] = []

    def open(self, before: str, at: int, head: str) -> list[_Carry]:
        """The carry at the head of the loop; its phis are written by `close`."""
        self.head, self.before, self.at = head, before, at
        self.carries = []
        for k, (start, pair) in enumerate(zip(self.start, self.pairs, strict=True)):
            if pair is None:
                place = self.c.small_like(start, f"%{head}.c{k}")
                self.carries.append(_Carry(place, None))
            else:
                current = self.c.buffer_like(start, f"%{head}.c{k}")
                self.carries.append(_Carry(current, self.c.buffer_like(start, f"%{head}.d{k}")))
        return self.carries

    def close(self, leaving: Sequence[Any], latch: str) -> None:
        """Writes the phis, now that the values after a step are known."""
        lines = []
        for k, (start, pair, carry, value) in enumerate(
            zip(self.start, self.pairs, self.carries, leaving, strict=True)
        ):
            if pair is None:
                lines += self.c.phi_lines(carry.place, start, self.before, value, latch)
                continue
            first, _ = pair
            other = f"%{self.head}.o{k}"
            lines.append(
                f"  {carry.place.pointer} = "
                f"phi ptr [{start.pointer}, %{self.before}], [{carry.following.pointer}, %{latch}]"
            )
            lines.append(
                f"  {carry.following.pointer} = phi ptr [{first.pointer}, %{self.before}], [{other}, %{latch}]"
            )
        self.e.lines[self.at : self.at] = lines

    def swap(self) -> None:
        """At the end of a step: where the step after the next writes."""
        for k, (pair, carry) in enumerate(zip(self.pairs, self.carries, strict=True)):
            if pair is not None:
                first, second = pair
                same = self.e.index(f"icmp eq ptr {carry.following.pointer}, {first.pointer}")
                self.e.line(f"%{self.head}.o{k} = select i1 {same}, ptr {second.pointer}, ptr {first.pointer}")


# scan


def _emit_scan(
    c: Any, operands: list[Any], outs: list[Any], *, jaxpr: Jaxpr, length: int, reverse: bool, consts: int, carry: int
) -> None:
    constants, state, inputs = split(operands, consts, carry)
    constants = [c.homed(k) for k in constants]
    inputs = [c.materialise(x) for x in inputs]
    if length == 0:
        for place, out in zip(state, outs, strict=False):
            c.copy(c.materialise(place), out)
        return
    body = with_columns(c, without_invariants(c, c.prepared(jaxpr), constants), constants, length)
    body, constants, state, outs, after = _deferred(c, body, constants, state, inputs, outs, length)
    count = len(state)
    constants = [c.homed(k) for k in constants]
    e = c.e
    loop = _Loop(c, state)
    head, before = e.new_label("scan"), e.block
    e.line(f"br label %{head}")
    e.label(head)
    at = len(e.lines)
    carries = loop.open(before, at, head)
    step = f"%{head}.i"
    position = e.index(f"sub i64 {length - 1}, {step}") if reverse else step
    slices = [c.slice(x, position) for x in inputs]
    goals = [k.following for k in carries] + [c.slice(y, position) for y in outs[count:]]
    found = c.program(body, [*constants, *(k.place for k in carries), *slices], goals)
    leaving = [c.registers(v) if k.following is None else v for k, v in zip(carries, found, strict=False)]
    loop.swap()
    latch = e.block
    e.line(f"%{head}.n = add nuw nsw i64 {step}, 1")
    more = e.index(f"icmp slt i64 %{head}.n, {length}")
    end = e.new_label("end")
    e.line(f"br i1 {more}, label %{head}, label %{end}")
    loop.close(leaving, latch)
    e.lines.insert(at, f"  {step} = phi i64 [0, %{before}], [%{head}.n, %{latch}]")
    e.label(end)
    for value, out in zip(leaving, outs, strict=False):
        c.copy(c.materialise(value), out)
    after()


def _deferred(
    c: Any, body: Jaxpr, constants: list[Any], state: list[Any], inputs: list[Any], outs: list[Any], length: int
) -> tuple[Jaxpr, list[Any], list[Any], list[Any], Callable[[], None]]:
    """The loop without carries that only sum up outer products: these are one matrix product after the loop."""
    consts, count = len(constants), len(state)
    entering = body.invars[consts : consts + count]
    uses: dict[Var, int] = {}
    for atom in [a for eqn in body.eqns for a in eqn.invars] + list(body.outvars):
        if isinstance(atom, Var):
            uses[atom] = uses.get(atom, 0) + 1
    made = {v: eqn for eqn in body.eqns for v in eqn.outvars}
    moved: dict[int, Eqn] = {}
    for k, var in enumerate(entering):
        out = body.outvars[k]
        term = _added(made.get(out), var) if isinstance(out, Var) else None
        if term is None or uses.get(var) != 1 or var.aval.size < _DEFERRED:
            continue
        product = made.get(term)
        if product is not None and _is_outer(product) and uses[term] == 1 and uses[out] == 1:  # type: ignore[index]
            moved[k] = product
    if not moved:
        return body, constants, state, outs, lambda: None
    kept = [k for k in range(count) if k not in moved]
    factors: list[tuple[Any, Any]] = [(a, b) for a, b in (eqn.invars for eqn in moved.values())]
    dropped = {entering[k] for k in moved}
    # A factor that is an input of the step is there for all steps already.
    stacks = dict(zip(body.invars[consts + count :], inputs, strict=True))
    extra = [v for v in dict.fromkeys(v for pair in factors for v in pair) if v not in stacks]
    stacks |= {v: c.array((length, *v.aval.shape), v.aval.dtype) for v in extra}
    sums = {body.outvars[k] for k in moved}
    gone = sums | {v for eqn in moved.values() for v in eqn.outvars}
    eqns = [eqn for eqn in body.eqns if not gone.issuperset(eqn.outvars)]
    ys = body.outvars[count:]
    smaller = Jaxpr(
        [], [v for v in body.invars if v not in dropped], eqns, [*(body.outvars[k] for k in kept), *ys, *extra]
    )

    def after() -> None:
        for (k, eqn), (a, b) in zip(moved.items(), factors, strict=True):
            left, right = stacks[a], stacks[b]
            program = _summed(entering[k].aval, [c.aval(left), c.aval(right)], eqn.params["batch"])
            c.program(c.prepared(program), [c.homed(state[k]), left, right], [outs[k]])

    new_outs = [outs[k] for k in kept] + list(outs[count:]) + [stacks[v] for v in extra]
    return smaller, constants, [state[k] for k in kept], new_outs, after


def _added(eqn: Eqn | None, var: Var) -> Var | None:
    """What an equation adds to a variable, if it does."""
    if eqn is None or eqn.primitive is not add or var not in eqn.invars:
        return None
    other = eqn.invars[1] if eqn.invars[0] is var else eqn.invars[0]
    return other if isinstance(other, Var) and other is not var else None


def _is_outer(eqn: Eqn) -> bool:
    operands = all(isinstance(a, Var) and a.aval.ndim for a in eqn.invars)
    return (
        eqn.primitive is dot_general
        and operands
        and eqn.params["contract"] == ((), ())
        and eqn.params["batch"] == ((), ())
    )


def _summed(total: ShapedArray, stacks: list[ShapedArray], batch: Any) -> Jaxpr:
    """total + the sum over steps of outer products."""

    def function(start: Any, left: Any, right: Any) -> list[Any]:
        return [add(start, dot_general(left, right, contract=((0,), (0,)), batch=batch))]

    return stage(function, [total, *stacks]).jaxpr


# while


def _emit_while(
    c: Any, operands: list[Any], outs: list[Any], *, cond: Jaxpr, body: Jaxpr, cond_consts: int, body_consts: int
) -> None:
    cond_constants, body_constants, state = split(operands, cond_consts, body_consts)
    cond_constants, body_constants = [c.homed(k) for k in cond_constants], [c.homed(k) for k in body_constants]
    body = with_columns(c, c.prepared(body), body_constants, None)
    e = c.e
    loop = _Loop(c, state)
    head, before = e.new_label("while"), e.block
    e.line(f"br label %{head}")
    e.label(head)
    at = len(e.lines)
    carries = loop.open(before, at, head)
    places = [k.place for k in carries]
    (holds,) = c.program(c.prepared(cond), [*cond_constants, *places], [None])
    step, end = e.new_label("step"), e.new_label("end")
    e.line(f"br i1 {c.registers(holds).values[0].name}, label %{step}, label %{end}")
    e.label(step)
    found = c.program(body, [*body_constants, *places], [k.following for k in carries])
    leaving = [c.registers(v) if k.following is None else v for k, v in zip(carries, found, strict=True)]
    loop.swap()
    latch = e.block
    e.line(f"br label %{head}")
    loop.close(leaving, latch)
    e.label(end)
    for place, out in zip(places, outs, strict=True):
        c.copy(c.materialise(place), out)


# branches


def _emit_branches(c: Any, operands: list[Any], outs: list[Any], *, branches: tuple[Jaxpr, ...]) -> None:
    index, *rest = operands
    e = c.e
    rest = [c.homed(r) for r in rest]
    chosen = c.integer(index)
    labels = [e.new_label("branch") for _ in branches]
    wrong, end = e.new_label("wrong"), e.new_label("end")
    cases = " ".join(f"i64 {k}, label %{label}" for k, label in enumerate(labels))
    e.line(f"switch i64 {chosen}, label %{wrong} [{cases}]")
    for label, branch in zip(labels, branches, strict=True):
        e.label(label)
        c.program(c.prepared(branch), rest, outs)
        e.line(f"br label %{end}")
    e.label(wrong)
    c.decline()
    e.line(f"br label %{end}")
    e.label(end)


def nested(program: Callable[..., Any]) -> Control:
    """The lowering of a call whose program is compiled on its own, nothing of it shared with what is around it."""

    def emit(c: Any, operands: list[Any], outs: list[Any], **params: Any) -> None:
        closed = program([c.aval(o) for o in operands], **params)
        jaxpr = closed.jaxpr if isinstance(closed, ClosedJaxpr) else closed
        constants: list[Any] = [c.constant(k) for k in closed.consts] if isinstance(closed, ClosedJaxpr) else []
        joined = Jaxpr([], [*jaxpr.constvars, *jaxpr.invars], jaxpr.eqns, jaxpr.outvars)
        c.program(c.prepared(joined), [*constants, *(c.homed(o) for o in operands)], outs)

    return Control(emit=emit)


counted_loop = Control(emit=_emit_scan)
while_loop = Control(emit=_emit_while)
branches = Control(emit=_emit_branches)
