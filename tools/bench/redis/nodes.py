"""A benchmark of the cost of a delivery in Redis: on one server, and on the masters of a Cluster.

It counts processor time and commands, which other work on the machine does not change. Partitions
are drained one after the other in this process, so that nothing depends on who is quicker.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from redis import Redis

from segrelay.ops.demo.rig import DESTINATION, Rig, trigger_pairs
from segrelay.ops.embedded.topologies import LocalCluster
from segrelay.producer.publish import Publisher
from segrelay.producer.sources.blocks import block_times
from segrelay.producer.sources.files import BATCH_PAYLOADS
from segrelay.producer.wakeups import SilentWaker
from segrelay.sandbox.people import AUDIENCES, happenings, payloads, truth
from segrelay.worker.batch.send import Stop
from segrelay.worker.contract.redis.connection import servers_of
from segrelay.worker.errors import OperationsMustAct
from segrelay.worker.node.runtime import runtime_for
from tools.bench.frame.redis_alone import audiences_of, redis_seconds
from tools.bench.frame.rigs import bench_rig

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
