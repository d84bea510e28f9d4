"""The lease of a drain, which a thread renews in a real Redis."""

from segrelay.worker.adapters.redis.lease import RENEW_SECONDS, ThreadedLease
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.connection import connect
from tests.waiting import allowed, until

PARTITION = PartitionKeys("insider", 0)


def test_a_lease_that_was_just_taken_holds_unrenewed_and_lapses(redis_url: str) -> None:
    with connect(redis_url) as client:
        client.hset(PARTITION.lease, mapping={"token": "ours", "until": 0})
        with ThreadedLease(client, PARTITION, "ours", RENEW_SECONDS / 2) as lease:
            assert lease.is_valid()
            assert client.hget(PARTITION.lease, "until") == b"0"

            until(lambda: not lease.is_valid(), allowed(RENEW_SECONDS))


def test_a_lease_is_renewed_until_somebody_else_has_it(redis_url: str) -> None:
    with connect(redis_url) as client:
        client.hset(PARTITION.lease, mapping={"token": "ours", "until": 0})
        with ThreadedLease(client, PARTITION, "ours", 600.0) as lease:
            until(lambda: client.hget(PARTITION.lease, "until") != b"0", allowed(2 * RENEW_SECONDS))
            assert lease.is_valid()

            client.hset(PARTITION.lease, "token", "another")

            until(lambda: not lease.is_valid(), allowed(2 * RENEW_SECONDS))
