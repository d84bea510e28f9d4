"""Which ledgers a worker removes from a real Redis."""

from contextlib import closing

import pytest

from segrelay.worker.adapters.redis.survey import RedisLapsing
from segrelay.worker.contract import keys
from segrelay.worker.contract.events import Header, encode_header
from segrelay.worker.contract.keys import PartitionKeys, digest_of
from segrelay.worker.contract.redis.connection import connect
from segrelay.worker.contract.words import Direction
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


def let_wait(client, *, days, stream="live|vip-enter", accepted_days=None):
    """Let an entry wait, by its id since so many days."""
    id_ms = now_ms(client) - round(days * DAY_MS)
    accepted_ms = id_ms if accepted_days is None else now_ms(client) - accepted_days * DAY_MS
    header = Header(
        ADA, "vip", Direction.ENTER, 1, state=False, skip_hook=False, repair=False,
        accepted_ms=accepted_ms,
    )  # fmt: skip
    client.xadd(PARTITION.stream(stream), {"h": encode_header(header), "p": b"{}"}, id=f"{id_ms}-0")
    client.sadd(PARTITION.streams, stream)


def test_a_ledger_goes_once_its_retention_is_over(client, lapsing):
    over = keep_ledger(client, over_days=1)
    under = keep_ledger(client, over_days=-1, digest=digest_of("email:bob@example.com"))

    assert turn(lapsing) == 1
    assert (client.exists(over), client.exists(under)) == (0, 1)


@pytest.mark.parametrize("stream", ["live|vip-enter", "job.load|vip-enter", "live|gone"])
def test_it_stays_while_something_waits_that_came_before(client, lapsing, stream):
    over = keep_ledger(client, over_days=1)
    let_wait(client, days=2, stream=stream)
    let_wait(client, days=0, stream="live|other")

    assert turn(lapsing) == 0
    client.delete(PARTITION.stream(stream))
    client.srem(PARTITION.streams, stream)
    assert turn(lapsing) == 1
    assert not client.exists(over)


def test_what_was_moved_here_holds_what_its_first_place_held(client, lapsing):
    keep_ledger(client, over_days=2)
    let_wait(client, days=0)
    now = now_ms(client)
    client.hset(PARTITION.lease, mapping={"aged": now - 3 * DAY_MS, "aged_until": now + DAY_MS})

    assert turn(lapsing) == 0
    client.hset(PARTITION.lease, "aged_until", now - DAY_MS)
    assert turn(lapsing) == 1
    assert client.hgetall(PARTITION.lease) == {}


def test_no_other_key_goes(client, lapsing):
    member, plain = PARTITION.ledger(bytes(10)), PARTITION.ledger(bytes(9) + b"\n")
    client.set(member, b"in")
    client.set(plain, b"")
    client.set(PARTITION.dead_letters, lapsing_text(1_000))
    client.zadd(PARTITION.dead_letter_times, {"letter": 1})
    keep_ledger(client, over_days=1, partition=PartitionKeys("insider", 4))

    assert turn(lapsing) == 0
