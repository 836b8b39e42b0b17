"""The part of the native dispatcher's code that keeps large workspaces from call to call; see `dispatch_ir`.

Memory that the system gives anew costs a page fault for every page at first touch. `@take` and `@give` run under the
interpreter's lock. A few blocks are kept, up to a limit that the table holds, and none when memory has run out.
"""

from __future__ import annotations

__all__ = ["KEPT_PLACES", "KEPT_WORKSPACE", "WORKSPACES"]

# From so many bytes on they are kept, in so many places: C libraries keep smaller ones themselves.
KEPT_WORKSPACE, KEPT_PLACES = 2**20, 4

WORKSPACES = """\
; A block of memory, its size in its first word: one that was kept if it is large enough and not far too large, else a
; new one; null if there is no memory.
define internal ptr @take(i64 %bytes) {
entry:
  %worth = icmp uge i64 %bytes, $kept_workspace
  br i1 %worth, label %look, label %fresh
look:
  %k = phi i64 [0, %entry], [%k1, %next]
  %more = icmp slt i64 %k, $kept_places
  br i1 %more, label %place, label %fresh
place:
  %at = getelementptr ptr, ptr @kept, i64 %k
  %block = load ptr, ptr %at
  %empty = icmp eq ptr %block, null
  br i1 %empty, label %next, label %measure
measure:
  %size = load i64, ptr %block
  %enough = icmp uge i64 %size, %bytes
  %quarter = lshr i64 %size, 2
  %modest = icmp ule i64 %quarter, %bytes
  %fits = and i1 %enough, %modest
  br i1 %fits, label %found, label %next
next:
  %k1 = add i64 %k, 1
  br label %look
found:
  store ptr null, ptr %at
  %kept_bytes = load i64, ptr @kept_bytes
  %rest = sub i64 %kept_bytes, %size
  store i64 %rest, ptr @kept_bytes
  ret ptr %block
fresh:
  %new = call ptr @PyMem_RawMalloc(i64 %bytes)
  %none = icmp eq ptr %new, null
  br i1 %none, label %again, label %made
again:
  call i64 @$release_workspaces()
  %other = call ptr @PyMem_RawMalloc(i64 %bytes)
  %still_none = icmp eq ptr %other, null
  br i1 %still_none, label %fail, label %made
made:
  %result = phi ptr [%new, %fresh], [%other, %again]
  store i64 %bytes, ptr %result
  ret ptr %result
fail:
  ret ptr null
}

; The end of a block's use: it is kept if it is large, all others making way for it if there is no room beside them.
define internal void @give(ptr %block) {
entry:
  %size = load i64, ptr %block
  %limit_pointer = load ptr, ptr $workspace_limit
  %limit = ptrtoint ptr %limit_pointer to i64
  %worth = icmp uge i64 %size, $kept_workspace
  %allowed = icmp ule i64 %size, %limit
  %keep = and i1 %worth, %allowed
  br i1 %keep, label %room, label %free
room:
  %before = load i64, ptr @kept_bytes
  %after = add i64 %before, %size
  %over = icmp ugt i64 %after, %limit
  br i1 %over, label %clear, label %look
clear:
  call i64 @$release_workspaces()
  br label %look
look:
  %k = phi i64 [0, %room], [0, %clear], [%k1, %next]
  %more = icmp slt i64 %k, $kept_places
  br i1 %more, label %place, label %clear
place:
  %at = getelementptr ptr, ptr @kept, i64 %k
  %there = load ptr, ptr %at
  %empty = icmp eq ptr %there, null
  br i1 %empty, label %store, label %next
next:
  %k1 = add i64 %k, 1
  br label %look
store:
  store ptr %block, ptr %at
  %bytes = load i64, ptr @kept_bytes
  %total = add i64 %bytes, %size
  store i64 %total, ptr @kept_bytes
  ret void
free:
  call void @PyMem_RawFree(ptr %block)
  ret void
}

define i64 @$release_workspaces() {
entry:
  %bytes = load i64, ptr @kept_bytes
  store i64 0, ptr @kept_bytes
  br label %look
look:
  %k = phi i64 [0, %entry], [%k1, %free]
  %more = icmp slt i64 %k, $kept_places
  br i1 %more, label %free, label %done
free:
  %at = getelementptr ptr, ptr @kept, i64 %k
  %block = load ptr, ptr %at
  store ptr null, ptr %at
  call void @PyMem_RawFree(ptr %block) ; of nothing, it does nothing
  %k1 = add i64 %k, 1
  br label %look
done:
  ret i64 %bytes
}
"""
