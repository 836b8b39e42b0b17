"""Calls between Numba's code and other machine code by address, in both directions."""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.backend.kernels import exponentials
from functrace.core.types import ShapedArray

__all__ = ["NativeKernel", "install_exponential", "kernel_address"]


def _loop_call() -> Any:
    """`call(address, array, start, count)` for Numba's code: the loop `void f(ptr in, ptr out, i64 n)` in place."""
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic
    from numba.np.arrayobj import make_array

    def call(typing_context: Any, address: Any, array: Any, start: Any, count: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = make_array(signature.args[1])(context, builder, args[1]).data
            pointer, word = ir.IntType(8).as_pointer(), ir.IntType(64)
            loop = ir.FunctionType(ir.VoidType(), [pointer, pointer, word]).as_pointer()
            first = builder.bitcast(builder.gep(data, [args[2]]), pointer)
            builder.call(builder.inttoptr(args[0], loop), [first, first, args[3]])
            return context.get_dummy_value()

        return types.void(types.intp, array, types.intp, types.intp), generate

    return intrinsic(call)


@functools.cache
def install_exponential() -> None:
    """Give the kernels of `exponentials` their exponential, and make callable what they call."""
    import numba

    exponentials.exponential = _loop_call()
    exponentials.largest, exponentials.total = numba.njit(exponentials.largest), numba.njit(exponentials.total)


#: What a kernel called by address returns.
DONE, RAISED, OTHER_RESULT = 0, 1, 2


class NativeKernel:
    """A Numba kernel for arguments of fixed types, as a C function; see `functrace.extend.kernel_address`.

    Attributes:
        address: of `int64_t kernel(void **pointers)`. The pointers lead to the C-contiguous data of the arguments and
            then to that of the result. It returns 0; 1 when the kernel raised, 2 when its result has another shape:
            then nothing is written, and the kernel called as a Python function gives the user's error. Needs no GIL.
        arguments, result: their types.
    """

    def __init__(self, compiled: Any, arguments: tuple[ShapedArray, ...], result: ShapedArray) -> None:
        self._compiled = compiled  # the code lives as long as this object
        self.address: int = compiled.address
        self.arguments, self.result = arguments, result

    def __call__(self, *args: Any) -> Any:
        """Call by address, as compiled programs do.

        Raises:
            RuntimeError: the kernel raised, or its result has another shape.
        """
        values = [np.ascontiguousarray(a, aval.dtype) for a, aval in zip(args, self.arguments, strict=True)]
        if shapes := [v.shape for v, aval in zip(values, self.arguments, strict=True) if v.size != aval.size]:
            raise RuntimeError(f"arguments of other sizes than the kernel was compiled for: {shapes}")
        out = np.empty(self.result.shape, self.result.dtype)
        pointers = (ctypes.c_void_p * (len(values) + 1))(*[v.ctypes.data for v in values], out.ctypes.data)
        status = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(self.address)(ctypes.addressof(pointers))
        if status != DONE:
            raise RuntimeError("the kernel raised" if status == RAISED else "the kernel's result has another shape")
        return out if out.ndim else out[()]


def kernel_address(
    kernel: Callable[..., Any], arguments: Sequence[ShapedArray], result: ShapedArray
) -> NativeKernel | None:
    """A Numba kernel as a C function for programs compiled elsewhere, which call it by its address.

    Args:
        kernel: a function compiled by `numba.njit`, or a plain one that it can compile. It gets arrays (C-contiguous,
            which it must not write to) and, for arguments of shape (), numbers; and returns one array or number.
        arguments: the types of its arguments.
        result: the type of its result.

    Returns:
        The native kernel, compiled once per kernel and types and alive until the process ends; None where Numba cannot
        compile it for these types or its result has another dtype, so that it has to be called as a Python function.

    Example:
        >>> import numba
        >>> import numpy as np
        >>> from functrace.extend import ShapedArray, kernel_address
        >>> @numba.njit
        ... def weighted(x, a):
        ...     return a * x
        >>> vector, number = ShapedArray((3,), np.dtype(float)), ShapedArray((), np.dtype(float))
        >>> native = kernel_address(weighted, [vector, number], vector)
        >>> native(np.array([1.0, 2.0, 3.0]), 2.0)
        array([2., 4., 6.])
    """
    key = kernel, tuple(arguments), result
    with _making:
        if key not in _native:
            try:
                _native[key] = NativeKernel(_c_function(*key), *key[1:])
            except Exception:  # Numba's errors have no common ground; the Python way shows the user's own
                _native[key] = None
        return _native[key]


_making = threading.RLock()
_native: dict[Any, NativeKernel | None] = {}


def _c_function(kernel: Callable[..., Any], arguments: tuple[ShapedArray, ...], result: ShapedArray) -> Any:
    """The kernel behind a C function that finds its operands through pointers.

    The wrapper's source consists of identifiers made here; kernel, shapes and dtypes are bound, not written.
    """
    import numba
    from numba.np.numpy_support import carray, from_dtype

    bound: dict[str, Any] = {
        "kernel": kernel if hasattr(kernel, "py_func") else numba.njit(kernel),
        "carray": carray,
        "view": _pointed_at(),
        "out_shape": result.shape,
        "out_size": (max(result.size, 1),),
        "out_dtype": result.dtype,
        "check": _of_dtype(from_dtype(result.dtype)),
    }
    lines, names = [], []
    for k, aval in enumerate(arguments):
        bound[f"shape{k}"], bound[f"dtype{k}"] = aval.shape or (1,), aval.dtype
        lines.append(f"        x{k} = carray(view(pointers, {k}), shape{k}, dtype{k})")
        names.append(f"x{k}" if aval.shape else f"x{k}[0]")
    lines += [f"        out = kernel({', '.join(names)})", "        check(out)"]
    if result.shape:
        lines += [
            "        if out.shape != out_shape:",
            f"            return {OTHER_RESULT}",
            f"        target = carray(view(pointers, {len(arguments)}), out_size, out_dtype)",
            "        k = 0",
            "        for value in out.flat:",
            "            target[k] = value",
            "            k += 1",
        ]
    else:
        lines.append(f"        carray(view(pointers, {len(arguments)}), out_size, out_dtype)[0] = out")
    head = ["def run(pointers):", "    try:"]
    tail = ["    except Exception:", f"        return {RAISED}", f"    return {DONE}"]
    exec("\n".join([*head, *lines, *tail]), bound)
    return numba.cfunc(numba.types.int64(numba.types.voidptr))(bound["run"])


def _of_dtype(expected: Any) -> Any:
    """`check(value)` for Numba's code: does nothing for values of that dtype, does not compile for others."""
    from numba import types
    from numba.extending import intrinsic

    def check(typing_context: Any, value: Any) -> Any:
        if getattr(value, "dtype", value) != expected:
            return None
        return types.void(value), lambda context, builder, signature, args: context.get_dummy_value()

    return intrinsic(check)


@functools.cache
def _pointed_at() -> Any:
    """`view(pointers, k)` for Numba's code: the k-th of an array of pointers."""
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    def view(typing_context: Any, pointers: Any, position: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointer = ir.IntType(8).as_pointer()
            table = builder.bitcast(args[0], pointer.as_pointer())
            return builder.load(builder.gep(table, [args[1]]))

        return types.voidptr(types.voidptr, types.intp), generate

    return intrinsic(view)
