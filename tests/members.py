"""The members that a sync knows, written and read in tests as the scripts do it."""

from segrelay.producer.sync.store import SyncStore
from segrelay.worker.contract.keys import PartitionKeys, partition_of
from segrelay.worker.contract.redis.accept import field_of_member, key_of_member


def known_by_a_sync(relay, emails, audience="vip"):
    """Let the sync `vip` have seen people in an audience."""
    store = SyncStore(relay.client, "vip", relay.settings.redis)
    run, _ = store.take()
    run.audience, run.known = audience, ["insider"]
    store.save(run, ends=True)
    for key in (f"email:{email}" for email in emails):
        number = partition_of(key, relay.settings.redis.partitions)
        set_marks(relay.client, PartitionKeys("insider", number), "vip", {key: "1 x"})


def set_marks(client, partition, sync, marks):
    """Give people marks as members, by their keys; with an empty one, they are none any more."""
    pipe = client.pipeline(transaction=False)
    for key, mark in marks.items():
        name, field = partition.members(sync), field_of_member(key)
        pipe.hset(name, field, mark) if mark else pipe.hdel(name, field)
    pipe.execute()


def marks_of(client, partition, sync):
    """Return the marks of the members by their keys."""
    stored = client.hgetall(partition.members(sync))
    return {key_of_member(field.decode()): mark for field, mark in stored.items()}
