"""Loops, choices and solves: values, derivatives against unrolled Python, errors, snapshots, and the programs made."""

import numpy as np
import pytest

import functrace as ft
import functrace.numpy as fnp
from functrace import lax
from functrace.core.ir import subjaxprs
from functrace.errors import AbstractValueError, ArgumentError, CarryError, DTypeError, InputError, MissingRuleError

MODES = ("fwd-fwd", "fwd-rev", "rev-fwd", "rev-rev")
RNG = np.random.default_rng(20260712)
W, H, XS = RNG.normal(size=(3, 3)), RNG.normal(size=3), RNG.normal(size=(5, 3))


def close(got, expected, rtol=1e-10):
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=rtol)


def unrolled(f, init, xs=None, length=None, reverse=False):
    """`scan` as a Python loop."""
    count = len(xs) if xs is not None else length
    carry, ys = init, [None] * count
    for i in reversed(range(count)) if reverse else range(count):
        carry, ys[i] = f(carry, None if xs is None else xs[i])
    return carry, fnp.stack(ys) if count and ys[0] is not None else None


def count_equations(jaxpr):
    return sum(1 + sum(count_equations(getattr(s, "jaxpr", s)) for s in subjaxprs(e)) for e in jaxpr.eqns)


def scans(jaxpr):
    """All scan equations, however deep."""
    found = []
    for eqn in jaxpr.eqns:
        found += [eqn] if eqn.primitive.name == "scan" else []
        for sub in subjaxprs(eqn):
            found += scans(getattr(sub, "jaxpr", sub))
    return found


# values


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [0, 1, 4])
def test_scan_is_a_python_loop(reverse, length):
    def body(h, x):
        return np.tanh(W @ h + x), np.sum(h)

    carry, ys = lax.scan(body, H, XS[:length], reverse=reverse)
    expected, expected_ys = unrolled(body, H, XS[:length], reverse=reverse)
    close(carry, expected)
    assert type(carry) is np.ndarray and ys.shape == (length,)
    if length:
        close(ys, expected_ys)


def test_scan_takes_pytrees_and_none():
    def body(carry, x):
        assert x["none"] is None
        state, (count, none) = carry
        assert none is None
        return (state * x["a"] + x["b"][0], (count + 1, None)), {"sum": state + 1.0, "nothing": None}

    xs = {"a": XS[:, 0], "b": (XS[:, 1],), "none": None}
    (state, (count, none)), ys = lax.scan(body, (1.0, (0, None)), xs)
    expected = 1.0
    for row in XS:
        expected = expected * row[0] + row[1]
    close(state, expected)
    assert (count, none, ys["nothing"], ys["sum"].shape) == (5, None, None, (5,))


def test_scan_without_inputs():
    carry, ys = lax.scan(lambda c, _: (2 * c, c), 1, length=4)
    assert (carry, list(ys)) == (16, [1, 2, 4, 8])


@pytest.mark.parametrize("unroll", [1, 2, True])
def test_unroll_changes_nothing(unroll):
    assert lax.scan(lambda c, x: (c + x, None), 0.0, np.arange(4.0), unroll=unroll)[0] == 6.0


@pytest.mark.parametrize("init", [0, 0.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64])
def test_a_python_number_takes_the_type_of_the_carry(init, dtype):
    carry, _ = lax.scan(lambda c, x: (c + x, None), init, np.ones(3, dtype))
    assert carry == 3 and carry.dtype == dtype
    total = lax.while_loop(lambda c: abs(c) < 3, lambda c: c + dtype(1), init)
    assert total == 3 and total.dtype == dtype


def test_the_index_of_fori_loop_is_a_python_number():
    out = lax.fori_loop(0, 4, lambda i, x: x + i, np.float32(1))
    assert out == 7 and out.dtype == np.float32


def test_a_traced_python_number_as_carry():
    f = ft.grad(lambda x: lax.scan(lambda c, s: (c * s, None), x, np.full(3, 2, np.float32))[0])
    assert f(2.0) == 8.0


@pytest.mark.parametrize("lower, upper", [(0, 5), (2, 2), (3, 1), (-2, 2)])
def test_fori_loop_is_range(lower, upper):
    expected = sum(range(lower, upper))
    assert lax.fori_loop(lower, upper, lambda i, total: total + i, 0) == expected
    traced = ft.vmap(lambda n: lax.fori_loop(lower, n, lambda i, total: total + i, 0))
    assert list(traced(np.array([upper, upper + 2]))) == [expected, sum(range(lower, upper + 2))]


def test_while_loop_and_map():
    assert lax.while_loop(lambda s: s[0] < 10, lambda s: (s[0] + 3, s[1] * 2.0), (0, 1.0)) == (12, 16.0)
    close(lax.map(lambda x: {"s": np.sin(x), "d": 2 * x}, XS)["s"], np.sin(XS))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 7])
