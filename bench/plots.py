"""The trade-off of the modes as one picture: `python -m bench modes --plot FILE`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.harness import Timing

COLORS = {"forward": "tab:blue", "reverse": "tab:red", "auto": "black"}
NESTINGS = {"fwd-rev": "tab:blue", "rev-rev": "tab:red", "fwd-fwd": "tab:cyan", "rev-fwd": "tab:pink", "auto": "black"}
PEERS = ("functrace", "eager", "autograd", "jax", "torch")
SWEEP = re.compile(r"n=(\d+), m=(\d+), (\w+)")
HESSIAN = re.compile(r"Hessian n=(\d+), ([\w-]+)")
OTHER = re.compile(r"(waist|band) (.*), (\w+)")


def plot_modes(timings: Sequence[Timing], path: Path) -> None:
    """Cross-over of forward and reverse mode, the Hessians over n, and the waist and the band, peer by peer.

    Args:
        timings: those of the suite "modes".
        path: where to save the figure; its ending says in which format.
    """
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({"svg.hashsalt": "functrace", "svg.fonttype": "none"})
    found = {(t.scenario, t.peer): t.median for t in timings}
    sweeps, hessians, others = _sorted(found)
    figure = Figure(figsize=(11, 7), layout="constrained")
    above, below = figure.subfigures(2, 1)
    counts = sorted({m for m, _ in sweeps})
    for axes, m in zip(above.subplots(1, len(counts), sharey=True, squeeze=False)[0], counts, strict=True):
        for mode, color in COLORS.items():
            _line(axes, sweeps[m, mode], mode, color)
        axes.set(title=f"Jacobian, {m} output{'s' if m > 1 else ''}", xlabel="inputs", xscale="log", yscale="log")
    above.axes[0].set_ylabel("seconds")
    above.axes[0].legend(fontsize="small")
    left, right = below.subplots(1, 2)
    for mode, color in NESTINGS.items():
        _line(left, hessians[mode], mode, color)
    left.set(title="Hessian", xlabel="inputs", xscale="log", yscale="log", ylabel="seconds")
    left.legend(fontsize="small")
    _bars(right, others)
    for axes in (*above.axes, left, right):
        axes.minorticks_off()
    figure.savefig(path, **({"metadata": {"Date": None}} if path.suffix == ".svg" else {}))


def _sorted(found: dict[tuple[str, str], float]) -> tuple[Any, Any, Any]:
    """The times of functrace's compiled programs over n, and all peers' on the waist and the band."""
    sweeps, hessians, others = defaultdict(list), defaultdict(list), {}
    for (scenario, peer), seconds in found.items():
        if match := OTHER.fullmatch(scenario):
            others[match[1], peer, match[3]] = seconds
        if peer != "functrace":
            continue
        if match := SWEEP.fullmatch(scenario):
            sweeps[int(match[2]), match[3]].append((int(match[1]), seconds))
        elif match := HESSIAN.fullmatch(scenario):
            hessians[match[2]].append((int(match[1]), seconds))
    return sweeps, hessians, others


def _line(axes: Any, points: Sequence[tuple[int, float]], mode: str, color: str) -> None:
    style = {"linestyle": ":", "marker": "x", "linewidth": 2} if mode == "auto" else {"marker": "o", "markersize": 4}
    axes.plot([n for n, _ in sorted(points)], [s for _, s in sorted(points)], color=color, label=mode, **style)


def _bars(axes: Any, others: dict[tuple[str, str, str], float]) -> None:
    """Times side by side: a group per program and peer, a bar per mode."""
    groups = [(name, peer) for name in ("waist", "band") for peer in PEERS if (name, peer, "forward") in others]
    for shift, (mode, color) in enumerate(COLORS.items()):
        known = [(k, others[(*g, mode)]) for k, g in enumerate(groups) if (*g, mode) in others]
        axes.bar([k + 0.27 * (shift - 1) for k, _ in known], [s for _, s in known], 0.27, color=color, label=mode)
    axes.set_xticks(range(len(groups)), [f"{name}\n{peer}" for name, peer in groups], fontsize="x-small")
    axes.set(title="Jacobian with a waist, and with a band", yscale="log", ylabel="seconds")
    axes.legend(fontsize="small")
