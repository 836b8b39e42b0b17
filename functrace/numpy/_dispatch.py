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
from functrace.errors import ArgumentError, AssignmentError, DTypeError, ShapeError, UnsupportedFunctionError
from functrace.numpy._promotion import (
    COMPARISONS,
    as_operand,
    broadcast_operands,
    cast,
    checked_dtype,
    compare_integers,
    dtype_of,
    resolve,
)
from functrace.numpy._refusals import UNCLEAR, explain_refusal
from functrace.util import user_line

__all__ = [
    "apply",
    "describe",
    "implements",
    "implements_ufunc",
    "no_mask",
    "plain_buffer",
    "reject",
    "split_out",
    "traced_functions",
    "traced_named_ufuncs",
    "traced_ufuncs",
    "write_out",
    "write_whole",
]

#: Traced forms by NumPy function, and by NumPy or SciPy ufunc.
traced_functions: dict[Callable[..., Any], Callable[..., Any]] = {}
traced_ufuncs: dict[np.ufunc, Callable[..., Any]] = {}
#: Traced forms of the ufuncs of scipy.special by name: SciPy itself loads on first use.
traced_named_ufuncs: dict[str, Callable[..., Any]] = {}

_FLOAT64 = np.dtype(np.float64)
#: The ufuncs that take float64 operands as they are, for a short way through `apply`.
_keeps_float64: set[np.ufunc] = set()


