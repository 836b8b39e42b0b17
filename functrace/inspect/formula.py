"""Formulas: the text of a small program, for people.

A primitive may say how it is written (its `formula`, in Python's syntax); any other is its name applied to its
operands. Formulas of derivatives need no declaration: they are the text of the programs that the derivative rules give.
"""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from functrace.core.ir import Atom, Jaxpr, Literal, Var, is_scalar
from functrace.core.primitive import Primitive
from functrace.core.types import ShapedArray

__all__ = ["Apply", "Constant", "Dialect", "Expression", "Latex", "Markup", "Part", "Symbol", "Text", "expressions",
           "formula_of", "number", "written"]  # fmt: skip


class Symbol(NamedTuple):
    """A name with marks: of derivatives, as in the dot of a tangent.

    Attributes:
        label: as in "v1" or "params['W']".
        marks: from the inside out, each a key of `MARKS`.
    """

    label: str
    marks: tuple[str, ...] = ()

    def marked(self, mark: str) -> Symbol:
        """With one more mark."""
        return Symbol(self.label, (*self.marks, mark))


class Constant(NamedTuple):
    """A number, or an array that has no name."""

    value: Any


class Apply(NamedTuple):
    """An operator (+ - * / ** neg and the comparisons) or a function applied to operands."""

    function: str
    operands: tuple[Any, ...]


class Part(NamedTuple):
    """An indexed part, or one of several outputs."""

    whole: Any
    at: str


Expression = Symbol | Constant | Apply | Part

#: Per mark its combining character, its LaTeX command, and what precedes it where marks are not to be had.
MARKS = {
    "dot": ("\u0307", r"\dot"),
    "bar": ("\u0304", r"\bar"),
    "prime": ("\u2032", "'"),
    "hat": ("\u0302", r"\hat"),
}

