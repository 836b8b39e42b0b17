"""`numpy.einsum`: its notation read once, then pairwise contractions in a good order."""

from __future__ import annotations

import functools
import string
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from functrace.core.trace import Tracer
from functrace.core.types import ShapedArray
from functrace.errors import ArgumentError, ShapeError
from functrace.numpy._dispatch import implements, reject
from functrace.numpy._labels import Labels, contract, label_sizes, operands, sum_axes, without_stretched
from functrace.numpy._promotion import cast, checked_dtype
from functrace.numpy._structural import view_of
from functrace.primitives.contraction import diagonal, free_axes, permute
from functrace.util import user_line

__all__ = ["einsum", "einsum_path"]


def _notation_error(what: str, got: Any) -> ArgumentError:
    return ArgumentError(
        f"einsum: {what}",
        where=user_line(),
        got=repr(got),
        remedy="write one letter per axis, operands separated by commas, as in 'ij,jk->ik'; '...' for further axes",
    )


Term = tuple[Any, ...]


def _term(text: str, whole: str) -> Term:
    """The labels of one operand; Ellipsis for dots."""
    before, dots, after = text.partition("...")
    letters = before + after
    if not all(c in string.ascii_letters for c in letters):
        raise _notation_error("a subscript is not a letter", whole)
    return (*map(ord, before), *((Ellipsis,) if dots else ()), *map(ord, after))


@functools.lru_cache(maxsize=1024)
def _parse(subscripts: str) -> tuple[tuple[Term, ...], Term | None]:
    """The labels of each operand, and those of the output where given."""
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    terms = tuple(_term(t, subscripts) for t in inputs.split(","))
    return terms, _term(output, subscripts) if arrow else None


def _split_operands(arguments: tuple[Any, ...]) -> tuple[Any, tuple[Term, ...], Term | None]:
    """Arrays and labels from either calling convention."""
    if isinstance(arguments[0], str):
        return arguments[1:], *_parse(arguments[0])
    pairs = len(arguments) // 2
    terms = tuple(tuple(t) for t in arguments[1 : 2 * pairs : 2])
    return arguments[: 2 * pairs : 2], terms, tuple(arguments[-1]) if len(arguments) % 2 else None


def _resolve(terms: tuple[Term, ...], output: Term | None, ndims: tuple[int, ...]) -> tuple[tuple[Labels, ...], Labels]:
    """Labels of every axis: those that dots stand for are negative, and the output's are made explicit."""
    if len(terms) != len(ndims):
        raise _notation_error(f"{len(terms)} terms for {len(ndims)} operands", _spell(terms))
    widths = []
    for term, ndim in zip(terms, ndims, strict=True):
        hidden = ndim - (len(term) - term.count(Ellipsis))
        if hidden < 0 or (hidden and Ellipsis not in term):
            raise _notation_error(f"an operand of {ndim} axes has {len(term)} subscripts", _spell(terms))
        widths.append(hidden)

    def fill(term: Term, width: int) -> Labels:
        if Ellipsis not in term:
            return term
        at = term.index(Ellipsis)
        return (*term[:at], *range(-width, 0), *term[at + 1 :])

    labels = tuple(fill(term, width) for term, width in zip(terms, widths, strict=True))
    everything = [name for names in labels for name in names]
    dots = tuple(range(-max(widths), 0))
    if output is None:
        return labels, (*dots, *sorted(n for n in set(everything) if n >= 0 and everything.count(n) == 1))
    out = fill(output, max(widths))
    if len(set(out)) != len(out) or not set(out) <= set(everything):
        raise _notation_error("an output subscript is repeated or appears in no operand", _spell((output,)))
    if dots and Ellipsis not in output:
        raise _notation_error("the output needs '...' too", _spell((output,)))
    return labels, out


def _spell(terms: tuple[Term, ...]) -> str:
    return ",".join("".join("..." if n is Ellipsis else chr(n) if n > 64 else f"[{n}]" for n in term) for term in terms)


def _take_diagonals(value: Any, labels: Labels) -> tuple[Any, Labels]:
    """Repeated labels of one operand: their diagonal."""
    for name in dict.fromkeys(labels):
        while labels.count(name) > 1:
            first = labels.index(name)
            second = labels.index(name, first + 1)
            if value.shape[first] != value.shape[second]:
                raise ShapeError(
                    "einsum: a repeated subscript needs axes of one length",
                    where=user_line(),
                    got=f"{value.shape[first]} and {value.shape[second]}",
                    remedy="use two different subscripts, or slice the operand first",
                )
            value = diagonal(value, 0, first, second)
            labels = (*(labels[i] for i in free_axes(len(labels), (first, second))), name)
    return value, labels


def _hashable(path: Any) -> Any:
    return tuple(map(_hashable, path)) if isinstance(path, (list, tuple)) else path


