"""Scatters that are not linear in x and updates together: products and extrema.

Operands and params are those of the scatters in `indexing`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.core.primitive import Kink, Primitive, is_linear
from functrace.core.types import ShapedArray, aval_of
from functrace.core.work import counted
from functrace.primitives import _scatters
from functrace.primitives._structures import scattered
from functrace.primitives.elementwise import attains, convert, div, select, zero_of
from functrace.primitives.families import mul, reshape
from functrace.primitives.indexing import (
    gather,
    scatter_add,
    scatter_aval,
    scatter_batch,
    scatter_cost,
    scatter_impl,
    with_batch,
)
from functrace.primitives.shape import concatenate, full, zeros

__all__ = ["neighbours", "scatter_max", "scatter_min", "scatter_multiply"]

_INDEX = np.dtype(np.intp)


# products: the derivative by one factor is the product of the others, exact also where factors are zero


def _neighbours_impl(*indices: Any, sizes: tuple[int, ...], lead: int, following: bool) -> np.ndarray:
    shape = np.shape(indices[0])
    batch, count = shape[:lead], math.prod(shape[lead:])
    examples = math.prod(batch)
    links = np.full(examples * count, count, _INDEX)
    if links.size:
        place_of = np.ravel_multi_index(tuple(map(np.asarray, indices)), sizes).reshape(examples, count)
        place_of = (place_of + np.arange(examples)[:, None] * math.prod(sizes)).ravel()
        order = np.argsort(place_of, kind="stable")
        same = np.flatnonzero(np.diff(place_of[order]) == 0)
        earlier, later = order[same], order[same + 1]
        if following:
            links[earlier] = later % count
        else:
            links[later] = earlier % count
    return links.reshape(*batch, count)


def _neighbours_aval(*indices: ShapedArray, sizes: tuple[int, ...], lead: int, following: bool) -> ShapedArray:
    shape = indices[0].shape
    return ShapedArray((*shape[:lead], math.prod(shape[lead:])), _INDEX)


def _neighbours_batch(
    size: int, values: list[Any], batched: list[bool], *, sizes: tuple[int, ...], lead: int, following: bool
) -> tuple[list[Any], list[bool]]:
    indices = [with_batch(size, v, b) for v, b in zip(values, batched, strict=True)]
    return [neighbours(*indices, sizes=sizes, lead=lead + 1, following=following)], [True]


#: Per index position (flat, behind `lead` batch axes) the next one before or after it at the same place, or the number
#: of positions where there is none.
neighbours = Primitive(
    "neighbours",
    _neighbours_impl,
    _neighbours_aval,
    batch=_neighbours_batch,
    family="indexing",
    nondifferentiable=True,
    cost=counted(lambda operands, outs, **params: outs[0].size * outs[0].size.bit_length()),
)


def _exclusive_products(factors: Any, indices: tuple[Any, ...], sizes: tuple[int, ...], following: bool) -> Any:
    """Per index position, the product of the factors of all earlier (or later) positions at the same place.

    Pointer jumping: each round doubles the reach of every link, so that rounds grow as the logarithm of the count.
    """
    count = factors.shape[0]
    one = full(shape=(1, *factors.shape[1:]), value=1, dtype=factors.dtype)
    end = full(shape=(1,), value=count, dtype=_INDEX)
    first = neighbours(*indices, sizes=sizes, lead=0, following=following)
    link, total = concatenate(first, end, axis=0), concatenate(factors, one, axis=0)
    for _ in range((count - 1).bit_length()):
        total = mul(total, gather(total, link, axes=(0,), unique=False))
        link = gather(link, link, axes=(0,), unique=False)
    return gather(total, first, axes=(0,), unique=False)


def _multiply_jvp(
    primals: list[Any], tangents: list[Any], *, axes: tuple[int, ...], unique: bool
) -> tuple[list[Any], list[Any]]:
    x, *indices, factors = primals
    params = {"axes": axes, "unique": unique}
    out = scatter_multiply(x, *indices, factors, **params)
    total = None
    if tangents[0] is not None:
        total = scatter_multiply(tangents[0], *indices, factors, **params)
    if tangents[-1] is not None:
        others = gather(x, *indices, **params)
        count = math.prod(aval_of(indices[0]).shape)
        if not unique and count > 1:
            sizes = tuple(x.shape[a] for a in axes)
            flat = reshape(factors, shape=(count, *factors.shape[len(aval_of(indices[0]).shape) :]))
            for following in (False, True):
                product = _exclusive_products(flat, tuple(indices), sizes, following)
                others = mul(others, reshape(product, shape=factors.shape))
        base = zeros(aval_of(out)) if total is None else total
        total = scatter_add(base, *indices, mul(others, tangents[-1]), **params)
    return [out], [total]


def _multiply_transpose(bars: list[Any], x: Any, *operands: Any, axes: tuple[int, ...], unique: bool) -> list[Any]:
    *indices, factors = operands
    params = {"axes": axes, "unique": unique}
    if is_linear(factors):  # only where no place repeats; the derivative rule never needs it
        return [None, *(None for _ in indices), gather(mul(bars[0], x), *indices, **params)]
    return [scatter_multiply(bars[0], *operands, **params), *(None for _ in operands)]


scatter_multiply = Primitive(
    "scatter_multiply",
    scatter_impl(np.multiply),
    scatter_aval,
    jvp=_multiply_jvp,
    transpose=_multiply_transpose,
    batch=scatter_batch(lambda: scatter_multiply),
    family="indexing",
    sparsity=scattered(products=True),
    cost=scatter_cost((1, 6)),
    lower=_scatters.scatter(lambda e, old, new: old * new, "fiubc"),
)


# extrema: the derivative goes to all operands that attain the extremum, in equal parts


def _extremum_jvp(primitive: Callable[[], Primitive]) -> Callable[..., Any]:
    def jvp(
        primals: list[Any], tangents: list[Any], *, axes: tuple[int, ...], unique: bool
    ) -> tuple[list[Any], list[Any]]:
        x, *indices, updates = primals
        params = {"axes": axes, "unique": unique}
        out = primitive()(x, *indices, updates, **params)
        zero = zero_of(out)
        x_attains = attains(x, out)
        u_attains = attains(updates, gather(out, *indices, **params))
        x_ones, u_ones = convert(x_attains, dtype=out.dtype), convert(u_attains, dtype=out.dtype)
        ties = scatter_add(x_ones, *indices, u_ones, **params)
        x_dot, u_dot = tangents[0], tangents[-1]
        total = zeros(aval_of(out)) if x_dot is None else select(x_attains, x_dot, zero)
        if u_dot is not None:
            total = scatter_add(total, *indices, select(u_attains, u_dot, zero), **params)
        return [out], [div(total, ties)]

    return jvp


def _competitors(primitive: Primitive, operands: Any, params: dict[str, Any]) -> tuple[Any, Any]:
    """Which elements and updates attain the extremum, on plain values."""
    x, *indices, updates = operands
    out = primitive.impl(*operands, **params)
    return x == out, updates == gather.impl(out, *indices, **params)


def _extremum_kink(primitive: Callable[[], Primitive], worst: float) -> Kink:
    """Where several attain the extremum: the fastest of them goes on."""

    def distance(*operands: Any, **params: Any) -> Any:
        x_attains, u_attains = _competitors(primitive(), operands, params)
        count = scatter_add.impl(x_attains.astype(float), *operands[1:-1], u_attains.astype(float), **params)
        return np.where(count > 1, 0.0, np.inf)

    def limit(operands: Any, dots: Any, **params: Any) -> tuple[Any, Any]:
        x_attains, u_attains = _competitors(primitive(), operands, params)
        speeds, others = np.where(x_attains, dots[0], worst), np.where(u_attains, dots[-1], worst)
        return primitive().impl(*operands, **params), primitive().impl(speeds, *operands[1:-1], others, **params)

    return Kink("tie", distance, limit)


def _extremum(name: str, ufunc: np.ufunc, itself: Callable[[], Primitive], worst: float) -> Primitive:
    return Primitive(
        name,
        scatter_impl(ufunc),
        scatter_aval,
        jvp=_extremum_jvp(itself),
        batch=scatter_batch(itself),
        family="indexing",
        kink=_extremum_kink(itself, worst),
        sparsity=scattered(),
        cost=scatter_cost((1, 1)),
        lower=_scatters.scatter(
            lambda e, old, new: e.combine("max" if ufunc is np.maximum else "min", old, new), "fiub"
        ),
    )


scatter_min = _extremum("scatter_min", np.minimum, lambda: scatter_min, np.inf)
scatter_max = _extremum("scatter_max", np.maximum, lambda: scatter_max, -np.inf)
