"""What a primitive gives: its result against its type, staged against eager, in batches against a loop."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from functrace.core.ir import check_jaxpr, eval_jaxpr
from functrace.core.types import aval_of, is_inexact
from functrace.testing.cases import Case
from functrace.testing.numerical import SEED, RuleError, random_like, require_equal, require_type
from functrace.transforms import make_jaxpr, vmap

_BATCH = 3


@contextlib.contextmanager
def naming(case: Case, rule: str) -> Iterator[None]:
    """Put the primitive and the rule in front of whatever goes wrong."""
    try:
        with np.errstate(all="ignore"):
            yield
    except Exception as error:
        text = str(error) if isinstance(error, RuleError) else f"{type(error).__name__}: {error}"
        raise RuleError(f"{case}: {rule}: {text}") from error


def pick(case: Case, positions: Sequence[int]) -> list[Any]:
    return [case.operands[i] for i in positions]


def check_evaluation(case: Case) -> None:
    """`impl` gives what `abstract_eval` says, on any memory layout, and changes no operand."""
    avals = [aval_of(x) for x in case.operands]
    expected = case.primitive.abstract_eval(*avals, **case.params)
    expected = list(expected) if case.primitive.multiple else [expected]
    before = [np.array(x, copy=True) for x in case.operands]
    outs = case.evaluate()
    if len(outs) != len(expected):
        raise RuleError(f"impl gives {len(outs)} outputs, abstract_eval {len(expected)}")
    for i, (out, aval) in enumerate(zip(outs, expected, strict=True)):
        require_type(f"output {i} of impl", out, aval)
    for layout in (_readonly, np.asfortranarray, _strided):
        moved = [layout(x) if isinstance(x, np.ndarray) else x for x in case.operands]
        for i, (out, same) in enumerate(zip(case.evaluate(*moved), outs, strict=True)):
            require_equal(f"output {i} of impl on {layout.__name__.strip('_')} operands", out, same)
    for i, (x, copy) in enumerate(zip(case.operands, before, strict=True)):
        if not np.array_equal(x, copy, equal_nan=is_inexact(copy.dtype)):
            raise RuleError(f"impl changed operand {i}")


def _readonly(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


def _strided(x: np.ndarray) -> np.ndarray:
    wide = np.zeros(tuple(2 * n for n in x.shape), x.dtype)
    view = wide[(slice(None, None, 2),) * x.ndim]
    view[...] = x
    return view


def check_staged(f: Callable[..., Any], values: Sequence[Any]) -> None:
    """A function recorded, checked and evaluated again gives what it gives eagerly."""
    closed = make_jaxpr(f)(*values)
    check_jaxpr(closed.jaxpr)
    if "lambda" not in repr(closed):
        raise RuleError("the jaxpr does not print")
    staged = eval_jaxpr(closed.jaxpr, closed.consts, *values)
    eager = f(*values)
    for i, (got, expected, aval) in enumerate(zip(staged, eager, closed.out_avals, strict=True)):
        require_type(f"eager output {i} against the jaxpr's type", expected, aval)
        require_equal(f"staged output {i} against eager", got, expected)


# batching


def subsets(positions: Sequence[int], limit: int = 3) -> list[tuple[int, ...]]:
    """All non-empty subsets, or for many positions the single ones, the pairs of neighbours and all."""
    if len(positions) <= limit:
        sizes = range(1, len(positions) + 1)
        return [s for n in sizes for s in itertools.combinations(positions, n)]
    return [*((p,) for p in positions), *itertools.pairwise(positions), tuple(positions)]


def _stacked(rng: np.random.Generator, value: Any) -> Any:
    """A batch of values close to the given one; integers and booleans are rolled, so that they stay in range."""
    value = np.asarray(value)
    if is_inexact(value.dtype):
        rows = [value, *(value + 1e-3 * random_like(rng, value) for _ in range(_BATCH - 1))]
    else:
        rows = [np.roll(value.ravel(), i).reshape(value.shape) for i in range(_BATCH)]
    return np.stack(rows).astype(value.dtype)


def check_batch(case: Case) -> None:
    """vmap over every subset of the operands, once and twice, equals a Python loop."""
    rng = np.random.default_rng(SEED)
    positions = case.arrays()
    for subset in subsets(positions):
        f = case.function(subset)
        stacks = [_stacked(rng, case.operands[i]) for i in subset]
        rows = [[s[k] for s in stacks] for k in range(_BATCH)]
        loop = [np.stack(column) for column in zip(*[f(*row) for row in rows], strict=True)]
        what = f"vmap over operands {subset}"
        for size in (_BATCH, 1):
            for i, (got, expected) in enumerate(zip(vmap(f)(*[s[:size] for s in stacks]), loop, strict=True)):
                require_type(f"{what}, output {i}", got, aval_of(expected[:size]))
                require_equal(f"{what} against a loop, output {i}", got, expected[:size])
        check_staged(vmap(f), stacks)
        if len(subset) == len(positions):
            # Batched by two nested maps in turn: the batch rule itself is batched.
            twice = vmap(vmap(f))(*[np.stack([s, s[::-1]]) for s in stacks])
            for got, expected in zip(twice, loop, strict=True):
                require_equal(f"{what}, twice", got, np.stack([expected, expected[::-1]]))
    if len(positions) == 2:
        _check_crossed(case, rng, positions)


def _check_crossed(case: Case, rng: np.random.Generator, positions: Sequence[int]) -> None:
    """One operand batched by the inner map, the other by the outer."""
    f = case.function(positions)
    x, y = (_stacked(rng, case.operands[i])[:2] for i in positions)
    crossed = vmap(lambda a: vmap(lambda b: f(a, b))(y))(x)
    loop = [[f(a, b) for b in y] for a in x]
    for i, got in enumerate(crossed):
        expected = np.stack([np.stack([cell[i] for cell in row]) for row in loop])
        what = f"vmap over operand {positions[0]} of vmap over operand {positions[1]}"
        require_equal(what, got, expected)
