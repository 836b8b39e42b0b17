"""Reverse mode within a budget of memory: what is stored and what is run again, chosen by predicted peak memory.

The function's program is rewritten: loops become checkpointed ones, and straight runs of operations are cut into pieces
that are run again when their cotangents come. Of a list of such programs, each with less memory and more work than the
one before, the first is taken whose gradient is predicted to fit.
"""

from __future__ import annotations

import functools
import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from functrace import tree
from functrace.control.checkpointed_scan import checkpointed_scan, choose_checkpoints
from functrace.control.saved_call import saved_call
from functrace.control.scan import scan
from functrace.core.ir import ClosedJaxpr, Eqn, Jaxpr, Literal, Var, has_effects, run_eqns
from functrace.core.trace import EVAL, current_trace
from functrace.errors import ArgumentError
from functrace.interpreters.cost import jaxpr_cost
from functrace.interpreters.simplify import simplify
from functrace.transforms.checkpoint_policies import nothing_saveable
from functrace.transforms.staging import eval_jaxpr, make_jaxpr
from functrace.util import user_line

__all__ = ["parse_bytes", "within_memory"]

_UNITS = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


class Way(NamedTuple):
    """How to spend less memory.

    Attributes:
        loops: the bytes that the snapshots and residuals of a loop may take, None for as many as it needs.
        pieces: into how many pieces straight runs of operations are cut.
    """

    loops: float | None
    pieces: int


def parse_bytes(memory: Any) -> float:
    """A number of bytes, or text such as "200MB".

    Raises:
        ArgumentError: it is neither.
    """
    if isinstance(memory, (int, float)) and not isinstance(memory, bool) and memory > 0:
        return float(memory)
    match = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", memory) if isinstance(memory, str) else None
    if match is None or match[2] not in _UNITS or match[1].count(".") > 1 or match[1] == ".":
        raise ArgumentError(
            "memory is a positive number of bytes, or text with a unit",
            where=user_line(),
            got=repr(memory),
            remedy='write memory="200MB" (or kB, GB, KiB, MiB, GiB), or memory=200_000_000',
        )
    return float(match[1]) * _UNITS[match[2]]


def within_memory(
    fun: Callable[..., Any],
    derivative: Callable[[Callable[..., Any]], Callable[..., Any]],
    memory: Any,
    args: Sequence[Any],
    kwargs: dict[str, Any],
) -> Any:
    """`derivative(fun)(*args, **kwargs)` by a program that is predicted to hold at most so many bytes.

    Raises:
        ArgumentError: none does; names the least.
    """
    limit = parse_bytes(memory)
    if current_trace() is not EVAL:  # a part of another program, whose peak is not known here
        return derivative(rewritten(fun, Way(limit / 2, 1)))(*args, **kwargs)
    least = None
    leaves, _ = tree.flatten((args, kwargs))
    key = (limit, *[(np.shape(leaf), getattr(leaf, "dtype", type(leaf))) for leaf in leaves])
    taken = _taken_for(fun)
    for way in [*([taken[key]] if key in taken else []), *_ways(limit)]:
        function = rewritten(fun, way)
        closed, shapes = make_jaxpr(derivative(function), return_shape=True)(*args, **kwargs)
        jaxpr = simplify(closed.jaxpr)
        peak = jaxpr_cost(jaxpr).peak
        if peak <= limit:
            taken[key] = way
            found = eval_jaxpr(jaxpr, closed.consts, *leaves)
            return tree.unflatten(tree.structure(shapes), found)
        least = peak if least is None else min(least, peak)
    raise ArgumentError(
        "no way to run reverse mode is predicted to fit into the memory given",
        where=user_line(),
        got=f"memory={memory!r}; the least is about {least:,} bytes",
        remedy="give more memory, or make parts of the function loops (functrace.lax.scan), which can be run again",
    )


_taken: weakref.WeakKeyDictionary[Any, dict[Any, Way]] = weakref.WeakKeyDictionary()


