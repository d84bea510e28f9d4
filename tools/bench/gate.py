"""A benchmark of the gate in the whole system: how much of a rate limit it uses, and exceeds."""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx

from segrelay.ops.embedded import free_port
from segrelay.ops.status.command import read_status
from segrelay.ops.terminal.moments import awaited
from segrelay.producer.publish import Publisher
from segrelay.producer.publishing.published import PublishOptions
from segrelay.worker.contract.redis.connection import connect, resolve_url
from segrelay.worker.contract.words import BACKFILL
from tests.rig import Rig
from tools.bench.rigs import FIRST_LIVE_PERSON, live_payload, requests_of, start_workers

CROWD: Final = "crowd"
"""The name of the destination that this benchmark adds, of its trigger, and of its audience."""

TEMPLATE: Final = """\
local insider = import "insider.libsonnet";

{ users: [{ identifiers: insider.identifiers, attributes: { name: "Somebody" } }] }
"""
_TABLES: Final = """\
[destinations.crowd]
api = "http"
base_url = "{sandbox}"
authorization = "insider"
rate = "{rate}"

[destinations.crowd.http]
networks = ["127.0.0.0/8"]

[triggers.crowd]
destination = "crowd"
audiences = ["crowd"]
on = "enter"
template = "crowd.jsonnet"
url = "/api/user/v1/upsert"
"""


def crowd_rig(
    folder: Path, *, rate: str, sandbox_settings: dict[str, Any], delivery_lines: str = ""
) -> Rig:
    """Return a rig that also has the destination `crowd`."""
    port = free_port()
    return Rig(
        folder,
        rate=rate,
        delivery_lines=delivery_lines,
        more=_TABLES.format(sandbox=f"http://127.0.0.1:{port}", rate=rate),
        templates={"crowd.jsonnet": TEMPLATE},
        sandbox_settings={"port": port, **sandbox_settings},
    )


_LIMIT: Final = 600
"""Requests a minute that the sandbox takes."""
_SECONDS: Final = 90.0
_LIVE_EVERY_SECONDS: Final = 1.5
_LOOK_SECONDS: Final = 0.01
_LIVE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class LimitPhase:
    """A time span in which the sandbox has one limit.

    Args:
        limit: Requests a minute that the sandbox takes.
        begun: Start by the clock of the sandbox.
        minute_seconds: Length of the sandbox's minute.
    """

    limit: int
    begun: float
    ended: float
    minute_seconds: float = 60


@dataclass(slots=True)
class LiveEvents:
    """A thread that publishes single live events and measures until the sandbox has each."""

    rig: Rig
    every_seconds: float
    waits: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop publishing after the event that is under way."""
        self._stop.set()
        if self._thread:
            self._thread.join()

    def shown(self) -> dict[str, float]:
        """Return the median, the 95th percentile and the longest of the waits for delivery."""
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
        email, payload = live_payload(FIRST_LIVE_PERSON + number, CROWD)
        publisher.publish([payload])
        while time.monotonic() < begun + _LIVE_SECONDS:
            if client.get("/_sandbox/profile", params={"email": email}).is_success:
                break
            time.sleep(_LOOK_SECONDS)
        return time.monotonic() - begun


def publish_crowd(rig: Rig, numbers: Sequence[int]) -> None:
    """Publish entrances through the backfill lane."""
    crowd = [live_payload(number, CROWD)[1] for number in numbers]
    Publisher(rig.client, rig.settings).publish(crowd, PublishOptions(BACKFILL))


def figures(timeline: Sequence[dict[str, Any]], phase: LimitPhase) -> dict[str, Any]:
    """Return how many requests of a phase were taken or refused, and the share of the limit used.

    Args:
        timeline: The sandbox's counts of statuses by second.
        phase: Seconds that it shares with another are left out.
    """
    inside = [row for row in timeline if phase.begun <= row["second"] < int(phase.ended)]
    last_minute = int(phase.ended) - phase.minute_seconds
    taken = [(row["second"], row["by_status"].get("200", 0)) for row in inside]
    used = sum(number for second, number in taken if second >= last_minute)
    return {
        "taken": sum(number for _, number in taken),
        "limited": sum(row["by_status"].get("429", 0) for row in inside),
        "share_of_limit_in_last_minute": round(used / phase.limit, 4),
    }


def gate() -> dict[str, Any]:
    """Measure how much of a limit two workers use, and how long live events wait meanwhile.

    Two workers with two processes each send requests of one user through the gate, and the sandbox
    counts a sliding minute.
    """
    settings = {"limit_per_minute": _LIMIT, "latency_seconds": 0.05}
    with (
        tempfile.TemporaryDirectory(prefix="segrelay-bench-") as folder,
        crowd_rig(Path(folder), rate=f"{_LIMIT}/min", sandbox_settings=settings) as rig,
    ):
        publish_crowd(rig, range(round(1.1 * _LIMIT * _SECONDS / 60) + _LIMIT))
        start_workers(rig)
        awaited(lambda: requests_of(rig), _LIVE_SECONDS, _LOOK_SECONDS)
        live = LiveEvents(rig, _LIVE_EVERY_SECONDS)
        live.start()
        begun = time.time()
        time.sleep(_SECONDS)
        phase = LimitPhase(_LIMIT, begun, time.time())
        live.stop()
        summary = rig.sandbox.get("summary")["limit"]
        return {
            "highest_minute_received": summary["highest_received"],
            "highest_minute_admitted": summary["highest_admitted"],
            "live": live.shown(),
            **figures(rig.sandbox.get("requests", last=0)["timeline"], phase),
            "dead": read_status(rig.client, rig.settings)["dead"],
        }
