"""The part of the native dispatcher's code that makes the results of a call; see `dispatch_ir`.

Arrays are made before the kernel runs, scalars and the tuple after it: making these may run the garbage collector.
"""

from __future__ import annotations

__all__ = ["ALLOCATE", "WRAP"]

ALLOCATE = """\
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
"""

WRAP = """\
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
