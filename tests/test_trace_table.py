"""Trace tables: the textbook's numbers and formulas cell by cell, and every nesting against the transformations."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import functrace as ft
from functrace import lax
from functrace.core.types import aval_of
from functrace.errors import ArgumentError, InputError, TangentError
from functrace.inspect import trace_table
from functrace.inspect.formula import Latex, Symbol, Text, formula_of, number
from tests.cases import all_cases

CASES = all_cases()

NESTINGS = ("fwd-fwd", "fwd-rev", "rev-fwd", "rev-rev")


def textbook(x1, x2):
    return np.log(x1) + x1 * x2 - np.sin(x2)


def encyclopedic(x1, x2):
    return x1 * x2 + np.sin(x1)


def regularised(w, x, y):
    return (w * x - y) ** 2 + w**2


def column(table, *marks):
    """Per row of one trace: symbol as text, formula as text, value to three places."""
    cells = [table.cell(row, *marks) for row in table.rows]
    return [(Text().symbol(c.symbol), c.formula, round(float(c.value), 3)) for c in cells if c is not None]


def test_textbook_function_forward():
    table = trace_table(textbook)(2.0, 5.0, mode="forward")
    assert column(table) == [
        ("x1", "", 2.0),
        ("x2", "", 5.0),
        ("v1", "ln(x1)", 0.693),
        ("v2", "x1 · x2", 10.0),
        ("v3", "v1 + v2", 10.693),
        ("v4", "sin(x2)", -0.959),
        ("v5", "v3 - v4", 11.652),
        ("y", "v5", 11.652),
    ]
    assert column(table, "dot") == [
        ("ẋ1", "", 1.0),
        ("ẋ2", "", 0.0),
        ("v̇1", "ẋ1 / x1", 0.5),
        ("v̇2", "x2 · ẋ1 + x1 · ẋ2", 5.0),
        ("v̇3", "v̇1 + v̇2", 5.5),
        ("v̇4", "cos(x2) · ẋ2", 0.0),
        ("v̇5", "v̇3 - v̇4", 5.5),
        ("ẏ", "v̇5", 5.5),
    ]
    assert [(c.title, c.upwards) for c in table.columns] == [("primal trace", False), ("tangent trace", False)]


def test_textbook_function_reverse():
    table = trace_table(textbook)(2.0, 5.0, mode="reverse")
    assert column(table, "bar") == [
        ("x̄1", "v̄1 / x1 + x2 · v̄2", 5.5),
        ("x̄2", "x1 · v̄2 + cos(x2) · v̄4", 1.716),
        ("v̄1", "v̄3", 1.0),
        ("v̄2", "v̄3", 1.0),
        ("v̄3", "v̄5", 1.0),
        ("v̄4", "-v̄5", -1.0),
        ("v̄5", "ȳ", 1.0),
        ("ȳ", "", 1.0),
    ]
    assert [(c.title, c.upwards) for c in table.columns] == [("primal trace", False), ("adjoint trace", True)]
    np.testing.assert_allclose(table.value("x2", "bar"), 2.0 - np.cos(5.0), rtol=1e-15)


def test_encyclopedic_function():
    forward = trace_table(encyclopedic)(2.0, 3.0, tangents=(0.0, 1.0))
    assert column(forward) == [
        ("x1", "", 2.0), ("x2", "", 3.0), ("v1", "x1 · x2", 6.0), ("v2", "sin(x1)", 0.909), ("v3", "v1 + v2", 6.909),
        ("y", "v3", 6.909),
    ]  # fmt: skip
    assert column(forward, "dot") == [
        ("ẋ1", "", 0.0), ("ẋ2", "", 1.0), ("v̇1", "x2 · ẋ1 + x1 · ẋ2", 2.0), ("v̇2", "cos(x1) · ẋ1", 0.0),
        ("v̇3", "v̇1 + v̇2", 2.0), ("ẏ", "v̇3", 2.0),
    ]  # fmt: skip
    reverse = trace_table(encyclopedic)(2.0, 3.0, mode="reverse")
    assert column(reverse, "bar") == [
        ("x̄1", "x2 · v̄1 + cos(x1) · v̄2", 2.584), ("x̄2", "x1 · v̄1", 2.0), ("v̄1", "v̄3", 1.0), ("v̄2", "v̄3", 1.0),
        ("v̄3", "ȳ", 1.0), ("ȳ", "", 1.0),
    ]  # fmt: skip


def test_regularised_error():
    """An argument is called y, so the output is called z."""
    table = trace_table(regularised)(1.0, 2.0, 3.0, mode="reverse")
    assert column(table) == [
        ("w", "", 1.0), ("x", "", 2.0), ("y", "", 3.0), ("v1", "w · x", 2.0), ("v2", "v1 - y", -1.0),
        ("v3", "v2**2", 1.0), ("v4", "w**2", 1.0), ("v5", "v3 + v4", 2.0), ("z", "v5", 2.0),
    ]  # fmt: skip
    assert column(table, "bar") == [
        ("w̄", "x · v̄1 + 2 · w · v̄4", -2.0), ("x̄", "w · v̄1", -2.0), ("ȳ", "-v̄2", 2.0), ("v̄1", "v̄2", -2.0),
        ("v̄2", "2 · v2 · v̄3", -2.0), ("v̄3", "v̄5", 1.0), ("v̄4", "v̄5", 1.0), ("v̄5", "z̄", 1.0), ("z̄", "", 1.0),
    ]  # fmt: skip
    forward = trace_table(regularised)(1.0, 2.0, 3.0, mode="forward")
    assert forward.value("z", "dot") == -2.0


def test_text():
    assert str(trace_table(encyclopedic)(2.0, 3.0, mode="reverse")) == "\n".join(
        [
            "primal trace ↓        |  adjoint trace ↑",
            "----------------------+-------------------------------------",
            "x1           = 2      |  x̄1 = x2 · v̄1 + cos(x1) · v̄2 = 2.584",
            "x2           = 3      |  x̄2 = x1 · v̄1                = 2",
            "v1 = x1 · x2 = 6      |  v̄1 = v̄3                     = 1",
            "v2 = sin(x1) = 0.909  |  v̄2 = v̄3                     = 1",
            "v3 = v1 + v2 = 6.909  |  v̄3 = ȳ                      = 1",
            "y  = v3      = 6.909  |  ȳ                           = 1",
        ]
    )


def test_markdown():
    lines = trace_table(encyclopedic)(2.0, 3.0).markdown().splitlines()
    assert lines[0] == "| primal trace &darr; | value | tangent trace &darr; | value |"
    assert lines[1] == "| --- | ---: | --- | ---: |"
    assert lines[5] == "| `v2 = sin(x1)` | 0.909 | `v̇2 = cos(x1) · ẋ1` | -0.416 |"
    assert len(lines) == 2 + 6


def test_latex():
    text = trace_table(textbook)(2.0, 5.0, mode="fwd-rev").latex()
    assert r"$\dot{\bar{x}}_{1}$" in text
    assert r"$v_{1}$ & $= \operatorname{ln}\left(x_{1}\right)$ & $= 0.693$" in text
    assert r"\frac{\bar{v}_{1}}{x_{1}}" in text
    for opening, closing in ("{}", (r"\left", r"\right"), (r"\begin", r"\end")):
        assert text.count(opening) == text.count(closing)
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert all(line.count("&") == 11 for line in rows)


def test_html_is_well_formed():
    table = trace_table(lambda x: np.where(x > 0.0, np.exp(-x), x))(2.0, mode="rev-rev")
    root = ElementTree.fromstring(table._repr_html_().replace("&uarr;", "").replace("&darr;", ""))
    rows = root.findall("./tbody/tr")
    assert len(rows) == len(table.rows)
    assert {len(row) for row in rows} == {3 * len(table.columns)}
    assert "&lt;" not in "".join(root.itertext())


@pytest.mark.parametrize("mode", NESTINGS)
def test_nestings_of_the_textbook_function(mode):
    """Each holds the Hessian's product with (0.3, -2): ((-1/4, 1), (1, sin 5)) times it."""
    direction = (0.3, -2.0)
    product = [-0.25 * 0.3 - 2.0, 0.3 - 2.0 * np.sin(5.0)]
    table = trace_table(textbook)(2.0, 5.0, mode=mode, tangents=direction)
    assert len(table.columns) == 4
    if mode == "fwd-fwd":
        np.testing.assert_allclose(table.value("y", "dot", "prime"), np.dot(direction, product), rtol=1e-14)
        return
    marks = {"fwd-rev": ("bar", "dot"), "rev-fwd": ("bar",), "rev-rev": ("hat",)}[mode]
    np.testing.assert_allclose([table.value(x, *marks) for x in ("x1", "x2")], product, rtol=1e-14)


