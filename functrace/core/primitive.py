"""The primitive record: one object that holds every rule of one operation, and the registry of them all.

Rules, in the order they always stand:

- `impl(*values, **params)`: evaluate on plain NumPy values; a new array or a view, never an operand changed.
- `abstract_eval(*avals, **params)`: the output's aval.
- `jvp(primals, tangents, **params)`: two lists, outputs and output tangents. A `None` tangent is a symbolic zero.
- `linearize(record, primals, tangents, **params)`: optional, faster than what `jvp` implies; see
  `interpreters.linearize`.
- `transpose(cotangents, *operands, **params)`: for linear primitives. Linear operands arrive as their `Var`
  (`is_linear` tells; `.aval` is all that is known); a list with one cotangent per operand (`None` for zero and
  for known operands).
- `accumulate(buffer, cotangent, *operands, **params)`: optional, for linear primitives that read a part of their
  first operand: what `transpose` gives for it, added to `buffer` in place. Only the eager backward walk calls it, on
  plain arrays.
- `batch(size, values, batched, **params)`: two lists, outputs and whether each is batched. The batch axis is
  always axis 0.
- `stage(args, params)`: optional, for primitives that carry Python functions; the operands and parameters to record.
- `taylor(order, operands, out, **params)`: optional, a recurrence for Taylor coefficients; see `interpreters.taylor`.
- `fold(operands, **params)`: optional, the atom that the output equals where the operation changes nothing, or None.
- `uniform(operands, **params)`: optional, the number that all elements of the output equal, or None.
- `unfold(run, *operands, **params)`: optional, for primitives that hold programs they run at values: the list of
  outputs, each program (a jaxpr or a function) run by `run(program, *values)`, so that an interpreter can look inside.
- `kink`: optional, a `Kink`: where the operation is not differentiable, and what it is on either side; read by
  `inspect.kinks`.
- `formula`: optional text for people, an expression of the operands `x, y, z, w` in Python's syntax, or a function
  `formula(*avals, **params)` that gives it; by default the primitive's name applied to the operands.
- `sparsity(operands, outs, **params)`: optional, which elements each output depends on, and how; see `core.structure`.
  Without it every element depends on every element.
- `lower`, `cost`: read by the compiler and the cost interpreter.

`impl`, `abstract_eval` and `bind` give one value, or a list when `multiple`; the other rules always give lists.
All rules but `impl` and `lower` are written in primitives, so that each can itself be transformed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from functrace.core.ir import Var
from functrace.core.trace import current_trace
from functrace.errors import MissingRuleError, RegistrationError
from functrace.util import user_line

__all__ = ["Kink", "Masked", "Primitive", "is_linear", "primitives"]

_registry: dict[str, Primitive] = {}

_RULES = (
    "impl", "abstract_eval", "jvp", "linearize", "transpose", "accumulate", "batch", "stage", "taylor", "fold",
    "uniform",
    "unfold",
    "kink", "lower", "sparsity", "cost",
)  # fmt: skip


class Masked:
    """A cotangent with dead elements: where `mask` is False the primal value was discarded (a branch not taken).

    A dead element is exactly zero and stays so whatever it is multiplied by, infinities and NaNs included. Only
    transpose rules make one (that of `select`); the backward walk carries the mask along.

    Behind sums of products the walk knows dead elements by their value only, and an element that is zero here may yet
    have a derivative: the cotangent 2x of x**2 is zero at 0. So there are two masks.

    Attributes:
        value: the cotangent.
        mask: False where elements are zero, for the one reason or the other.
        certain: False where they are dead for certain: `mask` itself if all of them are, None if none is.
    """

    __slots__ = ("certain", "mask", "value")

    def __init__(self, value: Any, mask: Any, certain: Any = ...) -> None:
        self.value = value
        self.mask = mask
        self.certain = mask if certain is ... else certain


class Kink(NamedTuple):
    """Where an operation is not differentiable. Both functions take plain NumPy values.

    Attributes:
        what: for people, as in "tie".
        distance: `distance(*operands, **params)`, how far each element is from being at a kink; 0 is at it.
        limit: `limit(operands, tangents, **params)`: the output of operands moved by an infinitesimal step along the
            tangents, and the output's one-sided derivative in that direction; used where the distance is 0. None if
            the first derivatives of the operands do not tell.
    """

    what: str
    distance: Callable[..., Any]
    limit: Callable[..., tuple[Any, Any]] | None = None


def is_linear(operand: Any) -> bool:
    """Whether an operand of a transpose rule is a linear one, of which only the type (`operand.aval`) is known."""
    return type(operand) is Var


class Primitive:
    """An operation with all its rules; see the module's text for what each rule takes and gives.

    Args:
        name: unique name, printed in jaxprs.
        impl: evaluation on NumPy values.
        abstract_eval: output type from input types.
        multiple: whether it has a list of outputs.
        nondifferentiable: True when its outputs have no tangent (integers, comparisons, piecewise constants).
        effectful: True when it must run even if nothing reads its outputs.
        family: the constructor that made it, for reports and the generated tests.
        masks: how the mask of a `Masked` cotangent passes through the transpose: "elementwise" (same positions),
            "scaling" (the same, but coefficients may be infinite), "structural" (coefficients are 0 and 1: the mask
            is transposed too), "program" (the rule takes `Masked` cotangents itself, to pass them on to the
            operations of its program), None (afterwards exact zeros may be dead).
        keeps_type: whether operands of one type, and numbers of its dtype, give an output of that type, so that
            nobody has to ask `abstract_eval` then.
        partial: whether `impl` raises for some values of its operands, as for singular matrices. Control flow then
            keeps values from it that a batch has only because other examples run it.

    Raises:
        RegistrationError: the name is taken.
    """

    def __init__(
        self,
        name: str,
        impl: Callable[..., Any],
        abstract_eval: Callable[..., Any],
        *,
        jvp: Callable[..., Any] | None = None,
        linearize: Callable[..., Any] | None = None,
        transpose: Callable[..., Any] | None = None,
        accumulate: Callable[..., None] | None = None,
        batch: Callable[..., Any] | None = None,
        stage: Callable[..., Any] | None = None,
        taylor: Callable[..., Any] | None = None,
        fold: Callable[..., Any] | None = None,
        uniform: Callable[..., Any] | None = None,
        unfold: Callable[..., list[Any]] | None = None,
        kink: Kink | None = None,
        formula: str | Callable[..., str] | None = None,
        lower: Any = None,
        sparsity: Callable[..., Any] | None = None,
        cost: Callable[..., Any] | None = None,
        family: str = "other",
        multiple: bool = False,
        nondifferentiable: bool = False,
        effectful: bool = False,
        masks: str | None = None,
        keeps_type: bool = False,
        partial: bool = False,
    ) -> None:
        if name in _registry:
            raise RegistrationError(
                f"a primitive named {name!r} exists already", remedy="choose another name for the new primitive"
            )
        if nondifferentiable and (jvp or transpose):
            raise RegistrationError(f"{name!r} is declared nondifferentiable but has a derivative rule")
        self.name = name
        self.impl = impl
        self.abstract_eval = abstract_eval
        self.jvp = jvp
        self.linearize = linearize
        self.transpose = transpose
        self.accumulate = accumulate
        self.batch = batch
        self.stage = stage
        self.taylor = taylor
        self.fold = fold
        self.uniform = uniform
        self.unfold = unfold
        self.kink = kink
        self.formula = formula
        self.lower = lower
        self.sparsity = sparsity
        self.cost = cost
        self.family = family
        self.multiple = multiple
        self.nondifferentiable = nondifferentiable
        self.effectful = effectful
        self.masks = masks
        self.keeps_type = keeps_type
        self.partial = partial
        _registry[name] = self

    def __copy__(self) -> Primitive:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Primitive:
        return self  # there is one of each, compared by identity

    def __reduce__(self) -> tuple[Any, ...]:
        return _registered, (self.name,)

    def bind(self, *args: Any, **params: Any) -> Any:
        """Apply the primitive under the current trace."""
        return current_trace().process(self, args, params)

    __call__ = bind

    def define(self, **rules: Any) -> None:
        """Give rules that need primitives defined after this one.

        Raises:
            RegistrationError: the rule is unknown or exists already.
        """
        for rule, function in rules.items():
            if rule not in _RULES:
                raise RegistrationError(f"{rule!r} is not a rule of a primitive; the rules are {', '.join(_RULES)}")
            if getattr(self, rule) is not None:
                raise RegistrationError(f"primitive {self.name!r} has a {rule} rule already")
            setattr(self, rule, function)

    def rule(self, rule: str, transform: str) -> Callable[..., Any]:
        """The named rule.

        Raises:
            MissingRuleError: there is none; names the primitive and the transform that needs it.
        """
        function = getattr(self, rule)
        if function is None:
            raise MissingRuleError(
                f"{transform} needs the {rule} rule of primitive {self.name!r}, which has none",
                where=user_line(),
                remedy=_MISSING_REMEDY.get(rule, f"define it with Primitive.define({rule}=...)"),
            )
        return function

    def __repr__(self) -> str:
        return self.name


_MISSING_REMEDY = {
    "jvp": "define it with Primitive.define(jvp=...), or wrap the operands in functrace.stop_gradient",
    "transpose": "only linear primitives have one; a jvp rule used a tangent in a nonlinear operation",
    "batch": "define it with Primitive.define(batch=...), or call the function in a Python loop",
}


def _registered(name: str) -> Primitive:
    """The primitive that was pickled under its name."""
    if name not in _registry:
        raise RegistrationError(
            f"there is no primitive named {name!r} here", remedy="import the module that defines it before unpickling"
        )
    return _registry[name]


def primitives() -> Iterator[Primitive]:
    """All registered primitives, in order of registration."""
    return iter(list(_registry.values()))
