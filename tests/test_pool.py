"""Threads for emitted loops: every piece is done exactly once, whoever calls, forks or stops meanwhile."""

import ctypes
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from functrace.backend import llvm, pool, symbols

pytestmark = pytest.mark.skipif(not pool.possible(), reason="no such threads on this platform")

# add: adds i + 1 to the i-th number. record: the limits and the thread of each piece, after 200 microseconds of work.
# nest: runs `add` over its piece by way of the pool, whose address is the context's first word.
BODIES = """
define void @add(ptr %numbers, i64 %lower, i64 %upper) {
entry:
  br label %loop
loop:
  %i = phi i64 [%lower, %entry], [%next, %loop]
  %place = getelementptr i64, ptr %numbers, i64 %i
  %old = load i64, ptr %place
  %next = add i64 %i, 1
  %new = add i64 %old, %next
  store i64 %new, ptr %place
  %more = icmp slt i64 %next, %upper
  br i1 %more, label %loop, label %end
end:
  ret void
}
define void @record(ptr %context, i64 %lower, i64 %upper) {
entry:
  %self = load ptr, ptr %context
  %thread = call i64 %self()
  %grain_at = getelementptr i64, ptr %context, i64 1
  %grain = load i64, ptr %grain_at
  %number = sdiv i64 %lower, %grain
  %row = mul i64 %number, 3
  %first = add i64 %row, 2
  %p0 = getelementptr i64, ptr %context, i64 %first
  store i64 %lower, ptr %p0
  %p1 = getelementptr i64, ptr %p0, i64 1
  store i64 %upper, ptr %p1
  %p2 = getelementptr i64, ptr %p0, i64 2
  store i64 %thread, ptr %p2
  br label %loop
loop:
  %k = phi i64 [0, %entry], [%next, %loop]
  %turn = load volatile i64, ptr %p0
  %next = add i64 %k, 1
  %more = icmp ult i64 %next, 200000
  br i1 %more, label %loop, label %end
end:
  ret void
}
define void @nest(ptr %context, i64 %lower, i64 %upper) {
  %run = load ptr, ptr %context
  %numbers_at = getelementptr ptr, ptr %context, i64 1
  %numbers = load ptr, ptr %numbers_at
  %from = getelementptr i64, ptr %numbers, i64 %lower
  %length = sub i64 %upper, %lower
  call void %run(ptr @add, ptr %from, i64 %length, i64 7)
  ret void
}
"""


@pytest.fixture(scope="module")
def bodies():
    return llvm.load(llvm.compile_ir(BODIES, llvm.target()), llvm.target())


@pytest.fixture
def run():
    """`run(body, context, n, grain)` with three workers, also where there is one processor."""
    pool.start(3)
    yield runner(pool._code().run)
    pool.stop()


def runner(address):
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(address)
    return lambda body, context, n, grain: call(body, context.ctypes.data, n, grain)


