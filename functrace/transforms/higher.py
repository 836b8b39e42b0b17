"""Higher derivatives: Taylor series (jet), the n-th derivative of a function of one number, products with Hessians."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import functrace.control.taylor  # noqa: F401  (defines the rules of loops and branches)
from functrace import tree
from functrace.core.trace import current_trace
from functrace.core.types import aval_of, canonicalize
from functrace.errors import ArgumentError, InputError, TangentError
from functrace.interpreters.taylor import taylor
from functrace.primitives.shape import zeros
from functrace.transforms._flatten import FlatFunction, check_callable, check_like, export
from functrace.util import user_line

__all__ = ["jet", "nth_derivative", "vhv"]


def jet(fun: Callable[..., Any], primals: Sequence[Any], series: Sequence[Sequence[Any]]) -> tuple[Any, list[Any]]:
    """Value of `fun` and the derivatives of `t -> fun(x(t))` at 0, from those of x (Taylor mode).

    Args:
        fun: function of arrays or pytrees of arrays.
        primals: the arguments at t = 0.
        series: per argument, the list of its derivatives of order 1, 2, ... K in t, each like the argument.

    Returns:
        The output, and the list of its K derivatives.

    Raises:
        ArgumentError: the series differ in length.
        TangentError: a derivative does not match its argument.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> functrace.jet(np.sin, (0.0,), ((1.0, 0.0, 0.0),))
        (np.float64(0.0), [np.float64(1.0), np.float64(0.0), np.float64(-1.0)])
    """
    check_callable(fun, "jet")
    for name, values in (("primals", primals), ("series", series)):
        if not isinstance(values, (tuple, list)):
            raise InputError(
                f"jet takes a sequence as {name}, with one entry per argument",
                where=user_line(),
                got=type(values).__name__,
                remedy="write jet(f, (x,), ((1.0, 0.0),))",
            )
    if any(not isinstance(s, (tuple, list)) and not np.ndim(s) for s in series):
        raise InputError(
            "a series of jet is a sequence of derivatives, from the first order on",
            where=user_line(),
            got=", ".join(type(s).__name__ for s in series),
            remedy="write jet(f, (x,), ((1.0, 0.0),))",
        )
    flat = FlatFunction(fun, primals, {}, keep=current_trace().captures)
    lengths = {len(s) for s in series}
    if len(lengths) != 1 or len(series) != len(primals):
        raise ArgumentError(
            "jet needs one series per argument, all of one length",
            where=user_line(),
            got=f"series of lengths {[len(s) for s in series]} for {len(primals)} arguments",
            remedy="pad the shorter series with zeros",
        )
    (order,) = lengths
    avals = [aval_of(leaf) for leaf in flat.leaves]
    by_order = [check_like(tuple(s[k] for s in series), flat.in_tree, avals, "tangent") for k in range(order)]
    factorials = [float(math.factorial(k)) for k in range(1, order + 1)]
    scaled = [
        [None if terms[i] is None else terms[i] / f for f, terms in zip(factorials, by_order, strict=True)]
        for i in range(len(avals))
    ]
    values, coefficients = taylor(flat, flat.leaves, scaled, order, flat.weak)
    pairs = list(zip(values, coefficients, strict=True))
    derivatives = [
        [zeros(aval_of(v)) if c[k] is None else c[k] * f for v, c in pairs] for k, f in enumerate(factorials)
    ]
    out, _ = flat.results(export(values, flat.leaves))
    return out, [tree.unflatten(flat.out_tree, export(d)) for d in derivatives]


def nth_derivative(fun: Callable[[Any], Any], n: int) -> Callable[[Any], Any]:
    """The n-th derivative of a function of one number, in time quadratic in n.

    Args:
        fun: function of a real scalar, with any output.
        n: the order, 0 or more.

    Returns:
        A function of the same scalar.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> functrace.nth_derivative(lambda x: x**5, 3)(2.0)
        np.float64(240.0)
    """
    check_callable(fun, "nth_derivative")
    if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 0:
        raise ArgumentError(
            "the order of nth_derivative is a non-negative integer",
            where=user_line(),
            got=repr(n),
            remedy="give n = 0 for the function itself, 1 for its derivative",
        )

    @functools.wraps(fun)
    def derivative(x: Any) -> Any:
        point = canonicalize(x)
        if np.shape(point) != () or point.dtype.kind != "f":
            raise TangentError(
                "nth_derivative needs a function of one real number",
                where=user_line(),
                got=str(aval_of(point)),
                remedy="use jet along a direction for functions of arrays",
            )
        if n == 0:
            return fun(x)
        one, nothing = point.dtype.type(1), point.dtype.type(0)
        return jet(fun, (x,), ([one, *[nothing] * (n - 1)],))[1][-1]

    return derivative


def vhv(fun: Callable[[Any], Any], x: Any, v: Any) -> Any:
    """v'Hv, the second derivative of `fun` at `x` along `v`, in one forward pass and without the Hessian.

    Args:
        fun: function of one array or pytree; if its output is not a scalar, each element is differentiated.
        x: the point.
        v: the direction, of the same structure, shapes and dtypes.

    Returns:
        The second derivative, shaped like the output.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> functrace.vhv(lambda x: (x**3).sum(), np.array([1.0, 2.0]), np.array([1.0, 1.0]))
        np.float64(18.0)
    """
    return jet(fun, (x,), ((v, tree.map(lambda leaf: canonicalize(leaf) * 0, v)),))[1][1]
