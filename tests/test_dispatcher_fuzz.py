"""Hostile calls of dispatchers, each result compared; in a process of its own, so that a crash is a failed test.

`python -m tests.test_dispatcher_fuzz SEED CALLS SECONDS THREADS` runs one fuzz and prints what it did.
"""

import faulthandler
import gc
import pickle
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from functrace.backend.dispatcher import make_dispatcher, native_refusal
from functrace.backend.signatures import Argument, Signature
from tests.dispatch_kernels import copying, load, output_like

ROOT = Path(__file__).parents[1]


class Subclass(np.ndarray):
    """Has a different meaning, and fails wherever it is asked."""

    def __array_finalize__(self, obj):
        self.note = getattr(obj, "note", 0) + 1


class Evil:
    """Raises from every method that a careless dispatcher might call."""

    def __getattr__(self, name):
        raise ArithmeticError(name)

    def _raise(self, *args):
        raise ArithmeticError

    __eq__ = __bool__ = __len__ = __float__ = __index__ = __array__ = __iter__ = _raise
    __hash__ = object.__hash__


class Int(int):
    pass


class Float(float):
    pass


def hostile_values(rng, directory):
    """Arrays in every layout and dtype, numbers of every type, and what is neither."""
    generator = np.random.default_rng(rng.randrange(2**32))
    shapes = [(), (0,), (1,), (3,), (4,), (2, 3), (3, 2), (2, 0), (1, 1, 2), (2, 2, 2), (1,) * 20, (64,)]
    values = []
    for dtype in "?bhilqBHILQefdgFDG":
        for shape in rng.sample(shapes, 5):
            values.append(np.asarray(generator.normal(size=shape) * 100).astype(dtype))
    plain = np.arange(24.0)
    raw = np.zeros(200, np.uint8)
    locked = np.arange(3.0)
    locked.flags.writeable = False
    mapped = np.memmap(Path(directory) / "mapped", np.float64, "w+", shape=(4,))
    values += [
        *(plain[:3], plain[1:4], plain[2:5]),  # overlap
        *(plain[:6:2], plain[5:2:-1], plain.reshape(4, 6)[:, :3], plain[:6].reshape(3, 2).T),
        *(raw[1:25].view(np.float64), raw[4:28].view(np.float64), raw[8:32].view(np.float64)),
        *(np.zeros(3, ">f8"), np.zeros(3, ">i4"), np.zeros((), ">f8"), np.zeros(3, "<f8")),
        *(np.broadcast_to(1.0, (3,)), np.broadcast_to(1.0, (2**40,)), np.broadcast_to(1.0, (2**20, 2**20))),
        np.lib.stride_tricks.as_strided(plain, (3,), (0,)),
        np.empty((2**30, 0, 2**20)),
        *(
            plain[:3].view(Subclass),
            np.ma.array([1.0, 2, 3]),
            np.zeros((2, 3)).view(np.matrix),
            mapped,
            np.asarray(mapped),
        ),
        *(locked, pickle.loads(pickle.dumps(np.arange(3.0))), np.zeros(3, np.dtype("f8", metadata={"a": 1}))),
        *(np.array([1, None, "x"], object), np.zeros((), object), np.zeros(3, "U4"), np.zeros(3, "S8")),
        *(
            np.zeros(3, "M8[s]"),
            np.zeros(3, "m8[D]"),
            np.zeros(3, [("a", "f8")]),
            np.zeros(3, "V8"),
            np.rec.array([1.0]),
        ),
        *(
            np.zeros(3, np.dtypes.StringDType()),
            np.frombuffer(bytes(24)),
            np.zeros((3, 1))[:, 0],
            np.zeros((3, 2))[:, 0],
        ),
    ]
    values += [np.dtype(code).type(rng.randrange(100)) for code in "?bhilqBHILQefdgFDG"]
    values += [0, 1, -1, 7, 2**62, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 10**300, True, False, Int(3)]
    values += [0.0, -0.0, 1.5, float("nan"), float("inf"), 5e-324, Float(2.5), 1j, complex("nan"), None, NotImplemented]
    values += ["x", b"x", (), (1.0,), [1.0, 2.0, 3.0], {}, {"a": 1.0}, set(), Evil(), Evil, object(), np, np.add, print]
    values += [np.float64, np.ndarray, np.dtype("f8"), memoryview(b"12345678"), bytearray(24), range(3), Ellipsis]
    values += [np.str_("x"), np.datetime64("2020-01-01"), np.timedelta64(1, "s"), np.void(b"12345678")]
    return values


