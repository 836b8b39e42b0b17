"""jvp, vjp, linearize and grad: derivatives of a function at a point, along directions or of a scalar output."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace import tree
from functrace.control.linearity import require_linear
from functrace.core.ir import Literal, Var, live_eqns
from functrace.core.trace import current_trace, reset_trace, set_trace
from functrace.core.types import ShapedArray, aval_of, is_inexact
from functrace.errors import (
    ArgumentError,
    InputError,
    NonDifferentiableInputError,
    NonScalarOutputError,
)
from functrace.interpreters import jvp as forward
from functrace.interpreters import linearize as linearization
from functrace.interpreters.staging import PartialEvalTrace
from functrace.interpreters.transpose import backward_pass
from functrace.primitives import elementwise
from functrace.transforms._flatten import (
    FlatFunction,
    argument_positions,
    check_callable,
    check_like,
    export,
    instantiate,
)
from functrace.transforms.memory import parse_bytes, within_memory
from functrace.util import Source, user_line, user_source

__all__ = [
    "fwd_and_rev",
    "grad",
    "hvp",
    "jvp",
    "linear_transpose",
    "linearize",
    "stop_gradient",
    "value_and_grad",
    "vjp",
]


def jvp(
    fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False
) -> tuple[Any, ...]:
    """Value of `fun` and its derivative along a direction (forward mode).

    Args:
        fun: function of arrays or pytrees of arrays.
        primals: tuple or list of the arguments.
        tangents: tuple or list of the same structure, shapes and dtypes: the direction.
        has_aux: whether `fun` returns a pair (output, auxiliary output), of which only the first is differentiated.

    Returns:
        `(output, output tangent)`, and the auxiliary output third if `has_aux`.

    Raises:
        TangentError: the tangents do not match the primals.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> functrace.jvp(np.sin, (0.0,), (2.0,))
        (np.float64(0.0), np.float64(2.0))
    """
    check_callable(fun, "jvp")
    for name, values in (("primals", primals), ("tangents", tangents)):
        if not isinstance(values, (tuple, list)):
            raise InputError(
                f"{name} of jvp must be a tuple or list of arguments",
                where=user_line(),
                got=type(values).__name__,
                remedy="write jvp(f, (x,), (x_dot,))",
            )
    flat = FlatFunction(fun, primals, {}, has_aux=has_aux, keep=current_trace().captures)
    avals = [aval_of(leaf) for leaf in flat.leaves]
    flat_tangents = check_like(tuple(tangents), flat.in_tree, avals, "tangent")
    values, out_tangents = forward.jvp(flat, flat.leaves, flat_tangents, flat.weak)
    count = flat.out_tree.num_leaves
    out_tangents = [instantiate(t, aval_of(v)) for v, t in zip(values, out_tangents[:count], strict=False)]
    exported = export([*values, *out_tangents], [*flat.leaves, *flat_tangents])
    out, aux = flat.results(exported[: len(values)], count)
    out_dot = tree.unflatten(flat.out_tree, exported[len(values) :])
    return (out, out_dot, aux) if has_aux else (out, out_dot)


def _linearize(flat: FlatFunction) -> tuple[list[Any], linearization.LinearProgram]:
    active = [is_inexact(leaf.dtype) for leaf in flat.leaves]
    return linearization.linearize(flat, flat.leaves, active, flat.weak)


def _residuals(program: linearization.LinearProgram) -> list[Any]:
    return [a.val for eqn in program.eqns for a in eqn.invars if isinstance(a, Literal)]


def linearize(fun: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """Value of `fun` and its derivative as a linear function, to be applied to many tangents.

    Args:
        fun: function of arrays or pytrees of arrays.
        primals: its arguments.
        has_aux: whether `fun` returns a pair (output, auxiliary output).

    Returns:
        `(output, f_jvp)`, and the auxiliary output third if `has_aux`. `f_jvp(*tangents)` gives the output tangent
        without evaluating `fun` again.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> y, f_jvp = functrace.linearize(lambda x: x**3, 2.0)
        >>> y, f_jvp(1.0)
        (np.float64(8.0), np.float64(12.0))
    """
    check_callable(fun, "linearize")
    flat = FlatFunction(fun, primals, {}, has_aux=has_aux)
    values, program = _linearize(flat)
    count = flat.out_tree.num_leaves
    f_jvp = _pushforward(flat, program, [aval_of(v) for v in values[:count]])
    out, aux = flat.results(export(values, [*flat.leaves, *_residuals(program)]), count)
    return (out, f_jvp, aux) if has_aux else (out, f_jvp)


def _pushforward(flat: FlatFunction, program: linearization.LinearProgram, out_avals: list[Any]) -> Callable[..., Any]:
    avals = [aval_of(leaf) for leaf in flat.leaves]
    out_tree, in_tree = flat.out_tree, flat.in_tree
    program = linearization.LinearProgram(program.invars, program.eqns, program.outvars[: len(out_avals)])

    def f_jvp(*tangents: Any) -> Any:
        """Output tangent of input tangents, at the point of linearization."""
        flat_tangents = check_like(tangents, in_tree, avals, "tangent")
        used = [instantiate(t, a) for t, a in zip(flat_tangents, avals, strict=True) if is_inexact(a.dtype)]
        out_tangents = program(*used)
        full = [instantiate(t, a) for t, a in zip(out_tangents, out_avals, strict=True)]
        return tree.unflatten(out_tree, export(full, [*used, *_residuals(program)]))

    return f_jvp


def vjp(fun: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """Value of `fun` and its pullback: cotangents of the outputs to cotangents of the arguments (reverse mode).

    Args:
        fun: function of arrays or pytrees of arrays.
        primals: its arguments.
        has_aux: whether `fun` returns a pair (output, auxiliary output).

    Returns:
        `(output, f_vjp)`, and the auxiliary output third if `has_aux`. `f_vjp(cotangent)` takes a tree like the output
        and gives a tuple with one cotangent per argument.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> y, f_vjp = functrace.vjp(lambda x, y: x * np.sin(y), 2.0, 0.0)
        >>> f_vjp(1.0)
        (np.float64(0.0), np.float64(2.0))
    """
    check_callable(fun, "vjp")
    flat = FlatFunction(fun, primals, {}, has_aux=has_aux)
    values, program = _linearize(flat)
    count = flat.out_tree.num_leaves
    f_vjp = _pullback(flat, program, [aval_of(v) for v in values[:count]])
    out, aux = flat.results(export(values, [*flat.leaves, *_residuals(program)]), count)
    return (out, f_vjp, aux) if has_aux else (out, f_vjp)


def _pullback(flat: FlatFunction, program: linearization.LinearProgram, out_avals: list[Any]) -> Callable[[Any], Any]:
    in_avals = [aval_of(leaf) for leaf in flat.leaves]
    out_tree, in_tree = flat.out_tree, flat.in_tree
    outvars = program.outvars[: len(out_avals)]

    def f_vjp(cotangent: Any) -> Any:
        """Cotangents of the arguments, at the point of linearization."""
        bars = check_like(cotangent, out_tree, out_avals, "cotangent")
        found = iter(backward_pass(program.eqns, program.invars, outvars, bars))
        in_bars = [instantiate(next(found) if is_inexact(a.dtype) else None, a) for a in in_avals]
        return tree.unflatten(in_tree, export(in_bars, [*bars, *_residuals(program)]))

    return f_vjp


def fwd_and_rev(
    fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], cotangent: Any
) -> tuple[Any, Any, tuple[Any, ...]]:
    """Value, Jacobian times tangents and cotangent times Jacobian, of one linearization.

    Args:
        fun: function of arrays or pytrees of arrays.
        primals: tuple or list of the arguments.
        tangents: tuple or list like the primals.
        cotangent: tree like the output.

    Returns:
        `(output, output tangent, cotangents of the arguments)`.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> functrace.fwd_and_rev(lambda x, y: x * y, (2.0, 3.0), (1.0, 0.0), 1.0)
        (np.float64(6.0), np.float64(3.0), (np.float64(3.0), np.float64(2.0)))
    """
    check_callable(fun, "fwd_and_rev")
    flat = FlatFunction(fun, primals, {})
    values, program = _linearize(flat)
    out_avals = [aval_of(v) for v in values]
    out_tangent = _pushforward(flat, program, out_avals)(*tangents)
    bars = _pullback(flat, program, out_avals)(cotangent)
    return flat.results(export(values, [*flat.leaves, *_residuals(program)]))[0], out_tangent, bars


def linear_transpose(fun: Callable[..., Any], *primals: Any) -> Callable[[Any], Any]:
    """The transpose of a function that is linear in all its arguments.

    Args:
        fun: linear function of arrays or pytrees of arrays.
        primals: values or `ShapeDtypeStruct`s that give the arguments' types; their values are not used.

    Returns:
        A function from a cotangent like the output to a tuple with one cotangent per argument.

    Raises:
        MissingRuleError: `fun` is not linear; names the operation.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> transpose = functrace.linear_transpose(lambda x: 3.0 * x, 0.0)
        >>> transpose(2.0)
        (np.float64(6.0),)
    """
    check_callable(fun, "linear_transpose")
    values = tree.map(lambda p: np.zeros(p.shape, p.dtype) if isinstance(p, ShapedArray) else p, primals)
    flat = FlatFunction(fun, values, {})
    avals = [aval_of(leaf) for leaf in flat.leaves]
    for aval in avals:
        if not is_inexact(aval.dtype):
            raise NonDifferentiableInputError(
                "linear_transpose needs floating point or complex arguments",
                where=user_line(),
                got=str(aval),
                remedy="close over integer arguments instead of passing them",
            )
    trace = _LinearTrace(current_trace())
    inputs = [trace.new_input(aval) for aval in avals]
    invars: list[Any] = [tracer.atom for tracer in inputs]
    token = set_trace(trace)
    try:
        outs = flat(*inputs)
    finally:
        reset_trace(token)
        trace.alive = False
    atoms = [trace.atom(out) for out in outs]
    for atom in atoms:
        if type(atom) is Literal and np.any(atom.val):
            raise ArgumentError(
                "linear_transpose: an output does not depend on the arguments, so the function is not linear",
                where=user_line(),
                got=str(atom.aval),
                remedy="transpose only the linear part of the function",
            )
    outvars = [None if type(a) is Literal else a for a in atoms]
    eqns = live_eqns(trace.recorder.eqns, [a for a in atoms if type(a) is Var])
    require_linear(eqns, invars)
    program = linearization.LinearProgram(invars, eqns, outvars)  # type: ignore[arg-type]
    return _pullback(flat, program, [a.aval for a in atoms])


class _LinearTrace(PartialEvalTrace):
    """Partial evaluation that keeps the user's lines, for the message that an operation is not linear."""

    def eqn_source(self) -> Source | None:
        return user_source()


