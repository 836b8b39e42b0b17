"""make_jaxpr, eval_jaxpr and eval_shape: a function as a program, run again or asked for the types of its results."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace import tree
from functrace.core import ir
from functrace.core.ir import ClosedJaxpr, Jaxpr
from functrace.core.types import ShapedArray, aval_of, canonicalize
from functrace.errors import ArgumentError, InputError
from functrace.interpreters.staging import stage
from functrace.transforms._flatten import argument_positions, call, check_callable, check_hashable, export, owned
from functrace.util import user_line, without_collection

__all__ = ["ShapeDtypeStruct", "eval_jaxpr", "eval_shape", "make_jaxpr"]

_WEAK = (float, int, complex)


class ShapeDtypeStruct(ShapedArray):
    """The type of an array, to stand for one where only the type matters.

    Example:
        >>> import functrace
        >>> functrace.ShapeDtypeStruct((2, 3), float)
        ShapeDtypeStruct(shape=(2, 3), dtype=float64)
    """

    __slots__ = ()
    __hash__ = ShapedArray.__hash__

    def __init__(self, shape: Sequence[int], dtype: Any) -> None:
        try:
            lengths = tuple(operator.index(n) for n in shape)
            super().__init__(lengths, np.dtype(dtype))
        except TypeError as error:
            raise ArgumentError(
                f"a ShapeDtypeStruct holds a tuple of integers and a dtype: {error}",
                where=user_line(),
                got=f"{shape!r}, {dtype!r}",
                remedy="write ShapeDtypeStruct((2, 3), float)",
            ) from None

    def __repr__(self) -> str:
        return f"ShapeDtypeStruct(shape={self.shape}, dtype={self.dtype.name})"


def make_jaxpr(
    fun: Callable[..., Any], static_argnums: int | Sequence[int] = (), return_shape: bool = False
) -> Callable[..., Any]:
    """A function that records `fun` as a jaxpr instead of running it.

    Args:
        fun: function of arrays or pytrees of arrays.
        static_argnums: positional arguments that Python sees as they are; they must be hashable.
        return_shape: whether to give the output's `ShapeDtypeStruct`s too.

    Returns:
        A function of the same arguments (values or `ShapeDtypeStruct`s) that gives a `ClosedJaxpr`, or the pair
        (jaxpr, output types) if `return_shape`.

    Raises:
        AbstractValueError: `fun` branches in Python on a traced value (when called).

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> functrace.make_jaxpr(lambda x: np.sin(x) * 2.0)(1.0)
        { lambda a:float64[] . let
            b:float64[] = sin a
            c:float64[] = mul b 2.0
          in (c,) }
    """
    check_callable(fun, "make_jaxpr")

    @functools.wraps(fun)
    def make_jaxpr_fun(*args: Any, **kwargs: Any) -> Any:
        closed, out = _stage(fun, args, kwargs, static_argnums)
        return (closed, out) if return_shape else closed

    return make_jaxpr_fun


def eval_jaxpr(jaxpr: Jaxpr, consts: Sequence[Any], *args: Any) -> list[Any]:
    """Run a jaxpr, under whatever transformation is going on, so that it can be transformed again.

    Args:
        jaxpr: the program, `closed.jaxpr` of a `ClosedJaxpr`.
        consts: one value per constvar, `closed.consts`.
        args: one value per invar, of the invar's shape and dtype.

    Returns:
        The list of output values.

    Raises:
        ArgumentError: the arguments are not of the program's types.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> closed = functrace.make_jaxpr(lambda x: np.sin(x) * 2.0)(1.0)
        >>> functrace.eval_jaxpr(closed.jaxpr, closed.consts, 0.0)
        [np.float64(0.0)]
    """
    if not isinstance(jaxpr, Jaxpr) or not isinstance(consts, (list, tuple)):
        raise InputError(
            "eval_jaxpr takes a jaxpr and the list of its constants",
            where=user_line(),
            got=f"{type(jaxpr).__name__}, {type(consts).__name__}",
            remedy="write eval_jaxpr(closed.jaxpr, closed.consts, *args) for what make_jaxpr gave",
        )
    avals = jaxpr.in_avals
    values = [_as_type(arg, aval) for arg, aval in zip(args, avals, strict=False)]
    if len(args) != len(avals) or [aval_of(v) for v in values] != avals:
        raise ArgumentError(
            "the arguments are not of the types that the jaxpr was recorded for",
            where=user_line(),
            got=f"{', '.join(str(aval_of(v)) for v in values)} for {', '.join(map(str, avals))}",
            remedy="convert the arguments, or record the function for these types with make_jaxpr",
        )
    return export(ir.eval_jaxpr(jaxpr, consts, *values), [*consts, *values])


def _as_type(arg: Any, aval: ShapedArray) -> Any:
    """The canonical argument; a Python number takes the dtype wanted if it fits its kind."""
    if type(arg) in _WEAK and np.can_cast(type(arg), aval.dtype, "same_kind"):
        return aval.dtype.type(arg)
    return canonicalize(owned(arg, copy=False))


def eval_shape(fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The types of `fun`'s results, found without computing them.

    Args:
        fun: function of arrays or pytrees of arrays.
        args, kwargs: its arguments, values or `ShapeDtypeStruct`s.

    Returns:
        A tree of `ShapeDtypeStruct`s like the output.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> functrace.eval_shape(np.dot, np.ones((2, 3)), functrace.ShapeDtypeStruct((3, 4), float))
        ShapeDtypeStruct(shape=(2, 4), dtype=float64)
    """
    check_callable(fun, "eval_shape")
    return _stage(fun, args, kwargs, ())[1]


def _stage(
    fun: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], static_argnums: int | Sequence[int]
) -> tuple[ClosedJaxpr, Any]:
    static = () if static_argnums == () else argument_positions(static_argnums, len(args), "make_jaxpr")
    for position in static:
        check_hashable(args[position], f"static argument {position}")
    dynamic = tuple(a for i, a in enumerate(args) if i not in static)
    leaves, in_tree = tree.flatten((dynamic, kwargs))
    avals = [leaf if isinstance(leaf, ShapedArray) else aval_of(canonicalize(leaf)) for leaf in leaves]
    avals = [ShapedArray(a.shape, a.dtype) for a in avals]
    out_tree: list[tree.TreeDef] = []

    def flat_fun(*values: Any) -> list[Any]:
        call_dynamic, call_kwargs = tree.unflatten(in_tree, values)
        rest = iter(call_dynamic)
        call_args = [args[i] if i in static else next(rest) for i in range(len(args))]
        out_leaves, structure = tree.flatten(call(fun, call_args, call_kwargs))
        out_tree.append(structure)
        return [canonicalize(owned(leaf)) for leaf in out_leaves]

    with without_collection():
        closed = stage(flat_fun, avals, [type(leaf) in _WEAK for leaf in leaves])
    shapes = [ShapeDtypeStruct(a.shape, a.dtype) for a in closed.out_avals]
    return closed, tree.unflatten(out_tree[0], shapes)
