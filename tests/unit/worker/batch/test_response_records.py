"""What a response stream is told of an answer stays within what Lytics takes."""

import orjson
import pytest

from segrelay.sandbox.lytics.api import RECORD_BYTES_IN_BATCH, _fits
from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.partition import Settlement
from segrelay.worker.batch.responses import Responses, ResponseStream
from segrelay.worker.contract.events import Header, pack_profile
from segrelay.worker.contract.words import Direction
from segrelay.worker.destinations.api import Answer

STREAM = Responses({"vip": ResponseStream("answers")}, "email")


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
    ],
)
def test_a_body_is_parsed_and_holds_no_objects_in_arrays(body, told):
    (response,) = records_of(Answer(201, body))

    assert (response["status"], response["body"]) == (201, told)
    assert _fits({"response": response}, RECORD_BYTES_IN_BATCH)


def merged(parts):
    """Return what the parts of a body are together."""
    whole = {}
    for part in parts:
        for name, value in part.items():
            known = whole.get(name)
            both = [known, value]
            if all(isinstance(each, dict) for each in both):
                whole[name] = merged(both)
            elif all(isinstance(each, str) for each in both):
                whole[name] = known + value
            else:
                assert known is None
                whole[name] = value
    return whole


LONG = {
    "people": [
        {"id": number, "name": f"Jörg {number}", "tags": ["a", "b"]} for number in range(700)
    ],
    "numbers": list(range(3_000)),
    "message": 'a "quoted" text\n' * 800,
}


def test_a_body_of_60_kb_arrives_parsed_in_parts():
    body = orjson.dumps(LONG)
    assert 55_000 < len(body) < 64_000

    responses = records_of(Answer(200, body))

    parts = [response["body"] for response in responses]
    assert [response["body_part"] for response in responses] == list(range(1, len(parts) + 1))
    assert {response["body_parts"] for response in responses} == {len(parts)}
    assert len(parts) < 20
    whole = merged(parts)
    people = [whole["people"][str(number)] for number in range(700)]
    assert people == LONG["people"]
    assert [whole["numbers"][str(number)] for number in range(3_000)] == LONG["numbers"]
    assert whole["message"] == LONG["message"]
    assert not any("body_cut" in response for response in responses)
    for response in responses:
        assert _fits({"origin": {"email": "a@example.com"}, "response": response}, 16_384)
    # Only the first part has the outcome, so that it is counted once.
    assert [response.get("outcome") for response in responses[:2]] == ["delivered", None]
    assert sum("outcome" in response for response in responses) == 1
    assert {(response["trigger"], response["event_time"]) for response in responses} == {
        ("vip", "1970-01-01T00:00:00.000001Z")
    }


def test_a_text_of_60_kb_arrives_in_pieces():
    text = "Grüße \x01\x02 " * 5_000

    responses = records_of(Answer(200, text.encode()))

    assert "".join(response["body"] for response in responses) == text
    assert all(_fits({"response": response}, RECORD_BYTES_IN_BATCH) for response in responses)


def test_a_body_above_64_kb_is_cut_and_says_so():
    responses = records_of(Answer(200, b'{"a":"' + b"x" * 100_000 + b'"}'))

    assert all(response["body_cut"] for response in responses)
    assert responses[0]["body"].startswith('{"a":"xxx')
    assert sum(len(response["body"]) for response in responses) == 64_000
    assert all(_fits({"response": response}, RECORD_BYTES_IN_BATCH) for response in responses)


def test_what_the_names_leave_no_room_for_is_cut():
    responses = records_of(Answer(200, orjson.dumps({"n" * 9_000: 1, "a": 2, "b": "x" * 9_000})))

    assert merged(response["body"] for response in responses) == {"a": 2, "b": "x" * 9_000}
    assert all(response["body_cut"] for response in responses)


@pytest.mark.parametrize("depth", [100, 400, 900, 1_020])
def test_a_body_of_arrays_in_arrays_is_told_somehow(depth):
    body = b"[" * depth + b"7" + b"]" * depth

    for response in records_of(Answer(200, body)):
        assert _fits({"response": response}, RECORD_BYTES_IN_BATCH)
        assert response["body"]


def test_the_answer_of_a_large_request_is_told_within_64_kb_in_all():
    responses = records_of(Answer(200, b"x" * 5_000), 1_000)

    assert len(responses) == 1_000
    assert all(response["body_cut"] for response in responses)

    assert sum(len(response["body"]) for response in responses) <= 64_000


def test_without_an_answer_none_is_told():
    (response,) = records_of(None)

    assert "status" not in response
    assert "body" not in response
