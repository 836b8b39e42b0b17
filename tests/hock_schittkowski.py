"""Problems of Hock and Schittkowski as plain NumPy functions, with the optimal values that they published.

W. Hock and K. Schittkowski, Test Examples for Nonlinear Programming Codes, Lecture Notes in Economics and Mathematical
Systems 187, Springer, 1981. Each problem is a function that gives an objective, constraints c(x) >= 0 or c(x) = 0,
bounds and the published start; where a closed form of the optimal value is known, it stands instead of its digits.
Problem 112 has the better value that has been known since (K. Schittkowski, An Updated Set of 306 Test Problems, 2011).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Function = Callable[[Any], Any]


@dataclass(frozen=True)
class Example:
    """minimise objective(x) with equations(x) = 0, inequalities(x) >= 0 and lower <= x <= upper."""

    number: int
    objective: Function
    start: list[float]
    optimum: float
    equations: Function | None = None
    inequalities: Function | None = None
    lower: Any = -np.inf
    upper: Any = np.inf

    def __str__(self) -> str:
        return f"HS{self.number}"


def rosenbrock(x):
    return 100.0 * (x[1] - x[0] ** 2) ** 2 + (1.0 - x[0]) ** 2


def stacked(*functions: Function) -> Function:
    """Scalar functions as one vector."""
    return lambda x: np.stack([f(x) for f in functions])


def of_elements(f: Callable[..., Any]) -> Function:
    """A function of the elements as one of the vector; several results are stacked."""

    def function(x):
        out = f(*[x[i] for i in range(x.shape[0])])
        return np.stack(out) if isinstance(out, tuple) else out

    return function


def e(f):
    return of_elements(f)


inf = np.inf
root2, root3 = np.sqrt(2.0), np.sqrt(3.0)

TWO_VARIABLES = [
    Example(1, rosenbrock, [-2.0, 1.0], 0.0, lower=[-inf, -1.5]),
    Example(3, e(lambda x, y: y + 1e-5 * (y - x) ** 2), [10.0, 1.0], 0.0, lower=[-inf, 0.0]),
    Example(4, e(lambda x, y: (x + 1.0) ** 3 / 3.0 + y), [1.125, 0.125], 8.0 / 3.0, lower=[1.0, 0.0]),
    Example(
        5,
        e(lambda x, y: np.sin(x + y) + (x - y) ** 2 - 1.5 * x + 2.5 * y + 1.0),
        [0.0, 0.0],
        -root3 / 2.0 - np.pi / 3.0,
        lower=[-1.5, -3.0],
        upper=[4.0, 3.0],
    ),
    Example(6, lambda x: (1.0 - x[0]) ** 2, [-1.2, 1.0], 0.0, equations=e(lambda x, y: 10.0 * (y - x**2))),
    Example(
        7,
        e(lambda x, y: np.log(1.0 + x**2) - y),
        [2.0, 2.0],
        -root3,
        equations=e(lambda x, y: (1.0 + x**2) ** 2 + y**2 - 4.0),
    ),
    Example(
        8, lambda x: -1.0 + 0.0 * x[0], [2.0, 1.0], -1.0, equations=e(lambda x, y: (x**2 + y**2 - 25.0, x * y - 9.0))
    ),
    Example(
        9,
        e(lambda x, y: np.sin(np.pi * x / 12.0) * np.cos(np.pi * y / 16.0)),
        [0.0, 0.0],
        -0.5,
        equations=e(lambda x, y: 4.0 * x - 3.0 * y),
    ),
    Example(
        10,
        e(lambda x, y: x - y),
        [-10.0, 10.0],
        -1.0,
        inequalities=e(lambda x, y: -3.0 * x**2 + 2.0 * x * y - y**2 + 1.0),
    ),
    Example(
        11,
        e(lambda x, y: (x - 5.0) ** 2 + y**2 - 25.0),
        [4.9, 0.1],
        -8.498464223,
        inequalities=e(lambda x, y: y - x**2),
    ),
    Example(
        12,
        e(lambda x, y: 0.5 * x**2 + y**2 - x * y - 7.0 * x - 7.0 * y),
        [0.0, 0.0],
        -30.0,
        inequalities=e(lambda x, y: 25.0 - 4.0 * x**2 - y**2),
    ),
    Example(
        14,
        e(lambda x, y: (x - 2.0) ** 2 + (y - 1.0) ** 2),
        [2.0, 2.0],
        9.0 - 2.875 * np.sqrt(7.0),
        equations=e(lambda x, y: x - 2.0 * y + 1.0),
        inequalities=e(lambda x, y: 1.0 - 0.25 * x**2 - y**2),
    ),
    Example(
        15,
        rosenbrock,
        [-2.0, 1.0],
        306.5,
        inequalities=e(lambda x, y: (x * y - 1.0, x + y**2)),
        upper=[0.5, inf],
    ),
    Example(
        18,
        e(lambda x, y: 0.01 * x**2 + y**2),
        [2.0, 2.0],
        5.0,
        inequalities=e(lambda x, y: (x * y - 25.0, x**2 + y**2 - 25.0)),
        lower=[2.0, 0.0],
        upper=50.0,
    ),
    Example(
        21,
        e(lambda x, y: 0.01 * x**2 + y**2 - 100.0),
        [-1.0, -1.0],
        -99.96,
        inequalities=e(lambda x, y: 10.0 * x - y - 10.0),
        lower=[2.0, -50.0],
        upper=50.0,
    ),
    Example(
        22,
        e(lambda x, y: (x - 2.0) ** 2 + (y - 1.0) ** 2),
        [2.0, 2.0],
        1.0,
        inequalities=e(lambda x, y: (2.0 - x - y, y - x**2)),
    ),
    Example(
        23,
        lambda x: np.sum(x**2),
        [3.0, 1.0],
        2.0,
        inequalities=e(lambda x, y: (x + y - 1.0, x**2 + y**2 - 1.0, 9.0 * x**2 + y**2 - 9.0, x**2 - y, y**2 - x)),
        lower=-50.0,
        upper=50.0,
    ),
    Example(
        24,
        e(lambda x, y: ((x - 3.0) ** 2 - 9.0) * y**3 / (27.0 * root3)),
        [1.0, 0.5],
        -1.0,
        inequalities=e(lambda x, y: (x / root3 - y, x + root3 * y, 6.0 - x - root3 * y)),
        lower=0.0,
    ),
]

THREE_VARIABLES = [
    Example(
        27,
        e(lambda x, y, z: 0.01 * (x - 1.0) ** 2 + (y - x**2) ** 2),
        [2.0, 2.0, 2.0],
        0.04,
        equations=e(lambda x, y, z: x + z**2 + 1.0),
    ),
    Example(
        28,
        e(lambda x, y, z: (x + y) ** 2 + (y + z) ** 2),
        [-4.0, 1.0, 1.0],
        0.0,
        equations=e(lambda x, y, z: x + 2.0 * y + 3.0 * z - 1.0),
    ),
    Example(
        29,
        lambda x: -np.prod(x),
        [1.0, 1.0, 1.0],
        -16.0 * root2,
        inequalities=lambda x: 48.0 - np.array([1.0, 2.0, 4.0]) @ x**2,
    ),
    Example(
        30,
        lambda x: np.sum(x**2),
        [1.0, 1.0, 1.0],
        1.0,
        inequalities=e(lambda x, y, z: x**2 + y**2 - 1.0),
        lower=[1.0, -10.0, -10.0],
        upper=10.0,
    ),
    Example(
        31,
        lambda x: np.array([9.0, 1.0, 9.0]) @ x**2,
        [1.0, 1.0, 1.0],
        6.0,
        inequalities=e(lambda x, y, z: x * y - 1.0),
        lower=[-10.0, 1.0, -10.0],
        upper=[10.0, 10.0, 1.0],
    ),
    Example(
        32,
        e(lambda x, y, z: (x + 3.0 * y + z) ** 2 + 4.0 * (x - y) ** 2),
        [0.1, 0.7, 0.2],
        1.0,
        equations=lambda x: 1.0 - np.sum(x),
        inequalities=e(lambda x, y, z: 6.0 * y + 4.0 * z - x**3 - 3.0),
        lower=0.0,
    ),
    Example(
        34,
        lambda x: -x[0],
        [0.0, 1.05, 2.9],
        -np.log(np.log(10.0)),
        inequalities=e(lambda x, y, z: (y - np.exp(x), z - np.exp(y))),
        lower=0.0,
        upper=[100.0, 100.0, 10.0],
    ),
    Example(
        35,
        e(
            lambda x, y, z: (
                9.0 - 8.0 * x - 6.0 * y - 4.0 * z + 2.0 * x**2 + 2.0 * y**2 + z**2 + 2.0 * x * y + 2.0 * x * z
            )
        ),
        [0.5, 0.5, 0.5],
        1.0 / 9.0,
        inequalities=e(lambda x, y, z: 3.0 - x - y - 2.0 * z),
        lower=0.0,
    ),
    Example(
        36,
        lambda x: -np.prod(x),
        [10.0, 10.0, 10.0],
        -3300.0,
        inequalities=e(lambda x, y, z: 72.0 - x - 2.0 * y - 2.0 * z),
        lower=0.0,
        upper=[20.0, 11.0, 42.0],
    ),
    Example(
        37,
        lambda x: -np.prod(x),
        [10.0, 10.0, 10.0],
        -3456.0,
        inequalities=e(lambda x, y, z: (72.0 - x - 2.0 * y - 2.0 * z, x + 2.0 * y + 2.0 * z)),
        lower=0.0,
        upper=42.0,
    ),
    Example(
        60,
        e(lambda x, y, z: (x - 1.0) ** 2 + (x - y) ** 2 + (y - z) ** 4),
        [2.0, 2.0, 2.0],
        0.03256820025,
        equations=e(lambda x, y, z: x * (1.0 + y**2) + z**4 - 4.0 - 3.0 * root2),
        lower=-10.0,
        upper=10.0,
    ),
    Example(
        61,
        e(lambda x, y, z: 4.0 * x**2 + 2.0 * y**2 + 2.0 * z**2 - 33.0 * x + 16.0 * y - 24.0 * z),
        [0.0, 0.0, 0.0],
        -143.6461422,
        equations=e(lambda x, y, z: (3.0 * x - 2.0 * y**2 - 7.0, 4.0 * x - z**2 - 11.0)),
    ),
    Example(
        63,
        e(lambda x, y, z: 1000.0 - x**2 - 2.0 * y**2 - z**2 - x * y - x * z),
        [2.0, 2.0, 2.0],
        961.7151721,
        equations=lambda x: np.stack([np.array([8.0, 14.0, 7.0]) @ x - 56.0, x @ x - 25.0]),
        lower=0.0,
    ),
    Example(
        64,
        lambda x: np.array([5.0, 20.0, 10.0]) @ x + np.sum(np.array([50000.0, 72000.0, 144000.0]) / x),
        [1.0, 1.0, 1.0],
        6299.842428,
        inequalities=lambda x: 1.0 - np.sum(np.array([4.0, 32.0, 120.0]) / x),
        lower=1e-5,
    ),
    Example(
        65,
        e(lambda x, y, z: (x - y) ** 2 + (x + y - 10.0) ** 2 / 9.0 + (z - 5.0) ** 2),
        [-5.0, 5.0, 0.0],
        0.9535288567,
        inequalities=lambda x: 48.0 - x @ x,
        lower=[-4.5, -4.5, -5.0],
        upper=[4.5, 4.5, 5.0],
    ),
    Example(
        66,
        e(lambda x, y, z: 0.2 * z - 0.8 * x),
        [0.0, 1.05, 2.9],
        0.5181632741,
        inequalities=e(lambda x, y, z: (y - np.exp(x), z - np.exp(y))),
        lower=0.0,
        upper=[100.0, 100.0, 10.0],
    ),
]


def wood(x):
    return (
        rosenbrock(x[:2])
        + 90.0 * (x[3] - x[2] ** 2) ** 2
        + (1.0 - x[2]) ** 2
        + 10.1 * ((x[1] - 1.0) ** 2 + (x[3] - 1.0) ** 2)
        + 19.8 * (x[1] - 1.0) * (x[3] - 1.0)
    )


FOUR_VARIABLES = [
    Example(38, wood, [-3.0, -1.0, -3.0, -1.0], 0.0, lower=-10.0, upper=10.0),
    Example(
        39,
        lambda x: -x[0],
        [2.0, 2.0, 2.0, 2.0],
        -1.0,
        equations=e(lambda x, y, z, w: (y - x**3 - z**2, x**2 - y - w**2)),
    ),
    Example(
        40,
        lambda x: -np.prod(x),
        [0.8, 0.8, 0.8, 0.8],
        -0.25,
        equations=e(lambda x, y, z, w: (x**3 + y**2 - 1.0, x**2 * w - z, w**2 - y)),
    ),
    Example(
        41,
        e(lambda x, y, z, w: 2.0 - x * y * z),
        [1.0, 1.0, 1.0, 2.0],
        52.0 / 27.0,
        equations=e(lambda x, y, z, w: x + 2.0 * y + 2.0 * z - w),
        lower=0.0,
        upper=[1.0, 1.0, 1.0, 2.0],
    ),
    Example(
        42,
        lambda x: np.sum((x - np.arange(1.0, 5.0)) ** 2),
        [1.0, 1.0, 1.0, 1.0],
        28.0 - 10.0 * root2,
        equations=e(lambda x, y, z, w: (x - 2.0, z**2 + w**2 - 2.0)),
    ),
    Example(
        43,
        lambda x: np.array([1.0, 1.0, 2.0, 1.0]) @ x**2 + np.array([-5.0, -5.0, -21.0, 7.0]) @ x,
        [0.0, 0.0, 0.0, 0.0],
        -44.0,
        inequalities=lambda x: (
            np.array([8.0, 10.0, 5.0])
            - np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 1.0, 2.0], [2.0, 1.0, 1.0, 0.0]]) @ x**2
            + np.array([[-1.0, 1.0, -1.0, 1.0], [1.0, 0.0, 0.0, 1.0], [-2.0, 1.0, 0.0, 1.0]]) @ x
        ),
    ),
    Example(
        71,
        lambda x: x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2],
        [1.0, 5.0, 5.0, 1.0],
        17.0140173,
        equations=lambda x: x @ x - 40.0,
        inequalities=lambda x: np.prod(x) - 25.0,
        lower=1.0,
        upper=5.0,
    ),
    Example(
        72,
        lambda x: 1.0 + np.sum(x),
        [1.0, 1.0, 1.0, 1.0],
        727.67937,
        inequalities=lambda x: (
            np.array([0.0401, 0.010085]) - np.array([[4.0, 2.25, 1.0, 0.25], [0.16, 0.36, 0.64, 0.64]]) @ (1.0 / x)
        ),
        lower=1e-3,
        upper=[4e5, 3e5, 2e5, 1e5],
    ),
    Example(
        73,
        lambda x: np.array([24.55, 26.75, 39.0, 40.5]) @ x,
        [1.0, 1.0, 1.0, 1.0],
        29.894378,
        equations=lambda x: np.sum(x) - 1.0,
        inequalities=lambda x: np.stack(
            [
                np.array([2.3, 5.6, 11.1, 1.3]) @ x - 5.0,
                np.array([12.0, 11.9, 41.8, 52.1]) @ x
                - 21.0
                - 1.645 * np.sqrt(np.array([0.28, 0.19, 20.5, 0.62]) @ x**2),
            ]
        ),
        lower=0.0,
    ),
    Example(
        76,
        lambda x: (
            np.array([1.0, 0.5, 1.0, 0.5]) @ x**2 - x[0] * x[2] + x[2] * x[3] + np.array([-1.0, -3.0, 1.0, -1.0]) @ x
        ),
        [0.5, 0.5, 0.5, 0.5],
        -4.681818181,
        inequalities=lambda x: (
            np.array([5.0, 4.0, -1.5])
            - np.array([[1.0, 2.0, 1.0, 1.0], [3.0, 1.0, 2.0, -1.0], [0.0, -1.0, -4.0, 0.0]]) @ x
        ),
        lower=0.0,
    ),
]


def sphere_and_cubes(x):
    return np.stack([x @ x - 10.0, x[1] * x[2] - 5.0 * x[3] * x[4], x[0] ** 3 + x[1] ** 3 + 1.0])


LAST_THREE = np.array([[1.0, 3.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0, -2.0], [0.0, 1.0, 0.0, 0.0, -1.0]])


def conversion(x):
    """Problem 100."""
    weights, middles = np.array([1.0, 5.0, 3.0]), np.array([10.0, 12.0, 11.0])
    squares = weights @ (np.stack([x[0], x[1], x[3]]) - middles) ** 2
    powers = x[2] ** 4 + 10.0 * x[4] ** 6 + 7.0 * x[5] ** 2 + x[6] ** 4
    return squares + powers - 4.0 * x[5] * x[6] - 10.0 * x[5] - 8.0 * x[6]


def equilibrium(x):
    """Problem 112: Gibbs energy of a mixture of ten species."""
    energies = np.array([-6.089, -17.164, -34.054, -5.914, -24.721, -14.986, -24.1, -10.708, -26.662, -22.179])
    return np.sum(x * (energies + np.log(x / np.sum(x))))


ATOMS = np.array(
    [[1, 2, 2, 0, 0, 1, 0, 0, 0, 1], [0, 0, 0, 1, 2, 1, 1, 0, 0, 0], [0, 0, 1, 0, 0, 0, 1, 1, 2, 1]], float
)


def wong(a, b, c, d, f, g, h, i, j, k):
    """Problem 113."""
    return (
        a**2 + b**2 + a * b - 14.0 * a - 16.0 * b + (c - 10.0) ** 2 + 4.0 * (d - 5.0) ** 2 + (f - 3.0) ** 2
        + 2.0 * (g - 1.0) ** 2 + 5.0 * h**2 + 7.0 * (i - 11.0) ** 2 + 2.0 * (j - 10.0) ** 2 + (k - 7.0) ** 2 + 45.0
    )  # fmt: skip


def wong_constraints(a, b, c, d, f, g, h, i, j, k):
    return (
        105.0 - 4.0 * a - 5.0 * b + 3.0 * h - 9.0 * i,
        -10.0 * a + 8.0 * b + 17.0 * h - 2.0 * i,
        8.0 * a - 2.0 * b - 5.0 * j + 2.0 * k + 12.0,
        -3.0 * (a - 2.0) ** 2 - 4.0 * (b - 3.0) ** 2 - 2.0 * c**2 + 7.0 * d + 120.0,
        -5.0 * a**2 - 8.0 * b - (c - 6.0) ** 2 + 2.0 * d + 40.0,
        -0.5 * (a - 8.0) ** 2 - 2.0 * (b - 4.0) ** 2 - 3.0 * f**2 + g + 30.0,
        -(a**2) - 2.0 * (b - 2.0) ** 2 + 2.0 * a * b - 14.0 * f + 6.0 * g,
        3.0 * a - 6.0 * b - 12.0 * (j - 8.0) ** 2 + 7.0 * k,
    )


MORE_VARIABLES = [
    Example(
        45,
        lambda x: 2.0 - np.prod(x) / 120.0,
        [0.5, 1.0, 1.5, 2.0, 2.5],
        1.0,
        lower=0.0,
        upper=[1.0, 2.0, 3.0, 4.0, 5.0],
    ),
    Example(
        48,
        e(lambda a, b, c, d, f: (a - 1.0) ** 2 + (b - c) ** 2 + (d - f) ** 2),
        [3.0, 5.0, -3.0, 2.0, -2.0],
        0.0,
        equations=lambda x: np.stack([np.sum(x) - 5.0, x[2] - 2.0 * (x[3] + x[4]) + 3.0]),
    ),
    Example(
        51,
        e(lambda a, b, c, d, f: (a - b) ** 2 + (b + c - 2.0) ** 2 + (d - 1.0) ** 2 + (f - 1.0) ** 2),
        [2.5, 0.5, 2.0, -1.0, 0.5],
        0.0,
        equations=lambda x: LAST_THREE @ x - np.array([4.0, 0.0, 0.0]),
    ),
    Example(
        52,
        e(lambda a, b, c, d, f: (4.0 * a - b) ** 2 + (b + c - 2.0) ** 2 + (d - 1.0) ** 2 + (f - 1.0) ** 2),
        [2.0, 2.0, 2.0, 2.0, 2.0],
        1859.0 / 349.0,
        equations=lambda x: LAST_THREE @ x,
    ),
    Example(
        53,
        e(lambda a, b, c, d, f: (a - b) ** 2 + (b + c - 2.0) ** 2 + (d - 1.0) ** 2 + (f - 1.0) ** 2),
        [2.0, 2.0, 2.0, 2.0, 2.0],
        176.0 / 43.0,
        equations=lambda x: LAST_THREE @ x,
        lower=-10.0,
        upper=10.0,
    ),
    Example(
        77,
        e(lambda a, b, c, d, f: (a - 1.0) ** 2 + (a - b) ** 2 + (c - 1.0) ** 2 + (d - 1.0) ** 4 + (f - 1.0) ** 6),
        [2.0, 2.0, 2.0, 2.0, 2.0],
        0.24150513,
        equations=e(lambda a, b, c, d, f: (a**2 * d + np.sin(d - f) - 2.0 * root2, b + c**4 * d**2 - 8.0 - root2)),
    ),
    Example(78, np.prod, [-2.0, 1.5, 2.0, -1.0, -1.0], -2.91970041, equations=sphere_and_cubes),
    Example(
        79,
        e(lambda a, b, c, d, f: (a - 1.0) ** 2 + (a - b) ** 2 + (b - c) ** 2 + (c - d) ** 4 + (d - f) ** 4),
        [2.0, 2.0, 2.0, 2.0, 2.0],
        0.0787768209,
        equations=e(
            lambda a, b, c, d, f: (
                a + b**2 + c**3 - 2.0 - 3.0 * root2,
                b - c**2 + d + 2.0 - 2.0 * root2,
                a * f - 2.0,
            )
        ),
    ),
    Example(
        80,
        lambda x: np.exp(np.prod(x)),
        [-2.0, 2.0, 2.0, -1.0, -1.0],
        0.0539498478,
        equations=sphere_and_cubes,
        lower=[-2.3, -2.3, -3.2, -3.2, -3.2],
        upper=[2.3, 2.3, 3.2, 3.2, 3.2],
    ),
    Example(
        100,
        conversion,
        [1.0, 2.0, 0.0, 4.0, 0.0, 1.0, 1.0],
        680.6300573,
        inequalities=e(
            lambda a, b, c, d, f, g, h: (
                127.0 - 2.0 * a**2 - 3.0 * b**4 - c - 4.0 * d**2 - 5.0 * f,
                282.0 - 7.0 * a - 3.0 * b - 10.0 * c**2 - d + f,
                196.0 - 23.0 * a - b**2 - 6.0 * g**2 + 8.0 * h,
                -4.0 * a**2 - b**2 + 3.0 * a * b - 2.0 * c**2 - 5.0 * g + 11.0 * h,
            )
        ),
    ),
    Example(
        110,
        lambda x: np.sum(np.log(x - 2.0) ** 2 + np.log(10.0 - x) ** 2) - np.prod(x) ** 0.2,
        [9.0] * 10,
        -45.77846971,
        lower=2.001,
        upper=9.999,
    ),
    Example(
        112,
        equilibrium,
        [0.1] * 10,
        -47.76109026,
        equations=lambda x: ATOMS @ x - np.array([2.0, 1.0, 1.0]),
        lower=1e-6,
    ),
    Example(
        113,
        e(wong),
        [2.0, 3.0, 5.0, 5.0, 1.0, 2.0, 7.0, 3.0, 6.0, 10.0],
        24.3062091,
        inequalities=e(wong_constraints),
    ),
]

EXAMPLES = sorted(TWO_VARIABLES + THREE_VARIABLES + FOUR_VARIABLES + MORE_VARIABLES, key=lambda x: x.number)
