"""jit: a function traced once per type of its arguments, then run as a program without tracing.

The program is simplified (equal operations once, dead code gone, constants folded) and runs as one flat Python function
of NumPy calls. Transformations of a jitted function are programs too, derived once per type.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from functrace import tree
from functrace.control.call import jit_call, run_jaxpr, simplified
from functrace.core.evaluate import python_function
from functrace.core.ir import ClosedJaxpr, Jaxpr, eval_jaxpr, hoist_constants
from functrace.core.trace import EVAL, Tracer, current_trace
from functrace.core.types import ShapedArray, aval_of, canonicalize
from functrace.interpreters.staging import stage
from functrace.transforms._flatten import argument_positions, check_callable, check_hashable, export
from functrace.transforms._flatten import call as call_user

__all__ = ["CacheInfo", "Jitted", "Lowered", "jit"]

_WEAK = (float, int, complex)


class CacheInfo(NamedTuple):
    """What a jitted function has traced so far."""

    hits: int
    misses: int
    size: int


class _Program:
    """One traced specialization."""

    __slots__ = ("constants", "jaxpr", "out_tree", "run")

    def __init__(self, jaxpr: Jaxpr, constants: list[Any], out_tree: tree.TreeDef) -> None:
        self.jaxpr, self.constants, self.out_tree = jaxpr, constants, out_tree
        #: Runs on plain values at the bottom.
        self.run: Callable[..., list[Any]] = functools.partial(run_jaxpr, jaxpr)

    def prepare(self) -> None:
        """Make the program's function now, for calls that need nothing else."""
        self.run = python_function(simplified(self.jaxpr))


class Lowered:
    """A function lowered for one type of arguments."""

    def __init__(self, program: _Program, name: str) -> None:
        self._program = program
        self._name = name

    def as_text(self, dialect: str = "simplified") -> str:
        """The program as text: "jaxpr" as it was traced, or "simplified" as it runs."""
        jaxpr = self._program.jaxpr
        if dialect == "jaxpr":
            return jaxpr.pretty()
        return simplified(jaxpr).pretty()

    def compile(self) -> Callable[..., Any]:
        """A function of arguments of exactly these types."""
        program = self._program

        def compiled(*args: Any, **kwargs: Any) -> Any:
            leaves, _ = tree.flatten((args, kwargs))
            return _run(program, [canonicalize(leaf) for leaf in leaves])

        return compiled


def _run(program: _Program, leaves: list[Any]) -> Any:
    operands = [*program.constants, *leaves]
    return tree.unflatten(program.out_tree, export(program.run(*operands), operands))


