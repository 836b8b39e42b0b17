"""Shapes and axes of arrays: what NumPy gives as views of the same elements, and questions about type and shape.

All are linear with coefficients 0 and 1, so their derivatives are themselves. Results that NumPy makes views are noted
as such: assignment to one of the two afterwards is refused, because it would not reach the other.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from functrace.core.trace import Tracer
from functrace.errors import ArgumentError, DTypeError, ShapeError
from functrace.numpy._axes import as_index, as_shape, normalize_axes, normalize_axis
from functrace.numpy._promotion import as_array, broadcast_shape, cast, checked_dtype, dtype_of
from functrace.numpy._promotion import broadcast_to as broadcast_value
from functrace.numpy._structural import fresh, move_axis, part_of, rearranged, structural, view_of
from functrace.primitives import elementwise as p
from functrace.primitives.families import reshape as reshape_primitive
from functrace.primitives.shape import full, inverse_permutation, reverse
from functrace.primitives.shape import transpose as transpose_primitive
from functrace.primitives.shape import unstack as unstack_primitive
from functrace.util import user_line

__all__ = [
    "astype", "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_arrays", "broadcast_shapes", "broadcast_to",
    "can_cast", "expand_dims", "flip", "fliplr", "flipud", "imag", "iscomplexobj", "isrealobj", "isscalar",
    "matrix_transpose", "moveaxis", "ndim", "permute_dims", "promote_types", "ravel", "real", "reshape",
    "result_type", "rollaxis", "rot90", "shape", "size", "squeeze", "swapaxes", "transpose", "unstack",
]  # fmt: skip


def permute(x: Any, permutation: tuple[int, ...]) -> Any:
    """The array with its axes in another order; itself when they are in order."""
    return x if permutation == tuple(range(len(permutation))) else transpose_primitive(x, permutation=permutation)


def _permuted(a: Any, x: Any, permutation: tuple[int, ...]) -> Any:
    """`permute` as a view of the argument `a`."""
    inverse = inverse_permutation(permutation)
    return rearranged(a, x, lambda x: permute(x, permutation), lambda view: permute(view, inverse))


def _with_shape(x: Any, shape: tuple[int, ...]) -> Any:
    return x if x.shape == shape else reshape_primitive(x, shape=shape)


def _reshaped(a: Any, x: Any, shape: tuple[int, ...]) -> Any:
    """The array in a shape that differs in axes of length 1, as a view of the argument `a`."""
    source = x.shape
    return rearranged(a, x, lambda x: _with_shape(x, shape), lambda view: _with_shape(view, source))


def _known_shape(shape: tuple[int, ...], x: Any) -> tuple[int, ...]:
    """A target shape with its one -1 worked out.

    Raises:
        ShapeError: it does not fit the number of elements.
    """
    size = math.prod(x.shape)
    known = [n for n in shape if n >= 0]
    rest = math.prod(known)
    if len(known) == len(shape) - 1 and -1 in shape and rest and size % rest == 0:
        return tuple(size // rest if n < 0 else n for n in shape)
    if len(known) == len(shape) and rest == size:
        return shape
    raise ShapeError(
        f"an array of {size} elements cannot be reshaped",
        where=user_line(),
        got=f"shape {x.shape} into {shape}",
        remedy="give lengths whose product is the number of elements; at most one may be -1 and is worked out",
    )


@structural(np.reshape)
def reshape(a: Any, /, shape: Any, order: str = "C", *, copy: bool | None = None) -> Any:
    """The same elements in another shape, in order "C" or "F".

    Whether NumPy gives a view depends on the memory layout where axes are joined: there, assignment to either array is
    refused while both are in use.
    """
    x = as_array(a)
    target = _known_shape(as_shape(shape), x)
    if order not in ("C", "F", "A"):
        raise ArgumentError(
            "order of numpy.reshape must be 'C', 'F' or 'A'",
            where=user_line(),
            got=repr(order),
            remedy="use order='C' (last axis fastest) or order='F'",
        )
    change, source = _with_shape if order != "F" else _fortran_shape, x.shape
    if copy:
        out = change(x, target)
        return fresh(out) if out is a else out
    if _only_splits(source, target):
        return rearranged(a, x, lambda x: change(x, target), lambda view: change(view, source))
    return view_of(a, change(x, target))


def _fortran_shape(x: Any, shape: tuple[int, ...]) -> Any:
    """The elements in another shape, the first axis counting fastest."""
    backward = permute(x, tuple(range(x.ndim))[::-1])
    return permute(_with_shape(backward, shape[::-1]), tuple(range(len(shape)))[::-1])


def _only_splits(source: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether a reshape splits axes but joins none, so that NumPy gives a view whatever the memory layout."""
    rest = [n for n in target if n != 1]
    for length in source:
        while length > 1 and rest and rest[0] and length % rest[0] == 0:
            length //= rest.pop(0)
        if length != 1:
            return False
    return not rest


