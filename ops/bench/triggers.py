"""What many triggers cost: `python -m ops.bench.triggers --triggers 2 40 400 --events 30000`.

Half of the triggers send entrances and half send exits, each pair for an audience of its own. The
same number of events is accepted first and then drained, whatever the number of triggers is.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from ops.bench.frame.ground import audiences_of, pairs
from ops.invented import happenings, payloads
from ops.rig import Rig
from ops.terminal.console import print_json
from producer.publish import Publisher
from producer.sources.files import batches
from producer.sources.reading import read_payloads
from worker.errors import SegrelayError

_LOOK_SECONDS: Final = 0.02


def measure(triggers: int, *, events: int, people: int, seed: int) -> dict[str, Any]:
    """Accept and drain so many events, evenly spread over so many triggers."""
    audiences = audiences_of(triggers)
    rng = random.Random(seed)  # noqa: S311 - invented people
    happened = happenings(rng, events=events, people=people, audiences=audiences)
    with (
        tempfile.TemporaryDirectory(prefix="segrelay-bench-") as folder,
        Rig(Path(folder), exit_events=False, more=pairs(audiences)) as rig,
    ):
        source = Path(folder) / "events.ndjson"
        source.write_bytes(b"\n".join(payloads(happened)) + b"\n")
        accepted_seconds = accepted_seconds_of(rig, source)
        before = _processor_seconds()
        begun = time.monotonic()
        rig.start_worker()
        rig.wait_until_ready()
        ready_seconds = time.monotonic() - begun
        first_request_seconds = _first_request(rig) - begun
        rig.wait_until_empty(600)
        seconds = time.monotonic() - begun
        requests = rig.sandbox.get("summary")["requests"]["total"]
        rig.stop_workers()
        processor_seconds = _processor_seconds() - before
    return {
        "triggers": triggers,
        "events": events,
        "accepted_per_second": round(events / accepted_seconds),
        "ready_seconds": round(ready_seconds, 2),
        "first_request_seconds": round(first_request_seconds, 2),
        "events_per_second": round(events / (seconds - ready_seconds)),
        "requests_per_1000_events": round(1000 * requests / events, 2),
        "worker_processor_seconds_per_1000_events": round(1000 * processor_seconds / events, 3),
    }


def accepted_seconds_of(rig: Rig, source: Path) -> float:
    """Publish all of a file in this process; returns how long it took."""
    publisher = Publisher(rig.client, rig.settings)
    with source.open("rb") as rows:
        begun = time.perf_counter()
        for batch in batches(read_payloads(rows)):
            publisher.publish(batch)
        return time.perf_counter() - begun


def _first_request(rig: Rig) -> float:
    end = time.monotonic() + 120
    while not rig.sandbox.get("summary")["requests"]["total"]:
        if time.monotonic() > end:
            raise SegrelayError("The worker made no request within two minutes.")
        time.sleep(_LOOK_SECONDS)
    return time.monotonic()


def _processor_seconds() -> float:
    """Return the processor time of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure, and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--triggers", type=int, nargs="+", default=[2, 40, 400])
    parser.add_argument("--events", type=int, default=30_000)
    parser.add_argument("--people", type=int, default=25_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    results = [
        measure(count, events=asked.events, people=asked.people, seed=asked.seed)
        for count in asked.triggers
    ]
    print_json(results)


if __name__ == "__main__":
    main()