class Jitted:
    """A jitted function; see `jit`."""

    def __init__(
        self, fun: Callable[..., Any], static_argnums: tuple[int, ...], static_argnames: frozenset[str], inline: bool
    ) -> None:
        functools.update_wrapper(self, fun)
        self.fun = fun
        self.static_argnums, self.static_argnames, self.inline = static_argnums, static_argnames, inline
        self._programs: dict[Any, _Program] = {}
        #: Programs by the dtypes and shapes of flat arguments, for the short way.
        self._direct: dict[Any, _Program] = {}
        self._lock = threading.RLock()
        self._hits = self._misses = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if os.environ.get("FUNCTRACE_DISABLE_JIT", "0") not in ("", "0"):
            return self.fun(*args, **kwargs)
        if current_trace() is EVAL:
            return self._evaluate(args, kwargs)
        program, leaves = self._specialize(args, kwargs)
        operands = [*program.constants, *(_kept(leaf) for leaf in leaves)]
        if self.inline:
            outs = eval_jaxpr(program.jaxpr, (), *operands)
        else:
            outs = jit_call.bind(*operands, jaxpr=program.jaxpr, name=self.__name__)  # type: ignore[attr-defined]
        return tree.unflatten(program.out_tree, outs)

    def _evaluate(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run on plain values; flat arguments of known types go the short way."""
        kinds = None if kwargs or self.static_argnums else _kinds(args)
        program = None if kinds is None else self._direct.get(kinds)
        if program is not None:
            self._hits += 1
            return _run(program, [np.float64(a) if type(a) is float else a for a in args])
        program, leaves = self._specialize(args, kwargs)
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            return tree.unflatten(program.out_tree, jit_call.bind(*leaves, jaxpr=program.jaxpr, name="jit"))
        result = _run(program, leaves)
        if kinds is not None:
            program.prepare()
            self._direct[kinds] = program
        return result

    def _specialize(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[_Program, list[Any]]:
        """The program for these arguments, and their dynamic leaves."""
        # A static parameter given by name is in static_argnames.
        given = [n for n in self.static_argnums if -len(args) <= n < len(args)]
        positions = argument_positions(given, len(args), "jit") if given else ()
        static = tuple((i, args[i]) for i in positions)
        named = tuple((k, kwargs[k]) for k in sorted(kwargs) if k in self.static_argnames)
        for place, value in (*static, *named):
            check_hashable(value, f"static argument {place!r}")
        dynamic_args = tuple(a for i, a in enumerate(args) if i not in positions)
        dynamic_kwargs = {k: v for k, v in kwargs.items() if k not in self.static_argnames}
        raw, in_tree = tree.flatten((dynamic_args, dynamic_kwargs))
        leaves = [canonicalize(leaf) for leaf in raw]
        weak = tuple(type(leaf) in _WEAK or getattr(leaf, "weak", False) for leaf in raw)
        avals = tuple(aval_of(leaf) for leaf in leaves)
        kinds = tuple(type(value) for _, value in (*static, *named))
        key = (in_tree, avals, weak, static, named, kinds)
        program = self._programs.get(key)
        if program is not None:
            self._hits += 1
            return program, leaves
        with self._lock:
            self._misses += 1
            program = self._trace(static, dict(named), in_tree, avals, weak, len(args))
            if not any(isinstance(c, Tracer) for c in program.constants):
                program = self._programs.setdefault(key, program)
        return program, leaves

    def _trace(
        self,
        static: tuple[tuple[int, Any], ...],
        named: dict[str, Any],
        in_tree: tree.TreeDef,
        avals: Sequence[ShapedArray],
        weak: Sequence[bool],
        count: int,
    ) -> _Program:
        out_tree: list[tree.TreeDef] = []
        fixed = dict(static)

        def flat_fun(*values: Any) -> list[Any]:
            dynamic, kwargs = tree.unflatten(in_tree, values)
            rest = iter(dynamic)
            args = [fixed[i] if i in fixed else next(rest) for i in range(count)]
            leaves, structure = tree.flatten(call_user(self.fun, args, {**kwargs, **named}))
            out_tree.append(structure)
            return [canonicalize(leaf) for leaf in leaves]

        jaxpr, constants = hoist_constants(stage(flat_fun, avals, weak, "jit"))
        return _Program(jaxpr, constants, out_tree[0])

    def trace(self, *args: Any, **kwargs: Any) -> ClosedJaxpr:
        """The traced program for these arguments; its first inputs are what the function closes over."""
        program, _ = self._specialize(args, kwargs)
        count = len(program.constants)
        jaxpr = program.jaxpr
        closed = Jaxpr(jaxpr.invars[:count], jaxpr.invars[count:], jaxpr.eqns, jaxpr.outvars)
        return ClosedJaxpr(closed, program.constants)

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """The function lowered for these arguments, to be looked at or compiled."""
        return Lowered(self._specialize(args, kwargs)[0], self.__name__)  # type: ignore[attr-defined]

    def clear_cache(self) -> None:
        """Forget all programs."""
        with self._lock:
            self._programs.clear()
            self._direct.clear()
            self._hits = self._misses = 0

    def cache_info(self) -> CacheInfo:
        """How many calls found their program, how many were traced, and how many programs are kept."""
        return CacheInfo(self._hits, self._misses, len(self._programs))

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)


def _kinds(args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The types of arguments that are arrays or floats, or None where one is something else."""
    kinds: list[Any] = []
    for a in args:
        kind = type(a)
        if kind is np.ndarray and a.ndim:
            kinds.append((a.dtype, a.shape))
        elif kind is float or kind is np.float64:
            kinds.append(kind)
        else:
            return None
    return tuple(kinds)


def _kept(leaf: Any) -> Any:
    """A leaf out of reach of later changes, where a trace keeps it."""
    owned = type(leaf) is np.ndarray and leaf.flags.writeable and current_trace().captures
    return leaf.copy() if owned else leaf


def jit(
    fun: Callable[..., Any] | None = None,
    *,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
    inline: bool = False,
) -> Any:
    """A function that is traced once per type of its arguments and then runs without tracing.

    Python code in the function runs at tracing time only, so control flow on traced values needs `functrace.lax` or
    static arguments. What the function closes over is fixed when it is traced.

    Args:
        fun: function of arrays or pytrees of arrays. Without it, a decorator is returned.
        static_argnums: positional arguments that Python sees as they are; each value is traced anew.
        static_argnames: keyword arguments likewise.
        inline: whether a call inside another traced function leaves no call behind.

    Returns:
        The jitted function, with `lower`, `trace`, `clear_cache` and `cache_info`. `FUNCTRACE_DISABLE_JIT=1` in the
        environment makes it call `fun` itself.

    Raises:
        AbstractValueError: Python needs the value of a traced argument (when called).
        NonHashableError: a static argument cannot be hashed (when called).

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> f = functrace.jit(functrace.grad(lambda x: np.sin(x) ** 2))
        >>> f(0.0), f(0.0), f.cache_info().size
        (np.float64(0.0), np.float64(0.0), 1)
    """
    if fun is None:
        return functools.partial(
            jit, static_argnums=static_argnums, static_argnames=static_argnames, inline=inline
        )
    check_callable(fun, "jit")
    numbers = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums or ())
    names = {static_argnames} if isinstance(static_argnames, str) else set(static_argnames or ())
    return Jitted(fun, numbers, frozenset(names) | _names_of(fun, numbers), inline)


def _names_of(fun: Callable[..., Any], numbers: Iterable[int]) -> frozenset[str]:
    """The parameter names of static positions, so that they are static as keywords too."""
    try:
        parameters = [p.name for p in inspect.signature(fun).parameters.values()]
    except (TypeError, ValueError):
        return frozenset()
    return frozenset(parameters[i] for i in numbers if -len(parameters) <= i < len(parameters))
