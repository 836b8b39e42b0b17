"""Python functions as bodies of control flow: staged once on typed placeholders, what they close over made operands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from functrace import tree
from functrace.core.ir import ClosedJaxpr, Jaxpr, hoist_constants, subjaxprs
from functrace.core.trace import Tracer, current_trace
from functrace.core.types import ShapedArray, aval_of, canonicalize, is_changeable
from functrace.errors import CarryError, InputError
from functrace.interpreters.staging import stage
from functrace.primitives.elementwise import select
from functrace.primitives.families import broadcast
from functrace.primitives.shape import transpose, zeros
from functrace.util import user_line

__all__ = [
    "Body",
    "broadcast_batch",
    "broadcast_flags",
    "carry_fixpoint",
    "check_branches",
    "check_carry",
    "choose",
    "fill_tangents",
    "flatten_values",
    "may_raise",
    "reorder",
    "select_all",
    "split",
    "stage_body",
    "swap_leading",
]

_WEAK = (float, int, complex)


class Body(NamedTuple):
    """A staged function: `jaxpr` takes the constants, then the flat arguments."""

    jaxpr: Jaxpr
    constants: list[Any]
    out_tree: tree.TreeDef
    out_avals: list[ShapedArray]


def flatten_values(values: Any) -> tuple[list[Any], tree.TreeDef, list[bool]]:
    """Canonical leaves out of reach of later changes, structure, and which leaves are (traced) Python numbers."""
    leaves, structure = tree.flatten(values)
    weak = [type(leaf) in _WEAK or (isinstance(leaf, Tracer) and leaf.weak) for leaf in leaves]
    flat = [canonicalize(leaf) for leaf in leaves]
    if current_trace().captures:
        flat = [x.copy() if type(x) is np.ndarray and is_changeable(x) else x for x in flat]
    return flat, structure, weak


def stage_body(
    fun: Callable[..., Any], in_tree: tree.TreeDef, avals: Sequence[ShapedArray], weak: Sequence[bool] = ()
) -> Body:
    """Stage a function of the arguments in `in_tree` (a tuple).

    Raises:
        InputError: it is no function.
    """
    if not callable(fun):
        raise InputError(
            "a loop or a choice takes functions",
            where=user_line(),
            got=type(fun).__name__,
            remedy="pass the function itself, and its arguments beside it, as in cond(pred, f, g, x)",
        )
    out_tree: list[tree.TreeDef] = []

    def flat_fun(*leaves: Any) -> list[Any]:
        out, structure = tree.flatten(fun(*tree.unflatten(in_tree, leaves)))
        out_tree.append(structure)
        return [canonicalize(leaf) for leaf in out]

    closed = stage(flat_fun, avals, weak, "functrace.lax")
    jaxpr, constants = hoist_constants(closed)
    return Body(jaxpr, constants, out_tree[0], closed.out_avals)


def check_carry(
    name: str,
    in_tree: tree.TreeDef,
    in_avals: Sequence[ShapedArray],
    out_tree: tree.TreeDef,
    out_avals: Sequence[ShapedArray],
) -> None:
    """Raise unless the body returns the carry type it received.

    Raises:
        CarryError: names the path, both types and the remedy.
    """
    remedy = "make the body return the carry type it received, converting with .astype or reshaping the initial value"
    if in_tree != out_tree:
        raise CarryError(
            f"the carry of {name} changes its structure",
            where=user_line(),
            got=f"{in_tree} in, {out_tree} out",
            remedy=remedy,
        )
    paths = [tree.keystr(path) for path, _ in tree.leaves_with_path(tree.unflatten(in_tree, list(in_avals)))]
    for path, before, after in zip(paths, in_avals, out_avals, strict=True):
        if before != after:
            raise CarryError(
                f"the carry of {name} changes its type at carry{path}",
                where=user_line(),
                got=f"enters as {before}, leaves as {after}",
                remedy=remedy,
            )


def check_branches(
    name: str,
    trees: Sequence[tree.TreeDef],
    avals: Sequence[Sequence[ShapedArray]],
) -> None:
    """Raise unless all branches return values of one structure and type.

    Raises:
        CarryError: names the branches, the path, both types and the remedy.
    """
    remedy = "return the same structure, shapes and dtypes from every branch, converting with .astype or reshaping"
    for i in range(1, len(trees)):
        if trees[i] != trees[0]:
            raise CarryError(
                f"the branches of {name} return different structures",
                where=user_line(),
                got=f"{trees[0]} from branch 0, {trees[i]} from branch {i}",
                remedy=remedy,
            )
        paths = [tree.keystr(path) for path, _ in tree.leaves_with_path(tree.unflatten(trees[0], list(avals[0])))]
        for path, first, other in zip(paths, avals[0], avals[i], strict=True):
            if first != other:
                raise CarryError(
                    f"the branches of {name} return different types at output{path}",
                    where=user_line(),
                    got=f"{first} from branch 0, {other} from branch {i}",
                    remedy=remedy,
                )


# what the rules of loops and branches share


def split(values: Sequence[Any], *counts: int) -> list[list[Any]]:
    """The values cut into lists of the given lengths, and the rest."""
    parts, start = [], 0
    for count in counts:
        parts.append(list(values[start : start + count]))
        start += count
    return [*parts, list(values[start:])]


def choose(values: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    """The values whose flag is set."""
    return [value for value, flag in zip(values, flags, strict=True) if flag]


def fill_tangents(tangents: Sequence[Any], primals: Sequence[Any], flags: Sequence[bool]) -> list[Any]:
    """The tangents, with zeros in place of None where the flag is set."""
    return [
        zeros(aval_of(primal)) if tangent is None and flag else tangent
        for tangent, primal, flag in zip(tangents, primals, flags, strict=True)
    ]


def broadcast_batch(x: Any, size: int) -> Any:
    """The value repeated along a new leading batch axis."""
    shape = aval_of(x).shape
    return broadcast(x, shape=(size, *shape), axes=tuple(range(1, 1 + len(shape))))


def broadcast_flags(flags: Any, shape: tuple[int, ...]) -> Any:
    """One flag per example, repeated over the example's axes."""
    return broadcast(flags, shape=shape, axes=(0,)) if len(shape) > 1 else flags


