"""Calls compiled programs from Python in 0.1 microseconds: arguments checked, results allocated, the kernel run.

A *signature* says which arguments a compiled program takes and what it returns: exact types, dtypes, shapes. A
`Dispatcher` is a callable with a list of signatures, each with its kernel, the newest first. A call that fits a
signature runs its kernel; every other (another type or shape, a subclass, swapped bytes, a view that is not
contiguous, a keyword) goes to the *fallback*, any Python callable, with the arguments as they came.

A *kernel* is machine code `int64 kernel(void **pointers)`. The pointers are those to the arguments' data, the outputs'
data and the workspace (64-byte aligned; null if none was asked for). It returns 0; anything else means that it has not
computed: a Python exception it has set is raised, and without one the call goes to the fallback.

There are two implementations with one meaning: the native one (`dispatch_ir.py`) reads objects' fields where CPython
and NumPy keep them, so it is used only where a self-test finds all of them in place; the portable one uses ctypes.
"""

from __future__ import annotations

import ctypes
import functools
import operator
import os
import platform
import sys
import threading
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from functrace.backend import disk_cache, llvm
from functrace.backend.dispatch_ir import (
    DISPATCH,
    ECHO,
    FIELDS,
    FUNCTIONS,
    RELEASE_GIL,
    RELEASE_WORKSPACES,
    TABLE,
    TABLE_FUNCTION,
    TUPLE,
    dispatcher_ir,
)
from functrace.backend.signatures import NUMBERS, Argument, Output, Signature

__all__ = [
    "Dispatcher",
    "make_dispatcher",
    "native_refusal",
    "release_workspaces",
]


Fallback = Callable[..., Any]
_LARGEST = 1000  # arguments and outputs of a native call, whose pointers lie on the stack


class Dispatcher:
    """A callable that runs the kernel whose signature the arguments fit, and else the fallback."""

    __slots__ = ()
    native: ClassVar[bool]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def add_signature(self, signature: Signature, kernel: int, keep: Any = None) -> None:
        """Serves this signature too, from now on; among equal ones the newest wins.

        Args:
            signature: what the kernel takes and gives.
            kernel: its address.
            keep: whatever must stay alive as long as the kernel may be called, such as its loaded code.
        """
        raise NotImplementedError

    def __reduce__(self) -> Any:
        raise TypeError("a dispatcher holds addresses of machine code: it can be neither pickled nor copied")


def make_dispatcher(
    signature: Signature, kernel: int, fallback: Fallback, *, keep: Any = None, portable: bool = False
) -> Dispatcher:
    """Computes a callable that runs `kernel` for arguments that fit `signature`, and `fallback` for all others.

    Args:
        signature: what the kernel takes and gives.
        kernel: address of `int64 kernel(void **pointers)`; see the head of this module.
        fallback: called with the arguments as they came; may be another dispatcher.
        keep: whatever must stay alive as long as the kernel may be called.
        portable: use the implementation in Python also where the native one works.

    Returns:
        The dispatcher. Its bound method `dispatcher.__call__` is a builtin and saves 20 ns a call more.
    """
    native = None if portable else _native().type
    dispatcher = PortableDispatcher(fallback) if native is None else native(fallback)
    dispatcher.add_signature(signature, kernel, keep)
    return dispatcher


def native_refusal() -> str | None:
    """Why the native dispatcher is not used here; None where it is."""
    return _native().refusal


def release_workspaces() -> int:
    """Lets go of the memory that is kept for the workspaces of calls to come; gives how many bytes it was."""
    native = _native().type
    return 0 if native is None else native._release()


