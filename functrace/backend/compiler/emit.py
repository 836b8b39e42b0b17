"""The emitter: LLVM IR of one function, as text, with values that have Python's operators.

A `Value` is one number or a vector of numbers in a register. Rounding is NumPy's but for products that feed a sum,
which may be fused; NaN, infinities and signed zeros go through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.backend.compiler.combinations import COMBINATIONS, neutral
from functrace.backend.compiler.conversions import Conversions
from functrace.backend.compiler.dtypes import BOOL, FLOATS, INDEX, Unsupported, element_type, literal, memory_type
from functrace.backend.compiler.lanes import Lanes
from functrace.backend.compiler.outside import Outside
from functrace.backend.compiler.pairs import Pairs, real_type
from functrace.backend.llvm import Target

__all__ = ["BOOL", "INDEX", "Emitter", "Unsupported", "Value", "element_type", "memory_type", "neutral"]


class Value:
    """Numbers in a register: `lanes` of them, one if 1."""

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("constant", "dtype", "emitter", "lanes", "name", "parts")

    def __init__(self, emitter: Emitter, name: str, dtype: np.dtype, lanes: int = 1, constant: Any = None) -> None:
        self.emitter, self.name, self.dtype, self.lanes, self.constant = emitter, name, dtype, lanes, constant
        #: Of complex numbers, the real and the imaginary parts.
        self.parts: Any = None

    @property
    def type(self) -> str:
        kind = element_type(self.dtype)
        return kind if self.lanes == 1 else f"<{self.lanes} x {kind}>"

    def __add__(self, other: Any) -> Value:
        return self.emitter.arithmetic("add", self, other)

    def __radd__(self, other: Any) -> Value:
        return self.emitter.arithmetic("add", other, self)

    def __sub__(self, other: Any) -> Value:
        return self.emitter.arithmetic("sub", self, other)

    def __rsub__(self, other: Any) -> Value:
        return self.emitter.arithmetic("sub", other, self)

    def __mul__(self, other: Any) -> Value:
        return self.emitter.arithmetic("mul", self, other)

    def __rmul__(self, other: Any) -> Value:
        return self.emitter.arithmetic("mul", other, self)

    def __truediv__(self, other: Any) -> Value:
        return self.emitter.arithmetic("div", self, other)

    def __rtruediv__(self, other: Any) -> Value:
        return self.emitter.arithmetic("div", other, self)

    def __neg__(self) -> Value:
        return self.emitter.negative(self)

    def __and__(self, other: Any) -> Value:
        return self.emitter.bitwise("and", self, other)

    def __or__(self, other: Any) -> Value:
        return self.emitter.bitwise("or", self, other)

    def __xor__(self, other: Any) -> Value:
        return self.emitter.bitwise("xor", self, other)

    def __invert__(self) -> Value:
        ones = {"b": True, "u": np.iinfo(self.dtype).max if self.dtype.kind == "u" else -1}.get(self.dtype.kind, -1)
        return self.emitter.bitwise("xor", self, ones)

    def __lt__(self, other: Any) -> Value:
        return self.emitter.compare("<", self, other)

    def __le__(self, other: Any) -> Value:
        return self.emitter.compare("<=", self, other)

    def __gt__(self, other: Any) -> Value:
        return self.emitter.compare(">", self, other)

    def __ge__(self, other: Any) -> Value:
        return self.emitter.compare(">=", self, other)

    def __eq__(self, other: object) -> Value:  # type: ignore[override]
        return self.emitter.compare("==", self, other)

    def __ne__(self, other: object) -> Value:  # type: ignore[override]
        return self.emitter.compare("!=", self, other)


_COMPARISONS = {
    "<": ("olt", "slt", "ult"),
    "<=": ("ole", "sle", "ule"),
    ">": ("ogt", "sgt", "ugt"),
    ">=": ("oge", "sge", "uge"),
    "==": ("oeq", "eq", "eq"),
    "!=": ("une", "ne", "ne"),
}


class Emitter(Conversions, Lanes, Outside, Pairs):
    """Lines of LLVM IR, with what they use from outside."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.lines: list[str] = []
        self.block = "entry"
        self.declared: set[str] = set()
        self.globals: list[str] = []
        self._constants: dict[tuple[str, str], str] = {}
        #: Functions outside, by name, in the order of the module's table of pointers.
        self.symbols: dict[str, int] = {}
        #: Arrays and Python objects that the code refers to by address, in the order of the table; see `Module`.
        self.objects: list[Any] = []
        #: Of names given so far.
        self.count = 0
        self.guards = False

    # text

    def fresh(self, stem: str = "v") -> str:
        """A name not yet used."""
        self.count += 1
        return f"%{stem}{self.count}"

    def line(self, text: str) -> None:
        self.lines.append("  " + text)

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")
        self.block = name

    def new_label(self, stem: str) -> str:
        return self.fresh(stem)[1:]

    def op(self, text: str, dtype: np.dtype, lanes: int = 1) -> Value:
        """A value computed by one instruction."""
        self.count += 1
        name = f"%v{self.count}"
        self.lines.append(f"  {name} = {text}")
        return Value(self, name, dtype, lanes)

    def pointer(self, text: str) -> str:
        """A pointer computed by one instruction."""
        name = self.fresh("p")
        self.lines.append(f"  {name} = {text}")
        return name

    def index(self, text: str) -> str:
        """An integer computed by one instruction."""
        name = self.fresh("i")
        self.lines.append(f"  {name} = {text}")
        return name

    def offset(self, pointer: str, elements: int | str, dtype: np.dtype) -> str:
        """The address of an element."""
        if elements == 0 or elements == "0":
            return pointer
        return self.pointer(f"getelementptr {memory_type(dtype)}, ptr {pointer}, i64 {elements}")

    def blank(self, dtype: np.dtype, lanes: int = 1, name: str = "") -> Value:
        """A value of that name, or one to ask for its type."""
        value = Value(self, name, dtype, lanes)
        if dtype.kind == "c":
            value.parts = tuple([Value(self, name + end, real_type(dtype), lanes) for end in (".re", ".im")])
        return value

    def phi(self, goal: Value, sources: list[tuple[Value, str]]) -> list[str]:
        """The lines that give a value, one or two, by the block that control comes from."""
        if goal.parts is not None:
            parts = [self.phi(goal.parts[k], [(v.parts[k], block) for v, block in sources]) for k in (0, 1)]
            return parts[0] + parts[1]
        entries = ", ".join(f"[{v.name}, %{block}]" for v, block in sources)
        return [f"  {goal.name} = phi {goal.type} {entries}"]

    def declare(self, text: str) -> None:
        self.declared.add(f"declare {text}")

    def constant_pointer(self, kind: str, value: str) -> str:
        """The address of a constant in memory, for functions that take their arguments by reference."""
        key = (kind, value)
        if key not in self._constants:
            self._constants[key] = f"@c{len(self._constants)}"
            self.globals.append(f"{self._constants[key]} = private constant {kind} {value}")
        return self._constants[key]

    def symbol(self, name: str) -> str:
        """A pointer to a function outside; loaded at the function's start."""
        place = self.symbols.setdefault(name, len(self.symbols))
        return f"%sym{place}"

    # constants and shapes

    def constant(self, value: Any, dtype: np.dtype, lanes: int = 1) -> Value:
        if dtype.kind == "c":
            number, real = dtype.type(value), real_type(dtype)
            return self.pair(self.constant(number.real, real, lanes), self.constant(number.imag, real, lanes))
        text = literal(value, dtype)
        if lanes > 1:
            text = f"splat ({element_type(dtype)} {text})"
        return Value(self, text, dtype, lanes, dtype.type(value))

    def matched(self, *operands: Any) -> list[Value]:
        """The operands with one dtype and number of lanes; at least one of them is a value, others may be numbers."""
        values = [o for o in operands if isinstance(o, Value)]
        dtype, lanes = values[0].dtype, max(v.lanes for v in values)
        return [self.widened(o, lanes) if isinstance(o, Value) else self.constant(o, dtype, lanes) for o in operands]

    # operations

    def arithmetic(self, name: str, x: Any, y: Any) -> Value:
        if not (type(x) is type(y) is Value and x.lanes == y.lanes):
            x, y = self.matched(x, y)
        kind = x.dtype.kind
        if kind == "c":
            return self.complex_arithmetic(name, x, y)
        if x.dtype.itemsize == 2 and kind == "f":
            single = np.dtype(np.float32)
            return self.convert(self.arithmetic(name, self.convert(x, single), self.convert(y, single)), x.dtype)
        if kind == "f":
            return self.op(f"f{name} contract {x.type} {x.name}, {y.name}", x.dtype, x.lanes)
        if kind == "b":
            logic = {"add": "or", "mul": "and"}.get(name)
            if logic is None:
                raise Unsupported(f"{name} of booleans")
            return self.bitwise(logic, x, y)
        if name == "div":
            raise Unsupported("true division of integers")
        return self.op(f"{name} {x.type} {x.name}, {y.name}", x.dtype, x.lanes)

    def negative(self, x: Value) -> Value:
        if x.parts is not None:
            return self.part_by_part(x, self.negative)
        if x.dtype.kind == "f":
            return self.op(f"fneg {x.type} {x.name}", x.dtype, x.lanes)
        if x.dtype.kind == "b":
            raise Unsupported("the negative of a boolean")
        return 0 - x

    def bitwise(self, name: str, x: Any, y: Any) -> Value:
        x, y = self.matched(x, y)
        if x.dtype.kind == "f":
            raise Unsupported("bits of floats")
        return self.op(f"{name} {x.type} {x.name}, {y.name}", x.dtype, x.lanes)

    def shift(self, name: str, x: Any, y: Any) -> Value:
        """`name`: "shl", "lshr" or "ashr"; amounts are in range."""
        x, y = self.matched(x, y)
        return self.op(f"{name} {x.type} {x.name}, {y.name}", x.dtype, x.lanes)

    def compare(self, name: str, x: Any, y: Any) -> Value:
        x, y = self.matched(x, y)
        if x.parts is not None:
            (a, b), (c, d) = x.parts, y.parts
            if name in ("==", "!="):
                both = self.compare(name, a, c), self.compare(name, b, d)
                return both[0] & both[1] if name == "==" else both[0] | both[1]
            raise Unsupported("the order of complex numbers")
        ordered, signed, unsigned = _COMPARISONS[name]
        if x.dtype.kind == "f":
            return self.op(f"fcmp {ordered} {x.type} {x.name}, {y.name}", BOOL, x.lanes)
        relation = signed if x.dtype.kind == "i" else unsigned
        return self.op(f"icmp {relation} {x.type} {x.name}, {y.name}", BOOL, x.lanes)

    def select(self, mask: Value, x: Any, y: Any) -> Value:
        """x where the mask is true, else y."""
        x, y = self.matched(x, y)
        lanes = max(mask.lanes, x.lanes)
        x, y = self.widened(x, lanes), self.widened(y, lanes)
        if x.parts is not None:
            return self.pair(*[self.select(mask, p, q) for p, q in zip(x.parts, y.parts, strict=True)])
        if mask.lanes < lanes and mask.lanes > 1:
            mask = self.widened(mask, lanes)
        return self.op(f"select {mask.type} {mask.name}, {x.type} {x.name}, {y.type} {y.name}", x.dtype, lanes)

    def intrinsic(self, name: str, *operands: Any) -> Value:
        """LLVM's function of that name on operands of one type."""
        values = self.matched(*operands)
        x = values[0]
        kind = f"f{x.dtype.itemsize * 8}" if x.dtype.kind == "f" else f"i{x.dtype.itemsize * 8}"
        suffix = kind if x.lanes == 1 else f"v{x.lanes}{kind}"
        self.declare(f"{x.type} @llvm.{name}.{suffix}({', '.join([x.type] * len(values))})")
        arguments = ", ".join(f"{v.type} {v.name}" for v in values)
        return self.op(f"call {x.type} @llvm.{name}.{suffix}({arguments})", x.dtype, x.lanes)

    def math(self, name: str, *operands: Any) -> Value:
        """A function of the vector library."""
        values = self.matched(*operands)
        x = values[0]
        if x.dtype not in FLOATS:
            raise Unsupported(f"{name} of {x.dtype.name}")
        bits = x.dtype.itemsize * 8
        width = self.target.lanes(bits)
        if x.lanes == 1:
            pointer = self.symbol(f"vmath:ft_{name}_f{bits}_scalar")
            arguments = ", ".join(f"{v.type} {v.name}" for v in values)
            return self.op(f"call {x.type} {pointer}({arguments})", x.dtype)
        pointer = self.symbol(f"vmath:ft_{name}_f{bits}")
        parts = []
        for start in range(0, x.lanes, width):
            pieces = [self._lanes(v, start, width) for v in values]
            arguments = ", ".join(f"{p.type} {p.name}" for p in pieces)
            parts.append(self.op(f"call {pieces[0].type} {pointer}({arguments})", x.dtype, width))
        return self._joined(parts, x.lanes)

    def combine(self, name: str, x: Value, y: Value) -> Value:
        """One step of a reduction."""
        return COMBINATIONS[name](self, x, y)

    def guarded(self, x: Value, length: int) -> Value:
        """A position on an axis; where it is out of range 0, and the program is declared to have failed."""
        self.guards = True
        inside = self.op(f"icmp ult {x.type} {x.name}, {self.constant(length, x.dtype, x.lanes).name}", BOOL, x.lanes)
        before = self.index("load i8, ptr %guard")
        failed = self.index(f"xor i1 {self.every(inside)}, true")
        bit = self.index(f"zext i1 {failed} to i8")
        after = self.index(f"or i8 {before}, {bit}")
        self.line(f"store i8 {after}, ptr %guard")
        return self.select(inside, x, 0)

    # memory

    def load(self, pointer: str, dtype: np.dtype, lanes: int = 1, mask: str | None = None) -> Value:
        """Consecutive numbers from memory; those masked out are zero."""
        if dtype.kind == "c":
            return self.load_pairs(pointer, dtype, lanes, mask)
        kind, size = memory_type(dtype), dtype.itemsize
        vector = kind if lanes == 1 else f"<{lanes} x {kind}>"
        if mask is None or lanes == 1:
            found = self.index(f"load {vector}, ptr {pointer}, align {size}")
        else:
            name = f"llvm.masked.load.v{lanes}{_suffix(dtype)}.p0"
            self.declare(f"{vector} @{name}(ptr, i32 immarg, <{lanes} x i1>, {vector})")
            found = self.index(
                f"call {vector} @{name}(ptr {pointer}, i32 {size}, <{lanes} x i1> {mask}, {vector} zeroinitializer)"
            )
        return self._from_memory(found, dtype, lanes)

    def store(self, value: Value, pointer: str, mask: str | None = None) -> None:
        if value.parts is not None:
            self.store_pairs(value, pointer, mask)
            return
        name, kind = self._to_memory(value)
        size = value.dtype.itemsize
        if mask is None or value.lanes == 1:
            self.line(f"store {kind} {name}, ptr {pointer}, align {size}")
            return
        function = f"llvm.masked.store.v{value.lanes}{_suffix(value.dtype)}.p0"
        self.declare(f"void @{function}({kind}, ptr, i32 immarg, <{value.lanes} x i1>)")
        self.line(f"call void @{function}({kind} {name}, ptr {pointer}, i32 {size}, <{value.lanes} x i1> {mask})")

    def gather(self, pointers: str, dtype: np.dtype, lanes: int, mask: str | None = None) -> Value:
        """Numbers from a vector of addresses."""
        if dtype.kind == "c":
            real = real_type(dtype)
            behind = self.behind_pointers(pointers, real, lanes)
            return self.pair(self.gather(pointers, real, lanes, mask), self.gather(behind, real, lanes, mask))
        vector = f"<{lanes} x {memory_type(dtype)}>"
        name = f"llvm.masked.gather.v{lanes}{_suffix(dtype)}.v{lanes}p0"
        self.declare(f"{vector} @{name}(<{lanes} x ptr>, i32 immarg, <{lanes} x i1>, {vector})")
        active = mask or "splat (i1 true)"
        found = self.index(
            f"call {vector} @{name}(<{lanes} x ptr> {pointers}, i32 {dtype.itemsize}, <{lanes} x i1> {active}, "
            f"{vector} zeroinitializer)"
        )
        return self._from_memory(found, dtype, lanes)

    def scatter(self, value: Value, pointers: str, mask: str | None = None) -> None:
        if value.parts is not None:
            re, im = value.parts
            self.scatter(re, pointers, mask)
            self.scatter(im, self.behind_pointers(pointers, re.dtype, value.lanes), mask)
            return
        name, kind = self._to_memory(value)
        lanes = value.lanes
        function = f"llvm.masked.scatter.v{lanes}{_suffix(value.dtype)}.v{lanes}p0"
        self.declare(f"void @{function}({kind}, <{lanes} x ptr>, i32 immarg, <{lanes} x i1>)")
        self.line(
            f"call void @{function}({kind} {name}, <{lanes} x ptr> {pointers}, i32 {value.dtype.itemsize}, "
            f"<{lanes} x i1> {mask or 'splat (i1 true)'})"
        )

    def _from_memory(self, name: str, dtype: np.dtype, lanes: int) -> Value:
        if dtype.kind != "b":
            return Value(self, name, dtype, lanes)
        vector = "i8" if lanes == 1 else f"<{lanes} x i8>"
        return self.op(f"icmp ne {vector} {name}, {'0' if lanes == 1 else 'zeroinitializer'}", dtype, lanes)

    def _to_memory(self, value: Value) -> tuple[str, str]:
        kind = memory_type(value.dtype)
        vector = kind if value.lanes == 1 else f"<{value.lanes} x {kind}>"
        if value.dtype.kind != "b":
            return value.name, vector
        return self.index(f"zext {value.type} {value.name} to {vector}"), vector

    # control

    def counted(self, extent: int | str, body: Callable[[str], None], stem: str = "loop") -> None:
        """A loop over 0 .. extent - 1 (at least one step)."""
        head, before = self.new_label(stem), self.block
        i, following = f"%{head}.i", f"%{head}.n"
        self.line(f"br label %{head}")
        start = len(self.lines)
        self.label(head)
        body(i)
        latch = self.block
        phi = f"  {i} = phi i64 [0, %{before}], [{following}, %{latch}]"
        self.lines.insert(start + 1, phi)
        self.line(f"{following} = add nuw nsw i64 {i}, 1")
        more = self.index(f"icmp slt i64 {following}, {extent}")
        end = self.new_label(f"{stem}.end")
        self.line(f"br i1 {more}, label %{head}, label %{end}")
        self.label(end)


def _suffix(dtype: np.dtype) -> str:
    return f"f{dtype.itemsize * 8}" if dtype.kind == "f" else f"i{dtype.itemsize * 8}"
