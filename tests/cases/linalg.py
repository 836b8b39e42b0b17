"""Cases of the matrix primitives: stacks, empty and single matrices, tall and wide ones, complex ones."""

import numpy as np

from functrace.primitives import decompositions as d
from functrace.primitives import linalg as p
from functrace.testing import Case

rng = np.random.default_rng(12)

SQUARE = [(3, 3), (2, 3, 3), (1, 1), (0, 0), (0, 2, 2)]
TALL = [(3, 3), (4, 2), (2, 4, 2), (3, 1), (3, 0)]
WIDE = [(2, 4), (1, 3), (0, 3)]


def matrix(*shape, imaginary=False):
    """A random matrix with singular values well apart and away from 0."""
    a = rng.normal(size=shape) + (1j * rng.normal(size=shape) if imaginary else 0)
    if not a.size:
        return a
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    return (u * (1.0 + np.arange(s.shape[-1])[::-1])) @ vh


def definite(*shape, imaginary=False):
    a = matrix(*shape, imaginary=imaginary)
    return a @ np.conj(np.swapaxes(a, -1, -2)) + np.eye(shape[-1])


def triangle(*shape, imaginary=False):
    return matrix(*shape, imaginary=imaginary) * 0.3 + 2 * np.eye(shape[-1])


def singular(n, rank):
    a = matrix(n, n)
    u, s, vh = np.linalg.svd(a)
    return (u * (s * (np.arange(n) < rank))) @ vh


TRIANGULAR = [{"lower": lower, "unit": unit} for lower in (True, False) for unit in (True, False)]

CASES = [
    *(Case(f, (matrix(*s),), complex_step=f is not p.slogdet) for f in (p.inv, p.det, p.slogdet) for s in SQUARE),
    *(Case(f, (matrix(3, 3, imaginary=True),)) for f in (p.inv, p.det, p.slogdet, p.adjugate)),
    *(Case(p.adjugate, (matrix(*s),)) for s in SQUARE),
    *(Case(p.adjugate_derivative, (matrix(*s), matrix(*s))) for s in [(4, 4), (2, 4, 4)]),
    *(Case(p.det, (singular(4, rank),), name=f"rank {rank} of 4") for rank in (3, 2, 1, 0)),
    *(Case(p.adjugate, (singular(4, rank),), name=f"rank {rank} of 4", order=1) for rank in (3, 2, 1)),
    *(Case(p.adjugate_derivative, (singular(4, r), matrix(4, 4)), wrt=(1,), name=f"rank {r} of 4") for r in (3, 2)),
    *(Case(d.pinv, (matrix(*s),), {"rtol": None}) for s in [*TALL[:-1], (2, 4), (1, 3)]),
    Case(d.pinv, (matrix(3, 2, imaginary=True),), {"rtol": None}),
    Case(d.pinv, (matrix(3, 3),), {"rtol": 1e-3}),
    *(Case(p.solve, (matrix(*s), matrix(*s[:-1], 2)), complex_step=True) for s in [(3, 3), (2, 3, 3), (1, 1)]),
    Case(p.solve, (matrix(3, 3, imaginary=True), matrix(3, 2, imaginary=True))),
    *(Case(p.triangular_solve, (triangle(3, 3), matrix(3, 2)), k, complex_step=True) for k in TRIANGULAR),
    *(Case(p.triangular_solve, (triangle(2, 3, 3), matrix(2, 3, 2)), k, complex_step=True) for k in TRIANGULAR),
    Case(p.triangular_solve, (triangle(3, 3, imaginary=True), matrix(3, 2, imaginary=True)), TRIANGULAR[0]),
    Case(p.triangular_solve, (triangle(3, 3).T, matrix(3, 2)), TRIANGULAR[2], name="Fortran order"),
    *(Case(p.expm, (matrix(*s),), complex_step=True) for s in SQUARE),
    Case(p.expm, (matrix(3, 3, imaginary=True),)),
    Case(p.expm_derivative, (matrix(2, 2), matrix(2, 2)), complex_step=True),
    Case(p.expm_derivative, (matrix(2, 2, 2), matrix(2, 2, 2)), complex_step=True, order=1),
    *(Case(d.cholesky, (definite(*s),)) for s in SQUARE),
    Case(d.cholesky, (np.tril(definite(3, 3)),), name="upper triangle not read"),
    Case(d.cholesky, (definite(3, 3, imaginary=True),)),
    *(Case(d.qr, (matrix(*s),)) for s in TALL),
    Case(d.qr, (matrix(3, 2, imaginary=True),)),
    *(Case(d.eigh, (definite(*s),), {"lower": lower}) for s in SQUARE for lower in (True, False)),
    *(Case(d.eig, (matrix(*s) + 3 * np.tri(s[-1]),)) for s in SQUARE),
    Case(d.eig, (matrix(3, 3, imaginary=True),)),
    Case(d.eig, (np.diag([1.0, 2.0, 4.0]) + 0.1 * matrix(3, 3),), name="real eigenvalues"),
    *(Case(d.svd, (matrix(*s),), {"full": False}) for s in [*TALL, *WIDE]),
    Case(d.svd, (matrix(3, 3),), {"full": True}),
    Case(d.svd, (matrix(2, 4),), {"full": True}, wrt=(), order=0, name="full, wide"),
    Case(d.ties, (np.array([1.0, 2.0, 2.0, -1.0]),)),
    Case(d.negligible, (np.array([1.0, 0.0, 1e-20, -1.0]),)),
    Case(d.anchors, (np.linalg.eig(matrix(3, 3))[1].astype(complex),)),
]
