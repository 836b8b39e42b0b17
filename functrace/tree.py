"""Pytrees: nested containers as a flat list of leaves and a hashable description of the nesting.

Nodes are tuples, lists, dicts, `OrderedDict`s, `defaultdict`s, None (a node without children), named tuples,
dataclasses and registered classes; all else is a leaf. As in JAX the exact type decides: a subclass of a node is a
leaf unless it is a node itself. The one idea: a `TreeDef` is the postorder listing of the nodes in one tuple, so
rebuilding is a loop with a stack, and comparing and hashing happen in C. Imports `errors` only.

A dataclass needs no registration: its class becomes a node when first met, as by `register_dataclass(cls)` (every
field a child, but those declared `field(metadata=dict(static=True))`). A *frozen* dataclass is a value, hence a leaf
until it is registered; so is an undecorated subclass, whose further attributes rebuilding would lose.
"""

from __future__ import annotations

import builtins
import dataclasses
import functools
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, TypeVar

from functrace.errors import NonHashableError, RegistrationError, TreeError
from functrace.util import user_line

IsLeaf = Callable[[Any], bool] | None
KeyPath = tuple[Any, ...]  # its steps are the three classes below
_Class = TypeVar("_Class", bound=type[Any])
_ABSENT: Any = object()
_LIMIT = 10_000  # entries in a table: a program that keeps making types or structures shall not fill the memory


@dataclasses.dataclass(frozen=True)
class SequenceKey:
    idx: int  # position in a tuple or list, or among the children of a registered class


@dataclasses.dataclass(frozen=True)
class DictKey:
    key: Any


@dataclasses.dataclass(frozen=True)
class GetAttrKey:
    name: str  # field of a named tuple or dataclass


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class _Kind:
    """A type of node with all its rules; `aux` is what the children do not tell: dict keys, static values."""

    type: type[Any]
    flatten: Callable[[Any], tuple[Any, Any]]  # node -> children, aux
    unflatten: Callable[[Any, Sequence[Any]], Any]  # aux, children -> node
    keys: Callable[[Any, int], Iterable[Any]] = lambda aux, size: [SequenceKey(index) for index in range(size)]
    custom: bool = False  # unflatten runs the user's code
    automatic: bool = False  # made without registration

    def __reduce__(self) -> tuple[Any, ...]:
        return _known, (self.type,)


def _flatten_dict(tree: dict[Any, Any]) -> tuple[Sequence[Any], tuple[Any, ...]]:
    if not tree:  # the keyword arguments of most calls
        return (), ()
    try:
        keys = tuple(sorted(tree))
    except TypeError as error:
        remedy = "use keys of one sortable type, or an OrderedDict, which keeps its own order"
        raise TreeError(
            "dict keys in a pytree cannot be sorted", where=user_line(), got=f"keys {[*tree]}", remedy=remedy
        ) from error
    return (itemgetter(*keys)(tree) if len(keys) > 1 else [tree[key] for key in keys]), keys


def _typed(*static: Any) -> tuple[Any, ...] | None:
    """Static values with their types: 1 == 1.0 == True must not make two structures equal."""
    return (static, *[type(value) for value in static]) if static else None


_TUPLE = _Kind(tuple, lambda tree: (tree, None), lambda aux, children: tuple(children))
_LIST = _Kind(list, lambda tree: (tree, None), lambda aux, children: [*children])
_NONE = _Kind(type(None), lambda tree: ((), None), lambda aux, children: None)
_DICT = _Kind(
    dict,
    _flatten_dict,
    lambda keys, children: dict(zip(keys, children, strict=True)),
    lambda keys, size: [DictKey(key) for key in keys],
)
_ORDERED_DICT = _Kind(
    OrderedDict,
    lambda tree: ([*tree.values()], tuple(tree)),
    lambda keys, children: OrderedDict(zip(keys, children, strict=True)),
    _DICT.keys,
)
_DEFAULT_DICT = _Kind(
    defaultdict,
    lambda tree: ((flat := _flatten_dict(tree))[0], (flat[1], tree.default_factory)),
    lambda aux, children: defaultdict(aux[1], zip(aux[0], children, strict=True)),
    lambda aux, size: _DICT.keys(aux[0], size),
)


def _dataclass_kind(
    cls: type[Any], data: Sequence[str] | None = None, meta: Sequence[str] | None = None, automatic: bool = False
) -> _Kind:
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    if meta is None:
        static = [name for name, field in fields.items() if field.metadata.get("static")]
        meta = static if data is None else [name for name in fields if name not in data]
    names = [name for name in fields if name not in meta] if data is None else [*data]
    every = (*names, *meta)
    if sorted(every) != sorted(fields):
        remedy = "name each field that __init__ takes once, in one of the two"
        raise RegistrationError(f"data_fields and meta_fields of {cls} name {every}, not {[*fields]}", remedy=remedy)

    def flatten(node: Any) -> tuple[list[Any], Any]:
        return [getattr(node, name) for name in names], _typed(*[getattr(node, name) for name in meta])

    def unflatten(aux: Any, children: Sequence[Any]) -> Any:
        try:
            return cls(**dict(zip(every, (*children, *aux[0]) if aux else children, strict=True)))
        except Exception as error:
            error.add_note(f"{cls} is rebuilt by calling it with its fields; register_pytree_node can do it otherwise")
            raise

    return _Kind(cls, flatten, unflatten, lambda aux, size: [GetAttrKey(name) for name in names], True, automatic)