@structural(np.ravel)
def ravel(a: Any, order: str = "C") -> Any:
    """The elements in one dimension; a traced array has C order, so "A" and "K" mean "C"."""
    x = as_array(a)
    out = (_fortran_shape if order == "F" else _with_shape)(x, (math.prod(x.shape),))
    return view_of(a, fresh(out) if out is a else out)


@structural(np.transpose)
def transpose(a: Any, axes: Any = None) -> Any:
    """The axes in another order, reversed by default."""
    x = as_array(a)
    if axes is None:
        permutation = tuple(range(x.ndim))[::-1]
    else:
        permutation = normalize_axes(axes, x.ndim, "axes")
        if len(permutation) != x.ndim:
            raise ShapeError(
                "axes of numpy.transpose must name every axis once",
                where=user_line(),
                got=f"axes={axes} for shape {x.shape}",
                remedy="use numpy.moveaxis or numpy.swapaxes to move single axes",
            )
    return _permuted(a, x, permutation)


@structural(np.permute_dims)
def permute_dims(a: Any, axes: Any = None) -> Any:
    """The axes in another order, reversed by default; another name of `transpose`."""
    return transpose(a, axes)


@structural(np.matrix_transpose)
def matrix_transpose(x: Any, /) -> Any:
    """The last two axes exchanged."""
    array = as_array(x)
    _at_least(2, array, "matrix_transpose")
    return swapaxes(x, -1, -2)


@structural(np.swapaxes)
def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    """Two axes exchanged."""
    x = as_array(a)
    first, second = normalize_axis(axis1, x.ndim, "axis1"), normalize_axis(axis2, x.ndim, "axis2")
    order = list(range(x.ndim))
    order[first], order[second] = second, first
    return _permuted(a, x, tuple(order))


@structural(np.moveaxis)
def moveaxis(a: Any, source: Any, destination: Any) -> Any:
    """Axes moved to new positions, the others in their order."""
    x = as_array(a)
    sources = normalize_axes(source, x.ndim, "source")
    destinations = normalize_axes(destination, x.ndim, "destination")
    if len(sources) != len(destinations):
        raise ShapeError(
            "source and destination of numpy.moveaxis must have the same number of axes",
            where=user_line(),
            got=f"{source} and {destination}",
            remedy="give one destination for each source axis",
        )
    order = [axis for axis in range(x.ndim) if axis not in sources]
    for place, axis in sorted(zip(destinations, sources, strict=True)):
        order.insert(place, axis)
    return _permuted(a, x, tuple(order))


@structural(np.rollaxis)
def rollaxis(a: Any, axis: int, start: int = 0) -> Any:
    """One axis moved backwards until it lies before position `start`."""
    x = as_array(a)
    source = normalize_axis(axis, x.ndim)
    place = as_index(start, "start")
    place = normalize_axis(place, x.ndim + 1, "start") if place >= 0 else normalize_axis(place, x.ndim, "start")
    destination = place - 1 if source < place else place
    return rearranged(
        a, x, lambda x: move_axis(x, source, destination), lambda view: move_axis(view, destination, source)
    )


@structural(np.squeeze)
def squeeze(a: Any, axis: Any = None) -> Any:
    """Axes of length 1 left out: all of them, or those named."""
    x = as_array(a)
    axes = [i for i, n in enumerate(x.shape) if n == 1] if axis is None else normalize_axes(axis, x.ndim)
    if any(x.shape[i] != 1 for i in axes):
        raise ShapeError(
            "numpy.squeeze cannot leave out an axis that is longer than 1",
            where=user_line(),
            got=f"axis={axis} for shape {x.shape}",
            remedy="name axes of length 1 only, or index one position of the axis",
        )
    target = tuple(n for i, n in enumerate(x.shape) if i not in axes)
    return _reshaped(a, x, target)


@structural(np.expand_dims)
def expand_dims(a: Any, axis: Any) -> Any:
    """New axes of length 1 at the given positions of the result."""
    x = as_array(a)
    axis = axis if isinstance(axis, (tuple, list)) else (as_index(axis, "axis"),)
    count = len(axis)
    places = normalize_axes(axis, x.ndim + count)
    lengths = iter(x.shape)
    target = tuple(1 if i in places else next(lengths) for i in range(x.ndim + count))
    return _reshaped(a, x, target)


