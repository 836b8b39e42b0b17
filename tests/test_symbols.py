"""Functions outside emitted code: each address is tried out on numbers, the way emitted code calls it."""

import ctypes
import ctypes.util
import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.special

from functrace.backend import llvm, symbols
from functrace.backend.symbols import available, blas, blas_convention, resolve, special, ufunc_loop

LIBRARIES = {"numpy": symbols._numpy_linear, "scipy": symbols._scipy_linear}
DOUBLE, POINTER = ctypes.c_double, ctypes.c_void_p


# BLAS and LAPACK


@pytest.mark.parametrize("name", ["dgemm", "sgemm", "zgemm", "dgemv", "dtrsm", "dsyrk", "dpotrf", "dgetrf", "dgeqrf",
                                  "dgesdd", "dsyevd", "dgeev", "spotrf", "zpotrf", "ddot"])  # fmt: skip
def test_routines_have_addresses_and_widths(name):
    address, bits = blas(name)
    assert address > 0 and bits in (32, 64)
    assert resolve([f"blas:{name}"]) == [address] and available(f"blas:{name}")


@pytest.mark.parametrize("source", LIBRARIES)
def test_both_libraries_compute(source):
    library = LIBRARIES[source]()
    if library is None:
        pytest.skip(f"{source} gives no access to its BLAS here")
    assert library.bits == 32 or source == "numpy"
    rng = np.random.default_rng(3)
    a, b, c = rng.standard_normal((7, 5)), rng.standard_normal((5, 9)), np.empty((7, 9))
    multiply = symbols._routine(library.find("dgemm"), library.bits, 2)

    def buffer(x):
        return (DOUBLE * x.size).from_buffer(x)

    multiply(b"N", b"N", 9, 7, 5, 1.0, buffer(b), 9, buffer(a), 5, 0.0, buffer(c), 9)
    np.testing.assert_allclose(c, a @ b, rtol=1e-13)
    square = a.T @ a + np.eye(5)
    lower = square.copy()
    symbols._routine(library.find("dpotrf"), library.bits, 1)(b"U", 5, buffer(lower), 5, ctypes.c_int64(-1))
    np.testing.assert_allclose(np.tril(lower), np.linalg.cholesky(square), rtol=1e-12)


def test_a_missing_routine_is_named():
    assert not available("blas:dnonsense")
    with pytest.raises(KeyError, match="dnonsense"):
        blas("dnonsense")
    with pytest.raises(KeyError, match="blas:dnonsense"):
        resolve(["blas:dgemm", "blas:dnonsense"])


def test_scipy_serves_where_numpy_does_not(monkeypatch):
    monkeypatch.setattr(symbols, "_numpy_linear", lambda: None)
    assert blas("dgemm")[1] == 32 and blas_convention() == "SciPy's, 32-bit integers"
    monkeypatch.setattr(symbols, "_scipy_linear", lambda: None)
    assert blas_convention() == "none"
    with pytest.raises(KeyError):
        blas("dgemm")


def dot_of(integer, result=None):
    """`ddot` with integers of that type, or one that gives a fixed result."""

    def dot(n, x, incx, y, incy):
        if result is not None:
            return result
        count, steps = integer.from_address(n).value, (integer.from_address(k).value for k in (incx, incy))
        p, q = next(steps), next(steps)
        at = [
            (DOUBLE.from_address(x + 8 * k * p).value, DOUBLE.from_address(y + 8 * k * q).value) for k in range(count)
        ]
        return float(sum(u * v for u, v in at))

    return ctypes.CFUNCTYPE(DOUBLE, *[POINTER] * 5)(dot)


@pytest.mark.parametrize(
    ("dot", "bits"),
    [
        (dot_of(ctypes.c_int64), 64),
        (dot_of(ctypes.c_int32), 32),
        (dot_of(ctypes.c_int32, 0.0), None),
        (dot_of(ctypes.c_int32, 27.0), None),
    ],
    ids=["64", "32", "zero", "wrong"],
)
def test_the_width_of_integers_is_measured(dot, bits):
    assert symbols._integer_bits(ctypes.cast(dot, POINTER).value) == bits


def test_a_library_that_computes_nonsense_is_refused():
    library = symbols._numpy_linear() or symbols._scipy_linear()
    nothing = ctypes.CFUNCTYPE(None, *[POINTER] * 15)(lambda *arguments: None)
    idle = ctypes.cast(nothing, POINTER).value
    assert symbols._tried_out(library.find) == library.bits
    for broken in ("dgemm", "dpotrf"):
        assert symbols._tried_out(lambda name, broken=broken: idle if name == broken else library.find(name)) is None
        assert symbols._tried_out(lambda name, broken=broken: None if name == broken else library.find(name)) is None