class _Kinds(dict[type[Any], _Kind | None]):
    """Types met so far: their kind, or None for a leaf. An unknown type is classified once, when first met."""

    lock = threading.RLock()

    def __missing__(self, cls: type[Any]) -> _Kind | None:
        kind: _Kind | None = None
        if issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_make"):
            make, keys = cls._make, [GetAttrKey(name) for name in cls._fields]
            kind = _Kind(cls, _TUPLE.flatten, lambda _, children: make(children), lambda *_: keys, automatic=True)
        elif "__dataclass_fields__" in vars(cls) and not cls.__dataclass_params__.frozen:
            kind = _dataclass_kind(cls, automatic=True)
        with self.lock:
            return self.setdefault(cls, kind) if kind or len(self) < _LIMIT else None

    def register(self, kind: _Kind) -> None:
        with self.lock:
            known = self.get(kind.type)
            if known is not None and not known.automatic:
                raise RegistrationError(f"{kind.type} is already a pytree node", remedy="register each class once")
            self[kind.type] = kind


_KINDS = _Kinds({kind.type: kind for kind in (_TUPLE, _LIST, _NONE, _DICT, _ORDERED_DICT, _DEFAULT_DICT)})


def _known(cls: type[Any]) -> _Kind:
    if (kind := _KINDS[cls]) is None:
        raise TreeError(f"{cls} is not a pytree node", remedy="register the class before unpickling its TreeDef")
    return kind


_Node = tuple[_Kind, int, Any]  # kind, number of children, aux
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
        if kind is _TUPLE:
            return f"({''.join([f'{part},' for part in parts])})"
        name = f"n{len(bound)}"
        bound[name] = aux if kind is _DICT else functools.partial(kind.unflatten, aux)
        if kind is _DICT:
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
            children, actual = kind.flatten(subtree) if _KINDS[type(subtree)] is kind else ((), _ABSENT)
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
_FLAT_TUPLES = [TreeDef((None,) * size + ((_TUPLE, size, None),)) for size in range(32)]
_INTERNED: dict[_Spec, TreeDef] = {treedef._spec: treedef for treedef in (_LEAF, *_FLAT_TUPLES)}


def _walk(trees: Iterable[Any], is_leaf: IsLeaf, leaves: list[Any], spec: list[_Node | None]) -> bool:
    """Append the leaves and nodes of `trees`; tell whether equal structures may share one `TreeDef`."""
    shared = True
    for tree in trees:
        kind = _KINDS[type(tree)]
        if kind is None or (is_leaf is not None and is_leaf(tree)):
            leaves.append(tree)
            spec.append(None)
            continue
        children, aux = kind.flatten(tree)
        if kind is _DICT:
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
    kind = _KINDS[type(tree)]
    if kind is None or (is_leaf is not None and is_leaf(tree)):
        return [tree], _LEAF
    if kind is _TUPLE and is_leaf is None and len(tree) < len(_FLAT_TUPLES):  # the arguments of nearly every call
        for child in tree:
            if _KINDS[type(child)] is not None:
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
        if shared and len(_INTERNED) < _LIMIT:
            treedef = _INTERNED.setdefault(spec, treedef)
    return found, treedef


def unflatten(treedef: TreeDef, leaves: Iterable[Any]) -> Any:
    """Tree of the given structure and leaves, the inverse of `flatten`.

    Args: treedef: the structure; leaves: one value for each leaf, in order.
    Returns: the tree. Raises: TreeError: too few or too many leaves.

    >>> unflatten(structure({'a': 0, 'b': (0, 0)}), [1, 2, 3])
    {'a': 1, 'b': (2, 3)}
    """
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


def map(f: Callable[..., Any], tree: Any, *rest: Any, is_leaf: IsLeaf = None) -> Any:
    """Tree of the values of `f` at the leaves of one or several trees.

    Args: f: takes one leaf of each tree; tree, is_leaf: as for `flatten`.
        rest: trees that begin like `tree`; what lies deeper is passed to `f` as it is.
    Returns: the tree of results, like `tree`. Raises: TreeError: a tree in `rest` differs from `tree`.

    >>> from functrace import tree
    >>> tree.map(lambda x, y: x + y, {'a': 1, 'b': (2, 3)}, {'a': 10, 'b': (20, 30)})
    {'a': 11, 'b': (22, 33)}
    """
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