@structural(np.broadcast_to)
def broadcast_to(array: Any, shape: Any, subok: bool = False) -> Any:
    """The array repeated to a shape it broadcasts to; read-only, as NumPy's."""
    x = as_array(array)
    target = as_shape(shape)
    if broadcast_shape(x.shape, target) != target:
        raise ShapeError(
            "an array cannot be broadcast to a smaller shape",
            where=user_line(),
            got=f"shape {x.shape} to {target}",
            remedy="the target must have the array's lengths where they are not 1; sum or index to make axes shorter",
        )
    out = broadcast_value(x, target)
    return view_of(array, fresh(out) if out is array else out, lambda x: broadcast_value(x, target))


@structural(np.broadcast_arrays)
def broadcast_arrays(*args: Any, subok: bool = False) -> tuple[Any, ...]:
    """All arrays in the shape they broadcast to together."""
    values = [as_array(a) for a in args]
    target = broadcast_shape(*(v.shape for v in values))
    return tuple(
        view_of(a, broadcast_value(v, target), lambda x: broadcast_value(x, target))
        for a, v in zip(args, values, strict=True)
    )


def broadcast_shapes(*shapes: Any) -> tuple[int, ...]:
    """The shape that arrays of the given shapes broadcast to."""
    return np.broadcast_shapes(*shapes)


def _at_least_axes(arys: tuple[Any, ...], widen: Any) -> Any:
    """Each array with axes added by `widen(shape)`; one array for one argument, else a tuple."""
    outs = []
    for a in arys:
        x = as_array(a)
        outs.append(_reshaped(a, x, widen(x.shape)))
    return outs[0] if len(outs) == 1 else tuple(outs)


@structural(np.atleast_1d)
def atleast_1d(*arys: Any) -> Any:
    """Scalars as arrays of one element."""
    return _at_least_axes(arys, lambda shape: shape or (1,))


@structural(np.atleast_2d)
def atleast_2d(*arys: Any) -> Any:
    """Scalars and vectors as matrices of one row."""
    return _at_least_axes(arys, lambda shape: (1,) * (2 - len(shape)) + shape)


@structural(np.atleast_3d)
def atleast_3d(*arys: Any) -> Any:
    """Arrays with axes of length 1 added up to three, as NumPy places them: (1, n, 1), (m, n, 1)."""
    return _at_least_axes(
        arys, lambda shape: (1, *(shape or (1,)), 1) if len(shape) < 2 else shape + (1,) * (3 - len(shape))
    )


@structural(np.unstack)
def unstack(x: Any, /, *, axis: int = 0) -> tuple[Any, ...]:
    """The arrays along an axis, as a tuple."""
    array = as_array(x)
    place = normalize_axis(axis, array.ndim)
    pieces = unstack_primitive(array, axis=place)
    if array.ndim == 1:
        return tuple(pieces)  # NumPy's scalars, which are no views
    return tuple(part_of(x, piece, place, i) for i, piece in enumerate(pieces))


@structural(np.flip)
def flip(m: Any, axis: Any = None) -> Any:
    """The elements in reverse order along the given axes, along all by default."""
    x = as_array(m)
    axes = tuple(range(x.ndim)) if axis is None else tuple(sorted(normalize_axes(axis, x.ndim)))

    def turned(x: Any) -> Any:
        return reverse(x, axes=axes) if axes else x

    return rearranged(m, x, turned, turned)


@structural(np.fliplr)
def fliplr(m: Any) -> Any:
    """The columns in reverse order."""
    _at_least(2, as_array(m), "fliplr")
    return flip(m, 1)


@structural(np.flipud)
def flipud(m: Any) -> Any:
    """The rows in reverse order."""
    _at_least(1, as_array(m), "flipud")
    return flip(m, 0)


@structural(np.rot90)
def rot90(m: Any, k: int = 1, axes: Any = (0, 1)) -> Any:
    """The plane of two axes turned by 90 degrees, `k` times, from the first axis to the second."""
    x = as_array(m)
    plane = normalize_axes(axes, x.ndim, "axes")
    if len(plane) != 2:
        raise ShapeError(
            "axes of numpy.rot90 must be two axes", where=user_line(), got=repr(axes), remedy="name two different axes"
        )
    turns = as_index(k, "k") % 4
    return rearranged(m, x, lambda x: _turned(x, plane, turns), lambda view: _turned(view, plane, -turns % 4))


