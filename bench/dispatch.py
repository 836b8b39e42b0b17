"""Time of one call of compiled code, arguments checked and results allocated; the kernel adds the arguments up.

`python -m bench.dispatch [--rounds N] [--md FILE]`. All but the kernel's few nanoseconds is the price of the call.
The columns: the native dispatcher's bound method, the object itself, its portable twin in Python and ctypes, a ctypes
call in a wrapper with a dictionary of signatures as one would write it by hand, `np.add`, and a Numba function.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import SMOKE, Effort, Scenario, run, to_markdown
from bench.peers import Peer
from functrace import tree
from functrace.backend import llvm
from functrace.backend.dispatcher import make_dispatcher, native_refusal
from functrace.backend.flattener import flattening, missed
from functrace.backend.signatures import Argument, Output, Signature

SIZE = 4
COUNTS = (1, 5, 20)
BARS = {1: 0.3e-6, 5: 0.4e-6, 20: 0.8e-6}


def sum_kernel(count: int) -> str:
    """IR of `kernel{count}`: the sum of so many vectors of `SIZE` numbers."""
    vector = f"<{SIZE} x double>"
    lines = [f"define i64 @kernel{count}(ptr %pointers) {{"]
    for k in range(count + 1):
        lines += [f"  %at{k} = getelementptr ptr, ptr %pointers, i64 {k}", f"  %data{k} = load ptr, ptr %at{k}"]
    lines.append(f"  %sum0 = load {vector}, ptr %data0, align 8")
    for k in range(1, count):
        lines.append(f"  %value{k} = load {vector}, ptr %data{k}, align 8")
        lines.append(f"  %sum{k} = fadd {vector} %sum{k - 1}, %value{k}")
    lines += [f"  store {vector} %sum{count - 1}, ptr %data{count}, align 8", "  ret i64 0", "}"]
    return "\n".join(lines)


def copy_kernel(count: int) -> str:
    """IR of `copy{count}`: so many vectors of `SIZE` numbers, each copied."""
    lines = [f"define i64 @copy{count}(ptr %pointers) {{"]
    for k in range(2 * count):
        lines += [f"  %at{k} = getelementptr ptr, ptr %pointers, i64 {k}", f"  %data{k} = load ptr, ptr %at{k}"]
    for k in range(count):
        lines.append(f"  %value{k} = load <{SIZE} x double>, ptr %data{k}, align 8")
        lines.append(f"  store <{SIZE} x double> %value{k}, ptr %data{count + k}, align 8")
    return "\n".join([*lines, "  ret i64 0", "}"])


@functools.cache
def library() -> llvm.Library:
    target = llvm.target()
    kernels = [*map(sum_kernel, COUNTS), copy_kernel(7)]
    return llvm.load(llvm.compile_ir("\n".join(kernels), target), target)


def vectors(count: int) -> list[Any]:
    return [np.arange(float(SIZE)) + k for k in range(count)]


def dispatcher(count: int, portable: bool) -> Any:
    vector = Argument.array(np.float64, (SIZE,))
    signature = Signature((vector,) * count, (Output.array(np.float64, (SIZE,)),))
    return make_dispatcher(signature, library().address(f"kernel{count}"), missed, keep=library(), portable=portable)


def stacked(result: Any) -> Any:
    return np.array(tree.leaves(result)) if type(result) is tuple else result


def by_hand(count: int) -> Callable[..., Any]:
    """Python and ctypes: a dictionary from dtypes and shapes to a foreign function."""
    kernel = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(library().address(f"kernel{count}"))
    pointers = ctypes.c_void_p * (count + 1)
    known = {tuple((x.dtype, x.shape) for x in vectors(count)): kernel}

    def call(*args: Any) -> Any:
        function = known[tuple([(x.dtype, x.shape) for x in args])]
        result = np.empty(SIZE)
        function(pointers(*[x.ctypes.data for x in args], result.ctypes.data))
        return result

    return call


def numba_function(count: int) -> Callable[..., Any]:
    numba = importlib.import_module("numba")
    names = [f"x{k}" for k in range(count)]
    lines = [f"def total({', '.join(names)}):", f"    out = np.empty({SIZE})", f"    for i in range({SIZE}):"]
    lines += [f"        out[i] = {' + '.join(f'{name}[i]' for name in names)}", "    return out"]
    namespace: dict[str, Any] = {"np": np}
    exec("\n".join(lines), namespace)
    return numba.njit(namespace["total"])


def callable_of(peer: str, count: int) -> Callable[..., Any]:
    match peer:
        case "functrace":
            return dispatcher(count, False).__call__
        case "object":
            return dispatcher(count, False)
        case "portable":
            return dispatcher(count, True)
        case "ctypes":
            return by_hand(count)
        case "numba":
            return numba_function(count)
        case _:
            return np.add


def call(count: int) -> Scenario:
    """One call with so many arrays, one array out. For np.add: always two in."""

    def setup(peer: Peer) -> Callable[[], Any]:
        function = callable_of(peer.name, count)
        args = vectors(count)
        if peer.name == "np.add":  # whatever the count, the same result from two arrays
            args = [sum(args), np.zeros(SIZE)]
        return functools.partial(function, *args)

    return Scenario(
        name=f"{count} array{'s' * (count > 1)} in, one out" + f" (bar {BARS[count] * 1e6:.1g} us)",
        setup=setup,
        expected=lambda: sum(vectors(count)),
        peers=("functrace", "object", "portable", "ctypes", "np.add", "numba"),
    )


def pytree_call() -> Scenario:
    """A dictionary of six arrays and one array, in and out, through the generated flattener."""
    params = dict(zip(("W1", "b1", "W2", "b2", "W3", "b3"), vectors(6), strict=True))
    x = np.ones(SIZE)

    def setup(peer: Peer) -> Callable[[], Any]:
        vector = Argument.array(np.float64, (SIZE,))
        signature = Signature((vector,) * 7, (Output.array(np.float64, (SIZE,)),) * 7)
        flat = make_dispatcher(
            signature, library().address("copy7"), missed, keep=library(), portable=peer.name == "portable"
        )
        structure = tree.structure((params, x))
        return functools.partial(flattening(structure, structure, flat.__call__, missed), params, x)

    return Scenario(
        name="dict of 6 arrays and an array, in and out (bar 2 us)",
        setup=setup,
        expected=lambda: np.array(tree.leaves((params, x))),
        peers=("functrace", "portable"),
    )


def scenarios() -> Iterator[Scenario]:
    yield from map(call, COUNTS)
    yield pytree_call()


def peers() -> list[Peer]:
    modules = {"functrace": "functrace", "object": "functrace", "portable": "functrace", "ctypes": "numpy"}
    modules |= {"np.add": "numpy", "numba": "numba"}
    found = {name: module for name, module in modules.items() if importlib.util.find_spec(module)}
    return [Peer(name=name, module=module, np=np, numpy=stacked) for name, module in found.items()]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.dispatch", description="Time of one call of compiled code.")
    parser.add_argument("--smoke", action="store_true", help="two short rounds: only to see that it runs")
    parser.add_argument("--rounds", type=int, default=25, help="rounds in which the columns take turns (%(default)s)")
    parser.add_argument("--md", type=Path, metavar="FILE", help="write the table that goes to stdout")
    options = parser.parse_args()
    if reason := native_refusal():
        print(f"the native dispatcher is not used here: {reason}", file=sys.stderr)
    timings = run(scenarios(), peers(), SMOKE if options.smoke else Effort(rounds=options.rounds))
    table = to_markdown("dispatch", timings, peers(), [])
    print(table, end="")
    if options.md:
        options.md.write_text(table, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
