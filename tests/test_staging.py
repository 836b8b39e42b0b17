"""make_jaxpr, eval_jaxpr, eval_shape: programs as data, their printing, checking and dead code."""

import numpy as np
import pytest

import functrace
from functrace import errors
from functrace.core.ir import ClosedJaxpr, Eqn, Jaxpr, Literal, Var, check_jaxpr, eliminate_dead_code
from functrace.core.types import ShapedArray
from functrace.primitives.elementwise import sin
from functrace.primitives.families import add, mul

X = np.array([0.3, -0.4, 0.7])
F64 = np.dtype(float)


def stage(f, *args, **kwargs):
    closed = functrace.make_jaxpr(f, **kwargs)(*args)
    check_jaxpr(closed.jaxpr)
    return closed


def run(closed, *args):
    return functrace.eval_jaxpr(closed.jaxpr, closed.consts, *args)


# recording


def test_textbook_program():
    closed = stage(lambda x, y: np.log(x) + x * y - np.sin(y), 2.0, 5.0)
    assert [e.primitive.name for e in closed.eqns] == ["log", "mul", "add", "sin", "sub"]
    assert repr(closed) == (
        "{ lambda a:float64[] b:float64[] . let\n"
        "    c:float64[] = log a\n"
        "    d:float64[] = mul a b\n"
        "    e:float64[] = add c d\n"
        "    f:float64[] = sin b\n"
        "    g:float64[] = sub e f\n"
        "  in (g,) }"
    )
    np.testing.assert_allclose(run(closed, 2.0, 5.0), [np.log(2) + 10 - np.sin(5)])


def test_types_and_constants():
    closed = stage(lambda x: (x * X, x, 3.0, X), np.ones(3, np.float32))
    assert closed.in_avals == [ShapedArray((3,), np.dtype(np.float32))]
    assert [str(a) for a in closed.out_avals] == ["float64[3]", "float32[3]", "float64[]", "float64[3]"]
    assert all(isinstance(c, np.ndarray) for c in closed.consts)
    out = run(closed, np.ones(3, np.float32))
    np.testing.assert_array_equal(out[0], X)


def test_one_constant_used_twice_is_bound_once():
    @functrace.make_jaxpr
    def f(x):
        y = x + 0
        return y * x * y

    assert len(f(X).consts) <= 1


def test_static_arguments():
    def power(x, n, name):
        assert isinstance(n, int)
        for _ in range(n):
            x = x * x
        return x

    closed = stage(power, 2.0, 3, "name", static_argnums=(1, 2))
    assert len(closed.eqns) == 3
    assert len(closed.in_avals) == 1
    closed = stage(power, 2.0, 3, "name", static_argnums=(-1, -2))
    assert run(closed, 2.0) == [256.0]


def test_trees_and_kwargs():
    closed, out = functrace.make_jaxpr(lambda t, *, k: {"a": t[0] * k, "b": [t[1]]}, return_shape=True)(
        (X, 1.0), k=np.float32(2)
    )
    assert len(closed.in_avals) == 3
    assert out == {
        "a": functrace.ShapeDtypeStruct((3,), np.float64),
        "b": [functrace.ShapeDtypeStruct((), np.float64)],
    }


def test_types_stand_for_values():
    closed = stage(lambda x: np.sin(x) @ x, functrace.ShapeDtypeStruct((3,), np.float32))
    assert str(closed.out_avals[0]) == "float32[]"
    assert functrace.eval_shape(lambda x, y: x + y, X, functrace.ShapeDtypeStruct((2, 1), "f4")).shape == (2, 3)


def test_eval_shape_runs_nothing():
    huge = functrace.ShapeDtypeStruct((10**6, 10**6), float)
    assert functrace.eval_shape(lambda x: np.sin(x) @ x, huge) == huge


def test_python_numbers_are_weak():
    closed = stage(lambda x, k: x * k, np.ones(2, np.float32), 2.0)
    assert str(closed.out_avals[0]) == "float32[2]"


def hessian_by_reverse(f):
    return functrace.hessian(f, mode="rev-rev")


@pytest.mark.parametrize("transform", [functrace.grad, hessian_by_reverse, functrace.jacfwd])
def test_derivatives_are_staged(transform):
    def f(x):
        return np.sin(x) @ np.exp(x * x)

    closed = stage(transform(f), X)
    np.testing.assert_allclose(run(closed, X)[0], transform(f)(X), rtol=1e-13)
    # The recorded program is differentiated again.
    again = functrace.jacrev(lambda x: run(closed, x)[0])(X)
    np.testing.assert_allclose(again, functrace.jacfwd(transform(f))(X), rtol=1e-12)


def test_eval_jaxpr_under_every_transformation():
    closed = stage(lambda x: (np.sin(x) * X, x @ x), X)

    def f(x):
        return run(closed, x)

    np.testing.assert_allclose(functrace.vmap(f)(np.stack([X, 2 * X]))[1], [X @ X, 4 * X @ X])
    np.testing.assert_allclose(functrace.grad(lambda x: f(x)[1])(X), 2 * X)
    inner = stage(f, X)
    assert [e.primitive.name for e in inner.eqns] == [e.primitive.name for e in closed.eqns]


def test_staging_inside_a_derivative_keeps_outer_tracers_as_constants():
    def f(x):
        closed = functrace.make_jaxpr(lambda y: y * x)(2.0)
        return functrace.eval_jaxpr(closed.jaxpr, closed.consts, 3.0)[0]

    assert functrace.grad(f)(5.0) == 3.0


# source lines and printing


