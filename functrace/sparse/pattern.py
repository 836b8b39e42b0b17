"""Sparsity patterns: a fixed set of places in a matrix; those of Jacobians and Hessians, proved from the program."""

from __future__ import annotations

import functools
import linecache
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace import tree
from functrace.core.ir import ClosedJaxpr
from functrace.core.types import ShapedArray, is_inexact
from functrace.errors import IndexingError, NonDifferentiableInputError, NonScalarOutputError, ShapeError
from functrace.interpreters.sparsity import Program, Step
from functrace.sparse import _picture
from functrace.transforms import make_jaxpr
from functrace.transforms._flatten import argument_positions, check_callable
from functrace.util import user_line

__all__ = ["Pattern", "hessian_pattern", "jacobian_pattern"]


class Pattern:
    """Places of a matrix that may hold something other than zero. Immutable and hashable.

    Args:
        shape: (rows, columns) of the matrix.
        rows, cols: integer arrays of one length: the places, in any order; repeated ones count once.

    Attributes:
        shape: (rows, columns).
        rows, cols: the places in row-major order, read-only integer arrays.

    Raises:
        ShapeError: the arrays differ in length, or a place lies outside of the matrix.

    Example:
        >>> from functrace.sparse import Pattern
        >>> pattern = Pattern((2, 3), [1, 0, 1], [2, 1, 0])
        >>> pattern.nnz, pattern.rows, pattern.cols
        (3, array([0, 1, 1]), array([1, 0, 2]))
        >>> pattern.T.shape
        (3, 2)
    """

    __slots__ = ("_explain", "_hash", "_indptr", "cols", "rows", "shape")

    shape: tuple[int, int]
    rows: np.ndarray
    cols: np.ndarray
    _hash: int | None
    _indptr: np.ndarray | None
    _explain: Callable[[int, int], list[Step]] | None

    def __init__(self, shape: Sequence[int], rows: Any, cols: Any) -> None:
        try:
            height, width = (operator.index(n) for n in shape)
            rows, cols = (np.asarray(a).reshape(-1) for a in (rows, cols))
            # Whole numbers in floats are SciPy's and MATLAB's habit; others are no places.
            rows, cols = ((a if a.dtype.kind in "iu" else _whole(a)).astype(np.intp) for a in (rows, cols))
        except (TypeError, ValueError) as error:
            raise ShapeError(
                f"a pattern takes the matrix's two lengths, and integers as rows and columns: {error}",
                where=user_line(),
                got=f"shape {shape!r}",
                remedy="write Pattern((2, 3), [0, 1], [2, 0])",
            ) from None
        if len(rows) != len(cols):
            raise ShapeError(
                "a pattern needs a row and a column for every place",
                where=user_line(),
                got=f"{len(rows)} rows and {len(cols)} columns",
            )
        if len(rows) and not (min(rows.min(), cols.min()) >= 0 and rows.max() < height and cols.max() < width):
            raise ShapeError(
                "a place of a pattern lies outside of the matrix",
                where=user_line(),
                got=f"rows {rows.min()} to {rows.max()}, columns {cols.min()} to {cols.max()} for {(height, width)}",
            )
        keys = rows * width + cols
        if not (keys[1:] > keys[:-1]).all():
            keys = np.unique(keys)
            rows, cols = np.divmod(keys, max(width, 1))
        self._set((height, width), rows, cols)

    def _set(self, shape: tuple[int, int], rows: np.ndarray, cols: np.ndarray) -> None:
        rows.flags.writeable = cols.flags.writeable = False
        put = functools.partial(object.__setattr__, self)
        put("shape", shape)
        put("rows", rows)
        put("cols", cols)
        put("_hash", None)
        put("_indptr", None)
        put("_explain", None)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Pattern is immutable; {name!r} cannot be set")

    @classmethod
    def _sorted(cls, shape: tuple[int, int], rows: np.ndarray, cols: np.ndarray) -> Pattern:
        """From places known to be in order."""
        pattern = cls.__new__(cls)
        pattern._set(shape, rows, cols)
        return pattern

    def __reduce__(self) -> Any:
        return Pattern, (self.shape, self.rows, self.cols)

    # measures

    @property
    def nnz(self) -> int:
        """How many places there are."""
        return len(self.rows)

    @property
    def density(self) -> float:
        """The share of the matrix that may be other than zero."""
        return self.nnz / max(self.shape[0] * self.shape[1], 1)

    @property
    def indptr(self) -> np.ndarray:
        """Where each row starts among the places, and the end: with `cols`, the index arrays of the CSR format."""
        indptr = self._indptr
        if indptr is None:
            indptr = np.zeros(self.shape[0] + 1, np.intp)
            np.cumsum(np.bincount(self.rows, minlength=self.shape[0]), out=indptr[1:])
            indptr.flags.writeable = False
            object.__setattr__(self, "_indptr", indptr)
        return indptr

    def summary(self) -> str:
        """Shape and count, as in "49x50, 98 nonzeros"."""
        return f"{self.shape[0]}x{self.shape[1]}, {self.nnz} nonzero{'s' * (self.nnz != 1)}"

    # as a set

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Pattern):
            return NotImplemented
        return (
            self.shape == other.shape
            and np.array_equal(self.rows, other.rows)
            and np.array_equal(self.cols, other.cols)
        )

    def __hash__(self) -> int:
        value = self._hash
        if value is None:
            value = hash((self.shape, self.rows.tobytes(), self.cols.tobytes()))
            object.__setattr__(self, "_hash", value)
        return value

    def __len__(self) -> int:
        return self.nnz

    def __contains__(self, place: tuple[int, int]) -> bool:
        row, col = place
        if not (0 <= row < self.shape[0] and 0 <= col < self.shape[1]):
            return False
        return bool((self.cols[self.indptr[row] : self.indptr[row + 1]] == col).any())

    def __or__(self, other: Pattern) -> Pattern:
        """The places of either pattern."""
        if not isinstance(other, Pattern):
            return NotImplemented
        if self.shape != other.shape:
            raise ShapeError(
                "only patterns of one shape have a union", where=user_line(), got=f"{self.shape} and {other.shape}"
            )
        return Pattern(self.shape, np.concatenate([self.rows, other.rows]), np.concatenate([self.cols, other.cols]))

    def covers(self, other: Pattern) -> bool:
        """Whether every place of the other pattern is one of this, too."""
        return (self | other).nnz == self.nnz

    @property
    def T(self) -> Pattern:
        """The pattern of the transposed matrix."""
        order = np.lexsort((self.rows, self.cols))
        return Pattern._sorted((self.shape[1], self.shape[0]), self.cols[order], self.rows[order])

    def is_symmetric(self) -> bool:
        """Whether it is its own transpose."""
        return self.shape[0] == self.shape[1] and self == self.T

    def lower(self) -> Pattern:
        """The places on and below the diagonal: all that a symmetric matrix needs."""
        kept = self.rows >= self.cols
        return Pattern._sorted(self.shape, self.rows[kept], self.cols[kept])

    # as a matrix

    def to_scipy(self, values: Any = None, format: str = "csr") -> Any:
        """A SciPy sparse array with this structure.

        Args:
            values: one value per place, in row-major order; True everywhere by default.
            format: "csr", "csc" or "coo".

        Returns:
            A sparse array that keeps every place, zeros included.

        Example:
            >>> from functrace.sparse import Pattern
            >>> Pattern((2, 2), [0, 1], [1, 0]).to_scipy([2.0, 3.0]).toarray()
            array([[0., 2.],
                   [3., 0.]])
        """
        import scipy.sparse

        data = np.ones(self.nnz, bool) if values is None else np.asarray(values)
        if data.shape != (self.nnz,):
            raise ShapeError(
                "a pattern needs one value per place",
                where=user_line(),
                got=f"values of shape {data.shape} for {self.nnz} places",
            )
        if format == "coo":
            return scipy.sparse.coo_array((data, (self.rows, self.cols)), shape=self.shape)
        array = scipy.sparse.csr_array((data, self.cols, self.indptr), shape=self.shape)
        return array.asformat(format)

    def toarray(self) -> np.ndarray:
        """The dense boolean matrix."""
        dense = np.zeros(self.shape, bool)
        dense[self.rows, self.cols] = True
        return dense

    # pictures

    def __repr__(self) -> str:
        return f"{self.summary()}\n{_picture.braille(self)}" if min(self.shape) else self.summary()

    def svg(self, size: int = 240) -> str:
        """The pattern as an SVG image, `size` pixels along its longer side."""
        return _picture.svg(self, size)

    def _repr_svg_(self) -> str:
        return self.svg()

    def spy(self, ax: Any = None, **options: Any) -> Any:
        """Draw the pattern with matplotlib.

        Args:
            ax: the axes to draw in; new ones by default.
            options: what `Axes.plot` takes, for instance `markersize` or `color`.

        Returns:
            The axes.
        """
        return _picture.spy(self, ax, **options)

    # questions

    def why(self, row: int, col: int) -> tuple[str, ...]:
        """Why a place may be other than zero: the lines of the user's program that make it so.

        Of a Jacobian, the operations on the way from the input to the output. Of a Hessian, the nonlinear operations
        that join the two inputs.

        Args:
            row, col: the place.

        Returns:
            A line of text per source line, in order: place, code and operations. Empty if the place is always zero.

        Raises:
            IndexingError: the matrix has no such place.

        Example:
            >>> import numpy as np
            >>> from functrace.sparse import hessian_pattern
            >>> pattern = hessian_pattern(lambda x: x[0] * x[1] + np.sin(x[2]))(np.ones(3))
            >>> pattern.why(0, 1)[0].endswith("[mul]")
            True
        """
        if not (0 <= row < self.shape[0] and 0 <= col < self.shape[1]):
            raise IndexingError(
                "a place lies outside of the pattern", where=user_line(), got=f"{(row, col)} for {self.shape}"
            )
        if (row, col) not in self:
            return ()
        if self._explain is None:
            return ("given as a pattern, not derived from a function",)
        return _lines(self._explain(int(row), int(col)))


