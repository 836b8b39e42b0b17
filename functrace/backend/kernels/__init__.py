"""Numba kernels for what NumPy does badly, compiled in the background when `primitives._kernels` orders them.

Each is compiled once per dtype for flat C-contiguous arrays, kept in Numba's own cache on disk (beside the source where
that can be written, else in the user's cache directory, or where `NUMBA_CACHE_DIR` says; nowhere with
`FUNCTRACE_CACHE=0`), and releases the GIL. Where Numba is missing or fails, NumPy goes on doing the work.
"""

from __future__ import annotations

import functools
import os
import queue
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from functrace.backend.kernels import exponentials, indexing, matrices, native, recurrences, rows
from functrace.backend.vmath import module as vmath
from functrace.primitives._kernels import KERNELS, order_from
from functrace.util import switched_on

__all__ = ["KINDS", "load", "wait"]

FLOATS = (np.dtype(np.float64), np.dtype(np.float32))
NUMBERS = (*FLOATS, np.dtype(np.int64), np.dtype(np.int32))
#: What data that is only moved is seen as.
WORDS = (np.dtype(np.uint64), np.dtype(np.uint32), np.dtype(np.uint8))

#: A kernel's function, its operands, and the kinds it is compiled for. "in3" is an array of three axes that is read,
#: "out1" one that is written, "index" positions, "n" an integer, "flag" a truth value; "indices" and "sizes" are
#: tuples of as many as the kind says; "exp" is the address of the loop of exponentials, which the caller does not give.
_SOURCES: dict[str, tuple[Callable[..., bool], str, Sequence[Any]]] = {
    "ravel": (indexing.ravel, "indices sizes positions", (2, 3, 4)),
    "gather": (indexing.gather, "in1 index n n n out1", WORDS),
    "scatter_set": (indexing.scatter_set, "out1 index n n n in1", WORDS),
    "scatter_add": (indexing.scatter_add, "out1 index n n n in1", NUMBERS),
    "scatter_multiply": (indexing.scatter_multiply, "out1 index n n n in1", NUMBERS),
    "scatter_max": (indexing.scatter_max, "out1 index n n n in1", NUMBERS),
    "scatter_min": (indexing.scatter_min, "out1 index n n n in1", NUMBERS),
    "linear_recurrence": (recurrences.linear_recurrence, "in1 in1 n n n flag out1", FLOATS),
    "cumsum": (recurrences.cumsum, "in1 n n flag out1", NUMBERS),
    "cumprod": (recurrences.cumprod, "in1 n n flag out1", NUMBERS),
    "cummax": (recurrences.cummax, "in1 n n flag out1", NUMBERS),
    "cummin": (recurrences.cummin, "in1 n n flag out1", NUMBERS),
    "logsumexp": (exponentials.logsumexp, "exp in1 n n out1", FLOATS),
    "softmax": (exponentials.softmax, "exp in1 n n flag out1", FLOATS),
    "row_sum": (rows.row_sum, "in1 n n out1", FLOATS),
    "row_max": (rows.row_max, "in1 n n out1", FLOATS),
    "row_min": (rows.row_min, "in1 n n out1", FLOATS),
    "solve": (matrices.solve, "in3 in3 out3", FLOATS),
    "triangular_solve": (matrices.triangular_solve, "in3 in3 flag flag out3", FLOATS),
    "cholesky": (matrices.cholesky, "in3 out3", FLOATS),
}
#: The kinds that each kernel takes: dtypes, or how many index arrays.
KINDS: dict[str, Sequence[Any]] = {name: source[2] for name, source in _SOURCES.items()}

_orders: queue.SimpleQueue[tuple[str, Hashable]] = queue.SimpleQueue()
_lock = threading.Lock()  # of _worker
_compiling = threading.RLock()  # held while the compiler runs
_worker: threading.Thread | None = None


def _operand(word: str, kind: Any, types: Any, from_dtype: Callable[[Any], Any]) -> Any:
    match word:
        case "n" | "exp":
            return types.int64
        case "flag":
            return types.boolean
        case "index":
            return types.Array(types.intp, 1, "C", readonly=True)
        case "indices":
            return types.UniTuple(types.Array(types.intp, 1, "C", readonly=True), kind)
        case "sizes":
            return types.UniTuple(types.int64, kind)
        case "positions":
            return types.Array(types.intp, 1, "C")
    return types.Array(from_dtype(kind), int(word[-1]), "C", readonly=word.startswith("in"))


def _compile(name: str, kind: Hashable) -> Callable[..., bool]:
    import numba

    function, words, kinds = _SOURCES[name]
    if kind not in kinds:
        raise TypeError(f"no kernel {name} for {kind}")
    signature = tuple([_operand(word, kind, numba.types, numba.from_dtype) for word in words.split()])
    if "exp" in words:
        native.install_exponential()
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    try:
        dispatcher = numba.njit(cache=switched_on("FUNCTRACE_CACHE", True), **options)(function)
        dispatcher.compile(signature)
    except Exception:  # nowhere to keep the cache, or what is kept there is damaged
        dispatcher = numba.njit(**options)(function)
        dispatcher.compile(signature)
    dispatcher.disable_compile()  # operands of other types are an error, never a compilation in the user's time
    if "exp" not in words:
        return dispatcher
    return functools.partial(dispatcher, vmath.address(vmath.loop_symbol("exp", vmath.BITS[kind])))


def load(name: str, kind: Hashable) -> bool:
    """Compile a kernel for a dtype now; whether it can be."""
    compiled = KERNELS[name].compiled
    with _compiling:
        if kind not in compiled:
            try:
                compiled[kind] = _compile(name, kind)
            except Exception:  # Numba missing, broken or of another mind: NumPy serves
                compiled[kind] = None
    return compiled[kind] is not None


def _work() -> None:
    global _worker
    while True:
        with _lock:
            if _orders.empty() or not threading.main_thread().is_alive():
                _worker = None
                return
        load(*_orders.get())


def _accept(name: str, kind: Hashable) -> None:
    """Compile in the background. The thread is not a daemon: LLVM does not survive the end of the process under it."""
    global _worker
    _orders.put((name, kind))
    with _lock:
        if _worker is None:
            worker = threading.Thread(target=_work, name="functrace-kernels")
            try:
                worker.start()
            except RuntimeError:  # the process is ending, or has as many threads as it may
                return
            _worker = worker


def wait(timeout: float | None = None) -> None:
    """Until what was ordered is there."""
    worker = _worker
    if worker is not None:
        worker.join(timeout)


def _after_fork() -> None:
    """The child has no worker, whatever the parent had ordered."""
    global _worker, _lock, _orders
    _worker, _lock, _orders = None, threading.Lock(), queue.SimpleQueue()
    _compiling.release()


if hasattr(os, "register_at_fork"):  # a child of a process whose compiler is at work would find it locked for ever
    os.register_at_fork(before=_compiling.acquire, after_in_parent=_compiling.release, after_in_child=_after_fork)
order_from(_accept)
