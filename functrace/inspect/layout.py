"""Layered drawing of directed acyclic graphs: K. Sugiyama, S. Tagawa and M. Toda, Methods for visual understanding of
hierarchical system structures (1981).

Layers by the longest path; edges over several layers pass through dummy nodes, one of which holds the edge's label;
order within layers by barycentres, sweeping down and up; places by isotonic regression, which moves the nodes of a
layer as little as possible from where their neighbours want them without letting two overlap. Edges run between nodes
and labels by construction: a layer is a band, which an edge crosses only where its own dummy node stands.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

__all__ = ["Box", "Layout", "Link", "layered"]

GAP, LAYER_GAP, MARGIN = 22.0, 34.0, 12.0
_SWEEPS, _ROUNDS, _SETTLING = 12, 30, 10


class Link(NamedTuple):
    """An edge between two boxes, with the size of its label or (0, 0).

    Attributes:
        source, target: indices of boxes.
        width, height: of the label.
    """

    source: int
    target: int
    width: float = 0.0
    height: float = 0.0


class Box(NamedTuple):
    """A placed rectangle, by its centre.

    Attributes:
        x, y: the centre.
        width, height: the size.
    """

    x: float
    y: float
    width: float
    height: float

    def overlaps(self, other: Box, gap: float = 0.0) -> bool:
        """Whether two rectangles come closer than `gap`."""
        return (
            abs(self.x - other.x) < (self.width + other.width) / 2 + gap - 1e-9
            and abs(self.y - other.y) < (self.height + other.height) / 2 + gap - 1e-9
        )


class Layout(NamedTuple):
    """A drawing.

    Attributes:
        boxes: where the nodes are.
        labels: per link, where its label is; None without one.
        paths: per link, the points that it passes: pairs of points between which it runs straight down through a layer,
            joined by curves between the layers.
        width, height: of the drawing.
    """

    boxes: list[Box]
    labels: list[Box | None]
    paths: list[list[tuple[float, float]]]
    width: float
    height: float


@dataclass
class _Cell:
    """A node, a label or a dummy in a layer."""

    width: float
    height: float
    rank: int
    x: float = 0.0
    above: list[int] = field(default_factory=list)
    below: list[int] = field(default_factory=list)
    weight: float = 1.0


def layered(sizes: Sequence[tuple[float, float]], links: Sequence[Link]) -> Layout:
    """Place boxes of the given sizes so that all links run downwards.

    Args:
        sizes: width and height per box.
        links: the edges; the graph has no cycle.
    """
    cells = [_Cell(w, h, r) for (w, h), r in zip(sizes, _ranks(len(sizes), links), strict=True)]
    chains = [_chain(cells, link) for link in links]
    layers: list[list[int]] = [[] for _ in range(max((c.rank for c in cells), default=-1) + 1)]
    for i, cell in enumerate(cells):
        layers[cell.rank].append(i)
    _order(cells, layers)
    _place(cells, layers)
    tops, bottoms, y = [], [], MARGIN
    for layer in layers:
        tops.append(y)
        y += max(cells[i].height for i in layer)
        bottoms.append(y)
        y += LAYER_GAP
    left = min((c.x - c.width / 2 for c in cells), default=0.0) - MARGIN
    for cell in cells:
        cell.x -= left
    width = max((c.x + c.width / 2 for c in cells), default=0.0) + MARGIN

    def box(i: int) -> Box:
        cell = cells[i]
        return Box(cell.x, (tops[cell.rank] + bottoms[cell.rank]) / 2, cell.width, cell.height)

    boxes = [box(i) for i in range(len(sizes))]
    labels = [
        next((box(i) for i in chain[1:-1] if cells[i].width > 1.0), None) if link.width else None
        for chain, link in zip(chains, links, strict=True)
    ]
    paths = [_path(cells, chain, boxes, tops, bottoms) for chain in chains]
    return Layout(boxes, labels, paths, width, y - LAYER_GAP + MARGIN)


def _ranks(count: int, links: Sequence[Link]) -> list[int]:
    """The layer of each box: as far down as its longest path; where that makes no more dummies, just above its use."""
    ranks = [0] * count
    incoming: list[list[Link]] = [[] for _ in range(count)]
    outgoing: list[list[Link]] = [[] for _ in range(count)]
    for link in links:
        incoming[link.target].append(link)
        outgoing[link.source].append(link)
    waiting = [len(i) for i in incoming]
    ready = [i for i in range(count) if not waiting[i]]
    for i in ready:  # grows while it is walked
        for link in outgoing[i]:
            ranks[link.target] = max(ranks[link.target], ranks[i] + _length(link))
            waiting[link.target] -= 1
            if not waiting[link.target]:
                ready.append(link.target)
    for i in reversed(ready):
        if outgoing[i] and len(incoming[i]) <= len(outgoing[i]):
            ranks[i] = min(ranks[link.target] - _length(link) for link in outgoing[i])
    return ranks


def _length(link: Link) -> int:
    return 2 if link.width else 1


def _chain(cells: list[_Cell], link: Link) -> list[int]:
    """The cells from source to target, dummies made on the way."""
    first, last = cells[link.source].rank, cells[link.target].rank
    middle = (first + last) // 2
    chain = [link.source]
    for rank in range(first + 1, last):
        labelled = link.width and rank == middle
        cells.append(_Cell(link.width if labelled else 1.0, link.height if labelled else 1.0, rank, weight=4.0))
        chain.append(len(cells) - 1)
    chain.append(link.target)
    for upper, lower in pairwise(chain):
        cells[upper].below.append(lower)
        cells[lower].above.append(upper)
    return chain


# order within layers


def _order(cells: list[_Cell], layers: list[list[int]]) -> None:
    """Sort each layer by barycentres of its neighbours, down and up; the order with the fewest crossings stays."""
    best = [list(layer) for layer in layers]
    position = {i: k for layer in layers for k, i in enumerate(layer)}
    fewest = _crossings(cells, layers, position)
    for turn in range(_SWEEPS):
        down = turn % 2 == 0
        for layer in layers if down else reversed(layers):
            keys = {}
            for i in layer:
                near = cells[i].above if down else cells[i].below
                keys[i] = sum(position[j] for j in near) / len(near) if near else float(position[i])
            layer.sort(key=keys.__getitem__)
            position.update((i, k) for k, i in enumerate(layer))
        _swap(cells, layers, position)
        count = _crossings(cells, layers, position)
        if count < fewest:
            fewest, best = count, [list(layer) for layer in layers]
        if not count:
            break
    for layer, order in zip(layers, best, strict=True):
        layer[:] = order


def _swap(cells: list[_Cell], layers: list[list[int]], position: dict[int, int]) -> None:
    """Exchange neighbours where that removes crossings."""
    for layer in layers:
        for k in range(len(layer) - 1):
            i, j = layer[k], layer[k + 1]
            saved = 0
            for first, second in ((cells[i].above, cells[j].above), (cells[i].below, cells[j].below)):
                for p in first:
                    for q in second:
                        saved += (position[p] > position[q]) - (position[p] < position[q])
            if saved > 0:
                layer[k], layer[k + 1] = j, i
                position[i], position[j] = k + 1, k


def _crossings(cells: list[_Cell], layers: list[list[int]], position: dict[int, int]) -> int:
    """How many pairs of links cross: inversions among the ends of the links between two layers."""
    total = 0
    for layer in layers:
        ends: list[int] = []
        for i in layer:
            for end in sorted([position[j] for j in cells[i].below]):
                place = bisect.bisect_right(ends, end)
                total += len(ends) - place
                ends.insert(place, end)
    return total


# places within layers


def _place(cells: list[_Cell], layers: list[list[int]]) -> None:
    """Move every layer, down and up, to where the neighbours are."""
    for layer in layers:
        x = 0.0
        for i in layer:
            cells[i].x = x + cells[i].width / 2
            x += cells[i].width + GAP
        for i in layer:
            cells[i].x -= x / 2
    for turn in range(_ROUNDS):
        down = turn % 2 == 0
        for layer in layers if down else reversed(layers):
            wanted, weights = [], []
            for i in layer:
                near = cells[i].above if down else cells[i].below
                if turn >= _ROUNDS - _SETTLING:
                    near = [*cells[i].above, *cells[i].below]
                wanted.append(sum(cells[j].x for j in near) / len(near) if near else cells[i].x)
                weights.append(cells[i].weight * (len(near) or 0.1))
            gaps = [(cells[a].width + cells[b].width) / 2 + GAP for a, b in pairwise(layer)]
            for i, x in zip(layer, _spread(wanted, weights, gaps), strict=True):
                cells[i].x = x


def _spread(wanted: Sequence[float], weights: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """The places nearest to the wanted ones (weighted least squares) that keep the gaps: isotonic regression."""
    offsets = [0.0]
    for gap in gaps:
        offsets.append(offsets[-1] + gap)
    blocks: list[tuple[float, float, int]] = []  # mean, weight, count
    for value, weight, offset in zip(wanted, weights, offsets, strict=True):
        mean, total, count = value - offset, weight, 1
        while blocks and blocks[-1][0] > mean:
            other, more, number = blocks.pop()
            mean = (mean * total + other * more) / (total + more)
            total, count = total + more, count + number
        blocks.append((mean, total, count))
    placed = [mean for mean, _, count in blocks for _ in range(count)]
    return [x + offset for x, offset in zip(placed, offsets, strict=True)]


def _path(
    cells: list[_Cell], chain: list[int], boxes: Sequence[Box], tops: list[float], bottoms: list[float]
) -> list[tuple[float, float]]:
    source, target = boxes[chain[0]], boxes[chain[-1]]
    start = _port(cells, chain[0], chain[1], cells[chain[0]].below)
    end = _port(cells, chain[-1], chain[-2], cells[chain[-1]].above)
    points = [(start, source.y + source.height / 2), (start, bottoms[cells[chain[0]].rank])]
    for i in chain[1:-1]:
        points += [(cells[i].x, tops[cells[i].rank]), (cells[i].x, bottoms[cells[i].rank])]
    return [*points, (end, tops[cells[chain[-1]].rank]), (end, target.y - target.height / 2)]


def _port(cells: list[_Cell], node: int, neighbour: int, near: list[int]) -> float:
    """Where a link meets a box: side by side with the others, in the order of where they go."""
    ordered = sorted(near, key=lambda j: cells[j].x)
    step = min(14.0, 0.7 * cells[node].width / max(len(near), 1))
    return cells[node].x + (ordered.index(neighbour) - (len(ordered) - 1) / 2) * step
