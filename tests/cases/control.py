"""Cases of the control-flow primitives, whose parameters are programs of the operands' types."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import functrace.numpy as fnp
from functrace import lax
from functrace.control import calls
from functrace.control.checkpointed_scan import checkpointed_scan
from functrace.control.cond import cond
from functrace.control.linear_solve import linear_solve
from functrace.control.saved_call import saved_call
from functrace.control.scan import scan
from functrace.control.while_loop import while_loop
from functrace.core.ir import Jaxpr, hoist_constants
from functrace.core.types import ShapedArray, aval_of
from functrace.interpreters.staging import stage
from functrace.testing import Case
from functrace.transforms import checkpoint_policies

rng = np.random.default_rng(20260711)


def normal(*shape: int) -> Any:
    return rng.normal(size=shape)[()]


def program(body: Callable[..., list[Any]], avals: list[ShapedArray]) -> Jaxpr:
    """A body without constants of its own."""
    jaxpr, constants = hoist_constants(stage(body, avals))
    assert not constants
    return jaxpr


def scan_case(name: str, body: Any, operands: tuple[Any, ...], consts: int, carry: int, **fields: Any) -> Case:
    """A scan of `body(*constants, *carry, *slices)`, a list of carry and outputs."""
    length, reverse = fields.pop("length", 4), fields.pop("reverse", False)

    def make_params(*operands: Any) -> dict[str, Any]:
        avals = [aval_of(x) for x in operands]
        slices = [ShapedArray(a.shape[1:], a.dtype) for a in avals[consts + carry :]]
        jaxpr = program(body, [*avals[: consts + carry], *slices])
        return {"jaxpr": jaxpr, "length": length, "reverse": reverse, "consts": consts, "carry": carry}

    return Case(scan, operands, name=f"scan-{name}", make_params=make_params, **fields)


def recurrent(w: Any, h: Any, x: Any) -> list[Any]:
    h = fnp.tanh(w @ h + x)
    return [h, fnp.sum(h * h)]


def counting(h: Any, i: Any, x: Any) -> list[Any]:
    return [fnp.sin(h) * x, i + 1, h * i]


def nested(h: Any, xs: Any) -> list[Any]:
    return [lax.scan(lambda h, x: (fnp.sin(h) + x, None), h, xs)[0]]


def choosing(w: Any, h: Any, flag: Any, x: Any) -> list[Any]:
    return [lax.cond(flag, lambda h: fnp.sin(h) * w, lambda h: h * h, h), x * h]


def known_carry(a: Any, b: Any, x: Any) -> list[Any]:
    """Affine in b and x, not in a, which goes its own way."""
    return [fnp.cos(a) * a, b * a + x, b + a * x]


def repeated(h: Any, x: Any) -> list[Any]:
    return [lax.while_loop(lambda h: fnp.sum(h * h) > 1.0, lambda h: 0.7 * h + 0.1 * fnp.tanh(x), h + 2.0 * x)]


SCANS = [
    scan_case("recurrent", recurrent, (normal(3, 3), normal(3), normal(4, 3)), 1, 1),
    scan_case("reverse", recurrent, (normal(2, 2), normal(2), normal(4, 2)), 1, 1, reverse=True),
    scan_case("scalars", lambda h, x: [fnp.sin(h) * x, h + x], (normal(), normal(5)), 0, 1, length=5),
    scan_case("integer-carry", counting, (normal(2), np.int64(1), normal(4, 2)), 0, 2),
    scan_case("no-inputs", lambda w, h: [fnp.sin(w * h)], (normal(2), normal(2)), 1, 1, length=3),
    scan_case("no-carry", lambda w, x: [fnp.exp(w * x)], (normal(2), normal(3, 2)), 1, 0, length=3),
    scan_case("zero-length", recurrent, (normal(2, 2), normal(2), np.zeros((0, 2))), 1, 1, length=0),
    scan_case("one-step", recurrent, (normal(2, 2), normal(2), normal(1, 2)), 1, 1, length=1),
    scan_case("linear", lambda w, h, x: [w @ h + x, h[0] + x], (normal(2, 2), normal(2), normal(4, 2)), 1, 1),
    scan_case("known-carry", known_carry, (normal(2), normal(2), normal(4, 2)), 0, 2),
    scan_case("third-order", lambda h, x: [fnp.sin(h) * x], (normal(), normal(3)), 0, 1, length=3, order=3, rtol=1e-5),
    scan_case("nested", nested, (normal(2), normal(3, 2, 2)), 0, 1, length=3),
    scan_case("of-cond", choosing, (normal(), normal(), np.array([True, False, True, True]), normal(4)), 1, 1),
    scan_case("of-while", repeated, (normal(2), normal(3, 2)), 0, 1, length=3, stages_reverse=False),
    scan_case("complex", lambda h, x: [h * x + h * h, h], (normal(2) + 1j, normal(3, 2) * (1 + 1j)), 0, 1, length=3),
]


def cond_case(name: str, bodies: list[Any], operands: tuple[Any, ...], **fields: Any) -> Case:
    def make_params(index: Any, *operands: Any) -> dict[str, Any]:
        return {"branches": tuple(program(body, [aval_of(x) for x in operands]) for body in bodies)}

    return Case(cond, operands, name=f"cond-{name}", make_params=make_params, **fields)


BRANCHES = [
    lambda x, w: [fnp.sin(x) * w, fnp.sum(x)],
    lambda x, w: [x * x * x, fnp.sum(w)],
    lambda x, w: [w, w[0] * 1.5],
]


def loss(x: Any, w: Any) -> list[Any]:
    return [lax.scan(lambda h, c: (fnp.sin(h * c), None), x, fnp.stack([w, x, w]))[0]]


zero = np.int32(0)

CONDS = [
    *(cond_case(f"branch-{i}", BRANCHES, (np.int32(i), normal(3), normal(3))) for i in range(3)),
    cond_case("linear", [lambda x: [2.0 * x], lambda x: [-x]], (np.int32(1), normal(2))),
    cond_case("scalar", [lambda x: [fnp.exp(x)], lambda x: [x]], (zero, normal())),
    cond_case("integer-output", [lambda x: [x * x, fnp.sum(x > 0)], lambda x: [x, fnp.sum(x > 1)]], (zero, normal(2))),
    cond_case("of-scan", [loss, lambda x, w: [x * w]], (zero, normal(2), normal(2))),
    cond_case("of-while", [lambda x: repeated(x, x), lambda x: [x]], (zero, normal(2)), stages_reverse=False),
]


def while_case(name: str, holds: Any, step: Any, operands: tuple[Any, ...], conds: int, consts: int) -> Case:
    """`holds(*its constants, *carry)` and `step(*its constants, *carry)`."""

    def make_params(*operands: Any) -> dict[str, Any]:
        avals = [aval_of(x) for x in operands]
        test = program(holds, [*avals[:conds], *avals[conds + consts :]])
        return {"cond": test, "body": program(step, avals[conds:]), "cond_consts": conds, "body_consts": consts}

    return Case(while_loop, operands, name=f"while-{name}", make_params=make_params, stages_reverse=False)


WHILES = [
    while_case("halving", lambda x: [x > 1.0], lambda x: [fnp.sin(x) * 0.5 * x], (np.float64(40.3),), 0, 0),
    while_case(
        "counted",
        lambda n, i, h: [i < n],
        lambda w, i, h: [i + 1, fnp.tanh(w @ h)],
        (np.int64(3), normal(2, 2), np.int64(0), normal(2)),
        1,
        1,
    ),
    while_case("never", lambda x: [x > 100.0], lambda x: [x * x], (np.float64(1.5),), 0, 0),
    while_case(
        "threshold",
        lambda t, h: [fnp.sum(h * h) > t],
        lambda w, h: [h * fnp.sin(w)],
        (np.float64(0.37), normal(2), 3.0 + normal(2)),
        1,
        1,
    ),
]


def matvec(a: Any, x: Any) -> list[Any]:
    return [fnp.sin(a) @ x]


def matvec_transposed(a: Any, bar: Any) -> list[Any]:
    return [None if bar is None else fnp.sin(a).T @ bar]


def linear_case() -> Case:
    def make_params(a: Any, x: Any) -> dict[str, Any]:
        outs = (ShapedArray((3,), x.dtype),)
        return {"apply": matvec, "transposed": matvec_transposed, "residuals": 1, "outs": outs, "takes_masks": False}

    return Case(calls.linear_call, (normal(3, 2), normal(2)), name="linear_call-matvec", make_params=make_params)


def solve_case(name: str, matvec: Any, solve: Any, transpose_solve: Any, symmetric: bool, a: Any) -> Case:
    """`matvec(a, x)`; the solvers get the matrix `a` as a constant that is not differentiated."""

    def make_params(a: Any, first: Any, second: Any, b: Any) -> dict[str, Any]:
        avals = [aval_of(a), aval_of(b)]
        programs = {"matvec": matvec, "solve": solve, "transpose_solve": transpose_solve}
        made = {key: program(body, avals) for key, body in programs.items()}
        return {**made, "symmetric": symmetric, "counts": (1, 1, 1)}

    return Case(linear_solve, (a, a, a, normal(3)), name=f"linear_solve-{name}", make_params=make_params, wrt=(3,))


A = normal(3, 3) + 3.0 * np.eye(3)
SOLVES = [
    solve_case(
        "general",
        lambda a, x: [a @ x],
        lambda a, b: [np.linalg.solve(a, b)],
        lambda a, b: [np.linalg.solve(a.T, b)],
        False,
        A,
    ),
    solve_case(
        "symmetric",
        lambda a, x: [a @ x],
        lambda a, b: [np.linalg.solve(a, b)],
        lambda a, b: [np.linalg.solve(a, b)],
        True,
        A + A.T,
    ),
]


def product(x: Any, y: Any) -> list[Any]:
    return [fnp.sin(x) * fnp.exp(y), fnp.sin(x + y)]


def product_jvp(x: Any, y: Any, dx: Any, dy: Any) -> list[Any]:
    dx = fnp.zeros_like(x) if dx is None else dx
    dy = fnp.zeros_like(y) if dy is None else dy
    first, second = product(x, y)
    return [first, second, fnp.cos(x) * fnp.exp(y) * dx + first * dy, fnp.cos(x + y) * (dx + dy)]


def product_forward(active: tuple[bool, ...], x: Any, y: Any) -> tuple[list[Any], list[Any]]:
    return product(x, y), [x, y]


def product_backward(x: Any, y: Any, first: Any, second: Any) -> list[Any]:
    first = fnp.zeros_like(x) if first is None else first * fnp.exp(y)
    second = fnp.zeros_like(x) if second is None else second * fnp.cos(x + y)
    return [fnp.cos(x) * first + second, fnp.sin(x) * first + second]


_VJP = {"function": product, "forward": product_forward, "backward": product_backward, "constants": 0}
_PAIR = (normal(2), normal(2))

CALLS = [
    linear_case(),
    Case(calls.custom_jvp_call, _PAIR, {"function": product, "rule": product_jvp, "constants": 0}),
    Case(calls.custom_vjp_call, _PAIR, {**_VJP, "rule": product_jvp}, name="with-forward-rule"),
    Case(calls.custom_vjp_call, _PAIR, {**_VJP, "rule": None}, name="transposed"),
    Case(calls.checkpoint_call, _PAIR, {"function": product, "constants": 0}),
    Case(calls.checkpoint_call, (normal(),), {"function": lambda x: [fnp.exp(fnp.sin(x))], "constants": 0}),
]


def checkpointed_case(case: Case, snapshots: int, block: int) -> Case:
    """A scan's case with another way to reverse it."""

    def make_params(*operands: Any) -> dict[str, Any]:
        return {**case.make_params(*operands), "snapshots": snapshots, "block": block}

    name = f"checkpointed_scan-{snapshots}-{block}-{case.name}"
    return replace(case, primitive=checkpointed_scan, name=name, make_params=make_params)


def saved_case(name: str, policy: Callable[..., bool]) -> Case:
    """A call of which reverse mode stores what the policy says."""

    def body(w: Any, x: Any) -> list[Any]:
        return [fnp.sin(w @ fnp.tanh(w @ x)), fnp.exp(-x)]

    def make_params(*operands: Any) -> dict[str, Any]:
        return {"jaxpr": program(body, [aval_of(x) for x in operands]), "policy": policy}

    return Case(saved_call, (normal(3, 3), normal(3)), name=f"saved_call-{name}", make_params=make_params)


CHECKPOINTS = [
    *(checkpointed_case(SCANS[i], *sizes) for i, sizes in enumerate([(1, 1), (2, 1), (1, 2), (2, 2), (2, 1)])),
    saved_case("nothing", checkpoint_policies.nothing_saveable),
    saved_case("dots", checkpoint_policies.dots_saveable),
    saved_case("everything", checkpoint_policies.everything_saveable),
]

CASES = [*SCANS, *CONDS, *WHILES, *SOLVES, *CALLS, *CHECKPOINTS]
