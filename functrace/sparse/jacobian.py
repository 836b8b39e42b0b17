"""Sparse Jacobians: pattern and colouring found once, then values of fixed structure."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.core.trace import Tracer
from functrace.errors import ArgumentError, ShapeError
from functrace.interpreters.cost import Machine
from functrace.interpreters.sparsity import jacobian_structure
from functrace.sparse._programs import FlatProgram, evaluating, flat_program, joined, signature
from functrace.sparse._tiers import Tiered
from functrace.sparse.coloring import bicoloring, column_coloring, row_coloring
from functrace.sparse.compress import Plan, bicolored_plan, column_plan, evaluate_jacobian, row_plan
from functrace.sparse.elements import element_jacobian
from functrace.sparse.prepared import Choice, SparseFunction
from functrace.sparse.structure import Structure, check_format, entries_of
from functrace.transforms import jvp
from functrace.transforms._flatten import check_callable
from functrace.util import user_line

__all__ = ["SparseDerivative", "jacobian", "prepare_jacobian"]

MODES = ("auto", "fwd", "rev", "both")
#: Cost of a product with the transpose, in products with the matrix: its gathers become scatters.
REVERSE_WEIGHT = 1.5


class SparseDerivative:
    """A function that gives a derivative as a SciPy sparse array; what `jacobian` and `hessian` return.

    It is made ready anew for each combination of shapes and dtypes of its arguments, and keeps what it found.
    """

    def __init__(
        self, fun: Callable[..., Any], prepare: Callable[[FlatProgram, tuple[Any, ...]], SparseFunction], name: str
    ) -> None:
        functools.update_wrapper(self, fun)
        self._fun, self._prepare, self._name = fun, prepare, name
        self._prepared: dict[Any, SparseFunction] = {}

    def prepare(self, *args: Any, check: bool = False) -> SparseFunction:
        """Pattern, colouring and program for arguments of these types.

        Args:
            args: as the function takes them, the differentiated one first: values, or their `ShapeDtypeStruct`s.
            check: whether to compare with random products at the arguments, which must then be values.

        Returns:
            An object with `rows`, `cols`, `values(*args)`, `to_csc(*args)`, `matvec(vector, *args)` and `choice`.

        Raises:
            WrongStructureError: the check failed.
        """
        if not args:
            raise ArgumentError(
                f"{self._name} differentiates the first argument, and there is none",
                where=user_line(),
                got="a call without arguments",
                remedy=f"write {self._name}(f)(x)",
            )
        key = signature(args)
        found = self._prepared.get(key)
        if found is None:
            program = flat_program(self._fun, args, self._name)
            with evaluating():
                found = self._prepare(program, args)
            if not program.captured:  # what another transformation is tracing now is gone later
                found = self._prepared.setdefault(key, found)
        if check:
            found.check(*args)
        return found

    def __call__(self, *args: Any) -> Any:
        """The derivative at the arguments, as a SciPy sparse array."""
        return self.prepare(*args)(*args)

    def clear_cache(self) -> None:
        """Forget what was prepared."""
        self._prepared.clear()


def jacobian(fun: Callable[..., Any], mode: str = "auto", format: str = "csr", pattern: Any = None) -> SparseDerivative:
    """The Jacobian as a SciPy sparse array of fixed structure.

    The structure is proved from the traced program and holds for all arguments of the same types. Columns that share
    no row are multiplied together, all in one batched sweep: Curtis, Powell and Reid (1974); Gebremedhin, Manne and
    Pothen, SIAM Review 47 (2005).

    Args:
        fun: function of arrays or pytrees of arrays, differentiated by its first argument; it is traced once, as by
            `jit`. Pytrees count as the vector of all their numbers, in the order of `flatten_util.ravel_pytree`.
        mode: "fwd" (columns in colours), "rev" (rows in colours), "both" (dense rows set apart), or "auto": whichever
            costs least, element by element included where the program is made of elementwise functions of a few inputs.
        format: "csr", "csc" or "coo".
        pattern: where the nonzeros are, if that is known: a Pattern, SciPy sparse array, dense array or (rows, columns,
            shape). It is trusted; `prepare(x, check=True)` compares it with random products.

    Returns:
        A function of the same arguments. Its `prepare(x)` gives `rows`, `cols` and a traceable `values(x)` for solvers.

    Raises:
        ArgumentError: an unknown mode or format.
        NonDifferentiableInputError: an input or output is not real floating point (when called).

    Example:
        >>> import numpy as np
        >>> from functrace.sparse.jacobian import jacobian
        >>> J = jacobian(lambda x: x[1:] * x[:-1])
        >>> J(np.array([1.0, 2.0, 3.0])).toarray()
        array([[2., 1., 0.],
               [0., 3., 2.]])
    """
    check_callable(fun, "sparse.jacobian")
    check_format(format)
    if mode not in MODES:
        raise ArgumentError(
            "sparse.jacobian knows no such mode",
            where=user_line(),
            got=repr(mode),
            remedy=f"choose one of {', '.join(map(repr, MODES))}",
        )

    def prepare(program: FlatProgram, args: tuple[Any, ...]) -> SparseFunction:
        return prepare_jacobian(program, mode, format, pattern)

    return SparseDerivative(fun, prepare, "sparse.jacobian")


def prepare_jacobian(
    program: FlatProgram, mode: str = "auto", form: str = "csr", pattern: Any = None
) -> SparseFunction:
    """The Jacobian of a recorded program; the arguments are those of `jacobian`."""
    compiled_product = Tiered(lambda vector, *leaves: _product(program, vector, leaves))

    def product(vector: Any, *args: Any) -> Any:
        return compiled_product(check_vector(vector, program.n), *program.leaves(args))

    if mode == "auto" and pattern is None and program.n and program.m:
        elements = element_jacobian(program.closed, tuple(range(program.count)))
        if elements is not None:
            structure = Structure((elements.rows, elements.cols, elements.shape))
            preferred = _prefers_elements(program, elements, structure)
            if preferred is not None:
                return SparseFunction(
                    structure, element_values(program, elements), preferred, product, form, program=program
                )
    structure = Structure(known_pattern(pattern, (program.m, program.n)) if pattern is not None else proved(program))
    plan, choice, coloring = _choose(program, structure, mode)
    run = Tiered(lambda *leaves: evaluate_jacobian(program, plan, list(leaves)))

    def values(*args: Any) -> Any:
        return run(*program.leaves(args))

    return SparseFunction(structure, values, choice, product, form, coloring, program)


def element_values(program: FlatProgram, elements: Any) -> Callable[..., Any]:
    """The values of an element-wise derivative as a function of the user's arguments."""

    def values(*args: Any) -> Any:
        return elements.values(*program.leaves(args))

    return values


