"""A benchmark of Redis alone: processor time and commands for publishing and draining an event.

Neither changes with other work on the machine. Partitions are drained one after the other in this
process, so that nothing depends on who is quicker.
"""

from __future__ import annotations

import time
from random import Random
from typing import Any, Final

from segrelay.producer.publish import Publisher
from segrelay.producer.sources.blocks import BATCH_PAYLOADS
from segrelay.producer.wakeups import SilentWaker
from segrelay.sandbox.people import AUDIENCES, happenings, payloads, truth
from segrelay.worker.batch.partition import Stop
from segrelay.worker.contract.redis.client import Redis
from segrelay.worker.errors import OperationsMustAct
from segrelay.worker.node.runtime import Runtime
from tests.rig import DESTINATION, Rig, trigger_pairs
from tools.bench.rigs import audiences_of, bench_rig, redis_seconds

_PEOPLE: Final = 1_000_000
_IDLE_SECONDS: Final = 2.0
_ROUNDS: Final = 20
_OTHERS: Final = tuple(
    f"cmdstat_{name}" for name in ("info", "auth", "cluster", "config", "client", "hlen")
)
"""Commands that are not counted: those of this benchmark, of connecting, and `HLEN`, with which a
process counts the dead letters of all partitions every few seconds."""


def deliver(*, events: int, partitions: int = 256, triggers: int = 0) -> dict[str, Any]:
    """Measure Redis' processor time and commands for publishing and draining events.

    What Redis uses while nothing is asked of it is taken off the processor time.

    Args:
        events: Number of events.
        partitions: Number of partitions of the destination.
        triggers: Number of triggers over which the events are spread; 0 for the rig's own.
    """
    slugs = audiences_of(triggers) or AUDIENCES
    happened = happenings(Random(1), events=events, people=_PEOPLE, audiences=slugs)  # noqa: S311 - invented people
    with bench_rig(
        redis_lines=f"partitions = {partitions}", more=trigger_pairs(audiences_of(triggers))
    ) as rig:
        begun, seconds, _ = _use(rig.client)
        time.sleep(_IDLE_SECONDS)
        before, idle, commands = _use(rig.client)
        _publish(rig, list(payloads(happened)))
        *_, published = _use(rig.client)
        _drain(rig, partitions)
        after, used, drained = _use(rig.client)
        if rig.memberships() != truth(happened):
            raise OperationsMustAct("Memberships in the sandbox differ from what the events say.")
        deliveries = sum(n for name, n in rig.counts().items() if name.startswith("accepted|"))
    busy = used - idle - (idle - seconds) / (before - begun) * (after - before)
    return {
        "events": events,
        "deliveries": deliveries,
        "us_per_event": round(1e6 * busy / events, 1),
        "commands_of_publishing": round((published - commands) / deliveries, 3),
        "commands_of_draining": round((drained - published) / deliveries, 3),
    }


def _publish(rig: Rig, rows: list[bytes]) -> None:
    """Publish in blocks as large as those of `segrelay send`."""
    publisher = Publisher(rig.client, rig.settings, waker=SilentWaker())
    block = BATCH_PAYLOADS
    for first in range(0, len(rows), block):
        publisher.publish(rows[first : first + block])


def _drain(rig: Rig, partitions: int) -> None:
    """Drain all partitions, one after the other."""
    runtime = Runtime(rig.settings)
    try:
        for _ in range(_ROUNDS):
            for partition in range(partitions):
                runtime.drain(DESTINATION, partition, Stop())
            if not rig.waiting():
                return
    finally:
        runtime.close()
    raise OperationsMustAct(f"{rig.waiting()} deliveries still wait.")


def _use(client: Redis) -> tuple[float, float, int]:
    """Return the time, and Redis' processor seconds and number of commands so far."""
    told: Any = client.info("commandstats")
    commands = sum(int(one["calls"]) for name, one in told.items() if not name.startswith(_OTHERS))
    return time.monotonic(), redis_seconds(client), commands
