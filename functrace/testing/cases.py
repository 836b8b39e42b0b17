"""A case: a primitive and operands at which its rules are checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from functrace.core.primitive import Primitive
from functrace.core.types import aval_of, is_inexact

__all__ = ["Case"]


@dataclass(frozen=True, eq=False)
class Case:
    """A primitive applied to operands, at which all its rules are checked.

    Args:
        primitive: the primitive.
        operands: NumPy values of equal dtype and shape where the primitive wants that, away from kinks.
        params: the parameters.
        name: shown in reports; by default the primitive's name and the operands' types.
        wrt: positions to differentiate; by default all floating point and complex operands, except plain numbers that
            stand for their broadcast.
        complex_step: whether `impl` is analytic, so that complex operands give derivatives exact to rounding.
        order: the highest order of derivatives to check.
        rtol, atol: tolerances of comparisons with differences.
        make_params: gives the parameters for operands, where they are programs of the operands' types.
        stages_reverse: whether reverse mode can be staged; a loop that counts its own steps cannot.
    """

    primitive: Primitive
    operands: tuple[Any, ...]
    params: dict[str, Any] = field(default_factory=dict)
    name: str = ""
    wrt: tuple[int, ...] | None = None
    complex_step: bool = False
    order: int = 2
    rtol: float = 1e-6
    atol: float = 1e-8
    make_params: Callable[..., dict[str, Any]] | None = None
    stages_reverse: bool = True

    def __post_init__(self) -> None:
        unwrapped = tuple(x[()] if isinstance(x, np.ndarray) and x.ndim == 0 else x for x in self.operands)
        object.__setattr__(self, "operands", unwrapped)
        if self.make_params is not None:
            object.__setattr__(self, "params", self.make_params(*unwrapped))

    def __str__(self) -> str:
        if self.name:
            return self.name if self.name.startswith(self.primitive.name) else f"{self.primitive.name}-{self.name}"
        types = ",".join(str(aval_of(x)) for x in self.operands)
        return f"{self.primitive.name}-{types}"

    def arrays(self) -> tuple[int, ...]:
        """Positions of operands that are not plain numbers standing for their broadcast."""
        scalars_are_operands = self.primitive.family != "elementwise" or all(np.shape(x) == () for x in self.operands)
        return tuple(
            i
            for i, x in enumerate(self.operands)
            if isinstance(x, np.ndarray) or (scalars_are_operands and isinstance(x, np.generic))
        )

    def active(self) -> tuple[int, ...]:
        """Positions to differentiate."""
        if self.wrt is not None:
            return self.wrt
        if self.primitive.nondifferentiable:
            return ()
        return tuple(i for i in self.arrays() if is_inexact(self.operands[i].dtype))

    def function(self, positions: Sequence[int], floats_only: bool = False) -> Callable[..., list[Any]]:
        """The primitive as a function of the operands at some positions, giving a list."""
        keep: list[int] | None = None
        if floats_only:
            keep = [i for i, o in enumerate(self.evaluate()) if is_inexact(o.dtype)]

        def f(*values: Any) -> list[Any]:
            operands = list(self.operands)
            for position, value in zip(positions, values, strict=True):
                operands[position] = value
            out = self.primitive.bind(*operands, **self.params)
            outs = list(out) if self.primitive.multiple else [out]
            return outs if keep is None else [outs[i] for i in keep]

        return f

    def evaluate(self, *operands: Any) -> list[Any]:
        """What `impl` gives on these operands, or on the case's own."""
        out = self.primitive.impl(*(operands or self.operands), **self.params)
        return list(out) if self.primitive.multiple else [out]

    def single(self) -> Case | None:
        """The case in single precision, or None when it has no double precision operand."""
        narrow = {np.dtype(np.float64): np.float32, np.dtype(np.complex128): np.complex64}
        if not any(aval_of(x).dtype in narrow for x in self.operands):
            return None
        with np.errstate(over="ignore"):
            operands = [np.asarray(x).astype(narrow.get(aval_of(x).dtype, aval_of(x).dtype))[()] for x in self.operands]
        return replace(self, operands=tuple(operands), wrt=self.active(), name=f"{self.name or self}-single")
