"""Machine code gives what NumPy calls give: for all cases of all primitives, for random programs and transforms."""

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from functrace import grad, hessian, jit, jvp, vjp, vmap
from functrace.backend.executable import Executable
from functrace.core.ir import hoist_constants
from functrace.core.types import aval_of
from functrace.interpreters.staging import stage
from functrace.testing import Case
from tests.cases import all_cases
from tests.test_programs import programs

CASES = all_cases()
ELEMENTWISE = {case.primitive.name: case for case in CASES if case.primitive.family == "elementwise"}
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 0.5, 1e-310, 1e308, -3.7, 2.0, 1e-5])
LARGE = [(17,), (40,), (5, 9), (3, 20), (2, 3, 8), (1, 30), (33, 1)]


def executable(case: Case, operands):
    def function(*values):
        out = case.primitive.bind(*values, **case.params)
        return list(out) if case.primitive.multiple else [out]

    return Executable(*hoist_constants(stage(function, [aval_of(o) for o in operands])))


def tolerances(dtype):
    if dtype.kind not in "fc":
        return {"rtol": 0, "atol": 0}
    return (
        {"rtol": 4e-6, "atol": 1e-6}
        if dtype.itemsize // (2 if dtype.kind == "c" else 1) <= 4
        else {"rtol": 1e-11, "atol": 1e-12}
    )


def check(compiled, operands, expected):
    assert compiled.kernel is not None, compiled.refusal
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = compiled.run(*operands)
    for x, y in zip(found, expected, strict=True):
        assert np.shape(x) == np.shape(y) and np.asarray(x).dtype == np.asarray(y).dtype
        np.testing.assert_allclose(x, y, **tolerances(np.asarray(y).dtype))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cases(case):
    operands = [o if isinstance(o, (np.ndarray, np.generic)) else np.asarray(o)[()] for o in case.operands]
    expected = case.primitive.bind(*operands, **case.params)
    check(executable(case, operands), operands, expected if case.primitive.multiple else [expected])


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("shape", [(0,), (37,), (5, 1, 8)], ids=str)
def test_elementwise_in_loops(name, shape):
    case = ELEMENTWISE[name]
    operands = [np.resize(o, shape) for o in case.operands]
    expected = case.primitive.impl(*operands, **case.params)
    check(executable(case, operands), operands, [expected])


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_special_values(name):
    case = ELEMENTWISE[name]
    floats = [np.asarray(o).dtype.kind == "f" for o in case.operands]
    if not any(floats):
        return
    pairs = np.array(np.meshgrid(SPECIAL, SPECIAL)).reshape(2, -1)
    values = iter(pairs)
    operands = [
        np.array(next(values, SPECIAL[0])).astype(np.asarray(o).dtype) if f else np.resize(o, pairs.shape[1])
        for o, f in zip(case.operands, floats, strict=True)
    ]
    with np.errstate(all="ignore"):
        expected = case.primitive.impl(*operands, **case.params)
    if np.asarray(expected).dtype.kind == "f":
        compiled = executable(case, operands)
        with np.errstate(all="ignore"):
            (found,) = compiled.run(*operands)
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-300)
        zero = expected == 0
        np.testing.assert_array_equal(np.signbit(found[zero]), np.signbit(expected[zero]))


def stacks(program):
    """Stacks of transforms of a scalar function of several arrays."""
    ones = tuple(range(len(program.shapes)))

    def pulled(*xs):
        y, pull = vjp(program, *xs)
        return y, pull(np.float64(1.5))

    def pushed(*xs):
        return jvp(grad(program, ones), xs, tuple(np.cos(x) for x in xs))

    def batched(*xs):
        return vmap(grad(program, ones))(*(np.stack([x, 0.5 * x, -x]) for x in xs))

    def curved(*xs):
        return hessian(program)(*xs) if np.size(xs[0]) <= 20 else program(*xs)

    return {"value": program, "vjp": pulled, "jvp-grad": pushed, "vmap-grad": batched, "hessian": curved}


def leaves(tree):
    if isinstance(tree, (tuple, list)):
        return [leaf for part in tree for leaf in leaves(part)]
    return [tree]


def compare(program, which):
    function, inputs = stacks(program)[which], program.inputs()
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        expected, found = leaves(function(*inputs)), leaves(jit(function)(*inputs))
    scale = max((float(np.max(np.abs(y), initial=0.0)) for y in expected), default=1.0)
    for x, y in zip(found, expected, strict=True):
        assert np.shape(x) == np.shape(y)
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-11 * max(scale, 1.0))


STACKS = ["value", "vjp", "jvp-grad", "vmap-grad", "hessian"]


@given(programs(), st.sampled_from(STACKS))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_small_programs(program, which):
    compare(program, which)


@given(programs(shapes=LARGE), st.sampled_from(STACKS))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_large_programs(program, which):
    compare(program, which)


@pytest.mark.slow
@given(programs(max_steps=14, shapes=[*LARGE, (3,), (2, 2), ()]), st.sampled_from(STACKS))
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_programs(program, which):
    compare(program, which)
