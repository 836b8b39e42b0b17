"""custom_jvp, custom_vjp and checkpoint: functions that bring derivative rules, or a memory policy, of their own."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace import tree
from functrace.control._calls import InContext, bind_call, stage_function
from functrace.control.calls import checkpoint_call, custom_jvp_call, custom_vjp_call
from functrace.control.saved_call import Policy, saved_call
from functrace.core.trace import EVAL, Tracer, current_trace
from functrace.core.types import ShapedArray, aval_of, canonicalize, float0, is_inexact
from functrace.errors import ArgumentError, CustomRuleError, InputError, TreeError
from functrace.primitives.shape import zeros
from functrace.transforms._flatten import argument_positions, check_callable, check_functions, snapshot
from functrace.util import user_line

__all__ = ["CustomVJPPrimal", "SymbolicZero", "checkpoint", "custom_jvp", "custom_vjp"]


_WEAK = (float, int, complex)


class SymbolicZero:
    """A tangent or cotangent known to be zero, given to rules defined with `symbolic_zeros=True`."""

    __slots__ = ("aval",)

    def __init__(self, aval: ShapedArray) -> None:
        self.aval = aval

    @property
    def shape(self) -> tuple[int, ...]:
        return self.aval.shape

    @property
    def dtype(self) -> np.dtype:
        return self.aval.dtype

    def __repr__(self) -> str:
        return f"SymbolicZero({self.aval})"


class CustomVJPPrimal:
    """An argument of a forward rule defined with `symbolic_zeros=True`: its value, and whether it is differentiated."""

    __slots__ = ("perturbed", "value")

    def __init__(self, value: Any, perturbed: bool) -> None:
        self.value = value
        self.perturbed = perturbed


def _materialize(value: Any, aval: ShapedArray, symbolic: bool) -> Any:
    """What a rule sees in place of None."""
    if value is not None:
        return value
    if symbolic:
        return SymbolicZero(aval)
    return zeros(aval) if is_inexact(aval.dtype) else np.zeros(aval.shape, float0)


def _weak_flags(leaves: Sequence[Any]) -> list[bool]:
    """Which leaves are Python numbers, or traced ones."""
    return [type(leaf) in _WEAK or getattr(leaf, "weak", False) for leaf in leaves]


def _weakened(leaves: Sequence[Any], weak: Sequence[bool]) -> list[Any]:
    return [_weaken(leaf) if flag else leaf for leaf, flag in zip(leaves, weak, strict=True)]


def _weaken(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Tracer) and not value.weak:
        value = value.snapshot()
        value.weak = True
    return value


def _dense(value: Any) -> Any:
    return _materialize(None, value.aval, False) if isinstance(value, SymbolicZero) else value


class _Call:
    """One call of a custom function: its differentiable arguments flat, the others bound."""

    def __init__(self, fun: Callable[..., Any], nondiff: Sequence[int], args: tuple[Any, ...]) -> None:
        self.fun, self.args = fun, args
        self.nondiff = argument_positions(nondiff, len(args), "nondiff_argnums") if nondiff else ()
        self.positions = [i for i in range(len(args)) if i not in self.nondiff]
        leaves, self.in_tree = tree.flatten(tuple(args[i] for i in self.positions))
        self.leaves = [snapshot(leaf) if current_trace().captures else canonicalize(leaf) for leaf in leaves]
        self.avals = [aval_of(leaf) for leaf in self.leaves]
        self.weak = _weak_flags(leaves)
        self.out_tree: tree.TreeDef | None = None

    @property
    def static(self) -> list[Any]:
        return [self.args[i] for i in self.nondiff]

    def primals(self, leaves: Sequence[Any]) -> Any:
        """The differentiable arguments; what came as a Python number gives way in promotion, as it would in NumPy."""
        return tree.unflatten(self.in_tree, _weakened(leaves, self.weak))

    def arguments(self, primals: Any) -> list[Any]:
        """All positional arguments, with these in the place of the differentiable ones."""
        args = list(self.args)
        for position, value in zip(self.positions, primals, strict=True):
            args[position] = value
        return args

    def flatten_out(self, out: Any) -> list[Any]:
        leaves, self.out_tree = tree.flatten(out)
        return [canonicalize(leaf) for leaf in leaves]

    def function(self, *leaves: Any) -> list[Any]:
        return self.flatten_out(self.fun(*self.arguments(self.primals(leaves))))

    def result(self, outs: Sequence[Any]) -> Any:
        return tree.unflatten(self.out_tree, outs)  # type: ignore[arg-type]


def _signature(fun: Callable[..., Any]) -> inspect.Signature | None:
    """The signature of a function written in Python; those of compiled ones list options that no rule wants."""
    inner = fun.func if isinstance(fun, functools.partial) else fun
    written = inspect.isfunction(inner) or inspect.ismethod(inner) or inspect.isfunction(type(inner).__call__)
    return inspect.signature(fun) if written else None


def _positional(signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Keyword arguments and defaults as positional ones, so that rules number them."""
    if signature is None:
        if kwargs:
            raise ArgumentError(
                "a custom function without a signature takes positional arguments only",
                where=user_line(),
                got=", ".join(kwargs),
                remedy="give all arguments by position",
            )
        return args
    bound = signature.bind(*args, **kwargs)
    kinds = {name: p.kind for name, p in signature.parameters.items()}
    extra = [name for name in kwargs if kinds.get(name) is not inspect.Parameter.POSITIONAL_OR_KEYWORD]
    if extra:
        raise ArgumentError(
            "keyword-only arguments of a custom function have no number for its rules",
            where=user_line(),
            got=", ".join(extra),
            remedy="make them positional, or bind them with functools.partial before defining the rules",
        )
    bound.apply_defaults()
    return bound.args


