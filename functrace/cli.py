"""The command `functrace`: its subcommands and their options."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata

import numpy as np

from functrace import demo

__all__ = ["main"]


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
    return parser


def run_demo(options: argparse.Namespace) -> int:
    """`functrace demo`: 0 when every number was right, 1 otherwise."""
    report = demo.Report(sys.stdout)
    versions = f"functrace {metadata.version('functrace')}, NumPy {np.__version__}, Python {platform.python_version()}"
    report.line(versions, "title")
    return 0 if demo.run(report) else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after `functrace`; by default those of this process.

    Returns:
        The exit code: 0 for success, 1 for a failure, 2 for a wrong command line.
    """
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options)
    except BrokenPipeError:  # the reader, `head` for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
