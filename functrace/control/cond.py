"""`cond`: one of several programs, chosen by an integer index.

Operands are the index, then the branches' common operands. Every rule makes another cond; a batched index becomes a
selection among all branches' results.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.control import _native
from functrace.control._functions import broadcast_batch, broadcast_flags, may_raise, select_all
from functrace.control._sparsity import of_branches
from functrace.control.unrolled import linearize_now, needs_values
from functrace.core.evaluate import python_function
from functrace.core.ir import Atom, ClosedJaxpr, Eqn, Jaxpr, Literal, Var, eval_jaxpr, hoist_constants
from functrace.core.primitive import Masked, Primitive, is_linear
from functrace.core.trace import EVAL, Tracer, reset_trace, set_trace
from functrace.core.types import ShapedArray, aval_of
from functrace.core.work import Inner, Work
from functrace.interpreters.batching import batch, batch_jaxpr
from functrace.interpreters.jvp import jvp, jvp_jaxpr
from functrace.interpreters.linearize import linearize_jaxpr
from functrace.interpreters.transpose import transpose_jaxpr
from functrace.primitives.elementwise import convert, equal, select, stop_gradient
from functrace.primitives.families import broadcast
from functrace.primitives.indexing import gather
from functrace.primitives.reduction import argmax, reduce_or
from functrace.primitives.shape import full

__all__ = ["cond", "merge_constants"]


def merge_constants(closed: list[ClosedJaxpr]) -> tuple[tuple[Jaxpr, ...], list[Any]]:
    """Branches with their constants as common leading operands, and the values of these."""
    hoisted = [hoist_constants(c) for c in closed]
    avals = [[aval_of(c) for c in constants] for _, constants in hoisted]
    branches = []
    for i, (jaxpr, constants) in enumerate(hoisted):
        before = [Var(a) for group in avals[:i] for a in group]
        after = [Var(a) for group in avals[i + 1 :] for a in group]
        own, rest = jaxpr.invars[: len(constants)], jaxpr.invars[len(constants) :]
        branches.append(Jaxpr([], [*before, *own, *after, *rest], jaxpr.eqns, jaxpr.outvars))
    return tuple(branches), [c for _, constants in hoisted for c in constants]


def _bind(index: Any, closed: list[ClosedJaxpr], operands: list[Any]) -> list[Any]:
    branches, constants = merge_constants(closed)
    return cond.bind(index, *constants, *operands, branches=branches)


def _impl(index: Any, *operands: Any, branches: tuple[Jaxpr, ...]) -> list[Any]:
    token = set_trace(EVAL)
    try:
        return python_function(branches[int(index)])(*operands)
    finally:
        reset_trace(token)


def _abstract_eval(index: ShapedArray, *avals: ShapedArray, branches: tuple[Jaxpr, ...]) -> list[ShapedArray]:
    return branches[0].out_avals


def _agree(run: Callable[[Jaxpr, list[bool]], Any], branches: tuple[Jaxpr, ...]) -> list[Any]:
    """Run a program transformation on all branches so that they agree on which outputs are nonzero (or batched)."""
    flags = [False] * len(branches[0].outvars)
    for branch in branches:
        flags = [a or b for a, b in zip(flags, run(branch, flags)[-1], strict=True)]
    return [run(branch, flags) for branch in branches]


def _known_branch(index: Any, branches: tuple[Jaxpr, ...]) -> functools.partial[list[Any]] | None:
    """The one branch that runs, where the index is a value and not a part of a program or batch."""
    value = index.constant() if isinstance(index, Tracer) else index
    return None if value is None else functools.partial(eval_jaxpr, branches[int(value)], ())


def _jvp(primals: list[Any], tangents: list[Any], *, branches: tuple[Jaxpr, ...]) -> tuple[list[Any], list[Any]]:
    branch = _known_branch(primals[0], branches)
    if branch is not None:
        return jvp(branch, primals[1:], tangents[1:])
    nonzeros = [t is not None for t in tangents[1:]]
    found = _agree(lambda branch, flags: jvp_jaxpr(ClosedJaxpr(branch), nonzeros, flags), branches)
    outs = _bind(primals[0], [c for c, _ in found], [*primals[1:], *(t for t in tangents[1:] if t is not None)])
    count = len(branches[0].outvars)
    rest = iter(outs[count:])
    return outs[:count], [next(rest) if nonzero else None for nonzero in found[0][1]]


def _select_results(branches: tuple[Jaxpr, ...], index: Any, *operands: Any) -> list[Any]:
    """The results of all branches, and of these the one that counts."""
    *others, chosen = [eval_jaxpr(branch, (), *operands) for branch in branches]
    for i in range(len(others) - 1, -1, -1):
        flag = equal(index, aval_of(index).dtype.type(i))
        chosen = [select_all(flag, new, old) for new, old in zip(others[i], chosen, strict=True)]
    return chosen


def _linearize(
    record: Callable[..., Any], primals: list[Any], tangents: list[Var | None], *, branches: tuple[Jaxpr, ...]
) -> tuple[list[Any], list[Var | None]]:
    branch = _known_branch(primals[0], branches)
    if branch is not None:
        return linearize_now(record, branch, primals[1:], tangents[1:])
    if any(map(needs_values, branches)):
        selected = functools.partial(_select_results, branches, primals[0])
        return linearize_now(record, selected, primals[1:], tangents[1:])
    nonzeros = [t is not None for t in tangents[1:]]
    found = _agree(lambda branch, flags: linearize_jaxpr(ClosedJaxpr(branch), nonzeros, flags), branches)
    count = len(branches[0].outvars)
    groups = [f.primal.out_avals[count:] for f in found]
    primal = [ClosedJaxpr(_pad_outputs(f.primal.jaxpr, count, groups, i), f.primal.consts) for i, f in enumerate(found)]
    outs = _bind(primals[0], primal, primals[1:])
    linear = [ClosedJaxpr(_pad_inputs(f.linear.jaxpr, groups, i), f.linear.consts) for i, f in enumerate(found)]
    merged, constants = merge_constants(linear)
    atoms: list[Atom] = [Literal(v) for v in (primals[0], *constants, *outs[count:])]
    params = {"branches": merged}
    out_vars = iter(record(cond, [*atoms, *(t for t in tangents[1:] if t is not None)], merged[0].out_avals, params))
    return outs[:count], [next(out_vars) if nonzero else None for nonzero in found[0].out_nonzeros]


def _pad_outputs(jaxpr: Jaxpr, count: int, groups: list[list[ShapedArray]], own: int) -> Jaxpr:
    """The branch with zeros for the residuals of the other branches."""
    eqns, outvars = list(jaxpr.eqns), list(jaxpr.outvars[:count])
    for i, avals in enumerate(groups):
        if i == own:
            outvars += jaxpr.outvars[count:]
            continue
        for aval in avals:
            var = Var(aval)
            eqns.append(Eqn(full, [], [var], {"shape": aval.shape, "value": 0, "dtype": aval.dtype}))
            outvars.append(var)
    return Jaxpr(jaxpr.constvars, jaxpr.invars, eqns, outvars)


def _pad_inputs(jaxpr: Jaxpr, groups: list[list[ShapedArray]], own: int) -> Jaxpr:
    """The linear branch with unused inputs for the residuals of the other branches."""
    count = len(groups[own])
    invars = [
        var for i, avals in enumerate(groups) for var in (jaxpr.invars[:count] if i == own else [Var(a) for a in avals])
    ]
    return Jaxpr(jaxpr.constvars, [*invars, *jaxpr.invars[count:]], jaxpr.eqns, jaxpr.outvars)


def _transpose(bars: list[Any], index: Any, *operands: Any, branches: tuple[Jaxpr, ...]) -> list[Any]:
    linear = [is_linear(o) for o in operands]
    masked = any(isinstance(bar, Masked) for bar in bars)
    bars = [bar.value if isinstance(bar, Masked) else bar for bar in bars]
    branch = _known_branch(index, branches)
    if branch is not None:
        index, branches = 0, (branch.args[0],)
    transposed = [transpose_jaxpr(ClosedJaxpr(branch), linear, masked) for branch in branches]
    known = [o for o, flag in zip(operands, linear, strict=True) if not flag]
    filled = [
        full(shape=a.shape, value=0, dtype=a.dtype) if bar is None else bar
        for a, bar in zip(branches[0].out_avals, bars, strict=True)
    ]
    found = iter(_bind(index, transposed, [*known, *filled]))
    return [None, *(next(found) if flag else None for flag in linear)]


def _where_taken(taken: Any, program: ClosedJaxpr, operands: list[Any], batched: list[bool]) -> list[Any]:
    """The results of a branch that may raise, in a batch: examples that take another branch have the operands of the
    first one that takes this one, and it does not run if none does."""
    first = argmax(convert(taken, dtype=np.dtype(np.int32)), axis=0)

    def own(x: Any) -> Any:
        shape = aval_of(x).shape
        example = stop_gradient(gather(x, first, axes=(0,), unique=True))
        return select(
            broadcast_flags(taken, shape), x, broadcast(example, shape=shape, axes=tuple(range(1, len(shape))))
        )

    operands = [own(x) if flag else x for x, flag in zip(operands, batched, strict=True)]
    outvars = [Var(a) for a in program.out_avals]
    zeros = [Eqn(full, [], [v], {"shape": v.aval.shape, "value": 0, "dtype": v.aval.dtype}) for v in outvars]
    nothing = ClosedJaxpr(Jaxpr([], list(map(Var, program.in_avals)), zeros, outvars))
    some = convert(reduce_or(taken, axes=(0,)), dtype=np.dtype(np.int32))
    return _bind(some, [nothing, program], operands)


def _batch(
    size: int, values: list[Any], batched: list[bool], *, branches: tuple[Jaxpr, ...]
) -> tuple[list[Any], list[bool]]:
    index, *operands = values
    branch = None if batched[0] else _known_branch(index, branches)
    if branch is not None:
        return batch(branch, size, operands, batched[1:])
    found = _agree(lambda branch, flags: batch_jaxpr(ClosedJaxpr(branch), size, batched[1:], flags), branches)
    closed = [c for c, _ in found]
    if not batched[0]:
        return _bind(index, closed, operands), found[0][1]
    results = [
        _where_taken(equal(index, aval_of(index).dtype.type(i)), c, operands, batched[1:])
        if size and may_raise(c)
        else eval_jaxpr(c.jaxpr, c.consts, *operands)
        for i, c in enumerate(closed)
    ]
    outs = []
    for column, flags in zip(zip(*results, strict=True), zip(*(f for _, f in found), strict=True), strict=True):
        candidates = [c if b else broadcast_batch(c, size) for c, b in zip(column, flags, strict=True)]
        chosen = candidates[-1]
        for i in range(len(branches) - 2, -1, -1):
            mask = broadcast_flags(equal(index, aval_of(index).dtype.type(i)), aval_of(chosen).shape)
            chosen = select(mask, candidates[i], chosen)
        outs.append(chosen)
    return outs, [True] * len(outs)


cond = Primitive(
    "cond",
    _impl,
    _abstract_eval,
    jvp=_jvp,
    linearize=_linearize,
    transpose=_transpose,
    batch=_batch,
    unfold=lambda run, index, *operands, branches: run(branches[int(index)], *operands),
    family="control",
    multiple=True,
    masks="program",
    sparsity=of_branches,
    cost=lambda operands, outs, *, branches: Work(inner=[Inner(b, 1) for b in branches], one_of=True),
    lower=_native.branches,
)
