"""sin, cos and tan: x = n pi/2 + r with |r| <= pi/4, then polynomials in r**2.

The reduction subtracts n pi/2 in parts (Cody and Waite, Software Manual for the Elementary Functions, 1980). Where |x|
is so large that this is not exact, a slow path in its own function multiplies each lane's significand with those bits
of 2/pi that matter, in integers (Payne and Hanek, Radian reduction for trigonometric functions, SIGNUM Newsletter 18,
1983).
"""

from __future__ import annotations

import math
from string import Template

from functrace.backend.vmath.coefficients import COEFFICIENTS
from functrace.backend.vmath.ir import Builder, Value, literal

__all__ = ["REDUCE_LARGE", "cos", "reduce_large_ir", "sin", "tan"]

# pi/2 in parts. Where multiplications are fused each part has all bits; elsewhere few enough for an exact product.
PARTS = {
    (64, True): (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591833e-33),
    (64, False): (1.5707963267341256, 6.077100506303966e-11, 2.0222662487111665e-21, 8.4784276603689e-32),
    (32, True): (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058767e-15),
}
# Up to here the parts are enough.
LIMIT = {64: 1e6, 32: 8192.0}
REDUCE_LARGE = "ft_reduce_large"

# Bits -63 to 1216 of 2/pi behind the point, in words: those before the first are zeros.
TWO_OVER_PI = (
    0x0000000000000000, 0xA2F9836E4E441529, 0xFC2757D1F534DDC0, 0xDB6295993C439041, 0xFE5163ABDEBBC561,
    0xB7246E3A424DD2E0, 0x06492EEA09D1921C, 0xFE1DEB1CB129A73E, 0xE88235F52EBB4484, 0xE99C7026B45F7E41,
    0x3991D639835339F4, 0x9C845F8BBDF9283B, 0x1FF897FFDE05980F, 0xEF2F118B5A0A6D1F, 0x6D367ECF27CB09B7,
    0x4F463F669E5FEA2D, 0x7527BAC7EBE5F17B, 0x3D0739F78A5292EA, 0x6BFB5FB11F8D5D08, 0x56033046FC7B6BAB,
)  # fmt: skip

