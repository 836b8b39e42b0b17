"""One point at which a problem is evaluated: everything is computed once, when it is first asked for.

An iterate owns its x, so a solver that overwrites its arrays cannot make it say something about another point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from functrace.optimize.evaluation import Evaluation

__all__ = ["Iterate"]


class Iterate:
    """Values and derivatives at one point.

    Args:
        programs: what computes them.
        x: vector of variables, owned.
        params: the leaves of the parameters, owned.
    """

    __slots__ = ("_first", "_gradient", "_hessian", "_jacobian", "_second", "params", "programs", "x")

    def __init__(self, programs: Evaluation, x: np.ndarray, params: list[Any]) -> None:
        self.programs, self.x, self.params = programs, x, params
        self._first: list[Any] | None = None
        self._gradient: np.ndarray | None = None
        self._jacobian: np.ndarray | None = None
        self._second: tuple[bytes, list[Any]] | None = None
        self._hessian: tuple[bytes, np.ndarray] | None = None

    def is_at(self, x: np.ndarray, params: list[Any]) -> bool:
        """Whether this is the iterate of that point, bit by bit."""
        return _same(x, self.x) and (
            params is self.params
            or all(_same(np.asarray(a), np.asarray(b)) for a, b in zip(params, self.params, strict=True))
        )

    @property
    def first(self) -> list[Any]:
        """Objective, constraints, and the residuals of their linearisation."""
        if self._first is None:
            with np.errstate(all="ignore"):
                self._first = self.programs.first.values(self.x, *self.params)
        return self._first

    @property
    def objective(self) -> float:
        return float(self.first[0])

    @property
    def constraints(self) -> np.ndarray:
        return self.first[1]

    @property
    def gradient(self) -> np.ndarray:
        if self._gradient is None:
            with np.errstate(all="ignore"):
                self._gradient = self.programs.first.objective.pull(*self.first[2:], np.float64(1.0))
        return self._gradient

    @property
    def jacobian_values(self) -> np.ndarray:
        """The Jacobian's values in the order of its structure."""
        if self._jacobian is None:
            with np.errstate(all="ignore"):
                self._jacobian = self.programs.jacobian(self)
        return self._jacobian

    def second(self, lam: np.ndarray, sigma: float) -> list[Any]:
        """Gradient of the Lagrangian, and the residuals of its linearisation."""
        key = lam.tobytes() + np.float64(sigma).tobytes()
        last = self._second  # read once: another thread may be here with other multipliers
        if last is None or last[0] != key:
            with np.errstate(all="ignore"):
                found = self.programs.second.values(self.x, lam, np.float64(sigma), *self.params)
            self._second = last = key, found
        return last[1]

    def hessian_values(self, lam: np.ndarray, sigma: float) -> np.ndarray:
        """The lower triangle of the Hessian of the Lagrangian in the order of its structure."""
        key = lam.tobytes() + np.float64(sigma).tobytes()
        last = self._hessian
        if last is None or last[0] != key:
            with np.errstate(all="ignore"):
                self._hessian = last = key, self.programs.hessian(self, lam, sigma)
        return last[1]


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays hold the same bits; a NaN is itself, and 0.0 is not -0.0."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype != np.float64 or not a.ndim or not (a.flags.c_contiguous and b.flags.c_contiguous):
        return a.tobytes() == b.tobytes()
    return bool((a.view(np.int64) == b.view(np.int64)).all())
