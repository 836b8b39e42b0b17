"""Wrong arguments: errors of our own everywhere, in the user's terms, and no silent success where NumPy refuses."""

import concurrent.futures
import copy
import inspect
import multiprocessing
import pickle
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest

import functrace as ft
import functrace.numpy as fnp
from functrace import errors, lax, nn, random, tree
from functrace.backend import pool
from functrace.cli import main
from functrace.scipy import linalg as scipy_linalg
from functrace.testing import check_grads, check_jvp, check_vjp
from functrace.util import switched_on

M = np.array([[2.0, 0.5, 0.1], [0.5, 3.0, 0.2], [0.1, 0.2, 4.0]])
V = np.array([0.1, 0.5, 0.7])
TRACES = {
    "jvp": lambda f, x: ft.jvp(f, (x,), (x,)),
    "make_jaxpr": lambda f, x: ft.make_jaxpr(f)(x),
    "vmap": lambda f, x: ft.vmap(f)(np.stack([x, x])),
}

#: Arguments that no traced function checks by itself: NumPy's own words, ours around them.
UNEXPECTED = {
    "fft axes": (lambda x: fnp.fft.fftn(x, s=object()), errors.InputError, r"numpy\.fft\.fftn: .*not iterable"),
    "cond of what": (lambda x: np.linalg.cond(x, p=M), errors.InputError, r"numpy\.linalg\.cond: "),
    "flag of an array": (lambda x: np.linalg.svd(x, full_matrices=M), errors.ArgumentError, r"numpy\.linalg\.svd: "),
    "multi_dot of one matrix": (lambda x: np.linalg.multi_dot([x]), ValueError, "multi_dot"),
    "multi_dot of nothing": (lambda x: fnp.linalg.multi_dot(None), errors.InputError, r"numpy\.linalg\.multi_dot: "),
    "factor without its side": (lambda x: scipy_linalg.cho_solve(x, x), errors.ArgumentError, r"scipy\.linalg\.cho"),
    "cross of scalars": (lambda x: np.linalg.cross(x[0, 0], x[0, 0]), IndexError, r"numpy\.linalg\.cross: "),
}


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("call", UNEXPECTED)
def test_what_nobody_checks_is_explained(call, trace):
    function, kind, message = UNEXPECTED[call]
    message = rf"(?s)({message}).*where: .*test_refusals\.py:\d+.*remedy: "
    with pytest.raises(errors.FunctraceError, match=message) as info:
        TRACES[trace](function, M)
    assert isinstance(info.value, kind)


def test_python_and_the_user_keep_their_own_errors():
    """Unknown arguments are Python's to report, and what a callback of the user's raises passes unchanged."""

    def fails(v):
        raise KeyError("mine")

    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        ft.grad(lambda x: np.linalg.svd(x, nonsense=1))(M)
    with pytest.raises(KeyError, match="mine"):
        ft.jvp(lambda x: fnp.apply_along_axis(fails, 0, x), (M,), (M,))
    with pytest.raises(np.linalg.LinAlgError):
        ft.jvp(np.linalg.inv, (np.zeros((2, 2)),), (np.eye(2),))


def test_arguments_in_a_message_are_short():
    with pytest.raises(errors.FunctraceError) as info:
        ft.jvp(lambda x: fnp.fft.fftn(x, s=object(), axes=[0] * 50), (M,), (M,))
    assert "0x" not in str(info.value) and len(str(info.value)) < 600
    assert "float64[3,3] traced by jvp, s=object" in str(info.value)


