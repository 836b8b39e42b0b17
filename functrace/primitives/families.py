"""The constructor of elementwise primitives, and the primitives that derived rules are written in.

`elementwise` derives what the mathematics of the family implies, so that a primitive is one declaration: same shape in
and out; give the partial derivatives. `linear` and `bilinear`, in files of their own, do so for their families.

Operands of an elementwise primitive have one shape and dtype; a plain number among them stands for its broadcast.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from functrace.core.ir import Atom, Literal, Var
from functrace.core.primitive import Primitive, is_linear
from functrace.core.series import coefficient_of, product_coefficient
from functrace.core.structure import Along, Linked, Mask, Pointwise, Structure, known
from functrace.core.trace import Tracer
from functrace.core.types import ShapedArray, aval_of
from functrace.core.work import Layout, View, Work, kept_order, viewing
from functrace.errors import DTypeError, ShapeError
from functrace.primitives import _codes, _fast, _moves
from functrace.primitives._ufuncs import by_ufunc
from functrace.primitives.linear import linear
from functrace.util import user_line

__all__ = [
    "add",
    "broadcast",
    "common_shape",
    "elementwise",
    "is_number",
    "mul",
    "neg",
    "nonzero",
    "over_axes",
    "reduce_sum",
    "reduced_aval",
    "reduction_cost",
    "reshape",
    "same_dtype",
    "unwrap",
    "weighted_sum",
]

#: A partial derivative: a function of the operands and the output, a constant 1 or -1, or None for zero everywhere.
Partial = Callable[..., Any] | int | None


def unwrap(value: Any) -> Any:
    """A zero-dimensional array as the NumPy scalar it holds."""
    return value if value.ndim else value[()]


def same_dtype(name: str, *dtypes: np.dtype) -> np.dtype:
    """The one dtype of all operands."""
    first = dtypes[0]
    for dtype in dtypes:
        if dtype != first:
            raise DTypeError(
                f"{name} needs operands of one dtype",
                where=user_line(),
                got=", ".join(d.name for d in dtypes),
                remedy="convert them first; the functions of functrace.numpy promote as NumPy does",
            )
    return first


def common_shape(name: str, avals: Sequence[ShapedArray]) -> tuple[int, ...]:
    """The one shape of all operands but plain numbers."""
    shape: tuple[int, ...] = ()
    for aval in avals:
        if aval.shape != shape and aval.shape:
            if shape:
                raise ShapeError(
                    f"{name} needs operands of one shape",
                    where=user_line(),
                    got=", ".join(map(str, avals)),
                    remedy="broadcast them first; the functions of functrace.numpy do as NumPy does",
                )
            shape = aval.shape
    return shape


def elementwise(
    name: str,
    impl: Callable[..., Any],
    derivative: Partial | tuple[Partial, ...] = None,
    *,
    jvp: Callable[..., Any] | None = None,
    transpose: Callable[..., Any] | None = None,
    result: Callable[..., np.dtype] = same_dtype,
    masks: str = "elementwise",
    flops: int | tuple[int, int] = 1,
    curvature: Sequence[tuple[int, int]] | None = None,
    **rules: Any,
) -> Primitive:
    """A primitive that works element by element.

    Args:
        name: the primitive's name.
        impl: the NumPy ufunc or operator.
        derivative: the partial derivatives, one per operand (see `Partial`), as functions of operands and output.
            When neither this nor `jvp` is given the primitive is nondifferentiable.
        jvp: instead of `derivative`, where the derivative is not a product (complex parts, selections).
        transpose: for those that are linear in some operand.
        result: the output dtype from the name and the operand dtypes.
        flops: arithmetic operations per element, or a pair: of real numbers, of complex ones (else four times as many).
        curvature: the pairs of operands that have a second derivative; by default those with a partial derivative that
            is a function, among themselves.
        rules: further rules of the record.
    """
    partials = derivative if isinstance(derivative, tuple) else (derivative,)

    def abstract_eval(*avals: ShapedArray, **params: Any) -> ShapedArray:
        return ShapedArray(common_shape(name, avals), result(name, *[a.dtype for a in avals], **params))

    primitive = Primitive(
        name,
        impl,
        abstract_eval,
        family="elementwise",
        nondifferentiable=derivative is None and jvp is None,
        masks=masks,
        keeps_type=result is same_dtype,
        **rules,
    )
    if transpose is not None:
        primitive.define(transpose=transpose)
    if isinstance(impl, np.ufunc):
        primitive.lower = (*_rules(primitive.lower), by_ufunc(f"numpy.{impl.__name__}"))
    if primitive.batch is None:
        primitive.define(batch=_batch_elementwise(primitive))
    if primitive.cost is None:
        primitive.define(cost=_cost_elementwise(flops))
    if primitive.sparsity is None and not primitive.nondifferentiable:
        primitive.define(sparsity=_sparsity_elementwise(None if jvp is not None else partials, curvature))
    if primitive.taylor is None and all(partial in (1, -1) for partial in partials):
        primitive.define(taylor=_taylor_of_sum(partials))
    if jvp is not None:
        primitive.define(jvp=jvp)
    elif derivative is not None:
        primitive.define(jvp=_jvp_from_partials(primitive, partials))
        if primitive.linearize is None:
            primitive.define(linearize=_linearize_from_partials(primitive, partials))
    return primitive


def _rules(rule: Any) -> tuple[Any, ...]:
    """A `lower` rule as a tuple."""
    return rule if isinstance(rule, tuple) else () if rule is None else (rule,)


def _jvp_from_partials(primitive: Primitive, partials: tuple[Partial, ...]) -> Callable[..., Any]:
    def jvp(primals: list[Any], tangents: list[Any], **params: Any) -> tuple[list[Any], list[Any]]:
        out = primitive.bind(*primals, **params)
        total = None
        for partial, tangent in zip(partials, tangents, strict=True):
            if tangent is None or partial is None:
                continue
            if callable(partial):
                term = mul(partial(*primals, out, **params), tangent)
            else:
                term = tangent if partial == 1 else neg(tangent)
            total = term if total is None else add(total, term)
        return [out], [total]

    return jvp


def _linearize_from_partials(primitive: Primitive, partials: tuple[Partial, ...]) -> Callable[..., Any]:
    if len(partials) == 1 and callable(only := partials[0]):
        return _linearize_unary(primitive, only)
    functions = [partial for partial in partials if callable(partial)]

    def linearize(
        record: Callable[..., Var], primals: list[Any], tangents: list[Var | None], **params: Any
    ) -> tuple[list[Any], list[Var | None]]:
        out = _evaluate(primitive, primals, params)
        if None not in tangents and len(functions) == len(partials) == 2:
            weights = [Literal(function(*primals, out, **params)) for function in functions]
            return [out], [record(weighted_sum, [*weights, *tangents], aval_of(out), {})]
        total = aval = None
        for partial, tangent in zip(partials, tangents, strict=True):
            if tangent is None or partial is None:
                continue
            if aval is None:
                aval = aval_of(out)
            if callable(partial):
                term = record(mul, [Literal(partial(*primals, out, **params)), tangent], aval, {})
            else:
                term = tangent if partial == 1 else record(neg, [tangent], aval, {})
            total = term if total is None else record(add, [total, term], aval, {})
        return [out], [total]

    return linearize


def _cost_elementwise(flops: int | tuple[int, int]) -> Callable[..., Work]:
    real, complex_ = flops if isinstance(flops, tuple) else (flops, 4 * flops)

    def cost(operands: Sequence[Layout], outs: Sequence[ShapedArray], **params: Any) -> Work:
        has_complex = any(o.dtype.kind == "c" for o in operands) or outs[0].dtype.kind == "c"
        each = complex_ if has_complex else real
        return Work(each * outs[0].size, results=[kept_order(outs[0].shape, operands)])

    return cost


def _sparsity_elementwise(
    partials: tuple[Partial, ...] | None, curvature: Sequence[tuple[int, int]] | None
) -> Callable[..., list[Structure]]:
    """Structure from the partial derivatives; a primitive without (None) depends on all of its operands."""
    if curvature is None:
        curved = range(3) if partials is None else [i for i, partial in enumerate(partials) if callable(partial)]
        curvature = [(i, j) for i in curved for j in curved if i <= j]

    def sparsity(operands: list[Any], outs: list[ShapedArray], **params: Any) -> list[Structure]:
        depends = [partials is None or partials[i] is not None for i in range(len(operands))]
        return [Pointwise(depends, [(i, j, True) for i, j in curvature if j < len(operands)])]

    return sparsity


def nonzero(value: Any) -> Mask:
    """Where a coefficient may be other than 0: everywhere unless it is known."""
    if known(value) is None:
        return True
    if is_number(value):
        return bool(value != 0)
    mask = np.not_equal(value, 0)
    return True if mask.all() else mask


def _sparsity_product(operands: list[Any], outs: list[ShapedArray]) -> list[Structure]:
    x, y = operands
    return [Pointwise([nonzero(y), nonzero(x)], [(0, 1, True)])]


def _taylor_of_sum(signs: tuple[Partial, ...]) -> Callable[..., Any]:
    def taylor(order: int, operands: list[Any], out: list[Any]) -> Any:
        total = None
        for sign, operand in zip(signs, operands, strict=True):
            term = coefficient_of(operand, order)
            if term is not None:
                term = term if sign == 1 else -term
                total = term if total is None else total + term
        return total

    return taylor


def _evaluate(primitive: Primitive, values: list[Any], params: dict[str, Any]) -> Any:
    """Apply a primitive; to plain values without asking the current trace, because gradients spend their time here."""
    for value in values:
        if isinstance(value, Tracer):
            return primitive.bind(*values, **params)
    return primitive.impl(*values, **params)


def _linearize_unary(primitive: Primitive, partial: Callable[..., Any]) -> Callable[..., Any]:
    def linearize(
        record: Callable[..., Var], primals: list[Any], tangents: list[Var], **params: Any
    ) -> tuple[list[Any], list[Var]]:
        x = primals[0]
        out = primitive.bind(x, **params) if isinstance(x, Tracer) else primitive.impl(x, **params)
        return [out], [record(mul, [Literal(partial(x, out, **params)), tangents[0]], aval_of(out), {})]

    return linearize


def _batch_elementwise(primitive: Primitive) -> Callable[..., Any]:
    def batch(size: int, values: list[Any], batched: list[bool], **params: Any) -> tuple[list[Any], list[bool]]:
        if not all(batched):
            shape = next(v.shape for v, b in zip(values, batched, strict=True) if b)
            for i, (value, is_batched) in enumerate(zip(values, batched, strict=True)):
                if not is_batched and not is_number(value):
                    values[i] = broadcast(value, shape=shape, axes=tuple(range(1, len(shape))))
        return [primitive.bind(*values, **params)], [True]

    return batch


def is_number(value: Any) -> bool:
    """Whether a value is a plain number, not an array or a tracer."""
    return isinstance(value, (float, int, complex, np.generic))


# the primitives that derived rules are written in


def _times(x: Any, y: Any) -> Any:
    """The product; of plain values by NumPy at once, because reverse mode spends its time here."""
    return mul(x, y) if isinstance(x, Tracer) or isinstance(y, Tracer) else x * y


def _transpose_mul(bars: list[Any], x: Any, y: Any) -> list[Any]:
    if is_linear(x):
        return [_times(bars[0], y), None]
    return [None, _times(x, bars[0])]


def is_one(atom: Atom) -> bool:
    """Whether an atom is the real number 1, by which nothing changes (complex infinities do change)."""
    return isinstance(atom, Literal) and is_number(atom.val) and atom.aval.dtype.kind != "c" and bool(atom.val == 1)


def _fold_mul(operands: list[Atom]) -> Atom | None:
    x, y = operands
    return y if is_one(x) else x if is_one(y) else None


add = elementwise(
    "add",
    operator.add,
    (1, 1),
    transpose=lambda bars, x, y: [bars[0] if is_linear(x) else None, bars[0] if is_linear(y) else None],
    formula="x + y",
    flops=(1, 2),
    lower=(_codes.add, by_ufunc("numpy.add")),
)
neg = elementwise(
    "neg",
    operator.neg,
    -1,
    transpose=lambda bars, x: [neg(bars[0])],
    formula="-x",
    flops=(1, 2),
    lower=(_codes.neg, by_ufunc("numpy.negative")),
)
mul = elementwise(
    "mul",
    operator.mul,
    (lambda x, y, out: y, lambda x, y, out: x),
    transpose=_transpose_mul,
    taylor=lambda order, operands, out: product_coefficient(operator.mul, operands[0], operands[1], order),
    fold=_fold_mul,
    sparsity=_sparsity_product,
    formula="x * y",
    masks="scaling",
    flops=(1, 6),
    lower=(_codes.mul, by_ufunc("numpy.multiply")),
)


def _transpose_weighted_sum(bars: list[Any], a: Any, b: Any, x: Any, y: Any) -> list[Any]:
    bar = bars[0]
    pairs = ((a, x), (b, y), (x, a), (y, b))
    return [_times(partner, bar) if is_linear(operand) else None for operand, partner in pairs]


def _cost_weighted_sum(operands: Sequence[Layout], outs: Sequence[ShapedArray]) -> Work:
    """Both products are held before they are added."""
    out = outs[0]
    flops = (14 if out.dtype.kind == "c" else 3) * out.size
    return Work(flops, scratch=out.size * out.dtype.itemsize, results=[kept_order(out.shape, operands)])


def _sparsity_weighted_sum(operands: list[Any], outs: list[ShapedArray]) -> list[Structure]:
    a, b, x, y = operands
    return [Pointwise([nonzero(x), nonzero(y), nonzero(a), nonzero(b)], [(0, 2, True), (1, 3, True)])]


# The linear part of a binary operation in one equation, which halves the work of eager reverse mode.
weighted_sum = elementwise(
    "weighted_sum",
    lambda a, b, x, y: a * x + b * y,
    (
        lambda a, b, x, y, out: x,
        lambda a, b, x, y, out: y,
        lambda a, b, x, y, out: a,
        lambda a, b, x, y, out: b,
    ),
    transpose=_transpose_weighted_sum,
    sparsity=_sparsity_weighted_sum,
    formula="x * z + y * w",
    masks="scaling",
    cost=_cost_weighted_sum,
    lower=_codes.weighted_sum,
)


def _reduce_sum_impl(x: Any, *, axes: tuple[int, ...]) -> Any:
    out = _fast.reduce(np.add, x, axes)
    return np.add.reduce(x, axis=axes, dtype=x.dtype) if out is None else out


def _reduce_sum_transpose(bar: Any, aval: ShapedArray, *, axes: tuple[int, ...]) -> Any:
    return broadcast(bar, shape=aval.shape, axes=tuple(i for i in range(aval.ndim) if i not in axes))


def reduced_aval(aval: ShapedArray, *, axes: tuple[int, ...]) -> ShapedArray:
    """The type after reducing over `axes`."""
    return ShapedArray(tuple(n for i, n in enumerate(aval.shape) if i not in axes), aval.dtype)


def reduction_cost(operands: Sequence[Layout], outs: Sequence[ShapedArray], **params: Any) -> Work:
    """The work of combining elements over some axes: one operation fewer than elements, per result."""
    flops = max(operands[0].size - outs[0].size, 0)
    return Work(2 * flops if outs[0].dtype.kind == "c" else flops)


def over_axes(x: ShapedArray, axes: tuple[int, ...]) -> str:
    """The operand of a reduction as it is written: with the axes unless these are all."""
    return "x" if len(axes) == x.ndim else f"x, {axes[0] if len(axes) == 1 else axes}"


reduce_sum = linear(
    "reduce_sum",
    _reduce_sum_impl,
    reduced_aval,
    _reduce_sum_transpose,
    lambda size, x, *, axes: reduce_sum(x, axes=tuple(a + 1 for a in axes)),
    sparsity=lambda operands, outs, *, axes: [Linked([Along(axes)])],
    formula=lambda x, *, axes: f"sum({over_axes(x, axes)})",
    cost=reduction_cost,
    lower=_moves.reduction("add"),
)


def _broadcast_impl(x: Any, *, shape: tuple[int, ...], axes: tuple[int, ...]) -> np.ndarray:
    if not shape:
        return x
    strides = [0] * len(shape)
    for axis, length, stride in zip(axes, x.shape, x.strides, strict=True):
        if length != 1:
            strides[axis] = stride
    try:
        view = np.ndarray(shape, x.dtype, x if x.ndim else np.asarray(x), 0, tuple(strides))
    except ValueError:  # x is itself a strided view, which is no buffer
        view = np.lib.stride_tricks.as_strided(x, shape, strides)
    view.flags.writeable = False
    return view


def _broadcast_transpose(bar: Any, aval: ShapedArray, *, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    stretched = {axis for axis, length in zip(axes, aval.shape, strict=True) if length != shape[axis]}
    summed = tuple(i for i in range(len(shape)) if i not in axes or i in stretched)
    total = reduce_sum(bar, axes=summed) if summed else bar
    return reshape(total, shape=aval.shape) if stretched else total


def _broadcast_strides(x: Layout, *, shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    strides = [0] * len(shape)
    for axis, length, stride in zip(axes, x.shape, x.strides, strict=True):
        strides[axis] = stride if length != 1 else 0
    return tuple(strides)


def _broadcast_formula(x: ShapedArray, *, shape: tuple[int, ...], axes: tuple[int, ...]) -> str:
    """Nothing where NumPy's own broadcasting does the same, else with the axes that it needs."""
    if axes == tuple(range(len(shape) - x.ndim, len(shape))):
        return "x"
    return f"x[{', '.join(':' if a in axes else 'newaxis' for a in range(axes[0], len(shape)))}]" if axes else "x"