# The significand, an integer m, times 192 bits of 2/pi from the first that does not give multiples of 4 turns of pi/2.
# The product modulo 2**192 is the remainder: two bits of quadrant, then the fraction. It is made a signed fraction of
# the nearest quadrant, normalised, cut into two doubles and multiplied by pi/2.
REDUCTION = Template("""
@ft_two_over_pi = internal constant [$words x i64] [$table]
declare i64 @llvm.fshl.i64(i64, i64, i64)
declare i64 @llvm.ctlz.i64(i64, i1 immarg)
define internal { double, double, i64 } @$name(double %x) noinline #0 {
  %bits = bitcast double %x to i64
  %raised = lshr i64 %bits, 52
  %exponent = and i64 %raised, 2047
  %fraction = and i64 %bits, 4503599627370495
  %m = or i64 %fraction, 4503599627370496
  %position = sub i64 %exponent, 1013
  %word = lshr i64 %position, 6
  %shift = and i64 %position, 63
  %p0 = getelementptr i64, ptr @ft_two_over_pi, i64 %word
  %p1 = getelementptr i64, ptr %p0, i64 1
  %p2 = getelementptr i64, ptr %p0, i64 2
  %p3 = getelementptr i64, ptr %p0, i64 3
  %t0 = load i64, ptr %p0
  %t1 = load i64, ptr %p1
  %t2 = load i64, ptr %p2
  %t3 = load i64, ptr %p3
  %w2 = call i64 @llvm.fshl.i64(i64 %t0, i64 %t1, i64 %shift)
  %w1 = call i64 @llvm.fshl.i64(i64 %t1, i64 %t2, i64 %shift)
  %w0 = call i64 @llvm.fshl.i64(i64 %t2, i64 %t3, i64 %shift)
  %m128 = zext i64 %m to i128
  %w0wide = zext i64 %w0 to i128
  %w1wide = zext i64 %w1 to i128
  %low = mul i128 %m128, %w0wide
  %carry = lshr i128 %low, 64
  %middle = mul i128 %m128, %w1wide
  %sum = add i128 %middle, %carry
  %top = mul i64 %m, %w2
  %topwide = zext i64 %top to i128
  %topshifted = shl i128 %topwide, 64
  %product = add i128 %sum, %topshifted
  %highwide = lshr i128 %product, 64
  %high = trunc i128 %highwide to i64
  %rounded = add i64 %high, 2305843009213693952
  %quadrant = lshr i64 %rounded, 62
  %whole = shl i64 %quadrant, 62
  %wholewide = zext i64 %whole to i128
  %wholeshifted = shl i128 %wholewide, 64
  %signed = sub i128 %product, %wholeshifted
  %negative = icmp slt i128 %signed, 0
  %opposite = sub i128 0, %signed
  %size = select i1 %negative, i128 %opposite, i128 %signed
  %sizehighwide = lshr i128 %size, 64
  %sizehigh = trunc i128 %sizehighwide to i64
  %sizelow = trunc i128 %size to i64
  %zeroshigh = call i64 @llvm.ctlz.i64(i64 %sizehigh, i1 false)
  %zeroslow = call i64 @llvm.ctlz.i64(i64 %sizelow, i1 false)
  %inlow = icmp eq i64 %sizehigh, 0
  %zerosboth = add i64 %zeroslow, 64
  %zeros = select i1 %inlow, i64 %zerosboth, i64 %zeroshigh
  %zeroswide = zext i64 %zeros to i128
  %normal = shl i128 %size, %zeroswide
  %first128 = lshr i128 %normal, 75
  %first = trunc i128 %first128 to i64
  %second128 = lshr i128 %normal, 22
  %second64 = trunc i128 %second128 to i64
  %second = and i64 %second64, 9007199254740991
  %f1 = sitofp i64 %first to double
  %f2 = sitofp i64 %second to double
  %e1 = sub i64 972, %zeros
  %e2 = sub i64 919, %zeros
  %s1 = shl i64 %e1, 52
  %s2 = shl i64 %e2, 52
  %scale1 = bitcast i64 %s1 to double
  %scale2 = bitcast i64 %s2 to double
  %a = fmul double %f1, %scale1
  %c = fmul double %f2, %scale2
  %scaled = fmul double %a, $splitter
  %excess = fsub double %scaled, %a
  %ah = fsub double %scaled, %excess
  %al = fsub double %a, %ah
  %r = fmul double %a, $pio2
  %q1 = fmul double %ah, $pio2h
  %q2 = fsub double %q1, %r
  %q3 = fmul double %ah, $pio2l
  %q4 = fadd double %q2, %q3
  %q5 = fmul double %al, $pio2h
  %q6 = fadd double %q4, %q5
  %q7 = fmul double %al, $pio2l
  %q8 = fadd double %q6, %q7
  %q9 = fmul double %a, $pio2low
  %q10 = fadd double %q8, %q9
  %q11 = fmul double %c, $pio2
  %rest = fadd double %q10, %q11
  %neg = icmp slt i64 %bits, 0
  %flip = xor i1 %neg, %negative
  %rneg = fneg double %r
  %restneg = fneg double %rest
  %rs = select i1 %flip, double %rneg, double %r
  %rests = select i1 %flip, double %restneg, double %rest
  %qneg = sub i64 0, %quadrant
  %qs = select i1 %neg, i64 %qneg, i64 %quadrant
  %result0 = insertvalue { double, double, i64 } poison, double %rs, 0
  %result1 = insertvalue { double, double, i64 } %result0, double %rests, 1
  %result2 = insertvalue { double, double, i64 } %result1, i64 %qs, 2
  ret { double, double, i64 } %result2
}
""")


def reduce_large_ir() -> str:
    """The slow path for one number: x - n pi/2 in two parts, and n modulo 4."""
    pio2 = math.pi / 2
    scaled = pio2 * (2.0**27 + 1.0)
    pio2_high = scaled - (scaled - pio2)
    return REDUCTION.substitute(
        name=REDUCE_LARGE,
        words=len(TWO_OVER_PI),
        table=", ".join(f"i64 {word - (word >> 63 << 64)}" for word in TWO_OVER_PI),
        splitter=literal(2.0**27 + 1.0, 64),
        pio2=literal(pio2, 64),
        pio2h=literal(pio2_high, 64),
        pio2l=literal(pio2 - pio2_high, 64),
        pio2low=literal(6.123233995736766e-17, 64),
    )


