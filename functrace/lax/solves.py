"""Solves with derivatives from the equation they solve: custom_root, custom_linear_solve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from functrace import tree
from functrace.control._functions import Body, flatten_values, split, stage_body
from functrace.control.calls import custom_jvp_call
from functrace.control.linear_solve import linear_solve
from functrace.core.ir import ClosedJaxpr, Jaxpr, eval_jaxpr, hoist_constants
from functrace.core.trace import EVAL, current_trace
from functrace.core.types import ShapedArray, aval_of, is_inexact
from functrace.errors import ArgumentError, CarryError
from functrace.interpreters.jvp import jvp
from functrace.interpreters.linearize import linearize
from functrace.interpreters.transpose import transpose_jaxpr
from functrace.primitives.shape import zeros
from functrace.transforms._flatten import check_functions, export
from functrace.util import user_line

__all__ = ["custom_linear_solve", "custom_root"]

Tree = Any


def _require_type(what: str, got_tree: Any, got: Sequence[ShapedArray], structure: Any, avals: Sequence[Any]) -> None:
    if got_tree != structure or list(got) != list(avals):
        raise CarryError(
            f"{what} must have the structure, shapes and dtypes of the value it is solved for",
            where=user_line(),
            got=f"{got_tree}, {', '.join(map(str, got))} for {structure}, {', '.join(map(str, avals))}",
            remedy="return arrays of the same shapes and dtypes, converting with .astype where needed",
        )


def _solution(what: str, out: Any, has_aux: bool) -> tuple[Any, Any]:
    if not has_aux:
        return out, None
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        raise ArgumentError(
            f"with has_aux=True {what} must return a pair (solution, auxiliary output)",
            where=user_line(),
            got=type(out).__name__,
            remedy="return x, aux",
        )
    return out[0], out[1]


def _stage_solver(what: str, run: Callable[[Any], Any], structure: Any, avals: Sequence[Any], has_aux: bool) -> Body:
    """Stage a solver of one argument; its result is checked and given as a pair."""

    def solver(value: Any) -> Any:
        solution, aux = _solution(what, run(value), has_aux)
        leaves, out_tree, weak = flatten_values(solution)
        got = [
            a if w and aval_of(v).shape == a.shape and is_inexact(a.dtype) else aval_of(v)
            for v, a, w in zip(leaves, avals, weak, strict=False)
        ]
        _require_type(f"the result of {what}", out_tree, got, structure, avals)
        leaves = [a.dtype.type(v) if w else v for v, a, w in zip(leaves, avals, weak, strict=True)]
        return leaves, aux

    return stage_body(solver, tree.structure((tree.unflatten(structure, list(avals)),)), avals)


def custom_linear_solve(
    matvec: Callable[[Tree], Tree],
    b: Tree,
    solve: Callable[[Callable[[Tree], Tree], Tree], Any],
    transpose_solve: Callable[[Callable[[Tree], Tree], Tree], Any] | None = None,
    symmetric: bool = False,
    has_aux: bool = False,
) -> Any:
    """The solution of matvec(x) = b by a solver of your own, differentiable in b and in what `matvec` closes over.

    Derivatives come from the equation, not from the solver's steps, to any order and in both modes.

    Args:
        matvec: linear function from arrays (or pytrees) like b to arrays like b.
        b: the right-hand side.
        solve: `solve(matvec, b)` gives the solution.
        transpose_solve: `transpose_solve(vecmat, b)` solves with the transposed function; reverse mode needs it.
        symmetric: whether `matvec` is its own transpose, so that `solve` serves for both.
        has_aux: whether the solvers return a pair (solution, auxiliary output), the second without derivative.

    Returns:
        The solution, or the pair (solution, auxiliary output).

    Raises:
        CarryError: `matvec` or a solver changes structure, shape or dtype.
        MissingRuleError: reverse mode without `transpose_solve` or `symmetric`.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> from functrace import lax
        >>> def solve(a, b):
        ...     return lax.custom_linear_solve(lambda x: a * x, b, lambda _, b: b / a, symmetric=True)
        >>> functrace.grad(solve, argnums=(0, 1))(2.0, 3.0)
        (np.float64(-0.75), np.float64(0.5))
    """
    check_functions("custom_linear_solve", matvec=matvec, solve=solve)
    if transpose_solve is not None:
        check_functions("custom_linear_solve", transpose_solve=transpose_solve)
    leaves, structure, _ = flatten_values(b)
    avals = [aval_of(leaf) for leaf in leaves]
    if not all(is_inexact(a.dtype) for a in avals):
        raise ArgumentError(
            "custom_linear_solve needs a right-hand side of floats",
            where=user_line(),
            got=", ".join(map(str, avals)),
            remedy="convert it with .astype(float)",
        )
    if current_trace() is EVAL:
        return solve(matvec, tree.unflatten(structure, leaves))
    in_tree = tree.structure((b,))
    matrix = stage_body(matvec, in_tree, avals)
    _require_type("the result of matvec", matrix.out_tree, matrix.out_avals, structure, avals)

    def solver_body(what: str, run: Callable[..., Any], program: Jaxpr, constants: list[Any]) -> Body:
        def apply(value: Any) -> Any:
            flat = [_cast(leaf, a) for leaf, a in zip(structure.flatten_up_to(value), avals, strict=True)]
            return tree.unflatten(structure, eval_jaxpr(program, (), *constants, *flat))

        return _stage_solver(what, lambda value: run(apply, value), structure, avals, has_aux)

    solver = solver_body("solve", solve, matrix.jaxpr, matrix.constants)
    transposed: Body | None = solver if symmetric else None
    if transpose_solve is not None and not symmetric:
        flags = [*(False for _ in matrix.constants), *(True for _ in avals)]
        vecmat, own = hoist_constants(transpose_jaxpr(ClosedJaxpr(matrix.jaxpr), flags))
        transposed = solver_body("transpose_solve", transpose_solve, vecmat, [*own, *matrix.constants])
    second = [] if transposed is None else transposed.constants
    outs = linear_solve.bind(
        *matrix.constants,
        *solver.constants,
        *second,
        *leaves,
        matvec=matrix.jaxpr,
        solve=solver.jaxpr,
        transpose_solve=None if transposed is None else transposed.jaxpr,
        symmetric=bool(symmetric),
        counts=(len(matrix.constants), len(solver.constants), len(second)),
    )
    return _results(export(outs), structure, solver, has_aux)


def _cast(leaf: Any, aval: ShapedArray) -> Any:
    """A vector's leaf; a Python number takes the dtype wanted."""
    return aval.dtype.type(leaf) if type(leaf) in (int, float) and aval.shape == () else leaf