def recorded(run, bodies, n, grain):
    """The pieces in order: lower, upper, thread."""
    context = np.zeros(2 + 3 * max(1, -(-n // grain)), np.int64)
    context[:2] = symbols.resolve(["c:pthread_self"])[0], grain
    run(bodies.address("record"), context, n, grain)
    return context[2:].reshape(-1, 3)


def test_every_element_is_visited_once(run, bodies):
    sizes = [0, 1, 2, 3, 7, 64, 1000, 12345]
    for n in sizes:
        for grain in (1, 2, 3, 64, 1000, 12344, 12345, 10**12, 2**63 - 1):
            numbers = np.zeros(n + 1, np.int64)
            run(bodies.address("add"), numbers, n, grain)
            np.testing.assert_array_equal(numbers, [*range(1, n + 1), 0], err_msg=f"{n} by {grain}")


def test_nothing_to_do_and_nonsense_are_harmless(run, bodies):
    numbers = np.zeros(10, np.int64)
    for n, grain in ((0, 1), (-1, 1), (-(2**63), 5), (0, 0)):
        run(bodies.address("add"), numbers, n, grain)
    np.testing.assert_array_equal(numbers, 0)
    for grain in (0, -3):  # one piece
        run(bodies.address("add"), numbers, 10, grain)
    np.testing.assert_array_equal(numbers, 2 * np.arange(1, 11))


@pytest.mark.parametrize("count", [0, 1, 3, 8])
def test_pieces_do_not_depend_on_the_number_of_threads(bodies, count):
    pool.start(count)
    try:
        assert pool.workers() == count
        pieces = recorded(runner(pool._code().run), bodies, 103, 10)
        lower = np.arange(0, 103, 10)
        np.testing.assert_array_equal(pieces[:, :2], np.stack([lower, np.minimum(lower + 10, 103)], axis=1))
        assert len(set(pieces[:, 2])) <= count + 1
    finally:
        pool.stop()
    assert pool.workers() == 0


def test_workers_take_part(run, bodies):
    for _ in range(50):  # a machine may be too busy to wake one in time
        if len(set(recorded(run, bodies, 40, 1)[:, 2])) > 1:
            return
    raise AssertionError("the caller did everything")


def test_workers_sleep_and_wake(run, bodies):
    numbers = np.zeros(5000, np.int64)
    for k in range(30):
        time.sleep(0.002 * (k % 3))
        run(bodies.address("add"), numbers, numbers.size, 50)
    np.testing.assert_array_equal(numbers, 30 * np.arange(1, 5001))
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.1  # they are parked


def test_many_runs_in_a_row(run, bodies):
    numbers = np.zeros(64, np.int64)
    for _ in range(20_000):
        run(bodies.address("add"), numbers, 64, 4)
    np.testing.assert_array_equal(numbers, 20_000 * np.arange(1, 65))


def hammer(run, bodies, rounds, failures, n=3000):
    numbers = np.zeros(n, np.int64)
    for _ in range(rounds):
        run(bodies.address("add"), numbers, n, 100)
    if not (numbers == rounds * np.arange(1, n + 1)).all():
        failures.append(numbers)


def test_eight_threads_at_once(run, bodies):
    failures = []
    threads = [threading.Thread(target=hammer, args=(run, bodies, 1500, failures)) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failures


def test_a_body_may_run_loops(run, bodies):
    numbers = np.zeros(1000, np.int64)
    context = np.array([pool._code().run, numbers.ctypes.data])
    for _ in range(200):
        run(bodies.address("nest"), context, 1000, 100)
    np.testing.assert_array_equal(numbers, 200 * (np.arange(1000) % 100 + 1))


def test_starting_and_stopping_while_it_is_used(bodies):
    address, failures = pool._code().run, []
    user = threading.Thread(target=hammer, args=(runner(address), bodies, 4000, failures))
    user.start()
    while user.is_alive():
        pool.start(2)
        pool.start(5)  # has no effect
        assert pool.workers() == 2
        pool.stop()
    user.join()
    assert not failures and pool.workers() == 0


def test_the_number_of_threads_can_be_chosen(monkeypatch):
    monkeypatch.setenv("FUNCTRACE_THREADS", "1")
    assert "one processor" in pool.refusal()
    assert pool.address() == pool._code().run and pool.workers() == 0
    monkeypatch.setenv("FUNCTRACE_THREADS", "4")
    try:
        assert pool.refusal() is None
        assert symbols.available("pool:run") and pool.workers() == 0
        assert symbols.resolve(["pool:run"]) == [pool.address()] and pool.workers() == 3
    finally:
        pool.stop()
    monkeypatch.setattr(pool.sys, "platform", "win32")
    assert "win32" in pool.refusal() and not symbols.available("pool:run")
    with pytest.raises(KeyError):
        symbols.resolve(["pool:run"])


# Forks and the end of the process, each in a fresh one

HEAD = f"""
import ctypes, os, sys, threading, time, warnings
import numpy as np
from functrace.backend import llvm, pool
warnings.simplefilter("ignore")  # newer Pythons warn of forks of processes with threads: this is what is tested
bodies = llvm.load(llvm.compile_ir('''{BODIES}''', llvm.target()), llvm.target())
pool.start(3)
call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2)(pool._code().run)
add = bodies.address("add")
def right(rounds=20):
    numbers = np.zeros(5000, np.int64)
    for _ in range(rounds):
        call(add, numbers.ctypes.data, 5000, 50)
    return bool((numbers == rounds * np.arange(1, 5001)).all())
"""


def in_a_new_process(program):
    done = subprocess.run([sys.executable, "-c", HEAD + program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_children_work():
    """Also where another thread is in the middle of a run, whose mutex the child inherits."""
    in_a_new_process("""
busy = True
def use():
    while busy:
        assert right(1)
user = threading.Thread(target=use)
user.start()
for k in range(30):
    child = os.fork()
    if not child:
        alone = right() and pool.workers() == 0
        pool.start(2)
        helped = right() and pool.workers() == 2
        pool.stop()
        os._exit(0 if alone and helped and right() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
busy = False
user.join()
assert right() and pool.workers() == 3
""")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forks_wait_for_code_being_made():
    """Else the child would find the compiler locked for ever by a thread that it does not have."""
    in_a_new_process("""
from functrace.backend.vmath import module
busy = True
def use():
    while busy:
        bodies.address("add")
        llvm.compile_ir(module.entry_ir("ft_exp_f64_scalar", llvm.target()), llvm.target())
users = [threading.Thread(target=use) for _ in range(2)]
[user.start() for user in users]
for k in range(20):
    child = os.fork()
    if not child:
        os._exit(0 if bodies.address("add") == add and module.address("ft_log_f64_scalar") and right() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
busy = False
[user.join() for user in users]
""")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_children_that_python_knows_nothing_of_work():
    in_a_new_process("""
fork = ctypes.PyDLL(None).fork
for _ in range(20):
    child = fork()
    if not child:
        os._exit(0 if right() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert right()
""")


@pytest.mark.parametrize("ending", ["", "sys.exit()", "raise SystemExit(0)", "os._exit(0)"])
def test_a_process_ends_cleanly(ending):
    assert in_a_new_process(f"assert right()\nprint('done', flush=True)\n{ending}") == "done\n"


def test_a_process_ends_while_the_workers_are_busy():
    in_a_new_process("""
def use():
    while True:
        right(1)
for _ in range(3):
    threading.Thread(target=use, daemon=True).start()
time.sleep(0.2)
""")
