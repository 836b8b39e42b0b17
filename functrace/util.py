"""Small helpers for every floor: the user's source line, garbage collection."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, NamedTuple, TypeVar

import numpy

__all__ = ["Source", "replays", "scipy_function", "user_line", "user_source", "without_collection"]

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_NUMPY = os.path.dirname(os.path.abspath(numpy.__file__)) + os.sep
_SCIPY = os.path.join(os.path.dirname(os.path.dirname(_NUMPY)), "scipy") + os.sep
#: Of the standard library, what stands between our frames and the user's (cached properties, context managers).
_BETWEEN = (functools.__file__, contextlib.__file__)
#: Per file whether it is none of the user's: 2 where it holds functions that replay equations.
_internal: dict[str, int] = {}
_replaying: set[int] = set()

F = TypeVar("F", bound=Callable[..., Any])


class Source(NamedTuple):
    """A place in the user's code; the line number is looked up only when it is shown."""

    code: CodeType
    instruction: int

    @property
    def line(self) -> int:
        for start, end, line in self.code.co_lines():
            if start <= self.instruction < end:
                return line or self.code.co_firstlineno
        return self.code.co_firstlineno

    def __str__(self) -> str:
        return f"{os.path.relpath(self.code.co_filename)}:{self.line} in {self.code.co_qualname}"


def _is_internal(filename: str) -> bool:
    internal = filename.startswith((_PACKAGE, _NUMPY, _SCIPY)) or filename in _BETWEEN
    return bool(_internal.setdefault(filename, internal))


def replays(fun: F) -> F:
    """Mark a function that runs recorded equations, each in its turn under the local name `eqn`: see `user_source`."""
    _replaying.add(id(fun.__code__))
    _internal[fun.__code__.co_filename] = 2
    return fun


def user_source(replayed: bool = False) -> Source | None:
    """The innermost frame outside functrace, NumPy and SciPy, or None when there is none.

    Args:
        replayed: whether what a recorded equation does now belongs to the line that equation came from. (Reading the
            frame that runs it keeps its values alive for a while, so this is for tracing, where they are small.)
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        internal = _internal.get(code.co_filename)
        if internal is None:
            internal = _is_internal(code.co_filename)
        if not internal:
            return Source(code, frame.f_lasti)
        if internal == 2 and replayed and id(code) in _replaying:
            eqn = frame.f_locals.get("eqn")
            if eqn is not None and eqn.source is not None:
                return eqn.source
        frame = frame.f_back
    return None


def scipy_function() -> str | None:
    """The public name of the SciPy function that the user called and that led here, or None."""
    frame: FrameType | None = sys._getframe(1)
    name = None
    while frame is not None and _is_internal(frame.f_code.co_filename):
        module = frame.f_globals.get("__name__", "")
        if module.startswith("scipy.") and not module.startswith("scipy._lib"):
            public = [part for part in module.split(".") if not part.startswith("_")]
            name = ".".join([*public, frame.f_code.co_name])
        frame = frame.f_back
    return name


def user_line() -> str | None:
    """`file:line in function` of the user's code that led here."""
    source = user_source()
    return None if source is None else str(source)


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Lets no garbage collection start: each would look at all of a program that is being made, and find nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
