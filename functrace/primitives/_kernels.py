"""Compiled kernels in place of NumPy: which there are, from what size on, and when it pays to load the compiler.

A kernel does what NumPy does, to the last bit where it adds in the same order. Primitives ask for one each time; the
backend, which alone knows the compiler, delivers it later, in the background, or never. So nobody waits for it: while
there is none, NumPy does the work, and the time that the kernel would have saved is added up. Once that exceeds what
loading (half a second) or compiling costs, the kernel is ordered: whatever the program, it pays at most twice.

Solutions, factors and sums of exponentials may change in their last digits when their kernel arrives; nothing else
does. Kernels give no floating-point warnings. `FUNCTRACE_DISABLE_JIT=1` leaves all work to NumPy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable

from functrace.util import switched_on

__all__ = ["KERNELS", "Kernel", "order_from"]

#: Seconds of lost time that justify loading Numba and a kernel, and a kernel when Numba is there already.
LOADING, COMPILING = 0.5, 0.15

#: Every kernel by name.
KERNELS: dict[str, Kernel] = {}

#: True leaves all work to NumPy, for comparisons.
off = False

_order: Callable[[str, Hashable], None] | None = None


def order_from(supplier: Callable[[str, Hashable], None]) -> None:
    """Names who delivers: `supplier(name, kind)` returns at once and fills `KERNELS[name].compiled[kind]` later."""
    global _order
    _order = supplier


class Kernel:
    """A kernel and its compiled forms, one per kind of operands (their dtype).

    Args:
        name: the name of the backend's function.
        least: the size (elements) below which NumPy is as fast, from `bench/kernels.py`.
        gain: nanoseconds an element that it saves, to know when it pays.
    """

    def __init__(self, name: str, *, least: int, gain: float) -> None:
        self.name, self.least, self.gain = name, least, gain
        #: Functions by kind; None where compilation failed, which is not tried again.
        self.compiled: dict[Hashable, Callable[..., bool] | None] = {}
        self.lost: dict[Hashable, float] = {}
        KERNELS[name] = self

    def ready(self, kind: Hashable, size: int) -> Callable[..., bool] | None:
        """The function for this kind of operands, if it is compiled and the size is worth it."""
        if size < self.least or off:
            return None
        function = self.compiled.get(kind)
        if function is None and kind not in self.compiled:
            self._lose(kind, size)
        return function

    def _lose(self, kind: Hashable, size: int) -> None:
        """Add up the time lost to NumPy; order the kernel when it is enough."""
        lost = self.lost[kind] = self.lost.get(kind, 0.0) + 1e-9 * self.gain * size
        if lost < (COMPILING if "numba" in sys.modules else LOADING):
            return
        self.lost[kind] = 0.0
        if _order is not None and not switched_on("FUNCTRACE_DISABLE_JIT", False):
            _order(self.name, kind)
