"""Primitives that move elements without changing them, and those that make arrays from nothing. All are linear."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from functrace.core.ir import Literal, Var
from functrace.core.lowering import Rewrite
from functrace.core.primitive import Primitive, is_linear
from functrace.core.structure import Moves, Structure, moves
from functrace.core.types import ShapedArray, aval_of
from functrace.core.work import moving, viewing
from functrace.primitives import _moves
from functrace.primitives.families import broadcast, reshape
from functrace.primitives.linear import linear

__all__ = [
    "broadcast",
    "concatenate",
    "full",
    "iota",
    "pad",
    "reshape",
    "reverse",
    "slice_",
    "stack",
    "transpose",
    "unstack",
    "zeros",
]

full = Primitive(
    "full",
    lambda *, shape, value, dtype: np.full(shape, value, dtype) if shape else dtype.type(value),
    lambda *, shape, value, dtype: ShapedArray(shape, dtype),
    family="creation",
    nondifferentiable=True,
    cost=moving,
    formula=lambda *, shape, value, dtype: str(value),
    lower=_moves.full,
    uniform=lambda operands, *, shape, value, dtype: dtype.type(value),
)
iota = Primitive(
    "iota",
    lambda *, length, dtype: np.arange(length, dtype=dtype),
    lambda *, length, dtype: ShapedArray((length,), dtype),
    family="creation",
    nondifferentiable=True,
    cost=moving,
    lower=_moves.iota,
)


def zeros(aval: ShapedArray) -> Any:
    """An array of zeros of the given type."""
    return full(shape=aval.shape, value=0, dtype=aval.dtype)


def inverse_permutation(permutation: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes `permutation`."""
    inverse = [0] * len(permutation)
    for position, axis in enumerate(permutation):
        inverse[axis] = position
    return tuple(inverse)


transpose = linear(
    "transpose",
    lambda x, *, permutation: x.transpose(permutation),
    lambda aval, *, permutation: ShapedArray(tuple(aval.shape[a] for a in permutation), aval.dtype),
    lambda bar, aval, *, permutation: transpose(bar, permutation=inverse_permutation(permutation)),
    lambda size, x, *, permutation: transpose(x, permutation=(0, *(a + 1 for a in permutation))),
    moving_elements=True,
    cost=viewing(lambda x, *, permutation: x.transposed(permutation).strides),
    lower=_moves.transpose,
)
reverse = linear(
    "reverse",
    lambda x, *, axes: np.flip(x, axes),
    lambda aval, *, axes: aval,
    lambda bar, aval, *, axes: reverse(bar, axes=axes),
    lambda size, x, *, axes: reverse(x, axes=tuple(a + 1 for a in axes)),
    moving_elements=True,
    cost=viewing(lambda x, *, axes: tuple(-s if a in axes else s for a, s in enumerate(x.strides))),
    lower=_moves.reverse,
)


def _slice_aval(aval: ShapedArray, *, starts: Any, stops: Any, steps: Any) -> ShapedArray:
    lengths = (len(range(*s)) for s in zip(starts, stops, steps, strict=True))
    return ShapedArray(tuple(lengths), aval.dtype)


def _slice_transpose(bar: Any, aval: ShapedArray, *, starts: Any, stops: Any, steps: Any) -> Any:
    interior = tuple(s - 1 for s in steps)
    lengths = tuple(n + (n - 1) * i if n else 0 for n, i in zip(bar.shape, interior, strict=True))
    high = tuple(n - s - k for n, s, k in zip(aval.shape, starts, lengths, strict=True))
    return pad(bar, low=starts, high=high, interior=interior)


def _slice_accumulate(buffer: np.ndarray, bar: Any, x: Any, *, starts: Any, stops: Any, steps: Any) -> None:
    buffer[tuple(map(slice, starts, stops, steps))] += bar


def range_text(start: int, stop: int, step: int) -> str:
    """A static range as it is written in an index."""
    return f"{start}:{stop}" if step == 1 else f"{start}:{stop}:{step}"


slice_ = linear(
    "slice",
    lambda x, *, starts, stops, steps: x[tuple(map(slice, starts, stops, steps))],
    _slice_aval,
    _slice_transpose,
    lambda size, x, *, starts, stops, steps: slice_(x, starts=(0, *starts), stops=(size, *stops), steps=(1, *steps)),
    accumulate=_slice_accumulate,
    moving_elements=True,
    cost=viewing(lambda x, *, starts, stops, steps: tuple(map(operator.mul, x.strides, steps))),
    formula=lambda x, *, starts, stops, steps: (
        f"x[{', '.join(map(range_text, starts, stops, steps))}]" if starts else "x"
    ),
    lower=_moves.slice_,
)


