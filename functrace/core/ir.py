"""Programs as data: variables, equations and jaxprs, with printing, checking, evaluation and dead-code removal.

An atom is a `Var` or a `Literal`. A finished `Jaxpr` holds only scalar literals; larger constants are
bound to its constvars. A `Recorder` is a jaxpr under construction, whose literals may hold any value.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from functrace.core.types import ShapedArray, aval_of
from functrace.errors import JaxprError
from functrace.util import Source, replays

if TYPE_CHECKING:
    from functrace.core.primitive import Primitive

__all__ = [
    "Atom",
    "ClosedJaxpr",
    "Eqn",
    "Jaxpr",
    "Literal",
    "Recorder",
    "Var",
    "check_jaxpr",
    "eliminate_dead_code",
    "eval_jaxpr",
    "hoist_constants",
    "subjaxprs",
]


class Var:
    """A typed variable, bound once; compared by identity."""

    __slots__ = ("aval",)

    def __init__(self, aval: ShapedArray) -> None:
        self.aval = aval

    def __repr__(self) -> str:
        return f"Var:{self.aval}"


class Literal:
    """A constant in operand position."""

    __slots__ = ("val",)

    def __init__(self, val: Any) -> None:
        self.val = val

    @property
    def aval(self) -> ShapedArray:
        return aval_of(self.val)

    def __repr__(self) -> str:
        return _scalar_text(self.val) if is_scalar(self.val) else f"Literal:{self.aval}"


Atom = Var | Literal


class Eqn:
    """One application of a primitive: `outvars = primitive[params] invars`."""

    __slots__ = ("invars", "outvars", "params", "primitive", "source")

    def __init__(
        self,
        primitive: Primitive,
        invars: list[Atom],
        outvars: list[Var],
        params: dict[str, Any],
        source: Source | None = None,
    ) -> None:
        self.primitive = primitive
        self.invars = invars
        self.outvars = outvars
        self.params = params
        self.source = source

    def __repr__(self) -> str:
        return _Printer().eqn(self)


class Jaxpr:
    """A typed program: constvars and invars in, equations in order, outvars out."""

    __slots__ = ("_last_uses", "constvars", "derived", "eqns", "function", "invars", "outvars")

    def __init__(
        self, constvars: Sequence[Var], invars: Sequence[Var], eqns: Sequence[Eqn], outvars: Sequence[Atom]
    ) -> None:
        self.constvars = list(constvars)
        self.invars = list(invars)
        self.eqns = list(eqns)
        self.outvars = list(outvars)
        self._last_uses: list[list[Var]] | None = None
        #: Programs that interpreters made of this one, by what was asked; see functrace.control.call.
        self.derived: dict[tuple[Any, ...], Any] = {}
        #: See functrace.core.evaluate.
        self.function: Callable[..., list[Any]] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Jaxpr, (self.constvars, self.invars, self.eqns, self.outvars)  # what was derived can be again

    @property
    def last_uses(self) -> list[list[Var]]:
        """Per equation, the variables that nothing later reads."""
        if self._last_uses is None:
            self._last_uses = last_uses(self.eqns, self.outvars)
        return self._last_uses

    @property
    def in_avals(self) -> list[ShapedArray]:
        return [v.aval for v in self.invars]

    @property
    def out_avals(self) -> list[ShapedArray]:
        return [v.aval for v in self.outvars]

    def __repr__(self) -> str:
        return _Printer().jaxpr(self)

    def pretty(self, *, source: bool = True) -> str:
        """The program as text, one equation to a line, with the user's source lines when `source`."""
        return _Printer(source).jaxpr(self)


class ClosedJaxpr:
    """A jaxpr together with the values of its constvars."""

    __slots__ = ("consts", "jaxpr")

    def __init__(self, jaxpr: Jaxpr, consts: Sequence[Any] = ()) -> None:
        if len(consts) != len(jaxpr.constvars):
            raise JaxprError(f"a jaxpr with {len(jaxpr.constvars)} constvars was closed over {len(consts)} constants")
        self.jaxpr = jaxpr
        self.consts = list(consts)

    @property
    def eqns(self) -> list[Eqn]:
        return self.jaxpr.eqns

    @property
    def in_avals(self) -> list[ShapedArray]:
        return self.jaxpr.in_avals

    @property
    def out_avals(self) -> list[ShapedArray]:
        return self.jaxpr.out_avals

    def __repr__(self) -> str:
        return repr(self.jaxpr)

    def pretty(self, *, source: bool = True) -> str:
        """See `Jaxpr.pretty`."""
        return self.jaxpr.pretty(source=source)


