"""Addresses of functions outside emitted code, which reaches them only through a table of pointers.

Emitted code names no function but its own: it may lie on disk, and what it calls may stand elsewhere in each process.
So it holds names such as "blas:dgemm", and when it is loaded, `resolve` gives the addresses for its table. The kinds:

- "blas:dgemm": BLAS and LAPACK, those that NumPy itself uses, else SciPy's. Fortran's convention: all arguments by
  pointer, matrices by columns, integers of `blas(name)[1]` bits. After the last argument follows, by value, the length
  1 as a 64-bit integer for each CHARACTER argument; libraries written in C ignore it.
- "vmath:ft_exp_f64": entry points of the vector math (`vmath/module.py`).
- "special:gammaln": SciPy's special functions of doubles: `double gammaln(double, i32 0)`, with as many doubles as
  `special(name)[1]` says, and a last argument that is ignored.
- "ufunc:numpy.exp:D->D": the inner loop of a ufunc of NumPy or `scipy.special` for these types, `void loop(ptr args,
  ptr n, ptr strides, ptr data)`: pointers to the operands and results, how many, the strides in bytes, and what
  "ufuncdata:numpy.exp:D->D" gives. It computes what the ufunc does: bit for bit, but for transcendental functions of
  float32 and float64, for which NumPy has faster loops on some CPUs that differ in the last bits.
- "python:PyLong_FromVoidPtr": CPython's C functions, which need the GIL.
- "blasthreads:enter", "blasthreads:leave": between them the BLAS of NumPy uses one thread (`blas_threads.py`).
- "pool:run": runs a loop's body in several threads (`pool.py`); resolving it starts them.
- "c:pthread_mutex_lock": those of the C library.
"""

from __future__ import annotations

import ctypes
import functools
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from functrace.backend import blas_threads, llvm, pool
from functrace.backend.vmath import module as vmath

__all__ = ["available", "blas", "blas_convention", "lapack_workspaces", "resolve", "special", "ufunc_loop"]

_POINTER = ctypes.c_void_p


def resolve(names: Sequence[str], target: llvm.Target | None = None) -> list[int]:
    """The addresses of these functions in this process.

    Args:
        names: see the head of this module.
        target: the instruction set of the vector math, the host's best if not given.

    Returns:
        An address for each name.

    Raises:
        KeyError: there is no such function here; its argument is the name.
    """
    return [_resolved(name, target) for name in names]


def available(name: str) -> bool:
    """Whether `resolve` finds the function. No vector math is compiled and no thread started for that."""
    kind, _, rest = name.partition(":")
    if kind == "vmath":
        return rest in vmath.ENTRIES
    if kind == "pool":
        return rest == "run" and pool.possible()
    try:
        _resolved(name, None)
    except KeyError:
        return False
    return True


def _resolved(name: str, target: llvm.Target | None) -> int:
    if name == "pool:run":  # not remembered: in a forked child the workers are to be started again
        return pool.address()
    return _remembered(name, target)


@functools.cache
def _remembered(name: str, target: llvm.Target | None) -> int:
    kind, _, rest = name.partition(":")
    try:
        if kind == "vmath":
            return vmath.address(rest, target)
        return _KINDS[kind](rest)
    except KeyError:
        raise KeyError(name) from None


def _exported(library: Any, name: str) -> int | None:
    """Where a loaded library, or one that it depends on, has the function."""
    try:
        return ctypes.cast(getattr(library, name), _POINTER).value
    except AttributeError:
        return None


def _expected(address: int | None, name: str) -> int:
    if not address:
        raise KeyError(name)
    return address


# BLAS and LAPACK


class _Linear(NamedTuple):
    """A library of linear algebra that gave the right numbers.

    Args:
        find: the address of a routine, or None.
        bits: the width of its integers.
        origin: what it is.
        find_c: the address of a function that is no routine of Fortran, or None.
    """

    find: Callable[[str], int | None]
    bits: int
    origin: str
    find_c: Callable[[str], int | None]


