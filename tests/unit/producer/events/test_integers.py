"""Integers keep every digit."""

import json
import sys

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrelay.producer.events.payloads import dumps_exactly, loads_exactly

VALUES = st.recursive(
    st.integers() | st.integers(-(10**40), 10**40) | st.text() | st.booleans() | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(VALUES, st.sampled_from([None, 0, 2]))
def test_every_integer_is_read_as_it_stands(value, indent):
    text = json.dumps(value, indent=indent).encode()

    if not isinstance(value, int):
        assert loads_exactly(text) == value


@pytest.fixture
def usual_recursion_limit():
    """The limit of a new Python: that of the tests is higher."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("usual_recursion_limit")
def test_an_integer_beside_the_deepest_value_is_read_as_it_stands():
    deepest = b"[" * 1_000 + b"]" * 1_000

    assert loads_exactly(b"[" + deepest + b", 123456789012345678901]")[1] == 123456789012345678901


@given(st.dictionaries(st.text(), VALUES))
def test_what_a_double_holds_stays_and_the_rest_becomes_text(value):
    text = dumps_exactly(value)

    assert json.loads(text, parse_int=float) == json.loads(text)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(2**53, 2**53), (-(2**53), -(2**53)), (2**53 + 1, "9007199254740993"), (10**30, str(10**30))],
)
def test_the_border_is_where_doubles_stop_telling_integers_apart(number, expected):
    assert orjson.loads(dumps_exactly({"a": number})) == {"a": expected}