def network(params, x):
    hidden = np.tanh(params["W"] @ x + params["b"])
    return np.sum(hidden**2) / np.max(np.abs(hidden)) + ft.nn.relu(x[0])


@pytest.mark.parametrize("mode", ["forward", "reverse", *NESTINGS])
def test_arrays_and_pytrees(mode, rng):
    params = {"W": rng.normal(size=(3, 2)), "b": rng.normal(size=3)}
    x, along = rng.normal(size=2), {"W": rng.normal(size=(3, 2)), "b": rng.normal(size=3)}
    x_dot = rng.normal(size=2)
    table = trace_table(network)(params, x, mode=mode, tangents=(along, x_dot))
    gradient = ft.grad(network, argnums=(0, 1))
    value, slope = ft.jvp(network, (params, x), (along, x_dot))
    _, second = ft.jvp(gradient, (params, x), (along, x_dot))
    assert table.rows[:3] == ["params['W']", "params['b']", "x"]
    np.testing.assert_allclose(table.value("y"), value, rtol=1e-14)
    expected = {
        "forward": {("y", "dot"): slope},
        "reverse": {("x", "bar"): gradient(params, x)[1], ("params['W']", "bar"): gradient(params, x)[0]["W"]},
        "fwd-fwd": {("y", "dot", "prime"): ft.vhv(lambda t: network(*t), (params, x), (along, x_dot))},
        "fwd-rev": {("x", "bar", "dot"): second[1], ("params['W']", "bar", "dot"): second[0]["W"]},
        "rev-fwd": {("x", "bar"): second[1], ("params['b']", "bar"): second[0]["b"]},
        "rev-rev": {("x", "hat"): second[1], ("params['W']", "hat"): second[0]["W"]},
    }[mode]
    for entry, number_ in expected.items():
        np.testing.assert_allclose(table.value(*entry), number_, rtol=1e-9, atol=1e-12)


