"""Colours by position: with a period along some order of the columns or vertices, checked exactly before use.

Banded and block-diagonal patterns, as they stand or after what belongs together is put together, get the fewest colours
without a loop over vertices. Hubs of a symmetric pattern follow one at a time.
"""

from __future__ import annotations

import numpy as np

from functrace.sparse.structure import compressed

__all__ = ["columns_by_position", "is_star_coloring", "neighbor_counts", "star_by_position"]

#: How many periods are tried, from the least that any colouring needs.
CANDIDATES = 12


def columns_by_position(
    rows: np.ndarray, cols: np.ndarray, m: int, n: int, fewest: int
) -> tuple[np.ndarray, int] | None:
    """Colours that repeat with a period along some order of the columns, or None if no short period serves.

    A period as long as the widest row always serves; shorter ones are tried, from the least that any colouring needs.
    """
    used = np.bincount(cols, minlength=n) > 0
    for place in (np.arange(n), _nearby_places(rows, cols, m, n)):
        at = place[cols]
        low, high = np.full(m, n), np.full(m, -1)
        np.minimum.at(low, rows, at)
        np.maximum.at(high, rows, at)
        widest = int((high - low).max()) + 1
        if widest > 4 * fewest + 16:
            continue
        for period in range(fewest, min(widest, fewest + CANDIDATES)):
            if np.bincount(rows * period + at % period, minlength=1).max() == 1:
                return np.where(used, place % period, -1), period
        return np.where(used, place % widest, -1), widest
    return None


def _nearby_places(rows: np.ndarray, cols: np.ndarray, m: int, n: int) -> np.ndarray:
    """Columns renumbered by the least column that they share a row with, so that what belongs together stands together.

    Turns [all x, all u] of a discretised problem into [x0, u0, x1, u1, ...].
    """
    row_key = np.full(m, n)
    np.minimum.at(row_key, rows, cols)
    key = np.arange(n)
    np.minimum.at(key, cols, row_key[rows])
    place = np.empty(n, np.int64)
    place[np.argsort(key, kind="stable")] = np.arange(n)
    return place


