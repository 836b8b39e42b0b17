"""Sparsity rules of the primitives that hold programs; see `core.structure` and `interpreters.sparsity`.

Most take their program's place. A loop is followed step by step where that is affordable; otherwise, and where nothing
bounds its steps, one step is analysed on its own and its dependence closed under repetition. Custom derivative rules
are analysed in place of the function, whose derivative they may well not be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.control._functions import split
from functrace.core.ir import ClosedJaxpr, Jaxpr, subjaxprs
from functrace.core.structure import Along, ElementProduct, Linked, Moves, Pairs, Pointwise, Structure, known, whole
from functrace.core.trace import EVAL, reset_trace, set_trace
from functrace.core.types import ShapedArray, aval_of, is_inexact
from functrace.errors import FunctraceError
from functrace.interpreters.batching import batch_jaxpr
from functrace.interpreters.sparsity import Program, derived, inline
from functrace.interpreters.staging import stage
from functrace.primitives.indexing import index
from functrace.primitives.shape import stack, zeros

__all__ = [
    "of_branches", "of_call", "of_custom_jvp", "of_custom_vjp", "of_linear_call", "of_linear_solve", "of_program",
    "of_scan", "of_while",
]  # fmt: skip

#: How many operations the steps of a loop may have together for them to be followed one by one.
_FOLLOWED = 10_000

Function = Callable[..., Any]
_DOUBLE = np.dtype(np.float64)
_anything = whole()


def of_program(operands: list[Any], outs: list[ShapedArray], *, jaxpr: Jaxpr, **params: Any) -> list[Any]:
    """The program itself."""
    return inline(jaxpr, *operands)


def of_branches(operands: list[Any], outs: list[ShapedArray], *, branches: tuple[Jaxpr, ...]) -> list[Any]:
    """The branch that is known to run, or whatever some branch depends on."""
    chosen, *values = operands
    if known(chosen) is not None:
        return inline(branches[int(chosen)], *values)
    columns = zip(*(inline(branch, *values) for branch in branches), strict=True)
    found = []
    for out, column in zip(outs, columns, strict=True):
        either = Pointwise([True] * len(column))
        found.append(derived(out, either, column, "cond") if is_inexact(out.dtype) else derived(out, None, (), "cond"))
    return found


# loops


def _operations(jaxpr: Jaxpr) -> int:
    """The operations of a program, those of programs that it holds as often as they run."""
    total = 0
    for eqn in jaxpr.eqns:
        inner = sum(_operations(sub.jaxpr if isinstance(sub, ClosedJaxpr) else sub) for sub in subjaxprs(eqn))
        total += 1 + inner * eqn.params.get("length", 1)
    return total


def of_scan(
    operands: list[Any],
    outs: list[ShapedArray],
    *,
    jaxpr: Jaxpr,
    length: int,
    reverse: bool,
    consts: int,
    carry: int,
) -> list[Any]:
    constants, state, inputs = split(operands, consts, carry)
    if carry == 0 and length:
        flags = [*(False for _ in constants), *(True for _ in inputs)]
        batched = _attempt(lambda: batch_jaxpr(ClosedJaxpr(jaxpr), length, flags, [True] * len(jaxpr.outvars))[0])
        if batched is not None:
            return _with_constants(batched, operands)
    if length * (_operations(jaxpr) + len(inputs)) > _FOLLOWED:
        return _repeated(jaxpr, constants, state, inputs, length)
    rows: list[Any] = [None] * length
    for i in range(length - 1, -1, -1) if reverse else range(length):
        found = inline(jaxpr, *constants, *state, *[index(x, at=(i,)) for x in inputs])
        state, rows[i] = found[:carry], found[carry:]
    if not length:
        return [*state, *map(zeros, outs[carry:])]
    return [*state, *(stack(*column, axis=0) for column in zip(*rows, strict=True))]


def _with_constants(closed: ClosedJaxpr, operands: Sequence[Any]) -> list[Any]:
    jaxpr = closed.jaxpr
    whole_program = Jaxpr([], [*jaxpr.constvars, *jaxpr.invars], jaxpr.eqns, jaxpr.outvars)
    return inline(whole_program, *closed.consts, *operands)


def of_while(
    operands: list[Any], outs: list[ShapedArray], *, cond: Jaxpr, body: Jaxpr, cond_consts: int, body_consts: int
) -> list[Any]:
    """No derivative flows through the condition."""
    _, constants, state = split(operands, cond_consts, body_consts)
    return _repeated(body, constants, state, [], None)


def _repeated(jaxpr: Jaxpr, constants: list[Any], state: list[Any], inputs: list[Any], steps: int | None) -> list[Any]:
    """A loop's results, each depending on whatever some number of steps makes it depend on.

    The step's dependence matrix of carry on carry is closed under composition; second derivatives within a step are
    pulled back through the closure.
    """
    values = [known(c) for c in constants] + [None] * (len(state) + len(inputs))
    step = Program(ClosedJaxpr(jaxpr), [True] * len(jaxpr.invars), values)
    fixed, carried = (sum(aval_of(v).size for v in group) for group in (constants, state))
    size = step.size
    rows, columns = _pairs_of(step.jacobian())
    leaves = rows < carried
    reach = _closure(rows[leaves], columns[leaves] - fixed, fixed, size, steps)
    direct = _matrix(rows, columns, (sum(a.size for a in jaxpr.out_avals), size))
    results = (direct @ reach).tocoo()
    left, right = step.hessian()
    curved = (reach.T @ _matrix(left, right, (size, size)) @ reach).tocoo()
    slices = [
        derived(a, Linked([Along((0,))]), (x,), "scan")
        for a, x in zip(jaxpr.in_avals[len(constants) + len(state) :], inputs, strict=True)
    ]
    products = [ElementProduct(0, 0, *(c.astype(np.intp) for c in (curved.row, curved.col)))]
    found = _as_vector(
        [*constants, *state, *slices],
        jaxpr.out_avals,
        Pairs(results.row.astype(np.intp), results.col.astype(np.intp)),
        products,
    )
    # the carry after no step at all is the one that entered
    ends = [
        derived(a, Pointwise([True, True]), (new, old), "loop") if is_inexact(a.dtype) else new
        for a, new, old in zip(jaxpr.out_avals, found, state, strict=False)
    ]
    length = steps or 0
    stacks = [
        derived(
            ShapedArray((length, *a.shape), a.dtype),
            Moves(lambda y: np.broadcast_to(y, (length, *np.shape(y)))),
            (y,),
            "scan",
        )
        for a, y in zip(jaxpr.out_avals[len(state) :], found[len(state) :], strict=True)
    ]
    return [*ends, *stacks]


def _closure(rows: np.ndarray, columns: np.ndarray, fixed: int, size: int, steps: int | None) -> Any:
    """What the inputs of a step depend on, among those of all steps so far: constants, entering carry and slices.

    By repeated squaring, until nothing is added or all steps are done (None: nothing bounds them).
    """
    own = np.arange(size)
    matrix, done = _matrix(rows + fixed, columns + fixed, (size, size)) + _matrix(own, own, (size, size)), 1
    while steps is None or done < steps:
        further = (matrix @ matrix).astype(bool)
        if further.nnz == matrix.nnz:
            break
        matrix, done = further, 2 * done
    return matrix


def _matrix(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> Any:
    import scipy.sparse

    return scipy.sparse.csr_array((np.ones(len(rows), bool), (rows, columns)), shape=shape)


# programs analysed on their own


def _pairs_of(tables: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The entries of several outputs, their elements numbered one output after another."""
    rows, start = [np.empty(0, np.intp)], 0
    for indptr, _ in tables:
        rows.append(np.repeat(np.arange(start, start + len(indptr) - 1), np.diff(indptr)))
        start += len(indptr) - 1
    return np.concatenate(rows), np.concatenate([np.empty(0, np.intp), *(indices for _, indices in tables)])


