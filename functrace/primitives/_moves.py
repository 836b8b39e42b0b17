"""How primitives that move, gather or reduce elements are compiled; see `core.lowering`.

`r` reads elements of operands, `i` is the index of the output's element: a sequence of integer expressions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.lowering import Indexed, Reduction
from functrace.core.types import ShapedArray

__all__ = ["reduction"]

_INDEX, _BOOL = np.dtype(np.intp), np.dtype(np.bool_)


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
    source, masks = [], []
    for k, lo, gap, n in zip(i, low, interior, x.aval.shape, strict=True):
        position, mask = _lattice(r, k, lo, n, gap + 1)
        if position is None:
            return r.constant(0, x.aval.dtype)
        source.append(position)
        masks += mask
    return _where(r, masks, lambda: r.read(x, source), lambda: r.constant(0, x.aval.dtype))


def _lattice(r: Any, k: Any, start: int, count: int, step: int) -> tuple[Any, list[Any]]:
    """Which of the points start, start + step ... an index is, if it is one, and masks of where it is one.

    None if it is nowhere.
    """
    if not count or not r.within(k, start, start + (count - 1) * step + 1):
        return None, []
    position = k - start
    if step == 1:
        return position, []
    divided = r.every(position, step)
    if divided is None:
        # Vectors divide by a constant quickly when they are of narrow integers.
        number = r.number(position, np.dtype(np.uint32 if count * step < 2**31 else np.uint64))
        quotient = r.apply(lambda e, n: e.quotient(n, step), number, dtype=number.dtype)
        mask = r.apply(lambda e, n, q: n - q * step == 0, number, quotient, dtype=_BOOL)
        return r.apply(lambda e, q: e.convert(q, _INDEX), quotient, dtype=_INDEX), [mask]
    position, inside = divided
    return (position, []) if inside else (None, [])


def _where(r: Any, masks: list[Any], inside: Callable[[], Any], outside: Callable[[], Any]) -> Any:
    """What is inside where all masks hold, else what is outside."""
    if not masks:
        return inside()
    mask = masks[0]
    for other in masks[1:]:
        mask = r.apply(lambda e, p, q: p & q, mask, other, dtype=_BOOL)
    found = inside()
    return r.apply(lambda e, m, p, q: e.select(m, p, q), mask, found, outside(), dtype=found.dtype)


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


def _part(r: Any, i: Sequence[Any], at: Any) -> tuple[list[Any] | None, list[Any]]:
    """The place in the part `at` of an element of the whole, None if it is outside; and masks of where it is inside."""
    inner, masks = [], []
    # One number is in registers anyway: a comparison with its place is cheaper than loops around it.
    number = len(at) == len(i) > 0 and all(type(entry) is int for entry in at) and r.varies(i)
    for k, entry in zip(i, at, strict=False):
        if type(entry) is int:
            if not number and not r.within(k, entry, entry + 1):
                return None, []
            if number:
                masks.append(r.apply(lambda e, n, entry=entry: n == entry, r.number(k, _INDEX), dtype=_BOOL))
            continue
        start, stop, step = entry
        position, mask = _lattice(r, k, start, len(range(start, stop, step)), step)
        if position is None:
            return None, []
        inner.append(position)
        masks += mask
    return [*inner, *i[len(at) :]], masks


def _place(r: Any, i: Sequence[Any], x: Any, *, at: Any, shape: tuple[int, ...]) -> Any:
    inner, masks = _part(r, i, at)
    if inner is None:
        return r.constant(0, x.aval.dtype)
    return _where(r, masks, lambda: r.read(x, inner), lambda: r.constant(0, x.aval.dtype))


def _update(r: Any, i: Sequence[Any], x: Any, v: Any, *, at: Any) -> Any:
    inner, masks = _part(r, i, at)
    if inner is None:
        return r.read(x, i)
    return _where(r, masks, lambda: r.read(v, inner), lambda: r.read(x, i))


def _gather(r: Any, i: Sequence[Any], x: Any, *indices: Any, axes: tuple[int, ...], **params: Any) -> Any:
    count = len(indices[0].aval.shape)
    lead, rest = list(i[:count]), iter(i[count:])
    shape = x.aval.shape
    found = {a: r.position(index, lead, shape[a]) for a, index in zip(axes, indices, strict=True)}
    return r.read(x, [found[a] if a in found else next(rest) for a in range(len(shape))])


def _searchsorted(r: Any, i: Sequence[Any], a: Any, v: Any, *, side: str) -> Any:
    """By bisection: as many elements as a power of 2 are skipped, or not, from the largest power down; NaN is last."""
    length, rows = a.aval.shape[-1], list(i[: len(a.aval.shape) - 1])
    value, low = r.read(v, i), r.constant(0, _INDEX)

    def comes_before(e: Any, x: Any, y: Any) -> Any:
        return (x < y) | ((y != y) & (x == x)) if x.dtype.kind == "f" else x < y

    def goes_on(e: Any, n: Any, x: Any, y: Any, step: int) -> Any:
        before = comes_before(e, x, y) if side == "left" else ~comes_before(e, y, x)
        return e.select(before & (n + step <= length), n + step, n)

    for bit in reversed(range(length.bit_length())):
        step = 1 << bit
        probe = r.apply(lambda e, n, step=step: e.select(n + step <= length, n + (step - 1), 0), low, dtype=_INDEX)
        found = r.read(a, [*rows, probe])
        low = r.apply(lambda e, n, x, y, step=step: goes_on(e, n, x, y, step), low, found, value, dtype=_INDEX)
    return low


broadcast = Indexed(read=_broadcast)
reshape = Indexed(read=_reshape)
transpose = Indexed(read=_transpose)
reverse = Indexed(read=_reverse)
slice_ = Indexed(read=_slice)
pad = Indexed(lambda x, *, low, high, interior: min((*low, *high, 0)) >= 0, _pad)
concatenate = Indexed(read=_concatenate)
stack = Indexed(read=_stack)
index = Indexed(read=_index)
place = Indexed(read=_place)
update = Indexed(read=_update)
searchsorted = Indexed(lambda a, v, *, side: a.dtype == v.dtype and a.dtype.kind in "fiub", _searchsorted, 60.0)
gather = Indexed(read=_gather)
full = Indexed(read=lambda r, i, *, shape, value, dtype: r.constant(value, dtype))
iota = Indexed(
    read=lambda r, i, *, length, dtype: r.number(i[0], dtype), suits=lambda *, length, dtype: dtype.kind in "iufc"
)


def _reducible(combine: str, x: ShapedArray) -> bool:
    """Whether a reduction in the operand's own dtype is right: halves are summed in single precision."""
    plain = combine in ("add", "mul", "and", "or")
    return x.dtype.name != "float16" and x.dtype.kind in ("fiubc" if plain else "fiub") and (plain or bool(x.size))