def value_and_grad(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
    memory: int | float | str | None = None,
) -> Callable[..., Any]:
    """A function that gives both the value and the gradient of a scalar function (reverse mode).

    Args:
        fun: function of arrays or pytrees of arrays with a scalar output.
        argnums: which positional arguments to differentiate; a sequence makes the gradient a tuple.
        has_aux: whether `fun` returns a pair (output, auxiliary output).
        holomorphic: whether `fun` is holomorphic; then inputs and output must be complex.
        allow_int: whether integer inputs are allowed; their gradient is zero of dtype float0.
        memory: see `grad`.

    Returns:
        A function of the same arguments that gives `(value, gradient)`, or `((value, aux), gradient)` if `has_aux`.

    Raises:
        NonScalarOutputError: the output is not a real scalar (when called).
        NonDifferentiableInputError: an input is an integer, or real with `holomorphic` (when called).

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> functrace.value_and_grad(lambda x: (x**2).sum())(np.array([1.0, 2.0]))
        (np.float64(5.0), array([2., 4.]))
    """
    check_callable(fun, "grad")
    if memory is not None:
        parse_bytes(memory)

        @functools.wraps(fun)
        def frugal_fun(*args: Any, **kwargs: Any) -> Any:
            def derivative(f: Callable[..., Any]) -> Callable[..., Any]:
                return value_and_grad(f, argnums, has_aux, holomorphic, allow_int)

            return within_memory(fun, derivative, memory, args, kwargs)

        return frugal_fun

    @functools.wraps(fun)
    def value_and_grad_fun(*args: Any, **kwargs: Any) -> Any:
        positions = argument_positions(argnums, len(args), "grad")
        flat = FlatFunction(fun, args, kwargs, positions, has_aux)
        active = [_check_input(leaf, holomorphic, allow_int) for leaf in flat.leaves]
        values, program = linearization.linearize(flat, flat.leaves, active, flat.weak)
        value = _check_scalar_output(flat, values, holomorphic)
        found = iter(backward_pass(program.eqns, program.invars, program.outvars[:1], [value.dtype.type(1)]))
        bars = [instantiate(next(found) if a else None, aval_of(p)) for p, a in zip(flat.leaves, active, strict=True)]
        exported = export([*values, *bars], flat.leaves)
        gradients = tree.unflatten(flat.in_tree, exported[len(values) :])
        gradient = gradients if isinstance(argnums, (tuple, list)) else gradients[0]
        out, aux = flat.results(exported[: len(values)])
        return ((out, aux), gradient) if has_aux else (out, gradient)

    return value_and_grad_fun


