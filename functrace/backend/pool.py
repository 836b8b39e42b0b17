"""Threads for emitted loops: `void pool_run(ptr body, ptr context, i64 n, i64 grain)`, called by its address.

It calls `void body(ptr context, i64 lower, i64 upper)` for the pieces [0, grain), [grain, 2 grain), ... of [0, n), in
several threads at once and in any order, and returns when all are done. The pieces depend on `n` and `grain` alone,
never on the number of threads: whoever sums up each piece on its own and then the sums gets the same bits everywhere.

Workers are daemon threads that Python starts and that run machine code from then on: they never hold or take the GIL.
After a piece of work they spin for some ten microseconds, then they park on a condition variable. The caller works
too and never waits for a worker that has not begun. There is one piece of parallel work at a time: a call from another
thread meanwhile, or from within a body, runs in its own thread alone. So does a call in a forked child, whose workers
do not exist, until `start` is called there. A body must not raise, nor call a library that has threads of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import os
import platform
import sys
import threading
import warnings
from collections.abc import Callable
from string import Template
from typing import NamedTuple

from functrace.backend import disk_cache, llvm

__all__ = ["RUN", "address", "pool_ir", "possible", "refusal", "start", "stop", "workers"]

RUN = "functrace_pool_run"
_WORK, _PREPARE, _STOP, _TABLE = (f"functrace_pool_{name}" for name in ("work", "prepare", "stop", "table"))

# What the code calls, by C signature: the layout of its table.
_FUNCTIONS = {
    "getpid": ("i32",),
    "pthread_cond_broadcast": ("i32", "ptr"),
    "pthread_cond_init": ("i32", "ptr", "ptr"),
    "pthread_cond_signal": ("i32", "ptr"),
    "pthread_cond_wait": ("i32", "ptr", "ptr"),
    "pthread_mutex_init": ("i32", "ptr", "ptr"),
    "pthread_mutex_lock": ("i32", "ptr"),
    "pthread_mutex_unlock": ("i32", "ptr"),
}

_SPIN = 500  # turns of some 20 to 60 ns


_lock = llvm.hold_at_fork(threading.RLock())
_threads: list[threading.Thread] = []
_told: list[str] = []  # values of the environment that were warned of


def _processors() -> int:
    chosen = os.environ.get("FUNCTRACE_THREADS", "").strip()
    if chosen.isdecimal():
        return int(chosen)
    if chosen and chosen not in _told:
        _told.append(chosen)
        warnings.warn(
            f"FUNCTRACE_THREADS={chosen} is no number of threads and has no effect; give a whole number, 1 for none "
            "besides the main one",
            RuntimeWarning,
            stacklevel=2,
        )
    with contextlib.suppress(AttributeError, OSError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def possible() -> bool:
    """Whether `pool_run` works on this platform, if only in one thread."""
    return sys.platform in ("linux", "darwin")


def refusal() -> str | None:
    """Why loops run in one thread here; None where they do not."""
    if not possible():
        return f"not yet tried on {sys.platform}"
    return None if _processors() > 1 else "there is one processor, or FUNCTRACE_THREADS says so"


def workers() -> int:
    """How many threads help the caller at this moment."""
    return len(_threads)


def address() -> int:
    """Where `pool_run` is, with the workers started.

    Raises:
        KeyError: there are no such threads on this platform.
    """
    if not possible():
        raise KeyError(RUN)
    start()
    return _code().run


def start(count: int | None = None) -> None:
    """Starts the workers, if they were not yet in this process.

    Args:
        count: how many; by default one less than there are processors for this process, or than `FUNCTRACE_THREADS`.
    """
    with _lock:
        if _threads or (refusal() and count is None):
            return
        code = _code()
        wanted = _processors() - 1 if count is None else count
        code.prepare(wanted, 0)
        for k in range(wanted):
            thread = threading.Thread(target=code.work, name=f"functrace-{k + 1}", daemon=True)
            thread.start()
            _threads.append(thread)


def stop() -> None:
    """Ends the workers, after what they are at; loops then run in one thread."""
    with _lock:
        if _threads:
            _code().stop()
            for thread in _threads:
                thread.join()
            _threads.clear()


def _forked() -> None:
    """In the child there are no workers, and another thread may have held the mutex when it was copied."""
    if _threads:
        _threads.clear()
        _code().prepare(0, 1)


class _Code(NamedTuple):
    """The machine code: the address of `pool_run`, and what Python calls of it, with the GIL released."""

    run: int
    prepare: Callable[[int, int], None]
    work: Callable[[], None]
    stop: Callable[[], None]


@functools.cache
def _code() -> _Code:
    target = llvm.target()
    code = llvm.resident(target, RUN, lambda: disk_cache.object_code("pool", target, pool_ir, str(_SPIN)))
    table = ctypes.CFUNCTYPE(ctypes.c_void_p)(code.address(_TABLE))()
    library = ctypes.CDLL(None)
    for k, name in enumerate(_FUNCTIONS):
        ctypes.c_void_p.from_address(table + 8 * k).value = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forked)
    atexit.register(stop)
    prepare = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(code.address(_PREPARE))
    work, end = (ctypes.CFUNCTYPE(None)(code.address(name)) for name in (_WORK, _STOP))
    return _Code(code.address(RUN), prepare, work, end)


# The machine code


def pool_ir() -> str:
    """The text of `pool_run` and of what the workers do."""
    return Template(_TEXT).substitute(
        functions=_functions(),
        size=len(_FUNCTIONS),
        spin=_SPIN,
        pause=_pause(),
        run=RUN,
        work=_WORK,
        prepare=_PREPARE,
        stop=_STOP,
        table=_TABLE,
    )


def _functions() -> str:
    """A local function for each C function: fetches its address from the table and jumps there."""
    lines = []
    for position, (name, (result, *types)) in enumerate(_FUNCTIONS.items()):
        parameters = ", ".join(f"{kind} %{k}" for k, kind in enumerate(types))
        lines += [
            f"define internal {result} @{name}({parameters}) {{",
            f"  %function = load ptr, ptr getelementptr (ptr, ptr @table, i64 {position})",
            f"  %value = tail call {result} %function({parameters})",
            f"  ret {result} %value",
            "}",
        ]
    return "\n".join(lines)


def _pause() -> str:
    """Tells the processor that a thread is spinning."""
    kind = platform.machine().lower()
    if kind in ("x86_64", "amd64"):
        return "declare void @llvm.x86.sse2.pause()\ndefine internal void @pause() {\n" + (
            "  call void @llvm.x86.sse2.pause()\n  ret void\n}"
        )
    if kind in ("aarch64", "arm64"):
        return "declare void @llvm.aarch64.hint(i32)\ndefine internal void @pause() {\n" + (
            "  call void @llvm.aarch64.hint(i32 1)\n  ret void\n}"
        )
    return "define internal void @pause() {\n  ret void\n}"


# What the threads share changes under the mutex only, except `@next`; what is also read without it is read and written
# atomically. A worker joins by raising `@running` while `@open` is set; the caller clears `@open` when no piece is
# left, so who comes late goes back to sleep, and waits until nobody is running.
_TEXT = """\
@table = internal global [$size x ptr] zeroinitializer
@mutex = internal global [128 x i8] zeroinitializer, align 64
@wake = internal global [128 x i8] zeroinitializer, align 64
@done = internal global [128 x i8] zeroinitializer, align 64
@next = internal global [8 x i64] zeroinitializer, align 64
@generation = internal global [8 x i64] zeroinitializer, align 64
@running = internal global [8 x i64] zeroinitializer, align 64
@busy = internal global i64 0, align 64
@workers = internal global i64 0
@process = internal global i32 0
@sleepers = internal global i64 0
@open = internal global i64 0
@ended = internal global i64 0
@body = internal global ptr null
@context = internal global ptr null
@count = internal global i64 0
@grain = internal global i64 0

