"""NumPy's own functions on tracers: the ufunc protocol (NEP 13) and the function protocol (NEP 18).

Whatever NumPy hands over either has a traced form or raises an error that names it and its replacement.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.core.trace import Tracer
from functrace.errors import UnsupportedFunctionError
from functrace.numpy._dispatch import (
    describe,
    plain_buffer,
    split_out,
    traced_functions,
    traced_named_ufuncs,
    traced_ufuncs,
    write_out,
)
from functrace.numpy._refusals import UNCLEAR, explain_refusal
from functrace.numpy._ufunc_methods import ufunc_methods
from functrace.util import user_line

__all__: list[str] = []


def array_ufunc(self: Tracer, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
    """`numpy.add(x, y)`, `numpy.add.reduce(x)` and their like, where some operand or output is a tracer."""
    traced = traced_form(ufunc)
    if traced is None:
        raise unsupported_ufunc(ufunc)
    if method != "__call__":
        return ufunc_methods[method](ufunc, *inputs, **options)
    if not options:
        return traced(*inputs)
    inputs, out, options = split_out(ufunc, inputs, options)
    if out is None:
        return traced(*inputs, **options)
    if not isinstance(out, Tracer):
        raise plain_buffer(f"{describe(ufunc)} would write", out)
    where, casting = options.pop("where", True), options.get("casting")
    return write_out(describe(ufunc), traced(*inputs, **options), out, where, casting)


def array_function(self: Tracer, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
    """`numpy.sum(x)` and its like, where some argument is a tracer."""
    traced = traced_functions.get(function)
    if traced is None:
        raise unsupported_function(function)
    try:
        return traced(*args, **kwargs)
    except UNCLEAR as error:
        explain_refusal(error, function, args, kwargs)
        raise


def traced_form(ufunc: np.ufunc) -> Callable[..., Any] | None:
    """The traced form of a ufunc of NumPy or SciPy, None if there is none."""
    traced = traced_ufuncs.get(ufunc)
    if traced is None and ufunc.__name__ in traced_named_ufuncs:
        for module in ("scipy.special", "scipy.special._ufuncs"):
            if getattr(sys.modules.get(module), ufunc.__name__, None) is ufunc:
                traced = traced_ufuncs[ufunc] = traced_named_ufuncs[ufunc.__name__]
    return traced


def unsupported_ufunc(ufunc: np.ufunc) -> UnsupportedFunctionError:
    """The error for a ufunc without traced form."""
    name = ufunc.__name__
    if getattr(np, name, None) is ufunc:
        what, remedy = f"numpy.{name}", _ALTERNATIVES.get(name, _GENERIC)
    elif getattr(sys.modules.get("scipy.special"), name, None) is ufunc:
        what, remedy = f"scipy.special.{name}", "functrace.scipy.special lists the special functions that trace"
    else:
        what = f"the ufunc {name!r}"
        remedy = "map the Python function behind it with functrace.vmap; compiled ufuncs of other packages do not trace"
    return UnsupportedFunctionError(f"{what} has no traced form", where=user_line(), remedy=remedy)


def unsupported_function(function: Any) -> UnsupportedFunctionError:
    """The error for a NumPy function without traced form."""
    module = getattr(function, "__module__", None) or "numpy"
    name = getattr(function, "__name__", repr(function))
    return UnsupportedFunctionError(
        f"{module}.{name} has no traced form",
        where=user_line(),
        remedy=_ALTERNATIVES.get(name, _GENERIC),
    )


_GENERIC = (
    "build it from functions that do trace (functrace.numpy has them all), or call it outside the traced function and "
    "pass its result in"
)
_ASSIGN = "assign to a traced array: x[i] = value on functrace.numpy.zeros(...) or functrace.numpy.array(x)"
_DATA_SHAPE = (
    "the shape of its result depends on values, which a program cannot express: use numpy.where(condition, x, 0) "
    "instead of selecting, or compute it outside the traced function"
)
_PIECEWISE = "its result is piecewise constant in x and has no derivative: compute it outside the traced function"
_OUTPUT = "return the value from the traced function and do this with the result"
_MAP = "map the function over the axis with functrace.vmap(f, in_axes=axis, out_axes=axis)"
_FIT = "solve the least-squares problem with numpy.linalg.lstsq on the Vandermonde matrix, numpy.vander"

#: What to do instead, by the name of a NumPy function.
_ALTERNATIVES: dict[str, str] = {
    **dict.fromkeys(("array", "asarray", "asanyarray", "ascontiguousarray"), "use functrace.numpy.array"),
    **dict.fromkeys(("empty", "zeros", "ones", "full", "arange"), "use the function of this name in functrace.numpy"),
    **dict.fromkeys(("apply_along_axis", "apply_over_axes", "vectorize", "frompyfunc"), _MAP),
    **dict.fromkeys(("put", "place", "copyto", "putmask", "put_along_axis", "fill_diagonal"), _ASSIGN),
    **dict.fromkeys(
        (
            "unique", "unique_all", "unique_counts", "unique_inverse", "unique_values", "nonzero", "flatnonzero",
            "argwhere", "extract", "compress", "trim_zeros", "union1d", "intersect1d", "setdiff1d", "setxor1d",
        ),
        _DATA_SHAPE,
    ),
    **dict.fromkeys(
        (
            "histogram", "histogram2d", "histogramdd", "histogram_bin_edges", "digitize", "bincount", "count_nonzero",
            "searchsorted", "packbits", "unpackbits", "isin", "in1d",
        ),
        _PIECEWISE,
    ),
    **dict.fromkeys(
        (
            "save", "savez", "savez_compressed", "savetxt", "array2string", "array_repr", "array_str",
            "format_float_positional", "format_float_scientific", "base_repr", "binary_repr",
        ),
        _OUTPUT,
    ),
    **dict.fromkeys(("polyfit", "roots"), _FIT),
    "partition": "use numpy.sort, whose derivative is defined",
    "argpartition": "use numpy.argsort",
    "lexsort": "use numpy.argsort with kind='stable', last key first",
    "require": "use functrace.numpy.array",
    "asfortranarray": "memory order is not traced; leave it out",
    "may_share_memory": "traced arrays never share memory with an array of yours",
    "shares_memory": "traced arrays never share memory with an array of yours",
    "choose": "use numpy.take_along_axis or numpy.where",
    "fromfunction": "call the function on numpy.indices(shape)",
    "isnat": "traced arrays hold no dates",
    "float_power": "use numpy.power on operands converted with .astype(float)",
}  # fmt: skip


Tracer.__array_ufunc__ = array_ufunc  # type: ignore[attr-defined]
Tracer.__array_function__ = array_function  # type: ignore[attr-defined]