def star_by_position(low: np.ndarray, high: np.ndarray, hub: np.ndarray) -> tuple[np.ndarray, int, bool] | None:
    """Colours that repeat with a short period along some order of all vertices but the hubs, then the hubs'; or None.

    Returns:
        `(colors, number, few)`; `few` tells that the period is close to the least possible: any two colours span a
        forest, so k colours of n vertices leave room for less than (k - 1) n edges.
    """
    colors = np.full(hub.size, -1, np.int64)
    others = np.flatnonzero(~hub)
    if hub.any():
        touching = hub[low] | hub[high]
        inner = np.flatnonzero(~touching)
        renumbered = np.cumsum(~hub) - 1
        inner_low, inner_high = renumbered[low[inner]], renumbered[high[inner]]
    else:
        inner_low, inner_high = low, high
    found = _period(inner_low, inner_high, others.size)
    if found is None:
        return None
    places, number = found
    colors[others] = places
    few = number <= 2 * -(-inner_low.size // max(others.size, 1)) + 1
    if not hub.any():
        return colors, number, few
    extended = _extend_to_hubs(low[touching], high[touching], low[inner], high[inner], hub, colors, number)
    return None if extended is None else (*extended, few)


def _period(low: np.ndarray, high: np.ndarray, count: int) -> tuple[np.ndarray, int] | None:
    """Colours by position of vertices without hubs, at most one more than the neighbours that some vertex has."""
    if not low.size:
        return np.zeros(count, np.int64), min(1, count)
    degree = int((np.bincount(low, minlength=count) + np.bincount(high, minlength=count)).max())
    for place in (np.arange(count), _nearby_neighbors(low, high, count)):
        band = int(np.abs(place[low] - place[high]).max())
        if band > 2 * degree + 2:
            continue
        # In a full band of half-width b no two of any 2b + 1 in a row may be equal; blocks need less.
        periods = range(max(2, band + 1), min(2 * band + 1, band + 1 + CANDIDATES))
        for period in (*periods, 2 * band + 1):
            if period > degree + 1:
                break
            if is_star_coloring(place % period, period, low, high):
                return place % period, period
    return None


def _nearby_neighbors(low: np.ndarray, high: np.ndarray, count: int) -> np.ndarray:
    """Vertices renumbered by their least neighbour, as `_nearby_places`."""
    key = np.arange(count)
    np.minimum.at(key, high, low)
    place = np.empty(count, np.int64)
    place[np.argsort(key, kind="stable")] = np.arange(count)
    return place


def neighbor_counts(colors: np.ndarray, number: int, tails: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """For each directed edge: how many neighbours of its tail have the colour of its head.

    Args:
        tails, heads: every edge in both directions.
    """
    key = tails * number + colors[heads]
    if colors.size * number <= 16 * key.size + 1000:
        return np.bincount(key, minlength=1)[key]
    _, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
    return counts[inverse]


def is_star_coloring(colors: np.ndarray, number: int, low: np.ndarray, high: np.ndarray) -> bool:
    """Whether colours of a graph's vertices are a star colouring; exact.

    A two-coloured path of four vertices has a middle edge each of whose ends has two neighbours of the other's colour.

    Args:
        low, high: both ends of every edge, once.
    """
    if (colors[low] == colors[high]).any():
        return False
    counts = neighbor_counts(colors, number, np.concatenate([low, high]), np.concatenate([high, low]))
    crowded = counts > 1
    return not (crowded[: low.size] & crowded[low.size :]).any()


def _extend_to_hubs(
    low: np.ndarray,
    high: np.ndarray,
    inner_low: np.ndarray,
    inner_high: np.ndarray,
    hub: np.ndarray,
    colors: np.ndarray,
    number: int,
) -> tuple[np.ndarray, int] | None:
    """The greedy star colouring continued to the hubs, a hub at a time with all its neighbours at once.

    The sets of `kernels.greedy_star` in one word of 64 bits; None if they do not suffice.

    Args:
        low, high: the edges that end in a hub.
        inner_low, inner_high: the other edges.
        colors: of all but the hubs; changed.
    """
    hubs = np.flatnonzero(hub)
    if number + hubs.size > 64:
        return None
    at_low, at_high = hub[low], hub[high]
    rank = np.cumsum(hub) - 1
    owner = np.concatenate([rank[low[at_low]], rank[high[at_high]]])
    starts, _, neighbors = compressed(owner, np.concatenate([high[at_low], low[at_high]]), hubs.size, hub.size)
    seen, twice, barred = _sets_of(colors, number, inner_low, inner_high)
    bits_of = np.uint64(1) << np.arange(64, dtype=np.uint64)
    for i, v in enumerate(hubs.tolist()):
        mine = neighbors[starts[i] : starts[i + 1]]
        colored = mine[colors[mine] >= 0]
        counts = np.bincount(colors[colored], minlength=64)
        paired = colored[counts[colors[colored]] > 1]  # v is the centre of a star that these are in
        taken = bits_of[counts > 0].sum() | np.bitwise_or.reduce(barred[colored]) | np.bitwise_or.reduce(seen[paired])
        forbidden = int(taken)
        found = (~forbidden & (forbidden + 1)).bit_length() - 1
        bit = bits_of[found]
        colors[v] = found
        number = max(number, found + 1)
        barred[paired] |= bit
        seen[v], twice[v] = bits_of[counts > 0].sum(), bits_of[counts > 1].sum()
        centers = mine[(seen[mine] & bit) != 0]
        fresh = centers[(twice[centers] & bit) == 0]
        twice[centers] |= bit
        seen[mine] |= bit
        fresh = fresh[colors[fresh] >= 0]
        if fresh.size:  # their other neighbours of this colour are in stars from now on
            inside = np.zeros(hub.size, bool)
            inside[fresh] = True
            for one_end, other_end in ((inner_low, inner_high), (inner_high, inner_low)):
                meets = inside[one_end] & (colors[other_end] == found)
                np.bitwise_or.at(barred, other_end[meets], bits_of[colors[one_end[meets]]])
            for k, h in enumerate(hubs.tolist()):
                around = neighbors[starts[k] : starts[k + 1]]
                if inside[h]:
                    barred[around[colors[around] == found]] |= bits_of[colors[h]]
                if colors[h] == found and h != v:
                    barred[h] |= np.bitwise_or.reduce(bits_of[colors[around[inside[around]]]])
        known = np.unique(colors[centers])
        barred[v] |= bits_of[known[known >= 0]].sum()
    return colors, number


def _sets_of(
    colors: np.ndarray, number: int, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sets `seen`, `twice` and `barred` of `kernels.greedy_star` for a colouring.

    Args:
        low, high: the edges between coloured vertices.
    """
    n = colors.size
    tails, heads = np.concatenate([low, high]), np.concatenate([high, low])
    counts = np.bincount(tails * number + colors[heads], minlength=n * number).reshape(n, number)
    weights = np.uint64(1) << np.arange(number, dtype=np.uint64)
    seen, twice = (counts > 0) @ weights, (counts > 1) @ weights
    crowded = counts[tails, colors[heads]] > 1  # tails[e] is the centre of a star that heads[e] is in
    barring = np.zeros((n, number), bool)
    barring[heads[crowded], colors[tails[crowded]]] = True
    return seen, twice, barring @ weights
