"""Primitives that carry Python functions: `custom_jvp_call`, `custom_vjp_call`, `linear_call` and `checkpoint_call`.

Their functions take and return flat lists. Under the eager traces they are called as they are, so that Python control
flow in them sees values; a staging trace replaces the primal function by its jaxpr (the `stage` rule). Under a batch
all their values are batched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.control._calls import (
    InContext,
    StagedFunction,
    check_linear,
    evaluate,
    fill,
    first_line,
    is_zero,
    original_batch,
    over_batch,
    run_over_batch,
    spread,
    stage_function,
    staged_program,
)
from functrace.control._functions import split
from functrace.control._native import nested
from functrace.control._sparsity import of_call, of_custom_jvp, of_custom_vjp, of_linear_call
from functrace.core.ir import Atom, Literal, Var, eval_jaxpr
from functrace.core.lowering import Rewrite
from functrace.core.primitive import Masked, Primitive, is_linear
from functrace.core.trace import current_trace, reset_trace, set_trace
from functrace.core.types import ShapedArray, aval_of, is_inexact
from functrace.core.work import Inner, Layout, Work
from functrace.errors import CustomRuleError, MissingRuleError
from functrace.interpreters.jvp import jvp
from functrace.interpreters.linearize import linearize
from functrace.interpreters.staging import PartialEvalTrace
from functrace.interpreters.transpose import backward_pass, transpose_jaxpr
from functrace.primitives.shape import zeros
from functrace.util import user_line

__all__ = ["checkpoint_call", "custom_jvp_call", "custom_vjp_call", "linear_call"]

Function = Callable[..., list[Any]]
Forward = Callable[..., tuple[list[Any], list[Any]]]


def _refuse_closure(tangents: Sequence[Any], constants: int, kind: str) -> None:
    if any(t is not None for t in tangents[:constants]):
        raise CustomRuleError(
            f"a {kind} function closes over a value that is being differentiated, or has it as a nondiff argument; "
            "its rule does not cover that",
            where=user_line(),
            remedy="pass the value as an argument of the function, or wrap it in functrace.stop_gradient",
        )


def _check_outputs(outs: Sequence[Any], function: Function, kind: str) -> None:
    """Raise unless a rule gives what the function gives, where that is known."""
    if not isinstance(function, StagedFunction):
        return
    found, expected = [aval_of(o) for o in outs], function.jaxpr.out_avals
    if found != expected:
        raise CustomRuleError(
            f"a rule of a {kind} function gives another output than the function",
            where=user_line(),
            got=f"{', '.join(map(str, found))} for {', '.join(map(str, expected))}",
            remedy="return the function's own output first, of the same structure, shapes and dtypes",
        )


def _cost_of_call(
    operands: Sequence[Layout], outs: Sequence[ShapedArray], *, function: Function, **params: Any
) -> Work:
    """The function's own program."""
    avals = [ShapedArray(o.shape, o.dtype) for o in operands]
    return Work(inner=[Inner(staged_program(function, avals).jaxpr, 1)])


# linear_call: a linear function together with its transpose


def _linear_jvp(primals: list[Any], tangents: list[Any], **params: Any) -> tuple[list[Any], list[Any]]:
    count = params["residuals"]
    if all(t is None for t in tangents[:count]):
        dots = fill(tangents[count:], [aval_of(p) for p in primals[count:]])
        return linear_call.bind(*primals, **params), linear_call.bind(*primals[:count], *dots, **params)
    return jvp(params["apply"], primals, tangents)


def _linear_transpose(
    bars: list[Any],
    *operands: Any,
    apply: Function,
    transposed: Function,
    residuals: int,
    outs: tuple[ShapedArray, ...],
    takes_masks: bool,
) -> list[Any]:
    known, linear = split(operands, residuals)
    if any(map(is_linear, known)):
        raise MissingRuleError("linear_call is not linear in its residuals", where=user_line())
    found = transposed(*known, *(b.value if isinstance(b, Masked) and not takes_masks else b for b in bars))
    return [*(None for _ in known), *(b if is_linear(o) else None for o, b in zip(linear, found, strict=True))]