def _as_vector(
    operands: Sequence[Any], outs: Sequence[ShapedArray], pairs: Pairs, products: Sequence[ElementProduct]
) -> list[Any]:
    """Outputs that depend on the operands as one vector on another."""
    sizes = [aval_of(x).size for x in operands]
    joined = derived(
        ShapedArray((sum(sizes),), _DOUBLE),
        Moves(lambda *xs: np.concatenate([np.empty(0, np.intp), *(np.reshape(x, -1) for x in xs)])),
        operands,
        "call",
    )
    total = ShapedArray((sum(a.size for a in outs),), _DOUBLE)
    result = derived(total, Linked([pairs], products), (joined,), "call")
    found, start = [], 0
    for aval in outs:
        cut = Moves(lambda y, s=start, n=aval.size, shape=aval.shape: y[s : s + n].reshape(shape)[()])
        found.append(
            derived(aval, cut, (result,), "call") if is_inexact(aval.dtype) else derived(aval, None, (), "call")
        )
        start += aval.size
    return found


# calls


def _attempt(make: Callable[[], ClosedJaxpr]) -> ClosedJaxpr | None:
    """A program made outside of the analysis; None where it cannot be made."""
    token = set_trace(EVAL)
    try:
        return make()
    except FunctraceError:
        return None
    finally:
        reset_trace(token)


