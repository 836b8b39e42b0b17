"""Choices that stay choices when traced: cond, switch, select."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace import tree
from functrace.control._functions import Body, check_branches, flatten_values, stage_body
from functrace.control.cond import cond as cond_primitive
from functrace.control.cond import merge_constants
from functrace.core.ir import ClosedJaxpr, Jaxpr
from functrace.core.types import aval_of, canonicalize
from functrace.errors import ArgumentError, DTypeError
from functrace.primitives.elementwise import convert, maximum, minimum, not_equal, zero_of
from functrace.primitives.elementwise import select as select_primitive
from functrace.primitives.families import broadcast
from functrace.transforms._flatten import check_functions, export
from functrace.util import user_line

__all__ = ["cond", "select", "select_n", "switch"]


def cond(pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], *operands: Any) -> Any:
    """`true_fun(*operands)` where `pred` holds, else `false_fun(*operands)`; only one of them runs.

    Under `vmap` with a batched condition both run and their results are selected.

    Args:
        pred: a scalar; numbers are compared with 0.
        true_fun, false_fun: functions with results of one structure and type.
        operands: their arguments.

    Returns:
        The result of the branch taken.

    Raises:
        CarryError: the branches' results differ in structure or type.

    Example:
        >>> import functrace
        >>> from functrace import lax
        >>> functrace.grad(lambda x: lax.cond(x > 0, lambda x: x * x, lambda x: -x, x))(3.0)
        np.float64(6.0)
    """
    pred = canonicalize(pred)
    if pred.shape != ():
        raise ArgumentError(
            "the condition of cond must be a scalar",
            where=user_line(),
            got=str(aval_of(pred)),
            remedy="reduce it with .any() or .all(), or choose element by element with functrace.numpy.where",
        )
    if pred.dtype.kind != "b":
        pred = not_equal(pred, zero_of(pred))
    return _choose("cond", convert(pred, dtype=np.dtype(np.int32)), (false_fun, true_fun), operands)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """`branches[index](*operands)`; only that one runs. The index is clamped to the branches there are.

    Args:
        index: an integer scalar.
        branches: functions with results of one structure and type.
        operands: their arguments.

    Example:
        >>> from functrace import lax
        >>> lax.switch(1, [lambda x: x, lambda x: 10.0 * x], 2.0)
        np.float64(20.0)
    """
    if not isinstance(branches, (list, tuple)) or not branches:
        raise ArgumentError(
            "switch takes a sequence of at least one branch",
            where=user_line(),
            got="an empty sequence" if isinstance(branches, (list, tuple)) else type(branches).__name__,
            remedy="give a list of functions",
        )
    index = canonicalize(index)
    if index.shape != () or index.dtype.kind not in "iu":
        raise DTypeError(
            "the index of switch must be an integer scalar",
            where=user_line(),
            got=str(aval_of(index)),
            remedy="convert it with .astype(int)",
        )
    index = convert(index, dtype=np.dtype(np.int32))
    last = np.int32(len(branches) - 1)
    return _choose("switch", minimum(maximum(index, np.int32(0)), last), branches, operands)


def _choose(name: str, index: Any, functions: Sequence[Callable[..., Any]], operands: tuple[Any, ...]) -> Any:
    for function in functions:
        check_functions(name, branch=function)
    leaves, in_tree, weak = flatten_values(operands)
    avals = [aval_of(leaf) for leaf in leaves]
    bodies = [stage_body(function, in_tree, avals, weak) for function in functions]
    check_branches(name, [body.out_tree for body in bodies], [body.out_avals for body in bodies])
    branches, constants = merge_constants([_closed(body) for body in bodies])
    outs = cond_primitive.bind(index, *constants, *leaves, branches=branches)
    return tree.unflatten(bodies[0].out_tree, export(outs, [*constants, *leaves]))


def _closed(body: Body) -> ClosedJaxpr:
    count, jaxpr = len(body.constants), body.jaxpr
    return ClosedJaxpr(Jaxpr(jaxpr.invars[:count], jaxpr.invars[count:], jaxpr.eqns, jaxpr.outvars), body.constants)


def select(pred: Any, on_true: Any, on_false: Any) -> Any:
    """Element by element, `on_true` where `pred` holds, else `on_false`; the three have one shape.

    The branch not taken contributes nothing to derivatives, not even NaN.

    Example:
        >>> import numpy as np
        >>> from functrace import lax
        >>> lax.select(np.array([True, False]), np.array([1.0, 2.0]), np.array([3.0, 4.0]))
        array([1., 4.])
    """
    return select_n(pred, on_false, on_true)


def select_n(which: Any, *cases: Any) -> Any:
    """Element by element, `cases[which]`; `which` is boolean (two cases) or integer, a scalar or of the cases' shape.

    Example:
        >>> import numpy as np
        >>> from functrace import lax
        >>> lax.select_n(np.array([2, 0]), np.array([1, 2]), np.array([3, 4]), np.array([5, 6]))
        array([5, 2])
    """
    which, *values = (canonicalize(v) for v in (which, *cases))
    shapes = {v.shape for v in values}
    if len(shapes) != 1 or which.shape not in {(), *shapes} or len({v.dtype for v in values}) != 1:
        raise ArgumentError(
            "select needs cases of one shape and dtype, and a condition of that shape or a scalar",
            where=user_line(),
            got=", ".join(str(aval_of(v)) for v in (which, *values)),
            remedy="use functrace.numpy.where, which broadcasts and promotes",
        )
    out = values[-1]
    for i in range(len(values) - 2, -1, -1):
        mask = which == (bool(i) if which.dtype.kind == "b" else i)
        if mask.shape != out.shape:
            mask = broadcast(mask, shape=out.shape, axes=())
        out = select_primitive(mask, values[i], out)
    return out
