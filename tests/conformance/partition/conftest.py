"""A partition in Valkey, on a clock that the test moves."""

from collections.abc import Coroutine
from typing import Any

import orjson
import pytest

from segrelay.worker.adapters.redis import scripts
from segrelay.worker.adapters.redis.partition import RedisPartition, ThreadedLease
from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.partition import Intent, ReadRange
from segrelay.worker.contract.keys import PartitionKeys
from segrelay.worker.contract.ledger import Record, unpack
from segrelay.worker.contract.redis.accept import NewDelivery
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.scripts import run_script
from tests.conformance.drain.processes import LEASE_SECONDS
from tests.conformance.drain.store import Store
from tests.conformance.drain.world import LATE_SECONDS, START_MS, event
from tests.ledger_keys import digest_in, lapses_at_ms
from tests.simulation.virtual_redis import AtOnce, VirtualClient, at_once

RETENTION_SECONDS = 1_000.0


class Bench:
    """A partition, and all who want to hold it, with what a test does to it, in short words."""

    def __init__(self, client: Redis) -> None:
        client.flushdb()
        self.now_ms = START_MS
        self.client = VirtualClient.beside(client, lambda: 1_000 * self.now_ms)
        self.keys = PartitionKeys("insider", 0)
        self.store = Store(client, self.keys)
        self.one, self.two = self.partition(), self.partition()

    def partition(self, most_bytes: int = 1_000_000) -> RedisPartition:
        return RedisPartition(
            AtOnce(self.client),
            self.keys,
            lease_seconds=LEASE_SECONDS,
            retention_seconds=RETENTION_SECONDS,
            late_seconds=LATE_SECONDS,
            owner="a test",
            most_bytes=most_bytes,
        )

    def run(self, waiting: Coroutine[Any, Any, Any]) -> Any:
        return at_once(waiting)

    def pass_seconds(self, seconds: float) -> None:
        self.now_ms += round(1000 * seconds)

    def renew(self, holder: RedisPartition) -> bool:
        """Renew a lease as the thread of a drain does, and say whether it holds."""
        lease = ThreadedLease(None, self.keys, holder.token, LEASE_SECONDS)
        lease.renew(self.client)
        return lease.is_valid()

    def accept(self, *people: str, trigger: str = "vip-enter", lane: str = "live") -> None:
        self.run(self.one.accept([new(person, trigger, lane) for person in people]))

    def accept_ahead(self, person: str, seconds: float) -> None:
        """Accept while the clock is ahead, and set it back."""
        self.pass_seconds(seconds)
        self.accept(person)
        self.pass_seconds(-seconds)

    def deliveries(self, stream: str = "live|vip-enter") -> list[Delivery]:
        return self.run(self.one.read([ReadRange(stream, "", 1_000)]))[0].entries

    def take_back(self, stream: str, *deliveries: Delivery) -> None:
        """Remove entries as `take_back.lua` does."""
        self.client.xdel(self.keys.stream(stream), *(one.entry_id for one in deliveries))
        self.client.hset(self.keys.lease, "taken_back", self.now_ms)

    def remove_lapsed(self) -> int:
        """Remove the ledgers whose time is past, as the sweep does."""
        names = [self.keys.lease, self.keys.streams, *map(self.keys.ledger, self.ledgers())]
        return run_script(self.client, scripts.source("lapse"), names, (self.keys.tag,))

    def add_to_records(self, more: bytes, *parts: str) -> None:
        """Add a value to each record of these hashes, as a newer version may."""
        for name in (getattr(self.keys, part) for part in parts):
            for field, text in self.client.hgetall(name).items():
                inside = text.rstrip(b"]")
                self.client.hset(name, field, inside + more + text[len(inside) :])

    # What there is.

    def everything(self) -> dict[bytes, bytes]:
        """Return all that Redis holds, as it writes it to a disk."""
        return {name: self.client.dump(name) for name in self.client.keys("*")}

    def ledgers(self) -> dict[bytes, Record]:
        digests = (digest_in(name, self.keys) for name in self.client.keys("*"))
        return {digest: unpack(self.store.ledger(digest)) for digest in digests if digest}

    def ledger_lives_ms(self, digest: bytes) -> int:
        ends_ms = lapses_at_ms(self.store.ledger(digest))
        return ends_ms - self.now_ms if ends_ms else -1

    def recorded(self) -> dict[bytes, int]:
        """Return what is known of the outcome log."""
        return {name: int(n) for name, n in self.client.hgetall(self.keys.recorded).items()}

    def rendering(self) -> list[str]:
        return orjson.loads(self.client.get(self.keys.rendering) or b"[]")

    def reached(self) -> dict[str, bytes]:
        names = self.client.zrange(self.keys.reached, 0, -1)
        return {name.decode(): self.client.hget(self.keys.who, name) for name in names}

    def count(self, name: str) -> int:
        return self.store.counts[name]


def new(person: str, trigger: str = "vip-enter", lane: str = "live") -> NewDelivery:
    return event(person, trigger=trigger, lane=lane)


def intent_of(intent_id: str, *deliveries: Delivery) -> Intent:
    return Intent(intent_id, tuple((each.position, each.header) for each in deliveries))


@pytest.fixture
def bench(redis: Redis) -> Bench:
    return Bench(redis)