def blas(name: str) -> tuple[int, int]:
    """Where a routine of BLAS or LAPACK is.

    Args:
        name: its lower-case name, with the letter of its type, such as "dgemm".

    Returns:
        The address, and the width in bits of the integers it takes.

    Raises:
        KeyError: no library here has it.
    """
    for source in _numpy_linear, _scipy_linear:  # SciPy's takes a tenth of a second to load
        library = source()
        address = library and library.find(name)
        if library and address:
            return address, library.bits
    raise KeyError(name)


def blas_convention() -> str:
    """What code that calls "blas:" depends on: it belongs to the key of such code on disk."""
    library = _numpy_linear() or _scipy_linear()
    return f"{library.origin}, {library.bits}-bit integers" if library else "none"


# How routines are called where NumPy's wheels bring OpenBLAS along; in other builds of OpenBLAS; in Apple's Accelerate;
# everywhere else.
_SPELLINGS = ("scipy_{}_64_", "{}_64_", "{}$NEWLAPACK$ILP64", "scipy_{}_", "{}$NEWLAPACK", "{}_")


@functools.cache
def _numpy_linear() -> _Linear | None:
    """What NumPy multiplies matrices with."""
    for module in np._core._multiarray_umath, np.linalg._umath_linalg:  # type: ignore[attr-defined]
        try:
            library = ctypes.CDLL(module.__file__)
        except (OSError, AttributeError, TypeError):
            continue
        for spelling in _SPELLINGS:
            find = functools.partial(_spelled, library, spelling)
            bits = _tried_out(find)
            if bits:
                find_c = functools.partial(_spelled, library, spelling.replace("{}_", "{}"))
                return _Linear(find, bits, f"NumPy's {spelling}", find_c)
    return None


def _spelled(library: Any, spelling: str, name: str) -> int | None:
    return _exported(library, spelling.format(name))


@functools.cache
def _scipy_linear() -> _Linear | None:
    try:
        from scipy.linalg import cython_blas, cython_lapack
    except ImportError:
        return None

    def find(name: str) -> int | None:
        for module in cython_blas, cython_lapack:
            capsule = module.__pyx_capi__.get(name)
            if capsule is not None:
                return _capsule(capsule)[0]
        return None

    bits = _tried_out(find)
    return _Linear(find, bits, "SciPy's", lambda name: None) if bits else None


def _tried_out(find: Callable[[str], int | None]) -> int | None:
    """The width of a library's integers, if the library computes what it should."""
    dot, multiply, factor = find("ddot"), find("dgemm"), find("dpotrf")
    if not (dot and multiply and factor):
        return None
    bits = _integer_bits(dot)
    return bits if bits and _multiplies(multiply, bits) and _factors(factor, bits) else None


def _integer_bits(dot: int) -> int | None:
    """How wide the integers are that `ddot` reads.

    The count 2 - 2**32 is 2 in the lower 32 bits; in 64 bits it is negative, where the result is 0 without further ado.
    """
    call = ctypes.CFUNCTYPE(ctypes.c_double, *[_POINTER] * 5)(dot)
    x, y, one = (ctypes.c_double * 2)(1, 3), (ctypes.c_double * 2)(5, 7), ctypes.c_int64(1)

    def product(count: int) -> float:
        arguments = (ctypes.c_int64(count), x, one, y, one)
        return call(*(ctypes.addressof(argument) for argument in arguments))

    if sys.byteorder != "little":
        return None
    return {(26.0, 26.0): 32, (0.0, 26.0): 64}.get((product(2 - 2**32), product(2)))


