"""Every error the library raises on purpose, one class per mistake.

A message has up to four parts: what went wrong, where in the user's code, what was got, and the remedy.
This floor imports nothing of the package, so that any floor can raise.
"""

from __future__ import annotations

__all__ = [
    "AbstractValueError",
    "ArgumentError",
    "AssignmentError",
    "BatchAxisError",
    "CallbackError",
    "CarryError",
    "CompilationWarning",
    "ConversionError",
    "CotangentError",
    "CustomRuleError",
    "DTypeError",
    "DegenerateSolutionError",
    "FunctraceError",
    "IndexingError",
    "InputError",
    "JaxprError",
    "LeakedTracerError",
    "MissingRuleError",
    "MissingSolverError",
    "NonDifferentiableInputError",
    "NonHashableError",
    "NonScalarOutputError",
    "RecompilationWarning",
    "RegistrationError",
    "ShapeError",
    "SolverFailureError",
    "TangentError",
    "TreeError",
    "UnsupportedAttributeError",
    "UnsupportedFunctionError",
    "WrongStructureError",
]


def compose(what: str, *, where: str | None = None, got: str | None = None, remedy: str | None = None) -> str:
    """Lay out the parts of a message, one to a line."""
    lines = [what]
    lines += [f"  {label}: {text}" for label, text in (("where", where), ("got", got), ("remedy", remedy)) if text]
    return "\n".join(lines)


class FunctraceError(Exception):
    """Base of all errors raised by functrace.

    Args:
        what: what went wrong, in one sentence.
        where: the user's line.
        got: the offending value's type, shape and dtype.
        remedy: what to do instead.
    """

    def __init__(
        self, what: str, *, where: str | None = None, got: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(compose(what, where=where, got=got, remedy=remedy))


class TreeError(FunctraceError, ValueError):
    """Two pytrees differ in structure, or a container cannot be a pytree."""


class ArgumentError(FunctraceError, ValueError):
    """An option of a transformation (argnums, mode, axis_size ...) does not fit the call."""


class InputError(FunctraceError, TypeError):
    """A value that is neither a number nor a numeric array reached a traced function."""


class NonScalarOutputError(FunctraceError, TypeError):
    """`grad` needs one real scalar output."""


class NonDifferentiableInputError(FunctraceError, TypeError):
    """A derivative was asked for where there is none: of integers, booleans, or complex numbers for real ones."""


class TangentError(FunctraceError, TypeError):
    """A tangent does not match its primal in tree, shape or dtype."""


class CotangentError(FunctraceError, TypeError):
    """A cotangent does not match its output in tree, shape or dtype."""


class CustomRuleError(FunctraceError, TypeError):
    """A custom derivative rule is missing, or does not fit the function it belongs to."""


class LeakedTracerError(FunctraceError, TypeError):
    """A traced value outlived the transformation that made it."""


class AbstractValueError(FunctraceError, TypeError):
    """Python asked for the concrete number behind a value that has none (staged or batched)."""


class CallbackError(FunctraceError, TypeError):
    """A callback returns something else than promised, or meets a transformation that it says nothing about."""


class CarryError(FunctraceError, TypeError):
    """The carry of a loop, or the branches of a conditional, differ in type."""


class ConversionError(FunctraceError, TypeError):
    """A conversion (`float(x)`, `np.array([x])`, `buffer[i] = x`) would drop the derivative."""


class AssignmentError(FunctraceError, ValueError):
    """An in-place update whose NumPy meaning cannot be kept."""


class NonHashableError(FunctraceError, TypeError, ValueError):
    """A static argument or parameter cannot be hashed."""


class BatchAxisError(FunctraceError, ValueError):
    """`in_axes` or `out_axes` of `vmap` does not fit the values."""


class MissingRuleError(FunctraceError, TypeError):
    """A primitive lacks the rule that a transformation needs."""


class MissingSolverError(FunctraceError, ImportError):
    """A solver was asked for that is not installed."""


class SolverFailureError(FunctraceError, ArithmeticError):
    """A solver did not find the solution that something else needs."""


class DegenerateSolutionError(FunctraceError, ArithmeticError):
    """A solution of an optimisation problem has no derivative by the parameters."""


class UnsupportedFunctionError(FunctraceError, TypeError):
    """A NumPy function, method or option has no traced form."""


class UnsupportedAttributeError(UnsupportedFunctionError, AttributeError):
    """An attribute of NumPy arrays that traced arrays do not have."""


class ShapeError(FunctraceError, ValueError, TypeError):
    """Operand shapes do not fit the operation."""


class DTypeError(FunctraceError, TypeError):
    """Operand dtypes do not fit the operation."""


class IndexingError(FunctraceError, IndexError):
    """An index does not fit the array, or cannot be traced."""


class RegistrationError(FunctraceError, ValueError):
    """A primitive, rule or tree node was registered twice or inconsistently."""


class JaxprError(FunctraceError, TypeError):
    """A jaxpr is ill typed or ill formed."""


class CompilationWarning(UserWarning):
    """A program could not be compiled, and runs more slowly instead."""


class RecompilationWarning(UserWarning):
    """A jitted function is compiled again and again."""


class WrongStructureError(FunctraceError, ArithmeticError):
    """A sparse derivative disagrees with products computed without it: its pattern or its values are wrong."""
