"""The compiled programs of a problem: one linearisation of objective and constraints, one of the Lagrangian's gradient.

The one idea: a program is split into a part that runs once per iterate and gives values and residuals, and linear parts
that take these residuals. The gradient, the Jacobian and all products with it read one linearisation of (f, c); the
Hessian and all products with it read one of the gradient of the Lagrangian.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from functrace import numpy as fnp
from functrace.backend.executable import Executable, compilation_disabled
from functrace.control.call import simplified
from functrace.core.evaluate import python_function
from functrace.core.ir import (
    Atom,
    ClosedJaxpr,
    Eqn,
    Jaxpr,
    Var,
    eliminate_dead_code,
    eval_jaxpr,
    hoist_constants,
    live_eqns,
)
from functrace.core.trace import EVAL, reset_trace, set_trace
from functrace.core.types import ShapedArray
from functrace.errors import AbstractValueError
from functrace.interpreters.linearize import LinearizedJaxpr, linearize_jaxpr
from functrace.interpreters.staging import stage
from functrace.interpreters.transpose import transpose_jaxpr
from functrace.optimize.lagrangian import weighted
from functrace.sparse._element_steps import Steps
from functrace.transforms import grad

__all__ = ["Compiled", "FirstOrder", "Linear", "SecondOrder", "constraints_of", "lagrangian_of", "weights"]

#: What the compiler takes per equation, about. NumPy calls may take as long before it is asked: then the solve is a
#: long one, and what was spent so far is no more than the price (as with rented skis).
_SECONDS_PER_EQUATION = 5e-4


class Compiled:
    """A program that runs at once, by NumPy calls, and as machine code made in the background once that is worth it.

    Args:
        closed: the program.
    """

    def __init__(self, closed: ClosedJaxpr) -> None:
        self._jaxpr, self._constants = hoist_constants(closed)
        self._by_numpy: Callable[[Sequence[Any]], Sequence[Any]] = Steps(closed)
        self._executable: Executable | None = None
        self._spent = 0.0
        self._worth = _SECONDS_PER_EQUATION * len(closed.eqns)
        self._ordered = False

    def __call__(self, *values: Any) -> Sequence[Any]:
        """The outputs for plain values; they may be read-only, and share memory with these."""
        if self._executable is not None:
            return self._executable.run(*values)
        start = time.thread_time()  # of this thread: what others do must not decide
        token = set_trace(EVAL)
        try:
            outs = self._by_numpy(values)
        finally:
            reset_trace(token)
        self._spent += time.thread_time() - start
        if not self._ordered and self._spent > self._worth:
            self._ordered = True
            if compilation_disabled():
                self._simplify()
            else:
                threading.Thread(target=self.compile, name="functrace-optimize").start()
        return outs

    def _simplify(self) -> None:
        """Take the time for the quicker form of calling NumPy."""
        function, constants = python_function(simplified(self._jaxpr)), self._constants
        self._by_numpy = lambda values: function(*constants, *values)

    def compile(self) -> None:
        """Make the machine code now."""
        self._executable = Executable(self._jaxpr, self._constants)


class Linear:
    """The linear part of one output of a split program: residuals and a tangent in, a tangent out.

    Args:
        split: a program linearised in its first input alone.
        output: which of its outputs.
    """

    def __init__(self, split: LinearizedJaxpr, output: int) -> None:
        program = split.linear.jaxpr
        self.residuals = split.residuals
        self.in_aval = program.invars[-1].aval if len(program.invars) > split.residuals else None
        self.out_aval = split.primal.out_avals[output]
        self.closed: ClosedJaxpr | None = None
        if split.out_nonzeros[output]:
            wanted: list[Atom] = [program.outvars[sum(split.out_nonzeros[:output])]]
            eqns = live_eqns(program.eqns, wanted)
            jaxpr = Jaxpr(program.constvars, program.invars, eqns, wanted)
            self.closed = ClosedJaxpr(jaxpr, split.linear.consts)

    @cached_property
    def push(self) -> Callable[..., Any]:
        """(residuals, tangent) -> output tangent."""
        if self.closed is None:
            return lambda *values: np.zeros(self.out_aval.shape)
        run = Compiled(self.closed)
        return lambda *values: run(*values)[0]

    @cached_property
    def transposed(self) -> ClosedJaxpr | None:
        if self.closed is None:
            return None
        return transpose_jaxpr(self.closed, [*(False for _ in range(self.residuals)), True])

    @cached_property
    def pull(self) -> Callable[..., Any]:
        """(residuals, output cotangent) -> input cotangent."""
        if self.transposed is None:
            shape = () if self.in_aval is None else self.in_aval.shape
            return lambda *values: np.zeros(shape)
        run = Compiled(self.transposed)
        return lambda *values: run(*values)[0]


def weights(count: int) -> list[ShapedArray]:
    """The types of the multipliers and of sigma."""
    number = np.dtype(float)
    return [ShapedArray((count,), number), ShapedArray((), number)]


def lagrangian_of(both: ClosedJaxpr, guarded: bool = False) -> ClosedJaxpr:
    """The program (x, lam, sigma, *parameters) -> the Lagrangian, whose equations keep the user's lines.

    Args:
        both: the program (x, *parameters) -> objective, constraints.
        guarded: whether terms of weight zero are taken out, with what is infinite in them; costs time.
    """

    def weigh(value: Any, constraints: Any, lam: Any, sigma: Any) -> list[Any]:
        if guarded:
            return [weighted(value, constraints, lam, sigma)]
        return [sigma * value + fnp.sum(lam * constraints)] if constraints.size else [sigma * value]

    ends = stage(weigh, [*both.out_avals, *weights(both.out_avals[1].size)])
    jaxpr, end = both.jaxpr, ends.jaxpr
    given: dict[Atom, Atom] = dict(zip(end.invars[:2], jaxpr.outvars, strict=True))
    eqns = [
        *jaxpr.eqns,
        *(Eqn(e.primitive, [given.get(a, a) for a in e.invars], e.outvars, e.params) for e in end.eqns),
    ]
    invars: list[Var] = [jaxpr.invars[0], *end.invars[2:], *jaxpr.invars[1:]]
    outvars = [given.get(a, a) for a in end.outvars]
    whole = Jaxpr([*jaxpr.constvars, *end.constvars], invars, eqns, outvars)
    return ClosedJaxpr(whole, [*both.consts, *ends.consts])


def constraints_of(both: ClosedJaxpr) -> ClosedJaxpr:
    """The program (x, *parameters) -> constraints."""
    jaxpr = eliminate_dead_code(both.jaxpr, [False, True])
    values = dict(zip(both.jaxpr.constvars, both.consts, strict=True))
    return ClosedJaxpr(jaxpr, [values[v] for v in jaxpr.constvars])


@contextmanager
def suggesting_eager() -> Iterator[None]:
    """Errors of functions that cannot be recorded name the remedy that problems have besides the general ones."""
    try:
        yield
    except AbstractValueError as error:
        remedy = (
            "make the problem with jit=False, which traces the functions at every point and gives dense derivatives"
        )
        raise AbstractValueError(f"{error}; or {remedy}").with_traceback(error.__traceback__) from None


class FirstOrder:
    """Values and one linearisation of objective and constraints.

    Args:
        closed: the program (x, *parameters) -> objective, constraints.
    """

    def __init__(self, closed: ClosedJaxpr) -> None:
        with suggesting_eager():
            split = linearize_jaxpr(closed, [True, *(False for _ in closed.in_avals[1:])])
        #: (x, *parameters) -> objective, constraints, *residuals
        self.values = Compiled(split.primal)
        self.objective = Linear(split, 0)
        self.constraints = Linear(split, 1)


class SecondOrder:
    """The gradient of the Lagrangian and one linearisation of it.

    Args:
        lagrangian: the program (x, lam, sigma, *parameters) -> the Lagrangian.
    """

    def __init__(self, lagrangian: ClosedJaxpr) -> None:
        def function(*values: Any) -> Any:
            return eval_jaxpr(lagrangian.jaxpr, lagrangian.consts, *values)[0]

        with suggesting_eager():
            gradient = stage(lambda *values: [grad(function)(*values)], lagrangian.in_avals)
            split = linearize_jaxpr(gradient, [True, *(False for _ in gradient.in_avals[1:])])
        #: (x, lam, sigma, *parameters) -> gradient of the Lagrangian, *residuals
        self.values = Compiled(split.primal)
        self.hessian = Linear(split, 0)