def _numbers(argnums: int | Sequence[int]) -> tuple[int, ...]:
    return (argnums,) if isinstance(argnums, int) else tuple(argnums)


def _name(fun: Callable[..., Any]) -> str:
    return getattr(fun, "__name__", repr(fun))


def _check_pairs(what: str, name: str, values: Any, structure: tree.TreeDef, avals: Sequence[ShapedArray]) -> list[Any]:
    """The flat tangents (or cotangents) a rule returned, None for zero.

    Raises:
        CustomRuleError: tree, shape or dtype differ; names both.
    """
    remedy = f"return one {what} of the shape and dtype of each {name}"
    try:
        leaves = structure.flatten_up_to(values)
    except TreeError as mismatch:
        raise CustomRuleError(
            f"a custom rule returned {what}s of another structure than the {name}s",
            where=user_line(),
            got=str(mismatch).partition("\n")[0],
            remedy=remedy,
        ) from None
    checked: list[Any] = []
    for leaf, aval in zip(leaves, avals, strict=True):
        if leaf is None or isinstance(leaf, SymbolicZero) or not is_inexact(aval.dtype):
            checked.append(None)
            continue
        try:
            value = canonicalize(leaf)
        except InputError:
            raise CustomRuleError(
                f"a custom rule returned a {what} of another structure than its {name}",
                where=user_line(),
                got=f"{type(leaf).__name__} for {name} {aval}",
                remedy=remedy,
            ) from None
        if aval_of(value) != aval:
            if type(leaf) in _WEAK and aval.shape == () and np.can_cast(type(leaf), aval.dtype, "same_kind"):
                value = aval.dtype.type(leaf)
            else:
                raise CustomRuleError(
                    f"a custom rule returned a {what} of another type than its {name}",
                    where=user_line(),
                    got=f"{what} {aval_of(value)} for {name} {aval}",
                    remedy=remedy,
                )
        checked.append(value)
    return checked


