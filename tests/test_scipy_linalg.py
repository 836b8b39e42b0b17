"""`functrace.scipy.linalg` against SciPy, and a Gaussian likelihood built from it."""

import functools
import itertools

import numpy as np
import pytest
import scipy.linalg

import functrace
from functrace import tree
from functrace.scipy import linalg as fsl
from functrace.testing import check_grads
from tests.matrices import definite, draw, same

MODES = ["fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev"]
HERMITIAN, VECTOR = definite(3, 3, dtype=np.complex128), draw(3, dtype=np.complex128)


def solve_triangular(module, a, b, trans, lower, unit):
    return module.solve_triangular(a, b, trans, lower, unit)


TRIANGULAR = itertools.product((0, 1, 2, "N", "T", "C"), (True, False), (True, False))
SCIPY = {
    "solve": (lambda m, a, b: m.solve(a, b), definite(3, 3), draw(3, 2)),
    "solve transposed": (lambda m, a, b: m.solve(a, b, transposed=True), draw(3, 3), draw(3)),
    "solve pos": (lambda m, a, b: m.solve(a, b, assume_a="pos", lower=True), definite(3, 3), draw(3)),
    "solve her": (lambda m, a, b: m.solve(a, b, assume_a="her"), HERMITIAN, VECTOR),
    "inv": (lambda m, a: m.inv(a), draw(3, 3)),
    "det": (lambda m, a: m.det(a), draw(3, 3)),
    "expm": (lambda m, a: m.expm(a), draw(2, 3, 3)),
    "cholesky": (lambda m, a: m.cholesky(a), definite(3, 3)),
    "cholesky lower": (lambda m, a: m.cholesky(a, lower=True), HERMITIAN),
    "cho_solve": (lambda m, a, b: m.cho_solve(m.cho_factor(a), b), HERMITIAN, VECTOR),
    "cho_solve lower": (lambda m, a, b: m.cho_solve(m.cho_factor(a, True), b), definite(3, 3), draw(3, 2)),
    **{
        f"triangular {trans} {lower} {unit}": (
            functools.partial(solve_triangular, trans=trans, lower=lower, unit=unit),
            HERMITIAN,
            VECTOR,
        )
        for trans, lower, unit in TRIANGULAR
    },
}


@pytest.mark.parametrize("name", SCIPY)
def test_scipy(name):
    function, *args = SCIPY[name]
    expected = function(scipy.linalg, *args)
    same(function(fsl, *args), expected)
    same(functrace.linearize(functools.partial(function, fsl), *args)[0], expected)
    check_grads(functools.partial(function, fsl), args, order=1)


@pytest.mark.parametrize("mode", MODES)
def test_gaussian_log_likelihood(mode):
    """Cholesky, triangular solves and logarithms, against the general formula."""
    a, x = definite(3, 3), draw(3)

    def by_cholesky(x, noise):
        factor = fsl.cho_factor(a + noise * np.eye(3), lower=True)
        return x @ fsl.cho_solve(factor, x) / 2 + np.sum(np.log(np.linalg.diagonal(factor[0])))

    def direct(x, noise):
        return x @ np.linalg.solve(a + noise * np.eye(3), x) / 2 + np.linalg.slogdet(a + noise * np.eye(3))[1] / 2

    for argnums in (0, 1, (0, 1)):
        got = functrace.hessian(by_cholesky, argnums, mode=mode)(x, 0.5)
        expected = functrace.hessian(direct, argnums, mode=mode)(x, 0.5)
        for g, e in zip(tree.leaves(got), tree.leaves(expected), strict=True):
            np.testing.assert_allclose(g, e, rtol=1e-9, atol=1e-12)
