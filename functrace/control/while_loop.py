"""`while`: a loop that runs as long as a condition on its carry holds.

Operands are (constants of the condition, constants of the body, carry). Forward mode carries tangents along. Reverse
mode counts the steps, then linearizes the same loop as a scan of that length, which stores the trajectory; under a
batch the scan has the length of the longest example, and the others hold still once they are done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.control import _native
from functrace.control._functions import (
    broadcast_batch,
    broadcast_flags,
    carry_fixpoint,
    choose,
    fill_tangents,
    may_raise,
    reorder,
    select_all,
    split,
)
from functrace.control._sparsity import of_while
from functrace.control.cond import cond as branch
from functrace.control.scan import scan
from functrace.core.evaluate import python_function
from functrace.core.ir import ClosedJaxpr, Jaxpr, Var, eval_jaxpr, hoist_constants
from functrace.core.primitive import Primitive
from functrace.core.trace import EVAL, Tracer, reset_trace, set_trace
from functrace.core.types import ShapedArray, aval_of
from functrace.core.work import Inner, Layout, Work
from functrace.errors import AbstractValueError
from functrace.interpreters.batching import batch_jaxpr
from functrace.interpreters.jvp import jvp_jaxpr
from functrace.interpreters.staging import stage
from functrace.primitives.elementwise import convert, select
from functrace.primitives.families import add
from functrace.primitives.reduction import reduce_or
from functrace.util import user_line

__all__ = ["while_loop"]

_COUNT = ShapedArray((), np.dtype(np.int64))
_INDEX = np.dtype(np.int32)


def _impl(*operands: Any, cond: Jaxpr, body: Jaxpr, cond_consts: int, body_consts: int) -> list[Any]:
    cond_constants, body_constants, state = split(operands, cond_consts, body_consts)
    holds, step = python_function(cond), python_function(body)
    token = set_trace(EVAL)
    try:
        while holds(*cond_constants, *state)[0]:
            state = step(*body_constants, *state)
    finally:
        reset_trace(token)
    return state


def _abstract_eval(*avals: ShapedArray, cond: Jaxpr, body: Jaxpr, cond_consts: int, body_consts: int) -> list[Any]:
    return body.out_avals


def _bind(
    cond: ClosedJaxpr, body: ClosedJaxpr, cond_constants: list[Any], body_constants: list[Any], state: list[Any]
) -> list[Any]:
    """Bind a loop whose programs may hold constants of their own."""
    cond_jaxpr, cond_own = hoist_constants(cond)
    body_jaxpr, body_own = hoist_constants(body)
    first, second = [*cond_own, *cond_constants], [*body_own, *body_constants]
    return while_loop.bind(
        *first, *second, *state, cond=cond_jaxpr, body=body_jaxpr, cond_consts=len(first), body_consts=len(second)
    )


def _with_more_carry(cond: Jaxpr, extra: list[ShapedArray]) -> ClosedJaxpr:
    """The condition with further carry that it ignores."""
    return ClosedJaxpr(Jaxpr([], [*cond.invars, *map(Var, extra)], cond.eqns, cond.outvars))


def _jvp(
    primals: list[Any], tangents: list[Any], *, cond: Jaxpr, body: Jaxpr, cond_consts: int, body_consts: int
) -> tuple[list[Any], list[Any]]:
    cond_constants, body_constants, state = split(primals, cond_consts, body_consts)
    _, const_dots, state_dots = split(tangents, cond_consts, body_consts)
    nonzeros = [t is not None for t in (*const_dots, *state_dots)]
    closed, out_nonzeros = carry_fixpoint(
        nonzeros, body_consts, len(state), lambda flags, carried: jvp_jaxpr(ClosedJaxpr(body), flags, carried)
    )
    const_flags, state_flags = nonzeros[:body_consts], nonzeros[body_consts:]
    size = len(nonzeros)
    dots = range(size, size + sum(nonzeros))
    order = [*range(body_consts), *dots[: sum(const_flags)], *range(body_consts, size), *dots[sum(const_flags) :]]
    filled = choose(fill_tangents(state_dots, state, state_flags), state_flags)
    outs = _bind(
        _with_more_carry(cond, choose([aval_of(s) for s in state], state_flags)),
        reorder(closed, order, range(len(closed.jaxpr.outvars))),
        cond_constants,
        [*body_constants, *choose(const_dots, const_flags)],
        [*state, *filled],
    )
    rest = iter(outs[len(state) :])
    return outs[: len(state)], [next(rest) if nonzero else None for nonzero in out_nonzeros]


def _linearize(
    record: Callable[..., Any],
    primals: list[Any],
    tangents: list[Any],
    *,
    cond: Jaxpr,
    body: Jaxpr,
    cond_consts: int,
    body_consts: int,
) -> tuple[list[Any], list[Any]]:
    cond_constants, body_constants, state = split(primals, cond_consts, body_consts)

    def counted(*values: Any) -> list[Any]:
        constants, rest = values[:body_consts], values[body_consts:]
        return [*eval_jaxpr(body, (), *constants, *rest[:-1]), add(rest[-1], 1)]

    counting = stage(counted, [*body.in_avals, _COUNT])
    start = [*state, np.int64(0)]
    counter = _bind(_with_more_carry(cond, [_COUNT]), counting, cond_constants, body_constants, start)[-1]
    # Batched or not, the longest run decides; where all agree there is nothing to hold still.
    counts = _known_counts(counter)
    length = int(np.max(counts, initial=0))

    if np.ndim(counts) and np.min(counts, initial=length) < length:
        closed = _held(cond, body, cond_consts, body_consts)
        jaxpr, own = hoist_constants(closed)
        constants, dots = [*own, *cond_constants, *body_constants], [None] * (len(own) + cond_consts)
    else:
        jaxpr, constants, dots = body, body_constants, []
    return scan.rule("linearize", "reverse mode")(
        record,
        [*constants, *state],
        [*dots, *tangents[cond_consts:]],
        jaxpr=jaxpr,
        length=length,
        reverse=False,
        consts=len(constants),
        carry=len(state),
    )


def _held(cond: Jaxpr, body: Jaxpr, cond_consts: int, body_consts: int) -> ClosedJaxpr:
    """A step that holds still once the condition does not hold; a body that may raise does not run then."""
    avals = [*cond.in_avals[:cond_consts], *body.in_avals]
    still = Jaxpr([], inputs := list(map(Var, body.in_avals)), [], inputs[body_consts:])
    guarded = may_raise(body)

    def step(*values: Any) -> list[Any]:
        conditions, constants, carried = split(values, cond_consts, body_consts)
        active = eval_jaxpr(cond, (), *conditions, *carried)[0]
        if guarded:
            return branch.bind(convert(active, dtype=_INDEX), *constants, *carried, branches=(still, body))
        moved = eval_jaxpr(body, (), *constants, *carried)
        return [select_all(active, new, old) for new, old in zip(moved, carried, strict=True)]

    return stage(step, avals)


def _known_counts(counter: Any) -> Any:
    """How often the loop ran, per example.

    Raises:
        AbstractValueError: that is not known, in a program being staged.
    """
    if not isinstance(counter, Tracer):
        return counter
    try:
        return counter.peek()
    except AbstractValueError:
        raise AbstractValueError(
            "reverse mode through a while_loop counts its steps as they run, and in a program that is being recorded "
            "none runs",
            where=user_line(),
            got=counter.describe(),
            remedy="use lax.scan, or lax.fori_loop with plain integers as bounds; or take the derivative in forward "
            "mode (jvp, jacfwd); or apply grad outside the recording, to values",
        ) from None


def _batch(
    size: int,
    values: list[Any],
    batched: list[bool],
    *,
    cond: Jaxpr,
    body: Jaxpr,
    cond_consts: int,
    body_consts: int,
) -> tuple[list[Any], list[bool]]:
    cond_constants, body_constants, state = split(values, cond_consts, body_consts)
    cond_flags, body_flags, state_flags = split(batched, cond_consts, body_consts)
    flags = [*body_flags, *state_flags]

    def run(flags: list[bool], carried: list[bool]) -> Any:
        return batch_jaxpr(ClosedJaxpr(body), size, flags, carried)

    while True:
        new_body, carried = carry_fixpoint(flags, body_consts, len(state), run)
        new_cond, (any_batched,) = batch_jaxpr(ClosedJaxpr(cond), size, [*cond_flags, *carried])
        if not any_batched or all(carried):
            break
        flags[body_consts:] = [True] * len(state)
    state = [
        broadcast_batch(s, size) if wanted and not has else s
        for s, has, wanted in zip(state, state_flags, carried, strict=True)
    ]
    if not any_batched:
        return _bind(new_cond, new_body, cond_constants, body_constants, state), carried

    def some_hold(*values: Any) -> list[Any]:
        return [reduce_or(eval_jaxpr(new_cond.jaxpr, new_cond.consts, *values)[0], axes=(0,))]

    def step(*values: Any) -> list[Any]:
        conditions, constants, carry = split(values, cond_consts, body_consts)
        holds = eval_jaxpr(new_cond.jaxpr, new_cond.consts, *conditions, *carry)[0]
        moved = eval_jaxpr(new_body.jaxpr, new_body.consts, *constants, *carry)
        return [
            select(broadcast_flags(holds, aval_of(old).shape), new, old) for new, old in zip(moved, carry, strict=True)
        ]

    if may_raise(body):
        held = _held(cond, body, cond_consts, body_consts)
        program, _ = batch_jaxpr(held, size, [*cond_flags, *body_flags, *carried], carried)
    else:
        program = stage(step, [*new_cond.in_avals[:cond_consts], *new_body.in_avals])
    outs = _bind(
        stage(some_hold, new_cond.in_avals),
        program,
        cond_constants,
        [*cond_constants, *body_constants],
        state,
    )
    return outs, carried


def _unfold(
    run: Callable[..., list[Any]], *operands: Any, cond: Jaxpr, body: Jaxpr, cond_consts: int, body_consts: int
) -> list[Any]:
    cond_constants, body_constants, state = split(operands, cond_consts, body_consts)
    while run(cond, *cond_constants, *state)[0]:
        state = run(body, *body_constants, *state)
    return state


def _cost(operands: Any, outs: Any, *, cond: Jaxpr, body: Jaxpr, **params: Any) -> Work:
    """One step: nothing says how many there will be. Beside it is the state that the step before left."""
    before = sum(Layout(a).bytes for a in outs)
    return Work(inner=[Inner(cond, 1), Inner(body, 1)], scratch=before, note="a while loop counts as one step")


while_loop = Primitive(
    "while",
    _impl,
    _abstract_eval,
    jvp=_jvp,
    linearize=_linearize,
    batch=_batch,
    unfold=_unfold,
    family="control",
    multiple=True,
    sparsity=of_while,
    cost=_cost,
    lower=_native.while_loop,
)
