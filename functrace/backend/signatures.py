"""What a kernel takes and gives: exact types, dtypes and shapes of its arguments and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from functrace.errors import ArgumentError, DTypeError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

__all__ = [
    "NUMBERS",
    "Argument",
    "Output",
    "Signature",
]


_NUMPY_TYPES = (
    *(np.bool, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64),
    *(np.float16, np.float32, np.float64, np.complex64, np.complex128),
)
_DTYPES: dict[type[Any], np.dtype[Any]] = {kind: np.dtype(kind) for kind in _NUMPY_TYPES}
NUMBERS: dict[type[Any], np.dtype[Any]] = {kind: np.dtype(kind) for kind in (bool, int, float, complex)} | _DTYPES
_ORDERLY = 0x0001 | 0x0100  # C contiguous and aligned


def _plain(dtype: DTypeLike) -> np.dtype[Any]:
    """The one descriptor that NumPy itself gives new arrays of this dtype."""
    given = np.dtype(dtype)
    # C has several names for some integer types, and NumPy a descriptor for each.
    plain = _DTYPES.get(np.dtype(given.str).type)
    if plain is None or plain != given:
        remedy = "use booleans, integers, floats or complex numbers of up to 16 bytes in the machine's byte order"
        raise DTypeError("a kernel cannot take or give this dtype", got=repr(given), remedy=remedy)
    return plain


def _plain_shape(shape: Sequence[int]) -> tuple[int, ...]:
    plain = tuple(int(length) for length in shape)
    if not all(0 <= length < 2**63 for length in plain):
        raise ArgumentError("lengths of axes are not negative, and below 2**63", got=f"shape {plain}")
    return plain


@dataclass(frozen=True, slots=True)
class Argument:
    """What an argument must be: an ndarray of exactly this dtype and shape, or a number of exactly this type.

    Arrays must be C contiguous and aligned, and ndarrays proper, not of a subclass. A Python int must fit int64.
    Make one by `Argument.array`, `Argument.number` or `Argument.of`.
    """

    kind: type[Any]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @classmethod
    def array(cls, dtype: DTypeLike, shape: Sequence[int]) -> Argument:
        return cls(np.ndarray, _plain(dtype), _plain_shape(shape))

    @classmethod
    def number(cls, kind: type[Any]) -> Argument:
        """`kind`: bool, int, float, complex, or a NumPy scalar type such as np.float64."""
        if kind not in NUMBERS:
            raise DTypeError("not a type of numbers that a kernel can take", got=kind.__name__)
        return cls(kind, NUMBERS[kind], ())

    @classmethod
    def of(cls, value: Any) -> Argument | None:
        """The description that `value` fits, or None if no kernel can take it as it is."""
        kind = type(value)
        if kind is np.ndarray:
            found = cls(kind, _DTYPES.get(value.dtype.type, value.dtype), value.shape)
        elif kind in NUMBERS:
            found = cls(kind, NUMBERS[kind], ())
        else:
            return None
        return found if found.accepts(value) else None

    def accepts(self, value: Any) -> bool:
        if type(value) is not self.kind:
            return False
        if self.kind is np.ndarray:
            return (
                value.shape == self.shape
                and value.dtype.type in _DTYPES
                and value.dtype == self.dtype
                and value.flags.num & _ORDERLY == _ORDERLY
            )
        return self.kind is not int or -(2**63) <= value < 2**63


@dataclass(frozen=True, slots=True)
class Output:
    """A new array of this dtype and shape, or for `scalar` (shape ()) a NumPy scalar, as NumPy's own functions give."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    scalar: bool

    @classmethod
    def array(cls, dtype: DTypeLike, shape: Sequence[int]) -> Output:
        return cls(_plain(dtype), _plain_shape(shape), False)

    @classmethod
    def number(cls, dtype: DTypeLike) -> Output:
        return cls(_plain(dtype), (), True)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a kernel takes and gives.

    Args:
        arguments: of each positional argument.
        outputs: of each result.
        as_tuple: give a tuple also for one output. Without outputs, or with several, it always is one.
        workspace: bytes of memory that the kernel needs during the call.
        release_gil: let other threads run Python meanwhile; costs 50 ns, so only for long work. (The portable
            dispatcher keeps the lock.)
    """

    arguments: tuple[Argument, ...]
    outputs: tuple[Output, ...]
    as_tuple: bool = False
    workspace: int = 0
    release_gil: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.workspace < 2**62:
            raise ArgumentError("a workspace has a size in bytes", got=f"{self.workspace}")

    @property
    def gives_tuple(self) -> bool:
        return self.as_tuple or len(self.outputs) != 1