def test_second_direction(rng):
    x, u, v = rng.uniform(0.5, 1.0, (3, 4))

    def f(x):
        return np.prod(x) * np.exp(x[0])

    table = trace_table(f)(x, mode="fwd-fwd", tangents=(u,), second_tangents=(v,))
    np.testing.assert_allclose(table.value("y", "dot", "prime"), u @ ft.hessian(f)(x) @ v, rtol=1e-12)


def test_python_and_structured_loops_are_followed():
    def newton(a):
        x = a
        while np.abs(x * x - a) > 1e-12:
            x = 0.5 * (x + a / x)
        return x

    def scanned(a):
        return lax.scan(lambda x, _: (0.5 * (x + a / x), None), a, None, length=6)[0]

    for f in (newton, scanned, ft.jit(scanned), ft.checkpoint(scanned)):
        table = trace_table(f)(2.0, mode="reverse")
        np.testing.assert_allclose(table.value(table.rows[0], "bar"), 0.5 / np.sqrt(2.0), rtol=1e-10)
        assert len(table.rows) > 12
    short = trace_table(scanned)(2.0).text(largest=4)
    assert re.search(r"\.\.\. \d+ more", short) and len(short.splitlines()) == 7


def test_a_gradient_has_a_table_too():
    table = trace_table(ft.grad(textbook, argnums=(0, 1)))(2.0, 5.0, mode="forward")
    np.testing.assert_allclose([table.value(r, "dot") for r in table.rows[-2:]], [-0.25, 1.0], rtol=1e-14)