$functions
$pause

define ptr @$table() {
  ret ptr @table
}

; As new, once no call is under way; in a forked child none is, whatever the parent's memory says.
define void @$prepare(i64 %workers, i64 %forked) {
entry:
  %child = icmp ne i64 %forked, 0
  br i1 %child, label %alone, label %claim
claim:
  %before = atomicrmw xchg ptr @busy, i64 1 acquire
  %free = icmp eq i64 %before, 0
  br i1 %free, label %alone, label %wait
wait:
  call void @pause()
  br label %claim
alone:
  call i32 @pthread_mutex_init(ptr @mutex, ptr null)
  call i32 @pthread_cond_init(ptr @wake, ptr null)
  call i32 @pthread_cond_init(ptr @done, ptr null)
  store atomic i64 0, ptr @running seq_cst, align 8
  store i64 0, ptr @sleepers
  store i64 0, ptr @open
  store atomic i64 0, ptr @ended seq_cst, align 8
  %process = call i32 @getpid()
  store i32 %process, ptr @process
  store atomic i64 0, ptr @busy seq_cst, align 8
  store atomic i64 %workers, ptr @workers seq_cst, align 8
  ret void
}

define void @$stop() {
  store atomic i64 0, ptr @workers seq_cst, align 8
  call i32 @pthread_mutex_lock(ptr @mutex)
  store atomic i64 1, ptr @ended seq_cst, align 8
  call i32 @pthread_cond_broadcast(ptr @wake)
  call i32 @pthread_mutex_unlock(ptr @mutex)
  ret void
}

