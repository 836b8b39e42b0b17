"""Discrete distributions: integers, truth values, choices and permutations, without derivatives in their parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.core.trace import Tracer
from functrace.errors import ArgumentError, DTypeError, ShapeError
from functrace.numpy._axes import as_index, as_lengths, normalize_axis
from functrace.numpy._promotion import as_array, broadcast_operands, cast, checked_dtype
from functrace.numpy.indexing import searchsorted, take, take_along_axis
from functrace.numpy.reductions import argmax, cumsum
from functrace.numpy.sorting import argsort
from functrace.primitives.elementwise import convert, greater, less, maximum, select
from functrace.primitives.random import random_bits
from functrace.random._continuous import exponential, gumbel
from functrace.random._keys import as_key, bits, result_shape, unit
from functrace.util import user_line

__all__ = ["bernoulli", "categorical", "choice", "permutation", "rademacher", "randint"]

Shape = int | Sequence[int]

_INT64, _UINT64 = np.dtype(np.int64), np.dtype(np.uint64)
_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_HALF, _SIGN, _LOWER = np.uint64(32), np.uint64(2**63), np.uint64(2**32 - 1)


# integers in an interval


def randint(key: Any, shape: Shape, minval: Any, maxval: Any, dtype: Any = int) -> Any:
    """Integers in [minval, maxval), all with the same probability to within 2**-64 (up to 32 bits wide: 2**-32).

    Args:
        key: a key.
        shape: the shape of the result.
        minval: the lowest integer; broadcasts to the shape.
        maxval: the end of the interval, which does not occur; broadcasts to the shape.
        dtype: any integer dtype.

    Raises:
        ArgumentError: the interval is known to be empty or to go beyond the dtype. Traced bounds of an empty interval
            give minval.
        DTypeError: dtype or bounds are not integers.

    Example:
        >>> from functrace import random
        >>> random.randint(random.key(42), (8,), 0, 10)
        array([4, 0, 5, 7, 6, 6, 6, 5])
    """
    key, found = as_key(key), _integer_dtype(dtype)
    if _is_integer(minval) and _is_integer(maxval):
        shape, low, count = as_lengths(shape), int(minval), int(maxval) - int(minval)
        _check_interval(found, low, int(maxval), low, int(maxval))
        start = np.uint64(low + 2**63 if found.kind == "i" else low)
        offset = _below(key, shape, found, None if count == 2**64 else np.uint64(count))
    else:
        bounds = [as_array(minval), as_array(maxval)]
        shape = result_shape("randint", shape, minval=bounds[0].shape, maxval=bounds[1].shape)
        start, end = _bounds(bounds, found)
        offset = _below(key, shape, found, maximum(*broadcast_operands([start, end])) - start)
    drawn = start + offset
    if found.kind == "i":
        drawn = convert(drawn ^ _SIGN, dtype=_INT64)
    return drawn if drawn.dtype == found else convert(drawn, dtype=found)


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and type(value) is not bool


def _integer_dtype(dtype: Any) -> np.dtype:
    found = checked_dtype(dtype)
    if found.kind in "iu":
        return found
    raise DTypeError(
        "random.randint makes integers",
        where=user_line(),
        got=f"dtype={found}",
        remedy="use an integer dtype, or functrace.random.uniform for floating point numbers",
    )


def _bounds(bounds: list[Any], dtype: np.dtype) -> list[Any]:
    """Arrays of integers as 64-bit unsigned ones in the same order."""
    for bound in bounds:
        if bound.dtype.kind not in "iu":
            raise DTypeError(
                "random.randint takes integer bounds",
                where=user_line(),
                got=f"minval of dtype {bounds[0].dtype}, maxval of dtype {bounds[1].dtype}",
                remedy="convert them with .astype(int)",
            )
    if not any(isinstance(bound, Tracer) for bound in bounds) and bounds[0].size and bounds[1].size:
        low, high = bounds
        worst = np.subtract(*np.broadcast_arrays(high.astype(object), low.astype(object))).argmin()
        pair = [int(bound.flat[worst]) for bound in np.broadcast_arrays(low, high)]
        _check_interval(dtype, int(np.min(low)), int(np.max(high)), *pair)
    found = [cast(bound, dtype) for bound in bounds]
    if dtype.kind == "u":
        return [cast(bound, _UINT64) for bound in found]
    return [convert(cast(bound, _INT64), dtype=_UINT64) ^ _SIGN for bound in found]


def _check_interval(dtype: np.dtype, lowest: int, highest: int, low: int, high: int) -> None:
    limits = np.iinfo(dtype)
    if low < high and limits.min <= lowest and highest <= int(limits.max) + 1:
        return
    raise ArgumentError(
        f"random.randint needs minval < maxval within the range of {dtype.name}",
        where=user_line(),
        got=f"minval={low}, maxval={high}" if low >= high else f"minval={lowest}, maxval={highest}",
        remedy="exchange or correct the bounds (maxval itself never occurs), or choose a wider dtype",
    )


def _below(key: Any, shape: tuple[int, ...], dtype: np.dtype, count: Any) -> Any:
    """64-bit integers in [0, count), or with all bits random when count is None.

    The product of count with a random fraction of 128 bits, cut off; of 64 bits for narrower integers.
    """
    drawn = random_bits(key, np.uint64(0), shape=shape, dtype=_UINT64)
    if count is None:
        return drawn
    carry: Any = np.uint64(0)
    if dtype.itemsize == 8:
        carry = _high_product(random_bits(key, _SIGN, shape=shape, dtype=_UINT64), count, carry)
    return _high_product(drawn, count, carry)


def _high_product(x: Any, y: Any, carry: Any) -> Any:
    """The upper 64 bits of x y + carry, from the products of halves, none of which overflows."""
    x1, x0, y1, y0 = x >> _HALF, x & _LOWER, y >> _HALF, y & _LOWER
    low = x0 * y0 + (carry & _LOWER) >> _HALF
    if isinstance(y1, np.generic) and not y1:  # saves time, changes nothing
        return x1 * y0 + low + (carry >> _HALF) >> _HALF
    middle = x0 * y1 + low
    other = x1 * y0 + (middle & _LOWER) + (carry >> _HALF)
    return x1 * y1 + (middle >> _HALF) + (other >> _HALF)


# coins


def bernoulli(key: Any, p: Any = 0.5, shape: Shape | None = None) -> Any:
    """True with probability p.

    Args:
        key: a key.
        p: probabilities. The result has no derivative with respect to them.
        shape: the shape of the result; by default that of p.

    Raises:
        ArgumentError: a known probability is not in [0, 1].

    Example:
        >>> from functrace import random
        >>> random.bernoulli(random.key(42), [0.0, 0.5, 1.0])
        array([False,  True,  True])
    """
    key, chance = as_key(key), as_array(p)
    dtype = _FLOAT32 if chance.dtype == _FLOAT32 else _FLOAT64
    if chance.dtype.kind == "c":
        raise DTypeError(
            "random.bernoulli takes real probabilities",
            where=user_line(),
            got=f"p of dtype {chance.dtype}",
            remedy="pass p.real",
        )
    if not isinstance(chance, Tracer) and not np.all((chance >= 0) & (chance <= 1)):
        raise ArgumentError(
            "random.bernoulli takes probabilities from 0 to 1",
            where=user_line(),
            got=f"p={chance}",
            remedy="normalise them; functrace.scipy.special.expit turns logits into probabilities",
        )
    found = result_shape("bernoulli", shape, p=chance.shape)
    return less(*broadcast_operands([unit(key, found, dtype), cast(chance, dtype)]))


def rademacher(key: Any, shape: Shape = (), dtype: Any = int) -> Any:
    """1 or -1 with equal probability.

    Args:
        key: a key.
        shape: the shape of the result.
        dtype: a signed integer or floating point dtype.

    Example:
        >>> from functrace import random
        >>> random.rademacher(random.key(42), (4,))
        array([ 1,  1, -1, -1])
    """
    found = checked_dtype(dtype)
    if found.kind not in "if":
        raise DTypeError(
            "random.rademacher makes signed numbers",
            where=user_line(),
            got=f"dtype={found}",
            remedy="use a signed integer or floating point dtype",
        )
    one = found.type(1)
    sign = convert(bits(key, shape) >> np.uint64(63), dtype=found)
    return one - (sign + sign)


# choices


def categorical(key: Any, logits: Any, axis: int = -1, shape: Shape | None = None) -> Any:
    """Positions along an axis with probability softmax(logits), by the largest of logits plus Gumbel noise.

    Args:
        key: a key.
        logits: logarithms of probabilities, up to a constant. The result has no derivative with respect to them.
        axis: the axis to choose along.
        shape: the shape of the result; by default that of logits without the axis, and it must end like that.

    Returns:
        Integers from 0 on.

    Example:
        >>> import numpy as np
        >>> from functrace import random
        >>> random.categorical(random.key(42), np.log([0.2, 0.8]), shape=(8,))
        array([0, 1, 1, 1, 1, 1, 1, 1])
    """
    key, logits = as_key(key), as_array(logits)
    if logits.dtype.kind == "c":
        raise DTypeError(
            "random.categorical takes real logits", where=user_line(), got=str(logits.dtype), remedy="pass logits.real"
        )
    dtype = _FLOAT32 if logits.dtype == _FLOAT32 else _FLOAT64
    place = normalize_axis(axis, len(logits.shape))
    rest = logits.shape[:place] + logits.shape[place + 1 :]
    found = result_shape("categorical", shape, logits=rest)
    if not logits.shape[place] and 0 not in found:
        raise ArgumentError(
            "random.categorical has nothing to choose from",
            where=user_line(),
            got=f"logits of shape {logits.shape}, axis={axis}",
            remedy="give at least one logit",
        )
    position = place + len(found) - len(rest)
    noise = gumbel(key, (*found[:position], logits.shape[place], *found[position:]), dtype)
    return argmax(noise + cast(logits, dtype), axis=position)


def choice(key: Any, a: Any, shape: Shape = (), replace: bool = True, p: Any = None, axis: int = 0) -> Any:
    """Elements chosen at random.

    Args:
        key: a key.
        a: an array to choose from, or an integer n for the integers below n. The result is differentiable in it.
        shape: how many to choose, in which shape; it takes the place of the axis.
        replace: whether an element may be chosen more than once.
        p: the elements' weights; they need not sum to 1. The result has no derivative with respect to them.
        axis: the axis along which elements are chosen.

    Raises:
        ArgumentError: there are not enough elements, or known weights are negative or all zero.
        ShapeError: p has not one weight for each element.

    Example:
        >>> from functrace import random
        >>> random.choice(random.key(42), 10, (3,), replace=False)
        array([1, 8, 9])
    """
    key, found = as_key(key), as_lengths(shape)
    array, count, place = _elements("choice", a, axis)
    size = math.prod(found)
    weights = None if p is None else _weights(p, count, 0 if replace or not size else size)
    if size and (not count or (not replace and size > count)):
        raise ArgumentError(
            f"random.choice cannot choose {size} of {count} elements",
            where=user_line(),
            got=f"shape={found}, replace={replace}",
            remedy="choose fewer, or with replace=True" if count else "give at least one element",
        )
    if not replace:
        chosen = (_order(key, count) if weights is None else _weighted_order(key, weights))[:size].reshape(found)
    elif weights is None:
        chosen = randint(key, found, 0, max(count, 1))
    else:
        total = cumsum(weights)
        chosen = searchsorted(total, total[-1] * (1 - unit(key, found, _FLOAT64)))
    return chosen if array is None else take(array, chosen, axis=place)


def _elements(function: str, a: Any, axis: int) -> tuple[Any, int, int]:
    """The array to choose from, None for integers below a number; how many elements it has, and along which axis."""
    array = as_array(a)
    if array.shape:
        place = normalize_axis(axis, len(array.shape))
        return array, array.shape[place], place
    count = as_index(a, f"the number of elements of random.{function}")
    if count < 0:
        raise ArgumentError(
            f"random.{function} takes an array or a number of elements",
            where=user_line(),
            got=str(count),
            remedy="give an integer from 0 on",
        )
    return None, count, 0


def _weights(p: Any, count: int, needed: int) -> Any:
    """The weights in double precision; at least `needed` of them must be positive, where they are known."""
    weights = as_array(p)
    if weights.shape != (count,) or weights.dtype.kind == "c":
        raise ShapeError(
            "random.choice needs one real weight for each element",
            where=user_line(),
            got=f"p: {weights.dtype}{list(weights.shape)} for {count} elements",
            remedy="give p the length of the axis that is chosen along",
        )
    if not isinstance(weights, Tracer):
        fine = np.all(weights >= 0) and np.isfinite(np.sum(weights))
        if not fine or np.count_nonzero(weights) < max(needed, 1):
            raise ArgumentError(
                "random.choice needs finite weights from 0 on, and enough of them positive",
                where=user_line(),
                got=f"p={weights}",
                remedy="clip negative weights; without replacement, choose no more elements than have a weight",
            )
    return cast(weights, _FLOAT64)


def _order(key: Any, count: int) -> Any:
    """The integers below `count` in random order: that of as many 64-bit numbers."""
    return argsort(bits(key, count))


def _weighted_order(key: Any, weights: Any) -> Any:
    """The order in which elements are drawn without replacement: that of exponential waiting times with these rates."""
    positive = greater(weights, np.float64(0))
    waiting = exponential(key, weights.shape) / select(positive, weights, np.float64(1))
    return argsort(select(positive, waiting, np.float64(np.inf)))


def permutation(key: Any, x: Any, axis: int = 0, independent: bool = False) -> Any:
    """The elements of an array along an axis in random order.

    Args:
        key: a key.
        x: an array, or an integer n for the integers below n. The result is differentiable in it.
        axis: the axis to permute.
        independent: whether every line along the axis gets an order of its own; by default slices stay together.

    Example:
        >>> from functrace import random
        >>> random.permutation(random.key(42), 5)
        array([1, 0, 2, 4, 3])
    """
    key = as_key(key)
    array, count, place = _elements("permutation", x, axis)
    if array is None:
        return _order(key, count)
    if independent:
        return take_along_axis(array, argsort(bits(key, array.shape), axis=place), axis=place)
    return take(array, _order(key, count), axis=place)
