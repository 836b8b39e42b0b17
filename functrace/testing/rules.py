"""The rule checker: one case of a primitive, every rule against the others and against numerical derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from functrace.core.types import aval_of, is_inexact
from functrace.errors import ArgumentError, MissingRuleError
from functrace.testing._derivatives import check_first_order, check_no_tangents, check_second_order
from functrace.testing._evaluation import check_batch, check_evaluation, check_staged, naming, pick, subsets
from functrace.testing.cases import Case
from functrace.testing.numerical import SEED, RuleError, fine, inner, random_like, require_close, require_type, scale
from functrace.transforms import jvp, linear_transpose, vjp

__all__ = ["check_primitive"]


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
    with naming(case, "abstract_eval"):
        check_evaluation(case)
    with naming(case, "staging"):
        check_staged(case.function(case.arrays()), pick(case, case.arrays()))
    with naming(case, "batch"):
        check_batch(case)
    differentiable = bool(case.active()) and any(is_inexact(o.dtype) for o in case.evaluate())
    with naming(case, "jvp"):
        check_no_tangents(case)
    if case.order >= 1 and differentiable:
        check_first_order(case)
    if case.order >= 2 and differentiable:
        with naming(case, "second order"):
            check_second_order(case)
    if case.primitive.transpose is not None:
        with naming(case, "transpose"):
            _check_transpose(case)
    single = case.single()
    if single is not None:
        with naming(case, "single precision"):
            _check_single(case, single)


# linear primitives


def _check_transpose(case: Case) -> None:
    """The transpose in each set of operands that the primitive is affine in; a refusal where it is not."""
    rng = np.random.default_rng(SEED)
    positions = case.arrays() if case.make_params is None else case.active()
    candidates = [i for i in positions if is_inexact(case.operands[i].dtype)]
    for subset in subsets(candidates, 2):
        f = case.function(subset)
        values = pick(case, subset)
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
        check_staged(lambda *ws: list(linear_transpose(f, *values)(list(ws))), weights)  # noqa: B023


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
    check_evaluation(single)
    if case.order < 1 or not case.active() or not any(is_inexact(o.dtype) for o in single.evaluate()):
        return
    rng = np.random.default_rng(SEED)
    values = pick(single, single.active())
    direction = [random_like(rng, v) for v in values]
    f = single.function(single.active(), floats_only=True)
    outs, tangents = jvp(f, tuple(values), tuple(direction))
    wide = replace(case, operands=tuple(_widen(x, y) for x, y in zip(single.operands, case.operands, strict=True)))
    wide_values = pick(wide, single.active())
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