class custom_jvp:
    """A function with a forward derivative rule of its own, from which reverse mode follows.

    Args:
        fun: function of arrays or pytrees of arrays.
        nondiff_argnums: positional arguments that the rule gets as they are, before primals and tangents.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> @functrace.custom_jvp
        ... def log1pexp(x):
        ...     return np.log1p(np.exp(x))
        >>> @log1pexp.defjvp
        ... def log1pexp_jvp(primals, tangents):
        ...     (x,), (x_dot,) = primals, tangents
        ...     return log1pexp(x), (1 - 1 / (1 + np.exp(x))) * x_dot
        >>> functrace.grad(log1pexp)(0.0)
        np.float64(0.5)
    """

    def __init__(self, fun: Callable[..., Any], nondiff_argnums: int | Sequence[int] = ()) -> None:
        check_callable(fun, "custom_jvp")
        functools.update_wrapper(self, fun)
        self.fun = fun
        self.signature = _signature(fun)
        self.nondiff_argnums = _numbers(nondiff_argnums)
        self.jvp: Callable[..., Any] | None = None
        self.symbolic_zeros = False

    def defjvp(self, jvp: Callable[..., Any], symbolic_zeros: bool = False) -> Callable[..., Any]:
        """Set the rule: `jvp(*nondiff, primals, tangents)` gives `(output, output tangent)`.

        Args:
            jvp: the rule; it must be linear in the tangents.
            symbolic_zeros: whether zero tangents arrive as `SymbolicZero` instead of arrays of zeros.

        Returns:
            The rule, so that this is a decorator.
        """
        check_functions("defjvp", jvp=jvp)
        self.jvp, self.symbolic_zeros = jvp, symbolic_zeros
        return jvp

    def defjvps(self, *jvps: Callable[..., Any] | None) -> None:
        """Set one rule per argument: `jvps[i](tangent, output, *args)` gives the output tangent; None for zero."""

        if self.nondiff_argnums:
            raise CustomRuleError(
                "defjvps has no place for nondiff_argnums", where=user_line(), remedy="define one rule with defjvp"
            )

        def jvp(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
            if len(jvps) != len(primals):
                raise CustomRuleError(
                    "defjvps needs one rule, or None, per argument",
                    where=user_line(),
                    got=f"{len(jvps)} rules for {len(primals)} arguments",
                    remedy="give None for an argument without derivative",
                )
            out = self(*primals)
            total = None
            for rule, tangent in zip(jvps, tangents, strict=True):
                if rule is None or all(isinstance(leaf, SymbolicZero) for leaf in tree.leaves(tangent)):
                    continue
                term = rule(tree.map(_dense, tangent), out, *primals)
                total = term if total is None else tree.map(lambda a, b: a + b, total, term)
            return out, tree.map(lambda leaf: SymbolicZero(aval_of(leaf)), out) if total is None else total

        self.defjvp(jvp, symbolic_zeros=True)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        rule = self.jvp
        if rule is None:
            raise CustomRuleError(
                f"no jvp rule is defined for the custom_jvp function {_name(self.fun)}",
                where=user_line(),
                remedy="define one with the decorator @f.defjvp before calling f",
            )
        args = _positional(self.signature, args, kwargs)
        if current_trace() is EVAL:
            return self.fun(*args)
        call = _Call(self.fun, self.nondiff_argnums, args)
        flat_rule = InContext(_flat_jvp(call, rule, self.symbolic_zeros))
        params = {"function": InContext(call.function), "rule": flat_rule, "constants": 0}
        return call.result(bind_call(custom_jvp_call, call.leaves, params))


def _flat_jvp(call: _Call, rule: Callable[..., Any], symbolic: bool) -> Callable[..., list[Any]]:
    """A user's jvp rule on flat lists."""

    def flat(*values: Any) -> list[Any]:
        count = len(call.avals)
        # Under a batch the leaves differ in shape from the call's own.
        primals, tangents = values[:count], values[count:]
        filled = [_materialize(t, aval_of(p), symbolic) for p, t in zip(primals, tangents, strict=True)]
        pair = rule(*call.static, call.primals(primals), tree.unflatten(call.in_tree, filled))
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise CustomRuleError(
                "a jvp rule must return a pair (output, output tangent)",
                where=user_line(),
                got=type(pair).__name__,
                remedy="return out, out_dot",
            )
        outs = call.flatten_out(pair[0])
        structure: Any = call.out_tree
        return [*outs, *_check_pairs("tangent", "output", pair[1], structure, [aval_of(o) for o in outs])]

    return flat


class custom_vjp:
    """A function with a reverse derivative rule of its own.

    Forward mode uses the rule given with `defjvp` if there is one, else the transpose of the backward rule, which must
    then be linear in the cotangent.

    Args:
        fun: function of arrays or pytrees of arrays.
        nondiff_argnums: positional arguments that are not differentiated; the backward rule gets them first.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> @functrace.custom_vjp
        ... def clip_gradient(x, limit):
        ...     return x
        >>> clip_gradient.defvjp(lambda x, limit: (x, limit), lambda limit, bar: (np.clip(bar, -limit, limit), None))
        >>> functrace.grad(lambda x: 10.0 * clip_gradient(x, 1.0))(0.0)
        np.float64(1.0)
    """

    def __init__(self, fun: Callable[..., Any], nondiff_argnums: int | Sequence[int] = ()) -> None:
        check_callable(fun, "custom_vjp")
        functools.update_wrapper(self, fun)
        self.fun = fun
        self.signature = _signature(fun)
        self.nondiff_argnums = _numbers(nondiff_argnums)
        self.fwd: Callable[..., Any] | None = None
        self.bwd: Callable[..., Any] | None = None
        self.jvp: Callable[..., Any] | None = None
        self.symbolic_zeros = False

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any], symbolic_zeros: bool = False) -> None:
        """Set the rules.

        Args:
            fwd: `fwd(*args)` gives `(output, residuals)`.
            bwd: `bwd(*nondiff, residuals, cotangent)` gives a tuple with one cotangent per differentiable argument;
                None stands for zero.
            symbolic_zeros: whether the arguments of `fwd` arrive as `CustomVJPPrimal`, and zero cotangents as
                `SymbolicZero`.
        """
        check_functions("defvjp", fwd=fwd, bwd=bwd)
        self.fwd, self.bwd, self.symbolic_zeros = fwd, bwd, symbolic_zeros

    def defjvp(self, jvp: Callable[..., Any]) -> Callable[..., Any]:
        """Set a rule for forward mode, as that of `custom_jvp`."""
        check_functions("defjvp", jvp=jvp)
        self.jvp = jvp
        return jvp

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.fwd is None or self.bwd is None:
            raise CustomRuleError(
                f"no vjp rule is defined for the custom_vjp function {_name(self.fun)}",
                where=user_line(),
                remedy="define one with f.defvjp(fwd, bwd) before calling f",
            )
        args = _positional(self.signature, args, kwargs)
        if current_trace() is EVAL:
            return self.fun(*args)
        call = _Call(self.fun, self.nondiff_argnums, args)
        rules = _FlatVJP(call, self.fwd, self.bwd, self.symbolic_zeros)
        params = {
            "function": InContext(call.function),
            "forward": InContext(rules.forward),
            "backward": InContext(rules.backward),
            "rule": None if self.jvp is None else InContext(_flat_jvp(call, self.jvp, False)),
            "constants": 0,
        }
        return call.result(bind_call(custom_vjp_call, call.leaves, params))