class Refusal(Exception):
    pass


class Serving:
    """A dispatcher, and what it should do: the reference is `Argument.accepts` and the identity of what falls back."""

    def __init__(self, fuzz, raises):
        self.raises = raises
        self.known = ()  # (signature, sources, status, address), newest first
        self.version = 0  # odd while a signature is being added
        self.lock = threading.Lock()
        first = fuzz.rng.choice(fuzz.kernels)
        self.dispatch = make_dispatcher(first[0], first[-1], self.fallback, keep=fuzz.code)
        self.known = (first,)
        for _ in range(fuzz.rng.randrange(4)):
            self.add(fuzz)

    def fallback(self, *args, **kwargs):
        if self.raises:
            raise Refusal(args, kwargs)
        return self, args, kwargs

    def add(self, fuzz):
        with self.lock:
            made = fuzz.rng.choice(fuzz.kernels)
            self.version += 1
            self.dispatch.add_signature(made[0], made[-1], fuzz.code)
            self.known = (made, *self.known)
            self.version += 1

    def expected(self, args, kwargs):
        """The newest signature that serves the call, with the sources of its outputs; None if the fallback does."""
        if kwargs:
            return None
        for signature, sources, status, _ in self.known:
            fits = len(args) == len(signature.arguments) and all(
                argument.accepts(value) for argument, value in zip(signature.arguments, args, strict=True)
            )
            if fits and not status:
                return signature, [(output, args[k]) for output, k in zip(signature.outputs, sources, strict=True)]
        return None

    def served(self, rng, args, kwargs):
        """Makes the call and checks what came of it; true if a kernel served it."""
        call = self.dispatch.__call__ if rng.random() < 0.5 else self.dispatch
        version = None
        while version != self.version or version % 2:  # else another thread has added a signature meanwhile
            version = self.version
            expected = self.expected(args, kwargs)
            try:
                result = call(*args, **kwargs)
            except Refusal as refusal:
                result = (self, *refusal.args)
        if expected is None:
            owner, found, named = result
            assert owner is self
            assert same_objects(found, args) and same_objects(named.values(), kwargs.values())
            return False
        signature, outputs = expected
        results = result if signature.gives_tuple else (result,)
        assert type(results) is tuple and len(results) == len(outputs)
        for one, (output, source) in zip(results, outputs, strict=True):
            assert right_output(one, output, source), (one, output, source)
        return True


def right_output(result, output, source):
    if type(result) is not (output.dtype.type if output.scalar else np.ndarray):
        return False
    if result.dtype is not output.dtype or result.shape != output.shape:
        return False
    return result.tobytes() == np.asarray(source, output.dtype).tobytes()


def same_objects(found, given):
    return len(found) == len(given) and all(a is b for a, b in zip(found, given, strict=True))


