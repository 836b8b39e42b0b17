"""A two-layer network learns the cultivars of 178 wines by gradient descent.

First the two modes are compared: forward mode needs one sweep per weight (208 in the first layer, in one batch),
reverse mode one sweep for all of them. Run it with `python examples/wine_network.py`.
"""

import time

import numpy as np

import functrace as ft
from functrace.datasets import load_wine

HIDDEN = 16


def load():
    """Standardised measurements (13 by 178), and the cultivar as -1, 0 or 1."""
    features, cultivar = load_wine()
    X = (features - features.mean(axis=1, keepdims=True)) / features.std(axis=1, keepdims=True)
    return X, cultivar - 2.0


def predict(weights, X):
    return weights["W2"] @ np.tanh(weights["W1"] @ X)


def loss(weights, X, y):
    return np.sum((predict(weights, X) - y) ** 2) / y.size


def compare_modes(weights, X, y):
    def first_layer(W1):
        return loss({**weights, "W1": W1}, X, y)

    gradients = []
    for name, derivative in {"forward": ft.jacfwd(first_layer), "reverse": ft.grad(first_layer)}.items():
        start = time.perf_counter()
        gradients.append(derivative(weights["W1"]))
        print(f"gradient in W1 by {name} mode: {1e3 * (time.perf_counter() - start):8.2f} ms")
    print(f"largest difference: {np.max(np.abs(gradients[0] - gradients[1])):.1e}\n")
    np.testing.assert_allclose(*gradients, rtol=0.0, atol=1e-10)


def train(weights, X, y, steps=300, rate=0.1):
    # The weights are a dict, so the gradient is a dict of the same keys.
    value_and_gradient = ft.value_and_grad(loss)
    for step in range(steps + 1):
        value, gradient = value_and_gradient(weights, X, y)
        if step % 100 == 0:
            right = np.mean(np.rint(predict(weights, X)) == y)
            print(f"step {step:3d}   loss {value:.4f}   right {right:.1%}")
        weights = ft.tree.map(lambda w, g: w - rate * g, weights, gradient)
    return weights


def main():
    rng = np.random.default_rng(0)
    X, y = load()
    weights = {
        "W1": rng.normal(size=(HIDDEN, X.shape[0])) / np.sqrt(X.shape[0]),
        "W2": rng.normal(size=HIDDEN) / np.sqrt(HIDDEN),
    }
    compare_modes(weights, X, y)
    train(weights, X, y)


if __name__ == "__main__":
    main()
