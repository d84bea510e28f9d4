"""Leases that are awaited, or taken away once they have lapsed."""

from segrelay.ops.moving.leases import await_holders


def test_a_renaming_waits_for_whoever_holds_a_lease(relay):
    partition = relay.partitions()[0]
    relay.client.hset(partition.lease, mapping={"token": "a", "until": 1 << 50, "owner": "x:1 y"})
    looks = []

    def looked(_seconds):
        looks.append(relay.client.hset(partition.lease, "token", "b"))

    await_holders(relay.client, relay.partitions(), looked)

    assert len(looks) == 1
    assert relay.client.hget(partition.lease, "token") == b"b"


def test_a_holder_that_stood_still_loses_its_lapsed_lease_to_a_renaming(relay):
    partition = relay.partitions()[0]
    relay.client.hset(partition.lease, mapping={"token": "a", "until": 1, "owner": "x:1 y"})

    await_holders(relay.client, relay.partitions())

    assert not relay.client.exists(partition.lease)


def test_a_lease_that_is_taken_away_leaves_the_times_of_ids_that_are_gone(relay):
    partition, *_ = relay.partitions()
    lapsed = {"token": "held", "until": 1, "length": 1, "owner": "nobody", "floor": 7}
    relay.client.hset(partition.lease, mapping=lapsed)

    await_holders(relay.client, [partition])

    assert relay.client.hgetall(partition.lease) == {b"floor": b"7"}
