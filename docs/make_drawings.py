"""The drawings of the tutorial: `python docs/make_drawings.py` writes them anew, and a test holds them to the code."""

from pathlib import Path

import numpy as np

from functrace.inspect import Drawing, draw

FOLDER = Path(__file__).parent / "drawings"


def f(x1, x2):
    return np.log(x1) + x1 * x2 - np.sin(x2)


def drawings() -> dict[str, Drawing]:
    """File name to drawing."""
    return {
        "textbook_partial.svg": draw(f)(2.0, 5.0, derivatives="partial"),
        "textbook_reverse.svg": draw(f)(2.0, 5.0, values=True, derivatives="reverse"),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, drawing in drawings().items():
        drawing.save(str(FOLDER / name))
