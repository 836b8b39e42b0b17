"""Assignment to traced arrays: `x[i] = v`, `x += v`, and the views that NumPy would write through.

A traced array is assigned to by a functional update of that Python object. What NumPy calls a view of an array (the
result of basic indexing, of a reshape or a transpose) is a tracer of its own here, so an assignment goes on to the
arrays that share memory with its target: upwards to the array it is a view of, and from there to all other views that
are still in use. Where a view does not say how it is read and written, the assignment is refused.
"""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from functrace.core.trace import EVAL, Trace, Tracer, current_trace, leaked
from functrace.errors import AbstractValueError, AssignmentError, DTypeError, ShapeError
from functrace.numpy._indexing import as_mask, plan_index, read, write
from functrace.numpy._promotion import as_array, as_operand, broadcast_to, cast
from functrace.primitives.elementwise import select
from functrace.primitives.families import broadcast, reshape
from functrace.primitives.indexing import index, update
from functrace.util import user_line

__all__ = ["assign", "fit", "mark_view", "masked_key", "spread_mask"]

_FLOAT64 = np.dtype(np.float64)


class Links:
    """Which arrays share memory with a tracer in NumPy's semantics.

    Attributes:
        base: the array it is a view of, or None.
        key: the basic index that made it from the base, or None.
        read: the view as a function of the base; None where unknown.
        write: the base as a function of (base, view); None where unknown.
        views: weak references to the views of this array.
        origin: for what is a view or a copy, depending on the memory layout: a weak reference to the array it was made
            from, and that array's links. When nobody uses that array any more the difference cannot be seen.
        limit: the number of references at which dead ones are dropped.
    """

    __slots__ = ("base", "key", "limit", "origin", "read", "views", "write")

    def __init__(self, base: Tracer | None = None, key: Any = None, read: Any = None, write: Any = None) -> None:
        self.base, self.key, self.read, self.write = base, key, read, write
        self.views: list[weakref.ref[Tracer]] = []
        self.origin: tuple[weakref.ref[Tracer], Links] | None = None
        self.limit = 8

    def live(self) -> Iterator[Tracer]:
        """The views that are in use."""
        for ref in self.views:
            view = ref()
            if view is not None and view._trace.alive:
                yield view

    def add(self, view: Tracer) -> None:
        self.views.append(weakref.ref(view))
        if len(self.views) > self.limit:
            self.views = [ref for ref in self.views if ref() is not None]
            self.limit = 2 * len(self.views) + 8


def mark_view(
    base: Tracer,
    view: Tracer,
    read: Callable[[Any], Any] | None = None,
    write: Callable[[Any, Any], Any] | None = None,
) -> None:
    """Note that in NumPy `view` would share memory with `base`.

    Args:
        base: the array viewed.
        view: a new tracer, not otherwise in use.
        read: gives the view from the base's value. Without it, assigning to the base while the view is in use raises.
        write: gives the base's value from (base, view). Without it, assigning to the view raises.
    """
    if view is base:
        return
    own = base.views is None or (base.views.base is None and base.views.origin is None)
    if read is None and write is None and own:
        links = Links()
        _link(base, view, links)
        links.origin = (weakref.ref(base), base.views)
    else:
        _link(base, view, Links(base, None, read, write))


def _link(base: Tracer, view: Tracer, links: Links) -> None:
    if base.views is None:
        base.views = Links()
    base.views.add(view)
    view.views = links


def _read(links: Links, base: Any) -> Any:
    if links.read is not None:
        return links.read(base)
    return read(base, plan_index(base.shape, links.key))


def _write(links: Links, view: Any) -> Any:
    base = links.base
    if links.write is not None:
        return links.write(base, view)
    return write(base, plan_index(base.shape, links.key), view)  # type: ignore[union-attr]


# what may be assigned to what


