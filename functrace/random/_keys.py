"""Keys and raw bits: how randomness is named, split and drawn. Nothing here has state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.core.trace import Tracer
from functrace.errors import ArgumentError, DTypeError, ShapeError
from functrace.numpy._axes import as_lengths
from functrace.numpy._promotion import as_array, broadcast_shape, cast, checked_dtype
from functrace.primitives.elementwise import bitwise_or, convert, mul, right_shift
from functrace.primitives.random import random_bits
from functrace.primitives.shape import stack
from functrace.util import user_line

__all__ = ["PRNGKey", "bits", "fold_in", "key", "split"]

_UINT32 = np.dtype(np.uint32)
_UINT64 = np.dtype(np.uint64)
_INT64 = np.dtype(np.int64)
_FIRST = np.uint64(0)
#: Per floating point dtype: the bits drawn, how many of them are dropped, and the unit of the rest.
_MANTISSAS = {
    np.dtype(np.float64): (_UINT64, np.uint64(11), np.uint64(1), np.float64(2.0**-53)),
    np.dtype(np.float32): (_UINT32, np.uint32(8), np.uint32(1), np.float32(2.0**-24)),
}


# public


def key(seed: Any) -> Any:
    """A key from a seed: what every function of this module draws its randomness from.

    A key is an array of two 32-bit words, those of the seed. Use each key once: `split` it for more.

    Args:
        seed: an integer from -2**63 to 2**64 - 1; it may be traced.

    Returns:
        An array uint32[2].

    Raises:
        ArgumentError: the seed needs more than 64 bits, or is no single integer.

    Example:
        >>> from functrace import random
        >>> random.key(42)
        array([ 0, 42], dtype=uint32)
    """
    if isinstance(seed, Tracer):
        return _pair(_counter("key", "seed", seed))
    return np.array(divmod(int(_counter("key", "seed", seed)), 2**32), np.uint32)


PRNGKey = key


def split(key: Any, num: int | Sequence[int] = 2) -> Any:
    """New independent keys from one, which is then used up.

    Args:
        key: a key.
        num: how many, or a shape of keys.

    Returns:
        An array uint32[num, 2]; its rows are keys.

    Example:
        >>> from functrace import random
        >>> first, second = random.split(random.key(42))
        >>> first
        array([1832780943,  270669613], dtype=uint32)
    """
    return _pair(random_bits(as_key(key), _FIRST, shape=as_lengths(num), dtype=_UINT64))


def fold_in(key: Any, data: Any) -> Any:
    """A new key from a key and an integer, for a loop's steps or a program's parts.

    Args:
        key: a key. Use it for `split` or for `fold_in`, not for both.
        data: an integer from -2**63 to 2**64 - 1; it may be traced.

    Returns:
        A key; different data give different keys.

    Raises:
        ArgumentError: the data need more than 64 bits, or are no single integer.

    Example:
        >>> from functrace import random
        >>> random.fold_in(random.key(42), 7)
        array([2547012911, 1371500959], dtype=uint32)
    """
    return _pair(random_bits(as_key(key), _counter("fold_in", "data", data), shape=(), dtype=_UINT64))


def bits(key: Any, shape: int | Sequence[int] = (), dtype: Any = np.uint64) -> Any:
    """Independent uniform bits as unsigned integers.

    Args:
        key: a key.
        shape: the shape of the result.
        dtype: uint8, uint16, uint32 or uint64.

    Example:
        >>> from functrace import random
        >>> random.bits(random.key(42), (3,), "uint32")
        array([2098992034, 2919706841, 2646866425], dtype=uint32)
    """
    found = checked_dtype(dtype)
    if found.kind != "u":
        raise DTypeError(
            "bits makes unsigned integers",
            where=user_line(),
            got=f"dtype={found}",
            remedy="use numpy.uint8, uint16, uint32 or uint64; functrace.random.randint makes signed integers",
        )
    return random_bits(as_key(key), _FIRST, shape=as_lengths(shape), dtype=found)


# for the distributions


def as_key(value: Any) -> Any:
    """The value, if it is a key.

    Raises:
        DTypeError: it does not hold 32-bit unsigned integers.
        ShapeError: it is not one key.
    """
    found = as_array(value)
    if found.dtype == _UINT32 and found.shape == (2,):
        return found
    if found.dtype != _UINT32:
        raise DTypeError(
            "a random function takes a key, an array uint32[2], as its first argument",
            where=user_line(),
            got=f"{found.dtype}{list(found.shape)}",
            remedy="make one with functrace.random.key(seed) and pass it on unchanged",
        )
    raise ShapeError(
        "a random function takes one key, an array uint32[2], as its first argument",
        where=user_line(),
        got=f"{found.dtype}{list(found.shape)}",
        remedy="of several keys choose one, keys[i], or map over them all with functrace.vmap",
    )


def float_dtype(dtype: Any) -> np.dtype:
    """The floating point dtype asked for.

    Raises:
        DTypeError: it is not float64 or float32.
    """
    found = checked_dtype(dtype)
    if found in _MANTISSAS:
        return found
    raise DTypeError(
        "random floating point numbers are float64 or float32",
        where=user_line(),
        got=f"dtype={found}",
        remedy="use one of them and convert the result with .astype; a complex number has two random parts",
    )


def unit(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Multiples of 2**-53 (float32: 2**-24) in [0, 1), all equally probable."""
    source, dropped, _, scale = _MANTISSAS[dtype]
    drawn = random_bits(key, _FIRST, shape=shape, dtype=source)
    return mul(convert(right_shift(drawn, dropped), dtype=dtype), scale)


