"""What a command line names: a function by its module or file, and arguments as Python literals."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from functrace import tree
from functrace.errors import ArgumentError

__all__ = ["load_function", "parse_values"]


def load_function(name: str) -> Callable[..., Any]:
    """The function that `module:function` or `path/to/file.py:function` names; modules are also found in the current
    directory, and the function may be an attribute of an attribute.

    Raises:
        ArgumentError: there is no such module, file or function.

    Example:
        >>> load_function("math:hypot")(3.0, 4.0)
        5.0
    """
    module_name, _, attributes = name.rpartition(":") if isinstance(name, str) else ("", "", "")
    if not module_name or not attributes:
        raise ArgumentError(
            "a function is named as module:function", got=str(name), remedy="write numpy:sin or model.py:loss"
        )
    try:
        found: Any = _module(module_name)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError, OSError, SyntaxError) as error:
        raise ArgumentError(f"{name} cannot be loaded", got=f"{type(error).__name__}: {error}") from error
    if not callable(found):
        raise ArgumentError(f"{name} is no function", got=type(found).__name__)
    return found


def _module(name: str) -> Any:
    if not name.endswith(".py"):
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        return importlib.import_module(name)
    path = Path(name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.exists():
        raise ImportError(f"no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def parse_values(words: Sequence[str]) -> tuple[Any, ...]:
    """Arguments from text, each a Python literal: numbers become floats and lists arrays, in any nesting of dicts and
    tuples.

    Raises:
        ArgumentError: a word is no literal of numbers.

    Example:
        >>> parse_values(["2", "[1, 2.5]"])
        (2.0, array([1. , 2.5]))
    """
    if isinstance(words, str) or not hasattr(words, "__iter__"):
        raise ArgumentError(
            "parse_values takes a list of texts", got=type(words).__name__, remedy="write ['2', '[1, 2]']"
        )
    return tuple(_value(word) for word in words)


def _value(word: str) -> Any:
    try:
        literal = ast.literal_eval(word)
        return tree.map(_floating, literal, is_leaf=lambda node: isinstance(node, list))
    except (ValueError, SyntaxError, TypeError) as error:
        raise ArgumentError(
            "an argument is written as a Python literal",
            got=word,
            remedy="write 2.0 or '[1.0, 2.0]', quoted for the shell",
        ) from error


def _floating(leaf: Any) -> Any:
    if isinstance(leaf, list):
        array = np.array(leaf, float) if not _is_complex(leaf) else np.array(leaf, complex)
        return array
    if isinstance(leaf, bool | complex):
        return leaf
    return float(leaf)


def _is_complex(nested: Any) -> bool:
    return any(map(_is_complex, nested)) if isinstance(nested, list) else isinstance(nested, complex)
