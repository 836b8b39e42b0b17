"""Colourings of sparse matrices: which columns or rows one product with the matrix can serve together.

Columns without a common row (distance-2 colouring), likewise rows; symmetric matrices read directly (star colouring) or
by substitution (acyclic colouring); matrices with a few dense rows, whose rows and columns share the work.

The field is surveyed by Gebremedhin, Manne and Pothen, "What color is your Jacobian? Graph coloring for computing
derivatives", SIAM Review 47 (2005). Sets of colours are bit sets kept beside each vertex, so a greedy colouring takes
time proportional to the nonzeros. Patterns that are banded, as they stand or after a change of order, are coloured by
position alone; each such colouring is checked exactly before it is used.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from functrace.errors import ArgumentError, ShapeError
from functrace.sparse._by_position import columns_by_position, star_by_position
from functrace.sparse._greedy import (
    adjacency,
    greedy_acyclic,
    greedy_columns,
    greedy_star,
    group_order,
    vertex_order,
)
from functrace.sparse.structure import Structure, compressed, entries_of
from functrace.util import user_line

__all__ = [
    "Bicoloring",
    "Coloring",
    "acyclic_coloring",
    "bicoloring",
    "column_coloring",
    "row_coloring",
    "star_coloring",
]

ORDERS = ("natural", "largest-first", "smallest-last", "incidence-degree")
#: More colours than this are not worth sets of bits; such matrices are all but dense.
_MANY = 4096
#: Up to so many nonzeros several orders are tried: each colour less saves a product in every evaluation to come.
_FEW = 30_000


class Coloring(NamedTuple):
    """Colours of the columns, rows or vertices of a matrix.

    Attributes:
        colors: int64[n], from 0; -1 for an empty column or row, which needs none.
        number: how many colours there are.
        kind: "column", "row", "star" or "acyclic".
        method: how it was found.
    """

    colors: np.ndarray
    number: int
    kind: str
    method: str

    def __repr__(self) -> str:
        return f"{self.kind} colouring of {self.colors.size} in {self.number} colours ({self.method})"


class Bicoloring(NamedTuple):
    """A few rows read from products with the transpose, all other nonzeros from products with the matrix.

    Attributes:
        rows: int64[m], a colour from 0 for each row set apart, -1 for the others.
        columns: int64[n], colours of the columns, of what the other rows hold.
        row_number, column_number: how many colours there are of each.
    """

    rows: np.ndarray
    columns: np.ndarray
    row_number: int
    column_number: int

    def __repr__(self) -> str:
        return f"bicolouring in {self.row_number} row and {self.column_number} column colours"


def column_coloring(pattern: Any, order: str | None = None) -> Coloring:
    """Colours such that two columns with a nonzero in the same row differ (structural orthogonality).

    Curtis, Powell and Reid, "On the estimation of sparse Jacobian matrices" (1974); Coleman and Moré, "Estimation of
    sparse Jacobian matrices and graph coloring problems" (1983); algorithm 3.2 of Gebremedhin, Manne and Pothen (2005).

    Args:
        pattern: a Pattern, SciPy sparse array, dense array or (rows, columns, shape).
        order: in which the greedy algorithm takes the columns: "natural", "largest-first", "smallest-last" (Matula and
            Beck 1983) or "incidence-degree" (Coleman and Moré 1983). By default colours by position where these are
            provably fewest, else the greedy ones in natural order, or on small matrices the best of a few orders.

    Returns:
        The colouring; no other has fewer colours than the fullest row has nonzeros.

    Raises:
        ArgumentError: an unknown order.

    Example:
        >>> from functrace.sparse.coloring import column_coloring
        >>> column_coloring([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]])
        column colouring of 4 in 2 colours (by position)
    """
    check_order(order)
    rows, cols, shape = entries_of(pattern)
    return _color_columns(rows, cols, shape, order, "column")


def row_coloring(pattern: Any, order: str | None = None) -> Coloring:
    """Colours such that two rows with a nonzero in the same column differ; see `column_coloring`.

    Example:
        >>> from functrace.sparse.coloring import row_coloring
        >>> row_coloring([[1, 1, 1], [1, 0, 0], [0, 1, 0]]).colors.tolist()
        [0, 1, 1]
    """
    check_order(order)
    rows, cols, (m, n) = entries_of(pattern)
    return _color_columns(cols, rows, (n, m), order, "row")


def star_coloring(pattern: Any, order: str | None = None) -> Coloring:
    """Colours of a symmetric matrix from which each of its nonzeros can be read directly.

    Neighbours differ, and no path of four vertices has two colours only. Coleman and Moré, "Estimation of sparse
    Hessian matrices and graph coloring problems" (1984); algorithm 4.1 of Gebremedhin, Tarafdar, Manne and Pothen, "New
    acyclic and star coloring algorithms with application to computing Hessians", SIAM J. Sci. Comput. 29 (2007).

    A hub, a vertex with far more neighbours than others have, is coloured after the others: taken early, it would make
    each of its neighbours need a colour of its own. With a colour of its own it cannot lie on a two-coloured path, so
    the colouring of the others stays valid whatever becomes of the hubs.

    Args:
        pattern: symmetric; either triangle or both, in any form that `column_coloring` takes.
        order: in which vertices are taken; by default the natural one, hubs last, or on small graphs the best of a few.

    Raises:
        ShapeError: the matrix is not square.
        ArgumentError: an unknown order.

    Example:
        >>> import numpy as np
        >>> from functrace.sparse.coloring import star_coloring
        >>> arrow = np.eye(100)
        >>> arrow[0] = 1
        >>> star_coloring(arrow).number
        2
    """
    check_order(order)
    low, high, n = edges_of(pattern)
    if _nearly_dense(low.size, n):
        return Coloring(np.arange(n), n, "star", "all different: nearly dense")
    if order is not None:
        starts, heads = adjacency(low, high, n)
        colors, number = greedy_star(starts, heads, vertex_order(starts, heads, order))
        return Coloring(colors, number, "star", f"greedy, {order} order")
    hub = _hubs(low, high, n)
    last = f", {hub.sum()} hubs last" if hub.any() else ""
    found = star_by_position(low, high, hub)
    if found is not None and found[2]:
        return Coloring(*found[:2], "star", "by position" + last)
    starts, heads = adjacency(low, high, n)
    orders = {"natural": np.concatenate([np.flatnonzero(~hub), np.flatnonzero(hub)])}
    if heads.size <= _FEW:
        orders["smallest-first"] = np.argsort(np.diff(starts), kind="stable")
        orders["smallest-last"] = vertex_order(starts, heads, "smallest-last")
    tries = {name: greedy_star(starts, heads, places) for name, places in orders.items()}
    best = min(tries, key=lambda name: tries[name][1])
    if found is not None and found[1] <= tries[best][1]:
        return Coloring(*found[:2], "star", "by position" + last)
    return Coloring(*tries[best], "star", f"greedy, {best} order" + (last if best == "natural" else ""))


def acyclic_coloring(pattern: Any, order: str | None = None) -> Coloring:
    """Colours of a symmetric matrix from which its nonzeros can be found by substitution.

    Neighbours differ, and no cycle has two colours only: each pair of colours spans a forest, whose edges are solved
    for from the leaves inwards. Coleman and Cai (1986); algorithm 3.1 of Gebremedhin, Tarafdar, Manne and Pothen
    (2007). Hubs get colours of their own, which lie on no two-coloured cycle, or those of a star colouring, which is
    an acyclic one, where these are fewer.

    Args:
        pattern: symmetric; either triangle or both, in any form that `column_coloring` takes.
        order: in which vertices are taken; by default the natural one, or on small graphs the best of a few.

    Raises:
        ShapeError: the matrix is not square.
        ArgumentError: an unknown order.

    Example:
        >>> import numpy as np
        >>> from functrace.sparse.coloring import acyclic_coloring
        >>> acyclic_coloring(np.eye(9) + np.eye(9, k=1)).number
        2
    """
    check_order(order)
    low, high, n = edges_of(pattern)
    if _nearly_dense(low.size, n):
        return Coloring(np.arange(n), n, "acyclic", "all different: nearly dense")
    hub = _hubs(low, high, n)
    inner = ~(hub[low] | hub[high])
    starts, heads = adjacency(low[inner], high[inner], n)
    orders = {order or "natural": vertex_order(starts, heads, order or "natural")}
    if order is None and heads.size <= _FEW:
        orders["smallest-first"] = np.argsort(np.diff(starts), kind="stable")
    tries = {name: greedy_acyclic(starts, heads, places[~hub[places]]) for name, places in orders.items()}
    best = min(tries, key=lambda name: tries[name][1])
    colors, number = tries[best]
    if order is None and (hub.any() or heads.size <= _FEW):
        star = star_coloring(pattern)  # which is an acyclic one, and may give hubs colours that others have
        if star.number < number + hub.sum():
            return star._replace(kind="acyclic")
    colors[hub] = number + np.arange(hub.sum())
    return Coloring(colors, number + int(hub.sum()), "acyclic", f"greedy, {best} order")


def bicoloring(pattern: Any, row_weight: float = 1.0) -> Bicoloring:
    """A few dense rows read from products with the transpose, all other nonzeros from products with the matrix.

    Dense rows set apart, after Coleman and Verma, "The efficient computation of sparse Jacobian matrices using
    automatic differentiation" (1998): the fullest rows are taken out as long as that lowers the least number of colours
    possible. Dense columns need no such care: a column of its own colour hinders no other.

    Args:
        pattern: in any form that `column_coloring` takes.
        row_weight: cost of a product with the transpose, in products with the matrix.

    Example:
        >>> import numpy as np
        >>> from functrace.sparse.coloring import bicoloring
        >>> arrow = np.eye(100)
        >>> arrow[0] = arrow[:, 0] = 1
        >>> bicoloring(arrow)
        bicolouring in 1 row and 2 column colours
    """
    rows, cols, (m, n) = entries_of(pattern)
    degrees = np.bincount(rows, minlength=m)
    fullest = np.argsort(-degrees, kind="stable")
    bounds = row_weight * np.arange(m + 1) + np.append(degrees[fullest], 0)
    apart = np.zeros(m, bool)
    apart[fullest[: int(np.argmin(bounds))]] = True
    inside = apart[rows]
    by_column = _color_columns(rows[~inside], cols[~inside], (m, n), None, "column")
    by_row = _color_columns(cols[inside], rows[inside], (n, m), None, "row")
    return Bicoloring(by_row.colors, by_column.colors, by_row.number, by_column.number)


def check_order(order: str | None) -> None:
    """Raise unless the order is a known one.

    Raises:
        ArgumentError: it is not.
    """
    if order is not None and order not in ORDERS:
        raise ArgumentError(
            "colouring knows no such order",
            where=user_line(),
            got=repr(order),
            remedy=f"choose one of {', '.join(map(repr, ORDERS))}, or None",
        )


def _color_columns(
    rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int], order: str | None, kind: str
) -> Coloring:
    m, n = shape
    starts, cols, rows = compressed(cols, rows, n, m)
    degrees = np.bincount(rows, minlength=m)
    fewest = int(degrees.max(initial=0))
    if order is None:
        if fewest == 0:
            return Coloring(np.full(n, -1), 0, kind, "no nonzeros")
        if fewest > _MANY or 2 * fewest > n >= 64:
            used = starts[1:] > starts[:-1]
            return Coloring(np.where(used, np.cumsum(used) - 1, -1), int(used.sum()), kind, "all different: dense rows")
        found = columns_by_position(rows, cols, m, n, fewest)
        if found is not None and found[1] == fewest:
            return Coloring(*found, kind, "by position")
        tries = {"natural": greedy_columns(starts, rows, np.arange(n), m)}
        if rows.size <= _FEW and tries["natural"][1] > fewest:
            sizes = np.bincount(cols, degrees[rows] - 1, minlength=n)
            tries["largest-first"] = greedy_columns(starts, rows, np.argsort(-sizes, kind="stable"), m)
        best = min(tries, key=lambda name: tries[name][1])
        if found is not None and found[1] <= tries[best][1]:
            return Coloring(*found, kind, "by position")
        return Coloring(*tries[best], kind, f"greedy, {best} order")
    row_starts, _, members = compressed(rows, cols, m, n)
    places = group_order(order, starts, rows, row_starts, members)
    colors, number = greedy_columns(starts, rows, places, m)
    return Coloring(colors, number, kind, f"greedy, {order} order")


def edges_of(pattern: Any) -> tuple[np.ndarray, np.ndarray, int]:
    """The graph of a symmetric matrix: the lesser and the greater end of each edge, sorted; no diagonal.

    Raises:
        ShapeError: the matrix is not square.
    """
    rows, cols, (m, n) = entries_of(pattern)
    if m != n:
        raise ShapeError(
            "star and acyclic colouring are for symmetric matrices",
            where=user_line(),
            got=f"shape {(m, n)}",
            remedy="use column_coloring, row_coloring or bicoloring",
        )
    if isinstance(pattern, Structure) and pattern.symmetric:  # a lower triangle by columns, sorted already
        off = rows != cols
        return cols[off], rows[off], n
    below, above = rows > cols, rows < cols
    _, low, high = compressed(cols[below], rows[below], n, n)
    if above.any():
        _, low_above, high_above = compressed(rows[above], cols[above], n, n)
        if not (np.array_equal(low, low_above) and np.array_equal(high, high_above)):
            pairs = np.concatenate([low, low_above]), np.concatenate([high, high_above])
            _, low, high = compressed(*pairs, n, n)
    return low, high, n


def _nearly_dense(edges: int, n: int) -> bool:
    return n >= 64 and 4 * edges > n * n


def _hubs(low: np.ndarray, high: np.ndarray, n: int) -> np.ndarray:
    """The vertices with so many more neighbours than the rest that a colour for each is less than theirs would cost."""
    degrees = np.bincount(low, minlength=n) + np.bincount(high, minlength=n)
    hub = np.zeros(n, bool)
    if not n:
        return hub
    fullest = np.argsort(-degrees, kind="stable")
    bounds = np.arange(n) + degrees[fullest]
    best = int(np.argmin(bounds))
    if 2 * bounds[best] < bounds[0]:
        hub[fullest[:best]] = True
    return hub