def of_call(operands: list[Any], outs: list[ShapedArray], *, function: Function, **params: Any) -> list[Any]:
    """The program of a function."""
    closed = _attempt(lambda: stage(function, [aval_of(x) for x in operands]))
    if closed is None:
        return _anything(operands, outs)
    return _with_constants(closed, operands)


def of_linear_call(operands: list[Any], avals: list[ShapedArray], /, *, apply: Function, **params: Any) -> list[Any]:
    return of_call(operands, avals, function=apply)


def of_custom_jvp(
    operands: list[Any], outs: list[ShapedArray], *, rule: Function, constants: int, **params: Any
) -> list[Any]:
    """Tangents depend on tangents as outputs on arguments; where on a value too, there is a second derivative."""
    arguments = operands[constants:]
    avals = [aval_of(x) for x in arguments]
    active = [a for a in avals if is_inexact(a.dtype)]

    def tangents(*values: Any) -> list[Any]:
        given = iter(values[len(avals) :])
        dots = [next(given) if is_inexact(a.dtype) else None for a in avals]
        found = rule(*values[: len(avals)], *dots)[len(outs) :]
        return [zeros(out) if t is None else t for t, out in zip(found, outs, strict=True)]

    closed = _attempt(lambda: stage(tangents, [*avals, *active]))
    if closed is None:
        return _anything(operands, outs)
    program = Program(closed, [True] * len(closed.in_avals))
    count = sum(a.size for a in avals)
    place = np.concatenate([np.empty(0, np.intp), *_flat_places(avals)])
    rows, columns = _pairs_of(program.jacobian())
    first = columns >= count
    left, right = program.hessian()
    second = (left >= count) & (right < count)
    products = [ElementProduct(0, 0, place[left[second] - count], right[second])]
    return _as_vector(arguments, outs, Pairs(rows[first], place[columns[first] - count]), products)


def _flat_places(avals: Sequence[ShapedArray]) -> list[np.ndarray]:
    """Where the elements of the arguments that have tangents stand among those of all arguments."""
    places, start = [], 0
    for aval in avals:
        if is_inexact(aval.dtype):
            places.append(np.arange(start, start + aval.size))
        start += aval.size
    return places


def of_custom_vjp(
    operands: list[Any],
    outs: list[ShapedArray],
    *,
    forward: Function,
    backward: Function,
    rule: Function | None,
    constants: int,
    **params: Any,
) -> list[Any]:
    """Cotangents of the arguments depend on those of the outputs as the outputs on the arguments.

    A cotangent that depends on an argument's value is a second derivative.
    """
    if rule is not None:
        forwards = of_custom_jvp(operands, outs, rule=rule, constants=constants)
        if any(isinstance(x, Linked) for x in forwards):
            return forwards
    arguments = operands[constants:]
    avals = [aval_of(x) for x in arguments]
    active = tuple(is_inexact(a.dtype) for a in avals)
    bars = [a for a in outs if is_inexact(a.dtype)]

    def pulled(*values: Any) -> list[Any]:
        _, residuals = forward(active, *values[: len(avals)])
        given = iter(values[len(avals) :])
        found = backward(*residuals, *(next(given) if is_inexact(a.dtype) else None for a in outs))
        return [zeros(a) if t is None else t for t, a, flag in zip(found, avals, active, strict=True) if flag]

    closed = _attempt(lambda: stage(pulled, [*avals, *bars]))
    if closed is None:
        return _anything(operands, outs)
    count = sum(a.size for a in avals)
    place = np.concatenate([np.empty(0, np.intp), *_flat_places(avals)])
    out_place = np.concatenate([np.empty(0, np.intp), *_flat_places(outs)])
    rows, columns = _pairs_of(Program(closed, [True] * len(closed.in_avals)).jacobian())
    first = columns >= count
    pairs = Pairs(out_place[columns[first] - count], place[rows[first]])
    products = [ElementProduct(0, 0, place[rows[~first]], columns[~first])]
    found = _as_vector(arguments, outs, pairs, products)
    if rule is None:
        return found
    # two rules: whichever mode is used, its pattern is covered
    return [
        derived(a, Pointwise([True, True]), (x, y), "custom_vjp") if is_inexact(a.dtype) else x
        for a, x, y in zip(outs, found, forwards, strict=True)
    ]


def of_linear_solve(
    operands: list[Any], outs: list[ShapedArray], *, counts: tuple[int, int, int], **params: Any
) -> list[Structure]:
    """Dense in the matrix's constants and the right-hand side; the solvers' constants have no derivative."""
    _, first, second, b = split(range(len(operands)), *counts)
    dense = whole(linear=b, none=[*first, *second])(operands, outs)
    return [structure if k < len(b) else None for k, structure in enumerate(dense)]