#: What NumPy refuses, and what was a silent number here.
SILENT = {
    "sum into a larger array": lambda x: np.sum(x, axis=0, out=fnp.zeros((3, 3))),
    "mean into a larger array": lambda x: np.mean(x, axis=0, out=fnp.zeros((3, 3))),
    "cumsum into a larger array": lambda x: np.cumsum(x[0], out=fnp.zeros((3, 3))),
    "median into a larger array": lambda x: np.median(x, axis=0, out=fnp.zeros((3, 3))),
    "concatenate into a larger array": lambda x: np.concatenate([x[0], x[1]], out=fnp.zeros((2, 6))),
    "reduce into a larger array": lambda x: np.add.reduce(x, out=fnp.zeros((3, 3))),
    "complex start of a sum": lambda x: np.sum(x, initial=2j),
    "complex start of a maximum": lambda x: np.max(x, initial=2j),
    "an array to start from": lambda x: np.max(x, initial=np.ones(3)),
    "an array to reduce from": lambda x: np.add.reduce(x, initial=np.ones(3)),
    "axes in an array": lambda x: np.expand_dims(x[0, :1], np.array([0, 1])),
    "an imaginary part to insert": lambda x: np.insert(x[0], 1, 2j),
    "an imaginary end of an interpolant": lambda x: np.interp(x[0], V, V, left=2j),
    "an array beyond an interpolant": lambda x: np.interp(x[0], V, V, right=np.ones(3)),
    "a condition of two axes": lambda x: np.compress(M > 1, x),
    "a mask of numbers": lambda x: np.nanmean(x, where=M),
    "an unknown option": lambda x: fnp.asarray(x, nonsense=1),
    "a mean of another shape": lambda x: np.std(x, mean=np.ones((2, 7))),
    "a sorter of another size": lambda x: np.searchsorted(x[0], x[1], sorter=(0, 0)),
    "a short mask to place": lambda x: np.place(x if isinstance(x, np.ndarray) else fnp.array(x), [True], 1.0),
    "a short mask to put": lambda x: np.putmask(x if isinstance(x, np.ndarray) else fnp.array(x), True, 1.0),
    "keepdims as a text": lambda x: np.std(x, keepdims="yes"),
    "casting as a list": lambda x: np.sin(x, casting=["safe"]),
    "a signature that is a number": lambda x: np.sin(x, signature=3),
}


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("call", SILENT)
def test_what_numpy_refuses_is_refused(call, trace):
    with pytest.raises((TypeError, ValueError)):
        SILENT[call](M)
    with pytest.raises(errors.FunctraceError, match=r"test_refusals\.py"):
        TRACES[trace](SILENT[call], M)


def test_no_mask_is_not_a_mask():
    """To NumPy `where=None` is False, so that nothing is summed; a trace took it for no mask at all."""
    assert np.sum(M, where=None) == 0
    for function in (np.sum, np.any, np.mean, np.exp):
        with pytest.raises(errors.ArgumentError, match="where=None"):
            ft.jvp(lambda x, f=function: f(x, where=None), (M,), (M,))


def test_bounds_of_a_loop_are_integers():
    """A float bound beside a traced one was cut to an integer."""
    for bounds in (lambda n: (0.5, n), lambda n: (n, 2.5)):
        with pytest.raises(errors.ArgumentError, match="integer"):
            ft.jit(lambda n, b=bounds: lax.fori_loop(*b(n), lambda i, x: x + 1.0, 0.0))(3)


#: Functions that got something else than a function; all said that it is not callable, from within.
NO_FUNCTIONS = {
    "scan": lambda x: lax.scan("abc", 1.0, V),
    "map": lambda x: lax.map(x, V),
    "while_loop": lambda x: lax.while_loop(None, lambda v: v, x),
    "fori_loop": lambda x: lax.fori_loop(0, 3, 1.0, x),
    "cond": lambda x: lax.cond(True, 1.0, lambda v: v, x),
    "switch": lambda x: lax.switch(0, [3, 4], x),
    "switch without branches": lambda x: lax.switch(0, np.sin, x),
    "associative_scan": lambda x: lax.associative_scan(None, x),
    "custom_root": lambda x: lax.custom_root(lambda v: v, x, None, lambda g, y: y),
    "custom_linear_solve": lambda x: lax.custom_linear_solve(lambda v: v, x, 1.0),
    "pure_callback": lambda x: ft.pure_callback("abc", x, x),
    "debug.callback": lambda x: ft.debug.callback(None, x),
    "debug.print": lambda x: ft.debug.print(x),
    "explain": lambda x: ft.explain(None),
    "defjvp": lambda x: ft.custom_jvp(np.sin).defjvp(1.0),
    "defvjp": lambda x: ft.custom_vjp(np.sin).defvjp(np.sin, None),
    "tree.map": lambda x: tree.map(None, [x]),
    "tree.reduce": lambda x: tree.reduce(None, [x, x]),
    "check_grads": lambda x: check_grads(None, (x,)),
    "check_jvp": lambda x: check_jvp(np.sin, None, (x,)),
    "check_vjp": lambda x: check_vjp(np.sin, None, (x,)),
    "argmin": lambda x: ft.optimize.argmin(np.sin),
}