def _taken_for(fun: Any) -> dict[Any, Way]:
    """The ways taken before for a function, to be tried first; kept as long as the function is."""
    try:
        return _taken.setdefault(fun, {})
    except TypeError:  # it cannot be hashed, or not be referred to weakly
        return {}


def _ways(limit: float) -> Iterator[Way]:
    yield Way(None, 1)
    for share in (0.7, 0.4, 0.2):
        yield Way(share * limit, 1)
    for pieces in (2, 3, 4, 6, 8, 12, 16, 24, 32):
        for share in (0.4, 0.1):
            yield Way(share * limit, pieces)


def rewritten(fun: Callable[..., Any], way: Way) -> Callable[..., Any]:
    """The function as a program that stores less in reverse mode."""
    if way == Way(None, 1):
        return fun

    @functools.wraps(fun)
    def frugal(*args: Any, **kwargs: Any) -> Any:
        closed, shapes = make_jaxpr(fun, return_shape=True)(*args, **kwargs)
        leaves, _ = tree.flatten((args, kwargs))
        return tree.unflatten(tree.structure(shapes), _run(closed, way, leaves))

    return frugal


def _run(closed: ClosedJaxpr, way: Way, values: Sequence[Any]) -> list[Any]:
    jaxpr = closed.jaxpr
    env: dict[Var, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *values], strict=True))
    groups = _groups(jaxpr, way.pieces)
    for k, group in enumerate(groups):
        if len(group) == 1 and group[0].primitive is scan and way.loops is not None:
            _run_loop(group[0], way.loops, env)
        elif len(group) == 1 or way.pieces == 1 or any(map(has_effects, group)):
            run_eqns(((eqn, []) for eqn in group), env)
        else:
            later = [*(a for g in groups[k + 1 :] for e in g for a in e.invars), *jaxpr.outvars]
            _run_piece(group, later, env)
    return [a.val if isinstance(a, Literal) else env[a] for a in jaxpr.outvars]


def _groups(jaxpr: Jaxpr, pieces: int) -> list[list[Eqn]]:
    """Loops alone, the other operations in runs that compute about equally many bytes."""
    sizes = {id(e): sum(v.aval.size * v.aval.dtype.itemsize for v in e.outvars) for e in jaxpr.eqns}
    share = sum(sizes[id(e)] for e in jaxpr.eqns if e.primitive is not scan) / pieces
    groups: list[list[Eqn]] = []
    room = 0.0
    for eqn in jaxpr.eqns:
        if eqn.primitive is scan:
            groups.append([eqn])
            room = 0.0
            continue
        if room <= 0.0:
            groups.append([])
            room = share
        groups[-1].append(eqn)
        room -= sizes[id(eqn)]
    return groups


def _operands(eqn: Eqn, env: dict[Var, Any]) -> list[Any]:
    return [a.val if isinstance(a, Literal) else env[a] for a in eqn.invars]


def _run_loop(eqn: Eqn, memory: float, env: dict[Var, Any]) -> None:
    params = eqn.params
    found = choose_checkpoints(
        params["jaxpr"], params["length"], params["consts"], params["carry"], None, memory=memory, most=64
    )
    bind = scan.bind if found is None else functools.partial(checkpointed_scan.bind, **found._asdict())
    env.update(zip(eqn.outvars, bind(*_operands(eqn, env), **params), strict=True))


def _run_piece(eqns: list[Eqn], later: Sequence[Any], env: dict[Var, Any]) -> None:
    """Some operations as one call that is run again in reverse mode."""
    inner = {v for eqn in eqns for v in eqn.outvars}
    read = {a for a in later if isinstance(a, Var)}
    invars = list(dict.fromkeys(a for eqn in eqns for a in eqn.invars if isinstance(a, Var) and a not in inner))
    outvars = [v for eqn in eqns for v in eqn.outvars if v in read]
    piece = Jaxpr([], invars, eqns, outvars)
    found = saved_call.bind(*[env[v] for v in invars], jaxpr=piece, policy=nothing_saveable)
    env.update(zip(outvars, found, strict=True))
