"""The two doors: functions of this package, and NumPy's own functions called on tracers (NEP 13 and NEP 18).

`implements(np.f)` registers the traced form of a NumPy function and returns the public one, which outside any trace is
NumPy itself. `implements_ufunc(np.f, primitive)` does so for a ufunc.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.core.primitive import Primitive
from functrace.core.trace import EVAL, Tracer, current_trace
from functrace.errors import UnsupportedFunctionError
from functrace.numpy._promotion import as_operand, broadcast_operands, cast, dtype_of, resolve
from functrace.util import user_line

__all__ = ["implements", "implements_ufunc", "reject", "traced_functions", "traced_ufuncs"]

#: Traced forms by NumPy function, and by NumPy or SciPy ufunc.
traced_functions: dict[Callable[..., Any], Callable[..., Any]] = {}
traced_ufuncs: dict[np.ufunc, Callable[..., Any]] = {}


def implements(numpy_function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a traced form with NumPy's signature; the decorated name becomes the public function."""

    def decorate(traced: Callable[..., Any]) -> Callable[..., Any]:
        traced_functions[numpy_function] = traced

        @functools.wraps(traced)
        def public(*args: Any, **kwargs: Any) -> Any:
            if current_trace() is EVAL:
                return numpy_function(*args, **kwargs)
            return traced(*args, **kwargs)

        return public

    return decorate


def implements_ufunc(ufunc: np.ufunc, primitive: Primitive) -> Callable[..., Any]:
    """Register a primitive as the traced form of a ufunc; returns the public function."""

    def traced(*operands: Any, **options: Any) -> Any:
        return apply(ufunc, primitive, operands, options)

    traced_ufuncs[ufunc] = traced

    def public(*operands: Any, **options: Any) -> Any:
        if current_trace() is EVAL:
            return ufunc(*operands, **options)
        return apply(ufunc, primitive, operands, options)

    public.__name__ = public.__qualname__ = ufunc.__name__
    public.__doc__ = f"Traced form of `{ufunc.__name__}`: NumPy's signature, broadcasting and promotion."
    public.__module__ = "functrace.numpy"
    return public


def apply(ufunc: np.ufunc, primitive: Primitive, operands: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Promote, broadcast and bind; on plain operands, NumPy."""
    if options:
        reject(ufunc.__name__, **options)
    values = [as_operand(v) for v in operands]
    for value in values:
        if isinstance(value, Tracer):
            break
    else:
        return ufunc(*values)
    dtypes = resolve(ufunc, tuple([dtype_of(v) for v in values]))
    values = [cast(v, d) for v, d in zip(values, dtypes, strict=False)]
    if len(values) > 1:
        values = broadcast_operands(values)
    return primitive.bind(*values)


def reject(function: str, **options: Any) -> None:
    """Raise for the first option that is set (neither None, NumPy's no-value, nor `where=True`) and not supported.

    Raises:
        UnsupportedFunctionError: naming the option and what to do instead.
    """
    for name, value in options.items():
        if value is None or value is np._NoValue or (name == "where" and value is True):
            continue
        raise UnsupportedFunctionError(
            f"numpy.{function} inside a traced function does not take {name}=",
            where=user_line(),
            got=f"{name}={type(value).__name__}",
            remedy=_OPTION_REMEDIES.get(name, f"leave {name}= out and apply it to the result"),
        )


_OPTION_REMEDIES = {
    "out": "assign the result to a name; a buffer made with functrace.numpy.zeros takes x[...] = value",
    "where": "use functrace.numpy.where on the result or on the operand",
    "dtype": "use .astype(dtype) on the operand or the result",
    "order": "memory order is not traced; leave order= out",
    "subok": "traced values are plain arrays; leave subok= out",
}
