"""Sparse derivatives: patterns, colourings, element Hessians."""

from functrace.sparse import coloring as coloring
from functrace.sparse.hessian import hessian as hessian
from functrace.sparse.jacobian import jacobian as jacobian
from functrace.sparse.pattern import Pattern as Pattern
from functrace.sparse.pattern import hessian_pattern as hessian_pattern
from functrace.sparse.pattern import jacobian_pattern as jacobian_pattern
from functrace.sparse.prepared import Choice as Choice
from functrace.sparse.prepared import SparseFunction as SparseFunction
from functrace.sparse.structure import Structure as Structure
from functrace.transforms._compression import use_coloring as _use_coloring


def _color(rows: object, cols: object, shape: tuple[int, int]) -> tuple:
    """Column colours, for Jacobians whose mode is chosen."""
    found = coloring.column_coloring((rows, cols, shape))
    return found.colors, found.number


_use_coloring(_color)
