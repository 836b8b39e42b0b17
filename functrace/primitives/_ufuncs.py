"""How elementwise primitives are compiled whose numbers have no code of their own: by the inner loops of NumPy's and
SciPy's ufuncs on arrays in memory; see `core.lowering`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from functrace.core.lowering import Call

__all__ = ["by_ufunc"]


def _find(name: str) -> Any:
    """A ufunc by its name, as `backend.symbols` has it."""
    module, _, own = name.rpartition(".")
    if module == "numpy":
        return getattr(np, own)
    import scipy.special

    return getattr(scipy.special._ufuncs if own.startswith("_") else scipy.special, own)


def by_ufunc(name: str, output: int = 0) -> Call:
    """The loop of a ufunc for the operands' types, if it has one that needs no conversion.

    Args:
        name: "numpy." or "scipy.special." and the ufunc's name.
        output: which of its results is wanted.
    """

    def types_of(dtypes: list[np.dtype]) -> str | None:
        wanted = "".join(d.char for d in dtypes) + "->"
        return next((types for types in _find(name).types if types.startswith(wanted)), None)

    def suits(*avals: Any, **params: Any) -> bool:
        return not params and types_of([a.dtype for a in avals]) is not None

    def emit(c: Any, operands: list[Any], outs: list[Any]) -> None:
        if 0 in outs[0].shape:
            return
        arrays = [c.materialise(o) for o in operands]
        types = types_of([a.dtype for a in arrays])
        assert types is not None
        results = [outs[0] if k == output else c.array(outs[0].shape, np.dtype(letter))
                   for k, letter in enumerate(types.partition("->")[2])]  # fmt: skip
        if results[output].dtype != outs[0].dtype:
            raise TypeError(f"{name} gives {results[output].dtype}")
        c.ufunc(name, types, arrays, results)

    return Call(suits, emit)