_PRECEDENCE = {"+": 1, "-": 1, "neg": 1, "*": 2, "/": 2, "@": 2, "**": 4}
_COMPARISONS = {"<", "<=", ">", ">=", "==", "!="}
_ATOMIC = 9
_OPERATORS: dict[type, str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**", ast.MatMult: "@", ast.Lt: "<",
    ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip


# from programs to expressions


def written(primitive: Primitive, avals: Sequence[ShapedArray], params: Mapping[str, Any]) -> str | None:
    """How a primitive says that it is written; None if it does not."""
    formula = primitive.formula
    return formula(*avals, **params) if callable(formula) else formula


def formula_of(
    primitive: Primitive, operands: Sequence[Expression], avals: Sequence[ShapedArray], params: Mapping[str, Any]
) -> Expression:
    """One application of a primitive to operands of these types, as it declares itself."""
    formula = written(primitive, avals, params)
    if formula is None:
        name = params.get("name")
        return Apply(name if isinstance(name, str) else primitive.name, tuple(operands))
    return _parsed(ast.parse(formula, mode="eval").body, dict(zip("xyzw", operands, strict=False)))


def _parsed(node: ast.AST, operands: Mapping[str, Expression]) -> Expression:
    match node:
        case ast.Name(id=name):
            return operands.get(name, Symbol(name))
        case ast.Constant(value=value):
            return Constant(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _negative(_parsed(operand, operands))
        case ast.BinOp(left=left, op=op, right=right):
            return _operation(_OPERATORS[type(op)], _parsed(left, operands), _parsed(right, operands))
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return Apply(_OPERATORS[type(op)], (_parsed(left, operands), _parsed(right, operands)))
        case ast.Tuple():
            return Symbol(ast.unparse(node))
        case ast.Call(func=ast.Name(id=name), args=args):
            return Apply(name, tuple(_parsed(a, operands) for a in args))
        case ast.Subscript(value=whole, slice=index):
            return Part(_parsed(whole, operands), ast.unparse(index).strip("()"))
    raise ValueError(f"a formula cannot hold {ast.dump(node)}")


def _is_one(expression: Expression) -> bool:
    return isinstance(expression, Constant) and is_scalar(expression.value) and bool(expression.value == 1)


def _negative(x: Expression) -> Expression:
    if isinstance(x, Apply) and x.function == "neg":
        return x.operands[0]
    if isinstance(x, Constant) and is_scalar(x.value):
        return Constant(-x.value)
    return Apply("neg", (x,))


def _operation(operator: str, x: Expression, y: Expression) -> Expression:
    """An operation as one would write it: signs in front, 1 left out, a reciprocal as a quotient."""
    match operator, x, y:
        case "+", _, Apply("neg", (negated,)):
            return Apply("-", (x, negated))
        case "-", _, Apply("neg", (negated,)):
            return Apply("+", (x, negated))
        case "*" | "/", Apply("neg", (negated,)), _:
            return _negative(_operation(operator, negated, y))
        case "*" | "/", _, Apply("neg", (negated,)):
            return _negative(_operation(operator, x, negated))
        case "*", Apply("/", _), _ if (quotient := _numerator_replaced(x, y)) is not None:
            return quotient
        case "*", _, Apply("/", _) if (quotient := _numerator_replaced(y, x)) is not None:
            return quotient
    if operator == "*" and _is_one(x):
        return y
    if operator in "*/" and _is_one(y):
        return x
    return Apply(operator, (x, y))


def _numerator_replaced(quotient: Apply, by: Expression) -> Apply | None:
    """1 / a / b with another expression in place of the 1; None if there is none."""
    numerator, divisor = quotient.operands
    if _is_one(numerator):
        return Apply("/", (by, divisor))
    if isinstance(numerator, Apply) and numerator.function == "/":
        replaced = _numerator_replaced(numerator, by)
        return None if replaced is None else Apply("/", (replaced, divisor))
    return None


def expressions(jaxpr: Jaxpr, names: Mapping[Var, Expression]) -> list[Expression]:
    """Per output of a small program, its formula in the names of the inputs and constants."""
    env: dict[Var, Expression] = dict(names)

    def expression(atom: Atom) -> Expression:
        return Constant(atom.val) if isinstance(atom, Literal) else env[atom]

    for eqn in jaxpr.eqns:
        operands = [expression(a) for a in eqn.invars]
        whole = formula_of(eqn.primitive, operands, [a.aval for a in eqn.invars], eqn.params)
        if not eqn.primitive.multiple or (len(eqn.outvars) == 1 and eqn.primitive.family == "control"):
            env[eqn.outvars[0]] = whole
        else:
            env.update({var: Part(whole, str(i)) for i, var in enumerate(eqn.outvars)})
    return [expression(a) for a in jaxpr.outvars]


# from expressions to text


def number(value: Any, digits: int) -> str:
    """A number to so many places, in scientific notation where these would lose it; without trailing zeros."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (complex, np.complexfloating)):
        sign = "+" if value.imag >= 0 or value.imag != value.imag else "-"
        return f"{number(value.real, digits)} {sign} {number(abs(value.imag), digits)}i"
    if isinstance(value, (int, np.integer)):
        return str(int(value))
    size = abs(float(value))
    if size == 0.0 or not np.isfinite(size):
        return str(float(value)).removesuffix(".0")
    if 10.0 ** (1 - digits) <= size < 1e7 or (float(value).is_integer() and size < 1e7):
        text = f"{float(value):.{digits}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, _, exponent = f"{float(value):.{digits}e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}" if digits else f"{mantissa}e{int(exponent)}"


def array_text(value: Any, digits: int, largest: int = 12) -> str:
    """A small array in brackets; a larger one by its type and range."""
    array = np.asarray(value)
    if array.ndim == 0:
        return number(array[()], digits)
    if array.size <= largest:
        return "[" + " ".join(array_text(row, digits, largest) for row in array) + "]"
    text = f"{array.dtype.name}[{','.join(map(str, array.shape))}]"
    if array.dtype.kind in "iuf" and np.isfinite(array).all():
        text += f" in [{number(array.min(), digits)}, {number(array.max(), digits)}]"
    return text


class Dialect:
    """How formulas are written; this one in plain text."""

    times, minus, open, close = " \u00b7 ", "-", "(", ")"

    def __init__(self, digits: int = 3) -> None:
        self.digits = digits

    def symbol(self, symbol: Symbol) -> str:
        """Accents stand on the first character, primes last."""
        accents = "".join(MARKS[m][0] for m in symbol.marks if m != "prime")
        primes = "".join(MARKS[m][0] for m in symbol.marks if m == "prime")
        return unicodedata.normalize("NFC", symbol.label[0] + accents) + symbol.label[1:] + primes

    def value(self, value: Any) -> str:
        return array_text(value, self.digits)

    def constant(self, value: Any) -> str:
        return array_text(value, 6)

    def call(self, function: str, operands: Sequence[Expression]) -> str:
        return f"{self.function(function)}{self.open}{', '.join(self(o) for o in operands)}{self.close}"

    def function(self, name: str) -> str:
        return name

    def comparison(self, operator: str) -> str:
        return operator

    def power(self, base: str, exponent: Expression) -> str:
        return f"{base}**{self.within(exponent, 4)}"

    def quotient(self, x: Expression, y: Expression) -> str:
        return f"{self.within(x, 2)} / {self.within(y, 3)}"

    def part(self, whole: str, index: str) -> str:
        return f"{whole}[{index}]"

    def within(self, expression: Expression, precedence: int) -> str:
        """In parentheses if it binds less than `precedence`."""
        text = self(expression)
        return f"{self.open}{text}{self.close}" if _precedence(expression) < precedence else text

    def __call__(self, expression: Expression) -> str:
        match expression:
            case Symbol():
                return self.symbol(expression)
            case Constant(value):
                return self.constant(value)
            case Part(whole, index):
                return self.part(self.within(whole, _ATOMIC), index)
            case Apply("neg", (x,)):
                return self.minus + self.within(x, 2)
            case Apply("/", (x, y)):
                return self.quotient(x, y)
            case Apply("**", (x, y)):
                return self.power(self.within(x, 5), y)
            case Apply("*", (x, y)):
                return f"{self.within(x, 2)}{self.times}{self.within(y, 3 if _is_quotient(y) else 2)}"
            case Apply(("+" | "-" | "@") as operator, (x, y)):
                precedence = _PRECEDENCE[operator]
                return f"{self.within(x, precedence)} {operator} {self.within(y, precedence + (operator != '+'))}"
            case Apply(function, (x, y)) if function in _COMPARISONS:
                return f"{self.within(x, 1)} {self.comparison(function)} {self.within(y, 1)}"
            case Apply(function, operands):
                return self.call(function, operands)
        raise TypeError(f"no expression: {expression!r}")


Text = Dialect


def _is_quotient(expression: Expression) -> bool:
    return isinstance(expression, Apply) and expression.function in "/@"


def _precedence(expression: Expression) -> int:
    if isinstance(expression, Constant):
        negative = is_scalar(expression.value) and (
            isinstance(expression.value, (complex, np.complexfloating)) or expression.value < 0
        )
        return 1 if negative else _ATOMIC
    if isinstance(expression, Apply):
        return 0 if expression.function in _COMPARISONS else _PRECEDENCE.get(expression.function, _ATOMIC)
    return _ATOMIC


_INDEXED = re.compile(r"([A-Za-z]+)_?(\d+)")


class Markup(Dialect):
    """HTML."""

    minus = "\u2212"

    def symbol(self, symbol: Symbol) -> str:
        accents = "".join(MARKS[m][0] for m in symbol.marks if m != "prime")
        primes = "".join(MARKS[m][0] for m in symbol.marks if m == "prime")
        indexed = _INDEXED.fullmatch(symbol.label)
        name, index = indexed.groups() if indexed else (symbol.label, "")
        name = escape(unicodedata.normalize("NFC", name[0] + accents) + name[1:])
        return f"<i>{name}</i>{primes}" + (f"<sub>{index}</sub>" if index else "")

    def function(self, name: str) -> str:
        return escape(name)

    def comparison(self, operator: str) -> str:
        return escape(operator)

    def value(self, value: Any) -> str:
        return escape(array_text(value, self.digits)).replace("-", "\u2212")

    def power(self, base: str, exponent: Expression) -> str:
        return f"{base}<sup>{self(exponent)}</sup>"

    def part(self, whole: str, index: str) -> str:
        return f"{whole}[{escape(index)}]"


def escape(text: str) -> str:
    """For HTML and SVG."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


class Latex(Dialect):
    """LaTeX mathematics."""

    times, open, close = r" \cdot ", r"\left(", r"\right)"

    def symbol(self, symbol: Symbol) -> str:
        indexed = _INDEXED.fullmatch(symbol.label)
        name, index = indexed.groups() if indexed else (symbol.label, "")
        text = name if len(name) == 1 else rf"\mathrm{{{latex_escape(name)}}}"
        for mark in symbol.marks:
            if mark != "prime":
                text = f"{MARKS[mark][1]}{{{text}}}"
        text += f"_{{{index}}}" if index else ""
        return text + "'" * symbol.marks.count("prime")

    def function(self, name: str) -> str:
        return rf"\operatorname{{{latex_escape(name)}}}"

    def comparison(self, operator: str) -> str:
        return {"<=": r"\le", ">=": r"\ge", "==": "=", "!=": r"\ne"}.get(operator, operator)

    def power(self, base: str, exponent: Expression) -> str:
        return f"{base}^{{{self(exponent)}}}"

    def quotient(self, x: Expression, y: Expression) -> str:
        return rf"\frac{{{self(x)}}}{{{self(y)}}}"

    def part(self, whole: str, index: str) -> str:
        return rf"{whole}\mathtt{{[{latex_escape(index)}]}}"

    def value(self, value: Any) -> str:
        return self._numbers(array_text(value, self.digits))

    def constant(self, value: Any) -> str:
        return self._numbers(array_text(value, 6))

    def _numbers(self, text: str) -> str:
        text = re.sub(r"e(-?\d+)", r" \\cdot 10^{\1}", text) if re.fullmatch(r"-?[\d.]+e-?\d+", text) else text
        return text.replace("inf", r"\infty").replace("nan", r"\mathrm{nan}").replace(" ", r"\ ")


def latex_escape(text: str) -> str:
    """Plain text inside LaTeX."""
    return re.sub(r"([_#%&${}])", r"\\\1", text)
