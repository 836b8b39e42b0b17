"""`check_rule`: a user's derivative rule against the function it belongs to, rule by rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace import tree
from functrace.core.types import aval_of, is_inexact
from functrace.errors import ArgumentError
from functrace.testing.numerical import SEED, RuleError, difference, inner, noise, random_like, require_close
from functrace.transforms import eval_jaxpr, jvp, make_jaxpr, vjp, vmap

__all__ = ["check_rule"]

_BATCH = 3


def check_rule(
    f: Callable[..., Any],
    args: Sequence[Any],
    *,
    order: int = 2,
    batch: bool = True,
    stage: bool = True,
    rtol: float = 1e-6,
    atol: float = 1e-8,
) -> None:
    """Check the derivative rules of a `custom_jvp` or `custom_vjp` function, or of a primitive a function applies.

    Each check runs, whatever the others find:

    - "value": under both modes the rules give the function's own output, of the same types;
    - "jvp": forward derivatives against differences of the function;
    - "linearity": the forward derivative is linear in the tangents;
    - "vjp": reverse derivatives against differences of the function;
    - "transpose": the dot-product test, <w, Jv> = <J'w, v>;
    - "second order": the four nestings against differences of the first derivative;
    - "batching": `vmap` of the function and of both derivatives against a Python loop;
    - "staging": the function recorded as a jaxpr, and its derivative.

    Args:
        f: the function.
        args: its arguments: pytrees of arrays in float64 or complex128, away from kinks.
        order: the highest order to check, 1 or 2.
        batch, stage: whether to check these; a function with Python control flow over its arguments allows neither.
        rtol, atol: tolerances of comparisons with differences.

    Raises:
        RuleError: names the checks that fail, with the numbers, and those that pass.
        ArgumentError: no argument can be differentiated.

    Example:
        >>> import numpy as np
        >>> import functrace.testing
        >>> @functrace.custom_jvp
        ... def f(x):
        ...     return np.sin(x)
        >>> @f.defjvp
        ... def f_jvp(primals, tangents):
        ...     return f(*primals), np.cos(primals[0]) * tangents[0]
        >>> functrace.testing.check_rule(f, (0.5,))
    """
    checker = _Checker(f, args, rtol, atol)
    checks: dict[str, Callable[[], None]] = {
        "value": checker.value,
        "jvp": checker.jvp,
        "linearity": checker.linearity,
        "vjp": checker.vjp,
        "transpose": checker.transpose,
    }
    if order >= 2:
        checks["second order"] = checker.second_order
    if batch:
        checks["batching"] = checker.batching
    if stage:
        checks["staging"] = checker.staging
    failed: dict[str, str] = {}
    for name, check in checks.items():
        try:
            with np.errstate(all="ignore"):
                check()
        except Exception as error:
            text = str(error) if isinstance(error, RuleError) else f"{type(error).__name__}: {error}"
            failed[name] = text.replace("\n", "\n    ")
    if failed:
        passed = [name for name in checks if name not in failed]
        lines = [f"the derivative rules of {getattr(f, '__name__', f)!s} fail {len(failed)} of {len(checks)} checks"]
        lines += [f"  {name}: {text}" for name, text in failed.items()]
        raise RuleError("\n".join([*lines, f"  passed: {', '.join(passed) or 'none'}"]))


class _Checker:
    """The checks of one function at one point, over the floating point leaves of its arguments."""

    def __init__(self, f: Callable[..., Any], args: Sequence[Any], rtol: float, atol: float) -> None:
        self.f, self.args, self.rtol, self.atol = f, tuple(args), rtol, atol
        static = getattr(f, "nondiff_argnums", ())
        self.static = {i % len(self.args) for i in static}
        dynamic = tuple(a for i, a in enumerate(self.args) if i not in self.static)
        leaves, self.structure = tree.flatten(dynamic)
        self.leaves = [leaf if hasattr(leaf, "dtype") else np.asarray(leaf)[()] for leaf in leaves]
        self.places = [i for i, leaf in enumerate(self.leaves) if is_inexact(leaf.dtype)]
        self.point = [self.leaves[i] for i in self.places]
        if not self.point:
            raise ArgumentError("check_rule needs an argument that has a derivative", remedy="pass floats")
        rng = np.random.default_rng(SEED)
        self.u, self.v = ([random_like(rng, x) for x in self.point] for _ in range(2))
        self.outs = self.flat(*self.point)
        self.floats = [i for i, o in enumerate(self.outs) if is_inexact(o.dtype)]
        self.weights = [random_like(rng, o) for o in self.smooth(*self.point)]
        self.noise = noise(self.outs)
        eps = max(float(np.finfo(x.dtype).eps) for x in self.point)
        self.fine = 1e4 * eps

    def flat(self, *values: Any) -> list[Any]:
        """The function of the floating point leaves, as a flat list."""
        leaves = list(self.leaves)
        for place, value in zip(self.places, values, strict=True):
            leaves[place] = value
        dynamic = iter(tree.unflatten(self.structure, leaves))
        out = self.f(*[a if i in self.static else next(dynamic) for i, a in enumerate(self.args)])
        return [o if hasattr(o, "dtype") else np.asarray(o)[()] for o in tree.leaves(out)]

    def smooth(self, *values: Any) -> list[Any]:
        """The outputs that have derivatives."""
        outs = self.flat(*values)
        return [outs[i] for i in self.floats]

    def forward(self, *values: Any) -> list[Any]:
        return jvp(self.smooth, tuple(values), tuple(self.v))[1]

    def reverse(self, *values: Any) -> list[Any]:
        return list(vjp(self.smooth, *values)[1](self.weights))

    def close(self, what: str, got: Any, expected: Any, rtol: float, atol: float) -> None:
        if aval_of(got) != aval_of(expected):
            raise RuleError(f"{what}: {aval_of(got)}, expected {aval_of(expected)}")
        require_close(what, got, expected, rtol, atol)

    def value(self) -> None:
        found = {
            "forward": jvp(self.flat, tuple(self.point), tuple(self.v))[0],
            "reverse": vjp(self.flat, *self.point)[0],
        }
        for mode, outs in found.items():
            if len(outs) != len(self.outs):
                raise RuleError(f"{len(outs)} outputs in {mode} mode, the function has {len(self.outs)}")
            for i, (got, expected) in enumerate(zip(outs, self.outs, strict=True)):
                self.close(f"output {i} in {mode} mode", got, expected, self.fine, self.fine)

    def jvp(self) -> None:
        for direction in (self.v, self.u):
            numeric = difference(self.smooth, self.point, direction)
            tangents = jvp(self.smooth, tuple(self.point), tuple(direction))[1]
            for i, (got, expected) in enumerate(zip(tangents, numeric, strict=True)):
                what = f"tangent of output {i} against differences"
                self.close(what, got, expected, self.rtol, self.atol + self.noise)

    def linearity(self) -> None:
        def along(direction: Sequence[Any]) -> list[Any]:
            return jvp(self.smooth, tuple(self.point), tuple(direction))[1]

        mixed = along([u.dtype.type(3) * u - v for u, v in zip(self.u, self.v, strict=True)])
        for got, a, b in zip(mixed, along(self.u), along(self.v), strict=True):
            size = float(np.max(np.abs(a), initial=0) + np.max(np.abs(b), initial=0))
            self.close("J(3u - v) against 3Ju - Jv", got, a.dtype.type(3) * a - b, self.fine, self.fine * (1 + size))

    def vjp(self) -> None:
        bars = self.reverse(*self.point)
        for x, bar in zip(self.point, bars, strict=True):
            if aval_of(bar) != aval_of(x):
                raise RuleError(f"cotangent {aval_of(bar)} of an argument {aval_of(x)}")
        for direction in (self.u, self.v):
            numeric = difference(self.smooth, self.point, direction)
            size = sum(float(np.sum(np.abs(t))) for t in numeric)
            atol = (self.atol + self.noise) * (1 + sum(t.size for t in numeric)) + self.rtol * size
            require_close(
                "<J'w, v> against <w, Jv> by differences",
                inner(direction, bars), inner(self.weights, numeric), self.rtol, atol,
            )  # fmt: skip

    def transpose(self) -> None:
        tangents, bars = self.forward(*self.point), self.reverse(*self.point)
        size = sum(float(np.sum(np.abs(t))) for t in tangents)
        got, expected = inner(self.v, bars), inner(tangents, self.weights)
        require_close("<J'w, v> against <w, Jv>", got, expected, self.fine, self.fine * (1 + size))

    def second_order(self) -> None:
        point, u = tuple(self.point), tuple(self.u)
        twice = {
            "forward over forward": inner(self.weights, jvp(self.forward, point, u)[1]),
            "forward over reverse": inner(self.v, jvp(self.reverse, point, u)[1]),
            "reverse over forward": inner(u, vjp(self.forward, *point)[1](self.weights)),
            "reverse over reverse": inner(u, vjp(self.reverse, *point)[1](self.v)),
        }
        found = self.forward(*point)
        tangents = difference(lambda *xs: self.forward(*xs), self.point, self.u)
        size = sum(float(np.sum(np.abs(t))) for t in tangents)
        count = sum(t.size for t in found)
        atol = self.atol * (1 + count) + self.rtol * size + count * noise(found)
        wrong = []
        for nesting, value in twice.items():
            try:
                require_close(nesting, value, inner(self.weights, tangents), self.rtol, atol)
            except RuleError as error:
                wrong.append(str(error))
        if wrong:
            raise RuleError("\n".join(wrong))

    def batching(self) -> None:
        rng = np.random.default_rng(SEED)
        stacks = [
            np.stack([x, *(x + x.dtype.type(1e-3) * random_like(rng, x) for _ in range(_BATCH - 1))])
            for x in self.point
        ]
        rows = [[s[k] for s in stacks] for k in range(_BATCH)]
        for name, g in (("value", self.flat), ("jvp", self.forward), ("vjp", self.reverse)):
            loop = [np.stack(column) for column in zip(*[g(*row) for row in rows], strict=True)]
            for got, expected in zip(vmap(g)(*stacks), loop, strict=True):
                size = float(np.max(np.abs(expected), initial=0))
                self.close(f"vmap of the {name} against a loop", got, expected, self.fine, self.fine * (1 + size))

    def staging(self) -> None:
        for name, g in (("value", self.flat), ("jvp", self.forward), ("vjp", self.reverse)):
            closed = make_jaxpr(g)(*self.point)
            staged = eval_jaxpr(closed.jaxpr, closed.consts, *self.point)
            for got, expected in zip(staged, g(*self.point), strict=True):
                self.close(f"staged {name} against eager", got, expected, self.fine, self.fine)
