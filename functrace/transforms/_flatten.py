"""Between pytrees and flat lists: arguments in, results out, and the checks that go with them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace import tree
from functrace.core.trace import Tracer, leaked
from functrace.core.types import ShapedArray, aval_of, canonicalize, float0, is_changeable, is_inexact, tangent_aval
from functrace.errors import (
    ArgumentError,
    CotangentError,
    FunctraceError,
    InputError,
    NonHashableError,
    TangentError,
    TreeError,
)
from functrace.primitives.shape import zeros
from functrace.util import user_line

__all__ = [
    "FlatFunction", "argument_positions", "call", "check_callable", "check_functions", "check_hashable", "check_like",
    "export", "instantiate", "owned", "snapshot",
]  # fmt: skip

_WEAK = (float, int, complex)


def check_callable(fun: Any, transform: str) -> None:
    """Raise unless `fun` can be called.

    Raises:
        InputError: it cannot; the usual cause is `grad(f(x))` for `grad(f)(x)`.
    """
    if not callable(fun):
        raise InputError(
            f"{transform} takes a function",
            where=user_line(),
            got=type(fun).__name__,
            remedy=f"write {transform}(f)(x), not {transform}(f(x))",
        )


def check_functions(caller: str, **functions: Any) -> None:
    """Raise unless all of a function's arguments of these names can be called.

    Raises:
        InputError: one cannot.
    """
    for name, function in functions.items():
        if not callable(function):
            raise InputError(
                f"{caller} takes a function as {name}",
                where=user_line(),
                got=type(function).__name__,
                remedy="pass the function itself, without calling it",
            )


def argument_positions(argnums: int | Sequence[int], count: int, transform: str) -> tuple[int, ...]:
    """`argnums` as non-negative positions among `count` positional arguments.

    Raises:
        ArgumentError: not integers, out of range, or repeated.
    """
    numbers = argnums if isinstance(argnums, (tuple, list)) else (argnums,)
    if not numbers or not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) for n in numbers):
        raise ArgumentError(
            f"argnums of {transform} must be an integer or a non-empty sequence of integers",
            where=user_line(),
            got=repr(argnums),
            remedy="number the positional arguments from 0, as in argnums=(0, 2)",
        )
    positions = tuple(int(n) + count if n < 0 else int(n) for n in numbers)
    if any(not 0 <= n < count for n in positions):
        raise ArgumentError(
            f"argnums of {transform} names an argument that the call does not have",
            where=user_line(),
            got=f"argnums={argnums!r} for {count} positional argument{'s' * (count != 1)}",
            remedy="pass the differentiated arguments by position; argnums counts them from 0",
        )
    if len(set(positions)) < len(positions):
        raise ArgumentError(
            f"argnums of {transform} names an argument twice",
            where=user_line(),
            got=repr(argnums),
            remedy="name each argument once",
        )
    return positions


class FlatFunction:
    """A call of a user's function as a function of the flat leaves of some of its arguments.

    Args:
        fun: the user's function.
        args, kwargs: the arguments of the call.
        positions: which positional arguments the leaves come from; all by default.
        has_aux: whether `fun` returns a pair (output, auxiliary output).
        keep: whether values are read after the call, so that the user's arrays must be copied.

    Attributes:
        leaves: the canonical leaves of the chosen arguments.
        weak: per leaf, whether it was a Python number.
        in_tree: the structure of the tuple of chosen arguments.
        out_tree, aux_tree: the structures of the result, known after a call.
    """

    __slots__ = (
        "_args", "_fun", "_has_aux", "_kwargs", "_positions", "aux_tree", "in_tree", "leaves", "out_tree", "weak",
    )  # fmt: skip

    def __init__(
        self,
        fun: Callable[..., Any],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        positions: Sequence[int] | None = None,
        has_aux: bool = False,
        keep: bool = True,
    ) -> None:
        self._fun, self._args, self._kwargs, self._positions, self._has_aux = fun, args, kwargs, positions, has_aux
        chosen = tuple(args) if positions is None else tuple([args[i] for i in positions])
        leaves, self.in_tree = tree.flatten(chosen)
        self.weak = [type(leaf) in _WEAK for leaf in leaves]
        self.leaves = [snapshot(leaf) if keep else canonicalize(owned(leaf, False)) for leaf in leaves]
        self.out_tree: tree.TreeDef
        self.aux_tree: tree.TreeDef | None = None

    def __call__(self, *leaves: Any) -> list[Any]:
        """Outputs, then auxiliary outputs, flat."""
        chosen = tree.unflatten(self.in_tree, leaves)
        if self._positions is None:
            out = call(self._fun, chosen, self._kwargs)
        else:
            args = list(self._args)
            for position, value in zip(self._positions, chosen, strict=True):
                args[position] = value
            out = call(self._fun, args, self._kwargs)
        aux_leaves: list[Any] = []
        if self._has_aux:
            if not isinstance(out, (tuple, list)) or len(out) != 2:
                raise ArgumentError(
                    "with has_aux=True the function must return a pair (output, auxiliary output)",
                    where=user_line(),
                    got=type(out).__name__,
                    remedy="return output, aux",
                )
            out, aux = out
            aux_leaves, self.aux_tree = tree.flatten(aux)
        out_leaves, self.out_tree = tree.flatten(out)
        return [*[canonicalize(owned(leaf)) for leaf in out_leaves], *map(owned, aux_leaves)]

    def results(self, flat: Sequence[Any], count: int | None = None) -> tuple[Any, Any]:
        """The flat outputs as (output, auxiliary output) trees; None for the second without `has_aux`."""
        split = self.out_tree.num_leaves if count is None else count
        out = tree.unflatten(self.out_tree, list(flat[:split]))
        aux = None if self.aux_tree is None else tree.unflatten(self.aux_tree, list(flat[split:]))
        return out, aux


def call(fun: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Call a user's function; an error of ours that compiled code has put inside another comes out as ours."""
    try:
        return fun(*args, **kwargs)
    except (ValueError, SystemError) as error:
        ours = error.__cause__
        if isinstance(error, FunctraceError) or not isinstance(ours, FunctraceError):
            raise
        raise ours.with_traceback(error.__traceback__) from None


