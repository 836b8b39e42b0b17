"""Sparse Hessians: element by element where the program separates, else from a star or an acyclic colouring."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.core.trace import EVAL, Tracer, current_trace
from functrace.errors import ArgumentError, NonScalarOutputError
from functrace.interpreters.sparsity import hessian_structure
from functrace.sparse._programs import FlatProgram, joined
from functrace.sparse._tiers import Tiered
from functrace.sparse.coloring import Coloring, acyclic_coloring, star_coloring
from functrace.sparse.compress import Plan, acyclic_plan, evaluate_hessian, star_plan
from functrace.sparse.elements import element_hessian
from functrace.sparse.jacobian import SparseDerivative, check_vector, element_seconds, element_values, known_pattern
from functrace.sparse.prepared import Choice, SparseFunction
from functrace.sparse.structure import Structure, check_format
from functrace.transforms import grad, jvp
from functrace.transforms._flatten import check_callable
from functrace.util import user_line

__all__ = ["hessian", "prepare_hessian"]

METHODS = ("auto", "elements", "coloring")
COLORINGS = ("auto", "star", "acyclic")
#: An acyclic colouring is chosen if it takes at most this share of the products, and its trees at most so many levels;
#: it is looked for only from so many products on, up to so many nonzeros, and not on bands, where trees are long paths.
_SHARE, _HEIGHT, _FROM_PRODUCTS, _UP_TO_NONZEROS = 0.75, 32, 4, 50_000
#: Cost of a product with the Hessian, in evaluations of the function (forward over reverse).
_PRODUCT_WEIGHT = 3.0


def hessian(
    fun: Callable[..., Any], method: str = "auto", format: str = "csr", pattern: Any = None, coloring: str = "auto"
) -> SparseDerivative:
    """The Hessian of a scalar function as a SciPy sparse array of fixed structure.

    The structure is proved from the traced program and holds for all arguments of the same types; linear dependence
    leaves no entry. The values come element by element where the function is a sum of functions of a few inputs each
    (Griewank and Toint, 1982), else from products with the directions of a star colouring, all in one batched sweep
    (Coleman and Moré, 1984; Gebremedhin, Tarafdar, Manne and Pothen, 2007).

    Args:
        fun: real scalar function of arrays or pytrees of arrays, differentiated twice by its first argument; it is
            traced once, as by `jit`. Pytrees count as the vector of all their numbers.
        method: "elements", "coloring", or "auto": whichever is predicted to cost less.
        format: "csr", "csc" or "coo"; both triangles are stored.
        pattern: where the nonzeros are, if that is known, either triangle or both (see `jacobian`); implies colouring.
        coloring: "star", from which every nonzero is read directly; "acyclic", which takes fewer products (half as many
            on a band), and the nonzeros are solved for by substitution (Coleman and Cai, 1986): each is then as
            accurate as the largest of its tree, and an infinite one spreads there. By default "acyclic" where it saves
            a quarter of the products in trees that are not high; values that are not finite, and those in a program
            that is traced, are read directly even so.

    Returns:
        A function of the same arguments. Its `prepare(x)` gives `rows`, `cols` of the lower triangle, by columns, and a
        traceable `values(x)` for solvers.

    Raises:
        ArgumentError: an unknown method, format or colouring; or "elements" for a function that does not separate
            (when called).
        NonScalarOutputError: the output is not one real number (when called).
        NonDifferentiableInputError: an input is not real floating point (when called).

    Example:
        >>> import numpy as np
        >>> from functrace.sparse.hessian import hessian
        >>> H = hessian(lambda x: np.sum(x[1:] * x[:-1] ** 2))
        >>> H(np.array([1.0, 2.0, 3.0])).toarray()
        array([[4., 2., 0.],
               [2., 6., 4.],
               [0., 4., 0.]])
    """
    check_callable(fun, "sparse.hessian")
    check_format(format)
    if method not in METHODS:
        raise ArgumentError(
            "sparse.hessian knows no such method",
            where=user_line(),
            got=repr(method),
            remedy=f"choose one of {', '.join(map(repr, METHODS))}",
        )
    if coloring not in COLORINGS:
        raise ArgumentError(
            "sparse.hessian knows no such colouring",
            where=user_line(),
            got=repr(coloring),
            remedy=f"choose one of {', '.join(map(repr, COLORINGS))}",
        )
    if method == "elements" and pattern is not None:
        raise ArgumentError(
            "element-wise evaluation finds the pattern itself",
            where=user_line(),
            got="method='elements' together with a pattern",
            remedy="leave out the pattern, or choose method='coloring'",
        )

    def prepare(program: FlatProgram, args: tuple[Any, ...]) -> SparseFunction:
        _check_scalar(program)
        return prepare_hessian(program, method, format, pattern, coloring)

    return SparseDerivative(fun, prepare, "sparse.hessian")


def _check_scalar(program: FlatProgram) -> None:
    if len(program.out_avals) != 1 or program.out_avals[0].shape != ():
        raise NonScalarOutputError(
            "sparse.hessian needs a function with one real scalar output",
            where=user_line(),
            got=", ".join(map(str, program.out_avals)) or "no output",
            remedy="sum the output, or weigh its elements by multipliers: numpy.sum(lam * c(x))",
        )


def prepare_hessian(
    program: FlatProgram, method: str = "auto", form: str = "csr", pattern: Any = None, coloring: str = "auto"
) -> SparseFunction:
    """The Hessian of a recorded program with a scalar output; the arguments are those of `hessian`."""
    compiled_product = Tiered(lambda vector, *leaves: _product(program, vector, leaves))

    def product(vector: Any, *args: Any) -> Any:
        return compiled_product(check_vector(vector, program.n), *program.leaves(args))

    shape = (program.n, program.n)
    elements = colored_choice = None
    if method != "coloring" and pattern is None and program.n:
        elements = element_hessian(program.closed, tuple(range(program.count)))
    if elements is None and method == "elements":
        raise ArgumentError(
            "the function is no sum of functions of a few inputs each",
            where=user_line(),
            got="method='elements'",
            remedy="choose method='auto' or 'coloring'",
        )
    if elements is not None:
        structure = Structure((elements.rows, elements.cols, shape), symmetric=True)
        choice = _prefers_elements(program, elements, structure, method == "elements")
        if choice is not None:
            return SparseFunction(structure, element_values(program, elements), choice, product, form, program=program)
    if pattern is not None:
        structure = Structure(known_pattern(pattern, shape), symmetric=True)
    else:
        structure = Structure((*hessian_structure(program.closed, program.wrt()), shape), symmetric=True)
    found, plan, direct = _colored(structure, coloring)
    tried = method == "auto" and pattern is None and elements is None
    colored_choice = Choice(
        f"{found.kind} colouring",
        plan.sweeps,
        _colored_seconds(program, plan.sweeps) / max(program.seconds(0), 1e-12),
        f"{plan.sweeps} product{'s' * (plan.sweeps != 1)} with the Hessian"
        + (f"; a star colouring takes {direct.sweeps}" if direct is not None else "")
        + ("; no sum of elements" if tried else ""),
        {} if elements is None else {"elements": element_seconds(elements) / max(program.seconds(0), 1e-12)},
    )
    run = Tiered(lambda *leaves: evaluate_hessian(program, plan, list(leaves)))
    read = run if direct is None else Tiered(lambda *leaves: evaluate_hessian(program, direct, list(leaves)))

    def values(*args: Any) -> Any:
        leaves = program.leaves(args)
        if direct is None:
            return run(*leaves)
        if current_trace() is EVAL and not any(isinstance(leaf, Tracer) for leaf in leaves):
            solved = run(*leaves)
            if np.isfinite(solved).all():
                return solved
        return read(*leaves)

    return SparseFunction(structure, values, colored_choice, product, form, found, program)


def _colored(structure: Structure, kind: str) -> tuple[Coloring, Plan, Plan | None]:
    """A colouring and its plan; and where an acyclic one was chosen, the plan of a star colouring."""
    if kind == "acyclic":
        found = acyclic_coloring(structure)
        return found, acyclic_plan(structure, found), None
    star = star_coloring(structure)
    plan = star_plan(structure, star)
    if kind == "star" or plan.sweeps < _FROM_PRODUCTS or structure.nnz > _UP_TO_NONZEROS:
        return star, plan, None
    if star.method.startswith("by position"):
        return star, plan, None
    acyclic = acyclic_coloring(structure)
    if acyclic.number > _SHARE * plan.sweeps:
        return star, plan, None
    solved = acyclic_plan(structure, acyclic)
    if solved.forest is None or solved.forest.height > _HEIGHT or solved.sweeps > _SHARE * plan.sweeps:
        return star, plan, None
    return acyclic, solved, plan


def _colored_seconds(program: FlatProgram, sweeps: float) -> float:
    return program.seconds(sweeps + 1, _PRODUCT_WEIGHT)


def _prefers_elements(
    program: FlatProgram, elements: Any, structure: Structure, asked: bool
) -> Choice | Callable[[], Choice] | None:
    """The choice of element-wise evaluation, unless a colouring is predicted to beat it.

    A colouring takes about as many products as an average row has entries off the diagonal, or more; only if that many
    would be faster is one looked for at all.
    """
    own = element_seconds(elements)
    families = f"{len(elements.families)} famil{'y' if len(elements.families) == 1 else 'ies'} of element functions"
    fewest = max(float(np.ceil(2 * structure.nnz / max(program.n, 1)) - 1), 1.0)

    def clear() -> Choice:
        unit = max(program.seconds(0), 1e-12)
        if asked:
            return Choice("elements", 1, own / unit, f"asked for; {families}")
        reason = f"{families}; a colouring takes about {fewest:g} products or more"
        alternatives = {"star colouring, at least": _colored_seconds(program, fewest) / unit}
        return Choice("elements", 1, own / unit, reason, alternatives)

    if asked or own <= 2 * program.least_seconds(_PRODUCT_WEIGHT) or own <= 2 * _colored_seconds(program, fewest):
        return clear
    unit = max(program.seconds(0), 1e-12)
    sweeps = star_plan(structure, star_coloring(structure)).sweeps
    colored = _colored_seconds(program, sweeps)
    if own <= colored:
        reason = f"{families}; a star colouring takes {sweeps} products"
        return Choice("elements", 1, own / unit, reason, {"star colouring": colored / unit})
    return None


def _product(program: FlatProgram, vector: Any, leaves: tuple[Any, ...]) -> Any:
    x, rest = leaves[: program.count], leaves[program.count :]
    avals = program.in_avals[: program.count]
    tangents = [t.astype(a.dtype) for t, a in zip(program.split(vector), avals, strict=True)]
    if not x:
        return np.zeros(0)
    gradient = grad(lambda *values: program(*values, *rest)[0], argnums=tuple(range(program.count)))
    return joined(jvp(lambda *values: list(gradient(*values)), tuple(x), tuple(tangents))[1])
