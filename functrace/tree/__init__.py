"""Pytrees: nested containers as a flat list of leaves and a hashable description of the nesting.

Nodes are tuples, lists, dicts, `OrderedDict`s, `defaultdict`s, None (a node without children), named tuples,
dataclasses and registered classes; all else is a leaf. As in JAX the exact type decides: a subclass of a node is a
leaf unless it is a node itself.

A dataclass needs no registration: its class becomes a node when first met, as by `register_dataclass(cls)` (every
field a child, but those declared `field(metadata=dict(static=True))`). A *frozen* dataclass is a value, hence a leaf
until it is registered; so is an undecorated subclass, whose further attributes rebuilding would lose.
"""

from __future__ import annotations

import builtins
import functools
from collections.abc import Callable
from typing import Any

from functrace.tree.nodes import (
    DictKey,
    GetAttrKey,
    KeyPath,
    SequenceKey,
    keystr,
    not_a,
    register_dataclass,
    register_pytree_node,
    register_pytree_node_class,
)
from functrace.tree.treedef import ABSENT, IsLeaf, TreeDef, flatten, leaves, structure, unflatten

__all__ = [
    "DictKey",
    "GetAttrKey",
    "SequenceKey",
    "TreeDef",
    "all",
    "broadcast_prefix",
    "flatten",
    "flatten_with_path",
    "keystr",
    "leaves",
    "leaves_with_path",
    "map",
    "map_with_path",
    "reduce",
    "register_dataclass",
    "register_pytree_node",
    "register_pytree_node_class",
    "structure",
    "transpose",
    "unflatten",
]


def map(f: Callable[..., Any], tree: Any, *rest: Any, is_leaf: IsLeaf = None) -> Any:
    """Tree of the values of `f` at the leaves of one or several trees.

    Args: f: takes one leaf of each tree; tree, is_leaf: as for `flatten`.
        rest: trees that begin like `tree`; what lies deeper is passed to `f` as it is.
    Returns: the tree of results, like `tree`. Raises: TreeError: a tree in `rest` differs from `tree`.

    >>> from functrace import tree
    >>> tree.map(lambda x, y: x + y, {'a': 1, 'b': (2, 3)}, {'a': 10, 'b': (20, 30)})
    {'a': 11, 'b': (22, 33)}
    """
    if not callable(f):
        raise not_a("map", "a function first", f, "write tree.map(f, tree)")
    found, treedef = flatten(tree, is_leaf)
    columns = [found, *[treedef.flatten_up_to(other) for other in rest]]
    return treedef.unflatten([f(*values) for values in zip(*columns, strict=True)])


def all(tree: Any, is_leaf: IsLeaf = None) -> bool:
    """Whether every leaf is true. Args, Raises: as for `flatten`. Returns: a bool.

    >>> from functrace import tree
    >>> tree.all({'a': True, 'b': (1, 0)})
    False
    """
    return builtins.all(leaves(tree, is_leaf))


def reduce(function: Callable[..., Any], tree: Any, initializer: Any = ABSENT, is_leaf: IsLeaf = None) -> Any:
    """Leaves combined from the left: `function(function(initializer, first), second)` and so on.

    Args: function: takes the result so far and a leaf; tree, is_leaf: as for `flatten`.
        initializer: the first result so far; without it, the first leaf.
    Returns: the last result. Raises: TypeError: neither a leaf nor an `initializer`.

    >>> reduce(lambda total, x: total + x, {'a': 1, 'b': (2, 3)}, 10)
    16
    """
    if not callable(function):
        raise not_a("reduce", "a function first", function, "write tree.reduce(function, tree)")
    return functools.reduce(function, ([] if initializer is ABSENT else [initializer]) + leaves(tree, is_leaf))


def transpose(outer: TreeDef, inner: TreeDef, tree: Any) -> Any:
    """Tree of trees with the two structures exchanged: a pair of dicts becomes a dict of pairs.

    Args: outer: the structure that `tree` begins with; inner: the structure of each subtree there.
    Returns: a tree that begins like `inner`, with a tree like `outer` at each leaf.
    Raises: TreeError: `tree` is not an `outer` of `inner`s.

    >>> transpose(structure((0, 0)), structure({'x': 0, 'y': 0}), ({'x': 1, 'y': 2}, {'x': 3, 'y': 4}))
    {'x': (1, 3), 'y': (2, 4)}
    """
    for treedef in (outer, inner):
        if not isinstance(treedef, TreeDef):
            raise not_a("transpose", "two TreeDefs and a tree", treedef, "make them with structure(tree)")
    rows = [inner.flatten_up_to(subtree) for subtree in outer.flatten_up_to(tree)]
    columns = zip(*rows, strict=True) if rows else [()] * inner.num_leaves
    return inner.unflatten([outer.unflatten(column) for column in columns])


def flatten_with_path(tree: Any, is_leaf: IsLeaf = None) -> tuple[list[tuple[KeyPath, Any]], TreeDef]:
    """Leaves of a tree with the path to each, and its structure.

    Args, Raises: as for `flatten`. Returns: the list of (path, leaf), and the `TreeDef`. `keystr` prints a path.

    >>> flatten_with_path({'a': [5]})
    ([((DictKey(key='a'), SequenceKey(idx=0)), 5)], TreeDef({'a': [*]}))
    """
    found, treedef = flatten(tree, is_leaf)
    paths = [path for path, node in zip(treedef._paths(), reversed(treedef._spec), strict=True) if node is None]
    return [*zip(reversed(paths), found, strict=True)], treedef


def leaves_with_path(tree: Any, is_leaf: IsLeaf = None) -> list[tuple[KeyPath, Any]]:
    """Leaves of a tree with the path to each. Args, Raises: as for `flatten`. Returns: the list of (path, leaf).

    >>> [(keystr(path), leaf) for path, leaf in leaves_with_path({'a': [5, 6]})]
    [("['a'][0]", 5), ("['a'][1]", 6)]
    """
    return flatten_with_path(tree, is_leaf)[0]


def map_with_path(f: Callable[..., Any], tree: Any, *rest: Any, is_leaf: IsLeaf = None) -> Any:
    """Tree of the values of `f(path, leaf, *others)`. Args, Returns, Raises: as for `map`.

    >>> map_with_path(lambda path, x: f'{keystr(path)} = {x}', {'a': [5]})
    {'a': ["['a'][0] = 5"]}
    """
    if not callable(f):
        raise not_a("map_with_path", "a function first", f, "write tree.map_with_path(f, tree)")
    found, treedef = flatten_with_path(tree, is_leaf)
    columns = [treedef.flatten_up_to(other) for other in rest]
    return treedef.unflatten([f(*step, *others) for step, *others in zip(found, *columns, strict=True)])


def broadcast_prefix(prefix_tree: Any, full_tree: Any, is_leaf: IsLeaf = None) -> list[Any]:
    """Leaves of a prefix tree, each repeated for every leaf of the full tree below it.

    Args: prefix_tree: a tree that `full_tree` begins like, such as `in_axes`; full_tree: any pytree.
        is_leaf: as for `flatten`, for the prefix; `lambda node: node is None` lets it hold None.
    Returns: one entry for each leaf of `full_tree`. Raises: TreeError: it does not begin like `prefix_tree`.

    >>> broadcast_prefix((0, None), ([1, 2], {'a': 3}), is_leaf=lambda node: node is None)
    [0, 0, None]
    """
    prefix, treedef = flatten(prefix_tree, is_leaf)
    subtrees = treedef.flatten_up_to(full_tree)
    return [leaf for leaf, subtree in zip(prefix, subtrees, strict=True) for _ in leaves(subtree)]
