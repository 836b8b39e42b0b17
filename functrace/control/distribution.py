"""Distribution of a loop: its body split into stages, each of which runs for all repetitions before the next starts.

Only what feeds itself from one repetition to the next needs a loop. What the other equations read from repetitions
before is a shift of what is there already, so they run for all repetitions at once; and where a value is only added to
one that is carried, the end is a sum. Cf. R. Allen and K. Kennedy, Optimizing Compilers for Modern Architectures
(2001), chapter 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from functrace.core.ir import Eqn, subjaxprs
from functrace.primitives.families import add

__all__ = ["Operand", "Output", "Slot", "Stage", "distribute"]

#: An output of the body: the place of its equation, and which of that equation's.
Output = tuple[int, int]
#: An output, and how many repetitions ago it was made.
Slot = tuple[int, int, int]

_LARGE = 1_024  # elements, from which an operation is as fast in a loop
_MOST = 1 << 22  # elements of all repetitions that are held at once
_DEEPEST = 8  # stages


class Operand(NamedTuple):
    """How the body reads an operand.

    Attributes:
        kind: "made" in the same repetition, "carried" from one before, "constant", "slice" (another one in each
            repetition) or "literal".
        key: an `Output`, a `Slot`, a variable, the numbers of the outside operands, or the number.
        shape: of the result that a slice which is a plain number stands for, in elementwise operations.
    """

    kind: str
    key: Any
    shape: tuple[int, ...] = ()


class Stage(NamedTuple):
    """Equations of the body, by their places, that are run for all repetitions: at once, as a loop, or as a sum."""

    kind: str
    places: list[int]


def distribute(
    eqns: Sequence[Eqn], operands: Sequence[Sequence[Operand]], times: int, read_late: set[Output]
) -> list[Stage]:
    """The stages of a loop's body, in order.

    Args:
        eqns: the body.
        operands: of each equation.
        times: how often it is repeated.
        read_late: the outputs that somebody reads of other repetitions than the last.
    """
    graph = _Graph(eqns, operands)
    sums = [chain for i in range(len(eqns)) if (chain := graph.sum_from(i, read_late))]
    graph.drop([i for chain in sums for i in chain])
    levels = graph.levels(min(_LARGE, _MOST // times))
    if levels is None:
        return [Stage("loop", list(range(len(eqns))))]
    stages: list[Stage] = []
    for kind, level in sorted(set(levels.values())):
        places = [i for i in range(len(eqns)) if levels.get(i) == (kind, level)]
        stages.append(Stage("loop" if kind == 1 else "batch", places))
    return stages + [Stage("sum", chain) for chain in sums]


class _Graph:
    """What the equations of a body read of each other, in one repetition and from one to the next."""

    def __init__(self, eqns: Sequence[Eqn], operands: Sequence[Sequence[Operand]]) -> None:
        self.eqns, self.operands = eqns, operands
        self.places = list(range(len(eqns)))
        self.made = [[o.key[0] for o in row if o.kind == "made"] for row in operands]
        self.carried = [[o.key[0] for o in row if o.kind == "carried"] for row in operands]

    def sum_from(self, i: int, read_late: set[Output]) -> list[int]:
        """Additions, `i` the first, that only add to what the last of them gave in the repetition before; or none."""
        last = next((o.key[0] for o in self.operands[i] if o.kind == "carried" and o.key[1:] == (0, 1)), None)
        chain = [i]
        while last is not None and self._adds(chain[-1]) and (chain[-1], 0) not in read_late:
            readers = [j for j in self.places for k in (*self.made[j], *self.carried[j]) if k == chain[-1]]
            if len(readers) != 1:
                break
            if chain[-1] == last:
                return chain if readers == [i] else []
            if readers[0] <= chain[-1]:
                break
            chain.append(readers[0])
        return []

    def _adds(self, i: int) -> bool:
        """Whether an equation adds two values that both change from one repetition to the next."""
        kinds = {o.kind for o in self.operands[i]}
        return (
            self.eqns[i].primitive is add
            and kinds <= {"made", "carried", "slice"}
            and not any(o.kind == "slice" and o.shape for o in self.operands[i])
        )

    def drop(self, places: Sequence[int]) -> None:
        """Takes equations away that no other reads."""
        gone = set(places)
        self.places = [i for i in self.places if i not in gone]

    def levels(self, largest: int) -> dict[int, tuple[int, int]] | None:
        """Per equation 0 if it runs before the loop, 1 in it, 2 after it; and its stage there. None: too many.

        Operations on more than `largest` elements run in the loop.
        """
        looped = self._cyclic() | {i for i in self.places if not _batches(self.eqns[i], largest)}
        after = self._reached(looped, forward=True)
        before = self._reached(looped, forward=False)
        group = {i: 1 if i in after and i in before else 2 if i in after else 0 for i in self.places}
        level = dict.fromkeys(self.places, 0)
        for _ in range(_DEEPEST + 1):
            changed = False
            for i in self.places:
                if group[i] == 1:
                    continue
                found = max(
                    [level[j] for j in self.made[i] if group[j] == group[i]]
                    + [level[j] + 1 for j in self.carried[i] if group[j] == group[i]],
                    default=0,
                )
                if found > level[i]:
                    level[i], changed = found, True
            if not changed:
                return {i: (group[i], level[i]) for i in self.places}
        return None

    def _cyclic(self) -> set[int]:
        """Equations that read their own results of earlier repetitions, by way of others."""
        # What reaches a carried value is found for all of these at once, a bit each.
        sources = sorted({j for i in self.places for j in self.carried[i]})
        bit = {j: 1 << k for k, j in enumerate(sources)}
        reads = dict.fromkeys(self.places, 0)
        while True:
            changed = False
            for i in self.places:
                found = reads[i]
                for j in self.made[i]:
                    found |= reads[j]
                for j in self.carried[i]:
                    found |= bit[j] | reads[j]
                if found != reads[i]:
                    reads[i], changed = found, True
            if not changed:
                return {j for j in sources if reads[j] & bit[j]}

    def _reached(self, starts: set[int], forward: bool) -> set[int]:
        """What depends on some equations, or what they depend on, with themselves."""
        near: dict[int, list[int]] = {i: [] for i in self.places}
        for i in self.places:
            for j in (*self.made[i], *self.carried[i]):
                if forward:
                    near[j].append(i)
                else:
                    near[i].append(j)
        reached, waiting = set(starts), list(starts)
        while waiting:
            for j in near[waiting.pop()]:
                if j not in reached:
                    reached.add(j)
                    waiting.append(j)
        return reached


def _batches(eqn: Eqn, largest: int) -> bool:
    """Whether an equation gains by running for all repetitions at once: it is small, and holds no program or code."""
    if eqn.primitive.batch is None or any(v.aval.size > largest for v in eqn.outvars):
        return False
    return not any(subjaxprs(eqn)) and not any(callable(p) and not isinstance(p, type) for p in eqn.params.values())
