"""A destination whose dead letters reach the limit is paused before anything more is sent."""

from contextlib import closing

from segrelay.worker.batch.partition import Stop
from segrelay.worker.contract import keys
from tests.integration.ops.relay import EXIT, payload, started


def test_the_drain_that_finds_the_limit_reached_sends_nothing_more(relay):
    relay.configure(EXIT, late='late = "1s"\ndead_letters_kept = 2')
    relay.publish(payload("ada@example.com"), payload("bob@example.com"))
    partitions = relay.partitions()
    for partition in partitions[:2]:
        relay.client.hset(partition.dead_letters, "live|vip-enter|1-1", b"{}")

    with closing(started(relay.settings)) as runtime:
        tallies = [runtime.drain("insider", at.number, Stop())[0] for at in partitions]

    assert {tally.ended for tally in tallies} == {"paused by a person"}
    assert sum(tally.delivered for tally in tallies) == 0
    [reason] = relay.client.hgetall(keys.PAUSED).values()
    assert b"2 dead letters" in reason
