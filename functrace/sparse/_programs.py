"""A user's function as one program of flat inputs: what patterns, colourings and element derivatives are read from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from functrace import tree
from functrace.control.reroll import reroll
from functrace.core.ir import ClosedJaxpr, Jaxpr, eval_jaxpr
from functrace.core.trace import EVAL, Tracer, reset_trace, set_trace
from functrace.core.types import ShapedArray, aval_of, canonicalize
from functrace.errors import InputError, NonDifferentiableInputError, ShapeError
from functrace.interpreters.cost import Cost, Machine, jaxpr_cost
from functrace.interpreters.staging import stage
from functrace.numpy import concatenate, ravel
from functrace.primitives.families import reshape
from functrace.transforms._flatten import call, owned
from functrace.util import user_line, without_collection

__all__ = ["FlatProgram", "evaluating", "flat_program", "leaves_of", "signature"]

_WEAK = (float, int, complex)
_WORTH = 100  # equations, from which a repetition is worth the time that it takes to find it
_PLAIN = (np.ndarray, np.float64)


class FlatProgram:
    """A function of one differentiated argument and others, recorded.

    Attributes:
        closed: the program; its inputs are the leaves of the first argument, those of the others, then what the
            function closes over and another transformation is tracing.
        count: how many leaves the first argument has.
        captured: the values of the last inputs.
        n, m: how many numbers the first argument and the output hold.
    """

    def __init__(self, closed: ClosedJaxpr, in_tree: tree.TreeDef, count: int) -> None:
        traced = [isinstance(c, Tracer) for c in closed.consts]
        jaxpr = closed.jaxpr
        moved = [v for v, t in zip(jaxpr.constvars, traced, strict=True) if t]
        kept = [v for v, t in zip(jaxpr.constvars, traced, strict=True) if not t]
        self.captured = [c for c, t in zip(closed.consts, traced, strict=True) if t]
        consts = [c for c, t in zip(closed.consts, traced, strict=True) if not t]
        self.closed = ClosedJaxpr(Jaxpr(kept, [*jaxpr.invars, *moved], jaxpr.eqns, jaxpr.outvars), consts)
        self.in_tree, self.count = in_tree, count
        self._is_flat = in_tree == tree.structure((0,) * in_tree.num_leaves)
        self.in_avals = jaxpr.in_avals
        self.out_avals = closed.out_avals
        self.n = sum(a.size for a in self.in_avals[:count])
        self.m = sum(a.size for a in self.out_avals)

    @functools.cached_property
    def cost(self) -> Cost:
        """The predicted cost of one evaluation."""
        return jaxpr_cost(self.closed.jaxpr)

    def __call__(self, *leaves: Any) -> list[Any]:
        """The flat outputs, under the current trace."""
        return eval_jaxpr(self.closed.jaxpr, self.closed.consts, *leaves)

    def output(self, *leaves: Any) -> Any:
        """The output as one vector."""
        return joined(self(*leaves))

    def leaves(self, args: tuple[Any, ...]) -> list[Any]:
        """The inputs of the program for some arguments.

        Raises:
            ShapeError: the arguments are of another type than those that the program was recorded for.
        """
        if self._is_flat and len(args) == len(self.in_avals):  # the most frequent case: arrays and numbers as they are
            for arg, aval in zip(args, self.in_avals, strict=True):
                if type(arg) not in _PLAIN or arg.shape != aval.shape or arg.dtype != aval.dtype:
                    break
            else:
                return [*args, *self.captured]
        raw, in_tree = tree.flatten(args)
        leaves = [canonicalize(owned(leaf, False)) for leaf in raw]
        avals = [aval_of(leaf) for leaf in leaves]
        if in_tree != self.in_tree or any(a.shape != b.shape for a, b in zip(avals, self.in_avals, strict=True)):
            raise ShapeError(
                "the arguments are not like those that the sparse derivative was prepared for",
                where=user_line(),
                got=f"{', '.join(map(str, avals))} for {', '.join(map(str, self.in_avals))}",
                remedy="prepare it again, or call the function that sparse.jacobian or sparse.hessian returned",
            )
        return [*map(_as_type, leaves, self.in_avals), *self.captured]

    def split(self, vectors: Any) -> list[Any]:
        """Vectors of n numbers, [..., n], as arrays like the leaves of the first argument."""
        parts, start = [], 0
        lead = vectors.shape[:-1]
        for aval in self.in_avals[: self.count]:
            part = vectors[..., start : start + aval.size]
            parts.append(reshape(part, shape=(*lead, *aval.shape)) if part.shape != (*lead, *aval.shape) else part)
            start += aval.size
        return parts

    def wrt(self) -> list[bool]:
        """Per input of the program, whether it belongs to the first argument."""
        return [i < self.count for i in range(len(self.closed.jaxpr.invars))]

    def least_seconds(self, weight: float = 1.0) -> float:
        """A lower bound of `seconds` for one sweep or more, without a look at the equations."""
        return Machine().operation * len(self.closed.eqns) * (1 + weight)

    def seconds(self, sweeps: float, weight: float = 1.0, machine: Machine | None = None) -> float:
        """Predicted time of one evaluation together with so many products with a derivative."""
        rates = machine or Machine()
        call = rates.operation * self.cost.primitives
        return self.cost.seconds(rates) * (1 + weight * sweeps) - call * weight * max(sweeps - 1, 0)


def _as_type(leaf: Any, aval: ShapedArray) -> Any:
    """A leaf in the dtype of the program's input.

    Raises:
        InputError: it is of another kind.
    """
    if leaf.dtype == aval.dtype:
        return leaf
    if not isinstance(leaf, Tracer) and np.can_cast(leaf.dtype, aval.dtype, "safe"):
        return leaf.astype(aval.dtype)
    raise InputError(
        "an argument has another dtype than the one that the sparse derivative was prepared for",
        where=user_line(),
        got=f"{leaf.dtype.name} for {aval.dtype.name}",
        remedy=f"convert it with numpy.asarray(x, dtype={aval.dtype.name!r}), or prepare for its dtype",
    )


def joined(parts: Sequence[Any]) -> Any:
    """Arrays as one vector."""
    if len(parts) == 1:
        part = parts[0]
        return part if len(part.shape) == 1 else reshape(part, shape=(aval_of(part).size,))
    return concatenate([ravel(part) for part in parts]) if parts else np.zeros(0)


def leaves_of(args: tuple[Any, ...]) -> tuple[list[Any], list[ShapedArray], tree.TreeDef]:
    """The leaves of some arguments (values or their types), their types and their structure."""
    leaves, in_tree = tree.flatten(args)
    avals = [leaf if isinstance(leaf, ShapedArray) else aval_of(canonicalize(owned(leaf, False))) for leaf in leaves]
    return leaves, [ShapedArray(a.shape, a.dtype) for a in avals], in_tree


def signature(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a prepared derivative depends on: structure, shapes and dtypes of the arguments."""
    _, avals, in_tree = leaves_of(args)
    return in_tree, tuple(avals)