def test_map_in_batches(batch_size):
    def f(xs):
        return lax.map(lambda x: np.sin(x) @ W, xs, batch_size=batch_size)

    close(f(XS), np.sin(XS) @ W)
    close(ft.jacrev(f)(XS), ft.jacfwd(lambda xs: np.sin(xs) @ W)(XS))
    with pytest.raises(ArgumentError, match="use 1 or more"):
        lax.map(np.sin, XS, batch_size=0)


def test_cond_and_switch():
    assert lax.cond(True, lambda x: x + 1, lambda x: x - 1, 5) == 6
    assert lax.cond(np.array(0.0), lambda x: x + 1, lambda x: x - 1, 5) == 4
    branches = [lambda x: x, lambda x: 10 * x, lambda x: -x]
    assert [lax.switch(i, branches, 3.0) for i in (-5, 0, 1, 2, 9)] == [3.0, 3.0, 30.0, -3.0, -3.0]
    assert list(ft.vmap(lambda i: lax.switch(i, branches, 3.0))(np.arange(-1, 4))) == [3.0, 3.0, 30.0, -3.0, -3.0]


def test_results_are_the_callers_own():
    x, rows = np.ones(3), np.ones((2, 3))
    outs = [
        lax.scan(lambda c, r: (r, None), x, rows)[0],
        lax.scan(lambda c, r: (c, None), x, rows)[0],
        lax.scan(lambda c, r: (c, None), x, rows[:0])[0],
        lax.cond(True, lambda x: x, lambda x: -x, x),
        lax.while_loop(lambda x: x[0] > 5, lambda x: x - 1, x),
        lax.cond(True, lambda: x, lambda: -x),
    ]
    for out in outs:
        assert not np.shares_memory(out, x) and not np.shares_memory(out, rows)
        out[:] = 7.0
    assert np.all(x == 1) and np.all(rows == 1)


# derivatives


@pytest.mark.parametrize("reverse", [False, True])
def test_derivatives_of_scan(reverse):
    def loss(loop, w, h, xs):
        carry, ys = loop(lambda h, x: (fnp.tanh(w @ h + x), fnp.sum(h * h)), h, xs, reverse=reverse)
        return fnp.sum(carry) + fnp.sum(fnp.sin(ys))

    for argnum in range(3):
        expected = ft.grad(lambda *a: loss(unrolled, *a), argnum)(W, H, XS)
        close(ft.grad(lambda *a: loss(lax.scan, *a), argnum)(W, H, XS), expected)
        close(ft.jacfwd(lambda *a: loss(lax.scan, *a), argnum)(W, H, XS), expected)


@pytest.mark.parametrize("mode", MODES)
def test_hessians_of_scan(mode):
    def loss(loop, h):
        return fnp.sum(loop(lambda c, x: (fnp.sin(c * h) + x, None), h, XS)[0])

    close(ft.hessian(lambda h: loss(lax.scan, h), mode=mode)(H), ft.hessian(lambda h: loss(unrolled, h))(H))


LOOPS = {
    "scan": lambda w, x: lax.scan(lambda c, s: (fnp.sin(c * w) * s, None), x, np.array([1.0, 2.0]))[0],
    "while": lambda w, x: lax.while_loop(lambda c: fnp.sum(c * c) > 0.3, lambda c: 0.6 * fnp.sin(c * w), x),
    "fori": lambda w, x: lax.fori_loop(0, 3, lambda i, c: fnp.sin(c) + w * i, x),
    "cond": lambda w, x: lax.cond(fnp.sum(x) > 0, lambda: fnp.sin(x) * w, lambda: w * x * x),
    "map": lambda w, x: lax.map(lambda e: fnp.sin(e * w[0]) + w, x)[0],
}


@pytest.mark.parametrize("name", LOOPS)
def test_bodies_close_over_traced_values(name):
    """What a body closes over is an operand, whatever transformation it comes from."""
    f = LOOPS[name]
    w, x, v = np.array([1.3, 0.8]), np.array([0.9, 0.7]), np.array([0.3, -0.5])
    step = 1e-6
    expected = (f(w + step * v, x) - f(w - step * v, x)) / (2 * step)
    close(ft.jvp(lambda w: f(w, x), (w,), (v,))[1], expected, 1e-7)
    close(ft.linearize(lambda w: f(w, x), w)[1](v), expected, 1e-7)
    close(ft.jacrev(lambda w: f(w, x))(w) @ v, expected, 1e-7)
    ws = np.stack([w, w + 0.1, w - 0.1])
    close(ft.vmap(lambda w: f(w, x))(ws), np.stack([f(w, x) for w in ws]))
    both = ft.jacrev(lambda w: ft.jvp(lambda x: f(w, x), (x,), (v,))[1])(w)
    close(both, ft.jacfwd(lambda w: ft.jacrev(lambda x: f(w, x))(x) @ v)(w))


