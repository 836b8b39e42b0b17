"""The native dispatcher's code: one CPython method in LLVM IR that serves every compiled program.

Its outline, for a call `dispatcher(*arguments)` (`dispatcher.py` says what the words of an entry mean):

1. `@functrace_dispatch` walks the entries, newest first, until one serves the call; else it calls the fallback.
2. `@bind` compares each argument with the entry's words and collects pointers to their data; a difference is a miss.
3. `@allocate` makes the output arrays, `@run` provides the workspace and calls the kernel, `@wrap` makes the result.

Why it is safe. Between `@bind` and the end of the kernel no Python code can run in this thread: array objects are not
tracked by the garbage collector, so allocating them starts no collection, and tuples and scalars are made afterwards.
The entries are immutable and the list's head is held during the call, so a signature may be added, or the list
dropped, meanwhile. All memory of a call is its own, so it may be re-entered and run in many threads.
The code contains no addresses: those of the C functions are written into `@table` after loading, so the object may be
kept on disk, and a symbol that is missing somewhere is found in Python, not by LLVM's linker.
"""

from __future__ import annotations

from collections.abc import Mapping
from string import Template

__all__ = [
    "DISPATCH",
    "ECHO",
    "FIELDS",
    "FUNCTIONS",
    "RELEASE_GIL",
    "TABLE",
    "TABLE_FUNCTION",
    "TUPLE",
    "dispatcher_ir",
]

DISPATCH = "functrace_dispatch"  # the method: (self, arguments, count, keyword names) -> new reference
TABLE_FUNCTION = "functrace_dispatch_table"  # () -> address of the table
ECHO = "functrace_dispatch_echo"  # the self-test's kernel: copies one float64 from the first pointer to the second

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
TABLE = (*FUNCTIONS, "None", "True", "ndarray")

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
        name: f"getelementptr (ptr, ptr @table, i64 {TABLE.index(name)})" for name in ("None", "True", "ndarray")
    }
    return Template(_TEXT).substitute(
        {**objects, **FIELDS},
        size=len(TABLE),
        functions=_functions(),
        dispatch=DISPATCH,
        table=TABLE_FUNCTION,
        echo=ECHO,
        stack_workspace=STACK_WORKSPACE,
        **offsets,
    )


