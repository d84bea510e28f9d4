"""The bodies of requests: every payload is found once, in portions of any size."""

import json
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrelay.producer.publishing.published import Published
from segrelay.producer.webhook.intake import SMALL_BYTES, Body, spans_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
FIELDS = st.dictionaries(st.text('a"\\{}[],é', max_size=4), JSON, max_size=2)
OBJECTS = st.lists(FIELDS, min_size=1, max_size=5)
PADDING = b" " * SMALL_BYTES


def values(body: Body, portion: int) -> list[Any]:
    found: list[Any] = []
    while not body.is_ended:
        taken = list(islice(body.payloads(), portion))
        assert taken, "a body that has not ended has more"
        found += [payload.error or payload.value for payload in taken]
        body.advance(Published(accepted=len(taken)))
    assert body.stored.accepted == len(found)
    return found


@given(OBJECTS, st.integers(1, 4), st.sampled_from([b"", PADDING]), st.booleans())
def test_an_array_is_its_elements_however_large_and_in_which_portions(
    objects: list[Any], portion: int, padding: bytes, ascii_only: bool
) -> None:
    text = json.dumps(objects, ensure_ascii=ascii_only).encode() + padding

    assert values(Body(text), portion) == objects


@given(st.lists(OBJECTS, min_size=2, max_size=3), st.integers(1, 4), st.sampled_from(["", "\n"]))
def test_values_in_a_row_are_payloads_each(
    rows: list[list[Any]], portion: int, between: str
) -> None:
    texts = [json.dumps(row if number else row[0]) for number, row in enumerate(rows)]
    expected = [rows[0][0], *(value for row in rows[1:] for value in row)]

    assert values(Body(between.join(texts).encode()), portion) == expected


@given(st.text('{}[]",:1 \\a', max_size=40))
def test_nothing_of_a_text_is_left_out(text: str) -> None:
    try:
        spans = list(spans_of(text.encode()))
    except ValueError:
        return

    ends = [0, *(partition for span in spans for partition in span), len(text)]
    assert ends == sorted(ends)
    between = "".join(text[a:b] for a, b in zip(ends[::2], ends[1::2], strict=True))
    assert set(between) <= set("[], ")


@given(st.lists(JSON, min_size=1, max_size=5), st.sampled_from([b"", PADDING]))
def test_what_is_no_payload_is_found_as_well(elements: list[Any], padding: bytes) -> None:
    body = Body(json.dumps(elements).encode() + padding)

    found = values(body, 1)

    assert [one for one in elements if isinstance(one, dict)] == [
        one for one in found if isinstance(one, dict)
    ]
    assert not elements or found


@pytest.mark.parametrize("padding", [b"", PADDING])
def test_an_array_in_an_array_is_one_payload_that_is_none(padding: bytes) -> None:
    assert values(Body(b'[[{"a": 1}], {"b": 2}]' + padding), 1) == [[[{"a": 1}]], {"b": 2}]


def test_a_broken_element_costs_no_other() -> None:
    first, broken, last = values(Body(b'[{"a": 1}, {nope}, {"b": 2}]'), 1)

    assert (first, last) == ({"a": 1}, {"b": 2})
    assert broken.startswith("Not JSON")


@pytest.mark.parametrize(
    "text", [b"", b"no JSON", b'[{"a": 1}', b'{"a": 1}}', b'{"a": "b}', b"\xff", b"[" * 2_000_000]
)
def test_what_is_no_json_is_one_payload_with_all_of_it(text: bytes) -> None:
    (payload,) = Body(text).payloads()

    assert (payload.text, bool(payload.error)) == (text, True)


def test_a_byte_order_mark_is_no_payload() -> None:
    for padding in (b"", PADDING):
        assert values(Body(b'\xef\xbb\xbf[{"a": 1}]' + padding), 1) == [{"a": 1}]


def test_a_payload_of_too_many_values_is_not_built() -> None:
    (payload,) = Body(b'{"a": [' + b"{}," * 600_000 + b"{}]}").payloads()

    assert (payload.reason, payload.value) == ("too_large", None)


def test_what_was_taken_and_not_stored_is_taken_again() -> None:
    body = Body(b"[1, 2, 3, 4]")

    first = [payload.value for payload in islice(body.payloads(), 2)]

    assert [payload.value for payload in islice(body.payloads(), 2)] == first == [1, 2]