def _padded_shape(shape: tuple[int, ...], low: Any, high: Any, interior: Any) -> tuple[int, ...]:
    return tuple(lo + hi + n + max(n - 1, 0) * i for n, lo, hi, i in zip(shape, low, high, interior, strict=True))


def _pad_impl(x: Any, *, low: Any, high: Any, interior: Any) -> Any:
    if not low:
        return x
    out = np.zeros(_padded_shape(x.shape, low, high, interior), x.dtype)
    if x.size:
        places = (slice(lo, lo + (n - 1) * (i + 1) + 1, i + 1) for n, lo, i in zip(x.shape, low, interior, strict=True))
        out[tuple(places)] = x
    return out


def _pad_transpose(bar: Any, aval: ShapedArray, *, low: Any, high: Any, interior: Any) -> Any:
    stops = tuple(n - hi for n, hi in zip(bar.shape, high, strict=True))
    return slice_(bar, starts=low, stops=stops, steps=tuple(i + 1 for i in interior))


pad = linear(
    "pad",
    _pad_impl,
    lambda aval, *, low, high, interior: ShapedArray(_padded_shape(aval.shape, low, high, interior), aval.dtype),
    _pad_transpose,
    lambda size, x, *, low, high, interior: pad(x, low=(0, *low), high=(0, *high), interior=(0, *interior)),
    moving_elements=True,
    lower=_moves.pad,
)


def _concatenate_aval(*avals: ShapedArray, axis: int) -> ShapedArray:
    shape = list(avals[0].shape)
    shape[axis] = sum(a.shape[axis] for a in avals)
    return ShapedArray(tuple(shape), avals[0].dtype)


def _concatenate_jvp(primals: list[Any], tangents: list[Any], *, axis: int) -> tuple[list[Any], list[Any]]:
    filled = [zeros(aval_of(p)) if t is None else t for p, t in zip(primals, tangents, strict=True)]
    return [concatenate(*primals, axis=axis)], [concatenate(*filled, axis=axis)]


def _concatenate_linearize(
    record: Any, primals: list[Any], tangents: list[Var | None], *, axis: int
) -> tuple[list[Any], list[Var]]:
    out = concatenate(*primals, axis=axis)
    atoms = [Literal(zeros(aval_of(p))) if t is None else t for p, t in zip(primals, tangents, strict=True)]
    return [out], [record(concatenate, atoms, aval_of(out), {"axis": axis})]


def _concatenate_transpose(bars: list[Any], *operands: Any, axis: int) -> list[Any]:
    bar, start, pieces = bars[0], 0, []
    ones = (1,) * len(bar.shape)
    for operand in operands:
        shape = aval_of(operand).shape if not is_linear(operand) else operand.aval.shape
        starts, stops = [0] * len(shape), list(bar.shape)
        starts[axis], stops[axis] = start, start + shape[axis]
        start = stops[axis]
        linear_piece = is_linear(operand)
        pieces.append(slice_(bar, starts=tuple(starts), stops=tuple(stops), steps=ones) if linear_piece else None)
    return pieces


def _concatenate_batch(size: int, values: list[Any], batched: list[bool], *, axis: int) -> tuple[list[Any], list[bool]]:
    values = [
        v if b else broadcast(v, shape=(size, *v.shape), axes=tuple(range(1, 1 + len(v.shape))))
        for v, b in zip(values, batched, strict=True)
    ]
    return [concatenate(*values, axis=axis + 1)], [True]


concatenate = Primitive(
    "concatenate",
    lambda *xs, axis: np.concatenate(xs, axis),
    _concatenate_aval,
    jvp=_concatenate_jvp,
    linearize=_concatenate_linearize,
    transpose=_concatenate_transpose,
    batch=_concatenate_batch,
    sparsity=moves(lambda *xs, axis: np.concatenate(xs, axis)),
    family="linear",
    masks="structural",
    cost=moving,
    lower=_moves.concatenate,
)


def _stack_impl(*xs: Any, axis: int) -> np.ndarray:
    first = np.asarray(xs[0])
    shape = list(first.shape)
    shape.insert(axis, len(xs))
    out = np.empty(shape, first.dtype)
    if first.ndim == 0:
        out[:] = xs
    else:
        for i, x in enumerate(xs):
            out[(slice(None),) * axis + (i,)] = x
    return out