@pytest.mark.parametrize("call", NO_FUNCTIONS)
def test_a_function_is_asked_for(call):
    with pytest.raises((errors.InputError, errors.ArgumentError), match=r"(?s)where: .*test_refusals\.py.*remedy: "):
        NO_FUNCTIONS[call](V)


OTHERS = {
    "lengths that are no integers": lambda: ft.ShapeDtypeStruct((2.5,), float),
    "a shape that is a text": lambda: ft.ShapeDtypeStruct("ab", float),
    "a dtype that is none": lambda: ft.ShapeDtypeStruct((2,), "abc"),
    "no jaxpr": lambda: ft.eval_jaxpr(lambda x: x, [], V),
    "no series": lambda: ft.jet(np.sin, (1.0,), (1.0,)),
    "series for no arguments": lambda: ft.jet(np.sin, 1.0, ((1.0,),)),
    "a mode that is a list": lambda: ft.jacobian(np.sin, mode=["forward"]),
    "a nesting that is a list": lambda: ft.hessian(np.sum, mode=["fwd-rev"]),
    "places between places": lambda: ft.sparse.Pattern((3, 3), [0.5], [1]),
    "a pattern without width": lambda: ft.sparse.Pattern(3, [0], [1]),
    "a random dtype": lambda: random.normal(random.key(0), (3,), "abc"),
    "a random dtype of integers": lambda: random.randint(random.key(0), (3,), 0, 5, "abc"),
    "a slice's size": lambda: lax.dynamic_slice(V, (0,), ("a",)),
    "a slice's start": lambda: lax.dynamic_slice(V, ((0, 1),), (1,)),
    "a slice's axis": lambda: lax.dynamic_slice_in_dim(V, 0, 1, "a"),
    "an axis of prefixes": lambda: lax.cummax(V, axis=None),
    "no TreeDef": lambda: tree.unflatten("abc", [1]),
    "no leaves": lambda: tree.unflatten(tree.structure(1), 3),
    "no TreeDefs": lambda: tree.transpose((1, 2), tree.structure(1), (1, 2)),
    "no path": lambda: tree.keystr("abc"),
    "a class that is no tree": lambda: tree.register_pytree_node_class(type("Plain", (), {})),
    "checks of nothing": lambda: check_grads(np.sin, (1.0,), modes=()),
    "a negative order": lambda: check_grads(np.sin, (1.0,), order=-1),
    "an order that is no number": lambda: check_grads(np.sin, (1.0,), order=float("nan")),
    "arguments without a tuple": lambda: check_grads(np.sin, 1.0),
    "decimal places": lambda: ft.inspect.trace_table(np.sin)(1.0, digits=-1),
}


@pytest.mark.parametrize("call", OTHERS)
def test_other_mistakes(call):
    with pytest.raises(errors.FunctraceError):
        OTHERS[call]()


def test_what_a_function_returns_is_named_too():
    async def asynchronous(x):
        return x

    def generator(x):
        yield x

    for function in (asynchronous, generator):
        with warnings.catch_warnings(), pytest.raises(errors.InputError, match="takes and returns numbers"):
            warnings.simplefilter("ignore")  # the coroutine is never awaited
            ft.grad(function)(1.0)


def test_no_arguments_to_differentiate():
    assert ft.jacobian(lambda x: V)(()) == ft.jacrev(lambda x: V)(()) == ()


def test_booleans_in_networks():
    assert nn.hard_tanh(True) == 1.0
    np.testing.assert_array_equal(nn.one_hot(np.array([True, False]), 3), [[0, 1, 0], [1, 0, 0]])
    assert nn.one_hot(np.array([3], np.int8), 300).nonzero() == (0, 3)


# copies and pickles


@ft.jit
def decorated(x):
    return np.sin(x).sum()


def plain(x):
    return (x**2).sum()


def repeated(n, x):
    return x**n


def program(x):
    total = lax.scan(lambda c, t: (c * t, c), x[0], x)[0]
    return lax.cond(total > 0, np.sin, np.negative, total)


def test_jitted_functions_travel():
    decorated(V)
    assert pickle.loads(pickle.dumps(decorated)) is decorated
    assert copy.copy(decorated) is copy.deepcopy({"f": decorated})["f"] is decorated
    made = pickle.loads(pickle.dumps(ft.jit(plain, inline=True)))
    assert made(V) == plain(V) and made.inline
    static = pickle.loads(pickle.dumps(ft.jit(repeated, static_argnums=0)))
    assert static(3, 2.0) == 8 and static.static_argnums == (0,)


