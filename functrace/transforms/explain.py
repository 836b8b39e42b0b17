"""`explain`: what the compiler makes of a function, for people to read."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from functrace.backend.explain import Group, groups, schedule_text
from functrace.transforms._flatten import check_callable
from functrace.transforms.jit import Jitted, jit

__all__ = ["Explanation", "explain"]


class Explanation:
    """What became of a function at arguments of some types; prints as a table.

    Args:
        text: the table.
        groups: its rows: loop nests, library calls, loops with programs of their own, and calls of NumPy.
    """

    def __init__(self, text: str, groups: list[Group]) -> None:
        self.text, self.groups = text, groups

    def __repr__(self) -> str:
        return self.text


def explain(fun: Callable[..., Any]) -> Callable[..., Explanation]:
    """A function that tells how `jit` compiles `fun`: what is fused, what is a library call, what falls back to NumPy.

    Args:
        fun: a function of arrays, jitted or not.

    Returns:
        A function of the same arguments; its result prints as a table, with estimates of the arithmetic operations and
        the bytes of each group.

    Example:
        >>> import numpy as np
        >>> from functrace import explain, grad
        >>> print(explain(grad(lambda x: np.sum(np.sin(x) * x)))(np.ones(1000)))
        kind          flops      bytes  what
        fused          4000        16k  4 operations over 1000: add -> float64[1000]
        1 fused; workspace of 0 bytes
    """
    check_callable(fun, "explain")
    jitted = fun if isinstance(fun, Jitted) else jit(fun)

    @functools.wraps(fun, updated=())
    def explained(*args: Any, **kwargs: Any) -> Explanation:
        compiled = jitted.lower(*args, **kwargs)._program.executable()
        return Explanation(schedule_text(compiled), groups(compiled))

    return explained