def _linear_batch(
    size: int,
    values: list[Any],
    batched: list[bool],
    *,
    apply: Function,
    transposed: Function,
    residuals: int,
    outs: tuple[ShapedArray, ...],
    takes_masks: bool,
) -> tuple[list[Any], list[bool]]:
    found = linear_call.bind(
        *spread(size, values, batched),
        apply=over_batch(apply, size),
        transposed=over_batch(transposed, size),
        residuals=residuals,
        outs=tuple(ShapedArray((size, *a.shape), a.dtype) for a in outs),
        takes_masks=False,
    )
    return found, [True] * len(outs)


#: Operands: residuals, then linear operands. `apply(*residuals, *operands)` and `transposed(*residuals, *cotangents)`,
#: which may meet and give None for zero, and meets `Masked` cotangents if `takes_masks`.
linear_call = Primitive(
    "linear_call",
    lambda *values, apply, transposed, residuals, outs, takes_masks: evaluate(apply, *values),
    lambda *avals, apply, transposed, residuals, outs, takes_masks: list(outs),
    jvp=_linear_jvp,
    transpose=_linear_transpose,
    batch=_linear_batch,
    family="control",
    multiple=True,
    masks="program",
    sparsity=of_linear_call,
    cost=lambda operands, results, /, *, apply, **params: _cost_of_call(operands, results, function=apply),
    lower=Rewrite(function=lambda *values, apply, outs, **params: fill(apply(*values), outs)),
)

# custom_jvp_call