def grad(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
    memory: int | float | str | None = None,
) -> Callable[..., Any]:
    """The gradient of a scalar function (reverse mode).

    Args:
        fun: function of arrays or pytrees of arrays with a scalar output.
        argnums: which positional arguments to differentiate; a sequence makes the gradient a tuple.
        has_aux: whether `fun` returns a pair (output, auxiliary output).
        holomorphic: whether `fun` is holomorphic; then inputs and output must be complex.
        allow_int: whether integer inputs are allowed; their gradient is zero of dtype float0.
        memory: the bytes that the gradient may hold at once, as a number or text ("200MB"). Loops (`lax.scan`) are
            then reversed by Revolve's schedule and other operations run again in pieces, so far as is needed by
            prediction (see `functrace.inspect.cost`); the function is recorded at every call.

    Returns:
        A function of the same arguments that gives the gradient, shaped like the arguments, or `(gradient, aux)`. For
        a complex input z = x + iy it is df/dx - i df/dy: the conjugate points uphill.

    Raises:
        NonScalarOutputError: the output is not a real scalar (when called).
        NonDifferentiableInputError: an input is an integer, or real with `holomorphic` (when called).

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> functrace.grad(lambda x, y: np.log(x) + x * y - np.sin(y), argnums=(0, 1))(2.0, 5.0)
        (np.float64(5.5), np.float64(1.7163378145367738))
    """
    value_and_grad_fun = value_and_grad(fun, argnums, has_aux, holomorphic, allow_int, memory)

    @functools.wraps(fun)
    def grad_fun(*args: Any, **kwargs: Any) -> Any:
        value, gradient = value_and_grad_fun(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return grad_fun


def _check_input(leaf: Any, holomorphic: bool, allow_int: bool) -> bool:
    """Whether the input has a tangent.

    Raises:
        NonDifferentiableInputError: it has none, or is not of the kind asked for.
    """
    kind = leaf.dtype.kind
    if kind == "c" or (kind == "f" and not holomorphic):
        return True
    if kind in "iub" and allow_int:
        return False
    if holomorphic:
        what, remedy = "grad(holomorphic=True) needs complex inputs", "convert them with numpy.asarray(x, complex)"
    else:
        what = "grad needs floating point inputs"
        remedy = "pass 2.0 instead of 2, convert with numpy.asarray(x, float), or allow_int=True for a float0 zero"
    raise NonDifferentiableInputError(what, where=user_line(), got=str(aval_of(leaf)), remedy=remedy)


def _check_scalar_output(flat: FlatFunction, values: list[Any], holomorphic: bool) -> Any:
    """The one output.

    Raises:
        NonScalarOutputError: there are several, or it is not a scalar of the right kind.
    """
    remedy = "reduce the output, for instance with .sum(); for all derivatives of an array output use jacrev or jacfwd"
    if flat.out_tree.num_leaves != 1 or flat.out_tree != tree.structure(0):
        raise NonScalarOutputError(
            "grad needs a function with one scalar output", where=user_line(), got=str(flat.out_tree), remedy=remedy
        )
    value = values[0]
    if value.shape != ():
        raise NonScalarOutputError(
            "grad needs a function with one scalar output", where=user_line(), got=str(aval_of(value)), remedy=remedy
        )
    if value.dtype.kind != ("c" if holomorphic else "f"):
        wanted = "complex output when holomorphic=True" if holomorphic else "real floating point output"
        raise NonScalarOutputError(
            f"grad needs a {wanted}",
            where=user_line(),
            got=str(aval_of(value)),
            remedy="take numpy.real(...) or numpy.abs(...) of a complex output, or pass holomorphic=True",
        )
    return value


def hvp(fun: Callable[[Any], Any], x: Any, v: Any) -> Any:
    """Hessian of a scalar function at `x` times `v`, forward over reverse; about four evaluations of `fun`.

    Args:
        fun: function of one array or pytree with a scalar output.
        x: the point.
        v: the direction, of the same structure, shapes and dtypes.

    Returns:
        The product, shaped like `x`.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> functrace.hvp(lambda x: (x**3).sum(), np.array([1.0, 2.0]), np.array([1.0, 1.0]))
        array([ 6., 12.])
    """
    return jvp(grad(fun), (x,), (v,))[1]


def stop_gradient(x: Any) -> Any:
    """The value unchanged, with derivative zero.

    Args:
        x: array or pytree of arrays.

    Example:
        >>> import functrace
        >>> functrace.grad(lambda x: x * functrace.stop_gradient(x))(3.0)
        np.float64(3.0)
    """
    return tree.map(lambda leaf: elementwise.stop_gradient(leaf) if hasattr(leaf, "dtype") else leaf, x)
