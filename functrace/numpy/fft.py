"""`numpy.fft` in traced form: transforms of any axes, lengths and norms. All are linear."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.errors import ArgumentError, DTypeError, ShapeError
from functrace.numpy._axes import as_index, normalize_axis
from functrace.numpy._dispatch import implements, reject
from functrace.numpy._promotion import as_array, cast
from functrace.primitives import fft as p
from functrace.primitives.elementwise import conj
from functrace.util import user_line

__all__ = [
    "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "ifft", "ifft2", "ifftn", "ifftshift", "ihfft", "irfft",
    "irfft2", "irfftn", "rfft", "rfft2", "rfftfreq", "rfftn",
]  # fmt: skip

fftfreq, rfftfreq = np.fft.fftfreq, np.fft.rfftfreq


def _norm(norm: Any) -> str:
    name = "backward" if norm is None else norm
    if not isinstance(name, str) or name not in p.REVERSED_NORM:
        raise ArgumentError(
            "a Fourier transform has no such norm",
            where=user_line(),
            got=repr(norm),
            remedy="choose 'backward' (the default), 'ortho' or 'forward'",
        )
    return name


def _length(n: Any, default: int) -> int:
    length = default if n is None else as_index(n, "the number of FFT data points")
    if length < 1:
        raise ArgumentError(
            "a Fourier transform needs at least one data point",
            where=user_line(),
            got=f"n={length}",
            remedy="give n as a positive integer, or an operand that is not empty along the axis",
        )
    return length


def _complex(x: Any) -> Any:
    return x if x.dtype.kind == "c" else cast(x, np.result_type(_float_type(x.dtype), np.complex64))


def _float_type(dtype: np.dtype) -> np.dtype:
    """The precision that NumPy transforms in: integers in double, half precision in single."""
    if dtype.kind in "biu":
        return np.dtype(np.float64)
    return np.dtype(np.float32) if dtype == np.float16 else dtype


def _real(x: Any, function: str) -> Any:
    if x.dtype.kind == "c":
        raise DTypeError(
            f"{function} takes real input",
            where=user_line(),
            got=str(x.dtype),
            remedy=f"use {function.replace('rfft', 'fft').replace('ihfft', 'ifft')}, or pass x.real",
        )
    return cast(x, _float_type(x.dtype))


# one axis: transform a value of any axes along a normalised one


def _fft(primitive: Any, x: Any, n: Any, axis: int, norm: str) -> Any:
    return primitive(p.resize(_complex(x), axis, _length(n, x.shape[axis])), axis=axis, norm=norm)


def _rfft(x: Any, n: Any, axis: int, norm: str, function: str) -> Any:
    x = _real(x, function)
    return p.rfft(p.resize(x, axis, _length(n, x.shape[axis])), axis=axis, norm=norm)


def _irfft(x: Any, n: Any, axis: int, norm: str) -> Any:
    length = _length(n, 2 * (x.shape[axis] - 1))
    return p.irfft(p.resize(_complex(x), axis, length // 2 + 1), length=length, axis=axis, norm=norm)


def _prepare(a: Any, axis: Any, norm: Any, function: str, out: Any) -> tuple[Any, int, str]:
    reject(function, out=out)
    x = as_array(a)
    return x, normalize_axis(axis, len(x.shape)), _norm(norm)


@implements(np.fft.fft)
def fft(a: Any, n: Any = None, axis: int = -1, norm: str | None = None, out: Any = None) -> Any:
    """The discrete Fourier transform along an axis."""
    x, axis, norm = _prepare(a, axis, norm, "fft.fft", out)
    return _fft(p.fft, x, n, axis, norm)


@implements(np.fft.ifft)
def ifft(a: Any, n: Any = None, axis: int = -1, norm: str | None = None, out: Any = None) -> Any:
    """The inverse of `fft`."""
    x, axis, norm = _prepare(a, axis, norm, "fft.ifft", out)
    return _fft(p.ifft, x, n, axis, norm)


@implements(np.fft.rfft)
def rfft(a: Any, n: Any = None, axis: int = -1, norm: str | None = None, out: Any = None) -> Any:
    """The non-negative frequencies of the transform of real input."""
    x, axis, norm = _prepare(a, axis, norm, "fft.rfft", out)
    return _rfft(x, n, axis, norm, "rfft")


@implements(np.fft.irfft)
def irfft(a: Any, n: Any = None, axis: int = -1, norm: str | None = None, out: Any = None) -> Any:
    """The inverse of `rfft`: a real result of length `n`, which is even unless given."""
    x, axis, norm = _prepare(a, axis, norm, "fft.irfft", out)
    return _irfft(x, n, axis, norm)


@implements(np.fft.hfft)
def hfft(a: Any, n: Any = None, axis: int = -1, norm: str | None = None, out: Any = None) -> Any:
    """The real spectrum of a signal with Hermitian symmetry, given by its first half."""
    x, axis, norm = _prepare(a, axis, norm, "fft.hfft", out)
    return _irfft(conj(_complex(x)), n, axis, p.REVERSED_NORM[norm])


@implements(np.fft.ihfft)
def ihfft(a: Any, n: Any = None, axis: int = -1, norm: str | None = None, out: Any = None) -> Any:
    """The inverse of `hfft`."""
    x, axis, norm = _prepare(a, axis, norm, "fft.ihfft", out)
    return conj(_rfft(x, n, axis, p.REVERSED_NORM[norm], "ihfft"))


# several axes


def _axes_and_lengths(x: Any, s: Any, axes: Any, half: bool = False) -> list[tuple[int, int]]:
    """Pairs of an axis and its length, without axes the last ones; `half` if the last axis holds half a spectrum."""
    ndim = len(x.shape)
    lengths = None if s is None else list(s)
    if axes is None:
        count = ndim if lengths is None else len(lengths)
        axes = range(-count, 0)
    found = [normalize_axis(axis, ndim) for axis in axes]
    if lengths is None:
        lengths = [x.shape[axis] for axis in found]
        if half and found:
            lengths[-1] = 2 * (lengths[-1] - 1)
    if len(lengths) != len(found):
        raise ShapeError(
            "a Fourier transform needs one length for each axis",
            where=user_line(),
            got=f"s={s!r}, axes={axes!r}",
            remedy="give s and axes of one length",
        )
    return [(axis, x.shape[axis] if n is None or n == -1 else n) for axis, n in zip(found, lengths, strict=True)]


def _need_axes(pairs: Sequence[Any], function: str) -> None:
    if not pairs:
        raise ShapeError(
            f"{function} needs at least one axis", where=user_line(), got="no axes", remedy="name an axis in axes="
        )


def _fftn(primitive: Any, x: Any, s: Any, axes: Any, norm: Any) -> Any:
    name = _norm(norm)
    pairs = _axes_and_lengths(x, s, axes)
    if not pairs:
        return _complex(x)
    return functools.reduce(lambda y, pair: _fft(primitive, y, pair[1], pair[0], name), reversed(pairs), x)


def _rfftn(x: Any, s: Any, axes: Any, norm: Any) -> Any:
    pairs = _axes_and_lengths(x, s, axes)
    _need_axes(pairs, "rfftn")
    axis, n = pairs[-1]
    x = _rfft(x, n, axis, _norm(norm), "rfftn")
    return functools.reduce(lambda y, pair: _fft(p.fft, y, pair[1], pair[0], _norm(norm)), reversed(pairs[:-1]), x)


def _irfftn(x: Any, s: Any, axes: Any, norm: Any) -> Any:
    pairs = _axes_and_lengths(x, s, axes, half=True)
    _need_axes(pairs, "irfftn")
    x = functools.reduce(lambda y, pair: _fft(p.ifft, y, pair[1], pair[0], _norm(norm)), pairs[:-1], x)
    axis, n = pairs[-1]
    return _irfft(x, n, axis, _norm(norm))


def _several(numpy_function: Callable[..., Any], transform: Callable[..., Any], text: str) -> Callable[..., Any]:
    """The public transform of several axes; those ending in 2 take the last two unless told otherwise."""
    name = numpy_function.__name__
    default = (-2, -1) if name.endswith("2") else None

    def traced(a: Any, s: Any = None, axes: Any = default, norm: str | None = None, out: Any = None) -> Any:
        reject(f"fft.{name}", out=out)
        return transform(as_array(a), s, axes, norm)

    traced.__name__ = traced.__qualname__ = name
    traced.__doc__ = text
    return implements(numpy_function)(traced)


_forward, _inverse = functools.partial(_fftn, p.fft), functools.partial(_fftn, p.ifft)
fftn = _several(np.fft.fftn, _forward, "The transform along several axes, all by default.")
ifftn = _several(np.fft.ifftn, _inverse, "The inverse of `fftn`.")
rfftn = _several(np.fft.rfftn, _rfftn, "`rfft` along the last axis, then `fft` along the others.")
irfftn = _several(np.fft.irfftn, _irfftn, "The inverse of `rfftn`.")
fft2 = _several(np.fft.fft2, _forward, "The transform along two axes.")
ifft2 = _several(np.fft.ifft2, _inverse, "The inverse of `fft2`.")
rfft2 = _several(np.fft.rfft2, _rfftn, "`rfft` along the last axis, then `fft` along the other.")
irfft2 = _several(np.fft.irfft2, _irfftn, "The inverse of `rfft2`.")


def _shift(x: Any, axes: Any, sign: int) -> Any:
    x = as_array(x)
    ndim = len(x.shape)
    axes = range(ndim) if axes is None else axes if isinstance(axes, (tuple, list)) else (axes,)
    found = tuple(normalize_axis(axis, ndim) for axis in axes)
    halves = tuple(x.shape[a] // 2 if sign > 0 else -(x.shape[a] // 2) for a in found)
    return np.roll(x, halves, found)


@implements(np.fft.fftshift)
def fftshift(x: Any, axes: Any = None) -> Any:
    """The zero frequency moved to the centre."""
    return _shift(x, axes, 1)


@implements(np.fft.ifftshift)
def ifftshift(x: Any, axes: Any = None) -> Any:
    """The inverse of `fftshift`."""
    return _shift(x, axes, -1)