def test_several_outputs():
    table = trace_table(lambda x: {"s": np.sin(x), "c": np.cos(x)})(0.3, mode="reverse", cotangent={"s": 2.0, "c": 3.0})
    np.testing.assert_allclose(table.value("x", "bar"), 2.0 * np.cos(0.3) - 3.0 * np.sin(0.3), rtol=1e-14)
    first = trace_table(lambda x: (np.sin(x), np.cos(x)))(0.3, mode="reverse")
    np.testing.assert_allclose(first.value("x", "bar"), np.cos(0.3), rtol=1e-14)


def test_custom_rules_are_used():
    @ft.custom_jvp
    def f(x):
        return x * x

    f.defjvp(lambda primals, tangents: (f(*primals), 10.0 * tangents[0]))
    assert trace_table(f)(3.0, mode="forward").value("y", "dot") == 10.0
    assert trace_table(f)(3.0, mode="reverse").value("x", "bar") == 10.0


def test_branch_not_taken_contributes_nothing():
    with np.errstate(divide="ignore"):
        table = trace_table(lambda x: np.where(x > 0.0, np.log(x), 2.0 * x))(0.0, mode="forward")
    assert table.value("y", "dot") == 2.0


def test_errors():
    with pytest.raises(ArgumentError, match="no such mode"):
        trace_table(textbook)(2.0, 5.0, mode="sideways")
    with pytest.raises(TangentError):
        trace_table(textbook)(2.0, 5.0, tangents=(1.0,))
    with pytest.raises(InputError, match="plain values"):
        ft.grad(lambda x: trace_table(np.sin)(x).value("y"))(1.0)
    with pytest.raises(InputError, match="takes a function"):
        trace_table(1.0)
    with pytest.raises(ArgumentError, match="rows are x1"):
        trace_table(textbook)(2.0, 5.0).value("v9")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (11.6520707, "11.652"), (5.5, "5.5"), (-0.9589, "-0.959"), (0.0, "0"), (1e-7, "1e-7"), (123456789.0, "1.235e8"),
        (np.inf, "inf"), (np.nan, "nan"), (True, "True"), (3, "3"), (1.5 - 2j, "1.5 - 2i"), (0.00123, "1.23e-3"),
    ],
)  # fmt: skip
def test_numbers(value, text):
    assert number(value, 3) == text


def test_formulas_keep_their_meaning():
    """What is printed, read back by Python, has the value of the program."""
    a, b, c = 1.7, 0.6, 2.9
    programs = [
        lambda a, b, c: a - (b - c),
        lambda a, b, c: a - (b + c) * -(c - a),
        lambda a, b, c: a / (b / c) / (a * b),
        lambda a, b, c: (a**b) ** c - a ** (b**c),
        lambda a, b, c: -((a + b) ** 2.0) * (1.0 / c),
        lambda a, b, c: a + -3.0 - (-b) / -c,
        lambda a, b, c: (a * (b / c)) ** -2.0,
    ]
    for program in programs:
        value, names = program(a, b, c), {"a": a, "b": b, "c": c}
        table = trace_table(program)(a, b, c, mode="reverse")
        for row in table.rows:
            for marks in ((), ("bar",)):
                cell = table.cell(row, *marks)
                if cell is None or cell.expression is None:
                    continue
                known = {Text().symbol(s): v for s, v in table.values.items()}
                text = cell.formula.replace("·", "*").replace("ln(", "np.log(")
                for name in sorted(known, key=len, reverse=True):
                    text = re.sub(
                        rf"(?<![\w']){re.escape(name)}(?!\w|[\u0300-\u036f])", f"({float(known[name])!r})", text
                    )
                words = {n: getattr(np, n) for n in ("where", "logical_and", "logical_not")}
                read = eval(text, {"np": np, **words, **names})
                np.testing.assert_allclose(read, cell.value, rtol=1e-12, atol=1e-12, err_msg=cell.formula)
        np.testing.assert_allclose(table.value(table.rows[-1]), value)


