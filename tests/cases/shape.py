"""Cases of the primitives that move elements and of those that make arrays."""

import numpy as np

from functrace.core.primitive import Primitive
from functrace.primitives import families as f
from functrace.primitives import shape as p
from functrace.testing import Case

rng = np.random.default_rng(20260703)

CASES: list[Case] = []


def add(primitive: Primitive, *shapes: tuple[int, ...], name: str = "", dtype: type = float, **params) -> None:
    """A case with random operands of the given shapes."""
    text = name or ",".join(f"{key}={value}" for key, value in params.items()).replace(" ", "")
    operands = tuple((rng.standard_normal(s) * 10)[()] for s in shapes)
    name = f"{primitive.name}-{','.join(map(str, shapes))}-{text}".replace(" ", "")
    operands = tuple(x.astype(dtype) for x in operands)
    CASES.append(Case(primitive, operands, params, name=name, complex_step=dtype is float))


def every_dtype(primitive: Primitive, *shapes: tuple[int, ...], **params) -> None:
    for dtype in (float, complex, int, bool, np.float32):
        add(primitive, *shapes, name=np.dtype(dtype).name, dtype=dtype, **params)


DTYPES = [np.dtype(t) for t in (float, np.float32, complex, int, bool)]
for shape in [(), (3,), (2, 0), (2, 3)]:
    for dtype in DTYPES:
        CASES.append(Case(p.full, (), {"shape": shape, "value": 1, "dtype": dtype}, name=f"full-{shape}-{dtype}"))
for length in (0, 1, 5):
    for dtype in DTYPES[:4]:
        CASES.append(Case(p.iota, (), {"length": length, "dtype": dtype}, name=f"iota-{length}-{dtype}"))

for shape, axes in [
    ((3,), (0,)), ((3,), ()), ((2, 3), (0,)), ((2, 3), (1,)), ((2, 3), (0, 1)), ((2, 3, 2), (0, 2)), ((0, 3), (0,)),
    ((0, 3), (1,)), ((2, 1), (1,)), ((), ()),
]:  # fmt: skip
    add(f.reduce_sum, shape, axes=axes)
for dtype in (complex, int, np.float32):
    add(f.reduce_sum, (2, 3), name=np.dtype(dtype).name, dtype=dtype, axes=(1,))

for shape, target, axes in [
    ((), (), ()), ((), (2, 3), ()), ((3,), (2, 3), (1,)), ((2,), (2, 3), (0,)), ((1,), (4,), (0,)),
    ((1, 3), (2, 3), (0, 1)),
    ((2, 1), (2, 3), (0, 1)), ((1, 1), (2, 3), (0, 1)), ((2, 3), (2, 1, 3), (0, 2)), ((3,), (0, 3), (1,)),
    ((0,), (2, 0), (1,)),
    ((1,), (0,), (0,)), ((2, 1), (3, 2, 4), (1, 2)),
]:  # fmt: skip
    add(f.broadcast, shape, shape=target, axes=axes)
every_dtype(f.broadcast, (3,), shape=(2, 3), axes=(1,))

for shape, target in [
    ((), ()), ((1,), ()), ((), (1, 1)), ((6,), (2, 3)), ((2, 3), (6,)), ((2, 3), (3, 2)), ((0, 3), (3, 0)),
    ((2, 3, 2), (4, 3)),
]:  # fmt: skip
    add(f.reshape, shape, shape=target)
every_dtype(f.reshape, (4,), shape=(2, 2))

for shape, permutation in [
    ((), ()), ((3,), (0,)), ((2, 3), (1, 0)), ((2, 3, 4), (1, 2, 0)), ((2, 3, 4), (2, 0, 1)), ((0, 2), (1, 0)),
]:  # fmt: skip
    add(p.transpose, shape, permutation=permutation)
every_dtype(p.transpose, (2, 2), permutation=(1, 0))

for shape, axes in [((3,), (0,)), ((2, 3), (1,)), ((2, 3), (0, 1)), ((2, 3, 2), (0, 2)), ((0, 2), (0,)), ((2,), ())]:
    add(p.reverse, shape, axes=axes)
every_dtype(p.reverse, (3,), axes=(0,))

for shape, starts, stops, steps in [
    ((5,), (1,), (4,), (1,)), ((5,), (0,), (5,), (2,)), ((6,), (1,), (6,), (2,)), ((6,), (1,), (5,), (3,)),
    ((5,), (2,), (2,), (1,)),
    ((4, 5), (1, 0), (3, 5), (1, 2)), ((4, 5), (0, 4), (4, 5), (3, 1)), ((2, 3, 4), (0, 1, 0), (2, 3, 4), (1, 1, 3)),
    ((0, 3), (0, 1), (0, 3), (1, 1)), ((5,), (4,), (5,), (7,)), ((), (), (), ()),
]:  # fmt: skip
    add(p.slice_, shape, starts=starts, stops=stops, steps=steps)
every_dtype(p.slice_, (5,), starts=(0,), stops=(4,), steps=(2,))

for shape, low, high, interior in [
    ((3,), (1,), (2,), (0,)), ((3,), (0,), (0,), (2,)), ((3,), (2,), (1,), (1,)), ((1,), (0,), (3,), (4,)),
    ((0,), (1,), (2,), (1,)),
    ((2, 3), (1, 0), (0, 2), (0, 1)), ((2, 0), (1, 1), (1, 1), (1, 0)), ((2, 2, 2), (0, 1, 0), (1, 0, 0), (0, 0, 1)),
    ((), (), (), ()),
]:  # fmt: skip
    add(p.pad, shape, low=low, high=high, interior=interior)
every_dtype(p.pad, (2,), low=(1,), high=(1,), interior=(1,))

for shapes, axis in [
    (((2,), (3,)), 0), (((2,),), 0), (((0,), (2,)), 0), (((2, 3), (1, 3)), 0), (((2, 3), (2, 1)), 1),
    (((1, 2, 2), (1, 3, 2)), 1),
    (((1,), (2,), (3,)), 0), (((1,), (2,), (1,), (2,)), 0), (((0, 2), (0, 3)), 1),
]:  # fmt: skip
    add(p.concatenate, *shapes, axis=axis)
every_dtype(p.concatenate, (2,), (1,), axis=0)

for shapes, axis in [
    (((), ()), 0), (((2,), (2,), (2,)), 0), (((2,), (2,)), 1), (((2, 3), (2, 3)), 1), (((0,), (0,)), 0),
    (((2, 0), (2, 0)), 2), (((3,),), 0),
]:  # fmt: skip
    add(p.stack, *shapes, axis=axis)
every_dtype(p.stack, (2,), (2,), axis=1)

for shape, axis in [((3,), 0), ((1,), 0), ((2, 3), 0), ((2, 3), 1), ((2, 1, 3), 1), ((2, 0), 0), ((0, 2), 0)]:
    add(p.unstack, shape, axis=axis)
every_dtype(p.unstack, (2, 2), axis=1)
