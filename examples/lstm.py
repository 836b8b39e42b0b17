"""A long short-term memory network adds two numbers that it hears far apart.

Each sequence has two channels: numbers between 0 and 1, and marks that are 1 at two places and 0 elsewhere. The sum of
the two marked numbers is wanted after the last step, so the cell must keep the first of them. The state is a named
tuple that `scan` carries along, the training loop is a `scan` as well, and Adam is a few lines over pytrees.
Run it with `python examples/lstm.py`.
"""

from typing import NamedTuple

import numpy as np

import functrace as ft
from functrace import lax, random

HIDDEN, LENGTH, BATCH = 16, 16, 64


class State(NamedTuple):
    hidden: np.ndarray
    cell: np.ndarray


def init(key):
    gates_key, out_key = random.split(key)
    forget = np.repeat([0.0, 1.0, 0.0, 0.0], HIDDEN)  # the forget gates start open, so that the cells keep
    return {
        "gates": random.normal(gates_key, (4 * HIDDEN, 2 + HIDDEN)) / np.sqrt(2 + HIDDEN),
        "bias": forget,
        "out": random.normal(out_key, (HIDDEN,)) / np.sqrt(HIDDEN),
        "offset": 1.0,
    }


def lstm_cell(weights, state, x):
    gates = weights["gates"] @ np.concatenate([x, state.hidden]) + weights["bias"]
    enter, keep, leave, new = np.split(gates, 4)
    cell = ft.nn.sigmoid(keep) * state.cell + ft.nn.sigmoid(enter) * np.tanh(new)
    return State(ft.nn.sigmoid(leave) * np.tanh(cell), cell)


def predict(weights, xs):
    """The answer after the last step of one sequence."""
    start = State(np.zeros(HIDDEN), np.zeros(HIDDEN))
    last, _ = lax.scan(lambda state, x: (lstm_cell(weights, state, x), None), start, xs)
    return weights["out"] @ last.hidden + weights["offset"]


def predict_unrolled(weights, xs):
    state = State(np.zeros(HIDDEN), np.zeros(HIDDEN))
    for x in xs:
        state = lstm_cell(weights, state, x)
    return weights["out"] @ state.hidden + weights["offset"]


def loss(weights, batch, network=predict):
    xs, answers = batch
    return np.mean((ft.vmap(network, in_axes=(None, 0))(weights, xs) - answers) ** 2)


def draw(key):
    """A batch of sequences, one mark in each half, with the sums of the marked numbers."""
    number_key, first_key, second_key = random.split(key, 3)
    half = LENGTH // 2
    numbers = random.uniform(number_key, (BATCH, LENGTH))
    first = random.randint(first_key, (BATCH,), 0, half)
    second = random.randint(second_key, (BATCH,), half, LENGTH)
    marks = ft.nn.one_hot(first, LENGTH) + ft.nn.one_hot(second, LENGTH)
    return np.stack([numbers, marks], axis=-1), np.sum(numbers * marks, axis=1)


class Adam(NamedTuple):
    """Running means of the gradient and of its square."""

    mean: dict
    square: dict


def adam(weights, moments, gradient, step, rate=0.02, b1=0.9, b2=0.99):
    mean = ft.tree.map(lambda m, g: b1 * m + (1 - b1) * g, moments.mean, gradient)
    square = ft.tree.map(lambda s, g: b2 * s + (1 - b2) * g**2, moments.square, gradient)

    def change(w, m, s):
        return w - rate * (m / (1 - b1 ** (step + 1))) / (np.sqrt(s / (1 - b2 ** (step + 1))) + 1e-8)

    return ft.tree.map(change, weights, mean, square), Adam(mean, square)


def train(weights, key, steps):
    def step(state, i):
        weights, moments = state
        value, gradient = ft.value_and_grad(loss)(weights, draw(random.fold_in(key, i)))
        return adam(weights, moments, gradient, i), value

    zeros = ft.tree.map(np.zeros_like, weights)
    (weights, _), losses = lax.scan(step, (weights, Adam(zeros, zeros)), np.arange(steps))
    return weights, losses


def main():
    weights_key, data_key, test_key = random.split(random.key(1), 3)
    weights, test = init(weights_key), draw(test_key)

    gradients = [ft.grad(loss)(weights, test, network) for network in (predict, predict_unrolled)]
    difference = max(np.max(np.abs(a - b)) for a, b in zip(*map(ft.tree.leaves, gradients), strict=True))
    print(f"largest difference between the gradients of scan and Python loop: {difference:.1e}")
    assert difference < 1e-12

    weights, losses = train(weights, data_key, steps=200)
    for start in range(0, len(losses), 50):
        print(f"steps {start:3d} to {start + 49:3d}   mean loss {np.mean(losses[start : start + 50]):.4f}")
    print(f"on new sequences: {loss(weights, test):.4f}; answering 1 always gives {np.var(test[1]):.4f}")
    assert loss(weights, test) < 0.5 * np.var(test[1])


if __name__ == "__main__":
    main()
