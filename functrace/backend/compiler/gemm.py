"""Products of middle-sized matrices, as code of their own: BLAS copies both operands before it multiplies them.

A tile of the result stays in registers while the summed axis is run through: of the right operand some vectors are
read, of the left one number for each of the tile's rows. The summed axis is run through in pieces, such that what a
column of tiles reads of the right operand stays in a near cache. (The inner kernel is that of K. Goto and R. van
de Geijn, Anatomy of high-performance matrix multiplication, ACM Transactions on Mathematical Software 34, 2008.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from functrace.backend import blas_threads
from functrace.backend.compiler.emit import INDEX, Emitter, Value
from functrace.backend.llvm import Target

__all__ = ["Matrix", "emit_gemm"]

_VECTORS = 3  # of a tile's row, at most
_LONGEST = 128  # steps of the summed axis at a time: for the cache, and for rounding errors
_SHORT = 24  # steps, up to which half-filled vectors do not matter
_FULL = 0.9  # the part of the numbers in vectors that counts, at least, unless
_FEW = 2000  # the result has only so many elements
_SHARED = 4096  # elements of the result, from which on the threads of BLAS share the work
_THIN = 32  # rows, from which on BLAS is better at a result of one vector of columns


class Matrix(NamedTuple):
    """An address, and the strides of rows and columns in elements."""

    pointer: str
    down: int
    across: int


class _Columns(NamedTuple):
    """Columns of tiles of equal width: where they start, how many there are, and the vectors of each."""

    start: int
    number: int
    vectors: int


def emit_gemm(
    e: Emitter, dtype: np.dtype, sizes: tuple[int, int, int], left: Matrix, right: Matrix, goal: Matrix
) -> bool:
    """Emits the product of two matrices, if that is faster than a call of BLAS; whether it has.

    Args:
        sizes: rows and columns of the result, and the length of the summed axis.
        left, right, goal: rows of the latter two are contiguous, else there is no code.
    """
    piece = _piece(e.target, dtype, sizes, left, right, goal)
    if piece:
        _Product(e, dtype, sizes, left, right, goal).emit(piece)
    return piece > 0


def _piece(
    target: Target, dtype: np.dtype, sizes: tuple[int, int, int], left: Matrix, right: Matrix, goal: Matrix
) -> int:
    """How many steps of the summed axis to take at a time; 0 if BLAS is to do it."""
    m, n, k = sizes
    work, lanes = 2.0 * m * n * k, target.lanes(8 * dtype.itemsize)
    if dtype.kind != "f" or min(sizes) < 2 or right.across != 1 or goal.across != 1:
        return 0
    if not target.fma or target.vector_bits < 256:  # BLAS has code for the processor, we only for what was asked for
        return 0
    if work >= blas_threads.SMALL and (m * n > _SHARED or left.down != 1):
        return 0
    vectors = -(-n // lanes)
    wasteful = n < _FULL * vectors * lanes and m * n > _FEW and k > _SHORT
    if wasteful or (vectors == 1 and left.down == 1 and m >= _THIN):
        return 0
    return -(-k // -(-k // _LONGEST))


class _Product:
    def __init__(
        self, e: Emitter, dtype: np.dtype, sizes: tuple[int, int, int], left: Matrix, right: Matrix, goal: Matrix
    ) -> None:
        self.e, self.dtype, self.sizes = e, dtype, sizes
        self.left, self.right, self.goal = left, right, goal
        self.lanes = e.target.lanes(8 * dtype.itemsize)

    def emit(self, piece: int) -> None:
        """All of it, so many steps of the summed axis at a time."""
        e, (m, _, k) = self.e, self.sizes
        if piece == k:
            self._all_columns("0", k, False)
            return
        e.counted(m, self._clear)

        def one(i: str) -> None:
            start = self._times(i, piece)
            left = Value(e, e.index(f"sub nsw i64 {k}, {start}"), INDEX)
            self._all_columns(start, e.intrinsic("smin", left, piece).name, True)

        e.counted(-(-k // piece), one)

    def _clear(self, row: str) -> None:
        """Sets a row of the result to zero."""
        bytes_ = self.sizes[1] * self.dtype.itemsize
        self.e.declare("void @llvm.memset.p0.i64(ptr, i8, i64, i1 immarg)")
        place = self._at(self.goal, row, "0")
        self.e.line(f"call void @llvm.memset.p0.i64(ptr {place}, i8 0, i64 {bytes_}, i1 false)")

    def _all_columns(self, start: str, length: int | str, more: bool) -> None:
        """Some steps of the summed axis: columns of tiles, the wider ones first."""
        vectors = -(-self.sizes[1] // self.lanes)
        tiles = -(-vectors // _VECTORS)
        narrow = tiles * (vectors // tiles + 1) - vectors if vectors % tiles else tiles
        wide, width = tiles - narrow, vectors // tiles
        groups = [_Columns(0, wide, width + 1), _Columns(wide * (width + 1) * self.lanes, narrow, width)]
        for group in [g for g in groups if g.number]:
            last = group is groups[-1] and self.sizes[1] % self.lanes > 0

            def column(i: str, group: _Columns = group, last: bool = last) -> None:
                first = self._plus(self._times(i, group.vectors * self.lanes), group.start)
                self._column(first, group.vectors, last, start, length, more)

            self._repeated(group.number, column)

    def _column(self, first: str, vectors: int, last: bool, start: str, length: int | str, more: bool) -> None:
        """A column of tiles, its rows in groups of as many as there are registers for."""
        m = self.sizes[0]
        masks = [None] * (vectors - 1) + [self._mask(first, vectors) if last else None]
        rows = _rows(self.e.target, vectors, m)

        def tile(row: str, count: int) -> None:
            self._tile(row, count, first, masks, start, length, more)

        self._repeated(m // rows, lambda i: tile(self._times(i, rows), rows))
        if m % rows:
            tile(str(m - m % rows), m % rows)

    def _mask(self, first: str, vectors: int) -> str:
        """The lanes of a tile's last vector that are inside the result."""
        e, lanes = self.e, self.lanes
        left = e.index(f"sub nsw i64 {self.sizes[1] - (vectors - 1) * lanes}, {first}")
        steps = Value(e, f"<{', '.join(f'i64 {k}' for k in range(lanes))}>", INDEX, lanes)
        return (e.widened(Value(e, left, INDEX), lanes) > steps).name

    def _tile(
        self, row: str, rows: int, column: str, masks: list[str | None], start: str, length: int | str, more: bool
    ) -> None:
        e, dtype, lanes = self.e, self.dtype, self.lanes
        corner = self._at(self.goal, row, column)
        goals = [
            [e.offset(corner, r * self.goal.down + v * lanes, dtype) for v in range(len(masks))] for r in range(rows)
        ]
        left, right = self._at(self.left, row, start), self._at(self.right, start, column)

        def terms(step: str) -> tuple[list[Value], list[Value]]:
            """The numbers and vectors that a step multiplies."""
            numbers, vectors = (
                e.offset(pointer, self._times(step, stride), dtype)
                for pointer, stride in ((left, self.left.across), (right, self.right.down))
            )
            down = self.left.down
            loads = [e.load(e.offset(vectors, v * lanes, dtype), dtype, lanes, mask) for v, mask in enumerate(masks)]
            return [e.widened(e.load(e.offset(numbers, r * down, dtype), dtype), lanes) for r in range(rows)], loads

        sums = self._sums(terms, rows * len(masks), length)
        for number, total in enumerate(sums):
            r, v = divmod(number, len(masks))
            # Sums of pieces are added up, so that rounding errors grow with their number and length, not the product.
            before = e.load(goals[r][v], dtype, lanes, masks[v]) if more else None
            e.store(total if before is None else before + total, goals[r][v], masks[v])

    def _sums(
        self, terms: Callable[[str], tuple[list[Value], list[Value]]], count: int, length: int | str
    ) -> list[Value]:
        """The sums of the products of each number with each vector, in registers."""
        e = self.e
        head, before = e.new_label("tile"), e.block
        e.line(f"br label %{head}")
        e.label(head)
        at = len(e.lines)
        phis = [e.blank(self.dtype, self.lanes, f"%{head}.s{k}") for k in range(count)]
        numbers, vectors = terms(f"%{head}.i")
        products = [(x, y) for x in numbers for y in vectors]
        sums = [phi + x * y for phi, (x, y) in zip(phis, products, strict=True)]
        zero = e.constant(0.0, self.dtype, self.lanes)
        e.lines[at:at] = [f"  %{head}.i = phi i64 [0, %{before}], [%{head}.n, %{head}]"] + [
            line for phi, total in zip(phis, sums, strict=True) for line in e.phi(phi, [(zero, before), (total, head)])
        ]
        e.line(f"%{head}.n = add nuw nsw i64 %{head}.i, 1")
        again, end = e.index(f"icmp slt i64 %{head}.n, {length}"), e.new_label("end")
        e.line(f"br i1 {again}, label %{head}, label %{end}")
        e.label(end)
        return sums

    # positions

    def _repeated(self, count: int, body: Callable[[str], None]) -> None:
        if count == 1:
            body("0")
        elif count:
            self.e.counted(count, body)

    def _times(self, i: str, factor: int) -> str:
        if i == "0" or factor == 1:
            return i
        return self.e.index(f"mul nsw i64 {i}, {factor}")

    def _plus(self, i: str, shift: int) -> str:
        if i == "0" or shift == 0:
            return str(shift) if i == "0" else i
        return self.e.index(f"add nsw i64 {i}, {shift}")

    def _at(self, matrix: Matrix, row: str, column: str) -> str:
        """The address of an element."""
        pointer = self.e.offset(matrix.pointer, self._times(row, matrix.down), self.dtype)
        return self.e.offset(pointer, self._times(column, matrix.across), self.dtype)


def _rows(target: Target, vectors: int, m: int) -> int:
    """The rows of a tile: as many as there are registers for, if possible without a rest."""
    sums = 24 if target.vector_bits == 512 else 12
    most = min(sums // vectors, 16)
    if m <= most:
        return m
    return next((rows for rows in range(most, most // 2, -1) if m % rows == 0), most)
