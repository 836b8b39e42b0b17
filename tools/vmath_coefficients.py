"""Writes functrace/backend/vmath/coefficients.py: the polynomials of the vector math. Needs mpmath.

Each is the polynomial that interpolates in the Chebyshev points of the interval, computed with 60 digits: within a
small factor of the best one (Trefethen, Approximation Theory and Approximation Practice, SIAM 2013, chapter 16). The
degree is the least that keeps the error, times its largest weight in the result, below 2**-57 for float64 and 2**-28
for float32. `python tools/vmath_coefficients.py` rewrites the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mpmath as mp

mp.mp.dps = 60
TARGET = Path(__file__).parents[1] / "functrace" / "backend" / "vmath" / "coefficients.py"
TOLERANCES = {53: mp.mpf(2) ** -57, 24: mp.mpf(2) ** -28}


@dataclass(frozen=True)
class Fit:
    """A function to approximate on an interval; `weight` bounds what its error is multiplied by in the result."""

    name: str
    formula: str
    function: Callable[[Any], Any]
    low: float
    high: float
    weight: float
    tolerances: tuple[tuple[int, Any], ...] = tuple(TOLERANCES.items())


def erfcx(a: Any) -> Any:
    return mp.exp(a * a) * mp.erfc(a)


def tail(q: Any) -> Any:
    a = 4 * (1 + q) / (1 - q)
    return (1 + 2 * a) * erfcx(a) - mp.mpf(5) / 4


def exponential(r: Any) -> Any:
    return (mp.expm1(r) - r) / r**2 if abs(r) > mp.mpf(10) ** -20 else mp.mpf(1) / 2 + r / 6


LN2 = mp.log(2)
FITS = [
    Fit("EXP", "(exp(r) - 1 - r) / r**2", exponential, -0.34665, 0.34665, 0.17),
    Fit(
        "SINH",
        "(sinh(r) / r - 1) / z, z = r**2",
        lambda z: (mp.sinh(mp.sqrt(z)) / mp.sqrt(z) - 1) / z,
        0,
        0.12017,
        0.13,
    ),
    Fit("COSH", "(cosh(r) - 1) / z, z = r**2", lambda z: (mp.cosh(mp.sqrt(z)) - 1) / z, 0, 0.12017, 0.13),
    Fit(
        "LOG",
        "(2 atanh(s) / s - 2) / z, z = s**2",
        lambda z: (2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 2) / z,
        0,
        0.02945,
        0.015,
    ),
    Fit(
        "LOG_PRECISE",
        "((2 atanh(s) / s - 2) / z - 2 / 3) / z, z = s**2",
        lambda z: ((2 * mp.atanh(mp.sqrt(z)) / mp.sqrt(z) - 2) / z - mp.mpf(2) / 3) / z,
        0,
        0.02945,
        0.00044,
        ((53, mp.mpf(2) ** -64), (24, mp.mpf(2) ** -38)),
    ),
    Fit("SIN", "(sin(r) / r - 1) / z, z = r**2", lambda z: (mp.sin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, 0, 0.6172, 0.7),
    Fit(
        "COS",
        "(cos(r) - 1 + z / 2) / z**2, z = r**2",
        lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2,
        0,
        0.6172,
        0.6,
    ),
    Fit(
        "ARCSIN", "(asin(r) / r - 1) / z, z = r**2", lambda z: (mp.asin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, 0, 0.25, 0.25
    ),
    Fit(
        "ARCTAN",
        "(atan(r) / r - 1) / z, z = r**2",
        lambda z: (mp.atan(mp.sqrt(z)) / mp.sqrt(z) - 1) / z,
        0,
        0.1717,
        0.19,
    ),
    Fit("ERF", "erf(r) / r - 1, z = r**2", lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1, 0, 1.0, 0.5),
    Fit("ERFC", "(1 + 2 a) exp(a**2) erfc(a) - 5 / 4, q = (a - 4) / (a + 4)", tail, -0.778, 0.751, 1.0),
    Fit(
        "CBRT",
        "m**(-1/3)",
        lambda m: m ** (-mp.mpf(1) / 3),
        0.353,
        2.83,
        1.3,
        ((53, mp.mpf(2) ** -9), (24, mp.mpf(2) ** -9)),
    ),
]


def chebyshev_points(fit: Fit, count: int) -> list[Any]:
    middle, half = (mp.mpf(fit.high) + fit.low) / 2, (mp.mpf(fit.high) - fit.low) / 2
    return [middle + half * mp.cos(mp.pi * (2 * k + 1) / (2 * count)) for k in range(count)]


def interpolate(fit: Fit, degree: int) -> list[float]:
    """Coefficients, lowest first, each rounded to a double."""
    points = chebyshev_points(fit, degree + 1)
    vandermonde = mp.matrix([[x**k for k in range(degree + 1)] for x in points])
    return [float(c) for c in mp.lu_solve(vandermonde, mp.matrix([fit.function(x) for x in points]))]


def error(fit: Fit, coefficients: list[float], samples: int = 101) -> Any:
    """The largest difference to the function, over more points than were interpolated."""
    return max(abs(mp.polyval(coefficients[::-1], x) - fit.function(x)) for x in chebyshev_points(fit, samples))


def lines() -> Iterator[str]:
    yield '"""Polynomials by name and precision, lowest coefficient first. Written by tools/vmath_coefficients.py.\n'
    yield "The comments give the function, its interval, and the largest difference of the polynomial to it."
    yield '"""\n'
    yield "# fmt: off"
    yield "COEFFICIENTS: dict[str, dict[int, tuple[float, ...]]] = {"
    for fit in FITS:
        yield f'    "{fit.name}": {{  # {fit.formula} on [{fit.low}, {fit.high}]'
        for precision, tolerance in fit.tolerances:
            for degree in range(1, 40):
                coefficients = interpolate(fit, degree)
                worst = error(fit, coefficients)
                if worst * fit.weight < tolerance:
                    break
            yield f"        {precision}: (  # off by {mp.nstr(worst, 2)}"
            yield from (f"            {c!r}," for c in coefficients)
            yield "        ),"
        yield "    },"
    yield "}"


if __name__ == "__main__":
    TARGET.write_text("\n".join(lines()) + "\n", encoding="utf-8")
