"""Derivatives of a primitive, to the second and third order, against numbers and against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.types import aval_of, float0, is_inexact
from functrace.primitives.elementwise import complex_, imag, real
from functrace.primitives.families import add, mul, reduce_sum
from functrace.testing._evaluation import check_staged, naming, pick, subsets
from functrace.testing.cases import Case
from functrace.testing.numerical import (
    SEED,
    RuleError,
    complex_step,
    difference,
    fine,
    inner,
    noise,
    random_like,
    require_close,
    require_equal,
    require_type,
    scale,
)
from functrace.transforms import hessian, jacfwd, jacrev, jvp, linearize, vjp

_SMALL = 12


def check_first_order(case: Case) -> None:
    rng = np.random.default_rng(SEED)
    for subset in subsets(case.active()):
        f = case.function(subset, floats_only=True)
        values = pick(case, subset)
        direction = [random_like(rng, v) for v in values]
        at = f"with respect to operands {subset}"
        with naming(case, "jvp"):
            outs, tangents = jvp(f, tuple(values), tuple(direction))
            _check_tangents(case, f, values, direction, outs, tangents, at)
            if set(subset) != set(case.active()):
                _check_zero_tangents(case, subset, direction, tangents, at)
        with naming(case, "linearize"):
            _, f_jvp = linearize(f, *values)
            for got, expected in zip(f_jvp(*direction), tangents, strict=True):
                require_type(f"output tangent {at}", got, aval_of(expected))
                require_equal(f"linearize against jvp {at}", got, expected)
        with naming(case, "transpose"):
            _check_pullback(rng, f, values, outs, direction, tangents, at)
        with naming(case, "staging"):
            n = len(values)
            weights = [random_like(rng, o) for o in outs]
            check_staged(lambda *a: jvp(f, a[:n], a[n:])[1], [*values, *direction])  # noqa: B023
            if case.stages_reverse:
                check_staged(lambda *a: list(vjp(f, *a[:n])[1](list(a[n:]))), [*values, *weights])  # noqa: B023
    with naming(case, "batch of the derivative"):
        _check_batched_derivative(case, rng)


def check_no_tangents(case: Case) -> None:
    """Outputs without derivative have a tangent that says so: float0 for integers, zeros for constant floats."""
    floats = [i for i in case.arrays() if is_inexact(case.operands[i].dtype)]
    positions = floats if case.primitive.nondifferentiable else case.active()
    values = pick(case, positions)
    if not values:
        return
    _, tangents = jvp(case.function(positions), tuple(values), tuple(np.ones_like(v)[()] for v in values))
    for i, (out, tangent) in enumerate(zip(case.evaluate(), tangents, strict=True)):
        if tangent.dtype != (out.dtype if is_inexact(out.dtype) else float0):
            raise RuleError(f"the tangent of output {i}, {aval_of(out)}, has dtype {tangent.dtype}")
        if case.primitive.nondifferentiable and is_inexact(out.dtype) and np.any(tangent):
            raise RuleError(f"declared nondifferentiable, but output {i} has tangent {tangent!r}")


def _check_tangents(
    case: Case, f: Callable[..., Any], values: list[Any], direction: list[Any], outs: Any, tangents: Any, at: str
) -> None:
    """Output tangents have the outputs' types and the values of numerical derivatives."""
    numeric = difference(f, values, direction)
    atol = case.atol + noise(outs)
    for i, (out, tangent, expected) in enumerate(zip(outs, tangents, numeric, strict=True)):
        require_type(f"tangent of output {i} {at}", tangent, aval_of(out))
        require_close(f"jvp against differences {at}, output {i}", tangent, expected, case.rtol, atol)
    if case.complex_step and all(v.dtype.kind == "f" for v in values):
        exact = complex_step(lambda *xs: _impl_at(case, values, xs), values, direction)
        for i, (tangent, expected) in enumerate(zip(tangents, exact, strict=True)):
            atol = 1e-12 * (1 + scale(expected))
            require_close(f"jvp against the complex step {at}, output {i}", tangent, expected, 1e-10, atol)


