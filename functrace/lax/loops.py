"""Loops that stay loops when traced: scan, map, fori_loop, while_loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace import tree
from functrace.control._functions import Body, check_carry, flatten_values, stage_body
from functrace.control.scan import scan as scan_primitive
from functrace.control.while_loop import while_loop as while_primitive
from functrace.core.trace import Tracer, current_trace
from functrace.core.types import ShapedArray, aval_of
from functrace.errors import ArgumentError, CarryError
from functrace.primitives.elementwise import convert
from functrace.util import user_line

__all__ = ["fori_loop", "map", "scan", "while_loop"]


def _owned(leaves: list[Any]) -> list[Any]:
    """The leaves, out of reach of later changes where a trace keeps them."""
    if not current_trace().captures:
        return leaves
    return [leaf.copy() if type(leaf) is np.ndarray and leaf.flags.writeable else leaf for leaf in leaves]


def _stage_loop(
    fun: Callable[..., Any],
    carry: list[Any],
    weak: list[bool],
    carry_tree: tree.TreeDef,
    rest: Any,
    rest_avals: Sequence[ShapedArray],
) -> tuple[Body, list[Any]]:
    """Stage a loop's body `fun(carry, *rest)`; Python numbers in the carry take the type they leave with."""
    in_tree = tree.structure((tree.unflatten(carry_tree, carry), *rest))
    while True:
        avals = [aval_of(c) for c in carry]
        body = stage_body(fun, in_tree, [*avals, *rest_avals], [*weak, *(False for _ in rest_avals)])
        leaving = body.out_avals[: len(carry)]
        wider = [
            is_weak and after.shape == () and after.dtype != before.dtype and np.can_cast(before.dtype, after.dtype)
            for is_weak, before, after in zip(weak, avals, leaving, strict=False)
        ]
        if not any(wider):
            return body, carry
        weak = [is_weak and not w for is_weak, w in zip(weak, wider, strict=True)]
        carry = [
            convert(c, dtype=after.dtype) if w else c for c, after, w in zip(carry, leaving, wider, strict=True)
        ]


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
) -> tuple[Any, Any]:
    """Loop over the leading axis of arrays, carrying state along.

    Args:
        f: `f(carry, x)` gives `(carry, y)`; the carry keeps its structure, shapes and dtypes.
        init: the first carry, an array or pytree.
        xs: array or pytree of arrays whose leading axis is looped over, or None.
        length: the number of steps; needed without `xs`.
        reverse: whether to loop from the last element to the first; `ys` stay in the order of `xs`.
        unroll: how many steps the compiled loop takes at once; True for all. It changes no value.

    Returns:
        `(carry, ys)`: the last carry, and the outputs stacked along a new leading axis.

    Raises:
        CarryError: the body returns a carry of another type; names the path, both types and the remedy.
        ArgumentError: the lengths of `xs` and `length` differ.

    Example:
        >>> import numpy as np
        >>> from functrace import lax
        >>> lax.scan(lambda total, x: (total + x, total), 0.0, np.array([1.0, 2.0, 3.0]))
        (np.float64(6.0), array([0., 1., 3.]))
    """
    carry, carry_tree, weak = flatten_values(init)
    inputs, inputs_tree, _ = flatten_values(xs)
    steps = _length(inputs, length)
    slices = [ShapedArray(aval_of(x).shape[1:], aval_of(x).dtype) for x in inputs]
    element = tree.unflatten(inputs_tree, slices)

    def body(state: Any, x: Any) -> Any:
        pair = f(state, x)
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise CarryError(
                "the body of scan must return a pair (carry, y)",
                where=user_line(),
                got=type(pair).__name__,
                remedy="return carry, y; y may be None",
            )
        return tuple(pair)

    staged, carry = _stage_loop(body, carry, weak, carry_tree, (element,), slices)
    out_tree, y_tree = staged.out_tree.children()
    check_carry("scan", carry_tree, [aval_of(c) for c in carry], out_tree, staged.out_avals[: out_tree.num_leaves])
    outs = scan_primitive.bind(
        *staged.constants,
        *_owned(carry),
        *_owned(inputs),
        jaxpr=staged.jaxpr,
        length=steps,
        reverse=bool(reverse),
        consts=len(staged.constants),
        carry=len(carry),
    )
    return tree.unflatten(carry_tree, outs[: len(carry)]), tree.unflatten(y_tree, outs[len(carry) :])


