"""Primitives that carry Python functions: `custom_jvp_call`, `custom_vjp_call` and `linear_call`.

Their functions take and return flat lists. Under the eager traces they are called as they are, so that Python control
flow in them sees values; a staging trace replaces the primal function by its jaxpr (the `stage` rule). Under a batch
all their values are batched.

A function may close over traced values. Those of outer traces reach it untouched. Where one belongs to a trace that
has handed the call on to its parent, `bind_call` stages the function and makes what it closes over operands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.control._functions import broadcast_batch, split
from functrace.core.ir import Atom, ClosedJaxpr, Eqn, Literal, Var, eval_jaxpr, hoist_constants
from functrace.core.primitive import Primitive, is_linear
from functrace.core.trace import EVAL, Trace, Tracer, current_trace, reset_trace, set_trace
from functrace.core.types import ShapedArray, aval_of, is_inexact
from functrace.errors import AbstractValueError, CustomRuleError, LeakedTracerError, MissingRuleError
from functrace.interpreters.batching import BatchTrace, BatchTracer
from functrace.interpreters.jvp import jvp
from functrace.interpreters.linearize import linearize
from functrace.interpreters.staging import PartialEvalTrace, stage
from functrace.interpreters.transpose import backward_pass, transpose_jaxpr
from functrace.primitives.shape import zeros
from functrace.util import user_line

__all__ = [
    "InContext", "bind_call", "checkpoint_call", "custom_jvp_call", "custom_vjp_call", "linear_call", "over_batch",
]  # fmt: skip

Function = Callable[..., list[Any]]
Forward = Callable[..., tuple[list[Any], list[Any]]]


class StagedFunction:
    """A jaxpr as a function of (what it closes over, arguments)."""

    def __init__(self, closed: ClosedJaxpr) -> None:
        self.jaxpr, self.constants = hoist_constants(closed)

    def __call__(self, *values: Any) -> list[Any]:
        return eval_jaxpr(self.jaxpr, (), *values)

    def __repr__(self) -> str:
        return repr(self.jaxpr)


def _stage_function(args: tuple[Any, ...], params: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The primal function as a jaxpr, with what it closes over as leading operands."""
    if isinstance(params["function"], StagedFunction):
        return args, params
    staged = StagedFunction(stage(params["function"], [aval_of(a) for a in args]))
    return (*staged.constants, *args), {**params, "function": staged, "constants": len(staged.constants)}


def _staged(function: Function, avals: Sequence[ShapedArray]) -> ClosedJaxpr:
    return ClosedJaxpr(function.jaxpr) if isinstance(function, StagedFunction) else stage(function, avals)


def _evaluate(function: Function, *values: Any) -> list[Any]:
    """Call a function on plain values at the bottom, whatever trace is current."""
    token = set_trace(EVAL)
    try:
        return function(*values)
    finally:
        reset_trace(token)


def _fill(values: Sequence[Any], avals: Sequence[ShapedArray]) -> list[Any]:
    """The values, zeros in place of None."""
    return [zeros(a) if v is None else v for v, a in zip(values, avals, strict=True)]


class InContext:
    """A function of flat values, and the trace that was current where it was called.

    A rule may close over batched values of that trace; `over_batch` finds their batch axis by it.
    """

    __slots__ = ("context", "function")

    def __init__(self, function: Callable[..., Any], context: Trace | None = None) -> None:
        self.function = function
        self.context = current_trace() if context is None else context

    def __call__(self, *values: Any) -> Any:
        return self.function(*values)


class _AdoptingBatchTrace(BatchTrace):
    """A batch trace that takes the tracers of an earlier one over the same axis for its own."""

    def __init__(self, parent: Trace, size: int, original: BatchTrace | None) -> None:
        super().__init__(parent, size)
        self.original = original

    def adopt(self, value: Any) -> Any:
        if isinstance(value, BatchTracer) and value._trace is self.original:
            return BatchTracer(self, value.value, value.batched)
        return value

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        return super().process(primitive, tuple(map(self.adopt, args)), params)


def over_batch(function: Function, size: int) -> InContext:
    """A function over a batch of all its arguments, with all outputs batched; None stays None."""
    context = function.context if isinstance(function, InContext) else None
    original = _original(context)
    return InContext(lambda *values: _run_over_batch(function, size, original, values), context)


def _original(context: Trace | None) -> BatchTrace | None:
    """The batch trace whose rule is running: the one of the context that has the current trace as parent."""
    trace, parent = context, current_trace()
    while trace is not None and trace is not trace.parent:
        if isinstance(trace, BatchTrace) and trace.parent is parent:
            return trace
        trace = trace.parent
    return None


def _run_over_batch(function: Function, size: int, original: BatchTrace | None, values: Sequence[Any]) -> list[Any]:
    trace = _AdoptingBatchTrace(current_trace(), size, original)
    token = set_trace(trace)
    try:
        outs = function(*[None if v is None else BatchTracer(trace, v, True) for v in values])
    finally:
        reset_trace(token)
        trace.alive = False
    results = []
    for out in map(trace.adopt, outs):
        own = isinstance(out, BatchTracer) and out._trace is trace
        value, done = (out.value, out.batched) if own else (out, out is None)
        results.append(value if done else broadcast_batch(value, size))
    return results


