"""Where the nonzeros stand and in which order: the one structure that sparse derivatives and solvers share.

The order of the nonzeros is part of the interface: by columns, and by rows within a column. A symmetric structure
lists its lower triangle only, so that its values are what IPOPT and its like expect.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import numpy as np

from functrace.core.trace import Tracer
from functrace.errors import ArgumentError, InputError, ShapeError
from functrace.util import user_line

__all__ = ["Structure", "check_format", "compressed", "entries_of"]

FORMATS = ("csr", "csc", "coo")


def compressed(major: Any, minor: Any, count: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index pairs sorted by `major`, then `minor`, without repetitions.

    Args:
        major, minor: int64[nnz], in any order.
        count, width: their bounds.

    Returns:
        `(starts, major, minor)`; the minor indices of `i` are `minor[starts[i] : starts[i + 1]]`.
    """
    major, minor = np.asarray(major, np.int64), np.asarray(minor, np.int64)
    shift = max(int(width), 1).bit_length()
    key = (major << shift) | minor  # one integer per pair sorts many times faster than pairs do
    if key.size and not (key[1:] > key[:-1]).all():
        key = np.sort(key)
        key = key[np.concatenate([[True], key[1:] != key[:-1]])]
        major, minor = key >> shift, key & ((1 << shift) - 1)
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(major, minlength=count), out=starts[1:])
    return starts, major, minor


