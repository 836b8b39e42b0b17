"""The command `functrace`: its subcommands and their options."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from functrace import demo, errors, inspect
from functrace.backend import disk_cache

__all__ = ["main"]

#: A negative number in any of Python's spellings, or a negated list: argparse takes some of these for options.
_NEGATIVE = re.compile(r"-(\.?\d|inf|nan|\[|\()")
_OWN_PLACE = re.compile(r"  where: .*(\bfunctrace(\.exe)?|__main__\.py|<frozen runpy>):\d+ in ")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="functrace", description="Turns NumPy functions into their derivatives.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"functrace {metadata.version('functrace')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command = commands.add_parser(
        "demo",
        help="differentiate three classic problems in every mode and check the results",
        description="Differentiates a textbook function, a neural network on the Wine data, and a constrained "
        "optimisation problem in every mode, and checks each result against a closed form.",
    )
    command.set_defaults(run=run_demo)
    command = commands.add_parser(
        "cache",
        help="show or clear the compiled code kept on disk",
        description="Compiled code is kept on disk from one process to the next. FUNCTRACE_CACHE=0 switches that off, "
        "FUNCTRACE_CACHE_DIR names another directory.",
    )
    command.add_argument(
        "action",
        nargs="?",
        choices=("info", "list", "clear", "path"),
        default="info",
        help="info: where it is and how large (the default); list: its entries, those used last first; "
        "clear: remove them; path: only the directory",
    )
    command.set_defaults(run=run_cache)
    _add_trace(commands)
    _add_draw(commands)
    _add_modes(commands)
    return parser


def _add_function(command: argparse.ArgumentParser) -> None:
    """The words that name a function and where to look at it."""
    command.add_argument("function", metavar="MODULE:FUNCTION", help="the function; MODULE may be a path to a .py file")
    command.add_argument(
        "--at",
        nargs="+",
        required=True,
        metavar="VALUE",
        help="its arguments, each a Python literal: numbers become floats, lists arrays",
    )


def _add_trace(commands: Any) -> None:
    command = commands.add_parser(
        "trace",
        help="print the table of primal values, tangents and adjoints of a function at a point",
        description="Prints every intermediate value of a function at a point with its formula, beside it tangents "
        "(forward mode), adjoints (reverse mode), or both nested in any of the four ways.",
    )
    _add_function(command)
    command.add_argument("--mode", choices=inspect.MODES, default="forward", help="of a nesting, the outer mode first")
    command.add_argument("--tangents", nargs="+", metavar="VALUE", help="the direction; by default the first unit")
    command.add_argument("--format", choices=("text", "markdown", "latex", "html"), default="text")
    command.add_argument("--digits", type=int, default=3, help="decimal places")
    command.set_defaults(run=run_trace)


def _add_draw(commands: Any) -> None:
    command = commands.add_parser(
        "draw",
        help="draw the computational graph of a function at a point",
        description="Writes the graph of a function as SVG, or in the languages of Graphviz (dot) and Mermaid.",
    )
    _add_function(command)
    command.add_argument("--output", "-o", metavar="FILE", help="a file .svg, .dot or .mmd; by default standard output")
    command.add_argument("--format", choices=("svg", "dot", "mermaid"), default="svg", help="for standard output")
    command.add_argument("--values", action="store_true", help="write each value on its edge")
    command.add_argument("--derivatives", choices=("partial", "forward", "reverse"), help="write them on the edges")
    command.add_argument("--expand", action="store_true", help="open loops, branches and jitted functions")
    command.set_defaults(run=run_draw)


def _add_modes(commands: Any) -> None:
    command = commands.add_parser(
        "modes",
        help="compare the modes of forming a Jacobian or Hessian of a function",
        description="Forms the Jacobian (or Hessian) of a function at a point in every mode: predicted and measured "
        "time and memory, whether all agree, and which one functrace chooses. An argument may also be a random one, "
        "normal:100 or normal:20x30, or the name of a .npy file.",
    )
    _add_function(command)
    command.add_argument("--hessian", action="store_true", help="of the Hessian, not the Jacobian")
    command.add_argument("--argnum", type=int, default=0, help="which argument to differentiate, from 0")
    command.add_argument("--rounds", type=int, default=7, help="how often to time each mode (%(default)s)")
    command.add_argument("--json", metavar="FILE", help="write all numbers as JSON")
    command.add_argument("--html", metavar="FILE", help="write the table as HTML")
    command.add_argument("--plot", metavar="FILE", help="draw time and memory (needs matplotlib)")
    command.set_defaults(run=run_modes)


def _point(word: str) -> Any:
    """An argument from the command line, random and stored ones included."""
    kind, _, shape = word.partition(":")
    if kind == "normal" and shape.replace("x", "").isdigit():
        return np.random.default_rng(0).normal(size=tuple(int(n) for n in shape.split("x")))
    if word.endswith(".npy"):
        try:
            return np.load(word, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise errors.ArgumentError(
                f"{word} is no array that can be read", got=str(error), remedy="write it with numpy.save"
            ) from None
    return inspect.parse_values([word])[0]


def _check_places(*paths: str | None) -> None:
    """Files are written last; that their directories exist is seen first."""
    for path in paths:
        if path and not Path(path).resolve().parent.is_dir():
            raise errors.ArgumentError(
                f"there is no directory for {path}", got=str(Path(path).parent), remedy="make it, or name another"
            )


def _progress_bar(done: int, total: int, label: str) -> None:
    """A bar on a terminal, nothing elsewhere."""
    if sys.stderr.isatty():
        filled = 30 * done // max(total, 1)
        sys.stderr.write(f"\r\x1b[K[{'#' * filled}{'.' * (30 - filled)}] {done}/{total} {label}")
        sys.stderr.flush()


def run_modes(options: argparse.Namespace) -> int:
    """`functrace modes`: the modes of a derivative side by side."""
    _check_places(options.json, options.html, options.plot)
    point = [*map(_point, options.at)]
    function = _load(options, point)
    derivative = "hessian" if options.hessian else "jacobian"
    compared = inspect.modes.compare(
        function, derivative, options.argnum, rounds=options.rounds, progress=_progress_bar
    )
    try:
        found = compared(*point)
    finally:
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")
    print(found)
    for path, text in ((options.json, found.to_json), (options.html, found._repr_html_)):
        if path:
            Path(path).write_text(text() + "\n", encoding="utf-8")
    if options.plot:
        found.plot(options.plot)
    return 0


def _load(options: argparse.Namespace, point: Sequence[Any]) -> Any:
    """The function that the command line names, which takes as many arguments as it gives."""
    function = inspect.load_function(options.function)
    try:
        signature(function).bind(*point)
    except TypeError as error:
        raise errors.ArgumentError(
            f"{options.function} does not take these arguments: {error}",
            got=f"--at {' '.join(options.at)}",
            remedy="give one value per argument of the function",
        ) from None
    except ValueError:  # a built-in function without signature
        pass
    return function


def run_trace(options: argparse.Namespace) -> int:
    """`functrace trace`: a trace table."""
    point = inspect.parse_values(options.at)
    tangents = None if options.tangents is None else inspect.parse_values(options.tangents)
    function = _load(options, point)
    table = inspect.trace_table(function)(*point, mode=options.mode, tangents=tangents, digits=options.digits)
    print(getattr(table, options.format)())
    return 0


def run_draw(options: argparse.Namespace) -> int:
    """`functrace draw`: a computational graph."""
    _check_places(options.output)
    point = inspect.parse_values(options.at)
    drawing = inspect.draw(_load(options, point))(
        *point,
        values=options.values,
        derivatives=options.derivatives,
        expand=options.expand,
    )
    if options.output:
        drawing.save(options.output)
    else:
        print(getattr(drawing, options.format)())
    return 0


def run_demo(options: argparse.Namespace) -> int:
    """`functrace demo`: 0 when every number was right, 1 otherwise."""
    report = demo.Report(sys.stdout)
    versions = f"functrace {metadata.version('functrace')}, NumPy {np.__version__}, Python {platform.python_version()}"
    report.line(versions, "title")
    return 0 if demo.run(report) else 1


def run_cache(options: argparse.Namespace) -> int:
    """`functrace cache`: what the cache of compiled code holds."""
    match options.action:
        case "path":
            print(disk_cache.directory() or "")
        case "clear":
            print(f"removed {disk_cache.clear()} entries")
        case "list":
            for stored in disk_cache.entries():
                entry = disk_cache.load(stored.key)
                name = entry.meta.get("name", "") if entry else "(not readable)"
                used = time.strftime("%Y-%m-%d %H:%M", time.localtime(stored.used))
                print(f"{stored.key[:16]}  {stored.size / 1e3:9.1f} kB  {used}  {name}".rstrip())
        case _:
            found = disk_cache.info()
            print(f"directory  {found.directory or 'none'}")
            size, limit = (f"{size / 2**20:.1f} MB" for size in (found.size, found.limit))
            print(f"content    {found.stored} entries, {size} of at most {limit}")
            print("state      in use" if found.refusal is None else f"state      not in use: {found.refusal}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after `functrace`; by default those of this process.

    Returns:
        The exit code: 0 for success, 1 for a failure, 2 for a wrong command line.
    """
    words = sys.argv[1:] if arguments is None else arguments
    options = build_parser().parse_args([f" {word}" if _NEGATIVE.match(word) else word for word in words])
    try:
        return options.run(options)
    except errors.FunctraceError as error:
        # The place of an error is this program's own where the user's function has no part in it.
        lines = [line for line in str(error).splitlines() if not _OWN_PLACE.match(line)]
        print("functrace: " + "\n".join(lines), file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, `head` for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
