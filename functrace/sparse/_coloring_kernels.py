"""The loops of colouring, written for Numba: plain indices, arrays handed in, no objects.

Each function runs as plain Python too, on lists or arrays; `functrace.sparse.coloring` compiles it when the graph is
large enough to pay for it. Sets of colours are rows of 64-bit words: a vertex keeps the set of its neighbours' colours,
so that colouring it costs its degree, however many vertices stand at distance two.

Indices: the neighbours (or rows) of `v` are `indices[starts[v] : starts[v + 1]]`. Colour -1 means none yet.
"""

from __future__ import annotations

import numpy as np


def greedy_columns(starts, indices, order, used, colors):
    """Partial distance-2 colouring: two columns with a row in common get different colours.

    Curtis, Powell and Reid (1974), Coleman and Moré (1983); algorithm 3.2 of Gebremedhin, Manne and Pothen (2005), with
    the colours around each row kept as a set instead of found by a search at distance two.

    Args:
        used: uint64[rows, words], zero; the colours in use in each row.

    Returns:
        The number of colours, or -1 where the words hold too few.
    """
    words = used.shape[1]
    number = 0
    for v in order:
        if starts[v] == starts[v + 1]:
            continue
        found = -1
        for word in range(words):
            taken = np.uint64(0)
            for k in range(starts[v], starts[v + 1]):
                taken |= used[indices[k], word]
            if taken != np.uint64(0xFFFFFFFFFFFFFFFF):
                bit = 0
                while (taken >> np.uint64(bit)) & np.uint64(1):
                    bit += 1
                found = 64 * word + bit
                break
        if found < 0:
            return -1
        colors[v] = found
        number = max(number, found + 1)
        mask = np.uint64(1) << np.uint64(found & 63)
        for k in range(starts[v], starts[v + 1]):
            used[indices[k], found >> 6] |= mask
    return number


def greedy_star(starts, indices, order, seen, twice, barred, colors):
    """Star colouring: neighbours differ, and no path of four vertices has two colours only.

    Coleman and Moré (1984); algorithm 4.1 of Gebremedhin, Tarafdar, Manne and Pothen (2007), with the two-coloured
    stars kept as sets of colours per vertex instead of found by a search at distance two.

    Args:
        seen, twice: uint64[n, words], zero; the colours of a vertex's neighbours, and those that occur twice there.
        barred: uint64[n, words], zero; the colours c of a vertex w such that some neighbour x of colour c has another
            neighbour of w's colour: a neighbour of w with colour c would end a two-coloured path of four.

    Returns:
        The number of colours, or -1 where the words hold too few.
    """
    words = seen.shape[1]
    forbidden = np.zeros(words, np.uint64)
    one = np.uint64(1)
    number = 0
    for v in order:
        for word in range(words):
            forbidden[word] = seen[v, word]
        for k in range(starts[v], starts[v + 1]):
            w = indices[k]
            color = colors[w]
            if color < 0:
                continue
            for word in range(words):
                forbidden[word] |= barred[w, word]
            if (twice[v, color >> 6] >> np.uint64(color & 63)) & one:
                for word in range(words):
                    forbidden[word] |= seen[w, word]
        found = -1
        for word in range(words):
            if forbidden[word] != np.uint64(0xFFFFFFFFFFFFFFFF):
                bit = 0
                while (forbidden[word] >> np.uint64(bit)) & one:
                    bit += 1
                found = 64 * word + bit
                break
        if found < 0:
            return -1
        colors[v] = found
        number = max(number, found + 1)
        place = found >> 6
        mask = one << np.uint64(found & 63)
        for k in range(starts[v], starts[v + 1]):
            w = indices[k]
            color = colors[w]
            if seen[w, place] & mask:
                again = twice[w, place] & mask
                twice[w, place] |= mask
                if color >= 0:
                    own = one << np.uint64(color & 63)
                    if again:
                        barred[v, color >> 6] |= own
                    else:  # the second neighbour of this colour makes w the centre of a star
                        for i in range(starts[w], starts[w + 1]):
                            if colors[indices[i]] == found:
                                barred[indices[i], color >> 6] |= own
            else:
                seen[w, place] |= mask
            if color >= 0 and (twice[v, color >> 6] >> np.uint64(color & 63)) & one:
                barred[w, place] |= mask
    return number


