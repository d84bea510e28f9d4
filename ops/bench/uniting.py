"""What many audiences of the same people cost: `python -m ops.bench.uniting --people 1500`.

Everybody enters each audience once, at about one time, as after a re-evaluation at Lytics or in a
first backfill. The same number of events of different people is measured beside it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ops.bench.triggers import accepted_seconds_of
from ops.invented import Happening, payloads
from ops.rig import Rig
from ops.terminal.console import print_json

_TRIGGER: Final = """\
[triggers.many]
destination = "insider"
audiences = [{audiences}]
on = "enter"
template = "insider/enter.jsonnet"
url = "/api/user/v1/upsert"
"""
_HOUR_US: Final = 3_600_000_000


def measure(people: int, audiences: int, *, unite: bool) -> dict[str, Any]:
    """Accept the entrances of so many people into so many audiences each, and drain them."""
    slugs = [f"bench-{number}" for number in range(audiences)]
    start_us = int(datetime.now(UTC).timestamp() * 1_000_000) - _HOUR_US
    happened = [
        Happening(
            email=f"person{person}@example.com",
            audience=slug,
            is_exit=False,
            time_us=start_us + person * audiences + at,
        )
        for person in range(people)
        for at, slug in enumerate(slugs)
    ]
    listed = ", ".join(f'"{slug}"' for slug in slugs)
    with (
        tempfile.TemporaryDirectory(prefix="segrelay-bench-") as folder,
        Rig(
            Path(folder),
            exit_events=False,
            more=_TRIGGER.format(audiences=listed),
            destination_lines=f"unite = {str(unite).lower()}",
        ) as rig,
    ):
        source = Path(folder) / "events.ndjson"
        source.write_bytes(b"\n".join(payloads(happened)) + b"\n")
        accepted_seconds_of(rig, source)
        rig.start_worker()
        rig.wait_until_ready()
        begun = time.monotonic()
        rig.wait_until_empty(600)
        seconds = time.monotonic() - begun
        requests = rig.sandbox.get("summary")["requests"]["total"]
        rig.stop_workers()
    return {
        "people": people,
        "audiences": audiences,
        "unite": unite,
        "events": len(happened),
        "events_per_second": round(len(happened) / seconds),
        "requests_per_1000_events": round(1000 * requests / len(happened), 2),
    }


def main() -> None:
    """Measure, and print the results as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=1_500)
    parser.add_argument("--audiences", type=int, default=20)
    parser.add_argument("--apart", action="store_true", help="measure it without uniting, too")
    asked = parser.parse_args()
    results = [
        measure(asked.people * asked.audiences, 1, unite=True),
        measure(asked.people, asked.audiences, unite=True),
    ]
    if asked.apart:
        results.append(measure(asked.people, asked.audiences, unite=False))
    print_json(results)


if __name__ == "__main__":
    main()