def reduce(function: Callable[..., Any], tree: Any, initializer: Any = _ABSENT, is_leaf: IsLeaf = None) -> Any:
    """Leaves combined from the left: `function(function(initializer, first), second)` and so on.

    Args: function: takes the result so far and a leaf; tree, is_leaf: as for `flatten`.
        initializer: the first result so far; without it, the first leaf.
    Returns: the last result. Raises: TypeError: neither a leaf nor an `initializer`.

    >>> reduce(lambda total, x: total + x, {'a': 1, 'b': (2, 3)}, 10)
    16
    """
    return functools.reduce(function, ([] if initializer is _ABSENT else [initializer]) + leaves(tree, is_leaf))


def transpose(outer: TreeDef, inner: TreeDef, tree: Any) -> Any:
    """Tree of trees with the two structures exchanged: a pair of dicts becomes a dict of pairs.

    Args: outer: the structure that `tree` begins with; inner: the structure of each subtree there.
    Returns: a tree that begins like `inner`, with a tree like `outer` at each leaf.
    Raises: TreeError: `tree` is not an `outer` of `inner`s.

    >>> transpose(structure((0, 0)), structure({'x': 0, 'y': 0}), ({'x': 1, 'y': 2}, {'x': 3, 'y': 4}))
    {'x': (1, 3), 'y': (2, 4)}
    """
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


def keystr(path: KeyPath) -> str:
    """Path as Python writes it. Args: path: as from `flatten_with_path`. Returns: the text.

    >>> keystr((DictKey('a'), SequenceKey(0), GetAttrKey('x')))
    "['a'][0].x"
    """
    forms = {SequenceKey: "[{0.idx}]", DictKey: "[{0.key!r}]", GetAttrKey: ".{0.name}"}
    return "".join([forms[type(key)].format(key) for key in path])


def register_pytree_node(
    nodetype: type[Any], flatten_func: Callable[[Any], tuple[Iterable[Any], Any]], unflatten_func: Callable[..., Any]
) -> None:
    """Make a class a pytree node.

    Args: nodetype: the class; its subclasses stay leaves.
        flatten_func: node -> (children, aux); aux must be hashable where the tree reaches a cache, as in `jit`.
        unflatten_func: aux, children -> node; the children may be any objects.
    Raises: RegistrationError: the class is a node already.

    >>> class Interval(tuple): pass
    >>> register_pytree_node(Interval, lambda node: (tuple(node), None), lambda aux, ends: Interval(ends))
    >>> flatten(Interval([1, 2]))
    ([1, 2], TreeDef(Interval(*, *)))
    """

    def flatten(node: Any) -> tuple[tuple[Any, ...], Any]:
        children, aux = flatten_func(node)
        return tuple(children), None if aux is None else _typed(aux)

    def unflatten(aux: Any, children: Sequence[Any]) -> Any:
        return unflatten_func(aux and aux[0][0], tuple(children))

    _KINDS.register(_Kind(nodetype, flatten, unflatten, custom=True))


def register_pytree_node_class(cls: _Class) -> _Class:
    """Make a class with `tree_flatten(self)` and a classmethod `tree_unflatten(cls, aux, children)` a pytree node.

    Args: cls: the class. Returns: the class, so that this is a decorator. Raises: as `register_pytree_node`.

    >>> @register_pytree_node_class
    ... class Box(list):
    ...     tree_flatten = lambda self: ([*self], None)
    ...     tree_unflatten = classmethod(lambda cls, aux, children: cls(children))
    >>> structure(Box([3, 4]))
    TreeDef(Box(*, *))
    """
    register_pytree_node(cls, cls.tree_flatten, cls.tree_unflatten)
    return cls


def register_dataclass(
    cls: _Class, data_fields: Sequence[str] | None = None, meta_fields: Sequence[str] | None = None
) -> _Class:
    """Make a dataclass a pytree node: needed for frozen ones, and to choose the fields.

    A node is rebuilt by calling its class, so fields with `init=False` are no children: `__post_init__` sets them.

    Args: cls: the dataclass; data_fields: names of the children, by default the fields not in `meta_fields`.
        meta_fields: names of the hashable fields that belong to the structure, by default the fields not in
            `data_fields`, or without it those declared with `metadata=dict(static=True)`.
    Returns: the class, so that this is a decorator.
    Raises: RegistrationError: no dataclass, a node already, or not the names of its fields.

    >>> @register_dataclass
    ... @dataclasses.dataclass(frozen=True)
    ... class Spring:
    ...     stiffness: float
    ...     name: str = dataclasses.field(metadata=dict(static=True))
    >>> flatten(Spring(2.0, 'left'))
    ([2.0], TreeDef(Spring(*, 'left')))
    """
    if not dataclasses.is_dataclass(cls):
        raise RegistrationError(f"{cls} is not a dataclass", remedy="decorate it, or use register_pytree_node")
    _KINDS.register(_dataclass_kind(cls, data_fields, meta_fields))
    return cls
