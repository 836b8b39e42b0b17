"""The library of vector math: its functions by name, their IR, the compiled code, and a loop over NumPy arrays.

Each function has three entry points: of a vector, of one number, and a loop over arrays, for float64 and float32. Each
of these is a module of its own, compiled when first asked for and kept on disk.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from functrace.backend import disk_cache, llvm
from functrace.backend.llvm import Target
from functrace.backend.vmath import error_function, exponential, hyperbolic, inverse, logarithm, power, trigonometric
from functrace.backend.vmath.ir import Builder, Value, module_text

__all__ = [
    "BITS",
    "ENTRIES",
    "FUNCTIONS",
    "Function",
    "address",
    "apply",
    "entry_ir",
    "function_ir",
    "library_ir",
    "loop",
    "loop_symbol",
    "scalar_symbol",
    "symbol",
]


class Function(NamedTuple):
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
    """What the function of vectors is called in machine code: `<n x double> ft_exp_f64(<n x double>)`."""
    return f"ft_{name}_f{bits}"


def scalar_symbol(name: str, bits: int) -> str:
    """What the function of one number is called: `double ft_exp_f64_scalar(double)`."""
    return f"ft_{name}_f{bits}_scalar"


def loop_symbol(name: str, bits: int) -> str:
    """What the loop over arrays is called: `void loop_ft_exp_f64(ptr x, ptr out, i64 n)`."""
    return f"loop_ft_{name}_f{bits}"


# All entry points by symbol: the function, the bits, and which of the three it is.
ENTRIES = {
    named(name, bits): (function, bits, kind)
    for name, function in FUNCTIONS.items()
    for bits in (64, 32)
    for kind, named in (("vector", symbol), ("scalar", scalar_symbol), ("loop", loop_symbol))
}


def function_ir(function: Function, bits: int, target: Target, *, scalar: bool = False) -> tuple[str, set[str]]:
    """The function of vectors of the target's width, or of one number, and the intrinsics it declares.

    That of one number is that of vectors of one; it may differ in the last bit, as its polynomials are summed in
    another order.
    """
    b = outer = Builder(target, bits, lanes=1 if scalar else None)
    t = outer.scalar if scalar else outer.type("f")
    name = (scalar_symbol if scalar else symbol)(function.name, bits)
    parameters = ", ".join(f"{t} %x{k}" for k in range(function.arity))
    b.label("entry")
    operands = [Value(b, f"%x{k}", "f") for k in range(function.arity)]
    if scalar:
        operands = [b.emit(f"insertelement <1 x {t}> poison, {t} {x.name}, i32 0", "f") for x in operands]
    if bits == 32 and not (function.single and target.fma):
        b = outer.following(64, 24)
        operands = [outer.converted(x, "fpext", b) for x in operands]
    result = function.body(b, *operands)
    if b is not outer:
        result = b.converted(result, "fptrunc", outer)
    if scalar:
        result = outer.emit(f"extractelement <1 x {t}> {result.name}, i32 0", "f")
    head = f"define {t} @{name}({parameters}) #0 {{"
    return "\n".join([head, *outer.lines, f"  ret {t} {result.name}", "}"]), outer.declared


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
    """One module of many functions as text.

    Args:
        target: the instruction set.
        names: which functions; all if not given.
        loops: whether to add the loops over arrays.

    Returns:
        LLVM IR that needs no other library.
    """
    emitted = []
    for name in FUNCTIONS if names is None else names:
        for bits in (64, 32):
            emitted.append(function_ir(FUNCTIONS[name], bits, target))
            emitted.append(function_ir(FUNCTIONS[name], bits, target, scalar=True))
            if loops:
                emitted.append(loop_ir(FUNCTIONS[name], bits, target))
    return closed_module(target, emitted)


def entry_ir(entry: str, target: Target) -> str:
    """The module of one entry point as text: LLVM IR that needs no other library."""
    function, bits, kind = ENTRIES[entry]
    emitted = [function_ir(function, bits, target, scalar=kind == "scalar")]
    if kind == "loop":
        text, declared = emitted[0]
        emitted = [(text.replace("define ", "define internal ", 1), declared), loop_ir(function, bits, target)]
        # A name of its own: what is linked later would else be found in place of the function of that name.
        name = symbol(function.name, bits)
        emitted = [(text.replace(f"@{name}(", f"@{name}_in_loop("), declared) for text, declared in emitted]
    return closed_module(target, emitted)


def closed_module(target: Target, emitted: Sequence[tuple[str, set[str]]]) -> str:
    """Functions and what they declare as a module, with the slow path of the circular functions if they call it."""
    texts = [text for text, _ in emitted]
    if any(trigonometric.REDUCE_LARGE in text for text in texts):
        texts.insert(0, trigonometric.reduce_large_ir())
    return module_text(target, set().union(*(declared for _, declared in emitted)), texts)


# The compiled entry points


def address(entry: str, target: Target | None = None) -> int:
    """Where an entry point is, compiled and loaded if it was not yet; it stays there until the process ends.

    Args:
        entry: one of `ENTRIES`.
        target: the instruction set, the host's best if not given.

    Returns:
        The address.

    Raises:
        KeyError: there is no such entry point.
    """
    return loaded(entry, target or llvm.target())


@functools.cache
def loaded(entry: str, target: Target) -> int:
    if entry not in ENTRIES:
        raise KeyError(entry)
    library = llvm.resident(
        target, entry, lambda: disk_cache.object_code(entry, target, lambda: entry_ir(entry, target))
    )
    return library.address(entry)


@functools.cache
def loop(name: str, bits: int, target: Target | None = None) -> Any:
    """The compiled loop over arrays, to be called with addresses and a length."""
    pointers = [ctypes.c_void_p] * (FUNCTIONS[name].arity + 1)
    return ctypes.CFUNCTYPE(None, *pointers, ctypes.c_int64)(address(loop_symbol(name, bits), target))


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
