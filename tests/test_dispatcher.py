"""The dispatcher, in both implementations: what reaches the kernel; results, errors, leaks, threads."""

import copy
import ctypes
import gc
import pickle
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from functrace.backend import dispatcher as module
from functrace.backend.dispatcher import make_dispatcher, native_refusal
from functrace.backend.signatures import Argument, Output, Signature
from functrace.errors import ArgumentError, DTypeError
from tests.dispatch_kernels import copying, load, output_like

ROOT = Path(__file__).parents[1]
VECTOR = Argument.array(np.float64, (3,))
DTYPES = [*"?bhilBHILefdFD"]


def fallback(*args, **kwargs):
    return "fallback", args, kwargs


@pytest.fixture(params=["native", "portable"])
def make(request):
    """`make(signature, sources, ...)`: a dispatcher whose k-th output is a copy of argument `sources[k]`."""
    portable = request.param == "portable"
    if not portable and (reason := native_refusal()):
        pytest.skip(reason)

    def make(signature, sources=(0,), *, status=0, fallback=fallback):
        code = load([copying("kernel", signature, sources, status)])
        return make_dispatcher(signature, code.address("kernel"), fallback, keep=code, portable=portable)

    make.portable = portable
    return make


def copier(make, *values, scalar=False, **options):
    """A dispatcher that takes arguments like `values` and gives copies of all of them."""
    arguments = tuple(Argument.of(value) for value in values)
    outputs = tuple(output_like(argument, scalar) for argument in arguments)
    return make(Signature(arguments, outputs, **options), range(len(values)))


def assert_same(result, expected):
    assert type(result) is type(expected)
    assert result.dtype == expected.dtype and result.shape == expected.shape
    assert result.tobytes() == expected.tobytes()


def test_native_dispatcher_is_used_on_the_platforms_it_was_made_for():
    if sys.platform == "linux" and sys.implementation.name == "cpython" and sys.version_info < (3, 14):
        assert native_refusal() is None or "free-threaded" in native_refusal()


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3), (1, 1, 1, 2), (1,) * 32])
@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_every_dtype_and_shape(make, dtype, shape, rng):
    value = (rng.normal(size=shape) * 10).astype(dtype)
    value = np.asarray(value)
    result = copier(make, value)(value)
    assert_same(result, value)
    assert result.flags.owndata and result.flags.writeable and result.flags.c_contiguous
    assert not np.shares_memory(result, value)


@pytest.mark.parametrize("dtype", DTYPES)
def test_scalars_of_every_dtype(make, dtype):
    value = np.dtype(dtype).type(1.5)
    assert_same(copier(make, value, scalar=True)(value), value)


@pytest.mark.parametrize("value", [True, False, 0, -1, 2**63 - 1, -(2**63), 1.5, float("nan"), -0.0, 1 - 2j])
def test_python_numbers(make, value):
    assert_same(copier(make, value, scalar=True)(value), np.array(value)[()])
    assert_same(copier(make, value)(value), np.array(value))


def test_arguments_of_all_kinds_at_once(make):
    values = [np.arange(3.0), 2.5, 7, True, np.float32(1.5), np.arange(6, dtype=np.int32).reshape(2, 3), 1j]
    results = copier(make, *values, scalar=True)(*values)
    assert type(results) is tuple
    for result, value in zip(results, values, strict=True):
        assert_same(result, value if isinstance(value, np.ndarray) else np.asarray(value)[()])


@pytest.mark.parametrize("count", [0, 1, 2, 40])
@pytest.mark.parametrize("as_tuple", [False, True])
def test_results_come_as_one_or_as_a_tuple(make, count, as_tuple):
    x = np.arange(3.0)
    outputs = (Output.array(np.float64, (3,)),) * count
    result = make(Signature((VECTOR,), outputs, as_tuple), (0,) * count)(x)
    if count == 1 and not as_tuple:
        assert_same(result, x)
    else:
        assert type(result) is tuple and len(result) == count
        assert all(np.array_equal(one, x) for one in result)


def test_no_arguments(make):
    assert make(Signature((), ()), ())() == ()


