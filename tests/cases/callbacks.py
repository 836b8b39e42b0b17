"""Cases of the primitives that call Python: with a rule, whose derivatives are those of the function called."""

import numpy as np

from functrace.control.callbacks import debug_callback, pure_callback
from functrace.core.types import aval_of
from functrace.testing import Case

RNG = np.random.default_rng(20260701)


def product(x, y):
    return [np.sin(x) * y, x + y]


def rule(x, y, x_dot, y_dot, *outs):
    first = second = None
    if x_dot is not None:
        first, second = np.cos(x) * y * x_dot, x_dot
    if y_dot is not None:
        term = np.sin(x) * y_dot
        first, second = (term, y_dot) if first is None else (first + term, second + y_dot)
    return [first, second]


def case(shape, vmap_method):
    def make_params(x, y):
        avals = (aval_of(x), aval_of(x))
        return {"callback": product, "avals": avals, "name": "callback", "vmap_method": vmap_method, "rule": rule}

    operands = (RNG.uniform(-1, 1, shape), RNG.uniform(-1, 1, shape))
    return Case(pure_callback, operands, name=f"{vmap_method} {shape}", make_params=make_params)


CASES = [case(s, m) for s in ((), (2,), (2, 3), (0,)) for m in ("sequential", "broadcast_all")]
CASES.append(Case(debug_callback, (RNG.uniform(size=3),), {"callback": lambda x: None}, order=0))