def _routine(address: int, bits: int, letters: int) -> Callable[..., None]:
    """Calls a routine from Python, with that many letters first: matrices as ctypes arrays, integers, floats."""

    def argument(value: Any) -> Any:
        if isinstance(value, int):
            return ctypes.c_int64(value) if bits == 64 else ctypes.c_int32(value)
        if isinstance(value, float):
            return ctypes.c_double(value)
        return ctypes.create_string_buffer(value) if isinstance(value, bytes) else value

    def call(*values: Any) -> None:
        held = [argument(value) for value in values]
        types = [*[_POINTER] * len(held), *[ctypes.c_size_t] * letters]
        ctypes.CFUNCTYPE(None, *types)(address)(*map(ctypes.addressof, held), *[1] * letters)

    return call


def _multiplies(multiply: int, bits: int) -> bool:
    """C := 2 A' B - C, by columns."""
    a, b = (ctypes.c_double * 4)(1, 2, 3, 4), (ctypes.c_double * 6)(5, 6, 7, 8, 9, 10)
    c = (ctypes.c_double * 6)(1, 2, 3, 4, 5, 6)
    _routine(multiply, bits, 2)(b"T", b"N", 2, 3, 2, 2.0, a, 2, b, 2, -1.0, c, 2)
    return list(c) == [33.0, 76.0, 43.0, 102.0, 53.0, 128.0]


def _factors(factor: int, bits: int) -> bool:
    """The Cholesky factor of [[4, 2], [2, 5]]."""
    a = (ctypes.c_double * 4)(4, 2, 2, 5)
    status = ctypes.c_int64(-7 << 32 | 7)
    _routine(factor, bits, 1)(b"L", 2, a, 2, status)
    info = status.value if bits == 64 else ctypes.c_int32.from_buffer(status).value
    return info == 0 and [a[0], a[1], a[3]] == [2.0, 1.0, 2.0]


@functools.cache
def lapack_workspaces(name: str, *arguments: Any) -> list[int]:
    """The lengths of workspaces that a routine of LAPACK asks for.

    Args:
        name: of the routine.
        arguments: letters, integers (the lengths of workspaces: -1), dtypes for workspaces, None for other arrays.

    Returns:
        As many as there are dtypes.

    Raises:
        KeyError: there is no such routine.
    """
    address, bits = blas(name)
    held = [np.zeros(2, f"i{bits // 8}" if a == "int64" else a) if isinstance(a, np.dtype) else a for a in arguments]
    values = [
        ctypes.create_string_buffer(64) if a is None
        else a.encode() if isinstance(a, str)
        else (ctypes.c_char * a.nbytes).from_buffer(a.data) if isinstance(a, np.ndarray)
        else a
        for a in held
    ]  # fmt: skip
    _routine(address, bits, sum(isinstance(a, str) for a in arguments))(*values)
    return [max(int(a[0].real), 1) for a in held if isinstance(a, np.ndarray)]


def _blas_threads(name: str) -> int:
    library = _numpy_linear()
    if library is None or name not in ("enter", "leave"):
        raise KeyError(name)
    get, change = (library.find_c(f"openblas_{kind}_num_threads") for kind in ("get", "set"))
    pause = _exported(_c_library(), "sched_yield")
    return blas_threads.functions(*(_expected(a, name) for a in (get, change, pause)))[name == "leave"]


# Special functions

_OTHER_NAMES = {"digamma": "psi"}
_SIGNATURE = re.compile(r"double \(((?:double, )+)int __pyx_skip_dispatch\)")


def special(name: str) -> tuple[int, int]:
    """Where SciPy has a special function of doubles.

    Args:
        name: as in `scipy.special`.

    Returns:
        The address of `double function(double, ..., int)`, and the number of doubles.

    Raises:
        KeyError: there is none.
    """
    return _special_functions()[_OTHER_NAMES.get(name, name)]


@functools.cache
def _special_functions() -> dict[str, tuple[int, int]]:
    try:
        from scipy.special import cython_special
    except ImportError:
        return {}
    found = {}
    for name, capsule in cython_special.__pyx_capi__.items():
        address, signature = _capsule(capsule)
        match = _SIGNATURE.fullmatch(signature)
        if address and match:
            # Of a function for several types the name has the number of the type before it.
            found[re.sub(r"^__pyx_fuse_[0-9_]*", "", name)] = address, match[1].count("double")
    return found