def _length(inputs: list[Any], length: int | None) -> int:
    scalars = [x for x in inputs if aval_of(x).shape == ()]
    lengths = {aval_of(x).shape[0] for x in inputs if aval_of(x).shape}
    if length is not None:
        lengths.add(int(length))
    if scalars or len(lengths) != 1:
        raise ArgumentError(
            "scan needs arrays of one leading length" if lengths else "scan does not know how many steps to take",
            where=user_line(),
            got=", ".join(str(aval_of(x)) for x in inputs) + (f", length={length}" if length is not None else ""),
            remedy="give xs of one leading length, and length= where there are none",
        )
    return lengths.pop()


def map(f: Callable[[Any], Any], xs: Any, *, batch_size: int | None = None) -> Any:
    """Apply a function to each slice along the leading axis, one after the other, and stack the results.

    Args:
        f: function of one slice.
        xs: array or pytree of arrays of one leading length.
        batch_size: ignored but for JAX's signature; use `functrace.vmap` to work on all slices at once.

    Returns:
        The stacked results.

    Example:
        >>> import numpy as np
        >>> from functrace import lax
        >>> lax.map(lambda x: x * x, np.array([1.0, 2.0, 3.0]))
        array([1., 4., 9.])
    """
    return scan(lambda _, x: (None, f(x)), None, xs)[1]


def while_loop(cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init_val: Any) -> Any:
    """Repeat `val = body_fun(val)` while `cond_fun(val)`.

    Both modes differentiate it: reverse mode counts the steps as the loop runs and stores its trajectory, so it
    needs a loop that runs at concrete values (a staged program has none; use `scan` there).

    Args:
        cond_fun: gives a boolean scalar.
        body_fun: gives a value of the same structure, shapes and dtypes.
        init_val: the first value.

    Returns:
        The last value.

    Raises:
        CarryError: the body returns a value of another type.

    Example:
        >>> from functrace import lax
        >>> lax.while_loop(lambda x: x < 10.0, lambda x: 2.0 * x, 1.0)
        np.float64(16.0)
    """
    carry, carry_tree, weak = flatten_values(init_val)
    body, carry = _stage_loop(body_fun, carry, weak, carry_tree, (), ())
    avals = [aval_of(c) for c in carry]
    check_carry("while_loop", carry_tree, avals, body.out_tree, body.out_avals)
    condition = stage_body(cond_fun, tree.structure((tree.unflatten(carry_tree, carry),)), avals)
    if [(a.shape, a.dtype.kind) for a in condition.out_avals] != [((), "b")]:
        raise CarryError(
            "the condition of while_loop must give one boolean scalar",
            where=user_line(),
            got=", ".join(map(str, condition.out_avals)),
            remedy="compare scalars, or reduce with .any() or .all()",
        )
    outs = while_primitive.bind(
        *condition.constants,
        *body.constants,
        *_owned(carry),
        cond=condition.jaxpr,
        body=body.jaxpr,
        cond_consts=len(condition.constants),
        body_consts=len(body.constants),
    )
    return tree.unflatten(carry_tree, outs)


def fori_loop(lower: Any, upper: Any, body_fun: Callable[[Any, Any], Any], init_val: Any) -> Any:
    """Repeat `val = body_fun(i, val)` for i from `lower` to `upper - 1`.

    Args:
        lower, upper: the bounds. With plain integers the loop is a `scan`, which reverse mode may meet anywhere; with
            traced ones it is a `while_loop`.
        body_fun: gives a value of the same structure, shapes and dtypes.
        init_val: the first value.

    Returns:
        The last value.

    Example:
        >>> from functrace import lax
        >>> lax.fori_loop(0, 5, lambda i, x: x + i, 0.0)
        np.float64(10.0)
    """
    if not isinstance(lower, Tracer) and not isinstance(upper, Tracer):
        steps = np.arange(int(lower), int(upper))
        return scan(lambda val, i: (body_fun(i, val), None), init_val, steps, length=len(steps))[0]

    def step(state: Any) -> Any:
        i, val = state
        return i + 1, body_fun(i, val)

    start = lower if isinstance(lower, Tracer) else np.int64(lower)
    return while_loop(lambda state: state[0] < upper, step, (start, init_val))[1]


