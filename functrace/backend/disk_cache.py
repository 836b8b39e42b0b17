"""Machine code kept on disk from one process to the next, in a private directory of the user.

What lies here is run, so nobody else may have written it: the directory must be the user's own, with mode 0700 and no
link, which is checked on the open directory at every access; files are regular, the user's own, and carry a checksum
over their whole content, which is verified before anything of it is used. Nothing is pickled: an entry is machine code
and a dictionary of plain data as JSON. Entries are written under another name and renamed, so processes may race.

A cache may fail but not disturb: whatever goes wrong (read-only or full disk, damaged files, foreign ones) means that
nothing is cached. Only a directory that is not private is worth a warning, one per process.

Environment: `FUNCTRACE_CACHE=0` switches the cache off, `FUNCTRACE_CACHE_DIR` names another directory.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import stat
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from functrace.backend import llvm
from functrace.util import switched_on

__all__ = [
    "LIMIT",
    "Entry",
    "Info",
    "Stored",
    "clear",
    "directory",
    "entries",
    "info",
    "key",
    "load",
    "object_code",
    "store",
    "usable",
]

LIMIT = 256 * 2**20  # bytes on disk, of all entries
_FORMAT = b"FTCODE01"
_HEADER = struct.Struct("<8s32s32sQ")  # format, checksum of all that follows it, key, length of the data
_SUFFIX = ".code"
_ENTRY = re.compile(r"[0-9a-f]{64}\.code")
_UNFINISHED = re.compile(r"[0-9a-f]{32}\.new")
_DAY = 86400.0
_IMPORTED = time.time()


class Entry(NamedTuple):
    """What is kept under a key.

    Args:
        code: machine code, as an object file.
        meta: plain data that belongs to it: what JSON can hold.
    """

    code: bytes
    meta: dict[str, Any]


class Stored(NamedTuple):
    """An entry as the directory lists it.

    Args:
        key: its key.
        size: bytes on disk.
        used: when it was stored or, to a day, last used, in seconds since 1970.
    """

    key: str
    size: int
    used: float


class Info(NamedTuple):
    """The state of the cache.

    Args:
        directory: where it is, if it may be anywhere.
        refusal: why it is not used; None where it is.
        stored: the number of entries.
        size: bytes on disk, of all entries.
        limit: how large that may become.
    """

    directory: str | None
    refusal: str | None
    stored: int
    size: int
    limit: int


def object_code(name: str, target: llvm.Target, make: Callable[[], str], *parts: str, opt: int = 2) -> bytes:
    """Object code of a module, from the disk if it is there, else compiled and kept.

    Args:
        name: what people see in the cache's list; it is part of the key.
        target: the instruction set.
        make: gives the module's LLVM IR, a function of the parts and of functrace's sources alone.
        parts: all that the module depends on besides.
        opt: how hard the code generator tries, 0 to 3.

    Returns:
        The object file.
    """
    made_of = key("module", name, str(target), str(opt), *parts)
    found = load(made_of)
    if found:
        return found.code
    code = llvm.compile_ir(make(), target, opt)
    store(made_of, code, {"name": name})
    return code


# Keys


def key(*parts: str | bytes) -> str:
    """The key of code that depends on these parts, on this version of functrace and LLVM, and on this machine.

    Args:
        parts: texts that say all that the code depends on besides. No two lists of parts share a key.

    Returns:
        64 hexadecimal digits.
    """
    return _digest(_environment(), *parts).hex()


def _digest(*parts: str | bytes) -> bytes:
    """SHA-256 of the parts, each with its kind and length before it."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(b"%c%d:" % (b"s" if isinstance(part, str) else b"b", len(content)))
        digest.update(content)
    return digest.digest()


@functools.cache
def _environment() -> bytes:
    binding = llvm.binding()
    features = ",".join(sorted(name for name, on in llvm.host_features().items() if on))
    return _digest(
        _FORMAT,
        _generator() or "",
        f"llvmlite {sys.modules['llvmlite'].__version__}, LLVM {binding.llvm_version_info}",
        f"{sys.platform} {platform.machine()} {binding.get_host_cpu_name()} {features}",
        f"{sys.implementation.cache_tag} {getattr(sys, 'abiflags', '')} numpy {np.__version__}",
    )


@functools.cache
def _generator() -> str | None:
    """What tells this version of functrace's sources from any other, or None if that is not known.

    Sources that changed since this process began are not those that it runs.
    """
    package = os.path.dirname(os.path.dirname(__file__))
    found = sorted(_sources(package))
    if not found or max(modified for _, _, modified in found) > (_IMPORTED - 2.0) * 1e9:
        return None
    return f"{package} {found}"


