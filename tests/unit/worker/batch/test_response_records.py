"""What a response stream is told of an answer stays within what Lytics takes."""

import orjson
import pytest

from segrelay.sandbox.lytics.api import RECORD_BYTES_IN_BATCH, _fits
from segrelay.worker.batch.batch import Responses, ResponseStream
from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.partition import Settlement
from segrelay.worker.contract.events import Header, pack_profile
from segrelay.worker.contract.words import Direction
from segrelay.worker.destinations.api import Answer

STREAM = Responses({"vip": ResponseStream("answers", tuple("ABCDEFGHI"))}, "email")


def records_of(answer, deliveries=1):
    header = Header(b"", "vip", Direction.ENTER, 1, state=False, skip_hook=False, repair=False,
                    accepted_ms=0)  # fmt: skip
    profile = pack_profile(b'{"email":"ann@example.com"}')
    delivery = Delivery("live|vip", "vip", "1-0", header, profile, b"")
    settled = [delivery.succeed(answer)] * deliveries
    found = [orjson.loads(text) for text in STREAM.of(Settlement(settled=settled), 1)]
    return [record["response"] for stream, record in found if stream == "answers"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"id":7}', {"id": 7}),
        (b'{"a":[1,2]}', {"a": [1, 2]}),
        (b'[{"a":1},{"b":[[1]]}]', {"0": {"a": 1}, "1": {"b": {"0": [1]}}}),
        (b"OK", "OK"),
        (b"caf\xe9", "caf\ufffd"),
    ],
)
def test_a_body_is_parsed_and_holds_no_objects_in_arrays(body, told):
    (response,) = records_of(Answer(201, body))

    assert (response["status"], response["body"], "headers" in response) == (201, told, False)
    assert response["event_time"] == "1970-01-01T00:00:00.000001Z"
    assert response["time"] == "1970-01-01T00:00:00.001000Z"
    assert _fits({"response": response}, RECORD_BYTES_IN_BATCH)


@pytest.mark.parametrize(
    ("body", "is_cut"),
    [
        (orjson.dumps({"people": [{"name": "Jörg"}] * 400}), True),
        (b"[" + b"[],[1]," * 1_000 + b"[]]", False),
        (("Grüße \x01\x02 " * 700).encode(), True),
        (b'{"a":"' + b"x" * 100_000 + b'"}', True),
    ],
)
def test_what_is_too_long_for_a_record_is_a_text_that_says_if_it_is_cut(body, is_cut):
    (response,) = records_of(Answer(200, body))

    assert body.decode().startswith(response["body"])
    assert ("body_cut" in response) == is_cut
    assert len(response["body"]) > 3_000
    assert _fits({"origin": {"email": "a@example.com"}, "response": response}, 16_384)


@pytest.mark.parametrize("depth", [100, 101, 900, 1_020])
def test_a_body_of_arrays_in_arrays_is_told_somehow(depth):
    body = b"[" * depth + b"7" + b"]" * depth

    for response in records_of(Answer(200, body)):
        assert _fits({"response": response}, RECORD_BYTES_IN_BATCH)
        assert isinstance(response["body"], str) == (depth > 100)


def test_the_answer_of_a_large_request_is_told_within_64_kb_in_all():
    responses = records_of(Answer(200, "€".encode() * 2_000), 1_000)

    assert len(responses) == 1_000
    assert all(set(response["body"]) == {"€"} for response in responses)
    assert all(response["body_cut"] for response in responses)

    assert sum(len(response["body"]) for response in responses) <= 64_000


def test_of_the_headers_that_a_trigger_names_the_first_eight_are_told_and_cut():
    (response,) = records_of(Answer(200, b"", headers=dict.fromkeys("BCDEFGHI", "x" * 600)))

    assert response["headers"] == dict.fromkeys("BCDEFGH", "x" * 500)


def test_without_an_answer_none_is_told():
    (response,) = records_of(None)

    assert not {"status", "body"} & response.keys()
    assert (response["event_time"][-8:], response["time"][-8:]) == (".000001Z", ".001000Z")