def _results(outs: list[Any], structure: Any, solver: Body, has_aux: bool) -> Any:
    solution, aux = split(outs, structure.num_leaves)
    x = tree.unflatten(structure, solution)
    return (x, tree.unflatten(solver.out_tree.children()[1], aux)) if has_aux else x


def custom_root(
    f: Callable[[Tree], Tree],
    initial_guess: Tree,
    solve: Callable[[Callable[[Tree], Tree], Tree], Any],
    tangent_solve: Callable[[Callable[[Tree], Tree], Tree], Tree],
    has_aux: bool = False,
) -> Any:
    """A root of `f` by a solver of your own, differentiable in what `f` closes over.

    Derivatives come from the implicit function theorem, not from the solver's steps, to any order and in both modes.
    The initial guess has none.

    Args:
        f: function from arrays (or pytrees) like the guess to arrays like the guess.
        initial_guess: where the solver starts.
        solve: `solve(f, initial_guess)` gives the root.
        tangent_solve: `tangent_solve(g, y)` solves g(x) = y for linear g: for scalars `y / g(1.0)`, for vectors
            `numpy.linalg.solve(functrace.jacobian(g)(y), y)` or `custom_linear_solve`.
        has_aux: whether `solve` returns a pair (root, auxiliary output), the second without derivative.

    Returns:
        The root, or the pair (root, auxiliary output).

    Raises:
        CarryError: `f` or `solve` changes structure, shape or dtype.

    Example:
        >>> import functrace
        >>> from functrace import lax
        >>> def newton(f, x):
        ...     return lax.fori_loop(0, 20, lambda _, x: x - f(x) / functrace.grad(f)(x), x)
        >>> def square_root(a):
        ...     return lax.custom_root(lambda x: x * x - a, 1.0, newton, lambda g, y: y / g(1.0))
        >>> functrace.grad(square_root)(4.0)
        np.float64(0.25)
    """
    check_functions("custom_root", f=f, solve=solve, tangent_solve=tangent_solve)
    leaves, structure, _ = flatten_values(initial_guess)
    if current_trace() is EVAL:
        return solve(f, tree.unflatten(structure, leaves))
    avals = [aval_of(leaf) for leaf in leaves]
    body = stage_body(f, tree.structure((initial_guess,)), avals)
    _require_type("the result of f", body.out_tree, body.out_avals, structure, avals)
    jaxpr, constants = body.jaxpr, body.constants

    def with_constants(values: Sequence[Any]) -> Callable[[Any], Any]:
        def at(x: Any) -> Any:
            flat = [_cast(leaf, a) for leaf, a in zip(structure.flatten_up_to(x), avals, strict=True)]
            return tree.unflatten(structure, eval_jaxpr(jaxpr, (), *values, *flat))

        return at

    solver = _stage_solver("solve", lambda x: solve(with_constants(constants), x), structure, avals, has_aux)
    count, size = len(constants), len(avals)

    def function(*operands: Any) -> list[Any]:
        return eval_jaxpr(solver.jaxpr, (), *operands[count:])

    def rule(*values: Any) -> list[Any]:
        primals, tangents = values[: len(values) // 2], values[len(values) // 2 :]
        outs = custom_jvp_call.bind(*primals, function=function, rule=rule, constants=0)
        root, known, dots = outs[:size], primals[:count], tangents[:count]
        if all(t is None for t in dots):
            return [*outs, *(None for _ in outs)]
        _, sides = jvp(lambda *consts: eval_jaxpr(jaxpr, (), *consts, *root), known, dots)
        _, program = linearize(lambda *xs: eval_jaxpr(jaxpr, (), *known, *xs), root)

        def tangent_map(x: Any) -> Any:
            flat = [_cast(leaf, aval_of(r)) for leaf, r in zip(structure.flatten_up_to(x), root, strict=True)]
            found = program(*flat)
            filled = [zeros(aval_of(r)) if t is None else t for t, r in zip(found, root, strict=True)]
            return tree.unflatten(structure, filled)

        filled = [zeros(aval_of(r)) if side is None else -side for side, r in zip(sides, root, strict=True)]
        solved = flatten_values(tangent_solve(tangent_map, tree.unflatten(structure, filled)))
        got = [aval_of(x) for x in solved[0]]
        _require_type("the result of tangent_solve", solved[1], got, structure, [aval_of(r) for r in root])
        return [*outs, *solved[0], *(None for _ in outs[size:])]

    outs = custom_jvp_call.bind(*constants, *solver.constants, *leaves, function=function, rule=rule, constants=0)
    return _results(export(outs), structure, solver, has_aux)