def test_a_jitted_function_in_another_process():
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        assert list(executor.map(ft.jit(plain), [V, 2 * V])) == pytest.approx([plain(V), plain(2 * V)])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_programs_are_copied_with_their_primitives(copied):
    closed = ft.make_jaxpr(program)(V)
    found = copied(closed)
    assert all(a.primitive is b.primitive for a, b in zip(found.eqns, closed.eqns, strict=True))
    assert found.pretty(source=False) == closed.pretty(source=False)
    derivative = ft.grad(lambda x: ft.eval_jaxpr(found.jaxpr, found.consts, x)[0])
    np.testing.assert_allclose(derivative(V), ft.grad(program)(V))


def test_explain_keeps_the_signature():
    def function(x, y=2.0):
        return x * y

    assert inspect.signature(ft.explain(function)) == inspect.signature(function)


# the environment and the command line


def test_switches(monkeypatch):
    for value, expected in [("0", False), ("off", False), ("False", False), ("", True), ("1", True), ("yes", True)]:
        monkeypatch.setenv("FUNCTRACE_TEST", value)
        assert switched_on("FUNCTRACE_TEST", True) is expected
    monkeypatch.delenv("FUNCTRACE_TEST")
    assert not switched_on("FUNCTRACE_TEST", False)


def test_a_wrong_number_of_threads_is_told(monkeypatch):
    monkeypatch.setenv("FUNCTRACE_THREADS", "many")
    with pytest.warns(RuntimeWarning, match="FUNCTRACE_THREADS=many is no number"):
        pool.refusal()
    pool.refusal()  # once


def test_a_cache_that_cannot_be_made(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    for place, state in [
        ("file/below", "cannot be opened|cannot be made|Not a directory"),
        ("not/yet", "state +in use"),
    ]:
        monkeypatch.setenv("FUNCTRACE_CACHE_DIR", str(tmp_path / place))
        assert main(["cache"]) == 0
        assert re.search(state, capsys.readouterr().out)


def test_an_error_where_the_current_directory_is_gone(tmp_path):
    """Looking for the user's line failed, and hid the error."""
    text = (
        "import os, numpy, functrace\n"
        "os.rmdir(os.getcwd())\n"
        "try: functrace.grad(lambda x: x)(numpy.ones(3))\n"
        "except functrace.errors.NonScalarOutputError as error: print(error)\n"
    )
    (tmp_path / "gone").mkdir()
    (tmp_path / "script.py").write_text(text)
    command = [sys.executable, str(tmp_path / "script.py")]
    found = subprocess.run(command, cwd=tmp_path / "gone", capture_output=True, text=True, check=True)
    assert "script.py:3 in " in found.stdout


FUNCTION = "import numpy as np\ndef f(x, y):\n    return np.sin(x) * y\n"


@pytest.mark.parametrize(("words", "message"), [
    (["trace", "model.py:f", "--at", "2"], "missing a required argument: 'y'"),
    (["draw", "model.py:f", "--at", "2", "3", "4"], "too many positional arguments"),
    (["modes", "model.py:f", "--at", "2"], "missing a required argument: 'y'"),
    (["trace", "model.py:f", "--at", "2", "3", "--digits", "-3"], "decimal places"),
    (["trace", "model.py:f", "--at", "2", "3", "--tangents", "1"], "another tree structure"),
    (["trace", "broken.py:f", "--at", "2"], "broken.py:f cannot be loaded"),
])  # fmt: skip
def test_wrong_command_lines(words, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "model.py").write_text(FUNCTION)
    (tmp_path / "broken.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    found = capsys.readouterr().err
    assert message in found and found.count("got: ") <= 1


def test_negative_numbers_in_any_spelling(tmp_path, monkeypatch, capsys):
    (tmp_path / "model.py").write_text(FUNCTION)
    monkeypatch.chdir(tmp_path)
    assert main(["trace", "model.py:f", "--at", "-1e-3", "-2", "--digits", "5"]) == 0
    assert "-0.001" in capsys.readouterr().out


def test_the_command_does_not_name_itself_as_the_place(tmp_path):
    (tmp_path / "model.py").write_text(FUNCTION)
    command = [sys.executable, "-m", "functrace", "trace", "model.py:f", "--at", "2", "3", "--tangents", "1"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 1 and "where" not in found.stderr
