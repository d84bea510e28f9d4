"""Events per second, end to end: `segrelay send`, Redis, workers, the sandbox without latency.

Run it with `make bench`. Everything runs on this machine and shares its cores: the sender, Redis
with `appendfsync always`, the workers, and the sandbox that checks and keeps every user.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ops.invented import Happening, happenings, payloads, truth
from ops.rig import Rig
from ops.terminal.console import print_json
from worker.errors import SegrelayError


def main() -> int:
    """Measure, print, and compare what the sandbox holds with what the events say."""
    arguments = _arguments()
    rng = random.Random(arguments.seed)  # noqa: S311 - invented people
    happened = happenings(rng, events=arguments.events, people=arguments.people)
    with (
        tempfile.TemporaryDirectory(prefix="segrelay-bench-") as folder,
        _rig(folder, arguments) as rig,
    ):
        source = _source(Path(folder), happened, arguments)
        backlog = _measure(rig, source, arguments, preload=True)
        wrong = rig.memberships() != truth(happened)
    together = None
    if not arguments.backlog_only:
        with (
            tempfile.TemporaryDirectory(prefix="segrelay-bench-") as folder,
            _rig(folder, arguments) as rig,
        ):
            source = _source(Path(folder), happened, arguments)
            together = _measure(rig, source, arguments, preload=False)
            wrong = wrong or rig.memberships() != truth(happened)
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "events": arguments.events,
        "people": arguments.people,
        "profile_bytes": arguments.profile_bytes,
        "fields": arguments.fields,
        "latency_ms": arguments.latency_ms,
        "triggers": 3 if arguments.exit_events else 2,
        "accept_then_drain": backlog,
        "accept_while_draining": together,
        "memberships_wrong": wrong,
    }
    print_json(report)
    return int(wrong)


def _rig(folder: str, arguments: argparse.Namespace) -> Rig:
    return Rig(
        Path(folder),
        exit_events=arguments.exit_events,
        sandbox_settings={"latency_seconds": arguments.latency_ms / 1000},
    )


def _source(folder: Path, happened: list[Happening], arguments: argparse.Namespace) -> Path:
    source = folder / "events.ndjson"
    with source.open("wb") as file:
        for payload in payloads(
            happened, profile_bytes=arguments.profile_bytes, fields=arguments.fields
        ):
            file.write(payload + b"\n")
    return source


def _measure(
    rig: Rig, source: Path, arguments: argparse.Namespace, *, preload: bool
) -> dict[str, Any]:
    if not preload:
        rig.start_worker()
        rig.wait_until_ready()
    empty_bytes = int(rig.client.info("memory")["used_memory"])
    begun = time.monotonic()
    answer = rig.command("send", str(source), "--json", timeout=600)
    if answer.returncode:
        raise SegrelayError(answer.stderr.decode())
    accepted_seconds = time.monotonic() - begun
    redis_bytes = int(rig.client.info("memory")["used_memory"]) - empty_bytes
    if preload:
        rig.start_worker()
        rig.wait_until_ready()
        begun = time.monotonic()
    rig.wait_until_empty(600)
    seconds = time.monotonic() - begun
    counts = rig.counts()
    accepted = sum(n for name, n in counts.items() if name.startswith("accepted|"))
    return {
        "accepted_per_second": round(arguments.events / accepted_seconds),
        "seconds": round(seconds, 2),
        "events_per_second": round(arguments.events / seconds),
        "deliveries": accepted,
        "deliveries_per_second": round(accepted / seconds),
        "redis_bytes_per_event": round(redis_bytes / arguments.events) if preload else None,
        "requests": rig.sandbox.get("summary")["requests"]["total"],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--people", type=int, default=40_000)
    parser.add_argument(
        "--exit-events", action="store_true", help="a third trigger: two deliveries for an exit"
    )
    parser.add_argument("--profile-bytes", type=int, default=1_000)
    parser.add_argument("--fields", type=int, default=0, help="of a profile, at least")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="of the sandbox")
    parser.add_argument(
        "--backlog-only", action="store_true", help="do not accept a second time while draining"
    )
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
