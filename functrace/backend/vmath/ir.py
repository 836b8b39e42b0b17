"""A small emitter of vector LLVM IR: values with Python's operators, polynomials, sums and products with their errors.

A `Value` is a vector of floats, of integers of the same width or of booleans. Nothing here is fast-math: each operation
rounds once, NaN and the signed zeros go through. Where the target has fused multiply-add, `mad` fuses; elsewhere it
rounds twice, and error-free products are split (Dekker, A floating-point technique for extending the available
precision, Numerische Mathematik 18, 1971).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from functrace.backend.llvm import Target, attributes

__all__ = ["Builder", "Number", "Value", "module_text"]

Number = Any  # a Value, or a Python number standing for the same in every lane


def literal(number: float, bits: int) -> str:
    """LLVM's spelling of a float: always the bits of a double, also of the double that equals a float32."""
    if bits == 32:
        number = struct.unpack("<f", struct.pack("<f", number))[0]
    return f"0x{struct.unpack('<Q', struct.pack('<d', number))[0]:016X}"


class Value:
    """A vector in a register: kind "f" (floats), "i" (integers) or "m" (a mask)."""

    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("builder", "kind", "name")

    def __init__(self, builder: Builder, name: str, kind: str) -> None:
        self.builder, self.name, self.kind = builder, name, kind

    def _op(self, floating: str, integer: str, other: Number, swap: bool = False) -> Value:
        return self.builder.binary(
            floating if self.kind == "f" else integer, *((other, self) if swap else (self, other))
        )

    def __add__(self, other: Number) -> Value:
        return self._op("fadd", "add", other)

    def __sub__(self, other: Number) -> Value:
        return self._op("fsub", "sub", other)

    def __mul__(self, other: Number) -> Value:
        return self._op("fmul", "mul", other)

    def __truediv__(self, other: Number) -> Value:
        return self._op("fdiv", "sdiv", other)

    def __radd__(self, other: Number) -> Value:
        return self._op("fadd", "add", other, True)

    def __rsub__(self, other: Number) -> Value:
        return self._op("fsub", "sub", other, True)

    def __rmul__(self, other: Number) -> Value:
        return self._op("fmul", "mul", other, True)

    def __rtruediv__(self, other: Number) -> Value:
        return self._op("fdiv", "sdiv", other, True)

    def __neg__(self) -> Value:
        b = self.builder
        return b.emit(f"fneg {b.type('f')} {self.name}", "f")

    def __and__(self, other: Number) -> Value:
        return self._op("", "and", other)

    def __or__(self, other: Number) -> Value:
        return self._op("", "or", other)

    def __xor__(self, other: Number) -> Value:
        return self._op("", "xor", other)

    def __lshift__(self, other: Number) -> Value:
        return self._op("", "shl", other)

    def __rshift__(self, other: Number) -> Value:
        """Logical: zeros come in."""
        return self._op("", "lshr", other)

    def __invert__(self) -> Value:
        return self._op("", "xor", -1)

    def __lt__(self, other: Number) -> Value:
        return self.builder.compare("olt", "slt", self, other)

    def __le__(self, other: Number) -> Value:
        return self.builder.compare("ole", "sle", self, other)

    def __gt__(self, other: Number) -> Value:
        return self.builder.compare("ogt", "sgt", self, other)

    def __ge__(self, other: Number) -> Value:
        return self.builder.compare("oge", "sge", self, other)

    def __eq__(self, other: Number) -> Value:  # type: ignore[override]
        return self.builder.compare("oeq", "eq", self, other)

    def __ne__(self, other: Number) -> Value:  # type: ignore[override]
        return self.builder.compare("une", "ne", self, other)


class Nothing(Value):
    """The rounding error where it cannot matter: adding it and multiplying by it emit no code."""

    __slots__ = ()

    def __init__(self, builder: Builder) -> None:
        super().__init__(builder, builder.name(0.0, "f"), "f")

    def __neg__(self) -> Value:
        return self


