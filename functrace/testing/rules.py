"""The rule checker: one case of a primitive, every rule against the others and against numerical derivatives."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from functrace.core.ir import check_jaxpr, eval_jaxpr
from functrace.core.types import aval_of, float0, is_inexact
from functrace.errors import ArgumentError, MissingRuleError
from functrace.primitives.elementwise import complex_, imag, real
from functrace.primitives.families import add, mul, reduce_sum
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
from functrace.transforms import hessian, jacfwd, jacrev, jvp, linear_transpose, linearize, make_jaxpr, vjp, vmap

__all__ = ["check_primitive"]

_BATCH = 3
_SMALL = 12


def check_primitive(case: Case) -> None:
    """Check every rule of a primitive at one case.

    The result of `impl` against `abstract_eval`; `jvp` against differences, the complex step and `linearize`;
    `transpose` against `jvp`; `batch` against a Python loop; staged against eager; second derivatives in all four
    nestings against each other and against differences of the first; single precision against double.

    Args:
        case: the primitive with operands.

    Raises:
        RuleError: naming the primitive, the rule and the numbers.

    Example:
        >>> import numpy as np
        >>> from functrace.primitives.elementwise import sin
        >>> from functrace.testing import Case, check_primitive
        >>> check_primitive(Case(sin, (np.array([0.1, 0.2]),), complex_step=True))
    """
    with _naming(case, "abstract_eval"):
        _check_evaluation(case)
    with _naming(case, "staging"):
        _check_staged(case.function(case.arrays()), _pick(case, case.arrays()))
    with _naming(case, "batch"):
        _check_batch(case)
    differentiable = bool(case.active()) and any(is_inexact(o.dtype) for o in case.evaluate())
    with _naming(case, "jvp"):
        _check_no_tangents(case)
    if case.order >= 1 and differentiable:
        _check_first_order(case)
    if case.order >= 2 and differentiable:
        with _naming(case, "second order"):
            _check_second_order(case)
    if case.primitive.transpose is not None:
        with _naming(case, "transpose"):
            _check_transpose(case)
    single = case.single()
    if single is not None:
        with _naming(case, "single precision"):
            _check_single(case, single)


@contextlib.contextmanager
def _naming(case: Case, rule: str) -> Iterator[None]:
    """Put the primitive and the rule in front of whatever goes wrong."""
    try:
        with np.errstate(all="ignore"):
            yield
    except Exception as error:
        text = str(error) if isinstance(error, RuleError) else f"{type(error).__name__}: {error}"
        raise RuleError(f"{case}: {rule}: {text}") from error


def _pick(case: Case, positions: Sequence[int]) -> list[Any]:
    return [case.operands[i] for i in positions]


# evaluation


def _check_evaluation(case: Case) -> None:
    """`impl` gives what `abstract_eval` says, on any memory layout, and changes no operand."""
    avals = [aval_of(x) for x in case.operands]
    expected = case.primitive.abstract_eval(*avals, **case.params)
    expected = list(expected) if case.primitive.multiple else [expected]
    before = [np.array(x, copy=True) for x in case.operands]
    outs = case.evaluate()
    if len(outs) != len(expected):
        raise RuleError(f"impl gives {len(outs)} outputs, abstract_eval {len(expected)}")
    for i, (out, aval) in enumerate(zip(outs, expected, strict=True)):
        require_type(f"output {i} of impl", out, aval)
    for layout in (_readonly, np.asfortranarray, _strided):
        moved = [layout(x) if isinstance(x, np.ndarray) else x for x in case.operands]
        for i, (out, same) in enumerate(zip(case.evaluate(*moved), outs, strict=True)):
            require_equal(f"output {i} of impl on {layout.__name__.strip('_')} operands", out, same)
    for i, (x, copy) in enumerate(zip(case.operands, before, strict=True)):
        if not np.array_equal(x, copy, equal_nan=is_inexact(copy.dtype)):
            raise RuleError(f"impl changed operand {i}")


def _readonly(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x.flags.writeable = False
    return x


def _strided(x: np.ndarray) -> np.ndarray:
    wide = np.zeros(tuple(2 * n for n in x.shape), x.dtype)
    view = wide[(slice(None, None, 2),) * x.ndim]
    view[...] = x
    return view


def _check_staged(f: Callable[..., Any], values: Sequence[Any]) -> None:
    """A function recorded, checked and evaluated again gives what it gives eagerly."""
    closed = make_jaxpr(f)(*values)
    check_jaxpr(closed.jaxpr)
    if "lambda" not in repr(closed):
        raise RuleError("the jaxpr does not print")
    staged = eval_jaxpr(closed.jaxpr, closed.consts, *values)
    eager = f(*values)
    for i, (got, expected, aval) in enumerate(zip(staged, eager, closed.out_avals, strict=True)):
        require_type(f"eager output {i} against the jaxpr's type", expected, aval)
        require_equal(f"staged output {i} against eager", got, expected)


# batching


def _subsets(positions: Sequence[int], limit: int = 3) -> list[tuple[int, ...]]:
    """All non-empty subsets, or for many positions the single ones, the pairs of neighbours and all."""
    if len(positions) <= limit:
        sizes = range(1, len(positions) + 1)
        return [s for n in sizes for s in itertools.combinations(positions, n)]
    return [*((p,) for p in positions), *itertools.pairwise(positions), tuple(positions)]


def _stacked(rng: np.random.Generator, value: Any) -> Any:
    """A batch of values close to the given one; integers and booleans are rolled, so that they stay in range."""
    value = np.asarray(value)
    if is_inexact(value.dtype):
        rows = [value, *(value + 1e-3 * random_like(rng, value) for _ in range(_BATCH - 1))]
    else:
        rows = [np.roll(value.ravel(), i).reshape(value.shape) for i in range(_BATCH)]
    return np.stack(rows).astype(value.dtype)


def _check_batch(case: Case) -> None:
    """vmap over every subset of the operands, once and twice, equals a Python loop."""
    rng = np.random.default_rng(SEED)
    positions = case.arrays()
    for subset in _subsets(positions):
        f = case.function(subset)
        stacks = [_stacked(rng, case.operands[i]) for i in subset]
        rows = [[s[k] for s in stacks] for k in range(_BATCH)]
        loop = [np.stack(column) for column in zip(*[f(*row) for row in rows], strict=True)]
        what = f"vmap over operands {subset}"
        for size in (_BATCH, 1):
            for i, (got, expected) in enumerate(zip(vmap(f)(*[s[:size] for s in stacks]), loop, strict=True)):
                require_type(f"{what}, output {i}", got, aval_of(expected[:size]))
                require_equal(f"{what} against a loop, output {i}", got, expected[:size])
        _check_staged(vmap(f), stacks)
        if len(subset) == len(positions):
            # Batched by two nested maps in turn: the batch rule itself is batched.
            twice = vmap(vmap(f))(*[np.stack([s, s[::-1]]) for s in stacks])
            for got, expected in zip(twice, loop, strict=True):
                require_equal(f"{what}, twice", got, np.stack([expected, expected[::-1]]))
    if len(positions) == 2:
        _check_crossed(case, rng, positions)


def _check_crossed(case: Case, rng: np.random.Generator, positions: Sequence[int]) -> None:
    """One operand batched by the inner map, the other by the outer."""
    f = case.function(positions)
    x, y = (_stacked(rng, case.operands[i])[:2] for i in positions)
    crossed = vmap(lambda a: vmap(lambda b: f(a, b))(y))(x)
    loop = [[f(a, b) for b in y] for a in x]
    for i, got in enumerate(crossed):
        expected = np.stack([np.stack([cell[i] for cell in row]) for row in loop])
        what = f"vmap over operand {positions[0]} of vmap over operand {positions[1]}"
        require_equal(what, got, expected)


# first order


def _check_first_order(case: Case) -> None:
    rng = np.random.default_rng(SEED)
    for subset in _subsets(case.active()):
        f = case.function(subset, floats_only=True)
        values = _pick(case, subset)
        direction = [random_like(rng, v) for v in values]
        at = f"with respect to operands {subset}"
        with _naming(case, "jvp"):
            outs, tangents = jvp(f, tuple(values), tuple(direction))
            _check_tangents(case, f, values, direction, outs, tangents, at)
            if set(subset) != set(case.active()):
                _check_zero_tangents(case, subset, direction, tangents, at)
        with _naming(case, "linearize"):
            _, f_jvp = linearize(f, *values)
            for got, expected in zip(f_jvp(*direction), tangents, strict=True):
                require_type(f"output tangent {at}", got, aval_of(expected))
                require_equal(f"linearize against jvp {at}", got, expected)
        with _naming(case, "transpose"):
            _check_pullback(rng, f, values, outs, direction, tangents, at)
        with _naming(case, "staging"):
            n = len(values)
            weights = [random_like(rng, o) for o in outs]
            _check_staged(lambda *a: jvp(f, a[:n], a[n:])[1], [*values, *direction])  # noqa: B023
            if case.stages_reverse:
                _check_staged(lambda *a: list(vjp(f, *a[:n])[1](list(a[n:]))), [*values, *weights])  # noqa: B023
    with _naming(case, "batch of the derivative"):
        _check_batched_derivative(case, rng)


def _check_no_tangents(case: Case) -> None:
    """Outputs without derivative have a tangent that says so: float0 for integers, zeros for constant floats."""
    floats = [i for i in case.arrays() if is_inexact(case.operands[i].dtype)]
    positions = floats if case.primitive.nondifferentiable else case.active()
    values = _pick(case, positions)
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
    _, same = jvp(case.function(active, floats_only=True), tuple(_pick(case, active)), full)
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
    values = _pick(case, positions)
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


def _check_second_order(case: Case) -> None:
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
        _check_staged(lambda *a: jvp(reverse, a[:n], a[n:])[1], [*point, *u])
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


# linear primitives


def _check_transpose(case: Case) -> None:
    """The transpose in each set of operands that the primitive is affine in; a refusal where it is not."""
    rng = np.random.default_rng(SEED)
    positions = case.arrays() if case.make_params is None else case.active()
    candidates = [i for i in positions if is_inexact(case.operands[i].dtype)]
    for subset in _subsets(candidates, 2):
        f = case.function(subset)
        values = _pick(case, subset)
        if not all(v.size for v in values):
            continue  # of no elements every function is linear
        x = [random_like(rng, v) for v in values]
        outs = f(*x)
        if not all(is_inexact(o.dtype) for o in outs):
            continue
        weights = [random_like(rng, o) for o in outs]
        if not _is_affine(rng, f, x):
            if sum(o.size for o in outs):
                _require_refusal(f, values, weights, subset)
            continue
        shifts = f(*[v.dtype.type(0) * v for v in x])
        outs = [o - shift for o, shift in zip(outs, shifts, strict=True)]
        bars = linear_transpose(f, *values)(weights)
        for value, bar in zip(values, bars, strict=True):
            require_type(f"cotangent of operands {subset}", bar, aval_of(value))
        size = sum(float(np.sum(np.abs(o))) for o in outs)
        what = f"linear in operands {subset}: <x, A'w> against <Ax, w>"
        slack = fine([*x, *outs])
        require_close(what, inner(x, bars), inner(outs, weights), slack, slack * (1 + size))
        _check_staged(lambda *ws: list(linear_transpose(f, *values)(list(ws))), weights)  # noqa: B023


def _is_affine(rng: np.random.Generator, f: Callable[..., Any], x: list[Any]) -> bool:
    y = [random_like(rng, v) for v in x]
    combined = f(*[v.dtype.type(2) * v - w for v, w in zip(x, y, strict=True)])
    triples = list(zip(combined, f(*x), f(*y), strict=True))
    slack = fine([*x, *combined])
    return all(np.allclose(c, 2 * a - b, rtol=slack, atol=slack) for c, a, b in triples)


def _require_refusal(f: Callable[..., Any], values: list[Any], weights: list[Any], subset: Sequence[int]) -> None:
    try:
        linear_transpose(f, *values)(weights)
    except (MissingRuleError, ArgumentError):
        return
    raise RuleError(f"transposed in operands {subset}, in which the primitive is not linear")


# single precision


def _check_single(case: Case, single: Case) -> None:
    """Single precision stays single, and is the double precision result to rounding."""
    _check_evaluation(single)
    if case.order < 1 or not case.active() or not any(is_inexact(o.dtype) for o in single.evaluate()):
        return
    rng = np.random.default_rng(SEED)
    values = _pick(single, single.active())
    direction = [random_like(rng, v) for v in values]
    f = single.function(single.active(), floats_only=True)
    outs, tangents = jvp(f, tuple(values), tuple(direction))
    wide = replace(case, operands=tuple(_widen(x, y) for x, y in zip(single.operands, case.operands, strict=True)))
    wide_values = _pick(wide, single.active())
    g = wide.function(single.active(), floats_only=True)
    wide_direction = tuple(_widen(d, x) for d, x in zip(direction, wide_values, strict=True))
    _, wide_tangents = jvp(g, tuple(wide_values), wide_direction)
    weights = [random_like(rng, o) for o in outs]
    bars = vjp(f, *values)[1](weights)
    wide_outs = g(*wide_values)
    wide_bars = vjp(g, *wide_values)[1]([_widen(w, o) for w, o in zip(weights, wide_outs, strict=True)])
    for out, tangent, expected in zip(outs, tangents, wide_tangents, strict=True):
        require_type("tangent", tangent, aval_of(out))
        require_close("jvp against double precision", tangent, expected, 2e-3, 2e-4 * (1 + scale(expected)))
    for value, bar, expected in zip(values, bars, wide_bars, strict=True):
        require_type("cotangent", bar, aval_of(value))
        require_close("vjp against double precision", bar, expected, 2e-3, 2e-4 * (1 + scale(expected)))


def _widen(value: Any, like: Any) -> Any:
    return np.asarray(value).astype(aval_of(like).dtype)[()]
