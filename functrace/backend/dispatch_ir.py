"""The native dispatcher's code: one CPython method in LLVM IR that serves every compiled program.

Its outline, for a call `dispatcher(*arguments)` (`dispatcher.py` says what the words of an entry mean):

1. `@functrace_dispatch` walks the entries, newest first, until one serves the call; else it calls the fallback.
2. `@bind` compares each argument with the entry's words and collects pointers to their data; a difference is a miss.
3. `@allocate` makes the output arrays, `@run` provides the workspace and calls the kernel, `@wrap` makes the result.

Why it is safe. Between `@bind` and the end of the kernel no Python code can run in this thread: array objects are not
tracked by the garbage collector, so allocating them starts no collection, and tuples and scalars are made afterwards.
The entries are immutable and the list's head is held during the call, so a signature may be added, or the list
dropped, meanwhile. All memory of a call is its own, so it may be re-entered and run in many threads.

The steps stand in files of their own: `dispatch_arguments`, `dispatch_results`, and `dispatch_workspaces` for the
memory that `@run` asks for. The code contains no addresses: those of the C functions are written into `@table` after
loading, so the object may be kept on disk, and a symbol that is missing somewhere is found in Python, not by LLVM's
linker.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import Template

from functrace.backend.dispatch_arguments import BIND
from functrace.backend.dispatch_results import ALLOCATE, WRAP
from functrace.backend.dispatch_workspaces import KEPT_PLACES, KEPT_WORKSPACE, WORKSPACES

__all__ = [
    "DISPATCH",
    "ECHO",
    "FIELDS",
    "FUNCTIONS",
    "RELEASE_GIL",
    "RELEASE_WORKSPACES",
    "TABLE",
    "TABLE_FUNCTION",
    "TUPLE",
    "dispatcher_ir",
]

DISPATCH = "functrace_dispatch"  # the method: (self, arguments, count, keyword names) -> new reference
TABLE_FUNCTION = "functrace_dispatch_table"  # () -> address of the table
ECHO = "functrace_dispatch_echo"  # the self-test's kernel: copies one float64 from the first pointer to the second
RELEASE_WORKSPACES = "functrace_release_workspaces"  # () -> how many bytes were kept, and are not any more

# What the code calls, by C signature; then the objects it compares with. Together the layout of the table.
FUNCTIONS = {
    "PyArray_NewFromDescr": ("ptr", "ptr", "ptr", "i32", "ptr", "ptr", "ptr", "i32", "ptr"),
    "PyArray_Scalar": ("ptr", "ptr", "ptr", "ptr"),
    "PyErr_NoMemory": ("ptr",),
    "PyErr_Occurred": ("ptr",),
    "PyEval_RestoreThread": ("void", "ptr"),
    "PyEval_SaveThread": ("ptr",),
    "PyLong_AsLongLongAndOverflow": ("i64", "ptr", "ptr"),
    "PyMem_RawFree": ("void", "ptr"),
    "PyMem_RawMalloc": ("ptr", "i64"),
    "PyObject_Vectorcall": ("ptr", "ptr", "ptr", "i64", "ptr"),
    "PyTuple_New": ("ptr", "i64"),
    "PyTuple_SetItem": ("i32", "ptr", "i64", "ptr"),
    "Py_DecRef": ("void", "ptr"),
    "Py_IncRef": ("void", "ptr"),
}
TABLE = (*FUNCTIONS, "None", "True", "ndarray", "workspace_limit")

# Where fields of CPython's and NumPy's structures are, in bytes, in a 64-bit build with the GIL. The self-test
# compares all of them with what Python says.
FIELDS = {
    "object_type": 8,
    "number": 16,  # of a float, a complex, a NumPy scalar
    "array_data": 16,
    "array_rank": 24,
    "array_shape": 32,
    "array_descriptor": 56,
    "array_flags": 64,
    "descriptor_scalar": 16,
    "descriptor_code": 24,  # kind, letter, byte order, flags and type number, eight bytes in all
}


# An entry's 64-bit words: number of arguments, number of outputs, the kernel's address, flags, bytes of workspace; then
# for each argument and each output its kind, type, descriptor, number of dimensions, dimensions.
RELEASE_GIL, TUPLE = 1, 2  # the flags

# Workspaces up to this many bytes lie on the stack.
STACK_WORKSPACE = 4096


def _functions() -> str:
    """A local function for each C function: fetches its address from the table and jumps there."""
    lines = []
    for position, (name, (result, *types)) in enumerate(FUNCTIONS.items()):
        parameters = ", ".join(f"{kind} %{k}" for k, kind in enumerate(types))
        value = "" if result == "void" else "%value = "
        lines += [
            f"define internal {result} @{name}({parameters}) {{",
            f"  %function = load ptr, ptr getelementptr (ptr, ptr @table, i64 {position})",
            f"  {value}tail call {result} %function({parameters})",
            f"  ret {result}" + (" %value" if value else ""),
            "}",
        ]
    return "\n".join(lines)


def dispatcher_ir(offsets: Mapping[str, int]) -> str:
    """The text for these offsets: a dispatcher's `head` and `fallback`, a tuple's `items`, a bytes' `bytes`."""
    objects = {
        name: f"getelementptr (ptr, ptr @table, i64 {TABLE.index(name)})"
        for name in ("None", "True", "ndarray", "workspace_limit")
    }
    return Template("\n".join((_SERVE, BIND, ALLOCATE, _RUN, WORKSPACES, WRAP))).substitute(
        {**objects, **FIELDS},
        size=len(TABLE),
        functions=_functions(),
        dispatch=DISPATCH,
        table=TABLE_FUNCTION,
        echo=ECHO,
        release_workspaces=RELEASE_WORKSPACES,
        stack_workspace=STACK_WORKSPACE,
        kept_workspace=KEPT_WORKSPACE,
        kept_places=KEPT_PLACES,
        **offsets,
    )


