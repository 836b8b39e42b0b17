"""The structural nonzeros of a problem's Jacobian or Hessian together with what computes their values."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from functrace.sparse import Choice, Pattern, Structure

__all__ = ["DerivativeStructure"]


class DerivativeStructure(Structure):
    """Places of the nonzeros, frozen and in a fixed order (by columns, then by rows), and their values at any point.

    Args:
        structure: the places; of a symmetric matrix those in its lower triangle.
        choice: how the values are computed, and why, or what tells.
        compute: the arguments of `values` -> the values in that order.
        explained: gives the pattern with the program that explains it.

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

    def __init__(
        self,
        structure: Structure,
        choice: Choice | Callable[[], Choice],
        compute: Callable[..., Any],
        explained: Callable[[], Pattern] | None = None,
    ) -> None:
        self.shape, self.symmetric = structure.shape, structure.symmetric
        self.starts, self.rows, self.cols = structure.starts, structure.rows, structure.cols  # frozen
        self._choice, self._compute, self._explained = choice, compute, explained

    @cached_property
    def choice(self) -> Choice:
        """How the values are computed, and why."""
        return self._choice() if callable(self._choice) else self._choice

    @cached_property
    def pattern(self) -> Pattern:
        """The places of the whole matrix as a `functrace.sparse.Pattern`, which prints, draws and explains itself."""
        if self._explained is not None:
            return self._explained()
        full = self.full[0]
        return Pattern(self.shape, full.rows, full.cols)

    def why(self, row: int, col: int) -> tuple[str, ...]:
        """The user's lines that make an entry nonzero; none if it is not in the structure."""
        return self.pattern.why(row, col)

    def values(self, *args: Any, out: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """The values at a point.

        Args:
            args, kwargs: those of `Problem.jacobian` or of `Problem.lagrangian_hessian`.
            out: array of nnz floats to write to.

        Returns:
            Array of nnz floats; `out` if given.

        Raises:
            InputError, ShapeError: `out` is no array of floats, or has another shape.
        """
        values = self._compute(*args, **kwargs)
        if out is None:
            return np.array(values)
        self.check_out(out)
        out[:] = values
        return out
