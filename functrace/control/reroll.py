"""Rerolling: long repetitions in a traced program, which a Python loop leaves there, become one operation on arrays.

What is done with a program afterwards (derivatives, patterns, a plan, machine code) then takes a time that does not
grow with the number of repetitions. Equations that repetitions do not need of each other run for all of them at once;
what is left becomes a scan.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.control.distribution import Operand, Output, Slot, Stage, distribute
from functrace.control.moved import flat, join, moved, read, sources, value_of
from functrace.control.repetition import Stretch, Table, find_stretch, from_a_loop, tabulate
from functrace.control.scan import scan
from functrace.core.ir import Atom, ClosedJaxpr, Eqn, Literal, Var, hoist_constants, run_eqns
from functrace.core.types import ShapedArray, aval_of
from functrace.errors import CompilationWarning
from functrace.interpreters.batching import batch
from functrace.interpreters.staging import stage
from functrace.primitives.families import add, broadcast, reduce_sum
from functrace.primitives.indexing import index
from functrace.primitives.shape import concatenate, stack
from functrace.util import replays

__all__ = ["reroll"]

_WORTH = 256  # equations, from which a repetition is worth it
_SHARE = 8  # of a program, that a repetition has to be for the program to be made anew
_STACKED = 1 << 16  # elements from outside that may be copied to be the slices of a loop
_ROUNDS = 4
_JOINED = 8  # results of the loop, from which an operation that joins them reads them in one piece

Values = dict[Var, Any]


def reroll(closed: ClosedJaxpr, loops: bool = True, worth: int | None = None) -> ClosedJaxpr:
    """The program with its long repetitions as operations on arrays; the program itself if there are none.

    Args:
        closed: the program.
        loops: whether repetitions that need each other's results become scans; else they stay.
        worth: the fewest equations of a repetition.
    """
    try:
        return _reroll(closed, loops, _WORTH if worth is None else worth)
    except Exception as error:
        warnings.warn(
            "a repetition in a program could not be rolled up and stays as it is; please report this as a bug of "
            f"functrace, with the program and this line: {type(error).__name__}: {error}",
            CompilationWarning,
            stacklevel=2,
        )
        return closed


def _reroll(closed: ClosedJaxpr, loops: bool, fewest: int) -> ClosedJaxpr:
    for _ in range(_ROUNDS):
        if len(closed.jaxpr.eqns) < fewest or not from_a_loop(closed.jaxpr):
            break
        table = tabulate(closed)
        stretch = find_stretch(table, max(fewest, len(table.eqns) // _SHARE))
        if stretch is None:
            break
        start, period, times = stretch
        # The first repetition may read values of another type than those that follow, or make what they all read.
        tried = (_Rerolled(closed, table, Stretch(start + k * period, period, times - k)) for k in (0, 1))
        rolled = next((r for r in tried if r.possible), None)
        if rolled is None or not (loops or all(part.kind != "loop" for part in rolled.stages)):
            break
        closed = stage(rolled.run, closed.in_avals)
    return join(closed)


class _Rerolled:
    """A program with one stretch as operations on arrays.

    Attributes:
        possible: whether all that the loop reads is there before it, carried values are always of one type, and no
            more is copied than it is worth.
        first: the equations of the first repetition, which are the body.
        stages: of the body.
    """

    def __init__(self, closed: ClosedJaxpr, table: Table, stretch: Stretch) -> None:
        self.jaxpr, self.consts = closed.jaxpr, closed.consts
        self.table, self.stretch = table, stretch
        start, period, times = stretch
        self.end = start + period * times
        self.first = table.eqns[start : start + period]
        self._made = {v: i for i, e in enumerate(table.eqns) for v in e.outvars}
        self.possible = True
        self._order()
        self.operands = [self._operands(i) for i in range(period)]
        self.possible = self.possible and self._keeps_types() and self._stacked_size() <= _STACKED
        self._find_readers()
        late = {(place, k) for (place, k), steps in self.read_after.items() if min(steps.values()) < times - 1}
        self.stages = distribute(self.first, self.operands, times, late)

    def _order(self) -> None:
        """The equations before and after the loop."""
        start, end = self.stretch.start, self.end
        anchors = {id(eqn): anchor for eqn, anchor in self.table.selections}
        places = {id(eqn): i for i, eqn in enumerate(self.table.eqns)}
        self.before: list[Eqn] = []
        self.after: list[Eqn] = []
        late: set[Var] = set()
        for eqn in self.jaxpr.eqns:
            place = places.get(id(eqn))
            if place is None:
                early = anchors[id(eqn)] < start
                if not early:
                    late.update(eqn.outvars)
            elif start <= place < end:
                continue
            else:
                early = place < start
            (self.before if early else self.after).append(eqn)
        # A selection from a value that the loop or what follows it makes cannot be read by the loop.
        self.possible = not any(type(a) is Var and a in late for eqn in self.table.eqns[start:end] for a in eqn.invars)

    def _operands(self, place: int) -> list[Operand]:
        """How the operands of an equation of the body are read there."""
        first, period = self.stretch.start + place, self.stretch.period
        eqn = self.table.eqns[first]
        rows = self.table.links[first : self.end : period, : len(eqn.invars)]
        return [self._operand(eqn, atom, rows[:, k]) for k, atom in enumerate(eqn.invars)]

    def _operand(self, eqn: Eqn, atom: Atom, links: np.ndarray) -> Operand:
        start, period = self.stretch.start, self.stretch.period
        link = int(links[0])
        if link >= 0 and int(links[1]) != link:  # relative
            if link >= start:
                return Operand("made", (link - start, self._output(atom)))
            back = (start - link - 1) // period + 1
            return Operand("carried", ((link - start) % period, self._output(atom), back))
        if (links == link).all():
            if link >= start:  # what the first repetition makes for all of them is there before the second
                self.possible = False
            return Operand("literal", atom.val) if isinstance(atom, Literal) else Operand("constant", atom)
        shape = eqn.outvars[0].aval.shape if eqn.primitive.family == "elementwise" else ()
        return Operand("slice", tuple((-1 - links).tolist()), shape)

    def _stacked_size(self) -> int:
        """Elements of arrays from outside (the weights of layers, say) that would be copied into stacks."""
        picked = {eqn.outvars[0] for eqn, _ in self.table.selections}
        stacked = {o.key for row in self.operands for o in row if o.kind == "slice"}
        size = 0
        for numbers in stacked:
            atoms = [self.table.outside[i] for i in numbers]
            if not all(isinstance(a, Literal) or a in picked for a in atoms):
                size += sum([a.aval.size for a in atoms])
        return size

    def _keeps_types(self) -> bool:
        start, period, _ = self.stretch
        slots = {o.key for row in self.operands for o in row if o.kind == "carried"}
        return all(
            self.table.eqns[start + place - before * period].outvars[k].aval == self.first[place].outvars[k].aval
            for place, k, back in slots
            for before in range(1, back + 1)
        )

    def _output(self, atom: Atom) -> int:
        assert isinstance(atom, Var)
        return self.table.eqns[self._made[atom]].outvars.index(atom)

    def _find_readers(self) -> None:
        """Which results of the loop are read after it: per output, the variables and the repetitions they are of."""
        start, period, _ = self.stretch
        self.read_after: dict[Output, dict[Var, int]] = {}
        for atom in [a for eqn in self.after for a in eqn.invars] + self.jaxpr.outvars:
            place = self._made.get(atom) if isinstance(atom, Var) else None
            if place is not None and start <= place < self.end:
                step, position = divmod(place - start, period)
                self.read_after.setdefault((position, self._output(atom)), {})[atom] = step  # type: ignore[index]

    def run(self, *inputs: Any) -> list[Any]:
        """The program on values, under the current trace."""
        values: Values = dict(zip(self.jaxpr.constvars, self.consts, strict=True))
        values.update(zip(self.jaxpr.invars, inputs, strict=True))
        _run(self.before, values)
        loop = _Loop(self, values)
        for part in self.stages:
            loop.run(part)
        joined = _Joined(loop)
        for eqn in self.after:
            if not joined.run(eqn):
                _run([eqn], values)
        results = [value_of(a, values) for a in self.jaxpr.outvars]
        return [r.value() if isinstance(r, _Piece) else r for r in results]


class _Loop:
    """The loop on values: what its stages have given so far.

    Attributes:
        stacks: outputs of the body in all repetitions, along a leading axis.
        last: outputs in repetitions counted from the end, from 1.
    """

    def __init__(self, program: _Rerolled, values: Values) -> None:
        self.program, self.values = program, values
        self.eqns, self.operands = program.first, program.operands
        self.times = program.stretch.times
        self.stacks: dict[Output, Any] = {}
        self.last: dict[Slot, Any] = {}
        self.slices: dict[Any, Any] = {}
        self.sources = sources([eqn for eqn, _ in program.table.selections])

    @replays
    def run(self, part: Stage) -> None:
        """Runs a stage."""
        eqn = self.eqns[part.places[0]]  # noqa: F841 (tells the line that the stage as a whole comes from)
        if part.kind == "sum":
            self._sum(part.places)
        else:
            self._stage(part)
        for output, variables in self.program.read_after.items():
            if output[0] in part.places:
                for var, step in variables.items():
                    final = self.last.get((*output, self.times - step))
                    self.values[var] = _Piece(self, output, step) if final is None else final

    def _sum(self, chain: list[int]) -> None:
        """What the additions add in all repetitions, and the value that they start from."""
        slot = chain[-1], 0, 1
        inside = {*(("made", (i, 0)) for i in chain), ("carried", slot)}
        total = self._initial(slot)
        for i in chain:
            for operand in self.operands[i]:
                if operand[:2] not in inside:
                    total = add(total, reduce_sum(self._stacked(operand), axes=(0,)))
        self.last[slot] = total

    def _stage(self, part: Stage) -> None:
        places = set(part.places)
        fixed: dict[Any, Any] = {}
        stacks: dict[Any, Any] = {}
        carried: dict[Slot, None] = {}
        for i in part.places:
            for operand in self.operands[i]:
                kind, key, _ = operand
                if kind == "constant":
                    fixed[kind, key] = self.values[key]
                elif kind == "carried" and key[0] in places:
                    for back in range(1, key[2] + 1):
                        carried[key[0], key[1], back] = None
                elif kind != "literal" and not (kind == "made" and key[0] in places):
                    stacks[kind, key] = self._stacked(operand)
        body = _Body(self, part.places, list(fixed), list(carried), list(stacks), self._wanted(places))
        if part.kind == "batch":
            flags = [False] * len(fixed) + [True] * len(stacks)
            outs, batched = batch(body, self.times, [*fixed.values(), *stacks.values()], flags)
            outs = [out if flag else self._repeated(out) for out, flag in zip(outs, batched, strict=True)]
        else:
            initial = [self._initial(slot) for slot in carried]
            outs = self._scan(body, list(fixed.values()), initial, list(stacks.values()))
            self.last.update(zip(carried, outs, strict=False))
        self.stacks.update(zip(body.wanted, outs[len(carried) :], strict=True))

    def _scan(self, body: _Body, fixed: list[Any], initial: list[Any], stacks: list[Any]) -> list[Any]:
        avals = [*map(aval_of, fixed), *map(aval_of, initial), *(ShapedArray(x.shape[1:], x.dtype) for x in stacks)]
        jaxpr, own = hoist_constants(stage(body, avals))
        sizes = {"consts": len(own) + len(fixed), "carry": len(initial)}
        return scan.bind(*own, *fixed, *initial, *stacks, jaxpr=jaxpr, length=self.times, reverse=False, **sizes)

    def _wanted(self, places: set[int]) -> list[Output]:
        """Outputs of a stage that others read, or of which the end is not carried."""
        wanted: dict[Output, None] = {}
        depths: dict[Output, int] = {}
        for i, row in enumerate(self.operands):
            for kind, key, _ in row:
                if kind in ("made", "carried") and key[0] in places:
                    if i not in places:
                        wanted[key[:2]] = None
                    elif kind == "carried":
                        depths[key[:2]] = max(depths.get(key[:2], 0), key[2])
        for output, variables in self.program.read_after.items():
            if output[0] in places and min(variables.values()) < self.times - depths.get(output, 0):
                wanted[output] = None
        return list(wanted)

    def _stacked(self, operand: Operand) -> Any:
        """An operand that another stage or something outside has made, in all repetitions."""
        kind, key, _ = operand
        if kind == "made":
            return self.stacks[key]
        if kind == "carried":
            place, k, depth = key
            before = [self._initial((place, k, back)) for back in range(depth, 0, -1)]
            rest = self.stacks[place, k]
            kept = index(rest, at=((0, self.times - depth, 1),))
            return concatenate(stack(*before, axis=0), kept, axis=0)
        if key not in self.slices:
            self.slices[key] = self._outside(key)
        return self.slices[key]

    def _initial(self, slot: Slot) -> Any:
        """A carried value as the first repetition reads it."""
        place, k, back = slot
        start, period, _ = self.program.stretch
        return self.values[self.program.table.eqns[start + place - back * period].outvars[k]]

    def _outside(self, numbers: tuple[int, ...]) -> Any:
        """What an operand from outside is in each repetition."""
        atoms = [self.program.table.outside[i] for i in numbers]
        if all(isinstance(a, Literal) for a in atoms):
            return np.array([value_of(a, {}) for a in atoms], atoms[0].aval.dtype)
        found = [self.sources.get(a) if isinstance(a, Var) else None for a in atoms]
        origins = {None if f is None else f[0] for f in found}
        if len(origins) == 1 and None not in origins:
            (source,) = origins
            assert source is not None
            return read(flat(self.values[source]), np.stack([f[1] for f in found if f is not None]))
        return stack(*[value_of(a, self.values) for a in atoms], axis=0)

    def _repeated(self, value: Any) -> Any:
        shape = aval_of(value).shape
        return broadcast(value, shape=(self.times, *shape), axes=tuple(range(1, 1 + len(shape))))


class _Body:
    """One repetition of a stage as a function: (fixed values, carry, slices) -> (carry, wanted outputs)."""

    def __init__(
        self,
        loop: _Loop,
        places: list[int],
        fixed: list[Any],
        carried: list[Slot],
        slices: list[Any],
        wanted: list[Output],
    ) -> None:
        self.loop, self.places = loop, places
        self.fixed, self.carried, self.slices, self.wanted = fixed, carried, slices, wanted

    def __call__(self, *args: Any) -> list[Any]:
        names = [*self.fixed, *(("carried", slot) for slot in self.carried), *self.slices]
        values = dict(zip(names, args, strict=True))
        self._run(values)
        leaving = [
            values["made", (place, k)] if back == 1 else values["carried", (place, k, back - 1)]
            for place, k, back in self.carried
        ]
        return [*leaving, *(values["made", output] for output in self.wanted)]

    @replays
    def _run(self, values: dict[Any, Any]) -> None:
        for place in self.places:
            eqn = self.loop.eqns[place]
            inputs = []
            for kind, key, shape in self.loop.operands[place]:
                value = key if kind == "literal" else values[kind, key]
                inputs.append(broadcast(value, shape=shape, axes=()) if shape and not value.shape else value)
            outs = eqn.primitive.bind(*inputs, **eqn.params)
            for k, out in enumerate(outs if eqn.primitive.multiple else [outs]):
                values["made", (place, k)] = out


class _Piece:
    """An output in one repetition, taken from the stack of all when it is needed."""

    __slots__ = ("loop", "output", "step")

    def __init__(self, loop: _Loop, output: Output, step: int) -> None:
        self.loop, self.output, self.step = loop, output, step

    def value(self) -> Any:
        return index(self.loop.stacks[self.output], at=(self.step,))


class _Joined:
    """Equations after the loop that only put its results together: these read the stacks in one piece."""

    def __init__(self, loop: _Loop) -> None:
        self.loop = loop

    def run(self, eqn: Eqn) -> bool:
        """Runs an equation if it is one of these."""
        values = self.loop.values
        operands = [a.val if isinstance(a, Literal) else values[a] for a in eqn.invars]
        if sum(isinstance(x, _Piece) for x in operands) < _JOINED:
            return False
        if any(a.aval.dtype != eqn.outvars[0].aval.dtype for a in eqn.invars):
            return False
        bases: list[Any] = []
        starts: dict[Output, int] = {}
        elements: list[np.ndarray] = []
        count = 1

        def append(base: Any) -> int:
            nonlocal count
            bases.append(flat(base))
            count += aval_of(base).size
            return count - aval_of(base).size

        for atom, operand in zip(eqn.invars, operands, strict=True):
            size = atom.aval.size
            if isinstance(operand, _Piece):
                if operand.output not in starts:
                    starts[operand.output] = append(self.loop.stacks[operand.output])
                start = starts[operand.output] + operand.step * size
            else:
                start = append(operand)
            elements.append(np.arange(start, start + size).reshape(atom.aval.shape))
        found = moved(eqn, elements)
        if found is None:
            return False
        line = bases[0] if len(bases) == 1 else concatenate(*bases, axis=0)
        values[eqn.outvars[0]] = read(line, found - 1)
        return True


def _run(eqns: Sequence[Eqn], values: Values) -> None:
    for eqn in eqns:
        for atom in eqn.invars:
            if type(atom) is Var and isinstance(values[atom], _Piece):
                values[atom] = values[atom].value()
        run_eqns([(eqn, [])], values)