def open_unit(key: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Odd multiples of 2**-53 (float32: 2**-24) in (0, 1), all equally probable; x occurs as does 1 - x, both exact."""
    source, dropped, odd, scale = _MANTISSAS[dtype]
    drawn = random_bits(key, _FIRST, shape=shape, dtype=source)
    return mul(convert(bitwise_or(right_shift(drawn, dropped), odd), dtype=dtype), scale)


def parameters(name: str, shape: Any, dtype: np.dtype, **values: Any) -> tuple[tuple[int, ...], list[Any]]:
    """The shape of a result, and the parameters of a distribution in its dtype.

    Args:
        name: the distribution's.
        shape: the shape asked for; None for that of the parameters.
        values: the parameters by name.

    Raises:
        ShapeError: a parameter does not broadcast to the shape.
        DTypeError: a parameter is not real.
    """
    arrays = {key: as_array(value) for key, value in values.items()}
    for key, array in arrays.items():
        if array.dtype.kind == "c":
            raise DTypeError(
                f"random.{name} takes real parameters",
                where=user_line(),
                got=f"{key} of dtype {array.dtype}",
                remedy="draw the real and the imaginary part with keys of their own",
            )
    found = result_shape(name, shape, **{key: array.shape for key, array in arrays.items()})
    return found, [cast(array, dtype) for array in arrays.values()]


def result_shape(name: str, shape: Any, **shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape asked for, or by default that of the parameters.

    Raises:
        ShapeError: a parameter does not broadcast to it.
    """
    common = broadcast_shape(*shapes.values())
    found = common if shape is None else as_lengths(shape)
    fits = len(common) <= len(found) and all(
        n in (1, m) for n, m in zip(reversed(common), reversed(found), strict=False)
    )
    if fits:
        return found
    raise ShapeError(
        f"the parameters of random.{name} do not broadcast to the shape of the result",
        where=user_line(),
        got=", ".join(f"{key} of shape {own}" for key, own in shapes.items()) + f", for shape {found}",
        remedy=f"leave shape= out for {common}, or give one that ends like it",
    )


# private


def _pair(block: Any) -> Any:
    """64-bit integers as pairs of 32-bit words, the upper one first, in a new last axis."""
    halves = [convert(right_shift(block, np.uint64(32)), dtype=_UINT32), convert(block, dtype=_UINT32)]
    return stack(*halves, axis=len(block.shape))


def _counter(function: str, name: str, value: Any) -> Any:
    """An integer as 64 bits."""
    if type(value) is int:
        if -(2**63) <= value < 2**64:
            return np.uint64(value % 2**64)
        raise ArgumentError(
            f"random.{function} takes an integer of 64 bits",
            where=user_line(),
            got=f"{name}={value}",
            remedy=f"reduce it, {name} % 2**64, or fold in its parts one by one",
        )
    found = as_array(value)
    if found.dtype.kind not in "iub" or found.shape:
        raise ArgumentError(
            f"random.{function} takes one integer",
            where=user_line(),
            got=f"{name}: {found.dtype}{list(found.shape)}",
            remedy=f"pass an integer; for an array of them map over it with functrace.vmap(lambda {name}: ...)",
        )
    if found.dtype == _UINT64:
        return found
    return convert(cast(found, _INT64), dtype=_UINT64)
