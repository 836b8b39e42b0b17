"""The structure of a tree, and its leaves: `flatten` takes a tree apart, `unflatten` rebuilds it.

A `TreeDef` is the postorder listing of the nodes in one tuple, so rebuilding is a loop with a stack, and comparing and
hashing happen in C.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat
from typing import Any

from functrace.errors import NonHashableError, TreeError
from functrace.tree.nodes import DICT, KINDS, LIMIT, TUPLE, KeyPath, Kind, keystr, not_a

IsLeaf = Callable[[Any], bool] | None
ABSENT: Any = object()


_Node = tuple[Kind, int, Any]  # kind, number of children, aux
_Spec = tuple[_Node | None, ...]  # nodes in postorder; None is a leaf


def _fold(spec: _Spec, leaves: Iterator[Any], rule: Callable[[_Node, list[Any]], Any]) -> list[Any]:
    """Replace every node, children first, by `rule(node, what its children became)`; what the roots became remains."""
    stack: list[Any] = []
    for node in spec:
        if node is None:
            stack.append(next(leaves))
        else:
            start = len(stack) - node[1]
            stack[start:] = [rule(node, stack[start:])]
    return stack


class _Text(str):
    __repr__ = str.__str__  # containers print it without quotes


def _show(spec: _Spec) -> str:
    def text(node: _Node, parts: list[_Text]) -> _Text:
        kind, _, aux = node
        if not kind.custom:
            return _Text(repr(kind.unflatten(aux, parts)))
        static = [repr(value) for value in aux[0]] if aux else []
        return _Text(f"{kind.type.__name__}({', '.join([*parts, *static])})")

    return _fold(spec, repeat(_Text("*")), text)[-1]


def _compile(spec: _Spec) -> Callable[..., Any]:
    """Function of the leaves that rebuilds the tree in one expression, several times faster than `_fold`."""
    bound: dict[str, Any] = {}  # the generated code contains no text of the user's: keys and the like are bound
    names = [f"x{index}" for index in range(spec.count(None))]

    def expression(node: _Node, parts: list[str]) -> str:
        kind, _, aux = node
        if kind is TUPLE:
            return f"({''.join([f'{part},' for part in parts])})"
        name = f"n{len(bound)}"
        bound[name] = aux if kind is DICT else functools.partial(kind.unflatten, aux)
        if kind is DICT:
            return f"{{{','.join([f'{name}[{index}]:{part}' for index, part in enumerate(parts)])}}}"
        return f"{name}([{','.join(parts)}])"

    return eval(f"lambda {','.join(names)}: {_fold(spec, iter(names), expression)[0]}", bound)


class TreeDef:
    """Structure of a pytree, made by `flatten` or `structure`; immutable, hashable, picklable; has `num_leaves`.

    >>> structure({'a': 1, 'b': (2, 3)})
    TreeDef({'a': *, 'b': (*, *)})
    """

    __slots__ = ("__weakref__", "_build", "_hash", "_met", "_spec", "num_leaves")

    def __init__(self, spec: _Spec) -> None:
        self._spec, self.num_leaves, self._met = spec, spec.count(None), False
        self._build: Callable[..., Any] | None = None
        self._hash: int | None = None

    def unflatten(self, leaves: Iterable[Any]) -> Any:
        """Tree of this structure and the given leaves: the function `unflatten` as a method."""
        values = leaves if type(leaves) is list or type(leaves) is tuple else [*leaves]
        if len(values) != self.num_leaves:
            remedy = "pass one value for each leaf, in the order of flatten"
            raise TreeError(f"expected {self.num_leaves} leaves for {self}, got {len(values)}", remedy=remedy)
        if self._build is not None:
            return self._build(*values)
        if self._met:  # worth its price at the second use
            self._build = _compile(self._spec)
        self._met = len(self._spec) <= 64  # what is larger gains little, and may nest deeper than the parser allows
        return _fold(self._spec, iter(values), lambda node, children: node[0].unflatten(node[2], children))[0]

    def flatten_up_to(self, tree: Any) -> list[Any]:
        """Subtrees of a tree at the leaves of this structure, in order.

        Args: tree: a pytree that begins like this structure and may go deeper. Returns: a list.
        Raises: TreeError: the tree differs; names a path where it does, and both structures.

        >>> structure((0, 0)).flatten_up_to(([1, 2], 3))
        [[1, 2], 3]
        """
        found, stack = [], [tree]
        for index, node in enumerate(reversed(self._spec)):  # the root, then its last child
            subtree = stack.pop()
            if node is None:
                found.append(subtree)
                continue
            kind, size, aux = node
            children, actual = kind.flatten(subtree) if KINDS[type(subtree)] is kind else ((), ABSENT)
            if len(children) != size or actual != aux:
                raise self._mismatch(index, tree, subtree)
            stack += children
        found.reverse()
        return found

    def children(self) -> list[TreeDef]:
        """Structures of the root's children. Returns: a list, empty for a leaf.

        >>> structure((1, [2, 3])).children()
        [TreeDef(*), TreeDef([*, *])]
        """
        return [TreeDef(spec) for spec in _fold(self._spec[:-1], repeat((None,)), lambda n, parts: (*chain(*parts), n))]

    def _paths(self) -> list[KeyPath]:
        """Path to each node and leaf: the root, then its last child."""
        found: list[KeyPath] = []
        stack: list[KeyPath] = [()]
        for node in reversed(self._spec):
            found.append(path := stack.pop())
            stack += [(*path, key) for key in node[0].keys(node[2], node[1])] if node else ()
        return found

    def _mismatch(self, index: int, tree: Any, subtree: Any) -> TreeError:
        want, got = _show(self._spec[: len(self._spec) - index]), _show(structure(subtree)._spec)
        if want == got:  # classes of one name, such as a class defined twice in a notebook
            got += " of another type or with other static values"
        what = f"expected {want} at {keystr(self._paths()[index]) or 'the root'}, got {got}"
        remedy = "give both trees the same containers, lengths, keys and static values (a list is not a tuple)"
        return TreeError(what, got=f"{structure(tree)} where {self} was expected", remedy=remedy)

    def __eq__(self, other: object) -> bool:
        return self is other or (self._spec == other._spec if isinstance(other, TreeDef) else NotImplemented)

    def __hash__(self) -> int:
        if self._hash is None:
            try:
                self._hash = hash(self._spec)
            except TypeError as error:
                remedy = "make meta fields and the aux data of registered classes hashable (a tuple, not a list)"
                raise NonHashableError(f"{self} cannot be hashed: {error}", remedy=remedy) from error
        return self._hash

    def __repr__(self) -> str:
        return f"TreeDef({_show(self._spec)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return TreeDef, (self._spec,)


_LEAF = TreeDef((None,))
_FLAT_TUPLES = [TreeDef((None,) * size + ((TUPLE, size, None),)) for size in range(32)]
_INTERNED: dict[_Spec, TreeDef] = {treedef._spec: treedef for treedef in (_LEAF, *_FLAT_TUPLES)}


def _walk(trees: Iterable[Any], is_leaf: IsLeaf, leaves: list[Any], spec: list[_Node | None]) -> bool:
    """Append the leaves and nodes of `trees`; tell whether equal structures may share one `TreeDef`."""
    shared = True
    for tree in trees:
        kind = KINDS[type(tree)]
        if kind is None or (is_leaf is not None and is_leaf(tree)):
            leaves.append(tree)
            spec.append(None)
            continue
        children, aux = kind.flatten(tree)
        if kind is DICT:
            for key in aux:
                if type(key) is not str:  # equal keys may differ: 1 == True
                    shared = False
        elif aux is not None:
            shared = False
        if children and not _walk(children, is_leaf, leaves, spec):
            shared = False
        spec.append((kind, len(children), aux))
    return shared


def flatten(tree: Any, is_leaf: IsLeaf = None) -> tuple[list[Any], TreeDef]:
    """Leaves and structure of a tree.

    Args: tree: any pytree; a lone leaf is one.
        is_leaf: says which nodes to take for leaves, for instance `lambda node: node is None`.
    Returns: the list of leaves, and the `TreeDef` that `unflatten` takes.
    Raises: TreeError: unsortable dict keys, or a tree that contains itself.

    >>> flatten(({'b': 3, 'a': [1, 2]}, None))
    ([1, 2, 3], TreeDef(({'a': [*, *], 'b': *}, None)))
    """
    kind = KINDS[type(tree)]
    if kind is None or (is_leaf is not None and is_leaf(tree)):
        return [tree], _LEAF
    if kind is TUPLE and is_leaf is None and len(tree) < len(_FLAT_TUPLES):  # the arguments of nearly every call
        for child in tree:
            if KINDS[type(child)] is not None:
                break
        else:
            return [*tree], _FLAT_TUPLES[len(tree)]
    found: list[Any] = []
    nodes: list[_Node | None] = []
    try:
        shared = _walk((tree,), is_leaf, found, nodes)
    except RecursionError as error:
        remedy = "break the cycle, or stop at an inner node with is_leaf"
        raise TreeError("a pytree contains itself or is nested too deeply", remedy=remedy) from error
    spec = tuple(nodes)
    treedef = _INTERNED.get(spec) if shared else None
    if treedef is None:
        treedef = TreeDef(spec)
        if shared and len(_INTERNED) < LIMIT:
            treedef = _INTERNED.setdefault(spec, treedef)
    return found, treedef


def unflatten(treedef: TreeDef, leaves: Iterable[Any]) -> Any:
    """Tree of the given structure and leaves, the inverse of `flatten`.

    Args: treedef: the structure; leaves: one value for each leaf, in order.
    Returns: the tree. Raises: TreeError: too few or too many leaves.

    >>> unflatten(structure({'a': 0, 'b': (0, 0)}), [1, 2, 3])
    {'a': 1, 'b': (2, 3)}
    """
    if type(treedef) is not TreeDef:
        raise not_a("unflatten", "a TreeDef, and then the leaves", treedef, "make one with structure(tree)")
    if type(leaves) not in (list, tuple) and not (hasattr(leaves, "__iter__") or hasattr(leaves, "__getitem__")):
        raise not_a("unflatten", "the leaves in a sequence", leaves, "write unflatten(treedef, [leaf])")
    return treedef.unflatten(leaves)


def leaves(tree: Any, is_leaf: IsLeaf = None) -> list[Any]:
    """Leaves of a tree, in order. Args, Raises: as for `flatten`. Returns: a list.

    >>> leaves({'b': (2, 3), 'a': 1})
    [1, 2, 3]
    """
    return flatten(tree, is_leaf)[0]


def structure(tree: Any, is_leaf: IsLeaf = None) -> TreeDef:
    """Structure of a tree. Args, Raises: as for `flatten`. Returns: its `TreeDef`.

    >>> structure([1, (2,)])
    TreeDef([*, (*,)])
    """
    return flatten(tree, is_leaf)[1]