def snapshot(leaf: Any) -> Any:
    """The canonical leaf, out of reach of later changes to the user's array."""
    value = canonicalize(owned(leaf, False))
    if isinstance(value, Tracer):
        return value.snapshot()
    return value.copy() if type(value) is np.ndarray and is_changeable(value) else value


def owned(leaf: Any, copy: bool = True) -> Any:
    """A leaf of a user's arguments or, with `copy`, results, in which an array may be one that the user keeps.

    Raises:
        LeakedTracerError: it is a tracer of a transformation that has ended.
    """
    if isinstance(leaf, Tracer):
        if not leaf._trace.alive:
            raise leaked(leaf)
    elif copy and type(leaf) is np.ndarray:
        return leaf.copy()
    return leaf


def export(values: Sequence[Any], shared: Sequence[Any] = ()) -> list[Any]:
    """Results as a user may keep and change them: arrays of their own, writeable, shared with nothing.

    Args:
        values: results; scalars pass, and tracers become others of the same value.
        shared: values that somebody else holds (residuals, inputs); an equal object among the results is copied.
    """
    seen = {id(v) for v in shared}
    results = []
    for value in values:
        if type(value) is np.ndarray:
            if value.ndim == 0:
                value = value[()]
            else:
                if not _is_own(value) or id(value) in seen:
                    value = value.copy()
                seen.add(id(value))
        elif isinstance(value, Tracer):
            value = value.snapshot()
        results.append(value)
    return results


def _references_to_base(view: np.ndarray) -> int:
    return sys.getrefcount(view.base)


