"""`scan`: a loop with a fixed number of steps, a carry of fixed type, and stacked inputs and outputs.

Operands are (constants, carry, stacked inputs); the body is a jaxpr of (constants, carry, one slice of each input) ->
(carry, one slice of each output). Every rule makes another scan: forward mode carries tangents along; linearization
stacks the residuals that change from step to step and keeps the others as constants; the transpose runs backwards.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.control import _native
from functrace.control._functions import (
    broadcast_batch,
    carry_fixpoint,
    choose,
    fill_tangents,
    reorder,
    split,
    swap_leading,
)
from functrace.control._sparsity import of_scan
from functrace.control.linearity import carried_flags
from functrace.control.unrolled import linearize_now, needs_values, unfolded_scan, unrolled_scan
from functrace.core.evaluate import python_function
from functrace.core.ir import Atom, ClosedJaxpr, Eqn, Jaxpr, Literal, Var, eval_jaxpr, hoist_constants, live_eqns
from functrace.core.primitive import Masked, Primitive, is_linear
from functrace.core.trace import EVAL, reset_trace, set_trace
from functrace.core.types import ShapedArray, aval_of
from functrace.core.work import Inner, Layout, Work
from functrace.interpreters.batching import batch_jaxpr
from functrace.interpreters.jvp import jvp_jaxpr
from functrace.interpreters.linearize import LinearizedJaxpr, linearize_jaxpr
from functrace.interpreters.staging import stage
from functrace.interpreters.transpose import transpose_jaxpr
from functrace.primitives.families import add
from functrace.primitives.shape import zeros

__all__ = ["scan"]


def _impl(*operands: Any, jaxpr: Jaxpr, length: int, reverse: bool, consts: int, carry: int) -> list[Any]:
    constants, state, inputs = split(operands, consts, carry)
    run = python_function(jaxpr)
    stacks = [np.empty((length, *a.shape), a.dtype) for a in jaxpr.out_avals[carry:]]
    token = set_trace(EVAL)
    try:
        for i in range(length - 1, -1, -1) if reverse else range(length):
            outs = run(*constants, *state, *[x[i] for x in inputs])
            state = outs[:carry]
            for stack, out in zip(stacks, outs[carry:]):  # noqa: B905 (the loop where eager time goes)
                stack[i] = out
    finally:
        reset_trace(token)
    return [*state, *stacks]


def _abstract_eval(
    *avals: ShapedArray, jaxpr: Jaxpr, length: int, reverse: bool, consts: int, carry: int
) -> list[ShapedArray]:
    outs = jaxpr.out_avals
    return [*outs[:carry], *(ShapedArray((length, *a.shape), a.dtype) for a in outs[carry:])]


def cost_of_loop(
    operands: Sequence[Layout], outs: Sequence[ShapedArray], *, jaxpr: Jaxpr, length: int, carry: int, **params: Any
) -> Work:
    """The body so often, the stacks that it fills, and beside a step the results of the one before."""
    stacks = sum(Layout(a).bytes for a in outs[carry:])
    before = sum(Layout(a).bytes for a in jaxpr.out_avals) if length > 1 else 0
    return Work(written=stacks, scratch=stacks + before, inner=[Inner(jaxpr, length)])


Loop = Callable[..., list[Any]]


def _bind(
    closed: ClosedJaxpr,
    constants: list[Any],
    state: list[Any],
    inputs: list[Any],
    *,
    loop: Loop | None = None,
    **params: Any,
) -> list[Any]:
    """Bind a scan (or another loop with its operands) of a body that may hold constants of its own."""
    jaxpr, own = hoist_constants(closed)
    operands = [*own, *constants, *state, *inputs]
    bind = scan.bind if loop is None else loop
    return bind(*operands, jaxpr=jaxpr, consts=len(own) + len(constants), carry=len(state), **params)


def _jvp(
    primals: list[Any],
    tangents: list[Any],
    *,
    jaxpr: Jaxpr,
    length: int,
    reverse: bool,
    consts: int,
    carry: int,
    loop: Loop | None = None,
) -> tuple[list[Any], list[Any]]:
    nonzeros = [t is not None for t in tangents]
    outputs = len(jaxpr.outvars)

    def run(nonzeros: list[bool], flags: list[bool]) -> Any:
        return jvp_jaxpr(ClosedJaxpr(jaxpr), nonzeros, [*flags, *(False,) * (outputs - carry)])

    closed, out_nonzeros = carry_fixpoint(nonzeros, consts, carry, run)
    size, tangent_places = len(primals), iter(range(len(primals), len(primals) + sum(nonzeros)))
    places = [next(tangent_places) if nonzero else None for nonzero in nonzeros]
    groups = split(range(size), consts, carry)
    order = [i for g in groups for i in (*g, *(places[j] for j in g if places[j] is not None))]
    out_tangents = iter(range(outputs, outputs + sum(out_nonzeros)))
    out_places = [next(out_tangents) if nonzero else None for nonzero in out_nonzeros]
    out_groups = split(range(outputs), carry)
    out_order = [i for g in out_groups for i in (*g, *(out_places[j] for j in g if out_places[j] is not None))]
    body = reorder(closed, order, out_order)
    dots = fill_tangents(tangents, primals, nonzeros)
    parts = [[*(primals[i] for i in g), *(dots[i] for i in g if nonzeros[i])] for g in groups]
    outs = _bind(body, *parts, length=length, reverse=reverse, loop=loop)
    position = {place: i for i, place in enumerate(out_order)}
    return [outs[position[i]] for i in range(outputs)], [None if p is None else outs[position[p]] for p in out_places]


def _linearize(
    record: Callable[..., Any],
    primals: list[Any],
    tangents: list[Var | None],
    *,
    jaxpr: Jaxpr,
    length: int,
    reverse: bool,
    consts: int,
    carry: int,
) -> tuple[list[Any], list[Var | None]]:
    if needs_values(jaxpr):
        loop = functools.partial(unrolled_scan, jaxpr=jaxpr, length=length, reverse=reverse, consts=consts, carry=carry)
        return linearize_now(record, loop, primals, tangents)
    nonzeros = [t is not None for t in tangents]
    outputs = len(jaxpr.outvars)

    def run(nonzeros: list[bool], flags: list[bool]) -> LinearizedJaxpr:
        return linearize_jaxpr(ClosedJaxpr(jaxpr), nonzeros, [*flags, *(False,) * (outputs - carry)])

    split_body: LinearizedJaxpr = carry_fixpoint(nonzeros, consts, carry, run)
    constants, state, inputs = split(primals, consts, carry)
    fixed = _invariants(split_body.primal, constants, outputs)
    varying = [i for i in range(split_body.residuals) if i not in fixed]
    places = _stack_places(split_body.primal, varying, consts + carry, carry, outputs)
    computed = [i for i in varying if i not in places]
    body = reorder(split_body.primal, range(len(primals)), [*range(outputs), *(outputs + i for i in computed)])
    outs = _bind(body, constants, state, inputs, length=length, reverse=reverse)
    known_stacks, rest = [*primals, *outs], iter(outs[outputs:])
    stacked = [known_stacks[places[i]] if i in places else next(rest) for i in varying]

    flags = split(nonzeros, consts, carry)
    first = split_body.residuals
    dots = split(range(first, first + sum(nonzeros)), sum(flags[0]), sum(flags[1]))
    order = [*fixed, *dots[0], *dots[1], *dots[2], *varying]
    linear = reorder(split_body.linear, order, range(len(split_body.linear.jaxpr.outvars)))
    body_jaxpr, own = hoist_constants(linear)
    tangent_parts = split(tangents, consts, carry)
    state_dots = choose(fill_tangents(tangent_parts[1], state, flags[1]), flags[1])
    state_atoms = [t if isinstance(t, Var) else Literal(t) for t in state_dots]
    atoms: list[Atom] = [
        *map(Literal, own),
        *map(Literal, fixed.values()),
        *choose(tangent_parts[0], flags[0]),
        *state_atoms,
        *choose(tangent_parts[2], flags[2]),
        *map(Literal, stacked),
    ]
    params = {
        "jaxpr": body_jaxpr,
        "length": length,
        "reverse": reverse,
        "consts": len(own) + len(fixed) + len(dots[0]),
        "carry": len(state_atoms),
    }
    avals = _abstract_eval(**params)  # type: ignore[arg-type]
    found = iter(record(scan, atoms, avals, params))
    return outs[:outputs], [next(found) if nonzero else None for nonzero in split_body.out_nonzeros]


def _stack_places(primal: ClosedJaxpr, residuals: list[int], first: int, carry: int, outputs: int) -> dict[int, int]:
    """Residuals that are slices of an input or an output of the scan: where among both the stack of them is found."""
    jaxpr = primal.jaxpr
    inputs = {v: i for i, v in enumerate(jaxpr.invars) if i >= first}
    ys = {v: len(jaxpr.invars) + i for i, v in enumerate(jaxpr.outvars[:outputs]) if i >= carry and type(v) is Var}
    stacks = {**ys, **inputs}
    atoms = {i: jaxpr.outvars[outputs + i] for i in residuals}
    return {i: stacks[a] for i, a in atoms.items() if type(a) is Var and a in stacks}


def _invariants(primal: ClosedJaxpr, constants: list[Any], outputs: int) -> dict[int, Any]:
    """Residuals that are the same at every step, with their values: those that depend on constants alone."""
    jaxpr = primal.jaxpr
    known: dict[Var, Any] = dict(zip(jaxpr.constvars, primal.consts, strict=True))
    known.update(zip(jaxpr.invars, constants, strict=False))
    invariant = set(known)
    eqns: list[Eqn] = []
    for eqn in jaxpr.eqns:
        if all(isinstance(a, Literal) or a in invariant for a in eqn.invars):
            invariant.update(eqn.outvars)
            eqns.append(eqn)
    residuals = jaxpr.outvars[outputs:]
    places = [i for i, atom in enumerate(residuals) if isinstance(atom, Literal) or atom in invariant]
    part = Jaxpr(list(known), [], eqns, [residuals[i] for i in places])
    return dict(zip(places, eval_jaxpr(part, list(known.values())), strict=True))


def _transpose(
    bars: list[Any], *operands: Any, jaxpr: Jaxpr, length: int, reverse: bool, consts: int, carry: int
) -> list[Any]:
    masked = any(isinstance(bar, Masked) for bar in bars)
    given, bars = bars, [bar.value if isinstance(bar, Masked) else bar for bar in bars]
    if length == 0:
        passed = [None] * consts + bars[:carry] + [None] * (len(operands) - consts - carry)
        return [bar if is_linear(o) else None for o, bar in zip(operands, passed, strict=True)]
    flags = carried_flags(jaxpr, [is_linear(o) for o in operands], consts, carry)
    if not all(flags[consts : consts + carry]):
        return _transpose_known_carry(
            given, operands, flags, jaxpr=jaxpr, length=length, reverse=reverse, consts=consts, carry=carry
        )
    constants, _, inputs = split(operands, consts, carry)
    linear_consts, linear_inputs = [is_linear(c) for c in constants], [is_linear(x) for x in inputs]
    linear = [*linear_consts, *(True,) * carry, *linear_inputs]
    transposed = transpose_jaxpr(ClosedJaxpr(jaxpr), linear, masked)
    const_avals = [v.aval for v, flag in zip(jaxpr.invars, linear_consts, strict=False) if flag]
    carry_avals = jaxpr.in_avals[consts : consts + carry]
    known_consts = [c for c, flag in zip(constants, linear_consts, strict=True) if not flag]
    known_inputs = [x for x, flag in zip(inputs, linear_inputs, strict=True) if not flag]
    sizes = (len(known_consts), len(const_avals), carry, len(jaxpr.outvars) - carry)

    def body(*values: Any) -> list[Any]:
        fixed, sums, state_bars, out_bars, known = split(values, *sizes)
        found = eval_jaxpr(transposed.jaxpr, transposed.consts, *fixed, *known, *state_bars, *out_bars)
        const_bars, new_state, input_bars = split(found, len(const_avals), carry)
        return [*(add(a, b) for a, b in zip(sums, const_bars, strict=True)), *new_state, *input_bars]

    input_avals = [v.aval for v, flag in zip(jaxpr.invars[consts + carry :], linear_inputs, strict=True) if not flag]
    avals = [*map(aval_of, known_consts), *const_avals, *carry_avals, *jaxpr.out_avals[carry:], *input_avals]
    out_avals = _abstract_eval(jaxpr=jaxpr, length=length, reverse=reverse, consts=consts, carry=carry)
    filled = [zeros(a) if bar is None else bar for a, bar in zip(out_avals, bars, strict=True)]
    state = [*map(zeros, const_avals), *filled[:carry]]
    found = _bind(
        stage(body, avals), known_consts, state, [*filled[carry:], *known_inputs], length=length, reverse=not reverse
    )
    const_bars, state_bars, input_bars = (iter(part) for part in split(found, len(const_avals), carry))
    return [
        *(next(const_bars) if flag else None for flag in linear_consts),
        *(bar if is_linear(o) else None for o, bar in zip(operands[consts : consts + carry], state_bars, strict=True)),
        *(next(input_bars) if flag else None for flag in linear_inputs),
    ]


def _transpose_known_carry(
    bars: list[Any],
    operands: tuple[Any, ...],
    flags: list[bool],
    *,
    jaxpr: Jaxpr,
    length: int,
    reverse: bool,
    consts: int,
    carry: int,
) -> list[Any]:
    """The transpose where part of the carry does not depend on linear operands: run that part, and loop over it."""
    indices = range(len(operands))
    const_at, carry_at, input_at = split(indices, consts, carry)
    known_at = [[i for i in part if not flags[i]] for part in (const_at, carry_at, input_at)]
    known_outs = [jaxpr.outvars[i - consts] for i in known_at[1]]
    invars = [jaxpr.invars[i] for part in known_at for i in part]
    entering = [jaxpr.invars[i] for i in known_at[1]]
    body = Jaxpr([], invars, live_eqns(jaxpr.eqns, known_outs), [*known_outs, *entering])
    parts = [[operands[i] for i in part] for part in known_at]
    stacks = _bind(ClosedJaxpr(body), *parts, length=length, reverse=reverse)[len(entering) :]

    moved = [i for i in carry_at if flags[i]]
    order = [*const_at, *moved, *input_at, *known_at[1]]
    out_order = [*(i - consts for i in moved), *range(carry, len(jaxpr.outvars))]
    found = _transpose(
        [bars[i] for i in out_order],
        *(operands[i] for i in (*const_at, *moved, *input_at)),
        *stacks,
        jaxpr=reorder(ClosedJaxpr(jaxpr), order, out_order).jaxpr,
        length=length,
        reverse=reverse,
        consts=consts,
        carry=len(moved),
    )
    place = {i: k for k, i in enumerate(order)}
    return [found[place[i]] if flags[i] else None for i in indices]


def _batch(
    size: int,
    values: list[Any],
    batched: list[bool],
    *,
    jaxpr: Jaxpr,
    length: int,
    reverse: bool,
    consts: int,
    carry: int,
    loop: Loop | None = None,
) -> tuple[list[Any], list[bool]]:
    outputs = len(jaxpr.outvars)
    flags = list(batched)

    def run(flags: list[bool], carried: list[bool]) -> Any:
        return batch_jaxpr(ClosedJaxpr(jaxpr), size, flags, [*carried, *(False,) * (outputs - carry)])

    closed, out_batched = carry_fixpoint(flags, consts, carry, run)
    constants, state, inputs = split(values, consts, carry)
    _, state_batched, input_batched = split(batched, consts, carry)
    state = [
        broadcast_batch(x, size) if wanted and not has else x
        for x, has, wanted in zip(state, state_batched, flags[consts : consts + carry], strict=True)
    ]
    inputs = [swap_leading(x) if b else x for x, b in zip(inputs, input_batched, strict=True)]
    outs = _bind(closed, constants, state, inputs, length=length, reverse=reverse, loop=loop)
    stacks = [swap_leading(y) if b else y for y, b in zip(outs[carry:], out_batched[carry:], strict=True)]
    return [*outs[:carry], *stacks], out_batched


scan = Primitive(
    "scan",
    _impl,
    _abstract_eval,
    jvp=_jvp,
    linearize=_linearize,
    transpose=_transpose,
    batch=_batch,
    unfold=unfolded_scan,
    family="control",
    multiple=True,
    masks="program",
    sparsity=of_scan,
    cost=cost_of_loop,
    lower=_native.counted_loop,
)
