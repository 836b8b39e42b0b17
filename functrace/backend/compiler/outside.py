"""Calls of functions outside from within a loop's body, and code that needs branches of its own there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from functrace.backend import symbols
from functrace.backend.compiler.dtypes import Unsupported

if TYPE_CHECKING:
    from functrace.backend.compiler.emit import Value

__all__ = ["Outside"]

_EXACT = {8: 2.0**52, 4: 2.0**23}  # by the bytes of a float: up to here it has a bit after the binary point


class Outside:
    """What the emitter does lane by lane, or by branches."""

    def outside(self: Any, name: str, *operands: Value, result: np.dtype | None = None, tail: str = "") -> Value:
        """A function of single numbers, called for every lane.

        Args:
            name: its symbol.
            operands: of any dtypes.
            result: the dtype of its value, by default that of the first operand.
            tail: further arguments, as text.
        """
        dtype = operands[0].dtype if result is None else result
        lanes = max(o.lanes for o in operands)
        pointer = self.symbol(name)
        from_one = [o if o.lanes == 1 else None for o in operands]
        found: Value | None = None
        for k in range(lanes):
            values = [o if one is not None else self.lane(o, k) for o, one in zip(operands, from_one, strict=True)]
            arguments = ", ".join(f"{v.type} {v.name}" for v in values)
            one = self.blank(dtype)
            value = self.op(f"call {one.type} {pointer}({arguments}{tail})", dtype)
            if lanes == 1:
                return value
            goal = self.blank(dtype, lanes)
            start = "poison" if found is None else found.name
            found = self.op(f"insertelement {goal.type} {start}, {value.type} {value.name}, i32 {k}", dtype, lanes)
        assert found is not None
        return found

    def special(self: Any, name: str, *operands: Any) -> Value:
        """A special function of SciPy's; it computes in double precision.

        Raises:
            Unsupported: this SciPy has no such function to be called from machine code.
        """
        if not symbols.available(f"special:{name}"):
            raise Unsupported(f"the special function {name}")
        values = self.matched(*operands)
        double = np.dtype(np.float64)
        found = self.outside(f"special:{name}", *[self.convert(v, double) for v in values], tail=", i32 0")
        return self.convert(found, values[0].dtype)

    def every(self: Any, flags: Value) -> str:
        """Whether all lanes hold."""
        if flags.lanes == 1:
            return flags.name
        bits = self.index(f"bitcast {flags.type} {flags.name} to i{flags.lanes}")
        return self.index(f"icmp eq i{flags.lanes} {bits}, -1")

    def settled(self: Any, flags: Value, value: Value, otherwise: Callable[[], Value]) -> Value:
        """The value where all flags hold; else what `otherwise` emits, in a branch of its own."""
        before, slow, end = self.block, self.new_label("rare"), self.new_label("common")
        self.line(f"br i1 {self.every(flags)}, label %{end}, label %{slow}")
        self.label(slow)
        other = otherwise()
        last = self.block
        self.line(f"br label %{end}")
        self.label(end)
        found = self.blank(value.dtype, value.lanes, self.fresh())
        self.lines += self.phi(found, [(value, before), (other, last)])
        return found

    def repeated(
        self: Any, state: list[Value], step: Callable[[list[Value]], tuple[list[Value], Value]]
    ) -> list[Value]:
        """Steps until no lane goes on: `step` gives the new state, and where to go on. At least one step is made."""
        before, head, end = self.block, self.new_label("again"), self.new_label("done")
        self.line(f"br label %{head}")
        self.label(head)
        at = len(self.lines)
        entering = [self.blank(v.dtype, v.lanes, f"%{head}.s{k}") for k, v in enumerate(state)]
        leaving, on = step(entering)
        none = self.every(~on)
        latch = self.block
        self.line(f"br i1 {none}, label %{end}, label %{head}")
        self.lines[at:at] = [
            line
            for goal, start, after in zip(entering, state, leaving, strict=True)
            for line in self.phi(goal, [(start, before), (after, latch)])
        ]
        self.label(end)
        return leaving

    def remainder(self: Any, x: Any, y: Any) -> Value:
        """C's fmod, which is exact; for integers C's %, whose divisors are not 0."""
        x, y = self.matched(x, y)
        if x.dtype.kind in "iu":
            return self.op(f"{x.dtype.kind.replace('i', 's')}rem {x.type} {x.name}, {y.name}", x.dtype, x.lanes)
        size = x.dtype.itemsize
        name = "c:fmod" if size == 8 else "c:fmodf"
        if not self.target.fma:
            return self.outside(name, x, y)
        whole = self.intrinsic("trunc", self.op(f"fdiv {x.type} {x.name}, {y.name}", x.dtype, x.lanes))
        rest = self.intrinsic("fma", -whole, y, x)
        # The quotient may have been rounded up to an integer: then the rest has the wrong sign.
        size_of_y = self.intrinsic("fabs", y)
        wrong = (rest < 0.0) ^ (x < 0.0)
        rest = self.select(wrong & (rest != 0.0), rest + self.intrinsic("copysign", size_of_y, x), rest)
        rest = self.intrinsic("copysign", rest, x)
        usual = (self.intrinsic("fabs", whole) < _EXACT[size]) & (size_of_y < np.inf)
        return self.settled(usual, rest, lambda: self.outside(name, x, y))

    def quotient(self: Any, x: Any, y: Any) -> Value:
        """C's / of integers; divisors are not 0, and quotients in range."""
        x, y = self.matched(x, y)
        return self.op(f"{x.dtype.kind.replace('i', 's')}div {x.type} {x.name}, {y.name}", x.dtype, x.lanes)

    def refuse(self: Any, flags: Value) -> None:
        """Where a flag holds, the program is declared to have failed: it runs again by NumPy calls."""
        self.guards = True
        bit = self.index(f"xor i1 {self.every(~flags)}, true")
        before = self.index("load i8, ptr %guard")
        more = self.index(f"zext i1 {bit} to i8")
        self.line(f"store i8 {self.index(f'or i8 {before}, {more}')}, ptr %guard")