def _custom_jvp(
    primals: list[Any], tangents: list[Any], *, function: Function, rule: Function, constants: int
) -> tuple[list[Any], list[Any]]:
    _refuse_closure(tangents, constants, "custom_jvp")
    outs = rule(*primals[constants:], *tangents[constants:])
    values = outs[: len(outs) // 2]
    _check_outputs(values, function, "custom_jvp")
    return values, outs[len(outs) // 2 :]


def _call_transpose(bars: list[Any], *operands: Any, function: Function, constants: int, **rules: Any) -> list[Any]:
    """The function is linear where a rule applies it to tangents: transpose its own program."""
    linear = [is_linear(o) for o in operands]
    avals = [o.aval if flag else aval_of(o) for o, flag in zip(operands, linear, strict=True)]
    closed = staged_program(function, avals)
    check_linear(closed.eqns, [v for v, flag in zip(closed.jaxpr.invars, linear, strict=True) if flag])
    transposed = transpose_jaxpr(closed, linear)
    known = [o for o, flag in zip(operands, linear, strict=True) if not flag]
    found = iter(eval_jaxpr(transposed.jaxpr, transposed.consts, *known, *fill(bars, closed.out_avals)))
    return [next(found) if flag else None for flag in linear]


def _custom_jvp_batch(
    size: int, values: list[Any], batched: list[bool], *, function: Function, rule: Function, constants: int
) -> tuple[list[Any], list[bool]]:
    outs = custom_jvp_call.bind(
        *spread(size, values, batched),
        function=over_batch(function, size),
        rule=over_batch(rule, size),
        constants=constants,
    )
    return outs, [True] * len(outs)


#: Operands: what a staged function closes over, then the arguments. `rule(*primals, *tangents)`
#: gives outputs, then tangents; None is a zero tangent.
custom_jvp_call = Primitive(
    "custom_jvp_call",
    lambda *values, function, rule, constants: evaluate(function, *values),
    lambda *avals, function, rule, constants: staged_program(function, avals).out_avals,
    jvp=_custom_jvp,
    transpose=_call_transpose,
    batch=_custom_jvp_batch,
    stage=stage_function,
    family="control",
    multiple=True,
    sparsity=of_custom_jvp,
    cost=_cost_of_call,
    lower=Rewrite(function=lambda *values, function, **params: function(*values)),
)

# custom_vjp_call


def _pull(
    primals: list[Any], tangents: list[Any], function: Function, forward: Forward, backward: Function, constants: int
) -> tuple[list[Any], list[Any], list[Any], dict[str, Any]]:
    """Outputs of the forward rule, its residuals, all argument tangents, and the parameters of a linear_call."""
    _refuse_closure(tangents, constants, "custom_vjp")
    arguments = primals[constants:]
    active = tuple(t is not None for t in tangents[constants:])
    values, residuals = forward(active, *arguments)
    _check_outputs(values, function, "custom_vjp")
    avals = [aval_of(v) for v in values]
    params = {
        "apply": InContext(_implied_jvp(backward, len(residuals), avals), getattr(backward, "context", None)),
        "transposed": backward,
        "takes_masks": False,
        "residuals": len(residuals),
        "outs": tuple(avals),
    }
    dots = [zeros(aval_of(a)) if t is None else t for a, t in zip(arguments, tangents[constants:], strict=True)]
    return values, residuals, dots, params


def _custom_vjp_jvp(
    primals: list[Any],
    tangents: list[Any],
    *,
    function: Function,
    forward: Forward,
    backward: Function,
    rule: Function | None,
    constants: int,
) -> tuple[list[Any], list[Any]]:
    if rule is not None:
        return _custom_jvp(primals, tangents, function=function, rule=rule, constants=constants)
    values, residuals, dots, params = _pull(primals, tangents, function, forward, backward, constants)
    out_dots = linear_call.bind(*residuals, *dots, **params)
    return values, [t if is_inexact(aval_of(v).dtype) else None for t, v in zip(out_dots, values, strict=True)]


def _custom_vjp_linearize(
    record: Callable[..., Any],
    primals: list[Any],
    tangents: list[Any],
    *,
    function: Function,
    forward: Forward,
    backward: Function,
    rule: Function | None,
    constants: int,
) -> tuple[list[Any], list[Any]]:
    values, residuals, dots, params = _pull(primals, tangents, function, forward, backward, constants)
    atoms: list[Atom] = [*map(Literal, residuals), *(d if isinstance(d, Var) else Literal(d) for d in dots)]
    found = record(linear_call, atoms, list(params["outs"]), params)
    return values, [v if is_inexact(a.dtype) else None for v, a in zip(found, params["outs"], strict=True)]


def _implied_jvp(backward: Function, residuals: int, out_avals: Sequence[ShapedArray]) -> Function:
    """The forward derivative that a backward rule implies: its transpose in the cotangents.

    Raises (when called):
        CustomRuleError: the backward rule is not linear in the cotangents.
    """

    def apply(*values: Any) -> list[Any]:
        known, tangents = split(values, residuals)
        trace = PartialEvalTrace(current_trace())
        inputs = [trace.new_input(a) if is_inexact(a.dtype) else None for a in out_avals]
        token = set_trace(trace)
        try:
            atoms = [None if bar is None else trace.atom(bar) for bar in backward(*known, *inputs)]
        finally:
            reset_trace(token)
            trace.alive = False
        invars: list[Any] = [None if i is None else i.atom for i in inputs]
        linear_vars = [v for v in invars if v is not None]
        eqns = trace.recorder.eqns
        try:
            if not all(a is None or isinstance(a, Var) or is_zero(a) for a in atoms):
                raise MissingRuleError("a cotangent does not depend on the cotangents of the outputs")
            check_linear(eqns, linear_vars)
            found = iter(backward_pass(eqns, linear_vars, [a if isinstance(a, Var) else None for a in atoms], tangents))
        except MissingRuleError as error:
            raise CustomRuleError(
                "forward mode met a custom_vjp function whose backward rule is not linear in the cotangents",
                where=user_line(),
                got=first_line(error),
                remedy="give the function a forward rule too, with f.defjvp(...), or use reverse mode only",
            ) from error
        return fill([None if v is None else next(found) for v in invars], out_avals)

    return apply


def _forward_over_batch(forward: Forward, size: int) -> InContext:
    context = forward.context if isinstance(forward, InContext) else None
    original = original_batch(context)

    def batched(active: tuple[bool, ...], *values: Any) -> tuple[list[Any], list[Any]]:
        count: list[int] = []

        def flat(*values: Any) -> list[Any]:
            outs, residuals = forward(active, *values)
            count.append(len(outs))
            return [*outs, *residuals]

        found = run_over_batch(flat, size, original, values)
        return found[: count[0]], found[count[0] :]

    return InContext(batched, context)


def _custom_vjp_batch(
    size: int,
    values: list[Any],
    batched: list[bool],
    *,
    function: Function,
    forward: Forward,
    backward: Function,
    rule: Function | None,
    constants: int,
) -> tuple[list[Any], list[bool]]:
    found = custom_vjp_call.bind(
        *spread(size, values, batched),
        function=over_batch(function, size),
        forward=_forward_over_batch(forward, size),
        backward=over_batch(backward, size),
        rule=None if rule is None else over_batch(rule, size),
        constants=constants,
    )
    return found, [True] * len(found)


#: Operands as for custom_jvp_call. `forward(active, *arguments)` gives outputs and
#: residuals, `backward(*residuals, *cotangents)` cotangents of the arguments; `rule`, if any, serves forward mode.
custom_vjp_call = Primitive(
    "custom_vjp_call",
    lambda *values, function, forward, backward, rule, constants: evaluate(function, *values),
    lambda *avals, function, forward, backward, rule, constants: staged_program(function, avals).out_avals,
    jvp=_custom_vjp_jvp,
    linearize=_custom_vjp_linearize,
    transpose=_call_transpose,
    batch=_custom_vjp_batch,
    stage=stage_function,
    family="control",
    multiple=True,
    sparsity=of_custom_vjp,
    cost=_cost_of_call,
    lower=Rewrite(function=lambda *values, function, **params: function(*values)),
)

# checkpoint


def _check_same(first: Sequence[Any], again: Sequence[Any]) -> None:
    """Raise where a function evaluated again gives other values: what it closes over has changed meanwhile."""
    for a, b in zip(first, again, strict=True):
        if isinstance(a, (np.ndarray, np.generic)) and isinstance(b, (np.ndarray, np.generic)):
            same = a.shape == b.shape and np.allclose(a, b, rtol=1e-9, atol=0, equal_nan=True)
            if not same:
                raise CustomRuleError(
                    "a checkpointed function gave other values when reverse mode ran it again",
                    where=user_line(),
                    remedy="pass what changes (arrays, random numbers) as arguments instead of closing over it",
                )


def _checkpoint_linearize(
    record: Callable[..., Any], primals: list[Any], tangents: list[Any], *, function: Function, constants: int
) -> tuple[list[Any], list[Any]]:
    values = checkpoint_call.bind(*primals, function=function, constants=constants)
    avals = [aval_of(v) for v in values]
    active = [t is not None for t in tangents]
    count = len(primals)

    def apply(*operands: Any) -> list[Any]:
        known, given = split(operands, count)
        dots = iter(given)
        _, out_dots = jvp(function, known, [next(dots) if a else None for a in active])
        return fill(out_dots, avals)

    def transposed(*operands: Any) -> list[Any]:
        known, bars = split(operands, count)
        again, program = linearize(function, known, active)
        _check_same(values, again)
        return backward_pass(program.eqns, program.invars, program.outvars, bars)

    atoms: list[Atom] = [*map(Literal, primals), *(t for t in tangents if t is not None)]
    params = {
        "apply": apply,
        "transposed": transposed,
        "residuals": count,
        "outs": tuple(avals),
        "takes_masks": True,
    }
    found = record(linear_call, atoms, avals, params)
    return values, [v if is_inexact(a.dtype) else None for v, a in zip(found, avals, strict=True)]


def _checkpoint_batch(
    size: int, values: list[Any], batched: list[bool], *, function: Function, constants: int
) -> tuple[list[Any], list[bool]]:
    outs = checkpoint_call.bind(
        *spread(size, values, batched), function=over_batch(function, size), constants=constants
    )
    return outs, [True] * len(outs)


#: Reverse mode keeps only the operands and runs the function again when their cotangents are asked for.
checkpoint_call = Primitive(
    "checkpoint",
    lambda *values, function, constants: evaluate(function, *values),
    lambda *avals, function, constants: staged_program(function, avals).out_avals,
    jvp=lambda primals, tangents, *, function, constants: jvp(function, primals, tangents),
    linearize=_checkpoint_linearize,
    transpose=_call_transpose,
    batch=_checkpoint_batch,
    stage=stage_function,
    unfold=lambda run, *operands, function, constants: run(function, *operands),
    family="control",
    multiple=True,
    sparsity=of_call,
    cost=_cost_of_call,
    lower=nested(lambda avals, *, function, **params: staged_program(function, avals)),
)
