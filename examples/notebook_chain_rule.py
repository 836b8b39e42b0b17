"""From the chain rule to four nestings: trace tables and drawings of one small function. A notebook as a script.

Run it with `python examples/notebook_chain_rule.py`, or open it as a notebook (each `# %%` begins a cell), where tables
and drawings show themselves.
"""

# %% A function is a list of operations

import numpy as np

import functrace as ft
from functrace.inspect import draw, trace_table

POINT = (2.0, 5.0)


def f(x1, x2):
    return np.log(x1) + x1 * x2 - np.sin(x2)


print(ft.make_jaxpr(f)(*POINT))

# %% The chain rule, by hand: the sum over all paths of the products of the partial derivatives on them

drawing = draw(f)(*POINT, derivatives="partial", digits=12)


def along_all_paths(node):
    """The derivative of the output in what a box of the drawing computes."""
    if drawing.nodes[node].kind == "output":
        return 1.0
    total = 0.0
    for edge in drawing.edges:
        if edge.source == node:
            partial = float(edge.lines[0].removeprefix("∂ = ")) if edge.lines else 1.0
            total += partial * along_all_paths(edge.target)
    return total


by_hand = [along_all_paths(0), along_all_paths(1)]
print(f"\nsum over paths: {by_hand[0]:.3f} {by_hand[1]:.3f}")
np.testing.assert_allclose(by_hand, ft.grad(f, argnums=(0, 1))(*POINT), rtol=1e-11)

# %% Forward mode: one direction, every value with its tangent

print("\nforward mode, along x1")
forward = trace_table(f)(*POINT, mode="forward", tangents=(1.0, 0.0))
print(forward)

# %% Reverse mode: every derivative at once, read from the bottom up

print("\nreverse mode")
reverse = trace_table(f)(*POINT, mode="reverse")
print(reverse)

# %% A program that grows: one reverse run against as many forward runs as there are inputs


def chain(x):
    for _ in range(3):
        x = np.tanh(x) * np.sum(x)
    return np.sum(x**2)


x = np.linspace(0.1, 1.0, 10)
runs = [ft.jvp(chain, (x,), (direction,))[1] for direction in np.eye(10)]
np.testing.assert_allclose(runs, ft.grad(chain)(x), rtol=1e-12)
print("\n10 forward runs and one reverse run agree")

# %% Second derivatives: each of the two modes on top of each

closed_form = np.array([[-1.0 / POINT[0] ** 2, 1.0], [1.0, np.sin(POINT[1])]])
for mode, marks in {"fwd-rev": ("bar", "dot"), "rev-fwd": ("bar",), "rev-rev": ("hat",)}.items():
    table = trace_table(f)(*POINT, mode=mode, tangents=(1.0, 0.0))
    column = [float(table.value(name, *marks)) for name in ("x1", "x2")]
    np.testing.assert_allclose(column, closed_form[:, 0], rtol=1e-14)
    print(f"{mode}: first column of the Hessian {column}")

entry = trace_table(f)(*POINT, mode="fwd-fwd", tangents=(1.0, 0.0), second_tangents=(0.0, 1.0)).value(
    "y", "dot", "prime"
)
np.testing.assert_allclose(entry, closed_form[0, 1], rtol=1e-14)
print(f"fwd-fwd: entry (0, 1) of the Hessian {entry}")

# %% The table of forward over reverse: four traces

print()
print(trace_table(f)(*POINT, mode="fwd-rev"))

# %% And all of it by the transformations

for mode in ("fwd-rev", "rev-fwd", "fwd-fwd", "rev-rev"):
    np.testing.assert_allclose(ft.hessian(f, argnums=(0, 1), mode=mode)(*POINT), closed_form, rtol=1e-14, atol=1e-15)
print("\nthe four Hessians equal the closed form")
