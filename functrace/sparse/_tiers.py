"""A jitted function whose first calls do not wait for machine code."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from functrace.control.call import simplified
from functrace.core.evaluate import python_function
from functrace.core.ir import Jaxpr
from functrace.core.trace import EVAL, Tracer, current_trace
from functrace.transforms import jit
from functrace.transforms._flatten import export

__all__ = ["Tiered"]

#: Seconds that calls by NumPy may take together before machine code is made: about what making it takes.
PATIENCE = 0.1


class Tiered:
    """A function of flat arrays, traced once: run by NumPy calls at first, as machine code once it is much used.

    A solver gets its first Hessian at once, and pays for compilation only where that pays: as with renting skis, at
    most twice the least possible time is spent, whatever the number of calls.

    Args:
        fun: function of arrays that gives one array.
    """

    def __init__(self, fun: Callable[..., Any]) -> None:
        self._jitted = jit(fun)
        self._plain: tuple[Callable[..., list[Any]], list[Any]] | None = None
        self._spent = 0.0

    def __call__(self, *leaves: Any) -> Any:
        if self._spent > PATIENCE or current_trace() is not EVAL or any(isinstance(x, Tracer) for x in leaves):
            return self._jitted(*leaves)
        start = time.perf_counter()
        if self._plain is None:
            closed = self._jitted.trace(*leaves)
            if any(isinstance(c, Tracer) for c in closed.consts):
                return self._jitted(*leaves)
            jaxpr = closed.jaxpr
            whole = Jaxpr([], [*jaxpr.constvars, *jaxpr.invars], jaxpr.eqns, jaxpr.outvars)
            self._plain = python_function(simplified(whole)), closed.consts
            start = time.perf_counter()  # tracing is needed either way
        function, consts = self._plain
        (out,) = export(function(*consts, *leaves), [*consts, *leaves])
        self._spent += time.perf_counter() - start
        return out
