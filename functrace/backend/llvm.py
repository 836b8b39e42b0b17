"""LLVM through llvmlite: instruction sets to compile for, LLVM IR text to machine code, machine code to addresses.

The only file that imports llvmlite, on first use.
"""

from __future__ import annotations

import functools
import os
import platform
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "LEVELS",
    "Library",
    "Target",
    "assembly",
    "compile_ir",
    "hold_at_fork",
    "load",
    "resident",
    "supported_levels",
    "target",
]

# Locks held while code is made. A fork waits for them, since in the child nobody would release them.
_held_at_fork: list[Any] = []
_taken: list[Any] = []  # by the fork under way


def hold_at_fork(lock: Any) -> Any:
    """Lets forks wait for a lock under which code is made, outside of those that were given before; returns it."""
    _held_at_fork.insert(0, lock)
    return lock


def _before_fork() -> None:
    locks = tuple(_held_at_fork)
    for lock in locks:
        lock.__enter__()
    _taken[:] = locks


def _after_fork() -> None:
    for lock in reversed(_taken):
        lock.__exit__(None, None, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


# What a CPU may be taken for: itself, or less. "baseline" is what every CPU of the architecture has.
LEVELS = ("native", "avx512", "avx2", "avx2-nofma", "baseline")


@functools.cache
def binding() -> Any:
    """`llvmlite.binding`, with the host's code generator ready."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    inner = getattr(llvm.ffi.lib, "_lock", None)  # llvmlite takes it for each call
    if hasattr(inner, "__enter__"):
        _held_at_fork.append(inner)
    return llvm


@dataclass(frozen=True)
class Target:
    """An instruction set.

    Args:
        level: its name, one of `LEVELS`.
        cpu: LLVM's name of the CPU.
        features: LLVM's list of features, "+a,-b".
        vector_bits: the width of a vector register.
        fma: whether a b + c is one instruction with one rounding.
        scalef: whether x 2**n is one instruction (AVX-512).
    """

    level: str
    cpu: str
    features: str
    vector_bits: int
    fma: bool
    scalef: bool

    @property
    def halves(self) -> bool:
        """Whether floats of 16 bits are converted by an instruction."""
        return not is_x86() or (self.level != "baseline" and host_features().get("f16c", False))

    def lanes(self, bits: int) -> int:
        """How many numbers of so many bits a register holds."""
        return self.vector_bits // bits


@functools.cache
def host_features() -> dict[str, bool]:
    return dict(binding().get_host_cpu_features())


def is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


@functools.cache
def supported_levels() -> tuple[str, ...]:
    """The levels that this CPU can run, best first, "native" apart from what equals it."""
    if not is_x86():
        return ("native",)
    has = host_features()
    needs = {
        "avx512": ("avx512f", "avx512dq", "avx512vl", "avx512bw"),
        "avx2": ("avx2", "fma"),
        "avx2-nofma": ("avx2",),
        "baseline": (),
    }
    return ("native", *(level for level in LEVELS[1:] if all(has.get(name, False) for name in needs[level])))


@functools.cache
def target(level: str = "native") -> Target:
    """The host's instruction set, or the part of it that `level` allows.

    Args:
        level: one of `supported_levels()`.

    Returns:
        The target.

    Raises:
        ValueError: the host cannot run that level.
    """
    if level not in supported_levels():
        raise ValueError(f"this CPU cannot run {level!r} code; it can run {', '.join(supported_levels())}")
    llvm = binding()
    if not is_x86():  # 64-bit ARM and the like: 128-bit vectors, with fused multiply-add in every one of them
        fused = platform.machine().lower() in ("aarch64", "arm64")
        features = ",".join(f"{'+' if on else '-'}{name}" for name, on in sorted(host_features().items()))
        return Target(level, llvm.get_host_cpu_name(), features, 128, fused, False)
    if level == "baseline":
        return Target(level, "x86-64", "", 128, False, False)

    wide = level in ("native", "avx512") and "avx512" in supported_levels()
    fused = level != "avx2-nofma" and host_features().get("fma", False)

    def allowed(name: str) -> bool:
        if name.startswith(("avx512", "avx10", "evex512", "amx")):
            return wide
        return fused or name not in ("fma", "fma4")

    features = ",".join(f"{'+' if on and allowed(name) else '-'}{name}" for name, on in sorted(host_features().items()))
    width = 512 if wide else 256 if host_features().get("avx2", False) else 128
    return Target(level, llvm.get_host_cpu_name(), features, width, fused, wide)


@functools.cache
def machine(wanted: Target, opt: int = 2) -> Any:
    """LLVM's code generator for a target.

    Code reaches its constants relative to itself ("small", position-independent), which saves an instruction each; so
    it may not name functions outside the module, except through pointers that it is given.
    """
    llvm = binding()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=wanted.cpu, features=wanted.features, opt=opt, codemodel="small", jit=True, reloc="pic"
    )


def attributes(wanted: Target) -> str:
    """Attributes of every function: lets LLVM use the full register, which it avoids by itself on some CPUs."""
    width = wanted.vector_bits
    return f'nounwind "prefer-vector-width"="{width}" "min-legal-vector-width"="{width}"'


def parse(text: str) -> Any:
    module = binding().parse_assembly(text)
    module.verify()
    return module


def compile_ir(text: str, wanted: Target, opt: int = 2) -> bytes:
    """Object code of a module of LLVM IR. No IR passes run: what is written is what is selected from."""
    return machine(wanted, opt).emit_object(parse(text))


def assembly(text: str, wanted: Target, opt: int = 2) -> str:
    """The same code as assembly text."""
    return machine(wanted, opt).emit_assembly(parse(text))


class Library:
    """Object code in memory: addresses by name, for as long as the library lives."""

    def __init__(self, wanted: Target, code: bytes | None = None) -> None:
        llvm = binding()
        # An engine owns its target machine, so it does not get the cached one.
        own = machine.__wrapped__(wanted)
        # llvmlite's memory manager keeps the sections within reach of each other.
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), own, True)
        if code is not None:
            self.add(code)

    def add(self, code: bytes) -> None:
        """Links more object code, whose names are others; saves the millisecond that a library of its own costs."""
        self._engine.add_object_file(binding().ObjectFileRef.from_data(code))
        self._engine.finalize_object()

    def address(self, name: str) -> int:
        """Where the function of that name starts."""
        found = self._engine.get_function_address(name)
        if not found:
            raise KeyError(name)
        return found


_adding = hold_at_fork(threading.RLock())
_SHARED = 32  # objects of one library: what one of them keeps from being freed stays small
_open: dict[Target, tuple[Library, set[str]]] = {}


def load(code: bytes, wanted: Target, names: Sequence[str] = ()) -> Library:
    """Links object code into this process.

    Args:
        code: an object file.
        wanted: the instruction set.
        names: the functions it defines, if no other object defines these. It then shares a library with some others,
            which takes a twentieth of the time, and is freed when none of them is in use any more.
    """
    if not names:
        return Library(wanted, code)
    with _adding:
        library, known = _open.pop(wanted, (None, set()))
        if library is None or len(known) >= _SHARED * len(names) or not known.isdisjoint(names):
            library, known = Library(wanted), set()
        library.add(code)
        known.update(names)
        _open[wanted] = library, known
        return library


_residents: dict[Target, Library] = {}


def resident(wanted: Target, name: str, make: Callable[[], bytes]) -> Library:
    """The library of code that stays until the process ends, with the function `name`.

    Args:
        wanted: the instruction set.
        name: a function; no two object files may have one of the same name.
        make: gives the object file with that function, if it is not yet there.

    Returns:
        The library, which more is added to.
    """
    with _adding:
        library = _residents.get(wanted)
        if library is None:
            library = _residents[wanted] = Library(wanted)
        try:
            library.address(name)
        except KeyError:
            library.add(make())
        return library
