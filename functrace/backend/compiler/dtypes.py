"""Dtypes in LLVM's spelling."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from functrace.backend.compiler.pairs import real_type

__all__ = ["BOOL", "FLOATS", "INDEX", "Unsupported", "element_type", "literal", "memory_type"]

FLOATS = {np.dtype(np.float64): "double", np.dtype(np.float32): "float"}
BOOL = np.dtype(np.bool_)
INDEX = np.dtype(np.int64)


class Unsupported(Exception):
    """The emitter has no code for this operation on this dtype."""


def element_type(dtype: np.dtype) -> str:
    """The LLVM type of one number in a register."""
    if dtype in FLOATS:
        return FLOATS[dtype]
    if dtype.kind == "b":
        return "i1"
    if dtype.kind in "iu":
        return f"i{dtype.itemsize * 8}"
    if dtype.name in ("complex64", "complex128"):  # as elements of arrays; registers hold pairs
        return f"[2 x {element_type(real_type(dtype))}]"
    if dtype.name == "float16":
        return "half"
    raise Unsupported(f"numbers of type {dtype.name}")


def memory_type(dtype: np.dtype) -> str:
    """The LLVM type of one number in memory."""
    return "i8" if dtype.kind == "b" else element_type(dtype)


def literal(value: Any, dtype: np.dtype) -> str:
    """A constant in LLVM's spelling."""
    if dtype.kind == "f":
        number = value if type(value) is float and dtype.itemsize == 8 else float(dtype.type(value))
        if dtype.itemsize == 2:
            return f"0xH{np.float16(value).view(np.uint16):04X}"
        return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"
    if dtype.kind == "b":
        return "true" if value else "false"
    return str(int(dtype.type(value)))