; Takes pieces until none is left.
define internal void @take(ptr %body, ptr %context, i64 %n, i64 %grain) {
entry:
  br label %loop
loop:
  %k = atomicrmw add ptr @next, i64 1 monotonic
  %lower = mul i64 %k, %grain
  %left = icmp slt i64 %lower, %n
  br i1 %left, label %piece, label %end
piece:
  %rest = sub i64 %n, %lower
  %short = icmp slt i64 %rest, %grain
  %length = select i1 %short, i64 %rest, i64 %grain
  %upper = add i64 %lower, %length
  call void %body(ptr %context, i64 %lower, i64 %upper)
  br label %loop
end:
  ret void
}

; All pieces one after the other.
define internal void @alone(ptr %body, ptr %context, i64 %n, i64 %grain) {
entry:
  %sane = icmp sgt i64 %grain, 0
  %step = select i1 %sane, i64 %grain, i64 %n
  br label %loop
loop:
  %lower = phi i64 [0, %entry], [%upper, %piece]
  %left = icmp slt i64 %lower, %n
  br i1 %left, label %piece, label %end
piece:
  %rest = sub i64 %n, %lower
  %short = icmp slt i64 %rest, %step
  %length = select i1 %short, i64 %rest, i64 %step
  %upper = add i64 %lower, %length
  call void %body(ptr %context, i64 %lower, i64 %upper)
  br label %loop
end:
  ret void
}

define void @$run(ptr %body, ptr %context, i64 %n, i64 %grain) {
entry:
  %sane = icmp sgt i64 %grain, 0
  %several = icmp sgt i64 %n, %grain
  %workers = load atomic i64, ptr @workers monotonic, align 8
  %some = icmp ne i64 %workers, 0
  %fit = and i1 %sane, %several
  %parallel = and i1 %fit, %some
  br i1 %parallel, label %try, label %serial
try:
  %before = atomicrmw xchg ptr @busy, i64 1 acquire
  %free = icmp eq i64 %before, 0
  br i1 %free, label %mine, label %serial
mine:
  %here = call i32 @getpid()
  %process = load i32, ptr @process
  %same = icmp eq i32 %here, %process
  br i1 %same, label %publish, label %orphan
orphan:
  store atomic i64 0, ptr @busy release, align 8
  br label %serial
serial:
  call void @alone(ptr %body, ptr %context, i64 %n, i64 %grain)
  ret void

publish:
  call i32 @pthread_mutex_lock(ptr @mutex)
  store ptr %body, ptr @body
  store ptr %context, ptr @context
  store i64 %n, ptr @count
  store i64 %grain, ptr @grain
  store atomic i64 0, ptr @next monotonic, align 8
  store i64 1, ptr @open
  %old = load atomic i64, ptr @generation monotonic, align 8
  %new = add i64 %old, 1
  store atomic i64 %new, ptr @generation release, align 8
  %sleepers = load i64, ptr @sleepers
  %asleep = icmp ne i64 %sleepers, 0
  br i1 %asleep, label %rouse, label %go
rouse:
  call i32 @pthread_cond_broadcast(ptr @wake)
  br label %go
go:
  call i32 @pthread_mutex_unlock(ptr @mutex)
  call void @take(ptr %body, ptr %context, i64 %n, i64 %grain)
  call i32 @pthread_mutex_lock(ptr @mutex)
  store i64 0, ptr @open
  call i32 @pthread_mutex_unlock(ptr @mutex)
  br label %watch
watch:
  %turn = phi i64 [0, %go], [%turns, %again]
  %others = load atomic i64, ptr @running acquire, align 8
  %finished = icmp eq i64 %others, 0
  br i1 %finished, label %end, label %again
again:
  call void @pause()
  %turns = add i64 %turn, 1
  %patient = icmp ult i64 %turns, $spin
  br i1 %patient, label %watch, label %park
park:
  call i32 @pthread_mutex_lock(ptr @mutex)
  br label %parked
parked:
  %still = load atomic i64, ptr @running acquire, align 8
  %over = icmp eq i64 %still, 0
  br i1 %over, label %leave, label %wait
wait:
  call i32 @pthread_cond_wait(ptr @done, ptr @mutex)
  br label %parked
leave:
  call i32 @pthread_mutex_unlock(ptr @mutex)
  br label %end
end:
  store atomic i64 0, ptr @busy release, align 8
  ret void
}

