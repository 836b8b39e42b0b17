"""Functions of neural networks, under the names of `jax.nn`.

They take and give plain NumPy arrays (or traced ones), keep float32, and turn integers into float64. All are stable:
no overflow for large arguments, no loss of accuracy in the tails.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from functrace.errors import ShapeError
from functrace.numpy._axes import as_index, normalize_axis, reduction_axes
from functrace.numpy._promotion import as_array, broadcast_operands, broadcast_to, cast, checked_dtype, reals
from functrace.primitives import elementwise as p
from functrace.primitives import reduction, special
from functrace.primitives.families import reduce_sum, reshape
from functrace.primitives.reduction import spread
from functrace.util import user_line

__all__ = [
    "celu", "elu", "gelu", "glu", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "leaky_relu", "log_sigmoid",
    "log_softmax", "logsumexp", "mish", "one_hot", "relu", "relu6", "selu", "sigmoid", "silu", "soft_sign", "softmax",
    "softplus", "squareplus", "standardize", "swish",
]  # fmt: skip

_FLOAT64 = np.dtype(np.float64)
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


def _floats(x: Any) -> Any:
    """The array, integers and booleans as float64."""
    value = as_array(x)
    return cast(value, _FLOAT64) if value.dtype.kind in "biu" else value


def _reals(function: str, x: Any) -> Any:
    """`_floats` of an array that is not complex.

    Raises:
        DTypeError: it is.
    """
    return reals(f"functrace.nn.{function}", _floats(x))


def _masked(x: Any, where: Any) -> Any:
    """The array with -inf, which has no share in a sum of exponentials, where the mask does not hold."""
    if where is None:
        return x
    mask, x = broadcast_operands([as_array(where), x])
    return p.select(mask, x, x.dtype.type(-np.inf))


# rectifiers


def relu(x: Any) -> Any:
    """max(x, 0), with derivative 0 at 0.

    Args:
        x: array of any real dtype, which is kept.

    Returns:
        An array like x.

    Example:
        >>> import numpy as np
        >>> import functrace
        >>> relu(np.array([-1.0, 0.0, 2.0]))
        array([0., 0., 2.])
        >>> functrace.grad(relu)(0.0)
        np.float64(0.0)
    """
    value = as_array(x)
    zero = p.zero_of(value)
    return p.select(p.less_equal(value, zero), zero, value)


def relu6(x: Any) -> Any:
    """x limited to [0, 6], with derivative 0 at both ends.

    Example:
        >>> relu6(7.0)
        np.float64(6.0)
    """
    value = as_array(x)
    six = value.dtype.type(6)
    return p.select(p.greater_equal(value, six), six, relu(value))


def leaky_relu(x: Any, negative_slope: Any = 0.01) -> Any:
    """x where it is not negative, else `negative_slope * x`; the derivative at 0 is 1.

    Example:
        >>> leaky_relu(-2.0)
        np.float64(-0.02)
    """
    value = _floats(x)
    return p.select(p.less(value, p.zero_of(value)), _like(negative_slope * value, value), value)


def elu(x: Any, alpha: Any = 1.0) -> Any:
    """x where it is positive, else `alpha * (exp(x) - 1)`.

    Example:
        >>> elu(0.5)
        np.float64(0.5)
    """
    value = _floats(x)
    positive = p.greater(value, p.zero_of(value))
    below = p.expm1(p.select(positive, p.zero_of(value), value))
    return p.select(positive, value, _like(alpha * below, value))


def selu(x: Any) -> Any:
    """The self-normalizing `scale * elu(x, alpha)` of Klambauer et al. (2017).

    Example:
        >>> round(float(selu(1.0)), 4)
        1.0507
    """
    return _SELU_SCALE * elu(x, _SELU_ALPHA)


def celu(x: Any, alpha: Any = 1.0) -> Any:
    """x where it is positive, else `alpha * (exp(x / alpha) - 1)`.

    Example:
        >>> celu(0.5, 2.0)
        np.float64(0.5)
    """
    value = _floats(x)
    positive = p.greater(value, p.zero_of(value))
    below = np.expm1(p.select(positive, p.zero_of(value), value) / alpha)
    return p.select(positive, value, _like(alpha * below, value))


def _like(value: Any, model: Any) -> Any:
    """A product with a parameter in the shape and dtype of the array it belongs to."""
    return broadcast_to(cast(as_array(value), model.dtype), model.shape)


# sigmoids


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)).

    Example:
        >>> sigmoid(0.0)
        np.float64(0.5)
    """
    return special.expit(_reals("sigmoid", x))


def log_sigmoid(x: Any) -> Any:
    """log(sigmoid(x)), accurate in both tails.

    Example:
        >>> log_sigmoid(-800.0)
        np.float64(-800.0)
    """
    return special.log_expit(_reals("log_sigmoid", x))


def softplus(x: Any) -> Any:
    """log(1 + exp(x)).

    Example:
        >>> softplus(800.0)
        np.float64(800.0)
    """
    value = _reals("softplus", x)
    return p.neg(special.log_expit(p.neg(value)))