def _spread(size: int, values: list[Any], batched: list[bool]) -> list[Any]:
    return [v if b else broadcast_batch(v, size) for v, b in zip(values, batched, strict=True)]


class _ClosureError(CustomRuleError, LeakedTracerError):
    """A call closes over traced values; a call around it may still make them operands."""


def bind_call(primitive: Primitive, values: Sequence[Any], params: dict[str, Any]) -> list[Any]:
    """Bind a call primitive; if its function closes over values of the current traces, these become operands.

    Raises:
        CustomRuleError: a rule closes over such values, or the function does and cannot be staged.
    """
    try:
        return primitive.bind(*values, **params)
    except LeakedTracerError as leak:
        what = f"a {_KIND.get(primitive.name, primitive.name)} function, or a rule of it, closes over a traced value"
        remedy = "pass the value as an argument of the function, or wrap it in functrace.stop_gradient outside"
        try:
            args, staged = _stage_function(tuple(values), params)
        except AbstractValueError as error:
            raise _ClosureError(
                f"{what} and branches on its arguments", where=user_line(), got=_first_line(error), remedy=remedy
            ) from error
        if staged["constants"] == 0:
            raise _ClosureError(what, where=user_line(), got=_third_line(leak), remedy=remedy) from leak
        try:
            return primitive.bind(*args, **staged)
        except LeakedTracerError as error:
            raise _ClosureError(what, where=user_line(), got=_third_line(error), remedy=remedy) from error


_KIND = {"custom_jvp_call": "custom_jvp", "custom_vjp_call": "custom_vjp"}


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _third_line(error: Exception) -> str:
    """What was got, from a message of ours."""
    return next((line.partition(": ")[2] for line in str(error).splitlines() if line.startswith("  got")), "")


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


# linear_call: a linear function together with its transpose


def _linear_jvp(primals: list[Any], tangents: list[Any], **params: Any) -> tuple[list[Any], list[Any]]:
    count = params["residuals"]
    if all(t is None for t in tangents[:count]):
        dots = _fill(tangents[count:], [aval_of(p) for p in primals[count:]])
        return linear_call.bind(*primals, **params), linear_call.bind(*primals[:count], *dots, **params)
    return jvp(params["apply"], primals, tangents)


def _linear_transpose(
    bars: list[Any],
    *operands: Any,
    apply: Function,
    transposed: Function,
    residuals: int,
    outs: tuple[ShapedArray, ...],
) -> list[Any]:
    known, linear = split(operands, residuals)
    if any(map(is_linear, known)):
        raise MissingRuleError("linear_call is not linear in its residuals", where=user_line())
    found = transposed(*known, *bars)
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
) -> tuple[list[Any], list[bool]]:
    found = linear_call.bind(
        *_spread(size, values, batched),
        apply=over_batch(apply, size),
        transposed=over_batch(transposed, size),
        residuals=residuals,
        outs=tuple(ShapedArray((size, *a.shape), a.dtype) for a in outs),
    )
    return found, [True] * len(outs)