NESTED = {
    "scan in scan": lambda x: lax.scan(
        lambda c, r: (lax.scan(lambda d, s: (fnp.sin(d * s) + c, None), c, r)[0], None), x, XS
    )[0],
    "cond in scan": lambda x: lax.scan(
        lambda c, r: (lax.cond(r > 0, lambda c: fnp.sin(c) * r, lambda c: c * c, c), None), x, XS[:, 0]
    )[0],
    "while in scan": lambda x: lax.scan(
        lambda c, r: (lax.while_loop(lambda d: d * d > 0.2, lambda d: 0.5 * fnp.sin(d), c + r * r), None), x, XS[:, 0]
    )[0],
    "scan in cond": lambda x: lax.cond(
        x > 0, lambda x: lax.scan(lambda c, r: (fnp.sin(c) + r, None), x, XS[:, 0])[0], lambda x: x, x
    ),
    "while in cond": lambda x: lax.cond(
        x > 0, lambda x: lax.while_loop(lambda d: d > 0.2, lambda d: 0.5 * fnp.sin(d), x), lambda x: x, x
    ),
    "scan in while": lambda x: lax.while_loop(
        lambda c: c > 0.1, lambda c: lax.scan(lambda d, _: (0.7 * fnp.sin(d), None), c, length=2)[0], x
    ),
    "while in while": lambda x: lax.while_loop(
        lambda c: c > 0.1, lambda c: 0.5 * lax.while_loop(lambda d: d > 0.5, lambda d: 0.6 * fnp.sin(d), c), x
    ),
    "cond in while": lambda x: lax.while_loop(
        lambda c: c > 0.1, lambda c: lax.cond(c > 0.5, lambda c: 0.5 * c, lambda c: fnp.sin(c) * c, c), x
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_nested_control_flow(name):
    f, x, step = NESTED[name], 1.7, 1e-6
    slope = (f(x + step) - f(x - step)) / (2 * step)
    close(ft.grad(f)(x), slope, 1e-7)
    close(ft.jvp(f, (x,), (1.0,))[1], slope, 1e-7)
    close(ft.linearize(f, x)[1](1.0), slope, 1e-7)
    curvature = (ft.grad(f)(x + step) - ft.grad(f)(x - step)) / (2 * step)
    for mode in MODES:
        close(ft.hessian(f, mode=mode)(x), curvature, 1e-6)
    xs = np.array([1.7, 0.05, 0.9])
    close(ft.vmap(f)(xs), [f(x) for x in xs])
    close(ft.vmap(ft.grad(f))(xs), [ft.grad(f)(x) for x in xs])
    close(ft.grad(lambda xs: np.sum(ft.vmap(f)(xs)))(xs), [ft.grad(f)(x) for x in xs])
    staged = ft.make_jaxpr(f)(x)
    close(ft.eval_jaxpr(staged.jaxpr, staged.consts, x)[0], f(x))


def test_grad_through_trip_counts_that_differ():
    def f(x):
        return lax.while_loop(lambda c: c[0] < 10.0, lambda c: (c[0] * x, c[1] + fnp.sin(c[0])), (x, 0.0))[1]

    def plain(x):
        c, s = x, 0.0
        while c < 10.0:
            c, s = c * x, s + np.sin(c)
        return s

    xs = np.array([1.2, 20.0, 3.0, 1.7])
    close(ft.vmap(f)(xs), [plain(x) for x in xs])
    for derivative in (ft.grad, ft.jacfwd, lambda g: ft.grad(ft.grad(g)), lambda g: ft.jacfwd(ft.grad(g))):
        expected = [derivative(plain)(x) for x in xs]
        close(ft.vmap(derivative(f))(xs), expected)
    for mode in MODES:
        full = ft.hessian(lambda xs: np.sum(ft.vmap(f)(xs)), mode=mode)(xs)
        close(full, np.diag([ft.hessian(plain)(x) for x in xs]))


def test_integer_carries_have_no_derivative():
    def f(x):
        (i, y), ks = lax.scan(lambda c, s: ((c[0] + 1, fnp.sin(c[1]) * c[0] * s), c[0]), (1, x), np.ones(3))
        return y * ks[-1] + i

    def plain(x):
        y = x
        for i in range(1, 4):
            y = np.sin(y) * i
        return y * 3 + 4

    for derivative in (ft.grad, ft.jacfwd, lambda g: ft.grad(ft.grad(g))):
        close(derivative(f)(0.7), derivative(plain)(0.7))


def test_a_known_carry_is_no_obstacle_to_a_transpose():
    coefficients = np.array([2.0, 3.0, 5.0])

    def f(x):
        def body(carry, _):
            i, y = carry
            return (i + 1, y * fnp.take(coefficients, i) + x), y

        return lax.scan(body, (0, x), length=3)[1]

    (bar,) = ft.linear_transpose(f, 1.0)(np.array([1.0, 10.0, 100.0]))
    close(bar, np.array([1.0, 10.0, 100.0]) @ f(1.0))
    with pytest.raises(MissingRuleError, match="not linear"):
        ft.linear_transpose(lambda x: lax.scan(lambda c, _: (c * x, None), x, length=2)[0], 1.0)


def test_taylor_mode():
    f = LOOPS["scan"]
    w, x, v = np.array([1.3, 0.8]), np.array([0.9, 0.7]), np.array([0.3, -0.5])
    for k in (1, 2, 3):

        def along(t, k=k):
            return f(w, x + t * v)

        nested = along
        for _ in range(k):
            nested = ft.jacfwd(nested)
        close(ft.nth_derivative(lambda t: np.sum(along(t)), k)(0.0), np.sum(nested(0.0)))


# branches not taken


def test_the_branch_not_taken_is_never_seen():
    def f(x):
        return lax.cond(x > 0, lambda x: fnp.sqrt(x), lambda x: 0.0 * x, x)

    xs = np.array([4.0, -1.0, 0.0])
    with np.errstate(all="ignore"):
        for g in (
            [ft.grad(f)(x) for x in xs],
            ft.vmap(ft.grad(f))(xs),
            ft.grad(lambda xs: np.sum(ft.vmap(f)(xs)))(xs),
            ft.vmap(ft.jacfwd(f))(xs),
        ):
            assert list(g) == [0.25, 0.0, 0.0]
        assert list(ft.vmap(ft.grad(ft.grad(f)))(xs)) == [-1 / 32, 0.0, 0.0]


BRANCHING = {
    "scan": lambda x: lax.scan(lambda c, _: (fnp.sqrt(c) * 1.5, None), x, length=2)[0],
    "while": lambda x: lax.while_loop(lambda c: c < 1.0, lambda c: fnp.sqrt(c) * 1.5, fnp.sqrt(x)),
    "cond": lambda x: lax.cond(x < 9.0, lambda x: fnp.sqrt(x), lambda x: x, x),
    "fori": lambda x: lax.fori_loop(0, 2, lambda i, c: fnp.sqrt(c), x),
}


@pytest.mark.parametrize("name", BRANCHING)
@pytest.mark.parametrize("choose", ["cond", "where"])
def test_loops_in_branches_not_taken(name, choose):
    """At zero the derivative of the loop is infinite, below it not a number; neither reaches the other branch."""
    inner = BRANCHING[name]

    def f(x):
        if choose == "where":
            return fnp.where(x > 0, inner(fnp.where(x < 0, 0.0, x)), 2.0 * x)
        return lax.cond(x > 0, inner, lambda x: 2.0 * x, x)

    if name == "while":
        xs = np.array([4.0, 0.3, 2.0])  # at zero the loop would not end
    else:
        xs = np.array([4.0, 0.0, -1.0])
    with np.errstate(all="ignore"):
        expected = ft.vmap(ft.jacfwd(f))(xs)
        assert np.all(np.isfinite(expected))
        close(ft.vmap(ft.grad(f))(xs), expected)
        close([ft.grad(f)(x) for x in xs], expected)
        close(ft.grad(lambda xs: np.sum(ft.vmap(f)(xs)))(xs), expected)
        close(ft.vmap(ft.grad(ft.grad(f)))(xs), ft.vmap(ft.jacfwd(ft.grad(f)))(xs))


def test_finished_examples_are_safe_from_nan():
    """An example that is done holds still: where the body would give infinities, it contributes nothing."""

    def f(x):
        return lax.while_loop(lambda c: c > 0.5, lambda c: fnp.sqrt(c - 0.4) * 0.7, x)

    xs = np.array([3.0, 0.4, 0.3])
    expected = [ft.grad(f)(x) for x in xs]
    with np.errstate(all="ignore"):
        close(ft.vmap(ft.grad(f))(xs), expected)
        close(ft.grad(lambda xs: np.sum(ft.vmap(f)(xs)))(xs), expected)
        close(ft.vmap(ft.jacfwd(f))(xs), expected)


def test_python_control_flow_is_untouched():
    def f(x):
        total = x
        while total < 10.0:
            total = total * 2.0 if total > 3.0 else total + x
        for i in range(3):
            total = total + i * x
        return total

    assert ft.grad(f)(1.0) == 19.0
    assert ft.jvp(f, (1.0,), (1.0,)) == (19.0, 19.0)


# programs


def test_the_program_does_not_grow_with_the_steps():
    def loss(w, length):
        return fnp.sum(lax.scan(lambda h, _: (fnp.tanh(w @ h), None), H, length=length)[0])

    counts = {n: count_equations(ft.make_jaxpr(ft.grad(lambda w, n=n: loss(w, n)))(W).jaxpr) for n in (3, 1000)}
    assert counts[3] == counts[1000] < 40


def test_what_does_not_change_is_not_stacked():
    def loss(w, xs):
        return fnp.sum(lax.scan(lambda h, x: (fnp.tanh(fnp.sin(w) @ h + x), None), H, xs)[0])

    found = scans(ft.make_jaxpr(ft.grad(loss))(W, XS).jaxpr)
    assert len(found) == 2
    stacks = [v.aval.shape for eqn in found for v in eqn.outvars[eqn.params["carry"] :]]
    assert stacks and all(shape in ((5, 3), (5, 3)) for shape in stacks), stacks
    outs = [v.aval.shape for v in found[0].outvars]
    assert (5, 3, 3) not in outs


def test_inputs_and_outputs_serve_as_their_own_residuals():
    def loss(h, xs):
        carry, ys = lax.scan(lambda h, x: ((h := fnp.exp(h * x)), h), h, xs)
        return fnp.sum(carry) + fnp.sum(ys)

    forward = scans(ft.make_jaxpr(ft.grad(loss))(H, 0.1 * XS).jaxpr)[0]
    assert len(forward.outvars) <= 3  # the carry, the outputs, the carries that enter


def test_assignment_in_a_body_stays_in_the_body():
    def body(c, x):
        c[0] = c[0] * x
        return c, c[1]

    init = np.array([1.0, 2.0])
    carry, ys = lax.scan(body, init, np.array([2.0, 3.0]))
    close(carry, [6.0, 2.0])
    close(ys, [2.0, 2.0])
    close(ft.grad(lambda x: np.sum(lax.scan(body, x, np.array([2.0, 3.0]))[0]))(init), [6.0, 1.0])
    close(init, [1.0, 2.0])


def test_derivatives_inside_a_body():
    def inner(loop, c):
        return ft.grad(lambda y: loop(lambda d, _: (fnp.sin(d * y) * c, None), y, length=2)[0])(c)

    def f(loop, x):
        return loop(lambda c, _: (inner(loop, c), None), x, length=2)[0]

    for derivative in (lambda g: g, ft.grad, ft.jacfwd, lambda g: ft.jacfwd(ft.grad(g))):
        close(derivative(lambda x: f(lax.scan, x))(0.7), derivative(lambda x: f(unrolled, x))(0.7))


def test_traced_bounds_in_reverse_mode():
    def f(x, n):
        return lax.fori_loop(0, n, lambda i, c: c * x, 1.0)

    assert ft.grad(f)(2.0, 3) == 12.0
    assert list(ft.vmap(ft.grad(f))(np.array([2.0, 2.0, 3.0]), np.array([0, 3, 2]))) == [0.0, 12.0, 6.0]


def test_bodies_keep_what_they_captured():
    w = np.array([2.0, 3.0])
    _, pullback = ft.vjp(lambda x: lax.scan(lambda c, s: (c * w * s, None), x, np.ones(2))[0], np.ones(2))
    _, tangents = ft.linearize(lambda x: lax.cond(True, lambda x: x * w, lambda x: x, x), np.ones(2))
    staged = ft.make_jaxpr(lambda x: lax.while_loop(lambda c: c[0] < 5, lambda c: c * w, x))(np.ones(2))
    xs = np.ones((2, 2))
    _, second = ft.vjp(lambda x: lax.scan(lambda c, s: (c * s, None), x, xs)[0], np.ones(2))
    w[:], xs[:] = 100.0, 100.0
    close(pullback(np.ones(2))[0], [4.0, 9.0])
    close(tangents(np.ones(2)), [2.0, 3.0])
    close(ft.eval_jaxpr(staged.jaxpr, staged.consts, np.ones(2))[0], [8.0, 27.0])
    close(second(np.ones(2))[0], [1.0, 1.0])


# errors


def test_a_carry_that_changes_its_type():
    with pytest.raises(CarryError, match=r"carry\['a'\]\[1\](.|\n)*float64\[2\], leaves as float64\[3\](.|\n)*remedy"):
        lax.scan(lambda c, _: ({"a": (0.0, np.ones(3))}, None), {"a": (0.0, np.ones(2))}, length=2)
    with pytest.raises(CarryError, match=r"float32\[2\], leaves as float64\[2\](.|\n)*\.astype"):
        lax.scan(lambda c, x: (c + x, None), np.ones(2, np.float32), np.ones((3, 2)))
    with pytest.raises(CarryError, match=r"while_loop changes its type(.|\n)*int64.*float64"):
        lax.while_loop(lambda c: c[0] < 3, lambda c: c + 0.5, np.arange(2))
    with pytest.raises(CarryError, match="changes its structure"):
        lax.fori_loop(0, 3, lambda i, c: (c, c), 1.0)
    with pytest.raises(CarryError, match="must return a pair"):
        lax.scan(lambda c, x: c, 0.0, np.ones(2))


def test_branches_that_disagree():
    with pytest.raises(CarryError, match=r"at output(.|\n)*int64.*float64(.|\n)*\.astype"):
        lax.cond(True, lambda x: x, lambda x: 1, 1.0)
    with pytest.raises(CarryError, match="structure"):
        lax.switch(0, [lambda x: x, lambda x: (x, x)], 1.0)
    with pytest.raises(CarryError, match=r"switch return different types at output\['a'\](.|\n)*from branch 2"):
        lax.switch(0, [lambda: {"a": 1.0}, lambda: {"a": 2.0}, lambda: {"a": 1}])
    with pytest.raises(ArgumentError, match=r"must be a scalar(.|\n)*bool\[2\](.|\n)*where"):
        lax.cond(np.array([True, False]), lambda: 1, lambda: 2)
    with pytest.raises(DTypeError, match="astype"):
        lax.switch(0.5, [lambda: 1, lambda: 2])
    with pytest.raises(ArgumentError, match="at least one branch"):
        lax.switch(0, [])


def test_wrong_loops():
    with pytest.raises(CarryError, match=r"one boolean scalar(.|\n)*bool\[2\](.|\n)*\.any\(\)"):
        lax.while_loop(lambda c: c < 3.0, lambda c: c + 1, np.zeros(2))
    with pytest.raises(CarryError, match="one boolean scalar"):
        lax.while_loop(lambda c: c, lambda c: c + 1, 0.0)
    with pytest.raises(ArgumentError, match="length="):
        lax.scan(lambda c, x: (c, x), 0.0)
    with pytest.raises(ArgumentError, match="one leading length"):
        lax.scan(lambda c, x: (c, None), 0.0, (np.ones(2), np.ones(3)))
    with pytest.raises(ArgumentError, match="one leading length"):
        lax.scan(lambda c, x: (c, None), 0.0, np.ones(3), length=2)
    for bounds in ((0, 2.5), (0.0, 3), (0, None)):
        with pytest.raises(ArgumentError, match="must be an integer"):
            lax.fori_loop(*bounds, lambda i, c: c, 0.0)
    with pytest.raises(ArgumentError, match="must be an integer"):
        ft.jvp(lambda n: lax.fori_loop(0, n, lambda i, c: c, 0.0), (2.5,), (1.0,))


def test_bodies_must_be_functions():
    with pytest.raises(InputError, match="pass the function itself"):
        lax.cond(True, 1.0, lambda: 2.0)
    with pytest.raises(InputError, match="numeric NumPy arrays"):
        lax.scan(lambda c, x: (c, None), "a", length=2)


def test_python_branches_in_a_body_say_what_to_use():
    with pytest.raises(AbstractValueError, match=r"functrace\.numpy\.where"):
        lax.scan(lambda c, _: (c if c > 0 else -c, None), 1.0, length=2)


def test_reverse_mode_through_a_staged_while_says_what_to_do():
    def f(x):
        return lax.while_loop(lambda c: c < 10.0, lambda c: c * x, x)

    with pytest.raises(AbstractValueError, match=r"counts its steps(.|\n)*lax.scan"):
        ft.make_jaxpr(ft.grad(f))(2.0)
    staged = ft.make_jaxpr(f)(2.0)
    assert ft.grad(lambda x: ft.eval_jaxpr(staged.jaxpr, staged.consts, x)[0])(2.0) == ft.grad(f)(2.0) == 32.0


# prefixes


@pytest.mark.parametrize("length", [*range(9), 33])
@pytest.mark.parametrize("reverse", [False, True])
def test_associative_scan_combines_in_order(length, reverse):
    matrices = RNG.normal(size=(2, length, 2, 2))

    def product(a, b):
        return {"m": a["m"] @ b["m"], "count": a["count"] + b["count"]}

    elems = {"m": matrices, "count": np.ones((2, length))}
    got = lax.associative_scan(product, elems, reverse=reverse, axis=1)
    order = range(length)[::-1] if reverse else range(length)
    running = None
    for k, i in enumerate(order):
        running = matrices[:, i] if running is None else running @ matrices[:, i]
        close(got["m"][:, i], running)
        close(got["count"][:, i], k + 1)
    assert got["m"].shape == matrices.shape


def test_derivatives_of_associative_scan():
    x = RNG.normal(size=6)
    close(ft.jacrev(lambda x: lax.associative_scan(np.multiply, x))(x), ft.jacfwd(np.cumprod)(x))
    close(ft.jacfwd(lambda x: lax.cumsum(x, reverse=True))(x), np.triu(np.ones((6, 6))))
    close(ft.jacrev(lax.cummax)(np.array([1.0, 3.0, 2.0])), [[1, 0, 0], [0, 1, 0], [0, 1, 0]])
    with pytest.raises(CarryError, match="changes the type"):
        lax.associative_scan(lambda a, b: a > b, x)
    with pytest.raises(ArgumentError, match="axis that all of them have"):
        lax.associative_scan(np.add, x, axis=1)


# slices


@pytest.mark.parametrize("start", [(0, 0), (1, 2), (-1, -2), (9, 9)])
def test_dynamic_slices(start):
    x, u = RNG.normal(size=(3, 4)), RNG.normal(size=(2, 2))
    i, j = (min(max(s + n if s < 0 else s, 0), n - 2) for s, n in zip(start, x.shape, strict=True))
    close(lax.dynamic_slice(x, start, (2, 2)), x[i : i + 2, j : j + 2])
    expected = x.copy()
    expected[i : i + 2, j : j + 2] = u
    close(lax.dynamic_update_slice(x, u, start), expected)
    staged = ft.make_jaxpr(lambda x, u, a, b: lax.dynamic_update_slice(x, u, (a, b)))(x, u, *start)
    close(ft.eval_jaxpr(staged.jaxpr, staged.consts, x, u, *start)[0], expected)
    jacobian = ft.jacrev(lambda u: lax.dynamic_update_slice(x, u, start))(u)
    close(jacobian, ft.jacfwd(lambda u: lax.dynamic_update_slice(x, u, start))(u))
    assert jacobian.sum() == 4
    close(lax.dynamic_index_in_dim(x, start[0], keepdims=False), x[min(start[0], 2)])
    close(lax.dynamic_update_index_in_dim(x, u[0, 0] * np.ones(4), 1, 0)[1], u[0, 0])


# solves

A, B = RNG.normal(size=(3, 3)) + 3 * np.eye(3), RNG.normal(size=3)


def linear_solve(a, b, **options):
    return lax.custom_linear_solve(
        lambda x: a @ x,
        b,
        lambda _, b: np.linalg.solve(a, b),
        lambda _, b: np.linalg.solve(a.T, b),
        **options,
    )


@pytest.mark.parametrize("argnum", [0, 1])
def test_custom_linear_solve(argnum):
    def loss(solve, a, b):
        return fnp.sum(fnp.sin(solve(a, b)))

    def ours(a, b):
        return loss(linear_solve, a, b)

    def reference(a, b):
        return loss(np.linalg.solve, a, b)

    close(ours(A, B), reference(A, B))
    expected = ft.grad(reference, argnum)(A, B)
    close(ft.grad(ours, argnum)(A, B), expected)
    close(ft.jacfwd(ours, argnum)(A, B), expected)
    second = ft.hessian(reference, argnum)(A, B)
    for mode in MODES:
        close(ft.hessian(ours, argnum, mode=mode)(A, B), second)
    batch = (np.stack([A, A + 0.1, A.T]), np.stack([B, 2 * B, -B]))
    close(ft.vmap(ft.grad(ours, argnum))(*batch), ft.vmap(ft.grad(reference, argnum))(*batch))
    shared = (ft.vmap(ft.grad(f, argnum), (None, 0))(A, batch[1]) for f in (ours, reference))
    close(*shared)
    staged = ft.make_jaxpr(ft.grad(ours, argnum))(A, B)
    close(ft.eval_jaxpr(staged.jaxpr, staged.consts, A, B)[0], expected)


def conjugate_gradients(matvec, b):
    """A solver that is a while loop, of which nothing is differentiated."""

    def step(state):
        x, r, p = state
        q = matvec(p)
        a = fnp.sum(r * r) / fnp.sum(p * q)
        new = r - a * q
        return x + a * p, new, new + fnp.sum(new * new) / fnp.sum(r * r) * p

    return lax.while_loop(lambda s: fnp.sum(s[1] * s[1]) > 1e-28, step, (fnp.zeros_like(b), b, b))[0]


def test_custom_linear_solve_with_an_iterative_solver():
    def ours(s, b):
        return lax.custom_linear_solve(lambda x: s * (A @ A.T @ x) + x, b, conjugate_gradients, symmetric=True)

    def reference(s, b):
        return np.linalg.solve(s * (A @ A.T) + np.eye(3), b)

    for argnum in (0, 1):
        close(ft.jacrev(ours, argnum)(0.1, B), ft.jacrev(reference, argnum)(0.1, B), 1e-9)
        close(ft.jacfwd(ours, argnum)(0.1, B), ft.jacrev(reference, argnum)(0.1, B), 1e-9)

    def loop(f, s):
        return fnp.sum(lax.scan(lambda b, _: (fnp.sin(f(s, b)), None), B, length=3)[0])

    close(ft.grad(lambda s: loop(ours, s))(0.1), ft.grad(lambda s: loop(reference, s))(0.1), 1e-9)


def test_custom_linear_solve_with_aux_and_pytrees():
    def f(s):
        def matvec(x):
            return {"u": s * x["u"], "v": 2.0 * x["v"]}

        def solve(matvec, b):
            return {"u": b["u"] / s, "v": b["v"] / 2.0}, {"steps": 3}

        return lax.custom_linear_solve(matvec, {"u": s, "v": 4.0}, solve, symmetric=True, has_aux=True)

    x, aux = f(5.0)
    assert (x["u"], x["v"], aux["steps"]) == (1.0, 2.0, 3)
    (x, aux), (dots, _) = ft.jvp(f, (5.0,), (1.0,))
    assert (x["u"], dots["u"], dots["v"], aux["steps"]) == (1.0, 0.0, 0.0, 3)


def test_custom_linear_solve_errors():
    def no_transpose(b):
        return lax.custom_linear_solve(lambda x: 2.0 * x, b, lambda _, b: b / 2.0)

    assert ft.jvp(no_transpose, (3.0,), (1.0,)) == (1.5, 0.5)
    with pytest.raises(MissingRuleError, match="transpose_solve=, or symmetric=True"):
        ft.grad(no_transpose)(3.0)
    with pytest.raises(CarryError, match="result of matvec"):
        ft.grad(lambda b: lax.custom_linear_solve(lambda x: (x, x), b, lambda _, b: b))(3.0)
    with pytest.raises(CarryError, match="result of solve"):
        ft.grad(lambda b: lax.custom_linear_solve(lambda x: x, b, lambda _, b: b * np.ones(2)))(3.0)
    with pytest.raises(ArgumentError, match="floats"):
        lax.custom_linear_solve(lambda x: x, 3, lambda _, b: b)


def newton(f, x):
    return lax.while_loop(lambda x: abs(f(x)) > 1e-13, lambda x: x - f(x) / ft.grad(f)(x), x)


def square_root(a):
    return lax.custom_root(lambda x: x * x - a, 1.5, newton, lambda g, y: y / g(1.0))


def test_custom_root():
    derivatives = [2.0, 1 / 4, -1 / 32, 3 / 256]
    for bits in range(8):
        f = square_root
        for k in range(3):
            close(f(4.0), derivatives[k])
            f = (ft.grad, ft.jacfwd)[bits >> k & 1](f)
        close(f(4.0), derivatives[3])
    xs = np.array([1.0, 4.0, 9.0])
    close(ft.vmap(square_root)(xs), np.sqrt(xs))
    close(ft.vmap(ft.grad(square_root))(xs), 0.5 / np.sqrt(xs))
    close(ft.grad(lambda xs: np.sum(ft.vmap(square_root)(xs)))(xs), 0.5 / np.sqrt(xs))
    staged = ft.make_jaxpr(ft.grad(square_root))(4.0)
    close(ft.eval_jaxpr(staged.jaxpr, staged.consts, 9.0)[0], 1 / 6)
    close(ft.grad(lambda a: lax.scan(lambda c, _: (square_root(c + a), None), a, length=3)[0])(2.0), _nested_root(2.0))


def _nested_root(a, step=1e-6):
    def f(a):
        c = a
        for _ in range(3):
            c = np.sqrt(c + a)
        return c

    return ft.grad(f)(a)


def test_custom_root_of_vectors_with_aux():
    def f(p):
        def solve(f, x):
            return lax.fori_loop(0, 40, lambda _, x: x - np.linalg.solve(ft.jacfwd(f)(x), f(x)), x), {"steps": 40}

        def tangent_solve(g, y):
            return np.linalg.solve(ft.jacobian(g)(y), y)

        return lax.custom_root(lambda x: x**3 + A @ x - p, np.ones(3), solve, tangent_solve, has_aux=True)

    x, aux = f(B)
    close(x**3 + A @ x, B)
    assert aux == {"steps": 40}
    expected = np.linalg.inv(np.diag(3 * x**2) + A)
    close(ft.jacrev(lambda p: f(p)[0])(B), expected)
    close(ft.jacfwd(lambda p: f(p)[0])(B), expected)
    hessians = [ft.hessian(lambda p: np.sum(np.sin(f(p)[0])), mode=mode)(B) for mode in MODES]
    for hessian in hessians[1:]:
        close(hessian, hessians[0])


def test_custom_root_errors():
    with pytest.raises(CarryError, match="result of f "):
        ft.grad(lambda a: lax.custom_root(lambda x: (x, a), 1.0, newton, lambda g, y: y))(1.0)
    with pytest.raises(CarryError, match="result of solve"):
        ft.grad(lambda a: lax.custom_root(lambda x: x - a, 1.0, lambda f, x: (x, x), lambda g, y: y))(1.0)