def may_raise(program: Any) -> bool:
    """Whether a jaxpr holds a primitive that raises for some values, however deep."""
    jaxpr = getattr(program, "jaxpr", program)
    return any(eqn.primitive.partial or any(map(may_raise, subjaxprs(eqn))) for eqn in jaxpr.eqns)


def swap_leading(x: Any) -> Any:
    """The two leading axes exchanged: batch and step."""
    return transpose(x, permutation=(1, 0, *range(2, len(x.shape))))


def reorder(closed: ClosedJaxpr, inputs: Sequence[int], outputs: Sequence[int]) -> ClosedJaxpr:
    """The program with its inputs and outputs in another order."""
    jaxpr = closed.jaxpr
    invars = [jaxpr.invars[i] for i in inputs]
    return ClosedJaxpr(Jaxpr(jaxpr.constvars, invars, jaxpr.eqns, [jaxpr.outvars[i] for i in outputs]), closed.consts)


def carry_fixpoint(flags: list[bool], consts: int, carry: int, run: Callable[[list[bool], list[bool]], Any]) -> Any:
    """Run a program transformation of a loop's body until the carry leaves with the flags it enters with.

    Args:
        flags: per input, whether it is nonzero (or batched); those of the carry are raised in place as needed.
        consts, carry: how many inputs are constants, and carry.
        run: `run(flags, carry flags)` transforms the body, instantiating flagged carry outputs; its result ends in
            the output flags.
    """
    while True:
        entering = flags[consts : consts + carry]
        result = run(flags, entering)
        leaving = result[-1][:carry]
        if leaving == entering:
            return result
        flags[consts : consts + carry] = leaving


def select_all(flag: Any, new: Any, old: Any) -> Any:
    """One value or the other, by a single flag."""
    shape = aval_of(new).shape
    return select(broadcast(flag, shape=shape, axes=()) if shape else flag, new, old)
