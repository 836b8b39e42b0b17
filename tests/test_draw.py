"""Drawings: the right boxes and edges, numbers that are the derivatives, and a layout in which nothing overlaps."""

import itertools
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import functrace as ft
from functrace import lax
from functrace.errors import ArgumentError
from functrace.inspect import draw
from functrace.inspect.layout import Box, Link, layered


def textbook(x1, x2):
    return np.log(x1) + x1 * x2 - np.sin(x2)


def labels(drawing):
    return [" / ".join(node.lines) for node in drawing.nodes]


def edges(drawing):
    names = labels(drawing)
    return {(names[e.source], names[e.target]): e.lines for e in drawing.edges}


def test_graph_of_the_textbook_function():
    drawing = draw(textbook)(2.0, 5.0)
    assert labels(drawing) == [
        "x1", "x2", "v1 = ln(x1)", "v2 = x1 · x2", "v3 = v1 + v2", "v4 = sin(x2)", "v5 = v3 - v4", "y = v5",
    ]  # fmt: skip
    assert set(edges(drawing)) == {
        ("x1", "v1 = ln(x1)"),
        ("x1", "v2 = x1 · x2"),
        ("x2", "v2 = x1 · x2"),
        ("x2", "v4 = sin(x2)"),
        ("v1 = ln(x1)", "v3 = v1 + v2"),
        ("v2 = x1 · x2", "v3 = v1 + v2"),
        ("v3 = v1 + v2", "v5 = v3 - v4"),
        ("v4 = sin(x2)", "v5 = v3 - v4"),
        ("v5 = v3 - v4", "y = v5"),
    }


def test_partial_derivatives_multiply_and_add_to_the_gradient():
    """The sum over paths of the products of partial derivatives: the chain rule, read off the drawing."""
    drawing = draw(textbook)(2.0, 5.0, derivatives="partial", digits=12)

    def paths(node):
        if drawing.nodes[node].kind == "output":
            return 1.0
        return sum(
            float(e.lines[0].removeprefix("∂ = ")) * paths(e.target) if e.lines else paths(e.target)
            for e in drawing.edges
            if e.source == node
        )

    np.testing.assert_allclose([paths(0), paths(1)], ft.grad(textbook, argnums=(0, 1))(2.0, 5.0), rtol=1e-11)


def test_values_and_derivatives_on_edges():
    found = edges(draw(textbook)(2.0, 5.0, values=True, derivatives="reverse"))
    assert found["x2 = 5", "v2 = x1 · x2"] == ["x2 = 5", "x\u03042 = 1.716".replace("x\u0304", "x̄")]
    forward = edges(draw(textbook)(2.0, 5.0, derivatives="forward", tangents=(0.0, 1.0)))
    assert forward["v4 = sin(x2)", "v5 = v3 - v4"] == ["v̇4 = 0.284"]


def test_blocks_for_loops_and_jitted_functions():
    @ft.jit
    def inner(x):
        return np.sin(x) * 2.0

    def f(x):
        return lax.scan(lambda c, t: (c * t, None), inner(x), np.arange(1.0, 4.0))[0]

    drawing = draw(f)(0.5, values=True, derivatives="reverse")
    assert [n.kind for n in drawing.nodes] == ["input", "block", "block", "output"]
    assert "inner(x)" in labels(drawing)[1] and "scan(v1" in labels(drawing)[2]
    opened = draw(f)(0.5, expand=True)
    assert len(opened.nodes) > 4 and all(n.kind != "block" for n in opened.nodes)


def layer(x):
    return np.tanh(x * 1.5) + np.sin(x)


def test_large_programs_fold_by_user_function():
    def f(x):
        for _ in range(30):
            x = layer(x)
            x = x * x
        return x

    drawing = draw(f)(0.5)
    blocks = [n for n in drawing.nodes if n.kind == "block"]
    assert len(blocks) == 30 and len(drawing.nodes) == 62
    assert all(n.lines[0] == "layer: 4 operations" and n.lines[1].startswith("line ") for n in blocks)
    assert len(draw(f)(0.5, largest=1000).nodes) == 152


def test_long_loops_fold_to_few_boxes():
    def f(x):
        for k in range(100):
            x = np.sin(x) * k + x
        return x

    drawing = draw(f)(0.5)
    assert len(drawing.nodes) <= 62
    assert sum(int(re.match(r"f: (\d+) operations", n.lines[0])[1]) for n in drawing.nodes if n.kind == "block") == 300


def test_many_inputs_are_one_box_per_argument():
    def f(params, x):
        for w in params:
            x = x * w
        return x

    drawing = draw(f)([1.0] * 50, 2.0)
    assert labels(drawing)[:2] == ["params: 50 arrays", "x"]
    assert len(drawing.nodes) == 2 + 50 + 1


def test_folding_keeps_the_order():
    def f(x, y):
        for _ in range(40):
            x, y = layer(x) - y, x * layer(y)
        return x, y

    for largest in (10, 60, 1000):
        drawing = draw(f)(0.5, 0.25, largest=largest)
        assert all(e.source < e.target for e in drawing.edges)


# the three forms


def test_svg_is_well_formed_and_complete():
    drawing = draw(lambda x: np.where(x < 1.0, np.exp(-x), x))(2.0, values=True, derivatives="reverse")
    root = ElementTree.fromstring(drawing._repr_svg_())
    texts = {t.text for t in root.iter("{http://www.w3.org/2000/svg}text")}
    assert texts >= {line for n in drawing.nodes for line in n.lines} | {
        line for e in drawing.edges for line in e.lines
    }
    paths = [p for p in root.iter("{http://www.w3.org/2000/svg}path") if "marker-end" in p.attrib]
    assert len(paths) == len(drawing.edges)
    assert "http" not in drawing.svg().replace("http://www.w3.org/2000/svg", "")


