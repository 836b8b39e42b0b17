"""NumPy's functions, traceable; outside any transformation they are NumPy's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.core.trace import Tracer
from functrace.errors import UnsupportedFunctionError
from functrace.numpy._dispatch import traced_functions, traced_ufuncs
from functrace.numpy._operators import install_operators
from functrace.numpy.ufuncs import *  # noqa: F403
from functrace.primitives import elementwise as p
from functrace.util import user_line

install_operators(
    {np.add: p.add, np.subtract: p.sub, np.multiply: p.mul, np.true_divide: p.div, np.power: p.power}
)


def _array_ufunc(self: Tracer, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
    traced = traced_ufuncs.get(ufunc)
    if traced is None or method != "__call__":
        raise UnsupportedFunctionError(f"numpy.{ufunc.__name__}.{method} has no traced form", where=user_line())
    return traced(*inputs, **options)


def _array_function(self: Tracer, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
    traced = traced_functions.get(function)
    if traced is None:
        raise UnsupportedFunctionError(f"numpy.{function.__name__} has no traced form", where=user_line())
    return traced(*args, **kwargs)


Tracer.__array_ufunc__ = _array_ufunc  # type: ignore[attr-defined]
Tracer.__array_function__ = _array_function  # type: ignore[attr-defined]
