"""LLVM through llvmlite: instruction sets to compile for, LLVM IR text to machine code, machine code to addresses.

The only file that imports llvmlite, on first use.
"""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass
from typing import Any

__all__ = ["LEVELS", "Library", "Target", "assembly", "compile_ir", "load", "supported_levels", "target"]

# What a CPU may be taken for: itself, or less. "baseline" is what every CPU of the architecture has.
LEVELS = ("native", "avx512", "avx2", "avx2-nofma", "baseline")


@functools.cache
def binding() -> Any:
    """`llvmlite.binding`, with the host's code generator ready."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
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

    def __init__(self, code: bytes, wanted: Target) -> None:
        llvm = binding()
        # An engine owns its target machine, so it does not get the cached one.
        own = machine.__wrapped__(wanted)
        # llvmlite's memory manager keeps the sections within reach of each other.
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), own, True)
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()

    def address(self, name: str) -> int:
        """Where the function of that name starts."""
        found = self._engine.get_function_address(name)
        if not found:
            raise KeyError(name)
        return found


def load(code: bytes, wanted: Target) -> Library:
    """Links object code into this process."""
    return Library(code, wanted)
