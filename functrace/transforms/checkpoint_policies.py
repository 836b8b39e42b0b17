"""Policies of `functrace.checkpoint`: which results may be stored for reverse mode, the others being computed again.

A policy is a function `policy(primitive, *operand_types, **params)` that says whether the results of an operation may
be stored. The arguments of a checkpointed function are always kept.
"""

from __future__ import annotations

from typing import Any

from functrace.core.primitive import Primitive

__all__ = ["dots_saveable", "dots_with_no_batch_dims_saveable", "everything_saveable", "nothing_saveable"]


def everything_saveable(primitive: Primitive, *avals: Any, **params: Any) -> bool:
    """Store all that is needed: no work is done twice."""
    return True


def nothing_saveable(primitive: Primitive, *avals: Any, **params: Any) -> bool:
    """Store the arguments only."""
    return False


def dots_saveable(primitive: Primitive, *avals: Any, **params: Any) -> bool:
    """Store the results of matrix products, tensor contractions and convolutions, which are dear to compute."""
    return primitive.family == "bilinear"


def dots_with_no_batch_dims_saveable(primitive: Primitive, *avals: Any, **params: Any) -> bool:
    """Store the results of products of two matrices, not those of stacks of them."""
    return primitive.family == "bilinear" and not any(params.get("batch", ()))