def _impl_at(case: Case, originals: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    """`impl` with some operands, found by identity, replaced by complex values, and the others made complex too."""
    table = {id(x): v for x, v in zip(originals, values, strict=True)}
    operands = [
        table[id(x)] if id(x) in table else x + 0j if hasattr(x, "dtype") and x.dtype.kind == "f" else x
        for x in case.operands
    ]
    return [o for o in case.evaluate(*operands) if is_inexact(o.dtype)]


def _check_zero_tangents(case: Case, subset: Sequence[int], direction: list[Any], tangents: Any, at: str) -> None:
    """Symbolic zeros and arrays of zeros mean the same."""
    active = case.active()
    given = dict(zip(subset, direction, strict=True))
    full = tuple(given[i] if i in given else np.zeros_like(case.operands[i])[()] for i in active)
    _, same = jvp(case.function(active, floats_only=True), tuple(pick(case, active)), full)
    for got, expected in zip(same, tangents, strict=True):
        require_equal(f"zero tangents given as arrays, {at}", got, expected)


def _check_pullback(
    rng: np.random.Generator, f: Callable[..., Any], values: Any, outs: Any, direction: Any, tangents: Any, at: str
) -> None:
    """<Jv, w> = <v, J'w>, and cotangents have the operands' types."""
    _, pullback = vjp(f, *values)
    for _ in range(2):
        weights = [random_like(rng, o) for o in outs]
        bars = pullback(weights)
        for value, bar in zip(values, bars, strict=True):
            require_type(f"cotangent {at}", bar, aval_of(value))
        size = sum(float(np.sum(np.abs(t))) for t in tangents)
        what = f"<v, J'w> against <Jv, w> {at}"
        slack = fine([*values, *outs])
        require_close(what, inner(direction, bars), inner(tangents, weights), slack, slack * (1 + size))


def _check_batched_derivative(case: Case, rng: np.random.Generator) -> None:
    """Jacobians by forward and reverse mode: linear programs batched over their tangents and cotangents alone."""
    g, point, _ = _real_form(case, rng)
    if sum(x.size for x in point) > 3 * _SMALL or sum(o.size for o in g(*point)) > 3 * _SMALL:
        return
    argnums = tuple(range(len(point)))
    forward, reverse = jacfwd(g, argnums)(*point), jacrev(g, argnums)(*point)
    for i, row in enumerate(forward):
        for j, block in enumerate(row):
            require_equal(f"jacrev against jacfwd, output {i}, operand {j}", reverse[i][j], block, 100)


# second order


def _real_form(case: Case, rng: np.random.Generator) -> tuple[Callable[..., list[Any]], list[Any], list[Any]]:
    """The primitive from reals to reals, complex values split in two; a point and a direction."""
    positions = case.active()
    f = case.function(positions, floats_only=True)
    values = pick(case, positions)
    is_complex = [v.dtype.kind == "c" for v in values]
    point: list[Any] = []
    for value, split in zip(values, is_complex, strict=True):
        point += [np.real(value), np.imag(value)] if split else [value]

    def g(*parts: Any) -> list[Any]:
        rest = iter(parts)
        merged = [complex_(next(rest), next(rest)) if split else next(rest) for split in is_complex]
        outs: list[Any] = []
        for out in f(*merged):
            outs += [real(out), imag(out)] if out.dtype.kind == "c" else [out]
        return outs

    return g, point, [random_like(rng, x) for x in point]


def check_second_order(case: Case) -> None:
    """Second derivatives along two directions: four nestings, differences, and the four Hessians when small."""
    rng = np.random.default_rng(SEED)
    g, point, u = _real_form(case, rng)
    v = [random_like(rng, x) for x in point]
    n = len(point)
    outs = g(*point)
    weights = [random_like(rng, o) for o in outs]

    def forward(*xs: Any) -> Any:
        return jvp(g, xs, tuple(v))[1]

    def reverse(*xs: Any) -> Any:
        return list(vjp(g, *xs)[1](weights))

    twice = {
        "fwd-fwd": inner(weights, jvp(forward, tuple(point), tuple(u))[1]),
        "fwd-rev": inner(v, jvp(reverse, tuple(point), tuple(u))[1]),
        "rev-fwd": inner(u, vjp(forward, *point)[1](weights)),
        "rev-rev": inner(u, vjp(reverse, *point)[1](v)),
    }
    tangents = difference(lambda *xs: forward(*xs), point, u)
    size = sum(float(np.sum(np.abs(t))) for t in tangents)
    numeric, count = inner(weights, tangents), sum(o.size for o in outs)
    for nesting, value in twice.items():
        slack = 1e3 * fine([*point, *outs])
        require_close(f"{nesting} against fwd-fwd", value, twice["fwd-fwd"], slack, slack * (1 + size))
        atol = case.atol * (1 + count) + case.rtol * size + count * noise(forward(*point))
        require_close(f"{nesting} against differences of the jvp", value, numeric, case.rtol, atol)
    if case.stages_reverse:
        check_staged(lambda *a: jvp(reverse, a[:n], a[n:])[1], [*point, *u])
    if case.order >= 3:
        _check_third_order(case, forward, reverse, point, (u, v, weights))
    if sum(x.size for x in point) <= _SMALL:
        _check_hessians(g, point, weights)


def _check_third_order(
    case: Case, forward: Any, reverse: Any, point: list[Any], directions: tuple[Any, Any, Any]
) -> None:
    """One derivative more: forward and reverse alone against differences of the second."""
    u, v, weights = directions

    def second(*xs: Any) -> Any:
        return jvp(forward, xs, tuple(u))[1]

    def second_reverse(*xs: Any) -> Any:
        return list(vjp(reverse, *xs)[1](v))

    numeric = difference(second, point, v)
    size = sum(float(np.sum(np.abs(t))) for t in numeric)
    expected = inner(weights, numeric)
    atol = case.rtol * (1 + size) * 10
    third = {
        "fwd-fwd-fwd": inner(weights, jvp(second, tuple(point), tuple(v))[1]),
        "rev-rev-rev": inner(v, vjp(second_reverse, *point)[1](u)),
    }
    for nesting, value in third.items():
        require_close(f"{nesting} against differences", value, expected, case.rtol * 10, atol)


def _check_hessians(g: Callable[..., Any], point: list[Any], weights: list[Any]) -> None:
    """The four Hessians, which batch every rule that second derivatives use."""

    def scalar(*xs: Any) -> Any:
        total = None
        for out, weight in zip(g(*xs), weights, strict=True):
            term = mul(out, weight)
            term = reduce_sum(term, axes=tuple(range(len(term.shape)))) if term.shape else term
            total = term if total is None else add(total, term)
        return total

    argnums = tuple(range(len(point)))
    modes = ("fwd-fwd", "fwd-rev", "rev-fwd", "rev-rev")
    found = {mode: hessian(scalar, argnums, mode=mode)(*point) for mode in modes}
    for mode in modes[1:]:
        for row, expected_row in zip(found[mode], found["fwd-fwd"], strict=True):
            for got, expected in zip(row, expected_row, strict=True):
                require_equal(f"Hessian {mode} against fwd-fwd", got, expected, 1000)
