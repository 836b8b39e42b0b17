"""The package is a stack of floors: a module imports only from its own floor and those above it, and never in a circle.

Read from the syntax tree, so nothing is imported to find out. Type-only imports (`if TYPE_CHECKING:`) keep to the
floors too, but cannot close a circle. Inside functions, only heavy or optional dependencies may be imported.
"""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

# Top to bottom, as in the design. A name stands for the module or for the whole package.
FLOORS = [
    ["errors", "util", "tree"],
    ["core"],
    ["primitives"],
    ["interpreters"],
    ["backend"],
    ["control"],
    ["transforms"],
    ["numpy", "scipy", "nn", "lax", "random", "callbacks", "debug", "extend", "flatten_util"],
    ["sparse"],
    ["optimize"],
    ["inspect"],
    ["testing", "datasets"],
    ["demo"],
    ["cli"],
    ["", "__main__"],  # functrace itself: the public names
]

LAZY = {
    *("scipy", "numba", "llvmlite"),  # run-time dependencies that load on first use
    *("matplotlib", "casadi", "cyipopt", "dask", "distributed"),  # extras
    *("jax", "autograd", "torch"),  # peers
}


class Import(NamedTuple):
    target: str
    line: int
    in_function: bool
    type_only: bool


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted((ROOT / "functrace").rglob("*.py"))}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(name: str, source: str, is_package: bool, modules: frozenset[str] = frozenset(SOURCES)) -> Iterator[Import]:
    """Every import of module `name`, relative ones resolved, `from package import module` naming the module."""

    def targets(node: ast.AST) -> list[str]:
        match node:
            case ast.Import():
                return [alias.name for alias in node.names]
            case ast.ImportFrom():
                base = node.module or ""
                if node.level:
                    above = name.split(".")[: None if is_package and node.level == 1 else -(node.level - is_package)]
                    base = ".".join([*above, *filter(None, [base])])
                inner = [f"{base}.{alias.name}" for alias in node.names]
                return [module if module in modules else base for module in inner]
            case ast.Call(
                func=ast.Name("import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(str(target)), *_],
            ):
                return [target]
        return []

    def walk(node: ast.AST, in_function: bool, type_only: bool) -> Iterator[Import]:
        for target in targets(node):
            yield Import(target, node.lineno, in_function, type_only)
        in_function |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        otherwise = node.orelse if is_type_checking(node) else []
        for child in ast.iter_child_nodes(node):
            yield from walk(child, in_function, type_only or (is_type_checking(node) and child not in otherwise))

    return walk(ast.parse(source), False, False)


def imports_of(name: str) -> list[Import]:
    path = SOURCES[name]
    return list(imports(name, path.read_text(encoding="utf-8"), path.name == "__init__.py"))


def is_ours(target: str) -> bool:
    return target.partition(".")[0] == "functrace"


def floor(name: str) -> int:
    head = name.removeprefix("functrace").removeprefix(".").partition(".")[0]
    for level, names in enumerate(FLOORS):
        if head in names:
            return level
    raise AssertionError(f"{name} stands on no floor; add it to FLOORS at the place the design gives it")


def faults(name: str, found: list[Import]) -> list[str]:
    """What module `name` imports against the rules, a line each."""
    messages = []
    for target, line, in_function, _ in found:
        if is_ours(target):
            if floor(target) > floor(name):
                messages.append(f"{name}:{line} imports {target}, which stands on a floor below it")
            if in_function:
                messages.append(f"{name}:{line} imports {target} inside a function; import it at the top")
        elif in_function and target.partition(".")[0] not in LAZY:
            messages.append(f"{name}:{line} imports {target} inside a function; only {', '.join(sorted(LAZY))} may be")
    return messages


def circle(found: dict[str, list[Import]]) -> list[str]:
    """A circle among the imports that run, or nothing."""
    ran = {name: {i.target for i in listed if not i.type_only} for name, listed in found.items()}
    try:
        TopologicalSorter(ran).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.mark.parametrize("name", SOURCES)
def test_module_imports_only_from_floors_above(name):
    assert not faults(name, imports_of(name))


def test_no_import_circles():
    assert not circle({name: imports_of(name) for name in SOURCES})


def test_faults_finds_what_is_planted():
    modules = frozenset({"functrace.transforms", "functrace.core.trace", "functrace.errors", "functrace.core"})
    source = """
from __future__ import annotations
from typing import TYPE_CHECKING
from functrace import transforms
from .. import errors
from . import trace
if TYPE_CHECKING:
    from functrace.numpy import array
def lazy():
    import scipy.special
    import json
    from functrace.util import split
    importlib.import_module("functrace.errors")
"""
    found = list(imports("functrace.core.ir", source, False, modules))
    ours = {i.target for i in found if is_ours(i.target)}
    assert ours == {*modules - {"functrace.core"}, "functrace.numpy", "functrace.util"}
    lines = [message.split(" ", 2)[0].split(":")[1] for message in faults("functrace.core.ir", found)]
    assert lines == ["4", "8", "11", "12", "13"]


def test_circle_finds_what_is_planted():
    a = list(imports("functrace.core.a", "from functrace.core import b", False, frozenset({"functrace.core.b"})))
    b = list(imports("functrace.core.b", "from .a import x", False, frozenset({"functrace.core.a"})))
    assert len(circle({"functrace.core.a": a, "functrace.core.b": b})) == 3
    typed = list(imports("functrace.core.b", "if TYPE_CHECKING:\n    from .a import x", False))
    assert not circle({"functrace.core.a": a, "functrace.core.b": typed})
