"""One face for every library compared: a NumPy-like namespace and the transformations, under JAX's names.

A scenario is written once over a `Peer` and runs in all of them. A library that is not installed is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import numpy as np

Function = Callable[..., Any]


def _missing(*_args: Any, **_kwargs: Any) -> Any:
    raise NotImplementedError("this peer has no such transformation; leave it out of the scenario's `peers`")


def _identity(value: Any) -> Any:
    return value


def python_scan(step: Function, carry: Any, xs: Any) -> tuple[Any, Any]:
    """`scan` as a Python loop, without outputs."""
    for x in xs:
        carry, _ = step(carry, x)
    return carry, None


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A library as the scenarios see it. `module` is what a user imports to have it."""

    name: str
    module: str
    np: Any
    array: Callable[[Any], Any] = _identity  # from NumPy to the peer's own array
    numpy: Callable[[Any], Any] = np.asarray  # and back
    ready: Callable[[Any], Any] = _identity  # waits for a result that is still being computed
    grad: Callable[[Function], Function] = _missing
    jacfwd: Callable[[Function], Function] = _missing
    jacrev: Callable[[Function], Function] = _missing
    value_and_grad: Callable[[Function], Function] = _missing  # of a tuple of arrays, the first argument
    vmap: Callable[[Function], Function] = _missing
    nth_derivative: Callable[[Function, int], Function] = _missing
    make_jaxpr: Callable[[Function], Function] = _missing
    jit: Callable[[Function], Function] = _identity
    scan: Callable[[Function, Any, Any], tuple[Any, Any]] = python_scan

    @property
    def version(self) -> str:
        try:
            return metadata.version(self.module.partition(".")[0])
        except metadata.PackageNotFoundError:
            return "unknown"


def load_numpy() -> Peer:
    return Peer(name="numpy", module="numpy", np=np)


def load_functrace() -> Peer:
    """Compiled where a scenario asks for it (`jit`)."""
    import functrace
    import functrace.numpy as fnp

    return Peer(
        name="functrace",
        module="functrace",
        np=fnp,
        jit=functrace.jit,
        grad=functrace.grad,
        value_and_grad=functrace.value_and_grad,
        vmap=functrace.vmap,
        jacfwd=functrace.jacfwd,
        jacrev=functrace.jacrev,
        nth_derivative=functrace.nth_derivative,
        make_jaxpr=functrace.make_jaxpr,
        scan=functrace.lax.scan,
    )


def load_eager() -> Peer:
    """functrace, nothing compiled."""
    return replace(load_functrace(), name="eager", jit=_identity)


def load_autograd() -> Peer:
    import autograd
    import autograd.numpy as anp

    def jacfwd(f: Function) -> Function:
        """Autograd has no forward-mode Jacobian: one sweep per input."""

        def jacobian(x: Any) -> Any:
            tangents = np.eye(x.size).reshape(x.size, *x.shape)
            jvp = autograd.make_jvp(f)(x)
            return np.stack([jvp(tangent)[1] for tangent in tangents], -1).reshape(-1, *x.shape)

        return jacobian

    return Peer(
        name="autograd",
        module="autograd",
        np=anp,
        grad=autograd.grad,
        value_and_grad=autograd.value_and_grad,
        jacfwd=jacfwd,
        jacrev=autograd.jacobian,
    )


def load_jax() -> Peer:
    import jax
    from jax.experimental.jet import jet

    jax.config.update("jax_enable_x64", True)

    def nth_derivative(f: Function, order: int) -> Function:
        return lambda x: jet(f, (x,), ([1.0, *[0.0] * (order - 1)],))[1][-1]

    return Peer(
        name="jax",
        module="jax",
        np=jax.numpy,
        array=jax.numpy.asarray,
        ready=jax.block_until_ready,
        grad=jax.grad,
        value_and_grad=jax.value_and_grad,
        vmap=jax.vmap,
        jacfwd=jax.jacfwd,
        jacrev=jax.jacrev,
        nth_derivative=nth_derivative,
        make_jaxpr=jax.make_jaxpr,
        jit=jax.jit,
        scan=jax.lax.scan,
    )


def load_torch() -> Peer:
    import torch

    def grad(f: Function) -> Function:
        """`torch.autograd.grad`: several times faster than `torch.func.grad` on small functions."""

        def gradient(x: Any) -> Any:
            x = x.detach().requires_grad_()
            return torch.autograd.grad(f(x), x)[0]

        return gradient

    def value_and_grad(f: Function) -> Function:
        def both(xs: Any, *rest: Any) -> Any:
            xs = tuple([x.detach().requires_grad_() for x in xs])
            value = f(xs, *rest)
            return value.detach(), torch.autograd.grad(value, xs)

        return both

    return Peer(
        name="torch",
        module="torch",
        np=torch,
        array=torch.as_tensor,
        grad=grad,
        value_and_grad=value_and_grad,
        vmap=torch.func.vmap,
        jacfwd=torch.func.jacfwd,
        jacrev=torch.func.jacrev,
    )


def load_casadi() -> Peer:
    """CasADi's scalar graphs (SX): arguments are vectors, columns for it."""
    import casadi

    class Namespace:
        """What the scenarios use of NumPy's names."""

        sin, cos, tanh, exp, log, sqrt = (getattr(casadi, f) for f in ("sin", "cos", "tanh", "exp", "log", "sqrt"))
        sum = staticmethod(casadi.sum1)

        @staticmethod
        def stack(parts: Any) -> Any:
            return casadi.vertcat(*parts)

    def jit(f: Function) -> Function:
        compiled: list[Any] = []

        def call(*args: Any) -> Any:
            if not compiled:
                symbols = [casadi.SX.sym(f"x{k}", np.size(x)) for k, x in enumerate(args)]
                compiled.append(casadi.Function("f", symbols, [f(*symbols)]))
            return compiled[0](*args).full()

        return call

    return Peer(
        name="casadi",
        module="casadi",
        np=Namespace,
        numpy=lambda x: np.squeeze(np.asarray(x)),
        grad=lambda f: lambda x, *rest: casadi.gradient(f(x, *rest), x),
        jacfwd=lambda f: lambda x, *rest: casadi.jacobian(f(x, *rest), x),
        jacrev=lambda f: lambda x, *rest: casadi.jacobian(f(x, *rest), x),
        jit=jit,
    )


def load_casadi_symbols(kind: str) -> Peer:
    """The CasADi module itself, for scenarios that write CasADi's own way, and which of its symbols they use."""
    import casadi

    return Peer(name=f"casadi-{kind}", module="casadi", np=casadi)


def load_numba() -> Peer:
    """Loops written by hand, which a scenario brings itself."""
    import numba

    return Peer(name="numba", module="numba", np=numba)


LOADERS: dict[str, Callable[[], Peer]] = {
    "functrace": load_functrace,
    "eager": load_eager,
    "autograd": load_autograd,
    "jax": load_jax,
    "torch": load_torch,
    "casadi-mx": lambda: load_casadi_symbols("mx"),
    "casadi-sx": lambda: load_casadi_symbols("sx"),
    "casadi": load_casadi,
    "numba": load_numba,
    "numpy": load_numpy,
}


def load_peers(names: Iterable[str]) -> tuple[list[Peer], list[str]]:
    """The peers that are installed, and the names of those that are not."""
    found, absent = [], []
    for name in names:
        try:
            found.append(LOADERS[name]())
        except ModuleNotFoundError as error:
            if error.name != name.partition("-")[0]:  # installed but broken: say so
                raise
            absent.append(name)
    return found, absent
