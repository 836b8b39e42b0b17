"""Variables and parameters between the user's pytrees and the flat vectors that solvers know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from functrace import tree
from functrace.core.trace import Tracer
from functrace.core.types import ShapedArray, aval_of, canonicalize
from functrace.errors import ArgumentError, InputError, ShapeError
from functrace.flatten_util import ravel_pytree
from functrace.transforms._flatten import snapshot
from functrace.util import user_line

__all__ = ["Parameters", "Variables", "real_vector"]


def real_vector(value: Any, what: str) -> np.ndarray:
    """Real numbers as an array of float64.

    Args:
        what: their name, for messages.

    Raises:
        InputError: they are traced, complex, or no numbers.
    """
    if isinstance(value, Tracer):
        raise InputError(
            f"a problem is evaluated at numbers, and {what} is traced",
            where=user_line(),
            got=value.describe(),
            remedy="differentiate the functions themselves, or optimize.lagrangian(f, c); for solutions as functions "
            "of parameters there is optimize.argmin",
        )
    try:
        array = np.asarray(value)
        if array.dtype.kind in "fiub":
            return array.astype(float, copy=False)
        if array.dtype == object:
            if any(isinstance(v, Tracer) for v in array.flat):
                return real_vector(next(v for v in array.flat if isinstance(v, Tracer)), what)
            if not any(isinstance(v, (str, bytes, complex)) for v in array.flat):
                return array.astype(float)
    except (ValueError, TypeError):
        pass
    raise InputError(
        f"{what} must be real numbers",
        where=user_line(),
        got=repr(value) if len(repr(value)) < 80 else type(value).__name__,
        remedy="give an array of floats",
    )


def _as_start(x0: Any) -> Any:
    """The start; a list or tuple of plain numbers is a vector, as it is to SciPy."""
    if isinstance(x0, (list, tuple)) and x0 and all(isinstance(v, (int, float, np.number)) for v in x0):
        return np.array(x0, float)
    return x0


class Variables:
    """The pytree of variables as one vector of float64.

    Args:
        x0: array or pytree of arrays and numbers; integers become floats.

    Attributes:
        structure, shapes: the pytree.
        start: x0 as a vector.
        plain: whether x0 is itself a vector of float64, so that functions take the vectors as they are.
    """

    def __init__(self, x0: Any) -> None:
        if x0 is None:
            raise ArgumentError(
                "a problem needs x0, which also says what the variables look like",
                where=user_line(),
                remedy="pass x0=..., an array or a pytree of arrays",
            )
        leaves, self.structure = tree.flatten(_as_start(x0))
        values = [snapshot(leaf) for leaf in leaves]
        for value in values:
            if value.dtype.kind not in "fiub":
                raise ArgumentError(
                    "variables must be real numbers",
                    where=user_line(),
                    got=str(aval_of(value)),
                    remedy="treat the real and imaginary parts of a complex variable as two",
                )
        values = [v if v.dtype.kind == "f" else v.astype(float) for v in values]
        self.avals = [aval_of(v) for v in values]
        self.shapes = [a.shape for a in self.avals]
        self.start = np.concatenate([np.zeros(0), *(np.ravel(v) for v in values)]).astype(float)
        self.size = self.start.size
        if not self.size:
            raise ArgumentError("a problem needs at least one variable", where=user_line(), got=f"x0={x0!r}")
        if not np.isfinite(self.start).all():
            raise ArgumentError(
                "the start x0 is not finite",
                where=user_line(),
                got=f"{self.start[~np.isfinite(self.start)][0]} at element {np.argmin(np.isfinite(self.start))}",
                remedy="start from finite numbers",
            )
        self.plain = self.structure == tree.structure(0) and self.avals == [ShapedArray((self.size,), np.dtype(float))]
        self._unravel: Callable[[Any], Any] = ravel_pytree(tree.unflatten(self.structure, values))[1]

    def unravel(self, vector: Any) -> Any:
        """The pytree of a vector; traceable."""
        return vector if self.plain else self._unravel(vector)

    def tree_of(self, vector: np.ndarray) -> Any:
        """The pytree of a vector of floats, arrays of their own and of float64 whatever x0 was."""
        ends = np.cumsum([0, *(a.size for a in self.avals)]).tolist()
        parts = [
            vector[a:b].reshape(s).copy() if s else vector[a]
            for a, b, s in zip(ends, ends[1:], self.shapes, strict=False)
        ]
        return tree.unflatten(self.structure, parts)

    def vector(self, x: Any, what: str = "x") -> np.ndarray:
        """A vector of float64 of one's own: of a vector, or of a pytree like x0.

        Raises:
            ShapeError: it is neither.
        """
        if type(x) is np.ndarray and x.shape == (self.size,) and x.dtype == np.float64:
            return x.copy()
        x = _as_start(x)
        try:
            leaves = self.structure.flatten_up_to(x)
        except (ValueError, TypeError):
            leaves = [x] if tree.structure(x) == tree.structure(0) else []
        single = tree.structure(0)
        fits = all(tree.structure(leaf) == single or isinstance(leaf, (list, tuple)) for leaf in leaves)
        arrays = [real_vector(leaf, what) for leaf in leaves] if fits else []
        if len(arrays) == 1 and arrays[0].shape == (self.size,):
            return arrays[0].copy()
        if [a.shape for a in arrays] != self.shapes:
            raise ShapeError(
                f"{what} does not have the shape of the variables",
                where=user_line(),
                got=f"{tree.structure(x)} of shapes {[np.shape(leaf) for leaf in tree.leaves(x)]} "
                f"for {self.structure} of shapes {self.shapes}",
                remedy=f"give a pytree like x0, or a vector of all {self.size} variables",
            )
        return np.concatenate([a.ravel() for a in arrays])


class Parameters:
    """The pytree of parameters as a list of arrays; `given` is whether functions take parameters at all."""

    def __init__(self, params: Any) -> None:
        self.given = params is not None
        leaves, self.structure = tree.flatten(params)
        self.leaves = [snapshot(leaf) for leaf in leaves]
        self.avals = [aval_of(leaf) for leaf in self.leaves]

    def arguments(self, leaves: Any) -> tuple[Any, ...]:
        """What functions take after x."""
        return (tree.unflatten(self.structure, leaves),) if self.given else ()

    def flat(self, params: Any) -> list[Any]:
        """The leaves of other parameters of the same types; None stands for those of the problem.

        Raises:
            ArgumentError: the problem has none.
            ShapeError: they have another structure, or other shapes.
        """
        if params is None:
            return self.leaves
        if not self.given:
            raise ArgumentError(
                "this problem has no parameters",
                where=user_line(),
                got=f"params {tree.structure(params)}",
                remedy="name their first values when the problem is made: Problem(..., params=...)",
            )
        if tree.structure(params) == self.structure:
            leaves = [_like(leaf, aval) for leaf, aval in zip(tree.leaves(params), self.avals, strict=True)]
            if [aval_of(leaf) for leaf in leaves] == self.avals:
                return leaves
        raise ShapeError(
            "parameters must be like those that the problem was made with",
            where=user_line(),
            got=f"{tree.structure(params)} of {', '.join(str(aval_of(canonicalize(v))) for v in tree.leaves(params))} "
            f"for {self.structure} of {', '.join(map(str, self.avals))}",
            remedy="keep their structure and shapes",
        )


def _like(leaf: Any, aval: ShapedArray) -> Any:
    """The leaf as an array of one's own; real numbers take the dtype of the first parameters."""
    value = snapshot(leaf)
    if value.dtype != aval.dtype and value.dtype.kind in "iuf" and aval.dtype.kind == "f":
        value = value.astype(aval.dtype)
    return value
