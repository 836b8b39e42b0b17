"""Sparse derivatives and problems under hostile use: what is traced how often, threads, mutated arrays, bad input."""

import re
import threading

import numpy as np
import pytest

import functrace as ft
import functrace.numpy as fnp
from functrace import errors, lax, optimize, sparse


def smooth(x):
    return np.sum(x[1:] ** 2 * np.sin(x[:-1]))


def products(x):
    return x[2:] * x[:-2] + np.exp(x[1:-1])


# One trace serves all.


def test_functions_of_a_problem_are_traced_once(rng):
    calls = {"f": 0, "c": 0}

    def f(x, p):
        calls["f"] += 1
        return np.sum((x - p) ** 2) + np.sum(np.cos(x[1:] * x[:-1]))

    def c(x, p):
        calls["c"] += 1
        return products(x) / p

    x, lam = rng.normal(size=7), rng.normal(size=5)
    problem = optimize.Problem(f, (c, -50.0, 50.0), x0=np.ones(7), params=2.0)
    problem.objective(x), problem.gradient(x), problem.jacobian(x), problem.lagrangian_hessian(x, lam)
    problem.lagrangian_gradient(x, lam), problem.lagrangian_hvp(x, lam, x), problem.check(x)
    optimize.solution_sensitivity(problem, "SLSQP")(2.5)
    assert calls == {"f": 1, "c": 1}