class Fuzz:
    def __init__(self, seed, directory):
        self.rng = random.Random(seed)
        self.values = hostile_values(self.rng, directory)
        self.good = [value for value in self.values if Argument.of(value) is not None]
        self.fits = {}
        self.kernels = [self.signature() for _ in range(60)]
        texts = [copying(f"kernel{k}", *made) for k, made in enumerate(self.kernels)]
        self.code = load(texts)
        self.kernels = [(*made, self.code.address(f"kernel{k}")) for k, made in enumerate(self.kernels)]
        self.serving = [Serving(self, raises=k % 5 == 4) for k in range(40)]

    def signature(self):
        rng = self.rng
        arguments = tuple(Argument.of(rng.choice(self.good)) for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 5, 20])))
        sources = [rng.randrange(len(arguments)) for _ in range(rng.choice([0, 1, 1, 1, 2, 4]) if arguments else 0)]
        outputs = tuple(output_like(arguments[k], rng.random() < 0.7) for k in sources)
        workspace = rng.choice([0, 0, 0, 1, 100, 4096, 5000, 300_000])
        signature = Signature(arguments, outputs, rng.random() < 0.3, workspace, rng.random() < 0.2)
        return signature, sources, int(rng.random() < 0.1 and not workspace)

    def arguments(self, rng, serving):
        """What a signature takes, or that with one fault, or anything."""
        args = [rng.choice(self.fitting(argument)) for argument in rng.choice(serving.known)[0].arguments]
        mood = rng.random()
        if mood < 0.5:
            return args
        if args and mood < 0.75:
            args[rng.randrange(len(args))] = rng.choice(self.values)
        elif mood < 0.85:
            args = args[: rng.randrange(len(args) + 1)] + [rng.choice(self.values)] * rng.randrange(3)
        else:
            args = [rng.choice(self.values) for _ in range(rng.randrange(6))]
        return args

    def fitting(self, argument):
        if argument not in self.fits:
            self.fits[argument] = [value for value in self.good if argument.accepts(value)]
        return self.fits[argument]

    def call(self, rng, serving):
        """One call; true if a kernel served it."""
        args = self.arguments(rng, serving)
        kwargs = {"key": rng.choice(self.values)} if rng.random() < 0.03 else {}
        return serving.served(rng, args, kwargs)

    def calls(self, seed, count, deadline):
        """That many calls, or what there is time for: how many were made, how many were served by a kernel."""
        rng = random.Random(seed)
        served = 0
        for k in range(count):
            if k % 1000 == 999:
                serving = rng.choice(self.serving)
                if len(serving.known) < 12:
                    serving.add(self)
                gc.collect(0)
                if time.monotonic() > deadline:
                    return k + 1, served
            served += self.call(rng, rng.choice(self.serving))
        return count, served


def fuzz(seed, count, seconds, threads):
    faulthandler.enable()
    sys.setswitchinterval(1e-4)
    with tempfile.TemporaryDirectory() as directory:
        run = Fuzz(seed, directory)
        run.calls(seed, 2000, time.monotonic() + seconds)  # all that is made once is made
        watched = [*run.values, np.dtype("f8"), np.dtype("i8"), np.ndarray]
        before, blocks = [sys.getrefcount(value) for value in watched], sys.getallocatedblocks()
        deadline, done, faults = time.monotonic() + seconds, [], []

        def work(number):
            try:
                done.append(run.calls(f"{seed} {number}", count // threads, deadline))
            except BaseException as fault:
                faults.append(fault)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if faults:
            raise faults[0]
        gc.collect()
        off = [
            (value, now - then)
            for value, now, then in zip(watched, map(sys.getrefcount, watched), before, strict=True)
            if abs(now - then) > 50 and not isinstance(value, type | int | str | bytes | None.__class__ | tuple)
        ]
        assert not off, f"references leak: {off}"
        assert sys.getallocatedblocks() - blocks < 20_000, "memory leaks"
        calls, served = (sum(numbers) for numbers in zip(*done, strict=True))
        assert served > calls // 10 and calls - served > calls // 10, "too one-sided to mean anything"
        print(f"native: {native_refusal() is None}; {calls:,} calls, {served:,} served by kernels")


def run_apart(seed, count, seconds, threads):
    arguments = [str(value) for value in (seed, count, seconds, threads)]
    command = [sys.executable, "-m", "tests.test_dispatcher_fuzz"]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, f"seed {seed}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("threads", [1, 3])
def test_hostile_calls(threads):
    run_apart(20261121 + threads, 60_000, 8, threads)


@pytest.mark.slow
@pytest.mark.timeout(1600)
@pytest.mark.parametrize("threads", [1, 4])
def test_a_million_hostile_calls(threads):
    assert "1,000,000 calls" in run_apart(int(time.time()), 1_000_000, 1000, threads)


if __name__ == "__main__":
    fuzz(*(int(value) for value in sys.argv[1:]))
