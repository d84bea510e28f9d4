"""A benchmark of publishing: how many events a second one process writes into Redis."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from random import Random
from typing import Final

import orjson

from segrelay.ops.demo.rig import trigger_pairs
from segrelay.producer.publish import Publisher
from segrelay.producer.sources.files import batches
from segrelay.producer.sources.reading import read_payloads
from segrelay.producer.wakeups import SilentWaker
from tools.bench.frame.redis_alone import DESTINATION, audiences_of, redis_alone, redis_seconds

_PEOPLE: Final = 30_000
_PAYLOAD_BYTES: Final = 1_024
CONFIGURATION: Final = DESTINATION + trigger_pairs(["vip"])


def payload(number: int, chance: Random, audiences: Sequence[str]) -> bytes:
    """Return a wrapped payload of 1 KB about an invented person."""
    direction = chance.choice(("enter", "exit"))
    person = chance.randrange(_PEOPLE)
    at = chance.randrange(len(audiences))
    stamp = f"2026-11-01T10:{number // 60 % 60:02}:{number % 60:02}.{number % 1_000_000:06}Z"
    audience = {"id": f"{at:032}", "slug": audiences[at], "event": direction, direction: stamp}
    data = {"email": f"person{person}@example.com", "score": person, "segment_events": [audience]}
    body = {"id": str(person), "data": data, "meta": {"object": "user", "timestamp": stamp}}
    missing = _PAYLOAD_BYTES - len(orjson.dumps(body))
    for field in range(missing // 40):
        data[f"field_{field:02}"] = f"value {chance.randrange(10**15):020}"
    return orjson.dumps(body)


def publish(events: int, triggers: int) -> dict[str, int]:
    """Measure the rate of publishing, and the processor time of an event here and in Redis.

    Payloads of 1 KB come from memory; Redis writes each event to its disk.
    """
    chance = Random(1)  # noqa: S311 - invented people
    audiences = audiences_of(triggers)
    rows = b"\n".join(payload(number, chance, audiences) for number in range(events))
    with redis_alone(DESTINATION + trigger_pairs(audiences)) as on:
        publisher = Publisher(on.client, on.settings, waker=SilentWaker())
        publisher.publish([])
        redis_before = redis_seconds(on.client)
        begun, processor_begun = time.perf_counter(), time.process_time()
        accepted = sum(
            publisher.publish(batch).accepted for batch in batches(read_payloads(io.BytesIO(rows)))
        )
        processor_seconds = time.process_time() - processor_begun
        elapsed_seconds = time.perf_counter() - begun
        in_redis = redis_seconds(on.client) - redis_before
    assert accepted == events
    return {
        "events_per_second": round(events / elapsed_seconds),
        "publisher_us_per_event": round(1e6 * processor_seconds / events),
        "redis_us_per_event": round(1e6 * in_redis / events),
    }
