"""What a response stream is told of an answer stays within what Lytics takes."""

import orjson
import pytest

from ops.sandbox.lytics.collect import RECORD_BYTES_IN_BATCH, _fits
from worker.batch.concluding.responses import Responses, ResponseStream
from worker.batch.partition import Delivery, Settled, Settlement
from worker.contract.events import Header, encode_profile
from worker.contract.words import Direction
from worker.destinations.api import Answer

STREAM = Responses({"vip": ResponseStream("answers")}, "email")


def records_of(answer, deliveries=1):
    header = Header(b"", "vip", Direction.ENTER, 1, state=False, skip_hook=False, repair=False,
                    accepted_ms=0)  # fmt: skip
    profile = encode_profile({"email": "ann@example.com"})
    delivery = Delivery("live|vip", "vip", "1-0", header, profile, b"")
    settled = [Settled(delivery, answer=answer)] * deliveries
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


def test_a_long_body_is_cut_and_says_so():
    (response,) = records_of(Answer(200, b'{"a":"' + b"x" * 100_000 + b'"}'))

    assert response["body_is_cut"]
    assert response["body"].startswith('{"a":"xxx')
    assert _fits({"response": response}, RECORD_BYTES_IN_BATCH)


def test_the_answer_of_a_large_request_is_told_within_64_kb_in_all():
    responses = records_of(Answer(200, b"x" * 5_000), 1_000)

    assert sum(len(response["body"]) for response in responses) <= 64_000


def test_without_an_answer_none_is_told():
    (response,) = records_of(None)

    assert "status" not in response
    assert "body" not in response
