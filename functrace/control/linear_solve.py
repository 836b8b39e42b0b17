"""`linear_solve`: the solution of A x = b where A is a program, with derivatives by the implicit equation.

Operands are the constants of the matrix, of the solver and of the transposed solver, then b. The rules never look into
the solvers: forward mode solves A dx = db - dA x, reverse mode solves with the transposed matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from functrace.control._functions import broadcast_batch, split
from functrace.control._sparsity import of_linear_solve
from functrace.core.evaluate import python_function
from functrace.core.ir import ClosedJaxpr, Jaxpr, eval_jaxpr, hoist_constants
from functrace.core.primitive import Primitive, is_linear
from functrace.core.trace import EVAL, reset_trace, set_trace
from functrace.core.types import ShapedArray, aval_of
from functrace.core.work import Inner, Work
from functrace.errors import MissingRuleError
from functrace.interpreters.batching import batch_jaxpr
from functrace.interpreters.jvp import jvp
from functrace.interpreters.transpose import transpose_jaxpr
from functrace.primitives.families import neg
from functrace.primitives.shape import zeros
from functrace.util import user_line

__all__ = ["linear_solve"]


def _impl(*operands: Any, solve: Jaxpr, counts: tuple[int, int, int], **params: Any) -> list[Any]:
    _, constants, _, b = split(operands, *counts)
    token = set_trace(EVAL)
    try:
        return python_function(solve)(*constants, *b)
    finally:
        reset_trace(token)


def _abstract_eval(*avals: ShapedArray, solve: Jaxpr, **params: Any) -> list[ShapedArray]:
    return solve.out_avals


def _jvp(
    primals: list[Any], tangents: list[Any], *, matvec: Jaxpr, counts: tuple[int, int, int], **params: Any
) -> tuple[list[Any], list[Any]]:
    outs = linear_solve.bind(*primals, matvec=matvec, counts=counts, **params)
    matrix, _, _, b = split(primals, *counts)
    matrix_dots, _, _, b_dots = split(tangents, *counts)
    solution, aux = outs[: len(b)], outs[len(b) :]
    changes: list[Any] = [None] * len(b)
    if any(t is not None for t in matrix_dots):
        _, changes = jvp(lambda *consts: eval_jaxpr(matvec, (), *consts, *solution), matrix, matrix_dots)
    elif all(t is None for t in b_dots):
        return outs, [None] * len(outs)
    sides = []
    for value, b_dot, change in zip(b, b_dots, changes, strict=True):
        if change is None:
            sides.append(zeros(aval_of(value)) if b_dot is None else b_dot)
        else:
            sides.append(neg(change) if b_dot is None else b_dot - change)
    dots = linear_solve.bind(*primals[: sum(counts)], *sides, matvec=matvec, counts=counts, **params)
    return outs, [*dots[: len(b)], *(None for _ in aux)]


def _transpose(
    bars: list[Any],
    *operands: Any,
    matvec: Jaxpr,
    solve: Jaxpr,
    transpose_solve: Jaxpr | None,
    symmetric: bool,
    counts: tuple[int, int, int],
) -> list[Any]:
    matrix, first, second, b = split(operands, *counts)
    if any(map(is_linear, operands[: sum(counts)])):
        raise MissingRuleError("custom_linear_solve is linear in b only, not in its matrix", where=user_line())
    if transpose_solve is None:
        raise MissingRuleError(
            "reverse mode through custom_linear_solve solves with the transposed matrix",
            where=user_line(),
            remedy="give transpose_solve=, or symmetric=True",
        )
    filled = [zeros(a) if t is None else t for t, a in zip(bars, solve.out_avals, strict=True)][: len(b)]
    if not symmetric:
        flags = [*(False for _ in matrix), *(True for _ in b)]
        matvec, own = hoist_constants(transpose_jaxpr(ClosedJaxpr(matvec), flags))
        matrix = [*own, *matrix]
    found = linear_solve.bind(
        *matrix,
        *second,
        *first,
        *filled,
        matvec=matvec,
        solve=transpose_solve,
        transpose_solve=solve,
        symmetric=symmetric,
        counts=(len(matrix), len(second), len(first)),
    )
    bars_of_b = [bar if is_linear(v) else None for bar, v in zip(found, b, strict=False)]
    return [*(None for _ in range(sum(counts))), *bars_of_b]


def _batch(
    size: int,
    values: list[Any],
    batched: list[bool],
    *,
    matvec: Jaxpr,
    solve: Jaxpr,
    transpose_solve: Jaxpr | None,
    symmetric: bool,
    counts: tuple[int, int, int],
) -> tuple[list[Any], list[bool]]:
    groups, flags = split(values, *counts), split(batched, *counts)
    b = [v if f else broadcast_batch(v, size) for v, f in zip(groups[3], flags[3], strict=True)]

    def over_batch(jaxpr: Jaxpr, which: int) -> tuple[Jaxpr, list[Any]]:
        all_flags: Sequence[bool] = [*flags[which], *(True for _ in b)]
        closed, _ = batch_jaxpr(ClosedJaxpr(jaxpr), size, all_flags, [True] * len(jaxpr.outvars))
        batched_jaxpr, own = hoist_constants(closed)
        return batched_jaxpr, [*own, *groups[which]]

    new_matvec, matrix = over_batch(matvec, 0)
    new_solve, first = over_batch(solve, 1)
    new_transposed, second = (None, groups[2]) if transpose_solve is None else over_batch(transpose_solve, 2)
    outs = linear_solve.bind(
        *matrix,
        *first,
        *second,
        *b,
        matvec=new_matvec,
        solve=new_solve,
        transpose_solve=new_transposed,
        symmetric=symmetric,
        counts=(len(matrix), len(first), len(second)),
    )
    return outs, [True] * len(outs)


#: Parameters: `matvec`, `solve` and `transpose_solve` (or None) as programs of (their constants, vector);
#: `counts`, how many constants each has; `symmetric`. Outputs: the solution, then auxiliary ones without tangent.
linear_solve = Primitive(
    "linear_solve",
    _impl,
    _abstract_eval,
    jvp=_jvp,
    transpose=_transpose,
    batch=_batch,
    family="control",
    multiple=True,
    sparsity=of_linear_solve,
    cost=lambda operands, outs, *, solve, **params: Work(inner=[Inner(solve, 1)]),
)
