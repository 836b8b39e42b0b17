"""The types of nodes: what each is made of, and the registration of classes as further ones."""

from __future__ import annotations

import builtins
import dataclasses
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, TypeVar

from functrace.errors import InputError, RegistrationError, TreeError
from functrace.util import user_line

KeyPath = tuple[Any, ...]  # its steps are the three classes below
_Class = TypeVar("_Class", bound=type[Any])
LIMIT = 10_000  # entries in a table: a program that keeps making types or structures shall not fill the memory


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
class Kind:
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


TUPLE = Kind(tuple, lambda tree: (tree, None), lambda aux, children: tuple(children))
_LIST = Kind(list, lambda tree: (tree, None), lambda aux, children: [*children])
_NONE = Kind(type(None), lambda tree: ((), None), lambda aux, children: None)
DICT = Kind(
    dict,
    _flatten_dict,
    lambda keys, children: dict(zip(keys, children, strict=True)),
    lambda keys, size: [DictKey(key) for key in keys],
)
_ORDERED_DICT = Kind(
    OrderedDict,
    lambda tree: ([*tree.values()], tuple(tree)),
    lambda keys, children: OrderedDict(zip(keys, children, strict=True)),
    DICT.keys,
)
_DEFAULT_DICT = Kind(
    defaultdict,
    lambda tree: ((flat := _flatten_dict(tree))[0], (flat[1], tree.default_factory)),
    lambda aux, children: defaultdict(aux[1], zip(aux[0], children, strict=True)),
    lambda aux, size: DICT.keys(aux[0], size),
)


def _dataclass_kind(
    cls: type[Any], data: Sequence[str] | None = None, meta: Sequence[str] | None = None, automatic: bool = False
) -> Kind:
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

    return Kind(cls, flatten, unflatten, lambda aux, size: [GetAttrKey(name) for name in names], True, automatic)


class _Kinds(dict[type[Any], Kind | None]):
    """Types met so far: their kind, or None for a leaf. An unknown type is classified once, when first met."""

    lock = threading.RLock()

    def __missing__(self, cls: type[Any]) -> Kind | None:
        kind: Kind | None = None
        if issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_make"):
            make, keys = cls._make, [GetAttrKey(name) for name in cls._fields]
            kind = Kind(cls, TUPLE.flatten, lambda _, children: make(children), lambda *_: keys, automatic=True)
        elif "__dataclass_fields__" in vars(cls) and not cls.__dataclass_params__.frozen:
            kind = _dataclass_kind(cls, automatic=True)
        with self.lock:
            return self.setdefault(cls, kind) if kind or len(self) < LIMIT else None

    def register(self, kind: Kind) -> None:
        with self.lock:
            known = self.get(kind.type)
            if known is not None and not known.automatic:
                raise RegistrationError(f"{kind.type} is already a pytree node", remedy="register each class once")
            self[kind.type] = kind


KINDS = _Kinds({kind.type: kind for kind in (TUPLE, _LIST, _NONE, DICT, _ORDERED_DICT, _DEFAULT_DICT)})


def _known(cls: type[Any]) -> Kind:
    if (kind := KINDS[cls]) is None:
        raise TreeError(f"{cls} is not a pytree node", remedy="register the class before unpickling its TreeDef")
    return kind


def not_a(function: str, wanted: str, got: Any, remedy: str) -> InputError:
    return InputError(f"tree.{function} takes {wanted}", where=user_line(), got=type(got).__qualname__, remedy=remedy)


def keystr(path: KeyPath) -> str:
    """Path as Python writes it. Args: path: as from `flatten_with_path`. Returns: the text.

    >>> keystr((DictKey('a'), SequenceKey(0), GetAttrKey('x')))
    "['a'][0].x"
    """
    forms = {SequenceKey: "[{0.idx}]", DictKey: "[{0.key!r}]", GetAttrKey: ".{0.name}"}
    if not isinstance(path, (tuple, list)) or not builtins.all([type(key) in forms for key in path]):
        raise not_a("keystr", "a path of keys", path, "take paths from flatten_with_path")
    return "".join([forms[type(key)].format(key) for key in path])


def register_pytree_node(
    nodetype: type[Any], flatten_func: Callable[[Any], tuple[Iterable[Any], Any]], unflatten_func: Callable[..., Any]
) -> None:
    """Make a class a pytree node.

    Args: nodetype: the class; its subclasses stay leaves.
        flatten_func: node -> (children, aux); aux must be hashable where the tree reaches a cache, as in `jit`.
        unflatten_func: aux, children -> node; the children may be any objects.
    Raises: RegistrationError: the class is a node already.

    >>> from functrace.tree import flatten
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

    KINDS.register(Kind(nodetype, flatten, unflatten, custom=True))


def register_pytree_node_class(cls: _Class) -> _Class:
    """Make a class with `tree_flatten(self)` and a classmethod `tree_unflatten(cls, aux, children)` a pytree node.

    Args: cls: the class. Returns: the class, so that this is a decorator. Raises: as `register_pytree_node`.

    >>> from functrace.tree import structure
    >>> @register_pytree_node_class
    ... class Box(list):
    ...     tree_flatten = lambda self: ([*self], None)
    ...     tree_unflatten = classmethod(lambda cls, aux, children: cls(children))
    >>> structure(Box([3, 4]))
    TreeDef(Box(*, *))
    """
    if not hasattr(cls, "tree_flatten") or not hasattr(cls, "tree_unflatten"):
        raise RegistrationError(
            f"{cls!r} has no methods tree_flatten and tree_unflatten",
            remedy="define both, or use register_pytree_node or register_dataclass",
        )
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

    >>> from functrace.tree import flatten
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
    KINDS.register(_dataclass_kind(cls, data_fields, meta_fields))
    return cls
