"""Sparse derivatives made ready for arguments of one type, and the account of how they are computed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from functrace.errors import WrongStructureError
from functrace.sparse.pattern import Pattern, explained_pattern
from functrace.sparse.structure import Structure
from functrace.util import user_line

__all__ = ["Choice", "SparseFunction"]


@dataclass(frozen=True)
class Choice:
    """How a sparse derivative is evaluated, and why.

    Attributes:
        method: "column colouring", "row colouring", "row and column colouring", "star colouring", "elements" ...
        sweeps: the number of products with the Jacobian or Hessian that one evaluation takes.
        cost: predicted cost, in evaluations of the function.
        reason: one sentence.
        alternatives: predicted cost, or a lower bound of it, of the methods not taken.
    """

    method: str
    sweeps: int
    cost: float
    reason: str
    alternatives: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method}: {self.reason}"


class SparseFunction:
    """A sparse derivative made ready for arguments of one type: what solvers want of it.

    Args:
        structure: where the values stand.
        values: traceable function of the arguments that gives them, [nnz].
        choice: how they are computed, or what tells.
        product: the same matrix times a vector, computed without the matrix: `product(vector, *args)`.
        form: SciPy format of the arrays that a call returns.
        coloring: the colouring behind it, or None.
        program: the recorded program, which explains nonzeros; see `explained_pattern`.

    Attributes:
        structure, coloring: as given.
        choice: how the values are computed.
    """

    def __init__(
        self,
        structure: Structure,
        values: Callable[..., Any],
        choice: Choice | Callable[[], Choice],
        product: Callable[..., Any],
        form: str = "csr",
        coloring: Any = None,
        program: Any = None,
    ) -> None:
        self.structure, self.form, self.coloring = structure, form, coloring
        self._values, self._product, self._choice, self._program = values, product, choice, program

    @functools.cached_property
    def choice(self) -> Choice:
        """How the values are computed, and why."""
        return self._choice() if callable(self._choice) else self._choice

    @functools.cached_property
    def pattern(self) -> Pattern:
        """The pattern of the whole matrix, both triangles of a symmetric one."""
        full, _ = self.structure.full
        if self._program is None:
            return Pattern(full.shape, full.rows, full.cols)
        return explained_pattern(full.shape, full.rows, full.cols, self._program, self.structure.symmetric)

    def why(self, row: int, col: int) -> tuple[str, ...]:
        """The user's lines that make a place nonzero; none if it is always zero. See `Pattern.why`."""
        return self.pattern.why(row, col)

    @property
    def shape(self) -> tuple[int, int]:
        return self.structure.shape

    @property
    def nnz(self) -> int:
        """The number of values."""
        return self.structure.nnz

    @property
    def rows(self) -> np.ndarray:
        """Row of each value."""
        return self.structure.rows

    @property
    def cols(self) -> np.ndarray:
        """Column of each value."""
        return self.structure.cols

    def values(self, *args: Any, out: np.ndarray | None = None) -> Any:
        """The values at the arguments, in the order of `rows` and `cols`; may itself be transformed.

        Args:
            args: as the function takes them, of the types this was prepared for.
            out: [nnz] array to write them to, for calls that are not traced.
        """
        values = self._values(*args)
        if out is None:
            return values
        self.structure.check_out(out)
        out[...] = values
        return out

    def __call__(self, *args: Any) -> Any:
        """The derivative as a SciPy sparse array."""
        return self.structure.to_array(self._values(*args), self.form)

    def to_csc(self, *args: Any) -> Any:
        """The derivative as a `scipy.sparse.csc_array`."""
        return self.structure.to_csc(self._values(*args))

    def matvec(self, vector: Any, *args: Any) -> Any:
        """The derivative times a vector, computed without the matrix."""
        return self._product(vector, *args)

    def check(self, *args: Any, seed: int = 0, products: int = 2, rtol: float = 1e-6) -> None:
        """Compare pattern and values at the arguments with products computed without them, along random vectors.

        A nonzero that the pattern misses, or a value in the wrong place, changes a random product almost surely.

        Raises:
            WrongStructureError: they differ.
        """
        values = self.values(*args)
        generator = np.random.default_rng(seed)
        scale = self.structure.matvec(np.abs(values), np.ones(self.shape[1]))
        with np.errstate(all="ignore"):  # a value that cancels to nearly nothing may differ by much of itself
            cancelled = 1e-14 + 1e-12 * float(np.max(scale, initial=0.0, where=np.isfinite(scale)))
        for _ in range(products):
            vector = generator.uniform(0.5, 1.5, self.shape[1]) * generator.choice([-1.0, 1.0], self.shape[1])
            got, expected = self.structure.matvec(values, vector), np.asarray(self._product(vector, *args))
            both_nan = np.isnan(got) & np.isnan(expected)
            with np.errstate(invalid="ignore"):
                bound = rtol * np.maximum(scale, np.abs(expected)) + cancelled
                off = ~(np.abs(got - expected) <= bound) & ~both_nan & (got != expected)
            if off.any():
                row = int(np.argmax(off))
                raise WrongStructureError(
                    "a product with the sparse derivative differs from the derivative's own",
                    where=user_line(),
                    got=f"{got[row]!r} for {expected[row]!r} in row {row} of {self!r}",
                    remedy="give a pattern that holds every nonzero; without a given pattern this is an error of "
                    "functrace's, unless the derivative jumps at this very point",
                )

    def __repr__(self) -> str:
        m, n = self.shape
        kind = "lower-triangle nonzeros" if self.structure.symmetric else "nonzeros"
        return f"{m}x{n}, {self.nnz} {kind}, {self.choice}"

    def summary(self) -> str:
        """Shape and counts, as in "49x50, 98 nonzeros, 2 colours"; "by elements" where no colours are needed."""
        if self.coloring is None:
            return f"{self.pattern.summary()}, by elements"
        count = self.choice.sweeps
        return f"{self.pattern.summary()}, {count} colour{'s' * (count != 1)}"

    def __str__(self) -> str:
        _, *picture = repr(self.pattern).splitlines()
        return "\n".join([self.summary(), *picture])
