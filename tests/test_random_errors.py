"""Mistakes in calls of the random functions, and the remedies they are told."""

import numpy as np
import pytest

import functrace as ft
from functrace import random
from functrace.errors import ArgumentError, DTypeError, ShapeError
from functrace.primitives.random import random_bits

KEY = random.key(20260701)
UINT64 = np.dtype(np.uint64)

MISTAKES = [
    (DTypeError, "functrace.random.key", lambda: random.normal(0)),
    (DTypeError, "functrace.random.key", lambda: random.normal(np.array([0, 1]))),
    (DTypeError, "functrace.random.key", lambda: random.split([0, 1])),
    (ShapeError, "functrace.vmap", lambda: random.normal(random.split(KEY))),
    (ShapeError, "functrace.vmap", lambda: random.normal(KEY[0])),
    (ArgumentError, r"seed % 2\*\*64", lambda: random.key(2**64)),
    (ArgumentError, "pass an integer", lambda: random.key(1.5)),
    (ArgumentError, "functrace.vmap", lambda: random.fold_in(KEY, np.arange(3))),
    (ShapeError, "lengths from 0", lambda: random.normal(KEY, (-1,))),
    (ArgumentError, "pass a Python integer", lambda: random.normal(KEY, 2.5)),
    (DTypeError, "astype", lambda: random.normal(KEY, 2, complex)),
    (DTypeError, "astype", lambda: random.uniform(KEY, 2, int)),
    (DTypeError, "randint", lambda: random.bits(KEY, 2, int)),
    (ShapeError, r"leave shape= out for \(3,\)", lambda: random.uniform(KEY, (2,), minval=np.zeros(3))),
    (ShapeError, r"leave shape= out for \(3,\)", lambda: random.uniform(KEY, (), minval=np.zeros(3))),
    (ShapeError, r"leave shape= out for \(3,\)", lambda: random.bernoulli(KEY, np.zeros(3), (3, 1))),
    (DTypeError, "imaginary part", lambda: random.uniform(KEY, minval=1j)),
    (ArgumentError, "exchange the ends", lambda: random.uniform(KEY, minval=2, maxval=1)),
    (ArgumentError, "finite ones", lambda: random.uniform(KEY, minval=-1e308, maxval=1e308)),
    (ArgumentError, "exchange the bounds", lambda: random.truncated_normal(KEY, 2, 1)),
    (ArgumentError, "far out in the tail", lambda: random.truncated_normal(KEY, 40, 41)),
    (ShapeError, "last length of mean", lambda: random.multivariate_normal(KEY, np.zeros(2), np.eye(3))),
    (ShapeError, "leave shape= out", lambda: random.multivariate_normal(KEY, np.zeros((4, 2)), np.eye(2), (3,))),
    (ArgumentError, "leave method= out", lambda: random.multivariate_normal(KEY, [0.0], [[1.0]], method="svd")),
    (ArgumentError, "exchange or correct", lambda: random.randint(KEY, 3, 5, 5)),
    (ArgumentError, "wider dtype", lambda: random.randint(KEY, 3, 0, 257, "uint8")),
    (ArgumentError, "wider dtype", lambda: random.randint(KEY, 3, np.array([0, 1, 2]), 1000, "int8")),
    (ArgumentError, "minval=1, maxval=1", lambda: random.randint(KEY, 3, np.array([0, 1, 0]), 1)),
    (DTypeError, "astype", lambda: random.randint(KEY, 3, 0.0, 5)),
    (DTypeError, "functrace.random.uniform", lambda: random.randint(KEY, 3, 0, 5, float)),
    (ArgumentError, "expit", lambda: random.bernoulli(KEY, 1.5)),
    (DTypeError, "signed", lambda: random.rademacher(KEY, 3, "uint8")),
    (ShapeError, "axis", lambda: random.categorical(KEY, np.zeros(3), 1)),
    (ShapeError, "leave shape= out", lambda: random.categorical(KEY, np.zeros((2, 3)), shape=(3,))),
    (ArgumentError, "at least one logit", lambda: random.categorical(KEY, np.zeros(0))),
    (ArgumentError, "choose fewer", lambda: random.choice(KEY, 3, (4,), replace=False)),
    (ArgumentError, "at least one element", lambda: random.choice(KEY, 0, (1,))),
    (ArgumentError, "integer from 0", lambda: random.permutation(KEY, -1)),
    (ArgumentError, "Python integer", lambda: random.permutation(KEY, 2.0)),
    (ShapeError, "length of the axis", lambda: random.choice(KEY, 3, p=np.ones(4))),
    (ArgumentError, "clip negative weights", lambda: random.choice(KEY, 2, p=[1.0, -1])),
    (ArgumentError, "clip negative weights", lambda: random.choice(KEY, 3, (3,), False, [1.0, 0, 1])),
]


@pytest.mark.parametrize("error, remedy, call", MISTAKES)
def test_mistakes_are_told(error, remedy, call):
    with pytest.raises(error, match=remedy):
        call()


def test_bits_of_a_key_that_is_none_are_refused_by_the_primitive():
    with pytest.raises(DTypeError, match=r"functrace\.random"):
        ft.make_jaxpr(lambda k: random_bits(k, np.uint64(0), shape=(), dtype=UINT64))(np.array([1, 2]))
    with pytest.raises(ShapeError, match=r"functrace\.random"):
        ft.make_jaxpr(lambda k: random_bits(k, np.uint64(0), shape=(), dtype=UINT64))(np.zeros(3, np.uint32))
