"""Pytree arguments and results for a flat compiled program, by a function generated for their structures.

Where `tree.flatten` finds out what the containers are, the generated function only checks that they are what they
were: for a dictionary of six arrays in and out that is a fifth of the time. The text contains no name of the user's:
keys are bound as values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from functrace import tree

__all__ = ["flattening", "missed"]

_MISSED = object()
_LARGEST = 256  # nodes: beyond, the time goes into the arrays, and the parser limits the depth


def missed(*_args: Any, **_kwargs: Any) -> Any:
    """The fallback to give to a flat dispatcher, so that `flattening` sees that it has not served the call."""
    return _MISSED


def flattening(
    arguments: tree.TreeDef, results: tree.TreeDef, flat: Callable[..., Any], fallback: Callable[..., Any]
) -> Callable[..., Any]:
    """Computes a function of pytrees from one of their leaves.

    Args:
        arguments: structure of the tuple of positional arguments.
        results: structure of what to return.
        flat: takes the arguments' leaves and gives a tuple of the results', or what `missed` gives.
        fallback: called with the arguments as they came if their structure differs, or if `flat` has missed.

    Returns:
        The function. It takes keyword arguments only to hand them to the fallback.

    >>> from functrace import tree
    >>> structure = tree.structure(({'a': 0, 'b': 0},))
    >>> add = flattening(structure, tree.structure([0]), lambda a, b: (a + b,), lambda *args: "another structure")
    >>> add({'b': 1, 'a': 2}), add({'a': 1})
    ([3], 'another structure')
    """
    lines = _Unpacking()
    if len(arguments._spec) > _LARGEST or not lines.root(arguments):
        return _general(arguments, results, flat, fallback)
    namespace = lines.bound | {"flat": flat, "fallback": fallback, "MISSED": _MISSED, "build": results.unflatten}
    exec(lines.text(), namespace)
    return namespace["call"]


def _general(
    arguments: tree.TreeDef, results: tree.TreeDef, flat: Callable[..., Any], fallback: Callable[..., Any]
) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        leaves, found = tree.flatten(args)
        outputs: Any = flat(*leaves) if found == arguments and not kwargs else _MISSED
        return fallback(*args, **kwargs) if outputs is _MISSED else results.unflatten(outputs)

    return call


class _Unpacking:
    """The lines of a function that takes the leaves out of tuples, lists and dictionaries with text keys."""

    def __init__(self) -> None:
        self.bound: dict[str, Any] = {}
        self.leaves: list[str] = []
        self.lines: list[str] = []
        self.names = 0

    def root(self, arguments: tree.TreeDef) -> bool:
        """Writes the lines; false if there is a container of another kind."""
        names = [self.name() for _ in arguments.children()]
        if names:
            self.lines.append(f"{', '.join(names)}, = args")
        self.count = len(names)
        return all(self.node(*each) for each in zip(names, arguments.children(), strict=True))

    def name(self) -> str:
        self.names += 1
        return f"x{self.names}"

    def node(self, value: str, structure: tree.TreeDef) -> bool:
        last = structure._spec[-1]
        if last is None:
            self.leaves.append(value)
            return True
        kind, size, aux = last
        if kind.type not in (tuple, list, dict) or (size and kind.type is dict and {*map(type, aux)} != {str}):
            return False
        self.lines.append(
            f"if type({value}) is not {kind.type.__name__} or len({value}) != {size}: return fallback(*args)"
        )
        names = [self.name() for _ in range(size)]
        for position, name in enumerate(names):
            key = str(position)
            if kind.type is dict:
                key = f"key{len(self.bound)}"
                self.bound[key] = aux[position]
            self.lines.append(f"{name} = {value}[{key}]")
        return all(self.node(*each) for each in zip(names, structure.children(), strict=True))

    def text(self) -> str:
        """A key that is not there, or a list that another thread makes shorter meanwhile, is another structure."""
        return "\n".join(
            [
                "def call(*args, **kwargs):",
                f"    if kwargs or len(args) != {self.count}: return fallback(*args, **kwargs)",
                "    try:",
                *[f"        {line}" for line in self.lines or ["pass"]],
                "    except (KeyError, IndexError):",
                "        return fallback(*args)",
                f"    outputs = flat({', '.join(self.leaves)})",
                "    if outputs is MISSED: return fallback(*args)",
                "    return build(outputs)",
            ]
        )
