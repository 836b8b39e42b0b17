"""A program run step by step on plain values: nothing to compile, so that the first result comes at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from functrace.core.ir import Atom, ClosedJaxpr, Literal, Var
from functrace.core.types import canonicalize

__all__ = ["Steps"]

_NONE: list[int] = []

#: From so many numbers in all intermediates on, those no longer needed are let go.
_MUCH = 2_000_000


class Steps:
    """The operations of a program in order, on numbered places.

    Args:
        closed: a program all of whose operations have one output, or say so.
    """

    def __init__(self, closed: ClosedJaxpr) -> None:
        jaxpr = closed.jaxpr
        places: dict[Any, int] = {}
        self._start: list[Any] = []

        def place(atom: Atom) -> int:
            if type(atom) is Literal:
                self._start.append(np.asarray(atom.val)[()])
                return len(self._start) - 1
            if atom not in places:
                places[atom] = len(self._start)
                self._start.append(None)
            return places[atom]

        for var, value in zip(jaxpr.constvars, closed.consts, strict=True):
            self._start[place(var)] = value
        self._inputs = [(place(v), v.aval.dtype) for v in jaxpr.invars]
        self._steps: list[tuple[Any, ...]] = []
        largest = max([v.aval.size for v in jaxpr.invars], default=0)
        frees = largest * len(jaxpr.eqns) > _MUCH
        uses: Iterable[list[Var]] = jaxpr.last_uses if frees else itertools.repeat([], len(jaxpr.eqns))
        start, append = self._start, self._steps.append
        for eqn, dying in zip(jaxpr.eqns, uses, strict=True):
            operands = []
            for atom in eqn.invars:
                known = places.get(atom)
                operands.append(place(atom) if known is None else known)
            outs = []
            for var in eqn.outvars:  # which is new
                places[var] = len(start)
                outs.append(len(start))
                start.append(None)
            freed = [places[v] for v in dying] if dying else _NONE
            append((eqn.primitive.impl, operands, eqn.params, eqn.primitive.multiple, outs, freed))
        self._outputs = [place(a) for a in jaxpr.outvars]

    def __call__(self, args: Sequence[Any]) -> list[Any]:
        """The outputs."""
        values = self._start.copy()
        for (place, dtype), arg in zip(self._inputs, args, strict=True):
            value = canonicalize(arg)
            values[place] = value if value.dtype == dtype else value.astype(dtype)
        with np.errstate(all="ignore"):
            for impl, operands, params, multiple, outs, freed in self._steps:
                found = impl(*[values[k] for k in operands], **params)
                if multiple:
                    for k, value in zip(outs, found, strict=True):
                        values[k] = value
                else:
                    values[outs[0]] = found
                for k in freed:
                    values[k] = None
        return [values[k] for k in self._outputs]
