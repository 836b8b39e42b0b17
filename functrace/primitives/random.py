"""Random bits from a key and a counter: the Threefry-2x32 block cipher with 20 rounds, as one primitive.

Element i of a stream is a keyed bijection of the counter `start + i`: no state, any element in any order, each a fixed
sequence of 32-bit additions, rotations and exclusive ors. J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw,
Parallel random numbers: as easy as 1, 2, 3, SC 2011.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.core.lowering import Indexed
from functrace.core.primitive import Primitive
from functrace.core.types import ShapedArray
from functrace.core.work import counted
from functrace.errors import DTypeError, ShapeError
from functrace.primitives.families import broadcast, unwrap
from functrace.util import user_line

__all__ = ["random_bits"]

#: Distances of the rotations; the two rows take turns, and a part of the key is added after each row.
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_INJECTIONS = 5
_WORD = 0xFFFFFFFF

#: Up to this many blocks Python's integers are faster than NumPy's arrays.
_FEW = 128
#: Blocks worked on at a time, so that the words stay in the processor's cache.
_CHUNK = 8192


@functools.lru_cache(maxsize=_FEW + 1)
def _lanes(count: int) -> tuple[int, int]:
    """Integers of `count` lanes of 64 bits: each lane 1, and each lane its own number."""
    ones = sum(1 << 64 * i for i in range(count))
    return ones, sum(i << 64 * i for i in range(count))


def _few_blocks(key: list[int], start: int, count: int) -> np.ndarray:
    """The images of `count` counters from `start` on, computed side by side in the 64-bit lanes of Python integers.

    A lane holds a 32-bit word; sums and shifted words run over into its upper half, which is masked off in time.
    """
    ones, numbers = _lanes(count)
    mask = _WORD * ones
    counters = start * ones + numbers
    schedule = [key[0] * ones, key[1] * ones, (key[0] ^ key[1] ^ _PARITY) * ones]
    x = (counters >> 32 & mask) + schedule[0]
    y = (counters & mask) + schedule[1] & mask
    for i in range(1, _INJECTIONS + 1):
        for distance in _ROTATIONS[(i - 1) % 2]:
            x += y
            shifted = y << distance
            y = ((shifted | shifted >> 32) ^ x) & mask
        x += schedule[i % 3]
        y = y + schedule[(i + 1) % 3] + i * ones & mask
    blocks = (x & mask) << 32 | y
    return np.frombuffer(bytearray(blocks.to_bytes(8 * count, "little")), "<u8").astype(np.uint64, copy=False)


def _encrypt(key: tuple[np.ndarray, np.ndarray], x: np.ndarray, y: np.ndarray) -> None:
    """Replace the words x and y of the counters by those of their images."""
    schedule = (*key, key[0] ^ key[1] ^ np.uint32(_PARITY))
    shifted = np.empty_like(y)
    np.add(x, schedule[0], x)
    np.add(y, schedule[1], y)
    for i in range(1, _INJECTIONS + 1):
        for distance in _ROTATIONS[(i - 1) % 2]:
            np.add(x, y, x)
            np.left_shift(y, distance, shifted)
            np.right_shift(y, 32 - distance, y)
            np.bitwise_or(y, shifted, y)
            np.bitwise_xor(y, x, y)
        np.add(x, schedule[i % 3], x)
        np.add(y, schedule[(i + 1) % 3] + np.uint32(i), y)


def _many_blocks(keys: np.ndarray, starts: np.ndarray, count: int) -> np.ndarray:
    """The images of `count` counters from each start on under its key, chunk by chunk."""
    counters = (starts.reshape(-1, 1) + np.arange(count, dtype=np.uint64)).ravel()
    words = [keys[:, 0], keys[:, 1]] if len(keys) == 1 else [np.repeat(keys[:, i], count) for i in (0, 1)]
    for begin in range(0, counters.size, _CHUNK):
        part = slice(begin, begin + _CHUNK)
        block = counters[part]
        x, y = (block >> 32).astype(np.uint32), block.astype(np.uint32)
        _encrypt((words[0], words[1]) if len(keys) == 1 else (words[0][part], words[1][part]), x, y)
        block[...] = x
        block <<= 32
        block |= y
    return counters


def _bits_at(r: Any, i: Sequence[Any], key: Any, start: Any, *, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """The bits of one element."""
    lead = len(key.aval.shape) - 1
    counter = r.number(r.flat(i[lead:], shape), np.dtype(np.uint64))
    words = [r.read(key, [*i[:lead], r.fixed(k)]) for k in (0, 1)]
    first = r.read(start, i[:lead] if start.aval.shape else ())
    return r.apply(lambda e, *values: _image(e, dtype, *values), *words, first, counter, dtype=dtype)


def _image(e: Any, dtype: np.dtype, k0: Any, k1: Any, start: Any, number: Any) -> Any:
    """The image of a counter, in registers."""
    word = np.dtype(np.uint32)
    counter = start + number
    schedule = (k0, k1, k0 ^ k1 ^ _PARITY)
    x = e.convert(e.shift("lshr", counter, 32), word) + k0
    y = e.convert(counter, word) + k1
    for i in range(1, _INJECTIONS + 1):
        for distance in _ROTATIONS[(i - 1) % 2]:
            x = x + y
            y = (e.shift("shl", y, distance) | e.shift("lshr", y, 32 - distance)) ^ x
        x = x + schedule[i % 3]
        y = y + (schedule[(i + 1) % 3] + i)
    if dtype.itemsize < 8:
        return e.convert(x ^ y, dtype)
    return e.convert(e.shift("shl", e.convert(x, counter.dtype), 32) | e.convert(y, counter.dtype), dtype)


def _random_bits_impl(key: np.ndarray, start: Any, *, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    count = math.prod(shape)
    if key.ndim == 1 and 0 < count <= _FEW and int(start) <= 2**64 - count:
        blocks = _few_blocks(key.tolist(), int(start), count)
    else:
        keys = key.reshape(-1, 2)
        starts = np.broadcast_to(start, key.shape[:-1]).reshape(-1)
        blocks = _many_blocks(keys, starts, count)
    if dtype.itemsize < 8:
        blocks = (blocks ^ blocks >> 32).astype(dtype)
    else:
        blocks = blocks.view(dtype)
    return unwrap(blocks.reshape(key.shape[:-1] + shape))


def _random_bits_aval(key: ShapedArray, start: ShapedArray, *, shape: tuple[int, ...], dtype: np.dtype) -> ShapedArray:
    if key.dtype != np.uint32 or start.dtype != np.uint64:
        raise DTypeError(
            "random_bits needs a key of 32-bit and a counter of 64-bit unsigned integers",
            where=user_line(),
            got=f"{key}, {start}",
            remedy="use the functions of functrace.random, with a key made by functrace.random.key(seed)",
        )
    if key.shape[-1:] != (2,) or start.shape not in ((), key.shape[:-1]):
        raise ShapeError(
            "random_bits needs keys of two words, and one counter for all or for each",
            where=user_line(),
            got=f"{key}, {start}",
            remedy="use the functions of functrace.random, with a key made by functrace.random.key(seed)",
        )
    return ShapedArray(key.shape[:-1] + shape, dtype)


def _random_bits_batch(
    size: int, values: list[Any], batched: list[bool], *, shape: tuple[int, ...], dtype: np.dtype
) -> tuple[list[Any], list[bool]]:
    key, start = values
    if not batched[0]:
        key = broadcast(key, shape=(size, *key.shape), axes=tuple(range(1, 1 + len(key.shape))))
    lead = key.shape[:-1]
    if batched[1] and start.shape != lead:  # one counter to an example, for all of its keys
        start = broadcast(start, shape=lead, axes=(0,))
    elif not batched[1] and start.shape:
        start = broadcast(start, shape=lead, axes=tuple(range(1, len(lead))))
    return [random_bits(key, start, shape=shape, dtype=dtype)], [True]


#: `random_bits(key, start, shape=, dtype=)`: an array of independent uniform bits for every key. Element i is the
#: 64-bit image of `start + i`, for narrower dtypes the lowest bits of the exclusive or of its halves. `key` holds pairs
#: of 32-bit words in its last axis; `start` is one 64-bit counter, or one for each key; `shape` follows the keys' axes.
random_bits = Primitive(
    "random_bits",
    _random_bits_impl,
    _random_bits_aval,
    batch=_random_bits_batch,
    family="random",
    nondifferentiable=True,
    cost=counted(lambda operands, outs, **params: 100 * outs[0].size),
    lower=Indexed(lambda key, start, *, shape, dtype: dtype.kind in "iu", _bits_at, 100.0),
)
