"""Code of elementwise operations on numbers, made once for each kind and then filled in.

What an operation's code looks like depends on the types of its operands, seldom on more. So the code is run once on
blanks in place of operands; a blank that is asked whether it is a constant says that the code depends on that too, and
then it is run anew for every operation, as is code with branches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.backend.compiler.emit import Emitter, Value

__all__ = ["Form"]

_NAME = re.compile(r"%(?!sym)[a-z]+(\d+)(?![\w.])")
_NOTHING: dict[str, Any] = {}
_PART = re.compile(r"%[a-z]+\d+\.")


class _Asked(Exception):
    """The code depends on whether an operand is a constant."""


class _Blank(Value):
    """Stands for an operand; its name is a field of the text."""

    __slots__ = ()

    def __init__(self, emitter: Emitter, name: str, dtype: np.dtype) -> None:
        self.emitter, self.name, self.dtype, self.lanes, self.parts = emitter, name, dtype, 1, None

    @property
    def constant(self) -> Any:
        raise _Asked


class Form:
    """The code of one kind of operation on numbers: of one elementwise lowering, with operands of certain types.

    Attributes:
        text: `text(number, *names)`, the lines that give `%v<number>` from operands of these names; None before they
            are known, and if there are none that serve for all.
        dtype: of the result.
        data: what the nodes of such operations hold, the code and its parameters; None if these differ.
    """

    __slots__ = ("_met", "data", "dtype", "text")

    def __init__(self, code: Callable[..., Value] | None = None) -> None:
        """`code`: what the operations have in common, without parameters; None if they have nothing in common."""
        self.data = None if code is None else (code, _NOTHING)
        self.text: Callable[..., str] | None = None
        self.dtype: np.dtype | None = None
        self._met = 0 if code is not None else 2

    def learn(self, e: Emitter, code: Callable[..., Value], operands: Sequence[Value]) -> None:
        """Finds the text, at the second operation of the kind: one that is met once is not worth it."""
        self._met += 1
        if self._met != 2 or any(o.parts is not None or o.lanes != 1 for o in operands):
            return
        lines, block, count = e.lines, e.block, e.count
        e.lines = []
        try:
            found = code(e, *[_Blank(e, f"\0{k}\0", o.dtype) for k, o in enumerate(operands)])
            text, straight = "\n".join(e.lines), e.block == block
        except _Asked:
            return
        finally:
            e.lines, e.block = lines, block
        own = list(dict.fromkeys(m[0] for m in _NAME.finditer(text) if int(m[1]) > count))
        if not straight or found.parts is not None or found.name not in own or _PART.search(text):
            return
        own.remove(found.name)
        fields = {found.name: "%v{0}", **{name: f"%v{{0}}.{k}" for k, name in enumerate(own)}}
        text = _NAME.sub(lambda m: fields.get(m[0], m[0]), text.replace("{", "{{").replace("}", "}}"))
        for k in range(len(operands)):
            text = text.replace(f"\0{k}\0", f"{{{k + 1}}}")
        self.text, self.dtype = text.format, found.dtype
