"""How primitives that move, gather or reduce elements are compiled; see `core.lowering`.

`r` reads elements of operands, `i` is the index of the output's element: a sequence of integer expressions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from functrace.core.lowering import Indexed, Reduction
from functrace.core.types import ShapedArray

__all__ = ["reduction"]


def _broadcast(r: Any, i: Sequence[Any], x: Any, *, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    lengths = x.aval.shape
    return r.read(x, [r.fixed(0) if n == 1 else i[a] for a, n in zip(axes, lengths, strict=True)])


def _reshape(r: Any, i: Sequence[Any], x: Any, *, shape: tuple[int, ...]) -> Any:
    return r.read_flat(x, r.flat(i, shape))


def _transpose(r: Any, i: Sequence[Any], x: Any, *, permutation: tuple[int, ...]) -> Any:
    source: list[Any] = [None] * len(permutation)
    for position, axis in enumerate(permutation):
        source[axis] = i[position]
    return r.read(x, source)


def _reverse(r: Any, i: Sequence[Any], x: Any, *, axes: tuple[int, ...]) -> Any:
    lengths = x.aval.shape
    return r.read(x, [lengths[a] - 1 - k if a in axes else k for a, k in enumerate(i)])


def _slice(r: Any, i: Sequence[Any], x: Any, *, starts: Any, stops: Any, steps: Any) -> Any:
    bounds = (slice(*s).indices(n) for s, n in zip(zip(starts, stops, steps, strict=True), x.aval.shape, strict=True))
    return r.read(x, [k * step + start for k, (start, _, step) in zip(i, bounds, strict=True)])


def _pad(r: Any, i: Sequence[Any], x: Any, *, low: Any, high: Any, interior: Any) -> Any:
    source = []
    for k, lo, gap, n in zip(i, low, interior, x.aval.shape, strict=True):
        if not r.within(k, lo, lo + n + max(n - 1, 0) * gap):
            return r.constant(0, x.aval.dtype)
        position = k - lo
        if gap:
            position, inside = r.every(position, gap + 1)
            if not inside:
                return r.constant(0, x.aval.dtype)
        source.append(position)
    return r.read(x, source)


def _concatenate(r: Any, i: Sequence[Any], *parts: Any, axis: int) -> Any:
    start = 0
    for part in parts:
        n = part.aval.shape[axis]
        if r.within(i[axis], start, start + n):
            return r.read(part, [k - start if a == axis else k for a, k in enumerate(i)])
        start += n
    raise AssertionError("an index beyond the last part")


def _stack(r: Any, i: Sequence[Any], *parts: Any, **params: Any) -> Any:
    axis = params.get("axis", 0)
    for position, part in enumerate(parts):
        if r.within(i[axis], position, position + 1):
            return r.read(part, [k for a, k in enumerate(i) if a != axis])
    raise AssertionError("an index beyond the last part")


def _source(i: Sequence[Any], at: Any, shape: Sequence[int], r: Any) -> list[Any]:
    """The place in the whole of an element of the part `at`."""
    rest = iter(i)
    source = [r.fixed(entry) if type(entry) is int else next(rest) * entry[2] + entry[0] for entry in at]
    return [*source, *rest]


def _index(r: Any, i: Sequence[Any], x: Any, *, at: Any) -> Any:
    return r.read(x, _source(i, at, x.aval.shape, r))


def _part(r: Any, i: Sequence[Any], at: Any) -> list[Any] | None:
    """The place in the part `at` of an element of the whole; None if it is outside."""
    inner = []
    for k, entry in zip(i, at, strict=False):
        if type(entry) is int:
            if not r.within(k, entry, entry + 1):
                return None
            continue
        start, stop, step = entry
        count = len(range(start, stop, step))
        if not count or not r.within(k, start, start + (count - 1) * step + 1):
            return None
        position = k - start
        if step > 1:
            position, inside = r.every(position, step)
            if not inside:
                return None
        inner.append(position)
    return [*inner, *i[len(at) :]]


def _place(r: Any, i: Sequence[Any], x: Any, *, at: Any, shape: tuple[int, ...]) -> Any:
    inner = _part(r, i, at)
    return r.constant(0, x.aval.dtype) if inner is None else r.read(x, inner)


def _update(r: Any, i: Sequence[Any], x: Any, v: Any, *, at: Any) -> Any:
    inner = _part(r, i, at)
    return r.read(x, i) if inner is None else r.read(v, inner)


def _gather(r: Any, i: Sequence[Any], x: Any, *indices: Any, axes: tuple[int, ...], **params: Any) -> Any:
    count = len(indices[0].aval.shape)
    lead, rest = list(i[:count]), iter(i[count:])
    shape = x.aval.shape
    found = {a: r.position(index, lead, shape[a]) for a, index in zip(axes, indices, strict=True)}
    return r.read(x, [found[a] if a in found else next(rest) for a in range(len(shape))])


def _dense(*avals: Any, at: Any, **params: Any) -> bool:
    """Whether a part has no gaps."""
    return all(type(entry) is int or entry[2] == 1 for entry in at)


broadcast = Indexed(read=_broadcast)
reshape = Indexed(read=_reshape)
transpose = Indexed(read=_transpose)
reverse = Indexed(read=_reverse)
slice_ = Indexed(read=_slice)
pad = Indexed(lambda x, *, low, high, interior: min((*low, *high, 0)) >= 0 and not any(interior), _pad)
concatenate = Indexed(read=_concatenate)
stack = Indexed(read=_stack)
index = Indexed(read=_index)
place = Indexed(_dense, _place)
update = Indexed(_dense, _update)
gather = Indexed(read=_gather)
full = Indexed(read=lambda r, i, *, shape, value, dtype: r.constant(value, dtype))
iota = Indexed(
    read=lambda r, i, *, length, dtype: r.number(i[0], dtype), suits=lambda *, length, dtype: dtype.kind in "iuf"
)


def reduction(combine: str, suits: Any = None) -> Reduction:
    """The lowering of a reduction of one operand over `axes`."""
    return Reduction(
        suits or (lambda x, *, axes: bool(x.size)),
        combine,
        lambda x, *, axes: x.shape,
        lambda r, i, x, *, axes: r.read(x, i),
        lambda x, *, axes: tuple(a for a in range(x.ndim) if a not in axes),
    )


# contraction: the space is the batch axes, the free axes of x, those of y, and the contracted axes


def _axes_of(x: Any, y: Any, contract: Any, batch: Any) -> tuple[list[int], list[int]]:
    free_x = [a for a in range(x.ndim) if a not in contract[0] and a not in batch[0]]
    free_y = [a for a in range(y.ndim) if a not in contract[1] and a not in batch[1]]
    return free_x, free_y


def _space(x: ShapedArray, y: ShapedArray, *, contract: Any, batch: Any) -> tuple[int, ...]:
    free_x, free_y = _axes_of(x, y, contract, batch)
    lengths = [x.shape[a] for a in (*batch[0], *free_x)] + [y.shape[a] for a in free_y]
    return (*lengths, *(x.shape[a] for a in contract[0]))


def _product(r: Any, i: Sequence[Any], x: Any, y: Any, *, contract: Any, batch: Any) -> Any:
    free_x, free_y = _axes_of(x.aval, y.aval, contract, batch)
    b, fx, fy = len(batch[0]), len(free_x), len(free_y)
    at_x, at_y = dict(zip(batch[0], i, strict=False)), dict(zip(batch[1], i, strict=False))
    at_x.update(zip(free_x, i[b:], strict=False))
    at_y.update(zip(free_y, i[b + fx :], strict=False))
    summed = i[b + fx + fy :]
    at_x.update(zip(contract[0], summed, strict=True))
    at_y.update(zip(contract[1], summed, strict=True))
    left = r.read(x, [at_x[a] for a in range(x.aval.ndim)])
    right = r.read(y, [at_y[a] for a in range(y.aval.ndim)])
    return r.apply(lambda e, p, q: p * q, left, right, dtype=x.aval.dtype)


def _kept(x: ShapedArray, y: ShapedArray, *, contract: Any, batch: Any) -> tuple[int, ...]:
    return tuple(range(len(_space(x, y, contract=contract, batch=batch)) - len(contract[0])))


def _outer(x: ShapedArray, y: ShapedArray, *, contract: Any, batch: Any) -> bool:
    return not contract[0]


def _outer_read(r: Any, i: Sequence[Any], x: Any, y: Any, *, contract: Any, batch: Any) -> Any:
    return _product(r, i, x, y, contract=contract, batch=batch)


_TINY = 512  # products of a contraction that needs no library


def _short(x: ShapedArray, y: ShapedArray, *, contract: Any, batch: Any) -> bool:
    """Whether a contraction is small, or reads each operand once: then a loop is as good as a library."""
    space = _space(x, y, contract=contract, batch=batch)
    free_x, free_y = _axes_of(x, y, contract, batch)
    rows = math.prod(x.shape[a] for a in free_x)
    columns = math.prod(y.shape[a] for a in free_y)
    return x.dtype.kind in "fiub" and (math.prod(space) <= _TINY or rows == columns == 1 or x.dtype.kind != "f")


outer = Indexed(_outer, _outer_read)
contraction = Reduction(_short, "add", _space, _product, _kept)
