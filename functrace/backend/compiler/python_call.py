"""Calls from compiled code into Python: a primitive's evaluation, on arrays where the compiled code has them."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.backend.compiler.context import Context
from functrace.backend.compiler.places import Buffer
from functrace.core.ir import Eqn
from functrace.core.trace import EVAL, reset_trace, set_trace

__all__ = ["emit_python_call"]


def emit_python_call(context: Context, eqn: Eqn, operands: Sequence[Buffer], outputs: Sequence[Buffer]) -> None:
    """Emits the call of an equation's evaluation."""
    e = context.e
    count = len(operands) + len(outputs)
    table = e.fresh("table")
    context.prologue.append(f"  {table} = alloca [{max(count, 1)} x ptr]")
    for k, buffer in enumerate((*operands, *outputs)):
        place = e.pointer(f"getelementptr ptr, ptr {table}, i64 {k}")
        e.line(f"store ptr {buffer.start(e)}, ptr {place}")
    function = _evaluation(eqn, list(operands), list(outputs))
    position = len(e.objects)
    e.objects.append(function)
    make, call, drop = map(e.symbol, ("python:PyLong_FromVoidPtr", "python:PyObject_CallOneArg", "python:Py_DecRef"))
    target = e.symbol(f"object:{position}")
    address = e.pointer(f"call ptr {make}(ptr {table})")
    result = e.fresh("result")
    context.threaded(lambda: e.line(f"{result} = call ptr {call}(ptr {target}, ptr {address})"))
    e.line(f"call void {drop}(ptr {address})")
    failed = e.index(f"icmp eq ptr {result}, null")
    on = e.new_label("done")
    e.line(f"br i1 {failed}, label %failed, label %{on}")
    e.label(on)
    e.line(f"call void {drop}(ptr {result})")
    context.uses_python = True


def _evaluation(eqn: Eqn, operands: list[Buffer], outputs: list[Buffer]) -> Callable[[int], None]:
    """A function of the address of the table of addresses."""
    primitive, params = eqn.primitive, eqn.params
    readers = [functools.partial(_array, buffer) for buffer in operands]
    writers = [functools.partial(_array, buffer) for buffer in outputs]
    inputs, multiple = len(operands), primitive.multiple
    pointers = ctypes.c_uint64 * max(len(operands) + len(outputs), 1)

    def evaluate(table: int) -> None:
        addresses = pointers.from_address(table)
        values = [read(addresses[k]) for k, read in enumerate(readers)]
        values = [v if v.ndim else v[()] for v in values]
        token = set_trace(EVAL)
        try:
            found = primitive.impl(*values, **params)
        finally:
            reset_trace(token)
        for k, (write, value) in enumerate(zip(writers, found if multiple else [found], strict=True)):
            write(addresses[inputs + k])[...] = value

    return evaluate


def _array(buffer: Buffer, address: int) -> np.ndarray:
    """The array at an address."""
    size = buffer.dtype.itemsize
    if buffer.contiguous:
        memory: Any = (ctypes.c_char * (math.prod(buffer.shape) * size)).from_address(address)
        return np.ndarray(buffer.shape, buffer.dtype, memory)
    least = sum((n - 1) * s for n, s in zip(buffer.shape, buffer.strides, strict=True) if s < 0)
    most = sum((n - 1) * s for n, s in zip(buffer.shape, buffer.strides, strict=True) if s > 0)
    memory = (ctypes.c_char * ((most - least + 1) * size)).from_address(address + least * size)
    strides = tuple([s * size for s in buffer.strides])
    return np.ndarray(buffer.shape, buffer.dtype, memory, -least * size, strides)


Evaluation = Callable[..., Any]