broadcast = linear(
    "broadcast",
    _broadcast_impl,
    lambda aval, *, shape, axes: ShapedArray(shape, aval.dtype),
    _broadcast_transpose,
    lambda size, x, *, shape, axes: broadcast(x, shape=(size, *shape), axes=(0, *(a + 1 for a in axes))),
    moving_elements=True,
    fold=lambda operands, **params: operands[0],
    formula=_broadcast_formula,
    cost=viewing(_broadcast_strides),
    lower=_moves.broadcast,
    uniform=lambda operands, **params: operands[0].val if isinstance(operands[0], Literal) else None,
)


def _cost_reshape(operands: Sequence[Layout], outs: Sequence[ShapedArray], *, shape: tuple[int, ...]) -> Work:
    """A view where the layout allows one."""
    strides = operands[0].reshaped(shape)
    return Work() if strides is None else Work(read=0, written=0, results=[View(0, strides)])


def _reshape_formula(x: ShapedArray, *, shape: tuple[int, ...]) -> str:
    """Nothing where only leading axes of length 1 come or go, which no elementwise operation notices."""
    longer, shorter = (x.shape, shape) if x.ndim > len(shape) else (shape, x.shape)
    added = len(longer) - len(shorter)
    return "x" if longer[added:] == shorter and set(longer[:added]) <= {1} else f"reshape(x, {shape})"


reshape = linear(
    "reshape",
    lambda x, *, shape: x.reshape(shape) if shape else x.reshape(())[()],
    lambda aval, *, shape: ShapedArray(shape, aval.dtype),
    lambda bar, aval, *, shape: reshape(bar, shape=aval.shape),
    lambda size, x, *, shape: reshape(x, shape=(size, *shape)),
    moving_elements=True,
    fold=lambda operands, **params: operands[0],
    formula=_reshape_formula,
    cost=_cost_reshape,
    lower=_moves.reshape,
)
