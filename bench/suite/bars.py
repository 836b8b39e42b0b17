"""What the suite demands: rows of scenarios with a bar each, and whether timings meet it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.harness import BASELINE, Scenario, Timing, duration

#: Two ways to run JAX, which differ for the whole process; a bar is against the better one.
DISPATCH = ("async", "sync")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the bars' table.

    Args:
        name: the work.
        bar: the demand in words.
        scenarios: what is timed for it.
        faster: per peer, how many times faster than it functrace must be at least.
        at_most: seconds a call, per operation, that functrace may take; of each scenario, by part of its name.
        spread: how far the slowest of the scenarios of one size (names up to the first comma) may be from the fastest.
        first: whether the demand is on the first call (`at_most`, `faster`), not on later ones.
    """

    name: str
    bar: str
    scenarios: Sequence[Scenario] = ()
    faster: Mapping[str, float] = field(default_factory=dict)
    at_most: Mapping[str, float] = field(default_factory=dict)
    spread: float | None = None
    first: bool = False


@dataclass(frozen=True)
class Verdict:
    """How one scenario stands to its row's bar. `ratio` 1 meets it exactly, above 1 is better."""

    row: str
    bar: str
    scenario: str
    ours: float
    peers: dict[str, float]
    ratio: float | None

    @property
    def met(self) -> str:
        if self.ratio is None:
            return "-"
        return "met" if self.ratio >= 1.0 else "within 1.5" if self.ratio >= 1 / 1.5 else "not met"


def judge(row: Row, runs: Mapping[str, Sequence[Timing]]) -> list[Verdict]:
    """The row's verdicts from the timings of each process; ratios are those within a process."""
    verdicts = [v for s in row.scenarios if (v := judge_case(row, s.name, runs)) is not None]
    return verdicts + (spreads(row, verdicts) if row.spread is not None else [])


def judge_case(row: Row, name: str, runs: Mapping[str, Sequence[Timing]]) -> Verdict | None:
    """One scenario; the times shown are those of the process that decides."""

    def value(timing: Timing) -> float:
        return timing.first if row.first else timing.median

    found = {d: {t.peer: t for t in run if t.scenario == name} for d, run in runs.items()}
    found = {d: timings for d, timings in found.items() if BASELINE in timings}
    if not found:
        return None
    ratios: list[tuple[float, str]] = []
    for dispatch, timings in found.items():
        for peer, factor in row.faster.items():
            if peer in timings:
                ratios.append((ratio_to(timings[peer], timings[BASELINE], row.first) / factor, dispatch))
    quickest = min(found, key=lambda d: value(found[d][BASELINE]))
    for part, limit in row.at_most.items():
        if part in name:
            ours = found[quickest][BASELINE]
            ratios.append((limit * ours.operations / value(ours), quickest))
    ratio, decides = min(ratios) if ratios else (None, quickest)
    shown = {peer: value(t) for timings in (*found.values(), found[decides]) for peer, t in timings.items()}
    return Verdict(row.name, row.bar, name, shown.pop(BASELINE), shown, ratio)


def ratio_to(peer: Timing, ours: Timing, first: bool) -> float:
    """How many times faster functrace is than a peer in the same process."""
    if first:
        return peer.first / ours.first
    assert peer.ratio is not None
    return peer.ratio


def spreads(row: Row, verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Per size, the slowest of the ways to do the same against the fastest."""
    assert row.spread is not None
    groups: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        groups.setdefault(verdict.scenario.partition(",")[0], []).append(verdict)
    found = []
    for size, members in groups.items():
        slow, quick = max(v.ours for v in members), min(v.ours for v in members)
        peers = {
            peer: max(v.peers[peer] for v in members) / min(v.peers[peer] for v in members)
            for peer in members[0].peers
            if all(peer in v.peers for v in members)
        }
        text = "; ".join(f"{peer} {ratio:.3g}" for peer, ratio in peers.items())
        name = f"{size}, slowest / fastest: {slow / quick:.3g}" + (f" ({text})" if text else "")
        found.append(Verdict(row.name, row.bar, name, slow, {}, row.spread * quick / slow))
    return found


def table(verdicts: Sequence[Verdict]) -> list[str]:
    """The whole table in Markdown: work, bar, ours, peers, ratio to the bar, met or not."""
    peers = list(dict.fromkeys(peer for v in verdicts for peer in v.peers))
    lines = [
        "| work | case | bar | functrace | " + " | ".join(peers) + " | times the bar | |",
        "|---" * (6 + len(peers)) + "|",
    ]
    row = ""
    for v in verdicts:
        cells = [duration(v.peers[peer]) if peer in v.peers else "-" for peer in peers]
        ratio = "-" if v.ratio is None else f"{v.ratio:.2g}"
        head = (v.row, v.bar) if v.row != row else ("", "")
        row = v.row
        cells = [head[0], v.scenario, head[1], duration(v.ours) if v.ours else "-", *cells, ratio, v.met]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many bars are met, near and missed."""
    judged = [v for v in verdicts if v.ratio is not None]
    met, near = sum(v.met == "met" for v in judged), sum(v.met == "within 1.5" for v in judged)
    missed = [f"{v.row}: {v.scenario}" for v in judged if v.met == "not met"]
    text = f"{met} of {len(judged)} cases meet their bar, {near} are within 1.5 times of it, {len(missed)} are not"
    return text + (": " + "; ".join(missed) + "." if missed else ".")


def as_json(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    return [{**vars(v), "met": v.met} for v in verdicts]