define void @$work() {
entry:
  %first = load atomic i64, ptr @generation acquire, align 8
  br label %idle
idle:
  %seen = phi i64 [%first, %entry], [%current, %late], [%current, %finish]
  br label %spin
spin:
  %turn = phi i64 [0, %idle], [%turns, %again]
  %noticed = load atomic i64, ptr @generation acquire, align 8
  %fresh = icmp ne i64 %noticed, %seen
  br i1 %fresh, label %enter, label %again
again:
  call void @pause()
  %turns = add i64 %turn, 1
  %patient = icmp ult i64 %turns, $spin
  br i1 %patient, label %spin, label %enter
enter:
  call i32 @pthread_mutex_lock(ptr @mutex)
  br label %check
check:
  %ended = load atomic i64, ptr @ended monotonic, align 8
  %quit = icmp ne i64 %ended, 0
  br i1 %quit, label %end, label %look
look:
  %current = load atomic i64, ptr @generation monotonic, align 8
  %news = icmp ne i64 %current, %seen
  br i1 %news, label %join, label %sleep
sleep:
  %sleepers = load i64, ptr @sleepers
  %more = add i64 %sleepers, 1
  store i64 %more, ptr @sleepers
  call i32 @pthread_cond_wait(ptr @wake, ptr @mutex)
  %awake = load i64, ptr @sleepers
  %less = sub i64 %awake, 1
  store i64 %less, ptr @sleepers
  br label %check
join:
  %open = load i64, ptr @open
  %welcome = icmp ne i64 %open, 0
  br i1 %welcome, label %begin, label %late
late:
  call i32 @pthread_mutex_unlock(ptr @mutex)
  br label %idle
begin:
  %others = load atomic i64, ptr @running monotonic, align 8
  %joined = add i64 %others, 1
  store atomic i64 %joined, ptr @running release, align 8
  %body = load ptr, ptr @body
  %context = load ptr, ptr @context
  %n = load i64, ptr @count
  %grain = load i64, ptr @grain
  call i32 @pthread_mutex_unlock(ptr @mutex)
  call void @take(ptr %body, ptr %context, i64 %n, i64 %grain)
  call i32 @pthread_mutex_lock(ptr @mutex)
  %now = load atomic i64, ptr @running monotonic, align 8
  %left = sub i64 %now, 1
  store atomic i64 %left, ptr @running release, align 8
  %last = icmp eq i64 %left, 0
  br i1 %last, label %tell, label %finish
tell:
  call i32 @pthread_cond_signal(ptr @done)
  br label %finish
finish:
  call i32 @pthread_mutex_unlock(ptr @mutex)
  br label %idle
end:
  call i32 @pthread_mutex_unlock(ptr @mutex)
  ret void
}
"""