#: Operands: residuals, then linear operands. `apply(*residuals, *operands)` and `transposed(*residuals, *cotangents)`,
#: which may meet and give None for zero.
linear_call = Primitive(
    "linear_call",
    lambda *values, apply, transposed, residuals, outs: _evaluate(apply, *values),
    lambda *avals, apply, transposed, residuals, outs: list(outs),
    jvp=_linear_jvp,
    transpose=_linear_transpose,
    batch=_linear_batch,
    family="control",
    multiple=True,
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
    closed = _staged(function, [aval_of(o) if not flag else o.aval for o, flag in zip(operands, linear, strict=True)])
    check_linear(closed.eqns, [v for v, flag in zip(closed.jaxpr.invars, linear, strict=True) if flag])
    transposed = transpose_jaxpr(closed, linear)
    known = [o for o, flag in zip(operands, linear, strict=True) if not flag]
    found = iter(eval_jaxpr(transposed.jaxpr, transposed.consts, *known, *_fill(bars, closed.out_avals)))
    return [next(found) if flag else None for flag in linear]


_SUMS = {"add", "sub"}


def check_linear(eqns: Sequence[Eqn], linear_vars: Sequence[Var]) -> None:
    """Raise unless the program is linear in these variables, as far as its equations tell.

    Raises:
        MissingRuleError: names the primitive that is not.
    """
    linear = set(linear_vars)
    for eqn in eqns:
        flags = [type(a) is Var and a in linear for a in eqn.invars]
        if not any(flags):
            continue
        linear.update(eqn.outvars)
        primitive, count = eqn.primitive, sum(flags)
        wrong = primitive.transpose is None
        if primitive.name in _SUMS:
            wrong = not all(flag or _is_zero(a) for flag, a in zip(flags, eqn.invars, strict=True))
        elif primitive.name == "select":
            wrong = flags[0] or not all(f or _is_zero(a) for f, a in zip(flags[1:], eqn.invars[1:], strict=True))
        elif primitive.name == "div":
            wrong = flags[1]
        elif primitive.name == "mul" or primitive.family == "bilinear":
            wrong = count > 1
        if wrong:
            raise MissingRuleError(f"primitive {primitive.name!r} is not linear in its operands here", got=repr(eqn))


def _is_zero(atom: Atom) -> bool:
    return isinstance(atom, Literal) and not isinstance(atom.val, Tracer) and not np.any(atom.val)


def _custom_jvp_batch(
    size: int, values: list[Any], batched: list[bool], *, function: Function, rule: Function, constants: int
) -> tuple[list[Any], list[bool]]:
    outs = custom_jvp_call.bind(
        *_spread(size, values, batched),
        function=over_batch(function, size),
        rule=over_batch(rule, size),
        constants=constants,
    )
    return outs, [True] * len(outs)


#: Operands: what a staged function closes over, then the arguments. `rule(*primals, *tangents)`
#: gives outputs, then tangents; None is a zero tangent.
custom_jvp_call = Primitive(
    "custom_jvp_call",
    lambda *values, function, rule, constants: _evaluate(function, *values),
    lambda *avals, function, rule, constants: _staged(function, avals).out_avals,
    jvp=_custom_jvp,
    transpose=_call_transpose,
    batch=_custom_jvp_batch,
    stage=_stage_function,
    family="control",
    multiple=True,
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
        "residuals": len(residuals),
        "outs": tuple(avals),
    }
    dots = [
        zeros(aval_of(a)) if t is None else t for a, t in zip(arguments, tangents[constants:], strict=True)
    ]
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
            if not all(a is None or isinstance(a, Var) or _is_zero(a) for a in atoms):
                raise MissingRuleError("a cotangent does not depend on the cotangents of the outputs")
            check_linear(eqns, linear_vars)
            found = iter(backward_pass(eqns, linear_vars, [a if isinstance(a, Var) else None for a in atoms], tangents))
        except MissingRuleError as error:
            raise CustomRuleError(
                "forward mode met a custom_vjp function whose backward rule is not linear in the cotangents",
                where=user_line(),
                got=_first_line(error),
                remedy="give the function a forward rule too, with f.defjvp(...), or use reverse mode only",
            ) from error
        return _fill([None if v is None else next(found) for v in invars], out_avals)

    return apply


def _forward_over_batch(forward: Forward, size: int) -> InContext:
    context = forward.context if isinstance(forward, InContext) else None
    original = _original(context)

    def batched(active: tuple[bool, ...], *values: Any) -> tuple[list[Any], list[Any]]:
        count: list[int] = []

        def flat(*values: Any) -> list[Any]:
            outs, residuals = forward(active, *values)
            count.append(len(outs))
            return [*outs, *residuals]

        found = _run_over_batch(flat, size, original, values)
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
        *_spread(size, values, batched),
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
    lambda *values, function, forward, backward, rule, constants: _evaluate(function, *values),
    lambda *avals, function, forward, backward, rule, constants: _staged(function, avals).out_avals,
    jvp=_custom_vjp_jvp,
    linearize=_custom_vjp_linearize,
    transpose=_call_transpose,
    batch=_custom_vjp_batch,
    stage=_stage_function,
    family="control",
    multiple=True,
)

# checkpoint


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
        return _fill(out_dots, avals)

    def transposed(*operands: Any) -> list[Any]:
        known, bars = split(operands, count)
        _, program = linearize(function, known, active)
        return backward_pass(program.eqns, program.invars, program.outvars, bars)

    atoms: list[Atom] = [*map(Literal, primals), *(t for t in tangents if t is not None)]
    params = {"apply": apply, "transposed": transposed, "residuals": count, "outs": tuple(avals)}
    found = record(linear_call, atoms, avals, params)
    return values, [v if is_inexact(a.dtype) else None for v, a in zip(found, avals, strict=True)]


def _checkpoint_batch(
    size: int, values: list[Any], batched: list[bool], *, function: Function, constants: int
) -> tuple[list[Any], list[bool]]:
    outs = checkpoint_call.bind(
        *_spread(size, values, batched), function=over_batch(function, size), constants=constants
    )
    return outs, [True] * len(outs)


#: Reverse mode keeps only the operands and runs the function again when their cotangents are asked for.
checkpoint_call = Primitive(
    "checkpoint",
    lambda *values, function, constants: _evaluate(function, *values),
    lambda *avals, function, constants: _staged(function, avals).out_avals,
    jvp=lambda primals, tangents, *, function, constants: jvp(function, primals, tangents),
    linearize=_checkpoint_linearize,
    transpose=_call_transpose,
    batch=_checkpoint_batch,
    stage=_stage_function,
    family="control",
    multiple=True,
)
