"""Code on disk: what is stored comes back whole or not at all, whoever else writes there."""

import hashlib
import itertools
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from functrace import cli
from functrace.backend import disk_cache, llvm
from functrace.backend.disk_cache import clear, directory, entries, info, key, load, store

KEY, OTHER = hashlib.sha256(b"one").hexdigest(), hashlib.sha256(b"two").hexdigest()
CODE, META = bytes(range(256)) * 40, {"name": "f", "shapes": [[3, 4], []], "x": 0.1, "none": None, "yes": True}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache that does not exist yet, of one version of the sources, with its warning not yet given."""
    path = tmp_path / "cache"
    monkeypatch.setenv("FUNCTRACE_CACHE_DIR", str(path))
    monkeypatch.delenv("FUNCTRACE_CACHE", raising=False)
    monkeypatch.setattr(disk_cache, "_generator", lambda: "these sources")
    monkeypatch.setattr(disk_cache, "_told", [])
    disk_cache._environment.cache_clear()
    yield path
    disk_cache._environment.cache_clear()


def run(code: str, *arguments: str, **options) -> subprocess.Popen:
    """Another process with the same cache."""
    head = "import sys; from functrace.backend import disk_cache; disk_cache._generator = lambda: 'these sources'\n"
    return subprocess.Popen([sys.executable, "-c", head + code, *arguments], text=True, **options)


def file_of(name: str) -> Path:
    return Path(directory(), f"{name}.code")


# What is stored


def test_entries_come_back(cache):
    assert load(KEY) is None and not cache.exists()
    assert store(KEY, CODE, META)
    assert load(KEY) == disk_cache.Entry(CODE, META) and load(OTHER) is None
    assert store(KEY, b"", {})
    assert load(KEY) == disk_cache.Entry(b"", {})
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700 and stat.S_IMODE(file_of(KEY).stat().st_mode) == 0o600


def test_parents_are_made(tmp_path, monkeypatch):
    monkeypatch.setenv("FUNCTRACE_CACHE_DIR", str(tmp_path / "a" / "b" / "c"))
    assert store(KEY, CODE, META) and load(KEY).code == CODE


def test_another_process_finds_the_entry():
    store(KEY, CODE, META)
    done = run("print(disk_cache.load(sys.argv[1]).meta)", KEY, stdout=subprocess.PIPE)
    assert done.communicate(timeout=60)[0].strip() == str(META)


@pytest.mark.parametrize("meta", [{"a": (1, 2)}, {1: 2}, {"a": object()}, {"a": b"x"}, {"a": {3}}])
def test_only_plain_data_is_stored(meta):
    with pytest.raises(TypeError):
        store(KEY, CODE, meta)
    assert load(KEY) is None


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_lacks_are_refused(number):
    with pytest.raises(ValueError, match="Out of range"):
        store(KEY, CODE, {"a": number})


@pytest.mark.parametrize("name", ["", "../" + KEY[3:], KEY[:-1], KEY.upper(), KEY + "0", KEY[:-1] + "\n", "x" * 64])
def test_what_is_no_key_finds_and_keeps_nothing(cache, name):
    assert not store(name, CODE, META) and load(name) is None and not cache.exists()


# Keys


def test_keys_differ_where_parts_do():
    lists = [(), ("",), (b"",), ("", ""), ("ab",), ("a", "b"), ("b", "a"), (b"ab",), ("a", b"b"), ("s1:ab",), ("é",)]
    made = [key(*parts) for parts in lists]
    assert len(set(made)) == len(made) and all(len(k) == 64 for k in made)
    assert made == [key(*parts) for parts in lists]


def test_keys_depend_on_the_sources_and_the_machine(monkeypatch):
    keys = {key("f")}
    for change in (
        lambda: monkeypatch.setattr(disk_cache, "_generator", lambda: "other sources"),
        lambda: monkeypatch.setattr(llvm, "host_features", lambda: {"avx1024": True}),
        lambda: monkeypatch.setattr(disk_cache.np, "__version__", "99"),
        lambda: monkeypatch.setattr(disk_cache.sys.modules["llvmlite"], "__version__", "99"),
    ):
        change()
        disk_cache._environment.cache_clear()
        keys.add(key("f"))
    assert len(keys) == 5


def test_sources_that_changed_are_seen(tmp_path, monkeypatch):
    package = tmp_path / "functrace"
    (package / "inner").mkdir(parents=True)
    (package / "backend").mkdir()
    inner = package / "inner" / "a.py"
    for path in (package / "b.py", inner):
        path.write_text("x = 1\n")
        os.utime(path, (1e9, 1e9))
    monkeypatch.undo()
    monkeypatch.setattr(disk_cache, "__file__", str(package / "backend" / "disk_cache.py"))
    fresh = disk_cache._generator.__wrapped__
    first = fresh()
    assert first == fresh() and str(inner) in first
    os.utime(inner, (1e9, 1e9 + 1))
    assert fresh() not in (first, None)
    os.utime(inner, (1e9, 1e9))
    inner.write_text("x = 22\n")
    os.utime(inner, (1e9, 1e9))
    assert fresh() not in (first, None)
    os.utime(inner)  # changed after this process began, so it may run another text
    assert fresh() is None
    inner.unlink()
    (package / "b.py").unlink()
    assert fresh() is None


def test_unknown_sources_switch_it_off(cache, monkeypatch):
    monkeypatch.setattr(disk_cache, "_generator", lambda: None)
    assert not store(KEY, CODE, META) and load(KEY) is None and not cache.exists()
    assert "sources changed" in info().refusal
    assert len(key("f")) == 64


# Where it is


def test_the_place_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("FUNCTRACE_CACHE_DIR")
    monkeypatch.setattr(disk_cache.sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert directory() == str(tmp_path / "xdg" / "functrace")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert directory() == str(tmp_path / ".cache" / "functrace")
    monkeypatch.setattr(disk_cache.sys, "platform", "darwin")
    assert directory() == str(tmp_path / "Library" / "Caches" / "functrace")
    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert directory() is None and not store(KEY, CODE, META) and load(KEY) is None
    assert "no home" in info().refusal


@pytest.mark.parametrize("value", ["0", "off", " OFF", "no", "false"])
def test_it_can_be_switched_off(cache, monkeypatch, value):
    store(KEY, CODE, META)
    monkeypatch.setenv("FUNCTRACE_CACHE", value)
    assert load(KEY) is None and not store(OTHER, CODE, META)
    assert "switches it off" in info().refusal and info().stored == 1
    monkeypatch.setenv("FUNCTRACE_CACHE", "1")
    assert load(KEY).code == CODE and load(OTHER) is None


# Directories that are not private


def assert_unused_with_one_warning(match):
    with pytest.warns(RuntimeWarning, match=match):
        assert not store(KEY, CODE, META)
    assert load(KEY) is None and not store(OTHER, CODE, META)  # no second warning: it would be an error
    assert match in info().refusal and entries() == [] and clear() == 0


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777, 0o701, 0o710, 0o1777])
def test_a_directory_open_to_others_is_refused(cache, mode):
    store(KEY, CODE, META)
    cache.chmod(mode)
    assert_unused_with_one_warning("open to other users")
    cache.chmod(0o700)
    assert load(KEY).code == CODE and load(OTHER) is None


def test_a_link_is_refused(cache, tmp_path):
    store(KEY, CODE, META)
    cache.rename(tmp_path / "elsewhere")
    cache.symlink_to(tmp_path / "elsewhere")
    assert_unused_with_one_warning("a link or a file")
    cache.unlink()
    cache.symlink_to(tmp_path / "nowhere")
    disk_cache._told.clear()
    assert_unused_with_one_warning("a link or a file")
    assert not (tmp_path / "nowhere").exists()


def test_a_file_in_its_place_is_refused(cache):
    cache.write_text("mine")
    assert_unused_with_one_warning("a link or a file")
    assert cache.read_text() == "mine"


def test_a_directory_of_another_user_is_refused(cache, monkeypatch):
    store(KEY, CODE, META)
    monkeypatch.setattr(disk_cache.os, "geteuid", lambda: os.getuid() + 1)
    disk_cache._platform_refusal.cache_clear()
    try:
        assert load(KEY) is None and "another user's rights" in info().refusal
        monkeypatch.setattr(disk_cache, "_platform_refusal", lambda: None)
        assert_unused_with_one_warning("belongs to another user")
    finally:
        monkeypatch.undo()
        disk_cache._platform_refusal.cache_clear()


# Disks that fail


def test_a_directory_that_cannot_be_made_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FUNCTRACE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert not store(KEY, CODE, META) and load(KEY) is None
    monkeypatch.setenv("FUNCTRACE_CACHE_DIR", str(tmp_path / ("x" * 300)))
    assert not store(KEY, CODE, META) and load(KEY) is None


@pytest.mark.parametrize("failing", ["write", "replace", "mkdir", "open"])
def test_a_full_or_readonly_disk_is_no_error(cache, monkeypatch, failing):
    if failing != "mkdir":
        store(OTHER, CODE, META)
    real = getattr(os, failing)

    def fail(*arguments, **options):
        if failing == "open" and "dir_fd" not in options:  # the directory itself opens
            return real(*arguments, **options)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(disk_cache.os, failing, fail)
        assert not store(KEY, CODE, META)
    assert load(KEY) is None
    if failing != "mkdir":
        assert [path.name for path in cache.iterdir()] == [f"{OTHER}.code"]


def test_short_writes_are_continued(monkeypatch):
    real = os.write
    monkeypatch.setattr(disk_cache.os, "write", lambda file, data: real(file, bytes(data)[:1000]))
    assert store(KEY, CODE, META)
    assert load(KEY).code == CODE


def test_an_interrupted_store_leaves_nothing(cache, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(disk_cache.os, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store(KEY, CODE, META)
    assert list(cache.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux lists a process's open files here")
def test_no_descriptors_are_lost(cache, monkeypatch):
    before = len(os.listdir("/proc/self/fd"))
    store(KEY, CODE, META)
    for _ in range(20):
        store(KEY, CODE, META), load(KEY), load(OTHER), info(), clear()
    with monkeypatch.context() as patch:
        patch.setattr(disk_cache.os, "write", lambda *_: os.open(cache / "no" / "such", os.O_RDONLY))
        store(KEY, CODE, META)
    cache.chmod(0o755)
    disk_cache._told.append("")
    store(KEY, CODE, META), load(KEY)
    assert len(os.listdir("/proc/self/fd")) == before


# Files that were damaged or put there by others


def test_a_flipped_bit_anywhere_is_seen():
    store(KEY, CODE[:64], {"a": 1})
    content = file_of(KEY).read_bytes()
    for position, bit in itertools.product(range(len(content)), (0, 7)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << bit
        file_of(KEY).write_bytes(damaged)
        assert load(KEY) is None, position
    file_of(KEY).write_bytes(content)
    assert load(KEY).code == CODE[:64]


def test_a_truncated_or_longer_file_is_seen():
    store(KEY, CODE[:64], {"a": 1})
    content = file_of(KEY).read_bytes()
    for length in range(len(content)):
        file_of(KEY).write_bytes(content[:length])
        assert load(KEY) is None, length
    file_of(KEY).write_bytes(content + b"\0")
    assert load(KEY) is None


def forged(meta: bytes, code: bytes = b"", length: int | None = None, name: str = KEY) -> bytes:
    """A file with the right checksum of whatever it holds."""
    size = len(meta) if length is None else length
    rest = bytes.fromhex(name) + size.to_bytes(8, "little") + meta + code
    return b"FTCODE01" + hashlib.sha256(rest).digest() + rest


def test_an_entry_is_not_taken_for_another():
    store(KEY, CODE, META)
    os.rename(file_of(KEY), file_of(OTHER))
    assert load(OTHER) is None


@pytest.mark.parametrize(
    "content",
    [
        forged(b"[]"),
        forged(b"null"),
        forged(b"{"),
        forged(b"\xff\xfe"),
        forged(b""),
        forged(b"{}", length=3),
        forged(b"{}", length=2**63),
        forged(b"{}", length=2**64 - 1),
        forged(b"{}", name=OTHER),
        b"FTCODE02" + forged(b"{}")[8:],
        b"",
        b"\x7fELF",
        os.urandom(5000),
    ],
    ids=itertools.count(),
)
def test_nonsense_is_not_an_entry(content):
    store(OTHER, CODE, META)
    file_of(KEY).write_bytes(content)
    assert load(KEY) is None
    file_of(KEY).write_bytes(forged(b"{}", b"code"))
    assert load(KEY) == disk_cache.Entry(b"code", {})


def test_only_regular_files_of_ours_are_read(cache, tmp_path, monkeypatch):
    store(KEY, CODE, META)
    os.rename(file_of(KEY), tmp_path / "good")
    file_of(KEY).symlink_to(tmp_path / "good")
    assert load(KEY) is None
    file_of(KEY).unlink()
    os.mkfifo(file_of(KEY))
    assert load(KEY) is None  # and does not wait for a writer
    file_of(KEY).unlink()
    file_of(KEY).mkdir()
    assert load(KEY) is None and not store(KEY, CODE, META)
    assert [path.name for path in cache.iterdir()] == [f"{KEY}.code"]
    file_of(KEY).rmdir()
    file_of(KEY).write_bytes((tmp_path / "good").read_bytes())
    file_of(KEY).chmod(0o666)
    assert load(KEY) is None
    file_of(KEY).chmod(0o600)
    assert load(KEY).code == CODE
    monkeypatch.setattr(disk_cache, "LIMIT", 100)
    assert load(KEY) is None


def test_a_link_is_replaced_and_its_target_left_alone(tmp_path):
    store(OTHER, CODE, META)
    (tmp_path / "target").write_text("mine")
    file_of(KEY).symlink_to(tmp_path / "target")
    assert store(KEY, CODE, META) and load(KEY).code == CODE
    assert (tmp_path / "target").read_text() == "mine"


# Races

RACE = """
import os
name, sign = sys.argv[1], sys.argv[2]
code = sign.encode() * 50_000
for _ in range(150):
    assert disk_cache.store(name, code, {"sign": sign})
    found = disk_cache.load(name)
    assert found and found.code == found.meta["sign"].encode() * 50_000
