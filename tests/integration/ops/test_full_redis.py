"""A Redis at its `maxmemory`: whoever operates it can stop and free work there."""

import orjson
import pytest

from segrelay.worker.contract.redis.acts import read_acts
from segrelay.worker.contract.triggers import read_pauses
from tests.full import full
from tests.integration.ops.relay import payload


@pytest.fixture
def ask(call):
    def run(*arguments):
        return orjson.loads(call(*arguments, "--json").stdout)

    return run


def test_a_full_redis_is_paused_and_resumed(relay, ask):
    with full(relay.client):
        ask("pause", "insider", "vip-enter")
        paused = read_pauses(relay.client)
        ask("resume", "insider", "vip-enter")

        assert "pause" in {act.what for act in read_acts(relay.client)}
        assert (set(paused.destinations), set(paused.triggers)) == ({"insider"}, {"vip-enter"})
        assert not read_pauses(relay.client).triggers


def test_what_waits_in_a_full_redis_is_discarded(relay, ask):
    relay.publish(payload("ann@example.com"), payload("ben@example.com", audience="gold"))
    relay.publish(payload("dan@example.com", direction="exit"), job="load")
    with full(relay.client):
        assert ask("discard", "--audience", "gold", "--yes") == {"discarded": 1}
        assert ask("discard", "--job", "load", "--yes") == {"discarded": 1}

    assert relay.status()["waiting"] == 1


@pytest.fixture
def two_dead_letters(relay, sandbox):
    sandbox.settings(poison="poisoned", poison_status=200)
    relay.deliver(
        payload("ann@example.com", status="poisoned"), payload("ben@example.com", status="poisoned")
    )
    assert relay.status()["dead"] == 2
    return [
        dead_letter
        for partition in relay.partitions()
        for dead_letter in relay.client.hkeys(partition.dead_letters)
    ]


def test_letters_in_a_full_redis_are_discarded_and_replayed(relay, ask, two_dead_letters):
    first, second = (dead_letter.decode() for dead_letter in two_dead_letters)
    with full(relay.client):
        assert ask("dlq", "discard", first, "--yes") == {"discarded": 1}
        assert ask("dlq", "replay", second, "--yes")["replayed"] == 1

    found = relay.status()
    assert (found["discarded"], found["waiting"], found["dead"]) == (1, 1, 0)


def test_the_quarantine_of_a_full_redis_is_discarded(relay, ask):
    relay.publish(payload(""))
    with full(relay.client):
        assert ask("quarantine", "discard", "--all", "--yes") == {"discarded": 1}
