"""Errors about arguments that nobody expected, in words for the user: NumPy's own where it would refuse as well.

What the traced functions know to be wrong they refuse themselves. The rest ends somewhere in Python or NumPy, and is
turned here, on the way out, into an error that names the function, the user's line and the arguments.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from functrace.core.trace import Tracer
from functrace.errors import ArgumentError, FunctraceError, IndexingError, InputError, UnsupportedFunctionError
from functrace.util import in_users_code, user_line

__all__ = ["UNCLEAR", "explain_refusal"]

#: What wrong arguments raise where nobody checks them.
UNCLEAR = (TypeError, ValueError, LookupError, AttributeError, OverflowError, AssertionError)

#: NumPy is asked about arguments of at most so many elements.
_MOST_ELEMENTS = 100_000
_SHOWN = 60  # characters of an argument


def explain_refusal(
    error: Exception, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    """Raise in our words for an error from within the traced form of a function; return if the error is clear as it is.

    Raises:
        ArgumentError, InputError, IndexingError: NumPy refuses such arguments too, with this message.
        UnsupportedFunctionError: NumPy takes them, or cannot be asked.
    """
    frames = error.__traceback__
    if isinstance(error, (FunctraceError, np.linalg.LinAlgError)) or frames is None or in_users_code(frames):
        return
    if isinstance(error, TypeError) and frames.tb_next is None:
        return  # Python's own word on missing and unknown arguments
    module = getattr(function, "__module__", None) or "numpy"
    name = f"{module.partition('._')[0] if module.startswith(('numpy', 'scipy')) else 'numpy'}.{function.__name__}"
    shown = ", ".join([*map(_shown, args), *(f"{key}={_shown(value)}" for key, value in kwargs.items())])
    refusal = _refusal(function, args, kwargs)
    if refusal is not None:
        raise _class_of(refusal)(
            f"{name}: {refusal}",
            where=user_line(),
            got=shown,
            remedy="correct the arguments; the function refuses them outside a traced function too",
        ) from None
    raise UnsupportedFunctionError(
        f"{name} inside a traced function cannot take these arguments: {error}",
        where=user_line(),
        got=shown,
        remedy="check the arguments against the function's documentation, or compute this part outside the traced "
        "function",
    ) from error


def _class_of(error: Exception) -> type[FunctraceError]:
    """Our class for an error of NumPy's, so that `except TypeError` and the like keep their meaning."""
    if isinstance(error, IndexError):
        return IndexingError
    return ArgumentError if isinstance(error, ValueError) else InputError


def _refusal(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Exception | None:
    """What NumPy says to arguments of these types, where it is quick to ask; None if it takes them."""
    if kwargs.get("out") is not None:  # NumPy may write past the end of a small array before it complains
        return None
    room = [_MOST_ELEMENTS]
    try:
        plain_args = [_stand_in(value, room) for value in args]
        plain_kwargs = {key: _stand_in(value, room) for key, value in kwargs.items()}
    except LookupError:
        return None
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            function(*plain_args, **plain_kwargs)
        except np.linalg.LinAlgError:  # about the values, which are not the user's
            return None
        except Exception as refusal:
            return refusal
    return None


def _stand_in(value: Any, room: list[int]) -> Any:
    """A plain argument of the type of a traced one; a LookupError where that would be large or could run user code."""
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(_stand_in(v, room) for v in value)
    if isinstance(value, (FunctionType, MethodType)):
        raise LookupError
    if isinstance(value, (Tracer, np.ndarray)):
        room[0] -= value.size
        if room[0] < 0:
            raise LookupError
        return np.ones(value.shape, value.dtype) if isinstance(value, Tracer) else value.copy()
    return value


def _shown(value: Any) -> str:
    """An argument in a message."""
    if isinstance(value, Tracer):
        return value.describe()
    if isinstance(value, (np.ndarray, np.generic)):
        return f"{value.dtype.name}[{','.join(map(str, value.shape))}]"
    if type(value) in (list, tuple):
        text = ", ".join(map(_shown, value[:5])) + ", ..." * (len(value) > 5)
        return f"[{text}]" if type(value) is list else f"({text}{',' * (len(value) == 1)})"
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        text = repr(value) if not isinstance(value, int) or abs(value) < 10**20 else "a very large integer"
        return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
    return getattr(value, "__qualname__", None) or type(value).__qualname__