def _turned(x: Any, plane: tuple[int, ...], turns: int) -> Any:
    """The array after quarter turns in a plane."""
    first, second = plane
    order = list(range(x.ndim))
    order[first], order[second] = second, first
    if turns == 1:
        return permute(reverse(x, axes=(second,)), tuple(order))
    if turns == 2:
        return reverse(x, axes=tuple(sorted(plane)))
    return reverse(permute(x, tuple(order)), axes=(second,)) if turns == 3 else x


def _at_least(least: int, x: Any, function: str) -> None:
    if len(x.shape) < least:
        raise ShapeError(
            f"numpy.{function} needs an array of at least {least} dimension{'s' * (least > 1)}",
            where=user_line(),
            got=f"shape {x.shape}",
            remedy="add axes with numpy.expand_dims or numpy.atleast_2d",
        )


# complex parts, which NumPy gives as views


@structural(np.real)
def real(val: Any) -> Any:
    """The real part; a real array itself."""
    x = as_array(val)
    if x.dtype.kind != "c":
        return x
    return view_of(val, p.real(x), p.real, lambda x, view: p.complex_(view, p.imag(x)))


@structural(np.imag)
def imag(val: Any) -> Any:
    """The imaginary part; zeros for a real array."""
    x = as_array(val)
    if x.dtype.kind != "c":
        return full(shape=x.shape, value=0, dtype=x.dtype)
    return view_of(val, p.imag(x), p.imag, lambda x, view: p.complex_(p.real(x), view))


# type and shape


def convert_to(x: Any, dtype: Any, casting: Any = "unsafe", copy: bool = True) -> Any:
    """`x.astype(dtype)`: a new object, or `x` itself where `copy` is False and the dtype is right.

    Raises:
        DTypeError: the casting rule forbids it.
    """
    target = checked_dtype(dtype)
    if not np.can_cast(x.dtype, target, casting):
        raise DTypeError(
            f"cannot cast an array from {x.dtype} to {target} with casting={casting!r}",
            where=user_line(),
            got=f"{x.dtype} to {target}",
            remedy="use casting='unsafe', or numpy.real of a complex array",
        )
    if x.dtype == target:
        return fresh(x) if copy else x
    if x.dtype.kind == "c" and target.kind not in "cb":
        warnings.warn("casting complex values to real discards the imaginary part", np.exceptions.ComplexWarning, 3)
    return cast(x, target)


@structural(np.astype)
def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    """The array in another dtype; the derivative ends where that is an integer or boolean one."""
    return convert_to(as_array(x), dtype, copy=copy)


@structural(np.shape)
def shape(a: Any) -> tuple[int, ...]:
    """The lengths of the axes."""
    return as_array(a).shape


@structural(np.ndim)
def ndim(a: Any) -> int:
    """The number of axes."""
    return len(as_array(a).shape)


@structural(np.size)
def size(a: Any, axis: Any = None) -> int:
    """The number of elements, in all or along the given axes."""
    x = as_array(a)
    axes = range(x.ndim) if axis is None else normalize_axes(axis, x.ndim)
    return math.prod([x.shape[i] for i in axes])


@structural(np.iscomplexobj)
def iscomplexobj(x: Any) -> bool:
    """Whether the dtype is complex."""
    return as_array(x).dtype.kind == "c"


@structural(np.isrealobj)
def isrealobj(x: Any) -> bool:
    """Whether the dtype is not complex."""
    return as_array(x).dtype.kind != "c"


def isscalar(element: Any) -> bool:
    """Whether the value is a number without axes; `numpy.isscalar` itself does not know traced values."""
    return element.ndim == 0 if isinstance(element, Tracer) else np.isscalar(element)


def _sample(value: Any) -> Any:
    """What stands for a tracer in NumPy's questions about dtypes: its dtype, or a number where that is weak."""
    if not isinstance(value, Tracer):
        return value
    kind = dtype_of(value)
    return kind(0) if isinstance(kind, type) else kind


@structural(np.result_type)
def result_type(*arrays_and_dtypes: Any) -> np.dtype:
    """The dtype that NumPy's promotion gives."""
    return np.result_type(*map(_sample, arrays_and_dtypes))


@structural(np.can_cast)
def can_cast(from_: Any, to: Any, casting: Any = "safe") -> bool:
    """Whether a cast between dtypes may occur under a casting rule."""
    return np.can_cast(from_.dtype if isinstance(from_, Tracer) else from_, to, casting)


promote_types = np.promote_types
