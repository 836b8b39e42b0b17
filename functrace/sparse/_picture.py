"""Pictures of sparsity patterns: in braille for terminals, as SVG, and by matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from functrace.sparse.pattern import Pattern

__all__ = ["braille", "spy", "svg"]

#: Bits of a braille character, by row and column of the dot: U+2800 and on.
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


def _blocks(pattern: Pattern, most: int) -> tuple[np.ndarray, int]:
    """Counts of entries in square blocks, at most so many along either side; and the side of a block."""
    side = max(1, -(-max(pattern.shape) // most))
    height, width = (max(1, -(-n // side)) for n in pattern.shape)
    places = (pattern.rows // side) * width + pattern.cols // side
    return np.bincount(places, minlength=height * width).reshape(height, width), side


def braille(pattern: Pattern, width: int = 24) -> str:
    """The pattern in braille characters, each of 2 by 4 dots; a dot is set where its block holds an entry.

    Args:
        width: how many characters a line has at most.
    """
    counts, _ = _blocks(pattern, 2 * width)
    rows, cols = -(-counts.shape[0] // 4), -(-counts.shape[1] // 2)
    dots = np.zeros((4 * rows, 2 * cols), np.intp)
    dots[: counts.shape[0], : counts.shape[1]] = counts > 0
    cells = (dots.reshape(rows, 4, cols, 2) * _DOTS[None, :, None, :]).sum(axis=(1, 3))
    return "\n".join("".join(chr(0x2800 + int(cell)) for cell in row) for row in cells)


def svg(pattern: Pattern, size: int = 240, most: int = 120) -> str:
    """The pattern as an SVG image, `size` pixels along its longer side; blocks are darker the fuller they are."""
    counts, side = _blocks(pattern, most)
    height, width = counts.shape
    scale = size / max(height, width)
    marks = []
    full = max(int(counts.max(initial=1)), 1)
    for row, col in zip(*np.nonzero(counts), strict=True):
        shade = 0.35 + 0.65 * float(counts[row, col]) / full
        opacity = "" if shade > 0.99 else f' fill-opacity="{shade:.2f}"'
        marks.append(f'<rect x="{col}" y="{row}" width="1" height="1"{opacity}/>')
    title = f"{pattern.summary()}" + (f", blocks of {side}x{side}" if side > 1 else "")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * scale:.0f}" height="{height * scale:.0f}" '
        f'viewBox="0 0 {width} {height}" shape-rendering="crispEdges"><title>{title}</title>'
        f'<rect width="{width}" height="{height}" fill="white" stroke="gray" stroke-width="{1 / scale:.3f}"/>'
        f'<g fill="#1f4e79">{"".join(marks)}</g></svg>'
    )


def spy(pattern: Pattern, ax: Any = None, **options: Any) -> Any:
    """Draw the pattern with matplotlib; see `Pattern.spy`."""
    import matplotlib.pyplot as plt

    if ax is None:
        _, ax = plt.subplots()
    rows, cols = pattern.shape
    options.setdefault("markersize", max(1.0, 200 / max(rows, cols, 1)))
    options.setdefault("color", "#1f4e79")
    ax.plot(pattern.cols, pattern.rows, linestyle="none", marker="s", **options)
    ax.set_xlim(-0.5, cols - 0.5)
    ax.set_ylim(rows - 0.5, -0.5)
    ax.set_aspect("equal")
    ax.xaxis.tick_top()
    ax.set_xlabel(pattern.summary())
    return ax