def _sources(folder: str) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of change of each source file."""
    with contextlib.suppress(OSError), os.scandir(folder) as items:
        for item in items:
            if item.name.endswith(".py"):
                status = item.stat()
                yield item.path, status.st_size, status.st_mtime_ns
            elif "." not in item.name and item.is_dir():
                yield from _sources(item.path)


# The directory


def directory() -> str | None:
    """Where the cache is, whether or not it is in use; None if the user has no such place."""
    chosen = os.environ.get("FUNCTRACE_CACHE_DIR")
    if chosen:
        return os.path.abspath(chosen)
    base = os.environ.get("XDG_CACHE_HOME", "")
    if sys.platform != "darwin" and os.path.isabs(base):  # relative ones are to be ignored
        return os.path.join(base, "functrace")
    home = os.path.expanduser("~")
    if not os.path.isabs(home):
        return None
    return os.path.join(home, *(("Library", "Caches") if sys.platform == "darwin" else (".cache",)), "functrace")


def _refusal() -> str | None:
    """Why nothing may be cached, as far as it can be known without looking at the disk."""
    if not switched_on("FUNCTRACE_CACHE", True):
        return "FUNCTRACE_CACHE switches it off"
    return _platform_refusal() or (None if _generator() else "functrace's sources changed, or are not in files")


def usable() -> bool:
    """Whether something may be cached, as far as it can be known without looking at the disk."""
    return _refusal() is None


@functools.cache
def _platform_refusal() -> str | None:
    if os.open not in os.supports_dir_fd or os.scandir not in os.supports_fd or not hasattr(os, "O_NOFOLLOW"):
        return f"there is no safe way to keep code on {sys.platform}"
    if os.getuid() != os.geteuid():
        return "the process runs with another user's rights"
    return None


class _Unsafe(Exception):
    """The directory is not private."""


_told: list[str] = []  # the warning that was given


def _tell(what: str) -> None:
    if not _told:
        _told.append(what)
        warnings.warn(
            f"compiled code is not cached: {what}; make it yours alone (chmod 700), or set FUNCTRACE_CACHE_DIR or "
            "FUNCTRACE_CACHE=0",
            RuntimeWarning,
            stacklevel=4,
        )


@contextlib.contextmanager
def _opened(create: bool = False) -> Iterator[int]:
    """The directory, checked and held open: what happens to its name meanwhile does not matter.

    Raises:
        OSError: there is none, or it cannot be opened.
        _Unsafe: it is not private.
    """
    path = directory()
    if path is None or _platform_refusal():
        raise FileNotFoundError
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        if not create:
            raise
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        descriptor = os.open(path, flags)
    except OSError:
        if os.path.islink(path) or (os.path.exists(path) and not os.path.isdir(path)):
            raise _Unsafe(f"{path} is not a directory but a link or a file") from None
        raise
    try:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid():
            raise _Unsafe(f"{path} belongs to another user")
        if stat.S_IMODE(status.st_mode) & 0o077:
            raise _Unsafe(f"{path} is open to other users (mode {stat.S_IMODE(status.st_mode):o})")
        yield descriptor
    finally:
        os.close(descriptor)


# Entries


def load(key: str) -> Entry | None:
    """What was stored under a key.

    Args:
        key: as `key` gives it.

    Returns:
        The entry, whole and unchanged, or None if there is none.
    """
    if _refusal() or not _ENTRY.fullmatch(key + _SUFFIX):
        return None
    try:
        with _opened() as folder:
            content = _read(folder, key + _SUFFIX)
    except _Unsafe as fault:
        _tell(str(fault))
        return None
    except OSError:
        return None
    return _unpacked(bytes.fromhex(key), content)


def _read(folder: int, name: str) -> bytes:
    """The content of a regular file of ours, empty if it is anything else."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        private = status.st_uid == os.geteuid() and not status.st_mode & 0o022
        if not stat.S_ISREG(status.st_mode) or not private or status.st_size > LIMIT:
            return b""
        with open(descriptor, "rb", buffering=0, closefd=False) as file:
            content = file.readall()
        if time.time() - status.st_mtime > _DAY:  # so that what is in use is not thrown out as the oldest
            with contextlib.suppress(OSError):
                os.utime(descriptor)
        return content
    finally:
        os.close(descriptor)


def _packed(key: bytes, entry: Entry) -> bytes:
    data = json.dumps(entry.meta, separators=(",", ":"), allow_nan=False).encode()
    rest = key + struct.pack("<Q", len(data)) + data + entry.code
    return _FORMAT + hashlib.sha256(rest).digest() + rest


def _unpacked(key: bytes, content: bytes) -> Entry | None:
    """The entry in a file's content, if that is one of this key, with the right checksum."""
    if len(content) < _HEADER.size:
        return None
    form, checksum, named, length = _HEADER.unpack_from(content)
    if form != _FORMAT or named != key or hashlib.sha256(memoryview(content)[40:]).digest() != checksum:
        return None
    if length > len(content) - _HEADER.size:
        return None
    try:
        meta = json.loads(content[_HEADER.size : _HEADER.size + length])
    except ValueError:
        return None
    return Entry(content[_HEADER.size + length :], meta) if isinstance(meta, dict) else None


