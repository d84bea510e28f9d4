"""The lease of a drain, which a thread renews in a real Redis."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from segrelay.worker.adapters.redis.partition import RENEW_SECONDS, LeaseKeeper, ThreadedLease
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import connect
from tests.waiting import allowed, until

PARTITION = PartitionKeys("insider", 0)


@pytest.fixture
def keeper(client: Redis, redis_url: str) -> Iterator[LeaseKeeper]:
    """The thread that renews; somebody else may read and change the lease of `ours`."""
    client.hset(PARTITION.lease, mapping={"token": "ours", "until": 0})
    with closing(LeaseKeeper(connect(redis_url))) as keeper:
        yield keeper


def is_renewed(client: Redis) -> bool:
    return client.hget(PARTITION.lease, "until") != b"0"


def test_a_lease_that_was_just_taken_holds_unrenewed_and_lapses(keeper: LeaseKeeper) -> None:
    long, short = (
        ThreadedLease(keeper, PARTITION, "ours", seconds) for seconds in (600.0, RENEW_SECONDS / 2)
    )

    assert long.is_valid()
    until(lambda: not short.is_valid(), allowed(RENEW_SECONDS))


def test_a_lease_is_renewed_until_somebody_else_has_it(client: Redis, keeper: LeaseKeeper) -> None:
    with ThreadedLease(keeper, PARTITION, "ours", 600.0) as lease:
        until(lambda: is_renewed(client), allowed(2 * RENEW_SECONDS))
        assert lease.is_valid()

        client.hset(PARTITION.lease, "token", "another")

        until(lambda: not lease.is_valid(), allowed(2 * RENEW_SECONDS))


def test_of_the_leases_of_a_process_the_one_at_hand_is_renewed(
    client: Redis, keeper: LeaseKeeper
) -> None:
    with ThreadedLease(keeper, PARTITION, "before", RENEW_SECONDS / 2) as before:
        until(lambda: not before.is_valid(), allowed(RENEW_SECONDS))
    with ThreadedLease(keeper, PARTITION, "ours", RENEW_SECONDS / 2) as lease:
        until(lambda: is_renewed(client), allowed(2 * RENEW_SECONDS))
        until(lease.is_valid, allowed(RENEW_SECONDS))

    assert not before.is_valid()