def silu(x: Any) -> Any:
    """x * sigmoid(x), also known as swish.

    Example:
        >>> silu(0.0)
        np.float64(0.0)
    """
    value = _reals("silu", x)
    return p.mul(value, special.expit(value))


swish = silu


def mish(x: Any) -> Any:
    """x * tanh(softplus(x)).

    Example:
        >>> mish(0.0)
        np.float64(0.0)
    """
    value = _reals("mish", x)
    return p.mul(value, p.tanh(softplus(value)))


def soft_sign(x: Any) -> Any:
    """x / (1 + |x|).

    Example:
        >>> soft_sign(1.0)
        np.float64(0.5)
    """
    value = _floats(x)
    return value / (1 + abs(value))


def squareplus(x: Any, b: Any = 4) -> Any:
    """(x + sqrt(x**2 + b)) / 2, a smooth rectifier without exponentials.

    Example:
        >>> squareplus(0.0)
        np.float64(1.0)
    """
    value = _floats(x)
    return (value + np.sqrt(p.square(value) + b)) / 2


def hard_tanh(x: Any) -> Any:
    """x limited to [-1, 1], with derivative 0 at both ends.

    Example:
        >>> hard_tanh(3.0)
        np.float64(1.0)
    """
    value = as_array(x)
    value = _floats(value) if value.dtype.kind == "b" else value
    one = value.dtype.type(1)
    low = p.select(p.less_equal(value, -one), -one, value)
    return p.select(p.greater_equal(value, one), one, low)


def hard_sigmoid(x: Any) -> Any:
    """`relu6(x + 3) / 6`.

    Example:
        >>> hard_sigmoid(0.0)
        np.float64(0.5)
    """
    return relu6(_floats(x) + 3) / 6


def hard_silu(x: Any) -> Any:
    """x * hard_sigmoid(x), also known as hard swish.

    Example:
        >>> hard_silu(3.0)
        np.float64(3.0)
    """
    value = _floats(x)
    return p.mul(value, hard_sigmoid(value))


hard_swish = hard_silu


def gelu(x: Any, approximate: bool = True) -> Any:
    """x times the normal distribution function.

    Args:
        x: array.
        approximate: whether to use the approximation by tanh (as `jax.nn` does by default).

    Returns:
        An array like x.

    Example:
        >>> gelu(0.0)
        np.float64(0.0)
    """
    value = _floats(x)
    if not approximate:
        return p.mul(value, special.ndtr(value))
    inner = math.sqrt(2 / math.pi) * (value + 0.044715 * (value * value * value))
    return value * (0.5 * (1.0 + p.tanh(inner)))


def glu(x: Any, axis: int = -1) -> Any:
    """The first half of the array along an axis times the sigmoid of the second.

    Raises:
        ShapeError: the length of the axis is odd.

    Example:
        >>> import numpy as np
        >>> glu(np.array([4.0, 0.0]))
        array([2.])
    """
    value = _reals("glu", x)
    place = normalize_axis(axis, len(value.shape))
    if value.shape[place] % 2:
        raise ShapeError(
            "functrace.nn.glu splits an axis in two halves",
            where=user_line(),
            got=f"length {value.shape[place]}",
            remedy="choose an axis of even length",
        )
    first, second = np.split(value, 2, place)
    return p.mul(first, special.expit(second))


# sums of exponentials


def _reduced(x: Any, axis: Any) -> tuple[int, ...]:
    return reduction_axes(axis, len(x.shape))


def softmax(x: Any, axis: Any = -1, where: Any = None) -> Any:
    """exp(x) / sum(exp(x)) along axes.

    Args:
        x: array.
        axis: an axis, several, or None for all.
        where: which elements count; the others get 0.

    Returns:
        An array like x. Where nothing but -inf is summed it is NaN, but 0 where `where` leaves nothing to sum.

    Example:
        >>> import numpy as np
        >>> softmax(np.array([0.0, 0.0, -np.inf]))
        array([0.5, 0.5, 0. ])
    """
    value = _masked(_floats(x), where)
    return reduction.softmax(value, axes=_reduced(value, axis), undefined=where is None)


def log_softmax(x: Any, axis: Any = -1, where: Any = None) -> Any:
    """log(softmax(x)), accurate where softmax underflows.

    Args:
        x: array.
        axis: an axis, several, or None for all.
        where: which elements count; the others get -inf.

    Returns:
        An array like x.

    Example:
        >>> import numpy as np
        >>> log_softmax(np.array([0.0, 1000.0]))
        array([-1000.,     0.])
    """
    value = _masked(_floats(x), where)
    axes = _reduced(value, axis)
    shifted = p.sub(value, spread(_finite_peak(value, axes), value.shape, axes))
    return _masked(p.sub(shifted, spread(reduction.logsumexp(shifted, axes=axes), value.shape, axes)), where)


