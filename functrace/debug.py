"""Looking into a running program: `print` and `callback` see the values, also in staged and batched code."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import numpy as np

from functrace import tree
from functrace.control.callbacks import debug_callback
from functrace.core.types import canonicalize
from functrace.errors import InputError
from functrace.transforms._flatten import check_functions
from functrace.util import user_line

__all__ = ["callback", "print"]


def callback(callback: Callable[..., Any], *args: Any, ordered: bool = False, **kwargs: Any) -> None:
    """Call a Python function for its effect, each time the program runs; under `vmap` once per example.

    Args:
        callback: function of NumPy arrays whose result is dropped. Under derivatives it sees the primal values.
        args, kwargs: its arguments, pytrees of arrays.
        ordered: accepted for JAX's sake; callbacks always run in the program's order.

    Example:
        >>> import functrace
        >>> seen = []
        >>> def f(x):
        ...     functrace.debug.callback(lambda v: seen.append(float(v)), x)
        ...     return x * x
        >>> functrace.grad(f)(3.0), seen
        (np.float64(6.0), [3.0])
    """
    check_functions("debug.callback", callback=callback)
    leaves, in_tree = tree.flatten((args, kwargs))

    def run(*values: Any) -> None:
        call_args, call_kwargs = tree.unflatten(in_tree, [np.array(v) for v in values])
        callback(*call_args, **call_kwargs)

    debug_callback.bind(*[canonicalize(leaf) for leaf in leaves], callback=run)


def print(fmt: str, *args: Any, ordered: bool = False, **kwargs: Any) -> None:
    """Print values, each time the program runs.

    Args:
        fmt: a format string, as of `str.format`.
        args, kwargs: what it formats, pytrees of arrays.
        ordered: accepted for JAX's sake; prints always come in the program's order.

    Example:
        >>> import functrace
        >>> def f(x):
        ...     functrace.debug.print("x is {x}", x=x)
        ...     return x * x
        >>> functrace.grad(f)(3.0)
        x is 3.0
        np.float64(6.0)
    """
    if not isinstance(fmt, str):
        raise InputError(
            "debug.print takes a format string first",
            where=user_line(),
            got=type(fmt).__name__,
            remedy='write debug.print("x = {}", x)',
        )
    callback(lambda *a, **k: builtins.print(fmt.format(*a, **k)), *args, ordered=ordered, **kwargs)
