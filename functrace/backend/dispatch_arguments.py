"""The part of the native dispatcher's code that checks a call's arguments; see `dispatch_ir`.

Nothing is converted: an argument has exactly the type, dtype, shape and layout that the entry's words say, or the entry
is a miss.
"""

from __future__ import annotations

__all__ = ["BIND"]

BIND = """\
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
"""
