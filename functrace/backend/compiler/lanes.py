"""Vectors: numbers spread over lanes, lanes taken out, put side by side, moved and reversed; part of the emitter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from functrace.backend.compiler.emit import Value

__all__ = ["Lanes"]


class Lanes:
    """What the emitter does to the lanes of vectors."""

    def widened(self: Any, value: Value, lanes: int) -> Value:
        """One number in every lane."""
        if value.lanes == lanes:
            return value
        if value.constant is not None:
            return self.constant(value.constant, value.dtype, lanes)
        if value.parts is not None:
            return self.part_by_part(value, lambda part: self.widened(part, lanes))
        kind = self.blank(value.dtype).type
        vector = self.blank(value.dtype, lanes).type
        first = self.op(f"insertelement {vector} poison, {kind} {value.name}, i32 0", value.dtype, lanes)
        return self.op(
            f"shufflevector {vector} {first.name}, {vector} poison, <{lanes} x i32> zeroinitializer", value.dtype, lanes
        )

    def _lanes(self: Any, x: Value, start: int, width: int) -> Value:
        """Some lanes of a vector, filled up with its first."""
        if x.parts is not None:
            return self.part_by_part(x, lambda part: self._lanes(part, start, width))
        if start == 0 and x.lanes == width:
            return x
        order = ", ".join(f"i32 {start + k if start + k < x.lanes else 0}" for k in range(width))
        return self.op(f"shufflevector {x.type} {x.name}, {x.type} poison, <{width} x i32> <{order}>", x.dtype, width)

    def _joined(self: Any, parts: list[Value], lanes: int) -> Value:
        while len(parts) > 1:
            parts = [self._pair(parts[k], parts[k + 1]) for k in range(0, len(parts), 2)]
        return parts[0] if parts[0].lanes == lanes else self._lanes(parts[0], 0, lanes)

    def _pair(self: Any, x: Value, y: Value) -> Value:
        lanes = 2 * x.lanes
        order = ", ".join(f"i32 {k}" for k in range(lanes))
        return self.op(f"shufflevector {x.type} {x.name}, {y.type} {y.name}, <{lanes} x i32> <{order}>", x.dtype, lanes)

    def vector(self: Any, values: list[Value]) -> Value:
        """Numbers side by side."""
        if values[0].parts is not None:
            return self.pair(*[self.vector([v.parts[k] for v in values]) for k in (0, 1)])
        lanes, dtype = len(values), values[0].dtype
        goal = self.blank(dtype, lanes)
        found = self.blank(dtype, lanes, "poison")
        for k, value in enumerate(values):
            text = f"insertelement {goal.type} {found.name}, {value.type} {value.name}, i32 {k}"
            found = self.op(text, dtype, lanes)
        return found

    def shifted(self: Any, before: Value, x: Value, count: int) -> Value:
        """The lanes of a vector moved up by some; lanes of `before` move in."""
        if x.parts is not None:
            return self.pair(*[self.shifted(p, q, count) for p, q in zip(before.parts, x.parts, strict=True)])
        order = ", ".join(f"i32 {k - count if k >= count else x.lanes + k}" for k in range(x.lanes))
        return self.op(
            f"shufflevector {x.type} {x.name}, {x.type} {before.name}, <{x.lanes} x i32> <{order}>", x.dtype, x.lanes
        )

    def reversed(self: Any, x: Value) -> Value:
        """The lanes in the opposite order."""
        if x.parts is not None:
            return self.part_by_part(x, self.reversed)
        order = ", ".join(f"i32 {k}" for k in range(x.lanes - 1, -1, -1))
        text = f"shufflevector {x.type} {x.name}, {x.type} poison, <{x.lanes} x i32> <{order}>"
        return self.op(text, x.dtype, x.lanes)

    def lane(self: Any, x: Value, position: int) -> Value:
        if x.parts is not None:
            return self.part_by_part(x, lambda part: self.lane(part, position))
        return self.op(f"extractelement {x.type} {x.name}, i32 {position}", x.dtype)

    def horizontal(self: Any, name: str, x: Value) -> Value:
        """A vector's lanes combined to one number, by halves."""
        while x.lanes > 2:
            half = x.lanes // 2
            x = self.combine(name, self._lanes(x, 0, half), self._lanes(x, half, half))
        return x if x.lanes == 1 else self.combine(name, self.lane(x, 0), self.lane(x, 1))