def _finite_peak(x: Any, axes: tuple[int, ...]) -> Any:
    """The maximum along axes, without derivative; 0 where it is infinite. Of complex numbers, of the real parts."""
    size = p.real(x) if x.dtype.kind == "c" else x
    peak = p.stop_gradient(reduction.reduce_max(size, axes=axes))
    return cast(p.select(p.isfinite(peak), peak, p.zero_of(peak)), x.dtype)


def logsumexp(
    a: Any, axis: Any = None, b: Any = None, keepdims: bool = False, return_sign: bool = False, where: Any = None
) -> Any:
    """log(sum(b * exp(a))), stable; elements -inf and elements of weight 0 do not count.

    Args:
        a: array.
        axis: an axis, several, or None for all.
        b: weights, of any sign.
        keepdims: whether the reduced axes stay, with length 1.
        return_sign: whether to return log(|sum|) and the sign of the sum.
        where: which elements count.

    Returns:
        The reduced array; with `return_sign`, and the signs.

    Example:
        >>> import numpy as np
        >>> logsumexp(np.array([1000.0, 1000.0])) == 1000 + np.log(2)
        np.True_
    """
    value = _masked(_floats(a), where)
    if b is None and return_sign and value.dtype.kind == "c":
        b = 1.0
    if b is not None:
        shape = np.broadcast_shapes(value.shape, np.shape(b))
        value, weights = broadcast_to(value, shape), broadcast_to(_floats(b), shape)
    axes = _reduced(value, axis)
    if b is not None:
        out, sign = _weighted(value, weights, axes, return_sign)
    else:
        out = reduction.logsumexp(value, axes=axes)
        nothing = p.equal(out, out.dtype.type(-np.inf))
        sign = p.select(nothing, p.zero_of(out), p.select(p.isnan(out), out, out.dtype.type(1)))
    if keepdims:
        kept = tuple(1 if i in axes else n for i, n in enumerate(value.shape))
        out, sign = reshape(out, shape=kept), reshape(sign, shape=kept)
    return (out, sign) if return_sign else out


def _weighted(x: Any, b: Any, axes: tuple[int, ...], signed: bool) -> tuple[Any, Any]:
    """log(|sum(b exp(x))|), NaN where the sum is negative unless `signed`, and the sum's sign."""
    dtype = np.result_type(x.dtype, b.dtype)
    x, b = cast(x, dtype), cast(b, dtype)
    nothing, weightless = dtype.type(-np.inf), p.equal(b, p.zero_of(b))
    peak = _finite_peak(p.select(weightless, nothing, x), axes)
    # Where the exponential is finite a weight of 0 has a derivative.
    shifted = p.sub(x, spread(peak, x.shape, axes))
    height = p.real(shifted) if dtype.kind == "c" else shifted
    finite = p.less(height, height.dtype.type(np.log(np.finfo(dtype).max)))
    dead = p.logical_and(weightless, p.logical_not(finite))
    total = reduce_sum(p.mul(b, p.exp(p.select(dead, nothing, shifted))), axes=axes)
    size = p.abs_(total) if signed else total
    return p.add(p.log(size), p.real(peak) if size.dtype != peak.dtype else peak), np.sign(total)


# others


def one_hot(x: Any, num_classes: int, *, dtype: Any = float, axis: int = -1) -> Any:
    """Rows of zeros with a one at the given position.

    Args:
        x: integer array of positions; a position outside the classes gives zeros.
        num_classes: the length of the new axis.
        dtype: of the result.
        axis: where the new axis goes.

    Returns:
        An array with one axis more than x.

    Example:
        >>> import numpy as np
        >>> one_hot(np.array([0, 2]), 3)
        array([[1., 0., 0.],
               [0., 0., 1.]])
    """
    value = as_array(x)
    if value.dtype.kind in "biu" and value.dtype.itemsize < 8:  # which may not hold all classes
        value = cast(value, np.dtype(np.int64))
    count, place = as_index(num_classes, "num_classes"), normalize_axis(axis, len(value.shape) + 1)
    spot = reshape(value, shape=(*value.shape[:place], 1, *value.shape[place:]))
    classes = np.arange(count, dtype=value.dtype).reshape((-1,) + (1,) * (len(value.shape) - place))
    return cast(p.equal(*broadcast_operands([spot, classes])), checked_dtype(dtype))


def standardize(x: Any, axis: Any = -1, variance: Any = None, epsilon: Any = 1e-5) -> Any:
    """(x - mean) / sqrt(variance + epsilon) along axes.

    Args:
        x: array.
        axis: an axis, several, or None for all.
        variance: the variance to divide by; by default that of x.
        epsilon: added to the variance, so that the derivative exists where x is constant.

    Returns:
        An array like x.

    Example:
        >>> import numpy as np
        >>> standardize(np.array([1.0, 3.0]), epsilon=0)
        array([-1.,  1.])
    """
    value = _floats(x)
    axes = _reduced(value, axis)
    distance = value - np.mean(value, axis=axes, keepdims=True)
    spread_ = np.mean(distance * distance, axis=axes, keepdims=True) if variance is None else as_array(variance)
    return distance / np.sqrt(spread_ + epsilon)
