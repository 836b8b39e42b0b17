"""The structural nonzeros of a problem's Jacobian or Hessian together with what computes their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.errors import ShapeError
from functrace.sparse import Choice, Pattern, Structure
from functrace.util import user_line

__all__ = ["DerivativeStructure"]


class DerivativeStructure(Structure):
    """Places of the nonzeros, frozen and in a fixed order (by columns, then by rows), and their values at any point.

    Args:
        structure: the places; of a symmetric matrix those in its lower triangle.
        choice: how the values are computed, and why.
        compute: the arguments of `values` -> the values in that order.

    Example:
        >>> import numpy as np
        >>> from functrace import optimize
        >>> problem = optimize.Problem(lambda x: x[0] * x[1], x0=[1.0, 2.0])
        >>> H = problem.hessian_structure
        >>> values = H.values(problem.x0, sigma=2.0)
        >>> H.to_dense(values)
        array([[0., 2.],
               [2., 0.]])
        >>> H.matvec(values, np.array([1.0, 0.0]))
        array([0., 2.])
    """

    def __init__(self, structure: Structure, choice: Choice, compute: Callable[..., Any]) -> None:
        self.shape, self.symmetric = structure.shape, structure.symmetric
        self.starts, self.rows, self.cols = structure.starts, structure.rows, structure.cols  # frozen
        self.choice, self._compute = choice, compute

    @property
    def pattern(self) -> Pattern:
        """The places of the whole matrix as a `functrace.sparse.Pattern`, which prints and draws itself."""
        full = self.full[0]
        return Pattern(self.shape, full.rows, full.cols)

    def values(self, *args: Any, out: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """The values at a point.

        Args:
            args, kwargs: those of `Problem.jacobian` or of `Problem.lagrangian_hessian`.
            out: array of nnz floats to write to.

        Returns:
            Array of nnz floats; `out` if given.

        Raises:
            ShapeError: `out` has another shape.
        """
        values = self._compute(*args, **kwargs)
        if out is None:
            return np.array(values)
        if out.shape != (self.nnz,):
            raise ShapeError(
                "out must hold one number per nonzero",
                where=user_line(),
                got=f"shape {out.shape} for {self.nnz} nonzeros",
                remedy=f"give an array of shape ({self.nnz},)",
            )
        out[:] = values
        return out
