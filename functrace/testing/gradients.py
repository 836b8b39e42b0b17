"""Checks of a function's derivatives against differences, to any order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from functrace import tree
from functrace.core.types import aval_of, is_inexact
from functrace.errors import ArgumentError, InputError
from functrace.testing.numerical import SEED, RuleError, difference, inner, noise, random_like, require_close
from functrace.transforms import jvp, vjp
from functrace.transforms._flatten import check_functions
from functrace.util import user_line

__all__ = ["check_grads", "check_jvp", "check_vjp"]

_TOLERANCE = {np.dtype(np.float32): 2e-2, np.dtype(np.complex64): 2e-2, np.dtype(np.float16): 1e-1}


def _tolerance(given: float | None, leaves: Iterable[Any]) -> float:
    return max((_TOLERANCE.get(v.dtype, 1e-6) for v in leaves), default=1e-6) if given is None else given


def _leaves(values: Any) -> list[Any]:
    return [v if hasattr(v, "dtype") else np.asarray(v)[()] for v in tree.leaves(values)]


def _flat(f: Callable[..., Any], args: Any) -> tuple[list[Any], tree.TreeDef, Callable[..., list[Any]]]:
    leaves, structure = _leaves(args), tree.structure(args)
    return leaves, structure, lambda *values: _leaves(f(*tree.unflatten(structure, list(values))))


def _require_call(check: str, args: Any, **functions: Any) -> None:
    """Raise unless functions are functions, and arguments a tuple or list of them."""
    check_functions(check, **functions)
    if not isinstance(args, (tuple, list)):
        raise InputError(
            f"{check} takes the function's arguments as a tuple",
            where=user_line(),
            got=type(args).__name__,
            remedy="write (x,) for one argument",
        )


def _float_outputs(outs: Sequence[Any]) -> list[int]:
    return [i for i, o in enumerate(outs) if is_inexact(o.dtype)]


def check_jvp(
    f: Callable[..., Any],
    f_jvp: Callable[..., Any],
    args: Sequence[Any],
    atol: float | None = None,
    rtol: float | None = None,
    eps: float | None = None,
) -> None:
    """Check a forward derivative against differences of the function, along a random direction.

    Args:
        f: function of arrays or pytrees of arrays.
        f_jvp: from (arguments, tangents), two tuples, to (output, output tangent), as `functools.partial(jvp, f)`.
        args: the arguments, away from kinks.
        atol, rtol: tolerances; by default they suit the precision.
        eps: the step of the differences.

    Raises:
        RuleError: they differ.

    Example:
        >>> import functools
        >>> import numpy as np
        >>> import functrace.testing
        >>> check_jvp(np.sin, functools.partial(functrace.jvp, np.sin), (0.5,))
    """
    _require_call("check_jvp", args, f=f, f_jvp=f_jvp)
    rng = np.random.default_rng(SEED)
    leaves, structure, flat = _flat(f, tuple(args))
    direction = [random_like(rng, leaf) for leaf in leaves]
    out, out_dot = f_jvp(tree.unflatten(structure, leaves), tree.unflatten(structure, direction))
    outs = flat(*leaves)
    atol, rtol = _tolerance(atol, [*leaves, *outs]), _tolerance(rtol, [*leaves, *outs])
    for got, expected in zip(_leaves(out), outs, strict=True):
        require_close("value given by the jvp", got, expected, rtol, atol)
    floats = _float_outputs(outs)
    tangents = _leaves(out_dot)
    numeric = difference(lambda *xs: [flat(*xs)[i] for i in floats], leaves, direction, eps)
    rounding = noise(outs, eps)
    for i, expected in zip(floats, numeric, strict=True):
        require_close(f"jvp of output {i} against differences", tangents[i], expected, rtol, atol + rounding)


def check_vjp(
    f: Callable[..., Any],
    f_vjp: Callable[..., Any],
    args: Sequence[Any],
    atol: float | None = None,
    rtol: float | None = None,
    eps: float | None = None,
) -> None:
    """Check a pullback against differences of the function: <w, Jv> by differences equals <J'w, v>.

    Args:
        f: function of arrays or pytrees of arrays.
        f_vjp: from the arguments to (output, pullback), as `functools.partial(vjp, f)`.
        args: the arguments, away from kinks.
        atol, rtol: tolerances; by default they suit the precision.
        eps: the step of the differences.

    Raises:
        RuleError: they differ.

    Example:
        >>> import functools
        >>> import numpy as np
        >>> import functrace.testing
        >>> functrace.testing.check_vjp(np.sin, functools.partial(functrace.vjp, np.sin), (0.5,))
    """
    _require_call("check_vjp", args, f=f, f_vjp=f_vjp)
    rng = np.random.default_rng(SEED)
    leaves, _, flat = _flat(f, tuple(args))
    outs = flat(*leaves)
    atol, rtol = _tolerance(atol, [*leaves, *outs]), _tolerance(rtol, [*leaves, *outs])
    out, pullback = f_vjp(*args)
    for got, expected in zip(_leaves(out), outs, strict=True):
        require_close("value given by the vjp", got, expected, rtol, atol)
    weights = [random_like(rng, o) for o in outs]
    bars = _leaves(pullback(tree.unflatten(tree.structure(out), weights)))
    for leaf, bar in zip(leaves, bars, strict=True):
        if is_inexact(leaf.dtype) and aval_of(bar) != aval_of(leaf):
            raise RuleError(f"the cotangent of {aval_of(leaf)} is {aval_of(bar)}")
    floats = _float_outputs(outs)
    for _ in range(2):
        direction = [random_like(rng, leaf) for leaf in leaves]
        numeric = difference(lambda *xs: [flat(*xs)[i] for i in floats], leaves, direction, eps)
        expected = inner([weights[i] for i in floats], numeric)
        scale = sum(float(np.sum(np.abs(n))) for n in numeric)
        rounding = noise(outs, eps) * sum(o.size for o in outs)
        require_close("vjp against differences", inner(bars, direction), expected, rtol, atol + rtol * scale + rounding)


def check_grads(
    f: Callable[..., Any],
    args: Sequence[Any],
    order: int = 1,
    modes: Sequence[str] = ("fwd", "rev"),
    atol: float | None = None,
    rtol: float | None = None,
    eps: float | None = None,
) -> None:
    """Check derivatives of a function against differences, in all nestings of the modes up to an order.

    Args:
        f: function of arrays or pytrees of arrays.
        args: the arguments, away from kinks.
        order: the highest order; order 2 differentiates the first derivative again, in each mode.
        modes: "fwd", "rev" or both.
        atol, rtol: tolerances; by default they suit the precision.
        eps: the step of the differences.

    Raises:
        RuleError: a derivative differs; the message starts with the nesting.
        ArgumentError: a mode is neither "fwd" nor "rev".

    Example:
        >>> import numpy as np
        >>> import functrace.testing
        >>> functrace.testing.check_grads(lambda x: (np.sin(x) ** 2).sum(), (np.arange(3.0),), order=2)
    """
    _require_call("check_grads", args, f=f)
    chosen: tuple[Any, ...] = tuple(modes) if not isinstance(modes, str) and hasattr(modes, "__iter__") else (modes,)
    for mode in chosen:
        if mode not in ("fwd", "rev"):
            raise ArgumentError("check_grads knows no such mode", got=repr(mode), remedy="choose among 'fwd' and 'rev'")
    if not chosen or isinstance(order, bool) or not isinstance(order, (int, np.integer)) or order < 0:
        raise ArgumentError(
            "check_grads needs an order, a non-negative integer, and at least one mode",
            where=user_line(),
            got=f"order={order!r}, modes={modes!r}",
            remedy="leave them out for first derivatives in both modes",
        )
    if order > 0:
        _check_grads(f, tuple(args), order, chosen, (atol, rtol, eps), "", np.random.default_rng(SEED))


def _check_grads(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    order: int,
    modes: tuple[str, ...],
    tolerances: tuple[float | None, float | None, float | None],
    path: str,
    rng: np.random.Generator,
) -> None:
    for mode in modes:
        label = f"{mode}{'-' if path else ''}{path}"
        derivative: Callable[..., Any]
        if mode == "fwd":
            tangents = tree.map(lambda x: random_like(rng, np.asarray(x)), args)
            check: Callable[[], None] = lambda: check_jvp(f, lambda xs, ts: jvp(f, xs, ts), args, *tolerances)  # noqa: E731
            derivative = lambda *xs, ts=tangents: jvp(f, xs, ts)[1]  # noqa: E731
        else:
            weights = tree.map(lambda x: random_like(rng, np.asarray(x)), f(*args))
            check = lambda: check_vjp(f, lambda *xs: vjp(f, *xs), args, *tolerances)  # noqa: E731
            derivative = lambda *xs, ws=weights: vjp(f, *xs)[1](ws)  # noqa: E731
        try:
            check()
        except RuleError as error:
            raise RuleError(f"{label}: {error}") from None
        if order > 1:
            _check_grads(derivative, args, order - 1, modes, tolerances, label, rng)
