"""The pure form of assignment: `at(x)[i].set(v)`, `x.at[i].add(v)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from functrace.core.primitive import Primitive
from functrace.core.trace import Tracer
from functrace.errors import DTypeError
from functrace.numpy._assignment import fit, masked_key, spread_mask
from functrace.numpy._indexing import plan_index, read, write
from functrace.numpy._promotion import as_array, has_tracer
from functrace.numpy._structural import fresh
from functrace.primitives import elementwise as p
from functrace.primitives.indexing import combine_at, scatter_add, scatter_set
from functrace.primitives.scatter import scatter_max, scatter_min, scatter_multiply
from functrace.util import user_line

__all__ = ["at"]


class Indexer:
    """`x.at` or `at(x)`: index it to get a reference to a part of x."""

    __slots__ = ("_array",)

    def __init__(self, array: Any) -> None:
        self._array = array

    def __getitem__(self, key: Any) -> Reference:
        return Reference(self._array, key)

    def __repr__(self) -> str:
        return f"at({self._array!r})"


class Reference:
    """A part of an array; each method gives a new array in which that part is changed.

    Where an index repeats, `add`, `subtract`, `multiply`, `divide`, `min` and `max` apply every value, and `set`,
    `power` and `apply` keep the last one.
    """

    __slots__ = ("_array", "_key")

    def __init__(self, array: Any, key: Any) -> None:
        self._array = array
        self._key = key

    def __repr__(self) -> str:
        return f"at({self._array!r})[{self._key!r}]"

    def get(self) -> Any:
        """The part itself, `x[key]`, as a copy."""
        if not has_tracer((self._array, *self._keys())):
            return np.array(np.asarray(self._array)[self._key])[()]
        x = as_array(self._array)
        out = read(x, plan_index(x.shape, self._key))
        return fresh(out) if out is x else out

    def set(self, values: Any) -> Any:
        """The array with the part replaced."""
        return self._updated(values, lambda part, v: v, np.positive, scatter_set)

    def add(self, values: Any) -> Any:
        """The array with values added to the part."""
        return self._updated(values, p.add, np.add, scatter_add)

    def subtract(self, values: Any) -> Any:
        """The array with values subtracted from the part."""
        return self._updated(values, p.sub, np.subtract, scatter_add, p.neg)

    def multiply(self, values: Any) -> Any:
        """The array with the part multiplied by values."""
        return self._updated(values, p.mul, np.multiply, scatter_multiply)

    def divide(self, values: Any) -> Any:
        """The array with the part divided by values."""
        return self._updated(values, p.div, np.true_divide, scatter_multiply, p.reciprocal)

    def min(self, values: Any) -> Any:
        """The array with the part no greater than values; ties share the derivative evenly."""
        return self._updated(values, p.minimum, np.minimum, scatter_min)

    def max(self, values: Any) -> Any:
        """The array with the part no less than values; ties share the derivative evenly."""
        return self._updated(values, p.maximum, np.maximum, scatter_max)

    def power(self, values: Any) -> Any:
        """The array with the part raised to powers."""
        return self._updated(values, p.power, np.power, None)

    def apply(self, function: Callable[[Any], Any]) -> Any:
        """The array with the part replaced by `function(part)`."""
        mask = masked_key(self._key)
        if mask is None:
            return self.set(function(self.get()))
        x = as_array(self._array)
        return self._masked(mask, x, fit(function(x), x.shape, x.dtype))

    @staticmethod
    def _masked(mask: Tracer, x: Any, value: Any) -> Any:
        return p.select(spread_mask(mask, x.dtype.type(0), x)[0], value, x)

    def _keys(self) -> tuple[Any, ...]:
        return self._key if isinstance(self._key, tuple) else (self._key,)

    def _updated(
        self,
        values: Any,
        operation: Callable[[Any, Any], Any],
        ufunc: np.ufunc,
        scatter: Primitive | None,
        prepare: Callable[[Any], Any] = lambda v: v,
    ) -> Any:
        """The new array.

        Args:
            operation: the new part from the old one and values of its shape and dtype.
            ufunc: the operation in NumPy.
            scatter: how repeated indices combine; None for the last one.
            prepare: what makes the scatter's updates from the values.
        """
        if not has_tracer((self._array, values, *self._keys())):
            return self._updated_plain(values, ufunc, scatter)
        x = as_array(self._array)
        if ufunc is np.true_divide and x.dtype.kind not in "fc":
            raise DTypeError(
                "an array of integers or booleans cannot hold quotients",
                where=user_line(),
                got=x.dtype.name,
                remedy="convert it first, as in at(x.astype(float))[i].divide(v)",
            )
        mask = masked_key(self._key)
        if mask is not None:
            mask, v = spread_mask(mask, values, x)
            return p.select(mask, operation(x, v), x)
        plan = plan_index(x.shape, self._key)
        v = fit(values, plan.shape, x.dtype)
        if scatter is None or plan.unique or scatter is scatter_set:
            return _fresh_from(write(x, plan, operation(read(x, plan), v)), x, v)
        return write(x, plan, prepare(v), scatter)

    def _updated_plain(self, values: Any, ufunc: np.ufunc, scatter: Primitive | None) -> Any:
        out = np.array(self._array)
        values = fit(values, np.shape(values), out.dtype)
        if ufunc is np.positive:
            out[self._key] = values
        elif scatter is None:
            out[self._key] = ufunc(out[self._key], values)
        else:
            combine_at(ufunc, out, self._key, values)
        return out[()]


def _fresh_from(out: Any, *sources: Any) -> Any:
    return fresh(out) if any(out is s for s in sources) else out


def at(x: Any) -> Indexer:
    """The pure form of assignment: `at(x)[i].set(v)` is a new array, `x` stays.

    Args:
        x: array, plain or traced.

    Returns:
        An object to index, whose parts have the methods get, set, add, subtract, multiply, divide, power, min, max and
        apply. Where an index repeats, all values take effect for those that commute, and the last one for the others.

    Example:
        >>> import numpy as np
        >>> import functrace.numpy as fnp
        >>> fnp.at(np.zeros(3))[[0, 2, 2]].add(1.0)
        array([1., 0., 2.])
    """
    return Indexer(x)


Tracer.at = property(Indexer)  # type: ignore[attr-defined]
