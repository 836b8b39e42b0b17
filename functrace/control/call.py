"""`jit`: a call of a traced program, which is kept whole and compiled once.

Every rule makes another call, of the program that the interpreter derives; each derived program is made once per jaxpr,
so a jitted function is differentiated, linearized and batched once per shape, whichever transformation meets it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from functrace.backend.executable import Executable, compilation_disabled
from functrace.control._sparsity import of_program
from functrace.control.linearity import require_linear
from functrace.control.unrolled import linearize_now, needs_values
from functrace.core.evaluate import python_function
from functrace.core.ir import Atom, ClosedJaxpr, Jaxpr, Literal, Var, eval_jaxpr, hoist_constants
from functrace.core.lowering import Inline
from functrace.core.primitive import Masked, Primitive, is_linear
from functrace.core.trace import EVAL, reset_trace, set_trace
from functrace.core.types import ShapedArray
from functrace.core.work import Inner, Work
from functrace.interpreters.batching import batch_jaxpr
from functrace.interpreters.jvp import jvp_jaxpr
from functrace.interpreters.linearize import linearize_jaxpr
from functrace.interpreters.simplify import simplify
from functrace.interpreters.transpose import transpose_jaxpr
from functrace.primitives.shape import zeros

__all__ = ["executable", "jit_call", "run_jaxpr", "simplified"]


def derive(jaxpr: Jaxpr, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    """A program derived from a jaxpr, made once; independent of the transformation that asks for it."""
    found = jaxpr.derived.get(key)
    if found is None:
        token = set_trace(EVAL)
        try:
            found = jaxpr.derived.setdefault(key, make())
        finally:
            reset_trace(token)
    return found


def simplified(jaxpr: Jaxpr) -> Jaxpr:
    """The simplified program, made once."""
    return derive(jaxpr, ("simplified",), lambda: simplify(jaxpr))


def run_jaxpr(jaxpr: Jaxpr, *values: Any) -> list[Any]:
    """Run the compiled program on plain values, whatever trace is current."""
    if compilation_disabled():
        token = set_trace(EVAL)
        try:
            return python_function(simplified(jaxpr))(*values)
        finally:
            reset_trace(token)
    return list(executable(jaxpr).run(*values))


def executable(jaxpr: Jaxpr) -> Executable:
    """The compiled program, made once."""
    return derive(jaxpr, ("executable",), lambda: Executable(jaxpr))


def _jvp(primals: list[Any], tangents: list[Any], *, jaxpr: Jaxpr, name: str) -> tuple[list[Any], list[Any]]:
    nonzeros = tuple(t is not None for t in tangents)

    def make() -> Any:
        closed, out_nonzeros = jvp_jaxpr(ClosedJaxpr(jaxpr), nonzeros)
        return *hoist_constants(closed), out_nonzeros

    derived, constants, out_nonzeros = derive(jaxpr, ("jvp", nonzeros), make)
    given = [t for t in tangents if t is not None]
    outs = jit_call.bind(*constants, *primals, *given, jaxpr=derived, name=f"jvp({name})")
    count = len(jaxpr.outvars)
    rest = iter(outs[count:])
    return outs[:count], [next(rest) if nonzero else None for nonzero in out_nonzeros]


def _linearize(
    record: Callable[..., Any], primals: list[Any], tangents: list[Var | None], *, jaxpr: Jaxpr, name: str
) -> tuple[list[Any], list[Var | None]]:
    nonzeros = tuple(t is not None for t in tangents)

    if derive(jaxpr, ("needs values",), lambda: (needs_values(jaxpr),))[0]:
        return linearize_now(record, lambda *values: eval_jaxpr(jaxpr, (), *values), primals, tangents)

    def make() -> Any:
        split = linearize_jaxpr(ClosedJaxpr(jaxpr), nonzeros)
        return *hoist_constants(split.primal), *hoist_constants(split.linear), split.out_nonzeros

    primal, primal_constants, linear, linear_constants, out_nonzeros = derive(jaxpr, ("linearize", nonzeros), make)
    outs = jit_call.bind(*primal_constants, *primals, jaxpr=primal, name=name)
    count = len(jaxpr.outvars)
    atoms: list[Atom] = [*map(Literal, linear_constants), *map(Literal, outs[count:])]
    atoms += [t for t in tangents if t is not None]
    params = {"jaxpr": linear, "name": f"linear({name})"}
    found = iter(record(jit_call, atoms, linear.out_avals, params))
    return outs[:count], [next(found) if nonzero else None for nonzero in out_nonzeros]


def _transpose(bars: list[Any], *operands: Any, jaxpr: Jaxpr, name: str) -> list[Any]:
    linear = tuple(is_linear(o) for o in operands)
    masked = any(isinstance(bar, Masked) for bar in bars)
    bars = [bar.value if isinstance(bar, Masked) else bar for bar in bars]

    def make() -> Any:
        try:
            return hoist_constants(transpose_jaxpr(ClosedJaxpr(jaxpr), linear, masked))
        except Exception:
            # Programs that linearization made are linear; only another one is worth the time to say where it is not.
            require_linear(jaxpr.eqns, [v for v, flag in zip(jaxpr.invars, linear, strict=True) if flag])
            raise

    derived, constants = derive(jaxpr, ("transpose", linear, masked), make)
    filled = [zeros(a) if bar is None else bar for bar, a in zip(bars, jaxpr.out_avals, strict=True)]
    known = [o for o, flag in zip(operands, linear, strict=True) if not flag]
    found = iter(jit_call.bind(*constants, *known, *filled, jaxpr=derived, name=f"transpose({name})"))
    return [next(found) if flag else None for flag in linear]


def _batch(
    size: int, values: list[Any], batched: list[bool], *, jaxpr: Jaxpr, name: str
) -> tuple[list[Any], list[bool]]:
    def make() -> Any:
        closed, out_batched = batch_jaxpr(ClosedJaxpr(jaxpr), size, batched)
        return *hoist_constants(closed), out_batched

    derived, constants, out_batched = derive(jaxpr, ("batch", size, tuple(batched)), make)
    return jit_call.bind(*constants, *values, jaxpr=derived, name=f"vmap({name})"), out_batched


def _abstract_eval(*avals: ShapedArray, jaxpr: Jaxpr, name: str) -> list[ShapedArray]:
    return jaxpr.out_avals


jit_call = Primitive(
    "jit",
    lambda *values, jaxpr, name: run_jaxpr(jaxpr, *values),
    _abstract_eval,
    jvp=_jvp,
    linearize=_linearize,
    transpose=_transpose,
    batch=_batch,
    unfold=lambda run, *operands, jaxpr, name: run(jaxpr, *operands),
    family="control",
    multiple=True,
    masks="program",
    sparsity=of_program,
    cost=lambda operands, outs, *, jaxpr, name: Work(inner=[Inner(simplified(jaxpr), 1)]),
    lower=Inline(program=lambda *, jaxpr, name: jaxpr),
)
