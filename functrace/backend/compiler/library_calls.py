"""Code that calls libraries on arrays in memory; part of the compiler's context."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from functrace.backend import blas_threads, symbols
from functrace.backend.compiler.emit import Unsupported
from functrace.backend.compiler.gemm import Matrix, emit_gemm
from functrace.backend.compiler.matvec import column_stride, emit_matvec
from functrace.backend.compiler.places import Buffer

if TYPE_CHECKING:
    from functrace.backend.compiler.context import Context

__all__ = ["LibraryCalls", "with_threads"]

_ALL, _ONE = "  ; the threads of BLAS: all", "  ; the threads of BLAS: one"
_PER_OPERATION = 10.0  # floating-point operations that BLAS does while other code works on one element
_LETTERS = {"float64": "d", "float32": "s", "complex128": "z", "complex64": "c"}


class LibraryCalls:
    """What calls of libraries are written in."""

    def kernel(self: Any, native: Any, buffers: Sequence[Buffer]) -> None:
        """A call of a user's compiled kernel on operands and result; where it raises, the code declines."""
        e = self.e
        position = len(e.objects)
        e.objects.append(native)
        table = e.fresh("table")
        self.prologue.append(f"  {table} = alloca [{len(buffers)} x ptr]")
        for k, buffer in enumerate(buffers):
            e.line(f"store ptr {buffer.start(e)}, ptr {e.pointer(f'getelementptr ptr, ptr {table}, i64 {k}')}")
        status = e.index(f"call i64 {e.symbol(f'native:{position}')}(ptr {table})")
        failed = e.index(f"icmp ne i64 {status}, 0")
        wrong, done = e.new_label("wrong"), e.new_label("done")
        e.line(f"br i1 {failed}, label %{wrong}, label %{done}")
        e.label(wrong)
        self.decline()
        e.line(f"br label %{done}")
        e.label(done)

    def matvec(self: Any, dtype: np.dtype, *operands: Any) -> bool:
        """The product of a small matrix and a vector, by code of its own; see `emit_matvec`."""
        return emit_matvec(self.e, dtype, *operands)

    def gemm(self: Any, dtype: np.dtype, sizes: tuple[int, int, int], *matrices: Any) -> bool:
        """The product of two matrices of middle size, by code of its own; see `emit_gemm`."""
        left, right, goal = (Matrix(*m) for m in matrices)
        done = emit_gemm(self.e, dtype, sizes, left, right, goal)
        if done:
            self.work += 2.0 * sizes[0] * sizes[1] * sizes[2] / _PER_OPERATION * self.repeats
        return done

    def by_columns(self: Any, matrix: Buffer, axis: int) -> Buffer | None:
        """A copy of a matrix in which the elements along an axis lie side by side and start where vectors do.

        None if its products with vectors, each element one of that axis, are not computed by code of our own.
        """
        rows, columns = matrix.shape[axis], matrix.shape[1 - axis]
        stride = column_stride(self.e.target, matrix.dtype, rows, columns)
        if stride is None:
            return None
        base = self.array((columns, stride), matrix.dtype)
        strides = (1, stride) if axis == 0 else (stride, 1)
        copy = Buffer(base.pointer, matrix.shape, matrix.dtype, strides)
        self.copy(matrix, copy)
        return copy

    def permuted(self: Any, buffer: Buffer, axes: Sequence[int]) -> Buffer:
        """The array with its axes in another order."""
        shape, strides = tuple([buffer.shape[a] for a in axes]), tuple([buffer.strides[a] for a in axes])
        return Buffer(buffer.pointer, shape, buffer.dtype, strides, buffer.offset)

    def part(self: Any, buffer: Buffer, positions: Sequence[str]) -> str:
        """The address of the part of an array at positions, registers, on its first axes."""
        pointer = buffer.start(self.e)
        for position, stride in zip(positions, buffer.strides, strict=False):
            step = self.e.index(f"mul nsw i64 {position}, {stride}")
            pointer = self.e.offset(pointer, step, buffer.dtype)
        return pointer

    def corner(self: Any, buffer: Buffer, rows: int, columns: int) -> Buffer:
        """The first rows and columns of a matrix."""
        return Buffer(buffer.pointer, (rows, columns), buffer.dtype, buffer.strides, buffer.offset)

    def over(self: Any, extents: Sequence[int], body: Callable[[list[str]], None]) -> None:
        """Loops over positions; the body is emitted once."""

        def level(positions: list[str]) -> None:
            if len(positions) == len(extents):
                body(positions)
            elif extents[len(positions)] == 1:
                level([*positions, "0"])
            else:
                self.e.counted(extents[len(positions)], lambda i: level([*positions, i]))

        if 0 not in extents:
            times = math.prod(extents)
            self.repeats *= times
            level([])
            self.repeats //= times

    def blas(
        self: Any, name: str, dtype: np.dtype, *arguments: Any, flops: float = 0.0, part: float | None = None
    ) -> None:
        """A call of a routine of BLAS or LAPACK without its letter for the type.

        Arguments are by reference: letters, integers and floats become constants; "%..." are addresses.

        Args:
            name: of the routine.
            dtype: gives the letter.
            arguments: in order.
            flops: an estimate of its work.
            part: that of the largest product in it, where it works in many steps that follow each other.
        """
        e = self.e
        routine = _LETTERS[dtype.name] + name
        bits = symbols.blas(routine)[1]
        pointers, letters = [], 0
        for argument in arguments:
            if isinstance(argument, str) and argument[0] in "%@":
                pointers.append(argument)
            elif isinstance(argument, str):
                pointers.append(e.constant_pointer("i8", str(ord(argument))))
                letters += 1
            elif isinstance(argument, int):
                pointers.append(e.constant_pointer(f"i{bits}", str(argument)))
            else:
                parts = e.constant(argument, dtype).parts or [e.constant(argument, dtype)]
                texts = [f"{part.type} {part.name}" for part in parts]
                pointers.append(e.constant_pointer(f"[{len(texts)} x {parts[0].type}]", f"[{', '.join(texts)}]"))
        # Fortran takes the lengths of letters after all arguments.
        listed = ", ".join([*(f"ptr {p}" for p in pointers), *["i64 1"] * letters])
        call = f"call void {e.symbol(f'blas:{routine}')}({listed})"
        self.work += flops / _PER_OPERATION * self.repeats
        if (flops if part is None else part) < blas_threads.SMALL:
            self.single_threaded |= flops > blas_threads.TINY
            e.line(call)
        else:
            self.threaded(lambda: e.line(call))

    def integers(self: Any, count: int) -> Buffer:
        """A new array of the integers of BLAS."""
        return self.array((count,), np.dtype(f"int{symbols.blas('dgetrf')[1]}"))

    def workspaces(self: Any, name: str, dtype: np.dtype, *arguments: Any) -> list[Buffer]:
        """New arrays for a routine of LAPACK to work in, as large as it says that is best.

        Args:
            name: without its letter for the type.
            dtype: gives the letter.
            arguments: in order: letters and integers; for workspaces their dtype, for their lengths -1; None for other
                arrays. An integer workspace has the dtype int64.
        """
        sizes = symbols.lapack_workspaces(_LETTERS[dtype.name] + name, *arguments)
        kinds = [a for a in arguments if isinstance(a, np.dtype)]
        return [
            self.integers(size) if kind.kind == "i" else self.array((size,), kind)
            for kind, size in zip(kinds, sizes, strict=True)
        ]

    def expect_zero(self: Any, info: Buffer) -> None:
        """Where a routine of LAPACK says that it failed, the code declines: NumPy says what is wrong."""
        e = self.e
        e.refuse(e.load(info.pointer, info.dtype) != 0)

    def fill_bytes(self: Any, pointer: str, count: int | str) -> None:
        """Sets bytes, a number or a register, to zero."""
        self.e.declare("void @llvm.memset.p0.i64(ptr, i8, i64, i1 immarg)")
        self.e.line(f"call void @llvm.memset.p0.i64(ptr {pointer}, i8 0, i64 {count}, i1 false)")

    def threaded(self: Any, emit: Callable[[], None]) -> None:
        """Code that BLAS may use all its threads in."""
        self.e.lines.append(_ALL)
        emit()
        self.e.lines.append(_ONE)

    def ufunc(self: Any, name: str, types: str, operands: Sequence[Buffer], outputs: Sequence[Buffer]) -> None:
        """A call of a ufunc's inner loop. Operands have the shape of the outputs or none.

        Raises:
            Unsupported: the loop cannot be reached here.
        """
        e, size = self.e, outputs[0].size
        if not symbols.available(f"ufunc:{name}:{types}"):
            raise Unsupported(f"{name} of {types}")
        if size == 0:
            return
        buffers = [*map(self.contiguous, operands), *outputs]
        count = len(buffers)
        table = e.fresh("table")
        self.prologue.append(f"  {table} = alloca [{count} x ptr]")
        for k, buffer in enumerate(buffers):
            place = e.pointer(f"getelementptr ptr, ptr {table}, i64 {k}")
            e.line(f"store ptr {buffer.start(e)}, ptr {place}")
        strides = [b.dtype.itemsize if b.size == size and size > 1 else 0 for b in buffers]
        steps = e.constant_pointer(f"[{count} x i64]", f"[{', '.join(f'i64 {s}' for s in strides)}]")
        length = e.constant_pointer("[2 x i64]", f"[i64 {size}, i64 0]")
        loop, data = e.symbol(f"ufunc:{name}:{types}"), e.symbol(f"ufuncdata:{name}:{types}")
        e.line(f"call void {loop}(ptr {table}, ptr {length}, ptr {steps}, ptr {data})")


def with_threads(context: Context) -> tuple[list[str], list[str]]:
    """Gives BLAS one thread from the function's start to its end, if that is worth it, but where it may use all.

    Returns:
        What the function starts with, and what stands before each return.
    """
    e = context.e
    wanted = context.single_threaded and symbols.available("blasthreads:enter")
    enter = leave = []
    if wanted:
        enter, leave = ([f"  call void {e.symbol(f'blasthreads:{kind}')}()"] for kind in ("enter", "leave"))
    replaced = {_ALL: leave, _ONE: enter}
    e.lines[:] = [line for text in e.lines for line in replaced.get(text, (text,))]
    return enter, leave