def test_derivatives_from_the_one_trace_are_the_dense_ones(rng):
    # Constraints that share work with the objective, are partly constant, integer, or of single precision.
    def both(x, p):
        shared = np.exp(x["a"] * p["w"])
        return shared, x["b"]

    def f(x, p):
        shared, b = both(x, p)
        return np.sum(shared) * b

    constraints = [
        (lambda x, p: both(x, p)[0] * x["b"], -1.0, 1.0),
        (lambda x, p: {"u": np.arange(2), "v": x["a"].astype(np.float32) * np.float32(2)}, None, 9.0),
        (lambda x, p: x["b"] ** 2, 0.0, None),
        (lambda x, p: x["a"][:0], 0.0, 0.0),
    ]
    x0, p = {"a": rng.normal(size=3), "b": 0.5}, {"w": rng.normal(size=3)}
    problem = optimize.Problem(f, constraints, x0=x0, params=p)
    assert problem.count == 3 + 2 + 3 + 1

    def flat(v):
        x = {"a": v[:3], "b": v[3]}
        parts = [leaf for c in constraints for leaf in ft.tree.leaves(c[0](x, p))]
        return f(x, p), np.concatenate([np.ravel(part).astype(float) for part in parts])

    v, lam = rng.normal(size=4), rng.normal(size=9)
    np.testing.assert_allclose(problem.jacobian(v, dense=True), ft.jacfwd(lambda v: flat(v)[1])(v), rtol=1e-6)
    expected = ft.hessian(lambda v: 0.3 * flat(v)[0] + lam @ flat(v)[1])(v)
    np.testing.assert_allclose(problem.lagrangian_hessian(v, lam, 0.3, dense=True), expected, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(problem.lagrangian_hvp(v, lam, v, 0.3), expected @ v, rtol=1e-6, atol=1e-12)


def test_a_problem_of_traced_values_names_the_remedy():
    def value(p):
        return optimize.Problem(lambda x: np.sum(x * p), x0=[1.0, 2.0]).objective(np.ones(2))

    for transform in (ft.grad, ft.make_jaxpr):
        with pytest.raises(errors.ArgumentError, match="argmin"):
            transform(value)(3.0)
    problem = optimize.Problem(smooth, x0=np.ones(3))
    with pytest.raises(errors.InputError, match="argmin"):
        ft.grad(problem.objective)(np.ones(3))


# Every nonzero can say why it is one.


@pytest.mark.parametrize("n", [6, 200])
def test_a_problem_explains_its_nonzeros(n):
    problem = optimize.Problem(smooth, (products, 0.0, 1.0), x0=np.ones(n))
    (line,) = problem.hessian_structure.why(1, 0)
    assert "x[1:] ** 2" in line and "test_sparse_hunt.py" in line
    assert "x[2:] * x[:-2]" in problem.hessian_structure.why(2, 0)[0]
    assert "x[2:] * x[:-2]" in problem.jacobian_structure.why(0, 2)[0]
    assert problem.jacobian_structure.why(0, 4) == () == problem.hessian_structure.why(0, 4)
    assert problem.hessian_structure.pattern == sparse.hessian_pattern(lambda x: smooth(x) + np.sum(products(x)))(
        np.ones(n)
    )


@pytest.mark.parametrize("method", ["elements", "coloring"])
def test_prepared_derivatives_explain_their_nonzeros(method):
    prepared = sparse.hessian(smooth, method).prepare(np.ones(5))
    assert "np.sin" in prepared.why(0, 1)[0]
    assert prepared.why(0, 3) == ()
    mode = "auto" if method == "elements" else "fwd"
    assert "np.exp" in sparse.jacobian(products, mode).prepare(np.ones(5)).why(0, 1)[0]


def test_prepared_derivatives_print_a_picture():
    def f(x):
        return x[1:] * x[:-1]

    lines = str(sparse.jacobian(f, "fwd").prepare(np.ones(50))).splitlines()
    assert lines[0] == "49x50, 98 nonzeros, 2 colours" and len(lines) == 8
    assert str(sparse.jacobian(f).prepare(np.ones(50))).startswith("49x50, 98 nonzeros, by elements\n")


# Wrong numbers: programs that were found to be hard.


def empty_sum(x):
    return np.outer(x[:0], x).sum(axis=0) + x * x[::-1]


def long_gather(x):
    return x[[0, 0, 1, 1, 0]] * x[[1, 1, 1, 2, 0]]


def scatter_twice(x):
    return fnp.zeros(4).at[np.array([0, 1, 1])].set(x[:3] ** 2) * x[0]


def loops(x):
    _, ys = lax.scan(lambda c, t: (np.tanh(c + t), c * t), x[0], x)
    return lax.cond(np.sum(x) > 0, lambda t: t * ys, lambda t: np.cos(t) * t[::-1], x)


def counted(x):
    return lax.fori_loop(0, 3, lambda i, c: c * np.sin(x), x)


def through_complex(x):
    return np.abs(x + 1j * np.roll(x, 1)) ** 2 + np.fft.ifft(np.fft.fft(x) * np.arange(x.size)).real


def piecewise(x):
    return np.where(x > 0, np.log(np.where(x > 0, x, 1.0)), x * x[::-1])


def nested(x):
    return ft.grad(lambda y: np.sum(y**3 * x))(x) * ft.vmap(lambda a: np.sin(a) * x[0])(x)


def powers(x):
    return x ** np.arange(x.size) + np.prod(x) + np.linalg.solve(np.eye(2) * (3 + x[0]), x[:2])[0]


HARD = [empty_sum, long_gather, scatter_twice, loops, counted, through_complex, piecewise, nested, powers]


@pytest.mark.parametrize("function", HARD, ids=lambda f: f.__name__)
def test_hard_programs(function, rng):
    x = rng.normal(size=5)
    dense = ft.jacrev(function)(x)
    for mode in ("auto", "fwd", "rev", "both"):
        np.testing.assert_allclose(sparse.jacobian(function, mode)(x).toarray(), dense, rtol=1e-9, atol=1e-12)
    weights = np.cos(np.arange(dense.shape[0]))

    def total(x):
        return np.sum(weights * function(x))

    hessian = ft.hessian(total)(x)
    for method in ("auto", "coloring"):
        np.testing.assert_allclose(sparse.hessian(total, method)(x).toarray(), hessian, rtol=1e-8, atol=1e-10)
    step = 1e-5
    slopes = [(ft.grad(total)(x + step * e) - ft.grad(total)(x - step * e)) / (2 * step) for e in np.eye(5)]
    np.testing.assert_allclose(np.array(slopes), hessian, rtol=1e-5, atol=1e-5)


# Arrays that others hold, and threads.


def test_results_are_the_callers_own():
    n = 6
    problem = optimize.Problem(smooth, (products, 0.0, 1.0), x0=np.ones(n))
    x, lam = np.linspace(0.1, 1.0, n), np.ones(n - 2)
    calls = [
        lambda: problem.gradient(x),
        lambda: problem.constraints(x),
        lambda: problem.lagrangian_gradient(x, lam),
        lambda: problem.lagrangian_hvp(x, lam, x),
        lambda: problem.jacobian_structure.values(x),
        lambda: problem.hessian_structure.values(x, lam),
        lambda: problem.jacobian(x).data,
        lambda: problem.jacobian(x).indices,
        lambda: problem.lagrangian_hessian(x, lam).indptr,
    ]
    for call in calls:
        before = call().copy()
        call()[:] = 77
        np.testing.assert_array_equal(call(), before)
    before = problem.gradient(x)
    x[2] = 5.0
    np.testing.assert_allclose(problem.gradient(x), ft.grad(smooth)(x), rtol=1e-12)
    assert problem.gradient(x)[2] != before[2]


def test_threads_with_other_multipliers_at_one_point(rng):
    n = 30
    problem = optimize.Problem(smooth, (products, 0.0, 1.0), x0=np.ones(n))
    x = rng.normal(size=n)
    multipliers = [rng.normal(size=n - 2) for _ in range(4)]
    exact = [ft.hessian(lambda x, m=m: smooth(x) + m @ products(x))(x) for m in multipliers]
    problem.lagrangian_hessian(x, multipliers[0]), problem.lagrangian_gradient(x, multipliers[0])
    wrong = []

    def work(k):
        point = x.copy()
        for _ in range(40):
            found = problem.lagrangian_hessian(point, multipliers[k], dense=True)
            product = problem.lagrangian_hvp(point, multipliers[k], point)
            if not np.allclose(found, exact[k], rtol=1e-9) or not np.allclose(product, exact[k] @ x, rtol=1e-8):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# Multipliers of every kind of bound.


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("method", ["trust-constr", "SLSQP"])
def test_optimality_of_random_programs(seed, method):
    rng = np.random.default_rng(seed)
    n, m = 5, 3
    half, slope, picked = rng.normal(size=(n, n)), rng.normal(size=(m, n)), rng.integers(0, n, size=n)
    shift = rng.normal(size=n) * 2

    def f(x):
        return 0.5 * np.sum((half @ x) ** 2) + 0.5 * x @ x + shift @ x + 0.1 * np.sum(np.cosh(x[picked]))

    def c(x):
        return slope @ x + 0.1 * np.sum(x**2)

    x0 = 0.3 * rng.normal(size=n)
    level = c(x0)
    lower = np.array([level[0], level[1] - 0.1, -np.inf])
    upper = np.array([level[0], np.inf, level[2] + 0.1])
    problem = optimize.Problem(f, (c, lower, upper), bounds=(x0 - 0.1, np.inf), x0=x0)
    result = optimize.minimize(problem, method)
    assert result.success
    x, lam, z = result.x, result.lam, result.z
    np.testing.assert_allclose(ft.grad(f)(x) + lam @ ft.jacfwd(c)(x) + z, 0.0, atol=1e-4)
    assert lam[1] <= 1e-6 and lam[2] >= -1e-6 and (z <= 1e-6).all()
    assert abs(lam[1] * (c(x)[1] - lower[1])) < 1e-4 and abs(lam[2] * (upper[2] - c(x)[2])) < 1e-4
    assert np.abs(z * (x - x0 + 0.1)).max() < 1e-4


# Bad input.

PROBLEM = optimize.Problem(lambda x: np.sum(x**2), (lambda x: x[:2], 0.0, 1.0), x0=[1.0, 2.0, 3.0])
X = np.ones(3)

MISTAKES = {
    "complex point": (lambda: PROBLEM.objective(X * 1j), errors.InputError, "x must be real"),
    "text as point": (lambda: PROBLEM.objective("abc"), errors.InputError, "x must be real"),
    "complex multipliers": (lambda: PROBLEM.lagrangian_hessian(X, [1.0, 2j]), errors.InputError, "multipliers"),
    "text as sigma": (lambda: PROBLEM.lagrangian_hessian(X, [1, 2], sigma="a"), errors.InputError, "sigma"),
    "two sigmas": (lambda: PROBLEM.lagrangian_hessian(X, [1, 2], sigma=X), errors.ShapeError, "one number"),
    "list as out": (lambda: PROBLEM.hessian_structure.values(X, [1, 2], out=[1, 2]), errors.InputError, "floats"),
    "integer out": (
        lambda: PROBLEM.hessian_structure.values(X, [1, 2], out=np.zeros(3, int)),
        errors.InputError,
        "floats",
    ),
    "out that spreads": (
        lambda: sparse.hessian(smooth).prepare(X).values(X, out=np.zeros((2, 5))),
        errors.ShapeError,
        "one number per nonzero",
    ),
    "negative tolerance": (lambda: optimize.minimize(PROBLEM, "SLSQP", tol=-1.0), errors.ArgumentError, "positive"),
    "text as tolerance": (lambda: optimize.minimize(PROBLEM, "SLSQP", tol="a"), errors.ArgumentError, "positive"),
    "options no dict": (lambda: optimize.minimize(PROBLEM, "SLSQP", options=3), errors.ArgumentError, "dict"),
    "callback no function": (lambda: optimize.minimize(PROBLEM, "SLSQP", callback=3), errors.ArgumentError, "function"),
    "constraint without return": (
        lambda: optimize.Problem(smooth, (lambda x: None, 0, 1), x0=X),
        errors.InputError,
        "gives nothing",
    ),
    "text as bounds": (
        lambda: optimize.Problem(smooth, bounds=("a", "b"), x0=X),
        errors.ArgumentError,
        "must be real numbers",
    ),
}


@pytest.mark.parametrize("case", MISTAKES, ids=lambda name: name.replace(" ", "-"))
def test_mistakes_have_messages_of_ours(case):
    call, kind, text = MISTAKES[case]
    with pytest.raises(kind, match=re.escape(text)) as caught:
        call()
    assert "test_sparse_hunt.py" in str(caught.value)


def test_slsqp_that_rounding_stops_is_judged_by_the_conditions_of_optimality():
    # HS37 in other units: SLSQP ends with status 8, a millionth off.
    problem = optimize.Problem(
        lambda x: -x[0] * x[1] * x[2],
        (lambda x: x[0] + 2.0 * x[1] + 2.0 * x[2], 0.0, 72.0),
        bounds=(0.0, 42.0),
        x0=[10.0, 10.0, 10.0],
    )
    result = optimize.minimize(problem, "SLSQP")
    assert result.success
    assert result.fun == pytest.approx(-3456.0, rel=1e-6)
    unbounded = optimize.Problem(lambda x: np.sum(x**3), (lambda x: x[0] - x[1], 0.0, 0.0), x0=[1.0, 1.0])
    assert not optimize.minimize(unbounded, "SLSQP", options={"maxiter": 20}).success


def test_functions_that_write_to_x_do_not_disturb_each_other():
    def f(x, p):
        x[0] = 5.0
        p[0] = 7.0
        return np.sum(x**2) * p[0]

    for jit in (True, False):
        problem = optimize.Problem(f, (lambda x, p: x * p, -9.0, 9.0), x0=np.ones(3), params=np.ones(3), jit=jit)
        x = np.array([2.0, 3.0, 4.0])
        np.testing.assert_array_equal(problem.constraints(x), x)
        np.testing.assert_array_equal(problem.jacobian(x, dense=True), np.eye(3))
        np.testing.assert_allclose(problem.gradient(x), [0.0, 42.0, 56.0])


def test_functions_that_cannot_be_recorded_name_the_way_out():
    def doubled(x):
        return np.sum(lax.while_loop(lambda c: np.sum(c) < 10, lambda c: c * 2, x**2))

    with pytest.raises(errors.AbstractValueError, match="jit=False") as caught:
        optimize.Problem(lambda x: x[0] if x[0] > 0 else x[1], x0=np.ones(2))
    assert "traced by optimize.Problem" in str(caught.value)
    with pytest.raises(errors.AbstractValueError, match=r"jit=False") as caught:
        optimize.Problem(doubled, x0=np.ones(3)).gradient(np.ones(3))
    assert "test_sparse_hunt.py" in str(caught.value) and "functools" not in str(caught.value)
    problem = optimize.Problem(doubled, x0=np.ones(3), jit=False)
    np.testing.assert_allclose(problem.lagrangian_hessian(np.ones(3), dense=True), 8 * np.eye(3))