class Subclass(np.ndarray):
    pass


class Float(float):
    pass


def misaligned():
    raw = np.zeros(3 * 8 + 1, np.uint8)
    return raw[1:].view(np.float64)


REFUSED = {
    "float32": np.zeros(3, np.float32),
    "same size, other kind": np.zeros(3, np.int64),
    "swapped bytes": np.zeros(3, np.dtype("f8").newbyteorder()),
    "strided": np.zeros(6)[::2],
    "reversed": np.zeros(3)[::-1],
    "broadcast": np.broadcast_to(1.0, (3,)),
    "misaligned": misaligned(),
    "subclass": np.zeros(3).view(Subclass),
    "masked": np.ma.zeros(3),
    "matrix": np.zeros((1, 3)),
    "longer": np.zeros(4),
    "empty": np.zeros(0),
    "0-d": np.array(1.0),
    "huge": np.broadcast_to(1.0, (2**40,)),
    "record": np.zeros(3, [("a", float)]),
    "object": np.array([1.0, 2.0, 3.0], object),
    "longdouble": np.zeros(3, np.longdouble),
    "datetime": np.zeros(3, "M8[s]"),
    "text": np.array(["a", "b", "c"]),
    "list": [1.0, 2.0, 3.0],
    "bytes": bytes(24),
    "None": None,
    "type": np.ndarray,
    "float": 1.0,
    "scalar": np.float64(1.0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_goes_to_the_fallback(make, name):
    value = REFUSED[name]
    where, args, kwargs = copier(make, np.zeros(3))(value)
    assert where == "fallback" and len(args) == 1 and args[0] is value and kwargs == {}


@pytest.mark.parametrize(
    ("like", "value"),
    [
        *((1, 2**63), (1, -(2**63) - 1), (1, 10**400), (1, True), (1, 1.0), (1, np.int64(1))),
        *((True, 1), (True, np.True_), (1.0, Float(1.0)), (1.0, 1), (1.0, np.float64(1.0))),
        *((np.float64(1.0), 1.0), (np.float64(1.0), np.float32(1.0))),
    ],
)
def test_numbers_of_another_type_go_to_the_fallback(make, like, value):
    assert copier(make, like)(value)[1][0] is value


def test_matrices_in_column_order_go_to_the_fallback(make):
    x = np.arange(6.0).reshape(2, 3)
    assert copier(make, x)(np.asfortranarray(x))[0] == "fallback"
    assert copier(make, x.T.copy())(x.T)[0] == "fallback"


def test_wrong_counts_and_keywords_go_to_the_fallback(make):
    x = np.zeros(3)
    dispatch = copier(make, x, x)
    assert dispatch()[1] == ()
    assert len(dispatch(x)[1]) == 1
    assert len(dispatch(x, x, x)[1]) == 3
    where, args, kwargs = dispatch(x, y=x)
    assert where == "fallback" and args[0] is x and kwargs == {"y": x}
    assert dispatch(x, x, **{})[0] is not x


def test_what_only_looks_unusual_is_served(make, tmp_path):
    x = np.arange(3.0)
    locked = x.copy()
    locked.flags.writeable = False
    mapped = np.memmap(tmp_path / "x", np.float64, "w+", shape=(3,))
    plain_mapped = np.asarray(mapped)
    base = np.arange(10.0)
    dispatch = copier(make, x)
    for value in (locked, plain_mapped, base[2:5], pickle.loads(pickle.dumps(x)), x.astype("<f8"), np.zeros((3, 3))[1]):
        assert_same(dispatch(value), np.array(value))
    assert dispatch(mapped)[0] == "fallback"  # a subclass
    overlapping = copier(make, base[:3], base[1:4])
    first, second = overlapping(base[:3], base[1:4])
    assert first.tolist() == [0, 1, 2] and second.tolist() == [1, 2, 3]


def test_dtype_copies_match_and_metadata_does_not_spread(make):
    copied = np.dtype("f8", copy=True)
    noted = np.dtype("f8", metadata={"unit": "m"})
    dispatch = copier(make, np.zeros(3))
    for dtype in (copied, noted):
        result = dispatch(np.zeros(3, dtype))
        assert type(result) is np.ndarray and result.dtype.metadata is None
    assert Output.array(noted, (3,)).dtype.metadata is None


def test_newer_signatures_come_first_and_older_ones_stay(make):
    dispatch = copier(make, np.zeros(3))
    for n in range(4, 10):
        argument = Argument.array(np.float64, (n,))
        signature = Signature((argument,), (output_like(argument, False),))
        code = load([copying("kernel", signature, (0,))])
        dispatch.add_signature(signature, code.address("kernel"), code)
    for n in range(3, 10):
        assert dispatch(np.arange(float(n))).tolist() == list(range(n))
    assert dispatch(np.zeros(10))[0] == "fallback"
    replaced = Signature((VECTOR,), (), workspace=8)
    code = load([copying("kernel", replaced, ())])
    dispatch.add_signature(replaced, code.address("kernel"), code)
    assert dispatch(np.zeros(3)) == ()


def test_the_fallback_may_be_another_dispatcher(make):
    inner = copier(make, 1.0)
    outer = make(Signature((VECTOR,), (Output.array(np.float64, (3,)),)), fallback=inner)
    assert outer(2.0) == 2.0 and outer(np.zeros(3)).shape == (3,) and outer("x")[0] == "fallback"


@pytest.mark.parametrize("size", [1, 64, 4096, 4097, 1 << 20])
@pytest.mark.parametrize("release_gil", [False, True])
def test_workspace_is_there_and_aligned(make, size, release_gil):
    x = np.arange(3.0)
    dispatch = copier(make, x, workspace=size, release_gil=release_gil)
    for _ in range(20):
        assert_same(dispatch(x), x)


def test_more_values_than_fit_the_stack(make):
    values = [float(k) for k in range(3000)]
    results = copier(make, *values, scalar=True)(*values)
    assert list(results) == values


def test_a_kernel_that_refuses_leaves_the_call_to_the_fallback(make):
    x = np.zeros(3)
    refusing = make(Signature((VECTOR,), (Output.array(np.float64, (3,)),) * 2), (0, 0), status=5)
    assert refusing(x)[1][0] is x


@pytest.mark.parametrize("release_gil", [False, True])
def test_a_kernel_that_raises(make, release_gil):
    names = ("PyErr_SetString", "PyGILState_Ensure", "PyGILState_Release")
    target, ensure, leave = (ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value for name in names)
    text = f"""@text = private constant [4 x i8] c"why\\00"
define i64 @kernel(ptr %pointers) {{
  %ensure = inttoptr i64 {ensure} to ptr
  %leave = inttoptr i64 {leave} to ptr
  %set = inttoptr i64 {target} to ptr
  %type = inttoptr i64 {id(KeyError)} to ptr
  %state = call i32 %ensure()
  call void %set(ptr %type, ptr @text)
  call void %leave(i32 %state)
  ret i64 1
}}
"""
    code = load([text])
    signature = Signature((VECTOR,), (Output.array(np.float64, (3,)),), release_gil=release_gil)
    dispatch = make_dispatcher(signature, code.address("kernel"), fallback, keep=code, portable=make.portable)
    for _ in range(100):
        with pytest.raises(KeyError, match="why"):
            dispatch(np.zeros(3))


def test_a_fallback_that_raises(make):
    def failing(*args):
        raise LookupError(len(args))

    dispatch = make(Signature((VECTOR,), (Output.array(np.float64, (3,)),)), fallback=failing)
    for _ in range(100):
        with pytest.raises(LookupError, match="2"):
            dispatch(1, 2)
    assert_same(dispatch(np.zeros(3)), np.zeros(3))


def test_a_fallback_that_calls_back_without_end(make):
    dispatch = make(Signature((), ()), (), fallback=lambda *args: dispatch(*args))
    with pytest.raises(RecursionError):
        dispatch(1)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_no_memory_for_an_output(make, position):
    """Outputs made before the one that fails are dropped."""
    outputs = [Output.array(np.float64, (3,))] * 3
    outputs[position] = Output.array(np.uint8, (2**62,))
    signature = Signature((VECTOR,), tuple(outputs))
    dispatch = make_dispatcher(signature, 0, fallback, portable=make.portable)  # the kernel is never called
    x = np.zeros(3)
    for _ in range(50):
        with pytest.raises(MemoryError):
            dispatch(x)
    assert sys.getrefcount(x) == 2


def test_no_memory_for_the_workspace(make):
    signature = Signature((VECTOR,), (Output.array(np.float64, (3,)),), workspace=2**61)
    dispatch = make_dispatcher(signature, 0, fallback, portable=make.portable)
    with pytest.raises(MemoryError):
        dispatch(np.zeros(3))


def test_an_output_too_large_to_exist(make):
    signature = Signature((VECTOR,), (Output.array(np.float64, (2**62, 2**62)),))
    dispatch = make_dispatcher(signature, 0, fallback, portable=make.portable)
    with pytest.raises(ValueError, match=r"too big|too large"):
        dispatch(np.zeros(3))


def test_nothing_leaks(make):
    values = [np.arange(3.0), 2.5, 10**6, True, np.float64(0.5), np.arange(4, dtype=np.int8)]
    dispatch = copier(make, *values, scalar=True, as_tuple=True)
    refusing = make(Signature((VECTOR,), (Output.array(np.float64, (3,)),)), status=1)
    watched = [*values, dispatch, refusing, fallback, np.dtype("f8"), np.dtype("i1"), np.ndarray]
    watched += [getattr(one, "_head", one) for one in (dispatch, refusing)]

    def calls(count):
        for _ in range(count):
            dispatch(*values)
            dispatch(*values[1:])
            dispatch(*values, key=1)
            refusing(values[0])

    def counts():
        return [sys.getrefcount(value) for value in watched]

    calls(10)
    before, blocks = counts(), sys.getallocatedblocks()
    calls(2000)
    assert counts() == before
    assert sys.getallocatedblocks() - blocks < 200


def test_outputs_are_freed(make):
    x = np.arange(3.0)
    result = copier(make, x)(x)
    assert sys.getrefcount(result) == 2
    alive = weakref.ref(result)
    del result
    assert alive() is None


def test_a_dispatcher_in_a_circle_is_collected(make):
    class Owner:
        def call(self, *args):
            return "owner"

    owner = Owner()
    owner.dispatch = make(Signature((VECTOR,), (Output.array(np.float64, (3,)),)), fallback=owner.call)
    assert owner.dispatch(1) == "owner"
    alive, code = weakref.ref(owner), weakref.ref(owner.dispatch)
    del owner
    gc.collect()
    assert alive() is None and code() is None


def test_a_dispatcher_can_be_neither_pickled_nor_copied(make):
    dispatch = make(Signature((), ()), ())
    for act in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="addresses of machine code"):
            act(dispatch)


def test_the_bound_method_is_the_dispatcher(make):
    x = np.arange(3.0)
    dispatch = copier(make, x)
    call = dispatch.__call__
    del dispatch
    assert_same(call(x), x)
    assert call(1)[0] == "fallback"


def test_signatures_are_added_while_other_threads_call(make):
    """Every call finds either a kernel or the fallback, and the right result."""
    dispatch = make(Signature((VECTOR,), (Output.array(np.float64, (3,)),), workspace=5000, release_gil=True))
    arguments = [Argument.array(np.float64, (n,)) for n in range(4, 40)]
    signatures = [Signature((one,), (output_like(one, False),), release_gil=one.shape[0] % 2 == 0) for one in arguments]
    code = load(copying(f"kernel{k}", one, (0,)) for k, one in enumerate(signatures))
    faults, stop = [], threading.Event()

    def call(seed):
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            x = rng.normal(size=int(rng.integers(3, 45)))
            result = dispatch(x)
            if not (result[1][0] is x if type(result) is tuple else np.array_equal(result, x)):
                faults.append((x, result))

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for k, signature in enumerate(signatures * 3):
        k %= len(signatures)
        dispatch.add_signature(signature, code.address(f"kernel{k}"), code)
        stop.wait(0.002)
    stop.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert all(np.array_equal(dispatch(np.arange(float(n))), np.arange(n)) for n in range(3, 40))


def test_signatures_refuse_what_kernels_cannot_take():
    with pytest.raises(DTypeError, match="in the machine's byte order"):
        Argument.array(np.dtype("f8").newbyteorder(), (3,))
    for dtype in (object, "U3", "M8[s]", np.longdouble, [("a", float)]):
        with pytest.raises(DTypeError):
            Output.array(dtype, (3,))
    with pytest.raises(DTypeError):
        Argument.number(str)
    with pytest.raises(ArgumentError):
        Argument.array(float, (-1,))
    with pytest.raises(ArgumentError):
        Signature((), (), workspace=-1)


@pytest.mark.parametrize("name", REFUSED)
def test_descriptions_hold_of_their_values(name):
    value = REFUSED[name]
    argument = Argument.of(value)
    assert argument is None or argument.accepts(value)


# A doubt in the self-test must end in the portable dispatcher: each is planted in a new process.
DOUBTS = {
    "array data": "ir.FIELDS['array_data'] = 48",
    "array shape": "ir.FIELDS['array_shape'] = 40",
    "array flags": "ir.FIELDS['array_flags'] = 72",
    "number": "ir.FIELDS['number'] = 8",
    "dtype": "ir.FIELDS['descriptor_code'] = 32",
    "interpreter": "d.platform.python_implementation = lambda: 'PyPy'",
    "no GIL": "d.sys.abiflags = 't'",
    "platform": "d.sys.platform = 'win32'",
    "table": "d._array_functions = lambda: 1 / 0",
    "numpy": "d.np._core._multiarray_umath._ARRAY_API = None",
    "no compiler": "d.llvm.resident = None",
    "wrong results": "d.ECHO = d.TABLE_FUNCTION",
}


@pytest.mark.parametrize("name", DOUBTS)
def test_any_doubt_selects_the_portable_dispatcher(name):
    program = f"""
from functrace.backend import dispatch_ir as ir, dispatcher as d
{DOUBTS[name]}
assert d.native_refusal(), "not noticed"
made = d.make_dispatcher(d.Signature((), ()), 0, lambda *args: args)
assert not made.native and made(1) == (1,)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_the_classes_say_which_they_are():
    signature = Signature((), ())
    assert not make_dispatcher(signature, 0, print, portable=True).native
    assert make_dispatcher(signature, 0, print).native is (native_refusal() is None)
    assert issubclass(module.PortableDispatcher, module.Dispatcher)


def test_calls_while_the_interpreter_shuts_down():
    program = """
import os
import sys
import numpy as np
from functrace.backend.dispatcher import make_dispatcher
from functrace.backend.signatures import Argument, Output, Signature
from tests.dispatch_kernels import copying, load
signature = Signature((Argument.array(float, (3,)),), (Output.array(float, (3,)),))
code = load([copying("kernel", signature, (0,))])

class Last:
    def __init__(self):
        address = code.address("kernel")
        self.dispatch, self.x = make_dispatcher(signature, address, len, keep=code), np.arange(3.0)

    def __del__(self, write=os.write):  # print is gone by then
        write(1, f"{self.dispatch(self.x).tolist()} {self.dispatch([1, 2])}\\n".encode())

last, sys.last = Last(), Last()
circle = Last()
circle.circle = circle
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert done.stdout == "[0.0, 1.0, 2.0] 2\n" * 3


def test_a_thread_with_a_small_stack(make):
    """A thread with little stack of its own: the call's memory lies there."""
    values = [float(k) for k in range(490)]
    dispatch = copier(make, *values, scalar=True)
    results = []
    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=lambda: results.append(dispatch(*values)))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert list(results[0]) == values


def test_bench_runs():
    pytest.importorskip("numba")
    command = [sys.executable, "-m", "bench.dispatch", "--smoke"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "20 arrays in, one out" in done.stdout
