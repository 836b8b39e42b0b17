"""Pytrees: round trips of every kind of node, structures as values, paths, and messages that name the remedy."""

import collections
import copy
import dataclasses
import enum
import pickle
import threading
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functrace import tree
from functrace.errors import NonHashableError, RegistrationError, TreeError
from functrace.tree import nodes as node_kinds
from functrace.tree import treedef as treedefs


class Point(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Layer:
    weight: Any
    bias: Any
    name: str = dataclasses.field(default="layer", metadata=dict(static=True))


@tree.register_dataclass
@dataclasses.dataclass(frozen=True)
class Frozen:
    inner: Any


@tree.register_pytree_node_class
@dataclasses.dataclass
class Tagged:
    """Registered by hand, so its being a dataclass does not matter."""

    children: list[Any]
    tag: Any = None

    def tree_flatten(self):
        return iter(self.children), self.tag

    @classmethod
    def tree_unflatten(cls, tag, children):
        assert type(children) is tuple
        return cls([*children], tag)


class Color(enum.StrEnum):
    RED = "red"


def is_none(node):
    return node is None


CASES = {
    "leaf": (5, [5], "*"),
    "tuple": ((1, (2,), ()), [1, 2], "(*, (*,), ())"),
    "list": ([1, [2, []]], [1, 2], "[*, [*, []]]"),
    "dict": ({"b": 1, "a": {"c": 2}}, [2, 1], "{'a': {'c': *}, 'b': *}"),
    "empty dict": ({}, [], "{}"),
    "integer keys": ({2: "x", 1: "y"}, ["y", "x"], "{1: *, 2: *}"),
    "ordered": (collections.OrderedDict(b=1), [1], repr(collections.OrderedDict(b=0)).replace("0", "*")),
    "default": (collections.defaultdict(list, b=1, a=2), [2, 1], "defaultdict(<class 'list'>, {'a': *, 'b': *})"),
    "none": ((None, 1), [1], "(None, *)"),
    "named tuple": (Point(1, [2]), [1, 2], "Point(x=*, y=[*])"),
    "dataclass": (Layer(1, (2, 3)), [1, 2, 3], "Layer(*, (*, *), 'layer')"),
    "registered dataclass": (Frozen((1, 2)), [1, 2], "Frozen((*, *))"),
    "custom": (Tagged([1, 2], "t"), [1, 2], "Tagged(*, *, 't')"),
    "custom without aux": (Tagged([]), [], "Tagged()"),
}


@pytest.mark.parametrize("node, leaves, text", CASES.values(), ids=CASES)
def test_flatten_each_kind(node, leaves, text):
    found, treedef = tree.flatten(node)
    assert found == leaves == tree.leaves(node)
    assert repr(treedef) == f"TreeDef({text})"
    assert treedef.num_leaves == len(leaves)
    assert treedef == tree.structure(node)
    assert hash(treedef) == hash(tree.structure(node))
    for _ in range(3):  # the first use folds, the second compiles, the third runs what was compiled
        rebuilt = treedef.unflatten(leaves)
        assert rebuilt == node
        assert type(rebuilt) is type(node)
    for twin in (pickle.loads(pickle.dumps(treedef)), copy.copy(treedef), copy.deepcopy(treedef)):
        assert twin == treedef
        assert hash(twin) == hash(treedef)
        assert tree.unflatten(twin, leaves) == node


class Sublist(list):
    pass


class Subdict(dict):
    pass


class Sublayer(Layer):
    pass


@dataclasses.dataclass(frozen=True)
class Value:
    number: int


@pytest.mark.parametrize(
    "leaf",
    [3.0, "text", np.ones(3), Sublist([1]), Subdict(a=1), Sublayer(1, 2), Value(3), Value, collections.Counter("a")],
    ids=lambda leaf: type(leaf).__name__,
)
def test_flatten_leaves_values_whole(leaf):
    for node in (leaf, (leaf,), {"a": [leaf]}):
        (found,) = tree.leaves(node)
        assert found is leaf


def test_is_leaf_stops_above_a_node():
    assert tree.leaves((None, [1]), is_leaf=is_none) == [None, 1]
    assert tree.leaves((1, [2, 3]), is_leaf=lambda node: isinstance(node, list)) == [1, [2, 3]]
    assert tree.flatten([1], is_leaf=lambda node: True) == ([[1]], tree.structure(0))


def test_default_factory_survives():
    rebuilt = tree.map(lambda x: x, collections.defaultdict(list, a=1))
    assert rebuilt["new"] == []


def test_unflatten_gives_new_containers():
    leaves, treedef = tree.flatten([1, 2])
    for _ in range(3):
        assert treedef.unflatten(leaves) is not leaves


@pytest.mark.parametrize("make", [tuple, iter, np.array])
def test_unflatten_takes_any_iterable(make):
    assert tree.unflatten(tree.structure({"a": 0, "b": [0, 0]}), make([1, 2, 3])) == {"a": 1, "b": [2, 3]}


@pytest.mark.parametrize("leaves", [[], [1], [1, 2, 3]])
def test_unflatten_with_another_number_of_leaves_raises(leaves):
    with pytest.raises(TreeError, match=rf"expected 2 leaves for TreeDef.*got {len(leaves)}\n.*one value for each"):
        tree.unflatten(tree.structure((0, 0)), leaves)


def test_unsortable_keys_raise():
    with pytest.raises(TreeError, match=r"\[1, 'a'\]\n.*keys of one sortable type, or an OrderedDict"):
        tree.flatten([{1: 0, "a": 0}])
    assert tree.leaves(collections.OrderedDict({1: 2, "a": 3})) == [2, 3]


def test_a_tree_that_contains_itself_raises():
    cycle: list[Any] = []
    cycle.append({"self": cycle})
    with pytest.raises(TreeError, match=r"contains itself.*\n.*break the cycle"):
        tree.flatten(cycle)


@pytest.mark.parametrize("wrap", [lambda node: (node,), lambda node: [node], lambda node: {"a": node}, Frozen])
def test_deep_and_wide_trees_round_trip(wrap):
    for depth in (1, 31, 63, 64, 300):
        node: Any = 7
        for _ in range(depth):
            node = wrap(node)
        leaves, treedef = tree.flatten(node)
        assert leaves == [7]
        texts = {str(treedef)} | {str(tree.structure(treedef.unflatten([7]))) for _ in range(3)}
        assert len(texts) == 1
    wide = wrap({index: index for index in range(1000)})
    assert tree.map(lambda x: x, wide) == wide


def test_equal_keys_keep_their_own_type():
    tree.flatten({"red": 0, "x": (1, 2)})
    for key in (1, True, 1.0, Color.RED, "red", np.str_("red")):
        (found,) = tree.map(lambda x: x, {key: 5})
        assert type(found) is type(key)
    assert tree.structure({1: 0}) == tree.structure({True: 0})


def test_keys_are_never_run_as_code():
    keys = ["'], __import__('os').abort(), ['", "x0", "n0", "\n", "}"]
    treedef = tree.structure(dict.fromkeys(keys, 0))
    for _ in range(3):
        assert treedef.unflatten(range(5)) == dict(zip(sorted(keys), range(5), strict=True))


# Structures as values


def test_treedefs_are_shared_and_differ_where_trees_do():
    assert tree.structure(({"a": 1}, None)) is tree.structure(({"a": 2}, None))
    different = [0, (), (0,), [0], (0, 0), ((0,), 0), {"a": 0}, {"b": 0}, None, (None,), Point(0, 0), Layer(0, 0)]
    treedefs = [tree.structure(node) for node in different]
    assert len({*treedefs}) == len(different)
    assert treedefs[0] != "TreeDef(*)"


def test_children_are_the_structures_below_the_root():
    node = (1, [2, {"a": 3}], Tagged([4], 5), None)
    assert tree.structure(node).children() == [tree.structure(child) for child in node]
    assert tree.structure(1).children() == tree.structure(None).children() == []


@pytest.mark.parametrize("static, other", [(1, True), (1, 1.0), ("a", "b")])
def test_static_values_compare_with_their_types(static, other):
    for make in (lambda value: Layer(0, 0, value), lambda value: Tagged([0], value)):
        assert tree.structure(make(static)) == tree.structure(make(static))
        assert tree.structure(make(static)) != tree.structure(make(other))
        with pytest.raises(TreeError, match="same containers, lengths, keys and static values"):
            tree.map(lambda x, y: x, make(static), make(other))


def test_unhashable_static_value_raises_only_when_hashed():
    node = Tagged([1], ["a list"])
    treedef = tree.structure(node)
    assert treedef == tree.structure(copy.deepcopy(node))
    assert tree.map(lambda x: x + 1, node) == Tagged([2], ["a list"])
    for _ in range(2):
        with pytest.raises(NonHashableError, match=r"Tagged\(\*, \['a list'\]\).*unhashable.*\n.*a tuple, not a list"):
            hash(treedef)


def test_threads_agree_on_kinds_and_structures():
    for _ in range(20):
        cls = dataclasses.make_dataclass("Fresh", ["x", "y"])
        barrier, found = threading.Barrier(8), []

        def work(cls=cls, barrier=barrier, found=found):
            barrier.wait()
            treedef = tree.structure({"a": cls(1, (2,))})
            found.append((treedef, [treedef.unflatten([1, 2]) for _ in range(4)]))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({treedef for treedef, _ in found}) == 1
        assert all(node == {"a": cls(1, (2,))} for _, nodes in found for node in nodes)


# Registration


def test_dataclass_fields_that_are_not_initialized_are_set_again():
    @dataclasses.dataclass(kw_only=True, slots=True)
    class Square:
        side: float
        area: float = dataclasses.field(init=False)

        def __post_init__(self):
            self.area = self.side**2

    assert tree.leaves(Square(side=3)) == [3]
    assert tree.map(lambda x: x + 1, Square(side=3)).area == 16


def test_dataclass_that_cannot_be_rebuilt_names_the_way_out():
    @dataclasses.dataclass
    class Picky:
        x: float

        def __post_init__(self):
            self.x = float(self.x)

    with pytest.raises(TypeError) as caught:
        tree.map(lambda x: [x], Picky(1.0))
    assert "register_pytree_node" in caught.value.__notes__[0]


@pytest.mark.parametrize(
    "options, leaves",
    [
        (dict(), [1, 2]),
        (dict(data_fields=["b"]), [2]),
        (dict(meta_fields=["a"]), [2, 3]),
        (dict(data_fields=["c", "a"], meta_fields=["b"]), [3, 1]),
    ],
)
def test_register_dataclass_fills_in_the_fields_not_given(options, leaves):
    @dataclasses.dataclass(frozen=True)
    class Three:
        a: int
        b: int
        c: int = dataclasses.field(default=3, metadata=dict(static=True))

    assert tree.leaves(Three(1, 2)) == [Three(1, 2)]
    assert tree.register_dataclass(Three, **options) is Three
    assert tree.leaves(Three(1, 2)) == leaves
    assert tree.map(lambda x: x, Three(1, 2, 3)) == Three(1, 2, 3)


@pytest.mark.parametrize(
    "options",
    [
        dict(data_fields=["inner", "other"]),
        dict(data_fields=[], meta_fields=[]),
        dict(data_fields=["inner"], meta_fields=["inner"]),
    ],
)
def test_register_dataclass_with_wrong_fields_raises(options):
    cls = dataclasses.make_dataclass("Wrong", ["inner"])
    with pytest.raises(RegistrationError, match=r"not \['inner'\]\n.*name each field that __init__ takes once"):
        tree.register_dataclass(cls, **options)


def test_register_dataclass_of_another_class_raises():
    with pytest.raises(RegistrationError, match=r"not a dataclass\n.*register_pytree_node"):
        tree.register_dataclass(Sublist)


@pytest.mark.parametrize("cls", [tuple, type(None), Frozen, Tagged])
def test_register_twice_raises(cls):
    with pytest.raises(RegistrationError, match=r"already a pytree node\n.*register each class once"):
        tree.register_pytree_node(cls, lambda node: ((), None), lambda aux, children: None)


def test_registration_overrides_what_was_automatic():
    cls = dataclasses.make_dataclass("Late", ["x", "y"])
    before = tree.structure(cls(1, 2))
    tree.register_dataclass(cls, meta_fields=["y"])
    assert tree.leaves(cls(1, 2)) == [1]
    assert before.unflatten([3, 4]) == cls(3, 4)  # an old structure keeps its meaning
    assert before != tree.structure(cls(1, 2))
    with pytest.raises(TreeError, match=r"Late\(\*, \*\) at the root, got Late\(\*, 2\)"):
        before.flatten_up_to(cls(1, 2))


def test_structure_of_an_unregistered_class_cannot_be_unpickled(monkeypatch):
    data = pickle.dumps(tree.structure(Frozen(0)))
    monkeypatch.setitem(node_kinds.KINDS, Frozen, None)
    with pytest.raises(TreeError, match="register the class before unpickling"):
        pickle.loads(data)


def test_tables_stop_growing(monkeypatch):
    monkeypatch.setattr(node_kinds, "LIMIT", 0)
    monkeypatch.setattr(treedefs, "LIMIT", 0)
    kinds, structures = len(node_kinds.KINDS), len(treedefs._INTERNED)
    leaf = type("Unseen", (), {})()
    assert tree.flatten([{"unseen key": leaf}]) == ([leaf], tree.structure([{"unseen key": 0}]))
    assert (len(node_kinds.KINDS), len(treedefs._INTERNED)) == (kinds, structures)


# Functions of trees


def test_map_over_several_trees_passes_subtrees_whole():
    assert tree.map(lambda x, y: (x, y), {"a": 1}, {"a": [2, 3]}) == {"a": (1, [2, 3])}
    assert tree.map(lambda x, y: (x, y), [None, 1], [2, 3], is_leaf=is_none) == [(None, 2), (1, 3)]
    assert tree.map(lambda x: None, (1, 2)) == (None, None)


MISMATCHES = [
    ({"a": [1, 2]}, {"a": [1, (2, 3), 4]}, r"\[\*, \*\] at \['a'\], got \[\*, \(\*, \*\), \*\]"),
    ({"a": [(1,), 2]}, {"a": [[1], 2]}, r"\(\*,\) at \['a'\]\[0\], got \[\*\]"),
    ({"a": 1}, {"b": 1}, r"\{'a': \*\} at the root, got \{'b': \*\}"),
    (Point(1, {"k": (1, None)}), Point(1, {"k": (1, 2)}), r"None at \.y\['k'\]\[1\], got \*"),
    (Layer([1], 2), Layer(1, 2), r"\[\*\] at \.weight, got \*"),
    (Tagged([1, ()]), Tagged([1, 2]), r"\(\) at \[1\], got \*"),
    (collections.OrderedDict(a=1, b=2), collections.OrderedDict(b=1, a=2), "OrderedDict.*at the root, got OrderedDict"),
    ((1, 2), (1, 2, 3), r"\(\*, \*\) at the root, got \(\*, \*, \*\)"),
]


@pytest.mark.parametrize("first, second, where", MISMATCHES)
def test_mismatch_names_path_both_structures_and_remedy(first, second, where):
    for attempt in (
        lambda: tree.map(lambda x, y: x, first, second),
        lambda: tree.structure(first).flatten_up_to(second),
        lambda: tree.broadcast_prefix(first, second),
        lambda: tree.map_with_path(lambda path, x, y: x, first, second),
    ):
        with pytest.raises(TreeError, match=f"expected {where}") as caught:
            attempt()
        message = str(caught.value)
        assert repr(tree.structure(first)) in message
        assert repr(tree.structure(second)) in message
        assert "remedy: give both trees the same containers" in message


def test_mismatch_of_two_classes_of_one_name_says_so():
    first, second = [dataclasses.make_dataclass("Same", ["x"]) for _ in range(2)]
    with pytest.raises(TreeError, match=r"expected Same\(\*\) at the root, got Same\(\*\) of another type"):
        tree.map(lambda x, y: x, first(1), second(1))


def test_all_and_reduce():
    assert tree.all({"a": (1, True), "b": None})
    assert not tree.all([1, [0]])
    assert tree.all(())
    assert tree.all([None], is_leaf=is_none) is False
    assert tree.reduce(lambda x, y: x - y, (1, [2, 3])) == -4
    assert tree.reduce(lambda x, y: x - y, (1, [2, 3]), initializer=10) == 4
    assert tree.reduce(lambda x, y: [x, y], (1, 2), None) == [[None, 1], 2]
    with pytest.raises(TypeError, match="empty"):
        tree.reduce(lambda x, y: x, ())


def test_transpose_when_one_structure_has_no_leaves():
    pair, empty = tree.structure((0, 0)), tree.structure([])
    assert tree.transpose(pair, empty, ([], [])) == []
    assert tree.transpose(empty, pair, []) == ([], [])
    with pytest.raises(TreeError, match=r"expected \[\] at the root"):
        tree.transpose(empty, pair, ([], []))


def test_paths_of_each_kind():
    node = {"a": [Point(0, {"k": 1}), Layer(2, 3)], "b": Tagged([4]), "c": collections.OrderedDict({(1, 2): 5})}
    texts = ["['a'][0].x", "['a'][0].y['k']", "['a'][1].weight", "['a'][1].bias", "['b'][0]", "['c'][(1, 2)]"]
    found = [(tree.keystr(path), leaf) for path, leaf in tree.leaves_with_path(node)]
    assert found == [*zip(texts, range(6), strict=True)]
    assert tree.leaves(tree.map_with_path(lambda path, x, y: tree.keystr(path) * (x == y), node, node)) == texts
    assert tree.flatten_with_path(3) == ([((), 3)], tree.structure(3))
    assert tree.leaves_with_path([None], is_leaf=is_none) == [((tree.SequenceKey(0),), None)]
    assert tree.SequenceKey(0) != tree.DictKey(0)


def test_broadcast_prefix_as_in_axes():
    assert tree.broadcast_prefix(0, {"a": 1, "b": (2, None)}) == [0, 0]
    assert tree.broadcast_prefix((0, None), (1, [2, 3]), is_leaf=is_none) == [0, None, None]
    with pytest.raises(TreeError, match=r"expected None at \[1\], got \[\*, \*\]"):
        tree.broadcast_prefix((0, None), (1, [2, 3]))


# Properties


def nodes(children):
    some = st.lists(children, max_size=3)
    return st.one_of(
        some,
        some.map(tuple),
        st.builds(Point, children, children),
        st.builds(Layer, children, children, st.sampled_from(["u", 1, True])),
        st.builds(Frozen, children),
        st.builds(Tagged, some, st.sampled_from([None, 0, ("t",)])),
        st.dictionaries(st.text(max_size=2), children, max_size=3),
        st.dictionaries(st.integers(0, 2) | st.booleans(), children, max_size=3),
        st.dictionaries(st.text("ab", max_size=1), children, max_size=2).map(collections.OrderedDict),
        st.dictionaries(st.integers(0, 2), children, max_size=2).map(lambda d: collections.defaultdict(int, d)),
    )


TREES = st.recursive(st.none() | st.integers(), nodes, max_leaves=12)


@given(TREES)
def test_round_trip(node):
    leaves, treedef = tree.flatten(node)
    for _ in range(3):
        rebuilt = treedef.unflatten(leaves)
        assert rebuilt == node
        assert repr(tree.structure(rebuilt)) == repr(treedef)  # types of keys too, which == does not see
    assert pickle.loads(pickle.dumps(treedef)) == treedef
    assert treedef.flatten_up_to(node) == leaves
    assert sum(child.num_leaves for child in treedef.children()) == len(leaves) or treedef == tree.structure(0)


@given(TREES)
def test_map_of_the_identity_changes_nothing(node):
    assert tree.map(lambda x: x, node) == node
    assert tree.map(lambda x, y: y, node, node) == node


@given(TREES)
def test_is_leaf_for_none_only_adds_leaves(node):
    leaves, treedef = tree.flatten(node, is_leaf=is_none)
    assert [leaf for leaf in leaves if leaf is not None] == tree.leaves(node)
    assert treedef.unflatten(leaves) == node


@given(TREES, TREES)
def test_transpose_twice_is_the_identity(first, second):
    outer, inner = tree.structure(first), tree.structure(second)
    rows = [[(i, j) for j in range(inner.num_leaves)] for i in range(outer.num_leaves)]
    node = outer.unflatten([inner.unflatten([tree.SequenceKey(pair) for pair in row]) for row in rows])
    assert tree.transpose(inner, outer, tree.transpose(outer, inner, node)) == node


@given(TREES)
def test_paths_lead_to_the_leaves(node):
    pairs, treedef = tree.flatten_with_path(node)
    assert treedef == tree.structure(node)
    assert [leaf for _, leaf in pairs] == tree.leaves(node)
    assert len({path for path, _ in pairs}) == len(pairs)
    for path, leaf in pairs:
        found = node
        for key in path:
            match key:
                case tree.GetAttrKey(name):
                    found = getattr(found, name)
                case tree.SequenceKey(index):
                    found = found.children[index] if isinstance(found, Tagged) else found[index]
                case tree.DictKey(name):
                    found = found[name]
        assert found is leaf


@given(TREES, TREES)
def test_broadcast_prefix_repeats_for_each_leaf(prefix, below):
    leaves, treedef = tree.flatten(prefix)
    full = treedef.unflatten([below] * len(leaves))
    repeated = [leaf for leaf in leaves for _ in tree.leaves(below)]
    assert tree.broadcast_prefix(prefix, full) == repeated