class Builder:
    """Emits the body of one function on vectors.

    Args:
        target: the instruction set.
        bits: the width of a number, 64 or 32.
        lanes: numbers in a vector; what a register holds if not given.
        precision: bits of the significand to be right in the end, 53 or 24; the latter also for float32 computed in
            float64.
    """

    def __init__(self, target: Target, bits: int, lanes: int | None = None, precision: int | None = None) -> None:
        self.target, self.bits = target, bits
        self.lanes = lanes or target.lanes(bits)
        self.precision = precision or (53 if bits == 64 else 24)
        self.wide = bits == 64 and self.precision == 24
        self.scalar = "double" if bits == 64 else "float"
        self.integer = f"i{bits}"
        self.mantissa, self.bias = (52, 1023) if bits == 64 else (23, 127)
        self.tiny = 2.0 ** (1 - self.bias)  # the smallest normal number
        self.magic = 1.5 * 2.0**self.mantissa  # adding it rounds to an integer, held in the low bits
        self.lines: list[str] = []
        self.declared: set[str] = set()
        self.block = "entry"
        self._count = 0

    # Emission

    def type(self, kind: str) -> str:
        return f"<{self.lanes} x {'i1' if kind == 'm' else self.integer if kind == 'i' else self.scalar}>"

    def fresh(self) -> str:
        self._count += 1
        return f"%v{self._count}"

    def line(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def emit(self, text: str, kind: str) -> Value:
        name = self.fresh()
        self.line(f"{name} = {text}")
        return Value(self, name, kind)

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")
        self.block = name

    def name(self, value: Number, kind: str) -> str:
        """How an operand is written."""
        if isinstance(value, Value):
            return value.name
        if kind == "f":
            return f"splat ({self.scalar} {literal(float(value), self.bits)})"
        if kind == "i":
            size = 1 << self.bits
            signed = (int(value) + size // 2) % size - size // 2
            return f"splat ({self.integer} {signed})"
        return f"splat (i1 {'true' if value else 'false'})"

    def constant(self, number: float) -> Value:
        return Value(self, self.name(number, "f"), "f")

    def binary(self, op: str, x: Number, y: Number) -> Value:
        if isinstance(x, Nothing) or isinstance(y, Nothing):
            return self._with_nothing(op, x, y)
        kind = x.kind if isinstance(x, Value) else y.kind
        return self.emit(f"{op} {self.type(kind)} {self.name(x, kind)}, {self.name(y, kind)}", kind)

    def _with_nothing(self, op: str, x: Number, y: Number) -> Value:
        if op in ("fmul", "fdiv"):
            return Nothing(self)
        if isinstance(y, Nothing):
            return x
        return -y if op == "fsub" else y

    def compare(self, floating: str, integer: str, x: Value, y: Number) -> Value:
        op = f"fcmp {floating}" if x.kind == "f" else f"icmp {integer}"
        return self.emit(f"{op} {self.type(x.kind)} {x.name}, {self.name(y, x.kind)}", "m")

    def intrinsic(self, name: str, *operands: Number) -> Value:
        kind = self.type("f")
        full = f"@llvm.{name}.v{self.lanes}f{self.bits}"
        self.declared.add(f"declare {kind} {full}({', '.join([kind] * len(operands))})")
        arguments = ", ".join(f"{kind} {self.name(x, 'f')}" for x in operands)
        return self.emit(f"call {kind} {full}({arguments})", "f")

    # Operations

    def select(self, mask: Value, x: Number, y: Number) -> Value:
        if isinstance(x, Nothing) and (isinstance(y, Nothing) or (not isinstance(y, Value) and y == 0.0)):
            return x
        kind = next((v.kind for v in (x, y) if isinstance(v, Value)), "f")
        t = self.type(kind)
        return self.emit(
            f"select {self.type('m')} {mask.name}, {t} {self.name(x, kind)}, {t} {self.name(y, kind)}", kind
        )

    def abs(self, x: Value) -> Value:
        return self.intrinsic("fabs", x)

    def sqrt(self, x: Value) -> Value:
        return self.intrinsic("sqrt", x)

    def copysign(self, x: Number, sign: Value) -> Value:
        return self.intrinsic("copysign", x, sign)

    def minimum(self, x: Value, y: Number) -> Value:
        """The lesser; x where it is NaN."""
        return self.select(self.compare("ogt", "sgt", x, y), y, x)

    def maximum(self, x: Value, y: Number) -> Value:
        """The greater; x where it is NaN."""
        return self.select(self.compare("olt", "slt", x, y), y, x)

    def signbit(self, x: Value) -> Value:
        """Where the sign is set, also of zeros."""
        return self.bitcast(x) < 0

    def bitcast(self, x: Value) -> Value:
        other = "i" if x.kind == "f" else "f"
        return self.emit(f"bitcast {self.type(x.kind)} {x.name} to {self.type(other)}", other)

    def mad(self, x: Number, y: Number, z: Number) -> Value:
        """x y + z, rounded once where the target fuses it, twice elsewhere."""
        if self.target.fma and not any(isinstance(v, Nothing) for v in (x, y, z)):
            return self.intrinsic("fma", x, y, z)
        return self.binary("fadd", self.binary("fmul", x, y), z)

    def any(self, mask: Value) -> str:
        """Name of the i1 that says whether some lane is set."""
        packed = self.fresh()
        self.line(f"{packed} = bitcast {self.type('m')} {mask.name} to i{self.lanes}")
        some = self.fresh()
        self.line(f"{some} = icmp ne i{self.lanes} {packed}, 0")
        return some

    def rarely(self, mask: Value, values: Sequence[Value], slow: Callable[[], Sequence[Value]]) -> list[Value]:
        """`values`, or what `slow` emits in a block of its own, entered where a lane of the mask is set."""
        some, before = self.any(mask), self.block
        inside, after = (name + some.removeprefix("%v") for name in ("slow", "join"))
        self.line(f"br i1 {some}, label %{inside}, label %{after}, !prof !0")
        self.label(inside)
        slowly = slow()
        last = self.block
        self.line(f"br label %{after}")
        self.label(after)
        return [
            self.emit(f"phi {self.type(x.kind)} [{x.name}, %{before}], [{y.name}, %{last}]", x.kind)
            for x, y in zip(values, slowly, strict=True)
        ]

    # Polynomials

    def horner(self, x: Value, coefficients: Sequence[float]) -> Value:
        """The polynomial with these coefficients, lowest first, with the fewest operations.

        A number alone waits for each of them, so there the chain is kept short instead. So is half of it elsewhere: the
        even and the odd terms but the lowest, whose rounding errors count most.
        """
        if self.lanes == 1:
            return self.estrin(x, coefficients)
        if len(coefficients) < 7:
            return self.plain_horner(x, coefficients)
        square = x * x
        even, odd = (self.plain_horner(square, coefficients[k::2]) for k in (1, 2))
        return self.mad(self.mad(odd, x, even), x, coefficients[0])

    def plain_horner(self, x: Value, coefficients: Sequence[float]) -> Value:
        """The same with each operation after the other."""
        result: Number = coefficients[-1]
        for c in coefficients[-2::-1]:
            result = self.mad(result, x, c)
        return result

    def estrin(self, x: Value, coefficients: Sequence[float]) -> Value:
        """The same with the shortest chain of dependent operations: faster where the chain is long."""
        terms: list[Number] = list(coefficients)
        power = x
        while len(terms) > 1:
            pairs = [self.mad(terms[k + 1], power, terms[k]) for k in range(0, len(terms) - 1, 2)]
            terms = pairs + terms[len(terms) - len(terms) % 2 :]
            if len(terms) > 1:
                power = power * power
        return terms[0]

    # Integers in floats

    def round(self, x: Value, factor: Number = 1.0) -> tuple[Value, Value]:
        """The integer nearest to x times the factor, as a float and in the low bits of an integer."""
        shifted = self.mad(x, factor, self.magic) if factor != 1.0 else x + self.magic
        return shifted - self.magic, self.bitcast(shifted)

    def power_of_two(self, n: Value) -> Value:
        """2**n for an integer n as `round` gives it, where that is a normal number."""
        return self.bitcast((n << self.mantissa) + (self.bias << self.mantissa))

    def negative_power_of_two(self, n: Value) -> Value:
        """2**-n for an integer n as `round` gives it, where that is a normal number."""
        return self.bitcast(self.binary("sub", self.bias << self.mantissa, n << self.mantissa))

    def scale(self, x: Value, n: Value) -> Value:
        """x 2**n for x around 1 and an integral float n, rounded once, also where it overflows or underflows."""
        if self.wide:  # a float32 in disguise comes nowhere near the limits
            return x * self.power_of_two(self.round(n)[1])
        if self.target.scalef and self.lanes * self.bits == 512:
            suffix, mask = ("pd", "i8") if self.bits == 64 else ("ps", "i16")
            t = self.type("f")
            self.declared.add(f"declare {t} @llvm.x86.avx512.mask.scalef.{suffix}.512({t}, {t}, {t}, {mask}, i32)")
            name = f"@llvm.x86.avx512.mask.scalef.{suffix}.512"
            return self.emit(f"call {t} {name}({t} {x.name}, {t} {n.name}, {t} {x.name}, {mask} -1, i32 4)", "f")
        if self.target.scalef and self.lanes == 1:
            return self.scale_alone(x, n)
        half, first = self.round(n, 0.5)
        return x * self.power_of_two(first) * self.power_of_two(self.round(n - half)[1])

    def scale_alone(self, x: Value, n: Value) -> Value:
        """`scale` of vectors of one, by the instruction that takes the lowest number of a register."""
        lanes, suffix = (2, "sd") if self.bits == 64 else (4, "ss")
        register, name = f"<{lanes} x {self.scalar}>", f"@llvm.x86.avx512.mask.scalef.{suffix}"
        self.declared.add(f"declare {register} {name}({register}, {register}, {register}, i8, i32)")
        mask, wide = f"<{lanes} x i32> zeroinitializer", []
        for value in x, n:
            wide.append(self.fresh())
            self.line(f"{wide[-1]} = shufflevector {self.type('f')} {value.name}, {self.type('f')} poison, {mask}")
        scaled = self.fresh()
        first = f"{register} {wide[0]}"
        self.line(f"{scaled} = call {register} {name}({first}, {register} {wide[1]}, {first}, i8 -1, i32 4)")
        return self.emit(f"shufflevector {register} {scaled}, {register} poison, <1 x i32> zeroinitializer", "f")

    # Two numbers for one: the sum of a result and its rounding error. Where float64 stands for float32 (`wide`), the
    # error is below what the result keeps: it is left out unless asked for.

    def two_sum(self, x: Number, y: Number, *, always: bool = False) -> tuple[Value, Value]:
        """x + y and its rounding error (Knuth)."""
        total = self.binary("fadd", x, y)
        if self.wide and not always:
            return total, Nothing(self)
        back = total - x
        return total, self.binary("fsub", x, total - back) + self.binary("fsub", y, back)

    def fast_two_sum(self, x: Number, y: Number) -> tuple[Value, Value]:
        """The same where |x| >= |y| or x is 0."""
        total = self.binary("fadd", x, y)
        if self.wide:
            return total, Nothing(self)
        return total, self.binary("fsub", y, total - x)

    def split(self, x: Number) -> tuple[Value, Value]:
        """x as the sum of two numbers of half its bits."""
        scaled = self.binary("fmul", x, 2.0 ** ((self.mantissa + 2) // 2) + 1.0)
        high = scaled - self.binary("fsub", scaled, x)
        return high, self.binary("fsub", x, high)

    def two_product(self, x: Value, y: Number) -> tuple[Value, Value]:
        """x y and its rounding error."""
        product = x * y
        if self.wide:
            return product, Nothing(self)
        if self.target.fma:
            return product, self.intrinsic("fma", x, y, -product)
        xh, xl = self.split(x)
        yh, yl = (xh, xl) if y is x else self.split(y if isinstance(y, Value) else self.constant(y))
        return product, ((xh * yh - product) + xh * yl + xl * yh) + xl * yl

    def residual(self, q: Value, y: Number, x: Number) -> Value:
        """x - q y, where q is about x / y."""
        if self.target.fma:
            return self.intrinsic("fma", -q, y, x)
        product, error = self.two_product(q, y)
        return self.binary("fsub", x, product) - error

    def divide(self, x: Number, y: Value, x_low: Number = None, y_low: Number = None) -> tuple[Value, Value]:
        """(x + x_low) / (y + y_low) and its error, with one division."""
        if self.wide:
            x = x if x_low is None else self.binary("fadd", x, x_low)
            return self.binary("fdiv", x, y if y_low is None else y + y_low), Nothing(self)
        reciprocal = 1.0 / y
        q = self.binary("fmul", reciprocal, x)
        rest = self.residual(q, y, x)
        if x_low is not None:
            rest = rest + x_low
        if y_low is not None:
            rest = self.mad(-q, y_low, rest)
        return q, rest * reciprocal

    # Other widths

    def converted(self, x: Value, op: str, result: Builder) -> Value:
        """x as the other builder's floats, which goes on from here (`fpext` or `fptrunc`)."""
        return result.emit(f"{op} {self.type('f')} {x.name} to {result.type('f')}", "f")

    def following(self, bits: int, precision: int) -> Builder:
        """A builder of another width that goes on in the same function."""
        other = Builder(self.target, bits, self.lanes, precision)
        other.lines, other.declared, other.block = self.lines, self.declared, self.block
        other.fresh = self.fresh  # type: ignore[method-assign]
        return other


def module_text(target: Target, declared: set[str], functions: Sequence[str]) -> str:
    """A module of functions that carry the attributes #0."""
    return "\n".join(
        [
            *sorted(declared),
            *functions,
            f"attributes #0 = {{ {attributes(target)} }}",
            '!0 = !{!"branch_weights", i32 1, i32 1000}',
            "",
        ]
    )