def test_equations_know_the_users_line():
    closed = stage(lambda x: np.sin(x) * 2, 1.0)
    assert "test_staging.py" in str(closed.eqns[0].source)
    text = closed.pretty()
    assert "# " in text
    assert "test_staging.py:" in text
    assert "# " not in closed.pretty(source=False)


def test_derivative_equations_know_the_users_line():
    def f(x):
        return np.sin(x) * x

    closed = stage(functrace.grad(f), 1.0)
    line = f.__code__.co_firstlineno + 1
    assert any(f"test_staging.py:{line} " in str(e.source) for e in closed.eqns)


def test_printing_of_parameters_and_names():
    closed = stage(lambda x: x[::2].reshape(2, 1), np.arange(4.0))
    assert "starts=(0,)" in repr(closed) or "slice" in repr(closed)
    assert "shape=(2, 1)" in repr(closed)
    many = stage(lambda x: [x * k for k in range(60)], 1.0)
    names = [line.split(":")[0].strip() for line in repr(many).splitlines()[1:-1]]
    assert names[0] == "b"
    assert "aa" in names
    assert len(set(names)) == len(names)
    assert repr(stage(lambda x: x, 1.0)) == "{ lambda a:float64[] . in (a,) }"
    assert repr(stage(lambda x, y: (y, x), 1.0, 2)) == "{ lambda a:float64[] b:int64[] . in (b, a) }"


def test_equation_and_atoms_print():
    closed = stage(lambda x: np.sin(x) * 2.5, 1.0)
    assert repr(closed.eqns[1]).endswith("2.5")
    assert repr(closed.eqns[0].outvars[0]) == "Var:float64[]"
    assert repr(Literal(2.5)) == "2.5"


# dead code


def test_unused_operations_are_dropped():
    def f(x):
        _ = np.exp(x) * 3
        return np.sin(x)

    assert [e.primitive.name for e in stage(f, X).eqns] == ["sin"]


def test_unused_constants_are_dropped():
    def f(x):
        _ = x * np.ones(3)
        return x

    closed = stage(f, X)
    assert not closed.consts
    assert not closed.eqns


def test_eliminate_dead_code_by_outputs():
    closed = stage(lambda x: (np.sin(x), np.exp(x) * X), X)
    first = eliminate_dead_code(closed.jaxpr, [True, False])
    assert [e.primitive.name for e in first.eqns] == ["sin"]
    assert not first.constvars
    assert len(first.invars) == 1
    assert len(first.outvars) == 1
    assert len(eliminate_dead_code(closed.jaxpr).eqns) == len(closed.eqns)
    check_jaxpr(first)


def test_primal_work_of_a_linear_program_is_not_recorded():
    closed = stage(lambda v: functrace.jvp(np.sin, (X,), (v,))[1], X)
    assert [e.primitive.name for e in closed.eqns] == ["mul"]


# checking


def var(shape=(), dtype=F64):
    return Var(ShapedArray(shape, dtype))


def test_check_jaxpr_finds_unbound_variables():
    a, b, c = var(), var(), var()
    with pytest.raises(errors.JaxprError, match="before it is bound"):
        check_jaxpr(Jaxpr([], [a], [Eqn(add, [a, b], [c], {})], [c]))
    with pytest.raises(errors.JaxprError, match="never bound"):
        check_jaxpr(Jaxpr([], [a], [], [b]))


def test_check_jaxpr_finds_variables_bound_twice():
    a, b = var(), var()
    with pytest.raises(errors.JaxprError, match="bound twice"):
        check_jaxpr(Jaxpr([], [a, a], [], [a]))
    with pytest.raises(errors.JaxprError, match="bound twice"):
        check_jaxpr(Jaxpr([], [a], [Eqn(sin, [a], [b], {}), Eqn(sin, [a], [b], {})], [b]))
    with pytest.raises(errors.JaxprError, match="bound twice"):
        check_jaxpr(Jaxpr([], [a], [Eqn(sin, [a], [a], {})], [a]))


def test_check_jaxpr_finds_wrong_types():
    a, b = var((3,)), var((2,))
    with pytest.raises(errors.JaxprError, match=r"sin has type .*float64\[3\].*recorded as .*float64\[2\]"):
        check_jaxpr(Jaxpr([], [a], [Eqn(sin, [a], [b], {})], [b]))
    single = var((3,), np.dtype(np.float32))
    with pytest.raises(errors.FunctraceError, match="one dtype"):
        check_jaxpr(Jaxpr([], [a, single], [Eqn(mul, [a, single], [var((3,))], {})], [a]))
    with pytest.raises(errors.FunctraceError, match="one shape"):
        check_jaxpr(Jaxpr([], [a, b], [Eqn(mul, [a, b], [var((3,))], {})], [a]))


def test_check_jaxpr_finds_array_literals():
    a, b = var((3,)), var((3,))
    with pytest.raises(errors.JaxprError, match="array as a literal"):
        check_jaxpr(Jaxpr([], [a], [Eqn(add, [a, Literal(X)], [b], {})], [b]))


def test_closed_jaxpr_counts_constants():
    with pytest.raises(errors.JaxprError, match="1 constvars"):
        ClosedJaxpr(Jaxpr([var()], [], [], []), [])


def test_eval_jaxpr_counts_arguments():
    closed = stage(np.sin, 1.0)
    for args in [(), (1.0, 2.0), (X,), (np.float32(1),), (np.int64(1),)]:
        with pytest.raises(errors.ArgumentError, match="make_jaxpr"):
            run(closed, *args)
    assert run(closed, 0) == [0.0]
