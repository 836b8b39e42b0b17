"""The plan of a program: what is computed in registers, what in which loop nest, what by a call; and in which order.

Small arrays are computed element by element in registers. A large array is *stored* if it is a result, if a call reads
it, or if reading it through would cost more; the others exist only as the expressions of their elements. Stored arrays
and reductions over one space, none of which waits for another's end, share a loop nest.

Steps have times: odd ones for nests and calls, even ones for what happens in registers between them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from functrace.backend.compiler.affine import Affine, NotAffineError
from functrace.backend.compiler.choice import chosen
from functrace.backend.compiler.emit import Emitter, Unsupported
from functrace.backend.compiler.nodes import Node, Reader, SplitBoxError
from functrace.backend.compiler.places import SMALL, Buffer, Place, Small, contiguous_strides
from functrace.backend.compiler.steps import CallStep, NestStep, OtherIndexError, SmallStep, Step
from functrace.backend.compiler.templates import Form
from functrace.core.ir import Eqn, Jaxpr, Var, has_effects
from functrace.core.lowering import Call, Control, Elementwise, Indexed, Lowering, Reduction, Scan

__all__ = ["Plan"]

_UNROLLED = 64  # terms of a reduction that is computed in registers
_DEEPEST = 100  # operations that are read through on the way to an element
_STORE = 12.0  # what storing an element costs, in additions
_LOAD = 1.0  # what loading it costs
_ATTEMPTS = 20
_ROWS, _PARTS = 32, 32  # the least length of a loop over rows, and the most elements that a row has
_HALF = np.dtype(np.float16)
_POINT: list[tuple[Affine, ...]] = [()]
_NOTHING: frozenset[Step] = frozenset()


class _Places(dict[Var, Place]):
    """Where arrays are. That of a number in registers is made when it is asked for: most are read by others only."""

    def __init__(self, inputs: dict[Var, Place], numbers: dict[Var, Node]) -> None:
        super().__init__(inputs)
        self._numbers = numbers

    def __missing__(self, var: Var) -> Place:
        node = self._numbers[var]
        place = self[var] = Small((), node.dtype, [node])
        return place


class Plan:
    """The plan of one program.

    Args:
        e: for fresh names.
        jaxpr: the program, inlined and simplified, without constvars.
        inputs: where its inputs are.
        outputs: where results are wanted in memory, by variable.
    """

    def __init__(self, e: Emitter, jaxpr: Jaxpr, inputs: dict[Var, Place], outputs: dict[Var, Buffer]) -> None:
        self.e, self.jaxpr, self.inputs, self.outputs = e, jaxpr, inputs, outputs
        self.lowerings, self.forms = chosen(jaxpr.eqns)
        self.lowerings = [
            self._fused(eqn, low) if isinstance(low, Call) and low.fused else low
            for eqn, low in zip(jaxpr.eqns, self.lowerings, strict=True)
        ]
        self.stored = self._initially_stored()
        self.copied: set[Var] = set()
        attempts = 0
        while self._attempt():
            attempts += 1
            if attempts > _ATTEMPTS + len(jaxpr.eqns):
                raise Unsupported("too many attempts to plan")
        self.steps.sort(key=lambda step: step.time)

    @functools.cached_property
    def definitions(self) -> dict[Var, tuple[Eqn, Lowering | None]]:
        """By variable, the equation that gives it and its lowering."""
        found = zip(self.jaxpr.eqns, self.lowerings, strict=True)
        return {v: (eqn, low) for eqn, low in found for v in eqn.outvars}

    @functools.cached_property
    def users(self) -> dict[Var, list[Eqn]]:
        """By variable that is no result, the equations that read it."""
        users: dict[Var, list[Eqn]] = {}
        for eqn in self.jaxpr.eqns:
            for operand in dict.fromkeys(a for a in eqn.invars if isinstance(a, Var)):
                users.setdefault(operand, []).append(eqn)
        for atom in self.jaxpr.outvars:
            if isinstance(atom, Var):
                users.pop(atom, None)
        return users

    def _fused(self, eqn: Eqn, lowering: Call) -> Lowering:
        """The lowering that takes in what computes the largest operand, if that has no other use."""
        largest = max((a for a in eqn.invars), key=lambda a: a.aval.size)
        if not isinstance(largest, Var) or self.users.get(largest) != [eqn]:
            return lowering
        made = self.definitions.get(largest)
        if made is None or not isinstance(made[1], Elementwise):
            return lowering
        avals = [a.aval for a in eqn.invars]
        return next((low for low in lowering.fused if low.suits(*avals, **eqn.params)), lowering)

    # what is stored

    def _initially_stored(self) -> set[Var]:
        stored = {v for v in self.jaxpr.outvars if isinstance(v, Var)}
        others = [
            (eqn, low)
            for eqn, low, form in zip(self.jaxpr.eqns, self.lowerings, self.forms, strict=True)
            if form is None
        ]
        for eqn, lowering in others:
            if lowering is None or isinstance(lowering, (Call, Control)):
                stored.update(a for a in eqn.invars if isinstance(a, Var))
            elif isinstance(lowering, Indexed) and eqn.outvars[0].aval.size > SMALL:
                stored.update(self._barriers(eqn, lowering))
        for eqn, lowering in reversed(others):
            operand = eqn.invars[0] if eqn.invars else None
            if not isinstance(lowering, Indexed) or eqn.outvars[0] not in stored or not isinstance(operand, Var):
                continue
            if self._view(eqn, lowering, Buffer("", operand.aval.shape, operand.aval.dtype)) is not None:
                stored.add(operand)
        return stored | self._too_deep(others, stored)

    def _too_deep(self, eqns: Iterable[tuple[Eqn, Lowering | None]], stored: set[Var]) -> set[Var]:
        """Arrays that end chains of operations too long to be read through."""
        depth: dict[Var, int] = {}
        found: set[Var] = set()
        for eqn, lowering in eqns:
            out = eqn.outvars[0] if eqn.outvars else None
            if out is None or out in stored or not isinstance(lowering, (Elementwise, Indexed)):
                continue
            depth[out] = 1 + max((depth.get(a, 0) for a in eqn.invars if isinstance(a, Var)), default=0)
            if depth[out] > _DEEPEST - 1:
                found.add(out)
                depth[out] = 0
        return found

    def _barriers(self, eqn: Eqn, lowering: Indexed) -> Iterable[Var]:
        """Operands that cannot be read through this operation, because the indices are not affine."""
        try:
            self._read_alone(eqn, lowering, None)
        except NotAffineError:
            return [a for a in eqn.invars if isinstance(a, Var)]
        except SplitBoxError:
            pass
        return []

    def _read_alone(self, eqn: Eqn, lowering: Indexed, operand: Buffer | None) -> Node:
        """An element of the output, all operands in memory."""
        shape = eqn.outvars[0].aval.shape
        reader = Reader(
            shape,
            lambda var, index: None,
            lambda var, in_memory: operand or Buffer("", var.aval.shape, var.aval.dtype),
        )
        return lowering.read(reader, tuple(map(reader.variable, range(len(shape)))), *eqn.invars, **eqn.params)

    def _view(self, eqn: Eqn, lowering: Lowering | None, operand: Buffer) -> Buffer | None:
        """The output as a view of the first operand in memory, if it is one."""
        aval = eqn.outvars[0].aval
        if not isinstance(lowering, Indexed) or len(eqn.invars) != 1 or not aval.size:
            return None
        try:
            node = self._read_alone(eqn, lowering, operand)
        except (NotAffineError, SplitBoxError):
            return None
        if node.kind != "load" or node.args:
            return None
        address: Affine = node.data[1]
        return Buffer(operand.pointer, aval.shape, aval.dtype, address.coefficients, address.constant)

    # one attempt

    def _attempt(self) -> bool:
        """Plans all equations; whether it has to be done again, after more was found that has to be stored."""
        self.steps: list[Step] = []
        self.nests: dict[tuple[int, ...], list[NestStep]] = {}
        self.numbers: dict[Var, Node] = {}  # those computed in registers from others there
        self.places: dict[Var, Place] = _Places(self.inputs, self.numbers)
        self.bases: dict[Var, Var] = {}  # of views: the array in memory that they are views of
        self.spilled: dict[Var, Buffer] = {}
        self.waits: dict[Var, frozenset[Step]] = dict.fromkeys(self.inputs, frozenset())
        self.virtual: dict[Var, tuple[Eqn, Lowering]] = {}
        self.weight: dict[Var, float] = {}
        self.depth: dict[Var, int] = {}
        self.reading: Step | None = None
        self.small_steps: dict[int, SmallStep] = {}
        self._alone: dict[frozenset[Step], SmallStep] = {}  # by what is waited for
        self.registers = Reader((), lambda var, index: self.virtual.get(var), self._place_for_registers, True)
        effects = 1
        for eqn, lowering, form in zip(self.jaxpr.eqns, self.lowerings, self.forms, strict=True):
            if form is not None and self._plan_number(eqn, lowering, form):
                continue
            waits = self._waits(eqn)
            if lowering is None or isinstance(lowering, (Call, Control)):
                time = _odd_after(waits)
                if has_effects(eqn):
                    time = max(time, effects)
                    effects = time + 2
                self._plan_call(CallStep(time, eqn, lowering))
                continue
            try:
                self._plan_equation(eqn, lowering, waits)
            except NotAffineError as error:
                self._store_operands(error.eqn or eqn, eqn)
                return True
            if self.depth.get(eqn.outvars[0], 0) > _DEEPEST:
                self.stored.add(eqn.outvars[0])
                return True
        wanted = self._read_too_often()
        self.stored |= wanted
        return bool(wanted)

    def _plan_equation(self, eqn: Eqn, lowering: Lowering, waits: frozenset[Step]) -> None:
        """An operation on elements.

        Raises:
            NotAffineError: something has to be stored first.
        """
        if _is_small(eqn, lowering):
            self._plan_small(eqn, lowering, waits)
        elif not isinstance(lowering, (Reduction, Scan)) and eqn.outvars[0] not in self.stored:
            self._plan_virtual(eqn, lowering, waits)
        elif not self._plan_view(eqn, lowering):
            self._plan_root(eqn, lowering, waits)

    def _waits(self, eqn: Eqn) -> frozenset[Step]:
        found = _NOTHING
        for a in eqn.invars:
            if isinstance(a, Var):
                waits = self.waits_of(a)
                if waits is not found and not waits <= found:
                    found = found | waits if found else waits
        return found

    def waits_of(self, var: Var) -> frozenset[Step]:
        """The steps after which an array is there."""
        node = self.numbers.get(var)
        return self.waits[var] if node is None else node.step.alone  # type: ignore[union-attr]

    def place(self, var: Var, in_memory: bool) -> Place:
        """Where an array is; one in registers is written to memory too if so asked."""
        place = self.places[var]
        if isinstance(place, Small) and in_memory:
            if place.home is not None:
                return place.home
            if var not in self.spilled:
                self.spilled[var] = Buffer(self.e.fresh("buf"), place.shape, place.dtype)
            return self.spilled[var]
        return place

    def _place_for_registers(self, var: Var, in_memory: bool) -> Place:
        if self.reading is not None:
            self.reading.reads.add(var)
        return self.place(var, in_memory)

    def _new_buffer(self, var: Var) -> Buffer:
        wanted = self.outputs.get(var)
        return wanted or Buffer(self.e.fresh("buf"), var.aval.shape, var.aval.dtype)

    def _plan_call(self, step: CallStep) -> None:
        eqn = step.eqn
        step.reads = {a for a in eqn.invars if isinstance(a, Var)}
        if not isinstance(step.lowering, Control):
            for var in step.reads:
                self.place(var, True)
        for out in eqn.outvars:
            buffer = self._new_buffer(out)
            if isinstance(step.lowering, Call) and step.lowering.any_order and out not in self.outputs:
                buffer.strides = self._order_for_users(out) or buffer.strides
            self.places[out] = buffer
            self.waits[out] = frozenset([step])
        step.writes = list(eqn.outvars)
        self.steps.append(step)

    def _order_for_users(self, var: Var) -> tuple[int, ...] | None:
        """Strides such that the one thing that is read of an array, the array with its axes in another order, is
        contiguous; None if other things are.
        """
        orders = set()
        for eqn in self.users.get(var, ()):
            view = self._view(eqn, self.definitions[eqn.outvars[0]][1], Buffer("", var.aval.shape, var.aval.dtype))
            if view is None or view.offset or sorted(view.shape) != sorted(var.aval.shape):
                return None
            orders.add((view.shape, view.strides))
        if len(orders) != 1:
            return None
        shape, strides = orders.pop()
        wanted = dict(zip(strides, contiguous_strides(shape), strict=True))
        own = contiguous_strides(var.aval.shape)
        return (
            tuple([wanted[s] for s in own])
            if set(own) == set(strides) == set(wanted) and len(wanted) == len(own)
            else None
        )

    def _plan_virtual(self, eqn: Eqn, lowering: Lowering, waits: frozenset[Step]) -> None:
        out = eqn.outvars[0]
        operands = [a for a in eqn.invars if isinstance(a, Var)]
        own = lowering.price(eqn.invars) if isinstance(lowering, (Elementwise, Indexed)) else 0.0
        self.virtual[out] = (eqn, lowering)
        self.waits[out] = waits
        self.weight[out] = own + sum(self.weight.get(a, 0.0) for a in operands)
        self.depth[out] = 1 + max((self.depth.get(a, 0) for a in operands), default=0)

    def _plan_small(self, eqn: Eqn, lowering: Lowering, waits: frozenset[Step]) -> None:
        out, step = eqn.outvars[0], self._small_step(waits)
        shape = out.aval.shape
        self.reading = step
        indices = [tuple(map(self.registers.fixed, point)) for point in np.ndindex(*shape)] if shape else _POINT
        try:
            nodes = [self.registers.through(eqn, lowering, index) for index in indices]
        finally:
            self.reading = None
        self.places[out] = Small(shape, out.aval.dtype, nodes)
        self.waits[out] = step.alone
        step.writes.append(out)
        step.nodes.append(nodes)

    def _small_step(self, waits: frozenset[Step]) -> SmallStep:
        """The step in registers after the steps that are waited for."""
        time = max([w.time + w.time % 2 for w in waits], default=0)
        step = self.small_steps.get(time)
        if step is None:
            step = self.small_steps[time] = SmallStep(time)
            self.steps.append(step)
        return step

    def _plan_number(self, eqn: Eqn, lowering: Any, form: Form) -> bool:
        """An operation on numbers, if these are in registers: what `_plan_small` would make of it, in fewer steps."""
        args, waits = [], _NOTHING
        for atom in eqn.invars:
            if type(atom) is Var:
                node = self.numbers.get(atom)
                if node is None:
                    place = self.places.get(atom)
                    if type(place) is not Small or place.nodes is None or place.shape:
                        return False
                    node = place.nodes[0]
                    others = self.waits[atom]
                else:
                    others = node.step.alone  # type: ignore[union-attr]
                if others is not waits and not others <= waits:
                    waits = waits | others if waits else others
            else:
                node = self.registers.constant(atom.val, atom.aval.dtype)  # type: ignore[union-attr]
            if node.dtype is _HALF:  # which is computed in single precision
                return False
            args.append(node)
        out = eqn.outvars[0]
        made = Node("apply", out.aval.dtype, 0, form.data or (lowering.code, eqn.params), tuple(args))
        made.weight = lowering.weight if lowering.cheap is None else lowering.price(eqn.invars)
        made.form = form
        self.numbers[out] = made
        step = self._alone.get(waits)
        if step is None:
            step = self._alone[waits] = self._small_step(waits)
        made.step = step
        step.writes.append(out)
        step.nodes.append((made,))
        return True

    def _plan_view(self, eqn: Eqn, lowering: Lowering) -> bool:
        """A stored array that is a view of one in memory takes no step, unless it is a result."""
        out = eqn.outvars[0]
        operand = eqn.invars[0] if eqn.invars else None
        if out in self.copied or out in self.jaxpr.outvars or not isinstance(operand, Var) or operand in self.virtual:
            return False
        place = self.places[operand]
        view = self._view(eqn, lowering, place) if isinstance(place, Buffer) else None
        if view is None:
            return False
        self.places[out] = view
        self.bases[out] = self.bases.get(operand, operand)
        self.waits[out] = self.waits_of(operand)
        return True

    def _plan_root(self, eqn: Eqn, lowering: Lowering, waits: frozenset[Step]) -> None:
        """Finds or makes the nest of a stored array or reduction."""
        out = eqn.outvars[0]
        avals = [a.aval for a in eqn.invars]
        space = lowering.space(*avals, **eqn.params) if isinstance(lowering, Reduction) else out.aval.shape
        if self._runs_by_rows(space, out, eqn, lowering):
            space = space[:1]
        for nest in self.nests.get(space, ()):
            if all(w is nest or w.time < nest.time for w in waits):
                try:
                    nest.add(out, eqn, lowering)
                except (OtherIndexError, NotAffineError):
                    continue
                self._join(nest, out)
                return
        nest = NestStep(_odd_after(waits), space, self)
        nest.add(out, eqn, lowering)
        self.steps.append(nest)
        nests = self.nests.setdefault(space, [])
        nests.append(nest)
        nests.sort(key=lambda n: n.time)
        self._join(nest, out)

    def _runs_by_rows(self, space: tuple[int, ...], out: Var, eqn: Eqn, lowering: Lowering) -> bool:
        """Whether a loop over the first axis alone is better, all other positions in its body.

        It is for stacks of small arrays that are put together from parts: parts have much in common, and what they have
        in common is computed once and stays in registers.
        """
        if len(space) < 2 or isinstance(lowering, Scan) or space[0] < _ROWS or not 1 < math.prod(space[1:]) <= _PARTS:
            return False
        try:
            trial = NestStep(0, space, self)
            trial.add(out, eqn, lowering)
        except (OtherIndexError, NotAffineError):
            return False
        return any(box.extents[1:] != space[1:] for box in trial.boxes)

    def _join(self, nest: NestStep, out: Var) -> None:
        nest.writes.append(out)
        self.waits[out] = frozenset([nest])
        if isinstance(nest.roots[out][1], Reduction) and out.aval.shape == () and nest.boxes:
            self.places[out] = Small((), out.aval.dtype)
        else:
            self.places[out] = self._new_buffer(out)

    def _store_operands(self, eqn: Eqn, root: Eqn) -> None:
        """After reading through an equation has failed: its operands are to lie in memory, one after the other.

        If they do, what reads its output through is to find that in memory; if that is the root itself, there is no
        loop for it.
        """
        operands = [a for a in eqn.invars if isinstance(a, Var)]
        virtual = {a for a in operands if a in self.virtual}
        views = {a for a in operands if a in self.bases}
        out = eqn.outvars[0]
        if virtual:
            self.stored |= virtual
        elif views:
            self.copied |= views
        elif out in self.virtual and eqn is not root:
            self.stored.add(out)
        else:
            self.lowerings[self.jaxpr.eqns.index(root)] = None
            self.stored.update(a for a in root.invars if isinstance(a, Var))

    def _read_too_often(self) -> set[Var]:
        """Arrays read through so often that storing them is cheaper."""
        volumes: dict[Var, int] = {}
        for nests in self.nests.values():
            for nest in nests:
                for box in nest.boxes:
                    for var, volume in box.reader.read_through():
                        if var in self.virtual:
                            volumes[var] = volumes.get(var, 0) + volume
        found = {
            var
            for var, volume in volumes.items()
            if volume * (self.weight[var] - _LOAD) > (self.weight[var] + _STORE) * var.aval.size
        }
        # What only others of them read is computed where these are.
        return {v for v in found if not all(found.intersection(e.outvars) for e in self.users.get(v, ()))}


def _odd_after(waits: Iterable[Step]) -> int:
    """The first time for a nest or call that waits for these steps."""
    return max((w.time + 1 + w.time % 2 for w in waits), default=1)


def _is_small(eqn: Eqn, lowering: Lowering) -> bool:
    """Whether an equation is computed in registers."""
    if eqn.outvars[0].aval.size > SMALL:
        return False
    if isinstance(lowering, Reduction):
        space = lowering.space(*[a.aval for a in eqn.invars], **eqn.params)
        return int(np.prod(space, dtype=np.int64)) <= _UNROLLED
    return True
