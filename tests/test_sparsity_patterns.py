"""Sparsity patterns: against dense derivatives for every primitive and for random programs, and in closed form."""

import numpy as np
import pytest

import functrace  # noqa: F401  (registers the primitives)
import functrace.numpy as fnp
from functrace.core.primitive import primitives
from functrace.core.types import aval_of, is_inexact
from functrace.interpreters.sparsity import hessian_structure, jacobian_structure
from functrace.interpreters.staging import stage
from functrace.transforms import jacfwd, jvp, make_jaxpr
from tests.cases import all_cases

CASES = [case for case in all_cases() if case.active() and any(is_inexact(o.dtype) for o in case.evaluate())]


def dense(tables, size):
    """The outputs' structures as one boolean matrix."""
    blocks = [np.zeros((0, size), bool)]
    for indptr, indices in tables:
        block = np.zeros((len(indptr) - 1, size), bool)
        block[np.repeat(np.arange(len(block)), np.diff(indptr)), indices] = True
        blocks.append(block)
    return np.concatenate(blocks)


def square(places, size):
    matrix = np.zeros((size, size), bool)
    matrix[places] = True
    return matrix


def flat_function(case):
    """The case as a function of one flat vector of its real active operands' elements, and that vector.

    Complex operands move along a real direction, complex outputs give real and imaginary parts.
    """
    positions = case.active()
    values = [np.asarray(case.operands[i]) for i in positions]
    sizes = np.cumsum([0, *(v.size for v in values)])
    function = case.function(positions, floats_only=True)

    def f(x):
        parts = [fnp.reshape(x[a:b], v.shape) for a, b, v in zip(sizes, sizes[1:], values, strict=False)]
        moved = [
            fnp.asarray(p * (1.0 + 0.7j) + 1j * v.imag - 0.7j * v.real).astype(v.dtype)
            if v.dtype.kind == "c"
            else p.astype(v.dtype)
            for p, v in zip(parts, values, strict=True)
        ]
        outs = [fnp.ravel(o) for o in function(*moved)]
        outs = [part for o in outs for part in ((o.real, o.imag) if o.dtype.kind == "c" else (o,))]
        return fnp.concatenate([o.astype(float) for o in outs]) if outs else fnp.zeros(0)

    return f, np.concatenate([v.real.reshape(-1) for v in values]).astype(float)


def structures(case):
    """Jacobian (outputs by elements of active operands) and Hessian structure, dense."""
    positions = case.active()
    function = case.function(positions, floats_only=True)
    closed = stage(lambda *xs: list(function(*xs)), [aval_of(case.operands[i]) for i in positions])
    wrt = [True] * len(positions)
    size = sum(np.size(case.operands[i]) for i in positions)
    jacobian = []
    for table, out in zip(jacobian_structure(closed, wrt), closed.out_avals, strict=True):
        jacobian += [table, table] if out.dtype.kind == "c" else [table]
    return dense(jacobian, size), square(hessian_structure(closed, wrt), size)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pattern_covers_the_derivatives(case):
    f, x = flat_function(case)
    jacobian, hessian = structures(case)
    with np.errstate(all="ignore"):
        found = jacfwd(f)(x)
    assert found.shape == jacobian.shape
    assert not (found != 0)[~jacobian].any()
    assert np.array_equal(hessian, hessian.T)
    if case.order < 2 or x.size > 40:
        return
    weights = np.random.default_rng(3).normal(size=found.shape[0])
    with np.errstate(all="ignore"):
        second = jacfwd(jacfwd(lambda x: fnp.sum(weights * f(x))))(x)
    assert not (second != 0)[~hessian].any()


@pytest.mark.parametrize("primitive", [p for p in primitives() if not p.nondifferentiable], ids=str)
def test_primitive_has_a_rule(primitive):
    assert primitive.sparsity is not None or primitive.name in ("pure_callback", "debug_callback")
