"""From a jaxpr to a module of LLVM IR, and to machine code that can be called."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from functrace.backend import llvm, symbols
from functrace.backend.compiler.chunks import CHUNK, VERY_LONG
from functrace.backend.compiler.context import Context
from functrace.backend.compiler.emit import Emitter
from functrace.backend.compiler.execute import emit_program
from functrace.backend.compiler.inline import prepare
from functrace.backend.compiler.library_calls import with_threads
from functrace.backend.compiler.places import Buffer
from functrace.backend.compiler.python_call import emit_python_call
from functrace.backend.llvm import Target
from functrace.core.ir import Jaxpr

__all__ = ["Kernel", "Module", "compile_module", "description", "load_described", "load_module", "prepare"]

_NAMES = "kernel", "table_address"  # functions that are called from outside
_LONG = 1e5  # element operations: about 50 microseconds


@dataclass
class Module:
    """A program as LLVM IR.

    Args:
        text: the IR; its function is `i64 kernel_...(ptr pointers)`, see `functrace.backend.dispatcher`.
        symbols: names of functions outside, in the order of the module's table.
        objects: Python objects that the code refers to, by "object:k" in `symbols`.
        workspace: bytes.
        uses_python: whether it calls Python, so that it must hold the interpreter's lock.
        report: the steps, in order.
        opt: how hard the code generator is to try, 0 to 3.
        suffix: what the names of its functions end with.
    """

    text: str
    symbols: list[str]
    objects: list[Any]
    workspace: int
    uses_python: bool
    work: float
    report: list[Any] = field(default_factory=list)
    opt: int = 2
    suffix: str = ""


@dataclass
class Kernel:
    """Machine code in this process.

    Args:
        address: of its function.
        workspace: bytes.
        long: whether other threads should run Python meanwhile.
        keep: what has to stay alive for it.
    """

    address: int
    workspace: int
    long: bool
    keep: Any


def compile_module(jaxpr: Jaxpr, bound: int = 0, target: Target | None = None) -> Module:
    """The module of a prepared program, whose inputs and outputs are arrays in memory.

    Args:
        jaxpr: without constvars.
        bound: the number of inputs, the first ones, that are constants.
        target: the instruction set.

    Raises:
        Unsupported: something has no code.
    """
    target = target or llvm.target()
    e = Emitter(target)
    context = Context(e, emit_python_call, emit_program)
    head = ["define i64 @kernel(ptr %pointers) #0 {", "entry:"]

    def pointer(k: int) -> str:
        name = e.fresh("arg")
        head.append(f"  {name}.at = getelementptr ptr, ptr %pointers, i64 {k}")
        head.append(f"  {name} = load ptr, ptr {name}.at")
        return name

    pointers = [e.symbol(f"constant:{k}") for k in range(bound)]
    count = len(jaxpr.invars) - bound
    pointers += [pointer(k) for k in range(count)]
    inputs = [Buffer(p, v.aval.shape, v.aval.dtype) for p, v in zip(pointers, jaxpr.invars, strict=True)]
    outputs = [Buffer(pointer(count + k), a.aval.shape, a.aval.dtype) for k, a in enumerate(jaxpr.outvars)]
    emit_program(context, jaxpr, inputs, outputs)
    enter, leave = with_threads(context)
    if context.workspace:
        head.append(f"  %arena.at = getelementptr ptr, ptr %pointers, i64 {count + len(outputs)}")
        head.append("  %arena = load ptr, ptr %arena.at")
    for place in e.symbols.values():
        at = f"getelementptr ([{len(e.symbols)} x ptr], ptr @table, i64 0, i64 {place})"
        head.append(f"  %sym{place} = load ptr, ptr {at}")
    loads, places = head[2:], [line for line in context.prologue if "ptr %arena" in line]
    head += enter
    tail = [*leave, "  ret i64 0"]
    if e.guards or context.chunks:
        head += ["  %guard = alloca i8", "  store i8 0, ptr %guard"]
        tail = [
            *leave,
            "  %failures = load i8, ptr %guard",
            "  %status = zext i8 %failures to i64",
            "  ret i64 %status",
        ]
    if context.uses_python:
        tail += ["failed:", *leave, "  ret i64 1"]
    quick = len(context.chunks) * CHUNK >= VERY_LONG
    parts = [
        f"@table = internal global [{max(len(e.symbols), 1)} x ptr] zeroinitializer",
        *e.globals,
        *sorted(e.declared),
        "define ptr @table_address() #0 {",
        "  ret ptr @table",
        "}",
        *[line for piece in context.pieces for line in piece.text([*loads, *places])],
        *[line for chunk in context.chunks for line in chunk.text(max(len(e.symbols), 1), "#1" if quick else "#0")],
        *head,
        *context.prologue,
        *e.lines,
        *tail,
        "}",
        # Registers that are written to memory around calls then do so in one line of the cache.
        f'attributes #0 = {{ "stackrealign" {llvm.attributes(target)} }}',
        f"attributes #1 = {{ {llvm.attributes(target)} noinline optnone }}",
    ]
    text = "\n".join(parts) + "\n"
    # Names of its own let the code share a library with others.
    suffix = hashlib.sha256(text.encode()).hexdigest()[:24]
    for name in _NAMES:
        text = text.replace(f" @{name}(", f" @{name}_{suffix}(", 1)
    return Module(
        text,
        list(e.symbols),
        e.objects,
        context.workspace,
        context.uses_python,
        context.work,
        context.report,
        # Loops and calls beside the long line deserve full effort; a line that is all there is does without.
        0 if quick and not context.report else 2,
        suffix,
    )


def load_module(module: Module, code: bytes, constants: Sequence[np.ndarray], target: Target | None = None) -> Kernel:
    """Links machine code of a module into this process."""
    long = not module.uses_python and module.work > _LONG
    return _linked(code, module.suffix, module.symbols, module.objects, constants, module.workspace, long, target)


def description(module: Module) -> dict[str, Any] | None:
    """What another process has to know to link the module's code, as plain data; None if that is not enough."""
    if module.objects:
        return None
    long = not module.uses_python and module.work > _LONG
    return {"suffix": module.suffix, "symbols": module.symbols, "workspace": module.workspace, "long": long}


