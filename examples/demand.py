"""What a consumer buys, and how that depends on prices and income: derivatives of the solution of an optimisation.

    maximise    (sum of a x^r) ^ (1/r)
    subject to  prices . x <= income,  x >= 0

For this utility (constant elasticity of substitution) demand has a closed form, so everything can be checked: the
derivatives of demand by prices and income, the multiplier (the worth of one more unit of income), and Roy's identity,
by which demand itself is a ratio of two derivatives of the optimal value. Then one good is rationed, so that a bound is
active; and a tax is chosen whose yield depends on what consumers still buy: a gradient through the solver.

Run it with `python examples/demand.py`.
"""

import numpy as np

import functrace as ft
from functrace import optimize

SHARES = np.array([0.5, 0.3, 0.2])
POWER = 0.4
PARAMETERS = {"prices": np.array([1.0, 2.0, 1.5]), "income": 10.0}


def utility(x):
    return np.sum(SHARES * x**POWER) ** (1.0 / POWER)


def spending(x, p):
    return p["prices"] @ x - p["income"]


def consumer(ration=np.inf):
    return optimize.Problem(
        lambda x, p: -utility(x),
        optimize.Constraint(spending, upper=0.0),
        bounds=(1e-9, np.array([np.inf, np.inf, ration])),
        x0=np.ones(3),
        params=PARAMETERS,
    )


def closed_form(p):
    elasticity = 1.0 / (1.0 - POWER)
    weights = (SHARES / p["prices"]) ** elasticity
    return p["income"] * weights / np.sum(p["prices"] * weights)


def main():
    found = optimize.solution_sensitivity(consumer(), "SLSQP")(PARAMETERS)
    expected = ft.jacobian(closed_form)(PARAMETERS)
    print(
        f"demand {np.round(found.x, 4)}, off the closed form by {np.max(np.abs(found.x - closed_form(PARAMETERS))):.1e}"
    )
    print(f"demand by prices (rows: goods)\n{np.round(found.dx['prices'], 4)}")
    for name in ("prices", "income"):
        error = np.max(np.abs(found.dx[name] - expected[name]))
        print(f"  by {name}: off the closed form by {error:.1e}")
        assert error < 1e-8

    worth = -found.dvalue["income"]
    print(f"one more unit of income is worth {worth:.6f}; the multiplier says {float(found.multipliers):.6f}")
    roy = found.dvalue["prices"] / -found.dvalue["income"]
    print(f"Roy's identity gives the demand {np.round(roy, 4)}")
    assert abs(worth - found.multipliers) < 1e-9 and np.max(np.abs(roy - found.x)) < 1e-8

    rationed = optimize.solution_sensitivity(consumer(ration=0.5), "SLSQP")(PARAMETERS)
    worth = rationed.bound_multipliers[2]
    print(f"\nwith the third good rationed: {np.round(rationed.x, 4)}, worth of more of it {worth:.4f}")
    print(f"  demand by prices\n{np.round(rationed.dx['prices'], 4)}")
    assert np.all(rationed.dx["prices"][2] == 0.0)

    # A tax on the first good: what is bought shrinks as it grows.
    best = optimize.argmin(consumer(), "SLSQP")

    def revenue(tax):
        x, _ = best({"prices": PARAMETERS["prices"] + np.array([1.0, 0.0, 0.0]) * tax, "income": PARAMETERS["income"]})
        return tax * x[0] - 0.05 * tax**2  # and costs to raise it

    tax = 1.0
    for _ in range(12):  # Newton's method, with first and second derivatives through the consumer's choice
        tax -= ft.grad(revenue)(tax) / ft.grad(ft.grad(revenue))(tax)
    h = 1e-4
    print(f"\nthe best tax is {tax:.6f}, where the revenue's slope is {ft.grad(revenue)(tax):.1e}")
    print(f"  revenue there {revenue(tax):.8f}, beside it {revenue(tax - 1e-2):.8f} and {revenue(tax + 1e-2):.8f}")
    quotient = (ft.grad(revenue)(1.0 + h) - ft.grad(revenue)(1.0 - h)) / (2.0 * h)
    assert abs(ft.grad(ft.grad(revenue))(1.0) - quotient) < 1e-6
    assert abs(ft.grad(revenue)(tax)) < 1e-9 and revenue(tax) > max(revenue(tax - 1e-2), revenue(tax + 1e-2))


if __name__ == "__main__":
    main()
