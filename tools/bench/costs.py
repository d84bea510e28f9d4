"""Benchmarks of Redis alone: bytes of the ledger, processor time and commands for a delivery.

Processor time and commands do not change with other work on the machine. Partitions are drained
one after the other in this process, so that nothing depends on who is quicker.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from segrelay.ops.demo.rig import DESTINATION, Rig, trigger_pairs
from segrelay.producer.publish import Publisher
from segrelay.producer.sources.blocks import block_times
from segrelay.producer.sources.files import BATCH_PAYLOADS
from segrelay.producer.wakeups import SilentWaker
from segrelay.sandbox.people import AUDIENCES, happenings, payloads, truth
from segrelay.worker.batch.partition import LedgerText
from segrelay.worker.batch.send import Stop
from segrelay.worker.contract.keys import PartitionKeys, digest_of
from segrelay.worker.contract.ledger import LAPSING_FORMAT, Record
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.contract.redis.connection import servers_of
from segrelay.worker.contract.words import Direction
from segrelay.worker.core.ledger import with_delivered
from segrelay.worker.core.supersede import LedgerEvent
from segrelay.worker.errors import OperationsMustAct
from segrelay.worker.node.runtime import runtime_for
from tests.topologies import LocalCluster
from tools.bench.rigs import audiences_of, bench_rig, redis_alone, redis_seconds, used_memory

_PARTITIONS: Final = 16
_AT_ONCE: Final = 5_000
_TIME_US: Final = 1_790_000_000_123_456
_APART_US: Final = 30 * 86_400_000_000
"""Between two deliveries of a ledger: times that are close to each other would take less."""
_CALM_SECONDS: Final = 0.5
_CALM_AT_MOST_SECONDS: Final = 30.0

LedgerEntry = tuple[int, int, Direction]
"""A delivery in a ledger: the audience's number, the trigger's number, and the direction."""
ENTER, EXIT, EXIT_EVENT = range(1, 4)
"""The numbers that the triggers of the cases have in the ledger."""
CASES: Final[dict[str, Sequence[LedgerEntry]]] = {
    "one audience entered": [(1, ENTER, Direction.ENTER)],
    "two audiences entered": [(a, ENTER, Direction.ENTER) for a in (1, 2)],
    "three audiences entered": [(a, ENTER, Direction.ENTER) for a in (1, 2, 3)],
    "one audience entered and left, three triggers": [
        (1, ENTER, Direction.ENTER),
        (1, EXIT, Direction.EXIT),
        (1, EXIT_EVENT, Direction.EXIT),
    ],
    "three audiences entered and left, three triggers": [
        (audience, trigger, direction)
        for audience in (1, 2, 3)
        for trigger, direction in (
            (ENTER, Direction.ENTER),
            (EXIT, Direction.EXIT),
            (EXIT_EVENT, Direction.EXIT),
        )
    ],
}


class Size(NamedTuple):
    """The size of a profile's ledger in bytes.

    Args:
        packed: Length of the packed text.
        memory: Memory that Redis needs for it, with its share of the table of keys.
    """

    packed: int
    memory: float


def ledger_size(events: int, case: str) -> dict[str, float]:
    """Measure the ledgers of many profiles, each with the deliveries of a case of `CASES`."""
    size = measure(CASES[case], events)
    return {"bytes_a_profile": round(size.memory), "packed_bytes": size.packed}


def measure(deliveries: Sequence[LedgerEntry], profiles: int) -> Size:
    """Measure the bytes of a ledger by writing many equal ones into an empty Redis."""
    text = packed(deliveries)
    with redis_alone() as on:
        client = on.client
        client.config_set("appendfsync", "no")  # the disk is not what is measured
        before = _calm_memory(client)
        write_ledgers(client, text, profiles)
        after = _calm_memory(client)
    return Size(len(text), (after - before) / profiles)


def write_ledgers(client: Redis, text: bytes, profiles: int) -> None:
    """Write the same ledger for a number of profiles, spread over all partitions."""
    for first in range(0, profiles, _AT_ONCE):
        pipe = client.pipeline(transaction=False)
        for number in range(first, min(first + _AT_ONCE, profiles)):
            pipe.set(_key(number), text)
        pipe.execute()


def packed(deliveries: Sequence[LedgerEntry]) -> bytes:
    """Return the ledger of a profile with these deliveries, as Redis keeps it."""
    record = Record()
    for number, (audience, trigger, direction) in enumerate(deliveries):
        record = with_delivered(
            record, LedgerEvent(_TIME_US + number * _APART_US, direction, trigger, audience)
        )
    text, lasts = LedgerText.of(record)
    ends = bytes([LAPSING_FORMAT]) + (_TIME_US // 1_000).to_bytes(6, "big")
    return text if lasts else ends + text


def _key(number: int) -> bytes:
    partition = PartitionKeys("insider", number % _PARTITIONS)
    return partition.ledger(digest_of(f"email:person{number}@example.com"))


def _calm_memory(client: Redis) -> int:
    """Return the memory in use once it no longer shrinks.

    A table that grows exists twice for some seconds.
    """
    ends_at = time.monotonic() + _CALM_AT_MOST_SECONDS
    used = used_memory(client)
    while time.monotonic() < ends_at:
        time.sleep(_CALM_SECONDS)
        now = used_memory(client)
        if now >= used:
            return now
        used = now
    return used


_NO_BROKER: Final = "redis://127.0.0.1:1/0"
_PEOPLE: Final = 1_000_000
_IDLE_SECONDS: Final = 2.0
_ROUNDS: Final = 20
_OTHERS: Final = tuple(
    f"cmdstat_{name}" for name in ("info", "auth", "cluster", "config", "client", "hlen")
)
"""Commands that are not counted: those of this benchmark, of connecting, and `HLEN`, with which a
process counts the dead letters of all partitions every few seconds."""


@dataclass(frozen=True, slots=True)
class NodeUse:
    """The processor time and the number of commands of a Redis server up to one moment."""

    seconds: float
    commands: int
    at: float


def deliver(
    *, events: int, masters: int = 1, partitions: int = 256, triggers: int = 0, audiences: int = 0
) -> dict[str, Any]:
    """Measure the Redis servers' processor time and commands for publishing and draining events.

    Args:
        events: Number of events.
        masters: 1 for a single server, 3 for a Cluster without replicas.
        partitions: Of the destination.
        triggers: Number of triggers over which the events are spread; 0 for the rig's own.
        audiences: Number of audiences over which they are spread; 0 for those of the triggers.
    """
    slugs = [f"many-{number}" for number in range(audiences)] or audiences_of(triggers) or AUDIENCES
    happened = happenings(Random(1), events=events, people=_PEOPLE, audiences=slugs)  # noqa: S311 - invented people
    options = {"audiences": slugs} if audiences else {"more": trigger_pairs(audiences_of(triggers))}
    with _rig(masters, f"partitions = {partitions}", **options) as rig:
        idle = _idle(rig.client)
        before = _uses(rig.client)
        _publish(rig, list(payloads(happened)))
        between = _uses(rig.client)
        _drain(rig, partitions)
        after = _uses(rig.client)
        if rig.memberships() != truth(happened):
            raise OperationsMustAct("Memberships in the sandbox differ from what the events say.")
        deliveries = sum(n for name, n in rig.counts().items() if name.startswith("accepted|"))
    return {
        "events": events,
        "deliveries": deliveries,
        "servers": len(after),
        **_processor_time(before, after, idle, events),
        "commands_of_publishing": _commands(before, between, deliveries),
        "commands_of_draining": _commands(between, after, deliveries),
    }


@contextmanager
def _rig(masters: int, lines: str, **options: Any) -> Iterator[Rig]:
    if masters == 1:
        with bench_rig(redis_lines=lines, **options) as rig:
            yield rig
        return
    with tempfile.TemporaryDirectory(prefix="segrelay-bench-") as name:
        lines += f'\nbroker_url = "{_NO_BROKER}"'
        with (
            LocalCluster(Path(name), replicas=False) as cluster,
            bench_rig(redis_url=cluster.url, redis_lines=lines, **options) as rig,
        ):
            yield rig


def _publish(rig: Rig, rows: list[bytes]) -> None:
    """Publish in blocks as large as those of `segrelay send`."""
    publisher = Publisher(rig.client, rig.settings, waker=SilentWaker())
    block = BATCH_PAYLOADS * block_times(rig.settings.redis.partitions)
    for first in range(0, len(rows), block):
        publisher.publish(rows[first : first + block])


def _drain(rig: Rig, partitions: int) -> None:
    """Drain all partitions, one after the other."""
    runtime = runtime_for(rig.settings)
    try:
        for _ in range(_ROUNDS):
            for partition in range(partitions):
                runtime.drain(DESTINATION, partition, Stop())
            if not rig.waiting():
                return
    finally:
        runtime.close()
    raise OperationsMustAct(f"{rig.waiting()} deliveries still wait.")


def _uses(client: Redis) -> dict[str, NodeUse]:
    """Return the use of each server so far."""
    return {name: _use(server) for name, server in servers_of(client)}


def _use(server: Redis) -> NodeUse:
    told: Any = server.info("commandstats")
    commands = sum(int(one["calls"]) for name, one in told.items() if not name.startswith(_OTHERS))
    return NodeUse(redis_seconds(server), commands, time.monotonic())


def _idle(client: Redis) -> dict[str, float]:
    """Return the share of a processor that each server uses while nothing is asked of it."""
    before = _uses(client)
    time.sleep(_IDLE_SECONDS)
    return {
        name: (use.seconds - before[name].seconds) / (use.at - before[name].at)
        for name, use in _uses(client).items()
    }


def _processor_time(
    before: Mapping[str, NodeUse],
    after: Mapping[str, NodeUse],
    idle: Mapping[str, float],
    events: int,
) -> dict[str, float]:
    """Return the servers' processor time for one event: the sum, the busiest, and the idlest.

    It is in µs, and less what the servers use while they are idle.
    """
    each = [
        1e6
        * (use.seconds - before[name].seconds - idle[name] * (use.at - before[name].at))
        / events
        for name, use in after.items()
    ]
    return {
        "us_per_event": round(sum(each), 1),
        "us_per_event_of_the_busiest": round(max(each), 1),
        "us_per_event_of_the_idlest": round(min(each), 1),
    }


def _commands(
    before: Mapping[str, NodeUse], after: Mapping[str, NodeUse], deliveries: int
) -> float:
    count = sum(use.commands - before[name].commands for name, use in after.items())
    return round(count / deliveries, 3)