def reduce_lanes(b: Builder, x: Value, large: Value, fast: list[Value]) -> list[Value]:
    """The slow path in the lanes of the mask, one after the other; infinities give NaN."""
    results = list(fast)
    scalar, integer = b.scalar, b.integer
    for lane in range(b.lanes):
        element, is_large = b.fresh(), b.fresh()
        b.line(f"{element} = extractelement {b.type('f')} {x.name}, i32 {lane}")
        b.line(f"{is_large} = extractelement {b.type('m')} {large.name}, i32 {lane}")
        if b.bits == 32:
            wide = b.fresh()
            b.line(f"{wide} = fpext float {element} to double")
            element = wide
        # The other lanes reduce 2**20: any number will do that the table has bits for.
        argument, parts = b.fresh(), b.fresh()
        b.line(f"{argument} = select i1 {is_large}, double {element}, double {literal(2.0**20, 64)}")
        b.line(f"{parts} = call {{ double, double, i64 }} @{REDUCE_LARGE}(double {argument})")
        for k, kind in enumerate("ffi"):
            part = b.fresh()
            b.line(f"{part} = extractvalue {{ double, double, i64 }} {parts}, {k}")
            if b.bits == 32:
                narrow = b.fresh()
                op = "fptrunc double" if kind == "f" else "trunc i64"
                b.line(f"{narrow} = {op} {part} to {scalar if kind == 'f' else integer}")
                part = narrow
            kept, t = b.fresh(), scalar if kind == "f" else integer
            b.line(f"{kept} = extractelement {b.type(kind)} {results[k].name}, i32 {lane}")
            chosen = b.fresh()
            b.line(f"{chosen} = select i1 {is_large}, {t} {part}, {t} {kept}")
            results[k] = b.emit(f"insertelement {b.type(kind)} {results[k].name}, {t} {chosen}, i32 {lane}", kind)
    finite = b.abs(x) < math.inf
    results[0] = b.select(finite, results[0], math.nan)
    return results


def reduce(b: Builder, x: Value, *, exact: bool = False) -> tuple[Value, Value, Value]:
    """r, what it lost to rounding (0 unless exact is set or |x| is large) and the low bits of n."""
    n, bits = b.round(x, 2.0 / math.pi)
    parts = PARTS[b.bits, b.target.fma]
    r = x
    for part in parts[:-1]:
        r = b.mad(n, -part, r)
    low = b.constant(0.0)
    if exact:
        # What the last step but one lost is found again, and the last part added to that.
        before = x
        for part in parts[:-2]:
            before = b.mad(n, -part, before)
        product, lost = b.two_product(n, -parts[-2])
        r, low = b.two_sum(before, product)
        low = b.mad(n, -parts[-1], low + lost)
        r, low = b.fast_two_sum(r, low)
    else:
        r = b.mad(n, -parts[-1], r)
    large = b.abs(x) > LIMIT[b.bits]
    r, low, bits = b.rarely(large, [r, low, bits], lambda: reduce_lanes(b, x, large, [r, low, bits]))
    return r, low, bits


def sine(b: Builder, r: Value, z: Value) -> Value:
    """sin(r) - r."""
    return r * z * b.horner(z, COEFFICIENTS["SIN"][b.precision])


def cosine(b: Builder, r: Value, z: Value, low: Value | None = None) -> tuple[Value, Value]:
    """cos(r) in two parts."""
    half = z * 0.5
    w = 1.0 - half
    rest = b.mad(z * z, b.horner(z, COEFFICIENTS["COS"][b.precision]), (1.0 - w) - half)
    return w, rest if low is None else b.mad(-r, low, rest)


def circular(b: Builder, x: Value, quarter: int) -> Value:
    """sin(x + quarter pi/2)."""
    r, low, bits = reduce(b, x)
    z = r * r
    s = r + (sine(b, r, z) + low)
    w, rest = cosine(b, r, z, low)
    bits = bits + quarter if quarter else bits
    result = b.select((bits & 1) != 0, w + rest, s)
    return b.bitcast(b.bitcast(result) ^ ((bits & 2) << (b.bits - 2)))


def sin(b: Builder, x: Value) -> Value:
    return b.select(x == 0.0, x, circular(b, x, 0))


def cos(b: Builder, x: Value) -> Value:
    return circular(b, x, 1)


def tan(b: Builder, x: Value) -> Value:
    r, low, bits = reduce(b, x, exact=True)
    z = r * r
    s, s_low = b.fast_two_sum(r, b.mad(low, 1.0 - z * 0.5, sine(b, r, z)))
    c, c_low = b.fast_two_sum(*cosine(b, r, z, low))
    odd = (bits & 1) != 0
    q, rest = b.divide(
        b.select(odd, -c, s), b.select(odd, s, c), b.select(odd, -c_low, s_low), b.select(odd, s_low, c_low)
    )
    return b.select(x == 0.0, x, q + rest)