def test_scipy_stays_unloaded_where_numpy_serves():
    code = """
import sys
from functrace.backend import symbols
symbols.blas("dgemm"), symbols.blas("dgesdd"), symbols.available("python:Py_IncRef"), symbols.available("vmath:x")
print(symbols._numpy_linear() is None or not any(name.startswith("scipy") for name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "True"


# Special functions

ONE = ["gammaln", "digamma", "gamma", "j0", "j1", "y0", "y1", "i0", "i1", "i0e", "i1e", "k0", "k1", "erf", "erfc",
       "erfcx", "erfinv", "erfcinv", "ndtr", "ndtri", "log_ndtr", "expit", "log_expit", "logit", "exp1", "expi",
       "spence", "entr", "loggamma", "gammasgn"]  # fmt: skip
TWO = ["betaln", "beta", "binom", "poch", "gammainc", "gammaincc", "xlogy", "xlog1py", "rel_entr", "kl_div", "jv", "yv",
       "iv", "kv", "ive"]  # fmt: skip
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-300, 1e300, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("name", ONE + TWO)
def test_special_functions_are_scipys(name):
    address, arity = special(name)
    assert arity == (1 if name in ONE else 2)
    assert resolve([f"special:{name}"]) == [address] and available(f"special:{name}")
    rng = np.random.default_rng(4)
    drawn = [np.concatenate([rng.uniform(0, 1, 40), rng.uniform(-20, 20, 80), SPECIAL]) for _ in range(arity)]
    call = ctypes.CFUNCTYPE(DOUBLE, *[DOUBLE] * arity, ctypes.c_int)(address)
    result = np.array([call(*row, 0) for row in zip(*drawn, strict=True)])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(result, getattr(scipy.special, name)(*drawn))


def test_functions_of_other_signatures_are_refused():
    assert special("betainc")[1] == 3
    for name in ("bdtrik_no_such", "wofz", "airy", "eval_hermite", "__pyx_fuse_0psi", "exp"):
        assert not available(f"special:{name}"), name
        with pytest.raises(KeyError):
            special(name)


# Inner loops of ufuncs


def loops():
    for module, prefix in ((np, "numpy"), (scipy.special, "scipy.special")):
        for name in sorted(vars(module)):
            ufunc = getattr(module, name)
            if isinstance(ufunc, np.ufunc) and (prefix == "numpy" or name in ONE + TWO + ["betainc", "sici", "expn"]):
                for types in ufunc.types:
                    if not set(types) & set("OmMUSTV"):
                        yield f"{prefix}.{name}", ufunc, types


def drawn_numbers(letter, rng):
    dtype = np.dtype(letter)
    with np.errstate(all="ignore"):
        if dtype.kind in "iu":
            return rng.integers(0, 7, 40).astype(dtype)
        if dtype.kind == "c":
            return (rng.uniform(-3, 3, 40) + 1j * rng.uniform(-3, 3, 40)).astype(dtype)
        return rng.uniform(-3, 3, 40).astype(dtype) if dtype.kind == "f" else rng.integers(0, 2, 40).astype(dtype)


def called(name, types, operands):
    """The results of a loop, called as emitted code calls it."""
    inputs, outputs = types.split("->")
    results = [np.zeros(operands[0].shape, letter) for letter in outputs]
    arrays = [*operands, *results]
    pointers = (POINTER * len(arrays))(*(array.ctypes.data for array in arrays))
    strides = (ctypes.c_int64 * len(arrays))(*(array.itemsize for array in arrays))
    count = ctypes.c_int64(operands[0].size)
    loop, data = ufunc_loop(name, types)
    assert len(inputs) == len(operands)
    call = ctypes.CFUNCTYPE(None, *[POINTER] * 4)(loop)
    call(ctypes.addressof(pointers), ctypes.addressof(count), ctypes.addressof(strides), data)
    return results


def test_loops_do_what_their_ufuncs_do():
    rng = np.random.default_rng(5)
    seen = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, ufunc, types in loops():
            operands = [drawn_numbers(letter, rng) for letter in types.split("->")[0]]
            try:
                expected = ufunc(*operands, signature=types)
            except (TypeError, ValueError):  # matrix products and their like
                continue
            if np.shape(expected if ufunc.nout == 1 else expected[0]) != operands[0].shape:
                continue
            results = called(name, types, operands)
            for result, right in zip(results, expected if ufunc.nout > 1 else [expected], strict=True):
                if types[-1] in "fd" and name.startswith("numpy."):
                    np.testing.assert_array_almost_equal_nulp(*np.nan_to_num([result, right]), nulp=8)
                else:
                    np.testing.assert_array_equal(result, right, err_msg=f"{name} {types}")
            seen += 1
    assert seen > 700


def test_loops_of_functions_that_scipy_wraps():
    x, q = np.linspace(1.5, 9.0, 20), np.linspace(0.5, 3.0, 20)
    np.testing.assert_array_equal(called("scipy.special._zeta", "dd->d", [x, q])[0], scipy.special.zeta(x, q))
    np.testing.assert_array_equal(called("scipy.special._riemann_zeta", "d->d", [x])[0], scipy.special.zeta(x))


def test_loops_are_resolved_by_name():
    loop, data = ufunc_loop("scipy.special.jv", "dd->d")
    assert resolve(["ufunc:scipy.special.jv:dd->d", "ufuncdata:scipy.special.jv:dd->d"]) == [loop, data]
    assert loop and data
    for name in ("ufunc:numpy.exp", "ufunc:numpy.exp:q->x", "ufunc:numpy.exp:O->O", "ufunc:numpy.array:d->d",
                 "ufunc:os.system:d->d", "ufunc:exp:d->d", "ufunc:numpy.no_such:d->d", "ufunc:scipy.special.zeta:dd->d",
                 "ufunc:numpy.linalg.det:d->d", "ufunc:numpy.strings.isalpha:d->d"):  # fmt: skip
        assert not available(name), name


@pytest.mark.parametrize("field", symbols._FIELDS)
def test_a_field_elsewhere_is_noticed(field, monkeypatch):
    """Pointers are read only where the numbers and types are as they should be."""
    if field in ("functions", "data"):
        pytest.skip("lies between the others, which are checked")
    monkeypatch.setitem(symbols._FIELDS, field, 72)
    monkeypatch.setattr(symbols, "_ufunc_loops", symbols._ufunc_loops.__wrapped__)
    if field == "types":
        monkeypatch.setitem(symbols._FIELDS, field, 56)  # the name
    with pytest.raises(KeyError):
        ufunc_loop("numpy.exp", "d->d")


# The rest


def test_the_interpreters_functions():
    names = ["PyObject_CallOneArg", "PyLong_FromVoidPtr", "Py_DecRef", "Py_IncRef", "PyErr_Occurred",
             "PyGILState_Ensure", "PyErr_SetString", "PyExc_ValueError"]  # fmt: skip
    found = resolve([f"python:{name}" for name in names])
    assert all(found)
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p)(found[1])
    assert make(12345) == 12345
    for name in ("PyNo_Such", "malloc", "Py Dec", ""):
        assert not available(f"python:{name}")


@pytest.mark.skipif(sys.platform == "win32", reason="the C library has another name there")
def test_the_c_librarys_functions():
    call = ctypes.CFUNCTYPE(DOUBLE, DOUBLE, DOUBLE)(resolve(["c:fmod"])[0])
    assert call(7.5, 2.0) == 1.5
    assert all(available(f"c:pthread_{name}") for name in ("mutex_lock", "cond_wait", "create"))
    assert not available("c:no_such_function_here")


def test_unknown_kinds_are_refused():
    for name in ("", "dgemm", "fortran:dgemm", "vmath:ft_exp_f16", ":", "vmath:"):
        assert not available(name)
        with pytest.raises(KeyError, match=f"^'{name}'$"):
            resolve([name])


def test_emitted_code_reaches_all_of_them_through_a_table():
    names = [
        "special:gammaln",
        "vmath:ft_tanh_f64_scalar",
        "ufunc:numpy.exp:D->D",
        "ufuncdata:numpy.exp:D->D",
        "blas:ddot",
    ]
    bits = blas("ddot")[1]
    text = f"""