def greedy_acyclic(starts, indices, edges, order, parents, first_vertex, first_neighbor, forbidden, last, colors):
    """Acyclic colouring: neighbours differ, and no cycle has two colours only.

    Algorithm 3.1 of Gebremedhin, Tarafdar, Manne and Pothen (2007), with the trees of two colours as disjoint sets.

    Args:
        edges: the number of the edge beside each entry of `indices`, the same from both ends.
        parents: int[edges], 0, 1, 2, ...: the disjoint sets.
        first_vertex, first_neighbor: int[edges], -1: the vertex that last reached a tree, and through which neighbour.
        forbidden: int[n + 1], -1: per colour, the last vertex that it was forbidden to.
        last: int[n + 1], -1: per colour, the position of an edge from the current vertex to that colour.

    Returns:
        The number of colours.
    """
    number = 0
    for v in order:
        for k in range(starts[v], starts[v + 1]):
            color = colors[indices[k]]
            if color >= 0:
                forbidden[color] = v
        for k in range(starts[v], starts[v + 1]):
            w = indices[k]
            if colors[w] < 0:
                continue
            for i in range(starts[w], starts[w + 1]):
                x = indices[i]
                color = colors[x]
                if color < 0 or x == v or forbidden[color] == v:
                    continue
                tree = edges[i]
                while parents[tree] != tree:  # the representative, halving the path to it
                    parents[tree] = parents[parents[tree]]
                    tree = parents[tree]
                if first_vertex[tree] != v:
                    first_vertex[tree] = v
                    first_neighbor[tree] = w
                elif first_neighbor[tree] != w:
                    forbidden[color] = v
        found = 0
        while forbidden[found] == v:
            found += 1
        colors[v] = found
        number = max(number, found + 1)
        # The new edges grow trees: those to one colour meet in v, and each meets the trees of its two colours at w.
        for k in range(starts[v], starts[v + 1]):
            w = indices[k]
            color = colors[w]
            if color < 0:
                continue
            tree = edges[k]
            while parents[tree] != tree:
                tree = parents[tree]
            meets_in_v = starts[v] <= last[color] < starts[v + 1]
            for i in range(starts[w] - 1, starts[w + 1]):
                if i < starts[w]:
                    if not meets_in_v:
                        continue
                    other = edges[last[color]]
                elif indices[i] != v and colors[indices[i]] == found:
                    other = edges[i]
                else:
                    continue
                while parents[other] != other:
                    parents[other] = parents[parents[other]]
                    other = parents[other]
                parents[other] = tree
            last[color] = k
    return number


def peel(degrees, links, across, queue, queued, levels, found):
    """Trees from the leaves inwards: edges in the order in which an end of theirs has become a leaf.

    An end keeps the exclusive or of the numbers of its edges: of a leaf that is the number of its only edge.

    Args:
        degrees: int[nodes]; changed.
        links: int[nodes], the exclusive or of the numbers of a node's edges; changed.
        across: int[edges], the exclusive or of the numbers of both ends.
        queue: int[nodes], the leaves first; `queued[0]` is how many.
        levels: int[nodes], zero: how many edges lie between a node and its leaves, at most.
        found: int[2 * edges]; for each edge the end that became a leaf, then the level of that end.

    Returns:
        How many edges were taken; fewer than all where there is a cycle.
    """
    count, waiting, taken, i = len(across), queued[0], 0, 0
    while i < waiting:
        v = queue[i]
        i += 1
        if degrees[v] != 1:
            continue
        edge = links[v]
        w = across[edge] ^ v
        found[edge] = v
        found[count + edge] = levels[v]
        taken += 1
        degrees[v] = 0
        degrees[w] -= 1
        links[w] ^= edge
        levels[w] = max(levels[w], levels[v] + 1)
        if degrees[w] == 1:
            queue[waiting] = w
            waiting += 1
    return taken


def smallest_last(starts, indices, group_starts, members, degrees, bins, vertices, places, order):
    """Order in which each vertex has the smallest degree among those up to it. Matula and Beck (1983).

    A vertex's neighbours are the members of its groups: for columns of a matrix the rows are the groups, for a graph
    the edges. Degrees count a neighbour once per common group. The vertices that remain stand sorted by degree, and a
    change of degree by one is one exchange (Batagelj and Zaveršnik 2003).

    Args:
        degrees: int[n], by the count above; changed.
        bins: int[2 + largest degree]; where in `vertices` each degree begins.
        vertices: int[n], sorted by degree.
        places: int[n]; where in `vertices` each vertex stands.
        order: int[n], filled from the end.
    """
    n = len(order)
    for i in range(n):
        v = vertices[i]
        order[n - 1 - i] = v
        for k in range(starts[v], starts[v + 1]):
            group = indices[k]
            for j in range(group_starts[group], group_starts[group + 1]):
                w = members[j]
                if places[w] <= i:
                    continue
                degree = degrees[w]
                first = max(bins[degree], i + 1)
                u = vertices[first]
                vertices[places[w]] = u
                places[u] = places[w]
                vertices[first] = w
                places[w] = first
                bins[degree] = first + 1
                bins[degree - 1] = max(bins[degree - 1], i + 1)
                degrees[w] = degree - 1


def incidence_degree(starts, indices, group_starts, members, degrees, bins, vertices, places, order):
    """Order in which each vertex has the most neighbours among those before it. Coleman and Moré (1983).

    As `smallest_last`; `degrees` count the neighbours placed, zero at first, and `order` is filled from the front.
    """
    n = len(order)
    for i in range(n - 1, -1, -1):
        v = vertices[i]
        order[n - 1 - i] = v
        for k in range(starts[v], starts[v + 1]):
            group = indices[k]
            for j in range(group_starts[group], group_starts[group + 1]):
                w = members[j]
                if places[w] >= i:
                    continue
                degree = degrees[w]
                final = min(bins[degree + 1], i) - 1
                u = vertices[final]
                vertices[places[w]] = u
                places[u] = places[w]
                vertices[final] = w
                places[w] = final
                bins[degree + 1] = final
                degrees[w] = degree + 1
