"""Pytrees as vectors, for optimisers and solvers that know vectors only; the name is that of `jax.flatten_util`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from functrace import numpy as fnp
from functrace import tree
from functrace.core.types import aval_of, canonicalize
from functrace.errors import ShapeError
from functrace.numpy._promotion import as_array, cast
from functrace.util import user_line

__all__ = ["ravel_pytree"]


def ravel_pytree(pytree: Any) -> tuple[Any, Callable[[Any], Any]]:
    """All leaves of a pytree in one vector, and the way back.

    Args:
        pytree: pytree of arrays and numbers.

    Returns:
        `(vector, unravel)`: the leaves one after the other, promoted to one dtype; and a function that makes such
        a pytree of a vector, each leaf with its own shape and dtype again. Both are traceable.

    Raises:
        ShapeError: `unravel` is given anything but a vector of that length.

    Example:
        >>> import numpy as np
        >>> from functrace.flatten_util import ravel_pytree
        >>> vector, unravel = ravel_pytree({"scale": 2.0, "shift": np.array([0.5, 1.5])})
        >>> vector
        array([2. , 0.5, 1.5])
        >>> unravel(10.0 * vector)
        {'scale': np.float64(20.0), 'shift': array([ 5., 15.])}
    """
    leaves, treedef = tree.flatten(pytree)
    avals = [aval_of(canonicalize(leaf)) for leaf in leaves]
    ends = np.cumsum([aval.size for aval in avals], dtype=int).tolist()
    size = ends[-1] if ends else 0

    def unravel(vector: Any) -> Any:
        vector = as_array(vector)
        if vector.shape != (size,):
            raise ShapeError(
                "unravel needs a vector like the one ravel_pytree gave",
                where=user_line(),
                got=f"shape {vector.shape} for {size} numbers",
                remedy=f"give shape ({size},)",
            )
        parts = [
            cast(fnp.reshape(vector[end - aval.size : end], aval.shape), aval.dtype)
            for end, aval in zip(ends, avals, strict=True)
        ]
        return tree.unflatten(treedef, [part if part.shape else part[()] for part in parts])

    if not leaves:
        return np.zeros(0), unravel
    return fnp.concatenate([fnp.ravel(leaf) for leaf in leaves]), unravel
