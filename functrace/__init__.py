"""functrace turns NumPy functions into their derivatives, in JAX's names and habits."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from functrace import debug as debug
from functrace import errors as errors
from functrace import extend as extend
from functrace import lax as lax
from functrace import nn as nn
from functrace import numpy as numpy
from functrace import random as random
from functrace import scipy as scipy
from functrace import tree as tree
from functrace.callbacks import numba_call as numba_call
from functrace.callbacks import pure_callback as pure_callback
from functrace.core.ir import ClosedJaxpr as ClosedJaxpr
from functrace.core.ir import Jaxpr as Jaxpr
from functrace.core.primitive import Primitive as Primitive
from functrace.core.types import float0 as float0
from functrace.transforms import CustomVJPPrimal as CustomVJPPrimal
from functrace.transforms import ShapeDtypeStruct as ShapeDtypeStruct
from functrace.transforms import SymbolicZero as SymbolicZero
from functrace.transforms import checkpoint as checkpoint
from functrace.transforms import checkpoint as remat  # noqa: F401  (JAX has both names)
from functrace.transforms import custom_jvp as custom_jvp
from functrace.transforms import custom_vjp as custom_vjp
from functrace.transforms import eval_jaxpr as eval_jaxpr
from functrace.transforms import eval_shape as eval_shape
from functrace.transforms import explain as explain
from functrace.transforms import fwd_and_rev as fwd_and_rev
from functrace.transforms import grad as grad
from functrace.transforms import hessian as hessian
from functrace.transforms import hvp as hvp
from functrace.transforms import jacfwd as jacfwd
from functrace.transforms import jacobian as jacobian
from functrace.transforms import jacrev as jacrev
from functrace.transforms import jet as jet
from functrace.transforms import jit as jit
from functrace.transforms import jvp as jvp
from functrace.transforms import linear_transpose as linear_transpose
from functrace.transforms import linearize as linearize
from functrace.transforms import make_jaxpr as make_jaxpr
from functrace.transforms import nth_derivative as nth_derivative
from functrace.transforms import stop_gradient as stop_gradient
from functrace.transforms import value_and_grad as value_and_grad
from functrace.transforms import vhv as vhv
from functrace.transforms import vjp as vjp
from functrace.transforms import vmap as vmap

if TYPE_CHECKING:
    from functrace import inspect as inspect
    from functrace import optimize as optimize
    from functrace import sparse as sparse

__version__ = "0.1.0"

# Not everybody who differentiates needs these, so they load when first asked for.
_LATER = ("inspect", "optimize", "sparse")


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return importlib.import_module(f"functrace.{name}")
    raise AttributeError(f"module 'functrace' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