def _lines(steps: Sequence[Step]) -> tuple[str, ...]:
    """The steps by source line."""
    operations: dict[str, list[str]] = {}
    for step in steps:
        if step.source is None:
            place = "(no line of yours)"
        else:
            text = linecache.getline(step.source.code.co_filename, step.source.line).strip()
            place = f"{step.source}: {text}" if text else str(step.source)
        names = operations.setdefault(place, [])
        if step.operation not in names:
            names.append(step.operation)
    return tuple(f"{place}  [{', '.join(names)}]" for place, names in operations.items())


def _explained(pattern: Pattern, explain: Callable[[int, int], list[Step]]) -> Pattern:
    object.__setattr__(pattern, "_explain", explain)
    return pattern


def _whole(places: np.ndarray) -> np.ndarray:
    """Rows or columns in another dtype than an integer one; a ValueError if they are no whole numbers."""
    if not places.size or (places.dtype.kind in "bf" and (places == np.floor(places.astype(float))).all()):
        return places
    raise ValueError(f"these are of dtype {places.dtype}")


# the patterns of functions


def _staged(
    fun: Callable[..., Any],
    argnums: int | Sequence[int],
    static_argnums: int | Sequence[int],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    name: str,
) -> tuple[ClosedJaxpr, list[bool], Any]:
    """The program, which of its inputs count, and the types of its outputs as a tree.

    Raises:
        NonDifferentiableInputError: one that counts is not of floating point.
    """
    positions = argument_positions(argnums, len(args), name)
    static = () if static_argnums == () else argument_positions(static_argnums, len(args), name)
    closed, shapes = make_jaxpr(fun, static_argnums, return_shape=True)(*args, **kwargs)
    wrt: list[bool] = []
    for i, arg in enumerate(args):
        if i not in static:
            wrt += [i in positions] * tree.structure(arg).num_leaves
    wrt += [False] * (len(closed.in_avals) - len(wrt))
    for aval, counts in zip(closed.in_avals, wrt, strict=True):
        if counts and not is_inexact(aval.dtype):
            raise NonDifferentiableInputError(
                f"{name} needs floating point inputs",
                where=user_line(),
                got=str(aval),
                remedy="pass 2.0 instead of 2, or convert with numpy.asarray(x, float)",
            )
    return closed, wrt, shapes


