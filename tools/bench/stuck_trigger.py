"""A benchmark of a trigger that delivers nothing: how much it slows down the others."""

from __future__ import annotations

import time
from random import Random
from typing import Any, Final

from segrelay.ops.demo.rig import Rig
from segrelay.ops.status.status import read_status
from segrelay.sandbox.people import Happening, happenings, payloads
from tools.bench.frame.rigs import bench_rig, send, start_workers, wait_until

_EXITS: Final = "/api/user/v1/attribute/delete"
_WAITING_OF_A_PAUSED: Final = 100_000
"""Number of deliveries that wait for the paused trigger."""
_TRIED_AT_MOST: Final = 64
"""The number of deliveries of other triggers that may still wait at the end of the measurement.

They are for people whose delivery by the failing trigger was tried lately."""
_MOST_SECONDS: Final = 600.0


def drain_beside_stuck(events: int, stuck: str = "") -> dict[str, float]:
    """Measure how long all other triggers take while the trigger `exit` is stuck.

    Args:
        events: Events of all triggers.
        stuck: "paused" beside 100,000 deliveries, "failing" if its URL answers 500, or "".
    """
    chance = Random(1)  # noqa: S311 - invented people
    happened = happenings(chance, events=events, people=events // 2)
    failures = [{"status": 500, "path": _EXITS}] if stuck == "failing" else []
    with bench_rig(
        delivery_lines='late = "5s"',
        sandbox_settings={"latency_seconds": 0.02, "failures": failures},
    ) as rig:
        if stuck == "paused":
            rig.command("pause", "trigger:exit").check_returncode()
            happened = [*_exits(chance, people=events), *happened]
        send(rig, payloads(happened, profile_bytes=300))
        begun = time.monotonic()
        start_workers(rig)
        wait_until(
            lambda: _waiting_of(rig, "enter") <= _TRIED_AT_MOST,
            _MOST_SECONDS,
            "The other triggers are not done within ten minutes.",
        )
        return {"seconds": round(time.monotonic() - begun, 1)}


def _exits(chance: Random, people: int) -> list[Happening]:
    many = happenings(chance, events=2 * _WAITING_OF_A_PAUSED, people=people)
    return [event for event in many if event.is_exit]


def _waiting_of(rig: Rig, trigger: str) -> int:
    triggers: dict[str, Any] = read_status(rig.client, rig.settings)["triggers"]
    return int(triggers[trigger]["waiting"])