_SERVE = """\
@table = internal global [$size x ptr] zeroinitializer
@kept = internal global [$kept_places x ptr] zeroinitializer ; blocks; the first word of each is its size
@kept_bytes = internal global i64 0

define ptr @$table() {
  ret ptr @table
}

define i64 @$echo(ptr %pointers) {
  %from = load ptr, ptr %pointers
  %to_at = getelementptr ptr, ptr %pointers, i64 1
  %to = load ptr, ptr %to_at
  %value = load double, ptr %from
  store double %value, ptr %to
  ret i64 0
}

$functions

define ptr @$dispatch(ptr %self, ptr %arguments, i64 %count, ptr %names) {
entry:
  %head_at = getelementptr i8, ptr %self, i64 $head
  %head = load ptr, ptr %head_at
  %none = load ptr, ptr $None
  %plain = icmp eq ptr %names, null
  br i1 %plain, label %start, label %fall
start:
  call void @Py_IncRef(ptr %head)
  br label %look
look:
  %item = phi ptr [%head, %start], [%older, %next]
  %end = icmp eq ptr %item, %none
  br i1 %end, label %missed, label %try
try:
  %words_at = getelementptr i8, ptr %item, i64 $items
  %holder = load ptr, ptr %words_at
  %words = getelementptr i8, ptr %holder, i64 $bytes
  %expected = load i64, ptr %words
  %fits = icmp eq i64 %expected, %count
  br i1 %fits, label %serve, label %next
serve:
  %result = call ptr @serve(ptr %words, ptr %arguments)
  %miss = icmp eq ptr %result, @table
  br i1 %miss, label %next, label %served
next:
  %older_at = getelementptr ptr, ptr %words_at, i64 1
  %older = load ptr, ptr %older_at
  br label %look
served:
  call void @Py_DecRef(ptr %head)
  ret ptr %result
missed:
  call void @Py_DecRef(ptr %head)
  br label %fall
fall:
  %fallback_at = getelementptr i8, ptr %self, i64 $fallback
  %fallback = load ptr, ptr %fallback_at
  call void @Py_IncRef(ptr %fallback)
  %answer = call ptr @PyObject_Vectorcall(ptr %fallback, ptr %arguments, i64 %count, ptr %names)
  call void @Py_DecRef(ptr %fallback)
  ret ptr %answer
}

; The result of one entry, null with an exception set, or the table's address for a miss.
define internal ptr @serve(ptr %words, ptr %arguments) "probe-stack"="inline-asm" {
entry:
  %outputs_at = getelementptr i64, ptr %words, i64 1
  %inputs = load i64, ptr %words
  %outputs = load i64, ptr %outputs_at
  %values = add i64 %inputs, %outputs
  %all = add i64 %values, 1
  %pointers = alloca ptr, i64 %all
  %numbers = alloca <2 x i64>, i64 %all, align 16
  %results = alloca ptr, i64 %all
  %made = call ptr @bind(ptr %words, ptr %arguments, ptr %pointers, ptr %numbers)
  %bound = icmp ne ptr %made, null
  br i1 %bound, label %allocate, label %miss
allocate:
  %output_pointers = getelementptr ptr, ptr %pointers, i64 %inputs
  %output_numbers = getelementptr <2 x i64>, ptr %numbers, i64 %inputs
  %ok = call i1 @allocate(i64 %outputs, ptr %made, ptr %output_pointers, ptr %output_numbers, ptr %results)
  br i1 %ok, label %run, label %fail
run:
  %workspace_at = getelementptr ptr, ptr %pointers, i64 %values
  %status = call i64 @run(ptr %words, ptr %pointers, ptr %workspace_at)
  %done = icmp eq i64 %status, 0
  br i1 %done, label %wrap, label %refused
wrap:
  %result = call ptr @wrap(ptr %words, ptr %made, ptr %output_pointers, ptr %results)
  ret ptr %result
refused:
  call void @release(i64 %outputs, ptr %results)
  %error = call ptr @PyErr_Occurred()
  %silent = icmp eq ptr %error, null
  br i1 %silent, label %miss, label %raise
fail:
  call void @release(i64 %outputs, ptr %results)
  br label %raise
raise:
  ret ptr null
miss:
  ret ptr @table
}

"""