def _workspace_limit() -> int:
    """The most bytes of workspaces that are kept: a sixteenth of the memory, at most a gigabyte."""
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**26
    return int(min(max(physical // 16, 2**26), 2**30))


# The portable implementation.

_CallKernel = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)  # holds the GIL and raises what the kernel has set
_adding = threading.RLock()


class _Entry:
    """A signature and its kernel, called through ctypes."""

    __slots__ = ("accepts", "keep", "kernel", "pointers", "signature")

    def __init__(self, signature: Signature, kernel: int, keep: Any) -> None:
        self.signature, self.keep = signature, keep
        self.accepts = [argument.accepts for argument in signature.arguments]
        self.kernel = _CallKernel(kernel)
        self.pointers = ctypes.c_void_p * (len(signature.arguments) + len(signature.outputs) + 1)

    def fits(self, args: tuple[Any, ...]) -> bool:
        return len(args) == len(self.accepts) and all(map(operator.call, self.accepts, args))

    def run(self, args: tuple[Any, ...]) -> tuple[int, Any]:
        """The kernel's status and the result."""
        signature = self.signature
        inputs = [
            value if argument.kind is np.ndarray else np.array(value, argument.dtype)
            for argument, value in zip(signature.arguments, args, strict=True)
        ]
        outputs = [np.empty(output.shape, output.dtype) for output in signature.outputs]
        addresses = [_address(buffer) for buffer in (*inputs, *outputs)]
        if signature.workspace:
            workspace = np.empty(signature.workspace + 63, np.uint8)
            addresses.append((_address(workspace) + 63) & -64)
        status = self.kernel(self.pointers(*addresses))
        results = [
            buffer[()] if output.scalar else buffer for buffer, output in zip(outputs, signature.outputs, strict=True)
        ]
        return status, tuple(results) if signature.gives_tuple else results[0]


def _address(buffer: np.ndarray[Any, Any]) -> int:
    if buffer.nbytes and buffer.flags.writeable:  # the quick way: NumPy's takes microseconds
        return ctypes.addressof(ctypes.c_char.from_buffer(buffer.data))
    return int(buffer.__array_interface__["data"][0])


class PortableDispatcher(Dispatcher):
    """The meaning of a dispatcher, in Python; used where the native one is not, and to test it."""

    __slots__ = ("__weakref__", "_entries", "_fallback")
    native = False

    def __init__(self, fallback: Fallback) -> None:
        self._entries: tuple[_Entry, ...] = ()
        self._fallback = fallback

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not kwargs:
            for entry in self._entries:
                if entry.fits(args):
                    status, result = entry.run(args)
                    if status == 0:
                        return result
        return self._fallback(*args, **kwargs)

    def add_signature(self, signature: Signature, kernel: int, keep: Any = None) -> None:
        entry = _Entry(signature, kernel, keep)
        with _adding:
            self._entries = (entry, *self._entries)


# The native implementation.


class _NativeBase(Dispatcher):
    """Without `__call__`, which is machine code and added when it is there.

    `_head` is None or an entry: a tuple of its words, the next older entry and what it keeps alive. Entries are
    immutable, so a call that is under way in another thread never sees half of one.
    """

    __slots__ = ("__weakref__", "_fallback", "_head")
    native = True
    _fallback: Fallback
    _head: tuple[bytes, Any, Any] | None
    _release: ClassVar[Callable[[], int]]

    def __new__(cls, fallback: Fallback) -> _NativeBase:
        self = super().__new__(cls)
        self._fallback, self._head = fallback, None
        return self

    def add_signature(self, signature: Signature, kernel: int, keep: Any = None) -> None:
        if len(signature.arguments) + len(signature.outputs) > _LARGEST:
            with _adding:
                self._fallback = make_dispatcher(signature, kernel, self._fallback, keep=keep, portable=True)
            return
        words = _words(signature, kernel)
        with _adding:
            self._head = (words, self._head, keep)


_KINDS: dict[type[Any], int] = {np.ndarray: 0, int: 2, bool: 3}  # the others, 1: the number lies in the object


def _words(signature: Signature, kernel: int) -> bytes:
    """The signature as the native code reads it; dtypes and types are this module's own, which live for ever."""
    flags = RELEASE_GIL * signature.release_gil | TUPLE * signature.gives_tuple
    words = [len(signature.arguments), len(signature.outputs), kernel, flags, signature.workspace]
    for argument in signature.arguments:
        kind, shape = _KINDS.get(argument.kind, 1), argument.shape
        words += [kind, id(argument.kind), id(argument.dtype), len(shape), *shape]
    for output in signature.outputs:
        words += [int(output.scalar), 0, id(output.dtype), len(output.shape), *output.shape]
    return array("Q", words).tobytes()


class _MethodDefinition(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


_FASTCALL_KEYWORDS = 0x0080 | 0x0002  # METH_FASTCALL | METH_KEYWORDS


@dataclass(frozen=True)
class _Native:
    """The class of native dispatchers, or why there is none."""

    type: type[_NativeBase] | None
    refusal: str | None = None


class _Doubt(Exception):
    """Something is not where the native code expects it."""


def _expect(condition: bool, what: str) -> None:
    if not condition:
        raise _Doubt(what)


_loading = llvm.hold_at_fork(threading.RLock())


def _native() -> _Native:
    with _loading:
        return _load_native()


@functools.cache
def _load_native() -> _Native:
    """Compiles and tests the native dispatcher, once a process."""
    try:
        _check_interpreter()
        offsets = _check_layout()
        table = _array_functions()
        target = llvm.target()
        # Costs 30 ms more than opt=0, where calls are 10 to 300 ns slower, and vary; once, for it is kept on disk.
        parts = [f"{name}={offset}" for name, offset in offsets.items()]
        code = llvm.resident(
            target,
            DISPATCH,
            lambda: disk_cache.object_code("dispatcher", target, lambda: dispatcher_ir(offsets), *parts),
        )
        native = _build(code, table)
        _try_out(native, code.address(ECHO))
        return _Native(native)
    except Exception as error:
        return _Native(None, f"{type(error).__name__}: {error}")


def _check_interpreter() -> None:
    _expect(platform.python_implementation() == "CPython", "the interpreter is not CPython")
    _expect("t" not in getattr(sys, "abiflags", ""), "a free-threaded build of Python")
    _expect(ctypes.sizeof(ctypes.c_void_p) == 8, "not a 64-bit build of Python")
    _expect(sys.platform in ("linux", "darwin"), f"not yet tried on {sys.platform}")
    _expect(object.__basicsize__ == 16, "objects have more than two words before their fields")


def _read(address: int, kind: type[Any] = ctypes.c_uint64) -> int:
    return int(kind.from_address(address).value)


def _check_layout() -> dict[str, int]:
    """Compares fields in memory with what Python says of them; gives the offsets that versions of Python differ in."""
    matrix = np.arange(12.0).reshape(3, 4)
    swapped = matrix.astype(matrix.dtype.newbyteorder())
    for sample in (matrix, matrix.T, matrix[:0], matrix[:, ::2], np.array(1), swapped, np.zeros(5, np.bool)):
        at, shape = id(sample), sample.shape
        _expect(_read(at + FIELDS["object_type"]) == id(np.ndarray), "the type of an object")
        _expect(_read(at + FIELDS["array_data"]) == sample.__array_interface__["data"][0], "an array's data")
        _expect(_read(at + FIELDS["array_rank"], ctypes.c_int) == len(shape), "an array's number of dimensions")
        lengths = _read(at + FIELDS["array_shape"])
        _expect(all(_read(lengths + 8 * k) == shape[k] for k in range(len(shape))), "an array's shape")
        _expect(_read(at + FIELDS["array_descriptor"]) == id(sample.dtype), "an array's dtype")
        _expect(_read(at + FIELDS["array_flags"], ctypes.c_int) == sample.flags.num, "an array's flags")
        dtype, descriptor = sample.dtype, id(sample.dtype)
        _expect(_read(descriptor + FIELDS["descriptor_scalar"]) == id(dtype.type), "a dtype's scalar type")
        letters = ctypes.string_at(descriptor + FIELDS["descriptor_code"], 3).decode("latin-1")
        _expect(letters == dtype.kind + dtype.char + dtype.byteorder, "a dtype's letters")
        _expect(_read(descriptor + FIELDS["descriptor_code"] + 4, ctypes.c_int) == dtype.num, "a dtype's number")
    for kind, dtype in NUMBERS.items():
        _expect(np.dtype(kind) is dtype and np.empty(0, kind).dtype is dtype, "a dtype is not one object")
        if kind not in _KINDS:
            number = kind(1)
            found = ctypes.string_at(id(number) + FIELDS["number"], dtype.itemsize)
            _expect(found == np.array(number).tobytes(), f"the value of a {kind.__name__}")

    items, characters = tuple.__basicsize__, bytes.__basicsize__ - 1
    pair = (matrix, swapped)
    _expect([_read(id(pair) + items + 8 * k) for k in (0, 1)] == [id(matrix), id(swapped)], "the items of a tuple")
    text = bytes(range(16))
    _expect(characters % 8 == 0 and ctypes.string_at(id(text) + characters, 16) == text, "the bytes of a bytes object")
    sample_dispatcher = _NativeBase(print)
    sample_dispatcher._head = (b"", None, None)
    fallback, head = object.__basicsize__, object.__basicsize__ + 8
    _expect(_read(id(sample_dispatcher) + fallback) == id(print), "a slot of an object")
    _expect(_read(id(sample_dispatcher) + head) == id(sample_dispatcher._head), "a slot of an object")
    return {"head": head, "fallback": fallback, "items": items, "bytes": characters}


def _array_functions() -> dict[str, int]:
    """Addresses of NumPy's C functions, from its table, which is checked for its kind and version."""
    capsule = np._core._multiarray_umath._ARRAY_API  # type: ignore[attr-defined]
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    entries = pointer(("PyCapsule_GetPointer", ctypes.pythonapi))(capsule, None)
    _expect(_read(entries + 8 * 2) == id(np.ndarray), "ndarray in NumPy's C table")
    _expect(_read(entries + 8 * 3) == id(np.dtype), "dtype in NumPy's C table")
    version = ctypes.PYFUNCTYPE(ctypes.c_uint)(_read(entries))()
    _expect(version >> 24 in (1, 2), f"version {version:#x} of NumPy's C interface")
    return {"PyArray_NewFromDescr": _read(entries + 8 * 94), "PyArray_Scalar": _read(entries + 8 * 60)}


def _build(code: llvm.Library, array_functions: dict[str, int]) -> type[_NativeBase]:
    """Fills the code's table and makes the class whose `__call__` the code is."""
    addresses = {"None": id(None), "True": id(True), "ndarray": id(np.ndarray)} | array_functions
    addresses["workspace_limit"] = _workspace_limit()
    for name in FUNCTIONS.keys() - array_functions.keys():
        addresses[name] = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0
    _expect(all(addresses[name] for name in TABLE), "a C function is missing")
    table = ctypes.CFUNCTYPE(ctypes.c_void_p)(code.address(TABLE_FUNCTION))()
    (ctypes.c_uint64 * len(TABLE)).from_address(table)[:] = [addresses[name] for name in TABLE]

    definition = _MethodDefinition(b"__call__", code.address(DISPATCH), _FASTCALL_KEYWORDS, None)
    # The class keeps its code: a dispatcher may outlive this module's globals when the interpreter shuts down.
    release = staticmethod(ctypes.PYFUNCTYPE(ctypes.c_int64)(code.address(RELEASE_WORKSPACES)))
    namespace = {"__slots__": (), "__module__": __name__, "_code": (code, definition), "_release": release}
    native = type("NativeDispatcher", (_NativeBase,), namespace)
    method = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.c_void_p)
    describe = method(("PyDescr_NewMethod", ctypes.pythonapi))
    native.__call__ = describe(native, ctypes.addressof(definition))  # type: ignore[method-assign]
    return native


def _try_out(native: type[_NativeBase], echo: int) -> None:
    """Calls a native dispatcher in each way that its code distinguishes."""
    one = np.array([1.5])
    for argument, values in (
        (Argument.array(np.float64, (1,)), [one]),
        (Argument.array(np.float64, ()), [np.array(1.5)]),
        (Argument.number(float), [1.5]),
        (Argument.number(np.float64), [np.float64(1.5)]),
    ):
        for output in (Output.array(np.float64, (1,)), Output.array(np.float64, ()), Output.number(np.float64)):
            for as_tuple in (False, True):
                dispatcher = native(lambda *args, **kwargs: (args, kwargs))
                kind = Signature((argument,), (output,), as_tuple, workspace=8, release_gil=as_tuple)
                dispatcher.add_signature(kind, echo)
                result = dispatcher(*values)
                value = result[0] if as_tuple else result
                expected = np.float64 if output.scalar else np.ndarray
                _expect(type(value) is expected and value.shape == output.shape and value == 1.5, "a result")
                missed = dispatcher(1)
                _expect(missed == ((1,), {}), "a call that fits no signature")
                named = dispatcher(*values, name=2)
                _expect(named[0][0] is values[0] and named[1] == {"name": 2}, "a call with keywords")
