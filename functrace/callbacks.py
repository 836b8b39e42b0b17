"""Functions that functrace cannot look into: `pure_callback` for any Python, `numba_call` for compiled kernels."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace import tree
from functrace.backend.kernels.native import NativeKernel, kernel_address
from functrace.control import callbacks
from functrace.core.types import ShapedArray, aval_of, canonicalize, is_inexact
from functrace.errors import ArgumentError, CallbackError
from functrace.transforms._flatten import check_functions
from functrace.util import user_line

__all__ = ["numba_call", "pure_callback"]


def pure_callback(
    callback: Callable[..., Any],
    result_shape_dtypes: Any,
    *args: Any,
    vmap_method: str | None = None,
    **kwargs: Any,
) -> Any:
    """What a Python function of NumPy arrays gives, within a transformed or staged function.

    Args:
        callback: function of arrays (pytrees of `numpy.ndarray`) without side effects. It runs outside every
            transformation, each time the values are known, and is never looked into: for a derivative give a rule by
            calling `pure_callback` inside a `functrace.custom_jvp` or `custom_vjp` function.
        result_shape_dtypes: a tree like the result, of anything with shape and dtype (`ShapeDtypeStruct`, arrays).
        args, kwargs: its arguments, pytrees of arrays.
        vmap_method: what happens under `vmap`. "sequential" calls once per example. "expand_dims" and "broadcast_all"
            call once, with a leading batch axis on each argument and result; arguments that are not batched get an
            axis of length 1, or the whole axis. None raises.

    Returns:
        The callback's result.

    Raises:
        CallbackError: the result is not of the given types; or a derivative, or without `vmap_method` a batch, is asked
            for.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> def root(x):
        ...     return functrace.pure_callback(np.cbrt, x, x, vmap_method="broadcast_all")
        >>> functrace.vmap(root)(np.array([1.0, 8.0]))
        array([1., 2.])
    """
    if vmap_method is not None and vmap_method not in callbacks.VMAP_METHODS:
        raise ArgumentError(
            "vmap_method of pure_callback is unknown",
            where=user_line(),
            got=repr(vmap_method),
            remedy=f"use one of {', '.join(map(repr, callbacks.VMAP_METHODS))} or None",
        )
    check_functions("pure_callback", callback=callback)
    leaves, in_tree = tree.flatten((args, kwargs))
    types, out_tree = tree.flatten(result_shape_dtypes)

    def flat_callback(*values: Any) -> list[Any]:
        call_args, call_kwargs = tree.unflatten(in_tree, [np.array(v) for v in values])
        outs, found = tree.flatten(callback(*call_args, **call_kwargs))
        if found != out_tree:
            raise CallbackError(
                "a callback returned another structure than the types given for it",
                where=user_line(),
                got=f"{found} for {out_tree}",
                remedy="return what result_shape_dtypes describes, in the same containers",
            )
        return outs

    outs = callbacks.pure_callback.bind(
        *[canonicalize(leaf) for leaf in leaves],
        callback=flat_callback,
        avals=tuple(map(_type, types)),
        name="pure_callback",
        vmap_method=vmap_method,
        rule=None,
    )
    return tree.unflatten(out_tree, outs)


def _type(like: Any) -> ShapedArray:
    """The type that a `ShapeDtypeStruct`, an array or a number stands for."""
    like = like if hasattr(like, "dtype") else canonicalize(like)
    return ShapedArray(tuple(like.shape), np.dtype(like.dtype))


def numba_call(
    kernel: Callable[..., Any],
    result: Any,
    *,
    derivative: Callable[..., Any] | Sequence[Callable[..., Any] | None] | None = None,
    jvp: Callable[..., Any] | None = None,
    vectorized: bool = False,
) -> Callable[..., Any]:
    """A Numba kernel as a function that takes part in every transformation, with a derivative rule of the user's.

    Args:
        kernel: a function compiled by `numba.njit` that returns one array or number, or a plain one to be compiled on
            first use.
        result: the result's type, a `ShapeDtypeStruct`, or a function that gives it from those of the arguments.
        derivative: for kernels that work element by element on arguments of the result's shape: one partial
            derivative per argument, None for zero, each `f(*args, out)`, written in NumPy.
        jvp: the derivative of any other kernel: `jvp(primals, tangents, out)` gives the output tangent, written in
            NumPy and linear in the tangents; a zero tangent arrives as None, and is returned as None.
        vectorized: whether one call of the kernel may take all arguments, and give its result, with a further leading
            axis; else `vmap` calls it once per example.

    Returns:
        A function of arrays.

    Raises:
        ArgumentError: both `derivative` and `jvp` are given.
        CallbackError: the kernel returns another type, or a derivative without a rule is asked for (when called).

    Example:
        >>> import numpy as np
        >>> import numba
        >>> import functrace
        >>> @numba.njit
        ... def soft(x):
        ...     return np.log1p(np.exp(x))
        >>> softplus = functrace.numba_call(soft, lambda x: x, derivative=lambda x, out: 1 - np.exp(-out))
        >>> functrace.grad(softplus)(0.0)
        np.float64(0.5)
    """
    if derivative is not None and jvp is not None:
        raise ArgumentError(
            "numba_call takes derivative or jvp, not both",
            where=user_line(),
            remedy="give partial derivatives for elementwise kernels, jvp for others",
        )
    partials = (derivative,) if callable(derivative) else derivative
    run = _Kernel(kernel)

    @functools.wraps(kernel)
    def function(*args: Any) -> Any:
        values = [canonicalize(a) for a in args]
        avals = [aval_of(v) for v in values]
        out_aval = _type(result(*avals) if callable(result) else result)
        rule = None
        if partials is not None:
            _check_partials(partials, avals, out_aval)
            rule = functools.partial(_by_partials, partials)
        elif jvp is not None:
            rule = functools.partial(_by_jvp, jvp)
        (out,) = callbacks.pure_callback.bind(
            *values,
            callback=run,
            avals=(out_aval,),
            name=f"numba_call({getattr(kernel, '__name__', 'kernel')})",
            vmap_method="broadcast_all" if vectorized else "sequential",
            rule=rule,
        )
        return out

    return function


class _Kernel:
    """A kernel with one result, compiled on first use if it is not yet."""

    def __init__(self, kernel: Callable[..., Any]) -> None:
        self.kernel = kernel
        self.compiled = hasattr(kernel, "py_func")

    def __call__(self, *values: Any) -> list[Any]:
        self._compile()
        return [self.kernel(*values)]

    def _compile(self) -> None:
        if not self.compiled:
            import numba

            self.kernel, self.compiled = numba.njit(self.kernel), True

    def native(self, operands: Sequence[ShapedArray], result: ShapedArray) -> NativeKernel | None:
        """The kernel for programs that call it by its address, if it can be."""
        self._compile()
        return kernel_address(self.kernel, operands, result)


def _check_partials(partials: Sequence[Any], avals: Sequence[ShapedArray], out: ShapedArray) -> None:
    if len(partials) != len(avals):
        raise CallbackError(
            "numba_call needs one partial derivative, or None, per argument",
            where=user_line(),
            got=f"{len(partials)} for {len(avals)} arguments",
            remedy="pass derivative=(f, None, ...), None for an argument without derivative",
        )
    for partial, aval in zip(partials, avals, strict=True):
        if partial is not None and aval.shape != out.shape:
            raise CallbackError(
                "numba_call takes partial derivatives of elementwise kernels only",
                where=user_line(),
                got=f"argument {aval}, result {out}",
                remedy="give the rule as jvp=..., or broadcast the arguments first",
            )


def _by_partials(partials: Sequence[Any], *values: Any) -> list[Any]:
    count = len(partials)
    primals, tangents, (out,) = values[:count], values[count : 2 * count], values[2 * count :]
    total = None
    for partial, tangent in zip(partials, tangents, strict=True):
        if partial is not None and tangent is not None:
            term = partial(*primals, out) * tangent
            total = term if total is None else total + term
    return [_checked_tangent(total, out)]


def _by_jvp(jvp: Callable[..., Any], *values: Any) -> list[Any]:
    count = len(values) // 2
    return [_checked_tangent(jvp(tuple(values[:count]), tuple(values[count : 2 * count]), values[-1]), values[-1])]


def _checked_tangent(tangent: Any, out: Any) -> Any:
    aval = aval_of(out)
    if tangent is None or not is_inexact(aval.dtype):
        return None
    value = canonicalize(tangent)
    if aval_of(value) != aval:
        raise CallbackError(
            "a rule of numba_call gives a tangent of another type than the result",
            where=user_line(),
            got=f"tangent {aval_of(value)} for result {aval}",
            remedy="return one tangent of the shape and dtype of the result",
        )
    return value
