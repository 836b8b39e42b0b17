"""The public transformations: short compositions of the interpreters, on pytrees."""

from functrace.transforms import checkpoint_policies
from functrace.transforms.batching import vmap
from functrace.transforms.custom import CustomVJPPrimal, SymbolicZero, checkpoint, custom_jvp, custom_vjp
from functrace.transforms.derivatives import (
    fwd_and_rev,
    grad,
    hvp,
    jvp,
    linear_transpose,
    linearize,
    stop_gradient,
    value_and_grad,
    vjp,
)
from functrace.transforms.explain import explain
from functrace.transforms.higher import jet, nth_derivative, vhv
from functrace.transforms.jacobians import hessian, jacfwd, jacobian, jacrev
from functrace.transforms.jit import jit
from functrace.transforms.staging import ShapeDtypeStruct, eval_jaxpr, eval_shape, make_jaxpr

__all__ = [
    "CustomVJPPrimal",
    "ShapeDtypeStruct",
    "SymbolicZero",
    "checkpoint",
    "checkpoint_policies",
    "custom_jvp",
    "custom_vjp",
    "eval_jaxpr",
    "eval_shape",
    "explain",
    "fwd_and_rev",
    "grad",
    "hessian",
    "hvp",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jet",
    "jit",
    "jvp",
    "linear_transpose",
    "linearize",
    "make_jaxpr",
    "nth_derivative",
    "stop_gradient",
    "value_and_grad",
    "vhv",
    "vjp",
    "vmap",
]