_TEXT = """\
@table = internal global [$size x ptr] zeroinitializer

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

; Fills the inputs' pointers; returns the first word of the outputs, or null if an argument differs.
define internal ptr @bind(ptr %words, ptr %arguments, ptr %pointers, ptr %numbers) {
entry:
  %overflow = alloca i32
  %count = load i64, ptr %words
  %first = getelementptr i64, ptr %words, i64 5
  %none = icmp eq i64 %count, 0
  br i1 %none, label %done, label %argument
argument:
  %i = phi i64 [0, %entry], [%i1, %next]
  %word = phi ptr [%first, %entry], [%following, %next]
  %object_at = getelementptr ptr, ptr %arguments, i64 %i
  %object = load ptr, ptr %object_at
  %type_at = getelementptr i8, ptr %object, i64 $object_type
  %type = load ptr, ptr %type_at
  %expected_at = getelementptr i64, ptr %word, i64 1
  %expected = load ptr, ptr %expected_at
  %dimensions_at = getelementptr i64, ptr %word, i64 3
  %dimensions = load i64, ptr %dimensions_at
  %shape = getelementptr i64, ptr %word, i64 4
  %data_at = getelementptr i8, ptr %object, i64 $number
  %number = getelementptr <2 x i64>, ptr %numbers, i64 %i
  %typed = icmp eq ptr %type, %expected
  br i1 %typed, label %choose, label %miss
choose:
  %kind = load i64, ptr %word
  switch i64 %kind, label %miss [i64 0, label %array
                                 i64 1, label %next
                                 i64 2, label %int
                                 i64 3, label %bool]
bool:
  %true = load ptr, ptr $True
  %is_true = icmp eq ptr %object, %true
  %truth = zext i1 %is_true to i8
  store i8 %truth, ptr %number
  br label %next
int:
  %integer = call i64 @PyLong_AsLongLongAndOverflow(ptr %object, ptr %overflow)
  %over = load i32, ptr %overflow
  store i64 %integer, ptr %number
  %small = icmp eq i32 %over, 0
  br i1 %small, label %next, label %miss
array:
  %rank_at = getelementptr i8, ptr %object, i64 $array_rank
  %rank32 = load i32, ptr %rank_at
  %rank = zext i32 %rank32 to i64
  %flags_at = getelementptr i8, ptr %object, i64 $array_flags
  %flags = load i32, ptr %flags_at
  %orderly = and i32 %flags, 257 ; C contiguous (1) and aligned (256)
  %descriptor_at = getelementptr i8, ptr %object, i64 $array_descriptor
  %descriptor = load ptr, ptr %descriptor_at
  %wanted_at = getelementptr i64, ptr %word, i64 2
  %wanted = load ptr, ptr %wanted_at
  %ranked = icmp eq i64 %rank, %dimensions
  %ordered = icmp eq i32 %orderly, 257
  %suits = and i1 %ranked, %ordered
  br i1 %suits, label %described, label %miss
described:
  %same = icmp eq ptr %descriptor, %wanted
  br i1 %same, label %shaped, label %compare
compare: ; unpickled arrays have copies of the descriptor: the scalar type, kind, byte order and type number decide
  %scalar_at = getelementptr i8, ptr %descriptor, i64 $descriptor_scalar
  %scalar = load ptr, ptr %scalar_at
  %wanted_scalar_at = getelementptr i8, ptr %wanted, i64 $descriptor_scalar
  %wanted_scalar = load ptr, ptr %wanted_scalar_at
  %code_at = getelementptr i8, ptr %descriptor, i64 $descriptor_code
  %code = load i64, ptr %code_at
  %wanted_code_at = getelementptr i8, ptr %wanted, i64 $descriptor_code
  %wanted_code = load i64, ptr %wanted_code_at
  %same_scalar = icmp eq ptr %scalar, %wanted_scalar
  %same_code = icmp eq i64 %code, %wanted_code
  %equal = and i1 %same_scalar, %same_code
  br i1 %equal, label %shaped, label %miss
shaped:
  %array_data_at = getelementptr i8, ptr %object, i64 $array_data
  %array_data = load ptr, ptr %array_data_at
  %shape_at = getelementptr i8, ptr %object, i64 $array_shape
  %lengths = load ptr, ptr %shape_at
  %scalar_array = icmp eq i64 %dimensions, 0
  br i1 %scalar_array, label %next, label %length
length:
  %j = phi i64 [0, %shaped], [%j1, %longer]
  %length_at = getelementptr i64, ptr %lengths, i64 %j
  %length_j = load i64, ptr %length_at
  %wanted_length_at = getelementptr i64, ptr %shape, i64 %j
  %wanted_length = load i64, ptr %wanted_length_at
  %as_long = icmp eq i64 %length_j, %wanted_length
  br i1 %as_long, label %longer, label %miss
longer:
  %j1 = add i64 %j, 1
  %more_axes = icmp slt i64 %j1, %dimensions
  br i1 %more_axes, label %length, label %next
next:
  %data = phi ptr [%data_at, %choose], [%number, %bool], [%number, %int], [%array_data, %shaped], [%array_data, %longer]
  %pointer_at = getelementptr ptr, ptr %pointers, i64 %i
  store ptr %data, ptr %pointer_at
  %following = getelementptr i64, ptr %shape, i64 %dimensions
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %count
  br i1 %more, label %argument, label %done
done:
  %outputs = phi ptr [%first, %entry], [%following, %next]
  ret ptr %outputs
miss:
  ret ptr null
}

; New arrays for the outputs; a scalar's number lies in `numbers` and its result is null until `@wrap`.
define internal i1 @allocate(i64 %count, ptr %first, ptr %pointers, ptr %numbers, ptr %results) {
entry:
  %type = load ptr, ptr $ndarray
  br label %clear
clear:
  %k = phi i64 [0, %entry], [%k1, %cleared]
  %uncleared = icmp slt i64 %k, %count
  br i1 %uncleared, label %cleared, label %look
cleared:
  %clear_at = getelementptr ptr, ptr %results, i64 %k
  store ptr null, ptr %clear_at
  %k1 = add i64 %k, 1
  br label %clear
look:
  %i = phi i64 [0, %clear], [%i1, %next]
  %word = phi ptr [%first, %clear], [%following, %next]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %output, label %done
output:
  %kind = load i64, ptr %word
  %descriptor_at = getelementptr i64, ptr %word, i64 2
  %descriptor = load ptr, ptr %descriptor_at
  %dimensions_at = getelementptr i64, ptr %word, i64 3
  %dimensions = load i64, ptr %dimensions_at
  %shape = getelementptr i64, ptr %word, i64 4
  %number = getelementptr <2 x i64>, ptr %numbers, i64 %i
  %is_array = icmp eq i64 %kind, 0
  br i1 %is_array, label %array, label %next
array:
  call void @Py_IncRef(ptr %descriptor) ; the next call steals it, also when it fails
  %rank = trunc i64 %dimensions to i32
  %made = call ptr @PyArray_NewFromDescr(ptr %type, ptr %descriptor, i32 %rank, ptr %shape, ptr null, ptr null,
                                         i32 0, ptr null)
  %result_at = getelementptr ptr, ptr %results, i64 %i
  store ptr %made, ptr %result_at
  %failed = icmp eq ptr %made, null
  br i1 %failed, label %fail, label %allocated
allocated:
  %data_at = getelementptr i8, ptr %made, i64 $array_data
  %array_data = load ptr, ptr %data_at
  br label %next
next:
  %data = phi ptr [%number, %output], [%array_data, %allocated]
  %pointer_at = getelementptr ptr, ptr %pointers, i64 %i
  store ptr %data, ptr %pointer_at
  %following = getelementptr i64, ptr %shape, i64 %dimensions
  %i1 = add i64 %i, 1
  br label %look
done:
  ret i1 true
fail:
  ret i1 false
}

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
  %block = call ptr @PyMem_RawMalloc(i64 %padded)
  %none = icmp eq ptr %block, null
  br i1 %none, label %fail, label %align
align:
  %memory = phi ptr [%local, %stack], [%block, %heap]
  %to_free = phi ptr [null, %stack], [%block, %heap]
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
  call void @PyMem_RawFree(ptr %freed)
  br label %done
done:
  ret i64 %outcome
fail:
  call ptr @PyErr_NoMemory()
  ret i64 -1
}

; Makes the scalars, then the tuple if there is to be one. Owns the results: releases them when it fails.
define internal ptr @wrap(ptr %words, ptr %first, ptr %pointers, ptr %results) {
entry:
  %count_at = getelementptr i64, ptr %words, i64 1
  %count = load i64, ptr %count_at
  %flags_at = getelementptr i64, ptr %words, i64 3
  %flags = load i64, ptr %flags_at
  br label %look
look:
  %i = phi i64 [0, %entry], [%i1, %next]
  %word = phi ptr [%first, %entry], [%following, %next]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %output, label %pack
output:
  %dimensions_at = getelementptr i64, ptr %word, i64 3
  %dimensions = load i64, ptr %dimensions_at
  %shape = getelementptr i64, ptr %word, i64 4
  %kind = load i64, ptr %word
  %is_array = icmp eq i64 %kind, 0
  br i1 %is_array, label %next, label %scalar
scalar:
  %descriptor_at = getelementptr i64, ptr %word, i64 2
  %descriptor = load ptr, ptr %descriptor_at
  %pointer_at = getelementptr ptr, ptr %pointers, i64 %i
  %data = load ptr, ptr %pointer_at
  %made = call ptr @PyArray_Scalar(ptr %data, ptr %descriptor, ptr null)
  %result_at = getelementptr ptr, ptr %results, i64 %i
  store ptr %made, ptr %result_at
  %failed = icmp eq ptr %made, null
  br i1 %failed, label %fail, label %next
next:
  %following = getelementptr i64, ptr %shape, i64 %dimensions
  %i1 = add i64 %i, 1
  br label %look
pack:
  %packed = and i64 %flags, 2
  %single = icmp eq i64 %packed, 0
  br i1 %single, label %bare, label %tuple
bare:
  %only = load ptr, ptr %results
  ret ptr %only
tuple:
  %pack_into = call ptr @PyTuple_New(i64 %count)
  %no_tuple = icmp eq ptr %pack_into, null
  br i1 %no_tuple, label %fail, label %fill
fill:
  %k = phi i64 [0, %tuple], [%k1, %set]
  %unfilled = icmp slt i64 %k, %count
  br i1 %unfilled, label %set, label %full
set:
  %element_at = getelementptr ptr, ptr %results, i64 %k
  %element = load ptr, ptr %element_at
  call i32 @PyTuple_SetItem(ptr %pack_into, i64 %k, ptr %element) ; steals
  %k1 = add i64 %k, 1
  br label %fill
full:
  ret ptr %pack_into
fail:
  call void @release(i64 %count, ptr %results)
  ret ptr null
}

; Drops those results that exist.
define internal void @release(i64 %count, ptr %results) {
entry:
  br label %look
look:
  %i = phi i64 [0, %entry], [%i1, %next]
  %more = icmp slt i64 %i, %count
  br i1 %more, label %one, label %done
one:
  %result_at = getelementptr ptr, ptr %results, i64 %i
  %result = load ptr, ptr %result_at
  %i1 = add i64 %i, 1
  %empty = icmp eq ptr %result, null
  br i1 %empty, label %next, label %drop
drop:
  call void @Py_DecRef(ptr %result)
  br label %next
next:
  br label %look
done:
  ret void
}
"""
