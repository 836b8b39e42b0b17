"""One face for every library compared: a NumPy-like namespace and the transformations, under JAX's names.

A scenario is written once over a `Peer` and runs in all of them. A library that is not installed is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
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
    import functrace
    import functrace.numpy as fnp

    return Peer(
        name="functrace",
        module="functrace",
        np=fnp,
        grad=functrace.grad,
        jacfwd=functrace.jacfwd,
        jacrev=functrace.jacrev,
        nth_derivative=functrace.nth_derivative,
        make_jaxpr=functrace.make_jaxpr,
        scan=functrace.lax.scan,
    )


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

    return Peer(name="autograd", module="autograd", np=anp, grad=autograd.grad, jacfwd=jacfwd, jacrev=autograd.jacobian)


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

    return Peer(
        name="torch",
        module="torch",
        np=torch,
        array=torch.as_tensor,
        grad=grad,
        jacfwd=torch.func.jacfwd,
        jacrev=torch.func.jacrev,
    )


LOADERS: dict[str, Callable[[], Peer]] = {
    "functrace": load_functrace,
    "autograd": load_autograd,
    "jax": load_jax,
    "torch": load_torch,
    "numpy": load_numpy,
}


def load_peers(names: Iterable[str]) -> tuple[list[Peer], list[str]]:
    """The peers that are installed, and the names of those that are not."""
    found, absent = [], []
    for name in names:
        try:
            found.append(LOADERS[name]())
        except ModuleNotFoundError as error:
            if error.name != name:  # installed but broken: say so
                raise
            absent.append(name)
    return found, absent