def test_contractions_are_written_as_products():
    """What is printed of a product of vectors and matrices means what it says in NumPy."""
    rng = np.random.default_rng(0)
    A, B, u = rng.normal(size=(3, 3)), rng.normal(size=(3, 3)), rng.normal(size=3)

    def f(A, B, u):
        return (
            np.sum(np.sin(A @ B.T @ u)) * (u @ B @ u)
            + np.sum(A.T @ B, axis=0)[1]
            + np.outer(u, u)[0, 1]
            + np.sum(np.sum(A, axis=1) ** 2 + (B / np.sum(B, axis=1, keepdims=True))[1])
        )

    table = trace_table(f)(A, B, u, mode="reverse")
    known = {Text().symbol(s): v for s, v in table.values.items()}
    count = 0
    for row in table.rows:
        for marks in ((), ("bar",)):
            cell = table.cell(row, *marks)
            if cell is None or cell.expression is None or not re.search("@|outer|sum|newaxis|reshape", cell.formula):
                continue
            if "place" in cell.formula:
                continue
            text = cell.formula.replace("·", "*")
            names = {}
            for i, name in enumerate(sorted(known, key=len, reverse=True)):
                text = re.sub(rf"(?<![\w']){re.escape(name)}(?!\w|[\u0300-\u036f])", f"_{i}_", text)
                names[f"_{i}_"] = known[name]
            numpy = {n: getattr(np, n) for n in ("outer", "transpose", "sum", "cos", "reshape", "newaxis")}
            value = eval(text, {**numpy, **names})
            np.testing.assert_allclose(value, cell.value, rtol=1e-12, err_msg=cell.formula)
            count += 1
    assert count > 12


def test_every_formula_can_be_written():
    """The formula of each primitive case names operands only, and both dialects print it."""
    for case in CASES:
        names = [Symbol(n) for n in "abcdefghijklmnop"[: len(case.operands)]]
        expression = formula_of(case.primitive, names, [aval_of(o) for o in case.operands], case.params)
        for dialect in (Text(), Latex()):
            assert dialect(expression)
        unknown = {n for n in re.findall(r"\b[x-z]\b", Text()(expression))}
        assert not unknown or case.primitive.formula is None


DIFFERENTIABLE = [c for c in CASES if c.active() and not any(np.asarray(o).dtype.kind == "c" for o in c.operands)]


@pytest.mark.parametrize("name", sorted({c.primitive.name for c in DIFFERENTIABLE}))
def test_every_primitive(name, rng):
    """Forward and reverse tables give what jvp and vjp give."""
    for case in [c for c in DIFFERENTIABLE if c.primitive.name == name][:2]:
        positions = case.active()
        f = case.function(positions, floats_only=True)
        points = [case.operands[i] for i in positions]
        along = tuple(rng.normal(size=np.shape(p)).astype(p.dtype)[()] for p in points)
        outs, pullback = ft.vjp(f, *points)
        bars = [rng.normal(size=o.shape).astype(o.dtype)[()] for o in outs]
        tolerance = {"rtol": 1e-9, "atol": 1e-9}
        if any(p.dtype != np.float64 for p in points):
            tolerance = {"rtol": 1e-4, "atol": 1e-5}
        table = trace_table(f)(*points, mode="reverse", cotangent=bars)
        for row, bar in zip(table.rows, pullback(bars), strict=False):
            cell = table.cell(row, "bar")
            np.testing.assert_allclose(0.0 if cell is None else cell.value, bar, **tolerance)
        _, slopes = ft.jvp(f, points, along)
        table = trace_table(f)(*points, mode="forward", tangents=along)
        for row, slope in zip(table.rows[len(table.rows) - len(slopes) :], slopes, strict=True):
            cell = table.cell(row, "dot")
            np.testing.assert_allclose(0.0 if cell is None else cell.value, slope, **tolerance)


def test_most_primitives_are_covered():
    assert len({c.primitive.name for c in DIFFERENTIABLE}) > 120
