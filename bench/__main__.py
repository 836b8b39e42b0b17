"""`python -m bench SUITE [--smoke] [--json FILE] [--md FILE] [--peers a,b] [--only TEXT]`: the table on stdout.

Suites that are no tables of scenarios have options of their own: `python -m bench ipopt --help`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import (
    choice,
    coloring,
    control,
    eager,
    higher,
    ipopt,
    kernels,
    lagrangian,
    memory,
    modes,
    rates,
    suite,
    vmath,
)
from bench.harness import SMOKE, Effort, WrongResult, run, to_json, to_markdown
from bench.peers import LOADERS, load_peers
from bench.plots import plot_modes

SUITES = {
    "control": control.scenarios,
    "eager": eager.scenarios,
    "higher": higher.scenarios,
    "kernels": kernels.scenarios,
    "lagrangian": lagrangian.scenarios,
    "modes": modes.scenarios,
    "vmath": vmath.scenarios,
}
APART = {
    "choice": choice.main,
    "coloring": coloring.main,
    "ipopt": ipopt.main,
    "memory": memory.main,
    "rates": rates.main,
    "suite": suite.main,
}


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in APART:
        return APART[argv[0]](argv[1:])
    parser = argparse.ArgumentParser(prog="python -m bench", description="Timings of functrace beside its peers.")
    parser.add_argument("suite", choices=sorted({*SUITES, *APART}))
    parser.add_argument("--smoke", action="store_true", help="small sizes, two rounds: only to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every timing, the machine and the versions")
    parser.add_argument("--md", type=Path, metavar="FILE", help="write the table that goes to stdout")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the suite modes (needs matplotlib)")
    parser.add_argument("--peers", default=",".join(LOADERS), help="which of %(default)s, where installed")
    parser.add_argument("--only", default="", metavar="TEXT", help="only scenarios whose name contains this")
    parser.add_argument(
        "--rounds", type=int, default=Effort.rounds, help="rounds in which peers take turns (%(default)s)"
    )
    options = parser.parse_args(argv)

    if options.plot and options.suite != "modes":
        parser.error("only the suite 'modes' is drawn")
    names = options.peers.split(",")
    if unknown := set(names) - set(LOADERS):
        parser.error(f"unknown peers: {', '.join(sorted(unknown))}; there are {', '.join(LOADERS)}")
    selected = [scenario for scenario in SUITES[options.suite](options.smoke) if options.only in scenario.name]
    if not selected:
        parser.error(f"no scenario of {options.suite!r} contains {options.only!r}")

    peers, absent = load_peers(names)
    try:
        timings = run(selected, peers, SMOKE if options.smoke else Effort(rounds=options.rounds))
    except WrongResult as error:
        print(error, file=sys.stderr)
        return 1
    table = to_markdown(options.suite, timings, peers, absent)
    print(table, end="")
    if options.md:
        options.md.write_text(table, encoding="utf-8")
    if options.plot:
        plot_modes(timings, options.plot)
    if options.json:
        options.json.write_text(to_json(options.suite, timings, peers, absent) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
