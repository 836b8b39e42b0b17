"""The expression of one element: a graph of loads, constants and operations, made by reading back from a result.

A `Reader` stands for one box of a loop nest. Its loop variables run from 0; indices are affine in them. Arrays that are
in memory become loads; those that are not are read through the operation that gives them, so whatever stands between
memory and a result is fused.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from functrace.backend.compiler.affine import Affine, NotAffineError, divmod_affine
from functrace.backend.compiler.emit import INDEX, Value
from functrace.backend.compiler.places import Buffer, Place, Small
from functrace.backend.compiler.templates import Form
from functrace.core.ir import Atom, Eqn, Literal, Var
from functrace.core.lowering import Elementwise, Indexed, Reduction, Scan

if TYPE_CHECKING:
    from functrace.backend.compiler.steps import SmallStep

__all__ = ["Index", "Node", "Reader", "SplitBoxError"]

Index = Sequence[Any]

_CHAIN = 8  # terms of a sum that are added one after the other


class SplitBoxError(Exception):
    """An index crosses a border inside the box: the box has to be cut along `axis` at `position`."""

    def __init__(self, axis: int, position: int) -> None:
        self.axis, self.position = axis, position


class Node:
    """One value of a loop's body.

    `kind` is "constant", "scalar" (a register), "index", "load" or "apply". `axes` is the set of loop axes, as bits,
    on which it depends.
    """

    __slots__ = ("args", "axes", "data", "dtype", "form", "home", "kind", "made", "step", "vectors", "weight")

    def __init__(self, kind: str, dtype: np.dtype, axes: int, data: Any, args: tuple[Node, ...] = ()) -> None:
        self.kind, self.dtype, self.axes, self.data, self.args = kind, dtype, axes, data, args
        self.made: Value | None = None
        #: The function that this value is a register of; None for the main one.
        self.home: Any = None
        #: Of an operation on numbers, what it has in common with others of its kind, and the step that it belongs to.
        self.form: Form | None = None
        self.step: SmallStep | None = None
        #: The price of an operation in additions.
        self.weight = 1.0
        #: The value in every lane, by the number of lanes.
        self.vectors: dict[int, Value] | None = None

    # A position that is computed, as an index: the arithmetic that indices know.

    def __add__(self, shift: int) -> Node:
        return self._moved(lambda e, x: x + shift) if shift else self

    def __sub__(self, shift: int) -> Node:
        return self + -shift

    def __rsub__(self, shift: int) -> Node:
        return self._moved(lambda e, x: shift - x)

    def __mul__(self, factor: int) -> Node:
        return self._moved(lambda e, x: x * factor) if factor != 1 else self

    __radd__, __rmul__ = __add__, __mul__

    def _moved(self, code: Callable[..., Value]) -> Node:
        if self.dtype != INDEX:
            raise NotAffineError
        return Node("apply", INDEX, self.axes, (code, {}), (self,))


class Reader:
    """Builds the nodes of one box.

    Args:
        extents: the box's extents, one per loop axis.
        producer: `producer(var, index)`, the equation and lowering through which an array that is not in memory is
            read, or None.
        place: `place(var, in_memory)`, where an array is; in memory if so asked.
        registers: whether this is the reader of all that is computed in registers, outside loops.
    """

    def __init__(
        self,
        extents: tuple[int, ...],
        producer: Callable[[Var, Index], tuple[Eqn, Any] | None],
        place: Callable[[Var, bool], Place],
        registers: bool = False,
    ) -> None:
        self.extents = extents
        self._registers = registers
        self.nodes: list[Node] = []
        self._producer, self._place = producer, place
        self._read: dict[Any, Node] = {}
        self._constants: dict[Any, Node] = {}
        self._loads: dict[Any, Node] = {}
        self._through_vars: set[Var] = set()

    def read_through(self) -> Iterator[tuple[Var, int]]:
        """The arrays that were read through, and how often: in every step of the deepest loop that they depend on."""
        for key, node in self._read.items():
            if key[0] in self._through_vars:
                yield key[0], math.prod(self.extents[: node.axes.bit_length()])

    # indices

    def fixed(self, constant: int) -> Affine:
        return Affine(constant, (0,) * len(self.extents))

    def variable(self, axis: int, start: int = 0) -> Affine:
        """start + the variable of an axis; an axis of one step has none."""
        one = int(self.extents[axis] > 1)
        return Affine(start, tuple([one if k == axis else 0 for k in range(len(self.extents))]))

    def within(self, index: Affine | Node, low: int, high: int) -> bool:
        """Whether low <= index < high, all over the box.

        Raises:
            SplitBoxError: it depends on where in the box.
            NotAffineError: it depends on two axes.
        """
        if isinstance(index, Node):
            raise NotAffineError
        least, greatest = index.bounds(self.extents)
        if least >= low and greatest < high:
            return True
        if greatest < low or least >= high:
            return False
        axes = [k for k, c in enumerate(index.coefficients) if c]
        if len(axes) != 1:
            raise NotAffineError
        axis, step = axes[0], index.coefficients[axes[0]]
        for border in (low, high):
            # The first position from which on the index has crossed the border.
            cut = -((index.constant - border) // step) if step > 0 else (index.constant - border) // -step + 1
            if 0 < cut < self.extents[axis]:
                raise SplitBoxError(axis, cut)
        raise NotAffineError

    def varies(self, index: Index) -> bool:
        """Whether there is more than one index in the box."""
        return any(isinstance(i, Node) or any(i.coefficients) for i in index)

    def every(self, index: Affine | Node, step: int) -> tuple[Affine, bool] | None:
        """The index divided by a step, and whether it is a multiple of it, all over the box; None if only some are."""
        if isinstance(index, Node):
            raise NotAffineError
        if any(c % step for c in index.coefficients):
            return None
        quotient = Affine(index.constant // step, tuple([c // step for c in index.coefficients]))
        return quotient, index.constant % step == 0

    def position(self, operand: Atom, index: Index, length: int) -> Node:
        """An element of an array of positions on an axis; one out of range stops the program."""
        found = self.read(operand, index)
        if found.dtype != INDEX:
            found = self.apply(lambda e, x: e.convert(x, INDEX), found, dtype=INDEX)
        return self.apply(lambda e, x: e.guarded(x, length), found, dtype=INDEX)

    def flat(self, index: Index, shape: Sequence[int]) -> Affine:
        """The position in C order."""
        position = self.fixed(0)
        for i, length in zip(index, shape, strict=True):
            if isinstance(i, Node):
                raise NotAffineError
            position = position * length + i
        return position

    def unflat(self, position: Affine, shape: Sequence[int]) -> list[Affine]:
        """The index of a position in C order.

        Raises:
            NotAffineError: it is not affine.
        """
        index: list[Affine] = []
        for k, length in enumerate(reversed(shape)):
            if length == 1:
                index.append(self.fixed(0))
            elif k == len(shape) - 1:
                index.append(position)
            else:
                position, rest = divmod_affine(position, length, self.extents)
                index.append(rest)
        return index[::-1]

    # nodes

    def _new(self, *fields: Any) -> Node:
        node = Node(*fields)
        self.nodes.append(node)
        return node

    def constant(self, value: Any, dtype: np.dtype) -> Node:
        if type(value) is float and value and dtype.char == "d":
            key: Any = value
        else:
            value = dtype.type(value)
            key = (dtype, value.tobytes())
        node = self._constants.get(key)
        if node is None:
            node = self._constants[key] = self._new("constant", dtype, 0, value)
        return node

    def number(self, index: Affine | Node, dtype: np.dtype) -> Node:
        """An index as a number."""
        if isinstance(index, Node):
            found = index
        elif not any(index.coefficients):
            return self.constant(index.constant, dtype)
        else:
            key = (index, "index")
            if key not in self._read:
                self._read[key] = self._new("index", INDEX, _axes(index), index)
            found = self._read[key]
        return self.apply(lambda e, x: e.convert(x, dtype), found, dtype=dtype) if found.dtype != dtype else found

    def apply(
        self, code: Callable[..., Value], *args: Node, dtype: np.dtype, params: dict[str, Any] | None = None
    ) -> Node:
        """An operation on nodes."""
        axes = 0
        for node in args:
            axes |= node.axes
        return self._new("apply", dtype, axes, (code, params or {}), args)

    def read(self, operand: Atom, index: Index) -> Node:
        """The element of an operand at an index.

        Raises:
            NotAffineError, SplitBoxError: see `within`.
        """
        if isinstance(operand, Literal):
            return self.constant(operand.val, operand.aval.dtype)
        key = (operand, *index)
        found = self._read.get(key)
        if found is None:
            made = self._producer(operand, index)
            if made is not None:
                self._through_vars.add(operand)
            found = self._read[key] = self._load(operand, index) if made is None else self.through(*made, index)
        return found

    def read_flat(self, operand: Atom, position: Affine) -> Node:
        """The element of an operand at a position in C order."""
        if isinstance(operand, Var) and self._producer(operand, ()) is None:
            where = self._place(operand, any(position.coefficients))
            if isinstance(where, Buffer) and where.contiguous:
                return self.load_from(
                    Buffer(where.pointer, (where.size,), where.dtype, None, where.offset), (position,)
                )
        return self.read(operand, self.unflat(position, operand.aval.shape))

    def through(self, eqn: Eqn, lowering: Any, index: Index) -> Node:
        """An element of an equation's output, by the equation's operation."""
        aval = eqn.outvars[0].aval
        if isinstance(lowering, Elementwise):
            args = [
                self.constant(a.val, a.aval.dtype)
                if isinstance(a, Literal)
                else self.read(a, index if a.aval.shape else ())
                for a in eqn.invars
            ]
            code = _in_single(lowering.code, aval.dtype) if any(a.dtype == _HALF for a in args) else lowering.code
            node = self.apply(code, *args, dtype=aval.dtype, params=eqn.params)
            node.weight = lowering.price(eqn.invars)
            return node
        if isinstance(lowering, Indexed):
            try:
                return lowering.read(self, index, *eqn.invars, **eqn.params)
            except NotAffineError as error:
                error.eqn = error.eqn or eqn
                raise
        if isinstance(lowering, Scan):
            return self._run_up_to(eqn, lowering, index)
        assert isinstance(lowering, Reduction)
        return self._unrolled(eqn, lowering, index)

    def _run_up_to(self, eqn: Eqn, lowering: Scan, index: Index) -> Node:
        """One element of a short cumulative operation, from the one before it; the index is fixed."""
        key = (eqn.outvars[0], "run", *index)
        if key not in self._read:
            axis, reverse = lowering.axis(**eqn.params)
            length = eqn.outvars[0].aval.shape[axis]
            step = length - 1 - index[axis].constant if reverse else index[axis].constant
            running = [self.fixed(step) if k == axis else i for k, i in enumerate(index)]
            found = lowering.element(self, running, *eqn.invars, **eqn.params)
            if step:
                before = [i + (1 if reverse else -1) if k == axis else i for k, i in enumerate(index)]
                node = self.apply(lowering.step, self._run_up_to(eqn, lowering, before), *found, dtype=found[-1].dtype)
            else:
                node = found[-1]
            self._read[key] = node
        return self._read[key]

    def _unrolled(self, eqn: Eqn, lowering: Reduction, index: Index) -> Node:
        """One element of a short reduction, as a sum of terms."""
        avals = [a.aval for a in eqn.invars]
        space = lowering.space(*avals, **eqn.params)
        kept = lowering.kept(*avals, **eqn.params)
        reduced = [k for k in range(len(space)) if k not in kept]
        terms = []
        for point in np.ndindex(*[space[k] for k in reduced]):
            full: list[Any] = [self.fixed(0)] * len(space)
            for k, i in zip(kept, index, strict=True):
                full[k] = i
            for k, position in zip(reduced, point, strict=True):
                full[k] = self.fixed(int(position))
            terms.append(lowering.element(self, full, *eqn.invars, **eqn.params))
        return self.combined(lowering.combine, terms, eqn.outvars[0].aval.dtype)

    def combined(self, name: str, terms: list[Node], dtype: np.dtype) -> Node:
        """A sum, product or extremum of nodes: in pairs, or few terms one after the other, which products fuse with."""
        if not terms:
            return self.constant({"add": 0, "mul": 1, "and": True, "or": False}[name], dtype)

        def both(x: Node, y: Node) -> Node:
            return self.apply(lambda e, x, y: e.combine(name, x, y), x, y, dtype=dtype)

        if name == "add":
            terms = [functools.reduce(both, terms[k : k + _CHAIN]) for k in range(0, len(terms), _CHAIN)]
        while len(terms) > 1:
            pairs = [both(terms[k], terms[k + 1]) for k in range(0, len(terms) - 1, 2)]
            terms = pairs + terms[2 * len(pairs) :]
        return terms[0]

    def _load(self, var: Var, index: Index) -> Node:
        fixed = all(isinstance(i, Affine) and not any(i.coefficients) for i in index)
        where = self._place(var, not fixed)
        if isinstance(where, Small):
            position = where.position([i.constant for i in index])
            if where.nodes is not None and self._registers:
                return where.nodes[position]
            return self._new("scalar", where.dtype, 0, (where, position))
        return self.load_from(where, index)

    def load_from(self, where: Buffer, index: Index) -> Node:
        """An element of an array in memory."""
        address, dynamic, axes = self.fixed(where.offset), [], 0
        for i, stride in zip(index, where.strides, strict=True):
            if isinstance(i, Node):
                dynamic.append((i, stride))
                axes |= i.axes
            elif stride:
                address = address + i * stride
        axes |= _axes(address)
        key = (where.pointer, where.dtype, address, *dynamic)
        if key not in self._loads:
            nodes = tuple([node for node, _ in dynamic])
            strides = tuple([stride for _, stride in dynamic])
            self._loads[key] = self._new("load", where.dtype, axes, (where.pointer, address, strides), nodes)
        return self._loads[key]


def _in_single(code: Callable[..., Value], dtype: np.dtype) -> Callable[..., Value]:
    """An operation on halves: as NumPy does it, in single precision, the result rounded."""

    def rounded(e: Any, *values: Value, **params: Any) -> Value:
        single = np.dtype(np.float32)
        found = code(e, *[e.convert(v, single) if v.dtype == _HALF else v for v in values], **params)
        return e.convert(found, dtype)

    return rounded


_HALF = np.dtype(np.float16)


def _axes(index: Affine) -> int:
    bits = 0
    for k, c in enumerate(index.coefficients):
        if c:
            bits |= 1 << k
    return bits
