"""The library of vector math: its functions by name, their IR, the compiled code, and a loop over NumPy arrays."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from functrace.backend import llvm
from functrace.backend.llvm import Library, Target
from functrace.backend.vmath import error_function, exponential, hyperbolic, inverse, logarithm, power, trigonometric
from functrace.backend.vmath.ir import Builder, Value, module_text

__all__ = ["BITS", "FUNCTIONS", "Function", "apply", "library", "library_ir", "loop", "symbol"]


@dataclass(frozen=True)
class Function:
    """A function of vectors.

    Args:
        name: NumPy's name.
        body: emits it.
        arity: the number of operands.
        single: whether float32 is computed as such, where multiplications are fused; else float32 goes through float64.
    """

    name: str
    body: Callable[..., Value]
    arity: int = 1
    single: bool = False


FUNCTIONS = {
    function.name: function
    for function in [
        Function("exp", exponential.exp, single=True),
        Function("exp2", exponential.exp2, single=True),
        Function("expm1", exponential.expm1, single=True),
        Function("log", logarithm.log, single=True),
        Function("log2", logarithm.log2, single=True),
        Function("log10", logarithm.log10, single=True),
        Function("log1p", logarithm.log1p, single=True),
        Function("sin", trigonometric.sin, single=True),
        Function("cos", trigonometric.cos, single=True),
        Function("tan", trigonometric.tan, single=True),
        Function("tanh", hyperbolic.tanh, single=True),
        Function("sinh", hyperbolic.sinh, single=True),
        Function("cosh", hyperbolic.cosh, single=True),
        Function("sigmoid", exponential.sigmoid, single=True),
        Function("arcsin", inverse.arcsin),
        Function("arccos", inverse.arccos),
        Function("arctan", inverse.arctan),
        Function("arctan2", inverse.arctan2, arity=2),
        Function("arcsinh", hyperbolic.arcsinh),
        Function("arccosh", hyperbolic.arccosh),
        Function("arctanh", hyperbolic.arctanh),
        Function("erf", error_function.erf),
        Function("erfc", error_function.erfc),
        Function("pow", power.power, arity=2),
        Function("cbrt", power.cbrt),
        Function("hypot", power.hypot, arity=2),
    ]
}
BITS = {np.dtype(np.float64): 64, np.dtype(np.float32): 32}


def symbol(name: str, bits: int) -> str:
    """What the function is called in machine code."""
    return f"ft_{name}_f{bits}"


def function_ir(function: Function, bits: int, target: Target) -> tuple[str, set[str]]:
    """The function of vectors of the target's width, and the intrinsics it declares."""
    b = outer = Builder(target, bits)
    operands = [Value(b, f"%x{k}", "f") for k in range(function.arity)]
    parameters = ", ".join(f"{b.type('f')} {x.name}" for x in operands)
    b.label("entry")
    if bits == 32 and not (function.single and target.fma):
        b = outer.following(64, 24)
        operands = [outer.converted(x, "fpext", b) for x in operands]
    result = function.body(b, *operands)
    if b is not outer:
        result = b.converted(result, "fptrunc", outer)
    head = f"define {outer.type('f')} @{symbol(function.name, bits)}({parameters}) #0 {{"
    return "\n".join([head, *outer.lines, f"  ret {outer.type('f')} {result.name}", "}"]), outer.declared