_RUN = """\
; The kernel's status; not zero with an exception set if there is no memory for the workspace.
define internal i64 @run(ptr %words, ptr %pointers, ptr %workspace_at) "probe-stack"="inline-asm" {
entry:
  %bytes_at = getelementptr i64, ptr %words, i64 4
  %bytes = load i64, ptr %bytes_at
  %flags_at = getelementptr i64, ptr %words, i64 3
  %flags = load i64, ptr %flags_at
  %kernel_at = getelementptr i64, ptr %words, i64 2
  %kernel = load ptr, ptr %kernel_at
  store ptr null, ptr %workspace_at
  %needless = icmp eq i64 %bytes, 0
  br i1 %needless, label %ready, label %workspace
workspace:
  %padded = add i64 %bytes, 63
  %large = icmp ugt i64 %bytes, $stack_workspace
  br i1 %large, label %heap, label %stack
stack:
  %local = alloca i8, i64 %padded
  br label %align
heap:
  %with_size = add i64 %bytes, 71 ; the size in front
  %block = call ptr @take(i64 %with_size)
  %none = icmp eq ptr %block, null
  br i1 %none, label %fail, label %behind
behind:
  %behind_size = getelementptr i64, ptr %block, i64 1
  br label %align
align:
  %memory = phi ptr [%local, %stack], [%behind_size, %behind]
  %to_free = phi ptr [null, %stack], [%block, %behind]
  %address = ptrtoint ptr %memory to i64
  %above = add i64 %address, 63
  %aligned = and i64 %above, -64
  %workspace_start = inttoptr i64 %aligned to ptr
  store ptr %workspace_start, ptr %workspace_at
  br label %ready
ready:
  %freed = phi ptr [null, %entry], [%to_free, %align]
  %unlock = and i64 %flags, 1
  %locked = icmp eq i64 %unlock, 0
  br i1 %locked, label %with_gil, label %without_gil
with_gil:
  %status = call i64 %kernel(ptr %pointers)
  br label %finish
without_gil:
  %thread = call ptr @PyEval_SaveThread()
  %free_status = call i64 %kernel(ptr %pointers)
  call void @PyEval_RestoreThread(ptr %thread)
  br label %finish
finish:
  %outcome = phi i64 [%status, %with_gil], [%free_status, %without_gil]
  %kept = icmp eq ptr %freed, null
  br i1 %kept, label %done, label %free
free:
  call void @give(ptr %freed)
  br label %done
done:
  ret i64 %outcome
fail:
  call ptr @PyErr_NoMemory()
  ret i64 -1
}
"""
