"""Cost before running: flops against counts by hand, peak memory against tracemalloc, loops, choices, lines."""

import tracemalloc

import numpy as np
import pytest

import functrace as ft
import functrace.numpy as fnp
from functrace import lax
from functrace.core.evaluate import python_function
from functrace.core.types import ShapedArray, aval_of
from functrace.core.work import Layout, Work
from functrace.demo.problems import network
from functrace.errors import ArgumentError
from functrace.inspect import cost
from functrace.inspect.cost import quantity
from functrace.interpreters.cost import Cost, Machine, jaxpr_cost
from functrace.primitives.elementwise import FUNCTION
from functrace.transforms._flatten import export
from tests.cases import all_cases, own_primitives

RNG = np.random.default_rng(20261121)
F = FUNCTION


def spd(n):
    a = RNG.normal(size=(n, n))
    return a @ a.T + n * np.eye(n)


# flops


X, Y = RNG.normal(size=(20, 30)), RNG.normal(size=(20, 30))
COUNTS = {
    "sum": (lambda x: x + x, 600),
    "polynomial": (lambda x: 3.0 * x * x - x, 3 * 600),
    "reduction": (lambda x: x.sum(), 599),
    "row sums": (lambda x: x.sum(axis=1), 600 - 20),
    "mean": (lambda x: np.mean(x), 599 + 1),
    "functions": (lambda x: np.sin(x) + np.exp(x), (2 * F + 1) * 600),
    "matrix times matrix": (lambda x: x @ x.T, 2 * 20 * 30 * 20),
    "matrix times vector": (lambda x: x @ np.ones(30), 2 * 600),
    "einsum": (lambda x: np.einsum("ij,kj->ik", x, x), 2 * 20 * 30 * 20),
    "outer": (lambda x: np.multiply.outer(x[0], x[1]), 30 * 30),
    "structure": (lambda x: np.concatenate([x.T, x.T])[::2, 1:].reshape(-1)[3:5], 0),
    "choice": (lambda x: np.where(x > 0.0, x, 0.0), 600),
    "cumulative": (lambda x: np.cumsum(x, axis=0), 600 - 30),
    "gather": (lambda x: x[np.array([1, 2, 2])], 0),
    "scatter": (lambda x: fnp.at(x)[np.array([1, 2, 2])].add(1.0), 3 * 30),
    "cholesky": (lambda x: np.linalg.cholesky(np.eye(60)[:60, :60] * x[0, 0]), 3600 + 60**3 // 3),
    "convolve": (lambda x: np.convolve(x[0], x[1]), 2 * 30 * 30),
    "complex product": (lambda x: (x * (1 + 0j)) * 1j, 2 * 6 * 600),
    "max": (lambda x: x.max(), 599),
}


@pytest.mark.parametrize("name", COUNTS)
def test_flops_are_those_counted_by_hand(name):
    function, flops = COUNTS[name]
    assert cost(function)(X).flops == flops


def test_solve_counts_the_leading_terms():
    a, b = spd(30), RNG.normal(size=(30, 4))
    assert cost(np.linalg.solve)(a, b).flops == 2 * 30**3 // 3 + 2 * 30 * 30 * 4
    assert cost(np.linalg.inv)(a).flops == 2 * 30**3
    assert cost(lambda a: np.linalg.eigh(a))(a).flops >= 9 * 30**3
    assert cost(lambda a: np.linalg.svd(a, full_matrices=False)[1])(RNG.normal(size=(30, 10))).flops == 50000


def test_gradient_of_a_product_takes_two_more_products():
    w, x = RNG.normal(size=(40, 50)), RNG.normal(size=(50, 60))
    product = 2 * 40 * 50 * 60

    def loss(w, x):
        return (w @ x).sum()

    assert cost(loss)(w, x).flops == product + 40 * 60 - 1
    assert cost(ft.grad(loss, argnums=(0, 1)))(w, x).flops == 2 * product  # the value is not needed


def test_jacobians_cost_a_sweep_per_input_or_output():
    w = RNG.normal(size=(7, 40))
    f = lambda x, w: w @ np.sin(x)  # noqa: E731
    x = np.ones(40)
    forward, reverse = cost(ft.jacfwd(f))(x, w), cost(ft.jacrev(f))(x, w)
    assert forward.flops == 40 * F + 40 * (40 + 2 * 7 * 40)
    assert reverse.flops == 40 * F + 7 * (40 + 2 * 7 * 40)


def test_loops_count_their_steps_and_choices_the_dearest_branch():
    def loop(x):
        return lax.scan(lambda h, _: (np.sin(h) * h, None), x, None, length=17)[0]

    assert cost(loop)(np.ones(5)).flops == 17 * 5 * (F + 1)
    assert cost(loop)(np.ones(5)).primitives == 1 + 17 * 2

    def choice(flag, x):
        return lax.cond(flag, lambda x: x + x, lambda x: np.sin(x) * x, x)

    assert cost(choice)(True, np.ones(5)).flops == 5 * (F + 1)
    assert cost(ft.jit(choice))(True, np.ones(5)).flops == 5 * (F + 1)


def test_while_counts_once_and_says_so():
    found = cost(lambda x: lax.while_loop(lambda x: x < 10.0, lambda x: 2.0 * x, x))(1.0)
    assert found.flops == 2
    assert "while" in found.notes[0]


def test_custom_functions_and_checkpoints_count_their_programs():
    @ft.custom_jvp
    def f(x):
        return np.sin(x) * x

    f.defjvp(lambda primals, tangents: (f(*primals), tangents[0]))
    assert cost(lambda x: f(x))(np.ones(9)).flops == 9 * (F + 1)
    g = ft.checkpoint(lambda x: np.sin(np.sin(x)))
    assert cost(lambda x: g(x))(np.ones(9)).flops == 18 * F
    assert cost(lambda x: ft.value_and_grad(lambda x: g(x).sum())(x))(np.ones(9)).flops > 4 * 9 * F


def test_vmap_multiplies():
    f = lambda x: np.sin(x) @ x  # noqa: E731
    assert cost(ft.vmap(f))(np.ones((6, 50))).flops == 6 * cost(f)(np.ones(50)).flops


def test_every_primitive_has_a_price():
    for case in all_cases():
        rule = case.primitive.cost
        assert rule is not None, f"give {case.primitive} a cost rule"
        avals = [aval_of(x) for x in case.operands]
        outs = case.primitive.abstract_eval(*avals, **case.params)
        outs = list(outs) if case.primitive.multiple else [outs]
        work = rule([Layout(a) for a in avals], outs, **case.params)
        assert isinstance(work, Work)
        assert work.flops >= work.dense >= 0, str(case)
        assert work.scratch >= 0, str(case)
        assert work.results is None or len(work.results) == len(outs), str(case)


def test_no_primitive_is_without_a_rule():
    assert not [p.name for p in own_primitives() if p.cost is None]


# layouts


VIEWS = {
    "transpose": lambda x: x.T,
    "slice": lambda x: x[2:9:3, ::2],
    "index": lambda x: x[:, 3],
    "reverse": lambda x: x[::-1],
    "reshape": lambda x: x.reshape(5, 4, 30),
    "expand": lambda x: x[:, None, :],
    "broadcast": lambda x: fnp.broadcast_to(x, (7, 20, 30)),
    "real": lambda x: np.real(x),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_take_no_memory_and_move_nothing(name):
    closed = ft.make_jaxpr(lambda x: VIEWS[name](x) + 0.0)(X)
    view = jaxpr_cost(closed.jaxpr)
    assert view.peak == 8 * np.size(VIEWS[name](X))  # the sum alone


def test_reshape_of_a_transpose_copies():
    base = 8 * 600
    assert jaxpr_cost(ft.make_jaxpr(lambda x: x.T.reshape(-1) + 0.0)(X).jaxpr).peak == 2 * base
    assert jaxpr_cost(ft.make_jaxpr(lambda x: x.T.reshape(30, 1, 20) + 0.0)(X).jaxpr).peak == base


@pytest.mark.parametrize("seed", range(40))
def test_layouts_reshape_as_numpy_does(seed):
    rng = np.random.default_rng(seed)
    x = np.zeros(tuple(rng.permutation([2, 3, 4, 1])))
    x = x.transpose(rng.permutation(4))
    if rng.random() < 0.4:
        x = x[tuple(slice(None, None, int(s)) for s in rng.choice([1, 1, 2], 4))]
    layout = Layout(ShapedArray(x.shape, x.dtype), tuple(s // 8 for s in x.strides))
    for shape in [(-1,), (2, -1), (-1, 3), (1, -1, 2), (4, -1), (3, 1, -1)]:
        try:
            out = x.reshape(shape)
        except ValueError:
            continue
        found = layout.reshaped(out.shape)
        assert (found is not None) == np.shares_memory(x, out), (x.shape, x.strides, out.shape)
        if found is not None:
            real = [s // 8 for s, n in zip(out.strides, out.shape, strict=True) if n != 1]
            assert [s for s, n in zip(found, out.shape, strict=True) if n != 1] == real


# peak memory


def measured_peak(function, *args):
    """What running the recorded program holds, results included."""
    closed = ft.make_jaxpr(function)(*args)
    run = python_function(closed.jaxpr)
    leaves = ft.tree.leaves(args)
    export(run(*closed.consts, *leaves), leaves)
    tracemalloc.start()
    try:
        export(run(*closed.consts, *leaves), leaves)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


W1, W2, WINE, GRAPES = network(64)


def wine(w):
    return np.reshape((W2 @ np.tanh(w @ WINE) - GRAPES) ** 2, (89, 2)).sum(1) / 178


def layered(n):
    weights = [RNG.normal(size=(n, n)) / np.sqrt(n) for _ in range(3)]

    def f(x):
        for w in weights:
            x = np.tanh(w @ x)
        return x

    return f


def chain(x):
    for _ in range(6):
        x = np.sin(x) * x + 0.1
    return x.sum()


def loop(h):
    return lax.scan(lambda h, _: (np.sin(h) * 0.9, h.sum()), h, None, length=2000)


LAYERED = layered(80)


def energy(x):
    return (LAYERED(x) ** 2).sum()


LONG, MATRIX = RNG.normal(size=60_000), RNG.normal(size=(200, 300))
PEAKS = {
    "wine": (wine, W1),
    "wine forward": (ft.jacfwd(wine), W1),
    "wine reverse": (ft.jacrev(wine), W1),
    "wine gradient": (ft.grad(lambda w: wine(w).sum()), W1),
    "chain": (chain, LONG),
    "chain gradient": (ft.grad(chain), LONG),
    "chain value and gradient": (ft.value_and_grad(chain), LONG),
    "layers forward": (ft.jacfwd(layered(200)), RNG.normal(size=200)),
    "layers reverse": (ft.jacrev(layered(200)), RNG.normal(size=200)),
    **{f"hessian {m}": (ft.hessian(energy, mode=m), RNG.normal(size=80)) for m in ("fwd-rev", "rev-fwd", "fwd-fwd")},
    "loop gradient": (ft.grad(lambda h: loop(h)[1].sum()), RNG.normal(size=64)),
    "softmax": (ft.grad(lambda x: (ft.nn.softmax(x, axis=1) ** 2).sum()), MATRIX),
    "logsumexp": (lambda x: ft.nn.logsumexp(x, axis=1), MATRIX),
    "sort": (ft.grad(lambda x: (np.sort(x) ** 2).sum()), LONG),
    "gather": (ft.grad(lambda x: (x[np.arange(0, 60_000, 2)] ** 2).sum()), LONG),
    "transposes": (lambda x: (x.T.reshape(-1) + 1.0).reshape(200, 300).T * 2.0, MATRIX),
    "columns": (lambda x: np.sin(x.T) + x.T, MATRIX),
    "concatenate": (lambda x: np.concatenate([x, x, 2.0 * x]), LONG),
    "batched products": (ft.vmap(lambda a, b: a @ b), RNG.normal(size=(20, 40, 50)), RNG.normal(size=(20, 50, 60))),
}


@pytest.mark.parametrize("name", PEAKS)
def test_peak_memory_is_within_15_percent(name):
    function, *args = PEAKS[name]
    assert cost(function)(*args).peak == pytest.approx(measured_peak(function, *args), rel=0.15)


def test_arguments_are_not_counted_but_copies_of_them_are():
    x = np.ones(1000)
    assert cost(lambda x: x.sum())(x).peak == 8
    assert cost(lambda x: x)(x).peak == 8000
    assert cost(lambda x: (x[1:], x))(x).peak == 7992 + 8000


# the object and lines


def test_types_stand_for_values():
    assert cost(np.sin)(ft.ShapeDtypeStruct((10**6, 10**4), float)).peak == 8 * 10**10


def test_by_line_adds_up():
    def f(x):
        y = np.sin(x)
        for _ in range(3):
            y = y * x + 1.0
        return lax.scan(
            lambda h, _: (np.exp(h), None),
            y,
            None,
            length=4,
        )[0]

    whole, lines = cost(f)(LONG), cost(f, by="line")(LONG)
    assert sum(c.flops for c in lines.values()) == whole.flops == lines.total.flops
    assert sum(c.bytes for c in lines.values()) == whole.bytes
    assert sum(c.primitives for c in lines.values()) == whole.primitives
    assert max(c.peak for c in lines.values()) == whole.peak
    first = f.__code__.co_firstlineno
    assert lines[next(k for k in lines if k.endswith(f":{first + 1}"))].flops == F * LONG.size
    assert lines[next(k for k in lines if k.endswith(f":{first + 3}"))].flops == 6 * LONG.size
    assert lines[next(k for k in lines if k.endswith(f":{first + 5}"))].flops == 4 * F * LONG.size
    assert "total" in repr(lines)


def test_costs_add_and_turn_into_time():
    a, b = Cost(10, 4, 100, 50, 1), Cost(1, 0, 10, 70, 2, ("note",))
    assert a + b == Cost(11, 4, 110, 70, 3, ("note",))
    assert a.times(3) == Cost(30, 12, 300, 50, 3)
    assert a.seconds(Machine(1.0, 10.0, 100.0, 1000.0)) == 1 + 60 + 400 + 100_000


def test_quantities_read_well():
    assert [quantity(v, "B") for v in (0, 12, 1234, 5.6e7, 3e9)] == ["0 B", "12 B", "1.23 kB", "56 MB", "3 GB"]


def test_by_something_else_is_refused():
    with pytest.raises(ArgumentError, match="by line"):
        cost(np.sin, by="file")


RESHAPED = {
    "tile": lambda x: np.tile(x, (3, 2)),
    "repeat": lambda x: np.repeat(x, 3, axis=1),
    "repeat all": lambda x: np.repeat(x, 2),
    "reshape": lambda x: x.T.reshape(-1),
}


@pytest.mark.parametrize("function", RESHAPED.values(), ids=RESHAPED)
def test_copies_by_reshaping_are_results_as_they_are(function):
    assert cost(function)(MATRIX).peak == pytest.approx(measured_peak(function, MATRIX), rel=0.01)
    result = ft.vmap(function)(MATRIX[None])
    result[...] = 0.0
    assert np.count_nonzero(MATRIX) > MATRIX.size // 2


def test_results_share_nothing_with_anybody():
    """Views of what another result or the caller holds are copied, be they as large as their base."""
    held = np.arange(6.0)
    folded = lambda x: x.reshape(3, 2).T.reshape(-1)  # noqa: E731
    twice = lambda x: (folded(x), folded(x))  # noqa: E731
    for function in (lambda x: x.reshape(2, 3), lambda x: (x.reshape(2, 3), x), folded, twice):
        for call in (ft.vmap(lambda x, f=function: f(x)), lambda x, f=function: ft.jvp(f, (x[0],), (x[0],))):
            results = ft.tree.leaves(call(held[None]))
            for k, result in enumerate(results):
                assert not np.shares_memory(result, held)
                assert not any(np.shares_memory(result, other) for other in results[:k])