def loop_ir(function: Function, bits: int, target: Target) -> tuple[str, set[str]]:
    """`void name(ptr x, ..., ptr out, i64 n)`: the function over contiguous arrays, the last vector masked."""
    b = Builder(target, bits)
    t, mask, lanes, size = b.type("f"), b.type("m"), b.lanes, bits // 8
    name, pointers = symbol(function.name, bits), [f"%p{k}" for k in range(function.arity)]
    load, store = (f"@llvm.masked.{kind}.v{lanes}f{bits}.p0" for kind in ("load", "store"))
    declared = {
        f"declare {t} {load}(ptr, i32 immarg, {mask}, {t})",
        f"declare void {store}({t}, ptr, i32 immarg, {mask})",
    }

    def step(index: str, masked: bool) -> None:
        operands = []
        for pointer in [*pointers, "%out"]:
            place = b.fresh()
            b.line(f"{place} = getelementptr {b.scalar}, ptr {pointer}, i64 {index}")
            if pointer == "%out":
                break
            if masked:
                operands.append(
                    b.emit(f"call {t} {load}(ptr {place}, i32 {size}, {mask} %mask, {t} splat ({b.scalar} 1.0))", "f")
                )
            else:
                operands.append(b.emit(f"load {t}, ptr {place}, align {size}", "f"))
        result = b.emit(f"call {t} @{name}({', '.join(f'{t} {x.name}' for x in operands)})", "f")
        if masked:
            b.line(f"call void {store}({t} {result.name}, ptr {place}, i32 {size}, {mask} %mask)")
        else:
            b.line(f"store {t} {result.name}, ptr {place}, align {size}")

    index = f"<{lanes} x i64>"
    b.label("entry")
    b.line(f"%whole = and i64 %n, {-lanes}")
    b.line("%any = icmp ne i64 %whole, 0")
    b.line("br i1 %any, label %loop, label %rest")
    b.label("loop")
    b.line("%i = phi i64 [0, %entry], [%next, %loop]")
    step("%i", masked=False)
    b.line(f"%next = add i64 %i, {lanes}")
    b.line("%more = icmp ult i64 %next, %whole")
    b.line("br i1 %more, label %loop, label %rest")
    b.label("rest")
    b.line("%left = sub i64 %n, %whole")
    b.line("%done = icmp eq i64 %left, 0")
    b.line("br i1 %done, label %end, label %last")
    b.label("last")
    b.line(f"%first = insertelement {index} poison, i64 %left, i32 0")
    b.line(f"%lefts = shufflevector {index} %first, {index} poison, <{lanes} x i32> zeroinitializer")
    b.line(f"%mask = icmp ult {index} <{', '.join(f'i64 {k}' for k in range(lanes))}>, %lefts")
    step("%whole", masked=True)
    b.line("br label %end")
    b.label("end")
    b.line("ret void")
    parameters = ", ".join(f"ptr {pointer}" for pointer in pointers)
    return "\n".join([f"define void @loop_{name}({parameters}, ptr %out, i64 %n) #0 {{", *b.lines, "}"]), declared


def library_ir(target: Target, names: Sequence[str] | None = None, *, loops: bool = True) -> str:
    """The module as text.

    Args:
        target: the instruction set.
        names: which functions; all if not given.
        loops: whether to add the loops over arrays.

    Returns:
        LLVM IR that needs no other library.
    """
    texts, declared = [trigonometric.reduce_large_ir()], set()
    for name in FUNCTIONS if names is None else names:
        for bits in (64, 32):
            for emit in (function_ir, loop_ir) if loops else (function_ir,):
                text, intrinsics = emit(FUNCTIONS[name], bits, target)
                texts.append(text)
                declared |= intrinsics
    return module_text(target, declared, texts)


@functools.cache
def library(target: Target | None = None, names: tuple[str, ...] | None = None) -> Library:
    """The compiled library, for the host's best instruction set if no target is given."""
    target = target or llvm.target()
    return llvm.load(llvm.compile_ir(library_ir(target, names), target), target)


@functools.cache
def loop(name: str, bits: int, target: Target | None = None) -> Any:
    """The compiled `loop_` function, to be called with addresses and a length."""
    pointers = [ctypes.c_void_p] * (FUNCTIONS[name].arity + 1)
    return ctypes.CFUNCTYPE(None, *pointers, ctypes.c_int64)(library(target).address(f"loop_{symbol(name, bits)}"))


def apply(name: str, *operands: np.ndarray, out: np.ndarray | None = None, target: Target | None = None) -> np.ndarray:
    """The function of each element.

    Args:
        name: one of `FUNCTIONS`.
        operands: contiguous arrays of one shape and dtype, float64 or float32.
        out: where to write the result, if not into a new array.
        target: the instruction set, the host's best if not given.

    Returns:
        The result.

    Raises:
        ValueError: the arrays are of another dtype, not alike, or not contiguous.
    """
    first = operands[0]
    if first.dtype not in BITS:
        raise ValueError("the arrays must be float64 or float32")
    out = np.empty_like(first) if out is None else out
    for array in (*operands, out):
        if array.dtype != first.dtype or array.shape != first.shape or not array.flags.c_contiguous:
            raise ValueError("the arrays must be contiguous and of one shape and dtype")
    loop(name, BITS[first.dtype], target)(*(array.ctypes.data for array in (*operands, out)), first.size)
    return out
