"""Kinks: the operations of a run that are not differentiable where they were evaluated, and the one-sided derivatives.

A derivative at a kink is a convention (|x|' at 0 is 0 here). This module says where a value rests on one. One-sided
derivatives are exact: forward mode, in which an operation at a kink gives its own one-sided derivative (the chain rule
of directional derivatives; A. Griewank, On stable piecewise linearization and generalized algorithmic differentiation,
2013) and truth values are those of a step further on. Where first derivatives do not tell (a root of 0) they are
estimated, and marked so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from functrace import tree
from functrace.core.primitive import Primitive
from functrace.core.trace import EVAL, Trace, reset_trace, set_trace
from functrace.core.types import aval_of, is_inexact
from functrace.inspect.formula import Symbol, Text, array_text, escape, formula_of
from functrace.inspect.watch import Watching, argument_labels, flatten_call
from functrace.interpreters.jvp import JVPTrace, JVPTracer
from functrace.transforms._flatten import FlatFunction, check_callable, check_like
from functrace.util import Source

__all__ = ["ActiveKink", "Kinks", "OneSided", "kinks"]


class ActiveKink(NamedTuple):
    """One operation at a kink.

    Attributes:
        operation: how it is written, with operands x, y ...
        what: as in "tie" or "boundary".
        source: the user's line.
        place: the loops and calls it is in; empty at the top.
        positions: indices of the elements at the kink; one empty tuple for a scalar.
        operands: the values of the operands.
        distance: how far the nearest element is from the kink.
    """

    operation: str
    what: str
    source: Source | None
    place: str
    positions: list[tuple[int, ...]]
    operands: list[Any]
    distance: float

    def __str__(self) -> str:
        at = ""
        if self.positions and self.positions[0]:
            shown = ", ".join(str(list(map(int, p))) for p in self.positions[:3])
            at = f" at {shown}" + (f" and {len(self.positions) - 3} more" if len(self.positions) > 3 else "")
        values = ", ".join(f"{n} = {array_text(v, 6)}" for n, v in zip("xyzw", self.operands, strict=False))
        near = f", {self.distance:.3g} away" if self.distance else ""
        lines = [f"{self.operation}: {self.what}{at}{near}", f"  where: {self.source}"]
        if self.place:
            lines.append(f"  inside: {self.place}")
        return "\n".join([*lines, f"  got: {values}"])


class OneSided(NamedTuple):
    """The derivatives from the left and from the right along one direction, each shaped like the output.

    Attributes:
        label: the input, as in "x[2]", or "along the direction".
        left, right: the limits of the difference quotients for steps backwards and forwards.
        estimated: whether they were estimated from steps of finite length.
    """

    label: str
    left: Any
    right: Any
    estimated: bool

    @property
    def smooth(self) -> bool:
        """Whether both agree, so that the kink does not show in this direction."""
        pairs = zip(tree.leaves(self.left), tree.leaves(self.right), strict=True)
        tolerance = 1e-4 if self.estimated else 1e-12
        return all(bool(np.allclose(a, b, rtol=tolerance, atol=tolerance) and np.isfinite(a).all()) for a, b in pairs)


class Kinks:
    """The kinks that a value rests on; prints as a report.

    Attributes:
        active: the operations at kinks, in the order they ran.
        one_sided: the derivatives on either side, per input or along the direction; empty without kinks.
        finite: whether the value and its derivative are finite; at a pole (1/x or log x at 0) they are not.
    """

    def __init__(self, active: list[ActiveKink], one_sided: list[OneSided], skipped: int, finite: bool = True) -> None:
        self.active, self.one_sided, self.finite, self._skipped = active, one_sided, finite, skipped

    def __bool__(self) -> bool:
        return bool(self.active)

    def __len__(self) -> int:
        return len(self.active)

    def __repr__(self) -> str:
        if not self.active and not self.finite:
            return "no kinks, but the value or a derivative is not finite here: check_nans says where that arose"
        if not self.active:
            return "no kinks: every operation is differentiable here"
        lines = [str(kink) for kink in self.active]
        if self.one_sided:
            lines.append("one-sided derivatives")
            width = max(len(side.label) for side in self.one_sided)
            for side in self.one_sided:
                left, right = (_tree_text(v) for v in (side.left, side.right))
                note = " (estimated)" if side.estimated else ""
                agree = ", they agree" if side.smooth else ""
                lines.append(f"  {side.label:<{width}}  left {left}, right {right}{agree}{note}")
        if self._skipped:
            lines.append(f"  {self._skipped} inputs are not listed; give direction= for a derivative along a direction")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


def _tree_text(values: Any) -> str:
    return ", ".join(array_text(v, 6) for v in tree.leaves(values))


class _KinkTrace(Watching, JVPTrace):
    """Forward mode at plain values. It notes kinks; with `limits` it gives what is on the side of the tangent."""

    name = "kinks"

    def __init__(self, parent: Trace, limits: bool, within: float) -> None:
        super().__init__(parent)
        self.limits, self.within = limits, within
        self.found: list[ActiveKink] = []
        self.unknown = False

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        own = [isinstance(a, JVPTracer) and a._trace is self for a in args]
        if not any(own):
            return self.parent.process(primitive, args, params)
        if self.opens(primitive):
            return self.open(primitive, args, params)
        out = super().process(primitive, args, params)
        primals = [a.primal if mine else a for a, mine in zip(args, own, strict=True)]
        dots = [a.tangent if mine else None for a, mine in zip(args, own, strict=True)]
        if primitive.kink is None or all(d is None for d in dots) or not is_inexact(aval_of(primals[0]).dtype):
            return out
        distance = np.asarray(primitive.kink.distance(*map(np.asarray, primals), **params))
        close = distance <= self.within
        if not close.any():
            return out
        names = [Symbol(n) for n in "xyzw"[: len(primals)]]
        self.found.append(
            ActiveKink(
                Text()(formula_of(primitive, names, [aval_of(p) for p in primals], params)),
                primitive.kink.what,
                self.line(),
                self.place(),
                [tuple(map(int, p)) for p in np.argwhere(close)] if close.ndim else [()],
                primals,
                float(distance[close].min()),
            )
        )
        return self.moved(primitive, primals, dots, params, out, distance == 0) if self.limits else out

    def moved(
        self, primitive: Primitive, primals: list[Any], dots: list[Any], params: Any, out: JVPTracer, active: Any
    ) -> Any:
        """The output a step further on, and its one-sided derivative."""
        kink = primitive.kink
        assert kink is not None
        if not active.any():
            return out
        if primitive.multiple:
            self.unknown = True
            return out
        dtype = np.asarray(out.primal).dtype
        if kink.limit is None:
            if not is_inexact(dtype):
                self.unknown = True
                return out
            return JVPTracer(self, out.primal, _where(active, np.nan, _filled(out.tangent, out.primal)))
        points = [np.asarray(p) for p in primals]
        moves = [np.zeros(p.shape, p.dtype) if d is None else np.asarray(d) for p, d in zip(points, dots, strict=True)]
        value, tangent = kink.limit(points, moves, **params)
        self.unknown |= bool(not is_inexact(dtype) and np.isnan(np.where(active, tangent, 0.0)).any())
        primal = _where(active, value, out.primal).astype(dtype)
        if not is_inexact(dtype):
            return JVPTracer(self, primal, None)
        tangent = _where(active, tangent, _filled(out.tangent, out.primal))
        if primitive.nondifferentiable and not np.isnan(tangent).any():
            return JVPTracer(self, primal, None)
        return JVPTracer(self, primal, tangent.astype(dtype))


def _where(mask: Any, x: Any, y: Any) -> Any:
    out = np.where(mask, x, y)
    return out if out.ndim else out[()]


def _filled(tangent: Any, primal: Any) -> Any:
    return np.zeros_like(primal) if tangent is None else tangent


def _push(flat: FlatFunction, dots: Sequence[Any], limits: bool, within: float) -> tuple[list[Any], list[Any], Any]:
    """Outputs, their tangents and the trace of one sweep at plain values."""
    trace = _KinkTrace(EVAL, limits, within)
    inputs = [JVPTracer(trace, p, d) for p, d in zip(flat.leaves, dots, strict=True)]
    for tracer, is_weak in zip(inputs, flat.weak, strict=True):
        tracer.weak = is_weak
    token = set_trace(trace)
    try:
        with np.errstate(all="ignore"):
            outs = flat(*inputs)
    finally:
        reset_trace(token)
        trace.alive = False
    own = [isinstance(o, JVPTracer) and o._trace is trace for o in outs]
    values = [o.primal if mine else o for o, mine in zip(outs, own, strict=True)]
    tangents = [_filled(o.tangent if mine else None, v) for o, mine, v in zip(outs, own, values, strict=True)]
    return values, tangents, trace


def _side(flat: FlatFunction, values: list[Any], dots: list[Any], sign: int) -> tuple[list[Any], bool]:
    """The one-sided derivative along sign * dots, as a derivative along dots; and whether it is an estimate."""
    moved, tangents, trace = _push(flat, [None if d is None else sign * d for d in dots], True, 0.0)
    slopes = []
    estimate: list[Any] | None = None
    for i, (value, limit, tangent) in enumerate(zip(values, moved, tangents, strict=True)):
        value, limit, tangent = (np.asarray(v, float) for v in (value, limit, tangent))
        jump = np.abs(limit - value) > 1e-12 * (1.0 + np.abs(value))
        slope = np.where(jump, np.copysign(np.inf, limit - value), tangent)
        if trace.unknown or np.isnan(slope).any():
            estimate = _estimated(flat, values, dots, sign) if estimate is None else estimate
            slope = estimate[i] if trace.unknown else np.where(np.isnan(slope), estimate[i], slope)
        slopes.append(_scalar(sign * slope + 0.0))  # no negative zeros
    return slopes, estimate is not None


def _estimated(flat: FlatFunction, values: list[Any], dots: list[Any], sign: int) -> list[Any]:
    """The slopes of shorter and shorter steps, where these settle; infinite where they keep growing, else NaN."""
    sizes = [np.max(np.abs(p), initial=0.0) for p, d in zip(flat.leaves, dots, strict=True) if d is not None]
    scale = float(max(sizes, default=0.0))
    slopes: list[list[Any]] = []
    for length in (1e-5, 1e-6, 1e-7):
        step = sign * length * max(scale, 1.0)
        points = [p if d is None else p + step * d for p, d in zip(flat.leaves, dots, strict=True)]
        with np.errstate(all="ignore"):
            outs = flat(*points)
        slopes.append([np.asarray((o - v) / abs(step), float) for o, v in zip(outs, values, strict=True)])
    found = []
    for first, second, third in zip(*slopes, strict=True):
        settled = np.abs(third - second) <= 1e-4 * (1.0 + np.abs(third))
        with np.errstate(all="ignore"):
            growing = (third / second > 1.5) & (second / first > 1.5)
        found.append(np.where(settled, third, np.where(growing, np.copysign(np.inf, third), np.nan)))
    return found


def _scalar(value: Any) -> Any:
    return value if np.ndim(value) else np.asarray(value)[()]


def kinks(fun: Callable[..., Any]) -> Callable[..., Kinks]:
    """The operations of a function that are not differentiable at a point, and the derivatives on either side.

    Args:
        fun: function of real scalars, arrays or pytrees of them.

    Returns:
        A function of the same arguments, and of

        - `direction`: a tuple like the arguments, to have the derivatives along it instead of those in each input;
        - `within`: also name kinks that are this close;
        - `largest`: list so many inputs at most, 16 by default.

        It gives a `Kinks`, which is false if there are none.

    Example:
        >>> import numpy as np
        >>> from functrace.inspect import kinks
        >>> report = kinks(lambda x: np.abs(x) + np.maximum(x, 2.0 * x))(0.0)
        >>> [kink.what for kink in report.active]
        ['modulus of 0', 'tie']
        >>> report.one_sided[0].left, report.one_sided[0].right
        (np.float64(0.0), np.float64(3.0))
    """
    check_callable(fun, "kinks")

    @functools.wraps(fun)
    def find(*args: Any, direction: Sequence[Any] | None = None, within: float = 0.0, largest: int = 16) -> Kinks:
        flat = flatten_call(fun, args, "kinks")
        avals = [aval_of(leaf) for leaf in flat.leaves]
        everything = [np.ones(a.shape, a.dtype) if is_inexact(a.dtype) else None for a in avals]
        values, slopes, trace = _push(flat, everything, False, within)
        finite = all(np.isfinite(v).all() for v in (*values, *slopes) if is_inexact(np.asarray(v).dtype))
        if not trace.found or any(np.asarray(v).dtype.kind == "c" for v in (*flat.leaves, *values)):
            return Kinks(trace.found, [], 0, finite)
        directions = []
        skipped = 0
        if direction is not None:
            dots = check_like(tuple(direction), flat.in_tree, avals, "tangent")
            directions.append(("along the direction", dots))
        else:
            for i, label in enumerate(argument_labels(fun, args)):
                if everything[i] is None:
                    continue
                for index in np.ndindex(avals[i].shape):
                    skipped += len(directions) >= largest
                    if len(directions) < largest:
                        unit = np.zeros(avals[i].shape, avals[i].dtype)
                        unit[index] = 1
                        dots = [None] * i + [unit if index else unit[()]] + [None] * (len(avals) - i - 1)
                        directions.append((label + (str(list(index)) if index else ""), dots))
        sides = []
        for label, dots in directions:
            right, first = _side(flat, values, dots, 1)
            left, second = _side(flat, values, dots, -1)
            left, right = (tree.unflatten(flat.out_tree, v) for v in (left, right))
            sides.append(OneSided(label, left, right, first or second))
        return Kinks(trace.found, sides, skipped, finite)

    return find
