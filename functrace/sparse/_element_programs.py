"""From graphs of element operations to one program on arrays: reads, element operations by families, assembly."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from functrace.core.ir import Atom, ClosedJaxpr, Eqn, Jaxpr, Literal, Var, live_eqns
from functrace.core.types import ShapedArray
from functrace.primitives.families import broadcast, mul, reshape
from functrace.primitives.indexing import gather, index
from functrace.primitives.shape import full, reverse, slice_
from functrace.sparse._element_assembly import Assembly, Contribution, assemble
from functrace.sparse._element_graph import FULL, UNIFORM
from functrace.sparse._element_maps import IndexMap
from functrace.sparse._element_weights import Program
from functrace.sparse._families import Classes, Family

__all__ = ["Wanted", "values_program"]


class _Writer:
    """Equations under construction, each read and reshape once."""

    def __init__(self) -> None:
        self.eqns: list[Eqn] = []
        self.constants: dict[int, tuple[Var, Any]] = {}
        self._avals: dict[Any, ShapedArray] = {}
        self._flat: dict[Any, Atom] = {}
        self._reads: dict[Any, Atom] = {}
        self._spread: dict[Any, Atom] = {}

    def add(self, primitive: Any, operands: list[Atom], of: tuple[int, ...], dtype: np.dtype, /, **params: Any) -> Var:
        """One more equation, whose output has the shape `of`."""
        return self.append(primitive, operands, self.aval(of, dtype), params)

    def append(self, primitive: Any, operands: list[Atom], aval: ShapedArray, params: dict[str, Any]) -> Var:
        var = Var(aval)
        self.eqns.append(Eqn(primitive, operands, [var], params))
        return var

    def aval(self, of: tuple[int, ...], dtype: np.dtype) -> ShapedArray:
        aval = self._avals.get((of, dtype))
        if aval is None:
            aval = self._avals[of, dtype] = ShapedArray(of, dtype)
        return aval

    def constant(self, array: np.ndarray) -> Var:
        """The variable of a constant array."""
        if id(array) not in self.constants:
            self.constants[id(array)] = Var(ShapedArray(array.shape, array.dtype)), array
        return self.constants[id(array)][0]

    def close(self, program: Program, outvars: list[Atom]) -> ClosedJaxpr:
        """The program, with those equations of the one it was taken from that it needs."""
        wanted = [a for e in self.eqns for a in e.invars if type(a) is Var]
        needed = live_eqns(program.eqns, [*wanted, *outvars])
        eqns = [Eqn(e.primitive, list(map(self.finished, e.invars)), e.outvars, e.params, e.source) for e in needed]
        outvars = list(map(self.finished, outvars))
        constvars = [var for var, _ in self.constants.values()]
        values = [value for _, value in self.constants.values()]
        return ClosedJaxpr(Jaxpr(constvars, program.invars, [*eqns, *self.eqns], outvars), values)

    def finished(self, atom: Atom) -> Atom:
        """An atom as a finished program holds it: arrays are constants, not literals."""
        array = type(atom) is Literal and isinstance(atom.val, np.ndarray)
        return self.constant(atom.val) if array else atom  # type: ignore[union-attr]

    def flat(self, atom: Atom) -> Atom:
        """An array with one axis."""
        atom = self.finished(atom)
        aval = atom.aval
        if aval.ndim == 1:
            return atom
        if atom not in self._flat:
            self._flat[atom] = self.add(reshape, [atom], (aval.size,), aval.dtype, shape=(aval.size,))
        return self._flat[atom]

    def read(self, atom: Atom, where: IndexMap) -> Atom:
        """The elements of an array that a map gives; one number if they are all the same."""
        if not atom.aval.shape:
            return atom
        atom = self.finished(atom)
        key = (atom, where.key)
        if key not in self._reads:
            if where.array is not None and atom.aval.ndim > 1:
                self._reads[key] = self._gather(atom, np.unravel_index(where.array, atom.aval.shape))
            else:
                self._reads[key] = self._read(self.flat(atom), where)
        return self._reads[key]

    def _gather(self, atom: Atom, indices: Sequence[np.ndarray]) -> Var:
        operands = [atom, *map(self.constant, indices)]
        axes = tuple(range(len(indices)))
        return self.add(gather, operands, indices[0].shape, atom.aval.dtype, axes=axes, unique=False)

    def _read(self, flat: Atom, where: IndexMap) -> Atom:
        dtype, count, step = flat.aval.dtype, where.count, where.step
        if where.array is not None:
            return self._gather(flat, (where.array,))
        if where.is_constant:
            return self.add(index, [flat], (), dtype, at=(where.start,))
        if step == 1 and count == flat.aval.size:
            return flat
        last = where.start + step * (count - 1)
        first, stop = (where.start, last + 1) if step > 0 else (last, where.start + 1)
        part = self.add(slice_, [flat], (count,), dtype, starts=(first,), stops=(stop,), steps=(abs(step),))
        return part if step > 0 else self.add(reverse, [part], (count,), dtype, axes=(0,))

    def spread(self, atom: Atom, count: int) -> Atom:
        """A number as an array of equal elements."""
        key = (atom, count)
        if key not in self._spread:
            self._spread[key] = self.add(broadcast, [atom], (count,), atom.aval.dtype, shape=(count,), axes=())
        return self._spread[key]

    def family(self, family: Family, outputs: Sequence[int]) -> list[Atom]:
        """The arrays of some of a family's nodes; a number where all elements are equal."""
        graph = family.graph
        atoms: dict[int, Atom] = {}

        domains = graph.domains
        counts = {UNIFORM: (), FULL: (family.count,), **{d: (c.count,) for d, c in family.classes.items()}}

        def over(node: int, domain: int) -> Atom:
            """A node's numbers, one for each of another domain's elements or classes."""
            atom = atoms[node]
            if type(atom) is Literal and not np.ndim(atom.val):
                return atom
            if domains[node] == UNIFORM:
                return self.spread(atom, *counts[domain])
            return self.lift(atom, family.classes[domains[node]])

        for n in graph.live(outputs):
            primitive, domain = graph.primitives[n], domains[n]
            if primitive is None:
                value = graph.values[n]
                atoms[n] = self.read(*value) if isinstance(value, tuple) else Literal(value)
                continue
            operands = []
            for o in graph.operands[n]:
                operands.append(atoms[o] if domains[o] == domain else over(o, domain))
            atoms[n] = self.append(primitive, operands, self.aval(counts[domain], graph.dtypes[n]), graph.params[n])
        return [over(n, FULL) if domains[n] > FULL else atoms[n] for n in outputs]

    def lift(self, atom: Atom, classes: Classes) -> Atom:
        """One number per class as one per element."""
        key = atom, classes.key
        if key not in self._spread:
            self._spread[key] = self.add(
                gather, [atom, self.constant(classes.of)], (classes.of.size,), atom.aval.dtype, axes=(0,), unique=False
            )
        return self._spread[key]


