"""`segrelay discard` as a person calls it, and what triggers that mean something else leave."""

import orjson
import pytest

from segrelay.ops.kept import Waiting
from segrelay.ops.state.waiting import Filter
from segrelay.worker.contract.redis.acts import read_acts
from segrelay.worker.errors import UsageWrong
from tests.integration.ops.relay import EXIT, payload


@pytest.fixture
def waiting(relay):
    """Five deliveries: two of a job, of two audiences and two triggers."""
    relay.publish(
        payload("ann@example.com", audience="gold"), payload("ben@example.com"), job="load"
    )
    relay.publish(
        payload("ann@example.com", minute=1),
        payload("cleo@example.com", audience="gold", minute=1),
        payload("dan@example.com", direction="exit"),
    )
    return relay


@pytest.fixture
def discard(call):
    def run(*arguments):
        result = call("discard", *arguments, "--yes", "--json")
        return orjson.loads(result.stdout)["discarded"]

    return run


@pytest.mark.parametrize(
    ("chosen", "count", "streams"),
    [
        ("--job load", 2, {"live|vip-enter", "live|vip-exit"}),
        ("--trigger vip-enter", 4, {"live|vip-exit"}),
        ("--audience gold", 2, {"job.load|vip-enter", "live|vip-enter", "live|vip-exit"}),
        ("--job load --audience gold", 1, None),
        ("--job load --trigger vip-exit", 0, None),
    ],
)
def test_what_is_chosen_is_taken_back_and_others_stay(waiting, discard, chosen, count, streams):
    assert discard(*chosen.split()) == count
    assert discard(*chosen.split()) == 0

    found = waiting.status()
    assert (found["discarded"], found["waiting"]) == (count, 5 - count)
    if streams:
        assert waiting.streams() == streams
    if "--job" in chosen:
        assert found["jobs"]["load"]["discarded"] == count
    assert found["triggers"]["vip-enter"]["discarded"] == count
    waiting.drain()
    assert waiting.status()["delivered"] == 5 - count


def test_more_than_one_step_is_taken_back(relay, discard):
    people = [payload(f"p{number}@example.com", audience="gold") for number in range(2_500)]
    relay.publish(*people)
    relay.publish(payload("ann@example.com"))

    assert discard("--audience", "gold") == 2_500
    assert relay.status()["waiting"] == 1


def test_something_has_to_be_named_agreed_and_there(waiting, call, discard):
    with pytest.raises(UsageWrong, match="Name --job"):
        call("discard", "--yes")
    with pytest.raises(UsageWrong, match="Discard 2 waiting deliveries"):
        call("discard", "--job", "load")
    assert discard("--audience", "nobody") == 0
    assert waiting.status()["waiting"] == 5
    assert list(read_acts(waiting.client)) == []


@pytest.mark.parametrize("wanted", [Filter(trigger="vip-enter"), Filter(audience="gold")])
def test_what_comes_after_the_count_is_not_taken_back(waiting, wanted):
    work = Waiting(waiting.client, waiting.settings).discard(wanted)
    waiting.publish(*(payload(f"late{n}@example.com", audience="gold") for n in range(30)))

    assert sum(work.steps()) == work.count
    assert sum(work.steps()) == 0

    found = waiting.status()
    assert (found["discarded"], found["waiting"]) == (work.count, 35 - work.count)
    waiting.drain()
    assert waiting.status()["delivered"] == 35 - work.count


def test_what_a_trigger_no_longer_wants_dies_and_is_replayed_once_it_wants_it_again(relay, call):
    def replayed():
        return orjson.loads(call("dlq", "replay", "--all", "--yes", "--json").stdout)

    relay.publish(*(payload(f"p{n}@example.com") for n in range(5)))
    relay.configure(triggers=EXIT.replace("vip-exit", "vip-enter"))

    relay.drain()

    found = relay.status()
    assert (found["delivered"], found["skipped"], found["waiting"], found["dead"]) == (0, 0, 0, 5)
    assert found["dead_by_reason"] == {"unwanted": 5}
    assert replayed() == {"replayed": 0, "left_out": {"unwanted": 5}}
    relay.configure(EXIT)
    assert replayed()["replayed"] == 5
    relay.drain()
    found = relay.status()
    assert (found["delivered"], found["waiting"], found["dead"]) == (5, 0, 0)
