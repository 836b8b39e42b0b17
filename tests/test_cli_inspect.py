"""The commands `functrace trace` and `functrace draw`."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from functrace import cli
from functrace.errors import ArgumentError
from functrace.inspect import load_function, parse_values


@pytest.fixture
def model(tmp_path, monkeypatch):
    (tmp_path / "model.py").write_text(
        "import numpy as np\n\ndef f(x1, x2):\n    return np.log(x1) + x1 * x2 - np.sin(x2)\n\n"
        "class Net:\n    @staticmethod\n    def loss(w):\n        return np.sum(w['a'] ** 2)\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_trace(model, capsys):
    assert cli.main(["trace", "model.py:f", "--at", "2", "5", "--mode", "reverse"]) == 0
    out = capsys.readouterr().out
    assert "v5 = v3 - v4 = 11.652" in out and "= 1.716" in out
    assert cli.main(["trace", "model.py:f", "--at", "2", "5", "--tangents", "0", "1", "--format", "markdown"]) == 0
    assert "| `ẏ = v̇5` | 1.716 |" in capsys.readouterr().out
    assert (
        cli.main(["trace", "model.py:Net.loss", "--at", "{'a': [1, 2]}", "--mode", "rev-rev", "--format", "latex"]) == 0
    )
    assert r"\begin{tabular}" in capsys.readouterr().out


def test_draw(model, capsys):
    assert cli.main(["draw", "model.py:f", "--at", "2", "5", "--values", "--derivatives", "reverse"]) == 0
    ElementTree.fromstring(capsys.readouterr().out)
    assert cli.main(["draw", "model.py:f", "--at", "2", "5", "--format", "mermaid"]) == 0
    assert capsys.readouterr().out.startswith("flowchart")
    assert cli.main(["draw", "model.py:f", "--at", "2", "5", "-o", str(model / "f.dot")]) == 0
    assert (model / "f.dot").read_text(encoding="utf-8").startswith("digraph")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trace", "model.py", "--at", "1"], "named as module:function"),
        (["trace", "model.py:g", "--at", "1"], "model.py:g cannot be loaded"),
        (["trace", "nothing_there:g", "--at", "1"], "cannot be loaded"),
        (["trace", "nothing.py:g", "--at", "1"], "no file nothing.py"),
        (["trace", "math:pi", "--at", "1"], "is no function"),
        (["trace", "model.py:f", "--at", "one", "2"], "Python literal"),
        (["draw", "model.py:f", "--at", "1", "2", "-o", "f.png"], "saved as .svg"),
    ],
)
def test_mistakes(model, words, message, capsys):
    assert cli.main(words) == 1
    assert message in capsys.readouterr().err


def test_values():
    (nested,) = parse_values(["{'a': (1, [2, 3j]), 'b': True}"])
    assert nested["b"] is True and nested["a"][0] == 1.0 and isinstance(nested["a"][0], float)
    np.testing.assert_array_equal(nested["a"][1], [2, 3j])
    with pytest.raises(ArgumentError):
        parse_values(["'text'"])


def test_modules_by_name():
    assert load_function("numpy:sin") is np.sin
    assert load_function("numpy:linalg.norm") is np.linalg.norm
