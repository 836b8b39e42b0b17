"""Whole Jacobians and Hessians: one linearization, then all basis directions in one batched sweep."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace import tree
from functrace.core.types import ShapedArray, aval_of
from functrace.errors import ArgumentError, NonDifferentiableInputError
from functrace.interpreters import jvp as forward
from functrace.interpreters.batching import batch
from functrace.interpreters.linearize import linearize
from functrace.interpreters.transpose import backward_pass
from functrace.primitives.families import reshape
from functrace.primitives.shape import slice_, zeros
from functrace.transforms._flatten import FlatFunction, argument_positions, check_callable, export
from functrace.transforms.batching import moveaxis
from functrace.util import user_line

__all__ = ["hessian", "jacfwd", "jacobian", "jacrev"]


def _basis(avals: Sequence[ShapedArray]) -> list[np.ndarray]:
    """The standard basis of the product space: per aval, an array of (dimension, *shape)."""
    total = sum(a.size for a in avals)
    blocks, start = [], 0
    for aval in avals:
        block = np.zeros((total, aval.size), aval.dtype)
        block[np.arange(start, start + aval.size), np.arange(aval.size)] = 1
        blocks.append(block.reshape(total, *aval.shape))
        start += aval.size
    return blocks


def _check_kinds(avals: Sequence[ShapedArray], holomorphic: bool, transform: str, what: str) -> None:
    """Raise unless all inputs or outputs are of the kind that is differentiated."""
    one_way = (transform, what) in (("jacfwd", "output"), ("jacrev", "input"))  # their basis is on the other side
    kinds = "c" if holomorphic else "fc" if one_way else "f"
    wrong = [aval for aval in avals if aval.dtype.kind not in kinds]
    if not wrong:
        return
    wanted = "complex" if holomorphic else "real floating point"
    raise NonDifferentiableInputError(
        f"{transform} needs {wanted} {what}s{' when holomorphic=True' if holomorphic else ''}",
        where=user_line(),
        got=str(wrong[0]),
        remedy="convert integers with numpy.asarray(x, float); pass holomorphic=True for a holomorphic function of "
        "complex inputs, or treat real and imaginary parts as separate reals",
    )


def _finish(flat: FlatFunction, values: list[Any], blocks: list[list[Any]], argnums: Any, has_aux: bool) -> Any:
    """Blocks (per output, per input) as a tree of outputs of trees of inputs."""
    width = flat.in_tree.num_leaves
    count = flat.out_tree.num_leaves
    exported = export([b for row in blocks for b in row] + list(values[count:]), flat.leaves)
    rows = []
    for i in range(count):
        row = tree.unflatten(flat.in_tree, exported[i * width : (i + 1) * width])
        rows.append(row if isinstance(argnums, (tuple, list)) else row[0])
    jac = tree.unflatten(flat.out_tree, rows)
    if not has_aux:
        return jac
    return jac, tree.unflatten(flat.aux_tree, exported[count * width :])  # type: ignore[arg-type]


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
        _check_kinds(in_avals, holomorphic, "jacfwd", "input")
        values: list[Any] = []

        def push(*tangents: Any) -> list[Any]:
            values[:], out_tangents = forward.jvp(flat, flat.leaves, tangents, flat.weak)
            return out_tangents[: flat.out_tree.num_leaves]

        columns = _sweep(push, _basis(in_avals), values)
        out_avals = [aval_of(v) for v in values[: flat.out_tree.num_leaves]]
        _check_kinds(out_avals, holomorphic, "jacfwd", "output")
        blocks = [_split(c, o, in_avals, True) for c, o in zip(columns, out_avals, strict=True)]
        return _finish(flat, values, blocks, argnums, has_aux)

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
        _check_kinds(in_avals, holomorphic, "jacrev", "input")
        values, program = linearize(flat, flat.leaves, None, flat.weak)
        out_avals = [aval_of(v) for v in values[: flat.out_tree.num_leaves]]
        _check_kinds(out_avals, holomorphic, "jacrev", "output")

        def pull(*bars: Any) -> list[Any]:
            return backward_pass(program.eqns, program.invars, program.outvars[: len(out_avals)], bars)

        rows = _sweep(pull, _basis(out_avals))
        by_input = [_split(r, i, out_avals, False) for r, i in zip(rows, in_avals, strict=True)]
        blocks = [[by_input[i][o] for i in range(len(in_avals))] for o in range(len(out_avals))]
        return _finish(flat, values, blocks, argnums, has_aux)

    return jacobian_fun


def _sweep(linear: Callable[..., list[Any]], basis: list[np.ndarray], primals: list[Any] | None = None) -> list[Any]:
    """A linear function of all basis vectors in one batch; per output an array of (directions, *shape), or None.

    A single direction is not batched, which keeps products of matrices and vectors what they are. `primals`, which
    `linear` computes on the side, are freed of the (unused) batch.
    """
    size = basis[0].shape[0] if basis else 0
    if size == 1:
        outs = linear(*[b[0] if b.shape[1:] else b[0][()] for b in basis])
        return [None if out is None else reshape(out, shape=(1, *out.shape)) for out in outs]
    count: list[int] = []

    def flat_fun(*values: Any) -> list[Any]:
        outs = linear(*values)
        count[:] = [len(outs)]
        return [*outs, *(primals or ())]

    outs, batched = batch(flat_fun, size, basis, [True] * len(basis))
    if primals is not None:
        primals[:] = outs[count[0] :]
    return [out if is_batched else None for out, is_batched in zip(outs[: count[0]], batched, strict=False)]


def _split(stacked: Any, aval: ShapedArray, others: Sequence[ShapedArray], trailing: bool) -> list[Any]:
    """Cut an array of (directions, *aval.shape) into one Jacobian block per aval of `others`.

    `trailing` puts the directions after the aval's axes (columns, forward mode), else before (rows, reverse mode).
    """
    blocks, start = [], 0
    for other in others:
        stop = start + other.size
        shape = (*aval.shape, *other.shape) if trailing else (*other.shape, *aval.shape)
        if stacked is None:
            blocks.append(zeros(ShapedArray(shape, aval.dtype)))
        else:
            whole = stop - start == stacked.shape[0]
            piece = stacked if whole else _rows(stacked, start, stop)
            blocks.append(reshape(moveaxis(piece, 0, -1) if trailing else piece, shape=shape))
        start = stop
    return blocks


def _rows(x: Any, start: int, stop: int) -> Any:
    rest = len(x.shape) - 1
    return slice_(x, starts=(start, *(0,) * rest), stops=(stop, *x.shape[1:]), steps=(1,) * (rest + 1))


jacobian = jacrev

_NESTINGS = {
    "fwd-rev": (jacfwd, jacrev),
    "rev-fwd": (jacrev, jacfwd),
    "fwd-fwd": (jacfwd, jacfwd),
    "rev-rev": (jacrev, jacrev),
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
            "fwd-fwd" or "rev-rev".

    Returns:
        A function of the same arguments; each block has output shape, then the first input's, then the second's.

    Raises:
        ArgumentError: `mode` is none of the four.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> functrace.hessian(lambda x: x[0] ** 2 * x[1])(np.array([1.0, 3.0]))
        array([[6., 2.],
               [2., 0.]])
    """
    check_callable(fun, "hessian")
    if mode not in _NESTINGS:
        raise ArgumentError(
            "hessian knows no such mode",
            where=user_line(),
            got=repr(mode),
            remedy=f"choose one of {', '.join(map(repr, _NESTINGS))}: the outer mode first",
        )
    outer, inner = _NESTINGS[mode]
    return outer(inner(fun, argnums, has_aux, holomorphic), argnums, has_aux, holomorphic)