def implements(numpy_function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a traced form with NumPy's signature; the decorated name becomes the public function."""

    def decorate(traced: Callable[..., Any]) -> Callable[..., Any]:
        traced_functions[numpy_function] = traced

        @functools.wraps(traced)
        def public(*args: Any, **kwargs: Any) -> Any:
            if current_trace() is EVAL:
                return numpy_function(*args, **kwargs)
            try:
                return traced(*args, **kwargs)
            except UNCLEAR as error:
                explain_refusal(error, numpy_function, args, kwargs)
                raise

        return public

    return decorate


def implements_ufunc(ufunc: np.ufunc, primitive: Primitive) -> Callable[..., Any]:
    """Register a primitive as the traced form of a ufunc; returns the public function."""

    def traced(*operands: Any, **options: Any) -> Any:
        return apply(ufunc, primitive, operands, options)

    traced_ufuncs[ufunc] = traced
    if ufunc.nin < 3 and any(types.startswith("d" * ufunc.nin + "->") for types in ufunc.types):
        _keeps_float64.add(ufunc)

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
    if options or len(operands) != ufunc.nin:
        return apply_with_options(ufunc, primitive, operands, options)
    x, y = operands[0], operands[-1]
    if (
        isinstance(x, Tracer)
        and x.dtype is _FLOAT64
        and ufunc in _keeps_float64
        and (x is y or (isinstance(y, Tracer) and y.dtype is _FLOAT64 and x.shape == y.shape))
    ):
        return primitive.bind(*operands)
    values = [as_operand(v) for v in operands]
    for value in values:
        if isinstance(value, Tracer):
            break
    else:
        return ufunc(*values)
    return bind_promoted(ufunc, primitive, values, None, None)


def bind_promoted(ufunc: np.ufunc, primitive: Primitive, values: list[Any], signature: Any, casting: Any) -> Any:
    """Bind the primitive to operands of any dtypes and shapes that NumPy takes together."""
    dtypes = resolve(ufunc, tuple([dtype_of(v) for v in values]), signature, casting)
    if ufunc in COMPARISONS:
        exact = compare_integers(ufunc, primitive, values, dtypes)
        if exact is not None:
            return exact
    values = [cast(v, d) for v, d in zip(values, dtypes, strict=False)]
    if len(values) > 1:
        values = broadcast_operands(values)
    return primitive.bind(*values)


def apply_with_options(
    ufunc: np.ufunc, primitive: Primitive, operands: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """`apply` with NumPy's keyword arguments of a ufunc."""
    inputs, out, options = split_out(ufunc, operands, options)
    mask = options.pop("where", True)
    casting = options.pop("casting", None)
    if casting is not None and not isinstance(casting, str):
        raise ArgumentError(
            f"casting of {describe(ufunc)} is a word",
            where=user_line(),
            got=type(casting).__name__,
            remedy="use one of 'no', 'equiv', 'safe', 'same_kind', 'unsafe'",
        )
    signature = _signature(ufunc, options)
    reject(ufunc.__name__, **options)
    values = [as_operand(v) for v in inputs]
    if not any(isinstance(v, Tracer) for v in (*values, out, mask)):
        given = {"casting": casting, "signature": signature}
        given = {name: option for name, option in given.items() if option is not None}
        return ufunc(*values, out=out, where=mask, **given)
    return write_out(describe(ufunc), bind_promoted(ufunc, primitive, values, signature, casting), out, mask, casting)


def no_mask(function: str) -> ArgumentError:
    """The error for `where=None`, which to NumPy means False."""
    return ArgumentError(
        f"where=None of {function} would leave out every element, as NumPy reads it",
        where=user_line(),
        remedy="leave where= out, or give a boolean array",
    )


def _signature(ufunc: np.ufunc, options: dict[str, Any]) -> tuple[np.dtype | None, ...] | None:
    """The dtypes that `dtype=` or `signature=` ask for, inputs first; None for NumPy's choice."""
    signature = options.pop("signature", options.pop("sig", None))
    dtype = options.pop("dtype", None)
    if signature is None:
        return None if dtype is None else (*(None,) * ufunc.nin, *(checked_dtype(dtype),) * ufunc.nout)
    if not isinstance(signature, (str, tuple, list)):
        raise ArgumentError(
            f"the signature of {describe(ufunc)} is a string or a tuple of dtypes",
            where=user_line(),
            got=type(signature).__name__,
            remedy=f"write signature={ufunc.types[0]!r}, or dtype= for the dtype to compute in",
        )
    if isinstance(signature, str):
        signature = signature.replace("->", "")
    return tuple(None if d is None else checked_dtype(d) for d in signature)


def describe(ufunc: np.ufunc) -> str:
    """A ufunc's name with its module, for messages."""
    name = ufunc.__name__
    return f"{'numpy' if getattr(np, name, None) is ufunc else 'scipy.special'}.{name}"


def split_out(
    ufunc: np.ufunc, operands: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], Any, dict[str, Any]]:
    """Inputs, the one array to write to (None if there is none), and the other options.

    Raises:
        ArgumentError: too few or too many operands.
    """
    options = dict(options)
    inputs, outs = operands[: ufunc.nin], operands[ufunc.nin :]
    if len(inputs) < ufunc.nin or len(outs) > ufunc.nout:
        raise ArgumentError(
            f"{describe(ufunc)} takes {ufunc.nin} operand{'s' * (ufunc.nin != 1)}",
            where=user_line(),
            got=f"{len(operands)} positional arguments",
            remedy="pass the operands by position and options by name",
        )
    given = options.pop("out", None)
    if given is not None:
        outs = given if isinstance(given, tuple) else (given,)
    outs = tuple(o for o in outs if o is not None)
    if len(outs) > 1:
        reject(ufunc.__name__, out=outs)
    return inputs, outs[0] if outs else None, options


def write_out(function: str, result: Any, out: Any, where: Any = True, casting: Any = None) -> Any:
    """The result, assigned to `out` (a traced array) where the mask says.

    Raises:
        AssignmentError: `out` is a plain array, which cannot hold traced values.
    """
    if where is None:
        raise no_mask(function)
    if out is None:
        if where is not True:
            reject(function.removeprefix("numpy."), where=where)
        return result
    if not isinstance(out, Tracer):
        raise plain_buffer(f"{function} would write", out)
    if not np.can_cast(result.dtype, out.dtype, casting or "same_kind"):
        raise DTypeError(
            f"the result of {function} does not fit the array given as out=",
            where=user_line(),
            got=f"{result.dtype.name} into {out.dtype.name}",
            remedy="convert the buffer first, or make it with the right dtype",
        )
    if where is True:
        out[...] = result  # type: ignore[index]
    else:
        mask = where if isinstance(where, Tracer) else np.asarray(where)
        out[...] = np.where(mask, result, out).astype(out.dtype)  # type: ignore[index]
    return out


def write_whole(function: str, result: Any, out: Any, casting: Any = None) -> Any:
    """`write_out` for functions that do not broadcast their result.

    Raises:
        ShapeError: `out` has another shape.
    """
    if isinstance(out, Tracer) and out.shape != result.shape:
        raise ShapeError(
            f"the array given to {function} as out= has not the shape of the result",
            where=user_line(),
            got=f"shape {out.shape} for a result of shape {result.shape}",
            remedy=f"make it with functrace.numpy.zeros({result.shape})",
        )
    return write_out(function, result, out, True, casting)


def plain_buffer(action: str, buffer: Any) -> AssignmentError:
    """The error for a traced value on its way into a plain array."""
    got = f"numpy.ndarray of dtype {buffer.dtype}, shape {buffer.shape}" if isinstance(buffer, np.ndarray) else None
    return AssignmentError(
        f"{action} a traced value into a plain array, which would lose its derivative",
        where=user_line(),
        got=got or type(buffer).__name__,
        remedy="make the buffer a traced array inside the function: functrace.numpy.zeros(shape) for a new one, or "
        "B = functrace.numpy.array(B) for a copy of an existing one; or write B = B + x instead of B += x",
    )


def reject(function: str, **options: Any) -> None:
    """Raise for the first option that is set (to something else than NumPy's default) and not supported.

    Raises:
        UnsupportedFunctionError: naming the option and what to do instead.
    """
    for name, value in options.items():
        if value is None or value is np._NoValue:
            continue
        defaults = _OPTION_DEFAULTS.get(name, ())
        if any(value is default or (isinstance(value, str) and value == default) for default in defaults):
            continue
        raise UnsupportedFunctionError(
            f"numpy.{function} inside a traced function does not take {name}=",
            where=user_line(),
            got=f"{name}={type(value).__name__}",
            remedy=_OPTION_REMEDIES.get(name, f"leave {name}= out and apply it to the result"),
        )


#: Values of options that change nothing for a traced array, which has no memory order and no subclass.
_OPTION_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "where": (True,),
    "order": ("C", "K"),
    "subok": (True, False),
    "casting": ("same_kind",),
}

_OPTION_REMEDIES = {
    "out": "assign the result to a name; a buffer made with functrace.numpy.zeros takes x[...] = value",
    "where": "use functrace.numpy.where on the result or on the operand",
    "dtype": "use .astype(dtype) on the operand or the result",
    "order": "memory order is not traced; leave order= out",
    "subok": "traced values are plain arrays; leave subok= out",
}