def load_described(code: bytes, described: dict[str, Any], constants: Sequence[np.ndarray], target: Target) -> Kernel:
    """Links machine code with its description into this process."""
    names, workspace, long = described["symbols"], described["workspace"], described["long"]
    return _linked(code, described["suffix"], names, [], constants, workspace, long, target)


def _linked(
    code: bytes,
    suffix: str,
    names: Sequence[str],
    objects: list[Any],
    constants: Sequence[np.ndarray],
    workspace: int,
    long: bool,
    target: Target | None,
) -> Kernel:
    kernel, table = [f"{name}_{suffix}" for name in _NAMES]
    library = llvm.load(code, target or llvm.target(), [kernel, table])
    addresses = []
    for name in names:
        if name.startswith("object:"):
            addresses.append(id(objects[int(name[7:])]))
        elif name.startswith("native:"):
            addresses.append(objects[int(name[7:])].address)
        elif name.startswith("data:"):
            addresses.append(objects[int(name[5:])].ctypes.data)
        elif name.startswith("constant:"):
            addresses.append(constants[int(name[9:])].ctypes.data)
        else:
            addresses += symbols.resolve([name])
    if addresses:
        function: Callable[[], int] = ctypes.CFUNCTYPE(ctypes.c_void_p)(library.address(table))
        (ctypes.c_uint64 * len(addresses)).from_address(function())[:] = addresses  # type: ignore[assignment]
    return Kernel(library.address(kernel), workspace, long, (library, objects, list(constants)))
