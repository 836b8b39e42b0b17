"""What every solver's adaptor gives back."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["Solved"]


class Solved(NamedTuple):
    """What a solver found.

    Attributes:
        x: vector.
        lam: multipliers of the constraints, or None for an estimate.
        z: multipliers of the bounds, or None for what stationarity gives.
        success, status, message, nit: as in SciPy's results.
        raw: what the solver returned, a mapping.
    """

    x: np.ndarray
    lam: np.ndarray | None
    z: np.ndarray | None
    success: bool
    status: int
    message: str
    nit: int
    raw: Any