def fit(value: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """A value as NumPy assigns it to a part of this shape and dtype: cast within its kind and broadcast.

    Raises:
        DTypeError: the cast would lose the fraction or the imaginary part, and with it the derivative.
        ShapeError: it does not broadcast.
    """
    value = as_operand(value)
    kind = type(value)
    weak = kind in (int, float, complex) or (isinstance(value, Tracer) and value.weak)
    value = as_array(value)
    if value.dtype != dtype:
        if not np.can_cast(_weakest(value.dtype) if weak else value.dtype, dtype, "same_kind"):
            raise DTypeError(
                f"cannot assign {value.dtype.name} values to an array of {dtype.name}",
                where=user_line(),
                got=f"{value.dtype.name} into {dtype.name}",
                remedy=f"make the array {value.dtype.name} to begin with, or convert the value with .astype",
            )
        value = cast(value, dtype)
    excess = len(value.shape) - len(shape)
    if excess > 0 and value.shape[:excess] == (1,) * excess:
        value = reshape(value, shape=value.shape[excess:])
    try:
        fits = np.broadcast_shapes(value.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            f"could not broadcast a value of shape {value.shape} into a part of shape {shape}",
            where=user_line(),
            got=f"shape {value.shape}",
            remedy="give the value the shape of the part, or lengths of 1 where it shall repeat",
        )
    return broadcast_to(value, shape)


def _weakest(dtype: np.dtype) -> np.dtype:
    """The narrowest dtype of a Python number's kind, as which it can be assigned to any of that kind."""
    return np.dtype({"i": np.int8, "f": np.float16, "c": np.complex64}.get(dtype.kind, dtype))


def _owned(target: Tracer, value: Any) -> Any:
    """The value as a tracer of the target's trace.

    Raises:
        AssignmentError: it belongs to a trace inside the target's, which it would outlive.
    """
    home = target._trace
    if isinstance(value, Tracer):
        if value._trace is home:
            return value
        if value._trace not in _ancestors(home):
            raise AssignmentError(
                "a value of an inner transformation cannot be assigned to an array of an outer one",
                where=user_line(),
                got=f"{value.describe()} into {target.describe()}",
                remedy="return the value from the inner function and assign it outside, or make the array inside",
            )
        value = value.snapshot()
    return home.pure(value)


def _ancestors(trace: Trace) -> Iterator[Trace]:
    while trace is not EVAL:
        trace = trace.parent
        yield trace


def _check_place(target: Tracer) -> None:
    """Raise unless the target may be assigned to here: between it and us, each function runs exactly once.

    Raises:
        AssignmentError: inside a function that is batched or recorded, an array from outside is no local variable.
        LeakedTracerError: the target's transformation has ended.
    """
    trace = current_trace()
    while trace is not target._trace:
        if trace is EVAL:
            raise leaked(target)
        if trace.name not in ("jvp", "linearize"):
            raise AssignmentError(
                f"a function under {trace.name} cannot assign to an array from outside",
                where=user_line(),
                got=target.describe(),
                remedy="return the value and assign it outside, or pass a copy of the array in and return it",
            )
        trace = trace.parent


def assign(target: Tracer, value: Any) -> None:
    """Give a traced array a new value of its shape and dtype, and pass it on to all that share its memory.

    Raises:
        AssignmentError: the value cannot reach every array that NumPy would change.
    """
    _check_place(target)
    value = _owned(target, value)
    if target.views is None:
        _replace(target, value)
        return
    changes = list(_upwards(target, value))
    done = {id(node) for node, _ in changes}
    pending = list(changes)
    while pending:
        node, value = pending.pop()
        for view in node.views.live():
            if id(view) in done:
                continue
            links = view.views
            if links.read is None and links.key is None:
                raise AssignmentError(
                    "assigning to an array while a view of it is in use: the view would change with it in NumPy",
                    where=user_line(),
                    got=f"{target.describe()}, viewed as {view.describe()}",
                    remedy="take a copy instead of the view, as in x.T.copy(), or assign before taking the view",
                )
            change = (view, _owned(view, _read(links, value)))
            changes.append(change)
            if view.views.views:
                pending.append(change)
    for node, value in changes:
        _replace(node, value)


def _replace(target: Tracer, value: Tracer) -> None:
    target.become(value)
    target._frozen = None


def _upwards(target: Tracer, value: Any) -> Iterator[tuple[Tracer, Any]]:
    """The target and the arrays it is a view of, with their new values.

    Raises:
        AssignmentError: one of them is a view that cannot be written through.
    """
    yield target, value
    node = target
    while node.views is not None:
        links = node.views
        if links.origin is not None:
            _check_origin(node, links)
        base = links.base
        if base is None:
            return
        if links.write is None and links.key is None:
            raise AssignmentError(
                "assigning to a view: the array it was taken from would change with it in NumPy",
                where=user_line(),
                got=f"{target.describe()}, a view of {base.describe()}",
                remedy="assign to a copy, as in y = x.T.copy(), or to the array itself before taking the view",
            )
        value = _owned(base, _write(links, value))
        yield base, value
        node = base


def _check_origin(node: Tracer, links: Links) -> None:
    """Raise if an array that may share memory with this one is in use."""
    origin, family = links.origin  # type: ignore[misc]
    for relative in (origin(), *family.live()):
        if relative is not None and relative is not node:
            raise AssignmentError(
                "assigning to what NumPy makes a view or a copy, depending on the memory layout of its array",
                where=user_line(),
                got=f"{node.describe()}, made from {relative.describe()}",
                remedy="assign to a copy, as in y = x.ravel().copy(), or to the array itself before reshaping it",
            )


# indexing and assignment by Python's syntax


_BOUNDS = (int, type(None))


def get_item(self: Tracer, key: Any) -> Any:
    """`x[key]`, as NumPy indexes."""
    shape = self.shape
    kind = type(key)
    if kind is int:
        if shape and -shape[0] <= key < shape[0]:
            out = index.bind(self, at=(key + shape[0] if key < 0 else key,))
            if len(shape) > 1:
                _link(self, out, Links(self, key))
            return out
    elif kind is slice and key.step is None and shape and type(key.start) in _BOUNDS and type(key.stop) in _BOUNDS:
        start, stop, _ = key.indices(shape[0])
        if start < stop and stop - start < shape[0]:
            out = index.bind(self, at=((start, stop, 1),))
            _link(self, out, Links(self, key))
            return out
    elif kind is tuple and len(key) == len(shape):
        at = []
        for i, length in zip(key, shape, strict=True):
            if type(i) is not int or not -length <= i < length:
                break
            at.append(i + length if i < 0 else i)
        else:
            if at:
                return index.bind(self, at=tuple(at))
    plan = plan_index(shape, key)
    out = read(self, plan)
    if out is self:
        return self if plan.view else self.snapshot()
    if plan.view:
        _link(self, out, Links(self, key))
    return out


def set_item(self: Tracer, key: Any, value: Any) -> None:
    """`x[key] = value`, as NumPy assigns, by a functional update of this object."""
    shape = self.shape
    if type(key) is int and len(shape) == 1 and self.views is None and -shape[0] <= key < shape[0]:
        if type(value) is float and self.dtype is _FLOAT64:
            value = np.float64(value)
        elif not isinstance(value, Tracer) or value.shape or value.dtype != self.dtype:
            value = fit(value, (), self.dtype)
        assign(self, update.bind(self, value, at=(key + shape[0] if key < 0 else key,)))
        return
    mask = masked_key(key)
    if mask is not None:
        mask, value = spread_mask(mask, value, self)
        assign(self, select(mask, value, self))
        return
    plan = plan_index(shape, key)
    if isinstance(value, Tracer) and value.views is not None and value.views.base is self:
        # `x[a:b] += v` has written through its view already, and now assigns that view to its own place.
        made_by = value.views.key
        if made_by is not None and not plan.indices and plan_index(shape, made_by) == plan:
            return
    assign(self, write(self, plan, fit(value, plan.shape, self.dtype)))


def masked_key(key: Any) -> Tracer | None:
    """The key if it is a boolean mask without a value; an assignment by it selects element by element."""
    if isinstance(key, tuple) and len(key) == 1:
        key = key[0]
    if isinstance(key, Tracer) and key.dtype.kind == "b":
        try:
            key.concrete()
        except AbstractValueError:
            return key
    return None


def spread_mask(mask: Tracer, values: Any, x: Any) -> tuple[Any, Any]:
    """A mask over leading axes of `x`, and the values to go where it is true, both in the shape of `x`.

    Raises:
        IndexingError: the mask does not fit, or there is one value per selected element, whose number is unknown.
    """
    rank = len(mask.shape)
    values = as_array(values)
    if mask.shape != x.shape[:rank]:
        plan_index(x.shape, np.zeros(mask.shape, bool))  # raises
    rest = x.shape[rank:]
    if len(values.shape) > len(rest):
        as_mask(mask)  # raises
    if rest:
        mask = broadcast(mask, shape=x.shape, axes=tuple(range(rank)))
    return mask, broadcast_to(fit(values, rest, x.dtype), x.shape)


def iterate(self: Tracer) -> Iterator[Any]:
    """The elements or rows along the first axis."""
    count = length(self, "iteration over")
    return (self[i] for i in range(count))  # type: ignore[index]


def length(self: Tracer, purpose: str = "len() of") -> int:
    """The length of the first axis."""
    if self.shape:
        return self.shape[0]
    raise ShapeError(
        f"{purpose} a 0-d array",
        where=user_line(),
        got=self.describe(),
        remedy="a scalar has no axis; numpy.atleast_1d(x) gives it one",
    )


def _in_place(name: str) -> Callable[[Tracer, Any], Any]:
    operation = getattr(operator, name)

    def in_place(self: Tracer, other: Any) -> Any:
        if not self.shape and (self.views is None or self.views.base is None):
            return NotImplemented  # a scalar: Python binds the name to x + v
        result = operation(self, other)
        if result.shape != self.shape:
            raise ShapeError(
                "an in-place operation cannot change the shape of its array",
                where=user_line(),
                got=f"result of shape {result.shape} for an array of shape {self.shape}",
                remedy="write x = x + v instead of x += v",
            )
        assign(self, fit(result, self.shape, self.dtype))
        return self

    return in_place


_OPERATIONS = "add sub mul truediv floordiv mod pow matmul and_ or_ xor lshift rshift"
for _name in _OPERATIONS.split():
    setattr(Tracer, f"__i{_name.rstrip('_')}__", _in_place(_name))
for _name, _method in (
    ("__getitem__", get_item),
    ("__setitem__", set_item),
    ("__iter__", iterate),
    ("__len__", length),
):
    setattr(Tracer, _name, _method)