def jacobian_pattern(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    static_argnums: int | Sequence[int] = (),
) -> Callable[..., Pattern]:
    """The sparsity pattern of a function's Jacobian, proved from its program: it holds for every value of the inputs.

    Args:
        fun: function of arrays or pytrees of arrays that gives an array or a pytree of arrays.
        argnums: which positional arguments the columns belong to; the other arguments may have any values.
        static_argnums: positional arguments that Python sees as they are; they must be hashable.

    Returns:
        A function of the same arguments (of which only the types matter) that gives a `Pattern`. Rows are the
        flattened outputs one after another, columns the flattened inputs.

    Raises:
        NonDifferentiableInputError: an input is an integer (when called).
        AbstractValueError: `fun` branches in Python on a traced value (when called).

    Example:
        >>> import numpy as np
        >>> from functrace.sparse import jacobian_pattern
        >>> jacobian_pattern(lambda x: x[1:] - x[:-1] ** 2)(np.ones(4)).toarray().astype(int)
        array([[1, 1, 0, 0],
               [0, 1, 1, 0],
               [0, 0, 1, 1]])
    """
    check_callable(fun, "jacobian_pattern")

    @functools.wraps(fun)
    def jacobian_pattern_fun(*args: Any, **kwargs: Any) -> Pattern:
        closed, wrt, _ = _staged(fun, argnums, static_argnums, args, kwargs, "jacobian_pattern")
        return pattern_of_jacobian(closed, wrt)

    return jacobian_pattern_fun