def test_dot_and_mermaid():
    drawing = draw(textbook)(2.0, 5.0, derivatives="partial")
    dot = drawing.dot()
    assert dot.count("->") == 9 and 'n2 [label="v1 = ln(x1)"' in dot and dot.endswith("}")
    mermaid = drawing.mermaid().splitlines()
    assert mermaid[0] == "flowchart TD" and len(mermaid) == 1 + 8 + 9
    assert '  n0 -->|"∂ = 0.5"| n2' in mermaid


def test_save(tmp_path):
    drawing = draw(textbook)(2.0, 5.0)
    for ending, start in (("svg", "<svg"), ("dot", "digraph"), ("mmd", "flowchart")):
        drawing.save(str(tmp_path / f"graph.{ending}"))
        assert (tmp_path / f"graph.{ending}").read_text(encoding="utf-8").startswith(start)
    with pytest.raises(ArgumentError, match=r"saved as .svg"):
        drawing.save("graph.png")


def test_unknown_derivatives():
    with pytest.raises(ArgumentError, match="no such derivatives"):
        draw(textbook)(2.0, 5.0, derivatives="both")


# the layout


def assert_legible(layout, links):
    """No two boxes or labels overlap, all are inside the drawing, and no edge passes through a box of others."""
    rectangles = [*layout.boxes, *(label for label in layout.labels if label is not None)]
    for a, b in itertools.combinations(rectangles, 2):
        assert not a.overlaps(b, 5.0)
    for box in rectangles:
        assert box.x - box.width / 2 >= 0 and box.x + box.width / 2 <= layout.width
        assert box.y - box.height / 2 >= 0 and box.y + box.height / 2 <= layout.height
    for link, path, label in zip(links, layout.paths, layout.labels, strict=True):
        own = {link.source, link.target}
        others = [b for i, b in enumerate(layout.boxes) if i not in own]
        others += [other for other in layout.labels if other is not None and other is not label]
        assert all(y0 <= y1 + 1e-9 for (_, y0), (_, y1) in itertools.pairwise(path))
        for (x0, y0), (x1, y1) in list(itertools.pairwise(path))[::2]:  # the parts inside layers
            assert x0 == x1
            line = Box(x0, (y0 + y1) / 2, 0.0, y1 - y0)
            assert not any(line.overlaps(other) for other in others if y1 > y0)
        for (_, y0), (_, y1) in list(itertools.pairwise(path))[1::2]:  # the parts between layers
            assert not any(y0 + 1e-6 < b.y + b.height / 2 and b.y - b.height / 2 < y1 - 1e-6 for b in rectangles)


@st.composite
def graphs(draw_):
    count = draw_(st.integers(1, 60))
    sizes = [(draw_(st.integers(20, 200)) * 1.0, draw_(st.sampled_from([28.0, 46.0]))) for _ in range(count)]
    links = []
    for target in range(1, count):
        for source in draw_(st.sets(st.integers(max(0, target - 12), target - 1), max_size=3)):
            label = draw_(st.sampled_from([(0.0, 0.0), (60.0, 17.0), (120.0, 32.0)]))
            links.append(Link(source, target, *label))
    return sizes, links


@given(graphs())
@settings(max_examples=25)
def test_layouts_are_legible(graph):
    sizes, links = graph
    layout = layered(sizes, links)
    assert_legible(layout, links)
    for link in links:
        upper, lower = layout.boxes[link.source], layout.boxes[link.target]
        assert upper.y + upper.height / 2 < lower.y - lower.height / 2
    assert all((label is None) == (not link.width) for label, link in zip(layout.labels, links, strict=True))


@pytest.mark.parametrize("options", [{}, {"values": True, "derivatives": "reverse"}, {"derivatives": "partial"}])
def test_a_program_of_sixty_nodes_is_legible(options):
    def f(x):
        waves = [np.sin(x * k) for k in range(1, 12)]
        products = [np.exp(u) * v for u, v in itertools.pairwise(waves)]
        return sum(u + v for u, v in zip(products, products[2:], strict=False))

    drawing = draw(f)(0.3, **options)
    assert len(drawing.nodes) > 50
    layout = drawing.layout()
    assert_legible(layout, [Link(e.source, e.target) for e in drawing.edges])


def test_trees_are_drawn_without_crossings():
    """A balanced tree of sums, its leaves given in a bad order."""
    leaves = [3, 0, 5, 6, 1, 7, 2, 4]
    parent = {leaf: 8 + leaf // 2 for leaf in range(8)} | {8 + i: 12 + i // 2 for i in range(4)} | {12: 14, 13: 14}
    number = {old: new for new, old in enumerate([*leaves, *range(8, 15)])}
    links = [Link(number[a], number[b]) for a, b in parent.items()]
    layout = layered([(60.0, 28.0)] * 15, links)
    for a, b in itertools.combinations(links, 2):
        (xa, ya), (xb, yb) = [(layout.boxes[link.source].x, layout.boxes[link.source].y) for link in (a, b)]
        if ya == yb and a.target != b.target:
            assert (xa < xb) == (layout.boxes[a.target].x < layout.boxes[b.target].x)
