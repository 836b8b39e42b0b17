"""Products of small matrices and vectors, as code of their own: a call of BLAS takes longer than they do.

A matrix in rows is taken eight rows at a time, each with a sum in a register. A matrix in columns is taken column by
column, the result in registers from the first to the last.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from functrace.backend.compiler.emit import Emitter, Value
from functrace.backend.llvm import Target

__all__ = ["column_stride", "emit_matvec"]

_ROWS = 8  # at a time
_VECTORS = 16  # in a row, at most
_TILE, _TILES = 8, 4  # vectors of the result in registers at a time, and how often
_COLUMNS = 4096  # at most
_SUMS = 16  # vectors of sums that do not wait for each other, where there are registers


def column_stride(target: Target, dtype: np.dtype, rows: int, columns: int) -> int | None:
    """How far apart the columns of a matrix should lie, each starting where a vector does; None if it is too large."""
    lanes = target.lanes(8 * dtype.itemsize)
    if dtype.kind != "f" or dtype.itemsize < 4 or min(rows, columns) < lanes:
        return None
    if rows > _TILES * _TILE * lanes or columns > _COLUMNS:
        return None
    return -(-rows // lanes) * lanes


def emit_matvec(
    e: Emitter,
    dtype: np.dtype,
    sizes: tuple[int, int],
    matrix: tuple[str, int, int],
    vector: tuple[str, int],
    goal: tuple[str, int],
) -> bool:
    """Emits y = A x, if it is small and lies well; whether it has.

    Args:
        sizes: rows and columns.
        matrix: address, and the strides of rows and columns.
        vector, goal: address and stride.
    """
    (rows, columns), (_, down, across) = sizes, matrix
    lanes = e.target.lanes(8 * dtype.itemsize)
    if min(sizes) < 2 or dtype.kind != "f":
        return False
    if across == 1 and vector[1] == 1 and columns <= _VECTORS * lanes and rows <= 64 * _ROWS:
        _by_rows(e, dtype, sizes, matrix, vector[0], goal)
        return True
    if down == 1 and goal[1] == 1 and rows <= _TILES * _TILE * lanes and columns <= _COLUMNS:
        for start in range(0, rows, _TILE * lanes):
            _by_columns(e, dtype, min(rows - start, _TILE * lanes), columns, start, matrix, vector, goal[0])
        return True
    return False


def _mask(lanes: int, count: int) -> str:
    return f"<{', '.join(f'i1 {str(k < count).lower()}' for k in range(lanes))}>"


def _by_rows(
    e: Emitter, dtype: np.dtype, sizes: tuple[int, int], matrix: tuple[str, int, int], x: str, goal: tuple[str, int]
) -> None:
    rows, columns = sizes
    a, down, _ = matrix
    y, apart = goal
    lanes = e.target.lanes(8 * dtype.itemsize)

    def block(first: str, count: int) -> None:
        starts = [e.offset(a, e.index(f"mul nsw i64 {_plus(e, first, r)}, {down}"), dtype) for r in range(count)]
        sums: list[Value | None] = [None] * count
        for j in range(0, columns, lanes):
            mask = None if j + lanes <= columns else _mask(lanes, columns - j)
            right = e.load(e.offset(x, j, dtype), dtype, lanes, mask)
            for r, start in enumerate(starts):
                term = e.load(e.offset(start, j, dtype), dtype, lanes, mask) * right
                total = sums[r]
                sums[r] = term if total is None else total + term
        for r, total in enumerate(sums):
            assert total is not None
            place = e.index(f"mul nsw i64 {_plus(e, first, r)}, {apart}")
            e.store(e.horizontal("add", total), e.offset(y, place, dtype))

    whole, rest = divmod(rows, _ROWS)
    if whole:
        e.counted(whole, lambda i: block(e.index(f"mul nsw i64 {i}, {_ROWS}"), _ROWS))
    if rest:
        block(str(whole * _ROWS), rest)


def _plus(e: Emitter, first: str, offset: int) -> str:
    return first if offset == 0 else e.index(f"add nsw i64 {first}, {offset}")


def _by_columns(
    e: Emitter,
    dtype: np.dtype,
    rows: int,
    columns: int,
    start: int,
    matrix: tuple[str, int, int],
    vector: tuple[str, int],
    y: str,
) -> None:
    a, _, across = matrix
    x, step = vector
    lanes = e.target.lanes(8 * dtype.itemsize)
    tiles = range(0, rows, lanes)
    masks = [None if t + lanes <= rows else _mask(lanes, rows - t) for t in tiles]

    def column(j: str) -> list[Value]:
        number = e.load(e.offset(x, e.index(f"mul nsw i64 {j}, {step}"), dtype), dtype)
        right = e.widened(number, lanes)
        place = e.offset(a, e.index(f"mul nsw i64 {j}, {across}"), dtype)
        loads = [e.load(e.offset(place, start + t, dtype), dtype, lanes, m) for t, m in zip(tiles, masks, strict=True)]
        return [load * right for load in loads]

    totals = _summed(e, column, columns, max(1, _SUMS // len(tiles)))
    for t, mask, total in zip(tiles, masks, totals, strict=True):
        e.store(total, e.offset(y, start + t, dtype), mask)


def _summed(e: Emitter, terms: Callable[[str], list[Value]], count: int, ways: int) -> list[Value]:
    """The sums of terms over a counted loop, in registers: several sums of each, which do not wait for each other."""
    ways = min(ways, count)
    parts = [terms(str(k)) for k in range(ways)]
    start = ways
    whole = (count - start) // ways
    if whole > 1:
        parts = _loop_of_sums(e, terms, parts, start, whole)
        start += whole * ways
    for k in range(start, count):
        part = parts[(k - start) % ways]
        part[:] = [total + term for total, term in zip(part, terms(str(k)), strict=True)]
    while len(parts) > 1:
        half = (len(parts) + 1) // 2
        for part, other in zip(parts[: len(parts) - half], parts[half:], strict=True):
            part[:] = [total + more for total, more in zip(part, other, strict=True)]
        parts = parts[:half]
    return parts[0]


def _loop_of_sums(
    e: Emitter, terms: Callable[[str], list[Value]], parts: list[list[Value]], start: int, times: int
) -> list[list[Value]]:
    """The sums after `times` more terms of each, from `start` on."""
    together = len(parts)
    head, before = e.new_label("columns"), e.block
    e.line(f"br label %{head}")
    e.label(head)
    at = len(e.lines)
    entering = [[e.blank(v.dtype, v.lanes, f"%{head}.s{w}.{k}") for k, v in enumerate(p)] for w, p in enumerate(parts)]
    leaving = [list(part) for part in entering]
    for k, part in enumerate(leaving):
        part[:] = [total + term for total, term in zip(part, terms(_plus(e, f"%{head}.i", k)), strict=True)]
    phis = [f"  %{head}.i = phi i64 [{start}, %{before}], [%{head}.n, %{e.block}]"]
    for goals, firsts, lasts in zip(entering, parts, leaving, strict=True):
        for goal, first, last in zip(goals, firsts, lasts, strict=True):
            phis += e.phi(goal, [(first, before), (last, e.block)])
    e.lines[at:at] = phis
    e.line(f"%{head}.n = add nuw nsw i64 %{head}.i, {together}")
    more, end = e.index(f"icmp slt i64 %{head}.n, {start + times * together}"), e.new_label("end")
    e.line(f"br i1 {more}, label %{head}, label %{end}")
    e.label(end)
    return leaving
