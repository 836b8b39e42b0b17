"""The public transformations: short compositions of the interpreters, on pytrees."""

from functrace.transforms.batching import vmap
from functrace.transforms.derivatives import (
    grad,
    hvp,
    jvp,
    linear_transpose,
    linearize,
    stop_gradient,
    value_and_grad,
    vjp,
)
from functrace.transforms.jacobians import hessian, jacfwd, jacobian, jacrev
from functrace.transforms.staging import ShapeDtypeStruct, eval_shape, make_jaxpr

__all__ = [
    "ShapeDtypeStruct",
    "eval_shape",
    "grad",
    "hessian",
    "hvp",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jvp",
    "linear_transpose",
    "linearize",
    "make_jaxpr",
    "stop_gradient",
    "value_and_grad",
    "vjp",
    "vmap",
]