def _contraction_path(labels: Sequence[Labels], out: Labels, sizes: dict[int, int], optimize: Any) -> Any:
    """Which operands to contract, step by step, as NumPy's `einsum_path` finds it; greedily unless told otherwise."""
    letters = dict(zip(sizes, string.ascii_letters, strict=False))
    if len(sizes) > len(letters):
        raise _notation_error(f"more than {len(string.ascii_letters)} different subscripts", len(sizes))
    terms = ["".join(letters[n] for n in names) for names in labels]
    subscripts = f"{','.join(terms)}->{''.join(letters[n] for n in out)}"
    stand_ins = [np.broadcast_to(0.0, [sizes[n] for n in names]) for names in labels]
    if isinstance(optimize, tuple) and optimize[:1] == ("einsum_path",):
        optimize = list(optimize)  # NumPy knows a path by its being a list
    if optimize in (True, False, None):
        optimize = "greedy"
    return np.einsum_path(subscripts, *stand_ins, optimize=optimize)[0][1:]


class _Plan(NamedTuple):
    """Labels of the operands and the output, lengths, steps, and whether the operands can be used as they are."""

    labels: tuple[Labels, ...]
    out: Labels
    sizes: dict[int, int]
    path: Any
    plain: bool


@functools.lru_cache(maxsize=1024)
def _plan(terms: tuple[Term, ...], output: Term | None, shapes: tuple[tuple[int, ...], ...], optimize: Any) -> _Plan:
    labels, out = _resolve(terms, output, tuple(map(len, shapes)))
    sizes = label_sizes("einsum", [ShapedArray(s, np.dtype(float)) for s in shapes], labels)
    plain = all(
        len(set(names)) == len(names) and all(sizes[n] == length for n, length in zip(names, shape, strict=True))
        for names, shape in zip(labels, shapes, strict=True)
    )
    path: Any = [tuple(range(len(labels)))]
    if len(labels) > 2:
        kept = [
            tuple(n for n, k in zip(ns, s, strict=True) if sizes[n] == k) for ns, s in zip(labels, shapes, strict=True)
        ]
        path = _contraction_path([tuple(dict.fromkeys(ns)) for ns in kept], out, sizes, optimize)
    return _Plan(labels, out, sizes, path, plain)


def _prepare(value: Any, labels: Labels, plan: _Plan) -> tuple[Any, Labels]:
    return (value, labels) if plan.plain else without_stretched(*_take_diagonals(value, labels), plan.sizes)


def _finish(value: Any, labels: Labels, out: Labels) -> Any:
    """Sum what the output lacks, and put its axes in order."""
    if labels == out:
        return value
    value = sum_axes(value, tuple(i for i, n in enumerate(labels) if n not in out))
    kept = [n for n in labels if n in out]
    return permute(value, tuple(map(kept.index, out)))


def _einsum(arguments: tuple[Any, ...], optimize: Any, dtype: Any) -> Any:
    arrays, terms, output = _split_operands(arguments)
    values = operands(*arrays)
    if dtype is not None:
        values = [cast(v, checked_dtype(dtype)) for v in values]
    plan = _plan(terms, output, tuple([v.shape for v in values]), _hashable(optimize))
    if len(values) == 1:
        return _rearrange(arrays[0], values[0], plan)
    out, pairs = plan.out, [_prepare(v, names, plan) for v, names in zip(values, plan.labels, strict=True)]
    for step in plan.path:
        chosen = [pairs[i] for i in step]
        pairs = [pair for i, pair in enumerate(pairs) if i not in step]
        while len(chosen) > 1:
            (x, x_labels), (y, y_labels) = chosen[:2]
            rest = chosen[2:] + pairs
            kept = tuple(dict.fromkeys([*out, *(n for _, names in rest for n in names)])) if rest else out
            chosen[:2] = [contract(x, x_labels, y, y_labels, kept)]
        pairs.append(chosen[0])
    return _finish(*pairs[0], out)


def _rearrange(array: Any, value: Any, plan: _Plan) -> Any:
    """One operand: without sums, NumPy gives a view of it."""

    def forward(x: Any) -> Any:
        return _finish(*_prepare(x, plan.labels[0], plan), plan.out)

    result = forward(value)
    return view_of(array, result, forward) if set(plan.labels[0]) == set(plan.out) else result


@implements(np.einsum)
def einsum(*operands: Any, out: Any = None, optimize: Any = False, **kwargs: Any) -> Any:
    """Sums of products in Einstein's notation; three or more operands are contracted pairwise."""
    dtype = kwargs.pop("dtype", None)
    kwargs.pop("casting", None)
    order = kwargs.pop("order", "K")
    reject("einsum", out=out, order=None if order in "KA" else order, **kwargs)
    return _einsum(operands, optimize, dtype)


@implements(np.einsum_path)
def einsum_path(*operands: Any, optimize: Any = "greedy", einsum_call: bool = False) -> Any:
    """The order of contraction that NumPy finds for `einsum`, from the operands' shapes alone."""
    stand_ins = [np.broadcast_to(0.0, v.shape) if isinstance(v, Tracer) else v for v in operands]
    return np.einsum_path(*stand_ins, optimize=optimize, einsum_call=einsum_call)  # type: ignore[arg-type]