def store(key: str, code: bytes, meta: dict[str, Any]) -> bool:
    """Keeps machine code under a key, in place of what was there.

    Args:
        key: as `key` gives it.
        code: an object file.
        meta: what belongs to it, of dictionaries with text keys, lists, texts, finite numbers, booleans and None.

    Returns:
        Whether it is kept. Other processes see all of it or nothing.

    Raises:
        TypeError: `meta` is not plain data, or would come back as something else.
        ValueError: `meta` holds a number that is not finite.
    """
    if _refusal() or not _ENTRY.fullmatch(key + _SUFFIX):
        return False
    if json.loads(json.dumps(meta, allow_nan=False)) != meta:
        raise TypeError("the data of an entry must be dictionaries with text keys, lists, texts and numbers")
    content = _packed(bytes.fromhex(key), Entry(code, meta))
    if len(content) > LIMIT // 8:
        return False
    try:
        with _opened(create=True) as folder:
            kept = _write(folder, key + _SUFFIX, content)
            if _is_trim_due(len(content)):
                _trim(folder)
            return kept
    except _Unsafe as fault:
        _tell(str(fault))
    except OSError:
        pass
    return False


def _is_trim_due(size: int) -> bool:
    """By chance, on average after each 64th of the limit, whoever writes: that bounds the directory without a count."""
    return int.from_bytes(os.urandom(4)) < 2**32 * size / (LIMIT / 64)


def _write(folder: int, name: str, content: bytes) -> bool:
    unfinished = os.urandom(16).hex() + ".new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(unfinished, flags, 0o600, dir_fd=folder)
    try:
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(descriptor, left) :]
        finally:
            os.close(descriptor)
        os.replace(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        _remove(folder, unfinished)
        raise
    return True


def _remove(folder: int, name: str) -> bool:
    try:
        os.unlink(name, dir_fd=folder)
    except OSError:  # somebody else was faster
        return False
    return True


def _listed(folder: int) -> list[tuple[str, os.stat_result]]:
    """Names and states of the files that are ours; foreign ones are left alone."""
    found = []
    with os.scandir(folder) as items:
        for item in items:
            if _ENTRY.fullmatch(item.name) or _UNFINISHED.fullmatch(item.name):
                with contextlib.suppress(OSError):
                    found.append((item.name, item.stat(follow_symlinks=False)))
    return found


def _size(status: os.stat_result) -> int:
    return max(status.st_size, 512 * status.st_blocks)


def _trim(folder: int) -> None:
    """Removes the oldest entries beyond the limit, and what interrupted processes left."""
    kept = []
    for name, status in _listed(folder):
        if name.endswith(_SUFFIX):
            kept.append((status.st_mtime, _size(status), name))
        elif time.time() - status.st_mtime > _DAY / 24:
            _remove(folder, name)
    total = sum(size for _, size, _ in kept)
    if total > LIMIT:
        for _, size, name in sorted(kept):
            if total <= LIMIT * 7 // 8:
                break
            _remove(folder, name)
            total -= size


# For people


def entries() -> list[Stored]:
    """All entries, those used last first."""
    try:
        with _opened() as folder:
            listed = _listed(folder)
    except (OSError, _Unsafe):
        return []
    found = [
        Stored(name.removesuffix(_SUFFIX), _size(status), status.st_mtime)
        for name, status in listed
        if name.endswith(_SUFFIX)
    ]
    return sorted(found, key=lambda entry: entry.used, reverse=True)


def clear() -> int:
    """Removes all entries, and no other files.

    Returns:
        How many there were.
    """
    try:
        with _opened() as folder:
            return sum(_remove(folder, name) and name.endswith(_SUFFIX) for name, _ in _listed(folder))
    except (OSError, _Unsafe):
        return 0


def _unmakeable(path: str) -> str | None:
    """Why a directory that does not exist cannot be made, as far as it can be known without trying."""
    above = os.path.dirname(os.path.abspath(path))
    while not os.path.exists(above):
        above = os.path.dirname(above)
    if os.path.isdir(above) and os.access(above, os.W_OK | os.X_OK):
        return None
    return f"{path} cannot be made in {above}"


def info() -> Info:
    """Where the cache is, whether it is used, and how large it is."""
    refusal = _refusal()
    if refusal is None:
        try:
            with _opened():
                pass
        except FileNotFoundError:
            path = directory()
            refusal = _unmakeable(path) if path else "the user has no home directory"
        except (OSError, _Unsafe) as fault:
            refusal = str(fault)
    found = entries()
    return Info(directory(), refusal, len(found), sum(entry.size for entry in found), LIMIT)
