"""IPOPT (Wächter and Biegler, 2006) through the copy in CasADi's wheel, or through cyipopt.

CasADi is given our functions as callbacks that read and write its buffers, with our structures, so that nothing is
converted and no derivative of CasADi's takes part.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.errors import ArgumentError, MissingSolverError
from functrace.optimize.problem import Callbacks, Problem
from functrace.optimize.solved import Solved
from functrace.util import user_line

__all__ = ["available_interfaces", "solve_by_ipopt"]

#: What IPOPT takes for infinity.
INFINITY = 2e19

INTERFACES = ("cyipopt", "casadi")


def available_interfaces() -> list[str]:
    """Which ways to IPOPT are installed, the preferred one first."""
    return [name for name in INTERFACES if name in sys.modules or importlib.util.find_spec(name) is not None]


def solve_by_ipopt(
    problem: Problem, start: np.ndarray, params: Any, tol: float | None, options: dict[str, Any]
) -> Solved:
    """Run IPOPT from a start inside the bounds.

    Args:
        options: IPOPT's own, and "interface": "casadi" or "cyipopt".

    Raises:
        MissingSolverError: the interface, or any, is not installed.
        ArgumentError: there is no such interface or option.
    """
    interface = options.pop("interface", None)
    if interface is not None and interface not in INTERFACES:
        raise ArgumentError(
            "there is no such interface to IPOPT",
            where=user_line(),
            got=repr(interface),
            remedy=f"choose one of {', '.join(INTERFACES)}",
        )
    available = available_interfaces()
    if not available or (interface is not None and interface not in available):
        raise MissingSolverError(
            f"IPOPT cannot be reached: {'neither casadi nor cyipopt' if interface is None else interface} is"
            f"{'' if interface is None else ' not'} installed",
            where=user_line(),
            remedy="install one (pip install casadi brings IPOPT along; cyipopt needs IPOPT's own library), or use "
            "method='trust-constr', which SciPy has",
        )
    options.setdefault("print_level", 0)
    options.setdefault("sb", "yes")
    if tol is not None:
        options["tol"] = float(tol)
    solve = _by_casadi if (interface or available[0]) == "casadi" else _by_cyipopt
    return solve(problem, start, params, options)


def _by_cyipopt(problem: Problem, start: np.ndarray, params: Any, options: dict[str, Any]) -> Solved:
    import cyipopt

    def finite(bounds: np.ndarray) -> np.ndarray:
        return np.clip(bounds, -INFINITY, INFINITY)

    solver = cyipopt.Problem(
        n=problem.size,
        m=problem.count,
        problem_obj=Callbacks(problem, params),
        lb=finite(problem.lower),
        ub=finite(problem.upper),
        cl=finite(problem.constraint_lower),
        cu=finite(problem.constraint_upper),
    )
    for name, value in options.items():
        solver.add_option(name, value)
    x, info = solver.solve(start)
    message = info["status_msg"]
    message = message.decode() if isinstance(message, bytes) else str(message)
    z = np.asarray(info["mult_x_U"]) - np.asarray(info["mult_x_L"])
    status = int(info["status"])
    return Solved(
        np.array(x),
        np.array(info["mult_g"], float),
        z,
        status in (0, 1),
        status,
        message,
        int(info.get("iter", -1)),
        info,
    )


class _Failure:
    """The first exception that a callback met; CasADi would print it and go on."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def guard(self, run: Callable[[list[Any], list[Any]], None]) -> Callable[[list[Any], list[Any]], int]:
        """`run` as a function that gives 0, or 1 once anything has failed."""

        def guarded(arguments: list[Any], results: list[Any]) -> int:
            if self.error is not None:
                return 1
            try:
                run(arguments, results)
            except BaseException as error:
                self.error = error
                return 1
            return 0

        return guarded


@functools.cache
def _buffers(casadi: Any) -> Any:
    """The class of CasADi functions of buffers, made once: CasADi takes its time for a class."""

    class Buffers(casadi.Callback):
        def __init__(self, name: str, ins: dict[str, Any], outs: dict[str, Any], run: Callable[..., int]) -> None:
            casadi.Callback.__init__(self)
            self.ins, self.outs, self.run = list(ins.items()), list(outs.items()), run
            self.construct(name, {})

        def get_n_in(self) -> int:
            return len(self.ins)

        def get_n_out(self) -> int:
            return len(self.outs)

        def get_name_in(self, i: int) -> str:
            return self.ins[i][0]

        def get_name_out(self, i: int) -> str:
            return self.outs[i][0]

        def get_sparsity_in(self, i: int) -> Any:
            return self.ins[i][1]

        def get_sparsity_out(self, i: int) -> Any:
            return self.outs[i][1]

        def has_eval_buffer(self) -> bool:
            return True

        def eval_buffer(self, arg: Any, res: Any) -> int:
            return self.run([_view(a) for a in arg], [_view(r) for r in res])

    return Buffers


