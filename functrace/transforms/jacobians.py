"""Whole Jacobians and Hessians: one linearization, then all basis directions in one batched sweep."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from functrace import tree
from functrace.core.trace import current_trace
from functrace.core.types import aval_of
from functrace.errors import ArgumentError, CustomRuleError, MissingRuleError
from functrace.interpreters import jvp as forward
from functrace.interpreters.linearize import LinearProgram, is_staged, linearize
from functrace.interpreters.transpose import backward_pass
from functrace.transforms._choice import form
from functrace.transforms._flatten import FlatFunction, argument_positions, check_callable
from functrace.transforms._sweeps import basis, check_kinds, finish, split, sweep
from functrace.util import user_line

__all__ = ["hessian", "jacfwd", "jacobian", "jacrev"]


def jacfwd(
    fun: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False, holomorphic: bool = False
) -> Callable[..., Any]:
    """The Jacobian by forward mode: one tangent per input element, all in one batch. Best for few inputs.

    Args:
        fun: function of arrays or pytrees of arrays.
        argnums: which positional arguments to differentiate.
        has_aux: whether `fun` returns a pair (output, auxiliary output).
        holomorphic: whether `fun` is holomorphic; then inputs and outputs must be complex.

    Returns:
        A function of the same arguments that gives, for each output, an array of output shape followed by input shape.

    Raises:
        NonDifferentiableInputError: an input or output is not floating point (when called).

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> functrace.jacfwd(lambda x: x * x)(np.array([1.0, 2.0]))
        array([[2., 0.],
               [0., 4.]])
    """
    check_callable(fun, "jacfwd")

    @functools.wraps(fun)
    def jacobian_fun(*args: Any, **kwargs: Any) -> Any:
        positions = argument_positions(argnums, len(args), "jacfwd")
        flat = FlatFunction(fun, args, kwargs, positions, has_aux)
        in_avals = [aval_of(leaf) for leaf in flat.leaves]
        check_kinds(in_avals, holomorphic, "jacfwd", "input")
        values: list[Any] = []

        def push(*tangents: Any) -> list[Any]:
            values[:], out_tangents = forward.jvp(flat, flat.leaves, tangents, flat.weak)
            return out_tangents[: flat.out_tree.num_leaves]

        columns = sweep(push, basis(in_avals), values)
        out_avals = [aval_of(v) for v in values[: flat.out_tree.num_leaves]]
        check_kinds(out_avals, holomorphic, "jacfwd", "output")
        blocks = [split(c, o, in_avals, True) for c, o in zip(columns, out_avals, strict=True)]
        return finish(flat, values, blocks, argnums, has_aux)

    return jacobian_fun


def jacrev(
    fun: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False, holomorphic: bool = False
) -> Callable[..., Any]:
    """The Jacobian by reverse mode: one cotangent per output element, all in one batch. Best for few outputs.

    Args:
        fun: function of arrays or pytrees of arrays.
        argnums: which positional arguments to differentiate.
        has_aux: whether `fun` returns a pair (output, auxiliary output).
        holomorphic: whether `fun` is holomorphic; then inputs and outputs must be complex.

    Returns:
        A function of the same arguments that gives, for each output, an array of output shape followed by input shape.

    Raises:
        NonDifferentiableInputError: an input or output is not floating point (when called).

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> functrace.jacrev(lambda x: np.array([[1.0, 2.0]]) @ x)(np.array([5.0, 7.0]))
        array([[1., 2.]])
    """
    check_callable(fun, "jacrev")

    @functools.wraps(fun)
    def jacobian_fun(*args: Any, **kwargs: Any) -> Any:
        positions = argument_positions(argnums, len(args), "jacrev")
        flat = FlatFunction(fun, args, kwargs, positions, has_aux)
        in_avals = [aval_of(leaf) for leaf in flat.leaves]
        check_kinds(in_avals, holomorphic, "jacrev", "input")
        values, program = linearize(flat, flat.leaves, None, flat.weak)
        out_avals = [aval_of(v) for v in values[: flat.out_tree.num_leaves]]
        check_kinds(out_avals, holomorphic, "jacrev", "output")

        def pull(*bars: Any) -> list[Any]:
            return backward_pass(program.eqns, program.invars, program.outvars[: len(out_avals)], bars)

        rows = sweep(pull, basis(out_avals))
        by_input = [split(r, i, out_avals, False) for r, i in zip(rows, in_avals, strict=True)]
        blocks = [[by_input[i][o] for i in range(len(in_avals))] for o in range(len(out_avals))]
        return finish(flat, values, blocks, argnums, has_aux)

    return jacobian_fun


_MODES = {"forward": jacfwd, "reverse": jacrev}


def jacobian(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    mode: str = "auto",
) -> Callable[..., Any]:
    """The Jacobian in the mode that is predicted to be fastest.

    The function is linearized once. Forward mode then takes a sweep for each input, reverse mode one for each output.
    Where everything passes through a few numbers (a waist: R^1000 -> R^10 -> R^1000), the Jacobians before and after
    them are formed in their best modes and multiplied. Where the pattern is sparse, columns (or rows) that share no
    row (or column) are swept together; not in programs being compiled. The price of each comes from the linear program
    itself: that of NumPy calls, or in a program being compiled that of machine code. The choice is remembered per
    function and types of arguments.

    Args:
        fun: function of arrays or pytrees of arrays.
        argnums: which positional arguments to differentiate.
        has_aux: whether `fun` returns a pair (output, auxiliary output).
        holomorphic: whether `fun` is holomorphic; then inputs and outputs must be complex.
        mode: "auto", "forward" (as `jacfwd`) or "reverse" (as `jacrev`); or "split" at the waist wherever there is one,
            without the check that no factor is infinite.

    Returns:
        A function of the same arguments that gives, for each output, an array of output shape followed by input shape.

    Raises:
        ArgumentError: `mode` is none of the four.
        NonDifferentiableInputError: an input or output is not floating point (when called).

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> functrace.jacobian(lambda x: x * x.sum())(np.array([1.0, 2.0]))
        array([[4., 1.],
               [2., 5.]])
    """
    check_callable(fun, "jacobian")
    if isinstance(mode, str) and mode in _MODES:
        return _MODES[mode](fun, argnums, has_aux, holomorphic)
    if not isinstance(mode, str) or mode not in ("auto", "split"):
        raise ArgumentError(
            "jacobian knows no such mode",
            where=user_line(),
            got=repr(mode),
            remedy="choose one of 'auto', 'forward', 'reverse', 'split'",
        )

    fixed = {name: way(fun, argnums, has_aux, holomorphic) for name, way in _MODES.items()}
    chosen = _choices_of(fun) if mode == "auto" else {}
    argnums_key = tuple(argnums) if isinstance(argnums, (tuple, list)) else argnums

    @functools.wraps(fun)
    def jacobian_fun(*args: Any, **kwargs: Any) -> Any:
        leaves = args if not kwargs else tree.leaves((args, kwargs))
        key = (argnums_key, is_staged(current_trace()), *map(_type_of, leaves))
        way = fixed.get(chosen.get(key, ""))
        if way is not None:
            return way(*args, **kwargs)
        positions = argument_positions(argnums, len(args), "jacobian")
        flat = FlatFunction(fun, args, kwargs, positions, has_aux)
        in_avals = [aval_of(leaf) for leaf in flat.leaves]
        if not in_avals or any(a.dtype.kind != "f" for a in in_avals):
            return fixed["reverse"](*args, **kwargs)
        values, program = linearize(flat, flat.leaves, None, flat.weak)
        count = flat.out_tree.num_leaves
        out_avals = [aval_of(v) for v in values[:count]]
        if any(a.dtype != in_avals[0].dtype for a in (*in_avals, *out_avals)):
            real = all(a.dtype.kind == "f" for a in out_avals)
            return fixed["reverse" if real or holomorphic else "forward"](*args, **kwargs)
        if mode == "split":
            _, by_columns, stacked = form(program, count, in_avals, out_avals, True)
        else:
            chosen[key], by_columns, stacked = _form_safely(program, count, in_avals, out_avals)
        if by_columns:
            blocks = [split(c, o, in_avals, True) for c, o in zip(stacked, out_avals, strict=True)]
        else:
            by_input = [split(r, i, out_avals, False) for r, i in zip(stacked, in_avals, strict=True)]
            blocks = [[by_input[i][o] for i in range(len(in_avals))] for o in range(count)]
        return finish(flat, values, blocks, argnums, has_aux)

    return jacobian_fun


_choices: weakref.WeakKeyDictionary[Any, dict[Any, str]] = weakref.WeakKeyDictionary()


def _choices_of(fun: Any) -> dict[Any, str]:
    """The modes chosen for a function, by types of arguments; kept as long as the function is."""
    try:
        return _choices.setdefault(fun, {})
    except TypeError:  # it cannot be hashed, or not be referred to weakly
        return {}


def _type_of(leaf: Any) -> Any:
    if hasattr(leaf, "dtype"):
        return leaf.shape, leaf.dtype
    return tuple(map(_type_of, tree.leaves(leaf))) if isinstance(leaf, (tuple, list, dict)) else type(leaf)


def _form_safely(
    program: LinearProgram, count: int, in_avals: Sequence[Any], out_avals: Sequence[Any]
) -> tuple[str, bool, list[Any]]:
    """The Jacobian in the chosen mode, or in the other where a custom rule serves only that; and which it was."""
    try:
        plan, by_columns, stacked = form(program, count, in_avals, out_avals)
        return plan.mode, by_columns, stacked
    except (CustomRuleError, MissingRuleError) as error:
        try:
            return (
                "reverse",
                False,
                sweep(
                    lambda *bars: backward_pass(program.eqns, program.invars, program.outvars[:count], bars),
                    basis(out_avals),
                ),
            )
        except (CustomRuleError, MissingRuleError):
            columns = LinearProgram(program.invars, program.eqns, program.outvars[:count])
            try:
                return "forward", True, sweep(columns, basis(in_avals))
            except (CustomRuleError, MissingRuleError):
                raise error from None


_NESTINGS = {
    "fwd-rev": (jacfwd, jacrev),
    "rev-fwd": (jacrev, jacfwd),
    "fwd-fwd": (jacfwd, jacfwd),
    "rev-rev": (jacrev, jacrev),
    "auto": (jacobian, jacobian),
}


def hessian(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    mode: str = "fwd-rev",
) -> Callable[..., Any]:
    """The Hessian by any of the four nestings of forward and reverse mode.

    Args:
        fun: function of arrays or pytrees of arrays.
        argnums: which positional arguments to differentiate, twice.
        has_aux: whether `fun` returns a pair (output, auxiliary output).
        holomorphic: whether `fun` is holomorphic.
        mode: the nesting, outer mode first: "fwd-rev" (forward over reverse, the best for a scalar output), "rev-fwd",
            "fwd-fwd" or "rev-rev"; or "auto", by predicted cost, split at a waist (of the gradient's program) too.

    Returns:
        A function of the same arguments; each block has output shape, then the first input's, then the second's.

    Raises:
        ArgumentError: `mode` is none of the five.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> functrace.hessian(lambda x: x[0] ** 2 * x[1])(np.array([1.0, 3.0]))
        array([[6., 2.],
               [2., 0.]])
    """
    check_callable(fun, "hessian")
    if not isinstance(mode, str) or mode not in _NESTINGS:
        raise ArgumentError(
            "hessian knows no such mode",
            where=user_line(),
            got=repr(mode),
            remedy=f"choose one of {', '.join(map(repr, _NESTINGS))}: the outer mode first",
        )
    outer, inner = _NESTINGS[mode]
    return outer(inner(fun, argnums, has_aux, holomorphic), argnums, has_aux, holomorphic)
