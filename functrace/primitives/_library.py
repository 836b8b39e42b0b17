"""How contractions are compiled as calls of BLAS; see `core.lowering`.

`c` is the compiler's context. Arrays are strided; strides count elements. BLAS wants columns first, so a product of
matrices in rows is asked for transposed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from functrace.core.lowering import Call
from functrace.primitives import _moves

__all__ = ["contraction"]


def _merged(shape: Sequence[int], strides: Sequence[int]) -> int | None:
    """The stride of axes seen as one, None if they are none."""
    kept = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    for (_, outer), (n, inner) in itertools.pairwise(kept):
        if outer != n * inner:
            return None
    return kept[-1][1] if kept else 1


def _product(values: Sequence[int]) -> int:
    total = 1
    for value in values:
        total *= value
    return total


def _matrix(c: Any, x: Any, batch: Sequence[int], rows: Sequence[int], columns: Sequence[int]) -> tuple[Any, int, int]:
    """The operand as a stack of matrices that BLAS can read, its axes moved; with their strides."""
    for copied in (False, True):
        moved = c.permuted(x, (*batch, *rows, *columns))
        if copied:
            moved = c.contiguous(moved)
        b, r = len(batch), len(rows)
        down = _merged(moved.shape[b : b + r], moved.strides[b : b + r])
        across = _merged(moved.shape[b + r :], moved.strides[b + r :])
        if down is not None and across is not None and min(down, across) > 0:
            height, width = _product(moved.shape[b : b + r]), _product(moved.shape[b + r :])
            if 1 in (height, width) or (across == 1 and down >= width) or (down == 1 and across >= height):
                return moved, down, across
    raise AssertionError("a contiguous array is a matrix")


def _emit(c: Any, operands: list[Any], outs: list[Any], *, contract: Any, batch: Any) -> None:
    x, y = (c.materialise(o) for o in operands)
    (out,) = outs
    free_x = [a for a in range(len(x.shape)) if a not in contract[0] and a not in batch[0]]
    free_y = [a for a in range(len(y.shape)) if a not in contract[1] and a not in batch[1]]
    m, n = _product([x.shape[a] for a in free_x]), _product([y.shape[a] for a in free_y])
    k = _product([x.shape[a] for a in contract[0]])
    left, x_down, x_across = _matrix(c, x, batch[0], free_x, contract[0])
    right, y_down, y_across = _matrix(c, y, batch[1], contract[1], free_y)
    stack = [x.shape[a] for a in batch[0]]
    first, second = len(stack), len(stack) + len(free_x)
    goal_down = _merged(out.shape[first:second], out.strides[first:second])
    goal_across = _merged(out.shape[second:], out.strides[second:])
    goal = out
    if not _is_goal((m, n), goal_down, goal_across):
        goal, goal_down, goal_across = c.like(out), n, 1
    assert goal_down is not None and goal_across is not None

    def one(offsets: Sequence[str]) -> None:
        a = c.part(left, offsets), x_down, x_across
        b = c.part(right, offsets), y_down, y_across
        place = c.part(goal, offsets)
        if goal_across == 1 or n == 1:
            _multiply(c, out.dtype, (m, n, k), a, b, (place, goal_down, goal_across))
        else:
            # By columns: the product of the transposed operands, the other way round.
            turned = (b[0], y_across, y_down), (a[0], x_across, x_down)
            _multiply(c, out.dtype, (n, m, k), *turned, (place, goal_across, goal_down))

    c.over(stack, one)
    if goal is not out:
        c.copy(goal, out)


def _is_goal(sizes: tuple[int, int], down: int | None, across: int | None) -> bool:
    """Whether BLAS can write a matrix with these strides."""
    if down is None or across is None or min(down, across) <= 0:
        return False
    m, n = sizes
    return 1 in (m, n) or (across == 1 and down >= n) or (down == 1 and across >= m)


def _multiply(c: Any, dtype: Any, sizes: tuple[int, int, int], a: Any, b: Any, goal: Any) -> None:
    """A product of matrices, each an address and its strides; the goal lies in rows, or is a vector."""
    (m, n, k), (place, down, across) = sizes, goal
    if n == 1:
        _vector(c, dtype, (m, k), a, (b[0], b[1]), (place, down))
    elif m == 1:
        _vector(c, dtype, (n, k), (b[0], b[2], b[1]), (a[0], a[2]), (place, across))
    elif not c.gemm(dtype, sizes, a, b, goal):
        flag_a, lead_a = _layout(a[1], a[2], m, k)
        flag_b, lead_b = _layout(b[1], b[2], k, n)
        c.blas("gemm", dtype, flag_b, flag_a, n, m, k, 1.0, b[0], lead_b, a[0], lead_a, 0.0, place, down,
               flops=2.0 * m * n * k)  # fmt: skip


def _layout(down: int, across: int, rows: int, columns: int) -> tuple[str, int]:
    """How BLAS is told of a matrix in rows: "N" if it lies in rows, and the distance between rows or columns."""
    if across == 1 and (down >= columns or rows == 1):
        return "N", max(down, columns)
    if down == 1 and (across >= rows or columns == 1):
        return "T", max(across, rows)
    # One row or column of any stride.
    return ("T", max(across, 1)) if rows == 1 else ("N", max(down, 1))


def _vector(c: Any, dtype: Any, sizes: tuple[int, int], matrix: Any, vector: Any, goal: Any) -> None:
    """A matrix (rows, columns) times a vector."""
    (rows, columns), (a, down, across), (x, step), (y, apart) = sizes, matrix, vector, goal
    step, apart = max(step, 1), max(apart, 1)
    if c.matvec(dtype, (rows, columns), (a, down, across), (x, step), (y, apart)):
        return
    work = 2.0 * rows * columns
    flag, lead = _layout(down, across, rows, columns)
    if flag == "N":
        c.blas("gemv", dtype, "T", columns, rows, 1.0, a, lead, x, step, 0.0, y, apart, flops=work)
    else:
        c.blas("gemv", dtype, "N", rows, columns, 1.0, a, lead, x, step, 0.0, y, apart, flops=work)


def _suits(x: Any, y: Any, *, contract: Any, batch: Any) -> bool:
    return x.dtype.name in ("float32", "float64", "complex64", "complex128") and bool(x.size) and bool(y.size)


contraction = Call(_suits, _emit, True, True, _moves.by_vector)