def _stack_aval(*avals: ShapedArray, axis: int) -> ShapedArray:
    shape = list(avals[0].shape)
    shape.insert(axis, len(avals))
    return ShapedArray(tuple(shape), avals[0].dtype)


def _stack_jvp(primals: list[Any], tangents: list[Any], *, axis: int) -> tuple[list[Any], list[Any]]:
    filled = [zeros(aval_of(p)) if t is None else t for p, t in zip(primals, tangents, strict=True)]
    return [stack(*primals, axis=axis)], [stack(*filled, axis=axis)]


def _stack_linearize(
    record: Any, primals: list[Any], tangents: list[Var | None], *, axis: int
) -> tuple[list[Any], list[Var]]:
    out = stack(*primals, axis=axis)
    atoms = [Literal(zeros(aval_of(p))) if t is None else t for p, t in zip(primals, tangents, strict=True)]
    return [out], [record(stack, atoms, aval_of(out), {"axis": axis})]


def _stack_transpose(bars: list[Any], *operands: Any, axis: int) -> list[Any]:
    pieces = unstack(bars[0], axis=axis)
    return [piece if is_linear(operand) else None for piece, operand in zip(pieces, operands, strict=True)]


def _stack_batch(size: int, values: list[Any], batched: list[bool], *, axis: int) -> tuple[list[Any], list[bool]]:
    values = [
        v if b else broadcast(v, shape=(size, *aval_of(v).shape), axes=tuple(range(1, 1 + aval_of(v).ndim)))
        for v, b in zip(values, batched, strict=True)
    ]
    return [stack(*values, axis=axis + 1)], [True]


stack = Primitive(
    "stack",
    _stack_impl,
    _stack_aval,
    jvp=_stack_jvp,
    linearize=_stack_linearize,
    transpose=_stack_transpose,
    batch=_stack_batch,
    sparsity=moves(_stack_impl),
    family="linear",
    masks="structural",
    cost=moving,
    lower=_moves.stack,
)


def _unstack_avals(aval: ShapedArray, *, axis: int) -> list[ShapedArray]:
    piece = ShapedArray(aval.shape[:axis] + aval.shape[axis + 1 :], aval.dtype)
    return [piece] * aval.shape[axis]


def _pieces(x: Any, *, axis: int) -> list[Any]:
    """The same as slices."""
    shape, ones = x.shape, (1,) * len(x.shape)
    starts = [tuple([k if a == axis else 0 for a in range(len(shape))]) for k in range(shape[axis])]
    stops = [tuple([k + 1 if a == axis else n for a, n in enumerate(shape)]) for k in range(shape[axis])]
    return [
        reshape(slice_(x, starts=start, stops=stop, steps=ones), shape=shape[:axis] + shape[axis + 1 :])
        for start, stop in zip(starts, stops, strict=True)
    ]


def _unstack_impl(x: Any, *, axis: int) -> list[Any]:
    return list(x if axis == 0 else np.moveaxis(x, axis, 0))


def _unstack_jvp(primals: list[Any], tangents: list[Any], *, axis: int) -> tuple[list[Any], list[Any]]:
    return unstack(primals[0], axis=axis), unstack(tangents[0], axis=axis)


def _unstack_transpose(bars: list[Any], x: Any, *, axis: int) -> list[Any]:
    avals = _unstack_avals(x.aval, axis=axis)
    return [stack(*[zeros(a) if b is None else b for a, b in zip(avals, bars, strict=True)], axis=axis)]


def _unstack_sparsity(operands: list[Any], outs: list[ShapedArray], *, axis: int) -> list[Structure]:
    return [Moves(lambda x, k=k: x.take(k, axis)) for k in range(len(outs))]


unstack = Primitive(
    "unstack",
    _unstack_impl,
    _unstack_avals,
    jvp=_unstack_jvp,
    transpose=_unstack_transpose,
    batch=lambda size, values, batched, *, axis: (
        unstack(values[0], axis=axis + 1),
        [True] * values[0].shape[axis + 1],
    ),
    sparsity=_unstack_sparsity,
    family="linear",
    multiple=True,
    cost=viewing(lambda x, *, axis: x.strides[:axis] + x.strides[axis + 1 :]),
    lower=Rewrite(function=_pieces),
)
