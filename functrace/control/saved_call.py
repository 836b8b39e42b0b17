"""`saved_call`: a call of which reverse mode keeps the operands and what a policy picks; the rest is computed again.

The program is linearized once. Of what its linear part needs, values that the policy calls saveable are stored when the
call runs, the others are computed from these and the operands when the cotangents come.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from functrace.control._functions import split
from functrace.control._native import nested
from functrace.control._sparsity import of_program
from functrace.control.call import derive, simplified
from functrace.control.calls import linear_call
from functrace.control.linearity import require_linear
from functrace.control.unrolled import linearize_now, needs_values
from functrace.core.evaluate import python_function
from functrace.core.ir import Atom, ClosedJaxpr, Jaxpr, Literal, Var, eval_jaxpr, hoist_constants, live_eqns
from functrace.core.primitive import Masked, Primitive, is_linear
from functrace.core.trace import EVAL, reset_trace, set_trace
from functrace.core.types import ShapedArray
from functrace.core.work import Inner, Work
from functrace.interpreters.batching import batch_jaxpr
from functrace.interpreters.jvp import jvp
from functrace.interpreters.linearize import linearize_jaxpr
from functrace.interpreters.transpose import transpose_jaxpr
from functrace.primitives.shape import zeros

__all__ = ["Policy", "saved_call"]

#: `policy(primitive, *operand types, **params)`: whether the results of an operation may be stored.
Policy = Callable[..., bool]


class _Split(NamedTuple):
    """A linearized program in three parts.

    Attributes:
        known: operands -> outputs, saved values.
        again: operands, saved values -> residuals.
        linear: residuals, tangents -> output tangents.
        out_nonzeros: which outputs have a tangent.
    """

    known: Jaxpr
    again: Jaxpr
    linear: Jaxpr
    own: list[Any]
    out_nonzeros: list[bool]


def _split_by(jaxpr: Jaxpr, nonzeros: tuple[bool, ...], policy: Policy) -> _Split:
    found = linearize_jaxpr(ClosedJaxpr(jaxpr), nonzeros)
    primal, own = hoist_constants(found.primal)
    linear, linear_own = hoist_constants(found.linear)
    if linear_own:
        raise AssertionError("the linear part of a program holds constants besides its residuals")
    count = len(jaxpr.outvars)
    residuals = primal.outvars[count:]
    saveable = {
        v
        for eqn in primal.eqns
        if policy(eqn.primitive, *[a.aval for a in eqn.invars], **eqn.params)
        for v in eqn.outvars
    }
    given = {*primal.invars, *saveable}
    wanted = {a for a in residuals if isinstance(a, Var)}
    needed: set[Var] = set(wanted)
    again = []
    for eqn in reversed(primal.eqns):
        if any(v in needed and v not in saveable for v in eqn.outvars):
            again.append(eqn)
            needed.update(a for a in eqn.invars if isinstance(a, Var))
    again.reverse()
    # an operation of several results is run again as a whole: those of them that are saved are not bound twice
    computed = {v for eqn in again for v in eqn.outvars}
    saved = [v for eqn in primal.eqns for v in eqn.outvars if v in saveable and v in needed and v not in computed]
    known_outs: list[Atom] = [*primal.outvars[:count], *saved]
    known = Jaxpr([], primal.invars, live_eqns(primal.eqns, known_outs), known_outs)
    if not given >= needed - computed:
        raise AssertionError("a residual is neither saved nor computed again")
    return _Split(known, Jaxpr([], [*primal.invars, *saved], again, residuals), linear, own, found.out_nonzeros)


def _linearize(
    record: Callable[..., Any], primals: list[Any], tangents: list[Var | None], *, jaxpr: Jaxpr, policy: Policy
) -> tuple[list[Any], list[Var | None]]:
    if needs_values(jaxpr):
        return linearize_now(record, lambda *values: eval_jaxpr(jaxpr, (), *values), primals, tangents)
    nonzeros = tuple(t is not None for t in tangents)
    parts: _Split = derive(jaxpr, ("saved", nonzeros, policy), lambda: _split_by(jaxpr, nonzeros, policy))
    count, operands = len(jaxpr.outvars), [*parts.own, *primals]
    found = saved_call.bind(*operands, jaxpr=parts.known, policy=policy)
    values, saved = found[:count], found[count:]
    kept = [*operands, *saved]
    avals = parts.linear.out_avals
    residuals = len(parts.linear.invars) - sum(nonzeros)

    def run_again(known: list[Any]) -> list[Any]:
        # A call, not its operations: these would be recognized as those that ran before, and their results stored.
        return saved_call.bind(*known, jaxpr=parts.again, policy=policy)

    def apply(*given: Any) -> list[Any]:
        known, dots = split(given, len(kept))
        return eval_jaxpr(parts.linear, (), *run_again(known), *dots)

    def transposed(*given: Any) -> list[Any]:
        known, bars = split(given, len(kept))
        masked = any(isinstance(bar, Masked) for bar in bars)
        flags = [i >= residuals for i in range(len(parts.linear.invars))]
        key = ("saved transpose", masked)
        backward = derive(parts.linear, key, lambda: transpose_jaxpr(ClosedJaxpr(parts.linear), flags, masked))
        plain = [bar.value if isinstance(bar, Masked) else bar for bar in bars]
        filled = [zeros(a) if bar is None else bar for bar, a in zip(plain, avals, strict=True)]
        return eval_jaxpr(backward.jaxpr, backward.consts, *run_again(known), *filled)

    params = {
        "apply": apply,
        "transposed": transposed,
        "residuals": len(kept),
        "outs": tuple(avals),
        "takes_masks": True,
    }
    atoms: list[Atom] = [*map(Literal, kept), *(t for t in tangents if t is not None)]
    dots = iter(record(linear_call, atoms, list(avals), params))
    return values, [next(dots) if nonzero else None for nonzero in parts.out_nonzeros]


def _jvp(primals: list[Any], tangents: list[Any], *, jaxpr: Jaxpr, policy: Policy) -> tuple[list[Any], list[Any]]:
    return jvp(lambda *values: eval_jaxpr(jaxpr, (), *values), primals, tangents)


def _transpose(bars: list[Any], *operands: Any, jaxpr: Jaxpr, policy: Policy) -> list[Any]:
    linear = [is_linear(o) for o in operands]
    require_linear(jaxpr.eqns, [v for v, flag in zip(jaxpr.invars, linear, strict=True) if flag])
    closed = transpose_jaxpr(ClosedJaxpr(jaxpr), linear)
    filled = [zeros(a) if b is None else b for b, a in zip(bars, jaxpr.out_avals, strict=True)]
    known = [o for o, flag in zip(operands, linear, strict=True) if not flag]
    found = iter(eval_jaxpr(closed.jaxpr, closed.consts, *known, *filled))
    return [next(found) if flag else None for flag in linear]


def _batch(
    size: int, values: list[Any], batched: list[bool], *, jaxpr: Jaxpr, policy: Policy
) -> tuple[list[Any], list[bool]]:
    closed, out_batched = batch_jaxpr(ClosedJaxpr(jaxpr), size, batched)
    derived, own = hoist_constants(closed)
    return saved_call.bind(*own, *values, jaxpr=derived, policy=policy), out_batched


def _impl(*values: Any, jaxpr: Jaxpr, policy: Policy) -> list[Any]:
    token = set_trace(EVAL)
    try:
        return python_function(simplified(jaxpr))(*values)
    finally:
        reset_trace(token)


def _abstract_eval(*avals: ShapedArray, jaxpr: Jaxpr, policy: Policy) -> list[ShapedArray]:
    return jaxpr.out_avals


#: Operands are those of the program, which has no constants of its own.
saved_call = Primitive(
    "saved_call",
    _impl,
    _abstract_eval,
    jvp=_jvp,
    linearize=_linearize,
    transpose=_transpose,
    batch=_batch,
    unfold=lambda run, *operands, jaxpr, policy: run(jaxpr, *operands),
    lower=nested(lambda avals, *, jaxpr, policy: jaxpr),
    sparsity=of_program,
    cost=lambda operands, outs, *, jaxpr, policy: Work(inner=[Inner(jaxpr, 1)]),
    family="control",
    multiple=True,
)
