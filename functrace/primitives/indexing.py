"""Primitives that read and write parts of an array.

Basic indices are static. `at` has one entry per leading axis: an integer, which removes the axis, or a triple
(start, stop, step) with a positive step. `index` reads the part, `place` puts one into zeros (each is the other's
transpose), `update` replaces it.

Integer index arrays are operands: `indices` of one shape I index the axes `axes` of x. `gather` reads; its result has
shape I followed by the other axes R of x in order. The scatter family writes updates of shape I + R. Indices must be in
range, not negative, and one array per axis; `unique=True` promises that no position is written twice. Where one is,
`scatter_set` keeps the last update (in C order), the others take all updates into account. The scatters that are not
linear stand in `scatter`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.ir import Literal, Var
from functrace.core.primitive import Primitive, is_linear
from functrace.core.structure import moves
from functrace.core.types import ShapedArray, aval_of
from functrace.core.work import Layout, Rule, View, Work, counted, moving, viewing
from functrace.primitives import _fast, _moves, _scatters, kinks
from functrace.primitives._structures import gathered, scattered
from functrace.primitives.elementwise import equal, select, zero_of
from functrace.primitives.families import broadcast, reshape, unwrap
from functrace.primitives.linear import linear
from functrace.primitives.shape import full, iota, range_text, transpose, zeros

__all__ = [
    "At",
    "combine_at",
    "gather",
    "index",
    "place",
    "scatter_add",
    "scatter_aval",
    "scatter_batch",
    "scatter_cost",
    "scatter_impl",
    "scatter_set",
    "searchsorted",
    "update",
    "with_batch",
]

#: A static basic index: integers and (start, stop, step) triples for the leading axes.
At = tuple[Any, ...]

_INDEX = np.dtype(np.intp)


# basic indices


def _numpy_key(at: At) -> tuple[Any, ...]:
    for entry in at:
        if type(entry) is not int:
            return tuple([e if type(e) is int else slice(*e) for e in at])
    return at


def _part_shape(shape: tuple[int, ...], at: At) -> tuple[int, ...]:
    kept = tuple([len(range(*entry)) for entry in at if type(entry) is not int])
    return kept + shape[len(at) :]


def _part_strides(x: Layout, *, at: At) -> tuple[int, ...]:
    leading = [s * entry[2] for s, entry in zip(x.strides, at, strict=False) if type(entry) is not int]
    return (*leading, *x.strides[len(at) :])


def _place_impl(x: Any, *, at: At, shape: tuple[int, ...]) -> np.ndarray:
    out = np.zeros(shape, x.dtype)
    out[_numpy_key(at)] = x
    return out


def _index_accumulate(buffer: np.ndarray, bar: Any, x: Any, *, at: At) -> None:
    buffer[_numpy_key(at)] += bar


def _index_text(at: At) -> str:
    return ", ".join(str(entry) if type(entry) is int else range_text(*entry) for entry in at)


index = linear(
    "index",
    lambda x, *, at: x[_numpy_key(at)],
    lambda aval, *, at: ShapedArray(_part_shape(aval.shape, at), aval.dtype),
    lambda bar, aval, *, at: place(bar, at=at, shape=aval.shape),
    lambda size, x, *, at: index(x, at=((0, size, 1), *at)),
    accumulate=_index_accumulate,
    moving_elements=True,
    cost=viewing(_part_strides),
    formula=lambda x, *, at: f"x[{_index_text(at)}]" if at else "x",
    lower=_moves.index,
)
place = linear(
    "place",
    _place_impl,
    lambda aval, *, at, shape: ShapedArray(shape, aval.dtype),
    lambda bar, aval, *, at, shape: index(bar, at=at),
    lambda size, x, *, at, shape: place(x, at=((0, size, 1), *at), shape=(size, *shape)),
    formula=lambda x, *, at, shape: f"place(x, {_index_text(at)})" if all(type(e) is int for e in at) and at else None,
    moving_elements=True,
    lower=_moves.place,
)


# writing: primitives linear in their first and last operands together


def _jointly_linear(name: str, impl: Any, abstract_eval: Any, transposed: Any, batch: Any, **rules: Any) -> Primitive:
    """A primitive linear in (first, last) operand, those between being indices.

    Args:
        transposed: a record's transpose rule.
        rules: further rules of the record.
    """

    def jvp(primals: list[Any], tangents: list[Any], **params: Any) -> tuple[list[Any], list[Any]]:
        out = primitive.bind(*primals, **params)
        filled = [*primals]
        for i in (0, -1):
            filled[i] = zeros(aval_of(primals[i])) if tangents[i] is None else tangents[i]
        return [out], [primitive.bind(*filled, **params)]

    def linearize(
        record: Callable[..., Var], primals: list[Any], tangents: list[Var | None], **params: Any
    ) -> tuple[list[Any], list[Var | None]]:
        out = primitive.bind(*primals, **params)
        atoms: list[Any] = [Literal(p) for p in primals]
        for i in (0, -1):
            tangent = tangents[i]
            atoms[i] = Literal(zeros(aval_of(primals[i]))) if tangent is None else tangent
        return [out], [record(primitive, atoms, aval_of(out), params)]

    primitive = Primitive(
        name,
        impl,
        abstract_eval,
        jvp=jvp,
        linearize=linearize,
        transpose=transposed,
        batch=batch,
        family="indexing",
        masks="structural",
        **rules,
    )
    return primitive


def _update_impl(x: Any, v: Any, *, at: At) -> np.ndarray:
    out = x.copy()
    out[_numpy_key(at)] = v
    return out


def _update_transpose(bars: list[Any], x: Any, v: Any, *, at: At) -> list[Any]:
    bar = bars[0]
    part = index(bar, at=at) if is_linear(v) else None
    if not is_linear(x):
        return [None, part]
    return [update(bar, zeros(aval_of(v) if part is None else v.aval), at=at), part]


def with_batch(size: int, value: Any, batched: bool) -> Any:
    """The value with a leading batch axis."""
    if batched:
        return value
    shape = aval_of(value).shape
    return broadcast(value, shape=(size, *shape), axes=tuple(range(1, 1 + len(shape))))


def _update_batch(size: int, values: list[Any], batched: list[bool], *, at: At) -> tuple[list[Any], list[bool]]:
    x, v = (with_batch(size, value, b) for value, b in zip(values, batched, strict=True))
    return [update(x, v, at=((0, size, 1), *at))], [True]


update = _jointly_linear(
    "update",
    _update_impl,
    lambda x, v, *, at: x,
    _update_transpose,
    _update_batch,
    sparsity=moves(_update_impl),
    cost=moving,
    lower=_moves.update,
)


# reading at index arrays


def _axes_first(axes: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """The permutation that brings the indexed axes to the front."""
    return (*axes, *(a for a in range(ndim) if a not in axes))


def _gather_impl(x: Any, *indices: Any, axes: tuple[int, ...], unique: bool) -> Any:
    if axes == (0,):
        return x.take(indices[0], axis=0)
    out = _fast.gather(x, indices, axes)
    if out is not None:
        return out
    return unwrap(x.transpose(_axes_first(axes, x.ndim))[indices])


def _gathered_shape(shape: tuple[int, ...], index_shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return (*index_shape, *(n for a, n in enumerate(shape) if a not in axes))


def _cost_gather(
    operands: Sequence[Layout], outs: Sequence[ShapedArray], *, axes: tuple[int, ...], unique: bool
) -> Work:
    """The part read, not the whole; a row of one scalar index is a view."""
    read = outs[0].size * outs[0].dtype.itemsize + sum(i.distinct for i in operands[1:])
    x, indices = operands[0], operands[1:]
    if axes != (0,) and not any(i.shape for i in indices) and outs[0].ndim:
        rest = tuple(s for a, s in enumerate(x.strides) if a not in axes)
        return Work(read=0, written=0, results=[View(0, rest)])
    return Work(read=read)


def _gather_jvp(
    primals: list[Any], tangents: list[Any], *, axes: tuple[int, ...], unique: bool
) -> tuple[list[Any], list[Any]]:
    x, *indices = primals
    out = gather(x, *indices, axes=axes, unique=unique)
    return [out], [gather(tangents[0], *indices, axes=axes, unique=unique)]


def _gather_linearize(
    record: Callable[..., Var], primals: list[Any], tangents: list[Any], **params: Any
) -> tuple[list[Any], list[Var]]:
    out = gather.bind(*primals, **params)
    return [out], [record(gather, [tangents[0], *map(Literal, primals[1:])], aval_of(out), params)]


def _gather_transpose(bars: list[Any], x: Any, *indices: Any, axes: tuple[int, ...], unique: bool) -> list[Any]:
    x_bar = scatter_add(zeros(x.aval), *indices, bars[0], axes=axes, unique=unique)
    return [x_bar, *(None for _ in indices)]


def _gather_accumulate(
    buffer: np.ndarray, bar: Any, x: Any, *indices: Any, axes: tuple[int, ...], unique: bool
) -> None:
    _combine_at(np.add, buffer, indices, bar, axes, unique)


def _shifted(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple([a + 1 for a in axes])


def _batched_indices(size: int, indices: list[Any], batched: list[bool]) -> list[Any]:
    """Index arrays with a leading batch axis, led by one that counts along it."""
    indices = [with_batch(size, i, b) for i, b in zip(indices, batched, strict=True)]
    return [broadcast(iota(length=size, dtype=_INDEX), shape=indices[0].shape, axes=(0,)), *indices]


def _move_leading(x: Any, position: int) -> Any:
    """The leading axis moved behind the next `position` axes."""
    rest = range(1, len(x.shape))
    return transpose(x, permutation=(*rest[:position], 0, *rest[position:])) if position else x


def _gather_batch(
    size: int, values: list[Any], batched: list[bool], *, axes: tuple[int, ...], unique: bool
) -> tuple[list[Any], list[bool]]:
    x, *indices = values
    if not any(batched[1:]):
        out = gather(x, *indices, axes=_shifted(axes), unique=unique)
        position = len(aval_of(indices[0]).shape)
        order = (position, *(a for a in range(len(out.shape)) if a != position))
        return [transpose(out, permutation=order) if position else out], [True]
    if batched[0]:
        indices = _batched_indices(size, indices, batched[1:])
        return [gather(x, *indices, axes=(0, *_shifted(axes)), unique=unique)], [True]
    indices = [with_batch(size, i, b) for i, b in zip(indices, batched[1:], strict=True)]
    return [gather(x, *indices, axes=axes, unique=False)], [True]


gather = Primitive(
    "gather",
    _gather_impl,
    lambda x, *indices, axes, unique: ShapedArray(_gathered_shape(x.shape, indices[0].shape, axes), x.dtype),
    jvp=_gather_jvp,
    linearize=_gather_linearize,
    transpose=_gather_transpose,
    accumulate=_gather_accumulate,
    batch=_gather_batch,
    family="indexing",
    masks="structural",
    sparsity=gathered,
    cost=_cost_gather,
    lower=_moves.gather,
)


# writing at index arrays


def scatter_impl(combine: np.ufunc | None) -> Callable[..., Any]:
    """Evaluation of a scatter: updates combined by a ufunc, or replacing when None."""

    def impl(x: Any, *operands: Any, axes: tuple[int, ...], unique: bool) -> np.ndarray:
        *indices, updates = operands
        out = x.copy()
        if combine is not None:
            _combine_at(combine, out, tuple(indices), updates, axes, unique)
            return out
        if _fast.scatter(None, out, operands[:-1], operands[-1], axes):
            return out
        view = out.transpose(_axes_first(axes, out.ndim))
        count = np.size(indices[0])  # one-dimensional index arrays fix the order in which NumPy writes
        updates = np.reshape(updates, (count, *view.shape[len(axes) :]))
        view[tuple([np.reshape(i, count) for i in indices])] = updates
        return out

    return impl


def _combine_at(
    combine: np.ufunc, out: np.ndarray, indices: tuple[Any, ...], updates: Any, axes: tuple[int, ...], unique: bool
) -> None:
    """`combine.at(out, ..., updates)`, `out` being C-contiguous; on flat arrays, for which NumPy has fast loops."""
    if _fast.scatter(combine, out, indices, updates, axes):
        return
    view = out if axes == (0,) else out.transpose(_axes_first(axes, out.ndim))
    if unique or not np.ndim(indices[0]):
        view[indices] = combine(view[indices], updates)
        return
    if not updates.size:
        return
    positions = np.zeros((), _INDEX)
    for axis, (length, stride) in enumerate(zip(view.shape, view.strides, strict=True)):
        if axis < len(indices):
            along = indices[axis]
        else:
            along, positions = np.arange(length), positions[..., None]
        positions = positions + along * (stride // out.itemsize)
    combine_at(combine, out.reshape(-1), positions.ravel(), updates.ravel())


def combine_at(ufunc: np.ufunc, x: np.ndarray, key: Any, values: Any) -> None:
    """`ufunc.at(x, key, values)`, without the warning of a NaN that minimum and maximum give only there."""
    if ufunc in (np.minimum, np.maximum):
        with np.errstate(invalid="ignore"):
            ufunc.at(x, key, values)
    else:
        ufunc.at(x, key, values)


def scatter_cost(flops: tuple[int, int]) -> Rule:
    """Of a scatter that combines by an operation of so many flops, of reals and of complex numbers."""

    def cost(operands: Sequence[Layout], outs: Sequence[ShapedArray], *, axes: tuple[int, ...], unique: bool) -> Work:
        updates = operands[-1]
        held = 2 * updates.bytes if unique or not operands[1].shape else (_INDEX.itemsize * updates.size)
        return Work(flops[outs[0].dtype.kind == "c"] * updates.size, scratch=held)

    return cost


def scatter_batch(primitive: Callable[[], Primitive]) -> Callable[..., Any]:
    def batch(
        size: int, values: list[Any], batched: list[bool], *, axes: tuple[int, ...], unique: bool
    ) -> tuple[list[Any], list[bool]]:
        x, *indices, updates = values
        rank = len(aval_of(indices[0]).shape) - batched[1]
        x, updates = with_batch(size, x, batched[0]), with_batch(size, updates, batched[-1])
        if any(batched[1:-1]):
            indices = _batched_indices(size, indices, batched[1:-1])
            axes = (0, *_shifted(axes))
        else:
            updates = _move_leading(updates, rank)
            axes = _shifted(axes)
        return [primitive()(x, *indices, updates, axes=axes, unique=unique)], [True]

    return batch


def _across(flags: Any, like: ShapedArray) -> Any:
    """An array over index positions, repeated over the remaining axes of the updates."""
    rank = len(aval_of(flags).shape)
    return broadcast(flags, shape=like.shape, axes=tuple(range(rank))) if rank < like.ndim else flags


def _is_last(indices: tuple[Any, ...], sizes: tuple[int, ...]) -> Any:
    """Per index position, whether no later one writes to the same place."""
    shape = aval_of(indices[0]).shape
    number = reshape(iota(length=math.prod(shape), dtype=_INDEX), shape=shape)
    axes = tuple(range(len(sizes)))
    latest = scatter_set(full(shape=sizes, value=-1, dtype=_INDEX), *indices, number, axes=axes, unique=False)
    return equal(gather(latest, *indices, axes=axes, unique=False), number)


def _set_transpose(bars: list[Any], x: Any, *operands: Any, axes: tuple[int, ...], unique: bool) -> list[Any]:
    *indices, updates = operands
    bar, x_bar, u_bar = bars[0], None, None
    updates_aval = updates.aval if is_linear(updates) else aval_of(updates)
    if is_linear(updates):
        u_bar = gather(bar, *indices, axes=axes, unique=unique)
        if not unique and updates_aval.size > 1:
            written = _is_last(tuple(indices), tuple(bar.shape[a] for a in axes))
            u_bar = select(_across(written, updates_aval), u_bar, zero_of(bar))
    if is_linear(x):
        x_bar = scatter_set(bar, *indices, zeros(updates_aval), axes=axes, unique=unique)
    return [x_bar, *(None for _ in indices), u_bar]


def _add_transpose(bars: list[Any], x: Any, *operands: Any, axes: tuple[int, ...], unique: bool) -> list[Any]:
    *indices, updates = operands
    u_bar = gather(bars[0], *indices, axes=axes, unique=unique) if is_linear(updates) else None
    return [bars[0] if is_linear(x) else None, *(None for _ in indices), u_bar]


def scatter_aval(x: ShapedArray, *operands: ShapedArray, axes: tuple[int, ...], unique: bool) -> ShapedArray:
    return x


scatter_set = _jointly_linear(
    "scatter_set",
    scatter_impl(None),
    scatter_aval,
    _set_transpose,
    scatter_batch(lambda: scatter_set),
    sparsity=scattered(replaces=scatter_impl(None)),
    cost=moving,
    lower=_scatters.scatter(None, "fiubc"),
)
scatter_add = _jointly_linear(
    "scatter_add",
    scatter_impl(np.add),
    scatter_aval,
    _add_transpose,
    scatter_batch(lambda: scatter_add),
    sparsity=scattered(),
    cost=scatter_cost((1, 2)),
    lower=_scatters.scatter(lambda e, old, new: old + new, "fiubc"),
)


# searching


def _searchsorted_impl(a: Any, v: Any, *, side: str) -> Any:
    if a.ndim == 1:
        return unwrap(np.asarray(a.searchsorted(v, side)))
    return np.stack([row.searchsorted(values, side) for row, values in zip(a, v, strict=True)])


def _searchsorted_aval(a: ShapedArray, v: ShapedArray, *, side: str) -> ShapedArray:
    return ShapedArray(v.shape, _INDEX)


def _searchsorted_flops(operands: Sequence[Layout], outs: Sequence[ShapedArray], *, side: str) -> int:
    """Comparisons of a binary search."""
    return outs[0].size * operands[0].shape[-1].bit_length()


def _searchsorted_batch(
    size: int, values: list[Any], batched: list[bool], *, side: str
) -> tuple[list[Any], list[bool]]:
    a, v = values
    lead = len(a.shape) - 1 - batched[0]  # batch axes that both have already
    if not batched[0] and not lead:
        return [searchsorted(a, v, side=side)], [True]
    a, v = with_batch(size, a, batched[0]), with_batch(size, v, batched[1])
    if not lead:
        return [searchsorted(a, v, side=side)], [True]
    rows, queries = a.shape, v.shape
    a = reshape(a, shape=(rows[0] * rows[1], rows[2]))
    v = reshape(v, shape=(queries[0] * queries[1], *queries[2:]))
    return [reshape(searchsorted(a, v, side=side), shape=queries)], [True]


#: Where to insert values v into the sorted a, of one axis, or of two: then row by row, v having that leading axis too.
searchsorted = Primitive(
    "searchsorted",
    _searchsorted_impl,
    _searchsorted_aval,
    batch=_searchsorted_batch,
    family="indexing",
    nondifferentiable=True,
    kink=kinks.insertion(),
    cost=counted(_searchsorted_flops),
    lower=_moves.searchsorted,
)
