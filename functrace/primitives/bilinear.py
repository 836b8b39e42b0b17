"""The constructor of primitives that are linear in each of two operands: give both transposes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.core.ir import Literal, Var
from functrace.core.primitive import Primitive, is_linear
from functrace.core.series import product_coefficient
from functrace.core.structure import GroupProduct, Groups, Linked, Structure
from functrace.core.types import ShapedArray, aval_of
from functrace.primitives.families import add

__all__ = ["bilinear"]


def bilinear(
    name: str,
    impl: Callable[..., Any],
    abstract_eval: Callable[..., ShapedArray],
    transpose_left: Callable[..., Any],
    transpose_right: Callable[..., Any],
    batch: Callable[..., Any] | None,
    *,
    masks: str | None = None,
    **rules: Any,
) -> Primitive:
    """A primitive that is linear in each of its two operands.

    Args:
        transpose_left: `transpose_left(cotangent, left aval, right value, **params)`.
        transpose_right: `transpose_right(cotangent, left value, right aval, **params)`.
        batch: the record's batch rule.
    """

    def jvp(primals: list[Any], tangents: list[Any], **params: Any) -> tuple[list[Any], list[Any]]:
        (x, y), (x_dot, y_dot) = primals, tangents
        left = None if x_dot is None else primitive.bind(x_dot, y, **params)
        right = None if y_dot is None else primitive.bind(x, y_dot, **params)
        total = left if right is None else right if left is None else add(left, right)
        return [primitive.bind(x, y, **params)], [total]

    def linearize(
        record: Callable[..., Var], primals: list[Any], tangents: list[Var | None], **params: Any
    ) -> tuple[list[Any], list[Var | None]]:
        (x, y), (x_dot, y_dot) = primals, tangents
        out = primitive.bind(x, y, **params)
        aval = aval_of(out)
        left = None if x_dot is None else record(primitive, [x_dot, Literal(y)], aval, params)
        right = None if y_dot is None else record(primitive, [Literal(x), y_dot], aval, params)
        total = left or right if left is None or right is None else record(add, [left, right], aval, {})
        return [out], [total]

    def transpose(bars: list[Any], x: Any, y: Any, **params: Any) -> list[Any]:
        if is_linear(x):
            return [transpose_left(bars[0], x.aval, y, **params), None]
        return [None, transpose_right(bars[0], x, y.aval, **params)]

    def taylor(order: int, operands: list[Any], out: list[Any], **params: Any) -> Any:
        return product_coefficient(lambda a, b: primitive.bind(a, b, **params), operands[0], operands[1], order)

    primitive = Primitive(
        name,
        impl,
        abstract_eval,
        jvp=jvp,
        linearize=linearize,
        transpose=transpose,
        taylor=taylor,
        batch=batch,
        family="bilinear",
        masks=masks,
        **{"sparsity": _whole_product, **rules},
    )
    return primitive


def _whole_product(operands: list[Any], outs: list[ShapedArray], **params: Any) -> list[Structure]:
    everything = [np.broadcast_to(np.intp(1), aval_of(x).shape) for x in operands]
    x, y, out = (*everything, np.broadcast_to(np.intp(1), outs[0].shape))
    return [Linked([Groups(x, out), Groups(y, out)], [GroupProduct(0, 1, x, y)])]
