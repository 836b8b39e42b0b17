"""Continuous distributions, each a differentiable function of a uniform number and of its parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from functrace.core.trace import Tracer
from functrace.errors import ArgumentError, ShapeError
from functrace.numpy._axes import as_lengths
from functrace.numpy._promotion import as_array, broadcast_operands, cast
from functrace.numpy.linalg import cholesky
from functrace.primitives.elementwise import abs_, greater_equal, less, log, log1p, neg, nextafter, select, sign, tan
from functrace.primitives.families import reshape
from functrace.primitives.special import ndtr, ndtri
from functrace.random._keys import as_key, float_dtype, open_unit, parameters, result_shape, unit
from functrace.util import user_line

__all__ = [
    "cauchy",
    "exponential",
    "gumbel",
    "laplace",
    "logistic",
    "multivariate_normal",
    "normal",
    "truncated_normal",
    "uniform",
]

Shape = int | Sequence[int]

#: How many standard deviations from the mean a tail of the normal distribution has a normal floating point number.
_TAILS = {np.dtype(np.float64): 37.0, np.dtype(np.float32): 12.0}


def uniform(key: Any, shape: Shape = (), dtype: Any = float, minval: Any = 0.0, maxval: Any = 1.0) -> Any:
    """Uniform numbers in [minval, maxval), with 53 random bits (float32: 24).

    Args:
        key: a key.
        shape: the shape of the result.
        dtype: float64 or float32.
        minval: the lower end, which can occur; broadcasts to the shape.
        maxval: the upper end, which does not; broadcasts to the shape.

    Raises:
        ArgumentError: a known minval is above maxval, or the interval is infinite.

    Example:
        >>> from functrace import grad, random
        >>> key = random.key(42)
        >>> random.uniform(key, (2,), minval=-1, maxval=1)
        array([-0.14654487, -0.96997986])
        >>> print(grad(lambda width: random.uniform(key, maxval=width))(2.0))
        0.4267275666499091
    """
    key, dtype = as_key(key), float_dtype(dtype)
    if type(minval) in (int, float) and minval == 0 and type(maxval) in (int, float) and maxval == 1:
        return unit(key, as_lengths(shape), dtype)
    shape, (low, high) = parameters("uniform", shape, dtype, minval=minval, maxval=maxval)
    if not isinstance(low, Tracer) and not isinstance(high, Tracer):
        _check_interval(low, high)
    scaled = low + unit(key, shape, dtype) * (high - low)
    below = nextafter(*broadcast_operands([high, low]))
    # Rounding can reach the upper end.
    scaled, high, below = broadcast_operands([scaled, high, below])
    return select(greater_equal(scaled, high), below, scaled)


def _check_interval(low: Any, high: Any) -> None:
    with np.errstate(all="ignore"):
        length = np.subtract(high, low)
    if not np.all((length >= 0) & np.isfinite(length)):
        raise ArgumentError(
            "random.uniform needs a finite interval with minval <= maxval",
            where=user_line(),
            got=f"minval={low}, maxval={high}",
            remedy="exchange the ends, or choose finite ones",
        )


def normal(key: Any, shape: Shape = (), dtype: Any = float) -> Any:
    """Normally distributed numbers with mean 0 and variance 1, by the inverse of the distribution function.

    Args:
        key: a key.
        shape: the shape of the result.
        dtype: float64 (numbers up to 8.2 from the mean) or float32 (up to 5.3).

    Example:
        >>> from functrace import random
        >>> random.normal(random.key(42), (3,))
        array([-0.18471175, -2.16982456,  0.18693555])
    """
    return ndtri(open_unit(as_key(key), as_lengths(shape), float_dtype(dtype)))


def truncated_normal(key: Any, lower: Any, upper: Any, shape: Shape | None = None, dtype: Any = float) -> Any:
    """Numbers of the normal distribution on condition that they lie between two bounds.

    Args:
        key: a key.
        lower: the lower bound, which may be -inf.
        upper: the upper bound, which may be inf.
        shape: the shape of the result; by default that of the bounds.
        dtype: float64 or float32.

    Raises:
        ArgumentError: known bounds are in the wrong order, or both beyond 37 (float32: 12) on one side, where the
            distribution has no mass in floating point. For traced bounds such elements are NaN.

    Example:
        >>> import numpy as np
        >>> from functrace import random
        >>> random.truncated_normal(random.key(42), 2, [3, np.inf])
        array([2.20811691, 2.00636517])
    """
    key, dtype = as_key(key), float_dtype(dtype)
    shape, (low, high) = parameters("truncated_normal", shape, dtype, lower=lower, upper=upper)
    if not isinstance(low, Tracer) and not isinstance(high, Tracer):
        _check_bounds(low, high, _TAILS[dtype])
    drawn, low, high = broadcast_operands([open_unit(key, shape, dtype), low, high])
    # An interval on the right is reflected to the left, where the distribution function is exact in the tail.
    right = greater_equal(low, dtype.type(0))
    left_low, left_high = select(right, neg(high), low), select(right, neg(low), high)
    below, above = ndtr(left_low), ndtr(left_high)
    share = select(right, 1 - drawn, drawn)
    level = select(less(below, above), below + share * (above - below), dtype.type(np.nan))
    found = ndtri(level)
    found = select(right, neg(found), found)
    found = select(less(found, low), low, found)
    return select(less(high, found), high, found)


def _check_bounds(low: Any, high: Any, tail: float) -> None:
    if not np.all(low < high) or np.any((low > tail) | (high < -tail)):
        raise ArgumentError(
            f"random.truncated_normal needs lower < upper, and some part of the interval within {tail:g} of 0",
            where=user_line(),
            got=f"lower={low}, upper={high}",
            remedy="exchange the bounds; far out in the tail use lower + random.exponential(key) / lower",
        )


def exponential(key: Any, shape: Shape = (), dtype: Any = float) -> Any:
    """Numbers of the exponential distribution with mean 1; all are positive.

    Args:
        key: a key.
        shape: the shape of the result.
        dtype: float64 or float32.

    Example:
        >>> from functrace import random
        >>> random.exponential(random.key(42), (3,))
        array([0.55639422, 0.01512386, 0.853655  ])
    """
    return neg(log1p(neg(open_unit(as_key(key), as_lengths(shape), float_dtype(dtype)))))


def gumbel(key: Any, shape: Shape = (), dtype: Any = float) -> Any:
    """Numbers of the standard Gumbel distribution (for maxima), -log(-log(u)).

    Args:
        key: a key.
        shape: the shape of the result.
        dtype: float64 or float32.

    Example:
        >>> from functrace import random
        >>> random.gumbel(random.key(42), (3,))
        array([ 0.16062721, -1.4348545 ,  0.58901365])
    """
    return neg(log(neg(log(open_unit(as_key(key), as_lengths(shape), float_dtype(dtype))))))


def laplace(key: Any, shape: Shape = (), dtype: Any = float) -> Any:
    """Numbers of the Laplace distribution with location 0 and scale 1.

    Args:
        key: a key.
        shape: the shape of the result.
        dtype: float64 or float32.

    Example:
        >>> from functrace import random
        >>> random.laplace(random.key(42), (3,))
        array([ 0.15846231,  3.50588682, -0.16050782])
    """
    drawn = open_unit(as_key(key), as_lengths(shape), float_dtype(dtype)) * 2 - 1
    return sign(drawn) * log1p(neg(abs_(drawn)))


def logistic(key: Any, shape: Shape = (), dtype: Any = float) -> Any:
    """Numbers of the logistic distribution with location 0 and scale 1.

    Args:
        key: a key.
        shape: the shape of the result.
        dtype: float64 or float32.

    Example:
        >>> from functrace import random
        >>> random.logistic(random.key(42), (3,))
        array([-0.29521526, -4.18391014,  0.29878068])
    """
    drawn = open_unit(as_key(key), as_lengths(shape), float_dtype(dtype))
    return log(drawn) - log1p(neg(drawn))


def cauchy(key: Any, shape: Shape = (), dtype: Any = float) -> Any:
    """Numbers of the Cauchy distribution with location 0 and scale 1.

    Args:
        key: a key.
        shape: the shape of the result.
        dtype: float64 or float32.

    Example:
        >>> from functrace import random
        >>> random.cauchy(random.key(42), (3,))
        array([ -0.23434604, -21.19070235,   0.23723777])
    """
    drawn = open_unit(as_key(key), as_lengths(shape), float_dtype(dtype))
    return tan((drawn - 0.5) * math.pi)


def multivariate_normal(
    key: Any, mean: Any, cov: Any, shape: Shape | None = None, dtype: Any = float, method: str = "cholesky"
) -> Any:
    """Normally distributed vectors: mean + L z, where L is the Cholesky factor of the covariance.

    Args:
        key: a key.
        mean: vectors in the last axis.
        cov: positive definite symmetric matrices in the last two axes.
        shape: the shape of the result without the last axis; by default that of the parameters.
        dtype: float64 or float32.
        method: only "cholesky", whose derivative exists for every positive definite matrix.

    Raises:
        ShapeError: mean and cov do not fit each other or the shape.
        ArgumentError: another method was asked for.

    Example:
        >>> from functrace import random
        >>> random.multivariate_normal(random.key(42), [0.0, 1.0], [[4.0, 1.0], [1.0, 2.0]])
        array([-0.36942349, -1.96276396])
    """
    if method != "cholesky":
        raise ArgumentError(
            "random.multivariate_normal factors the covariance by Cholesky's method",
            where=user_line(),
            got=f"method={method!r}",
            remedy="leave method= out; add a small multiple of the identity to a singular covariance",
        )
    key, dtype = as_key(key), float_dtype(dtype)
    mean, cov = as_array(mean), as_array(cov)
    if not mean.shape or len(cov.shape) < 2 or {*cov.shape[-2:]} != {mean.shape[-1]}:
        raise ShapeError(
            "random.multivariate_normal needs mean vectors of n elements and n by n covariances",
            where=user_line(),
            got=f"mean of shape {mean.shape}, cov of shape {cov.shape}",
            remedy="n is the last length of mean and the last two lengths of cov",
        )
    found = result_shape("multivariate_normal", shape, mean=mean.shape[:-1], cov=cov.shape[:-2])
    noise = normal(key, (*found, mean.shape[-1], 1), dtype)
    product = cholesky(cast(cov, dtype)) @ noise
    return cast(mean, dtype) + reshape(product, shape=product.shape[:-1])
