"""Cases of the call of a traced program."""

import numpy as np

import functrace as ft
from functrace.control.call import jit_call
from functrace.testing import Case

rng = np.random.default_rng(11)


def _case(name, function, *operands):
    def make_params(*operands):
        return {"jaxpr": ft.make_jaxpr(function)(*operands).jaxpr, "name": name}

    return Case(jit_call, operands, name=name, make_params=make_params)


CASES = [
    _case("product", lambda x, y: (np.sin(x) * y, y * y), rng.normal(size=3), rng.normal(size=3)),
    _case("scalar", lambda x: np.exp(x) * x, np.float64(0.3)),
    _case("matrix", lambda a, x: a @ np.tanh(x), rng.normal(size=(2, 3)), rng.normal(size=3)),
    _case("integer", lambda x, n: (x * 2.0, n + 1), rng.normal(size=2), np.int64(3)),
    _case("empty", lambda x: np.cos(x), np.zeros((0, 2))),
]