def _capsule(capsule: Any) -> tuple[int | None, str]:
    """A capsule's pointer and name; Cython writes the signature there."""
    name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))(capsule)
    pointer = ctypes.PYFUNCTYPE(_POINTER, ctypes.py_object, ctypes.c_char_p)
    return pointer(("PyCapsule_GetPointer", ctypes.pythonapi))(capsule, name), (name or b"").decode("latin-1")


# Inner loops of ufuncs

# Where a PyUFuncObject has its fields, in a 64-bit build with the GIL; compared with what Python says.
_FIELDS = {"nin": 16, "nout": 20, "nargs": 24, "functions": 32, "data": 40, "ntypes": 48, "types": 64}


def ufunc_loop(name: str, types: str) -> tuple[int, int]:
    """The inner loop of a ufunc.

    Args:
        name: "numpy." or "scipy.special." and its name; with an underscore first those that SciPy wraps in Python, such
            as "scipy.special._zeta".
        types: such as "dd->d", letters of `numpy.dtype.char`, as `ufunc.types` lists them.

    Returns:
        The loop's address, and the address that it wants as its last argument, which may be 0.

    Raises:
        KeyError: there is none.
    """
    loop = _ufunc_loops(name).get(types)
    if loop is None:
        raise KeyError(name)
    return loop


@functools.cache
def _ufunc_loops(name: str) -> dict[str, tuple[int, int]]:
    module, _, own = name.rpartition(".")
    if module == "scipy.special":
        import scipy.special

        ufunc = getattr(scipy.special._ufuncs if own.startswith("_") else scipy.special, own, None)
    else:
        ufunc = getattr(np, own, None) if module == "numpy" else None
    if not isinstance(ufunc, np.ufunc):
        return {}

    def word(place: int) -> int:
        return ctypes.c_uint64.from_address(place).value

    def small(field: str) -> int:
        return ctypes.c_int.from_address(id(ufunc) + _FIELDS[field]).value

    counts = ("nin", "nout", "nargs", "ntypes")
    if not _head_is_plain() or any(small(field) != getattr(ufunc, field) for field in counts):
        return {}
    letters = ctypes.string_at(word(id(ufunc) + _FIELDS["types"]), ufunc.ntypes * ufunc.nargs)
    functions, data = (word(id(ufunc) + _FIELDS[field]) for field in ("functions", "data"))
    loops = {}
    for k, types in enumerate(ufunc.types):
        numbers = [np.dtype(letter).num for letter in types.replace("->", "")]
        if list(letters[k * ufunc.nargs : (k + 1) * ufunc.nargs]) != numbers:
            return {}
        function = word(functions + 8 * k)
        if function and "O" not in types:
            loops[types] = function, word(data + 8 * k) if data else 0
    return loops


@functools.cache
def _head_is_plain() -> bool:
    """Whether objects begin with a count and a type and nothing else."""
    return object.__basicsize__ == 16 and ctypes.c_uint64.from_address(id(np.add) + 8).value == id(np.ufunc)


# By kind


def _python(name: str) -> int:
    if not re.fullmatch(r"_?Py[A-Za-z_]+", name):
        raise KeyError(name)
    return _expected(_exported(ctypes.pythonapi, name), name)


@functools.cache
def _c_library() -> Any:
    return ctypes.CDLL(None) if sys.platform != "win32" else None


def _ufunc_part(part: int, name: str) -> int:
    ufunc, _, types = name.partition(":")
    return ufunc_loop(ufunc, types)[part]


_KINDS: dict[str, Callable[[str], int]] = {
    "blas": lambda name: blas(name)[0],
    "blasthreads": _blas_threads,
    "special": lambda name: special(name)[0],
    "ufunc": functools.partial(_ufunc_part, 0),
    "ufuncdata": functools.partial(_ufunc_part, 1),
    "python": _python,
    "c": lambda name: _expected(_exported(_c_library(), name), name),
}