def is_scalar(value: Any) -> bool:
    """Whether a value is a plain number, which a finished jaxpr keeps in place."""
    return isinstance(value, (bool, int, float, complex, np.generic))


class Recorder:
    """A jaxpr under construction: equations in the order they ran."""

    __slots__ = ("eqns",)

    def __init__(self) -> None:
        self.eqns: list[Eqn] = []

    def close(self, invars: Sequence[Var], outvars: Sequence[Atom]) -> ClosedJaxpr:
        """The finished jaxpr: dead code dropped, array literals hoisted into constvars."""
        constvars: dict[int, Var] = {}
        consts: list[Any] = []

        def hoist(atom: Atom) -> Atom:
            if type(atom) is Var or is_scalar(atom.val):  # type: ignore[union-attr]
                return atom
            key = id(atom.val)  # type: ignore[union-attr]
            if key not in constvars:
                constvars[key] = Var(atom.aval)
                consts.append(atom.val)  # type: ignore[union-attr]
            return constvars[key]

        eqns = live_eqns(self.eqns, outvars)
        for k, e in enumerate(eqns):
            for atom in e.invars:
                if type(atom) is Literal and not is_scalar(atom.val):
                    eqns[k] = Eqn(e.primitive, [hoist(a) for a in e.invars], e.outvars, e.params, e.source)
                    break
        outs = [hoist(a) for a in outvars]
        return ClosedJaxpr(Jaxpr(list(constvars.values()), invars, eqns, outs), consts)


def hoist_constants(closed: ClosedJaxpr) -> tuple[Jaxpr, list[Any]]:
    """The program with its constants as leading inputs, and their values."""
    jaxpr = closed.jaxpr
    return Jaxpr([], [*jaxpr.constvars, *jaxpr.invars], jaxpr.eqns, jaxpr.outvars), closed.consts


def has_effects(eqn: Eqn) -> bool:
    """Whether an equation must run even if nothing reads its results, itself or in a program it holds."""
    if eqn.primitive.effectful:
        return True
    if not eqn.params:
        return False
    for sub in subjaxprs(eqn):
        inner = sub.jaxpr if isinstance(sub, ClosedJaxpr) else sub
        if any(map(has_effects, inner.eqns)):
            return True
    return False


def live_eqns(eqns: Sequence[Eqn], outvars: Iterable[Atom | None]) -> list[Eqn]:
    """The equations that some of `outvars` depend on, and those with effects, in order."""
    live = {v for v in outvars if type(v) is Var}
    kept = []
    for eqn in reversed(eqns):
        outs = eqn.outvars
        if (outs[0] in live if len(outs) == 1 else not live.isdisjoint(outs)) or has_effects(eqn):
            for atom in eqn.invars:
                if type(atom) is Var:
                    live.add(atom)
            kept.append(eqn)
    kept.reverse()
    return kept


def eliminate_dead_code(jaxpr: Jaxpr, used_outputs: Sequence[bool] | None = None) -> Jaxpr:
    """The jaxpr without equations, constants and unused outputs nobody needs; invars stay."""
    outvars = [v for i, v in enumerate(jaxpr.outvars) if used_outputs is None or used_outputs[i]]
    eqns = live_eqns(jaxpr.eqns, outvars)
    used = {a for e in eqns for a in e.invars if type(a) is Var} | {v for v in outvars if type(v) is Var}
    return Jaxpr([v for v in jaxpr.constvars if v in used], jaxpr.invars, eqns, outvars)


def eval_jaxpr(jaxpr: Jaxpr, consts: Sequence[Any], *args: Any) -> list[Any]:
    """Run a jaxpr under the current trace, so that it can be transformed again.

    Args:
        jaxpr: the program.
        consts: one value per constvar.
        args: one value per invar, of the invar's shape and dtype.

    Returns:
        The list of output values.
    """
    env: dict[Var, Any] = {}
    env.update(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))
    run_eqns(zip(jaxpr.eqns, jaxpr.last_uses, strict=True), env)
    return [a.val if isinstance(a, Literal) else env[a] for a in jaxpr.outvars]


@replays
def run_eqns(schedule: Iterable[tuple[Eqn, list[Var]]], env: dict[Var, Any]) -> None:
    """Bind equations in order, values kept in `env`; each comes with the variables to free after it."""
    for eqn, dying in schedule:
        inputs = [a.val if isinstance(a, Literal) else env[a] for a in eqn.invars]
        outs = eqn.primitive.bind(*inputs, **eqn.params)
        if eqn.primitive.multiple:
            env.update(zip(eqn.outvars, outs, strict=True))
        else:
            env[eqn.outvars[0]] = outs
        for var in dying:
            env.pop(var, None)


