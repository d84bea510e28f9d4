"""How many events a second one process publishes: `python -m ops.bench.publish [EVENTS]`.

Payloads of 1 KB, from a file to an embedded Redis that writes each one to its disk.
"""

from __future__ import annotations

import io
import random
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Final

import orjson

from ops.cli.console import say
from ops.embedded.lifecycle import ensure_running, stop
from producer.doorbell import SilentDoorbell
from producer.files import batches
from producer.publish import Publisher
from producer.reading import read_payloads
from worker.contract.redis.connection import connect
from worker.contract.settings import Settings, load_settings

_EVENTS: Final = 100_000
_PEOPLE: Final = 30_000
_PAYLOAD_BYTES: Final = 1_024
CONFIGURATION: Final = """
[destinations.insider]
api = "insider"
base_url = "https://unification.useinsider.com"
rate = "25000/min"
[triggers.vip-enter]
destination = "insider"
audiences = ["vip"]
on = "enter"
template = "enter.jsonnet"
url = "/api/user/v1/upsert"
[triggers.vip-exit]
destination = "insider"
audiences = ["vip"]
on = "exit"
template = "enter.jsonnet"
url = "/api/user/v1/attribute/delete"
"""


def payload(number: int, chance: random.Random) -> bytes:
    """Return a wrapped payload of 1 KB, of an invented person."""
    direction = chance.choice(("enter", "exit"))
    person = chance.randrange(_PEOPLE)
    stamp = f"2026-11-01T10:{number // 60 % 60:02}:{number % 60:02}.{number % 1_000_000:06}Z"
    audience = {"id": "0" * 32, "slug": "vip", "event": direction, direction: stamp}
    data = {"email": f"person{person}@example.com", "score": person, "segment_events": [audience]}
    body = {"id": str(person), "data": data, "meta": {"object": "user", "timestamp": stamp}}
    missing = _PAYLOAD_BYTES - len(orjson.dumps(body))
    for field in range(missing // 40):
        data[f"field_{field:02}"] = f"value {chance.randrange(10**15):020}"
    return orjson.dumps(body)


def measure(events: int) -> float:
    """Return events a second."""
    chance = random.Random(1)  # noqa: S311 - invented people
    source = io.BytesIO(b"\n".join(payload(number, chance) for number in range(events)))
    with tempfile.TemporaryDirectory() as folder:
        settings = _settings(Path(folder))
        data_dir = Path(folder) / "redis"
        try:
            with closing(connect(ensure_running(data_dir).url)) as client:
                publisher = Publisher(client, settings, doorbell=SilentDoorbell())
                begun = time.perf_counter()
                accepted = sum(
                    publisher.publish(batch).accepted for batch in batches(read_payloads(source))
                )
                elapsed_seconds = time.perf_counter() - begun
        finally:
            stop(data_dir)
    assert accepted == events
    return events / elapsed_seconds


def _settings(folder: Path) -> Settings:
    (folder / "templates").mkdir()
    (folder / "templates" / "enter.jsonnet").write_text("{}")
    (folder / "segrelay.toml").write_text(CONFIGURATION)
    return load_settings(folder / "segrelay.toml", environ={})


def main() -> None:
    """Print the result."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else _EVENTS
    say(f"publish: {measure(events):,.0f} events/s ({events:,} payloads of 1 KB)")


if __name__ == "__main__":
    main()
