"""Which ledgers a worker removes from a real Redis."""

from contextlib import closing

import pytest

from segrelay.worker.adapters.redis.survey import RedisLapsing
from segrelay.worker.contract import keys
from segrelay.worker.contract.keys import PartitionKeys, digest_of
from segrelay.worker.contract.redis.connection import connect
from tests.configuration import insider, settings_in, trigger
from tests.ledger_keys import lapsing_text

DAY_MS = 86_400_000
PARTITION = PartitionKeys("insider", 1)
ADA = digest_of("email:ada@example.com")
TURN = 10
"""Steps after which all ledgers were looked at; in a Cluster each partition takes one."""


@pytest.fixture
def client(url):
    with closing(connect(url)) as connected:
        connected.hset(keys.DESTINATIONS, "insider", "insider ")
        yield connected


@pytest.fixture
def lapsing(client, tmp_path, redis_url):
    tables = insider(), trigger("vip-enter")
    return RedisLapsing(client, settings_in(tmp_path, *tables, redis=redis_url, partitions=4))


def turn(lapsing):
    return sum(lapsing.step() for _ in range(TURN))


def now_ms(client):
    return client.time()[0] * 1_000


def keep_ledger(client, *, over_days, partition=PARTITION, digest=ADA):
    """Keep a ledger whose retention is over since so many days."""
    over_at = now_ms(client) - round(over_days * DAY_MS)
    client.set(partition.ledger(digest), lapsing_text(over_at))
    return partition.ledger(digest)


def test_a_ledger_goes_once_its_retention_is_over(client, lapsing):
    over = keep_ledger(client, over_days=1)
    under = keep_ledger(client, over_days=-1, digest=digest_of("email:bob@example.com"))

    assert turn(lapsing) == 1
    assert (client.exists(over), client.exists(under)) == (0, 1)


def test_no_other_key_goes(client, lapsing):
    member, plain = PARTITION.ledger(bytes(10)), PARTITION.ledger(bytes(9) + b"\n")
    client.set(member, b"in")
    client.set(plain, b"")
    client.set(PARTITION.dead_letters, lapsing_text(1_000))
    client.zadd(PARTITION.dead_letter_times, {"letter": 1})
    keep_ledger(client, over_days=1, partition=PartitionKeys("insider", 4))

    assert turn(lapsing) == 0
