"""A partition in Valkey and one in a Cluster, on a clock that the test moves."""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

import orjson
import pytest

from segrelay.worker.adapters.redis.partition import RedisPartition
from segrelay.worker.batch.delivery import Delivery
from segrelay.worker.batch.partition import (
    Hold,
    Intent,
    ReadRange,
)
from segrelay.worker.contract.events import Header, decode_header
from segrelay.worker.contract.keys import PartitionKeys, digest_of, stream_name
from segrelay.worker.contract.ledger import unpack as unpack_ledger
from segrelay.worker.contract.outcomes import OutcomeRow, unpack
from segrelay.worker.contract.redis.accept import NewDelivery
from segrelay.worker.contract.redis.connection import connect_async
from segrelay.worker.contract.redis.scripts import run_script_async
from segrelay.worker.contract.words import Direction
from segrelay.worker.core.backoff import Backoff, Wait
from tests.conformance.clocked_redis import CLOCK, script_on_our_clock
from tests.ledger_keys import digest_in, lapses_at_ms
from tests.topologies import LocalCluster

START_MS = 1_764_000_000_000
LEASE_SECONDS = 10.0
RETENTION_SECONDS = 1_000.0
LATE_SECONDS = 30.0


class OnOurClock(RedisPartition):
    """The real scripts, but for the line that asks Redis for the time."""

    async def renewed(self) -> Any:
        """Renew the lease as the thread of a drain does, on our clock."""
        return await self._call("intent", (self.keys.lease,), (self.token, self.lease_ms, ""))

    async def _call(self, name: str, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        return await run_script_async(self._client, script_on_our_clock(name), keys, args)

    async def _write(self, name: str, keys: Sequence[Any], args: Sequence[Any]) -> Any:
        return await run_script_async(
            self._client, script_on_our_clock(name), keys, args, replicated=True
        )


class World:
    """One partition, and all who want to hold it."""

    def __init__(self, runner: asyncio.Runner, client: Any) -> None:
        self._runner = runner
        self._client = client
        self.keys = PartitionKeys("insider", 0)
        self.run(client.flushdb())
        self.set_clock(START_MS)

    def partition(self, most_bytes: int = 1_000_000) -> RedisPartition:
        return OnOurClock(
            self._client,
            self.keys,
            lease_seconds=LEASE_SECONDS,
            retention_seconds=RETENTION_SECONDS,
            late_seconds=LATE_SECONDS,
            owner="a test",
            most_bytes=most_bytes,
        )

    def run(self, waiting: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(waiting)

    def set_clock(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.run(self._client.set(CLOCK, now_ms * 1_000))

    def renew(self, partition: Any) -> bool:
        return bool(self.run(partition.renewed()))

    async def removed(self, *names: Any) -> None:
        """Remove keys, whoever holds the lease."""
        for name in names:
            await self._client.delete(name)

    def accept_ahead(self, delivery: NewDelivery, seconds: float) -> None:
        """Accept as if the clock by which ids are given were ahead, and was set back since."""
        self.run(self.partition().accept([delivery]))
        stream = self.keys.stream(stream_name(delivery.lane, delivery.trigger))
        entry_id, fields = self.run(self._client.xrevrange(stream, count=1))[0]
        ahead = int(entry_id.split(b"-")[0]) + round(1000 * seconds)
        self.run(self._client.xdel(stream, entry_id))
        self.run(self._client.xadd(stream, fields, id=f"{ahead}-0"))

    def ledger_lives_ms(self, digest: bytes) -> int:
        ends_ms = lapses_at_ms(self.run(self._client.get(self.keys.ledger(digest))))
        return ends_ms - self.now_ms if ends_ms else -1

    def remove_lapsed(self) -> int:
        """Remove the ledgers whose time is past, as the sweep does."""
        return self.run(self._remove_lapsed())

    async def _remove_lapsed(self) -> int:
        keys = self.keys
        ledgers = [name for name in await self._client.keys("*") if digest_in(name, keys)]
        names = (keys.lease, keys.streams, *ledgers)
        return await run_script_async(
            self._client, script_on_our_clock("lapse"), names, (keys.tag,)
        )

    def add_to_records(self, more: bytes, *parts: str) -> None:
        """Add a value to each record of these hashes, as a newer version may."""
        for name in (getattr(self.keys, part) for part in parts):
            for field, text in self.run(self._client.hgetall(name)).items():
                inside = text.rstrip(b"]")
                self.run(self._client.hset(name, field, inside + more + text[len(inside) :]))

    def outcomes(self) -> list[OutcomeRow]:
        entries = self.run(self._client.xrange(self.keys.outcomes))
        return [row for entry in entries for row in unpack(self.keys, *entry)]

    def recorded(self) -> dict[str, int]:
        stored = self.run(self._client.hgetall(self.keys.recorded))
        return {name.decode(): int(value) for name, value in stored.items()}

    def contents(self) -> dict[str, Any]:
        return self.run(self._contents())

    async def _contents(self) -> dict[str, Any]:
        client, keys = self._client, self.keys
        hashes = {}
        hashed = ("counts", "intents", "open", "retry", "aside", "holds", "dead_letters", "causes")
        for part in hashed:
            stored = await client.hgetall(getattr(keys, part))
            hashes[part] = {name.decode(): text for name, text in stored.items()}
        names = sorted(name.decode() for name in await client.smembers(keys.streams))
        all_keys = await client.keys("*")
        prefix = keys.tag.encode() + b"l"
        digests = [
            key.removeprefix(prefix)
            for key in all_keys
            if key.startswith(prefix) and key != keys.lease.encode() and not _is_part(keys, key)
        ]
        streams = {name: await client.xrange(keys.stream(name)) for name in names}
        return {
            "streams": {
                name: [(decode_header(row[b"h"]), row[b"p"]) for _, row in rows]
                for name, rows in streams.items()
            },
            "counts": {name: int(n) for name, n in hashes["counts"].items()},
            "wakeup": (await client.get(keys.wakeup) or b"").decode(),
            "held_until": int(await client.hget(keys.lease, "until") or 0),
            "intents": {i: text.decode() for i, text in hashes["intents"].items()},
            "open": {i: int(text) for i, text in hashes["open"].items()},
            "rendering": sorted(orjson.loads(await client.get(keys.rendering) or b"[]")),
            "retry": {i: Wait(*orjson.loads(text)) for i, text in hashes["retry"].items()},
            "aside": {i: Backoff(*orjson.loads(text)) for i, text in hashes["aside"].items()},
            "holds": {i: _hold(text) for i, text in hashes["holds"].items()},
            "ledgers": {
                digest: unpack_ledger(await client.get(keys.ledger(digest))) for digest in digests
            },
            "letters": hashes["dead_letters"],
            "causes": {i: t for i, t in hashes["causes"].items() if not i.endswith("|n")},
            "cause_counts": {
                i.removesuffix("|n"): int(t)
                for i, t in hashes["causes"].items()
                if i.endswith("|n")
            },
            "responses": [row[b"r"] for _, row in await client.xrange(keys.responses)],
            "reached": {
                digest.decode(): await client.hget(keys.who, digest)
                for digest in await client.zrange(keys.reached, 0, -1)
            },
        }


def _is_part(keys: PartitionKeys, key: bytes) -> bool:
    return key in {keys.dead_letters.encode(), keys.dead_letter_times.encode()}


def _hold(text: bytes) -> Hold:
    last_id, until_ms, *edition = text.decode().split()
    return Hold(last_id, int(until_ms), *edition)


class Bench:
    """A partition with what a test does to it, in short words."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.one = world.partition()
        self.two = world.partition()

    @property
    def now_ms(self) -> int:
        return self.world.now_ms

    def run(self, waiting: Coroutine[Any, Any, Any]) -> Any:
        return self.world.run(waiting)

    def pass_seconds(self, seconds: float) -> None:
        self.world.set_clock(self.world.now_ms + round(1000 * seconds))

    def accept(self, *people: str, trigger: str = "vip-enter", lane: str = "live") -> None:
        self.run(self.one.accept([new(person, trigger, lane) for person in people]))

    def deliveries(self, stream: str = "live|vip-enter") -> list[Delivery]:
        return self.run(self.one.read([ReadRange(stream, "", 1_000)]))[0].entries

    def take_back(self, stream: str, *deliveries: Delivery) -> None:
        """Remove entries as `take_back.lua` does."""
        keys, client = self.world.keys, self.world._client
        self.run(client.xdel(keys.stream(stream), *(one.entry_id for one in deliveries)))
        self.run(client.hset(keys.lease, "taken_back", self.now_ms))

    def limit_log(self, most_bytes: int) -> None:
        """Let the outcome log take no more than this from now on."""
        self.one = self.world.partition(most_bytes)

    def outcomes(self) -> list[OutcomeRow]:
        return self.world.outcomes()

    def recorded(self) -> dict[str, int]:
        return self.world.recorded()

    def contents(self) -> dict[str, Any]:
        return self.world.contents()

    def count(self, name: str) -> int:
        return self.contents()["counts"].get(name, 0)


def new(person: str, trigger: str = "vip-enter", lane: str = "live") -> NewDelivery:
    header = Header(
        digest_of(f"email:{person}@example.com"),
        "vip",
        Direction.ENTER,
        1_700_000_000_000_000,
        state=False,
        skip_hook=False,
        repair=False,
        accepted_ms=START_MS,
    )
    return NewDelivery(lane, trigger, header, orjson.dumps({"email": f"{person}@example.com"}))


def intent_of(intent_id: str, *deliveries: Delivery) -> Intent:
    return Intent(intent_id, tuple((each.position, each.header) for each in deliveries))


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as running:
        yield running


@pytest.fixture(scope="session")
def redis_client(valkey: Any, runner: asyncio.Runner) -> Iterator[Any]:
    client = connect_async(valkey.url)
    yield client
    runner.run(client.aclose())


@pytest.fixture(scope="session")
def cluster_client(local_cluster: LocalCluster, runner: asyncio.Runner) -> Iterator[Any]:
    client = connect_async(local_cluster.url, replicas=1)
    yield client
    runner.run(client.aclose())


@pytest.fixture(params=["redis", pytest.param("cluster", marks=pytest.mark.nightly)])
def bench(request: pytest.FixtureRequest, runner: asyncio.Runner) -> Bench:
    return Bench(World(runner, request.getfixturevalue(f"{request.param}_client")))
