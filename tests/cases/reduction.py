"""Cases of the reductions and cumulative operations: zeros in products, infinities, empty axes, several axes."""

import numpy as np

from functrace.primitives import cumulative as c
from functrace.primitives import reduction as p
from functrace.testing import Case

rng = np.random.default_rng(5)


def normal(*shape):
    return np.float64(rng.normal(size=shape)) if not shape else rng.normal(size=shape)


def distinct(*shape):
    """Values far from each other, in random order."""
    return rng.permutation(np.arange(float(np.prod(shape, dtype=int)))).reshape(shape) / 3


def with_zeros(shape, zeros):
    x = rng.uniform(0.5, 1.5, shape)
    x.ravel()[rng.choice(x.size, zeros, replace=False)] = 0
    return x


SHAPES_AND_AXES = [
    *[((), ()), ((4,), (0,)), ((1,), (0,)), ((2, 3), (1,))],
    *[((2, 3), (0, 1)), ((2, 3, 2), (0, 2)), ((2, 3), ())],
]
EMPTY = [((0,), (0,)), ((2, 0), (1,)), ((0, 3), (0, 1))]
EXTREMA = (p.reduce_max, p.reduce_min, p.reduce_fmax, p.reduce_fmin)
CUMULATIVE = (c.cumsum, c.cumprod, c.cummax, c.cummin, c.cumlogsumexp)


def reductions(primitive, values=normal, empty=2, **params):
    for shape, axes in SHAPES_AND_AXES:
        yield Case(primitive, (values(*shape),), {"axes": axes, **params}, name=f"{shape}-{axes}")
    for shape, axes in EMPTY if empty is not None else []:
        yield Case(primitive, (np.zeros(shape),), {"axes": axes, **params}, name=f"{shape}-{axes}", order=empty)


def products():
    for zeros in range(4):
        yield Case(
            p.reduce_prod, (with_zeros((4,), zeros),), {"axes": (0,)}, name=f"{zeros}-zeros", complex_step=True, order=3
        )
        for reverse in (False, True):
            yield Case(
                c.cumprod,
                (with_zeros((4,), zeros),),
                {"axis": 0, "reverse": reverse},
                name=f"{zeros}-zeros-{reverse}",
                complex_step=True,
                order=3,
            )
    yield Case(p.reduce_prod, (with_zeros((2, 3), 2),), {"axes": (0, 1)}, name="zeros-2d", complex_step=True)
    yield Case(p.reduce_prod, (normal(3) + 1j * normal(3),), {"axes": (0,)}, name="complex")
    yield Case(p.reduce_prod, (rng.integers(-3, 4, (2, 3)).astype(np.int8),), {"axes": (1,)}, name="int8")


def infinities():
    spots = {
        "minus": ([-np.inf, 0.5, -1.0], 1e-6),
        "two-minus": ([-np.inf, 0.5, -np.inf], 1e-6),
    }
    for name, (values, rtol) in spots.items():
        yield Case(p.logsumexp, (np.array(values),), {"axes": (0,)}, name=f"{name}-infinity", rtol=rtol)


def cumulative():
    for primitive in CUMULATIVE:
        values = distinct if primitive in (c.cummax, c.cummin) else normal
        for shape, axis in [((4,), 0), ((1,), 0), ((0,), 0), ((2, 3), 0), ((2, 3), 1), ((2, 3, 2), 1), ((3, 0), 0)]:
            for reverse in (False, True):
                yield Case(
                    primitive, (values(*shape),), {"axis": axis, "reverse": reverse}, name=f"{shape}-{axis}-{reverse}"
                )
    yield Case(c.cumsum, (normal(3) + 1j * normal(3),), {"axis": 0, "reverse": False}, name="complex")
    yield Case(c.cumsum, (rng.integers(-3, 4, (2, 3)).astype(np.int8),), {"axis": 1, "reverse": True}, name="int8")
    for shape, axis in [((4,), 0), ((0,), 0), ((3, 2), 0), ((2, 3, 2), 1), ((0, 3), 1)]:
        for reverse in (False, True):
            yield Case(
                c.linear_recurrence,
                (normal(*shape), normal(*shape)),
                {"axis": axis, "reverse": reverse},
                name=f"{shape}-{axis}-{reverse}",
                order=3 if shape == (4,) else 2,
            )
    factors = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    for reverse in (False, True):
        yield Case(
            c.linear_recurrence,
            (factors, normal(3, 2)),
            {"axis": 0, "reverse": reverse},
            name=f"cuts-{reverse}",
        )


TRUTHS = rng.random((2, 3)) < 0.6

CASES = [
    *(case for primitive in EXTREMA for case in reductions(primitive, distinct, empty=None)),
    *reductions(p.reduce_prod),
    *reductions(p.logsumexp, empty=0),  # -inf
    *reductions(p.softmax, undefined=True),
    *reductions(p.softmax, undefined=False),
    *products(),
    *infinities(),
    *cumulative(),
    *(Case(p.reduce_and, (TRUTHS,), {"axes": axes}, name=f"{axes}") for axes in [(), (0,), (0, 1)]),
    *(Case(p.reduce_or, (TRUTHS,), {"axes": axes}, name=f"{axes}") for axes in [(), (0,), (0, 1)]),
    *(Case(r, (normal(2, 3),), {"axis": axis}, name=f"{axis}") for r in (p.argmax, p.argmin) for axis in (0, 1)),
    *(Case(r, (rng.integers(0, 9, 4),), {"axis": 0}, name="integers") for r in (p.argmax, p.argmin)),
]