def entries_of(pattern: Any, what: str = "pattern") -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Rows, columns and shape of a pattern in any of the forms that users have.

    Args:
        pattern: an object with `shape`, `rows` and `cols`; a SciPy sparse array (explicit zeros count as nonzeros); a
            dense array, whose nonzero entries count; or a tuple (rows, columns, shape).
        what: its name, for messages.

    Raises:
        ShapeError: it is not two-dimensional, or an index lies outside its shape.
        InputError: it is something else.
    """
    rows: Any
    cols: Any
    if isinstance(pattern, tuple) and len(pattern) == 3:
        rows, cols, shape = pattern
    elif hasattr(pattern, "rows") and hasattr(pattern, "cols"):
        rows, cols, shape = pattern.rows, pattern.cols, pattern.shape
    elif hasattr(pattern, "tocoo"):
        coo = pattern.tocoo()
        rows, cols, shape = coo.row, coo.col, coo.shape
    elif isinstance(pattern, (np.ndarray, list)):
        dense = np.asarray(pattern)
        if dense.ndim != 2:
            raise ShapeError(
                f"a {what} has two axes",
                where=user_line(),
                got=f"shape {dense.shape}",
                remedy="give an array with a row per output and a column per input",
            )
        (rows, cols), shape = np.nonzero(dense), dense.shape
    else:
        raise InputError(
            f"this is no {what}",
            where=user_line(),
            got=type(pattern).__name__,
            remedy="give a Pattern, a SciPy sparse array, a dense array of zeros and ones, or (rows, columns, shape)",
        )
    rows, cols = np.asarray(rows), np.asarray(cols)
    m, n = (int(length) for length in shape)
    integers = all(a.ndim == 1 and (a.dtype.kind in "iu" or not a.size) for a in (rows, cols))
    if not integers or rows.shape != cols.shape:
        raise ShapeError(
            f"the rows and columns of a {what} are integer vectors of one length",
            where=user_line(),
            got=f"{rows.dtype.name}{list(rows.shape)} and {cols.dtype.name}{list(cols.shape)}",
            remedy="give one row index and one column index per nonzero",
        )
    rows, cols = rows.astype(np.int64, copy=False), cols.astype(np.int64, copy=False)
    if rows.size and (rows.min() < 0 or cols.min() < 0 or rows.max() >= m or cols.max() >= n):
        raise ShapeError(
            f"an index of the {what} lies outside its shape",
            where=user_line(),
            got=f"rows {rows.min()}..{rows.max()}, columns {cols.min()}..{cols.max()} for shape {(m, n)}",
            remedy="number rows and columns from 0",
        )
    return rows, cols, (m, n)


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


class Structure:
    """The places of the nonzeros of a matrix, frozen and in a fixed order: by columns, then by rows.

    Args:
        pattern: see `entries_of`.
        symmetric: whether the matrix is symmetric; then only the lower triangle is listed, and the pattern may give
            either triangle or both.

    Attributes:
        shape: the matrix's shape.
        rows, cols: int64[nnz], read-only.
        starts: int64[n + 1]; column j holds the nonzeros `starts[j] : starts[j + 1]`.
        symmetric: whether they are one triangle of a symmetric matrix.

    Example:
        >>> from functrace.sparse.structure import Structure
        >>> tridiagonal = Structure([[1, 1, 0], [1, 1, 1], [0, 1, 1]], symmetric=True)
        >>> tridiagonal
        Structure 3x3 symmetric, 5 nonzeros in the lower triangle
        >>> tridiagonal.rows.tolist(), tridiagonal.cols.tolist()
        ([0, 1, 1, 2, 2], [0, 0, 1, 1, 2])
    """

    def __init__(self, pattern: Any, symmetric: bool = False) -> None:
        rows, cols, (m, n) = entries_of(pattern)
        if symmetric:
            if m != n:
                raise ShapeError(
                    "a symmetric structure is square",
                    where=user_line(),
                    got=f"shape {(m, n)}",
                    remedy="give symmetric=False",
                )
            upper = rows < cols
            if upper.any():
                rows, cols = np.maximum(rows, cols), np.minimum(rows, cols)
        self.shape: tuple[int, int] = (m, n)
        self.symmetric = bool(symmetric)
        given = rows, cols
        starts, cols, rows = compressed(cols, rows, n, m)
        rows, cols = (a.copy() if a.base is not None or any(a is g for g in given) else a for a in (rows, cols))
        self.starts, self.rows, self.cols = _frozen(starts), _frozen(rows), _frozen(cols)

    @property
    def nnz(self) -> int:
        """The number of listed nonzeros: of the lower triangle if symmetric."""
        return self.rows.size

    @functools.cached_property
    def digest(self) -> str:
        """A hash of shape, symmetry and places, the same in every process."""
        state = hashlib.sha256(f"{self.shape} {self.symmetric}".encode())
        state.update(self.rows.astype("<i8", copy=False).tobytes())
        state.update(self.cols.astype("<i8", copy=False).tobytes())
        return state.hexdigest()

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Structure)
            and (self.shape, self.symmetric, self.nnz) == (other.shape, other.symmetric, other.nnz)
            and np.array_equal(self.rows, other.rows)
            and np.array_equal(self.cols, other.cols)
        )

    def __repr__(self) -> str:
        m, n = self.shape
        where = " symmetric, {} nonzero{} in the lower triangle" if self.symmetric else ", {} nonzero{}"
        return f"Structure {m}x{n}" + where.format(self.nnz, "" if self.nnz == 1 else "s")

    @functools.cached_property
    def full(self) -> tuple[Structure, np.ndarray]:
        """The structure with both triangles, and for each of its nonzeros the position in this one's."""
        if not self.symmetric:
            return self, _frozen(np.arange(self.nnz))
        below = np.flatnonzero(self.rows != self.cols)
        rows = np.concatenate([self.rows, self.cols[below]])
        cols = np.concatenate([self.cols, self.rows[below]])
        source = np.concatenate([np.arange(self.nnz), below])
        shift = max(self.nnz, 1).bit_length()
        wide = self.shape[0].bit_length() * 2 + shift < 63
        if wide:  # the position rides along in the low bits of the key
            key = (((cols << self.shape[0].bit_length()) | rows) << shift) | source
            source = np.sort(key) & ((1 << shift) - 1)
        else:
            source = source[np.lexsort((rows, cols))]
        return Structure((rows, cols, self.shape)), _frozen(source)

    @functools.cached_property
    def by_rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The full matrix by rows: starts, columns, and for each nonzero the position in this structure's values."""
        full, source = self.full
        order = np.lexsort((full.cols, full.rows)) if not self.symmetric else None
        if order is None:  # symmetric: rows are columns
            return full.starts, full.rows, source
        starts = np.zeros(self.shape[0] + 1, np.int64)
        np.cumsum(np.bincount(full.rows, minlength=self.shape[0]), out=starts[1:])
        return _frozen(starts), _frozen(full.cols[order]), _frozen(source[order])

    @functools.cached_property
    def _indices(self) -> dict[str, tuple[np.ndarray, ...]]:
        return {}

    def _index_arrays(self, form: str) -> tuple[np.ndarray, ...]:
        """Index arrays as SciPy keeps them (32 bits where they suffice), then the gather of the values."""
        if form not in self._indices:
            full, source = self.full
            arrays: tuple[np.ndarray, ...]
            if form == "csr":
                starts, cols, source = self.by_rows
                arrays = (cols, starts)
            else:
                arrays = (full.rows, full.starts) if form == "csc" else (full.rows, full.cols)
            small = max(*self.shape, full.nnz) <= np.iinfo(np.int32).max
            plain = form != "csr" and not self.symmetric
            converted = [_frozen(a.astype(np.int32)) if small else a for a in arrays]
            self._indices[form] = (*converted, *(() if plain else (source,)))
        return self._indices[form]

    def check_values(self, values: Any) -> np.ndarray:
        """The values as an array of their own length.

        Raises:
            ShapeError: they are not one per nonzero.
            InputError: they are traced.
        """
        if isinstance(values, Tracer):
            raise InputError(
                "a SciPy sparse array holds numbers, and these values are traced",
                where=user_line(),
                got=values.describe(),
                remedy="inside jit, vmap, grad and the like use prepare(x).values(x), a vector with one value per "
                "nonzero, and build the array outside",
            )
        values = np.asarray(values)
        if values.shape != (self.nnz,):
            raise ShapeError(
                "a structure takes one value per nonzero",
                where=user_line(),
                got=f"shape {values.shape} for {self!r}",
                remedy=f"give shape ({self.nnz},), in the order of rows and cols",
            )
        return values

    def check_out(self, out: Any) -> None:
        """Raise unless values can be written to an array.

        Raises:
            InputError: it is no array of floats that can be written to.
            ShapeError: it does not hold one number per nonzero.
        """
        if not isinstance(out, np.ndarray) or out.dtype.kind != "f" or not out.flags.writeable:
            raise InputError(
                "out must be an array of floats that can be written to",
                where=user_line(),
                got=f"{out.dtype.name}{list(out.shape)}" if isinstance(out, np.ndarray) else type(out).__name__,
                remedy=f"give numpy.empty({self.nnz})",
            )
        if out.shape != (self.nnz,):
            raise ShapeError(
                "out must hold one number per nonzero",
                where=user_line(),
                got=f"shape {out.shape} for {self.nnz} nonzeros",
                remedy=f"give an array of shape ({self.nnz},)",
            )

    def to_array(self, values: Any, form: str = "csc") -> Any:
        """The whole matrix as a SciPy sparse array of its own, in form "csr", "csc" or "coo"; zeros stay in place.

        Args:
            values: [nnz] numbers in the structure's order.
        """
        import scipy.sparse

        check_format(form)
        values = self.check_values(values)
        first, second, *gather = self._index_arrays(form)
        data = values[gather[0]] if gather else values.copy()
        if form == "coo":
            array = scipy.sparse.coo_array((data, (first.copy(), second.copy())), shape=self.shape)
            array.has_canonical_format = True
            return array
        kind = scipy.sparse.csr_array if form == "csr" else scipy.sparse.csc_array
        array = kind((data, first.copy(), second.copy()), shape=self.shape)
        array.has_canonical_format = True
        return array

    def to_csc(self, values: Any) -> Any:
        """The whole matrix as a `scipy.sparse.csc_array`."""
        return self.to_array(values, "csc")

    def to_csr(self, values: Any) -> Any:
        """The whole matrix as a `scipy.sparse.csr_array`."""
        return self.to_array(values, "csr")

    def to_coo(self, values: Any) -> Any:
        """The whole matrix as a `scipy.sparse.coo_array`."""
        return self.to_array(values, "coo")

    def to_dense(self, values: Any) -> np.ndarray:
        """The whole matrix as a dense array."""
        values = self.check_values(values)
        dense = np.zeros(self.shape, values.dtype)
        dense[self.rows, self.cols] = values
        if self.symmetric:
            dense[self.cols, self.rows] = values
        return dense

    def matvec(self, values: Any, vector: Any) -> np.ndarray:
        """The product of the whole matrix and a vector.

        Args:
            values: [nnz] numbers in the structure's order.
            vector: [n] numbers.

        Raises:
            ShapeError: the vector does not fit.
        """
        values, vector = self.check_values(values), np.asarray(vector)
        m, n = self.shape
        if vector.shape != (n,):
            raise ShapeError(
                "the product needs a vector with one number per column",
                where=user_line(),
                got=f"shape {vector.shape} for {self!r}",
                remedy=f"give shape ({n},)",
            )
        product = np.bincount(self.rows, values * vector[self.cols], minlength=m)
        if self.symmetric:
            below = self.rows != self.cols
            product += np.bincount(self.cols[below], values[below] * vector[self.rows[below]], minlength=m)
        return product


def check_format(form: str) -> None:
    """Raise unless SciPy's sparse format is one of ours.

    Raises:
        ArgumentError: it is not.
    """
    if form not in FORMATS:
        raise ArgumentError(
            "sparse derivatives know no such format",
            where=user_line(),
            got=repr(form),
            remedy=f"choose one of {', '.join(map(repr, FORMATS))}",
        )
