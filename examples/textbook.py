"""A textbook function as a program, with its derivatives forward, in reverse, and to second order.

Run it with `python examples/textbook.py`.
"""

import numpy as np

import functrace as ft


def f(x1, x2):
    return np.log(x1) + x1 * x2 - np.sin(x2)


def main():
    # A trace records f as a jaxpr: a typed list of primitive operations, each with the line it comes from.
    print(ft.make_jaxpr(f)(2.0, 5.0).pretty())

    # Forward mode: the value and the derivative along one direction, side by side in one sweep.
    value, along_x1 = ft.jvp(f, (2.0, 5.0), (1.0, 0.0))
    print(f"\nvalue                     {value:.3f}")
    print(f"forward mode, along x1    {along_x1:.3f}")

    # Reverse mode: one sweep back from the output gives the derivative in every input.
    _, pullback = ft.vjp(f, 2.0, 5.0)
    print("reverse mode, gradient    ({:.3f}, {:.3f})".format(*pullback(1.0)))

    # The same gradient, as users mostly write it; argnums says in which arguments.
    gradient = ft.grad(f, argnums=(0, 1))
    assert gradient(2.0, 5.0) == pullback(1.0)

    # A gradient is a function like any other, so it can be differentiated again ...
    (h11, h12), (h21, h22) = ft.jacfwd(gradient, argnums=(0, 1))(2.0, 5.0)
    print(f"Hessian                   [[{h11:.3f}, {h12:.3f}], [{h21:.3f}, {h22:.3f}]]")

    # ... or mapped over many points at once.
    slopes = ft.vmap(ft.grad(f), in_axes=(0, None))(np.array([1.0, 2.0, 4.0]), 5.0)
    print(f"df/dx1 at x1 = 1, 2, 4    {slopes}")


if __name__ == "__main__":
    main()
