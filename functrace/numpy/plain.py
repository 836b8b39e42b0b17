"""What needs no traced form: constants, dtypes, and functions of shapes and of plain values, as NumPy has them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import (
    bartlett,
    blackman,
    diag_indices,
    dtype,
    e,
    errstate,
    euler_gamma,
    finfo,
    hamming,
    hanning,
    iinfo,
    inf,
    isdtype,
    issubdtype,
    iterable,
    kaiser,
    mask_indices,
    min_scalar_type,
    nan,
    ndarray,
    ndenumerate,
    ndindex,
    newaxis,
    pi,
    printoptions,
    s_,
    set_printoptions,
    tril_indices,
    triu_indices,
    ufunc,
)

from functrace.core.trace import Tracer
from functrace.numpy._promotion import as_array
from functrace.numpy._structural import structural

_DTYPES = (
    "bool", "bool_", "int8", "int16", "int32", "int64", "int_", "intp", "uint8", "uint16", "uint32", "uint64", "uint",
    "float16", "float32", "float64", "half", "single", "double", "longdouble", "complex64", "complex128", "csingle",
    "cdouble", "clongdouble", "generic", "number", "integer", "signedinteger", "unsignedinteger", "inexact",
    "floating", "complexfloating", "True_", "False_",
)  # fmt: skip
globals().update({name: getattr(np, name) for name in _DTYPES})

__all__ = [
    "bartlett", "blackman", "common_type", "diag_indices", "diag_indices_from", "dtype", "e", "errstate",
    "euler_gamma", "finfo", "hamming", "hanning", "iinfo", "inf", "isdtype", "issubdtype", "iterable", "kaiser",
    "mask_indices", "min_scalar_type", "nan", "ndarray", "ndenumerate", "ndindex", "newaxis", "pi", "printoptions",
    "s_", "set_printoptions", "tril_indices", "tril_indices_from", "triu_indices", "triu_indices_from", "ufunc",
    *_DTYPES,
]  # fmt: skip


def _template(arr: Any) -> Any:
    """A plain array of the same shape and dtype, of no memory, for NumPy's questions about these."""
    x = as_array(arr)
    return np.broadcast_to(np.zeros((), x.dtype), x.shape)


@structural(np.tril_indices_from)
def tril_indices_from(arr: Any, k: int = 0) -> tuple[Any, ...]:
    """The indices of the lower triangle of a matrix."""
    return np.tril_indices_from(_template(arr), k)


@structural(np.triu_indices_from)
def triu_indices_from(arr: Any, k: int = 0) -> tuple[Any, ...]:
    """The indices of the upper triangle of a matrix."""
    return np.triu_indices_from(_template(arr), k)


@structural(np.diag_indices_from)
def diag_indices_from(arr: Any) -> tuple[Any, ...]:
    """The indices of the main diagonal of an array."""
    return np.diag_indices_from(_template(arr))


@structural(np.common_type)
def common_type(*arrays: Any) -> type:
    """The inexact scalar type that all arrays can be cast to."""
    return np.common_type(*(_template(a) if isinstance(a, Tracer) else a for a in arrays))