def last_uses(eqns: Sequence[Eqn], outvars: Iterable[Atom | None]) -> list[list[Var]]:
    """Per equation, the variables whose last use it is, so that an evaluator can free them."""
    seen = {v for v in outvars if type(v) is Var}
    uses: list[list[Var]] = []
    for eqn in reversed(eqns):
        last = [a for a in dict.fromkeys([*eqn.invars, *eqn.outvars]) if type(a) is Var and a not in seen]
        seen.update(last)
        uses.append(last)
    uses.reverse()
    return uses


def subjaxprs(eqn: Eqn) -> Iterator[ClosedJaxpr | Jaxpr]:
    """The programs that an equation's parameters hold."""
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, (Jaxpr, ClosedJaxpr)):
                yield item


def check_jaxpr(jaxpr: Jaxpr) -> None:
    """Check that every variable is bound once before its use and every equation has the types its rule gives.

    Raises:
        JaxprError: naming the equation and the mismatch.
    """
    bound: set[Var] = set()

    def define(var: Var, eqn: Eqn | None) -> None:
        if var in bound:
            raise JaxprError("a variable is bound twice", got=repr(eqn))
        bound.add(var)

    for var in itertools.chain(jaxpr.constvars, jaxpr.invars):
        define(var, None)
    for eqn in jaxpr.eqns:
        for atom in eqn.invars:
            if type(atom) is Var and atom not in bound:
                raise JaxprError("an equation uses a variable before it is bound", got=repr(eqn))
            if type(atom) is Literal and not is_scalar(atom.val):
                raise JaxprError("a finished jaxpr holds an array as a literal", got=repr(eqn))
        expected = eqn.primitive.abstract_eval(*[a.aval for a in eqn.invars], **eqn.params)
        expected = list(expected) if eqn.primitive.multiple else [expected]
        actual = [v.aval for v in eqn.outvars]
        if expected != actual:
            raise JaxprError(f"{eqn.primitive.name} has type {expected}, recorded as {actual}", got=repr(eqn))
        for sub in subjaxprs(eqn):
            check_jaxpr(sub.jaxpr if isinstance(sub, ClosedJaxpr) else sub)
        for var in eqn.outvars:
            define(var, eqn)
    for atom in jaxpr.outvars:
        if type(atom) is Var and atom not in bound:
            raise JaxprError("an output is never bound", got=repr(atom))


# printing


def _scalar_text(value: Any) -> str:
    return str(value.item() if isinstance(value, np.generic) else value)


class _Printer:
    """Names variables a, b, c ... in order of appearance and lays the program out."""

    def __init__(self, source: bool = False) -> None:
        self.names: dict[Var, str] = {}
        self.source = source

    def name(self, atom: Atom) -> str:
        if isinstance(atom, Literal):
            return repr(atom)
        if atom not in self.names:
            self.names[atom] = _letters(len(self.names))
        return self.names[atom]

    def typed(self, var: Var) -> str:
        return f"{self.name(var)}:{var.aval}"

    def eqn(self, eqn: Eqn) -> str:
        operands = " ".join(map(self.name, eqn.invars))
        params = ", ".join(f"{key}={_param_text(value)}" for key, value in eqn.params.items())
        right = f"{eqn.primitive.name}{f'[{params}]' if params else ''} {operands}".rstrip()
        return f"{' '.join(map(self.typed, eqn.outvars))} = {right}"

    def jaxpr(self, jaxpr: Jaxpr) -> str:
        binders = " ".join(map(self.typed, jaxpr.invars))
        constants = " ".join(map(self.typed, jaxpr.constvars))
        head = f"{{ lambda {constants + ' ; ' if constants else ''}{binders} ."
        lines = [self.eqn(e).replace("\n", "\n    ") for e in jaxpr.eqns]
        if self.source:
            width = min(max(map(len, lines), default=0), 60)
            lines = [
                f"{line:<{width}}  # {e.source}" if e.source else line
                for line, e in zip(lines, jaxpr.eqns, strict=True)
            ]
        outs = ", ".join(map(self.name, jaxpr.outvars))
        body = "\n    ".join(lines)
        lead = f"let\n    {body}\n  in" if lines else "in"
        return f"{head} {lead} ({outs}{',' if len(jaxpr.outvars) == 1 else ''}) }}"


def _letters(index: int) -> str:
    name = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        name = string.ascii_lowercase[letter] + name
    return name


def _param_text(value: Any) -> str:
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, (ClosedJaxpr, Jaxpr)):
        return _Printer().jaxpr(value.jaxpr if isinstance(value, ClosedJaxpr) else value)
    if callable(value):
        return getattr(value, "__name__", repr(value))
    return str(value)
