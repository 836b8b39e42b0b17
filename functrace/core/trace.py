"""Traces and tracers: who interprets an operation, and the values they wrap.

There is one current trace per thread (and per asyncio task). `bind` hands each operation to it. A transforming trace
unpacks its own tracers, takes everything else as constant, and runs its rule under its parent; at the bottom, the
evaluating trace calls NumPy. There are no levels: a tracer belongs to the trace object that made it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from functrace.core.types import ShapedArray
from functrace.errors import AbstractValueError, ConversionError, LeakedTracerError
from functrace.util import scipy_function, user_line, user_source

if TYPE_CHECKING:
    from functrace.core.primitive import Primitive

__all__ = ["EVAL", "DualTracer", "Trace", "Tracer", "current_trace", "reset_trace", "run_under", "set_trace"]


class Trace:
    """An interpreter of operations.

    Attributes:
        parent: the trace under which rules run.
        source: the user's line that started the transformation.
        captures: whether values met now are read later, so that users' arrays must be copied.
        stands_for: an earlier trace whose tracers this one takes for its own.
        shorten: gives long programs that are recorded on the way a shorter form, where somebody will compile them.
    """

    name: str = "evaluation"
    captures: bool = False
    alive: bool = True
    stands_for: Trace | None = None
    shorten: Callable[[Any], Any] | None = None

    def __init__(self, parent: Trace | None) -> None:
        self.parent: Trace = self if parent is None else parent
        if parent is not None and parent.shorten is not None:
            self.shorten = parent.shorten
        self.source = user_source()

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        """Interpret one application of a primitive."""
        raise TypeError(f"{type(self).__name__} does not interpret operations")

    def pure(self, value: Any) -> Any:
        """A value without derivative or batch axis as a tracer of this trace (a traced buffer)."""
        return value

    def symbolic(self, value: Any) -> Any:
        """A value as a constant of the program being recorded, if that will be compiled; its uses are recorded."""
        return value if self.parent is self else self.parent.symbolic(value)

    def create(self, primitive: Primitive, params: dict[str, Any]) -> Any:
        """Make an array that has no operands (zeros, iota ...)."""
        return self.pure(primitive.impl(**params))


class EvalTrace(Trace):
    """The bottom: plain NumPy."""

    def process(self, primitive: Primitive, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        for arg in args:
            if isinstance(arg, Tracer):
                raise leaked(arg)
        return primitive.impl(*args, **params)


EVAL = EvalTrace(None)

_current: ContextVar[Trace] = ContextVar("functrace_trace", default=EVAL)
current_trace = _current.get
set_trace = _current.set
reset_trace = _current.reset


def run_under(trace: Trace, function: Callable[..., Any], inputs: Sequence[Any]) -> Any:
    """Call a function with a new trace as the current one; the trace is dead afterwards."""
    token = set_trace(trace)
    try:
        return function(*inputs)
    finally:
        reset_trace(token)
        trace.alive = False


class Tracer:
    """A value under transformation; behaves like a NumPy array.

    The array operators and methods are installed by `functrace.numpy`, the floor that knows NumPy's semantics.
    """

    __array_priority__: ClassVar[float] = 1000.0
    __hash__: ClassVar[None] = None  # type: ignore[assignment]

    _trace: Trace
    #: A Python scalar's dtype gives way to its partner's, as NumPy's promotion says.
    weak: bool = False
    #: Bookkeeping of views, for assignment; see functrace.numpy.
    views: Any = None
    _frozen: Tracer | None = None

    @property
    def aval(self) -> ShapedArray:
        return ShapedArray(self.shape, self.dtype)

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return self.aval.size

    def concrete(self) -> Any:
        """The NumPy value behind this tracer.

        Raises:
            AbstractValueError: it has none, being staged or batched.
        """
        raise abstract(self, "needs a concrete number")

    def constant(self) -> Any:
        """The NumPy value behind a tracer that no derivative flows through, else None."""
        return None

    def peek(self) -> Any:
        """The NumPy values behind this tracer, batch axes included.

        Raises:
            AbstractValueError: it has none, being staged.
        """
        raise abstract(self, "needs to know how often a loop ran")

    def describe(self) -> str:
        """Kind, dtype and shape, for messages."""
        return f"{self.aval} traced by {self._trace.name}"

    def become(self, other: Tracer) -> None:
        """Take over the value of another tracer of the same trace: assignment to a Python object."""
        raise TypeError(f"{type(self).__name__} cannot be assigned to")

    def snapshot(self) -> Tracer:
        """Another tracer with the same value, which a later assignment to this one does not reach."""
        copy = object.__new__(type(self))
        copy._trace, copy.weak = self._trace, self.weak
        copy.become(self)
        return copy

    def frozen(self) -> Tracer:
        """A snapshot that nobody assigns to, the same one until this tracer is assigned to; for traces to keep."""
        if self._frozen is None:
            self._frozen = self.snapshot()
        return self._frozen

    def __bool__(self) -> bool:
        return bool(self.concrete())

    def __index__(self) -> int:
        if self.dtype.kind in "iub":
            return operator.index(self.concrete())
        raise conversion(self, "an index")

    def __int__(self) -> int:
        if self.dtype.kind in "iub":
            return int(self.concrete())
        return int(self.plain("int(x)"))

    def __float__(self) -> float:
        return float(self.plain("float(x)"))

    def __complex__(self) -> complex:
        return complex(self.plain("complex(x)"))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.plain("a NumPy array"), dtype)

    def plain(self, target: str) -> Any:
        """The NumPy value, of a tracer that no derivative flows through.

        Raises:
            ConversionError: a derivative does, and would be lost; the message names the target.
        LeakedTracerError: its transformation has ended.
        """
        value = self.constant() if self._trace.alive else None
        if value is None:
            raise conversion(self, target) if self._trace.alive else leaked(self)
        return value

    def __repr__(self) -> str:
        return f"Traced<{self.describe()}>"


class DualTracer(Tracer):
    """A primal together with what stands for its tangent; None is the zero tangent."""

    def __init__(self, trace: Trace, primal: Any, tangent: Any) -> None:
        self._trace = trace
        self.primal = primal
        self.tangent = tangent

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.primal.shape

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        return self.primal.dtype

    def concrete(self) -> Any:
        return self.primal.concrete() if isinstance(self.primal, Tracer) else self.primal

    def constant(self) -> Any:
        if self.tangent is not None:
            return None
        return self.primal.constant() if isinstance(self.primal, Tracer) else self.primal

    def peek(self) -> Any:
        return self.primal.peek() if isinstance(self.primal, Tracer) else self.primal

    def become(self, other: DualTracer) -> None:  # type: ignore[override]
        self.primal, self.tangent = other.primal, other.tangent


def leaked(tracer: Tracer) -> LeakedTracerError:
    """The error for a tracer used outside the transformation that made it."""
    return LeakedTracerError(
        "a traced value was used outside the transformation that made it",
        where=user_line(),
        got=f"{tracer.describe()}, started at {tracer._trace.source}",
        remedy="return the value from the transformed function instead of storing it in a global, an attribute or a "
        "closure (jvp, vjp and grad take has_aux=True for extra outputs)",
    )


def abstract(tracer: Tracer, purpose: str) -> AbstractValueError:
    """The error for a staged or batched value where Python needs a number."""
    return AbstractValueError(
        f"Python {purpose}, but this value is abstract while tracing",
        where=user_line(),
        got=tracer.describe(),
        remedy="use lax.cond or functrace.numpy.where for a choice, lax.fori_loop or lax.while_loop for a loop; under "
        "jit, mark the argument static (static_argnums) so that Python sees its value",
    )


def conversion(tracer: Tracer, target: str) -> ConversionError:
    """The error for a conversion that would silently drop the derivative."""
    function = scipy_function()
    if function is not None:
        return ConversionError(
            f"{function} makes {target} of a traced value: its derivative would be lost",
            where=user_line(),
            got=tracer.describe(),
            remedy="multiply by the dense matrix, A.toarray(); sparse matrices do not trace"
            if function.startswith("scipy.sparse")
            else f"use functrace.{function} if there is such a function, or NumPy's functions",
        )
    return ConversionError(
        f"a traced value cannot become {target}: its derivative would be lost",
        where=user_line(),
        got=tracer.describe(),
        remedy="index a plain array by a traced integer with functrace.numpy.take(x, i) or functrace.numpy.array(x)[i]"
        if tracer.dtype.kind in "iu"
        else "use functrace.numpy.array or numpy.stack instead of numpy.array([...]); functrace.numpy.zeros for a "
        "buffer that is assigned to; numpy.sin instead of math.sin; functrace.stop_gradient(x) where the derivative "
        "is not wanted",
    )
