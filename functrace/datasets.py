"""The data that ships with functrace: small, real, and licensed for redistribution. Imports NumPy only."""

from importlib import resources

import numpy as np
from numpy.typing import NDArray

__all__ = ["load_wine"]


def load_wine() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The Wine recognition data: 13 chemical measurements of 178 Italian wines from three cultivars.

    Source: M. Forina and others, PARVUS, Genoa, from the UCI Machine Learning Repository
    (https://doi.org/10.24432/C5PC7J), licensed CC BY 4.0.

    Returns:
        `(X, y)`: the raw measurements, one feature per row, float64 of shape (13, 178), and the cultivar (1, 2 or 3)
        of each wine, int64 of shape (178,).

    >>> X, y = load_wine()
    >>> X.shape, sorted(set(y.tolist()))
    ((13, 178), [1, 2, 3])
    """
    with (resources.files("functrace") / "data" / "wine.csv").open(encoding="utf-8") as file:
        table = np.loadtxt(file, delimiter=",", skiprows=1)
    return np.ascontiguousarray(table[:, :-1].T), table[:, -1].astype(np.int64)
