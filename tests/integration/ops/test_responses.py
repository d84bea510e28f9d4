"""Response streams: outcomes from the drain to Lytics' collect API."""

import orjson
import pytest

from segrelay.ops.status.standing import read_standing
from segrelay.producer.steps import StepStore
from segrelay.producer.tasks import ExportState, export_responses
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import partition_of
from segrelay.worker.contract.protection import PROTECTION
from tests.configuration import lytics, trigger
from tests.integration.ops.relay import payload

pytestmark = pytest.mark.also_sealed

ANSWERED = {"audiences": ["*"], "template": "enter.jsonnet", "response_stream": "answers"}


@pytest.fixture
def told(relay, sandbox):
    """A relay whose entrances have a response stream."""
    sandbox.settings(lytics={"collect_status": 200})
    relay.configure(lytics(sandbox.url), triggers=trigger("vip-enter", **ANSWERED))
    return relay


def step(relay):
    return export_responses(relay.client, relay.settings, "insider")


def collected(sandbox):
    return sandbox.get("lytics/collect")["records"].get("answers", [])


def kept(relay):
    return sum(relay.client.xlen(partition.responses) for partition in relay.partitions())


def test_lytics_is_told_what_became_of_each_request_once_it_is_up_and_holds_up_nothing(
    told, sandbox
):
    sandbox.settings(lytics={"collect_status": 503})
    told.publish(payload("Ann@example.com"))
    told.deliver(payload("Ann@example.com"), payload("bob@example.com"))

    done = step(told)

    found = told.status()
    assert (found["delivered"], found["skipped"]) == (2, 1), "that needed no request"
    assert (done.wait_seconds > 0, kept(told), collected(sandbox)) == (True, 2, [])
    sandbox.settings(lytics={"collect_status": 200})
    assert step(told).line == "2 responses sent"
    records = sorted(collected(sandbox), key=lambda record: record["origin"]["email"])
    assert [record["origin"] for record in records] == [
        {"email": "Ann@example.com"},
        {"email": "bob@example.com"},
    ]
    response = records[0]["response"]
    assert (response["outcome"], response["status"]) == ("delivered", 200)
    assert (response["audience"], response["event"]) == ("vip", "enter")
    assert kept(told) == 0
    assert StepStore(told.client, keys.responses("insider"), "", ExportState).take()
    assert not step(told).taken, "of two steps at once the second does nothing"


def test_a_death_is_told_with_its_reason_and_without_the_profile(told, sandbox):
    told.template("enter.jsonnet", "error 'no template for ' + std.extVar('nothing')")
    told.deliver(payload("ann@example.com", first_name="Secretina"))

    step(told)

    (record,) = collected(sandbox)
    assert record["response"]["outcome"] == "dead"
    assert record["response"]["reason"] == "template_error"
    assert "Secretina" not in orjson.dumps(record).decode()


def test_the_oldest_go_where_there_are_too_many_and_are_counted(told, sandbox):
    at = told.partitions()[partition_of("email:ann@example.com", 4)]
    with told.client.pipeline(transaction=False) as pipe:
        for n in range(11_999):
            record = orjson.dumps(["answers", {"origin": {"email": f"p{n}"}}])
            pipe.xadd(at.responses, {"r": PROTECTION.seal(record, b"responses")})
        pipe.execute()
    told.deliver(payload("ann@example.com"))

    left = kept(told)
    assert 10_000 <= left < 10_200
    assert int(told.client.get(at.responseslost)) == 12_000 - left
    assert told.status()["responses"] == {"waiting": left, "lost": 12_000 - left}
    (oldest, *_) = told.client.xrange(at.responses, count=1)
    found = read_standing(told.client, told.settings).responses
    assert f"{found.oldest_ms}-".encode() == oldest[0].partition(b"-")[0] + b"-"
    while step(told).more:
        pass
    assert collected(sandbox)[-1]["origin"] == {"email": "ann@example.com"}
    assert len(collected(sandbox)) == left


def test_lytics_gets_the_answer_with_named_headers_and_fields(relay, sandbox):
    more = {
        "response_headers": ["Content-Type", "X-None"],
        "response_fields": ["email", "first_name", "none"],
    }
    relay.configure(lytics(sandbox.url), triggers=trigger("vip-enter", **ANSWERED, **more))
    relay.deliver(payload("ann@example.com", first_name="Ann"))

    step(relay)

    (record,) = collected(sandbox)
    assert record["origin"] == {"email": "ann@example.com", "first_name": "Ann"}
    assert record["response"]["headers"] == {"Content-Type": "application/json"}
    assert record["response"]["body"] == {"data": {"successful": {"count": 1}, "fail": {}}}