#: How many these are if there is no other than the view's.
_SOLE = _references_to_base(np.ones((2, 2)).T.reshape(4))


def _is_own(value: np.ndarray) -> bool:
    """Whether nobody else holds an array's memory.

    A reshape that has to copy gives a view of the copy, and nothing but the view refers to that.
    """
    if not value.flags.writeable:
        return False
    if value.base is None:
        return True
    if type(value.base) is not np.ndarray or value.base.base is not None or not value.flags.c_contiguous:
        return False
    return value.base.nbytes == value.nbytes and value.base.flags.owndata and _references_to_base(value) <= _SOLE


def instantiate(value: Any, aval: ShapedArray) -> Any:
    """A tangent or cotangent, symbolic zeros made into arrays."""
    if value is not None:
        return value
    return np.zeros(aval.shape, float0) if not is_inexact(aval.dtype) else zeros(aval)


def check_like(values: Any, in_tree: tree.TreeDef, avals: Sequence[ShapedArray], what: str) -> list[Any]:
    """Tangents or cotangents as a flat list that matches the primals; zeros of type float0 become None.

    Args:
        what: "tangent" or "cotangent", for the message.

    Raises:
        TangentError, CotangentError: tree, shape or dtype differ.
    """
    error = TangentError if what == "tangent" else CotangentError
    primal = "primal" if what == "tangent" else "output"
    try:
        leaves = in_tree.flatten_up_to(values)
    except TreeError as mismatch:
        raise error(
            f"the {what}s have another tree structure than the {primal}s",
            where=user_line(),
            got=str(mismatch).partition("\n")[0],
            remedy=f"give each {primal} a {what} of its shape and dtype, in the same containers",
        ) from None
    return [_match(leaf, aval, what, primal, error) for leaf, aval in zip(leaves, avals, strict=True)]


def _match(leaf: Any, aval: ShapedArray, what: str, primal: str, error: type[TangentError | CotangentError]) -> Any:
    if leaf is None:
        return None
    if isinstance(leaf, np.ndarray) and leaf.dtype == float0:
        value_aval = ShapedArray(leaf.shape, float0)
    else:
        try:
            value = canonicalize(owned(leaf, False))
        except InputError as mismatch:
            raise error(
                f"a {what} is no number or numeric array",
                where=user_line(),
                got=f"{type(leaf).__name__} for {primal} {aval}",
                remedy=f"give each {primal} a {what} of its shape and dtype, in the same containers",
            ) from mismatch
        if type(leaf) in _WEAK and is_inexact(aval.dtype) and np.can_cast(type(leaf), aval.dtype, "same_kind"):
            value = aval.dtype.type(leaf)
        value_aval = aval_of(value)
    expected = tangent_aval(aval)
    if value_aval != expected:
        if expected.dtype == float0 and value_aval.shape == aval.shape and _is_zero(leaf):
            return None
        raise error(
            f"a {what} must have the shape and dtype of its {primal}",
            where=user_line(),
            got=f"{what} {value_aval} for {primal} {aval}",
            remedy=f"make the {what} {expected}, for instance with numpy.asarray({what}, dtype={expected.dtype.name!r})"
            if expected.dtype != float0
            else f"an integer or boolean {primal} has no derivative: give numpy.zeros(shape, functrace.float0) or None",
        )
    return None if expected.dtype == float0 else value


def _is_zero(value: Any) -> bool:
    return not isinstance(value, Tracer) and not np.any(value)


def check_hashable(value: Any, what: str) -> None:
    """Raise unless a static argument can be hashed.

    Raises:
        NonHashableError: it cannot.
    """
    try:
        hash(value)
    except TypeError:
        raise NonHashableError(
            f"{what} must be hashable",
            where=user_line(),
            got=type(value).__name__,
            remedy="pass a tuple instead of a list, or make the argument a traced one",
        ) from None
