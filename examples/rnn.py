"""A recurrent network learns to repeat what it heard some steps ago.

The recurrence is one `scan`, traced once for a sequence of any length; `vmap` runs it on a batch. Its gradient is that
of the same recurrence written as a Python loop. `jit` traces the training step once.

Run it with `python examples/rnn.py`.
"""

import time

import numpy as np

import functrace as ft
from functrace import lax, random

HIDDEN, LENGTH, DELAY, BATCH = 24, 20, 3, 32


def init(key):
    keys = random.split(key, 3)
    return {
        "in": random.normal(keys[0], (HIDDEN,)),
        "recurrent": np.linalg.qr(random.normal(keys[1], (HIDDEN, HIDDEN)))[0],
        "bias": np.zeros(HIDDEN),
        "out": random.normal(keys[2], (HIDDEN,)) / np.sqrt(HIDDEN),
    }


def cell(weights, hidden, x):
    hidden = np.tanh(weights["in"] * x + weights["recurrent"] @ hidden + weights["bias"])
    return hidden, weights["out"] @ hidden


def rnn(weights, xs):
    _, ys = lax.scan(lambda hidden, x: cell(weights, hidden, x), np.zeros(HIDDEN), xs)
    return ys


def rnn_unrolled(weights, xs):
    hidden, ys = np.zeros(HIDDEN), []
    for x in xs:
        hidden, y = cell(weights, hidden, x)
        ys.append(y)
    return np.stack(ys)


def loss(weights, xs, network=rnn):
    ys = ft.vmap(network, in_axes=(None, 0))(weights, xs)
    return np.mean((ys[:, DELAY:] - xs[:, :-DELAY]) ** 2)


def clip(gradient, limit=1.0):
    norm = np.sqrt(sum(np.sum(g**2) for g in ft.tree.leaves(gradient)))
    return ft.tree.map(lambda g: g * min(1.0, limit / norm), gradient)


def compare_loops(weights, xs):
    gradients = []
    for network in (rnn, rnn_unrolled):
        start = time.perf_counter()
        gradients.append(ft.grad(loss)(weights, xs, network))
        print(f"gradient of {network.__name__:<13} {1e3 * (time.perf_counter() - start):7.1f} ms")
    difference = max(np.max(np.abs(a - b)) for a, b in zip(*map(ft.tree.leaves, gradients), strict=True))
    print(f"largest difference: {difference:.1e}\n")
    assert difference < 1e-12


def train(weights, key, steps=150, rate=0.1, momentum=0.9):
    value_and_gradient = ft.jit(ft.value_and_grad(loss))
    velocity = ft.tree.map(np.zeros_like, weights)
    for step in range(steps + 1):
        xs = random.uniform(random.fold_in(key, step), (BATCH, LENGTH), minval=-1.0, maxval=1.0)
        value, gradient = value_and_gradient(weights, xs)
        if step % 50 == 0:
            print(f"step {step:3d}   loss {value:.4f}")
        velocity = ft.tree.map(lambda v, g: momentum * v - rate * g, velocity, clip(gradient))
        weights = ft.tree.map(np.add, weights, velocity)
    return weights, value


def main():
    weights_key, data_key, test_key = random.split(random.key(0), 3)
    weights = init(weights_key)
    xs = random.uniform(test_key, (BATCH, LENGTH), minval=-1.0, maxval=1.0)
    compare_loops(weights, xs)
    before = loss(weights, xs)
    weights, _ = train(weights, data_key)
    after = loss(weights, xs)
    print(f"on new sequences: {before:.4f} before, {after:.4f} after; repeating nothing gives {np.mean(xs**2):.4f}")
    assert after < 0.2 * np.mean(xs**2)


if __name__ == "__main__":
    main()
