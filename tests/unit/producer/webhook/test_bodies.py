"""The bodies of requests: every payload is found once, in portions of any size."""

import json
from itertools import islice
from typing import Any

import pytest

from segrelay.producer.publishing.published import Published
from segrelay.producer.webhook.intake import TOO_LARGE, Body


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"a": 1}', [{"a": 1}]),
        (b'[{"a": 1}, 2, "three", {"b": [1]}]', [{"a": 1}, 2, "three", {"b": [1]}]),
        (b'\xef\xbb\xbf[{"a": 1}]', [{"a": 1}]),
        (b"[]", [[]]),
        (b'{"a": 1}\r\n\n[{"b": 2}, 3]\n', [{"a": 1}, {"b": 2}, 3]),
        # An array within an array is one payload, which is none.
        (b'[[{"a": 1}], {"b": 2}]', [[[{"a": 1}]], {"b": 2}]),
        (json.dumps([{"n": number} for number in range(7)]).encode(), [{"n": n} for n in range(7)]),
    ],
)
@pytest.mark.parametrize("portion", [1, 2, 10])
def test_every_payload_is_found_once_in_portions_of_any_size(
    text: bytes, expected: list[Any], portion: int
) -> None:
    body, found = Body(text), list[Any]()
    while not body.is_ended:
        taken = list(islice(body.payloads(), portion))
        found += [payload.value for payload in taken]
        body.advance(Published(accepted=len(taken)))

    assert found == expected
    assert body.stored.accepted == len(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", [b""]),
        (b"no JSON", [b"no JSON"]),
        (b"\xff", [b"\xff"]),
        (b'[{"a": 1}, {nope}]', [{"a": 1}, b"{nope}]"]),
        (b'{"a": 1}{"b": 2}', [{"a": 1}, {"b": 2}]),
        (b'{"a": 1}\n{nope}\n{"b": 2}', [{"a": 1}, b"{nope}", {"b": 2}]),
        (b"[" * 900_000, [b"[" * 899_999]),
    ],
)
def test_of_a_damaged_body_only_what_cant_be_read_is_refused(
    text: bytes, expected: list[Any]
) -> None:
    payloads = Body(text).payloads()

    assert [each.text if each.error else each.value for each in payloads] == expected


@pytest.mark.parametrize(
    "text",
    [b'{"a": [' + b"{}," * 600_000 + b"{}]}", b"[" + b"{}," * 10_000 + b"{}]", b"1\n" * 1_000_001],
)
def test_what_would_be_too_many_objects_is_refused(text: bytes) -> None:
    body = Body(text)

    assert list(body.payloads()) == []
    assert body.refusal is not None
    assert body.refusal.status == TOO_LARGE
    assert body.is_ended


def test_what_was_taken_and_not_stored_is_taken_again() -> None:
    body = Body(b"[1, 2, 3, 4]")

    first = [payload.value for payload in islice(body.payloads(), 2)]

    assert [payload.value for payload in islice(body.payloads(), 2)] == first == [1, 2]