"""


def test_processes_race_for_one_entry(cache):
    racing = [run(RACE, KEY, sign, stderr=subprocess.PIPE) for sign in "ab"]
    while any(process.poll() is None for process in racing):
        found = load(KEY)
        assert found is None or found.code == found.meta["sign"].encode() * 50_000
    assert [process.communicate(timeout=60)[1] for process in racing] == ["", ""]
    assert [path.name for path in cache.iterdir()] == [f"{KEY}.code"]


def test_threads_race_with_clearing():
    failures = []

    def work(sign):
        for _ in range(100):
            store(KEY, sign * 5000, {"sign": sign.decode()})
            found = load(KEY)
            if found and found.code != found.meta["sign"].encode() * 5000:
                failures.append(found)
            if sign == b"a":
                clear()

    threads = [threading.Thread(target=work, args=(sign,)) for sign in (b"a", b"b", b"c")]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failures


def test_forked_processes_share_it():
    """In a fresh process, since this one may have threads."""
    code = """
import os
names = sys.argv[1:]
assert disk_cache.store(names[0], b"parent", {})
children = []
for name in names[1:]:
    child = os.fork()
    if not child:
        right = disk_cache.load(names[0]).code == b"parent" and disk_cache.store(name, name.encode(), {})
        os._exit(0 if right else 1)
    children.append(child)
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * len(children)
assert [disk_cache.load(name).code for name in names[1:]] == [name.encode() for name in names[1:]]
"""
    names = [hashlib.sha256(bytes([k])).hexdigest() for k in range(5)]
    assert run(code, *names).wait(timeout=60) == 0


# Size


def names(count: int) -> list[str]:
    return [hashlib.sha256(str(k).encode()).hexdigest() for k in range(count)]


def test_the_oldest_make_room(monkeypatch):
    monkeypatch.setattr(disk_cache, "LIMIT", 64 * 8192)
    monkeypatch.setattr(disk_cache, "_is_trim_due", lambda size: True)  # else chance decides when
    now = time.time()
    for age, name in enumerate(reversed(names(80))):  # the last in the list is the oldest
        assert store(name, bytes(8000), {})
        os.utime(file_of(name), (now - 1000 + age, now - 1000 + age))
        assert info().size <= disk_cache.LIMIT
    kept = [entry.key for entry in entries()]
    assert kept == names(80)[: len(kept)] and 50 < len(kept) <= 64


def test_what_is_too_large_is_not_kept(monkeypatch):
    monkeypatch.setattr(disk_cache, "LIMIT", 80_000)
    assert not store(KEY, bytes(20_000), {}) and load(KEY) is None
    assert store(KEY, bytes(5_000), {})


def test_use_makes_an_entry_younger():
    store(KEY, CODE, META)
    old = time.time() - 30 * 86400
    os.utime(file_of(KEY), (old, old))
    load(KEY)
    assert file_of(KEY).stat().st_mtime > old + 29 * 86400


def test_leftovers_of_interrupted_processes_go(cache, monkeypatch):
    store(KEY, CODE, META)
    fresh, stale = cache / ("0" * 32 + ".new"), cache / ("1" * 32 + ".new")
    for path in (fresh, stale):
        path.write_bytes(b"half")
    os.utime(stale, (1e9, 1e9))
    monkeypatch.setattr(disk_cache, "LIMIT", len(CODE) * 16)
    store(OTHER, CODE, META)
    assert fresh.exists() and not stale.exists() and load(KEY).code == CODE


# For people


def test_clear_removes_entries_and_nothing_else(cache):
    assert clear() == 0
    for name in names(3):
        store(name, CODE, META)
    (cache / "note.txt").write_text("mine")
    (cache / ("0" * 32 + ".new")).write_text("half")
    assert clear() == 3
    assert [path.name for path in cache.iterdir()] == ["note.txt"] and entries() == []


def test_info_and_entries_say_what_there_is(cache):
    assert info() == disk_cache.Info(str(cache), None, 0, 0, disk_cache.LIMIT)
    store(KEY, CODE, META)
    found = info()
    assert found.refusal is None and found.stored == 1 and len(CODE) < found.size < 2 * len(CODE)
    assert [(entry.key, entry.size) for entry in entries()] == [(KEY, found.size)]
    assert abs(entries()[0].used - time.time()) < 60


def test_the_command_shows_and_clears(cache, capsys):
    assert cli.main(["cache"]) == 0
    assert "0 entries" in capsys.readouterr().out
    store(KEY, CODE, META)
    store(OTHER, CODE, {})
    assert cli.main(["cache", "info"]) == 0
    text = capsys.readouterr().out
    assert str(cache) in text and "2 entries" in text and "256.0 MB" in text
    assert cli.main(["cache", "list"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2 and any(row.startswith(KEY[:16]) and row.endswith(" f") for row in rows)
    assert cli.main(["cache", "path"]) == 0
    assert capsys.readouterr().out == f"{cache}\n"
    assert cli.main(["cache", "clear"]) == 0
    assert "2 entries" in capsys.readouterr().out and entries() == []


def test_the_command_says_why_the_cache_is_not_used(cache, monkeypatch, capsys):
    cache.mkdir(mode=0o755)
    cache.chmod(0o755)
    assert cli.main(["cache"]) == 0
    assert "not in use: " in capsys.readouterr().out
    monkeypatch.setenv("FUNCTRACE_CACHE", "0")
    assert cli.main(["cache"]) == 0
    assert "FUNCTRACE_CACHE switches it off" in capsys.readouterr().out


def test_nothing_is_unpickled():
    source = Path(disk_cache.__file__).read_text()
    assert not any(f"import {name}" in source for name in ("pickle", "marshal", "shelve"))
