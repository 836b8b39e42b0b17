"""The generated flattener does what flatten, call and unflatten do, for every structure; what differs falls back."""

from collections import OrderedDict, namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functrace import tree
from functrace.backend.flattener import flattening, missed

Pair = namedtuple("Pair", "a b")
TREES = st.recursive(
    st.integers() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.dictionaries(st.integers(0, 3), inner, max_size=2)
        | st.tuples(inner, inner).map(lambda both: Pair(*both))
        | st.dictionaries(st.text(max_size=2), inner, max_size=2).map(OrderedDict)
    ),
    max_leaves=8,
)


def fallback(*args, **kwargs):
    return "fallback", args, kwargs


def negating(structure):
    """A function of trees that negates their leaves, and the record of its calls."""
    return flattening(structure, structure, lambda *leaves: tuple(-leaf for leaf in leaves), fallback)


@given(st.lists(TREES, max_size=3).map(tuple))
def test_same_as_flatten_call_unflatten(args):
    call = negating(tree.structure(args))
    assert call(*args) == tree.map(lambda leaf: -leaf, args)
    assert tree.structure(call(*args)) == tree.structure(args)
    assert call(*args, key=1) == ("fallback", args, {"key": 1})


@given(st.lists(TREES, max_size=2).map(tuple), st.lists(TREES, max_size=2).map(tuple))
def test_other_structures_fall_back(args, others):
    """Leaves are the flat function's to judge: where a container stands for a leaf, it has to miss."""

    def flat(*leaves):
        return missed() if any(type(leaf) is not int for leaf in leaves) else tuple(-leaf for leaf in leaves)

    structure = tree.structure(args)
    result = flattening(structure, structure, flat, fallback)(*others)
    if tree.structure(others) == structure:
        assert result == tree.map(lambda leaf: -leaf, others)
    else:
        assert result == ("fallback", others, {})


@pytest.mark.parametrize(
    "value", [{"a": 1}, {"a": 1, "c": 2}, {"a": 1, "b": 2, "c": 3}, OrderedDict(a=1, b=2), [1, 2], 3]
)
def test_another_dictionary_falls_back(value):
    call = negating(tree.structure(({"a": 0, "b": 0},)))
    assert call({"b": 2, "a": 1}) == ({"a": -1, "b": -2},)
    assert call(value) == ("fallback", (value,), {})


def test_an_error_inside_is_not_a_miss():
    def flat(*leaves):
        raise KeyError("inside")

    structure = tree.structure(({"a": 0},))
    with pytest.raises(KeyError, match="inside"):
        flattening(structure, structure, flat, fallback)({"a": 1})


def test_keys_are_never_text_of_the_program():
    hostile = {"'); raise SystemExit  #": 1, '"""': 2, "\n": 3, "x1": 4, "key0": 5, "flat": 6}
    assert negating(tree.structure((hostile,)))(hostile) == ({key: -value for key, value in hostile.items()},)


def test_large_and_deep_structures():
    wide, deep = ([*range(1000)],), (1,)
    for _ in range(150):
        deep = (deep,)
    for args in (wide, deep):
        assert negating(tree.structure(args))(*args) == tree.map(lambda leaf: -leaf, args)


def test_arrays_pass_as_they_are():
    x = np.arange(3.0)
    structure = tree.structure(({"x": 0},))
    result = flattening(structure, structure, lambda *leaves: leaves, fallback)({"x": x})
    assert result[0]["x"] is x