def reduction(combine: str, suits: Any = None) -> Reduction:
    """The lowering of a reduction of one operand over `axes`."""
    return Reduction(
        suits or (lambda x, *, axes: _reducible(combine, x)),
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
    """Whether each element is one product."""
    return all(x.shape[a] == 1 for a in contract[0])


def _outer_read(r: Any, i: Sequence[Any], x: Any, y: Any, *, contract: Any, batch: Any) -> Any:
    return _product(r, [*i, *(r.fixed(0) for _ in contract[0])], x, y, contract=contract, batch=batch)


_TINY, _TINY_BY_VECTOR = 512, 64  # products of a contraction that needs no library


def _short(x: ShapedArray, y: ShapedArray, *, contract: Any, batch: Any) -> bool:
    """Whether a contraction is small, or reads each operand once: then a loop is as good as a library."""
    space = _space(x, y, contract=contract, batch=batch)
    free_x, free_y = _axes_of(x, y, contract, batch)
    rows = math.prod(x.shape[a] for a in free_x)
    columns = math.prod(y.shape[a] for a in free_y)
    real = x.dtype.kind in "fc"
    whole = x.dtype.kind in "fiubc" and x.dtype.name != "float16"
    return whole and (_is_tiny(x, rows, columns, math.prod(space)) or rows == columns == 1 or not real)


def _is_tiny(x: ShapedArray, rows: int, columns: int, products: int) -> bool:
    """Whether there is nothing to gain by more than a loop; for a matrix and a vector there is code of our own."""
    by_vector = x.dtype.name in ("float32", "float64") and min(rows, columns) == 1
    return products <= (_TINY_BY_VECTOR if by_vector else _TINY)


outer = Indexed(_outer, _outer_read, 1.0)
contraction = Reduction(_short, "add", _space, _product, _kept)

# A matrix times a vector reads the matrix once, so a loop is as good as a library, and what computes the matrix can be
# fused with it. The innermost axis of the loop is that of the matrix.


def _matrix_is_right(x: ShapedArray, y: ShapedArray) -> bool:
    return y.size >= x.size


def _sums_last(x: ShapedArray, y: ShapedArray, contract: Any) -> bool:
    """Whether the last axis of the larger operand is summed over."""
    return y.ndim - 1 in contract[1] if _matrix_is_right(x, y) else x.ndim - 1 in contract[0]


def _by_vector(sums_last: bool) -> Any:
    def suits(x: ShapedArray, y: ShapedArray, *, contract: Any, batch: Any) -> bool:
        free_x, free_y = _axes_of(x, y, contract, batch)
        vector = 1 in (math.prod(x.shape[a] for a in free_x), math.prod(y.shape[a] for a in free_y))
        return vector and bool(contract[0]) and x.dtype.kind == "f" and _sums_last(x, y, contract) == sums_last

    return suits


def _summed_before_last(x: ShapedArray, y: ShapedArray, *, contract: Any, batch: Any) -> tuple[int, ...]:
    """The space with the summed axes before the last one that is kept."""
    space = _space(x, y, contract=contract, batch=batch)
    kept = len(space) - len(contract[0])
    return (*space[: kept - 1], *space[kept:], space[kept - 1])


def _product_before_last(r: Any, i: Sequence[Any], x: Any, y: Any, *, contract: Any, batch: Any) -> Any:
    summed = len(contract[0])
    kept = len(i) - summed
    index = [*i[: kept - 1], i[-1], *i[kept - 1 : -1]]
    return _product(r, index, x, y, contract=contract, batch=batch)


def _kept_but_summed(x: ShapedArray, y: ShapedArray, *, contract: Any, batch: Any) -> tuple[int, ...]:
    space = _space(x, y, contract=contract, batch=batch)
    kept = len(space) - len(contract[0])
    return (*range(kept - 1), len(space) - 1)


def _last_is_kept(x: ShapedArray, y: ShapedArray, *, contract: Any, batch: Any) -> bool:
    """Whether the last axis that is kept is that of the larger operand."""
    free_x, free_y = _axes_of(x, y, contract, batch)
    last = bool(free_y) if _matrix_is_right(x, y) else bool(free_x) and not free_y
    return last and _by_vector(False)(x, y, contract=contract, batch=batch)


by_vector = (
    Reduction(_by_vector(True), "add", _space, _product, _kept),
    Reduction(_last_is_kept, "add", _summed_before_last, _product_before_last, _kept_but_summed),
)
