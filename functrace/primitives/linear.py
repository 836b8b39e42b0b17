"""The constructor of primitives that are linear in their one operand: give the transpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from functrace.core.ir import Var
from functrace.core.primitive import Primitive
from functrace.core.series import coefficient_of
from functrace.core.structure import moves, whole
from functrace.core.types import ShapedArray, aval_of
from functrace.core.work import moving

__all__ = ["linear"]


def linear(
    name: str,
    impl: Callable[..., Any],
    abstract_eval: Callable[..., ShapedArray],
    transpose: Callable[..., Any],
    batch: Callable[..., Any],
    *,
    masks: str | None = "structural",
    moving_elements: bool = False,
    **rules: Any,
) -> Primitive:
    """A primitive that is linear in its one operand.

    Args:
        transpose: `transpose(cotangent, aval, **params)`, the operand's cotangent.
        batch: `batch(size, value, **params)`, the operand being batched.
        masks: see `Primitive`; by default coefficients are 0 and 1.
        moving_elements: whether every output element is an element of the operand, or 0.
    """

    def jvp(primals: list[Any], tangents: list[Any], **params: Any) -> tuple[list[Any], list[Any]]:
        return [primitive.bind(primals[0], **params)], [primitive.bind(tangents[0], **params)]

    def linearize(
        record: Callable[..., Var], primals: list[Any], tangents: list[Var], **params: Any
    ) -> tuple[list[Any], list[Var]]:
        out = primitive.bind(primals[0], **params)
        return [out], [record(primitive, [tangents[0]], aval_of(out), params)]

    def transpose_rule(bars: list[Any], operand: Any, **params: Any) -> list[Any]:
        return [transpose(bars[0], operand.aval, **params)]

    def taylor(order: int, operands: list[Any], out: list[Any], **params: Any) -> Any:
        term = coefficient_of(operands[0], order)
        return None if term is None else primitive.bind(term, **params)

    def batch_rule(size: int, values: list[Any], batched: list[bool], **params: Any) -> tuple[list[Any], list[bool]]:
        return [batch(size, values[0], **params)], [True]

    primitive = Primitive(
        name,
        impl,
        abstract_eval,
        jvp=jvp,
        linearize=linearize,
        transpose=transpose_rule,
        taylor=taylor,
        batch=batch_rule,
        family="linear",
        masks=masks,
        **{"cost": moving, "sparsity": moves(impl) if moving_elements else whole(linear=(0,)), **rules},
    )
    return primitive