def _locked(residual: Any) -> Any:
    """A residual that neither the user's arrays nor the backward rule can change."""
    value = canonicalize(residual)
    if type(value) is np.ndarray and value.ndim:
        value = value.copy()
        value.flags.writeable = False
    return value


class _FlatVJP:
    """A user's pair of rules on flat lists."""

    def __init__(self, call: _Call, fwd: Callable[..., Any], bwd: Callable[..., Any], symbolic: bool) -> None:
        self.call, self.fwd, self.bwd, self.symbolic = call, fwd, bwd, symbolic
        self.residual_tree: Any = None
        self.residual_weak: list[bool] = []
        self.out_avals: list[ShapedArray] = []

    def forward(self, active: tuple[bool, ...], *leaves: Any) -> tuple[list[Any], list[Any]]:
        primals = self.call.primals(leaves)
        if self.symbolic:
            pairs = zip(tree.leaves(primals), active, strict=True)
            primals = tree.unflatten(self.call.in_tree, [CustomVJPPrimal(v, a) for v, a in pairs])
        pair = self.fwd(*self.call.arguments(primals))
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise CustomRuleError(
                "a forward rule must return a pair (output, residuals)",
                where=user_line(),
                got=type(pair).__name__,
                remedy="return out, residuals",
            )
        outs = self.call.flatten_out(pair[0])
        self.out_avals = [aval_of(out) for out in outs]
        residuals, self.residual_tree = tree.flatten(pair[1])
        self.residual_weak = _weak_flags(residuals)
        return outs, [_locked(r) for r in residuals]

    def backward(self, *values: Any) -> list[Any]:
        count = self.residual_tree.num_leaves
        residuals = tree.unflatten(self.residual_tree, _weakened(values[:count], self.residual_weak))
        bars = [_materialize(b, a, self.symbolic) for b, a in zip(values[count:], self.out_avals, strict=True)]
        found = self.bwd(*self.call.static, residuals, self.call.result(bars))
        arguments = self.call.in_tree.children()
        if not isinstance(found, (tuple, list)) or len(found) != len(arguments):
            raise CustomRuleError(
                "a backward rule must return a tuple with one cotangent per differentiable argument",
                where=user_line(),
                got=f"{type(found).__name__} of length {len(found) if isinstance(found, (tuple, list)) else 1} "
                f"for {len(arguments)} arguments",
                remedy="return a tuple, as in (x_bar,); None stands for a zero cotangent",
            )
        nothing = SymbolicZero(ShapedArray((), np.dtype(float)))
        full = tuple(
            tree.unflatten(a, [nothing] * a.num_leaves) if bar is None else bar
            for a, bar in zip(arguments, found, strict=True)
        )
        return _check_pairs("cotangent", "argument", full, self.call.in_tree, self.call.avals)