def _callback(casadi: Any, name: str, ins: dict[str, Any], outs: dict[str, Any], run: Callable[..., int]) -> Any:
    """A CasADi function of buffers: None for what is not asked for, else arrays of nonzeros.

    Args:
        ins, outs: names and sparsities.
    """
    return _buffers(casadi)(name, ins, outs, run)


def _view(buffer: Any) -> np.ndarray | None:
    return None if buffer is None else np.frombuffer(buffer)


def _store(target: np.ndarray | None, value: Any) -> None:
    if target is not None:
        target[:] = value


def _functions(casadi: Any, problem: Problem, params: Any, failure: _Failure) -> dict[str, Any]:
    """The problem and its derivatives as CasADi functions, by the names that `nlpsol` gives them."""
    n, m = problem.size, problem.count
    jacobian, hessian = problem.jacobian_structure, problem.hessian_structure
    # CasADi wants the upper triangle by columns: ours, transposed, by rows.
    order = np.argsort(hessian.rows, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(hessian.rows, minlength=n))])
    jacobian_sparsity = casadi.Sparsity(m, n, jacobian.starts.tolist(), jacobian.rows.tolist())
    triangle = casadi.Sparsity(n, n, starts.tolist(), hessian.cols[order].tolist())
    number, of_variables, of_constraints = (casadi.Sparsity.dense(size, 1) for size in (1, n, m))
    point = {"x": of_variables, "p": casadi.Sparsity.dense(0, 1)}
    f, g = {"f": number}, {"g": of_constraints}

    def values(args: list[Any], out: list[Any]) -> None:
        at = problem.at(args[0], params)
        _store(out[0], at.objective)
        _store(out[1], at.constraints)

    def gradient(args: list[Any], out: list[Any]) -> None:
        at = problem.at(args[0], params)
        _store(out[0], at.objective)
        _store(out[1], at.gradient)

    def slopes(args: list[Any], out: list[Any]) -> None:
        at = problem.at(args[0], params)
        _store(out[0], at.constraints)
        _store(out[1], at.jacobian_values)

    def curvature(args: list[Any], out: list[Any]) -> None:
        x, _, sigma, lam = args
        lam = np.zeros(0) if lam is None else lam
        found = problem.at(x, params).hessian_values(lam, 1.0 if sigma is None else float(sigma[0]))
        _store(out[0], found[order])

    def make(name: str, ins: dict[str, Any], outs: dict[str, Any], run: Callable[..., None]) -> Any:
        return _callback(casadi, name, ins, outs, failure.guard(run))

    weights = {"lam_f": number, "lam_g": of_constraints}
    return {
        "nlp": make("nlp", point, f | g, values),
        "grad_f": make("nlp_grad_f", point, f | {"grad_f_x": of_variables}, gradient),
        "jac_g": make("nlp_jac_g", point, g | {"jac_g_x": jacobian_sparsity}, slopes),
        "hess_lag": make("nlp_hess_l", point | weights, {"triu_hess_gamma_x_x": triangle}, curvature),
    }


def _by_casadi(problem: Problem, start: np.ndarray, params: Any, options: dict[str, Any]) -> Solved:
    import casadi

    begin = time.perf_counter()
    failure = _Failure()
    functions = _functions(casadi, problem, params, failure)
    settings = {
        **{f"ipopt.{name}": value for name, value in options.items()},
        **{name: functions[name] for name in ("grad_f", "jac_g", "hess_lag")},
        "print_time": False,
        "show_eval_warnings": False,
        "no_nlp_grad": True,
        **{name: False for name in ("calc_f", "calc_g", "calc_lam_x", "calc_lam_p")},
    }
    try:
        solver = casadi.nlpsol("solver", "ipopt", functions["nlp"], settings)
    except RuntimeError as error:
        raise ArgumentError(
            "IPOPT could not be set up",
            where=user_line(),
            got=str(error).strip().splitlines()[-1],
            remedy="check the names and values of the options",
        ) from error
    ready = time.perf_counter()
    try:
        found = solver(
            x0=start, lbx=problem.lower, ubx=problem.upper, lbg=problem.constraint_lower, ubg=problem.constraint_upper
        )
    except RuntimeError:
        if failure.error is None:
            raise
    if failure.error is not None:
        raise failure.error
    stats = {
        **solver.stats(),
        "t_wall_set_up": ready - begin,  # structures, and what CasADi does with them
        "t_wall_solve": time.perf_counter() - ready,
    }
    message = str(stats["return_status"])
    return Solved(
        x=_vector(found["x"]),
        lam=_vector(found["lam_g"]),
        z=_vector(found["lam_x"]),
        success=bool(stats["success"]),
        status=0 if stats["success"] else 1,
        message=message,
        nit=int(stats["iter_count"]),
        raw=stats,
    )


def _vector(matrix: Any) -> np.ndarray:
    return np.array(matrix.full(), float).ravel()