def _product(program: FlatProgram, vector: Any, leaves: tuple[Any, ...]) -> Any:
    x, rest = leaves[: program.count], leaves[program.count :]
    avals = program.in_avals[: program.count]
    tangents = [t.astype(a.dtype) for t, a in zip(program.split(vector), avals, strict=True)]
    return joined(jvp(lambda *values: program(*values, *rest), tuple(x), tuple(tangents))[1])


def check_vector(vector: Any, n: int) -> Any:
    """A vector to multiply by.

    Raises:
        ShapeError: it has another shape than (n,).
    """
    vector = vector if isinstance(vector, Tracer) else np.asarray(vector, float)
    if vector.shape != (n,):
        raise ShapeError(
            "the product needs a vector with one number per column",
            where=user_line(),
            got=f"shape {vector.shape}",
            remedy=f"give shape ({n},)",
        )
    return vector


def proved(program: FlatProgram) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Rows, columns and shape of the Jacobian, from the program."""
    rows, cols, start = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    structures = jacobian_structure(program.closed, program.wrt())
    for (starts, indices), aval in zip(structures, program.out_avals, strict=True):
        rows.append(np.repeat(np.arange(start, start + aval.size), np.diff(starts)))
        cols.append(np.asarray(indices, np.int64))
        start += aval.size
    return np.concatenate(rows), np.concatenate(cols), (program.m, program.n)


def known_pattern(pattern: Any, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """A user's pattern.

    Raises:
        ShapeError: it is of another shape than the derivative.
    """
    rows, cols, given = entries_of(pattern)
    if given != shape:
        raise ShapeError(
            "the pattern has another shape than the derivative",
            where=user_line(),
            got=f"pattern {given} for derivative {shape}",
            remedy="give a row per number of the output and a column per number of the first argument",
        )
    return rows, cols, shape


def element_seconds(elements: Any) -> float:
    """Predicted time of an element-wise evaluation."""
    rates = Machine()
    return rates.flop * elements.cost.flops + rates.byte * elements.cost.bytes


def _prefers_elements(
    program: FlatProgram, elements: Any, structure: Structure
) -> Choice | Callable[[], Choice] | None:
    """The choice of element-wise evaluation, unless even the fewest colours that are possible could beat it."""
    if element_seconds(elements) <= 2 * program.least_seconds():
        return lambda: _element_choice(program, elements, structure)
    choice = _element_choice(program, elements, structure)
    return choice if choice.cost <= 2 * choice.alternatives["colouring, at least"] else None


def _element_choice(program: FlatProgram, elements: Any, structure: Structure) -> Choice:
    fewest = min(
        np.bincount(structure.rows, minlength=1).max(initial=0),
        REVERSE_WEIGHT * np.bincount(structure.cols, minlength=1).max(initial=0),
    )
    own, colored = element_seconds(elements), program.seconds(float(fewest))
    unit = max(program.seconds(0), 1e-12)
    return Choice(
        "elements",
        1,
        own / unit,
        f"{len(elements.families)} families of element functions; colouring takes at least {fewest:g} sweeps",
        {"colouring, at least": colored / unit},
    )


def _choose(program: FlatProgram, structure: Structure, mode: str) -> tuple[Plan, Choice, Any]:
    """The plan of least predicted cost among those that the mode allows."""
    least = {
        "fwd": float(np.bincount(structure.rows, minlength=1).max(initial=0)),
        "rev": REVERSE_WEIGHT * np.bincount(structure.cols, minlength=1).max(initial=0),
    }
    found: dict[str, tuple[float, int, Any]] = {}
    wanted = ("fwd", "rev") if mode == "auto" else (mode,)
    for name in sorted(wanted, key=lambda name: least.get(name, 0.0)):
        if found and least[name] >= min(cost for cost, _, _ in found.values()):
            continue
        found[name] = _colored(structure, name)
    if mode == "auto" and min(cost for cost, _, _ in found.values()) > 8:
        found["both"] = _colored(structure, "both")
    best = min(found, key=lambda name: found[name][0])
    _, sweeps, coloring = found[best]
    make: dict[str, Callable[..., Plan]] = {"fwd": column_plan, "rev": row_plan, "both": bicolored_plan}
    method = {"fwd": "column colouring", "rev": "row colouring", "both": "row and column colouring"}
    products = {method[name]: found[name][0] if name in found else least[name] for name in {*found, *wanted}}
    unit = max(program.seconds(0), 1e-12)
    costs = {name: program.seconds(count) / unit for name, count in products.items()}
    cost = costs.pop(method[best])
    side = {"fwd": "forward", "rev": "reverse", "both": "either"}[best]
    reason = f"{sweeps} sweep{'s' * (sweeps != 1)} of {side} mode"
    return make[best](structure, coloring), Choice(method[best], sweeps, cost, reason, costs), coloring


def _colored(structure: Structure, name: str) -> tuple[float, int, Any]:
    """Predicted cost in forward products, number of sweeps, and the colouring."""
    if name == "fwd":
        columns = column_coloring(structure)
        return float(columns.number), columns.number, columns
    if name == "rev":
        rows = row_coloring(structure)
        return REVERSE_WEIGHT * rows.number, rows.number, rows
    both = bicoloring(structure, REVERSE_WEIGHT)
    cost = both.column_number + REVERSE_WEIGHT * both.row_number
    return cost, both.column_number + both.row_number, both
