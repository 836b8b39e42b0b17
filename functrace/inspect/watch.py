"""Traces that look at a function while it runs: what each operation does, where the user wrote it, and in which loop.

`Watching` is for traces on plain values. Loops, branches, jitted and checkpointed functions are opened (the `unfold`
rule of their primitives), so that every operation is met, with the line it was written at.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace import tree
from functrace.core.ir import Eqn, Jaxpr, Literal, Var
from functrace.core.primitive import Primitive
from functrace.core.trace import EVAL, Trace, Tracer, current_trace, reset_trace, set_trace
from functrace.core.types import aval_of
from functrace.errors import InputError
from functrace.interpreters.staging import StagedTracer, StagingTrace
from functrace.transforms._flatten import FlatFunction, check_callable
from functrace.util import Source, user_line, user_source

__all__ = ["Run", "Watching", "argument_labels", "flatten_call", "output_labels", "watch"]


class Watching(Trace):
    """A trace that opens primitives with programs, and knows the user's line inside them too."""

    _line: Source | None = None
    _steps: list[list[Any]]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._steps = []

    def opens(self, primitive: Primitive) -> bool:
        """Whether to look inside a primitive."""
        return primitive.unfold is not None

    def open(self, primitive: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Any:
        """Run a primitive by the operations of its programs, under this trace."""
        outer, self._line = self._line, self.line()
        self._steps.append([_block_name(primitive, params), 0])
        token = set_trace(self)
        try:
            return list(primitive.unfold(self._run, *args, **params))  # type: ignore[misc]
        finally:
            reset_trace(token)
            self._steps.pop()
            self._line = outer

    def _run(self, program: Any, *values: Any) -> list[Any]:
        if self._steps:
            self._steps[-1][1] += 1
        program = getattr(program, "jaxpr", program)
        if not isinstance(program, Jaxpr):
            outer, self._line = self._line, None
            try:
                return list(program(*values))
            finally:
                self._line = outer
        env: dict[Var, Any] = dict(zip(program.invars, values, strict=True))
        call = self._line
        for eqn in program.eqns:
            self._line = eqn.source or call
            outs = eqn.primitive.bind(*[a.val if isinstance(a, Literal) else env[a] for a in eqn.invars], **eqn.params)
            env.update(zip(eqn.outvars, outs if eqn.primitive.multiple else [outs], strict=True))
        self._line = call
        return [a.val if isinstance(a, Literal) else env[a] for a in program.outvars]

    def line(self) -> Source | None:
        """The user's line that the current operation stands on."""
        return self._line or user_source()

    def place(self) -> str:
        """The loops and calls that the current operation is in, as in "step 3 of scan"; empty at the top."""
        return ", ".join(f"run {count} of {name}" if count > 1 else f"in {name}" for name, count in self._steps)


def _block_name(primitive: Primitive, params: dict[str, Any]) -> str:
    """What to call a primitive that holds a program: the function's name if it has one."""
    name = params.get("name")
    return f"{primitive.name} {name}" if isinstance(name, str) else primitive.name


class WatchedTracer(StagedTracer):
    """A variable of the recorded program, whose value is known."""

    _trace: WatchTrace

    def concrete(self) -> Any:
        return self.atom.val if isinstance(self.atom, Literal) else self._trace.values[self.atom]

    def peek(self) -> Any:
        return self.concrete()


class WatchTrace(Watching, StagingTrace):
    """Records what runs, as it runs, with the values: Python's branches and loops see numbers."""

    name = "inspection"

    def __init__(self, closed: bool) -> None:
        super().__init__(EVAL)
        self.closed = closed
        self.values: dict[Var, Any] = {}

    def opens(self, primitive: Primitive) -> bool:
        return not self.closed and primitive.unfold is not None

    def new_value(self, value: Any) -> WatchedTracer:
        """An input."""
        var = Var(aval_of(value))
        self.values[var] = value
        return WatchedTracer(self, var)

    def record(self, primitive: Primitive, args: Sequence[Any], params: dict[str, Any]) -> Any:
        if self.opens(primitive):
            return self.open(primitive, args, params)
        atoms = [self.atom(arg) for arg in args]
        with np.errstate(all="ignore"):
            out = primitive.impl(*[a.val if isinstance(a, Literal) else self.values[a] for a in atoms], **params)
        outs = list(out) if primitive.multiple else [out]
        outvars = [Var(aval_of(o)) for o in outs]
        self.values.update(zip(outvars, outs, strict=True))
        self.recorder.eqns.append(Eqn(primitive, atoms, outvars, params, self.line()))
        tracers = [WatchedTracer(self, var) for var in outvars]
        return tracers if primitive.multiple else tracers[0]

    def pure(self, value: Any) -> WatchedTracer:
        return WatchedTracer(self, self.atom(value))


class Run:
    """One run of a function as a straight program, with the value of every variable.

    Attributes:
        jaxpr: the program; its literals may be arrays.
        values: per variable, its value.
        inputs, outputs: names of the inputs and of the outputs.
        in_tree, out_tree: how inputs (the tuple of arguments) and outputs are nested.
    """

    def __init__(
        self, flat: FlatFunction, jaxpr: Jaxpr, values: dict[Var, Any], inputs: list[str], outputs: list[str]
    ) -> None:
        self.jaxpr, self.values = jaxpr, values
        self.inputs, self.outputs = inputs, outputs
        self.in_tree, self.out_tree = flat.in_tree, flat.out_tree

    def value(self, atom: Any) -> Any:
        """The value of an atom."""
        return atom.val if isinstance(atom, Literal) else self.values[atom]


def flatten_call(fun: Callable[..., Any], args: Sequence[Any], what: str) -> FlatFunction:
    """A call at plain values as a function of its flat leaves.

    Raises:
        InputError: an argument is traced.
    """
    check_callable(fun, what)
    flat = FlatFunction(fun, args, {})
    if current_trace() is not EVAL or any(isinstance(leaf, Tracer) for leaf in flat.leaves):
        raise InputError(
            f"{what} looks at plain values",
            where=user_line(),
            got=f"a call under {current_trace().name}",
            remedy=f"call {what} outside grad, jit and the other transformations; it can itself look at grad(f)",
        )
    return flat


def watch(fun: Callable[..., Any], args: Sequence[Any], what: str, closed: bool = False) -> Run:
    """Run a function and record what it does.

    Args:
        fun: the function.
        args: plain values, in any nesting.
        what: who asks, for messages.
        closed: whether to keep loops, branches and jitted functions whole.
    """
    flat = flatten_call(fun, args, what)
    trace = WatchTrace(closed)
    inputs = [trace.new_value(leaf) for leaf in flat.leaves]
    for tracer, is_weak in zip(inputs, flat.weak, strict=True):
        tracer.weak = is_weak
    invars = [tracer.atom for tracer in inputs]
    token = set_trace(trace)
    try:
        outvars = [trace.atom(out) for out in flat(*inputs)]
    finally:
        reset_trace(token)
        trace.alive = False
    jaxpr = Jaxpr([], invars, trace.recorder.eqns, outvars)  # type: ignore[arg-type]
    inputs_labels = argument_labels(fun, args)
    return Run(flat, jaxpr, trace.values, inputs_labels, output_labels(flat.out_tree, inputs_labels))


def argument_labels(fun: Callable[..., Any], args: Sequence[Any]) -> list[str]:
    """A name per leaf of the arguments: the parameter's, with the path to the leaf."""
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    labels = []
    for i, arg in enumerate(args):
        name = f"x{i + 1}" if len(args) > 1 else "x"
        if i < len(parameters) and parameters[i].kind is not parameters[i].VAR_POSITIONAL:
            name = parameters[i].name
        elif parameters and parameters[-1].kind is parameters[-1].VAR_POSITIONAL:
            name = f"{parameters[-1].name}{i - len(parameters) + 2}"
        labels += [name + path for path in _paths(tree.structure(arg))]
    return labels


def output_labels(out_tree: tree.TreeDef, inputs: Sequence[str]) -> list[str]:
    """A name per output: y, with the path to the leaf, or another letter if an input has that name."""
    name = next(n for n in ("y", "z", "f", "result", "_result") if not any(label.startswith(n) for label in inputs))
    return [name + path for path in _paths(out_tree)]


def _paths(structure: tree.TreeDef) -> list[str]:
    leaves = tree.unflatten(structure, list(range(structure.num_leaves)))
    flat, _ = tree.flatten_with_path(leaves)
    return [tree.keystr(path) for path, _ in flat]
