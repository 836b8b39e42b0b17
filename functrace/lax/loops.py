"""Loops that stay loops when traced: scan, map, fori_loop, while_loop."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace import tree
from functrace.control._functions import Body, check_carry, flatten_values, stage_body
from functrace.control.checkpointed_scan import checkpointed_scan, choose_checkpoints
from functrace.control.scan import scan as scan_primitive
from functrace.control.while_loop import while_loop as while_primitive
from functrace.core.trace import Tracer
from functrace.core.types import ShapedArray, aval_of
from functrace.errors import ArgumentError, CarryError
from functrace.primitives.elementwise import convert
from functrace.primitives.shape import concatenate, reshape
from functrace.transforms._flatten import check_functions, export
from functrace.transforms.batching import vmap
from functrace.util import user_line

__all__ = ["fori_loop", "map", "scan", "while_loop"]


_NUMBERS: dict[str, Any] = {"f": 0.0, "i": 0, "c": 0j}


def _gives_way(number: Any, dtype: np.dtype) -> bool:
    """Whether a Python number takes this dtype in an operation."""
    return np.result_type(number, dtype) == dtype


def _stage_loop(
    fun: Callable[..., Any],
    carry: list[Any],
    weak: list[bool],
    carry_tree: tree.TreeDef,
    rest: Any,
    rest_avals: Sequence[ShapedArray],
    rest_weak: Sequence[bool] = (),
) -> tuple[Body, list[Any]]:
    """Stage a loop's body `fun(carry, *rest)`; Python numbers in the carry take the type they leave with."""
    numbers = [_NUMBERS.get(c.dtype.kind) for c in carry]
    in_tree = tree.structure((tree.unflatten(carry_tree, carry), *rest))
    while True:
        avals = [aval_of(c) for c in carry]
        body = stage_body(fun, in_tree, [*avals, *rest_avals], [*weak, *rest_weak])
        leaving = body.out_avals[: len(carry)]
        wider = [
            is_weak and after.shape == () and after.dtype != before.dtype and _gives_way(number, after.dtype)
            for is_weak, number, before, after in zip(weak, numbers, avals, leaving, strict=False)
        ]
        if not any(wider):
            return body, carry
        weak = [is_weak and not w for is_weak, w in zip(weak, wider, strict=True)]
        carry = [convert(c, dtype=after.dtype) if w else c for c, after, w in zip(carry, leaving, wider, strict=True)]


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
    checkpoint: int | str | None = None,
) -> tuple[Any, Any]:
    """Loop over the leading axis of arrays, carrying state along.

    Args:
        f: `f(carry, x)` gives `(carry, y)`; the carry keeps its structure, shapes and dtypes.
        init: the first carry, an array or pytree.
        xs: array or pytree of arrays whose leading axis is looped over, or None.
        length: the number of steps; needed without `xs`.
        reverse: whether to loop from the last element to the first; `ys` stay in the order of `xs`.
        unroll: how many steps the compiled loop takes at once; True for all. It changes no value.
        checkpoint: how reverse mode saves memory. None stores what every step needs. With a number, at most so many
            carries are kept, and steps run again by Revolve's binomial schedule (Griewank and Walther 2000). With
            "binomial", the number is chosen: no step runs more than four times, the one that is reversed included.

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
    check_functions("scan", f=f)
    return _scan(f, init, xs, length, reverse, checkpoint=_checked(checkpoint))


def _scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any,
    length: int | None = None,
    reverse: bool = False,
    weak_slices: bool = False,
    checkpoint: int | str | None = None,
) -> tuple[Any, Any]:
    """`scan`; with `weak_slices` the elements of `xs` count as Python numbers."""
    carry, carry_tree, weak = flatten_values(init)
    inputs, inputs_tree, _ = flatten_values(xs)
    steps = _length(inputs, length)
    slices = [ShapedArray(aval_of(x).shape[1:], aval_of(x).dtype) for x in inputs]
    slice_weak = [weak_slices for _ in slices]
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

    staged, carry = _stage_loop(body, carry, weak, carry_tree, (element,), slices, slice_weak)
    out_tree, y_tree = staged.out_tree.children()
    check_carry("scan", carry_tree, [aval_of(c) for c in carry], out_tree, staged.out_avals[: out_tree.num_leaves])
    sizes = {"consts": len(staged.constants), "carry": len(carry)}
    bind = scan_primitive.bind
    if checkpoint is not None:
        found = choose_checkpoints(staged.jaxpr, steps, **sizes, wanted=checkpoint)
        bind = bind if found is None else functools.partial(checkpointed_scan.bind, **found._asdict())
    outs = bind(*staged.constants, *carry, *inputs, jaxpr=staged.jaxpr, length=steps, reverse=bool(reverse), **sizes)
    outs = export(outs, [*staged.constants, *carry, *inputs])
    return tree.unflatten(carry_tree, outs[: len(carry)]), tree.unflatten(y_tree, outs[len(carry) :])


def _checked(checkpoint: Any) -> int | str | None:
    if checkpoint is None or checkpoint == "binomial":
        return checkpoint
    if isinstance(checkpoint, (int, np.integer)) and not isinstance(checkpoint, bool) and checkpoint > 0:
        return int(checkpoint)
    raise ArgumentError(
        "scan keeps a positive number of carries, or chooses it",
        where=user_line(),
        got=f"checkpoint={checkpoint!r}",
        remedy='give the number of carries to keep, checkpoint="binomial", or None to store every step',
    )


def _integer(value: Any, what: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ArgumentError(
            f"{what} must be an integer",
            where=user_line(),
            got=f"{type(value).__name__} {value!r}",
            remedy="convert it with int(...), or with .astype(int) where it is traced",
        ) from None


def _length(inputs: list[Any], length: int | None) -> int:
    scalars = [x for x in inputs if aval_of(x).shape == ()]
    lengths = {aval_of(x).shape[0] for x in inputs if aval_of(x).shape}
    if length is not None:
        lengths.add(_integer(length, "the length of scan"))
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
        batch_size: how many slices to work on at once, by `functrace.vmap`: more is faster and needs more memory.

    Returns:
        The stacked results.

    Example:
        >>> import numpy as np
        >>> from functrace import lax
        >>> lax.map(lambda x: x * x, np.array([1.0, 2.0, 3.0]), batch_size=2)
        array([1., 4., 9.])
    """

    check_functions("lax.map", f=f)

    def loop(function: Callable[[Any], Any], values: Any) -> Any:
        return scan(lambda _, x: (None, function(x)), None, values)[1]

    if batch_size is None:
        return loop(f, xs)
    size = _integer(batch_size, "batch_size")
    if size < 1:
        raise ArgumentError("batch_size must be positive", where=user_line(), got=str(size), remedy="use 1 or more")
    leaves, structure, _ = flatten_values(xs)
    steps = _length(leaves, None)
    whole = steps - steps % size
    if steps < size:
        return vmap(f)(xs) if steps else loop(f, xs)

    def chunked(x: Any) -> Any:
        return reshape(x[:whole], shape=(whole // size, size, *x.shape[1:]))

    def joined(y: Any) -> Any:
        return reshape(y, shape=(whole, *aval_of(y).shape[2:]))

    out = tree.map(joined, loop(vmap(f), tree.unflatten(structure, [chunked(x) for x in leaves])))
    if whole == steps:
        return out
    rest = vmap(f)(tree.unflatten(structure, [x[whole:] for x in leaves]))
    return tree.map(lambda a, b: concatenate(a, b, axis=0), out, rest)


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
    check_functions("while_loop", cond_fun=cond_fun, body_fun=body_fun)
    carry, carry_tree, weak = flatten_values(init_val)
    body, carry = _stage_loop(body_fun, carry, weak, carry_tree, (), ())
    avals = [aval_of(c) for c in carry]
    check_carry("while_loop", carry_tree, avals, body.out_tree, body.out_avals)
    condition = stage_body(cond_fun, tree.structure((tree.unflatten(carry_tree, carry),)), avals)
    if [(a.shape, a.dtype.kind) for a in condition.out_avals] != [((), "b")]:
        raise CarryError(
            "the condition of while_loop must give one boolean scalar",
            where=user_line(),
            got=", ".join(str(a) for a in condition.out_avals),
            remedy="compare scalars, or reduce with .any() or .all()",
        )
    outs = while_primitive.bind(
        *condition.constants,
        *body.constants,
        *carry,
        cond=condition.jaxpr,
        body=body.jaxpr,
        cond_consts=len(condition.constants),
        body_consts=len(body.constants),
    )
    return tree.unflatten(carry_tree, export(outs, [*condition.constants, *body.constants, *carry]))


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
    check_functions("fori_loop", body_fun=body_fun)
    if not isinstance(lower, Tracer) and not isinstance(upper, Tracer):
        steps = np.arange(_integer(lower, "the lower bound"), _integer(upper, "the upper bound"))
        return _scan(lambda val, i: (body_fun(i, val), None), init_val, steps, weak_slices=True)[0]
    for bound in (lower, upper):
        if not isinstance(bound, Tracer) or bound.shape != () or bound.dtype.kind not in "iu":
            _integer(bound, "a bound of fori_loop")

    def step(state: Any) -> Any:
        i, val = state
        return i + 1, body_fun(i, val)

    start = lower if isinstance(lower, Tracer) else np.int64(lower)
    return while_loop(lambda state: state[0] < upper, step, (start, init_val))[1]