define double @program(ptr %table, ptr %numbers) {{
  %gammaln = load ptr, ptr %table
  %tanh_at = getelementptr ptr, ptr %table, i64 1
  %tanh = load ptr, ptr %tanh_at
  %loop_at = getelementptr ptr, ptr %table, i64 2
  %loop = load ptr, ptr %loop_at
  %data_at = getelementptr ptr, ptr %table, i64 3
  %data = load ptr, ptr %data_at
  %dot_at = getelementptr ptr, ptr %table, i64 4
  %dot = load ptr, ptr %dot_at

  %x = load double, ptr %numbers
  %a = call double %gammaln(double %x, i32 0)
  %b = call double %tanh(double %a)
  store double %b, ptr %numbers

  %pointers = alloca [2 x ptr]
  store ptr %numbers, ptr %pointers
  %second = getelementptr ptr, ptr %pointers, i64 1
  store ptr %numbers, ptr %second
  %count = alloca i64
  store i64 1, ptr %count
  %strides = alloca [2 x i64]
  store [2 x i64] [i64 16, i64 16], ptr %strides
  call void %loop(ptr %pointers, ptr %count, ptr %strides, ptr %data)

  %two = alloca i{bits}
  store i{bits} 2, ptr %two
  %one = alloca i{bits}
  store i{bits} 1, ptr %one
  %result = call double %dot(ptr %two, ptr %numbers, ptr %one, ptr %numbers, ptr %one)
  ret double %result
}}"""
    target = llvm.target()
    code = llvm.load(llvm.compile_ir(text, target), target)
    table = (ctypes.c_uint64 * len(names))(*resolve(names))
    numbers = np.array([5.5, 0.25])
    program = ctypes.CFUNCTYPE(DOUBLE, POINTER, POINTER)(code.address("program"))
    result = program(ctypes.addressof(table), numbers.ctypes.data)
    expected = np.exp(np.tanh(scipy.special.gammaln(5.5)) + 0.25j)
    np.testing.assert_allclose(result, expected.real**2 + expected.imag**2, rtol=1e-15)
    np.testing.assert_allclose(numbers, [expected.real, expected.imag], rtol=1e-15)