def flat_program(fun: Callable[..., Any], args: tuple[Any, ...], transform: str) -> FlatProgram:
    """Record a function of the arguments.

    Args:
        args: values or `ShapeDtypeStruct`s; the first is the one to differentiate by.
        transform: the name of the transformation, for messages.

    Raises:
        NonDifferentiableInputError: an input of the first argument, or an output, is not real floating point.
    """
    leaves, avals, in_tree = leaves_of(args)
    count = len(tree.flatten(args[0])[0]) if args else 0

    def flat_fun(*values: Any) -> list[Any]:
        out_leaves, _ = tree.flatten(call(fun, tree.unflatten(in_tree, values), {}))
        return [canonicalize(owned(leaf)) for leaf in out_leaves]

    _check_real(avals[:count], transform, "input")
    with without_collection():
        closed = stage(flat_fun, avals, [type(leaf) in _WEAK for leaf in leaves], transform)
        _check_real(closed.out_avals, transform, "output")
        # What a Python loop does for many elements in turn is analysed as one operation on arrays.
        return FlatProgram(reroll(closed, loops=False, worth=_WORTH), in_tree, count)


def _check_real(avals: Sequence[ShapedArray], transform: str, what: str) -> None:
    for aval in avals:
        if aval.dtype.kind != "f":
            raise NonDifferentiableInputError(
                f"{transform} needs real floating point {what}s",
                where=user_line(),
                got=str(aval),
                remedy="treat real and imaginary parts as separate reals"
                if aval.dtype.kind == "c"
                else "convert integers with numpy.asarray(x, float)"
                + ("; pass what is not differentiated as a further argument" if what == "input" else ""),
            )


@contextmanager
def evaluating() -> Iterator[None]:
    """Nothing is traced meanwhile: analysis of a program is no part of what the user computes."""
    token = set_trace(EVAL)
    try:
        yield
    finally:
        reset_trace(token)
