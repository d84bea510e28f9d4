"""The gate in the whole system: how much of a limit is used, and what a changed limit costs.

Two workers with two processes each send requests of one user through the gate. The sandbox counts
a sliding minute: first with the limit that is configured, then with half of it, then with all of
it again. Meanwhile single live events arrive; their waits are measured too. Prints JSON.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx

from ops.bench.frame.crowd import crowd_email, crowd_payloads, crowd_rig
from ops.rig import Rig
from ops.state.status import read_status
from ops.terminal.console import print_json
from producer.publish import Publisher
from worker.contract.redis.connection import connect, resolve_url
from worker.contract.words import BACKFILL, LIVE

WORKERS: Final = 2
PROCESSES: Final = 2
SETTLES_SECONDS: Final = 10.0
"""How long after a limit was changed its requests are left out of the second figure."""
_TOO_MANY: Final = "429"
_START_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.01
_LIVE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class LimitPhase:
    """A time with one limit.

    Args:
        limit: Of the sandbox, a minute.
        begun: By the clock of the sandbox.
        minute_seconds: What the sandbox takes for a minute.
    """

    name: str
    limit: int
    begun: float
    ended: float
    minute_seconds: float = 60


@dataclass(slots=True)
class LiveEvents:
    """Publishes single live events, and measures until the sandbox has each."""

    rig: Rig
    every_seconds: float
    waits: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, after the event that is on its way."""
        self._stop.set()
        if self._thread:
            self._thread.join()

    def shown(self) -> dict[str, float]:
        """Return the figures."""
        waits = sorted(self.waits)
        if not waits:
            return {"events": 0}
        return {
            "events": len(waits),
            "median_seconds": round(statistics.median(waits), 3),
            "p95_seconds": round(waits[int(0.95 * (len(waits) - 1))], 3),
            "longest_seconds": round(waits[-1], 3),
        }

    def _run(self) -> None:
        publisher = Publisher(connect(resolve_url(self.rig.settings.redis)), self.rig.settings)
        with httpx.Client(base_url=self.rig.sandbox.url) as client:
            for number in count():
                if self._stop.wait(self.every_seconds):
                    return
                self.waits.append(self._measure(publisher, client, number))

    def _measure(self, publisher: Publisher, client: httpx.Client, number: int) -> float:
        begun = time.monotonic()
        publisher.publish(crowd_payloads([number], "live"), LIVE)
        query = {"email": crowd_email(number, "live")}
        while time.monotonic() < begun + _LIVE_SECONDS:
            if client.get("/_sandbox/profile", params=query).is_success:
                break
            time.sleep(_LOOK_SECONDS)
        return time.monotonic() - begun


def start_workers(rig: Rig, workers: int = WORKERS, processes: int = PROCESSES) -> None:
    """Start workers, and wait until all are ready.

    Raises:
        OperationsMustAct: One does not start.
    """
    first = len(rig.workers)
    for _ in range(workers):
        rig.start_worker(f"--concurrency={processes}")
    rig.wait_until_ready(_START_SECONDS, since=first)


def publish_crowd(rig: Rig, numbers: Sequence[int]) -> None:
    """Publish entrances through the backfill lane."""
    Publisher(rig.client, rig.settings).publish(crowd_payloads(numbers), BACKFILL)


def figures(timeline: Sequence[dict[str, Any]], phase: LimitPhase) -> dict[str, Any]:
    """Return what a phase came to.

    Args:
        timeline: Of the sandbox: statuses by second.
        phase: Seconds that it shares with another are left out.
    """
    inside = [row for row in timeline if phase.begun <= row["second"] < int(phase.ended)]
    limited = [(row["second"], row["by_status"].get(_TOO_MANY, 0)) for row in inside]
    taken = [(row["second"], row["by_status"].get("200", 0)) for row in inside]
    first = next((second for second, number in limited if number), None)
    later = phase.begun + SETTLES_SECONDS
    late_limited = sum(number for second, number in limited if second >= later)
    late_taken = sum(number for second, number in taken if second >= later)
    minute_began = int(phase.ended) - phase.minute_seconds
    last_minute = sum(number for second, number in taken if second >= minute_began)
    return {
        "limit_per_minute": phase.limit,
        "seconds": round(phase.ended - phase.begun, 1),
        "taken": sum(number for _, number in taken),
        "limited": sum(number for _, number in limited),
        "first_limited_after_seconds": None if first is None else round(first - phase.begun, 1),
        "limited_after_10_seconds": late_limited,
        "share_limited_after_10_seconds": round(
            late_limited / max(1, late_limited + late_taken), 5
        ),
        "share_of_limit_in_last_minute": round(last_minute / phase.limit, 4),
    }


def main() -> int:
    """Run the three phases, and print what they came to."""
    arguments = _arguments()
    limit = arguments.limit
    plan = (
        ("full", limit, arguments.full_seconds),
        ("halved", limit // 2, arguments.halved_seconds),
        ("raised", limit, arguments.raised_seconds),
    )
    with tempfile.TemporaryDirectory(prefix="segrelay-gate-") as folder:
        settings = {"limit_per_minute": limit, "latency_seconds": arguments.latency_seconds}
        with crowd_rig(Path(folder), rate=f"{limit}/min", sandbox_settings=settings) as rig:
            seconds = sum(seconds for *_, seconds in plan)
            publish_crowd(rig, range(round(1.1 * limit * seconds / 60) + limit))
            start_workers(rig)
            report = _run(rig, plan, arguments.live_every_seconds)
    print_json(report)
    return 0


def _run(
    rig: Rig, plan: Sequence[tuple[str, int, float]], live_every_seconds: float
) -> dict[str, Any]:
    while not rig.sandbox.get("summary")["requests"]["total"]:
        time.sleep(_LOOK_SECONDS)
    phases: list[LimitPhase] = []
    gates: list[dict[str, Any]] = []
    live = LiveEvents(rig, live_every_seconds)
    live.start()
    for name, limit, seconds in plan:
        rig.sandbox.settings(limit_per_minute=limit)
        begun = time.time()
        time.sleep(seconds)
        phases.append(LimitPhase(name, limit, begun, time.time()))
        gates.append(read_status(rig.client, rig.settings)["destinations"]["insider"])
        if name == plan[0][0]:
            live.stop()
    timeline = rig.sandbox.get("requests", last=0)["timeline"]
    summary = rig.sandbox.get("summary")["limit"]
    return {
        "workers": WORKERS,
        "processes_each": PROCESSES,
        "highest_minute_received": summary["highest_received"],
        "highest_minute_admitted": summary["highest_admitted"],
        "live_while_full": live.shown(),
        "phases": {
            phase.name: figures(timeline, phase) | {"gate_at_its_end": gate}
            for phase, gate in zip(phases, gates, strict=True)
        },
        "dead": read_status(rig.client, rig.settings)["dead"],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=600, help="requests a minute")
    parser.add_argument("--full-seconds", type=float, default=90.0)
    parser.add_argument("--halved-seconds", type=float, default=180.0)
    parser.add_argument("--raised-seconds", type=float, default=300.0)
    parser.add_argument("--latency-seconds", type=float, default=0.05, help="of the sandbox")
    parser.add_argument("--live-every-seconds", type=float, default=1.5)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