def checkpoint(fun: Callable[..., Any], policy: Policy | None = None) -> Callable[..., Any]:
    """The function, of which reverse mode keeps only the arguments: it is evaluated again when its pullback runs.

    Args:
        fun: function of arrays or pytrees of arrays.
        policy: which results are stored besides the arguments, such as `checkpoint_policies.dots_saveable`; the
            function is then recorded as a program at every call. None stores the arguments only.

    Returns:
        A function with the same values and derivatives, that needs less memory and more time in reverse mode. It must
        be pure: arrays that it closes over must not change before the pullback has run.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> functrace.grad(functrace.checkpoint(lambda x: np.sin(np.sin(x))))(0.0)
        np.float64(1.0)
    """
    check_callable(fun, "checkpoint")

    @functools.wraps(fun)
    def checkpointed(*args: Any, **kwargs: Any) -> Any:
        if current_trace() is EVAL:
            return fun(*args, **kwargs)
        call = _Call(lambda args, kwargs: fun(*args, **kwargs), (), (args, kwargs))
        if policy is not None:
            values, staged = stage_function(tuple(call.leaves), {"function": call.function})
            return call.result(saved_call.bind(*values, jaxpr=staged["function"].jaxpr, policy=policy))
        params = {"function": InContext(call.function), "constants": 0}
        return call.result(bind_call(checkpoint_call, call.leaves, params))

    return checkpointed
