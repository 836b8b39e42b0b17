"""The methods and attributes of `numpy.ndarray` on tracers, made from the traced functions of the same names.

A function is looked up when its method is called, so it does not matter which module defines it or when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from functrace.core.trace import Tracer, conversion
from functrace.errors import (
    ArgumentError,
    AssignmentError,
    ConversionError,
    LeakedTracerError,
    UnsupportedAttributeError,
    UnsupportedFunctionError,
)
from functrace.numpy._axes import as_index
from functrace.numpy._dispatch import traced_functions, traced_ufuncs
from functrace.numpy._refusals import UNCLEAR, explain_refusal
from functrace.numpy._structural import flat, fresh
from functrace.numpy.shape import convert_to
from functrace.util import user_line

__all__ = ["FUNCTION_METHODS", "install_methods"]

#: Methods whose arguments after the array are the function's own, by the function's name in NumPy.
FUNCTION_METHODS = {
    name: name
    for name in (
        "all", "any", "argmax", "argmin", "argpartition", "argsort", "choose", "clip", "copy", "cumprod",
        "cumsum", "diagonal", "dot", "max", "mean", "min", "nonzero", "prod", "put", "ravel", "repeat", "round",
        "searchsorted", "squeeze", "std", "sum", "swapaxes", "take", "trace", "var",
    )
}  # fmt: skip

_METHOD_REMEDIES = {
    "byteswap": "traced arrays have the machine's byte order",
    "ctypes": "compute the array first, outside the traced function",
    "data": "traced arrays have no memory of their own",
    "dump": "return the value from the traced function, then store it",
    "dumps": "return the value from the traced function, then store it",
    "flags": "traced arrays have no memory layout",
    "flat": "use x.ravel() to read and x[...] = values.reshape(x.shape) to assign",
    "getfield": "use numpy.real or numpy.imag for the parts of complex numbers",
    "setfield": "assign with x[...] = values",
    "setflags": "traced arrays have no memory layout",
    "strides": "traced arrays have no memory layout",
    "tobytes": "return the value from the traced function, then store it",
    "tofile": "return the value from the traced function, then store it",
    "to_device": "traced arrays live where NumPy's do",
    "view": "use x.astype(dtype) for another dtype and x[...] for a view of the same",
}


def _function_method(name: str) -> Callable[..., Any]:
    """The method that calls a traced function with the array first."""
    function = getattr(np, name)

    def method(self: Tracer, *args: Any, **kwargs: Any) -> Any:
        traced = traced_functions.get(function)
        if traced is None:
            raise UnsupportedFunctionError(
                f"the method {name} of a traced array has no traced form",
                where=user_line(),
                got=self.describe(),
                remedy=f"numpy.{name} is not supported inside a traced function; compute it outside, or from "
                "functions that are",
            )
        try:
            return traced(self, *args, **kwargs)
        except UNCLEAR as error:
            explain_refusal(error, function, (self, *args), kwargs)
            raise

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"`numpy.{name}` of this array."
    return method


def _refused(name: str, remedy: str) -> property:
    """An attribute of NumPy arrays that traced ones cannot have; for `hasattr` it is absent."""

    def refuse(self: Tracer) -> Any:
        raise UnsupportedAttributeError(
            f"a traced array has no {name}", where=user_line(), got=self.describe(), remedy=remedy
        )

    return property(refuse, doc=f"Not available: {remedy}.")


def _no_assignment(name: str, remedy: str) -> Callable[[Tracer, Any], None]:
    """The setter of an attribute that can be assigned to in NumPy."""

    def refuse(self: Tracer, value: Any) -> None:
        raise AssignmentError(
            f"x.{name} of a traced array cannot be assigned to", where=user_line(), got=self.describe(), remedy=remedy
        )

    return refuse


# methods whose arguments differ from the function's


def reshape(self: Tracer, *shape: Any, order: str = "C", copy: bool | None = None) -> Any:
    """`numpy.reshape`; the lengths may be separate arguments."""
    return traced_functions[np.reshape](self, shape[0] if len(shape) == 1 else shape, order, copy=copy)


def transpose(self: Tracer, *axes: Any) -> Any:
    """`numpy.transpose`; the axes may be separate arguments."""
    order = None if not axes else axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
    return traced_functions[np.transpose](self, order)


def flatten(self: Tracer, order: str = "C") -> Any:
    """The elements in one dimension, as a copy."""
    out = traced_functions[np.reshape](self, (-1,), "C" if order == "K" else order, copy=True)
    return out


def astype(
    self: Tracer, dtype: Any, order: str = "K", casting: str = "unsafe", subok: bool = True, copy: bool = True
) -> Any:
    """The array in another dtype; the derivative ends where that is an integer or boolean one."""
    return convert_to(self, dtype, casting, copy)


def conjugate(self: Tracer) -> Any:
    """`numpy.conjugate`."""
    return traced_ufuncs[np.conjugate](self) if self.dtype.kind == "c" else self


def compress(self: Tracer, condition: Any, axis: Any = None, out: Any = None) -> Any:
    """`numpy.compress`, which takes the condition first."""
    return traced_functions[np.compress](condition, self, axis, out)


def fill(self: Tracer, value: Any) -> None:
    """Assign one value to all elements."""
    self[...] = value  # type: ignore[index]


def sort(self: Tracer, axis: int = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> None:
    """Sort in place: assign the sorted array to this one."""
    self[...] = _function_method("sort")(self, axis, kind, order, stable=stable)  # type: ignore[index]


def partition(self: Tracer, kth: Any, axis: int = -1, kind: str = "introselect", order: Any = None) -> None:
    """Partition in place: assign the partitioned array to this one."""
    self[...] = _function_method("partition")(self, kth, axis, kind, order)  # type: ignore[index]


def item(self: Tracer, *args: Any) -> Any:
    """One element as a Python number; only integers and booleans, which have no derivative."""
    if not args:
        element = self
    elif len(args) == 1 and not isinstance(args[0], tuple):
        element = flat(self)[as_index(args[0], "the index")]
    else:
        element = self[args[0] if len(args) == 1 else args]  # type: ignore[index]
    if element.size != 1:
        raise ArgumentError(
            "item() takes the only element of an array",
            where=user_line(),
            got=element.describe(),
            remedy="give the index of the element",
        )
    if element.dtype.kind not in "iub":
        raise conversion(self, "a Python number by item()")
    return element.concrete().item()


def tolist(self: Tracer) -> Any:
    """The elements as nested lists of Python numbers; only integers and booleans, which have no derivative."""
    if self.dtype.kind not in "iub":
        raise conversion(self, "a list of Python numbers")
    return self.concrete().tolist()


def resize(self: Tracer, *new_shape: Any, refcheck: bool = True) -> None:
    """Refused: a traced array cannot change its shape in place."""
    raise AssignmentError(
        "a traced array cannot change its shape in place",
        where=user_line(),
        got=self.describe(),
        remedy="use numpy.resize(x, shape), which gives a new array",
    )


# Python's protocols


def _matmul(self: Tracer, other: Any) -> Any:
    return NotImplemented if other is None else traced_ufuncs[np.matmul](self, other)


def _rmatmul(self: Tracer, other: Any) -> Any:
    return NotImplemented if other is None else traced_ufuncs[np.matmul](other, self)


def _round(self: Tracer, ndigits: int | None = None) -> Any:
    return self.round(ndigits or 0)  # type: ignore[attr-defined]


def _rounding(ufunc: np.ufunc) -> Callable[[Tracer], Any]:
    def method(self: Tracer) -> Any:
        return self if self.dtype.kind in "iub" else traced_ufuncs[ufunc](self)

    return method


def _deepcopy(self: Tracer, memo: dict[int, Any]) -> Any:
    return fresh(self)


def _contains(self: Tracer, value: Any) -> bool:
    return bool((self == value).any())


def _format(self: Tracer, spec: str) -> str:
    """The description for an empty format; a number format needs a number, which is not to be had while tracing."""
    if not spec:
        return str(self)
    raise ConversionError(
        "a traced value cannot be formatted as a number",
        where=user_line(),
        got=f"format {spec!r} for {self.describe()}",
        remedy="print it without a format, as in print(f'{x}'), which shows type and shape; or return it from the "
        "function (has_aux=True) and print it there",
    )


def _reduce(self: Tracer, protocol: int = 0) -> Any:
    raise LeakedTracerError(
        "a traced value cannot be pickled: it lives inside the transformation that made it",
        where=user_line(),
        got=self.describe(),
        remedy="return the value from the transformed function and pickle the result",
    )


_METHODS: dict[str, Any] = {
    "reshape": reshape, "transpose": transpose, "flatten": flatten, "astype": astype, "conj": conjugate,
    "conjugate": conjugate, "compress": compress, "fill": fill, "sort": sort, "partition": partition, "item": item,
    "tolist": tolist, "resize": resize, "__matmul__": _matmul, "__rmatmul__": _rmatmul, "__round__": _round,
    "__trunc__": _rounding(np.trunc), "__floor__": _rounding(np.floor), "__ceil__": _rounding(np.ceil),
    "__copy__": fresh, "__deepcopy__": _deepcopy, "__contains__": _contains, "__format__": _format,
    "__reduce_ex__": _reduce,
}  # fmt: skip

_PROPERTIES: dict[str, Callable[[Tracer], Any]] = {
    "T": lambda self: traced_functions[np.transpose](self),
    "mT": lambda self: traced_functions[np.matrix_transpose](self),
    "real": lambda self: traced_functions[np.real](self),
    "imag": lambda self: traced_functions[np.imag](self),
    "itemsize": lambda self: self.dtype.itemsize,
    "nbytes": lambda self: self.size * self.dtype.itemsize,
    "device": lambda self: "cpu",
    "base": lambda self: None,
}

_SETTER_REMEDIES = {
    "real": "assign to all of it, x[...] = v + 1j * x.imag",
    "imag": "assign to all of it, x[...] = x.real + 1j * v",
    "shape": "make another array, x = x.reshape(shape)",
    "dtype": "make another array, x = x.astype(dtype)",
}


def _kinds(base: type[Any]) -> Iterator[type[Any]]:
    """A class and those made from it."""
    yield base
    for kind in base.__subclasses__():
        yield from _kinds(kind)


def install_methods() -> None:
    """Give `Tracer` the methods and attributes of `numpy.ndarray`."""
    for name, function in FUNCTION_METHODS.items():
        setattr(Tracer, name, _function_method(function))
    for name, method in _METHODS.items():
        setattr(Tracer, name, method)
    for name, getter in _PROPERTIES.items():
        setter = _no_assignment(name, _SETTER_REMEDIES[name]) if name in _SETTER_REMEDIES else None
        setattr(Tracer, name, property(getter, setter))
    for name, remedy in _METHOD_REMEDIES.items():
        setattr(Tracer, name, _refused(name, remedy))
    for kind, name in product(_kinds(Tracer), ("shape", "dtype")):
        own = vars(kind).get(name)
        if isinstance(own, property):
            setattr(kind, name, own.setter(_no_assignment(name, _SETTER_REMEDIES[name])))
