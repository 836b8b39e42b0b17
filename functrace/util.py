"""What every floor uses: the user's source line, garbage collection."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, TracebackType
from typing import Any, NamedTuple, TypeVar

import numpy

__all__ = [
    "Source", "in_users_code", "replays", "scipy_function", "switched_on", "user_line", "user_source",
    "without_collection",
]  # fmt: skip

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_NUMPY = os.path.dirname(os.path.abspath(numpy.__file__)) + os.sep
_SCIPY = os.path.join(os.path.dirname(os.path.dirname(_NUMPY)), "scipy") + os.sep
#: Of the standard library, what stands between our frames and the user's (cached properties, context managers).
_BETWEEN = (functools.__file__, contextlib.__file__)
#: Per file whether it is none of the user's: 2 where it holds functions that replay equations.
_internal: dict[str, int] = {}
_replaying: set[int] = set()
_MANY = 20_000  # objects, from which on a look at them takes a millisecond

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

    def __deepcopy__(self, memo: dict[int, Any]) -> Source:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # another process does not have the code

    @property
    def file(self) -> str:
        """The file's name, from the current directory if there is one (on this drive)."""
        try:
            return os.path.relpath(self.code.co_filename)
        except (OSError, ValueError):
            return self.code.co_filename

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.code.co_qualname}"


_new = tuple.__new__  # quicker than the class, which has a constructor in Python


def _is_internal(filename: str) -> bool:
    internal = filename.startswith((_PACKAGE, _NUMPY, _SCIPY)) or filename in _BETWEEN
    return bool(_internal.setdefault(filename, internal))


def replays(fun: F) -> F:
    """Mark a function that runs recorded equations, each in its turn under the local name `eqn`: see `user_source`."""
    _replaying.add(id(fun.__code__))
    _internal[fun.__code__.co_filename] = 2
    return fun


def user_source(replayed: bool = False, above: int = 0) -> Source | None:
    """The innermost frame outside functrace, NumPy and SciPy, or None when there is none.

    Args:
        replayed: whether what a recorded equation does now belongs to the line that equation came from. (Reading the
            frame that runs it keeps its values alive for a while, so this is for tracing, where they are small.)
        above: how many frames, from the caller on, are known to be functrace's and to replay nothing; they are skipped.
    """
    # This runs for every equation that is recorded, so it asks a frame for no more than it has to.
    known = _internal.get
    frame: FrameType | None = sys._getframe(above + 1)
    while frame is not None:
        code = frame.f_code
        internal = known(code.co_filename)
        if internal is None:
            internal = _is_internal(code.co_filename)
        if not internal:
            return _new(Source, (code, frame.f_lasti))
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


def in_users_code(traceback: TracebackType | None) -> bool:
    """Whether an error that was raised under one of our functions came through code of the user's (a callback)."""
    while traceback is not None:
        if not _is_internal(traceback.tb_frame.f_code.co_filename):
            return True
        traceback = traceback.tb_next
    return False


def switched_on(variable: str, default: bool) -> bool:
    """Whether a variable of the environment is set to something else than 0, off, no or false."""
    value = os.environ.get(variable, "").strip().lower()
    return value not in ("0", "off", "no", "false") if value else default


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Lets no garbage collection start: each would look at all of a program that is being made, and find nothing.

    What was made counts as old afterwards, so that the next collection does not look at it either, but a full one does.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            # Asking for objects that somebody has put aside, who are to stay there, takes a look at each of these.
            if gc.get_count()[0] > _MANY and not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()