def pattern_of_jacobian(closed: ClosedJaxpr, wrt: Sequence[bool]) -> Pattern:
    """The pattern of a program's Jacobian: all outputs by the inputs that count, flattened."""
    program = Program(closed, wrt)
    tables = program.jacobian()
    counts = [len(indptr) - 1 for indptr, _ in tables]
    starts = np.cumsum([0, *counts])
    rows = [
        np.repeat(np.arange(start, start + count), np.diff(indptr))
        for (indptr, _), start, count in zip(tables, starts, counts, strict=False)
    ]
    none = np.empty(0, np.intp)
    cols = np.concatenate([none, *(indices for _, indices in tables)])
    pattern = Pattern._sorted((int(starts[-1]), program.size), np.concatenate([none, *rows]), cols)
    return _explained(pattern, _jacobian_reasons(closed, program))


def _jacobian_reasons(closed: ClosedJaxpr, program: Program) -> Callable[[int, int], list[Step]]:
    """Explains places of the Jacobian of all outputs, flattened."""
    starts = np.cumsum([0, *(a.size for a in closed.out_avals)])

    def explain(row: int, col: int) -> list[Step]:
        out = int(np.searchsorted(starts, row, "right")) - 1
        return program.why_jacobian(out, row - int(starts[out]), col)

    return explain


def explained_pattern(shape: tuple[int, int], rows: Any, cols: Any, program: Any, symmetric: bool) -> Pattern:
    """A pattern that was found otherwise; the program is looked at when it is to explain a place.

    Args:
        program: has the recorded program `closed` of one vector of outputs, and `wrt()`, which of its inputs count.
        symmetric: whether it is that of the Hessian.
    """
    analysed: list[Any] = []

    def explain(row: int, col: int) -> list[Step]:
        if not analysed:
            wrt = program.wrt()
            found = Program(program.closed, wrt)
            analysed.append(found.why_hessian if symmetric else _jacobian_reasons(program.closed, found))
        return analysed[0](row, col)

    return _explained(Pattern(shape, rows, cols), explain)


def hessian_pattern(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    static_argnums: int | Sequence[int] = (),
) -> Callable[..., Pattern]:
    """The sparsity pattern of a scalar function's Hessian, proved from its program: it holds for every input value.

    Linear operations make no entry: x[0] * x[1] gives the places (0, 1) and (1, 0), but not (0, 0).

    Args:
        fun: function of arrays or pytrees of arrays that gives a real scalar.
        argnums: which positional arguments the Hessian is taken by; the other arguments may have any values.
        static_argnums: positional arguments that Python sees as they are; they must be hashable.

    Returns:
        A function of the same arguments (of which only the types matter) that gives a symmetric `Pattern`, over the
        flattened inputs one after another.

    Raises:
        NonScalarOutputError: the output is not a scalar (when called).
        NonDifferentiableInputError: an input is an integer (when called).
        AbstractValueError: `fun` branches in Python on a traced value (when called).

    Example:
        >>> import numpy as np
        >>> from functrace.sparse import hessian_pattern
        >>> hessian_pattern(lambda x: x[0] * x[1] + np.sin(x[2]) + 5 * x[3])(np.ones(4)).toarray().astype(int)
        array([[0, 1, 0, 0],
               [1, 0, 0, 0],
               [0, 0, 1, 0],
               [0, 0, 0, 0]])
    """
    check_callable(fun, "hessian_pattern")

    @functools.wraps(fun)
    def hessian_pattern_fun(*args: Any, **kwargs: Any) -> Pattern:
        closed, wrt, shapes = _staged(fun, argnums, static_argnums, args, kwargs, "hessian_pattern")
        if not isinstance(shapes, ShapedArray) or shapes.shape != () or not is_inexact(shapes.dtype):
            raise NonScalarOutputError(
                "hessian_pattern needs a function with one real scalar output",
                where=user_line(),
                got=", ".join(map(str, closed.out_avals)),
                remedy="reduce the output, for instance with .sum()",
            )
        return pattern_of_hessian(closed, wrt)

    return hessian_pattern_fun


def pattern_of_hessian(closed: ClosedJaxpr, wrt: Sequence[bool]) -> Pattern:
    """The pattern of the Hessian of a program's output, or of any weighted sum of its outputs."""
    program = Program(closed, wrt)
    pattern = Pattern._sorted((program.size, program.size), *program.hessian())
    return _explained(pattern, program.why_hessian)
