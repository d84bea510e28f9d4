"""`segrelay why` as a person calls it."""

import re
import time

import orjson
import pytest

from segrelay.worker.errors import UsageWrong
from tests.integration.ops.relay import payload

pytestmark = pytest.mark.also_sealed


@pytest.fixture
def why(call):
    return lambda profile: orjson.loads(call("why", profile, "--json").stdout)


def test_everything_stands_in_one_timeline_without_a_profile_field_however_a_person_is_named(
    relay, sandbox, why, call
):
    relay.deliver(payload("ann@example.com"))
    relay.deliver(payload("ann@example.com"), payload("ben@example.com"))
    sandbox.settings(poison="poisoned", poison_status=200)
    relay.deliver(payload("ann@example.com", audience="gold", minute=1, status="poisoned"))
    relay.publish(payload("ann@example.com", direction="exit", minute=2))

    found = why("ann@example.com")

    assert [(line["audience"], line["direction"]) for line in found["ledger"]] == [("vip", "enter")]
    whats = [moment["what"] for moment in found["timeline"]]
    assert whats == ["delivered", "skipped", "dead letter", "waits"]
    assert found["timeline"][0]["detail"] == "answered 200"
    assert found["verdict"].startswith("1 delivery waits since ")
    assert found["waiting"][0]["direction"] == "exit"
    assert len(found["letters"]) == 1
    assert found["waiting_is_whole"]
    printed = str(found) + call("why", "ann@example.com").stdout
    assert "ann@example.com" not in printed
    assert "vip-exit" in printed
    digest = found["profile"]["digest"]
    for text in (" ANN@example.com", "email:ann@example.com", digest):
        assert why(text)["profile"]["digest"] == digest


def test_it_ends_with_how_often_and_when_the_last_event_was_delivered(relay, why, sandbox, call):
    sandbox.settings(error_shares={"503": 1.0})
    relay.deliver(payload("ann@example.com"))
    sandbox.settings(error_shares={})
    relay.drain_all()
    relay.publish(payload("ann@example.com"))
    relay.drain_all()

    delivered, again = why("ann@example.com")["timeline"][-2:]
    last = call("why", "ann@example.com").stdout.splitlines()[-1]

    assert (delivered["what"], delivered["detail"]) == ("delivered", "answered 200")
    assert again["what"] == "skipped"
    assert re.fullmatch(
        rf"The last event \(enter of vip at {delivered['event_time']}, for vip-enter\) was"
        rf" delivered after \d+ tries at {delivered['at']}, answered 200\.",
        last,
    )


def test_a_digest_is_known_while_its_first_event_waits_and_after_it_was_discarded(relay, why, call):
    digest = why("ann@example.com")["profile"]["digest"]
    relay.publish(payload("ann@example.com"))
    assert why(digest)["waiting"]

    call("discard", "--all", "--yes")

    assert why(digest)["timeline"]


def test_of_a_stranger_nothing_is_known(why, call):
    assert why("nobody@example.com")["known"] is False
    assert "Nothing is known" in call("why", "nobody@example.com").stdout
    with pytest.raises(UsageWrong, match="can't be anybody's identity"):
        why(" ")


def test_what_waits_says_why_and_status_that_it_was_refused(relay, why, sandbox, call):
    sandbox.settings(poison="poisoned", poison_status=400)
    relay.deliver(payload("ann@example.com", status="poisoned"))
    refused = orjson.loads(call("status", "--json").stdout)["triggers"]["vip-enter"]
    shown = " ".join(call("status").stdout.split())
    call("pause", "vip-enter", "--why", "for the night")

    [waiting] = why("ann@example.com")["waiting"]

    assert refused["state"] == "refused"
    assert refused["reason"].startswith("a delivery was refused, ")
    assert ": 400: " in refused["reason"]
    assert refused["reason"] in shown
    assert "the trigger is paused: for the night" in waiting["detail"]
    assert "its last request was refused: 400: " in waiting["detail"]
    assert "no worker has been seen for 10 s" in waiting["detail"]


def test_what_waits_for_an_intent_in_doubt_says_so_and_once_discarded_not_that_it_was_delivered(
    relay, why, sandbox, call
):
    relay.change(('late = "1s"', 'late = "5m"'))
    sandbox.settings(error_shares={"504": 1.0})
    relay.deliver(payload("ann@example.com"))
    relay.publish(payload("ann@example.com", direction="exit", minute=2))

    details = [each["detail"] for each in why("ann@example.com")["waiting"]]

    assert any("in doubt" in detail for detail in details)
    assert any("nothing went through, tried" in detail and "504" in detail for detail in details)
    call("discard", "--all", "--yes")
    assert why("ann@example.com")["verdict"] == "Nothing waits. Nothing was delivered."


def test_a_delivery_of_a_large_request_is_told_with_time_and_status(relay, why, call):
    before = time.strftime("%Y-%m-%dT%H:%M", time.gmtime())
    people = [f"p{n}@example.com" for n in range(80)]
    relay.publish(*map(payload, people))
    relay.drain_all()

    found = [why(one) for one in people[:3]]

    for one in found:
        [moment] = one["timeline"]
        assert (moment["what"], moment["trigger"]) == ("delivered", "vip-enter")
        assert moment["at"] >= before
        assert moment["detail"] == "answered 200"
        assert one["verdict"].startswith("The last event (enter of vip at 20")
    erased = call("erase", people[0], "--yes")
    assert erased.exit_code == 0
    assert not why(people[0])["known"]
