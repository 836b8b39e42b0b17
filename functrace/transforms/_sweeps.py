"""Many directions at once: a linear function swept over a basis, and its results as blocks of a Jacobian."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace import tree
from functrace.core.trace import current_trace
from functrace.core.types import ShapedArray
from functrace.errors import NonDifferentiableInputError
from functrace.interpreters.batching import batch
from functrace.primitives.families import reshape
from functrace.primitives.shape import slice_, zeros
from functrace.transforms._flatten import FlatFunction, export
from functrace.transforms.batching import moveaxis
from functrace.util import user_line

__all__ = ["basis", "check_kinds", "finish", "split", "sweep"]


def basis(avals: Sequence[ShapedArray]) -> list[np.ndarray]:
    """The standard basis of the product space: per aval, an array of (dimension, *shape)."""
    total = sum(a.size for a in avals)
    blocks, start = [], 0
    for aval in avals:
        block = np.zeros((total, aval.size), aval.dtype)
        block[np.arange(start, start + aval.size), np.arange(aval.size)] = 1
        blocks.append(block.reshape(total, *aval.shape))
        start += aval.size
    return blocks


def check_kinds(avals: Sequence[ShapedArray], holomorphic: bool, transform: str, what: str) -> None:
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


def finish(flat: FlatFunction, values: list[Any], blocks: list[list[Any]], argnums: Any, has_aux: bool) -> Any:
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


def sweep(
    linear: Callable[..., list[Any]], directions: list[np.ndarray], primals: list[Any] | None = None
) -> list[Any]:
    """A linear function of all basis vectors in one batch; per output an array of (directions, *shape), or None.

    A single direction is not batched, which keeps products of matrices and vectors what they are. `primals`, which
    `linear` computes on the side, are freed of the (unused) batch.
    """
    size = directions[0].shape[0] if directions else 0
    if size == 1:
        outs = linear(*[b[0] if b.shape[1:] else b[0][()] for b in directions])
        return [None if out is None else reshape(out, shape=(1, *out.shape)) for out in outs]
    count: list[int] = []

    def flat_fun(*values: Any) -> list[Any]:
        outs = linear(*values)
        count[:] = [len(outs)]
        return [*outs, *(primals or ())]

    # Products of directions are larger than these: the compiler rather sees the products than their values.
    seeds = list(map(current_trace().symbolic, directions))
    outs, batched = batch(flat_fun, size, seeds, [True] * len(directions))
    if primals is not None:
        primals[:] = outs[count[0] :]
    return [out if is_batched else None for out, is_batched in zip(outs[: count[0]], batched, strict=False)]


def split(stacked: Any, aval: ShapedArray, others: Sequence[ShapedArray], trailing: bool) -> list[Any]:
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
            moved = moveaxis(piece, 0, -1) if trailing else piece
            blocks.append(moved if moved.shape == shape else reshape(moved, shape=shape))
        start = stop
    return blocks


def _rows(x: Any, start: int, stop: int) -> Any:
    rest = len(x.shape) - 1
    return slice_(x, starts=(start, *(0,) * rest), stops=(stop, *x.shape[1:]), steps=(1,) * (rest + 1))
