"""A source is read whatever its layout, and what is broken in it costs nothing else."""

import io

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segrelay.producer.sources.blocks import read_payloads


def person(number):
    return {
        "id": str(number),
        "data": {
            "email": f'{number}"{{[@example.com',
            "tags": [{"a": []}, {}],
            "segment_events": [{"slug": "vip", "event": "enter"}, {"slug": "b"}],
        },
    }


def compact(number):
    return orjson.dumps(person(number))


def pretty(value):
    return orjson.dumps(value, option=orjson.OPT_INDENT_2)


def found(source, **options):
    """Return (line, index, id) of what was read, None as id of what is broken."""
    return [
        (item.line, item.index, None if item.error else _name(item.value))
        for item in read_payloads(io.BytesIO(source), **options)
    ]


def _name(value):
    if isinstance(value, list):
        return [_name(element) for element in value]
    return value["id"] if isinstance(value, dict) else value


LAYOUTS = {
    "lines": (b"\n".join(map(compact, range(3))), [(1, 0, "0"), (2, 0, "1"), (3, 0, "2")]),
    "lines of Windows": (compact(0) + b"\r\n" + compact(1) + b"\r\n", [(1, 0, "0"), (2, 0, "1")]),
    "empty lines": (b"\n \n" + compact(0) + b"\n\n\n" + compact(1), [(3, 0, "0"), (6, 0, "1")]),
    "byte order mark": (b"\xef\xbb\xbf" + compact(0), [(1, 0, "0")]),
    "a line that is an array": (
        compact(0) + b"\n[" + compact(1) + b"," + compact(2) + b"]\n",
        [(1, 0, "0"), (2, 0, ["1", "2"])],
    ),
    "one after the other": (
        compact(0) + compact(1) + b" " + compact(2),
        [(1, 0, "0"), (1, 0, "1"), (1, 0, "2")],
    ),
    "a pretty object": (pretty(person(0)), [(1, 0, "0")]),
    "a pretty array": (pretty([person(0), person(1)]), [(2, 0, "0"), (23, 1, "1")]),
    "an array with a line each": (
        b"[\n" + b",\n".join(map(compact, range(3))) + b"\n]\n",
        [(2, 0, "0"), (3, 1, "1"), (4, 2, "2")],
    ),
    "two arrays": (
        b"[\n" + compact(0) + b"\n]\n[\n" + compact(1) + b"]",
        [(2, 0, "0"), (5, 0, "1")],
    ),
    "nothing": (b"", []),
    "an empty array": (b"[\n]", []),
    # What is broken is named, and its neighbours are read.
    "a broken line": (
        compact(0) + b"\n{x\n" + compact(1),
        [(1, 0, "0"), (2, 0, None), (3, 0, "1")],
    ),
    "bytes that are no UTF-8": (b'{"a": "\xff"}\n' + compact(0), [(1, 0, None), (2, 0, "0")]),
    "a broken element of an array of lines": (
        b"[\n" + compact(0) + b',\n{"x":},\n' + compact(1) + b",\n" + compact(2) + b"\n]\n",
        [(2, 0, "0"), (3, 1, None), (4, 0, "1"), (5, 0, "2"), (6, 2, None)],
    ),
}


@pytest.mark.parametrize(("source", "expected"), LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_is_read_and_what_is_broken_costs_its_neighbours_nothing(source, expected):
    assert found(source) == expected


@pytest.mark.parametrize(
    "huge",
    [
        b'{"data":{"email":"' + b"x" * 5_000 + b'"}}',
        b'{"data":{"list":[' + b"1," * 3_000 + b"1]}}",
        b'{"data":{"list":[' + b'"a",' * 3_000 + b'"b"]}}',
        b'{"data":\n{"list":[' + b'"a",\n' * 3_000 + b'"b"]}}',
    ],
    ids=["a long string", "many numbers", "many texts", "many lines"],
)
def test_a_payload_that_is_too_large_is_refused_and_the_next_is_read(huge):
    source = compact(0) + b"\n" + huge + b"\n" + compact(1)

    first, refused, last = read_payloads(io.BytesIO(source), largest_bytes=1_000)

    assert (first.value["id"], last.value["id"]) == ("0", "1")
    assert (refused.line, refused.reason) == (2, "too_large")
    assert len(refused.text) <= 1_024


def test_an_array_on_one_line_may_be_larger_than_a_payload():
    source = b"[" + b",".join(map(compact, range(100))) + b"]"

    items = found(source, largest_bytes=1_000)

    assert items == [(1, number, str(number)) for number in range(100)]


@given(st.lists(st.one_of(st.just(None), st.integers(0, 120)), max_size=12))
def test_lines_that_broke_off_anywhere_cost_no_other_line(cuts):
    lines = [compact(number)[:cut] for number, cut in enumerate(cuts)]

    items = found(b"\n".join(lines))

    whole = [(n, 0, str(n - 1)) for n, cut in enumerate(cuts, start=1) if cut is None]
    assert [item for item in items if item[2] is not None] == whole


@given(st.lists(st.integers(0, 400), max_size=4), st.integers(1, 2_000))
def test_the_size_of_the_pieces_changes_nothing(cuts, largest):
    values = [{"data": {"segment_events": [{"slug": "x" * (cut % 50)}]}, "id": cut} for cut in cuts]
    source = b"[" + b", ".join(map(orjson.dumps, values)) + b"]"

    items = list(read_payloads(io.BytesIO(source), largest_bytes=max(largest, 200)))

    if len(items) == 1 and isinstance(items[0].value, list):
        assert items[0].value == values
    else:
        assert [item.value for item in items] == values


def test_a_broken_element_of_an_array_in_a_line_is_told_as_damage():
    damages = []
    source = b'[{"id": "0"}, {"id" 1}, {"id": "2"}]\n{"id": "3"}\n'

    items = found(source, on_damage=damages.append)

    assert [id_ for _, _, id_ in items] == ["0", None, "3"]
    assert damages == ["line 1, in an array, can't be read"]


def test_a_pretty_array_ends_as_damaged_where_an_element_is_broken():
    damages = []
    source = pretty([person(0), person(1), person(2)]).replace(b'"id": "1",', b'"id": "1",,')

    items = found(source, on_damage=damages.append)

    assert items == [(2, 0, "0"), (23, 1, None)]
    assert damages == [
        "the array that begins in line 1 has no end, or can't be read behind line 23"
    ]
