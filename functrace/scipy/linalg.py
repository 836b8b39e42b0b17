"""Functions of `scipy.linalg`, with its names and signatures. SciPy's own do not dispatch: call these from here.

The options about memory and checks (`overwrite_a`, `check_finite` ...) are accepted and do nothing in a trace. What
reads one triangle of its operand has its gradient there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from functrace.core.trace import EVAL, current_trace
from functrace.errors import ArgumentError, UnsupportedFunctionError
from functrace.numpy import linalg
from functrace.numpy._refusals import UNCLEAR, explain_refusal
from functrace.primitives import decompositions as d
from functrace.primitives import linalg as p
from functrace.primitives.linalg import scipy_linalg
from functrace.util import user_line

__all__ = ["cho_factor", "cho_solve", "cholesky", "det", "expm", "inv", "solve", "solve_triangular"]


def _function(traced: Callable[..., Any]) -> Callable[..., Any]:
    """The public form: SciPy's function outside any trace."""

    @functools.wraps(traced)
    def public(*args: Any, **kwargs: Any) -> Any:
        if current_trace() is EVAL:
            return getattr(scipy_linalg(), traced.__name__)(*args, **kwargs)
        try:
            return traced(*args, **kwargs)
        except UNCLEAR as error:
            explain_refusal(error, getattr(scipy_linalg(), traced.__name__), args, kwargs)
            raise

    return public


@_function
def inv(
    a: Any, overwrite_a: bool = False, check_finite: bool = True, *, assume_a: str | None = None, lower: bool = False
) -> Any:
    """The inverse."""
    return p.inv(_assumed(linalg.matrices(a, "inv", square=True), assume_a, lower, "inv"))


@_function
def det(a: Any, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """The determinant; differentiated through the adjugate, at singular matrices too."""
    return p.det(linalg.matrices(a, "det", square=True))


@_function
def expm(A: Any) -> Any:
    """The matrix exponential."""
    return p.expm(linalg.matrices(A, "expm", square=True))


def _assumed(a: Any, assume_a: str | None, lower: bool, function: str) -> Any:
    """The matrix that is meant: only one triangle of a Hermitian one is read."""
    if assume_a in (None, "gen", "general"):
        return a
    if assume_a in ("her", "hermitian", "pos", "positive definite") or (assume_a == "sym" and a.dtype.kind == "f"):
        return d.hermitian(a, lower)
    raise UnsupportedFunctionError(
        f"scipy.linalg.{function} inside a traced function does not take this assume_a",
        where=user_line(),
        got=f"assume_a={assume_a!r}",
        remedy="leave assume_a out, or use 'gen', 'her' or 'pos'; solve_triangular takes triangular matrices",
    )


@_function
def solve(
    a: Any,
    b: Any,
    lower: bool = False,
    overwrite_a: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
    assume_a: str | None = None,
    transposed: bool = False,
) -> Any:
    """x with a @ x = b."""
    x, y, vector = linalg.system("solve", a, b)
    x = _assumed(x, assume_a, lower, "solve")
    return linalg.solve_system(p.solve, p.swap(x) if transposed else x, y, vector)


@_function
def solve_triangular(
    a: Any,
    b: Any,
    trans: int | str = 0,
    lower: bool = False,
    unit_diagonal: bool = False,
    overwrite_b: bool = False,
    check_finite: bool = True,
) -> Any:
    """x with a @ x = b for a triangular matrix, of which one triangle is read."""
    x, y, vector = linalg.system("solve_triangular", a, b)
    kind = {0: "N", 1: "T", 2: "C"}.get(trans, trans) if isinstance(trans, int) else trans
    if kind not in ("N", "T", "C"):
        raise ArgumentError(
            "solve_triangular knows no such trans",
            where=user_line(),
            got=repr(trans),
            remedy="choose 0 (a), 1 (its transpose) or 2 (its conjugate transpose)",
        )
    if kind != "N":
        x, lower = p.swap(x) if kind == "T" else p.adjoint(x), not lower
    return linalg.solve_system(p.triangular_solve, x, y, vector, lower=bool(lower), unit=bool(unit_diagonal))


@_function
def cholesky(a: Any, lower: bool = False, overwrite_a: bool = False, check_finite: bool = True) -> Any:
    """The upper (or lower) Cholesky factor; reads that triangle of `a`."""
    return linalg.cholesky(a, upper=not lower)


@_function
def cho_factor(a: Any, lower: bool = False, overwrite_a: bool = False, check_finite: bool = True) -> tuple[Any, bool]:
    """The Cholesky factor for `cho_solve`; zero in the other triangle."""
    return linalg.cholesky(a, upper=not lower), bool(lower)


@_function
def cho_solve(c_and_lower: Any, b: Any, overwrite_b: bool = False, check_finite: bool = True) -> Any:
    """x with a @ x = b, from the Cholesky factor of a."""
    factor, lower = c_and_lower
    x, y, vector = linalg.system("cho_solve", factor, b)
    low = x if lower else p.adjoint(x)
    half = linalg.solve_system(p.triangular_solve, low, y, False, lower=True, unit=False)
    return linalg.solve_system(p.triangular_solve, p.adjoint(low), half, vector, lower=False, unit=False)
