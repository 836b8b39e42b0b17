"""What primitives that carry Python functions share: staging them, batching them, and values they close over.

A function may close over traced values. Those of outer traces reach it untouched. Where one belongs to a trace that
has handed the call on to its parent, `bind_call` stages the function and makes what it closes over operands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.control._functions import broadcast_batch
from functrace.control.linearity import require_linear
from functrace.core.ir import Atom, ClosedJaxpr, Eqn, Literal, Var, eval_jaxpr, hoist_constants, subjaxprs
from functrace.core.primitive import Primitive
from functrace.core.trace import EVAL, Trace, Tracer, current_trace, reset_trace, set_trace
from functrace.core.types import ShapedArray, aval_of
from functrace.errors import AbstractValueError, CustomRuleError, LeakedTracerError, MissingRuleError
from functrace.interpreters.batching import BatchTrace, BatchTracer
from functrace.interpreters.staging import stage
from functrace.primitives.shape import zeros
from functrace.util import user_line

__all__ = [
    "InContext", "StagedFunction", "bind_call", "check_linear", "evaluate", "fill", "first_line", "is_zero",
    "original_batch", "over_batch", "run_over_batch", "spread", "stage_function", "staged_program",
]  # fmt: skip

Function = Callable[..., list[Any]]


class StagedFunction:
    """A jaxpr as a function of (what it closes over, arguments)."""

    def __init__(self, closed: ClosedJaxpr) -> None:
        self.jaxpr, self.constants = hoist_constants(closed)

    def __call__(self, *values: Any) -> list[Any]:
        return eval_jaxpr(self.jaxpr, (), *values)

    def __repr__(self) -> str:
        return repr(self.jaxpr)


def stage_function(args: tuple[Any, ...], params: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The primal function as a jaxpr, with what it closes over as leading operands."""
    if isinstance(params["function"], StagedFunction):
        return args, params
    staged = StagedFunction(stage(params["function"], [aval_of(a) for a in args]))
    return (*staged.constants, *args), {**params, "function": staged, "constants": len(staged.constants)}


def staged_program(function: Function, avals: Sequence[ShapedArray]) -> ClosedJaxpr:
    return ClosedJaxpr(function.jaxpr) if isinstance(function, StagedFunction) else stage(function, avals)


def evaluate(function: Function, *values: Any) -> list[Any]:
    """Call a function on plain values at the bottom, whatever trace is current."""
    token = set_trace(EVAL)
    try:
        return function(*values)
    finally:
        reset_trace(token)


def fill(values: Sequence[Any], avals: Sequence[ShapedArray]) -> list[Any]:
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
        self.stands_for = original

    def adopt(self, value: Any) -> Any:
        if isinstance(value, BatchTracer) and value._trace is self.stands_for:
            return BatchTracer(self, value.value, value.batched)
        return value

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        return super().process(primitive, tuple(map(self.adopt, args)), params)


def over_batch(function: Function, size: int) -> InContext:
    """A function over a batch of all its arguments, with all outputs batched; None stays None."""
    context = function.context if isinstance(function, InContext) else None
    original = original_batch(context)
    return InContext(lambda *values: run_over_batch(function, size, original, values), context)


def original_batch(context: Trace | None) -> BatchTrace | None:
    """The batch trace whose rule is running: the one of the context that has the current trace as parent."""
    trace, parent = context, current_trace()
    while trace is not None and trace is not trace.parent:
        if isinstance(trace, BatchTrace) and trace.parent is parent:
            return trace
        trace = trace.parent
    return None


def run_over_batch(function: Function, size: int, original: BatchTrace | None, values: Sequence[Any]) -> list[Any]:
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


def spread(size: int, values: list[Any], batched: list[bool]) -> list[Any]:
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
            args, staged = stage_function(tuple(values), params)
        except AbstractValueError as error:
            raise _ClosureError(
                f"{what} and branches on its arguments", where=user_line(), got=first_line(error), remedy=remedy
            ) from error
        if staged["constants"] == 0:
            raise _ClosureError(what, where=user_line(), got=_third_line(leak), remedy=remedy) from leak
        try:
            return primitive.bind(*args, **staged)
        except LeakedTracerError as error:
            raise _ClosureError(what, where=user_line(), got=_third_line(error), remedy=remedy) from error


_KIND = {"custom_jvp_call": "custom_jvp", "custom_vjp_call": "custom_vjp"}


def first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _third_line(error: Exception) -> str:
    """What was got, from a message of ours."""
    return next((line.partition(": ")[2] for line in str(error).splitlines() if line.startswith("  got")), "")


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
        if any(True for _ in subjaxprs(eqn)):
            require_linear([eqn], [a for a in eqn.invars if isinstance(a, Var) and a in linear])
        if primitive.name in _SUMS:
            wrong = not all(flag or is_zero(a) for flag, a in zip(flags, eqn.invars, strict=True))
        elif primitive.name == "select":
            wrong = flags[0] or not all(f or is_zero(a) for f, a in zip(flags[1:], eqn.invars[1:], strict=True))
        elif primitive.name == "div":
            wrong = flags[1]
        elif primitive.name == "mul" or primitive.family == "bilinear":
            wrong = count > 1
        if wrong:
            raise MissingRuleError(f"primitive {primitive.name!r} is not linear in its operands here", got=repr(eqn))


def is_zero(atom: Atom) -> bool:
    return isinstance(atom, Literal) and not isinstance(atom.val, Tracer) and not np.any(atom.val)