class Wanted(NamedTuple):
    """One array of derivatives, and where it goes.

    Attributes:
        family, node: what to compute.
        entry: the entry of each element.
        factor: numbers to multiply the elements by, or None.
    """

    family: Family
    node: int
    entry: Contribution
    factor: np.ndarray | None


def values_program(program: Program, wanted: Sequence[Wanted], plan: Assembly, outputs: bool = False) -> ClosedJaxpr:
    """The program from a program's inputs to the values of a structure.

    Args:
        program: what the families were taken from.
        wanted: the arrays, those of a family together.
        plan: where they go.
        outputs: whether to give the program's own outputs first.
    """
    writer = _Writer()
    arrays: list[Atom] = []
    for family, group in itertools.groupby(wanted, key=lambda w: w.family):
        members = list(group)
        for w, atom in zip(members, writer.family(family, [w.node for w in members]), strict=True):
            if w.factor is not None:
                full_array = atom if atom.aval.shape else writer.spread(atom, family.count)
                factor = writer.constant(w.factor.astype(program.dtype))
                atom = writer.add(mul, [full_array, factor], (family.count,), program.dtype)
            arrays.append(atom)
    outvars: list[Atom] = list(program.outvars) if outputs else []
    if arrays:
        tables: list[Atom] = list(map(writer.constant, plan.tables()))
        outvars.append(writer.add(assemble, [*arrays, *tables], (plan.size,), program.dtype, plan=plan))
    else:
        outvars.append(writer.add(full, [], (0,), program.dtype, shape=(0,), value=0, dtype=program.dtype))
    return writer.close(program, outvars)
