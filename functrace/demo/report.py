"""A report in a terminal or a file: headings, aligned tables, checked numbers, colour only where it is wanted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import numpy as np

__all__ = ["Report", "wants_colour"]

_INDENT = "   "
_STYLES = {"title": "1", "heading": "1;36", "good": "32", "bad": "1;31", "faint": "2"}


def wants_colour(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a stream is a terminal whose user has not declined colour (https://no-color.org)."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


class Report:
    """Writes as it goes, and remembers which checks failed.

    Args:
        stream: where to write.
        colour: whether to colour; by default what `wants_colour` says.
    """

    def __init__(self, stream: TextIO, colour: bool | None = None) -> None:
        self.stream = stream
        self.colour = wants_colour(stream) if colour is None else colour
        self.failures: list[str] = []

    def styled(self, text: str, style: str) -> str:
        """The text in a style, where there is colour."""
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.colour else text

    def line(self, text: str = "", style: str | None = None) -> None:
        """One line, at the margin."""
        print(self.styled(text, style) if style else text, file=self.stream, flush=True)

    def heading(self, text: str, subject: str) -> None:
        """A section's title and, below it, what it is about."""
        self.line()
        self.line(text, "heading")
        self.paragraph(subject, "faint")

    def paragraph(self, text: str, style: str | None = None) -> None:
        """Indented text, line breaks kept, a blank line after it."""
        for line in text.splitlines():
            self.line(f"{_INDENT}{self.styled(line, style) if style else line}")
        self.line()

    def table(self, rows: Sequence[Sequence[str]], head: bool = False) -> None:
        """Aligned columns: the first to the left, the others to the right; with `head` the first row is a heading."""
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for i, (first, *others) in enumerate(rows):
            cells = [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))]
            text = _INDENT + "   ".join(cells).rstrip()
            self.line(text, "faint" if head and i == 0 else None)
        self.line()

    def check(self, claim: str, got: Any, expected: Any, tolerance: float) -> None:
        """State that `got` is `expected` to within `tolerance`, absolutely, with the largest difference found."""
        difference = float(np.max(np.abs(np.asarray(got) - np.asarray(expected))))
        found = f"{claim} (difference {difference:.1e})"
        if difference <= tolerance:  # a nan is a failure
            self.line(f"{_INDENT}{self.styled('ok', 'good')}      {found}")
        else:
            self.failures.append(claim)
            self.line(f"{_INDENT}{self.styled('WRONG', 'bad')}   {found}, more than {tolerance:.0e}")
