"""A Redis at its `maxmemory`: whoever operates it can stop and free work there."""

import orjson

from segrelay.worker.contract.redis.acts import read_acts
from segrelay.worker.contract.triggers import read_pauses
from tests.full import full
from tests.integration.ops.relay import payload


def test_a_full_redis_is_paused_and_resumed_and_what_is_kept_there_is_discarded_or_replayed(
    relay, sandbox, call
):
    def ask(*arguments):
        return orjson.loads(call(*arguments, "--json").stdout)

    sandbox.settings(poison="poisoned", poison_status=200)
    relay.deliver(*(payload(f"p{n}@example.com", status="poisoned") for n in range(2)))
    first, second = (one["id"] for one in ask("dlq", "list"))
    relay.publish(payload("ann@example.com"), payload("ben@example.com", audience="gold"))
    relay.publish(payload("dan@example.com", direction="exit"), job="load")
    relay.publish(payload(""))
    with full(relay.client):
        ask("pause", "insider", "vip-enter")
        paused = read_pauses(relay.client)
        ask("resume", "insider", "vip-enter")
        assert "pause" in {act.what for act in read_acts(relay.client)}
        assert (set(paused.destinations), set(paused.triggers)) == ({"insider"}, {"vip-enter"})
        assert not read_pauses(relay.client).triggers
        assert ask("discard", "--audience", "gold", "--yes") == {"discarded": 1}
        assert ask("discard", "--job", "load", "--yes") == {"discarded": 1}
        assert ask("dlq", "discard", first, "--yes") == {"discarded": 1}
        assert ask("dlq", "replay", second, "--yes")["replayed"] == 1
        assert ask("quarantine", "discard", "--all", "--yes") == {"discarded": 1}

    found = relay.status()
    assert (found["discarded"], found["waiting"], found["dead"]) == (3, 2, 0)
