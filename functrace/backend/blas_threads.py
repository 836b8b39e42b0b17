"""One thread for small products and factorizations: `void enter()` and `void leave()`, called by their addresses.

OpenBLAS hands products from about a hundred rows on to its threads. Below a millisecond that gains little on idle
processors, and costs a hundredfold on busy ones: the caller waits until each worker was given a processor. So code
whose calls are all small has them run in the calling thread.

The number of threads is the process's, not a thread's. The first to enter keeps the number and sets 1, the last to
leave sets what was kept, so that it is the old one whenever nobody is inside, in whatever order threads come and go.
Whoever set another number meanwhile has his way. A forked child, where nobody is inside, gets the number back.

Where BLAS has no such functions, `functions` gives none, and nothing is done.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from string import Template

from functrace.backend import disk_cache, llvm

__all__ = ["SMALL", "TINY", "functions", "threads_ir"]

#: Floating-point operations of a call from which on several threads are worth it; up to which BLAS uses one anyway.
SMALL, TINY = 2e7, 1e4

_ENTER, _LEAVE, _FORKED, _TABLE = (f"functrace_blas_{name}" for name in ("enter", "leave", "forked", "table"))


def functions(get: int, set_: int, pause: int) -> tuple[int, int]:
    """The addresses of `enter` and `leave`.

    Args:
        get: the address of `int get()`, BLAS's number of threads.
        set_: the address of `void set(int)`, which changes it.
        pause: the address of `int sched_yield()`.
    """
    return _functions(get, set_, pause)


@functools.cache
def _functions(*addresses: int) -> tuple[int, int]:
    target = llvm.target()
    code = llvm.resident(target, _ENTER, lambda: disk_cache.object_code("blas threads", target, threads_ir))
    table = ctypes.CFUNCTYPE(ctypes.c_void_p)(code.address(_TABLE))()
    (ctypes.c_uint64 * len(addresses)).from_address(table)[:] = addresses  # type: ignore[call-overload]
    forked: Callable[[], None] = ctypes.CFUNCTYPE(None)(code.address(_FORKED))
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forked)
    return code.address(_ENTER), code.address(_LEAVE)


def threads_ir() -> str:
    """The text of the functions."""
    return Template(_TEXT).substitute(enter=_ENTER, leave=_LEAVE, forked=_FORKED, table=_TABLE)


# What is shared changes under the lock only, which is held for some nanoseconds. After a fork in the midst of a call
# `leave` may come without its `enter`.
_TEXT = """\
@table = internal global [3 x ptr] zeroinitializer
@locked = internal global i64 0, align 64
@inside = internal global i64 0
@kept = internal global i32 0

define ptr @$table() {
  ret ptr @table
}

define internal void @lock() {
entry:
  br label %try
try:
  %before = atomicrmw xchg ptr @locked, i64 1 acquire
  %free = icmp eq i64 %before, 0
  br i1 %free, label %end, label %wait
wait:
  %pause = load ptr, ptr getelementptr (ptr, ptr @table, i64 2)
  call i32 %pause()
  br label %try
end:
  ret void
}

define internal void @restore() {
entry:
  %get = load ptr, ptr @table
  %now = call i32 %get()
  %ours = icmp eq i32 %now, 1
  br i1 %ours, label %change, label %end
change:
  %set = load ptr, ptr getelementptr (ptr, ptr @table, i64 1)
  %kept = load i32, ptr @kept
  call void %set(i32 %kept)
  br label %end
end:
  ret void
}

define void @$enter() {
entry:
  call void @lock()
  %before = load i64, ptr @inside
  %more = add i64 %before, 1
  store i64 %more, ptr @inside
  %first = icmp eq i64 %before, 0
  br i1 %first, label %change, label %end
change:
  %get = load ptr, ptr @table
  %now = call i32 %get()
  store i32 %now, ptr @kept
  %several = icmp ne i32 %now, 1
  br i1 %several, label %single, label %end
single:
  %set = load ptr, ptr getelementptr (ptr, ptr @table, i64 1)
  call void %set(i32 1)
  br label %end
end:
  store atomic i64 0, ptr @locked release, align 8
  ret void
}

define void @$leave() {
entry:
  call void @lock()
  %before = load i64, ptr @inside
  %some = icmp sgt i64 %before, 0
  br i1 %some, label %count, label %end
count:
  %less = sub i64 %before, 1
  store i64 %less, ptr @inside
  %last = icmp eq i64 %less, 0
  br i1 %last, label %change, label %end
change:
  %kept = load i32, ptr @kept
  %several = icmp ne i32 %kept, 1
  br i1 %several, label %undo, label %end
undo:
  call void @restore()
  br label %end
end:
  store atomic i64 0, ptr @locked release, align 8
  ret void
}

define void @$forked() {
entry:
  %inside = load i64, ptr @inside
  %some = icmp sgt i64 %inside, 0
  store i64 0, ptr @inside
  store atomic i64 0, ptr @locked release, align 8
  br i1 %some, label %undo, label %end
undo:
  %kept = load i32, ptr @kept
  %several = icmp ne i32 %kept, 1
  br i1 %several, label %change, label %end
change:
  call void @restore()
  br label %end
end:
  ret void
}
"""
