"""SciPy's functions, traceable; outside any transformation they are SciPy's own. SciPy loads on first use."""

from functrace.scipy import linalg, special

__all__ = ["linalg", "special"]
